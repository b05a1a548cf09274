"""A tiny world for tests: rows of made-up pieces in three unequal languages, and a config that trains on them."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np

from xlmr_jax.config import default_config

VOCABULARY, SEQ_LEN = 90, 32
ROWS = {"aa": (40, 4), "bb": (17, 3), "cc": (7, 2)}  # train, held-out


def make_store(root: Path, tokenizer: bytes = b"no model: tests read ids only") -> Path:
  """Rows whose pieces follow from the one before, so that there is something to learn."""
  from xlmr_jax.data import rows as store
  from xlmr_jax.data.row_manifest import write_manifest

  root.mkdir(parents=True)
  (root / "tokenizer.model").write_bytes(tokenizer)
  languages = {}
  for number, (name, sizes) in enumerate(ROWS.items()):
    folder = store.language_folder(root, name)
    folder.mkdir(parents=True)
    counts = {}
    for split, count in zip(("train", "held_out"), sizes):
      rng = np.random.default_rng([number, count])
      ids = np.full((count, SEQ_LEN), 1, np.int32)
      for row in ids:
        length = int(rng.integers(SEQ_LEN - 6, SEQ_LEN + 1))
        pieces = (rng.integers(0, 24) + np.arange(length) * (number + 1)) % 24 + 4 + 28 * number
        row[:length] = pieces
        row[0], row[length // 2 - 1], row[length // 2], row[length - 1] = 0, 2, 0, 2
      store.write_shard(folder / store.shard_name(split, 0, 1), ids)
      counts[split] = {
        "rows": count,
        "tokens": int((ids != 1).sum()),
        "pieces": int((ids > 2).sum()),
        "bytes": int((ids > 3).sum()) * 4,
        "documents": 2 * count,
      }
    store.write_dataset_info(root, name, SEQ_LEN, {split: [n] for split, n in zip(counts, sizes)})
    languages[name] = counts
  write_manifest(
    root,
    seq_len=SEQ_LEN,
    vocabulary_size=VOCABULARY,
    held_out_share=0.1,
    languages=languages,
    tokenizer_sha256=hashlib.sha256((root / "tokenizer.model").read_bytes()).hexdigest(),
  )
  return root


def config(rows="", **changes):
  """A config of 12 steps of 16 rows; changes: dotted names."""
  c = default_config()
  c.data.rows = str(rows)
  c.model.update(layers=2, hidden=16, heads=2, ffn=32, max_positions=SEQ_LEN + 2, dtype="float32")
  c.update(train_steps=12, batch_rows=16, watchdog_s=0.0)
  c.optimizer.update(peak_lr=1e-2, warmup_steps=3)
  c.checkpoint.update(every_steps=4, keep_every=0)
  c.held_out.update(every_steps=4, max_rows_per_language=0)
  c.log.update(every_steps=3, tensorboard=False)
  for name, value in changes.items():
    c.update_from_flattened_dict({name.replace("__", "."): value})
  return c


def get_config(rows: str = ""):
  """For the command line: --config=tests/tiny.py:ROWS."""
  return config(rows)


def batch(rng: np.random.Generator, rows: int, slots: int = 8) -> dict[str, np.ndarray]:
  """A masked batch as the pipeline makes them, with one unused slot in every other row and rows that end in pads."""
  ids = rng.integers(4, VOCABULARY - 1, (rows, SEQ_LEN)).astype(np.int32)
  ids[:, 0], ids[::3, -1], ids[1::3, -5:] = 0, 2, 1
  positions = np.stack([np.sort(rng.permutation(np.arange(1, SEQ_LEN - 6))[:slots]) for _ in range(rows)]).astype(np.int32)
  labels = np.take_along_axis(ids, positions, 1)
  np.put_along_axis(ids, positions, VOCABULARY - 1, 1)
  weights = np.ones((rows, slots), np.float32)
  weights[::2, -1] = 0.0
  return {
    "ids": ids,
    "positions": positions,
    "labels": labels,
    "weights": weights,
    "language": rng.integers(0, 3, rows).astype(np.int32),
  }


class StopAt:
  """A Preemption that comes at one call."""

  def __init__(self, call=None):
    self.call, self.calls = call, 0

  def stop(self):
    self.calls += 1
    return self.call is not None and self.calls > self.call


def run(config, workdir, store, stop=None) -> int:
  """Trains in this process and returns the exit code. stop: the call of Preemption.stop() that tells it to stop."""
  from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART
  from xlmr_jax.run.workdir import Workdir
  from xlmr_jax.training import loop

  workdir.mkdir(exist_ok=True)
  with _small_arrays_undivided():
    result = loop.run(prepared(config, store), Workdir(workdir), StopAt(stop))
  return EXIT_RESTART if result.preempted else EXIT_DONE


@contextlib.contextmanager
def _small_arrays_undivided():
  """Lets one device write each array that is small. Orbax divides all among the devices, which takes half the time of a run.

  tests/test_checkpoint.py and the runs of real processes save as Orbax does by itself.
  """
  import jax
  import orbax.checkpoint as ocp

  handler, name = ocp.type_handlers.get_type_handler(jax.Array), "_min_slice_bytes_for_replica_parallel"
  before = getattr(handler, name, None)
  setattr(handler, name, 2**20)
  try:
    yield
  finally:
    setattr(handler, name, before)


_PREPARED, _PROGRAMS = {}, {}
# What the programs of a config do not depend on. Their functions are traced once for all configs that differ in these only.
_OF_NO_PROGRAM = (
  "alarms", "checkpoint", "check_replicas_every", "evaluate", "held_out", "log", "max_bad_steps", "max_recoveries", "phases",
  "stop", "watchdog", "watchdog_s",
)  # fmt: skip


def prepared(config, store):
  """preparation.prepare(), once per config and rows: nothing in it changes during a run, and its functions stay traced."""
  from unittest import mock

  from xlmr_jax.training import preparation
  from xlmr_jax.training import program as programs

  build = programs.build_program

  def build_once(config, mesh, **sizes):
    values = {name: value for name, value in config.to_dict().items() if name not in _OF_NO_PROGRAM}
    values["data"].pop("rows")
    key = json.dumps([values, sizes], sort_keys=True, default=str), mesh
    if key not in _PROGRAMS:
      _PROGRAMS[key] = build(config, mesh, **sizes)
    return _PROGRAMS[key]

  values = config.to_dict()
  values["data"].pop("rows")  # The store says where they are.
  key = json.dumps(values, sort_keys=True), store.root
  if key not in _PREPARED:
    with mock.patch.object(programs, "build_program", build_once):
      _PREPARED[key] = preparation.prepare(config, store)
  return _PREPARED[key]


def program(config, data: int = 1, fsdp: int = 1):
  """The functions of config on the first data x fsdp devices, for rows of SEQ_LEN tokens in three languages.

  They are made and traced once per config and mesh.
  """
  import jax

  from xlmr_jax.training.program import build_program
  from xlmr_jax.training.sharding import make_mesh

  mesh = make_mesh(data, fsdp, jax.devices()[: data * fsdp])
  key = json.dumps(config.to_dict(), sort_keys=True), mesh
  if key not in _PROGRAMS:
    with jax.set_mesh(mesh):
      _PROGRAMS[key] = build_program(config, mesh, vocabulary_size=VOCABULARY, languages=len(ROWS), seq_len=SEQ_LEN)
  return _PROGRAMS[key]


def step(program, state, batch, limit=np.inf):
  """(state, metrics) after one step of a program from `state`, whose memory it takes, on a batch of NumPy arrays."""
  import jax

  from xlmr_jax.training.sharding import to_global

  with jax.set_mesh(program.mesh):
    return program.train_step(state, to_global(program.mesh, batch, len(batch["ids"])), np.float32(limit))


def init(program, seed: int = 0):
  """A state before step 0 of a program; drawn by NumPy, because compiling JAX's generator takes longer than the step."""
  import jax

  from xlmr_jax.training.sharding import path_of

  rng = np.random.default_rng(seed)

  def draw(path, x):
    name = path_of(path)
    drawn = (
      rng.normal(0.0, 0.02, x.shape) if name.endswith(("kernel", "embedding")) else np.full(x.shape, name.endswith("scale"))
    )
    return drawn.astype(np.float32)

  with jax.set_mesh(program.mesh):
    return program.begin_with(jax.tree_util.tree_map_with_path(draw, program.state.params))
