"""Several starters of one sweep, folders of runs that are broken, and a sweep that is killed with its run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.test_sweep import ROOT, TWO, Pretending, make_plan, write
from xlmr_jax.errors import UserError
from xlmr_jax.files import lock
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.sweep.folder import describe, open_folder, refuse_changed
from xlmr_jax.sweep.runner import StoppedError, run_all

BUILDS = TWO.replace("3})", "3}, rows=Rows('r', 100))")


def begin(plan):
  open_folder(plan.folder, describe(plan.sweep, plan.overrides))


# --- starters with other flags ----------------------------------------------------------------------------------------


def test_a_starter_whose_sweep_another_one_has_changed_begins_nothing(tmp_path, capsys):
  """Nothing had begun, so that the second one's flags were taken. Their results would lie in one folder."""
  first, second = (make_plan(tmp_path, overrides=[f"--config.train_steps={steps}"]) for steps in (7, 8))
  begin(first)
  begin(second)
  pretending = Pretending()
  failed = {"peak_lr=0.1,seed=3": 1, "peak_lr=0.2,seed=3": 1}
  assert run_all(first, first.sweep.runs, pretending) == (failed, []) and pretending.lines == []
  assert (
    "another starter has changed the sweep since this one began (train_steps: 8 there, 7 here)" in capsys.readouterr().err
  )
  assert run_all(second, second.sweep.runs, pretending) == ({}, []) and len(pretending.ended) == 2


def test_what_has_begun_goes_on_when_the_sweep_gets_more_runs(tmp_path):
  plan = make_plan(tmp_path)
  begin(plan)
  with pytest.raises(StoppedError):
    run_all(plan, plan.sweep.runs, Pretending(stops=(1,)))
  (tmp_path / "longer").mkdir()
  begin(make_plan(tmp_path, TWO.replace("(0.1, 0.2)", "(0.1, 0.2, 0.3)"), overrides=["--config.log.every_steps=1"]))
  pretending = Pretending()
  assert run_all(plan, plan.sweep.runs, pretending) == ({}, []) and len(pretending.ended) == 2


@pytest.mark.parametrize("program, said", [
  (TWO.replace("3}", "4}, values={'peak_lr': lr, 'seed': 3}"), r"changes of the run: {'optimizer.peak_lr': 0.1, 'seed': 4}"),
  (TWO.replace("(0.1, 0.2)", "(0.2,)"), "name of the run: no such run there, peak_lr=0.1,seed=3 here"),
  (f"def get_config(arg=''):\n  return tiny.config('rows', train_steps=5)\n\n{TWO}", "train_steps: 5 there"),
])  # fmt: skip
def test_a_run_that_has_changed_is_named(tmp_path, program, said):
  plan = make_plan(tmp_path)
  own = plan.description
  begin(make_plan(tmp_path, program))
  with pytest.raises(UserError, match=said):
    refuse_changed(plan.folder, plan.sweep.runs[0], own)


def test_a_run_whose_rows_are_being_built_counts_as_begun(tmp_path):
  plan, other = (make_plan(tmp_path, BUILDS, overrides, given_rows=None, text=tmp_path)
                 for overrides in ((), ("--config.train_steps=8",)))  # fmt: skip
  begin(plan)
  before = plan.folder.record.read_bytes()
  asked = []

  def build(line):
    asked.append(line[3])
    begin(plan)  # Another task of the same array.
    with pytest.raises(
      UserError, match=r"holds a sweep with other flags \(train_steps: as the config has it there, 8 here\)"
    ):
      begin(other)
    raise StoppedError(42)

  with pytest.raises(StoppedError):
    run_all(plan, plan.sweep.runs, build)
  assert asked == ["train_vocabulary"] and plan.folder.record.read_bytes() == before
  begin(other)  # The first one has ended and left no run.
  assert json.loads(plan.folder.record.read_text())["overrides"] == {"train_steps": 8}


