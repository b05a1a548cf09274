"""Packing: each token once and in reading order, documents cut only where rows would not be dense without it."""

import hashlib

import numpy as np
import pytest

from benchmarks.packing import in_order
from xlmr_jax.corpus import packing
from xlmr_jax.corpus.packing import lay_out, pack
from xlmr_jax.ids import BOS, EOS, PAD


def pieces_of(rows: np.ndarray) -> list[list[list[int]]]:
  """The pieces between <s> and </s> of each row, in order; fails on anything that is not a row."""
  result = []
  for row in rows.tolist():
    end = row.index(PAD) if PAD in row else len(row)
    assert set(row[end:]) <= {PAD} and end
    at, pieces = 0, []
    while at < end:
      assert row[at] == BOS
      close = row.index(EOS, at)
      pieces.append(row[at + 1 : close])
      assert pieces[-1]
      at = close + 1
    result.append(pieces)
  return result


def packed(lengths: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
  """(rows, pieces of each document). Fails unless each token comes once, and a document's pieces in later and later rows."""
  tokens = np.arange(4, 4 + lengths.sum(), dtype=np.int32)  # token 4 + i is the i-th of the text
  rows = pack(tokens, lengths, seq_len)
  assert rows.dtype == np.int32 and rows.shape[1] == seq_len
  document_of = np.repeat(np.arange(lengths.size), lengths)
  last_row, read = np.full(lengths.size, -1), (np.cumsum(lengths) - lengths).tolist()
  count = np.zeros(lengths.size, int)
  for number, pieces in enumerate(pieces_of(rows)):
    for piece in pieces:
      document = document_of[piece[0] - 4]
      assert piece == list(range(4 + read[document], 4 + read[document] + len(piece)))  # goes on where it had stopped
      assert last_row[document] < number
      read[document] += len(piece)
      last_row[document] = number
      count[document] += 1
  assert read == np.cumsum(lengths).tolist()
  return rows, count


@pytest.mark.parametrize("seq_len", [16, 64, 512])
@pytest.mark.parametrize("mean", [3, 40, 700])
def test_each_token_once_and_each_document_in_order(seq_len, mean):
  lengths = np.random.default_rng(seq_len * mean).geometric(1 / mean, 300) - 1  # some documents hold no token
  rows, count = packed(lengths, seq_len)
  assert (count == 0).tolist() == (lengths == 0).tolist()
  # No way of packing needs fewer rows than these, which have no pads; a row more is the last one, which need not be full.
  framed = lengths.sum() + 2 * (-(-lengths // (seq_len - 2))).sum()
  assert np.ceil(framed / seq_len) <= len(rows)
  if seq_len > 16:
    assert len(rows) <= np.ceil(framed / (1 - packing.MOST_PADS) / seq_len) + 1


def test_edges():
  assert pack(np.empty(0, np.int32), np.array([0, 0]), 64).shape == (0, 64)
  assert pack(np.empty(0, np.int32), np.empty(0, np.int64), 64).shape == (0, 64)
  exact = pack(np.arange(4, 66, dtype=np.int32), np.array([62]), 64)
  assert exact.shape == (1, 64) and exact[0, 0] == BOS and exact[0, -1] == EOS
  one_more = pack(np.arange(4, 67, dtype=np.int32), np.array([63]), 64)
  assert [[len(piece) for piece in row] for row in pieces_of(one_more)] == [[62], [1]]


def test_the_best_row_is_the_one_with_the_least_room():
  # 40 leaves 22 and 30 leaves 32. 20 fits both, and takes the former; then 30 takes the latter.
  assert [row.tolist() for row in lay_out(np.array([40, 30, 30, 20]), 64)] == [[0, 0, 1, 1], [0, 3, 1, 2], [40, 20, 30, 30]]


@pytest.mark.parametrize("name", ["uniform", "long tail", "short", "mostly long"])
def test_documents_that_fit_a_row_stay_whole(name):
  rng = np.random.default_rng(0)
  lengths = {
    "uniform": lambda: rng.integers(1, 511, 3000),
    "long tail": lambda: np.exp(rng.normal(5, 1.2, 3000)).astype(int) + 1,
    "short": lambda: rng.integers(3, 40, 9000),
    "mostly long": lambda: rng.integers(100, 3000, 1000),
  }[name]()
  rows, count = packed(lengths, 512)
  before, count_before = in_order(lengths, 512)
  fits = lengths <= 510
  assert (rows != PAD).mean() >= 0.99
  assert (count[fits] > 1).sum() <= 0.02 * fits.sum()
  assert (count > 1).sum() <= (count_before > 1).sum() and count.sum() <= count_before.sum()
  assert len(rows) <= 1.005 * before + 1


def test_documents_are_cut_where_rows_would_be_half_empty_without_it():
  """No two documents of 300 fit into a row of 512: whole, 41 % of the tokens would be pads."""
  lengths = np.full(1000, 300)
  rows, count = packed(lengths, 512)
  assert (rows != PAD).mean() >= 0.99
  assert 300 < (count > 1).sum() < (in_order(lengths, 512)[1] > 1).sum()
  smallest = min(len(piece) for row in pieces_of(rows) for piece in row)
  assert smallest >= 16


def test_a_cut_that_would_save_no_row_is_not_made():
  """The room for 15 tokens that a document of 495 leaves is too small for a piece, and that of the others too little."""
  lengths = np.array([*[495] * 30, 450, 445, 455])
  rows, count = packed(lengths, 512)
  assert len(rows) == 33 and np.all(count == 1)


def test_a_few_rows_are_as_dense_as_when_documents_are_cut_anywhere():
  """Small languages have few rows, and each row more would be many pads: it is needed in at most 1 of 20 small splits."""
  rng = np.random.default_rng(3)
  more = 0
  for _ in range(100):
    lengths = np.exp(rng.normal(4.5, 1.3, rng.integers(2, 60))).astype(int) + 1
    rows, _ = packed(lengths, 512)
    more += len(rows) - in_order(lengths, 512)[0]
  assert more <= 5


def test_two_packings_are_one_and_rows_follow_the_text():
  lengths = np.random.default_rng(1).geometric(1 / 80, 20_000)
  tokens = np.arange(4, 4 + lengths.sum(), dtype=np.int32)
  rows = pack(tokens, lengths, 512)
  assert hashlib.sha256(pack(tokens.copy(), lengths.astype(np.int32), 512)).digest() == hashlib.sha256(rows).digest()
  # The first tenth of the rows holds documents of the whole text's mean length, so that it may stand for all of it.
  size = lay_out(lengths, 512)[2]
  first = size[: size.size // 10]
  assert 0.7 < first.mean() / size.mean() < 1.4
