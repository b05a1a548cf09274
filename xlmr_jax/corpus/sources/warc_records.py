"""The records of a WARC or WET file, plain or compressed, each whole, or named with its place in the stored file.

fastwarc reads the common case, a gzip member per record, and is several times as fast as Python. But it gives a record that
is cut as if it were whole, takes one without Content-Length for an empty one, knows no headers that end in a bare newline,
and gives up at the first damage. So it is trusted only where a check says that nothing of that kind is there; from then on
_careful() reads the file again, and passes over the records that were given already.
"""

import bisect
import contextlib
import hashlib
import re
import zlib
from array import array
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, NamedTuple

from xlmr_jax.corpus.sources import Damage
from xlmr_jax.corpus.sources.text_file import open_text
from xlmr_jax.errors import UserError

LONGEST_RECORD = 64 << 20  # bytes; a longer one is named and left out
LONGEST_HEADERS = 256 << 10  # bytes
_FEED = 16 << 10  # compressed bytes at a time; what is left of them after a member is copied
_PIECE = 1 << 20  # uncompressed bytes at a time
_WINDOW = 256 << 10  # bytes by which the text in memory grows at least
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}
_GZIP = b"\x1f\x8b\x08"

_BLANK = re.compile(rb"[\r\n]*")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_RECORD = re.compile(rb"\nWARC/[0-9]{1,2}\.[0-9]{1,3}\r?\n[A-Za-z][A-Za-z0-9-]*[ \t]*:")
_OVERLAP = 256  # bytes, more than _RECORD can match
# Digits in base 32 as WARC writes them, for those that int() reads.
_BASE32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")


class Record(NamedTuple):
  """A record of the wanted type."""

  id: str  # WARC-Record-ID; its place if it has none
  url: str  # WARC-Target-URI; "" if it has none
  body: bytes
  where: str  # the file, and the offset in it at which the record, or the gzip member that holds it, begins
  truncated: bool  # whether the crawler says that it did not keep the whole page


def read_records(path: str, kind: str, on_damage: Callable[[Damage], None]) -> Iterator[Record]:
  """The records of type `kind`, such as "conversion", in order. Files without any are damage too.

  Raises UserError: the file cannot be opened.
  """
  try:
    with open(path, "rb") as file:
      magic = file.read(6)
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror})") from error
  if not magic:
    on_damage(Damage(path, "it is empty"))
    return
  compression = next((known for start, known in _MAGIC.items() if magic.startswith(start)), "")
  given = 0
  if compression == ".gz" and _begins_with_a_member_per_record(path):
    if (yield from _fast(path, kind, count := [0])):
      return
    given = count[0]
  yield from _careful(path, kind, compression, given, on_damage)


# --- fastwarc --------------------------------------------------------------------------------------------------------


def _begins_with_a_member_per_record(path: str) -> bool:
  """Whether the first gzip member of a file holds one record and no more. fastwarc knows no place of further ones."""
  stream = zlib.decompressobj(wbits=31)
  with open(path, "rb") as file:
    try:
      text = stream.decompress(file.read(_PIECE), _PIECE)
    except zlib.error:
      return False
  return stream.eof and text.startswith(b"WARC/") and not _RECORD.search(text)


def _fast(path: str, kind: str, count: list[int]) -> Iterator[Record]:
  """The records that fastwarc reads and that are beyond doubt; counts them in count[0]. Returns whether these are all.

  A record is given only after the next one has begun where it should, because until then its length may be wrong.
  """
  from fastwarc.warc import ArchiveIterator, WarcRecordType

  wanted = getattr(WarcRecordType, kind)
  odd = (WarcRecordType.no_type, WarcRecordType.unknown)
  held: Record | None = None
  last = -1
  try:
    for record in ArchiveIterator(path, parse_http=False):
      place, length, headers = record.stream_pos, record.content_length, record.headers
      if place <= last or (not length and not (headers.get("Content-Length") or "").isdigit()):
        return False
      if held:
        count[0] += 1
        yield held
        held = None
      last = place
      if (found := record.record_type) != wanted:
        if found in odd:
          return False
        continue
      if length > LONGEST_RECORD or len(body := record.reader.read()) != length:
        return False
      if b"\nWARC/" in body:  # Its length may be that of several records; only the places of the members tell.
        return False
      where = f"{path}, byte {place}"
      cut = kind != "conversion" and headers.get("WARC-Truncated") is not None
      held = _record(record.record_id, headers.get("WARC-Target-URI"), body, where, cut)
  except OSError:
    return False
  if (not count[0] and not held) or not _ends_with_record(path, last, length):
    return False
  if held:
    count[0] += 1
    yield held
  return True


