"""Goes through the bytes of a stream, and finds the next record again after what cannot be read."""

import bisect
import re

from xlmr_jax.corpus.sources.warc_records.record import LONGEST_RECORD, RECORD_START
from xlmr_jax.corpus.sources.warc_records.streams import Stream

_GROWTH = 256 << 10  # bytes, at least, by which the text in memory grows
_BLANK = re.compile(rb"[\r\n]*")
_OVERLAP = 256  # bytes, more than RECORD_START can match


class Window:
  """The part of a stream that is in memory, and the place in it at which reading stands."""

  def __init__(self, stream: Stream):
    self._stream, self._pieces = stream, stream.pieces()
    self.buffer, self.at = b"", 0  # what is in memory, and where in it we are
    self.start = 0  # the uncompressed position of the buffer
    self.ended = False  # whether the stream has given all its bytes

  @property
  def position(self) -> int:
    """The uncompressed position of the place where we are."""
    return self.start + self.at

  def skip_blank_lines(self) -> bool:
    """Goes to the next byte that does not end a line. False: there is none."""
    while True:
      match = _BLANK.match(self.buffer, self.at)
      assert match
      self.at = match.end()
      if self.at < len(self.buffer):
        self.need(8)
        return True
      if not self.grow(1):
        return False

  def need(self, size: int) -> bool:
    """Reads on until `size` bytes from the present place on are in memory. False: the stream ends before."""
    missing = size - (len(self.buffer) - self.at)
    return missing <= 0 or (self.grow(missing) and len(self.buffer) - self.at >= size)

  def grow(self, size: int) -> bool:
    """Adds at least `size` bytes, if there are as many, and drops those before the present place. False: nothing more."""
    parts = [self.buffer[self.at :]]
    got, wanted = 0, max(size, _GROWTH)
    while got < wanted and not self.ended:
      if (piece := next(self._pieces, None)) is None:
        self.ended = True
      else:
        parts.append(piece)
        got += len(piece)
    self.start += self.at
    self.buffer, self.at = b"".join(parts), 0
    return got > 0

  def find_record(self) -> bool:
    """Goes to where the next record begins, or to the end of the stream if there is none."""
    self.at = max(self.at - 1, 0)  # A record begins after a newline.
    while True:
      match = RECORD_START.search(self.buffer, self.at)
      starts = self._stream.record_starts
      index = bisect.bisect_left(starts, self.position + 1)
      known = starts[index] - self.start if index < len(starts) else len(self.buffer)
      offset = min(match.start() + 1 if match else len(self.buffer), known)
      if offset < len(self.buffer):
        self.at = offset
        return True
      self.at = max(self.at, len(self.buffer) - _OVERLAP)
      if not self.grow(1):
        self.at = len(self.buffer)
        return False

  def starts_between(self, begin: int, end: int) -> int:
    """The first byte after `begin` and before `end` at which a gzip member begins with a record. 0: there is none."""
    starts = self._stream.record_starts
    index = bisect.bisect_right(starts, begin)
    return starts[index] if index < len(starts) and starts[index] < end else 0

  def length_to_next_record(self, head: int, length: int) -> int:
    """How long a body is that reaches to the next record; `length` if it ends with the stream and is shorter.

    Headers that end in a bare newline were written by a tool that changed the ends of all lines, or wrote text. So their
    Content-Length is not that of the bytes that are there (cc_net's sample counts characters).
    """
    skip = head
    while not (match := RECORD_START.search(self.buffer, self.at + skip)) and len(self.buffer) - self.at < LONGEST_RECORD:
      skip = max(head, len(self.buffer) - self.at - _OVERLAP)
      if not self.grow(1):
        break
    reach = (match.start() if match else len(self.buffer)) - self.at - head
    return reach if match or reach >= length else length

  def is_followed(self, head: int, length: int) -> bool:
    """Whether the end of a record or the begin of the next one follows on a body that is `head` bytes from here."""
    self.need(head + length + 16)
    after = self.buffer[self.at + head + length : self.at + head + length + 16]
    rest = after.lstrip(b"\r\n")
    return after.startswith(b"\r\n\r\n") or not rest or rest.startswith(b"WARC/")
