"""Finds the paragraphs of a language that occur more than once. Only hashes are compared, never text.

Two paragraphs are the same if they are equal without case, punctuation and spaces, and with every digit read as 0, as in
CCNet (Wenzek et al. 2020, section 3.1). The first 8 bytes of a hash stand for a paragraph: among 18 billion paragraphs, as
CC-100 has, about nine pairs collide.
"""

from collections.abc import Sequence

import numpy as np

from xlmr_jax.corpus.characters import FIRST_UNSPACED, groups, looked_up, normal_forms, unspaced

# Letters. A shorter paragraph may well be written twice, such as a refrain or "Chapter 3": it is boilerplate only if many
# documents have it. A letter of a script without spaces counts as LETTERS_OF_UNSPACED, because it says more. (Ours.)
SHORTEST = 30
LETTERS_OF_UNSPACED = 3
BOILERPLATE_DOCUMENTS = 6
SHORT = np.uint64(1)  # The lowest bit of a hash says whether its paragraph is short.


def hash_paragraphs(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """(uint64[P], int64[D + 1]): the hashes of all paragraphs of D texts; those of text d are hashes[start[d] : start[d + 1]].

  A paragraph without any letter or digit has the hash 0 or 1.
  """
  found = [np.zeros(0, np.uint64), *(_hash_all(texts[group]) for group in groups(texts))]
  starts = np.zeros(len(texts) + 1, np.int64)
  np.cumsum([text.count("\n") + 1 for text in texts], out=starts[1:])
  return np.concatenate(found), starts


def _hash_all(texts: Sequence[str]) -> np.ndarray:
  """The hashes of all paragraphs of texts, uint64[P]."""
  import xxhash

  # UTF-16 keeps the tables small enough for the cache. Letters outside its first plane count as no letters.
  points = np.frombuffer("\n".join([*texts, ""]).encode("utf-16-le", "surrogatepass"), np.uint16)
  normal = looked_up(normal_forms(), points)
  normal = normal.take(np.flatnonzero(normal != 0))  # twice as fast as normal[normal != 0]
  ends = np.flatnonzero(normal == ord("\n"))
  starts = np.concatenate([[0], ends[:-1] + 1])
  letters = ends - starts
  if (high := np.flatnonzero(normal >= FIRST_UNSPACED)).size:
    where = high[unspaced()[normal[high]]]
    letters = letters + (LETTERS_OF_UNSPACED - 1) * (np.searchsorted(where, ends) - np.searchsorted(where, starts))
  short = letters < SHORTEST
  data, digest = normal.tobytes(), xxhash.xxh3_64_intdigest
  found = [digest(data[start:end]) for start, end in zip((2 * starts).tolist(), (2 * ends).tolist())]
  hashes = np.array(found, np.uint64)
  hashes[letters == 0] = 0
  return (hashes & ~SHORT) | short


def once_per_document(hashes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What a shard tells about its paragraphs: (uint64[n] sorted hashes, uint32[n] the paragraph of each, bool[P] repeats).

  A document counts once for each hash, with its first such paragraph; paragraphs without letters do not count. So a document
  cannot make its own refrain boilerplate. A repeat is a paragraph that its own document had before; a short one is none.
  hashes, starts: as hash_paragraphs returns them.
  """
  document = np.repeat(np.arange(starts.size - 1), np.diff(starts))
  order = np.argsort(hashes, kind="stable")  # The sort is stable, so equal hashes stay in the order of the documents.
  in_order, documents = hashes[order], document[order]
  first = np.ones(order.size, bool)
  first[1:] = (in_order[1:] != in_order[:-1]) | (documents[1:] != documents[:-1])
  repeats = np.zeros(order.size, bool)
  repeats[order[~first & ((in_order & SHORT) == 0)]] = True
  kept = first & (in_order > SHORT)
  return in_order[kept], order[kept].astype(np.uint32), repeats


def repeated(hashes: np.ndarray) -> np.ndarray:
  """Which of the paragraphs of a language are repeats, bool[n]; the first of each keeps its place.

  hashes: uint64[n] in the order of the corpus, of which a document has each once. A short paragraph is a repeat only if
  at least BOILERPLATE_DOCUMENTS documents have it.
  """
  order = np.argsort(hashes, kind="stable")
  in_order = hashes[order]
  is_first = np.ones(in_order.size, bool)
  is_first[1:] = in_order[1:] != in_order[:-1]
  group = np.cumsum(is_first) - 1
  sizes = np.bincount(group, minlength=1)
  short = (in_order & SHORT).astype(bool)
  dropped = ~is_first & (~short | (sizes[group] >= BOILERPLATE_DOCUMENTS)) if in_order.size else np.zeros(0, bool)
  result = np.zeros(hashes.size, bool)
  result[order] = dropped
  return result
