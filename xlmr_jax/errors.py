"""How commands end: one clear line and exit 1 for what the user must mend, a traceback and exit 70 for a crash."""

import errno
import os
import sys
import traceback
from collections.abc import Callable

EXIT_DONE, EXIT_USER, EXIT_RESTART, EXIT_CRASH = 0, 1, 42, 70
EXIT_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


class UserError(ValueError):
  """Something only the user can mend. The message names the file, line or value, and what to do; one line."""


# What a full or failing disk says to a write. Such an error seldom names its file.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


def told(error: Exception) -> str:
  """The line that an error ends a command with, which names the file of a file system's error; "" for any other crash."""
  if isinstance(error, UserError):
    return " ".join(str(error).splitlines())
  if not isinstance(error, OSError) or (error.filename is None and error.errno not in _DISK):
    return ""
  files = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]  # two of a copy
  where = " -> ".join(files) or "a file cannot be written"
  return f"{where}: {error.strerror or error}"


def run_command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wraps a command's main: what the user must mend becomes one line on stderr and exit 1, all else a traceback and exit 70.

  The user must mend a UserError, and what a file system refuses: a full disk, a file that cannot be read.
  """

  def wrapped(*args):
    try:
      code = main(*args) or EXIT_DONE
      sys.stdout.flush()  # What is printed may go to a full disk too.
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr, flush=True)
      code = EXIT_INTERRUPTED
    except Exception as error:
      line = told(error)
      code = EXIT_USER if line else EXIT_CRASH
      if line:
        print(f"error: {line}", file=sys.stderr, flush=True)
      else:
        traceback.print_exc()
      _discard_the_rest(stderr_too=bool(line))
    sys.exit(code)

  return wrapped


def _discard_the_rest(stderr_too: bool) -> None:
  """Throws away what cannot be printed, which Python would try once more at its end, and exit with a code of its own.

  stderr_too: also what background threads and the ends of libraries still say about an error that was told in one line.
  """
  nowhere = open(os.devnull, "w")  # noqa: SIM115  It stays open to the end of the process.
  try:
    sys.stdout.flush()
  except OSError:
    os.dup2(nowhere.fileno(), sys.stdout.fileno())
  if stderr_too:
    sys.stderr = nowhere
