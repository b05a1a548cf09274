"""A SentencePiece model behind XLM-R's ids.

SentencePiece puts <unk>, <s> and </s> at 0, 1 and 2. XLM-R puts <s>, <pad>, </s> and <unk> at 0 to 3 and <mask> last, so
every real piece moves up by one (fairseq: data/dictionary.py, tasks/multilingual_masked_lm.py).
"""

import functools
import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from xlmr_jax.data import masked_text, sentencepiece_file
from xlmr_jax.data.protobuf import bytes_field
from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE, MASK, MOST_ENTRIES, PAD, SPECIAL_IDS, UNK, mask_id

_SPECIALS = {BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>"}
_SENTENCEPIECE_FIRST = ["<unk>", "<s>", "</s>"]
# The characters that SentencePiece's nmt_nfkc turns into a space or removes. A piece begins with the space before it.
_BLANK = "".join(c for c in map(chr, range(0x3001)) if c.isspace() or c < " " or "\x7f" <= c < "\xa0")
_BLANK += "\u200b\u200c\u200d\u200e\u200f\u2581\ufeff\ufffd"
# The last field of a model whose embedding has more rows than the model has pieces. SentencePiece leaves the numbers from
# 200 on to its users, and skips them.
_ROWS = bytes_field(201, b"xlmr_jax rows %010d" % 0)[:-10]


class SentencePieceTokenizer:
  """A Tokenizer over a SentencePiece model; data/tokenizer.py describes its methods."""

  separators: int = 2
  specials: tuple[int, ...] = SPECIAL_IDS

  def __init__(self, path: str | os.PathLike, model: bytes):
    """Raises UserError: `model` is no SentencePiece model, or its first three pieces are in another order."""
    try:
      self._processor = _processor(model)
      # All pieces are looked at, because each must be UTF-8.
      first = self._processor.IdToPiece(list(range(self._processor.GetPieceSize())))[:3]
    except (RuntimeError, ValueError, IndexError) as error:
      raise UserError(f"{path}: no SentencePiece model; `xlmr train_vocabulary` makes one") from error
    if first != _SENTENCEPIECE_FIRST:
      raise UserError(
        f"{path}: the first three pieces are {first}, not {_SENTENCEPIECE_FIRST}; "
        "train with unk_id=0, bos_id=1, eos_id=2 and no pad"
      )
    self.path, self.model = any_path(path), model
    self.sha256 = hashlib.sha256(model).hexdigest()
    self.mask_id = mask_id(self._processor.GetPieceSize() + 2)
    self.size: int = _rows_of(path, model) or self.mask_id + 1
    if not self.mask_id < self.size <= MOST_ENTRIES:
      raise UserError(f"{path}: {self.size} rows of a padded embedding for {self.mask_id + 1} entries; it must be at least "
                      f"as many, and at most {MOST_ENTRIES}")  # fmt: skip

  @property
  def replacements(self) -> np.ndarray:
    """The ids of the real pieces, int32[n]: control pieces and unused ones are none."""
    return self._replacements

  @functools.cached_property
  def _replacements(self) -> np.ndarray:
    pieces = list(range(FIRST_PIECE - 1, self._processor.GetPieceSize()))
    unreal = np.array(self._processor.IsControl(pieces)) | np.array(self._processor.IsUnused(pieces))
    return (np.array(pieces)[~unreal.astype(bool)] + 1).astype(np.int32)

  def encode(self, text: str) -> list[int]:
    """`<s> text </s>` as ids."""
    return [BOS, *self.encode_lines([text])[0].tolist(), EOS]

  def encode_lines(self, lines: list[str], threads: int = 1) -> list[np.ndarray]:
    """The ids of each line, int32[n], without <s> and </s>; one call into C++ encodes all of them."""
    if not lines:
      return []
    encoded = self._processor.Encode(lines, out_type="numpy", num_threads=threads)
    # Encoding text yields pieces and <unk> only: SentencePiece never emits its control pieces 1 and 2.
    ids = np.concatenate(encoded) + np.int32(1)
    ids[ids == 1] = UNK
    ends = np.cumsum([line.size for line in encoded]).tolist()
    return [ids[end - line.size : end] for line, end in zip(encoded, ends)]

  def encode_masked(self, text: str) -> list[int]:
    """`<s> text </s>` as ids, where each "<mask>" in the text becomes mask_id."""
    if MASK not in text:
      return self.encode(text)
    letters, suffix = self._letters_and_suffix
    return masked_text.encode_masked(text, self.encode_with_offsets, self.mask_id, letters, _BLANK, suffix)

  @functools.cached_property
  def _letters_and_suffix(self) -> tuple[list[str], bool]:
    """(letters that may stand for a mask, whether the space behind a word belongs to its pieces)."""
    vocabulary = sentencepiece_file.parse(self.model)
    pieces = sorted((-score, text) for text, score, kind in vocabulary.pieces if kind == sentencepiece_file.NORMAL)
    return masked_text.letters_of(text for _, text in pieces), vocabulary.treat_whitespace_as_suffix

  def encode_with_offsets(self, texts: list[str], threads: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, starts, ends) of each text, int32[n] each: a piece stands for text[start:end]."""
    if not texts:
      return []
    result = []
    for text, found in zip(texts, self._processor.Encode(texts, return_type="offset_mapping", num_threads=threads)):
      spans = []
      for piece, (start, end) in zip(found["pieces"], found["offsets"]):
        first = end - len(text[start:end].lstrip(_BLANK))
        last = first + len(text[first:end].rstrip(_BLANK))
        # Of the pieces that one character became, SentencePiece gives the character to the last alone.
        spans.append((end, end + 1) if first == last and piece != "▁" and end < len(text) else (first, last))
      ids = np.array(found["ids"], np.int32) + 1
      ids[ids == 1] = UNK
      starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
      result.append((ids, starts, ends))
    return result

  def decode(self, ids: Iterable[int]) -> str:
    """The text of the ids, without <s>, <pad> and </s>; mask_id becomes "<mask>"."""
    pieces = [self.piece(i) for i in ids if i not in (BOS, PAD, EOS)]
    return self._processor.DecodePieces(pieces)  # SentencePiece does not know <mask>, and passes it through.

  def piece(self, id: int) -> str:
    """The piece that has this id, with "▁" for a space. Raises IndexError outside [0, size)."""
    id = int(id)
    if not 0 <= id < self.size:
      raise IndexError(f"id {id} is outside the vocabulary of {self.size}")
    if id >= self.mask_id:
      return MASK if id == self.mask_id else ""
    return _SPECIALS.get(id) or self._processor.IdToPiece(id - 1)


def with_rows(model: bytes, rows: int) -> bytes:
  """The model for an embedding of so many rows, more than its entries; the last ones belong to no piece."""
  return model + _ROWS + b"%010d" % rows


def _rows_of(path: str | os.PathLike, model: bytes) -> int:
  """The number that with_rows() put at the end of a model; 0 if there is none. UserError: it is damaged."""
  rows = model[-10:]
  if not model[:-10].endswith(_ROWS):
    return 0
  if not rows.isdigit():  # of ASCII, as bytes are
    raise UserError(f"{path}: ends with {rows!r}, which is no number of rows of a padded embedding; the file is damaged, "
                    "restore it")  # fmt: skip
  return int(rows)


def without_rows(model: bytes) -> bytes:
  """The model as it was before with_rows."""
  return model[: -len(_ROWS) - 10] if model[:-10].endswith(_ROWS) else model


@functools.lru_cache(1)  # XLM-R's takes half a second to load.
def _processor(model: bytes) -> Any:
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(model)
  return processor
