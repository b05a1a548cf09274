"""Pictures of a run, drawn from its logs and its ledger. Each function writes a PNG and returns the figure that it drew."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.ledger import Entry, read_ledger
from xlmr_jax.files import AnyPath, whole_file
from xlmr_jax.ids import FIRST_PIECE
from xlmr_jax.progress import Progress
from xlmr_jax.report.run_page.numbers import best_of
from xlmr_jax.run import logs
from xlmr_jax.run.goodput import PARTS, read_accounts
from xlmr_jax.run.workdir import Workdir, best_step, read_stop

ENTROPY_ROWS = 20_000  # At most so many rows of a language, evenly spread, are counted.
INK, BEFORE, AFTER, BOUND = "#222222", "#b8b8b8", "#1f6f8b", "#d1495b"
STYLE: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK,
                         "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
                         "text.parse_math": False}  # fmt: skip
LOSS = "held-out loss, nats per masked token"
PART_COLORS = ("#1f6f8b", "#e9c46a", "#b8b8b8", "#8d99ae", "#6a994e", "#7b6d8d", "#d1495b", "#9d2a3b", "#444444")
_BARS = 30  # starts that the picture of the time has at most


@contextlib.contextmanager
def figure_file(out: AnyPath, width: float, height: float) -> Iterator[Any]:
  """Yields a new figure in the style of all pictures, sizes in inches, and writes it to `out` when the block ends."""
  import matplotlib
  from matplotlib.figure import Figure

  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    with whole_file(out) as unfinished:
      figure.savefig(unfinished, dpi=130, format="png")


def read_held_out(workdir: Workdir, until: float = math.inf) -> list[dict]:
  """The lines of a run's held-out log up to a step. UserError: there is no log, or nothing in it."""
  if not workdir.held_out_log.exists():
    raise UserError(f"{workdir.held_out_log} is missing; is {workdir} the workdir of a run?")
  lines = [line for line in logs.read_held_out(workdir) if line["step"] <= until]
  if not lines:
    raise UserError(f"{workdir.held_out_log} has no line up to step {until:g}; wait for the run's first held-out pass")
  return lines


def losses_of(line: dict) -> dict[str, float]:
  """{language: held-out loss} of a line of the held-out log."""
  return {language: values["loss"] for language, values in line["languages"].items()}


def unigram_entropy(store: RowStore) -> dict[str, float]:
  """The entropy of each language's pieces in its training rows, nats: the loss of knowing nothing but their frequencies."""
  entropy, counted = {}, np.minimum(store.counts("train"), ENTROPY_ROWS)
  with Progress("counting pieces for the unigram entropy", float(counted.sum()), "rows") as progress:
    for i, (language, rows) in enumerate(zip(store.languages, store.counts("train"))):
      sample = np.unique(np.linspace(0, rows - 1, counted[i]).astype(np.int64))
      ids = store.read("train", np.full(len(sample), i), sample)
      counts = np.bincount(ids[ids >= FIRST_PIECE])
      p = counts[counts > 0] / counts.sum()
      entropy[language] = float(-(p * np.log(p)).sum())
      progress.add(len(sample), language)
  return entropy


def held_out_picture(workdir: Workdir, out: AnyPath, until: float = math.inf) -> Any:
  """Held-out loss against updates up to a step: a line per language, and their mean on top."""
  lines = read_held_out(workdir, until)
  steps = [line["step"] for line in lines]
  with figure_file(out, 7, 4.2) as figure:
    axes = figure.subplots()
    for language in lines[-1]["languages"]:
      losses = [losses_of(line).get(language, math.nan) for line in lines]
      axes.plot(steps, losses, color=AFTER, alpha=0.35, linewidth=1, label=language)
    axes.plot(steps, [line["mean_loss"] for line in lines], color=INK, linewidth=2.2, label="mean")
    axes.set(xlabel="updates", ylabel=LOSS, ylim=(0, None), xlim=(0, max(steps[-1], 1)))
    languages = set(lines[-1]["languages"]) - set(lines[-1].get("parallel", ()))
    axes.set_title(f"Held-out loss of {len(languages)} languages (black: their mean)", loc="left")
  return figure


