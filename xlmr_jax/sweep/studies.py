"""What the shipped sweeps share: seeds, rows, and how a run says which languages it has."""

from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config_files import load_config
from xlmr_jax.sweep import languages
from xlmr_jax.sweep.runs import Rows, Scalar

SEEDS = (0, 1, 2)
TINY_LANGUAGES = 94  # that the text of the tiny studies is in; docs/studies/alpha.md says where it is from
_SETS = {7: languages.SEVEN, 15: languages.FIFTEEN, 30: languages.THIRTY, 60: languages.SIXTY, 100: languages.ALL}


def language_counts(tiny: bool, *counts: int) -> tuple[int, ...]:
  """The numbers of languages of a study: the paper's 100 are all that there are, which in a tiny one are fewer."""
  return tuple(TINY_LANGUAGES if tiny and count == 100 else count for count in counts)


def scored_on_seven(arg: str = "") -> ConfigDict:
  """The studies' config, scored on the seven languages that every run reads: others would be unseen by some of the runs.

  arg: as of configs/study.py; what it says of evaluate.languages counts.
  """
  c = load_config("study", arg)
  if c.evaluate.tasks and "evaluate.languages" not in arg:
    c.evaluate.languages = languages.SEVEN_OF_TASKS
  return c


def with_languages(count: int) -> dict[str, Any]:
  """The change that gives a run so many languages."""
  return {"data.languages": _SETS[100 if count == TINY_LANGUAGES else count]}


def tiny_init_std(width: int) -> float:
  """The init_std of a tiny model of a width. With 0.08, that of width 128, 192 learns later than 128 does (ours, by trial).

  Held-out loss after 600 updates in 94 languages, one seed: width 192 with 0.08 6.96, 0.05 6.46; width 72 with 0.08 6.81,
  0.142 7.00; width 128 with 0.08 6.54.
  """
  return round(min(0.08, 0.08 * 128 / width), 4)


def study_rows(tiny: bool, vocabulary_size: int = 0) -> Rows:
  """The rows of a study in all languages: 150,000 entries and 512 tokens, as the paper's, or the tiny ones."""
  size = vocabulary_size or (16_000 if tiny else 150_000)
  if not tiny:
    return Rows(f"vocabulary={size}", size)
  return Rows(f"vocabulary={size}", size, sentences=60_000, seq_len=64, held_out=0.05)


def demo_rows(vocabulary_size: int, of: tuple[str, ...] = (), parallel: bool = False) -> Rows:
  """Rows of the built-in world's text, in some of its languages or in all of them. parallel: with its parallel sentences."""
  name = ("demo" if not of else f"demo_{of[0] if len(of) == 1 else len(of)}") + "_pairs" * parallel
  pairs = "demo" if parallel else ""
  return Rows(name, vocabulary_size, languages=of, text="demo", alpha=0.5, seq_len=64, held_out=0.05, parallel=pairs)


def demo_config(train_steps: int) -> ConfigDict:
  """The demo's model with two of its tasks, scored once at the end, and no rule that ends the run."""
  c = load_config("smoke")
  c.train_steps = train_steps
  c.checkpoint.every_steps = c.held_out.every_steps = train_steps // 2
  c.evaluate.update(tasks=("demo_entities", "demo_entailment"), every_steps=0)
  c.stop.update(patience=0, min_gain=0.0, min_steps=0)
  c.log.tensorboard = False
  return c


def seeded(values: dict[str, Scalar], seed: int) -> dict[str, Scalar]:
  """A run's values with its seed, which comes last in its name."""
  return {**values, "seed": seed}
