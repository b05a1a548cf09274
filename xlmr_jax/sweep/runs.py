"""What a sweep is: the runs that a config's sweep(add) asks for, their names, and the figure that they are made for.

It reads config files and touches no folder. A config file of a sweep has, beside get_config(arg):

    STUDY = Study("The exponent of language sampling", x="alpha")

    def sweep(add, arg=""):
      add({"data.alpha": 0.3, "seed": 1})                          # is named alpha=0.3,seed=1
      add({"data.languages": SEVEN}, values={"languages": 7})      # is named languages=7
"""

import dataclasses
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.config import SETTINGS, parse_value, split_arg
from xlmr_jax.config_checks import check_config
from xlmr_jax.config_files import config_path, load_module, shipped
from xlmr_jax.data import phases
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import flatten
from xlmr_jax.names import is_plain_name

Scalar = str | int | float | bool
ROWS_FOLDER = "rows"  # of a sweep: its rows, each in a folder of its name


@dataclasses.dataclass(frozen=True)
class Study:
  """The figure of a sweep. docs/sweeps.md tells how it is read."""

  title: str = ""
  x: str = ""  # a key of each run's values; "step": each run is a line; "language": a score per language; "": the first
  x_label: str = ""  # with its unit, if it has one; "": x
  x_scale: str = "linear"  # linear | log | category
  series: str | None = None  # the value that tells the lines apart
  y: str = "bits_per_byte"  # bits_per_byte of the held-out rows | score of the tasks
  groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # {label: languages}, a line for each


@dataclasses.dataclass(frozen=True)
class Rows:
  """Rows that a run needs. They are given by --rows, or the sweep builds them from text, once for all runs of that name."""

  name: str  # of their folder
  vocabulary_size: int  # ids
  languages: tuple[str, ...] = ()  # of the text; (): all
  text: str = ""  # a folder below --text; "demo": the text of the built-in world; "": --text itself
  alpha: float = 0.3  # of the vocabulary's sample
  sentences: int = 0  # paragraphs that the vocabulary is trained on; 0: as many as `xlmr train_vocabulary` takes
  seq_len: int = 512  # tokens per row
  held_out: float = 0.01  # share of the documents
  kind: str = "unigram"  # of the vocabulary, as `xlmr train_vocabulary --kind` takes it
  parallel: str = ""  # a folder of parallel sentences below --text to add; "demo": those of the built-in world
  word_starts: bool = False  # whether they tell where words start, which config.data.mask_unit=word and span need


def as_rows_are_written(value: Mapping[str, Any]) -> dict[str, Any]:
  """What a file says of Rows, with the defaults of the fields that an older version did not have."""
  defaults = {field.name: field.default for field in dataclasses.fields(Rows) if field.default is not dataclasses.MISSING}
  return defaults | {**value}


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a sweep."""

  name: str
  values: Mapping[str, Scalar]  # what tells it from the other runs
  changes: Mapping[str, Any]  # dotted config key: value
  rows: Rows | None = None  # None: config.data.rows says
  settings: tuple[str, ...] = ()  # of its final scores; (): its checkpoints are scored as config.evaluate says
  seed: int = 0  # of its own, or of get_config(); --config.seed takes the place of the latter


@dataclasses.dataclass(frozen=True)
class Sweep:
  """All runs of a config's sweep(add)."""

  name: str  # as --config names it, or the path of the file
  arg: str
  study: Study
  runs: tuple[Run, ...]
  base: ConfigDict  # get_config(arg), which the runs change

  @property
  def config_flag(self) -> str:
    """What --config= of a run is."""
    return f"{self.name}:{self.arg}" if self.arg else self.name


def name_of(values: Mapping[str, Scalar]) -> str:
  """The name of a run: alpha=0.3,seed=1. It depends on the run's own values alone, and is a name for a folder.

  Raises UserError: a value has a slash, a comma or the like, or there is none.
  """
  name = ",".join(f"{key}={value}" for key, value in values.items())
  wrong = [str(x) for x in values.values() if set(str(x)) & set(",=/\\ :")]
  if wrong or not values or not is_plain_name(name):
    raise UserError(f"a run's values {dict(values)}: no name for a folder; give values={{...}} of short words and numbers")
  return name


def values_of(changes: Mapping[str, Any]) -> dict[str, Scalar]:
  """What a run is named by, unless it says so itself: the last word of each key, or all of it where that is not enough.

  Raises UserError: a value is a list.
  """
  lists = [key for key, value in changes.items() if not isinstance(value, Scalar)]
  if lists:
    raise UserError(f"{', '.join(lists)}: a value that is no word and no number names no run; give values={{...}} beside "
                    "the changes")  # fmt: skip
  words = [key.rpartition(".")[2] for key in changes]
  return {key if words.count(word) > 1 else word: changes[key] for key, word in zip(changes, words)}


def _words(arg: str) -> list[str]:
  return [word.strip() for word in arg.split(",")]


def is_tiny(arg: str) -> bool:
  """Whether the ARG of --config=FILE:ARG asks for the size of 2 CPU cores: it has the word tiny."""
  return "tiny" in _words(arg)


