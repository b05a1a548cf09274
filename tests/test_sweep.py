"""Sweeps: names, refusals, folders, and what starters run, skip, leave to others and go on with."""

import collections
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import tiny
from xlmr_jax.commands.sweep import array_index, selected, share_of
from xlmr_jax.config import default_config
from xlmr_jax.errors import UserError
from xlmr_jax.run.workdir import RunRecord, Workdir
from xlmr_jax.sweep import rows as sweep_rows
from xlmr_jax.sweep.folder import (
  BEGUN,
  DONE,
  NEW,
  TRAINED,
  UNSCORED,
  SweepFolder,
  describe,
  open_folder,
  refuse_other_rows,
  state,
)
from xlmr_jax.sweep.runner import Children, Plan, StoppedError, check, run_all, summary
from xlmr_jax.sweep.runs import Rows, Run, flags_of, load_sweep, name_of, parse_overrides, values_of

ROOT = Path(__file__).parents[1]
HEAD = "from tests import tiny\nfrom xlmr_jax.sweep.runs import Rows, Study\nget_config = tiny.get_config\n\n"
TWO = "def sweep(add):\n  for lr in (0.1, 0.2):\n    add({'optimizer.peak_lr': lr, 'seed': 3})\n"


def write(path, text):
  path.write_text(HEAD + text)
  return path


def shell(*line, **env):
  line = [sys.executable, "-m", "xlmr_jax", "sweep", *map(str, line)]
  return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ | env, timeout=900)


def make_plan(tmp_path, program=TWO, overrides=(), **changes):
  sweep = load_sweep(str(write(tmp_path / "sweep_file.py", program)))
  changes.setdefault("given_rows", tmp_path / "store")
  return Plan(sweep, SweepFolder(tmp_path / "sweep"), parse_overrides(sweep, list(overrides)), **changes)


class Pretending:
  """Stands for the commands: `xlmr pretrain` leaves a record at its begin and a result at its end.

  stops: numbers of commands, from 1 on, in the middle of which the sweep is told to end.
  """

  def __init__(self, stops=(), fails=(), code=1):
    self.lines, self.ended, self.stops, self.fails, self.code = [], collections.Counter(), stops, fails, code

  def __call__(self, line):
    self.lines.append(line)
    flags = dict(word[2:].split("=", 1) for word in line if word.startswith("--") and "=" in word)
    if line[3] != "pretrain":
      return 0
    workdir = Workdir(flags["workdir"])
    workdir.root.mkdir(parents=True, exist_ok=True)
    workdir.record.write_text("{}")
    if len(self.lines) in self.stops:
      raise StoppedError(42)
    if workdir.root.name in self.fails:
      return self.code
    self.ended[workdir.root.name] += 1
    workdir.result.write_text(json.dumps({"step": 12, "held_out_loss": 1.5}))
    return 0


# --- runs and names ---------------------------------------------------------------------------------------------------


def test_a_run_is_named_by_what_it_changes_alone(tmp_path):
  sweep = load_sweep(str(write(tmp_path / "a.py", TWO)))
  assert [run.name for run in sweep.runs] == ["peak_lr=0.1,seed=3", "peak_lr=0.2,seed=3"]
  assert [run.seed for run in sweep.runs] == [3, 3] and sweep.study.x == "peak_lr"
  longer = TWO.replace("(0.1, 0.2)", "(0.3, 0.2, 0.1)")
  assert {run.name for run in sweep.runs} < {run.name for run in load_sweep(str(write(tmp_path / "a.py", longer))).runs}
  assert values_of({"model.dtype": "a", "evaluate.dtype": "b", "seed": 1}) == {
    "model.dtype": "a", "evaluate.dtype": "b", "seed": 1,
  }  # fmt: skip
  own = write(tmp_path / "a.py", "def sweep(add):\n  add('mine', {'seed': 1})\n  add({'seed': 1}, values={'what': 'x'})\n")
  assert [(run.name, run.values) for run in load_sweep(str(own)).runs] == [("mine", {"seed": 1}), ("what=x", {"what": "x"})]


@pytest.mark.parametrize("value", ["a/b", "a,b", "a=b", "a b", "a:b", "x\\y"])
def test_a_value_that_makes_no_name_is_refused(value):
  with pytest.raises(UserError, match="no name for a folder"):
    name_of({"key": value})


