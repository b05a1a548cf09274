"""Writes sweep.html, one file with the figure of a sweep. sweep_page/ says what is on it.

It is drawn from sweep.json and the workdirs of the runs, and loads nothing from elsewhere.
"""

import html

from xlmr_jax.files import AnyPath, write_whole
from xlmr_jax.report.page.frame import Section, tiles, whole_page
from xlmr_jax.report.page.words import listed
from xlmr_jax.report.sweep_page import sections
from xlmr_jax.report.sweep_page.numbers import MEASURES, STEP, Sweep, read_sweep

PAGE = "sweep.html"


def is_sweep(folder: AnyPath) -> bool:
  """Whether a folder is that of a sweep and not the workdir of a run."""
  return (folder / "sweep.json").exists()


def write_sweep_report(folder: AnyPath, out: AnyPath | None = None) -> AnyPath:
  """Writes the page of a sweep to `out`, by default sweep.html in its folder, and returns its path.

  Runs that are not finished are listed and left out of the figure. Raises UserError: there is no sweep.json.
  """
  page = sweep_page(read_sweep(folder))
  path = out or folder / PAGE
  write_whole(path, page.encode())
  return path


def sweep_page(sweep: Sweep) -> str:
  """The HTML of a sweep's page."""
  parts = [
    Section("figure", "Figure", sections.figure_section(sweep)),
    Section("table", "Table", sections.table_section(sweep)),
    Section("runs", "Runs", sections.runs_section(sweep)),
    Section("config", "What differs between the configs", sections.config_section(sweep)),
  ]
  return whole_page(f"Sweep: {sweep.record['title']}", _overview(sweep), parts)


def _overview(sweep: Sweep) -> str:
  finished = sum(run.is_finished for run in sweep.runs)
  seeds = {run.seed for run in sweep.runs}
  facts = [(f"{finished} of {len(sweep.runs)}", "runs finished"), (str(len(seeds)), "seeds" if len(seeds) > 1 else "seed")]
  name = ":".join(filter(None, (str(sweep.record.get("name", "")), str(sweep.record.get("arg", "")))))
  text = tiles(facts) + (f"<p>Config <code>{html.escape(name)}</code></p>\n" if name else "")
  left = [run.name for run in sweep.runs if not run.is_finished]
  if left:
    why = "Not finished" if sweep.record["x"] == STEP else "Not finished, and so not in the figure"
    text += f'<p class="warning">{why}: {html.escape(listed(left))}.</p>\n'
  if empty := sweep.without_value:
    text += f'<p class="warning">Finished, but without a value in the figure: {html.escape(listed(empty))}.</p>\n'
  if other := [f"{run.name} ({run.other_scores} as of most runs)" for run in sweep.runs if run.other_scores]:
    what = "These runs were scored otherwise than the others, so that their scores are left out; score them as the others"
    text += f'<p class="warning">{what}: {html.escape(listed(other))}.</p>\n'
  for measure, words in MEASURES.items():
    if why := sweep.why_not_compared(measure):
      what = f"The {words.partition(',')[0]} is not compared, because {why}."
      text += f'<p class="warning">{html.escape(what)}</p>\n'
  return text
