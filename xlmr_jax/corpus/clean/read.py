"""Stage 1: reads the shards, repairs their documents and finds out the languages; writes pieces of documents by language.

Documents whose owners opted out go here, before any is compared with others: else one of them could stand for its repeats
and near duplicates elsewhere, which would go with it.
"""

import dataclasses
import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xlmr_jax.corpus import paragraphs as paragraph_hashes
from xlmr_jax.corpus.blanks import is_blank
from xlmr_jax.corpus.clean.job import Clock, Job, JobStage, Part, load_parts, removed_path
from xlmr_jax.corpus.held_out import document_hash
from xlmr_jax.corpus.language_id import Identification, Identifier, open_identifier
from xlmr_jax.corpus.languages import UNKNOWN
from xlmr_jax.corpus.opt_outs import OptOuts
from xlmr_jax.corpus.pieces import named, pack_documents, write_piece
from xlmr_jax.corpus.removed import Removed
from xlmr_jax.corpus.repair import repair_all
from xlmr_jax.corpus.sources import Damage, Document, Shard
from xlmr_jax.corpus.stages import Item, outcomes
from xlmr_jax.errors import UserError
from xlmr_jax.files import is_bucket, read_json, whole_file

RANGES = 256  # the most partitions into which the hashes of a language are divided
_DAMAGES = 100  # places that are named; all are counted


class Read(JobStage):
  """Reads the shards, repairs their documents and finds out the languages; writes pieces."""

  name, what = "1_read", "reading, repairing and identifying"

  def items(self) -> list[Item]:
    return [Item(number, shard.size, shard) for number, shard in enumerate(read_shards(self.job))]

  def work(self, item: Item) -> dict[str, Any]:
    shard: Shard = item.content
    identifier = _identifier(self.job.language_id, self.job.language_id_sha256)
    damages: list[Damage] = []
    counts, repaired, clock = Counter(), Counter(), Clock()
    removed = Removed(keep_all=self.job.keep_removed)
    pieces: list[dict[str, Any]] = []
    by_language: dict[str, list[Document]] = {}
    confusion: dict[str, Counter[str]] = {}
    opt_outs = _opt_outs(self.job.opt_out) if self.job.opt_out else None
    sizes: Counter[str] = Counter()  # bytes of text by language, also of languages that are not wanted
    held, root = 0, self.job.root

    def flush() -> None:
      if by_language:
        pieces.append(self._write(f"{item.number:06d}-{len(pieces):04d}", by_language, clock))
        by_language.clear()

    blocks = self.job.source.blocks(shard, damages.append)
    while True:
      with clock("read"):
        block = next(blocks, None)
      if block is None:
        break
      documents = [
        document._replace(id=document.id.removeprefix(root)) if root and document.id.startswith(root) else document
        for document in block.documents
      ]
      counts["bytes"] += block.size
      counts["documents"] += len(documents)
      before = [document.text for document in documents]
      with clock("repair"):
        texts = repair_all(before, repaired)
      lines = [[line for line in text.split("\n") if not is_blank(line)] for text in texts]
      labels = [document.language for document in documents]
      with clock("language"):
        found = identifier.documents(list(zip(lines, labels)))
      for document, text, split, identified in zip(documents, texts, lines, found):
        if text != document.text.strip():
          counts["repaired"] += 1
          _show_repair(removed, identified.language, document, text)
        opted_out = opt_outs.covers(document.url) if opt_outs else False
        counts["unreadable_urls"] += opted_out is None
        for part in self._by_language(document, text, split, identified, removed):
          counts["divided"] += part.id != document.id
          if opted_out:
            removed.add("opt_outs", part.language, "opted out", part.id, part.text, url=part.url, documents=1)
            continue
          size = len(part.text.encode())
          sizes[part.language] += size
          held += size  # Also of languages that are not wanted, so that each language has the same pieces in every build.
          if document.language:
            confusion.setdefault(document.language, Counter())[part.language] += size
          if self.job.wants(part.language):
            by_language.setdefault(part.language, []).append(part)
      if held >= self.job.piece_bytes:
        flush()
        held = 0
    flush()
    if self.job.keep_removed:
      write_piece(removed_path(self, item.number), removed.frames())
    return {
      "pieces": pieces,
      "counts": dict(counts),
      "repaired": dict(sorted(repaired.items())),
      "damaged": len(damages),
      "damages": [[where.removeprefix(root), reason] for where, reason in damages[:_DAMAGES]],
      "languages": dict(sizes),
      "confusion": {label: dict(found) for label, found in confusion.items()},
      "removed": removed.to_json(),
      "seconds": dict(clock.seconds),
    }

  def _by_language(
    self, document: Document, text: str, lines: list[str], found: Identification, removed: Removed
  ) -> Iterator[Document]:
    """The parts of a document by language, each as a document of its own; what is in no known language is removed.

    The part in the document's language has its id. So each document either comes out once under its id, or is removed.
    """
    if not lines or found.language == UNKNOWN or (self.job.sure and not found.sure):
      reason = "empty" if not lines else "unknown" if found.language == UNKNOWN else "unsure"
      removed.add("language", UNKNOWN, reason, document.id, text, url=document.url, documents=1)
      return
    parts: dict[str, list[str]] = {found.language: []}
    for line, language in zip(lines, found.paragraphs):
      parts.setdefault(language, []).append(line)
    languages = [language for language, paragraphs in parts.items() if paragraphs]
    for language in languages:
      part = "\n".join(parts[language])
      own = language == languages[0]
      if not self.job.knows(language):
        counts = {"documents": 1} if own else {"paragraphs": len(parts[language])}
        removed.add("language", language, "not one of CC-100's", document.id, part, url=document.url, **counts)
      else:
        yield Document(part, document.id if own else f"{document.id}#{language}", document.url, language)

  def _write(self, name: str, by_language: dict[str, list[Document]], clock: Clock) -> dict[str, Any]:
    """Writes a piece; tells its name and what it has of each language."""
    arrays: dict[str, np.ndarray] = {}
    languages = {}
    for language, documents in sorted(by_language.items()):
      texts = [document.text for document in documents]
      with clock("hash"):
        hashes, starts = paragraph_hashes.hash_paragraphs(texts)
        sorted_hashes, which, within = paragraph_hashes.once_per_document(hashes, starts)
      bounds = np.searchsorted(sorted_hashes >> np.uint64(56), np.arange(RANGES + 1))
      own = {
        **pack_documents(documents),
        "hashes": sorted_hashes,
        "which": which,
        "bounds": bounds,
        "within": within,
        "documents": np.array([document_hash(text) for text in texts], np.uint64),
      }
      arrays |= named(language, own)
      size = sum(len(text.encode()) for text in texts)
      languages[language] = {
        "documents": len(texts),
        "paragraphs": int(starts[-1]),
        "hashes": int(which.size),
        "bytes": size,
      }
    write_piece(self.job.path(self.name, f"{name}.npz"), arrays)
    return {"name": name, "languages": languages}


