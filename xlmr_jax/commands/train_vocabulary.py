"""Trains a vocabulary on a folder of text, with the shares of its languages smoothed.

xlmr train_vocabulary --text=DIR --size=32000 --alpha=0.3 --out=FILE.model [--report=FILE.png] [--compare=OTHER.model]
xlmr train_vocabulary --text=DIR --kind=wordpiece --size=110000 --alpha=0.7 --out=FILE.json [--lower_case]    # BERT's kind
xlmr train_vocabulary --text=DIR --kind=bpe --size=95000 --alpha=0.7 --out=FILE.model    # XLM's kind

The first, SentencePiece's unigram, says how much memory the training takes before it begins, and refuses a sample that is
too large for this machine.
"""

import json
import sys

from absl import flags

from xlmr_jax.commands.flags import FLAGS, local_path_of, path_of, refuse_arguments, start
from xlmr_jax.errors import UserError


def main(argv: list[str]) -> None:
  """Trains the vocabulary; prints a table of the languages on stderr and one line of JSON on stdout."""
  refuse_arguments(argv)
  from xlmr_jax.corpus.sources.registry import text_source
  from xlmr_jax.corpus.vocabulary import train_vocabulary

  compare = path_of("compare") if FLAGS.compare is not None else None
  report = local_path_of("report", makes="file") if FLAGS.report is not None else None
  if report and report.suffix != ".png":
    raise UserError(f"--report={report}: must end in .png; the table goes to a file that ends in .json beside it")
  summary = train_vocabulary(
    text_source(FLAGS.text, FLAGS.source, FLAGS.languages),
    FLAGS.out,
    size=FLAGS.size,
    kind=FLAGS.kind,
    lower_case=FLAGS.lower_case,
    alpha=FLAGS.alpha,
    sentences=FLAGS.sentences,
    seed=FLAGS.seed,
    character_coverage=FLAGS.character_coverage,
    memory_gb=FLAGS.memory_gb,
    compare=compare,
  )
  table = summary.pop("table")
  _print_table(table)
  if report:
    from xlmr_jax.report.vocabulary_report import write_report

    write_report(summary, table, report, compared=compare.stem if compare else "")
  print(json.dumps(summary))


def _print_table(table: list[dict]) -> None:
  """One line per language on stderr; the last column is of --compare."""
  names = ("paragraphs", "sampled", "characters_per_piece", "pieces_per_word", "unknown_rate", "character_coverage")
  heads = ("paragraphs", "sampled", "characters/piece", "pieces/word", "unknown", "covered")
  compared = " compared characters/piece" if "compared" in table[0] else ""
  print(f"{'language':>10}", *(f"{head:>17}" for head in heads), compared, file=sys.stderr)
  for row in table:
    other = f"{row['compared']['characters_per_piece']:>26}" if compared else ""
    print(f"{row['language']:>10}", *(f"{row[name]:>17}" for name in names), other, file=sys.stderr)


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string("text", None, "folder with LANG.txt[.gz|.xz|.bz2|.zst] or LANG/ with several of them")
  flags.DEFINE_string(
    "source", None, "instead of --text, labelled text as cc100:DIR, jsonl:FILES, parquet:FILES or tfds:NAME"
  )
  flags.DEFINE_string("out", None, "the model file to write", required=True)
  flags.DEFINE_integer("size", None, "ids, the special ones counted; XLM-R has 250002", required=True)
  flags.DEFINE_enum(
    "kind", "unigram", ["unigram", "bpe", "wordpiece"],
    "SentencePiece's unigram, as XLM-R's, or its BPE, as XLM's in kind, or BERT's WordPiece",
  )  # fmt: skip
  flags.DEFINE_bool("lower_case", False, "wordpiece: letters lose their case and their accents, as in uncased BERTs")
  flags.DEFINE_float("alpha", 0.3, "smoothing of the languages' shares: 1 leaves them as they are, 0 makes all equal")
  flags.DEFINE_integer("sentences", None, "paragraphs to train on; all by default, but at most a million")
  flags.DEFINE_integer("seed", 0, "the seed by which paragraphs are drawn")
  flags.DEFINE_float("character_coverage", 0.9995, "share of the characters that get a piece of their own")
  flags.DEFINE_float("memory_gb", None, "what the training may take, 10^9 bytes; by default what is free here")
  flags.DEFINE_string("report", None, "picture of the languages to write, FILE.png, with its table in FILE.json")
  flags.DEFINE_string("compare", None, "another vocabulary to measure on the same text")
  flags.DEFINE_list("languages", None, "only these, by comma, each of which the text must have; all by default")
  start(main)
