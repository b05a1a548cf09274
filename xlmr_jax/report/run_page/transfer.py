"""The section about held-out loss beside downstream scores. It returns HTML, or "" without evaluations."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlmr_jax.report.page.charts import Axis, Line, Mark, line_chart
from xlmr_jax.report.page.markup import Column, folded, html_table
from xlmr_jax.report.page.words import counted, listed, name_with_code, percent
from xlmr_jax.report.run_page.looks import ALL_IN_COLOUR, NATS, looks_of
from xlmr_jax.report.run_page.numbers import Run


def transfer_section(run: Run) -> str:
  """Held-out loss above downstream scores, with the step where each was best, and the stop."""
  scores, best_score = run.scores, run.best_score
  if best_score is None:
    return _failed_table(run)
  held_out = run.held_out
  steps, values = (np.array(column, np.float64) for column in zip(*scores))
  best, highest = best_score
  right = max([*steps, *held_out.steps[-1:]])
  x = Axis("updates", low=0.0, high=float(right) * 1.02 or 1.0)
  stop = [Mark(run.stop.step, f"stopped at {run.stop.step:,}")] if run.stop else []
  lines = [Line("mean held-out loss", held_out.steps, held_out.mean, 0)] if np.isfinite(held_out.mean).any() else []
  lowest = int(held_out.steps[np.nanargmin(held_out.mean)]) if lines else None
  text = '<div class="charts">' + line_chart(
    lines, x, Axis(f"mean held-out loss, {NATS}"), title="Held-out loss", low=True,
    marks=[*stop, *([Mark(lowest, f"lowest at {lowest:,}")] if lowest is not None else [])],
  ) + line_chart(
    [Line("score", steps, 100 * values, 1)], x, Axis("downstream score, %"), title="Downstream score", low=True,
    marks=[*stop, Mark(best, f"best at {best:,}")],
  )  # fmt: skip
  text += _scores_by_task(run, x) + "</div>"
  by = "By the evaluator's rule, which is not that of the run's config.json, the" if run.has_other_rule else "The"
  story = [f"{by} score is highest at step {best:,}: {100 * highest:.1f} %."]
  if lowest is not None:
    story.append(f"The mean held-out loss is lowest at step {lowest:,}.")
    at = min(range(len(steps)), key=lambda i: abs(steps[i] - lowest))
    if steps[at] != best and values[at] < highest - 5e-4:
      story.append(
        f"Stopping there, by held-out loss, would have scored {100 * float(values[at]):.1f} % (at step {int(steps[at]):,}), "
        f"{100 * (highest - float(values[at])):.1f} points less."
      )
  story.append(_rule_in_words(run))
  return f"<p>{html.escape(' '.join(story))}</p>{text}{_task_table(run)}"


def _rule_in_words(run: Run) -> str:
  """What ended the run, or what may end it. Only the evaluator knows the flags that it was given."""
  rule = run.record.config["stop"]
  if run.stop:
    return f"The rule ends the run: {run.stop.reason}."
  if rule.get("by") == "held_out" and rule["patience"]:
    return f"The rule waits for {counted(rule['patience'], 'held-out pass', 'held-out passes')} without gain."
  if run.result:
    return "No rule ended the run."
  if rule["patience"]:
    waits = f"The rule waits for {counted(rule['patience'], 'evaluation')} without gain"
    return f"{waits}, unless a flag of the evaluator says otherwise."
  return "The run's config has no rule that stops it (config.stop.patience is 0); a flag of the evaluator may give it one."


class _Evaluated(NamedTuple):
  """A task at a step, by the metric that counts. A seed without a number leaves its language, and the task, without one."""

  mean: float  # of the languages, as the stop rule has it; NaN where there is none
  languages: dict[str, float]  # the means of the seeds; NaN where there is none


def _evaluated(run: Run) -> dict[str, dict[int, _Evaluated]]:
  """{task: {step: its scores}} of the ledger."""
  found: dict[str, dict[int, _Evaluated]] = {}
  for entry in run.ledger:
    for task, languages in entry.scores.items():
      if not languages or task not in entry.metrics:
        continue
      seeds = {language: values.get(entry.metrics[task]) or [None] for language, values in languages.items()}
      means = {language: _mean(values) for language, values in seeds.items()}
      score = entry.score_of(task)
      found.setdefault(task, {})[entry.step] = _Evaluated(math.nan if score is None else score, means)
  return found


def _mean(seeds: Sequence[float | None]) -> float:
  known = [value for value in seeds if value is not None]
  return sum(known) / len(known) if len(known) == len(seeds) else math.nan


def _lost_in_words(by_step: dict[int, _Evaluated]) -> str:
  """Which languages have no score at which steps; "" if all have one."""
  lost = [
    f"{name_with_code(language)} at step {step:,}"
    for step, found in sorted(by_step.items())
    for language, value in found.languages.items()
    if not math.isfinite(value)
  ]
  return f"No score, because that of a seed is no number: {listed(lost)}." if lost else ""


def _scores_by_task(run: Run, x: Axis) -> str:
  """A chart of each task with a line per language."""
  charts, looks = [], looks_of(run)
  for task, by_step in sorted(_evaluated(run).items()):
    languages = sorted({language for found in by_step.values() for language in found.languages})
    in_order = [by_step[step] for step in sorted(by_step)]
    steps = np.array(sorted(by_step), np.float64)
    table = np.array([[found.languages.get(language, np.nan) for language in languages] for found in in_order])
    few = len(languages) <= ALL_IN_COLOUR
    lines = [
      Line(name_with_code(language), steps, 100 * table[:, n], n + 1 if few else looks.get(language, -1), key=language)
      for n, language in enumerate(languages)
    ]
    if len(languages) > 1:
      lines.append(Line("mean of the languages", steps, 100 * np.array([found.mean for found in in_order]), 0))
    charts.append(line_chart(lines, x, Axis("score, %"), title=task, caption=_lost_in_words(by_step)))
  return "".join(charts)


def _task_table(run: Run) -> str:
  rows = []
  for task, by_step in sorted(_evaluated(run).items()):
    rows += [[task, step, found.mean, len(found.languages)] for step, found in sorted(by_step.items())]
  text = html_table([Column("task"), Column("step"), Column("mean score", percent), Column("languages")], rows)
  return (folded("Scores by task and step", text) if rows else "") + _failed_table(run)


def _failed_table(run: Run) -> str:
  """What went wrong in evaluations, also where none has a score; "" if nothing did."""
  failed = [[entry.step, entry.error or "; ".join(f"{task}: {why}" for task, why in entry.errors.items())]
            for entry in run.ledger if entry.error or entry.errors]  # fmt: skip
  return folded("Evaluations that failed", html_table([Column("step"), Column("why")], failed)) if failed else ""
