"""corpus_report.html, one file that shows what `xlmr build_corpus` made: pictures, tables and samples of what was removed.

It is drawn from manifest.json and removed/STEP/LANG.jsonl alone. The same files give the same bytes, and the page loads
nothing from elsewhere.
"""

import base64
import contextlib
import hashlib
import html
import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.corpus import filters
from xlmr_jax.corpus.languages import LANGUAGES, UNKNOWN
from xlmr_jax.data.mixture import smoothed_shares
from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.errors import UserError
from xlmr_jax.files import read_json, whole_file
from xlmr_jax.report.pictures import AFTER, BEFORE, BOUND, INK, STYLE

ALPHAS = (0.01, 0.3, 0.7, 1.0)  # the exponents of Conneau et al. 2020, figure 5
# Conneau et al. 2020, section 4: 1.5 million updates with 8,192 rows each.
PLANNED_ROWS = 1_500_000 * 8192
# Only for a corpus without rows: nobody knows how many tokens it has before a tokenizer has read it. (Both are ours.)
ASSUMED_BYTES_PER_TOKEN, ASSUMED_ROW_TOKENS = 4.0, 512
SHOWN_SAMPLES = 8  # of each step and language; the files below removed/ hold more
_SHOWN_CONFUSIONS, _SHOWN_CLUSTERS = 40, 15
_LARGEST_LOSERS = 6  # languages with a colour of their own in the picture of what was removed
_SERBO_CROATIAN = ("bs", "hr", "sr")
_BARS_IN_A_COLUMN = 35


class Step(NamedTuple):
  """A step that removes text, for readers."""

  title: str
  what: str  # continues "This step removes ..."
  color: str


STEPS = {
  "language": Step(
    "Language", "text whose language could not be determined, or is none that the corpus may have", "#7a5195"
  ),
  "paragraphs": Step(
    "Repeated paragraphs", "paragraphs that the same language has had before, compared without case and punctuation", AFTER
  ),
  "filters": Step("Filters", "documents that do not look like running text", BOUND),
  "near_duplicates": Step("Near duplicates", "documents that are almost the same as an earlier one", "#e0a030"),
  "opt_outs": Step("Opt-outs", "documents whose address is listed in the opt-out file", "#5f9e6e"),
}
_REASONS = {
  "unknown": "the language could not be determined",
  "unsure": "the language is not sure",
  "not one of CC-100's": "a language that CC-100 does not have",
  "short": f"fewer than {filters.LEAST_LETTERS} letters",
  "signs": "too many punctuation marks and symbols",
  "digits": "too many digits",
  "repeated_phrases": "the same phrases again and again",
  "most_frequent_word": "one word is too large a part of it",
  "spelling": "letters follow each other as in noise",
  "order": "words follow each other at random, as in a list of keywords",
  "prior_low": "words too rare for this language",
  "prior_high": "words too common for this language",
  "repeated": "the language has had this paragraph before",
  "near duplicate": "almost the same as an earlier document",
  "opted out": "listed in the opt-out file",
}
_REASON_COLORS = {
  "short": "#b8b8b8", "signs": "#7a5195", "digits": "#b58fc7", "repeated_phrases": "#1f6f8b",
  "most_frequent_word": "#7fb3c8", "spelling": "#d1495b", "order": "#e0a030", "prior_low": "#5f9e6e",
  "prior_high": "#a8cfae",
}  # fmt: skip
_REPAIRS = {
  "invalid_utf8": "bytes that are not UTF-8, decoded with another encoding or replaced",
  "double_utf8": "UTF-8 that somebody had read as Latin-1 or Windows-1252",
  "c1": "control characters U+0080 to U+009F that stand for letters of another code page",
  "code_page": "letters that were decoded with the wrong code page",
  "zawgyi": "Burmese in the Zawgyi encoding, converted to Unicode",
  "zawgyi_kept": "Burmese that may be Zawgyi; nobody looked, because myanmartools is not installed",
  "controls": "control characters and invisible characters that were taken out",
  "nfc": "characters that were brought to their composed form (Unicode's NFC)",
}


def write_corpus_report(out: Path, rows: Path | None = None, *, planned_rows: int = PLANNED_ROWS) -> Path:
  """Writes out/corpus_report.html from what a finished build left in the folder `out`; returns its path.

  rows: a folder of `xlmr build_rows`, whose counts are then used for shares and epochs. planned_rows: how many rows a
  training takes in all, for the epochs.
  Raises UserError: the build is not finished, or the rows are not.
  """
  try:
    manifest = read_json(out / "manifest.json")
  except FileNotFoundError:
    raise UserError(f"{out / 'manifest.json'}: no manifest: an unfinished build; run `xlmr build_corpus` again") from None
  corpus = Corpus(manifest, out / "removed")
  sampling = Sampling.of_rows(read_manifest(rows), planned_rows) if rows else Sampling.of_bytes(corpus, planned_rows)
  page = _page(corpus, sampling)
  path = out / "corpus_report.html"
  with whole_file(path) as unfinished:
    unfinished.write_text(page, encoding="utf-8", newline="\n")
  return path


# --- what the page is made of ------------------------------------------------------------------------------------------


