"""Pretraining, read top to bottom: the model, the state, the step, the loop. Here and in main.py configs are read."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax import compile_cache, hosts, losses, optimizer, sharding, stopping
from xlmr_jax.checkpoint import Checkpoints
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.logs import RunLog, flops_per_token
from xlmr_jax.model import XLMR, padded_vocabulary


class TrainState(flax.struct.PyTreeNode):
  """All there is to a run between two steps; with the seed, everything to come follows from it."""

  step: jax.Array  # int32, steps made
  params: Any  # fp32
  opt_state: Any


# --- from a config -----------------------------------------------------------------------------------------------


def build_model(config: ConfigDict, vocabulary_size: int, mesh: jax.sharding.Mesh | None = None) -> XLMR:
  """The model of config.model; with a mesh, its activations are constrained to lie by rows."""
  model = config.model
  if model.hidden % model.heads:
    raise UserError(f"config.model.hidden={model.hidden} does not divide into config.model.heads={model.heads}")
  constrain = lambda x: x  # noqa: E731
  if mesh is not None:
    rows = sharding.batch_sharding(mesh)
    constrain = lambda x: jax.lax.with_sharding_constraint(x, rows)  # noqa: E731
  return XLMR(
    vocabulary_size=vocabulary_size, layers=model.layers, hidden=model.hidden, heads=model.heads, ffn=model.ffn,
    max_positions=model.max_positions, dropout=model.dropout, attention_dropout=model.attention_dropout,
    isolate_documents=model.isolate_documents, init_std=model.init_std, dtype=jnp.dtype(model.dtype), remat=model.remat,
    unroll_layers=model.unroll_layers, constrain=constrain)


def build_optimizer(config: ConfigDict):
  """(optax transformation, schedule of steps made) of config.optimizer."""
  o = config.optimizer
  schedule = optimizer.polynomial_schedule(
    peak_lr=o.peak_lr, warmup_steps=o.warmup_steps, train_steps=config.train_steps, end_lr=o.end_lr, power=o.power)
  return optimizer.adamw(b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, decay_pattern=o.decay_pattern,
                         clip_norm=o.clip_norm), schedule


def make_init(model: XLMR, tx) -> Callable[[jax.Array], TrainState]:
  """key -> the state before step 0. To be jitted with out_shardings, so that no device holds what is not its own."""

  def init(key):
    ids = jnp.zeros((1, 8), jnp.int32)
    return begin_with(tx)(model.init(key, ids, ids)["params"])

  return init


def begin_with(tx) -> Callable[[Any], TrainState]:
  """parameters -> the state before step 0."""
  return lambda params: TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


# --- the step ----------------------------------------------------------------------------------------------------


def make_loss(model: XLMR, languages: int, batch_axes: tuple[str, ...]):
  """(params, batch, key or None) -> (loss sum, sums and weights per language)."""

  def loss(params, batch, key):
    rngs = {} if key is None else {"dropout": key}
    h_BxPxD = model.apply({"params": params}, batch["ids"], batch["positions"], key is None, rngs=rngs)
    total, losses_BxP = losses.mlm_loss(
      h_BxPxD, params["token_embedding"], params["head_bias"], batch["labels"], batch["weights"],
      vocabulary_size=model.vocabulary_size, batch_axes=batch_axes)
    return total, losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)

  return loss


def make_train_step(model: XLMR, tx, schedule, *, seed: int, languages: int, micro_batches: int = 1,
                    batch_axes: tuple[str, ...] = ()) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  """(state, batch) -> (state, metrics), pure. Metrics are sums and weights; a non-finite update is not made.

  batch: the global batch, ids int32[B, L], positions and labels int32[B, P], weights fp32[B, P], language int32[B].
  """
  loss = make_loss(model, languages, batch_axes)

  def train_step(state, batch):
    # The key follows from (seed, step); the loss is divided once, by the weight of the whole batch.
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    weight = batch["weights"].sum()
    batch = batch | {"weights": batch["weights"] / jnp.maximum(weight, 1.0)}

    def gradients(micro_batch, key):
      (mean_loss, sums), grads = jax.value_and_grad(loss, has_aux=True)(state.params, micro_batch, key)
      return mean_loss, sums, grads

    if micro_batches == 1:
      mean_loss, sums, grads = gradients(batch, key)
    else:
      # Every micro_batches-th row, so that each micro-batch lies over all devices as the batch does.
      split = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
      if batch_axes:
        split = jax.lax.with_sharding_constraint(split, jax.sharding.PartitionSpec(None, batch_axes))
      zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                           jax.eval_shape(gradients, jax.tree.map(lambda x: x[0], split), key))
      add = lambda total, x: (jax.tree.map(jnp.add, total, gradients(x[0], jax.random.fold_in(key, x[1]))), None)  # noqa: E731
      (mean_loss, sums, grads), _ = jax.lax.scan(add, zeros, (split, jnp.arange(micro_batches)))

    # Selected, never multiplied: 0 x NaN is NaN. Neither the parameters nor the moments see a bad step.
    grad_norm = optimizer.optax.global_norm(grads)
    finite = jnp.isfinite(mean_loss) & jnp.isfinite(grad_norm)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    lr = schedule(state.step + 1)
    params = jax.tree.map(lambda p, u: jnp.where(finite, p - lr * u, p), state.params, updates)
    opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), opt_state, state.opt_state)

    metrics = {"loss_sum": mean_loss * weight, "weight": weight, "grad_norm": grad_norm, "lr": lr, "finite": finite,
               "language_loss": sums[0] * weight, "language_weight": sums[1] * weight,
               "language_rows": jax.ops.segment_sum(jnp.ones_like(batch["language"]), batch["language"], languages)}
    return TrainState(state.step + 1, params, opt_state), metrics

  return train_step


def make_held_out_step(model: XLMR, languages: int, batch_axes: tuple[str, ...] = ()):
  """(params, batch) -> (loss sums fp32[G], weights fp32[G]), without dropout."""
  loss = make_loss(model, languages, batch_axes)
  return lambda params, batch: loss(params, batch, None)[1]


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
  model = build_model(config, vocabulary_size, mesh)
  tx, schedule = build_optimizer(config)
  init = make_init(model, tx)
  abstract = jax.eval_shape(lambda: init(jax.random.key(0)))  # no array: the devices may not be there
  shardings = sharding.state_shardings(mesh, abstract)
  by_rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  batch_axes = sharding.BATCH_AXES if mesh.size > 1 else ()
  return Program(
    model, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
    init=jax.jit(init, out_shardings=shardings),
    begin_with=jax.jit(begin_with(tx), out_shardings=shardings),
    train_step=jax.jit(
      make_train_step(model, tx, schedule, seed=config.seed, languages=languages, micro_batches=config.micro_batches,
                      batch_axes=batch_axes),
      in_shardings=(shardings, by_rows), out_shardings=(shardings, whole), donate_argnums=0),
    held_out_step=jax.jit(make_held_out_step(model, languages, batch_axes),
                          in_shardings=(shardings.params, by_rows), out_shardings=whole))


def abstract_batch(mesh: jax.sharding.Mesh, rows: int, seq_len: int, slots: int) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a global batch, as the input pipeline makes it."""
  by_rows = sharding.batch_sharding(mesh)
  of = lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=by_rows)  # noqa: E731
  return {"ids": of(jnp.int32, seq_len), "positions": of(jnp.int32, slots), "labels": of(jnp.int32, slots),
          "weights": of(jnp.float32, slots), "language": of(jnp.int32)}


