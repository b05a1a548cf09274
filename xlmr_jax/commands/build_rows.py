"""Turns a folder of text into rows of tokens in all its languages.

  xlmr build_rows --text=DIR --tokenizer=FILE.model --out=ROWS [--seq_len=512] [--held_out=0.01] [--workers=N]

With --add, ROWS may be a finished store, to which the languages of the text are added; those it has are built anew.

  xlmr build_rows --parallel=DIR --tokenizer=FILE.model --out=ROWS --add      adds rows of parallel sentences

It runs on this machine. With Beam's own flags, such as --runner=DataflowRunner, Apache Beam runs it; its workers must see
all three paths. Each of them may lie in a bucket, gs://BUCKET/NAME.
"""

import json
import logging
import sys

from absl import flags

from xlmr_jax.commands.flags import FLAGS, exit_on_signals, parse_flags, path_of, start
from xlmr_jax.errors import UserError


def main(argv: list[str]) -> int | None:
  """Builds the rows and prints one line of JSON. argv: the command's name, and the flags that are left for Beam."""
  from xlmr_jax.corpus.build import build_rows
  from xlmr_jax.corpus.sources.parallel import ParallelText
  from xlmr_jax.corpus.sources.registry import text_source
  from xlmr_jax.data.tokenizer import open_tokenizer
  from xlmr_jax.huggingface.tokenizer import why_no_export

  tokenizer, out = path_of("tokenizer"), path_of("out", makes="folder")
  logging.disable(logging.WARNING)  # Beam's notices; ours do not go through logging.
  stopped = exit_on_signals()
  if FLAGS.export and (why := why_no_export(open_tokenizer(tokenizer))):
    raise UserError(f"{why}; --noexport builds the rows all the same, for a model that stays here")
  if FLAGS.parallel is not None and (FLAGS.text is not None or FLAGS.source is not None):
    raise UserError("--parallel: build the rows of --text first, and add the parallel ones with --add")
  try:
    if FLAGS.parallel is None:
      source = text_source(FLAGS.text, FLAGS.source, FLAGS.languages)
    else:
      source = ParallelText(path_of("parallel"), FLAGS.languages)
    summary = build_rows(
      source,
      tokenizer,
      out,
      seq_len=FLAGS.seq_len,
      held_out=FLAGS.held_out,
      workers=FLAGS.workers,
      shard_mb=FLAGS.shard_mb,
      beam_flags=argv[1:],
      add=FLAGS.add,
      word_starts=FLAGS.word_starts,
    )
  except BaseException:
    if not stopped:
      raise
    print("stopped; nothing is left behind", file=sys.stderr)
    return 128 + stopped[0]
  print(json.dumps(summary))
  return None


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string("text", None, "folder with LANG.txt[.gz|.xz|.bz2|.zst] or LANG/ with several of them")
  flags.DEFINE_string(
    "source", None, "instead of --text, labelled text as cc100:DIR, jsonl:FILES, parquet:FILES or tfds:NAME"
  )
  flags.DEFINE_string("parallel", None, "instead of --text, parallel sentences: folder with NAME.en-fr.en and NAME.en-fr.fr")
  flags.DEFINE_string("tokenizer", None, "vocabulary, such as `xlmr train_vocabulary` writes it", required=True)
  flags.DEFINE_string("out", None, "folder to make: the rows, as one TFDS dataset per language", required=True)
  flags.DEFINE_bool("add", False, "put the languages into the rows at --out, in the place of those of the same name")
  flags.DEFINE_bool("word_starts", False, "have the rows tell where words start, for config.data.mask_unit=word and span")
  flags.DEFINE_bool("export", True, "refuse a vocabulary with which no model can be exported to Hugging Face")
  flags.DEFINE_integer("seq_len", 512, "tokens per row")
  flags.DEFINE_float("held_out", 0.01, "share of the documents that are held out")
  flags.DEFINE_list("languages", None, "only these, by comma, each of which the text must have; all by default")
  flags.DEFINE_integer("workers", None, "threads or processes, unless Beam runs the build; all cores by default")
  flags.DEFINE_float(
    "shard_mb", 32, "10^6 bytes of text per file of rows, after which plain JSON lines are cut too; it changes the rows"
  )
  FLAGS.set_gnu_getopt(True)
  start(main, lambda argv: parse_flags(argv, known_only=True))
