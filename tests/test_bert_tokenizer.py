"""WordPiece vocabularies: transformers' ids from every kind of file, in and out; and their training."""

import json
import random

import pytest

from tests import hugging_face as hf
from tests.test_vocabulary import folder  # noqa: F401  A fixture.
from xlmr_jax.corpus import vocabulary
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.wordpiece import SPECIALS, train_wordpiece
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface import tokenizer
from xlmr_jax.huggingface.folder import open_folder
from xlmr_jax.huggingface.probe import PROBE
from xlmr_jax.ids import moved_ids

# As multilingual BERT's vocab.txt begins: the special pieces are neither first nor together.
HEAD = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MASKED = [
  "Paris is the [MASK] of France.",
  "巴黎是[MASK]国的首都。",
  "กรุงเทพ[MASK]ประเทศไทย",
  "a [MASK][MASK], b[MASK].",
  "[MASK] x",
]
CASED = {"do_lower_case": False}


def pieces_of(lines, size=8000):
  """A WordPiece vocabulary by the tokenizers library, in the order of its ids."""
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
  made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
  made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  made.train_from_iterator(
    lines, tokenizers.trainers.WordPieceTrainer(vocab_size=size, special_tokens=HEAD, show_progress=False)
  )
  entries = made.get_vocab()
  return made, sorted(entries, key=entries.__getitem__)


def bert_folder(path, made, pieces, config, kind):
  path.mkdir()
  (path / "config.json").write_text('{"model_type": "bert"}')
  if config is not None:
    (path / "tokenizer_config.json").write_text(json.dumps(config))
  if kind == "vocab.txt":
    (path / kind).write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
  else:
    made.save(str(path / kind))
  return path


def assert_as_transformers(path, out, lines):
  """The ids of a folder are transformers', and those of what is written from it too."""
  transformers = pytest.importorskip("transformers")
  theirs = transformers.AutoTokenizer.from_pretrained(path)
  model, size = tokenizer.read_vocabulary(path)
  ours = open_tokenizer(path, model)
  assert size == ours.size == len(theirs) and ours.separators == 1
  moved = moved_ids(ours.specials)
  expected = theirs(lines, add_special_tokens=False).input_ids
  found = [[moved.get(id, id) for id in ids.tolist()] for ids in ours.encode_lines(lines)]
  assert [line for line, a, b in zip(lines, found, expected, strict=True) if a != b] == []
  for text in MASKED:
    ids = ours.encode_masked(text)
    assert [moved.get(id, id) for id in ids] == theirs(text).input_ids and ids[0] == 0 and ids[-1] == 2
    assert ours.encode_masked(text.replace("[MASK]", "<mask>")) == ids
  out.mkdir()
  tokenizer.write_tokenizer(out, ours, 512)
  (out / "config.json").write_text('{"model_type": "bert"}')
  again = transformers.AutoTokenizer.from_pretrained(out)
  assert again(lines, add_special_tokens=False).input_ids == expected
  for text in MASKED:
    one, two = theirs(text, "a hut"), again(text, "a hut")
    assert one.input_ids == two.input_ids and one.token_type_ids == two.token_type_ids and 1 in one.token_type_ids
  return ours


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
  "config", [CASED, {}, None, CASED | {"strip_accents": True, "tokenize_chinese_chars": False},
             {"do_lower_case": True, "strip_accents": False}]
)  # fmt: skip
def test_ids_of_the_probe(tmp_path, config, kind):
  """What tokenizer_config.json says counts for either file, and the defaults of transformers' class where it is silent."""
  lines = [*PROBE]
  made, pieces = pieces_of(lines * 3, 1200)
  ours = assert_as_transformers(bert_folder(tmp_path / "in", made, pieces, config, kind), tmp_path / "out", lines)
  assert ours.specials == (101, 0, 102, 100) and ours.mask_id == 103
  assert (tmp_path / "out" / "vocab.txt").read_text(encoding="utf-8") == "".join(f"{piece}\n" for piece in pieces)


def test_ids_of_two_thousand_lines_in_many_languages(shared, tmp_path):
  """Trained here on the same text, cased and uncased."""
  files = sorted((shared / "data" / "tiny100").glob("*.txt"))
  rng, lines = random.Random(0), []
  for path in files:
    found = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    lines += rng.sample(found, min(len(found), 23))
  assert len(lines) >= 2000 and len(files) >= 90
  made, pieces = pieces_of(lines)
  for i, config in enumerate((CASED, {})):
    path = bert_folder(tmp_path / f"in{i}", made, pieces, config, "vocab.txt")
    ours = assert_as_transformers(path, tmp_path / f"out{i}", lines)
    if config is CASED:  # The vocabulary covers its own text.
      assert sum(3 in ids for ids in ours.encode_lines(lines)) < len(lines) / 20


