"""Packs documents into rows: `<s> piece </s>` one after another, then <pad>. Each token comes once, all in order."""

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, PAD

SMALLEST_ROW = 16  # tokens; in shorter rows <s> and </s> would be a good part


def check_seq_len(seq_len: int) -> None:
  """Raises UserError: rows of seq_len tokens are too short."""
  if seq_len < SMALLEST_ROW:
    raise UserError(f"--seq_len={seq_len}: rows need at least {SMALLEST_ROW} tokens; XLM-R has 512")


def pack(tokens: np.ndarray, lengths: np.ndarray, seq_len: int) -> np.ndarray:
  """Rows, int32[n, seq_len], of D documents: tokens int32[sum(lengths)], one document after another, and lengths int[D].

  A document that does not fit into the rest of a row continues in the next one, unless that would leave a fragment of fewer
  than min(16, seq_len // 8) tokens. So there are few pads at the end of a row.
  """
  smallest = min(16, seq_len // 8)
  row, column = 0, 0  # where the next piece begins
  starts, sizes = [], []  # of each piece, in tokens: where its first token lies in the flattened rows, and its length
  for left in lengths.tolist():
    while left:
      room = seq_len - column - 2
      size = left if left <= room else min(room, left - smallest)
      if size < smallest and size < left:
        row, column = row + 1, 0
        continue
      starts.append(row * seq_len + column + 1)
      sizes.append(size)
      column += size + 2
      left -= size
  packed = np.full((row + (column > 0), seq_len), PAD, np.int32)
  if not sizes:
    return packed
  start, size = np.array(starts), np.array(sizes)
  flat = packed.reshape(-1)
  flat[start - 1] = BOS
  flat[start + size] = EOS
  flat[np.arange(tokens.size) + np.repeat(start - (np.cumsum(size) - size), size)] = tokens
  return packed
