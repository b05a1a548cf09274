"""The pieces of HTML that several sections need: escaped text, tables that sort, and parts that fold."""

import html
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from xlmr_jax.report.page.words import NO_NUMBER

_LONG = 60  # characters of a cell that needs room, also on a phone


def visible(text: str) -> str:
  """Escaped text; what has no shape, such as a control character, is shown by its number."""
  shown = []
  for character in text:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs", "Cn"):
      shown.append(html.escape(character))
    else:
      shown.append(f'<span class="hidden">{ord(character):02X}</span>')
  return "".join(shown)


class Column(NamedTuple):
  """A column of a table. show: how a number of it is written."""

  title: str
  show: Callable[[Any], str] = lambda value: f"{value:,}"
  hint: str = ""


LANGUAGE_COLUMNS = (Column("language"), Column("code"))


def html_table(columns: Sequence[Column], rows: Iterable[Sequence[Any]], keys: Sequence[str] = ()) -> str:
  """A table that sorts when its headings are pressed.

  Cells: text, numbers, or None for what is not known. A number that is not finite is shown as if it were not known.
  keys: one per row, by which a reader can pick rows, such as languages' codes.
  """
  rows = list(rows)
  parts = ['<div class="wide"><table class="sortable"><thead><tr>']
  for number, column in enumerate(columns):
    hint = f' title="{html.escape(column.hint)}"' if column.hint else ""
    kind = "" if any(isinstance(row[number], str) for row in rows) or not rows else ' class="number"'
    parts.append(f'<th scope="col"{kind}{hint}><span>{html.escape(column.title)}</span></th>')
  parts.append("</tr></thead><tbody>\n")
  for number, row in enumerate(rows):
    parts.append(f'<tr data-key="{html.escape(keys[number])}">' if keys else "<tr>")
    for column, value in zip(columns, row, strict=True):
      if value is None or (isinstance(value, float) and not math.isfinite(value)):
        parts.append(f'<td class="number" data-value="">{NO_NUMBER}</td>')
      elif isinstance(value, str):
        wide = ' class="long"' if len(value) > _LONG else ""
        parts.append(f"<td{wide}>{visible(value)}</td>")
      else:
        parts.append(f'<td class="number" data-value="{value!r}">{html.escape(column.show(value))}</td>')
    parts.append("</tr>\n")
  parts.append("</tbody></table></div>\n")
  return "".join(parts)


def folded(summary: str, inside: str, kind: str = "") -> str:
  """A part of the page that opens when its summary is pressed. Both are HTML."""
  classes = f' class="{kind}"' if kind else ""
  return f"<details{classes}><summary>{summary}</summary>\n{inside}</details>\n"


def captioned(title: str, caption: str) -> str:
  """The words above a picture."""
  dot = "." if caption else ""
  return f"<figcaption><b>{html.escape(title)}{dot}</b> {html.escape(caption)}</figcaption>"
