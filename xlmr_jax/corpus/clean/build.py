"""From raw text, such as a crawl's, to clean text by language in CC-100's layout: what `xlmr build_corpus` does.

Nothing in a build is random, and nothing depends on who does which item. So the same text gives the same bytes with any
number of workers, on any runner, after any interruption, and language by language.
"""

import contextlib
import functools
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xlmr_jax.corpus import beam
from xlmr_jax.corpus.clean.begin import WORK, Options, begin, digest_reference, fingerprint_of
from xlmr_jax.corpus.clean.duplicates import Clusters, Pairs
from xlmr_jax.corpus.clean.filter import Filter, Learn
from xlmr_jax.corpus.clean.finish import MANIFEST, Finish
from xlmr_jax.corpus.clean.gather import Gather
from xlmr_jax.corpus.clean.job import Job, is_over
from xlmr_jax.corpus.clean.read import Read, common_root, write_shards
from xlmr_jax.corpus.clean.repeats import Paragraphs
from xlmr_jax.corpus.clean.rewritten import times_of
from xlmr_jax.corpus.clean.write import Write
from xlmr_jax.corpus.language_id import open_identifier
from xlmr_jax.corpus.languages import LANGUAGES, normal_code
from xlmr_jax.corpus.opt_outs import OptOuts
from xlmr_jax.corpus.reference import Reference
from xlmr_jax.corpus.sources import Shard, Source
from xlmr_jax.corpus.stages import Stage, outcomes, run_here, run_task
from xlmr_jax.corpus.workers import cores
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, lock, naming, read_json
from xlmr_jax.folders import remove_folder
from xlmr_jax.given_paths import refuse_unwritable

STEPS = ("language", "paragraphs", "filters", "near_duplicates", "opt_outs")


class Inputs:
  """What a build reads, looked up once, and only when it is asked for, because a long list of files takes its time."""

  def __init__(self, source: Source, options: Options):
    self.source, self._options = source, options

  @functools.cached_property
  def shards(self) -> list[Shard]:
    """Of the source. Raises UserError as it does, and for a file whose name could not be written into the results."""
    shards = self.source.shards(max(1, int(self._options.piece_mb * 1e6)))
    root = common_root(shards)
    for shard in shards:
      try:
        shard.name.removeprefix(root).encode("utf-8")
      except UnicodeEncodeError:
        shown = os.fsencode(shard.name).decode("utf-8", "backslashreplace")
        raise UserError(f"{shown}: the name of this file is not UTF-8; rename it") from None
    return shards

  @functools.cached_property
  def reference(self) -> Reference | None:
    """Of which limits are learnt. Raises UserError as Reference does."""
    return Reference(self._options.reference) if self._options.reference else None


def build_corpus(
  source: Source,
  out: AnyPath,
  options: Options,
  *,
  languages: Iterable[str] | None = None,
  workers: int | None = None,
  task: tuple[int, int] | None = None,
  beam_flags: Sequence[str] = (),
  quiet: bool = False,
  inputs: Inputs | None = None,
) -> dict[str, Any]:
  """Builds clean text in the folder `out`; returns the command's summary.

  languages: only these are written; into a finished build of the same text, which keeps its other languages. By default all,
  and of a finished build of some the rest. workers: all cores by default. task: (i, n) does the share of task i of n,
  without any engine. beam_flags: if there are any, Beam runs the build as they say. quiet: says nothing of the rates.
  inputs: of the same source and options, by whoever has looked them up already. A build that was interrupted goes on where
  it was.
  Raises UserError for whatever the user must mend; what is finished stays for the next try.
  """
  workers = cores() if workers is None else workers
  languages = normal_languages(languages)
  check(options, workers, languages)
  refuse_unwritable(out, folder=True)
  run_by_beam = beam.open_stages(list(beam_flags)) if beam_flags else None
  open_identifier(options.language_id, options.language_id_sha256)
  work = out / WORK
  inputs = inputs or Inputs(source, options)
  job = new_job(work, source, inputs.shards, options, languages, inputs.reference)
  with naming(out), contextlib.ExitStack() as open_files:
    reference = digest_reference(out, job.reference) if job.reference else {}
    fingerprint = fingerprint_of(options, inputs.shards, job.root, reference.get("sha256", ""))
    times = times_of(inputs.shards, job.root, source.times())
    if not (job := begin(out, fingerprint, job, reference, times)):
      return _summary(read_json(out / MANIFEST))
    write_shards(job, inputs.shards)
    if task is None:
      open_files.enter_context(lock(job.path("lock"), f"{out}: another build is working there; wait for it or stop it"))
    stages: list[Stage] = [stage(job) for stage in (Read, Paragraphs, Learn, Filter, Pairs, Clusters, Write, Gather)]
    stages.append(Finish(job, fingerprint))
    if task is not None:
      try:
        missing = run_task(stages, job.folder, *task, is_over=functools.partial(is_over, job))
      except (OSError, UserError):
        # Whichever task sees the end first removes the unfinished build, and the others look for their files in vain.
        is_gone = is_over(job) or not (work / "job.json").exists()
        if not is_gone or not (out / MANIFEST).exists():
          raise
        _put_away(job)
        return _summary(read_json(out / MANIFEST))
      if missing:
        return {"task": f"{task[0]}/{task[1]}", "finished": False, "waits_for_tasks": missing}
    elif run_by_beam:
      run_by_beam(stages)
    else:
      run_here(stages, workers)
    if not quiet:
      with contextlib.suppress(FileNotFoundError):  # Another task may have put the unfinished build away.
        _print_rates(stages)
        if job.reference:
          _print_references(outcomes(Learn(job), Learn(job).items()))
  _put_away(job)
  return _summary(read_json(out / MANIFEST))


