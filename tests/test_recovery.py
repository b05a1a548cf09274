"""Bad steps: one is skipped, many in a row take the run back and past them; spikes; devices that do not hold the same."""

import contextlib
import itertools
import json

import jax
import numpy as np
import pytest

from tests import tiny
from tests.bucket_server import free_port
from tests.test_hosts import finish, two_processes
from tests.test_train import assert_same_run, final_state
from xlmr_jax.data import pipeline
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, RestartError, UserError
from xlmr_jax.files import read_sealed_json
from xlmr_jax.model.build import family_of
from xlmr_jax.run.logs import read_train
from xlmr_jax.run.metrics import Outcome
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import fingerprint, loop, recovery, sharding
from xlmr_jax.training.progress import GradNorms, Progress
from xlmr_jax.training.recovery import Recovery
from xlmr_jax.training.segments import spec_of

# --- the ledger ----------------------------------------------------------------------------------------------------


def entry(at, skipped, first=0, end=0):
  return Recovery(at, skipped, (first, end), "why")


def test_a_checkpoint_that_was_made_again_has_its_bad_steps():
  """The run went back to step 4, and then behind it, and made step 4 again: what its notes say counts."""
  ledger = (entry(4, 2, 4, 6), entry(0, 3, 1, 3))
  assert recovery.is_at(4, ledger[:1], {"recoveries": 0}) and recovery.is_at(0, ledger, None)
  assert not recovery.is_at(4, ledger, {"recoveries": 2}) and not recovery.is_at(4, ledger[:1], {"recoveries": 1})


def test_which_batch_a_step_gets():
  ledger = (entry(8, 4), entry(20, 5))
  assert [recovery.data_step(step, ledger) for step in (0, 7, 8, 19, 20, 30)] == [0, 7, 12, 23, 29, 39]


def test_the_timeline_reads_as_the_skips_say(tiny_store):
  """Whatever came before: the batch of each step by the Timeline is the one that the ledger's `skipped` counts to."""
  prepared, ledger = tiny.prepared(tiny.config(train_steps=60), tiny_store), ()
  for at, bad in ((8, (9, 12)), (8, (13, 16)), (20, (22, 25)), (4, (30, 33)), (12, (14, 17))):
    ledger = recovery.recovered(ledger, at, bad, "why")
    timeline = prepared.timeline(ledger)
    for step in range(60):
      assert timeline.at(step).position_at(step) == 16 * recovery.data_step(step, ledger)


@pytest.mark.slow
def test_the_pipeline_skips_what_the_ledger_says(tiny_store):
  """Batches over a skip are those that a run would get that began behind it."""
  prepared = tiny.prepared(tiny.config(), tiny_store)
  timeline = prepared.timeline((entry(2, 1, 2, 3), entry(8, 4, 9, 12)))
  mixture, spec = timeline.at(0).mixture, spec_of(timeline.at(0), prepared.program.mesh, prepared.config)
  with pipeline.stretch_batches(tiny_store, timeline.stretches, lambda _: spec, 6) as batches:
    found = list(itertools.islice(batches, 4))
  for number, batch in zip((7, 8, 13, 14), found):
    with pipeline.train_batches(tiny_store, mixture, spec, number) as batches:
      expected = next(batches)
    for name in expected:
      np.testing.assert_array_equal(batch[name], expected[name], err_msg=f"{number} {name}")


def test_epochs_leave_out_what_was_skipped(tiny_store):
  prepared = tiny.prepared(tiny.config(), tiny_store)
  mix = prepared.timeline().at(0).mixture
  np.testing.assert_array_equal(prepared.timeline().epochs(10), mix.epochs(160))
  skipped = prepared.timeline((entry(8, 4, 9, 12),)).epochs(10)
  np.testing.assert_allclose(skipped, mix.epochs(16 * 8) + mix.epochs(16 * 14) - mix.epochs(16 * 12))
  assert prepared.timeline().epochs(0).tolist() == [0, 0, 0]


