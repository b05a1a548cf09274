"""The build as an Apache Beam pipeline, for whoever asks for a Beam runner. A local build does not need Beam.

Beam carries work items of a few hundred bytes, never text. The workers read the text and write the rows themselves, so all
of them must see both under the same path.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from xlmr_jax.corpus.held_out import Report, scan
from xlmr_jax.corpus.shards import Job, RowFile, WorkItem, Written, plan, write_rows
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.stages import Item, Stage, finish, unfinished
from xlmr_jax.corpus.workers import Failure, attempt, results_of
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, each, read_json, whole_file
from xlmr_jax.folders import entries, remove_folder
from xlmr_jax.progress import Progress

_FAILURE = "failure.json"  # in the place of the outcomes of all shards
_LATE_S = 30.0  # for which an outcome that is missing is looked for
_LOCAL_RUNNERS = (None, "DirectRunner", "FnApiRunner")


def open_runner(arguments: list[str]) -> Callable[[list[Shard], Job], list[Written]]:
  """A function that builds rows as Beam's own flags say, and returns what became of each shard.

  Raises UserError as open_stages does.
  """
  return functools.partial(_run, *_open(arguments))


def open_stages(arguments: list[str]) -> Callable[[Sequence[Stage]], None]:
  """A function that runs stages as Beam's own flags say.

  Raises UserError: Beam is not installed, a flag is not Beam's, or the runner is not to be had. So does the function it
  returns, for what a work item finds wrong.
  """
  return functools.partial(_run_stages, *_open(arguments))


def _open(arguments: list[str]) -> tuple[Any, Any]:
  """(the runner, its options)."""
  for before, argument in zip(["", *arguments], arguments):
    if not argument.startswith("-") and (not before.startswith("--") or "=" in before):
      raise UserError(f"{argument}: not understood; flags are written --name=value")
  try:
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.runners.runner import create_runner
  except ImportError:
    raise UserError(
      f"{arguments[0]}: no flag of this command, and Beam's flags need Beam; pip install 'xlmr_jax[corpus]'"
    ) from None
  name = PipelineOptions(arguments).view_as(StandardOptions).runner
  try:
    # Beam's DirectRunner would look for Prism, a server of its own; FnApiRunner is the local runner that needs nothing.
    runner = FnApiRunner() if name in _LOCAL_RUNNERS else create_runner(name)
  except (ValueError, ImportError, AttributeError) as error:
    raise UserError(f"--runner={name}: {error}") from error
  options = PipelineOptions(arguments)  # Once more, because a runner's module brings flags of its own.
  known = options.get_all_options()
  if unknown := sorted(set(options.get_all_options(retain_unknown_options=True)) - set(known)):
    raise UserError(f"--{unknown[0]}: neither a flag of this command nor one of Beam's")
  return runner, options


def _run_stages(runner: Any, options: Any, stages: Sequence[Stage]) -> None:
  """All stages in one graph with one leaf, because some runners compute no more than one.

  The elements are items. Each stage asks for its own items in a worker, when the stage before it is finished.
  """
  import apache_beam as beam
  from apache_beam.pvalue import AsIter

  try:
    pipeline = beam.Pipeline(runner=runner, options=options)
  except ValueError as error:  # The runner cannot do without some flag.
    raise UserError(f"--runner: {'; '.join(str(error).splitlines())}") from error
  for stage in stages:
    remove_folder(_failures(stage))

  def finished() -> int:
    return sum(name.endswith(".json") for stage in stages for name in entries(stage.folder))

  with Progress("Beam builds the corpus", 0, "items", finished), pipeline:
    done = None
    for stage in stages:
      begin = pipeline | f"{stage.name} begins" >> beam.Create([0])
      items = begin | f"{stage.name} items" >> (
        beam.FlatMap(_items, stage) if done is None else beam.FlatMap(_items_after, stage, AsIter(done))
      )
      done = items | f"{stage.name} spread" >> beam.Reshuffle() | f"{stage.name} work" >> beam.Map(_finish, stage)
  failures = [outcome for stage in stages for outcome in _read_outcomes(_failures(stage))]
  results_of(failures)


def _failures(stage: Stage) -> AnyPath:
  return stage.folder.with_name(f"{stage.name}.failures")


# Beam reads these annotations and cannot check a Protocol, so a stage is Any.
def _items(_: int, stage: Any) -> list[Item]:
  return unfinished(stage, stage.items())


def _items_after(_: int, stage: Any, done: Iterable[bool]) -> list[Item]:
  """The items of a stage, once all items of the stage before it are done; none if an item of any stage failed."""
  failed = [name for name in entries(stage.folder.parent) if name.endswith(".failures")]
  return _items(0, stage) if all(done) and not any(entries(stage.folder.parent / name) for name in failed) else []


def _finish(item: Item, stage: Any) -> bool:
  """Whether an item could be done. Why not is written to a file, which the process that directs the build reads."""
  outcome = attempt(functools.partial(finish, stage), item)
  if isinstance(outcome, Failure):
    with whole_file(_failures(stage) / f"{item.number}.json", many_writers=True) as path:
      path.write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
  return not isinstance(outcome, Failure)


def _run(runner: Any, options: Any, shards: list[Shard], job: Job) -> list[Written]:
  import apache_beam as beam
  from apache_beam.pvalue import AsList

  outcomes = any_path(job.folder) / "outcomes"
  try:
    pipeline = beam.Pipeline(runner=runner, options=options)
  except ValueError as error:  # The runner cannot do without some flag.
    raise UserError(f"--runner: {'; '.join(str(error).splitlines())}") from error
  with Progress("Beam builds the rows", len(shards), "shards", lambda: len(entries(outcomes))), pipeline:
    reports = pipeline | "shards" >> beam.Create(list(enumerate(shards))) | "scan" >> beam.Map(_scan, job)
    _ = (
      pipeline
      | "start" >> beam.Create([None])
      | "plan" >> beam.FlatMap(_plan, AsList(reports), job)
      | "spread" >> beam.Reshuffle()
      | "tokenise" >> beam.Map(_write_rows, job)
    )
  return results_of(_read_all_outcomes(outcomes, shards))


def _scan(numbered: tuple[int, Shard], job: Job) -> tuple[int, Report | Failure]:
  number, shard = numbered
  return number, attempt(functools.partial(scan, source=job.source), shard)


def _plan(_: None, reports: list[tuple[int, Report | Failure]], job: Job) -> list[WorkItem | Failure]:
  """The second stage needs all reports of the first, so this is a barrier. Its failures become items that fail again."""
  in_order = [report for _, report in sorted(reports, key=lambda numbered: numbered[0])]
  planned = attempt(lambda outcomes: plan(results_of(outcomes), job), in_order)
  return [planned] if isinstance(planned, Failure) else list(planned)


def _write_rows(item: WorkItem | Failure, job: Job) -> None:
  """Writes a shard's rows, and beside them the outcome. A worker that tries an item again overwrites both."""
  outcome = item if isinstance(item, Failure) else attempt(functools.partial(write_rows, job=job), item)
  name = _FAILURE if isinstance(item, Failure) else _outcome_name(item.number)
  with whole_file(any_path(job.folder) / "outcomes" / name, many_writers=True) as path:
    path.write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")


