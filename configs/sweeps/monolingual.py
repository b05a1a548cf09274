"""The paper's table 5: single-language models against one of seven, zero-shot and trained on all translations.

  xlmr sweep --config=sweeps/monolingual --workdir=SWEEP --rows=STORES --config.evaluate.folder=TASKS
  xlmr sweep --config=sweeps/monolingual:tiny --workdir=SWEEP              # the built-in world and its tasks

Both have BERT-Base's architecture. A single-language model has 40,000 entries, the one of seven 150,000. The first is
fine-tuned on its own language's (translated) training set, the second on English alone, and on all seven together.
STORES holds wikipedia_de, crawl_de and so on, and wikipedia_7 and crawl_7; the paper caps the crawl at 60 GiB per language.
Every model makes the same number of updates, and the paper does not say whether its own did.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from xlmr_jax.config import load_config, variant
from xlmr_jax.sweep.languages import SEVEN, SEVEN_OF_TASKS
from xlmr_jax.sweep.runs import Rows, Study, is_tiny, without_tiny
from xlmr_jax.sweep.studies import SEEDS, demo_config, demo_rows, seeded

STUDY = Study(
  "One language or seven (table 5 of the paper)",
  x="language",
  x_label="language of the test",
  x_scale="category",
  series="model",
  y="score",
)
# What the demo's text in one language can fill: 400 entries, but for the shortest text, and the one of most characters.
TINY_ENTRIES, TINY_ENTRIES_OF = 400, {"ur": 320, "zh": 800}
OF_ONE, OF_SEVEN = ("translate_train",), ("zero_shot", "translate_train_all")


def get_config(arg: str = "") -> ConfigDict:
  """The config that each run changes. arg: as of configs/study.py; tiny is the demo's model."""
  c = demo_config(1200) if is_tiny(arg) else load_config("study")
  c.evaluate.languages = SEVEN_OF_TASKS
  return variant(c, without_tiny(arg))


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """One run per model and seed."""
  tiny = is_tiny(arg)
  for text in ("demo",) if tiny else ("wikipedia", "crawl"):
    for name, language in zip(SEVEN, SEVEN_OF_TASKS):
      entries = TINY_ENTRIES_OF.get(language, TINY_ENTRIES) if tiny else 40_000
      rows = demo_rows(entries, (language,)) if tiny else _rows(text, entries, (name,), language)
      for seed in SEEDS:
        add(
          {"model.vocabulary_size": rows.vocabulary_size, "evaluate.languages": (language,), "seed": seed},
          values=seeded({"model": f"bert_{text}", "language": language}, seed),
          rows=rows,
          settings=OF_ONE,
        )
    rows = demo_rows(3000, SEVEN_OF_TASKS) if tiny else _rows(text, 150_000, SEVEN, "7")
    for seed in SEEDS:
      add(
        {"model.vocabulary_size": rows.vocabulary_size, "seed": seed},
        values=seeded({"model": f"xlm7_{text}"}, seed),
        rows=rows,
        settings=OF_SEVEN,
      )


def _rows(text: str, vocabulary_size: int, languages: tuple[str, ...], suffix: str) -> Rows:
  return Rows(f"{text}_{suffix}", vocabulary_size, languages=languages, text=text)
