"""The step's laws on meshes of virtual devices, and the loop: resume, bad steps, refusals."""

import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from tests import tiny
from xlmr_jax.config_files import load_config
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.hardware import tuning_of
from xlmr_jax.model.build import build_model, family_of
from xlmr_jax.model.dropout import Drop, dropout
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.logs import JsonLines
from xlmr_jax.run.metrics import Outcome
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import decisions, program, sharding
from xlmr_jax.training.progress import Progress
from xlmr_jax.training.step import make_init


def one_step(data, fsdp, rows=16, seed=0, **changes):
  """(metrics, state) as NumPy after one step from fixed parameters on a mesh of data x fsdp devices."""
  made = tiny.program(tiny.config(model__dropout=0.0, model__attention_dropout=0.0, **changes), data, fsdp)
  state, metrics = tiny.step(made, tiny.init(made, seed), tiny.batch(np.random.default_rng(1), rows))
  return jax.tree.map(np.asarray, metrics), jax.tree.map(np.asarray, state)


@pytest.fixture(scope="module")
def reference():
  return one_step(1, 1)


@pytest.mark.parametrize(
  "data, fsdp, changes",
  [
    (8, 1, {}),
    pytest.param(1, 8, {}, marks=pytest.mark.slow),
    (2, 4, {}),
    (1, 1, {"micro_batches": 4}),
    pytest.param(4, 2, {"micro_batches": 2}, marks=pytest.mark.slow),
    pytest.param(1, 1, {"model__remat": "full"}, marks=pytest.mark.slow),
    pytest.param(2, 1, {"model__remat": "dots"}, marks=pytest.mark.slow),
    pytest.param(1, 1, {"model__unroll_layers": True}, marks=pytest.mark.slow),
  ],
)
def test_loss_and_gradients_do_not_depend_on_mesh_micro_batches_or_remat(reference, data, fsdp, changes):
  """Law 2. After one step from zero moments, mu is 0.1 x the clipped gradient: it stands for the gradients."""
  metrics, state = one_step(data, fsdp, **changes)
  expected, expected_state = reference
  for name in expected:
    np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
  mu, expected_mu = (s.opt_state[1].mu for s in (state, expected_state))
  for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(mu)[0], jax.tree.leaves(expected_mu)):
    if "qkv/bias" in jax.tree_util.keystr(path, simple=True, separator="/"):
      a, b = a[:, ::2], b[:, ::2]  # a key's bias moves all scores of a query alike: its gradient is rounding only
    error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-8)
    assert error < 1e-5, (path, error)


def test_loss_does_not_depend_on_padding_rows(reference):
  """Rows of pads and weight 0 (as in the last held-out batch) change nothing."""
  made = tiny.program(tiny.config(model__dropout=0.0, model__attention_dropout=0.0))
  batch = tiny.batch(np.random.default_rng(1), 16)
  padded = {
    name: np.concatenate([x, np.full_like(x[:5], 1 if name in ("ids", "labels") else 0)]) for name, x in batch.items()
  }
  metrics = tiny.step(made, tiny.init(made), padded)[1]
  for name in ("loss_sum", "weight", "grad_norm", "language_loss"):
    np.testing.assert_allclose(metrics[name], reference[0][name], rtol=1e-5, err_msg=name)


def test_language_sums_add_up(reference):
  metrics, _ = reference
  np.testing.assert_allclose(metrics["language_loss"].sum(), metrics["loss_sum"], rtol=1e-5)
  assert metrics["language_weight"].sum() == metrics["weight"] == 16 * 8 - 8
  assert metrics["language_rows"].sum() == 16


