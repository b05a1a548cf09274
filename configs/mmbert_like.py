"""XLM-R Base in mmBERT's three phases (Marone et al. 2025): each has more languages, a flatter alpha and fewer masks.

  xlmr pretrain --config=mmbert_like --config.data.rows=ROWS --workdir=RUN
  xlmr pretrain --config=mmbert_like:runlocal --workdir=RUN      # on a laptop, under a minute

Of mmBERT it has the phases alone: 60, 110 and 1,833 languages, alpha 0.7, 0.5 and 0.3, masks of 30, 15 and 5 %, for 2.3, 0.6
and 0.1 trillion tokens, with a rate that stays until the last phase (https://arxiv.org/abs/2509.06888). Architecture,
vocabulary, row length and batch are XLM-R Base's, and the numbers of languages are cut to rows in 100. We have not run it.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import load_config, variant


def get_config(arg: str = "") -> ConfigDict:
  """The phases on XLM-R Base. arg: see xlmr_jax.config.variant."""
  c = load_config("base")
  c.phases = (
    "until=76.7%,alpha=0.7,mask_share=0.3,languages=60",
    "until=96.7%,alpha=0.5,mask_share=0.15,languages=80",  # between mmBERT's 60 and the 100 that there are (ours)
    "until=100%,alpha=0.3,mask_share=0.05,languages=all",
  )
  c.optimizer.update(schedule="wsd", decay_steps=-1)
  return variant(c, arg)
