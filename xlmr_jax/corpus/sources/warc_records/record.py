"""A record, the limits on its size, and the bytes by which its begin and its headers are known."""

import re
from typing import NamedTuple

LONGEST_RECORD = 64 << 20  # bytes; a longer one is named and left out
LONGEST_HEADERS = 256 << 10  # bytes

HEADERS_END = re.compile(rb"\r?\n\r?\n")
RECORD_START = re.compile(rb"\nWARC/[0-9]{1,2}\.[0-9]{1,3}\r?\n[A-Za-z][A-Za-z0-9-]*[ \t]*:")


class Record(NamedTuple):
  """A record of the wanted type."""

  id: str  # WARC-Record-ID; its place if it has none
  url: str  # WARC-Target-URI; "" if it has none
  body: bytes
  where: str  # the file, and the offset in it at which the record, or the gzip member that holds it, begins
  truncated: bool  # whether the crawler says that it did not keep the whole page


def make_record(name: str | None, url: str | None, body: bytes, where: str, truncated: bool) -> Record:
  """The record, with its place for a missing name and its address without brackets."""
  if url and url.startswith("<"):  # as WARC 1.0's grammar has it, and wget writes it
    url = url.removeprefix("<").removesuffix(">")
  return Record(name or where, url or "", body, where, truncated)
