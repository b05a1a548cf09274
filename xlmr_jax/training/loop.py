"""Pretraining, read top to bottom: the model, what is compiled, the loop. Here and in main.py configs are read."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.model import attention
from xlmr_jax.model.xlmr import XLMR, padded_vocabulary
from xlmr_jax.run import compile_cache, hosts, stopping
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.metrics import RunLog, flops_per_token
from xlmr_jax.training import losses, optimizer, sharding
from xlmr_jax.training.step import TrainState, begin_with, make_held_out_step, make_init, make_train_step

# --- from a config -----------------------------------------------------------------------------------------------


def build_model(
  config: ConfigDict, vocabulary_size: int, mesh: jax.sharding.Mesh | None = None, platform: str | None = None
) -> XLMR:
  """The model of config.model: for the arrays of one device, with the platform's kernels (None: JAX's default backend's).

  mesh: for global arrays instead, which XLA divides; activations are constrained to lie by rows. No kernels then.
  """
  model, constrain = config.model, lambda x: x
  if model.hidden % model.heads:
    raise UserError(f"config.model.hidden={model.hidden} does not divide into config.model.heads={model.heads}")
  platform = platform or jax.default_backend()
  try:
    kernel = attention.choose(
      model.attention,
      platform=platform,
      seq_len=model.max_positions - 2,
      width=model.hidden // model.heads,
      rate=model.attention_dropout,
    )
  except ValueError as error:
    raise UserError(str(error)) from None
  if mesh is not None:
    rows = sharding.batch_sharding(mesh)
    kernel, constrain = "xla", lambda x: jax.lax.with_sharding_constraint(x, rows)
  return XLMR(
    vocabulary_size=vocabulary_size,
    layers=model.layers,
    hidden=model.hidden,
    heads=model.heads,
    ffn=model.ffn,
    max_positions=model.max_positions,
    dropout=model.dropout,
    attention_dropout=model.attention_dropout,
    dropout_bits="key" if model.dropout_bits == "rbg" else "hash",
    isolate_documents=model.isolate_documents,
    pre_norm=model.pre_norm,
    init_std=model.init_std,
    dtype=jnp.dtype(model.dtype),
    remat=model.remat,
    unroll_layers=model.unroll_layers,
    attention=kernel,
    interpret=platform != "tpu",
    constrain=constrain,
    fuse=mesh is None and model.dropout_bits == "hash" and model.fuse in ("on", *(["auto"] if platform == "tpu" else [])),
  )


def build_optimizer(config: ConfigDict):
  """(optax transformation, schedule of steps made) of config.optimizer."""
  o = config.optimizer
  schedule = optimizer.polynomial_schedule(
    peak_lr=o.peak_lr, warmup_steps=o.warmup_steps, train_steps=config.train_steps, end_lr=o.end_lr, power=o.power
  )
  return optimizer.adamw(
    b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, decay_pattern=o.decay_pattern, clip_norm=o.clip_norm
  ), schedule


# --- what is compiled -------------------------------------------------------------------------------------------


class Tuning(NamedTuple):
  """What is best on a kind of device, by the compiler's estimates (benchmarks/TPU_NOTES.md)."""

  chunk_mib: int = losses.CHUNK_BYTES // 2**20  # of the loss's logits alive at a time
  options: tuple[tuple[str, str], ...] = ()  # XLA's, for the train step


_SCOPED = "xla_tpu_scoped_vmem_limit_kib"  # what one fused product may take of the memory on the chip: decides its tiles
OTHER_TPUS = Tuning(48)
TUNING = {"TPU v5 lite": Tuning(96, ((_SCOPED, "32768"),)), "TPU v6 lite": Tuning(48, ((_SCOPED, "65536"),))}


def tuning_of(device) -> Tuning:
  return TUNING.get(device.device_kind, OTHER_TPUS if device.platform == "tpu" else Tuning())


