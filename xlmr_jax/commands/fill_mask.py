"""Prints the likeliest pieces for each <mask> in texts, by a run's checkpoint or a Hugging Face folder.

  xlmr fill_mask --workdir=DIR "Paris is the <mask> of France." "巴黎是<mask>国的首都。"
  xlmr fill_mask --workdir=DIR < lines.txt        one text per line

Each mask gives a line of JSON: the text, and pieces with their probabilities. "▁" in front of a piece is a space.
"""

import json
import sys

from absl import flags as absl_flags

from xlmr_jax.commands import flags
from xlmr_jax.errors import UserError
from xlmr_jax.ids import MASK


def main(argv: list[str]) -> None:
  """Fills the masks of the arguments or, where there are none, of the lines on stdin."""
  if flags.FLAGS.top < 1:
    raise UserError(f"--top={flags.FLAGS.top}: must be at least 1")
  for text in argv[1:]:  # before the model is loaded
    if MASK not in text:
      raise UserError(f"no {MASK} in {text!r}")

  from xlmr_jax.open_model import open_model

  model = open_model(flags.path_of("workdir"), flags.FLAGS.checkpoint)
  for text in argv[1:] or filter(None, (line.rstrip("\n") for line in sys.stdin)):
    for pieces in model.fill([text], flags.FLAGS.top)[0]:
      found = [{"piece": piece, "probability": round(probability, 6)} for piece, probability in pieces]
      print(json.dumps({"text": text, "pieces": found}, ensure_ascii=False), flush=True)


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string("workdir", None, "folder of a run, or a Hugging Face folder", required=True)
  absl_flags.DEFINE_string("checkpoint", "latest", "best, latest, initial or a step")
  absl_flags.DEFINE_integer("top", 5, "pieces per mask")
  flags.start(main)
