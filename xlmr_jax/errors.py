"""How commands end: one clear line and exit 1 for what the user must mend, a traceback and exit 70 for a crash."""

import errno
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable

from xlmr_jax.secrets import redacted

EXIT_DONE, EXIT_USER, EXIT_RESTART, EXIT_CRASH = 0, 1, 42, 70
EXIT_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


class UserError(ValueError):
  """Something only the user can mend. The message names the file, line or value, and what to do; one line."""


class StoreError(Exception):
  """A store, such as a bucket, fails for a passing reason. It is no OSError, which would mean that a file is missing."""


class RestartError(Exception):
  """What a fresh start mends, because it goes back to what was saved before; the command ends with exit 42."""


def one_line(error: BaseException) -> str:
  """What an error says, on one line and without secrets; the name of its class where it says nothing."""
  return redacted(" ".join(str(error).split())) or type(error).__name__


# --- how a command ends -----------------------------------------------------------------------------------------------

# What a full or failing disk says to a write. Such an error seldom names its file.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


def told(error: BaseException) -> str:
  """The line that an error ends a command with, which names the file of a file system's error; "" for any other crash."""
  if isinstance(error, UserError | StoreError | RestartError):
    return redacted(" ".join(str(error).splitlines()))
  if isinstance(error, BrokenPipeError) and error.filename is None and _is_output_closed():
    return "whoever read the output has ended, as `head` does; send it to a file, or start the command again"
  if not isinstance(error, OSError) or (error.filename is None and error.errno not in _DISK):
    return ""
  files = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]  # two of a copy
  where = " -> ".join(files) or "a file cannot be written"
  return redacted(f"{where}: {error.strerror or error}")


def _is_output_closed() -> bool:
  """Whether nobody reads what this process prints any more."""
  try:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # An error is always told.
    return any(found & select.POLLERR for _, found in poll.poll(0))
  except (OSError, ValueError, AttributeError):  # There is no such output, as in a test.
    return False


def report(error: BaseException) -> int:
  """Prints what the user must know of the error that ends a command, and returns the exit code."""
  if isinstance(error, KeyboardInterrupt):
    print("interrupted", file=sys.stderr, flush=True)
    return EXIT_INTERRUPTED
  line = told(error)
  if line:
    print(f"error: {line}", file=sys.stderr, flush=True)
  else:
    print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr, flush=True)
  return EXIT_RESTART if isinstance(error, RestartError | StoreError) else EXIT_USER if line else EXIT_CRASH


def run_command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wraps a command's main: what the user must mend becomes one line on stderr and exit 1, all else a traceback and exit 70.

  The user must mend a UserError, and what a file system refuses: a full disk, a file that cannot be read. A store that fails
  ends the process at once with 42, without waiting for threads that still ask it.
  """

  def wrapped(*args):
    threading.excepthook = _report_thread
    try:
      code = main(*args) or EXIT_DONE
      sys.stdout.flush()  # What is printed may go to a full disk too.
    except KeyboardInterrupt as error:
      code = report(error)
    except Exception as error:
      code = report(error)
      if isinstance(error, StoreError):
        sys.stdout.flush()
        os._exit(code)
      _discard_the_rest(stderr_too=bool(told(error)))
    sys.exit(code)

  return wrapped


def _report_thread(args: threading.ExceptHookArgs) -> None:
  """What is printed where a thread ends with an error."""
  if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
    text = "".join(traceback.format_exception(args.exc_value))
    print(redacted(f"thread {args.thread.name if args.thread else '?'}: {text}"), end="", file=sys.stderr, flush=True)


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
