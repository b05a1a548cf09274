"""From rows to batches with tf.data: positions, rows and masks, in order, ahead of the step that needs them.

A batch is a function of (seed, step): to start at step 10^6 is to start at step 0 with another number. What a run reads over
its phases, and where it went past batches, its Timeline says (timeline.py).
"""

import atexit
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from xlmr_jax.data.masking import mask_rows
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.phases import Phase
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.timeline import Stretch
from xlmr_jax.ids import BOS, EOS, PAD

Batch = dict[str, np.ndarray]

# Rows that one call reads. A call of the ArrayRecord reader has a fixed cost per file, which many rows share.
_ROWS_PER_READ = 2048
_ROWS_LOOKED_AHEAD = 65536  # of a host, whose files are brought first from a bucket
_NO_END = 2**44  # more steps than there will be; their rows still have 64-bit numbers


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSpec:
  """What a batch holds, apart from its step.

  batch_rows: B, the rows of a batch on all hosts together.
  host_rows: int64[b], the positions in [0, B) of this host's rows, each once, in any order, which is the order that the
    host gets them in. None stands for all rows.
  slots: P, the prediction slots per row (masking.slots_per_row).
  seed: of the masks.
  mask_share: the share of a row's pieces that is masked.
  cuts: into how many rows of the batch each row of the store is cut. batch_rows and host_rows count those of the batch.
  unit, span_mean: what is masked whole (mask_units.py); for words and spans the store must mark words.
  Raises ValueError: host_rows is empty, or holds a position twice or outside the batch.
  """

  batch_rows: int
  host_rows: np.ndarray | None
  slots: int
  seed: int
  mask_share: float = 0.15
  cuts: int = 1
  unit: str = "piece"
  span_mean: float = 3.8

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


