"""A CPU-sized model on text in 94 languages (51 MB in CC-100's layout), 35 to 45 minutes on 2 cores.

  xlmr train_vocabulary --text=TEXT --size=32000 --alpha=0.3 --out=runs/tiny100.model
  xlmr build_rows --text=TEXT --tokenizer=runs/tiny100.model --seq_len=128 --out=runs/tiny100_rows
  xlmr pretrain --config=tiny100 --workdir=runs/tiny100

The vocabulary has 32,000 entries, because on a CPU the product over XLM-R's 250k and its optimizer would be most of each
step. docs/results.md tells what it reaches.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import default_config, variant


def get_config(arg: str = "") -> ConfigDict:
  """The config of docs/results.md. arg: see xlmr_jax.config.variant."""
  c = default_config()
  c.data.rows = "runs/tiny100_rows"
  c.model.update(layers=4, hidden=192, heads=3, ffn=768, max_positions=130, vocabulary_size=32_000, unroll_layers=True)
  c.model.dtype = "float32"  # At this width a CPU is 10 % faster with it than with bfloat16 (ours, measured).
  # A model this small that trains this briefly underfits, so that dropout would only slow it (ours).
  c.model.update(dropout=0.0, attention_dropout=0.0)
  c.model.update(init_std=0.06, isolate_documents=True)  # as in smoke.py: a narrow model learns sooner with them (ours)
  c.data.mask_share = 0.2
  c.update(train_steps=5000, batch_rows=32)
  c.optimizer.update(peak_lr=2e-3, warmup_steps=200)
  c.checkpoint.update(every_steps=500, keep_every=2500)
  c.held_out.update(every_steps=500, max_rows_per_language=4)
  c.log.every_steps = 50
  return variant(c, arg)
