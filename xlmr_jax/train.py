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

from xlmr_jax import attention, hosts, losses, optimizer, sharding, stopping
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


def build_model(config: ConfigDict, vocabulary_size: int, mesh: jax.sharding.Mesh | None = None,
                platform: str | None = None) -> XLMR:
  """The model of config.model: for the arrays of one device, with the platform's kernels (None: JAX's default backend's).

  mesh: for global arrays instead, which XLA divides; activations are constrained to lie by rows. No kernels then.
  """
  model, constrain = config.model, lambda x: x
  if model.hidden % model.heads:
    raise UserError(f"config.model.hidden={model.hidden} does not divide into config.model.heads={model.heads}")
  platform = platform or jax.default_backend()
  try:
    kernel = attention.choose(model.attention, platform=platform, seq_len=model.max_positions - 2,
                              width=model.hidden // model.heads, rate=model.attention_dropout)
  except ValueError as error:
    raise UserError(str(error)) from None
  if mesh is not None:
    rows = sharding.batch_sharding(mesh)
    kernel, constrain = "xla", lambda x: jax.lax.with_sharding_constraint(x, rows)
  return XLMR(
    vocabulary_size=vocabulary_size, layers=model.layers, hidden=model.hidden, heads=model.heads, ffn=model.ffn,
    max_positions=model.max_positions, dropout=model.dropout, attention_dropout=model.attention_dropout,
    dropout_bits="key" if model.dropout_bits == "rbg" else "hash", isolate_documents=model.isolate_documents,
    pre_norm=model.pre_norm, init_std=model.init_std, dtype=jnp.dtype(model.dtype), remat=model.remat,
    unroll_layers=model.unroll_layers, attention=kernel, interpret=platform != "tpu", constrain=constrain,
    fuse=mesh is None and model.dropout_bits == "hash" and model.fuse in ("on", *(["auto"] if platform == "tpu" else [])))


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
    return begin_with(tx)(model.clone(attention="xla", fuse=False).init(key, ids, ids)["params"])  # kernels want real rows

  return init


def begin_with(tx) -> Callable[[Any], TrainState]:
  """parameters -> the state before step 0."""
  return lambda params: TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


# --- the step ----------------------------------------------------------------------------------------------------


TIED = ("token_embedding", "head_bias")  # parameters whose gradients the loss makes itself


def make_gradients(model: XLMR, languages: int, chunk_bytes: int = losses.CHUNK_BYTES):
  """(params, batch, key, sums so far) -> those sums and this batch's: (gradients fp32, losses and weights per language).

  Of one device's rows. The tied embedding's gradient is added once: the head's, dense, and the tokens' on top of it.
  """

  def gradients(params, batch, key, sums):
    table, others = params["token_embedding"], {name: x for name, x in params.items() if name not in TIED}
    tied = {name: params[name] for name in TIED}

    def encode(others, tokens_BxLxD):
      return model.apply({"params": others | tied}, batch["ids"], batch["positions"], False, tokens_BxLxD, batch["row"],
                         rngs={"dropout": key})

    with jax.named_scope("embedding"):
      tokens_BxLxD = table[batch["ids"]].astype(jnp.float32)
    h_BxPxD, pull_back = jax.vjp(encode, others, tokens_BxLxD)
    grads, of_languages = sums
    with jax.named_scope("vocabulary_loss"):
      losses_BxP, (d_h, d_table, d_bias) = losses.nll_with_gradients(
        h_BxPxD, table, tied["head_bias"], batch["labels"], batch["weights"], vocabulary_size=model.vocabulary_size,
        sums=tuple(grads[name] for name in TIED), chunk_bytes=chunk_bytes)
    d_others, d_tokens = pull_back(d_h)
    with jax.named_scope("embedding"):
      # Scattered into what is there: an array of zeros as large as the table would be made, and added.
      tied_sums = {"token_embedding": d_table.at[batch["ids"]].add(d_tokens), "head_bias": d_bias}
    others_sums = jax.tree.map(jnp.add, {name: grads[name] for name in others}, d_others)
    found = losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)
    return others_sums | tied_sums, jax.tree.map(jnp.add, of_languages, found)

  return gradients


