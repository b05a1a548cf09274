"""The other sections of a run's page. Each function returns HTML, or "" without data."""

import html
import math
from typing import Any

import numpy as np

from xlmr_jax.files import flatten
from xlmr_jax.report.page.bars import Bar, Stack, bar_chart, stack_chart
from xlmr_jax.report.page.charts import Axis, Line, line_chart, thin_out
from xlmr_jax.report.page.markup import Column, folded, html_table, visible
from xlmr_jax.report.page.words import counted, language_name, name_with_code, percent, short_number
from xlmr_jax.report.run_page.looks import UPDATES
from xlmr_jax.report.run_page.numbers import Run, changed_keys
from xlmr_jax.run.alarms import KINDS
from xlmr_jax.run.goodput import PARTS
from xlmr_jax.run.metrics import duration
from xlmr_jax.run.workdir import RunRecord

_MOST_STARTS = 24
_SHOWN_ALARMS = 8


def sampling_section(run: Run) -> str:
  """Shares and epochs of the languages, wanted and realised."""
  last = {name: values for name, values in run.curves.last.items() if values.get("share") is not None}
  if not last:
    return ""
  names = [name for name in run.by_size if name in last]
  most = 1.02 * max(max(_value(last[name], "share"), _value(last[name], "share_wanted")) for name in names)
  shares = [
    Bar(language_name(name), last[name]["share"] / most, percent(last[name]["share"]),
        f"{name_with_code(name)}: {percent(last[name]['share'])} of the rows; "
        f"wanted {percent(_value(last[name], 'share_wanted'))}",
        name, mark=_value(last[name], "share_wanted") / most)
    for name in names
  ]  # fmt: skip
  config = run.record.config
  is_phased = config["phases"] or run.record.branch or run.phase_edges
  by = "the phases" if is_phased else f"alpha = {config['data']['alpha']:g}"
  text = bar_chart(
    shares, title="Shares of the languages",
    caption=f"Of all rows read so far, beside the share wanted by {by}; the largest language comes first.",
    axis=f"share of the rows read, from 0 to {percent(most)}",
    legend=[("c1", "share of the rows read"), ("c2", "wanted share")],
  )  # fmt: skip
  known = {name: _value(last[name], "epochs") for name in names if _value(last[name], "epochs") > 0}
  text += _planned_table(run)
  if not known:
    return text
  low, high = min(known.values()), max(known.values())
  bottom = 10.0 ** math.floor(math.log10(low) - 0.05)
  limit = float(run.record.config["alarms"]["max_epochs"])
  span = math.log(1.1 * max(high, limit if limit and high > limit / 2 else 0.0) / bottom)
  bars = [
    Bar(language_name(name), math.log(epochs / bottom) / span, f"{short_number(epochs)} ×",
        f"{name_with_code(name)}: each row was read {short_number(epochs)} times", name,
        mark=math.log(limit / bottom) / span if limit and high > limit / 2 else None)
    for name, epochs in sorted(known.items(), key=lambda item: -item[1])
  ]  # fmt: skip
  legend = [("c1", "epochs so far")]
  if bars[0].mark is not None:
    legend.append(("c2", f"config.alarms.max_epochs = {limit:g}"))
  return text + bar_chart(
    bars, title="Epochs of the languages", caption="How often the rows of a language have been read; the most read first.",
    axis=f"epochs, logarithmic scale from {short_number(bottom)} to {short_number(bottom * math.exp(span))}", legend=legend,
  )  # fmt: skip


def _planned_table(run: Run) -> str:
  """The epochs that the run planned, by phase."""
  if len(run.planned) < 2 or len({len(line) for line in run.planned}) > 1:
    return ""
  heads, *rows = run.planned
  columns = [Column(head.replace("_", " "), _count_or_epochs) for head in heads]
  cells = [[row[0], *map(_number_or_text, row[1:])] for row in rows]
  return folded("Epochs that the run planned, by phase", html_table(columns, cells, keys=[row[0] for row in rows]))


