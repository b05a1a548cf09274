"""Orbax behind a few functions: asynchronous saves, verified restore, and the removal of what is superfluous.

What makes a checkpoint sound is manifest.py's; which ones stay is decided by the Retention that a run passes;
what is done with their folder, on a disk or in a bucket, is checkpoint_folder.py's.
"""

import concurrent.futures
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from xlmr_jax import bucket
from xlmr_jax.errors import StoreError, UserError, one_line
from xlmr_jax.files import AnyPath, absolute, is_bucket
from xlmr_jax.folders import remove_folder
from xlmr_jax.run import hosts
from xlmr_jax.run.checkpoint_folder import CheckpointFolder, finished_steps, sound_steps, warn
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.run.manifest import MANIFEST, DamagedError, describe_leaves, read_manifest, refuse_other_leaves, verify
from xlmr_jax.run.retention import Retention
from xlmr_jax.run.workdir import Workdir

# Several files and chunks, so that threads share the writing, reading and hashing of a large table.
_FILE_BYTES, _CHUNK_BYTES = 256 * 2**20, 64 * 2**20


def _hush_tensorstore(unraisable: Any) -> None:
  """sys.unraisablehook without what TensorStore says of each array of a save that failed: the failure itself is raised."""
  if str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


def _is_no_echo(record: logging.LogRecord) -> bool:
  """A filter of logs: leaves out Orbax's advice on waiting, and its reports, of 100 lines each, of what it raises too."""
  is_advice = str(record.msg).startswith("Waiting for previous save")
  return not is_advice and not (record.exc_info and (record.name == "asyncio" or "orbax" in record.pathname))


class _Manager(ocp.CheckpointManager):
  """Orbax asks for preemption with its own step count, which would overwrite the one that hosts.Preemption agrees by."""

  def reached_preemption(self, step: int) -> bool:
    return False


_copied = jax.jit(lambda state, room: jax.tree.map(jnp.copy, state), donate_argnums=1, keep_unused=True)


