"""What a build of a corpus will cost, said before it begins: the heads of some files are built for a trial, and scaled."""

import dataclasses
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.clean.build import MANIFEST, WORK, Inputs, Options, check, new_job, normal_languages
from xlmr_jax.corpus.clean.duplicates import Clusters, Pairs
from xlmr_jax.corpus.clean.filter import SAMPLE_CHARACTERS, Filter, Learn
from xlmr_jax.corpus.clean.finish import languages_left_out
from xlmr_jax.corpus.clean.gather import Gather
from xlmr_jax.corpus.clean.heads import take_heads
from xlmr_jax.corpus.clean.job import Job, removed_path, write_parts
from xlmr_jax.corpus.clean.read import RANGES, Read, parts_by_language, write_shards
from xlmr_jax.corpus.clean.repeats import Paragraphs, ranges_of
from xlmr_jax.corpus.clean.write import Write
from xlmr_jax.corpus.memory import resident
from xlmr_jax.corpus.near_duplicates import BANDS
from xlmr_jax.corpus.sources import Source
from xlmr_jax.corpus.stages import Stage, finish, outcomes
from xlmr_jax.corpus.workers import cores
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, read_json, size_of
from xlmr_jax.folders import files_below

_LANGUAGES = 3  # of the most text, that go through the stages after reading; smaller ones would make each call too small
_SECONDS_PER_KEY = 2e-7  # that sorting takes for a hash of a paragraph or a band of a document (ours)
# Memory (ours, from builds with pieces of 4 to 32 MB): of a worker beyond what this process has; and bytes per byte of a
# piece, per hash of a partition and per document of a language, of which one stage has the one and another stage the other.
_BLOCKS, _PER_PIECE_BYTE, _PER_HASH, _PER_DOCUMENT = 100 << 20, 6, 60, 60
_SURELY = 0.8  # the share of the forecast for the disk without which a build is refused


@dataclasses.dataclass(frozen=True)
class Forecast:
  """What a build will take. Sizes are bytes."""

  files: int
  shards: int
  stored: int  # the size of the input on its disk
  text: int  # and of the text in it
  documents: int
  languages: int
  core_seconds: dict[str, float]  # by step
  workers: int
  worker_memory: int
  between_stages: int  # the size of the files that go when the build is finished
  clean: int  # of the clean text
  removed: int  # and of the removed text, if all of it is kept
  free: int | None  # on the disk of --out; None in a bucket
  largest_partition: int  # of the hashes that a worker sorts at a time
  largest_language: str
  sample: int  # text that was built for a trial
  sample_seconds: float

  @property
  def disk(self) -> int:
    """What the disk of --out must have free."""
    return self.between_stages + self.clean + self.removed

  @property
  def core_hours(self) -> float:
    """Of all steps."""
    return sum(self.core_seconds.values()) / 3600

  @property
  def hours(self) -> float:
    """By the clock, if each worker has a core and none waits."""
    return self.core_hours / max(1, min(self.workers, self.shards))

  def lines(self) -> list[str]:
    """What a user should know before it begins."""
    steps = ", ".join(f"{step} {_duration(seconds)}" for step, seconds in self.core_seconds.items())
    removed = f", {_size(self.removed)} for what is removed," if self.removed else ""
    waiting = f"; the source has only {self.shards} parts to read" if self.shards < self.workers else ""
    return [
      f"reads {self.files:,} files of {_size(self.stored)}, which hold about {_size(self.text)} of text in "
      f"{self.documents:,} documents in at least {self.languages} languages",
      f"takes about {_duration(3600 * self.core_hours)} of one core, {_duration(3600 * self.hours)} with {self.workers} "
      f"workers{waiting}: {steps}",
      f"needs about {_size(self.worker_memory)} of memory per worker; the largest partition of hashes, of "
      f"{self.largest_language}, has {_size(self.largest_partition)}",
      f"needs about {_size(self.disk)} of disk, {_size(self.clean)} of it for clean text{removed} and the rest until it is "
      "finished" + (f"; {_size(self.free)} are free" if self.free is not None else ", in the bucket"),
    ]

  def to_json(self) -> dict[str, Any]:
    """All of it, for programs."""
    return {
      **dataclasses.asdict(self),
      "core_seconds": {step: round(seconds, 1) for step, seconds in self.core_seconds.items()},
      "core_hours": round(self.core_hours, 4),
      "hours": round(self.hours, 4),
      "disk": self.disk,
      "sample_seconds": round(self.sample_seconds, 2),
    }

  def refuse_too_small_a_disk(self, out: AnyPath) -> None:
    """Raises UserError: the disk of `out` surely has not enough room."""
    if self.free is not None and self.free < _SURELY * self.disk:
      raise UserError(
        f"--out={out}: the build needs about {_size(self.disk)} of disk, {_size(self.clean)} of it for clean text, and "
        f"{_size(self.free)} are free; choose another disk or a part of the source"
      )


