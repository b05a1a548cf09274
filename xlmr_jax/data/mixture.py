"""Which row comes at which position: alpha-smoothed shares and exact quotas in a closed form. NumPy only, no state.

Positions 0, 1, 2, ... number the rows of all batches of a run. They come in blocks of `block_rows`. Every block holds
exactly `quotas[l]` rows of language l, in an order that is permuted by (seed, block). So each position has a language, and
an ordinal among that language's rows. A divmod by the language's rows turns the ordinal into (epoch, index), and a
permutation by (seed, language, epoch) turns the index into a row. Nothing is drawn in sequence, so position 10^9 costs as
much as position 0.

A language with few rows for its quota is numbered in the order of arrival, for which the order of its whole block is made.
Otherwise the end of one of its epochs and the begin of the next would be mixed, and a row come back after a moment.

A mixture may go on where another one, with other shares, was left. It then reads first what that one left unread of its last
block, and then the ordinals behind it, so that the epochs of a language go on over both.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlmr_jax.errors import UserError

_ROUNDS, _SMALL = 8, 64  # With these, positions and pairs of them are uniform by chi-square over 2 million keys.
_GOLDEN = 0x9E3779B97F4A7C15
_ORDER, _ROWS = 1, 2  # The purposes of keys: two permutations must not share a key.
_MIN_BLOCK, _MIN_QUOTA = 8192, 16
# Languages whose epoch has fewer quotas than this are numbered in the order of arrival. In a longer epoch the mixing at its
# ends moves a row by less than a fortieth of it. Larger blocks would take too long, and their rows come back rarely.
_SHORT_EPOCH, _LARGEST_ORDERED_BLOCK = 40, 2**20
_COUNTED_AT_ONCE = 2**20  # positions, of some tens of bytes each while they are counted


def smoothed_shares(counts: np.ndarray, alpha: float, languages: Sequence[str] | None = None) -> np.ndarray:
  """Share of each language among the rows: q_l = n_l^alpha / sum n^alpha (Conneau et al. 2020, section 3).

  counts: int[G], the rows of each language, all > 0; languages: their names, for messages. Returns float64[G] with sum 1.
  Raises UserError: alpha lies outside [0, 1], or a language has no rows.
  """
  counts = np.asarray(counts, np.int64)
  if not 0 <= alpha <= 1:
    raise UserError(f"alpha is {alpha}; it must lie in [0, 1] (0: all languages alike, 1: as the data lies)")
  names = languages if languages is not None else [f"language {i}" for i in range(len(counts))]
  if empty := [str(name) for name, count in zip(names, counts) if count <= 0]:
    raise UserError(f"no rows in {', '.join(empty)}; leave it out or add text")
  weights = (counts / counts.sum()) ** alpha
  return weights / weights.sum()


class Unread(NamedTuple):
  """Which ordinals of each language have not been read yet: some of those below a number, and all from it on."""

  starts: np.ndarray  # int64[G + 1], of each language's part of `left`
  left: np.ndarray  # int64[n], the ordinals below `following` that were not read, ascending in each language
  following: np.ndarray  # int64[G]

  @classmethod
  def from_parts(cls, parts: Sequence[np.ndarray], following: Sequence[int] | np.ndarray) -> "Unread":
    """parts: the ordinals left of each language, ascending. Those that join up with what follows count as following."""
    kept, following = [], np.array(following, np.int64)
    for language, part in enumerate(parts):
      joins = part[::-1] == following[language] - 1 - np.arange(len(part))
      n = len(part) if joins.all() else int(joins.argmin())
      kept.append(part[: len(part) - n])
      following[language] -= n
    starts = np.cumsum([0, *map(len, kept)])
    return cls(starts, np.concatenate(kept).astype(np.int64, copy=False), following)

  def nth(self, language: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The ordinal, int64[m], that is read as the n-th of its language from here on. language, n: int64[m]."""
    first, lengths = self.starts[language], np.diff(self.starts)[language]
    ordinal = self.following[language] + n - lengths
    is_left = n < lengths
    ordinal[is_left] = self.left[(first + n)[is_left]]
    return ordinal


