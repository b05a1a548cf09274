"""Charts as HTML: lines in an SVG that is stretched to the width there is, and words around it that are not.

So a chart needs no script to be drawn, fits a phone, and prints. The script of the page only tells the values under the
pointer, which it reads back from the lines. Each function returns HTML.
"""

import html
import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from xlmr_jax.report.page.markup import captioned
from xlmr_jax.report.page.words import compact_number

POINTS = 300  # of a line, at most; a screen has few more columns than that
_WIDTH, _HEIGHT = 10_000, 100_000  # of the SVG's coordinates
LOOKS = 8  # looks of lines that can be told apart, 0 (the thick dark one) included
_MARKED = 40  # A line with at most so many points has a mark at each.
_MARKED_LARGE = 12  # The marks of a line with at most so many points are large.


class Axis(NamedTuple):
  """An axis. title: what it counts and the unit. show: how a tick is written. labels: names at 0, 1, ..., if it has any."""

  title: str
  show: Callable[[float], str] = compact_number
  log: bool = False
  labels: tuple[str, ...] = ()
  low: float | None = None
  high: float | None = None


class Line(NamedTuple):
  """A line of a chart.

  look: -1 for one of many thin ones, 0 for the thick dark one, 1 to LOOKS - 1 for colours with dash patterns of their own.
  spread: half the length of an error bar at each point. band: (lowest, highest) at each point, drawn behind the line.
  key: by which a reader can pick it, such as a language's code. is_joined: whether a line goes from point to point, which
  between the names of an axis without an order would mean nothing.
  """

  name: str
  x: np.ndarray  # float64[N], ascending
  y: np.ndarray  # float64[N]; NaN where there is nothing
  look: int = -1
  key: str = ""
  spread: np.ndarray | None = None
  band: tuple[np.ndarray, np.ndarray] | None = None
  is_joined: bool = True


class Mark(NamedTuple):
  """A vertical line with words."""

  x: float
  text: str