def _read_all_outcomes(folder: AnyPath, shards: Sequence[Shard]) -> list[Written | Failure]:
  """The outcomes of all shards. Raises UserError: one is not there, so that the rows of its shard would be missing.

  A disk that many machines share may show a file late that another one of them has written.
  """
  wanted = {_outcome_name(number): shard.name for number, shard in enumerate(shards)}
  until = time.monotonic() + _LATE_S
  while (missing := sorted(wanted.keys() - (there := entries(folder)).keys())) and _FAILURE not in there:
    if time.monotonic() > until:
      raise UserError(
        f"{folder / missing[0]}: the runner has ended without an error, but this file, which a worker should have written "
        f"with the rows of {wanted[missing[0]]}, is not there, and neither are those of {len(missing) - 1} more of "
        f"{len(wanted)} shards; see that all workers have --out under the same path, and build again"
      )
    time.sleep(_LATE_S / 10)
  return _read_outcomes(folder)


def _outcome_name(number: int) -> str:
  return f"{number:08d}.json"


def _read_outcomes(folder: AnyPath) -> list[Written | Failure]:
  names = sorted(name for name in entries(folder) if name.endswith(".json"))
  return each(lambda name: _read_outcome(read_json(folder / name)), names, folder)


def _read_outcome(content: dict[str, Any]) -> Written | Failure:
  if "message" in content:
    return Failure(**content)
  files = [RowFile(**file) for file in content["files"]]
  return Written(content["languages"], files, content["blank"], content["too_long"])
