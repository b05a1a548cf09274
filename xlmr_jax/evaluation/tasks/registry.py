"""What a downstream task is, and the list of them.

A task is a declaration: how its files are read, which head it puts on the encoder, its metric, its languages and its
fine-tuning recipe. Reading, encoding and scoring are in sentence.py, tagging.py and span.py, training in finetune.py.
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from xlmr_jax.errors import UserError
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS


class Text(NamedTuple):
  """An example of a sentence task. pair: the second text, "" for none; label: index into Task.labels, or a number."""

  text: str
  pair: str
  label: float


class Tagged(NamedTuple):
  """An example of a tagging task: words, and per word a tag of Task.labels."""

  words: tuple[str, ...]
  tags: tuple[str, ...]
  spaced: bool = True  # False: the words follow one another without spaces, as in Thai


class Question(NamedTuple):
  """An example of a span task. answers: (text, character offset in context) of each accepted one."""

  id: str
  question: str
  context: str
  answers: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a task is fine-tuned: AdamW (0.9, 0.999, 1e-8), linear warmup and decay to 0, gradients clipped at norm 1.0.

  Each Task says where its recipe comes from.
  """

  lr: float
  batch: int  # examples, or pieces of long contexts, of all devices together
  epochs: float
  max_len: int  # tokens of a row, with <s> and </s>; longer texts are cut, longer contexts become several rows
  warmup: float = 0.1  # share of the steps
  weight_decay: float = 0.0
  max_steps: int = 0  # training ends after so many steps if the epochs take longer; 0: no such limit
  frozen: str = ""  # pattern of the paths of the encoder's parameters that stay as pretrained, such as "embed"; "": none
  doc_stride: int = 128  # tokens between the starts of the pieces of a context (span tasks)
  max_question: int = 64  # tokens (span tasks)
  max_answer: int = 30  # tokens (span tasks)


@dataclasses.dataclass(frozen=True)
class Task:
  """A task. languages: of its evaluation files; train_language: of zero-shot training. ValueError: no such kind of head."""

  name: str
  head: str  # SENTENCE, WORDS or SPAN
  labels: tuple[str, ...]  # of sentence and word heads; (): a number (sentence), or a span
  metrics: tuple[str, ...]  # names in metrics.py; the first is the task's score
  languages: tuple[str, ...]
  recipe: Recipe
  reader: Callable[..., list]  # (folder, task, language, split) -> the examples of a split in a language
  chance: float = 0.0  # what guessing scores
  train_language: str = "en"
  dev_split: str = "dev"
  test_split: str = "test"

  def __post_init__(self) -> None:
    if self.head not in (SENTENCE, WORDS, SPAN):
      raise ValueError(f"task {self.name}: head={self.head!r}: must be one of {SENTENCE}, {WORDS}, {SPAN}")

  def load(self, folder: str | Path, language: str, split: str) -> list:
    """The examples of a split ("train", or as dev_split and test_split name them) in a language."""
    return self.reader(folder, self, language, split)


TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
  """Adds a task and returns it. The modules here call it, and so does a user's own. ValueError: the name is taken."""
  if task.name in TASKS:
    raise ValueError(f"there is a task {task.name} already")
  TASKS[task.name] = task
  return task


def load_modules(names: Sequence[str], data: str | os.PathLike | None = None) -> None:
  """Imports a user's modules, which call register(). UserError: one cannot be imported, or registers a task twice.

  Modules are also looked for in the current folder, which an installed command does not search by itself.
  data: a folder of data, whose config.json may have named the modules. What lies in it is not imported, because whoever
  only opens somebody else's run must not run code that came with it. UserError.
  """
  if names and os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
  for name in names:
    try:
      if data is not None:
        _refuse_code_in(Path(data), name)
      importlib.import_module(name)
    except Exception as error:  # A user's module can raise anything.
      reason = str(error) if isinstance(error, (ImportError, UserError)) else f"{type(error).__name__}: {error}"
      raise UserError(f"config.evaluate.modules: {name!r} cannot be imported ({' '.join(reason.split())}); run the command "
                      "where the module is found, or set PYTHONPATH") from None  # fmt: skip


def _refuse_code_in(folder: Path, name: str) -> None:
  """UserError if a module, or a package that it is in, lies in a folder of data."""
  parts, home = name.split("."), os.path.realpath(folder)
  for end in range(1, len(parts) + 1):  # find_spec imports the packages before the last part, which were looked at before.
    spec = importlib.util.find_spec(".".join(parts[:end]))
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else []
    if any(Path(os.path.realpath(place)).is_relative_to(home) for place in places if os.path.isabs(place)):
      raise UserError(f"{folder} is data, and code in it is not run; move the module to a folder of yours")


def get(name: str) -> Task:
  """The task of a name. UserError, with all names, when there is none."""
  if name not in TASKS:
    raise UserError(f"no task {name!r}; there are {', '.join(sorted(TASKS))}; a module of your own is named by "
                    "config.evaluate.modules")  # fmt: skip
  return TASKS[name]


def names(text: str) -> tuple[str, ...]:
  """The words of a text, for lists of languages and labels."""
  return tuple(text.split())
