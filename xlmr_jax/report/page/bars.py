"""Charts of bars as HTML: one length per bar, or several parts in one bar. They need no script, fit a phone, and print."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from xlmr_jax.report.page.markup import captioned


class Bar(NamedTuple):
  """A bar with its name, a mark on it, and what is written behind it; lengths and marks are shares of the whole track."""

  name: str
  length: float
  text: str
  hint: str
  key: str = ""
  mark: float | None = None
  before: float | None = None


def bar_chart(bars: Sequence[Bar], *, title: str, caption: str, axis: str, legend: Sequence[tuple[str, str]]) -> str:
  """Bars below each other, in as many columns as there is room for. axis: what a bar's length is, with its unit and range.

  legend: (colour of a CSS variable, words) of a bar and of its marks.
  """
  if not bars:
    return ""
  rows = []
  for bar in bars:
    key = f' data-key="{html.escape(bar.key)}"' if bar.key else ""
    marks = "" if bar.mark is None else f'<b style="left:{100 * min(max(bar.mark, 0.0), 1.0):.2f}%"></b>'
    if bar.before is not None:
      marks += f'<b class="before" style="left:{100 * min(max(bar.before, 0.0), 1.0):.2f}%"></b>'
    rows.append(
      f'<div class="bar"{key} title="{html.escape(bar.hint)}"><span>{html.escape(bar.name)}</span>'
      f'<span class="track"><i style="width:{100 * min(max(bar.length, 0.0), 1.0):.2f}%"></i>{marks}</span>'
      f"<span>{html.escape(bar.text)}</span></div>"
    )
  samples = "".join(
    f'<span><i class="swatch" style="background:var(--{color})"></i>{html.escape(words)}</span>' for color, words in legend
  )
  return (
    f"<figure>{captioned(title, caption)}"
    f'<div class="legend">{samples}</div><div class="y-name">{html.escape(axis)}</div>'
    f'<div class="bars">{"".join(rows)}</div></figure>\n'
  )


class Stack(NamedTuple):
  """A bar of several parts: its name, the length of each part, and what is written behind it."""

  name: str
  parts: tuple[float, ...]
  text: str


_STACK_COLORS = ("c1", "c6", "c5", "c3", "c4", "c7", "c2", "c8", "soft", "faint")


def stack_chart(stacks: Sequence[Stack], names: Sequence[str], *, title: str, caption: str, axis: str) -> str:
  """Bars of parts. names: of the parts, at most ten. axis: what a part's length is, with its unit."""
  whole = max(sum(stack.parts) for stack in stacks)
  used = [number for number in range(len(names)) if any(stack.parts[number] > 0 for stack in stacks)]
  rows = []
  for stack in stacks:
    parts = "".join(
      f'<i style="width:{100 * stack.parts[number] / max(whole, 1e-12):.3f}%;background:var(--{_STACK_COLORS[number]})" '
      f'title="{html.escape(names[number])}: {stack.parts[number]:.3g}"></i>'
      for number in used
      if stack.parts[number] > 0
    )
    rows.append(
      f'<div class="stack-row"><span>{html.escape(stack.name)}</span><span class="stack">{parts}</span>'
      f"<span>{html.escape(stack.text)}</span></div>"
    )
  samples = "".join(
    f'<span><i class="swatch" style="background:var(--{_STACK_COLORS[number]})"></i>{html.escape(names[number])}</span>'
    for number in used
  )
  return (
    f"<figure>{captioned(title, caption)}"
    f'<div class="legend">{samples}</div><div class="y-name">{html.escape(axis)}</div>{"".join(rows)}</figure>\n'
  )
