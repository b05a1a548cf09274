"""The vocabulary: its sample has the shares asked for, its ids are XLM-R's, and two runs are one."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import vocabulary as benchmark
from xlmr_jax.corpus import memory, vocabulary
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data.mixture import smoothed_shares
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError

ROOT = Path(__file__).parents[1]


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
    path.write_bytes(vocabulary._train(sample, 300, 0.9995, "unigram"))
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
    ({"memory_gb": 0.018}, r"--sentences=2100: .*0\.0\d GB.*0\.02 GB are free; --sentences=\d+ fits"),
    ({"compare": "/nowhere.model"}, "no vocabulary"),
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


# ---- memory ------------------------------------------------------------------------------------------------


def test_memory_is_announced_before_the_training_and_what_fits_is_named(folder, tmp_path, capsys, monkeypatch):
  trained = []
  monkeypatch.setattr(vocabulary, "_train", lambda lines, *_: trained.append(len(lines)) or b"")
  with pytest.raises(UserError, match="fits") as error:
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=600, sentences=90_000, memory_gb=0.05)
  assert not trained and "training 600 pieces on 90,000 paragraphs takes at most" in capsys.readouterr().err
  fit = int(str(error.value).split("--sentences=")[2].split()[0])
  assert 10_000 < fit < 90_000
  with pytest.raises(UserError, match="no SentencePiece model"):  # It goes as far as the model that was not trained.
    vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=600, sentences=fit, memory_gb=0.05)
  assert trained


def test_a_paragraph_that_counts_often_takes_memory_as_often():
  line = "word " * 100
  once, often = vocabulary.memory_needed([f"{line}\t1"] * 1000), vocabulary.memory_needed([f"{line}\t10"] * 1000)
  assert often > 5 * (once - vocabulary.memory_needed([]))
  needed = lambda times: vocabulary.memory_needed([f"{line}\t{times}"])  # noqa: E731
  below, above = 2**31 // 501 - 1, 2**31 // 501 + 1  # from there on, positions need 64 bits
  assert needed(above) > 1.6 * needed(below)


def test_the_limits_of_control_groups_are_seen(tmp_path, monkeypatch):
  monkeypatch.setattr(memory, "_PROC", tmp_path)
  monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
  assert memory.available() is None
  (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
  assert memory.available() == 5000 << 10
  (tmp_path / "self").mkdir()
  (tmp_path / "self" / "cgroup").write_text("0::/box/inner\n")
  inner = tmp_path / "cgroup" / "box" / "inner"
  inner.mkdir(parents=True)
  (inner / "memory.max").write_text("max\n")
  (inner / "memory.current").write_text("1000\n")
  assert memory.available() == 5000 << 10
  (inner.parent / "memory.max").write_text("3000000\n")
  (inner.parent / "memory.current").write_text("1000000\n")
  (inner.parent / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
  assert memory.available() == 2_200_000
  (tmp_path / "self" / "cgroup").write_text("3:cpu,memory:/old\n")
  old = tmp_path / "cgroup" / "memory" / "old"
  old.mkdir(parents=True)
  (old / "memory.limit_in_bytes").write_text("500000")
  (old / "memory.usage_in_bytes").write_text("600000")
  assert memory.available() == 0


# ---- the report --------------------------------------------------------------------------------------------


def test_measure_counts_pieces_words_and_what_is_unknown(folder, tmp_path):
  vocabulary.train_vocabulary(CC100(folder), tmp_path / "v.model", size=600)
  tokenizer = open_tokenizer(tmp_path / "v.model")
  lines = ["αβγ δεικ", "日本 αβγ", ""]
  found = vocabulary.measure(tokenizer, lines)
  pieces = [id for line in lines[:2] for id in tokenizer.encode(line)[1:-1]]
  assert found["characters_per_piece"] == pytest.approx(14 / len(pieces), abs=1e-3)
  assert found["pieces_per_word"] == pytest.approx(len(pieces) / 4, abs=1e-3)
  assert found["unknown_rate"] == pytest.approx(pieces.count(3) / len(pieces), abs=1e-6) and pieces.count(3) == 1
  assert found["character_coverage"] == pytest.approx(1 - 2 / 14, abs=1e-6)
  assert vocabulary.measure(tokenizer, [])["character_coverage"] == 1


def test_the_command_writes_a_picture_and_its_table(folder, tmp_path):
  vocabulary.train_vocabulary(CC100(folder), tmp_path / "other.model", size=400)
  command = [sys.executable, "-m", "xlmr_jax", "train_vocabulary", f"--text={folder}", "--size=600"]
  command += [f"--out={tmp_path / 'v.model'}", f"--compare={tmp_path / 'other.model'}"]
  refused = subprocess.run([*command, f"--report={tmp_path / 'v.pdf'}"], cwd=ROOT, capture_output=True, text=True)
  assert refused.returncode == 1 and "must end in .png" in refused.stderr and not (tmp_path / "v.model").exists()
  done = subprocess.run([*command, f"--report={tmp_path / 'v.png'}"], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  summary = json.loads(done.stdout.splitlines()[-1])
  assert 0 < summary["peak_gb"] <= summary["announced_gb"]
  assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
  report = json.loads((tmp_path / "v.json").read_text())
  assert report["compared"] == "other" and report["sha256"] == summary["sha256"]
  assert [row["language"] for row in report["table"]] == ["el", "en"]
  for row in report["table"]:
    assert row["characters_per_piece"] > row["compared"]["characters_per_piece"]  # A larger vocabulary has longer pieces.
    assert row["character_coverage"] == 1 and row["unknown_rate"] == 0
  assert "announced" not in done.stderr and "takes at most" in done.stderr and "characters/piece" in done.stderr


@pytest.mark.slow
def test_the_benchmark_trains_within_what_was_announced(folder, tmp_path):
  command = [sys.executable, "-m", "benchmarks.vocabulary", f"--text={folder}", "--size=600", "--compare="]
  done = subprocess.run([*command, f"--report={tmp_path / 'report'}"], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["within"] and found["largest"]["size"] > 600
  assert benchmark.measured(json.loads((tmp_path / "report" / "largest.json").read_text())) == found["largest"]


# --- BPE -------------------------------------------------------------------------------------------------------------


def test_bpe_ids_are_those_of_the_library_on_real_text(tmp_path, shared):
  """A BPE of our ids cuts text in 30 languages as SentencePiece does, with offsets and masks that agree."""
  import sentencepiece

  from xlmr_jax.data.sentencepiece_file import parse
  from xlmr_jax.huggingface.tokenizer import why_no_export

  files = sorted((shared / "data" / "tiny100").glob("*.txt"))[::3]
  for file in files:
    (tmp_path / file.name).write_text("\n".join(file.read_text(encoding="utf-8").splitlines()[:80]), encoding="utf-8")
  made = [tmp_path / f"{n}.model" for n in range(2)]
  for out in made:
    summary = vocabulary.train_vocabulary(CC100(tmp_path), out, size=6000, kind="bpe", alpha=0.7, character_coverage=0.999)
    assert summary["size"] == 6000 and summary["announced_gb"] is None
  assert made[0].read_bytes() == made[1].read_bytes()
  assert parse(made[0].read_bytes()).model_type == "bpe"
  ours, theirs = open_tokenizer(made[0]), sentencepiece.SentencePieceProcessor(model_file=str(made[0]))
  assert (
    ours.size == 6000 and ours.mask_id == 5999 and [ours.piece(i) for i in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
  )
  lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()[80:110] if line.strip()]
  found, wanted = ours.encode_lines(lines, 2), theirs.encode(lines)
  assert len(lines) > 500
  for ids, pieces in zip(found, wanted, strict=True):
    assert ids.tolist() == [3 if piece == 0 else piece + 1 for piece in pieces]
    if 3 not in ids:
      assert ours.decode(ids) == theirs.decode(pieces)
  for line, (ids, starts, ends) in zip(lines[::20], ours.encode_with_offsets(lines[::20])):
    assert ids.tolist() == ours.encode_lines([line])[0].tolist() and np.all(starts <= ends)
  assert ours.encode_masked("Paris is <mask> city").count(ours.mask_id) == 1
  assert "model_type=bpe" in why_no_export(ours)
