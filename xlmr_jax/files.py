"""Files that are written whole or not at all, digests, locks and the paths of tree leaves.

Every other module writes its files through these functions, so that what a store cannot do is told in one place. A path is a
pathlib.Path of this machine, or an etils path of a bucket (bucket.py), where a file appears whole when its write ends, and
where nothing can be appended to or renamed.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from etils import epath

from xlmr_jax import bucket, bucket_lock
from xlmr_jax.bucket import is_bucket
from xlmr_jax.errors import UserError

AnyPath = Path | epath.Path
P = TypeVar("P", Path, epath.Path, AnyPath)
_REQUESTS = 16  # that are made at once of a bucket
_AHEAD = 4  # things of a bucket that are fetched before they are needed


class Lock(Protocol):
  """What lock() returns."""

  def close(self) -> None:
    """Gives the lock back."""

  def __enter__(self) -> Any: ...
  def __exit__(self, kind: Any, error: Any, trace: Any, /) -> Any: ...


def any_path(given: str | os.PathLike) -> AnyPath:
  """A path of this machine as it is, or one of a bucket, "gs://BUCKET/NAME"."""
  return bucket.bucket_path(os.fspath(given)) if is_bucket(given) else Path(given)


def absolute(path: str | os.PathLike) -> AnyPath:
  """The path, absolute; a bucket's always is. A link stays one."""
  return any_path(path if is_bucket(path) else os.path.abspath(path))


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """While it is open, an OSError that names no file, as those of writing do, gets the name of this one."""
  try:
    yield
  except OSError as error:
    error.filename = error.filename or os.fspath(path)
    raise


@contextlib.contextmanager
def whole_file(path: AnyPath, *, many_writers: bool = False) -> Iterator[Path]:
  """Yields the path of a file to write, which becomes `path` when the block ends and is removed when the block raises.

  many_writers: others may be writing the same file, so the unfinished one has a name of its own. Its folder is made.
  What goes to a bucket is written on this machine first.
  """
  if not isinstance(path, Path):
    with tempfile.TemporaryDirectory(prefix="xlmr_jax-") as folder:
      unfinished = Path(folder) / path.name
      yield unfinished
      upload(unfinished, path)
    return
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


def write_whole(path: str | os.PathLike, content: bytes, *, many_writers: bool = False) -> None:
  """Writes a file, whole or not at all, so that readers see all of it or nothing. many_writers: see whole_file."""
  path = any_path(path)
  if not isinstance(path, Path):
    bucket.file_system(path).pipe_file(os.fspath(path), content)
    return
  with whole_file(path, many_writers=many_writers) as unfinished:
    unfinished.write_bytes(content)


def write_json(path: str | os.PathLike, value: object, *, many_writers: bool = False) -> None:
  """Writes value as indented JSON, whole or not at all. many_writers: see whole_file."""
  write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), many_writers=many_writers)


def user_cache() -> Path:
  """The folder for what may be deleted at any time, of this user on this machine. RuntimeError: there is no home folder."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlmr_jax"


def parse_json(text: str | bytes) -> Any:
  """The value of a JSON text. Raises ValueError whatever is wrong with it, also if it is nested too deeply for Python."""
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError("nested too deeply") from None


def read_bytes(path: str | os.PathLike) -> bytes:
  """The content of a file. Raises OSError: it cannot be read."""
  path = any_path(path)
  return path.read_bytes() if isinstance(path, Path) else bucket.file_system(path).cat_file(os.fspath(path))


def read_json(path: str | os.PathLike) -> Any:
  """The value of a JSON file. Raises OSError: it cannot be read; ValueError: it is no JSON in UTF-8."""
  return parse_json(read_bytes(path).decode())


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
  path = any_path(path)
  if isinstance(path, Path):
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  digest = hashlib.sha256()
  for part in download_parts(path):
    digest.update(part)
  return digest.hexdigest()


# --- files of a bucket, and of both -----------------------------------------------------------------------------------

_PART_BYTES = 64 * 2**20  # of a large file that one request reads


def download_parts(path: epath.Path) -> Iterator[bytes]:
  """The content of a bucket's file, in parts, one ahead of the other. Raises FileNotFoundError."""
  store, name = bucket.file_system(path), os.fspath(path)
  size = store.info(name)["size"]

  def read(start: int) -> bytes:
    return store.cat_file(name, start=start, end=min(start + _PART_BYTES, size))

  with ThreadPoolExecutor(1) as ahead:
    starts = range(0, size, _PART_BYTES)
    coming = [ahead.submit(read, start) for start in starts[:1]]
    for start in starts:
      part = coming.pop().result()
      if start + _PART_BYTES < size:
        coming.append(ahead.submit(read, start + _PART_BYTES))
      yield part


