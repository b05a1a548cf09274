"""The final scores of one checkpoint: several tasks, settings and seeds, printed beside the paper's and kept in a file."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config_checks import check_evaluation
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import paper_table
from xlmr_jax.evaluation.follower import score_checkpoint
from xlmr_jax.evaluation.scorer import Scorer
from xlmr_jax.files import AnyPath, read_sealed_json, write_sealed_json
from xlmr_jax.run import stopping

# What two tables of one file have in common. The digest is of a Hugging Face folder, which may come to hold another model.
_MODEL = ("model", "digest", "checkpoint", "step")
_IDENTITY = (*_MODEL, "split", "seeds")


def score_final(
  out: AnyPath, config: ConfigDict, vocabulary_size: int, tokenizer: Tokenizer, load: Callable[[], tuple[int, Any]],
  name: str, settings: list[str], split: str, model: str = "", pooler: dict[str, Any] | None = None, digest: str = "",
) -> dict[str, Any]:  # fmt: skip
  """Scores checkpoint `name` in each setting and writes the file `out`, which keeps other tasks and settings that it has.

  It is written after each setting, so that what ends the process later does not take the scores along. UserError: the file
  has scores by another split, other seeds or another recipe, which it cannot keep beside these.
  config: the run's, with the evaluator's values. load: () -> (step, parameters); called once everything is checked.
  model: the folder that was scored, where `out` does not lie in it. pooler: of a BERT; see Finetuner. digest: of a Hugging
  Face folder's parameters; a checkpoint of a run is known by its step.
  Returns {"step", "means": {task: {setting: mean score}}, "failed": [task], "missing": {task: [language]}, "file"}.
  """
  seeds = list(config.evaluate.seed_list) or config.evaluate.seeds
  before = _read_before(out)
  _refuse_to_replace(out, before, split, seeds, tuple(config.evaluate.tasks))
  scorers = {}
  for setting in settings:
    choice = config.copy_and_resolve_references()
    choice.evaluate.setting = setting
    check_evaluation(choice)
    scorers[setting] = Scorer(choice, vocabulary_size, tokenizer, split, pooler)
  step, params = load()
  now = {"model": model, "digest": digest, "checkpoint": name, "step": step, "split": split, "seeds": seeds}
  if all(before.get(key) == now[key] for key in _MODEL):  # Those of an older step or another model are superseded.
    _refuse_to_replace(out, before, split, seeds, ())
  if _is_of_same(before, now):
    _refuse_another_recipe(out, before, scorers)
  scores: dict[str, dict] = {}
  errors: dict[str, dict] = {}
  missing: dict[str, list[str]] = {}
  losses: dict[str, dict] = {}
  metrics: dict[str, str] = {}
  for setting, scorer in scorers.items():
    entry = score_checkpoint(config, step, params, scorer)
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
    result = {**now, "scores": scores, "errors": errors, "missing": missing, "losses": losses, "metrics": metrics,
              "recipe": {task: _recipe_alike(recipe) for task, recipe in scorer.recipe().items()}}  # fmt: skip
    _write(out, result, tuple(config.evaluate.tasks))
  print(paper_table.table({f"{name} ({step})": scores}, split=split), flush=True)
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
    return {"model": "", "digest": "", **before}
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path} cannot be read ({error}); remove it, or name another file with --out") from None


def _is_of_same(before: dict[str, Any], now: dict[str, Any]) -> bool:
  """Whether two tables are of the same model, split and seeds, so that they can stand in one file."""
  return bool(before) and all(before.get(key) == now[key] for key in _IDENTITY)


def _refuse_to_replace(
  out: AnyPath, before: dict[str, Any], split: str, seeds: int | list[int], tasks: Iterable[str]
) -> None:
  """UserError if a file has scores of other tasks than these that were made by another split or other seeds."""
  others = sorted(set(before.get("scores", ())) - set(tasks))
  if others and (before.get("split"), before.get("seeds")) != (split, seeds):
    raise UserError(f"{out}: holds {', '.join(others)} with split {before.get('split')} and seeds {before.get('seeds')}, "
                    f"which do not stand beside split {split} and seeds {seeds}; name another file with --out")  # fmt: skip


def _recipe_alike(recipe: dict[str, Any] | None) -> dict[str, Any]:
  """A task's recipe without its setting, which the scores themselves name."""
  return {key: value for key, value in (recipe or {}).items() if key != "setting"}


def _refuse_another_recipe(out: AnyPath, before: dict[str, Any], scorers: dict[str, Any]) -> None:
  """UserError if a file has a task in another setting than these, by another recipe."""
  recipe = next(iter(scorers.values())).recipe()
  for task, by_setting in before["scores"].items():
    others = sorted(set(by_setting) - set(scorers))
    old, new = _recipe_alike(before["recipe"].get(task)), _recipe_alike(recipe.get(task))
    if task in recipe and others and old != new:
      key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
      raise UserError(
        f"{out}: holds {task}, {', '.join(others)}, by another recipe ({key}={old.get(key)} there, {new.get(key)} here), "
        "which does not stand beside this one; name another file with --out"
      )


def _with_older(result: dict[str, Any], before: dict[str, Any], tasks: tuple[str, ...]) -> dict[str, Any]:
  """A table with what an older one of the same model has: other tasks, other settings, and what failed now."""
  merged = {**result}
  replaced = {  # Their older settings went by another recipe. score_final has refused those that are not scored again.
    task
    for task in result["scores"]
    if _recipe_alike(before["recipe"].get(task)) != _recipe_alike(result["recipe"].get(task))
  }
  for key in ("scores", "losses", "errors"):
    old = {task: value for task, value in before.get(key, {}).items() if task not in replaced}
    merged[key] = {task: old.get(task, {}) | result[key].get(task, {}) for task in (old | result[key])}
  for task, by_setting in merged["errors"].items():  # What came out now failed before.
    merged["errors"][task] = {x: message for x, message in by_setting.items() if x not in result["scores"].get(task, ())}
  merged["errors"] = {task: by_setting for task, by_setting in merged["errors"].items() if by_setting}
  for key in ("metrics", "recipe"):
    old = {task: x for task, x in before.get(key, {}).items() if task not in tasks or task not in result["scores"]}
    merged[key] = {**result[key], **old}
  merged["missing"] = {**result["missing"]}
  for task, languages in before.get("missing", {}).items():
    if task not in replaced and set(merged["scores"].get(task, ())) != set(result["scores"].get(task, ())):
      merged["missing"][task] = sorted({*languages, *result["missing"].get(task, ())})
  return merged


def _write(out: AnyPath, result: dict[str, Any], tasks: tuple[str, ...]) -> None:
  """Writes scores with those that the file has by now of the same model: other tasks and settings, and what failed now.

  What is of another step is left out, and said. A file with scores is not replaced by one without.
  """
  before = _read_before(out)
  if _is_of_same(before, result):
    result = _with_older(result, before, tasks)
  elif before.get("scores"):
    if not result["scores"]:
      print(f"{out} stays as it was, with the scores of step {before.get('step')}", file=sys.stderr, flush=True)
      return
    if gone := sorted(set(before["scores"]) - set(tasks)):
      print(f"{out}: {', '.join(gone)} of {before.get('model') or 'step ' + str(before.get('step'))} is replaced: it is of "
            "another model", file=sys.stderr, flush=True)  # fmt: skip
  out.parent.mkdir(parents=True, exist_ok=True)
  write_sealed_json(out, result)
