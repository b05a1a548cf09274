"""The numbers of a run, read from its workdir, as arrays. What is missing or not yet there is empty."""

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from xlmr_jax.config import default_config, parse_row_shares, with_defaults
from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.data.row_shares import kept_rows
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.evaluation.ledger import Entry, read_ledger
from xlmr_jax.files import any_path, flatten, read_bytes, read_json
from xlmr_jax.run import logs
from xlmr_jax.run.goodput import Accounts, read_accounts
from xlmr_jax.run.workdir import RunRecord, Stop, Workdir, best_step, read_record, read_stop
from xlmr_jax.training import recovery

_OF_A_LANGUAGE = ("loss", "epochs", "share", "share_wanted", "rows")


@dataclasses.dataclass
class Curves:
  """train.jsonl: N lines, G languages. NaN where a line says nothing."""

  languages: tuple[str, ...]
  steps: np.ndarray  # float64[N]
  loss: np.ndarray  # float64[N], nats per masked token
  grad_norm: np.ndarray
  lr: np.ndarray
  skipped: np.ndarray
  phase: np.ndarray  # its number; NaN where the run has but one
  language_loss: np.ndarray  # float32[N, G]
  last: dict[str, dict[str, Any]]  # {language: its values in the last line}


@dataclasses.dataclass
class HeldOut:
  """held_out.jsonl: N passes, G languages."""

  languages: tuple[str, ...]
  steps: np.ndarray  # float64[N]
  mean: np.ndarray  # float64[N], the mean of the languages, nats per masked token
  loss: np.ndarray  # float64[N, G]
  bits: np.ndarray  # float64[N, G], bits per byte
  is_logged: np.ndarray  # bool[G], whether any pass has the language
  parallel: tuple[str, ...] = ()  # those of the languages that are pairs of parallel sentences, and in no mean

  @property
  def mean_bits(self) -> np.ndarray:
    """The mean over the languages that a pass has, without pairs of them, float64[N].

    NaN where it has none, and where the loss of one of them is no number: the mean of the others would not compare with
    that of the other passes.
    """
    known = np.isfinite(self.bits) & np.array([name not in self.parallel for name in self.languages], bool)
    has_mean = known.any(axis=1) & np.isfinite(self.mean)
    return np.where(known, self.bits, 0.0).sum(axis=1) / np.where(has_mean, known.sum(axis=1), np.nan)

  def without_number(self, at: int) -> list[str]:
    """The languages that have no number in pass `at`, of those that any pass has."""
    return [name for n, name in enumerate(self.languages) if self.is_logged[n] and not np.isfinite(self.bits[at, n])]


@dataclasses.dataclass
class Run:
  """All of a run that its page shows."""

  workdir: Workdir
  record: RunRecord
  curves: Curves
  held_out: HeldOut
  timing: list[dict[str, Any]]
  accounts: Accounts
  ledger: list[Entry]
  stop: Stop | None
  best: int | None
  result: dict[str, Any] | None
  alarms: list[dict[str, Any]]
  recoveries: Sequence[Any]
  filled: dict[str, Any]
  planned: list[list[str]]  # planned_epochs.tsv, its head first; [] where there is none
  train_rows: dict[str, int]  # of each language; {} where neither the rows nor the log can tell

  @property
  def name(self) -> str:
    return self.workdir.root.name or str(self.workdir)

  @property
  def steps_done(self) -> int:
    """By the newest line of any log."""
    return int(max([0, *self.curves.steps[-1:], *self.held_out.steps[-1:]]))

  @property
  def scores(self) -> list[tuple[int, float]]:
    """(step, score) of each evaluated checkpoint under the rule of the evaluator, whose flags count before the config."""
    return [(entry.step, entry.score) for entry in self.ledger if entry.score is not None]

  @property
  def best_score(self) -> tuple[int, float] | None:
    """(step, score) of the best checkpoint, which best.json names; without it, of the highest score. None without scores."""
    return best_of(self.scores, self.best)

  @property
  def has_other_rule(self) -> bool:
    """Whether the evaluator was given another config.stop.score than the run, as far as the ledger tells."""
    which = self.record.config["stop"]["score"]
    return any(
      (own := entry.score_of(which)) is None or not math.isclose(entry.score, own)
      for entry in self.ledger
      if entry.score is not None
    )

  @property
  def phase_edges(self) -> list[tuple[int, int]]:
    """(updates before it, number) of each phase after the first."""
    heads = [re.fullmatch(r"steps_(\d+)_\d+", head) for head in (self.planned[0] if self.planned else [])]
    begins = [int(head[1]) for head in heads if head]
    if begins:
      return [(begin, number) for number, begin in enumerate(begins[1:], 2) if begin < self.steps_done]
    # Without the plan, the log's lines tell it to one of them. Those of a run without phases count as the first.
    phase, steps = np.nan_to_num(self.curves.phase, nan=1.0), self.curves.steps
    changed = np.flatnonzero(phase[1:] > phase[:-1])
    return [(int(steps[at]), int(phase[at + 1])) for at in changed]

  @property
  def tokens_read(self) -> int:
    """Tokens of all rows that the last line of the log counts, pads included."""
    return sum(int(values.get("rows") or 0) for values in self.curves.last.values()) * self.record.seq_len

  @property
  def by_size(self) -> list[str]:
    """The languages, the one with the most rows first; those of unknown size last."""
    names = dict.fromkeys([*self.record.languages, *self.curves.languages, *self.held_out.languages])
    return sorted(names, key=lambda name: (-self.train_rows.get(name, 0), name))


def best_of(scores: Sequence[tuple[int, float]], best: int | None) -> tuple[int, float] | None:
  """(step, score) of step `best`, which best.json names; where it has no score, of the highest one."""
  return next((point for point in scores if point[0] == best), None) or max(scores, key=lambda point: point[1], default=None)


