"""A folder of text in CC-100's layout.

The folder holds LANG.txt, LANG.txt.gz or LANG.txt.xz, or a folder LANG/ with several such files. They are UTF-8, with one
paragraph per line and an empty line between documents.
"""

import contextlib
import dataclasses
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from xlmr_jax.corpus.sources import BLOCK_BYTES, Block, Document, Shard, Source
from xlmr_jax.errors import UserError

LONGEST_DOCUMENT = 16 << 20  # bytes; a file that lost its empty lines must not fill the memory
_GLANCE = 64 << 10  # bytes at the end of a block in which shards() looks for an empty line first
_OPENERS = {".txt": open, ".txt.gz": gzip.open, ".txt.xz": lzma.open}
_LANGUAGE = re.compile(r"[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_EMPTY_LINES = re.compile(r"\n[ \t\r\f\v]*\n\s*", re.ASCII)
_EMPTY_LINES_IN_BYTES = re.compile(_EMPTY_LINES.pattern.encode())
_BLANKS = " \t\n\r\f\v"


@dataclasses.dataclass(frozen=True)
class _Range(Shard):
  """The bytes [start, start + length) of a plain file, or the whole of a compressed one, whose length is None."""

  start: int = 0
  length: int | None = None


class CC100(Source):
  """The texts of a folder, by language."""

  def __init__(self, folder: str | Path, languages: Iterable[str] | None = None):
    """languages: only these; all by default.

    Raises UserError: there is no such folder, a name is no language code, a text is there twice, or a language is missing.
    """
    self.files = _find_files(Path(folder), languages)

  def shards(self, shard_bytes: int) -> list[Shard]:
    """Shards of about shard_bytes, each some whole blocks of a plain file. A compressed file is one shard."""
    shards: list[Shard] = []
    for language, paths in self.files.items():
      for path in paths:
        name, size = str(path.absolute()), os.path.getsize(path)
        if _ending(path) != ".txt":
          shards.append(_Range(name, size, language))
          continue
        start = 0
        for end in _block_ends(path, size):
          if end - start >= shard_bytes or end == size:
            shards.append(_Range(name, end - start, language, start, end - start))
            start = end
    return shards

  def documents(self, shard: Shard) -> Iterator[Document]:
    """The documents of a shard, one after another."""
    for block in self.blocks(shard):
      yield from block.documents

  def blocks(self, shard: Shard) -> Iterator[Block]:
    """The documents of a shard in blocks.

    The blocks do not depend on where the shards begin, so a file gives the same blocks plain and compressed.
    Raises UserError: the file is not UTF-8 (with its line), is damaged or cannot be read.
    """
    assert isinstance(shard, _Range) and shard.language
    position = shard.start
    for block in read_blocks(shard.name, shard.start, shard.length):
      texts = split_documents(_decode(block, shard.name, position))
      documents = [
        Document(text, f"{shard.name}:{position}#{number}", "", shard.language) for number, text in enumerate(texts)
      ]
      yield Block(documents, len(block))
      position += len(block)


def read_blocks(path: str | Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
  """Whole documents, about BLOCK_BYTES at a time; joined they are the file's bytes [start, start + length).

  If reading begins at the start of any block, the blocks from there on are the same. So a file can be cut into shards
  between blocks.
  """
  with _open(path) as file:
    if start:
      file.seek(start)
    unread = float("inf") if length is None else length
    buffer, window = b"", BLOCK_BYTES
    while True:
      if len(buffer) < window:
        data = file.read(int(min(window - len(buffer), unread)))
        unread -= len(data)
        buffer += data
      if len(buffer) < window:
        break
      if cut := _last_boundary(buffer[:window]):
        yield buffer[:cut]
        buffer, window = buffer[cut:], BLOCK_BYTES
      else:
        window += BLOCK_BYTES
    if buffer:
      yield buffer


def split_documents(text: str) -> list[str]:
  """The documents of a block, without the empty lines around them and with lines that end in a bare newline."""
  text = text.removeprefix("\ufeff")
  if "\r" in text:
    text = text.replace("\r\n", "\n")
  return [document for part in _EMPTY_LINES.split(text) if (document := part.strip(_BLANKS))]


def _block_ends(path: Path, size: int) -> Iterator[int]:
  """Where read_blocks would end the blocks of a plain file of `size` bytes, from a glance at the end of each block."""
  with _open(path) as file:
    start, window = 0, BLOCK_BYTES
    while size - start >= window:
      glance = min(_GLANCE, window)
      file.seek(start + window - glance)
      last = file.read(glance).rfind(b"\n\n")
      if last >= 0:
        cut = window - glance + last + 2
      else:
        file.seek(start)
        cut = _last_boundary(file.read(window))
      if cut:
        start, window = start + cut, BLOCK_BYTES
        if start < size:
          yield start
      else:
        window += BLOCK_BYTES
  yield size


def _last_boundary(window: bytes) -> int:
  """Where the last document of a window begins, in bytes. 0 means that the window must grow to hold an empty line."""
  if (last := window.rfind(b"\n\n")) >= 0:
    return last + 2
  for match in _EMPTY_LINES_IN_BYTES.finditer(window):
    last = match.end()
  if last < 0 and len(window) >= LONGEST_DOCUMENT:
    last = window.rfind(b"\n") + 1
  return max(last, 0)


def _decode(block: bytes, path: str, position: int) -> str:
  """A block that begins at byte `position` of the uncompressed file as text. Raises UserError with file and line."""
  try:
    return block.decode("utf-8")
  except UnicodeDecodeError as error:
    line = block.count(b"\n", 0, error.start) + 1
    for before in read_blocks(path):  # Lines are counted only now, because nobody else needs them.
      if position <= 0:
        break
      line += before.count(b"\n")
      position -= len(before)
    raise UserError(f"{path}, line {line}: not UTF-8 (byte 0x{block[error.start]:02x}); mend that line") from error


def _find_files(folder: Path, languages: Iterable[str] | None) -> dict[str, list[Path]]:
  """The text files of each language, in order. Other files are ignored."""
  if not folder.is_dir():
    raise UserError(f"{folder}: no such folder; --text wants a folder with LANG.txt files")
  found: dict[str, list[Path]] = {}
  for path in sorted(folder.iterdir()):
    if path.name.startswith(".") or not (path.is_dir() or _ending(path)):
      continue
    language = path.name.removesuffix(_ending(path)) if path.is_file() else path.name
    if not _LANGUAGE.fullmatch(language):
      raise UserError(f"{path}: {language!r} is no language code; name it like en.txt, zh-Hans.txt.xz or en/")
    if language in found:
      raise UserError(f"{path}: {language} is also in {found[language][0]}; keep one of them")
    found[language] = [path] if path.is_file() else _files_of_language(path)
  if not found:
    raise UserError(f"{folder}: no LANG.txt, LANG.txt.gz, LANG.txt.xz or LANG/ in it")
  if languages is None:
    return found
  wanted = sorted(set(languages))
  if missing := [language for language in wanted if language not in found]:
    raise UserError(f"{folder}: no text of {', '.join(missing)}; it has {', '.join(found)}")
  return {language: found[language] for language in wanted}


def _files_of_language(folder: Path) -> list[Path]:
  files = [path for path in sorted(folder.iterdir()) if path.is_file() and _ending(path)]
  if not files:
    raise UserError(f"{folder}: no .txt, .txt.gz or .txt.xz file in it; add text or remove the folder")
  stems = [path.name.removesuffix(_ending(path)) for path in files]
  for path, stem, before in zip(files[1:], stems[1:], stems):
    if stem == before:
      raise UserError(f"{path}: {stem} is there twice, compressed in different ways; keep one of them")
  return files


def _ending(path: Path) -> str:
  """Which of the three endings the name has; "" if none."""
  return next((ending for ending in _OPENERS if path.name.endswith(ending)), "")


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
  """The uncompressed file. While it is open, errors of reading become UserErrors."""
  try:
    with _OPENERS[_ending(Path(path))](path, "rb") as file:
      yield file
  except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
    raise UserError(f"{path}: damaged ({error}); fetch it again") from error
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror})") from error