def without_tiny(arg: str) -> str:
  """The ARG without the word tiny, as xlmr_jax.config.variant takes it."""
  return ",".join(word for word in _words(arg) if word != "tiny")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
  """Values with Python's own numbers in the place of numpy's, which JSON does not take."""
  return {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}


class _Collector:
  """What sweep(add) gets as `add`."""

  def __init__(self, where: str):
    self._where = where
    self.runs: dict[str, Run] = {}

  def __call__(
    self, changes: Any, named: Any = None, *, values: Mapping[str, Scalar] | None = None, rows: Rows | None = None,
    settings: tuple[str, ...] = (),
  ) -> None:  # fmt: skip
    """Adds the run of `changes`. add(NAME, changes) gives it a name of the user's own."""
    name = ""
    if isinstance(changes, str):
      name, changes = changes, named
    if not isinstance(changes, Mapping):
      raise UserError(f"{self._where}: add() takes a dict of config keys, not {str(changes)[:40]!r}")
    changes, values = _plain(changes), values and _plain(values)
    if rows is not None and not isinstance(rows, Rows):
      raise UserError(f"{self._where}: add(rows={str(rows)[:40]!r}): it must be Rows(...)")
    if isinstance(settings, str) or not set(settings) <= set(SETTINGS):
      raise UserError(f"{self._where}: add(settings={settings!r}): it must be a tuple of {', '.join(SETTINGS)}")
    try:
      if not name:
        values = values_of(changes) if values is None else dict(values)
        name = name_of(values)
    except UserError as error:
      raise UserError(f"{self._where}: {error}") from None
    if name in self.runs:
      raise UserError(f"{self._where}: two runs are named {name!r}")
    taken = (ROWS_FOLDER, "sweep.json", "sweep.html", "sweep.png")
    if not is_plain_name(name) or name in taken or name.startswith(".") or not name.isprintable():
      raise UserError(f"{self._where}: {name[:80]!r} is no name for a run's folder")
    scalars = {key: x for key, x in changes.items() if isinstance(x, Scalar)}
    self.runs[name] = Run(name, values_of(scalars) if values is None else values, dict(changes), rows, tuple(settings))


def load_sweep(config: str) -> Sweep:
  """The sweep of --config=NAME[:ARG]|FILE.py[:ARG].

  Raises UserError: the file has no sweep(add), a name or a point of the figure comes twice, or a run changes a key that does
  not exist.
  """
  name, _, arg = config.partition(":")
  path = config_path(name)
  name = {str(file): shipped_name for shipped_name, file in shipped().items()}.get(str(path), str(Path(name).absolute()))
  collect = _Collector(str(path))
  try:
    module = load_module(path)
    if not hasattr(module, "sweep"):
      raise UserError(f"{path} has no sweep(add)")
    asked: Callable[..., None] = module.sweep
    asked(collect, arg) if len(inspect.signature(asked).parameters) > 1 else asked(collect)
    base = module.get_config(arg)
  except UserError:
    raise
  except Exception as error:  # It is a program of the user's, which may raise anything.
    raise UserError(f"--config={config}: {type(error).__name__}: {one_line(error)}{_line_of(path, error)}") from None
  if not isinstance(base, ConfigDict):
    raise UserError(f"{path}: get_config returns {str(base)[:40]!r}, and no ConfigDict")
  runs = tuple(collect.runs.values())
  if not runs:
    raise UserError(f"{path}: sweep(add) adds no run")
  _refuse_ignored(config, module, arg, base, runs)
  study = getattr(module, "STUDY", Study())
  if isinstance(study, Study) and not study.x:
    study = dataclasses.replace(study, x=next(iter(runs[0].values), ""))
  _check_study(path, study, runs)
  known = flatten(base.to_dict())
  for run in runs:
    if unknown := sorted(set(run.changes) - set(known)):
      raise UserError(f"{path}: {run.name} changes config.{', config.'.join(unknown)}; there is no such key")
  _check_rows(path, runs)
  runs = tuple(dataclasses.replace(run, seed=run.changes.get("seed", known.get("seed", 0))) for run in runs)
  _refuse_alike(path, runs)
  return Sweep(name, arg, study, runs, base)


def _refuse_alike(path: Path, runs: tuple[Run, ...]) -> None:
  """UserError for two runs of the same values and seed, which a figure would take for two seeds of one point."""

  def place(run: Run) -> tuple[dict[str, Any], int]:
    return {key: value for key, value in run.values.items() if key != "seed"}, run.seed

  for number, run in enumerate(runs):
    if other := next((other for other in runs[:number] if place(other) == place(run)), None):
      values, seed = place(run)
      raise UserError(f"{path}: {other.name} and {run.name} have the same values ({values}) and the seed {seed}, so that a "
                      "figure would take their mean; give values={...}, or seeds, that tell them apart")  # fmt: skip


