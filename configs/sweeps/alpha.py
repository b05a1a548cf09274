"""The paper's study of alpha (figure 5: 0.01, 0.3, 0.7, 1.0) at the size of configs/tiny100.py.

  python launch/sweep.py --config=configs/sweeps/alpha.py --workdir=runs/alpha
"""

from configs import tiny100


def get_config(arg: str = ""):
  return tiny100.get_config(arg)


def sweep(add):
  for alpha in (0.01, 0.3, 0.7, 1.0):
    add(f"alpha_{alpha}", {"data.alpha": alpha})
