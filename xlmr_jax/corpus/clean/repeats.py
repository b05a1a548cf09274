"""Stage 2: finds the paragraphs that a language has more than once, one range of their hashes at a time."""

import itertools
import time
from typing import Any

import numpy as np

from xlmr_jax.corpus import paragraphs as paragraph_hashes
from xlmr_jax.corpus.clean.job import Job, JobStage, Part
from xlmr_jax.corpus.clean.read import RANGES, Read, parts_by_language
from xlmr_jax.corpus.pieces import Piece, unpack_documents, write_piece
from xlmr_jax.corpus.removed import Removed
from xlmr_jax.corpus.sources import Document
from xlmr_jax.corpus.stages import Item
from xlmr_jax.files import each

# The hashes that one worker sorts at a time. Each has 8 bytes, and twice that while it is sorted.
PARTITION = 1 << 19


class Paragraphs(JobStage):
  """Finds the repeats among the paragraphs of a language, one range of the hashes at a time."""

  name, what = "2_paragraphs", "comparing paragraphs"

  def items(self) -> list[Item]:
    items: list[Item] = []
    for language, parts in parts_by_language(self.job).items():
      ranges = ranges_of(sum(part.hashes for part in parts))
      size = sum(part.bytes for part in parts)
      items += [Item(len(items) + i, size // ranges, (language, i, ranges)) for i in range(ranges)]
    return items

  def work(self, item: Item) -> dict[str, Any]:
    language, index, ranges = item.content
    began = time.process_time()
    folder = self.job.path(Read.name)
    first, last = index * RANGES // ranges, (index + 1) * RANGES // ranges

    def hashes_of(part: Part) -> tuple[np.ndarray, np.ndarray]:
      piece = Piece(folder / f"{part.piece}.npz")
      bounds = piece.array(f"{language}/bounds")
      start, stop = int(bounds[first]), int(bounds[last])
      return piece.array(f"{language}/hashes", start, stop), piece.array(f"{language}/which", start, stop)

    hashes, which = zip(*each(hashes_of, parts_by_language(self.job)[language], folder))
    bounds = np.cumsum([0, *map(len, hashes)])
    repeated = paragraph_hashes.repeated(np.concatenate(hashes))
    dropped = [np.sort(which[i][repeated[a:b]]) for i, (a, b) in enumerate(itertools.pairwise(bounds))]
    write_piece(
      self.job.path(self.name, f"{language}.{index:03d}.npz"),
      {"dropped": np.concatenate(dropped), "bounds": np.cumsum([0, *map(len, dropped)])},
    )
    return {"dropped": int(repeated.sum()), "seconds": {"paragraphs": time.process_time() - began}}


def ranges_of(hashes: int) -> int:
  """Into how many ranges the hashes of a language are divided; a power of 2."""
  ranges = 1
  while ranges < RANGES and hashes > ranges * PARTITION:
    ranges *= 2
  return ranges


def remaining_documents(
  job: Job, language: str, index: int, removed: Removed | None, piece: Piece | None = None
) -> tuple[list[Document], np.ndarray]:
  """The documents of part `index` of a language without repeated paragraphs, and the hash of each before, uint64[D].

  piece: of the part, by whoever has it open already.
  """
  parts = parts_by_language(job)[language]
  part = parts[index]
  piece = piece or Piece(job.path(Read.name, f"{part.piece}.npz"))
  folder = job.path(Paragraphs.name)
  repeated = piece.array(f"{language}/within")

  def dropped(i: int) -> np.ndarray:
    drops = Piece(folder / f"{language}.{i:03d}.npz")
    start, stop = drops.array("bounds", index, index + 2).tolist()
    return drops.array("dropped", start, stop)

  for which in each(dropped, range(ranges_of(sum(part.hashes for part in parts))), folder):
    repeated[which] = True
  kept, hashes, at = [], [], 0
  for document, key in zip(unpack_documents(piece, language), piece.array(f"{language}/documents").tolist()):
    lines = document.text.split("\n")
    here = repeated[at : at + len(lines)]
    at += len(lines)
    if here.any():
      again = here.tolist()
      left = [line for line, is_repeat in zip(lines, again) if not is_repeat]
      gone = "\n".join(line for line, is_repeat in zip(lines, again) if is_repeat)
      if removed is not None:
        counts = {"documents": int(not left), "paragraphs": len(lines) - len(left)}
        removed.add("paragraphs", language, "repeated", document.id, gone, url=document.url, **counts)
      if not left:
        continue
      document = document._replace(text="\n".join(left))
    kept.append(document)
    hashes.append(key)
  return kept, np.array(hashes, np.uint64)
