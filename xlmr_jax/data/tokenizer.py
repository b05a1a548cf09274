"""XLM-R's ids over a SentencePiece model. Owns the id layout; nothing else knows SentencePiece's own.

SentencePiece puts <unk>, <s>, </s> at 0, 1, 2. XLM-R puts <s>, <pad>, </s>, <unk> at 0..3 and <mask> last, so
every real piece moves up by one (fairseq: data/dictionary.py, tasks/multilingual_masked_lm.py).
"""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from xlmr_jax.errors import UserError

BOS, PAD, EOS, UNK, FIRST_PIECE = 0, 1, 2, 3, 4
_SPECIALS = {BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>"}
_SENTENCEPIECE_FIRST = ["<unk>", "<s>", "</s>"]
# What SentencePiece's nmt_nfkc makes a space or nothing of. A piece begins with the space before it.
_BLANK = "".join(c for c in map(chr, range(0x3001)) if c.isspace() or c < " " or "\x7f" <= c < "\xa0")
_BLANK += "\u200b\u200c\u200d\u200e\u200f\u2581\ufeff\ufffd"
MASK = "<mask>"
# Messages that, put behind a model, change its normaliser (protobuf merges them): no space is put before the text, and,
# in the second, none is taken away either.
_NO_PREFIX, _AS_IT_IS = b"\x1a\x02\x18\x00", b"\x1a\x04\x18\x00\x20\x00"


def read_model(path: str | Path) -> bytes:
  """The file of a vocabulary. UserError: there is none."""
  try:
    return Path(path).read_bytes()
  except OSError as error:
    raise UserError(f"{path}: no vocabulary ({error.strerror}); name a .model file") from error


class Tokenizer:
  """Text to ids and back. `size` counts <pad> and <mask>; real pieces are ids FIRST_PIECE..mask_id - 1.

  RoBERTa's byte-level vocabulary has the same ids for the same specials: a tokenizer.json makes a ByteLevelTokenizer.
  """

  def __new__(cls, path: str | Path, model: bytes | None = None):
    if (read_model(path) if model is None else model)[:1] == b"{":
      from xlmr_jax.data.byte_level import ByteLevelTokenizer

      cls = ByteLevelTokenizer
    return super().__new__(cls)

  def __init__(self, path: str | Path, model: bytes | None = None):
    """model: what path would hold, where it does not. UserError: no such file, no SentencePiece model, or another layout
    of its first three pieces.
    """
    model = read_model(path) if model is None else model
    self.model = model
    try:
      self._processor = _processor(model)
      first = [self._processor.IdToPiece(i) for i in range(min(3, self._processor.GetPieceSize()))]
    except (RuntimeError, ValueError, IndexError) as error:
      raise UserError(f"{path}: no SentencePiece model; see xlmr_jax.corpus.vocabulary") from error
    if first != _SENTENCEPIECE_FIRST:
      raise UserError(
        f"{path}: the first three pieces are {first}, not {_SENTENCEPIECE_FIRST}; "
        "train with unk_id=0, bos_id=1, eos_id=2 and no pad"
      )
    self.path = Path(path)
    self.sha256 = hashlib.sha256(model).hexdigest()
    self.size = self._processor.GetPieceSize() + 2
    self.mask_id = self.size - 1

  def encode(self, text: str) -> list[int]:
    """`<s> text </s>` as ids."""
    return [BOS, *self.encode_lines([text])[0].tolist(), EOS]

  def encode_lines(self, lines: list[str], threads: int = 1) -> list[np.ndarray]:
    """Ids of each line, int32[n], without <s> and </s>; one call into C++ for all of them."""
    if not lines:
      return []
    encoded = self._processor.Encode(lines, out_type="numpy", num_threads=threads)
    # Encoding text yields pieces and <unk> only: SentencePiece never emits its control pieces 1 and 2.
    ids = np.concatenate(encoded) + np.int32(1)
    ids[ids == 1] = UNK
    ends = np.cumsum([line.size for line in encoded]).tolist()
    return [ids[end - line.size : end] for line, end in zip(encoded, ends)]

  def encode_masked(self, text: str) -> list[int]:
    """`<s> text </s>` as ids, each "<mask>" in it the mask's. The space before a mask belongs to what it hides.

    Behind a mask there is a space only where the text has one: Thai and Chinese have none, nor has a comma.
    """
    first, *others = text.split(MASK)
    ids = self.encode_lines([first])[0].tolist()
    for part in others:
      ids += [self.mask_id, *self._encode_behind(part)]
    return [BOS, *ids, EOS]

  def _encode_behind(self, part: str) -> list[int]:
    """Ids of a text that goes on from something."""
    begins_with_space = _processor(self.model + _AS_IT_IS).Normalize(part).startswith("▁")
    processor = self._processor if begins_with_space else _processor(self.model + _NO_PREFIX)
    return [UNK if id == 0 else id + 1 for id in processor.Encode(part)]

  def encode_with_offsets(self, texts: list[str], threads: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, starts, ends) of each text, int32[n]: encode_lines' ids, and text[start:end] is what a piece stands for.

    Offsets count characters (as str does) of the text itself, before normalisation, without blanks at either end;
    start == end where a piece is a space alone. Several pieces made of one character (½) each have that character.
    """
    if not texts:
      return []
    result = []
    for text, found in zip(texts, self._processor.Encode(texts, return_type="offset_mapping", num_threads=threads)):
      spans = []
      for piece, (start, end) in zip(found["pieces"], found["offsets"]):
        first = end - len(text[start:end].lstrip(_BLANK))
        last = first + len(text[first:end].rstrip(_BLANK))
        # SentencePiece gives a character that becomes several pieces to the last of them alone.
        spans.append((end, end + 1) if first == last and piece != "▁" and end < len(text) else (first, last))
      ids = np.array(found["ids"], np.int32) + 1
      ids[ids == 1] = UNK
      starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
      result.append((ids, starts, ends))
    return result

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the ids: <s>, <pad>, </s> dropped, <mask> kept as "<mask>"."""
    pieces = [self.piece(i) for i in ids if i not in (BOS, PAD, EOS)]
    return self._processor.DecodePieces(pieces)  # a piece it does not know (<mask>) passes through

  def piece(self, id: int) -> str:
    """The piece with this id, "▁" standing for a space. Raises IndexError outside [0, size)."""
    id = int(id)
    if not 0 <= id < self.size:
      raise IndexError(f"id {id} is outside the vocabulary of {self.size}")
    if id == self.mask_id:
      return MASK
    return _SPECIALS.get(id) or self._processor.IdToPiece(id - 1)


@functools.lru_cache(3)  # XLM-R's takes half a second; a text with masks needs a vocabulary in three ways
def _processor(model: bytes):
  import sentencepiece  # what else is in this file stays importable without it

  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(model)
  return processor
