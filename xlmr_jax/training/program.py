"""What a run compiles: from a config and a mesh to jitted functions, abstract arrays, and the lines that describe them.

The planner compiles the same program for devices that are not there.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from xlmr_jax.errors import UserError
from xlmr_jax.hardware import tuning_of
from xlmr_jax.model.build import build_model, choose_model_ops, count_parameters, family_of
from xlmr_jax.model.head import MaskedLanguageModel
from xlmr_jax.training import sharding
from xlmr_jax.training.fingerprint import make_fingerprints
from xlmr_jax.training.optimizer import (
  Schedule,
  adamw_without_rate,
  cosine_schedule,
  inverse_sqrt_schedule,
  polynomial_schedule,
  wsd_schedule,
)
from xlmr_jax.training.step import Sides, TrainState, begin_with, make_held_out_step, make_init, make_train_step


class Program(NamedTuple):
  """The functions of a run, jitted, and how its arrays lie."""

  mesh: jax.sharding.Mesh
  model: MaskedLanguageModel
  ops: str  # which operations were chosen, and why
  state: TrainState  # of ShapeDtypeStructs with their shardings
  init: Callable[[jax.Array], TrainState]
  begin_with: Callable[[Any], TrainState]
  train_step: Any  # (state, batch, limit) -> (state, metrics); jitted, takes its state's memory
  held_out_step: Callable[[Any, dict], tuple[jax.Array, jax.Array]]
  fingerprints: Callable[[TrainState], jax.Array]  # as fingerprint.make_fingerprints makes it


def build_optimizer(config: ConfigDict) -> tuple[optax.GradientTransformation, Schedule]:
  """(optax transformation, schedule of steps made) of config.optimizer."""
  o = config.optimizer
  common = {"peak_lr": o.peak_lr, "warmup_steps": o.warmup_steps, "train_steps": config.train_steps, "end_lr": o.end_lr}
  if o.schedule == "cosine":
    schedule = cosine_schedule(**common)
  elif o.schedule == "inverse_sqrt":
    schedule = inverse_sqrt_schedule(**common)
  elif o.schedule == "wsd":
    schedule = wsd_schedule(**common, decay_steps=max(o.decay_steps, 0))  # prepare() has put a number for -1.
  else:
    schedule = polynomial_schedule(**common, power=o.power)
  tx = adamw_without_rate(
    b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, decay_pattern=o.decay_pattern, clip_norm=o.clip_norm
  )
  return tx, schedule


def compiler_options(config: ConfigDict, device: Any) -> dict[str, str]:
  """XLA's options for the train step: those of the device, and config.compiler_options, "NAME=VALUE,..."."""
  options = dict(tuning_of(device.platform, device.device_kind).options)
  for item in filter(None, config.compiler_options.split(",")):
    name, equals, value = item.partition("=")
    if not (name and equals and value):
      raise UserError(f"config.compiler_options={config.compiler_options!r}: NAME=VALUE,NAME=VALUE; {item!r} is not")
    options[name] = value
  return options


