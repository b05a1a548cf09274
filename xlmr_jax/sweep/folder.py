"""The folder of a sweep: sweep.json, which says what it is, the state of its runs, and who works on which of them."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax import bucket_lock
from xlmr_jax.config import is_below
from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import AnyPath, Lock, any_path, flatten, lock, read_json, read_sealed_json, write_json
from xlmr_jax.names import below
from xlmr_jax.run.workdir import MAY_CHANGE, Workdir, read_record
from xlmr_jax.sweep.runs import ROWS_FOLDER, Run, Sweep, as_rows_are_written

# What a single run may change on its way, and what the runs of a sweep must have in common: else a figure would put together
# what was measured in two ways. Where files lie is each machine's own affair.
_COMMON, _PLACES = ("held_out", "evaluate", "stop", "data.rows"), ("evaluate.folder", "evaluate.data", "evaluate.modules")
NEW, BEGUN, TRAINED, UNSCORED, DONE = "new", "begun", "trained", "unscored", "done"  # what state() returns
_CLAIM = ".sweep.lock"  # in a run's folder
_PATIENCE_S = 30.0  # for another starter that reads and writes sweep.json at this moment
_CLAIM_WITHIN_S = 0.5  # so long a claim is tried, because another starter's _is_claimed may have it for an instant


class SweepFolder:
  """The paths of a sweep's folder. Making one touches nothing."""

  def __init__(self, root: str | os.PathLike):
    self.root = any_path(root)
    self.record = self.root / "sweep.json"
    self.rows = self.root / ROWS_FOLDER

  def __str__(self) -> str:
    return str(self.root)

  def workdir(self, run: Run) -> Workdir:
    """The workdir of a run."""
    return Workdir(self.root / run.name)

  def claim(self, run: Run) -> Lock:
    """Takes a run until what is returned is closed. UserError if another process has it."""
    workdir = self.workdir(run)
    workdir.root.mkdir(parents=True, exist_ok=True)
    return _lock_within(_CLAIM_WITHIN_S, workdir.root / _CLAIM, f"{workdir} is being run by another process")

  @contextlib.contextmanager
  def alone(self) -> Iterator[None]:
    """While it is open, no other starter reads and then writes sweep.json. In a bucket it keeps nobody out."""
    if not isinstance(self.root, Path):
      yield
      return
    self.root.mkdir(parents=True, exist_ok=True)
    message = f"{self.record} is being written by another process; try again"
    with _lock_within(_PATIENCE_S, self.root / ".sweep.json.lock", message):
      yield

  def is_done_elsewhere(self, run: Run, *, evaluating: bool) -> bool:
    """Whether a process that this one did not start holds the lock of the run's training, or of its evaluation."""
    workdir = self.workdir(run)
    try:
      (workdir.lock_evaluation if evaluating else workdir.lock_training)().close()
    except UserError:
      return True
    return False


def _lock_within(limit_s: float, path: AnyPath, message: str) -> Lock:
  """lock(), which on a disk is tried again until limit_s is over. UserError(message): another process holds it that long."""
  gives_up_at = time.monotonic() + limit_s
  while True:
    try:
      return lock(path, message)
    except UserError:
      if not isinstance(path, Path) or time.monotonic() > gives_up_at:
        raise
    time.sleep(0.05)


def describe(sweep: Sweep, overrides: Mapping[str, Any], version: str = "") -> dict[str, Any]:
  """The content of sweep.json, as JSON would give it back. docs/sweeps.md explains each key. version: of this package."""
  value = {
    "name": sweep.name,
    "arg": sweep.arg,
    "version": version,
    **dataclasses.asdict(sweep.study),
    "x_label": sweep.study.x_label or sweep.study.x,
    "overrides": dict(overrides),
    "config": flatten(sweep.base.to_dict()),
    "runs": [
      {
        "name": run.name,
        "values": dict(run.values),
        "seed": overrides.get("seed", run.seed),
        "changes": dict(run.changes),
        "rows": run.rows and run.rows.name,
        "rows_made": run.rows and dataclasses.asdict(run.rows),
        "settings": list(run.settings),
      }
      for run in sweep.runs
    ],
  }
  return json.loads(json.dumps(value))


