"""Where the time of a run goes, over all its starts: steps that count, and all that is not steps.

Each moment of the process belongs to exactly one part, so that the parts sum to its age. Process 0 writes goodput.json every
few seconds in the background, so that it survives a kill; what a killed process did after that is taken for idle time.
"""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from xlmr_jax.errors import one_line
from xlmr_jax.files import read_sealed_json, write_sealed_json
from xlmr_jax.run import compile_cache
from xlmr_jax.run.workdir import Workdir

T = TypeVar("T")
PARTS = {  # the parts of a process's time, and how they are called in a table
  "step": "steps",
  "data_wait": "devices waiting for data",
  "start_up": "start-up: imports, rows, restore",
  "compiling": "compiling",
  "save": "saving, where it blocks",
  "evaluation": "held-out evaluation",
  "again": "steps made again",
  "recovery": "going back to a checkpoint",
  "end": "ending",
}
_STARTS = 100  # that goodput.json keeps apart; older ones become one


class Account(NamedTuple):
  """The time of one start of a run, or of several older ones together; seconds."""

  parts: dict[str, float]
  began: float  # Unix time
  until: float  # Unix time of the last write
  idle: float = 0.0  # between the start before and this one
  starts: int = 1
  steps: int = 0  # sent to the devices
  steps_again: int = 0  # of them, steps that had been made before

  @property
  def wall(self) -> float:
    """The age of the processes, summed."""
    return sum(self.parts.values())

  def and_later(self, later: "Account") -> "Account":
    """This account with a later one added."""
    parts = {name: self.parts.get(name, 0.0) + later.parts.get(name, 0.0) for name in PARTS}
    return Account(
      parts, self.began, later.until, self.idle + later.idle, self.starts + later.starts, self.steps + later.steps,
      self.steps_again + later.steps_again,
    )  # fmt: skip


class Accounts(NamedTuple):
  """goodput.json."""

  highest: int = 0  # the most steps that the run has ever made
  starts: tuple[Account, ...] = ()  # the oldest first

  def total(self) -> Account | None:
    """All starts together; None before the first."""
    total = None
    for account in self.starts:
      total = total.and_later(account) if total else account
    return total

  def compact(self) -> "Accounts":
    """With only so many starts apart."""
    starts = self.starts
    while len(starts) > _STARTS:
      starts = (starts[0].and_later(starts[1]), *starts[2:])
    return Accounts(self.highest, starts)


def read_accounts(workdir: Workdir) -> Accounts:
  """goodput.json; an empty one where there is none, or where it is damaged, which is said."""
  try:
    value = read_sealed_json(workdir.goodput)
    starts = [Account(**entry) for entry in value["starts"]]
    if not all(isinstance(start.parts, dict) for start in starts):
      raise ValueError("the parts of a start are no object")
    return Accounts(int(value["highest"]), tuple(starts))
  except FileNotFoundError:
    return Accounts()
  except (OSError, ValueError, KeyError, TypeError) as error:
    print(
      f"{workdir.goodput} cannot be read ({one_line(error)}); the account of the time begins anew",
      file=sys.stderr,
      flush=True,
    )
    return Accounts()


def describe(account: Account) -> str:
  """One line: the share of steps that count, and what the rest went to."""
  wall = account.wall
  shares = {name: seconds / max(wall, 1e-9) for name, seconds in account.parts.items()}
  rest = ", ".join(f"{name.replace('_', ' ')} {shares[name]:.1%}" for name in PARTS if name != "step" and shares.get(name))
  starts = f"{account.starts} start{'s' if account.starts > 1 else ''}"
  again = f"; {account.steps_again} steps made again" if account.steps_again else ""
  idle = f"; {account.idle:.0f} s between starts" if account.starts > 1 else ""
  return f"goodput {shares.get('step', 0.0):.1%} of {wall:.0f} s in {starts} ({rest}){again}{idle}"