class Corpus:
  """The manifest of a build, and the samples beside it."""

  def __init__(self, manifest: Mapping[str, Any], removed: Path):
    self.manifest, self._removed = manifest, removed
    found = manifest["languages"]
    # The largest language comes first everywhere; the code decides between equals.
    self.languages: dict[str, dict[str, Any]] = {
      code: found[code] for code in sorted(found, key=lambda c: (-found[c]["bytes"], c))
    }
    self.steps: dict[str, dict[str, Any]] = manifest["steps"]
    self.source: dict[str, Any] = manifest["source"]
    self.options: dict[str, Any] = manifest["build"]["options"]

  @property
  def bytes(self) -> int:
    """Of clean text."""
    return sum(language["bytes"] for language in self.languages.values())

  @property
  def documents(self) -> int:
    """Of clean text."""
    return sum(language["documents"] for language in self.languages.values())

  def removed(self, step: str, key: str, code: str | None = None) -> int:
    """How many bytes, documents or paragraphs (key) a step removed, of one language or of all."""
    codes = self.steps if code is None else (code,)
    return sum(self.steps.get(one, {}).get(step, {}).get(key, 0) for one in codes)

  def before(self, code: str) -> int | None:
    """Bytes of a language before cleaning. None: unknown, because clean text repeats documents (--rehydrate)."""
    if self.options.get("rehydrate"):
      return None
    return self.languages.get(code, {}).get("bytes", 0) + sum(self.removed(step, "bytes", code) for step in STEPS)

  def by_bytes_removed(self, step: str) -> list[str]:
    """The languages that a step took something of, those that lost most bytes first."""
    return sorted(
      (code for code in self.steps if step in self.steps[code]), key=lambda c: (-self.removed(step, "bytes", c), c)
    )

  def samples(self, step: str, code: str) -> tuple[list[dict[str, str]], int]:
    """The samples of what a step removed of a language, and how many lines of the file are none. A file may be missing."""
    try:
      lines = (self._removed / step / f"{code}.jsonl").read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
      return [], 0
    samples, bad = [], 0
    for line in filter(None, lines):
      try:
        sample = json.loads(line)
        samples.append({key: str(sample[key]) for key in ("reason", "id", "text")})
      except (ValueError, KeyError, TypeError):
        bad += 1
    return samples, bad


class Sampling(NamedTuple):
  """How many rows of each language a training sees."""

  rows: dict[str, int]  # the largest language first, none empty
  planned_rows: int
  estimated: bool  # whether rows are only bytes, divided by an assumption
  row_tokens: int

  @classmethod
  def of_rows(cls, manifest: Mapping[str, Any], planned_rows: int) -> "Sampling":
    """From the manifest of a row store."""
    rows = {code: splits["train"]["rows"] for code, splits in manifest["languages"].items() if splits["train"]["rows"]}
    return cls(_largest_first(rows), planned_rows, False, manifest["seq_len"])

  @classmethod
  def of_bytes(cls, corpus: Corpus, planned_rows: int) -> "Sampling":
    """From bytes of clean text, with an assumption about the bytes of a token."""
    per_row = ASSUMED_BYTES_PER_TOKEN * ASSUMED_ROW_TOKENS
    rows = {code: max(1, round(found["bytes"] / per_row)) for code, found in corpus.languages.items() if found["bytes"]}
    return cls(_largest_first(rows), planned_rows, True, ASSUMED_ROW_TOKENS)

  def shares(self, alpha: float) -> dict[str, float]:
    """The share of each language among the sampled rows."""
    counts = np.array(list(self.rows.values()), np.int64)
    return dict(zip(self.rows, smoothed_shares(counts, alpha, list(self.rows)).tolist())) if self.rows else {}


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
  return {code: counts[code] for code in sorted(counts, key=lambda c: (-counts[c], c))}


# --- words and numbers -------------------------------------------------------------------------------------------------


def _name(code: str) -> str:
  """The English name of a language; the code itself where nobody knows the name."""
  return "unknown language" if code == UNKNOWN else LANGUAGES[code].name if code in LANGUAGES else code


def _named(code: str) -> str:
  """Name and code: "Swahili (sw)"."""
  return f"{_name(code)} ({code})" if _name(code) != code else code


def _count(number: int, noun: str) -> str:
  """1 document, 2,000 documents."""
  return f"{number:,} {noun if number == 1 else noun + 's'}"


def _digits(value: float) -> str:
  """Three significant digits, never an exponent: 0.00123, 12.3, 12,345."""
  rounded = float(f"{value:.3g}")
  if not rounded:
    return "0"
  return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def _percent(share: float) -> str:
  return "> 99.9 %" if 0.9995 <= share < 1 else f"{_digits(100 * share)} %"


def _size(number: float, digits: Callable[[float], str] = _digits) -> str:
  """Bytes in the unit that reads best, powers of 1,000: 4.01 MB."""
  if number < 1000:
    return _count(round(number), "byte")
  unit = ""
  for larger in ("kB", "MB", "GB", "TB", "PB"):
    if number >= 1000:
      number, unit = number / 1000, larger
  return f"{digits(number)} {unit}"


def _round(value: float) -> str:
  """A number at a tick of an axis, which has few digits: 0.1, 20, 3,000."""
  return f"{value:,.6g}"


def _visible(text: str) -> str:
  """Escaped text; what has no shape, such as a control character, is shown by its number."""
  shown = []
  for character in text:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs", "Cn"):
      shown.append(html.escape(character))
    else:
      shown.append(f'<span class="hidden">{ord(character):02X}</span>')
  return "".join(shown)


# --- pictures ----------------------------------------------------------------------------------------------------------


class Picture(NamedTuple):
  """A drawn picture as an <img> and its words."""

  title: str
  caption: str
  image: str


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


def _pictures(corpus: Corpus, sampling: Sampling) -> list[Picture]:
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