@pytest.mark.parametrize("poison", ["weights", "params"])
def test_a_bad_step_changes_nothing_but_the_step(poison):
  made = tiny.program(tiny.config())
  batch = tiny.batch(np.random.default_rng(1), 16)
  before, bad_batch = tiny.step(made, tiny.init(made), batch)[0], dict(batch)
  if poison == "weights":
    bad_batch["weights"] = np.where(np.arange(8) == 3, np.nan, batch["weights"]).astype(np.float32)
  else:
    before = before.replace(params=before.params | {"head_bias": before.params["head_bias"].at[7].set(jnp.inf)})
  kept = jax.tree.map(np.array, before)  # The step takes its state's memory.
  after, metrics = tiny.step(made, before, bad_batch)
  assert not metrics["made"] and int(after.step) == int(kept.step) + 1
  for a, b in zip(jax.tree.leaves((kept.params, kept.opt_state)), jax.tree.leaves((after.params, after.opt_state))):
    np.testing.assert_array_equal(a, b)
  if poison == "weights":  # the run goes on
    recovered, metrics = tiny.step(made, after, batch)
    assert metrics["made"] and np.abs(recovered.params["head_bias"] - kept.params["head_bias"]).max() > 0


def test_every_leaf_has_a_rule():
  mesh = sharding.make_mesh(2, 4)
  rules = family_of(tiny.config()).sharding
  with pytest.raises(ValueError, match=r"no sharding rule for params/new_table \(8, 4\)"):
    sharding.state_shardings(mesh, {"params": {"new_table": jax.ShapeDtypeStruct((8, 4), jnp.float32)}}, rules)
  with pytest.raises(UserError, match=r"token_embedding \(90, 4\): 90 does not divide over fsdp=4"):
    sharding.state_shardings(mesh, {"token_embedding": jax.ShapeDtypeStruct((90, 4), jnp.float32)}, rules)


SHARDED = {  # what base, large and xl share
  "token_embedding": P("fsdp", None),
  "position_embedding": P(None, "fsdp"),
  "layer/qkv/kernel": P(None, "fsdp"),
  "layer/attention_out/kernel": P(None, None, None, "fsdp"),
  "layer/ffn_in/kernel": P(None, "fsdp"),
  "layer/ffn_out/kernel": P(None, None, "fsdp"),
  "head_dense/kernel": P("fsdp", None),
  "head_bias": P("fsdp"),
}
WHOLE = ("layer/qkv/bias", "layer/attention_out/bias", "layer/ffn_in/bias", "layer/ffn_out/bias", "head_dense/bias",
         "layer/attention_norm/scale", "layer/attention_norm/bias", "layer/ffn_norm/scale", "layer/ffn_norm/bias",
         "head_norm/scale", "head_norm/bias")  # fmt: skip


@pytest.mark.parametrize("name, norm", [("base", "embedding_norm"), ("large", "embedding_norm"), ("xl", "final_norm")])
def test_how_the_state_of_a_config_is_divided(name, norm):
  """Every parameter by path, both moments as their parameter, scalars whole; and every size divides by 8 and by 16."""
  config = load_config(name)
  model = build_model(config, 250_002)
  init = make_init(model, program.build_optimizer(config)[0])
  state = jax.eval_shape(lambda: init(jax.random.key(0)))
  found = sharding.specs(state, family_of(config).sharding)
  paths = {sharding.path_of(path): spec for path, spec in jax.tree_util.tree_flatten_with_path(found)[0]}
  whole = dict.fromkeys((*WHOLE, f"{norm}/scale", f"{norm}/bias"), P())
  expected = {f"{tree}/{leaf}": spec for tree in ("params", "opt_state/1/mu", "opt_state/1/nu")
              for leaf, spec in (SHARDED | whole).items()}  # fmt: skip
  assert paths == expected | {"step": P(), "opt_state/1/count": P()}
  for leaf, spec in zip(jax.tree.leaves(state), jax.tree.leaves(found)):
    assert all(axis is None or size % 16 == 0 for size, axis in zip(leaf.shape, spec)), (leaf.shape, spec)