def test_pieces_and_texts(tmp_path):
  made, pieces = pieces_of(["the cats sees a hut, unseen"] * 4, 160)
  model, _ = tokenizer.read_vocabulary(bert_folder(tmp_path / "in", made, pieces, CASED, "vocab.txt"))
  ours = open_tokenizer("made", model)
  assert [ours.piece(id) for id in (0, 1, 2, 3, ours.mask_id)] == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
  shown = [ours.piece(id) for id in range(ours.size)]
  assert {"▁the", "▁,"} <= set(shown) and not any("##" in piece for piece in shown)
  text = "the cats, unseen"
  assert ours.decode(ours.encode(text)) == text and ours.decode(ours.encode_masked("the [MASK] sees")) == "the<mask> sees"
  ids, starts, ends = ours.encode_with_offsets([text])[0]
  assert (
    "".join(text[a:b] for a, b in zip(starts, ends)) == text.replace(" ", "") and ids.tolist() == ours.encode(text)[1:-1]
  )
  assert not {0, 1, 2, 3, ours.mask_id} & set(ours.replacements.tolist())
  assert 3 in ours.encode("the ж") and ours.encode("[CLS] [SEP]").count(0) == 1  # In a text they are text.
  with pytest.raises(IndexError):
    ours.piece(ours.size)


@pytest.mark.parametrize(
  "lines, added, message",
  [
    (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], {}, r"vocab.txt: the vocabulary has no \[MASK\]"),
    (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"], {"b": 9}, "the added token 'b' has id 9, which does not follow"),
  ],
)
def test_what_a_vocab_txt_must_have(tmp_path, lines, added, message):
  (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
  (tmp_path / "added_tokens.json").write_text(json.dumps(added))
  with pytest.raises(UserError, match=message):
    tokenizer.read_vocabulary(tmp_path)
  (tmp_path / "vocab.txt").write_text("\n".join([*lines, "[MASK]"]) + "\n")
  (tmp_path / "added_tokens.json").unlink()
  (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "no"}')
  with pytest.raises(UserError, match="do_lower_case is 'no'; it must be true or false"):
    tokenizer.read_vocabulary(tmp_path)


def test_added_tokens_are_found_in_texts(tmp_path):
  made, pieces = pieces_of(["the cats sees a hut"] * 4, 160)
  path = bert_folder(tmp_path / "in", made, pieces, CASED, "vocab.txt")
  (path / "added_tokens.json").write_text(json.dumps({"<hut>": len(pieces)}))
  ours = open_tokenizer("made", tokenizer.read_vocabulary(path)[0])
  assert ours.size == len(pieces) + 1 and len(pieces) in ours.encode("the <hut>") and len(pieces) in ours.replacements


HUT = {"content": "<hut>", "single_word": False, "lstrip": False, "rstrip": False}
MARK = {"content": "[unused9]", "single_word": True, "lstrip": False, "rstrip": False, "normalized": False}


@pytest.mark.parametrize(
  "config, files, special",
  [
    # An entry of the vocabulary, and one behind it that is compared after lower-casing.
    ({"added_tokens_decoder": {"9": MARK | {"special": True}, "N": HUT | {"normalized": True, "special": False}}}, {}, {9}),
    ({"added_tokens_decoder": {"N": HUT | {"normalized": False, "special": True}}}, {}, {"N"}),
    ({}, {"added_tokens.json": {"[unused9]": 9, "<hut>": "N"}}, set()),
    ({"additional_special_tokens": ["[unused9]"]}, {"added_tokens.json": {"<hut>": "N"}}, {9}),
    ({}, {"special_tokens_map.json": {"additional_special_tokens": ["[unused9]", "<hut>"]}}, {9, "N"}),
  ],
)
def test_added_tokens_are_transformers(tmp_path, config, files, special):
  made, pieces = pieces_of(["the cats sees a hut, unused1 in HUTS"] * 4, 190)
  size = len(pieces)
  text = json.dumps(config).replace('"N"', f'"{size}"')
  path = bert_folder(tmp_path / "in", made, pieces, json.loads(text), "vocab.txt")
  for name, content in files.items():
    (path / name).write_text(json.dumps(content).replace(': "N"', f": {size}"))
  lines = ["the <hut> sees [unused9] a", "the <HUT>", "a<hut>[unused9]a", "[unused9]s and s[unused9]", "[unused9]"]
  ours = assert_as_transformers(path, tmp_path / "out", lines)
  drawn = {*ours.replacements.tolist()}
  assert {id for id in (9, size) if id < ours.size and id not in drawn} == {size if id == "N" else id for id in special}


def test_a_vocab_txt_that_is_written_is_read_alike_by_berts_own_class(tmp_path):
  transformers = pytest.importorskip("transformers")
  made, pieces = pieces_of(["The cats sees É, 今天 a hut"] * 4, 190)
  for n, config in enumerate((CASED, {}, CASED | {"strip_accents": True, "tokenize_chinese_chars": False})):
    path = bert_folder(tmp_path / f"in{n}", made, pieces, config, "vocab.txt")
    (tmp_path / f"out{n}").mkdir()
    tokenizer.write_tokenizer(tmp_path / f"out{n}", open_tokenizer(path, tokenizer.read_vocabulary(path)[0]), 512)
    classes = (transformers.BertTokenizer.from_pretrained(where) for where in (path, tmp_path / f"out{n}"))
    first, again = (made(["The cats É 今天"]).input_ids for made in classes)
    assert first == again
    (tmp_path / f"out{n}" / "tokenizer.json").unlink()
    (tmp_path / f"out{n}" / "config.json").write_text('{"model_type": "bert"}')
    settings = json.loads((tmp_path / f"out{n}" / "tokenizer_config.json").read_text())
    (tmp_path / f"out{n}" / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "BertTokenizer"}))
    ours = [open_tokenizer("x", tokenizer.read_vocabulary(where)[0]) for where in (path, tmp_path / f"out{n}")]
    assert ours[0].encode("The cats É 今天") == ours[1].encode("The cats É 今天")


