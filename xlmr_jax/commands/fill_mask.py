"""Prints the likeliest pieces for each <mask> in texts, by a run's checkpoint or a Hugging Face folder.

  xlmr fill_mask --workdir=DIR "Paris is the <mask> of France." "巴黎是<mask>国的首都。"
  xlmr fill_mask --workdir=DIR < lines.txt        one text per line; empty lines are left out

Each mask gives a line of JSON: the text, and pieces with their probabilities. "▁" in front of a piece is a space.
A BERT takes "[MASK]" too. A model with language embeddings needs --language=fr, say.
"""

import json
import sys
from collections.abc import Iterable, Iterator

from absl import flags as absl_flags

from xlmr_jax.commands import flags
from xlmr_jax.errors import UserError
from xlmr_jax.ids import MASK

MASKS = (MASK, "[MASK]")  # The second is BERT's name for it, which a model of another kind reads as text.


def main(argv: list[str]) -> None:
  """Fills the masks of the arguments or, where there are none, of the lines on stdin."""
  if flags.FLAGS.top < 1:
    raise UserError(f"--top={flags.FLAGS.top}: must be at least 1")
  for text in argv[1:]:  # before the model is loaded
    refuse_without_mask(text, repr(text))

  from xlmr_jax.open_model import open_model

  model = open_model(flags.path_of("workdir"), flags.FLAGS.checkpoint)
  for text in argv[1:] or texts_of(sys.stdin.buffer):
    for pieces in model.fill([text], flags.FLAGS.top, flags.FLAGS.language)[0]:
      found = [{"piece": piece, "probability": round(probability, 6)} for piece, probability in pieces]
      print(json.dumps({"text": text, "pieces": found}, ensure_ascii=False), flush=True)


def texts_of(lines: Iterable[bytes]) -> Iterator[str]:
  """The texts of standard input, without the byte order mark and the carriage returns of a file from Windows.

  Empty lines are left out. Raises UserError naming the line that is not UTF-8, or that has no mask.
  """
  for number, line in enumerate(lines, 1):
    try:
      text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
      raise UserError(
        f"standard input, line {number}: byte {line[error.start]:#04x} at {error.start + 1} is not UTF-8; convert the text"
      ) from None
    if text.strip():
      refuse_without_mask(text, f"line {number} of standard input, {text[:60]!r}")
      yield text


def refuse_without_mask(text: str, where: str) -> None:
  """UserError unless a text is one, with a mask. where: how a message names it."""
  if any("\ud800" <= character <= "\udfff" for character in text):  # what Python makes of an argument's other bytes
    raise UserError(f"{where}: not UTF-8; convert the text")
  if not any(mask in text for mask in MASKS):
    raise UserError(f"no {MASK} in {where}")


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string("workdir", None, "folder of a run, or a Hugging Face folder", required=True)
  absl_flags.DEFINE_string("checkpoint", "latest", "a step, best, latest, or initial")
  absl_flags.DEFINE_integer("top", 5, "pieces per mask")
  absl_flags.DEFINE_string("language", "", "the texts' language, such as fr, for a model with language embeddings")
  flags.start(main)
