"""What the steps of a build removed: how much of each language, why, and a sample of it to read."""

import heapq
from collections.abc import Iterable
from typing import Any

from xlmr_jax.corpus.held_out import document_hash

SAMPLES = 20  # of each step and language
_SHOWN = 500  # characters of a sample


class Removed:
  """Counts and samples by step and language. Which ones are samples follows from their text, not from the order of work."""

  def __init__(self) -> None:
    self.steps: dict[str, dict[str, dict[str, Any]]] = {}

  def add(
    self, step: str, language: str, reason: str, id: str, text: str, *, documents: int = 0, paragraphs: int = 0
  ) -> None:
    """Counts what was removed of a document: the whole of it (documents=1), or some paragraphs."""
    counts = self._counts(step, language)
    counts["documents"] += documents
    counts["paragraphs"] += paragraphs
    counts["bytes"] += len(text.encode("utf-8", "surrogatepass"))
    counts["reasons"][reason] = counts["reasons"].get(reason, 0) + (documents or paragraphs)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    # The lowest hashes are kept: a heap of negative ones has the highest of them on top.
    entry = (-document_hash(f"{reason}\t{shown}"), reason, id, shown.encode("utf-8", "replace").decode("utf-8"))
    samples = counts["samples"]
    if len(samples) < SAMPLES:
      heapq.heappush(samples, entry)
    elif entry > samples[0]:
      heapq.heapreplace(samples, entry)

  def _counts(self, step: str, language: str) -> dict[str, Any]:
    new = {"documents": 0, "paragraphs": 0, "bytes": 0, "reasons": {}, "samples": []}
    return self.steps.setdefault(step, {}).setdefault(language, new)

  def to_json(self) -> dict[str, Any]:
    """All counts and samples, the samples in the order of their hashes."""
    return {
      step: {
        language: {
          **counts,
          "reasons": dict(sorted(counts["reasons"].items())),
          "samples": sorted(
            ([-entry[0], *entry[1:]] for entry in counts["samples"]), key=lambda entry: (entry[0], entry[1:])
          ),
        }
        for language, counts in sorted(languages.items())
      }
      for step, languages in sorted(self.steps.items())
    }

  def merge(self, others: Iterable[dict[str, Any]]) -> "Removed":
    """Adds what to_json gave elsewhere."""
    for other in others:
      for step, languages in other.items():
        for language, found in languages.items():
          counts = self._counts(step, language)
          for key in ("documents", "paragraphs", "bytes"):
            counts[key] += found[key]
          for reason, number in found["reasons"].items():
            counts["reasons"][reason] = counts["reasons"].get(reason, 0) + number
          entries = {(-entry[0], *entry[1:]) for entry in found["samples"]} | set(counts["samples"])
          counts["samples"] = heapq.nlargest(SAMPLES, entries)
          heapq.heapify(counts["samples"])
    return self
