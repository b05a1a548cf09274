"""XLM-R XL: 36 layers x 2560, 32 heads, 3.5B parameters, pre-LN (Goyal et al. 2021, "Larger-Scale Transformers").

  xlmr pretrain --config=xl --config.data.rows=ROWS --workdir=RUN
  xlmr pretrain --config=xl:runlocal --workdir=RUN        # on a laptop, under a minute
  xlmr plan --config=xl --topology=v5p:4x4x4              # what it would need and take there

Only the sizes are that paper's: the optimizer's numbers are those of the other configs, except for the rate. Each device
holds all gradients, 14 GB in fp32, until they are reduced. A step therefore needs 33.5 GiB, which is more than v4 and
v6e have. We have not run it.
"""

from ml_collections import ConfigDict

from xlmr_jax.config import default_config, variant

TOPOLOGIES = {  # what `xlmr plan --all` compiles for, and what to change there
  "v5p:4x4x4": {},
  "tpu7x:4x4x4": {},
}


def get_config(arg: str = "") -> ConfigDict:
  """XLM-R XL. arg: see xlmr_jax.config.variant."""
  c = default_config()
  c.model.update(layers=36, hidden=2560, heads=32, ffn=10_240, vocabulary_size=250_002, pre_norm=True)
  c.model.remat = "full"  # ours
  c.optimizer.peak_lr = 1e-4  # ours, because wider models diverge earlier
  c.mesh.fsdp = 16  # parameters and moments take 42 GB in fp32 (ours)
  c.rows_per_device = 16  # ours
  return variant(c, arg)
