"""How fast rows become masked batches: all of train_batches, over a store of synthetic rows in many languages.

    python -m benchmarks.input --seq_len=512 --languages=100 --vocab=250002
    python -m benchmarks.input --batch_rows=256 --step_ms=300      # or --tokens_per_s=400000: beside a device as fast
    python -m benchmarks.input --mask_unit=word                    # or span: whole words, of 1.4 pieces in the mean
    python -m benchmarks.input --store=ROWS --write=FILE.npz       # batches for benchmarks.step --batches

The last line is JSON. tokens_per_s counts every token of a row. Each stage is measured alone, called by one thread.
share_of_step_percent is how long a loop waits for a batch, if a device takes the given time for each.
work_percent_of_step is how long it takes to make one, if nothing else is done meanwhile.
"""

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.data.mask_units import UNITS
from xlmr_jax.data.masking import mask_rows, slots_per_row
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.pipeline import BatchSpec, train_batches
from xlmr_jax.data.row_manifest import write_manifest
from xlmr_jax.data.rows import RowStore, language_folder, shard_name, write_shard
from xlmr_jax.errors import UserError, run_command
from xlmr_jax.files import sha256_of
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE

FLAGS = flags.FLAGS
flags.DEFINE_integer("seq_len", 512, "tokens per row")
flags.DEFINE_integer("rows", 100_000, "rows in the store, shared out among the languages by a power law")
flags.DEFINE_integer("batch_rows", 256, "rows per batch")
flags.DEFINE_integer("vocab", 250_002, "ids, <pad> and <mask> counted")
flags.DEFINE_integer("languages", 100, "languages")
flags.DEFINE_float("alpha", 0.3, "smoothing of the mixture")
flags.DEFINE_float("seconds", 8, "how long to measure, warm-up not counted")
flags.DEFINE_string("store", None, "a ROWS to read instead of a synthetic one")
flags.DEFINE_float("step_ms", None, "time of a device's step of batch_rows", lower_bound=1e-3)
flags.DEFINE_float("tokens_per_s", None, "a device's rate, instead of step_ms", lower_bound=1e-3)
flags.DEFINE_enum("mask_unit", "piece", UNITS, "what is masked whole; a --store must tell words for word and span")
flags.DEFINE_string("write", None, "only write the first batches to this .npz")
flags.DEFINE_integer("write_batches", 8, "how many of them", lower_bound=1)


