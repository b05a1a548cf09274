"""The files that FILES names in --source=FORMAT:FILES: a path, a glob, a folder, or @LIST, a file with a path per line."""

import copy
import glob
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from xlmr_jax.corpus.sources import Shard, Source
from xlmr_jax.corpus.sources.fields import asked_languages
from xlmr_jax.corpus.sources.text_file import COMPRESSED, open_text
from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path, in_parallel, is_bucket
from xlmr_jax.folders import files_below, listing
from xlmr_jax.given_paths import local_path, path_given

_GLOB = frozenset("*?[")


class File(NamedTuple):
  """A file that is there."""

  path: str  # absolute, or a bucket's
  size: int  # bytes, as it is stored
  time_s: int | None = None  # seconds since 1970 at which it was written; None in a bucket


class _Seen:
  """The files and folders that were found, by their numbers on the disk, so that no link brings one of them again."""

  def __init__(self) -> None:
    self._paths: dict[tuple[int, int], str] = {}
    self._doubles: list[tuple[str, str]] = []  # the two paths of a file, the later one first

  def add(self, path: str, found: os.stat_result) -> bool:
    """Whether a file or folder was not found under another path before."""
    # Some file systems have no numbers.
    first = self._paths.setdefault((found.st_dev, found.st_ino), path) if found.st_ino else path
    # Empty files have no text that could count twice.
    if first != path and found.st_size and stat.S_ISREG(found.st_mode):
      self._doubles.append((path, first))
    return first == path

  def refuse_doubles(self, prefix_of: Callable[[str], str] = lambda path: "") -> None:
    """Raises UserError, naming both paths of a file that was found twice, and the number of the others.

    prefix_of: what comes before a path in the message, such as the line of a list.
    """
    if not self._doubles:
      return
    path, first = self._doubles[0]
    others = len(self._doubles) - 1
    more = f" ({others} more {'files are' if others > 1 else 'file is'} there twice)" if others else ""
    raise UserError(
      f"{prefix_of(path)}{path}: {first} is the same file by way of a link{more}; leave one of them out, e.g. by a @LIST of "
      "files"
    )


def with_compressed(*endings: str) -> tuple[str, ...]:
  """These endings, and each with those of the compressed formats after it."""
  return tuple(ending + more for ending in endings for more in ("", *COMPRESSED))


def find_files(given: str, endings: tuple[str, ...], flag: str = "--source=") -> list[File]:
  """The files that `given` names, in the order of a list, and otherwise sorted by path.

  given: a path; a glob, in which ** stands for any folders; a folder, which stands for all files below it that have one of
  `endings` and are not hidden; or @LIST, a file, plain or compressed, with a path per line, relative to the list's folder,
  in which empty lines and those that begin with # do not count. Links are followed, but none into a folder that was found
  before. Every file is looked at once; in a bucket, every folder.
  Raises UserError, naming the file, and the line of a list: something is missing, there twice, also by way of a link, no
  file or no list, or nothing is left.
  """
  if given.startswith("@"):
    return list(_listed(str(path_given(given[1:], f"{flag}@")), flag))
  if is_bucket(given):
    return _in_bucket(str(any_path(given)), endings, flag)
  path, seen = str(local_path(given, flag)), _Seen()
  if not os.path.lexists(path) and _GLOB.intersection(path):
    found = [file for name in sorted(glob.glob(path, recursive=True)) if (file := _file(name, path, seen, folders=True))]
    if not found:
      raise UserError(f"{flag}{given}: no file has such a name")
    seen.refuse_doubles()
    return found
  if os.path.isdir(path):
    found = [file for name in sorted(_below(path, endings, seen)) if (file := _file(name, path, seen))]
    if not found:
      raise UserError(f"{path}: no file in it whose name ends in {', '.join(endings)}")
    seen.refuse_doubles()
    return found
  file = _file(path, flag.rstrip("="), seen)
  assert file
  return [file]


def _in_bucket(given: str, endings: tuple[str, ...], flag: str) -> list[File]:
  """find_files of a bucket. A glob, a folder or a file takes one listing."""
  folder, _, last = given.rpartition("/")
  if given.count("/") > 2 and not _GLOB.intersection(folder):
    there = listing(any_path(folder))
    if there.get(last) is not None:  # Also where its name looks like a glob.
      return [File(given, there[last] or 0)]
    if _GLOB.intersection(last):
      matches = _pattern(last).fullmatch
      found = [File(f"{folder}/{name}", size) for name, size in there.items() if size is not None and matches(name)]
      return found or _refuse(f"{flag}{given}: no file has such a name")
  if _GLOB.intersection(given):
    fixed = given[: min(map(given.find, _GLOB.intersection(given)))].rpartition("/")[0]
    matches = _pattern(given[len(fixed) + 1 :]).fullmatch
    found = [File(f"{fixed}/{name}", size) for name, size in files_below(any_path(fixed)).items() if matches(name)]
    return sorted(found) or _refuse(f"{flag}{given}: no file has such a name")
  there = files_below(any_path(given))
  if not there:
    _refuse(f"{given}: cannot be read (no such file or folder in the bucket; asked for by {flag.rstrip('=')})")
  found = [
    File(f"{given}/{name}", size)
    for name, size in there.items()
    if name.lower().endswith(endings) and not any(part.startswith(".") for part in name.split("/"))
  ]
  return sorted(found) or _refuse(f"{given}: no file in it whose name ends in {', '.join(endings)}")


def _refuse(message: str) -> list[File]:
  raise UserError(message)