def test_mesh_and_batch_are_refused_by_name():
  with pytest.raises(UserError, match="data=3 x fsdp=2 is not the 8 devices"):
    sharding.make_mesh(3, 2)
  with pytest.raises(UserError, match="batch_rows=12 does not divide over 8 devices"):
    sharding.host_rows(sharding.make_mesh(), 12)


# --- the loop's decisions ----------------------------------------------------------------------------------------

EVERY = dict(start=0, train_steps=100, held_out_every=10, checkpoint_every=4, held_out_at=-1, asked_to_end=False,
             preempted=False)  # fmt: skip


@pytest.mark.parametrize(
  "step, changes, evaluate, save, end",
  [
    (0, {}, True, False, False),  # before the first step there is a loss and nothing to save
    (1, {}, False, False, False),
    (4, {}, False, True, False),
    (10, {}, True, False, False),
    (20, {}, True, True, False),
    (100, {}, True, True, True),
    (100, {"held_out_every": 0, "checkpoint_every": 0}, True, True, True),
    (50, {"held_out_every": 0, "checkpoint_every": 0}, False, False, False),
    (0, {"held_out_every": 0}, False, False, False),
    # resumed: what was saved is not saved again, what was evaluated is not evaluated again
    (20, {"start": 20, "held_out_at": 20}, False, False, False),
    (20, {"start": 20, "held_out_at": 10}, True, False, False),
    (100, {"start": 100, "held_out_at": 100}, False, False, True),
    (100, {"start": 100, "held_out_at": 96}, True, False, True),
    # STOP.json: as the last step
    (9, {"asked_to_end": True}, True, True, True),
    (9, {"asked_to_end": True, "start": 9, "held_out_at": 9}, False, False, True),
    # SIGTERM: saved at once, without an evaluation
    (9, {"preempted": True}, False, True, True),
    (20, {"preempted": True}, False, True, True),
    (0, {"preempted": True}, False, False, True),
    (9, {"preempted": True, "start": 9}, False, False, True),
    (100, {"preempted": True}, False, True, True),
    (9, {"preempted": True, "asked_to_end": True}, False, True, True),
  ],
)
def test_what_happens_at_a_step(step, changes, evaluate, save, end):
  assert decisions.decide(step, **EVERY | changes) == decisions.Action(evaluate, save, end)


def test_progress_counts_bad_steps_in_a_row():
  good, bad = Outcome(True, 1.0), Outcome(False, np.inf)
  assert Progress().after([], 9) == Progress(0, -1)
  progress = Progress(held_out_at=8).after([bad, bad], 9)
  assert progress == Progress(2, 8, 2) and progress.after([bad], 9).bad_in_a_row == 3
  assert progress.after([good], 9).bad_in_a_row == 0 and progress.after([good, bad], 9).bad_in_a_row == 1
  assert progress == Progress(2, 8, 2)  # a value: nothing changes it


# --- the loop ----------------------------------------------------------------------------------------------------


def final_state(workdir, step):
  import orbax.checkpoint as ocp

  return ocp.StandardCheckpointer().restore(workdir / "checkpoints" / str(step) / "state")


