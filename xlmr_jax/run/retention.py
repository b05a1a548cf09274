"""Which checkpoints of a run stay: pins, evaluated steps, and the policy that the trainer deletes by.

The evaluator is another process. It pins the checkpoint that it reads, and what it has not evaluated yet waits for it. A run
that branches off pins, too, what it copies.
The trainer writes into the evaluator's folder only here: an entry for a checkpoint that was dropped before its evaluation.
"""

import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator

from xlmr_jax.errors import StoreError, UserError, one_line
from xlmr_jax.files import read_json, write_json
from xlmr_jax.folders import entries
from xlmr_jax.run.workdir import Workdir, best_step, step_of

STALE_PIN_S = 12 * 3600.0  # The evaluator of an older pin is gone: a live one renews its pin.
RENEW_PIN_S = 1800.0  # One fine-tuning of a large model can take longer than a pin lives.
NOT_WRITTEN = (OSError, StoreError, UserError)  # why a pin could not be; what a bucket refuses is a UserError


def _numbers(names: Iterable[str]) -> set[int]:
  return {step for name in names if (step := step_of(name)) is not None}


def evaluated_steps(workdir: Workdir) -> set[int]:
  """The steps that have an entry in the ledger."""
  return _numbers(name.removesuffix(".json") for name in entries(workdir.evaluations) if name.endswith(".json"))


# --- pins ----------------------------------------------------------------------------------------------------------


def _pin_name(step: int, reader: str) -> str:
  """STEP of the evaluator, STEP-READER of others, so that nobody takes away another one's pin."""
  return f"{step}-{reader}" if reader else str(step)


def renew_pin(workdir: Workdir, step: int, reader: str = "") -> None:
  """Writes the pin of a step, with the time of now."""
  write_json(workdir.pins / _pin_name(step, reader), {"pid": os.getpid(), "time": time.time()})


@contextlib.contextmanager
def pin(workdir: Workdir, step: int, reader: str = "") -> Iterator[None]:
  """Keeps a step from being removed. Check that the checkpoint is still there only once it is pinned.

  reader: who reads it, if it is not the evaluator; letters and digits.
  """
  workdir.pins.mkdir(parents=True, exist_ok=True)
  renew_pin(workdir, step, reader)
  done = threading.Event()

  def renew() -> None:
    while not done.wait(RENEW_PIN_S):
      try:
        renew_pin(workdir, step, reader)
      except NOT_WRITTEN as error:  # The next time may go well, and the pin lives for many of them.
        print(f"the pin of checkpoint {step} could not be renewed: {one_line(error)}", file=sys.stderr, flush=True)

  clock = threading.Thread(target=renew, daemon=True, name="pin")
  clock.start()
  try:
    yield
  finally:
    done.set()
    clock.join()
    (workdir.pins / _pin_name(step, reader)).unlink(missing_ok=True)


