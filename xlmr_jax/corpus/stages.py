"""Runs a build in stages: on this machine, as one of several tasks without any engine, or by Beam (beam.py).

A stage is a list of items. An item reads and writes files of its own, and its outcome, a small JSON file, is written
last. So an outcome that is there says that its item is finished: a build that is started again skips it, and two workers
that do the same item write the same bytes. A stage begins when all items of the stage before it are finished.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from xlmr_jax.corpus.workers import Failure, attempt, lost_worker, results_of
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, each, read_json, whole_file, write_whole
from xlmr_jax.folders import entries, signs
from xlmr_jax.progress import Progress

_BEAT_S = 5.0  # between two signs of life of a task
_SILENT_S = 60.0  # after which a task without one is taken for dead
_POLL_S = 1.0  # between two looks at what other tasks have finished
_BUCKET_POLL_S = 5.0  # and in a bucket, where a look costs requests and an object may be written once per second
_LOOKING = 20  # A task spends at most one part of so many in looking.


@dataclasses.dataclass(frozen=True)
class Item:
  """A piece of a stage's work."""

  number: int
  size: int  # bytes of text that it is about, for the progress line
  content: Any = None  # what the stage needs to know; pickled


class Stage(Protocol):
  """One stage. Instances are pickled, so they hold little; what is large lies in files."""

  @property
  def name(self) -> str:
    """Of its folder."""
    ...

  @property
  def what(self) -> str:
    """What it does, as a progress line says it."""
    ...

  @property
  def folder(self) -> AnyPath:
    """Of its outcomes."""
    ...

  def items(self) -> list[Item]:
    """Its items, the same whenever and wherever it is asked after the stages before it are finished."""
    ...

  def work(self, item: Item) -> dict[str, Any]:
    """Does an item; returns its outcome, which is stored as JSON. Raises UserError: the user must mend something."""
    ...


def outcome_path(stage: Stage, number: int) -> AnyPath:
  """The file that says that an item is finished."""
  return stage.folder / f"{number:07d}.json"


def outcomes(stage: Stage, items: Sequence[Item]) -> list[dict[str, Any]]:
  """The outcomes of items, all of which are finished, in their order."""
  return each(lambda item: read_json(outcome_path(stage, item.number)), items, stage.folder)


def finish(stage: Stage, item: Item) -> None:
  """Does an item unless it is finished."""
  path = outcome_path(stage, item.number)
  if not path.exists():
    outcome = stage.work(item)
    with whole_file(path, many_writers=True) as unfinished_file:
      unfinished_file.write_text(json.dumps(outcome, ensure_ascii=False), encoding="utf-8")


def unfinished(stage: Stage, items: Sequence[Item]) -> list[Item]:
  """Those items whose outcome is not there."""
  done = entries(stage.folder)
  return [item for item in items if outcome_path(stage, item.number).name not in done]


def run_here(stages: Sequence[Stage], workers: int) -> None:
  """All stages on this machine, each item in one of `workers` processes; in this process if there is only one.

  Raises UserError or RuntimeError: an item failed. Then the stage was done as far as possible.
  """
  # A forked process would inherit locks that threads hold, so processes are spawned. They live through all stages.
  pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) if workers > 1 else None
  with pool or contextlib.nullcontext():
    for stage in stages:
      _run_stage(stage, pool, workers)


def _run_stage(stage: Stage, pool: ProcessPoolExecutor | None, workers: int) -> None:
  items = stage.items()
  total = sum(item.size for item in items)
  left = sorted(unfinished(stage, items), key=lambda item: -item.size)
  results: list[Failure | None] = []
  with Progress(stage.what, total / 1e6, "MB", begun=(total - sum(item.size for item in left)) / 1e6) as progress:
    work = functools.partial(finish, stage)
    if pool is None or len(left) < 2:
      for item in left:
        results.append(attempt(work, item))
        progress.add(item.size / 1e6)
    else:
      futures: dict[Future, Item] = {}
      try:
        for item in left:  # A worker may end before all items are submitted.
          futures[pool.submit(attempt, work, item)] = item
        for future in as_completed(futures):
          results.append(future.result())
          progress.add(futures[future].size / 1e6)
      except BrokenProcessPool:
        names = [(future, str(getattr(item.content, "name", item.number))) for future, item in futures.items()]
        raise lost_worker(stage.what, names, workers) from None
      finally:
        for future in futures:
          future.cancel()
  results_of(results)


