"""Fine-tuning: one loop for every head, on the same mesh and sharding table as pretraining.

A task's examples become arrays (classification.py, tagging.py, question_answering.py), the encoder gets a fresh head,
both are trained by the task's recipe, and the arrays of each evaluation language go through the result. Everything
follows from (params, task, seed): the same call gives the same scores.

Letters as in model.py, and C classes of a head.
"""

import dataclasses
import functools
import importlib
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import SENTENCE, SPAN, WORDS, Task
from xlmr_jax.model.dropout import dropout
from xlmr_jax.model.xlmr import PAD, XLMR, Dense, places_of
from xlmr_jax.training import optimizer, sharding

MODULES = {SENTENCE: "sentence", WORDS: "tagging", SPAN: "span"}
MIN_LENGTH = 64  # tokens: shorter buckets would cost more in compiling than they save


class Head(nn.Module):
  """What a task puts on the encoder, as transformers' XLM-R heads: params {"dense", "out"} or {"out"}.

  sentence: dropout, dense, tanh, dropout, projection of <s>; words and span: dropout and projection of every token.
  """

  kind: str
  outputs: int  # classes; 1: a number; 2 for a span: its start and its end
  dropout: float
  init_std: float = 0.02

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, deterministic: bool = True) -> jax.Array:
    """Logits fp32 [B, C] of a sentence head, [B, L, C] of the others."""
    keys = [None, None] if deterministic else jax.random.split(self.make_rng("dropout"))
    x = x_BxLxD.astype(jnp.float32)
    places = places_of(jnp.arange(x.shape[0], dtype=jnp.uint32), x.shape[1])
    if self.kind == SENTENCE:
      x, places = x[:, 0], places[:, 0]
      x = jnp.tanh(Dense((x.shape[-1],), self.init_std, name="dense")(dropout(x, self.dropout, keys[1], places)))
    return Dense((self.outputs,), self.init_std, name="out")(dropout(x, self.dropout, keys[0], places))


def head_of(task: Task, rate: float) -> Head:
  """The head that a task needs."""
  return Head(task.head, 2 if task.head == SPAN else max(len(task.labels), 1), rate)


# --- loss and step -----------------------------------------------------------------------------------------------


def loss_sum(task: Task, logits: jax.Array, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """(loss sum, weight) of a batch; the caller divides once. Equal to transformers' mean loss where rows count fully.

  batch: "weight" fp32[B] (0: a row that fills up the batch), and "label" int32[B], fp32[B] or int32[B, L] (-1: no
  label), or "start" and "end" int32[B].
  """
  if task.head == SPAN:
    nats = lambda logits_BxL, at_B: (
      -jnp.take_along_axis(  # noqa: E731
        jax.nn.log_softmax(logits_BxL), at_B[:, None], axis=-1
      )[:, 0]
    )
    inside = jnp.where(batch["ids"] != PAD, 0.0, -1e30)
    losses_B = (nats(logits[..., 0] + inside, batch["start"]) + nats(logits[..., 1] + inside, batch["end"])) / 2
    return (losses_B * batch["weight"]).sum(), batch["weight"].sum()
  if not task.labels:
    return (jnp.square(logits[:, 0] - batch["label"]) * batch["weight"]).sum(), batch["weight"].sum()
  labels = batch["label"]
  weights = batch["weight"] if task.head == SENTENCE else batch["weight"][:, None] * (labels >= 0)
  losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
  return (losses * weights).sum(), weights.sum()


class State(NamedTuple):
  """Encoder and head, {"encoder", "head"}, their optimizer state and the number of steps made."""

  step: jax.Array
  params: dict
  opt_state: Any


def make_finetune_step(model: XLMR, task: Task, tx, schedule, batch_axes: tuple[str, ...] = ()):
  """(state, batch, key) -> (state, mean loss), pure. batch as for loss_sum, with "ids" int32[B, L]."""
  head, frozen = head_of(task, model.dropout), task.recipe.frozen

  def is_frozen(path) -> bool:
    name = jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("encoder/")
    return bool(frozen) and path[0].key == "encoder" and bool(re.search(frozen, name))

  def loss(params, batch, key):
    params = jax.tree_util.tree_map_with_path(lambda path, p: jax.lax.stop_gradient(p) if is_frozen(path) else p, params)
    encoder_key, head_key = jax.random.split(key)
    x_BxLxD = model.apply({"params": params["encoder"]}, batch["ids"], False, method="encode", rngs={"dropout": encoder_key})
    logits = head.apply({"params": params["head"]}, x_BxLxD, False, rngs={"dropout": head_key})
    total, weight = loss_sum(task, logits, batch)
    return total / jnp.maximum(weight, 1.0)

  def step(state, batch, key):
    if batch_axes:
      batch = jax.lax.with_sharding_constraint(batch, jax.sharding.PartitionSpec(batch_axes))
    mean, grads = jax.value_and_grad(loss)(state.params, batch, jax.random.fold_in(key, state.step))
    finite = jnp.isfinite(optimizer.optax.global_norm(grads))
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    lr = schedule(state.step + 1)
    params = jax.tree_util.tree_map_with_path(
      lambda path, p, u: p if is_frozen(path) else jnp.where(finite, p - lr * u, p), state.params, updates
    )
    opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), opt_state, state.opt_state)
    return State(state.step + 1, params, opt_state), mean

  return step


