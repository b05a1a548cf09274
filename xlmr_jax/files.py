"""Files that are written whole or not at all, logs of JSON lines, digests, locks and the paths of tree leaves.

Every other module writes its files through these functions, so that what a store cannot do is told in one place.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from xlmr_jax.errors import UserError


def local_path(given: str | os.PathLike, flag: str) -> Path:
  """A path that a user gave, absolute and with ~ expanded. flag: what gave it, e.g. "--out", for messages.

  Raises UserError: it is empty, or it names a bucket or any other store with a scheme.
  """
  text = os.fspath(given)
  if not text:
    raise UserError(f"{flag}= is empty; name a path")
  if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # A Path of gs://bucket has lost a slash.
    raise UserError(
      f"{flag}={text}: must be a path of this machine; buckets are not read or written yet, so copy or mount it"
    )
  try:
    return Path(text).expanduser().absolute()
  except RuntimeError as error:
    raise UserError(f"{flag}={text}: {error}") from None


def refuse_unwritable(path: Path, flag: str, *, folder: bool) -> Path:
  """`path`, if a folder or a file can be written there; what is there already is the caller's matter, if it is of that kind.

  A folder's parents may be missing, a file's may not. flag: what gave the path. Raises UserError: what is there is of the
  other kind, a link to nothing or something else stands in the way, the place cannot be written, or its disk is full.
  """
  place = next(place for place in (path, *path.parents) if os.path.lexists(place))
  if not place.exists():
    raise UserError(f"{flag}={path}: {place} is a link to nothing; mend or remove it")
  if place == path and path.is_dir() != folder:
    raise UserError(f"{flag}={path}: is a {'file' if folder else 'folder'}; name a {'folder' if folder else 'file'}")
  if place == path and not folder:
    place = path.parent
  if not place.is_dir():
    raise UserError(f"{flag}={path}: {place} is a file, so that nothing can lie below it")
  if not folder and place != path.parent:
    raise UserError(f"{flag}={path}: there is no folder {path.parent}; make it")
  if not os.access(place, os.W_OK | os.X_OK):
    raise UserError(f"{flag}={path}: {place} cannot be written; choose another place, or change its permissions")
  disk = shutil.disk_usage(place)
  if disk.total and not disk.free:
    raise UserError(f"{flag}={path}: no space left on the disk of {place}")
  return path


def write_json(path: str | os.PathLike, value: object) -> None:
  """Writes value as indented JSON: to a temporary name first, then renamed, so that readers see all of it or nothing."""
  path = Path(path)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
  temporary.replace(path)


def sha256_of(path: str | os.PathLike) -> str:
  """The sha256 of a file, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def flatten(nested: dict, prefix: str = "", separator: str = ".") -> dict[str, Any]:
  """{"model": {"layers": 12}} -> {"model.layers": 12}. An empty dict inside has no entry."""
  flat: dict[str, Any] = {}
  for key, value in nested.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}{separator}", separator)
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def read_json_lines(path: str | os.PathLike) -> list[dict]:
  """The objects of a file with one JSON object per line."""
  return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


class JsonLines:
  """An append-only file of one JSON object per line, each with a "step".

  Opening it at a step cuts off all later lines, and a line that a killed process left half written.
  """

  def __init__(self, path: str | os.PathLike, start: int):
    path = Path(path)
    kept: list[str] = []
    self.last: dict | None = None  # the newest line
    if path.exists():
      for line in path.read_text().splitlines(keepends=True):
        try:
          step = json.loads(line)["step"]
        except ValueError:
          continue  # A process that was killed while it wrote leaves half a line.
        if step <= start and line.endswith("\n"):
          kept.append(line)
          self.last = json.loads(line)
      temporary = path.with_name(path.name + ".tmp")
      temporary.write_text("".join(kept))
      temporary.replace(path)
    self._file = path.open("a")

  def write(self, line: dict) -> None:
    """Appends one line and hands it to the operating system."""
    self.last = line
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()

  def sync(self) -> None:
    """Waits until the lines are on the disk: no checkpoint may outlive the lines before it."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def refuse_used_folder(path: Path) -> None:
  """UserError if path exists and is anything but an empty folder."""
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise UserError(f"{path} exists and is not an empty folder; choose another one or remove it")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
  """Yields a new folder beside `path` that becomes `path` when the block ends, and is removed when the block raises.

  Raises UserError if there is something at `path` already.
  """
  refuse_used_folder(path)
  unfinished = path.with_name(f".{path.name}.unfinished")
  shutil.rmtree(unfinished, ignore_errors=True)
  try:
    unfinished.mkdir(parents=True)
    yield unfinished
    if path.exists():
      path.rmdir()
    unfinished.rename(path)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def lock(path: Path, message: str) -> TextIO:
  """Takes the lock that `path` stands for; closing the returned file, or the end of the process, gives it back.

  Raises UserError(message) if another process holds it.
  """
  file = path.open("w")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.close()
    raise UserError(message) from None
  return file