def _number_or_text(text: str) -> Any:
  """A cell of a table that sorts as a number where it is one."""
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return text


def _count_or_epochs(value: float) -> str:
  return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _value(values: dict[str, Any], key: str) -> float:
  return float(values.get(key) or 0.0)


def time_section(run: Run) -> str:
  """Goodput per start, tokens per second, and how long the starts took."""
  lines = [line for line in run.timing if isinstance(line.get("tokens_per_s"), (int, float))]
  text = _goodput(run)
  if lines:
    steps, speed = (np.array([line[key] for line in lines], np.float64) for key in ("step", "tokens_per_s"))
    x, mean, low, high = thin_out(steps, speed)
    band = (low, high) if len(x) < len(lines) else None
    text += '<div class="charts">' + line_chart(
      [Line("tokens per second", x, mean, 0, band=band)], UPDATES, Axis("tokens per second, all devices"), title="Speed",
      caption="Held-out passes, saves and compilation are left out.", low=True,
    )  # fmt: skip
    mfu = np.array([100 * line["mfu"] if isinstance(line.get("mfu"), (int, float)) else math.nan for line in lines])
    if np.isfinite(mfu).any():
      x, mean, _, _ = thin_out(steps, mfu)
      text += line_chart([Line("MFU", x, mean, 0)], UPDATES, Axis("model FLOPs utilisation, %"), title="MFU", low=True)
    text += "</div>"
  return text


def _goodput(run: Run) -> str:
  total = run.accounts.total()
  if total is None or not total.wall:
    return ""
  starts = run.accounts.starts[-_MOST_STARTS:]
  is_long = max(start.wall for start in starts) > 7200
  unit, short, seconds = ("hours", "h", 3600.0) if is_long else ("minutes", "min", 60.0)
  numbers = np.cumsum([start.starts for start in run.accounts.starts])[-_MOST_STARTS:]
  stacks = [
    Stack(f"{start.starts} older" if start.starts > 1 else f"start {number}",
          tuple(start.parts.get(name, 0.0) / seconds for name in PARTS), f"{short_number(start.wall / seconds)} {short}")
    for start, number in zip(starts, numbers)
  ]  # fmt: skip
  share = total.parts.get("step", 0.0) / total.wall
  rows = [[PARTS[name], total.parts.get(name, 0.0), total.parts.get(name, 0.0) / total.wall] for name in PARTS]
  return stack_chart(
    stacks, list(PARTS.values()), title="Where the time went",
    caption=f"{percent(share)} of {duration(total.wall)} went into steps that count, in {counted(total.starts, 'start')}.",
    axis=f"{unit} of each start of the run, from its beginning",
  ) + folded(
    "The parts in numbers",
    html_table([Column("part"), Column("seconds", short_number), Column("share", percent)], [row for row in rows if row[1]]),
  )  # fmt: skip


def machine_section(run: Run) -> str:
  """What the newest start printed about mesh, kernels and memory, and how long each start took to its first step."""
  starts = [line for line in run.timing if "first_step_s" in line]
  if not starts:
    return ""
  program = next((line["program"] for line in reversed(starts) if isinstance(line.get("program"), list)), [])
  text = "".join(f"<p>{visible(str(line))}</p>\n" for line in program)
  if not program:
    text = '<p class="note">This run was made before the log kept what a start prints about kernels and memory.</p>'
  rows = [[line["step"], line["first_step_s"], line.get("compile_s"), line.get("programs"), line.get("from_cache")]
          for line in starts[-50:]]  # fmt: skip
  columns = [Column("start at step"), Column("seconds to the first step", short_number),
             Column("of them compiling", short_number), Column("programs"), Column("from the cache")]  # fmt: skip
  return text + html_table(columns, rows)


