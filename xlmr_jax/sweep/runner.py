"""What a starter of a sweep does: one run after another, each trained and scored by the commands that do so for any run."""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.errors import EXIT_INTERRUPTED, EXIT_RESTART, EXIT_USER, UserError, told
from xlmr_jax.files import AnyPath, flatten, read_json
from xlmr_jax.given_paths import refuse_unwritable
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.children import run_child
from xlmr_jax.sweep import rows as rows_of_sweep
from xlmr_jax.sweep.folder import (
  BEGUN,
  DONE,
  NEW,
  TRAINED,
  UNSCORED,
  SweepFolder,
  describe,
  last_step,
  missing_settings,
  refuse_changed,
  refuse_other_rows,
  state,
)
from xlmr_jax.sweep.runs import Run, Sweep, config_of, flags_of

_XLMR = [sys.executable, "-m", "xlmr_jax"]
_ENDS_THE_SWEEP = (EXIT_RESTART, EXIT_INTERRUPTED)


class StoppedError(Exception):
  """The sweep was told to end, or a run was: `code` is the exit code."""

  def __init__(self, code: int):
    super().__init__(code)
    self.code = code


class Children:
  """Runs commands one at a time. Told to end by SIGTERM or Ctrl-C, it raises StoppedError once the command has ended."""

  def __init__(self):
    self._told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._stop)

  def _stop(self, number: int, _: object) -> None:
    """Between two commands nothing is under way, so that the sweep may end at once."""
    raise StoppedError(EXIT_RESTART if number == signal.SIGTERM else EXIT_INTERRUPTED)

  def __call__(self, command: list[str]) -> int:
    """The exit code of a command. Raises StoppedError: it was preempted or interrupted."""
    code = run_child(command, told=self._told)
    if self._told or code in _ENDS_THE_SWEEP:
      interrupted = code == EXIT_INTERRUPTED or (self._told and self._told[0] == signal.SIGINT)
      raise StoppedError(EXIT_INTERRUPTED if interrupted else EXIT_RESTART)
    return code


@dataclasses.dataclass(frozen=True)
class Plan:
  """A sweep in its folder, with what the command line says about all its runs."""

  sweep: Sweep
  folder: SweepFolder
  overrides: Mapping[str, Any]
  given_rows: AnyPath | None = None  # of --rows
  text: AnyPath | None = None  # of --text
  hosts: tuple[str, ...] = ()  # flags of a run of several processes; then it is scored by evaluators of its own
  _configs: dict[tuple[str, str], ConfigDict] = dataclasses.field(default_factory=dict)  # made once: it is slow

  @property
  def description(self) -> dict[str, Any]:
    """What sweep.json says of this sweep, but for the version."""
    return describe(self.sweep, self.overrides)

  def rows_of(self, run: Run) -> AnyPath | None:
    """The folder of a run's rows, or None if its config names them."""
    if run.rows is not None:
      return rows_of_sweep.folder_of(run.rows, self.given_rows, self.folder.rows)
    return self.given_rows

  def names_rows(self, run: Run) -> bool:
    """Whether it is known which rows a run reads."""
    keys = {**flatten(self.sweep.base.to_dict()), **self.overrides, **run.changes}
    return bool(self.rows_of(run) or keys["data.rows"])

  def config(self, run: Run) -> ConfigDict:
    """The config of a run, checked. Raises UserError."""
    return self._config(run, str(self.rows_of(run) or ""))

  def config_without_rows(self, run: Run) -> ConfigDict:
    """The same where it need not be known which rows the run reads."""
    return self.config(run) if self.names_rows(run) else self._config(run, "ROWS")

  def _config(self, run: Run, rows: str) -> ConfigDict:
    if (run.name, rows) not in self._configs:
      self._configs[run.name, rows] = config_of(self.sweep, run, self.overrides, rows)
    return self._configs[run.name, rows]

  def state(self, run: Run) -> str:
    """How far a run is: see folder.state."""
    return state(self.folder.workdir(run), run, self.config_without_rows(run), scores=not self.hosts)

  def pretrain(self, run: Run) -> list[str]:
    """The command that trains a run, from where it is."""
    where = self.rows_of(run)
    rows = [f"--config.data.rows={where}"] if where is not None else []
    return [*_XLMR, "pretrain", f"--config={self.sweep.config_flag}", f"--workdir={self.folder.workdir(run)}",
            *rows, *flags_of(self.overrides), *flags_of(run.changes), *self.hosts]  # fmt: skip

  def evaluate(self, run: Run) -> list[str]:
    """The command that scores a run which is trained, in the settings that it has no scores of yet."""
    how = ["--once"]
    if run.settings:
      workdir = self.folder.workdir(run)
      left = missing_settings(workdir.final_score("latest"), run, self.config_without_rows(run), last_step(workdir))
      how = ["--checkpoint=latest", f"--settings={','.join(left or run.settings)}"]
    keys = {key: x for key, x in {**self.overrides, **run.changes}.items() if key.startswith(("evaluate.", "stop."))}
    if run.settings:
      keys.pop("evaluate.setting", None)  # --settings takes its place, and the two together are refused.
    return [*_XLMR, "evaluate", f"--workdir={self.folder.workdir(run)}", *how, *flags_of(keys)]


def check(plan: Plan, runs: tuple[Run, ...]) -> None:
  """Refuses, before the first run, rows that are missing and every config that would fail. Raises UserError."""
  rows_of_sweep.refuse_missing(runs, plan.given_rows, plan.folder.rows, plan.text)
  for run in runs:
    where = plan.rows_of(run)
    rows_of_sweep.refuse_without_words(run, where, plan.given_rows is not None, plan.config(run))


