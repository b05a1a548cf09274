"""A folder of text in CC-100's layout.

The folder holds LANG.txt, plain or compressed (text_file.py has the endings), or a folder LANG/ with several such files.
They are UTF-8, with one paragraph per line and a blank line between documents.
"""

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.blanks import BLANK_LINES, BLANKS
from xlmr_jax.corpus.sources import BLOCK_BYTES, Block, Damage, Document, Shard, Source, refuse
from xlmr_jax.corpus.sources.text_file import ENDINGS, ending, open_text
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, each
from xlmr_jax.folders import listing

LONGEST_DOCUMENT = 16 << 20  # bytes; a file that lost its blank lines must not fill the memory
LONGEST_LINE = 64 << 20  # bytes; neither must one that has no lines
_GLANCE = 64 << 10  # bytes at the end of a block in which shards() looks for a blank line first
# What `xlmr build_corpus` puts beside the text: when it is done, and while it works.
_MANIFEST, _WORK = "manifest.json", ".work"
_BUILT = frozenset({_MANIFEST, _WORK, ".source.json", "corpus_report.html", "removed", "clusters"})
_LANGUAGE = re.compile(r"[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_BLANK_LINE_IN_BYTES = re.compile(b"\n(?:(?:" + b"|".join(blank.encode() for blank in BLANKS) + b")*\n)+")


@dataclasses.dataclass(frozen=True)
class _Range(Shard):
  """The bytes [start, start + length) of a plain file, or the whole of a compressed one, whose length is None."""

  start: int = 0
  length: int | None = None


class CC100(Source):
  """The texts of a folder, by language."""

  shard_type = _Range

  def __init__(self, folder: str | os.PathLike, languages: Iterable[str] | None = None):
    """languages: only these; all by default.

    Names on stderr, once, each file that is left out because it is hidden or no text.
    Raises UserError: there is no such folder, a name is no language code, a text is there twice, or a language is missing.
    """
    path = any_path(folder)
    try:
      there, left_out = _find_files(path, languages)
    except OSError as error:
      raise UserError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
    for why, names in left_out.items():
      print(f"{folder}: left out, {why}: {', '.join(names)}", file=sys.stderr, flush=True)
    self.files: dict[str, list[AnyPath]] = {language: [found.path for found in files] for language, files in there.items()}
    self.sizes = {str(found.path): found.size for files in there.values() for found in files if found.size is not None}

  def __getstate__(self) -> dict[str, Any]:
    files = {language: list(map(str, paths)) for language, paths in self.files.items()}
    return self.__dict__ | {"files": files}

  def __setstate__(self, state: dict[str, Any]) -> None:
    # A bucket's path needs its client, which a worker that has just begun does not have yet.
    files = {language: list(map(any_path, paths)) for language, paths in state["files"].items()}
    self.__dict__.update(state | {"files": files})

  def shards(self, shard_bytes: int) -> list[Shard]:
    """Shards of about shard_bytes, each some whole blocks of a plain file. A compressed file is one shard."""
    shards: list[Shard] = []
    for language, paths in self.files.items():
      for path in paths:
        name = str(path.absolute()) if isinstance(path, Path) else str(path)
        size = self.sizes[name] if name in self.sizes else os.path.getsize(path)
        if ending(path.name) != ".txt":
          shards.append(_Range(name, size, language))
          continue
        start = 0
        for end in _block_ends(path, size):
          if end - start >= shard_bytes or end == size:
            shards.append(_Range(name, end - start, language, start, end - start))
            start = end
    return shards

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The documents of a shard, one after another."""
    for block in self.blocks(shard, on_damage):
      yield from block.documents

  def blocks(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Block]:
    """The documents of a shard in blocks.

    The blocks do not depend on where the shards begin, so a file gives the same blocks plain and compressed. Of a damaged
    file, the whole blocks before the damage are given.
    Damage, which `refuse` makes a UserError: the file is not UTF-8 (with its line), is damaged or has no ends of lines.
    Raises UserError in any case: the file is not there.
    """
    assert isinstance(shard, _Range) and shard.language
    tolerant = on_damage is not refuse
    position = shard.start
    blocks = read_blocks(shard.name, shard.start, shard.length)
    while True:
      try:
        block = next(blocks, None)
      except UserError as error:
        if not (tolerant and any_path(shard.name).exists()):
          raise
        reason = str(error).removeprefix(f"{shard.name}: ")
        on_damage(Damage(shard.name, f"{reason}; {position:,} bytes of its text were read, the rest is lost"))
        return
      if block is None:
        return
      text = block.decode("utf-8", "surrogateescape") if tolerant else _decode(block, shard.name, position)
      if not position and "\n" not in text and "\r" in text.strip():
        reason = "its lines end in a carriage return alone; mend them, e.g. with tr '\\r' '\\n'"
        on_damage(Damage(shard.name, reason))
        return
      texts = split_documents(text)
      documents = [
        Document(text, f"{shard.name}:{position}#{number}", "", shard.language) for number, text in enumerate(texts)
      ]
      yield Block(documents, len(block))
      position += len(block)


def read_blocks(path: str | os.PathLike, start: int = 0, length: int | None = None) -> Iterator[bytes]:
  """Whole documents, about BLOCK_BYTES at a time; joined they are the file's bytes [start, start + length).

  If reading begins at the start of any block, the blocks from there on are the same. So a file can be cut into shards
  between blocks.
  """
  with open_text(path) as file:
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
      if cut := _last_boundary(buffer[:window], path):
        yield buffer[:cut]
        buffer, window = buffer[cut:], BLOCK_BYTES
      else:
        window += BLOCK_BYTES
    if buffer:
      yield buffer


def split_documents(text: str) -> list[str]:
  """The documents of a block, without the blank lines around them and with lines that end in a bare newline.

  A byte order mark at the start of a line was once that of a file, and is left out. A carriage return elsewhere than before
  a newline stays, as a blank within its line.
  """
  text = f"\n\n{text}\n\n"
  if "\r" in text:
    text = text.replace("\r\n", "\n")
  if "\ufeff" in text:
    text = text.replace("\n\ufeff", "\n")
  return [document for part in BLANK_LINES.split(text) if (document := part.strip(" \t\n\r\f\v"))]


def _block_ends(path: AnyPath, size: int) -> Iterator[int]:
  """Where read_blocks would end the blocks of a plain file of `size` bytes, from a glance at the end of each block."""
  with open_text(path) as file:
    start, window = 0, BLOCK_BYTES
    while size - start >= window:
      glance = min(_GLANCE, window)
      file.seek(start + window - glance)
      last = file.read(glance).rfind(b"\n\n")
      if last >= 0:
        cut = window - glance + last + 2
      else:
        file.seek(start)
        cut = _last_boundary(file.read(window), path)
      if cut:
        start, window = start + cut, BLOCK_BYTES
        if start < size:
          yield start
      else:
        window += BLOCK_BYTES
  yield size


def _last_boundary(window: bytes, path: str | os.PathLike) -> int:
  """Where the last document of a window begins, in bytes. 0 means that the window must grow to hold a blank line."""
  if (last := window.rfind(b"\n\n")) >= 0:
    return last + 2
  for match in _BLANK_LINE_IN_BYTES.finditer(window):
    last = match.end()
  if last < 0 and len(window) >= LONGEST_DOCUMENT:
    last = window.rfind(b"\n") + 1
    if not last and len(window) >= LONGEST_LINE:
      raise UserError(
        f"{path}: a line of more than {LONGEST_LINE >> 20} MB, from {window[:30]!r} on; break it into paragraphs"
      )
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


@dataclasses.dataclass(frozen=True)
class _Found:
  """What lies in a folder."""

  path: AnyPath
  is_folder: bool
  is_file: bool
  size: int | None  # bytes of a bucket's file, which its folder's listing tells

  @property
  def name(self) -> str:
    return self.path.name


def _look(folder: AnyPath) -> list[_Found]:
  """What lies in a folder, by name."""
  if isinstance(folder, Path):
    return [_Found(path, path.is_dir(), path.is_file(), None) for path in sorted(folder.iterdir())]
  return [_Found(folder / name, size is None, size is not None, size) for name, size in listing(folder).items()]


def _find_files(folder: AnyPath, languages: Iterable[str] | None) -> tuple[dict[str, list[_Found]], dict[str, list[str]]]:
  """The text files of each language, in order; and by reason the names of what is left out."""
  there = _look(folder) if not isinstance(folder, Path) or folder.is_dir() else None
  if not there and (there is None or not isinstance(folder, Path)):
    raise UserError(f"{folder}: no such folder; --text wants a folder with LANG.txt files")
  wanted = None if languages is None else sorted(set(languages))
  files: dict[str, list[_Found]] = {}
  left_out: dict[str, list[str]] = {}
  is_built = any(found.name == _MANIFEST and found.is_file for found in there)
  if not is_built and any(found.name == _WORK and found.is_folder for found in there):
    raise UserError(f"{folder}: `xlmr build_corpus` has not finished here; run it again with the same flags")
  for found in there:
    language = _stem(found)
    if is_built and found.name in _BUILT:
      continue
    if why := _why_no_text(found, folder=True):
      left_out.setdefault(why, []).append(found.name)
    elif wanted is not None and language not in wanted:
      if not _LANGUAGE.fullmatch(language):
        left_out.setdefault("no language code", []).append(found.name)
    elif not _LANGUAGE.fullmatch(language):
      raise UserError(
        f"{found.path}: {language!r} is no language code; name it like en.txt, zh-Hans.txt.xz or en/, or name those that "
        "you want with --languages"
      )
    elif language in files:
      raise UserError(f"{found.path}: {language} is also in {files[language][0].path}; keep one of them")
    else:
      files[language] = [_regular(found) if ending(found.name) else found]
  folders = {language: found[0].path for language, found in files.items() if found[0].is_folder}
  for (language, path), content in zip(folders.items(), each(_look, folders.values(), folder)):
    files[language] = _files_of_language(path, content, left_out)
  if not files and wanted is None:
    raise UserError(f"{folder}: no LANG.txt, LANG.txt.gz or the like, and no LANG/ in it")
  if missing := [language for language in wanted or () if language not in files]:
    raise UserError(f"{folder}: no text of {', '.join(missing)}; it has {', '.join(_languages(there)) or 'none'}")
  return files, left_out


def _languages(there: list[_Found]) -> list[str]:
  """The languages that a folder seems to have."""
  built = _BUILT if any(found.name == _MANIFEST and found.is_file for found in there) else ()
  stems = {_stem(found) for found in there if found.name not in built and not _why_no_text(found, folder=True)}
  return sorted(filter(_LANGUAGE.fullmatch, stems))


def _files_of_language(folder: AnyPath, there: list[_Found], left_out: dict[str, list[str]]) -> list[_Found]:
  files: dict[str, _Found] = {}
  for found in there:
    if why := _why_no_text(found):
      left_out.setdefault(why, []).append(f"{folder.name}/{found.name}")
    elif (stem := _stem(found)) in files:
      raise UserError(f"{found.path}: {stem} is there twice, also as {files[stem].name}; keep one of them")
    else:
      files[stem] = _regular(found)
  if not files:
    raise UserError(f"{folder}: no text in it, whose name would end in {', '.join(ENDINGS)}; add text or remove the folder")
  return list(files.values())


def _why_no_text(found: _Found, folder: bool = False) -> str:
  """Why a file is left out, by its name; "" if it is not. folder: whether a folder is taken too."""
  if found.name.startswith("."):
    return "hidden"
  return "" if ending(found.name) or (folder and found.is_folder) else f"none of {', '.join(ENDINGS)}"


def _stem(found: _Found) -> str:
  return found.name[: len(found.name) - len(ending(found.name))]


def _regular(found: _Found) -> _Found:
  """What was found. UserError: it has the name of a text, but is something else."""
  path = found.path
  if found.is_folder:
    raise UserError(f"{path}: a folder with the name of a file; call it {_stem(found)}")
  if not found.is_file:
    is_link = isinstance(path, Path) and path.is_symlink()
    raise UserError(f"{path}: {'a link to nothing' if is_link else 'no file to read'}; mend or remove it")
  return found
