"""Scores a checkpoint on the tasks of config.evaluate: which languages train and are scored, what is read, all seeds."""

import contextlib
import dataclasses
import functools
import os
import sys
import traceback
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import StoreError, UserError
from xlmr_jax.evaluation.choices import (
  check_choices,
  languages_of,
  refuse_languages,
  task_folders,
  training_plan,
  with_recipe,
)
from xlmr_jax.evaluation.finetune import Arrays, Finetuner
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.reading import MissingError
from xlmr_jax.files import any_path, is_bucket
from xlmr_jax.folders import local_folder
from xlmr_jax.progress import Progress
from xlmr_jax.secrets import redacted
from xlmr_jax.training import sharding

LanguageScores = dict[str, dict[str, float]]  # {language: {metric: value}}


@contextlib.contextmanager
def _as_user_errors(what: str) -> Iterator[None]:
  """What a reader raises as a UserError, so that the data of one task never end the evaluation of the others.

  what: which data were read. A file that a reader of the user's own does not find becomes a MissingError.
  """
  try:
    yield
  except (UserError, StoreError, jax.errors.JaxRuntimeError):  # What a device or a store cannot do is no fault of the data.
    raise
  except Exception as error:
    reason = redacted(" ".join(f"{type(error).__name__}: {error}".split())).encode(errors="backslashreplace").decode()
    if isinstance(error, FileNotFoundError):
      raise MissingError(f"{what}: {reason}") from error
    print(redacted(traceback.format_exc()), file=sys.stderr, flush=True)  # It says which line of the reader could not go on.
    raise UserError(f"{what}: {reason}") from error


def finetuning_seed(step: int, task: str, seed: int) -> int:
  """The seed of a fine-tuning: from (step, task) and which of several it is."""
  return zlib.crc32(f"{step} {task} {seed}".encode())


