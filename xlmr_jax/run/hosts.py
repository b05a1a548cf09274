"""Several hosts as one run: start-up, agreement before step 1, preemption, and a watchdog for hung collectives."""

import ctypes
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
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from xlmr_jax.errors import EXIT_RESTART, UserError

T = TypeVar("T")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-cpu", "array_record", "numpy")


def keep_freed_memory() -> None:
  """On a CPU, lets the allocator keep what a step frees; halves the step time of a small model on 2 cores.

  XLA frees its temporaries at the end of every step. glibc's defaults give blocks that large back to the system, and
  the next step pays for every page of them again. To be called before JAX starts its backend. Elsewhere than on glibc,
  or where an accelerator holds the temporaries, it does nothing.
  """
  accelerator = any(Path(name).exists() for name in ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0"))
  if (accelerator and os.environ.get("JAX_PLATFORMS") != "cpu") or not hasattr(ctypes.CDLL(None), "mallopt"):
    return
  trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # names and numbers of glibc's malloc.h
  for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28), (arena_max, 1)):
    ctypes.CDLL(None).mallopt(option, value)


def start(mode: str, coordinator: str, processes: int, process: int) -> None:
  """Joins this process to the run. mode: "off"; "auto" (Cloud TPU, GKE, Slurm tell who takes part); "explicit"."""
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
    raise UserError(f"--hosts={mode!r}: one of off, auto, explicit")


def together(work: Callable[[], T]) -> T:
  """work() on every process. Where it fails on one, all end, rather than wait for it in the next collective."""
  try:
    value, error = work(), None
  except Exception as problem:
    value, error = None, problem
  failed = [False]
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(np.bool_(error is not None)).ravel()
  if error is not None:
    raise error
  if any(failed):
    raise UserError(f"process {int(np.flatnonzero(failed)[0])} failed; see what it says")
  return value


def on_first(work: Callable[[], int]) -> int:
  """The integer that work() gives on process 0, on every process."""
  value = together(lambda: work() if jax.process_index() == 0 else 0)
  return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else value


def refuse_unshared(folder: Path) -> None:
  """UserError unless all processes see one and the same folder, which is made where it is not there."""
  if jax.process_count() == 1:
    return
  marker = folder / ".seen_by_all_hosts"
  nonce = on_first(lambda: secrets.randbits(30))

  def write():
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(str(nonce))
    return 0

  def read():
    if not marker.exists() or marker.read_text() != str(nonce):
      raise UserError(f"{folder} is not the folder that process 0 sees; --workdir must be one shared folder")

  on_first(write)
  together(read)
  on_first(lambda: marker.unlink() or 0)


def versions() -> dict[str, str]:
  """Versions that decide what a run computes."""
  found = {"python": ".".join(map(str, sys.version_info[:3]))}
  for name in LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "absent"
  return found


def refuse_disagreement(facts: dict[str, object]) -> None:
  """Compares facts (config, rows, versions, ...) over all processes; UserError names those that differ, and where."""
  if jax.process_count() == 1:
    return
  names = sorted(facts)
  digests = np.stack(
    [
      np.frombuffer(hashlib.sha256(json.dumps(facts[name], sort_keys=True, default=str).encode()).digest()[:8], np.uint32)
      for name in names
    ]
  )
  everyone = multihost_utils.process_allgather(digests)  # [processes, facts, 2]
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
  """True from stop() once the machine is being taken away (SIGTERM), at the same call on every process."""

  def __init__(self):
    self._told = False
    self._calls = 0
    if jax.process_count() == 1:  # with several, jax's coordination service listens to the signal itself
      self._previous = signal.signal(signal.SIGTERM, self._on_signal)

  def _on_signal(self, *_):
    self._told = True

  def stop(self) -> bool:
    """Call it on every process at the same places: every step, and in evaluations."""
    if jax.process_count() > 1 and not self._told:
      self._calls += 1
      self._told = multihost_utils.reached_preemption_sync_point(self._calls)
    return self._told


class Watchdog:
  """Ends a hung process with exit 42: a peer that hangs, unlike one that dies, goes unnoticed in a collective.

  seconds: 0 switches it off. alive() must be called more often than that.
  """

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._seen = time.monotonic()
    self._done = threading.Event()
    if seconds:
      threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

  def alive(self) -> None:
    self._seen = time.monotonic()

  def close(self) -> None:
    self._done.set()

  def _watch(self) -> None:
    while not self._done.wait(min(1.0, self._seconds / 4)):
      if time.monotonic() - self._seen > self._seconds:
        print(f"watchdog: no step for {self._seconds:g} s; stacks follow, exit {EXIT_RESTART}", file=sys.stderr)
        faulthandler.dump_traceback(file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXIT_RESTART)
