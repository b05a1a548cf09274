"""Command: pictures of a run from its logs, and what its losses are to be compared with.

xlmr report --workdir=DIR [--rows=ROWS]     writes DIR/held_out.png, DIR/languages.png and, of a run
                                                          that was evaluated, DIR/transfer.png
"""

import json
import math
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.errors import UserError, run_command

FLAGS = flags.FLAGS
ENTROPY_ROWS = 20_000  # of a language, evenly spread, are counted at most
INK, BEFORE, AFTER, BOUND = "#222222", "#b8b8b8", "#1f6f8b", "#d1495b"


def unigram_entropy(store) -> dict[str, float]:
  """Entropy of each language's pieces in its training rows, nats: the loss of knowing nothing but their frequencies."""
  from xlmr_jax.data.tokenizer import FIRST_PIECE

  entropy = {}
  for i, (name, rows) in enumerate(zip(store.languages, store.counts("train"))):
    sample = np.unique(np.linspace(0, rows - 1, min(rows, ENTROPY_ROWS)).astype(np.int64))
    ids = store.read("train", np.full(len(sample), i), sample)
    counts = np.bincount(ids[ids >= FIRST_PIECE])
    p = counts[counts > 0] / counts.sum()
    entropy[name] = float(-(p * np.log(p)).sum())
  return entropy


def read_lines(path: Path) -> list[dict]:
  if not path.exists():
    raise UserError(f"{path} is missing: is {path.parent} the workdir of a run?")
  return [json.loads(line) for line in path.read_text().splitlines()]


def _figure(width: float, height: float):
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  plt.rcParams.update(
    {
      "font.size": 10,
      "axes.spines.top": False,
      "axes.spines.right": False,
      "text.color": INK,
      "axes.labelcolor": INK,
      "xtick.color": INK,
      "ytick.color": INK,
    }
  )
  return plt, *plt.subplots(figsize=(width, height), layout="constrained")


def held_out_picture(workdir: Path, out: Path, until: float = math.inf) -> None:
  """Held-out loss against steps up to one: a line a language, their mean on top."""
  lines = [line for line in read_lines(workdir / "held_out.jsonl") if line["step"] <= until]
  steps = [line["step"] for line in lines]
  plt, figure, axes = _figure(7, 4.2)
  for name in lines[-1]["languages"]:
    axes.plot(steps, [line["languages"][name]["loss"] for line in lines], color=AFTER, alpha=0.35, linewidth=1)
  axes.plot(steps, [line["mean_loss"] for line in lines], color=INK, linewidth=2.2)
  axes.set(xlabel="updates", ylabel="held-out loss, nats a masked token", ylim=(0, None), xlim=(0, steps[-1]))
  axes.set_title(f"Held-out loss of {len(lines[-1]['languages'])} languages (black: their mean)", loc="left")
  figure.savefig(out, dpi=130)
  plt.close(figure)


