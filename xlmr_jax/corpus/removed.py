"""What the steps of a build removed: how much of each language, why, and a sample of it to read, or all of it."""

import heapq
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from xlmr_jax.corpus.held_out import document_hash

SAMPLES = 20  # of each step and language
_SHOWN = 500  # characters of a sample
REPAIR = "repair"  # a step that removes nothing


class Removed:
  """Counts and samples by step and language. Which ones are samples follows from their text, not from the order of work.

  keep_all: whether frames() gives all that was removed.
  """

  def __init__(self, *, keep_all: bool = False) -> None:
    self.steps: dict[str, dict[str, dict[str, Any]]] = {}
    self.keep_all = keep_all
    self._streams: dict[str, _Frame] = {}

  def add(
    self,
    step: str,
    language: str,
    reason: str,
    id: str,
    text: str,
    *,
    url: str = "",
    documents: int = 0,
    paragraphs: int = 0,
  ) -> None:
    """Counts what was removed of a document: the whole of it (documents=1), or some paragraphs."""
    if self.keep_all and step != REPAIR:
      stream = self._streams.setdefault(f"{step}/{language}", _Frame())
      found = {"id": id, "url": url, "step": step, "reason": reason}
      stream.write({**found, "document": bool(documents), "text": text})
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

  def frames(self) -> dict[str, np.ndarray]:
    """All that was removed, {"STEP/LANGUAGE": uint8[n]}: JSON lines as a zstd frame, in the order of add()."""
    return {name: stream.end() for name, stream in sorted(self._streams.items())}

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


class _Frame:
  """JSON lines that become one zstd frame with a checksum."""

  def __init__(self) -> None:
    import zstandard

    self._compress = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    self._parts: list[bytes] = []

  def write(self, line: dict[str, Any]) -> None:
    text = json.dumps(line, ensure_ascii=False) + "\n"
    self._parts.append(self._compress.compress(text.encode("utf-8", "backslashreplace")))

  def end(self) -> np.ndarray:
    return np.frombuffer(b"".join([*self._parts, self._compress.flush()]), np.uint8)