def do_run(plan: Plan, run: Run, execute: Callable[[list[str]], int]) -> int:
  """Trains and scores one run from where it is. Returns the exit code of what failed, or 0.

  Raises UserError: a run that is new is no longer what sweep.json says, or its rows are others than those of the begun runs;
  or it has no scores of its last step although its evaluation ended well.
  """
  code = 0
  is_new = plan.state(run) == NEW
  if is_new:
    refuse_changed(plan.folder, run, plan.description)
  if run.rows and plan.given_rows is None:
    code = rows_of_sweep.build(run.rows, plan.folder.rows / run.rows.name, plan.text, execute)
    if is_new and not code:  # That may have taken hours.
      refuse_changed(plan.folder, run, plan.description)
  if not code and is_new and (rows := plan.rows_of(run)) is not None:
    refuse_other_rows(plan.folder, run, rows, plan.sweep.runs)
    if line := rows_of_sweep.say_other_count(run, rows):
      _say(f"{run.name}: {line}")
  if not code and plan.state(run) in (NEW, BEGUN):
    code = execute(plan.pretrain(run))
  if not code and plan.state(run) == TRAINED:
    code = execute(plan.evaluate(run))
    if not code:
      code = _code_of_scores(plan, run)
  return code


def _code_of_scores(plan: Plan, run: Run) -> int:
  """0 if a run has its scores once its evaluation ended well, else EXIT_USER. UserError, with the reason: it has none.

  The evaluator has done its work where it wrote down that a checkpoint cannot be loaded, and where none is left to score.
  """
  found, workdir = plan.state(run), plan.folder.workdir(run)
  if found != TRAINED:
    return 0 if found == DONE else EXIT_USER
  step = last_step(workdir)
  if step not in sound_steps(workdir.checkpoints):
    raise UserError(f"{workdir} has no scores of its last step, because {workdir.checkpoints / str(step)} is missing; bring "
                    f"it back, or remove {workdir.result} to train on from the newest checkpoint that is left")  # fmt: skip
  raise UserError(f"{workdir} has no scores of its last step {step}, although `xlmr evaluate` ended well; what it said is "
                  "above")  # fmt: skip


def run_all(plan: Plan, runs: tuple[Run, ...], execute: Callable[[list[str]], int]) -> tuple[dict[str, int], list[str]]:
  """Runs what is left of `runs`, one after another. A run that another process works on is left to it.

  Returns ({run that failed: exit code}, [runs that other processes work on]).
  """
  failed: dict[str, int] = {}
  elsewhere: list[str] = []
  for number, run in enumerate(runs):
    where = f"{run.name} ({number + 1} of {len(runs)})"
    try:
      _run_one(plan, run, where, execute, failed, elsewhere)
    except (UserError, OSError) as error:  # Of this run alone: a damaged file, or a folder that is somebody else's.
      line = told(error)
      if not line:
        raise
      _say(f"{where}: {line}")
      failed[run.name] = EXIT_USER
  return failed, elsewhere


def _run_one(
  plan: Plan, run: Run, where: str, execute: Callable[[list[str]], int], failed: dict[str, int], elsewhere: list[str]
) -> None:
  """One run of run_all, which is named in `failed` or `elsewhere` where it is not done then. Raises UserError, OSError."""
  found = plan.state(run)
  if found == UNSCORED:
    _say(f"{where}: trained, but a task could not be scored; remove {plan.folder.workdir(run).evaluations} to try again")
    failed[run.name] = EXIT_USER
    return
  if found == DONE:
    _say(f"{where}: done")
    return
  root = plan.folder.workdir(run).root
  if isinstance(root, Path):
    refuse_unwritable(root, folder=True)  # That says more than the error of making the folder.
  with contextlib.ExitStack() as stack:
    if not plan.hosts:
      try:
        stack.enter_context(plan.folder.claim(run))
      except UserError as error:
        _say(f"{where}: {error}")
        elsewhere.append(run.name)
        return
    found = plan.state(run)  # Whoever had the run a moment ago may have ended it.
    code = 0
    if found in (NEW, BEGUN, TRAINED):
      _say(f"{where}: {'begins' if found == NEW else 'goes on'}")
      code = do_run(plan, run, execute)
    evaluating = plan.state(run) in (TRAINED, UNSCORED)
    if code == EXIT_USER and plan.folder.is_done_elsewhere(run, evaluating=evaluating):
      elsewhere.append(run.name)  # Not by a sweep, but by `xlmr pretrain` or `xlmr evaluate`.
    elif code:
      _say(f"{where}: failed with exit {code}; the reason is above")
      failed[run.name] = code


def summary(plan: Plan, runs: tuple[Run, ...], failed: dict[str, int], elsewhere: list[str]) -> dict[str, Any]:
  """What the command prints at its end."""
  losses = {}
  for run in plan.sweep.runs:
    try:
      losses[run.name] = read_json(plan.folder.workdir(run).result)["held_out_loss"]
    except (OSError, ValueError, KeyError, TypeError):  # Not there; or damaged, which `state` tells.
      continue
  return {"sweep": plan.sweep.config_flag, "workdir": str(plan.folder), "runs": len(runs), "held_out_loss": losses,
          "failed": failed, "elsewhere": elsewhere}  # fmt: skip


def _say(text: str) -> None:
  print(f"sweep: {text}", file=sys.stderr, flush=True)
