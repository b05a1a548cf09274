"""A tokenizer.json of Hugging Face's tokenizers library, run by that library with every step that it names.

Its special pieces have XLM-R's names and ids, or BERT's names and any ids: then a few ids change places (ids.moved_ids). The
mask may be anywhere.
"""

import copy
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.data import masked_text
from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path, parse_json
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE, MASK, MOST_ENTRIES, PAD, SPECIAL_IDS, UNK, moved_ids


class Layout(NamedTuple):
  """What a file calls its special pieces, and how many of `eos` stand between the two texts of a pair."""

  bos: str
  pad: str
  eos: str
  unk: str
  mask: str
  separators: int

  @property
  def names(self) -> tuple[str, ...]:
    """The names, in the order of ids.SPECIAL_IDS, and the mask's."""
    return self[:5]


XLMR = Layout("<s>", "<pad>", "</s>", "<unk>", MASK, 2)
BERT = Layout("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", 1)
SPECIALS = dict(zip(XLMR.names, SPECIAL_IDS))
# The key of the file that says how many rows the embedding has where they are more than the entries. It is ours:
# the tokenizers library refuses a file with a key that it does not know.
ROWS = "xlmr_jax_rows"
_HIDE = "\ufdd0"  # a code point that Unicode keeps out of texts


