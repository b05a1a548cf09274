"""XLM-R XL: 36 layers x 2560, 32 heads, 3.5B parameters, pre-LN (Goyal et al. 2021, "Larger-Scale Transformers").

  xlmr pretrain --config=configs/xl.py --config.data.rows=ROWS --workdir=DIR
  xlmr pretrain --config=configs/xl.py:runlocal --workdir=DIR        # a laptop, under a minute
  xlmr plan --config=configs/xl.py --topology=v5p:4x4x4          # how it would do there

Their recipe beyond the sizes is not reproduced: the optimizer's numbers are those of the other configs but for the rate.
Its gradients are whole on each device until they are reduced, 14 GB in fp32: a step needs 33.5 GiB, more than v4 and v6e
have. Not run by us.
"""

from xlmr_jax.config import default_config, variant

TOPOLOGIES = {  # what `xlmr plan --all` compiles for, and what to change there
  "v5p:4x4x4": {},
  "tpu7x:4x4x4": {},
}


def get_config(arg: str = ""):
  c = default_config()
  c.model.update(layers=36, hidden=2560, heads=32, ffn=10_240, vocabulary_size=250_002, pre_norm=True)
  c.model.remat = "full"  # ours
  c.optimizer.peak_lr = 1e-4  # ours: wider models diverge earlier
  c.mesh.fsdp = 16  # parameters and moments are 42 GB in fp32 (ours)
  c.rows_per_device = 16  # ours
  return variant(c, arg)
