"""A run of a sweep: how far it is and what it measured, read from its workdir."""

import dataclasses
import math
import statistics
import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_jax.config import with_defaults
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.evaluation.ledger import read_ledger
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.files import flatten, read_json, read_sealed_json
from xlmr_jax.run import logs, stopping
from xlmr_jax.run.workdir import Workdir, read_record

TaskScores = dict[str, dict[str, float]]  # {task: {language: score, the mean of the seeds}}
_MOST_ROWS = "held_out.max_rows_per_language"  # of the config: how much of the held-out text is read


@dataclasses.dataclass
class SweepRun:
  """A run of a sweep. What it does not have yet is empty."""

  name: str
  values: dict[str, Any]
  seed: int
  config: dict[str, Any]  # flat; {} where the run has not begun
  steps: int  # that its logs know of
  is_finished: bool
  bits: dict[str, float]  # {language: bits per byte of the last held-out pass}
  tasks: TaskScores  # of the last step; {} where one of the tasks has none
  settings: dict[str, dict[str, float]]  # {setting of the final scores: {language: score, the mean of tasks and seeds}}
  history: dict[str, list[tuple[int, float]]]  # {measure: [(step, mean of the languages)]}
  score: float | None = None  # the mean over tasks of the means over their languages, as the stop rule has it
  means: dict[str, float] = dataclasses.field(default_factory=dict)  # {setting: its score, as `score`}
  asked: tuple[str, ...] = ()  # the settings of its final scores by sweep.json; (): the evaluator's ledger measures it
  held_out: dict[str, str] = dataclasses.field(default_factory=dict)  # {what its held-out text depends on: the run's choice}
  lost: list[str] = dataclasses.field(default_factory=list)  # languages whose last held-out loss is no number
  scored_by: dict[str, str] = dataclasses.field(default_factory=dict)  # {"split", "seeds"}, as far as its scores tell
  other_scores: str = ""  # how its scores were made, where most runs' were made otherwise and these do not count

  @property
  def mean_bits(self) -> float | None:
    """The mean of the languages, bits per byte; None where one has no number, as the run's own page has it."""
    return statistics.fmean(self.bits.values()) if self.bits and not self.lost else None

  @property
  def scores(self) -> dict[str, float]:
    """{language: score of the last step, the mean of tasks and seeds}; without all tasks, none."""
    return _mean_of_tasks(self.tasks)

  def measured(self, measure: str) -> dict[str, float]:
    """{language: value} in the unit of the figure."""
    return self.bits if measure == "bits_per_byte" else {name: 100 * value for name, value in self.scores.items()}

  def tables(self, measure: str) -> TaskScores:
    """{task: {language: value}} in the unit of the figure; the held-out loss is a table by itself, named ""."""
    if measure == "bits_per_byte":
      return {"": self.bits} if self.bits else {}
    return {task: {name: 100 * value for name, value in table.items()} for task, table in self.tasks.items()}


def read_sweep_run(
  workdir: Workdir, name: str, values: dict[str, Any], seed: int, settings: Sequence[str] = (),
  held_out: Mapping[str, str] | None = None,
) -> SweepRun:  # fmt: skip
  """A run as far as it is. settings: of its final scores; the first one is in the figure. held_out: what is known of it.

  Damage is reported on stderr, and what is damaged is left out.
  """
  run = SweepRun(name, values, seed, {}, 0, workdir.result.exists(), {}, {}, {}, {}, asked=tuple(settings))
  if not workdir.record.exists():
    return run
  try:
    run.config = flatten(with_defaults(read_record(workdir).config))
    run.held_out = {**(held_out or {}), f"config.{_MOST_ROWS}": str(run.config[_MOST_ROWS])}
    passes = logs.read_held_out(workdir)
    if passes:
      run.steps, run.bits, run.lost = passes[-1]["step"], _bits(passes[-1]), _lost(passes[-1])
      if run.lost and run.is_finished:
        print(f"{name}: its last held-out loss of {', '.join(run.lost)} is no number, so that no run is compared in "
              f"{'it' if len(run.lost) == 1 else 'them'}", file=sys.stderr, flush=True)  # fmt: skip
      run.history["bits_per_byte"] = [
        (line["step"], statistics.fmean(bits.values())) for line in passes if (bits := _bits(line)) and not _lost(line)
      ]
    # One line is wanted of a log that may not fit into the memory as objects.
    run.steps = max([run.steps, *(int(line["step"]) for line in deque(logs.each_train(workdir), maxlen=1))])
    _read_scores(workdir, run)
  except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    print(f"{name} is left out of the figure: {one_line(error)}", file=sys.stderr, flush=True)
    run.is_finished = False
  return run


def _bits(line: Mapping[str, Any]) -> dict[str, float]:
  """{language: bits per byte} of a held-out pass; pairs of parallel sentences, easier to guess, are left out."""
  parallel = line.get("parallel", ())
  found = {name: values.get("bits_per_byte") for name, values in line["languages"].items() if name not in parallel}
  return {name: float(value) for name, value in found.items() if isinstance(value, (int, float)) and math.isfinite(value)}


