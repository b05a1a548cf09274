"""The folder of a run: the name of everything in it, the typed record in config.json, STOP.json and best.json.

No other module spells a name that lies in a workdir.
"""

import dataclasses
import json
import os
import re
import sys
from typing import Any, NamedTuple

from xlmr_jax.config import is_below, with_defaults
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, Lock, any_path, flatten, lock, read_json, write_json
from xlmr_jax.folders import entries

# The keys in which a continued run may differ from what it was: they change rounding at most, or nothing that it computes.
MAY_CHANGE = ("compile_cache", "compiler_options", "mesh", "micro_batches", "rows_per_device", "log",
              "alarms", "checkpoint", "watchdog_s", "watchdog", "max_recoveries", "check_replicas_every", "data.rows",
              "data.cache", "data.verify", "held_out", "evaluate", "stop", "model.remat", "model.ops",
              "model.attention", "model.fuse", "model.unroll_layers")  # fmt: skip
# What of a config the shapes of a model's parameters depend on.
MODEL_SIZES = ("family", "layers", "hidden", "heads", "ffn", "max_positions", "token_types")
# What a pretrained model computes otherwise, with the same parameters, when it is changed.
MODEL_RULES = ("layer_norm_epsilon", "pair_types")


class Workdir:
  """The paths of one run's folder. Making one touches nothing."""

  def __init__(self, root: str | os.PathLike):
    self.root = any_path(root)
    self.record = self.root / "config.json"
    self.tokenizer = self.root / "tokenizer.model"
    self.train_log = self.root / "train.jsonl"
    self.held_out_log = self.root / "held_out.jsonl"
    self.timing_log = self.root / "timing.jsonl"
    self.alarms_log = self.root / "alarms.jsonl"
    self.planned_epochs = self.root / "planned_epochs.tsv"  # of each language in each phase
    self.goodput = self.root / "goodput.json"  # where the time went, over all starts
    self.recoveries = self.root / "recoveries.json"  # batches that the run went past: what a step reads depends on it
    self.tensorboard = self.root / "tensorboard"
    self.page = self.root / "run.html"  # by `xlmr report`
    self.filled_gaps = self.root / "filled_gaps.json"  # samples on that page, and the step of the model that filled them
    self.result = self.root / "result.json"  # its presence says that the run is done
    self.stop = self.root / "STOP.json"
    self.best_note = self.root / "best.json"
    self.best = self.root / "best"  # a copy of the best checkpoint
    self.checkpoints = self.root / "checkpoints"
    self.damaged = self.root / "damaged"  # checkpoints that a restore moved aside
    self.initial = self.root / "initial" / "0"  # an imported model; its manifest names step 0
    self.evaluations = self.root / "evaluations"
    self.pins = self.evaluations / "pins"
    self.final_scores = self.evaluations / "final"
    self.evaluation_board = self.evaluations / "tensorboard"

  def __str__(self) -> str:
    return str(self.root)

  def evaluation(self, step: int) -> AnyPath:
    """The ledger's entry for a step; its presence says that nothing more will be done about the step."""
    return self.evaluations / f"{step}.json"

  def final_score(self, checkpoint: str) -> AnyPath:
    """The file of the final scores of a checkpoint: best, latest, initial or a step."""
    return self.final_scores / f"{checkpoint}.json"

  def lock_training(self) -> Lock:
    """Takes the trainer's lock until what is returned is closed. UserError if another process holds it."""
    return lock(self.root / ".lock",
                f"{self.root} is being trained in by another process; wait for it or use a new workdir")  # fmt: skip

  def lock_evaluation(self) -> Lock:
    """Takes the evaluator's lock until what is returned is closed. UserError if another process holds it."""
    self.evaluations.mkdir(parents=True, exist_ok=True)
    return lock(self.evaluations / ".lock",
                f"{self.root} is being evaluated by another process; wait for it or end it")  # fmt: skip


