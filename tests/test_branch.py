"""Branches: a run that goes on from a checkpoint of another one is that run continued, and leaves it as it was."""

import dataclasses
import itertools
import json
import shlex
import shutil
import subprocess
import sys
import uuid

import jax
import numpy as np
import pytest

from tests import bucket_server, tiny
from tests.test_phases import THREE, config_of, read, three_phases  # noqa: F401  a fixture
from tests.test_train import assert_same_run, final_state
from xlmr_jax.data import phases
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.files import any_path, write_sealed_json
from xlmr_jax.folders import copy_folder
from xlmr_jax.run import branch as branches
from xlmr_jax.run import manifest, retention
from xlmr_jax.run.checkpoint import sound_steps
from xlmr_jax.run.logs import read_held_out, read_train
from xlmr_jax.run.past import measures_alike
from xlmr_jax.run.workdir import RunRecord, Workdir, read_record
from xlmr_jax.training import loop, preparation


def record_of(config, store):
  return RunRecord(
    config=config.to_dict(), vocabulary_size=tiny.VOCABULARY, tokenizer_sha256=store.manifest["tokenizer_sha256"],
    seq_len=tiny.SEQ_LEN, rows_fingerprint=store.fingerprint, languages=store.languages, rows=str(store.root),
  )  # fmt: skip


def start(config, folder, store, branch="", stop=None):
  """What `xlmr pretrain` does, in this process."""
  folder.mkdir(exist_ok=True)
  workdir, rows = Workdir(folder), preparation.rows_of(store)
  record = record_of(config, store)
  branches.refuse_other_order(workdir, record, rows)
  chosen = branches.choose(branch, workdir, record, rows)
  past = chosen.phases if chosen else ()
  before = branches.past_of(workdir, chosen, rows)
  prepared = tiny.prepared(config, store) if not past else preparation.prepare(config, store, past, before.newest)
  branches.refuse_other_past(workdir, prepared.phases, rows, record.config)
  if before:
    preparation.say_other_rate(before, prepared)
  if chosen and not workdir.record.exists():
    branches.refuse_other_model(chosen, prepared.program.state)
  dataclasses.replace(record, branch=chosen.to_json() if chosen else None).write(workdir)
  if chosen:
    branches.copy(chosen, workdir)
  result = loop.run(prepared, workdir, tiny.StopAt(stop))
  return EXIT_RESTART if result.preempted else EXIT_DONE


def contents(folder):
  return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def stopped(tiny_store, tmp_path_factory):
  """The run of three phases up to step 7, in the second one, with checkpoints 4 and 7."""
  folder = tmp_path_factory.mktemp("stopped")
  assert start(config_of(), folder, tiny_store, stop=7) == EXIT_RESTART
  return folder


@pytest.mark.slow
def test_a_branch_is_the_run_continued(three_phases, stopped, tiny_store, tmp_path):  # noqa: F811
  """With the same config, from an earlier checkpoint too: the state and the logs are bit-equal, and RUN is as it was."""
  before = contents(stopped)
  assert start(config_of(), tmp_path / "new", tiny_store, f"{stopped}@4") == EXIT_DONE
  assert_same_run(three_phases, tmp_path / "new", 12)
  assert contents(stopped) == before
  assert read_record(Workdir(tmp_path / "new")).branch["step"] == 4


