"""What XLM has and XLM-R leaves out, one by one: language embeddings, and TLM on parallel sentences.

  xlmr sweep --config=sweeps/objective --workdir=SWEEP --rows=ROWS --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/objective:tiny --workdir=SWEEP                # the built-in world and its tasks

ROWS holds text and parallel sentences in XLM-15's languages: `--text=DIR` builds them from DIR/text and DIR/parallel. Every
run makes the same number of updates, so that one with TLM reads half as much text. XLM-R's paper dropped TLM because its own
MLM, trained on beyond the point at which perplexity stops falling, came to the same XNLI (section 5.1); it dropped language
embeddings so that a model can meet text in any mixture of languages (section 3).
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.config import load_config, variant
from xlmr_jax.sweep.languages import FIFTEEN
from xlmr_jax.sweep.runs import Rows, Study, is_tiny, without_tiny
from xlmr_jax.sweep.studies import SEEDS, demo_config, demo_rows, seeded

STUDY = Study(
  "XLM's objectives: language embeddings and TLM", x="objective", x_label="objective", x_scale="category", y="score"
)
# The name of each, with language embeddings or without, and with TLM or without.
OBJECTIVES = {
  "mlm": (False, False),
  "mlm_languages": (True, False),
  "mlm_tlm": (False, True),
  "mlm_tlm_languages": (True, True),
}


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes: XLM's, or with tiny the demo's model. arg: as of configs/study.py."""
  if is_tiny(arg):
    c = demo_config(1600)
    c.model.update(family="xlm", head="dense")  # XLM-R's head in all runs
  else:
    c = load_config("xlm")
    c.update(train_steps=200_000)  # ours, as in configs/study.py
    c.checkpoint.update(every_steps=5000, keep_every=50_000)
    c.evaluate.update(tasks=("xnli",), every_steps=50_000)
  c.stop.update(by="score", patience=0, min_gain=0.0, min_steps=0)  # No run is stopped.
  return variant(c, without_tiny(arg))


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per objective and seed."""
  if is_tiny(arg):
    rows = demo_rows(3000, parallel=True)
  else:
    rows = Rows("xlm15", 95_000, languages=FIFTEEN, text="text", alpha=0.7, seq_len=256, kind="bpe", parallel="parallel")
  for name, (embeddings, tlm) in OBJECTIVES.items():
    changes = {"model.language_embeddings": embeddings, "data.parallel_share": 0.5 if tlm else 0.0}
    for seed in SEEDS:
      add({**changes, "seed": seed}, values=seeded({"objective": name}, seed), rows=rows, settings=("zero_shot",))
