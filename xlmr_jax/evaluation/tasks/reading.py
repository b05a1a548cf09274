"""What the readers of tasks share: finding files, reading lines, and saying which records are left out.

A reader knows the shape of its file. A record that cannot be right is refused with file and number, unless its field has a
convention for "not known": then it is left out, counted, and said.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.data.tfds_features import refuse_foreign_features
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.registry import Task

_HALF_PAIR = re.compile("[\ud800-\udfff]")  # half of a UTF-16 surrogate pair, which JSON can hold and UTF-8 cannot


class MissingError(UserError):
  """There is no file of a split in a language. The other languages of the task can still be scored."""


def say_left_out(path: str | Path, left_out: int, of: int, why: str) -> None:
  """Says that a file's records are left out by the convention of their field. why: what they are, and the first of them."""
  if left_out:
    print(f"{path}: left out {left_out} of {of} {why}", file=sys.stderr, flush=True)


def refuse_half_pair(text: str, where: str) -> None:
  """UserError for a text that no tokenizer can read, because it holds half of a surrogate pair."""
  found = _HALF_PAIR.search(text)
  if found:
    raise UserError(f"{where}: \\u{ord(found[0]):04x} is half of a surrogate pair, and no character; mend or remove it")


# --- files -------------------------------------------------------------------------------------------------------


def find(
  folder: str | Path, task: Task, language: str, split: str, patterns: Mapping[str, tuple[str, ...]], **names: str
) -> list[Path]:
  """The files of a split, sorted: those that match the first of its patterns that any file under `folder` matches.

  patterns: by split, with {language} and the keys of `names`; "en:FILE" is for English alone. For translate-test,
  `test_translated` reads a test set that was translated into the training language: `sw.test.translated.tsv`, or
  `sw.translated.tsv`; so do the other splits by their own names. The training language needs no such file.
  Raises UserError: there is no such split or language; MissingError: there is none of the files.
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
    raise MissingError(f"{folder}: no such folder; {task.name} looks in it for {', '.join(wanted)}")
  for pattern in wanted:
    if paths := sorted(path for path in Path(folder).glob(pattern) if path.is_file()):
      return paths
  raise MissingError(f"{folder}: no {split} of {task.name} in {language}; looked for {', '.join(wanted) or 'nothing'}")


def lines(path: Path) -> Iterator[tuple[int, str]]:
  """Yields (number from 1, line without its end) of a UTF-8 file. UserError: it is empty, not UTF-8, or not to be read."""
  number = 0
  try:
    with open(path, "rb") as file:
      for number, line in enumerate(file, 1):
        yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
  except UnicodeDecodeError as error:
    raise UserError(f"{path}:{number}: byte {error.start + 1} is not UTF-8; convert the file, e.g. with iconv") from None
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}") from None
  if not number:
    raise UserError(f"{path}: an empty file")


# --- rows ----------------------------------------------------------------------------------------------------------


def pad(rows: list, length: int, fill: int) -> np.ndarray:
  """int32[n, length] of n rows of at most that length, each filled up with `fill`."""
  padded = np.full((len(rows), length), fill, np.int32)
  for line, row in zip(padded, rows):
    line[: len(row)] = row
  return padded


# --- TensorFlow Datasets ---------------------------------------------------------------------------------------------


def read_tfds(
  task: Task, language: str, split: str, source: tuple[str, str] | None, parse: Callable[[dict, Mapping, str], Any]
) -> list:
  """The examples of a split in TensorFlow Datasets.

  source: (dataset, its split), or None where TFDS has none. parse: (row, the dataset's features, where the row is from)
  -> an example, or None for a row to leave out.  Raises MissingError: TFDS has no such data; UserError: it cannot get
  them, or parse refuses a row.
  """
  if source is None:
    raise MissingError(f"tfds has no {split} of {task.name} in {language}; give a folder of files")
  rows, features = tfds_rows(*source)
  examples = []
  for i, row in enumerate(rows):
    where = f"tfds {source[0]}, {source[1]}, example {i}"
    try:
      example = parse(row, features, where)
    except (UnicodeDecodeError, KeyError, TypeError, IndexError) as error:
      raise UserError(f"{where}: not as {task.name} is stored in TFDS ({error!r})") from None
    if example is not None:
      examples.append(example)
  say_left_out(f"tfds {source[0]}, {source[1]}", len(rows) - len(examples), len(rows), "rows, whose text is not given")
  return examples


def tfds_rows(name: str, split: str) -> tuple[list[dict], Mapping]:
  """(rows as NumPy values, features) of a TFDS dataset, downloaded if need be. UserError: TFDS cannot get it."""
  import tensorflow_datasets as tfds

  refuse_foreign_features(name)
  try:
    builder: Any = tfds.builder(name)
    builder.download_and_prepare()
    return list(tfds.as_numpy(builder.as_dataset(split=split))), builder.info.features
  except Exception as error:  # TFDS passes on what TensorFlow, the network and the file system raise.
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(f"tfds {name}, split {split}: {reason}; prepare it with `tfds build {name}`, or give files") from error
