"""The figure of a sweep as a PNG, for papers and pages that take no HTML. The numbers are those of its page."""

import textwrap
from typing import Any

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath
from xlmr_jax.report.pictures import INK, figure_file
from xlmr_jax.report.sweep_page.numbers import (
  CATEGORY,
  MEASURES,
  STEP,
  SeedMean,
  Sweep,
  figure,
  group_name,
  order_of,
  points_of,
  scale_of,
)
from xlmr_jax.report.sweep_page.sections import line_name, measures_of, shown, sorted_lines

# Okabe and Ito's colours, which do not depend on colour vision; marks of their own tell the lines apart in print too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
PANELS_PER_ROW = 3
PANEL_CHARACTERS = 45  # of the names below a panel, if they are not to touch
TITLE_POINTS = 11
CHARACTERS_PER_INCH = 11  # of a title in its points, with room to spare

Lines = dict[tuple[Any, str], list[SeedMean]]


def sweep_picture(sweep: Sweep, out: AnyPath) -> Any:
  """Writes the PNG and returns the figure: a panel per measure, and per group of languages where the sweep has series.

  An error bar is one standard deviation over the seeds to each side. UserError: no run is finished.
  """
  panels = _panels_over_steps(sweep) if sweep.record["x"] == STEP else _panels(sweep)
  if not panels:
    finished = any(run.is_finished for run in sweep.runs)
    why = "the finished runs have no language in common" if finished else "no run is finished"
    why = sweep.why_not_compared(sweep.record["y"]) or why
    raise UserError(f"{sweep.folder}: {why}, so that there is nothing to draw")
  columns = min(len(panels), PANELS_PER_ROW)
  rows = -(-len(panels) // columns)
  width = 4.4 * columns + 0.6
  with figure_file(out, width, 3.7 * rows + 0.4) as drawn:
    all_axes = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, measure, lines) in zip(all_axes, panels):
      _draw(axes, sweep, lines)
      axes.set_title(title, loc="left", fontsize=10)
      axes.set_ylabel(MEASURES[measure])
    for axes in all_axes[len(panels) :]:
      axes.set_axis_off()
    title = textwrap.fill(str(sweep.record["title"]), int(width * CHARACTERS_PER_INCH))
    drawn.suptitle(title, x=0.01, ha="left", fontsize=TITLE_POINTS)
  return drawn


def _panels(sweep: Sweep) -> list[tuple[str, str, dict[str, list[SeedMean]]]]:
  """(title, measure, {name of a line: its points}) of each panel."""
  series_label = sweep.record["series"]
  panels = []
  for measure in measures_of(sweep):
    means: Lines = figure(points_of(sweep, measure))
    lines = sorted_lines(means)
    title = MEASURES[measure].partition(",")[0].capitalize()
    if series_label is None:
      panels.append((title, measure, {line_name(*line, None): means[line] for line in lines}))
      continue
    for group in dict.fromkeys(group for _, group in lines):
      chosen = {f"{series_label} {shown(line[0])}": means[line] for line in lines if line[1] == group}
      panels.append((f"{title}, {group_name(group)}", measure, chosen))
  return [panel for panel in panels if panel[2]]


def _panels_over_steps(sweep: Sweep) -> list[tuple[str, str, dict[str, list[SeedMean]]]]:
  """As _panels, of a sweep whose runs are lines over their own steps."""
  panels = []
  for measure in measures_of(sweep):
    lines = {
      run.name: [SeedMean(step, value, None, 1) for step, value in run.history.get(measure, [])] for run in sweep.runs
    }
    lines = {name: means for name, means in lines.items() if means}
    panels.append((MEASURES[measure].partition(",")[0].capitalize(), measure, lines))
  return [panel for panel in panels if panel[2]]


def _draw(axes: Any, sweep: Sweep, lines: dict[str, list[SeedMean]]) -> None:
  """The lines of a panel, and its horizontal axis."""
  record = sweep.record
  values = sorted({mean.x for means in lines.values() for mean in means}, key=order_of)
  is_named = record["x"] != STEP and scale_of(sweep, values) == CATEGORY
  where = {value: float(n) if is_named else float(value) for n, value in enumerate(values)}
  for number, (name, means) in enumerate(lines.items()):
    style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "markersize": 5}
    # Languages have no order, so that a line between them would mean nothing.
    joined = "none" if is_named else "-"
    x = np.array([where[mean.x] for mean in means])
    spread = [mean.spread or 0.0 for mean in means]
    axes.errorbar(x, [mean.mean for mean in means], spread, label=name, linestyle=joined, capsize=3, **style)
  is_crowded = False
  if is_named:
    names = [shown(value) for value in values]
    is_crowded = len(names) * max(map(len, names), default=0) > PANEL_CHARACTERS
    axes.set_xticks(list(where.values()), names, **({"rotation": 20, "ha": "right"} if is_crowded else {}))
  elif record["x"] != STEP:
    if record.get("x_scale") == "log":
      axes.set_xscale("log")
    axes.set_xticks(list(where.values()), [shown(value) for value in values])
    axes.minorticks_off()
  axes.set_xlabel("updates" if record["x"] == STEP else str(record["x_label"]))
  axes.grid(axis="y", color="#eeeeee")
  axes.set_axisbelow(True)
  if len(lines) > 1 or record["series"] is not None:
    # Bars stand all over a panel of names, so that there its legend lies below it.
    below = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.3 if is_crowded else -0.16), "borderaxespad": 0.0}
    axes.legend(frameon=False, fontsize=8, **(below if is_named else {}))
