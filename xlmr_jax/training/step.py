"""The step: (state, batch) -> (state, metrics), pure, and the state it begins from. No config, no data.

Gradients are each device's own, of its own rows, and meet once per update, after the last micro-batch. Letters as in
model/xlmr.py, and G languages.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from xlmr_jax.model.build import initial_params
from xlmr_jax.model.head import BIAS, TABLE, MaskedLanguageModel
from xlmr_jax.training import losses, sharding
from xlmr_jax.training.optimizer import Schedule, apply_if_finite

Batch = dict[str, jax.Array]
Sides = Sequence[tuple[int, int]]  # as training/model_languages.py has them


class TrainState(flax.struct.PyTreeNode):
  """All that there is to a run between two steps; with the seed, everything to come follows from it."""

  step: jax.Array  # int32, steps made
  params: Any  # fp32
  opt_state: Any


class Sums(NamedTuple):
  """What the micro-batches of one device add up to."""

  grads: Any  # fp32, of whole parameters
  loss_G: jax.Array  # weighted losses per language
  weight_G: jax.Array


def begin_with(tx: optax.GradientTransformation) -> Callable[[Any], TrainState]:
  """parameters -> the state before step 0."""
  return lambda params: TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def make_init(model: MaskedLanguageModel, tx: optax.GradientTransformation) -> Callable[[jax.Array], TrainState]:
  """key -> the state before step 0. To be jitted with out_shardings, so that no device holds what is not its own."""
  return lambda key: begin_with(tx)(initial_params(model, key))


def languages_of(model: MaskedLanguageModel, sides: Sides | None, batch: Batch) -> dict[str, Any]:
  """What encode() of a model takes beside the ids: {"languages_Bx2": int32[B, 2]}, or nothing if it does not look at them.

  sides: per language of the rows, those of its two texts.
  """
  if not model.encoder.takes_languages:
    return {}
  if sides is None:
    raise ValueError("the encoder takes languages, and no sides are given")
  return {"languages_Bx2": jnp.asarray(sides, jnp.int32)[batch["language"]]}


def make_add_micro_batch(
  model: MaskedLanguageModel, languages: int, chunk_bytes: int = losses.CHUNK_BYTES, sides: Sides | None = None
):
  """(sums, params, batch, key) -> sums with one device's micro-batch added: its gradients and its losses per language.

  sides: see languages_of. The tied embedding gets two gradients: a dense one from the head, and a sparse one from the
  lookups, scattered into it.
  """

  def add_micro_batch(sums: Sums, params: Any, batch: Batch, key: jax.Array) -> Sums:
    tied = {name: params[name] for name in (TABLE, BIAS)}
    others = {name: x for name, x in params.items() if name not in tied}

    def head_vectors(others: Any, tokens_BxLxD: jax.Array) -> Any:
      variables, rngs, languages_Bx2 = {"params": others | tied}, {"dropout": key}, languages_of(model, sides, batch)
      return model.apply(
        variables, batch["ids"], batch["positions"], False, tokens_BxLxD, batch["row"], **languages_Bx2, rngs=rngs
      )

    with jax.named_scope("embedding"):
      tokens_BxLxD = tied[TABLE][batch["ids"]]
    h_BxPxD, pull_back = jax.vjp(head_vectors, others, tokens_BxLxD)
    with jax.named_scope("vocabulary_loss"):
      losses_BxP, d_h, d_table, d_bias = losses.nll_gradients(
        h_BxPxD, tied[TABLE], tied[BIAS], batch["labels"], batch["weights"], vocabulary_size=model.encoder.vocabulary_size,
        onto=(sums.grads[TABLE], sums.grads[BIAS]), chunk_bytes=chunk_bytes,
      )  # fmt: skip
    d_others, d_tokens = pull_back(d_h)
    with jax.named_scope("embedding"):
      # Scattered into what is there, because otherwise an array of zeros as large as the table would be made, and added.
      d_tied = {TABLE: d_table.at[batch["ids"]].add(d_tokens), BIAS: d_bias}
    grads = jax.tree.map(jnp.add, {name: sums.grads[name] for name in others}, d_others) | d_tied
    loss_G, weight_G = losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)
    return Sums(grads, sums.loss_G + loss_G, sums.weight_G + weight_G)

  return add_micro_batch


def normalised(batch: Batch, weight: jax.Array) -> Batch:
  """The batch with weights that sum to 1, so that losses and gradients are divided once, globally; and "row", uint32[B]."""
  rows = jnp.arange(batch["ids"].shape[0], dtype=jnp.uint32)
  return batch | {"weights": batch["weights"] / jnp.maximum(weight, 1.0), "row": rows}


def make_train_step(
  model: MaskedLanguageModel, tx: optax.GradientTransformation, schedule: Schedule, *, mesh: jax.sharding.Mesh,
  rules: sharding.Rules, seed: int, languages: int, micro_batches: int = 1, reduce_dtype: Any = jnp.float32,
  chunk_bytes: int = losses.CHUNK_BYTES, sides: Sides | None = None,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:  # fmt: skip
  """(state, batch, limit) -> (state, metrics), pure. Metrics are sums and weights.

  An update that is not finite, or whose gradient has a norm above `limit` (fp32 scalar; inf: no limit), is not made.

  batch: the global batch, ids int32[B, L], positions and labels int32[B, P], weights fp32[B, P], language int32[B].
  rules: how parameters are divided over the mesh. reduce_dtype: of gradients on the network. chunk_bytes: of logits, as in
  losses. sides: see languages_of.
  """
  add_micro_batch = make_add_micro_batch(model, languages, chunk_bytes, sides)
  dropout_bits = model.encoder.dropout_bits
  generator = "rbg" if dropout_bits == "rbg" else "threefry2x32"

  def own_key(key: jax.Array, number: jax.Array) -> jax.Array:
    """Hashed masks follow from the row's number, so that all share one key; a generator needs a key per device and part."""
    return jax.random.fold_in(key, number) if dropout_bits == "rbg" else key

  def on_device(params: Any, batch: Batch, key: jax.Array):
    """Sums of gradients and losses over all devices' rows, the gradients divided as params are."""
    specs = sharding.specs(params, rules)
    whole = sharding.gather(params, specs, mesh, model.encoder.dtype)
    key = own_key(key, jax.lax.axis_index(sharding.BATCH_AXES)) if mesh.size > 1 else key
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), whole)
    sums = Sums(zeros, jnp.zeros((languages,)), jnp.zeros((languages,)))
    if micro_batches == 1:
      sums = add_micro_batch(sums, whole, batch, key)
    else:
      parts = jax.tree.map(lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), batch)
      numbered = (parts, jnp.arange(micro_batches))
      sums, _ = jax.lax.scan(lambda sums, x: (add_micro_batch(sums, whole, x[0], own_key(key, x[1])), None), sums, numbered)
    with jax.named_scope("reduce"):
      grads = sharding.reduce(sums.grads, specs, mesh, reduce_dtype)
      return grads, jax.lax.psum((sums.loss_G, sums.weight_G), sharding.BATCH_AXES)

  def train_step(state: TrainState, batch: Batch, limit: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(seed, impl=generator), state.step)
    weight = batch["weights"].sum()
    specs = sharding.specs(state.params, rules)
    sharded = sharding.on_each_device(on_device, mesh, specs, (specs, PartitionSpec()))
    grads, (loss_G, weight_G) = sharded(state.params, normalised(batch, weight), key)
    mean_loss = loss_G.sum()
    with jax.named_scope("optimizer"):
      new = apply_if_finite(tx, schedule, state.step, state.params, state.opt_state, grads, mean_loss, limit=limit)
    rows_G = jax.ops.segment_sum(jnp.ones_like(batch["language"]), batch["language"], languages)
    metrics = {"loss_sum": mean_loss * weight, "weight": weight, "grad_norm": new.grad_norm, "lr": new.lr,
               "made": new.made, "language_loss": loss_G * weight, "language_weight": weight_G * weight,
               "language_rows": rows_G}  # fmt: skip
    return TrainState(state.step + 1, new.params, new.opt_state), metrics

  return train_step


def make_held_out_step(
  model: MaskedLanguageModel, languages: int, mesh: jax.sharding.Mesh, rules: sharding.Rules, sides: Sides | None = None
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
  """(params, batch) -> (loss sums fp32[G], weights fp32[G]), without dropout. sides: see languages_of."""

  def on_device(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    params = sharding.gather(params, sharding.specs(params, rules), mesh, model.encoder.dtype)
    languages_Bx2 = languages_of(model, sides, batch)
    h_BxPxD: Any = model.apply({"params": params}, batch["ids"], batch["positions"], **languages_Bx2)
    losses_BxP = losses.nll(
      h_BxPxD, params[TABLE], params[BIAS], batch["labels"], batch["weights"],
      vocabulary_size=model.encoder.vocabulary_size,
    )  # fmt: skip
    sums = losses.sums_by_language(losses_BxP, batch["weights"], batch["language"], languages)
    return jax.lax.psum(sums, sharding.BATCH_AXES)

  def held_out_step(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    specs = sharding.specs(params, rules)
    return sharding.on_each_device(on_device, mesh, specs, PartitionSpec())(params, batch)

  return held_out_step
