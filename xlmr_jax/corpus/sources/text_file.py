"""Opens a file of text, plain or compressed. Every stream of a compressed file is read, and each must be whole.

Python's own readers of .xz and .bz2, and zstandard's, end at a damaged or foreign second stream, or at a cut one, as if the
file ended there.
"""

import bz2
import contextlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from xlmr_jax.errors import UserError
from xlmr_jax.files import open_bytes

_READ = 8 << 10  # bytes at a time
_ZSTANDARD = 1 << 10  # and of those, for zstandard, which returns all that they hold, at most 32,768 times as much
_MEMORY = 512 << 20  # bytes that an xz stream may ask for; `xz -9` asks for 65 MB
_MOST = 1 << 20  # uncompressed bytes at a time, of the formats that can be asked for so many


class _Stream(Protocol):
  """One compressed stream, as bz2 and lzma have it."""

  @property
  def eof(self) -> bool: ...
  @property
  def needs_input(self) -> bool: ...
  @property
  def unused_data(self) -> bytes: ...
  def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
  """A member of a gzip file."""

  def __init__(self) -> None:
    self._stream = zlib.decompressobj(wbits=31)  # with gzip's header and its checksum

  def decompress(self, data: bytes, max_length: int, /) -> bytes:
    return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)

  @property
  def eof(self) -> bool:
    return self._stream.eof

  @property
  def needs_input(self) -> bool:
    return not self._stream.unconsumed_tail

  @property
  def unused_data(self) -> bytes:
    return self._stream.unused_data


class _Zstandard:
  """A frame of a zstd file."""

  def __init__(self) -> None:
    import zstandard

    self._stream = zstandard.ZstdDecompressor().decompressobj()
    self._left = b""

  def decompress(self, data: bytes, max_length: int, /) -> bytes:
    data = self._left + data
    self._left = data[_ZSTANDARD:]
    try:
      return self._stream.decompress(data[:_ZSTANDARD])
    except Exception as error:  # zstandard's own class, which is not imported at the top of this file
      raise EOFError(str(error)) from error

  @property
  def eof(self) -> bool:
    return self._stream.eof

  @property
  def needs_input(self) -> bool:
    return not self._left

  @property
  def unused_data(self) -> bytes:
    return self._stream.unused_data + self._left


# With each format, the zero bytes that may follow a stream: any multiple of this number of them. 0: none.
_FORMATS: dict[str, tuple[Callable[[], _Stream], int]] = {
  ".gz": (_Gzip, 1),
  ".xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY), 4),
  ".bz2": (bz2.BZ2Decompressor, 0),
  ".zst": (_Zstandard, 0),
}
COMPRESSED = tuple(_FORMATS)
ENDINGS = (".txt", *(f".txt{ending}" for ending in COMPRESSED))


def ending(name: str) -> str:
  """Which of ENDINGS a file's name has, in small letters; "" if none."""
  return next((known for known in ENDINGS if name.lower().endswith(known)), "")


def compression(name: str) -> str:
  """Which of COMPRESSED a file's name ends in, in small letters; "" if it is plain."""
  return next((known for known in COMPRESSED if name.lower().endswith(known)), "")


@contextlib.contextmanager
def open_text(path: str | os.PathLike, compressed: str | None = None) -> Iterator[io.BufferedReader]:
  """The uncompressed bytes of a file; only a plain one can seek. While it is open, errors of reading become UserErrors.

  compressed: one of COMPRESSED, or "" for a plain file; by default the name tells.
  """
  compressed = compression(os.fspath(path)) if compressed is None else compressed
  try:
    with open_bytes(path) as file:
      if known := _FORMATS.get(compressed):
        yield io.BufferedReader(_Uncompressed(_uncompressed(file, *known)), _MOST)
      else:
        yield file
  except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
    if isinstance(error, OSError) and error.errno is not None:  # bz2's own have no number.
      raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    raise UserError(f"{path}: damaged, or of another format ({error}); fetch it again") from error


class _Uncompressed(io.RawIOBase):
  """Pieces of bytes as a file."""

  def __init__(self, pieces: Iterator[bytes]):
    self._pieces, self._left = pieces, memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview, /) -> int:
    while not self._left and (piece := next(self._pieces, None)) is not None:
      self._left = memoryview(piece)
    size = min(len(buffer), len(self._left))
    buffer[:size] = self._left[:size]
    self._left = self._left[size:]
    return size


def _uncompressed(file: BinaryIO, new_stream: Callable[[], _Stream], padding: int) -> Iterator[bytes]:
  """The content of all streams of a file, in pieces. Raises EOFError or the format's own error: one is damaged or cut."""
  data = file.read(_READ)
  if not data:
    raise EOFError("it is empty")
  while data:
    stream = new_stream()
    while True:
      yield stream.decompress(data, _MOST)
      if stream.eof:
        break
      data = file.read(_READ) if stream.needs_input else b""
      if not data and stream.needs_input:
        raise EOFError("it ends in the middle")
    data, zeros = stream.unused_data, 0
    while padding:
      rest = data.lstrip(b"\0")
      zeros += len(data) - len(rest)
      data = rest or file.read(_READ)
      if rest or not data:
        break
    if padding and zeros % padding:
      raise EOFError(f"{zeros} zero bytes after a stream, which is no multiple of {padding}")
    data = data or file.read(_READ)
