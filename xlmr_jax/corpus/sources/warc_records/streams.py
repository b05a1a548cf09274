"""The uncompressed bytes of a file, with their places in the stored file, up to its end or to what cannot be read."""

import bisect
import zlib
from array import array
from collections.abc import Iterator
from typing import BinaryIO

from xlmr_jax.corpus.sources.text_file import open_text
from xlmr_jax.errors import UserError

FEED_BYTES = 16 << 10  # compressed bytes at a time; what is left of them after a member is copied
PIECE_BYTES = 1 << 20  # uncompressed bytes at a time

GZIP = b"\x1f\x8b\x08"  # with which a member begins


class Stream:
  """Successive uncompressed bytes of a file, up to its end or to what cannot be read."""

  def __init__(self, path: str, start: int = 0):
    self.path, self.start = path, start
    self.error = ""  # why the bytes end before the file does, known once they have ended
    self.bad_from: int | None = None  # from which uncompressed byte on they must not be believed
    self.record_starts: array = array("Q")  # uncompressed bytes at which the file's format says that a record begins

  def pieces(self) -> Iterator[bytes]:
    """The bytes."""
    with open(self.path, "rb") as file:
      file.seek(self.start)
      while piece := file.read(PIECE_BYTES):
        yield piece

  def where(self, position: int) -> str:
    """The place of an uncompressed byte in the stored file."""
    return f"{self.path}, byte {self.start + position}"

  def error_where(self) -> str:
    """The place of the error in the stored file."""
    return self.path


class Compressed(Stream):
  """A file in a format whose streams say nothing about records, so that nothing can be read after an error."""

  def __init__(self, path: str, compression: str):
    super().__init__(path)
    self._compression, self._size = compression, 0

  def pieces(self) -> Iterator[bytes]:
    try:
      with open_text(self.path, self._compression) as file:
        while piece := file.read1(PIECE_BYTES):
          self._size += len(piece)
          yield piece
    except UserError as error:
      self.error, self.bad_from = str(error).removeprefix(f"{self.path}: "), 0

  def where(self, position: int) -> str:
    return f"{self.path}, byte {position} uncompressed"

  def error_where(self) -> str:
    return self.where(self._size)


class Members:
  """The members of a gzip file from one of them on, with the place of each."""

  def __init__(self, file: BinaryIO, start: int):
    """file: stands at byte `start`."""
    self._file = file
    self.size = 0  # uncompressed bytes so far
    self.starts = array("Q", [])  # the first uncompressed byte of each member
    self.stored = array("Q", [])  # the byte of the file at which it begins
    self.record_starts = array("Q")
    self.error = ""
    self._end = start

  def pieces(self) -> Iterator[bytes]:
    """The uncompressed bytes. They end early, with an error, at a member that is cut, damaged or none."""
    data = self._file.read(FEED_BYTES)
    while True:
      while data and not data.strip(b"\0"):  # Zero bytes fill up a tape.
        self._end += len(data)
        data = self._file.read(FEED_BYTES)
      zeros = len(data) - len(data.lstrip(b"\0"))
      data, self._end = data[zeros:], self._end + zeros
      if not data:
        return
      stream = zlib.decompressobj(wbits=31)
      self.starts.append(self.size)
      self.stored.append(self._end)
      self._end += len(data)
      is_first = True
      while not stream.eof:
        try:
          piece = stream.decompress(data, PIECE_BYTES)
        except zlib.error as error:
          self.error = f"no gzip member can be read here ({error})"
          return
        if is_first and piece:
          is_first = False
          if piece.startswith(b"WARC/"):
            self.record_starts.append(self.size)
        self.size += len(piece)
        if piece:
          yield piece
        if stream.eof:
          break
        data = stream.unconsumed_tail
        if not data:
          data = self._file.read(FEED_BYTES)
          self._end += len(data)
          # zlib may hold back bytes that did not fit; it gives them for an empty input.
          if not data and len(piece) < PIECE_BYTES:
            self.error = "the file ends in the middle of this gzip member"
            return
      data = stream.unused_data
      self._end -= len(data)
      if not data:
        data = self._file.read(FEED_BYTES)


class Gzip(Stream):
  """The members of a gzip file from byte `start` on."""

  def __init__(self, path: str, start: int):
    super().__init__(path, start)
    self._members: Members | None = None

  def pieces(self) -> Iterator[bytes]:
    with open(self.path, "rb") as file:
      file.seek(self.start)
      self._members = members = Members(file, self.start)
      self.record_starts = members.record_starts
      yield from members.pieces()
      self.error = members.error
      if members.error:  # A changed bit may look like a cut, because the lengths of what follows are read wrong.
        self.bad_from = members.starts[-1]

  @property
  def bad_member(self) -> int:
    """The byte of the file at which the member begins that cannot be read."""
    assert self._members
    return self._members.stored[-1]

  def where(self, position: int) -> str:
    assert self._members
    index = bisect.bisect_right(self._members.starts, position) - 1
    inside = position - self._members.starts[index]
    return f"{self.path}, byte {self._members.stored[index]}" + (f" (and byte {inside} uncompressed)" if inside else "")

  def error_where(self) -> str:
    return f"{self.path}, byte {self.bad_member}"


def next_member(path: str, position: int) -> int | None:
  """The first byte from `position` on at which a gzip member begins that can be read and starts with a record."""
  with open(path, "rb") as file:
    file.seek(position)
    data = file.read(PIECE_BYTES)
    while data:
      at = -1
      while (at := data.find(GZIP, at + 1)) >= 0:
        here = file.tell()
        if begins_record(file, position + at):
          return position + at
        file.seek(here)
      more = file.read(PIECE_BYTES)
      position += max(0, len(data) - 2)
      data = data[-2:] + more if more else b""
  return None


def begins_record(file: BinaryIO, position: int) -> bool:
  """Whether a gzip member that can be read, and starts with a record, begins at a byte of a file."""
  file.seek(position)
  stream = zlib.decompressobj(wbits=31)
  try:
    return stream.decompress(file.read(FEED_BYTES), FEED_BYTES).lstrip(b"\r\n").startswith(b"WARC/")
  except zlib.error:
    return False
