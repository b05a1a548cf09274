"""Workdirs of runs and sweeps that were never trained: logs of any size, which look like those of real runs."""

import json
import math
from pathlib import Path

import numpy as np

from xlmr_jax.config import default_config
from xlmr_jax.corpus.languages import LANGUAGES
from xlmr_jax.evaluation.ledger import Entry
from xlmr_jax.files import write_json, write_sealed_json
from xlmr_jax.run import alarms
from xlmr_jax.run.goodput import PARTS
from xlmr_jax.run.workdir import RunRecord, Workdir


def codes(count: int) -> tuple[str, ...]:
  """So many codes of languages, English first."""
  rest = [code for code in LANGUAGES if code not in ("en", "sw")]
  return tuple(["en", "sw", *rest][:count])


def make_run(
  root: Path, *, languages: int = 3, lines: int = 40, passes: int = 8, scores: int = 6, seed: int = 0,
  every_steps: int = 100, finished: bool = True, changes: dict | None = None, low: float = 1.0, name_of: tuple = (),
) -> Workdir:  # fmt: skip
  """A run. low: the bits per byte that the largest language ends at; each later one ends a little higher."""
  workdir, names, rng = Workdir(root), name_of or codes(languages), np.random.default_rng(seed)
  workdir.evaluations.mkdir(parents=True)
  config = default_config()
  config.update_from_flattened_dict({"train_steps": lines * every_steps, "log.every_steps": every_steps, "seed": seed})
  config.stop.patience = 3
  config.update_from_flattened_dict(changes or {})
  RunRecord(config.to_dict(), 250_002, "ab" * 32, 512, "cd" * 32, names, "/nowhere/rows", {"jax": "0.10.2"}).write(workdir)
  counts = 10_000_000.0 / (1.0 + np.arange(len(names))) ** 1.5
  shares = counts**config.data.alpha / (counts**config.data.alpha).sum()
  end = 1.4 + rng.random(len(names)) + np.arange(len(names)) / len(names)
  speed_of = 4.0 + 6.0 * rng.random(len(names))

  def losses(progress: float) -> np.ndarray:
    return end + (9.0 - end) * np.exp(-speed_of * progress) + 0.8 * (1.0 - progress)

  state, found = alarms.new_state(), []
  with workdir.train_log.open("w") as train, workdir.timing_log.open("w") as timing:
    program = ["parameters: 278,295,186", "mesh: 256 x TPU v5 lite, data 256 x fsdp 1", "attention: splash; norms: pallas"]
    first = {"step": 0, "first_step_s": 80.2, "compile_s": 61.3, "programs": 4, "from_cache": 0, "program": program}
    timing.write(json.dumps(first) + "\n")
    for number in range(1, lines + 1):
      step = number * every_steps
      noisy = losses(number / lines) + rng.normal(0, 0.05, len(names)) / np.sqrt(shares * len(names))
      if number == 3 * lines // 4 and lines > 30:
        noisy[-1] += 4.0
      rows = np.round(shares * config.batch_rows * step).astype(int)
      values = {
        name: {"loss": round(float(noisy[i]), 6), "rows": int(rows[i]), "epochs": round(float(rows[i] / counts[i]), 4),
               "share": round(float(rows[i] / rows.sum()), 6), "share_wanted": round(float(shares[i]), 6)}
        for i, name in enumerate(names)
      }  # fmt: skip
      line = {"step": step, "loss": round(float((noisy * shares).sum()), 6), "grad_norm": float(np.exp(rng.normal(0, 0.3))),
              "lr": 4e-4 * (1 - number / lines), "skipped": 0, "masked_tokens": 600_000, "languages": values}  # fmt: skip
      train.write(json.dumps(line) + "\n")
      state, new = alarms.after_train(state, line, config.alarms) if lines <= 2000 else (state, [])
      found += new
      speed = 2.1e6 * float(np.exp(rng.normal(0, 0.02)))
      timing.write(json.dumps({"step": step, "step_s": 0.5, "tokens_per_s": speed, "mfu": speed / 3.5e6}) + "\n")
  with workdir.held_out_log.open("w") as file:
    for number in range(passes):
      progress = number / max(passes - 1, 1)
      loss = losses(progress)
      if progress > 0.6:
        loss[-1] += 1.5 * (progress - 0.6)
      bits = loss / end * low * (1.0 + 0.02 * np.arange(len(names))) + rng.normal(0, 0.004)
      languages_ = {name: {"loss": float(loss[i]), "bits_per_byte": float(bits[i])} for i, name in enumerate(names)}
      line = {"step": round(progress * lines) * every_steps, "loss": float((loss * shares).sum()),
              "mean_loss": float(loss.mean()), "languages": languages_}  # fmt: skip
      file.write(json.dumps(line) + "\n")
      state, new = alarms.after_held_out(state, line, config.alarms)
      found += new
  workdir.alarms_log.write_text("".join(json.dumps(alarm._asdict()) + "\n" for alarm in found))
  for number in range(1, scores + 1):
    step = round(number / scores * lines) * every_steps
    score = 0.75 * (1 - math.exp(-4 * number / scores)) - 0.03 * max(0, number - 0.7 * scores) / scores
    by_language = {name: {"accuracy": [score - 0.004 * i + rng.normal(0, 0.005)]} for i, name in enumerate(names[:15])}
    entry = Entry(step, None, {"xnli": by_language}, {"xnli": "accuracy"})
    entry.score = entry.score_of()
    entry.write(workdir)
  parts = dict(zip(PARTS, (5200.0, 40.0, 70.0, 61.0, 12.0, 90.0, 30.0, 0.0, 4.0)))
  starts = [{"parts": parts, "began": 0.0, "until": 1.0, "idle": 0.0, "starts": 1, "steps": 9, "steps_again": 0}] * 2
  write_sealed_json(workdir.goodput, {"highest": lines * every_steps, "starts": starts})
  samples = [{"language": name, "before": "Paris is the ", "after": " of France.", "truth": "capital",
              "guesses": [["capital", 0.9], ["heart", 0.05], ["<b>", 0.01]]} for name in names]  # fmt: skip
  write_json(workdir.filled_gaps, {"step": lines * every_steps, "samples": samples})
  if finished:
    write_json(workdir.result, {"step": lines * every_steps, "held_out_loss": 1.0})
    write_json(workdir.stop, {"step": lines * every_steps, "reason": "no gain above 0 in 3 evaluations"})
  return workdir


