"""The pictures of the page, each an SVG inside an <img>, with its words."""

import base64
import contextlib
import html
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.report.corpus_page.numbers import ALPHAS, Corpus, Sampling, filter_reasons
from xlmr_jax.report.corpus_page.steps import REASON_COLORS, STEPS
from xlmr_jax.report.page.words import byte_size, counted, language_name, name_with_code, percent, tick_number
from xlmr_jax.report.pictures import AFTER, BEFORE, INK, STYLE

_LARGEST_LOSERS = 6  # languages with a colour of their own in the picture of what was removed

_BARS_IN_A_COLUMN = 35


class Picture(NamedTuple):
  """A drawn picture as an <img> and its words."""

  title: str
  caption: str
  image: str


def draw_pictures(corpus: Corpus, sampling: Sampling) -> list[Picture]:
  """All pictures for which there is something to draw."""
  pictures = []
  if corpus.bytes:
    pictures.append(_sizes_picture(corpus))
  if len(sampling.rows) > 1:
    pictures.append(_sampling_picture(sampling))
  if any(corpus.removed(step, "bytes") for step in STEPS):
    pictures.append(_removed_picture(corpus))
    if corpus.bytes and not corpus.options.get("rehydrate"):
      pictures.append(_lost_picture(corpus))
  return pictures


@contextlib.contextmanager
def _drawn(width: float, height: float, alt: str) -> Iterator[tuple[Any, list[str]]]:
  """Yields a new figure, sizes in inches, and a list that gets the <img> when the block ends."""
  import matplotlib
  from matplotlib.figure import Figure

  # Codes of languages are not formulas, whatever signs are in them. SVG's ids follow from a fixed salt instead of at random.
  style = {**STYLE, "text.parse_math": False, "svg.hashsalt": "xlmr_jax", "svg.fonttype": "path"}
  image: list[str] = []
  with matplotlib.rc_context(style):
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure, image
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
  data = base64.b64encode(file.getvalue()).decode("ascii")
  image.append(f'<img alt="{html.escape(alt)}" width="{width * 96:.0f}" src="data:image/svg+xml;base64,{data}">')


def _language_axis(axes: Any, codes: Sequence[str]) -> None:
  """Names of languages below upright bars or points."""
  axes.set_xticks(range(len(codes)), [language_name(code) for code in codes], rotation=90, fontsize=8)
  axes.set_xlim(-0.7, max(len(codes), 5) - 0.3)
  axes.tick_params(axis="x", length=0)
  axes.grid(axis="y", color="#e6e6e6")
  axes.set_axisbelow(True)


def _width(languages: int) -> float:
  return 1.5 + max(5.5, 0.135 * languages)


def _sizes_picture(corpus: Corpus) -> Picture:
  """Clean bytes per language on a logarithmic scale, with the bytes before cleaning behind them."""
  codes = [code for code, found in corpus.languages.items() if found["bytes"]]
  clean = [corpus.languages[code]["bytes"] for code in codes]
  before = [corpus.before(code) for code in codes]
  with _drawn(_width(len(codes)), 4.6, "Bytes of clean text per language") as (figure, image):
    axes = figure.subplots()
    known = [size for size in before if size is not None]
    if known:
      axes.bar(range(len(codes)), known, width=0.92, color="#d9d9d9", label="before cleaning")
    axes.bar(range(len(codes)), clean, width=0.62, color=AFTER, label="clean text")
    lowest = math.floor(math.log10(min(clean)) - 0.2)
    highest = 1.6 * max([*clean, *known])
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** (lowest if highest > 30 * 10**lowest else lowest - 1), highest)
    axes.yaxis.set_major_formatter(lambda value, _: byte_size(value, tick_number))
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylabel("bytes, logarithmic scale")
    _language_axis(axes, codes)
    axes.legend(loc="upper right", frameon=False, ncols=2)
  caption = f"{name_with_code(codes[0])} has {byte_size(clean[0])} of clean text. "
  if len(codes) > 1:
    caption = (
      f"The languages are sorted by size. {name_with_code(codes[0])} has the most clean text with {byte_size(clean[0])}, "
      f"{name_with_code(codes[-1])} the least with {byte_size(clean[-1])}. "
    )
  caption += "Each line of the grid is ten times the one below it, so compare the tops of the bars and not their lengths."
  if known:
    caption += " Where grey shows above the blue, cleaning removed text; a gap of one grid line means nine tenths of it."
  return Picture("Clean text per language", caption, image[0])


