"""Fine-tuning of one task: batches, training and prediction, on the same mesh and sharding rules as pretraining.

The encoder gets a fresh head, both are trained by the task's recipe, and the arrays of each evaluation language go
through the result. Everything follows from (params, task, seed): the same call gives the same scores.
"""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.evaluation.finetune_step import State, make_finetune_step, make_predict, task_head
from xlmr_jax.evaluation.tasks import KINDS
from xlmr_jax.evaluation.tasks.registry import Task
from xlmr_jax.ids import PAD
from xlmr_jax.model.build import build_model, choose_model_ops, family_of
from xlmr_jax.model.head import MaskedLanguageModel
from xlmr_jax.model.task_head import SENTENCE, SPAN
from xlmr_jax.progress import Progress
from xlmr_jax.training import sharding
from xlmr_jax.training.model_languages import has_embeddings, number_in
from xlmr_jax.training.optimizer import adamw_without_rate, polynomial_schedule

SHORTEST = 32  # tokens of the shortest rows that prediction is compiled for
WIDTH = 16  # tokens: rows of fine-tuning are cut to multiples of it, or to the longest row that a task allows
MOST_WIDTHS = 4  # programs that fine-tuning is compiled for
STEPS_PER_WIDTH = 200  # steps that pay for a further program: compiling one takes as long as tens of them (ours)
LEAST_GAIN = 0.05  # share of the tokens that a further program must save (ours)

Arrays = dict[str, np.ndarray]


def row_lengths(max_len: int) -> list[int]:
  """Lengths of rows that prediction is compiled for: SHORTEST and its doubles below max_len, and max_len; shortest first."""
  lengths = [max_len]
  while (double := SHORTEST << (len(lengths) - 1)) < max_len:
    lengths.insert(-1, double)
  return lengths


