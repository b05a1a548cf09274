"""What the small files beside a vocabulary say of it: tokenizer_config.json, special_tokens_map.json, added_tokens.json."""

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_jax.data.tokenizer_json import layout_of
from xlmr_jax.errors import UserError
from xlmr_jax.files import parse_json, read_json

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# The class of a config.json's model_type where no file names one. XLM-R's is left out, because its steps are not followed.
_CLASSES = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer"}


def read_object(path: Path) -> dict[str, Any]:
  """The content of a JSON file with an object; {} if there is no such file."""
  try:
    content = read_json(path)
    if not isinstance(content, dict):
      raise ValueError("no object")
    return content
  except FileNotFoundError:
    return {}
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read ({error}); fetch it again") from None


def config_of(folder: Path) -> dict[str, Any]:
  """The content of a folder's tokenizer_config.json; {} if there is none."""
  return read_object(folder / "tokenizer_config.json")


def named_class(config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
  """The class of a folder's tokenizer that its files name, without "Fast"; "" if they name none.

  config: tokenizer_config.json; model_config: config.json, which counts where the former is silent.
  """
  return str(config.get("tokenizer_class") or model_config.get("tokenizer_class") or "").removesuffix("Fast")


def class_of(config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
  """The class that transformers opens a folder's tokenizer with, if it is BERT's or RoBERTa's, or one that is named."""
  return named_class(config, model_config) or _CLASSES.get(str(model_config.get("model_type")), "")


@functools.cache  # A command reads a folder's tokenizer more than once.
def say_once(line: str) -> None:
  """Prints a line on stderr, unless this process has done so."""
  print(line, file=sys.stderr, flush=True)


# --- added tokens --------------------------------------------------------------------------------------------------


def added_tokens(folder: Path) -> list[dict[str, Any]]:
  """The tokens that the files beside a vocabulary add to it, in the form of a tokenizer.json, by id.

  As transformers 5 reads them: where tokenizer_config.json lists them, added_tokens.json does not count. "id" is None for a
  token that has a name alone.
  """
  config = config_of(folder)
  try:
    special = _names(config.get("extra_special_tokens") or config.get("additional_special_tokens"))
    if "added_tokens_decoder" in config:
      found = [_added(int(id), token) for id, token in config["added_tokens_decoder"].items()]
    else:
      special += _names(read_object(folder / "special_tokens_map.json").get("additional_special_tokens"))
      ids = {str(name): int(id) for name, id in read_object(folder / "added_tokens.json").items()}
      found = [_added(id, {"content": name, "special": name in special}) for name, id in ids.items()]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{folder}: its added tokens cannot be read ({error!r}); fetch it again") from None
  named = {token["content"] for token in found}
  more = [_added(None, {"content": name, "special": True}) for name in dict.fromkeys(special) if name not in named]
  return sorted(found, key=lambda token: token["id"]) + more


def _added(id: int | None, token: Mapping[str, Any]) -> dict[str, Any]:
  """A token with the defaults of transformers' AddedToken."""
  content, is_special = str(token["content"]), bool(token.get("special", False))
  flags = {key: bool(token.get(key, False)) for key in ("single_word", "lstrip", "rstrip")}
  normalized = bool(token.get("normalized", not is_special))
  return {"id": id, "content": content, **flags, "normalized": normalized, "special": is_special}


def _names(tokens: Any) -> list[str]:
  """The names in a list, or a dictionary, of tokens of a tokenizer_config.json."""
  tokens = tokens.values() if isinstance(tokens, Mapping) else tokens or []
  return [str(token["content"]) if isinstance(token, Mapping) else str(token) for token in tokens]


def with_added_tokens(path: Path, content: bytes, rows: int = 0) -> bytes:
  """The content of a tokenizer.json with the tokens that only the files beside it add, as transformers adds them.

  They get the ids that the tokenizers library gives them: the vocabulary's, or the next ones. The flags that
  tokenizer_config.json lists for a token of the file count in place of the file's. rows: of the model's embedding, 0 if they
  are not known. Raises UserError naming a token that would get another id than is listed, or that has no row.
  """
  beside = added_tokens(path.parent)
  is_listed = "added_tokens_decoder" in config_of(path.parent)
  return _merged(path, content, json.dumps(beside), is_listed, rows) if beside else content


@functools.lru_cache(1)  # A command reads a folder's tokenizer more than once, and a large file takes a while.
def _merged(path: Path, content: bytes, beside: str, is_listed: bool, rows: int) -> bytes:
  """with_added_tokens(). beside: the other files' tokens, in JSON; is_listed: whether tokenizer_config.json lists ids."""
  in_file, names = _tokens_of(path, content)
  tokens: dict[str, dict[str, Any]] = {}  # by name: those that are new or have other flags
  for token in json.loads(beside):
    known = in_file.get(token["content"])
    if token["content"] in names:  # The special pieces are looked at by id and name, and never found in texts.
      continue
    if known is None:
      tokens[token["content"]] = token
    elif is_listed and token["id"] is not None and any(token[flag] != known.get(flag, False) for flag in _FLAGS):
      tokens[token["content"]] = token | {"id": known["id"]}
  if not tokens:
    return content
  try:
    whole = parse_json(content)
    vocabulary = whole["model"]["vocab"]
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {piece: id for id, (piece, _) in enumerate(vocabulary)}
    ids |= {name: int(token["id"]) for name, token in in_file.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: no tokenizer.json that can be read ({error!r})") from None
  free = max(len(vocabulary), 1 + max((ids[name] for name in in_file), default=-1))
  for name, token in tokens.items():
    id = ids.setdefault(name, free)
    free += id == free
    if token["id"] not in (None, id):
      raise UserError(f"{path.parent}: it adds the token {name!r} with the id {token['id']}, and transformers would give it "
                      f"{id}; correct the id, or add the token to {path.name}")  # fmt: skip
    if 0 < rows <= id:
      raise UserError(f"{path.parent}: beside {path.name} it adds the token {name!r}, which gets the id {id}, and the "
                      f"embedding has {rows} rows; remove the token there, or resize the embedding")  # fmt: skip
    tokens[name] = token | {"id": id}
  whole["added_tokens"] = sorted((in_file | tokens).values(), key=lambda token: token["id"])
  return json.dumps(whole, ensure_ascii=False).encode()


def _tokens_of(path: Path, content: bytes) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
  """({name: added token} of a tokenizer.json, the names of its special pieces)."""
  try:
    whole = parse_json(content)
    return {token["content"]: token for token in whole.get("added_tokens") or ()}, layout_of(whole["model"]).names
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: no tokenizer.json that can be read ({error!r})") from None
