"""The evaluator: every eligible checkpoint once and in order, whatever is killed; nothing damaged is loaded; the stop."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import hugging_face, tiny
from tests.test_checkpoint import abstract, flip, state_of
from xlmr_jax.commands.flags import override_config
from xlmr_jax.config_checks import check_config
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import final_scores, follower
from xlmr_jax.evaluation import ledger as ledgers
from xlmr_jax.evaluation.final_scores import score_final
from xlmr_jax.files import write_json
from xlmr_jax.model.build import params_shapes
from xlmr_jax.run import checkpoint, checkpoint_folder, retention, stopping
from xlmr_jax.run.manifest import verify
from xlmr_jax.run.workdir import RunRecord, Workdir, parse_record, read_record

ROOT = Path(__file__).parents[1]


def config_of(**changes):
  return tiny.config(
    "rows",
    **{"evaluate__tasks": ("t",), "evaluate__wait_s": 0.02, "evaluate__keep_unevaluated": 100, "train_steps": 20} | changes,
  )


def params_abstract():
  return abstract()["params"]


class Fake:
  """A scorer that compares the parameters with those of their step; scores: {step: score of task t, language xx}."""

  def __init__(self, scores=None, pause=0.0, seen=None):
    self.scores, self.pause, self.seen, self.steps = scores or {}, pause, seen, []

  def is_sound(self, params, step):
    np.testing.assert_array_equal(params["w"], state_of(step)["params"]["w"])

  def __call__(self, params, step, seed):
    self.is_sound(params, step)
    if self.seen:
      with self.seen.open("a") as file:
        print(step, file=file)
    time.sleep(self.pause)
    self.steps.append(step)
    return {"t": {"xx": {"acc": self.scores.get(step, step / 100) + seed}}}, {}


def save(workdir, config, steps, pause=0.0):
  """A trainer that saves at these steps."""
  checkpoints = checkpoint.Checkpoints(
    workdir,
    retention.Retention(
      workdir,
      keep_unevaluated=config.evaluate.keep_unevaluated,
      is_eligible=lambda step: stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps),
    ),
  )
  for step in steps:
    checkpoints.save(step, state_of(step), {})
    checkpoints.wait()
    time.sleep(pause)
  checkpoints.close()


def follow(workdir, config, scorer, **options):
  return follower.follow(config, workdir, scorer, params_abstract(), **options)


def ledger(workdir):
  """The files of the ledger, by step."""
  paths = [path for path in workdir.evaluations.glob("*.json") if path.stem.isdigit()]
  return [json.loads(path.read_text()) for path in sorted(paths, key=lambda path: int(path.stem))]


def read(path):
  return json.loads(path.read_text())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A run of checkpoints 4, 8, ..., 20, none of them evaluated."""
  workdir = Workdir(tmp_path_factory.mktemp("saved"))
  save(workdir, config_of(), range(4, 21, 4))
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  return Workdir(shutil.copytree(saved.root, tmp_path / "run"))


def test_every_checkpoint_once_and_in_order(workdir, capsys):
  scorer = Fake({4: 0.3, 8: 0.9, 12: 0.4})
  assert follow(workdir, config_of(evaluate__seeds=2, log__tensorboard=True), scorer) == 0
  assert scorer.steps == [4, 4, 8, 8, 12, 12, 16, 16, 20, 20]
  entries = ledger(workdir)
  assert [entry["step"] for entry in entries] == [4, 8, 12, 16, 20]
  manifest = read(workdir.checkpoints / "8" / "MANIFEST.json")
  assert entries[1]["digest"] == manifest["digest"] and entries[1]["scores"] == {"t": {"xx": {"acc": [0.9, 1.9]}}}
  assert entries[1]["score"] == pytest.approx(1.4) and entries[1]["versions"]["jax"] and entries[1]["seconds"] >= 0
  assert entries[1]["recipe"]["evaluate"]["seeds"] == 2
  assert read(workdir.best_note) == {"step": 8, "score": pytest.approx(1.4)}
  assert [path.name for path in workdir.best.iterdir()] == ["8"] and not (workdir.root / "best.tmp").exists()
  params = checkpoint.restore_params(workdir.best, 8, params_abstract())
  np.testing.assert_array_equal(params["w"], state_of(8)["params"]["w"])
  assert not list(workdir.pins.iterdir()) and not workdir.stop.exists()
  assert list(workdir.evaluation_board.iterdir())
  assert "step 8: score 1.4 (t 1.4)  best 1.4 at step 8" in capsys.readouterr().out
  follow(workdir, config_of(evaluate__seeds=2), scorer)  # all is done
  assert len(scorer.steps) == 10


def test_only_eligible_ones(workdir):
  scorer, announced = Fake(), []
  follow(workdir, config_of(evaluate__every_steps=8, train_steps=20), scorer, before=announced.append)
  assert scorer.steps == announced == [8, 16, 20]