def test_the_run_reads_on_from_where_it_was():
  """Whatever came before: what step `at` reads now is what the step after the bad ones would have read."""
  ledger = ()
  for at, bad in ((8, (9, 12)), (8, (13, 16)), (20, (22, 25)), (4, (30, 33)), (12, (14, 17))):
    before = recovery.data_step(bad[1], ledger)
    ledger = recovery.recovered(ledger, at, bad, "why")
    assert recovery.data_step(at, ledger) == before
  assert [e.skipped for e in ledger] == [4, 8, 5, 46, 5]
  assert [e.at for e in recovery.in_force(ledger)] == [4, 12]  # The fourth went back behind the three before it.


@pytest.mark.parametrize(
  "sound, first_bad, at", [((4, 8, 12), 9, 8), ((4, 8), 8, 8), ((12, 16), 9, 12), ((), 9, 0), ((16, 12, 4), 12, 12)]
)
def test_where_to_go_back_to(sound, first_bad, at):
  assert recovery.restart_point(sound, first_bad) == at


@pytest.mark.parametrize(
  "ledger, at, bad, limit, why",
  [
    ((), 8, (9, 12), 3, ""),
    ((), 8, (9, 12), 0, "max_recoveries=0"),
    ((entry(8, 4, 9, 12),), 8, (8, 11), 3, "no further than step 8"),
    ((entry(8, 4, 9, 12),), 8, (12, 15), 3, ""),  # It has come further than before.
    ((entry(8, 4, 9, 12),), 12, (12, 15), 3, ""),
    ((entry(8, 4, 9, 12),), 10, (11, 14), 3, ""),  # There is a new checkpoint.
    ((entry(8, 4, 9, 12),), 12, (20, 23), 1, "max_recoveries=1"),
  ],
)
def test_when_not_to_go_back(ledger, at, bad, limit, why):
  found = recovery.why_not(ledger, at, bad, limit)
  assert why in found and bool(found) == bool(why)


def test_a_ledger_that_is_damaged_or_lost_is_refused(tmp_path):
  workdir = Workdir(tmp_path)
  assert recovery.read_ledger(workdir) == ()
  ledger = (entry(8, 4, 9, 12), entry(20, 5, 22, 25))
  recovery.write_ledger(workdir, ledger)
  assert recovery.read_ledger(workdir) == ledger == recovery.read_ledger_of_first(workdir)
  recovery.refuse_lost(workdir, ledger, {"recoveries": 2})
  recovery.refuse_lost(workdir, (), {})  # a checkpoint of an earlier version
  with pytest.raises(UserError, match=r"recoveries.json has 0 recoveries, but the newest checkpoint was made after 2"):
    recovery.refuse_lost(workdir, (), {"recoveries": 2})
  workdir.recoveries.write_text(workdir.recoveries.read_text().replace('"skipped": 4', '"skipped": 5'))
  with pytest.raises(UserError, match=r"recoveries.json cannot be read .*restore it"):
    recovery.read_ledger(workdir)


# --- bad steps in a run ----------------------------------------------------------------------------------------------


def bits(tree):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
  "steps, bad",
  [
    (40, {17}), pytest.param(300, {137}, marks=pytest.mark.slow),
    pytest.param(300, set(range(2, 300, 3)), marks=pytest.mark.slow),
  ],
)  # fmt: skip
def test_exactly_the_bad_steps_are_skipped(steps, bad):
  """Bit-equal to a run that never saw these batches and only counted the steps."""
  made = tiny.program(tiny.config(train_steps=steps))
  batches = [tiny.batch(np.random.default_rng(i), 8) for i in range(7)]
  nan = np.full_like(batches[0]["weights"], np.nan)
  state, other, skipped = tiny.init(made), tiny.init(made), []
  for step in range(steps):
    batch = batches[step % 7]
    state, metrics = tiny.step(made, state, batch | {"weights": nan} if step in bad else batch)
    skipped += [] if metrics["made"] else [step]
    if step in bad:
      other = other.replace(step=other.step + 1)
    else:
      other, _ = tiny.step(made, other, batch)
  assert skipped == sorted(bad) and bits(state) == bits(other)