def languages_to_come(out: AnyPath, languages: Iterable[str] | None = None) -> list[str] | None:
  """The languages of which all cost of a build into `out` is still to come; [] for all. None: a part of it is done already.

  languages: what the user asked for. Into a finished build of some languages come these, or by default the rest.
  """
  asked = normal_languages(languages)
  if (out / WORK / "job.json").exists():
    return None
  if asked or not (out / MANIFEST).exists():
    return asked
  manifest = read_json(out / MANIFEST)
  return languages_left_out(manifest) or None if "steps" in manifest else None  # None: it is another command's


def forecast(
  source: Source,
  out: AnyPath,
  options: Options,
  *,
  languages: Iterable[str] | None = None,
  workers: int | None = None,
  inputs: Inputs | None = None,
) -> Forecast:
  """The cost of build_corpus with the same arguments. It writes nothing but a small folder for a time, elsewhere.

  What options.rehydrate would add and options.opt_out would take away is not counted.
  Raises UserError as build_corpus does for flags that do not go together, and if no text was found in the heads.
  """
  began = time.monotonic()
  workers, languages = cores() if workers is None else workers, normal_languages(languages)
  check(options, workers, languages)
  inputs = inputs or Inputs(source, options)
  shards = inputs.shards
  sizes: Counter[str] = Counter()
  for shard in shards:
    sizes[shard.name] += shard.size
  stored = sum(sizes.values())
  with tempfile.TemporaryDirectory() as folder:
    trial = _try(inputs, options, languages, Path(folder))
  if not trial.text:
    heads = ", ".join(sorted(trial.names))
    raise UserError(f"no text was found in the first bytes of {heads}; is --source right?")
  text = stored * trial.expansion
  scale = text / trial.text
  bytes_by_language = {language: size * scale for language, size in trial.languages.items()}
  labelled: Counter[str] = Counter()
  for shard in shards:
    labelled[shard.language or ""] += shard.size
  if not labelled[""]:
    bytes_by_language = {language: size * trial.expansion for language, size in labelled.items() if size}
  wanted = {language: size for language, size in bytes_by_language.items() if not languages or language in languages}
  largest = max(wanted, key=lambda language: wanted[language], default="")
  share = sum(wanted.values()) / max(1, sum(bytes_by_language.values()))
  hashes, documents = trial.hashes * scale, trial.documents * scale
  learnt = sum(min(SAMPLE_CHARACTERS, size) for size in wanted.values())
  seconds = {step: spent * scale for step, spent in trial.read_seconds.items()}
  per_byte = {step: spent / max(1, trial.later_text) for step, spent in trial.later_seconds.items()}
  seconds["learn"] = per_byte.pop("learn") * learnt
  compared = hashes + (BANDS * documents if options.near_duplicates else 0)
  seconds["compare"] = (compared * _SECONDS_PER_KEY + trial.compare_seconds * len(wanted)) * share
  seconds |= {step: spent * sum(wanted.values()) for step, spent in per_byte.items()}
  later = sum(wanted.values()) / max(1, trial.later_text)
  largest_share = wanted.get(largest, 0) / max(1, text)
  largest_hashes = int(hashes * largest_share)
  in_partition = largest_hashes / min(RANGES, ranges_of(largest_hashes))
  piece = min(options.piece_mb * 1e6, trial.expansion * max(shard.size for shard in shards))
  held = max(_PER_PIECE_BYTE * piece, _PER_HASH * in_partition, _PER_DOCUMENT * documents * largest_share)
  return Forecast(
    files=len(sizes),
    shards=len(shards),
    stored=stored,
    text=round(text),
    documents=round(documents),
    languages=len(bytes_by_language),
    core_seconds={step: spent for step, spent in seconds.items() if spent},
    workers=workers,
    worker_memory=round(trial.memory + _BLOCKS + held),
    between_stages=round(trial.read_bytes * scale * share + trial.later_bytes * later + trial.read_removed * scale),
    clean=round(trial.clean_bytes * later),
    removed=round(trial.gathered_of_read * scale + trial.gathered_later * later),
    free=_free(out),
    largest_partition=round(12 * in_partition),  # 8 bytes of a hash, and 4 of the paragraph's number
    largest_language=largest,
    sample=trial.text,
    sample_seconds=time.monotonic() - began,
  )


