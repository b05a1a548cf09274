"""The fast reader: fastwarc, and the checks that say how far it may be trusted."""

import zlib
from collections.abc import Iterator

from xlmr_jax.corpus.sources.warc_records.record import (
  HEADERS_END,
  LONGEST_HEADERS,
  LONGEST_RECORD,
  RECORD_START,
  Record,
  make_record,
)
from xlmr_jax.corpus.sources.warc_records.streams import PIECE_BYTES, Members


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
      held = make_record(record.record_id, headers.get("WARC-Target-URI"), body, where, cut)
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
    members = Members(file, position)
    for piece in members.pieces():
      parts.append(piece)
      kept += len(piece)
      if kept > size + LONGEST_HEADERS:
        return False
  text = b"".join(parts)
  end = HEADERS_END.search(text)
  if members.error or len(members.places) > 1 or not end:
    return False
  return len(text) >= end.end() + size and not text[end.end() + size :].strip(b"\r\n")
