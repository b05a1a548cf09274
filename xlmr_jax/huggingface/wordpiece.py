"""BERT's WordPiece vocabularies: a vocab.txt as a tokenizer.json, and what tokenizer_config.json says about either."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_jax.data.tokenizer_json import BERT
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface.sentencepiece_json import added_token, template, tokenizer_json

VOCAB_TXT = "vocab.txt"
# The keys of a BertNormalizer, and what tokenizer_config.json calls them; with the values of transformers' BertTokenizer.
_STEPS = {"lowercase": ("do_lower_case", True), "strip_accents": ("strip_accents", None),
          "handle_chinese_chars": ("tokenize_chinese_chars", True)}  # fmt: skip


def normalizer(config: Mapping[str, Any]) -> dict[str, Any]:
  """BERT's normalizer as a tokenizer_config.json asks for it. UserError: a value is of another type."""
  steps = {ours: config.get(theirs, default) for ours, (theirs, default) in _STEPS.items()}
  for ours, value in steps.items():
    if not isinstance(value, bool) and (value is not None or ours != "strip_accents"):
      raise UserError(f"tokenizer_config.json: {_STEPS[ours][0]} is {str(value)[:40]!r}; it must be true or false")
  return {"type": "BertNormalizer", "clean_text": True} | steps


def as_transformers_reads(content: bytes, whole: dict[str, Any], config: Mapping[str, Any], model_type: str) -> bytes:
  """The content of a tokenizer.json, which is `whole`, with the normalizer that transformers' BertTokenizer puts into it.

  config: tokenizer_config.json, whose values that class takes, or its defaults where a key is missing; model_type: of
  config.json, which names the class where the former does not. Another class's tokenizer.json stays as it is.
  """
  class_name = config.get("tokenizer_class") or ("BertTokenizer" if model_type == "bert" else "")
  if str(class_name).removesuffix("Fast") != "BertTokenizer":
    return content
  found, model = whole.get("normalizer"), whole.get("model")
  if not isinstance(found, dict) or not isinstance(model, dict) or model.get("type") != "WordPiece":
    return content
  wanted = found | normalizer(config)
  if found.get("type") != "BertNormalizer" or found == wanted:
    return content
  return json.dumps(whole | {"normalizer": wanted}, ensure_ascii=False).encode()


def from_vocab_txt(path: Path, config: Mapping[str, Any], added: Mapping[str, int]) -> bytes:
  """The tokenizer.json of a vocab.txt, one piece per line, with the steps of transformers' BertTokenizer.

  config: tokenizer_config.json; added: {name: id} of the tokens that the files beside it add. UserError: it cannot be read,
  lacks a special piece, or an added token does not follow it.
  """
  try:
    lines = path.read_text(encoding="utf-8").split("\n")
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read ({error}); fetch it again") from None
  vocabulary = {piece: id for id, piece in enumerate(lines[:-1] if lines[-1] == "" else lines)}
  missing = [name for name in BERT.names if name not in vocabulary]
  if missing:
    raise UserError(f"{path}: the vocabulary has no {', '.join(missing)}; BERT's has {', '.join(BERT.names)}")
  more = sorted((id, name) for name, id in added.items() if vocabulary.get(name) != id)
  for expected, (id, name) in enumerate(more, max(vocabulary.values()) + 1):
    if id != expected or name in vocabulary:
      raise UserError(f"{path.parent}: the added token {name!r} has id {id}, which does not follow {path.name}")
  whole = wordpiece_json(vocabulary, normalizer(config))
  whole["added_tokens"] += [added_token(id, name) | {"special": False} for id, name in more]
  return json.dumps(whole, ensure_ascii=False).encode()


def wordpiece_json(vocabulary: Mapping[str, int], steps: dict[str, Any]) -> dict[str, Any]:
  """The tokenizer.json of BERT's kind. vocabulary: {piece: id}, the special pieces included; steps: its normalizer."""
  model = {"type": "WordPiece", "unk_token": BERT.unk, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
           "vocab": dict(vocabulary)}  # fmt: skip
  specials = [(vocabulary[name], name) for name in BERT.names]
  pairs = template(BERT, vocabulary[BERT.bos], vocabulary[BERT.eos])
  decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
  return tokenizer_json(specials, steps, {"type": "BertPreTokenizer"}, model, decoder, pairs)


def vocab_txt(model: Mapping[str, Any]) -> str | None:
  """The vocab.txt of a tokenizer.json's WordPiece; None if its ids have gaps, or a piece holds a line break."""
  pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
  is_dense = [model["vocab"][piece] for piece in pieces] == list(range(len(pieces)))
  return (
    "".join(f"{piece}\n" for piece in pieces) if is_dense and not any(set(piece) & set("\r\n") for piece in pieces) else None
  )