def open_folder(folder: SweepFolder, value: dict[str, Any]) -> None:
  """Writes sweep.json, unless it is there as it should be. A sweep may get more runs, and nothing else may change.

  Raises UserError: the folder holds another sweep, a run, or a sweep.json that cannot be read.
  """
  if Workdir(folder.root).record.exists():
    raise UserError(f"{folder} is the workdir of a run; a sweep needs a folder of its own")
  with folder.alone():  # Starters of an array come at the same second.
    before = read_description(folder)
    if before is None and _create(folder.record, value):
      return
    before = before or read_description(folder) or value
    refuse_other_sweep(folder, before, value, lambda run: _has_begun(folder, run) or _is_claimed(folder, run))
    if any(before.get(key) != value[key] for key in value if key != "version"):
      write_json(folder.record, value, many_writers=True)


def _create(path: AnyPath, value: dict[str, Any]) -> bool:
  """Writes sweep.json unless there is one; whether there was none. On a disk, others are kept out meanwhile."""
  if isinstance(path, Path):
    write_json(path, value, many_writers=True)
    return True
  return bucket_lock.create(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_description(folder: SweepFolder) -> dict[str, Any] | None:
  """sweep.json, or None where there is none. UserError: it is damaged."""
  try:
    value = read_json(folder.record)
    if not isinstance(value, dict) or not isinstance(value.get("overrides"), dict):
      raise ValueError("it is no description of a sweep")
    if not all(isinstance(run, dict) and {"name", "changes"} <= run.keys() for run in value["runs"]):
      raise ValueError("a run lacks its name or its changes")
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{folder.record} cannot be read ({error}); remove it, and the next start writes it anew") from None
  return value


def refuse_other_sweep(
  folder: SweepFolder,
  before: dict[str, Any],
  value: dict[str, Any],
  is_begun: Callable[[dict[str, Any]], bool] | None = None,
) -> None:
  """UserError, naming what differs, if the folder holds another sweep than `value` describes, or other runs.

  is_begun: whether a run of sweep.json must stay as it is; by default, whether it has left anything.
  """
  is_begun = is_begun or (lambda run: _has_begun(folder, run))
  for key in ("name", "arg"):
    if before.get(key) != value[key]:
      raise UserError(
        f"{folder} holds the sweep {before.get('name')}:{before.get('arg')}, not {value['name']}:{value['arg']}; use "
        "another --workdir"
      )
  changed = _other_flags(before, value)
  if changed and any(map(is_begun, before["runs"])):
    raise UserError(f"{folder} holds a sweep with other flags ({changed}); give the same ones, or use another --workdir")
  changed = _other_config(before, value)
  if changed and any(map(is_begun, before["runs"])):
    raise UserError(f"{folder} holds a sweep whose config was another one ({changed}); undo that, or use another --workdir")
  runs = {run["name"]: run for run in value["runs"]}
  for run in before["runs"]:
    now = runs.get(run["name"], {})
    differs = _other_run(run, now)
    if differs is None or not is_begun(run):
      continue  # What has not begun may still change.
    if not now:
      raise UserError(f"{folder} has the run {run['name']}, which {value['name']} no longer has; use another --workdir")
    raise UserError(
      f"{folder}: {run['name']} was begun with {differs}={run.get(differs)}, and {value['name']} now says {now[differs]}; "
      "use another --workdir"
    )


def refuse_changed(folder: SweepFolder, run: Run, value: dict[str, Any]) -> None:
  """UserError if sweep.json says by now something else about a run that is about to begin than `value` does.

  Another starter with other flags may have written it while nothing had begun. To be called under the claim of the run,
  which that starter looks for.
  """
  with folder.alone():
    now = read_description(folder)
  if now is None:
    return
  own = next(one for one in value["runs"] if one["name"] == run.name)
  there = next((one for one in now["runs"] if one["name"] == run.name), {})
  which = [f"{key}: {now.get(key)} there, {value[key]} here" for key in ("name", "arg") if now.get(key) != value[key]]
  changed = ", ".join(which) or _other_flags(now, value) or _other_config(now, value)
  if not changed and (differs := _other_run(there, own) if there else "name"):
    changed = f"{differs} of the run: {there.get(differs, 'no such run')} there, {own[differs]} here"
  if changed:
    raise UserError(
      f"{folder.record}: another starter has changed the sweep since this one began ({changed}); end one of them, and "
      "start the other one again"
    )


def _other_flags(before: dict[str, Any], value: dict[str, Any]) -> str:
  """What differs between the flags of two descriptions, of what must not; "" if nothing does."""
  old, new = before["overrides"], value["overrides"]
  changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not may_change(key))
  is_default = "as the config has it"
  return ", ".join(f"{key}: {old.get(key, is_default)} there, {new.get(key, is_default)} here" for key in changed)


