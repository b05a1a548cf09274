"""Scoring a run's checkpoints on rows: the same figures as the run's own held-out pass."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import hugging_face as hf
from tests import tiny
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.held_out_score import score
from xlmr_jax.run.logs import read_held_out
from xlmr_jax.run.workdir import Workdir


@pytest.mark.slow
def test_training_lowers_the_loss_of_its_rows(tiny_run, tiny_rows, monkeypatch):
  monkeypatch.chdir(tiny_run.parent)
  tiny_run = Path(tiny_run.name)  # a relative workdir too
  before, after = (score(tiny_run, tiny_rows, which, passes=2) for which in ("initial", "latest"))
  assert before["step"] == 0 and after["step"] == 12 and set(after["languages"]) == set(tiny.ROWS)
  for name in tiny.ROWS:
    assert after["languages"][name]["loss"] < before["languages"][name]["loss"]
    assert 4.0 < before["languages"][name]["loss"] < 5.0  # about ln 90
  again = score(tiny_run, tiny_rows, "12", passes=2)
  assert again == after


@pytest.mark.parametrize("checkpoint", ["8", "12"])
def test_it_is_the_run_s_own_held_out_pass(tiny_run, tiny_rows, checkpoint):
  """The run made it on 8 devices, here one device makes it: the same rows, masks and losses."""
  line = next(line for line in read_held_out(Workdir(tiny_run)) if line["step"] == int(checkpoint))
  scored = score(tiny_run, tiny_rows, checkpoint, passes=1, batch_rows=5, split="held_out")["languages"]
  assert set(scored) == set(line["languages"])
  for name, values in line["languages"].items():
    assert scored[name] == pytest.approx(values, rel=1e-6)


def test_bits_per_byte_is_loss_times_tokens_over_bytes(tiny_run, tiny_rows, tiny_store):
  values = score(tiny_run, tiny_rows, passes=1)["languages"]["aa"]
  counts = tiny_store.manifest["languages"]["aa"]["train"]
  assert values["bits_per_byte"] == pytest.approx(values["loss"] / np.log(2) * counts["pieces"] / counts["bytes"])


def test_refusals(tiny_run, tiny_rows, tmp_path):
  with pytest.raises(UserError, match=r"checkpoint 5: .* has (4, )?8, 12, latest, initial"):
    score(tiny_run, tiny_rows, "5")
  with pytest.raises(UserError, match=r"config.json is missing"):
    score(tmp_path, tiny_rows)
  with pytest.raises(UserError, match="--passes=0"):
    score(tiny_run, tiny_rows, passes=0)
  damaged = shutil.copytree(tiny_run, tmp_path / "damaged")
  data = max((damaged / "checkpoints" / "12").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
  data.write_bytes(data.read_bytes()[:-1])
  with pytest.raises(UserError, match="checkpoint 12 is damaged"):
    score(damaged, tiny_rows)


def test_an_encoder_without_its_head_has_no_masked_loss(tmp_path):
  """The head that is drawn for it would give a loss that looks like any other."""
  rows = tiny.make_store(tmp_path / "rows", hf.vocabulary())
  encoder = {name: value for name, value in hf.tensors().items() if not name.startswith("lm_head.")}
  with pytest.raises(UserError, match="source has no masked-language-model head, so that there is no masked loss"):
    score(hf.make_folder(tmp_path / "source", encoder), rows)
  assert score(hf.make_folder(tmp_path / "whole", hf.tensors()), rows, passes=1)["step"] == 0
