"""What a run writes and prints: JSON lines, TensorBoard, a progress line with tokens/s, MFU and time left.

train.jsonl and held_out.jsonl hold only what follows from (seed, step), so that a resumed run's are bit-equal to an
unbroken one's; times go to timing.jsonl and the terminal. Nothing here decides what the run does.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from xlmr_jax.hardware import peak_flops
from xlmr_jax.progress import EVERY_S
from xlmr_jax.run import alarms, logs
from xlmr_jax.run.alarms import Alarm, Limits
from xlmr_jax.run.board import Board
from xlmr_jax.run.goodput import Goodput
from xlmr_jax.run.logs import JsonLines
from xlmr_jax.run.workdir import Workdir

_SUMMED = ("loss_sum", "weight", "grad_norm", "language_loss", "language_weight")


def duration(seconds: float) -> str:
  """Seconds as 3h07m or 5m20s."""
  hours, rest = divmod(round(seconds), 3600)
  return f"{hours}h{rest // 60:02d}m" if hours else f"{rest // 60}m{rest % 60:02d}s"


class Rate(NamedTuple):
  """What tokens/s and MFU of a step are computed from, and what else its phase decides of a line."""

  tokens_per_step: int  # of all hosts
  flops_per_token: float
  cuts: int = 1  # rows of the batch that a row of the store is cut into; logs count rows of the store
  phase: int = 0  # its number, from 1 on; 0 where the run has but one, and lines name none


class Outcome(NamedTuple):
  """What became of a step."""

  made: bool  # whether its update was made
  grad_norm: float


class RunLog:
  """The training metrics of a run, summed over `every_steps` steps and then written by process 0.

  Metrics are fetched one step late, when the next step has been dispatched. notes() is kept with each checkpoint, so
  that a sum begun before it goes on after a restore.
  """

  def __init__(
    self,
    workdir: Workdir,
    *,
    start: int,
    held_out_at: int,
    notes: dict | None,
    train_steps: int,
    every_steps: int,
    languages: tuple[str, ...],
    parallel: tuple[str, ...] = (),
    shares: Callable[[int], np.ndarray],
    epochs: Callable[[int], np.ndarray],
    rate: Callable[[int], Rate],
    tensorboard: bool = True,
    goodput: Goodput | None = None,
    limits: Limits | None = None,
    hparams: Mapping[str, Any] | None = None,
  ):
    """start, held_out_at: lines of later steps are cut off. notes: of the checkpoint that the run resumes from.

    parallel: those of the languages whose rows are pairs of parallel sentences.
    shares: steps -> float[G], the wanted share of each language among the rows of so many steps. epochs: steps -> float[G],
    epochs of each language consumed by then. rate: of a step.
    limits: config.alarms; None raises no alarm. hparams: what TensorBoard's table of hyperparameters shows of the run.
    """
    self._every, self._train_steps, self._languages, self._shares = every_steps, train_steps, languages, shares
    self._epochs, self._rate, self._goodput, self._parallel = epochs, rate, goodput, parallel
    self._peak = peak_flops(jax.devices()[0].device_kind)
    self._pending: tuple[int, dict] | None = None
    self._clear()
    self._rows_seen = np.zeros(len(languages), np.int64)
    if notes:
      self._sums = {name: np.asarray(value, np.float64) for name, value in notes["sums"].items()}
      self._steps = notes["steps"]
      self._rows_seen = np.asarray(notes["rows_seen"], np.int64)
    self.restart_clock()
    self._last_line_at = self._clock
    self._board: Board | None = None
    self._train: JsonLines | None = None
    if jax.process_index() == 0:
      noted = (notes or {}).get("logs") or {}  # Older checkpoints have none.
      self._train = JsonLines(workdir.train_log, start, logs.TRAIN, noted.get("train"))
      self._held_out = JsonLines(workdir.held_out_log, held_out_at, logs.HELD_OUT, noted.get("held_out"))
      self._timing = JsonLines(workdir.timing_log, start, logs.TIMING)
      watched = (notes or {}).get("alarms") or {"state": alarms.new_state(), "lines": 0}
      self._limits, self._watched = limits, watched["state"]
      # Not by their steps: an alarm of a held-out pass that is made again at `start` would come twice.
      self._alarms = JsonLines(workdir.alarms_log, start, logs.ALARMS, most=watched["lines"]) if limits else None
      if tensorboard:
        self._board = Board(workdir.tensorboard, purge_step=start + 1)
        self._board.add_hparams(hparams or {}, ("held_out/loss", "loss"))

  def _clear(self) -> None:
    self._sums: dict[str, Any] = {}
    self._steps = 0

  @property
  def last_held_out(self) -> dict | None:
    """The newest line of held_out.jsonl; None on other processes than 0."""
    return self._held_out.last if self._train else None

  def notes(self) -> dict:
    """What a restored run needs to go on with the same sums."""
    return {
      "sums": {name: np.asarray(value).tolist() for name, value in self._sums.items()},
      "steps": self._steps,
      "rows_seen": self._rows_seen.tolist(),
      "logs": {"train": self._train.note(), "held_out": self._held_out.note()} if self._train else {},
    } | ({"alarms": {"state": self._watched, "lines": self._alarms.lines}} if self._train and self._alarms else {})

  def later(self, step: int, metrics: dict) -> list[Outcome]:
    """Takes the metrics of the step just dispatched and fetches those of the one before.

    Returns what became of each fetched step, none or one.
    """
    before, self._pending = self._pending, (step, metrics)
    return [self._add(*before)] if before else []

  def flush(self) -> list[Outcome]:
    """Fetches what is pending, so that all steps so far are in the sums or on the disk; returns as later() does."""
    before, self._pending = self._pending, None
    outcomes = [self._add(*before)] if before else []
    self.sync()
    return outcomes

  def sync(self) -> None:
    """Waits until all lines so far are on the disk or in the bucket: no checkpoint may outlive the lines before it."""
    if self._train:
      for file in (self._train, self._held_out, self._alarms):
        if file:
          file.sync()

  def _add(self, step: int, metrics: dict) -> Outcome:
    metrics = jax.device_get(metrics)
    made = bool(metrics["made"])
    self._rows_seen += np.asarray(metrics["language_rows"]).astype(np.int64) // self._rate(step).cuts
    for name in _SUMMED:  # A bad step's sums stay out of the averages.
      value = np.asarray(metrics[name], np.float64)
      self._sums[name] = self._sums.get(name, 0.0) + (value if made else np.zeros_like(value))
    self._sums["skipped"] = self._sums.get("skipped", 0.0) + (not made)
    self._steps += 1
    self._clock_steps += 1
    if (step + 1) % self._every == 0 or step + 1 == self._train_steps:
      self._write(step + 1, float(metrics["lr"]))
    elif self._train and sys.stdout.isatty() and time.perf_counter() - self._last_line_at > EVERY_S:
      self._say_step(step + 1)
    return Outcome(made, float(metrics["grad_norm"]))

  def _say_step(self, done: int) -> None:
    """For who watches: how far it is, between two lines of train.jsonl. A file of the output has no need of it."""
    step_s = (time.perf_counter() - self._clock) / max(self._clock_steps, 1)
    print(f"step {done}/{self._train_steps}  {duration(step_s * (self._train_steps - done))} left", flush=True)
    self._last_line_at = time.perf_counter()

  def _write(self, done: int, lr: float) -> None:
    """One line about the interval that ends with `done` steps made."""
    step_s = (time.perf_counter() - self._clock) / max(self._clock_steps, 1)
    spread = self._goodput.spread(step_s) if self._goodput else {}
    if self._train:
      sums, good = self._sums, max(self._steps - float(self._sums["skipped"]), 1.0)
      loss = float(sums["loss_sum"]) / float(sums["weight"]) if sums["weight"] else None
      line: dict[str, Any] = {
        "step": done,
        "loss": loss,
        "grad_norm": float(sums["grad_norm"]) / good,
        "lr": lr,
        "skipped": int(sums["skipped"]),
        "masked_tokens": int(sums["weight"]),
        "languages": {},
      }
      if phase := self._rate(done - 1).phase:
        line["phase"] = phase
      epochs, shares, rows = self._epochs(done), self._shares(done), self._rows_seen
      for i, name in enumerate(self._languages):
        weight = float(sums["language_weight"][i])
        line["languages"][name] = {
          "loss": float(sums["language_loss"][i]) / weight if weight else None,
          "rows": int(rows[i]),
          "epochs": round(float(epochs[i]), 4),
          "share": round(float(rows[i] / max(rows.sum(), 1)), 6),
          "share_wanted": round(float(shares[i]), 6),
        }
      self._train.write(line)
      self._write_timing(done, line, step_s, spread)
      if self._limits:
        self._watched, found = alarms.after_train(self._watched, line, self._limits)
        self._raise(found)
    self._clear()
    self.restart_clock()

  def _write_timing(self, done: int, line: dict, step_s: float, spread: dict) -> None:
    if not self._clock_steps:
      return
    rate = self._rate(done - 1)
    tokens_per_s = rate.tokens_per_step / step_s
    mfu = rate.flops_per_token * tokens_per_s / jax.device_count() / self._peak if self._peak else None
    parts = self._goodput.total().parts if self._goodput else {}
    goodput = {name: round(seconds, 3) for name, seconds in parts.items()}  # seconds so far, over all starts
    timing = {"step": done, "step_s": step_s, "tokens_per_s": tokens_per_s, "mfu": mfu}
    self._timing.write(timing | ({"goodput": goodput} if goodput else {}) | spread)
    loss = "none" if line["loss"] is None else f"{line['loss']:.3f}"
    print(
      f"step {done}/{self._train_steps}  loss {loss}  lr {line['lr']:.2e}  {tokens_per_s:,.0f} tokens/s"
      + (f"  MFU {mfu:.1%}" if mfu is not None else "")
      + (f"  skipped {line['skipped']}" if line["skipped"] else "")
      + f"  {duration(step_s * (self._train_steps - done))} left",
      flush=True,
    )
    self._last_line_at = time.perf_counter()
    if self._board:
      scalars = {"grad_norm": line["grad_norm"], "lr": line["lr"], "skipped": line["skipped"], "loss": line["loss"],
                 "speed/tokens_per_s": tokens_per_s, "speed/mfu": mfu}  # fmt: skip
      scalars |= {f"goodput/{name}": seconds / max(sum(parts.values()), 1e-9) for name, seconds in parts.items()}
      scalars |= {f"hosts/{name}": spread[name][1] for name in ("hosts_step_s", "hosts_late_s") if name in spread}
      for name, values in line["languages"].items():
        scalars |= {f"epochs/{name}": values["epochs"], f"loss/{name}": values["loss"]}
      self._add_scalars(scalars, done)

  def _add_scalars(self, scalars: Mapping[str, float | None], step: int) -> None:
    for name, value in scalars.items():
      if value is not None and self._board:
        self._board.add_scalar(name, value, step)

  def _raise(self, found: list[Alarm]) -> None:
    """Prints and writes alarms."""
    for alarm in found:
      print(f"alarm at step {alarm.step}: {alarm.text}", file=sys.stderr, flush=True)
      if self._alarms:
        self._alarms.write(alarm._asdict())

  def first_step(self, step: int, seconds: float, compiling: dict[str, Any], program: Sequence[str] = ()) -> None:
    """Prints and writes how long the start took, to the end of the first step. seconds: age of the process.

    compiling: as compile_cache.so_far() gives it. program: what was printed at the
    start about the mesh, the kernels and the memory.
    """
    if self._train:
      told = {"program": list(program)} if program else {}
      self._timing.write({"step": step, "first_step_s": round(seconds, 3)} | compiling | told)
      print(
        f"first step after {seconds:.1f} s: compiling {compiling['compile_s']:.1f} s, {compiling['from_cache']} of "
        f"{compiling['programs']} programs from the cache",
        flush=True,
      )

  def held_out(self, step: int, sums: np.ndarray, weights: np.ndarray, bits_per_nat: np.ndarray) -> None:
    """Writes held-out losses per language. sums, weights: float64[G]; bits_per_nat: tokens / (bytes ln 2), float64[G]."""
    if not self._train:
      return
    losses = {name: float(s / w) for name, s, w in zip(self._languages, sums, weights) if w}
    bits = {name: losses[name] * float(b) for name, b in zip(self._languages, bits_per_nat) if name in losses}
    # A word is easier to guess beside its translation, so that pairs are no part of the means that runs are compared by.
    single = [name for name in losses if name not in self._parallel] or list(losses)
    mean = math.fsum(losses[name] for name in single) / max(len(single), 1)
    languages = {name: {"loss": losses[name], "bits_per_byte": bits[name]} for name in losses}
    loss = float(sums.sum() / max(weights.sum(), 1.0))
    line = {"step": step, "loss": loss, "mean_loss": mean, "languages": languages}
    if left_out := [name for name in losses if name not in single]:
      line["parallel"] = left_out  # Who makes a mean of the line leaves them out of it too.
    self._held_out.write(line)
    print(
      f"held-out at step {step}: loss {mean:.3f}, {math.fsum(bits[name] for name in single) / max(len(single), 1):.3f} "
      f"bits per byte (mean of {len(single)} languages)",
      flush=True,
    )
    if self._board:
      self._add_scalars({"held_out/loss": mean} | {f"held_out/{name}": loss for name, loss in losses.items()}, step)
    if self._limits:
      self._watched, found = alarms.after_held_out(self._watched, line, self._limits)
      self._raise(found)

  def restart_clock(self) -> None:
    """Leaves time spent outside training steps (evaluation, saving, the first compilation) out of tokens/s."""
    self._clock, self._clock_steps = time.perf_counter(), 0

  def close(self) -> None:
    """Closes all files."""
    if self._train:
      for file in (self._train, self._held_out, self._timing, self._alarms, self._board):
        if file is not None:
          file.close()