@pytest.mark.slow
def test_three_phases_are_three_runs(three_phases, tiny_store, tmp_path):  # noqa: F811
  """Each of the three runs knows its own phase only, and reads the rows on from where the one before it stopped."""
  first, second, third = (config_of(phases=("until=end," + text.partition(",")[2],)) for text in THREE)
  assert start(first, tmp_path / "a", tiny_store, stop=5) == EXIT_RESTART
  assert start(second, tmp_path / "b", tiny_store, str(tmp_path / "a"), 4) == EXIT_RESTART
  # It is stopped, and goes on with and without the flag: its record tells where it came from.
  run = f"{tmp_path / 'b'}@9"
  assert start(third, tmp_path / "c", tiny_store, run, 1) == EXIT_RESTART
  assert start(third, tmp_path / "c", tiny_store, run, 1) == EXIT_RESTART
  assert start(third, tmp_path / "c", tiny_store) == EXIT_DONE
  for x, y in zip(*(jax.tree.leaves(final_state(folder, 12)) for folder in (three_phases, tmp_path / "c")), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  for a, b in zip(read_train(Workdir(three_phases)), read_train(Workdir(tmp_path / "c")), strict=True):
    assert a == b | {"phase": a["phase"]}  # The first run has one phase, and does not count it.
  found = read_record(Workdir(tmp_path / "c")).branch
  assert [phase["until"] for phase in found["phases"]] == [5, 9] and found["run"] == str(tmp_path / "b")


@pytest.mark.slow
def test_a_decay_from_a_trunk(stopped, tiny_store, tmp_path):
  """Another end, schedule and phase than the run had."""
  changes = {"train_steps": 10, "optimizer__schedule": "wsd", "optimizer__decay_steps": 3}
  config = config_of(phases=("until=end,alpha=1.0",), **changes)
  assert start(config, tmp_path / "new", tiny_store, str(stopped)) == EXIT_DONE
  lines = [json.loads(line) for line in (tmp_path / "new" / "train.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [3, 6, 9, 10] and lines[-1]["lr"] == 0.0 and lines[-1]["phase"] == 3
  # Without a checkpoint of its own it begins where it branched off, and never at step 0.
  shutil.rmtree(tmp_path / "new" / "checkpoints")
  assert start(config, tmp_path / "new", tiny_store, stop=0) == EXIT_RESTART
  assert sound_steps(Workdir(tmp_path / "new").checkpoints) == [7]
  with pytest.raises(UserError, match=r"7 steps have been made, and phase 2 .*alpha: 0.5 then, 0.1 now"):
    kept = branches.branch_of(read_record(Workdir(tmp_path / "new")))
    changed = tuple(dataclasses.replace(phase, alpha=0.1) if i else phase for i, phase in enumerate(kept.phases))
    branches.refuse_other_past(Workdir(tmp_path / "new"), changed, preparation.rows_of(tiny_store), config.to_dict())


@pytest.mark.slow
def test_a_copy_that_was_killed_is_made_again(three_phases, stopped, tiny_store, tmp_path, monkeypatch):  # noqa: F811
  def killed(source, target, last):
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(last))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(branches, "copy_folder", killed)
    with pytest.raises(KeyboardInterrupt):
      start(config_of(), tmp_path / "new", tiny_store, f"{stopped}@4")
  assert not sound_steps(Workdir(tmp_path / "new").checkpoints)
  assert start(config_of(), tmp_path / "new", tiny_store, str(stopped)) == EXIT_DONE  # The record has the step.
  assert_same_run(three_phases, tmp_path / "new", 12)


def test_what_is_copied_is_pinned_and_verified(stopped, tiny_store, tmp_path, monkeypatch):
  """A trainer does not remove it meanwhile; an evaluator neither loses its pin nor takes this one away."""
  source, seen, copy_folder = Workdir(stopped), [], branches.copy_folder
  chosen = branches.choose(f"{stopped}@4", Workdir(tmp_path / "new"), record_of(config_of(), tiny_store),
                           preparation.rows_of(tiny_store))  # fmt: skip

  def look(a, b, last):
    retention.clear_pins(source)  # as an evaluator that starts
    seen.append(retention.pinned_steps(source))
    with retention.pin(source, 4):
      pass
    seen.append(retention.pinned_steps(source))
    copy_folder(a, b, last=last)
    flipped = next(path for path in sorted((b / "state").rglob("*")) if path.is_file() and path.stat().st_size > 100)
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])

  monkeypatch.setattr(branches, "copy_folder", look)
  (tmp_path / "new").mkdir()
  with pytest.raises(UserError, match=r"checkpoints/4 cannot be branched off from: .*has changed since it was saved"):
    branches.copy(chosen, Workdir(tmp_path / "new"))
  assert seen == [{4}, {4}] and retention.pinned_steps(source) == set()
  assert not sound_steps(Workdir(tmp_path / "new").checkpoints)


