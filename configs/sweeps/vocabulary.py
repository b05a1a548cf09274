"""The paper's study of the vocabulary (figure 6): 32k to 512k entries, at constant parameters and at a constant body.

  xlmr sweep --config=sweeps/vocabulary --workdir=SWEEP --rows=STORES --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/vocabulary:tiny --workdir=SWEEP --text=TEXT   # builds them from the text

STORES holds vocabulary=32000 and so on.

At constant parameters the body gets narrower as the vocabulary grows; at a constant body, which the paper has from 128k on,
the parameters grow. The paper gives no widths: ours keep the 201 million parameters of 768 at 150k within 2 %, in heads of
64 as far as they fit, with the FFN near four times the width. It scores 100 languages.
"""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from xlmr_jax.config import load_config
from xlmr_jax.sweep.languages import GROUPS
from xlmr_jax.sweep.runs import Study, is_tiny
from xlmr_jax.sweep.studies import SEEDS, seeded, study_rows, tiny_init_std

STUDY = Study(
  "The vocabulary (figure 6 of the paper)",
  x="vocabulary",
  x_label="entries of the vocabulary",
  x_scale="log",
  series="constant",
  groups=GROUPS,
)


class Body(NamedTuple):
  """The sizes of a body that a vocabulary leaves parameters for."""

  hidden: int
  heads: int
  ffn: int


SAME_PARAMETERS = {
  32_000: Body(1088, 17, 4096),
  64_000: Body(960, 15, 4096),
  128_000: Body(832, 13, 3072),
  256_000: Body(576, 9, 2560),
  512_000: Body(352, 11, 1408),
}
SAME_BODY, LEAST_OF_SAME_BODY = Body(768, 12, 3072), 128_000
TINY_SAME_PARAMETERS = {8_000: Body(192, 6, 768), 16_000: Body(128, 4, 512), 32_000: Body(72, 3, 288)}
TINY_SAME_BODY = Body(96, 3, 384)


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: see configs/study.py."""
  return load_config("study", arg)


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per vocabulary, body and seed."""
  tiny = is_tiny(arg)
  by_size = TINY_SAME_PARAMETERS if tiny else SAME_PARAMETERS
  points = [("parameters", size, body) for size, body in by_size.items()]
  points += [("body", size, TINY_SAME_BODY if tiny else SAME_BODY) for size in by_size if tiny or size >= LEAST_OF_SAME_BODY]
  for constant, size, body in points:
    for seed in SEEDS:
      changes = {f"model.{key}": value for key, value in body._asdict().items()}
      if tiny:
        changes["model.init_std"] = tiny_init_std(body.hidden)
      add(
        {**changes, "model.vocabulary_size": size, "seed": seed},
        values=seeded({"constant": constant, "vocabulary": size}, seed),
        rows=study_rows(tiny, size),
      )
