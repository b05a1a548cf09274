"""Vocabularies in and out of Hugging Face folders: SentencePiece's, or RoBERTa's byte-level BPE.

Out of a SentencePiece model a tokenizer.json is written here: pieces and scores as they are, the normalisation as its
compiled table, and a space before a word as "▁". It gives SentencePiece's ids but for two things, both of tokenizers':
it looks the table up letter cluster by letter cluster, so vowels and kana in two code points, which SentencePiece joins,
stay apart; and of two ways to cut a text with equal scores it may take the other. And "<s>", "</s>", "<pad>" and
"<mask>" in a text are specials there; "<unk>" is text, as it is here.
"""

import base64
import json
from pathlib import Path

from xlmr_jax.data.tokenizer import BOS, EOS, MASK, UNK, Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface import sentencepiece_file as sentencepiece

SENTENCEPIECE = "sentencepiece.bpe.model"  # XLM-R's name for it, although it is no BPE
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # by id
_NEVER = -1e6  # a score that no way through a text can afford
FILES = (SENTENCEPIECE, "tokenizer.json", "vocab.json", "merges.txt")


def read_vocabulary(folder: Path) -> tuple[bytes, int]:
  """(what data.tokenizer.Tokenizer reads, entries) of a folder's tokenizer. UserError: none, or one of another kind."""
  path = next((folder / name for name in FILES[:3] if (folder / name).is_file()), None)
  if path is None:
    raise UserError(f"{folder}: no tokenizer in it: neither {SENTENCEPIECE} nor tokenizer.json nor vocab.json")
  if path.name == SENTENCEPIECE:
    vocabulary = path.read_bytes()
  elif path.name == "tokenizer.json":
    vocabulary = _from_json(path)
  else:
    vocabulary = _from_merges(path)
  return vocabulary, Tokenizer(path, vocabulary).size


def _from_json(path: Path) -> bytes:
  """A byte-level BPE's file as it is; of a unigram model SentencePiece's file, made anew."""
  try:
    content = path.read_bytes()
    whole = json.loads(content)
    model = whole["model"]
    if model.get("type", "BPE") == "BPE":
      return content
    if model["type"] != "Unigram" or model.get("byte_fallback"):
      raise UserError(f"{path}: a tokenizer of kind {model['type']}; XLM-R's unigram or RoBERTa's byte-level BPE is wanted")
    pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    normalizer = whole.get("normalizer") or {}
    normalizers = normalizer.get("normalizers", [normalizer])
    charsmap = next(
      (base64.b64decode(of["precompiled_charsmap"]) for of in normalizers if of.get("type") == "Precompiled"), b""
    )
    added = {of["content"]: of["id"] for of in whole.get("added_tokens", [])}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: cannot be read ({error!r}); fetch it again") from None
  if pieces and pieces[-1][0] == MASK:
    pieces.pop()
  if tuple(piece for piece, _ in pieces[:4]) != SPECIALS or added.get(MASK, len(pieces)) != len(pieces):
    raise UserError(
      f"{path}: begins with {[piece for piece, _ in pieces[:4]]} and has {MASK} at {added.get(MASK)}; XLM-R's "
      f"begins with {list(SPECIALS)} and has it last"
    )
  kinds = [("<unk>", 0.0, sentencepiece.UNKNOWN), *((piece, 0.0, sentencepiece.CONTROL) for piece in ("<s>", "</s>"))]
  return sentencepiece.serialize(
    sentencepiece.Vocabulary([*kinds, *((piece, score, sentencepiece.NORMAL) for piece, score in pieces[4:])], charsmap),
    "nmt_nfkc" if charsmap else "identity",
  )


