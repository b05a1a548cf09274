"""Damage of every kind to every file of a checkpoint: the one before, or an error, never a silent load."""

import json
import random
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from xlmr_jax.config_checks import check_config
from xlmr_jax.errors import StoreError, UserError
from xlmr_jax.files import write_json
from xlmr_jax.run import branch, checkpoint, checkpoint_folder, manifest, retention
from xlmr_jax.run.checkpoint import MANIFEST, Checkpoints, DamagedError, verify
from xlmr_jax.run.retention import Retention, steps_to_keep
from xlmr_jax.run.workdir import Workdir


def state_of(step: int) -> dict:
  rng = np.random.default_rng(step)
  return {"step": jnp.asarray(step, jnp.int32), "params": {"w": jnp.asarray(rng.normal(size=(64, 33)), jnp.float32)}}


def abstract(state=None):
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state or state_of(0))


def restore(folder, wanted=None):
  """What a new process restores from the checkpoints in folder."""
  checkpoints = Checkpoints(Workdir(folder.parent))
  try:
    return checkpoints.restore_latest(wanted or abstract())
  finally:
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = Workdir(tmp_path_factory.mktemp("run"))
  checkpoints = Checkpoints(workdir)
  for step in (3, 6, 9):
    checkpoints.save(step, state_of(step), {"rows_seen": [step]})
    checkpoints.poll()
  checkpoints.close()
  return workdir.checkpoints


@pytest.fixture
def folder(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "run" / "checkpoints")


def assert_is(found, step):
  assert found[0] == step and found[2] == {"rows_seen": [step]}
  for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(state_of(step))):
    np.testing.assert_array_equal(a, b)


def test_newest_comes_back_bit_for_bit_and_old_ones_go(folder):
  assert sorted(path.name for path in folder.iterdir()) == ["6", "9"]
  assert_is(restore(folder), 9)


def test_nothing_saved_is_no_error(tmp_path):
  assert restore(tmp_path / "checkpoints") is None


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def cut(path):
  path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {"flipped": flip, "cut": cut, "deleted": lambda path: path.unlink()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found(folder, damage):
  """Every file of the newest checkpoint in turn, by verify(), which restore_latest() goes by."""
  files = [path for path in (folder / "9").rglob("*") if path.is_file()]
  assert len(files) > 8
  for path in files:
    intact = path.read_bytes()
    if damage == "cut" and not intact:
      continue
    if damage == "flipped" and not intact:
      path.write_bytes(b"x")
    else:
      DAMAGES[damage](path)
    with pytest.raises(DamagedError, match=path.name.replace(".", r"\.")):
      verify(folder / "9")
    path.write_bytes(intact)
  verify(folder / "9")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["largest", MANIFEST, "state/_METADATA"])
def test_falls_back_past_damage_and_says_so(folder, damage, which, capfd):
  files = sorted(((folder / "9").rglob("*")), key=lambda path: path.stat().st_size if path.is_file() else -1)
  path = files[-1] if which == "largest" else folder / "9" / which
  DAMAGES[damage](path)
  assert_is(restore(folder), 6)
  assert f"checkpoint 9 cannot be used: {path.parent}/{path.name}" in capfd.readouterr().err
  unfinished = which == MANIFEST and damage == "deleted"  # as if killed before it was written: nothing worth keeping
  assert not (folder / "9").exists() and (folder.parent / "damaged").exists() != unfinished
  checkpoints = Checkpoints(Workdir(folder.parent))  # and step 9 can be made again
  checkpoints.save(9, state_of(9), {"rows_seen": [9]})
  checkpoints.close()
  assert_is(restore(folder), 9)


def test_all_damaged_is_an_error(folder, capfd):
  for step in ("6", "9"):
    flip(folder / step / "state" / "_METADATA")
  for _ in range(2):  # and again: the first refusal must not clear the way for a silent start from nothing
    with pytest.raises(UserError, match=r"none of the checkpoints .* is sound"):
      restore(folder)
  assert sorted(path.name for path in folder.iterdir()) == ["6", "9"]


