import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests import tiny
from xlmr_jax import hardware
from xlmr_jax.commands.plan import COLLECTIVES
from xlmr_jax.config_files import load_config
from xlmr_jax.errors import UserError
from xlmr_jax.planner import collectives, costs, execution, hlo, search, step, tables, topology, work
from xlmr_jax.training import sharding

needs_libtpu = pytest.mark.skipif(not topology.has_libtpu(), reason="libtpu is not installed: pip install 'jax[tpu]'")


@pytest.fixture(scope="session")
def tpu():
  """Names to topologies that can be compiled for; the settings they need are taken back."""
  before = dict(os.environ)
  topology.prepare_environment()
  yield lambda name, slices=1: topology.parse(name, slices)
  os.environ.clear()
  os.environ.update(before)


def compiled_text(f, *shapes, mesh=None, specs=None):
  """The compiled text of f for the CPU, or for a mesh of devices that are not there, its arguments laid by specs."""
  import jax
  from jax.sharding import NamedSharding, PartitionSpec

  specs = specs or [PartitionSpec()] * len(shapes)
  shardings = [NamedSharding(mesh, spec) if mesh else None for spec in specs]
  arrays = [jax.ShapeDtypeStruct(shape, dtype, sharding=s) for (shape, dtype), s in zip(shapes, shardings)]
  return jax.jit(f).lower(*arrays).compile().as_text()


def mesh_of(where):
  return sharding.make_mesh(devices=topology.describe(where))


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("name", "family", "shape"),
  [
    ("v5e:4x4", "v5e", (4, 4)),
    ("v5litepod-256", "v5e", (16, 16)),
    ("v5e-16", "v5e", (4, 4)),
    ("v4-32", "v4", (2, 2, 4)),
    ("v5p-128", "v5p", (4, 4, 4)),
    ("v5p:4x4x8", "v5p", (4, 4, 8)),
    ("v6e-64", "v6e", (8, 8)),
    ("tpu7x-64", "tpu7x", (2, 4, 4)),
    ("V5E:16x16", "v5e", (16, 16)),
  ],
)
def test_names_and_pod_types(name, family, shape):
  where = topology.parse(name)
  assert (where.family, where.shape) == (family, shape)
  assert where.devices == where.chips * (2 if family == "tpu7x" else 1)


@pytest.mark.parametrize("name", ["v3-8", "v5e", "v5e:4", "v5e:4x4x4", "v5p:4x4", "v4-33", "v5e:3x4", "v4-24", "h100:8"])
def test_other_names_are_refused_with_those_known(name):
  with pytest.raises(UserError, match="v5litepod-4 to v5litepod-256") as error:
    topology.parse(name)
  assert "\n" not in str(error.value) and name in str(error.value)


def test_figures_of_chips_agree_with_each_other():
  clocks = {name: round(chip.clock / 1e9, 2) for name, chip in hardware.CHIPS.items()}
  assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75, "tpu7x": 2.2}  # the first three are published


@needs_libtpu
@pytest.mark.parametrize("name", ["v4-16", "v5e:4x4", "v5p:2x2x2", "v6e:2x4", "tpu7x:2x2x1"])
def test_libtpu_describes_what_we_say_it_does(tpu, name):
  where = tpu(name)
  devices = topology.describe(where)
  assert len(devices) == where.devices and {d.device_kind for d in devices} == {where.chip.kind}
  slices = topology.describe(tpu(name, 2))
  assert len(slices) == 2 * where.devices and {d.slice_index for d in slices} == {0, 1}


@needs_libtpu
def test_a_mesh_over_two_slices_keeps_fsdp_on_one(tpu):
  mesh = sharding.make_mesh(fsdp=2, devices=topology.describe(tpu("v5e:2x2", 2)))
  slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
  assert mesh.devices.shape == (4, 2) and set(slices.ravel()) == {0, 1}
  assert (slices == slices[:, :1]).all()