def poison(monkeypatch, numbers):
  """Makes batches of these numbers NaN. Returns a list that fills up with (step, number) of the batches that are read."""
  read, original = [], pipeline.stretch_batches

  @contextlib.contextmanager
  def poisoned(store, stretches, spec_of, start_step):
    with original(store, stretches, spec_of, start_step) as batches:

      def stream():
        for step, batch in zip(itertools.count(start_step), batches):
          part = next(part for part in stretches if step < part.end)
          number = part.position_at(step) // part.rows_per_step
          read.append((step, number))
          yield batch | {"weights": batch["weights"] * np.float32(np.nan)} if number in numbers else batch

      yield stream()

  monkeypatch.setattr(pipeline, "stretch_batches", poisoned)
  return read


def config_of(**changes):
  return tiny.config(
    **{"train_steps": 20, "max_bad_steps": 3, "checkpoint__every_steps": 2, "held_out__every_steps": 10} | changes
  )


@pytest.fixture(scope="module")
def recovered(tiny_store, tmp_path_factory):
  """A run whose batches 9, 10 and 11 are bad, unbroken; and what it read."""
  workdir = tmp_path_factory.mktemp("recovered")
  with pytest.MonkeyPatch.context() as patch:
    read = poison(patch, {9, 10, 11})
    assert tiny.run(config_of(), workdir, tiny_store) == EXIT_DONE
  return workdir, read


def test_bad_steps_in_a_row_take_the_run_back_and_past_them(recovered, capsys):
  workdir, read = recovered
  (found,) = read_sealed_json(workdir / "recoveries.json")["recoveries"]
  assert (found["at"], found["skipped"], found["steps"]) == (8, 4, [9, 12]) and "3 steps in a row" in found["reason"]
  assert read[:12] == [(step, step) for step in range(12)]
  assert read[12:] == [(step, step + 4) for step in range(8, 20)]
  lines = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [3, 6, 9, 12, 15, 18, 20] and not any(line["skipped"] for line in lines)
  assert sum(of["rows"] for of in lines[-1]["languages"].values()) == 20 * 16


@pytest.mark.slow
def test_the_run_follows_from_seed_step_and_ledger(recovered, tiny_store, tmp_path):
  """Law 1: a run that has the ledger from its first step, and meets no bad batch, is the same run."""
  workdir, _ = recovered
  recovery.write_ledger(Workdir(tmp_path), recovery.read_ledger(Workdir(workdir)))
  assert tiny.run(config_of(), tmp_path, tiny_store) == EXIT_DONE
  assert_same_run(workdir, tmp_path, 20)


# Calls of Preemption.stop(): 11 is in the bad window, which is saved with it; 13 and 14 follow the recovery.
@pytest.mark.slow
@pytest.mark.parametrize("stops", [[13, 14], [11], [12], [15], [16], [19]])
def test_a_resumed_recovery_is_bit_equal(recovered, tiny_store, tmp_path, monkeypatch, stops):
  poison(monkeypatch, {9, 10, 11})
  for stop in stops:
    assert tiny.run(config_of(), tmp_path, tiny_store, stop) == EXIT_RESTART
  assert tiny.run(config_of(), tmp_path, tiny_store) == EXIT_DONE
  assert_same_run(recovered[0], tmp_path, 20)
  assert recovery.read_ledger(Workdir(tmp_path)) == recovery.read_ledger(Workdir(recovered[0]))


