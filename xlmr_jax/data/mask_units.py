"""Which pieces of rows are masked where words, or spans of words, are masked whole, in NumPy; masking.py has the rest."""

import functools
from typing import NamedTuple

import numpy as np

from xlmr_jax.ids import EOS, FIRST_PIECE, WORD_START

UNITS = ("piece", "word", "span")
LONGEST_SPAN = 10  # words (Joshi et al. 2020, SpanBERT, section 3.1)
MOST_SPAN_MEAN = 5.0  # words; 5.5 is the mean of lengths that are all as likely
_NEVER = np.int32(2**31 - 1)  # the key of words in which nothing may be masked
_KEY_BITS = 2**30 - 1


class Chosen(NamedTuple):
  """What is masked in n rows. Behind the first counts[i] slots of row i, positions are 0, kind_slots their own numbers."""

  positions: np.ndarray  # int32[n, P], ascending
  counts: np.ndarray  # int32[n]
  kind_slots: np.ndarray  # int32[n, P], the slot whose random number decides what is written in this one


def split_marks(marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(ids int32[n, L], whether a word starts at a piece bool[n, L]) of rows with WORD_START on the first piece of each word.

  The piece behind a special token starts a word, even if the row begins in the middle of one: what is in the row counts.
  """
  ids, starts = marked & (WORD_START - 1), marked >= WORD_START
  starts[:, 0] = True
  starts[:, 1:] |= ids[:, :-1] <= EOS
  return ids, starts


def choose(
  marked: np.ndarray, key_bits: np.ndarray, budgets: np.ndarray, slots: int, span_bits: np.ndarray | None = None,
  span_mean: float = 3.8, is_real_V: np.ndarray | None = None,
) -> Chosen:  # fmt: skip
  """Chooses words, or spans if there are span_bits, until the budget of each row is spent.

  marked, key_bits, span_bits: int32[n, L], the rows with their marks, and random bits. budgets: int32[n], pieces, at most
  `slots` each. The words of a row are taken in a random order; one that has more pieces than are left is passed over. So a
  row gets exactly its budget, unless no word is small enough for the rest. The words of a span follow one another in that
  order, so that the last span of a row is cut at a word. Pieces that may not be masked do not count.

  is_real_V: for each id, whether it is of a real piece; None: all from FIRST_PIECE on are.
  """
  n, seq_len = marked.shape
  ids, starts = split_marks(marked)
  is_piece = (ids >= FIRST_PIECE if is_real_V is None else is_real_V[ids]).reshape(-1)
  at = np.flatnonzero(starts)  # where words start in the flattened rows
  word_of = np.cumsum(starts.reshape(-1), dtype=np.intp) - 1
  pieces_before = np.cumsum(is_piece, dtype=np.int32)
  pieces_before = pieces_before[at] - is_piece[at]
  sizes = np.diff(pieces_before, append=np.count_nonzero(is_piece)).astype(np.int32)
  row_begins = np.arange(n)[:, None] * seq_len
  # The low bits of a key are the token's number in its row. Keys are distinct, so that any sort gives one order.
  low = 2 ** (seq_len - 1).bit_length() - 1
  random_bits, leader = key_bits.reshape(-1), None
  if span_bits is not None:
    leader = _leaders(ids, at, word_of, span_lengths(span_bits, span_mean))
    random_bits = random_bits[at[leader]][word_of]
  random_bits = random_bits.reshape(n, seq_len) & np.int32(_KEY_BITS & ~low)
  keys = np.where(starts, random_bits | np.arange(seq_len, dtype=np.int32), _NEVER)
  keys.sort(axis=1)
  is_taken = np.zeros(at.size, bool)
  left = budgets.copy()
  # The budget is nearly always spent within the first words.
  for rows, columns in ((slice(None), slice(0, slots)), (None, slice(slots, seq_len))):
    rows = np.flatnonzero(left) if rows is None else rows
    drawn = keys[rows, columns]
    words = word_of[row_begins[rows] + np.minimum(drawn & low, seq_len - 1)]
    taken = take_while_they_fit(np.where(drawn < _NEVER, sizes[words], seq_len + 1), left[rows])
    left[rows] -= np.where(taken, sizes[words], 0).sum(1, dtype=np.int32)
    is_taken[words[taken]] = True
  chosen = np.flatnonzero(is_taken[word_of] & is_piece)
  chosen_rows = chosen // seq_len
  counts = np.bincount(chosen_rows, minlength=n)
  begin = np.repeat(np.cumsum(counts) - counts, counts)
  slot = np.arange(chosen.size) - begin
  positions = np.zeros((n, slots), np.int32)
  positions[chosen_rows, slot] = chosen - chosen_rows * seq_len
  kind_slots = np.tile(np.arange(slots, dtype=np.int32), (n, 1))
  if leader is not None:
    is_new = np.diff(leader[word_of[chosen]], prepend=-1) != 0
    kind_slots[chosen_rows, slot] = np.maximum.accumulate(np.where(is_new, np.arange(chosen.size), 0)) - begin
  return Chosen(positions, counts.astype(np.int32), kind_slots)


def take_while_they_fit(sizes: np.ndarray, budgets: np.ndarray) -> np.ndarray:
  """Goes through sizes >= 0, int32[n, m], from left to right and takes those that fit into what is left: bool[n, m]."""
  taken = np.zeros(sizes.shape, bool)
  left, rows = budgets.copy(), np.flatnonzero(budgets > 0)
  while rows.size:
    # Whatever does not fit now never will. Of the others, all up to the first that comes too late are taken.
    sizes_here, left_here = sizes[rows], left[rows, None]
    fits = (sizes_here <= left_here) & ~taken[rows]
    sums = np.cumsum(np.where(fits, sizes_here, 0), axis=1, dtype=np.int32)
    new = fits & (sums <= left_here)
    taken[rows] |= new
    left[rows] -= np.where(new, sums, 0).max(1, initial=0)
    rows = rows[new.any(1) & (left[rows] > 0)]
  return taken


def _leaders(ids: np.ndarray, at: np.ndarray, word_of: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """For each word the first word of its span, int64[w].

  at: int64[w], where words start; word_of: int64[n * L], the word of each token. lengths: int32[n, L], words in the spans of
  each row, one after another. A span does not reach into another document, and so ends before a special token too.
  """
  seq_len = ids.shape[1]
  first, words = word_of[::seq_len, None], np.diff(word_of[::seq_len], append=at.size)[:, None]  # of each row
  is_first = ids.reshape(-1)[at - 1] <= EOS
  is_first[first] = True
  for most in (seq_len // 2, seq_len):  # Half of the lengths nearly always suffice.
    begins = np.cumsum(lengths[:, :most], axis=1, dtype=np.int32)
    if np.all(begins[:, -1:] >= words):
      break
  is_first[(first + begins)[begins < words]] = True
  return np.maximum.accumulate(np.where(is_first, np.arange(at.size), 0))


def span_lengths(bits: np.ndarray, mean: float) -> np.ndarray:
  """Lengths of spans in words from random bits; both int32, of the same shape."""
  return _lengths_of_bits(mean)[bits >> 16]  # A negative index counts from the end of the table.


@functools.cache
def _lengths_of_bits(mean: float) -> np.ndarray:
  """For each value of 16 bits a length, int32[2^16], in the shares of length_shares."""
  return (np.searchsorted(np.cumsum(length_shares(mean))[:-1], (np.arange(2**16) + 0.5) / 2**16) + 1).astype(np.int32)


@functools.cache
def length_shares(mean: float) -> np.ndarray:
  """The share of spans of 1, ..., LONGEST_SPAN words: geometric without its tail, as SpanBERT draws them; float64[10].

  mean: words in a span; 3.8 is what SpanBERT's p = 0.2 gives. Raises ValueError outside [1, MOST_SPAN_MEAN].
  """
  if not 1 <= mean <= MOST_SPAN_MEAN:
    raise ValueError(f"spans of {mean} words in the mean; it must lie in [1, {MOST_SPAN_MEAN}]")
  length = np.arange(1, LONGEST_SPAN + 1)

  def shares(p: float) -> np.ndarray:
    weights = (1 - p) ** (length - 1.0)
    return weights / weights.sum()

  low, high = 0.0, 1.0  # The mean falls as p rises.
  for _ in range(60):
    p = (low + high) / 2
    low, high = (p, high) if shares(p) @ length > mean else (low, p)
  return shares(high)