def test_the_rule_ends_it_and_replay_agrees(workdir):
  scorer = Fake({4: 0.3, 8: 0.5, 12: 0.5, 16: 0.4, 20: 0.9})
  rule = {"stop__patience": 2}
  assert follow(workdir, config_of(**rule), scorer) == 0
  assert scorer.steps == [4, 8, 12, 16]
  stop = read(workdir.stop)
  assert stop == {"step": 16, "reason": "no gain above 0 in 2 evaluations up to step 16 (best 0.5 at step 8)"}
  assert follow(workdir, config_of(**rule), scorer) == 0 and scorer.steps[-1] == 16  # stays stopped
  follow(workdir, config_of(**rule), scorer, once=True)
  assert scorer.steps[-1] == 20
  assert read(workdir.stop) == stop
  found = ledgers.replay(config_of(**rule), workdir)
  assert (found["stop"], found["reason"], found["evaluations"]) == (16, stop["reason"], 5)
  assert ledgers.replay(config_of(stop__patience=3), workdir)["stop"] is None


def test_killed_between_its_writes_it_goes_on(workdir):
  """The record is there, best.json, best/ and STOP.json are not: the next start makes them and scores nothing again."""
  scorer = Fake({4: 0.3, 8: 0.2})
  follow(workdir, config_of(stop__patience=1), scorer)
  for path in (workdir.best_note, workdir.stop):
    path.unlink()
  shutil.rmtree(workdir.best)
  (workdir.pins / "8").write_text("{}")
  (workdir.best / "4" / "state").mkdir(parents=True)  # a copy whose manifest was still to come
  follow(workdir, config_of(stop__patience=1), scorer)
  assert scorer.steps == [4, 8] and read(workdir.stop)["step"] == 8
  assert read(workdir.best_note)["step"] == 4 and not (workdir.pins / "8").exists()
  verify(workdir.best / "4")


@pytest.mark.parametrize("name", ["state/_METADATA", "MANIFEST.json"])
def test_a_damaged_one_is_recorded_and_not_loaded(workdir, name, monkeypatch):
  monkeypatch.setattr(follower.time, "sleep", lambda _: None)
  flip(workdir.checkpoints / "8" / name)
  scorer = Fake()
  follow(workdir, config_of(stop__patience=1, stop__on_nonfinite="stop"), scorer)
  assert scorer.steps == [4, 12, 16, 20]  # and it is no evaluation: the rule does not hear of it
  entry = ledger(workdir)[1]
  assert set(entry) == {"step", "error", "sha256"} and entry["step"] == 8 and Path(name).name in entry["error"]


def test_one_removed_before_it_is_pinned_is_recorded(workdir, monkeypatch):
  monkeypatch.setattr(follower.time, "sleep", lambda _: None)
  waiting = follower.waiting_steps

  def too_late(config, folder, **how):
    steps = waiting(config, folder, **how)
    shutil.rmtree(folder.checkpoints / "8", ignore_errors=True)
    return sorted({*steps, 8} - retention.evaluated_steps(folder))

  monkeypatch.setattr(follower, "waiting_steps", too_late)
  scorer = Fake()
  follow(workdir, config_of(), scorer)
  assert scorer.steps == [4, 12, 16, 20] and "dropped" in ledger(workdir)[1]["error"]


def test_one_that_the_trainer_brings_back_is_read(workdir):
  """It was out of sight for a moment, because the trainer had begun to remove it before it was pinned."""
  here, aside = workdir.checkpoints / "4", workdir.checkpoints / "deleting-4"
  here.rename(aside)
  threading.Timer(0.3, lambda: aside.rename(here)).start()
  with retention.pin(workdir, 4):
    assert follower.load(workdir, 4, params_abstract())[1]


def test_a_failing_task_leaves_the_others(workdir):
  class Failing(Fake):
    def __call__(self, params, step, seed):
      scores, _ = super().__call__(params, step, seed)
      if step == 12:
        raise UserError("nothing works")
      return scores, {"u": "no such file"} if step == 8 else {}

  config = config_of()
  config.evaluate.tasks = ("t", "u")
  follow(workdir, config, Failing({4: float("nan")}))
  first, second, third = ledger(workdir)[:3]
  assert first["scores"] == {"t": {"xx": {"acc": [None]}}} and first["errors"] == {"u": "no score"}
  assert second["scores"]["t"]["xx"] == {"acc": [0.08]} and second["errors"] == {"u": "no such file"}
  assert third["scores"] == {} and third["errors"] == {"t": "nothing works", "u": "nothing works"}
  assert not workdir.best_note.exists() and second["score"] is None
  config.stop.score = "t"
  assert ledgers.replay(config, workdir)["best_step"] == 20


