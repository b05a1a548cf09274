"""What a run writes and prints: JSON lines, TensorBoard, a progress line with tokens/s, MFU and time left.

train.jsonl and held_out.jsonl hold only what follows from (seed, step), so that a resumed run's are bit-equal to an
unbroken one's; times go to timing.jsonl and the terminal.
"""

import json
import math
import os
import time
from pathlib import Path

import jax
import numpy as np

PEAK_FLOPS = {  # dense bf16 of one jax device, from the vendors' data sheets
  "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v5p": 459e12, "TPU v6 lite": 918e12,
  "TPU7x": 1153.5e12,  # a chip is two devices of half its 2,307
  "NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
}  # fmt: skip


def peak_flops(device_kind: str) -> float | None:
  """Peak bf16 FLOP/s of a device, or None where the chip is not known. The longest matching name counts."""
  names = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
  return PEAK_FLOPS[max(names, key=len)] if names else None


def flops_per_token(*, layers: int, hidden: int, ffn: int, vocabulary: int, seq_len: int, slots: int) -> float:
  """Matrix-product FLOPs forward and backward per token position, nothing recomputed: XLM-R Base at 512, 80: 747M."""
  body = layers * (4 * hidden**2 + 2 * hidden * ffn)
  attention = layers * 2 * seq_len * hidden
  head = slots / seq_len * (hidden**2 + vocabulary * hidden)
  return 6.0 * (body + attention + head)


def write_json(path: os.PathLike, value: object) -> None:
  """Whole or not at all: a temporary name, then a rename."""
  path = Path(path)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
  temporary.replace(path)