class JsonTokenizer:
  """A Tokenizer over a tokenizer.json; data/tokenizer.py describes its methods.

  A piece includes the space before a word, if the file's steps keep spaces at all. Byte-level BPE writes that space as "Ġ";
  piece() shows it as "▁".
  """

  def __init__(self, path: str | os.PathLike, model: bytes):
    """Raises UserError naming the step or the piece: the file cannot be read, or it holds what we cannot do as it says."""
    try:
      whole = parse_json(model)
      rows = int(whole.pop(ROWS, 0))
      model_part = whole["model"]
      # Older files name no type, and the library would try one after the other. A unigram's vocabulary is a list.
      model_part.setdefault("type", "Unigram" if isinstance(model_part.get("vocab"), list) else "BPE")
      self.layout = layout_of(model_part)
      _refuse_model(path, model_part["type"], model_part, self.layout)
      self._continued = model_part.get("continuing_subword_prefix", "##") if model_part["type"] == "WordPiece" else None
      whole["decoder"] = decoder_of(whole)
      self._steps = list(_steps(whole))
      special = {token["content"] for token in whole.get("added_tokens") or () if token["special"]}
      as_we_run_it = _without_names(whole, self.layout)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
      raise UserError(f"{path}: no tokenizer.json that can be read ({error!r})") from None
    self._backend = library_tokenizer(path, as_we_run_it)
    in_file: dict[str, int] = {_named(piece): id for piece, id in self._backend.get_vocab().items()}
    self.specials = _special_ids(path, in_file, self.layout)
    self.separators = self.layout.separators
    self.path, self.model = any_path(path), model
    self.sha256 = hashlib.sha256(model).hexdigest()
    self.size: int = _checked_size(path, max(rows, max(in_file.values()) + 1))
    self._theirs = moved_ids(self.specials)  # our id -> the file's, where they differ
    self._ours = {theirs: ours for ours, theirs in self._theirs.items()}
    self._entries: dict[str, int] = {piece: self._ours.get(id, id) for piece, id in in_file.items()}
    self.mask_id: int = self._entries[self.layout.mask]
    special_ids = {self._entries[piece] for piece in special if piece in self._entries}
    ids = {id for id in self._entries.values() if id >= FIRST_PIECE} - special_ids - {self.mask_id}
    self._replacements = np.array(sorted(ids), np.int32)
    _refuse_post_processor(path, self._backend, self.specials)

  def of_file(self, path: str | os.PathLike, model: bytes, rows: int) -> "JsonTokenizer":
    """The same tokenizer with another path, and with the content `model`, which differs in its number of rows alone."""
    other = copy.copy(self)
    other.path, other.model, other.sha256 = any_path(path), model, hashlib.sha256(model).hexdigest()
    other.size = _checked_size(path, max(rows, self.size))
    return other

  @property
  def replacements(self) -> np.ndarray:
    """The ids of the real pieces, int32[n]: special tokens are none, and neither are rows without an entry."""
    return self._replacements

  def encode(self, text: str) -> list[int]:
    """`<s> text </s>` as ids."""
    return [BOS, *self.encode_lines([text])[0].tolist(), EOS]

  def encode_lines(self, lines: list[str], threads: int = 1) -> list[np.ndarray]:
    """The ids of each line, int32[n], without <s> and </s>. `threads` is ignored: the backend uses all cores."""
    return [self._to_ours(encoded.ids) for encoded in self._backend.encode_batch(lines, add_special_tokens=False)]

  def _to_ours(self, ids: list[int]) -> np.ndarray:
    """Ids of the file as ours, int32[n]."""
    theirs = np.array(ids, np.int32)
    ours = theirs.copy()
    for from_id, to_id in self._ours.items():
      ours[theirs == from_id] = to_id
    return ours

  def encode_masked(self, text: str) -> list[int]:
    """`<s> text </s>` as ids, where each "<mask>" in the text becomes mask_id; so does a "[MASK]" of BERT's.

    A WordPiece begins a word behind a mask, as in transformers. Its pieces would otherwise be those of one word that goes
    on over the mask, of which all may be unknown.
    """
    text = text.replace(self.layout.mask, MASK)
    if self._continued is not None:
      first, *others = self.encode_lines(text.split(MASK))
      return [BOS, *first.tolist(), *(id for ids in others for id in (self.mask_id, *ids.tolist())), EOS]
    return masked_text.encode_masked(text, self.encode_with_offsets, self.mask_id, self._letters)

  @functools.cached_property
  def _letters(self) -> list[str]:
    # The pieces of byte-level BPE are bytes under other names, of which only those of ASCII are what they look like.
    pieces = (piece.replace(self._space, "▁") for piece, _ in sorted(self._entries.items(), key=lambda entry: entry[1]))
    return masked_text.letters_of(piece for piece in pieces if self._space != "Ġ" or piece.strip("▁").isascii())

  @functools.cached_property
  def _space(self) -> str:
    """What stands for a space in a piece."""
    if any(step["type"] == "ByteLevel" for step in self._steps):
      return "Ġ"
    return next((step["replacement"] for step in self._steps if step["type"] == "Metaspace"), "▁")

  def encode_with_offsets(self, texts: list[str], threads: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, starts, ends) of each text, int32[n] each: a piece stands for text[start:end]."""
    result = []
    for text, encoded in zip(texts, self._backend.encode_batch(texts, add_special_tokens=False)):
      spans = []
      for piece, (start, end) in zip(encoded.tokens, encoded.offsets):
        first = end - len(text[start:end].lstrip())
        last = first + len(text[first:end].rstrip())
        # A space that a step puts before a word has the place of the word's first letter.
        is_prefix = first < last and not piece.strip(self._space)
        spans.append((first, first if is_prefix else last))
      starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
      result.append((self._to_ours(encoded.ids), starts, ends))
    return result

  def decode(self, ids: Iterable[int]) -> str:
    """The text of the ids, without <s>, <pad> and </s>; mask_id becomes "<mask>"."""
    runs: list[list[int]] = [[]]  # A character may need several pieces, so the ids between two masks are decoded at once.
    for id in map(int, ids):
      if id == self.mask_id:
        runs.append([])
      elif id not in (BOS, PAD, EOS):
        runs[-1].append(self._theirs.get(id, id))
    # Decoders drop the space before the first word. Behind a mask it belongs to the text, so a letter goes in front.
    letter = next((letter for letter in self._letters if letter in self._entries), "")
    front = [self._theirs.get(self._entries[letter], self._entries[letter])] if letter else []
    texts = [self._backend.decode([*front, *run], skip_special_tokens=False).removeprefix(letter) for run in runs[1:]]
    return _named(MASK.join([self._backend.decode(runs[0], skip_special_tokens=False), *texts]))

  def piece(self, id: int) -> str:
    """The piece that has this id, with "▁" for a space. Raises IndexError outside [0, size).

    A WordPiece has the "▁" where it begins a word, as punctuation and Chinese characters do, and where it does not, no "##".
    """
    if not 0 <= int(id) < self.size:
      raise IndexError(f"id {id} is outside the vocabulary of {self.size}")
    piece = _named(self._backend.id_to_token(self._theirs.get(int(id), int(id))) or "")
    if self._continued is None:
      return piece.replace(self._space, "▁")
    if not piece or piece in self.layout.names:
      return piece
    is_continued = piece.startswith(self._continued) and piece != self._continued
    return piece.removeprefix(self._continued) if is_continued else f"▁{piece}"


def _checked_size(path: str | os.PathLike, size: int) -> int:
  if size > MOST_ENTRIES:
    raise UserError(f"{path}: an id or a number of rows of {size}; ids lie below {MOST_ENTRIES}")
  return size


def with_rows(model: bytes, rows: int) -> bytes:
  """The content of a tokenizer.json for an embedding of so many rows, more than its entries. Its other bytes stay."""
  return b'{"%s": %d, ' % (ROWS.encode(), rows) + model[1:]


def split_rows(model: bytes) -> tuple[bytes, int]:
  """(the content as it was before with_rows(), its number of rows); (the content, 0) if it has none in this place."""
  found = re.match(rb'\{"%s": (\d{1,10}), ' % ROWS.encode(), model)
  return (b"{" + model[found.end() :], int(found[1])) if found else (model, 0)


def layout_of(model: dict) -> Layout:
  """What the special pieces of a file's model are called: BERT's names where it has them, and not XLM-R's."""
  vocabulary = model.get("vocab") or {}
  pieces = vocabulary if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
  return BERT if BERT.bos in pieces and XLMR.bos not in pieces else XLMR


