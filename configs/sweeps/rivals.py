"""XLM-R beside multilingual BERT and XLM, in one body, with one evaluator: what their choices do when all else is the same.

  xlmr sweep --config=sweeps/rivals --workdir=SWEEP --rows=STORES --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/rivals:tiny --workdir=SWEEP                  # the built-in world and its tasks

Each system has its own vocabulary, alpha and objective; the body, the number of updates and the rate are those of
configs/study.py. STORES holds xlmr (150,000 pieces, unigram), mbert (110,000, WordPiece) and xlm (95,000, BPE, with parallel
sentences); `--text=DIR` builds them from DIR/text and DIR/parallel. The systems as they were published, each with its own
size and recipe, are configs/base.py, mbert.py and xlm.py. Single-language BERTs are in sweeps/monolingual.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config import load_config, variant
from xlmr_jax.sweep.runs import Rows, Study, is_tiny, without_tiny
from xlmr_jax.sweep.studies import SEEDS, demo_config, demo_rows, seeded

STUDY = Study(
  "XLM-R, multilingual BERT and XLM in one body", x="language", x_label="language of the test", x_scale="category",
  series="system", y="score",
)  # fmt: skip
SYSTEMS: dict[str, dict[str, Any]] = {
  "xlmr": {"data.alpha": 0.3},
  "mbert": {"model.family": "bert", "model.layer_norm_epsilon": 1e-12, "data.alpha": 0.7},  # as configs/mbert.py
  "xlm": {  # as configs/xlm.py
    "model.family": "xlm", "model.layer_norm_epsilon": 1e-12, "model.language_embeddings": True, "data.parallel_share": 0.5,
    "data.alpha": 0.7,
  },
}  # fmt: skip
ROWS = {
  "xlmr": Rows("xlmr", 150_000, text="text"),
  "mbert": Rows("mbert", 110_000, text="text", alpha=0.7, kind="wordpiece"),
  "xlm": Rows("xlm", 95_000, text="text", alpha=0.7, kind="bpe", parallel="parallel"),
}
TINY_ROWS = {
  "xlmr": demo_rows(3000),
  "mbert": dataclasses.replace(demo_rows(3000), name="demo_wordpiece", kind="wordpiece"),
  "xlm": dataclasses.replace(demo_rows(3000, parallel=True), name="demo_bpe_pairs", kind="bpe"),
}


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: as of configs/study.py; tiny is the demo's model."""
  if is_tiny(arg):
    c = demo_config(3200)  # Half as many leave MLM alone on its first plateau (docs/studies/objective.md).
  else:
    c = load_config("study")
    c.evaluate.every_steps = 0
  c.stop.update(by="score", patience=0, min_gain=0.0, min_steps=0)  # No run is stopped.
  return variant(c, without_tiny(arg))


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per system and seed."""
  for name, changes in SYSTEMS.items():
    rows = (TINY_ROWS if is_tiny(arg) else ROWS)[name]
    for seed in SEEDS:
      add(
        {**changes, "model.vocabulary_size": rows.vocabulary_size, "seed": seed},
        values=seeded({"system": name}, seed),
        rows=rows,
        settings=("zero_shot",),
      )