@dataclasses.dataclass
class _Trial:
  """What a small build took."""

  names: set[str] = dataclasses.field(default_factory=set)  # of the files whose heads were read
  expansion: float = 0  # bytes of text per stored byte
  text: int = 0  # bytes that were read
  documents: int = 0
  hashes: int = 0
  languages: dict[str, int] = dataclasses.field(default_factory=dict)  # bytes
  read_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  read_bytes: int = 0  # of pieces
  read_removed: int = 0  # of what was removed while they were made, of any language
  later_text: int = 0  # bytes of the languages that went through the later stages
  later_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  later_bytes: int = 0  # between these stages
  compare_seconds: float = 0  # of one language, which has hardly any text
  clean_bytes: int = 0
  gathered_of_read: int = 0  # bytes of what Gather writes, again, of read_removed
  gathered_later: int = 0  # and of what the later stages removed
  memory: int = 0


def _try(inputs: Inputs, options: Options, languages: Sequence[str], folder: Path) -> _Trial:
  """Builds the heads of some shards in a folder, after a first one that only fills caches."""
  trial = _Trial()
  source, heads, trial.names, trial.expansion = take_heads(inputs.source, inputs.shards, folder)
  if not heads:
    return trial
  options = dataclasses.replace(options, rehydrate=False, opt_out="")
  for name, chosen in (("first", heads[:1]), ("second", heads)):
    job = new_job(folder / name, source, chosen, options, (), inputs.reference)
    job = dataclasses.replace(job, root="", known=tuple(languages))
    write_shards(job, chosen)
    _run(job, languages, trial)
  trial.memory = resident() or 400 << 20
  return trial


def _run(job: Job, languages: Sequence[str], trial: _Trial) -> None:
  """All stages but the last, of all languages up to the pieces, and then of the largest ones that are wanted."""
  read = Read(job)
  whole = _seconds(read)
  found = outcomes(read, read.items())
  steps: Counter[str] = Counter()
  for outcome in found:
    steps.update(outcome["seconds"])
  parts = parts_by_language(job)
  every = {language: sum(part.bytes for part in some) for language, some in parts.items()}
  trial.read_seconds = {**steps, "pieces": max(0.0, whole - sum(steps.values()))}
  trial.text = sum(outcome["counts"].get("bytes", 0) for outcome in found)
  trial.documents = sum(part.documents for some in parts.values() for part in some)
  trial.hashes = sum(part.hashes for some in parts.values() for part in some)
  trial.languages = every
  trial.read_removed = sum(size_of(removed_path(read, item.number)) for item in read.items()) if job.keep_removed else 0
  trial.read_bytes = _bytes_below(read.folder) - trial.read_removed
  wanted = [language for language in sorted(every, key=lambda language: -every[language])
            if not languages or language in languages][:_LANGUAGES]  # fmt: skip
  write_parts(job.path("parts.json"), {language: parts[language] for language in sorted(wanted)})
  trial.later_text = sum(every[language] for language in wanted)
  seconds = {stage: _seconds(stage(job)) for stage in (Paragraphs, Learn, Filter, Pairs, Clusters, Write, Gather)}
  trial.later_seconds = {"learn": seconds[Learn], "filter": seconds[Filter], "write": seconds[Write]}
  if job.keep_removed:
    trial.later_seconds["gather"] = seconds[Gather]
  trial.compare_seconds = (seconds[Paragraphs] + seconds[Pairs] + seconds[Clusters]) / max(1, len(wanted))
  stages = (Paragraphs(job), Filter(job), Pairs(job), Clusters(job), Write(job))
  trial.later_bytes = sum(_bytes_below(stage.folder) for stage in stages)
  trial.clean_bytes = _bytes_below(job.path("clean"))
  trial.gathered_of_read = _bytes_below(job.path("removed", "language"))
  trial.gathered_later = _bytes_below(job.path("removed")) - trial.gathered_of_read


def _seconds(stage: Stage) -> float:
  """What all items of a stage take of the processor."""
  began = time.process_time()
  for item in stage.items():
    finish(stage, item)
  return time.process_time() - began


def _bytes_below(folder: AnyPath) -> int:
  return sum(files_below(folder).values())


def _free(out: AnyPath) -> int | None:
  """The free bytes of the disk that a folder lies on or will lie on; None in a bucket."""
  if not isinstance(out, Path):
    return None
  return shutil.disk_usage(next(path for path in (out, *out.parents) if path.exists())).free


def _size(number: float) -> str:
  for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
    if number >= size:
      return f"{number / size:.3g} {unit}"
  return f"{number / 1e3:.3g} kB"


def _duration(seconds: float) -> str:
  for unit, size in (("h", 3600), ("min", 60)):
    if seconds >= size:
      return f"{seconds / size:.3g} {unit}"
  return f"{seconds:.2g} s"
