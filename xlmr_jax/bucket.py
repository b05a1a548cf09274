"""Google Cloud Storage: one patient client behind etils' paths. Other modules use files.py.

A path of a bucket is an etils path, "gs://BUCKET/NAME", which Orbax and TFDS take as well. etils would let TensorFlow read
it; `xlmr_jax/__init__.py` chooses gcsfs instead, because it can be given another server and another patience.

A request that fails for a passing reason is made again, for PATIENCE_S in all. Then it raises StoreError, which is no
OSError: a file that could not be looked for must not be taken for one that is missing.
"""

import functools
import importlib.util
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from etils import epath

from xlmr_jax.errors import EXIT_RESTART, StoreError, UserError, one_line
from xlmr_jax.secrets import redacted

# For so long a failing store is asked again. A launcher starts the run again after it, and then it begins anew.
PATIENCE_S = float(os.environ.get("XLMR_JAX_STORE_PATIENCE_S", "120"))
_TOLD_AFTER_S = 5.0  # A store that fails for longer is reported.


def is_bucket(path: str | os.PathLike) -> bool:
  """Whether a path lies in a bucket."""
  return os.fspath(path).startswith(("gs://", "s3://"))


def bucket_path(text: str) -> epath.Path:
  """The path of a bucket. UserError: the packages that read buckets are missing, or no bucket is named."""
  scheme, _, rest = text.partition("://")
  if not rest.strip("/") or rest.startswith("/"):
    raise UserError(f"{text}: no bucket is named; write {scheme}://BUCKET/NAME")
  if "@" in rest.partition("/")[0]:  # USER:PASSWORD@ would be written wherever the path is.
    raise UserError(f"{redacted(text)}: a bucket's address takes no password; see docs/buckets.md for credentials")
  if scheme == "gs":
    _register()
  elif importlib.util.find_spec("s3fs") is None:
    raise UserError(f"{text}: s3fs is not installed: pip install s3fs; s3:// is only read, and not tested")
  return epath.Path(text)


def file_system(path: epath.Path) -> Any:
  """The fsspec file system of a bucket's path."""
  import fsspec

  return fsspec.filesystem("gcs" if os.fspath(path).startswith("gs://") else "s3")


def refuse_missing(path: epath.Path) -> None:
  """UserError if a path lies in a bucket that is not there or cannot be listed, or whose files cannot be written yet."""
  if os.fspath(path).startswith("s3://"):
    raise UserError(f"{path}: s3:// is only read yet; write to a disk or to gs://")
  scheme, _, rest = os.fspath(path).partition("://")
  root = f"{scheme}://{rest.partition('/')[0]}"
  try:
    file_system(bucket_path(root)).ls(root, detail=False, max_results=1)
  except FileNotFoundError:
    raise UserError(f"{path}: there is no bucket {root}; make it") from None
  except OSError as error:
    raise UserError(f"{path}: {root} cannot be read ({one_line(error)[:200]})") from None


