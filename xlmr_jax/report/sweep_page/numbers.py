"""The runs of a sweep and the points of its figure, read from sweep.json and the workdirs of the runs.

docs/sweeps.md explains sweep.json.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, each, read_json
from xlmr_jax.report.sweep_page.runs import SweepRun, leave_out_other_scores, read_sweep_run
from xlmr_jax.run.workdir import Workdir

ALL = "all"
MEASURES = {"bits_per_byte": "held-out loss, bits per byte of text", "score": "downstream score, %"}
_GROUPS = {"high": "high-resource languages", "low": "low-resource languages", ALL: "all languages"}
LANGUAGE = "language"  # as a sweep's x: the language of the test; a run without this value has a point in each
EACH = "each language by itself"  # the group of such points
STEP = "step"  # as a sweep's x: each run is a line over its own steps
CATEGORY = "category"  # the scale of an axis whose values have no order, so that no line joins them
# What the held-out text of rows depends on, of what sweep.json tells of them. A language's does not depend on the others,
# nor on the vocabulary or on the length of the rows, between which bits per byte compare.
_HELD_OUT = {"text": "their text", "held_out": "the share that is held out"}


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
    has_x = {run.name for run in finished if x in (STEP, LANGUAGE) or x in run.values}
    empty = [run.name for run in finished if run.name not in has_x or not run.measured(self.record["y"])]
    return empty if len(empty) < len(finished) else []

  def why_not_compared(self, measure: str) -> str:
    """Why the values of a measure are in no figure: the runs' held-out texts differ. "" where they are compared."""
    if measure != "bits_per_byte":
      return ""
    drawn = [run for run in self.runs if run.bits and (run.is_finished or self.record["x"] == STEP)]
    keys = dict.fromkeys(key for run in drawn for key in run.held_out)
    values = {key: sorted({run.held_out.get(key, "that of config.data.rows") for run in drawn}) for key in keys}
    differing = [f"{key} is {' or '.join(found)}" for key, found in values.items() if len(found) > 1]
    return f"the runs were not measured on the same held-out text: {'; '.join(differing)}" if differing else ""

  def _common(self, measure: str) -> tuple[str, ...]:
    return tuple(sorted({language for languages in self.common_by_task(measure).values() for language in languages}))

  def common_by_task(self, measure: str) -> dict[str, set[str]]:
    """{task: the languages in which every finished run that was measured has it}, without tasks that have none."""
    measured = [tables for run in self.runs if run.is_finished and (tables := run.tables(measure))]
    tasks = dict.fromkeys(task for tables in measured for task in tables)
    common = {task: set.intersection(*(set(tables.get(task, ())) for tables in measured)) for task in tasks}
    return {task: languages for task, languages in common.items() if languages}


class Point(NamedTuple):
  """One finished run in the figure: where it is, which line it belongs to, and its value."""

  x: Any
  series: Any  # None where the sweep has one line per group
  group: str
  seed: int
  value: float


class SeedMean(NamedTuple):
  """A point of a line: the seeds of one x together."""

  x: Any
  mean: float
  spread: float | None  # standard deviation over the seeds, with n - 1; None for one seed
  seeds: int


def figure(points: Iterable[Point]) -> dict[tuple[Any, str], list[SeedMean]]:
  """{(series, group): means in the order of x} of the points. The seeds of each x become a mean and a spread."""
  values: dict[tuple[Any, str], dict[Any, list[float]]] = {}
  for point in points:
    values.setdefault((point.series, point.group), {}).setdefault(point.x, []).append(point.value)
  return {
    line: [
      SeedMean(x, statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))
      for x, found in sorted(by_x.items(), key=lambda item: order_of(item[0]))
    ]
    for line, by_x in values.items()
  }


def order_of(value: Any) -> tuple[bool, Any]:
  """A key that sorts numbers by size, and texts behind them."""
  return (not is_number(value), value if is_number(value) else str(value))


def is_number(value: Any) -> bool:
  """Whether a value is one; True and False, which Python counts among them, are not."""
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def scale_of(sweep: Sweep, values: Iterable[Any]) -> str:
  """The scale of the horizontal axis: linear, log, or CATEGORY, which it also is for values that the other cannot have."""
  scale, values = sweep.record.get("x_scale", CATEGORY), list(values)
  is_possible = all(map(is_number, values)) and (scale != "log" or min(values, default=1) > 0)
  return scale if is_possible else CATEGORY


def points_of(sweep: Sweep, measure: str) -> list[Point]:
  """The points of the finished runs. A group counts those of its languages that all runs have; without any, it has none.

  A score is the mean over the tasks of the means over their languages, as the stop rule has it, of what all runs have.
  """
  if sweep.record["x"] == LANGUAGE:
    return _points_by_language(sweep, measure)
  x, series, points = sweep.record["x"], sweep.record.get("series"), []
  groups, common = sweep.groups_of(measure), sweep.common_by_task(measure)
  for run in sweep.runs:
    tables = run.tables(measure)
    if not run.is_finished or x not in run.values or not tables:
      continue
    for group, languages in groups.items():
      chosen = {task: [name for name in languages if name in found] for task, found in common.items()}
      means = [statistics.fmean(tables[task][name] for name in names) for task, names in chosen.items() if names]
      if means:
        points.append(
          Point(run.values[x], run.values.get(series) if series else None, group, run.seed, statistics.fmean(means))
        )
  return points


