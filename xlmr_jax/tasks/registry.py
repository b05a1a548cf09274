"""What a downstream task is, and the list of them.

A task is a declaration: how its files are read, which head it puts on the encoder, its metric, its languages and its
fine-tuning recipe. Reading is in classification.py, tagging.py and question_answering.py, training in finetune.py.
"""

import dataclasses
import importlib
from typing import NamedTuple

from xlmr_jax.errors import UserError

# Heads, by the shape of what they predict: one label (or number) a text, one label a word, one span of the context.
SENTENCE, WORDS, SPAN = "sentence", "words", "span"
# How training and evaluation languages combine (Conneau et al. 2020, section 5.1). Translations are files like others.
SETTINGS = ("zero_shot", "per_language", "translate_train", "translate_train_all", "translate_test")


class Text(NamedTuple):
  """An example of a sentence task. pair: the second text, "" for none; label: index into Task.labels, or a number."""

  text: str
  pair: str
  label: float


class Tagged(NamedTuple):
  """An example of a tagging task: words and a tag each, as in Task.labels."""

  words: tuple[str, ...]
  tags: tuple[str, ...]


class Question(NamedTuple):
  """An example of a span task. answers: (text, character offset in context) of each accepted one."""

  id: str
  question: str
  context: str
  answers: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Fine-tuning: AdamW (0.9, 0.999, 1e-8), linear warmup and decay to 0, clip 1.0. Each Task says where its own is from."""

  lr: float
  batch: int  # examples, or pieces of long contexts, of all devices together
  epochs: float
  max_len: int  # tokens, with <s> and </s>; longer texts are cut, longer contexts strided
  warmup: float = 0.1  # share of the steps
  weight_decay: float = 0.0
  max_steps: int = 0  # ends sooner; 0: after the epochs
  doc_stride: int = 128  # tokens between the starts of the pieces of a context (span tasks)
  max_question: int = 64  # tokens (span tasks)
  max_answer: int = 30  # tokens (span tasks)


@dataclasses.dataclass(frozen=True)
class Task:
  """A task. languages: of its evaluation files; train_language: of zero-shot training."""

  name: str
  head: str
  labels: tuple[str, ...]  # of sentence and word heads; (): a number (sentence), or a span
  metrics: tuple[str, ...]  # names in metrics.py; the first is the task's score
  languages: tuple[str, ...]
  recipe: Recipe
  reader: str  # "module:function" in xlmr_jax.tasks or elsewhere: (folder, task, language, split) -> list of examples
  chance: float = 0.0  # what guessing scores
  train_language: str = "en"
  dev_split: str = "dev"
  test_split: str = "test"

  def load(self, folder, language: str, split: str) -> list:
    """The examples of a split ("train", or as dev_split and test_split name them) in a language."""
    module, function = self.reader.split(":")
    module = importlib.import_module(module if "." in module else f"xlmr_jax.tasks.{module}")
    return getattr(module, function)(folder, self, language, split)


TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
  """Adds a task; a user's own module calls it like the modules here."""
  if task.name in TASKS:
    raise ValueError(f"there is a task {task.name} already")
  TASKS[task.name] = task
  return task


def get(name: str) -> Task:
  """The task of a name. UserError, with all names, when there is none."""
  for module in ("classification", "tagging", "question_answering"):
    importlib.import_module(f"xlmr_jax.tasks.{module}")
  if name.startswith("demo_"):
    importlib.import_module("xlmr_jax.demo.tasks")
  if name not in TASKS:
    raise UserError(f"no task {name!r}; there are {', '.join(sorted(TASKS))}")
  return TASKS[name]