def _ends_with_record(path: str, position: int, size: int) -> bool:
  """Whether one whole gzip member is all that a file has from `position` on, with one record, of `size` bytes."""
  parts, kept = [], 0
  with open(path, "rb") as file:
    file.seek(position)
    members = _Members(file, position)
    for piece in members.pieces():
      parts.append(piece)
      kept += len(piece)
      if kept > size + LONGEST_HEADERS:
        return False
  text = b"".join(parts)
  end = _HEADERS_END.search(text)
  if members.error or len(members.places) > 1 or not end:
    return False
  return len(text) >= end.end() + size and not text[end.end() + size :].strip(b"\r\n")


# --- our own reader --------------------------------------------------------------------------------------------------


class _Stream:
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
      while piece := file.read(_PIECE):
        yield piece

  def where(self, position: int) -> str:
    """The place of an uncompressed byte in the stored file."""
    return f"{self.path}, byte {self.start + position}"

  def error_where(self) -> str:
    """The place of the error in the stored file."""
    return self.path


class _Compressed(_Stream):
  """A file in a format whose streams say nothing about records, so that nothing can be read after an error."""

  def __init__(self, path: str, compression: str):
    super().__init__(path)
    self._compression, self._size = compression, 0

  def pieces(self) -> Iterator[bytes]:
    try:
      with open_text(self.path, self._compression) as file:
        while piece := file.read1(_PIECE):
          self._size += len(piece)
          yield piece
    except UserError as error:
      self.error, self.bad_from = str(error).removeprefix(f"{self.path}: "), 0

  def where(self, position: int) -> str:
    return f"{self.path}, byte {position} uncompressed"

  def error_where(self) -> str:
    return self.where(self._size)


class _Members:
  """The members of a gzip file from one of them on, with the place of each."""

  def __init__(self, file: BinaryIO, start: int):
    """file: stands at byte `start`."""
    self._file = file
    self.size = 0  # uncompressed bytes so far
    self.places = array("Q", [])  # the first uncompressed byte of each member
    self.stored = array("Q", [])  # the byte of the file at which it begins
    self.record_starts = array("Q")
    self.error = ""
    self._end = start

  def pieces(self) -> Iterator[bytes]:
    """The uncompressed bytes. They end early, with an error, at a member that is cut, damaged or none."""
    data = self._file.read(_FEED)
    while True:
      while data and not data.strip(b"\0"):  # Zero bytes fill up a tape.
        self._end += len(data)
        data = self._file.read(_FEED)
      zeros = len(data) - len(data.lstrip(b"\0"))
      data, self._end = data[zeros:], self._end + zeros
      if not data:
        return
      stream = zlib.decompressobj(wbits=31)
      self.places.append(self.size)
      self.stored.append(self._end)
      self._end += len(data)
      is_first = True
      while not stream.eof:
        try:
          piece = stream.decompress(data, _PIECE)
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
          data = self._file.read(_FEED)
          self._end += len(data)
          # zlib may hold back bytes that did not fit; it gives them for an empty input.
          if not data and len(piece) < _PIECE:
            self.error = "the file ends in the middle of this gzip member"
            return
      data = stream.unused_data
      self._end -= len(data)
      if not data:
        data = self._file.read(_FEED)


