"""Reads and writes the vocabularies of Hugging Face folders. sentencepiece_json.py has the steps of a SentencePiece model.

A tokenizer.json is kept as it is and run by the tokenizers library, with all its steps, in rows, evaluation and export.
"""

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from xlmr_jax.data import sentencepiece_file
from xlmr_jax.data.sentencepiece import with_rows, without_rows
from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.data.tokenizer_json import ROWS, SPECIALS, decoder_of, library_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, read_json, write_json
from xlmr_jax.huggingface.probe import PROBE
from xlmr_jax.huggingface.sentencepiece_json import (
  added_token,
  fast_tokenizer,
  first_difference,
  prove,
  template,
  tokenizer_json,
)  # fmt: skip
from xlmr_jax.ids import BOS, EOS, MASK

SENTENCEPIECE = "sentencepiece.bpe.model"  # XLM-R's name for the file, although the model is no BPE
_PADDED = 8, 512  # An embedding is padded to a multiple of the first, by less than the second.


# --- reading -------------------------------------------------------------------------------------------------------


def read_vocabulary(folder: Path, rows: int = 0) -> tuple[bytes, int]:
  """(the `model` that data.tokenizer.open_tokenizer takes, its number of entries) of a folder's tokenizer.

  rows: of the model's embedding, which may be padded; 0 if they are not known. Raises UserError if the folder has no
  tokenizer, two that differ, or one of another kind.
  """
  model, whole, merges = (folder / name for name in (SENTENCEPIECE, "tokenizer.json", "vocab.json"))
  if model.is_file() and whole.is_file():
    path, vocabulary = _the_same(model, whole)
  elif whole.is_file():
    path, vocabulary = whole, _with_prefix_space(whole, whole.read_bytes())
  elif model.is_file():
    path, vocabulary = model, model.read_bytes()
    _refuse_added_tokens(folder, open_tokenizer(model, vocabulary))
  elif merges.is_file():
    path, vocabulary = merges, _from_merges(merges)
  else:
    raise UserError(f"{folder}: no tokenizer in it: neither {SENTENCEPIECE} nor tokenizer.json nor vocab.json")
  size = open_tokenizer(path, vocabulary).size
  multiple, most = _PADDED
  if size < rows < size + most and rows % multiple == 0:
    vocabulary = _with_rows(vocabulary, rows)
    size = rows
  return vocabulary, size


def _is_json(vocabulary: bytes) -> bool:
  return vocabulary[:1] == b"{"


def _with_rows(vocabulary: bytes, rows: int) -> bytes:
  if not _is_json(vocabulary):
    return with_rows(vocabulary, rows)
  return b'{"%s": %d, ' % (ROWS.encode(), rows) + vocabulary[1:]  # The other bytes stay, and are exported as they were.


def _the_same(model: Path, whole: Path) -> tuple[Path, bytes]:
  """The SentencePiece model of a folder that has a tokenizer.json too; or the latter, where it only has more tokens."""
  ours, theirs = model.read_bytes(), whole.read_bytes()
  sizes, line = _compare(ours, theirs, whole)
  if line is not None or sizes[1] < sizes[0]:
    what = f"cut {line!r} differently" if line is not None else f"have {sizes[0]} and {sizes[1]} entries"
    raise UserError(f"{model} and {whole.name} {what}; remove the one that the model was not trained with")
  return (whole, theirs) if sizes[1] > sizes[0] else (model, ours)


@functools.lru_cache(2)  # A command opens a folder more than once, and the comparison takes seconds for 250k pieces.
def _compare(model: bytes, whole: bytes, path: Path) -> tuple[tuple[int, int], str | None]:
  """((entries of each), the first line of the probe that the two cut differently or None)."""
  try:
    import tokenizers  # noqa: F401
  except ImportError:
    raise UserError(
      f"{path}: it stands beside a {SENTENCEPIECE}, and whether they agree is seen with `pip install 'xlmr_jax[evaluate]'`; "
      "or remove one of them"
    ) from None
  ours, theirs = open_tokenizer(path.with_name(SENTENCEPIECE), model), open_tokenizer(path, whole)
  # XLM-R's own tokenizer.json drops spaces at the ends of a text and between words in another way.
  lines = [line for line in PROBE if line and line == " ".join(line.split())]
  found = [[tokenizer.encode(line) for line in lines] for tokenizer in (ours, theirs)]
  at = first_difference(found[0], found[1], sentencepiece_file.parse(model))
  return (ours.size, theirs.size), None if at is None else lines[at]


def _refuse_added_tokens(folder: Path, tokenizer: Tokenizer) -> None:
  """UserError for tokens that a folder without tokenizer.json adds to its SentencePiece model."""
  more = [name for name, id in _added_tokens(folder).items() if id >= tokenizer.size]
  if more:
    raise UserError(
      f"{folder}: it adds {', '.join(map(repr, more[:3]))} to {SENTENCEPIECE}; save the tokenizer with transformers 5, "
      "which makes one tokenizer.json of both"
    )


def _read_json(path: Path) -> dict:
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


