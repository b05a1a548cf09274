"""Alarms: what somebody who reads the log of a run every hour would notice. Pure functions of the log's lines and a state.

The state follows from the lines alone and is kept with each checkpoint, so that a resumed run raises the same alarms as an
unbroken one. An alarm is raised once per cause: it comes again only after its cause has gone. No files, no JAX.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

KINDS = {"epochs": "epochs", "turned_up": "held-out loss", "share": "share", "spike": "loss spike"}  # in words
_PASSES = 2  # held-out passes in a row that must be above a language's lowest loss
_MEAN_LINES = 20.0  # lines of train.jsonl that the running mean of a loss spans
_LEAST_LINES = 10  # before so many, nothing is a spike
_SPREADS = 6.0  # A spike is so many standard deviations of the language's own noise above its mean.
_CHANCE = 5.0  # standard deviations by which a share may differ because rows come in random order
_ROUNDED = 1e-6  # Shares in the log have so many digits.


class Limits(Protocol):
  """config.alarms, as config.py has it."""

  max_epochs: float
  held_out_rise: float
  share_drift: float
  spike_nats: float


class Alarm(NamedTuple):
  """One line of alarms.jsonl."""

  step: int
  kind: str  # a key of KINDS
  language: str
  text: str


def new_state() -> dict[str, Any]:
  """The state before the first line. It holds what JSON can."""
  return {"raised": [], "losses": {}, "held_out": {}}


def without_losses(state: dict) -> dict:
  """The state for a run that goes on with losses that do not compare with those before, because it masks otherwise."""
  raised = [cause for cause in state["raised"] if cause[0] not in ("turned_up", "spike")]
  return {key: value for key, value in state.items() if key != "held_out_step"} | {
    "raised": raised, "losses": {}, "held_out": {},
  }  # fmt: skip


def after_train(state: dict, line: Mapping[str, Any], limits: Limits) -> tuple[dict, list[Alarm]]:
  """(the state, the new alarms) after a line of train.jsonl."""
  state, found = copy.deepcopy(state), []
  step, languages = line["step"], line["languages"]
  if state.get("phase", 0) != line.get("phase", 0):  # A phase that masks more, say, has another loss, which is no fault.
    state |= {"phase": line.get("phase", 0), "losses": {}}
  total = sum(values.get("rows", 0) for values in languages.values())
  for name, values in languages.items():
    epochs = values.get("epochs", 0.0)
    if _is_new(state, "epochs", name, 0 < limits.max_epochs < epochs):
      found.append(
        Alarm(step, "epochs", name, f"{name} has been read {epochs:.1f} times; the limit is {limits.max_epochs:g} epochs")
      )
    found += _share_alarms(state, step, name, values, total, limits)
    found += _spike_alarms(state, step, name, values.get("loss"), limits)
  return state, found


def _is_new(state: dict, kind: str, name: str, is_so: bool, is_gone: bool | None = None) -> bool:
  """Whether a cause has just come. is_gone: whether it has gone, if that is not the same as not `is_so`."""
  cause = [kind, name]
  if is_so:
    if cause in state["raised"]:
      return False
    state["raised"].append(cause)
    return True
  if (True if is_gone is None else is_gone) and cause in state["raised"]:
    state["raised"].remove(cause)
  return False


def _share_alarms(state: dict, step: int, name: str, values: Mapping[str, Any], total: int, limits: Limits) -> list[Alarm]:
  """The wanted share of a line is that among all rows so far, also where it changes from phase to phase."""
  rows, wanted = values.get("rows", 0), total * values.get("share_wanted", 0.0)
  allowed = limits.share_drift * wanted + _CHANCE * math.sqrt(max(wanted, 1.0)) + _ROUNDED * total
  off = abs(rows - wanted)
  is_so = bool(limits.share_drift) and off > allowed
  if not _is_new(state, "share", name, is_so, off < allowed / 2):
    return []
  text = f"{name} has {rows / max(total, 1):.3%} of the rows so far, but {wanted / max(total, 1):.3%} were wanted"
  return [Alarm(step, "share", name, text)]


def _spike_alarms(state: dict, step: int, name: str, loss: float | None, limits: Limits) -> list[Alarm]:
  """A spike stays out of the mean, unless the loss stays up there: then the mean comes after it and it is no spike.

  The noise is that of the differences between lines, which a loss that falls fast does not widen.
  """
  if loss is None or not math.isfinite(loss):
    return []
  count, mean, variance, last = state["losses"].get(name, (0, loss, 0.0, loss))
  above = loss - mean
  limit = max(limits.spike_nats, _SPREADS * math.sqrt(variance))
  is_so = limits.spike_nats > 0 and count >= _LEAST_LINES and above > limit
  share = 1.0 / min(count + 1.0, _MEAN_LINES)
  most = limit if count >= _LEAST_LINES and limits.spike_nats > 0 else math.inf
  step_up = min(abs(loss - last), most)
  state["losses"][name] = [
    min(count + 1, int(_MEAN_LINES)), mean + share * min(above, most), variance + share * (step_up**2 / 2.0 - variance), loss
  ]  # fmt: skip
  if not _is_new(state, "spike", name, is_so, above < limit / 2):
    return []
  return [Alarm(step, "spike", name, f"the loss of {name} is {loss:.3f}, {above:.3f} nats above its running mean")]


def after_held_out(state: dict, line: Mapping[str, Any], limits: Limits) -> tuple[dict, list[Alarm]]:
  """(the state, the new alarms) after a line of held_out.jsonl. The line of a pass that was made again changes nothing."""
  if line["step"] <= state.get("held_out_step", -1):
    return state, []
  state, found = copy.deepcopy(state) | {"held_out_step": line["step"]}, []
  step, mean = line["step"], line["mean_loss"]
  if mean is None or not math.isfinite(mean):  # One language whose loss is not finite must not silence the others.
    known = [values["loss"] for name, values in line["languages"].items() if name not in line.get("parallel", ())]
    known = [loss for loss in known if loss is not None and math.isfinite(loss)]
    mean = sum(known) / len(known) if known else math.nan
  for name, values in line["languages"].items():
    loss = values["loss"]
    if loss is None or not math.isfinite(loss):
      continue
    lowest, at, mean_then, above = state["held_out"].get(name, (math.inf, step, mean, 0))
    if loss < lowest:
      state["held_out"][name] = [loss, step, mean, 0]
      _is_new(state, "turned_up", name, False)
      continue
    above = above + 1 if loss > lowest * (1.0 + limits.held_out_rise) else 0
    state["held_out"][name] = [lowest, at, mean_then, above]
    is_so = limits.held_out_rise > 0 and above >= _PASSES and mean < mean_then
    if _is_new(state, "turned_up", name, is_so, False):
      text = (
        f"the held-out loss of {name} is {loss:.4f}, up from {lowest:.4f} at step {at:,}, while the mean of all languages "
        f"fell from {mean_then:.4f} to {mean:.4f}"
      )
      found.append(Alarm(step, "turned_up", name, text))
  return state, found
