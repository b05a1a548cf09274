"""Clean text by language, of which the limits of the filters may be learnt instead of from the crawl itself."""

import copy
import hashlib
import heapq
from pathlib import Path

from xlmr_jax.corpus.held_out import document_hash
from xlmr_jax.corpus.repair import repair
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.files import sha256_of
from xlmr_jax.folders import signs

_READ = 1 << 27  # characters of a language that are looked at; a sample of these is enough


class Reference:
  """A folder of clean text in CC-100's layout."""

  def __init__(self, folder: str | Path):
    """Raises UserError as CC100 does."""
    self._source = CC100(folder)

  @property
  def languages(self) -> list[str]:
    """Of which there is text."""
    return sorted(self._source.files)

  def digest(self) -> str:
    """A sha256 of the names and contents of its files."""
    found = hashlib.sha256()
    for language, paths in sorted(self._source.files.items()):
      for path in paths:
        found.update(f"{language}/{path.name} {sha256_of(path)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()

  def state(self) -> str:
    """A sha256 of the names, sizes and times of its files. As long as it stays the same, digest() need not read them all."""
    files = [(language, path) for language, paths in sorted(self._source.files.items()) for path in paths]
    folders = {str(path.parent): path.parent for _, path in files if not isinstance(path, Path)}
    listed = {name: signs(folder) for name, folder in folders.items()}
    found = hashlib.sha256()
    for language, path in files:
      if isinstance(path, Path):
        stat = path.stat()
        size, time_s = stat.st_size, stat.st_mtime
      else:
        size, time_s = listed[str(path.parent)][path.name]
      found.update(f"{language}/{path.name} {size} {time_s}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()

  def sample(self, language: str, documents: int) -> dict[int, str]:
    """Those documents of a language that have the lowest hashes, by their hashes. Raises UserError: its text is damaged."""
    source = copy.copy(self._source)
    source.files = {language: self._source.files[language]}
    lowest: list[tuple[int, str]] = []  # a heap of negative hashes, which has the highest on top
    there: set[int] = set()  # its hashes: a document that is there many times is one
    read = 0
    for shard in source.shards(1 << 60):
      for document in source.documents(shard):
        text = repair(document.text)
        read += len(text)
        if text and (key := document_hash(text)) not in there:
          heapq.heappush(lowest, (-key, text))
          there.add(key)
        if len(lowest) > documents:
          there.remove(-heapq.heappop(lowest)[0])
        if read > _READ:
          return {-key: text for key, text in lowest}
    return {-key: text for key, text in lowest}
