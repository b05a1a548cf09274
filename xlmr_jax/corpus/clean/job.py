"""What the stages of a build know: the job, and what the pieces have of each language."""

import contextlib
import dataclasses
import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.languages import LANGUAGES, normal_code
from xlmr_jax.corpus.reference import Reference
from xlmr_jax.corpus.sources import Source
from xlmr_jax.corpus.stages import Item
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, P, any_path, parse_json, read_bytes, read_json, whole_file
from xlmr_jax.names import below


@dataclasses.dataclass(frozen=True)
class Job:
  """What the stages need to know. All workers see `folder` under the same path."""

  folder: AnyPath  # of the unfinished build, inside the folder of clean text
  source: Source
  root: str  # what the paths of all files of the source begin with; what is written names a file by the rest
  language_id: str  # "cld2" or "fasttext:FILE"
  language_id_sha256: str
  sure: bool  # whether to leave out documents whose language is not sure
  languages: tuple[str, ...]  # only these are written; all if it is empty
  near_duplicates: bool
  rehydrate: bool
  mask_personal_data: bool
  opt_out: str  # file, or ""
  reference: Reference | None  # of which limits are learnt, for its languages
  keep_removed: bool  # whether all that is removed is written, not only samples of it
  piece_bytes: int  # of text, that a worker holds at a time
  file_bytes: int  # of text, from which on another file of clean text begins
  compress: bool
  known: tuple[str, ...] = ()  # languages that CC-100 does not have, of the finished build that this one adds languages to

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"folder": os.fspath(self.folder)}

  def __setstate__(self, state: dict[str, Any]) -> None:
    # A bucket's path needs its client, which a worker that has just begun does not have yet.
    self.__dict__.update(state | {"folder": any_path(state["folder"])})

  def path(self, *names: str) -> AnyPath:
    """A path in the folder of the unfinished build. UserError: it would lead out of it."""
    return below(self.folder, *names)

  @property
  def out(self) -> AnyPath:
    """The folder of clean text. In a bucket, each build has a folder of its own in the one for unfinished builds."""
    return self.folder.parent if isinstance(self.folder, Path) else self.folder.parent.parent

  def wants(self, language: str) -> bool:
    """Whether text of a language is written."""
    return not self.languages or language in self.languages

  def knows(self, language: str) -> bool:
    """Whether a language is one that a corpus may have: of CC-100's, asked for, or there already."""
    return language in LANGUAGES or language in self.languages or language in self.known


@dataclasses.dataclass(frozen=True)
class JobStage:
  """What the stages share."""

  job: Job

  @property
  def folder(self) -> AnyPath:
    return self.job.path(self.name)  # pyright: ignore[reportAttributeAccessIssue]


def removed_path(stage: JobStage, item: int) -> AnyPath:
  """The piece with all that an item of a stage removed."""
  return stage.folder / f"{item:07d}.removed.npz"


class Clock:
  """The processor's seconds that each step takes."""

  def __init__(self) -> None:
    self.seconds: defaultdict[str, float] = defaultdict(float)

  @contextlib.contextmanager
  def __call__(self, step: str) -> Iterator[None]:
    """Counts what the block takes."""
    began = time.process_time()
    yield
    self.seconds[step] += time.process_time() - began


@dataclasses.dataclass(frozen=True)
class Part:
  """What a piece has of one language."""

  piece: str  # name
  documents: int
  paragraphs: int
  hashes: int
  bytes: int


def is_over(job: Job) -> bool:
  """Whether another process has finished a build in a bucket, where the folder that is gone would not be missed."""
  if isinstance(job.folder, Path):
    return False
  try:
    return read_json(job.folder.parent / "job.json").get("folder") != job.folder.name
  except FileNotFoundError:
    return True


def language_path(folder: P, language: str, ending: str = "") -> P:
  """A language's folder, or its file with an ending. UserError: what an outcome calls a language is no code of one."""
  if not normal_code(language):
    raise UserError(f"{folder}: {str(language)[:80]!r} is no code of a language, so that nothing is written under that name")
  return below(folder, f"{language}{ending}")


def load_parts(job: Job, name: str, make: Callable[[Job], dict[str, list[Part]]]) -> dict[str, list[Part]]:
  """The result of make(job), which is stored in a file: a worker should not have to read all outcomes for each item."""
  path = job.path(name)
  if isinstance(path, Path):
    if not path.exists():
      write_parts(path, make(job))
    parts = _read_parts(str(path), path.stat().st_mtime_ns)
  else:  # No other build has this path, and asking for its time would be a request each time.
    try:
      parts = _read_parts(str(path), 0)
    except FileNotFoundError:
      write_parts(path, make(job))
      parts = _read_parts(str(path), 0)
  return parts


def items_by_file(parts: dict[str, list[Part]], file_bytes: int) -> list[Item]:
  """Items (NAME, number of its file, first part, end), of as many parts beside each other as fill a file with text."""
  items: list[Item] = []
  for name, own in parts.items():
    first, size, number = 0, 0, 0
    for index, part in enumerate(own):
      size += part.bytes
      if size >= file_bytes or index == len(own) - 1:
        items.append(Item(len(items), size, (name, number, first, index + 1)))
        first, size, number = index + 1, 0, number + 1
  return items


def write_parts(path: AnyPath, parts: dict[str, list[Part]]) -> None:
  """Writes what load_parts reads, as JSON: others may write into the folder too, and a pickle would run what they wrote."""
  rows = {language: [dataclasses.astuple(part) for part in found] for language, found in parts.items()}
  with whole_file(path, many_writers=True) as unfinished:
    unfinished.write_text(json.dumps(rows), encoding="utf-8")


@functools.lru_cache(4)
def _read_parts(path: str, _: int) -> dict[str, list[Part]]:
  try:
    rows = parse_json(read_bytes(path))
    parts = {language: [Part(*row) for row in found] for language, found in rows.items()}
    for language, found in parts.items():  # Many files are named by these.
      below(Path(path).parent, language, *(part.piece for part in found))
    return parts
  except (ValueError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: cannot be read ({error}); remove it, and it is made again") from None
