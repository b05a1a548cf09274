"""The evaluator's ledger: one entry per evaluated step in evaluations/STEP.json, and what follows from all of them.

An entry, written last, says that nothing more will be done about its step. best.json, best/ and STOP.json follow from the
ledger and config.stop alone.
"""

import dataclasses
import sys
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import AnyPath, in_parallel, read_sealed_json, write_json, write_sealed_json
from xlmr_jax.folders import copy_folder, entries, remove_folder
from xlmr_jax.run import stopping
from xlmr_jax.run.branch import own_held_out
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.manifest import MANIFEST, DamagedError, digest_of, verify
from xlmr_jax.run.workdir import Workdir, step_of

# {task: {language: {metric: [one per seed]}}}; None for a score that was not finite.
Scores = dict[str, dict[str, dict[str, list[float | None]]]]


@dataclasses.dataclass
class Entry:
  """The evaluation of one step, or why there is none ("error")."""

  step: int
  score: float | None = None  # under the rule that the evaluator ran with
  scores: Scores = dataclasses.field(default_factory=dict)
  metrics: dict[str, str] = dataclasses.field(default_factory=dict)  # {task: the metric that counts}
  errors: dict[str, str] = dataclasses.field(default_factory=dict)  # {task: what went wrong}
  missing: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # {task: languages that have no files}
  losses: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)  # {task: at the end of training, per seed}
  error: str | None = None  # the checkpoint could not be loaded: it says nothing about the model
  digest: str = ""  # of the checkpoint's manifest
  recipe: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the scores depend on beside the checkpoint
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0

  def score_of(self, which: str = "") -> float | None:
    """stopping.score_of of this entry."""
    return stopping.score_of({"scores": self.scores, "metrics": self.metrics, "errors": self.errors}, which)

  def write(self, workdir: Workdir) -> None:
    """Puts the entry into the ledger."""
    value = {"step": self.step, "error": self.error} if self.error is not None else dataclasses.asdict(self)
    workdir.evaluation(self.step).parent.mkdir(parents=True, exist_ok=True)
    write_sealed_json(workdir.evaluation(self.step), {key: x for key, x in value.items() if key != "error" or x is not None})


def read_entry(path: AnyPath) -> Entry:
  """One entry. UserError: it is damaged."""
  try:
    value = read_sealed_json(path)
    known = {field.name for field in dataclasses.fields(Entry)}
    entry = Entry(**{key: x for key, x in value.items() if key in known})
    if entry.step != int(path.stem):
      raise ValueError(f"it is about step {entry.step}")
    for name in ("scores", "metrics", "errors", "missing", "losses"):
      if not isinstance(getattr(entry, name), dict):
        raise ValueError(f"its {name} are no object")
    entry.score_of()  # Raises where a score is no number, or where a task's metric is missing.
    return entry
  except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
    raise UserError(f"{path} cannot be read ({error}); remove it and the step is evaluated again") from None


def read_ledger(workdir: Workdir) -> list[Entry]:
  """The entries of all steps that were evaluated or could not be, by step. UserError: one is damaged."""
  names = (name for name in entries(workdir.evaluations) if name.endswith(".json"))
  paths = [workdir.evaluations / name for name in names if step_of(name.removesuffix(".json")) is not None]
  return sorted(in_parallel(read_entry, paths), key=lambda entry: entry.step)


def history(ledger: list[Entry], which: str) -> list[dict[str, Any]]:
  """[{"step", "score"}], as stopping.decide takes it. which: config.stop.score."""
  return [{"step": entry.step, "score": entry.score_of(which)} for entry in ledger if entry.error is None]


def _counted(scores: list[dict[str, Any]], config: ConfigDict) -> list[dict[str, Any]]:
  """Those that the rule counts: the last checkpoint of a run that was ended early has a score, but no place among them."""
  return [
    entry for entry in scores
    if stopping.is_eligible(entry["step"], config.evaluate.every_steps, config.train_steps)
  ]  # fmt: skip


def _standing(ledger: list[Entry], workdir: Workdir, step: int) -> list[Entry]:
  """The entries by which a rule may stop after `step`, without those of later steps that the run took back.

  A run that goes back leaves the later entries in the ledger until it makes their checkpoints anew, and they are no
  evaluations after `step`. So entries count up to that step, or to the newest checkpoint that is there as it was scored.
  """
  digests = {entry.step: entry.digest for entry in ledger if entry.error is None}
  scored = (
    newest
    for newest in sound_steps(workdir.checkpoints)
    if newest in digests and digests[newest] in ("", digest_of(workdir.checkpoints / str(newest)))
  )
  last = max(step, next(scored, step))
  return [entry for entry in ledger if entry.step <= last]


