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
  looked_up,
  normal_forms,
  unspaced_letters,
)

_CHUNK = 1 << 15  # letters at a time, for the cache; what a longer word has beyond them does not count
PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd and without a pattern: 2^64 divided by the golden ratio
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
  found = _find(units)
  letters, at, position = found.letters, found.at, found.position
  lengths = np.diff(np.append(at, letters.size))
  last = at + lengths - 1
  before_last = np.where(lengths > 1, letters[last - 1], 0).astype(np.uint64)
  return Words(
    hashes=_hashes(letters, at),
    endings=mixed(letters[last] * PRIME + before_last),
    lengths=lengths,
    capital=units[position[at]] != letters[at],
    follows=_follows()[units[position[last] + 1]],
    starts=np.searchsorted(position[at], bounds),
  )


def hashes_of(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """The hashes and the starts of words_of(texts), in less time."""
  units, bounds = code_units(texts)
  found = _find(units)
  return _hashes(found.letters, found.at), np.searchsorted(found.position[found.at], bounds)


class _Found(NamedTuple):
  letters: np.ndarray  # uint16[n], the normal forms of all letters, marks and digits
  position: np.ndarray  # int64[n], where among the code units each of them is
  at: np.ndarray  # int64[w], at which of them a word begins


def _find(units: np.ndarray) -> _Found:
  """The letters of text, and where words begin among them."""
  position = np.flatnonzero(looked_up(_in_word(), units))
  letters = looked_up(normal_forms(), units.take(position))
  first = np.ones(letters.size, bool)
  np.greater(np.diff(position), 1, out=first[1:])
  alone = np.flatnonzero(letters >= FIRST_UNSPACED)
  alone = alone[looked_up(unspaced_letters(), letters[alone])]
  first[alone] = True
  after = alone[alone + 1 < letters.size] + 1
  first[after] |= looked_up(classes(), letters[after]) != MARK
  return _Found(letters, position, np.flatnonzero(first))


def _hashes(letters: np.ndarray, at: np.ndarray) -> np.ndarray:
  """uint64[w], of the letters of each word by their places in it, modulo 2^64."""
  if not at.size:
    return np.zeros(0, np.uint64)
  # If each letter is multiplied by a power for its place in the text, the sum of a word's letters is a difference of two
  # running sums, and an inverse power takes the word's own place in the text off again.
  ends = np.append(at[1:], letters.size)
  powers, inverses = _powers()
  found = np.empty(at.size, np.uint64)
  first = 0
  while first < at.size:
    begin = at[first]
    stop = max(first + 1, int(np.searchsorted(ends, begin + _CHUNK, side="right")))
    part = letters[begin : min(ends[stop - 1], begin + _CHUNK)]
    sums = np.zeros(part.size + 1, np.uint64)
    np.cumsum(part * powers[: part.size], out=sums[1:])
    offsets = at[first:stop] - begin
    found[first:stop] = (sums[np.minimum(ends[first:stop] - begin, part.size)] - sums[offsets]) * inverses[offsets]
    first = stop
  return mixed(found)


def mixed(values: np.ndarray) -> np.ndarray:
  """Hashes of uint64[n], each of whose bits depends on all bits of the value (the finalizer of MurmurHash3)."""
  values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
  return values ^ (values >> np.uint64(33))


def combined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Hashes of pairs in this order, uint64[n]."""
  return mixed(first * PRIME + second)


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
def _powers() -> tuple[np.ndarray, np.ndarray]:
  """The powers of PRIME from the first on, and their inverses from the zeroth on, modulo 2^64; uint64[_CHUNK] each."""
  powers, inverses = np.full(_CHUNK, PRIME), np.full(_CHUNK, np.uint64(pow(int(PRIME), -1, 1 << 64)))
  inverses[0] = 1
  return np.cumprod(powers), np.cumprod(inverses)