@needs_libtpu
@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("name", ["v4:2x2x4", "v4:4x4x8", "v5e:4x8", "v5p:4x4x4", "v5p:4x8x8", "v6e:8x8", "tpu7x:2x4x4"])
def test_every_fsdp_finds_its_place_on_a_slice(tpu, name, slices):
  """Also where it is no product of whole axes of the chips, such as 4 on 8 x 8. A group is a box of chips without gaps."""
  devices = topology.describe(tpu(name, slices))
  for fsdp in (size for size in (1, 2, 4, 8, 16, 32) if size * slices <= len(devices)):
    mesh = sharding.make_mesh(fsdp=fsdp, devices=devices)
    assert mesh.devices.shape == (len(devices) // fsdp, fsdp) and set(mesh.devices.flat) == set(devices)
    places = np.array([[getattr(device, "slice_index", 0) or 0, *device.coords] for device in mesh.devices.flat])
    places = places.reshape(*mesh.devices.shape, -1)
    assert (places[..., 0] == places[:, :1, 0]).all()
    spans = np.ptp(places[..., 1:], axis=1) + 1  # of a group, along each axis of the chips
    chips = len({tuple(device.coords) for device in mesh.devices[0]})
    assert (spans.prod(axis=1) == chips).all()


@needs_libtpu
def test_the_compilers_clock_is_the_tables(tpu):
  # A well-shaped product takes FLOPs / (FLOPs a cycle), never less.
  import jax.numpy as jnp

  where = tpu("v5e:2x2")
  text = compiled_text(jnp.matmul, ((4096, 4096), "bfloat16"), ((4096, 4096), "bfloat16"), mesh=mesh_of(where))
  counted = costs.count(hlo.Module.parse(text), where)
  assert sum(counted.flops.values()) == 2 * 4096**3
  assert 0.9 < 2 * 4096**3 / where.chip.flops_per_cycle / sum(counted.cycles.values()) <= 1.0


# --- counting ----------------------------------------------------------------------------------------------------


def flops_of(text):
  module = hlo.Module.parse(text)
  assert execution.unknown_loops(module) == []
  return sum(costs.count(module, topology.parse("v5e:2x2")).flops.values())


def scanned(k, inner=1):
  """x -> x @ w, k times `inner` times, in loops in loops."""
  import jax

  def f(x, w):
    def product(x, _):
      return x @ w, None

    def outer(x, _):
      return jax.lax.scan(product, x, None, length=inner) if inner > 1 else product(x, None)

    return jax.lax.scan(outer, x, None, length=k)[0]

  return f


@pytest.mark.parametrize(("k", "inner"), [(1, 1), (5, 1), (7, 3)])
def test_flops_of_loops_on_the_cpu(k, inner):
  text = compiled_text(scanned(k, inner), ((8, 16), "float32"), ((16, 16), "float32"))
  assert flops_of(text) == k * inner * 2 * 8 * 16 * 16


@needs_libtpu
@pytest.mark.parametrize(("k", "inner"), [(5, 1), (7, 3)])
def test_flops_of_loops_on_tpus(tpu, k, inner):
  mesh = mesh_of(tpu("v5e:2x2"))
  text = compiled_text(scanned(k, inner), ((128, 256), "bfloat16"), ((256, 256), "bfloat16"), mesh=mesh)
  assert flops_of(text) == k * inner * 2 * 128 * 256 * 256
  once = compiled_text(scanned(1), ((128, 256), "bfloat16"), ((256, 256), "bfloat16"), mesh=mesh)
  cycles = [sum(costs.count(hlo.Module.parse(t), tpu("v5e:2x2")).cycles.values()) for t in (text, once)]
  assert 0.3 * k * inner < cycles[0] / cycles[1] < 3 * k * inner


@pytest.mark.parametrize("equation", ["bhqk,bhsk->bhqs", "bqhk,bshk->bhqs", "bhqs,bshk->bqhk", "ij,kj->ik", "bij,bjk->bik"])
@pytest.mark.parametrize("on_tpu", [False, pytest.param(True, marks=needs_libtpu)])
def test_flops_of_batched_products(tpu, equation, on_tpu):
  # On TPUs these become convolutions over dilated inputs, whose holes are no work.
  import jax.numpy as jnp

  sizes = dict(b=3, h=4, q=32, s=48, k=64, i=40, j=24)
  left, right = equation.split("->")[0].split(",")
  shapes = [(tuple(sizes[c] for c in labels), "float32") for labels in (left, right)]
  mesh = mesh_of(tpu("v5e:2x2")) if on_tpu else None
  text = compiled_text(lambda a, b: jnp.einsum(equation, a, b), *shapes, mesh=mesh)
  assert flops_of(text) == 2 * np.prod([sizes[c] for c in set(left + right)])


def test_a_loop_bound_that_is_no_constant_is_told():
  import jax

  text = compiled_text(lambda n, x: jax.lax.fori_loop(0, n, lambda _, x: x @ x, x), ((), "int32"), ((8, 8), "float32"))
  module = hlo.Module.parse(text)
  assert len(execution.unknown_loops(module)) == 1
  assert costs.count(module, topology.parse("v5e:2x2")).flops["other"] == 2 * 8**3
  assert "counted once" in costs.count(module, topology.parse("v5e:2x2")).unknown[0]


def test_of_a_conditional_one_branch_counts():
  import jax

  def f(p, x):
    return jax.lax.cond(p, lambda x: x @ x, lambda x: x @ x.T, x)

  assert flops_of(compiled_text(f, ((), "bool"), ((8, 8), "float32"))) == 2 * 8**3


def test_absurd_estimates_are_unknown():
  line = '  ROOT %f = f32[1024,1024]{1,0} negate(%p), backend_config={"window_config":{"estimated_cycles":"%s"}}'
  text = (
    "HloModule m\n\nENTRY %main (p: f32[1024,1024]) -> f32[1024,1024] {\n  %p = f32[1024,1024]{1,0} parameter(0)\n%s\n}\n"
  )
  where = topology.parse("v5e:2x2")
  good, absurd, negative = (
    costs.count(hlo.Module.parse(text.replace("%s", line.replace("%s", value))), where)
    for value in ("1234", str(2**62), "-5")
  )
  assert sum(good.cycles.values()) == 1234 and not good.unknown
  for counted in (absurd, negative):
    assert "2^62" in counted.unknown[0]
    assert sum(counted.cycles.values()) == pytest.approx(2 * 4 * 1024**2 / 819e9 * where.chip.clock)


@pytest.mark.parametrize(
  ("opcode", "update", "moved"),
  [
    ("dynamic-update-slice", "", 2),  # read, and written over what is there
    ("dynamic-update-slice", "S(1)", 1),  # from the chip
    ("scatter", "", 3),  # read, and added to what is read
    ("scatter", "S(1)", 2),
  ],
)
def test_what_lies_on_the_chip_is_not_read_from_the_hbm(opcode, update, moved):
  small, large = f"f32[64,128]{{1,0:T(8,128){update}}}", "f32[4096,128]{1,0:T(8,128)}"
  module = hlo.Module.parse(
    f"HloModule m\n\nENTRY %main (p: f32[4096,128], u: f32[64,128]) -> f32[4096,128] {{\n  %p = {large} parameter(0)\n"
    f"  %u = {small} parameter(1)\n  ROOT %r = {large} {opcode}(%p, %u)\n}}\n"
  )
  entry = module.computations[module.entry]
  assert work.moved_bytes(module, entry, entry.root) == moved * 64 * 128 * 4


@needs_libtpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_collectives_of_a_sum_over_devices(tpu, dtype):
  import jax
  from jax.sharding import PartitionSpec as P

  where = tpu("v5e:4x4")
  mesh = mesh_of(where)

  def f(x):
    total = jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=P("data"), out_specs=P())
    return jax.lax.scan(lambda c, _: (total(x * c[0, 0]), None), total(x), None, length=3)[0]

  text = compiled_text(f, ((16 * 64, 256), dtype), mesh=mesh, specs=[P("data")])
  counted = costs.count(hlo.Module.parse(text), where, collectives.Network(where, mesh))
  assert counted.counts == {"all-reduce": 4}
  assert counted.bytes["all-reduce"] == 4 * 64 * 256 * (4 if dtype == "float32" else 2)
  assert set(counted.spans) == {"data"} and counted.collective_cycles > 0


