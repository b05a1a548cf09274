"""The stages of `xlmr build_corpus`, from the shards of a source to files of clean text. clean.py puts them together.

Text is read and identified once, and lies between the stages in pieces of some languages each. What must be compared over a
whole language, hashes of paragraphs and of documents, is compared without text.
"""

import dataclasses
import functools
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.corpus import filters, near_duplicates, personal_data
from xlmr_jax.corpus import paragraphs as paragraph_hashes
from xlmr_jax.corpus.held_out import document_hash
from xlmr_jax.corpus.language_id import Identification, Identifier, open_identifier
from xlmr_jax.corpus.languages import LANGUAGES, UNKNOWN
from xlmr_jax.corpus.opt_outs import OptOuts
from xlmr_jax.corpus.pieces import Piece, named, pack_documents, unpack_documents, unshared, write_piece
from xlmr_jax.corpus.profile import Profile
from xlmr_jax.corpus.removed import Removed
from xlmr_jax.corpus.repair import repair
from xlmr_jax.corpus.sources import Damage, Document, Shard, Source
from xlmr_jax.corpus.stages import Item, outcomes
from xlmr_jax.files import sha256_of

# A partition of the hashes of a language that one worker sorts, in hashes; of 8 bytes, and twice that while it is sorted.
PARTITION = 4 << 20
SAMPLE_BYTES, SAMPLE_DOCUMENTS = 1 << 20, 1000  # of each language, from which its limits are learnt
_RANGES = 256  # most partitions of a language
_DAMAGES = 100  # places that are named; all are counted


@dataclasses.dataclass(frozen=True)
class Job:
  """What the stages need to know. All workers see `folder` under the same path."""

  folder: Path  # of the unfinished build, inside the folder of clean text
  source: Source
  language_id: str  # "cld2" or "fasttext:FILE"
  language_id_sha256: str
  sure: bool  # whether to leave out documents whose language is not sure
  languages: tuple[str, ...]  # only these are written; all if it is empty
  near_duplicates: bool
  rehydrate: bool
  mask_personal_data: bool
  opt_out: str  # file, or ""
  piece_bytes: int  # of text, that a worker holds at a time
  file_bytes: int  # of text, from which on another file of clean text begins
  compress: bool

  def path(self, *names: str) -> Path:
    """A path in the folder of the unfinished build."""
    return self.folder.joinpath(*names)

  def wants(self, language: str) -> bool:
    """Whether text of a language is written."""
    return not self.languages or language in self.languages

  def knows(self, language: str) -> bool:
    """Whether a language is one that a corpus may have: of CC-100's, or asked for."""
    return language in LANGUAGES or language in self.languages


@dataclasses.dataclass(frozen=True)
class _Stage:
  """What the stages share."""

  job: Job

  @property
  def folder(self) -> Path:
    return self.job.path(self.name)  # pyright: ignore[reportAttributeAccessIssue]


class _Clock:
  """The processor's seconds that each step takes."""

  def __init__(self) -> None:
    self.seconds: Counter[str] = Counter()

  def __call__(self, step: str, work: Callable[[], Any]) -> Any:
    began = time.process_time()
    result = work()
    self.seconds[step] += time.process_time() - began
    return result


# --- 1: documents, repaired and by language ----------------------------------------------------------------------------


