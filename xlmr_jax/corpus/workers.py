"""Runs a stage of a build on this machine, in threads or processes; and how a failed work item is reported.

A failure is a value that a worker returns, so that every runner gives the same clear line and all failures are known.
"""

import dataclasses
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from xlmr_jax.corpus.held_out import one_message
from xlmr_jax.errors import StoreError, UserError
from xlmr_jax.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

_NAMED = 3  # files at most in the message about a lost worker


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why a work item failed. `trace` is empty if the user can mend it, or a fresh start does."""

  message: str
  trace: str = ""
  is_of_store: bool = False  # A bucket fails for a passing reason.


def attempt(work: Callable[[Item], Result], item: Item) -> Result | Failure:
  """work(item), or why it failed."""
  try:
    return work(item)
  except UserError as error:
    return Failure(str(error))
  except StoreError as error:
    return Failure(str(error), is_of_store=True)
  except OSError as error:
    return Failure(f"{error.filename}: {error.strerror}" if error.filename else f"--out: {error.strerror or error}")
  except Exception as error:
    return Failure(str(error), traceback.format_exc())


def results_of(outcomes: Iterable[Result | Failure]) -> list[Result]:
  """The outcomes, none of which may be a Failure.

  Raises RuntimeError: a worker crashed; StoreError: a bucket failed; UserError for what the user can mend.
  """
  results: list[Result] = []
  failures: list[Failure] = []
  for outcome in outcomes:
    if isinstance(outcome, Failure):
      failures.append(outcome)
    else:
      results.append(outcome)
  for failure in failures:
    if failure.trace:
      raise RuntimeError(f"a worker failed:\n{failure.trace}")
  for failure in failures:
    if failure.is_of_store:
      raise StoreError(failure.message)
  if failures:
    raise UserError(one_message([failure.message for failure in failures]))
  return results


def cores() -> int:
  """The cores that this process may use. macOS does not tell that, and has no containers that could limit them."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lost_worker(what: str, items: Iterable[tuple[Future, str]], workers: int) -> UserError:
  """The error to raise when the system has ended a worker while `what` was going on. items: each with its name, in order."""
  # The executor does not tell which item it was. Of those that are not done, the first ones were being worked on.
  begun = [name for future, name in items if not future.done() or future.exception()][: 2 * workers]
  names = list(dict.fromkeys(begun))  # Many items may be parts of one file.
  shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
  where = f" on {'one of ' if len(names) > 1 else ''}{shown}" if names else ""
  return UserError(
    f"a worker ended without a word while {what}: out of memory, or the crash of a library{where}; free memory"
    f"{' or leave that file out' if names else ''}, and give the same command again"
  )


def _name_of(item: Any) -> str:
  """What messages call an item of a build of rows: a shard, or what holds one."""
  return str(getattr(getattr(item, "shard", item), "name", item))


def run_stage(
  what: str,
  work: Callable[[Item], Result],
  items: Sequence[Item],
  sizes: Sequence[int],
  *,
  workers: int,
  processes: bool = False,
) -> list[Result]:
  """work(item) of each item, in the items' order. what: the stage's name; sizes: the bytes of text of each item.

  workers: how many items are worked on at a time; processes: in processes of their own rather than in threads.
  Raises UserError or RuntimeError: an item failed, or the system has ended a worker.
  """
  outcomes: list[Result | Failure | None] = [None] * len(items)
  with Progress(what, sum(sizes) / 1e6, "MB") as progress:
    if workers < 2 or len(items) < 2:
      for index, item in enumerate(items):
        outcomes[index] = attempt(work, item)
        progress.add(sizes[index] / 1e6)
      return results_of(outcome for outcome in outcomes if outcome is not None)
    # A forked process would inherit locks that TensorFlow's threads hold, so processes are spawned.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) if processes else ThreadPoolExecutor(workers) as pool:
      futures: dict[Future, int] = {}
      try:
        for index, item in enumerate(items):  # A worker may end before all items are submitted.
          futures[pool.submit(attempt, work, item)] = index
        for future in as_completed(futures):
          outcomes[futures[future]] = future.result()
          progress.add(sizes[futures[future]] / 1e6)
      except BrokenProcessPool:
        raise lost_worker(what, [(future, _name_of(items[index])) for future, index in futures.items()], workers) from None
      finally:
        for future in futures:
          future.cancel()
  return results_of(outcome for outcome in outcomes if outcome is not None)
