"""The stop rule: what counts as a gain, when it may stop, and the one number of an evaluation."""

import json
import math
import random

import pytest
from ml_collections import ConfigDict

from xlmr_jax.run import stopping


def rule(**changes):
  return ConfigDict({"patience": 2, "min_gain": 0.0, "min_steps": 0, "on_nonfinite": "skip"} | changes)


def history(*scores):
  """Evaluations at steps 10, 20, ..."""
  return [{"step": 10 * (i + 1), "score": score} for i, score in enumerate(scores)]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
  "scores, changes, stops_at",
  [
    ((1, 2, 3, 3, 3, 3), {}, 50),  # equal is no gain
    ((1, 2, 1, 3, 2, 4), {}, None),  # a gain starts the count again
    ((3, 2, 1), {}, 30),
    ((3, 2, 1), {"patience": 1}, 20),
    ((3, 2, 1, 0, -1), {"patience": 0}, None),
    ((3, 2, 1, 0, -1), {"min_steps": 50}, 50),
    ((3, 2, 1, 0, -1), {"min_steps": 51}, None),
    ((3, 2, 1, 5, -1), {"min_steps": 40}, None),  # what happened before min_steps counts, a gain at it too
    ((1.0, 1.3, 1.6, 1.9, 2.2), {"min_gain": 0.5}, None),  # small steps up count together: gains at 1.6 and 2.2
    ((1.0, 1.1, 1.2, 1.9), {"min_gain": 0.5}, 30),
    ((1.0, 1.5, 1.5), {"min_gain": 0.5}, 30),  # more than min_gain
    ((3, None, NAN, INF, 2, 4), {}, None),
    ((3, None, NAN, 4), {"on_nonfinite": "count"}, 30),
    ((None, -INF), {"on_nonfinite": "count"}, 20),
    ((3, 4, NAN, 5), {"on_nonfinite": "stop"}, 30),
    ((3, 4, NAN, 5), {"on_nonfinite": "stop", "min_steps": 31}, None),
    ((3, 4, NAN, 5), {"on_nonfinite": "stop", "patience": 0}, None),
    ((), {}, None),
  ],
)
def test_when_it_stops(scores, changes, stops_at):
  step, decision = stopping.first_stop(history(*scores), rule(**changes))
  assert (step, decision.stop) == (stops_at, stops_at is not None)


def test_what_it_says():
  decision = stopping.decide(history(1.0, 71.25, 71.25, None, 70.0), rule())
  assert decision == (True, "no gain above 0 in 2 evaluations up to step 50 (best 71.25 at step 20)", 20, 71.25, 2)
  decision = stopping.decide(history(1.0, 1.2), rule(min_gain=0.5))
  assert (decision.best_step, decision.since) == (20, 1)  # the best one need not be a gain
  assert stopping.decide([], rule()) == (False, "no score yet", None, None, 0)


def test_replay_is_what_was_decided_live():
  rng = random.Random(0)
  stopped = 0
  for _ in range(300):
    scores = [rng.choice([None, NAN, rng.random(), rng.random(), 0.5]) for _ in range(12)]
    drawn = rule(
      patience=rng.randrange(4),
      min_gain=rng.choice([0.0, 0.1]),
      min_steps=rng.choice([0, 60]),
      on_nonfinite=rng.choice(["skip", "count", "stop"]),
    )
    live, seen = None, []
    for entry in history(*scores):
      seen.append(entry)
      if stopping.decide(seen, drawn).stop:
        live = entry["step"]
        break
    stopped += live is not None
    assert stopping.first_stop(history(*scores), drawn)[0] == live
  assert 50 < stopped < 250


EVALUATION = {
  "scores": {
    "panx": {"de": {"f1": [0.5, 0.7], "em": [0.0, 0.0]}, "sw": {"f1": [0.2, 0.2]}},
    "xnli": {"en": {"acc": [0.9, 0.7]}},
  },
  "metrics": {"panx": "f1", "xnli": "acc"},
  "errors": {},
}


@pytest.mark.parametrize(
  "score, expected", [("", 0.6), ("panx", 0.4), ("xnli", 0.8), ("panx/sw", 0.2), ("panx/fr", None), ("pawsx", None)]
)
def test_score_of(score, expected):
  found = stopping.score_of(EVALUATION, score)
  assert found is None if expected is None else found == pytest.approx(expected)


def test_a_failed_or_non_finite_task_leaves_no_mean_but_the_others_their_own():
  failed = EVALUATION | {"errors": {"pawsx": "no such file"}}
  assert stopping.score_of(failed) is None
  assert stopping.score_of(failed, "xnli") == pytest.approx(0.8)
  half = EVALUATION | {"errors": {"xnli": "failed with seed 1"}}
  assert stopping.score_of(half, "xnli") is None
  bad = {**EVALUATION, "scores": EVALUATION["scores"] | {"xnli": {"en": {"acc": [0.9, None]}}}}
  assert stopping.score_of(bad) is None and stopping.score_of(bad, "panx") == pytest.approx(0.4)
  assert stopping.score_of({"scores": {}, "errors": {}, "metrics": {}}) is None


def test_what_is_eligible():
  assert [step for step in range(0, 26, 5) if stopping.is_eligible(step, 10, 25)] == [0, 10, 20, 25]
  assert stopping.is_eligible(7, 0, 25)


