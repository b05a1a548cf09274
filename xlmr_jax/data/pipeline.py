"""From rows to batches with tf.data: positions, rows and masks, in order, ahead of the step that needs them.

A batch is a function of (seed, step): to start at step 10^6 is to start at step 0 with another number. Where a run went past
batches, it is a function of (seed, step, skips).
"""

import atexit
import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from xlmr_jax.data.masking import mask_rows
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.rows import RowStore
from xlmr_jax.ids import PAD

Batch = dict[str, np.ndarray]
Skips = Sequence[tuple[int, int]]  # (step, batches): from this step on, so many batches are left out

# Rows that one call reads. A call of the ArrayRecord reader has a fixed cost per file, which many rows share.
_ROWS_PER_READ = 2048
_ROWS_LOOKED_AHEAD = 65536  # of a host, whose files are brought first from a bucket


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSpec:
  """What a batch holds, apart from its step.

  batch_rows: B, the rows of a batch on all hosts together.
  host_rows: int64[b], the positions in [0, B) of this host's rows, each once, in any order, which is the order that the
    host gets them in. None stands for all rows.
  slots: P, the prediction slots per row (masking.slots_per_row).
  seed: of the masks.
  mask_share: the share of a row's pieces that is masked.
  Raises ValueError: host_rows is empty, or holds a position twice or outside the batch.
  """

  batch_rows: int
  host_rows: np.ndarray | None
  slots: int
  seed: int
  mask_share: float = 0.15

  def __post_init__(self) -> None:
    positions = self.positions
    if positions.ndim != 1 or not len(positions) or len(np.unique(positions)) < len(positions):
      raise ValueError(f"host_rows must be positions of rows, each once, not {self.host_rows}")
    if positions.min() < 0 or positions.max() >= self.batch_rows:
      raise ValueError(f"host_rows {self.host_rows} lie outside a batch of {self.batch_rows} rows")

  @property
  def positions(self) -> np.ndarray:
    """host_rows, int64[b], with None replaced by all positions of the batch."""
    return np.asarray(np.arange(self.batch_rows) if self.host_rows is None else self.host_rows, np.int64)


# --- which batch a step gets ---------------------------------------------------------------------------------------


def data_step(step: int, skips: Skips = ()) -> int:
  """The number of the batch that a step gets: the step itself, and all that was skipped at or before it."""
  return step + sum(batches for at, batches in skips if at <= step)


def data_ranges(start: int, stop: int, skips: Skips = ()) -> list[tuple[int, int]]:
  """The batches of steps [start, stop) as ranges [first, end) of their numbers, in order."""
  cuts = [start, *sorted({at for at, _ in skips if start < at < stop}), stop]
  return [(data_step(a, skips), data_step(a, skips) + b - a) for a, b in itertools.pairwise(cuts) if a < b]


def epochs_read(mixture: Mixture, batch_rows: int, step: int, skips: Skips = ()) -> np.ndarray:
  """How many epochs of each language the batches of steps [0, step) hold: float64[G]."""
  ranges = [(first * batch_rows, end * batch_rows) for first, end in data_ranges(0, step, skips)]
  epochs = [mixture.epochs(end) - mixture.epochs(first) for first, end in ranges]
  return np.sum(epochs, axis=0) if epochs else np.zeros(len(mixture.counts))