@pytest.mark.parametrize(
  "damage",
  [
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "[]",
    lambda text: "{}",
    lambda text: text.replace('"step": 8', '"step": 9'),
    lambda text: json.dumps({**json.loads(text), "scores": []}),
    lambda text: json.dumps({**json.loads(text), "scores": {"t": {"xx": {"acc": ["high"]}}}}),
    lambda text: json.dumps({**json.loads(text), "metrics": {}}),
    lambda text: json.dumps({**json.loads(text), "errors": 3}),
    lambda text: json.dumps({**json.loads(text), "missing": None}),
    lambda text: "[" * 100_000,
  ],
)
def test_a_damaged_entry_is_refused_by_name(workdir, damage):
  follow(workdir, config_of(), Fake())
  path = workdir.evaluation(8)
  sound, damaged = path.read_text(), damage(path.read_text())
  assert damaged != sound
  path.write_text(damaged)
  for use in (
    lambda: follow(workdir, config_of(), Fake()),
    lambda: ledgers.replay(config_of(), workdir),
    lambda: ledgers.conclude(config_of(), workdir),
  ):
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))} cannot be read \(.*\); remove it") as caught:
      use()
    assert "\n" not in str(caught.value)
  path.unlink()  # as the message says
  scorer = Fake()
  follow(workdir, config_of(), scorer)
  assert scorer.steps == [8] and [entry["step"] for entry in ledger(workdir)] == [4, 8, 12, 16, 20]


def test_the_final_table_keeps_what_was_scored_before_of_the_same_checkpoint(tmp_path, monkeypatch, capsys):
  class Scorer:
    def __init__(self, config, vocabulary_size, tokenizer, split, pooler=None):
      self.tasks = config.evaluate.tasks

    def __call__(self, params, step, seed):
      return {task: {"en": {"accuracy": 0.5 + seed / 10}} for task in self.tasks if task != "panx"}, {"panx": "no file"}

    def recipe(self):
      return {task: {"lr": 1e-5} for task in self.tasks}

  monkeypatch.setattr(final_scores, "Scorer", Scorer)
  out = Workdir(tmp_path).final_scores / "best.json"

  def final(*tasks, step=8, model="", digest="", seeds=2):
    config = config_of(evaluate__tasks=tasks, evaluate__seeds=seeds)
    result = score_final(
      out, config, 90, None, lambda: (step, {}), "best", ["zero_shot"], "test", model, digest=digest
    )  # fmt: skip
    return result, read(out)

  final("xnli", "panx")
  result, written = final("mnli")
  assert result["means"] == {"mnli": {"zero_shot": pytest.approx(0.55)}}
  assert "mnli, zero_shot, accuracy" in capsys.readouterr().out
  assert set(written["scores"]) == {"xnli", "mnli"} and set(written["recipe"]) == {"xnli", "panx", "mnli"}
  assert written["errors"] == {"panx": {"zero_shot": "no file"}}
  assert set(final("sst2", step=12)[1]["scores"]) == {"sst2"}
  assert "sst2 of step 12 is replaced" not in capsys.readouterr().err
  assert set(final("xnli", step=12, model="/other")[1]["scores"]) == {"xnli"}  # another folder, whose step is the same
  assert "sst2 of step 12 is replaced" in capsys.readouterr().err
  assert set(final("mnli", step=12, model="/other", digest="1")[1]["scores"]) == {"mnli"}  # another model in the folder
  before = out.read_text()
  assert final("panx", step=16)[0]["failed"] == ["panx"] and out.read_text() == before  # it had nothing to put there
  with pytest.raises(UserError, match=r"holds mnli with .* seeds 2, which do not stand beside split test and seeds 3"):
    final("xnli", step=12, model="/other", digest="1", seeds=3)
  with pytest.raises(UserError, match=r"holds mnli with .* seeds 2, which do not stand beside split test and seeds 3"):
    final("mnli", step=12, model="/other", digest="1", seeds=3)  # Two seeds are not to be lost for the third.
  final("mnli", step=16, model="/other", digest="2", seeds=3)  # the same task of a newer model
  for damage in ("", "[]", '{"scores": 3}', '{"scores": {}}'):
    out.write_text(damage)
    with pytest.raises(UserError, match=r"best\.json cannot be read \(.*\); remove it, or name another file with --out"):
      final("sst2")


def test_the_final_table_keeps_the_other_settings_of_a_task(tmp_path, monkeypatch):
  """Also where a process ends between two settings, and where one of them fails when it is scored again."""
  failing = set()

  class Scorer:
    def __init__(self, config, vocabulary_size, tokenizer, split, pooler=None):
      self.setting, self.lr = config.evaluate.setting, config.evaluate.recipe

    def __call__(self, params, step, seed):
      if self.setting in failing:
        return {}, {"xnli": "no file"}
      return {"xnli": {"en": {"accuracy": 0.5}}}, {}

    def recipe(self):
      return {"xnli": {"lr": self.lr, "setting": self.setting}}

  monkeypatch.setattr(final_scores, "Scorer", Scorer)
  out = tmp_path / "scores.json"

  def final(*settings, recipe="lr=1", step=8):
    config = config_of(evaluate__tasks=("xnli",), evaluate__recipe=recipe)
    score_final(out, config, 90, None, lambda: (step, {}), "best", list(settings), "test")
    return {key: {*read(out)[key].get("xnli", ())} for key in ("scores", "losses", "errors")}

  def of(scores, errors=()):
    return {"scores": {*scores}, "losses": set(), "errors": {*errors}}

  assert final("zero_shot") == of(["zero_shot"])
  both = ["zero_shot", "translate_train_all"]
  assert final("translate_train_all") == of(both)
  failing.add("zero_shot")
  assert final("zero_shot") == of(both, ["zero_shot"])  # It keeps its earlier score, and says what failed now.
  failing.clear()
  assert final("zero_shot") == of(both)
  with pytest.raises(UserError, match=r"holds xnli, translate_train_all, by another recipe \(lr=lr=1 there, lr=2 here\)"):
    final("zero_shot", recipe="lr=2")
  assert final(*both, recipe="lr=2") == of(both)
  assert final("zero_shot", recipe="lr=3", step=12) == of(["zero_shot"])  # Another model, of which nothing else is there.


