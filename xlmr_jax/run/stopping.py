"""When to stop: pure functions of the history of downstream scores, or of held-out losses. No files, no JAX.

XLM-R was stopped by downstream scores and not by its own loss: Conneau et al. (2020) found that tasks go on getting
better after the validation perplexity has levelled out. XLM was stopped by perplexity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Decision(NamedTuple):
  """What a rule says at the end of a history. best_step: of the highest score, the first of equal ones."""

  stop: bool
  reason: str
  best_step: int | None
  best_score: float | None
  since: int  # evaluations since the last gain


class Rule(Protocol):
  """config.stop, as config.py has it."""

  patience: int
  min_gain: float
  min_steps: int
  on_nonfinite: str


def is_eligible(step: int, every_steps: int, train_steps: int) -> bool:
  """Whether a checkpoint is to be evaluated: every multiple of every_steps (0: every one), and the run's last."""
  return step == train_steps or not every_steps or step % every_steps == 0


def is_finite(score: float | None) -> bool:
  return score is not None and math.isfinite(score)


def decide(history: Sequence[Mapping[str, Any]], rule: Rule) -> Decision:
  """Whether to stop after the last evaluation of a history [{"step": int, "score": float or None}, ...] in order.

  rule: config.stop. A gain is a score more than rule.min_gain above that of the last gain, so that many small steps up
  count together. A non-finite score is no score: skipped, counted as no gain, or a reason to stop, as on_nonfinite says.
  rule.patience 0 never stops, whatever else the rule says.
  """
  best_step = best_score = reference = None
  since = 0
  for entry in history:
    score = entry["score"]
    if not is_finite(score):
      since += rule.on_nonfinite == "count"
      continue
    if best_score is None or score > best_score:
      best_step, best_score = entry["step"], score
    if reference is None or score > reference + rule.min_gain:
      reference, since = score, 0
    else:
      since += 1
  summary = "no score yet" if best_step is None else f"best {best_score:.6g} at step {best_step}"
  last = history[-1] if history else None
  if not rule.patience or last is None or last["step"] < rule.min_steps:
    stop, reason = False, summary
  elif rule.on_nonfinite == "stop" and not is_finite(last["score"]):
    stop, reason = True, f"no finite score at step {last['step']} ({summary})"
  elif since >= rule.patience:
    stop, reason = True, f"no gain above {rule.min_gain:g} in {since} evaluations up to step {last['step']} ({summary})"
  else:
    stop, reason = False, summary
  return Decision(stop, reason, best_step, best_score, since)


def decide_by_held_out(lines: Sequence[Mapping[str, Any]], rule: Rule) -> Decision:
  """decide() of the lines of held_out.jsonl, where a gain is a mean loss that is lower by more than rule.min_gain nats.

  XLM stops so: its --stopping_criterion=_valid_mlm_ppl,10 ends a run whose perplexity has not fallen in 10 epochs
  (facebookresearch/XLM, xlm/trainer.py). That is the mean of the languages' perplexities; this is the mean of their
  logarithms. best_score is the lowest loss.
  """
  decision = decide([{"step": line["step"], "score": -line["mean_loss"]} for line in lines], rule)
  if decision.best_step is None or decision.best_score is None:
    return decision._replace(reason=decision.reason.replace("score", "held-out loss"))
  lowest, summary = -decision.best_score, f"lowest {-decision.best_score:.4f} at step {decision.best_step}"
  if not decision.stop:
    return decision._replace(reason=summary, best_score=lowest)
  at = lines[-1]["step"]
  if decision.since >= rule.patience:
    reason = f"held-out loss has not fallen by more than {rule.min_gain:g} in {decision.since} passes up to step {at}"
  else:
    reason = f"no finite held-out loss at step {at}"
  return decision._replace(reason=f"{reason} ({summary})", best_score=lowest)


def first_stop(
  history: Sequence[Mapping[str, Any]], rule: Rule, by: Callable[..., Decision] = decide
) -> tuple[int | None, Decision]:
  """(step of the evaluation after which the rule stops, its decision); step None, at the end, where it never does.

  by: decide, or decide_by_held_out, whose history are the lines of held_out.jsonl.
  """
  for end in range(1, len(history) + 1):
    decision = by(history[:end], rule)
    if decision.stop:
      return history[end - 1]["step"], decision
  return None, by(history, rule)


def score_of(evaluation: Mapping[str, Any], which: str = "") -> float | None:
  """The one number of an evaluation: the mean over tasks of the mean over languages of each task's first metric.

  evaluation: "scores" {task: {language: {metric: [one per seed]}}}, "metrics" {task: its first metric}, "errors" {task:
  message}. which: config.stop.score; "TASK" or "TASK/LANGUAGE" names one number instead. None when a task that it needs has
  failed, is not there, or scored something non-finite, because a mean over what is left would not compare with the others.
  """
  task, _, language = which.partition("/")
  wanted = [task] if task else sorted({*evaluation["scores"], *evaluation["errors"]})
  means = []
  for name in wanted:
    by_language = evaluation["scores"].get(name, {})
    if name in evaluation["errors"] or not by_language or (language and language not in by_language):
      return None
    metric = evaluation["metrics"][name]
    chosen = [language] if language else sorted(by_language)
    seeds: list[list[Any]] = [by_language[each].get(metric) or [None] for each in chosen]
    if not all(is_finite(score) for scores in seeds for score in scores):
      return None
    means.append(_mean([_mean(scores) for scores in seeds]))
  return _mean(means) if means else None


def _mean(values: Sequence[float]) -> float:
  return math.fsum(values) / len(values)
