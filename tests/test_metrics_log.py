"""What RunLog writes and prints, by hand, without a run: sums, skipped steps, resumption, MFU, bits per byte."""

import json
import types

import numpy as np
import pytest

from tests import tiny
from xlmr_jax.data.rows import RowStore
from xlmr_jax.model.build import family_of
from xlmr_jax.model.xlmr import flops_per_token
from xlmr_jax.run import metrics
from xlmr_jax.run.metrics import Rate, RunLog, duration
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training.held_out import bits_per_nat


def open_log(
  folder, *, start=0, held_out_at=-1, notes=None, train_steps=6, every_steps=2, tensorboard=False, goodput=None, limits=None,
  hparams=None, parallel=(),
):  # fmt: skip
  return RunLog(
    Workdir(folder), start=start, held_out_at=held_out_at, notes=notes, train_steps=train_steps, every_steps=every_steps,
    languages=("aa", "bb"), shares=lambda step: np.array([0.75, 0.25]), epochs=lambda step: np.array([step / 10, step / 4]),
    rate=lambda step: Rate(tokens_per_step=1000, flops_per_token=2e6), tensorboard=tensorboard, goodput=goodput,
    limits=limits, hparams=hparams, parallel=parallel,
  )  # fmt: skip


def metrics_of(step, finite=True):
  """What a train step of number `step` returns: 10 masked tokens, of which 4 + step are in aa."""
  aa = 4.0 + step
  language_loss = np.array([2.0 * aa, 3.0 * (10 - aa)]) if finite else np.array([np.nan, np.nan])
  return {
    "loss_sum": language_loss.sum(), "weight": 10.0, "grad_norm": 1.0 + step if finite else np.inf, "lr": 0.1 * (step + 1),
    "made": finite, "language_loss": language_loss, "language_weight": np.array([aa, 10 - aa]),
    "language_rows": np.array([3.0, 1.0]),
  }  # fmt: skip


def lines_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_the_sums_of_its_steps_divided_once(tmp_path):
  log = open_log(tmp_path)
  assert log.later(0, metrics_of(0)) == []  # fetched one step late
  assert log.later(1, metrics_of(1)) == [(True, 1.0)] and log.flush() == [(True, 2.0)] and log.flush() == []
  log.close()
  (line,) = lines_of(tmp_path / "train.jsonl")
  assert line["step"] == 2 and line["masked_tokens"] == 20 and line["skipped"] == 0
  assert line["loss"] == pytest.approx((2 * 9 + 3 * 11) / 20) and line["grad_norm"] == 1.5 and line["lr"] == 0.2
  assert line["languages"]["aa"] == {"loss": 2.0, "rows": 6, "epochs": 0.2, "share": 0.75, "share_wanted": 0.75}
  assert line["languages"]["bb"] == {"loss": 3.0, "rows": 2, "epochs": 0.5, "share": 0.25, "share_wanted": 0.25}


def test_a_bad_step_is_counted_and_left_out_of_the_averages(tmp_path, capsys):
  log = open_log(tmp_path)
  log.later(0, metrics_of(0))
  assert log.later(1, metrics_of(1, finite=False)) == [(True, 1.0)] and log.flush() == [(False, np.inf)]
  for step in (2, 3):
    log.later(step, metrics_of(step, finite=False))
  log.flush()
  log.close()
  first, second = lines_of(tmp_path / "train.jsonl")
  assert first["skipped"] == 1 and first["masked_tokens"] == 10 and first["loss"] == pytest.approx(2.6)
  assert first["grad_norm"] == 1.0 and first["languages"]["aa"]["rows"] == 6
  assert second["skipped"] == 2 and second["loss"] is None and second["languages"]["bb"]["loss"] is None
  said = capsys.readouterr().out
  assert "loss 2.600" in said and "skipped 1" in said and "loss none" in said


def test_a_sum_begun_before_a_checkpoint_goes_on_after_it(tmp_path):
  """notes() pass through JSON; lines later than the checkpoint are cut off."""
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  for folder in (whole, parts):
    folder.mkdir()
  log = open_log(whole)
  for step in range(6):
    log.later(step, metrics_of(step, finite=step != 2))
  log.flush()
  log.close()
  log = open_log(parts)
  for step in range(3):
    log.later(step, metrics_of(step, finite=step != 2))
  log.flush()
  notes = json.loads(json.dumps(log.notes()))
  log.later(3, metrics_of(3))  # written, but lost to a crash: it is made again
  log.flush()
  log.close()
  assert [line["step"] for line in lines_of(parts / "train.jsonl")] == [2, 4]
  log = open_log(parts, start=3, notes=notes)
  for step in range(3, 6):
    log.later(step, metrics_of(step))
  log.flush()
  log.close()
  assert (whole / "train.jsonl").read_text() == (parts / "train.jsonl").read_text()