@pytest.mark.parametrize(
  "changes",
  [{"evaluate__tasks": ("t", "u")}, {"evaluate__languages": ("xx",)}, {"evaluate__seeds": 2}, {"evaluate__recipe": "lr=1"}],
)
def test_scores_that_do_not_compare_are_no_history(workdir, changes):
  shutil.move(workdir.checkpoints / "20", workdir.root / "20")
  follow(workdir, config_of(), Fake(), once=True)
  entries = ledger(workdir)
  shutil.move(workdir.root / "20", workdir.checkpoints / "20")
  with pytest.raises(UserError, match=r"up to step 16 do not compare with config\.evaluate\..*=.* \(was .*\); give what"):
    follow(workdir, config_of(**changes), Fake())
  assert ledger(workdir) == entries
  follow(workdir, config_of(stop__patience=3, evaluate__wait_s=0.1), Fake())  # what no score depends on
  assert [entry["step"] for entry in ledger(workdir)] == [4, 8, 12, 16, 20]


def test_a_checkpoint_that_was_made_again_is_scored_and_kept_again(tmp_path):
  """A run that went back past bad steps: what is in its place is another model, and old score and copy are not its own."""
  workdir, config, scores = Workdir(tmp_path), config_of(), {4: 0.1, 8: 0.2, 12: 0.3, 16: 0.9, 20: 0.4}
  save(workdir, config, range(4, 17, 4))
  follow(workdir, config, Fake(scores), once=True)
  before = verify(workdir.best / "16")["digest"]
  for step in (12, 16):
    shutil.rmtree(workdir.checkpoints / str(step))
  save(workdir, config, [12])
  other = state_of(99)
  checkpoints = checkpoint.Checkpoints(workdir, retention.Retention(workdir, keep=5))
  checkpoints.save(16, other, {})
  checkpoints.close()
  scorer = Fake(scores)
  scorer.is_sound = lambda params, step: None
  follow(workdir, config, scorer, once=True)
  assert 16 in scorer.steps and set(scorer.steps) <= {12, 16}
  now = verify(workdir.checkpoints / "16")["digest"]
  assert now != before and verify(workdir.best / "16")["digest"] == now
  assert [entry["digest"] for entry in ledger(workdir) if entry["step"] == 16] == [now]


def test_a_checkpoint_that_is_made_again_while_it_is_scored(workdir):
  """The scores are of what is gone, and a run that sealed it before they were written cannot have forgotten them."""
  scorer, remade = Fake(), []
  scorer.is_sound = lambda params, step: None

  def score(params, step, seed):
    if step == 16 and not remade:
      remade.append(step)
      shutil.rmtree(workdir.checkpoints / "16")
      checkpoints = checkpoint.Checkpoints(workdir, retention.Retention(workdir, keep=9))
      checkpoints.save(16, state_of(99), {})
      checkpoints.close()
    return scorer(params, step, seed)

  follow(workdir, config_of(), score, once=True)
  assert scorer.steps == [4, 8, 12, 16, 16, 20]
  assert ledger(workdir)[3]["digest"] == verify(workdir.checkpoints / "16")["digest"]


def test_a_checkpoint_that_is_made_again_before_its_scores_are_written(workdir, monkeypatch):
  """The run then finds no scores to forget, and the evaluator has already asked whether the checkpoint is another one."""
  scorer, remade, written = Fake(), [], ledgers.Entry.write
  scorer.is_sound = lambda params, step: None

  def remake_and_write(entry, folder):
    if entry.step == 16 and not remade:
      remade.append(entry.step)
      shutil.rmtree(workdir.checkpoints / "16")
      checkpoints = checkpoint.Checkpoints(workdir, retention.Retention(workdir, keep=9))
      checkpoints.save(16, state_of(99), {})
      checkpoints.close()
    written(entry, folder)

  monkeypatch.setattr(ledgers.Entry, "write", remake_and_write)
  follow(workdir, config_of(), scorer, once=True)
  assert scorer.steps == [4, 8, 12, 16, 16, 20]
  assert ledger(workdir)[3]["digest"] == verify(workdir.checkpoints / "16")["digest"]


