"""Trains a SentencePiece vocabulary on a folder of text, with the shares of its languages smoothed.

xlmr train_vocabulary --text=DIR --size=32000 --alpha=0.3 --out=FILE.model
"""

import json
import sys

from absl import flags

from xlmr_jax.commands.flags import FLAGS, refuse_arguments, start


def main(argv: list[str]) -> None:
  """Trains the vocabulary; prints a table of the languages on stderr and one line of JSON on stdout."""
  refuse_arguments(argv)
  from xlmr_jax.corpus.sources.registry import open_source
  from xlmr_jax.corpus.vocabulary import train_vocabulary

  summary = train_vocabulary(
    open_source(FLAGS.source, FLAGS.text, FLAGS.languages),
    FLAGS.out,
    size=FLAGS.size,
    alpha=FLAGS.alpha,
    sentences=FLAGS.sentences,
    seed=FLAGS.seed,
    character_coverage=FLAGS.character_coverage,
  )
  print(f"{'language':>10} {'paragraphs':>12} {'sampled':>10} {'characters/token':>17}", file=sys.stderr)
  for row in summary.pop("table"):
    print("{language:>10} {paragraphs:>12} {sampled:>10} {characters_per_token:>17}".format(**row), file=sys.stderr)
  print(json.dumps(summary))


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string("text", None, "folder with LANG.txt[.gz|.xz|.bz2|.zst] or LANG/ with several of them", required=True)
  flags.DEFINE_string("source", "cc100", "format of the text")
  flags.DEFINE_string("out", None, "the model file to write", required=True)
  flags.DEFINE_integer("size", None, "ids, the special ones counted; XLM-R has 250002", required=True)
  flags.DEFINE_float("alpha", 0.3, "smoothing of the languages' shares: 1 leaves them as they are, 0 makes all equal")
  flags.DEFINE_integer("sentences", None, "paragraphs to train on; all by default, but at most a million")
  flags.DEFINE_integer("seed", 0, "of the sample")
  flags.DEFINE_float("character_coverage", 0.9995, "share of the characters that get a piece of their own")
  flags.DEFINE_list("languages", None, "only these, by comma; all by default")
  start(main)
