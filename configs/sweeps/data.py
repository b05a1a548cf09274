"""The paper's study of the data (figure 3: Wikipedia against CommonCrawl), and one of how much of it there is.

  xlmr sweep --config=sweeps/data --workdir=SWEEP --rows=STORES --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/data:tiny --workdir=SWEEP --text=TEXT   # all of the text, and a part like Wikipedia's

STORES holds wikipedia and crawl, in 7 languages.

What the crawl brings is above all more text in languages of which Wikipedia has little. The tiny study has one text. Its
"wikipedia" is a part of it: a third of the rows of English, French, German, Russian and Chinese, and a thirtieth of those
of Swahili and Urdu (ours: an order of magnitude between the two, as in figure 1). It tells what the amount does, and not
what the kind of text does. Sizes are shares of the crawl's rows. The tiny runs are scored on the same held-out rows.
At the full size Wikipedia and the crawl are two stores with held-out rows of their own, so that XNLI alone compares them.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.sweep.languages import GROUPS, SEVEN
from xlmr_jax.sweep.runs import Rows, Study, is_tiny
from xlmr_jax.sweep.studies import SEEDS, scored_on_seven, seeded, study_rows

STUDY = Study(
  "What text, and how much (figure 3 of the paper)",
  x="share",
  x_label="share of the training rows",
  x_scale="log",
  series="text",
  y="score",  # Two stores have two sets of held-out rows.
  groups=GROUPS,
)
SHARES = (0.01, 0.1, 1.0)
TINY_WIKIPEDIA = "0.333,sw=0.0333,ur=0.0333"


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: see configs/study.py."""
  c = scored_on_seven(arg)
  if "runlocal" not in arg and "data.languages" not in arg:  # The demo's rows call Chinese zh.
    c.data.languages = SEVEN
  return c


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per text, share and seed. Wikipedia comes whole only."""
  tiny = is_tiny(arg)
  points: list[tuple[str, float, str]] = [("crawl", share, "" if share == 1.0 else str(share)) for share in SHARES]
  points += [("wikipedia", 1.0, TINY_WIKIPEDIA if tiny else "")]
  for text, share, row_shares in points:
    rows = study_rows(True) if tiny else Rows(text, 150_000, languages=SEVEN, text=text)
    for seed in SEEDS:
      add({"data.row_shares": row_shares, "seed": seed}, values=seeded({"text": text, "share": share}, seed), rows=rows)
