"""Stages 5 and 6: finds near duplicates among the documents of a language, and joins them to clusters."""

import time
from typing import Any

import numpy as np

from xlmr_jax.corpus import near_duplicates
from xlmr_jax.corpus.clean.filter import Filter, filtered_parts
from xlmr_jax.corpus.clean.job import JobStage, Part
from xlmr_jax.corpus.pieces import Piece, write_piece
from xlmr_jax.corpus.stages import Item
from xlmr_jax.files import each


class Pairs(JobStage):
  """Finds the documents of a language that share a band."""

  name, what = "5_pairs", "comparing documents"

  def items(self) -> list[Item]:
    if not self.job.near_duplicates:
      return []
    bands = [(language, band) for language in filtered_parts(self.job) for band in range(near_duplicates.BANDS)]
    sizes = {language: sum(part.bytes for part in parts) for language, parts in filtered_parts(self.job).items()}
    return [Item(i, sizes[language] // near_duplicates.BANDS, (language, band)) for i, (language, band) in enumerate(bands)]

  def work(self, item: Item) -> dict[str, Any]:
    language, band = item.content
    began = time.process_time()
    folder = self.job.path(Filter.name)

    def keys_of(part: Part) -> np.ndarray:
      first, last = band * part.documents, (band + 1) * part.documents
      return Piece(folder / f"{part.piece}.npz").array(f"{language}/bands", first, last)

    keys = each(keys_of, filtered_parts(self.job)[language], folder)
    pairs = near_duplicates.pairs_of_band(np.concatenate(keys))
    write_piece(self.job.path(self.name, f"{language}.{band:02d}.npz"), {"pairs": pairs})
    return {"pairs": len(pairs), "seconds": {"minhash": time.process_time() - began}}


class Clusters(JobStage):
  """Joins the near duplicates of a language to clusters."""

  name, what = "6_clusters", "joining near duplicates"

  def items(self) -> list[Item]:
    if not self.job.near_duplicates:
      return []
    parts = filtered_parts(self.job)
    sizes = {language: sum(part.bytes for part in found) for language, found in parts.items()}
    return [Item(number, sizes[language], language) for number, language in enumerate(parts)]

  def work(self, item: Item) -> dict[str, Any]:
    language = item.content
    began = time.process_time()
    documents = sum(part.documents for part in filtered_parts(self.job)[language])
    folder = self.job.path(Pairs.name)
    bands = range(near_duplicates.BANDS)
    pairs = each(lambda band: Piece(folder / f"{language}.{band:02d}.npz").array("pairs"), bands, folder)
    first = near_duplicates.clusters(pairs, documents)
    sizes = np.bincount(first, minlength=documents).astype(np.uint32)
    write_piece(self.job.path(self.name, f"{language}.npz"), {"first": first, "sizes": sizes})
    kinds, counts = np.unique(sizes[sizes > 0], return_counts=True)
    return {
      "language": language,
      "clusters": {str(kind): int(count) for kind, count in zip(kinds, counts)},
      "seconds": {"minhash": time.process_time() - began},
    }
