"""Reading a folder of text in CC-100 layout: which files, which documents, which of them are held out.

LANG.txt, LANG.txt.gz or LANG.txt.xz, or a folder LANG/ with several such files: UTF-8, a paragraph a line, an
empty line between documents. Knows nothing of tokens or rows.
"""

import contextlib
import gzip
import hashlib
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from xlmr_jax.errors import UserError

BLOCK = 4 << 20  # bytes read, and tokenised, at a time
LONGEST_DOCUMENT = 16 << 20  # bytes; a file that lost its empty lines must not fill the memory
_OPENERS = {".txt": open, ".txt.gz": gzip.open, ".txt.xz": lzma.open}
_LANGUAGE = re.compile(r"[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_EMPTY_LINES = re.compile(rb"\n[ \t\r\f\v]*\n\s*")


def find_sources(folder: str | Path, languages: Iterable[str] | None = None) -> dict[str, list[Path]]:
  """Text files of each language, sorted; other files are ignored. languages: a subset by name.

  Raises UserError: no such folder, a name that is no language code, a text there twice, a missing language.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise UserError(f"{folder}: no such folder; --text wants a folder with LANG.txt files")
  sources: dict[str, list[Path]] = {}
  for path in sorted(folder.iterdir()):
    if path.name.startswith(".") or not (path.is_dir() or _ending(path)):
      continue
    language = path.name.removesuffix(_ending(path)) if path.is_file() else path.name
    if not _LANGUAGE.fullmatch(language):
      raise UserError(f"{path}: {language!r} is no language code; name it like en.txt, zh-Hans.txt.xz or en/")
    if language in sources:
      raise UserError(f"{path}: {language} is also in {sources[language][0]}; keep one of them")
    sources[language] = [path] if path.is_file() else _files_of(path)
  if not sources:
    raise UserError(f"{folder}: no LANG.txt, LANG.txt.gz, LANG.txt.xz or LANG/ in it")
  if languages is None:
    return sources
  if missing := sorted(set(languages) - set(sources)):
    raise UserError(f"{folder}: no text of {', '.join(missing)}; it has {', '.join(sources)}")
  return {language: sources[language] for language in sorted(set(languages))}


def is_compressed(path: str | Path) -> bool:
  return _ending(Path(path)) != ".txt"


def read_blocks(path: str | Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
  """Whole documents, about BLOCK bytes at a time; joined they are the file's bytes [start, start + length).

  From any block's start on, the blocks are the same whether or not the reading began there. So a file can be
  cut into shards between blocks, and gives the same documents plain and compressed.
  """
  with _open(path) as file:
    if start:
      file.seek(start)
    unread = float("inf") if length is None else length
    buffer, window = b"", BLOCK
    while True:
      if len(buffer) < window:
        data = file.read(min(window - len(buffer), unread))
        unread -= len(data)
        buffer += data
      if len(buffer) < window:
        break
      cut = _last_boundary(buffer[:window])
      if not cut and window >= LONGEST_DOCUMENT:
        cut = buffer.rfind(b"\n", 0, window) + 1
      if cut:
        yield buffer[:cut]
        buffer, window = buffer[cut:], BLOCK
      else:
        window += BLOCK
    if buffer:
      yield buffer


def documents(block: bytes) -> list[bytes]:
  """The documents of a block: UTF-8, without the empty lines around them, lines ended by a bare newline."""
  block = block.removeprefix(b"\xef\xbb\xbf")
  if b"\r" in block:
    block = block.replace(b"\r\n", b"\n")
  return [document for part in _EMPTY_LINES.split(block) if (document := part.strip())]


def document_hash(document: bytes) -> int:
  """Uniform in [0, 2^64); a document below held_out * 2^64 is held out, and so is every copy of it."""
  return int.from_bytes(hashlib.blake2b(document, digest_size=8).digest())


def scan(path: str | Path, shard_bytes: float = float("inf")) -> dict:
  """Reads a file once, before anything expensive: checks it and finds where to cut it.

  Returns "shards" (start, length; about shard_bytes each; a compressed file has one, length None), "bytes",
  "documents", "paragraphs", and the "lowest" and "highest" document_hash (None without documents).
  Raises UserError: not UTF-8 (file and line), damaged or unreadable.
  """
  position = lines = count = paragraphs = 0
  lowest, highest, shards, start = 2**64, -1, [], 0
  for block in read_blocks(path):
    check_utf8(block, path, lines)
    lines += block.count(b"\n")
    for document in documents(block):
      count += 1
      paragraphs += document.count(b"\n") + 1
      key = document_hash(document)
      lowest, highest = min(lowest, key), max(highest, key)
    position += len(block)
    if position - start >= shard_bytes:
      shards.append((start, position - start))
      start = position
  if position > start:
    shards.append((start, position - start))
  if is_compressed(path):
    shards = [(0, None)]
  found = {"lowest": lowest, "highest": highest} if count else {"lowest": None, "highest": None}
  return {"shards": shards, "bytes": position, "documents": count, "paragraphs": paragraphs, **found}


def check_utf8(block: bytes, path: str | Path, lines_before: int) -> str:
  """The block as text. Raises UserError naming the file and the line."""
  try:
    return block.decode("utf-8")
  except UnicodeDecodeError as error:
    line = lines_before + block.count(b"\n", 0, error.start) + 1
    byte = block[error.start]
    raise UserError(f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}); mend that line") from error


def _files_of(folder: Path) -> list[Path]:
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


def _last_boundary(window: bytes) -> int:
  """Where the last document of the window begins, in bytes; 0 if it holds no empty line."""
  if (last := window.rfind(b"\n\n")) >= 0:
    return last + 2
  ends = [match.end() for match in _EMPTY_LINES.finditer(window)]
  return ends[-1] if ends else 0


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
  try:
    with _OPENERS[_ending(Path(path))](path, "rb") as file:
      yield file
  except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
    raise UserError(f"{path}: damaged ({error}); fetch it again") from error
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror})") from error