class Read(_Stage):
  """Reads the shards, repairs their documents and finds out the languages; writes pieces."""

  name, what = "1_read", "reading, repairing and identifying"

  def items(self) -> list[Item]:
    return [Item(number, shard.size, shard) for number, shard in enumerate(read_shards(self.job))]

  def work(self, item: Item) -> dict[str, Any]:
    shard: Shard = item.content
    identifier = _identifier(self.job.language_id, self.job.language_id_sha256)
    damages: list[Damage] = []
    counts, repaired, removed, clock = Counter(), Counter(), Removed(), _Clock()
    pieces: list[dict[str, Any]] = []
    by_language: dict[str, list[Document]] = {}
    held = 0

    def flush() -> None:
      if by_language:
        pieces.append(self._write(f"{item.number:06d}-{len(pieces):04d}", by_language, clock))
        by_language.clear()

    blocks = self.job.source.blocks(shard, damages.append)
    while (block := clock("read", lambda: next(blocks, None))) is not None:
      counts["bytes"] += block.size
      counts["documents"] += len(block.documents)
      before = [document.text for document in block.documents]
      texts = clock("repair", lambda: [repair(text, repaired) for text in before])
      lines = [[line for line in text.split("\n") if line.strip()] for text in texts]
      labels = [document.language for document in block.documents]
      found = clock("language", lambda: identifier.documents(list(zip(lines, labels))))
      for document, text, split, identified in zip(block.documents, texts, lines, found):
        if text != document.text.strip():
          counts["repaired"] += 1
          _show_repair(removed, identified.language, document, text)
        for part in self._by_language(document, text, split, identified, removed):
          if self.job.wants(part.language):
            by_language.setdefault(part.language, []).append(part)
            held += len(part.text.encode())
      if held >= self.job.piece_bytes:
        flush()
        held = 0
    flush()
    return {
      "pieces": pieces,
      "counts": dict(counts),
      "repaired": dict(sorted(repaired.items())),
      "damaged": len(damages),
      "damages": [list(damage) for damage in damages[:_DAMAGES]],
      "removed": removed.to_json(),
      "seconds": dict(clock.seconds),
    }

  def _by_language(
    self, document: Document, text: str, lines: list[str], found: Identification, removed: Removed
  ) -> Iterator[Document]:
    """The parts of a document by language, each as a document of its own; what is in no known language is removed."""
    if not lines:
      return
    if found.language == UNKNOWN or (self.job.sure and not found.sure):
      removed.add("language", UNKNOWN, "unknown" if found.language == UNKNOWN else "unsure", document.id, text, documents=1)
      return
    parts: dict[str, list[str]] = {found.language: []}
    for line, language in zip(lines, found.paragraphs):
      parts.setdefault(language, []).append(line)
    for language, paragraphs in parts.items():
      if not paragraphs:
        continue
      part = "\n".join(paragraphs)
      own = language == found.language
      if not self.job.knows(language):
        removed.add("language", language, "not one of CC-100's", document.id, part, documents=int(own), paragraphs=int(not own))
      else:
        yield Document(part, document.id if own else f"{document.id}#{language}", document.url, language)

  def _write(self, name: str, by_language: dict[str, list[Document]], clock: _Clock) -> dict[str, Any]:
    """Writes a piece; tells its name and what it has of each language."""
    arrays: dict[str, np.ndarray] = {}
    languages = {}
    for language, documents in sorted(by_language.items()):
      texts = [document.text for document in documents]
      hashes, starts = clock("hash", lambda texts=texts: paragraph_hashes.hash_paragraphs(texts))
      sorted_hashes, which = paragraph_hashes.once_per_document(hashes, starts)
      bounds = np.searchsorted(sorted_hashes >> np.uint64(56), np.arange(_RANGES + 1))
      own = {
        **pack_documents(documents),
        "hashes": sorted_hashes,
        "which": which,
        "bounds": bounds,
        "within": np.concatenate([
          paragraph_hashes.repeated_within(hashes[a:b]) for a, b in zip(starts[:-1], starts[1:])
        ]),
        "documents": np.array([document_hash(text) for text in texts], np.uint64),
      }  # fmt: skip
      arrays |= named(language, own)
      size = sum(len(text.encode()) for text in texts)
      languages[language] = {"documents": len(texts), "paragraphs": int(starts[-1]), "hashes": int(which.size), "bytes": size}
    write_piece(self.job.path(self.name, f"{name}.npz"), arrays)
    return {"name": name, "languages": languages}


def read_shards(job: Job) -> list[Shard]:
  """The shards of the build, as write_shards left them."""
  with open(job.path("shards.pickle"), "rb") as file:
    return pickle.load(file)


def write_shards(job: Job, shards: list[Shard]) -> None:
  """Stores the shards, so that no list of files travels with the work."""
  with unshared(job.path("shards.pickle")) as path:
    path.write_bytes(pickle.dumps(shards))


@functools.cache
def _identifier(spec: str, sha256: str) -> Identifier:
  return open_identifier(spec, sha256)


