"""Finds the paragraphs of a language that occur more than once. Only hashes are compared, never text.

Two paragraphs are the same if they are equal without case, punctuation and spaces, and with every digit read as 0, as in
CCNet (Wenzek et al. 2020, section 3.1). The first 8 bytes of a hash stand for a paragraph: among 18 billion paragraphs, as
CC-100 has, about nine pairs collide.
"""

from collections.abc import Sequence

import numpy as np

from xlmr_jax.corpus.characters import FIRST_UNSPACED, normal_forms, unspaced

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
  import xxhash

  # UTF-16 keeps the tables small enough for the cache. Letters outside its first plane count as no letters.
  points = np.frombuffer("".join(f"{text}\n" for text in texts).encode("utf-16-le", "surrogatepass"), np.uint16)
  normal = normal_forms()[points]
  normal = normal[normal != 0]
  ends = np.flatnonzero(normal == ord("\n"))
  starts = np.concatenate([[0], ends[:-1] + 1])
  letters = ends - starts
  if normal.size and normal.max() >= FIRST_UNSPACED:
    where = np.flatnonzero(unspaced()[normal])
    letters = letters + (LETTERS_OF_UNSPACED - 1) * (np.searchsorted(where, ends) - np.searchsorted(where, starts))
  short = letters < SHORTEST
  data, digest = normal.tobytes(), xxhash.xxh3_64_intdigest
  # The start of a paragraph is two bytes, a newline, behind the end of the one before.
  found, start = [], 0
  for end in (2 * ends).tolist():
    found.append(digest(data[start:end]))
    start = end + 2
  hashes = np.array(found, np.uint64)
  hashes[letters == 0] = 0
  hashes = (hashes & ~SHORT) | short
  paragraphs = np.zeros(len(texts) + 1, np.int64)
  np.cumsum([text.count("\n") + 1 for text in texts], out=paragraphs[1:])
  return hashes, paragraphs


def once_per_document(hashes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """What a shard tells about its paragraphs: (uint64[n] sorted hashes, uint32[n] the paragraph of each).

  A document counts once for each hash, with its first such paragraph; paragraphs without letters do not count. So a document
  cannot make its own refrain boilerplate.
  hashes, starts: as hash_paragraphs returns them.
  """
  document = np.repeat(np.arange(starts.size - 1), np.diff(starts))
  order = np.lexsort((document, hashes))
  first = np.ones(order.size, bool)
  first[1:] = (hashes[order][1:] != hashes[order][:-1]) | (document[order][1:] != document[order][:-1])
  chosen = order[first & (hashes[order] > SHORT)]
  return hashes[chosen], chosen.astype(np.uint32)


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


def repeated_within(hashes: np.ndarray) -> np.ndarray:
  """Which paragraphs of one document repeat an earlier one of it, bool[n]. Short ones may: they are refrains."""
  _, first = np.unique(hashes, return_index=True)
  result = np.ones(hashes.size, bool)
  result[first] = False
  return result & ((hashes & SHORT) == 0)
