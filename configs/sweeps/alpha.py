"""The paper's study of alpha (figure 5: 0.01, 0.3, 0.7, 1.0): what high-resource languages lose and low-resource ones win.

  xlmr sweep --config=sweeps/alpha --workdir=SWEEP --rows=ROWS --config.evaluate.folder=TASKS  # 100 languages, 12 runs
  xlmr sweep --config=sweeps/alpha:tiny --workdir=SWEEP --text=TEXT        # 2 cores

The paper found 0.3 best overall, and trained on Wikipedia in 100 languages.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.config import load_config
from xlmr_jax.sweep.languages import GROUPS
from xlmr_jax.sweep.runs import Study, is_tiny
from xlmr_jax.sweep.studies import SEEDS, study_rows

STUDY = Study("The exponent of language sampling (figure 5 of the paper)", x="alpha", x_label="alpha", groups=GROUPS)


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: see configs/study.py."""
  return load_config("study", arg)


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per alpha and seed."""
  for alpha in (0.01, 0.3, 0.7, 1.0):
    for seed in SEEDS:
      add({"data.alpha": alpha, "seed": seed}, rows=study_rows(is_tiny(arg)))
