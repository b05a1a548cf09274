"""What every vocabulary can do, and the one place that decides which kind a file holds. xlmr_jax/ids.py has the ids."""

import os
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from xlmr_jax.data.sentencepiece import SentencePieceTokenizer
from xlmr_jax.data.tokenizer_json import JsonTokenizer, split_rows
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, read_bytes


class Tokenizer(Protocol):
  """Text to ids and back."""

  path: AnyPath
  model: bytes  # the content of the vocabulary's file
  sha256: str  # of that content
  size: int  # entries, <pad> and <mask> counted; and the rows of a padded embedding behind them, where there are any
  mask_id: int
  separators: int  # how many </s> stand between the two texts of a pair
  specials: tuple[int, ...]  # the ids of <s>, <pad>, </s> and <unk> in the file; ids.moved_ids tells which of ours differ

  @property
  def replacements(self) -> np.ndarray:
    """The ids of the real pieces, int32[n], ascending: those that may stand for a masked token."""
    ...

  def encode(self, text: str) -> list[int]:
    """`<s> text </s>` as ids."""
    ...

  def encode_lines(self, lines: list[str], threads: int = 1) -> list[np.ndarray]:
    """The ids of each line, int32[n], without <s> and </s>. One call for many lines is fast."""
    ...

  def encode_masked(self, text: str) -> list[int]:
    """`<s> text </s>` as ids, where each "<mask>" in the text becomes mask_id.

    The pieces beside a mask are those of running text. A space before a mask belongs to what the mask hides, so it is
    dropped. After a mask there is a space only where the text has one: Thai and Chinese have none, nor has a comma. Where
    the pieces of a vocabulary end with a space, it is the space after a mask that is dropped.
    """
    ...

  def encode_with_offsets(self, texts: list[str], threads: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, starts, ends) of each text, int32[n] each: a piece stands for text[start:end], without blanks at either end.

    The ids are those of encode_lines. Offsets count characters of the text as it was given, before it is normalised.
    start == end where a piece is a space alone. Where one character (such as ½) becomes several pieces, each has that
    character.
    """
    ...

  def decode(self, ids: Iterable[int]) -> str:
    """The text of the ids, without <s>, <pad> and </s>; mask_id becomes "<mask>"."""
    ...

  def piece(self, id: int) -> str:
    """The piece that has this id, with "▁" for a space. Raises IndexError outside [0, size)."""
    ...


def open_tokenizer(path: str | os.PathLike, model: bytes | None = None) -> Tokenizer:
  """Opens a SentencePiece model, or a tokenizer.json of the tokenizers library with a unigram, BPE or WordPiece.

  model: the content of the file, for a vocabulary that lies in no file; `path` then only appears in messages.
  Raises UserError: there is no such file, it holds neither kind, or its special pieces have other ids.
  """
  if model is None:
    try:
      model = read_bytes(path)
    except OSError as error:
      raise UserError(f"{path}: no vocabulary ({error.strerror or 'no such file'}); name a .model file") from error
  return _json_tokenizer(path, model) if model[:1] == b"{" else SentencePieceTokenizer(path, model)


_OPENED: dict[bytes, JsonTokenizer] = {}  # the last two, by their contents


def _json_tokenizer(path: str | os.PathLike, model: bytes) -> JsonTokenizer:
  """A JsonTokenizer, taken again where the content is that of one before, or differs in the rows of the embedding alone.

  A command opens a folder more than once, and the library takes seconds for 250,000 pieces.
  """
  content, rows = split_rows(model)
  opened = _OPENED.pop(content, None) or JsonTokenizer(path, content)
  while len(_OPENED) > 1:
    del _OPENED[next(iter(_OPENED))]
  _OPENED[content] = opened
  return opened.of_file(path, model, rows) if rows or opened.path != any_path(path) else opened


def encode_words(tokenizer: Tokenizer, words: list[str]) -> list[np.ndarray]:
  """The ids of each word as it stands behind a space, int32[n]. Many vocabularies put that space before any text."""
  alone = tokenizer.encode_lines(words)
  if not words or any("▁" in tokenizer.piece(id) for id in tokenizer.encode_lines(["a"])[0]):
    return alone
  found = []
  for own, (ids, starts, ends) in zip(alone, tokenizer.encode_with_offsets([f"a {word}" for word in words])):
    # A vocabulary whose pieces reach over spaces may join the two words, and of a word nothing may be left but the space.
    found.append(own if not len(own) or np.any((starts < 2) & (ends > 1)) else ids[starts >= 2])
  return found
