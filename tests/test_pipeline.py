import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_rows import VOCABULARY, make_store
from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.pipeline import BatchSpec, held_out_batches, train_batches
from xlmr_jax.data.rows import RowStore, language_folder, shard_name, write_shard
from xlmr_jax.errors import UserError
from xlmr_jax.ids import PAD

ROOT = Path(__file__).parents[1]
SHARDS = {
  "en": {"train": [300, 200], "held_out": [13]},
  "sw": {"train": [3], "held_out": [1]},
  "yo": {"train": [40], "held_out": []},
  "zh": {"train": [90], "held_out": [3, 3]},
}
SLOTS = slots_per_row(16)
KEYS = ("ids", "positions", "labels", "weights", "language")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  root = tmp_path_factory.mktemp("pipeline") / "ROWS"
  held = make_store(root, SHARDS)
  store = RowStore(root)
  return store, Mixture(store.counts("train"), 0.5, seed=4, block_rows=256), held


def take(made, steps, start_step=0, batch_rows=16, host_rows=None, seed=11):
  store, mixture, _ = made
  spec = BatchSpec(batch_rows, host_rows, SLOTS, seed)
  with train_batches(store, mixture, spec, start_step) as batches:
    return [next(batches) for _ in range(steps)]


def assert_equal(some, others):
  assert len(some) == len(others)
  for step, (one, other) in enumerate(zip(some, others)):
    for key in KEYS:
      assert one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes(), (step, key)


def test_batches_hold_what_mixture_and_store_say(made, hundred):
  store, mixture, held = made
  batches = hundred[:40]
  shapes = {key: (value.shape, value.dtype.name) for key, value in batches[0].items()}
  assert shapes == {
    "ids": ((16, 16), "int32"),
    "positions": ((16, SLOTS), "int32"),
    "labels": ((16, SLOTS), "int32"),
    "weights": ((16, SLOTS), "float32"),
    "language": ((16,), "int32"),
  }
  language, row, _ = mixture.locate(np.arange(40 * 16))
  assert np.array_equal(np.concatenate([b["language"] for b in batches]), language)
  restored = np.concatenate([b["ids"] for b in batches])
  r, slot = np.nonzero(np.concatenate([b["weights"] for b in batches]))
  at = np.concatenate([b["positions"] for b in batches])[r, slot]
  assert len(at) > 500
  restored[r, at] = np.concatenate([b["labels"] for b in batches])[r, slot]
  wanted = [held[store.languages[l], "train"][i] for l, i in zip(language, row)]
  assert np.array_equal(restored, wanted)


@pytest.fixture(scope="module")
def hundred(made):
  """Whole batches of the first hundred steps."""
  return take(made, 100)


def place(parts, steps):
  """Whole batches from [(positions, batches of a host)]: each row goes where its position says."""
  where = np.argsort(np.concatenate([positions for positions, _ in parts]))
  return [{key: np.concatenate([part[s][key] for _, part in parts])[where] for key in KEYS} for s in range(steps)]


