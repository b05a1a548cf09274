"""SIGTERM and Ctrl-C, heard from a command's first line on and whatever its main thread is doing. It imports no JAX."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from xlmr_jax.errors import EXIT_INTERRUPTED, EXIT_RESTART
from xlmr_jax.run.watchdog import leave

GRACE_S = 30.0  # between a scheduler's SIGTERM and its SIGKILL, at least
LEAVE_S = GRACE_S - 5.0  # A start that was told to stop waits for the other processes no longer than this.


class Listener:
  """Learns of signals in a thread of its own. Python runs a handler only once the main thread is back from C++.

  That may take minutes, in a compilation or in a collective. The system's handler writes the signal's number into a pipe at
  once, and the thread reads it there.
  """

  def __init__(self):
    self.heard = False
    self._lock = threading.RLock()
    self._act: Callable[[], Any] | None = None
    self._interrupts = 0
    self._pipe: tuple[int, int] | None = None
    self._life = object()  # another one after forget()

  def open(self, *, interrupts: bool = False) -> None:
    """Listens to SIGTERM from now on, and to Ctrl-C if asked to. To be called in the main thread; a second call is fine."""
    is_new = self._pipe is None
    if self._pipe is None:
      self._pipe = os.pipe()
      os.set_blocking(self._pipe[1], False)
      signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, self._on_signal)
    if interrupts:
      signal.signal(signal.SIGINT, self._on_signal)
    if is_new:
      threading.Thread(target=self._read, args=(self._pipe[0],), daemon=True, name="signals").start()

  def on_heard(self, act: Callable[[], Any]) -> None:
    """Calls act() at the first signal, or now if that has come already. Until then, a signal ends the start in time."""
    with self._lock:
      self._act = act
      if self.heard:
        act()

  def close(self) -> None:
    """From now on no SIGTERM changes how the process ends. Python would put the system's action back in its last moment."""
    if self._pipe is not None:
      signal.signal(signal.SIGTERM, signal.SIG_IGN)
    self._act = lambda: None

  def forget(self) -> None:
    """Listens no longer, for a process that goes on to do other things. Who called open() puts the handlers back."""
    if self._pipe is not None:
      signal.set_wakeup_fd(-1)
      os.close(self._pipe[1])  # The thread reads the end of the pipe, and ends.
    self.__init__()

  def _on_signal(self, number: int, _: object) -> None:
    if number == signal.SIGINT:
      # The system's own action for the next one works also where Python's would wait for a long call to return.
      signal.signal(signal.SIGINT, signal.SIG_DFL)
    self._hear(number)

  def _read(self, pipe: int) -> None:
    while numbers := os.read(pipe, 64):
      for number in numbers:
        if self._pipe is None or self._pipe[0] != pipe:
          continue  # It came to a listener that was forgotten.
        if number == signal.SIGINT and signal.getsignal(signal.SIGINT) in (self._on_signal, signal.SIG_DFL):
          self._interrupts += 1
          if self._interrupts > 1:
            os._exit(EXIT_INTERRUPTED)
          self._hear(number)
        elif number == signal.SIGTERM:
          self._hear(number)
    os.close(pipe)

  def _hear(self, number: int) -> None:
    with self._lock:
      if self.heard:
        return
      self.heard = True
      if number == signal.SIGINT:
        print("interrupted: saving and ending; interrupt again to end at once", file=sys.stderr, flush=True)
      if self._act is not None:
        self._act()
      else:
        threading.Thread(target=self._leave_in_time, args=(self._life,), daemon=True, name="grace").start()

  def _leave_in_time(self, life: object) -> None:
    time.sleep(LEAVE_S)
    if self._act is None and self._life is life:
      leave(f"stopped by a signal before the processes had joined; nothing was saved, exit {EXIT_RESTART}")


listener = Listener()