def points_over_steps(sweep: Sweep, measure: str) -> tuple[str | None, list[Point]]:
  """(label of the series, points) of a sweep whose x is the step: a point for each run at each of its steps.

  Runs are seeds of each other where they have the same values. Otherwise the values that differ are the series.
  """
  series = sweep.record.get("series")
  keys = ([series] if series else []) + _differing_keys(sweep)
  points = []
  for run in sweep.runs:
    named = run.values.get(keys[0]) if len(keys) == 1 else ", ".join(str(run.values.get(key)) for key in keys) or None
    points += [Point(step, named, ALL, run.seed, value) for step, value in run.history.get(measure, [])]
  return ", ".join(keys) or None, points


def _points_by_language(sweep: Sweep, measure: str) -> list[Point]:
  """A point for each language of each finished run.

  Where a run of a series has several settings, or is to have them, each setting of the series has a line. What a line is
  called must not depend on how many of them came out: the seeds of a setting belong together.
  """
  series, points = sweep.record.get("series"), []

  def name_of(run: SweepRun) -> str:
    return str(run.values.get(series, "")) if series else ""

  by_setting = {name_of(run) for run in sweep.runs if len({*run.asked, *run.settings}) > 1}
  for run in sweep.runs:
    if not run.is_finished:
      continue
    name = name_of(run)
    tables = {name: run.measured(measure)}
    if measure == "score" and name in by_setting and run.settings:
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
      (str(run["name"]), dict(run["values"]), int(run.get("seed", 0)), tuple(map(str, run.get("settings") or ())),
       _held_out_of(run.get("rows_made")))
      for run in record["runs"]
    ]  # fmt: skip
    groups = {str(name): list(map(str, languages)) for name, languages in dict(record.get("groups") or {}).items()}
    record = {"title": folder.name, "y": "bits_per_byte", "series": None, "x_label": str(record["x"]), **record}
    if record["y"] not in MEASURES or any("/" in name or name in ("", "..") for name, *_ in runs):
      raise ValueError(f"y={record['y']!r}, or the name of a run, is none")
  except FileNotFoundError:
    raise UserError(f"{path} is missing; is {folder} the folder of a sweep?") from None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path} cannot be read ({error!r}); remove it, and the next `xlmr sweep` writes it anew") from None
  read = each(lambda run: read_sweep_run(Workdir(folder / run[0]), *run), runs, folder)
  leave_out_other_scores(read)
  return _with_lines_of_their_own(Sweep(folder, record | {"groups": groups}, read))


def _held_out_of(rows: Mapping[str, Any] | None) -> dict[str, str]:
  """{what held-out text depends on: its value in words} of a run's "rows_made"; {} where sweep.json does not say."""
  return {words: str(rows.get(key)) or "all that there is" for key, words in _HELD_OUT.items()} if rows else {}


def _with_lines_of_their_own(sweep: Sweep) -> Sweep:
  """The sweep, with a series of all values in which runs of one x and seed differ: they are no seeds of each other."""
  series = sweep.record["series"]
  differing = [] if sweep.record["x"] in (LANGUAGE, STEP) else _differing_keys(sweep)
  if not differing:
    return sweep
  chosen = ([series] if series else []) + differing
  label = ", ".join(chosen)
  if len(chosen) > 1:
    for run in sweep.runs:
      run.values = run.values | {label: ", ".join(str(run.values.get(key)) for key in chosen)}
  return Sweep(sweep.folder, sweep.record | {"series": label}, sweep.runs)


def _differing_keys(sweep: Sweep) -> list[str]:
  """The keys beside x, series and seed in which runs differ that have these in common."""
  x, series = sweep.record["x"], sweep.record["series"]
  alike: dict[Any, list[SweepRun]] = {}
  for run in sweep.runs:
    alike.setdefault((str(run.values.get(x)), str(run.values.get(series)), run.seed), []).append(run)
  keys = dict.fromkeys(key for run in sweep.runs for key in run.values if key not in (x, series, "seed"))
  return [key for key in keys if any(len({str(run.values.get(key)) for run in runs}) > 1 for runs in alike.values())]


def config_differences(runs: Sequence[SweepRun]) -> tuple[list[str], list[list[Any]]]:
  """(keys, a row per run: its name, and numbers or texts) of the config keys in which the runs that have begun differ."""
  begun = [run for run in runs if run.config]
  keys = sorted({key for run in begun for key in run.config})
  differing = [key for key in keys if len({str(run.config.get(key)) for run in begun}) > 1]
  rows = [[run.name, *(run.config.get(key, "") for key in differing)] for run in begun]
  return differing, [[value if is_number(value) else str(value) for value in row] for row in rows]
