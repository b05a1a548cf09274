"""Rows to batches with tf.data: positions -> rows -> masks, in order, ahead of the step that wants them.

A batch is a function of (seed, step): starting at step 10^6 is starting at step 0 with another number.
"""

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator

import numpy as np

from xlmr_jax.data.masking import mask_rows
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tokenizer import PAD

Batch = dict[str, np.ndarray]

# Rows read in one call. A call of the ArrayRecord reader has a fixed price per file: many rows share it.
_ROWS_PER_READ = 2048


@contextlib.contextmanager
def train_batches(
  store: RowStore,
  mixture: Mixture,
  *,
  batch_rows: int,
  start_step: int,
  seed: int,
  slots: int,
  host_rows: slice = slice(None),
  mask_share: float = 0.15,
  prefetch: int = 2,
) -> Iterator[Iterator[Batch]]:
  """Batches of steps start_step, start_step + 1, ... without end; this host's rows of each.

  batch_rows: B, of all hosts together; step s holds the positions [s * B, (s + 1) * B). host_rows: a slice
  of [0, B). Yields an iterator of {"ids" int32[b, L], "positions" int32[b, P], "labels" int32[b, P],
  "weights" float32[b, P], "language" int32[b]}, P = slots; the arrays are read-only. Leaving the context
  ends it: a tf.data iterator that lives on can hang the interpreter at exit.
  """
  first, rows = _host_part(host_rows, batch_rows)

  def read(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions = (steps[:, None] * batch_rows + first + np.arange(rows)).ravel()
    language, row, _ = mixture.locate(positions)
    return store.read("train", language, row), language

  with _batches(
    read, start_step, 2**62, store=store, batch_rows=batch_rows, first=first, rows=rows,
    seed=seed, slots=slots, mask_share=mask_share, prefetch=prefetch,
  ) as batches:  # fmt: skip
    yield batches


@contextlib.contextmanager
def held_out_batches(
  store: RowStore,
  *,
  batch_rows: int,
  seed: int,
  slots: int,
  host_rows: slice = slice(None),
  mask_share: float = 0.15,
  max_rows_per_language: int | None = None,
  split: str = "held_out",
  prefetch: int = 2,
) -> Iterator[Iterator[Batch]]:
  """One pass over the rows of a split, languages in order; batches as of train_batches, the same every time.

  The last batch is filled up with rows of <pad>: weight 0, language 0.
  """
  counts = store.counts(split)
  if max_rows_per_language is not None:
    counts = np.minimum(counts, max_rows_per_language)
  ends = np.cumsum(counts)
  total = int(counts.sum())
  first, rows = _host_part(host_rows, batch_rows)

  def read(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions = (steps[:, None] * batch_rows + first + np.arange(rows)).ravel()
    real = positions[positions < total]
    language = np.zeros(len(positions), np.int32)
    ids = np.full((len(positions), store.seq_len), PAD, np.int32)
    language[positions < total] = np.searchsorted(ends, real, side="right")
    if real.size:
      of = language[positions < total]
      ids[positions < total] = store.read(split, of, real - (ends - counts)[of])
    return ids, language

  with _batches(
    read, 0, -(-total // batch_rows), store=store, batch_rows=batch_rows, first=first, rows=rows,
    seed=seed, slots=slots, mask_share=mask_share, prefetch=prefetch,
  ) as batches:  # fmt: skip
    yield batches


def _host_part(host_rows: slice, batch_rows: int) -> tuple[int, int]:
  """(first row, number of rows) of a host's slice of the batch."""
  first, end, stride = host_rows.indices(batch_rows)
  if stride != 1 or end <= first:
    raise ValueError(f"host_rows {host_rows} is no contiguous part of a batch of {batch_rows} rows")
  return first, end - first


@contextlib.contextmanager
def _batches(
  read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
  start: int,
  stop: int,
  *,
  store: RowStore,
  batch_rows: int,
  first: int,
  rows: int,
  seed: int,
  slots: int,
  mask_share: float,
  prefetch: int,
) -> Iterator[Iterator[Batch]]:
  """The tf.data program of both; read: steps int64[k] -> ids int32[k * rows, L], language int32[k * rows]."""
  import tensorflow as tf

  tf.config.set_visible_devices([], "GPU")
  raised: list[Exception] = []

  def read_or_keep(steps: np.ndarray):
    try:
      return read(steps)
    except Exception as error:  # tf.data would hand on only its text
      raised.append(error)
      raise

  def read_steps(steps):
    ids, language = tf.numpy_function(read_or_keep, [steps], (tf.int32, tf.int32), stateful=False)
    shape = [-1, rows]
    return steps, tf.reshape(ids, [*shape, store.seq_len]), tf.reshape(language, shape)

  def mask(step, ids, language):
    batch = mask_rows(
      ids, step * batch_rows + first, seed=seed, vocabulary_size=store.vocabulary_size, slots=slots,
      mask_share=mask_share,
    )  # fmt: skip
    return {**batch, "language": language}

  cores = os.cpu_count() or 1
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False  # nothing is left to it, and it takes a thread
  options.threading.private_threadpool_size = cores  # one op, one thread: batches, not ops, run side by side
  options.threading.max_intra_op_parallelism = 1
  dataset = (
    tf.data.Dataset.range(start, stop)
    .batch(max(1, _ROWS_PER_READ // rows))
    .map(read_steps, num_parallel_calls=2)
    .unbatch()
    .map(mask, num_parallel_calls=cores)
    .prefetch(prefetch)
    .with_options(options)
  )

  def batches(iterator: Iterator[Batch]) -> Iterator[Batch]:  # its frame alone holds the tf.data iterator
    try:
      yield from iterator
    except Exception:
      if raised:
        raise raised[0] from None
      raise

  with contextlib.closing(batches(dataset.as_numpy_iterator())) as stream:
    atexit.register(stream.close)  # for a context that is never left
    try:
      yield stream
    finally:
      atexit.unregister(stream.close)