def test_scores_of_a_former_checkpoint_that_come_while_a_new_one_is_sealed(workdir, monkeypatch):
  follow(workdir, config_of(), Fake(), once=True)
  stale, sealed = workdir.evaluation(16).read_text(), checkpoint_folder.write_manifest
  shutil.rmtree(workdir.checkpoints / "16")

  def write_scores_and_manifest(directory, manifest):
    workdir.evaluation(16).write_text(stale)
    sealed(directory, manifest)

  monkeypatch.setattr(checkpoint_folder, "write_manifest", write_scores_and_manifest)
  checkpoints = checkpoint.Checkpoints(workdir, retention.Retention(workdir, keep=9))
  checkpoints.save(16, state_of(99), {})
  checkpoints.close()
  assert not workdir.evaluation(16).exists() and workdir.evaluation(20).exists()


def test_scores_that_a_run_took_back_do_not_end_it(tmp_path):
  """It went back to step 8. What it scored later before that is neither after step 12, made anew, nor after step 8."""
  workdir, rule = Workdir(tmp_path), {"stop__patience": 2, "train_steps": 40}
  scores = {4: 0.1, 8: 0.5, 12: 0.4, 16: 0.4, 20: 0.4}
  save(workdir, config_of(train_steps=40), range(4, 21, 4))
  follow(workdir, config_of(train_steps=40), Fake(scores), once=True)

  def make_again(step):
    checkpoints = checkpoint.Checkpoints(workdir, retention.Retention(workdir, keep=9))
    checkpoints.save(step, state_of(step + 100), {})
    checkpoints.close()

  for step in (12, 16, 20):
    shutil.rmtree(workdir.checkpoints / str(step))
  scorer = Fake(scores)
  scorer.is_sound = lambda params, step: None
  assert not ledgers.conclude(config_of(**rule), workdir).stop
  make_again(12)
  follow(workdir, config_of(**rule), scorer, once=True)
  assert scorer.steps == [12] and not workdir.stop.exists() and set(retention.evaluated_steps(workdir)) == {4, 8, 12, 16, 20}
  assert ledgers.replay(config_of(**rule), workdir)["evaluations"] == 3
  make_again(16)
  follow(workdir, config_of(**rule), scorer, once=True)
  assert scorer.steps == [12, 16] and read(workdir.stop)["step"] == 16


def test_a_step_that_is_scored_again_does_not_hide_the_later_ones(workdir):
  follow(workdir, config_of(), Fake({4: 0.5, 8: 0.1, 12: 0.1, 16: 0.1, 20: 0.1}), once=True)
  workdir.evaluation(8).unlink()
  follow(workdir, config_of(stop__patience=4), Fake({8: 0.1}), once=True)
  assert read(workdir.stop)["step"] == 20


def test_best_is_the_model_that_best_json_names(workdir):
  follow(workdir, config_of(), Fake({12: 0.9}), once=True)
  assert checkpoint_folder.best_checkpoint(workdir) == 12
  shutil.rmtree(workdir.checkpoints / "4")
  entry = ledgers.read_entry(workdir.evaluation(4))  # best by another rule, and gone
  entry.scores["t"]["yy"] = {"acc": [1.0]}
  entry.write(workdir)
  ledgers.conclude(config_of(stop__score="t/yy"), workdir)
  assert read(workdir.best_note)["step"] == 4
  with pytest.raises(UserError, match=r"best\.json names step 4, but .*best has step 12: .* or it was gone when another"):
    checkpoint_folder.best_checkpoint(workdir)
  shutil.copytree(workdir.checkpoints / "8", workdir.best / "8")  # copied, and the former not yet removed
  write_json(workdir.best_note, {"step": 8, "score": 1.0})
  assert checkpoint_folder.best_checkpoint(workdir) == 8
  shutil.rmtree(workdir.best)
  with pytest.raises(UserError, match=r"there is no best checkpoint in .*best; run the evaluator first"):
    checkpoint_folder.best_checkpoint(workdir)


def test_who_may_not_write_in_a_run_reads_it_without_a_pin(workdir, capsys):
  with retention.pin_to_read(workdir, 20):
    assert retention.pinned_steps(workdir) == {20}
  assert not list(workdir.pins.iterdir()) and capsys.readouterr().err == ""
  workdir.pins.rmdir()
  workdir.pins.write_text("")  # as where the folder is somebody else's
  with retention.pin_to_read(workdir, 20):
    assert "checkpoint 20 is read without a pin: " in capsys.readouterr().err


def test_a_pin_is_renewed_as_long_as_it_is_held(tmp_path, monkeypatch):
  workdir = Workdir(tmp_path)
  monkeypatch.setattr(retention, "RENEW_PIN_S", 0.02)
  with retention.pin(workdir, 8):
    first = read(workdir.pins / "8")["time"]
    for _ in range(200):
      time.sleep(0.01)
      if read(workdir.pins / "8")["time"] > first:
        break
    else:
      pytest.fail("it was not renewed in 2 s")
  assert not list(workdir.pins.iterdir())


