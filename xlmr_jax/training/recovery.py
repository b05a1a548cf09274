"""Back to an earlier checkpoint after too many bad steps in a row, and past the batches of the bad steps.

A batch is a function of (seed, step, ledger), and recoveries.json is the ledger. It is written once the checkpoints that a
recovery takes back are gone: a run that is killed before that makes the bad steps again, and decides the same.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from xlmr_jax.errors import UserError
from xlmr_jax.files import read_sealed_json, write_sealed_json
from xlmr_jax.run import hosts
from xlmr_jax.run.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Recovery:
  """One entry of the ledger."""

  at: int  # the step that the run went back to
  skipped: int  # batches that are left out from this step on
  steps: tuple[int, int]  # [first, end) of the bad steps
  reason: str


Ledger = tuple[Recovery, ...]


def _parse(value: Any) -> Ledger:
  """Raises KeyError, TypeError or ValueError: it is no ledger."""
  ledger = []
  for entry in value["recoveries"]:
    first, end = map(int, entry["steps"])
    ledger.append(Recovery(int(entry["at"]), int(entry["skipped"]), (first, end), str(entry["reason"])))
    if not (0 <= ledger[-1].at <= end and ledger[-1].skipped >= 0):
      raise ValueError(f"{entry} is no recovery")
  return tuple(ledger)


def read_ledger(workdir: Workdir) -> Ledger:
  """The recoveries of a run so far, in order. UserError: the ledger cannot be read, and the data's order depends on it."""
  try:
    return _parse(read_sealed_json(workdir.recoveries))
  except FileNotFoundError:
    return ()
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{workdir.recoveries} cannot be read ({error}); restore it, or use a new workdir") from None


def read_ledger_of_first(workdir: Workdir) -> Ledger:
  """What process 0 reads, on every process."""
  return _parse({"recoveries": hosts.on_first(lambda: [dataclasses.asdict(entry) for entry in read_ledger(workdir)])})


def refuse_lost(workdir: Workdir, ledger: Ledger, notes: dict | None) -> None:
  """UserError if the checkpoint whose notes these are was made with more recoveries than the ledger has."""
  made_with = (notes or {}).get("recoveries", 0)
  if made_with > len(ledger):
    raise UserError(
      f"{workdir.recoveries} has {len(ledger)} recoveries, but the newest checkpoint was made after {made_with}: it would "
      "read other batches; restore the file, or use a new workdir"
    )


def write_ledger(workdir: Workdir, ledger: Ledger) -> None:
  """Replaces recoveries.json."""
  write_sealed_json(workdir.recoveries, {"recoveries": [dataclasses.asdict(entry) for entry in ledger]})


def in_force(ledger: Ledger) -> Ledger:
  """The entries that count: one that the run has gone back behind since is replaced by the later one."""
  kept: list[Recovery] = []
  for entry in ledger:
    kept = [before for before in kept if before.at <= entry.at] + [entry]
  return tuple(kept)


def data_step(step: int, ledger: Ledger) -> int:
  """The number of the batch that a step gets: the step itself, and all that were left out at or before it."""
  return step + sum(entry.skipped for entry in in_force(ledger) if entry.at <= step)


def restarts_of(ledger: Ledger) -> tuple[tuple[int, int], ...]:
  """(step that the run went back to, end of the bad steps) of every entry, as timeline.Timeline takes them."""
  return tuple((entry.at, entry.steps[1]) for entry in ledger)


def is_at(step: int, ledger: Ledger, notes: dict | None) -> bool:
  """Whether the run went back to the checkpoint of this step with these notes, and not to one that was made there before."""
  made_with = (notes or {}).get("recoveries", 0)
  return any(entry.at == step for entry in ledger[made_with:])


def restart_point(sound: Sequence[int], first_bad: int) -> int:
  """The step to go back to: the newest checkpoint with no bad step of the window before it; 0, the start, without any.

  If retention has left only checkpoints from within the window, it is the first of them, which holds what was there before
  the window, because bad steps change nothing.
  """
  before = [step for step in sound if step <= first_bad]
  return max(before) if before else min(sound, default=0)


def why_not(ledger: Ledger, at: int, bad: tuple[int, int], max_recoveries: int) -> str:
  """Why the run must not go back to step `at` after the bad steps [first, end); "" where it may."""
  if len(ledger) >= max_recoveries:
    return f"config.max_recoveries={max_recoveries} allows no further recovery"
  if ledger and at <= ledger[-1].at and bad[0] < ledger[-1].steps[1]:
    return f"it went back to step {ledger[-1].at} before, and has come no further than step {bad[0]} since"
  return ""


def recovered(ledger: Ledger, at: int, bad: tuple[int, int], reason: str) -> Ledger:
  """The ledger with one more entry: from step `at` on, the run reads on from where it was at the end of the bad steps."""
  before = tuple(entry for entry in in_force(ledger) if entry.at <= at)
  skipped = data_step(bad[1], ledger) - data_step(at, before)
  return (*ledger, Recovery(at, skipped, bad, reason))


Begun = tuple[int, Any, dict | None]  # step, state, notes of the checkpoint


def go_back(
  workdir: Workdir, ledger: Ledger, bad: tuple[int, int], sound: Sequence[int], max_recoveries: int,
  begin_at: Callable[[int], Begun],
) -> tuple[Ledger, Begun]:  # fmt: skip
  """Takes a run back to before the bad steps [first, end): the ledger that says so, and what begin_at returned.

  sound: the steps with a checkpoint. begin_at: restores the newest sound checkpoint up to a step, and removes the later
  ones. Nothing may hold the old state any more. Every process calls it. UserError: the run has gone back often enough.
  """
  reason = f"loss or gradients were not finite, or a spike, in {bad[1] - bad[0]} steps in a row up to step {bad[1]}"
  at = restart_point(sound, bad[0])
  if why := why_not(ledger, at, bad, max_recoveries):
    raise UserError(
      f"{reason}; {why}; go on with a lower learning rate or another order of the data, e.g. --config.seed=1 "
      "--allow_change=seed"
    )
  hosts.say(f"{reason}: going back, and past their batches")
  begun = begin_at(at)
  ledger = recovered(ledger, begun[0], bad, reason)
  hosts.on_first(lambda: write_ledger(workdir, ledger))
  hosts.say(f"going on from step {begun[0]} with {ledger[-1].skipped} batches left out; {workdir.recoveries} says so")
  return ledger, begun