@pytest.mark.parametrize(
  "kind, peak", [("TPU v5 lite", 197e12), ("NVIDIA H100 80GB HBM3", 989e12), ("TPU v5p", 459e12), ("cpu", None)]
)
def test_speed_and_mfu(tmp_path, capsys, monkeypatch, kind, peak):
  """Two steps of 1,000 tokens in 0.5 s on two devices; the clock starts anew after a line."""
  clock = types.SimpleNamespace(now=100.0)
  monkeypatch.setattr(metrics, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
  monkeypatch.setattr(metrics.jax, "devices", lambda: [types.SimpleNamespace(device_kind=kind)])
  monkeypatch.setattr(metrics.jax, "device_count", lambda: 2)
  log = open_log(tmp_path, train_steps=1000)
  clock.now += 7.0
  log.restart_clock()  # what came before does not count
  log.later(0, metrics_of(0))
  clock.now += 0.5
  log.later(1, metrics_of(1))
  log.flush()
  log.close()
  (timing,) = lines_of(tmp_path / "timing.jsonl")
  mfu = 2e6 * 4000 / 2 / peak if peak else None
  assert timing == {"step": 2, "step_s": 0.25, "tokens_per_s": 4000.0, "mfu": mfu}
  said = capsys.readouterr().out
  assert said.startswith("step 2/1000  loss 2.550  lr 2.00e-01  4,000 tokens/s")
  assert ("  MFU 0.0%" in said) == (peak is not None) and said.endswith("  4m10s left\n")


def test_held_out_lines(tmp_path, capsys):
  """The mean is over languages with weight, whatever their size; "loss" is over tokens. A later line is cut off."""
  log = open_log(tmp_path)
  assert log.last_held_out is None
  log.held_out(4, np.array([20.0, 12.0]), np.array([10.0, 3.0]), np.array([0.5, 0.25]))
  log.held_out(5, np.array([20.0, 0.0]), np.array([10.0, 0.0]), np.array([0.5, 0.25]))
  log.close()
  first, second = lines_of(tmp_path / "held_out.jsonl")
  assert first["mean_loss"] == 3.0 and first["loss"] == pytest.approx(32 / 13)
  assert first["languages"] == {"aa": {"loss": 2.0, "bits_per_byte": 1.0}, "bb": {"loss": 4.0, "bits_per_byte": 1.0}}
  assert second["mean_loss"] == 2.0 and list(second["languages"]) == ["aa"]
  assert "held-out at step 4: loss 3.000, 1.000 bits per byte (mean of 2 languages)" in capsys.readouterr().out
  log = open_log(tmp_path, held_out_at=4)
  assert log.last_held_out == first and lines_of(tmp_path / "held_out.jsonl") == [first]
  log.close()


def test_bits_per_nat_is_pieces_over_bytes(tmp_path):
  store = RowStore(tiny.make_store(tmp_path / "rows"))
  counts = store.manifest["languages"]["bb"]["train"]
  expected = counts["pieces"] / counts["bytes"] / np.log(2)
  assert bits_per_nat(store, "train")[1] == pytest.approx(expected) and expected > 0


def test_flops_per_token():
  """XLM-R Base at 512 tokens and 80 slots: 6 FLOPs per weight that a token meets, and the scores; 747 M in all."""
  found = flops_per_token(layers=12, hidden=768, ffn=3072, vocabulary=250_112, seq_len=512, slots=80)
  body, scores = 12 * (4 * 768 * 768 + 2 * 768 * 3072), 12 * 2 * 512 * 768
  head = (768 * 768 + 768 * 250_112) * 80 / 512
  assert found == pytest.approx(6 * (body + scores + head)) and round(found / 1e6) == 747
  config = tiny.config(model__layers=12, model__hidden=768, model__ffn=3072)
  assert family_of(config).flops_per_token(config.model, 250_002, 512, 80) == pytest.approx(found)


def test_first_step_and_durations(tmp_path, capsys):
  log = open_log(tmp_path, start=3)
  log.first_step(3, 12.3456, {"compile_s": 4.5, "programs": 7, "from_cache": 2})
  log.close()
  (line,) = lines_of(tmp_path / "timing.jsonl")
  assert line == {"step": 3, "first_step_s": 12.346, "compile_s": 4.5, "programs": 7, "from_cache": 2}
  assert "first step after 12.3 s: compiling 4.5 s, 2 of 7 programs from the cache" in capsys.readouterr().out
  assert [duration(s) for s in (0.4, 59.6, 320, 3599.6, 11_220)] == ["0m00s", "1m00s", "5m20s", "1h00m", "3h07m"]


def test_the_board_gets_what_the_lines_have(tmp_path):
  log = open_log(tmp_path, tensorboard=True)
  seen = {}
  log._board = types.SimpleNamespace(
    add_scalar=lambda name, value, step: seen.update({(name, step): value}), close=lambda: None
  )
  for step in range(2):
    log.later(step, metrics_of(step))
  log.flush()
  log.held_out(2, np.array([20.0, 12.0]), np.array([10.0, 3.0]), np.array([0.5, 0.25]))
  log.close()
  assert seen["loss/aa", 2] == 2.0 and seen["epochs/bb", 2] == 0.5 and seen["held_out/loss", 2] == 3.0
  assert ("speed/mfu", 2) not in seen and seen["speed/tokens_per_s", 2] > 0  # a CPU has no peak in the table


@pytest.mark.parametrize(("parallel", "mean", "named"), [((), 2.5, None), (("bb",), 2.0, ["bb"]), (("aa", "bb"), 2.5, None)])
def test_a_held_out_line_names_the_pairs_that_are_in_no_mean(tmp_path, parallel, mean, named):
  log = open_log(tmp_path, parallel=parallel)
  log.held_out(2, np.array([20.0, 30.0]), np.array([10.0, 10.0]), np.ones(2))
  log.close()
  (line,) = lines_of(tmp_path / "held_out.jsonl")
  assert line["mean_loss"] == mean and line.get("parallel") == named and set(line["languages"]) == {"aa", "bb"}
