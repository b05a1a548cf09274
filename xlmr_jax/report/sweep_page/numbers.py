"""The runs of a sweep and the points of its figure, read from sweep.json and the workdirs of the runs.

docs/sweeps.md explains sweep.json.
"""

import dataclasses
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xlmr_jax.config import with_defaults
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.evaluation.ledger import read_ledger
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.files import AnyPath, each, flatten, read_json, read_sealed_json
from xlmr_jax.run import logs, stopping
from xlmr_jax.run.workdir import Workdir, read_record

ALL = "all"
MEASURES = {"bits_per_byte": "held-out loss, bits per byte of text", "score": "downstream score, %"}
_GROUPS = {"high": "high-resource languages", "low": "low-resource languages", ALL: "all languages"}
LANGUAGE = "language"  # as a sweep's x: the language of the test; a run without this value has a point in each
EACH = "each language by itself"  # the group of such points
STEP = "step"  # as a sweep's x: each run is a line over its own steps


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
  scores: dict[str, float]  # {language: score of the last step, the mean of tasks and seeds}; without all tasks, none
  settings: dict[str, dict[str, float]]  # {setting of the final scores: {language: score, the mean of tasks and seeds}}
  history: dict[str, list[tuple[int, float]]]  # {measure: [(step, mean of the languages)]}
  score: float | None = None  # the mean over tasks of the means over their languages, as the stop rule has it
  means: dict[str, float] = dataclasses.field(default_factory=dict)  # {setting: its score, as `score`}

  def measured(self, measure: str) -> dict[str, float]:
    """{language: value} in the unit of the figure."""
    return self.bits if measure == "bits_per_byte" else {name: 100 * value for name, value in self.scores.items()}


@dataclasses.dataclass
class Sweep:
  """sweep.json with the runs of the folder."""

  folder: AnyPath
  record: dict[str, Any]
  runs: list[SweepRun]

  @property
  def groups(self) -> dict[str, tuple[str, ...]]:
    """{group: languages} of sweep.json, and "all", those that every finished run has, unless a group has just these."""
    return self.groups_of("bits_per_byte")

  def groups_of(self, measure: str) -> dict[str, tuple[str, ...]]:
    """As groups, by the languages that a measure has in every finished run: means over others would not compare."""
    common = self._common(measure)
    asked = self.record.get("groups", {}).items()
    found = {name: tuple(language for language in languages if language in common) for name, languages in asked}
    return found if any(set(languages) == set(common) for languages in found.values()) else found | {ALL: common}

  @property
  def common_languages(self) -> tuple[str, ...]:
    """The languages of all finished runs: only these can be compared."""
    return self._common("bits_per_byte")

  @property
  def without_value(self) -> list[str]:
    """The finished runs that have no value of the sweep's own measure, although others have one."""
    finished, x = [run for run in self.runs if run.is_finished], self.record["x"]
    has_place = {run.name for run in finished if x in (STEP, LANGUAGE) or x in run.values}
    empty = [run.name for run in finished if run.name not in has_place or not run.measured(self.record["y"])]
    return empty if len(empty) < len(finished) else []

  def _common(self, measure: str) -> tuple[str, ...]:
    sets = [set(found) for run in self.runs if run.is_finished and (found := run.measured(measure))]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


class Point(NamedTuple):
  """One finished run in the figure: where it is, which line it belongs to, and its value."""

  x: Any
  series: Any  # None where the sweep has one line per group
  group: str
  seed: int
  value: float


class Place(NamedTuple):
  """A point of a line: the seeds of one x together."""

  x: Any
  mean: float
  spread: float | None  # standard deviation over the seeds, with n - 1; None for one seed
  seeds: int


def figure(points: Iterable[Point]) -> dict[tuple[Any, str], list[Place]]:
  """{(series, group): places in the order of x} of the points. The seeds of each place become a mean and a spread."""
  values: dict[tuple[Any, str], dict[Any, list[float]]] = {}
  for point in points:
    values.setdefault((point.series, point.group), {}).setdefault(point.x, []).append(point.value)
  return {
    line: [
      Place(x, statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))
      for x, found in sorted(places.items(), key=lambda item: order_of(item[0]))
    ]
    for line, places in values.items()
  }


def order_of(value: Any) -> tuple[bool, Any]:
  """A key that sorts numbers by size, and texts behind them."""
  return (not is_number(value), value if is_number(value) else str(value))