def _language_axis(axes: Any, codes: Sequence[str]) -> None:
  """Names of languages below upright bars or points."""
  axes.set_xticks(range(len(codes)), [_name(code) for code in codes], rotation=90, fontsize=8)
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
    axes.yaxis.set_major_formatter(lambda value, _: _size(value, _round))
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylabel("bytes, logarithmic scale")
    _language_axis(axes, codes)
    axes.legend(loc="upper right", frameon=False, ncols=2)
  caption = f"{_named(codes[0])} has {_size(clean[0])} of clean text. "
  if len(codes) > 1:
    caption = (
      f"The languages are sorted by size. {_named(codes[0])} has the most clean text with {_size(clean[0])}, "
      f"{_named(codes[-1])} the least with {_size(clean[-1])}. "
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
    axes.yaxis.set_major_formatter(lambda value, _: f"{_round(100 * value)} %")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylabel("share of the sampled rows, logarithmic scale")
    _language_axis(axes, codes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=4)
  first, last = codes[0], codes[-1]
  caption = (
    "Training draws a language with probability proportional to its number of rows raised to the power alpha. With alpha 1 "
    f"it sees the text as it lies: {_percent(sampling.shares(1.0)[first])} {_name(first)} and "
    f"{_percent(sampling.shares(1.0)[last])} {_name(last)}. The smaller alpha is, the flatter is the curve: with 0.3, which "
    f"XLM-R uses, they get {_percent(sampling.shares(0.3)[first])} and {_percent(sampling.shares(0.3)[last])}."
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
    places = np.arange(len(names))
    ends = np.zeros(len(names))
    for code in losers:
      sizes = np.array([corpus.removed(step, "bytes", code) for step in names])
      left.barh(places, sizes, left=ends, height=0.62, color=colors[code], label=_name(code))
      ends += sizes
    all_bytes = np.array([corpus.removed(step, "bytes") for step in names])
    if (all_bytes > ends).any():
      left.barh(places, all_bytes - ends, left=ends, height=0.62, color="#cfcfcf", label="all others")
    documents = np.array([corpus.removed(step, "documents") for step in names])
    others = np.array([0 if step == "filters" else n for step, n in zip(names, documents)])
    right.barh(places, others, height=0.62, color="#4d4d4d", label="other steps: all documents")
    end, row = 0, names.index("filters")
    for reason, number in _filter_reasons(corpus).items():
      right.barh(
        row, number, left=end, height=0.62, color=_REASON_COLORS.get(reason, BEFORE), label=reason.replace("_", " ")
      )
      end += number
    for place, step in enumerate(names):
      _write_beside(left, all_bytes[place], place, _size(int(all_bytes[place])))
      text = f"{documents[place]:,}"
      if paragraphs := corpus.removed(step, "paragraphs"):
        text += f", and {_count(paragraphs, 'paragraph')}"
      _write_beside(right, documents[place], place, text)
    left.set_yticks(places, [STEPS[step].title for step in names])
    left.invert_yaxis()
    for axes, most, title in ((left, all_bytes.max(), "bytes, by language"), (right, documents.max(), "whole documents")):
      axes.set_xlim(0, 1.35 * max(most, 1))
      axes.tick_params(axis="y", length=0)
      axes.grid(axis="x", color="#e6e6e6")
      axes.set_axisbelow(True)
      axes.set_title(title, loc="left", fontsize=10)
      axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.12), ncols=4, frameon=False, fontsize=8, columnspacing=1.2)
    left.xaxis.set_major_locator(_few_ticks(4))
    left.xaxis.set_major_formatter(lambda value, _: _size(value, _round) if value else "0")
    right.xaxis.set_major_locator(_few_ticks(5, whole=True))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
  most = max(STEPS, key=lambda step: corpus.removed(step, "bytes"))
  caption = (
    "The steps are in the order in which they run. On the left is the text that each of them took away, coloured by the "
    "languages that lost most; on the right are the documents that went as a whole, those of the filters coloured by "
    f"reason. The step that took most bytes is “{STEPS[most].title}” with {_size(corpus.removed(most, 'bytes'))}."
  )
  return Picture("What each step removed", caption, image[0])


def _filter_reasons(corpus: Corpus) -> dict[str, int]:
  """Documents that the filters refused, by reason, in the order of the filters."""
  found: Counter[str] = Counter()
  for steps in corpus.steps.values():
    found.update(steps.get("filters", {}).get("reasons", {}))
  known = [reason for reason in filters.REASONS if found[reason]]
  return {reason: found[reason] for reason in (*known, *sorted(found.keys() - set(filters.REASONS)))}


def _few_ticks(number: int, *, whole: bool = False) -> Any:
  from matplotlib.ticker import MaxNLocator

  return MaxNLocator(number, integer=whole)


def _write_beside(axes: Any, end: float, place: float, text: str) -> None:
  axes.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK)


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
      places = np.arange(len(part))
      ends = np.zeros(len(part))
      for step in used:
        shares = np.array([corpus.removed(step, "bytes", code) / (corpus.before(code) or 1) for code in part])
        panel.barh(places, shares, left=ends, height=0.74, color=STEPS[step].color, label=STEPS[step].title)
        ends += shares
      for place, code in enumerate(part):
        panel.annotate(
          _percent(lost[code]), (lost[code], place), (4, 0), textcoords="offset points", va="center", fontsize=7
        )
      panel.set_yticks(places, [_name(code) for code in part], fontsize=8)
      panel.set(xlim=(0, limit), ylim=(per_column - 0.4, -0.6))
      panel.tick_params(axis="y", length=0)
      panel.xaxis.set_major_locator(_few_ticks(4))
      panel.xaxis.set_major_formatter(lambda value, _: f"{_round(100 * value)} %")
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
      f"The languages are sorted by size, the largest first. {_named(worst)} lost the largest share, "
      f"{_percent(lost[worst])}. Look at the languages whose bar is much longer than those of their neighbours: read their "
      "samples below before you train on them."
    )
  else:
    caption = "The length of a bar is the share of the language's bytes that cleaning took away, coloured by step."
  return Picture("How much of each language was removed", caption, image[0])


# --- tables ------------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
  """A column of a table. show: how a number of it is written."""

  title: str
  show: Callable[[Any], str] = lambda value: f"{value:,}"
  hint: str = ""


def _table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> str:
  """A table that sorts when its headings are pressed. Cells: text, numbers, or None for what is not known."""
  rows = list(rows)
  parts = ['<div class="wide"><table class="sortable"><thead><tr>']
  for place, column in enumerate(columns):
    hint = f' title="{html.escape(column.hint)}"' if column.hint else ""
    kind = "" if any(isinstance(row[place], str) for row in rows) or not rows else ' class="number"'
    parts.append(f'<th scope="col"{kind}{hint}><span>{html.escape(column.title)}</span></th>')
  parts.append("</tr></thead><tbody>\n")
  for row in rows:
    parts.append("<tr>")
    for column, value in zip(columns, row, strict=True):
      if value is None:
        parts.append('<td class="number" data-value="">–</td>')
      elif isinstance(value, str):
        parts.append(f"<td>{_visible(value)}</td>")
      else:
        parts.append(f'<td class="number" data-value="{value!r}">{html.escape(column.show(value))}</td>')
    parts.append("</tr>\n")
  parts.append("</tbody></table></div>\n")
  return "".join(parts)


