"""Reads and writes the vocabularies of Hugging Face folders. sentencepiece_json.py has the steps of a SentencePiece model.

A tokenizer.json is kept as it is and run by the tokenizers library, with all its steps, in rows, evaluation and export.
"""

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from xlmr_jax.data import sentencepiece, sentencepiece_file, tokenizer_json
from xlmr_jax.data.sentencepiece import without_rows
from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.data.tokenizer_json import BERT, ROWS, SPECIALS, XLMR, Layout, decoder_of, layout_of, library_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, write_json
from xlmr_jax.huggingface import byte_level, wordpiece
from xlmr_jax.huggingface.probe import PROBE
from xlmr_jax.huggingface.sentencepiece_json import (
  added_token,
  fast_tokenizer,
  first_difference,
  prove,
  template,
  with_ids,
)  # fmt: skip
from xlmr_jax.huggingface.tokenizer_config import added_tokens, config_of, read_object, say_once, with_added_tokens
from xlmr_jax.huggingface.wordpiece import VOCAB_TXT, from_vocab_txt, has_steps_of_bert, settings, vocab_txt
from xlmr_jax.ids import MASK

SENTENCEPIECE = "sentencepiece.bpe.model"  # XLM-R's name for the file, although the model is no BPE
# An embedding has fewer rows than this behind the entries, most often so many that a multiple of 8 comes out. That of
# multilingual MiniLM and of the multilingual e5 models has XLM-R's 250,002 entries and 250,037 rows.
_MOST_PADDING = 512


# --- reading -------------------------------------------------------------------------------------------------------


def read_vocabulary(folder: Path, rows: int = 0) -> tuple[bytes, int]:
  """(the `model` that data.tokenizer.open_tokenizer takes, its number of entries) of a folder's tokenizer.

  rows: of the model's embedding, which may be padded; 0 if they are not known. Raises UserError if the folder has no
  tokenizer, two that differ, or one of another kind.
  """
  model, whole, merges, words = (folder / name for name in (SENTENCEPIECE, "tokenizer.json", "vocab.json", VOCAB_TXT))
  if model.is_file() and whole.is_file():
    path, vocabulary = _the_same(model, whole, rows)
  elif whole.is_file():
    path, vocabulary = whole, with_added_tokens(whole, _as_transformers_reads(whole), rows)
  elif model.is_file():
    path, vocabulary = model, model.read_bytes()
    _refuse_added_tokens(folder, vocabulary)
  elif merges.is_file():
    path, vocabulary = merges, byte_level.from_merges(merges)
  elif words.is_file():
    path = words
    vocabulary = from_vocab_txt(words, config_of(folder), read_object(folder / "config.json"), added_tokens(folder))
  else:
    raise UserError(
      f"{folder}: no tokenizer in it: neither {SENTENCEPIECE} nor tokenizer.json nor vocab.json nor {VOCAB_TXT}"
    )
  size = open_tokenizer(path, vocabulary).size
  if size < rows < size + _MOST_PADDING:
    if rows % 8:
      say_once(f"{folder}: the embedding has {rows} rows, and the tokenizer {size} entries; the last {rows - size} rows "
               "belong to no piece, and are never drawn or proposed")  # fmt: skip
    vocabulary = (tokenizer_json if _is_json(vocabulary) else sentencepiece).with_rows(vocabulary, rows)
    size = rows
  return vocabulary, size


def _is_json(vocabulary: bytes) -> bool:
  return vocabulary[:1] == b"{"


def _the_same(model: Path, whole: Path, rows: int) -> tuple[Path, bytes]:
  """The SentencePiece model of a folder that has a tokenizer.json too; or the latter, where it only has more tokens.

  So it has where tokenizer_config.json adds some. rows: of the embedding, 0 if they are not known.
  """
  ours, theirs = model.read_bytes(), whole.read_bytes()
  sizes, line = _compare(ours, theirs, whole)
  if line is not None or sizes[1] < sizes[0]:
    what = f"cut {line!r} differently" if line is not None else f"have {sizes[0]} and {sizes[1]} entries"
    raise UserError(f"{model} and {whole.name} {what}; remove the one that the model was not trained with")
  with_more = with_added_tokens(whole, theirs, rows)
  return (whole, with_more) if sizes[1] > sizes[0] or with_more != theirs else (model, ours)


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


