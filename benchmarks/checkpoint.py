"""How long a save holds up the training loop, until it is durable, and a restore: the state of a config, through
xlmr_jax.run.checkpoint as a run uses it.

  python -m benchmarks.checkpoint --config=configs/base.py [--directory=DIR]      (4 x the state of disk; no TensorFlow)

The last line is JSON. save_blocks_s: from the call to where the next step could begin, worst of all saves but the first,
which also pays for memory the process never had. durable_s: to the sealed manifest, the loop doing nothing else.
restore_s: in a new process, files not in memory, to verified arrays on the device. floor_*: the same bytes in the same
minute, plainly written and synced, read, and hashed by one thread.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.step import LANGUAGES, PLATFORMS, synthetic_batch, use_device
from xlmr_jax.commands.pretrain import parse_flags
from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.errors import UserError, run_command
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.training import sharding
from xlmr_jax.training.loop import build_program, mesh_of

FLAGS = flags.FLAGS
_PIECE = 256 * 2**20


def define_flags() -> None:
  config_flags.DEFINE_config_file("config", "configs/base.py", "whose state is saved; --config.KEY=VALUE changes it")
  flags.DEFINE_enum("device", None, list(PLATFORMS), "kind of device; JAX's choice by default")
  flags.DEFINE_string("directory", None, "where to write; a temporary folder by default")
  flags.DEFINE_enum("part", None, ["save", "restore"], "only this one, in --directory as it is")
  flags.DEFINE_integer("saves", 3, "how many", lower_bound=2)
  flags.DEFINE_integer("seq", 64, "tokens of the one row a device that the steps between saves take", lower_bound=16)
  flags.DEFINE_integer("vocab", 250_002, "entries, where the config has none", lower_bound=1)


def files_of(folder: Path) -> list[Path]:
  return [path for path in folder.rglob("*") if path.is_file()]


def forget(folder: Path) -> None:
  """Drops what the system keeps of the files in memory, where it can be told to; they must be on the disk."""
  if hasattr(os, "posix_fadvise"):
    for path in files_of(folder):
      with path.open("rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def floors(folder: Path, size: int) -> dict[str, float]:
  """Seconds that `size` bytes take: written and synced, read, hashed."""
  piece, path = np.random.default_rng(0).bytes(min(_PIECE, size)), folder / "floor"
  times = -(-size // len(piece))

  def write():
    with path.open("wb") as f:
      for i in range(times):
        f.write(piece[: size - i * len(piece)])
      f.flush()
      os.fsync(f.fileno())

  def read():
    buffer = bytearray(len(piece))
    with path.open("rb", buffering=0) as f:
      while f.readinto(buffer):
        pass

  def sha256():
    h = hashlib.sha256()
    for i in range(times):
      h.update(piece[: size - i * len(piece)])

  found = {"floor_write_s": timed(write)}
  forget(folder)
  found |= {"floor_read_s": timed(read), "floor_sha256_s": timed(sha256)}
  path.unlink()
  return {name: round(seconds, 2) for name, seconds in found.items()}


def digest(state) -> str:
  """sha256 over all leaves."""
  h = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    h.update(np.ascontiguousarray(leaf))
  return h.hexdigest()


def program_of(config, mesh):
  vocabulary = config.model.vocabulary_size or FLAGS.vocab
  return build_program(config, mesh, vocabulary_size=vocabulary, languages=LANGUAGES), vocabulary


def save(config, folder: Path) -> dict[str, object]:
  """Saves between real steps of one row a device, as a run does."""
  mesh = mesh_of(config)
  program, vocabulary = program_of(config, mesh)
  share, rows = config.data.mask_share, config.batch_rows
  batch = synthetic_batch(np.random.default_rng(0), rows, FLAGS.seq, vocabulary, slots_per_row(FLAGS.seq, share), share)
  # Takes the state's memory as the next step does, and nothing else.
  take = jax.jit(lambda state: jax.tree.map(lambda x: x * 1, state), donate_argnums=0)
  blocked, durable, steps = [], [], []
  checkpoints = Checkpoints(folder / "checkpoints", keep=2)
  with jax.set_mesh(mesh):
    batch = sharding.to_global(mesh, batch, rows)
    checkpoints.restore_latest(program.state)  # none: as a run begins
    state = jax.block_until_ready(take(program.init(jax.random.key(config.seed))))
    for step in range(FLAGS.saves):
      for _ in range(2):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program.train_step(state, batch))
        steps.append(time.perf_counter() - start)
      start = time.perf_counter()
      checkpoints.save(step, state, {})
      state = jax.block_until_ready(take(state))
      blocked.append(time.perf_counter() - start)
      checkpoints.wait()
      durable.append(time.perf_counter() - start)
      print(f"save {step}: blocks {blocked[-1]:.2f} s, durable after {durable[-1]:.1f} s", file=sys.stderr, flush=True)
  checkpoints.close()
  saved = files_of(folder / "checkpoints" / str(FLAGS.saves - 1))
  size = sum(path.stat().st_size for path in saved)
  return {
    "save_blocks_s": round(max(blocked[1:]), 3),
    "first_save_blocks_s": round(blocked[0], 3),
    "durable_s": round(statistics.median(durable), 2),
    "bytes": size,
    "files": len(saved),
    "step_s": round(statistics.median(steps[1:]), 2),
    **floors(folder, size),
    "digest": digest(state),
    "device": jax.devices()[0].device_kind,
    "devices": len(jax.devices()),
  }


def restore(config, folder: Path) -> dict[str, object]:
  """Restores the newest checkpoint, its files not in memory; then once more."""
  mesh = mesh_of(config)
  program, _ = program_of(config, mesh)
  seconds = {}
  for name in ("restore_s", "restore_cached_s"):
    if name == "restore_s":
      os.sync()
      forget(folder / "checkpoints")
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    start = time.perf_counter()
    found = jax.block_until_ready(checkpoints.restore_latest(program.state))
    seconds[name] = round(time.perf_counter() - start, 2)
    checkpoints.close()
    print(f"{name}: {seconds[name]}", file=sys.stderr, flush=True)
  return seconds | {"digest": digest(found[1])}


def main(argv: list[str]) -> int | None:
  if len(argv) > 1:
    raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file at INFO, and of every wait
  if FLAGS.directory and not Path(FLAGS.directory).is_dir():
    raise UserError(f"--directory={FLAGS.directory}: no such folder")
  if FLAGS.part:
    use_device(FLAGS.device)
    config = FLAGS.config.copy_and_resolve_references().lock()
    config.update(batch_rows=len(jax.devices()), micro_batches=1, rows_per_device=0)
    config.model.max_positions = max(config.model.max_positions, FLAGS.seq + 2)
    try:
      print(json.dumps({"save": save, "restore": restore}[FLAGS.part](config, Path(FLAGS.directory))))
    except OSError as error:
      raise UserError(f"{FLAGS.directory}: {error.strerror}; choose another --directory") from None
    return None
  with tempfile.TemporaryDirectory(prefix="xlmr_checkpoint_", dir=FLAGS.directory) as folder:
    result, digests = {}, set()
    for part in ("save", "restore"):  # a process each: a run that goes on has none of the memory of the one before
      command = [sys.executable, "-m", "benchmarks.checkpoint", *sys.argv[1:], f"--part={part}", f"--directory={folder}"]
      done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
      if done.returncode:
        return done.returncode
      found = json.loads(done.stdout.splitlines()[-1])
      digests.add(found.pop("digest"))
      result |= found
  if len(digests) > 1:
    raise RuntimeError("what was restored is not what was saved")
  print(json.dumps(result))
  return None


if __name__ == "__main__":
  define_flags()
  app.run(run_command(main), flags_parser=parse_flags)
