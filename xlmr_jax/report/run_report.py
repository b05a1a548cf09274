"""Writes run.html, one file that tells the story of a run. run_page/ says what is on it.

It is drawn from the logs, the ledger and the record of the workdir, and loads nothing from elsewhere.
"""

import math
import sys

from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import AnyPath, write_whole
from xlmr_jax.report.page.frame import Section, tiles, whole_page
from xlmr_jax.report.page.words import NO_NUMBER, counted, listed, name_with_code, percent, short_number
from xlmr_jax.report.run_page import losses, sections, transfer
from xlmr_jax.report.run_page.numbers import Run, read_run
from xlmr_jax.report.run_page.samples import fill_gaps, is_current
from xlmr_jax.run.metrics import duration
from xlmr_jax.run.workdir import Workdir


def write_run_report(workdir: Workdir, out: AnyPath | None = None, *, samples: bool = True) -> AnyPath:
  """Writes the page of a run to `out`, by default run.html in the workdir, and returns its path.

  samples: the newest checkpoint fills gaps in held-out text, unless it has before; where it cannot, the page has none and a
  line on stderr says why. Raises UserError: there is no run, or nothing in its logs yet.
  """
  run = read_run(workdir)
  if samples and not is_current(workdir, run.filled):
    try:
      run.filled = fill_gaps(workdir)
    except (UserError, OSError, RuntimeError) as error:  # RuntimeError: the accelerator belongs to the training.
      print(f"the page has no samples of gaps filled: {one_line(error)}", file=sys.stderr, flush=True)
  path = out or workdir.page
  write_whole(path, run_page(run).encode())
  return path


def run_page(run: Run) -> str:
  """The HTML of a run's page."""
  parts = [
    Section("alarms", "Alarms", sections.alarms_section(run)),
    Section("loss", "Training loss", losses.losses_section(run)),
    Section("held-out", "Held-out loss", losses.held_out_section(run)),
    Section("transfer", "Held-out against downstream", transfer.transfer_section(run)),
    Section("sampling", "Shares and epochs", sections.sampling_section(run)),
    Section("time", "Time and speed", sections.time_section(run)),
    Section("machine", "Kernels and memory", sections.machine_section(run)),
    Section("samples", "Gaps filled", sections.samples_section(run)),
    Section("config", "Config", sections.config_section(run)),
  ]
  names = sorted(run.by_size, key=name_with_code)
  choices = {name: name_with_code(name) for name in names} if len(names) > 1 else {}
  return whole_page(f"Run {run.name}", _overview(run), parts, choices)


def _overview(run: Run) -> str:
  """The numbers that one wants first."""
  config, held_out, done = run.record.config, run.held_out, run.steps_done
  if run.stop and run.result and "stopped_by" in run.result:  # A rule may have spoken after the last step.
    state = f"updates; stopped: {run.stop.reason}"
  elif run.result:
    state = "updates; finished"
  else:
    state = f"of {config['train_steps']:,} updates so far ({percent(done / config['train_steps'])})"
  pairs = len(set(run.by_size) & set(held_out.parallel))
  what = f"languages, and {counted(pairs, 'pair')} of them" if pairs else "languages"
  facts = [(f"{done:,}", state), (f"{len(run.by_size) - pairs:,}", what)]
  if len(held_out.steps):
    first, last = (f"{bits:.3f}" if math.isfinite(bits) else NO_NUMBER for bits in held_out.mean_bits[[0, -1]])
    mean = "the mean of the languages"
    if last == NO_NUMBER and (lost := held_out.without_number(-1)):
      mean = f"no mean, because the last pass has no number for {listed([name_with_code(name) for name in lost])}"
    facts.append((last, f"bits per byte held out, {mean}; {first} at the first pass"))
  if run.best_score:
    step, score = run.best_score
    by = " by the evaluator's rule" if run.has_other_rule else ""
    facts.append((f"{100 * score:.1f} %", f"best downstream score{by}, at step {step:,}"))
  if run.tokens_read:
    facts.append((_large(run.tokens_read), f"tokens read, in rows of {run.record.seq_len}"))
  total = run.accounts.total()
  if total and total.wall:
    share = total.parts.get("step", 0.0) / total.wall
    facts.append((percent(share), f"of {duration(total.wall)} went into steps that count"))
  facts.append((f"{len(run.alarms):,}", "alarm" if len(run.alarms) == 1 else "alarms"))
  return tiles(facts)


def _large(number: float) -> str:
  for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
    if number >= size:
      return f"{short_number(number / size)} {word}"
  return f"{number:,.0f}"
