import numpy as np
import pytest

from xlmr_jax.data.mixture import Mixture, Unread, smoothed_shares
from xlmr_jax.errors import UserError

# Words of text in millions, CC-100's 100 languages (Conneau et al. 2020, table 6; sv, uk as corrected since).
# fmt: off
CC100 = np.array([
  55608, 24757, 23408, 22704, 13259, 12950, 10354, 10297, 9780, 9374, 8494, 8405, 7823, 7807, 6960,
  6730, 6490, 5644, 5487, 5025, 4983, 4285, 3525, 3399, 3297, 2869, 2736, 2498, 1835, 1834, 1752,
  1715, 1669, 1318, 1198, 918, 843, 843, 783, 730, 595, 556, 530, 525, 505, 495, 476, 469, 449, 421,
  390, 362, 313, 275, 270, 259, 249, 248, 243, 242, 237, 176, 175, 169, 157, 141, 140, 96, 94, 91, 88,
  86, 85, 77, 68, 68, 66, 62, 56, 56, 50, 39, 36, 36, 36, 34, 29, 27, 25, 24, 21, 17, 17, 16, 15, 14,
  13, 10, 8, 5,
])
# fmt: on


def check_epochs(counts, language, row, epoch):
  """No row twice in an epoch; every row once in every epoch that is over."""
  assert np.all((row >= 0) & (row < counts[language]))
  seen = epoch * counts.sum() + (np.cumsum(counts) - counts)[language] + row
  assert np.unique(seen).size == seen.size
  for l, count in enumerate(counts):
    per_epoch = np.bincount(epoch[language == l])
    assert np.all(per_epoch[:-1] == count)  # distinct rows, as many as there are: each once


