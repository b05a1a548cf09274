"""Texts with "<mask>" in them. The pieces beside a mask are those of running text, whatever the steps of the tokenizer.

A letter takes the place of each mask, the text is encoded as running text, and the letter's pieces become the mask. This
needs no knowledge of prefixes, suffixes and kept spaces, which differ from vocabulary to vocabulary.
"""

from collections.abc import Callable, Iterable

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, MASK

Spans = tuple[np.ndarray, np.ndarray, np.ndarray]  # ids, starts and ends of a text's pieces, int32[n] each
_MOST_LETTERS = 64


def letters_of(pieces: Iterable[str]) -> list[str]:
  """The letters that may stand for a mask: those that are pieces, so that none is fused with an unknown one beside it."""
  found: dict[str, None] = {}
  for piece in pieces:
    letter = piece.strip("▁")
    if len(letter) == 1 and letter.isalpha():
      found[letter] = None
      if len(found) == _MOST_LETTERS:
        break
  return list(found)


def encode_masked(
  text: str, encode: Callable[[list[str]], list[Spans]], mask_id: int, letters: list[str], blanks: str | None = None,
  spaces_follow: bool = False,
) -> list[int]:  # fmt: skip
  """`<s> text </s>` as ids, where each "<mask>" in the text becomes mask_id.

  encode: encode_with_offsets. letters: to try for a mask, until one has pieces of its own. blanks: the characters that count
  as a space; None for Unicode's. spaces_follow: whether a piece has the space behind a word and not the one before it.
  Blanks on that side of a mask belong to what it hides. Raises UserError if no letter keeps apart from its neighbours.
  """
  parts = text.split(MASK)
  if len(parts) == 1:
    return [BOS, *encode([text])[0][0].tolist(), EOS]
  for letter in letters:
    ids = _ids_with(letter, parts, encode, mask_id, blanks, spaces_follow)
    if ids is not None:
      return [BOS, *ids, EOS]
  raise UserError(
    f"{text!r}: this vocabulary joins what stands beside a {MASK} with any letter in its place; put a space there"
  )


def _ids_with(
  letter: str, parts: list[str], encode: Callable[[list[str]], list[Spans]], mask_id: int, blanks: str | None,
  spaces_follow: bool,
) -> list[int] | None:  # fmt: skip
  """The ids with this letter for a mask; None if one of its pieces is more than the letter."""
  running, counts, at = parts[0], [1], [len(parts[0])]
  for i, part in enumerate(parts[1:], 1):
    if i < len(parts) - 1 and not part:  # Masks without anything between them share a letter.
      counts[-1] += 1
      continue
    running += letter + part
    if i < len(parts) - 1:
      counts.append(1)
      at.append(len(running))
  hidden: set[int] = set()  # positions of the blanks that belong to what a mask hides
  for position in at:
    before, after = running[:position], running[position + 1 :]
    if spaces_follow:
      hidden.update(range(position + 1, len(running) - len(after.lstrip(blanks)) + 1))
    else:
      hidden.update(range(len(before.rstrip(blanks)), position + 1))
  waiting = dict(zip(at, counts))
  ids: list[int] = []
  for id, start, end in zip(*(array.tolist() for array in encode([running])[0])):
    letters_inside = [position for position in at if start <= position < end]
    if not letters_inside and not (start == end and start in hidden):
      ids.append(id)
    elif letters_inside and (start, end) != (letters_inside[0], letters_inside[0] + 1):
      return None
    elif letters_inside:
      ids += [mask_id] * waiting.pop(start, 0)
  return None if waiting else ids
