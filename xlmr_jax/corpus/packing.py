"""Packs documents into rows, `<s> piece </s>` one after another and then <pad>: each token once, documents cut rarely.

A document longer than a row fills whole rows. Its rest is placed as a short document is: whole, the longest first, in the
row where it leaves the least room (best-fit decreasing). Only if that leaves too many pads, the emptiest rows are dissolved
and their pieces are cut to fill the others.
"""

from collections.abc import Iterable

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, PAD

SMALLEST_ROW = 16  # tokens; in shorter rows <s> and </s> would be a good part
# No document is cut for density while at most this share of the tokens is <pad>, not counting one row that is not full.
# A document longer than a row is cut anyway.
MOST_PADS = 0.005
_FRAME = 2  # tokens: <s> and </s>


def check_seq_len(seq_len: int) -> None:
  """Raises UserError: rows of seq_len tokens are too short."""
  if seq_len < SMALLEST_ROW:
    raise UserError(f"--seq_len={seq_len}: rows need at least {SMALLEST_ROW} tokens; XLM-R has 512")


def pack(tokens: np.ndarray, lengths: np.ndarray, seq_len: int, cut: bool = True) -> np.ndarray:
  """Rows, int32[n, seq_len], of D documents: tokens int32[sum(lengths)], one document after another, and lengths int[D].

  The pieces of a document that is cut are in reading order, each in a later row than the one before it. A cut for density
  leaves no piece of fewer than min(16, seq_len // 8) tokens. cut: whether documents are cut for density at all.
  """
  row, document, size = lay_out(lengths, seq_len, cut)
  packed = np.full((row[-1] + 1 if row.size else 0, seq_len), PAD, np.int32)
  ends = np.cumsum(size + _FRAME)
  is_first = np.diff(row, prepend=-1) > 0  # of its row
  before_row = (ends - size - _FRAME)[is_first]  # how many tokens the rows before it hold
  # Where a piece's first token lies in the flattened rows.
  start = row * seq_len + ends - size - 1 - np.repeat(before_row, np.bincount(row))
  flat = packed.reshape(-1)
  flat[start - 1] = BOS
  flat[start + size] = EOS
  in_text = np.argsort(document, kind="stable")  # Rows ascend, so this brings the pieces into the order of `tokens`.
  start, size = start[in_text], size[in_text]
  flat[np.arange(tokens.size) + np.repeat(start - (np.cumsum(size) - size), size)] = tokens
  return packed


