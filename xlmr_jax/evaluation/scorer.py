"""Scores a checkpoint on the tasks of config.evaluate: which languages train and are scored, what is read, all seeds."""

import dataclasses
import functools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.config import SETTINGS
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.finetune import Announcer, Arrays, Finetuner
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import Task
from xlmr_jax.training import sharding

LanguageScores = dict[str, dict[str, float]]  # {language: {metric: value}}


def training_plan(task: Task, setting: str, languages: tuple[str, ...]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
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
  raise UserError(f"config.evaluate.setting={setting!r}: must be one of {', '.join(SETTINGS)}")


def finetuning_seed(step: int, task: str, seed: int) -> int:
  """The seed of a fine-tuning: from (step, task) and which of several it is."""
  return zlib.crc32(f"{step} {task} {seed}".encode())


def task_folders(folder: str, data: str) -> dict[str, str]:
  """{"": the folder that holds a folder per task, name: a task's own} of config.evaluate.folder and .data."""
  folders = {"": folder}
  for entry in filter(None, data.split(",")):
    name, equals, path = entry.partition("=")
    if not equals:
      raise UserError(f"config.evaluate.data={data!r}: {entry!r} is not NAME=FOLDER")
    folders[name.strip()] = path.strip()
  return folders


def with_recipe(task: Task, changes: str) -> Task:
  """The task with the changes that config.evaluate.recipe makes, "FIELD=VALUE,TASK.FIELD=VALUE"; TASK's own come last."""
  fields = {field.name: type(getattr(task.recipe, field.name)) for field in dataclasses.fields(task.recipe)}
  new: dict[str, Any] = {}
  entries = filter(None, map(str.strip, changes.split(",")))
  for entry in sorted(entries, key=lambda entry: "." in entry.partition("=")[0]):
    name, _, value = entry.partition("=")
    owner, _, field = name.strip().rpartition(".")
    try:
      typed = fields[field](float(value) if fields[field] is int else value)
    except (KeyError, ValueError):
      raise UserError(
        f"config.evaluate.recipe={changes!r}: {entry!r} is not FIELD=VALUE or TASK.FIELD=VALUE; fields are "
        f"{', '.join(fields)}"
      ) from None
    if owner in ("", task.name):
      new[field] = typed
    elif owner not in registry.TASKS:
      registry.get(owner)
  return dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, **new))


class Scorer:
  """Fine-tunes checkpoints of one run on the tasks of its config.evaluate and scores them.

  UserError: an unknown task, a wrong setting or recipe. Data are read at the first call.
  """

  def __init__(self, config: ConfigDict, vocabulary_size: int, tokenizer: Tokenizer, split: str = "dev"):
    """config: of the run, with the evaluator's values below `evaluate`. split: "dev" or "test"."""
    self.config, self.split, self.tokenizer = config.evaluate, split, tokenizer
    self.mesh = sharding.make_mesh()
    tasks = {name: registry.get(name) for name in self.config.tasks}
    for task in tasks.values():
      training_plan(task, self.config.setting, ())
    self.finetuners = {
      name: Finetuner(config, vocabulary_size, with_recipe(task, self.config.recipe), self.mesh)
      for name, task in tasks.items()
    }
    self.folders = task_folders(self.config.folder, self.config.data)
    self._read = functools.cache(self._read_once)

  def recipe(self) -> dict[str, Any]:
    """What a score depends on beside the checkpoint, for the ledger."""
    return {
      name: {
        **dataclasses.asdict(finetuner.task.recipe),
        "setting": self.config.setting,
        "split": self.split,
        "max_examples": self.config.max_examples,
        "max_train_examples": self.config.max_train_examples,
      }
      for name, finetuner in self.finetuners.items()
    }

  def _read_once(self, name: str, language: str, split: str) -> tuple[list, Arrays]:
    """(examples, arrays) of a split; read and tokenised once for all checkpoints."""
    finetuner = self.finetuners[name]
    root = self.folders[""]
    folder = self.folders.get(name) or (root if root == "tfds" else str(Path(root) / name))
    with Announcer(f"{name}: reading {split} of {language}"):
      examples = finetuner.task.load(folder, language, split)
    limit = self.config.max_train_examples if split == "train" else self.config.max_examples
    if limit and len(examples) > limit:  # The same ones at every checkpoint, from all over the file.
      chosen = np.random.default_rng(0).permutation(len(examples))[:limit]
      examples = [examples[i] for i in np.sort(chosen)]
    if not examples:
      raise UserError(f"{name}: no examples in {split} of {language} ({folder})")
    with Announcer(f"{name}: tokenising {split} of {language}"):
      return examples, finetuner.encode(examples, self.tokenizer)

  def languages_of(self, task: Task) -> tuple[str, ...]:
    """The evaluation languages of a task that config.evaluate.languages leaves."""
    wanted = tuple(self.config.languages)
    return tuple(language for language in task.languages if not wanted or language in wanted)

  def __call__(self, params: Any, step: int, seed: int = 0) -> tuple[dict[str, LanguageScores], dict[str, str]]:
    """({task: {language: {metric: value}}}, {task: what went wrong}) of a checkpoint's parameters."""
    scores, errors = {}, {}
    for name in self.finetuners:
      try:
        scores[name] = self.score_task(name, params, step, seed)
      except UserError as error:
        errors[name] = str(error)
    return scores, errors

  def fit(self, name: str, params: Any, step: int, seed: int, sources: tuple[str, ...]) -> dict[str, Any]:
    """{"encoder", "head"} trained on a task's training files in the languages `sources`."""
    arrays = [self._read(name, language, "train")[1] for language in sources]
    joined = {key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]}
    what = f"{name} in {', '.join(sources) if len(sources) < 4 else f'{len(sources)} languages'}, seed {seed}"
    return self.finetuners[name].train(params, joined, finetuning_seed(step, name, seed), what)[0]

  def score_task(self, name: str, params: Any, step: int, seed: int) -> LanguageScores:
    """{language: {metric: value}} of one task."""
    task = self.finetuners[name].task
    result: LanguageScores = {}
    for sources, targets in training_plan(task, self.config.setting, self.languages_of(task)):
      self.targets(name, targets)  # Data that are missing are found before the long part.
      result |= self.score_all(name, self.fit(name, params, step, seed, sources), targets)
    return result

  def score_all(self, name: str, trained: dict[str, Any], targets: tuple[str, ...]) -> LanguageScores:
    """{language: {metric: value}} of what fit() returned, on this scorer's split."""
    scores = {}
    with Announcer(f"{name}: scored language", len(targets)) as announcer:
      for language, (examples, arrays) in self.targets(name, targets).items():
        scores[language] = self.finetuners[name].score(trained, examples, arrays, language)
        announcer.advance()
    return scores

  def targets(self, name: str, targets: tuple[str, ...]) -> dict[str, tuple[list, Arrays]]:
    """{language: (examples, arrays)} to score on."""
    task = self.finetuners[name].task
    split = task.dev_split if self.split == "dev" else task.test_split
    if self.config.setting == "translate_test":
      split += "_translated"
    return {language: self._read(name, language, split) for language in targets}