def _special_ids(path: str | os.PathLike, entries: dict[str, int], layout: Layout) -> tuple[int, ...]:
  """The ids of <s>, <pad>, </s> and <unk> in a file. UserError: one is missing, or elsewhere under XLM-R's names."""
  found = {piece: entries.get(piece) for piece in layout.names}
  if layout is XLMR:
    for piece, id in SPECIALS.items():
      if found[piece] != id:
        raise UserError(f"{path}: {piece} has id {found[piece]}, not {id} as in RoBERTa and XLM-R")
    if (found[MASK] or 0) < FIRST_PIECE:
      raise UserError(f"{path}: {MASK} has id {found[MASK]}; it must be an entry of its own behind <unk>")
  missing = [piece for piece, id in found.items() if id is None]
  if missing:
    raise UserError(f"{path}: the vocabulary has no {', '.join(missing)}; BERT's has {', '.join(layout.names)}")
  return tuple(entries[piece] for piece in layout.names[:4])


def library_tokenizer(path: str | os.PathLike, whole: dict) -> Any:
  """The tokenizers.Tokenizer of a tokenizer.json. UserError: the library is missing, or cannot read or run the file."""
  try:
    import tokenizers
  except ImportError:
    raise UserError(f"{path}: Hugging Face's tokenizers are needed; pip install 'xlmr_jax[evaluate]'") from None

  try:
    backend = tokenizers.Tokenizer.from_str(json.dumps(whole, ensure_ascii=False))
    for texts in ("a", ("a", "b")):  # Some faults show only here.
      backend.encode_batch([texts])
    return backend
  except (KeyboardInterrupt, SystemExit):
    raise
  except BaseException as error:  # The library raises plain Exception and, where its own code fails, what is none.
    raise UserError(f"{path}: no tokenizer.json that can be read ({(str(error).splitlines() or ['?'])[0]})") from None