def _show_repair(removed: Removed, language: str, document: Document, text: str) -> None:
  """Counts a repaired document, with the first line that changed, before and after."""
  before, after = document.text.strip().split("\n"), text.split("\n")
  changed = next((pair for pair in zip(before, after) if pair[0] != pair[1]), (document.text[:200], text[:200]))
  shown = f"{changed[0][:200]}\n-> {changed[1][:200]}".encode("utf-8", "backslashreplace").decode("utf-8")
  removed.add("repair", language, "repaired", document.id, shown)


# --- 2: paragraphs that a language has more than once ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Part:
  """What a piece has of one language."""

  piece: str  # name
  documents: int
  paragraphs: int
  hashes: int
  bytes: int


def parts_by_language(job: Job) -> dict[str, list[Part]]:
  """The parts of each language in the order of the corpus, from the outcomes of Read."""
  return _load_parts(job, "parts.pickle", _parts_of_read)


def _load_parts(job: Job, name: str, make: Callable[[Job], dict[str, list[Part]]]) -> dict[str, list[Part]]:
  """The result of make(job), which is stored in a file: a worker should not have to read all outcomes for each item."""
  path = job.path(name)
  if not path.exists():
    parts = make(job)
    with unshared(path) as unfinished:
      unfinished.write_bytes(pickle.dumps(parts))
    return parts
  return _unpickle(str(path), path.stat().st_mtime_ns)


@functools.lru_cache(4)
def _unpickle(path: str, _: int) -> Any:
  with open(path, "rb") as file:
    return pickle.load(file)


def _parts_of_read(job: Job) -> dict[str, list[Part]]:
  parts: dict[str, list[Part]] = {}
  stage = Read(job)
  for outcome in outcomes(stage, stage.items()):
    for piece in outcome["pieces"]:
      for language, counts in piece["languages"].items():
        parts.setdefault(language, []).append(Part(piece["name"], **counts))
  return dict(sorted(parts.items()))


class Paragraphs(_Stage):
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
    hashes, which = [], []
    first, last = index * _RANGES // ranges, (index + 1) * _RANGES // ranges
    for part in parts_by_language(self.job)[language]:
      piece = Piece(self.job.path(Read.name, f"{part.piece}.npz"))
      bounds = piece.array(f"{language}/bounds")
      start, stop = int(bounds[first]), int(bounds[last])
      hashes.append(piece.array(f"{language}/hashes", start, stop))
      which.append(piece.array(f"{language}/which", start, stop))
    bounds = np.cumsum([0, *map(len, hashes)])
    repeated = paragraph_hashes.repeated(np.concatenate(hashes))
    dropped = [np.sort(which[i][repeated[a:b]]) for i, (a, b) in enumerate(zip(bounds[:-1], bounds[1:]))]
    write_piece(
      self.job.path(self.name, f"{language}.{index:03d}.npz"),
      {"dropped": np.concatenate(dropped), "bounds": np.cumsum([0, *map(len, dropped)])},
    )
    return {"dropped": int(repeated.sum()), "seconds": {"paragraphs": time.process_time() - began}}


def ranges_of(hashes: int) -> int:
  """Into how many ranges the hashes of a language are divided; a power of 2."""
  ranges = 1
  while ranges < _RANGES and hashes > ranges * PARTITION:
    ranges *= 2
  return ranges


def _documents(job: Job, language: str, index: int, removed: Removed | None) -> tuple[list[Document], np.ndarray]:
  """The documents of part `index` of a language without repeated paragraphs, and the hash that each had before, uint64[D]."""
  parts = parts_by_language(job)[language]
  part = parts[index]
  piece = Piece(job.path(Read.name, f"{part.piece}.npz"))
  repeated = piece.array(f"{language}/within")
  for i in range(ranges_of(sum(part.hashes for part in parts))):
    drops = Piece(job.path(Paragraphs.name, f"{language}.{i:03d}.npz"))
    start, stop = drops.array("bounds", index, index + 2).tolist()
    repeated[drops.array("dropped", start, stop)] = True
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
        removed.add(
          "paragraphs", language, "repeated", document.id, gone, documents=int(not left), paragraphs=len(lines) - len(left)
        )
      if not left:
        continue
      document = document._replace(text="\n".join(left))
    kept.append(document)
    hashes.append(key)
  return kept, np.array(hashes, np.uint64)


