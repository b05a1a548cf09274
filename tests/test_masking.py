import numpy as np
import pytest

from xlmr_jax.data.masking import mask_rows, slots_per_row
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE, PAD, UNK

VOCABULARY = 250_002
MASK = VOCABULARY - 1


def make_rows(n, seq_len=512, seed=0, vocabulary=VOCABULARY):
  """Rows of several documents, some <unk>, the last tenth of every second row <pad>."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(FIRST_PIECE, vocabulary - 1, (n, seq_len), np.int32)
  ids[rng.random(ids.shape) < 0.01] = UNK
  ids[:, 0], ids[:, -1] = BOS, EOS
  ids[:, seq_len // 3], ids[:, seq_len // 3 + 1] = EOS, BOS
  ids[::2, -seq_len // 10 :] = PAD
  return ids


def mask(ids, first=0, seed=7, vocabulary=VOCABULARY, slots=None, **shares):
  import tensorflow as tf

  slots = slots or slots_per_row(ids.shape[1], shares.get("mask_share", 0.15))
  first = tf.constant(first, tf.int64)
  out = mask_rows(tf.constant(ids), first, seed=seed, vocabulary_size=vocabulary, slots=slots, **shares)
  return {key: value.numpy() for key, value in out.items()}


def within(seen, trials, share, sigmas=5):
  return abs(seen - trials * share) < sigmas * np.sqrt(trials * share * (1 - share))


@pytest.fixture(scope="module")
def many():
  ids = make_rows(3000)
  return ids, mask(ids)


def test_slots():
  assert [slots_per_row(n) for n in (512, 128, 64, 8)] == [80, 24, 16, 8]
  assert slots_per_row(512, 0.4) == 208


def test_shapes_and_unused_slots(many):
  ids, out = many
  assert {key: (value.shape, value.dtype.name) for key, value in out.items()} == {
    "ids": (ids.shape, "int32"),
    "positions": ((3000, 80), "int32"),
    "labels": ((3000, 80), "int32"),
    "weights": ((3000, 80), "float32"),
  }
  used = out["weights"] == 1
  assert set(np.unique(out["weights"])) == {0, 1}
  assert np.all(out["positions"][~used] == 0) and np.all(out["labels"][~used] == PAD)
  counts = used.sum(1)
  assert np.array_equal(used, np.arange(80) < counts[:, None])  # used ones first
  assert np.all(np.diff(out["positions"])[used[:, 1:]] > 0)  # ascending, so no position twice


def test_labels_are_the_old_ids_and_nothing_else_changes(many):
  ids, out = many
  row, slot = np.nonzero(out["weights"])
  at = out["positions"][row, slot]
  assert np.array_equal(out["labels"][row, slot], ids[row, at])
  restored = out["ids"].copy()
  restored[row, at] = out["labels"][row, slot]
  assert np.array_equal(restored, ids)


def test_specials_and_pads_never(many):
  _, out = many
  assert out["labels"][out["weights"] == 1].min() >= FIRST_PIECE


def test_the_count_is_the_share_rounded_at_random(many):
  ids, out = many
  eligible = (ids >= FIRST_PIECE).sum(1)
  counts, exact = out["weights"].sum(1), 0.15 * eligible
  assert np.all((counts == np.floor(exact)) | (counts == np.ceil(exact)))
  rounding = np.sqrt(np.sum((exact % 1) * (1 - exact % 1)))
  assert abs(counts.sum() - exact.sum()) < 5 * rounding


@pytest.mark.parametrize("pieces", [0, 1, 2, 5])
def test_rows_with_almost_nothing_in_them(pieces):
  ids = np.full((4000, 16), PAD, np.int32)
  ids[:, 0] = BOS
  ids[:, 1 : 1 + pieces] = 77
  ids[:, 1 + pieces] = EOS
  counts = mask(ids)["weights"].sum(1)
  assert counts.max() <= np.ceil(0.15 * pieces)
  assert pieces == 0 or within(counts.sum(), 4000, 0.15 * pieces)


def test_a_row_may_begin_with_a_piece():
  ids = np.full((2000, 8), 77, np.int32)
  out = mask(ids, mask_share=0.5)
  row, slot = np.nonzero(out["weights"])
  assert np.array_equal(np.unique(out["positions"][row, slot]), np.arange(8))
  untouched = np.ones_like(ids, bool)
  untouched[row, out["positions"][row, slot]] = False
  assert np.all(out["ids"][untouched] == 77)


def test_everything_masked():
  ids = make_rows(50, 64)
  out = mask(ids, mask_share=1.0, replace_share=1.0, random_share=0.0)
  assert np.array_equal(out["ids"], np.where(ids >= FIRST_PIECE, MASK, ids))


def test_eighty_ten_ten(many):
  ids, out = many
  row, slot = np.nonzero(out["weights"])
  at = out["positions"][row, slot]
  old, new = ids[row, at], out["ids"][row, at]
  masked, kept = new == MASK, new == old
  assert within(masked.sum(), len(at), 0.8) and within(kept.sum(), len(at), 0.1)
  assert within((~masked & ~kept).sum(), len(at), 0.1)


@pytest.mark.parametrize("mask_id, no_pieces", [(None, ()), (4, (5, 38, 39))])
def test_replacements_are_real_pieces_all_as_likely(mask_id, no_pieces):
  vocabulary = 40
  ids = make_rows(2000, 128, vocabulary=vocabulary)
  out = mask(ids, vocabulary=vocabulary, replace_share=0.0, random_share=1.0, mask=mask_id, no_pieces=no_pieces)
  row, slot = np.nonzero(out["weights"])
  new = out["ids"][row, out["positions"][row, slot]]
  never = [*range(FIRST_PIECE), 39 if mask_id is None else mask_id, *no_pieces]
  seen = np.bincount(new, minlength=vocabulary)
  assert seen[never].sum() == 0 and len(seen) == vocabulary
  seen = np.delete(seen, never)
  chi2 = ((seen - seen.mean()) ** 2 / seen.mean()).sum()
  assert chi2 < len(seen) - 1 + 5 * np.sqrt(2 * len(seen))


def test_special_tokens_that_were_added_are_no_targets():
  """They stand in texts, and neither count for the share nor are chosen; without such tokens nothing changes."""
  ids, special = make_rows(400, 128), np.arange(1000, 2000)
  ids[:, 5:9] = special[:4]  # tokens of the text itself
  out = mask(ids, no_pieces=special, mask_share=0.4)
  row, slot = np.nonzero(out["weights"])
  assert not np.isin(out["labels"][row, slot], special).any()
  at = np.isin(ids, special)
  assert at.sum() >= 1600 and np.array_equal(out["ids"][at], ids[at])
  eligible = ((ids >= FIRST_PIECE) & ~at).sum(1)
  assert np.all(np.abs(out["weights"].sum(1) - 0.4 * eligible) < 1)
  plain = make_rows(50, 128)
  plain[plain == 7] = 8
  for name, value in mask(plain, random_share=0.0).items():
    np.testing.assert_array_equal(mask(plain, random_share=0.0, no_pieces=(7,))[name], value)


def test_a_mask_that_is_not_the_last_entry():
  ids = make_rows(50, 64, vocabulary=40)
  out = mask(ids, vocabulary=40, replace_share=1.0, random_share=0.0, mask=4)
  row, slot = np.nonzero(out["weights"])
  assert len(row) and set(out["ids"][row, out["positions"][row, slot]]) == {4}


def test_every_position_and_pair_is_as_likely():
  ids = np.full((20_000, 32), 77, np.int32)
  out = mask(ids, mask_share=0.25)
  chosen = np.zeros(ids.shape)
  row, slot = np.nonzero(out["weights"])
  chosen[row, out["positions"][row, slot]] = 1
  pairs = chosen.T @ chosen
  assert all(within(pairs[i, i], 20_000, 8 / 32) for i in range(32))
  others = pairs[np.triu_indices(32, 1)]  # without replacement: both of a pair with 8/32 x 7/31
  assert all(within(seen, 20_000, 8 / 32 * 7 / 31) for seen in others)


@pytest.mark.parametrize("first", [0, 2**50 + 12345])
def test_a_row_has_the_same_mask_in_every_batch(first):
  ids = make_rows(60, 128)
  whole = mask(ids, first)
  for start, end in ((0, 1), (59, 60), (7, 31), (16, 48)):
    part = mask(ids[start:end], first + start)
    for key in whole:
      assert whole[key][start:end].tobytes() == part[key].tobytes(), (key, start, end)


def test_another_position_or_seed_another_mask():
  row = make_rows(1)
  out = mask(np.repeat(row, 500, axis=0))
  assert len({positions.tobytes() for positions in out["positions"]}) == 500
  assert not np.array_equal(mask(row)["positions"], mask(row, seed=8)["positions"])
  assert np.array_equal(mask(row)["positions"], mask(row)["positions"])


def test_neighbours_are_independent():
  """How often two successive positions choose the same token: as chance would."""
  out = mask(np.full((4000, 64), 77, np.int32), mask_share=0.25)
  chosen = np.zeros((4000, 64))
  row, slot = np.nonzero(out["weights"])
  chosen[row, out["positions"][row, slot]] = 1
  both = (chosen[:-1] * chosen[1:]).sum()
  assert within(both, 3999 * 64, 1 / 16)


def test_refuses_too_few_slots():
  with pytest.raises(ValueError, match="72 slots"):
    mask(make_rows(2), slots=72)
  with pytest.raises(ValueError, match="no shares"):
    mask(make_rows(2), replace_share=0.95)