def _put_away(job: Job) -> None:
  """Removes the folder of a build that is finished."""
  # job.json goes first, so that a task that is still waiting knows why its files are gone.
  if isinstance(job.folder, Path):
    (job.folder / "job.json").unlink(missing_ok=True)
    shutil.rmtree(job.folder, ignore_errors=True)
    return
  if not is_over(job):
    (job.folder.parent / "job.json").unlink(missing_ok=True)
  remove_folder(job.folder)


def new_job(
  folder: AnyPath,
  source: Source,
  shards: Sequence[Shard],
  options: Options,
  languages: Sequence[str],
  reference: Reference | None,
) -> Job:
  """What the stages of a build in `folder` need to know."""
  return Job(
    folder=folder,
    source=source.reader(),
    root=common_root(shards),
    language_id=options.language_id,
    language_id_sha256=options.language_id_sha256,
    sure=options.sure,
    languages=tuple(languages),
    near_duplicates=options.near_duplicates,
    rehydrate=options.rehydrate,
    mask_personal_data=options.mask_personal_data,
    opt_out=options.opt_out,
    reference=reference,
    keep_removed=options.removed == "all",
    piece_bytes=max(1, int(options.piece_mb * 1e6)),
    file_bytes=max(1, int(options.file_mb * 1e6)),
    compress=options.compress,
  )


def normal_languages(languages: Iterable[str] | None) -> list[str]:
  """The codes of CC-100 for languages that the user asked for."""
  return sorted({normal_code(language) or language for language in languages or ()})


def check(options: Options, workers: int, languages: Sequence[str]) -> None:
  """Raises UserError for flags that do not go together, and for files of flags that are not there."""
  # A fastText model may know languages that CC-100 does not have.
  if options.language_id == "cld2" and (unknown := [language for language in languages if language not in LANGUAGES]):
    raise UserError(f"--languages: {', '.join(unknown)} is not one of CC-100's languages, such as en, zh_Hans or hi_rom")
  if unknown := [language for language in languages if not normal_code(language)]:
    raise UserError(f"--languages: {', '.join(map(repr, unknown))} is no code of a language, such as en, mt or ru_Latn")
  if workers < 1 or options.piece_mb <= 0 or options.file_mb <= 0:
    raise UserError(f"--workers={workers} --piece_mb={options.piece_mb} --file_mb={options.file_mb}: each must be above 0")
  if options.rehydrate and not options.near_duplicates:
    raise UserError("--rehydrate: needs the sizes of clusters; pass --near_duplicates=on too")
  if options.opt_out:
    OptOuts.read(options.opt_out)


def _summary(manifest: dict[str, Any]) -> dict[str, Any]:
  """What the command prints, but for the rate."""
  languages = manifest["languages"].values()
  removed = {step: sum(found[step]["documents"] for found in manifest["steps"].values() if step in found) for step in STEPS}
  return {
    "documents_in": manifest["source"]["documents"],
    "documents_out": sum(language["documents"] for language in languages),
    "bytes_in": manifest["source"]["bytes"],
    "bytes_out": sum(language["bytes"] for language in languages),
    "languages": len(manifest["languages"]),
    "removed": removed,
    "damaged": manifest["source"]["damaged"],
  }


def _print_references(learnt: Sequence[dict[str, Any]]) -> None:
  """Says on stderr of what text the limits of each language were learnt."""
  for source in ("reference", "crawl"):
    if languages := [outcome["language"] for outcome in learnt if outcome["limits"]["learnt_from"] == source]:
      print(f"limits learnt from the {source}: {', '.join(languages)}", file=sys.stderr, flush=True)


def _print_rates(stages: Sequence[Stage]) -> None:
  """Says on stderr what each step took: the processor's seconds, and 10^6 bytes of text per second of one core."""
  seconds: Counter[str] = Counter()
  size = 0
  for stage in stages:
    for outcome in outcomes(stage, stage.items()):
      seconds.update(outcome.get("seconds", {}))
      size += outcome.get("counts", {}).get("bytes", 0) if "pieces" in outcome else 0
  for step, spent in seconds.items():
    rate = f"{size / 1e6 / spent:,.1f} MB/s" if spent > 0.01 else "-"
    print(f"{step:>12} {spent:9.1f} s of one core {rate:>14}", file=sys.stderr, flush=True)
