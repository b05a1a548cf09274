"""Orbax behind a few functions: save, verified restore, retention.

Orbax restores flipped bits silently, has no fall-back to an older step and casts a changed dtype. So a checkpoint
counts only with MANIFEST.json, written last: the sha256 of each of its files and the shape and dtype of each leaf.
The evaluator is another process: it pins what it reads, and what it has not yet evaluated stays for it.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from xlmr_jax.errors import UserError
from xlmr_jax.run import hosts
from xlmr_jax.run.metrics import write_json

MANIFEST = "MANIFEST.json"
STALE_PIN_S = 12 * 3600.0  # a pin this old is of an evaluator that is gone; a live one renews its own
_DELETING = "deleting-"  # a step on its way out has this before its name
# Several files and chunks, so that threads share the writing, reading and hashing of a large table.
_FILE_BYTES, _CHUNK_BYTES = 256 * 2**20, 64 * 2**20
_HASHING_THREADS = 16  # hashlib releases the GIL


class DamagedError(ValueError):
  """A checkpoint is not what was saved. The message names the file and what is wrong with it."""


def _absolute(directory: str | os.PathLike) -> epath.Path:
  """Orbax refuses relative paths, late."""
  return epath.Path(os.path.abspath(directory))


def _sha256(path: epath.Path) -> str:
  with path.open("rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _each(work: Callable[[Any], Any], items: Iterable) -> Iterator:
  """work of each item in its order, in threads; what one raises comes at its turn."""
  with concurrent.futures.ThreadPoolExecutor(min(_HASHING_THREADS, os.cpu_count() or 1)) as pool:
    futures = [pool.submit(work, item) for item in items]
    try:
      for future in futures:
        yield future.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _digest(manifest: dict) -> str:
  body = {key: value for key, value in manifest.items() if key != "digest"}
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _leaves(tree: Any) -> dict[str, list]:
  """{path: [shape, dtype]} of a tree of arrays or of their shapes."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(x.shape), str(x.dtype)] for path, x in flat}


def _files(directory: epath.Path) -> list[epath.Path]:
  """All files below a checkpoint but its manifest; epath knows no recursive glob."""
  found = []
  for path in directory.iterdir():
    found += _files(path) if path.is_dir() else [path] if not path.name.startswith(MANIFEST) else []
  return sorted(found)


def write_manifest(directory: epath.Path, leaves: dict[str, list]) -> None:
  """Seals a finished checkpoint directory."""
  paths = _files(directory)
  files = {
    str(path.relative_to(directory)): {"bytes": path.stat().length, "sha256": sha256}
    for path, sha256 in zip(paths, _each(_sha256, paths))
  }
  manifest = {"step": int(directory.name), "files": files, "leaves": leaves}
  manifest["digest"] = _digest(manifest)
  temporary = directory / f"{MANIFEST}.tmp"
  temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True))
  temporary.rename(directory / MANIFEST)


def verify(directory: epath.Path) -> dict:
  """The manifest of a checkpoint whose every file is as saved. Raises DamagedError naming the first that is not."""
  try:
    manifest = json.loads((directory / MANIFEST).read_bytes())
    sound = manifest["digest"] == _digest(manifest) and manifest["step"] == int(directory.name)
  except FileNotFoundError:
    raise DamagedError(f"{directory / MANIFEST} is missing: the save was not finished") from None
  except (ValueError, KeyError, TypeError, UnicodeDecodeError):
    sound = False
  if not sound:
    raise DamagedError(f"{directory / MANIFEST} does not match its own digest")

  def verify_file(item: tuple[str, dict]) -> None:
    path, expected = directory / item[0], item[1]
    if not path.exists():
      raise DamagedError(f"{path} is missing")
    if path.stat().length != expected["bytes"]:
      raise DamagedError(f"{path} has {path.stat().length} bytes, saved were {expected['bytes']}")
    if _sha256(path) != expected["sha256"]:
      raise DamagedError(f"{path} has changed since it was saved (sha256 differs)")

  for _ in _each(verify_file, manifest["files"].items()):
    pass
  return manifest


def _steps(directory: epath.Path) -> list[int]:
  """Steps with a finished Orbax directory, newest first."""
  return sorted((int(path.name) for path in directory.iterdir() if path.name.isdigit()), reverse=True)