_LANGUAGE_COLUMNS = (Column("language"), Column("code"))


def _languages_table(corpus: Corpus, sampling: Sampling) -> str:
  """Size by language."""
  rows_title = "rows, estimated" if sampling.estimated else "rows"
  columns = [*_LANGUAGE_COLUMNS, Column("clean bytes"), Column("share of bytes", _percent), Column("documents"),
             Column("paragraphs"), Column("bytes per document", lambda v: f"{v:,.0f}"), Column(rows_title),
             Column("bytes before"), Column("kept", _percent, "clean bytes as a share of the bytes before")]  # fmt: skip
  total = max(corpus.bytes, 1)
  rows = []
  for code, found in corpus.languages.items():
    before = corpus.before(code)
    rows.append([
      _name(code), code, found["bytes"], found["bytes"] / total, found["documents"], found["paragraphs"],
      found["bytes"] / max(found["documents"], 1), sampling.rows.get(code), before,
      found["bytes"] / before if before else None,
    ])  # fmt: skip
  text = (
    "<p>Bytes are those of the UTF-8 text. A paragraph is one line of a document. “Bytes before” is the repaired text that "
    "was found to be in this language: the clean text and everything that the steps below removed.</p>\n"
  )
  if corpus.options.get("rehydrate"):
    text += (
      "<p>This build repeats documents that had near duplicates (<code>--rehydrate</code>). So the clean bytes count these "
      "documents several times, and the bytes before cleaning are not known.</p>\n"
    )
  return text + _rows_note(corpus, sampling) + _table(columns, rows)


def _rows_note(corpus: Corpus, sampling: Sampling) -> str:
  if sampling.estimated:
    return (
      "<p>How many rows a corpus has is known only once a tokenizer has read it. <strong>The rows here are an "
      f"estimate</strong>: it assumes {ASSUMED_BYTES_PER_TOKEN:g} bytes of text per token, for every language alike, and "
      f"rows of {ASSUMED_ROW_TOKENS} tokens. Scripts whose letters take three bytes have more bytes per token, so that they "
      "really have fewer rows than this says.</p>\n"
    )
  text = f"<p>Rows are training rows of {sampling.row_tokens:,} tokens, counted by the manifest of the rows.</p>\n"
  for codes, what in (
    ([code for code in corpus.languages if code not in sampling.rows], "has no training rows"),
    ([code for code in sampling.rows if code not in corpus.languages], "has training rows, but no text in this corpus"),
  ):
    if codes:
      listed = "; ".join(html.escape(_named(code)) for code in codes)
      text += f'<p class="warning">{listed}: {what if len(codes) == 1 else what.replace("has", "have", 1)}.</p>\n'
  return text


def _sampling_table(sampling: Sampling) -> str:
  """Shares and epochs by language."""
  shares = {alpha: sampling.shares(alpha) for alpha in ALPHAS}
  columns = [*_LANGUAGE_COLUMNS, Column("rows, estimated" if sampling.estimated else "rows"),
             *(Column(f"share at alpha\u00a0{alpha:g}", _percent) for alpha in ALPHAS),
             *(Column(f"epochs at alpha\u00a0{alpha:g}", _digits) for alpha in ALPHAS)]  # fmt: skip
  rows = [
    [
      _name(code), code, count, *(shares[alpha][code] for alpha in ALPHAS),
      *(shares[alpha][code] * sampling.planned_rows / count for alpha in ALPHAS),
    ] for code, count in sampling.rows.items()
  ]  # fmt: skip
  planned = f"{sampling.planned_rows:,} rows"
  if sampling.planned_rows == PLANNED_ROWS:
    planned += ", the 1,500,000 updates with 8,192 rows each of the XLM-R paper"
  assumed = ""
  if sampling.estimated:
    assumed = (
      f" The rows are an estimate from bytes, which assumes {ASSUMED_BYTES_PER_TOKEN:g} bytes per token and "
      f"{ASSUMED_ROW_TOKENS} tokens per row; so the shares are shares of bytes, and the epochs are an estimate too."
    )
  return (
    "<p>A language with n rows is drawn with a probability proportional to n to the power alpha (Conneau et al. 2020, "
    "section 3). An epoch is one pass over all rows of a language: 20 epochs mean that training sees each of its rows 20 "
    f"times. The epochs are those of a training with {planned}.{assumed}</p>\n{_table(columns, rows)}"
  )


def _removed_tables(corpus: Corpus) -> str:
  """Counts by step, the reasons of the filters, and shares by language and step."""
  by_step = _table(
    [Column("step"), Column("removes"), Column("bytes"), Column("whole documents"), Column("single paragraphs")],
    [[step.title, step.what, *(corpus.removed(name, key) for key in ("bytes", "documents", "paragraphs"))]
     for name, step in STEPS.items()],
  )  # fmt: skip
  reasons = _filter_reasons(corpus)
  total = sum(reasons.values())
  by_reason = _table(
    [Column("reason"), Column("what it means"), Column("documents"), Column("share of the filters' documents", _percent)],
    [[reason.replace("_", " "), _REASONS.get(reason, ""), n, n / max(total, 1)] for reason, n in reasons.items()],
  )
  codes = [*corpus.languages, *sorted(corpus.steps.keys() - corpus.languages.keys())]
  rows = []
  for code in codes:
    before, found = corpus.before(code), corpus.languages.get(code)
    lost = [corpus.removed(step, "bytes", code) for step in STEPS]
    if not found and not any(lost):
      continue
    shares = [size / before if before else None for size in (*lost, sum(lost))]
    kept = found["bytes"] if found else 0
    rows.append([_name(code), code, before, *shares, kept, sum(corpus.removed(step, "documents", code) for step in STEPS)])
  columns = [*_LANGUAGE_COLUMNS, Column("bytes before"), *(Column(f"{step.title}", _percent) for step in STEPS.values()),
             Column("all steps", _percent), Column("clean bytes"), Column("documents removed")]  # fmt: skip
  text = f"<h3>By step</h3>\n{by_step}"
  if reasons:
    text += f"<h3>Filters by reason</h3>\n{by_reason}"
  return text + (
    "<h3>By language</h3>\n<p>Each share is of the bytes that the language had before cleaning. A language without clean "
    f"bytes is one that the corpus does not have, or whose text was removed as a whole.</p>\n{_table(columns, rows)}"
  )


