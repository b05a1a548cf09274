"""Stages 3 and 4: learns what is usual in each language, and removes repeated paragraphs and documents that are no text."""

import functools
import time
from collections import Counter
from typing import Any

import numpy as np

from xlmr_jax.corpus import filters, near_duplicates
from xlmr_jax.corpus.clean.job import Clock, Job, JobStage, Part, load_parts, removed_path
from xlmr_jax.corpus.clean.read import Read, parts_by_language
from xlmr_jax.corpus.clean.repeats import remaining_documents
from xlmr_jax.corpus.pieces import Piece, named, pack_documents, write_piece
from xlmr_jax.corpus.profile import Profile
from xlmr_jax.corpus.removed import Removed
from xlmr_jax.corpus.stages import Item, outcomes
from xlmr_jax.files import ahead, on_this_machine

# Of each language, from which its limits are learnt. Characters, because a letter of some scripts takes three bytes.
SAMPLE_CHARACTERS, SAMPLE_DOCUMENTS = 1 << 20, 1000


class Learn(JobStage):
  """Learns the limits of a language from those of its documents, or of its reference's, that have the lowest hashes."""

  name, what = "3_learn", "learning what is usual"

  def items(self) -> list[Item]:
    parts = parts_by_language(self.job)
    sizes = {language: min(SAMPLE_CHARACTERS, sum(part.bytes for part in found)) for language, found in parts.items()}
    return [Item(number, sizes[language], language) for number, language in enumerate(parts)]

  def work(self, item: Item) -> dict[str, Any]:
    language = item.content
    began = time.process_time()
    reference = self.job.reference if self.job.reference and language in self.job.reference.languages else None
    chosen = reference.sample(language, SAMPLE_DOCUMENTS) if reference else self._sample(language)
    keys, size = [], 0
    for key in sorted(chosen):
      if size > SAMPLE_CHARACTERS:
        break
      keys.append(key)
      size += len(chosen[key])
    profile, limits, sampled = filters.learn([chosen[key] for key in keys])
    write_piece(self.job.path(self.name, f"{language}.npz"), profile.to_arrays())
    return {
      "language": language,
      "limits": limits.to_json() | {"learnt_from": "reference" if reference else "crawl"},
      # Of the crawl. A reference may have a document of the crawl by chance, which then counts twice.
      "sampled": [] if reference else [key for key, is_sampled in zip(keys, sampled) if is_sampled],
      "seconds": {"learn": time.process_time() - began},
    }

  def _sample(self, language: str) -> dict[int, str]:
    """Those documents of a language that have the lowest hashes, without repeated paragraphs, by their hashes."""
    lowest = np.zeros((0, 2), np.uint64)
    parts = parts_by_language(self.job)[language]
    folder = self.job.path(Read.name)
    every = ahead(lambda part: Piece(folder / f"{part.piece}.npz").array(f"{language}/documents"), parts, folder)
    for index, hashes in enumerate(every):
      hashes = np.unique(hashes)[:SAMPLE_DOCUMENTS]
      lowest = np.concatenate([lowest, np.stack([hashes, np.full_like(hashes, index)], 1)])
      # A document that is there many times is one, and has its text where it is for the first time.
      lowest = lowest[np.unique(lowest[:, 0], return_index=True)[1]][:SAMPLE_DOCUMENTS]
    chosen: dict[int, str] = {}
    for index in np.unique(lowest[:, 1]).tolist():
      wanted = set(lowest[lowest[:, 1] == index, 0].tolist())
      for document, key in zip(*remaining_documents(self.job, language, index, None)):
        if int(key) in wanted:
          chosen.setdefault(int(key), document.text)
    return chosen


class Filter(JobStage):
  """Removes repeated paragraphs and what is no text; hashes what is left for the search of near duplicates."""

  name, what = "4_filter", "filtering"

  def items(self) -> list[Item]:
    pieces: dict[str, list[tuple[str, int]]] = {}
    sizes: Counter[str] = Counter()
    for language, parts in parts_by_language(self.job).items():
      for index, part in enumerate(parts):
        pieces.setdefault(part.piece, []).append((language, index))
        sizes[part.piece] += part.bytes
    return [Item(number, sizes[name], (name, pieces[name])) for number, name in enumerate(sorted(pieces))]

  def work(self, item: Item) -> dict[str, Any]:
    # All of the piece is read, and in a bucket each array would be a request.
    with on_this_machine(self.job.path(Read.name, f"{item.content[0]}.npz")) as path:
      return self._work(item, Piece(path))

  def _work(self, item: Item, piece: Piece) -> dict[str, Any]:
    name, parts = item.content
    removed, clock = Removed(keep_all=self.job.keep_removed), Clock()
    arrays: dict[str, np.ndarray] = {}
    languages: dict[str, dict[str, int]] = {}
    for language, index in parts:
      with clock("paragraphs"):
        documents, hashes = remaining_documents(self.job, language, index, removed, piece)
      profile, limits, sampled = _learnt(self.job, language)
      texts = [document.text for document in documents]
      with clock("filters"):
        reasons = filters.refuse(texts, profile, limits, np.isin(hashes, sampled))
      kept = []
      for document, reason in zip(documents, reasons):
        if reason:
          removed.add("filters", language, reason, document.id, document.text, url=document.url, documents=1)
        else:
          kept.append(document)
      if not kept:
        continue
      arrays |= named(language, pack_documents(kept))
      texts = [document.text for document in kept]
      if self.job.near_duplicates:
        with clock("minhash"):
          arrays[f"{language}/bands"] = near_duplicates.band_keys(texts).T.reshape(-1)
      size = sum(len(text.encode()) for text in texts)
      languages[language] = {"documents": len(kept), "paragraphs": 0, "hashes": 0, "bytes": size}
    write_piece(self.job.path(self.name, f"{name}.npz"), arrays)
    if self.job.keep_removed:
      write_piece(removed_path(self, item.number), removed.frames())
    return {"name": name, "languages": languages, "removed": removed.to_json(), "seconds": dict(clock.seconds)}


@functools.lru_cache(2)
def _learnt(job: Job, language: str) -> tuple[Profile, filters.Limits, np.ndarray]:
  """What Learn found out about a language, and the hashes of the documents that the profile was made of."""
  stage = Learn(job)
  number = list(parts_by_language(job)).index(language)
  outcome = outcomes(stage, [Item(number, 0)])[0]
  piece = Piece(job.path(Learn.name, f"{language}.npz"))
  arrays = {name: piece.array(name) for name in piece.names}
  return Profile.from_arrays(arrays), filters.Limits.from_json(outcome["limits"]), np.array(outcome["sampled"], np.uint64)


def filtered_parts(job: Job) -> dict[str, list[Part]]:
  """What is left of each language after the filters, in the order of the corpus."""
  return load_parts(job, "filtered.json", _parts_of_filter)


def _parts_of_filter(job: Job) -> dict[str, list[Part]]:
  parts: dict[str, list[Part]] = {}
  stage = Filter(job)
  for outcome in outcomes(stage, stage.items()):
    for language, counts in outcome["languages"].items():
      parts.setdefault(language, []).append(Part(outcome["name"], **counts))
  return dict(sorted(parts.items()))