def _refuse_other_leaves(directory: epath.Path, step: int, saved: dict, wanted: dict) -> None:
  for name in sorted({*saved, *wanted}):
    if saved.get(name) != wanted.get(name):
      describe = lambda x: "absent" if x is None else f"{x[1]}{x[0]}"  # noqa: E731
      raise UserError(
        f"checkpoint {step} in {directory} has {name} {describe(saved.get(name))}, this run "
        f"{describe(wanted.get(name))}; use the config it was made with or a new workdir"
      )


# --- retention ---------------------------------------------------------------------------------------------------


def evaluation_path(workdir: str | os.PathLike, step: int) -> Path:
  """The ledger's record of a step; that it is there says that nothing more will be done about the step."""
  return Path(workdir) / "evaluations" / f"{step}.json"


def evaluated_steps(workdir: str | os.PathLike) -> set[int]:
  return {int(path.stem) for path in (Path(workdir) / "evaluations").glob("*.json") if path.stem.isdigit()}


def _pins(workdir: str | os.PathLike) -> Path:
  return Path(workdir) / "evaluations" / "pins"


def renew_pin(workdir: str | os.PathLike, step: int) -> None:
  write_json(_pins(workdir) / str(step), {"pid": os.getpid(), "time": time.time()})


@contextlib.contextmanager
def pin(workdir: str | os.PathLike, step: int) -> Iterator[None]:
  """Keeps a step from being removed. Look whether it is still there only once it is pinned."""
  _pins(workdir).mkdir(parents=True, exist_ok=True)
  renew_pin(workdir, step)
  try:
    yield
  finally:
    (_pins(workdir) / str(step)).unlink(missing_ok=True)


def clear_pins(workdir: str | os.PathLike) -> None:
  """For an evaluator that knows itself to be the only one: removes the pins of one that was killed."""
  for path in _pins(workdir).glob("*"):
    path.unlink(missing_ok=True)


def pinned_steps(workdir: str | os.PathLike) -> set[int]:
  """Steps with a pin that is not stale. A pin that cannot be read counts."""
  found = set()
  for path in _pins(workdir).glob("*"):
    if not path.name.isdigit():
      continue
    try:
      age = time.time() - json.loads(path.read_text())["time"]
    except FileNotFoundError:
      continue
    except (OSError, ValueError, KeyError, TypeError):
      age = 0.0
    if age < STALE_PIN_S:
      found.add(int(path.name))
  return found


def best_step(workdir: str | os.PathLike) -> int | None:
  """The step of best.json, if there is one."""
  try:
    return int(json.loads((Path(workdir) / "best.json").read_text())["step"])
  except (OSError, ValueError, KeyError, TypeError):
    return None


def steps_to_keep(
  steps: Iterable[int],
  *,
  keep: int,
  keep_every: int = 0,
  pinned: Iterable[int] = (),
  unevaluated: Iterable[int] = (),
  keep_unevaluated: int = 0,
  best: int | None = None,
) -> set[int]:
  """Those of steps that stay: the newest `keep`, multiples of keep_every (0: none), pinned ones, the best one, and of
  the unevaluated ones, which the evaluator has yet to see, the newest keep_unevaluated.
  """
  steps = set(steps)
  waiting = sorted(steps & set(unevaluated))
  stays = {*sorted(steps)[-keep:], *pinned, best, *waiting[max(len(waiting) - keep_unevaluated, 0) :]}
  return steps & (stays | {step for step in steps if keep_every and step % keep_every == 0})


# --- a run's checkpoints -----------------------------------------------------------------------------------------


class _Manager(ocp.CheckpointManager):
  """Orbax asks for preemption with its own step count, which would overwrite the one hosts.Preemption agrees by."""

  def reached_preemption(self, step: int) -> bool:
    return False


_copied = jax.jit(lambda state, room: jax.tree.map(jnp.copy, state), donate_argnums=1, keep_unused=True)