def compiler_options(config: ConfigDict, device) -> dict[str, str]:
  """XLA's options for the train step: those of the device, and config.compiler_options, "NAME=VALUE,..."."""
  options = dict(tuning_of(device).options)
  for item in filter(None, config.compiler_options.split(",")):
    name, equals, value = item.partition("=")
    if not (name and equals and value):
      raise UserError(f"config.compiler_options={config.compiler_options!r}: NAME=VALUE,NAME=VALUE; {item!r} is not")
    options[name] = value
  return options


class Program(NamedTuple):
  """What a run compiles, and how its arrays lie. The planner compiles the same for devices that are not there."""

  model: XLMR
  state: TrainState  # of ShapeDtypeStructs with their shardings
  init: Callable[[jax.Array], TrainState]  # jitted, as are the next three
  begin_with: Callable[[Any], TrainState]
  train_step: Callable[[TrainState, dict], tuple[TrainState, dict]]  # takes its state's memory
  held_out_step: Callable[[Any, dict], tuple[jax.Array, jax.Array]]


def build_program(config: ConfigDict, mesh: jax.sharding.Mesh, *, vocabulary_size: int, languages: int) -> Program:
  """The functions of config on mesh. To be called and compiled under jax.set_mesh(mesh)."""
  device = mesh.devices.flat[0]
  platform = device.platform
  model = build_model(config, vocabulary_size, platform=platform)
  tx, schedule = build_optimizer(config)
  init = make_init(model, tx)
  abstract = jax.eval_shape(lambda: init(jax.random.key(0)))  # no array: the devices may not be there
  shardings = sharding.state_shardings(mesh, abstract)
  by_rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  several = mesh if mesh.size > 1 else None
  return Program(
    model,
    jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
    init=jax.jit(init, out_shardings=shardings),
    begin_with=jax.jit(begin_with(tx), out_shardings=shardings),
    train_step=jax.jit(
      make_train_step(
        model,
        tx,
        schedule,
        seed=config.seed,
        languages=languages,
        micro_batches=micro_batches_of(config, mesh.size),
        mesh=several,
        generator="rbg" if config.model.dropout_bits == "rbg" else "threefry2x32",
        reduce_dtype=jnp.dtype(config.mesh.reduce_dtype),
        chunk_bytes=tuning_of(device).chunk_mib * 2**20,
      ),
      in_shardings=(shardings, by_rows),
      out_shardings=(shardings, whole),
      donate_argnums=0,
      compiler_options=compiler_options(config, device) or None,
    ),
    held_out_step=jax.jit(
      make_held_out_step(model, languages, several), in_shardings=(shardings.params, by_rows), out_shardings=whole
    ),
  )