class Scorer:
  """Fine-tunes checkpoints of one run on the tasks of its config.evaluate and scores them.

  UserError: an unknown task, a wrong setting or recipe. Data are read at the first call.
  """

  def __init__(
    self, config: ConfigDict, vocabulary_size: int, tokenizer: Tokenizer, split: str = "dev",
    pooler: dict[str, np.ndarray] | None = None,
  ):  # fmt: skip
    """config: of the run, with the evaluator's values below `evaluate`. split: "dev" or "test". pooler: see Finetuner."""
    check_choices(config)
    refuse_languages(config)
    self.config, self.split, self.tokenizer = config.evaluate, split, tokenizer
    self.mesh = sharding.make_mesh()
    config = config.copy_and_resolve_references()
    config.model.dtype = self.config.dtype or config.model.dtype
    self.dtype = config.model.dtype
    self.finetuners = {
      name: Finetuner(config, vocabulary_size, with_recipe(registry.get(name), self.config.recipe), self.mesh, pooler)
      for name in self.config.tasks
    }
    self.folders = task_folders(self.config.folder, self.config.data)
    self.missing: dict[str, dict[str, str]] = {}  # {task: {language: why it is not scored}}, known after the first call
    self.unread: dict[str, str] = {}  # {task: why its data could not be read}, of the last call
    self._losses: dict[str, list[float]] = {}  # {task: at the end of each fine-tuning}, of the last call
    self._read = functools.cache(self._read_once)

  @property
  def losses(self) -> dict[str, float]:
    """{task: mean loss at the end of its fine-tunings} of the last call; NaN where one of them is."""
    return {name: float(np.mean(losses)) for name, losses in self._losses.items()}

  def recipe(self) -> dict[str, Any]:
    """What a score depends on beside the checkpoint, for the ledger."""
    return {
      name: {
        **dataclasses.asdict(finetuner.task.recipe),
        "setting": self.config.setting,
        "dtype": self.dtype,
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
    folder = self.folders.get(name) or (root if root == "tfds" else os.path.join(root, name))
    what = f"{name}, {split} in {language} ({folder})"
    with Progress(f"{name}: reading {split} of {language}"), _as_user_errors(what):
      here = str(local_folder(any_path(folder))) if is_bucket(folder) else folder
      examples = finetuner.task.load(here, language, split)
    limit = self.config.max_train_examples if split == "train" else self.config.max_examples
    if limit and len(examples) > limit:  # The same ones at every checkpoint, from all over the file.
      chosen = np.random.default_rng(0).permutation(len(examples))[:limit]
      examples = [examples[i] for i in np.sort(chosen)]
    if not examples:
      raise UserError(f"{what}: no examples")
    with Progress(f"{name}: tokenising {split} of {language}"), _as_user_errors(what):
      return examples, finetuner.encode(examples, self.tokenizer, self._spoken(name, language))

  def _spoken(self, name: str, language: str) -> str:
    """The language of a task's examples: of translations into that of the training, which go by another's name, that one."""
    return self.finetuners[name].task.train_language if self.config.setting == "translate_test" else language

  def plan(self, name: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """training_plan of a task, of the languages that have all their files; says once which have not.

    All files to score on are read, because missing or damaged data are to be found before the long part. Raises UserError:
    no language is left, or a file is damaged.
    """
    task, setting = self.finetuners[name].task, self.config.setting
    languages = languages_of(task, tuple(self.config.languages))
    if name not in self.missing:
      missing: dict[str, str] = {}
      for language in languages:
        try:
          self.targets(name, (language,))
          if setting not in ("zero_shot", "translate_test"):  # where every language is trained on
            self._read(name, language, "train")
        except MissingError as error:
          missing[language] = str(error)
      left = [language for language in languages if language not in missing]
      if not left:
        raise MissingError(missing[languages[0]])
      if missing:
        print(f"{name}: {len(missing)} of {len(languages)} languages are not scored, because they have no files: "
              f"{', '.join(missing)} (the first: {next(iter(missing.values()))}); name those to score with "
              f"--config.evaluate.languages={','.join(left)}", file=sys.stderr, flush=True)  # fmt: skip
      self.missing[name] = missing
    return training_plan(task, setting, tuple(x for x in languages if x not in self.missing[name]))

  def read_data(self) -> dict[str, str]:
    """Reads the data of all tasks, to score and to train on. Returns {task: why its data cannot be read}."""
    unread = {}
    for name in self.finetuners:
      try:
        for sources, _ in self.plan(name):
          for language in sources:
            self._read(name, language, "train")
      except UserError as error:
        unread[name] = redacted(str(error))
    return unread

  def __call__(self, params: Any, step: int, seed: int = 0) -> tuple[dict[str, LanguageScores], dict[str, str]]:
    """({task: {language: {metric: value}}}, {task: what went wrong}) of a checkpoint's parameters."""
    self._losses, self.unread = {}, self.read_data()
    scores, errors = {}, {**self.unread}
    for name in self.finetuners:
      if name in self.unread:
        continue
      try:
        scores[name] = self.score_task(name, params, step, seed)
      except UserError as error:
        errors[name] = redacted(str(error))
      except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
          raise
        errors[name] = "out of memory; lower recipe.batch with --config.evaluate.recipe, or use more devices"
    return scores, errors

  def training_arrays(self, name: str, sources: tuple[str, ...]) -> Arrays:
    """The arrays of a task's training files in the languages `sources`, one after the other."""
    arrays = [self._read(name, language, "train")[1] for language in sources]
    return {key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]}

  def fit(self, name: str, params: Any, step: int, seed: int, sources: tuple[str, ...]) -> dict[str, Any]:
    """{"encoder", "head"} trained on a task's training files in the languages `sources`."""
    joined = self.training_arrays(name, sources)
    what = f"{name} in {', '.join(sources) if len(sources) < 4 else f'{len(sources)} languages'}, seed {seed}"
    trained, loss = self.finetuners[name].train(params, joined, finetuning_seed(step, name, seed), what)
    steps = self.finetuners[name].steps(len(joined["ids"]))
    print(f"{what}: trained {steps} steps on {len(joined['ids'])} rows, loss {loss:.4f} at the end",
          file=sys.stderr, flush=True)  # fmt: skip
    self._losses.setdefault(name, []).append(loss)
    return trained

  def score_task(self, name: str, params: Any, step: int, seed: int) -> LanguageScores:
    """{language: {metric: value}} of one task."""
    result: LanguageScores = {}
    for sources, targets in self.plan(name):
      result |= self.score_all(name, self.fit(name, params, step, seed, sources), targets)
    return result

  def score_all(self, name: str, trained: dict[str, Any], targets: tuple[str, ...]) -> LanguageScores:
    """{language: {metric: value}} of what fit() returned, on this scorer's split."""
    scores = {}
    with Progress(f"{name}: scoring", len(targets), "languages", compiles=True) as scoring:
      for language, (examples, arrays) in self.targets(name, targets).items():
        with _as_user_errors(f"{name}, scoring {language}"):
          scores[language] = self.finetuners[name].score(trained, examples, arrays, self._spoken(name, language))
        scoring.add()
    return scores

  def targets(self, name: str, targets: tuple[str, ...]) -> dict[str, tuple[list, Arrays]]:
    """{language: (examples, arrays)} to score on."""
    task = self.finetuners[name].task
    split = task.dev_split if self.split == "dev" else task.test_split
    if self.config.setting == "translate_test":
      split += "_translated"
    return {language: self._read(name, language, split) for language in targets}