def test_two_branches_do_not_share_a_pin(stopped, tmp_path):
  """The first that is done would leave the other without one."""
  source = Workdir(shutil.copytree(stopped, tmp_path / "run"))
  with branches._pinned(source, 4):
    with branches._pinned(source, 4):
      assert len(list(source.pins.iterdir())) == 2
    assert retention.pinned_steps(source) == {4}
  assert retention.pinned_steps(source) == set()


def test_a_damaged_note_of_the_other_run_is_one_line(stopped, tiny_store, tmp_path):
  source = Workdir(shutil.copytree(stopped, tmp_path / "run"))
  chosen = branches.choose(f"{source}@4", Workdir(tmp_path / "new"), record_of(config_of(), tiny_store),
                           preparation.rows_of(tiny_store))  # fmt: skip
  (source.checkpoints / "4" / "notes" / "metadata").write_text("{")
  (tmp_path / "new").mkdir()
  with pytest.raises(UserError, match=r"checkpoints/4 cannot be branched off from: .*; name another step"):
    branches.copy(chosen, Workdir(tmp_path / "new"))


def test_what_an_import_brought_comes_along(stopped, tmp_path):
  """Its pooler and its weights are needed for scores and the export of the branch, too."""
  source, new = Workdir(shutil.copytree(stopped, tmp_path / "run")), Workdir(tmp_path / "new")
  source.initial.mkdir(parents=True)
  (source.initial / "file").write_bytes(b"a pooler")
  new.root.mkdir()
  branches.copy(branches.Branch(str(source), 4, ()), new)
  assert (new.initial / "file").read_bytes() == b"a pooler" and sound_steps(new.checkpoints) == [4]


@pytest.mark.parametrize(
  "changes, branch, message",
  [
    ({}, "{run}@5", "no sound checkpoint 5; it has those of steps 4, 7"),
    ({"seed": 1}, "{run}", "config.seed=1, but 0 there; the order of the rows follows"),
    ({"train_steps": 7, "phases": ()}, "{run}", "begins at step 7, but config.train_steps=7, which counts the steps"),
    ({}, "{run}/nothing", "config.json is missing"),
    ({"model__pre_norm": True}, "{run}", "checkpoint 7 in .* has .*; use the config that the checkpoint was made with"),
  ],
)
def test_what_cannot_be_branched_off_is_refused(stopped, tiny_store, tmp_path, changes, branch, message):
  with pytest.raises(UserError, match=message):
    start(config_of(**changes), tmp_path / "new", tiny_store, branch.format(run=stopped))
  assert not (tmp_path / "new" / "config.json").exists()


def test_a_workdir_of_another_run_is_refused(stopped, tiny_run, tiny_store):
  with pytest.raises(UserError, match=r"holds a run that did not branch off; use a new workdir, or leave --branch out"):
    branches.choose(str(tiny_run), Workdir(stopped), record_of(config_of(), tiny_store), preparation.rows_of(tiny_store))


def test_run_and_step_of_the_flag():
  assert [branches.parse(text)[1] for text in ("/a/b@40", "/a/b", "/a@b/c", "/a/b@4x", "/a/b@04")] == [40] + [None] * 4
  assert str(branches.parse("/a@b/c")[0]) == "/a@b/c"


@pytest.mark.slow
def test_a_run_in_a_bucket_is_branched_off_to_a_disk_and_back(bucket_port, stopped, tiny_store, tmp_path):
  there = any_path(f"gs://{bucket_server.BUCKET}/{uuid.uuid4().hex[:8]}")
  copy_folder(stopped, there)
  rows, record = preparation.rows_of(tiny_store), record_of(config_of(), tiny_store)
  for source, target in ((there, tmp_path / "new"), (stopped, there.with_name("new"))):
    target.mkdir(exist_ok=True)
    branches.copy(branches.choose(f"{source}@4", Workdir(target), record, rows), Workdir(target))
    assert sound_steps(Workdir(target).checkpoints) == [4] and retention.pinned_steps(Workdir(source)) == set()
    assert manifest.verify(Workdir(target).checkpoints / "4") == manifest.verify(stopped / "checkpoints" / "4")
  assert len(read_train(Workdir(there.with_name("new")))) == 2  # A log in a bucket is a folder of segments.