@pytest.mark.parametrize("text, said", [
  ("", "has no sweep"),
  ("def sweep(add):\n  pass\n", "adds no run"),
    ("STUDY = Study(x='lrr')\n" + TWO, "STUDY has x='lrr'; it must be one of language, peak_lr, seed, step"),
    ("STUDY = Study(y='accuracy')\n" + TWO, "STUDY has y='accuracy'"),
    ("STUDY = Study(x_scale='logarithmic')\n" + TWO, "STUDY has x_scale='logarithmic'"),
    ("STUDY = Study(series='width')\n" + TWO, "STUDY has series='width'"),
    ("STUDY = Study(x='seed', x_scale='log')\n" + TWO.replace("3", "0"), "has no logarithm"),
  ("def sweep(add):\n  add({'seed': 1})\n  add({'seed': 1})\n", "two runs are named 'seed=1'"),
  ("def sweep(add):\n  add({'optimizer.peak_lrr': 1})\n", r"changes config\.optimizer\.peak_lrr; there is no such key"),
  ("def sweep(add):\n  add({'optimizer': 1})\n", r"changes config\.optimizer; there is no such key"),
  ("def sweep(add):\n  add({'data.languages': ('a',)})\n", "a value that is no word and no number names no run"),
    ("raise KeyError('x')\n", r"KeyError: 'x', line 5 of .*a\.py"),
    ("def sweep(add):\n  add({'seed': 1})\n  return 1 / 0\n", r"ZeroDivisionError: division by zero, line \d+ of .*a\.py"),
    ("def sweep(add:\n", "SyntaxError"),
    ("STUDY = 'x'\n" + TWO, "STUDY is 'x'; it must be a Study"),
    ("STUDY = Study(groups={'low': 'sw'})\n" + TWO, r"groups\['low'\]='sw'; it must be a tuple of languages: \('sw',\)"),
    ("def sweep(add):\n  add({'seed': 1}, settings='zero_shot')\n", "settings='zero_shot'.*: it must be a tuple of"),
    ("def sweep(add):\n  add({'seed': 1}, settings=('zeroshot',))\n", "it must be a tuple of zero_shot"),
    ("def sweep(add):\n  add({'seed': 1}, rows='x')\n", r"it must be Rows\("),
    ("def sweep(add):\n  add('sweep.json', {'seed': 1})\n", "'sweep.json' is no name for a run"),
    ("def sweep(add):\n  add('a\\nb', {'seed': 1})\n", "is no name for a run"),

  ("def sweep(add):\n  add(['seed'])\n", "takes a dict"),
  ("def sweep(add):\n  add('rows', {'seed': 1})\n", "'rows' is no name for a run"),
  ("def sweep(add):\n  add('../x', {'seed': 1})\n", "no name for a run"),
  ("def sweep(add):\n  for n in (1, 2):\n    add({'seed': n}, rows=Rows('r', n))\n", "two different rows are named 'r'"),
])  # fmt: skip
def test_a_wrong_sweep_is_refused_by_name(tmp_path, text, said):
  with pytest.raises(UserError, match=said):
    load_sweep(str(write(tmp_path / "a.py", text)))


def test_a_wrong_value_is_refused_before_the_first_run(tmp_path):
  for changes, said in (
    ("{'train_steps': 'many'}", "config.train_steps='many'"),
    ("{'data.alpha': 7.0}", "must lie in"),
    ("{'phases': ('untl=60%',)}", "untl"),
  ):
    plan = make_plan(tmp_path, f"def sweep(add):\n  add({{'seed': 1}})\n  add('b', {changes})\n")
    tiny.make_store(tmp_path / "store") if not (tmp_path / "store").exists() else None
    with pytest.raises(UserError, match=said) as error:
      check(plan, plan.sweep.runs)
    assert ", b: " in str(error.value)


def test_overrides_go_to_all_runs_and_not_against_the_sweep(tmp_path):
  plan = make_plan(tmp_path, overrides=["--config.train_steps=7", "--config.data.languages=aa,bb"])
  assert plan.overrides == {"train_steps": 7, "data.languages": ("aa", "bb")}
  line = plan.pretrain(plan.sweep.runs[0])
  assert {"--config.train_steps=7", "--config.data.languages=aa,bb", "--config.optimizer.peak_lr=0.1"} <= set(line)
  assert plan.config(plan.sweep.runs[0]).data.languages == ("aa", "bb")
  with pytest.raises(UserError, match=r"leave data\.alpha=0\.5 out; 12 runs set that key themselves, such as alpha=0\.01"):
    load_sweep("sweeps/alpha:tiny,data.alpha=0.5")
  assert load_sweep("sweeps/batch:tiny,batch_rows=64").runs[0].changes["train_steps"] == 2400  # It reads the key.
  load_sweep("sweeps/batch:tiny,batch_rows=32")  # as it is without the word
  needs = (
    "def sweep(add, arg):\n  given = dict(word.split('=') for word in arg.split(','))\n"
    "  add({'train_steps': int(given['train_steps'])})\n"
  )
  assert load_sweep(f"{write(tmp_path / 'needs.py', needs)}:train_steps=9").runs[0].changes == {"train_steps": 9}
  for override, said in (
    ("--config.seed=1", "2 runs of .* set it themselves, such as peak_lr=0.1,seed=3"),
    ("--config.sead=1", "there is no such key"),
    ("--config.train_steps=x", "not int"),
  ):
    with pytest.raises(UserError, match=said):
      parse_overrides(plan.sweep, [override])


def test_changes_come_through_flags_unchanged(tmp_path, monkeypatch):
  """What the child of a sweep parses is what the sweep checked."""
  from absl import flags
  from ml_collections import config_flags

  from xlmr_jax.commands import flags as ours

  changes = {"data.alpha": 0.01, "data.languages": ("aa", "bb"), "data.row_shares": "0.5,aa=0.1", "model.pre_norm": True,
             "evaluate.languages": (), "seed": 4, "optimizer.peak_lr": 1e-05}  # fmt: skip
  line = ["x", "--config=tests/tiny.py:rows", *flags_of(changes)]
  monkeypatch.setattr(sys, "argv", line)  # ml_collections looks there for the keys that are flags.
  holder = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "", flag_values=holder)
  monkeypatch.setattr(ours, "FLAGS", holder)
  ours.parse_flags(line)
  expected = tiny.config("rows")
  expected.update_from_flattened_dict(changes)
  assert holder.config.to_dict() == expected.to_dict()