def step_of(name: str) -> int | None:
  """The step that a file or folder is named by; None for 0070, ² and all that no run writes."""
  return int(name) if re.fullmatch("0|[1-9][0-9]*", name) else None


def is_hugging_face(path: AnyPath) -> bool:
  """Whether a folder has the config.json of a Hugging Face model; a run's is another one."""
  try:
    return "model_type" in read_json(path / "config.json")
  except (OSError, ValueError, TypeError):
    return False


# --- the record ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """config.json of a workdir: what a run is. A model that was imported and not yet trained has no rows."""

  config: dict[str, Any]  # every key; those that did not exist when the run began have today's default
  vocabulary_size: int
  tokenizer_sha256: str
  seq_len: int  # tokens per row
  rows_fingerprint: str | None = None
  languages: tuple[str, ...] = ()
  rows: str | None = None  # the folder of the rows, absolute
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  imported: str | None = None  # the Hugging Face folder that the run began from
  branch: dict[str, Any] | None = None  # the run and step that it branched off from, and what was read before (branch.py)

  @property
  def is_untrained_import(self) -> bool:
    """Whether pretraining has not begun with an imported model: nothing but the model is settled."""
    return self.imported is not None and self.rows_fingerprint is None

  def to_json(self) -> dict[str, Any]:
    """The content of config.json; "imported" and "branch" are left out of a run that is neither."""
    value = dataclasses.asdict(self)
    return {key: x for key, x in value.items() if key not in ("imported", "branch") or x is not None}

  def write(self, workdir: Workdir) -> None:
    """Writes config.json."""
    write_json(workdir.record, self.to_json())


# The types of the values in config.json. bool is an int in Python, but no number of anything here.
_TYPES = {
  "config": (dict,), "vocabulary_size": (int,), "tokenizer_sha256": (str,), "seq_len": (int,),
  "rows_fingerprint": (str, type(None)), "languages": (list,), "rows": (str, type(None)), "versions": (dict,),
  "imported": (str, type(None)), "branch": (dict, type(None)),
}  # fmt: skip
_OPTIONAL = ("languages", "rows", "versions", "imported", "branch")


def parse_record(path: AnyPath, value: Any) -> RunRecord:
  """The RunRecord of parsed JSON. UserError naming the file and the key that is missing or of another type."""

  def refuse(what: str) -> UserError:
    return UserError(f"{path} is not the config.json of a run: {what}; restore it")

  if not isinstance(value, dict):
    raise refuse(f"it holds no object but {str(value)[:40]}")
  for key, types in _TYPES.items():
    if key not in value and key not in _OPTIONAL:
      raise refuse(f"there is no {key}")
    found = value.get(key)
    if key in value and (not isinstance(found, types) or isinstance(found, bool) or (isinstance(found, int) and found < 1)):
      raise refuse(f"{key}={str(found)[:40]!r}")
  if not all(isinstance(name, str) for name in value.get("languages", ())):
    raise refuse(f"languages={str(value['languages'])[:40]}")
  if "model" not in value["config"]:
    raise refuse("its config has no model")
  try:
    config = with_defaults(value["config"])
  except ValueError as error:
    raise refuse(str(error)) from None
  given = {key: value[key] for key in _TYPES if key in value}
  return RunRecord(**given | {"config": config, "languages": tuple(value.get("languages", ()))})


def read_record(workdir: Workdir) -> RunRecord:
  """The record of a run. UserError: there is none, or it is damaged."""
  try:
    value = read_json(workdir.record)
  except FileNotFoundError:
    raise UserError(f"{workdir.record} is missing: {workdir} is neither the workdir of a run nor a Hugging Face "
                    "folder") from None  # fmt: skip
  except (OSError, ValueError) as error:
    raise UserError(f"{workdir.record} cannot be read ({error}); restore it") from None
  return parse_record(workdir.record, value)


