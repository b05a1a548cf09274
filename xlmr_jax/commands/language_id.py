"""Trains a model that tells languages on labelled text, or tests one.

xlmr language_id train --text=DIR --out=FILE [--quantize]
xlmr language_id test --model=cld2|FILE --text=DIR [--unit=document|line]
"""

import json
import sys

from absl import flags

from xlmr_jax.commands.flags import FLAGS, local_path_of, start
from xlmr_jax.errors import UserError


def main(argv: list[str]) -> None:
  """Prints one line of JSON on stdout; a test also prints a table of the languages on stderr."""
  if argv[1:] not in (["train"], ["test"]):
    given = " ".join(argv[1:]) or "nothing"
    raise UserError(
      f"xlmr language_id takes train or test as its only argument, not {given!r}; flags are written --name=value"
    )
  if argv[1] == "train":
    _train()
  else:
    _test()


def _train() -> None:
  from xlmr_jax.corpus.language_id_training import train

  if not FLAGS.out:
    raise UserError("xlmr language_id train needs --out=FILE")
  out = local_path_of("out", makes="file")
  print(json.dumps(train(local_path_of("text"), out, quantize=FLAGS.quantize) | {"out": str(out)}))


def _test() -> None:
  from xlmr_jax.corpus.language_id import open_identifier
  from xlmr_jax.corpus.language_id_training import test

  spec = FLAGS.model if FLAGS.model == "cld2" else f"fasttext:{FLAGS.model.removeprefix('fasttext:')}"
  summary = test(open_identifier(spec), local_path_of("text"), unit=FLAGS.unit)
  print(f"{'language':>10} {'units':>8} {'recall':>7} {'precision':>9}  taken for", file=sys.stderr)
  for row in summary.pop("table"):
    wrong = ", ".join(f"{answer} {number}" for answer, number in row.pop("confusions"))
    print("{language:>10} {units:>8} {recall:>7.3f} {precision:>9.3f}".format(**row) + f"  {wrong}", file=sys.stderr)
  print(json.dumps({name: round(value, 5) for name, value in summary.items()}))


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string(
    "text", None, "folder of labelled text: LANG.txt[.gz|.xz|.bz2|.zst] or LANG/ with several of them", required=True
  )
  flags.DEFINE_string("out", None, "train: the model file to write, usually .bin, or .ftz with --quantize")
  flags.DEFINE_boolean("quantize", False, "train: make the model about a quarter as large, at the cost of some accuracy")
  flags.DEFINE_string("model", "cld2", "test: cld2, or a fastText model file")
  flags.DEFINE_enum(
    "unit", "document", ["document", "line"],
    "test: what is identified at a time. A file without a blank line is taken for sentences, one per line, in any case",
  )  # fmt: skip
  start(main)
