"""Stage 7: writes clean text in CC-100's layout, some parts of a language to a file."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.corpus import near_duplicates, personal_data
from xlmr_jax.corpus.clean.duplicates import Clusters
from xlmr_jax.corpus.clean.filter import Filter, filtered_parts
from xlmr_jax.corpus.clean.job import JobStage, items_by_file, removed_path
from xlmr_jax.corpus.pieces import Piece, unpack_documents, write_piece
from xlmr_jax.corpus.removed import Removed
from xlmr_jax.corpus.sources import Document
from xlmr_jax.corpus.stages import Item
from xlmr_jax.files import ahead, sha256_of, whole_file


class Write(JobStage):
  """Writes clean text in CC-100's layout, some parts of a language to a file."""

  name, what = "7_write", "writing clean text"

  def items(self) -> list[Item]:
    return items_by_file(filtered_parts(self.job), self.job.file_bytes)

  def work(self, item: Item) -> dict[str, Any]:
    language, number, first_part, last_part = item.content
    removed = Removed(keep_all=self.job.keep_removed)
    counts, personal, clusters = Counter(), Counter(), []
    began = time.process_time()
    path = self.job.path("clean", language) / f"{number:05d}.txt{'.zst' if self.job.compress else ''}"
    with whole_file(path, many_writers=True) as unfinished:
      with _TextWriter(unfinished, self.job.compress) as write:
        for document, size in self._documents(language, first_part, last_part, removed):
          text = document.text
          if self.job.mask_personal_data:
            text, found = personal_data.mask(text)
            personal.update(found)
          if size > 1:
            clusters.append((path.name, counts["documents"], size))
          data = text.encode("utf-8")
          for _ in range(near_duplicates.repeats(size) if self.job.rehydrate else 1):
            write(b"\n" + data + b"\n" if counts["documents"] else data + b"\n")
            counts["documents"] += 1
            counts["paragraphs"] += text.count("\n") + 1
            counts["bytes"] += len(data)
      sha256 = sha256_of(unfinished)
    if not counts["documents"]:
      path.unlink(missing_ok=True)  # Two tasks may do the item of a third one that died.
    if self.job.keep_removed:
      write_piece(removed_path(self, item.number), removed.frames())
    return {
      "language": language,
      "file": path.name if counts["documents"] else "",
      "sha256": sha256 if counts["documents"] else "",
      "counts": {key: counts[key] for key in ("documents", "paragraphs", "bytes")},
      "clusters": clusters,
      "personal": dict(sorted(personal.items())),
      "removed": removed.to_json(),
      "seconds": {"write": time.process_time() - began},
    }

  def _documents(self, language: str, first_part: int, last_part: int, removed: Removed) -> Iterator[tuple[Document, int]]:
    """The documents of some parts that stand for their clusters, and the sizes of these."""
    parts = filtered_parts(self.job)[language]
    at = sum(part.documents for part in parts[:first_part])
    clusters = Piece(self.job.path(Clusters.name, f"{language}.npz")) if self.job.near_duplicates else None
    folder = self.job.path(Filter.name)
    for documents in ahead(
      lambda part: unpack_documents(Piece(folder / f"{part.piece}.npz"), language), parts[first_part:last_part], folder
    ):
      numbers = range(at, at + len(documents))
      at = numbers.stop
      if not clusters:
        yield from ((document, 1) for document in documents)
        continue
      first = clusters.array("first", numbers.start, numbers.stop).tolist()
      sizes = clusters.array("sizes", numbers.start, numbers.stop).tolist()
      for number, document, original, size in zip(numbers, documents, first, sizes):
        if original == number:
          yield document, size
        else:
          reason = "near duplicate"
          removed.add("near_duplicates", language, reason, document.id, document.text, url=document.url, documents=1)


class _TextWriter:
  """Writes bytes to a file, plain or as one zstd frame with a checksum."""

  def __init__(self, path: Path, compress: bool):
    self._path, self._compress = path, compress

  def __enter__(self) -> Callable[[bytes], Any]:
    self._file = open(self._path, "wb")
    if not self._compress:
      return self._file.write
    import zstandard

    self._stream = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(self._file, closefd=False)
    return self._stream.write

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if self._compress and kind is None:
      self._stream.flush(1)  # zstandard.FLUSH_FRAME
    self._file.close()