def _pattern(pattern: str) -> re.Pattern:
  """A glob as glob.glob reads it: * and ? stay within a name, ** stands for any folders, and none matches hidden names."""
  parts = pattern.split("/")
  expressions: list[str] = []
  for index, part in enumerate(parts):
    if part == "**":
      expressions.append(r"(?:[^/.][^/]*/)*" if index < len(parts) - 1 else r"(?:[^/.][^/]*/)*[^/.][^/]*")
      continue
    hidden = "" if part.startswith(".") else r"(?!\.)"
    expressions.append(hidden + _name_expression(part) + ("/" if index < len(parts) - 1 else ""))
  return re.compile("".join(expressions), re.DOTALL)


def _name_expression(part: str) -> str:
  """A regular expression of what a part of a glob between two slashes stands for."""
  kinds = {"*": "[^/]*", "?": "[^/]"}

  def translated(sign: str) -> str:
    if len(sign) == 1:
      return kinds.get(sign) or re.escape(sign)
    but = "^" if sign[1] == "!" else ""
    return f"(?!/)[{but}" + re.sub(r"([\\\[^&~|])", r"\\\1", sign[1 + len(but) : -1]) + "]"

  return "".join(map(translated, re.findall(r"\[!?\]?[^\]]*\]|.", part, re.DOTALL)))


def _below(folder: str, endings: tuple[str, ...], seen: _Seen) -> Iterator[str]:
  """The files of a folder and of those in it by their endings, but for hidden ones.

  A folder that was found before, by way of a link, gives its own files, of which each is a double then. It is not walked
  again, because it may lie in itself.
  """

  def refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error

  for where, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
    # In the order of their names, so that on every machine the same of two paths to a folder comes first.
    folders[:] = sorted(name for name in folders if not name.startswith(".")) if seen.add(where, os.stat(where)) else []
    yield from (os.path.join(where, name) for name in names if not name.startswith(".") and name.lower().endswith(endings))


def _file(path: str, asked: str, seen: _Seen, folders: bool = False) -> File | None:
  """The file at a path. folders: a folder is None rather than an error. Raises UserError: it is missing, or no file."""
  try:
    found = os.stat(path)
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror}; asked for by {asked})") from error
  if stat.S_ISREG(found.st_mode):
    seen.add(path, found)
    return File(path, found.st_size, found.st_mtime_ns // 10**9)
  if folders and stat.S_ISDIR(found.st_mode):
    return None
  raise UserError(f"{path}: no file to read (asked for by {asked})")


def _listed(path: str, flag: str) -> Iterator[File]:
  """The files of a list."""
  folder = os.path.dirname(path)
  lines: dict[str, int] = {}  # by path, which line has it
  seen = _Seen()
  found: list[File | None] = []  # None: it is in a bucket, whose folders are looked at together
  with open_text(path) as file:
    for number, line in enumerate(file, 1):
      try:
        name = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
      except UnicodeDecodeError:
        raise UserError(f"{path}, line {number}: not UTF-8; is it a list of paths?") from None
      if not name or name.startswith("#"):
        continue
      where = f"{path}, line {number}"
      if "\0" in name:
        raise UserError(f"{where}: a zero byte; is it a list of paths?")
      if "://" in name:
        name = str(path_given(name, f"{where}: "))
      if name.startswith("~"):
        name = str(local_path(name, f"{where}: "))
      name = _joined(folder, name)
      if (before := lines.setdefault(name, number)) != number:
        raise UserError(f"{where}: {name} is also in line {before}")
      try:
        found.append(None if is_bucket(name) else _file(name, where, seen))
      except UserError as error:
        raise UserError(f"{where}: {error}") from None
  if not lines:
    raise UserError(f"{flag}@{path}: the list is empty")
  seen.refuse_doubles(lambda name: f"{path}, line {lines[name]}: ")
  folders = sorted({name.rpartition("/")[0] for name, file in zip(lines, found) if file is None})
  sizes = dict(zip(folders, in_parallel(lambda folder: listing(any_path(folder)), folders)))
  for (name, number), file in zip(lines.items(), found, strict=True):
    if file is None:
      there, _, last = name.rpartition("/")
      if (size := sizes[there].get(last)) is None:
        what = "no file to read" if last in sizes[there] else "cannot be read (no such file in the bucket)"
        raise UserError(f"{path}, line {number}: {name}: {what}")
      file = File(name, size)
    yield file


def _joined(folder: str, name: str) -> str:
  """The path of a list's line, which may be relative to the list's folder."""
  if is_bucket(name) or (is_bucket(folder) and not os.path.isabs(name)):
    scheme, _, rest = (name if is_bucket(name) else f"{folder}/{name}").partition("://")
    return f"{scheme}://{posixpath.normpath(rest)}"
  return os.path.normpath(os.path.join(folder, name))


class FileSource(Source):
  """A source that is a list of files. What its workers get does not hold the list, which may have a million paths."""

  def __init__(self, files: Iterable[File], languages: Iterable[str] | None = None):
    """languages: documents that say another language are left out; all are taken by default."""
    self.files: list[File] = list(files)
    self.languages = asked_languages(languages)

  def reader(self) -> Source:
    return copy.copy(self)  # without the list, as __getstate__ has it

  def __getstate__(self) -> dict:
    return self.__dict__ | {"files": []}

  def times(self) -> dict[str, int]:
    """Of all files but those in a bucket."""
    return {file.path: file.time_s for file in self.files if file.time_s is not None}

  def shards(self, shard_bytes: int) -> list[Shard]:
    """Each file is a shard."""
    return [Shard(path, size) for path, size, _ in self.files]

  def wants(self, language: str) -> bool:
    """Whether documents with this label are taken; those without one always are."""
    return not language or self.languages is None or language in self.languages
