"""How a process ends that cannot go on: where each thread is, and exit 42. And the watchdog, which notices that it hangs."""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NoReturn

from xlmr_jax.errors import EXIT_RESTART

LOOK_S = 1.0  # seconds between two looks of a watchdog
_leaving = threading.Lock()


def leave(text: str, *, stacks: bool = False, code: int = EXIT_RESTART) -> NoReturn:
  """Prints a line, and the stacks of all threads if asked to, and ends the process at once. Any thread may call it.

  Nothing is cleaned up, which is as safe as kill -9: what is half written is not taken for whole at the next start.
  """
  _leaving.acquire()  # Several threads may find out at the same moment that it is over; one of them says so.
  with contextlib.suppress(Exception):  # A closed or full output must not keep the process.
    print(text, file=sys.stderr, flush=True)
    if stacks:
      faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    sys.stdout.flush()
  os._exit(code)


class Watchdog:
  """Ends a hung process with exit 42, because a collective does not notice a peer that hangs, only one that dies.

  limits: for each kind of work, the seconds without a sign of life after which the process counts as hung; 0: no limit.
  work: the kind that is done first.
  hung_s: above 0, the system ends the process with SIGALRM when no Python code could run for so long. That happens if C++
    hangs and holds Python's lock. Then no thread of ours could do it.
  """

  def __init__(self, limits: Mapping[str, float], work: str, hung_s: float = 0.0):
    self._limits = dict(limits)
    self._hung_s = hung_s
    self._work = work
    self._silent_s = 0.0
    self._done = threading.Event()
    if any(limits.values()) or hung_s:
      threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

  def alive(self) -> None:
    """Says that the process makes progress."""
    self._silent_s = 0.0

  def begin(self, work: str) -> None:
    """From now on, the limit is that of another kind of work."""
    self._work, self._silent_s = work, 0.0

  @contextlib.contextmanager
  def during(self, work: str) -> Iterator[None]:
    """While the block runs, the limit is that of another kind of work."""
    before = self._work
    self.begin(work)
    try:
      yield
    finally:
      self.begin(before)

  def close(self) -> None:
    """Ends the watching."""
    self._done.set()

  def _watch(self) -> None:
    look_s = min([LOOK_S, *(limit / 4 for limit in self._limits.values() if limit)])
    seen = time.monotonic()
    while not self._done.is_set():
      if self._hung_s:
        signal.setitimer(signal.ITIMER_REAL, self._hung_s)
      self._done.wait(look_s)
      now = time.monotonic()
      self._silent_s += min(now - seen, 5 * look_s)  # While the whole process was stopped (Ctrl-Z), nothing was due.
      seen = now
      work = self._work
      limit = self._limits.get(work, 0.0)
      if limit and self._silent_s > limit and not self._done.is_set():
        leave(f"watchdog: no sign of life for {limit:g} s ({work}); the stacks follow, exit {EXIT_RESTART}", stacks=True)
    if self._hung_s:
      signal.setitimer(signal.ITIMER_REAL, 0)
