"""Keeps the demo from falling silent: shows the lines of its programs, and after a silence says what is being waited for."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from xlmr_jax.run.children import ending_with_parent

SILENCE_S = 8.0  # nothing that takes longer than ten seconds may say nothing


class Progress:
  """While it is open, prints waiting_for() and the seconds so far whenever nothing was said for SILENCE_S.

  SIGTERM and SIGINT are passed on to the programs that run in it; a program that still runs when it closes is terminated.
  To be opened in the main thread, because it sets signal handlers.
  """

  def __init__(self, waiting_for: Callable[[], str]):
    self._waiting_for = waiting_for
    self._began = self._last_line_at = time.monotonic()
    self._children: list[subprocess.Popen[str]] = []
    self._readers: list[threading.Thread] = []
    self._closed = threading.Event()

  def __enter__(self) -> Self:
    self._clock = threading.Thread(target=self._watch, daemon=True)
    self._clock.start()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    self._closed.set()
    for child in self._children:
      child.terminate()
      child.wait()
    for thread in (self._clock, *self._readers):
      thread.join()

  def say(self, line: str) -> None:
    """Prints a line."""
    self._last_line_at = time.monotonic()
    print(line, flush=True)

  def start(self, command: list[str], prefix: str = "", only: str = "") -> subprocess.Popen[str]:
    """Starts a program. Its standard output is shown, each line behind `prefix`, without the JSON line that ends it.

    If this process is killed, the program gets SIGTERM (on Linux). To be called in the main thread, which lives as long.
    only: a regular expression; lines in which it is not found are left out.
    """
    child = subprocess.Popen(
      ending_with_parent(command),
      stdout=subprocess.PIPE,
      text=True,
      errors="replace",
      env={**os.environ, "PYTHONUNBUFFERED": "1"},
      process_group=0,  # or a terminal's Ctrl-C would reach it twice, as run.children tells
    )
    self._children.append(child)
    self._readers.append(threading.Thread(target=self._show, args=(child, prefix, re.compile(only)), daemon=True))
    self._readers[-1].start()
    return child

  def wait(self, child: subprocess.Popen[str]) -> int:
    """The exit code of a program, once it has ended. Meanwhile SIGTERM and SIGINT go to all programs."""

    def pass_on(number: int, _: object) -> None:
      for each in self._children:
        each.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
      return child.wait()
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _show(self, child: subprocess.Popen[str], prefix: str, only: re.Pattern[str]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
      if not line.startswith("{") and only.search(line):
        self.say(f"{prefix}{line.rstrip()}")

  def _watch(self) -> None:
    while not self._closed.wait(0.5):
      if time.monotonic() - self._last_line_at >= SILENCE_S:
        self.say(f"     ... {self._waiting_for()}, {time.monotonic() - self._began:.0f} s so far")
