"""Orbax behind a few functions: asynchronous saves, verified restore, and the removal of what is superfluous.

What makes a checkpoint sound is manifest.py's; which ones stay is decided by the Retention that a run passes.
"""

import concurrent.futures
import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from xlmr_jax.errors import UserError
from xlmr_jax.run import hosts
from xlmr_jax.run.manifest import (
  MANIFEST,
  DamagedError,
  describe_leaves,
  read_manifest,
  refuse_other_leaves,
  verify,
  write_manifest,
)
from xlmr_jax.run.retention import Retention
from xlmr_jax.run.workdir import Workdir, step_of

_DELETING = "deleting-"  # The folder of a step that is being removed has this before its name.
# Several files and chunks, so that threads share the writing, reading and hashing of a large table.
_FILE_BYTES, _CHUNK_BYTES = 256 * 2**20, 64 * 2**20


def _finished_steps(directory: Path) -> list[int]:
  """The steps with a finished Orbax directory, newest first."""
  steps = [step_of(path.name) for path in directory.iterdir() if path.is_dir()]
  return sorted((step for step in steps if step is not None), reverse=True)


def _warn(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def _hush_tensorstore(unraisable: Any) -> None:
  """sys.unraisablehook without what TensorStore says of each array of a save that failed: the failure itself is raised."""
  if str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


def _is_no_echo(record: logging.LogRecord) -> bool:
  """A filter of logs: leaves out the reports, with tracebacks of 100 lines, of what Orbax raises as well."""
  return not (record.exc_info and (record.name == "asyncio" or "orbax" in record.pathname))


class _Manager(ocp.CheckpointManager):
  """Orbax asks for preemption with its own step count, which would overwrite the one that hosts.Preemption agrees by."""

  def reached_preemption(self, step: int) -> bool:
    return False


_copied = jax.jit(lambda state, room: jax.tree.map(jnp.copy, state), donate_argnums=1, keep_unused=True)


class Checkpoints:
  """The checkpoints of one run. Every process constructs it and makes the same calls.

  retention: which checkpoints stay; None: the newest two.
  """

  def __init__(self, workdir: Workdir, retention: Retention | None = None):
    self.directory = Path(os.path.abspath(workdir.checkpoints))  # Orbax refuses relative paths, and late.
    self._damaged = Path(os.path.abspath(workdir.damaged))
    self._retention = retention or Retention(workdir)
    self._is_first = jax.process_index() == 0
    if self._is_first:
      self.directory.mkdir(parents=True, exist_ok=True)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("checkpoints")
    self._manager = _Manager(
      self.directory,
      # Trained floats do not compress: zstd takes 8 % off them, and three times as long to write and to read.
      item_handlers={"state": ocp.PyTreeCheckpointHandler(use_compression=False), "notes": ocp.JsonCheckpointHandler()},
      options=ocp.CheckpointManagerOptions(
        # Orbax would choose what to delete when a save starts and delete it when the save ends. Pins must be read between.
        preservation_policy=checkpoint_managers.LatestN(None),  # all
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
        save_root_metadata=False,
      ),
    )
    sys.unraisablehook = _hush_tensorstore  # for good: TensorStore's threads may speak after close()
    for logger in (absl.logging.get_absl_logger(), logging.getLogger("asyncio")):
      logger.addFilter(_is_no_echo)
    self._sealer = concurrent.futures.ThreadPoolExecutor(1, "seal")
    self._unsealed: tuple[int, dict[str, list]] | None = None
    self._sealing: concurrent.futures.Future | None = None
    self._room: Any = None  # On a CPU: the memory for a copy of the state that is being written.

  # --- restore -----------------------------------------------------------------------------------------------------

  def restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
    """(step, state, notes) of the newest checkpoint that verifies, or None in a fresh workdir.

    abstract_state: jax.ShapeDtypeStruct leaves with shardings. Damaged and unfinished steps are named on stderr and
    make way, the damaged ones to `damaged/` beside the checkpoints: the run makes those steps again, bit for bit.
    UserError when none of several is sound, or when the newest sound one has other leaves than abstract_state.
    """
    found = self._restore_latest(abstract_state)
    if jax.default_backend() == "cpu":  # The memory is claimed in the background, so that the first save need not wait.
      shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
      self._room = jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_state), out_shardings=shardings
      )()
    return found

  def _restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
    step = hosts.on_first(self._choose)
    self._manager.reload()  # What process 0 moved away is then gone for every process.
    if step is None:
      return None
    directory = self.directory / str(step)
    refuse_other_leaves(self.directory, step, read_manifest(directory)["leaves"], describe_leaves(abstract_state))
    notes = self._manager.restore(step, args=ocp.args.Composite(notes=ocp.args.JsonRestore()))["notes"]
    return step, _restore(directory / "state", abstract_state), notes

  def _choose(self) -> int | None:
    """The newest sound step, on process 0; None when no save was ever finished. UserError: none of several is sound.

    A save that was killed before its manifest is removed. A damaged one is moved aside, but only for a sound one.
    """
    self._finish_removals()
    chosen, unfinished, damaged = None, [], []
    for step in _finished_steps(self.directory):
      if not (self.directory / str(step) / MANIFEST).exists():
        unfinished.append(step)
        continue
      try:
        verify(self.directory / str(step))
        chosen = step
        break
      except (DamagedError, OSError) as error:
        _warn(f"checkpoint {step} cannot be used: {error}")
        damaged.append(step)
    for step in unfinished:
      _warn(
        f"checkpoint {step} cannot be used: {self.directory / str(step) / MANIFEST} is missing: the save was not "
        "finished; removed"
      )
      shutil.rmtree(self.directory / str(step))
    if chosen is None and damaged:
      raise UserError(f"none of the checkpoints in {self.directory} is sound (see above); start in a new workdir")
    for step in damaged:
      aside = self._damaged / f"{step}-{time.time_ns()}"
      aside.parent.mkdir(exist_ok=True)
      (self.directory / str(step)).rename(aside)
      _warn(f"going back to checkpoint {chosen}; {step} is now {aside} (may be deleted)")
    return chosen

  def _finish_removals(self) -> None:
    """After a kill in the middle of a removal: a step that is still whole comes back, the rest of another goes."""
    for aside in self.directory.glob(f"{_DELETING}*"):
      original = self.directory / aside.name.removeprefix(_DELETING)
      if (aside / MANIFEST).exists() and not original.exists():
        aside.rename(original)
      else:
        shutil.rmtree(aside)

  # --- save --------------------------------------------------------------------------------------------------------

  def save(self, step: int, state: Any, notes: dict) -> None:
    """Starts an asynchronous save, and first waits for one that is still under way. notes: small JSON kept with it."""
    self.wait()
    with self._refusing_failures():
      self._start_save(step, state, notes)
    self._unsealed = (step, describe_leaves(state))

  def _start_save(self, step: int, state: Any, notes: dict) -> None:
    chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), state)
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeSave(self._to_write(state), save_args=chunks, ocdbt_target_data_file_size=_FILE_BYTES),
        notes=ocp.args.JsonSave(notes),
      ),
      force=True,
    )
    if not saved:
      raise RuntimeError(f"Orbax refused to save step {step}")

  @contextlib.contextmanager
  def _refusing_failures(self) -> Iterator[None]:
    """Turns what Orbax raises into one line, and removes what the failed save wrote, which may have filled the disk."""
    try:
      yield
    except (OSError, RuntimeError, ValueError) as error:  # a disk's, JAX's and TensorStore's; other errors are our own
      self._unsealed = None
      for unfinished in self.directory.glob("*.orbax-checkpoint-tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
      text = " ".join(str(error).split())
      why = "no space left on the disk" if "No space left" in text or "quota exceeded" in text else text[:300]
      raise UserError(
        f"a checkpoint could not be saved in {self.directory}: {why}; those before it are whole: mend that, and the same "
        "command goes on from them"
      ) from error

  def _to_write(self, state: Any) -> Any:
    """What Orbax may read while the loop goes on and donates `state` to the next step.

    On an accelerator Orbax copies the state to the host before its save() returns. On a CPU it would write the arrays
    in place. Their memory would then not be free for the next step, which would have to get as much anew from the
    system. So Orbax gets a copy, made in memory that every save uses again.
    """
    if jax.default_backend() != "cpu":
      return state
    self._room = _copied(state, self._room)
    return self._room

  def poll(self) -> None:
    """Seals a save that has finished in the background. It is cheap: call it every step."""
    if self._unsealed and not self._manager.is_saving_in_progress():
      with self._refusing_failures():
        self._manager.wait_until_finished()  # Raises what went wrong in the background, such as a full disk.
      step, leaves = self._unsealed
      self._unsealed = None
      if self._is_first:
        self._sealing = self._sealer.submit(self._seal, step, leaves)

  def _seal(self, step: int, leaves: dict[str, list]) -> None:
    """Runs on process 0, in the background. Only a sealed checkpoint makes older ones superfluous."""
    write_manifest(self.directory / str(step), leaves)
    for old in self._retention.superfluous(_finished_steps(self.directory)):
      self._remove(old)

  def _remove(self, step: int) -> None:
    """Removes a checkpoint, unless an evaluator has pinned it.

    The folder is renamed first and the pins are checked again after it. An evaluator that pinned the step before the
    rename will either find it missing or have it restored.
    """
    directory, aside = self.directory / str(step), self.directory / f"{_DELETING}{step}"
    directory.rename(aside)
    if self._retention.is_pinned(step):
      aside.rename(directory)
      return
    self._retention.on_removed(step)
    (aside / MANIFEST).unlink(missing_ok=True)  # It goes first, because a folder with a manifest counts as whole.
    shutil.rmtree(aside)

  def wait(self) -> None:
    """Waits until everything saved so far is on disk and sealed. Raises what went wrong."""
    with self._refusing_failures():
      self._manager.wait_until_finished()
    self.poll()
    sealing, self._sealing = self._sealing, None
    if sealing:
      sealing.result()

  def close(self) -> None:
    """Waits, and frees the threads. Without it, a process that ends right after save() loses the checkpoint silently."""
    try:
      self.wait()
    finally:
      self._manager.close()
      self._sealer.shutdown()


def _restore(path: Path, abstract: Any, *, partial: bool = False) -> Any:
  """The tree at path, whose files were verified, onto the shardings of abstract."""
  largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract))
  # Few arrays at a time: each then reuses the memory of the one before. Getting new memory is what takes longest.
  handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=1 + largest // 10**9)
  return ocp.Checkpointer(handler).restore(
    path,
    args=ocp.args.PyTreeRestore(
      abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=partial
    ),
  )


def restore_params(directory: str | os.PathLike, step: int, abstract_params: Any) -> Any:
  """The parameters alone of one verified checkpoint; abstract_params as in Checkpoints.restore_latest.

  directory: of the checkpoints, such as Workdir.checkpoints or Workdir.best. Raises DamagedError, or UserError when the
  checkpoint has other parameters.
  """
  directory = Path(os.path.abspath(directory))
  manifest = verify(directory / str(step))
  saved = {name: leaf for name, leaf in manifest["leaves"].items() if name.startswith("params/")}
  refuse_other_leaves(directory, step, saved, describe_leaves({"params": abstract_params}))
  return _restore(directory / str(step) / "state", {"params": abstract_params}, partial=True)["params"]


def sound_steps(directory: str | os.PathLike) -> list[int]:
  """The steps whose save was finished, newest first. Their files are not read."""
  directory = Path(directory)
  steps = _finished_steps(directory) if directory.exists() else []
  return [step for step in steps if (directory / str(step) / MANIFEST).exists()]