@pytest.mark.parametrize("runs", [1, 2, 7, 12])
@pytest.mark.parametrize("of", [None, 1, 2, 5, 12, 20])
def test_indices_cover_all_runs_once(runs, of):
  every = tuple(Run(str(i), {}, {}) for i in range(runs))
  found = [run for index in range(runs if of is None else of) for run in share_of(every, index, of)]
  assert sorted(found, key=lambda run: int(run.name)) == list(every)
  assert share_of(every, None, None) == every
  with pytest.raises(UserError, match=r"there are the indices 0 to"):
    share_of(every, runs if of is None else of, of)
  with pytest.raises(UserError, match="--of=3"):
    share_of(every, None, 3)
  for wrong in (0, -1):
    with pytest.raises(UserError, match=rf"--of={wrong}: must be at least 1"):
      share_of(every, 0, wrong)
  with pytest.raises(UserError, match="index -1, of --index or --array: there are the indices"):
    share_of(every, -1, of)


def test_the_index_of_an_array():
  assert array_index({"SLURM_ARRAY_TASK_ID": "3", "JOB_COMPLETION_INDEX": "1"}) == 3
  assert array_index({"JOB_COMPLETION_INDEX": "1"}) == 1
  assert array_index({"JOB_COMPLETION_INDEX": "1", "XLMR_INDEX": "5"}, several_hosts=True) == 5
  for environment in ({}, {"SLURM_ARRAY_TASK_ID": ""}, {"SLURM_ARRAY_TASK_ID": "x"}):
    with pytest.raises(UserError, match="--array"):
      array_index(environment)
  with pytest.raises(UserError, match="--array"):  # There it numbers the hosts of one run.
    array_index({"JOB_COMPLETION_INDEX": "1"}, several_hosts=True)


def test_select_keeps_runs_of_a_value(tmp_path):
  runs = load_sweep(str(write(tmp_path / "a.py", TWO))).runs
  assert [run.name for run in selected(runs, ["seed=3", "peak_lr=0.2"])] == ["peak_lr=0.2,seed=3"]
  with pytest.raises(UserError, match=r"no run has it; seed is 3"):
    selected(runs, ["seed=4"])


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_newer_version_of_the_package_goes_on_with_a_sweep(tmp_path):
  plan = make_plan(tmp_path)
  open_folder(plan.folder, describe(plan.sweep, {}, "1.0"))
  open_folder(plan.folder, describe(plan.sweep, {}, "2.0"))
  assert json.loads(plan.folder.record.read_text())["version"] == "1.0"


def test_a_folder_that_an_older_version_wrote_goes_on(tmp_path):
  """It knew fewer fields of Rows."""
  plan = make_plan(tmp_path, TWO.replace("3})", "3}, rows=Rows('r', 100))"))
  value = describe(plan.sweep, plan.overrides)
  older = json.loads(json.dumps(value))
  for run in older["runs"]:
    del run["rows_made"]["word_starts"]
    plan.folder.workdir(plan.sweep.runs[0]).root.mkdir(parents=True, exist_ok=True)
    plan.folder.workdir(plan.sweep.runs[0]).record.write_text("{}")
  open_folder(plan.folder, older)
  open_folder(plan.folder, value)
  with pytest.raises(UserError, match="was begun with rows_made="):
    other = [run | {"rows_made": run["rows_made"] | {"word_starts": True}} for run in value["runs"]]
    open_folder(plan.folder, value | {"runs": other})


def test_the_folder_says_what_it_holds_and_refuses_another_sweep(tmp_path):
  plan = make_plan(tmp_path)
  value = describe(plan.sweep, plan.overrides)
  open_folder(plan.folder, value)
  before = plan.folder.record.stat()
  assert json.loads(plan.folder.record.read_text()) == value
  assert [run["values"] for run in value["runs"]] == [{"peak_lr": 0.1, "seed": 3}, {"peak_lr": 0.2, "seed": 3}]
  assert {"name", "arg", "version", "title", "x", "x_label", "x_scale", "series", "y", "groups", "overrides"} < set(value)
  open_folder(plan.folder, value)
  assert plan.folder.record.stat().st_mtime_ns == before.st_mtime_ns  # It is not written again.

  def refused(said, **changes):
    with pytest.raises(UserError, match=said):
      open_folder(plan.folder, value | changes)

  refused("holds the sweep", name="sweeps/other")
  refused("holds the sweep", arg="tiny")
  without, other = value["runs"][:1], [value["runs"][0] | {"changes": {"seed": 9}}, value["runs"][1]]
  for runs in (without, other, value["runs"]):  # What has not begun may still change.
    open_folder(plan.folder, value | {"runs": runs, "overrides": {"train_steps": 8}})
  open_folder(plan.folder, value)
  for run in plan.sweep.runs:
    plan.folder.workdir(run).root.mkdir()
    plan.folder.workdir(run).record.write_text("{}")
  refused(r"other flags \(train_steps: as the config has it there, 9 here\)", overrides={"train_steps": 9})
  # A run may change these on its way, but runs that are measured in two ways do not compare.
  for key, given in (
    ("held_out.max_rows_per_language", 9),
    ("stop.by", "held_out"),
    ("evaluate.recipe", "lr=1"),
    ("data.rows", "R"),
  ):
    refused(rf"other flags \({key}: as the config has it there, {given} here\)", overrides={key: given})
  refused(r"config was another one \(train_steps: \d+ there, 77 here\)", config=value["config"] | {"train_steps": 77})
  refused(r"has the run peak_lr=0.2,seed=3", runs=without)
  refused("begun with changes", runs=other)
  more = value | {
    "runs": [*value["runs"], value["runs"][0] | {"name": "new"}],
    "overrides": {"log.every_steps": 1, "evaluate.folder": "F"},
  }
  more |= {"config": value["config"] | {"a.new.key": 1, "log.every_steps": 7}}
  open_folder(plan.folder, more)
  assert json.loads(plan.folder.record.read_text()) == more