def test_a_sweep_that_changes_while_rows_are_built_begins_nothing(tmp_path, capsys):
  plan = make_plan(tmp_path, BUILDS, given_rows=None, text=tmp_path)
  begin(plan)
  lines = []

  def build(line):
    lines.append(line[3])
    if line[3] == "build_rows":
      (plan.folder.rows / "r").mkdir()
      (plan.folder.rows / "r" / "manifest.json").write_text("{}")
      value = json.loads(plan.folder.record.read_text())
      plan.folder.record.write_text(json.dumps(value | {"overrides": {"train_steps": 9}}))
    return 0

  failed, _ = run_all(plan, plan.sweep.runs, build)
  assert set(failed.values()) == {1} and len(failed) == 2 and lines == ["train_vocabulary", "build_rows"]
  assert capsys.readouterr().err.count("another starter has changed the sweep") == 2


def test_starters_write_the_description_one_after_another(tmp_path):
  plan, other = make_plan(tmp_path), make_plan(tmp_path, overrides=["--config.train_steps=8"])
  plan.folder.root.mkdir()
  held = lock(plan.folder.root / ".sweep.json.lock", "")

  def write_and_claim():  # The first starter, which is slow.
    time.sleep(0.3)
    plan.folder.record.write_text(json.dumps(plan.description))
    claims.append(plan.folder.claim(plan.sweep.runs[0]))
    held.close()

  claims = []
  thread = threading.Thread(target=write_and_claim)
  thread.start()
  with pytest.raises(UserError, match="other flags"):
    begin(other)
  thread.join()
  claims[0].close()


def test_in_a_bucket_the_second_description_does_not_replace_the_first(bucket_port, tmp_path, monkeypatch):
  """Both starters have seen that there is none."""
  import dataclasses

  from tests import bucket_server
  from xlmr_jax.sweep import folder as module

  root = module.SweepFolder(f"gs://{bucket_server.BUCKET}/{tmp_path.name}")
  plan, other = (
    dataclasses.replace(make_plan(tmp_path, overrides=overrides), folder=root)
    for overrides in ((), ("--config.train_steps=8",))
  )
  read, seen = module.read_description, []

  def first_time_none(folder):
    seen.append(None)
    if len(seen) > 1:
      return read(folder)
    begin(plan)
    plan.folder.workdir(plan.sweep.runs[0]).record.write_text("{}")

  monkeypatch.setattr(module, "read_description", first_time_none)
  with pytest.raises(UserError, match="other flags"):
    begin(other)
  assert json.loads(root.record.read_text()) == plan.description


# --- broken folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what, said", [
  ("link", "is a link to nothing; mend or remove it"), ("file", "is no folder"), ("claim", "Is a directory"),
  ("state", "Permission denied"),
])  # fmt: skip
def test_a_run_whose_folder_is_broken_leaves_the_others_alone(tmp_path, tiny_rows, capsys, monkeypatch, what, said):
  plan = make_plan(tmp_path, given_rows=tiny_rows)
  begin(plan)
  first, second = plan.sweep.runs
  root = plan.folder.workdir(first).root
  if what == "link":
    root.symlink_to("nowhere")
  elif what == "file":
    root.write_text("")
  elif what == "claim":
    (root / ".sweep.lock").mkdir(parents=True)
  else:
    exists = type(root).exists

    def refused(path):
      if path.is_relative_to(root):
        raise PermissionError(13, "Permission denied", str(path))
      return exists(path)

    monkeypatch.setattr(type(root), "exists", refused)
  pretending = Pretending()
  assert run_all(plan, plan.sweep.runs, pretending) == ({first.name: 1}, [])
  assert pretending.ended == {second.name: 1}
  (line,) = [line for line in capsys.readouterr().err.splitlines() if said in line]
  assert line.startswith(f"sweep: {first.name} (1 of 2): {root}")


