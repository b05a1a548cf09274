"""What the processes of a run tell each other beside their collectives, in the key-value store of JAX's coordinator.

A collective waits for ever for a process that has failed or left. A note in the store reaches every process within a second.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax

from xlmr_jax.errors import EXIT_CRASH, EXIT_RESTART, EXIT_USER
from xlmr_jax.run.watchdog import leave

POLL_S = 0.5  # seconds between two looks at the notes
FAREWELL_S = 5.0  # A process whose peer has failed has so long to end by itself, with an error of its own.
SILENT_S = 4.0  # A process that did not write to the store for so long does not answer.
END_S = 3600.0  # Processes that are done wait so long for those that still write the last checkpoint.
_ROOT = "xlmr_jax"


class Peers:
  """The notes and signs of life of all processes. One per process that has joined; a thread reads and writes them.

  client: JAX's. me: the number of this process; count: how many there are.
  """

  def __init__(self, client: Any, me: int, count: int):
    self.me, self.count = me, count
    self._client = client
    self._readers: list[Callable[[dict[str, str]], Any]] = []
    self._failed_at: float | None = None
    self._ending: int | None = None  # the exit code of a main thread that is about to end
    self._done = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True, name="peers")
    self._thread.start()

  def tell(self, note: str, value: str = "") -> None:
    """Leaves a note for all processes. Where process 0 is gone, the note is lost."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._client.key_value_set(f"{_ROOT}/notes/{note}", value, allow_overwrite=True)

  def on_notes(self, read: Callable[[dict[str, str]], Any]) -> None:
    """Has read(all notes so far) called twice a second, in a thread."""
    self._readers.append(read)

  def exchange(self, name: str, value: str, judge: Callable[[list[str]], str], timeout_s: float) -> str:
    """Process 0 judges the values of all processes; every process returns what it says. To be called once per name.

    Raises TimeoutError naming a process whose value does not come.
    """
    at = f"{_ROOT}/exchange/{name}"
    self._client.key_value_set(f"{at}/{self.me}", value)
    if self.me == 0:
      values = [self._get(f"{at}/{i}", timeout_s, i) for i in range(self.count)]
      self._client.key_value_set(f"{at}/verdict", judge(values))
    return self._get(f"{at}/verdict", 2 * timeout_s, 0)

  def _get(self, key: str, timeout_s: float, process: int) -> str:
    try:
      return self._client.blocking_key_value_get(key, int(timeout_s * 1000))
    except jax.errors.JaxRuntimeError as error:
      if "DEADLINE_EXCEEDED" not in str(error):
        raise
      raise TimeoutError(f"process {process} said nothing of {key} within {timeout_s:g} s") from error

  # --- how a run of several processes ends ---------------------------------------------------------------------------

  def end(self, code: int) -> None:
    """Waits until all processes are done, because process 0 holds the store and the service that the others need."""
    self._ending = code
    try:
      self._client.wait_at_barrier(f"{_ROOT}/end", int(END_S * 1000))
    except jax.errors.JaxRuntimeError:  # Another process was lost, but this one has done its part.
      os._exit(code)
    self._done.set()
    self._thread.join()

  def fail(self, code: int, why: str, *, is_doubtful: bool = False) -> NoReturn:
    """Ends this process at once, and tells the others why, who then end with 42, or with 1 where the user must act.

    All output must have been written.

    is_doubtful: its error may be nothing but the end of another process.
    """
    self._ending = code
    self.tell(f"left/{self.me}", f"{code}{'?' * is_doubtful}")
    self.tell(f"failed/{self.me}", why)
    # Where a process is lost, this would wait in vain for its note.
    until = time.monotonic() + (4 * POLL_S if code == EXIT_RESTART else FAREWELL_S + 4 * POLL_S)
    while self.me == 0 and time.monotonic() < until:  # JAX aborts the others the moment that process 0 is gone.
      if len(self._starting("left/")) == self.count:
        break
      time.sleep(POLL_S / 4)
    os._exit(code)

  def lost(self, code: int) -> str:
    """Which processes ended for a reason of their own or do not answer, "" for none. It takes some seconds.

    code: this process's exit code as its own error has it. 1 from two processes is a refusal that they have in common.
    """
    first = self._beats()
    time.sleep(SILENT_S)
    second, left, why = self._beats(), self._starting("left/"), self._starting("failed/")
    found = []
    for i in (str(i) for i in range(self.count) if i != self.me):
      if i not in left and first.get(i) == second.get(i):
        found.append(f"process {i} does not answer")
      elif i in left and not left[i].endswith("?") and (code == EXIT_CRASH or left[i] != str(code)):
        found.append(f"process {i} ended with {left[i]}" + (f" ({why[i]})" if i in why else ""))
    return "; ".join(found)

  def has_user_error(self) -> bool:
    """Whether a process ended with 1 for a reason of its own, which the next start would meet again."""
    return str(EXIT_USER) in self._starting("left/").values()

  def _starting(self, prefix: str) -> dict[str, str]:
    """{number of a process: value} of the notes left/0, left/1, ...; empty where process 0 is gone."""
    return {name.removeprefix(prefix): value for name, value in self._notes().items() if name.startswith(prefix)}

  def _notes(self) -> dict[str, str]:
    return self._read("notes")

  def _beats(self) -> dict[str, str]:
    return self._read("beats")

  def _read(self, folder: str) -> dict[str, str]:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      found = self._client.key_value_dir_get(f"{_ROOT}/{folder}/")
      return {key.partition(f"{folder}/")[2]: value for key, value in found}
    return {}

  def _watch(self) -> None:
    beat = 0
    while not self._done.wait(POLL_S):
      beat += 1
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._client.key_value_set(f"{_ROOT}/beats/{self.me}", str(beat), allow_overwrite=True)
      notes = self._notes()
      for read in self._readers:
        read(notes)
      failed = [name for name in notes if name.startswith("failed/")]
      if failed and self._ending is None:
        self._failed_at = self._failed_at or time.monotonic()
        if time.monotonic() - self._failed_at > FAREWELL_S:
          # What the user must mend there would fail again at the next start, and only this log may be looked at.
          code = EXIT_USER if self.has_user_error() else EXIT_RESTART
          process, why = failed[0].partition("/")[2], notes[failed[0]]
          leave(f"process {process} failed: {why}; this process had no error of its own and ends with {code}", code=code)

  # --- where JAX would abort -----------------------------------------------------------------------------------------

  def on_abort(self) -> NoReturn:
    """What SIGABRT does: JAX has found that another process is dead or stopped, and said so."""
    if self._ending is not None:
      os._exit(self._ending)
    leave(f"another process is lost (JAX's lines above say which); the stacks follow, exit {EXIT_RESTART}", stacks=True)


def catch_abort(act: Callable[[], Any]) -> None:
  """Has act() called where the process would abort, at once and in the thread that aborts. For processes of several.

  JAX's coordination client calls abort() when a peer is dead or when process 0 is gone. It takes a callback instead, but
  cannot hand its error to Python (std::bad_cast, jaxlib 0.10.2). A handler of Python's `signal` would only be noted for
  the main thread, which hangs in a collective, and abort() would go on. So the handler is a C function, by ctypes. A
  parent process that translates the exit code would do too, but kill, stop and SIGTERM would then hit the parent alone.
  """
  global _handler

  def on_signal(_: int) -> None:
    signal.alarm(10)  # The system ends the process if something below hangs.
    act()

  _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_signal)
  libc = ctypes.CDLL(None)
  libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
  libc.signal(int(signal.SIGABRT), ctypes.cast(_handler, ctypes.c_void_p))


_handler: Any = None  # Python must not free it.