class Checkpoints:
  """The checkpoints of one run. Every process constructs it and makes the same calls.

  retention: which checkpoints stay; None: the newest two. max_failed_saves: a save that fails is told, and the run goes on;
  so many in a row end it. In a run of several processes the first one does, because the others cannot leave a save in which
  one of them has failed.
  """

  def __init__(self, workdir: Workdir, retention: Retention | None = None, max_failed_saves: int = 1):
    self.directory = absolute(workdir.checkpoints)  # Orbax refuses relative paths, and late.
    self._has_retention = retention is not None
    self._process, self._processes = jax.process_index(), jax.process_count()
    self._max_failed, self._failed = max_failed_saves if self._processes == 1 else 1, 0
    self._folder = CheckpointFolder(
      self.directory, absolute(workdir.damaged), retention or Retention(workdir), self._process, self._processes
    )
    if self._process == 0:
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
    self._remover = concurrent.futures.ThreadPoolExecutor(1, "remove")
    self._unsealed: tuple[int, dict[str, list]] | None = None
    self._saving: int | None = None  # the step of the newest save, until it is sealed
    self._sealing: concurrent.futures.Future | None = None
    self._removing: concurrent.futures.Future | None = None
    self._room: Any = None  # On a CPU: the memory for a copy of the state that is being written.

  # --- restore -----------------------------------------------------------------------------------------------------

  def restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
    """(step, state, notes) of the newest checkpoint that verifies, or None in a fresh workdir.

    abstract_state: jax.ShapeDtypeStruct leaves with shardings. Damaged and unfinished steps are named on stderr and
    make way, the damaged ones to `damaged/` beside the checkpoints: the run makes those steps again, bit for bit.
    UserError when none of several is sound, or when the newest sound one has other leaves than abstract_state.
    """
    found = self._restore_latest(abstract_state)
    if self._has_retention:
      hosts.on_first(self._folder.remove_superfluous)  # The start before may have kept more.
    if jax.default_backend() == "cpu":  # The memory is claimed in the background, so that the first save need not wait.
      shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
      self._room = jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_state), out_shardings=shardings
      )()
    return found

  def _restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
    step = self._choose()
    self._manager.reload()  # What process 0 moved away is then gone for every process.
    if step is None:
      return None
    directory = self.directory / str(step)
    refuse_other_leaves(self.directory, step, read_manifest(directory)["leaves"], describe_leaves(abstract_state))
    with heartbeat(f"restoring checkpoint {step}"):
      notes = self._manager.restore(step, args=ocp.args.Composite(notes=ocp.args.JsonRestore()))["notes"]
      return step, _restore(directory / "state", abstract_state), notes

  def settled_steps(self) -> list[int]:
    """The sealed steps, newest first and the same on all processes, once a save and a removal under way have ended."""
    with self._counting_failures():
      self._finish()
    self._wait_for_removals()
    return hosts.on_first(lambda: sound_steps(self.directory))

  def go_back(self, step: int, abstract_state: Any) -> tuple[int, Any, dict] | None:
    """As restore_latest, after the removal of the checkpoints later than `step`; no save may be under way.

    The run takes them back. A pin does not keep them, because a restore would take them. What the evaluator said of them
    stays until they are made again, when it scores them anew.
    """

    self._wait_for_removals()  # Whoever looks for what killed processes left takes a step that is being removed for that.

    def remove_later() -> None:
      for later in finished_steps(self.directory):
        if later > step:
          (self.directory / str(later) / MANIFEST).unlink(missing_ok=True)  # first: the rest alone counts as unfinished
          remove_folder(self.directory / str(later))

    hosts.on_first(remove_later)
    return self._restore_latest(abstract_state)

  def _choose(self) -> int | None:
    """The newest sound step, the same on all processes; None when no save was ever finished. UserError: none is sound.

    A save that was killed before its manifest is removed. A damaged one is moved aside, but only for a sound one.
    """
    chosen, damaged = None, []
    for step in hosts.on_first(self._folder.sealed_steps):
      if self._is_sound_for_all(step):
        chosen = step
        break
      damaged.append(step)
    if chosen is None and damaged:
      raise UserError(f"none of the checkpoints in {self.directory} is sound (see above); start in a new workdir")
    hosts.on_first(lambda: self._folder.move_aside(damaged, chosen))
    return chosen

  def _is_sound_for_all(self, step: int) -> bool:
    """Whether a step's files are as saved. Each process reads its share of them, and says what is wrong with it."""
    sound = True
    try:
      with heartbeat(f"verifying the files of checkpoint {step}"):
        verify(self.directory / str(step), (self._process, self._processes))
    except (DamagedError, OSError) as error:
      warn(f"checkpoint {step} cannot be used: {error}")
      sound = False
    if self._processes > 1:
      sound = bool(np.all(multihost_utils.process_allgather(np.bool_(sound))))
    return sound

  # --- save --------------------------------------------------------------------------------------------------------

  def save(self, step: int, state: Any, notes: dict, *, last: bool = False) -> None:
    """Starts an asynchronous save, and first waits for one that is still under way. notes: small JSON kept with it.

    last: the run ends with it, so that it must not fail. Raises UserError or StoreError: this save, or the one before it,
    is one too many in a row that failed.
    """
    with self._counting_failures():
      self._finish()
    with self._counting_failures(last=last):
      self._saving = step
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
  def _counting_failures(self, *, last: bool = False) -> Iterator[None]:
    """Tells a save that failed, and clears away what it wrote, which may have filled the disk. One too many raises.

    last: there will be no other save, so that a failure always raises.
    """
    try:
      yield
    except (OSError, RuntimeError, ValueError, StoreError) as error:  # a disk's, JAX's, TensorStore's, and the store's
      if isinstance(error, UserError):
        raise
      step, self._saving, self._unsealed, self._failed = self._saving, None, None, self._failed + 1
      final = last or self._failed >= self._max_failed
      text = one_line(error)
      full = "No space left" in text or "quota exceeded" in text
      why = "no space left on the disk" if full else text[:300]
      if not bucket.has_given_up():
        self._wait_for_removals()
        self._folder.clear_away(step)
      said = f"checkpoint {'' if step is None else f'{step} '}could not be saved in {self.directory}: {why}"
      if not final:
        warn(f"{said}; the run goes on ({self._failed} of {self._max_failed} failures in a row)")
        return
      if is_bucket(self.directory):
        raise StoreError(f"{said}; those before it are whole") from error
      raise UserError(f"{said}; those before it are whole: mend that, and the same command goes on from them") from error

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
    """Seals a save that has finished in the background. It is cheap: call it every step. Raises as save() does."""
    with self._counting_failures():
      if self._sealing and self._sealing.done():
        sealing, self._sealing = self._sealing, None
        sealing.result()
        self._saving, self._failed = None, 0
      if self._unsealed and not self._manager.is_saving_in_progress():
        self._begin_to_seal()

  def _begin_to_seal(self) -> None:
    self._manager.wait_until_finished()  # Raises what went wrong in the background, such as a full disk.
    if self._unsealed:
      (step, leaves), self._unsealed = self._unsealed, None
      self._sealing = self._sealer.submit(self._folder.seal, step, leaves)
      # A slow store takes long to remove; the next save and its seal do not wait for it.
      self._removing = self._remover.submit(self._remove_after, self._sealing)

  def _remove_after(self, sealing: concurrent.futures.Future) -> None:
    if not sealing.exception():  # Which save() and poll() raise.
      self._folder.remove_superfluous()

  def _finish(self) -> None:
    """Waits until everything saved so far is on disk and sealed. Raises what went wrong."""
    self._begin_to_seal()
    sealing, self._sealing = self._sealing, None
    if sealing:
      sealing.result()
      self._saving, self._failed = None, 0

  def wait(self) -> None:
    """Waits until everything saved so far is on disk and sealed, and what is superfluous removed.

    Raises UserError or StoreError: it could not be saved.
    """
    with self._counting_failures(last=True):
      self._finish()
    self._wait_for_removals()

  def _wait_for_removals(self) -> None:
    """Waits until the thread removes nothing; what it could not remove, it has told."""
    if self._removing:
      self._removing.result()

  def close(self, error: BaseException | None = None) -> None:
    """Waits, and frees the threads. Without it, a process that ends right after save() loses the checkpoint silently.

    error: what ends the run, which a failure to save does not hide. Then the other processes of a run, who may wait for
    this one elsewhere, are not waited for; and neither is a store that has failed for good.
    """
    if bucket.has_given_up() or (error is not None and self._processes > 1):
      return
    try:
      with heartbeat("waiting for the last checkpoint to be saved"):
        self._close()
    except (UserError, StoreError) as second:
      if error is None:
        raise
      warn(one_line(second))

  def _close(self) -> None:
    try:
      self.wait()
    finally:
      self._manager.close()
      self._sealer.shutdown()
      self._remover.shutdown()


def _restore(path: AnyPath, abstract: Any, *, partial: bool = False) -> Any:
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
  directory = absolute(directory)
  manifest = verify(directory / str(step))
  saved = {name: leaf for name, leaf in manifest["leaves"].items() if name.startswith("params/")}
  refuse_other_leaves(directory, step, saved, describe_leaves({"params": abstract_params}))
  return _restore(directory / str(step) / "state", {"params": abstract_params}, partial=True)["params"]