def decoder_of(whole: dict) -> dict | None:
  """The file's decoder; where it has none, the one that undoes what its steps do to spaces."""
  steps = {step["type"]: step for step in _steps(whole)}
  if whole["model"].get("type") == "WordPiece":
    prefix = whole["model"].get("continuing_subword_prefix", "##")
    return whole.get("decoder") or {"type": "WordPiece", "prefix": prefix, "cleanup": True}
  return whole.get("decoder") or steps.get("Metaspace") or steps.get("ByteLevel")


def _steps(whole: dict) -> Iterable[dict]:
  """The steps of a file, those inside a Sequence too."""
  waiting = [whole.get("normalizer"), whole.get("pre_tokenizer")]
  while waiting:
    step = waiting.pop(0)
    if step:
      yield step
      waiting += step.get("normalizers", []) + step.get("pretokenizers", [])


def _without_names(whole: dict, layout: Layout) -> dict:
  """The file as we run it: the layout's special pieces have names that no text holds, so that "<s>" in a text is plain text.

  Otherwise the library finds them, as special tokens or as pieces of a unigram. It does find the tokens that a user added.
  """

  def renamed(piece: Any) -> Any:
    return _HIDE + piece if piece in layout.names else piece

  model, tokens = whole["model"], whole.get("added_tokens") or []
  vocabulary = model["vocab"]
  changes = {"vocab": {renamed(piece): id for piece, id in vocabulary.items()} if isinstance(vocabulary, dict) else
             [[renamed(piece), score] for piece, score in vocabulary]}  # fmt: skip
  if model.get("unk_token"):
    changes["unk_token"] = renamed(model["unk_token"])
  tokens = [token | {"content": renamed(token["content"])} for token in tokens]
  return whole | {"model": model | changes, "added_tokens": tokens, "truncation": None, "padding": None}


def _named(text: str) -> str:
  """A text of the library with the special pieces under their own names."""
  return text.replace(_HIDE, "")


def _refuse_model(path: str | os.PathLike, kind: str, model: dict, layout: Layout) -> None:
  """UserError for a model whose ids would be others each time, or whose unknown pieces are not the layout's."""
  if kind not in ("Unigram", "BPE", "WordPiece"):
    raise UserError(
      f"{path}: a tokenizer of kind {kind}; it must be a unigram such as XLM-R's, a BPE such as RoBERTa's, or a WordPiece "
      "such as BERT's"
    )
  if model.get("dropout"):
    raise UserError(f"{path}: model.dropout={model['dropout']} cuts a text otherwise each time; set it to null")
  if kind == "Unigram":
    named, id = f"unk_id={model.get('unk_id')}", model.get("unk_id")
    # Under XLM-R's names, where <unk> is in the vocabulary is seen later.
    unknown = model["vocab"][id : id + 1] if isinstance(id, int) and id >= 0 else []
    is_ours = id == UNK if layout is XLMR else [piece for piece, _ in unknown] == [layout.unk]
  else:
    named = f"unk_token={model.get('unk_token')!r}"
    is_ours = (model.get("unk_token") or layout.unk) == layout.unk
  if not is_ours:
    id = f", which has id {UNK}" if layout is XLMR else ""
    raise UserError(f"{path}: model.{named}; it must be {layout.unk}{id}")


def _refuse_post_processor(path: str | os.PathLike, backend: Any, specials: tuple[int, ...]) -> None:
  """UserError for a post-processor that makes something else than `<s> text </s>`. Without one, we add <s> and </s>."""
  plain, whole = (backend.encode("a", add_special_tokens=add).ids for add in (False, True))
  if whole not in (plain, [specials[BOS], *plain, specials[EOS]]):
    tokens = " ".join(backend.encode("a").tokens)
    raise UserError(f"{path}: the post_processor makes {tokens!r} of the text 'a'; it must make '<s> ... </s>'")
