"""Being told to stop: by a signal to any process, all processes save one common step, or leave if there is none to save."""

import threading
import time

from xlmr_jax.errors import EXIT_RESTART
from xlmr_jax.run.peers import POLL_S, Peers
from xlmr_jax.run.signals import listener
from xlmr_jax.run.watchdog import leave


class Preemption:
  """Learns by SIGTERM or Ctrl-C that the run is to end, and agrees with the other processes when to stop.

  Before the first call of stop() there is nothing to save. A signal to any process then ends all at once with 42, also in
  the middle of a restore or a compilation. From the first call on, all processes stop at one and the same call. A second
  Ctrl-C ends the process at once. To be made in the main thread, because it sets signal handlers.

  This replaces JAX's own preemption service. That one takes SIGTERM for itself, so that nothing else hears it, and it agrees
  on steps only: before the first step it could not end a run.
  """

  def __init__(self, peers: Peers | None = None):
    self._peers = peers
    self._lock = threading.Lock()
    self._calls = 0
    self._stop_at: int | None = None  # the call at which to stop
    self._is_agreeing = self._is_asking = False
    listener.open(interrupts=True)
    listener.on_heard(self._on_heard)
    if peers is not None:
      peers.on_notes(self._on_notes)

  def stop(self) -> bool:
    """Whether to stop now; it turns true at the same call on every process.

    Call it on every process at the same places: every step, and in evaluations.
    """
    with self._lock:
      self._calls += 1
      return self._stop_at is not None and self._calls >= self._stop_at

  def _on_heard(self) -> None:
    """At the first signal to this process. The main thread may be in stop() at this moment, so it must not wait for it."""
    threading.Thread(target=self._ask, daemon=True, name="ask to stop").start()
    if self._peers is None and self._calls:  # One process has nobody to agree with.
      self._stop_at = 0

  def _ask(self) -> None:
    with self._lock:
      if not self._calls:
        self._leave("stopped by a signal before the first step; nothing was saved")
      if self._peers is None:
        self._stop_at = 0
    if self._peers is not None:
      self._is_asking = True
      self._peers.tell("stop", str(self._peers.me))

  def _leave(self, why: str) -> None:
    if self._peers is not None:
      self._peers.tell(f"early/{self._peers.me}")
      if self._peers.me == 0:  # It holds the notes, and the others need a moment to read them.
        time.sleep(3 * POLL_S)
    leave(f"{why}, exit {EXIT_RESTART}")

  def _on_notes(self, notes: dict[str, str]) -> None:
    """Runs twice a second in the thread of the peers.

    While the processes agree, this thread holds the lock, so that no main thread gets past the next call of stop(). Each
    process tells its number of calls. All stop one call after the largest of these numbers, which none can have passed.
    """
    assert self._peers is not None
    early = [name.partition("/")[2] for name in notes if name.startswith("early/")]
    if early:
      self._leave(f"process {early[0]} was stopped by a signal before the first step; nothing was saved")
    if self._is_asking and "stop" not in notes:  # A note can be lost on its way, so each is left until it is read.
      self._peers.tell("stop", str(self._peers.me))
    if "stop" not in notes or self._stop_at is not None:
      return
    if not self._is_agreeing:
      self._lock.acquire()
      if not self._calls:
        self._leave(f"process {notes['stop']} was stopped by a signal before the first step; nothing was saved")
      self._is_agreeing = True
    if f"calls/{self._peers.me}" not in notes:
      self._peers.tell(f"calls/{self._peers.me}", str(self._calls))
    calls = [int(value) for name, value in notes.items() if name.startswith("calls/")]
    if self._peers.me == 0 and len(calls) == self._peers.count:
      self._peers.tell("stop_at", str(max(calls) + 1))
    if "stop_at" in notes:
      self._stop_at = int(notes["stop_at"])
      self._lock.release()
