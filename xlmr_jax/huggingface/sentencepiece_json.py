"""A SentencePiece unigram model as a tokenizer.json, and the proof that a tokenizer.json gives the ids of a vocabulary.

Pieces and scores are kept as they are, the normalisation as its compiled table, and a space before a word as "▁". In the
tokenizers library this gives SentencePiece's ids with two exceptions:

- tokenizers looks the table up per grapheme, so that vowels and kana in two code points, which SentencePiece joins, stay
  apart;
- of two ways to cut a text that have equal scores, tokenizers may choose the other one.

Besides, "<s>", "</s>", "<pad>" and "<mask>" in a text are special tokens there. "<unk>" is text, as it is here.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_jax.data import sentencepiece_file as sentencepiece
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.data.tokenizer_json import SPECIALS, XLMR, Layout, library_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface.probe import PROBE
from xlmr_jax.ids import BOS, EOS, MASK, UNK, moved_ids

_NEVER = -1e6  # a score so low that the piece is part of no best way to cut a text
_ALWAYS = 1e3  # a score so high that the piece is part of every best way, as a symbol that the user defined is
_TIE = 1e-3  # two cuts of a text whose scores differ by less are equally good


def fast_tokenizer(path: str | os.PathLike, vocabulary: sentencepiece.Vocabulary) -> dict:
  """The tokenizer.json of a SentencePiece unigram model. path: for messages.

  Raises UserError naming the switch of the model that a tokenizer.json cannot say.
  """
  v = vocabulary
  for switch, is_kept in (
    (f"model_type={v.model_type}", v.model_type == "unigram"),
    ("treat_whitespace_as_suffix=true", not v.treat_whitespace_as_suffix),
    ("escape_whitespaces=false", v.escape_whitespaces),
  ):
    if not is_kept:
      raise UserError(
        f"{path}: a SentencePiece model with {switch}, which Hugging Face's tokenizers cannot do as SentencePiece does; "
        "train a unigram without it (`xlmr train_vocabulary` does)"
      )
  normalizers: list[dict] = []
  if v.charsmap:
    normalizers.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(v.charsmap).decode()})
  if v.remove_extra_whitespaces:
    # With a prefix, a space at the beginning stays. It becomes the "▁" that would be put there, and behind a <mask> it is a
    # space. Without one it goes, as SentencePiece drops it, and with it the space behind a <mask>.
    patterns = {" {2,}": " ", " +$": ""} | ({} if v.add_dummy_prefix else {"^ +": ""})
    normalizers += [_replace({"Regex": pattern}, content) for pattern, content in patterns.items()]
  # Metaspace would keep the words apart, so that pieces with a space inside would never be found.
  split = not any("▁" in text[1:] for text, _, kind in v.pieces[3:] if kind == sentencepiece.NORMAL)
  spaces: dict[str, Any] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": split}
  pre_tokenizer, decoder = spaces, spaces
  if v.add_dummy_prefix:
    decoder = spaces | {"prepend_scheme": "first"}  # "first" puts no "▁" behind a <mask>.
    pre_tokenizer = decoder
    if not v.remove_extra_whitespaces:
      # "first" leaves out the prefix where the text begins with a "▁", and SentencePiece does not. So the prefix is put
      # there as a space, when the text's own spaces are already called "▁".
      normalizers.append(_replace({"String": " "}, "▁"))
      prefix = {"type": "Metaspace", "replacement": " ", "prepend_scheme": "first", "split": False}
      pre_tokenizer = {"type": "Sequence", "pretokenizers": [prefix, spaces]}
  if v.byte_fallback:
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, decoder]}
  # SentencePiece never cuts a control piece out of a text, nor a byte that has a letter. Here only the score prevents it.
  pieces = [(piece, _NEVER) for piece in SPECIALS]
  for id, (text, score, kind) in enumerate(v.pieces[3:], len(pieces)):
    if kind in (sentencepiece.CONTROL, sentencepiece.UNUSED):
      text, score = f"<control {id}>", _NEVER  # Its own name may be one of ours, such as <pad>.
    elif kind == sentencepiece.BYTE:
      score = _NEVER
    elif kind == sentencepiece.USER_DEFINED:
      score = _ALWAYS
    pieces.append((text, score))
  pieces.append((MASK, _NEVER))
  return tokenizer_json(
    [*((id, piece) for piece, id in SPECIALS.items() if id != UNK), (len(pieces) - 1, MASK)],
    {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
    pre_tokenizer,
    {"type": "Unigram", "unk_id": UNK, "vocab": pieces, "byte_fallback": v.byte_fallback},
    decoder,
  )


def _replace(pattern: dict, content: str) -> dict:
  return {"type": "Replace", "pattern": pattern, "content": content}


def tokenizer_json(
  specials: list[tuple[int, str]], normalizer: Any, pre_tokenizer: Any, model: Any, decoder: Any, post_processor: Any = None
) -> dict:
  """A tokenizer.json, by default with XLM-R's template. specials: (id, name) of each special token."""
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [added_token(id, content) for id, content in sorted(specials)],
    "normalizer": normalizer,
    "pre_tokenizer": pre_tokenizer,
    "post_processor": post_processor or template(),
    "decoder": decoder,
    "model": model,
  }


