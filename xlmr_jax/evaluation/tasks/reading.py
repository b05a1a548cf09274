"""What the readers of tasks share: finding files, reading lines, and saying which records are left out.

A reader knows the shape of its file. A record that cannot be right is refused with file and number, unless its field has a
convention for "not known": then it is left out, counted, and said.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.data.tfds_features import refuse_foreign_features
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.registry import Task

_HALF_PAIR = re.compile("[\ud800-\udfff]")  # half of a UTF-16 surrogate pair, which JSON can hold and UTF-8 cannot
_MARK = re.compile("(?P<mark>en:|else:)?(?P<pattern>.*)")  # how a pattern of look_up may begin


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


class Found(NamedTuple):
  """The files of a split, sorted. is_of_language: their names say that all of their records are in the language."""

  paths: list[Path]
  is_of_language: bool


def find(
  folder: str | Path, task: Task, language: str, split: str, patterns: Mapping[str, tuple[str, ...]], **names: str
) -> list[Path]:
  """The files of a split; see look_up."""
  return look_up(folder, task, language, split, patterns, **names).paths


def look_up(
  folder: str | Path, task: Task, language: str, split: str, patterns: Mapping[str, tuple[str, ...]], **names: str
) -> Found:
  """The files of a split: those that match the one of its patterns that any file under `folder` matches.

  patterns: by split, with {language} and the keys of `names`. "en:FILE" is for English alone, and "else:FILE" is looked for
  where there is none of the others. For translate-test, `test_translated` reads a test set that was translated into the
  training language: `sw.test.translated.tsv`, or `sw.translated.tsv`, or as patterns["test_translated"] names it; so do the
  other splits by their own names. The training language needs no such file.
  Raises UserError: there is no such split or language, or several files could be meant; MissingError: there is none.
  """
  given = split.removesuffix("_translated")
  if given not in patterns:
    known = [name for name in patterns if not name.endswith("_translated")]
    raise UserError(f"{task.name} has no split {split!r} with labels; there are {', '.join(known)}")
  if language not in (*task.languages, task.train_language):
    raise UserError(f"{task.name} has no language {language!r}; there are {', '.join(task.languages)}")
  wanted = patterns[given]
  if split != given and language != task.train_language:
    short_name = f"{{language}}.translated{PurePath(patterns[given][0]).suffix}"  # It means the test set.
    wanted = (*(name for pattern in wanted if (name := _translated(pattern)) != short_name), *patterns.get(split, ()))
    wanted += (short_name,) if given == "test" else ()
  marks = [_MARK.fullmatch(pattern) for pattern in wanted]
  choices = [(mark["mark"] == "else:", mark["pattern"], mark["pattern"].format(language=language, **names))
             for mark in marks if mark and (mark["mark"] != "en:" or language == "en")]  # fmt: skip
  all_names = ", ".join(name for *_, name in choices) or "nothing"
  if not Path(folder).is_dir():
    raise MissingError(f"{folder}: no such folder; {task.name} looks in it for {all_names}")
  found = [
    (is_last_resort, pattern, paths)
    for is_last_resort, pattern, name in choices
    if (paths := sorted(path for path in Path(folder).glob(name) if path.is_file()))
  ]
  found = [choice for choice in found if not choice[0]] or found[:1]
  if not found:
    raise MissingError(f"{folder}: no {split} of {task.name} in {language}; looked for {all_names}")
  _refuse_several([paths for *_, paths in found], f"the {split} of {task.name} in {language}")
  _, pattern, paths = found[0]
  return Found(paths, "{" in pattern or f"en:{pattern}" in wanted or len(task.languages) == 1)


def _translated(pattern: str) -> str:
  """The pattern of a file's translation: .translated before the end of its name that says what kind of file it is."""
  suffix = PurePath(pattern).suffix
  return f"{pattern.removesuffix(suffix)}.translated{suffix}"


def _refuse_several(found: list[list[Path]], what: str) -> None:
  """UserError if files of several patterns, or several of one name, could be meant; links to the same files are no others.

  found: per pattern its files.
  """
  first, *others = found
  at = {path.resolve() for path in first}
  for paths in others:
    if {path.resolve() for path in paths} != at:
      raise UserError(f"{first[0]} and {paths[0]} are both {what}; keep one of them in that folder")
  by_name: dict[str, Path] = {}
  for path in first:
    if by_name.setdefault(path.name, path).resolve() != path.resolve():
      raise UserError(f"{by_name[path.name]} and {path} are both {what}; keep one of them in that folder")


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
  task: Task, language: str, split: str, source: tuple[str, str] | None, parse: Callable[[dict, Mapping, str], Any],
  why: str = "rows, whose text is not given",
) -> list:  # fmt: skip
  """The examples of a split in TensorFlow Datasets.

  source: (dataset, its split), or None where TFDS has none. parse: (row, the dataset's features, where the row is from)
  -> an example, or None for a row to leave out. why: what such rows are, for a message.
  Raises MissingError: TFDS has no such data; UserError: it cannot get them, or parse refuses a row.
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
  say_left_out(f"tfds {source[0]}, {source[1]}", len(rows) - len(examples), len(rows), why)
  return examples


def tfds_rows(name: str, split: str) -> tuple[list[dict], Mapping]:
  """(rows as NumPy values, features) of a TFDS dataset, downloaded if need be.

  Raises MissingError: the dataset has no such config, which is known before a download, or no such split; UserError: TFDS
  cannot get it.
  """
  import tensorflow_datasets as tfds

  refuse_foreign_features(name)
  dataset, _, config = name.partition("/")
  try:
    configs = [known.name for known in tfds.builder_cls(dataset).BUILDER_CONFIGS] if config else []
    if configs and config not in configs:
      raise MissingError(f"tfds {name}, split {split}: {dataset} has no {config}; give a folder of files")
    builder: Any = tfds.builder(name)
    builder.download_and_prepare()
    if split not in builder.info.splits:
      there = ", ".join(builder.info.splits)
      raise MissingError(f"tfds {name}, split {split}: it has only {there}; give a folder of files with a {split}")
    return list(tfds.as_numpy(builder.as_dataset(split=split))), builder.info.features
  except MissingError:
    raise
  except Exception as error:  # TFDS passes on what TensorFlow, the network and the file system raise.
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(f"tfds {name}, split {split}: {reason}; prepare it with `tfds build {name}`, or give files") from error
