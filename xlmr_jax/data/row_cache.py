"""Rows of a bucket on this machine's disk: brought in parallel, in the order in which a run needs them, verified once.

Every host needs every file of its languages sooner or later, because the order of an epoch is one over the whole language.
So the cache is as large as the rows. Training begins when the files of its first batches are there; a batch whose file is
still on its way waits for it, and the file goes ahead of the others.
"""

import contextlib
import fcntl
import hashlib
import heapq
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from etils import epath

from xlmr_jax import bucket
from xlmr_jax.errors import StoreError, UserError, one_line
from xlmr_jax.files import naming, size_of, user_cache

_THREADS = 8  # files that come at once
_PART_BYTES = 16 * 2**20  # of a file that one request reads; a start that was killed loses at most this
_SAY_EVERY_S = 10.0
_FIRST, _LAST = -1, 2**62  # priorities in the queue


def _ask_bucket(source: epath.Path, request: Callable[[], Any]) -> Any:
  """request(), whose OSError is the bucket's and not one of this machine's disk."""
  try:
    return request()
  except FileNotFoundError:
    raise UserError(f"{source}: manifest.json lists it, and the bucket does not have it; copy the rows again") from None
  except OSError as error:
    raise StoreError(f"{source}: cannot be read ({one_line(error)[:200]})") from error


class RowCache:
  """The local copies of a bucket's row files. The processes of a machine may share its folder."""

  def __init__(self, root: epath.Path, folder: str, fingerprint: str, sha256: dict[str, str]):
    """root: of the rows. folder: of the cache; "" for one of this user's. sha256: of each file by its path below root.

    Raises UserError: the folder cannot be made.
    """
    self._root, self._sha256 = root, sha256
    self.folder = (Path(folder) if folder else user_cache() / "rows") / fingerprint[:16]
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(f"config.data.cache: {self.folder} cannot be made ({error.strerror})") from None
    self._lock = threading.Condition()
    self._queue: list[tuple[int, str]] = []
    self._here = {name for name in sha256 if (self.folder / name).exists()}
    self._wanted: set[str] = set()
    self._error: Exception | None = None
    self._threads: list[threading.Thread] = []
    self._stop = False
    self._bytes, self._began, self._printed_at = 0, time.monotonic(), time.monotonic()

  def bring(self, names: Iterable[str], priority: int = 0) -> None:
    """Begins to bring files, in this order, unless they are here. priority: a file with a lower number comes first."""
    with self._lock:
      for offset, name in enumerate(names):
        if name not in self._here and (priority < 0 or name not in self._wanted):
          self._wanted.add(name)
          heapq.heappush(self._queue, (priority if priority < 0 else priority + offset, name))
      missing = min(_THREADS, len(self._queue)) - len(self._threads)
      for _ in range(missing):
        thread = threading.Thread(target=self._run, daemon=True, name="rows")
        self._threads.append(thread)
        thread.start()
      self._lock.notify_all()

  def local(self, name: str) -> Path:
    """The path of a file on this machine; waits until it is there. Raises UserError or StoreError: it cannot be brought."""
    if name not in self._here:
      self.bring([name], _FIRST)
      with self._lock:
        while name not in self._here and self._error is None:
          self._lock.wait()
        if name not in self._here and self._error is not None:
          raise self._error
    return self.folder / name

  def close(self) -> None:
    """Ends the threads after the parts that they are reading."""
    with self._lock:
      self._stop = True
      self._lock.notify_all()
    for thread in self._threads:
      thread.join(timeout=0 if bucket.has_given_up() else 30)

  def _run(self) -> None:
    while True:
      with self._lock:
        while not self._queue and not self._stop and self._error is None:
          self._lock.wait()
        if self._stop or self._error is not None:
          return
        name = heapq.heappop(self._queue)[1]
        if name in self._here:
          continue
      try:
        if not self._fetch(name):
          return
      except OSError as error:
        self._fail(UserError(f"{error.filename or self.folder}: {error.strerror or one_line(error)}; make room for "
                             "the rows, or set config.data.cache to another disk"))  # fmt: skip
        return
      except Exception as error:
        self._fail(error)
        return
      with self._lock:
        self._here.add(name)
        self._lock.notify_all()
        self._say()

  def _fail(self, error: Exception) -> None:
    with self._lock:
      self._error = self._error or error
      self._lock.notify_all()

  def _fetch(self, name: str) -> bool:
    """Brings one file, going on with what an earlier start left of it. False: the cache is being closed."""
    path, source = self.folder / name, self._root / name
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.with_name(f".{path.name}.lock").open("a") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # Another process of this machine may be bringing it.
      if path.exists():
        return True
      for is_last in (False, True):
        digest, size = hashlib.sha256(), _ask_bucket(source, lambda: size_of(source))
        with part.open("ab+") as file:
          file.seek(0)
          while block := file.read(2**20):
            digest.update(block)
          if not self._read_rest(source, size, file, digest):
            return False
        if digest.hexdigest() == self._sha256[name]:
          break
        part.unlink()  # What was left of an earlier start may be of other rows, or damaged.
        if is_last:
          raise UserError(
            f"{source}: not the file that its manifest.json lists (its sha256 differs); copy it again or rebuild the rows"
          )
      os.replace(part, path)
    with contextlib.suppress(OSError):
      path.with_name(f".{path.name}.lock").unlink()
    return True

  def _read_rest(self, source: epath.Path, size: int, file: Any, digest: Any) -> bool:
    store, start = bucket.file_system(source), file.tell()
    free = shutil.disk_usage(self.folder).free
    if size - start > free:
      raise OSError(
        28, f"no room for {source.name} ({(size - start) / 1e6:.0f} MB; {free / 1e6:.0f} MB are free)", file.name
      )
    while start < size:
      if self._stop:
        return False
      end = min(start + _PART_BYTES, size)
      block = _ask_bucket(source, lambda start=start, end=end: store.cat_file(os.fspath(source), start=start, end=end))
      if not block:
        raise StoreError(f"{source}: ends after {start} of {size} bytes")
      file.write(block)
      digest.update(block)
      start += len(block)
      with self._lock:
        self._bytes += len(block)
        self._say()
    file.flush()
    return True

  def _say(self) -> None:
    """A line every few seconds, and one at the end; called with the lock."""
    now, is_done = time.monotonic(), not self._wanted - self._here
    if now - self._printed_at < _SAY_EVERY_S and not is_done:
      return
    self._printed_at = now
    rate = self._bytes / max(now - self._began, 1e-3) / 1e6
    text = f"rows: {len(self._wanted & self._here)} of {len(self._wanted)} files are on this machine"
    print(f"{text} ({self._bytes / 1e9:.2f} GB brought, {rate:.0f} MB/s) in {self.folder}", flush=True)