def _added_tokens(folder: Path) -> dict[str, int]:
  """{name: id} of the tokens that the files beside a vocabulary add to it."""
  decoder = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
  try:
    named = {str(token["content"]): int(id) for id, token in decoder.items()}
    return named | {str(name): int(id) for name, id in _read_json(folder / "added_tokens.json").items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{folder}: its added tokens cannot be read ({error!r}); fetch it again") from None


def _with_prefix_space(path: Path, content: bytes) -> bytes:
  """A byte-level tokenizer.json with the prefix space that tokenizer_config.json asks for, as transformers reads it."""
  config = _read_json(path.with_name("tokenizer_config.json"))
  wanted = config.get("add_prefix_space")
  if not str(config.get("tokenizer_class")).startswith("Roberta") or not isinstance(wanted, bool):
    return content
  whole = _read_json(path)
  step = whole.get("pre_tokenizer") or {}
  if step.get("type") != "ByteLevel" or step.get("add_prefix_space") == wanted:
    return content
  return json.dumps(whole | {"pre_tokenizer": step | {"add_prefix_space": wanted}}, ensure_ascii=False).encode()


def _from_merges(path: Path) -> bytes:
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
  added = _added_tokens(path.parent)
  specials = [(id, piece) for piece, id in (vocabulary | added).items() if piece in ours]
  prefix = _read_json(path.with_name("tokenizer_config.json")).get("add_prefix_space") is True
  byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
  model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
           "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": pairs}  # fmt: skip
  whole = tokenizer_json(specials, None, byte_level, model, byte_level | {"add_prefix_space": True})
  more = [added_token(id, piece) | {"special": False} for piece, id in added.items() if piece not in ours]
  whole["added_tokens"] = sorted(whole["added_tokens"] + more, key=lambda token: token["id"])
  content = json.dumps(whole, ensure_ascii=False).encode()
  if more:
    tokenizer = open_tokenizer(path, content)
    for name, id in added.items():
      if name not in ours and (id >= tokenizer.size or tokenizer.piece(id) != name):
        raise UserError(f"{path.parent}: the added token {name!r} has id {id}, which does not follow {path.name}")
  return content


# --- writing -------------------------------------------------------------------------------------------------------


@functools.lru_cache(1)  # `to_hf` asks before the long part and again when it writes.
def exported(tokenizer: Tokenizer) -> dict:
  """The tokenizer.json that gives a tokenizer's ids, proved on a probe of many scripts.

  Raises UserError naming the step, or a text whose ids would be others.
  """
  if _is_json(tokenizer.model):
    whole, vocabulary = json.loads(tokenizer.model), None
    whole.pop(ROWS, None)
    whole |= {"truncation": None, "padding": None, "decoder": decoder_of(whole)}
    if not _makes_our_pairs(tokenizer.path, whole):
      whole["post_processor"] = template()
  else:
    vocabulary = sentencepiece_file.parse(without_rows(tokenizer.model))
    whole = fast_tokenizer(tokenizer.path, vocabulary)
  prove(whole, tokenizer, vocabulary)
  return whole


def why_no_export(tokenizer: Tokenizer) -> str:
  """Why the model of a run with this vocabulary can never be exported; "" if it can. To be asked before the training."""
  try:
    if _is_json(tokenizer.model) or importlib.util.find_spec("tokenizers"):
      exported(tokenizer)
    else:  # Where only rows are built, the library for the proof may be missing.
      fast_tokenizer(tokenizer.path, sentencepiece_file.parse(tokenizer.model))
  except UserError as error:
    return str(error)
  return ""


def _makes_our_pairs(path: AnyPath, whole: dict) -> bool:
  """Whether the post-processor makes `<s> A </s></s> B </s>`, all of token type 0, as fine-tuning does."""
  backend = library_tokenizer(path, whole)
  a, b = (backend.encode(text, add_special_tokens=False).ids for text in "ab")
  pair = backend.encode("a", "b")
  return pair.ids == [BOS, *a, EOS, EOS, *b, EOS] and not any(pair.type_ids)


def write_tokenizer(out: Path, tokenizer: Tokenizer, max_tokens: int) -> None:
  """Writes the files of a tokenizer into a folder. max_tokens: of a text, with <s> and </s>.

  Raises UserError for a vocabulary that the tokenizers library cannot express.
  """
  whole = exported(tokenizer)
  if _is_json(tokenizer.model):
    as_it_was = json.loads(tokenizer.model)
    rows = as_it_was.pop(ROWS, None)
    if whole == as_it_was and rows is None:
      (out / "tokenizer.json").write_bytes(tokenizer.model)
    else:
      (out / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    if whole.get("normalizer") is None and (whole.get("pre_tokenizer") or {}).get("type") == "ByteLevel":
      _write_merges(out, whole["model"])
  else:
    (out / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (out / SENTENCEPIECE).write_bytes(without_rows(tokenizer.model))
  added = {token["content"]: token for token in whole.get("added_tokens") or ()}
  mask = {key: value for key, value in added.get(MASK, added_token(0, MASK)).items() if key != "id"}
  specials = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
  if "<unk>" in added:
    # With SentencePiece <unk> has no name: transformers would cut it out of texts, where fairseq reads "<", "unk", ">".
    specials["unk_token"] = "<unk>"
  config = {
    # The class is neither "XLMRobertaTokenizer" nor "RobertaTokenizer", because transformers 5 would build that class's own
    # steps around the pieces.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "mask_token": {"__type": "AddedToken", **mask},
    "model_max_length": max_tokens,
    "model_input_names": ["input_ids", "attention_mask"],
    "clean_up_tokenization_spaces": False,
  }
  write_json(out / "tokenizer_config.json", specials | config)
  write_json(out / "special_tokens_map.json", {**specials, "mask_token": mask})


def _write_merges(out: Path, model: dict[str, Any]) -> None:
  """The two files that hold RoBERTa's pieces for readers that know no tokenizer.json."""
  (out / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
  merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
  (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