def test_killed_before_the_first_was_sealed_starts_anew(folder, capfd):
  for step in ("6", "9"):
    (folder / step / MANIFEST).unlink()
  assert restore(folder) is None
  assert "checkpoint 9 cannot be used" in capfd.readouterr().err


def test_other_leaves_are_refused_by_name(folder):
  state = state_of(0)
  state["params"]["w"] = state["params"]["w"].astype(jnp.bfloat16)  # Orbax alone would cast
  with pytest.raises(UserError, match=r"params/w float32\[64, 33\], this run bfloat16\[64, 33\]"):
    restore(folder, abstract(state))
  state = state_of(0)
  state["params"]["extra"] = state["params"].pop("w")
  with pytest.raises(UserError, match=r"params/extra absent, this run float32"):
    restore(folder, abstract(state))


def test_what_is_saved_is_the_state_at_the_call(tmp_path):
  """The loop gives the state away at once; also where a save finds the memory that the one before has left."""
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  parted = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  wanted = {"a": jax.ShapeDtypeStruct((8 * 4096, 33), jnp.float32, sharding=parted)}
  bump = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
  checkpoints = Checkpoints(Workdir(tmp_path), Retention(Workdir(tmp_path), keep=3))
  assert checkpoints.restore_latest(wanted) is None  # as a run begins
  state = jax.device_put({"a": np.zeros(wanted["a"].shape, np.float32)}, parted)
  for step in (1, 2, 3):
    state = bump(state)
    checkpoints.save(step, state, {})
    assert checkpoints._room["a"].sharding == parted
    for _ in range(3):
      state = bump(state)
  checkpoints.close()
  for step, value in ((1, 1.0), (2, 5.0), (3, 9.0)):
    (found,) = jax.tree.leaves(checkpoint._restore(tmp_path / "checkpoints" / str(step) / "state", wanted))
    assert found.sharding == parted
    np.testing.assert_array_equal(found, np.full(wanted["a"].shape, value, np.float32))


def test_checkpoints_written_compressed_are_still_read(folder):
  """As they were before tables went into parts."""
  import orbax.checkpoint as ocp

  shutil.rmtree(folder / "9" / "state")
  with ocp.StandardCheckpointer() as before:
    before.save(folder / "9" / "state", state_of(9))
  (folder / "9" / MANIFEST).unlink()
  manifest.write_manifest(folder / "9", manifest.make_manifest(folder / "9", manifest.describe_leaves(state_of(9))))
  assert_is(restore(folder), 9)


def test_keep_one_is_refused():
  with pytest.raises(UserError, match="keep=1"):
    check_config(tiny.config("rows", checkpoint__keep=1))


def test_errors_of_a_background_save_are_not_swallowed(tmp_path, monkeypatch):
  checkpoints = Checkpoints(Workdir(tmp_path))

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(checkpoint_folder, "write_manifest", fail)
  checkpoints.save(1, state_of(1), {})
  with pytest.raises(UserError, match=r"checkpoint 1 could not be saved in .*: disk full"):
    checkpoints.close()


# --- retention ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [UserError("POST: access is refused"), StoreError("503"), OSError("read-only")])
def test_who_may_not_pin_reads_all_the_same(tmp_path, monkeypatch, capsys, error):
  """A bucket that may only be read: what it refuses is a UserError. A pin that cannot be renewed still counts."""

  def refuse(*_):
    raise error

  workdir, write = Workdir(tmp_path), retention.write_json
  monkeypatch.setattr(retention, "write_json", refuse)
  with retention.pin_to_read(workdir, 3), branch._pinned(workdir, 3):
    said = capsys.readouterr().err
    assert f"checkpoint 3 is read without a pin: {error}" in said and f"3 of {tmp_path} cannot be pinned ({error})" in said
  monkeypatch.setattr(retention, "RENEW_PIN_S", 0.01)
  monkeypatch.setattr(retention, "write_json", write)
  with retention.pin(workdir, 3):
    monkeypatch.setattr(retention, "write_json", refuse)
    until = time.monotonic() + 5
    while (said := capsys.readouterr().err).count("could not be renewed") < 1 and time.monotonic() < until:
      time.sleep(0.02)
    time.sleep(0.05)
    assert f"could not be renewed: {error}" in said + capsys.readouterr().err
    assert any(thread.name == "pin" for thread in threading.enumerate()) and retention.pinned_steps(workdir) == {3}