@pytest.mark.slow
def test_killed_before_the_ledger_is_written(recovered, tiny_store, tmp_path, monkeypatch):
  """The checkpoints within the bad window are gone by then; the next start makes the bad steps again, and decides so too."""
  poison(monkeypatch, {9, 10, 11})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(recovery, "write_ledger", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      tiny.run(config_of(), tmp_path, tiny_store)
  assert not (tmp_path / "recoveries.json").exists()
  assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == 8
  assert tiny.run(config_of(), tmp_path, tiny_store) == EXIT_DONE
  assert bits(final_state(recovered[0], 20)) == bits(final_state(tmp_path, 20))


@pytest.mark.slow
def test_without_a_checkpoint_it_goes_back_to_the_start(tiny_store, tmp_path, monkeypatch):
  """Metrics come a step late, so that step 4 was sent before the run goes back; nothing of it stays.

  Before step 5 a save is due, which fetches the good step 4 early: it does not make the bad ones forgotten.
  """
  read = poison(monkeypatch, {1, 2, 3})
  config = config_of(train_steps=8, checkpoint__every_steps=5)
  assert tiny.run(config, tmp_path, tiny_store) == EXIT_DONE
  assert [(e.at, e.skipped) for e in recovery.read_ledger(Workdir(tmp_path))] == [(0, 4)]
  assert read[5:] == [(step, step + 4) for step in range(8)]


@pytest.mark.slow
def test_only_checkpoints_of_within_the_bad_steps_are_left(recovered, tiny_store, tmp_path, monkeypatch):
  """The first of them holds what was there before: the run is that of a ledger that says so, whose steps before count on."""
  read = poison(monkeypatch, {9, 10, 11, 12})
  config = config_of(max_bad_steps=4, checkpoint__every_steps=1, checkpoint__keep=2)
  assert tiny.run(config, tmp_path, tiny_store) == EXIT_DONE
  (found,) = recovery.read_ledger(Workdir(tmp_path))
  assert 10 <= found.at <= 12 and (found.skipped, found.steps) == (13 - found.at, (9, 13))
  assert read[-1] == (19, 19 + found.skipped) and (found.at, 13) in read
  lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
  assert sum(line["skipped"] for line in lines) == found.at - 9 and lines[-1]["step"] == 20


@pytest.mark.slow
def test_it_does_not_go_back_for_ever(tiny_store, tmp_path, monkeypatch):
  poison(monkeypatch, set(range(5, 1000)))
  with pytest.raises(UserError, match=r"in 3 steps in a row up to step 7; it went back to step 4 before, and has come no"):
    tiny.run(config_of(), tmp_path, tiny_store)
  assert len(recovery.read_ledger(Workdir(tmp_path))) == 1
  with pytest.raises(UserError, match=r"up to step 7; config.max_recoveries=0 allows no further"):
    tiny.run(config_of(max_recoveries=0), tmp_path, tiny_store)


# --- spikes ----------------------------------------------------------------------------------------------------------


def test_the_mean_is_over_steps_made_alone():
  progress = Progress()
  for norm in (1.0, 3.0, np.nan, 50.0, 2.0):
    progress = progress.after([Outcome(norm < 9, norm)], 3)
  assert progress.norms == GradNorms(2, 2.0, 2.0) and progress.limit(4, 5.0, 3) == np.inf  # too few yet
  assert progress.limit(6, 5.0, 3) == 10.0 and progress.limit(6, 0.0, 3) == np.inf
  progress = progress.after([Outcome(True, 5.0)], 3)
  assert progress.limit(6, 5.0, 3) == 10.0  # The norm of step 5 comes too late for step 6,
  assert progress.limit(7, 5.0, 3) == 5.0 * (2.0 + (5.0 - 2.0) / 3)  # and in time for step 7.


def test_a_limit_does_not_depend_on_what_was_fetched():
  """A save fetches a step early, and a resumed run begins with that: each step's limit is the same with saves anywhere."""
  norms = np.random.default_rng(0).uniform(0.5, 2.0, 60)

  def limits(saved):
    progress, found, pending = Progress(), [], []
    for step in range(60):
      if step in saved and pending:
        progress, pending = progress.after([pending.pop()], 4), []
        notes = json.loads(json.dumps(progress._asdict()))
        progress = Progress.at(step, notes, is_recovery=False)
      limit = progress.limit(step, 1.2, 4)
      found.append(limit)
      pending.append(Outcome(bool(norms[step] <= limit), float(norms[step])))
      if len(pending) > 1:
        progress = progress.after([pending.pop(0)], 4)
    return found

  expected = limits(set())
  assert len(set(expected)) > 10
  for saved in ({5}, {6, 7, 8}, set(range(60))):
    assert limits(saved) == expected


@pytest.mark.slow
def test_a_spike_is_skipped_without_compiling_again():
  made = tiny.program(tiny.config())
  batch = tiny.batch(np.random.default_rng(1), 8)
  state, metrics = tiny.step(made, tiny.init(made), batch)
  kept, norm = (
    bits((state.params, state.opt_state)),
    float(tiny.step(made, jax.tree.map(np.array, state), batch)[1]["grad_norm"]),
  )
  compiled = made.train_step._cache_size()
  state, metrics = tiny.step(made, state, batch, limit=0.99 * norm)
  assert not metrics["made"] and int(state.step) == 2 and bits((state.params, state.opt_state)) == kept
  state, metrics = tiny.step(made, state, batch, limit=1.01 * norm)
  assert metrics["made"] and bits((state.params, state.opt_state)) != kept
  assert made.train_step._cache_size() == compiled


@pytest.mark.slow
@pytest.mark.parametrize("stops", [[9], pytest.param([5, 3], marks=pytest.mark.slow)])
def test_spikes_are_the_same_in_a_resumed_run(tiny_store, tmp_path, stops):
  """With a limit so near to the mean that some of the steps of a sound run are above it."""
  config = config_of(spikes__factor=1.02, spikes__mean_steps=3, max_bad_steps=20)
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  assert tiny.run(config, whole, tiny_store) == EXIT_DONE
  skipped = sum(json.loads(line)["skipped"] for line in (whole / "train.jsonl").read_text().splitlines())
  assert 0 < skipped < 17
  for stop in stops:
    assert tiny.run(config, parts, tiny_store, stop) == EXIT_RESTART
  assert tiny.run(config, parts, tiny_store) == EXIT_DONE
  assert_same_run(whole, parts, 20)


# --- devices that do not hold the same -------------------------------------------------------------------------------


def corrupted(x, device, index, bit):
  """A copy of a global array in which one number has another bit, on one device alone."""
  parts = []
  for shard in x.addressable_shards:
    data = np.array(shard.data)
    if shard.device == device:
      data.view(np.uint32)[index] ^= np.uint32(1 << bit)
    parts.append(jax.device_put(data, shard.device))
  return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)


