"""The table of tokenizer pipelines: in, with the ids of their source; out, with the same ids in transformers 5, or refused.

The fast form reads the lines of the probe, the slow one 2,000 lines in more than 90 languages of ../shared.
"""

import io
import json
import random
import unicodedata
from typing import Any

import pytest

from xlmr_jax.data import sentencepiece_file
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface import sentencepiece_json, tokenizer
from xlmr_jax.huggingface.probe import PROBE
from xlmr_jax.ids import UNK

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def unigram(lines, normalizer=None, pre_tokenizer=None):
  """A unigram trained by the tokenizers library, which puts <mask> at 4; with no post-processor and no decoder."""
  import tokenizers
  from tokenizers import models, trainers

  made = tokenizers.Tokenizer(models.Unigram())
  for step, value in (("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer)):
    if value:
      setattr(made, step, value)
  trainer = trainers.UnigramTrainer(
    vocab_size=max(600, 3 * len(lines)), special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
  )
  made.train_from_iterator(lines, trainer)
  return made.to_str().encode()


def byte_level(lines, normalizer=None, pre_tokenizer=None):
  """A byte-level BPE with RoBERTa's post-processor."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers, processors, trainers

  made = tokenizers.Tokenizer(models.BPE())
  if normalizer:
    made.normalizer = normalizer
  made.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
  made.train_from_iterator(lines, trainer)
  made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
  return made.to_str().encode()


def sentencepiece(lines, **options: Any):
  import sentencepiece

  model = io.BytesIO()
  options = {"vocab_size": max(700, 3 * len(lines)), **options}
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(line for line in lines if line.strip()), model_writer=model, minloglevel=2,
    hard_vocab_limit=False, character_coverage=0.9999, **options,
  )  # fmt: skip
  return model.getvalue()


def steps():
  """{name: (how it is trained, its options, the switch that is refused on the way out or "")}."""
  tokenizers = pytest.importorskip("tokenizers")
  n, p = tokenizers.normalizers, tokenizers.pre_tokenizers
  return {
    "unigram: Nmt, NFKC, Lowercase; Metaspace never": (
      unigram, (n.Sequence([n.Nmt(), n.NFKC(), n.Lowercase()]), p.Metaspace(prepend_scheme="never")), ""),
    "unigram: NFKC; Metaspace always": (unigram, (n.NFKC(), p.Metaspace()), ""),
    "unigram: NFD, StripAccents; WhitespaceSplit, Metaspace": (
      unigram, (n.Sequence([n.NFD(), n.StripAccents()]), p.Sequence([p.WhitespaceSplit(), p.Metaspace()])), ""),
    "unigram: NFKC; Metaspace first, Digits": (
      unigram, (n.NFKC(), p.Sequence([p.Metaspace(prepend_scheme="first"), p.Digits(individual_digits=True)])), ""),
    "unigram: Replace, Strip; Punctuation, Metaspace": (
      unigram, (n.Sequence([n.Replace(tokenizers.Regex(" {2,}"), " "), n.Strip()]),
                p.Sequence([p.Punctuation(), p.Metaspace(split=False)])), ""),
    "unigram: none; UnicodeScripts, Metaspace": (unigram, (None, p.Sequence([p.UnicodeScripts(), p.Metaspace()])), ""),
    "byte-level: RoBERTa's": (byte_level, (), ""),
    "byte-level: Lowercase": (byte_level, (n.Lowercase(),), ""),
    "byte-level: NFKC, add_prefix_space": (byte_level, (n.NFKC(), p.ByteLevel(add_prefix_space=True)), ""),
    "byte-level: Digits, ByteLevel": (
      byte_level, (None, p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)])), ""),
    "SentencePiece: as trained here": (sentencepiece, {}, ""),
    "SentencePiece: add_dummy_prefix=false": (sentencepiece, {"add_dummy_prefix": False}, ""),
    "SentencePiece: remove_extra_whitespaces=false": (sentencepiece, {"remove_extra_whitespaces": False}, ""),
    "SentencePiece: both false": (sentencepiece, {"remove_extra_whitespaces": False, "add_dummy_prefix": False}, ""),
    "SentencePiece: split_by_whitespace=false": (sentencepiece, {"split_by_whitespace": False}, ""),
    "SentencePiece: treat_whitespace_as_suffix": (
      sentencepiece, {"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix=true"),
    "SentencePiece: byte_fallback": (sentencepiece, {"byte_fallback": True}, ""),
    "SentencePiece: user_defined_symbols": (sentencepiece, {"user_defined_symbols": ["<url>", "qq!"]}, ""),
    "SentencePiece: pad_id=3, control_symbols": (sentencepiece, {"pad_id": 3, "control_symbols": ["<doc>"]}, ""),
    "SentencePiece: identity": (sentencepiece, {"normalization_rule_name": "identity"}, ""),
    "SentencePiece: nmt_nfkc_cf": (sentencepiece, {"normalization_rule_name": "nmt_nfkc_cf"}, ""),
    "SentencePiece: bpe": (sentencepiece, {"model_type": "bpe"}, "model_type=bpe"),
  }  # fmt: skip


ROWS = [
  pytest.param((name, lines), id=f"{lines}: {name}", marks=[pytest.mark.slow] if lines == "languages" else [])
  for name in steps()
  for lines in ("probe", "languages")
]


@pytest.fixture(scope="module")
def many(shared):
  """2,000 lines in more than 90 languages."""
  files = sorted((shared / "data" / "tiny100").glob("*.txt"))
  rng, drawn = random.Random(0), [*PROBE]
  for path in files:
    found = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    drawn += rng.sample(found, min(len(found), -(-2000 // len(files))))
  assert len(files) >= 90 and len(drawn) >= 2000
  return drawn


@pytest.fixture(scope="module", params=ROWS)
def row(request, tmp_path_factory):
  """(name, the source's file, ours, the switch that is refused, the lines)."""
  name, kind = request.param
  lines = [*PROBE] if kind == "probe" else request.getfixturevalue("many")
  train, options, refused = steps()[name]
  vocabulary = train(lines, **options) if isinstance(options, dict) else train(lines, *options)
  folder = tmp_path_factory.mktemp("source")
  (folder / (tokenizer.SENTENCEPIECE if train is sentencepiece else "tokenizer.json")).write_bytes(vocabulary)
  read, size = tokenizer.read_vocabulary(folder)
  assert read == vocabulary
  ours = open_tokenizer(folder, read)
  assert ours.size == size
  return name, vocabulary, ours, refused, lines


def differ(ours, expected, found, texts):
  """The texts that two cut differently, but for the two kinds that the tokenizers library cannot do as SentencePiece."""
  is_json = ours.model[:1] == b"{"
  vocabulary = None if is_json else sentencepiece_file.parse(ours.model)

  def composed(text):
    return any(unicodedata.normalize("NFC", text[i : i + 2]) != text[i : i + 2] for i in range(len(text) - 1))

  return [
    text
    for text, a, b in zip(texts, expected, found, strict=True)
    if sentencepiece_json.first_difference([list(a)], [list(b)], vocabulary) is not None and (is_json or not composed(text))
  ]


def test_in(row):
  """Ours are the ids of the library that made the file."""
  name, vocabulary, ours, _, lines = row
  found = [ids.tolist() for ids in ours.encode_lines(lines)]
  if name.startswith("SentencePiece"):
    import sentencepiece

    source = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    assert found == [[i + 1 if i else UNK for i in ids] for ids in source.Encode(lines)]
  else:
    import tokenizers

    source = tokenizers.Tokenizer.from_str(vocabulary.decode())
    assert found == [encoded.ids for encoded in source.encode_batch(lines, add_special_tokens=False)]
    assert ours.mask_id == source.token_to_id("<mask>") == 4
    assert all(ours.piece(i) == (source.id_to_token(i) or "").replace("Ġ", "▁") for i in range(ours.size))
  ids = {i for line in found for i in line}
  assert ids <= {UNK, *ours.replacements.tolist()} and not {0, 1, 2, ours.mask_id} & set(ours.replacements.tolist())


def test_out(row, tmp_path):
  """transformers' are ours, or the switch is refused by its name."""
  transformers = pytest.importorskip("transformers")
  name, _, ours, refused, lines = row
  if refused:
    with pytest.raises(UserError, match=refused):
      tokenizer.write_tokenizer(tmp_path, ours, 512)
    return
  tokenizer.write_tokenizer(tmp_path, ours, 512)
  model_type = "roberta" if name.startswith("byte-level") else "xlm-roberta"
  (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  expected = [ours.encode(line) for line in lines]
  assert not differ(ours, expected, theirs(lines).input_ids, lines)
  pair = theirs("the cat", "sees")
  assert pair.input_ids == [*ours.encode("the cat"), 2, *ours.encode("sees")[1:]]
  assert (theirs.mask_token_id, theirs.pad_token_id, len(theirs)) == (ours.mask_id, 1, ours.size)
  # in again, as the ids that went out
  again = open_tokenizer(tmp_path, tokenizer.read_vocabulary(tmp_path)[0])
  assert not differ(ours, expected, [again.encode(line) for line in lines], lines)


@pytest.mark.parametrize("text", ["The river is wide, and nobody", "河很宽，没有人过去", "Холодное утро над рекой."])
def test_beside_a_mask_stand_the_pieces_of_running_text(row, text):
  """Whichever letter is masked, the pieces before and behind it are those that another letter has beside it."""
  ours = row[2]
  letters = ours._letters if hasattr(ours, "_letters") else ours._letters_and_suffix[0]
  compared = 0
  for at in range(len(text)):
    if not text[at].isalpha():
      continue
    try:
      ids = ours.encode_masked(f"{text[:at]}<mask>{text[at + 1 :]}")
    except UserError as error:
      assert "put a space there" in str(error)
      continue
    assert ids[0] == 0 and ids[-1] == 2 and ids.count(ours.mask_id) == 1
    mask = ids.index(ours.mask_id)
    behind = ids[mask + 1 :]
    running = (ours.encode(text[:at] + letter + text[at + 1 :]) for letter in letters)
    assert any(line[:mask] == ids[:mask] and line[len(line) - len(behind) :] == behind for line in running), text[:at]
    compared += 1
  assert compared > 3