def read_run(workdir: Workdir) -> Run:
  """Everything of a run. UserError: there is no record, or it is damaged; or the run has no line in any log."""
  record = read_record(workdir)
  curves, held_out = read_curves(logs.each_train(workdir), record.languages), _held_out(logs.read_held_out(workdir), record)
  if not len(curves.steps) and not len(held_out.steps):
    raise UserError(f"{workdir} has no line in train.jsonl or held_out.jsonl yet; wait for the run's first held-out pass")
  return Run(
    workdir, record, curves, held_out, logs.read_timing(workdir), read_accounts(workdir),
    _or_empty(read_ledger, workdir), read_stop(workdir),
    best_step(workdir), _json(workdir.result, dict) or None, logs.read_alarms(workdir),
    _or_empty(recovery.read_ledger, workdir), _json(workdir.filled_gaps, dict), _planned(workdir),
    _train_rows(record, curves),
  )  # fmt: skip


def read_curves(lines: Iterable[dict], languages: Sequence[str]) -> Curves:
  """The lines of train.jsonl as arrays, which take a tenth of the memory of their objects."""
  index = {name: number for number, name in enumerate(languages)}
  plain: dict[str, list[float]] = {name: [] for name in ("step", "loss", "grad_norm", "lr", "skipped", "phase")}
  losses, last = [], {}
  for line in lines:
    for name, values in plain.items():
      values.append(_number(line.get(name)))
    for name in line["languages"]:
      index.setdefault(name, len(index))
    row = np.full(len(index), np.nan, np.float32)
    for name, values in line["languages"].items():
      row[index[name]] = _number(values.get("loss"))
    losses.append(row)
    last = line["languages"]
  arrays = {name: np.array(values, np.float64) for name, values in plain.items()}
  return Curves(
    tuple(index), arrays["step"], arrays["loss"], arrays["grad_norm"], arrays["lr"], arrays["skipped"],
    arrays["phase"], _stacked(losses, len(index)),
    {name: {key: values.get(key) for key in _OF_A_LANGUAGE} for name, values in last.items()},
  )  # fmt: skip


def _number(value: Any) -> float:
  return float(value) if isinstance(value, (int, float)) else math.nan


def _stacked(rows: list[np.ndarray], width: int) -> np.ndarray:
  """float32[N, width] of rows that may be shorter, because a language came later."""
  table = np.full((len(rows), width), np.nan, np.float32)
  for number, row in enumerate(rows):
    table[number, : len(row)] = row
  return table


def _held_out(lines: list[dict], record: RunRecord) -> HeldOut:
  names = tuple(dict.fromkeys([*record.languages, *(name for line in lines for name in line["languages"])]))
  table = np.full((2, len(lines), len(names)), np.nan)
  for number, line in enumerate(lines):
    for column, name in enumerate(names):
      values = line["languages"].get(name, {})
      table[:, number, column] = _number(values.get("loss")), _number(values.get("bits_per_byte"))
  steps, mean = (np.array([_number(line[key]) for line in lines]) for key in ("step", "mean_loss"))
  parallel = tuple(dict.fromkeys(name for line in lines for name in line.get("parallel", ())))
  is_logged = np.array([any(name in line["languages"] for line in lines) for name in names], bool)
  return HeldOut(names, steps, mean, table[0], table[1], is_logged, parallel)


def _train_rows(record: RunRecord, curves: Curves) -> dict[str, int]:
  """The training rows of each language: from the manifest of the rows, or else rows read per epoch in the log."""
  if record.rows:
    try:
      manifest = read_manifest(any_path(record.rows))
      if manifest["fingerprint"] != record.rows_fingerprint:
        raise ValueError("other rows are there by now")
      shares = parse_row_shares(record.config["data"]["row_shares"])
      rows = {name: manifest["languages"][name]["train"]["rows"] for name in record.languages}
      return {name: kept_rows(count, shares.get(name, shares.get("", 1.0))) for name, count in rows.items()}
    except (UserError, OSError, KeyError, ValueError):  # The rows may be on another machine, gone, or replaced.
      pass
  return {
    name: round(values["rows"] / values["epochs"])
    for name, values in curves.last.items()
    if values.get("rows") and values.get("epochs")
  }


def _or_empty(read: Callable[[Workdir], Sequence[Any]], workdir: Workdir) -> Any:
  """What `read` gives; nothing where its file is damaged, which stderr tells."""
  try:
    return read(workdir)
  except UserError as error:
    print(f"left out of the page: {one_line(error)}", file=sys.stderr, flush=True)
    return []


def _planned(workdir: Workdir) -> list[list[str]]:
  try:
    return [line.split("\t") for line in read_bytes(workdir.planned_epochs).decode().splitlines()]
  except (OSError, ValueError):  # A run that began before there was one.
    return []


def _json(path: Any, kind: type) -> Any:
  """The value of a JSON file; an empty one of this kind where there is none, or where it is damaged, which stderr tells."""
  try:
    value = read_json(path)
    if not isinstance(value, kind):
      raise ValueError(f"it holds no {kind.__name__}")
    return value
  except FileNotFoundError:
    return kind()
  except (OSError, ValueError) as error:
    print(f"{path} is left out of the page ({one_line(error)})", file=sys.stderr, flush=True)
    return kind()


def changed_keys(config: dict[str, Any]) -> list[tuple[str, Any, Any]]:
  """(key, the run's value, the default) of the keys of a config that are not as default_config() has them."""
  default, own = flatten(default_config().to_dict()), flatten(with_defaults(config))
  return [(key, value, default.get(key)) for key, value in own.items() if _plain(value) != _plain(default.get(key))]


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value
