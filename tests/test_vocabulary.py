"""The vocabulary: its sample has the shares asked for, its ids are XLM-R's, and two runs are one."""

import random

import numpy as np
import pytest

from xlmr_jax.corpus import vocabulary
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data.mixture import smoothed_shares
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
  """Two languages of made-up words, one with twenty times the paragraphs of the other."""
  text = tmp_path / "text"
  text.mkdir()
  for language, letters, paragraphs in (("en", "abdeghiklmnoprstu", 2000), ("el", "αβγδεικλμνοπρστυ", 100)):
    draw = random.Random(language)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(400)]
    lines = [" ".join(draw.choices(words, k=draw.randint(4, 12))) for _ in range(paragraphs)]
    documents = ["\n".join(lines[i : i + 4]) for i in range(0, len(lines), 4)]
    (text / f"{language}.txt").write_text("\n\n".join(documents))
  return text


@pytest.mark.parametrize("count, quota", [(1, 1), (10, 3), (1000, 999), (7, 7), (7, 30), (100_000, 1234)])
def test_choose_takes_exactly_the_quota_evenly(count, quota):
  chosen, times = vocabulary.choose(count, quota, np.random.default_rng(0))
  assert times.sum() == quota and np.all(np.diff(chosen) > 0) and chosen.min() >= 0 and chosen.max() < count
  assert times.max() - min(times.min(), quota // count) <= 1
  if quota < count:  # every stretch of the corpus gives its part
    assert np.abs(np.searchsorted(chosen, count // 2) - quota / 2) <= 1
    other, _ = vocabulary.choose(count, quota, np.random.default_rng(1))
    assert count < 100 or not np.array_equal(chosen, other)


def test_the_sample_has_smoothed_shares(folder):
  source = CC100(folder)
  counts = vocabulary.count_paragraphs(source, source.shards(10_000))
  assert counts == {"el": 100, "en": 2000}
  quotas = np.round(smoothed_shares(np.array(list(counts.values())), 0.3) * 1000).astype(int)
  samples = {
    name: vocabulary._Sample(name, count, quota, seed=0) for (name, count), quota in zip(counts.items(), quotas.tolist())
  }
  seen = {"el": 0, "en": 0}
  for line in vocabulary.draw(source, source.shards(10_000), samples):
    paragraph, often = line.split("\t")
    seen["en" if paragraph.isascii() else "el"] += int(often)
  assert list(seen.values()) == quotas.tolist() and quotas[0] > 2 * counts["el"]  # repeated


def test_layout_size_and_determinism(folder, tmp_path):
  made = [vocabulary.train_vocabulary(CC100(folder), tmp_path / f"{i}.model", size=600, alpha=0.3) for i in range(2)]
  assert (tmp_path / "0.model").read_bytes() == (tmp_path / "1.model").read_bytes()
  assert made[0]["sha256"] == made[1]["sha256"] and made[0]["size"] == 600 and made[0]["languages"] == 2
  tokenizer = open_tokenizer(tmp_path / "0.model")
  assert tokenizer.size == 600 and tokenizer.mask_id == 599
  assert [tokenizer.piece(i) for i in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
  line = (folder / "el.txt").read_text().split("\n")[0]
  ids = tokenizer.encode(line)
  assert tokenizer.decode(ids) == line and 3 not in ids and max(ids) < 599
  assert sorted(path.name for path in tmp_path.iterdir()) == ["0.model", "1.model", "text"]


def test_alpha_moves_the_vocabulary_to_the_smaller_language(folder, tmp_path):
  greek = {}
  for alpha in (0.0, 1.0):
    path = tmp_path / f"{alpha}.model"
    vocabulary.train_vocabulary(CC100(folder), path, size=600, alpha=alpha)
    tokenizer = open_tokenizer(path)
    greek[alpha] = sum(any("α" <= letter <= "ω" for letter in tokenizer.piece(i)) for i in range(4, 599))
  assert greek[0.0] > 1.2 * greek[1.0]


def test_times_are_as_good_as_repetition(folder, tmp_path):
  lines = (folder / "el.txt").read_text().split("\n")
  pieces = []
  for sample in ([f"{line}\t3" for line in lines], [f"{line}\t1" for line in lines for _ in range(3)]):
    path = tmp_path / f"{len(sample)}.model"
    path.write_bytes(vocabulary._train(sample, 300, 0.9995))
    tokenizer = open_tokenizer(path)
    pieces.append([tokenizer.piece(i) for i in range(300)])
  assert pieces[0] == pieces[1]


def test_long_paragraphs_are_cut_not_dropped(folder, tmp_path):
  long = "ж" * 3000 + " " + "щ" * 3000 + " цикл" * 2000
  assert "".join(vocabulary.cut(long)) == long
  assert max(map(len, vocabulary.cut(long))) <= vocabulary.LONGEST_LINE
  assert list(vocabulary.cut("short")) == ["short"]
  (folder / "ru.txt").write_text(long)
  vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=600, alpha=1.0)
  assert 3 not in open_tokenizer(tmp_path / "v.model").encode("цикл ж")  # seen, so not unknown


@pytest.mark.parametrize(
  "change, message",
  [
    ({"size": 60000}, r"--size=60000: too large for this text; at most \d+"),
    ({"size": 20}, r"--size=20: too small for the characters of this text; at least \d+"),
    ({"size": 3}, "too small"),
    ({"alpha": 1.2}, r"alpha.*1\.2"),
    ({"sentences": 1}, "fewer than one"),
    ({"languages": ["xx"]}, "no text of xx"),
    ({"character_coverage": 0.5}, "character_coverage"),
  ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(folder, tmp_path, change, message):
  with pytest.raises(UserError, match=message) as error:
    source = CC100(folder, change.pop("languages", None))
    vocabulary.train_vocabulary(source, tmp_path / "v.model", **{"size": 600, **change})
  assert "\n" not in str(error.value)
  assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_size_limit_named_in_the_message_works(folder, tmp_path):
  with pytest.raises(UserError, match="at most") as error:
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=60000)
  most = int(str(error.value).split()[-1])
  assert vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=most)["size"] == most


def test_existing_output_and_empty_language(folder, tmp_path):
  (tmp_path / "v.model").write_bytes(b"precious")
  with pytest.raises(UserError, match="exists"):
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=600)
  assert (tmp_path / "v.model").read_bytes() == b"precious"
  (folder / "sw.txt").write_text("\n \n")
  with pytest.raises(UserError, match="sw"):
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "w.model", size=600)