def template(layout: Layout = XLMR, bos: int = BOS, eos: int = EOS) -> dict:
  """The post-processor that makes `<s> A </s>` and `<s> A </s></s> B </s>` of texts A and B, all of token type 0.

  For BERT's layout `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, where B and its [SEP] are of type 1. bos, eos: their ids.
  """
  second = 0 if layout.separators == XLMR.separators else 1

  def special(name: str, type_id: int = 0) -> dict:
    return {"SpecialToken": {"id": name, "type_id": type_id}}

  def text(name: str, type_id: int = 0) -> dict:
    return {"Sequence": {"id": name, "type_id": type_id}}

  single = [special(layout.bos), text("A"), special(layout.eos)]
  between = [special(layout.eos)] * (layout.separators - 1)
  return {
    "type": "TemplateProcessing",
    "single": single,
    "pair": [*single, *between, text("B", second), special(layout.eos, second)],
    "special_tokens": {
      name: {"id": name, "ids": [id], "tokens": [name]} for name, id in ((layout.bos, bos), (layout.eos, eos))
    },
  }


def added_token(id: int, content: str) -> dict:
  """A special token. The mask swallows the space before it, because it stands for a piece with its space."""
  return {"id": id, "content": content, "single_word": False, "lstrip": content == MASK, "rstrip": False,
          "normalized": False, "special": True}  # fmt: skip


def with_ids(added: Sequence[Mapping[str, Any]], vocabulary: Mapping[str, int]) -> list[dict[str, Any]]:
  """Added tokens with an id each: one that has a name alone gets the vocabulary's, or the next one, as in transformers."""
  known = dict(vocabulary) | {token["content"]: token["id"] for token in added if token["id"] is not None}
  new = (token["content"] for token in added if token["content"] not in known)
  known |= {name: id for id, name in enumerate(dict.fromkeys(new), max(known.values(), default=-1) + 1)}
  return [{**token, "id": known[token["content"]]} for token in added]


def prove(whole: dict, ours: Tokenizer, vocabulary: sentencepiece.Vocabulary | None) -> None:
  """Raises UserError, with the text, unless the tokenizers library makes our ids of each line of the probe.

  whole: a tokenizer.json. vocabulary: a SentencePiece model, whose equally good cuts count as equal; None for another kind.
  """
  lines = [*PROBE]
  if vocabulary:
    symbols = [text for text, _, kind in vocabulary.pieces if kind == sentencepiece.USER_DEFINED]
    lines += [form.format(symbol) for symbol in symbols for form in ("{}", "a {} b", "a{}b")]
  theirs = library_tokenizer(ours.path, whole)
  theirs.no_truncation()
  theirs.no_padding()
  encoded = theirs.encode_batch(lines)
  moved = moved_ids(ours.specials)
  wanted = [[moved.get(id, id) for id in ours.encode(line)] for line in lines]
  at = first_difference(wanted, [line.ids for line in encoded], vocabulary)
  if at is not None:
    raise UserError(
      f"{ours.path}: Hugging Face's tokenizers would cut {lines[at]!r} into {' '.join(encoded[at].tokens)!r}, and not into "
      f"{' '.join(map(ours.piece, ours.encode(lines[at])))!r}; such a vocabulary cannot be exported"
    )


def first_difference(
  ours: list[list[int]], theirs: list[list[int]], vocabulary: sentencepiece.Vocabulary | None
) -> int | None:
  """The first of several texts that two tokenizers cut differently, unless both cuts are equally good; None: there is none.

  vocabulary: the SentencePiece model whose ids they are; None for another kind.
  """
  scores = [0.0, *(score for _, score, _ in vocabulary.pieces), 0.0] if vocabulary else []  # by our ids

  def score(ids: list[int]) -> float:
    return sum(scores[id] for id in ids if id != UNK)

  for at, (a, b) in enumerate(zip(ours, theirs)):
    is_tie = vocabulary and max(a + b) < len(scores) and a.count(UNK) == b.count(UNK) and abs(score(a) - score(b)) < _TIE
    if a != b and not is_tie:
      return at
  return None
