"""Says on stderr what long work is doing, how far it is, and how long it still takes."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

EVERY_S = 8.0  # seconds between two lines, below the ten after which silence counts as a fault
_MEASURED_S = 1.0  # seconds over which a speed is one; the first steps behind a compilation are only sent, and seem fast

T = TypeVar("T")


class Progress:
  """While it is open, prints a line every EVERY_S seconds. Work that is over sooner prints nothing."""

  def __init__(
    self, what: str, total: float = 0, unit: str = "", done: Callable[[], float] | None = None, begun: float = 0, *,
    compiles: bool = False,
  ):  # fmt: skip
    """what: the work. total: how much there is to do, in `unit`; 0 if nobody knows.

    done: tells how much is done; by default that is the sum of what add() was given. begun: how much was done before.
    compiles: the first add() comes after a compilation, whose time says nothing about the time that is left.
    """
    self._what, self._total, self._unit, self._begun = what, total, unit, begun
    self._added, self._detail = begun, ""
    self._done = done or (lambda: self._added)
    self._first: tuple[float, float] | None = None if compiles else (0.0, begun)  # (seconds, amount) from which speed counts
    self._closed = threading.Event()
    self._clock = threading.Thread(target=self._watch, daemon=True, name="progress")

  def __enter__(self) -> Self:
    self._began = time.monotonic()
    self._clock.start()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    self._closed.set()
    self._clock.join()

  def add(self, amount: float = 1, detail: str = "") -> None:
    """Tells that `amount` more is done. Only one thread may call it. detail: what else there is to say about it."""
    self._added, self._detail = self._added + amount, detail
    if self._first is None:
      self._first = time.monotonic() - self._began, self._added

  def line(self, seconds: float) -> str:
    """What there is to say after so many seconds."""
    if not self._total:
      return f"{self._what}: {duration(seconds)} so far"
    done = min(self._done(), self._total)
    text = f"{self._what}: {done:,.0f} of {self._total:,.0f} {self._unit} in {duration(seconds)}"
    first_seconds, first = self._first or (seconds, done)
    if done > first and seconds - first_seconds >= _MEASURED_S:
      speed = (done - first) / (seconds - first_seconds)
      text += f", {speed:,.1f} {self._unit}/s"
      if done < self._total:
        text += f", about {duration((self._total - done) / speed)} still"
    return text + (f", {self._detail}" if self._detail else "")

  def _watch(self) -> None:
    while not self._closed.wait(EVERY_S):
      print(self.line(time.monotonic() - self._began), file=sys.stderr, flush=True)


def counted(items: Iterable[T], progress: Progress, amount: float = 1) -> Iterator[T]:
  """The items; each one counts as `amount` once the next is asked for."""
  for item in items:
    yield item
    progress.add(amount)


def duration(seconds: float) -> str:
  """20 s, 5.0 min or 3.5 h."""
  if seconds < 120:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
