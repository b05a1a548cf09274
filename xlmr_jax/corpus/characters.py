"""What each code point of Unicode's first plane is, as NumPy tables that fit into a processor's cache.

Text is looked at as UTF-16, so a character outside the first plane is two surrogates, which count as OTHER.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

LETTER, MARK, DIGIT, PUNCTUATION, SYMBOL, SPACE, OTHER = range(7)
_CLASS_OF = {"L": LETTER, "M": MARK, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE, "C": OTHER}
# Scripts that are written without a space between words. One of their characters counts as a word here.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "BOPOMOFO")
FIRST_UNSPACED = 0xE00  # the first code point that such a script may have
_POINTS = 0x10000
_GROUP = 1 << 20  # characters


@functools.cache
def classes() -> np.ndarray:
  """The class of each code point, uint8[0x10000]: LETTER, MARK, DIGIT, PUNCTUATION, SYMBOL, SPACE or OTHER."""
  table = np.full(_POINTS, OTHER, np.uint8)
  for point in range(_POINTS):
    table[point] = _CLASS_OF[unicodedata.category(chr(point))[0]]
  for blank in "\n\t\r\v\f":
    table[ord(blank)] = SPACE
  return table


@functools.cache
def unspaced() -> np.ndarray:
  """Whether a code point is a letter of a script that has no spaces between words, bool[0x10000]."""
  table = np.zeros(_POINTS, bool)
  for point in range(FIRST_UNSPACED, _POINTS):
    if unicodedata.name(chr(point), "").startswith(_UNSPACED) and classes()[point] in (LETTER, MARK):
      table[point] = True
  return table


@functools.cache
def unspaced_letters() -> np.ndarray:
  """Which code points of unspaced() are letters, and no marks, bool[0x10000]."""
  return unspaced() & (classes() == LETTER)


@functools.cache
def normal_forms() -> np.ndarray:
  """What each code point is compared as, uint16[0x10000]: small letters, digits as 0, and 0 for what is left out.

  Left out are punctuation, symbols, spaces and what cannot be seen, as in CCNet (Wenzek et al. 2020, section 3.1; cc_net's
  text_normalizer.py). A newline stays, because it separates paragraphs.
  """
  table = np.arange(_POINTS, dtype=np.uint16)
  table[~np.isin(classes(), (LETTER, MARK, DIGIT))] = 0
  table[classes() == DIGIT] = ord("0")
  for point in np.flatnonzero(classes() == LETTER):
    small = chr(point).lower()
    if len(small) == 1 and ord(small) < _POINTS:
      table[point] = ord(small)
  table[ord("\n")] = ord("\n")
  return table


def looked_up(table: np.ndarray, units: np.ndarray) -> np.ndarray:
  """table[units], in half the time. table: one of this module's; units: uint16[n]."""
  return table.take(units, mode="clip")  # No unit lies outside, so that nothing is clipped, and NumPy need not check first.


def groups(texts: Sequence[str]) -> Iterator[slice]:
  """Successive texts, of about a million characters, each of which takes some tens of bytes in arrays of words."""
  first = size = 0
  for index, text in enumerate(texts):
    size += len(text)
    if size >= _GROUP or index == len(texts) - 1:
      yield slice(first, index + 1)
      first, size = index + 1, 0


def code_units(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """(uint16[n], int64[D + 1]): the UTF-16 code units of D texts, each followed by a newline; and where each begins."""
  # All at once is faster, but then only the lengths of the texts tell where each begins, unless there are surrogate pairs.
  units = np.frombuffer("\n".join([*texts, ""]).encode("utf-16-le", "surrogatepass"), np.uint16)
  lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
  if units.size > lengths.sum():
    lengths = np.array([len(text.encode("utf-16-le", "surrogatepass")) // 2 + 1 for text in texts])
  starts = np.zeros(len(texts) + 1, np.int64)
  np.cumsum(lengths, out=starts[1:])
  return units, starts
