import json
from pathlib import Path

import pytest

from xlmr_jax.data import sentencepiece
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE, PAD, UNK

WORDS = [(animal, n, thing) for animal in ("cat", "dog") for n in range(60) for thing in ("hut", "stone")]
TEXT = [f"the {animal} sees {n} of the {thing}s" for animal, n, thing in WORDS]


@pytest.fixture(scope="module")
def xlmr(shared):
  return open_tokenizer(shared / "data" / "tokenizer" / "xlmr.spm.model")


def train(path: Path, **options) -> Path:
  import sentencepiece

  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(TEXT), model_prefix=str(path), vocab_size=34, minloglevel=2, **options
  )
  return path.with_suffix(".model")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  return open_tokenizer(train(tmp_path_factory.mktemp("vocabulary") / "small"))


def test_reproduces_published_encodings(xlmr):
  vectors = json.loads(xlmr.path.with_name("reference_vectors.json").read_text(encoding="utf-8"))
  assert len(vectors) >= 10
  for vector in vectors:
    assert xlmr.encode(vector["text"]) == vector["ids"], vector["text"]
  assert (xlmr.size, xlmr.mask_id) == (250_002, 250_001)


def test_id_layout(small):
  assert small.size == 34 + 2 and small.mask_id == 35
  pieces = [small.piece(i) for i in range(small.size)]
  assert pieces[:4] == ["<s>", "<pad>", "</s>", "<unk>"] and pieces[-1] == "<mask>"
  assert len(set(pieces)) == small.size
  assert small.piece(FIRST_PIECE) == small._processor.IdToPiece(3)
  for outside in (-1, small.size):
    with pytest.raises(IndexError, match="outside the vocabulary of 36"):
      small.piece(outside)


def test_text_comes_back(small):
  for text in TEXT[::17]:
    ids = small.encode(text)
    assert ids[0] == BOS and ids[-1] == EOS
    assert all(FIRST_PIECE <= i < small.mask_id for i in ids[1:-1])
    assert small.decode(ids) == text
    assert small.decode([*ids, PAD, PAD]) == text
  masked = [*small.encode("the cat"), small.mask_id, *small.encode("stones")]
  assert small.decode(masked) == "the cat<mask> stones"


def test_unknown_characters_become_unk(small):
  assert UNK in small.encode("the 猫") and UNK not in small.encode("the cat")


def test_lines_are_the_texts_without_specials(small):
  lines = [*TEXT[:50], "", "猫"]
  for threads in (1, 2):
    encoded = small.encode_lines(lines, threads)
    assert all(ids.dtype == "int32" for ids in encoded)
    assert [ids.tolist() for ids in encoded] == [small.encode(line)[1:-1] for line in lines]
  assert small.encode_lines([]) == []


OFFSETS = {  # text: what each piece stands for in it
  "  Hello  wórld ﬁne ½ ㎏ ": ["Hello", "w", "ór", "ld", "ﬁne", "½", "㎏"],
  "你好，世界😀x": ["", "你好", "，", "世界", "😀", "x"],
  "กำลังน้ำ": ["กำลัง", "น้ำ"],
  "e\u0301tude ｶﾞ x": ["", "e\u0301tude", "", "ｶﾞ", "x"],
  "a\u200bb \u00a0 c\u0007d \u3000": ["a", "b", "c\u0007d"],
  "a ﷺ yes": ["a", "ﷺ", "ﷺ", "ﷺ", "ﷺ", "yes"],  # one character, four words
  "𐐷 a": ["", "𐐷", "a"],
  "": [],
  " \n ": [],
}


def test_offsets_are_of_the_text_itself(xlmr):
  for threads in (1, 2):
    encoded = xlmr.encode_with_offsets(list(OFFSETS), threads)
    for (text, expected), (ids, starts, ends) in zip(OFFSETS.items(), encoded, strict=True):
      assert [text[start:end] for start, end in zip(starts, ends)] == expected
      assert ids.dtype == starts.dtype == ends.dtype == "int32"
      assert ids.tolist() == xlmr.encode(text)[1:-1]
  assert xlmr.encode_with_offsets([]) == []


def test_offsets_cover_the_text(small):
  texts = [*TEXT[:50], "the  猫 cat\u3000sees", "ﬁve\u200b stones "]
  for text, (ids, starts, ends) in zip(texts, small.encode_with_offsets(texts), strict=True):
    assert ids.tolist() == small.encode(text)[1:-1]
    covered = {at for start, end in zip(starts, ends) for at in range(start, end)}
    assert covered == {at for at, letter in enumerate(text) if not letter.isspace() and letter != "\u200b"}
    assert all(starts[1:] >= starts[:-1]) and all(ends[1:] >= ends[:-1]) and all(ends >= starts)


@pytest.mark.parametrize("content", [None, b"", b"no model at all", b"\n\x03abc"])
def test_refuses_what_is_no_model(tmp_path, content):
  path = tmp_path / "vocabulary.model"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=r"vocabulary\.model"):
    open_tokenizer(path)


@pytest.mark.parametrize(
  "end, message",
  [
    (b"00000000x6", "ends with b'00000000x6', which is no number of rows"),
    (b"\xff" * 10, "which is no number of rows of a padded embedding; the file is damaged"),
    (b"0000000003", "3 rows of a padded embedding for"),
    (b"9999999999", "9999999999 rows of a padded embedding for"),
  ],
)
def test_refuses_a_padded_model_whose_last_bytes_are_damaged(small, tmp_path, end, message):
  path, padded = tmp_path / "vocabulary.model", sentencepiece.with_rows(small.model, small.size + 6)
  assert open_tokenizer(path, padded).size == small.size + 6
  with pytest.raises(UserError, match=message) as refused:
    open_tokenizer(path, padded[:-10] + end)
  assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_refuses_another_layout(tmp_path):
  with pytest.raises(UserError, match="first three pieces"):
    open_tokenizer(train(tmp_path / "t5", pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
