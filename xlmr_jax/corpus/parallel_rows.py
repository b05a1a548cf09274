"""From pairs of sentences to the tokens of their documents, `a </s></s> b`, which packing puts between `<s>` and `</s>`."""

from collections.abc import Callable

import numpy as np

from xlmr_jax.corpus.sources.parallel import SEPARATOR
from xlmr_jax.ids import EOS

FRAME = 2  # tokens that packing puts around a document


def encode_pairs(
  texts: list[str], encode: Callable[[list[str]], list[np.ndarray]], separators: int, seq_len: int
) -> tuple[list[np.ndarray], list[bool]]:
  """(tokens int32[n] of each pair that a row can hold, whether each text is one of them).

  A pair is never cut, because a part of it would be no pair. One that is too long for a row is left out, as XLM leaves out
  sentences above a length (its ParallelDataset.remove_long_sentences). So is one of which a side has no piece.
  texts: as ParallelText gives them. separators: how many </s> stand between two texts with this vocabulary.
  """
  sides = encode([side for text in texts for side in text.split(SEPARATOR)])
  between = np.full(separators, EOS, np.int32)
  room = seq_len - FRAME - separators
  fits = [bool(len(a) and len(b) and len(a) + len(b) <= room) for a, b in zip(sides[::2], sides[1::2])]
  pairs = zip(sides[::2], sides[1::2], fits)
  return [np.concatenate([a, between, b]) for a, b, is_kept in pairs if is_kept], fits
