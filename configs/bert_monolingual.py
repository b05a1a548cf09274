"""A BERT of one language, to compare a multilingual model with: BERT-Base and a WordPiece vocabulary of 40,000.

  xlmr train_vocabulary --kind=wordpiece --size=40000 --languages=sw --text=TEXT --out=sw.json
  xlmr build_rows --text=TEXT --languages=sw --tokenizer=sw.json --seq_len=512 --out=ROWS_SW
  xlmr pretrain --config=bert_monolingual --config.data.rows=ROWS_SW --workdir=RUN_SW
  xlmr evaluate --workdir=RUN_SW --checkpoint=latest --tasks=xnli --settings=translate_train --config.evaluate.languages=sw \
    --config.evaluate.folder=TASKS
  xlmr pretrain --config=bert_monolingual:runlocal --workdir=RUN      # on a laptop, under a minute

The paper trains fourteen of them, on Wikipedia and on at most 60 GiB of CommonCrawl in each of 7 languages, with 40k entries
(section 5.3, table 5). On average they reach XNLI 73.4 and 77.5. It names neither their tokenizer nor the optimizer; steps,
batch and rate are BERT's here. We have not run it in full.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import default_config, variant


def get_config(arg: str = "") -> ConfigDict:
  """BERT-Base of one language. arg: see xlmr_jax.config.variant."""
  c = default_config()
  c.model.vocabulary_size = 40_000  # table 5 of the paper
  c.model.update(family="bert", max_positions=512, layer_norm_epsilon=1e-12)  # google-research/bert, modeling.py
  c.model.unroll_layers = True  # as in base.py
  c.data.alpha = 1.0  # with one language it decides nothing
  c.update(train_steps=1_000_000, batch_rows=256)  # google-research/bert, README.md
  c.optimizer.update(peak_lr=1e-4, warmup_steps=10_000, b2=0.999)
  c.optimizer.decay_pattern = "(kernel|embedding)$"  # google-research/bert, optimization.py: neither norms nor biases decay
  c.checkpoint.update(every_steps=5000, keep_every=100_000)  # ours
  return variant(c, arg)