def _sampling_picture(sampling: Sampling) -> Picture:
  """The share of each language among the sampled rows, a line per alpha."""
  from matplotlib.ticker import LogLocator

  codes = list(sampling.rows)
  styles = {0.01: ("#e0a030", ":", "s"), 0.3: (AFTER, "-", "o"), 0.7: ("#7a5195", "--", "^"), 1.0: (INK, "-.", "D")}
  with _drawn(_width(len(codes)), 4.6, "Share of each language among the sampled rows") as (figure, image):
    axes = figure.subplots()
    for alpha in ALPHAS:
      color, line, marker = styles[alpha]
      shares = list(sampling.shares(alpha).values())
      label = f"alpha {alpha:g}" + {0.3: " (XLM-R)", 1.0: " (as the text lies)"}.get(alpha, "")
      axes.plot(range(len(codes)), shares, color=color, linestyle=line, marker=marker, markersize=3, label=label,
                linewidth=2.2 if alpha == 0.3 else 1.3)  # fmt: skip
    axes.set_yscale("log")
    all_shares = [share for alpha in ALPHAS for share in sampling.shares(alpha).values()]
    if max(all_shares) < 100 * min(all_shares):  # Powers of ten alone would be too few ticks.
      axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
      axes.set_ylim(0.7 * min(all_shares), 1.4 * max(all_shares))
    axes.yaxis.set_major_formatter(lambda value, _: f"{tick_number(100 * value)} %")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylabel("share of the sampled rows, logarithmic scale")
    _language_axis(axes, codes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=4)
  first, last = codes[0], codes[-1]
  caption = (
    "Training draws a language with probability proportional to its number of rows raised to the power alpha. With alpha 1 "
    f"it sees the text as it lies: {percent(sampling.shares(1.0)[first])} {language_name(first)} and "
    f"{percent(sampling.shares(1.0)[last])} {language_name(last)}. The smaller alpha is, the flatter is the curve: with "
    f"0.3, which XLM-R uses, they get {percent(sampling.shares(0.3)[first])} and {percent(sampling.shares(0.3)[last])}."
  )
  return Picture("How often training sees each language", caption, image[0])


def _removed_picture(corpus: Corpus) -> Picture:
  """What each step removed: bytes by language, documents by reason."""
  names = list(STEPS)
  total = Counter({code: sum(corpus.removed(step, "bytes", code) for step in STEPS) for code in corpus.steps})
  losers = [code for code in sorted(total, key=lambda c: (-total[c], c)) if total[code]][:_LARGEST_LOSERS]
  colors = dict(zip(losers, ("#1f6f8b", "#e0a030", "#d1495b", "#5f9e6e", "#7a5195", "#7fb3c8")))
  with _drawn(11.5, 3.9, "What each step removed, in bytes and in documents") as (figure, image):
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    ends = np.zeros(len(names))
    for code in losers:
      sizes = np.array([corpus.removed(step, "bytes", code) for step in names])
      left.barh(rows, sizes, left=ends, height=0.62, color=colors[code], label=language_name(code))
      ends += sizes
    all_bytes = np.array([corpus.removed(step, "bytes") for step in names])
    if (all_bytes > ends).any():
      left.barh(rows, all_bytes - ends, left=ends, height=0.62, color="#cfcfcf", label="all others")
    documents = np.array([corpus.removed(step, "documents") for step in names])
    others = np.array([0 if step == "filters" else n for step, n in zip(names, documents)])
    right.barh(rows, others, height=0.62, color="#4d4d4d", label="other steps: all documents")
    end, row = 0, names.index("filters")
    for reason, number in filter_reasons(corpus).items():
      right.barh(row, number, left=end, height=0.62, color=REASON_COLORS.get(reason, BEFORE), label=reason.replace("_", " "))
      end += number
    for row, step in enumerate(names):
      _write_beside(left, all_bytes[row], row, byte_size(int(all_bytes[row])))
      text = f"{documents[row]:,}"
      if paragraphs := corpus.removed(step, "paragraphs"):
        text += f", and {counted(paragraphs, 'paragraph')}"
      _write_beside(right, documents[row], row, text)
    left.set_yticks(rows, [STEPS[step].title for step in names])
    left.invert_yaxis()
    for axes, most, title in ((left, all_bytes.max(), "bytes, by language"), (right, documents.max(), "whole documents")):
      axes.set_xlim(0, 1.35 * max(most, 1))
      axes.tick_params(axis="y", length=0)
      axes.grid(axis="x", color="#e6e6e6")
      axes.set_axisbelow(True)
      axes.set_title(title, loc="left", fontsize=10)
      axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.12), ncols=4, frameon=False, fontsize=8, columnspacing=1.2)
    left.xaxis.set_major_locator(_few_ticks(4))
    left.xaxis.set_major_formatter(lambda value, _: byte_size(value, tick_number) if value else "0")
    right.xaxis.set_major_locator(_few_ticks(5, whole=True))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
  most = max(STEPS, key=lambda step: corpus.removed(step, "bytes"))
  caption = (
    "The steps are in the order in which they run. On the left is the text that each of them took away, coloured by the "
    "languages that lost most; on the right are the documents that went as a whole, those of the filters coloured by "
    f"reason. The step that took most bytes is “{STEPS[most].title}” with {byte_size(corpus.removed(most, 'bytes'))}."
  )
  return Picture("What each step removed", caption, image[0])


