"""The build as an Apache Beam pipeline, for whoever asks for a Beam runner. A local build does not need Beam.

Beam carries work items of a few hundred bytes, never text. The workers read the text and write the rows themselves, so all
of them must see both under the same path.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.held_out import Report, scan
from xlmr_jax.corpus.progress import Progress
from xlmr_jax.corpus.shards import Job, RowFile, WorkItem, Written, plan, write_rows
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.workers import Failure, attempt, results_of
from xlmr_jax.errors import UserError

_LOCAL_RUNNERS = (None, "DirectRunner", "FnApiRunner")


def open_runner(arguments: list[str]) -> Callable[[list[Shard], Job], list[Written]]:
  """A function that runs a build as Beam's own flags say, and returns what became of each shard.

  Raises UserError: Beam is not installed, a flag is not Beam's, or the runner is not to be had. So does the function it
  returns, for what a work item finds wrong.
  """
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
  options = PipelineOptions(arguments)
  known = options.get_all_options()
  if unknown := sorted(set(options.get_all_options(retain_unknown_options=True)) - set(known)):
    raise UserError(f"--{unknown[0]}: neither a flag of this command nor one of Beam's")
  name = options.view_as(StandardOptions).runner
  try:
    # Beam's DirectRunner would look for Prism, a server of its own; FnApiRunner is the local runner that needs nothing.
    runner = FnApiRunner() if name in _LOCAL_RUNNERS else create_runner(name)
  except (ValueError, ImportError, AttributeError) as error:
    raise UserError(f"--runner={name}: {error}") from error
  return functools.partial(_run, runner, options)


def _run(runner: Any, options: Any, shards: list[Shard], job: Job) -> list[Written]:
  import apache_beam as beam
  from apache_beam.pvalue import AsList

  outcomes = Path(job.folder) / "outcomes"
  outcomes.mkdir()
  try:
    pipeline = beam.Pipeline(runner=runner, options=options)
  except ValueError as error:  # The runner cannot do without some flag.
    raise UserError(f"--runner: {'; '.join(str(error).splitlines())}") from error
  with Progress("Beam builds the rows", len(shards), "shards", lambda: sum(1 for _ in outcomes.glob("*.json"))), pipeline:
    reports = pipeline | "shards" >> beam.Create(list(enumerate(shards))) | "scan" >> beam.Map(_scan, job)
    _ = (
      pipeline
      | "start" >> beam.Create([None])
      | "plan" >> beam.FlatMap(_plan, AsList(reports), job)
      | "spread" >> beam.Reshuffle()
      | "tokenise" >> beam.Map(_write_rows, job)
    )
  return results_of(_read_outcome(path) for path in sorted(outcomes.glob("*.json")))


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
  name = "failure" if isinstance(item, Failure) else f"{item.number:08d}"
  path = Path(job.folder) / "outcomes" / f"{name}.json"
  path.with_suffix(".tmp").write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
  path.with_suffix(".tmp").rename(path)


def _read_outcome(path: Path) -> Written | Failure:
  content = json.loads(path.read_text(encoding="utf-8"))
  if "message" in content:
    return Failure(**content)
  return Written(content["languages"], [RowFile(**file) for file in content["files"]])
