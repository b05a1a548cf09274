"""What the steps of a recorded run read and learnt at, also before it branched off, and what of that may not change."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xlmr_jax.data.phases import Phase, Rows, continued, decay_begin, phases_of
from xlmr_jax.data.phases import refuse_other_past as refuse_change
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import flatten, read_sealed_json
from xlmr_jax.run.workdir import RunRecord, Workdir

# What the held-out loss of the same parameters depends on, beside the rows and the vocabulary.
_MEASURED_BY = ("data.mask_unit", "data.mask_share", "data.mask_span_mean", "held_out.max_rows_per_language",
                "model.isolate_documents")  # fmt: skip


class Branch(NamedTuple):
  """Where a run comes from; "branch" in its record."""

  run: str  # the folder of the other run, absolute
  step: int  # the checkpoint
  phases: tuple[Phase, ...]  # what the other run's steps before it read
  measures_anew: bool = False  # The held-out losses of the two runs do not compare, because they mask otherwise, say.

  def to_json(self) -> dict[str, Any]:
    """For config.json."""
    return self._asdict() | {"phases": [dataclasses.asdict(phase) for phase in self.phases]}


def branch_of(record: RunRecord) -> Branch | None:
  """The branch that a record tells. UserError: it is damaged."""
  if record.branch is None:
    return None
  try:
    value = record.branch
    phases = tuple(Phase(**{**phase, "languages": tuple(phase["languages"])}) for phase in value["phases"])
    return Branch(str(value["run"]), int(value["step"]), phases, bool(value.get("measures_anew", False)))
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f"the record of the run says where it branched off, but not so that it can be read ({error})") from None


def phases_in(record: RunRecord, rows: Rows) -> tuple[Phase, ...]:
  """What the steps of a recorded run read, from step 0 on, also where it branched off."""
  branch = branch_of(record)
  return continued(branch.phases if branch else (), phases_of(record.config, rows))


def measures_alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
  """Whether the held-out losses of two configs for the same rows compare."""
  first, second = flatten(dict(a)), flatten(dict(b))
  is_of_spans = first["data.mask_unit"] == "span"
  return all(first[key] == second[key] for key in _MEASURED_BY if is_of_spans or key != "data.mask_span_mean")


# --- recoveries ----------------------------------------------------------------------------------------------------


def settled_by_recoveries(workdir: Workdir, step: int, count: int | None = None) -> int:
  """The step before which phases may not change at `step`: a recovery reads on from behind its bad steps.

  count: of the recoveries that are in the checkpoint; None for all that the run had from before it.
  """
  try:
    entries = read_sealed_json(workdir.recoveries)["recoveries"][:count]
    return max([step, *(int(entry["steps"][1]) for entry in entries if int(entry["at"]) <= step)])
  except FileNotFoundError:
    return step
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{workdir.recoveries} cannot be read ({one_line(error)}); restore it, or use a new workdir") from None


def refuse_before_recovery(where: str, old: Sequence[Phase], new: Sequence[Phase], step: int, settled: int) -> None:
  """UserError if phases change before step `settled`, as settled_by_recoveries() gives it. where: for the message."""
  try:
    refuse_change(old, new, settled)
  except UserError:
    raise UserError(
      f"{where}: the run went back before step {step} and reads on from behind step {settled}, up to which its old phases "
      f"say what was left out; let a new phase begin at step {settled} or later"
    ) from None


# --- the learning rate ---------------------------------------------------------------------------------------------


def decay_of(config: Mapping[str, Any], whole: Sequence[Phase]) -> tuple[int, int] | None:
  """[first step, end) of a run's decay by wsd; None where it has none. whole: all phases of the run."""
  rate, end = config["optimizer"], config["train_steps"]
  if rate["schedule"] != "wsd" or not rate["decay_steps"]:
    return None
  return (decay_begin(whole, rate["warmup_steps"]) if rate["decay_steps"] == -1 else end - rate["decay_steps"]), end


def refuse_begun_decay(
  where: str, before: Mapping[str, Any], old: Sequence[Phase], config: Mapping[str, Any], whole: Sequence[Phase], step: int
) -> None:
  """UserError if a branch at `step` has another decay by wsd than the run it is of, which would be under way by then.

  where: for the message. before, old: the config and the phases of that run; config, whole: of the branch.
  """
  theirs, ours = decay_of(before, old), decay_of(config, whole)
  if ours is None or ours == theirs or ours[0] >= step:
    return
  steps, left = config["optimizer"]["decay_steps"], config["train_steps"] - step
  is_what = f"is the last phase, which begins at step {ours[0]}" if steps == -1 else f"begins to decay at step {ours[0]}"
  if theirs and theirs[0] < step:
    instead = (
      f"the rate of that run falls from step {theirs[0]} to {theirs[1]}: branch off a checkpoint before that, or set "
      "decay_steps and train_steps as there"
    )
  elif steps == -1:
    instead = f"set it to {left}, or let a phase that reads otherwise begin there"
  else:
    instead = f"set it to at most {left}"
  raise UserError(
    f"{where}: config.optimizer.decay_steps={steps} {is_what}, and the rate would jump at step {step}; {instead}"
  )


def refuse_moved_decay(
  workdir: Workdir, before: Mapping[str, Any], old: Sequence[Phase], config: Mapping[str, Any], now: Sequence[Phase],
  newest: int,
) -> None:  # fmt: skip
  """UserError if a continued run would have another decay by wsd, which would be under way at its newest checkpoint.

  A decay as long as the last phase may not take the place of one that is under way either. before, old: the config and the
  phases of the start before; config, now: of this one.
  """
  was, decay = decay_of(before, old), decay_of(config, now)
  if decay is None or was == decay or newest >= config["train_steps"]:
    return
  steps = config["optimizer"]["decay_steps"]
  if min(decay[0], was[0] if was and steps == -1 else decay[0]) >= newest:
    return
  instead = f"from step {was[0]} to {was[1]}" if was else "not at all"
  mend = (
    "set it to the steps that the decay shall have" if steps == -1
    else f"leave it and config.train_steps as they were, or set it to at most {config['train_steps'] - newest}"
  )  # fmt: skip
  raise UserError(
    f"{workdir}: with config.optimizer.decay_steps={steps} the rate would decay from step {decay[0]} to {decay[1]} instead "
    f"of {instead}, and {newest} steps have been made; {mend}, or branch off into a new workdir"
  )
