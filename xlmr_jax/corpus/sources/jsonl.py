"""JSON lines: an object per line with a document's text, and perhaps its address and language."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from xlmr_jax.corpus.sources import Damage, Document, Shard, refuse
from xlmr_jax.corpus.sources.fields import DEFAULT, Fields
from xlmr_jax.corpus.sources.lines import tidy, without_surrogates
from xlmr_jax.corpus.sources.paths import FileSource, find_files, with_compressed
from xlmr_jax.corpus.sources.text_file import compression, open_text
from xlmr_jax.errors import UserError
from xlmr_jax.files import open_bytes, parse_json

ENDINGS = with_compressed(".jsonl", ".json", ".ndjson")
LONGEST_LINE = 64 << 20  # bytes; a longer one is named and left out
_PIECE = 1 << 20  # bytes at a time


@dataclasses.dataclass(frozen=True)
class _Range(Shard):
  """The lines of a file that begin in its uncompressed bytes [start, end). end: None for the end of the file."""

  start: int = 0
  end: int | None = None


class JsonLines(FileSource):
  """The documents of files of JSON lines."""

  shard_type = _Range

  def __init__(self, given: str, languages: Iterable[str] | None = None, fields: Fields = DEFAULT):
    """given: as find_files has it. languages: as FileSource has it."""
    super().__init__(find_files(given, ENDINGS, "--source=jsonl:"), languages)
    self.fields = fields

  def shards(self, shard_bytes: int) -> list[Shard]:
    """Plain files are cut every shard_bytes. The text is not read; so each shard finds its first line itself."""
    shards: list[Shard] = []
    language = self.fields.constant
    for path, size, _ in self.files:
      if compression(path) or size <= shard_bytes:
        shards.append(_Range(path, size, language))
        continue
      for start in range(0, size, shard_bytes):
        end = min(size, start + shard_bytes)
        shards.append(_Range(path, end - start, language, start, end))
    return shards

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The documents of a shard. Raises UserError: the first object of a file does not have the fields that are asked for."""
    assert isinstance(shard, _Range)
    path, lines_before = shard.name, None
    is_first = not shard.start
    number = 0  # of a line in the shard, from 1

    def where() -> str:
      nonlocal lines_before
      if lines_before is None:  # Lines are counted only now, because nobody else needs them.
        lines_before = _count_lines(path, shard.start)
      return f"{path}, line {lines_before + number}"

    if not shard.size:
      on_damage(Damage(path, "it is empty"))
      return
    for position, line in _lines(shard, lambda reason: on_damage(Damage(path, reason))):
      number += 1
      if not position:
        line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
      if line is _TOO_LONG:
        on_damage(Damage(where(), f"a line of more than {LONGEST_LINE >> 20} MB; it is left out"))
        continue
      if not line or line.isspace():
        continue
      try:
        given, is_utf8 = line.decode("utf-8"), True
      except UnicodeDecodeError as error:
        if on_damage is refuse:
          refuse(Damage(where(), f"not UTF-8 (byte 0x{line[error.start]:02x}); mend that line"))
        given, is_utf8 = line.decode("utf-8", "surrogateescape"), False
      try:
        row = parse_json(given)
      except ValueError as error:
        on_damage(Damage(where(), f"no JSON ({error}); the line is left out"))
        continue
      if not isinstance(row, dict):
        on_damage(Damage(where(), f"no JSON object, but {_kind(row)}; the line is left out"))
        continue
      if is_first:
        self.fields.check(row, where())
        is_first = False
      if self.fields.text not in row:
        on_damage(Damage(where(), f"no field {self.fields.text!r}; the line is left out"))
        continue
      text = row[self.fields.text]
      if text is None:
        continue
      if not isinstance(text, str):
        on_damage(Damage(where(), f"the field {self.fields.text!r} is no text, but {_kind(text)}; the line is left out"))
        continue
      if is_utf8 and "\\u" in given:
        text = without_surrogates(text)
      language = self.fields.language_of(row)
      if self.wants(language) and (text := tidy(text)):
        yield Document(text, f"{path}:{position}", self.fields.url_of(row), language)


_TOO_LONG = bytes(bytearray(b"too long"))  # is compared by identity, so it must be no constant that others share


def _lines(shard: _Range, damaged: Callable[[str], None]) -> Iterator[tuple[int, bytes]]:
  """The lines of a range with their first bytes' positions; _TOO_LONG in the place of a line that the memory must not hold.

  damaged: gets the reason if the file cannot be read to its end.
  """
  start = max(0, shard.start - 1)  # A line begins at shard.start if the byte before ends one.
  end = float("inf") if shard.end is None else shard.end
  position, is_wanted = start, not shard.start
  dropped = 0  # bytes of the line at `position` that are too many to keep
  rest = b""
  try:
    with open_text(shard.name) as file:
      if start:
        file.seek(start)
      # A line that begins in the range is read to its end, and the end of one that begins before it no further than that.
      while position + (0 if is_wanted else dropped) < end:
        piece = file.read1(_PIECE)
        if not piece:
          if rest and is_wanted:
            yield position, _TOO_LONG if dropped or len(rest) > LONGEST_LINE else rest
          return
        if b"\n" not in piece and (dropped or len(rest) > LONGEST_LINE):
          dropped, rest = dropped + len(rest), piece
          continue
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
          if position >= end:
            return
          if is_wanted:
            yield position, _TOO_LONG if dropped or len(line) > LONGEST_LINE else line
          position += dropped + len(line) + 1
          is_wanted, dropped = True, 0
  except UserError as error:
    damaged(f"{str(error).removeprefix(f'{shard.name}: ')}; what follows on byte {position} of its text is lost")


def _count_lines(path: str, end: int) -> int:
  """How many lines of a plain file begin before byte `end`, if a line may begin there."""
  count, left = 0, end
  with open_bytes(path) as file:
    while left and (piece := file.read(min(left, _PIECE))):
      count += piece.count(b"\n")
      left -= len(piece)
    file.seek(max(0, end - 1))
    return count + (end > 0 and file.read(1) != b"\n")


def _kind(value: object) -> str:
  names = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
  return names.get(type(value), "a number")
