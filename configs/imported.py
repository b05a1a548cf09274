"""A model that was imported, trained on: its sizes are those of the run's folder.

  xlmr convert from-hf --source=DIR --workdir=RUN
  xlmr build_rows --text=TEXT --tokenizer=RUN/tokenizer.model --out=ROWS --held_out=0.01
  xlmr pretrain --config=configs/imported.py:RUN --workdir=RUN --config.data.rows=ROWS

Batch, steps and rate are ours, for text of a few gigabytes on one machine; no figure of XLM-R's stands behind them.
"""

from pathlib import Path

from xlmr_jax.config import default_config


def get_config(arg: str = ""):
  from xlmr_jax import open_model as runs

  if not arg:
    raise ValueError("the config takes the folder of an imported run: --config=configs/imported.py:RUN")
  record = runs.read_run(Path(arg))
  if "imported" not in record:
    raise ValueError(f"{arg} was not imported; make it with `xlmr convert from-hf`")
  c = default_config()
  model = record["config"]["model"]
  c.model.update(
    {
      key: model[key]
      for key in (*runs.SIZES, "vocabulary_size", "dropout", "attention_dropout", "isolate_documents", "init_std")
    }
  )
  c.update(train_steps=10_000, batch_rows=256)
  c.optimizer.update(peak_lr=1e-4, warmup_steps=500)
  c.checkpoint.update(every_steps=1000, keep_every=0)
  c.held_out.every_steps = 1000
  return c
