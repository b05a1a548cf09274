"""A file that grows line by line: on a disk it is appended to; in a bucket it is a folder of segments that read as one.

A segment is an object that is written anew, whole, until it is full. So a reader never sees half a line of one, and a
process that is killed loses at most the lines of UPLOAD_EVERY_S, which its next start writes again.

A run that was copied from one place to the other has its logs in the other's form: segments on a disk, or one object in a
bucket. They are read as they are, and whoever opens such a file to append to it turns it into the form of its place.
"""

import contextlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from etils import epath

from xlmr_jax import bucket
from xlmr_jax.files import AnyPath, in_parallel, naming, read_bytes, whole_file, write_whole
from xlmr_jax.folders import entries, remove_folder

SEGMENT_BYTES = 2**20
# A bucket takes about one write a second of the same object.
UPLOAD_EVERY_S = 10.0


class Growing(Protocol):
  """What open_growing returns."""

  def append(self, raw: bytes) -> None:
    """Adds bytes, which may wait for the next sync() to be safe. Raises OSError or StoreError, also of what came before."""

  def sync(self) -> None:
    """Waits until everything is on the disk or in the bucket."""

  def close(self) -> None:
    """Does so too, and closes the file."""


def _segments(path: AnyPath) -> list[str]:
  return sorted(name for name, is_folder in entries(path).items() if name.isdecimal() and not is_folder)


def _joined(path: AnyPath, names: list[str]) -> bytes:
  return b"".join(in_parallel(lambda name: read_bytes(path / name), names))


def _aside(path: Path) -> Path:
  """Where a folder of segments lies for the moment in which a file takes its place on a disk."""
  return path.with_name(f".{path.name}.segments")


def read_growing(path: AnyPath) -> bytes:
  """The content so far, in either form; empty where there is no such file."""
  if isinstance(path, Path):
    if path.is_file():
      return path.read_bytes()
    folder = path if path.exists() else _aside(path)
    return _joined(folder, _segments(folder))
  if names := _segments(path):
    return _joined(path, names)
  with contextlib.suppress(FileNotFoundError):
    return read_bytes(path)
  return b""


def open_growing(path: AnyPath, content: bytes) -> Growing:
  """Opens a file to be appended to. content: what it is to begin with, which need not be all that it holds by now."""
  return _File(path, content) if isinstance(path, Path) else _Segments(path, content)


class _File:
  """A file on a disk."""

  def __init__(self, path: Path, content: bytes):
    aside = _aside(path)
    if path.exists() or path.is_symlink() or aside.exists():  # A link is replaced, not followed.
      with whole_file(path) as unfinished:
        unfinished.write_bytes(content)
        if path.is_dir() and not path.is_symlink():  # No file can be put into a folder's place in one step.
          remove_folder(aside)
          path.rename(aside)  # Until the next line, this is what readers find.
    remove_folder(aside)
    self._file: BinaryIO = path.open("ab")

  def append(self, raw: bytes) -> None:
    with naming(self._file.name):
      self._file.write(raw)
      self._file.flush()

  def sync(self) -> None:
    with naming(self._file.name):
      os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()


class _Segments:
  """A folder of numbered objects in a bucket."""

  def __init__(self, path: epath.Path, content: bytes):
    self._path, self._pool = path, ThreadPoolExecutor(1, "log")
    names = _segments(path)
    parts = in_parallel(lambda name: read_bytes(path / name), names)
    kept = offset = 0
    while kept < len(parts) and content.startswith(parts[kept], offset) and names[kept] == self._name(kept):
      offset += len(parts[kept])
      kept += 1
    if kept and len(parts[kept - 1]) < SEGMENT_BYTES:  # The last one goes on.
      kept -= 1
      offset -= len(parts[kept])
    self._number, self._open = kept, content[offset:]  # the segment that is not full yet
    # What is cut off must go before anything is added: two lines of a step would be read.
    if parts[kept : kept + 1] != [self._open] and (self._open or len(parts) > kept):
      write_whole(path / self._name(kept), self._open)
    in_parallel(lambda name: (path / name).unlink(missing_ok=True), [name for name in names if name > self._name(kept)])
    with contextlib.suppress(FileNotFoundError):  # One object, of a disk's file; the segments hold what is kept of it.
      bucket.file_system(path).rm_file(os.fspath(path))
    self._is_dirty, self._uploaded_at = False, time.monotonic()
    self._uploading: Future | None = None

  def _name(self, number: int) -> str:
    return f"{number:08d}"

  def _upload(self) -> None:
    self._is_dirty, self._uploaded_at = False, time.monotonic()
    self._uploading = self._pool.submit(write_whole, self._path / self._name(self._number), self._open)

  def append(self, raw: bytes) -> None:
    self._open += raw
    self._is_dirty = True
    is_full = len(self._open) >= SEGMENT_BYTES
    if is_full or time.monotonic() - self._uploaded_at >= UPLOAD_EVERY_S:
      if self._uploading and (is_full or self._uploading.done()):
        self._uploading.result()
      elif self._uploading:
        return  # A slow store: the next line tries again.
      self._upload()
    if is_full:
      self._number, self._open = self._number + 1, b""

  def sync(self) -> None:
    if self._uploading:
      self._uploading.result()
    if self._is_dirty:
      self._upload()
    if self._uploading:
      self._uploading.result()
      self._uploading = None

  def close(self) -> None:
    if not bucket.has_given_up():
      self.sync()
    self._pool.shutdown(wait=not bucket.has_given_up())
