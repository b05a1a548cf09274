"""The demo: two small layers on the built-in corpus of 15 languages, two minutes on 2 cores.

  make demo
  python -m xlmr_jax.main --config=configs/smoke.py --workdir=runs/demo
"""

from configs import common


def get_config(arg: str = ""):
  c = common.get_config()
  c.data.rows = "demo"
  c.model.update(layers=2, hidden=128, heads=4, ffn=512, max_positions=66, unroll_layers=True, dtype="float32")
  c.model.update(dropout=0.0, attention_dropout=0.0)  # two minutes underfit (ours)
  c.update(train_steps=1200, batch_rows=64)
  c.optimizer.update(peak_lr=2e-3, warmup_steps=100)
  c.checkpoint.update(every_steps=200, keep_every=0)
  c.held_out.update(every_steps=200, max_rows_per_language=32)
  c.log.every_steps = 50
  return common.variant(c, arg)