def test_a_damaged_description_and_a_runs_workdir_are_refused(tmp_path):
  plan = make_plan(tmp_path)
  value = describe(plan.sweep, {})
  plan.folder.root.mkdir()
  for text in ("{", "[]", '{"runs": 3, "overrides": {}}', '{"runs": [{}], "overrides": {}}'):
    plan.folder.record.write_text(text)
    with pytest.raises(UserError, match=r"sweep\.json cannot be read"):
      open_folder(plan.folder, value)
  plan.folder.record.unlink()
  (plan.folder.root / "config.json").write_text("{}")
  with pytest.raises(UserError, match="is the workdir of a run"):
    open_folder(plan.folder, value)


def test_how_far_a_run_is(tmp_path):
  config, workdir, run = tiny.config("rows"), Workdir(tmp_path), Run("a", {}, {})
  assert state(workdir, run, config) == NEW
  workdir.record.write_text("{}")
  assert state(workdir, run, config) == BEGUN
  workdir.result.write_text('{"step": 12}')
  assert state(workdir, run, config) == DONE
  config.evaluate.tasks = ("demo_entities",)
  assert state(workdir, run, config) == TRAINED and state(workdir, run, config, scores=False) == DONE
  workdir.evaluations.mkdir()
  workdir.evaluation(8).write_text("{}")
  assert state(workdir, run, config) == TRAINED
  for entry, wanted in (({"errors": {"demo_entities": "no file"}}, UNSCORED), ({"error": "damaged"}, UNSCORED), ({}, DONE)):
    workdir.evaluation(12).write_text(json.dumps(entry))
    assert state(workdir, run, config) == wanted
  workdir.evaluation(12).write_text("{")
  with pytest.raises(UserError, match=r"12\.json cannot be read .* remove it"):
    state(workdir, run, config)
  final = Run("a", {}, {}, settings=("zero_shot", "per_language"))
  workdir.final_scores.mkdir()
  for scores, step, wanted in (
    ({"zero_shot": {}}, 12, TRAINED), ({"zero_shot": {}, "per_language": {}}, 8, TRAINED),
    ({"zero_shot": {}, "per_language": {}}, 12, DONE),
  ):  # fmt: skip
    (workdir.final_scores / "latest.json").write_text(json.dumps({"step": step, "scores": {"demo_entities": scores}}))
    assert state(workdir, final, config) == wanted


# --- what a starter does ----------------------------------------------------------------------------------------------


def test_interrupted_anywhere_and_started_again_does_each_run_once(tmp_path):
  text = "def sweep(add):\n  for n in range(4):\n    add({'seed': n})\n"
  for stop in range(1, 6):
    (tmp_path / str(stop)).mkdir()
    plan = make_plan(tmp_path / str(stop), text)
    first = Pretending(stops=(stop,))
    if stop <= 4:
      with pytest.raises(StoppedError) as stopped:
        run_all(plan, plan.sweep.runs, first)
      assert stopped.value.code == 42
    else:
      run_all(plan, plan.sweep.runs, first)
    again = Pretending()
    assert run_all(plan, plan.sweep.runs, again) == ({}, [])
    assert first.ended + again.ended == collections.Counter(run.name for run in plan.sweep.runs)
    third = Pretending()
    run_all(plan, plan.sweep.runs, third)
    assert third.lines == []
    assert summary(plan, plan.sweep.runs, {}, [])["held_out_loss"] == {f"seed={n}": 1.5 for n in range(4)}


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path):
  plan = make_plan(tmp_path)
  pretending = Pretending(fails=("peak_lr=0.1,seed=3",), code=70)
  assert run_all(plan, plan.sweep.runs, pretending) == ({"peak_lr=0.1,seed=3": 70}, [])
  assert pretending.ended == {"peak_lr=0.2,seed=3": 1}


def test_a_run_that_another_starter_has_is_left_to_it(tmp_path):
  plan = make_plan(tmp_path)
  first, second = plan.sweep.runs
  with plan.folder.claim(first):
    pretending = Pretending()
    assert run_all(plan, plan.sweep.runs, pretending) == ({}, [first.name])
  assert pretending.ended == {second.name: 1}
  pretending = Pretending()
  assert run_all(plan, plan.sweep.runs, pretending) == ({}, []) and pretending.ended == {first.name: 1}


