"""Draws pictures of a run from its logs, or writes the report of a corpus with the rows that were made of it.

xlmr report --workdir=DIR [--rows=ROWS]     writes DIR/held_out.png, DIR/languages.png, DIR/goodput.png and, for a run that
                                            was evaluated, DIR/transfer.png
xlmr report --corpus=CLEAN [--rows=ROWS] [--train_steps=N --batch_rows=N]
                                            writes CLEAN/corpus_report.html anew, with the documents, rows and tokens of ROWS
                                            and the epochs of a training with so many updates
"""

import json

from absl import flags as absl_flags

from xlmr_jax.commands import flags
from xlmr_jax.errors import UserError


def main(argv: list[str]) -> None:
  """Draws the pictures or writes the page, and prints their paths."""
  flags.refuse_arguments(argv)
  planned = {name: flags.FLAGS[name].value for name in ("train_steps", "batch_rows")}
  given = {name: value for name, value in planned.items() if value is not None}
  if (flags.FLAGS.workdir is None) == (flags.FLAGS.corpus is None):
    raise UserError("pass either --workdir=DIR, the folder of a run, or --corpus=CLEAN, which `xlmr build_corpus` made")
  if flags.FLAGS.corpus is None and given:
    raise UserError(f"--{next(iter(given))}: belongs to --corpus=CLEAN; a run's logs say how many updates it had")
  if len(given) == 1:
    raise UserError("--train_steps and --batch_rows: pass both or neither; epochs follow from the product of both")
  return _draw_run() if flags.FLAGS.corpus is None else _write_corpus(given)


def _write_corpus(planned: dict[str, int]) -> None:
  """planned: the updates of a training and the rows of each; empty for those of the XLM-R paper."""
  from xlmr_jax.report.corpus_report import write_corpus_report

  corpus = flags.path_of("corpus")
  rows = flags.path_of("rows") if flags.FLAGS.rows is not None else None
  print(json.dumps({"report": str(write_corpus_report(corpus, rows, **planned))}))


def _draw_run() -> None:
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.evaluation.ledger import read_ledger
  from xlmr_jax.report import pictures
  from xlmr_jax.run.goodput import read_accounts
  from xlmr_jax.run.workdir import Workdir

  workdir = Workdir(flags.path_of("workdir", makes="folder"))
  rows = flags.path_of("rows") if flags.FLAGS.rows is not None else None
  lines = pictures.read_held_out(workdir)
  before, after = pictures.losses_of(lines[0]), pictures.losses_of(lines[-1])
  bound = pictures.unigram_entropy(RowStore(rows, tuple(after))) if rows else None
  drawn = [workdir.root / "held_out.png", workdir.root / "languages.png"]
  pictures.held_out_picture(workdir, drawn[0])
  title = f"Before training and after {lines[-1]['step']} updates"
  pictures.languages_picture(before, after, drawn[1], label=pictures.LOSS, title=title, bound=bound)
  if read_accounts(workdir).starts:
    drawn.append(workdir.root / "goodput.png")
    pictures.goodput_picture(workdir, drawn[-1])
  if read_ledger(workdir):
    drawn.append(workdir.root / "transfer.png")
    pictures.transfer_picture(workdir, drawn[-1])
  print(json.dumps({"pictures": [str(path) for path in drawn]}))


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string("workdir", None, "folder of the run")
  absl_flags.DEFINE_string("corpus", None, "folder of `xlmr build_corpus`, whose report is written anew")
  absl_flags.DEFINE_string("rows", None, "the run's or the corpus's rows")
  absl_flags.DEFINE_integer("train_steps", None, "of a corpus's report: updates of the planned training", lower_bound=1)
  absl_flags.DEFINE_integer("batch_rows", None, "of a corpus's report: rows per update", lower_bound=1)
  flags.start(main)
