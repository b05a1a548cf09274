"""Mends text that was decoded with the wrong encoding, and takes out what is no text.

It works on whole documents and needs no language, because languages are identified after it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np

from xlmr_jax.corpus import code_pages, zawgyi
from xlmr_jax.corpus.blanks import BLANK_LINES, without_blank_lines
from xlmr_jax.corpus.nfc import is_nfc

_GROUP = 1 << 14  # characters of documents that repair_all looks at together
_ROUNDS = 8  # at most; text that was spoilt twice is mended twice
_PLAUSIBLE = -8.0  # log likelihood per byte, from which on bytes that are not UTF-8 are text of a code page
_OVERWHELMING = 8.0  # log likelihood ratio, from which on text is not what it seems to be,
_GOOD = -4.5  # if its log likelihood per character beyond ASCII is above this in the other code page

# What may not stay. Spaces for tabs and separators of fields, lines for separators of lines, nothing for the rest.
_CONTROLS: dict[int, str] = dict.fromkeys((*range(32), *range(127, 160), *range(0xD800, 0xE000)), "")
_CONTROLS |= dict.fromkeys(map(ord, "\t\x1f"), " ") | dict.fromkeys(map(ord, "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"), "\n")
# A soft hyphen is only a hint where a line may break, and cuts words into other pieces than the same words without it.
_CONTROLS |= dict.fromkeys((0xAD, 0x2060, 0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB, *range(0xFDD0, 0xFDF0)), "")
_CONTROLS |= dict.fromkeys((plane << 16 | last for plane in range(17) for last in (0xFFFE, 0xFFFF)), "")
_C0 = bytes((*range(10), *range(11, 32), 127))
_HIGH = bytes(range(128, 256))
_RARE = tuple(map(chr, sorted(code for code in _CONTROLS if code >= 160 and not 0xD800 <= code < 0xE000)))
# Where words are not set apart by spaces, U+200B is how their ends are marked: Thai, Lao, Tibetan, Burmese, Khmer.
_SPACELESS = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"
_ZERO_WIDTH_SPACE = re.compile(f"(?<![{_SPACELESS}])\u200b(?![{_SPACELESS}])")
_CONTROL = re.compile("[{}]".format("".join(re.escape(chr(code)) for code in sorted(_CONTROLS) if code not in (9, 10))))

_C1 = re.compile("[\x80-\x9f]")
_ESCAPED = re.compile("[\udc80-\udcff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_IMAGES = "".join(c for c in code_pages.characters("cp1252")[128:160] if c > "\x9f")  # what cp1252 has for 80..9F
_TO_BYTES = {ord(c): i for i, c in enumerate(code_pages.characters("cp1252"))}
_ESCAPED_TO_BYTES = {0xDC00 + i: i for i in range(128, 256)}

# UTF-8 that was read as Latin-1 or cp1252.
_NEXT = f"[\x80-\xbf{_IMAGES}]"
_SEQUENCE = f"(?:[\xc2-\xdf]{_NEXT}|[\xe0-\xef]{_NEXT}{{2}}|[\xf0-\xf4]{_NEXT}{{3}})"
_DOUBLE = re.compile(f"{_SEQUENCE}+")
_LEAD = re.compile("[\xc2-\xf4]")
# What may well follow a capital or an accented letter in good text, so that it proves nothing: ends of quotations, say.
_HARMLESS = frozenset("\xa0»«’‘“”„…–—™®›‹°ºª²³¹·´•ŠŒŽšœžŸ")

# Text without C1 controls that a wrong code page may explain: four letters beyond ASCII in a row, or a symbol in a word.
_LOWER = "[a-z\xdf-\xff]"
_SYMBOLS = "[\xa1-\xa6\xa8-\xac\xae-\xb3\xb5\xb6\xb8-\xbf€‚ƒ„†‡ˆ‰‹›•˜™‘“”]"
_IN_WORDS = re.compile(  # It begins with one set of characters, so that `re` looks fast.
  f"[\xc0-\xffŠ{_SYMBOLS[1:]}(?:(?<=[\xc0-\xff])[\xc0-\xff]{{3}}"
  f"|(?<={_LOWER}{_SYMBOLS})(?:{_SYMBOLS}*(?={_LOWER})|(?<=[¢-¥‚ƒ„†‡ˆ‰]))|(?<=[ƒ†‡ˆ‰])(?={_LOWER})"
  "|(?<=Š)(?<![^ \n]Š)(?![^ \n]))"
)
_SELDOM_APART = re.compile(f"[\xa2-\xaf](?<![{''.join(sorted(_HARMLESS))}])")
_FOUR = re.compile("[\xc0-\xff]{4}")
# The same in UTF-8, and C1 controls and the start of _DOUBLE, each with one first byte, for which `re` looks fast.
_CONTROL_C2 = re.compile(rb"\xc2[\x80-\x9f\xad]")
_CONTROL_E2 = re.compile(rb"\xe2(?:\x80[\x8b\xa8\xa9]|\x81\xa0)")
_CONTROL_EF = re.compile(rb"\xef[\xb7\xbb\xbf]")
_TRIGGERS = (
  re.compile(
    rb"\xc3.(?:\xc2|\xe2[\x80-\x84]|\xc6\x92|\xcb[\x86\x9c]|(?:\xc3.){3}"
    rb"|\xc5[\x92\x93\xa0\xa1\xb8\xbd\xbe](?:(?<=\xc3[\x82-\x9f]..)|(?=[\xc2\xc5\xc6\xcb\xe2])))",
    re.DOTALL,
  ),
  re.compile(rb"\xc2(?:[\x80-\x9f]|[\xa2-\xa5](?<=[a-z]..)|[\xa1-\xbf](?<=[a-z]..)(?=[a-z\xc2\xc3\xe2]))", re.DOTALL),
  # Quotation marks and the like inside words; daggers beside letters; the low quotation mark after a letter.
  re.compile(
    rb"\xe2(?:(?:\x80[\x98\x9c-\xa2\xb0\xb9\xba]|\x82\xac|\x84\xa2)(?:(?<=[a-z]...)|(?<=\xc3[\x9f-\xbf]...))(?=[a-z\xc3])"
    rb"|\x80[\x9a\x9e\xa0\xa1\xb0](?:(?<=[a-z]...)|(?<=\xc3[\x9f-\xbf]...))|\x80[\xa0\xa1\xb0](?=[a-z\xc3]))"
  ),
)

_UNCOUNTED: Counter = Counter()


def repair(text: str, counts: Counter | None = None) -> str:
  """A document as it was meant: NFC, no controls but newlines, no surrogates, no blank lines; each line is a paragraph.

  Bytes that were not UTF-8 come in as the lone surrogates of Python's "surrogateescape". counts: gets, by kind of repair,
  how many characters were mended: invalid_utf8, double_utf8, c1 and code_page (decoded with another code page), zawgyi,
  zawgyi_kept (myanmartools is missing, so nobody looked), controls and nfc. repair(repair(text)) is repair(text).
  """
  counts = _UNCOUNTED if counts is None else counts  # Making a Counter costs as much as looking at a short document.
  if _is_clean(text):
    return _tidy(text)
  for _ in range(_ROUNDS):
    mended = _repair_once(text, counts)
    if mended == text:
      break
    text = mended
  return text


def repair_all(texts: Iterable[str], counts: Counter | None = None) -> list[str]:
  """`repair` of many documents, several times as fast if most are short and clean, because it looks at many at a time."""
  repaired: list[str] = []
  group: list[str] = []
  size = 0

  def finish() -> None:
    joined = "\n".join(group)
    if _is_clean(joined) and not BLANK_LINES.search(f"\n{joined}\n"):
      repaired.extend(map(str.strip, group))
    else:
      repaired.extend(repair(text, counts) for text in group)
    group.clear()

  for text in texts:
    group.append(text)
    size += len(text)
    if size >= _GROUP:
      finish()
      size = 0
  finish()
  return repaired


def _is_clean(text: str) -> bool:
  """Whether there is nothing to mend but blank lines and white space at the ends. It must be fast."""
  if text.isascii():
    data = text.encode()
    return len(data.translate(None, _C0)) == len(data)
  try:
    data = text.encode()
  except UnicodeEncodeError:
    return False
  if (b"\xe1" in data and b"\xe1\x80" in data) or _is_suspicious(data) or _has_controls(text, data):
    return False
  return is_nfc(text)


def _repair_once(text: str, counts: Counter) -> str:
  try:
    data = text.encode()
  except UnicodeEncodeError:
    text = _mend_bytes(text, counts)
    data = text.encode()
  if _is_suspicious(data):
    while (once_less := _undo_double(text, counts)) != text:
      text = once_less
    text = _mend_code_page(text, counts)
    data = text.encode()
  if _has_controls(text, data):
    text = _take_out_controls(text, counts)
  if not is_nfc(text):
    composed = unicodedata.normalize("NFC", text)
    counts["nfc"] += max(1, abs(len(text) - len(composed)))
    text = composed
  if b"\xe1\x80" in data:
    text = _mend_zawgyi(text, counts)
  return _tidy(text)


def _is_suspicious(data: bytes) -> bool:
  """Whether text, in UTF-8, may have been read in a wrong code page. It answers fast, and yes too often."""
  for trigger in _TRIGGERS:
    if trigger.search(data):
      return True
  # ˆ, ƒ, and Š as a word. One byte is found much faster than two.
  return (
    (b"\xcb" in data and b"\xcb\x86" in data)
    or (b"\xc6" in data and b"\xc6\x92" in data)
    or (b"\xc5" in data and b" \xc5\xa0 " in data)
  )


# --- bytes that were not UTF-8 -----------------------------------------------------------------------------------------


def _mend_bytes(text: str, counts: Counter) -> str:
  """Text without surrogates. Lines that are rather of a code page than UTF-8 are decoded so; else U+FFFD marks damage."""
  counts["invalid_utf8"] += len(_SURROGATES.findall(text))
  text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
  lines = re.sub("[\ud800-\udbff\udc00-\udc7f\udd00-\udfff]", "\ufffd", text).split("\n")
  escaped = [len(_ESCAPED.findall(line)) for line in lines]
  valid = [_valid(line) for line in lines]
  whole = sum(escaped) > 2 * sum(valid)
  # In a document of a code page, a few of its bytes look like UTF-8 by chance.
  legacy = [
    bool(bad and bad > 2 * good) or (whole and (bool(bad) or good <= 2)) for bad, good in zip(escaped, valid, strict=True)
  ]
  raw = [line.encode("utf-8", "surrogateescape") for line in lines]
  data = b"\n".join(line for line, is_legacy in zip(raw, legacy, strict=True) if is_legacy)
  high = len(data) - len(data.translate(None, _HIGH))
  page = None
  if high:
    found = code_pages.guess(data)
    page = found.page if found.score > _PLAUSIBLE * high - 6 else None
  decoded = [
    line.decode("latin-1").translate(_table(page)) if page and is_legacy else line.decode("utf-8", "replace")
    for line, is_legacy in zip(raw, legacy, strict=True)
  ]
  return "\n".join(decoded)


def _valid(line: str) -> int:
  """How many characters of a line are neither ASCII nor surrogates."""
  return 0 if line.isascii() else len(re.findall("[^\x00-\x7f\ud800-\udfff]", line))


def _table(page: str) -> dict[int, str]:
  return dict(enumerate(code_pages.characters(page)))


# --- UTF-8 that was read as Latin-1 or cp1252 ----------------------------------------------------------------------------


def _undo_double(text: str, counts: Counter) -> str:
  """Text in which every stretch that is UTF-8 once more is decoded, if its neighbours leave no doubt."""
  runs = list(_DOUBLE.finditer(text))
  if not runs or not any(_is_sure(text, run) for run in runs):
    return text
  rest, size = _DOUBLE.sub("", text), sum(len(run[0]) for run in runs)
  if 10 * len(_C1.findall(rest)) > size or 4 * max(0, len(_SELDOM_APART.findall(rest)) - 2) > size:
    return text  # Too much is outside, so that it is a code page in which some bytes look like UTF-8.
  if len(_FOUR.findall(rest)) > sum(len(_LEAD.findall(run[0])) for run in runs):
    return text  # Most words are of letters beyond ASCII alone, as in another alphabet's code page.
  apart = set(_LEAD.findall(rest))  # These letters are used as such.
  pieces, end = [], 0
  for run in runs:
    if _is_sure(text, run) or not apart & set(run[0]):
      try:
        mended = run[0].translate(_TO_BYTES).encode("latin-1").decode("utf-8")
      except UnicodeDecodeError:
        continue
      pieces += [text[end : run.start()], mended]
      end = run.end()
      counts["double_utf8"] += len(mended)
  return "".join(pieces) + text[end:]


def _is_sure(text: str, run: re.Match) -> bool:
  """Whether a stretch cannot be good text: it is long, or symbols stand where no text has them."""
  found = run[0]
  letters = _LEAD.findall(found)
  if len(letters) > 2:
    return True
  before, after = text[run.start() - 1 : run.start()], text[run.end() : run.end() + 1]
  if "\xc0" <= before <= "\xff" or "\xc0" <= after <= "\xff":
    return False
  if not set(found[1:]) <= _HARMLESS | set(letters):
    return found[0] != "ß"
  return found[0] <= "\xde" and (before.islower() or after.islower()) and found[1] not in "ŠŒŽšœžŸ"


# --- code pages ----------------------------------------------------------------------------------------------------------


def _mend_code_page(text: str, counts: Counter) -> str:
  """Text that was read as Latin-1 or cp1252, in the code page that its letters prefer. All of a document has one page."""
  controls = len(_C1.findall(text))
  if controls >= 3 and controls == text.count("\x85") and "\n" not in text:
    return text  # NEL, which ends the lines of this text
  if not controls and not _IN_WORDS.search(text):
    return text
  lines = text.split("\n")
  # Only Latin-1 has C1 controls, but for the five bytes that cp1252 lacks. cp1252's own marks did not come from it then.
  as_cp1252 = not re.search("[\x80\x82-\x8c\x8e\x91-\x9c\x9e\x9f]", text)
  raw = [(line.translate(_TO_BYTES) if as_cp1252 else line).encode("latin-1", "replace") for line in lines]
  spoilt = [bool(_C1.search(line) if controls else _IN_WORDS.search(line)) for line in lines]
  prior = code_pages.language_prior(b"\n".join(raw))
  data = b"\n".join(line for line, is_spoilt in zip(raw, spoilt, strict=True) if is_spoilt)
  found = code_pages.guess(data, prior)
  if not controls:
    high = len(data) - len(data.translate(None, _HIGH))
    if found.page == "cp1252" or found.margin < _OVERWHELMING or found.score < _GOOD * high - 3:
      return text
  table = {i: c for i, c in _table(found.page).items() if i >= 128}
  if as_cp1252:
    table |= {original: table[i] for original, i in _TO_BYTES.items() if i >= 128}
  number = code_pages.PAGES.index(found.page)
  mended = []
  for line, data, is_spoilt in zip(lines, raw, spoilt, strict=True):
    if not line.isascii() and (is_spoilt or _is_likelier(number, data, prior)):
      new = line.translate(table)
      here = len(_C1.findall(line))
      counts["c1"] += here
      counts["code_page"] += sum(a != b for a, b in zip(line, new, strict=True)) if not here else 0
      line = new
    mended.append(line)
  return "\n".join(mended)


def _is_likelier(page: int, data: bytes, prior: np.ndarray) -> bool:
  score = code_pages.scores(data, prior)
  return bool(score[page] > score[0])


# --- characters ----------------------------------------------------------------------------------------------------------


def _has_controls(text: str, data: bytes) -> bool:
  """Whether a text, of which `data` is the UTF-8, has anything that _take_out_controls changes."""
  if len(data.translate(None, _C0)) != len(data):
    return True
  if _CONTROL_C2.search(data) or _CONTROL_E2.search(data):
    return True
  beyond = b"\xf0" in data or b"\xf3" in data or b"\xf4" in data or b"\xf1" in data or b"\xf2" in data
  return (beyond or bool(_CONTROL_EF.search(data))) and any(character in text for character in _RARE)


def _take_out_controls(text: str, counts: Counter) -> str:
  text = text.replace("\r\n", "\n")
  text, counted = _CONTROL.subn(lambda found: _CONTROLS[ord(found[0])], text)
  if "\t" in text:
    text = text.replace("\t", " ")
  if "\u200b" in text:
    text, removed = _ZERO_WIDTH_SPACE.subn("", text)
    counted += removed
  if counted:
    counts["controls"] += counted
  return text


def _mend_zawgyi(text: str, counts: Counter) -> str:
  letters = len(re.findall("[\u1000-\u109f]", text))
  try:
    if zawgyi.is_zawgyi(text):
      counts["zawgyi"] += letters
      return unicodedata.normalize("NFC", zawgyi.to_unicode(text))
  except ModuleNotFoundError:
    counts["zawgyi_kept"] += letters
  return text


def _tidy(text: str) -> str:
  """Text without blank lines, and without white space at either end."""
  return without_blank_lines(text).strip()
