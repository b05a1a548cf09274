"""The step of fine-tuning and the prediction, on the same mesh, sharding rules and kernels as pretraining.

Letters as in model/xlmr.py, and C classes of a head.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from xlmr_jax.evaluation.tasks.registry import Task
from xlmr_jax.ids import PAD
from xlmr_jax.model.head import MaskedLanguageModel
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS, TaskHead
from xlmr_jax.training import sharding
from xlmr_jax.training.optimizer import Schedule, apply_if_finite

Batch = dict[str, jax.Array]
# Rows of L tokens -> the model with the operations that suit them: a kernel may take some lengths and not others.
ModelFor = Callable[[int], MaskedLanguageModel]


class State(NamedTuple):
  """Encoder and head, {"encoder", "head"}, their optimizer state and the number of steps made."""

  step: jax.Array
  params: dict[str, Any]
  opt_state: Any


def task_head(task: Task, rate: float, pooled: bool = False) -> TaskHead:
  """The head that a task needs. rate: of its dropout. pooled: whether it is BERT's, as the family of the encoder tells."""
  return TaskHead(task.head, 2 if task.head == SPAN else max(len(task.labels), 1), rate, pooled=pooled)


def loss_sum(task: Task, logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """(loss sum, weight) of a batch; the caller divides once. Equal to transformers' mean loss where rows count fully.

  batch: "weight" fp32[B] (0: a row that fills up the batch), and "label" int32[B], fp32[B] or int32[B, L] (-1: no
  label), or "start" and "end" int32[B].
  """
  if task.head == SPAN:
    inside = jnp.where(batch["ids"] != PAD, 0.0, -1e30)

    def nll(logits_BxL: jax.Array, position_B: jax.Array) -> jax.Array:
      return -jnp.take_along_axis(jax.nn.log_softmax(logits_BxL), position_B[:, None], axis=-1)[:, 0]

    losses_B = (nll(logits[..., 0] + inside, batch["start"]) + nll(logits[..., 1] + inside, batch["end"])) / 2
    return (losses_B * batch["weight"]).sum(), batch["weight"].sum()
  if not task.labels:
    return (jnp.square(logits[:, 0] - batch["label"]) * batch["weight"]).sum(), batch["weight"].sum()
  labels = batch["label"]
  weights = batch["weight"] if task.head == SENTENCE else batch["weight"][:, None] * (labels >= 0)
  losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
  return (losses * weights).sum(), weights.sum()


def languages_of(batch: Batch) -> dict[str, Any]:
  """What encode() takes beside the ids: both texts of a pair are in the row's language. Nothing where no row tells one."""
  return {"languages_Bx2": jnp.stack([batch["language"]] * 2, axis=1)} if "language" in batch else {}


def make_finetune_step(
  model_for: ModelFor, task: Task, tx: optax.GradientTransformation, schedule: Schedule, mesh: Mesh, rules: sharding.Rules,
  pooled: bool = False,
) -> Callable[[State, Batch, jax.Array], tuple[State, jax.Array]]:  # fmt: skip
  """(state, batch, key) -> (state, mean loss), pure. batch: global, as for loss_sum, with "ids" int32[B, L].

  For a model with language embeddings it has "language" int32[B] too, the place of a text's language among them.
  pooled: of task_head.
  """
  frozen = task.recipe.frozen

  def is_frozen(path: str) -> bool:
    return bool(frozen) and path.startswith("encoder/") and bool(re.search(frozen, path.removeprefix("encoder/")))

  def on_device(params: Any, batch: Batch, key: jax.Array):
    """(gradients divided as params are, mean loss over all devices' rows)."""
    model, specs = model_for(batch["ids"].shape[1]), sharding.specs(params, rules)
    head = task_head(task, model.encoder.dropout, pooled)

    def mean_loss(params: Any) -> jax.Array:
      """This device's part of the mean loss."""
      params = jax.tree_util.tree_map_with_path(
        lambda path, p: jax.lax.stop_gradient(p) if is_frozen(sharding.path_of(path)) else p, params
      )
      encoder_key, head_key = jax.random.split(key)
      x_BxLxD = model.apply(
        {"params": params["encoder"]},
        batch["ids"],
        False,
        None,
        batch["row"],
        method="encode",
        **languages_of(batch),
        rngs={"dropout": encoder_key},
      )
      logits: Any = head.apply({"params": params["head"]}, x_BxLxD, False, batch["row"], rngs={"dropout": head_key})
      total, weight = loss_sum(task, logits, batch)
      return total / jnp.maximum(jax.lax.psum(jax.lax.stop_gradient(weight), sharding.BATCH_AXES), 1.0)

    loss, grads = jax.value_and_grad(mean_loss)(sharding.gather(params, specs, mesh, model.encoder.dtype))
    return sharding.reduce(grads, specs, mesh, jnp.float32), jax.lax.psum(loss, sharding.BATCH_AXES)

  def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, jax.Array]:
    batch = batch | {"row": jnp.arange(batch["ids"].shape[0], dtype=jnp.uint32)}
    specs = sharding.specs(state.params, rules)
    sharded = sharding.on_each_device(on_device, mesh, specs, (specs, PartitionSpec()))
    grads, loss = sharded(state.params, batch, jax.random.fold_in(key, state.step))
    new = apply_if_finite(tx, schedule, state.step, state.params, state.opt_state, grads, loss, is_frozen)
    return State(state.step + 1, new.params, new.opt_state), loss

  return step


def make_predict(
  model_for: ModelFor, task: Task, mesh: Mesh, rules: sharding.Rules
) -> Callable[[dict[str, Any], Batch], Any]:
  """(params, batch) -> (what the task's decode takes: logits, best tags, or start and end logits; finite bool[B]).

  batch: {"ids" int32[B, L]} and, for a model with language embeddings, "language" int32[B]. finite: whether all logits of a
  row are finite, because the largest of NaNs is a class like any other.
  """
  head = task_head(task, 0.0)

  def on_device(params: Any, batch: Batch) -> Any:
    model = model_for(batch["ids"].shape[1])
    params = sharding.gather(params, sharding.specs(params, rules), mesh, model.encoder.dtype)
    x_BxLxD = model.apply({"params": params["encoder"]}, batch["ids"], True, method="encode", **languages_of(batch))
    logits: Any = head.apply({"params": params["head"]}, x_BxLxD, True)
    finite_B = jnp.isfinite(logits).all(axis=tuple(range(1, logits.ndim)))
    if task.head == WORDS:
      return logits.argmax(axis=-1).astype(jnp.int32), finite_B
    return ((logits[..., 0], logits[..., 1]) if task.head == SPAN else logits), finite_B

  def predict(params: dict[str, Any], batch: Batch) -> Any:
    specs, by_rows = sharding.specs(params, rules), PartitionSpec(sharding.BATCH_AXES)
    return sharding.on_each_device(on_device, mesh, specs, by_rows)(params, batch)

  return predict
