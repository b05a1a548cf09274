"""The paper's study of capacity (figure 4): widths 768, 960 and 1,152 at 7, 30 and 100 languages.

  xlmr sweep --config=sweeps/capacity --workdir=SWEEP --rows=ROWS --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/capacity:tiny --workdir=SWEEP --text=TEXT

The paper compares 768 everywhere with 768, 960 and 1,152 for 7, 30 and 100 languages. Here each width meets each set, so
that what width brings without more languages shows too. The tiny study has the paper's five points alone, with widths in
the paper's proportions, so that each run has the time to learn something. The paper gives neither heads nor FFN: ours are
heads of 64 (tiny: 32), and an FFN of four times the width.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.sweep.languages import GROUPS
from xlmr_jax.sweep.runs import Study, is_tiny
from xlmr_jax.sweep.studies import SEEDS, language_counts, scored_on_seven, seeded, study_rows, tiny_init_std, with_languages

STUDY = Study(
  "Capacity and the number of languages (figure 4 of the paper)",
  x="languages",
  x_label="languages",
  x_scale="log",
  series="width",
  groups=GROUPS,
)


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: see configs/study.py."""
  return scored_on_seven(arg)


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per width, number of languages and seed."""
  tiny = is_tiny(arg)
  widths, head = ((128, 160, 192), 32) if tiny else ((768, 960, 1152), 64)
  counts = language_counts(tiny, 7, 30, 100)
  points = [(width, count) for width in widths for count in counts]
  if tiny:
    points = [(width, count) for width, count in points if width == widths[0] or (width, count) in zip(widths, counts)]
  for width, count in points:
    model: dict[str, float] = {"model.hidden": width, "model.heads": width // head, "model.ffn": 4 * width}
    if tiny and width != widths[0]:
      model["model.init_std"] = tiny_init_std(width)
    for seed in SEEDS:
      add(
        {**model, **with_languages(count), "seed": seed},
        values=seeded({"width": width, "languages": count}, seed),
        rows=study_rows(tiny),
      )
