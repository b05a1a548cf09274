"""Stage 8: gathers all that the steps removed, by step and language, if it is to be kept."""

from typing import Any

from xlmr_jax.corpus.clean.filter import Filter
from xlmr_jax.corpus.clean.job import Job, JobStage, Part, items_by_file, load_parts, removed_path
from xlmr_jax.corpus.clean.read import Read
from xlmr_jax.corpus.clean.write import Write
from xlmr_jax.corpus.pieces import Piece
from xlmr_jax.corpus.removed import REPAIR
from xlmr_jax.corpus.stages import Item, outcomes
from xlmr_jax.files import ahead, whole_file


class Gather(JobStage):
  """Writes all that the steps removed as JSON lines, a folder for each step and language in it."""

  name, what = "8_removed", "gathering what was removed"

  def items(self) -> list[Item]:
    return items_by_file(_removed_parts(self.job), self.job.file_bytes) if self.job.keep_removed else []

  def work(self, item: Item) -> dict[str, Any]:
    name, number, first, last = item.content
    path = self.job.path("removed", name) / f"{number:05d}.jsonl{'.zst' if self.job.compress else ''}"
    with whole_file(path, many_writers=True) as unfinished, open(unfinished, "wb") as file:
      parts = _removed_parts(self.job)[name][first:last]
      for frame in ahead(lambda part: Piece(self.job.path(part.piece)).array(name).tobytes(), parts, path):
        # Frames of zstd may follow each other in a file.
        file.write(frame if self.job.compress else _uncompressed(frame))
    return {"file": f"{name}/{path.name}"}


def _removed_parts(job: Job) -> dict[str, list[Part]]:
  """What each item removed, {"STEP/LANGUAGE": parts in the order of the corpus}."""
  return load_parts(job, "removed.json", _find_removed_parts)


def _find_removed_parts(job: Job) -> dict[str, list[Part]]:
  parts: dict[str, list[Part]] = {}
  for stage in (Read(job), Filter(job), Write(job)):
    items = stage.items()
    for item, outcome in zip(items, outcomes(stage, items), strict=True):
      piece = removed_path(stage, item.number).relative_to(job.folder).as_posix()
      for step, languages in outcome["removed"].items():
        for language, found in languages.items() if step != REPAIR else ():
          part = Part(piece, found["documents"], found["paragraphs"], 0, found["bytes"])
          parts.setdefault(f"{step}/{language}", []).append(part)
  return dict(sorted(parts.items()))


def _uncompressed(frame: bytes) -> bytes:
  import zstandard

  return zstandard.ZstdDecompressor().decompressobj().decompress(frame)