@pytest.mark.parametrize(
  ("text", "groups"),
  [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("channel_id=1, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("replica_groups=[2,4]<=[8], dimensions={0}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}, x={}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, x={}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("replica_groups={}, to_apply=%add", [[0, 1, 2, 3, 4, 5, 6, 7]]),
  ],
)
def test_replica_groups_in_every_form(text, groups):
  assert collectives.replica_groups(text, 8).tolist() == groups


def test_bandwidth_follows_the_links_that_a_group_spans():
  pod, part = topology.parse("v5e:16x16"), topology.parse("v5e:4x4")
  assert pod.wraps(0) and not part.wraps(0)
  assert topology.parse("v5p:4x4x8").wraps(2) and not topology.parse("v5p:2x2x4").wraps(2)


@pytest.mark.parametrize(
  ("op_name", "part"),
  [
    ("jit(train_step)/jvp(XLMR)/layer/attention/dot_general", "attention"),
    ("jit(train_step)/transpose(jvp(XLMR))/layer/attention_out/dot_general", "attention projections"),
    ("jit(train_step)/transpose(jvp(XLMR))/layer/attention/shard_map/splash", "attention"),
    ("jit(train_step)/jvp(XLMR)/layer/qkv/add", "attention projections"),
    ("jit(train_step)/jvp(XLMR)/layer/ffn_in/erf", "feed-forward"),
    ("jit(train_step)/jvp(XLMR)/head_dense/dot_general", "head and loss"),
    ("jit(train_step)/jvp()/vocabulary_loss/shard_map/while/body", "head and loss"),
    ("jit(train_step)/jvp(XLMR)/embedding/gather", "embedding"),
    ("jit(train_step)/optimizer/mul", "optimizer"),
    ("jit(train_step)/mul", "optimizer"),
    ("jit(train_step)/jvp(XLMR)/layer/reduce_max", "other"),
    ("", "other"),
  ],
)
def test_parts(op_name, part):
  assert costs.part_of(op_name) == part


