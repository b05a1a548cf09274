"""BERT's masking of whole batches in stateless TF ops: a row's mask follows from (seed, global position)."""

import math

from xlmr_jax.data.tokenizer import FIRST_PIECE, PAD

_UNEQUALLED = 2**31 - 1  # the key of what must not be chosen
_KEY_BITS = 2**30 - 1  # keys of what may be chosen stay far below it


def slots_per_row(seq_len: int, mask_share: float = 0.15) -> int:
  """The most tokens of a row that can be masked, rounded up to a multiple of 8: 512 -> 80, 128 -> 24."""
  return -(-math.ceil(mask_share * seq_len) // 8) * 8


def words_per_row(seq_len: int, slots: int) -> int:
  """32-bit random words of a row: a key a token, one for the count, two a slot, in whole Philox blocks of
  4."""
  return -(-(seq_len + 1 + 2 * slots) // 4) * 4


def mask_rows(
  ids,
  first_position,
  *,
  seed: int,
  vocabulary_size: int,
  slots: int,
  mask_share: float = 0.15,
  replace_share: float = 0.8,
  random_share: float = 0.1,
):
  """Masks rows with the global positions first_position + [0, n).

  ids: int32[n, L]; first_position: int64 scalar. Returns, with P = slots, {"ids" int32[n, L], "positions"
  int32[n, P], "labels" int32[n, P], "weights" float32[n, P]}: positions ascend, unused slots come last and
  hold position 0, label <pad>, weight 0.

  Of each row mask_share of the real pieces is chosen, without replacement, the count rounded at random so
  that its mean is exact (fairseq: data/mask_tokens_dataset.py). replace_share of them become <mask>,
  random_share a uniform draw from the real pieces, the rest stay. fairseq also masks <s> and </s>; we do
  not: no text is in them.

  One Philox call covers the batch, its counter set by position: a row gets the same bits in whatever batch.
  """
  import tensorflow as tf

  rows, seq_len = tf.shape(ids)[0], ids.shape[1]
  if not 0 <= mask_share <= 1 or replace_share + random_share > 1:
    raise ValueError(f"no shares: mask {mask_share}, replace {replace_share}, random {random_share}")
  if slots < math.ceil(mask_share * seq_len):
    raise ValueError(f"{slots} slots cannot hold {mask_share} of {seq_len} tokens; use slots_per_row")
  words = words_per_row(seq_len, slots)
  block = tf.cast(first_position, tf.uint64) * (words // 4)
  bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
    shape=[rows, words],
    key=tf.constant([seed % 2**64], tf.uint64),
    counter=tf.stack([block, tf.zeros_like(block)]),
    alg=1,  # Philox, always: the default may differ by device
    dtype=tf.int32,
  )
  key_bits, count_bits, kind_bits, piece_bits, _ = tf.split(
    bits, [seq_len, 1, slots, slots, words - seq_len - 1 - 2 * slots], axis=1
  )

  # How many: floor(share * n + U[0, 1)).
  eligible = ids >= FIRST_PIECE
  n_eligible = tf.math.count_nonzero(eligible, axis=1, dtype=tf.float64)
  counts = tf.cast(tf.floor(mask_share * n_eligible + _uniform(count_bits[:, 0])), tf.int32)

  # Which: the `count` smallest of distinct random keys (the position is in the low bits). NthElement wants
  # one n for all rows: slots - count keys below all others, put behind the row, make it so. top_k takes 3
  # times as long.
  position_bits = 2 ** (seq_len - 1).bit_length() - 1
  random_bits = tf.bitwise.bitwise_and(key_bits, _KEY_BITS & ~position_bits)
  keys = tf.where(eligible, random_bits + tf.range(seq_len), _UNEQUALLED)
  filler = tf.where(tf.range(slots) < slots - counts[:, None], -1, _UNEQUALLED)
  last = tf.raw_ops.NthElement(input=tf.concat([keys, filler], axis=1), n=slots - 1)
  columns = tf.where(keys <= last[:, None])[:, 1]
  chosen = tf.RaggedTensor.from_row_lengths(tf.cast(columns, tf.int32), counts, validate=False)
  positions = chosen.to_tensor(default_value=0, shape=[None, slots])
  used = tf.sequence_mask(counts, slots)
  labels = tf.gather(ids, positions, batch_dims=1)

  # What is written there.
  mask_id = vocabulary_size - 1
  pieces = FIRST_PIECE + tf.cast(_uniform(piece_bits) * (mask_id - FIRST_PIECE), tf.int32)
  kind = _uniform(kind_bits)
  kept_or_random = tf.where(kind < replace_share + random_share, pieces, labels)
  written = tf.where(kind < replace_share, mask_id, kept_or_random)
  change = tf.where(used, written - labels, 0)  # added, not stored: unused slots all point at position 0
  flat = tf.range(rows)[:, None] * seq_len + positions
  return {
    "ids": ids + tf.reshape(tf.math.unsorted_segment_sum(change, flat, rows * seq_len), [-1, seq_len]),
    "positions": positions,
    "labels": tf.where(used, labels, PAD),
    "weights": tf.cast(used, tf.float32),
  }


def _uniform(bits):
  """int32 random bits -> float64 in [0, 1), exact."""
  import tensorflow as tf

  return (tf.cast(bits, tf.float64) + 2.0**31) * 2.0**-32
