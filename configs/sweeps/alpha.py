"""The paper's study of alpha (figure 5: 0.01, 0.3, 0.7, 1.0) at the size of the config tiny100.

python launch/sweep.py --config=sweeps/alpha --workdir=runs/alpha
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.config import load_config


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes."""
  return load_config("tiny100", arg)


def sweep(add: Callable[[str, dict], None]) -> None:
  """One run per alpha."""
  for alpha in (0.01, 0.3, 0.7, 1.0):
    add(f"alpha_{alpha}", {"data.alpha": alpha})
