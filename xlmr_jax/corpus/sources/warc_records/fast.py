"""The fast reader: fastwarc, and the checks that say how far it may be trusted."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from xlmr_jax.corpus.sources.warc_records.record import (
  HEADERS_END,
  LONGEST_HEADERS,
  LONGEST_RECORD,
  RECORD_START,
  Record,
  make_record,
)
from xlmr_jax.corpus.sources.warc_records.streams import GZIP, PIECE_BYTES, Members, begins_record

_HEADERS = 2 << 10  # bytes of a member that are inflated at a time to find the end of its headers
_BLANKS = 16  # bytes at most that may follow on a body; four do by the standard


def begins_with_a_member_per_record(path: str) -> bool:
  """Whether the first gzip member of a file holds one record and no more. fastwarc knows no place of further ones."""
  stream = zlib.decompressobj(wbits=31)
  with open(path, "rb") as file:
    try:
      text = stream.decompress(file.read(PIECE_BYTES), PIECE_BYTES)
    except zlib.error:
      return False
  return stream.eof and text.startswith(b"WARC/") and not RECORD_START.search(text)


def read_fast(path: str, kind: str, count: list[int]) -> Iterator[Record]:
  """The records that fastwarc reads and that are beyond doubt; counts them in count[0]. Returns whether these are all.

  A record is given only after the next one has begun where it should, because until then its length may be wrong. And it is
  given only if the file has one gzip member from its begin to the next one's, with this record alone in it: fastwarc passes
  over members whose headers end in a bare newline without a word, and joins one that is cut in its headers to the next one.
  """
  from fastwarc.warc import ArchiveIterator, WarcRecordType

  wanted = getattr(WarcRecordType, kind)
  odd = (WarcRecordType.no_type, WarcRecordType.unknown)
  held: Record | None = None
  last = length = -1
  try:
    with open(path, "rb") as file:
      for record in ArchiveIterator(path, parse_http=False):
        position, before, length, headers = record.stream_pos, length, record.content_length, record.headers
        if position <= last or (not length and not (headers.get("Content-Length") or "").isdigit()):
          return False
        if position and (last < 0 or not _is_one_record(file, last, position, before)):
          return False
        if held:
          count[0] += 1
          yield held
          held = None
        last = position
        if (found := record.record_type) != wanted:
          if found in odd:
            return False
          continue
        if length > LONGEST_RECORD or len(body := record.reader.read()) != length:
          return False
        if b"\nWARC/" in body:  # Its length may be that of several records; only the places of the members tell.
          return False
        where = f"{path}, byte {position}"
        cut = kind != "conversion" and headers.get("WARC-Truncated") is not None
        held = make_record(record.record_id, headers.get("WARC-Target-URI"), body, where, cut)
  except OSError:
    return False
  if (not count[0] and not held) or not _ends_with_record(path, last, length):
    return False
  if held:
    count[0] += 1
    yield held
  return True


def _is_one_record(file: BinaryIO, start: int, end: int, size: int) -> bool:
  """Whether the bytes [start, end) of a file are one gzip member that holds a record of `size` bytes and nothing else.

  It inflates no more than the headers: a member ends with the number of its bytes, and where another one begins is seen by
  the first bytes that all of them have.
  """
  file.seek(start)
  stream, text = zlib.decompressobj(wbits=31), b""
  data = first = file.read(min(PIECE_BYTES, end - start))
  while not (headers := HEADERS_END.search(text)):
    if not data or len(text) > LONGEST_HEADERS:
      return False
    try:
      text += stream.decompress(data, _HEADERS)
    except zlib.error:
      return False
    data = stream.unconsumed_tail
  if not text.startswith(b"WARC/"):
    return False
  file.seek(end - 4)
  # What follows on the body is blank: a record takes more bytes than these.
  if not 0 <= (int.from_bytes(file.read(4), "little") - headers.end() - size) % (1 << 32) <= _BLANKS:
    return False
  data, position = first[1:], start + 1
  while True:
    at = -1
    while (at := data.find(GZIP, at + 1)) >= 0:
      if begins_record(file, position + at):
        return False
    position += max(0, len(data) - 2)  # The first bytes of a member may be on both sides of a piece's end.
    if position + 2 >= end:
      return True
    file.seek(position)
    data = file.read(min(PIECE_BYTES, end - position))


def _ends_with_record(path: str, position: int, size: int) -> bool:
  """Whether one whole gzip member is all that a file has from `position` on, with one record, of `size` bytes."""
  parts, kept = [], 0
  with open(path, "rb") as file:
    file.seek(position)
    members = Members(file, position)
    for piece in members.pieces():
      parts.append(piece)
      kept += len(piece)
      if kept > size + LONGEST_HEADERS:
        return False
  text = b"".join(parts)
  end = HEADERS_END.search(text)
  if members.error or len(members.starts) > 1 or not end:
    return False
  return len(text) >= end.end() + size and not text[end.end() + size :].strip(b"\r\n")