def test_an_error_that_is_no_files_ends_the_sweep(tmp_path):
  plan = make_plan(tmp_path)

  def fail(line):
    raise OSError(12, "Cannot allocate memory")

  with pytest.raises(OSError, match="Cannot allocate"):
    run_all(plan, plan.sweep.runs, fail)


def listed(config, work, *more):
  """What the command says where nothing can be written."""
  program = (
    "import os, sys\nos.access = lambda *_, **__: False\nfrom xlmr_jax.__main__ import main\nsys.argv[0] = 'xlmr'\nmain()\n"
  )
  line = [sys.executable, "-c", program, "sweep", f"--config={config}", f"--workdir={work}", *more]
  return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900)


def test_list_and_commands_only_read_and_tell_a_broken_run(tmp_path, tiny_rows):
  """A colleague's sweep, in a folder that this user may only read."""
  config, work = write(tmp_path / "two.py", TWO), tmp_path / "w"
  plan = make_plan(tmp_path)
  (work / "peak_lr=0.1,seed=3").mkdir(parents=True)
  (work / "peak_lr=0.1,seed=3" / "result.json").write_text("{")
  (work / "sweep.json").write_text(json.dumps(plan.description | {"name": str(config)}))
  before = sorted(work.rglob("*"))
  flags = (f"--rows={tiny_rows}", "--config.evaluate.tasks=demo_entities")
  out = listed(config, work, *flags, "--list")
  assert out.returncode == 0, out.stderr
  assert out.stdout.splitlines() == [
    "   0  broken   peak_lr=0.1,seed=3", "   1  new      peak_lr=0.2,seed=3", '{"runs": 2, "broken": 1, "new": 1}'
  ]  # fmt: skip
  assert out.stderr.startswith("peak_lr=0.1,seed=3: ") and "result.json cannot be read" in out.stderr
  out = listed(config, work, *flags, "--commands")
  assert out.returncode == 0 and "--config.optimizer.peak_lr=0.2" in out.stdout, out.stderr
  assert sorted(work.rglob("*")) == before
  assert "cannot be written" in listed(config, work, *flags).stderr


def test_list_refuses_what_is_no_folder_and_a_wrong_config(tmp_path):
  config = write(tmp_path / "two.py", TWO)
  for work, flag, said in ((config, "--list", "two.py is no folder"), (tmp_path, "--config.train_steps=-1", "train_steps")):
    out = listed(config, work, "--list", flag)
    assert (out.returncode, out.stdout) == (1, "") and said in out.stderr, out.stderr


# --- a sweep that is killed -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program of its parent's death")
def test_the_run_of_a_sweep_that_was_killed_saves_and_ends(tmp_path, tiny_rows):
  config = write(tmp_path / "two.py", "def sweep(add):\n  for n in (1, 2):\n    add({'seed': n})\n")
  work = tmp_path / "w"
  flags = (f"--config={config}", f"--rows={tiny_rows}", f"--workdir={work}", "--config.checkpoint.every_steps=100000")
  line = [sys.executable, "-m", "xlmr_jax", "sweep", *flags, "--config.train_steps=100000"]
  with (tmp_path / "said").open("w") as file:
    sweep = subprocess.Popen(line, cwd=ROOT, stdout=file, stderr=file)
  deadline = time.monotonic() + 300
  while "first step" not in (tmp_path / "said").read_text() and time.monotonic() < deadline and sweep.poll() is None:
    time.sleep(0.05)
  (child,) = map(int, Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split())
  os.kill(sweep.pid, signal.SIGKILL)
  sweep.wait()
  workdir = Workdir(work / "seed=1")
  try:
    while time.monotonic() < deadline:
      try:
        workdir.lock_training().close()
        break
      except UserError:
        time.sleep(0.05)
    workdir.lock_training().close()
  except UserError:
    os.kill(child, signal.SIGKILL)
    raise
  assert len(sound_steps(workdir.checkpoints)) == 1 and not (work / "seed=2").exists()