def alarms_section(run: Run) -> str:
  """The alarms of the run, the newest first."""
  columns = [Column("step"), Column("alarm"), Column("language"), Column("in words")]

  def table(lines: list[dict[str, Any]]) -> str:
    rows = [[line["step"], KINDS.get(line["kind"], line["kind"]), name_with_code(line["language"]), line["text"]]
            for line in lines]  # fmt: skip
    return html_table(columns, rows, keys=[line["language"] for line in lines])

  newest = run.alarms[::-1]
  rest = newest[_SHOWN_ALARMS:]
  text = table(newest[:_SHOWN_ALARMS]) if newest else ""
  return text + (folded(f"{len(rest)} older", table(rest)) if rest else "")


def samples_section(run: Run) -> str:
  """Gaps in held-out text and what the model put there."""
  samples = [sample for sample in run.filled.get("samples", []) if isinstance(sample, dict) and "guesses" in sample]
  if not samples:
    return ""
  order = {name: number for number, name in enumerate(run.by_size)}
  samples.sort(key=lambda sample: order.get(sample["language"], len(order)))
  right = sum(sample["guesses"][0][0] == sample["truth"] for sample in samples)
  rows = []
  for sample in samples:
    guesses = ", ".join(f"<bdi>{visible(piece)}</bdi> {percent(share)}" for piece, share in sample["guesses"])
    is_right = sample["guesses"][0][0] == sample["truth"]
    name, truth = sample["language"], visible(sample["truth"])
    verdict = "which is right" if is_right else f"the text has <b><bdi>{truth}</bdi></b>"
    rows.append(
      f'<div class="sample" data-key="{html.escape(name)}"><div class="place">{html.escape(name_with_code(name))}</div>'
      f'<div class="text" dir="auto" lang="{html.escape(name.replace("_", "-"))}">{visible(sample["before"])}<b>[ ? ]</b>'
      f"{visible(sample['after'])}</div><div>it fills <b>{guesses}</b>; {verdict}</div></div>"
    )
  first, rest = "".join(rows[:8]), "".join(rows[8:])
  return (
    f"<p>The checkpoint of step {run.filled.get('step', 0):,} fills one hidden word of held-out text per language. Its "
    f"first guess is right in {right} of {len(samples)}; these are too few to compare languages by.</p>\n{first}"
    + (folded(f"{len(rows) - 8} more", rest) if rest else "")
  )


def config_section(run: Run) -> str:
  """The keys that are not as their default, and all of the record."""
  changed = [[key, shown(value), shown(default)] for key, value, default in changed_keys(run.record.config)]
  text = "<p>Keys of the config that are not as their default:</p>\n" + html_table(
    [Column("key"), Column("this run"), Column("default")], changed
  )
  if not changed:
    text = "<p>All keys of the config are as their default.</p>"
  from_flat = [[key, shown(value)] for key, value in sorted(flatten(run.record.config).items())]
  record = run.record
  facts = [["rows", record.rows or "none"], ["fingerprint of the rows", record.rows_fingerprint or "none"],
           ["tokens per row", str(record.seq_len)], ["entries of the vocabulary", f"{record.vocabulary_size:,}"],
           ["sha256 of the vocabulary", record.tokenizer_sha256], ["began from", _beginning(record)],
           *([f"version of {name}", str(version)] for name, version in sorted(record.versions.items()))]  # fmt: skip
  return (
    text
    + folded("All keys", html_table([Column("key"), Column("value")], from_flat))
    + folded("Rows, vocabulary and versions", html_table([Column("what"), Column("value")], facts))
  )


def _beginning(record: RunRecord) -> str:
  if record.branch:
    return f"{record.branch['run']}, step {int(record.branch['step']):,}"
  return record.imported or "random parameters"


def shown(value: Any) -> str:
  """A value of a config in words."""
  if isinstance(value, (list, tuple)):
    return ", ".join(map(str, value)) or "()"
  return '""' if value == "" else f"{value:,}" if type(value) is int else str(value)
