"""The words of many documents at once, as NumPy arrays, for filters and near duplicates."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlmr_jax.corpus.characters import (
  DIGIT,
  FIRST_UNSPACED,
  LETTER,
  MARK,
  PUNCTUATION,
  SYMBOL,
  classes,
  code_units,
  normal_forms,
  unspaced,
)

_LONGEST = 64  # letters of a word that are told apart; what comes after them counts like the last
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd and without a pattern: 2^64 divided by the golden ratio
_SENTENCE_ENDS = ".!?\u0589\u061f\u06d4\u0964\u0965\u104b\u1362\u17d4\u3002\uff01\uff0e\uff1f\n"
_COMMAS = ",;:\u060c\u1363\u3001\uff0c"
BEFORE_WORD, BEFORE_COMMA, BEFORE_END, BEFORE_OTHER = range(4)


class Words(NamedTuple):
  """The words of D documents, one after another. A letter of a script without spaces is a word."""

  hashes: np.ndarray  # uint64[w], of the word in small letters, with digits as 0
  endings: np.ndarray  # uint64[w], a hash of its last two letters
  lengths: np.ndarray  # int64[w], letters
  capital: np.ndarray  # bool[w], whether it begins with a capital
  follows: np.ndarray  # int64[w], BEFORE_...: what comes after it
  starts: np.ndarray  # int64[D + 1]: the words of document d are [starts[d], starts[d + 1])


def words_of(texts: Sequence[str]) -> Words:
  """The words of texts."""
  units, bounds = code_units(texts)
  inside = _in_word()[units]
  position = np.flatnonzero(inside)
  raw = units[position]
  letters = normal_forms()[raw]
  if not letters.size:
    nothing = np.zeros(0, np.int64)
    return Words(
      nothing.view(np.uint64), nothing.view(np.uint64), nothing, nothing.astype(bool), nothing, np.zeros_like(bounds)
    )
  first = np.ones(letters.size, bool)
  first[1:] = np.diff(position) > 1
  if letters.max() >= FIRST_UNSPACED:
    alone = unspaced()[letters] & (classes()[letters] == LETTER)
    first |= alone
    first[1:] |= alone[:-1] & (classes()[letters[1:]] != MARK)
  at = np.flatnonzero(first)
  lengths = np.diff(np.append(at, letters.size))
  last = at + lengths - 1
  place = np.minimum(np.arange(letters.size) - np.repeat(at, lengths), _LONGEST - 1)
  hashes = mixed(np.add.reduceat(letters * _powers()[place], at))
  before_last = np.where(lengths > 1, letters[last - 1], 0).astype(np.uint64)
  after = units[position[last] + 1]
  return Words(
    hashes=hashes,
    endings=mixed(letters[last] * _PRIME + before_last),
    lengths=lengths,
    capital=raw[at] != letters[at],
    follows=_follows()[after],
    starts=np.searchsorted(position[at], bounds),
  )


def mixed(values: np.ndarray) -> np.ndarray:
  """Hashes of uint64[n], each of whose bits depends on all bits of the value (the finalizer of MurmurHash3)."""
  values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
  return values ^ (values >> np.uint64(33))


def combined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Hashes of pairs in this order, uint64[n]."""
  return mixed(first * _PRIME + second)


@functools.cache
def _in_word() -> np.ndarray:
  return np.isin(classes(), (LETTER, MARK, DIGIT))


@functools.cache
def _follows() -> np.ndarray:
  table = np.full(0x10000, BEFORE_WORD)
  table[np.isin(classes(), (PUNCTUATION, SYMBOL))] = BEFORE_OTHER
  table[[ord(character) for character in _COMMAS]] = BEFORE_COMMA
  table[[ord(character) for character in _SENTENCE_ENDS]] = BEFORE_END
  return table


@functools.cache
def _powers() -> np.ndarray:
  """Odd numbers without a pattern, one for each place in a word, uint64[_LONGEST]."""
  return np.array([pow(int(_PRIME), i + 1, 1 << 64) for i in range(_LONGEST)], np.uint64)