def make_sweep(
  root: Path, values: dict[str, list], *, x: str, series: str | None = None, y: str = "bits_per_byte", seeds: int = 3,
  scale: str = "category", groups: dict | None = None,
) -> Path:  # fmt: skip
  """A sweep with a run for each combination of values and each seed. Its bits per byte follow from the combination."""
  combinations = [{}]
  for key, choices in values.items():
    combinations = [{**before, key: choice} for before in combinations for choice in choices]
  runs = []
  for number, combination in enumerate(combinations):
    for seed in range(seeds):
      named = combination | {"seed": seed}
      name = ",".join(f"{key}={value}" for key, value in named.items())
      alpha = combination.get("alpha", 0.3)
      make_run(
        root / name, languages=7, lines=6, passes=3, scores=2, seed=seed, low=1.2 - 0.05 * number + 0.01 * seed,
        changes={"data.alpha": float(alpha), "seed": seed},
      )  # fmt: skip
      runs.append({"name": name, "values": named, "seed": seed, "changes": {"data.alpha": alpha, "seed": seed},
                   "rows": None, "settings": []})  # fmt: skip
  write_json(root / "sweep.json", {
    "name": "sweeps/made", "arg": "tiny", "version": "0", "title": "A made-up study", "x": x, "x_label": x, "x_scale": scale,
    "series": series, "y": y, "groups": {"high": ["en"], "low": ["sw"]} if groups is None else groups, "overrides": {},
    "runs": runs,
  })  # fmt: skip
  return root