def _few_ticks(number: int, *, whole: bool = False) -> Any:
  from matplotlib.ticker import MaxNLocator

  return MaxNLocator(number, integer=whole)


def _write_beside(axes: Any, end: float, row: float, text: str) -> None:
  axes.annotate(text, (end, row), (5, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK)


def _lost_picture(corpus: Corpus) -> Picture:
  """The share of its bytes that each language lost, stacked by step."""
  codes = [code for code in corpus.languages if corpus.before(code)]
  columns = max(1, -(-len(codes) // _BARS_IN_A_COLUMN))
  per_column = max(1, -(-len(codes) // columns))
  lost = {code: sum(corpus.removed(step, "bytes", code) for step in STEPS) / (corpus.before(code) or 1) for code in codes}
  limit = 1.25 * max(*lost.values(), 0.004)
  used = [step for step in STEPS if any(corpus.removed(step, "bytes", code) for code in codes)]
  with _drawn(max(7.0, 4.2 * columns), 1.1 + 0.2 * per_column, "Share of its bytes that each language lost") as (
    figure,
    image,
  ):
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    for number, panel in enumerate(panels):
      part = codes[number * per_column : (number + 1) * per_column]
      rows = np.arange(len(part))
      ends = np.zeros(len(part))
      for step in used:
        shares = np.array([corpus.removed(step, "bytes", code) / (corpus.before(code) or 1) for code in part])
        panel.barh(rows, shares, left=ends, height=0.74, color=STEPS[step].color, label=STEPS[step].title)
        ends += shares
      for row, code in enumerate(part):
        panel.annotate(percent(lost[code]), (lost[code], row), (4, 0), textcoords="offset points", va="center", fontsize=7)
      panel.set_yticks(rows, [language_name(code) for code in part], fontsize=8)
      panel.set(xlim=(0, limit), ylim=(per_column - 0.4, -0.6))
      panel.tick_params(axis="y", length=0)
      panel.xaxis.set_major_locator(_few_ticks(4))
      panel.xaxis.set_major_formatter(lambda value, _: f"{tick_number(100 * value)} %")
      panel.grid(axis="x", color="#e6e6e6")
      panel.set_axisbelow(True)
    panels[columns // 2].set_xlabel("share of the language's bytes before cleaning")
    if used:
      figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(used), frameon=False, fontsize=9
      )
  worst = max(codes, key=lambda code: lost[code])
  if len(codes) > 1 and lost[worst]:
    caption = (
      f"The languages are sorted by size, the largest first. {name_with_code(worst)} lost the largest share, "
      f"{percent(lost[worst])}. Look at the languages whose bar is much longer than those of their neighbours: read their "
      "samples below before you train on them."
    )
  else:
    caption = "The length of a bar is the share of the language's bytes that cleaning took away, coloured by step."
  return Picture("How much of each language was removed", caption, image[0])