def assert_same_run(a, b, step):
  for x, y in zip(*(jax.tree.leaves(final_state(w, step)) for w in (a, b)), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  for name in ("train.jsonl", "held_out.jsonl"):
    assert (a / name).read_text() == (b / name).read_text()


def test_it_learns_and_logs(tiny_run):
  lines = [json.loads(line) for line in (tiny_run / "train.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [3, 6, 9, 12]
  assert lines[-1]["loss"] < lines[0]["loss"] < 6.0
  languages = lines[-1]["languages"]
  assert sum(of["rows"] for of in languages.values()) == 12 * 16
  assert all(abs(of["share"] - of["share_wanted"]) < 0.08 and of["epochs"] > 0 for of in languages.values())
  timing = [json.loads(line) for line in (tiny_run / "timing.jsonl").read_text().splitlines()]
  assert timing[0]["step"] == 0 and 0 < timing[0]["compile_s"] < timing[0]["first_step_s"] and timing[0]["programs"] > 0
  held_out = [json.loads(line) for line in (tiny_run / "held_out.jsonl").read_text().splitlines()]
  assert [line["step"] for line in held_out] == [0, 4, 8, 12]
  assert held_out[-1]["mean_loss"] < held_out[0]["mean_loss"]
  assert set(held_out[0]["languages"]) == {"aa", "bb", "cc"}


# Calls of Preemption.stop(): one a step and one a held-out batch (one or two an evaluation). 0 is before the first
# evaluation, 1 within it, 19 and 20 around the last one.
@pytest.mark.parametrize(
  "stops", [[2, 3], [19], *(pytest.param(x, marks=pytest.mark.slow) for x in ([0, 1], [9], [11, 1], [18], [20]))]
)
def test_resume_is_bit_equal(tiny_run, tiny_store, tmp_path, stops):
  """Stopped at steps that fall into logging intervals and evaluations, and taken up again."""
  for stop in stops:
    assert tiny.run(tiny.config(), tmp_path, tiny_store, stop) in (EXIT_RESTART, EXIT_DONE)
  assert tiny.run(tiny.config(), tmp_path, tiny_store) == EXIT_DONE
  assert_same_run(tiny_run, tmp_path, 12)


def test_a_finished_run_is_left_as_it_is(tiny_run, tiny_store):
  before = (tiny_run / "held_out.jsonl").read_text(), (tiny_run / "train.jsonl").read_text()
  assert tiny.run(tiny.config(), tiny_run, tiny_store) == EXIT_DONE
  assert before == ((tiny_run / "held_out.jsonl").read_text(), (tiny_run / "train.jsonl").read_text())


def test_a_lost_held_out_line_is_made_again(tiny_run, tiny_store, tmp_path):
  """Its checkpoint says that the pass was made. Without the line, another step's loss would count as the last one's."""
  folder = tmp_path / "run"
  shutil.copytree(tiny_run, folder)
  log = folder / "held_out.jsonl"
  lines = log.read_bytes().splitlines(keepends=True)
  log.write_bytes(b"".join(lines[:-1]))
  assert tiny.run(tiny.config(), folder, tiny_store) == EXIT_DONE
  assert log.read_bytes() == b"".join(lines)


def test_no_checkpoint_outlives_the_lines_before_it(tiny_store, tmp_path, monkeypatch):
  """The held-out pass of a step comes before its checkpoint; in a bucket its line would otherwise wait for the next one."""
  calls = []
  write, sync, save = JsonLines.write, JsonLines.sync, Checkpoints.save
  monkeypatch.setattr(JsonLines, "write", lambda self, line: (calls.append("write"), write(self, line))[1])
  monkeypatch.setattr(JsonLines, "sync", lambda self: (calls.append("sync"), sync(self))[1])
  monkeypatch.setattr(Checkpoints, "save", lambda self, *a, **k: (calls.append("save"), save(self, *a, **k))[1])
  assert tiny.run(tiny.config(), tmp_path, tiny_store) == EXIT_DONE
  saves = [i for i, call in enumerate(calls) if call == "save"]
  assert saves and all(calls[i - 1] == "sync" for i in saves)


@pytest.mark.slow
def test_a_run_continues_on_another_mesh(tiny_run, tiny_store, tmp_path):
  assert tiny.run(tiny.config(mesh__fsdp=8), tmp_path, tiny_store, 8) == EXIT_RESTART
  assert tiny.run(tiny.config(mesh__fsdp=1), tmp_path, tiny_store) == EXIT_DONE
  a, b = (json.loads((w / "held_out.jsonl").read_text().splitlines()[-1]) for w in (tiny_run, tmp_path))
  assert abs(a["mean_loss"] - b["mean_loss"]) < 1e-3


def test_a_stop_before_the_first_step_saves_nothing_and_says_so(tiny_store, tmp_path, capsys):
  assert tiny.run(tiny.config(), tmp_path, tiny_store, 0) == EXIT_RESTART
  assert "stopped by a signal before the first step; nothing was saved\n" in capsys.readouterr().err
  assert not list((tmp_path / "checkpoints").glob("*"))
  assert tiny.run(tiny.config(), tmp_path, tiny_store, 7) == EXIT_RESTART
  said, saved = capsys.readouterr().err, max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
  assert f"stopped by a signal: step {saved} is saved; the same command goes on from there\n" in said
  assert tiny.run(tiny.config(), tmp_path, tiny_store, 0) == EXIT_RESTART
  assert f"stopped by a signal at step {saved}, which was saved before; the same command" in capsys.readouterr().err


@pytest.mark.slow
def test_bad_steps_in_a_row_end_the_run(tiny_store, tmp_path):
  config = tiny.config(optimizer__peak_lr=1e30, max_bad_steps=3, train_steps=40)
  with pytest.raises(UserError, match="a spike, in 3 steps in a row up to step 4; it went back to step 0 before"):
    tiny.run(config, tmp_path, tiny_store)
  # Nothing bad was saved: with another rate the same run goes on.
  assert tiny.run(tiny.config(train_steps=10), tmp_path, tiny_store) == EXIT_DONE


@pytest.mark.parametrize(
  "stop, code", [pytest.param(12, EXIT_RESTART, marks=pytest.mark.slow), (13, EXIT_RESTART), (14, EXIT_DONE)]
)
def test_evaluation_told_to_stop_at_the_end_is_not_done(tiny_store, tmp_path, stop, code):
  """stop() is asked 13 times by steps 0..12 and then by each held-out batch: a run is done only when evaluated."""
  assert tiny.run(tiny.config(held_out__every_steps=0), tmp_path, tiny_store, stop) == code
  evaluated = '"step": 12' in (tmp_path / "held_out.jsonl").read_text()
  assert evaluated == (code == EXIT_DONE)


def test_a_run_past_its_end_is_refused(tiny_run, tiny_store, tmp_path):
  with pytest.raises(UserError, match=r"is at step 12, past config.train_steps=9"):
    tiny.run(tiny.config(train_steps=9), tiny_run, tiny_store)


@pytest.mark.parametrize("slices", [1, 2])
def test_an_fsdp_that_has_no_place_on_the_chips_is_refused(monkeypatch, slices):
  """After both ways to place it, of which the second one may divide an axis of the chips. JAX says so without a name."""
  tried = []

  def fail(*_, allow_split_physical_axes):
    tried.append(allow_split_physical_axes)
    raise NotImplementedError("Failed to find assignment for logical_axis_index 1")

  for name in ("create_device_mesh", "create_hybrid_device_mesh"):
    monkeypatch.setattr(sharding.mesh_utils, name, fail)
  with pytest.raises(UserError, match=r"config\.mesh\.fsdp=2: has no place on these chips"):
    sharding._grid(4, 2, slices, jax.devices())
  assert tried == [False, True]


@pytest.mark.parametrize("order", [range(8), (3, 0, 6, 1, 7, 2, 5, 4)])
def test_a_host_feeds_the_rows_that_its_devices_hold(order, monkeypatch):
  """A mesh follows the interconnect, so that devices of two processes may come in any order: by turns, and mixed."""
  devices = [jax.devices()[i] for i in order]
  mesh = Mesh(np.array(devices).reshape(4, 2), sharding.BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
  process_of = {device: device.id % 2 for device in devices}
  everywhere = sharding.batch_sharding(mesh).devices_indices_map((24,))
  fed = []
  for process in range(2):
    own = {device: index for device, index in everywhere.items() if process_of[device] == process}
    rows = {row for index in own.values() for row in range(24)[index[0]]}

    class Seen(jax.sharding.NamedSharding):
      def addressable_devices_indices_map(self, shape, own=own):
        return own

    monkeypatch.setattr(sharding, "NamedSharding", Seen)
    fed.append(sharding.host_rows(mesh, 24))
    assert fed[-1].tolist() == sorted(rows) and len(rows) == 12
    monkeypatch.undo()
  assert sorted(np.concatenate(fed)) == list(range(24))


@pytest.mark.parametrize("data, fsdp", [(8, 1), (2, 4)])
def test_to_global_puts_each_row_where_it_belongs(data, fsdp):
  """On real devices in another order than their numbers: the global array is the batch, each device has its own rows."""
  devices = np.array(jax.devices())[[3, 0, 6, 1, 7, 2, 5, 4]].reshape(data, fsdp)
  mesh = Mesh(devices, sharding.BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
  batch = {"ids": np.arange(24 * 5, dtype=np.int32).reshape(24, 5), "language": np.arange(24, dtype=np.int32) % 3}
  rows = sharding.host_rows(mesh, 24)
  assert rows.tolist() == list(range(24))
  found = sharding.to_global(mesh, {name: x[rows] for name, x in batch.items()}, 24)
  for name, x in batch.items():
    np.testing.assert_array_equal(found[name], x)
  for i, device in enumerate(devices.ravel()):
    shard = next(shard for shard in found["ids"].addressable_shards if shard.device == device)
    np.testing.assert_array_equal(shard.data, batch["ids"][3 * i : 3 * i + 3])


def test_rows_without_held_out_ones_are_refused(tmp_path, monkeypatch):
  """A loss of 0.0 over no rows would pass for a perfect one."""
  monkeypatch.setattr(tiny, "ROWS", {name: (train, 0) for name, (train, _) in tiny.ROWS.items()})
  store = RowStore(tiny.make_store(tmp_path / "rows"))
  with pytest.raises(UserError, match="rows: has no held-out rows, by which a run is measured; build them with --held_out"):
    tiny.run(tiny.config(tmp_path / "rows"), tmp_path / "run", store)


def test_refusals(tiny_store, tmp_path):
  with pytest.raises(UserError, match=r"batch_rows=12 does not divide over 8 devices"):
    tiny.run(tiny.config(batch_rows=12), tmp_path, tiny_store)
  with pytest.raises(UserError, match=r"batch_rows=16 does not divide into config.micro_batches=4 over 8"):
    tiny.run(tiny.config(micro_batches=4), tmp_path, tiny_store)
  with pytest.raises(UserError, match=r"batch_rows=16 is no multiple of config.rows_per_device=3 on 8 devices"):
    tiny.run(tiny.config(rows_per_device=3), tmp_path, tiny_store)
  with pytest.raises(UserError, match=r"micro_batches=4 and config.rows_per_device=1 exclude each other"):
    tiny.run(tiny.config(rows_per_device=1, micro_batches=4), tmp_path, tiny_store)


def test_compiler_options():
  """XLA takes those of the device and of the config; what is no option is refused, by us or by XLA."""
  tpu = types.SimpleNamespace(device_kind="TPU v5 lite", platform="tpu")
  known = dict(tuning_of(tpu.platform, tpu.device_kind).options)
  assert known and program.compiler_options(tiny.config(), tpu) == known
  assert program.compiler_options(tiny.config(), jax.devices()[0]) == {}
  assert program.compiler_options(tiny.config(compiler_options="a=1,b=x"), tpu) == known | {"a": "1", "b": "x"}
  name = next(iter(known))
  assert program.compiler_options(tiny.config(compiler_options=f"{name}=1"), tpu)[name] == "1"
  with pytest.raises(UserError, match=r"config\.compiler_options='a=1,b': NAME=VALUE,NAME=VALUE; 'b' is not"):
    program.compiler_options(tiny.config(compiler_options="a=1,b"), tpu)
  made = tiny.program(tiny.config(compiler_options="xla_no_such=1"))
  with jax.set_mesh(made.mesh), pytest.raises(Exception, match="xla_no_such"):
    made.train_step.lower(
      made.state, program.abstract_batch(made.mesh, 16, tiny.SEQ_LEN, 8), program.abstract_limit(made.mesh)
    ).compile()


@pytest.mark.slow
def test_dropout_does_not_depend_on_mesh_or_micro_batches():
  """Law 2 with dropout on: masks follow from the row's number in the batch."""
  batch, losses = tiny.batch(np.random.default_rng(1), 16), []
  for data, fsdp, micro_batches in ((1, 1, 1), (1, 1, 4), (4, 2, 1), (2, 1, 2)):
    config = tiny.config(model__dropout=0.3, model__attention_dropout=0.3, micro_batches=micro_batches)
    made = tiny.program(config, data, fsdp)
    losses.append(float(tiny.step(made, tiny.init(made), batch)[1]["loss_sum"]))
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


# --- a generator's masks, and gradients in bf16 on the network ------------------------------------------------------


@pytest.mark.slow
def test_masks_of_the_generator():
  """dropout_bits=rbg: the same masks again from the same step, others in the next, and others than the hash's."""
  batch, rates = tiny.batch(np.random.default_rng(1), 16), dict(model__dropout=0.3, model__attention_dropout=0.0)

  def two_steps(made):
    state, losses = tiny.init(made), []
    for _ in range(2):
      state, metrics = tiny.step(made, state, batch)
      losses.append(float(metrics["loss_sum"] / metrics["weight"]))
    return losses, jax.tree.leaves(state)

  generator = tiny.program(tiny.config(model__dropout_bits="rbg", **rates), 2)
  (losses, state), (again, same) = two_steps(generator), two_steps(generator)
  assert losses == again and np.isfinite(losses).all()
  for a, b in zip(state, same):
    np.testing.assert_array_equal(a, b)
  assert losses != two_steps(tiny.program(tiny.config(**rates), 2))[0]


@pytest.mark.slow
def test_the_generator_gives_each_device_and_part_its_own_masks():
  """The same row everywhere: without dropout all languages' losses are equal; each device, and each part, drops others."""
  row = {name: x[:1] for name, x in tiny.batch(np.random.default_rng(1), 1).items()}
  batch = {name: np.repeat(x, 8, axis=0) for name, x in row.items()} | {
    "language": np.repeat([0, 1, 2, 0], 2).astype(np.int32)
  }

  def losses_of(data, rate=0.5, **changes):
    config = tiny.config(
      model__dropout=rate, model__attention_dropout=0.0, model__dropout_bits="rbg", batch_rows=8, **changes
    )
    made = tiny.program(config, data, 1)
    metrics = tiny.step(made, tiny.init(made), batch)[1]
    return np.asarray(metrics["language_loss"] / metrics["language_weight"])

  np.testing.assert_allclose(np.ptp(losses_of(4, rate=0.0)), 0.0, atol=1e-5)
  for found in (losses_of(4), losses_of(1, micro_batches=4)):  # two rows are a device's, or a part's
    assert abs(found[1] - found[2]) > 1e-4 and abs(found[0] - found[1]) > 1e-4


def test_the_generator_keeps_the_rate():
  x, index = jnp.ones((400, 400)), jnp.arange(400, dtype=jnp.uint32)
  key = jax.random.key(0, impl="rbg")
  for rate in (0.1, 0.5):
    out = dropout(x, Drop(rate, key, index, "rbg"))
    assert abs(float((out == 0).mean()) - rate) < 0.005 and abs(float(out.mean()) - 1.0) < 0.01
  other = dropout(x, Drop(0.5, jax.random.fold_in(key, 1), index, "rbg"))
  assert abs(float(((out == 0) & (other == 0)).mean()) - 0.25) < 0.01  # masks of two keys are independent


@pytest.mark.slow
def test_gradients_on_the_network_in_bf16():
  """reduce_dtype: close to fp32's and not equal; the loss does not pass there and stays as it was."""
  (exact, state), (rounded, other) = (one_step(2, 4, mesh__reduce_dtype=name) for name in ("float32", "bfloat16"))
  np.testing.assert_array_equal(exact["language_loss"], rounded["language_loss"])
  assert 0 < abs(rounded["grad_norm"] / exact["grad_norm"] - 1) < 5e-3
  errors = []
  for (path, a), b in zip(
    jax.tree_util.tree_flatten_with_path(state.opt_state[1].mu)[0], jax.tree.leaves(other.opt_state[1].mu)
  ):
    if "qkv/bias" in jax.tree_util.keystr(path, simple=True, separator="/"):
      a, b = a[:, ::2], b[:, ::2]  # a key's bias moves all scores of a query alike: its gradient is rounding only
    assert b.dtype == np.float32
    errors.append(np.linalg.norm(a - b) / np.linalg.norm(a))
  assert 0 < max(errors) < 2e-2 and min(errors) > 0


# --- the evaluator's word ------------------------------------------------------------------------------------------


def test_a_stopped_run_ends_early_stays_so_and_can_go_on(tiny_run, tiny_store, tmp_path, capsys):
  """Looked at where logs and checkpoints fall (0, 3, 4, 6, ...) and obeyed from its step on."""
  (tmp_path / "STOP.json").write_text('{"step": 5, "reason": "enough"}')
  for _ in range(2):
    assert tiny.run(tiny.config(), tmp_path, tiny_store) == EXIT_DONE
    held_out = [json.loads(line)["step"] for line in (tmp_path / "held_out.jsonl").read_text().splitlines()]
    assert held_out == [0, 4, 6] and max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == 6
    said = capsys.readouterr().err
    assert f"done: ended at step 6 because of {tmp_path / 'STOP.json'}; to go on, remove it" in said
  (tmp_path / "STOP.json").unlink()
  assert tiny.run(tiny.config(), tmp_path, tiny_store) == EXIT_DONE
  for x, y in zip(*(jax.tree.leaves(final_state(workdir, 12)) for workdir in (tiny_run, tmp_path)), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  assert (tiny_run / "train.jsonl").read_text() == (tmp_path / "train.jsonl").read_text()


@pytest.mark.parametrize("text", ["{", '{"step": 1}', "[]", '{"step": "x", "reason": ""}'])
def test_a_stop_that_cannot_be_read_is_said_and_not_obeyed(tmp_path, capsys, text):
  (tmp_path / "STOP.json").write_text(text)
  assert not decisions.asked_to_end(Workdir(tmp_path), 100)
  assert f"{tmp_path / 'STOP.json'} is not obeyed" in capsys.readouterr().err


def test_a_stop_waits_for_its_step(tmp_path):
  assert not decisions.asked_to_end(Workdir(tmp_path), 100)
  (tmp_path / "STOP.json").write_text('{"step": 5, "reason": "enough"}')
  assert [step for step in range(8) if decisions.asked_to_end(Workdir(tmp_path), step)] == [5, 6, 7]


@pytest.mark.parametrize(
  "tasks, every, left",
  [
    pytest.param((), 0, [8, 10], marks=pytest.mark.slow),
    pytest.param(("t",), 0, [4, 6, 8, 10], marks=pytest.mark.slow),
    pytest.param(("t",), 4, [4, 8, 10], marks=pytest.mark.slow),
  ],
)
def test_what_the_evaluator_has_to_see_stays(tiny_store, tmp_path, tasks, every, left):
  config = tiny.config(
    train_steps=10,
    checkpoint__every_steps=2,
    checkpoint__keep=2,
    evaluate__tasks=tasks,
    evaluate__every_steps=every,
    evaluate__keep_unevaluated=4,
    held_out__every_steps=0,
  )
  assert tiny.run(config, tmp_path, tiny_store) == EXIT_DONE
  assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == left
