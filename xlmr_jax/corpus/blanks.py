"""What a blank line is. Between two documents of CC-100's layout stands one, so that no document may have one in it."""

import re

# A line of these alone is blank. They are the white space of Unicode, but for the line feed, and characters of no width.
BLANKS = (
  "".join(filter(str.isspace, map(chr, range(ord("\n") + 1, 0x3001)))) + "\t \u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
)
BLANK_LINES = re.compile(rf"\n[\n{BLANKS}]*\n")  # with the newline before them


def is_blank(line: str) -> bool:
  """Whether a line has nothing that a reader would see."""
  return not line.strip(BLANKS)


def without_blank_lines(text: str) -> str:
  """The text without blank lines, also at its begin and its end, where a newline may be left."""
  if "\n" in text:
    return BLANK_LINES.sub("\n", f"\n{text}\n")
  return "" if is_blank(text) else text
