"""Programs that a command starts and waits for."""

import signal
import subprocess
from typing import Any


def run_child(command: list[str], *, told: list[int] | None = None, **options: Any) -> int:
  """Runs a command to its end and returns its exit code; SIGTERM and SIGINT are passed on to it.

  told: gets the numbers of the signals that were passed on. options: of subprocess.Popen. To be called in the main thread,
  because it sets signal handlers.
  """
  # A group of its own: a terminal sends Ctrl-C to all of a group, and the child would take the one passed on for a second.
  child = subprocess.Popen(command, process_group=0, **options)

  def pass_on(number: int, _: object) -> None:
    if told is not None:
      told.append(number)
    child.send_signal(number)

  before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    return child.wait()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