def _limits_table(corpus: Corpus) -> str:
  """What is usual in each language, and the limit that follows."""
  learnt: Counter[str] = Counter()
  rows = []
  for code, found in corpus.languages.items():
    limits = found.get("limits") or {}
    sample, features = limits.get("sample", {}), limits.get("features", {})
    cells: list[Any] = [_name(code), code, sample.get("documents"), sample.get("words")]
    for name, floor in filters.FLOORS.items():
      limit = features.get(name)
      cells.append(limit)
      learnt[name] += limit is not None and limit > floor
    for name in ("spelling", "order"):
      usual = limits.get("scores", {}).get(name)
      cells.append(_median_and_spread(usual["median"], usual["spread"]) if usual else None)
      cells.append(_median_and_spread(usual["spoilt"], usual["spoilt_spread"]) if usual else None)
      cells.append(_safe_from(name, usual) if usual else None)
    usual = limits.get("scores", {}).get("prior")
    reach = filters.PRIOR_SPREADS * max(usual["spread"], filters.LEAST_PRIOR_SPREAD) if usual else 0.0
    cells.append(_median_and_spread(usual["median"], usual["spread"]) if usual else None)
    cells += [usual["median"] - reach, usual["median"] + reach] if usual else [None, None]
    rows.append(cells)
  plain = {"signs": "punctuation and symbols", "digits": "digits", "repeated_phrases": "words in repeated phrases",
           "most_frequent_word": "the most frequent word"}  # fmt: skip
  score = "{:.2f}".format
  columns = [*_LANGUAGE_COLUMNS, Column("documents looked at"), Column("words looked at"),
             *(Column(f"{plain.get(name, name)}, at most", _percent) for name in filters.FLOORS)]  # fmt: skip
  for title, spoilt in (("spelling", "noise"), ("order", "random order")):
    columns += [Column(f"{title}: usual"), Column(f"{title}: with {spoilt}"), Column(f"{title}: safe from", score)]
  columns += [Column("prior: usual"), Column("prior: safe from", score), Column("prior: safe up to", score)]
  floors = ", ".join(
    f"{_percent(floor)} for {plain.get(name, name)} ({_count(learnt[name], 'language')} learnt a higher limit)"
    for name, floor in filters.FLOORS.items()
  )
  return f"""<p>The filters have no table of numbers by language. They look at a sample of each language and refuse what
lies far outside what is usual there.</p>
<ul>
<li>A document needs at least {filters.LEAST_LETTERS} letters; a letter of a script without spaces counts as three.</li>
<li>Four shares have an upper limit. It is the median of the language plus {filters.SPREADS:g} times the usual spread, but
never below a floor that ordinary text stays under. The floors are {html.escape(floors)}.</li>
<li><em>Spelling</em> is how well each letter fits the two before it (the mean logarithm of its probability). <em>Order</em>
is how much better neighbouring words fit together than words far apart. Both are measured on text of the sample that is not
spoilt (“usual”), and on the same text spoilt on purpose, with wrong letters (“noise”) or with its words in random order. A
document is refused if its score is far likelier for spoilt text than for text. A document whose score is at least that of
“safe from” is never refused by it. Whether one below is depends on its length too, because chance has more room in a short
document. Where “usual” and spoilt text are close together, the score tells too little and refuses nothing.</li>
<li><em>Prior</em> is how common the words of a document are (the mean logarithm of the probability of their classes). Within
{filters.PRIOR_SPREADS:g} spreads of the median on either side, no document is refused by it.</li>
<li>A dash means that the sample was too small to say what is usual; then this score refuses nothing.</li>
</ul>
<p>“a ± b” stands for a median of a, and a spread of b between documents.</p>
{_table(columns, rows)}"""


def _median_and_spread(median: float, spread: float) -> str:
  return f"{median:.2f}\u00a0±\u00a0{spread:.2f}"  # Its parts stay on one line.


def _safe_from(name: str, usual: Mapping[str, float]) -> float:
  """The score from which on the filters refuse no document because of it, whatever its length."""
  return min((usual["median"] + usual["spoilt"]) / 2, usual["median"] - filters.LEAST_SPREADS[name] * usual["spread"])


_CLUSTER_BINS = (1, 2, 3, 4, 6, 11, 21, 51, 101, 1001, 10001)


