"""The paper's study of the number of languages (figure 2: 7, 15, 30, 60, 100), the curse of multilinguality.

  xlmr sweep --config=sweeps/languages --workdir=SWEEP --rows=ROWS --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/languages:tiny --workdir=SWEEP --text=TEXT

The seven that are scored are in every set, and the body and the vocabulary stay the same.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.sweep.languages import GROUPS
from xlmr_jax.sweep.runs import Study, is_tiny
from xlmr_jax.sweep.studies import SEEDS, language_counts, scored_on_seven, seeded, study_rows, with_languages

STUDY = Study(
  "The number of languages (figure 2 of the paper)", x="languages", x_label="languages", x_scale="log", groups=GROUPS
)


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: see configs/study.py."""
  return scored_on_seven(arg)


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per number of languages and seed."""
  tiny = is_tiny(arg)
  for count in language_counts(tiny, 7, 15, 30, 60, 100):
    for seed in SEEDS:
      add(
        {**with_languages(count), "seed": seed}, values=seeded({"languages": count}, seed), rows=study_rows(tiny)
      )  # fmt: skip
