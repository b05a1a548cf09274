"""Near duplicates among the documents of a language, by MinHash (Broder 1997): 14 bands of 8 hashes, as in FineWeb.

A pair counts if two bands agree. So a pair of Jaccard similarity 0.9 is found with probability 0.995 and one of 0.5 with
0.001; with one band, as is usual, the latter would be 0.05. Documents that pairs connect are a cluster, whose first document
stays. Nothing depends on how the work is divided, because the first document of a cluster is the smallest number in it.
"""

from collections.abc import Sequence

import numpy as np

from xlmr_jax.corpus.characters import groups
from xlmr_jax.corpus.words import PRIME, combined, hashes_of, mixed

BANDS, ROWS = 14, 8
AGREEING_BANDS = 2
SHINGLE = 5  # words
_PERMUTATIONS = BANDS * ROWS
_CHUNK = 1 << 14  # shingles at a time, which fit into the cache
_ALL_PAIRS = 16  # documents that share a band; of more, only pairs with the first and with the one before are looked at


def band_keys(texts: Sequence[str]) -> np.ndarray:
  """The bands of D texts, uint64[D, BANDS]. A text of fewer than SHINGLE words is one shingle."""
  found = [np.zeros((0, BANDS), np.uint64)]
  for group in groups(texts):
    shingles, document = _shingles(texts[group])
    found.append(_bands(shingles, document, len(texts[group])))
  return np.concatenate(found)


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """(uint64[n], int64[n]): hashes of all phrases of SHINGLE words, and the text of each."""
  words, starts = hashes_of(texts)
  count = np.diff(starts)
  document = np.repeat(np.arange(len(texts)), count)
  shingle = words.copy()
  for distance in range(1, SHINGLE):
    shingle *= PRIME
    same = document[distance:] == document[:-distance]  # Beyond the end of its document, a word is followed by zeros.
    shingle[:-distance] += np.where(same, words[distance:], np.uint64(0))
  index = np.arange(words.size) - np.repeat(starts[:-1], count)
  # What begins near the end of a document is no shingle, unless the document is shorter than one.
  kept = (index + SHINGLE <= np.repeat(count, count)) | (index == 0)
  return mixed(shingle[kept]), document[kept]


def _bands(shingles: np.ndarray, document: np.ndarray, documents: int) -> np.ndarray:
  """uint64[D, BANDS] of the shingles of each document.

  Documents without any shingle all get the same keys. The filters leave none, because such a document has no letter.
  """
  factors, terms = _permutations()
  lowest = np.full((_PERMUTATIONS, documents), np.iinfo(np.uint32).max, np.uint32)
  short = (shingles >> np.uint64(32)).astype(np.uint32)
  if short.size:
    starts = np.flatnonzero(np.append(True, document[1:] != document[:-1]))
    ends = np.append(starts[1:], short.size)
    for group in _groups(starts, ends):
      part = short[starts[group.start] : ends[group.stop - 1]]
      at = starts[group] - starts[group.start]
      found = np.empty((_PERMUTATIONS, at.size), np.uint32)
      hashes = np.empty_like(part)
      for factor, term, least in zip(factors, terms, found):
        np.multiply(part, factor, out=hashes)
        np.add(hashes, term, out=hashes)
        np.minimum.reduceat(hashes, at, out=least)
      lowest[:, document[starts[group]]] = found
  keys = np.zeros((documents, BANDS), np.uint64)
  for band in range(BANDS):
    key = np.full(documents, band + 1, np.uint64)
    for row in range(ROWS):
      key = combined(key, lowest[band * ROWS + row].astype(np.uint64))
    keys[:, band] = key
  return keys


def _groups(starts: np.ndarray, ends: np.ndarray) -> list[slice]:
  """Slices of the documents, each of about _CHUNK shingles."""
  groups, first = [], 0
  while first < starts.size:
    last = int(np.searchsorted(ends, starts[first] + _CHUNK, side="right"))
    groups.append(slice(first, max(last, first + 1)))
    first = groups[-1].stop
  return groups


def _permutations() -> tuple[np.ndarray, np.ndarray]:
  """Odd factors and terms, uint32[_PERMUTATIONS] each."""
  numbers = mixed(np.arange(1, 2 * _PERMUTATIONS + 1, dtype=np.uint64))
  return (numbers[:_PERMUTATIONS] >> np.uint64(32)).astype(np.uint32) | np.uint32(1), (
    numbers[_PERMUTATIONS:] >> np.uint64(32)
  ).astype(np.uint32)


def pairs_of_band(keys: np.ndarray) -> np.ndarray:
  """Pairs of documents that share a band, uint32[P, 2] with the smaller number first. keys: uint64[D] of one band."""
  order = np.argsort(keys, kind="stable").astype(np.uint32)
  in_order = keys[order]
  new = np.append(True, in_order[1:] != in_order[:-1])
  first = np.flatnonzero(new)
  sizes = np.diff(np.append(first, order.size))
  index = np.arange(order.size) - np.repeat(first, sizes)
  size = np.repeat(sizes, sizes)
  found = []
  for distance in range(1, int(min(_ALL_PAIRS, sizes.max(initial=1)))):
    later = np.flatnonzero((index >= distance) & ((size <= _ALL_PAIRS) | (distance == 1)))
    found.append(np.stack([order[later - distance], order[later]], 1))
  to_first = np.flatnonzero((size > _ALL_PAIRS) & (index > 1))
  found.append(np.stack([order[to_first - index[to_first]], order[to_first]], 1))
  return np.concatenate(found)


def clusters(pairs: Sequence[np.ndarray], documents: int) -> np.ndarray:
  """The first document of the cluster of each document, uint32[documents].

  pairs: those of each band. A pair counts if AGREEING_BANDS bands have it.
  """
  first = np.arange(documents, dtype=np.uint32)
  joined = np.concatenate([pair.astype(np.uint64) for pair in pairs]) if pairs else np.zeros((0, 2), np.uint64)
  keys, counts = np.unique(joined[:, 0] << np.uint64(32) | joined[:, 1], return_counts=True)
  keys = keys[counts >= AGREEING_BANDS]
  one, other = (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
  # Each round gives a document the smallest number that it is paired with, and follows the numbers to their end.
  while one.size:
    low = np.minimum(first[one], first[other])
    before = first.copy()
    np.minimum.at(first, first[one].astype(np.int64), low)
    np.minimum.at(first, first[other].astype(np.int64), low)
    np.minimum.at(first, one, low)
    np.minimum.at(first, other, low)
    while not np.array_equal(first, first[first]):
      first = first[first]
    if np.array_equal(before, first):
      break
  return first


# How often FineWeb-2 repeats a document by the size of its cluster, from sizes of so many on (misc/rehydration/README.md in
# github.com/huggingface/fineweb-2): what many sites copied is good text, until it is what a thousand of them have.
REHYDRATION = {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}


def repeats(cluster_size: int) -> int:
  """How often a document is repeated that stands for a cluster of so many."""
  return next(times for size, times in sorted(REHYDRATION.items(), reverse=True) if cluster_size >= size)
