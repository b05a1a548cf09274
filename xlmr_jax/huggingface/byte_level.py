"""RoBERTa's byte-level BPE: vocab.json and merges.txt as a tokenizer.json, and what tokenizer_config.json says of either."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.data.tokenizer_json import SPECIALS
from xlmr_jax.errors import UserError
from xlmr_jax.files import read_json
from xlmr_jax.huggingface.sentencepiece_json import tokenizer_json, with_ids
from xlmr_jax.huggingface.tokenizer_config import added_tokens, class_of, config_of, read_object, say_once
from xlmr_jax.ids import MASK


def _prefix_space(folder: Path, config: Mapping[str, Any]) -> bool:
  """Whether transformers' RobertaTokenizer puts a space before a text after this tokenizer_config.json; False by default."""
  wanted = config.get("add_prefix_space", False)
  if not isinstance(wanted, bool):
    path = folder / "tokenizer_config.json"
    raise UserError(f"{path}: add_prefix_space is {str(wanted)[:40]!r}; it must be true or false")
  return wanted


def as_transformers_reads(path: Path, content: bytes, config: Mapping[str, Any], model_config: Mapping[str, Any]) -> bytes:
  """The content of a tokenizer.json with the prefix space that transformers' RobertaTokenizer puts into it.

  config: tokenizer_config.json, whose value that class takes, or its default where there is none, whatever the file says;
  model_config: config.json. Another class's file stays as it is. So does one with other steps than RoBERTa's, which that
  class would replace; a line on stderr says so, because the ids may differ from transformers' then.
  """
  if class_of(config, model_config) != "RobertaTokenizer" or b'"ByteLevel"' not in content:
    return content
  whole = read_object(path)
  step = whole.get("pre_tokenizer") or {}
  if whole.get("normalizer") or step.get("type") != "ByteLevel" or step.get("use_regex", True) is not True:
    say_once(f"{path}: its steps are not those of RoBERTa. They are followed here, where transformers' RobertaTokenizer "
             "puts RoBERTa's in their place; its ids may differ")  # fmt: skip
    return content
  wanted = _prefix_space(path.parent, config)
  if step.get("add_prefix_space") == wanted:
    return content
  return json.dumps(whole | {"pre_tokenizer": step | {"add_prefix_space": wanted}}, ensure_ascii=False).encode()


def from_merges(path: Path) -> bytes:
  """One tokenizer.json made of RoBERTa's vocab.json and merges.txt, and of the files that add to them."""
  merges = path.with_name("merges.txt")
  if not merges.is_file():
    raise UserError(f"{merges}: missing; {path.name} is only one half of a byte-level BPE")
  try:
    vocabulary = {str(piece): int(id) for piece, id in read_json(path).items()}
    lines = merges.read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
  except (ValueError, AttributeError, TypeError) as error:
    raise UserError(f"{path}: cannot be read ({error!r}); fetch it again") from None
  ours = (*SPECIALS, MASK)
  added = with_ids(added_tokens(path.parent), vocabulary)
  ids = vocabulary | {token["content"]: token["id"] for token in added}
  specials = [(id, piece) for piece, id in ids.items() if piece in ours]
  prefix = _prefix_space(path.parent, config_of(path.parent))
  byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
  model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
           "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": pairs}  # fmt: skip
  whole = tokenizer_json(specials, None, byte_level, model, byte_level | {"add_prefix_space": True})
  more = [token for token in added if token["content"] not in ours]
  whole["added_tokens"] = sorted(whole["added_tokens"] + more, key=lambda token: token["id"])
  content = json.dumps(whole, ensure_ascii=False).encode()
  if more:
    tokenizer = open_tokenizer(path, content)
    for name, id in ((token["content"], token["id"]) for token in more):
      if id >= tokenizer.size or tokenizer.piece(id) != name:
        raise UserError(f"{path.parent}: the added token {name!r} has id {id}, which does not follow {path.name}")
  return content
