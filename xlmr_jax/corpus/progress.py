"""Says on stderr what a long stage is doing, how far it is, and how long it still takes."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

EVERY_S = 8.0


class Progress:
  """While it is open, prints a line every EVERY_S seconds. A stage that is over sooner prints nothing."""

  def __init__(self, what: str, total: float = 0, unit: str = "", done: Callable[[], float] | None = None, begun: float = 0):
    """what: the stage. total: how much there is to do, in `unit`; 0 if nobody knows.

    done: tells how much is done; by default that is the sum of what add() was given. begun: how much was done before.
    """
    self._what, self._total, self._unit, self._begun = what, total, unit, begun
    self._added = begun
    self._done = done or (lambda: self._added)
    self._closed = threading.Event()
    self._clock = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> Self:
    self._began = time.monotonic()
    self._clock.start()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    self._closed.set()
    self._clock.join()

  def add(self, amount: float) -> None:
    """Tells that `amount` more is done. Only one thread may call it."""
    self._added += amount

  def line(self, seconds: float) -> str:
    """What there is to say after so many seconds."""
    done = min(self._done(), self._total)
    text = f"{self._what}: "
    if self._total:
      text += f"{done:,.0f} of {self._total:,.0f} {self._unit} in "
    text += f"{duration(seconds)}"
    new = done - self._begun
    if new > 0 and seconds > 0:
      text += f", {new / seconds:,.1f} {self._unit}/s"
      if done < self._total:
        text += f", about {duration(seconds * (self._total - done) / new)} still"
    return text

  def _watch(self) -> None:
    while not self._closed.wait(EVERY_S):
      print(self.line(time.monotonic() - self._began), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
  """20 s, 5.0 min or 3.5 h."""
  if seconds < 120:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