def _lost(line: Mapping[str, Any]) -> list[str]:
  """The languages of a held-out pass, pairs left out, that have no number: the mean of the others would not compare."""
  return sorted(line["languages"].keys() - _bits(line).keys() - set(line.get("parallel", ())))


def _read_scores(workdir: Workdir, run: SweepRun) -> None:
  """Scores of the evaluated checkpoints, and of the last step; of a run with settings these are in final/latest.json.

  An evaluation in which a task failed has no score, because the mean of the others would not compare.
  """
  metrics: dict[str, str] = {}
  last = int(read_json(workdir.result)["step"]) if run.is_finished else None
  for entry in read_ledger(workdir):
    metrics |= entry.metrics
    tables = {task: _mean_of_seeds(languages, metrics[task]) for task, languages in entry.scores.items()}
    score = entry.score_of()
    if not any(tables.values()) or score is None:
      continue
    run.history.setdefault("score", []).append((entry.step, 100 * score))
    if not run.asked and (last is None or entry.step == last):
      run.tasks, run.score = tables, score
      run.scored_by = {"split": "dev"}  # on which the evaluator scores what is trained
  # A run without settings may have the file too: a table of the user's own, by another split than the other runs' scores.
  path = workdir.final_score("latest")
  if not run.asked or last is None or not path.exists():
    return
  final = read_sealed_json(path)
  if final["step"] != last:  # It was made before the run ended.
    return
  run.scored_by = {key: _as_compared(value) for key in ("split", "seeds") if (value := final.get(key)) is not None}
  metrics |= final.get("metrics", {})
  by_task = {}
  wanted = run.config["evaluate.tasks"]  # The file may have a table of the user's own of another task too.
  tasks, errors = (
    {task: by_setting for task, by_setting in found.items() if not wanted or task in wanted}
    for found in (final["scores"], final.get("errors", {}))
  )
  for setting in dict.fromkeys(name for table in (tasks, errors) for by_setting in table.values() for name in by_setting):
    tables = {task: by_setting[setting] for task, by_setting in tasks.items() if setting in by_setting}
    counts = {task: metrics.get(task) or _metric_of(task, languages) for task, languages in tables.items()}
    failed = {task: by_setting[setting] for task, by_setting in errors.items() if setting in by_setting}
    failed |= {task: "no score" for task in wanted if task not in tables}
    score = stopping.score_of({"scores": tables, "metrics": counts, "errors": failed})
    if score is None:
      print(
        f"{run.name}, {setting}: no score, because a task failed, is missing or scored what is no number", file=sys.stderr
      )
      continue
    by_task[setting] = {task: _mean_of_seeds(languages, counts[task]) for task, languages in tables.items()}
    run.settings[setting], run.means[setting] = _mean_of_tasks(by_task[setting]), score
  run.tasks, run.score = by_task.get(run.asked[0], {}), run.means.get(run.asked[0])


def _as_compared(value: Any) -> str:
  """A split or seeds in words. The seeds [0, 1, 2] are those that 3 stands for."""
  return str(len(value) if isinstance(value, list) and value == [*range(len(value))] else value)


def leave_out_other_scores(runs: Sequence[SweepRun]) -> None:
  """Takes the scores of runs away that were made on another split or with other seeds than those of most runs."""
  scored = [run for run in runs if run.is_finished and (run.tasks or run.means) and run.scored_by]
  kinds = Counter(tuple(run.scored_by.items()) for run in scored)
  expected = dict(kinds.most_common(1)[0][0]) if kinds else {}
  for run in scored:
    differing = [key for key, value in run.scored_by.items() if expected.get(key, value) != value]
    if differing:
      run.other_scores = ", ".join(f"{key} {run.scored_by[key]}, not {expected[key]}" for key in differing)
      run.tasks, run.settings, run.means, run.score = {}, {}, {}, None


def _metric_of(task: str, languages: Mapping[str, Any]) -> str:
  """The metric of a task that counts; of a task of the user's, which is not loaded here, the first one by name."""
  try:
    return registry.get(task).metrics[0]
  except UserError:
    return next((metric for metrics in languages.values() for metric in sorted(metrics)), "")


def _mean_of_seeds(languages: Mapping[str, Any], metric: str) -> dict[str, float]:
  """{language: mean over the seeds} of {language: {metric: [one per seed]}}. metric: the one that counts."""
  known = {name: [x for x in metrics.get(metric, []) if x is not None] for name, metrics in languages.items()}
  return {name: statistics.fmean(values) for name, values in known.items() if values}


def _mean_of_tasks(tasks: TaskScores) -> dict[str, float]:
  """{language: mean over the tasks that have it}."""
  found: dict[str, list[float]] = {}
  for table in tasks.values():
    for language, value in table.items():
      found.setdefault(language, []).append(value)
  return {language: statistics.fmean(values) for language, values in found.items()}