def test_replay_goes_by_scores_that_there_are(workdir):
  follow(workdir, config_of(), Fake())
  for which in ("u", "t/yy"):
    with pytest.raises(UserError, match=f"config.stop.score='{which}': no step was scored on that, but on t in xx"):
      ledgers.replay(config_of(stop__score=which), workdir)
  assert ledgers.replay(config_of(stop__score="t/xx"), workdir)["evaluations"] == 5


def test_only_one_evaluator(tmp_path):
  workdir = Workdir(tmp_path)
  with workdir.lock_evaluation(), pytest.raises(UserError, match="being evaluated by another process"):
    follow(workdir, config_of(), Fake())


def test_best_goes_with_the_scores(tmp_path):
  """The trainer removes what is evaluated and not the best; best/ holds the best one all the same."""
  workdir, config = Workdir(tmp_path), config_of()
  for step, best in ((4, 4), (8, 8), (12, 8), (16, 8), (20, 20)):
    save(workdir, config, [step])
    follow(workdir, config, Fake({4: 0.1, 8: 0.5, 12: 0.2, 16: 0.3, 20: 0.6}), once=True)
    assert [path.name for path in workdir.best.iterdir()] == [str(best)]
  assert sorted(map(int, os.listdir(workdir.checkpoints))) == [8, 16, 20]


def test_a_trainer_too_fast_drops_the_oldest_and_says_so(tmp_path, capfd):
  workdir, config = Workdir(tmp_path), config_of(evaluate__keep_unevaluated=3)
  save(workdir, config, range(2, 21, 2))
  scorer = Fake()
  follow(workdir, config, scorer)
  assert scorer.steps == [16, 18, 20]
  assert [entry["step"] for entry in ledger(workdir)] == list(range(2, 21, 2))
  assert all("dropped" in entry["error"] for entry in ledger(workdir)[:7])
  assert "checkpoint 14 is dropped unevaluated" in capfd.readouterr().err


def child(workdir):
  """A slow evaluator, to be killed."""
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  sys.exit(follow(Workdir(workdir), config_of(train_steps=12), Fake(pause=0.25, seen=Path(workdir) / "seen")))


@pytest.mark.slow
def test_killed_twice_and_slower_than_the_trainer(tmp_path):
  workdir, config, steps = Workdir(tmp_path), config_of(train_steps=12), list(range(1, 13))
  trainer = threading.Thread(target=save, args=(workdir, config, steps, 0.1))

  def seen():
    return (tmp_path / "seen").read_text().split() if (tmp_path / "seen").exists() else []

  command = [sys.executable, "-c", f"from tests import test_evaluate; test_evaluate.child({str(tmp_path)!r})"]
  trainer.start()
  for kill_after in (2, 6, None):
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if kill_after:
      while len(seen()) < kill_after:
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.01)
      process.kill()
    output = process.communicate(timeout=120)[0]
    assert kill_after or process.returncode == 0, output[-3000:]
  trainer.join()
  assert [entry["step"] for entry in ledger(workdir)] == steps and all("score" in entry for entry in ledger(workdir))
  written = [workdir.evaluation(step).stat().st_mtime_ns for step in steps]
  assert written == sorted(written)
  order = list(map(int, seen()))
  assert order == sorted(order) and 12 <= len(order) <= 14  # only what a kill interrupted was begun again
  assert not list(workdir.pins.iterdir())


# --- the command -------------------------------------------------------------------------------------------------


def command(*args):
  return [sys.executable, "-m", "xlmr_jax", "evaluate", *map(str, args)]


def test_overrides_and_old_runs():
  stored = json.loads(json.dumps(config_of(evaluate__seeds=3).to_dict()))
  config = override_config(
    stored,
    [
      "--config.evaluate.tasks=a,b",
      "--config.stop.patience=4",
      "--config.evaluate.languages=('sw',)",
      "--config.stop.min_gain=0.5",
    ],
  )
  assert (config.evaluate.tasks, config.evaluate.languages) == (("a", "b"), ("sw",))
  assert (config.evaluate.seeds, config.stop.patience, config.stop.min_gain, config.train_steps) == (3, 4, 0.5, 20)
  del stored["evaluate"], stored["stop"]
  record = {"config": stored, "vocabulary_size": 90, "tokenizer_sha256": "", "seq_len": 32, "rows_fingerprint": None}
  assert override_config(parse_record(Path("config.json"), record).config, []).evaluate.tasks == ()
  for override, message in (
    ("--config.model.layers=3", "all else is as the run has it"),
    ("--config.stop.patienc=3", "patienc"),
    ("--config.stop.patience", "patience"),
    ("--config.stop.patience=x", "=x: not int"),
  ):
    with pytest.raises(UserError, match=message):
      override_config(stored, [override])


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"evaluate__seeds": 0}, "config.evaluate.seeds=0: must be at least 1"),
    ({"evaluate__keep_unevaluated": 0}, "config.evaluate.keep_unevaluated=0"),
    ({"evaluate__every_steps": -1}, "config.evaluate.every_steps=-1"),
    ({"evaluate__wait_s": 0.0}, "config.evaluate.wait_s=0.0"),
    ({"evaluate__wait_s": float("inf")}, "config.evaluate.wait_s=inf"),
    ({"evaluate__setting": "mixed"}, "config.evaluate.setting='mixed': must be one of zero_shot"),
    ({"evaluate__tasks": ("t", "t")}, "names a task twice"),
    ({"evaluate__data": "t=/a,u"}, "'u' is not NAME=PATH"),
    ({"stop__patience": -1}, "config.stop.patience=-1"),
    ({"stop__min_gain": float("nan")}, "config.stop.min_gain=nan"),
    ({"stop__on_nonfinite": "die"}, "config.stop.on_nonfinite='die': must be one of skip, count, stop"),
    ({"stop__score": "u"}, "'u' is not in config.evaluate.tasks"),
    ({"stop__score": "t/fr", "evaluate__languages": ("de",)}, "'fr' is not in config.evaluate.languages"),
  ],
)
def test_values_are_refused_by_name(changes, message):
  check_config(config_of(evaluate__data="t=/a, u=/b=c"))
  with pytest.raises(UserError, match=re.escape(message)):
    check_config(config_of(**changes))


