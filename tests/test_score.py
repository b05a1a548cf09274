"""Scoring a run's checkpoints on rows, and the run's pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from xlmr_jax.commands import score
from xlmr_jax.errors import UserError
from xlmr_jax.report import pictures as report


def test_training_lowers_the_score_of_its_rows(tiny_run, tiny_rows, monkeypatch):
  monkeypatch.chdir(tiny_run.parent)
  tiny_run = Path(tiny_run.name)  # a relative workdir too
  before, after = (score.score(tiny_run, tiny_rows, which, passes=2) for which in ("initial", "latest"))
  assert before["step"] == 0 and after["step"] == 12 and set(after["languages"]) == set(tiny.ROWS)
  for name in tiny.ROWS:
    assert after["languages"][name]["loss"] < before["languages"][name]["loss"]
    assert 4.0 < before["languages"][name]["loss"] < 5.0  # about ln 90
  again = score.score(tiny_run, tiny_rows, "12", passes=2)
  assert again == after


def test_bits_per_byte_is_loss_times_tokens_over_bytes(tiny_run, tiny_rows, tiny_store):
  of = score.score(tiny_run, tiny_rows, passes=1)["languages"]["aa"]
  counts = tiny_store.manifest["languages"]["aa"]["train"]
  assert of["bits_per_byte"] == pytest.approx(of["loss"] / np.log(2) * counts["pieces"] / counts["bytes"])


def test_refusals(tiny_run, tiny_rows, tmp_path):
  with pytest.raises(UserError, match=r"--checkpoint=5: .* has (4, )?8, 12, latest, initial"):
    score.score(tiny_run, tiny_rows, "5")
  with pytest.raises(UserError, match=r"config.json is missing"):
    score.score(tmp_path, tiny_rows)
  with pytest.raises(UserError, match="--passes=0"):
    score.score(tiny_run, tiny_rows, passes=0)
  damaged = shutil.copytree(tiny_run, tmp_path / "damaged")
  data = max((damaged / "checkpoints" / "12").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
  data.write_bytes(data.read_bytes()[:-1])
  with pytest.raises(UserError, match="checkpoint 12 is damaged"):
    score.score(damaged, tiny_rows)


def test_unigram_entropy_is_that_of_the_rows(tiny_store):
  ids = tiny_store.read("train", np.full(7, 2), np.arange(7))
  pieces = ids[ids > 3].tolist()
  p = np.array([pieces.count(x) for x in set(pieces)]) / len(pieces)
  assert report.unigram_entropy(tiny_store)["cc"] == pytest.approx(float(-(p * np.log(p)).sum()))


def test_pictures(tiny_run, tmp_path):
  report.held_out_picture(tiny_run, tmp_path / "a.png")
  report.languages_picture(
    {"aa": 2.0, "bb": 3.0}, {"aa": 1.0, "bb": 2.5}, tmp_path / "b.png", label="x", title="y", bound={"aa": 1.5, "bb": 2.0}
  )
  assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png"))
  with pytest.raises(UserError, match=r"held_out.jsonl is missing"):
    report.held_out_picture(tmp_path, tmp_path / "c.png")