def abstract_batch(mesh: jax.sharding.Mesh, rows: int, seq_len: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a global batch, as the input pipeline makes it."""
  by_rows = sharding.batch_sharding(mesh)
  of = lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=by_rows)  # noqa: E731
  return {
    "ids": of(jnp.int32, seq_len),
    "positions": of(jnp.int32, slots),
    "labels": of(jnp.int32, slots),
    "weights": of(jnp.float32, slots),
    "language": of(jnp.int32),
  }


# --- the loop ----------------------------------------------------------------------------------------------------


def mesh_of(config: ConfigDict) -> jax.sharding.Mesh:
  """The mesh of config.mesh over all devices; UserError if they do not divide the batch."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
  sharding.host_rows(mesh, config.batch_rows)
  micro_batches_of(config, mesh.size)
  return mesh


def micro_batches_of(config: ConfigDict, devices: int) -> int:
  """Into how many parts a batch goes; UserError if it does not divide."""
  rows, micro_batches = config.rows_per_device, config.micro_batches
  if rows:
    if micro_batches != 1:
      raise UserError(
        f"config.micro_batches={micro_batches} and config.rows_per_device={rows} exclude each other; set "
        "config.rows_per_device=0, or leave micro_batches at 1"
      )
    if config.batch_rows % (rows * devices):
      raise UserError(
        f"config.batch_rows={config.batch_rows} is no multiple of config.rows_per_device={rows} on {devices} "
        "devices; choose other rows_per_device, or 0 and config.micro_batches"
      )
    return config.batch_rows // (rows * devices)
  if config.batch_rows % (micro_batches * devices):
    raise UserError(
      f"config.batch_rows={config.batch_rows} does not divide into config.micro_batches={micro_batches} over "
      f"{devices} devices"
    )
  return micro_batches


def train(
  config: ConfigDict,
  workdir: Path,
  store,
  preemption: hosts.Preemption,
  begin: Callable[[], None] = lambda: None,
  initial: Callable[[Any], Any] | None = None,
) -> int:
  """Trains config in workdir from its newest checkpoint, or from the start; returns the exit code.

  store: data.rows.RowStore. main.py has compared config and rows with the workdir's and between hosts. begin: called
  once nothing is left to refuse, before anything is written. initial: abstract parameters -> those before step 0, if they
  are not to be drawn from config.seed.
  """
  from xlmr_jax.data import masking, mixture, pipeline  # TensorFlow: kept out of what train_step's users import

  mesh = mesh_of(config)
  rows = sharding.host_rows(mesh, config.batch_rows)
  look_rows = config.batch_rows // micro_batches_of(config, mesh.size)  # of a held-out batch: what memory allows
  slots = masking.slots_per_row(store.seq_len, config.data.mask_share)
  mix = mixture.Mixture(store.counts("train"), config.data.alpha, config.seed, languages=store.languages)
  languages = len(store.languages)

  program = build_program(config, mesh, vocabulary_size=store.vocabulary_size, languages=languages)

  begin()
  is_eligible = lambda step: stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps)  # noqa: E731
  checkpoints = Checkpoints(
    workdir / "checkpoints",
    keep=config.checkpoint.keep,
    keep_every=config.checkpoint.keep_every,
    is_eligible=is_eligible if config.evaluate.tasks else None,
    keep_unevaluated=config.evaluate.keep_unevaluated,
  )
  restored = checkpoints.restore_latest(program.state)
  if restored:
    start, state, notes = restored
    print(f"resuming at step {start}", flush=True)
    if start > config.train_steps:
      raise UserError(f"{workdir} is at step {start}, past config.train_steps={config.train_steps}")
  elif initial:
    start, state, notes = 0, program.begin_with(initial(program.state.params)), None
  else:
    start, state, notes = 0, program.init(jax.random.key(config.seed)), None
  log = RunLog(
    workdir,
    start=start,
    notes=notes,
    train_steps=config.train_steps,
    every_steps=config.log.every_steps,
    languages=store.languages,
    shares=mix.shares,
    epochs=lambda step: mix.epochs(step * config.batch_rows),
    tokens_per_step=config.batch_rows * store.seq_len,
    tensorboard=config.log.tensorboard,
    flops_per_token=flops_per_token(
      layers=config.model.layers,
      hidden=config.model.hidden,
      ffn=config.model.ffn,
      seq_len=store.seq_len,
      vocabulary=padded_vocabulary(store.vocabulary_size),
      slots=slots,
    ),
  )
  watchdog = hosts.Watchdog(config.watchdog_s)

  def evaluate(step, params) -> bool:
    """Held-out losses per language; False when told to stop before the end."""
    with pipeline.held_out_batches(
      store,
      batch_rows=look_rows,
      seed=config.seed,
      slots=slots,
      host_rows=sharding.host_rows(mesh, look_rows),
      max_rows_per_language=config.held_out.max_rows_per_language or None,
      mask_share=config.data.mask_share,
    ) as batches:
      sums = np.zeros((2, languages))
      for batch in batches:
        sums += np.stack(jax.device_get(program.held_out_step(params, sharding.to_global(mesh, batch, look_rows))))
        watchdog.alive()
        if preemption.stop():
          return False
    log.held_out(step, *sums, bits_per_nat(store, "held_out"))
    return True

  try:
    with (
      jax.set_mesh(mesh),
      pipeline.train_batches(
        store,
        mix,
        batch_rows=config.batch_rows,
        start_step=start,
        seed=config.seed,
        slots=slots,
        host_rows=rows,
        mask_share=config.data.mask_share,
      ) as batches,
      jax.transfer_guard("disallow"),
    ):
      for step in range(start, config.train_steps + 1):
        # Order is law: evaluation and checkpoint see the state before this step's batch is fetched.
        last, stop = step == config.train_steps, preemption.stop()
        if step == start or due(step, config.log.every_steps) or due(step, config.checkpoint.every_steps):
          last = last or asked_to_end(workdir, step)
        look = (due(step, config.held_out.every_steps) or last) and not stop and log.held_out_at != step
        save = (due(step, config.checkpoint.every_steps) or last or stop) and step > start
        if look or save:
          log.flush()
        if log.bad_in_a_row >= config.max_bad_steps:
          raise UserError(
            f"loss or gradients were not finite in {log.bad_in_a_row} steps in a row up to step {step}; "
            "go on with a lower learning rate or another order of the data, e.g. "
            "--config.seed=1 --allow_change=seed"
          )
        if look and not evaluate(step, state.params):
          stop = save = True
        if save and step > start:
          checkpoints.save(step, state, log.notes())
        if look or save:
          log.restart_clock()
        if last or stop:
          break
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
          state, metrics = program.train_step(state, sharding.to_global(mesh, next(batches), config.batch_rows))
        log.later(step, metrics)  # fetches the metrics of the step before
        if step == start:
          jax.block_until_ready(metrics)
          log.first_step(step, compile_cache.seconds_since_start(), compile_cache.so_far())
          log.restart_clock()
        checkpoints.poll()
        watchdog.alive()
  finally:
    try:
      checkpoints.close()
    finally:
      log.close()
      watchdog.close()
  if stop:
    print(f"told to stop: saved step {step}; the same command goes on from there", file=sys.stderr, flush=True)
  elif step < config.train_steps:
    print(
      f"done: ended at step {step} because of {workdir / 'STOP.json'}; to go on, remove it and run the same command "
      "(and the evaluator with another rule, e.g. --config.stop.patience=0)",
      file=sys.stderr,
      flush=True,
    )
  return EXIT_RESTART if stop else EXIT_DONE


