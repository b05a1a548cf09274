"""How long a save holds up the training loop and takes to be durable, and how long a restore takes, of a config's state.

  python -m benchmarks.checkpoint --config=base [--directory=DIR]      (needs disk for 4 x the state; no TensorFlow)

It goes through xlmr_jax.run.checkpoint as a run does. The last line is JSON:
save_blocks_s: from the call to where the next step could begin, the worst of all saves but the first. The first also pays
  for memory that the process never had.
durable_s: from the call to the sealed manifest, while the loop does nothing else.
restore_s: to verified arrays on the device, in a new process whose files are not in memory.
floor_*: the same bytes in the same minute, plainly written and synced, read, and hashed by one thread.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from benchmarks.step import LANGUAGES, PLATFORMS, name_languages, synthetic_batch, use_device
from xlmr_jax.commands.flags import FLAGS, read_config, refuse_arguments, start
from xlmr_jax.config_files import config_path
from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.errors import UserError
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import sharding
from xlmr_jax.training.program import Program, build_program, mesh_of

_PIECE = 256 * 2**20


def define_flags() -> None:
  """Defines the flags of this program."""
  config_flags.DEFINE_config_file("config", str(config_path("base")), "whose state is saved; --config.KEY=VALUE changes it")
  flags.DEFINE_enum("device", None, list(PLATFORMS), "kind of device; JAX's choice by default")
  flags.DEFINE_string("directory", None, "where to write; a temporary folder by default")
  flags.DEFINE_enum("part", None, ["save", "restore"], "only this one, in --directory as it is")
  flags.DEFINE_integer("saves", 3, "how many", lower_bound=2)
  flags.DEFINE_integer("seq", 64, "tokens of the one row per device that the steps between saves take", lower_bound=16)
  flags.DEFINE_integer("vocab", 250_002, "entries, where the config has none", lower_bound=1)


def files_in(folder: Path) -> list[Path]:
  """All files below a folder."""
  return [path for path in folder.rglob("*") if path.is_file()]


def forget(folder: Path) -> None:
  """Makes the system drop files from memory, where it can be told to. They must have reached the disk."""
  if hasattr(os, "posix_fadvise"):
    for path in files_in(folder):
      with path.open("rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work: Callable[[], object]) -> float:
  """The seconds that work() takes."""
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def floors(folder: Path, size: int) -> dict[str, float]:
  """The seconds that `size` bytes take to be written and synced, to be read, and to be hashed."""
  piece, path = np.random.default_rng(0).bytes(min(_PIECE, size)), folder / "floor"
  times = -(-size // len(piece))

  def write() -> None:
    with path.open("wb") as f:
      for i in range(times):
        f.write(piece[: size - i * len(piece)])
      f.flush()
      os.fsync(f.fileno())

  def read() -> None:
    buffer = bytearray(len(piece))
    with path.open("rb", buffering=0) as f:
      while f.readinto(buffer):
        pass

  def sha256() -> None:
    h = hashlib.sha256()
    for i in range(times):
      h.update(piece[: size - i * len(piece)])

  found = {"floor_write_s": timed(write)}
  forget(folder)
  found |= {"floor_read_s": timed(read), "floor_sha256_s": timed(sha256)}
  path.unlink()
  return {name: round(seconds, 2) for name, seconds in found.items()}


def digest(state: object) -> str:
  """The sha256 of all leaves."""
  h = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    h.update(np.ascontiguousarray(leaf))
  return h.hexdigest()


def program_for(config: ConfigDict, mesh: jax.sharding.Mesh) -> tuple[Program, int]:
  """(the program of config on mesh, the entries of its vocabulary)."""
  vocabulary = config.model.vocabulary_size or FLAGS.vocab
  sides = name_languages(config, LANGUAGES)
  return build_program(config, mesh, vocabulary_size=vocabulary, languages=LANGUAGES, sides=sides), vocabulary


def save(config: ConfigDict, folder: Path) -> dict[str, object]:
  """Saves between real steps of one row per device, as a run does."""
  mesh = mesh_of(config)
  program, vocabulary = program_for(config, mesh)
  share, rows = config.data.mask_share, config.batch_rows
  batch = synthetic_batch(np.random.default_rng(0), rows, FLAGS.seq, vocabulary, slots_per_row(FLAGS.seq, share), share)
  # Takes over the state's memory as the next step does, and does nothing else.
  take = jax.jit(lambda state: jax.tree.map(lambda x: x * 1, state), donate_argnums=0)
  blocked, durable, steps = [], [], []
  checkpoints = Checkpoints(Workdir(folder))
  with jax.set_mesh(mesh):
    batch = sharding.to_global(mesh, batch, rows)
    checkpoints.restore_latest(program.state)  # There is none: a run begins like this.
    state = jax.block_until_ready(take(program.init(jax.random.key(config.seed))))
    for step in range(FLAGS.saves):
      for _ in range(2):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program.train_step(state, batch, np.inf))
        steps.append(time.perf_counter() - start)
      start = time.perf_counter()
      checkpoints.save(step, state, {})
      state = jax.block_until_ready(take(state))
      blocked.append(time.perf_counter() - start)
      checkpoints.wait()
      durable.append(time.perf_counter() - start)
      print(f"save {step}: blocks {blocked[-1]:.2f} s, durable after {durable[-1]:.1f} s", file=sys.stderr, flush=True)
  checkpoints.close()
  saved = files_in(Workdir(folder).checkpoints / str(FLAGS.saves - 1))
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


def restore(config: ConfigDict, folder: Path) -> dict[str, object]:
  """Restores the newest checkpoint while its files are not in memory, and then once more."""
  mesh = mesh_of(config)
  program, _ = program_for(config, mesh)
  seconds, found = {}, None
  for name in ("restore_s", "restore_cached_s"):
    if name == "restore_s":
      os.sync()
      forget(Workdir(folder).checkpoints)
    checkpoints = Checkpoints(Workdir(folder))
    start = time.perf_counter()
    found = jax.block_until_ready(checkpoints.restore_latest(program.state))
    seconds[name] = round(time.perf_counter() - start, 2)
    checkpoints.close()
    print(f"{name}: {seconds[name]}", file=sys.stderr, flush=True)
  if found is None:
    raise RuntimeError(f"nothing was saved in {folder}")
  return {**seconds, "digest": digest(found[1])}


def main(argv: list[str]) -> int | None:
  """Runs the program, or with --part a part of it; returns the exit code of a part that failed."""
  refuse_arguments(argv)
  logging.set_verbosity(logging.ERROR)  # Orbax reports every wait as a warning.
  if FLAGS.directory and not Path(FLAGS.directory).is_dir():
    raise UserError(f"--directory={FLAGS.directory}: no such folder")
  if FLAGS.part:
    use_device(FLAGS.device)
    config = read_config().copy_and_resolve_references().lock()
    config.update(batch_rows=len(jax.devices()), micro_batches=1, rows_per_device=0)
    config.model.max_positions = max(config.model.max_positions, FLAGS.seq + 2)
    try:
      print(json.dumps({"save": save, "restore": restore}[FLAGS.part](config, Path(FLAGS.directory))))
    except OSError as error:
      raise UserError(f"{FLAGS.directory}: {error.strerror}; choose another --directory") from None
    return None
  with tempfile.TemporaryDirectory(prefix="xlmr_checkpoint_", dir=FLAGS.directory) as folder:
    result, digests = {}, set()
    for part in ("save", "restore"):  # Each in its own process: a run that resumes has none of the memory of the one before.
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
  start(main)
