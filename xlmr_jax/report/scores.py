"""The scores of several models, each in a file of `xlmr evaluate --out`, and whether one may compare them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlmr_jax.errors import UserError
from xlmr_jax.files import read_sealed_json
from xlmr_jax.given_paths import path_given

# What must be alike for a comparison, beside the recipe of each task.
_ALIKE = ("split", "seeds")


def _name_and_file(entry: str) -> tuple[str, str]:
  """Of NAME=FILE, or of FILE with "" for its name. A folder may be named alpha=0.3, and a name has no slash."""
  name, equals, file = entry.partition("=")
  return (name, file) if equals and "/" not in name else ("", entry)


def entries_of(values: Sequence[str]) -> list[str]:
  """The entries of --scores, which may be given several times. Commas separate, but not in the path of a file that exists.

  A run of a sweep lies in a folder such as system=xlmr,seed=0.
  """
  found = []
  for value in values:
    _, file = _name_and_file(value)
    is_one = bool(file) and path_given(file, "--scores=").exists()
    found += [value] if is_one else [entry for entry in value.split(",") if entry]
  return found


def read_scores(entries: Sequence[str]) -> dict[str, dict[str, Any]]:
  """{name: the content of a file} of the entries NAME=FILE, or FILE, which is named by itself.

  Raises UserError: two have one name, or a file is missing, damaged, or holds no scores.
  """
  found: dict[str, dict[str, Any]] = {}
  for entry in entries:
    name, file = _name_and_file(entry)
    path = path_given(file, "--scores=")
    name = name or path.name.removesuffix(".json").removesuffix(".scores")
    if not name or name in found:
      raise UserError(f"--scores: {entry!r} is named {name!r}, as another one is; name each as NAME=FILE")
    try:
      content = read_sealed_json(path)
      found[name] = {**content, "scores": _checked(content["scores"]), "model": str(content.get("model", ""))}
    except FileNotFoundError:
      raise UserError(f"--scores={entry}: {path} is missing; `xlmr evaluate --out={path}` writes it") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(
        f"--scores={entry}: {path} is no file of scores ({error!r}); `xlmr evaluate --out` writes one"
      ) from None
  return found


def _checked(scores: Any) -> dict[str, Any]:
  """The scores, {task: {setting: {language: {metric: [one per seed]}}}}. ValueError, AttributeError: they are not that."""
  for settings in scores.values():
    for by_language in settings.values():
      for metrics in by_language.values():
        for values in metrics.values():
          if not isinstance(values, list) or not all(value is None or isinstance(value, (int, float)) for value in values):
            raise ValueError(f"{str(values)[:40]!r} is no list of numbers")
  return scores


def differences(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A line for each thing in which the evaluation of two models differed, so that their scores do not compare.

  A model is compared with the first one that has the same thing: the first model of all may lack its task.
  """
  lines = []
  first: dict[tuple[str, str], tuple[str, Any]] = {}  # {(task or "", key): (the first model that has it, its value)}
  for name, content in found.items():
    for task, key, value in _choices_of(content):
      other, expected = first.setdefault((task, key), (name, value))
      if value != expected:
        where = f" in {task}" if task else ""
        lines.append(f"{name} and {other} do not compare{where}: {key} {value} against {expected}")
  return lines


def _choices_of(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
  """(task, key, value) of what the scores of a file depend on; task "" for what all of its tasks have in common."""
  yield from (("", key, content[key]) for key in _ALIKE if key in content)
  recipes = content.get("recipe", {})
  for task in sorted(content["scores"].keys() & recipes.keys()):  # What failed has a recipe too, and no score to compare.
    yield from ((task, key, value) for key, value in sorted(recipes[task].items()) if key not in ("setting", "dtype"))
