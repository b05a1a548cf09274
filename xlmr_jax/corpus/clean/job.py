"""What the stages of a build know: the job, and what the pieces have of each language."""

import contextlib
import dataclasses
import functools
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.languages import LANGUAGES
from xlmr_jax.corpus.sources import Source
from xlmr_jax.files import whole_file


@dataclasses.dataclass(frozen=True)
class Job:
  """What the stages need to know. All workers see `folder` under the same path."""

  folder: Path  # of the unfinished build, inside the folder of clean text
  source: Source
  language_id: str  # "cld2" or "fasttext:FILE"
  language_id_sha256: str
  sure: bool  # whether to leave out documents whose language is not sure
  languages: tuple[str, ...]  # only these are written; all if it is empty
  near_duplicates: bool
  rehydrate: bool
  mask_personal_data: bool
  opt_out: str  # file, or ""
  piece_bytes: int  # of text, that a worker holds at a time
  file_bytes: int  # of text, from which on another file of clean text begins
  compress: bool

  def path(self, *names: str) -> Path:
    """A path in the folder of the unfinished build."""
    return self.folder.joinpath(*names)

  def wants(self, language: str) -> bool:
    """Whether text of a language is written."""
    return not self.languages or language in self.languages

  def knows(self, language: str) -> bool:
    """Whether a language is one that a corpus may have: of CC-100's, or asked for."""
    return language in LANGUAGES or language in self.languages


@dataclasses.dataclass(frozen=True)
class JobStage:
  """What the stages share."""

  job: Job

  @property
  def folder(self) -> Path:
    return self.job.path(self.name)  # pyright: ignore[reportAttributeAccessIssue]


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


def load_parts(job: Job, name: str, make: Callable[[Job], dict[str, list[Part]]]) -> dict[str, list[Part]]:
  """The result of make(job), which is stored in a file: a worker should not have to read all outcomes for each item."""
  path = job.path(name)
  if not path.exists():
    parts = make(job)
    with whole_file(path, many_writers=True) as unfinished:
      unfinished.write_bytes(pickle.dumps(parts))
    return parts
  return _unpickle(str(path), path.stat().st_mtime_ns)


@functools.lru_cache(4)
def _unpickle(path: str, _: int) -> Any:
  with open(path, "rb") as file:
    return pickle.load(file)
