"""XLM-R Base: 12 layers x 768, 278M parameters, 250,002 entries (paper, section 3).

  xlmr pretrain --config=base --config.data.rows=ROWS --workdir=RUN
  xlmr pretrain --config=base:runlocal --workdir=RUN      # on a laptop, under a minute
  xlmr plan --config=base --topology=v5e:16x16            # what it would need and take there

The paper does not say whether Base had Large's 1.5M updates of 8192 rows; we assume so. The paper's own Base reaches
XNLI zero-shot 76.2, MLQA 63.7 F1, and NER 88.8 trained on each language, 79.1 on English (tables 1 to 3). We have not run
it in full.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import default_config, variant

TOPOLOGIES = {  # what `xlmr plan --all` compiles for, and what to change there
  "v5e:4x4": {},
  "v4:2x2x4": {"rows_per_device": 64},
  "v5p:2x2x4": {"rows_per_device": 128},
  "v6e:4x4": {"rows_per_device": 64},
  "tpu7x:2x2x2": {"rows_per_device": 128},
}


def get_config(arg: str = "") -> ConfigDict:
  """XLM-R Base. arg: see xlmr_jax.config.variant."""
  c = default_config()
  c.model.vocabulary_size = 250_002
  c.model.unroll_layers = True  # a scan would write each layer's activations to the HBM and read them again (ours)
  c.rows_per_device = 32  # fits into 16 GB with nothing recomputed (ours)
  return variant(c, arg)