def replay(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
  """Prints the scores of all steps and returns where config.stop would have ended the run.

  With config.stop.by=held_out the history is that of the run's held-out passes, and best_score is the lowest mean loss.
  Scores of steps later than the newest checkpoint do not count: the run took those steps back.
  """
  if config.stop.by == "held_out":
    return _replay_held_out(config, workdir)
  newest = next(iter(sound_steps(workdir.checkpoints)), None)
  ledger = [entry for entry in read_ledger(workdir) if newest is None or entry.step <= newest]
  _refuse_unscored(ledger, config.stop.score)
  scores = _counted(history(ledger, config.stop.score), config)
  step, decision = stopping.first_stop(scores, config.stop)
  for entry in scores:
    score = "none" if entry["score"] is None else f"{entry['score']:.6g}"
    print(f"step {entry['step']}: score {score}{'  <- stop' if entry['step'] == step else ''}")
  return {
    "stop": step,
    "reason": decision.reason,
    "best_step": decision.best_step,
    "best_score": decision.best_score,
    "evaluations": len(scores),
  }


def _refuse_unscored(ledger: list[Entry], which: str) -> None:
  """UserError if no step has a score of the task, or the task and language, that config.stop.score names."""
  task, _, language = which.partition("/")
  scored = {
    name: sorted({x for entry in ledger for x in entry.scores.get(name, ())}) for entry in ledger for name in entry.scores
  }
  if scored and task and (task not in scored or (language and language not in scored[task])):
    there = "; ".join(f"{name} in {', '.join(languages)}" for name, languages in sorted(scored.items()))
    raise UserError(f"config.stop.score={which!r}: no step was scored on that, but on {there}")


def _replay_held_out(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
  """replay() by the held-out losses, from the step on at which the run branched off, if it did."""
  lines = own_held_out(workdir)
  step, decision = stopping.first_stop(lines, config.stop, stopping.decide_by_held_out)
  for line in lines:
    print(f"step {line['step']}: held-out loss {line['mean_loss']:.6g}{'  <- stop' if line['step'] == step else ''}")
  return {
    "stop": step,
    "reason": decision.reason,
    "best_step": decision.best_step,
    "best_score": decision.best_score,
    "passes": len(lines),
  }


def conclude(config: ConfigDict, workdir: Workdir, step: int = 0) -> stopping.Decision:
  """From the ledger: best.json and best/, and STOP.json if the rule says so. Doing it twice changes nothing.

  step: that was evaluated just now. With config.stop.by=held_out the run itself writes STOP.json.
  """
  ledger = read_ledger(workdir)
  best = stopping.decide(history(ledger, config.stop.score), config.stop)
  counted = _counted(history(_standing(ledger, workdir, step), config.stop.score), config)
  decision = stopping.decide(counted, config.stop)._replace(best_step=best.best_step, best_score=best.best_score)
  if decision.best_step is not None:
    write_json(workdir.best_note, {"step": decision.best_step, "score": decision.best_score})
    keep_best(workdir, decision.best_step)
  if decision.stop and config.stop.by == "score" and not workdir.stop.exists():
    write_json(workdir.stop, {"step": counted[-1]["step"], "reason": decision.reason})
  return decision


def keep_best(workdir: Workdir, step: int) -> None:
  """Makes a verified copy of a checkpoint the only one in best/; says so where it has gone or is damaged.

  Its manifest is copied last. A copy without one, of a process that was killed, is made again, and so is one of a step that
  the run has made anew since.
  """
  copy, now = workdir.best / str(step), digest_of(workdir.checkpoints / str(step))
  if not (copy / MANIFEST).exists() or (now is not None and digest_of(copy) != now):
    try:
      remove_folder(copy)
      copy_folder(workdir.checkpoints / str(step), copy, last=MANIFEST)
      verify(copy)
    except (OSError, DamagedError) as error:
      remove_folder(copy)
      print(f"checkpoint {step}, the best, is not in {workdir.best}: {one_line(error)}", file=sys.stderr, flush=True)
      return
  for name in entries(workdir.best):
    if step_of(name) is not None and name != str(step):  # `best` may be a link to a folder that holds more.
      remove_folder(workdir.best / name)
