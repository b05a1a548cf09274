import hashlib
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from xlmr_jax.data import rows as rows_module
from xlmr_jax.data.row_manifest import fingerprint, write_manifest
from xlmr_jax.data.rows import RowStore, language_folder, shard_name, write_dataset_info, write_shard
from xlmr_jax.errors import UserError

VOCABULARY = 1000


def make_store(root: Path, shards: dict[str, dict[str, list[int]]], seq_len=16, seed=0) -> dict:
  """A store of random full rows; shards: {language: {split: rows of each shard}}. Returns {(language,
  split): rows}."""
  rng = np.random.default_rng(seed)
  root.mkdir(parents=True, exist_ok=True)
  (root / "tokenizer.model").write_bytes(b"vocabulary")
  held, described = {}, {}
  for language, splits in shards.items():
    described[language] = {}
    for split in ("train", "held_out"):
      lengths = splits.get(split, [])
      rows = rng.integers(4, VOCABULARY - 1, (sum(lengths), seq_len), np.int32)
      rows[:, 0], rows[:, -1] = 0, 2
      held[language, split] = rows
      for i, part in enumerate(np.split(rows, np.cumsum(lengths)[:-1]) if lengths else []):
        write_shard(language_folder(root, language) / shard_name(split, i, len(lengths)), part)
      described[language][split] = {"rows": len(rows), "tokens": rows.size, "pieces": rows.size, "bytes": 9, "documents": 1}
    write_dataset_info(root, language, seq_len, splits)
  write_manifest(
    root, seq_len=seq_len, vocabulary_size=VOCABULARY, held_out_share=0.01, languages=described,
    tokenizer_sha256=hashlib.sha256(b"vocabulary").hexdigest(),
  )  # fmt: skip
  return held


