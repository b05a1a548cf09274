"""What a vocabulary is worth to each language: a picture of characters per piece, and the table behind it as JSON."""

from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.files import write_json
from xlmr_jax.report.pictures import AFTER, BEFORE, BOUND, figure_file

_MOST_IN_A_COLUMN = 35


def write_report(summary: dict[str, Any], table: list[dict], out: Path, *, compared: str = "") -> Any:
  """Writes the picture to `out` and summary and table to the .json beside it; returns the figure.

  table: the rows of train_vocabulary. compared: what the rows' "compared" are of, e.g. "XLM-R"; "" if they have none.
  """
  write_json(out.with_suffix(".json"), {**summary, "compared": compared, "table": table})
  rows = sorted(table, key=lambda row: -row["paragraphs"])
  columns = -(-len(rows) // _MOST_IN_A_COLUMN)
  per_column = -(-len(rows) // columns)
  most = max(value["characters_per_piece"] for row in rows for value in (row, row.get("compared", row)))
  with figure_file(out, max(6.5, 3.6 * columns), 1.9 + 0.2 * per_column) as figure:
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    for number, panel in enumerate(panels):
      part = rows[number * per_column : (number + 1) * per_column]
      _bars(panel, part, compared)
      panel.set(xlim=(0, 1.12 * most), ylim=(per_column - 0.4, -0.6))
    panels[columns // 2].set_xlabel("characters per piece")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=len(labels), frameon=False)
    figure.suptitle(_title(summary, rows, compared), x=0.01, ha="left", fontsize=11)
  return figure


def _bars(panel: Any, rows: list[dict], compared: str) -> None:
  """A bar per language; a mark shows the other vocabulary, and a light end where it has the longer pieces."""
  centers = np.arange(len(rows))
  ours = np.array([row["characters_per_piece"] for row in rows])
  panel.barh(centers, ours, height=0.72, color=AFTER, label="this vocabulary")
  if compared:
    theirs = np.array([row["compared"]["characters_per_piece"] for row in rows])
    panel.barh(centers, np.maximum(theirs - ours, 0), left=ours, height=0.72, color=BEFORE, alpha=0.45)
    panel.scatter(theirs, centers, marker="|", s=60, linewidths=2, color=BOUND, label=compared, zorder=3)
  for center, row in zip(centers, rows):
    value, other = row["characters_per_piece"], row.get("compared", row)["characters_per_piece"]
    inside = {"textcoords": "offset points", "va": "center", "fontsize": 7}
    panel.annotate(f"{value:.2f}", (0, center), (4, 0), color="white", **inside)
    if row["unknown_rate"] >= 0.001:
      text = f"{row['unknown_rate']:.1%} unknown"
      panel.annotate(text, (max(value, other), center), (5, 0), color=BOUND, **inside)
  panel.set_yticks(centers, [row["language"] for row in rows], fontsize=8)
  panel.tick_params(axis="y", length=0)
  panel.grid(axis="x", color="#eeeeee")
  panel.set_axisbelow(True)


def _title(summary: dict[str, Any], rows: list[dict], compared: str) -> str:
  worst = min(rows, key=lambda row: row["characters_per_piece"])
  text = f"A vocabulary of {summary['size']:,} in {len(rows)} languages, the largest first"
  text += f"\nfewest characters per piece: {worst['language']}, {worst['characters_per_piece']:.2f}"
  if compared:
    longer = sum(row["characters_per_piece"] >= row["compared"]["characters_per_piece"] for row in rows)
    text += f"\npieces at least as long as those of {compared}: in {longer} of {len(rows)} languages"
  return text
