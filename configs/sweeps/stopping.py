"""The paper's point about stopping (section 5.1): held-out perplexity stops too early, downstream scores still rise.

  xlmr sweep --config=sweeps/stopping --workdir=SWEEP --rows=ROWS --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/stopping:tiny --workdir=SWEEP                 # the built-in world and its tasks

No run is stopped. Every checkpoint that is scored is kept, and its held-out loss too. Where a rule on the scores would have
stopped a run is told by `xlmr evaluate --workdir=SWEEP/seed=0 --replay --config.stop.patience=2`.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.config import load_config, variant
from xlmr_jax.sweep.runs import Study, is_tiny, without_tiny
from xlmr_jax.sweep.studies import SEEDS, demo_rows, study_rows

STUDY = Study("When to stop: perplexity against downstream", x="step", x_label="updates", y="score")


def get_config(arg: str = "") -> ConfigDict:
  """The config of each run. arg: as of configs/study.py; tiny is the demo's model."""
  if is_tiny(arg):
    c = load_config("smoke")
    c.evaluate.update(tasks=("demo_entities", "demo_entailment"), every_steps=400)
    c.stop.update(patience=0, min_gain=0.0, min_steps=0)
    c.log.tensorboard = False
    every = 400
  else:
    c = load_config("study")
    every = 10_000
    c.evaluate.every_steps = every
  c.checkpoint.keep_every = every
  c.held_out.every_steps = every
  c = variant(c, without_tiny(arg))
  c.evaluate.keep_unevaluated = max(1, c.train_steps // max(1, c.evaluate.every_steps))
  return c


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per seed."""
  tiny = is_tiny(arg)
  for seed in SEEDS:
    add({"seed": seed}, rows=demo_rows(3000) if tiny else study_rows(tiny))
