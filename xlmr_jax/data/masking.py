"""BERT's masking of whole batches in stateless TensorFlow operations: a row's mask follows from (seed, global position)."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from xlmr_jax.data import mask_units
from xlmr_jax.ids import FIRST_PIECE, PAD, WORD_START, mask_id

_NEVER_CHOSEN = 2**31 - 1  # the sort key of tokens that must not be chosen
_KEY_BITS = 2**30 - 1  # the keys of tokens that may be chosen stay far below it


def slots_per_row(seq_len: int, mask_share: float = 0.15) -> int:
  """The most tokens of a row that can be masked, rounded up to a multiple of 8: 512 -> 80, 128 -> 24."""
  return -(-math.ceil(mask_share * seq_len) // 8) * 8


def words_per_row(seq_len: int, slots: int, unit: str = "piece") -> int:
  """32-bit random words per row: one per token, one for the count, two per slot, rounded up to Philox blocks of four.

  Spans need one more per token, for their lengths.
  """
  return -(-(seq_len * (2 if unit == "span" else 1) + 1 + 2 * slots) // 4) * 4


def mask_rows(
  ids: Any,
  first_position: Any,
  *,
  seed: int,
  vocabulary_size: int,
  slots: int,
  mask_share: float = 0.15,
  replace_share: float = 0.8,
  random_share: float = 0.1,
  offsets: np.ndarray | None = None,
  mask: int | None = None,
  no_pieces: Collection[int] = (),
  unit: str = "piece",
  span_mean: float = 3.8,
) -> dict[str, Any]:
  """Masks rows. Row i has the global position first_position + offsets[i]; offsets, int64[n], are 0, 1, ... by default.

  ids: tensor int32[n, L]; first_position: scalar tensor int64. Returns, with P = slots, the tensors {"ids" int32[n, L],
  "positions" int32[n, P], "labels" int32[n, P], "weights" float32[n, P]}. Positions ascend; unused slots come last and hold
  position 0, label <pad> and weight 0.

  In each row mask_share of the real pieces is chosen, without replacement. Their number is rounded up or down at random so
  that its mean is exact (fairseq: data/mask_tokens_dataset.py). replace_share of them become <mask>, random_share become a
  uniform draw from the real pieces, and the others stay. fairseq may also mask <s> and </s>; we do not, because they hold
  no text.

  mask: the id of <mask>, by default the last. no_pieces: the other ids from FIRST_PIECE on that are never chosen or drawn,
  such as special tokens that were added, control pieces and the rows of a padded embedding.

  unit: with "word", words are chosen whole, and with "span" runs of words whose lengths are geometric with the mean
  span_mean (mask_units.py has both). Then ids bear WORD_START at the first piece of each word, and those that are returned
  do not. A row gets as many masked pieces as with "piece", or fewer if no word is small enough for the rest. What is written
  is drawn for each piece of a word (BERT's create_pretraining_data.py), and once for a span (SpanBERT, section 3.1), in
  which the other pieces are one by one drawn.

  The counter of the random generator is a row's position, so a row gets the same bits in every batch. Each run of
  consecutive offsets costs one call of the generator.
  """
  import tensorflow as tf

  rows, seq_len = tf.shape(ids)[0], ids.shape[1]
  if not 0 <= mask_share <= 1 or replace_share + random_share > 1:
    raise ValueError(f"no shares: mask {mask_share}, replace {replace_share}, random {random_share}")
  if slots < math.ceil(mask_share * seq_len):
    raise ValueError(f"{slots} slots cannot hold {mask_share} of {seq_len} tokens; use slots_per_row")
  words = words_per_row(seq_len, slots, unit)
  marked, ids = ids, ids if unit == "piece" else tf.bitwise.bitwise_and(ids, WORD_START - 1)

  def random_words(first: Any, count: Any) -> Any:  # int32[count, words] of the positions first, first + 1, ...
    block = tf.cast(first, tf.uint64) * (words // 4)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
      shape=[count, words],
      key=tf.constant([seed % 2**64], tf.uint64),
      counter=tf.stack([block, tf.zeros_like(block)]),
      alg=1,  # Always Philox: the default may differ between devices.
      dtype=tf.int32,
    )

  runs = [(0, rows)] if offsets is None else _runs(offsets)
  parts = [random_words(first_position + start, count) for start, count in runs]
  bits = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
  key_bits, count_bits, kind_bits, piece_bits, more_bits = tf.split(
    bits, [seq_len, 1, slots, slots, words - seq_len - 1 - 2 * slots], axis=1
  )

  mask = mask_id(vocabulary_size) if mask is None else mask
  real = np.setdiff1d(np.arange(FIRST_PIECE, vocabulary_size, dtype=np.int32), [mask, *no_pieces])
  is_real_V = None if len(no_pieces) == 0 else np.isin(np.arange(vocabulary_size), real)

  # How many tokens: floor(share * n + U[0, 1)).
  eligible = ids >= FIRST_PIECE if is_real_V is None else tf.gather(tf.constant(is_real_V), ids)
  n_eligible = tf.math.count_nonzero(eligible, axis=1, dtype=tf.float64)
  counts = tf.cast(tf.floor(mask_share * n_eligible + _uniform(count_bits[:, 0])), tf.int32)

  kind = _uniform(kind_bits)
  if unit == "piece":
    positions = _choose_pieces(key_bits, eligible, counts, slots)
  else:
    span_bits = more_bits[:, :seq_len] if unit == "span" else None
    positions, counts, kind_slots = _choose_units(marked, key_bits, counts, slots, span_bits, span_mean, is_real_V)
    kind = tf.gather(kind, kind_slots, batch_dims=1)
  used = tf.sequence_mask(counts, slots)
  labels = tf.gather(ids, positions, batch_dims=1)

  # What is written there.
  pieces = tf.gather(tf.constant(real, tf.int32), tf.cast(_uniform(piece_bits) * len(real), tf.int32))
  kept_or_random = tf.where(kind < replace_share + random_share, pieces, labels)
  written = tf.where(kind < replace_share, mask, kept_or_random)
  # The change is added rather than stored, because all unused slots point at position 0.
  change = tf.where(used, written - labels, 0)
  flat = tf.range(rows)[:, None] * seq_len + positions
  return {
    "ids": ids + tf.reshape(tf.math.unsorted_segment_sum(change, flat, rows * seq_len), [-1, seq_len]),
    "positions": positions,
    "labels": tf.where(used, labels, PAD),
    "weights": tf.cast(used, tf.float32),
  }


def _choose_pieces(key_bits: Any, eligible: Any, counts: Any, slots: int) -> Any:
  """The positions of `counts` eligible tokens of each row, int32[n, slots], ascending and then zeros."""
  import tensorflow as tf

  seq_len = key_bits.shape[1]
  # Those with the `count` smallest of distinct random keys, whose low bits are the token's index. NthElement
  # takes the same n for all rows, so slots - count keys that are smaller than all others are appended to each row. top_k
  # would take three times as long.
  index_bits = 2 ** (seq_len - 1).bit_length() - 1
  random_bits = tf.bitwise.bitwise_and(key_bits, _KEY_BITS & ~index_bits)
  keys = tf.where(eligible, random_bits + tf.range(seq_len), _NEVER_CHOSEN)
  filler = tf.where(tf.range(slots) < slots - counts[:, None], -1, _NEVER_CHOSEN)
  last = tf.raw_ops.NthElement(input=tf.concat([keys, filler], axis=1), n=slots - 1)
  columns = tf.where(keys <= last[:, None])[:, 1]
  chosen: Any = tf.RaggedTensor.from_row_lengths(tf.cast(columns, tf.int32), counts, validate=False)  # pyright: ignore
  return chosen.to_tensor(default_value=0, shape=[None, slots])


def _choose_units(
  marked: Any, key_bits: Any, budgets: Any, slots: int, span_bits: Any | None, span_mean: float, is_real_V: np.ndarray | None
) -> tuple[Any, Any, Any]:
  """mask_units.choose as a TensorFlow operation."""
  import tensorflow as tf

  def choose(marked: np.ndarray, key_bits: np.ndarray, budgets: np.ndarray, *span_bits: np.ndarray) -> mask_units.Chosen:
    return mask_units.choose(marked, key_bits, budgets, slots, *span_bits, span_mean=span_mean, is_real_V=is_real_V)

  given = [marked, key_bits, budgets, *([] if span_bits is None else [span_bits])]
  positions, counts, kind_slots = tf.numpy_function(choose, given, (tf.int32, tf.int32, tf.int32), stateful=False)
  return tf.reshape(positions, [-1, slots]), tf.reshape(counts, [-1]), tf.reshape(kind_slots, [-1, slots])


def _runs(offsets: np.ndarray) -> list[tuple[int, int]]:
  """(first, length) of each run of consecutive numbers: [4, 5, 6, 0, 1] -> [(4, 3), (0, 2)]."""
  starts = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 2) != 1)
  lengths = np.diff(starts, append=len(offsets))
  return list(zip(offsets[starts].tolist(), lengths.tolist()))


def _uniform(bits: Any) -> Any:
  """Random bits, int32, as exact float64 numbers in [0, 1)."""
  import tensorflow as tf

  return (tf.cast(bits, tf.float64) + 2.0**31) * 2.0**-32