@pytest.mark.parametrize(
  "config, model_config, message",
  [
    ({"tokenizer_class": "BertJapaneseTokenizer"}, {}, "tokenizer_class=BertJapaneseTokenizer"),
    ({}, {"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class=BertJapaneseTokenizer"),
    ({"tokenizer_class": "BertTokenizer", "word_tokenizer_type": "mecab"}, {}, "word_tokenizer_type=mecab"),
    ({"auto_map": {"AutoTokenizer": ["tokenization.KoBert", None]}}, {}, "auto_map"),
  ],
)
def test_the_vocab_txt_of_another_class_is_refused(tmp_path, config, model_config, message):
  made, pieces = pieces_of(["the cats sees a hut"] * 4, 160)
  path = bert_folder(tmp_path / "in", made, pieces, config, "vocab.txt")
  (path / "config.json").write_text(json.dumps({"model_type": "bert"} | model_config))
  with pytest.raises(UserError, match=message):
    tokenizer.read_vocabulary(path)
  for name in ("BertTokenizer", "BertTokenizerFast"):
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "word_tokenizer_type": "basic"}))
    (path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer.read_vocabulary(path)


def test_steps_that_berts_class_would_replace_are_said(tmp_path, capsys):
  made, pieces = pieces_of(["the cats sees a hut"] * 4, 160)
  path = bert_folder(tmp_path / "in", made, pieces, CASED, "tokenizer.json")
  whole = json.loads((path / "tokenizer.json").read_text())
  for n, change in enumerate(({"normalizer": None}, {"pre_tokenizer": {"type": "WhitespaceSplit"}}, {})):
    other = bert_folder(tmp_path / str(n), made, pieces, CASED, "tokenizer.json")
    (other / "tokenizer.json").write_text(json.dumps(whole | change))
    for _ in range(2):
      model, _ = tokenizer.read_vocabulary(other)
    (tmp_path / f"out{n}").mkdir()
    tokenizer.write_tokenizer(tmp_path / f"out{n}", open_tokenizer("x", model), 512)
    assert capsys.readouterr().err.count("its steps are not those of BERT") == (1 if change else 0)
    assert (tmp_path / f"out{n}" / "vocab.txt").exists() == (not change)  # Its readers would cut texts otherwise.


# --- training ------------------------------------------------------------------------------------------------------


def test_training_is_the_same_each_time_and_opens_everywhere(folder, tmp_path):  # noqa: F811
  transformers = pytest.importorskip("transformers")
  made = [
    vocabulary.train_vocabulary(CC100(folder), tmp_path / f"{i}.json", size=700, kind="wordpiece", alpha=0.7)
    for i in range(2)
  ]
  assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()
  assert made[0]["size"] == 700 and made[0]["sha256"] == made[1]["sha256"]
  assert all(row["unknown_rate"] == 0 for row in made[0]["table"])
  ours = open_tokenizer(tmp_path / "0.json")
  assert ours.specials == (2, 0, 3, 1) and ours.size == 700 and len(ours.replacements) == 695
  tokenizer.write_tokenizer(tmp_path / "text", ours, 512)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "text")
  line = (folder / "el.txt").read_text().split("\n")[0]
  assert [moved_ids(ours.specials).get(id, id) for id in ours.encode(line)] == theirs(line).input_ids
  assert ours.decode(ours.encode(line)) == line
  pair = theirs("a", "b")
  assert pair.token_type_ids == [0] * 3 + [1] * 2
  # A RoBERTa's table has one type.
  (tmp_path / "roberta").mkdir()
  tokenizer.write_tokenizer(tmp_path / "roberta", ours, 512, token_types=1)
  assert set(transformers.AutoTokenizer.from_pretrained(tmp_path / "roberta")("a", "b")) == {"input_ids", "attention_mask"}