# --- 3: what is usual in a language -------------------------------------------------------------------------------------


class Learn(_Stage):
  """Learns the limits of a language from those of its documents that have the lowest hashes."""

  name, what = "3_learn", "learning what is usual"

  def items(self) -> list[Item]:
    parts = parts_by_language(self.job)
    sizes = {language: min(SAMPLE_BYTES, sum(part.bytes for part in found)) for language, found in parts.items()}
    return [Item(number, sizes[language], language) for number, language in enumerate(parts)]

  def work(self, item: Item) -> dict[str, Any]:
    language = item.content
    began = time.process_time()
    lowest = np.zeros((0, 2), np.uint64)
    parts = parts_by_language(self.job)[language]
    for index, part in enumerate(parts):
      hashes = Piece(self.job.path(Read.name, f"{part.piece}.npz")).array(f"{language}/documents")
      hashes = np.sort(hashes)[:SAMPLE_DOCUMENTS]
      lowest = np.concatenate([lowest, np.stack([hashes, np.full_like(hashes, index)], 1)])
      lowest = lowest[np.lexsort((lowest[:, 1], lowest[:, 0]))][:SAMPLE_DOCUMENTS]
    chosen: dict[int, str] = {}
    for index in np.unique(lowest[:, 1]).tolist():
      wanted = set(lowest[lowest[:, 1] == index, 0].tolist())
      for document, key in zip(*_documents(self.job, language, index, None)):
        if int(key) in wanted:
          chosen.setdefault(int(key), document.text)
    texts, size, highest = [], 0, 0
    for key in sorted(chosen):
      if size > SAMPLE_BYTES:
        break
      texts.append(chosen[key])
      size += len(chosen[key].encode())
      highest = key
    profile, limits = filters.learn(texts)
    write_piece(self.job.path(self.name, f"{language}.npz"), profile.to_arrays())
    return {
      "language": language,
      "limits": limits.to_json(),
      "highest": highest,
      "seconds": {"learn": time.process_time() - began},
    }


# --- 4: filters, and the bands of what is left -------------------------------------------------------------------------


class Filter(_Stage):
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
    name, parts = item.content
    removed, clock = Removed(), _Clock()
    arrays: dict[str, np.ndarray] = {}
    languages: dict[str, dict[str, int]] = {}
    for language, index in parts:
      documents, hashes = clock("paragraphs", lambda a=(language, index): _documents(self.job, *a, removed))
      profile, limits, highest = _learnt(self.job, language)
      texts = [document.text for document in documents]
      reasons, _ = clock(
        "filters", lambda a=(texts, profile, limits, hashes <= np.uint64(highest)): filters.refuse(*a) if a[0] else ([], {})
      )
      kept = []
      for document, reason in zip(documents, reasons):
        if reason:
          removed.add("filters", language, reason, document.id, document.text, documents=1)
        else:
          kept.append(document)
      if not kept:
        continue
      arrays |= named(language, pack_documents(kept))
      texts = [document.text for document in kept]
      if self.job.near_duplicates:
        arrays[f"{language}/bands"] = clock("minhash", lambda a=texts: near_duplicates.band_keys(a)).T.reshape(-1)
      size = sum(len(text.encode()) for text in texts)
      languages[language] = {"documents": len(kept), "paragraphs": 0, "hashes": 0, "bytes": size}
    write_piece(self.job.path(self.name, f"{name}.npz"), arrays)
    return {"name": name, "languages": languages, "removed": removed.to_json(), "seconds": dict(clock.seconds)}


@functools.lru_cache(2)
def _learnt(job: Job, language: str) -> tuple[Profile, filters.Limits, int]:
  """What Learn found out about a language."""
  stage = Learn(job)
  number = list(parts_by_language(job)).index(language)
  outcome = outcomes(stage, [Item(number, 0)])[0]
  piece = Piece(job.path(Learn.name, f"{language}.npz"))
  arrays = {name: piece.array(name) for name in piece.names}
  return Profile.from_arrays(arrays), filters.Limits.from_json(outcome["limits"]), outcome["highest"]


def filtered_parts(job: Job) -> dict[str, list[Part]]:
  """What is left of each language after the filters, in the order of the corpus."""
  return _load_parts(job, "filtered.pickle", _parts_of_filter)


