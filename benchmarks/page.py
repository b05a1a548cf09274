"""The page of a large run: its size, how long it takes to write, and how long a browser takes to draw it.

    python -m benchmarks.page [--languages=100] [--lines=15000] [--pictures=FOLDER] [--workdir=RUN]

The run is made up and written to a temporary folder, unless --workdir names one. A browser is needed: Chromium, headless. It
opens the page at 1280 and 390 pixels, light and dark, and --pictures keeps what it saw. The last line is JSON.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import app, flags

from tests import made_runs
from tests.browser import Browser, browser
from xlmr_jax.errors import run_command
from xlmr_jax.report.run_page.numbers import read_run
from xlmr_jax.report.run_report import run_page
from xlmr_jax.run.workdir import Workdir

_SCREENS = [(1280, False), (1280, True), (390, False), (390, True)]
_TIMES = 5


def write(workdir: Workdir, out: Path) -> dict[str, Any]:
  """Writes the page to `out`; seconds to read the logs and to draw."""
  began = time.perf_counter()
  run = read_run(workdir)
  read = time.perf_counter()
  out.write_text(run_page(run), encoding="utf-8")
  return {"read_s": round(read - began, 2), "write_s": round(time.perf_counter() - read, 2), "bytes": out.stat().st_size}


def look(window: Browser, page: Path, pictures: Path | None) -> dict[str, Any]:
  """The median seconds until each screen is drawn, and what the browser complained about."""
  seconds = {}
  for width, dark in _SCREENS:
    name = f"{width}_{'dark' if dark else 'light'}"
    seconds[name] = round(statistics.median(window.show(page.as_uri(), width=width, dark=dark) for _ in range(_TIMES)), 3)
    if window.run("document.documentElement.scrollWidth") > width:
      window.problems.append(f"{name}: the page is wider than the screen")
    if pictures:
      window.picture(pictures / f"{name}.png", whole=True)
  return {"drawn_s": seconds, "problems": window.problems}


def main(argv: list[str]) -> None:
  """Makes the run, writes its page and looks at it."""
  pictures = Path(flags.FLAGS.pictures) if flags.FLAGS.pictures else None
  if pictures:
    pictures.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix="xlmr_jax-page") as folder:
    if flags.FLAGS.workdir:
      workdir = Workdir(Path(flags.FLAGS.workdir))
    else:
      workdir = made_runs.make_run(
        Path(folder) / "run", languages=flags.FLAGS.languages, lines=flags.FLAGS.lines, passes=300, scores=40
      )
    page = Path(folder) / "run.html"
    found: dict[str, Any] = {"log_bytes": Path(str(workdir.train_log)).stat().st_size} | write(workdir, page)
    with browser() as window:
      found |= look(window, page, pictures)
  print(json.dumps(found))


if __name__ == "__main__":
  flags.DEFINE_integer("languages", 100, "of the run that is made up")
  flags.DEFINE_integer("lines", 15_000, "of its train.jsonl")
  flags.DEFINE_string("pictures", "", "folder for pictures of the page")
  flags.DEFINE_string("workdir", "", "folder of a run to be shown instead")
  app.run(run_command(main))
