"""Multilingual BERT's architecture and sampling: 12 layers x 768, 512 positions, a WordPiece vocabulary, alpha 0.7.

  xlmr train_vocabulary --kind=wordpiece --size=110000 --alpha=0.7 --text=TEXT --out=wordpiece.json
  xlmr build_rows --text=TEXT --tokenizer=wordpiece.json --seq_len=512 --out=ROWS
  xlmr pretrain --config=mbert --config.data.rows=ROWS --workdir=RUN
  xlmr pretrain --config=mbert:runlocal --workdir=RUN      # on a laptop, under a minute

The public model has 119,547 entries (cased), learnt from Wikipedia in 104 languages, and saw pairs of sentences
(github.com/google-research/bert, multilingual.md). The XLM-R paper counts it with a 110k vocabulary and 172M parameters
(table 7). What differs here: rows are documents of one language, without next-sentence prediction, and they are masked anew
each time. By the XLM-R paper, mBERT reaches XNLI zero-shot 66.3, NER 78.5 after training on English, and MLQA 57.7 F1
(tables 1 to 3). We have not run it in full; docs/rivals.md tells how it is compared.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import default_config, variant


def get_config(arg: str = "") -> ConfigDict:
  """Multilingual BERT. arg: see xlmr_jax.config.variant."""
  c = default_config()
  c.model.vocabulary_size = 110_000  # table 7 of the paper
  c.model.update(family="bert", max_positions=512, layer_norm_epsilon=1e-12)  # google-research/bert, modeling.py
  c.model.unroll_layers = True  # as in base.py
  c.data.alpha = 0.7  # google-research/bert, multilingual.md: the shares to the power of 0.7
  # google-research/bert, run_pretraining.py and README.md: 256 rows, 1M steps, Adam at 1e-4, 10,000 steps of warmup.
  c.update(train_steps=1_000_000, batch_rows=256)
  c.optimizer.update(peak_lr=1e-4, warmup_steps=10_000, b2=0.999)
  c.optimizer.decay_pattern = "(kernel|embedding)$"  # google-research/bert, optimization.py: neither norms nor biases decay
  c.checkpoint.update(every_steps=5000, keep_every=100_000)  # ours
  return variant(c, arg)
