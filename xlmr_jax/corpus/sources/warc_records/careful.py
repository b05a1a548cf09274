"""The careful reader: it checks everything, names what it leaves out, and goes on after damage."""

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator

from xlmr_jax.corpus.sources import Damage
from xlmr_jax.corpus.sources.warc_records.record import (
  HEADERS_END,
  LONGEST_HEADERS,
  LONGEST_RECORD,
  RECORD_START,
  Record,
  make_record,
)
from xlmr_jax.corpus.sources.warc_records.streams import Compressed, Gzip, Stream, next_member
from xlmr_jax.corpus.sources.warc_records.window import Window

# Digits in base 32 as WARC writes them, for those that int() reads.
_BASE32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")


def read_carefully(
  path: str, kind: str, compression: str, given: int, on_damage: Callable[[Damage], None]
) -> Iterator[Record]:
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
      stream = Gzip(path, start)
    else:
      stream = Compressed(path, compression) if compression else Stream(path)
    start = None
    # Compressed files have checksums of their own, so that the digests of their records would tell nothing more.
    with contextlib.closing(_Reader(stream, kind, kinds, report, verify=not compression).records()) as records:
      for record in records:
        found += 1
        if found > given:
          yield record
    if stream.error:
      if isinstance(stream, Gzip):
        start = next_member(path, stream.bad_member + 1)
      lost = "the rest of the file is lost" if start is None else f"reading goes on at byte {start}"
      report(Damage(stream.error_where(), f"{stream.error}; {lost}"))
  if not found and not reported:
    others = ", ".join(sorted(kinds)) or "no record at all"
    on_damage(Damage(path, f"no record of type {kind} in it, but {others}; is --source right?"))


class _Reader:
  """Finds the records in the bytes of a stream."""

  def __init__(self, stream: Stream, kind: str, kinds: set[str], report: Callable[[Damage], None], verify: bool):
    """kinds: gets the types of the other records. verify: whether to compare SHA-1 digests."""
    self._stream, self._window = stream, Window(stream)
    self._kind, self._kinds, self._report, self._verify = kind, kinds, report, verify

  def records(self) -> Generator[Record, None, None]:
    """The records of the wanted type."""
    window = self._window
    while window.skip_blank_lines():
      begin = window.position
      if not window.buffer.startswith(b"WARC/", window.at):
        found = window.find_record()
        if not self._stream.error or found:
          size = window.position - begin
          self._report(Damage(self._stream.where(begin), f"no record begins here; {size} bytes are skipped"))
        continue
      if record := self._read_record(begin):
        yield record

  def _read_record(self, begin: int) -> Record | None:
    """The record at the present place. None: it is of another type, or it cannot be read, which was reported."""
    window = self._window
    while not (end := HEADERS_END.search(window.buffer, window.at)) and len(window.buffer) - window.at < LONGEST_HEADERS:
      if not window.grow(1):
        break
    if not end or RECORD_START.search(window.buffer, window.at, end.end()):
      return self._leave(begin, 5, "the headers of this record do not end; it is left out")
    headers: dict[bytes, bytes] = {}
    for line in window.buffer[window.at : end.start()].split(b"\n"):
      name, _, value = line.partition(b":")
      headers.setdefault(name.rstrip().lower(), value.strip())
    head, given = end.end() - window.at, headers.get(b"content-length", b"")
    kind = _text(headers.get(b"warc-type")).lower()
    if not given.isdigit():
      says = f"its Content-Length is {_text(given)[:40]!r}" if given else "it has no Content-Length"
      return self._leave(begin, head, f"where this record ends is unknown, because {says}; it is left out")
    length = int(given[:20])
    if length > LONGEST_RECORD:
      if kind != self._kind:
        return self._pass_over(begin, head, length, kind)
      return self._leave(begin, head, f"a record of {length} bytes, more than {LONGEST_RECORD >> 20} MB; it is left out")
    if end[0] == b"\n\n" and not window.is_followed(head, length):
      length = window.length_to_next_record(head, length)
    if not window.need(head + length + 16) and len(window.buffer) - window.at < head + length:
      there = len(window.buffer) - window.at - head
      return self._leave(begin, head, f"only {there} of this record's {length} bytes are there; it is left out")
    if swallowed := window.starts_between(begin, begin + head + length):
      reason = f"its Content-Length of {length} reaches into the next record; it is left out"
      return self._leave(begin, swallowed - begin, reason)
    if not window.is_followed(head, length):
      return self._leave(begin, head, f"its Content-Length of {length} is wrong, for text follows; it is left out")
    if window.ended and self._stream.bad_from is not None and begin + head + length > self._stream.bad_from:
      window.at = len(window.buffer)  # It is in a member whose checksum is wrong or missing. The caller names that.
      return None
    body = window.buffer[window.at + head : window.at + head + length]
    window.at += head + length
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
    return make_record(_text(headers.get(b"warc-record-id")), _text(headers.get(b"warc-target-uri")), body, where, cut)

  def _pass_over(self, begin: int, head: int, length: int, kind: str) -> None:
    """Goes to the end of a long record of another type without keeping it in memory."""
    window = self._window
    end = begin + head + length
    while window.start + len(window.buffer) < end:
      window.at = len(window.buffer)
      if not window.grow(1):
        break
    window.at = min(end - window.start, len(window.buffer))
    self._kinds.add(kind or "untyped")
    if window.position < end and not self._stream.error:
      self._report(Damage(self._stream.where(begin), f"{end - window.position} bytes of this record are missing"))

  def _leave(self, begin: int, skip: int, reason: str) -> None:
    """Leaves a record that cannot be read and goes to the next one, `skip` bytes after its begin at the earliest."""
    window = self._window
    cut_off = window.ended and self._stream.error  # Then the caller names the error that is behind it.
    window.at += skip - (begin - window.position)
    found = window.find_record()
    if found or not cut_off:
      self._report(Damage(self._stream.where(begin), reason))


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
