"""Whether text is in Unicode's NFC, several times as fast as unicodedata tells it of the scripts of India."""

import functools
import re
import unicodedata

_INDIA = range(0x900, 0xE00)


def is_nfc(text: str) -> bool:
  """unicodedata.is_normalized("NFC", text)."""
  if not _has_signs_of_india(text):
    return unicodedata.is_normalized("NFC", text)
  return not _doubtful().search(text) or unicodedata.is_normalized("NFC", text)


def _has_signs_of_india(text: str) -> bool:
  """Whether a text has the commonest of the vowel signs and nuktas that could be the second half of a letter."""
  return "\u093c" in text or "\u09be" in text or "\u0bbe" in text or "\u0d3e" in text or "\u0b3e" in text or "\u0cd5" in text


@functools.lru_cache(maxsize=1)
def _doubtful() -> re.Pattern:
  """What a text that is not in NFC has, and seldom another.

  unicodedata normalises a whole text to answer if one sign could be the second half of a letter. This pattern wants the
  first half before it. Signs of India must also stand in the order of their classes.
  """
  codes = [*range(0xA0, 0x3400), *range(0xA600, 0xAC00), *range(0xF900, 0x10000)]  # The rest are ideographs and Hangul.
  signs = {code for code in codes if unicodedata.combining(chr(code))}
  changed = {code for code in codes if not unicodedata.is_normalized("NFC", chr(code))}
  pairs = {
    tuple(int(part, 16) for part in unicodedata.decomposition(chr(code)).split())
    for code in codes
    if code not in changed and re.fullmatch("[0-9A-F]+ [0-9A-F]+", unicodedata.decomposition(chr(code)))
  }
  seconds = {second for _, second in pairs} | signs | set(range(0x1161, 0x1200))
  elsewhere = changed | seconds.difference(_INDIA)
  firsts = {first for first, _ in pairs}.intersection(_INDIA)
  by_class = {code: unicodedata.combining(chr(code)) for code in signs.intersection(_INDIA)}
  alone, first, second, nukta, late, sign = map(
    _character_set,
    (
      elsewhere,
      firsts,
      {second for first, second in pairs if first in _INDIA},
      {code for code, order in by_class.items() if order == 7},  # the lowest class
      {code for code, order in by_class.items() if order > 9},  # those after a virama, whose class is 9
      set(by_class),
    ),
  )
  alone += "\U00010000-\U0010ffff"
  disorder = f"(?<=[{sign}][{nukta}])|(?<=[{late}])(?=[{sign}])"
  return re.compile(f"[{alone}{first}{nukta}{late}](?:(?<=[{alone}])|(?=[{second}])|{disorder})")


def _character_set(codes: set[int]) -> str:
  """The inside of a regular expression's set: ranges, so that it is short."""
  pieces, ordered = [], sorted(codes)
  start = previous = ordered[0]
  for code in [*ordered[1:], -1]:
    if code != previous + 1:
      pieces.append(f"{chr(start)}-{chr(previous)}")
      start = code
    previous = code
  return "".join(pieces)
