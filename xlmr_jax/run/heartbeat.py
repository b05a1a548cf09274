"""Keeps long work from being silent: a line every few seconds that says what is being done and since when."""

import contextlib
import threading
import time
from collections.abc import Iterator

import jax

EVERY_S = 10.0


@contextlib.contextmanager
def heartbeat(what: str, every_s: float = EVERY_S) -> Iterator[None]:
  """While the block runs, process 0 prints `what` and the seconds so far every `every_s` seconds."""
  done = threading.Event()

  def beat() -> None:
    began = time.monotonic()
    while not done.wait(every_s):
      print(f"{what}: {time.monotonic() - began:.0f} s so far", flush=True)

  if jax.process_index() == 0:
    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
  try:
    yield
  finally:
    done.set()