def test_what_is_kept_in_a_thousand_random_histories():
  """A trainer saves, an evaluator pins and evaluates at random: what is pinned, or waits within its bound, never goes."""
  rng = random.Random(0)
  dropped = 0
  for _ in range(1000):
    keep, keep_every, bound = rng.randint(2, 4), rng.choice([0, 0, 10, 21]), rng.randint(1, 4)
    every = rng.choice([1, 2])  # of the checkpoints, how many are eligible
    steps, evaluated, pinned, best = set(), set(), set(), None
    for step in range(7, 7 * rng.randint(4, 16), 7):
      steps.add(step)
      waiting = {s for s in steps if s % (7 * every) == 0 and s not in evaluated}
      kept = steps_to_keep(
        steps, keep=keep, keep_every=keep_every, pinned=pinned, unevaluated=waiting, keep_unevaluated=bound, best=best
      )
      assert kept <= steps
      must = pinned | set(sorted(waiting)[-bound:]) | set(sorted(steps)[-keep:]) | ({best} & steps)
      must |= {s for s in steps if keep_every and s % keep_every == 0}
      assert kept == must & steps and pinned <= kept
      dropped += len(waiting - kept)
      steps = kept
      for _ in range(rng.randint(0, 2)):
        if pinned and rng.random() < 0.7:  # the evaluator finishes one
          evaluated |= pinned
          best = rng.choice(sorted(evaluated & steps) or [None])
          pinned = set()
        elif not pinned and waiting & steps:
          pinned = {min(waiting & steps - evaluated, default=step)}
  assert dropped > 100


def run_of(workdir, steps, **options):
  """Saves at these steps, under a Retention with these options."""
  checkpoints = Checkpoints(workdir, Retention(workdir, keep=2, **options))
  for step in steps:
    checkpoints.save(step, state_of(step), {"rows_seen": [step]})
    checkpoints.wait()
  checkpoints.close()


def left(folder):
  return sorted(int(path.name) for path in folder.iterdir())


def test_pinned_best_unevaluated_and_every_nth_stay(tmp_path, capfd):
  workdir = Workdir(tmp_path)
  workdir.evaluations.mkdir()
  for step in (2, 5):
    write_json(workdir.evaluation(step), {"step": step})
  write_json(workdir.best_note, {"step": 2, "score": 1.0})
  with retention.pin(workdir, 1):
    run_of(workdir, range(1, 11), keep_every=4, is_eligible=lambda step: step < 9, keep_unevaluated=2)
  # 1 pinned, 2 the best, 4 and 8 every fourth, 7 and 8 the newest unevaluated, 9 and 10 the newest of all
  assert left(workdir.checkpoints) == [1, 2, 4, 7, 8, 9, 10]
  said = capfd.readouterr().err
  assert [step for step in range(1, 11) if f"checkpoint {step} is dropped unevaluated" in said] == [3, 6]
  entries = {step: json.loads(workdir.evaluation(step).read_text()) for step in (2, 3, 5, 6)}
  assert [step for step, entry in entries.items() if "error" in entry] == [3, 6]