def _from_merges(path: Path) -> bytes:
  """RoBERTa's vocab.json and merges.txt as one tokenizer.json."""
  merges = path.with_name("merges.txt")
  if not merges.is_file():
    raise UserError(f"{merges}: missing; {path.name} is one half of a byte-level BPE")
  try:
    vocabulary = {str(piece): int(id) for piece, id in json.loads(path.read_text(encoding="utf-8")).items()}
    lines = merges.read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
  except (ValueError, AttributeError, TypeError) as error:
    raise UserError(f"{path}: cannot be read ({error!r}); fetch it again") from None
  return json.dumps(
    _tokenizer_json(
      [(id, piece) for piece, id in vocabulary.items() if piece in (*SPECIALS, MASK)],
      None,
      {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
      {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocabulary,
        "merges": pairs,
      },
      {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ),
    ensure_ascii=False,
  ).encode()


def write_tokenizer(out: Path, vocabulary: bytes, max_tokens: int) -> None:
  """Writes the files of a vocabulary into a folder. UserError: a SentencePiece model that tokenizers cannot express."""
  byte_level = vocabulary[:1] == b"{"
  if byte_level:
    of = json.loads(vocabulary)["model"]
    (out / "tokenizer.json").write_bytes(vocabulary)
    (out / "vocab.json").write_text(json.dumps(of["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in of["merges"])
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
  else:
    text = json.dumps(fast_tokenizer(sentencepiece.parse(vocabulary)), ensure_ascii=False)
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    (out / SENTENCEPIECE).write_bytes(vocabulary)
  mask = {key: value for key, value in _added(0, MASK).items() if key != "id"}
  # Without the name of <unk> for SentencePiece: transformers would cut it out of texts, where fairseq has "<", "unk", ">".
  specials = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    **({"unk_token": "<unk>"} if byte_level else {}),
  }
  # Not "XLMRobertaTokenizer": transformers 5 would build that class's own pipeline around the pieces, which puts a space
  # behind every <mask>.
  kind = {"tokenizer_class": "RobertaTokenizer" if byte_level else "PreTrainedTokenizerFast"}
  _write(
    out / "tokenizer_config.json",
    {
      **kind,
      **specials,
      "mask_token": {"__type": "AddedToken", **mask},
      "model_max_length": max_tokens,
      "model_input_names": ["input_ids", "attention_mask"],
      "clean_up_tokenization_spaces": False,
    },
  )
  _write(out / "special_tokens_map.json", {**specials, "mask_token": mask})


def fast_tokenizer(vocabulary: sentencepiece.Vocabulary) -> dict:
  """The tokenizer.json of a SentencePiece unigram model. UserError: it has what cannot be said there."""
  kinds = {kind for _, _, kind in vocabulary.pieces[3:]}
  if vocabulary.model_type != sentencepiece.UNIGRAM or vocabulary.byte_fallback or kinds - {sentencepiece.NORMAL}:
    raise UserError(
      "the run's vocabulary is a SentencePiece model with bytes, symbols of the user's or merges; only plain "
      "unigram models can be exported"
    )
  normalizers = []
  if vocabulary.charsmap:
    normalizers.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(vocabulary.charsmap).decode()})
  if vocabulary.remove_extra_whitespaces:
    # A space at the beginning stays: it is the "▁" that would be put there, and behind a <mask> it means one.
    normalizers += [
      {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
      for pattern, content in ((" {2,}", " "), (" +$", ""))
    ]
  # "first": not behind a <mask>.
  spaces = {
    "type": "Metaspace",
    "replacement": "▁",
    "split": True,
    "prepend_scheme": "first" if vocabulary.add_dummy_prefix else "never",
  }
  # SentencePiece never cuts a control piece out of a text; here the score must see to it.
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


def _tokenizer_json(specials: list[tuple[int, str]], normalizer, pre_tokenizer, model, decoder) -> dict:
  """A tokenizer.json whose texts are `<s> A </s>` and `<s> A </s></s> B </s>`, all of token type 0."""
  special = lambda id: {"SpecialToken": {"id": id, "type_id": 0}}  # noqa: E731
  text = lambda id: {"Sequence": {"id": id, "type_id": 0}}  # noqa: E731
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
    "added_tokens": [_added(*of) for of in sorted(specials)],
    "normalizer": normalizer,
    "pre_tokenizer": pre_tokenizer,
    "post_processor": template,
    "decoder": decoder,
    "model": model,
  }


def _added(id: int, content: str) -> dict:
  """A special token. The mask takes the space before it: it stands for a piece with its space."""
  return {
    "id": id,
    "content": content,
    "single_word": False,
    "lstrip": content == MASK,
    "rstrip": False,
    "normalized": False,
    "special": True,
  }


def _write(path: Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