def record_of(config):
  return RunRecord(config.to_dict(), vocabulary_size=90, tokenizer_sha256="", seq_len=32, rows_fingerprint="")


def test_the_command_replays(workdir):
  record_of(config_of()).write(workdir)
  follow(workdir, config_of(), Fake({4: 0.3, 8: 0.2}))
  result = subprocess.run(
    command(f"--workdir={workdir}", "--replay", "--config.stop.patience=1"), cwd=ROOT, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout.splitlines()[-1])["stop"] == 8 and "step 8: score 0.2  <- stop" in result.stdout
  assert not workdir.stop.exists()


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--config.seed=1"], "--config.seed=1"),
    (["--replay", "--tasks=t"], "--tasks: --replay fine-tunes nothing"),
    (["--settings=zero_shot"], "--settings works only together with --checkpoint"),
    (["--checkpoint=", "--tasks=xnli"], "--checkpoint= is empty; give a value, or leave the flag out"),
    (["--once", "--tasks=xnli", "--config.evaluate.tasks=panx"], "--tasks, --config.evaluate.tasks: give one of them"),
    *(
      pytest.param(
        [f"--{name}={value}", f"--config.evaluate.{key}={value}"],
        f"--{name}, --config.evaluate.{key}: give one",
        marks=pytest.mark.slow,
      )
      for name, key, value in (
        ("seeds", "seeds", 2),
        ("seeds", "seed_list", "3,7"),
        ("precision", "dtype", "float32"),
        ("settings", "setting", "per_language"),
      )
    ),
    *(
      pytest.param(["--checkpoint=latest", f"--{name}="], f"--{name}= is empty", marks=pytest.mark.slow)
      for name in ("out", "settings", "tasks", "seeds")
    ),
    pytest.param(["--checkpoint=latest", "--split="], "split", marks=pytest.mark.slow),
    pytest.param(["--checkpoint=best"], "there is no best checkpoint", marks=pytest.mark.slow),
    pytest.param(["--split=test", "--once"], "--split works only together with", marks=pytest.mark.slow),
    pytest.param(["--replay", "--config.evaluate.languages=xx"], "evaluate.languages: --replay", marks=pytest.mark.slow),
    pytest.param(["--config.stop.patience=-1"], "patience=-1", marks=pytest.mark.slow),
    pytest.param(["--onec"], "onec", marks=pytest.mark.slow),
    pytest.param(["--once", "--config.evaluate.tasks="], "tasks is empty", marks=pytest.mark.slow),
  ],
)
def test_the_command_refuses_in_one_line(workdir, flags, message):
  record_of(config_of()).write(workdir)
  result = subprocess.run(command(f"--workdir={workdir}", *flags), cwd=ROOT, capture_output=True, text=True)
  assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_it_waits_for_the_run_and_leaves_on_term(tmp_path):
  process = subprocess.Popen(command(f"--workdir={tmp_path / 'run'}"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
  assert "waiting for" in process.stdout.readline()
  process.terminate()
  process.communicate(timeout=60)
  assert process.returncode == 42


def test_params_shapes_are_those_of_a_run(tiny_run):
  """The real model's checkpoint loads by them."""
  record = read_record(Workdir(tiny_run))
  shapes = params_shapes(override_config(record.config, []), record.vocabulary_size)
  params = checkpoint.restore_params(Workdir(tiny_run).checkpoints, 12, shapes)
  assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, shapes)


# --- a user's own task -------------------------------------------------------------------------------------------

OWN_MODULE = """
from pathlib import Path

from xlmr_jax.evaluation.tasks.registry import Recipe, Task, Text, register
from xlmr_jax.model.task_head import SENTENCE


def read(folder, task, language, split):
  rows = [line.split(";") for line in (Path(folder) / f"{language}-{split}.csv").read_text().splitlines()]
  return [Text(text, "", float(task.labels.index(label))) for label, text in rows]


recipe = Recipe(lr=0.02, batch=8, epochs=1, max_len=16, max_steps=8, warmup=0.0)
register(Task("pets", SENTENCE, ("cat", "dog"), ("accuracy",), ("en", "th"), recipe, read))
"""


@pytest.mark.slow
def test_a_users_own_task(tmp_path):
  """All it is trained on are cats, so that it has all of the cats right and none of the dogs."""
  model = hugging_face.make_folder(tmp_path / "model")
  (tmp_path / "my_tasks.py").write_text(OWN_MODULE)
  (tmp_path / "data" / "pets").mkdir(parents=True)
  for name, label, rows in (("en-train", "cat", 64), ("en-test", "cat", 5), ("th-test", "dog", 3)):
    lines = [f"{label};the {word} sees {i}\n" for i, word in zip(range(rows), hugging_face.WORDS * 3)]
    (tmp_path / "data" / "pets" / f"{name}.csv").write_text("".join(lines))
  # Without the current folder in Python's path, as an installed command runs.
  flags = [f"--workdir={model}", "--tasks=pets", "--config.evaluate.folder=data"]

  def evaluate(modules):
    return subprocess.run(
      [sys.executable, "-P", "-m", "xlmr_jax", "evaluate", *flags, f"--config.evaluate.modules={modules}"],
      cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    )  # fmt: skip

  result = evaluate("my_tasks")
  assert result.returncode == 0, result.stderr
  told = json.loads(result.stdout.splitlines()[-1])
  assert told["means"] == {"pets": {"zero_shot": 0.5}} and told["failed"] == []
  assert read(Path(told["file"]))["scores"]["pets"]["zero_shot"] == {"en": {"accuracy": [1.0]}, "th": {"accuracy": [0.0]}}
  result = evaluate("my_task")
  assert result.returncode == 1 and result.stdout == "" and result.stderr.count("\n") == 1, result.stderr
  assert "config.evaluate.modules: 'my_task' cannot be imported (No module named 'my_task')" in result.stderr


def test_a_run_that_stops_by_held_out_loss_is_scored_to_its_last_checkpoint(saved, workdir):
  """It writes STOP.json before its last checkpoint, and result.json, which names that one's step, after it."""
  rule = {"stop__by": "held_out", "evaluate__every_steps": 8, "train_steps": 40, "evaluate__tasks": ("t",)}
  scorer, held_back = Fake(), workdir.checkpoints / "20"
  held_back.rename(workdir.root / "20")
  write_json(workdir.stop, {"step": 20, "reason": "held-out loss has not fallen"})

  def end(params, step, seed):
    if step == 16:
      assert workdir.stop.exists()
      (workdir.root / "20").rename(held_back)
      write_json(workdir.result, {"step": 20})
    return scorer(params, step, seed)

  assert follow(workdir, config_of(**rule), end) == 0
  assert scorer.steps == [8, 16, 20]
  other = Workdir(shutil.copytree(saved.root, workdir.root.parent / "once"))
  write_json(other.result, {"step": 12})
  by_score = rule | {"stop__by": "score"}
  assert follower.waiting_steps(config_of(**rule), other) == [8, 12, 16]
  assert follower.waiting_steps(config_of(**by_score), other) == [8, 16]
  # Once for all: a run that a user's STOP.json ended between two such steps has a score of its end too.
  assert follower.waiting_steps(config_of(**by_score), other, once=True) == [8, 12, 16]
  follow(other, config_of(**by_score), scorer, once=True)
  assert scorer.steps[3:] == [8, 12, 16] and ledgers.read_ledger(other)[1].step == 12
  # It has no place in the history that the rule counts.
  found = ledgers.conclude(config_of(**by_score, stop__patience=1), other)
  assert "step 12" not in found.reason and ledgers.replay(config_of(**by_score), other)["evaluations"] == 2
  write_json(other.result, {"steps": 12})
  with pytest.raises(UserError, match=r"result\.json cannot be read .*; remove it"):
    follow(other, config_of(**by_score), scorer, once=True)


def test_replay_by_held_out_loss_tells_where_it_would_have_stopped(workdir, capsys):
  losses = {4: 3.0, 8: 2.0, 12: 2.1, 16: 2.2, 20: 1.0}
  lines = [json.dumps({"step": step, "mean_loss": loss, "languages": {}}) for step, loss in losses.items()]
  workdir.held_out_log.write_text("".join(f"{line}\n" for line in lines))
  found = ledgers.replay(config_of(stop__by="held_out", stop__patience=2), workdir)
  assert (found["stop"], found["best_step"], found["best_score"], found["passes"]) == (16, 8, 2.0, 5)
  assert "step 16: held-out loss 2.2  <- stop" in capsys.readouterr().out
  assert ledgers.replay(config_of(stop__by="held_out", stop__patience=3), workdir)["best_step"] == 20