class Goodput:
  """A stopwatch of this process with one part running at any moment, on every process; process 0 writes goodput.json.

  It never ends a run: what cannot be written is left out.
  """

  def __init__(self, workdir: Workdir, *, write_every_s: float, age_s: float | None = None):
    """age_s: of the process, all of which was start-up so far; None: as the system tells it."""
    self.workdir, self._lock = workdir, threading.Lock()
    self._since = time.monotonic()
    age_s = compile_cache.seconds_since_start() if age_s is None else age_s
    self._began = self._since - age_s
    self._unix = time.time() - self._since  # Unix time minus the monotonic clock's
    self._parts = dict.fromkeys(PARTS, 0.0) | {"start_up": age_s}
    self._part, self._compiled_s = "start_up", 0.0
    self._highest, self._steps, self._steps_again = 0, 0, 0
    self._before: tuple[Account, ...] = ()
    self._idle = 0.0
    self._done = threading.Event()
    self._writer: threading.Thread | None = None
    self._devices = _Devices()
    self._interval = [0.0, 0]  # seconds that the devices waited for this host, and steps, since the last spread()
    self._resumed = self._since  # when something else than steps ended
    if jax.process_index() == 0:
      before = read_accounts(workdir).compact()
      self._highest, self._before = before.highest, before.starts
      if before.starts:
        self._idle = max(0.0, self._began + self._unix - before.starts[-1].until)
      self._writer = threading.Thread(target=self._write_again_and_again, args=(write_every_s,), daemon=True, name="goodput")
      self._writer.start()

  # --- the stopwatch -------------------------------------------------------------------------------------------------

  def _settle(self) -> None:
    """Gives the time since the last call to the running part, and of that, the time in XLA's compiler to "compiling".

    What other threads compile beside the training costs it no time that could be measured, and counts nowhere.
    """
    now, compiled_s = time.monotonic(), float(compile_cache.so_far()["main_thread_s"])
    elapsed, self._since = now - self._since, now
    compiling = min(compiled_s - self._compiled_s, elapsed + self._parts[self._part])
    self._compiled_s = compiled_s
    self._parts[self._part] += elapsed - compiling
    self._parts["compiling"] += compiling

  def enter(self, part: str) -> None:
    """From now on, time goes to this part."""
    with self._lock:
      self._settle()
      if self._part not in ("step", "again"):
        self._resumed = self._since
      self._part = part

  @contextlib.contextmanager
  def during(self, part: str) -> Iterator[None]:
    """While the block runs, time goes to this part; after it, to the one before."""
    before = self._part
    self.enter(part)
    try:
      yield
    finally:
      self.enter(before)

  # --- steps ---------------------------------------------------------------------------------------------------------

  def next_of(self, step: int, batches: Iterator[T]) -> T:
    """The next batch, for this step. Waiting for it counts from when the devices had nothing to do any more."""
    part = "again" if step < self._highest else "step"
    if part != self._part:
      self.enter(part)
    began = time.monotonic()
    batch = next(batches)
    now = time.monotonic()
    waited = now - max(began, self._devices.idle_since(now))
    if part == "step" and waited > 0:
      with self._lock:
        self._settle()
        self._parts["step"] -= waited
        self._parts["data_wait"] += waited
    return batch

  def sent(self, step: int, metrics: Any) -> None:
    """The step was sent to the devices. metrics: an array of what it returns."""
    now = time.monotonic()
    self._interval[0] += now - max(self._resumed, self._devices.idle_since(now))
    self._interval[1] += 1
    self._devices.watch(metrics)
    self._steps += 1
    self._steps_again += step < self._highest
    self._highest = max(self._highest, step + 1)

  # --- what it says --------------------------------------------------------------------------------------------------

  def accounts(self) -> Accounts:
    """All starts, up to now."""
    with self._lock:
      self._settle()
      began, until = self._began + self._unix, self._since + self._unix
      now = Account(dict(self._parts), began, until, self._idle, 1, self._steps, self._steps_again)
      return Accounts(self._highest, (*self._before, now))

  def total(self) -> Account:
    """All starts together, up to now."""
    total = self.accounts().total()
    assert total is not None
    return total

  def spread(self, step_s: float) -> dict[str, Any]:
    """How the hosts differ since the last call; {} for one process. All processes call it, at the same step.

    step_s: seconds per step by this host's clock. Hosts wait for each other in every step, so that their steps take equally
    long; the slowest host is the one whose devices wait longest for it to send the next step.
    """
    waited, steps = self._interval
    self._interval = [0.0, 0]
    if jax.process_count() == 1:
      return {}
    with jax.transfer_guard("allow"):  # Hosts meet by way of the devices.
      mine = np.array([step_s, waited / max(steps, 1)], np.float32)
      everyone = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, 2)
    slowest = int(everyone[:, 1].argmax())
    return {
      "hosts_step_s": [float(everyone[:, 0].min()), float(everyone[:, 0].max())],
      "hosts_late_s": [float(everyone[:, 1].min()), float(everyone[:, 1].max())],
      "slowest_host": slowest,
    }

  # --- the file ------------------------------------------------------------------------------------------------------

  def _write_again_and_again(self, every_s: float) -> None:
    self.write()
    while not self._done.wait(every_s):
      self.write()

  def write(self) -> None:
    """Writes goodput.json."""
    accounts = self.accounts()
    value = {"highest": accounts.highest, "starts": [start._asdict() for start in accounts.starts]}
    with contextlib.suppress(Exception):  # A full disk or a failing bucket; the run says so where it matters.
      write_sealed_json(self.workdir.goodput, value)

  def close(self) -> None:
    """Ends the account of the run; what follows is its end."""
    global _closed
    self._devices.close()
    self.enter("end")
    if self._writer:
      _closed = self
      self._done.set()
      self._writer.join(10.0)
      if not self._writer.is_alive():  # It may be waiting for a store that fails.
        self.write()


_closed: Goodput | None = None  # the newest that was closed


def write_at_exit() -> None:
  """Writes the account of the run that has ended in this process once more, because leaving Python takes seconds.

  Not to a bucket, whose threads may have ended by then.
  """
  if _closed is not None and isinstance(_closed.workdir.goodput, Path):
    _closed.write()


class _Devices:
  """Notes when the devices finished the newest step; its thread does nothing but wait for them."""

  def __init__(self):
    self._sent: queue.SimpleQueue = queue.SimpleQueue()
    self._count = 0
    self._finished = (0, 0.0)  # (steps, when the last of them was found finished)
    threading.Thread(target=self._wait, daemon=True, name="step times").start()

  def watch(self, array: Any) -> None:
    """array: of what the newest step returns."""
    self._count += 1
    self._sent.put((self._count, array))

  def idle_since(self, now: float) -> float:
    """When the devices finished all that was sent; `now` while they are at work."""
    count, at = self._finished
    return at if count == self._count else now

  def _wait(self) -> None:
    while (item := self._sent.get()) is not None:
      count, array = item
      with contextlib.suppress(Exception):  # A failed step is the loop's to report.
        jax.block_until_ready(array)
      del array, item
      self._finished = (count, time.monotonic())

  def close(self) -> None:
    """Ends the thread."""
    self._sent.put(None)