def make_predict(model: XLMR, task: Task):
  """(params, ids int32[B, L]) -> what the task's decode takes: logits, best tags, or start and end logits."""
  head = head_of(task, 0.0)

  def predict(params, ids_BxL):
    x_BxLxD = model.apply({"params": params["encoder"]}, ids_BxL, True, method="encode")
    logits = head.apply({"params": params["head"]}, x_BxLxD, True)
    if task.head == WORDS:
      return logits.argmax(axis=-1).astype(jnp.int32)
    return (logits[..., 0], logits[..., 1]) if task.head == SPAN else logits

  return predict


# --- batches -----------------------------------------------------------------------------------------------------


def lengths_of(max_len: int) -> list[int]:
  """Row lengths that programs are compiled for: max_len and its halves down to MIN_LENGTH, shortest first."""
  lengths = [max_len]
  while lengths[0] % 2 == 0 and lengths[0] // 2 >= MIN_LENGTH:
    lengths.insert(0, lengths[0] // 2)
  return lengths


def take(arrays: dict[str, np.ndarray], rows: np.ndarray, size: int) -> dict[str, np.ndarray]:
  """These rows of the arrays, cut to the shortest length that holds them all, filled up to `size` rows of weight 0."""
  ids = arrays["ids"][rows]
  longest = int((ids != PAD).sum(axis=1).max(initial=1))
  length = next(n for n in lengths_of(ids.shape[1]) if n >= longest)
  batch = {"weight": np.pad(np.ones(len(rows), np.float32), (0, size - len(rows)))}
  for name, array in arrays.items():
    if name in ("ids", "label", "start", "end"):
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


# --- training and prediction of one task -------------------------------------------------------------------------


class Finetuner:
  """One task on encoders of one shape: compiled once for all checkpoints, seeds and languages."""

  def __init__(self, model: XLMR, task: Task, mesh: jax.sharding.Mesh):
    recipe = task.recipe
    if recipe.batch % mesh.size:
      recipe = dataclasses.replace(recipe, batch=-(-recipe.batch // mesh.size) * mesh.size)
    if recipe.max_len + 2 > model.max_positions:
      recipe = dataclasses.replace(recipe, max_len=model.max_positions - 2)
    self.task = dataclasses.replace(task, recipe=recipe)
    self.model, self.mesh = model, mesh
    self._steps: dict[int, tuple] = {}
    self._predict = jax.jit(make_predict(model, self.task))
    self._batch_axes = sharding.BATCH_AXES if mesh.size > 1 else ()

  def steps(self, rows: int) -> int:
    """Updates that the recipe makes on so many rows."""
    recipe = self.task.recipe
    steps = max(1, math.ceil(rows * recipe.epochs / recipe.batch))
    return min(steps, recipe.max_steps) if recipe.max_steps else steps

  def program(self, steps: int):
    """(jitted init, jitted step) for a schedule of `steps` updates."""
    if steps not in self._steps:
      recipe = self.task.recipe
      tx = optimizer.adamw(
        b1=0.9, b2=0.999, eps=1e-8, weight_decay=recipe.weight_decay, decay_pattern=r"(kernel|embedding)$", clip_norm=1.0
      )
      schedule = optimizer.polynomial_schedule(
        peak_lr=recipe.lr, warmup_steps=round(recipe.warmup * steps), train_steps=steps
      )
      head, hidden = head_of(self.task, 0.0), self.model.hidden

      def init(params, key):
        params = {"encoder": params, "head": head.init(key, jnp.zeros((1, 2, hidden)))["params"]}
        return State(jnp.zeros((), jnp.int32), params, tx.init(params))

      step = make_finetune_step(self.model, self.task, tx, schedule, self._batch_axes)
      self._steps[steps] = init, jax.jit(step, donate_argnums=0)
    return self._steps[steps]

  def train(self, params: dict, arrays: dict[str, np.ndarray], seed: int) -> tuple[dict, float]:
    """({"encoder", "head"} trained on arrays, mean loss of the last tenth of the steps). params: of a pretrained XLMR."""
    count, recipe = len(arrays["ids"]), self.task.recipe
    steps = self.steps(count)
    init, step = self.program(steps)
    key = jax.random.key(seed)
    shapes = sharding.state_shardings(self.mesh, jax.eval_shape(init, params, key))
    params = jax.device_put(params, shapes.params["encoder"])  # a checkpoint is read to one device
    state = jax.jit(init, out_shardings=shapes)(params, key)  # copies: the step gives its argument away
    losses = []
    with jax.set_mesh(self.mesh):
      for rows in training_rows(count, recipe.batch, steps, seed):
        batch = sharding.to_global(self.mesh, take(arrays, rows, recipe.batch), recipe.batch)
        state, loss = step(state, batch, key)
        losses.append(loss)
        jax.block_until_ready(losses[-2:][0])  # one step ahead; many queued collectives can hang XLA's CPU devices
    return state.params, float(np.mean(jax.device_get(losses[-max(1, steps // 10) :])))

  def predict(self, params: dict, arrays: dict[str, np.ndarray]) -> Any:
    """Outputs for the task's decode, rows in the order of arrays."""
    ids, size = arrays["ids"], self.task.recipe.batch * 2
    order = np.argsort((ids != PAD).sum(axis=1), kind="stable")  # rows of one length together
    parts = []
    with jax.set_mesh(self.mesh):
      for at in range(0, len(order), size):
        rows = order[at : at + size]
        batch = sharding.to_global(self.mesh, {"ids": take({"ids": ids}, rows, size)["ids"]}, size)
        parts.append((rows, jax.device_get(self._predict(params, batch["ids"]))))

    def join(*pieces):
      # Word and span outputs are as long as their batch was; what was cut off are pads.
      width = (ids.shape[1],) if self.task.head != SENTENCE else pieces[0].shape[1:]
      whole = np.full((len(ids), *width), -1e30 if self.task.head == SPAN else 0, pieces[0].dtype)
      for (rows, _), piece in zip(parts, pieces):
        whole[rows, : piece.shape[1]] = piece[: len(rows)]
      return whole

    return jax.tree.map(join, *(outputs for _, outputs in parts))

  @property
  def reader(self):
    """The module that reads and scores tasks of this head."""
    return importlib.import_module(f"xlmr_jax.evaluation.tasks.{MODULES[self.task.head]}")

  def encode(self, examples: list, tokenizer) -> dict[str, np.ndarray]:
    """The arrays of examples, as the task's module makes them."""
    return self.reader.encode(self.task, examples, tokenizer)

  def score(self, params: dict, examples: list, arrays: dict, language: str) -> dict[str, float]:
    """{metric: value} of a trained task on examples and their arrays."""
    predictions = self.reader.decode(self.task, examples, arrays, self.predict(params, arrays))
    return self.reader.score(self.task, examples, predictions, language)


# --- many tasks --------------------------------------------------------------------------------------------------


def plan(task: Task, setting: str, languages: tuple[str, ...]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
  """(training languages, evaluation languages) of each fine-tuning that a setting needs.

  Of a task with translations the training file of a language is the translated one, so per_language and
  translate_train train alike and differ in the files that the user gives; translate_test differs in the split.
  """
  if setting in ("zero_shot", "translate_test"):
    return [((task.train_language,), languages)]
  if setting in ("per_language", "translate_train"):
    return [((language,), (language,)) for language in languages]
  if setting == "translate_train_all":
    return [(languages, languages)]
  raise UserError(f"evaluate.setting={setting!r}: one of {', '.join(registry.SETTINGS)}")


def seed_of(step: int, task: str, seed: int) -> int:
  """The seed of a fine-tuning: from (step, task) and which of several it is."""
  return zlib.crc32(f"{step} {task} {seed}".encode())


def task_folders(folder: str, data: str) -> dict[str, str]:
  """{"": the folder that holds a folder a task, name: a task's own} of config.evaluate.folder and .data."""
  folders = {"": folder}
  for entry in filter(None, data.split(",")):
    name, equals, path = entry.partition("=")
    if not equals:
      raise UserError(f"evaluate.data={data!r}: {entry!r} is not NAME=FOLDER")
    folders[name.strip()] = path.strip()
  return folders


def with_recipe(task: Task, changes: str) -> Task:
  """The task with the changes that config.evaluate.recipe makes, "FIELD=VALUE,TASK.FIELD=VALUE"; TASK's own come last."""
  fields = {field.name: type(getattr(task.recipe, field.name)) for field in dataclasses.fields(task.recipe)}
  new = {}
  for entry in sorted(filter(None, map(str.strip, changes.split(","))), key=lambda entry: "." in entry.partition("=")[0]):
    name, _, value = entry.partition("=")
    of, _, field = name.strip().rpartition(".")
    try:
      value = fields[field](float(value) if fields[field] is int else value)
    except (KeyError, ValueError):
      raise UserError(
        f"evaluate.recipe={changes!r}: {entry!r} is not FIELD=VALUE or TASK.FIELD=VALUE; fields are {', '.join(fields)}"
      ) from None
    if of in ("", task.name):
      new[field] = value
    elif of not in registry.TASKS:
      registry.get(of)
  return dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, **new))


class Scorer:
  """Fine-tunes checkpoints of one run on the tasks of its config.evaluate and scores them.

  run: the workdir's config.json. UserError: an unknown task or setting, a missing vocabulary.
  """

  def __init__(self, run: dict, workdir: str | Path, split: str = "dev"):
    from ml_collections import ConfigDict

    from xlmr_jax import open_model as runs
    from xlmr_jax.training.loop import build_model

    config = ConfigDict(run["config"])
    self.config, self.split = config.evaluate, split
    self.tokenizer = runs.vocabulary_of(Path(workdir), run)
    self.mesh = sharding.make_mesh()
    model = build_model(config, run["vocabulary_size"], self.mesh if self.mesh.size > 1 else None)
    self.finetuners = {
      name: Finetuner(model, with_recipe(registry.get(name), self.config.recipe), self.mesh) for name in self.config.tasks
    }
    for name in self.config.tasks:
      plan(registry.get(name), self.config.setting, ())
    self.folders = task_folders(self.config.folder, self.config.data)
    self._read = functools.cache(self._read_once)

  def recipe(self) -> dict:
    """What a score depends on beside the checkpoint, for the ledger."""
    return {
      name: {
        **dataclasses.asdict(of.task.recipe),
        "setting": self.config.setting,
        "split": self.split,
        "max_examples": self.config.max_examples,
        "max_train_examples": self.config.max_train_examples,
      }
      for name, of in self.finetuners.items()
    }

  def _read_once(self, name: str, language: str, split: str):
    """(examples, arrays) of a split; read and tokenised once for all checkpoints."""
    finetuner = self.finetuners[name]
    root = self.folders[""]
    folder = self.folders.get(name) or (root if root == "tfds" else str(Path(root) / name))
    examples = finetuner.task.load(folder, language, split)
    limit = self.config.max_train_examples if split == "train" else self.config.max_examples
    if limit and len(examples) > limit:  # the same ones at every checkpoint, from all over the file
      chosen = np.random.default_rng(0).permutation(len(examples))[:limit]
      examples = [examples[i] for i in np.sort(chosen)]
    if not examples:
      raise UserError(f"{name}: no examples in {split} of {language} ({folder})")
    return examples, finetuner.encode(examples, self.tokenizer)

  def languages_of(self, task: Task) -> tuple[str, ...]:
    wanted = tuple(self.config.languages)
    return tuple(language for language in task.languages if not wanted or language in wanted)

  def __call__(self, params: dict, step: int, seed: int = 0) -> tuple[dict, dict]:
    """({task: {language: {metric: value}}}, {task: what went wrong}) of a checkpoint's parameters."""
    scores, errors = {}, {}
    for name in self.finetuners:
      try:
        scores[name] = self.one(name, params, step, seed)
      except UserError as error:
        errors[name] = str(error)
    return scores, errors

  def fit(self, name: str, params: dict, step: int, seed: int, sources: tuple[str, ...]) -> dict:
    """{"encoder", "head"} trained on a task's training files in the languages `sources`."""
    arrays = [self._read(name, language, "train")[1] for language in sources]
    joined = {key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]}
    return self.finetuners[name].train(params, joined, seed_of(step, name, seed))[0]

  def one(self, name: str, params: dict, step: int, seed: int) -> dict[str, dict[str, float]]:
    """{language: {metric: value}} of one task."""
    task = self.finetuners[name].task
    result = {}
    for sources, targets in plan(task, self.config.setting, self.languages_of(task)):
      self.targets(name, targets)  # before the long part
      result |= self.score_all(name, self.fit(name, params, step, seed, sources), targets)
    return result

  def score_all(self, name: str, trained: dict, targets: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """{language: {metric: value}} of what fit() returned, on this scorer's split."""
    return {
      language: self.finetuners[name].score(trained, examples, encoded, language)
      for language, (examples, encoded) in self.targets(name, targets).items()
    }

  def targets(self, name: str, targets: tuple[str, ...]) -> dict[str, tuple]:
    """{language: (examples, arrays)} to score on."""
    task = self.finetuners[name].task
    split = task.dev_split if self.split == "dev" else task.test_split
    if self.config.setting == "translate_test":
      split += "_translated"
    return {language: self._read(name, language, split) for language in targets}