SHARDS = {"sw": {"train": [3], "held_out": [1]}, "en": {"train": [40, 1, 29], "held_out": [2, 2]}, "zh_rom": {"train": [11]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  root = tmp_path_factory.mktemp("store") / "ROWS"
  return root, make_store(root, SHARDS)


@pytest.fixture
def copy(made, tmp_path):
  shutil.copytree(made[0], tmp_path / "ROWS")
  return tmp_path / "ROWS"


def test_reads_what_was_written(made):
  root, held = made
  store = RowStore(root)
  assert store.languages == ("en", "sw", "zh_rom")
  assert (store.seq_len, store.vocabulary_size) == (16, VOCABULARY)
  assert store.counts("train").tolist() == [70, 3, 11] and store.counts("held_out").tolist() == [4, 1, 0]
  for split in ("train", "held_out"):
    counts = store.counts(split)
    language = np.repeat(np.arange(3), counts * 5)
    row = np.concatenate([np.tile(np.arange(n), 5) for n in counts])
    order = np.random.default_rng(1).permutation(len(row))
    wanted = np.stack([held[store.languages[l], split][r] for l, r in zip(language, row)])
    got = store.read(split, language[order], row[order])
    assert got.dtype == np.int32 and np.array_equal(got, wanted[order])
  assert store.read("train", np.zeros(0, int), np.zeros(0, int)).shape == (0, 16)


def test_a_subset_numbers_its_own_languages(made):
  root, held = made
  store = RowStore(root, ["zh_rom", "sw"])
  assert store.languages == ("sw", "zh_rom") and store.counts("train").tolist() == [3, 11]
  got = store.read("train", np.array([1, 0]), np.array([7, 2]))
  assert np.array_equal(got, [held["zh_rom", "train"][7], held["sw", "train"][2]])


@pytest.mark.parametrize("language, row", [(0, 70), (0, -1), (1, 3)])
def test_no_row_of_the_neighbour_is_read(made, language, row):
  with pytest.raises(IndexError):
    RowStore(made[0]).read("train", np.array([language]), np.array([row]))


def test_tfds_opens_and_decodes_the_same(made):
  import tensorflow_datasets as tfds

  root, held = made
  for (language, split), rows in held.items():
    builder = tfds.builder_from_directory(language_folder(root, language))
    if not len(rows):
      assert split not in builder.info.splits
      continue
    source = builder.as_data_source(split=split)
    assert len(source) == len(rows)
    assert np.array_equal([source[i]["tokens"] for i in range(len(source))], rows)


@pytest.mark.parametrize("seq_len", [1, 8, 31, 32, 512, 4096])
def test_the_record_is_tfds_own_serialization(seq_len):
  row = np.random.default_rng(0).integers(0, 250_002, seq_len, np.int32)
  wanted = rows_module.row_features(seq_len).serialize_example({"tokens": row})
  assert rows_module._example_parts(seq_len).prefix + row.tobytes() == wanted


def test_two_builds_are_byte_identical(made, tmp_path):
  make_store(tmp_path, SHARDS)
  files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
  assert len(files) > 10
  for file in files:
    assert (tmp_path / file).read_bytes() == (made[0] / file).read_bytes(), file


def test_threads_may_share_a_store(made):
  root, held = made
  store, wrong = RowStore(root), []

  def work(seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
      row = rng.integers(0, 70, 50)
      if not np.array_equal(store.read("train", np.zeros(50, int), row), held["en", "train"][row]):
        wrong.append(seed)

  threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong


def edit(root: Path, sign: bool = True, **changes):
  manifest = json.loads((root / "manifest.json").read_text()) | changes
  if sign:
    manifest["fingerprint"] = fingerprint(manifest)
  (root / "manifest.json").write_text(json.dumps(manifest))


SHARD = "rows/en/1.0.0/rows-train.array_record-00001-of-00003"


@pytest.mark.parametrize("damage, message", [
  (lambda r: (r / "manifest.json").unlink(), "unfinished"),
  (shutil.rmtree, "no such folder"),
  (lambda r: (r / "manifest.json").write_text("{"), "not JSON"),
  (lambda r: edit(r, format=2), "format 2"),
  (lambda r: edit(r, sign=False, seq_len=8), "edited"),
  (lambda r: edit(r, seq_len=8), r"not int32\[8\]"),
  (lambda r: (r / "tokenizer.model").unlink(), "tokenizer.model: missing"),
  (lambda r: (r / "tokenizer.model").write_bytes(b"other"), "tokenizer.model: sha256"),
  (lambda r: (r / SHARD).unlink(), f"{SHARD}: .*missing"),
  (lambda r: (r / SHARD).write_bytes(b""), f"{SHARD}: no readable"),
  (lambda r: (r / SHARD).write_bytes((r / SHARD).read_bytes()[:-70_000]), f"{SHARD}: no readable"),
  (lambda r: write_shard(r / SHARD, np.full((2, 16), 5, np.int32)), "en/train holds 71 .* says 70"),
])  # fmt: skip
def test_refuses_a_damaged_store(copy, damage, message):
  damage(copy)
  with pytest.raises(UserError, match=message):
    RowStore(copy)


def test_refuses_ids_outside_the_vocabulary(copy):
  write_shard(copy / SHARD, np.full((1, 16), VOCABULARY, np.int32))
  store = RowStore(copy)
  store.read("train", np.array([0]), np.array([39]))
  with pytest.raises(UserError, match=r"en: .*outside \[0, 1000\)"):
    store.read("train", np.array([1, 0]), np.array([0, 40]))


def test_a_flipped_bit_is_named(copy):
  content = bytearray((copy / SHARD).read_bytes())
  content[120] ^= 4  # inside the only record: after the file's and the chunk's headers
  (copy / SHARD).write_bytes(content)
  with pytest.raises(UserError, match=SHARD):
    RowStore(copy).read("train", np.array([0]), np.array([40]))


def test_refuses_another_vocabulary_and_unknown_languages(made):
  with pytest.raises(UserError, match="not 0badc0de"):
    RowStore(made[0], tokenizer_sha256="0badc0de" * 8)
  with pytest.raises(UserError, match="no rows of xx, yy; it holds en, sw, zh_rom"):
    RowStore(made[0], ["yy", "en", "xx"])


def test_refuses_rows_of_another_type(tmp_path):
  with pytest.raises(ValueError, match="int64"):
    write_shard(tmp_path / "x", np.zeros((2, 4), np.int64))