def test_a_stale_pin_is_ignored_and_an_unreadable_one_not(tmp_path):
  workdir = Workdir(tmp_path)
  with retention.pin(workdir, 1):
    assert retention.pinned_steps(workdir) == {1}
    write_json(workdir.pins / "1", {"pid": 1, "time": time.time() - retention.STALE_PIN_S - 1})
    (workdir.pins / "2").write_text("{")
    assert retention.pinned_steps(workdir) == {2}
  assert [path.name for path in workdir.pins.iterdir()] == ["2"]


def test_one_pinned_while_it_is_being_removed_comes_back(tmp_path, monkeypatch):
  """The trainer saw no pin, then put the step aside; a pin from in between is seen before anything is lost."""
  workdir, asked = Workdir(tmp_path), []

  def pinned(workdir):
    asked.append(None)
    return {1} if len(asked) > 1 and not (workdir.checkpoints / "1" / MANIFEST).exists() else set()

  monkeypatch.setattr(retention, "pinned_steps", pinned)
  run_of(workdir, (1, 2, 3))
  assert left(workdir.checkpoints) == [1, 2, 3]
  verify(workdir.checkpoints / "1")


def test_a_pinned_one_is_not_even_put_aside(tmp_path, monkeypatch):
  """Its reader would find it gone for a moment: pins are read once a save, and again only for what is on its way out."""
  workdir, asked, real = Workdir(tmp_path), [], retention.pinned_steps
  monkeypatch.setattr(retention, "pinned_steps", lambda workdir: asked.append(None) or real(workdir))
  with retention.pin(workdir, 1):
    run_of(workdir, (1, 2, 3))
  assert left(workdir.checkpoints) == [1, 2, 3] and len(asked) == 3


def test_going_back_waits_for_a_slow_removal(tmp_path, monkeypatch):
  """Whoever goes back looks for what killed processes left; a step that is being removed at that time looks the same."""
  real, removing = checkpoint_folder.remove_folder, []

  def slow(folder, **options):
    removing.append(folder.name)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
      path.unlink()
      time.sleep(0.05)
    real(folder, **options)
    removing.pop()

  workdir = Workdir(tmp_path)
  checkpoints = Checkpoints(workdir, Retention(workdir, keep=2))
  for step in (1, 2, 3, 4):
    checkpoints.save(step, state_of(step), {"rows_seen": [step]})
  monkeypatch.setattr(checkpoint_folder, "remove_folder", slow)
  with checkpoints._counting_failures():
    checkpoints._finish()
  while not removing:
    time.sleep(0.001)
  assert checkpoints.settled_steps() == [4, 3] and not removing
  checkpoints.save(5, state_of(5), {"rows_seen": [5]})
  with checkpoints._counting_failures():
    checkpoints._finish()
  while not removing:
    time.sleep(0.001)
  assert_is(checkpoints.go_back(4, abstract()), 4)
  checkpoints.close()
  assert left(workdir.checkpoints) == [4]


def test_killed_while_it_removed_one(folder):
  """Whole ones come back, half removed ones go; neither is taken for a checkpoint or in Orbax's way."""
  for step in (2, 3):
    shutil.copytree(folder / "6", folder / str(step))
    (folder / str(step) / MANIFEST).rename(folder / f"deleting-{step}")
  next(path for path in (folder / "2").rglob("*") if path.is_file()).unlink()
  assert_is(restore(folder), 9)
  assert left(folder) == [3, 6, 9] and not list(folder.glob("deleting-*"))


def test_killed_while_an_earlier_version_removed_one(folder):
  """It renamed the folder and then removed the manifest first."""
  shutil.copytree(folder / "6", folder / "deleting-3")
  shutil.copytree(folder / "6", folder / "deleting-2")
  (folder / "deleting-2" / MANIFEST).unlink()
  assert_is(restore(folder), 9)
  assert left(folder) == [3, 6, 9]


