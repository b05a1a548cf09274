"""Programs that a command starts and waits for."""

import os
import signal
import subprocess
import sys
from typing import Any

# Linux tells a process of its parent's death if it has asked for that by prctl's PR_SET_PDEATHSIG, also when it has become
# another program since. So a short program asks and becomes the command; it ends if the parent has died before. It takes the
# place of subprocess's preexec_fn, which runs Python between fork and exec: that is not safe in a process with threads.
_ASK = (
  "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, int(sys.argv[2]), 0, 0, 0); "
  "os.getppid() == int(sys.argv[1]) or sys.exit(143); os.execvp(sys.argv[3], sys.argv[3:])"
)


def ending_with_parent(command: list[str]) -> list[str]:
  """The command, told by SIGTERM when the thread that starts it ends, also by SIGKILL. Elsewhere than on Linux, as it is."""
  if sys.platform != "linux":
    return command
  return [sys.executable, "-I", "-S", "-c", _ASK, str(os.getpid()), str(int(signal.SIGTERM)), *command]


def run_child(command: list[str], *, told: list[int] | None = None, **options: Any) -> int:
  """Runs a command to its end and returns its exit code; SIGTERM and SIGINT are passed on to it.

  If this process is killed, the command gets SIGTERM (on Linux), so that no second one is started beside it.
  told: gets the numbers of the signals that were passed on. options: of subprocess.Popen. To be called in the main thread,
  because it sets signal handlers.
  """
  # A group of its own: a terminal sends Ctrl-C to all of a group, and the child would take the one passed on for a second.
  child = subprocess.Popen(ending_with_parent(command), process_group=0, **options)

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