class _Gzip(_Stream):
  """The members of a gzip file from byte `start` on."""

  def __init__(self, path: str, start: int):
    super().__init__(path, start)
    self._members: _Members | None = None

  def pieces(self) -> Iterator[bytes]:
    with open(self.path, "rb") as file:
      file.seek(self.start)
      self._members = members = _Members(file, self.start)
      self.record_starts = members.record_starts
      yield from members.pieces()
      self.error = members.error
      if members.error:  # A changed bit may look like a cut, because the lengths of what follows are read wrong.
        self.bad_from = members.places[-1]

  @property
  def bad_member(self) -> int:
    """The byte of the file at which the member begins that cannot be read."""
    assert self._members
    return self._members.stored[-1]

  def where(self, position: int) -> str:
    assert self._members
    index = bisect.bisect_right(self._members.places, position) - 1
    inside = position - self._members.places[index]
    return f"{self.path}, byte {self._members.stored[index]}" + (f" (and byte {inside} uncompressed)" if inside else "")

  def error_where(self) -> str:
    return f"{self.path}, byte {self.bad_member}"


def _careful(path: str, kind: str, compression: str, given: int, on_damage: Callable[[Damage], None]) -> Iterator[Record]:
  """The records of type `kind` but the first `given` ones, by way of checks of everything."""
  found = reported = 0
  kinds: set[str] = set()

  def report(damage: Damage) -> None:
    nonlocal reported
    reported += 1
    on_damage(damage)

  start: int | None = 0
  while start is not None:
    if compression == ".gz":
      stream = _Gzip(path, start)
    else:
      stream = _Compressed(path, compression) if compression else _Stream(path)
    start = None
    # Compressed files have checksums of their own, so that the digests of their records would tell nothing more.
    with contextlib.closing(_Reader(stream, kind, kinds, report, verify=not compression).records()) as records:
      for record in records:
        found += 1
        if found > given:
          yield record
    if stream.error:
      if isinstance(stream, _Gzip):
        start = _next_member(path, stream.bad_member + 1)
      lost = "the rest of the file is lost" if start is None else f"reading goes on at byte {start}"
      report(Damage(stream.error_where(), f"{stream.error}; {lost}"))
  if not found and not reported:
    others = ", ".join(sorted(kinds)) or "no record at all"
    on_damage(Damage(path, f"no record of type {kind} in it, but {others}; is --source right?"))


def _next_member(path: str, position: int) -> int | None:
  """The first byte from `position` on at which a gzip member begins that can be read and starts with a record."""
  with open(path, "rb") as file:
    file.seek(position)
    data = file.read(_PIECE)
    while data:
      at = -1
      while (at := data.find(_GZIP, at + 1)) >= 0:
        here = file.tell()
        file.seek(position + at)
        stream = zlib.decompressobj(wbits=31)
        try:
          begins = stream.decompress(file.read(_FEED), _FEED).lstrip(b"\r\n").startswith(b"WARC/")
        except zlib.error:
          begins = False
        if begins:
          return position + at
        file.seek(here)
      more = file.read(_PIECE)
      position += max(0, len(data) - 2)
      data = data[-2:] + more if more else b""
  return None


