"""RoBERTa's byte-level BPE as a vocabulary: a tokenizer.json of Hugging Face's tokenizers, behind Tokenizer's methods.

Its specials have XLM-R's ids (<s>, <pad>, </s>, <unk> first, <mask> last), so that nothing else has to know.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from xlmr_jax.data import tokenizer as base
from xlmr_jax.data.tokenizer import BOS, EOS, MASK, PAD, UNK, Tokenizer
from xlmr_jax.errors import UserError


class ByteLevelTokenizer(Tokenizer):
  """A Tokenizer over a tokenizer.json. A space before a word belongs to its piece; its letter for it is shown as "▁"."""

  def __init__(self, path: str | Path, model: bytes | None = None):
    """UserError: no such file, no byte-level BPE, or other ids of the specials."""
    try:
      import tokenizers
    except ImportError:
      raise UserError(f"{path}: a byte-level vocabulary needs `pip install tokenizers`") from None

    model = base.read_model(path) if model is None else model
    try:
      kind = json.loads(model)["model"].get("type", "BPE")  # older files name no type
      self._backend = tokenizers.Tokenizer.from_str(model.decode())
    except Exception as error:  # tokenizers raises Exception itself
      raise UserError(f"{path}: no tokenizer.json that can be read ({str(error).splitlines()[0]})") from None
    if kind != "BPE" or not isinstance(self._backend.pre_tokenizer, tokenizers.pre_tokenizers.ByteLevel):
      raise UserError(f"{path}: a tokenizer.json of {kind}, not of RoBERTa's byte-level BPE")
    self.path, self.model = Path(path), model
    self.sha256 = hashlib.sha256(model).hexdigest()
    self.size = self._backend.get_vocab_size()
    self.mask_id = self.size - 1
    wanted = {"<s>": BOS, "<pad>": PAD, "</s>": EOS, "<unk>": UNK, MASK: self.mask_id}
    for piece, id in wanted.items():
      if (found := self._backend.token_to_id(piece)) != id:
        raise UserError(f"{path}: {piece} has id {found}, not {id} as in RoBERTa and XLM-R")
    self._backend.no_truncation()
    self._backend.no_padding()
    self._backend.encode_special_tokens = True  # "<s>" in a text is text, as SentencePiece has it

  def encode_lines(self, lines: list[str], threads: int = 1) -> list[np.ndarray]:
    return [np.array(of.ids, np.int32) for of in self._backend.encode_batch(lines, add_special_tokens=False)]

  def _encode_behind(self, part: str) -> list[int]:
    return self.encode_lines([part])[0].tolist()  # no space is put before a text to begin with

  def encode_masked(self, text: str) -> list[int]:
    before = [part.rstrip() for part in text.split(MASK)[:-1]]  # the space before a mask is the mask's
    return super().encode_masked(MASK.join([*before, text.split(MASK)[-1]]))

  def encode_with_offsets(self, texts: list[str], threads: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    result = []
    for text, of in zip(texts, self._backend.encode_batch(texts, add_special_tokens=False)):
      spans = []
      for start, end in of.offsets:
        first = end - len(text[start:end].lstrip())
        spans.append((first, first + len(text[first:end].rstrip())))
      starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
      result.append((np.array(of.ids, np.int32), starts, ends))
    return result

  def decode(self, ids: Iterable[int]) -> str:
    runs, text = [[]], []
    for id in map(int, ids):
      if id == self.mask_id:
        runs += [None, []]
      elif id not in (BOS, PAD, EOS):
        runs[-1].append(id)
    for run in runs:
      text.append(MASK if run is None else self._backend.decode(run, skip_special_tokens=False))
    return "".join(text)

  def piece(self, id: int) -> str:
    if not 0 <= int(id) < self.size:
      raise IndexError(f"id {id} is outside the vocabulary of {self.size}")
    return self._backend.id_to_token(int(id)).replace("Ġ", "▁")