@pytest.mark.parametrize("bit", [0, 12, 31])
def test_a_flipped_bit_is_found_and_named(bit):
  config = tiny.config(model__hidden=16)
  made, rules = tiny.program(config, 4, 2), family_of(config).sharding
  state, mesh = tiny.init(made), made.mesh

  def found(state):
    return fingerprint.differences(jax.device_get(made.fingerprints(state)), mesh, state, rules)

  assert found(state) == []
  divided, whole = state.params["token_embedding"], state.params["head_norm"]["scale"]
  device = mesh.devices[2, 1]
  bad = state.replace(params=state.params | {"token_embedding": corrupted(divided, device, (3, 2), bit)})
  assert found(bad) == [f"params/token_embedding on device {device.id} of host 0"]
  bad = state.replace(
    params=state.params | {"head_norm": state.params["head_norm"] | {"scale": corrupted(whole, device, 5, bit)}}
  )
  assert found(bad) == [f"params/head_norm/scale on device {device.id} of host 0"]


def test_of_two_that_differ_both_are_named():
  config = tiny.config()
  made = tiny.program(config, 2, 1)
  state = tiny.init(made)
  bias = corrupted(state.params["head_bias"], made.mesh.devices[1, 0], 7, 3)
  table = made.fingerprints(state.replace(params=state.params | {"head_bias": bias}))
  with pytest.raises(
    RestartError, match=r"at step 5, .*: params/head_bias on device 0 of host 0, 1 of host 0; nothing of this"
  ):
    fingerprint.refuse_corruption(table, made.mesh, made.state, family_of(config).sharding, 5)