@pytest.mark.slow
def test_the_command(tiny_rows, tmp_path):
  """Phases and branches from the command line; a change of what has been read is refused, one of what comes is allowed."""

  def pretrain(workdir, *flags):
    command = [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={workdir}"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr

  run, phases = tmp_path / "run", "--config.phases=until=50%,alpha=0.7;until=end,mask_share=0.3"
  assert "error: config.phases: 'alfa=0.7' is no KEY=VALUE" in pretrain(run, "--config.phases=until=50%,alfa=0.7")[1]
  assert pretrain(run, phases)[0] == 0
  assert read_record(Workdir(run)).config["phases"] == ["until=50%,alpha=0.7", "until=end,mask_share=0.3"]
  code, said = pretrain(run, "--config.phases=until=50%,alpha=0.6 until=end,mask_share=0.3", "--allow_change=phases")
  assert code == 1 and "12 steps have been made, and phase 1 of them would change (alpha: 0.7 then, 0.6 now)" in said
  more = ("--config.train_steps=16", "--config.phases=until=6,alpha=0.7;until=12,mask_share=0.3;until=end,alpha=1.0")
  code, said = pretrain(run, *more)
  assert code == 1 and "--allow_change=phases,train_steps" in said
  code, said = pretrain(tmp_path / "new", f"--branch={run}@8", *more)
  assert code == 0 and "branching off with config.train_steps=16 (there 12)" in said and "resuming at step 8" in said
  assert pretrain(run, *more, "--allow_change=phases,train_steps")[0] == 0
  assert sound_steps(Workdir(run).checkpoints)[0] == 16
  # A record of a version whose phases and branches had fewer fields is the same branch.
  record = json.loads((tmp_path / "new" / "config.json").read_text())
  del record["branch"]["measures_anew"]
  for phase in record["branch"]["phases"]:
    del phase["parallel_share"]
  (tmp_path / "new" / "config.json").write_text(json.dumps(record))
  assert pretrain(tmp_path / "new", *more)[0] == 0


@pytest.mark.slow
def test_another_batch_begins_where_the_old_one_ended(tiny_rows, tiny_store, tmp_path):
  """As after a batch that was too large for the memory: the refusal gives the flags, and they work."""
  run, alone = tmp_path / "run", ["--config.batch_rows=32", "--allow_change=batch_rows"]
  # Two of the seven calls are of held-out passes, so that it stops at step 5.
  assert start(tiny.config(tiny_rows), run, tiny_store, stop=7) == EXIT_RESTART
  command = [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={run}"]
  done = subprocess.run([*command, *alone], capture_output=True, text=True)
  assert done.returncode == 1 and "5 steps have been made, and what a step reads" in done.stderr
  advised = shlex.split(done.stderr.partition("begin at step 5: add ")[2])
  done = subprocess.run([*command, alone[0], *advised], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  lines = read_train(Workdir(run))
  assert [sum(of["rows"] for of in line["languages"].values()) for line in lines] == [48, 112, 208, 304]
  for a, b in itertools.pairwise(lines):
    assert all(of["epochs"] <= b["languages"][name]["epochs"] for name, of in a["languages"].items())
  config = tiny.config(tiny_rows, batch_rows=32, phases=tuple(read_record(Workdir(run)).config["phases"]))
  language, row, epoch = read(tiny.prepared(config, tiny_store).timeline(), 0, 12)
  assert len(np.unique(np.stack([language, row, epoch]), axis=1).T) == len(row) == 304


# --- a past that may not change ---------------------------------------------------------------------------------------


def run_at(tmp_path, monkeypatch, store, step, recoveries=(), **changes):
  """The workdir of a run that has made some steps, without its checkpoints."""
  workdir = Workdir(tmp_path / "at")
  workdir.root.mkdir(exist_ok=True)
  record_of(config_of(**changes), store).write(workdir)
  entries = [{"at": at, "skipped": 4, "steps": [end - 4, end], "reason": "nan"} for at, end in recoveries]
  write_sealed_json(workdir.recoveries, {"recoveries": entries})
  monkeypatch.setattr(branches, "sound_steps", lambda _: [step])
  return workdir


def go_on(workdir, store, **changes):
  """The checks of a start with --allow_change."""
  config, rows = config_of(**changes), preparation.rows_of(store)
  branches.refuse_other_order(workdir, record_of(config, store), rows)
  branches.refuse_other_past(workdir, phases.phases_of(config, rows), rows, config.to_dict())


def test_one_phase_is_a_change_of_the_past_too(tmp_path, monkeypatch, tiny_store):
  """A run without phases read in one way; a single phase that says otherwise is for all steps."""
  workdir = run_at(tmp_path, monkeypatch, tiny_store, 6, phases=())
  go_on(workdir, tiny_store, phases=(f"until=end,alpha={config_of().data.alpha}",))
  go_on(workdir, tiny_store, phases=("until=6", "until=end,alpha=0.9"))
  with pytest.raises(UserError, match="6 steps have been made, and phase 1 of them would change"):
    go_on(workdir, tiny_store, phases=("until=end,alpha=0.9",))


@pytest.mark.parametrize(
  "changes, told",
  [
    ({"batch_rows": 8}, r'config\.batch_rows=8, until now 16: .* step 6: add --allow_change=batch_rows,phases '
                        r'--config\.phases="until=6,batch_rows=16;until=100%"$'),
    ({"data__alpha": 0.9, "batch_rows": 8}, r'=batch_rows,data\.alpha,phases .*=6,batch_rows=16,alpha=0\.3;until=100%"$'),
    ({"data__row_shares": "0.5"}, r"row_shares='0\.5', but the 6 steps so far were made with '', .*: set it as before, or"),
  ],
)  # fmt: skip
def test_a_run_without_phases_reads_on_in_its_order(tmp_path, monkeypatch, tiny_store, changes, told):
  """For all steps alike, another batch or alpha would read rows a second time, or leave some out."""
  workdir = run_at(tmp_path, monkeypatch, tiny_store, 6, phases=())
  go_on(workdir, tiny_store, phases=(), data__mask_share=0.3, train_steps=20)  # These read the same rows.
  go_on(workdir, tiny_store, phases=(), data__parallel_share=0.1)  # There are no pairs.
  with pytest.raises(UserError, match=told):
    go_on(workdir, tiny_store, phases=(), **changes)
  go_on(workdir, tiny_store, phases=(), **changes | {"train_steps": 6})  # Nothing is left to be read.
  run_at(tmp_path, monkeypatch, tiny_store, 0, phases=())
  go_on(workdir, tiny_store, phases=(), **changes)  # Nothing has been read yet.


def test_the_change_begins_behind_what_a_recovery_left_out(tmp_path, monkeypatch, tiny_store):
  workdir = run_at(tmp_path, monkeypatch, tiny_store, 6, [(4, 8)], phases=())
  with pytest.raises(UserError, match=r'begin at step 8: .*"until=8,batch_rows=16;until=100%"$'):
    go_on(workdir, tiny_store, phases=(), batch_rows=8)
  with pytest.raises(UserError, match=r"or be left out; set it as before, or use a new workdir$"):
    go_on(workdir, tiny_store, phases=(), batch_rows=8, train_steps=8)
  go_on(workdir, tiny_store, phases=("until=8,batch_rows=16", "until=100%"), batch_rows=8)


def test_a_branch_without_its_checkpoints_reads_on_in_the_order_too(stopped, tiny_store, tmp_path):
  """It copies the other run's again, so that nothing may change that a continued run may not."""
  workdir = Workdir(tmp_path)
  record = record_of(config_of(phases=("until=end,alpha=0.9",)), tiny_store)
  chosen = branches.choose(f"{stopped}@4", workdir, record, preparation.rows_of(tiny_store))
  dataclasses.replace(record, branch=chosen.to_json()).write(workdir)
  with pytest.raises(UserError, match=r"row_shares='0\.5', but the 4 steps so far"):
    go_on(workdir, tiny_store, data__row_shares="0.5")


@pytest.mark.parametrize("at, newest", [(4, 4), (4, 6)])
def test_phases_change_behind_what_a_recovery_left_out(tmp_path, monkeypatch, tiny_store, at, newest):
  """The run went back to step 4 and reads on from behind step 8. What it left out follows from the phases before step 8."""
  workdir = run_at(tmp_path, monkeypatch, tiny_store, newest, [(at, 8)], phases=())
  go_on(workdir, tiny_store, phases=("until=8", "until=end,alpha=0.9"))
  with pytest.raises(UserError, match=f"went back before step {newest} and reads on from behind step 8.*at step 8 or later"):
    go_on(workdir, tiny_store, phases=(f"until={newest}", "until=end,alpha=0.9"))


def test_a_branch_from_within_a_recovery_begins_its_phases_behind_it(stopped, tiny_store, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(stopped, folder)
  entry = {"at": 5, "skipped": 5, "steps": [5, 10], "reason": "nan"}
  write_sealed_json(folder / "recoveries.json", {"recoveries": [entry]})
  path = folder / "checkpoints" / "7" / "notes" / "metadata"
  notes = json.loads(path.read_text()) | {"recoveries": 1}
  path.write_text(json.dumps(notes))
  rows = preparation.rows_of(tiny_store)

  def begin(*texts):
    record = record_of(config_of(phases=texts), tiny_store)
    return branches.begin(f"{folder}@7", record, rows)

  original = config_of().phases
  assert begin(*original).step == 7
  with pytest.raises(UserError, match=r"reads on from behind step 10.*at step 10 or later"):
    begin("until=end,alpha=0.9")
  notes["recoveries"] = 0  # The checkpoint is of before the recovery, which the branch does not take along.
  path.write_text(json.dumps(notes))
  assert begin("until=end,alpha=0.9").step == 7


def test_a_branch_whose_decay_would_have_begun_before_it_is_refused(stopped, tiny_store):
  decay = {"optimizer__schedule": "wsd", "optimizer__decay_steps": -1}
  rows = preparation.rows_of(tiny_store)
  with pytest.raises(UserError, match=r"is the last phase, which begins at step 5, .*jump at step 7; set it to 5"):
    branches.begin(
      f"{stopped}@7", record_of(config_of(phases=(*THREE[:1], THREE[1].replace("9", "end")), **decay), tiny_store), rows
    )
  assert (
    branches.begin(f"{stopped}@7", record_of(config_of(phases=("until=end,alpha=1.0",), **decay), tiny_store), rows).step
    == 7
  )


def test_a_branch_within_a_decay_keeps_it(stopped, tiny_store, tmp_path):
  """Both decay in the last phase, but with other ends, the rate would jump; with the same one it does not."""
  folder = tmp_path / "run"
  shutil.copytree(stopped, folder)
  decay = {"optimizer__schedule": "wsd", "optimizer__decay_steps": -1}
  texts, rows = (*THREE[:1], THREE[1].replace("9", "end")), preparation.rows_of(tiny_store)
  record_of(config_of(phases=texts, **decay), tiny_store).write(Workdir(folder))

  def begin(**changes):
    return branches.begin(f"{folder}@7", record_of(config_of(phases=texts, **decay | changes), tiny_store), rows)

  assert begin().step == 7
  with pytest.raises(
    UserError, match=r"jump at step 7; the rate of that run falls from step 5 to 12: branch off a checkpoint"
  ):
    begin(train_steps=20)
  assert begin(optimizer__decay_steps=7).step == 7  # The same steps by number.


def test_a_decay_by_number_that_would_have_begun_is_refused_too(stopped, tiny_store, tmp_path):
  """Of a trunk that does not decay, and of one that decays otherwise."""
  folder, rows = tmp_path / "run", preparation.rows_of(tiny_store)
  shutil.copytree(stopped, folder)

  def begin(before, **changes):
    record_of(config_of(optimizer__schedule="wsd", optimizer__decay_steps=before), tiny_store).write(Workdir(folder))
    record = record_of(config_of(optimizer__schedule="wsd", **changes), tiny_store)
    return branches.begin(f"{folder}@7", record, rows)

  with pytest.raises(
    UserError, match=r"decay_steps=7 begins to decay at step 5, and the rate would jump at step 7; set it to at most 5"
  ):
    begin(0, optimizer__decay_steps=7)
  with pytest.raises(
    UserError, match=r"decay_steps=14 begins to decay at step 6, .*; the rate of that run falls from step 4 to"
  ):
    begin(8, optimizer__decay_steps=14, train_steps=20)
  assert begin(0, optimizer__decay_steps=5).step == begin(8, optimizer__decay_steps=8).step == 7


def test_a_continued_run_has_no_other_decay_by_number(tmp_path, monkeypatch, tiny_store):
  wsd = {"phases": (), "optimizer__schedule": "wsd"}
  workdir = run_at(tmp_path, monkeypatch, tiny_store, 8, **wsd, optimizer__decay_steps=0)
  with pytest.raises(
    UserError, match=r"decay_steps=6 the rate would decay from step 6 to 12 instead of not at all, .* at most 4"
  ):
    go_on(workdir, tiny_store, **wsd, optimizer__decay_steps=6)
  go_on(workdir, tiny_store, **wsd, optimizer__decay_steps=4)
  go_on(workdir, tiny_store, **wsd, optimizer__decay_steps=0, train_steps=20)
  go_on(workdir, tiny_store, **wsd, optimizer__decay_steps=4, train_steps=8)  # No step is left, at whatever rate.


@pytest.mark.parametrize(
  "changes, told",
  [
    ({}, ""),
    ({"train_steps": 24}, "learning rate: at step 8 it is 0.00714 here, 0.00333 as it was\n"),
    ({"optimizer__peak_lr": 2e-2}, "learning rate: at step 8 it is 0.00667 here, 0.00333 as it was\n"),
    ({"optimizer__weight_decay": 0.1}, ""),
    ({"optimizer__schedule": "wsd"}, "learning rate: at step 8 it is 0.01 here, 0.00333 as it was\n"),
  ],
)
def test_a_rate_that_jumps_is_told(tiny_store, capsys, changes, told):
  before = tiny.config(phases=())
  past = branches.Past(before.to_dict(), (), 8, "as it was")
  preparation.say_other_rate(past, tiny.prepared(tiny.config(phases=(), **changes), tiny_store))
  assert capsys.readouterr().out == told


def test_what_a_start_goes_on_from(stopped, tiny_store, tmp_path):
  """The run in the workdir, or the one that it branches off from as long as there is none."""
  rows, new = preparation.rows_of(tiny_store), Workdir(tmp_path)
  past = branches.past_of(Workdir(stopped), None, rows)
  assert past[2:] == (7, "as it was") and [phase.until for phase in past.phases] == [5, 9, 12]
  assert branches.past_of(new, None, rows) is None
  chosen = branches.choose(f"{stopped}@4", new, record_of(config_of(), tiny_store), rows)
  assert branches.past_of(new, chosen, rows) == past._replace(newest=4, where="there")


# --- losses that do not compare -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tiny_store, tmp_path_factory):
  """A run up to step 5 with held-out passes at steps 0 and 4, and checkpoints 4 and 5."""
  folder = tmp_path_factory.mktemp("measured")
  assert start(tiny.config(), folder, tiny_store, stop=7) == EXIT_RESTART
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes, steps, own",
  [
    ({}, [0, 4, 8, 12], [4, 8, 12]),
    ({"data__mask_share": 0.6}, [0, 4, 8, 12], [4, 8, 12]),
    ({"held_out__max_rows_per_language": 1}, [0, 4, 8, 12], [4, 8, 12]),
    ({"data__mask_share": 0.6, "held_out__every_steps": 3}, [0, 6, 9, 12], [6, 9, 12]),
  ],
)
def test_a_branch_that_measures_otherwise_measures_its_first_step_anew(measured, tiny_store, tmp_path, changes, steps, own):
  """Else stop.by=held_out would compare its losses with one of other masks; what came before stays in the log."""
  config, new = tiny.config(checkpoint__every_steps=1, **changes), Workdir(tmp_path / "new")
  assert start(config, new.root, tiny_store, f"{measured}@4", stop=1) == EXIT_RESTART
  assert read_record(new).branch["measures_anew"] == bool(changes)
  branch_of_it = branches.begin(f"{new.root}@4", record_of(config, tiny_store), preparation.rows_of(tiny_store))
  assert branch_of_it.measures_anew == bool(changes)  # That checkpoint is the first run's.
  assert start(config, new.root, tiny_store) == EXIT_DONE
  theirs = {line["step"]: line for line in read_held_out(Workdir(measured))}
  ours = {line["step"]: line for line in read_held_out(new)}
  assert sorted(ours) == steps and ours[0] == theirs[0]
  assert [line["step"] for line in branches.own_held_out(new)] == own
  if 4 in ours:
    assert (ours[4] == theirs[4]) == (not changes)


def test_the_notes_of_other_masks_lose_their_losses():
  state = {
    "raised": [["turned_up", "aa"], ["epochs", "aa"]],
    "losses": {"aa": [1]},
    "held_out": {"aa": [1]},
    "held_out_step": 4,
  }
  notes = {"steps": 2, "logs": {"train": 1, "held_out": 2}, "alarms": {"lines": 3, "state": state}}
  found = preparation._without_held_out(notes)
  assert found["logs"] == {"train": 1} and found["steps"] == 2 and found["alarms"]["lines"] == 3
  assert found["alarms"]["state"] == {"raised": [["epochs", "aa"]], "losses": {}, "held_out": {}}
  assert notes["alarms"]["state"] is state and "held_out_step" in state
  assert preparation._without_held_out({"steps": 2}) == {"steps": 2, "logs": {}}


@pytest.mark.parametrize(
  "changes, alike",
  [
    ({}, True),
    ({"data__alpha": 0.7, "held_out__every_steps": 3, "batch_rows": 32}, True),
    ({"data__mask_unit": "word"}, False),
    ({"data__mask_span_mean": 5.0}, True),  # There are no spans.
    ({"data__mask_unit": "span", "data__mask_span_mean": 5.0}, False),
    ({"model__isolate_documents": True}, False),
  ],
)
def test_what_held_out_losses_depend_on(changes, alike):
  assert measures_alike(tiny.config().to_dict(), tiny.config(**changes).to_dict()) == alike


@pytest.mark.parametrize("key, value", [("family", "bert"), ("layer_norm_epsilon", 1e-12), ("heads", 1)])
def test_a_branch_has_the_same_model(stopped, tiny_store, key, value):
  """Also where the parameters' shapes agree."""
  with pytest.raises(UserError, match=rf"config\.model\.{key}={value}, but .* there; a branch goes on with the same model"):
    changed = record_of(config_of(**{f"model__{key}": value}), tiny_store)
    branches.begin(f"{stopped}@7", changed, preparation.rows_of(tiny_store))


def test_a_decay_that_has_begun_does_not_move(tmp_path, monkeypatch, tiny_store):
  decay = {"optimizer__schedule": "wsd", "optimizer__decay_steps": -1}
  workdir = run_at(tmp_path, monkeypatch, tiny_store, 8, phases=("until=6", "until=end"), **decay)
  go_on(workdir, tiny_store, phases=("until=6", "until=end"), **decay)
  with pytest.raises(UserError, match="would decay from step 10 to 12 instead of from step 6 to 12, and 8 steps have been"):
    go_on(workdir, tiny_store, phases=("until=6", "until=10", "until=end,alpha=0.1"), **decay)
  with pytest.raises(UserError, match="from step 6 to 20 instead of from step 6 to 12"):
    go_on(workdir, tiny_store, phases=("until=6", "until=end"), **decay, train_steps=20)


def test_the_last_phase_does_not_become_the_decay_once_it_has_begun(tmp_path, monkeypatch, tiny_store):
  """--allow_change=optimizer from a rate that stays, from another schedule, and from as many steps by number."""
  texts, last = ("until=6", "until=end"), {"optimizer__schedule": "wsd", "optimizer__decay_steps": -1}
  for before in ({"optimizer__schedule": "wsd", "optimizer__decay_steps": 0}, {"optimizer__schedule": "cosine"}):
    workdir = run_at(tmp_path, monkeypatch, tiny_store, 8, phases=texts, **before)
    with pytest.raises(UserError, match="from step 6 to 12 instead of not at all, and 8 steps have been made"):
      go_on(workdir, tiny_store, phases=texts, **last)
    go_on(workdir, tiny_store, phases=("until=6", "until=8", "until=end,alpha=0.1"), **last)
  workdir = run_at(tmp_path, monkeypatch, tiny_store, 8, phases=texts, **last | {"optimizer__decay_steps": 6})
  go_on(workdir, tiny_store, phases=texts, **last)
