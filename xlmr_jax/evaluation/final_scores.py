"""The final scores of one checkpoint: several tasks, settings and seeds, printed beside the paper's and kept in a file."""

import sys
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config_checks import check_evaluation
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import paper_table
from xlmr_jax.evaluation.finetune import Announcer
from xlmr_jax.evaluation.follower import score_checkpoint
from xlmr_jax.evaluation.scorer import Scorer
from xlmr_jax.files import AnyPath, read_sealed_json, write_sealed_json
from xlmr_jax.run import stopping


def score_final(
  out: AnyPath, config: ConfigDict, vocabulary_size: int, tokenizer: Tokenizer, load: Callable[[], tuple[int, Any]],
  name: str, settings: list[str], split: str, model: str = "", pooler: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
  """Scores checkpoint `name` in each setting and writes the file `out`, which keeps other tasks that it has.

  config: the run's, with the evaluator's values. load: () -> (step, parameters); called once everything is checked.
  model: the folder that was scored, where `out` does not lie in it. pooler: of a BERT; see Finetuner.
  Returns {"step", "means": {task: {setting: mean score}}, "failed": [task], "missing": {task: [language]}, "file"}.
  """
  before = _read_before(out)
  scorers = {}
  for setting in settings:
    choice = config.copy_and_resolve_references()
    choice.evaluate.setting = setting
    check_evaluation(choice)
    scorers[setting] = Scorer(choice, vocabulary_size, tokenizer, split, pooler)
  with Announcer(f"loading {name}"):
    step, params = load()
  scores: dict[str, dict] = {}
  errors: dict[str, dict] = {}
  missing: dict[str, list[str]] = {}
  losses: dict[str, dict] = {}
  metrics: dict[str, str] = {}
  for setting, scorer in scorers.items():
    entry = score_checkpoint(config, step, params, scorer, lambda: None)
    metrics |= entry.metrics
    for task, languages in entry.scores.items():
      scores.setdefault(task, {})[setting] = languages
    for task, loss in entry.losses.items():
      losses.setdefault(task, {})[setting] = loss
    for task, message in entry.errors.items():
      errors.setdefault(task, {})[setting] = message
      print(f"{task}, {setting}: {message}", file=sys.stderr, flush=True)
    for task, languages in entry.missing.items():
      missing[task] = sorted({*missing.get(task, ()), *languages})
  print(paper_table.table({f"{name} ({step})": scores}), flush=True)
  seeds = list(config.evaluate.seed_list) or config.evaluate.seeds
  result = {"model": model, "checkpoint": name, "step": step, "split": split, "seeds": seeds, "scores": scores,
            "errors": errors, "missing": missing, "losses": losses, "recipe": scorers[settings[-1]].recipe()}  # fmt: skip
  _keep_other_tasks(before, result, tuple(config.evaluate.tasks))
  out.parent.mkdir(parents=True, exist_ok=True)
  write_sealed_json(out, result)
  means = {
    task: {
      setting: stopping.score_of({"scores": {task: languages}, "metrics": metrics, "errors": {}}, task)
      for setting, languages in by_setting.items()
    }
    for task, by_setting in scores.items()
  }
  return {"step": step, "means": means, "failed": sorted(errors), "missing": missing, "file": str(out)}


def _read_before(path: AnyPath) -> dict[str, Any]:
  """What was scored before and is in a file of scores, {} where there is none. UserError: the file is damaged."""
  try:
    before = read_sealed_json(path)
    if not all(isinstance(before[key], dict) for key in ("scores", "errors", "recipe")):
      raise ValueError("it has no scores")
    return {"model": "", **before}
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path} cannot be read ({error}); remove it, or name another file with --out") from None


def _keep_other_tasks(before: dict[str, Any], result: dict[str, Any], tasks: tuple[str, ...]) -> None:
  """Adds tasks that were scored before, unless they were of another checkpoint or scored otherwise."""
  if before and all(before.get(key) == result[key] for key in ("model", "checkpoint", "step", "split", "seeds")):
    for key in ("scores", "errors", "missing", "losses", "recipe"):
      result[key] = {task: value for task, value in before.get(key, {}).items() if task not in tasks} | result[key]
