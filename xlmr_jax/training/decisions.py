"""What a step decides before its batch is fetched, and whether a file asks the run to end there."""

from typing import NamedTuple

import jax

from xlmr_jax.run import hosts
from xlmr_jax.run.workdir import Workdir, read_stop


class Action(NamedTuple):
  """What happens at a step before its batch is fetched, in this order."""

  evaluate: bool
  save: bool
  end: bool


def due(step: int, every_steps: int) -> bool:
  """Whether something done every so many steps (0: never) falls on this one."""
  return every_steps > 0 and step % every_steps == 0


def decide(
  step: int, *, start: int, train_steps: int, held_out_every: int, checkpoint_every: int, held_out_at: int,
  asked_to_end: bool, preempted: bool,
) -> Action:  # fmt: skip
  """What to do at a step of a run that began at `start`.

  A preempted run saves at once, without an evaluation. A step that was evaluated before, or restored, is not done again.
  """
  last = step == train_steps or asked_to_end
  evaluate = (due(step, held_out_every) or last) and not preempted and held_out_at != step
  save = (due(step, checkpoint_every) or last or preempted) and step > start
  return Action(evaluate, save, last or preempted)


def asked_to_end(workdir: Workdir, step: int) -> bool:
  """Whether STOP.json ends the run at this step; the same on every process, all of which must call it.

  It is obeyed from the step that was evaluated on: a run that fell back behind it makes those steps again first. A stopped
  run stays stopped until the file is removed.
  """

  def is_asked() -> bool:
    stop = read_stop(workdir)
    return stop is not None and step >= stop.step

  with jax.transfer_guard("allow"):  # Hosts agree by way of the devices.
    return hosts.on_first(is_asked)