def _refuse_added_tokens(folder: Path, model: bytes) -> None:
  """UserError for tokens that a folder without tokenizer.json adds to its SentencePiece model, by id or by name alone."""
  tokenizer = open_tokenizer(folder / SENTENCEPIECE, model)
  pieces = {text for text, _, _ in sentencepiece_file.parse(model).pieces}
  known = {name: 0 for name in (*SPECIALS, MASK, *pieces)}  # What the model has gets no new id.
  more = [token["content"] for token in with_ids(added_tokens(folder), known | {"": tokenizer.size - 1})
          if token["id"] >= tokenizer.size]  # fmt: skip
  if more:
    raise UserError(
      f"{folder}: it adds {', '.join(map(repr, more[:3]))} to {SENTENCEPIECE}; save the tokenizer with transformers 5, "
      "which makes one tokenizer.json of both"
    )


def _as_transformers_reads(path: Path) -> bytes:
  """A tokenizer.json with what transformers' classes for RoBERTa and BERT change in it after tokenizer_config.json."""
  content, config, model_config = path.read_bytes(), config_of(path.parent), read_object(path.with_name("config.json"))
  content = byte_level.as_transformers_reads(path, content, config, model_config)
  if b'"WordPiece"' not in content:
    return content
  return wordpiece.as_transformers_reads(path, content, read_object(path), config, model_config)


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
    layout, (bos, _, eos, _) = layout_of(whole["model"]), tokenizer.specials
    if not _makes_our_pairs(tokenizer.path, whole, layout, bos, eos):
      whole["post_processor"] = template(layout, bos, eos)
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


def _makes_our_pairs(path: AnyPath, whole: dict, layout: Layout, bos: int, eos: int) -> bool:
  """Whether the post-processor makes pairs as fine-tuning does: template() has the two forms. bos, eos: their ids."""
  backend = library_tokenizer(path, whole)
  a, b = (backend.encode(text, add_special_tokens=False).ids for text in "ab")
  pair = backend.encode("a", "b")
  first = [bos, *a, *[eos] * layout.separators]
  types = [0] * (len(first) + len(b) + 1) if layout is XLMR else [0] * len(first) + [1] * (len(b) + 1)
  return pair.ids == [*first, *b, eos] and pair.type_ids == types


def write_tokenizer(out: Path, tokenizer: Tokenizer, max_tokens: int, token_types: int = 2) -> None:
  """Writes the files of a tokenizer into a folder. max_tokens: of a text, with <s> and </s>. token_types: of the model.

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
  as_bert = has_steps_of_bert(whole)
  if as_bert and (lines := vocab_txt(whole["model"])):
    (out / VOCAB_TXT).write_text(lines, encoding="utf-8")  # for readers that know no tokenizer.json
  layout = layout_of(whole["model"])
  added = {token["content"]: token for token in whole.get("added_tokens") or ()}
  mask = {key: value for key, value in added.get(layout.mask, added_token(0, layout.mask)).items() if key != "id"}
  specials = {"bos_token": layout.bos, "eos_token": layout.eos} if layout is XLMR else {}
  specials |= {"cls_token": layout.bos, "sep_token": layout.eos, "pad_token": layout.pad}
  if layout.unk in added:
    # With SentencePiece <unk> has no name: transformers would cut it out of texts, where fairseq reads "<", "unk", ">".
    specials["unk_token"] = layout.unk
  config = {
    # The class is not "XLMRobertaTokenizer", "RobertaTokenizer" or "BertTokenizer", because transformers 5 would build that
    # class's own steps around the pieces.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "mask_token": {"__type": "AddedToken", **mask},
    "model_max_length": max_tokens,
    # A RoBERTa with a WordPiece vocabulary has no row for the type that the vocabulary gives to the second text of a pair.
    "model_input_names": [
      "input_ids",
      *(["token_type_ids"] if layout is BERT and token_types > 1 else []),
      "attention_mask",
    ],
    "clean_up_tokenization_spaces": False,
  }
  if as_bert:  # for those readers, whose defaults are those of uncased models
    config |= settings(whole["normalizer"])
  write_json(out / "tokenizer_config.json", specials | config)
  write_json(out / "special_tokens_map.json", {**specials, "mask_token": mask})


def _write_merges(out: Path, model: dict[str, Any]) -> None:
  """The two files that hold RoBERTa's pieces for readers that know no tokenizer.json."""
  (out / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
  merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
  (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