class Mixture:
  """Turns positions into (language, row, epoch), for one choice of (counts, alpha, seed), and of the three of a phase."""

  def __init__(
    self,
    counts: np.ndarray,
    alpha: float,
    seed: int,
    block_rows: int | None = None,
    *,
    languages: Sequence[str] | None = None,
    among: np.ndarray | None = None,
    unread: Unread | None = None,
    number: int = 0,
    parallel: np.ndarray | None = None,
    parallel_share: float = 0.0,
  ):
    """counts: int64[G], the rows of each language; languages: their names, for messages.

    block_rows is by default the smallest power of two, from 8192 on, that gives the rarest language 16 rows. A large block
    costs nothing.
    among: bool[G], the languages that are read; all by default. unread: what earlier mixtures left; everything by default.
    number: of this mixture in its run, so that the orders of two mixtures differ.
    parallel: bool[G], the languages whose rows are pairs of parallel sentences. Where there are both kinds, the pairs have
    the parallel_share of the rows, and alpha shapes the shares within each kind.
    Raises UserError: as smoothed_shares does, or because block_rows is too small for one row of every language.
    """
    self.counts = np.asarray(counts, np.int64)
    chosen = np.flatnonzero(np.ones(len(self.counts), bool) if among is None else among)
    names = [languages[i] if languages is not None else f"language {i}" for i in chosen.tolist()]
    self.shares = np.zeros(len(self.counts))
    pairs = np.zeros(len(chosen), bool) if parallel is None else parallel[chosen]
    if pairs.any() and not pairs.all():
      for kind, share in ((~pairs, 1.0 - parallel_share), (pairs, parallel_share)):
        members = np.flatnonzero(kind).tolist()
        self.shares[chosen[kind]] = share * smoothed_shares(self.counts[chosen[kind]], alpha, [names[i] for i in members])
    else:
      self.shares[chosen] = smoothed_shares(self.counts[chosen], alpha, names)
    least = self.shares[chosen].min()
    if block_rows is None:
      block_rows = _MIN_BLOCK
      while block_rows * least < _MIN_QUOTA:
        block_rows *= 2
    self.block_rows = int(block_rows)
    self.quotas = _largest_remainder(self.shares, self.block_rows)
    if self.quotas[chosen].min() < 1:
      name = names[int(self.shares[chosen].argmin())]
      raise UserError(
        f"block_rows is {block_rows}, too few for a row of {name}, whose share is {least:.2g}; use at least "
        f"{int(np.ceil(1 / least))}"
      )
    self.number, self._unread = number, unread
    self._ends = np.cumsum(self.quotas)
    self._counted = -1, 0, np.zeros(len(self.counts), np.int64)  # block, its first offsets, rows of each language there
    self._is_short = (self.counts < _SHORT_EPOCH * self.quotas) & (self.block_rows <= _LARGEST_ORDERED_BLOCK)
    self._ranks = functools.lru_cache(maxsize=4)(self._ranks_of_block)
    self._seed = _mix(np.array([int(seed) & (2**64 - 1)], np.uint64))

  def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (language int32[n], row of that language int64[n], epoch of that language int64[n]) of positions, int64[n].

    The positions may come in any order.
    """
    block, language, within = self._slots(positions)
    ordinal = block * self.quotas[language] + within
    if self._unread is not None:
      ordinal = self._unread.nth(language, ordinal)
    epoch, index = np.divmod(ordinal, self.counts[language])
    key = self._key(_ROWS, language, epoch)
    return language.astype(np.int32), _permute(index, self.counts[language], key), epoch

  def rows(self, position: int) -> np.ndarray:
    """How many rows of each language the positions [0, position) hold: int64[G]."""
    block, rest = divmod(int(position), self.block_rows)
    known_block, counted, found = self._counted  # A log line asks for a little more than the one before it.
    if known_block != block or counted > rest:
      counted, found = 0, np.zeros(len(self.counts), np.int64)
    while counted < rest:  # In parts, because a block can have more positions than memory.
      offset = np.arange(counted, min(counted + _COUNTED_AT_ONCE, rest))
      language = np.searchsorted(self._ends, self._order(np.full_like(offset, block), offset), side="right")
      found, counted = found + np.bincount(language, minlength=len(self.counts)), int(offset[-1]) + 1
    self._counted = block, counted, found
    return block * self.quotas + found

  def epochs(self, position: int) -> np.ndarray:
    """How many epochs of each language the positions [0, position) hold: float64[G], exact to the row."""
    return self.rows(position) / self.counts

  def unread_after(self, position: int) -> Unread:
    """What is left of each language once the positions [0, position) have been read, and all mixtures before this one."""
    blocks, rest = divmod(int(position), self.block_rows)
    everything = Unread.from_parts([np.empty(0, np.int64)] * len(self.counts), np.zeros(len(self.counts), np.int64))
    before, parts, following = self._unread or everything, [], []
    is_read = self._is_read(blocks, rest) if rest else np.empty(0, bool)
    for l, end in enumerate(self._ends.tolist()):
      quota = int(self.quotas[l])
      first, of_language = blocks * quota, is_read[end - quota : end]
      ours = before.left[before.starts[l] : before.starts[l + 1]]
      after_block = first + len(of_language)  # From this one on, this mixture has read none.
      unread = first + np.flatnonzero(~of_language)
      parts.append(np.concatenate([before.nth(np.full_like(unread, l), unread), ours[after_block:]]))
      following.append(int(before.following[l]) + max(after_block - len(ours), 0))
    return Unread.from_parts(parts, following)

  def _is_read(self, block: int, rest: int) -> np.ndarray:
    """Whether the first `rest` positions of a block hold each of its rows: bool[block_rows], language after language.

    In parts, because a block can have more positions than memory; and by the others where those are fewer.
    """
    is_more = rest > self.block_rows // 2
    is_read = np.full(self.block_rows, is_more)
    counted, end = (rest, self.block_rows) if is_more else (0, rest)
    while counted < end:
      until = min(counted + _COUNTED_AT_ONCE, end)
      _, language, within = self._slots(block * self.block_rows + np.arange(counted, until))
      is_read[(self._ends - self.quotas)[language] + within] = not is_more
      counted = until
    return is_read

  def _slots(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (block, language, index among the block's rows of that language) of positions, int64[n] each."""
    block, offset = np.divmod(np.asarray(positions, np.int64), self.block_rows)
    slot = self._order(block, offset)
    language = np.searchsorted(self._ends, slot, side="right")
    within = slot - (self._ends - self.quotas)[language]
    for one in np.unique(block[self._is_short[language]]):
      ordered = self._is_short[language] & (block == one)
      within[ordered] = self._ranks(int(one))[offset[ordered]]
    return block, language, within

  def _order(self, block: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The slots, int64[n], of offsets in blocks: each language has `quota` slots beside each other."""
    key = self._key(_ORDER, block, np.full_like(block, self.number))
    return _permute(offset, np.full_like(offset, self.block_rows), key)

  def _ranks_of_block(self, block: int) -> np.ndarray:
    """How many rows of its own language come before each offset of a block, int64[block_rows]."""
    offset = np.arange(self.block_rows)
    language = np.searchsorted(self._ends, self._order(np.full_like(offset, block), offset), side="right")
    by_language = np.argsort(language, kind="stable")  # in the order of arrival within each language
    ranks = np.empty_like(offset)
    ranks[by_language] = offset - (self._ends - self.quotas)[language[by_language]]
    return ranks

  def _key(self, purpose: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A key, uint64[n], for each (seed, purpose, a, b); a and b are int64[n]."""
    key = self._seed + np.uint64(purpose * _GOLDEN % 2**64)
    for part in (a, b):
      key = _mix(key ^ _mix(part.astype(np.uint64) + np.uint64(_GOLDEN)))
    return key


def _largest_remainder(shares: np.ndarray, total: int) -> np.ndarray:
  """Whole numbers, int64[G], that sum to `total`; each differs from shares * total by less than one."""
  exact = shares * total
  quotas = np.floor(exact).astype(np.int64)
  by_remainder = np.argsort(quotas - exact, kind="stable")
  quotas[by_remainder[: total - quotas.sum()]] += 1
  return quotas


def _permute(index: np.ndarray, size: np.ndarray, key: np.ndarray) -> np.ndarray:
  """Applies a keyed bijection of [0, size) to each index. index, size: int64[n]; key: uint64[n]. Returns int64[n].

  It is a Feistel network over the next power of two, applied again to what falls outside [0, size) (cycle walking, which
  takes fewer than two passes on average). So it is a bijection whatever the round function is. Up to _SMALL rows are sorted
  by a hash instead, because a network of so few bits does not reach all their orders with the same probability.
  """
  out = np.empty_like(index)
  small = size <= _SMALL
  if small.any():
    hashes = _mix(key[small, None] + np.arange(_SMALL, dtype=np.uint64) * np.uint64(_GOLDEN))
    hashes[np.arange(_SMALL) >= size[small, None]] = np.uint64(2**64 - 1)
    order = np.argsort(hashes, axis=1, kind="stable")
    out[small] = np.take_along_axis(order, index[small, None], axis=1)[:, 0]
  left = np.flatnonzero(~small)
  x, key, size = index[left].astype(np.uint64), key[left], size[left]
  low_bits, high_bits = _halves(size)
  size = size.astype(np.uint64)
  while left.size:
    x = _feistel(x, low_bits, high_bits, key)
    done = x < size
    out[left[done]] = x[done]
    more = ~done
    left, x, size, key = left[more], x[more], size[more], key[more]
    low_bits, high_bits = low_bits[more], high_bits[more]
  return out


def _halves(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The bits of the lower and of the upper half of a number below size, rounded up to a power of two: uint64[n] each."""
  bits = np.frexp((size - 1).astype(np.float64))[1].astype(np.uint64)  # This is exact below 2^53.
  return (bits + np.uint64(1)) >> np.uint64(1), bits >> np.uint64(1)


def _feistel(x: np.ndarray, low_bits: np.ndarray, high_bits: np.ndarray, key: np.ndarray) -> np.ndarray:
  """One pass of the network over numbers of low_bits + high_bits bits, uint64[n] each."""
  one = np.uint64(1)
  low_mask, high_mask = (one << low_bits) - one, (one << high_bits) - one
  low, high = x & low_mask, x >> low_bits
  for round in range(_ROUNDS):
    salt = key + np.uint64(round * _GOLDEN % 2**64)
    if round % 2 == 0:
      low ^= _mix(high ^ salt) & low_mask
    else:
      high ^= _mix(low ^ salt) & high_mask
  return high << low_bits | low


def _mix(x: np.ndarray) -> np.ndarray:
  """splitmix64's finalizer (Steele, Lea and Flood 2014): each bit of the result depends on each bit of x."""
  x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
  return x ^ x >> np.uint64(31)