def read_stop(workdir: Path) -> dict | None:
  """STOP.json, {"step", "reason"}, or None. A user may write one too; what cannot be read is said and not obeyed."""
  path = workdir / "STOP.json"
  try:
    stop = json.loads(path.read_text())
    return {"step": int(stop["step"]), "reason": str(stop["reason"])}
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError):
    print(f'{path} is not obeyed: it must be {{"step": 0, "reason": "why"}}', file=sys.stderr, flush=True)
    return None


def asked_to_end(workdir: Path, step: int) -> bool:
  """Whether STOP.json ends the run at this step; the same on every process, all of which must call it.

  Obeyed from the step that was evaluated on: a run that fell back behind it makes those steps again first. A stopped
  run stays so until the file is removed.
  """

  def asked() -> int:
    stop = read_stop(workdir)
    return int(stop is not None and step >= stop["step"])

  with jax.transfer_guard("allow"):  # hosts agree by way of the devices
    return bool(hosts.on_first(asked))


def due(step: int, every_steps: int) -> bool:
  """Whether something done every so many steps (0: never) falls on this one."""
  return every_steps > 0 and step % every_steps == 0


def bits_per_nat(store, split: str) -> np.ndarray:
  """Factor from nats a masked token to bits a UTF-8 byte of the split's text, float64[G].

  The masked tokens' mean loss stands for every token's: comparable across vocabularies, not a code length.
  """
  counts = [store.manifest["languages"][name][split] for name in store.languages]
  return np.array([of["pieces"] / max(of["bytes"], 1) for of in counts]) / np.log(2)
