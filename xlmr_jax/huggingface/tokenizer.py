"""Reads and writes the vocabularies of Hugging Face folders: SentencePiece's, or RoBERTa's byte-level BPE.

Of a SentencePiece model, a tokenizer.json is written: pieces and scores as they are, the normalisation as its compiled
table, and a space before a word as "▁". In the tokenizers library it gives SentencePiece's ids with two exceptions:

- tokenizers looks the table up per grapheme, so that vowels and kana in two code points, which SentencePiece joins, stay
  apart;
- of two ways to cut a text that have equal scores, tokenizers may choose the other one.

Besides, "<s>", "</s>", "<pad>" and "<mask>" in a text are special tokens there. "<unk>" is text, as it is here.
"""

import base64
import json
from pathlib import Path
from typing import Any

from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import write_json
from xlmr_jax.huggingface import sentencepiece_file as sentencepiece
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE, MASK, UNK

SENTENCEPIECE = "sentencepiece.bpe.model"  # XLM-R's name for the file, although the model is no BPE
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # in the order of their ids
_SOURCES = (SENTENCEPIECE, "tokenizer.json", "vocab.json")  # The first of these files that a folder has is read.
_NEVER = -1e6  # a score so low that the piece is part of no best way to cut a text


def read_vocabulary(folder: Path) -> tuple[bytes, int]:
  """(the `model` that data.tokenizer.open_tokenizer takes, its number of entries) of a folder's tokenizer.

  Raises UserError if the folder has none, or one of another kind.
  """
  path = next((folder / name for name in _SOURCES if (folder / name).is_file()), None)
  if path is None:
    raise UserError(f"{folder}: no tokenizer in it: neither {SENTENCEPIECE} nor tokenizer.json nor vocab.json")
  if path.name == SENTENCEPIECE:
    vocabulary = path.read_bytes()
  elif path.name == "tokenizer.json":
    vocabulary = _from_json(path)
  else:
    vocabulary = _from_merges(path)
  return vocabulary, open_tokenizer(path, vocabulary).size


def _from_json(path: Path) -> bytes:
  """The file of a byte-level BPE as it is, or a SentencePiece model made from the file of a unigram model."""
  try:
    content = path.read_bytes()
    whole = json.loads(content)
    model = whole["model"]
    if model.get("type", "BPE") == "BPE":
      return content
    if model["type"] != "Unigram" or model.get("byte_fallback"):
      raise UserError(f"{path}: a tokenizer of kind {model['type']}; it must be XLM-R's unigram or RoBERTa's byte-level BPE")
    pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    normalizer = whole.get("normalizer") or {}
    normalizers = normalizer.get("normalizers", [normalizer])
    charsmap = next(
      (base64.b64decode(entry["precompiled_charsmap"]) for entry in normalizers if entry.get("type") == "Precompiled"), b""
    )
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: cannot be read ({error!r}); fetch it again") from None
  if pieces and pieces[-1][0] == MASK:
    pieces.pop()
  first = [piece for piece, _ in pieces[:FIRST_PIECE]]
  if first != list(SPECIALS) or added.get(MASK, len(pieces)) != len(pieces):
    raise UserError(
      f"{path}: the vocabulary begins with {first} and has {MASK} at {added.get(MASK)}; it must begin with "
      f"{list(SPECIALS)} and have {MASK} last, as XLM-R's"
    )
  kinds = [("<unk>", 0.0, sentencepiece.UNKNOWN), *((piece, 0.0, sentencepiece.CONTROL) for piece in ("<s>", "</s>"))]
  return sentencepiece.serialize(
    sentencepiece.Vocabulary(
      [*kinds, *((piece, score, sentencepiece.NORMAL) for piece, score in pieces[FIRST_PIECE:])], charsmap
    ),
    "nmt_nfkc" if charsmap else "identity",
  )


def _from_merges(path: Path) -> bytes:
  """One tokenizer.json made of RoBERTa's vocab.json and merges.txt."""
  merges = path.with_name("merges.txt")
  if not merges.is_file():
    raise UserError(f"{merges}: missing; {path.name} is only one half of a byte-level BPE")
  try:
    vocabulary = {str(piece): int(id) for piece, id in json.loads(path.read_text(encoding="utf-8")).items()}
    lines = merges.read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
  except (ValueError, AttributeError, TypeError) as error:
    raise UserError(f"{path}: cannot be read ({error!r}); fetch it again") from None
  specials = [(id, piece) for piece, id in vocabulary.items() if piece in (*SPECIALS, MASK)]
  byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
  model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
           "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": pairs}  # fmt: skip
  whole = _tokenizer_json(specials, None, byte_level, model, byte_level | {"add_prefix_space": True})
  return json.dumps(whole, ensure_ascii=False).encode()


