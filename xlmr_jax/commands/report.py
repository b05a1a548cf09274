"""Draws pictures of a run from its logs, and what its losses are to be compared with.

xlmr report --workdir=DIR [--rows=ROWS]     writes DIR/held_out.png, DIR/languages.png and, for a run that was
                                            evaluated, DIR/transfer.png
"""

import json

from absl import flags as absl_flags

from xlmr_jax.commands import flags


def main(argv: list[str]) -> None:
  """Draws the pictures and prints their paths."""
  flags.refuse_arguments(argv)

  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.evaluation.ledger import read_ledger
  from xlmr_jax.report import pictures
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
  if read_ledger(workdir):
    drawn.append(workdir.root / "transfer.png")
    pictures.transfer_picture(workdir, drawn[-1])
  print(json.dumps({"pictures": [str(path) for path in drawn]}))


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string("workdir", None, "folder of the run", required=True)
  absl_flags.DEFINE_string("rows", None, "the run's rows, to mark each language's unigram entropy")
  flags.start(main)