@pytest.mark.parametrize("hosts", [1, 2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_steps_0_to_99_are_the_same_for_any_number_of_hosts(made, hundred, hosts):
  each = np.arange(16).reshape(hosts, -1)
  parts = [(positions, take(made, 100, host_rows=positions)) for positions in each]
  assert all(part[0]["ids"].shape[0] == 16 // hosts for _, part in parts)
  assert_equal(hundred, place(parts, 100))


def test_a_host_may_hold_any_positions_in_any_order(made, hundred):
  whole = hundred[:50]
  order = np.random.default_rng(0).permutation(16)  # many runs of one row
  blocks = np.arange(16).reshape(4, 4)  # as a mesh gives them that follows the interconnect: 0 and 2, 3 and 1
  for split in ((order[:5], order[5:6], order[6:]), (blocks[[0, 2]].ravel(), blocks[[3, 1]].ravel())):
    parts = [(positions, take(made, 50, host_rows=positions)) for positions in split]
    for positions, batches in parts:
      assert_equal([{key: batch[key][positions] for key in KEYS} for batch in whole], batches)
    assert_equal(whole, place(parts, 50))


@pytest.mark.parametrize("start", [1, 37, 1_000_000, 2**40])
def test_a_run_may_start_anywhere(made, start):
  assert_equal(take(made, 40, start_step=start)[7:], take(made, 33, start_step=start + 7))


def test_rows_do_not_depend_on_how_many_are_read_at_once(made, hundred, monkeypatch):
  monkeypatch.setattr("xlmr_jax.data.pipeline._ROWS_PER_READ", 16)
  assert_equal(hundred[:30], take(made, 30))


def test_every_epoch_has_another_mask(made, hundred):
  mixture, batches = made[1], hundred
  language, row, epoch = mixture.locate(np.arange(1600))
  positions = np.concatenate([b["positions"] for b in batches])
  labels = np.concatenate([b["labels"] for b in batches])
  index = np.flatnonzero((language == 1) & (row == 0))
  assert len(index) > 20 and epoch[index].max() > 20
  masks = {positions[i].tobytes() + labels[i].tobytes() for i in index}
  assert len(masks) > len(index) // 2  # of 13 tokens 2 are chosen: some pairs come again


def test_another_seed_another_mask_of_the_same_rows(made):
  one, other = take(made, 1)[0], take(made, 1, seed=12)[0]
  assert np.array_equal(one["language"], other["language"])
  assert not np.array_equal(one["positions"], other["positions"])


@pytest.mark.parametrize(
  "positions, message",
  [([], "each once"), ([3, 4, 3], "each once"), ([[0, 1]], "each once"), ([15, 16], "outside"), ([-1, 0], "outside")],
)
def test_refuses_what_is_no_part_of_the_batch(positions, message):
  with pytest.raises(ValueError, match=message):
    BatchSpec(16, np.array(positions, np.int64), SLOTS, 0)


def held_out(made, batch_rows=8, host_rows=None, **options):
  spec = BatchSpec(batch_rows, host_rows, SLOTS, seed=5)
  with held_out_batches(made[0], spec, **options) as batches:
    return list(batches)


def test_held_out_is_one_pass_in_order(made):
  batches = held_out(made)
  assert len(batches) == 3 and all(b["ids"].shape == (8, 16) for b in batches)
  assert np.concatenate([b["language"] for b in batches]).tolist() == [0] * 13 + [1] + [3] * 6 + [0] * 4
  ids, weights = (np.concatenate([b[key] for b in batches]) for key in ("ids", "weights"))
  assert np.all(ids[20:] == PAD) and np.all(weights[20:] == 0) and np.all(weights[:20].sum(1) >= 1)
  r, slot = np.nonzero(weights)
  at = np.concatenate([b["positions"] for b in batches])[r, slot]
  ids[r, at] = np.concatenate([b["labels"] for b in batches])[r, slot]
  held = made[2]
  assert np.array_equal(ids[:20], np.concatenate([held[name, "held_out"] for name in ("en", "sw", "zh")]))


def test_held_out_masks_never_change(made):
  batches = held_out(made)
  assert_equal(batches, held_out(made))
  for split in ((range(4), range(4, 8)), ([0], [6, 7, 1, 2], [3, 5, 4])):
    parts = [(positions, held_out(made, host_rows=np.array(positions))) for positions in split]
    assert_equal(batches, place(parts, 3))
  wide = held_out(made, batch_rows=24)
  assert_equal(wide, [{key: np.concatenate([b[key] for b in batches]) for key in KEYS}])


def test_held_out_may_be_cut_short(made):
  batches = held_out(made, max_rows_per_language=2)
  assert [b["language"].tolist() for b in batches] == [[0, 0, 1, 3, 3, 0, 0, 0]]


def test_a_damaged_row_is_named(made, tmp_path):
  make_store(tmp_path, SHARDS)
  bad = np.full((3, 16), VOCABULARY + 5, np.int32)
  write_shard(language_folder(tmp_path, "sw") / shard_name("train", 0, 1), bad)
  with pytest.raises(UserError, match=r"sw: .* outside \[0, 1000\)"):
    take((RowStore(tmp_path), made[1], None), 50)


PROGRAM = """
import sys
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.pipeline import BatchSpec, train_batches
from xlmr_jax.data.rows import RowStore
store = RowStore(sys.argv[1])
mixture = Mixture(store.counts("train"), 0.5, 0)
context = train_batches(store, mixture, BatchSpec(64, None, slots=8, seed=0), 0)
if sys.argv[2] == "raise":
  with context as batches:
    next(batches)
    sys.exit(3)
batches = context.__enter__()  # never left: the iterator is alive when the interpreter ends
next(batches)
sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["raise", "live"] * 3)
def test_the_interpreter_ends(made, ending):
  command = [sys.executable, "-c", PROGRAM, str(made[0].root), ending]
  done = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True)
  assert done.returncode == 3, done.stderr
  assert ending == "live" or "Traceback" not in done.stderr
