"""What every source but CC-100's does with a text: paragraphs become lines, and bad bytes are named or kept."""

import re
from collections.abc import Callable

from xlmr_jax.corpus.blanks import without_blank_lines
from xlmr_jax.corpus.sources import Damage, refuse

_SURROGATES = re.compile("[\ud800-\udfff]")


def tidy(text: str) -> str:
  """The text with lines that end in a bare newline, without blank lines; "" if it has nothing but blanks."""
  if "\r" in text:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
  return without_blank_lines(text).strip(" \t\n\f\v")


def decode(data: bytes, where: str, on_damage: Callable[[Damage], None]) -> str:
  """UTF-8 as text. Bytes that are none are damage for `refuse`, and lone surrogates for others, as Source.documents says."""
  try:
    return data.decode("utf-8")
  except UnicodeDecodeError as error:
    if on_damage is refuse:
      refuse(Damage(where, f"not UTF-8 (byte 0x{data[error.start]:02x}); mend it"))
    return data.decode("utf-8", "surrogateescape")


def without_surrogates(text: str) -> str:
  """The text with U+FFFD for what JSON's escapes can say but UTF-8 cannot: half of a surrogate pair."""
  return _SURROGATES.sub("\ufffd", text)