def test_a_run_that_another_starter_ended_a_moment_ago_is_not_begun_again(tmp_path, monkeypatch):
  plan = make_plan(tmp_path)
  claim = SweepFolder.claim

  def late(folder, run):
    held = claim(folder, run)
    folder.workdir(run).record.write_text("{}")
    folder.workdir(run).result.write_text('{"step": 12, "held_out_loss": 1.0}')
    return held

  monkeypatch.setattr(SweepFolder, "claim", late)
  pretending = Pretending()
  assert run_all(plan, plan.sweep.runs, pretending) == ({}, []) and pretending.lines == []


@pytest.mark.parametrize("what, trained", [("lock_training", False), ("lock_evaluation", True), ("lock_evaluation", False)])
def test_a_run_that_pretrain_or_evaluate_has_did_not_fail(tmp_path, what, trained):
  """But an evaluator beside it takes no training that fails for its own."""
  plan = make_plan(tmp_path, overrides=["--config.evaluate.tasks=demo_entities"])
  first = plan.sweep.runs[0]
  workdir = plan.folder.workdir(first)
  workdir.root.mkdir(parents=True)
  if trained:
    workdir.record.write_text("{}")
    workdir.result.write_text('{"step": 12, "held_out_loss": 1.0}')

  def fail(line):
    return 1

  failed = ({first.name: 1}, [])
  with getattr(workdir, what)():
    assert run_all(plan, (first,), fail) == (({}, [first.name]) if trained or what == "lock_training" else failed)
  assert run_all(plan, (first,), fail) == failed


def test_a_run_whose_file_is_damaged_leaves_the_others_alone(tmp_path, capsys):
  """Whatever one run's state raises is a matter of that run."""
  plan = make_plan(tmp_path)
  first, second = plan.sweep.runs

  class Damaging(Pretending):
    def __call__(self, line):
      if f"--workdir={plan.folder.workdir(first)}" in line:
        raise UserError("the text cannot be read")
      return super().__call__(line)

  assert run_all(plan, plan.sweep.runs, Damaging()) == ({first.name: 1}, [])
  assert plan.state(second) == "done" and "the text cannot be read" in capsys.readouterr().err


def test_numbers_of_numpy_are_numbers(tmp_path):
  text = (
    "import numpy as np\ndef sweep(add):\n"
    "  for x in np.array([0.25, 0.5]):\n    add({'data.alpha': x, 'seed': np.int64(1)})\n"
  )
  sweep = load_sweep(str(write(tmp_path / "a.py", text)))
  assert [run.name for run in sweep.runs] == ["alpha=0.25,seed=1", "alpha=0.5,seed=1"]
  assert type(sweep.runs[0].changes["data.alpha"]) is float and describe(sweep, {})["runs"][1]["values"]["alpha"] == 0.5


def test_rows_that_were_made_otherwise_are_not_taken(tmp_path):
  """Killed after its vocabulary, a sweep whose rows are then another size, text or alpha must not go on with that one."""
  out, text = tmp_path / "rows" / "r", tmp_path / "text"
  (text / "en").mkdir(parents=True)

  def vocabulary_then_killed(line):
    (out.parent / "r.model").write_bytes(b"x")
    raise StoppedError(42)

  with pytest.raises(StoppedError):
    sweep_rows.build(Rows("r", 8000), out, text, vocabulary_then_killed)
  for rows, where, said in (
    (Rows("r", 16_000), text, "vocabulary_size: 8000 there, 16000 here"),
    (Rows("r", 8000, alpha=1.0), text, "alpha: 0.3 there, 1.0 here"),
    (Rows("r", 8000), tmp_path / "other", "from: "),
  ):
    with pytest.raises(UserError, match=f"r.model was made for other rows .*{said}"):
      sweep_rows.build(rows, out, where, lambda line: 0)
  began = []
  assert sweep_rows.build(Rows("r", 8000), out, text, lambda line: began.append(line) or 7) == 7
  assert began[0][3] == "build_rows"  # It goes on with its own.


def test_two_starters_at_once_do_each_run_once(tmp_path):
  """The second starter works while the first is inside each of its runs."""
  plan = make_plan(tmp_path, "def sweep(add):\n  for n in range(4):\n    add({'seed': n})\n")
  inner = Pretending()

  class Outer(Pretending):
    def __call__(self, line):
      if not self.lines:
        assert run_all(plan, plan.sweep.runs, inner) == ({}, ["seed=0"])
      return super().__call__(line)

  outer = Outer()
  run_all(plan, plan.sweep.runs, outer)
  assert inner.ended == {f"seed={n}": 1 for n in (1, 2, 3)} and outer.ended == {"seed=0": 1}


