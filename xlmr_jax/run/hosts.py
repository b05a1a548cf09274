"""Several hosts as one run: start-up, agreement before step 1, preemption, and a watchdog for hung collectives.

Every function here is called on all processes, at the same place. A run of one process calls the same functions.
"""

import faulthandler
import hashlib
import importlib.metadata
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from xlmr_jax.errors import EXIT_RESTART, UserError

T = TypeVar("T")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-cpu", "array_record", "numpy")


def start(mode: str, coordinator: str, processes: int, process: int) -> None:
  """Joins this process to the run. UserError when the flags do not say how, or no cluster is found.

  mode: "off"; "auto", where Cloud TPU, GKE or Slurm tells which processes take part; "explicit", where the other
  arguments do: coordinator "HOST:PORT" of process 0, how many processes there are, and which one this is.
  """
  if mode == "off":
    return
  if mode == "explicit":
    if not coordinator or processes < 1 or not 0 <= process < processes:
      raise UserError(
        f"--hosts=explicit needs --coordinator=HOST:PORT (is {coordinator!r}), --processes (is "
        f"{processes}) and --process in [0, processes) (is {process})"
      )
    jax.distributed.initialize(coordinator, processes, process)
  elif mode == "auto":
    try:
      jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
      raise UserError(
        f"--hosts=auto found no cluster ({' '.join(str(error).split())}); use --hosts=off on one machine, or "
        "--hosts=explicit"
      ) from None
  else:
    raise UserError(f"--hosts={mode!r}: must be one of off, auto, explicit")


def say(text: str) -> None:
  """Prints a line on process 0 only, at once."""
  if jax.process_index() == 0:
    print(text, flush=True)


def together(work: Callable[[], T]) -> T:
  """Returns work() on every process. Where it raises on one process, all processes raise.

  Otherwise the sound processes would wait for the failed one in the next collective. They raise a UserError that names it.
  """
  value: Any = None
  error = None
  try:
    value = work()
  except Exception as problem:
    error = problem
  failed = np.zeros(1, bool)
  if jax.process_count() > 1:
    failed = np.ravel(multihost_utils.process_allgather(np.bool_(error is not None)))
  if error is not None:
    raise error
  if failed.any():
    raise UserError(f"process {int(np.flatnonzero(failed)[0])} failed; see what it says")
  return value


def on_first(work: Callable[[], Any]) -> Any:
  """The value that work() returns on process 0, on every process. It passes through JSON, so a tuple arrives as a list."""
  text = together(lambda: json.dumps(work()) if jax.process_index() == 0 else "").encode()
  if jax.process_count() > 1:
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.frombuffer(text.ljust(length), np.uint8)  # The other processes have no text, but must give the same shape.
    text = np.asarray(multihost_utils.broadcast_one_to_all(buffer), np.uint8).tobytes()
  return json.loads(text)


def refuse_unshared(folder: Path) -> None:
  """UserError unless all processes see one and the same folder. Process 0 makes it where it is not there."""
  if jax.process_count() == 1:
    return
  marker = folder / ".seen_by_all_hosts"
  nonce = on_first(lambda: secrets.token_hex(8))

  def write() -> None:
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(nonce)

  def read() -> None:
    if not marker.exists() or marker.read_text() != nonce:
      raise UserError(f"{folder} is not the folder that process 0 sees; --workdir must be one shared folder")

  on_first(write)
  together(read)
  on_first(marker.unlink)


def versions() -> dict[str, str]:
  """The versions of what decides what a run computes: {"python": "3.11.7", "jax": ..., ...}."""
  found = {"python": ".".join(map(str, sys.version_info[:3]))}
  for name in LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "absent"
  return found


def refuse_disagreement(facts: dict[str, object]) -> None:
  """Compares facts (config, rows, versions, ...) over all processes. UserError names those that differ, and where.

  facts: name -> value of JSON; what JSON does not know is compared by its str().
  """
  if jax.process_count() == 1:
    return
  names = sorted(facts)
  digests = np.stack(
    [
      np.frombuffer(hashlib.sha256(json.dumps(facts[name], sort_keys=True, default=str).encode()).digest()[:8], np.uint32)
      for name in names
    ]
  )
  everyone = np.asarray(multihost_utils.process_allgather(digests))  # [processes, facts, 2]
  differing = [
    f"{name} (process {', '.join(map(str, np.flatnonzero(unlike)))})"
    for i, name in enumerate(names)
    if (unlike := (everyone[:, i] != everyone[0, i]).any(axis=-1)).any()
  ]
  if differing:
    raise UserError(
      f"these differ from process 0: {'; '.join(differing)}; start all hosts from the same code, "
      "environment, config and rows"
    )


class Preemption:
  """Learns by SIGTERM or Ctrl-C that the process is to end, and agrees with the other processes when to stop.

  A second Ctrl-C ends the process at once. To be made in the main thread, because it sets signal handlers.
  """

  def __init__(self):
    self._is_preempted = False
    self._calls = 0
    if jax.process_count() == 1:  # With several processes, JAX's coordination service listens to SIGTERM itself.
      signal.signal(signal.SIGTERM, self._on_signal)
    signal.signal(signal.SIGINT, self._on_interrupt)

  def _on_signal(self, *_: Any) -> None:
    self._is_preempted = True

  def _on_interrupt(self, *_: Any) -> None:
    # The system's own action for the next one works also where Python's would wait for a long call to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print("interrupted: saving and ending; interrupt again to end at once", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # From here on it is a preemption, on all hosts.

  def stop(self) -> bool:
    """Whether to stop now; it turns true at the same call on every process.

    Call it on every process at the same places: every step, and in evaluations.
    """
    if jax.process_count() > 1 and not self._is_preempted:
      self._calls += 1
      self._is_preempted = multihost_utils.reached_preemption_sync_point(self._calls)
    return self._is_preempted


class Watchdog:
  """Ends a hung process with exit 42, because a collective does not notice a peer that hangs, only one that dies.

  seconds: alive() must be called more often than that; 0 switches the watchdog off.
  """

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._seen = time.monotonic()
    self._done = threading.Event()
    if seconds:
      threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

  def alive(self) -> None:
    """Says that the process makes progress."""
    self._seen = time.monotonic()

  def close(self) -> None:
    """Ends the watching."""
    self._done.set()

  def _watch(self) -> None:
    while not self._done.wait(min(1.0, self._seconds / 4)):
      if time.monotonic() - self._seen > self._seconds:
        print(f"watchdog: no step for {self._seconds:g} s; stacks follow, exit {EXIT_RESTART}", file=sys.stderr)
        faulthandler.dump_traceback(file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXIT_RESTART)