def open_bytes(path: str | os.PathLike) -> io.BufferedReader:
  """A file to read, which can seek. Of a bucket's, parts come as they are read. Raises OSError."""
  path = any_path(path)
  return path.open("rb") if isinstance(path, Path) else io.BufferedReader(bucket.ObjectReader(path), 64 << 10)


@contextlib.contextmanager
def on_this_machine(path: str | os.PathLike) -> Iterator[Path]:
  """Yields the path of a file, or of a copy of a bucket's, which has the same name and is removed at the end.

  Raises OSError: it cannot be read.
  """
  path = any_path(path)
  if isinstance(path, Path):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="xlmr_jax-") as folder:
    copy = Path(folder) / path.name
    download(path, copy)
    yield copy


def move_file(source: AnyPath, target: AnyPath) -> None:
  """Gives a file another name in the same place; in a bucket by a copy. What there is under that name is replaced."""
  if isinstance(source, Path):
    source.replace(target)
    return
  store = bucket.file_system(source)
  store.cp_file(os.fspath(source), os.fspath(target))
  store.rm_file(os.fspath(source))


def each(work: Callable[[Any], Any], items: Any, place: AnyPath) -> list[Any]:
  """[work(item), ...] where each item costs a request if `place` is in a bucket; then several are made at a time."""
  return [work(item) for item in items] if isinstance(place, Path) else in_parallel(work, items)


def ahead(work: Callable[[Any], Any], items: Iterable[Any], place: AnyPath) -> Iterator[Any]:
  """Yields work(item) of each, as map does; if `place` is in a bucket, with the next few already under way."""
  if isinstance(place, Path):
    yield from map(work, items)
    return
  coming: deque[Future] = deque()
  with ThreadPoolExecutor(_AHEAD) as pool:
    for item in items:
      coming.append(pool.submit(work, item))
      if len(coming) > _AHEAD:
        yield coming.popleft().result()
    while coming:
      yield coming.popleft().result()


def upload(source: Path, target: epath.Path) -> None:
  """Copies a file of this machine to a bucket, where it appears whole."""
  bucket.file_system(target).put_file(os.fspath(source), os.fspath(target))


def in_parallel(work: Callable[[Any], Any], items: Any) -> list[Any]:
  """[work(item), ...], with several requests at a time. Raises what the first failed one raises."""
  with ThreadPoolExecutor(_REQUESTS) as pool:
    return list(pool.map(work, items))


def size_of(path: AnyPath) -> int:
  """The bytes of a file. Raises OSError: it cannot be read."""
  return path.stat().st_size if isinstance(path, Path) else int(path.stat().length)


def download(source: epath.Path, target: Path) -> None:
  """Copies a bucket's file to this machine, whole or not at all. Raises OSError."""
  with whole_file(target, many_writers=True) as unfinished, unfinished.open("wb") as file:
    for part in download_parts(source):
      file.write(part)


def flatten(nested: dict, prefix: str = "", separator: str = ".") -> dict[str, Any]:
  """{"model": {"layers": 12}} -> {"model.layers": 12}. An empty dict inside has no entry."""
  flat: dict[str, Any] = {}
  for key, value in nested.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}{separator}", separator)
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def lock(path: AnyPath, message: str) -> Lock:
  """Takes the lock that `path` stands for; closing what is returned, or the end of the process, gives it back.

  In a bucket the end of a process that was killed is noticed within bucket_lock.DEAD_S, on the same machine at once.
  Raises UserError(message) if another process holds it.
  """
  if not isinstance(path, Path):
    return bucket_lock.BucketLock(path, message)
  file = path.open("a")  # "w" would empty what a link at its place leads to.
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.close()
    raise UserError(message) from None
  return file
