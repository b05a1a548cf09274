"""Computes masked loss and bits per byte, per language, of a run's checkpoint on any rows made with its vocabulary.

  xlmr build_rows --text=TEXT --tokenizer=RUN_ROWS/tokenizer.model --held_out=0 --out=ROWS ...
  xlmr score --workdir=RUN --rows=ROWS [--checkpoint=STEP|best|latest|initial] [--passes=4] [--out=FILE.json]

Every row is masked --passes times, each time anew, and always the same for the same rows.
"""

import json
import sys

from absl import flags as absl_flags

from xlmr_jax.commands import flags


def main(argv: list[str]) -> None:
  """Scores, prints a table on stderr, and the means over languages as the last line."""
  flags.refuse_arguments(argv)
  workdir, rows = flags.path_of("workdir"), flags.path_of("rows")
  out = flags.path_of("out", makes="file") if flags.FLAGS.out is not None else None

  from xlmr_jax.evaluation.held_out_score import means, score
  from xlmr_jax.files import write_json
  from xlmr_jax.run import memory

  memory.keep_freed_memory()
  result = score(workdir, rows, flags.FLAGS.checkpoint, flags.FLAGS.passes, language=flags.FLAGS.language)
  languages = result["languages"]
  print(f"{'language':12s} {'nats per token':>15s} {'bits per byte':>15s}", file=sys.stderr)
  for name, values in languages.items():
    print(f"{name:12s} {values['loss']:15.3f} {values['bits_per_byte']:15.3f}", file=sys.stderr)
  if out:
    write_json(out, result)
  print(json.dumps(means(result)))


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string("workdir", None, "folder of the run", required=True)
  absl_flags.DEFINE_string(
    "rows", None, "the rows whose train split is scored, made with the run's vocabulary", required=True
  )
  absl_flags.DEFINE_string("checkpoint", "latest", "a step, best, latest, or initial")
  absl_flags.DEFINE_integer("passes", 4, "times that every row is masked")
  absl_flags.DEFINE_string("language", "", "treat all rows as this language; only for a model with language embeddings")
  absl_flags.DEFINE_string("out", None, "also write the loss of each language to this JSON file")
  flags.start(main)
