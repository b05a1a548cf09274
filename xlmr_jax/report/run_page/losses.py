"""The sections about training and held-out loss. Each function returns HTML, or "" without data."""

import math

import numpy as np

from xlmr_jax.report.page.bars import Bar, bar_chart
from xlmr_jax.report.page.charts import Axis, Line, line_chart, thin_out
from xlmr_jax.report.page.markup import LANGUAGE_COLUMNS, Column, html_table
from xlmr_jax.report.page.words import NO_NUMBER, counted, language_name, listed, name_with_code, percent, short_number
from xlmr_jax.report.run_page.looks import NATS, UPDATES, colours_in_words, lines_of_languages, phase_marks
from xlmr_jax.report.run_page.numbers import Run


def losses_section(run: Run) -> str:
  """Training loss: of all tokens with its spread between log lines, and of each language."""
  curves, every = run.curves, run.record.config["log"]["every_steps"]
  if not len(curves.steps):
    return ""
  x, mean, low, high = thin_out(curves.steps, curves.loss)
  whole = Line("all languages", x, mean, 0, band=(low, high) if len(curves.steps) > len(x) else None)
  band = " The grey band spans the lines that were averaged for a point." if whole.band else ""
  text = line_chart(
    [*lines_of_languages(run, curves.languages, curves.steps, curves.language_loss), whole._replace(band=None)],
    UPDATES, Axis(f"training loss, {NATS}"), title="Training loss per language",
    caption=f"Each line of the log is a mean over {counted(every, 'update')}. {colours_in_words(run)}",
    marks=phase_marks(run),
  )  # fmt: skip
  beside = [
    line_chart([whole], UPDATES, Axis(f"training loss, {NATS}"), title="Training loss of all tokens", low=True,
               caption=f"Languages count by their masked tokens.{band}"),
    _rate_chart(run, curves.lr, "learning rate", "Learning rate", ""),
    _rate_chart(run, curves.grad_norm, "norm of the gradient, before clipping", "Gradient", "", log=True),
  ]  # fmt: skip
  if np.nansum(curves.skipped):
    total = int(np.nansum(curves.skipped))
    beside.append(
      _rate_chart(run, curves.skipped, "updates skipped per log line", "Bad steps", f"{counted(total, 'update')} in all.")
    )
  return text + f'<div class="charts">{"".join(beside)}</div>' + _recoveries(run)


def _rate_chart(run: Run, values: np.ndarray, axis: str, title: str, caption: str, log: bool = False) -> str:
  x, mean, low, high = thin_out(run.curves.steps, values)
  band = (low, high) if len(x) < len(values) else None
  y = Axis(axis, show=lambda value: f"{value:.4g}", log=log)
  return line_chart([Line(axis, x, mean, 0, band=band)], UPDATES, y, title=title, caption=caption, low=True)


def _recoveries(run: Run) -> str:
  rows = [[entry.at, entry.skipped, str(getattr(entry, "reason", ""))] for entry in run.recoveries]
  if not rows:
    return ""
  return "<h3>Going back to a checkpoint</h3>" + html_table(
    [Column("went back to step"), Column("batches left out"), Column("reason")], rows
  )


def held_out_section(run: Run) -> str:
  """Held-out bits per byte per language, where each language began and is, and the table."""
  held_out = run.held_out
  if not len(held_out.steps):
    return ""
  x, means, _, _ = thin_out(held_out.steps, held_out.mean_bits)
  mean = Line("mean of the languages", x, means, 0)
  text = line_chart(
    [*lines_of_languages(run, held_out.languages, held_out.steps, held_out.bits), mean],
    UPDATES, Axis("held-out loss, bits per byte of text"), title="Held-out loss per language",
    caption="Bits per byte of one language can be compared between vocabularies; those of different languages cannot, "
    "because a byte of text in one script says more than in another. " + colours_in_words(run),
    marks=phase_marks(run),
  )  # fmt: skip
  return text + _before_and_after(run) + _languages_table(run)


def _before_and_after(run: Run) -> str:
  """The two passes as they are. An older pass never stands for one in which a language has no number."""
  held_out = run.held_out
  if len(held_out.steps) < 2:
    return ""
  ends = {
    name: (float(held_out.bits[0, n]), float(held_out.bits[-1, n]))
    for n, name in enumerate(held_out.languages)
    if held_out.is_logged[n]
  }
  known = [value for pair in ends.values() for value in pair if math.isfinite(value)]
  if not known:
    return ""
  most = 1.02 * max(known) or 1.0
  in_order = sorted(ends.items(), key=lambda item: item[1][1] if math.isfinite(item[1][1]) else math.inf)
  bars = [_bar(name, first, last, most) for name, (first, last) in in_order]
  lost = [
    f" No number at the {which} pass: {listed([name_with_code(name) for name in names])}."
    for which, at in (("first", 0), ("last", -1))
    if (names := held_out.without_number(at))
  ]
  return bar_chart(
    bars, title="First and last held-out pass",
    caption=f"Steps {int(held_out.steps[0]):,} and {int(held_out.steps[-1]):,}; the lowest loss comes first.{''.join(lost)}",
    axis=f"held-out loss, bits per byte, from 0 to {short_number(most)}",
    legend=[("c1", "last pass (and its change)"), ("soft", "first pass")],
  )  # fmt: skip


def _bar(name: str, first: float, last: float, most: float) -> Bar:
  """The bar of a language; a pass without a number has no length and no mark. most: what the whole track stands for."""
  shown = [f"{value:.4f}" if math.isfinite(value) else NO_NUMBER for value in (first, last)]
  text = f"{last:.3f}" if math.isfinite(last) else NO_NUMBER
  if math.isfinite(first) and math.isfinite(last):
    text += f" ({last - first:+.3f})"
  return Bar(
    language_name(name), last / most if math.isfinite(last) else 0.0, text,
    f"{name_with_code(name)}: {shown[0]} at the first pass, {shown[1]} at the last", name,
    before=first / most if math.isfinite(first) else None,
  )  # fmt: skip


def _languages_table(run: Run) -> str:
  held_out, last = run.held_out, run.curves.last
  column_of = {name: number for number, name in enumerate(held_out.languages)}
  rows = []
  for name in run.by_size:
    loss = held_out.loss[:, column_of[name]] if name in column_of else np.array([np.nan])
    bits = held_out.bits[:, column_of[name]] if name in column_of else np.array([np.nan])
    is_known = np.isfinite(loss)
    lowest = int(held_out.steps[np.argmin(np.where(is_known, loss, np.inf))]) if is_known.any() else None
    values = last.get(name, {})
    rows.append([
      language_name(name), name, run.train_rows.get(name), values.get("rows"), values.get("epochs"),
      values.get("share"), values.get("share_wanted"), *map(float, loss[[0, -1]]), *map(float, bits[[0, -1]]), lowest,
    ])  # fmt: skip
  three = "{:.3f}".format
  columns = [
    *LANGUAGE_COLUMNS, Column("training rows"), Column("rows read"), Column("epochs", short_number),
    Column("share of rows read", percent), Column("wanted share", percent), Column("first loss", three, NATS),
    Column("last loss", three, NATS), Column("first bits per byte", three), Column("last bits per byte", three),
    Column("lowest loss at step"),
  ]  # fmt: skip
  return "<h3>Languages</h3>\n" + html_table(columns, rows, keys=run.by_size)
