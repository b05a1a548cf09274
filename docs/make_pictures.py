"""Makes the README's pictures: `python docs/make_pictures.py` from the project's root."""

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
  figure, axes = plt.subplots(figsize=(11.5, 6.4), layout="constrained")
  axes.set(xlim=(0, 115), ylim=(0, 64))
  axes.axis("off")

  def box(x, y, w, h, title, lines, face=PALE):
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0.3,rounding_size=1.2", fc=face, ec=AFTER, lw=1.2))
    axes.text(x + 1.2, y + h - 1.2, title, va="top", fontsize=10.5, color=INK, weight="bold")
    axes.text(x + 1.2, y + h - 4.6, lines, va="top", fontsize=8.4, color=INK, linespacing=1.45)

  def arrow(x0, y0, x1, y1, text="", dx=0.0, dy=1.0):
    axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "-|>", "color": AFTER, "lw": 1.5})
    axes.text((x0 + x1) / 2 + dx, (y0 + y1) / 2 + dy, text, ha="center", fontsize=8, color=AFTER)

  box(1, 46, 24, 16, "text", "LANG.txt[.gz|.xz], CC-100 layout:\na paragraph a line, an empty\nline between documents", WARM)
  box(1, 26, 24, 14, "vocabulary", "corpus/vocabulary.py\nSentencePiece unigram on an\nalpha-smoothed sample")
  box(
    33,
    46,
    32,
    16,
    "rows",
    "corpus/build.py (Apache Beam)\nheld-out split by document, then\n<s> a document </s> <s> another </s> <pad>",
  )
  box(
    73,
    46,
    40,
    16,
    "row store",
    "data/rows.py: a TFDS dataset a language in\nArrayRecord files; manifest.json: counts,\nthe vocabulary's sha256, a fingerprint",
    WARM,
  )
  box(
    73,
    26,
    40,
    14,
    "mixture",
    "data/mixture.py: position -> (language, row)\nexact quotas q ~ n^alpha in each block, each row\nonce an epoch; closed form, no state",
  )
  box(
    33, 26, 32, 14, "batch", "data/pipeline.py, data/masking.py\nread, mask 15 % (80/10/10) by\n(seed, position); prefetch"
  )
  box(
    33,
    3,
    32,
    16,
    "train_step",
    "train.py on the mesh (data, fsdp)\nmodel.py -> only the masked slots ->\nlosses.py over 250k entries -> AdamW",
  )
  box(
    73,
    3,
    40,
    16,
    "workdir",
    "checkpoint.py: Orbax + sha256 manifest, verified\nlogs.py: train.jsonl, held_out.jsonl, TensorBoard\nsame command again: bit-equal resume",
    WARM,
  )
  box(
    1,
    3,
    24,
    16,
    "the law",
    "(seed, step) gives the batch,\nthe dropout key and all that\nfollows: on any number of\nhosts, from any step",
  )
  arrow(25.6, 54, 32.4, 54)
  arrow(13, 45.2, 13, 41)
  arrow(25.6, 36, 35, 45.2)
  arrow(65.6, 54, 72.4, 54)
  arrow(93, 45.2, 93, 41)
  arrow(72.4, 33, 65.6, 33)
  arrow(49, 25.2, 49, 20, "ids, positions, labels, weights, language", dx=17, dy=0)
  arrow(65.6, 11, 72.4, 11)
  figure.savefig(DOCS / "way_of_the_data.png", dpi=130)
  plt.close(figure)


def tiny100() -> None:
  scores = json.loads((DOCS / "tiny100.json").read_text())
  before, after = ({name: of[when] for name, of in scores["languages"].items()} for when in ("before", "after"))
  languages_picture(
    before,
    after,
    DOCS / "tiny100.png",
    label="bits a byte",
    title=f"configs/tiny100.py, {scores['step']} updates: {len(after)} languages, the same 303 sentences",
  )


if __name__ == "__main__":
  way_of_the_data()
  if (DOCS / "tiny100.json").exists():
    tiny100()
