"""The sections of a sweep's page: the figure, the table behind it to copy, the runs, and what differs between them."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlmr_jax.report.page.charts import LOOKS, Axis, Line, line_chart
from xlmr_jax.report.page.markup import Column, folded, html_table
from xlmr_jax.report.page.words import counted, name_with_code
from xlmr_jax.report.sweep_page.numbers import (
  ALL,
  CATEGORY,
  LANGUAGE,
  MEASURES,
  STEP,
  SeedMean,
  Sweep,
  config_differences,
  figure,
  group_name,
  is_number,
  order_of,
  points_of,
  points_over_steps,
  scale_of,
)
from xlmr_jax.report.sweep_page.runs import SweepRun

_MEAN_AND_SPREAD = ("mean", "standard deviation")
_ORDER = ("high", ALL, "low")  # how the names of groups begin, from the top of the paper's figures to the bottom


def measures_of(sweep: Sweep) -> list[str]:
  """The measures that the runs can be compared by and have values of, the sweep's own first."""
  if sweep.record["x"] == STEP:
    return [measure for measure in MEASURES if not sweep.why_not_compared(measure)]
  own = sweep.record["y"]
  found = [own, *(measure for measure in MEASURES if measure != own)]
  has_values = {measure for measure in found for run in sweep.runs if run.is_finished and run.measured(measure)}
  return [measure for measure in found if measure in has_values and not sweep.why_not_compared(measure)]


def figure_section(sweep: Sweep) -> str:
  """The picture of each measure."""
  if sweep.record["x"] == STEP:
    return "".join(_over_steps(sweep, measure) for measure in measures_of(sweep))
  pictures = [_picture(sweep, measure) for measure in measures_of(sweep)]
  return f"{_groups_in_words(sweep)}{''.join(pictures)}" if pictures else ""


def _groups_in_words(sweep: Sweep) -> str:
  directions = {"bits_per_byte": "held-out loss: lower is better", "score": "scores: higher is better"}
  better = "; ".join(words for measure, words in directions.items() if not sweep.why_not_compared(measure))
  better = better[0].upper() + better[1:] + "."
  if sweep.record["x"] == LANGUAGE:
    return f"<p>{better}</p>\n"
  by_words: dict[str, list[str]] = {}  # Tasks may have other languages than the held-out rows.
  for measure in measures_of(sweep):
    by_words.setdefault(_languages_in_words(sweep.groups_of(measure)), []).append(MEASURES[measure])
  lines = [words if len(by_words) == 1 else f"{', '.join(names)}: {words}" for words, names in by_words.items()]
  how = "A score is the mean over the tasks of the means over their languages." if "score" in measures_of(sweep) else ""
  return "".join(f"<p>{html.escape(line)}.</p>\n" for line in lines) + f"<p>{' '.join(filter(None, (how, better)))}</p>\n"


def _languages_in_words(groups: Mapping[str, Sequence[str]]) -> str:
  """Which languages the lines of a picture are means over."""
  parts = [
    f"{group_name(group)}: {', '.join(map(name_with_code, names))}" for group, names in groups.items() if group != ALL
  ]
  if ALL in groups:
    parts.append(f"all languages: the {counted(len(groups[ALL]), 'language')} that every finished run has")
  return "; ".join(parts)


def sorted_lines(means: dict[tuple[Any, str], list[SeedMean]]) -> list[tuple[Any, str]]:
  """The lines of a figure, (series, group), in the order of a legend."""
  return sorted(means, key=lambda line: (order_of(line[0]), _rank(line[1]), line[1]))


def _rank(group: str) -> int:
  return next((number for number, begin in enumerate(_ORDER) if group.startswith(begin)), len(_ORDER))


def line_name(series: Any, group: str, series_label: str | None) -> str:
  """What the legend calls a line. Without a label, a series is a setting of the scores, which has a line of its own."""
  if series_label is None:
    return f"{series}, {group_name(group)}" if series else group_name(group)
  return f"{series_label} {shown(series)}, {group_name(group)}"


