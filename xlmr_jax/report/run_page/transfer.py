"""The section about held-out loss beside downstream scores. It returns HTML, or "" without evaluations."""

import html

import numpy as np

from xlmr_jax.report.page.charts import Axis, Line, Mark, line_chart
from xlmr_jax.report.page.markup import Column, folded, html_table
from xlmr_jax.report.page.words import counted, name_with_code, percent
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


def _task_means(run: Run) -> dict[str, dict[int, dict[str, float]]]:
  """{task: {step: {language: mean of the seeds}}} of each task's first metric."""
  found: dict[str, dict[int, dict[str, float]]] = {}
  for entry in run.ledger:
    for task, languages in entry.scores.items():
      metric = entry.metrics.get(task, "")
      for language, values in languages.items():
        seeds = [value for value in values.get(metric, []) if value is not None]
        if seeds:
          found.setdefault(task, {}).setdefault(entry.step, {})[language] = sum(seeds) / len(seeds)
  return found


def _scores_by_task(run: Run, x: Axis) -> str:
  """A chart of each task with a line per language."""
  charts, looks = [], looks_of(run)
  for task, by_step in sorted(_task_means(run).items()):
    languages = sorted({language for scores in by_step.values() for language in scores})
    steps = np.array(sorted(by_step), np.float64)
    table = np.array([[by_step[int(step)].get(language, np.nan) for language in languages] for step in steps])
    few = len(languages) <= ALL_IN_COLOUR
    lines = [
      Line(name_with_code(language), steps, 100 * table[:, n], n + 1 if few else looks.get(language, -1), key=language)
      for n, language in enumerate(languages)
    ]
    if len(languages) > 1:
      known = np.isfinite(table)
      means = np.where(known, table, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
      lines.append(Line("mean of the languages", steps, 100 * means, 0))
    charts.append(line_chart(lines, x, Axis("score, %"), title=task))
  return "".join(charts)


def _task_table(run: Run) -> str:
  rows = []
  for task, by_step in sorted(_task_means(run).items()):
    for step, scores in sorted(by_step.items()):
      rows.append([task, step, sum(scores.values()) / len(scores), len(scores)])
  text = html_table([Column("task"), Column("step"), Column("mean score", percent), Column("languages")], rows)
  return (folded("Scores by task and step", text) if rows else "") + _failed_table(run)


def _failed_table(run: Run) -> str:
  """What went wrong in evaluations, also where none has a score; "" if nothing did."""
  failed = [[entry.step, entry.error or "; ".join(f"{task}: {why}" for task, why in entry.errors.items())]
            for entry in run.ledger if entry.error or entry.errors]  # fmt: skip
  return folded("Evaluations that failed", html_table([Column("step"), Column("why")], failed)) if failed else ""