def test_the_pieces_are_the_characters_and_then_what_is_frequent():
  lines = ["hello hello\t5", "help\t3", "Ωx\t1", "rare\t1"]
  whole = json.loads(train_wordpiece(lines, 5 + 22, 1.0, lower_case=False))
  pieces = list(whole["model"]["vocab"])
  assert pieces[:5] == [*SPECIALS] and {"h", "##e", "Ω", "##x"} <= set(pieces) and "##Ω" not in pieces
  assert {"hel", "hello"} & set(pieces[-4:])
  ours = open_tokenizer("made", json.dumps(whole).encode())
  assert [ours.piece(id) for id in ours.encode("hello")] == ["[CLS]", "▁hello", "[SEP]"]


def test_case_accents_and_rare_characters():
  lines = ["Été à Paris\t10", "été ж\t1"]
  cased, uncased = (json.loads(train_wordpiece(lines, 5 + 18, 0.98, lower)) for lower in (False, True))
  assert "É" in cased["model"]["vocab"] and "E" not in uncased["model"]["vocab"] and "e" in uncased["model"]["vocab"]
  assert "ж" not in cased["model"]["vocab"]  # 1 of 103 characters
  assert cased["normalizer"]["lowercase"] is False and uncased["normalizer"]["lowercase"] is True


@pytest.mark.parametrize(
  "lines, size, message",
  [
    (["abcdefghij\t1"], 16, "--size=16: too small for the characters of this text; at least 24"),
    (["ab ab\t9"], 400, "--size=400: too large for this text; at most 10"),
    (["\t1", " \t4"], 30, "no character that a vocabulary could hold"),
  ],
)
def test_sizes_that_do_not_fit_the_text(lines, size, message):
  with pytest.raises(UserError, match=message):
    train_wordpiece(lines, size, 1.0, lower_case=False)


def test_flags_that_do_not_go_together(folder, tmp_path):  # noqa: F811
  with pytest.raises(UserError, match="--lower_case: only --kind=wordpiece takes it"):
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "x", size=600, lower_case=True)
  with pytest.raises(UserError, match="--kind=words: must be one of unigram, bpe, wordpiece"):
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "x", size=600, kind="words")


def test_roberta_with_ids_of_bert_is_refused(tmp_path):
  """Its rows stay where they are, and its ids would be moved: <s> would read the row of <pad>."""
  source = hf.make_folder(tmp_path / "source")
  for path in source.iterdir():
    if path.name not in ("config.json", "model.safetensors"):
      path.unlink()
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
  entries += [f"##{piece}" for piece in entries[5:]]
  entries += [f"a{i}" for i in range(hf.SIZES.vocabulary - len(entries))]
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.Tokenizer(tokenizers.models.WordPiece({x: i for i, x in enumerate(entries)}, unk_token="[UNK]"))
  made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
  made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  made.save(str(source / "tokenizer.json"))
  with pytest.raises(UserError, match=r"its tokenizer has <s>, <pad>, </s> and <unk> at 2, 0, 3, 1, and a model of type"):
    open_folder(source)