def thin_out(
  x: np.ndarray, values: np.ndarray, points: int = POINTS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """(x, means, lowest, highest) of at most `points` parts that follow each other, each as long as the others to within one.

  x: float64[N], of which each part keeps the one in its middle; values: float64[N, ...], NaN where there is nothing. A part
  without any value is NaN.
  """
  count = len(x)
  if count <= points:
    return x, values, values, values
  starts = np.linspace(0, count, points + 1).astype(np.int64)[:-1]
  is_known = np.isfinite(values)
  known = np.add.reduceat(is_known.astype(np.float64), starts, axis=0)
  sums = np.add.reduceat(np.where(is_known, values, 0.0), starts, axis=0)
  low = np.minimum.reduceat(np.where(is_known, values, np.inf), starts, axis=0)
  high = np.maximum.reduceat(np.where(is_known, values, -np.inf), starts, axis=0)
  empty = known == 0
  means = np.where(empty, np.nan, sums / np.maximum(known, 1))
  ends = np.append(starts[1:], count)
  return x[(starts + ends - 1) // 2], means, np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def ticks_of(low: float, high: float, wanted: int = 6) -> list[float]:
  """Round numbers, 1, 2 or 5 times a power of ten apart, from low to high."""
  if not high > low:
    return [low]
  rough = (high - low) / wanted
  step = 10.0 ** math.floor(math.log10(rough))
  step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough)
  first = math.ceil(low / step - 1e-9)
  return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks_of(low: float, high: float) -> list[float]:
  """Powers of ten from low to high, with twice and five times each where they are few."""
  exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  every = -(-len(exponents) // 7)
  factors = (1, 2, 5) if high / low < 300 else (1,)
  found = [f * 10.0**e for e in exponents if e % every == 0 for f in factors if low <= f * 10.0**e <= high]
  return found if len(found) > 1 else ticks_of(low, high)  # Of 0.6 to 0.9, say, there are no round numbers of that kind.


def line_chart(
  lines: Sequence[Line], x: Axis, y: Axis, *, title: str, caption: str = "", marks: Sequence[Mark] = (), low: bool = False
) -> str:
  """A chart of lines, or "" where there is nothing to draw. low: it is drawn less high than others."""
  lines = [line for line in lines if np.isfinite(line.y).any()]
  if y.log:
    lines = [
      line._replace(
        y=np.where(line.y > 0, line.y, np.nan),
        band=line.band and tuple(np.where(edge > 0, edge, np.nan) for edge in line.band),
      )
      for line in lines
    ]
  lines = [line for line in lines if np.isfinite(line.y).any()]
  if not lines:
    return ""
  left, right = _x_range(lines, x)
  marks = [mark for mark in marks if left <= mark.x <= right]  # Others would lie outside the picture, or of the page.
  bottom, top = _y_range(lines, y)
  to_x = _scale(left, right, _WIDTH, False)
  to_y = _scale(bottom, top, _HEIGHT, y.log)
  x_ticks = list(range(len(x.labels))) if x.labels else ticks_of(left, right, 5)
  y_ticks = log_ticks_of(bottom, top) if y.log else ticks_of(bottom, top)
  shared = lines[0].x if all(np.array_equal(line.x, lines[0].x) for line in lines) else None
  drawn = [f'<path class="grid" d="M0 {_at(to_y, tick, _HEIGHT)}h{_WIDTH}"/>' for tick in y_ticks]
  drawn.append(f'<path class="axis" d="M0 {_HEIGHT}h{_WIDTH}"/>')
  for line in sorted(lines, key=lambda line: -line.look if line.look > 0 else (-LOOKS - 1 if line.look < 0 else 0)):
    drawn.append(_draw(line, to_x, to_y, shared is None))
  words = [
    f'<span class="tick y" style="top:{100 - 100 * to_y(tick) / _HEIGHT:.2f}%">{html.escape(y.show(tick))}</span>'
    for tick in y_ticks
  ]
  # Every second tick is left out on a phone, unless the ticks are a few names.
  for number, tick in enumerate(x_ticks):
    odd = " odd" if number % 2 and len(x_ticks) > (5 if x.labels else 4) else ""
    odd += " end" if to_x(tick) > 0.97 * _WIDTH else ""  # It must not stick out of the page.
    text, share = x.labels[int(tick)] if x.labels else x.show(tick), to_x(tick) / _WIDTH
    # A long name is cut where its neighbour's begins, and the last one where the page ends; the tip has it whole.
    room = min(0.96 / len(x.labels), 2 * (1 - share)) if x.labels else 1
    most = f";max-width:calc({100 * room:.1f}% + .9rem)" if x.labels and room < 1 else ""
    words.append(f'<span class="tick x{odd}" style="left:{100 * share:.2f}%{most}">{html.escape(text)}</span>')
  for number, mark in enumerate(sorted(marks)):
    share = to_x(mark.x) / _WIDTH
    kind = ("", " second", " third")[number % 3] + (" late" if share > 0.5 else "")
    words.append(f'<div class="vertical{kind}" style="left:{100 * share:.2f}%"><span>{html.escape(mark.text)}</span></div>')
  data = {"x": x.title, "bottom": f"{bottom:.9g}", "top": f"{top:.9g}"} | ({"log": "1"} if y.log else {})
  if x.labels:
    data["labels"] = json.dumps(x.labels)
  if shared is not None:
    data["xs"] = _numbers(shared)
  attributes = "".join(f' data-{name}="{html.escape(value)}"' for name, value in data.items())
  words_above = f"{captioned(title, caption)}" if title else ""
  scale = ", logarithmic scale" if y.log else ""
  return (
    f'<figure class="chart{" low" if low else ""}{" marked" if marks else ""}"{attributes}>{words_above}{_legend(lines)}'
    f'<div class="y-name">{html.escape(y.title)}{scale}</div>'
    f'<div class="area"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
    f'aria-label="{html.escape(title or y.title)}">{"".join(drawn)}</svg>{"".join(words)}</div>'
    f'<div class="x-name">{html.escape(x.title)}</div></figure>\n'
  )


def _x_range(lines: Sequence[Line], x: Axis) -> tuple[float, float]:
  if x.labels:
    return -0.3, len(x.labels) - 0.7
  left = min(float(line.x[0]) for line in lines) if x.low is None else x.low
  right = max(float(line.x[-1]) for line in lines) if x.high is None else x.high
  return (left, right) if right > left else (left - 0.5, right + 0.5)


def _y_range(lines: Sequence[Line], y: Axis) -> tuple[float, float]:
  """The range of all values with a little room; error bars and bands count."""
  known = []
  for line in lines:
    spread = np.zeros_like(line.y) if line.spread is None else np.nan_to_num(line.spread)
    known += [line.y - spread, line.y + spread, *(line.band or ())]
  values = np.concatenate(known)
  values = values[np.isfinite(values) & ((values > 0) if y.log else True)]
  low = float(values.min()) if y.low is None else y.low
  high = float(values.max()) if y.high is None else y.high
  if y.log:
    return (low / 1.1, high * 1.1) if high > low else (low / 2, high * 2)
  room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
  return (low - room if y.low is None else low), (high + room if y.high is None else high)


def _scale(low: float, high: float, size: int, log: bool) -> Callable[[float], float]:
  if log:
    low, high = math.log(low), math.log(high)
    return lambda value: (math.log(value) - low) / (high - low) * size
  return lambda value: (value - low) / (high - low) * size


def _at(to_y: Callable[[float], float], value: float, size: int) -> int:
  return size - round(to_y(value))


def _numbers(values: np.ndarray) -> str:
  return " ".join(f"{value:.10g}" for value in values)


def _draw(line: Line, to_x: Callable[[float], float], to_y: Callable[[float], float], own_x: bool) -> str:
  """The path of a line with what belongs to it: its band behind it, its marks and error bars before it."""
  is_known = np.isfinite(line.y)
  across = [round(to_x(value)) for value in line.x]
  heights = [_at(to_y, value, _HEIGHT) if known else 0 for value, known in zip(line.y, is_known)]
  parts, is_open = [], False
  for left, height, known in zip(across, heights, is_known):
    if known:
      parts.append(f"{'L' if is_open else 'M'}{left} {height}")
    is_open = bool(known) and line.is_joined
  look = f"line s{line.look}" if line.look >= 0 else "bg"
  key = f' data-key="{html.escape(line.key)}"' if line.key else ""
  more = f' data-xs="{_numbers(line.x)}"' if own_x else ""
  if not is_known.all():
    more += f' data-at="{" ".join(map(str, np.flatnonzero(is_known)))}"'
  if line.spread is not None:
    more += f' data-spread="{" ".join(f"{value:.3g}" for value in line.spread[is_known])}"'
  path = f'<path class="{look}"{key} data-name="{html.escape(line.name)}"{more} d="{"".join(parts)}"/>'
  before = ""
  if line.band is not None:
    low, high = (np.where(np.isfinite(edge), edge, line.y) for edge in line.band)
    there = [f"{p} {_at(to_y, v, _HEIGHT)}" for p, v, known in zip(across, high, is_known) if known]
    back = [f"{p} {_at(to_y, v, _HEIGHT)}" for p, v, known in zip(across, low, is_known) if known]
    before = f'<path class="band" d="M{"L".join([*there, *back[::-1]])}Z"/>'
  after = ""
  known = [(left, height) for left, height, is_one in zip(across, heights, is_known) if is_one]
  if line.spread is not None:
    after += _error_bars(line, across, is_known, to_y)
  if len(known) == 1 or not line.is_joined or (line.look >= 0 and len(known) <= _MARKED):
    # A stroke without length and with round ends is a dot that keeps its shape however the picture is stretched.
    dots = "".join(f"M{left} {height}h0" for left, height in known)
    small = " dot" if len(known) > (_MARKED_LARGE if line.is_joined else _MARKED) or line.look < 0 else ""
    square = " square" if line.look > 0 and line.look % 2 == 0 else ""
    after += f'<path class="{look} points{square}{small}" d="{dots}"/>'
    if line.look > 2 and not small:
      after += f'<path class="{look} points{square} hole" d="{dots}"/>'
  return before + path + after


def _error_bars(line: Line, across: list[int], is_known: np.ndarray, to_y: Callable[[float], float]) -> str:
  parts = []
  assert line.spread is not None
  for left, value, spread, known in zip(across, line.y, line.spread, is_known):
    if known and spread > 0:
      top, bottom = _at(to_y, value + spread, _HEIGHT), _at(to_y, value - spread, _HEIGHT)
      parts.append(f"M{left} {bottom}V{top}M{left - 60} {top}h120M{left - 60} {bottom}h120")
  return f'<path class="s{line.look} bars-error" d="{"".join(parts)}"/>' if parts else ""


def _legend(lines: Sequence[Line]) -> str:
  """A sample of each line that has a look of its own, and one for all thin ones."""
  named = sorted((line for line in lines if line.look >= 0), key=lambda line: line.look)
  faint = len(lines) - len(named)
  items = []
  for line in named:
    square = " square" if line.look > 0 and line.look % 2 == 0 else ""
    is_marked = len(line.x) <= _MARKED_LARGE or not line.is_joined
    dots = f'<path class="line s{line.look} points{square}" d="M15 5h0"/>' if is_marked else ""
    hole = f'<path class="line s{line.look} points{square} hole" d="M15 5h0"/>' if dots and line.look > 2 else ""
    stroke = f'<path class="line s{line.look}" d="M0 5h30"/>' if line.is_joined else ""
    items.append(f'<span><svg viewBox="0 0 30 11">{stroke}{dots}{hole}</svg>{html.escape(line.name)}</span>')
  if faint:
    what = "one other language" if faint == 1 else f"{faint} other languages, one line each"
    items.append(f'<span><svg viewBox="0 0 30 11"><path class="bg" d="M0 5h30"/></svg>{what}</span>')
  return f'<div class="legend">{"".join(items)}</div>' if len(items) > 1 else ""