def refuse_other_run(workdir: Workdir, record: RunRecord, allowed: tuple[str, ...] = (), *, quiet: bool = False) -> None:
  """UserError if the workdir holds a run with another config or other rows. Prints what differs and may.

  allowed: further keys that may change, such as a learning rate after a divergence. quiet: prints nothing.
  """
  if not workdir.record.exists():
    steps = [name for name in entries(workdir.checkpoints) if step_of(name) is not None]
    if steps:
      raise UserError(
        f"{workdir.record} is missing, but {workdir.checkpoints} has {len(steps)} checkpoints of what was trained here; "
        "restore the file, or use a new workdir"
      )
    if (workdir.root / "manifest.json").exists():
      raise UserError(f"{workdir} is a folder of rows, with a manifest.json; use another workdir")
    return
  before = read_record(workdir)
  if before.is_untrained_import:
    refuse_other_model(workdir, before, record)
    return
  if before.rows_fingerprint != record.rows_fingerprint:
    raise UserError(
      f"{workdir} was trained on other rows (fingerprint {str(before.rows_fingerprint)[:12]}, now "
      f"{str(record.rows_fingerprint)[:12]}); use those or a new workdir"
    )
  old, new = (flatten(json.loads(json.dumps(config))) for config in (before.config, record.config))  # tuples as lists
  changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
  # A stop by held-out losses would compare losses of other rows.
  by_held_out = any(config["stop.by"] == "held_out" and config["stop.patience"] for config in (old, new))
  settled = {"held_out.max_rows_per_language"} if by_held_out else set()
  refused = sorted(
    key for key in changed if not is_below(key, allowed) and (key in settled or not is_below(key, MAY_CHANGE))
  )
  if refused:
    what = ", ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in refused)
    raise UserError(
      f"{workdir} holds a run of another config ({what}); use a new workdir, or go on with the change: "
      f"--allow_change={','.join(refused)}"
    )
  for key in sorted(() if quiet else changed):
    print(f"continuing with config.{key}={new.get(key)!r} (was {old.get(key)!r})", flush=True)


def refuse_other_model(workdir: Workdir, before: RunRecord, record: RunRecord) -> None:
  """UserError if a config or its rows do not fit the model that was imported into the workdir."""
  old, new = before.config["model"], record.config["model"]
  for key in (*MODEL_SIZES, *MODEL_RULES):
    if old.get(key, new[key]) != new[key]:
      raise UserError(
        f"config.model.{key}={new[key]}, but {before.imported}, imported into {workdir}, has {old[key]}; "
        f"use --config=imported:{workdir}, which takes what it has"
      )
  for key, what in (("vocabulary_size", "entries"), ("tokenizer_sha256", "sha256")):
    if getattr(before, key) != getattr(record, key):
      raise UserError(
        f"{record.rows} was made with another vocabulary ({what} {str(getattr(record, key))[:12]}) than "
        f"{before.imported} has ({str(getattr(before, key))[:12]}); build the rows with --tokenizer="
        f"{workdir.tokenizer}"
      )


# --- STOP.json and best.json ---------------------------------------------------------------------------------------


class Stop(NamedTuple):
  """What STOP.json says: the run ends at the first look at or after `step`."""

  step: int
  reason: str


def read_stop(workdir: Workdir) -> Stop | None:
  """STOP.json, or None. A user may write one too; one that cannot be read is reported and not obeyed."""
  try:
    stop = read_json(workdir.stop)
    return Stop(int(stop["step"]), str(stop["reason"]))
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError):
    print(f'{workdir.stop} is not obeyed: it must be {{"step": 0, "reason": "why"}}', file=sys.stderr, flush=True)
    return None


def best_step(workdir: Workdir) -> int | None:
  """The step of best.json, if there is one."""
  try:
    return int(read_json(workdir.best_note)["step"])
  except (OSError, ValueError, KeyError, TypeError):
    return None