@needs_libtpu
def test_splash_attention_counts_by_its_own_arithmetic(tpu):
  import jax
  import jax.numpy as jnp
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask
  from jax.sharding import PartitionSpec as P

  where, (b, h, l, k) = tpu("v5e:2x2"), (2, 2, 256, 64)
  mesh = mesh_of(where)

  def attention(q, k, v):
    splash = kernel.make_splash_mha(mask.MultiHeadMask([mask.FullMask((l, l))] * h), head_shards=1, q_seq_shards=1)
    return jax.vmap(splash)(q, k, v)

  def f(q, k, v):
    spread = jax.shard_map(attention, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    with jax.named_scope("attention"):
      return spread(q, k, v).astype(jnp.float32).sum()

  shape = ((4 * b, h, l, k), "bfloat16")
  text = compiled_text(jax.grad(f, argnums=(0, 1, 2)), shape, shape, shape, mesh=mesh, specs=[P("data")] * 3)
  counted = costs.count(hlo.Module.parse(text), where)
  assert counted.unknown == [] and len(counted.kernels) == 3
  assert counted.flops["attention"] == (2 + 3 + 4) * 2 * b * h * l * l * k  # forward, dq, dkv
  assert counted.cycles["attention"] >= counted.flops["attention"] / (costs.KERNEL_EFFICIENCY * where.chip.flops_per_cycle)


# --- plans -------------------------------------------------------------------------------------------------------


def small(**changes):
  """A config that compiles in seconds."""
  return tiny.config(
    "demo",
    **{
      "model.dtype": "bfloat16",
      "model.dropout": 0.0,
      "model.attention_dropout": 0.0,
      "model.hidden": 128,
      "model.ffn": 256,
      "model.vocabulary_size": 1000,
      "model.max_positions": 66,
      **changes,
    },
  )


@pytest.fixture(scope="session")
def small_plan(tpu):
  where = tpu("v5e:2x2")
  return step.plan(step.with_rows(small(), where, 8), where, 1000)


@needs_libtpu
@pytest.mark.slow
def test_a_plan_counts_the_models_flops(small_plan):
  p = small_plan
  assert p["fits"] and p["flops_ratio"] == pytest.approx(1.0, abs=0.02)
  assert p["rows_per_chip"] == 8 and p["batch_rows"] == 32 and p["uncounted"] == []
  assert p["estimated_cycles_per_row"] == pytest.approx(sum(p["cycles_per_row_by_part"].values()))
  assert p["estimated_cycles_per_row"] > p["floor_cycles_per_row"] and 0 < p["estimated_mfu"] < 1
  assert 0 < p["peak_gib"] < p["hbm_gib"]
  assert p["collectives"]["all-reduce"]["count"] > 0
  json.dumps(p)


@needs_libtpu
@pytest.mark.slow
def test_micro_batches_are_counted_as_often_as_they_run(tpu, small_plan):
  where = tpu("v5e:2x2")
  p = step.plan(step.with_rows(small(), where, 8, micro_batches=4), where, 1000)
  assert p["batch_rows"] == 128 and p["rows_per_chip"] == 8
  assert p["flops_ratio"] == pytest.approx(1.0, abs=0.02)
  assert p["cycles_per_row_by_part"]["optimizer"] < 0.6 * small_plan["cycles_per_row_by_part"]["optimizer"]


@needs_libtpu
def test_what_does_not_fit_says_what_it_needs(tpu):
  where = tpu("v5e:2x2")
  p = step.plan(step.with_rows(small(**{"model.max_positions": 514}), where, 8192), where, 1000)
  assert p["fits"] is False and p["needed_gib"] > 15.75 and p["estimated_mfu"] is None
  assert "DOES NOT FIT: needs" in tables.describe(p)


def test_overflow_messages():
  assert (
    step.overflow_gib(
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
      "(400.00G) exceeds available HBM (15.75G)."
    )
    == 400.0
  )
  assert (
    step.overflow_gib("RESOURCE_EXHAUSTED: Ran out of memory in space hbm. Used 512.50M of 15.75G hbm.") == 512.5 / 2**10
  )
  assert step.overflow_gib("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem") is None
  assert step.overflow_gib("INTERNAL: Mosaic failed to compile") is None


@pytest.mark.parametrize("limit", [0.5, 1, 3, 8, 17, 40, 63, 64, 100, 129, 4000, 1e6])
@pytest.mark.parametrize("candidates", [[1, 2, 4, *range(8, 4097, 8)], [1, 2, 4, 8, 16, 32], [512]])
def test_the_search_finds_the_largest_that_fits_with_few_compilations(limit, candidates):
  asked = []

  def attempt(rows):
    asked.append(rows)
    gib = 3.0 + 12.75 * rows / limit  # what fits needs at most 15.75
    return {
      "rows": rows,
      "fits": rows <= limit,
      "peak_gib": gib if rows <= limit else None,
      "needed_gib": gib if rows > limit else None,
      "hbm_gib": 15.75,
    }

  best = search.largest(candidates, attempt)
  wanted = max((rows for rows in candidates if rows <= limit), default=None)
  assert (best and best["rows"]) == wanted
  assert len(asked) == len(set(asked)) <= 12


def test_shipped_configs_name_topologies_that_exist():
  found = {path: names for path, _, names in search.shipped_topologies()}
  assert {"base", "large", "xl"} <= set(found)
  for names in found.values():
    assert [topology.parse(name).name for name in names] == list(names)


@pytest.mark.parametrize("only, where, expected", [
  ("base", "v5litepod-16", [("base", "v5e:4x4")]), ("base.py", "V5E:4x4", [("base", "v5e:4x4")]),
  ("", "v6e-16", [("base", "v6e:4x4"), ("large", "v6e:4x4")]), ("xl", "", [("xl", "v5p:4x4x4"), ("xl", "tpu7x:4x4x4")]),
])  # fmt: skip
def test_shipped_configs_are_chosen_by_any_name_of_a_topology(only, where, expected):
  assert [(name, place) for name, _, place, _ in search.choose_shipped(only, where)] == expected


@pytest.mark.parametrize("only, where, said", [
  ("", "v5e:8x8", "--topology=v5e:8x8: the configs have TOPOLOGIES for v5e:4x4, v4:2x2x4, "),
  ("xl", "v4-32", "--topology=v4-32: xl has TOPOLOGIES for v5p:4x4x4, tpu7x:4x4x4; for another one, give --config"),
])  # fmt: skip
def test_topologies_that_no_config_names_are_refused(only, where, said):
  with pytest.raises(UserError, match=re.escape(said)):
    search.choose_shipped(only, where)


# --- the command ---------------------------------------------------------------------------------------------------


def run(*flags, **env):
  return subprocess.run(
    [sys.executable, "-m", "xlmr_jax", "plan", *flags], capture_output=True, text=True, env={**os.environ, **env}
  )


SMALL = (
  "--config=base:runlocal",
  "--config.model.max_positions=34",
  "--config.model.dropout=0.0",
  "--config.model.attention_dropout=0.0",
)


@needs_libtpu
@pytest.mark.slow
def test_the_command_ends_with_json():
  done = run(*SMALL, "--topology=v5e:2x2", "--vocabulary=500", "--json")
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  assert {"fits", "peak_gib", "rows_per_chip", "estimated_cycles_per_row", "estimated_mfu", "collectives"} <= set(result)
  assert result["fits"] and result["rows_per_chip"] == 4 and result["vocabulary"] == 500
  assert "assumed:" in done.stdout and "0.35 x peak" in done.stdout


@needs_libtpu
@pytest.mark.slow
def test_advice_ranks_what_fits():
  done = run(*SMALL, "--topology=v5e:2x2", "--vocabulary=512", "--advise", "--json")
  assert done.returncode == 0, done.stderr
  plans = json.loads(done.stdout.splitlines()[-1])["plans"]
  cycles = [p["estimated_cycles_per_row"] for p in plans]
  assert cycles == sorted(cycles) and {p["remat"] for p in plans} == {"none", "ffn", "dots", "full"}
  assert {p["fsdp"] for p in plans} == {1, 4} and {p["rows_per_chip"] for p in plans} == {2, 4}
  assert len({p["batch_rows"] for p in plans}) == 1  # the update stays the same


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    ((*SMALL, "--topology=v9:4x4"), "--topology=v9:4x4: not a topology; known are"),
    ((*SMALL, "--topology=v5e:2x2"), "--vocabulary=N"),
    ((*SMALL,), "pass --config=base and --topology"),
    ((*SMALL, "--topology=v5e:2x2", "--write"), "--write goes with --all"),
    ((*SMALL, "--topology=v5e:4x8", "--vocabulary=500"), "does not divide"),
    (("--all", "--only=bse"), "--only=bse: no config of this name says its TOPOLOGIES; base, "),
    (("--all", *SMALL), "--config: --all takes configs and rows as the shipped files have them"),
    (
      ("--all", "--slices=2", "--rows_per_chip=8", "--vocabulary=500"),
      "--slices, --rows_per_chip, --vocabulary: --all takes",
    ),
    ((*SMALL, "--topology=v5e:2x2", "--only=base"), "--only=base goes with --all"),
    ((*SMALL, "--topology=v5e:2x2", "--search", "--rows_per_chip=8"), "--rows_per_chip=8: --search finds the rows itself"),
  ],
)
def test_refusals_are_one_line(flags, says):
  needs_compiler = "--vocabulary=N" in says or "does not divide" in says
  if needs_compiler and not topology.has_libtpu():
    pytest.skip("libtpu is not installed: pip install 'jax[tpu]'")
  done = run(*flags)
  assert done.returncode == 1 and says in done.stderr, done.stderr
  assert done.stderr.strip().startswith("error: ") and done.stderr.strip().count("\n") == 0


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setattr(topology, "has_libtpu", lambda: False)
  with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
    topology.describe(topology.parse("v5e:2x2"))