def shown(value: Any) -> str:
  """A swept value in words."""
  return f"{value:,}" if type(value) is int else "none" if value is None else str(value)


def _picture(sweep: Sweep, measure: str) -> str:
  means = figure(points_of(sweep, measure))
  if not means:
    return ""
  record, lines = sweep.record, sorted_lines(means)
  # With several lines per group, one picture per group says more than one with all of them.
  groups = [None] if record["series"] is None else list(dict.fromkeys(group for _, group in lines))
  pictures = []
  for group in groups:
    chosen = [line for line in lines if group is None or line[1] == group]
    pictures.append(_one_picture(sweep, measure, {line: means[line] for line in chosen}, group))
  return pictures[0] if len(pictures) == 1 else f'<div class="charts">{"".join(pictures)}</div>'


def _one_picture(sweep: Sweep, measure: str, means: dict[tuple[Any, str], list[SeedMean]], group: str | None) -> str:
  record = sweep.record
  values = sorted({mean.x for line in means.values() for mean in line}, key=order_of)
  scale = scale_of(sweep, values)
  is_named = scale != "linear"  # Values of a logarithmic axis are doublings or so: evenly spaced, as in the paper's figures.
  where = {value: float(n) if is_named else float(value) for n, value in enumerate(values)}
  lines = []
  for number, ((series, own_group), found) in enumerate(means.items()):
    single = record["series"] is None
    look = 0 if single and own_group.startswith(ALL) else number % (LOOKS - 1) + 1
    name = (
      line_name(series, own_group, None if single else record["series"])
      if group is None
      else f"{record['series']} {shown(series)}"
    )
    lines.append(
      Line(name, np.array([where[mean.x] for mean in found]), np.array([mean.mean for mean in found]), look,
           spread=np.array([np.nan if mean.spread is None else mean.spread for mean in found]),
           is_joined=scale != CATEGORY)
    )  # fmt: skip
  seeds = sorted({mean.seeds for line in means.values() for mean in line})
  how_many = counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
  bars = "; a bar is one standard deviation to each side" if seeds[-1] > 1 else ""
  axis = Axis(str(record["x_label"]), labels=tuple(map(shown, values)) if is_named else ())
  title = MEASURES[measure].partition(",")[0].capitalize() + (f", {group_name(group)}" if group else "")
  return line_chart(lines, axis, Axis(MEASURES[measure]), title=title, caption=f"Means over {how_many}{bars}.")


def _over_steps(sweep: Sweep, measure: str) -> str:
  """Each run as a line over its own steps, with the same look for all seeds of a series."""
  series = sweep.record["series"]
  names = sorted({run.values.get(series) if series else run.name for run in sweep.runs}, key=order_of)
  lines = []
  for run in sweep.runs:
    found = run.history.get(measure, [])
    if not found:
      continue
    which = run.values.get(series) if series else run.name
    steps, values = (np.array(column, np.float64) for column in zip(*found))
    name = f"{series} {shown(which)}, seed {run.seed}" if series else run.name
    lines.append(Line(name, steps, values, names.index(which) % (LOOKS - 1) + 1))
  title = MEASURES[measure].partition(",")[0].capitalize()
  return line_chart(lines, Axis("updates"), Axis(MEASURES[measure]), title=title,
                    caption="One line per run, the mean of the languages that it has itself.")  # fmt: skip


