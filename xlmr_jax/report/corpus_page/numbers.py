"""The numbers of a build, as its manifest has them, and how often a training would see each language."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.corpus import filters
from xlmr_jax.data.mixture import smoothed_shares
from xlmr_jax.files import AnyPath, read_bytes
from xlmr_jax.names import below
from xlmr_jax.report.corpus_page.steps import STEPS

ALPHAS = (0.01, 0.3, 0.7, 1.0)  # the exponents of Conneau et al. 2020, figure 5
# Conneau et al. 2020, section 4: 1.5 million updates with 8,192 rows each.
TRAIN_STEPS, BATCH_ROWS = 1_500_000, 8192
# Only for a corpus without rows: nobody knows how many tokens it has before a tokenizer has read it. (Both are ours.)
ASSUMED_BYTES_PER_TOKEN, ASSUMED_ROW_TOKENS = 4.0, 512


class Corpus:
  """The manifest of a build, and the samples beside it."""

  def __init__(self, manifest: Mapping[str, Any], removed: AnyPath):
    self.manifest, self._removed = manifest, removed
    found = manifest["languages"]
    # The largest language comes first everywhere; the code decides between equals.
    self.languages: dict[str, dict[str, Any]] = {
      code: found[code] for code in sorted(found, key=lambda c: (-found[c]["bytes"], c))
    }
    self.steps: dict[str, dict[str, Any]] = manifest["steps"]
    self.source: dict[str, Any] = manifest["source"]
    self.options: dict[str, Any] = manifest["build"]["options"]

  @property
  def bytes(self) -> int:
    """Of clean text."""
    return sum(language["bytes"] for language in self.languages.values())

  @property
  def documents(self) -> int:
    """Of clean text."""
    return sum(language["documents"] for language in self.languages.values())

  def removed(self, step: str, key: str, code: str | None = None) -> int:
    """How many bytes, documents or paragraphs (key) a step removed, of one language or of all."""
    codes = self.steps if code is None else (code,)
    return sum(self.steps.get(one, {}).get(step, {}).get(key, 0) for one in codes)

  def before(self, code: str) -> int | None:
    """Bytes of a language before cleaning. None: unknown, because clean text repeats documents (--rehydrate)."""
    if self.options.get("rehydrate"):
      return None
    return self.languages.get(code, {}).get("bytes", 0) + sum(self.removed(step, "bytes", code) for step in STEPS)

  def by_bytes_removed(self, step: str) -> list[str]:
    """The languages that a step took something of, those that lost most bytes first."""
    return sorted(
      (code for code in self.steps if step in self.steps[code]), key=lambda c: (-self.removed(step, "bytes", c), c)
    )

  def samples(self, step: str, code: str) -> tuple[list[dict[str, str]], int]:
    """The samples of what a step removed of a language, and how many lines of the file are none. A file may be missing."""
    try:
      path = below(self._removed, step, f"{code}.jsonl")
      lines = read_bytes(path).decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
      return [], 0
    samples, bad = [], 0
    for line in filter(None, lines):
      try:
        sample = json.loads(line)
        samples.append({key: str(sample[key]) for key in ("reason", "id", "text")})
      except (ValueError, KeyError, TypeError):
        bad += 1
    return samples, bad


def filter_reasons(corpus: Corpus) -> dict[str, int]:
  """Documents that the filters refused, by reason, in the order of the filters."""
  found: Counter[str] = Counter()
  for steps in corpus.steps.values():
    found.update(steps.get("filters", {}).get("reasons", {}))
  known = [reason for reason in filters.REASONS if found[reason]]
  return {reason: found[reason] for reason in (*known, *sorted(found.keys() - set(filters.REASONS)))}


class Sampling(NamedTuple):
  """How many rows of each language a training sees."""

  rows: dict[str, int]  # the largest language first, none empty
  train_steps: int
  batch_rows: int
  row_tokens: int
  # The documents and tokens of the rows; None: rows are only bytes, divided by an assumption.
  documents: dict[str, int] | None = None
  tokens: dict[str, int] | None = None

  @property
  def estimated(self) -> bool:
    return self.tokens is None

  @property
  def planned_rows(self) -> int:
    """That a training takes in all."""
    return self.train_steps * self.batch_rows

  @classmethod
  def from_rows(cls, manifest: Mapping[str, Any], train_steps: int, batch_rows: int) -> "Sampling":
    """From the manifest of a row store."""
    train = {code: splits["train"] for code, splits in manifest["languages"].items() if splits["train"]["rows"]}
    rows, documents, tokens = (
      {code: counts[key] for code, counts in train.items()} for key in ("rows", "documents", "tokens")
    )
    return cls(_largest_first(rows), train_steps, batch_rows, manifest["seq_len"], documents, tokens)

  @classmethod
  def from_bytes(cls, corpus: Corpus, train_steps: int, batch_rows: int) -> "Sampling":
    """From bytes of clean text, with an assumption about the bytes of a token."""
    per_row = ASSUMED_BYTES_PER_TOKEN * ASSUMED_ROW_TOKENS
    rows = {code: max(1, round(found["bytes"] / per_row)) for code, found in corpus.languages.items() if found["bytes"]}
    return cls(_largest_first(rows), train_steps, batch_rows, ASSUMED_ROW_TOKENS)

  def shares(self, alpha: float) -> dict[str, float]:
    """The share of each language among the sampled rows."""
    counts = np.array(list(self.rows.values()), np.int64)
    return dict(zip(self.rows, smoothed_shares(counts, alpha, list(self.rows)).tolist())) if self.rows else {}


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
  return {code: counts[code] for code in sorted(counts, key=lambda c: (-counts[c], c))}