def make_train_step(model: XLMR, tx, schedule, *, seed: int, languages: int, micro_batches: int = 1,
                    mesh: jax.sharding.Mesh | None = None, generator: str = "threefry2x32", reduce_dtype=jnp.float32,
                    chunk_bytes: int = losses.CHUNK_BYTES) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  """(state, batch) -> (state, metrics), pure. Metrics are sums and weights; a non-finite update is not made.

  batch: the global batch, ids int32[B, L], positions and labels int32[B, P], weights fp32[B, P], language int32[B].
  mesh: the gradients are then each device's own, of its own rows, and meet once, after the last micro-batch; None: one
  device. generator: of dropout keys, by jax.random.key's name for it. reduce_dtype: of gradients on the network.
  chunk_bytes: of logits, as in losses.
  """
  of_batch = make_gradients(model, languages, chunk_bytes)

  def on_device(params, batch, key):
    """Sums of gradients and losses over all devices' rows, the gradients in parts as params are."""
    if mesh is not None:
      specs = sharding.specs(params)
      params = sharding.gather(params, specs, mesh, model.dtype)
      key = jax.random.fold_in(key, jax.lax.axis_index(sharding.BATCH_AXES)) if generator == "rbg" else key
    sums = (jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params), (jnp.zeros((languages,)),) * 2)
    if micro_batches == 1:
      sums = of_batch(params, batch, key, sums)
    else:
      split = jax.tree.map(lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), batch)
      # One key for all: masks follow from the row's number, or, from a generator, from the micro-batch's too.
      key_of = lambda i: jax.random.fold_in(key, i) if generator == "rbg" else key  # noqa: E731
      add = lambda sums, x: (of_batch(params, x[0], key_of(x[1]), sums), None)  # noqa: E731
      sums, _ = jax.lax.scan(add, sums, (split, jnp.arange(micro_batches)))
    if mesh is None:
      return sums
    with jax.named_scope("reduce"):
      return sharding.reduce(sums[0], specs, mesh, reduce_dtype), jax.lax.psum(sums[1], sharding.BATCH_AXES)

  def train_step(state, batch):
    # The key follows from (seed, step); the loss is divided once, by the weight of the whole batch.
    key = jax.random.fold_in(jax.random.key(seed, impl=generator), state.step)
    weight, rows = batch["weights"].sum(), batch["ids"].shape[0]
    shares = batch | {"weights": batch["weights"] / jnp.maximum(weight, 1.0), "row": jnp.arange(rows, dtype=jnp.uint32)}
    spread = on_device if mesh is None else sharding.on_each_device(on_device, mesh, state.params, gives_grads=True)
    grads, sums = spread(state.params, shares, key)
    mean_loss = sums[0].sum()

    with jax.named_scope("optimizer"):
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


def make_held_out_step(model: XLMR, languages: int, mesh: jax.sharding.Mesh | None = None):
  """(params, batch) -> (loss sums fp32[G], weights fp32[G]), without dropout."""

  def on_device(params, batch):
    if mesh is not None:
      params = sharding.gather(params, sharding.specs(params), mesh, model.dtype)
    h_BxPxD = model.apply({"params": params}, batch["ids"], batch["positions"])
    losses_BxP, _ = losses.nll_with_gradients(
      h_BxPxD, params["token_embedding"], params["head_bias"], batch["labels"], batch["weights"],
      vocabulary_size=model.vocabulary_size, sums=None)
    sums = losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)
    return sums if mesh is None else jax.lax.psum(sums, sharding.BATCH_AXES)

  if mesh is None:
    return on_device
  return lambda params, batch: sharding.on_each_device(on_device, mesh, params, gives_grads=False)(params, batch)


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
  platform = mesh.devices.flat[0].platform
  model = build_model(config, vocabulary_size, platform=platform)
  tx, schedule = build_optimizer(config)
  init = make_init(model, tx)
  abstract = jax.eval_shape(lambda: init(jax.random.key(0)))  # no array: the devices may not be there
  shardings = sharding.state_shardings(mesh, abstract)
  by_rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  several = mesh if mesh.size > 1 else None
  return Program(
    model, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
    init=jax.jit(init, out_shardings=shardings),
    begin_with=jax.jit(begin_with(tx), out_shardings=shardings),
    train_step=jax.jit(
      make_train_step(model, tx, schedule, seed=config.seed, languages=languages,
                      micro_batches=micro_batches_of(config, mesh.size),
                      mesh=several, generator="rbg" if config.model.dropout_bits == "rbg" else "threefry2x32",
                      reduce_dtype=jnp.dtype(config.mesh.reduce_dtype),
                      chunk_bytes=losses.TPU_CHUNK_BYTES if platform == "tpu" else losses.CHUNK_BYTES),
      in_shardings=(shardings, by_rows), out_shardings=(shardings, whole), donate_argnums=0),
    held_out_step=jax.jit(make_held_out_step(model, languages, several),
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
  micro_batches_of(config, mesh.size)
  return mesh


def micro_batches_of(config: ConfigDict, devices: int) -> int:
  """Into how many parts a batch goes; UserError if it does not divide."""
  rows, micro_batches = config.rows_per_device, config.micro_batches
  if rows:
    if config.batch_rows % (rows * devices):
      raise UserError(f"config.batch_rows={config.batch_rows} is no multiple of config.rows_per_device={rows} on {devices} "
                      "devices; choose other rows_per_device, or 0 and config.micro_batches")
    return config.batch_rows // (rows * devices)
  if config.batch_rows % (micro_batches * devices):
    raise UserError(f"config.batch_rows={config.batch_rows} does not divide into config.micro_batches={micro_batches} over "
                    f"{devices} devices")
  return micro_batches


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
  look_rows = config.batch_rows // micro_batches_of(config, mesh.size)  # of a held-out batch: what memory allows
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