def table_section(sweep: Sweep) -> str:
  """The numbers of the figure, to sort and to copy."""
  columns, rows = table_of(sweep)
  if not rows:
    return ""
  lines = ["\t".join(columns), *("\t".join(_cell(value) for value in row) for row in rows)]
  head = "| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns)
  markdown = "\n".join([head, *("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)])
  titles = [Column(title, "{:.4g}".format if title in _MEAN_AND_SPREAD else "{:,}".format) for title in columns]
  return (
    html_table(titles, [[x if x is None or is_number(x) else shown(x) for x in row] for row in rows])
    + folded("As tab-separated values, to copy", f'<pre class="copy">{html.escape(chr(10).join(lines))}</pre>')
    + folded("As Markdown, to copy", f'<pre class="copy">{html.escape(markdown)}</pre>')
  )


def _cell(value: Any) -> str:
  if value is None:
    return "–"
  return f"{value:.4f}" if isinstance(value, float) and value != round(value, 4) else str(value)


def table_of(sweep: Sweep) -> tuple[list[str], list[list[Any]]]:
  """(headings, rows) of all points of the figure, for all measures. None: the spread of a single seed."""
  record = sweep.record
  if record["x"] == STEP:
    return _table_over_steps(sweep)
  series = [] if record["series"] is None else [record["series"]]
  columns = ["measure", *series, "mean over", record["x"], *_MEAN_AND_SPREAD, "seeds"]
  rows = []
  for measure in measures_of(sweep):
    means = figure(points_of(sweep, measure))
    for line in sorted_lines(means):
      languages = group_name(line[1]) if series else line_name(*line, None)
      head = [MEASURES[measure], *([_named(line[0])] if series else []), languages]
      rows += [[*head, _named(mean.x), mean.mean, mean.spread, mean.seeds] for mean in means[line]]
  return columns, rows


def _table_over_steps(sweep: Sweep) -> tuple[list[str], list[list[Any]]]:
  """As table_of, of runs that are lines over their own steps: the mean over the seeds at each step."""
  label, rows = None, []
  for measure in measures_of(sweep):
    label, points = points_over_steps(sweep, measure)
    means = figure(points)
    for line in sorted_lines(means):
      head = [MEASURES[measure], *([_named(line[0])] if label else [])]
      rows += [[*head, mean.x, mean.mean, mean.spread, mean.seeds] for mean in means[line]]
  return ["measure", *([label] if label else []), STEP, *_MEAN_AND_SPREAD, "seeds"], rows


def _named(value: Any) -> Any:
  """A swept value in a table, in which an empty cell means that nothing is known."""
  return shown(None) if value is None else value


def runs_section(sweep: Sweep) -> str:
  """Every run: how far it is, and its values."""
  label = sweep.record["series"] or ""  # of several values together, each of which has its column
  keys = [key for key in dict.fromkeys(key for run in sweep.runs for key in run.values) if ", " not in label or key != label]
  settings = sorted({setting for run in sweep.runs for setting in run.settings})
  rows = []
  for run in sweep.runs:
    state = _state_of(run, sweep) if run.is_finished else f"at step {run.steps:,}" if run.config else "not begun"
    rows.append([
      run.name, state, *(x if is_number(x := run.values.get(key)) else shown(x) for key in keys), len(run.bits) or None,
      run.mean_bits, None if run.score is None else 100 * run.score,
      *(100 * run.means[setting] if setting in run.means else None for setting in settings),
    ])  # fmt: skip
  three = "{:.3f}".format
  columns = [Column("run"), Column("state"), *(Column(key, shown) for key in keys), Column("held-out languages"),
             Column("bits per byte", three),
             Column("score, %", "{:.1f}".format),
             *(Column(f"{setting}, %", "{:.1f}".format) for setting in settings)]  # fmt: skip
  return html_table(columns, rows)


def _state_of(run: SweepRun, sweep: Sweep) -> str:
  """In words, of a run that is finished."""
  if run.other_scores:
    return "scored otherwise"
  is_scored = any(other.scores for other in sweep.runs)
  return "trained, not scored" if is_scored and not run.scores else "finished"


def config_section(sweep: Sweep) -> str:
  """What differs between the configs of the runs, and what the command line changed in all of them."""
  keys, rows = config_differences(sweep.runs)
  text = html_table([Column("run"), *map(Column, keys)], rows) if keys else ""
  overrides = sweep.record.get("overrides") or {}
  if overrides:
    listed = ", ".join(f"{key}={value}" for key, value in overrides.items())
    text = f"<p>Changed in all runs by the command line: <code>{html.escape(listed)}</code></p>\n" + text
  return text
