"""The exported tokenizer gives our ids in transformers; vocabularies come out of folders as they went in."""

import json
import random
import unicodedata

import pytest

from tests import hugging_face as hf
from xlmr_jax.data import sentencepiece_file
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface import sentencepiece_json, tokenizer

LINES = 10_000
MASKED = [
  "Paris is the <mask> of France.",
  "巴黎是<mask>国的首都。",
  "กรุงเทพ<mask>ประเทศไทย",
  "a <mask><mask>, b<mask>.",
  "<mask> x",
  "x<mask>",
  " <mask>\u3000y\u200b<mask>z",
  "the <mask>",
]


def exported(folder, vocabulary, model_type="xlm-roberta"):
  """The folder's AutoTokenizer."""
  transformers = pytest.importorskip("transformers")
  folder.mkdir()
  tokenizer.write_tokenizer(folder, open_tokenizer(folder, vocabulary), 512)
  (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
  return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def xlmr(shared, tmp_path_factory):
  """(ours, transformers') with XLM-R's own vocabulary."""
  path = shared / "data" / "tokenizer" / "xlmr.spm.model"
  return open_tokenizer(path), exported(tmp_path_factory.mktemp("xlmr") / "out", path.read_bytes())


def why(text, ours, theirs, scores):
  """The kind of a difference: code points that SentencePiece joins and tokenizers leaves apart, or two cuts of one score."""
  if any(unicodedata.normalize("NFC", text[i : i + 2]) != text[i : i + 2] for i in range(len(text) - 1)):
    return "two code points that are one"
  return "equal scores" if abs(sum(scores[i - 1] for i in ours) - sum(scores[i - 1] for i in theirs)) < 1e-3 else None


@pytest.mark.slow
def test_ten_thousand_lines_of_all_languages(shared, xlmr, capsys):
  """Any line that differs is listed, and is one of the two kinds that tokenizers cannot do as SentencePiece."""
  ours, theirs = xlmr
  rng, drawn = random.Random(0), []
  files = sorted((shared / "data" / "tiny100").glob("*.txt"))
  for path in files:
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    quota = -(-LINES // len(files))
    drawn += [(path.stem, line) for line in rng.sample(lines, min(len(lines), quota))]
  assert len(drawn) >= LINES * 0.99 and len({name for name, _ in drawn}) == len(files) >= 90
  texts = [line for _, line in drawn]
  found = theirs(texts, add_special_tokens=False).input_ids
  differ = [i for i, (a, b) in enumerate(zip(ours.encode_lines(texts), found)) if a.tolist() != b]
  scores = [score for _, score, _ in sentencepiece_file.parse(ours.model).pieces]
  for i in differ:
    kind = why(texts[i], ours.encode(texts[i])[1:-1], found[i], scores)
    with capsys.disabled():
      print(f"\n{drawn[i][0]}: {kind}: {texts[i][:80]!r}")
    assert kind, texts[i]
  with capsys.disabled():
    print(f"\n{len(differ)} of {len(texts)} lines in {len(files)} languages differ")
  assert len(differ) <= len(texts) // 1000


def test_published_encodings(shared, xlmr):
  vectors = json.loads((shared / "data" / "tokenizer" / "reference_vectors.json").read_text(encoding="utf-8"))
  assert len(vectors) >= 10
  for vector in vectors:
    assert xlmr[1](vector["text"]).input_ids == vector["ids"], vector["text"]


def test_masks_and_pairs_of_xlmr(xlmr):
  ours, theirs = xlmr
  for text in MASKED:
    assert theirs(text).input_ids == ours.encode_masked(text), text
  assert (theirs.mask_token_id, theirs.pad_token_id, len(theirs)) == (250_001, 1, 250_002)
  # no space between Thai or Chinese and a mask: neither does a piece for one come in
  assert 6 not in ours.encode_masked("巴黎是<mask>国的首都。")[2:] and ours.piece(6) == "▁"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  vocabulary = hf.vocabulary()
  return open_tokenizer("small", vocabulary), exported(tmp_path_factory.mktemp("small") / "out", vocabulary)


def test_a_vocabulary_of_our_own(small):
  ours, theirs = small
  for text in ["the cat, sees  a ½ hut ", "", " ", "巴黎是", "猫 the", "ｆｕｌｌ"]:
    assert theirs(text).input_ids == ours.encode(text), text
  for text in MASKED:
    assert theirs(text).input_ids == ours.encode_masked(text), text
  pair = theirs("the cat", "sees")
  assert pair.input_ids == [*ours.encode("the cat"), 2, *ours.encode("sees")[1:]] and "token_type_ids" not in pair
  assert theirs.decode(theirs("the cat sees").input_ids, skip_special_tokens=True) == "the cat sees"
  assert theirs.model_max_length == 512


def test_saved_again_by_transformers_it_is_the_same(small, tmp_path):
  theirs = small[1]
  theirs.save_pretrained(tmp_path)
  (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
  again = type(theirs).from_pretrained(tmp_path)
  for text in [*MASKED, "the cat, sees"]:
    assert again(text).input_ids == theirs(text).input_ids


def test_a_sentencepiece_model_out_of_tokenizer_json(small, tmp_path):
  """As transformers 5 saves XLM-R: without the SentencePiece file."""
  ours = small[0]
  tokenizer.write_tokenizer(tmp_path, ours, 512)
  (tmp_path / tokenizer.SENTENCEPIECE).unlink()
  vocabulary, size = tokenizer.read_vocabulary(tmp_path)
  made = open_tokenizer("made", vocabulary)
  assert (size, made.mask_id) == (ours.size, ours.mask_id)
  for text in ["the cat, sees ½ a hut", "巴黎是法国", "ｆｕｌｌ 猫", "  two  spaces "]:
    assert made.encode(text) == ours.encode(text)
  assert [made.piece(i) for i in range(size)] == [ours.piece(i) for i in range(size)]


def test_the_model_file_is_read(small):
  vocabulary = sentencepiece_file.parse(small[0].model)
  assert len(vocabulary.pieces) == small[0].size - 2 and vocabulary.charsmap
  for cut in (b"\x0a\xff", b"\x0f", b"\x0a\x05ab"):
    with pytest.raises(ValueError, match=r"cut off|wire type|no number"):
      sentencepiece_file.parse(cut)


# --- RoBERTa's ---------------------------------------------------------------------------------------------------


def byte_level(folder, specials=("<s>", "<pad>", "</s>", "<unk>")):
  """vocab.json and merges.txt of a small byte-level BPE in RoBERTa's order."""
  tokenizers = pytest.importorskip("tokenizers")
  trained = tokenizers.ByteLevelBPETokenizer()
  trained.train_from_iterator(["the cat sees a hut of stone, é 巴黎"] * 5, vocab_size=290, special_tokens=[*specials])
  folder.mkdir(exist_ok=True)
  trained.save_model(str(folder))
  vocab = json.loads((folder / "vocab.json").read_text())
  (folder / "vocab.json").write_text(json.dumps(vocab | {"<mask>": len(vocab)}))
  return len(vocab) + 1


def test_roberta_s_vocabulary(tmp_path):
  size = byte_level(tmp_path / "source")
  vocabulary, found = tokenizer.read_vocabulary(tmp_path / "source")
  ours = open_tokenizer(tmp_path / "source", vocabulary)
  assert (found, ours.size, ours.mask_id) == (size, size, size - 1)
  theirs = exported(tmp_path / "out", vocabulary, "roberta")
  texts = ["the cat sees", " the cat", "cat é 巴黎 x\n", "", "a  b"]
  for text in texts:
    assert theirs(text).input_ids == ours.encode(text), text
    assert ours.decode(ours.encode(text)) == text
  for text in ["the <mask> sees <mask>.", "巴<mask>黎", "<mask>", "x<mask> y"]:
    assert theirs(text).input_ids == ours.encode_masked(text), text
  assert theirs("a", "b").input_ids == [*ours.encode("a"), 2, *ours.encode("b")[1:]]
  assert ours.encode("<s> </s>").count(0) == 1  # in a text they are text
  ids, starts, ends = ours.encode_with_offsets(["the cat, é"])[0]
  assert ids.tolist() == ours.encode("the cat, é")[1:-1]
  assert "".join(dict.fromkeys("the cat, é"[a:b] for a, b in zip(starts, ends) if a < b)).replace(" ", "") == "thecat,é"
  assert "▁cat" in [ours.piece(i) for i in range(size)]
  with pytest.raises(IndexError):
    ours.piece(size)
  tokenizer.write_tokenizer(tmp_path, ours, 512)
  assert tokenizer.read_vocabulary(tmp_path) == (vocabulary, size)  # tokenizer.json before vocab.json


def test_another_byte_level_layout_is_refused(tmp_path):
  byte_level(tmp_path, ("<pad>", "<s>", "</s>", "<unk>"))
  with pytest.raises(UserError, match="<s> has id 1, not 0 as in RoBERTa"):
    tokenizer.read_vocabulary(tmp_path)
  (tmp_path / "merges.txt").unlink()
  with pytest.raises(UserError, match=r"merges\.txt: missing"):
    tokenizer.read_vocabulary(tmp_path)
  (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordLevel"}}')
  with pytest.raises(UserError, match="tokenizer of kind WordLevel"):
    tokenizer.read_vocabulary(tmp_path)


def small_byte_level(prefix):
  """A tokenizer.json of RoBERTa's kind, in which "he" and "he" behind a space are two pieces."""
  pieces = ["<s>", "<pad>", "</s>", "<unk>", "h", "e", "b", "Ġ", "he", "Ġhe", "Ġb", "<mask>"]
  model = {"type": "BPE", "vocab": {piece: id for id, piece in enumerate(pieces)},
           "merges": [["h", "e"], ["Ġ", "he"], ["Ġ", "b"]]}  # fmt: skip
  step = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
  specials = [(0, "<s>"), (1, "<pad>"), (2, "</s>"), (3, "<unk>"), (11, "<mask>")]
  return sentencepiece_json.tokenizer_json(specials, None, step, model, step)


ROBERTA, FAST = {"tokenizer_class": "RobertaTokenizer"}, {"tokenizer_class": "PreTrainedTokenizerFast"}


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize(
  "config, expected",
  [
    (None, False),
    ({}, False),
    ({"add_prefix_space": True}, True),
    ({"add_prefix_space": False}, False),
    (ROBERTA, False),
    ({"tokenizer_class": "RobertaTokenizerFast"}, False),
    (ROBERTA | {"add_prefix_space": True}, True),
    (ROBERTA | {"add_prefix_space": False}, False),
    (FAST, None),
    (FAST | {"add_prefix_space": True}, None),  # Another class takes the file's.
    (FAST | {"add_prefix_space": False}, None),
  ],
)
def test_the_prefix_space_is_that_of_transformers_class(tmp_path, in_file, config, expected):
  """RoBERTa's class takes it from tokenizer_config.json, by default False; model_type names the class if nothing does."""
  pytest.importorskip("tokenizers")
  (tmp_path / "tokenizer.json").write_text(json.dumps(small_byte_level(in_file)))
  (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
  if config is not None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  ours = open_tokenizer(tmp_path, tokenizer.read_vocabulary(tmp_path)[0])
  has_prefix = in_file if expected is None else expected
  assert ours.encode("he b") == [0, 9 if has_prefix else 8, 10, 2]
  transformers = pytest.importorskip("transformers")
  assert transformers.AutoTokenizer.from_pretrained(tmp_path)("he b").input_ids == ours.encode("he b")


def test_steps_that_robertas_class_would_replace_are_said(tmp_path, capsys):
  pytest.importorskip("tokenizers")
  whole = small_byte_level(True) | {"normalizer": {"type": "Lowercase"}}
  (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(ROBERTA))
  for _ in range(2):
    assert open_tokenizer(tmp_path, tokenizer.read_vocabulary(tmp_path)[0]).encode("HE b") == [0, 9, 10, 2]
  assert capsys.readouterr().err.count("its steps are not those of RoBERTa. They are followed here") == 1
  (tmp_path / "tokenizer.json").write_text(json.dumps(small_byte_level(True)))
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(ROBERTA | {"add_prefix_space": None}))
  with pytest.raises(UserError, match=r"tokenizer_config.json: add_prefix_space is 'None'; it must be true or false"):
    tokenizer.read_vocabulary(tmp_path)


# --- tokens that tokenizer_config.json adds ------------------------------------------------------------------------


def listed(content, **flags):
  return {
    "content": content,
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": True,
    "special": False,
  } | flags


@pytest.mark.parametrize(
  "config, files, expected",
  [
    ({"additional_special_tokens": ["<y>", "<x>"]}, {}, {"<y>": 13, "<x>": 14}),
    ({"extra_special_tokens": ["<x>"], "additional_special_tokens": ["<y>"]}, {}, {"<x>": 13}),
    ({"extra_special_tokens": {"name": "<x>"}}, {}, {"<x>": 13}),
    ({"added_tokens_decoder": {"14": listed("<y>"), "13": listed("<x>")}}, {}, {"<x>": 13, "<y>": 14}),
    (
      {"added_tokens_decoder": {"13": listed("<x>", special=True)}, "additional_special_tokens": ["<x>", "<y>", "[A]"]}, {},
      {"<x>": 13, "<y>": 14},
    ),
    ({"added_tokens_decoder": {"6": listed("b")}}, {}, {"b": 6}),  # a piece of the vocabulary, found in texts now
    ({"added_tokens_decoder": {"12": listed("[A]", lstrip=True)}}, {}, {}),  # other flags for a token of the file
    ({}, {"special_tokens_map.json": {"additional_special_tokens": ["<x>"]}}, {"<x>": 13}),
    ({}, {"added_tokens.json": {"<x>": 13}}, {"<x>": 13}),
  ],
)  # fmt: skip
def test_tokens_beside_a_tokenizer_json_are_added_as_in_transformers(tmp_path, config, files, expected):
  pytest.importorskip("tokenizers")
  whole = small_byte_level(False)
  whole["added_tokens"].append(sentencepiece_json.added_token(12, "[A]"))
  (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
  (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
  for name, content in {"tokenizer_config.json": FAST | config, **files}.items():
    (tmp_path / name).write_text(json.dumps(content))
  vocabulary, size = tokenizer.read_vocabulary(tmp_path)
  ours = open_tokenizer(tmp_path, vocabulary)
  assert size == 13 + sum(id > 12 for id in expected.values()) and ours.encode("[A]") == [0, 12, 2]
  assert {name: ours.encode(name)[1] for name in expected} == expected and ours.mask_id == 11
  special = {*config.get("additional_special_tokens", ()), *config.get("extra_special_tokens", ())}
  assert not {id for name, id in expected.items() if name in special} & set(ours.replacements.tolist())
  transformers = pytest.importorskip("transformers")
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in ("he<x>b <y> [A] b", "[A]<y>he", "b<x>"):
    assert theirs(text).input_ids == ours.encode(text), text


def test_tokens_that_cannot_be_added_are_named(tmp_path):
  pytest.importorskip("tokenizers")
  (tmp_path / "tokenizer.json").write_text(json.dumps(small_byte_level(False)))
  config = tmp_path / "tokenizer_config.json"
  config.write_text(json.dumps({"added_tokens_decoder": {"14": listed("<x>")}}))
  with pytest.raises(UserError, match="adds the token '<x>' with the id 14, and transformers would give it 12"):
    tokenizer.read_vocabulary(tmp_path)
  config.write_text(json.dumps({"additional_special_tokens": ["<x>"]}))
  assert tokenizer.read_vocabulary(tmp_path, rows=13)[1] == 13
  with pytest.raises(UserError, match=r"'<x>', which gets the id 12, and the embedding has 12 rows; remove the token"):
    tokenizer.read_vocabulary(tmp_path, rows=12)
  config.write_text(json.dumps({"additional_special_tokens": ["<mask>", "<s>"]}))
  assert tokenizer.read_vocabulary(tmp_path) == ((tmp_path / "tokenizer.json").read_bytes(), 12)


def test_tokens_beside_both_files(small, tmp_path):
  """A SentencePiece model and its tokenizer.json, to which tokenizer_config.json adds a token: the latter counts."""
  tokenizer.write_tokenizer(tmp_path, small[0], 512)
  config = json.loads((tmp_path / "tokenizer_config.json").read_text())
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"additional_special_tokens": ["<x>"]}))
  vocabulary, size = tokenizer.read_vocabulary(tmp_path)
  assert size == small[0].size + 1 and open_tokenizer(tmp_path, vocabulary).encode("<x>")[1:-1][-1] == size - 1
