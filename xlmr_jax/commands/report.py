"""Writes the page of a run or of a sweep, or the report of a corpus with the rows that were made of it.

xlmr report --workdir=RUN [--rows=ROWS]     writes RUN/run.html, and the pictures RUN/held_out.png, RUN/languages.png,
                                            RUN/goodput.png and, for a run that was evaluated, RUN/transfer.png
xlmr report --workdir=SWEEP                 writes SWEEP/sweep.html, and SWEEP/sweep.png, the figure of a sweep
xlmr report --workdir=RUN|SWEEP --serve=8000
                                            follows what is going on, at http://127.0.0.1:8000, and writes nothing
xlmr report --corpus=CLEAN [--rows=ROWS] [--train_steps=N --batch_rows=N]
                                            writes CLEAN/corpus_report.html anew, with the documents, rows and tokens of ROWS
                                            and the epochs of a training with so many updates
xlmr report --scores=ours=A.json,mbert=B.json [--markdown]
                                            prints the scores of several models, which `xlmr evaluate --out` wrote, as one
                                            table with the paper's rows
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from xlmr_jax.commands import flags
from xlmr_jax.errors import UserError, one_line

if TYPE_CHECKING:
  from xlmr_jax.files import AnyPath
  from xlmr_jax.run.workdir import Workdir

# Of each thing that the command makes: its name in words, and the flags that say something about it.
_MADE = {
  "scores": ("a table of scores", ("markdown",)),
  "corpus": ("the report of a corpus", ("rows", "train_steps", "batch_rows")),
  "served": ("a page that is served", ("serve", "listen")),
  "sweep": ("the page of a sweep", ("pictures",)),
  "run": ("the page of a run", ("rows", "samples", "pictures")),
}
# Where a flag belongs, for who gave it to something else.
_BELONGS = {
  "markdown": "--scores=NAME=FILE,...",
  "train_steps": "--corpus=CLEAN; a run's logs say how many updates it had",
  "batch_rows": "--corpus=CLEAN; a run's logs say how many updates it had",
  "rows": "--corpus=CLEAN, or to the --workdir of a run, whose languages.png then has the unigram entropy",
  "serve": "--workdir; nothing else changes while one looks at it",
  "listen": "--serve=PORT",
  "samples": "the --workdir of a run, whose page is written and not served",
  "pictures": "a --workdir whose page is written and not served",
}


def refuse_ignored(made: str) -> None:
  """UserError for flags that say nothing about what is asked for. made: a key of _MADE."""
  words, takes = _MADE[made]
  for name, where in _BELONGS.items():
    if flags.FLAGS[name].present and name not in takes:
      raise UserError(f"--{name}: says nothing about {words}; it belongs to {where}")
  if made == "run" and flags.FLAGS["rows"].present and not flags.FLAGS.pictures:
    raise UserError("--rows: says nothing about a run without --pictures; it is read for languages.png alone")


def main(argv: list[str]) -> None:
  """Writes the page and the pictures, and prints their paths; or serves the page."""
  flags.refuse_arguments(argv)
  planned = {name: flags.FLAGS[name].value for name in ("train_steps", "batch_rows")}
  given = {name: value for name, value in planned.items() if value is not None}
  subjects = [name for name in ("workdir", "corpus") if flags.FLAGS[name].value is not None]
  subjects += ["scores"] if flags.FLAGS.scores else []
  if len(subjects) != 1:
    raise UserError("pass one of --workdir=DIR, the folder of a run or a sweep; --corpus=CLEAN, which `xlmr build_corpus` "
                    "made; --scores=NAME=FILE,..., which `xlmr evaluate --out` wrote")  # fmt: skip
  if flags.FLAGS.scores:
    refuse_ignored("scores")
    return _print_scores()
  if flags.FLAGS.corpus is not None:
    refuse_ignored("corpus")
    if len(given) == 1:
      raise UserError("--train_steps and --batch_rows: pass both or neither; epochs follow from the product of both")
    return _write_corpus(given)
  if flags.FLAGS.serve is not None:
    refuse_ignored("served")
    return _serve()
  return _write_page()


def _print_scores() -> None:
  """The scores of several models as one table."""
  from xlmr_jax.evaluation import paper_table
  from xlmr_jax.report.scores import differences, entries_of, read_scores

  found = read_scores(entries_of(flags.FLAGS.scores))
  for line in differences(found):
    print(line, file=sys.stderr, flush=True)
  # Files of two splits do not compare, which was said; then the paper's figures are those beside a test set.
  split = "dev" if all(scores.get("split") == "dev" for scores in found.values()) else "test"
  print(paper_table.table({name: scores["scores"] for name, scores in found.items()}, flags.FLAGS.markdown, split))
  print(json.dumps({"models": {name: scores["model"] for name, scores in found.items()}}))


def _write_corpus(planned: dict[str, int]) -> None:
  """planned: the updates of a training and the rows of each; empty for those of the XLM-R paper."""
  from xlmr_jax.report.corpus_report import write_corpus_report

  corpus = flags.path_of("corpus")
  rows = flags.path_of("rows") if flags.FLAGS.rows is not None else None
  print(json.dumps({"report": str(write_corpus_report(corpus, rows, **planned))}))


def _serve() -> None:
  """Shows the page of a run or a sweep, anew whenever a browser asks, until the process is told to end."""
  from xlmr_jax.report import run_report, serve, sweep_report
  from xlmr_jax.report.run_page.numbers import read_run
  from xlmr_jax.report.sweep_page.numbers import read_sweep
  from xlmr_jax.run.workdir import Workdir

  folder = flags.path_of("workdir")

  def make() -> str:
    if sweep_report.is_sweep(folder):
      return sweep_report.sweep_page(read_sweep(folder))
    return run_report.run_page(read_run(Workdir(folder)))

  with serve.make_server(make, flags.FLAGS.serve, flags.FLAGS.listen) as server:
    address, port = server.server_address[:2]
    print(f"http://{address}:{port}/  (Ctrl-C ends it)", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
      server.serve_forever()
  print(json.dumps({"served": str(folder), "port": port}))


def _write_page() -> None:
  """The page of a run with its pictures, or of a sweep."""
  from xlmr_jax.report.run_report import write_run_report
  from xlmr_jax.report.sweep_report import is_sweep, write_sweep_report
  from xlmr_jax.run.workdir import Workdir

  folder = flags.path_of("workdir", makes="folder")
  refuse_ignored("sweep" if is_sweep(folder) else "run")
  if is_sweep(folder):
    page = write_sweep_report(folder)
    print(json.dumps({"page": str(page), "pictures": [str(path) for path in _draw_sweep(folder)]}))
    return
  workdir = Workdir(folder)
  rows = flags.path_of("rows") if flags.FLAGS.rows is not None else None
  page = None
  if workdir.record.exists():
    page = write_run_report(workdir, samples=flags.FLAGS.samples)
  else:
    print(f"no page, because {workdir.record} is missing", file=sys.stderr, flush=True)
  drawn = _draw_run(workdir, rows) if flags.FLAGS.pictures else []
  print(json.dumps({"page": page and str(page), "pictures": [str(path) for path in drawn]}))


def _draw_sweep(folder: "AnyPath") -> list["AnyPath"]:
  """The figure of a sweep as a PNG, once a run is finished."""
  from xlmr_jax.report.sweep_page.numbers import read_sweep
  from xlmr_jax.report.sweep_picture import sweep_picture

  sweep, out = read_sweep(folder), folder / "sweep.png"
  if not flags.FLAGS.pictures or not any(run.is_finished for run in sweep.runs):
    return []
  return _drawn(out, lambda: sweep_picture(sweep, out))


def _drawn(path: "AnyPath", draw: Callable[[], Any]) -> list["AnyPath"]:
  """[path] once it is drawn. What a picture cannot show is a line on stderr, because the page and the others are there."""
  try:
    draw()
  except OSError:  # A full disk, say, is no fault of the picture.
    raise
  except Exception as error:  # Whatever matplotlib makes of numbers that nobody thought of.
    print(f"{path} is not drawn: {type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
    return []
  return [path]


def _draw_run(workdir: "Workdir", rows: "AnyPath | None") -> list["AnyPath"]:
  """The pictures for which there is something to draw. rows: of --rows."""
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.evaluation.ledger import read_ledger
  from xlmr_jax.report import pictures
  from xlmr_jax.run import logs
  from xlmr_jax.run.goodput import read_accounts

  drawn = []
  # A run that is going on may have no held-out loss yet. Its page tells the rest; a folder without a record has no page.
  has_held_out = not workdir.record.exists() or bool(logs.read_held_out(workdir))
  if has_held_out:
    lines = pictures.read_held_out(workdir)
    before, after = pictures.losses_of(lines[0]), pictures.losses_of(lines[-1])
    bound = pictures.unigram_entropy(RowStore(rows, tuple(after))) if rows else None
    held_out, languages = workdir.root / "held_out.png", workdir.root / "languages.png"
    title = f"Before training and after {lines[-1]['step']} updates"
    drawn += _drawn(held_out, lambda: pictures.held_out_picture(workdir, held_out))
    drawn += _drawn(
      languages, lambda: pictures.languages_picture(before, after, languages, label=pictures.LOSS, title=title, bound=bound)
    )
  if read_accounts(workdir).starts:
    goodput = workdir.root / "goodput.png"
    drawn += _drawn(goodput, lambda: pictures.goodput_picture(workdir, goodput))
  transfer = workdir.root / "transfer.png"
  try:
    has_scores = any(entry.score is not None for entry in read_ledger(workdir))
  except UserError as error:  # A damaged entry, which the page has named too.
    print(f"{transfer} is not drawn: {one_line(error)}", file=sys.stderr, flush=True)
    has_scores = False
  if has_held_out and has_scores:
    drawn += _drawn(transfer, lambda: pictures.transfer_picture(workdir, transfer))
  return drawn


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string("workdir", None, "folder of a run or of a sweep")
  absl_flags.DEFINE_integer("serve", None, "port at which the page is shown, made anew when a browser asks", lower_bound=0)
  absl_flags.DEFINE_string("listen", "127.0.0.1", "address of --serve; 127.0.0.1 is seen by this machine alone")
  absl_flags.DEFINE_bool("samples", True, "whether the newest checkpoint of a run fills gaps in held-out text")
  absl_flags.DEFINE_bool("pictures", True, "whether the pictures of a run or a sweep are drawn as PNG files too")
  absl_flags.DEFINE_string("corpus", None, "folder of `xlmr build_corpus`, whose report is written anew")
  absl_flags.DEFINE_multi_string(
    "scores", [], "NAME=FILE,... of scores to print as one table, also several times; without NAME the file's name counts"
  )
  absl_flags.DEFINE_bool("markdown", False, "whether the table of --scores is one to copy into a page")
  absl_flags.DEFINE_string("rows", None, "the run's or the corpus's rows")
  absl_flags.DEFINE_integer("train_steps", None, "updates of the planned training, for a corpus", lower_bound=1)
  absl_flags.DEFINE_integer("batch_rows", None, "rows per update of it, for a corpus", lower_bound=1)
  flags.start(main)