def test_a_save_that_fails_does_not_end_the_run_but_several_in_a_row_do(folder, monkeypatch, capfd):
  """What the failed ones wrote is gone, and a save that succeeds forgives those before it."""
  fails, real = {12, 18, 21}, checkpoint_folder.write_manifest

  def write(directory, *args):
    if int(directory.name) in fails:
      raise OSError(28, "No space left on device")
    real(directory, *args)

  monkeypatch.setattr(checkpoint_folder, "write_manifest", write)
  checkpoints = Checkpoints(Workdir(folder.parent), max_failed_saves=2)
  for step in (12, 15, 18, 21):
    checkpoints.save(step, state_of(step), {})
  with pytest.raises(UserError, match=r"checkpoint 21 could not be saved in .*no space left on the disk"):
    checkpoints.save(24, state_of(24), {})
  checkpoints.close()
  assert "checkpoint 18 could not be saved" in capfd.readouterr().err
  assert left(folder) == [9, 15]


def test_the_last_save_must_not_fail(folder, monkeypatch):
  """Else the run would end with 0 and without what it made."""
  checkpoints = Checkpoints(Workdir(folder.parent), max_failed_saves=3)

  def fail(*_, **__):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patched:
    patched.setattr(checkpoints, "_start_save", fail)
    checkpoints.save(12, state_of(12), {})
    with pytest.raises(UserError, match=r"checkpoint 15 could not be saved .*no space left"):
      checkpoints.save(15, state_of(15), {}, last=True)
  checkpoints.close()
  assert_is(restore(folder), 9)


def test_a_save_that_fails_at_the_end_does_not_hide_why_it_ended(folder, monkeypatch, capfd):
  checkpoints = Checkpoints(Workdir(folder.parent))
  checkpoints.save(12, state_of(12), {"rows_seen": [12]})
  monkeypatch.setattr(checkpoint_folder, "write_manifest", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
  checkpoints.close(KeyError("the error of the run"))
  assert "checkpoint 12 could not be saved" in capfd.readouterr().err


def test_a_step_that_is_made_again_is_evaluated_again(tmp_path):
  """Where its entry says that it was gone or damaged, or has the scores of another checkpoint of that step."""
  workdir = Workdir(tmp_path)
  workdir.evaluations.mkdir()
  write_json(workdir.evaluation(3), {"step": 3, "error": "checkpoint 3 is gone"})
  write_json(workdir.evaluation(6), {"step": 6, "scores": {}})
  write_json(workdir.evaluation(9), {"step": 9, "scores": {}, "digest": "of the one before"})
  run_of(workdir, (3, 6, 9))
  assert retention.evaluated_steps(workdir) == {6}
  retention.Retention(workdir).on_sealed(9, "the same")
  write_json(workdir.evaluation(9), {"step": 9, "scores": {}, "digest": "the same"})
  retention.Retention(workdir).on_sealed(9, "the same")
  assert retention.evaluated_steps(workdir) == {6, 9}


def test_a_save_that_fails_in_the_background_is_one_line_and_leaves_nothing(folder, monkeypatch):
  """TensorStore's words on a full disk. The checkpoints before it stay, and the one that failed is not sealed."""
  checkpoints = Checkpoints(Workdir(folder.parent))
  checkpoints.save(12, state_of(12), {"rows_seen": [12]})
  checkpoints._manager.wait_until_finished()
  shutil.rmtree(folder / "12")
  (folder / "12.orbax-checkpoint-tmp").mkdir()

  def fail():
    raise ValueError('RESOURCE_EXHAUSTED: Error writing "w/0.0": Failed to write 934220 bytes: No space left on device')

  with monkeypatch.context() as patched, pytest.raises(UserError) as error:
    patched.setattr(checkpoints._manager, "wait_until_finished", fail)
    checkpoints.wait()
  assert "could not be saved in" in str(error.value) and "no space left on the disk" in str(error.value)
  checkpoints.close()
  assert sorted(path.name for path in folder.iterdir()) == ["6", "9"]
  assert_is(restore(folder), 9)
