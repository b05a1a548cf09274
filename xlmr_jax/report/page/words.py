"""How the page writes languages, counts, shares and sizes. A value that is no number, or infinite, is a dash."""

import math
from collections.abc import Callable, Sequence

from xlmr_jax.corpus.languages import LANGUAGES, UNKNOWN

NO_NUMBER = "–"
_MOST_NAMES = 12  # of a list in a sentence


def language_name(code: str) -> str:
  """The English name of a language; the code itself where nobody knows the name."""
  return "unknown language" if code == UNKNOWN else LANGUAGES[code].name if code in LANGUAGES else code


def name_with_code(code: str) -> str:
  """Name and code: "Swahili (sw)"."""
  return f"{language_name(code)} ({code})" if language_name(code) != code else code


def counted(number: int, noun: str, nouns: str = "") -> str:
  """1 document, 2,000 documents. nouns: the plural, where it does not end in an s alone."""
  return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def listed(names: Sequence[str]) -> str:
  """Names with commas between them. Of many, the first twelve are named and the others counted."""
  more = len(names) - _MOST_NAMES
  return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def short_number(value: float) -> str:
  """Three significant digits, never an exponent: 0.00123, 12.3, 12,345."""
  if not math.isfinite(value):
    return NO_NUMBER
  rounded = float(f"{value:.3g}")
  if not rounded:
    return "0"
  return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def percent(share: float) -> str:
  """A share in percent: 12.3 %."""
  if not math.isfinite(share):
    return NO_NUMBER
  return "> 99.9 %" if 0.9995 <= share < 1 else f"{short_number(100 * share)} %"


def byte_size(number: float, digits: Callable[[float], str] = short_number) -> str:
  """Bytes in the unit that reads best, powers of 1,000: 4.01 MB."""
  if not math.isfinite(number):
    return NO_NUMBER
  if number < 1000:
    return counted(round(number), "byte")
  unit = ""
  for larger in ("kB", "MB", "GB", "TB", "PB"):
    if number >= 1000:
      number, unit = number / 1000, larger
  return f"{digits(number)} {unit}"


def compact_number(value: float) -> str:
  """A number at a tick of a narrow axis: 0.0004, 3,000, 20k, 1.5M."""
  if not math.isfinite(value):
    return NO_NUMBER
  for least, size, unit in ((1e12, 1e12, "T"), (1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
    if abs(value) >= least:
      return f"{value / size:.6g}{unit}"
  return tick_number(value)


def tick_number(value: float) -> str:
  """A number at a tick of an axis, which has few digits: 0.1, 20, 3,000."""
  return f"{value:,.6g}" if math.isfinite(value) else NO_NUMBER