def _clusters_section(corpus: Corpus) -> str:
  """A histogram of the sizes of clusters, and the languages with the most near duplicates."""
  clusters, documents = Counter(), Counter()
  rows = []
  for code, found in corpus.languages.items():
    sizes = {int(size): number for size, number in found.get("clusters", {}).items()}
    for size, number in sizes.items():
      first = max(least for least in _CLUSTER_BINS if least <= size)
      clusters[first] += number
      documents[first] += size * number
    if several := {size: number for size, number in sizes.items() if size > 1}:
      alike = sum(size * number for size, number in several.items())
      all_documents = sum(size * number for size, number in sizes.items())
      rows.append([_name(code), code, sum(several.values()), alike, alike / all_documents, max(several)])
  if not clusters:
    return ""
  ends = [least - 1 for least in _CLUSTER_BINS[1:]]
  titles = {a: f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in zip(_CLUSTER_BINS, ends)}
  titles |= {1: "1 (no near duplicate)", _CLUSTER_BINS[-1]: f"{_CLUSTER_BINS[-1]:,} or more"}
  total = sum(documents.values())
  histogram = _table(
    [Column("documents in a cluster"), Column("clusters"), Column("documents in these clusters"),
     Column("share of the documents", _percent)],
    [[titles[least], clusters[least], documents[least], documents[least] / max(total, 1)]
     for least in _CLUSTER_BINS if clusters[least]],
  )  # fmt: skip
  rows.sort(key=lambda row: (-row[3], row[1]))
  text = (
    "<p>Documents that are almost the same form a cluster, of which the corpus keeps the first document. This table counts "
    f"the documents that the filters had left, before all but the first were removed.</p>\n{histogram}"
  )
  if not rows:
    return text
  columns = [*_LANGUAGE_COLUMNS, Column("clusters of two or more"), Column("documents in them"),
             Column("share of the language's documents", _percent), Column("largest cluster")]  # fmt: skip
  title = "Languages with near duplicates"
  if len(rows) > _SHOWN_CLUSTERS:
    title += f", the {_SHOWN_CLUSTERS} with the most of {len(rows)}"
  return f"{text}<h3>{title}</h3>\n{_table(columns, rows[:_SHOWN_CLUSTERS])}"


def _confusion_section(corpus: Corpus) -> str:
  """What text with a known language was found to be. "": the source had no labels."""
  confusion: dict[str, dict[str, int]] = corpus.manifest.get("confusion") or {}
  totals = {label: sum(found.values()) for label, found in confusion.items()}
  labels = sorted((label for label in confusion if totals[label]), key=lambda c: (-totals[c], c))
  if not labels:
    return ""
  wrong = [(size, label, found) for label in labels for found, size in confusion[label].items() if found != label and size]
  wrong.sort(key=lambda entry: (-entry[0], *entry[1:]))
  right = {label: confusion[label].get(label, 0) / totals[label] for label in labels}
  as_one = {
    label: sum(confusion[label].get(code, 0) for code in (_SERBO_CROATIAN if label in _SERBO_CROATIAN else (label,)))
    / totals[label]
    for label in labels
  }
  all_bytes = sum(totals.values())
  text = (
    "<p>The source said which language its text is in. The build did not believe it, but identified the language itself; "
    f"this compares the two. {_percent(sum(right[c] * totals[c] for c in labels) / all_bytes)} of the bytes kept their "
    f"label; the mean over languages is {_percent(sum(right.values()) / len(labels))}."
  )
  if any(label in _SERBO_CROATIAN for label in labels):
    text += (
      " Bosnian, Croatian and Serbian are so close that they are often counted as one; then these are "
      f"{_percent(sum(as_one[c] * totals[c] for c in labels) / all_bytes)} and "
      f"{_percent(sum(as_one.values()) / len(labels))}."
    )
  text += "</p>\n"
  if wrong:
    title = "The largest confusions" + (
      f" ({_SHOWN_CONFUSIONS} of {len(wrong):,})" if len(wrong) > _SHOWN_CONFUSIONS else ""
    )
    text += f"<h3>{title}</h3>\n" + _table(
      [Column("label"), Column("found to be"), Column("bytes"), Column("share of the label's bytes", _percent)],
      [[_named(label), _named(found), size, size / totals[label]] for size, label, found in wrong[:_SHOWN_CONFUSIONS]],
    )
  return f"{text}<h3>Text that kept its label</h3>\n" + _table(
    [*_LANGUAGE_COLUMNS, Column("bytes with this label"), Column("kept it", _percent), Column("most often taken for")],
    [[_name(label), label, totals[label], right[label], _taken_for(confusion[label], label)] for label in labels],
  )


def _taken_for(found: Mapping[str, int], label: str) -> str | None:
  others = {code: size for code, size in found.items() if code != label and size}
  return _named(min(others, key=lambda code: (-others[code], code))) if others else None


# --- damage, repairs and samples ---------------------------------------------------------------------------------------


def _damage_section(corpus: Corpus) -> str:
  damaged, damages = corpus.source.get("damaged", 0), corpus.source.get("damages", [])
  if not damaged:
    return "<p>Everything in the source could be read.</p>\n"
  text = f"<p>{_count(damaged, 'place')} in the source could not be read; reading went on after each where that was safe."
  if len(damages) < damaged:
    text += f" The first {len(damages):,} are listed."
  return (
    text
    + "</p>\n"
    + _table([Column("file and place"), Column("what is wrong")], [list(map(str, entry[:2])) for entry in damages])
  )


def _repair_section(corpus: Corpus) -> str:
  """Counts of repairs, and samples before and after."""
  repaired = corpus.source.get("repaired_documents", 0)
  text = f"<p>{_count(repaired, 'document')} of {corpus.source['documents']:,} came out of the repair changed.</p>\n"
  if kinds := {kind: number for kind, number in corpus.source.get("repaired", {}).items() if number}:
    text += _table(
      [Column("repair"), Column("what it means"), Column("characters")],
      [[kind.replace("_", " "), _REPAIRS.get(kind, ""), number] for kind, number in kinds.items()],
    )
  groups = []
  for code in sorted((code for code in corpus.steps if "repair" in corpus.steps[code]), key=_named):
    samples, bad = corpus.samples("repair", code)
    if samples or bad:
      shown = "".join(_before_and_after(code, sample) for sample in samples[:SHOWN_SAMPLES])
      groups.append(_folded(f"<b>{html.escape(_named(code))}</b>", _more(samples, bad, "repair", code) + shown))
  if groups:
    text += (
      "<h3>Before and after</h3>\n<p>Each sample is the first line of a document that the repair changed. A number in a red "
      f"box is a character without a shape, in hexadecimal.</p>\n{''.join(groups)}"
    )
  return text