def write_tokenizer(out: Path, vocabulary: bytes, max_tokens: int) -> None:
  """Writes the files of a vocabulary into a folder. max_tokens: of a text, with <s> and </s>.

  Raises UserError for a SentencePiece model that the tokenizers library cannot express.
  """
  byte_level = vocabulary[:1] == b"{"
  if byte_level:
    bpe = json.loads(vocabulary)["model"]
    (out / "tokenizer.json").write_bytes(vocabulary)
    (out / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"])
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
  else:
    text = json.dumps(fast_tokenizer(sentencepiece.parse(vocabulary)), ensure_ascii=False)
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    (out / SENTENCEPIECE).write_bytes(vocabulary)
  mask = {key: value for key, value in _added_token(0, MASK).items() if key != "id"}
  specials = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
  if byte_level:
    # With SentencePiece <unk> has no name: transformers would cut it out of texts, where fairseq reads "<", "unk", ">".
    specials["unk_token"] = "<unk>"
  config = {
    # The class is not "XLMRobertaTokenizer", because transformers 5 would build that class's own pipeline around the
    # pieces, which puts a space behind every <mask>.
    "tokenizer_class": "RobertaTokenizer" if byte_level else "PreTrainedTokenizerFast",
    "mask_token": {"__type": "AddedToken", **mask},
    "model_max_length": max_tokens,
    "model_input_names": ["input_ids", "attention_mask"],
    "clean_up_tokenization_spaces": False,
  }
  write_json(out / "tokenizer_config.json", specials | config)
  write_json(out / "special_tokens_map.json", {**specials, "mask_token": mask})


def fast_tokenizer(vocabulary: sentencepiece.Vocabulary) -> dict:
  """The tokenizer.json of a SentencePiece unigram model. UserError: the model holds what cannot be said in it."""
  kinds = {kind for _, _, kind in vocabulary.pieces[3:]}
  if vocabulary.model_type != sentencepiece.UNIGRAM or vocabulary.byte_fallback or kinds - {sentencepiece.NORMAL}:
    raise UserError(
      "the run's vocabulary is a SentencePiece model with bytes, user-defined symbols or merges; only plain unigram "
      "models can be exported"
    )
  normalizers = []
  if vocabulary.charsmap:
    normalizers.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(vocabulary.charsmap).decode()})
  if vocabulary.remove_extra_whitespaces:
    # A space at the beginning stays. It becomes the "▁" that would be put there, and behind a <mask> it is a space.
    normalizers += [
      {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
      for pattern, content in ((" {2,}", " "), (" +$", ""))
    ]
  # "first" puts no "▁" behind a <mask>.
  spaces = {
    "type": "Metaspace",
    "replacement": "▁",
    "split": True,
    "prepend_scheme": "first" if vocabulary.add_dummy_prefix else "never",
  }
  # SentencePiece never cuts a control piece out of a text. Here only the score prevents it.
  pieces = [
    *((piece, _NEVER) for piece in SPECIALS),
    *((text, score) for text, score, _ in vocabulary.pieces[3:]),
    (MASK, _NEVER),
  ]
  return _tokenizer_json(
    [*((id, piece) for id, piece in enumerate(SPECIALS) if id != UNK), (len(pieces) - 1, MASK)],
    {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
    spaces,
    {"type": "Unigram", "unk_id": UNK, "vocab": pieces, "byte_fallback": False},
    spaces,
  )


def _tokenizer_json(specials: list[tuple[int, str]], normalizer: Any, pre_tokenizer: Any, model: Any, decoder: Any) -> dict:
  """A tokenizer.json that makes `<s> A </s>` and `<s> A </s></s> B </s>` of texts A and B, all of token type 0."""

  def special(name: str) -> dict:
    return {"SpecialToken": {"id": name, "type_id": 0}}

  def text(name: str) -> dict:
    return {"Sequence": {"id": name, "type_id": 0}}

  single = [special("<s>"), text("A"), special("</s>")]
  template = {
    "type": "TemplateProcessing",
    "single": single,
    "pair": [*single, special("</s>"), text("B"), special("</s>")],
    "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in (("<s>", BOS), ("</s>", EOS))},
  }
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [_added_token(id, content) for id, content in sorted(specials)],
    "normalizer": normalizer,
    "pre_tokenizer": pre_tokenizer,
    "post_processor": template,
    "decoder": decoder,
    "model": model,
  }


def _added_token(id: int, content: str) -> dict:
  """A special token. The mask swallows the space before it, because it stands for a piece with its space."""
  return {"id": id, "content": content, "single_word": False, "lstrip": content == MASK, "rstrip": False,
          "normalized": False, "special": True}  # fmt: skip