def test_tasks_are_scored_after_the_training(tmp_path):
  text = ("def sweep(add):\n  c = {'evaluate.tasks': ('demo_entities',), 'evaluate.every_steps': 4}\n"
          "  add(c | {'seed': 1}, values={'seed': 1})\n"
          "  add(c | {'seed': 2}, values={'seed': 2}, settings=('zero_shot', 'per_language'))\n")  # fmt: skip
  plan = make_plan(tmp_path, text)
  pretending = Pretending()
  run_all(plan, plan.sweep.runs, pretending)
  assert [line[3] for line in pretending.lines] == ["pretrain", "evaluate"] * 2
  assert "--once" in pretending.lines[1] and "--config.evaluate.tasks=demo_entities" in pretending.lines[1]
  assert {"--checkpoint=latest", "--settings=zero_shot,per_language"} <= set(pretending.lines[3])
  entry = plan.folder.workdir(plan.sweep.runs[0]).evaluation(12)
  entry.parent.mkdir()
  entry.write_text('{"errors": {"demo_entities": "no file"}}')
  pretending = Pretending()  # What the ledger has is not scored again, and is not done either.
  assert run_all(plan, plan.sweep.runs[:1], pretending) == ({"seed=1": 1}, []) and pretending.lines == []
  plan.folder.workdir(plan.sweep.runs[0]).evaluation(12).write_text("{}")
  pretending = Pretending()  # The first is done, and the second lacks its scores, but is not trained again.
  run_all(plan, plan.sweep.runs, pretending)
  assert [line[3] for line in pretending.lines] == ["evaluate"] and "--checkpoint=latest" in pretending.lines[0]
  final = plan.folder.workdir(plan.sweep.runs[1]).final_score("latest")  # It was killed between its two settings.
  final.parent.mkdir(parents=True)
  final.write_text(json.dumps({"step": 12, "scores": {"demo_entities": {"zero_shot": {}}}}))
  pretending = Pretending()
  run_all(plan, plan.sweep.runs, pretending)
  assert "--settings=per_language" in pretending.lines[0]
  assert "--settings=per_language" in make_plan(tmp_path, text, given_rows=None).evaluate(plan.sweep.runs[1])  # --commands


def test_runs_of_several_processes_take_no_claim_and_are_scored_elsewhere(tmp_path):
  plan = make_plan(tmp_path, hosts=("--hosts=auto",))
  pretending = Pretending()
  run_all(plan, plan.sweep.runs[:1], pretending)
  assert (
    pretending.lines[0][-1] == "--hosts=auto" and not (plan.folder.root / plan.sweep.runs[0].name / ".sweep.lock").exists()
  )


