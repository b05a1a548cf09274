"""Draws the pictures of the README and of docs/: `python docs/make_pictures.py`, from the project's root."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from xlmr_jax.report.pictures import AFTER, INK, languages_picture

DOCS = Path(__file__).parent
PALE, WARM = "#e8f1f4", "#fdf1e4"


def way_of_the_data() -> None:
  """docs/way_of_the_data.png: what each command makes of what."""
  figure, axes = plt.subplots(figsize=(11.5, 6.4), layout="constrained")
  axes.set(xlim=(0, 116), ylim=(-0.4, 64))
  axes.axis("off")

  def box(x, y, w, h, title, lines, face=PALE):
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0.3,rounding_size=1.2", fc=face, ec=AFTER, lw=1.2))
    axes.text(x + 1.2, y + h - 1.2, title, va="top", fontsize=10.5, color=INK, weight="bold")
    axes.text(x + 1.2, y + h - 4.6, lines, va="top", fontsize=8.4, color=INK, linespacing=1.45)

  def arrow(x0, y0, x1, y1, text="", dx=0.0, dy=1.0):
    axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "-|>", "color": AFTER, "lw": 1.5})
    axes.text((x0 + x1) / 2 + dx, (y0 + y1) / 2 + dy, text, ha="center", fontsize=8, color=AFTER)

  def turn(points, text, at):
    """An arrow along a line through points, which ends at the last."""
    axes.plot(*zip(*points[:-1]), color=AFTER, lw=1.5)
    arrow(*points[-2], *points[-1])
    axes.text(*at, text, ha="center", va="bottom", fontsize=8, color=AFTER)

  box(
    1,
    46,
    25,
    16,
    "text",
    "LANG.txt[.gz|.xz], CC-100's layout:\na paragraph per line, an empty\nline between documents",
    WARM,
  )
  box(1, 26, 25, 14, "xlmr train_vocabulary", "SentencePiece unigram model of a\nsample, smoothed by alpha")
  box(
    34,
    46,
    33,
    16,
    "xlmr build_rows",
    "held-out split by document, then rows:\n<s> a document </s> <s> another </s> <pad>\non all cores, or by Apache Beam",
  )
  box(
    75,
    46,
    39,
    16,
    "ROWS",
    "a TFDS dataset per language, in ArrayRecord\nfiles; the manifest has counts, the vocabulary's\nsha256 and a fingerprint",
    WARM,
  )
  box(
    75,
    26,
    39,
    14,
    "mixture",
    "step -> positions -> (language, row):\nexact quotas q ~ n^alpha in each block, each\nrow once per epoch; closed form, no state",
  )
  box(34, 26, 33, 14, "batch", "read, mask 15 % (80/10/10) as a function\nof (seed, position), prefetch")
  box(
    34,
    3,
    33,
    16,
    "xlmr pretrain",
    "encoder on the mesh (data, fsdp) -> masked\nslots only -> loss over 250k entries -> AdamW;\n(seed, step) gives the batch and the dropout\nkey, on any number of hosts, from any step",
  )
  box(
    75,
    3,
    39,
    16,
    "RUN",
    "checkpoints with a sha256 manifest, verified;\ntrain.jsonl, held_out.jsonl, TensorBoard;\nthe same command again resumes bit for bit;\nread by xlmr score, fill_mask, report, convert",
    WARM,
  )
  box(
    1,
    3,
    25,
    16,
    "xlmr evaluate",
    "fine-tunes each checkpoint on tasks,\nscores all languages, and ends the run\nwhen the scores stop rising",
  )
  arrow(26.6, 54, 33.4, 54)
  arrow(13, 45.2, 13, 41)
  arrow(26.6, 36, 36, 45.2)
  arrow(67.6, 54, 74.4, 54)
  arrow(94, 45.2, 94, 41)
  arrow(74.4, 33, 67.6, 33)
  arrow(50, 25.2, 50, 20, "ids, positions, labels, weights, language", dx=17, dy=0)
  arrow(67.6, 11, 74.4, 11)
  turn([(94, 2.2), (94, 0.4), (13, 0.4), (13, 2.2)], "checkpoints", (84, 0.9))
  arrow(26.6, 11, 33.4, 11, "STOP.json", dy=0.8)
  figure.savefig(DOCS / "way_of_the_data.png", dpi=130)
  plt.close(figure)


def tiny100() -> None:
  """docs/tiny100.png, from the scores in docs/tiny100.json."""
  scores = json.loads((DOCS / "tiny100.json").read_text())
  before, after = ({name: of[when] for name, of in scores["languages"].items()} for when in ("before", "after"))
  languages_picture(
    before,
    after,
    DOCS / "tiny100.png",
    label="bits per byte",
    title=f"configs/tiny100.py, {scores['step']} updates: {len(after)} languages, the same 303 sentences",
  )


if __name__ == "__main__":
  way_of_the_data()
  if (DOCS / "tiny100.json").exists():
    tiny100()
