"""The final scores of one checkpoint: several tasks, settings and seeds, printed beside the paper's and kept in a file."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config import check_evaluation
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.evaluation import paper_table
from xlmr_jax.evaluation.follower import score_checkpoint
from xlmr_jax.evaluation.scorer import Scorer
from xlmr_jax.files import write_json
from xlmr_jax.run import stopping
from xlmr_jax.run.workdir import Workdir


def score_final(
  workdir: Workdir, config: ConfigDict, vocabulary_size: int, tokenizer: Tokenizer, load: Callable[[], tuple[int, Any]],
  name: str, settings: list[str], split: str,
) -> dict[str, Any]:  # fmt: skip
  """Scores checkpoint `name` in each setting and writes evaluations/final/NAME.json.

  config: the run's, with the evaluator's values. load: () -> (step, parameters); called once everything is checked.
  Returns {"step", "means": {task: {setting: mean score}}, "failed": [task], "file"}.
  """
  scorers = {}
  for setting in settings:
    choice = config.copy_and_resolve_references()
    choice.evaluate.setting = setting
    check_evaluation(choice)
    scorers[setting] = Scorer(choice, vocabulary_size, tokenizer, split)
  step, params = load()
  scores: dict[str, dict] = {}
  errors: dict[str, dict] = {}
  metrics: dict[str, str] = {}
  for setting, scorer in scorers.items():
    entry = score_checkpoint(config, step, params, scorer, lambda: None)
    metrics |= entry.metrics
    for task, languages in entry.scores.items():
      scores.setdefault(task, {})[setting] = languages
    for task, message in entry.errors.items():
      errors.setdefault(task, {})[setting] = message
      print(f"{task}, {setting}: {message}", file=sys.stderr, flush=True)
  print(paper_table.table(scores, f"{name} ({step})"), flush=True)
  result = {"checkpoint": name, "step": step, "split": split, "seeds": config.evaluate.seeds, "scores": scores,
            "errors": errors, "recipe": scorers[settings[-1]].recipe()}  # fmt: skip
  path = workdir.final_scores / f"{name}.json"
  _keep_other_tasks(path, result, tuple(config.evaluate.tasks))
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, result)
  means = {
    task: {
      setting: stopping.score_of({"scores": {task: languages}, "metrics": metrics, "errors": {}}, task)
      for setting, languages in by_setting.items()
    }
    for task, by_setting in scores.items()
  }
  return {"step": step, "means": means, "failed": sorted(errors), "file": str(path)}


def _keep_other_tasks(path: Path, result: dict[str, Any], tasks: tuple[str, ...]) -> None:
  """Adds tasks that were scored before, unless they were of another checkpoint or scored otherwise."""
  if not path.exists():
    return
  before = json.loads(path.read_text(encoding="utf-8"))
  if all(before[key] == result[key] for key in ("checkpoint", "step", "split", "seeds")):
    for key in ("scores", "errors", "recipe"):
      result[key] = {task: value for task, value in before[key].items() if task not in tasks} | result[key]