def run_task(
  stages: Sequence[Stage], folder: AnyPath, task: int, tasks: int, is_over: Callable[[], bool] = lambda: False
) -> list[int]:
  """This task's share of each stage, of `tasks` that are started in any order, on machines that see the same `folder`.

  Returns the tasks that were never started and are waited for; with none, the build is finished. A stage must be finished
  before the next one begins, so a task waits for the others while they live, and does the work of those that died. If some
  were not started yet, it ends, and the last task to be started does with the others that live then what is left.
  is_over: whether another task has finished the build and put its folder away. Raises FileNotFoundError then.
  """
  if not 0 <= task < tasks:
    raise UserError(f"--task={task}/{tasks}: there are the tasks 0/{tasks} to {tasks - 1}/{tasks}")
  lives = folder / "tasks"
  with _signs_of_life(lives / str(task)):
    for stage in stages:
      items = stage.items()
      owner = {item.number: position % tasks for position, item in enumerate(items)}
      print(f"task {task} of {tasks}: {stage.what}, {len(items)} items", file=sys.stderr, flush=True)
      results_of(attempt(functools.partial(finish, stage), item) for item in unfinished(stage, items[task::tasks]))
      while True:
        began = time.monotonic()
        if not (left := unfinished(stage, items)):
          break
        # A bucket has no folders that could be missing.
        if is_over():
          raise FileNotFoundError(2, "the build is finished", os.fspath(folder))
        living, begun = _tasks(lives, lives / str(task))
        owners = {owner[item.number] for item in left}
        if missing := sorted(owners - begun):
          return missing
        if owners <= living:
          least = _POLL_S if isinstance(folder, Path) else _BUCKET_POLL_S
          time.sleep(max(least, _LOOKING * (time.monotonic() - began)))
          continue
        # Items of a task that died. Each task begins elsewhere, and what two of them do comes out the same.
        orphans = [item for item in left if owner[item.number] not in living]
        finish(stage, orphans[task * len(orphans) // tasks])
  return []


@contextlib.contextmanager
def _signs_of_life(path: AnyPath) -> Iterator[None]:
  """Writes a sign every _BEAT_S seconds while it is open; afterwards the sign says that its task has ended."""
  ended = threading.Event()

  def beat() -> None:
    while not ended.wait(_BEAT_S):
      _touch(path)

  if isinstance(path, Path):
    path.parent.mkdir(parents=True, exist_ok=True)
  _touch(path)
  thread = threading.Thread(target=beat, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    with contextlib.suppress(FileNotFoundError):  # The build's folder goes when the build is finished.
      _touch(path, has_ended=True)


def _touch(path: AnyPath, *, has_ended: bool = False) -> None:
  """Gives a sign of life the present time; of a task that has ended, 1970 on a disk, and in a bucket an empty file."""
  if not isinstance(path, Path):
    write_whole(path, b"" if has_ended else b"alive\n")
    return
  path.touch()
  if has_ended:
    os.utime(path, (0, 0))


def _tasks(lives: AnyPath, own: AnyPath) -> tuple[set[int], set[int]]:
  """(the tasks that live, those that were ever started), by the clock of the store, which all of them share."""
  _touch(own)
  seen = {int(name): sign for name, sign in signs(lives).items()}
  now = seen[int(own.name)].time_s
  living = {task for task, sign in seen.items() if now - sign.time_s < _SILENT_S}
  return living if isinstance(own, Path) else {task for task in living if seen[task].size}, set(seen)
