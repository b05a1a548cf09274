"""BERT's WordPiece vocabularies: a vocab.txt as a tokenizer.json, and what tokenizer_config.json says about either."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_jax.data.tokenizer_json import BERT
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface.sentencepiece_json import template, tokenizer_json, with_ids
from xlmr_jax.huggingface.tokenizer_config import class_of, named_class, say_once

VOCAB_TXT = "vocab.txt"
LONGEST_WORD = 100  # characters; a longer one is [UNK]
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


def settings(steps: Mapping[str, Any]) -> dict[str, Any]:
  """What a tokenizer_config.json calls the keys of a BertNormalizer: the reverse of normalizer()."""
  return {theirs: steps.get(ours, default) for ours, (theirs, default) in _STEPS.items()}


def has_steps_of_bert(whole: Mapping[str, Any]) -> bool:
  """Whether a tokenizer.json cuts texts as transformers' BertTokenizer does with some tokenizer_config.json."""
  steps, words, model = whole.get("normalizer") or {}, whole.get("pre_tokenizer") or {}, whole["model"]
  return (
    model.get("type") == "WordPiece"
    and (steps.get("type"), steps.get("clean_text", True)) == ("BertNormalizer", True)
    and words.get("type") == "BertPreTokenizer"
    and model.get("max_input_chars_per_word", LONGEST_WORD) == LONGEST_WORD
    and model.get("continuing_subword_prefix", "##") == "##"
  )


def as_transformers_reads(
  path: Path, content: bytes, whole: dict[str, Any], config: Mapping[str, Any], model_config: Mapping[str, Any]
) -> bytes:
  """The content of a tokenizer.json, which is `whole`, with the normalizer that transformers' BertTokenizer puts into it.

  config: tokenizer_config.json, whose values that class takes, or its defaults where a key is missing; model_config:
  config.json. Another class's tokenizer.json stays as it is. So does one with other steps than BERT's, which that class
  would replace; a line on stderr says so, because the ids may differ from transformers' then.
  """
  parts = [whole.get(part) or {} for part in ("model", "normalizer", "pre_tokenizer")]
  if class_of(config, model_config) != "BertTokenizer" or not all(isinstance(part, dict) for part in parts):
    return content
  if parts[0].get("type") != "WordPiece":
    return content
  found = parts[1]
  wanted = whole | {"normalizer": found | normalizer(config)}
  if found.get("type") != "BertNormalizer" or not has_steps_of_bert(wanted):
    say_once(f"{path}: its steps are not those of BERT. They are followed here, where transformers' BertTokenizer puts "
             "BERT's in their place; its ids may differ")  # fmt: skip
    return content
  return content if wanted == whole else json.dumps(wanted, ensure_ascii=False).encode()


def from_vocab_txt(
  path: Path, config: Mapping[str, Any], model_config: Mapping[str, Any], added: Sequence[Mapping[str, Any]]
) -> bytes:
  """The tokenizer.json of a vocab.txt, one piece per line, with the steps of transformers' BertTokenizer.

  config: tokenizer_config.json; model_config: config.json; added: the tokens that the files beside it add, in the form of a
  tokenizer.json, "id" None for one that has a name alone. UserError: it cannot be read, lacks a special piece, an added
  token does not follow it, or it belongs to a tokenizer of another class.
  """
  _refuse_other_class(path, config, named_class(config, model_config))
  try:
    lines = path.read_text(encoding="utf-8").split("\n")
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read ({error}); fetch it again") from None
  vocabulary = {piece: id for id, piece in enumerate(lines[:-1] if lines[-1] == "" else lines)}
  missing = [name for name in BERT.names if name not in vocabulary]
  if missing:
    raise UserError(f"{path}: the vocabulary has no {', '.join(missing)}; BERT's has {', '.join(BERT.names)}")
  tokens = [token for token in with_ids(added, vocabulary) if token["content"] not in BERT.names]
  more = [(token["id"], token["content"]) for token in tokens if vocabulary.get(token["content"]) != token["id"]]
  for expected, (id, name) in enumerate(sorted(more), max(vocabulary.values()) + 1):
    if id != expected or name in vocabulary:
      raise UserError(f"{path.parent}: the added token {name!r} has id {id}, which does not follow {path.name}")
  whole = wordpiece_json(vocabulary, normalizer(config))
  whole["added_tokens"] += sorted(tokens, key=lambda token: token["id"])
  return json.dumps(whole, ensure_ascii=False).encode()


def _refuse_other_class(path: Path, config: Mapping[str, Any], name: str) -> None:
  """UserError for a vocab.txt that transformers would read with another class, which cuts words in its own way."""
  other = ""
  if name not in ("", "BertTokenizer"):
    other = f"tokenizer_class={name}"
  elif config.get("auto_map"):
    other = "a tokenizer of its own code (auto_map)"
  elif config.get("word_tokenizer_type", "basic") != "basic":
    other = f"word_tokenizer_type={config['word_tokenizer_type']}"
  if other:
    raise UserError(f"{path}: the folder has {other}, which cuts texts otherwise than BERT's tokenizer and is not read "
                    "here; a tokenizer.json that transformers saved from it would be")  # fmt: skip


def wordpiece_json(vocabulary: Mapping[str, int], steps: dict[str, Any]) -> dict[str, Any]:
  """The tokenizer.json of BERT's kind. vocabulary: {piece: id}, the special pieces included; steps: its normalizer."""
  model = {"type": "WordPiece", "unk_token": BERT.unk, "continuing_subword_prefix": "##",
           "max_input_chars_per_word": LONGEST_WORD, "vocab": dict(vocabulary)}  # fmt: skip
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
