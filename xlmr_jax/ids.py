"""The token ids that every vocabulary of this project shares, in XLM-R's order (fairseq, data/dictionary.py).

`<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the real pieces, and `<mask>` as the last entry.
"""

BOS, PAD, EOS, UNK, FIRST_PIECE = 0, 1, 2, 3, 4
MOST_ENTRIES = 2**24  # of a vocabulary: a file that tells of more is damaged, and would ask for all memory
MASK = "<mask>"  # as it is written in a text


def mask_id(vocabulary_size: int) -> int:
  """The id of `<mask>` in a vocabulary of this many entries."""
  return vocabulary_size - 1
