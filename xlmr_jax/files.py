"""Files that are written whole or not at all, digests, locks and the paths of tree leaves.

Every other module writes its files through these functions, so that what a store cannot do is told in one place.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from xlmr_jax.errors import UserError


def local_path(given: str | os.PathLike, flag: str) -> Path:
  """A path that a user gave, absolute and with ~ expanded. flag: what stood before it, e.g. "--out=", for messages.

  Raises UserError: it is empty, or it names a bucket or any other store with a scheme.
  """
  text = os.fspath(given)
  if not text:
    raise UserError(f"{flag} is empty; name a path")
  if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # A Path of gs://bucket has lost a slash.
    raise UserError(f"{flag}{text}: must be a path of this machine; buckets are not read or written yet: copy or mount it")
  try:
    return Path(text).expanduser().absolute()
  except RuntimeError as error:  # Nobody has that home folder.
    raise UserError(f"{flag}{text}: {error}") from None


def refuse_blocked(path: Path, *, folder: bool) -> Path:
  """The place that must be writable so that a folder or a file can be made or changed at `path`.

  A folder's parents may be missing, a file's may not. Raises UserError: something of the other kind is there, a file is in
  the way, or a link leads to nothing.
  """
  place = next(place for place in (path, *path.parents) if os.path.lexists(place))
  if not place.exists():
    raise UserError(f"{path}: {place} is a link to nothing; mend or remove it")
  if place == path and path.is_dir() != folder:
    raise UserError(f"{path} is no {'folder' if folder else 'file'}; choose another path")
  place = path.parent if place == path and not folder else place
  if not place.is_dir():
    raise UserError(f"{path}: {place} is a file, so that nothing can lie below it; choose another path")
  if not folder and place != path.parent:
    raise UserError(f"{path}: there is no folder {path.parent}; make it")
  return place


def refuse_unwritable(path: Path, *, folder: bool) -> Path:
  """`path`, if a folder or a file can be made or changed there. Whether there is one is the caller's matter.

  Raises UserError as refuse_blocked does, and if the place cannot be written or its disk is full.
  """
  place = refuse_blocked(path, folder=folder)
  if not os.access(place, os.W_OK | os.X_OK):
    raise UserError(f"{path}: {place} cannot be written; choose another path or change its permissions")
  disk = shutil.disk_usage(place)
  if disk.total and not disk.free:
    raise UserError(f"{path}: no space left on the disk of {place}")
  return path


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """While it is open, an OSError that names no file, as those of writing do, gets the name of this one."""
  try:
    yield
  except OSError as error:
    error.filename = error.filename or os.fspath(path)
    raise


@contextlib.contextmanager
def whole_file(path: Path, *, many_writers: bool = False) -> Iterator[Path]:
  """Yields the path of a file to write, which becomes `path` when the block ends and is removed when the block raises.

  many_writers: others may be writing the same file, so the unfinished one has a name of its own. Its folder is made.
  """
  own = f".{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}" if many_writers else ""
  unfinished = path.with_name(f"{path.name}{own}.tmp")
  if many_writers:
    path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with naming(path):
      yield unfinished
      unfinished.replace(path)
  finally:
    unfinished.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: object) -> None:
  """Writes value as indented JSON, whole or not at all, so that readers see all of it or nothing."""
  text = json.dumps(value, indent=1, sort_keys=True) + "\n"
  with whole_file(Path(path)) as unfinished:
    unfinished.write_text(text, encoding="utf-8")


def user_cache() -> Path:
  """The folder for what may be deleted at any time, of this user on this machine. RuntimeError: there is no home folder."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlmr_jax"


def parse_json(text: str | bytes) -> Any:
  """The value of a JSON text. Raises ValueError whatever is wrong with it, also if it is nested too deeply for Python."""
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError("nested too deeply") from None


def read_json(path: str | os.PathLike) -> Any:
  """The value of a JSON file. Raises OSError: it cannot be read; ValueError: it is no JSON in UTF-8."""
  return parse_json(Path(path).read_text(encoding="utf-8"))


def _seal(value: dict[str, Any]) -> str:
  body = {key: x for key, x in value.items() if key != "sha256"}
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def write_sealed_json(path: str | os.PathLike, value: dict[str, Any]) -> None:
  """write_json of an object with its own "sha256", so that read_sealed_json notices a digit that has changed."""
  write_json(path, value | {"sha256": _seal(value)})


def read_sealed_json(path: str | os.PathLike) -> dict[str, Any]:
  """The object of write_sealed_json; one without "sha256", of an older version, is taken as it is.

  Raises OSError: the file cannot be read; ValueError: it is no JSON object, or not as it was written.
  """
  value = read_json(path)
  if not isinstance(value, dict):
    raise ValueError("it holds no object")
  if value.get("sha256", seal := _seal(value)) != seal:
    raise ValueError("it is not as it was written: its sha256 differs")
  return value


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


def refuse_used_folder(path: Path) -> None:
  """UserError if path is anything but an empty folder or a place where one can be made."""
  refuse_unwritable(path, folder=True)
  if path.exists() and any(path.iterdir()):
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
    with naming(path):
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
  file = path.open("a")  # "w" would empty what a link at its place leads to.
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.close()
    raise UserError(message) from None
  return file