def write_store(root: Path, *, seq_len: int, rows: int, vocabulary_size: int, languages: int, words: bool = False) -> None:
  """A store of full rows of two documents each, ids uniform: the worst case for compression. words: tells some."""
  rng = np.random.default_rng(0)
  weights = 1 / np.arange(1, languages + 1) ** 1.2
  counts = np.maximum(1, rows * weights / weights.sum()).astype(int)
  (root / "tokenizer.model").write_bytes(b"synthetic")
  described = {}
  for index, count in enumerate(counts):
    ids = rng.integers(FIRST_PIECE, vocabulary_size - 1, (count, seq_len), np.int32)
    ids[:, [0, seq_len // 2]], ids[:, [seq_len // 2 - 1, -1]] = BOS, EOS
    name = f"l{index:03d}"
    starts = (rng.random(ids.shape) < 0.7) & (ids >= FIRST_PIECE) if words else None
    write_shard(language_folder(root, name) / shard_name("train", 0, 1), ids, starts)
    empty = {"rows": 0, "tokens": 0, "pieces": 0, "bytes": 0, "documents": 0}
    described[name] = {
      "train": {"rows": count, "tokens": ids.size, "pieces": ids.size, "bytes": 4 * ids.size, "documents": 2 * count},
      "held_out": empty,
    }
  write_manifest(
    root, seq_len=seq_len, vocabulary_size=vocabulary_size, held_out_share=0.0, languages=described,
    tokenizer_sha256=sha256_of(root / "tokenizer.model"), word_starts="random" if words else "",
  )  # fmt: skip


def tokens_per_s(work, tokens: int, seconds: float) -> float:
  """Rate of a stage called again and again; the first call only warms up."""
  work()
  start, calls = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    work()
    calls += 1
  return calls * tokens / (time.perf_counter() - start)


def stream_tokens_per_s(stream, batch_tokens: int, seconds: float) -> float:
  """Rate at which a stream gives batches, once it is past what is read ahead."""
  with stream as batches:
    start = time.perf_counter()
    while time.perf_counter() - start < 1.0:
      next(batches)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
      next(batches)
      steps += 1
    return steps * batch_tokens / (time.perf_counter() - start)


def open_mixture(store: RowStore) -> Mixture:
  return Mixture(store.counts("train"), FLAGS.alpha, seed=0, languages=store.languages)


def open_stream(store: RowStore, mixture: Mixture, start_step: int):
  spec = BatchSpec(FLAGS.batch_rows, None, slots_per_row(store.seq_len), seed=0, unit=FLAGS.mask_unit)
  return train_batches(store, mixture, spec, start_step)


def write_batches(store: RowStore, path: Path, count: int) -> dict[str, object]:
  """The first batches of a run with this store, each array [count, rows, ...]."""
  with open_stream(store, open_mixture(store), 0) as batches:
    first = [next(batches) for _ in range(count)]
  with path.open("wb") as file:  # under this name: savez adds an ending
    np.savez_compressed(file, **{name: np.stack([batch[name] for batch in first]) for name in first[0]})
  return {"batches": str(path), "count": count}


def step_seconds(tokens: int) -> float | None:
  """A device's time for a batch of so many tokens, from the flags; None without one. UserError: both are given."""
  if FLAGS.step_ms and FLAGS.tokens_per_s:
    raise UserError("--step_ms and --tokens_per_s: give one of them")
  return FLAGS.step_ms / 1e3 if FLAGS.step_ms else tokens / FLAGS.tokens_per_s if FLAGS.tokens_per_s else None


def waited(stream, step_s: float, seconds: float) -> float:
  """Mean seconds that a loop waits for its next batch, if each step takes step_s on a device and nothing here."""
  took = []
  with stream as batches:
    next(batches)
    while sum(took) + len(took) * step_s < seconds or len(took) < 8:
      time.sleep(step_s)
      start = time.perf_counter()
      next(batches)
      took.append(time.perf_counter() - start)
  return statistics.mean(took)


def measure(store: RowStore) -> dict[str, float | int]:
  import tensorflow as tf

  mixture = open_mixture(store)
  slots = slots_per_row(store.seq_len)
  batch_tokens = FLAGS.batch_rows * store.seq_len
  step_s = step_seconds(batch_tokens)

  def stream(start_step: int):
    return open_stream(store, mixture, start_step)

  with stream(0) as batches:  # the first call of TensorFlow builds its threads: count it for neither
    next(batches)
  first_batch_s = {}
  for step in (0, 1_000_000) * 5:
    start = time.perf_counter()
    with stream(step) as batches:
      next(batches)
      first_batch_s.setdefault(step, []).append(time.perf_counter() - start)

  rate = stream_tokens_per_s(stream(0), batch_tokens, FLAGS.seconds)
  positions = np.arange(2048)
  language, row, _ = mixture.locate(positions)
  ids = tf.constant(store.read("train", language, row)[: FLAGS.batch_rows])
  options = {"seed": 0, "vocabulary_size": store.vocabulary_size, "slots": slots, "unit": FLAGS.mask_unit}
  mask = tf.function(lambda first: mask_rows(ids, first, **options))
  first = tf.constant(0, tf.int64)
  stage, tokens = FLAGS.seconds / 8, positions.size * store.seq_len
  beside = (
    {}
    if step_s is None
    else {
      "step_ms": round(step_s * 1e3, 3),
      "share_of_step_percent": round(100 * waited(stream(0), step_s, FLAGS.seconds) / step_s, 4),
      "work_percent_of_step": round(100 * batch_tokens / rate / step_s, 4),
    }
  )
  return {
    "tokens_per_s": round(rate),
    **beside,
    "locate_tokens_per_s": round(tokens_per_s(lambda: mixture.locate(positions), tokens, stage)),
    "read_tokens_per_s": round(tokens_per_s(lambda: store.read("train", language, row), tokens, stage)),
    "mask_tokens_per_s": round(tokens_per_s(lambda: mask(first), batch_tokens, stage)),
    "first_batch_s_at_step_0": round(statistics.median(first_batch_s[0]), 4),
    "first_batch_s_at_step_1000000": round(statistics.median(first_batch_s[1_000_000]), 4),
  }


def main(argv) -> None:
  del argv
  step_seconds(1)  # refuses before the long part
  folder, words = None, FLAGS.mask_unit != "piece"
  try:
    if FLAGS.store is None:
      folder = Path(tempfile.mkdtemp(prefix="xlmr_input_"))
      write_store(
        folder, seq_len=FLAGS.seq_len, rows=FLAGS.rows, vocabulary_size=FLAGS.vocab, languages=FLAGS.languages, words=words
      )  # fmt: skip
    store = RowStore(FLAGS.store or folder, marks_words=words)
    if FLAGS.write:
      print(json.dumps(write_batches(store, Path(FLAGS.write), FLAGS.write_batches)))
      return
    shape = {
      "seq_len": store.seq_len,
      "batch_rows": FLAGS.batch_rows,
      "vocabulary_size": store.vocabulary_size,
      "languages": len(store.languages),
      "rows": int(store.counts("train").sum()),
    }
    print(json.dumps({**measure(store), **shape}))
  finally:
    if folder is not None:
      shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
  app.run(run_command(main))
