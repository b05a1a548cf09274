"""Follows a run's checkpoints: each eligible one is scored once and in order, and the scores end the training.

The trainer is another process, perhaps on another machine, that sees the same workdir. A killed evaluator goes on
where it was, because evaluations/STEP.json, written last, says that a step is done.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from ml_collections import ConfigDict

from xlmr_jax.errors import EXIT_DONE, UserError
from xlmr_jax.evaluation.ledger import Entry, conclude, read_ledger
from xlmr_jax.evaluation.tasks.registry import TASKS
from xlmr_jax.files import read_json
from xlmr_jax.folders import remove_folder
from xlmr_jax.progress import Progress
from xlmr_jax.run import board, stopping
from xlmr_jax.run.checkpoint import restore_params
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.hosts import versions
from xlmr_jax.run.manifest import DamagedError, digest_of, read_manifest
from xlmr_jax.run.retention import clear_pins, evaluated_steps, pin
from xlmr_jax.run.workdir import Workdir, read_stop
from xlmr_jax.secrets import redacted

T = TypeVar("T")


class Scores(Protocol):
  """What scores a checkpoint: scorer.Scorer, or a stand-in of a test."""

  def __call__(self, params: Any, step: int, seed: int) -> tuple[dict, dict]:
    """({task: {language: {metric: float}}}, {task: what went wrong})."""
    ...


# --- one checkpoint ------------------------------------------------------------------------------------------------


def waiting_steps(config: ConfigDict, workdir: Workdir, *, once: bool = False) -> list[int]:
  """Sealed eligible steps that are not in the ledger, in order. once: as in follow."""
  evaluated, last = evaluated_steps(workdir), _ended_at(config, workdir, once=once)
  return [
    step
    for step in sorted(sound_steps(workdir.checkpoints))
    if step not in evaluated
    and (step == last or stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps))
  ]


def _ended_at(config: ConfigDict, workdir: Workdir, *, once: bool) -> int | None:
  """The step at which a run has ended whose last checkpoint is eligible wherever that is; None while it goes on.

  Those are the runs that stop by their held-out loss, which write STOP.json before their last checkpoint; and, where what
  is there is scored once, every run, for example one that a user's STOP.json ended. result.json comes after the
  checkpoint, and goes when the run goes on.
  """
  if not (once or config.stop.by == "held_out") or not workdir.result.exists():
    return None
  try:
    return int(read_json(workdir.result)["step"])
  except FileNotFoundError:  # The run has begun again in between.
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{workdir.result} cannot be read ({error}); remove it and the run writes it anew") from None


def _twice(work: Callable[[], T], *, on: tuple[type[Exception], ...], pause_s: float = 1.0) -> T:
  """work(), and once more after a pause if it raises one of `on`."""
  try:
    return work()
  except on:
    time.sleep(pause_s)
  return work()


def load(workdir: Workdir, step: int, abstract_params: Any) -> tuple[Any, str]:
  """(parameters, the manifest's digest) of a pinned step, verified. Raises LookupError: it was dropped; DamagedError."""

  def require() -> None:
    if step not in sound_steps(workdir.checkpoints):
      raise LookupError(f"checkpoint {step} is dropped: the trainer removed it before it was read")

  def read() -> tuple[Any, str]:
    # The trainer brings back what it was removing when it saw the pin, so that a missing step may come back.
    _twice(require, on=(LookupError,))
    with Progress(f"reading checkpoint {step}"):
      params = restore_params(workdir.checkpoints, step, abstract_params)
    return params, read_manifest(workdir.checkpoints / str(step))["digest"]

  try:
    return _twice(read, on=(DamagedError, OSError))
  except OSError as error:
    raise DamagedError(str(error)) from error


def score_checkpoint(config: ConfigDict, step: int, params: Any, scorer: Scores) -> Entry:
  """The entry of one checkpoint with its scores over all seeds."""
  entry = Entry(step)
  for seed in seeds_of(config):
    try:
      found, failed = scorer(params, step, seed)
    except UserError as error:
      found, failed = {}, {task: redacted(str(error)) for task in config.evaluate.tasks}
    entry.errors |= failed
    for task, loss in getattr(scorer, "losses", {}).items():
      entry.losses.setdefault(task, []).append(float(loss) if stopping.is_finite(loss) else None)
    for task, languages in found.items():
      for language, values in languages.items():
        known = TASKS.get(task)
        entry.metrics.setdefault(task, known.metrics[0] if known else next(iter(values)))
        for metric, value in values.items():
          seeds = entry.scores.setdefault(task, {}).setdefault(language, {}).setdefault(metric, [])
          seeds.append(float(value) if stopping.is_finite(value) else None)  # JSON has no NaN.
  for task in config.evaluate.tasks:
    if task not in entry.scores and task not in entry.errors:
      entry.errors[task] = "no score"
  entry.missing = {task: list(languages) for task, languages in getattr(scorer, "missing", {}).items() if languages}
  return entry


def seeds_of(config: ConfigDict) -> tuple[int, ...]:
  """The numbers of the fine-tunings of a task: config.evaluate.seed_list, else 0 to config.evaluate.seeds - 1."""
  return tuple(map(int, config.evaluate.seed_list)) or tuple(range(config.evaluate.seeds))


def compare_languages(entry: Entry, ledger: list[Entry]) -> None:
  """A task of which languages were scored before and have no files now fails, because its means would not compare.

  Says it where languages have come.
  """
  for task, languages in entry.scores.items():
    before = next((old.scores[task] for old in reversed(ledger) if task in old.scores and task not in old.errors), languages)
    lost = [language for language in before if language in entry.missing.get(task, ())]
    come = sorted(set(languages) - set(before))
    if lost:
      entry.errors[task] = f"{', '.join(lost)} had files at earlier steps and have none now; restore them"
    elif come:
      print(f"{task}: {', '.join(come)} was not scored at earlier steps, so that the mean does not compare with theirs",
            file=sys.stderr, flush=True)  # fmt: skip


# What the numbers of a history have in common. Of a recipe the text is compared, because its batch follows the devices.
_COMMON = ("tasks", "languages", "setting", "recipe", "max_examples", "max_train_examples", "seeds", "seed_list", "dtype")


def refuse_other_evaluations(config: ConfigDict, workdir: Workdir) -> None:
  """UserError if the newest scores of the ledger are of other tasks, languages or a recipe: no rule can compare them."""
  newest = next((entry for entry in reversed(read_ledger(workdir)) if entry.scores), None)
  if newest is None or not isinstance(before := newest.recipe.get("evaluate"), dict):
    return
  now = json.loads(json.dumps(config.evaluate.to_dict()))  # JSON has no tuples.
  changed = [f"{key}={now[key]} (was {before[key]})" for key in _COMMON if key in before and before[key] != now[key]]
  if changed:
    raise UserError(
      f"the scores in {workdir.evaluations} up to step {newest.step} do not compare with config.evaluate."
      f"{', '.join(changed)}; give what they were made with, move that folder aside to score all checkpoints anew, or "
      "score one with --checkpoint"
    )


def evaluate_step(config: ConfigDict, workdir: Workdir, step: int, abstract_params: Any, scorer: Scores) -> Entry | None:
  """Evaluates a step and writes its entry, then best.json and STOP.json; None when the trainer recorded it meanwhile."""
  path, began = workdir.evaluation(step), time.monotonic()
  with pin(workdir, step):
    if path.exists():
      return None
    try:
      params, digest = load(workdir, step, abstract_params)
    except (LookupError, DamagedError) as error:
      entry = Entry(step, error=redacted(str(error.args[0])))
      if not path.exists():
        entry.write(workdir)
      print(f"step {step}: not evaluated: {entry.error}", flush=True)
      return entry
    entry = score_checkpoint(config, step, params, scorer)
    if not entry.scores and entry.errors and set(entry.errors) <= set(getattr(scorer, "unread", ())):
      refuse_without_data(entry.errors, f"; checkpoint {step} waits")
    if _is_made_again(workdir, step, digest):
      return None
    compare_languages(entry, read_ledger(workdir))
    entry.score = entry.score_of(config.stop.score)
    del params
    recipe = getattr(scorer, "recipe", dict)
    entry.digest, entry.versions, entry.seconds = digest, versions(), round(time.monotonic() - began, 3)
    entry.recipe = {"evaluate": config.evaluate.to_dict()} | recipe()
    entry.write(workdir)
    if _is_made_again(workdir, step, digest):  # Since the ledger was read, which the run could not clear of this entry.
      path.unlink(missing_ok=True)
      return None
    decision = conclude(config, workdir, step)  # While the pin holds, because the best one is copied.
  # By the held-out loss, evaluations end nothing, and so none are counted.
  print(describe(entry, decision, config.stop.patience if config.stop.by == "score" else 0), flush=True)
  return entry


def _is_made_again(workdir: Workdir, step: int, digest: str) -> bool:
  """Whether a step's checkpoint is another one by now than the one of this digest; says so."""
  if digest_of(workdir.checkpoints / str(step)) in (None, digest):
    return False
  print(f"step {step}: the run made it again while it was scored, and so it is scored again", flush=True)
  return True


def refuse_without_data(errors: Mapping[str, str], then: str = "") -> None:
  """UserError that says why no task can be scored: the data of none can be read. then: what becomes of a checkpoint."""
  why = "; ".join(f"{task}: {message}" for task, message in errors.items())
  raise UserError(f"the data of no task can be read, so that nothing can be scored ({why}); mend config.evaluate.folder, "
                  f"config.evaluate.data or the files{then}")  # fmt: skip


def describe(entry: Entry, decision: stopping.Decision, patience: int) -> str:
  """One line about an evaluation."""

  def show(score: float | None) -> str:
    return "none" if score is None else f"{score:.4g}"

  tasks = ", ".join(f"{task} {show(entry.score_of(task))}" for task in sorted(entry.scores))
  failed = "".join(f"  {task} failed: {message}" for task, message in sorted(entry.errors.items()))
  best = "" if decision.best_step is None else f"  best {show(decision.best_score)} at step {decision.best_step}"
  since = f"  {decision.since} of {patience} evaluations without gain" if patience else ""
  return f"step {entry.step}: score {show(entry.score)} ({tasks or 'no task'}){best}{since}  {entry.seconds:.0f} s{failed}"


# --- TensorBoard ---------------------------------------------------------------------------------------------------


class Board:
  """evaluations/tensorboard, made anew from the ledger at every start: a killed evaluator leaves no gap or double."""

  def __init__(self, workdir: Workdir):
    remove_folder(workdir.evaluation_board)
    self._writer = board.Board(workdir.evaluation_board)
    for entry in read_ledger(workdir):
      self.add(entry)

  def add(self, entry: Entry) -> None:
    """Adds the scores of one entry."""
    scalars = {"score": entry.score}
    for task, languages in entry.scores.items():
      scalars[f"{task}/mean"] = entry.score_of(task)
      for language, metrics in languages.items():
        for metric, values in metrics.items():
          finite = [value for value in values if value is not None]
          scalars[f"{task}/{language}/{metric}"] = sum(finite) / len(finite) if len(finite) == len(values) else None
    for name, value in scalars.items():
      if value is not None:
        self._writer.add_scalar(name, value, entry.step)
    self._writer.flush()

  def close(self) -> None:
    """Closes the event file."""
    self._writer.close()


# --- the loop ------------------------------------------------------------------------------------------------------


def _read_data(config: ConfigDict, scorer: Scores) -> bool:
  """Reads the data of all tasks, so that a wrong folder is found before a checkpoint is. UserError: none can be read."""
  unread = getattr(scorer, "read_data", dict)()
  if unread and set(unread) >= set(config.evaluate.tasks):
    refuse_without_data(unread)
  return True


def refuse_failed(workdir: Workdir) -> None:
  """UserError if a task failed at the newest step of the ledger, or at one whose checkpoint is there to be scored again."""
  ledger, there = read_ledger(workdir), sound_steps(workdir.checkpoints)
  failed = [entry for entry in ledger if entry.errors and (entry is ledger[-1] or entry.step in there)]
  if failed:
    tasks, steps = sorted({task for entry in failed for task in entry.errors}), [str(entry.step) for entry in failed]
    raise UserError(f"{', '.join(tasks)} could not be scored at step {', '.join(steps)}; {workdir.evaluations} has the "
                    "reasons; mend the data, remove those steps' files there, and evaluate again")  # fmt: skip


@contextlib.contextmanager
def _only_evaluator(workdir: Workdir) -> Iterator[None]:
  lock = workdir.lock_evaluation()
  try:
    yield
  finally:
    lock.close()


def follow(
  config: ConfigDict, workdir: Workdir, scorer: Scores, abstract_params: Any, *, once: bool = False,
  before: Callable[[int], None] = lambda step: None,
) -> int:  # fmt: skip
  """Evaluates every eligible checkpoint of a run, in order, until STOP.json or its last one; returns the exit code.

  With config.stop.by=held_out, where the run itself stops, the checkpoint that it ended with is eligible and the last one.
  abstract_params: as in checkpoint.restore_params. once: ends when nothing waits; it goes on past a STOP.json, which is
  how what a stopped run still saved gets its scores, its last checkpoint too. It raises UserError as long as the ledger has
  a task that failed and could be scored again. UserError also where the data of no task can be read, before a checkpoint is
  spent on that.
  before: called with each step that is to be evaluated.
  """
  with _only_evaluator(workdir):
    refuse_other_evaluations(config, workdir)
    conclude(config, workdir)  # A killed evaluator may have had this still to do; its pin holds until then.
    clear_pins(workdir)
    scores = Board(workdir) if config.log.tensorboard else None
    announced_waiting, is_data_read = False, False
    try:
      while once or config.stop.by == "held_out" or not workdir.stop.exists():
        # Whether the last step is there is asked before the others are looked for, so that none is missed.
        last = config.train_steps
        trained = last in sound_steps(workdir.checkpoints) or workdir.evaluation(last).exists()
        trained = trained or _ended_at(config, workdir, once=once) is not None
        waiting = waiting_steps(config, workdir, once=once)
        if not is_data_read and (waiting or not (once or trained)):
          is_data_read = _read_data(config, scorer)
        if waiting:
          announced_waiting = False
          before(waiting[0])
          entry = evaluate_step(config, workdir, waiting[0], abstract_params, scorer)
          if entry and scores:
            scores.add(entry)
        elif once or trained:
          print("nothing is left to evaluate", flush=True)
          if once:
            refuse_failed(workdir)
          return EXIT_DONE
        else:
          if not announced_waiting:
            print(f"waiting for a checkpoint in {workdir.checkpoints}", flush=True)
          announced_waiting = True
          time.sleep(config.evaluate.wait_s)
    finally:
      if scores:
        scores.close()
  stop = read_stop(workdir)
  print(f"{workdir.stop} ends the run: {stop.reason if stop else 'unreadable'}", flush=True)
  return EXIT_DONE
