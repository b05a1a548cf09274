"""The paper's study of the batch size (figure 7: 2,048, 4,096, 8,192), here at equal tokens.

  xlmr sweep --config=sweeps/batch --workdir=SWEEP --rows=ROWS --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/batch:tiny --workdir=SWEEP --text=TEXT

The paper does not say how many updates each had. Here a batch twice as large has half as many, so that all read the same
number of rows, and warm up over the same number of rows. Learning rates: 5e-4 and 7e-4 for 2,048 and 8,192 rows are those
of fairseq's examples/roberta/README.pretraining.md for Base; 6e-4 between them, and those of the tiny study, are ours.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.config import load_config
from xlmr_jax.sweep.languages import GROUPS
from xlmr_jax.sweep.runs import Study, is_tiny
from xlmr_jax.sweep.studies import SEEDS, seeded, study_rows

STUDY = Study(
  "The batch size at equal tokens (figure 7 of the paper)", x="batch", x_label="rows per batch", x_scale="log", groups=GROUPS
)
PEAK_LR = {2048: 5e-4, 4096: 6e-4, 8192: 7e-4}
TINY_PEAK_LR = {16: 2.1e-3, 32: 3e-3, 64: 4.2e-3}


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: see configs/study.py."""
  return load_config("study", arg)


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per batch size and seed."""
  tiny = is_tiny(arg)
  c = get_config(arg)
  for batch, peak_lr in (TINY_PEAK_LR if tiny else PEAK_LR).items():
    changes = {
      "batch_rows": batch,
      "train_steps": c.train_steps * c.batch_rows // batch,
      "optimizer.peak_lr": peak_lr,
      "optimizer.warmup_steps": c.optimizer.warmup_steps * c.batch_rows // batch,
    }
    for seed in SEEDS:
      add({**changes, "seed": seed}, values=seeded({"batch": batch}, seed), rows=study_rows(tiny))
