"""Paths that a user gave: which are taken, and whether a file or a folder can be made there."""

import os
import re
import shutil
from pathlib import Path
from typing import TypeVar

from etils import epath

from xlmr_jax import bucket
from xlmr_jax.bucket import is_bucket
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path

P = TypeVar("P", Path, epath.Path, AnyPath)


def path_given(given: str | os.PathLike, flag: str) -> AnyPath:
  """A path of this machine or of a bucket that a user gave, absolute and with ~ expanded. As local_path otherwise."""
  return any_path(given) if is_bucket(given) else local_path(given, flag)


def local_path(given: str | os.PathLike, flag: str) -> Path:
  """A path that a user gave, absolute and with ~ expanded. flag: what stood before it, e.g. "--out=", for messages.

  Raises UserError: it is empty, or it names a bucket or any other store with a scheme.
  """
  text = os.fspath(given)
  if not text:
    raise UserError(f"{flag} is empty; name a path")
  if is_bucket(text):
    raise UserError(f"{flag}{text}: must be a path of this machine; copy it from the bucket, or mount the bucket")
  if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # A Path of gs://bucket has lost a slash.
    raise UserError(f"{flag}{text}: must be a path of this machine or of a bucket, gs://BUCKET/NAME")
  try:
    return Path(text).expanduser().absolute()
  except RuntimeError as error:  # Nobody has that home folder.
    raise UserError(f"{flag}{text}: {error}") from None


def refuse_blocked(path: AnyPath, *, folder: bool) -> Path:
  """The folder that must be writable so that a folder or a file can be made or changed at `path`.

  A folder's parents may be missing, a file's may not. Raises UserError: something of the other kind is there, a file is in
  the way, or a link leads to nothing.
  """
  path = Path(path)
  nearest = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
  if not nearest.exists():
    raise UserError(f"{path}: {nearest} is a link to nothing; mend or remove it")
  if nearest == path and path.is_dir() != folder:
    raise UserError(f"{path} is no {'folder' if folder else 'file'}; choose another path")
  nearest = path.parent if nearest == path and not folder else nearest
  if not nearest.is_dir():
    raise UserError(f"{path}: {nearest} is a file, so that nothing can lie below it; choose another path")
  if not folder and nearest != path.parent:
    raise UserError(f"{path}: there is no folder {path.parent}; make it")
  return nearest


def refuse_unwritable(path: P, *, folder: bool) -> P:
  """`path`, if a folder or a file can be made or changed there. Whether there is one is the caller's matter.

  Raises UserError as refuse_blocked does, and if the folder cannot be written, its disk is full, or there is no such bucket.
  """
  if not isinstance(path, Path):
    bucket.refuse_missing(path)
    return path
  nearest = refuse_blocked(path, folder=folder)
  if not os.access(nearest, os.W_OK | os.X_OK):
    raise UserError(f"{path}: {nearest} cannot be written; choose another path or change its permissions")
  disk = shutil.disk_usage(nearest)
  if disk.total and not disk.free:
    raise UserError(f"{path}: no space left on the disk of {nearest}")
  return path