def _parts_of_filter(job: Job) -> dict[str, list[Part]]:
  parts: dict[str, list[Part]] = {}
  stage = Filter(job)
  for outcome in outcomes(stage, stage.items()):
    for language, counts in outcome["languages"].items():
      parts.setdefault(language, []).append(Part(outcome["name"], **counts))
  return dict(sorted(parts.items()))


# --- 5 and 6: near duplicates ------------------------------------------------------------------------------------------


class Pairs(_Stage):
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
    keys = [
      Piece(self.job.path(Filter.name, f"{part.piece}.npz")).array(
        f"{language}/bands", band * part.documents, (band + 1) * part.documents
      )
      for part in filtered_parts(self.job)[language]
    ]
    pairs = near_duplicates.pairs_of_band(np.concatenate(keys))
    write_piece(self.job.path(self.name, f"{language}.{band:02d}.npz"), {"pairs": pairs})
    return {"pairs": len(pairs), "seconds": {"minhash": time.process_time() - began}}


class Clusters(_Stage):
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
    pairs = [
      Piece(self.job.path(Pairs.name, f"{language}.{band:02d}.npz")).array("pairs") for band in range(near_duplicates.BANDS)
    ]
    first = near_duplicates.clusters(pairs, documents)
    sizes = np.bincount(first, minlength=documents).astype(np.uint32)
    write_piece(self.job.path(self.name, f"{language}.npz"), {"first": first, "sizes": sizes})
    kinds, counts = np.unique(sizes[sizes > 0], return_counts=True)
    return {
      "language": language,
      "clusters": {str(kind): int(count) for kind, count in zip(kinds, counts)},
      "seconds": {"minhash": time.process_time() - began},
    }


# --- 7: clean text -----------------------------------------------------------------------------------------------------


class Write(_Stage):
  """Writes clean text in CC-100's layout, some parts of a language to a file."""

  name, what = "7_write", "writing clean text"

  def items(self) -> list[Item]:
    items: list[Item] = []
    for language, parts in filtered_parts(self.job).items():
      first, size, number = 0, 0, 0
      for index, part in enumerate(parts):
        size += part.bytes
        if size >= self.job.file_bytes or index == len(parts) - 1:
          items.append(Item(len(items), size, (language, number, first, index + 1)))
          first, size, number = index + 1, 0, number + 1
    return items

  def work(self, item: Item) -> dict[str, Any]:
    language, number, first_part, last_part = item.content
    removed, counts, personal, clusters = Removed(), Counter(), Counter(), []
    began = time.process_time()
    opt_outs = _opt_outs(self.job.opt_out) if self.job.opt_out else None
    folder = self.job.path("clean", language)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:05d}.txt{'.zst' if self.job.compress else ''}"
    with unshared(path) as unfinished, _text_writer(unfinished, self.job.compress) as write:
      for document, size in self._documents(language, first_part, last_part, removed):
        if opt_outs and opt_outs.has(document.url):
          removed.add("opt_outs", language, "opted out", document.id, document.text, documents=1)
          continue
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
    if not counts["documents"]:
      path.unlink()
    return {
      "language": language,
      "file": path.name if counts["documents"] else "",
      "sha256": sha256_of(path) if counts["documents"] else "",
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
    for part in parts[first_part:last_part]:
      documents = unpack_documents(Piece(self.job.path(Filter.name, f"{part.piece}.npz")), language)
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
          removed.add("near_duplicates", language, "near duplicate", document.id, document.text, documents=1)


@functools.cache
def _opt_outs(path: str) -> OptOuts:
  return OptOuts.read(path)


class _text_writer:
  """Writes bytes to a file, plain or as one zstd frame with a checksum."""

  def __init__(self, path: Path, compress: bool):
    self._path, self._compress = path, compress

  def __enter__(self) -> Callable[[bytes], Any]:
    self._file = open(self._path, "wb")  # noqa: SIM115
    if not self._compress:
      return self._file.write
    import zstandard

    self._stream = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(self._file, closefd=False)
    return self._stream.write

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if self._compress and kind is None:
      self._stream.flush(1)  # zstandard.FLUSH_FRAME
    self._file.close()