def _before_and_after(code: str, sample: Mapping[str, str]) -> str:
  before, _, after = sample["text"].partition("\n-> ")
  alike = unicodedata.normalize("NFC", before) == unicodedata.normalize("NFC", after)
  note = " (both look alike: only how the letters are composed of characters differs)" if alike else ""
  return (
    f'<div class="sample"><div class="place">{_visible(sample["id"])}{note}</div><div class="pair">'
    f'<span class="mark">before</span>{_text(code, before)}<span class="mark">after</span>{_text(code, after)}</div></div>\n'
  )


def _text(code: str, text: str) -> str:
  """Text of a sample, in its own direction and, where the language is known, in its own letter shapes."""
  tag = code.replace("_rom", "-Latn").replace("_zaw", "").replace("_", "-")
  language = f' lang="{tag}"' if code in LANGUAGES else ""
  return f'<div class="text" dir="auto"{language}>{_visible(text)}</div>'


def _samples_section(corpus: Corpus) -> str:
  """Samples of what each step removed, folded by step and language."""
  parts = []
  for name, step in STEPS.items():
    groups = []
    for code in corpus.by_bytes_removed(name):
      samples, bad = corpus.samples(name, code)
      counts = corpus.steps[code][name]
      reasons = counts["reasons"]
      listed = "; ".join(f"{_meaning(reason)}: {number:,}" for reason, number in reasons.items())
      if len(reasons) == 1:
        listed = _meaning(next(iter(reasons)))
      amounts = [_count(counts["documents"], "document")] if counts["documents"] else []
      amounts += [_count(counts["paragraphs"], "paragraph")] if counts["paragraphs"] else []
      text = f"{' and '.join(amounts)}, {_count(counts['bytes'], 'byte')} ({listed})"
      shown = "".join(
        _sample(code, sample, _meaning(sample["reason"]) if len(reasons) > 1 else "")
        for sample in _to_read(samples)[:SHOWN_SAMPLES]
      )
      summary = f"<b>{html.escape(_named(code))}</b>: {html.escape(text)}"
      groups.append(_folded(summary, _more(samples, bad, name, code) + shown))
    if groups:
      amount = f"{_size(corpus.removed(name, 'bytes'))} in {_count(len(groups), 'language')}"
      inside = f"<p>This step removes {html.escape(step.what)}.</p>\n{''.join(groups)}"
      parts.append(_folded(f"<b>{html.escape(step.title)}</b>: {amount}", inside, "step"))
  if not parts:
    return "<p>Nothing was removed.</p>\n"
  return (
    "<p>Open a step and a language to read what was removed, and judge whether it should have been. The samples are chosen "
    "by a hash of their text, so nobody picked them; where a step has several reasons, each is shown. On paper only those "
    f"appear that are open.</p>\n{''.join(parts)}"
  )


def _to_read(samples: Sequence[dict[str, str]]) -> list[dict[str, str]]:
  """The samples in another order: the first of each reason, then the second of each; repeated texts come last."""
  of_reason: Counter[str] = Counter()
  of_text: Counter[str] = Counter()
  ranks = []
  for sample in samples:
    ranks.append((of_text[sample["text"]], of_reason[sample["reason"]]))
    of_text[sample["text"]] += 1
    of_reason[sample["reason"]] += not ranks[-1][0]
  return [sample for _, sample in sorted(zip(ranks, samples), key=lambda pair: pair[0])]


def _sample(code: str, sample: Mapping[str, str], reason: str) -> str:
  """A sample with the place that it comes from. reason: why it was removed, "" if the reader has just been told."""
  shown = f'<span class="reason">{html.escape(reason)}</span> ' if reason else ""
  return f'<div class="sample"><div class="place">{shown}{_visible(sample["id"])}</div>{_text(code, sample["text"])}</div>\n'


def _meaning(reason: str) -> str:
  return _REASONS.get(reason, reason.replace("_", " "))


def _more(samples: Sequence[Any], bad: int, step: str, code: str) -> str:
  """Where the other samples of a step and language are."""
  path = f"<code>removed/{html.escape(step)}/{html.escape(code)}.jsonl</code>"
  text = "There are no samples of this." if not samples else ""
  if len(samples) > SHOWN_SAMPLES:
    text = f"{SHOWN_SAMPLES} of {len(samples)} samples; the others are in {path}."
  if bad:
    text += f" {_count(bad, 'line')} of {path} could not be read."
  return f"<p>{text}</p>\n" if text else ""


def _folded(summary: str, inside: str, kind: str = "") -> str:
  """A part of the page that opens when its summary is pressed. Both are HTML."""
  classes = f' class="{kind}"' if kind else ""
  return f"<details{classes}><summary>{summary}</summary>\n{inside}</details>\n"


# --- the page ----------------------------------------------------------------------------------------------------------


def _overview(corpus: Corpus) -> str:
  """The numbers that one wants first."""
  source, lost = corpus.source, sum(corpus.removed(step, "bytes") for step in STEPS)
  tiles = [
    _count(len(corpus.languages), "language"),
    f"{_size(corpus.bytes)} of clean text, from {_size(source['bytes'])} that the build read",
    f"{_count(corpus.documents, 'clean document')}, from {source['documents']:,} that the build read",
    f"{_size(lost)} removed",
    f"{_count(source.get('repaired_documents', 0), 'document')} repaired",
    f"{_count(source.get('damaged', 0), 'place')} in the source that could not be read",
  ]
  # The number, with its unit of bytes, is written large.
  tiles = [re.fullmatch(r"(\S+(?: .?B| bytes?)?) (.*)", tile) for tile in tiles]
  items = "".join(f"<li><b>{html.escape(tile[1])}</b> {html.escape(tile[2])}</li>" for tile in tiles if tile)
  text = f'<ul class="tiles">{items}</ul>\n'
  if not corpus.languages:
    text += (
      '<p class="warning">No language is left: this corpus is empty. Either the source holds no text in the languages that '
      "were "
      "asked for, or the steps removed all of it; what they removed is shown below.</p>\n"
    )
  personal: Counter[str] = Counter()
  for found in corpus.languages.values():
    personal.update(found.get("personal_data", {}))
  if personal.total():
    listed = ", ".join(
      f"{html.escape(kind.replace('_', ' '))} {number:,}" for kind, number in sorted(personal.items()) if number
    )
    text += f"<p>Personal data was masked ({listed}).</p>\n"
  return text