def _other_config(before: dict[str, Any], value: dict[str, Any]) -> str:
  """The same for their configs. Keys that one version has and the other not are no difference."""
  old, new = before.get("config") or {}, value["config"]
  changed = sorted(key for key in old.keys() & new.keys() if old[key] != new[key] and not may_change(key))
  return ", ".join(f"{key}: {old[key]!r} there, {new[key]!r} here" for key in changed)


def _other_run(before: dict[str, Any], now: dict[str, Any]) -> str | None:
  """The key by which a run of sweep.json differs from what it is now, or None."""
  if before.get("rows_made"):
    before = {**before, "rows_made": as_rows_are_written(before["rows_made"])}
  keys = [key for key in ("changes", "rows", "rows_made", "settings") if key in before]  # 0.1.0 has no rows_made.
  return next((key for key in keys if now.get(key) != before.get(key)), None)


def may_change(key: str) -> bool:
  """Whether the runs of a sweep may differ in a key that the sweep itself does not change."""
  return is_below(key, MAY_CHANGE) and (not is_below(key, _COMMON) or is_below(key, _PLACES))


def refuse_other_rows(folder: SweepFolder, run: Run, rows: AnyPath, others: Iterable[Run]) -> None:
  """UserError if the sweep's runs on the rows of this name were trained on other ones. rows: the folder of this run's."""
  if not (rows / "manifest.json").exists():  # The training says what is wrong with it.
    return
  now = ""
  for other in others:
    workdir = folder.workdir(other)
    try:
      if other.rows != run.rows or not workdir.record.exists():
        continue
      before = read_record(workdir).rows_fingerprint
    except (UserError, OSError):  # That run's own start tells it; this one can be compared with the others.
      continue
    now = now or read_manifest(rows)["fingerprint"]
    if before != now:
      raise UserError(f"{rows}: other rows (fingerprint {now[:12]}) than {workdir} was trained on ({str(before)[:12]}); the "
                      "runs of a sweep must have the same")  # fmt: skip


def _has_begun(folder: SweepFolder, run: dict[str, Any]) -> bool:
  """Whether a run of sweep.json has left anything that another config would not go with, as far as can be seen."""
  try:
    return Workdir(below(folder.root, run["name"])).record.exists()
  except OSError:  # Somebody else's folder, say: its own state tells what is wrong with it.
    return True


def _is_claimed(folder: SweepFolder, run: dict[str, Any]) -> bool:
  """Whether a starter has claimed a run of sweep.json: it may be building its rows, or be about to begin it."""
  claim = below(folder.root, run["name"]) / _CLAIM
  try:
    if claim.exists():
      lock(claim, "").close()
  except UserError:
    return True
  except OSError:
    return False
  return False


def state(workdir: Workdir, run: Run, config: ConfigDict, *, scores: bool = True) -> str:
  """How far a run is: new | begun | trained | unscored | done. scores: whether its tasks are the sweep's to score.

  unscored: its last step is in the evaluator's ledger, by which nothing more will be done about it, but a task failed.
  """
  if not workdir.result.exists():
    return BEGUN if workdir.record.exists() else NEW
  if not scores or not config.evaluate.tasks:
    return DONE
  step = last_step(workdir)
  if not run.settings:
    return _scored_by_ledger(workdir, step)
  return TRAINED if missing_settings(workdir.final_score("latest"), run, config, step) else DONE


def last_step(workdir: Workdir) -> int:
  """The step at which a run has ended. UserError: its result is damaged."""
  try:
    return int(read_json(workdir.result)["step"])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{workdir.result} cannot be read ({one_line(error)}); remove it and the run writes it anew") from None


def _scored_by_ledger(workdir: Workdir, step: int) -> str:
  path = workdir.evaluation(step)
  try:
    entry = read_sealed_json(path)
    return UNSCORED if entry.get("error") or entry.get("errors") else DONE
  except FileNotFoundError:
    return TRAINED
  except (OSError, ValueError, AttributeError) as error:
    raise UserError(f"{path} cannot be read ({one_line(error)}); remove it to have the step scored again") from None


def missing_settings(path: AnyPath, run: Run, config: ConfigDict, step: int) -> tuple[str, ...]:
  """The settings of a run in which a file of final scores lacks a task at this step; all where it cannot be read."""
  try:
    found = read_sealed_json(path)
    if found["step"] != step:
      return run.settings
    lacking = [setting for setting in run.settings
               if not all(setting in found["scores"].get(task, ()) for task in config.evaluate.tasks)]  # fmt: skip
    return tuple(lacking)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return run.settings
