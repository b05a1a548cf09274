"""RoBERTa's byte-level BPE, read from a tokenizer.json of Hugging Face's tokenizers.

Its special pieces must have XLM-R's ids (<s>, <pad>, </s>, <unk> first, <mask> last), so that the rest of the code need not
know which kind of vocabulary it has.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, MASK, PAD, UNK, mask_id


class ByteLevelTokenizer:
  """A Tokenizer over a tokenizer.json; data/tokenizer.py describes its methods.

  A piece includes the space before a word. Byte-level BPE writes that space as "Ġ"; piece() shows it as "▁".
  """

  def __init__(self, path: str | Path, model: bytes):
    """Raises UserError: `model` holds no byte-level BPE, or its special pieces have other ids."""
    try:
      import tokenizers
    except ImportError:
      raise UserError(f"{path}: a byte-level vocabulary needs `pip install 'xlmr_jax[evaluate]'`") from None

    try:
      kind = json.loads(model)["model"].get("type", "BPE")  # Older files name no type.
      self._backend = tokenizers.Tokenizer.from_str(model.decode())
    except Exception as error:  # tokenizers raises plain Exception.
      raise UserError(f"{path}: no tokenizer.json that can be read ({str(error).splitlines()[0]})") from None
    if kind != "BPE" or not isinstance(self._backend.pre_tokenizer, tokenizers.pre_tokenizers.ByteLevel):
      raise UserError(f"{path}: a tokenizer.json of {kind}, not of RoBERTa's byte-level BPE")
    self.path, self.model = Path(path), model
    self.sha256 = hashlib.sha256(model).hexdigest()
    self.size: int = self._backend.get_vocab_size()
    self.mask_id = mask_id(self.size)
    wanted = {"<s>": BOS, "<pad>": PAD, "</s>": EOS, "<unk>": UNK, MASK: self.mask_id}
    for piece, id in wanted.items():
      if (found := self._backend.token_to_id(piece)) != id:
        raise UserError(f"{path}: {piece} has id {found}, not {id} as in RoBERTa and XLM-R")
    self._backend.no_truncation()
    self._backend.no_padding()
    self._backend.encode_special_tokens = True  # "<s>" in a text is plain text, as it is for SentencePiece.

  def encode(self, text: str) -> list[int]:
    """`<s> text </s>` as ids."""
    return [BOS, *self.encode_lines([text])[0].tolist(), EOS]

  def encode_lines(self, lines: list[str], threads: int = 1) -> list[np.ndarray]:
    """The ids of each line, int32[n], without <s> and </s>. `threads` is ignored: the backend uses all cores."""
    return [np.array(encoded.ids, np.int32) for encoded in self._backend.encode_batch(lines, add_special_tokens=False)]

  def encode_masked(self, text: str) -> list[int]:
    """`<s> text </s>` as ids, where each "<mask>" in the text becomes mask_id."""
    *before_masks, last = text.split(MASK)
    first, *others = self.encode_lines([*(part.rstrip() for part in before_masks), last])
    return [BOS, *first.tolist(), *(id for ids in others for id in (self.mask_id, *ids.tolist())), EOS]

  def encode_with_offsets(self, texts: list[str], threads: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, starts, ends) of each text, int32[n] each: a piece stands for text[start:end]."""
    result = []
    for text, encoded in zip(texts, self._backend.encode_batch(texts, add_special_tokens=False)):
      spans = []
      for start, end in encoded.offsets:
        first = end - len(text[start:end].lstrip())
        spans.append((first, first + len(text[first:end].rstrip())))
      starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
      result.append((np.array(encoded.ids, np.int32), starts, ends))
    return result

  def decode(self, ids: Iterable[int]) -> str:
    """The text of the ids, without <s>, <pad> and </s>; mask_id becomes "<mask>"."""
    runs: list[list[int]] = [
      []
    ]  # A character may need several pieces, so that the ids between two masks are decoded at once.
    for id in map(int, ids):
      if id == self.mask_id:
        runs.append([])
      elif id not in (BOS, PAD, EOS):
        runs[-1].append(id)
    return MASK.join(self._backend.decode(run, skip_special_tokens=False) for run in runs)

  def piece(self, id: int) -> str:
    """The piece that has this id, with "▁" for a space. Raises IndexError outside [0, size)."""
    if not 0 <= int(id) < self.size:
      raise IndexError(f"id {id} is outside the vocabulary of {self.size}")
    return (self._backend.id_to_token(int(id)) or "").replace("Ġ", "▁")