class JsonLines:
  """An append-only file of one JSON object a line, each with "step"; opened at a step, later lines are cut off."""

  def __init__(self, path: os.PathLike, start: int):
    path = Path(path)
    kept = []
    if path.exists():
      for line in path.read_text().splitlines(keepends=True):
        try:
          step = json.loads(line)["step"]
        except ValueError:
          continue  # half a line from a run that was killed
        if step <= start and line.endswith("\n"):
          kept.append(line)
      temporary = path.with_name(path.name + ".tmp")
      temporary.write_text("".join(kept))
      temporary.replace(path)
    self._file = path.open("a")

  def write(self, line: dict) -> None:
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()

  def sync(self) -> None:
    """Onto the disk: no checkpoint may outlive the lines before it."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()


def _duration(seconds: float) -> str:
  hours, rest = divmod(round(seconds), 3600)
  return f"{hours}h{rest // 60:02d}m" if hours else f"{rest // 60}m{rest % 60:02d}s"


class RunLog:
  """The training metrics of a run, summed over `every_steps` steps and then written by process 0.

  Metrics are fetched one step late, when the next step has been dispatched. notes() is kept with each checkpoint, so
  that a sum begun before it goes on after a restore.
  """

  def __init__(
    self,
    workdir: os.PathLike,
    *,
    start: int,
    notes: dict | None,
    train_steps: int,
    every_steps: int,
    languages: tuple[str, ...],
    shares: np.ndarray,
    epochs,
    tokens_per_step: int,
    flops_per_token: float,
    tensorboard: bool = True,
  ):
    """epochs: function of a step, float[G]: epochs of each language consumed by then. tokens: of all hosts."""
    self._every, self._train_steps, self._languages, self._shares = every_steps, train_steps, languages, shares
    self._epochs, self._tokens_per_step = epochs, tokens_per_step
    self._peak = peak_flops(jax.devices()[0].device_kind)
    self._flops_per_second = flops_per_token * tokens_per_step / jax.device_count()
    self._pending: tuple[int, dict] | None = None
    self._clear()
    self.bad_in_a_row = 0
    self.held_out_at = -1  # newest step with a held-out evaluation; the same on every process
    self.rows_seen = np.zeros(len(languages), np.int64)
    if notes:
      self._sums = {name: np.asarray(value, np.float64) for name, value in notes["sums"].items()}
      self._steps, self.bad_in_a_row = notes["steps"], notes["bad_in_a_row"]
      self.held_out_at = notes["held_out_at"]
      self.rows_seen = np.asarray(notes["rows_seen"], np.int64)
    self._clock, self._clock_steps = time.perf_counter(), 0
    self._lines = self._timing = self._held_out = self._board = None
    if jax.process_index() == 0:
      workdir = Path(workdir)
      self._lines = JsonLines(workdir / "train.jsonl", start)
      self._held_out = JsonLines(workdir / "held_out.jsonl", self.held_out_at)
      self._timing = JsonLines(workdir / "timing.jsonl", start)
      if tensorboard:
        from tensorboardX import SummaryWriter  # a second to import; processes that write nothing skip it

        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

  def _clear(self) -> None:
    self._sums, self._steps = {}, 0

  def notes(self) -> dict:
    """What a restored run needs to go on with the same sums."""
    return {
      "sums": {name: np.asarray(value).tolist() for name, value in self._sums.items()},
      "steps": self._steps,
      "bad_in_a_row": self.bad_in_a_row,
      "held_out_at": self.held_out_at,
      "rows_seen": self.rows_seen.tolist(),
    }

  def later(self, step: int, metrics: dict) -> None:
    """Takes the metrics of the step just dispatched and fetches those of the one before."""
    before, self._pending = self._pending, (step, metrics)
    if before:
      self._add(*before)

  def flush(self) -> None:
    """Fetches what is pending: all steps so far are in the sums or written."""
    before, self._pending = self._pending, None
    if before:
      self._add(*before)
    for file in (self._lines, self._held_out):
      if file is not None:
        file.sync()

  def _add(self, step: int, metrics: dict) -> None:
    metrics = jax.device_get(metrics)
    finite = bool(metrics["finite"])
    self.bad_in_a_row = 0 if finite else self.bad_in_a_row + 1
    if not finite:
      metrics = {name: np.where(np.isfinite(value), value, 0.0) for name, value in metrics.items()}
      for name in ("loss_sum", "weight", "language_loss", "language_weight", "grad_norm"):
        metrics[name] = np.zeros_like(metrics[name])  # a bad step's sums stay out of the averages
    self.rows_seen += np.asarray(metrics["language_rows"]).astype(np.int64)
    for name in ("loss_sum", "weight", "grad_norm", "language_loss", "language_weight"):
      self._sums[name] = self._sums.get(name, 0.0) + np.asarray(metrics[name], np.float64)
    self._sums["skipped"] = self._sums.get("skipped", 0.0) + (not finite)
    self._steps += 1
    self._clock_steps += 1
    if (step + 1) % self._every == 0 or step + 1 == self._train_steps:
      self._write(step + 1, float(metrics["lr"]))

  def _write(self, done: int, lr: float) -> None:
    """One line about the interval that ends with `done` steps made."""
    if self._lines is not None:
      sums, good = self._sums, max(self._steps - float(self._sums["skipped"]), 1.0)
      loss = float(sums["loss_sum"]) / float(sums["weight"]) if sums["weight"] else None
      line = {
        "step": done,
        "loss": loss,
        "grad_norm": float(sums["grad_norm"]) / good,
        "lr": lr,
        "skipped": int(sums["skipped"]),
        "masked_tokens": int(sums["weight"]),
        "languages": {},
      }
      epochs, rows = self._epochs(done), self.rows_seen
      for i, name in enumerate(self._languages):
        weight = float(sums["language_weight"][i])
        line["languages"][name] = {
          "loss": float(sums["language_loss"][i]) / weight if weight else None,
          "rows": int(rows[i]),
          "epochs": round(float(epochs[i]), 4),
          "share": round(float(rows[i] / max(rows.sum(), 1)), 6),
          "share_wanted": round(float(self._shares[i]), 6),
        }
      self._lines.write(line)
      self._write_timing(done, line)
    self._clear()
    self._clock, self._clock_steps = time.perf_counter(), 0

  def _write_timing(self, done: int, line: dict) -> None:
    if not self._clock_steps:
      return
    step_s = (time.perf_counter() - self._clock) / self._clock_steps
    timing = {
      "step": done,
      "step_s": step_s,
      "tokens_per_s": self._tokens_per_step / step_s,
      "mfu": self._flops_per_second / step_s / self._peak if self._peak else None,
    }
    self._timing.write(timing)
    mfu = f"  MFU {timing['mfu']:.1%}" if self._peak else ""
    skipped = f"  skipped {line['skipped']}" if line["skipped"] else ""
    loss = "none" if line["loss"] is None else f"{line['loss']:.3f}"
    print(
      f"step {done}/{self._train_steps}  loss {loss}  lr {line['lr']:.2e}  "
      f"{timing['tokens_per_s']:,.0f} tokens/s{mfu}{skipped}  "
      f"{_duration(step_s * (self._train_steps - done))} left",
      flush=True,
    )
    if self._board:
      scalars = {
        "grad_norm": line["grad_norm"],
        "lr": line["lr"],
        "skipped": line["skipped"],
        "speed/tokens_per_s": timing["tokens_per_s"],
      }
      scalars |= {"loss": line["loss"]} if line["loss"] is not None else {}
      scalars |= {"speed/mfu": timing["mfu"]} if self._peak else {}
      for name, of in line["languages"].items():
        scalars |= {f"epochs/{name}": of["epochs"]} | ({f"loss/{name}": of["loss"]} if of["loss"] is not None else {})
      for name, value in scalars.items():
        self._board.add_scalar(name, value, done)

  def first_step(self, step: int, seconds: float, compiling: dict) -> None:
    """Says and writes how long the start took, to the end of the first step. seconds: of the process so far.

    compiling: {"compile_s", "programs", "from_cache"}, as compile_cache.so_far() gives it.
    """
    if self._timing is not None:
      self._timing.write({"step": step, "first_step_s": round(seconds, 3)} | compiling)
      print(
        f"first step after {seconds:.1f} s: compiling {compiling['compile_s']:.1f} s, {compiling['from_cache']} of "
        f"{compiling['programs']} programs from the cache",
        flush=True,
      )

  def held_out(self, step: int, sums: np.ndarray, weights: np.ndarray, bits_per_nat_token: np.ndarray) -> None:
    """Writes held-out losses per language. sums, weights: float64[G]; bits_per_nat_token: tokens / (bytes ln 2)."""
    self.held_out_at = step
    if self._lines is None:
      return
    losses = {name: float(s / w) for name, s, w in zip(self._languages, sums, weights) if w}
    bits = {name: losses[name] * float(b) for name, b in zip(self._languages, bits_per_nat_token) if name in losses}
    mean = math.fsum(losses.values()) / max(len(losses), 1)
    self._held_out.write(
      {
        "step": step,
        "loss": float(sums.sum() / max(weights.sum(), 1.0)),
        "mean_loss": mean,
        "languages": {name: {"loss": losses[name], "bits_per_byte": bits[name]} for name in losses},
      }
    )
    print(
      f"held-out at step {step}: loss {mean:.3f}, {math.fsum(bits.values()) / max(len(bits), 1):.3f} bits a byte "
      f"(mean of {len(losses)} languages)",
      flush=True,
    )
    if self._board:
      self._board.add_scalar("held_out/loss", mean, step)
      for name, loss in losses.items():
        self._board.add_scalar(f"held_out/{name}", loss, step)

  def restart_clock(self) -> None:
    """Leaves time spent outside training steps (evaluation, saving, the first compilation) out of tokens/s."""
    self._clock, self._clock_steps = time.perf_counter(), 0

  def close(self) -> None:
    for file in (self._lines, self._held_out, self._timing, self._board):
      if file is not None:
        file.close()