def mesh_of(config: ConfigDict) -> jax.sharding.Mesh:
  """The mesh of config.mesh over all devices; UserError if they do not divide the batch."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
  sharding.host_rows(mesh, config.batch_rows)
  micro_batches_of(config, mesh.size)
  return mesh


def micro_batches_of(config: ConfigDict, devices: int) -> int:
  """Into how many parts a batch goes; UserError if it does not divide."""
  rows, micro_batches = config.rows_per_device, config.micro_batches
  if rows and micro_batches != 1:
    raise UserError(
      f"config.micro_batches={micro_batches} and config.rows_per_device={rows} exclude each other; set "
      "config.rows_per_device=0, or leave micro_batches at 1"
    )
  if rows and config.batch_rows % (rows * devices):
    raise UserError(
      f"config.batch_rows={config.batch_rows} is no multiple of config.rows_per_device={rows} on {devices} "
      "devices; choose other rows_per_device, or 0 and config.micro_batches"
    )
  if config.batch_rows % (micro_batches * devices):
    raise UserError(
      f"config.batch_rows={config.batch_rows} does not divide into config.micro_batches={micro_batches} over "
      f"{devices} devices"
    )
  return config.batch_rows // (rows * devices) if rows else micro_batches


def build_program(
  config: ConfigDict, mesh: jax.sharding.Mesh, *, vocabulary_size: int, languages: int, seq_len: int | None = None,
  sides: Sides | None = None,
) -> Program:  # fmt: skip
  """The functions of config on mesh. To be called and compiled under jax.set_mesh(mesh).

  languages: of the rows; sides: those of the two texts of each, for a model that looks at them (model_languages.py).
  seq_len: tokens per row; None for the longest that the model takes. UserError if a kernel that config names cannot run.
  """
  device, family = mesh.devices.flat[0], family_of(config)
  ops, chosen = choose_model_ops(config, seq_len or family.max_seq_len(config.model), device.platform)
  model = build_model(config, vocabulary_size, ops)
  tx, schedule = build_optimizer(config)
  init = make_init(model, tx)
  abstract = jax.eval_shape(lambda: init(jax.random.key(0)))  # No array: the devices may not be there.
  shardings = sharding.state_shardings(mesh, abstract, family.sharding)
  batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  train_step = make_train_step(
    model, tx, schedule, mesh=mesh, rules=family.sharding, seed=config.seed, languages=languages,
    micro_batches=micro_batches_of(config, mesh.size), reduce_dtype=jnp.dtype(config.mesh.reduce_dtype),
    chunk_bytes=tuning_of(device.platform, device.device_kind).chunk_mib * 2**20, sides=sides,
  )  # fmt: skip
  return Program(
    mesh,
    model,
    chosen,
    jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
    init=jax.jit(init, out_shardings=shardings),
    begin_with=jax.jit(begin_with(tx), out_shardings=shardings),
    train_step=jax.jit(
      train_step,
      in_shardings=(shardings, batch_sharding, replicated),
      out_shardings=(shardings, replicated),
      donate_argnums=0,
      compiler_options=compiler_options(config, device) or None,
    ),
    held_out_step=jax.jit(
      make_held_out_step(model, languages, mesh, family.sharding, sides),
      in_shardings=(shardings.params, batch_sharding),
      out_shardings=replicated,
    ),
    fingerprints=make_fingerprints(mesh, family.sharding),
  )


def abstract_batch(mesh: jax.sharding.Mesh, rows: int, seq_len: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a global batch, as the input pipeline makes it."""
  batch_sharding = sharding.batch_sharding(mesh)

  def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=batch_sharding)

  return {
    "ids": array(jnp.int32, seq_len),
    "positions": array(jnp.int32, slots),
    "labels": array(jnp.int32, slots),
    "weights": array(jnp.float32, slots),
    "language": array(jnp.int32),
  }


def abstract_limit(mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
  """The shape of the train step's last argument, the limit of the gradient's norm."""
  return jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))


# --- what a run prints at its start --------------------------------------------------------------------------------


def describe_program(program: Program, config: ConfigDict, seq_len: int) -> list[str]:
  """Lines about parameters by module, mesh, micro-batches and operations."""
  params, mesh = program.state.params, program.mesh
  sizes = Counter({name: count_parameters(part) for name, part in params.items()})
  parts = ", ".join(f"{name} {size:,}" for name, size in sizes.most_common(4))
  rest = sum(sizes.values()) - sum(size for _, size in sizes.most_common(4))
  device, micro_batches = mesh.devices.flat[0], micro_batches_of(config, mesh.size)
  return [
    f"parameters: {sum(sizes.values()):,} ({parts}, others {rest:,})",
    f"mesh: {mesh.size} x {device.device_kind}, data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}; "
    f"{config.batch_rows} rows of {seq_len} tokens per step, {micro_batches} x "
    f"{config.batch_rows // micro_batches // mesh.size} rows per device; {config.model.dtype}, remat {config.model.remat}",
    program.ops,
  ]


def describe_memory(compiled: Any) -> str:
  """A line about the memory of one device that the compiler counts for a compiled step."""
  memory = compiled.memory_analysis()
  if memory is None:
    return "memory: the compiler does not tell"
  state, temporaries = (x / 2**30 for x in (memory.argument_size_in_bytes, memory.temp_size_in_bytes))
  return (
    f"memory per device: {state:.2f} GiB of state and batch, {temporaries:.2f} GiB of temporaries (the compiler's count)"
  )
