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
from xlmr_jax.run import logs
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
  scores: dict[str, float]  # {language: score of the last evaluated checkpoint, the mean of tasks and seeds}
  settings: dict[str, dict[str, float]]  # {setting of the final scores: {language: score, the mean of tasks and seeds}}
  history: dict[str, list[tuple[int, float]]]  # {measure: [(step, mean of the languages)]}

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
    found = {name: tuple(languages) for name, languages in self.record.get("groups", {}).items()}
    common = self.common_languages
    return found if any(set(languages) == set(common) for languages in found.values()) else found | {ALL: common}

  @property
  def common_languages(self) -> tuple[str, ...]:
    """The languages of all finished runs: only these can be compared."""
    sets = [set(run.bits) for run in self.runs if run.is_finished and run.bits]
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
  spread: float  # standard deviation over the seeds, with n - 1; 0 for one seed
  seeds: int


def figure(points: Iterable[Point]) -> dict[tuple[Any, str], list[Place]]:
  """{(series, group): places in the order of x} of the points. The seeds of each place become a mean and a spread."""
  values: dict[tuple[Any, str], dict[Any, list[float]]] = {}
  for point in points:
    values.setdefault((point.series, point.group), {}).setdefault(point.x, []).append(point.value)
  return {
    line: [
      Place(x, statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0, len(found))
      for x, found in sorted(places.items(), key=lambda item: order_of(item[0]))
    ]
    for line, places in values.items()
  }


def order_of(value: Any) -> tuple[bool, Any]:
  """A key that sorts numbers by size, and texts behind them."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return (not is_number, value if is_number else str(value))


def points_of(sweep: Sweep, measure: str) -> list[Point]:
  """The points of the finished runs. A group counts those of its languages that a run has; without any, it has no point."""
  if sweep.record["x"] == LANGUAGE:
    return _points_by_language(sweep, measure)
  x, series, points = sweep.record["x"], sweep.record.get("series"), []
  for run in sweep.runs:
    found = run.measured(measure)
    if not run.is_finished or x not in run.values:
      continue
    for group, languages in sweep.groups.items():
      # Tasks have languages of their own, so that a score's mean is over all that were scored.
      chosen = found if group == ALL and measure == "score" else {name: found[name] for name in languages if name in found}
      if chosen:
        value = statistics.fmean(chosen.values())
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
  return Sweep(folder, record | {"groups": groups}, read)


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
      run.history["bits_per_byte"] = [
        (line["step"], statistics.fmean(bits.values())) for line in held_out if (bits := _bits(line))
      ]
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
  """Scores of the evaluated checkpoints; those in final/latest.json, where it is there, are of the last one."""
  metrics: dict[str, str] = {}
  for entry in read_ledger(workdir):
    metrics |= entry.metrics
    found = _mean_of_tasks([(entry.scores[task], metrics[task]) for task in entry.scores])
    if found:
      run.scores = found
      run.history.setdefault("score", []).append((entry.step, 100 * statistics.fmean(found.values())))
  path = workdir.final_scores / "latest.json"
  if not path.exists() or not run.is_finished:
    return
  final = read_sealed_json(path)
  if final["step"] != read_json(workdir.result)["step"]:  # It was made before the run ended.
    return
  by_setting: dict[str, list[tuple[Any, str]]] = {}
  for task, scores in final["scores"].items():
    for setting, languages in scores.items():
      by_setting.setdefault(setting, []).append((languages, metrics.get(task) or _metric_of(task, languages)))
  found_by_setting = {setting: found for setting, tables in by_setting.items() if (found := _mean_of_tasks(tables))}
  run.settings = found_by_setting
  first = next((setting for setting in (*settings, *found_by_setting) if setting in found_by_setting), None)
  if first:
    run.scores = found_by_setting[first]


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