def languages_picture(
  before: dict[str, float],
  after: dict[str, float],
  out: Path,
  *,
  label: str,
  title: str,
  bound: dict[str, float] | None = None,
) -> None:
  """A row a language: where it started, where it is, and the mark to beat. Sorted by where it is."""
  names = sorted(after, key=after.get)
  columns = 1 if len(names) <= 30 else 2
  per = -(-len(names) // columns)
  plt, figure, _ = _figure(7.2 if columns == 1 else 9, 1.1 + per * (0.26 if columns == 1 else 0.2))
  figure.clear()
  panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
  limit = 1.05 * max([*before.values(), *(bound or {}).values()])
  for panel, part in zip(panels, (names[i * per : (i + 1) * per] for i in range(columns))):
    at = np.arange(len(part))
    first, last = np.array([before[n] for n in part]), np.array([after[n] for n in part])
    panel.hlines(at, last, first, color=BEFORE, linewidth=1.5, zorder=1)
    panel.scatter(first, at, color=BEFORE, s=18, label="before", zorder=2)
    panel.scatter(last, at, color=AFTER, s=22, label="after", zorder=3)
    if bound:
      panel.scatter([bound[n] for n in part], at, color=BOUND, marker="|", s=90, label="unigram entropy", zorder=4)
    panel.set_yticks(at, part)
    panel.set(xlim=(0, limit), ylim=(len(part) - 0.4, -0.6), xlabel=label)
    panel.grid(axis="x", color="#eeeeee")
    panel.set_axisbelow(True)
  panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
  figure.suptitle(title, x=0.01, ha="left")
  figure.savefig(out, dpi=130)
  plt.close(figure)


def transfer_picture(workdir: Path, out: Path) -> None:
  """Held-out loss beside the downstream score of each evaluated step, and where the rule stopped or the best one is."""
  lines = read_lines(workdir / "held_out.jsonl")
  ledger = sorted(
    (json.loads(path.read_text()) for path in (workdir / "evaluations").glob("[0-9]*.json")), key=lambda entry: entry["step"]
  )
  scored = [(entry["step"], 100 * entry["score"]) for entry in ledger if entry.get("score") is not None]
  if not scored:
    raise UserError(f"{workdir / 'evaluations'} holds no score; run xlmr_jax.evaluation.follower first")
  plt, figure, axes = _figure(7, 4.2)
  axes.plot([line["step"] for line in lines], [line["mean_loss"] for line in lines], color=BEFORE, linewidth=2)
  axes.set(xlabel="updates", ylim=(0, None), xlim=(0, 1.02 * lines[-1]["step"]))
  axes.set_ylabel("held-out loss, nats a masked token (grey)")
  score = axes.twinx()
  score.spines["right"].set_visible(True)
  score.plot(*zip(*scored), color=AFTER, linewidth=2, marker="o", markersize=4)
  score.set(ylim=(0, 100))
  score.set_ylabel("downstream score, % (blue)", color=AFTER)
  best = max(scored, key=lambda of: of[1])
  score.annotate(f"best: {best[1]:.1f} at {best[0]}", best, (0, 8), textcoords="offset points", ha="center", color=AFTER)
  stop = workdir / "STOP.json"
  if stop.exists():
    at = json.loads(stop.read_text())["step"]
    axes.axvline(at, color=BOUND, linewidth=1.5, linestyle="--")
    axes.annotate(
      f"the rule, at {at}",
      (at, 1),
      (-4, -4),
      xycoords=("data", "axes fraction"),
      textcoords="offset points",
      rotation=90,
      ha="right",
      va="top",
      color=BOUND,
    )
  axes.set_title("Held-out loss and zero-shot transfer", loc="left")
  figure.savefig(out, dpi=130)
  plt.close(figure)


def main(_) -> int | None:
  from xlmr_jax.data.rows import RowStore

  workdir = Path(FLAGS.workdir)
  lines = read_lines(workdir / "held_out.jsonl")
  of = lambda line: {name: x["loss"] for name, x in line["languages"].items()}  # noqa: E731
  bound = unigram_entropy(RowStore(FLAGS.rows, tuple(of(lines[-1])))) if FLAGS.rows else None
  held_out_picture(workdir, workdir / "held_out.png")
  languages_picture(
    of(lines[0]),
    of(lines[-1]),
    workdir / "languages.png",
    label="held-out loss, nats a masked token",
    title=f"Before training and after {lines[-1]['step']} updates",
    bound=bound,
  )
  pictures = [workdir / "held_out.png", workdir / "languages.png"]
  if any((workdir / "evaluations").glob("[0-9]*.json")):
    pictures.append(workdir / "transfer.png")
    transfer_picture(workdir, pictures[-1])
  print(json.dumps({"pictures": [str(path) for path in pictures]}))


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "folder of the run", required=True)
  flags.DEFINE_string("rows", None, "the run's rows, to mark each language's unigram entropy")
  app.run(run_command(main))