@pytest.mark.parametrize("alpha", [0.0, 0.3, pytest.param(1.0, marks=pytest.mark.slow)])
def test_a_hundred_languages_as_unequal_as_cc100(alpha):
  assert len(CC100) == 100 and CC100.max() / CC100.min() > 10_000
  mixture = Mixture(CC100, alpha, seed=1)
  blocks = max(1, 2**18 // mixture.block_rows)
  language, row, epoch = mixture.locate(np.arange(blocks * mixture.block_rows))
  for block in language.reshape(blocks, -1):
    assert np.array_equal(np.bincount(block, minlength=100), mixture.quotas)
  check_epochs(CC100, language, row, epoch)
  assert epoch[language == 99].max() >= 3


def test_shares_and_quotas():
  for alpha in (0.0, 0.3, 0.7, 1.0):
    shares = smoothed_shares(CC100, alpha)
    assert shares.sum() == pytest.approx(1)
    wanted = [(n / CC100.sum()) ** alpha for n in CC100]
    assert shares == pytest.approx(np.array(wanted) / sum(wanted))
    mixture = Mixture(CC100, alpha, seed=0)
    assert mixture.quotas.sum() == mixture.block_rows and mixture.quotas.min() >= 16
    assert np.abs(mixture.quotas - shares * mixture.block_rows).max() < 1
    smaller = mixture.block_rows // 2
    assert mixture.block_rows == 8192 or shares.min() * smaller < 16
  assert Mixture([5, 3, 2], 1.0, 0, block_rows=10).quotas.tolist() == [5, 3, 2]
  assert Mixture([1, 1, 1], 1.0, 0, block_rows=10).quotas.tolist() == [4, 3, 3]


@pytest.mark.parametrize("counts", [[1], [1, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9], [2, 1000], [16, 64, 256]])
def test_small_worlds_whole(counts):
  counts = np.array(counts)
  for seed in range(5):
    mixture = Mixture(counts, 0.5, seed, block_rows=37)
    language, row, epoch = mixture.locate(np.arange(37 * 200))
    check_epochs(counts, language, row, epoch)
    assert set(language) == set(range(len(counts)))


@pytest.mark.parametrize("counts", [[100, 4000, 90_000], [3, 70, 100_000]])
def test_an_epoch_shorter_than_a_block_comes_to_its_end_before_the_next_begins(counts):
  """By arrival, not by number alone: otherwise a row of a small language comes back after a moment."""
  counts = np.array(counts)
  mixture = Mixture(counts, 0.3, seed=2)
  positions = np.arange(6 * mixture.block_rows)
  language, row, epoch = mixture.locate(positions)
  assert mixture.quotas[1] > counts[1] / 40
  for l in (0, 1):
    rows, epochs = row[language == l], epoch[language == l]
    assert np.all(np.diff(epochs) >= 0)
    per_epoch = rows[: len(rows) // counts[l] * counts[l]].reshape(-1, counts[l])
    assert np.array_equal(np.sort(per_epoch, axis=1), np.tile(np.arange(counts[l]), (len(per_epoch), 1)))
  if counts[1] == 4000:  # Of two shuffled epochs, 0.5 % of the rows come again within a tenth of one.
    arrival = np.argsort(per_epoch, axis=1)
    gaps = (arrival[1:] - arrival[:-1] + counts[1]) / counts[1]
    assert (gaps < 0.1).mean() < 0.01
  part = np.random.default_rng(0).permutation(positions)[:1000]
  for whole, alone in zip((language, row, epoch), mixture.locate(part)):
    np.testing.assert_array_equal(whole[part], alone)


def test_any_position_alone_in_any_order_and_far_away():
  mixture = Mixture(CC100, 0.3, seed=3)
  far = 2**50 // mixture.block_rows * mixture.block_rows
  for first in (0, far):
    positions = first + np.arange(2 * mixture.block_rows)
    language, row, epoch = mixture.locate(positions)
    order = np.random.default_rng(0).permutation(len(positions))[:500]
    for wanted, got in zip((language, row, epoch), mixture.locate(positions[order])):
      assert np.array_equal(wanted[order], got)
    for block in language.reshape(2, -1):
      assert np.array_equal(np.bincount(block, minlength=100), mixture.quotas)
    for l in range(100):  # the block's rows of a language are ordinals [block * quota, ...)
      ordinals = first // mixture.block_rows * int(mixture.quotas[l]) + np.arange(2 * mixture.quotas[l])
      assert np.array_equal(np.sort(epoch[language == l]), ordinals // CC100[l])
    assert np.unique(np.stack([language, epoch, row]), axis=1).shape[1] == len(positions)


def scalar_permute(index, size, key):
  """The permutation in Python's whole numbers, one index at a time."""
  word = 2**64 - 1

  def mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & word
    x = (x ^ x >> 27) * 0x94D049BB133111EB & word
    return x ^ x >> 31

  bits = (size - 1).bit_length()
  low_bits = bits - bits // 2
  while True:
    low, high = index % 2**low_bits, index >> low_bits
    for round in range(8):
      salt = key + round * 0x9E3779B97F4A7C15 & word
      if round % 2:
        high ^= mix(low ^ salt) % 2 ** (bits // 2)
      else:
        low ^= mix(high ^ salt) % 2**low_bits
    index = high << low_bits | low
    if index < size:
      return index


def test_the_permutation_equals_a_scalar_reference():
  from xlmr_jax.data.mixture import _permute

  rng = np.random.default_rng(0)
  size = np.concatenate([np.arange(65, 300), 2 ** np.arange(8, 41), 2 ** np.arange(8, 41) + 1])
  index, key = rng.integers(0, size), rng.integers(0, 2**64, len(size), np.uint64)
  wanted = [scalar_permute(int(i), int(n), int(k)) for i, n, k in zip(index, size, key)]
  assert _permute(index, size, key).tolist() == wanted


def test_orders_differ_by_seed_block_language_and_epoch():
  counts = np.array([100, 100])
  mixture = Mixture(counts, 1.0, 0, block_rows=200)
  language, row, epoch = mixture.locate(np.arange(800))  # here a block is an epoch
  blocks = language.reshape(4, 200)
  assert len({tuple(block) for block in blocks}) == 4
  within = mixture._slots(np.arange(800))[2]  # the order inside the epoch, without that of the block
  rows = np.zeros((2, 4, 100), np.int64)
  rows[language, epoch, within] = row
  assert len({tuple(order) for order in rows.reshape(8, 100)}) == 8
  other, other_row, _ = Mixture(counts, 1.0, 1, block_rows=200).locate(np.arange(200))
  assert not np.array_equal(other, blocks[0]) and not np.array_equal(other_row, row[:200])


@pytest.mark.parametrize("size", [2, 10, 65, *(pytest.param(size, marks=pytest.mark.slow) for size in (3, 5, 33, 70))])
def test_every_order_is_as_likely(size):
  """Which row opens an epoch, which ends it, and which two are first: uniform over epochs, by chi-square."""
  from xlmr_jax.data.mixture import _permute

  trials = 200_000
  key = Mixture([size], 1.0, seed=9, block_rows=size)._key(2, np.zeros(trials, np.int64), np.arange(trials))
  first, second, last = (_permute(np.full(trials, i), np.full(trials, size), key) for i in (0, 1, size - 1))
  pairs = np.bincount(first * size + second, minlength=size**2)[~np.eye(size, dtype=bool).ravel()]
  for seen in (np.bincount(first, minlength=size), np.bincount(last, minlength=size), pairs):
    expected = trials / len(seen)
    freedom = len(seen) - 1
    chi2 = ((seen - expected) ** 2 / expected).sum()
    assert chi2 < freedom + 6 * np.sqrt(2 * freedom) + 12, (seen, expected)


@pytest.mark.parametrize("position", [0, 1, 8191, 8192, 100_000])
def test_epochs_consumed(position):
  mixture = Mixture(CC100, 0.3, seed=5)
  language, _, _ = mixture.locate(np.arange(position))
  assert mixture.epochs(position) == pytest.approx(np.bincount(language, minlength=100) / CC100, abs=1e-12)


def test_rows_are_counted_in_any_order_and_in_parts(monkeypatch):
  """A log line asks for a little more than the one before it, a resumed run for less; and a block may be large."""
  monkeypatch.setattr("xlmr_jax.data.mixture._COUNTED_AT_ONCE", 1000)
  mixture = Mixture(CC100, 0.3, seed=5)
  language = mixture.locate(np.arange(3 * mixture.block_rows))[0]
  for position in (10, 5000, 5000, 7000, 6999, 0, 2 * mixture.block_rows + 1500, mixture.block_rows, 8000):
    np.testing.assert_array_equal(mixture.rows(position), np.bincount(language[:position], minlength=100))


def unread_at_once(mixture, position):
  """What Mixture.unread_after() gives, of the whole rest of the block in one piece."""
  blocks, rest = divmod(position, mixture.block_rows)
  _, language, within = mixture._slots(blocks * mixture.block_rows + np.arange(rest))
  nothing = [np.empty(0, np.int64)] * len(mixture.counts)
  before = mixture._unread or Unread.from_parts(nothing, np.zeros(len(mixture.counts), np.int64))
  parts, following = [], []
  for l, quota in enumerate(mixture.quotas.tolist()):
    in_block = np.arange(quota if rest else 0)
    unread = blocks * quota + np.setdiff1d(in_block, within[language == l])
    ours = before.left[before.starts[l] : before.starts[l + 1]]
    end = blocks * quota + len(in_block)
    parts.append(np.concatenate([before.nth(np.full_like(unread, l), unread), ours[end:]]))
    following.append(int(before.following[l]) + max(end - len(ours), 0))
  return Unread.from_parts(parts, following)


@pytest.mark.parametrize("counts", [np.array([16, 64, 256]), CC100])
def test_what_is_unread_is_counted_in_parts(monkeypatch, counts):
  """Over three mixtures, each of which goes on where the one before was left, also within its block."""
  monkeypatch.setattr("xlmr_jax.data.mixture._COUNTED_AT_ONCE", 1000)
  rng, unread = np.random.default_rng(0), None
  for number, alpha in enumerate((0.3, 0.7, 0.0)):
    among = rng.random(len(counts)) < 0.7
    among[0] = True
    mixture = Mixture(counts, alpha, 5, among=among, unread=unread, number=number)
    block = mixture.block_rows
    for position in (0, 1, block // 2, block // 2 + 1, block - 1, block, int(rng.integers(block, 2 * block))):
      unread = mixture.unread_after(position)
      for a, b in zip(unread, unread_at_once(mixture, position)):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.int64


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan")])
def test_refuses_alpha_outside(alpha):
  with pytest.raises(UserError, match="alpha is"):
    smoothed_shares(CC100, alpha)


def test_names_the_language_without_rows_or_without_a_quota():
  with pytest.raises(UserError, match="no rows in sw, yo"):
    Mixture([5, 0, 0], 0.3, 0, languages=("en", "sw", "yo"))
  with pytest.raises(UserError, match="no rows in language 1"):
    smoothed_shares([5, 0], 0.3)
  with pytest.raises(UserError, match=r"too few for a row of sw.* at least 101"):
    Mixture([100, 1], 1.0, 0, block_rows=10, languages=("en", "sw"))