def _build_section(corpus: Corpus) -> str:
  """The options of the build, by which it can be repeated."""
  build = corpus.manifest["build"]
  words = {True: "yes", False: "no", "": "none"}
  rows = [[key.replace("_", " "), str(words.get(value, value) if isinstance(value, (bool, str)) else value)]
          for key, value in sorted(corpus.options.items())]  # fmt: skip
  rows += [[f"sha256 of the file for {key}", value] for key, value in sorted(build.get("files", {}).items())]
  shards = build.get("shards", {})
  if shards:
    rows.append(["source", f"{_count(shards['number'], 'shard')} of {_count(shards['bytes'], 'byte')} in all"])
  rows.append(["version of the steps", str(build.get("version", ""))])
  return "<p>The same source and the same options give the same bytes of clean text, and of this page.</p>\n" + _table(
    [Column("option"), Column("value")], rows
  )


def _page(corpus: Corpus, sampling: Sampling) -> str:
  """The whole page."""
  pictures = "".join(
    f"<figure><figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption>{image}</figure>\n"
    for title, caption, image in _pictures(corpus, sampling)
  )
  languages = _languages_table(corpus, sampling) if corpus.languages else ""
  sections = [
    ("pictures", "Pictures", pictures),
    ("languages", "Languages", languages),
    ("sampling", "Shares and epochs in training", _sampling_table(sampling) if sampling.rows else ""),
    ("removed", "What was removed", _removed_tables(corpus) if corpus.steps else ""),
    ("samples", "Samples of what was removed", _samples_section(corpus)),
    ("repairs", "Repairs", _repair_section(corpus)),
    ("confusion", "Confusion of languages", _confusion_section(corpus)),
    ("clusters", "Sizes of near-duplicate clusters", _clusters_section(corpus)),
    ("limits", "Limits that were learnt from each language", _limits_table(corpus) if corpus.languages else ""),
    ("damage", "Damage in the source", _damage_section(corpus)),
    ("build", "How this corpus was built", _build_section(corpus)),
  ]
  sections = [section for section in sections if section[2]]
  links = " ".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
  body = "".join(f'<section id="{anchor}"><h2>{title}</h2>\n{text}</section>\n' for anchor, title, text in sections)
  script = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
  # Should text of the corpus ever get past the escaping, the browser still runs no script but ours and loads nothing.
  policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Corpus report</title>
<style>{_CSS}</style>
</head>
<body>
<h1>Corpus report</h1>
{_overview(corpus)}<nav>{links}</nav>
{body}<script>{_SCRIPT}</script>
</body>
</html>
"""


_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; color: #222; background: #fff; max-width: 1280px;
  margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 2px solid #1f6f8b; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p, li { max-width: 62rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
a { color: #14566d; }
code { background: #f2f2f2; padding: 0 .25em; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; list-style: none; padding: 0; }
.tiles li { background: #f3f7f9; padding: .6rem .9rem; min-width: 9rem; max-width: 14rem; flex: 1; }
.tiles b { display: block; font-size: 1.35rem; color: #14566d; }
.warning { background: #fdf1e0; border-left: 4px solid #e0a030; padding: .5rem .8rem; }
figure { margin: 1.5rem 0 2.2rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 62rem; margin-bottom: .6rem; }
.wide { overflow: auto; max-height: 38rem; border: 1px solid #ddd; width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: 13px; }
th { position: sticky; top: 0; background: #eef3f5; vertical-align: bottom; text-align: left; padding: 0; }
th.number { text-align: right; }
th span { display: block; padding: .35rem .6rem; cursor: pointer; }
th[aria-sort=ascending] span::after { content: " \\25B2"; }
th[aria-sort=descending] span::after { content: " \\25BC"; }
td { padding: .15rem .6rem; border-top: 1px solid #eee; overflow-wrap: break-word; max-width: 40rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody tr:nth-child(even) { background: #fafafa; }
details { margin: .3rem 0; }
details details { margin-left: 1.2rem; }
details.step { border: 1px solid #ddd; padding: .4rem .8rem; }
summary { cursor: pointer; }
.sample { margin: .5rem 0 .5rem 1.2rem; border-left: 3px solid #d5dfe3; padding-left: .7rem; }
.place { font-size: 12px; color: #666; overflow-wrap: anywhere; }
.reason { background: #fbe9eb; color: #8c1f30; padding: 0 .4em; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: auto 1fr; gap: 0 .7rem; }
.mark { font-size: 12px; color: #666; }
.hidden { font: 11px monospace; color: #b01030; border: 1px solid #d1495b; padding: 0 1px; margin: 0 1px; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .wide { overflow: visible; max-height: none; border: 0; }
  table { font-size: 7pt; }
  th { position: static; }
  th span, td { padding: .1rem .3rem; }
  thead { display: table-header-group; }
  tr, figure, .sample { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

_SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const label = heading.firstElementChild;  // not a <button>, which Chromium does not repeat on the next printed page
    label.tabIndex = 0;
    label.setAttribute("role", "button");
    label.addEventListener("click", () => sort(table, headings, column));
    label.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(table, headings, column);
    });
  });
}
function sort(table, headings, column) {
  const heading = headings[column], body = table.tBodies[0], rows = [...body.rows];
  const isNumber = heading.className === "number";
  const before = heading.getAttribute("aria-sort");
  const up = before ? before === "descending" : !isNumber;
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => isNumber ? row.cells[column].dataset.value || "" : row.cells[column].textContent;
  rows.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return (up ? 1 : -1) * (isNumber ? x - y : x.localeCompare(y, "en"));
  });
  body.append(...rows);
}
"""