class Corrupting:
  """A train step after which one device holds another number, once."""

  def __init__(self, step, at, device):
    self.step, self.at, self.device = step, at, device

  def lower(self, *_):
    return self

  compile = lower

  def memory_analysis(self):
    return None

  def __call__(self, state, batch, limit):
    number = int(jax.device_get(state.step))
    state, metrics = self.step(state, batch, limit)
    if number == self.at:
      with jax.transfer_guard("allow"):
        state = state.replace(params=state.params | {"head_bias": corrupted(state.params["head_bias"], self.device, 7, 3)})
    return state, metrics


@pytest.mark.slow
@pytest.mark.parametrize("at, every, found", [(5, 2, 6), (5, 1000, 8)])
def test_corruption_ends_the_run_unsaved_and_the_next_start_mends_it(tiny_run, tiny_store, tmp_path, at, every, found):
  """Found at the next comparison, which comes before each save at the latest."""
  prepared = tiny.prepared(tiny.config(check_replicas_every=every), tiny_store)
  device = prepared.program.mesh.devices[3, 0]
  ((shape, program),) = prepared.by_shape.items()
  bad = prepared._replace(by_shape={shape: program._replace(train_step=Corrupting(program.train_step, at, device))})
  with pytest.raises(RestartError, match=rf"at step {found}, .*params/head_bias on device {device.id} of host 0; nothing"):
    loop.run(bad, Workdir(tmp_path), tiny.StopAt())
  assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
  assert tiny.run(tiny.config(check_replicas_every=every), tmp_path, tiny_store) == EXIT_DONE
  assert_same_run(tiny_run, tmp_path, 12)


def test_every_leaf_of_the_state_has_a_fingerprint():
  made = tiny.program(tiny.config(), 2, 2)
  table = made.fingerprints(tiny.init(made))
  assert table.shape == (2, 2, len(jax.tree.leaves(made.state))) and table.dtype == np.uint32
  assert table.sharding.is_equivalent_to(sharding.replicated(made.mesh), 3)


@pytest.mark.slow
def test_two_processes_go_back_together(tiny_rows, recovered, tmp_path):
  """Process 0 decides; both read on at the same batch, and end with what one process ends with."""
  flags = [f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={tmp_path / 'run'}"]
  changes = {"train_steps": 20, "max_bad_steps": 3, "checkpoint.every_steps": 2, "held_out.every_steps": 10}
  flags += [f"--config.{name}={value}" for name, value in changes.items()]
  code = (
    "import sys, pytest\nfrom tests import test_recovery\nfrom xlmr_jax.__main__ import main\n"
    "test_recovery.poison(pytest.MonkeyPatch(), {9, 10, 11})\n"
    "where = ['--hosts=explicit', '--processes=2', f'--process={sys.argv[1]}', f'--coordinator={sys.argv[2]}']\n"
    f"sys.argv = ['xlmr', 'pretrain', *{flags!r}, *where]\nmain()"
  )
  said = [finish(process) for process in two_processes(code, free_port())]
  assert "going on from step 8 with 4 batches left out" in said[0] and "going on" not in said[1]
  assert recovery.read_ledger(Workdir(tmp_path / "run")) == recovery.read_ledger(Workdir(recovered[0]))
  a, b = (read_train(Workdir(root)) for root in (recovered[0], tmp_path / "run"))
  for one, two in zip(a, b, strict=True):
    assert one["step"] == two["step"] and two["loss"] == pytest.approx(one["loss"], rel=1e-5)
  timing = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
  assert timing[-1]["slowest_host"] in (0, 1) and 0 <= timing[-1]["hosts_late_s"][0] <= timing[-1]["hosts_late_s"][1]
