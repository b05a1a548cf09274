"""Documents into rows: `<s> piece </s>` one after another, <pad> at the end; each token once, in order."""

import numpy as np

from xlmr_jax.data.tokenizer import BOS, EOS, PAD
from xlmr_jax.errors import UserError

SMALLEST_ROW = 16  # tokens; below it <s> and </s> would be a good part of every row


def check_seq_len(seq_len: int) -> None:
  if seq_len < SMALLEST_ROW:
    raise UserError(f"--seq_len={seq_len}: rows need at least {SMALLEST_ROW} tokens; XLM-R has 512")


def pack(tokens: np.ndarray, lengths: np.ndarray, seq_len: int) -> np.ndarray:
  """Rows int32[n, seq_len] of D documents: tokens int32[sum(lengths)], one after another, and lengths int[D].

  A document that does not fit into the rest of a row goes on in the next one, unless a fragment of under
  min(16, seq_len // 8) tokens would come of it, so few pads stand at the end of a row.
  """
  smallest = min(16, seq_len // 8)
  rows, column = 0, 0  # where the next piece begins
  starts, sizes = [], []  # of each piece: place of its first token among all rows' ids, tokens
  for left in lengths.tolist():
    while left:
      room = seq_len - column - 2
      size = left if left <= room else min(room, left - smallest)
      if size < smallest and size < left:
        rows, column = rows + 1, 0
        continue
      starts.append(rows * seq_len + column + 1)
      sizes.append(size)
      column += size + 2
      left -= size
  packed = np.full((rows + (column > 0), seq_len), PAD, np.int32)
  if not sizes:
    return packed
  start, size = np.array(starts), np.array(sizes)
  flat = packed.reshape(-1)
  flat[start - 1] = BOS
  flat[start + size] = EOS
  flat[np.arange(tokens.size) + np.repeat(start - (np.cumsum(size) - size), size)] = tokens
  return packed