def lay_out(lengths: np.ndarray, seq_len: int, cut: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The (row, document, tokens) of each piece, int64[P] each, in the order in which the pieces stand in the rows.

  The rows come in the order of the documents that opened them, and the pieces of a row in the order of the documents. So the
  first rows hold a mixture of long and short documents too. It depends on the arguments alone. cut: see pack.
  """
  lengths = np.asarray(lengths, np.int64)
  whole, rest = np.divmod(lengths, seq_len - _FRAME)
  rests = np.flatnonzero(rest)
  rests = rests[np.argsort(-rest[rests], kind="stable")]
  layout = _Layout(seq_len)
  layout.fill_rows(np.repeat(np.arange(lengths.size), whole).tolist())
  layout.add_whole(rests.tolist(), rest[rests].tolist())
  framed = int(lengths.sum() + _FRAME * (whole.sum() + rests.size))
  if cut:
    layout.dissolve(layout.rows - int(np.ceil(framed / ((1 - MOST_PADS) * seq_len))))
  return layout.pieces()


class _Layout:
  """Which pieces lie in which row. Rows are found by the room that they still have, in constant time."""

  def __init__(self, seq_len: int):
    self._seq_len = seq_len
    self._smallest = min(16, seq_len // 8)  # tokens that a cut leaves at least
    self.rows = 0
    self._row: list[int] = []  # of each piece
    self._document: list[int] = []
    self._size: list[int] = []
    self._with_room: dict[int, list[int]] = {}  # {tokens: the rows with room for so many, and for no more}
    self._rooms = 0  # Bit r is set if with_room[r] has any.

  def fill_rows(self, documents: list[int]) -> None:
    """Adds a full row for each entry."""
    self._add(range(self.rows, self.rows + len(documents)), documents, self._seq_len - _FRAME)
    self.rows += len(documents)

  def add_whole(self, documents: list[int], sizes: list[int]) -> None:
    """Adds pieces whole, each to the row where it leaves the least room. The sizes must not increase.

    Equal pieces are added together, because the best row for one of them stays the best for the next while it has room.
    """
    begin = 0
    while begin < len(sizes):
      size = sizes[begin]
      framed = size + _FRAME
      end = begin + 1
      while end < len(sizes) and sizes[end] == size:
        end += 1
      while begin < end:
        room = self._least_room(framed) or self._seq_len
        per_row = room // framed
        rows = self._take(room, -(-(end - begin) // per_row))
        added = documents[begin : min(end, begin + per_row * len(rows))]
        self._add([row for row in rows for _ in range(per_row)][: len(added)] if per_row > 1 else rows, added, size)
        begin += len(added)
        self._give_back(rows[:-1], room - per_row * framed)
        self._give_back(rows[-1:], room - (len(added) - per_row * (len(rows) - 1)) * framed)

  def dissolve(self, count: int) -> None:
    """Takes the `count` emptiest rows apart and fills the others with their pieces, unless that saves no row."""
    if count <= 0:
      return
    rows, *before = self.rows, self._row, self._document, self._size
    row, document, size = map(np.array, before)
    room = self._seq_len - np.bincount(row, size + _FRAME).astype(np.int64)
    kept = np.sort(np.argsort(-room, kind="stable")[count:])
    number = np.full(rows, -1)
    number[kept] = np.arange(kept.size)
    stays = number[row] >= 0
    self.rows = kept.size
    self._row, self._document, self._size = (x[stays].tolist() for x in (number[row], document, size))
    room = room[kept]
    self._with_room, self._rooms = {}, 0
    for left in np.unique(room).tolist():
      self._give_back(np.flatnonzero(room == left).tolist(), left)
    loose = np.flatnonzero(~stays)
    loose = loose[np.argsort(-size[loose], kind="stable")]
    left = [(self._pour(x, tokens), x) for x, tokens in zip(document[loose].tolist(), size[loose].tolist())]
    left = sorted((piece for piece in left if piece[0]), key=lambda piece: -piece[0])
    self.add_whole([x for _, x in left], [tokens for tokens, _ in left])
    if self.rows >= rows:
      self.rows, self._row, self._document, self._size = rows, *before

  def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What lay_out returns."""
    row, document, size = (np.array(x, np.int64) for x in (self._row, self._document, self._size))
    opened_by = np.empty(self.rows, np.int64)
    opened_by[row[::-1]] = document[::-1]  # Of several values for a row the last one stays: the piece that was added first.
    new_row = np.empty(self.rows, np.int64)
    new_row[np.argsort(opened_by, kind="stable")] = np.arange(self.rows)
    row = new_row[row]
    order = np.argsort(row * (document.max(initial=0) + 1) + document)  # No row has two pieces of a document.
    return row[order], document[order], size[order]

  def _pour(self, document: int, size: int) -> int:
    """Adds a piece to the rows that there are, cut if it must be; returns how many tokens of it found no room."""
    while size:
      room, tokens = self._least_room(size + _FRAME), size
      if not room:
        room = self._rooms.bit_length() - 1  # the most that a row has
        tokens = min(room - _FRAME, size - self._smallest)
        if tokens < self._smallest:
          break
      rows = self._take(room, 1)
      self._add(rows, [document], tokens)
      self._give_back(rows, room - tokens - _FRAME)
      size -= tokens
    return size

  def _least_room(self, framed: int) -> int:
    """The least room of a row that has room for `framed` tokens; 0 if none has."""
    fitting = self._rooms >> framed
    return framed + (fitting & -fitting).bit_length() - 1 if fitting else 0

  def _take(self, room: int, most: int) -> list[int]:
    """At most `most` rows with so much room, and as many new ones if there are none."""
    rows = self._with_room.get(room)
    if not rows:
      self.rows += most
      return list(range(self.rows - most, self.rows))
    taken = rows[-most:]
    del rows[-most:]
    if not rows:
      self._rooms ^= 1 << room
    return taken

  def _give_back(self, rows: list[int], room: int) -> None:
    if rows and room:
      self._with_room.setdefault(room, []).extend(rows)
      self._rooms |= 1 << room

  def _add(self, rows: Iterable[int], documents: list[int], size: int) -> None:
    self._row += rows
    self._document += documents
    self._size += [size] * len(documents)