# --- the loop ----------------------------------------------------------------------------------------------------


def mesh_of(config: ConfigDict) -> jax.sharding.Mesh:
  """The mesh of config.mesh over all devices; UserError if they do not divide the batch."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
  sharding.host_rows(mesh, config.batch_rows)
  if config.batch_rows % (config.micro_batches * mesh.size):
    raise UserError(f"config.batch_rows={config.batch_rows} does not divide into config.micro_batches="
                    f"{config.micro_batches} over {mesh.size} devices")
  return mesh


def train(config: ConfigDict, workdir: Path, store, preemption: hosts.Preemption,
          begin: Callable[[], None] = lambda: None, initial: Callable[[Any], Any] | None = None) -> int:
  """Trains config in workdir from its newest checkpoint, or from the start; returns the exit code.

  store: data.rows.RowStore. main.py has compared config and rows with the workdir's and between hosts. begin: called
  once nothing is left to refuse, before anything is written. initial: abstract parameters -> those before step 0, if they
  are not to be drawn from config.seed.
  """
  from xlmr_jax.data import masking, mixture, pipeline  # TensorFlow: kept out of what train_step's users import

  mesh = mesh_of(config)
  rows = sharding.host_rows(mesh, config.batch_rows)
  look_rows = config.batch_rows // config.micro_batches  # of a held-out batch: what memory allows
  slots = masking.slots_per_row(store.seq_len, config.data.mask_share)
  mix = mixture.Mixture(store.counts("train"), config.data.alpha, config.seed, languages=store.languages)
  languages = len(store.languages)

  program = build_program(config, mesh, vocabulary_size=store.vocabulary_size, languages=languages)

  begin()
  is_eligible = lambda step: stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps)  # noqa: E731
  checkpoints = Checkpoints(
    workdir / "checkpoints", keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every,
    is_eligible=is_eligible if config.evaluate.tasks else None, keep_unevaluated=config.evaluate.keep_unevaluated)
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
    workdir, start=start, notes=notes, train_steps=config.train_steps, every_steps=config.log.every_steps,
    languages=store.languages, shares=mix.shares, epochs=lambda step: mix.epochs(step * config.batch_rows),
    tokens_per_step=config.batch_rows * store.seq_len, tensorboard=config.log.tensorboard,
    flops_per_token=flops_per_token(
      layers=config.model.layers, hidden=config.model.hidden, ffn=config.model.ffn, seq_len=store.seq_len,
      vocabulary=padded_vocabulary(store.vocabulary_size), slots=slots))
  watchdog = hosts.Watchdog(config.watchdog_s)

  def evaluate(step, params) -> bool:
    """Held-out losses per language; False when told to stop before the end."""
    with pipeline.held_out_batches(
        store, batch_rows=look_rows, seed=config.seed, slots=slots, host_rows=sharding.host_rows(mesh, look_rows),
        max_rows_per_language=config.held_out.max_rows_per_language or None,
        mask_share=config.data.mask_share) as batches:
      sums = np.zeros((2, languages))
      for batch in batches:
        sums += np.stack(jax.device_get(program.held_out_step(params, sharding.to_global(mesh, batch, look_rows))))
        watchdog.alive()
        if preemption.stop():
          return False
    log.held_out(step, *sums, bits_per_nat(store, "held_out"))
    return True

  try:
    with jax.set_mesh(mesh), pipeline.train_batches(
        store, mix, batch_rows=config.batch_rows, start_step=start, seed=config.seed, slots=slots, host_rows=rows,
        mask_share=config.data.mask_share) as batches, jax.transfer_guard("disallow"):
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
          raise UserError(f"loss or gradients were not finite in {log.bad_in_a_row} steps in a row up to step {step}; "
                          "go on with a lower learning rate or another order of the data, e.g. "
                          "--config.seed=1 --allow_change=seed")
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
    print(f"done: ended at step {step} because of {workdir / 'STOP.json'}; to go on, remove it and run the same command "
          "(and the evaluator with another rule, e.g. --config.stop.patience=0)", file=sys.stderr, flush=True)
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