def languages_picture(
  before: dict[str, float], after: dict[str, float], out: AnyPath, *, label: str, title: str,
  bound: dict[str, float] | None = None,
) -> Any:  # fmt: skip
  """A row per language: where it was, where it is, and the mark to beat. The rows are sorted by where they are."""
  before, after = ({name: x for name, x in found.items() if math.isfinite(x)} for found in (before, after))
  names = sorted(before.keys() & after.keys(), key=lambda name: (after[name], name))
  if not names:
    raise UserError("no language has a held-out loss both before and after")
  columns = 1 if len(names) <= 30 else 2
  per_column = -(-len(names) // columns)
  limit = 1.05 * max([*(before[name] for name in names), *(after[name] for name in names), *(bound or {}).values()])
  with figure_file(out, 7.2 if columns == 1 else 9, 1.1 + per_column * (0.26 if columns == 1 else 0.2)) as figure:
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    for panel, part in zip(panels, (names[i * per_column : (i + 1) * per_column] for i in range(columns))):
      rows = np.arange(len(part))
      first, last = np.array([before[name] for name in part]), np.array([after[name] for name in part])
      panel.hlines(rows, last, first, color=BEFORE, linewidth=1.5, zorder=1)
      panel.scatter(first, rows, color=BEFORE, s=18, label="before", zorder=2)
      panel.scatter(last, rows, color=AFTER, s=22, label="after", zorder=3)
      if bound:
        marks = [bound.get(name, math.nan) for name in part]
        panel.scatter(marks, rows, color=BOUND, marker="|", s=90, label="unigram entropy", zorder=4)
      panel.set_yticks(rows, part)
      panel.set(xlim=(0, limit), ylim=(len(part) - 0.4, -0.6), xlabel=label)
      panel.grid(axis="x", color="#eeeeee")
      panel.set_axisbelow(True)
    panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    figure.suptitle(title, x=0.01, ha="left")
  return figure


def transfer_picture(workdir: Workdir, out: AnyPath) -> Any:
  """Held-out loss beside the downstream score of each evaluated step; the best step and the stop are marked."""
  lines, ledger = read_held_out(workdir), read_ledger(workdir)
  scored = [(entry.step, 100 * entry.score) for entry in ledger if entry.score is not None]
  if not scored:
    raise UserError(f"{workdir.evaluations} holds no score; run `xlmr evaluate --workdir={workdir}` first")
  best, stop = best_of(scored, best_step(workdir)) or scored[-1], read_stop(workdir)
  with figure_file(out, 7, 4.2) as figure:
    axes = figure.subplots()
    axes.plot([line["step"] for line in lines], [line["mean_loss"] for line in lines], color=BEFORE, linewidth=2)
    axes.set(xlabel="updates", ylim=(0, None), xlim=(0, max(1.02 * lines[-1]["step"], 1)))
    axes.set_ylabel(f"{LOSS} (grey)")
    scores = axes.twinx()
    scores.spines["right"].set_visible(True)
    scores.plot(*zip(*scored), color=AFTER, linewidth=2, marker="o", markersize=4)
    scores.set(ylim=(0, 100))
    scores.set_ylabel("downstream score, % (blue)", color=AFTER)
    text = f"best: {best[1]:.1f} at {best[0]}"
    side = "right" if best[0] > 0.8 * lines[-1]["step"] else "left" if best[0] < 0.2 * lines[-1]["step"] else "center"
    scores.annotate(text, best, (0, 8), textcoords="offset points", ha=side, color=AFTER)
    if stop:
      axes.axvline(stop.step, color=BOUND, linewidth=1.5, linestyle="--")
      axes.annotate(f"the rule, at {stop.step}", (stop.step, 1), (-4, -4), xycoords=("data", "axes fraction"),
                    textcoords="offset points", rotation=90, ha="right", va="top", color=BOUND)  # fmt: skip
    axes.set_title(f"Held-out loss and downstream score{_setting_in_words(ledger)}", loc="left")
  return figure


def _setting_in_words(ledger: list[Entry]) -> str:
  """How the scored models were fine-tuned, ", zero-shot" for example; "" where the entries differ or say nothing."""
  recipes = [
    recipe for entry in ledger if entry.score is not None for task, recipe in entry.recipe.items() if task in entry.scores
  ]
  settings = {str(recipe["setting"]) for recipe in recipes if isinstance(recipe, dict) and "setting" in recipe}
  return f", {settings.pop().replace('_', '-')}" if len(settings) == 1 else ""


def goodput_picture(workdir: Workdir, out: AnyPath) -> Any:
  """Where the time of each start of a run went, as a stacked bar; the newest starts, the last one at the bottom."""
  accounts = read_accounts(workdir)
  total, starts = accounts.total(), accounts.starts[-_BARS:]
  if total is None:
    raise UserError(f"{workdir.goodput} is missing or damaged; is {workdir} the workdir of a run?")
  unit, seconds = ("hours", 3600.0) if max(start.wall for start in starts) > 7200 else ("minutes", 60.0)
  names = [name for name in PARTS if any(start.parts.get(name, 0.0) > 0 for start in starts)]
  numbers = np.cumsum([start.starts for start in accounts.starts])[-_BARS:]
  labels = [f"{start.starts} older" if start.starts > 1 else f"start {number}" for start, number in zip(starts, numbers)]
  with figure_file(out, 7.2, 1.9 + 0.28 * len(starts)) as figure:
    axes = figure.subplots()
    left = np.zeros(len(starts))
    for name, color in zip(PARTS, PART_COLORS, strict=True):
      if name in names:
        width = np.array([start.parts.get(name, 0.0) / seconds for start in starts])
        axes.barh(np.arange(len(starts)), width, left=left, height=0.7, color=color, label=PARTS[name])
        left += width
    axes.set_yticks(np.arange(len(starts)), labels)
    axes.set(xlabel=unit, xlim=(0, None), ylim=(len(starts) - 0.4, -0.6))
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    share = total.parts.get("step", 0.0) / max(total.wall, 1e-9)
    figure.suptitle(f"Where the time went: {share:.1%} into steps that count", x=0.01, ha="left")
  return figure
