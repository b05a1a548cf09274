"""Fills in a template, to stdout: python3 launch/render.py TEMPLATE NAME=TEXT NAME:=JSON... [-- ARG...]

A placeholder ${NAME} becomes a JSON value, which is YAML as well, so no value can change the structure of the document.
${ARGS} becomes the list of the arguments behind --, with each $ doubled, because Kubernetes expands $(NAME) in them.
Lines that are comments as a whole are left out.
"""

import json
import re
import sys
from pathlib import Path


def render(template: str, values: dict[str, object]) -> str:
  """The template with its placeholders filled in. ValueError names a placeholder without a value, or a value without one."""
  lines = "".join(line for line in template.splitlines(keepends=True) if not line.lstrip().startswith("#"))
  wanted = set(re.findall(r"\$\{([A-Z_]+)\}", lines))
  if wanted != set(values):
    raise ValueError(f"placeholders and values differ in {', '.join(sorted(wanted ^ set(values)))}")
  return re.sub(r"\$\{([A-Z_]+)\}", lambda found: json.dumps(values[found[1]]), lines)


def main(argv: list[str]) -> int:
  if not argv or argv[0] == "--help":
    print(__doc__)
    return 0 if argv else 1
  at = argv.index("--") if "--" in argv else len(argv)
  own, args = argv[:at], argv[at + 1 :]
  try:
    values: dict[str, object] = {}
    for word in own[1:]:
      name, _, text = word.partition("=")
      values[name.removesuffix(":")] = json.loads(text) if name.endswith(":") else text
    print(render(Path(own[0]).read_text(), values | {"ARGS": [word.replace("$", "$$") for word in args]}), end="")
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
