"""A page as one file: its head, its links, its sections, the style and the script. It loads nothing from elsewhere."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xlmr_jax.report.page.style import CSS, SCRIPT


class Section(NamedTuple):
  """A part of a page with a heading of its own. text: HTML; an empty one is left out."""

  anchor: str
  title: str
  text: str


def whole_page(title: str, overview: str, sections: Sequence[Section], choices: Mapping[str, str] | None = None) -> str:
  """The HTML of a page. overview: what stands above the links.

  choices: {key: name} of what a reader may want to follow through all pictures and tables, such as languages. The page then
  has a list to choose from, which marks everything that has this data-key.
  """
  sections = [section for section in sections if section.text]
  links = " ".join(f'<a href="#{section.anchor}">{html.escape(section.title)}</a>' for section in sections)
  body = "".join(
    f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>\n{section.text}</section>\n'
    for section in sections
  )
  script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
  # Should text of a corpus ever get past the escaping, the browser still runs no script but ours and loads nothing.
  policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{overview}<nav>{links}{_picker(choices or {})}</nav>
{body}<script>{SCRIPT}</script>
</body>
</html>
"""


def tiles(facts: Sequence[tuple[str, str]]) -> str:
  """Numbers that one wants first: [(number, what it is), ...]."""
  items = "".join(f"<li><b>{html.escape(number)}</b> {html.escape(what)}</li>" for number, what in facts)
  return f'<ul class="tiles">{items}</ul>\n'


def _picker(choices: Mapping[str, str]) -> str:
  if not choices:
    return ""
  options = "".join(f'<option value="{html.escape(key)}">{html.escape(name)}</option>' for key, name in choices.items())
  return f' <label class="picker">follow one: <select id="pick"><option value="">none</option>{options}</select></label>'