@functools.cache
def _register() -> None:
  """Puts the patient client in the place of gcsfs' own, for etils and for fsspec."""
  # gcsfs would ask another service for the kind of each bucket, and wait for a minute where that cannot be reached.
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
  try:
    import aiohttp
    import fsspec
    import google.auth.exceptions
    import requests
    from gcsfs.core import GCSFileSystem
    from gcsfs.retry import HttpError, is_retriable
  except ImportError as error:
    raise UserError(f"a path begins with gs://, and {error.name} is not installed: pip install 'xlmr_jax[gcs]'") from None
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # It logs a traceback for what it raises too.
  # The last one is what a server of credentials raises that does not answer.
  transient = (HttpError, requests.RequestException, aiohttp.ClientError, TimeoutError, ConnectionError,
               google.auth.exceptions.GoogleAuthError)  # fmt: skip

  class PatientGCS(GCSFileSystem):
    """gcsfs without a cache of listings, and with PATIENCE_S."""

    def __init__(self, *args: Any, **kwargs: Any):
      # Another process writes what this one lists. A server that says nothing for so long has lost the connection.
      kwargs |= {"use_listings_cache": False,
                 "requests_timeout": aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)}  # fmt: skip
      super().__init__(*args, **kwargs)

    async def _request(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
      failed_at: float | None = None  # A request that takes long is not one that fails for long.
      shown = f"{method} {path.format(*args) if args else path}".replace(f"{self.base}", "")
      while True:
        try:
          found = await super()._request(method, path, *args, **kwargs)
          failing.over(shown)
          return found
        except google.auth.exceptions.DefaultCredentialsError as error:
          raise UserError(f"no credentials for gs://: {one_line(error)}") from None
        except transient as error:
          if str(getattr(error, "code", "")) in ("401", "403"):
            raise _refused(shown, error) from None
          if isinstance(error, HttpError) and not is_retriable(error):
            raise StoreError(f"{shown}: {one_line(error)}") from error
          failed_at = failed_at or time.monotonic()
          failing.seen(shown, error, time.monotonic() - failed_at)
        except OSError as error:
          if str(error).startswith("Forbidden"):  # what gcsfs makes of 403
            raise _refused(shown, error) from None
          raise

  fsspec.register_implementation("gcs", PatientGCS, clobber=True)
  fsspec.register_implementation("gs", PatientGCS, clobber=True)


def _refused(request: str, error: Exception) -> UserError:
  why = one_line(error)[:200]
  return UserError(f"{request}: access is refused ({why}); give the service account access to the bucket")


class _Failing:
  """What is known of a store that fails: it is told when it begins and when it is over, once for all requests."""

  def __init__(self):
    self._lock, self._since = threading.Lock(), None
    self.given_up = False
    self.on_giving_up: Callable[[str], None] | None = None

  def seen(self, request: str, error: Exception, seconds: float) -> None:
    """A request has failed for so long. Raises StoreError when that is too long."""
    what = one_line(error)
    with self._lock:
      if self._since is None and seconds >= _TOLD_AFTER_S:
        self._since = time.monotonic() - seconds
        print(f"the store fails ({request}: {what}); it is asked again for {PATIENCE_S:g} s", file=sys.stderr, flush=True)
    if seconds >= PATIENCE_S:
      message = f"{request}: the store has failed for {seconds:.0f} s ({what})"
      with self._lock:
        first, self.given_up = not self.given_up, True
      if first and self.on_giving_up:
        self.on_giving_up(message)
      raise StoreError(message) from error

  def over(self, request: str) -> None:
    """A request was answered."""
    if self._since is not None:
      with self._lock:
        since, self._since = self._since, None
      if since is not None:
        print(f"the store answers again after {time.monotonic() - since:.0f} s ({request})", file=sys.stderr, flush=True)


failing = _Failing()


def end_when_given_up(grace_s: float = 10.0) -> None:
  """From here on a store that has failed for good ends this process with 42, if it has not ended by itself within grace_s.

  For commands: whatever they are waiting for, such as a save whose requests have a patience of their own, will not come.
  """

  def end(message: str) -> None:
    print(f"error: {message}; exit {EXIT_RESTART}", file=sys.stderr, flush=True)
    os._exit(EXIT_RESTART)

  def on_giving_up(message: str) -> None:
    timer = threading.Timer(grace_s, end, (message,))
    timer.daemon = True
    timer.start()

  failing.on_giving_up = on_giving_up


def has_given_up() -> bool:
  """Whether a request of this process has failed for good: what is still under way need not be waited for."""
  return failing.given_up


# --- reading in parts --------------------------------------------------------------------------------------------------

_GLANCE_BYTES = 64 << 10  # the least that is asked for elsewhere than behind what was read last
_BLOCK_BYTES = 8 << 20  # that are asked for where one reads on, while the next ones are already under way


class ObjectReader(io.RawIOBase):
  """An object as a file that can seek. Who reads on gets blocks, one ahead; who reads here and there gets little more."""

  def __init__(self, path: epath.Path):
    """Raises FileNotFoundError."""
    self._store, self._name = file_system(path), os.fspath(path)
    try:
      info = self._store.info(self._name)
    except FileNotFoundError:
      info = {"type": "none"}
    if info["type"] != "file":
      raise FileNotFoundError(2, "there is no such file in the bucket", self._name)
    self._size, self._position = int(info["size"]), 0
    self._held, self._start = b"", 0
    self._pool: ThreadPoolExecutor | None = None
    self._ahead: Future[bytes] | None = None  # what follows on what is held

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
    self._position = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence])
    return self._position

  def tell(self) -> int:
    return self._position

  def readinto(self, buffer: Any, /) -> int:
    if self._position >= self._size or not len(buffer):
      return 0
    end = self._start + len(self._held)
    if not self._start <= self._position < end:
      self._fetch(len(buffer), goes_on=bool(self._held) and self._position == end)
    at = self._position - self._start
    size = min(len(buffer), len(self._held) - at)
    buffer[:size] = memoryview(self._held)[at : at + size]
    self._position += size
    return size

  def _read(self, start: int) -> bytes:
    return self._store.cat_file(self._name, start=start, end=min(start + _BLOCK_BYTES, self._size))

  def _fetch(self, wanted: int, *, goes_on: bool) -> None:
    """Holds what is at the present position; goes_on: that is where what is held ends."""
    ahead, self._ahead, start = self._ahead, None, self._position
    if goes_on:
      self._held, self._start = ahead.result() if ahead else self._read(start), start
      if (after := start + len(self._held)) < self._size:
        self._pool = self._pool or ThreadPoolExecutor(1)
        self._ahead = self._pool.submit(self._read, after)
    else:
      wanted = max(wanted, _GLANCE_BYTES)
      start = max(0, min(start, self._size - wanted))  # The end of a file is mostly read backwards.
      self._held, self._start = self._store.cat_file(self._name, start=start, end=min(start + wanted, self._size)), start
    if self._position >= self._start + len(self._held):
      raise FileNotFoundError(2, "it has become shorter while it was read", self._name)

  def close(self) -> None:
    if self._pool:
      self._pool.shutdown(wait=False, cancel_futures=True)
      self._pool = None
    super().close()


# --- conditions on generations ----------------------------------------------------------------------------------------


def patiently(request: Callable[[], Any]) -> Any:
  """request(), whose last failure for a passing reason is a StoreError. UserError: it is refused."""
  import google.auth.exceptions
  import requests
  from google.api_core import exceptions

  try:
    return request()
  except (exceptions.Forbidden, exceptions.Unauthorized) as error:
    raise UserError(f"access to the bucket is refused: {one_line(error)[:200]}") from None
  except google.auth.exceptions.DefaultCredentialsError as error:
    raise UserError(f"no credentials for gs://: {one_line(error)}") from None
  except (exceptions.RetryError, exceptions.ServerError, exceptions.TooManyRequests, requests.RequestException,
          google.auth.exceptions.GoogleAuthError, TimeoutError, ConnectionError) as error:  # fmt: skip
    raise StoreError(f"the store fails: {one_line(error)[:200]}") from error


@functools.cache
def client() -> Any:
  """Google's own client, which knows generations; gcsfs does not."""
  from google.auth.credentials import AnonymousCredentials
  from google.cloud import storage

  if os.environ.get("STORAGE_EMULATOR_HOST"):
    return storage.Client(project="none", credentials=AnonymousCredentials())
  return storage.Client()