def test_a_signal_ends_the_sweep_once_the_child_has_ended():
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    children = Children()
    assert children([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    with pytest.raises(StoppedError) as stopped:
      children([sys.executable, "-c", "raise SystemExit(42)"])
    assert stopped.value.code == 42
    # A child that ends well in spite of the signal: the next run must not begin.
    program = ("import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True)); "
               "os.kill(os.getppid(), signal.SIGTERM); time.sleep(0.5)")  # fmt: skip
    with pytest.raises(StoppedError) as stopped:
      children([sys.executable, "-c", program])
    assert stopped.value.code == 42
    with pytest.raises(StoppedError) as stopped:
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(1)
    assert stopped.value.code == 130
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def test_other_rows_than_the_begun_runs_have_are_refused(tmp_path, tiny_rows):
  plan = make_plan(tmp_path, given_rows=tiny_rows)
  first, second = plan.sweep.runs
  refuse_other_rows(plan.folder, second, tiny_rows, plan.sweep.runs)  # Nothing has begun.
  workdir = plan.folder.workdir(first)
  fingerprint = json.loads((tiny_rows / "manifest.json").read_text())["fingerprint"]
  record = RunRecord(default_config().to_dict(), 10, "0" * 64, 16, rows_fingerprint=fingerprint)
  workdir.root.mkdir(parents=True)
  record.write(workdir)
  refuse_other_rows(plan.folder, second, tiny_rows, plan.sweep.runs)
  dataclasses.replace(record, rows_fingerprint="f" * 64).write(workdir)
  with pytest.raises(UserError, match=r"other rows \(fingerprint [0-9a-f]{12}\) than .*seed=3 was trained on \(f{12}\)"):
    refuse_other_rows(plan.folder, second, tiny_rows, plan.sweep.runs)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_given_or_built_once(tmp_path):
  spec = Rows("v", 100, languages=("aa",), text="crawl", sentences=50, seq_len=32)
  out = tmp_path / "rows" / "v"
  lines = []

  def execute(line):
    lines.append(line)
    if line[3] == "train_vocabulary":
      (tmp_path / "rows" / "v.model").write_text("")
    elif len(lines) == 2:
      raise StoppedError(42)  # in the middle of the rows
    else:
      out.mkdir()
      (out / "manifest.json").write_text("{}")
    return 0

  with pytest.raises(StoppedError):
    sweep_rows.build(spec, out, tmp_path / "text", execute)
  assert sweep_rows.build(spec, out, tmp_path / "text", execute) == 0
  assert [line[3] for line in lines] == ["train_vocabulary", "build_rows", "build_rows"]  # The vocabulary was kept.
  assert {f"--text={tmp_path}/text/crawl", "--size=100", "--sentences=50", "--languages=aa"} <= set(lines[0])
  assert {f"--out={out}", f"--tokenizer={tmp_path}/rows/v.model", "--seq_len=32"} <= set(lines[1])
  assert sweep_rows.build(spec, out, None, execute) == 0 and len(lines) == 3


def test_pairs_of_other_languages_stay_out_of_the_rows(tmp_path):
  (tmp_path / "pairs").mkdir()
  for pair in ("aa-bb", "bb-cc", "aa-dd"):
    for side in pair.split("-"):
      (tmp_path / "pairs" / f"{pair}.{side}").write_text("a\n")

  def flags(*languages):
    spec = Rows("v", 100, languages=languages, text="text", parallel="pairs")
    return sweep_rows.build_commands(spec, tmp_path / "rows" / "v", tmp_path)[-1]

  assert "--languages=aa-bb,bb-cc" in flags("aa", "bb", "cc")
  assert "--add" in flags() and not any("--languages" in flag for flag in flags())  # All languages: all pairs.
  with pytest.raises(UserError, match="no pair of files has both its languages among aa, cc"):
    flags("aa", "cc")


def test_rows_that_another_process_builds_are_waited_for(tmp_path, monkeypatch, capsys):
  spec, out = Rows("v", 100), tmp_path / "v"
  held = sweep_rows.lock(tmp_path / ".v.lock", "")

  def sleep(_):  # The other one ends meanwhile.
    out.mkdir(exist_ok=True)
    (out / "manifest.json").write_text("{}")
    held.close()

  monkeypatch.setattr(sweep_rows.time, "sleep", sleep)
  assert sweep_rows.build(spec, out, None, lambda line: pytest.fail("it was built twice")) == 0
  assert capsys.readouterr().err.count("is being built by another process; waiting for it") == 1


def test_a_build_that_fails_ends_the_run_with_its_code(tmp_path):
  text = "def sweep(add):\n  add({'seed': 1}, rows=Rows('v', 100))\n"
  plan = make_plan(tmp_path, text, given_rows=None, text=tmp_path)
  lines = []
  assert run_all(plan, plan.sweep.runs, lambda line: lines.append(line) or 1) == ({"seed=1": 1}, [])
  assert [line[3] for line in lines] == ["train_vocabulary"]


def test_rows_that_are_missing_or_too_few_are_refused(tmp_path, tiny_rows):
  runs = [Run(name, {}, {}, rows=Rows(name, 100)) for name in ("v", "w")]
  own = tmp_path / "own"
  sweep_rows.refuse_missing(runs[:1], tiny_rows, own, None)
  sweep_rows.refuse_one_store([*runs[:1], *runs[:1], Run("x", {}, {})], tiny_rows)
  with pytest.raises(UserError, match=r"is one store, and the runs need 2: v, w"):
    sweep_rows.refuse_one_store(runs, tiny_rows)
  stores = tmp_path / "stores"
  tiny.make_store(stores / "v")
  assert sweep_rows.folder_of(runs[0].rows, stores, own) == stores / "v"
  with pytest.raises(UserError, match=r"there are no rows in .*stores/w"):
    sweep_rows.refuse_missing(runs, stores, own, None)
  with pytest.raises(UserError, match=r"no rows: give --rows=ROWS, or --text=DIR .*v, w"):
    sweep_rows.refuse_missing(runs, None, own, None)
  sweep_rows.refuse_missing(runs, None, own, tmp_path)
  sweep_rows.refuse_missing([Run("d", {}, {}, rows=Rows("demo", 100, text="demo"))], None, own, None)


def test_rows_that_do_not_tell_words_are_refused_before_the_first_run(tmp_path):
  """Whole words and spans, by a flag for all runs or by the sweep itself."""
  masked = "--config.data.mask_unit=word"
  tiny.make_store(tmp_path / "store")
  plan = make_plan(tmp_path, overrides=[masked])
  with pytest.raises(UserError, match=r"those in .*store do not; build them with `xlmr build_rows --word_starts`"):
    check(plan, plan.sweep.runs)
  built = TWO.replace("3})", "3}, rows=Rows('r', 100))")
  plan = make_plan(tmp_path, built, [masked], given_rows=None, text=tmp_path)
  with pytest.raises(UserError, match="give the sweep's Rows word_starts=True"):
    check(plan, plan.sweep.runs)
  plan = make_plan(tmp_path, built.replace("100)", "100, word_starts=True)"), [masked], given_rows=None, text=tmp_path)
  check(plan, plan.sweep.runs)
  commands = sweep_rows.build_commands(plan.sweep.runs[0].rows, tmp_path / "r", tmp_path)
  assert [line[3] for line in commands if "--word_starts" in line] == ["build_rows"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_list_and_commands_start_nothing(tmp_path, tiny_rows):
  config = write(tmp_path / "two.py", TWO)
  work = tmp_path / "work"
  (work / "peak_lr=0.1,seed=3").mkdir(parents=True)
  (work / "peak_lr=0.1,seed=3" / "result.json").write_text('{"step": 12, "held_out_loss": 1.0}')
  line = (f"--config={config}", f"--workdir={work}", f"--rows={tiny_rows}")
  listed = [
    "   0  done     peak_lr=0.1,seed=3", "   1  new      peak_lr=0.2,seed=3", '{"runs": 2, "done": 1, "new": 1}'
  ]  # fmt: skip
  out = shell(*line, "--list")
  assert out.stdout.splitlines() == listed, out.stderr
  out = shell(*line[:2], "--list")  # How far a run is does not hang on where its rows are.
  assert out.stdout.splitlines() == listed, out.stderr
  out = shell(*line, "--commands", "--config.train_steps=7", "--config.optimizer.warmup_steps=1")
  assert out.stdout.split()[1:] == [
    "-m", "xlmr_jax", "pretrain", f"--config={config}", f"--workdir={work}/peak_lr=0.2,seed=3",
    f"--config.data.rows={tiny_rows}", "--config.train_steps=7", "--config.optimizer.warmup_steps=1",
    "--config.optimizer.peak_lr=0.2", "--config.seed=3",
  ]  # fmt: skip
  assert not (work / "sweep.json").exists()


def test_the_command_refuses_in_one_line(tmp_path, tiny_rows):
  line = (f"--config={write(tmp_path / 'two.py', TWO)}", f"--workdir={tmp_path / 'w'}", f"--rows={tiny_rows}")
  for flags, said in (
    (("--index=2",), "there are the indices 0 to 1"),
    (("--index=0", "--select=peak_lr=0.2"), "--index=0: is not among the 1 runs that --select takes"),
    (("--array",), "none of XLMR_INDEX, SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX is set"),
    (("--hosts=auto",), "give --index or --array"),
    (("--config.evaluate.tasks=xnli",), "is to be scored on xnli, and no folder is said to have its files"),
    (("--index=0", "--of=0"), "--of=0: must be at least 1"),
    ((f"--text={tmp_path}",), "is not read beside --rows="),
    (("--rows=",), "--rows= is empty"),
  ):
    out = shell(*line, *flags)
    assert out.returncode == 1 and out.stderr.startswith("error: ") and said in out.stderr, out.stderr
    assert len(out.stderr.splitlines()) == 1 and not (tmp_path / "w").exists()


@pytest.mark.parametrize("codes, code", [({"a": 70, "b": -9}, 70), ({"a": 70, "b": 1}, 1)])
def test_a_crash_of_a_run_is_one_of_the_sweep(tmp_path, tiny_rows, monkeypatch, codes, code):
  """A launcher starts what crashed again, and leaves to the user what the user must mend."""
  config = write(tmp_path / "two.py", TWO)
  program = (
    "import sys\nfrom xlmr_jax.sweep import runner\n"
    f"runner.run_all = lambda *_: ({codes!r}, [])\n"
    "from xlmr_jax.__main__ import main\nsys.argv[0] = 'xlmr'\nmain()\n"
  )
  line = (f"--config={config}", f"--workdir={tmp_path / 'w'}", f"--rows={tiny_rows}")
  out = subprocess.run(
    [sys.executable, "-c", program, "sweep", *line], cwd=ROOT, capture_output=True, text=True, timeout=900
  )
  assert out.returncode == code and out.stderr == "error: 2 of 2 runs failed: a, b; the reasons are above\n", out.stderr


@pytest.mark.slow
def test_a_real_sweep_is_killed_goes_on_and_ends_as_one_that_was_not(tmp_path, tiny_rows):
  text = "def sweep(add):\n  for n in (1, 2):\n    add({'seed': n})\n"
  config = write(tmp_path / "two.py", text)
  flags = (f"--config={config}", f"--rows={tiny_rows}", "--config.train_steps=40", "--config.checkpoint.keep_every=4")
  whole = shell(*flags, f"--workdir={tmp_path / 'whole'}")
  assert whole.returncode == 0, whole.stderr
  results = json.loads(whole.stdout.splitlines()[-1])
  assert set(results["held_out_loss"]) == {"seed=1", "seed=2"} and results["failed"] == {}

  work = tmp_path / "killed"
  line = [sys.executable, "-m", "xlmr_jax", "sweep", *flags, f"--workdir={work}"]
  child = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
  deadline = time.monotonic() + 600
  while not (work / "seed=2" / "checkpoints" / "4").exists() and time.monotonic() < deadline and child.poll() is None:
    time.sleep(0.02)
  child.send_signal(signal.SIGTERM)
  assert child.wait() == 42
  assert (work / "seed=1" / "result.json").exists() and not (work / "seed=2" / "result.json").exists()
  files = [path for path in work.rglob("checkpoints/**/*") if path.is_file()]
  before = {path: path.stat().st_mtime_ns for path in files}
  again = shell(*flags, f"--workdir={work}")
  assert again.returncode == 0 and "seed=1 (1 of 2): done" in again.stderr and "seed=2 (2 of 2): goes on" in again.stderr
  # No checkpoint was written again. That of the signal, at no multiple of keep_every, may have gone since.
  there = {path: path.stat().st_mtime_ns for path in files if path.exists()}
  assert there == {path: before[path] for path in there}
  assert {path for path in files if path.is_relative_to(work / "seed=1")} <= set(there)
  assert json.loads(again.stdout.splitlines()[-1])["held_out_loss"] == results["held_out_loss"]
  assert (work / "sweep.json").read_text() == (tmp_path / "whole" / "sweep.json").read_text()
  third = shell(*flags, f"--workdir={work}")
  assert third.returncode == 0 and third.stderr.count(": done") == 2
