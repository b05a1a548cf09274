"""The folder of a run's checkpoints, without Orbax: which steps are there, sealing, removing, and clearing up after a kill.

A step counts by its manifest, which is written last and removed first. Each process hashes the files that it wrote and says
so in a file beside them; process 0 waits for all and writes the manifest, so that no host reads a whole checkpoint to seal
it. Nothing relies on renaming: the same code works on a disk and in a bucket.
"""

import contextlib
import os
import re
import sys
import time

from xlmr_jax.errors import StoreError, UserError, one_line
from xlmr_jax.files import AnyPath, any_path, read_bytes, read_json, write_json, write_whole
from xlmr_jax.folders import entries, files_below, move_folder, remove_folder
from xlmr_jax.run.manifest import MANIFEST, hash_files, make_manifest, write_manifest
from xlmr_jax.run.retention import Retention
from xlmr_jax.run.workdir import Workdir, best_step, step_of
from xlmr_jax.secrets import redacted

_DELETING = "deleting-"  # A file of this name and a step's has the manifest of a step that is being removed.
_SEAL = "SEAL-"  # What one process says of the files that it wrote, in the folder of a step that has no manifest yet.
_SEAL_LIMIT_S = 1800.0  # So long process 0 waits for the other processes' hashes.


def finished_steps(directory: AnyPath) -> list[int]:
  """The steps with a folder, newest first. Orbax gives it this name, or its mark of success, when the save ends."""
  steps = [step_of(name) for name, is_folder in entries(directory).items() if is_folder]
  return sorted((step for step in steps if step is not None), reverse=True)


def _writer_of(name: str, processes: int) -> int:
  """The process that wrote a file of a checkpoint, or that is to hash it where that does not show."""
  found = re.search(r"process_(\d+)", name)
  return int(found[1]) % processes if found else 0


def warn(text: str) -> None:
  print(redacted(text), file=sys.stderr, flush=True)


def sound_steps(directory: str | os.PathLike) -> list[int]:
  """The steps whose save was finished, newest first. Their files are not read."""
  directory = any_path(directory)
  steps = finished_steps(directory)
  return [step for step in steps if (directory / str(step) / MANIFEST).exists()]


def best_checkpoint(workdir: Workdir) -> int:
  """The step of the checkpoint in best/ that best.json names. UserError: there is none, or it is not there.

  The copy in best/ can be older than best.json where the evaluator goes by another rule by now, and the best checkpoint by
  that rule was removed before.
  """
  steps, noted = sound_steps(workdir.best), best_step(workdir)
  if not steps:
    raise UserError(f"there is no best checkpoint in {workdir.best}; run the evaluator first, or name a step or latest")
  if noted is not None and noted not in steps:
    raise UserError(
      f"{workdir.best_note} names step {noted}, but {workdir.best} has step {steps[0]}: the evaluator is copying it, or it "
      "was gone when another config.stop.score found it the best; name a step, or evaluate by the rule of before"
    )
  return steps[0] if noted is None else noted


