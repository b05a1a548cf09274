"""The logs of a run, files of one JSON object per line: how they are written, read, and repaired from what is sound.

A log is never a reason not to resume. A line that is damaged is left out and said, and what a killed process left half
written is cut off; but a checkpoint knows what its logs were, and a run that continues without some of it says so.
"""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from typing import Any

from xlmr_jax.files import AnyPath, parse_json
from xlmr_jax.run.growing import open_growing, read_growing
from xlmr_jax.run.workdir import Workdir

# What a line must have to be of use, beside its "step".
TRAIN = {"loss": (int, float, type(None)), "lr": (int, float), "languages": dict}
HELD_OUT = {"mean_loss": (int, float), "languages": dict}
TIMING: dict[str, Any] = {}
ALARMS: dict[str, Any] = {"kind": str, "language": str, "text": str}


def _parse(raw: bytes, types: dict[str, Any]) -> dict | None:
  """A line's object, or None if it is not one with a whole "step" of 0 or more and values of `types`."""
  try:
    line = parse_json(raw)
  except ValueError:
    return None
  if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
    return None
  if not all(name in line and isinstance(line[name], kind) for name, kind in types.items()):
    return None
  losses = line["languages"].values() if "languages" in types else ()
  return line if all(isinstance(x, dict) and "loss" in x for x in losses) else None


def _sound_lines(path: AnyPath, types: dict[str, Any]) -> Iterator[tuple[bytes, dict]]:
  """The sound lines of a log with what they say, one by one. At the end the numbers of the others are told on stderr.

  A last line without its end is left out silently: its writer was killed, or is at work.
  """
  damaged, number = [], 0
  for raw in io.BytesIO(read_growing(path)):
    if not raw.endswith(b"\n"):
      break
    number += 1
    line = _parse(raw, types)
    if line is None:
      damaged.append(str(number))
    else:
      yield raw, line
  if damaged:
    numbers = ", ".join(damaged[:10]) + (f" and {len(damaged) - 10} more" if len(damaged) > 10 else "")
    print(f"{path}: left out, because damaged: line {numbers} of {number}", file=sys.stderr, flush=True)


def read_train(workdir: Workdir) -> list[dict]:
  """The sound lines of train.jsonl; none where there is no such file."""
  return [line for _, line in _sound_lines(workdir.train_log, TRAIN)]


def read_held_out(workdir: Workdir) -> list[dict]:
  """The sound lines of held_out.jsonl; none where there is no such file."""
  return [line for _, line in _sound_lines(workdir.held_out_log, HELD_OUT)]


def each_train(workdir: Workdir) -> Iterator[dict]:
  """The same, one by one: all lines of a long run with many languages together would fill the memory."""
  return (line for _, line in _sound_lines(workdir.train_log, TRAIN))


def read_timing(workdir: Workdir) -> list[dict]:
  """The sound lines of timing.jsonl; none where there is no such file."""
  return [line for _, line in _sound_lines(workdir.timing_log, TIMING)]


def read_alarms(workdir: Workdir) -> list[dict]:
  """The sound lines of alarms.jsonl; none where there is no such file."""
  return [line for _, line in _sound_lines(workdir.alarms_log, ALARMS)]


class JsonLines:
  """An append-only log. Opening it at a step cuts off all later lines and those that are damaged."""

  def __init__(
    self, path: AnyPath, start: int, types: dict[str, Any], noted: dict | None = None, *, most: int | None = None
  ):
    """types: what a line must have. noted: what note() said when the checkpoint of `start` was saved, if it did.

    most: how many lines are kept at most, the first ones.
    """
    sound: list[bytes] = []  # as they are, because all lines of a long run in Python's objects would fill the memory
    self.last: dict | None = None  # the newest line
    for raw, line in _sound_lines(path, types):
      if line["step"] <= start and len(sound) != most:
        sound.append(raw)
        self.last = line
    self._count, self._digest = len(sound), hashlib.sha256(b"".join(sound))
    if noted and noted != self.note():
      what = f"not as it was when checkpoint {start} was saved ({noted['lines']} lines then, {self._count} sound ones now)"
      print(f"{path}: {what}; the run goes on, with a gap in its curve", file=sys.stderr, flush=True)
    self._file = open_growing(path, b"".join(sound))

  @property
  def lines(self) -> int:
    """How many lines there are by now."""
    return self._count

  def note(self) -> dict[str, Any]:
    """What the log is by now: {"lines", "sha256"}. Kept with a checkpoint."""
    return {"lines": self._count, "sha256": self._digest.hexdigest()}

  def write(self, line: dict) -> None:
    """Appends one line and hands it to the operating system, or to a bucket within growing.UPLOAD_EVERY_S."""
    self.last = line
    raw = json.dumps(line).encode() + b"\n"
    self._count += 1
    self._digest.update(raw)
    self._file.append(raw)

  def sync(self) -> None:
    """Waits until the lines are on the disk, or in the bucket."""
    self._file.sync()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
