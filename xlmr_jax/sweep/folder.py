"""The folder of a sweep: sweep.json, which says what it is, the state of its runs, and who works on which of them."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

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
    return lock(workdir.root / ".sweep.lock", f"{workdir} is being run by another process")

  def is_done_elsewhere(self, run: Run, *, evaluating: bool) -> bool:
    """Whether a process that this one did not start holds the lock of the run's training, or of its evaluation."""
    workdir = self.workdir(run)
    try:
      (workdir.lock_evaluation if evaluating else workdir.lock_training)().close()
    except UserError:
      return True
    return False


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
        "seed": run.seed,
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
  before = read_description(folder)
  if before is not None:
    refuse_other_sweep(folder, before, value)
  if before is None or any(before.get(key) != value[key] for key in value if key != "version"):
    folder.root.mkdir(parents=True, exist_ok=True)
    # Starters of an array come at the same second.
    write_json(folder.record, value, many_writers=True)


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


def refuse_other_sweep(folder: SweepFolder, before: dict[str, Any], value: dict[str, Any]) -> None:
  """UserError, naming what differs, if the folder holds another sweep than `value` describes, or other runs."""
  for key in ("name", "arg"):
    if before.get(key) != value[key]:
      raise UserError(
        f"{folder} holds the sweep {before.get('name')}:{before.get('arg')}, not {value['name']}:{value['arg']}; use "
        "another --workdir"
      )
  old, new = before["overrides"], value["overrides"]
  changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not may_change(key))
  if changed and any(_has_begun(folder, run) for run in before["runs"]):
    what = ", ".join(f"{key}: {old.get(key, 'as the config has it')} there, {new.get(key, 'as the config has it')} here"
                     for key in changed)  # fmt: skip
    raise UserError(f"{folder} holds a sweep with other flags ({what}); give the same ones, or use another --workdir")
  old, new = before.get("config") or {}, value["config"]  # Keys that one version has and the other not are no difference.
  changed = sorted(key for key in old.keys() & new.keys() if old[key] != new[key] and not may_change(key))
  if changed and any(_has_begun(folder, run) for run in before["runs"]):
    what = ", ".join(f"{key}: {old[key]!r} there, {new[key]!r} here" for key in changed)
    raise UserError(f"{folder} holds a sweep whose config was another one ({what}); undo that, or use another --workdir")
  runs = {run["name"]: run for run in value["runs"]}
  for run in before["runs"]:
    now = runs.get(run["name"], {})
    if run.get("rows_made"):
      run = {**run, "rows_made": as_rows_are_written(run["rows_made"])}
    keys = [key for key in ("changes", "rows", "rows_made", "settings") if key in run]  # 0.1.0 has no rows_made.
    differs = next((key for key in keys if now.get(key) != run.get(key)), None)
    if differs is None or not _has_begun(folder, run):
      continue  # What has not begun may still change.
    if not now:
      raise UserError(f"{folder} has the run {run['name']}, which {value['name']} no longer has; use another --workdir")
    raise UserError(
      f"{folder}: {run['name']} was begun with {differs}={run.get(differs)}, and {value['name']} now says {now[differs]}; "
      "use another --workdir"
    )


def may_change(key: str) -> bool:
  """Whether the runs of a sweep may differ in a key that the sweep itself does not change."""
  return is_below(key, MAY_CHANGE) and (not is_below(key, _COMMON) or is_below(key, _PLACES))


def refuse_other_rows(folder: SweepFolder, run: Run, rows: AnyPath, others: Iterable[Run]) -> None:
  """UserError if the sweep's runs on the rows of this name were trained on other ones. rows: the folder of this run's."""
  if not (rows / "manifest.json").exists():  # The training says what is wrong with it.
    return
  begun = [folder.workdir(other) for other in others if other.rows == run.rows and folder.workdir(other).record.exists()]
  now = read_manifest(rows)["fingerprint"] if begun else ""
  for workdir in begun:
    before = read_record(workdir).rows_fingerprint
    if before != now:
      raise UserError(f"{rows}: other rows (fingerprint {now[:12]}) than {workdir} was trained on ({str(before)[:12]}); the "
                      "runs of a sweep must have the same")  # fmt: skip


def _has_begun(folder: SweepFolder, run: dict[str, Any]) -> bool:
  """Whether a run of sweep.json has left anything that another config would not go with."""
  return Workdir(below(folder.root, run["name"])).record.exists()


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
