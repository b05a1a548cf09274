"""Folders, of this machine and of buckets: what is in them, and how they are copied, moved, removed and made whole.

In a bucket there are no folders, only names; nothing can be renamed, and of a folder that is being copied or removed others
see the part that is done. So what is whole is said by a file that is written last and removed first.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from xlmr_jax import bucket
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, download, in_parallel, naming, upload, user_cache
from xlmr_jax.given_paths import refuse_unwritable
from xlmr_jax.names import below


def entries(folder: AnyPath) -> dict[str, bool]:
  """{name: whether it is a folder} of what lies in a folder; {} where there is none. A bucket's takes one request."""
  if not isinstance(folder, Path):
    return {name: size is None for name, size in listing(folder).items()}
  try:
    return {path.name: path.is_dir() for path in folder.iterdir()}
  except FileNotFoundError:
    return {}


class Sign(NamedTuple):
  """What a listing tells of a file."""

  size: int  # bytes
  time_s: float  # when it was written, by the clock of its store


def signs(folder: AnyPath) -> dict[str, Sign]:
  """{name: its sign} of the files in a folder. A bucket's takes one request. Raises FileNotFoundError: there is none."""
  if isinstance(folder, Path):
    return {path.name: Sign((found := path.stat()).st_size, found.st_mtime) for path in folder.iterdir()}
  found = bucket.file_system(folder).ls(os.fspath(folder), detail=True)
  return {
    os.path.basename(info["name"]): Sign(int(info["size"]), datetime.fromisoformat(info["updated"]).timestamp())
    for info in found
    if info["type"] == "file"
  }


def listing(folder: AnyPath) -> dict[str, int | None]:
  """{name: bytes, or None of a folder} of what lies in a bucket's folder, sorted; {} where there is none. One request."""
  try:
    found = bucket.file_system(folder).ls(os.fspath(folder), detail=True)  # pyright: ignore[reportArgumentType]
  except FileNotFoundError:
    return {}
  root = os.fspath(folder).partition("://")[2].rstrip("/") + "/"
  named = {info["name"].rstrip("/").removeprefix(root): info for info in found if info["name"].startswith(root)}
  return {name: None if info["type"] == "directory" else int(info["size"]) for name, info in sorted(named.items()) if name}


def files_below(folder: AnyPath) -> dict[str, int]:
  """{path relative to the folder: bytes} of all files below it, sorted; {} where there is no such folder."""
  if isinstance(folder, Path):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
      name: size for name, size in sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)
    }
  root = os.fspath(folder).partition("://")[2] + "/"
  found = bucket.file_system(folder).find(os.fspath(folder), detail=True)
  return {name.removeprefix(root): info["size"] for name, info in sorted(found.items()) if name.startswith(root)}


def remove_folder(folder: AnyPath, *, missing_ok: bool = True) -> None:
  """Removes a folder with all that is in it. Of a link only the link goes, and what it leads to stays.

  In a bucket, a killed process may have removed a part of it.
  """
  if isinstance(folder, Path):
    if folder.is_symlink():
      folder.unlink()
    elif folder.exists() or not missing_ok:
      shutil.rmtree(folder)
    return
  store = bucket.file_system(folder)
  in_parallel(lambda name: _remove_object(store, f"{folder}/{name}"), files_below(folder))


def _remove_object(store: Any, name: str) -> None:
  with contextlib.suppress(FileNotFoundError):
    store.rm_file(name)


def copy_folder(source: AnyPath, target: AnyPath, *, last: str = "") -> None:
  """Copies a folder with all that is in it. last: the file that says that the folder is whole, which is copied last.

  Within a bucket its server copies. Raises OSError; UserError: a bucket has a name that would lead out of the folder.
  """
  names = sorted(files_below(source), key=lambda name: (name == last, name))

  def copy(name: str) -> None:
    a, b = source / name, below(target, name)
    if isinstance(a, Path) and isinstance(b, Path):
      b.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(a, b)
    elif isinstance(a, Path):
      upload(a, any_path(b))  # pyright: ignore[reportArgumentType]
    elif isinstance(b, Path):
      download(a, b)
    else:
      bucket.file_system(a).cp_file(os.fspath(a), os.fspath(b))

  head = [name for name in names if name != last]
  in_parallel(copy, head)
  for name in names[len(head) :]:
    copy(name)


def move_folder(source: AnyPath, target: AnyPath) -> None:
  """Moves a folder: a rename, or in a bucket a copy and the removal of what was copied."""
  if isinstance(source, Path):
    source.rename(target)
    return
  copy_folder(source, target)
  remove_folder(source)


def replace_folder(source: AnyPath, target: AnyPath, *, last: str = "") -> None:
  """Copies a folder within a bucket over another one, whose other files go afterwards. An empty source changes nothing.

  last: the file that is copied last.
  """
  names, before = files_below(source), files_below(target)
  if not names:
    return
  copy_folder(source, target, last=last)
  store = bucket.file_system(target)  # pyright: ignore[reportArgumentType]
  in_parallel(lambda name: _remove_object(store, f"{target}/{name}"), [name for name in before if name not in names])


def refuse_used_folder(path: AnyPath) -> None:
  """UserError if path is anything but an empty folder or a place where one can be made."""
  refuse_unwritable(path, folder=True)
  if path.exists() and any(iter(path.iterdir())):
    raise UserError(f"{path} exists and is not an empty folder; choose another one or remove it")


@contextlib.contextmanager
def whole_folder(path: AnyPath, *, last: str = "config.json") -> Iterator[Path]:
  """Yields a new folder beside `path` that becomes `path` when the block ends, and is removed when the block raises.

  last: the file without which the folder is not whole. In a bucket, where no folder can be renamed, it is written last.
  Raises UserError if there is something at `path` already.
  """
  refuse_used_folder(path)
  if not isinstance(path, Path):
    with tempfile.TemporaryDirectory(prefix="xlmr_jax-") as folder:
      yield Path(folder)
      copy_folder(Path(folder), path, last=last)
    return
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


def local_folder(folder: AnyPath) -> Path:
  """The folder itself, or a copy of a bucket's in this user's cache, for readers that know only this machine's files.

  The copy is made once for what the bucket holds by now. Raises FileNotFoundError: there is no such folder.
  """
  if isinstance(folder, Path):
    return folder
  found = bucket.file_system(folder).find(os.fspath(folder), detail=True)
  if not found:
    raise FileNotFoundError(2, "there is no such folder in the bucket", os.fspath(folder))
  state = sorted((name, info["size"], str(info.get("generation", info.get("mtime")))) for name, info in found.items())
  key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
  copy = user_cache() / "folders" / f"{folder.name}-{key}"
  if not copy.exists():
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".unfinished-") as unfinished:
      copy_folder(folder, Path(unfinished) / "copy")
      try:
        (Path(unfinished) / "copy").rename(copy)
      except OSError:
        if not copy.exists():  # Else another process was faster.
          raise
  return copy
