"""The token ids that every vocabulary of this project shares, in XLM-R's order (fairseq, data/dictionary.py).

`<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the real pieces, and `<mask>` as the last entry.

A vocabulary's file may have its special pieces elsewhere, as BERT's does. Then a few ids change places when it is read, and
change back when it is written: rows, checkpoints and everything between have the ids above.
"""

BOS, PAD, EOS, UNK, FIRST_PIECE = 0, 1, 2, 3, 4
MOST_ENTRIES = 2**24  # of a vocabulary: a file that tells of more is damaged, and would ask for all memory
MASK = "<mask>"  # as it is written in a text
WORD_START = 2**30  # is added to the id of the first piece of each word, where words are told
SPECIAL_IDS = (BOS, PAD, EOS, UNK)


def mask_id(vocabulary_size: int) -> int:
  """The id of `<mask>` in a vocabulary of this many entries."""
  return vocabulary_size - 1


def moved_ids(specials: tuple[int, ...]) -> dict[int, int]:
  """{our id: its id in the file} of the entries that lie elsewhere in a vocabulary's file; {} for XLM-R's order.

  specials: the ids of <s>, <pad>, </s> and <unk> in the file. Each of the four changes places with the entry that holds its
  id here, so that at most eight ids differ.
  """
  theirs: dict[int, int] = {}
  for ours, wanted in zip(SPECIAL_IDS, specials, strict=True):
    holder = next((id for id, found in theirs.items() if found == wanted), wanted)
    theirs[holder] = theirs.get(ours, ours)
    theirs[ours] = wanted
  return {ours: found for ours, found in theirs.items() if ours != found}