def test_the_planner_needs_no_tensorflow():
  code = (
    "import sys; from xlmr_jax.commands import plan; from xlmr_jax.planner import costs, search, step, tables, topology; "
    "from xlmr_jax.config_files import load_config; step.check(load_config('base')); "
    "assert not any(name.split('.')[0].startswith('tensorflow') for name in sys.modules), 'TensorFlow'"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


# --- stored collectives --------------------------------------------------------------------------------------------


@needs_libtpu
@pytest.mark.slow
def test_base_still_makes_the_stored_collectives_and_is_as_fast(tpu):
  """Minutes. After a change that is meant, write the collectives anew with the command in the message."""
  again = "xlmr plan --all --only=base --topology=v5e:4x4 --write"
  stored = json.loads(COLLECTIVES.read_text())["base@v5e:4x4"]
  if stored["versions"] != step.versions():
    pytest.skip(f"{COLLECTIVES.name} was written with {stored['versions']}, here is {step.versions()}: {again}")
  where, config = tpu("v5e:4x4"), load_config("base")
  config = step.with_rows(config, where, stored["rows_per_chip"], stored["micro_batches"])
  now = step.plan(config, where, config.model.vocabulary_size)
  assert now["fits"], f"Base at {stored['rows_per_chip']} rows a chip no longer fits v5e:4x4 (needs {now['needed_gib']} GiB)"
  assert now["estimated_cycles_per_row"] < 5.5e6 and now["estimated_mfu"] > 0.5, now
  # The loss sums its exponentials once more only where a logit is far above the label's.
  (told,) = now["uncounted"]
  assert re.fullmatch(r"iterations of the loop .*vocabulary_loss/while: counted once", told)
  changed = [
    f"{kind}: {stored['collectives'].get(kind)} before, {now['collectives'].get(kind)} now"
    for kind in sorted({*stored["collectives"], *now["collectives"]})
    if stored["collectives"].get(kind) != now["collectives"].get(kind)
  ]
  assert not changed, f"the step's collectives have changed: {'; '.join(changed)}. If that is meant: {again}"
