"""How commands end: one clear line and exit 1 for what the user must mend, a traceback and exit 70 for a crash."""

import errno
import os
import re
import select
import sys
import threading
import traceback
from collections.abc import Callable

EXIT_DONE, EXIT_USER, EXIT_RESTART, EXIT_CRASH = 0, 1, 42, 70
EXIT_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


class UserError(ValueError):
  """Something only the user can mend. The message names the file, line or value, and what to do; one line."""


class StoreError(Exception):
  """A store, such as a bucket, fails for a passing reason. It is no OSError, which would mean that a file is missing."""


class RestartError(Exception):
  """What a fresh start mends, because it goes back to what was saved before; the command ends with exit 42."""


# --- secrets ----------------------------------------------------------------------------------------------------------

_HIDDEN = "***"
_NAMES = r"(?:token|signature|password|passwd|secret|credential|api[_-]?key|access[_-]?key|private[_-]?key|upload_id)"
# Where texts of libraries and stores hold a secret. The first group is what stays in front of it.
_PLACES = tuple(
  re.compile(pattern, re.IGNORECASE | re.DOTALL)
  for pattern in (
    r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@'\"]+@",  # an address, scheme://USER:PASSWORD@host
    rf"((?<![\w-])(?:[\w-]*{_NAMES}|sig)=)[^&\s'\"#,;)]+",  # a part of a signed address; upload_id opens an upload to anyone
    rf"(['\"][\w-]*{_NAMES}['\"]\s*:\s*['\"])[^'\"]+",  # JSON
    r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\",;}]+",  # a header
    r"(\bbearer\s+)[\w.~+/=-]{16,}",
  )
)
# Secrets that show by themselves: a private key, and the tokens of Hugging Face, GitHub, Google, Amazon and JSON web tokens.
_SHAPES = re.compile(
  r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
  r"|\b(?:hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|ya29\.[\w.-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
  r"|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})",
  re.DOTALL,
)
_SECRET_NAME = re.compile(
  r"(?:^|[_.])(?:token|secret|password|passwd|credentials?|api_?key|access_?key|private_?key)(?:$|_)", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
  """Whether a variable of the environment, or a key, is named like one that holds a secret, such as HF_TOKEN."""
  return bool(_SECRET_NAME.search(name))


def _secrets_of_environment() -> list[str]:
  """The values of variables that are named like secrets, the longest first. A path is none: its file holds the secret."""
  values = (value.strip() for name, value in os.environ.items() if is_secret_name(name))
  secrets = [value for value in values if len(value) >= 8 and not value.startswith(("/", "~", "."))]
  return sorted(secrets, key=len, reverse=True)


def redacted(text: str) -> str:
  """The text with *** in the place of what looks like a secret, and of each secret that the environment holds.

  Stores and their libraries put addresses and headers of requests into what they raise, and these may open the store.
  """
  for secret in _secrets_of_environment():
    text = text.replace(secret, _HIDDEN)
  text = _SHAPES.sub(_HIDDEN, text)
  for place in _PLACES:
    text = place.sub(lambda match: match[1] + (_HIDDEN + "@" if match[0].endswith("@") else _HIDDEN), text)
  return text


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
