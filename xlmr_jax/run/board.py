"""TensorBoard's event files, written where the workdir is. A board that cannot be written is told once and left out.

tensorboardX's own SummaryWriter writes in a thread behind a queue: a full disk ends the thread, and the training then waits
for the queue for ever. So its events and records are used here without thread and queue.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xlmr_jax import bucket
from xlmr_jax.config import default_config
from xlmr_jax.errors import StoreError, one_line
from xlmr_jax.files import AnyPath, flatten, upload

FLUSH_S = 30.0
# In a bucket a file is written anew when it has grown; beyond this a new one begins. gcsfs sends larger ones in parts, whose
# number it takes from the size at the start, and the file grows meanwhile.
FILE_BYTES = 4 * 2**20


# Of a config, what runs are compared by; the rest of its keys only where they are not as default_config() has them.
_ALWAYS_SHOWN = ("seed", "train_steps", "batch_rows", "model.layers", "model.hidden", "model.heads", "model.ffn",
                 "model.dropout", "data.alpha", "data.mask_share", "data.languages", "optimizer.peak_lr",
                 "optimizer.warmup_steps", "optimizer.weight_decay")  # fmt: skip


def hparams_of(config: dict[str, Any]) -> dict[str, Any]:
  """What TensorBoard's table of hyperparameters shows of a config, {dotted key: number, text or bool}."""
  default = flatten(default_config().to_dict())
  shown = {key: x for key, x in flatten(config).items() if key in _ALWAYS_SHOWN or x != default.get(key)}
  return {key: x if isinstance(x, (bool, int, float, str)) else ",".join(map(str, x)) for key, x in sorted(shown.items())}


class Board:
  """The scalars of a run in one folder. Opening it at a step hides what an earlier start wrote for this step and later ones.

  In a bucket, files are written on this machine and copied there every FLUSH_S.
  """

  def __init__(self, folder: AnyPath, purge_step: int | None = None):
    """purge_step: the first step that is hidden; None: nothing is."""
    self._folder, self._purge, self._count = folder, purge_step, 0
    self._temporary = None if isinstance(folder, Path) else tempfile.TemporaryDirectory(prefix="xlmr_jax-")
    self._pool = None if self._temporary is None else ThreadPoolExecutor(1, "board")
    self._uploading: Future | None = None
    self._writer: Any = None
    self._file = Path()
    self._guarded(self._open)

  def _guarded(self, work: Any) -> None:
    try:
      work()
    except (OSError, StoreError, ValueError) as error:
      what = getattr(error, "strerror", None) or one_line(error)
      print(f"{self._folder}: TensorBoard's files are not written from here on ({what})", file=sys.stderr, flush=True)
      self._writer = None

  def _open(self) -> None:
    from tensorboardX.event_file_writer import EventsWriter  # It takes a second to import.
    from tensorboardX.proto import event_pb2

    local = Path(self._temporary.name) if self._temporary else Path(str(self._folder))
    local.mkdir(parents=True, exist_ok=True)
    before = set(os.listdir(local))
    self._writer = EventsWriter(str(local / "events"), f".{os.getpid()}.{self._count}")
    self._file = local / (set(os.listdir(local)) - before).pop()
    self._flushed_at = time.monotonic()
    if self._purge is not None and not self._count:
      start: Any = event_pb2
      self._writer.write_event(start.Event(step=self._purge, file_version="brain.Event:2"))
      self._writer.write_event(start.Event(step=self._purge, session_log=start.SessionLog(status=start.SessionLog.START)))
    self._count += 1

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """Adds one value."""
    if self._writer:
      self._guarded(lambda: self._add(name, value, step))

  def _add(self, name: str, value: float, step: int) -> None:
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

    event: Any = event_pb2
    self._writer.write_event(event.Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
    if time.monotonic() - self._flushed_at >= FLUSH_S:
      self._flush(wait=False)

  def add_hparams(self, hparams: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Says what the table of hyperparameters (TensorBoard's HParams) shows of this run.

    hparams: {name: number, text or bool}; nothing is written where there are none. metrics: scalars that stand beside them.
    """
    if self._writer and hparams:
      self._guarded(lambda: self._add_hparams(hparams, metrics))

  def _add_hparams(self, hparams: Mapping[str, Any], metrics: Sequence[str]) -> None:
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import hparams as summaries

    event: Any = event_pb2
    # The third one would say that the run has ended.
    for summary in summaries(dict(hparams), dict.fromkeys(metrics, 0.0))[:2]:
      self._writer.write_event(event.Event(wall_time=time.time(), step=0, summary=summary))

  def _flush(self, *, wait: bool) -> None:
    self._writer.flush()
    self._flushed_at = time.monotonic()
    if self._pool is None:
      return
    if self._uploading and (wait or self._uploading.done()):
      self._uploading.result()
      self._uploading = None
    if self._uploading is None:
      self._uploading = self._pool.submit(upload, self._file, self._folder / self._file.name)  # pyright: ignore[reportArgumentType]
    is_full = self._file.stat().st_size >= FILE_BYTES
    if wait or is_full:
      self._uploading.result()
      self._uploading = None
    if is_full:
      self._writer.close()
      self._open()

  def flush(self) -> None:
    """Waits until everything is on the disk or in the bucket."""
    if self._writer:
      self._guarded(lambda: self._flush(wait=True))

  def close(self) -> None:
    """Does so too, and closes the files."""
    if not bucket.has_given_up():
      self.flush()
    if self._writer:
      self._guarded(self._writer.close)
    self._writer = None
    if self._pool and self._temporary:
      self._pool.shutdown(wait=not bucket.has_given_up())
      self._temporary.cleanup()