@contextlib.contextmanager
def pin_to_read(workdir: Workdir, step: int) -> Iterator[None]:
  """Pins a step for somebody who reads it once, beside the evaluator and others. In a read-only run there is only a line."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(pin(workdir, step, f"reader{uuid.uuid4().hex}"))
    except NOT_WRITTEN as error:
      # Nothing is lost where no trainer runs; where one does, the checkpoint may go while it is read.
      print(f"checkpoint {step} is read without a pin: {one_line(error)}", file=sys.stderr, flush=True)
    yield


def clear_pins(workdir: Workdir) -> None:
  """Removes the pins of an evaluator that was killed. For an evaluator that knows itself to be the only one."""
  for name in entries(workdir.pins):
    if "-" not in name:
      (workdir.pins / name).unlink(missing_ok=True)


def pinned_steps(workdir: Workdir) -> set[int]:
  """The steps with a pin that is not stale. A pin that cannot be read counts."""
  found = set()
  for name in entries(workdir.pins):
    step = step_of(name.partition("-")[0])
    if step is None:
      continue
    try:
      age = time.time() - read_json(workdir.pins / name)["time"]
    except FileNotFoundError:
      continue
    except (OSError, ValueError, KeyError, TypeError):
      age = 0.0
    if age < STALE_PIN_S:
      found.add(step)
  return found


# --- the policy ----------------------------------------------------------------------------------------------------


def steps_to_keep(
  steps: Iterable[int],
  *,
  keep: int,
  keep_every: int = 0,
  pinned: Iterable[int] = (),
  unevaluated: Iterable[int] = (),
  keep_unevaluated: int = 0,
  best: int | None = None,
) -> set[int]:
  """The steps that stay: the newest `keep`, multiples of keep_every (0: none), the pinned ones and the best one.

  Of the unevaluated steps, which the evaluator has yet to see, the newest keep_unevaluated stay too.
  """
  steps = set(steps)
  waiting = sorted(steps & set(unevaluated))
  stays = {*sorted(steps)[-keep:], *pinned, best, *waiting[max(len(waiting) - keep_unevaluated, 0) :]}
  return steps & (stays | {step for step in steps if keep_every and step % keep_every == 0})


class Retention:
  """Tells the trainer which checkpoints of a workdir it may remove, and keeps the ledger true when it does.

  keep: how many of the newest stay; at least 2, so that a verified one remains while the newest is being sealed.
  keep_every: steps that are multiples of this stay for good (0: none).
  is_eligible: whether an evaluator is to see a step (None: there is no evaluator). keep_unevaluated: how many such steps
  wait for it; an older one is dropped, and the ledger and a message say so.
  """

  def __init__(
    self,
    workdir: Workdir,
    *,
    keep: int = 2,
    keep_every: int = 0,
    is_eligible: Callable[[int], bool] | None = None,
    keep_unevaluated: int = 0,
  ):
    self._workdir = workdir
    self._keep, self._keep_every, self._keep_unevaluated = keep, keep_every, keep_unevaluated
    self._is_eligible = is_eligible or (lambda step: False)

  def superfluous(self, steps: Iterable[int]) -> list[int]:
    """Those of the steps on disk that may go, oldest first."""
    steps = set(steps)
    pinned = pinned_steps(self._workdir)  # Before the ledger: a step loses its pin only once it has an entry there.
    evaluated = evaluated_steps(self._workdir)
    stays = steps_to_keep(
      steps,
      keep=self._keep,
      keep_every=self._keep_every,
      pinned=pinned,
      unevaluated={step for step in steps if self._is_eligible(step) and step not in evaluated},
      keep_unevaluated=self._keep_unevaluated,
      best=best_step(self._workdir),
    )
    return sorted(steps - stays)

  def is_pinned(self, step: int) -> bool:
    """Whether an evaluator reads this step at the moment."""
    return step in pinned_steps(self._workdir)

  def on_sealed(self, step: int, digest: str) -> None:
    """Forgets the evaluation of a step that is made again, after a fall back or past bad steps, and so is another one now.

    digest: of its manifest, which is not written yet. An entry without one, of a checkpoint that could not be read or of an
    old version, cannot show whether the step was made again; it is removed unless it has a score.
    """
    entry = self._workdir.evaluation(step)
    with contextlib.suppress(FileNotFoundError, ValueError):
      value = read_json(entry)
      if "error" in value or value.get("digest", "") not in ("", digest):
        entry.unlink(missing_ok=True)

  def on_removed(self, step: int) -> None:
    """Records that a step is gone: one that waited for the evaluator gets an entry in the ledger that says why."""
    entry = self._workdir.evaluation(step)
    if not self._is_eligible(step) or entry.exists():
      return
    message = (
      f"checkpoint {step} is dropped unevaluated: more than config.evaluate.keep_unevaluated="
      f"{self._keep_unevaluated} wait for the evaluator"
    )
    print(message, file=sys.stderr, flush=True)
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_json(entry, {"step": step, "error": message})