# --- batches -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def train_batches(
  store: RowStore, mixture: Mixture, spec: BatchSpec, start_step: int, prefetch: int = 2
) -> Iterator[Iterator[Batch]]:
  """This host's rows of the batches of steps start_step, start_step + 1, ... without end, from one mixture.

  Step s holds the positions [s * B, (s + 1) * B) of the mixture. Yields an iterator of
  {"ids" int32[b, L], "positions" int32[b, P], "labels" int32[b, P], "weights" float32[b, P], "language" int32[b]}; the
  arrays are read-only. Leaving the context ends the iterator, because a tf.data iterator that is still alive can hang the
  interpreter at its exit.
  """
  phase = Phase(_NO_END, 0.0, store.languages, spec.mask_share, store.seq_len // spec.cuts, spec.batch_rows)
  whole = Stretch(0, _NO_END, phase, mixture, 0, 0, spec.cuts)
  with stretch_batches(store, [whole], lambda _: spec, start_step, prefetch) as batches:
    yield batches


@contextlib.contextmanager
def stretch_batches(
  store: RowStore, stretches: Sequence[Stretch], spec_of: Callable[[Stretch], BatchSpec], start_step: int, prefetch: int = 2
) -> Iterator[Iterator[Batch]]:
  """This host's rows of the batches of steps start_step, start_step + 1, ... to the end of the stretches.

  Batches are as those of train_batches, and have another shape where a stretch asks for one. spec_of: with the seed of the
  stretch's masks.
  """
  left = [stretch for stretch in stretches if stretch.end > start_step]
  if left:
    spec, step = spec_of(left[0]), max(start_step, left[0].first)
    _bring_files(store, left[0].mixture, spec, left[0].position_at(step) * spec.cuts)

  def open_stretch(stretch: Stretch) -> Any:
    spec, steps = spec_of(stretch), (max(start_step, stretch.first), stretch.end)
    first, end = (stretch.position_at(step) * spec.cuts for step in steps)
    read = functools.partial(_read_train, store, stretch.mixture, spec.cuts)
    return _batches(read, store, spec, (first, end), prefetch)

  def batches(first: Iterator[Batch]) -> Generator[Batch, None, None]:
    yield from first
    for stretch in left[1:]:
      with open_stretch(stretch) as one:
        yield from one

  with open_stretch(left[0]) if left else contextlib.nullcontext(iter(())) as first:
    with contextlib.closing(batches(first)) as stream:
      yield stream


def cut_rows(rows: np.ndarray, cuts: int) -> np.ndarray:
  """Rows, int32[n, L], each as `cuts` rows of L / cuts tokens: int32[n * cuts, L / cuts].

  Every part begins with <s> and ends with </s> or <pad>, as a row of its own would. These take the place of the tokens that
  are there. A part of nothing but <pad> stays.
  """
  parts = rows.reshape(len(rows) * cuts, -1).copy()
  first, last = parts[:, 0], parts[:, -1]
  parts[:, 0] = np.where(first == PAD, PAD, BOS)
  parts[:, -1] = np.where(last == BOS, PAD, np.where(last == PAD, PAD, EOS))
  return parts


def _read_train(store: RowStore, mixture: Mixture, cuts: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(ids int32[n, L / cuts], languages int32[n]) at positions, int64[n], of the mixture's rows cut so often."""
  if cuts == 1:
    language, row, _ = mixture.locate(positions)
    return store.read("train", language, row), language
  whole, inverse = np.unique(positions // cuts, return_inverse=True)
  language, row, _ = mixture.locate(whole)
  parts = cut_rows(store.read("train", language, row), cuts)
  return parts[inverse * cuts + positions % cuts], language[inverse]


def _bring_files(store: RowStore, mixture: Mixture, spec: BatchSpec, first: int) -> None:
  """Has the files of a bucket brought here, in the order in which this host's batches from position `first` on need them."""
  if store.cache:
    store.cache.bring(_files_in_order(store, mixture, spec, first))


def _files_in_order(store: RowStore, mixture: Mixture, spec: BatchSpec, first: int) -> list[str]:
  """All files of the store's train rows; those that this host's batches from position `first` on need come first."""
  batches = np.arange(max(1, _ROWS_LOOKED_AHEAD // len(spec.positions)))
  positions = (first + batches[:, None] * spec.batch_rows + spec.positions).ravel() // spec.cuts
  language, row, _ = mixture.locate(positions)
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

  with _batches(read, store, spec, (0, total), prefetch) as batches:
    yield batches


def load_libraries() -> None:
  """Imports what batches are made with. It takes seconds, in which a start can do other things."""
  import tensorflow  # noqa: F401


@contextlib.contextmanager
def _batches(
  read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
  store: RowStore,
  spec: BatchSpec,
  positions: tuple[int, int],
  prefetch: int,
) -> Iterator[Iterator[Batch]]:
  """The tf.data program of them over positions [first, end), a batch from every spec.batch_rows-th on.

  read: positions int64[n] -> (ids int32[n, L], language int32[n]).
  """
  import tensorflow as tf

  tf.config.set_visible_devices([], "GPU")
  raised: list[Exception] = []
  host_rows = spec.positions
  if store.marks_words != (spec.unit != "piece"):
    raise ValueError(f"rows opened with marks_words={store.marks_words} for masks of unit {spec.unit}")

  def read_or_keep(firsts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
      return read((firsts[:, None] + host_rows).ravel())
    except Exception as error:  # tf.data would pass on only its text.
      raised.append(error)
      raise

  @tf.autograph.experimental.do_not_convert  # It holds no control flow of TensorFlow's, and to look for some takes a second.
  def read_steps(firsts: Any) -> tuple[Any, Any, Any]:
    ids, language = tf.numpy_function(read_or_keep, [firsts], (tf.int32, tf.int32), stateful=False)
    shape = [-1, len(host_rows)]
    return firsts, tf.reshape(ids, [*shape, store.seq_len // spec.cuts]), tf.reshape(language, shape)

  @tf.autograph.experimental.do_not_convert
  def mask(first: Any, ids: Any, language: Any) -> dict[str, Any]:
    batch = mask_rows(
      ids,
      first,
      seed=spec.seed,
      vocabulary_size=store.vocabulary_size,
      mask=store.mask_id,
      no_pieces=store.no_pieces,
      slots=spec.slots,
      mask_share=spec.mask_share,
      offsets=host_rows,
      unit=spec.unit,
      span_mean=spec.span_mean,
    )
    return {**batch, "language": language}

  cores = os.cpu_count() or 1
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False  # It has nothing to tune here, and it takes a thread.
  # One thread per operation: several batches are masked side by side, rather than several operations of one batch.
  options.threading.private_threadpool_size = cores
  options.threading.max_intra_op_parallelism = 1
  dataset = (
    tf.data.Dataset.range(*positions, spec.batch_rows)
    .batch(max(1, _ROWS_PER_READ // len(host_rows)))
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