class CheckpointFolder:
  """What process `process` of `processes` does with the folder; sealing alone is work for all of them."""

  def __init__(self, directory: AnyPath, damaged: AnyPath, retention: Retention, process: int = 0, processes: int = 1):
    """damaged: where steps go that are not as they were saved. retention: which of the others stay."""
    self.directory, self._damaged, self._retention = directory, damaged, retention
    self._process, self._processes = process, processes

  def sealed_steps(self) -> list[int]:
    """On process 0: the steps with a manifest, newest first; what killed processes left is cleared away."""
    self._finish_removals()
    sealed = []
    for step in finished_steps(self.directory):
      if (self.directory / str(step) / MANIFEST).exists():
        sealed.append(step)
        continue
      path = self.directory / str(step) / MANIFEST
      warn(f"checkpoint {step} cannot be used: {path} is missing: the save was not finished; removed")
      remove_folder(self.directory / str(step))
    return sealed

  def move_aside(self, damaged: list[int], chosen: int | None) -> None:
    for step in damaged:
      aside = self._damaged / f"{step}-{time.time_ns()}"
      aside.parent.mkdir(parents=True, exist_ok=True)
      move_folder(self.directory / str(step), aside)
      warn(f"going back to checkpoint {chosen}; {step} is now {aside} (may be deleted)")

  def _finish_removals(self) -> None:
    """After a kill in the middle of a removal: restores a step that is still whole, and removes the rest of any other."""
    for note in list(self.directory.glob(f"{_DELETING}*")):
      directory = self.directory / note.name.removeprefix(_DELETING)
      if note.is_dir():  # Earlier versions renamed the folder.
        if (note / MANIFEST).exists() and not directory.exists():
          move_folder(note, directory)
        else:
          remove_folder(note)
        continue
      content = read_bytes(note)
      try:
        expected = {name: file["bytes"] for name, file in read_json(note)["files"].items()}
      except (ValueError, KeyError, TypeError, AttributeError):
        expected = {"": 0}  # No manifest: whatever is there is not whole.
      found = files_below(directory)
      if (directory / MANIFEST).exists() or all(found.get(name) == size for name, size in expected.items()):
        write_whole(directory / MANIFEST, content)
      else:
        remove_folder(directory)
      note.unlink(missing_ok=True)

  def seal(self, step: int, leaves: dict[str, list]) -> None:
    """Runs on every process, in the background. Only a sealed checkpoint makes older ones superfluous."""
    directory = self.directory / str(step)
    mine = hash_files(
      directory, lambda name: not name.startswith(_SEAL) and _writer_of(name, self._processes) == self._process
    )
    if self._process:
      write_json(directory / f"{_SEAL}{self._process}", mine)
      return
    began, files = time.monotonic(), dict(mine)
    seals = [directory / f"{_SEAL}{process}" for process in range(1, self._processes)]
    for seal in seals:
      while not seal.exists():
        if time.monotonic() - began > _SEAL_LIMIT_S:
          raise StoreError(f"{seal} has not come in {_SEAL_LIMIT_S:g} s")
        time.sleep(0.05 if time.monotonic() - began < 5 else 1.0)
      files |= read_json(seal)
    manifest = make_manifest(directory, leaves, files)
    self._retention.on_sealed(step, manifest["digest"])
    write_manifest(directory, manifest)
    # Again, because the evaluator may have written its scores of the step's former checkpoint in between. From here on it
    # sees by the manifest that they are of another one.
    self._retention.on_sealed(step, manifest["digest"])
    for seal in seals:
      seal.unlink(missing_ok=True)

  def remove_superfluous(self) -> None:
    """Removes the checkpoints that need not stay; on process 0. What cannot be removed is told, and waits."""
    if self._process:
      return
    try:
      for old in self._retention.superfluous(sound_steps(self.directory)):
        self._remove(old)
    except (OSError, StoreError) as error:
      warn(f"superfluous checkpoints in {self.directory} stay for now: {one_line(error)}")

  def _remove(self, step: int) -> None:
    """Removes a checkpoint, unless an evaluator has pinned it.

    The manifest goes first, to a note beside the folder, and the pins are checked again after it. An evaluator that pinned
    the step before that will either find it missing or have it restored.
    """
    directory, note = self.directory / str(step), self.directory / f"{_DELETING}{step}"
    manifest = read_bytes(directory / MANIFEST)
    write_whole(note, manifest)
    (directory / MANIFEST).unlink(missing_ok=True)  # A request that is made again finds what it has removed missing.
    if self._retention.is_pinned(step):
      write_whole(directory / MANIFEST, manifest)
      note.unlink(missing_ok=True)
      return
    self._retention.on_removed(step)
    remove_folder(directory)
    note.unlink(missing_ok=True)

  def clear_away(self, step: int | None) -> None:
    """Removes the rest of a save that failed, and the checkpoints that are superfluous by now, to make room."""
    if self._process:
      return
    with contextlib.suppress(OSError, StoreError):
      for unfinished in list(self.directory.glob("*.orbax-checkpoint-tmp")):
        remove_folder(unfinished)
      if step is not None and not (self.directory / str(step) / MANIFEST).exists():
        remove_folder(self.directory / str(step))
      self.remove_superfluous()
