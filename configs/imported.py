"""A model that was imported, trained on. Its sizes are those in the run's folder.

  xlmr convert from-hf --source=DIR --workdir=RUN
  xlmr build_rows --text=TEXT --tokenizer=RUN/tokenizer.model --out=ROWS --held_out=0.01
  xlmr pretrain --config=imported:RUN[,KEY=VALUE] --workdir=RUN --config.data.rows=ROWS

Batch, steps and learning rate are ours, for text of a few gigabytes on one machine. No figure of XLM-R stands behind them.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import default_config, variant
from xlmr_jax.given_paths import local_path
from xlmr_jax.open_model import open_record
from xlmr_jax.run.workdir import MODEL_RULES, MODEL_SIZES


def get_config(arg: str = "") -> ConfigDict:
  """arg: RUN[,KEY=VALUE...]; RUN is the folder of an imported run, and a comma ends it."""
  run, _, changes = arg.partition(",")
  if not run:
    raise ValueError("the config takes the folder of an imported run: --config=imported:RUN")
  record = open_record(local_path(run, "--config=imported:"))
  if not record.imported:
    raise ValueError(f"{run} was not imported; make it with `xlmr convert from-hf`")
  c = default_config()
  c.update(train_steps=10_000, batch_rows=256)
  c.optimizer.update(peak_lr=1e-4, warmup_steps=500)
  c.checkpoint.update(every_steps=1000, keep_every=0)
  c.held_out.every_steps = 1000
  model = record.config["model"]
  taken = (*MODEL_SIZES, *MODEL_RULES, "vocabulary_size", "dropout", "attention_dropout", "isolate_documents", "init_std")
  c.model.update({key: model[key] for key in taken})
  return variant(c, changes)
