"""How commands end: one clear line and exit 1 for what the user must mend, a traceback and exit 70 for a crash."""

import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

EXIT_DONE, EXIT_USER, EXIT_RESTART, EXIT_CRASH = 0, 1, 42, 70


class UserError(ValueError):
  """Something only the user can mend. The message names the file, line or value, and what to do; one line."""


def run_command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wraps a command's main: a UserError becomes one line on stderr and exit 1, anything else a traceback and exit 70."""

  def wrapped(*args):
    try:
      sys.exit(main(*args) or EXIT_DONE)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr, flush=True)
      sys.exit(EXIT_USER)
    except Exception:
      traceback.print_exc()
      sys.exit(EXIT_CRASH)

  return wrapped


def run_child(command: list[str], **options) -> int:
  """Runs a command to its end and returns its exit code; SIGTERM and SIGINT go on to it."""
  child = subprocess.Popen(command, **options)
  before = {
    number: signal.signal(number, lambda number, _: child.send_signal(number)) for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    return child.wait()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
