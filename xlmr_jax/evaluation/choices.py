"""What config.evaluate asks for: tasks, languages, folders and recipes, each checked by name. It imports no TensorFlow.

The trainer checks them too, so that a misspelt name is found before the first step and not by the evaluator days later.
"""

import dataclasses
import math
import re
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config import SETTINGS
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import Task
from xlmr_jax.training.model_languages import has_embeddings, number_of


def check_choices(config: ConfigDict) -> None:
  """Refuses by name every task, language, folder and recipe of config.evaluate that cannot be meant. UserError.

  The tasks are those that are registered, so a user's modules are loaded before.
  """
  evaluate = config.evaluate
  tasks = [registry.get(name) for name in evaluate.tasks]
  for name in task_folders(evaluate.folder, evaluate.data):
    if name:
      registry.get(name)
  for task in tasks:
    with_recipe(task, evaluate.recipe)
    training_plan(task, evaluate.setting, ())
    languages_of(task, tuple(evaluate.languages))
  known = {language for task in tasks for language in task.languages}
  for language in evaluate.languages:
    if tasks and language not in known:
      raise UserError(f"config.evaluate.languages: no task of {', '.join(evaluate.tasks)} has a language {language!r}; they "
                      f"have {', '.join(sorted(known))}")  # fmt: skip
  name, _, language = config.stop.score.partition("/")
  if language and language not in registry.get(name).languages:
    raise UserError(f"config.stop.score={config.stop.score!r}: {name} has no language {language!r}; it has "
                    f"{', '.join(registry.get(name).languages)}")  # fmt: skip


def refuse_languages(config: ConfigDict) -> None:
  """UserError for languages of the tasks of config.evaluate that the model needs an embedding of and has none."""
  if not has_embeddings(config):
    return
  names, evaluate = tuple(config.model.languages), config.evaluate
  # Of all the tasks, because the one key is for them all: one task's languages would cut those of the others.
  asked, tasks = tuple(evaluate.languages), map(registry.get, evaluate.tasks)
  wanted_by_any = sorted({language for task in tasks for language in languages_of(task, asked)})
  had = [language for language in wanted_by_any if number_of(names, language) is not None]
  for task in map(registry.get, evaluate.tasks):
    wanted = languages_of(task, tuple(evaluate.languages))
    trained = (task.train_language,) if evaluate.setting in ("zero_shot", "translate_test") else ()
    scored = () if evaluate.setting == "translate_test" else wanted  # Translations into English are English.
    missing = [language for language in dict.fromkeys((*trained, *scored)) if number_of(names, language) is None]
    if set(missing) & set(trained):
      raise UserError(
        f"{task.name}: it is trained on {', '.join(trained)}, of which the model has no language embedding; it has "
        f"{', '.join(names)}; choose another config.evaluate.setting, or leave the task out"
      )
    if missing:
      left = [language for language in wanted if language not in missing]
      hint = f"--config.evaluate.languages={','.join(had)} leaves them out" if left else "leave the task out"
      raise UserError(f"{task.name}: the model has no language embedding of {', '.join(missing)}; {hint}")


def languages_of(task: Task, wanted: tuple[str, ...]) -> tuple[str, ...]:
  """The evaluation languages of a task that config.evaluate.languages leaves. UserError: it leaves none."""
  languages = tuple(language for language in task.languages if not wanted or language in wanted)
  if not languages:
    raise UserError(f"config.evaluate.languages={','.join(wanted)}: {task.name} has none of them; it has "
                    f"{', '.join(task.languages)}")  # fmt: skip
  return languages


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


def task_folders(folder: str, data: str) -> dict[str, str]:
  """{"": the folder that holds a folder per task, name: a task's own} of config.evaluate.folder and .data."""
  folders = {"": folder}
  for entry in filter(None, map(str.strip, data.split(","))):
    name, equals, path = map(str.strip, entry.partition("="))
    if not (name and equals and path):
      raise UserError(f"config.evaluate.data={data!r}: {entry!r} is not NAME=FOLDER")
    folders[name] = path
  return folders


# The fields of a recipe that are counts, and the least of each (ours).
_LEAST = {"batch": 1, "max_len": 8, "max_steps": 0, "doc_stride": 1, "max_question": 1, "max_answer": 1}


def with_recipe(task: Task, changes: str) -> Task:
  """The task with the changes that config.evaluate.recipe makes, "FIELD=VALUE,TASK.FIELD=VALUE"; TASK's own come last."""
  fields = {field.name: type(getattr(task.recipe, field.name)) for field in dataclasses.fields(task.recipe)}
  new: dict[str, Any] = {}
  entries = filter(None, map(str.strip, changes.split(",")))
  for entry in sorted(entries, key=lambda entry: "." in entry.partition("=")[0]):
    name, _, value = map(str.strip, entry.partition("="))
    owner, _, field = name.rpartition(".")
    try:
      typed = _value_of(field, fields[field], value)
    except (KeyError, ValueError, OverflowError, re.error):
      raise UserError(
        f"config.evaluate.recipe={changes!r}: {entry!r} is not FIELD=VALUE or TASK.FIELD=VALUE; fields are "
        f"{', '.join(fields)}"
      ) from None
    if owner in ("", task.name):
      new[field] = typed
    elif owner not in registry.TASKS:
      registry.get(owner)
  return dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, **new))


def say_longer_than_trained(config: ConfigDict, trained: int, most: int) -> list[str]:
  """A line per task whose rows may reach positions that stand as they were drawn.

  trained: tokens of the longest row that the model was trained on; most: of the longest that it takes.
  """
  lines = []
  for name in config.evaluate.tasks:
    longest = min(with_recipe(registry.get(name), config.evaluate.recipe).recipe.max_len, most)
    if longest > trained:
      lines.append(
        f"{name}: its rows may have {longest} tokens, and those of the training had at most {trained}: only fine-tuning "
        f"trains the positions behind them; --config.evaluate.recipe={name}.max_len={trained} has none such"
      )
  return lines


def _value_of(field: str, kind: type, text: str) -> Any:
  """The value of a recipe's field. ValueError, OverflowError, re.error: the text is none that the field can have."""
  if field == "frozen":
    return re.compile(text).pattern
  value = float(text)
  if not math.isfinite(value) or value < _LEAST.get(field, 0.0) or (kind is int and value != int(value)):
    raise ValueError(text)
  if (field in ("lr", "epochs") and not value) or (field == "warmup" and value > 1):
    raise ValueError(text)
  return kind(value)
