"""The paper's study of alpha (figure 5: 0.01, 0.3, 0.7, 1.0) at the size of configs/tiny100.py.

python launch/sweep.py --config=configs/sweeps/alpha.py --workdir=runs/alpha
"""

from xlmr_jax.config import load_config


def get_config(arg: str = ""):
  return load_config("tiny100", arg)


def sweep(add):
  for alpha in (0.01, 0.3, 0.7, 1.0):
    add(f"alpha_{alpha}", {"data.alpha": alpha})