# --- batches -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def train_batches(
  store: RowStore, mixture: Mixture, spec: BatchSpec, start_step: int, skips: Skips = (), prefetch: int = 2
) -> Iterator[Iterator[Batch]]:
  """This host's rows of the batches of steps start_step, start_step + 1, ... without end.

  Step s holds the positions [d * B, (d + 1) * B) of the mixture, where d is data_step(s, skips). Yields an iterator of
  {"ids" int32[b, L], "positions" int32[b, P], "labels" int32[b, P], "weights" float32[b, P], "language" int32[b]}; the
  arrays are read-only. Leaving the context ends the iterator, because a tf.data iterator that is still alive can hang the
  interpreter at its exit.
  """

  def read(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    language, row, _ = mixture.locate(positions)
    return store.read("train", language, row), language

  ranges = data_ranges(start_step, 2**61, skips)
  if store.cache:
    store.cache.bring(_files_in_order(store, mixture, spec, ranges[0][0]))
  with _batches(read, store, spec, ranges, prefetch) as batches:
    yield batches


def _files_in_order(store: RowStore, mixture: Mixture, spec: BatchSpec, first: int) -> list[str]:
  """All files of the store's train rows; those that this host's batches from number `first` on need come first, in order."""
  batches = first + np.arange(max(1, _ROWS_LOOKED_AHEAD // len(spec.positions)))
  language, row, _ = mixture.locate((batches[:, None] * spec.batch_rows + spec.positions).ravel())
  every = [name for name in sorted(store.manifest["files"]) if name.split("/")[1] in store.languages]
  return list(dict.fromkeys([*store.files_of("train", language, row), *every]))


@contextlib.contextmanager
def held_out_batches(
  store: RowStore, spec: BatchSpec, *, split: str = "held_out", max_rows_per_language: int | None = None, prefetch: int = 2
) -> Iterator[Iterator[Batch]]:
  """One pass over the rows of a split, one language after another, in batches like those of train_batches.

  Every pass gives the same batches. The last one is filled up with rows of <pad>, which have weight 0 and language 0.
  max_rows_per_language: only so many rows of each language; all by default.
  """
  counts = store.counts(split)
  if max_rows_per_language is not None:
    counts = np.minimum(counts, max_rows_per_language)
  ends = np.cumsum(counts)
  total = int(counts.sum())

  def read(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_real = positions < total
    real = positions[is_real]
    language = np.zeros(len(positions), np.int32)
    ids = np.full((len(positions), store.seq_len), PAD, np.int32)
    if real.size:
      language[is_real] = np.searchsorted(ends, real, side="right")
      row = real - (ends - counts)[language[is_real]]
      ids[is_real] = store.read(split, language[is_real], row)
    return ids, language

  with _batches(read, store, spec, [(0, -(-total // spec.batch_rows))], prefetch) as batches:
    yield batches


def load_libraries() -> None:
  """Imports what batches are made with. It takes seconds, in which a start can do other things."""
  import tensorflow  # noqa: F401


@contextlib.contextmanager
def _batches(
  read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
  store: RowStore,
  spec: BatchSpec,
  ranges: list[tuple[int, int]],
  prefetch: int,
) -> Iterator[Iterator[Batch]]:
  """The tf.data program of both over ranges of batches. read: positions int64[n] -> (ids int32[n, L], language int32[n])."""
  import tensorflow as tf

  tf.config.set_visible_devices([], "GPU")
  raised: list[Exception] = []
  host_rows = spec.positions

  def read_or_keep(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
      return read((steps[:, None] * spec.batch_rows + host_rows).ravel())
    except Exception as error:  # tf.data would pass on only its text.
      raised.append(error)
      raise

  def read_steps(steps: Any) -> tuple[Any, Any, Any]:
    ids, language = tf.numpy_function(read_or_keep, [steps], (tf.int32, tf.int32), stateful=False)
    shape = [-1, len(host_rows)]
    return steps, tf.reshape(ids, [*shape, store.seq_len]), tf.reshape(language, shape)

  def mask(step: Any, ids: Any, language: Any) -> dict[str, Any]:
    batch = mask_rows(
      ids,
      step * spec.batch_rows,
      seed=spec.seed,
      vocabulary_size=store.vocabulary_size,
      mask=store.mask_id,
      no_pieces=store.no_pieces,
      slots=spec.slots,
      mask_share=spec.mask_share,
      offsets=host_rows,
    )
    return {**batch, "language": language}

  cores = os.cpu_count() or 1
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False  # It has nothing to tune here, and it takes a thread.
  # One thread per operation: several batches are masked side by side, rather than several operations of one batch.
  options.threading.private_threadpool_size = cores
  options.threading.max_intra_op_parallelism = 1
  numbers = tf.data.Dataset.range(*ranges[0])
  for more in ranges[1:]:
    numbers = numbers.concatenate(tf.data.Dataset.range(*more))
  dataset = (
    numbers.batch(max(1, _ROWS_PER_READ // len(host_rows)))
    .map(read_steps, num_parallel_calls=2)
    .unbatch()
    .map(mask, num_parallel_calls=cores)
    .prefetch(prefetch)
    .with_options(options)
  )

  def batches(
    iterator: Iterator[Any],
  ) -> Generator[Batch, None, None]:  # Only this generator's frame holds the tf.data iterator.
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