def is_number(value: Any) -> bool:
  """Whether a value is one; True and False, which Python counts among them, are not."""
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def points_of(sweep: Sweep, measure: str) -> list[Point]:
  """The points of the finished runs. A group counts those of its languages that all runs have; without any, it has none."""
  if sweep.record["x"] == LANGUAGE:
    return _points_by_language(sweep, measure)
  x, series, points = sweep.record["x"], sweep.record.get("series"), []
  for run in sweep.runs:
    found = run.measured(measure)
    if not run.is_finished or x not in run.values:
      continue
    for group, languages in sweep.groups_of(measure).items():
      chosen = [found[name] for name in languages if name in found]
      if chosen:
        # Tasks have languages of their own: where all are scored, their mean is that of the stop rule.
        is_whole = group == ALL and measure == "score" and len(chosen) == len(found)
        value = 100 * run.score if is_whole and run.score is not None else statistics.fmean(chosen)
        points.append(Point(run.values[x], run.values.get(series) if series else None, group, run.seed, value))
  return points


def _points_by_language(sweep: Sweep, measure: str) -> list[Point]:
  """A point for each language of each finished run. Where a run was scored in several settings, each has a line."""
  series, points = sweep.record.get("series"), []
  for run in sweep.runs:
    if not run.is_finished:
      continue
    name = str(run.values.get(series, "")) if series else ""
    tables = {name: run.measured(measure)}
    if measure == "score" and len(run.settings) > 1:
      tables = {
        ", ".join(filter(None, (name, setting))): {language: 100 * value for language, value in found.items()}
        for setting, found in run.settings.items()
      }
    for line, found in tables.items():
      points += [Point(language, line, EACH, run.seed, value) for language, value in found.items()]
  return points


def group_name(group: str) -> str:
  """A group in words."""
  return _GROUPS.get(group, group)


def read_sweep(folder: AnyPath) -> Sweep:
  """The sweep in a folder. UserError: there is no sweep.json, or it is damaged."""
  path = folder / "sweep.json"
  try:
    record = read_json(path)
    runs = [
      (str(run["name"]), dict(run["values"]), int(run.get("seed", 0)), tuple(map(str, run.get("settings") or ())))
      for run in record["runs"]
    ]
    groups = {str(name): list(map(str, languages)) for name, languages in dict(record.get("groups") or {}).items()}
    record = {"title": folder.name, "y": "bits_per_byte", "series": None, "x_label": str(record["x"]), **record}
    if record["y"] not in MEASURES or any("/" in name or name in ("", "..") for name, *_ in runs):
      raise ValueError(f"y={record['y']!r}, or the name of a run, is none")
  except FileNotFoundError:
    raise UserError(f"{path} is missing; is {folder} the folder of a sweep?") from None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path} cannot be read ({error!r}); remove it, and the next `xlmr sweep` writes it anew") from None
  read = each(lambda run: read_sweep_run(Workdir(folder / run[0]), *run), runs, folder)
  return _with_lines_of_their_own(Sweep(folder, record | {"groups": groups}, read))


def _with_lines_of_their_own(sweep: Sweep) -> Sweep:
  """The sweep, with a series of all values in which runs of one place and seed differ: they are no seeds of each other."""
  x, series = sweep.record["x"], sweep.record["series"]
  if x in (LANGUAGE, STEP):
    return sweep
  places: dict[Any, list[SweepRun]] = {}
  for run in sweep.runs:
    places.setdefault((str(run.values.get(x)), str(run.values.get(series)), run.seed), []).append(run)
  keys = dict.fromkeys(key for run in sweep.runs for key in run.values if key not in (x, series, "seed"))
  differing = [key for key in keys if any(len({str(run.values.get(key)) for run in runs}) > 1 for runs in places.values())]
  if not differing:
    return sweep
  chosen = ([series] if series else []) + differing
  label = ", ".join(chosen)
  if len(chosen) > 1:
    for run in sweep.runs:
      run.values = run.values | {label: ", ".join(str(run.values.get(key)) for key in chosen)}
  return Sweep(sweep.folder, sweep.record | {"series": label}, sweep.runs)


