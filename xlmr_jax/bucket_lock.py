"""Locks in a bucket: objects that are written under the generation that they had. files.lock makes them."""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from xlmr_jax import bucket
from xlmr_jax.errors import EXIT_RESTART, StoreError, UserError, one_line

# The holder of a lock is taken for dead when nobody has rewritten it for so long. It rewrites it much more often, and ends
# itself a beat earlier if it cannot. A store that fails for less than bucket.PATIENCE_S costs nobody the lock.
DEAD_S = float(os.environ.get("XLMR_JAX_LOCK_DEAD_S", "150"))
BEAT_S = min(10.0, DEAD_S / 6)


def _boot() -> str:
  """Names this start of this machine: a process number means nothing after it."""
  with contextlib.suppress(OSError):
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
  return ""


def _namespace() -> str:
  """Names the numbering of processes that this one lives in: two containers of one machine have their own."""
  with contextlib.suppress(OSError):
    return os.readlink("/proc/self/ns/pid")
  return ""


def _is_alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True


class BucketLock:
  """A lock that is an object. Its holder writes it anew every BEAT_S, if its generation is the one it wrote last.

  Nothing is deleted: a lock that was given back says so. Who finds it held watches it. If it changes, its holder lives; if
  it does not for DEAD_S, or its holder was a process of this machine that is gone, it is taken over. A holder that cannot
  write for nearly so long ends with 42 before that. Clocks of different machines are not compared.
  """

  def __init__(self, path: epath.Path, message: str, on_loss: Callable[[], None] | None = None):
    """Takes the lock. UserError(message): another process holds it. on_loss: by default the process ends with 42."""
    self._path, self._on_loss = path, on_loss or (lambda: os._exit(EXIT_RESTART))
    self._mine = {"host": socket.gethostname(), "boot": _boot(), "namespace": _namespace(), "process": os.getpid(),
                  "nonce": secrets.token_hex(8)}  # fmt: skip
    self._beats, self._generation, self._done = 0, 0, threading.Event()
    place, _, self._name = os.fspath(path).removeprefix("gs://").partition("/")
    self._bucket = bucket.client().bucket(place)
    self._take(message)
    self._thread = threading.Thread(target=self._beat, daemon=True, name="lock")
    self._thread.start()

  def _read(self) -> tuple[int, dict[str, Any]]:
    """(generation, content) of the object; (0, {}) where there is none."""
    from google.api_core.exceptions import NotFound

    for _ in range(5):
      blob = bucket.patiently(lambda: self._bucket.get_blob(self._name))
      if blob is None:
        return 0, {}
      try:
        content = bucket.patiently(lambda b=blob: b.download_as_bytes(if_generation_match=b.generation))
      except NotFound:
        continue  # It was written anew in between.
      except Exception as error:
        if type(error).__name__ != "PreconditionFailed":
          raise
        continue
      try:
        value = json.loads(content)
      except ValueError:
        value = {}
      return int(blob.generation), value if isinstance(value, dict) else {}
    raise StoreError(f"{self._path}: changes faster than it can be read")

  def _write(self, generation: int, *, limit_s: float | None = None, **more: Any) -> bool:
    """Writes the lock if its generation is still the given one; whether it was. limit_s: of all tries together."""
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud.storage.retry import DEFAULT_RETRY

    patience = {} if limit_s is None else {"timeout": limit_s, "retry": DEFAULT_RETRY.with_timeout(limit_s)}

    self._beats += 1
    value = self._mine | {"beat": self._beats} | more
    blob = self._bucket.blob(self._name)
    try:
      bucket.patiently(lambda: blob.upload_from_string(json.dumps(value), if_generation_match=generation, **patience))
    except PreconditionFailed:
      # An answer that was lost on its way looks the same, when the request is made again.
      self._generation, found = self._read()
      return found == value
    self._generation = int(blob.generation or 0)
    return True

  def _is_dead(self, holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    here = all(holder.get(key) == self._mine[key] for key in ("host", "boot", "namespace")) and bool(self._mine["boot"])
    return here and isinstance(holder.get("process"), int) and not _is_alive(holder["process"])

  def _take(self, message: str) -> None:
    while True:
      generation, holder = self._read()
      if generation and not holder.get("given_back") and not self._is_dead(holder):
        where = f"process {holder.get('process')} on {holder.get('host')}"
        print(
          f"{self._path} is held by {where}; looking for up to {DEAD_S:g} s whether it lives", file=sys.stderr, flush=True
        )
        first_seen = time.monotonic()
        while time.monotonic() - first_seen < DEAD_S:
          time.sleep(min(1.0, DEAD_S / 10))
          now, value = self._read()
          if now != generation:
            if value.get("given_back"):
              generation = now
              break
            raise UserError(f"{message} ({where}, which lives)")
        else:
          print(f"{self._path}: {where} has shown no life for {DEAD_S:g} s; taking its place", file=sys.stderr, flush=True)
      # Under the generation that was looked at: if the holder has come back, or another one was faster, it is another now.
      if self._write(generation):
        return

  def _beat(self) -> None:
    renewed = time.monotonic()  # when the last beat that was answered began
    while not self._done.wait(BEAT_S):
      began = time.monotonic()
      try:
        if self._write(self._generation, limit_s=BEAT_S):
          renewed = began
          continue
        why = "another process has taken this one for dead and its place"
      except Exception as error:  # Whatever it is, the lock is not renewed, and others look at nothing else.
        if isinstance(error, StoreError):
          with contextlib.suppress(StoreError):
            bucket.failing.seen(f"the lock {self._path}", error, time.monotonic() - renewed)
        # A beat that is made now may take another BEAT_S to fail.
        if time.monotonic() - renewed < DEAD_S - 2 * BEAT_S:
          continue
        why = f"the lock could not be renewed for {time.monotonic() - renewed:.0f} s ({one_line(error)[:200]})"
      if not self._done.is_set():
        print(f"{self._path}: {why}; exit {EXIT_RESTART}", file=sys.stderr, flush=True)
        self._on_loss()
      return

  def __enter__(self) -> "BucketLock":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def close(self) -> None:
    """Gives the lock back."""
    if self._done.is_set():
      return
    self._done.set()
    self._thread.join()
    with contextlib.suppress(StoreError, UserError):
      self._write(self._generation, limit_s=BEAT_S, given_back=True)

  def remove(self) -> None:
    """Gives the lock back and leaves no object, unless another process has taken it in between."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    self.close()
    with contextlib.suppress(StoreError, NotFound, PreconditionFailed):
      bucket.patiently(lambda: self._bucket.blob(self._name).delete(if_generation_match=self._generation))


def create(path: epath.Path, content: bytes) -> bool:
  """Writes an object unless there is one; whether there was none."""
  from google.api_core.exceptions import PreconditionFailed

  place, _, name = os.fspath(path).removeprefix("gs://").partition("/")
  try:
    bucket.patiently(lambda: bucket.client().bucket(place).blob(name).upload_from_string(content, if_generation_match=0))
  except PreconditionFailed:
    return False
  return True
