"""The step: (state, batch) -> (state, metrics), pure, and the state it begins from. No config, no data.

The gradients are each device's own, of its own rows, and meet once an update, after the last micro-batch.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from xlmr_jax.model.xlmr import XLMR
from xlmr_jax.training import losses, sharding


class TrainState(flax.struct.PyTreeNode):
  """All there is to a run between two steps; with the seed, everything to come follows from it."""

  step: jax.Array  # int32, steps made
  params: Any  # fp32
  opt_state: Any


def make_init(model: XLMR, tx) -> Callable[[jax.Array], TrainState]:
  """key -> the state before step 0. To be jitted with out_shardings, so that no device holds what is not its own."""

  def init(key):
    ids = jnp.zeros((1, 8), jnp.int32)
    return begin_with(tx)(model.clone(attention="xla", fuse=False).init(key, ids, ids)["params"])  # kernels want real rows

  return init


def begin_with(tx) -> Callable[[Any], TrainState]:
  """parameters -> the state before step 0."""
  return lambda params: TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


TIED = ("token_embedding", "head_bias")  # parameters whose gradients the loss makes itself


def make_gradients(model: XLMR, languages: int, chunk_bytes: int = losses.CHUNK_BYTES):
  """(params, batch, key, sums so far) -> those sums and this batch's: (gradients fp32, losses and weights per language).

  Of one device's rows. The tied embedding's gradient is added once: the head's, dense, and the tokens' on top of it.
  """

  def gradients(params, batch, key, sums):
    table, others = params["token_embedding"], {name: x for name, x in params.items() if name not in TIED}
    tied = {name: params[name] for name in TIED}

    def encode(others, tokens_BxLxD):
      return model.apply(
        {"params": others | tied}, batch["ids"], batch["positions"], False, tokens_BxLxD, batch["row"], rngs={"dropout": key}
      )

    with jax.named_scope("embedding"):
      tokens_BxLxD = table[batch["ids"]].astype(jnp.float32)
    h_BxPxD, pull_back = jax.vjp(encode, others, tokens_BxLxD)
    grads, of_languages = sums
    with jax.named_scope("vocabulary_loss"):
      losses_BxP, (d_h, d_table, d_bias) = losses.nll_with_gradients(
        h_BxPxD,
        table,
        tied["head_bias"],
        batch["labels"],
        batch["weights"],
        vocabulary_size=model.vocabulary_size,
        sums=tuple(grads[name] for name in TIED),
        chunk_bytes=chunk_bytes,
      )
    d_others, d_tokens = pull_back(d_h)
    with jax.named_scope("embedding"):
      # Scattered into what is there: an array of zeros as large as the table would be made, and added.
      tied_sums = {"token_embedding": d_table.at[batch["ids"]].add(d_tokens), "head_bias": d_bias}
    others_sums = jax.tree.map(jnp.add, {name: grads[name] for name in others}, d_others)
    found = losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)
    return others_sums | tied_sums, jax.tree.map(jnp.add, of_languages, found)

  return gradients


def make_train_step(
  model: XLMR,
  tx,
  schedule,
  *,
  seed: int,
  languages: int,
  micro_batches: int = 1,
  mesh: jax.sharding.Mesh | None = None,
  generator: str = "threefry2x32",
  reduce_dtype=jnp.float32,
  chunk_bytes: int = losses.CHUNK_BYTES,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
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
      grad_norm = optax.global_norm(grads)
      finite = jnp.isfinite(mean_loss) & jnp.isfinite(grad_norm)
      updates, opt_state = tx.update(grads, state.opt_state, state.params)
      lr = schedule(state.step + 1)
      params = jax.tree.map(lambda p, u: jnp.where(finite, p - lr * u, p), state.params, updates)
      opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), opt_state, state.opt_state)

    metrics = {
      "loss_sum": mean_loss * weight,
      "weight": weight,
      "grad_norm": grad_norm,
      "lr": lr,
      "finite": finite,
      "language_loss": sums[0] * weight,
      "language_weight": sums[1] * weight,
      "language_rows": jax.ops.segment_sum(jnp.ones_like(batch["language"]), batch["language"], languages),
    }
    return TrainState(state.step + 1, params, opt_state), metrics

  return train_step


def make_held_out_step(model: XLMR, languages: int, mesh: jax.sharding.Mesh | None = None):
  """(params, batch) -> (loss sums fp32[G], weights fp32[G]), without dropout."""

  def on_device(params, batch):
    if mesh is not None:
      params = sharding.gather(params, sharding.specs(params), mesh, model.dtype)
    h_BxPxD = model.apply({"params": params}, batch["ids"], batch["positions"])
    losses_BxP, _ = losses.nll_with_gradients(
      h_BxPxD,
      params["token_embedding"],
      params["head_bias"],
      batch["labels"],
      batch["weights"],
      vocabulary_size=model.vocabulary_size,
      sums=None,
    )
    sums = losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)
    return sums if mesh is None else jax.lax.psum(sums, sharding.BATCH_AXES)

  if mesh is None:
    return on_device
  return lambda params, batch: sharding.on_each_device(on_device, mesh, params, gives_grads=False)(params, batch)
