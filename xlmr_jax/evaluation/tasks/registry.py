"""What a downstream task is, and the list of them.

A task is a declaration: how its files are read, which head it puts on the encoder, its metric, its languages and its
fine-tuning recipe. Reading, encoding and scoring are in sentence.py, tagging.py and span.py, training in finetune.py.
"""

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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


def load_modules(names: Sequence[str]) -> None:
  """Imports a user's modules, which call register(). UserError: one cannot be imported, or registers a task twice.

  Modules are also looked for in the current folder, which an installed command does not search by itself.
  """
  if names and os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
  for name in names:
    try:
      importlib.import_module(name)
    except (ImportError, ValueError, SyntaxError) as error:
      raise UserError(f"config.evaluate.modules: {name!r} cannot be imported ({error}); run the command where the module "
                      "is found, or set PYTHONPATH") from None  # fmt: skip


def get(name: str) -> Task:
  """The task of a name. UserError, with all names, when there is none."""
  if name not in TASKS:
    raise UserError(f"no task {name!r}; there are {', '.join(sorted(TASKS))}; a module of your own is named by "
                    "config.evaluate.modules")  # fmt: skip
  return TASKS[name]


# --- what the readers share --------------------------------------------------------------------------------------


def find(
  folder: str | Path, task: Task, language: str, split: str, patterns: Mapping[str, tuple[str, ...]], **names: str
) -> list[Path]:
  """The files of a split, sorted: those that match the first of its patterns that any file under `folder` matches.

  patterns: by split, with {language} and the keys of `names`; "en:FILE" is for English alone. For translate-test,
  `test_translated` reads a test set that was translated into the training language: `sw.test.translated.tsv`, or
  `sw.translated.tsv`; so do the other splits by their own names. The training language needs no such file.
  Raises UserError: there is no such split or language, or none of the files.
  """
  given = split.removesuffix("_translated")
  if given not in patterns:
    raise UserError(f"{task.name} has no split {split!r} with labels; there are {', '.join(patterns)}")
  if language not in (*task.languages, task.train_language):
    raise UserError(f"{task.name} has no language {language!r}; there are {', '.join(task.languages)}")
  wanted = [
    pattern.removeprefix("en:").format(language=language, **names)
    for pattern in patterns[given]
    if language == "en" or not pattern.startswith("en:")
  ]
  if split != given and language != task.train_language:
    stems = [pattern.rpartition(".") for pattern in wanted]
    short_name = f"{language}.translated.{patterns[given][0].rpartition('.')[2]}"  # It means the test set.
    wanted = [name for stem, _, suffix in stems if (name := f"{stem}.translated.{suffix}") != short_name]
    wanted += [short_name] if given == "test" else []
  if not Path(folder).is_dir():
    raise UserError(f"{folder}: no such folder; {task.name} looks in it for {', '.join(wanted)}")
  for pattern in wanted:
    if paths := sorted(path for path in Path(folder).glob(pattern) if path.is_file()):
      return paths
  raise UserError(f"{folder}: no {split} of {task.name} in {language}; looked for {', '.join(wanted) or 'nothing'}")


def lines(path: Path) -> Iterator[tuple[int, str]]:
  """Yields (number from 1, line without its end) of a UTF-8 file. UserError: it is empty, or in another encoding."""
  number = 0
  with open(path, "rb") as file:
    for number, line in enumerate(file, 1):
      try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
      except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: byte {error.start + 1} is not UTF-8; convert the file, e.g. with iconv") from None
      yield number, text.rstrip("\r\n")
  if not number:
    raise UserError(f"{path}: an empty file")


def names(text: str) -> tuple[str, ...]:
  """The words of a text, for lists of languages and labels."""
  return tuple(text.split())


def pad(rows: list, length: int, fill: int) -> np.ndarray:
  """int32[n, length] of n rows of at most that length, each filled up with `fill`."""
  padded = np.full((len(rows), length), fill, np.int32)
  for line, row in zip(padded, rows):
    line[: len(row)] = row
  return padded


def read_tfds(
  task: Task, language: str, split: str, source: tuple[str, str] | None, parse: Callable[[dict, Mapping, str], Any]
) -> list:
  """The examples of a split in TensorFlow Datasets.

  source: (dataset, its split), or None where TFDS has none. parse: (row, the dataset's features, where the row is from)
  -> an example.  Raises UserError: TFDS has no such data, or cannot get them, or parse refuses a row.
  """
  if source is None:
    raise UserError(f"tfds has no {split} of {task.name} in {language}; give a folder of files")
  rows, features = tfds_rows(*source)
  return [parse(row, features, f"tfds {source[0]}, {source[1]}, example {i}") for i, row in enumerate(rows)]


def tfds_rows(name: str, split: str) -> tuple[list[dict], Mapping]:
  """(rows as NumPy values, features) of a TFDS dataset, downloaded if need be. UserError: TFDS cannot get it."""
  import tensorflow_datasets as tfds

  try:
    builder: Any = tfds.builder(name)
    builder.download_and_prepare()
    return list(tfds.as_numpy(builder.as_dataset(split=split))), builder.info.features
  except Exception as error:  # TFDS passes on what TensorFlow, the network and the file system raise.
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(f"tfds {name}, split {split}: {reason}; prepare it with `tfds build {name}`, or give files") from error