def training_lengths(ids: np.ndarray, batch: int, steps: int) -> list[int]:
  """The lengths of rows that fine-tuning is compiled for, at most MOST_WIDTHS, the longest last; chosen from the data.

  ids: int32[n, L] of all rows that are trained on. batch: rows of a step, whose longest decides the length that all have.
  steps: that are made, because a few do not pay for several programs. Of the multiples of WIDTH those are chosen with which
  the expected number of tokens of a step is least.
  """
  max_len = ids.shape[1]
  longest = np.sort((ids != PAD).sum(axis=1))
  candidates = [*range(WIDTH, max_len, WIDTH), max_len]
  last = next(width for width in candidates if width >= longest[-1])
  # Probability that all rows of a batch fit into a width.
  fits = {width: (np.searchsorted(longest, width, side="right") / len(longest)) ** batch for width in candidates}

  def tokens(widths: tuple[int, ...]) -> float:
    shares = np.diff([0.0, *(fits[width] for width in widths)])
    return float(shares @ np.array(widths))

  best: tuple[int, ...] = (last,)
  for count in range(1, min(MOST_WIDTHS, 1 + steps // STEPS_PER_WIDTH)):
    shorter = (width for width in candidates if width < last)
    chosen = min(((*few, last) for few in itertools.combinations(shorter, count)), key=tokens, default=best)
    if tokens(chosen) > (1 - LEAST_GAIN) * tokens(best):
      break
    best = chosen
  return list(best)


def take(arrays: Arrays, rows: np.ndarray, size: int, lengths: Sequence[int] = ()) -> Arrays:
  """These rows of the arrays, cut to the shortest length that holds them all, filled up to `size` rows of weight 0.

  lengths: to choose from, row_lengths of the arrays' by default.
  """
  ids = arrays["ids"][rows]
  longest = int((ids != PAD).sum(axis=1).max(initial=1))
  length = next(n for n in lengths or row_lengths(ids.shape[1]) if n >= longest)
  batch = {"weight": np.pad(np.ones(len(rows), np.float32), (0, size - len(rows)))}
  for name, array in arrays.items():
    if name in ("ids", "label", "start", "end", "language"):
      array = array[rows]
      array = array[:, :length] if array.ndim == 2 else array
      batch[name] = np.concatenate([array, np.repeat(array[:1], size - len(rows), axis=0)])
  return batch


def training_rows(count: int, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
  """Rows of each step, int64[batch]: epoch after epoch without repetition, each in its own order."""
  rows = np.empty(0, np.int64)
  epoch = 0
  for _ in range(steps):
    while rows.size < batch:
      rows = np.concatenate([rows, np.random.default_rng([seed, epoch]).permutation(count)])
      epoch += 1
    yield rows[:batch]
    rows = rows[batch:]


@functools.cache
def _say_once(line: str) -> None:
  """Most lengths and tasks run with the same kernels."""
  print(line, file=sys.stderr, flush=True)


class Finetuner:
  """One task on encoders of one shape: compiled once for all checkpoints, seeds and languages."""

  def __init__(
    self, config: ConfigDict, vocabulary_size: int, task: Task, mesh: jax.sharding.Mesh,
    pooler: dict[str, np.ndarray] | None = None,
  ):  # fmt: skip
    """config: of the run; its model, and which kernels it allows.

    pooler: {"kernel" fp32 [D, D], "bias" fp32 [D]}, with which the head for texts of a BERT begins; None draws it.
    """
    recipe, family = task.recipe, family_of(config)
    if recipe.batch % mesh.size:
      recipe = dataclasses.replace(recipe, batch=-(-recipe.batch // mesh.size) * mesh.size)
    if recipe.max_len > family.max_seq_len(config.model):
      recipe = dataclasses.replace(recipe, max_len=family.max_seq_len(config.model))
    self.task = dataclasses.replace(task, recipe=recipe)
    self.mesh, self._hidden = mesh, config.model.hidden
    self._rules, self._pooled = family.sharding, family.pooled
    self._languages = tuple(config.model.languages) if has_embeddings(config) else ()
    self._pooler = pooler if family.pooled and task.head == SENTENCE else None
    platform = mesh.devices.flat[0].platform

    @functools.cache
    def model_for(length: int) -> MaskedLanguageModel:
      # A kernel that the run's config names may not take the shorter rows of a task; then the plain form runs.
      choice = config.copy_and_resolve_references()
      choice.model.attention = "xla" if config.model.attention == "xla" else "auto"
      choice.model.fuse = "off" if config.model.fuse == "off" else "auto"
      ops, chosen = choose_model_ops(choice, length, platform)
      _say_once(f"fine-tuning runs with {chosen}")
      return build_model(config, vocabulary_size, ops)

    self._model_for = model_for
    self._programs: dict[int, tuple] = {}
    self._predict = jax.jit(make_predict(model_for, self.task, mesh, self._rules))

  def steps(self, rows: int) -> int:
    """Updates that the recipe makes on so many rows."""
    recipe = self.task.recipe
    steps = max(1, math.ceil(rows * recipe.epochs / recipe.batch))
    return min(steps, recipe.max_steps) if recipe.max_steps else steps

  def program(self, steps: int) -> tuple[Callable[..., State], Any]:
    """(init, jitted step) for a schedule of `steps` updates."""
    if steps not in self._programs:
      recipe = self.task.recipe
      tx = adamw_without_rate(
        b1=0.9, b2=0.999, eps=1e-8, weight_decay=recipe.weight_decay, decay_pattern=r"(kernel|embedding)$", clip_norm=1.0
      )
      schedule = polynomial_schedule(peak_lr=recipe.lr, warmup_steps=round(recipe.warmup * steps), train_steps=steps)
      head = task_head(self.task, 0.0)

      def init(params: Any, key: jax.Array) -> State:
        drawn = head.init(key, jnp.zeros((1, 2, self._hidden)))["params"]
        brought = {"dense": jax.tree.map(jnp.asarray, self._pooler)} if self._pooler else {}
        params = {"encoder": params, "head": {**drawn, **brought}}
        return State(jnp.zeros((), jnp.int32), params, tx.init(params))

      step = make_finetune_step(self._model_for, self.task, tx, schedule, self.mesh, self._rules, self._pooled)
      self._programs[steps] = init, jax.jit(step, donate_argnums=0)
    return self._programs[steps]

  def train(self, params: Any, arrays: Arrays, seed: int, what: str = "") -> tuple[dict[str, Any], float]:
    """({"encoder", "head"} trained on arrays, mean loss of the last tenth of the steps).

    params: of a pretrained model. what: names the work in the lines that tell how far it is.
    """
    count, recipe = len(arrays["ids"]), self.task.recipe
    steps = self.steps(count)
    lengths = training_lengths(arrays["ids"], recipe.batch, steps)
    init, step = self.program(steps)
    key = jax.random.key(seed)
    shapes = sharding.state_shardings(self.mesh, jax.eval_shape(init, params, key), self._rules)
    params = jax.device_put(params, shapes.params["encoder"])  # A checkpoint is read to one device.
    state = jax.jit(init, out_shardings=shapes)(params, key)  # This copies, because the step gives its argument away.
    losses: list[jax.Array] = []
    training = Progress(f"{what or self.task.name}: training", steps, "steps", compiles=True)
    with jax.set_mesh(self.mesh), training:
      for rows in training_rows(count, recipe.batch, steps, seed):
        batch = sharding.to_global(self.mesh, take(arrays, rows, recipe.batch, lengths), recipe.batch)
        state, loss = step(state, batch, key)
        losses.append(loss)
        # One step ahead, because many queued collectives can hang XLA's CPU devices.
        fetched = jax.block_until_ready(losses[-2:][0])
        training.add(detail=f"loss {float(fetched):.3f}")
    return state.params, float(np.mean(jax.device_get(losses[-max(1, steps // 10) :])))

  def predict(self, params: dict[str, Any], arrays: Arrays) -> tuple[Any, bool]:
    """(outputs for the task's decode, rows in the order of arrays; whether all logits are finite)."""
    ids, size = arrays["ids"], self.task.recipe.batch * 2
    order = np.argsort((ids != PAD).sum(axis=1), kind="stable")  # rows of one length together
    parts, all_finite = [], True
    with jax.set_mesh(self.mesh):
      for first in range(0, len(order), size):
        rows = order[first : first + size]
        batch = take({name: arrays[name] for name in ("ids", "language") if name in arrays}, rows, size)
        del batch["weight"]
        outputs, finite = jax.device_get(self._predict(params, sharding.to_global(self.mesh, batch, size)))
        all_finite = all_finite and bool(finite[: len(rows)].all())
        parts.append((rows, outputs))

    def join(*pieces: np.ndarray) -> np.ndarray:
      # Word and span outputs are as long as their batch was; what was cut off are pads.
      width = (ids.shape[1],) if self.task.head != SENTENCE else pieces[0].shape[1:]
      whole = np.full((len(ids), *width), -1e30 if self.task.head == SPAN else 0, pieces[0].dtype)
      for (rows, _), piece in zip(parts, pieces):
        whole[rows, : piece.shape[1]] = piece[: len(rows)]
      return whole

    return jax.tree.map(join, *(outputs for _, outputs in parts)), all_finite

  def encode(self, examples: list, tokenizer: Any, language: str = "") -> Arrays:
    """The arrays of examples, as the module of the task's kind makes them.

    For a model with language embeddings they tell the place of `language` among them too. Raises UserError: it has none.
    """
    arrays = KINDS[self.task.head].encode(self.task, examples, tokenizer)
    if not self._languages:
      return arrays
    number = number_in(self._languages, language, self.task.name, "leave it out by --config.evaluate.languages")
    return arrays | {"language": np.full(len(arrays["ids"]), number, np.int32)}

  def score(self, params: dict[str, Any], examples: list, arrays: Arrays, language: str) -> dict[str, float]:
    """{metric: value} of a trained task on examples and their arrays; NaN where a logit is not finite.

    Such logits decode to the first class, which has a share of the examples and so a score.
    """
    kind = KINDS[self.task.head]
    outputs, all_finite = self.predict(params, arrays)
    if not all_finite:
      return dict.fromkeys(self.task.metrics, math.nan)
    return kind.score(self.task, examples, kind.decode(self.task, examples, arrays, outputs), language)