class Checkpoints:
  """The checkpoints of one run. Every process constructs it and makes the same calls.

  keep: how many of the newest stay; at least 2, so that a verified one remains while the newest is being sealed.
  keep_every: steps that are multiples of this stay for good (0: none).
  is_eligible: whether an evaluator is to see a step (None: there is no evaluator). So many as keep_unevaluated wait for
  it; any older one is dropped, which is said and written into the ledger.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep: int = 2,
    keep_every: int = 0,
    is_eligible: Callable[[int], bool] | None = None,
    keep_unevaluated: int = 0,
  ):
    if keep < 2:
      raise UserError(f"config.checkpoint.keep={keep}: at least 2, or a damaged newest one leaves nothing")
    self.directory = _absolute(directory)
    self._keep, self._keep_every, self._keep_unevaluated = keep, keep_every, keep_unevaluated
    self._is_eligible = is_eligible or (lambda step: False)
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
        # Orbax would decide when a save starts and delete when it ends; pins have to be read in between.
        preservation_policy=checkpoint_managers.LatestN(None),  # all
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
        save_root_metadata=False,
      ),
    )
    self._sealer = concurrent.futures.ThreadPoolExecutor(1, "seal")
    self._unsealed: tuple[int, dict] | None = None
    self._sealing: concurrent.futures.Future | None = None
    self._room: Any = None  # on a CPU: memory for the copy of a state that is being written

  def restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
    """(step, state, notes) of the newest checkpoint that verifies, or None in a fresh workdir.

    abstract_state: jax.ShapeDtypeStruct leaves with shardings. Damaged and unfinished steps are named on stderr and
    make way, the damaged ones to `damaged/` beside the checkpoints: the run makes those steps again, bit for bit.
    UserError when none of several is sound, or when the newest sound one has other leaves than abstract_state.
    """
    found = self._restore_latest(abstract_state)
    if jax.default_backend() == "cpu":  # in the background, and not in the way of the first save
      shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
      self._room = jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_state), out_shardings=shardings
      )()
    return found

  def _restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
    step = hosts.on_first(self._choose)
    self._manager.reload()  # what process 0 moved away is gone for every process
    if step == -2:
      raise UserError(f"none of the checkpoints in {self.directory} is sound (see above); start in a new workdir")
    if step < 0:
      return None
    manifest = json.loads((self.directory / str(step) / MANIFEST).read_bytes())
    _refuse_other_leaves(self.directory, step, manifest["leaves"], _leaves(abstract_state))
    notes = self._manager.restore(step, args=ocp.args.Composite(notes=ocp.args.JsonRestore()))["notes"]
    return step, _restore(self.directory / str(step) / "state", abstract_state), notes

  def _choose(self) -> int:
    """Newest sound step; -1 when no save was ever finished, -2 when none of the finished ones is sound.

    A save that was killed before its manifest is removed; a damaged one is moved aside, but only for a sound one.
    """
    unfinished, damaged = [], []
    for path in self.directory.glob(f"{_DELETING}*"):  # killed while it removed a step; whole ones come back
      here = self.directory / path.name.removeprefix(_DELETING)
      if (path / MANIFEST).exists() and not here.exists():
        path.rename(here)
      else:
        path.rmtree()
    for step in _steps(self.directory):
      if not (self.directory / str(step) / MANIFEST).exists():
        unfinished.append(step)
        continue
      try:
        verify(self.directory / str(step))
        break
      except (DamagedError, OSError) as error:
        print(f"checkpoint {step} cannot be used: {error}", file=sys.stderr, flush=True)
        damaged.append(step)
    else:
      step = -2 if damaged else -1
    for name in unfinished:
      print(
        f"checkpoint {name} cannot be used: {self.directory / str(name) / MANIFEST} is missing: the save was not "
        "finished; removed",
        file=sys.stderr,
        flush=True,
      )
      (self.directory / str(name)).rmtree()
    if step >= 0:
      for name in damaged:
        aside = self.directory.parent / "damaged" / f"{name}-{time.time_ns()}"
        aside.parent.mkdir(exist_ok=True)
        (self.directory / str(name)).rename(aside)
        print(f"going back to checkpoint {step}; {name} is now {aside} (may be deleted)", file=sys.stderr, flush=True)
    return step

  def save(self, step: int, state: Any, notes: dict) -> None:
    """Starts an asynchronous save; a save still under way is waited for first. notes: small JSON kept with it."""
    self.wait()
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
      raise RuntimeError(f"Orbax refused to save step {step} in {self.directory}")
    self._unsealed = (step, _leaves(state))

  def _to_write(self, state: Any) -> Any:
    """What Orbax may read while the loop goes on and gives `state` away.

    Off an accelerator Orbax copies it to the host before its save() returns. A CPU's arrays it would write as they lie:
    their memory would not be free for the next step, which would take as much anew, from a busy system. So it gets a copy.
    """
    if jax.default_backend() != "cpu":
      return state
    self._room = _copied(state, self._room)
    return self._room

  def poll(self) -> None:
    """Seals a save that has finished in the background. Cheap; call it every step."""
    if self._unsealed and not self._manager.is_saving_in_progress():
      self._manager.wait_until_finished()  # raises what went wrong in the background, a full disk say
      step, leaves = self._unsealed
      self._unsealed = None
      if self._is_first:
        self._sealing = self._sealer.submit(self._seal, step, leaves)

  def _seal(self, step: int, leaves: dict) -> None:
    """On process 0, in the background: only a sealed checkpoint makes older ones superfluous."""
    write_manifest(self.directory / str(step), leaves)
    self._remove_superfluous()

  def _remove_superfluous(self) -> None:
    workdir, steps = self.directory.parent, _steps(self.directory)
    pinned = pinned_steps(workdir)  # before the ledger: a step loses its pin only once it is in there
    evaluated = evaluated_steps(workdir)
    unevaluated = {step for step in steps if self._is_eligible(step) and step not in evaluated}
    stays = steps_to_keep(
      steps,
      keep=self._keep,
      keep_every=self._keep_every,
      pinned=pinned,
      unevaluated=unevaluated,
      keep_unevaluated=self._keep_unevaluated,
      best=best_step(workdir),
    )
    for step in sorted({*steps} - stays):
      # Out of sight first, then the pins once more: one who pinned it before either sees it gone or gets it back.
      here, aside = self.directory / str(step), self.directory / f"{_DELETING}{step}"
      here.rename(aside)
      if step in pinned_steps(workdir):
        aside.rename(here)
        continue
      if step in unevaluated and not evaluation_path(workdir, step).exists():
        message = (
          f"checkpoint {step} is dropped unevaluated: more than config.evaluate.keep_unevaluated="
          f"{self._keep_unevaluated} wait for the evaluator"
        )
        print(message, file=sys.stderr, flush=True)
        evaluation_path(workdir, step).parent.mkdir(parents=True, exist_ok=True)
        write_json(evaluation_path(workdir, step), {"step": step, "error": message})
      (aside / MANIFEST).unlink(missing_ok=True)  # first: what has one is whole
      aside.rmtree()

  def wait(self) -> None:
    """Until everything saved so far is on disk and sealed. Raises what went wrong."""
    self._manager.wait_until_finished()
    self.poll()
    sealing, self._sealing = self._sealing, None
    if sealing:
      sealing.result()

  def close(self) -> None:
    """Waits; without it, leaving right after save() loses the checkpoint with exit code 0."""
    try:
      self.wait()
    finally:
      self._manager.close()
      self._sealer.shutdown()


def _restore(path: epath.Path, abstract: Any, *, partial: bool = False) -> Any:
  """The tree at path, whose files were verified, onto the shardings of abstract."""
  largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract))
  # Few arrays at a time: each then finds the memory that the one before has left, and new memory is what takes longest.
  handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=1 + largest // 10**9)
  return ocp.Checkpointer(handler).restore(
    path,
    args=ocp.args.PyTreeRestore(
      abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=partial
    ),
  )


def restore_params(directory: str | os.PathLike, step: int, abstract_params: Any) -> Any:
  """The parameters alone of one verified checkpoint; abstract_params as in Checkpoints.restore_latest.

  Raises DamagedError, or UserError when the parameters are other ones.
  """
  directory = _absolute(directory)
  manifest = verify(directory / str(step))
  saved = {name: leaf for name, leaf in manifest["leaves"].items() if name.startswith("params/")}
  _refuse_other_leaves(directory, step, saved, _leaves({"params": abstract_params}))
  return _restore(directory / str(step) / "state", {"params": abstract_params}, partial=True)["params"]


def sound_steps(directory: str | os.PathLike) -> list[int]:
  """Steps whose save was finished, newest first; their files are not read."""
  directory = _absolute(directory)
  return [step for step in _steps(directory) if (directory / str(step) / MANIFEST).exists()] if directory.exists() else []