class _Reader:
  """Finds the records in the pieces of a stream."""

  def __init__(self, stream: _Stream, kind: str, kinds: set[str], report: Callable[[Damage], None], verify: bool):
    """kinds: gets the types of the other records. verify: whether to compare SHA-1 digests."""
    self._stream, self._pieces = stream, stream.pieces()
    self._kind, self._kinds, self._report, self._verify = kind, kinds, report, verify
    self._buffer, self._at = b"", 0  # what is in memory, and where in it we are
    self._start = 0  # the uncompressed position of the buffer
    self._ended = False

  def records(self) -> Generator[Record, None, None]:
    """The records of the wanted type."""
    while self._skip_blank_lines():
      begin = self._start + self._at
      if not self._buffer.startswith(b"WARC/", self._at):
        found = self._find_record()
        if not self._stream.error or found:
          size = self._start + self._at - begin
          self._report(Damage(self._stream.where(begin), f"no record begins here; {size} bytes are skipped"))
        continue
      if record := self._read_record(begin):
        yield record

  def _read_record(self, begin: int) -> Record | None:
    """The record at the present place. None: it is of another type, or it cannot be read, which was reported."""
    while not (end := _HEADERS_END.search(self._buffer, self._at)) and len(self._buffer) - self._at < LONGEST_HEADERS:
      if not self._grow(1):
        break
    if not end or _RECORD.search(self._buffer, self._at, end.end()):
      return self._leave(begin, 5, "the headers of this record do not end; it is left out")
    headers: dict[bytes, bytes] = {}
    for line in self._buffer[self._at : end.start()].split(b"\n"):
      name, _, value = line.partition(b":")
      headers.setdefault(name.rstrip().lower(), value.strip())
    head, given = end.end() - self._at, headers.get(b"content-length", b"")
    kind = _text(headers.get(b"warc-type")).lower()
    if not given.isdigit():
      says = f"its Content-Length is {_text(given)[:40]!r}" if given else "it has no Content-Length"
      return self._leave(begin, head, f"where this record ends is unknown, because {says}; it is left out")
    length = int(given[:20])
    if length > LONGEST_RECORD:
      if kind != self._kind:
        return self._pass_over(begin, head, length, kind)
      return self._leave(begin, head, f"a record of {length} bytes, more than {LONGEST_RECORD >> 20} MB; it is left out")
    if end[0] == b"\n\n" and not self._is_followed(head, length):
      length = self._to_next_record(head, length)
    if not self._need(head + length + 16) and len(self._buffer) - self._at < head + length:
      there = len(self._buffer) - self._at - head
      return self._leave(begin, head, f"only {there} of this record's {length} bytes are there; it is left out")
    if swallowed := self._starts_between(begin, begin + head + length):
      reason = f"its Content-Length of {length} reaches into the next record; it is left out"
      return self._leave(begin, swallowed - begin, reason)
    if not self._is_followed(head, length):
      return self._leave(begin, head, f"its Content-Length of {length} is wrong, for text follows; it is left out")
    if self._ended and self._stream.bad_from is not None and begin + head + length > self._stream.bad_from:
      self._at = len(self._buffer)  # It is in a member whose checksum is wrong or missing. The caller names that.
      return None
    body = self._buffer[self._at + head : self._at + head + length]
    self._at += head + length
    if not kind:
      self._report(Damage(self._stream.where(begin), "a record without WARC-Type; it is left out"))
    if kind != self._kind:
      self._kinds.add(kind or "untyped")
      return None
    if self._verify and end[0] != b"\n\n" and _differs(headers.get(b"warc-block-digest", b""), body):
      self._report(Damage(self._stream.where(begin), "its text is not what its WARC-Block-Digest says; it is left out"))
      return None
    where = self._stream.where(begin)
    cut = b"warc-truncated" in headers
    return _record(_text(headers.get(b"warc-record-id")), _text(headers.get(b"warc-target-uri")), body, where, cut)

  def _is_followed(self, head: int, length: int) -> bool:
    """Whether the end of a record or the begin of the next one follows on a body that is `head` bytes from here."""
    self._need(head + length + 16)
    after = self._buffer[self._at + head + length : self._at + head + length + 16]
    rest = after.lstrip(b"\r\n")
    return after.startswith(b"\r\n\r\n") or not rest or rest.startswith(b"WARC/")

  def _to_next_record(self, head: int, length: int) -> int:
    """How long a body is that reaches to the next record; `length` if it ends with the stream and is shorter.

    Headers that end in a bare newline were written by a tool that changed the ends of all lines, or wrote text. So their
    Content-Length is not that of the bytes that are there (cc_net's sample counts characters).
    """
    skip = head
    while not (match := _RECORD.search(self._buffer, self._at + skip)) and len(self._buffer) - self._at < LONGEST_RECORD:
      skip = max(head, len(self._buffer) - self._at - _OVERLAP)
      if not self._grow(1):
        break
    reach = (match.start() if match else len(self._buffer)) - self._at - head
    return reach if match or reach >= length else length

  def _pass_over(self, begin: int, head: int, length: int, kind: str) -> None:
    """Goes to the end of a long record of another type without keeping it in memory."""
    end = begin + head + length
    while self._start + len(self._buffer) < end:
      self._at = len(self._buffer)
      if not self._grow(1):
        break
    self._at = min(end - self._start, len(self._buffer))
    self._kinds.add(kind or "untyped")
    if self._start + self._at < end and not self._stream.error:
      self._report(Damage(self._stream.where(begin), f"{end - self._start - self._at} bytes of this record are missing"))

  def _leave(self, begin: int, skip: int, reason: str) -> None:
    """Leaves a record that cannot be read and goes to the next one, `skip` bytes after its begin at the earliest."""
    cut_off = self._ended and self._stream.error  # Then the caller names the error that is behind it.
    self._at += skip - (begin - self._start - self._at)
    found = self._find_record()
    if found or not cut_off:
      self._report(Damage(self._stream.where(begin), reason))

  def _find_record(self) -> bool:
    """Goes to where the next record begins, or to the end of the stream if there is none."""
    self._at = max(self._at - 1, 0)  # A record begins after a newline.
    while True:
      match = _RECORD.search(self._buffer, self._at)
      starts = self._stream.record_starts
      index = bisect.bisect_left(starts, self._start + self._at + 1)
      known = starts[index] - self._start if index < len(starts) else len(self._buffer)
      place = min(match.start() + 1 if match else len(self._buffer), known)
      if place < len(self._buffer):
        self._at = place
        return True
      self._at = max(self._at, len(self._buffer) - _OVERLAP)
      if not self._grow(1):
        self._at = len(self._buffer)
        return False

  def _starts_between(self, begin: int, end: int) -> int:
    """The first byte after `begin` and before `end` at which a gzip member begins with a record. 0: there is none."""
    starts = self._stream.record_starts
    index = bisect.bisect_right(starts, begin)
    return starts[index] if index < len(starts) and starts[index] < end else 0

  def _skip_blank_lines(self) -> bool:
    """Goes to the next byte that does not end a line. False: there is none."""
    while True:
      match = _BLANK.match(self._buffer, self._at)
      assert match
      self._at = match.end()
      if self._at < len(self._buffer):
        self._need(8)
        return True
      if not self._grow(1):
        return False

  def _need(self, size: int) -> bool:
    """Reads on until `size` bytes from the present place on are in memory. False: the stream ends before."""
    missing = size - (len(self._buffer) - self._at)
    return missing <= 0 or (self._grow(missing) and len(self._buffer) - self._at >= size)

  def _grow(self, size: int) -> bool:
    """Adds at least `size` bytes, if there are as many, and drops those before the present place. False: nothing more."""
    parts = [self._buffer[self._at :]]
    got, wanted = 0, max(size, _WINDOW)
    while got < wanted and not self._ended:
      if (piece := next(self._pieces, None)) is None:
        self._ended = True
      else:
        parts.append(piece)
        got += len(piece)
    self._start += self._at
    self._buffer, self._at = b"".join(parts), 0
    return got > 0


def _record(name: str | None, url: str | None, body: bytes, where: str, truncated: bool) -> Record:
  if url and url.startswith("<"):  # as WARC 1.0's grammar has it, and wget writes it
    url = url.removeprefix("<").removesuffix(">")
  return Record(name or where, url or "", body, where, truncated)


def _text(header: bytes | None) -> str:
  return (header or b"").decode("utf-8", "replace")


def _differs(digest: bytes, body: bytes) -> bool:
  """Whether a digest of the form sha1:... can be read and is not the body's."""
  name, _, value = digest.partition(b":")
  if name.lower() != b"sha1" or len(value) not in (32, 40):
    return False
  try:
    wanted = int(value.upper().translate(_BASE32), 32) if len(value) == 32 else int(value, 16)
  except ValueError:
    return False
  return wanted != int.from_bytes(hashlib.sha1(body, usedforsecurity=False).digest())
