"""How commands end: one clear line and exit 1 for what the user must mend, a traceback and exit 70 for a crash."""

import sys
import traceback
from collections.abc import Callable

EXIT_DONE, EXIT_USER, EXIT_RESTART, EXIT_CRASH = 0, 1, 42, 70
EXIT_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


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
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr, flush=True)
      sys.exit(EXIT_INTERRUPTED)
    except Exception:
      traceback.print_exc()
      sys.exit(EXIT_CRASH)

  return wrapped