def common_root(shards: Sequence[Shard]) -> str:
  """The folder that all files of a source lie in, with a slash; "" for shards that are no files.

  Without it, two builds of the same files in different places write the same bytes.
  """
  folders = {os.path.dirname(shard.name) for shard in shards}
  if folders and all(map(is_bucket, folders)):
    schemes, paths = zip(*(folder.split("://", 1) for folder in folders))
    return os.path.join(f"{schemes[0]}://{os.path.commonpath(paths)}", "") if len(set(schemes)) == 1 else ""
  if not folders or not all(map(os.path.isabs, folders)):
    return ""
  return os.path.join(os.path.commonpath(folders), "")


def read_shards(job: Job) -> list[Shard]:
  """The shards of the build, as write_shards left them."""
  path, kind = job.path("shards.json"), job.source.shard_type
  try:
    return [kind(*row) for row in read_json(path)]
  except (ValueError, TypeError) as error:
    raise UserError(f"{path}: cannot be read ({error}); give the same command again") from None


def write_shards(job: Job, shards: list[Shard]) -> None:
  """Stores the shards, so that no list of files travels with the work; as JSON, as write_parts says why."""
  text, kind = json.dumps([dataclasses.astuple(shard) for shard in shards]), job.source.shard_type
  if {type(shard) for shard in shards} - {kind} or [kind(*row) for row in json.loads(text)] != shards:
    raise TypeError(f"{type(job.source).__name__}.shard_type must be the class of its shards, with fields such as JSON has")
  with whole_file(job.path("shards.json"), many_writers=True) as path:
    path.write_text(text, encoding="utf-8")


@functools.cache
def _opt_outs(path: str) -> OptOuts:
  return OptOuts.read(path)


@functools.cache
def _identifier(spec: str, sha256: str) -> Identifier:
  return open_identifier(spec, sha256)


def _show_repair(removed: Removed, language: str, document: Document, text: str) -> None:
  """Counts a repaired document, with the first line that changed, before and after."""
  before, after = document.text.strip().split("\n"), text.split("\n")
  changed = next((pair for pair in zip(before, after) if pair[0] != pair[1]), (document.text[:200], text[:200]))
  shown = f"{changed[0][:200]}\n-> {changed[1][:200]}".encode("utf-8", "backslashreplace").decode("utf-8")
  removed.add("repair", language, "repaired", document.id, shown)


def parts_by_language(job: Job) -> dict[str, list[Part]]:
  """The parts of each language in the order of the corpus, from the outcomes of Read."""
  return load_parts(job, "parts.json", _parts_of_read)


def _parts_of_read(job: Job) -> dict[str, list[Part]]:
  parts: dict[str, list[Part]] = {}
  stage = Read(job)
  for outcome in outcomes(stage, stage.items()):
    for piece in outcome["pieces"]:
      for language, counts in piece["languages"].items():
        parts.setdefault(language, []).append(Part(piece["name"], **counts))
  return dict(sorted(parts.items()))
