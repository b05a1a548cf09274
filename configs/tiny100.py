"""A CPU-sized model on tiny100 (94 languages, 51 MB, CC-100 layout), 35 to 45 minutes on 2 cores.

  xlmr train_vocabulary --text=../shared/data/tiny100 --size=32000 --alpha=0.3 --out=runs/tiny100.model
  xlmr build_rows --text=../shared/data/tiny100 --tokenizer=runs/tiny100.model --seq_len=128 \\
      --out=runs/tiny100_rows
  xlmr pretrain --config=configs/tiny100.py --workdir=runs/tiny100

A vocabulary of 32,000 rather than XLM-R's: on a CPU the 250k product and its optimizer would be most of each step.
The README has what it reaches. `:runlocal` takes 20 steps on the built-in corpus.
"""

from xlmr_jax.config import default_config, variant


def get_config(arg: str = ""):
  c = default_config()
  c.data.rows = "runs/tiny100_rows"
  c.model.update(layers=4, hidden=192, heads=3, ffn=768, max_positions=130, vocabulary_size=32_000, unroll_layers=True)
  # A model this small, this briefly trained, underfits: dropout would only slow it (ours).
  c.model.update(dropout=0.0, attention_dropout=0.0)
  c.model.update(init_std=0.06, isolate_documents=True)  # as in smoke.py: what a narrow model learns sooner with (ours)
  c.data.mask_share = 0.2
  c.update(train_steps=5000, batch_rows=32)
  c.optimizer.update(peak_lr=2e-3, warmup_steps=200)
  c.checkpoint.update(every_steps=500, keep_every=2500)
  c.held_out.update(every_steps=500, max_rows_per_language=4)
  c.log.every_steps = 50
  return variant(c, arg)