def read_sweep_run(workdir: Workdir, name: str, values: dict[str, Any], seed: int, settings: Sequence[str] = ()) -> SweepRun:
  """A run as far as it is. settings: of its final scores; the first one is in the figure, where there are such scores.

  Damage is said, and what is damaged is left out.
  """
  run = SweepRun(name, values, seed, {}, 0, workdir.result.exists(), {}, {}, {}, {})
  if not workdir.record.exists():
    return run
  try:
    run.config = flatten(with_defaults(read_record(workdir).config))
    held_out = logs.read_held_out(workdir)
    if held_out:
      run.steps = held_out[-1]["step"]
      run.bits = _bits(held_out[-1])
      lost = sorted(held_out[-1]["languages"].keys() - run.bits.keys() - set(held_out[-1].get("parallel", ())))
      if lost and run.is_finished:
        print(f"{name}: its last held-out loss of {', '.join(lost)} is no number, so that no run is compared in "
              f"{'it' if len(lost) == 1 else 'them'}", file=sys.stderr, flush=True)  # fmt: skip
      run.history["bits_per_byte"] = [
        (line["step"], statistics.fmean(bits.values())) for line in held_out if (bits := _bits(line))
      ]
    trained = logs.read_train(workdir)
    run.steps = max(run.steps, int(trained[-1]["step"]) if trained else 0)
    _read_scores(workdir, run, settings)
  except (UserError, OSError, ValueError, KeyError, TypeError) as error:
    print(f"{name} is left out of the figure: {one_line(error)}", file=sys.stderr, flush=True)
    run.is_finished = False
  return run


def _bits(line: Mapping[str, Any]) -> dict[str, float]:
  """{language: bits per byte} of a held-out pass; pairs of parallel sentences, easier to guess, are left out."""
  parallel = line.get("parallel", ())
  found = {name: values.get("bits_per_byte") for name, values in line["languages"].items() if name not in parallel}
  return {name: float(value) for name, value in found.items() if isinstance(value, (int, float)) and math.isfinite(value)}


def _read_scores(workdir: Workdir, run: SweepRun, settings: Sequence[str]) -> None:
  """Scores of the evaluated checkpoints, and of the last step: those in final/latest.json, where it is there.

  An evaluation in which a task failed has no score, because the mean of the others would not compare.
  """
  metrics: dict[str, str] = {}
  last = int(read_json(workdir.result)["step"]) if run.is_finished else None
  for entry in read_ledger(workdir):
    metrics |= entry.metrics
    found = _mean_of_tasks([(entry.scores[task], metrics[task]) for task in entry.scores])
    score = entry.score_of()
    if not found or score is None:
      continue
    run.history.setdefault("score", []).append((entry.step, 100 * score))
    if last is None or entry.step == last:
      run.scores, run.score = found, score
  path = workdir.final_score("latest")
  if not path.exists() or last is None:
    return
  final = read_sealed_json(path)
  if final["step"] != last:  # It was made before the run ended.
    return
  metrics |= final.get("metrics", {})
  tasks, errors = final["scores"], final.get("errors", {})
  for setting in dict.fromkeys(name for table in (tasks, errors) for by_setting in table.values() for name in by_setting):
    tables = {task: by_setting[setting] for task, by_setting in tasks.items() if setting in by_setting}
    counts = {task: metrics.get(task) or _metric_of(task, languages) for task, languages in tables.items()}
    failed = {task: by_setting[setting] for task, by_setting in errors.items() if setting in by_setting}
    score = stopping.score_of({"scores": tables, "metrics": counts, "errors": failed})
    if score is None:
      print(f"{run.name}, {setting}: no score, because a task failed or scored something that is no number", file=sys.stderr)
      continue
    run.settings[setting] = _mean_of_tasks([(languages, counts[task]) for task, languages in tables.items()])
    run.means[setting] = score
  first = settings[0] if settings else next(iter(run.means), "")
  if settings or first:  # A run with settings is measured by these alone.
    run.scores, run.score = run.settings.get(first, {}), run.means.get(first)


def _metric_of(task: str, languages: Mapping[str, Any]) -> str:
  """The metric of a task that counts; of a task of the user's, which is not loaded here, the first one by name."""
  try:
    return registry.get(task).metrics[0]
  except UserError:
    return next((metric for metrics in languages.values() for metric in sorted(metrics)), "")


def _mean_of_tasks(tables: Sequence[tuple[Mapping[str, Any], str]]) -> dict[str, float]:
  """{language: mean over the tasks and seeds} of [({language: {metric: [one per seed]}}, the metric that counts)]."""
  found: dict[str, list[float]] = {}
  for languages, metric in tables:
    for language, metrics in languages.items():
      known = [value for value in metrics.get(metric, []) if value is not None]
      if known:
        found.setdefault(language, []).append(statistics.fmean(known))
  return {language: statistics.fmean(values) for language, values in found.items()}


def config_differences(runs: Sequence[SweepRun]) -> tuple[list[str], list[list[str]]]:
  """(keys, a row per run) of the config keys in which the runs that have begun differ."""
  begun = [run for run in runs if run.config]
  keys = sorted({key for run in begun for key in run.config})
  differing = [key for key in keys if len({str(run.config.get(key)) for run in begun}) > 1]
  return differing, [[run.name, *(str(run.config.get(key, "")) for key in differing)] for run in begun]
