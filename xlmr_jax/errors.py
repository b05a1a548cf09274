"""How commands fail: one clear line and exit 1 for what the user must mend, a traceback for what we must."""

import sys
from collections.abc import Callable

EXIT_DONE, EXIT_USER, EXIT_RESTART = 0, 1, 42


class UserError(ValueError):
  """Something only the user can mend. The message names the file, line or value, and what to do; one line."""


def run_command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wraps a command's main: a UserError becomes one line on stderr and exit 1."""

  def wrapped(*args):
    try:
      sys.exit(main(*args) or EXIT_DONE)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr, flush=True)
      sys.exit(EXIT_USER)

  return wrapped