# --- by the held-out loss --------------------------------------------------------------------------------------------


def lines(*losses):
  return [{"step": 10 * (i + 1), "mean_loss": loss} for i, loss in enumerate(losses)]


def test_held_out_losses_count_down():
  decide = stopping.decide_by_held_out
  assert decide(lines(5.0, 4.0, 3.5), rule()) == (False, "lowest 3.5000 at step 30", 30, 3.5, 0)
  text = "held-out loss has not fallen by more than 0 in 2 passes up to step 50 (lowest 3.5000 at step 30)"
  assert decide(lines(5.0, 4.0, 3.5, 3.5, 3.7), rule()) == (True, text, 30, 3.5, 2)
  assert decide(lines(5.0, 4.9, 4.8), rule(min_gain=0.5)).stop and not decide(lines(5.0, 4.9, 4.4), rule(min_gain=0.5)).stop
  assert (
    not decide(lines(5.0, 6.0, 7.0), rule(min_steps=31)).stop and not decide(lines(5.0, 6.0, 7.0), rule(patience=0)).stop
  )
  assert decide(lines(5.0, NAN), rule(on_nonfinite="stop")).reason.startswith("no finite held-out loss at step 20")
  assert decide([], rule()) == (False, "no held-out loss yet", None, None, 0)


@pytest.mark.slow
def test_a_run_ends_by_its_held_out_loss_and_its_evaluator_does_not_end_it(tiny_rows, tiny_store, tmp_path, capsys):
  from tests import tiny
  from xlmr_jax.evaluation.ledger import Entry, conclude
  from xlmr_jax.run.workdir import Workdir, read_stop

  changes = {"stop__by": "held_out", "stop__patience": 1, "optimizer__peak_lr": 1e-9, "stop__min_gain": 0.01}
  config = tiny.config(tiny_rows, **changes)
  for name, first in (("broken", 3), ("whole", None)):
    workdir = Workdir(tmp_path / name)
    if first:
      assert tiny.run(config, workdir.root, tiny_store, stop=first) == 42
    assert tiny.run(config, workdir.root, tiny_store) == 0
    stop = read_stop(workdir)
    assert stop is not None and stop.step == 4 and "has not fallen by more than 0.01 in 1 passes up to step 4" in stop.reason
    assert max(int(path.name) for path in workdir.checkpoints.iterdir() if path.name.isdigit()) == 4
  assert tiny.run(config, workdir.root, tiny_store) == 0  # It stays stopped.
  assert max(int(path.name) for path in workdir.checkpoints.iterdir() if path.name.isdigit()) == 4
  assert "remove it and run the same command with --config.stop.patience above 1, or 0 for no end" in capsys.readouterr().err
  broken = Workdir(tmp_path / "broken")
  broken.stop.unlink()  # What is said is right: the same rule ends it at the next pass.
  assert tiny.run(config, broken.root, tiny_store) == 0
  stop = read_stop(broken)
  assert stop is not None and stop.step == 8
  falls = tiny.config(tiny_rows, stop__by="held_out", stop__patience=1)
  assert tiny.run(falls, tmp_path / "falls", tiny_store) == 0 and not Workdir(tmp_path / "falls").stop.exists()
  workdir.stop.unlink()
  for step in (2, 3, 4):
    Entry(step, 0.5, {"task": {"en": {"accuracy": [0.5]}}}, {"task": "accuracy"}).write(workdir)
  assert conclude(config, workdir).stop and not workdir.stop.exists()


@pytest.mark.parametrize(("branched_at", "stops"), [(None, True), (20, True), (30, False), (40, False)])
def test_a_branch_counts_held_out_passes_from_its_first_step_on(tmp_path, branched_at, stops):
  """The other run's lines are copied with the checkpoint, and its passes without a gain are not the branch's."""
  from tests import tiny
  from xlmr_jax.run.workdir import RunRecord, Workdir
  from xlmr_jax.training.held_out import stop_by_held_out

  workdir, config = Workdir(tmp_path), tiny.config("rows", stop__by="held_out", stop__patience=2)
  branch = {"run": "there", "step": branched_at, "phases": []} if branched_at else None
  RunRecord(config=config.to_dict(), vocabulary_size=9, tokenizer_sha256="", seq_len=8, branch=branch).write(workdir)
  *before, newest = [line | {"languages": {}} for line in lines(3.5, 4.0, 4.0, 4.0)]
  workdir.held_out_log.write_text("".join(f"{json.dumps(line)}\n" for line in before))
  stop_by_held_out(config, workdir, newest)
  assert workdir.stop.exists() == stops


def test_held_out_passes_are_needed_to_stop_by_them():
  from tests import tiny
  from xlmr_jax.config_checks import check_config
  from xlmr_jax.errors import UserError

  with pytest.raises(UserError, match=r"config\.held_out\.every_steps=0 makes none before the end"):
    check_config(tiny.config("rows", stop__by="held_out", stop__patience=2, held_out__every_steps=0))
  with pytest.raises(UserError, match=r"config\.stop\.by='loss': must be one of score, held_out"):
    check_config(tiny.config("rows", stop__by="loss"))
