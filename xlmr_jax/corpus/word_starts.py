"""Where words start among the pieces of a text, by ICU's segmentation (Unicode's UAX #29, with its dictionaries).

ICU cuts text of every script into words, numbers, single marks and runs of blanks: Thai, Lao, Khmer, Burmese, Chinese and
Japanese, which put no spaces between words, by dictionary. A word starts at a piece where a boundary of ICU's falls together
with the piece's first character. So a piece that reaches over a boundary joins the words on both sides of it.
"""

import functools
from collections.abc import Sequence

import numpy as np

from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.ids import UNK, WORD_START

_LOCALE = "root"  # Those of single languages only differ in where a colon or a full stop belongs to a word.
_CHARACTERS = 1 << 20  # of text that ICU gets at once; a call per line would take twice as long


def segmenter() -> str:
  """Which version of ICU cuts the text here, such as "ICU 78.3". UserError: there is none."""
  try:
    from icu4py._version import icu_version
  except ImportError:
    raise UserError("--word_starts: ICU is needed to find words; pip install 'xlmr_jax[corpus]', or icu4py") from None
  return f"ICU {icu_version}"


def encode_marked(tokenizer: Tokenizer, lines: list[str], threads: int = 1) -> list[np.ndarray]:
  """tokenizer.encode_lines, int32[n] each, with WORD_START added to the first piece of each word.

  A piece that is a space alone belongs to the word behind it. <unk> bears the mark too, if a word starts there.
  """
  if not lines:
    return []
  found = tokenizer.encode_lines(lines, threads)
  starts, ends = _spans(tokenizer, lines, found, threads)
  sizes = np.fromiter(map(len, found), np.int64, len(found))
  line_begins = np.cumsum([0, *(len(line) + 1 for line in lines)])
  before = np.repeat(line_begins[:-1], sizes)
  starts, ends = starts + before, ends + before
  first = np.cumsum(sizes) - sizes
  starts, ends = _behind_blanks(starts, ends, np.repeat(first + sizes, sizes))
  is_start = boundaries(lines)[starts]
  # Not so within a character of which several pieces were made, nor behind the space that stands before the same word.
  is_start[1:] &= (starts[1:] >= ends[:-1]) & ~((starts[:-1] == ends[:-1]) & (starts[1:] == starts[:-1]))
  is_start[first[sizes > 0]] = True
  ids = np.concatenate(found) + is_start * np.int32(WORD_START)
  return np.split(ids, first[1:])


def _behind_blanks(starts: np.ndarray, ends: np.ndarray, line_ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The spans of pieces, with those of blanks alone, which are empty, moved to the next piece of their line that has more.

  ICU has no boundary within a run of blanks, each of which may be a piece. line_ends: per piece, the first one of the next
  line.
  """
  numbers = np.arange(len(starts))
  later = np.where(starts == ends, len(starts), numbers)
  following = np.minimum.accumulate(later[::-1])[::-1]
  moved = np.where(following < line_ends, following, numbers)
  is_blank = moved != numbers
  return starts[moved], np.where(is_blank, starts[moved], ends)


def boundaries(lines: Sequence[str]) -> np.ndarray:
  """Where ICU has boundaries in lines, bool[n]: each line takes a place per character, and one for its end."""
  sizes = np.fromiter(map(len, lines), np.int64, len(lines)) + 1
  ends = np.cumsum(sizes)
  is_boundary = np.zeros(int(ends[-1]) if len(lines) else 0, bool)
  begin = 0
  while begin < len(lines):
    offset = int(ends[begin] - sizes[begin])
    stop = max(begin + 1, int(np.searchsorted(ends, offset + _CHARACTERS, side="right")))
    is_boundary[offset + _boundaries_of("\n".join(lines[begin:stop]))] = True
    begin = stop
  return is_boundary


def _boundaries_of(text: str) -> np.ndarray:
  """The boundaries of a text, int64[w + 1], in characters; its start and its end are two of them."""
  from icu4py.breakers import WordBreaker

  found = np.fromiter((end for _, end in WordBreaker(text, _LOCALE).segments()), np.int64)
  units = np.frombuffer(text.encode("utf-16-le"), "<u2")
  if units.size != len(text):  # ICU counts UTF-16 code units, of which rare characters have two.
    characters = np.cumsum((units & 0xFC00) != 0xDC00)
    found = characters[found - 1]
  return np.concatenate([np.zeros(1, np.int64), found])


def _spans(tokenizer: Tokenizer, lines: list[str], found: list[np.ndarray], threads: int) -> tuple[np.ndarray, np.ndarray]:
  """The (start, end) of every piece of the lines, as Tokenizer.encode_with_offsets has them, int64[n] each."""
  pieces, ids = _pieces(tokenizer), np.concatenate(found)
  counts = np.fromiter(map(len, found), np.int64, len(found))
  first = np.cumsum([0, *counts])
  texts = list(map(pieces.texts.__getitem__, ids.tolist()))
  shifts = [_shift(line, "".join(texts[a:b])) for line, a, b in zip(lines, first.tolist(), first[1:].tolist())]
  after = np.cumsum([0, *pieces.sizes[ids]])
  ends = after[1:] - np.repeat(after[first[:-1]] + np.array([shift or 0 for shift in shifts]), counts)
  starts = ends - pieces.sizes[ids] + pieces.blanks[ids]
  # Where normalising has changed a line, the tokenizer tells what its pieces stand for, which takes several times as long.
  others = [number for number, shift in enumerate(shifts) if shift is None]
  for number, span in zip(others, tokenizer.encode_with_offsets([lines[i] for i in others], threads)):
    here = slice(first[number], first[number + 1])
    starts[here], ends[here] = span[1:]
  return starts, ends


def _shift(line: str, joined: str) -> int | None:
  """How many blanks the joined pieces have before the line; None if they are not the line as it stands."""
  line = line.replace(" ", "▁")
  return 0 if joined == line else 1 if joined == f"▁{line}" else None


class _Pieces:
  """What stands in the pieces of a vocabulary: texts, and their characters and leading blanks, int64[V] each."""

  def __init__(self, tokenizer: Tokenizer):
    self.texts = [tokenizer.piece(id) for id in range(tokenizer.size)]
    self.texts[UNK] = "\n"  # It stands for any text, and must equal none.
    self.sizes = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
    self.blanks = np.array([len(text) - len(text.lstrip("▁")) for text in self.texts], np.int64)


@functools.lru_cache(2)
def _pieces(tokenizer: Tokenizer) -> _Pieces:
  return _Pieces(tokenizer)