def _refuse_ignored(config: str, module: Any, arg: str, base: ConfigDict, runs: tuple[Run, ...]) -> None:
  """UserError for a KEY=VALUE of ARG that changes the config, but which the runs replace, whatever it is."""
  words = split_arg(arg)
  for word in words:
    key, equals, _ = word.partition("=")
    setting = [run for run in runs if key.strip() in run.changes]
    if not (equals and setting):
      continue
    others, without = _Collector(config), ",".join(other for other in words if other is not word)
    try:
      module.sweep(others, without) if len(inspect.signature(module.sweep).parameters) > 1 else module.sweep(others)
      default = flatten(module.get_config(without).to_dict())[key.strip()]
    except Exception:  # A sweep that does not go without the word uses it.
      continue
    is_same = all(run.name in others.runs and others.runs[run.name].changes == run.changes for run in setting)
    if is_same and default != flatten(base.to_dict())[key.strip()]:
      raise UserError(f"--config={config}: leave {word} out; {len(setting)} runs set that key themselves, such as "
                      f"{setting[0].name}")  # fmt: skip


def _line_of(path: Path, error: Exception) -> str:
  """ ", line N of FILE": the last line of the user's file that an error came by; "" where it came by none."""
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
  return f", line {lines[-1]} of {path}" if lines else ""


def _check_study(path: Path, study: Study, runs: tuple[Run, ...]) -> None:
  """UserError for a STUDY that no figure can be drawn of, which would otherwise be seen after hours of runs."""
  if not isinstance(study, Study):
    raise UserError(f"{path}: STUDY is {str(study)[:40]!r}; it must be a Study(...)")
  for label, languages in study.groups.items():
    if isinstance(languages, str):
      raise UserError(
        f"{path}: STUDY has groups[{label!r}]={languages!r}; it must be a tuple of languages: ({languages!r},)"
      )
  there = {key for run in runs for key in run.values}
  for name, value, allowed in (
    ("x", study.x, there | {"step", "language", ""}),
    ("series", study.series, there | {None}),
    ("x_scale", study.x_scale, {"linear", "log", "category"}),
    ("y", study.y, {"bits_per_byte", "score"}),
  ):
    if value not in allowed:
      known = ", ".join(sorted(filter(None, allowed)))
      raise UserError(f"{path}: STUDY has {name}={value!r}; it must be one of {known}")
  if study.x_scale == "log":
    wrong = [run.name for run in runs if isinstance(x := run.values.get(study.x), int | float) and x <= 0]
    if wrong:
      raise UserError(f"{path}: STUDY has x_scale='log', and {wrong[0]} has no logarithm; use 'linear' or 'category'")


def _check_rows(path: Path, runs: tuple[Run, ...]) -> None:
  found: dict[str, Rows] = {}
  for run in runs:
    if run.rows and found.setdefault(run.rows.name, run.rows) != run.rows:
      raise UserError(f"{path}: two different rows are named {run.rows.name!r}")
    if run.rows and not is_plain_name(run.rows.name):
      raise UserError(f"{path}: {run.rows.name!r} is no name for the folder of rows")


def parse_overrides(sweep: Sweep, overrides: list[str]) -> dict[str, Any]:
  """{key: value} of the command line's --config.KEY=VALUE, which all runs get.

  Raises UserError: there is no such key, the value has another type, or the sweep's runs set the key themselves.
  """
  known, found = flatten(sweep.base.to_dict()), {}
  for override in overrides:
    name, equals, text = override.partition("=")
    key = name.removeprefix("--config.")
    if not equals or key not in known:
      raise UserError(
        f"{override}: there is no such key; xlmr_jax/config.py has them all, and they are set by --config.KEY=VALUE"
      )
    if setting := [run.name for run in sweep.runs if key in run.changes]:
      raise UserError(f"{override}: {len(setting)} runs of {sweep.name} set it themselves, such as {setting[0]}")
    if key == "data.rows" and any(run.rows for run in sweep.runs):
      raise UserError(f"{override}: the runs of {sweep.name} have rows of their own; give a folder of them by --rows=DIR")
    try:
      found[key] = parse_value(key, text, known[key])
    except ValueError as error:
      raise UserError(f"--{error}") from None
  return found


def config_of(sweep: Sweep, run: Run, overrides: Mapping[str, Any], rows: str = "") -> ConfigDict:
  """The config of a run, checked. rows: the folder of its rows, if it is not the config's own. Raises UserError."""
  config = sweep.base.copy_and_resolve_references()
  changes = ({"data.rows": rows} if rows else {}) | dict(overrides) | dict(run.changes)  # as on the command line of the run
  for key, value in changes.items():
    try:
      config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
      raise UserError(f"{sweep.name}, {run.name}: config.{key}={value!r}: {' '.join(str(error).split())}") from None
  try:
    check_config(config)
    phases.phases_of(config, None)
  except (UserError, TypeError) as error:  # TypeError: None, say, where a number is compared.
    raise UserError(f"{sweep.name}, {run.name}: {one_line(error)}") from None
  return config


def flags_of(changes: Mapping[str, Any]) -> list[str]:
  """A run's changes as --config.KEY=VALUE; a list of names is written with commas."""

  def text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

  return [f"--config.{key}={text(value)}" for key, value in changes.items()]
