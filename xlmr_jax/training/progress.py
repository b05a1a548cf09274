"""What decides about a run and is not its state: bad steps in a row, the last evaluation, the mean of gradient norms.

All of it is values, saved beside the state and the same on every process. The limit of step s follows from the norms of the
steps before s - 1, because those are what has been fetched when s is sent.
"""

import math
from typing import NamedTuple

from xlmr_jax.run.metrics import Outcome


class GradNorms(NamedTuple):
  """The mean over the steps made, and the norm of the newest step by itself.

  A step that was not made, for whatever reason, leaves no trace in the mean: otherwise one NaN would end all comparison.
  """

  steps: int = 0  # that the mean is over, at most `span`
  mean: float = 0.0
  newest: float | None = None  # of the newest step whose outcome is known; None if it was not made

  def settled(self, span: int) -> "GradNorms":
    """With the newest norm in the mean. span: steps; up to so many it is the plain mean, then an exponential one."""
    if self.newest is None:
      return self
    steps = min(self.steps + 1, span)
    return GradNorms(steps, self.mean + (self.newest - self.mean) / steps, None)

  def limit(self, factor: float, span: int) -> float:
    """factor x the mean without the newest; inf while fewer than `span` steps are in it, and where factor is 0."""
    return factor * self.mean if factor and self.steps == span else math.inf


class Progress(NamedTuple):
  """The progress of a run."""

  bad_in_a_row: int = 0  # steps whose update was not made
  held_out_at: int = -1  # the newest step with a held-out evaluation
  seen: int = 0  # steps whose outcome is known
  norms: GradNorms = GradNorms()

  @staticmethod
  def at(start: int, notes: dict | None, is_recovery: bool) -> "Progress":
    """That of the checkpoint with these notes. is_recovery: the run went back to it, so that its bad steps do not count."""
    if not notes:
      return Progress(seen=start)
    norms = GradNorms(*notes["norms"]) if "norms" in notes else GradNorms()  # Older checkpoints have none.
    return Progress(0 if is_recovery else notes["bad_in_a_row"], notes["held_out_at"], start, norms)

  def after(self, outcomes: list[Outcome], mean_steps: int) -> "Progress":
    """This progress after more steps. mean_steps: config.spikes.mean_steps."""
    progress = self
    for made, norm in outcomes:
      bad = 0 if made else progress.bad_in_a_row + 1
      norms = progress.norms.settled(mean_steps)._replace(newest=norm if made else None)
      progress = Progress(bad, progress.held_out_at, progress.seen + 1, norms)
    return progress

  def limit(self, step: int, factor: float, mean_steps: int) -> float:
    """Of the gradient's norm in a step, however many outcomes are known by now."""
    norms = self.norms.settled(mean_steps) if self.seen < step else self.norms
    return norms.limit(factor, mean_steps)
