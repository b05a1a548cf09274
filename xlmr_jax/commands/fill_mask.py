"""Command: the likeliest pieces for a <mask>, of a run's checkpoint or a Hugging Face folder.

  xlmr fill_mask --workdir=DIR "Paris is the <mask> of France." "巴黎是<mask>国的首都。"
  xlmr fill_mask --workdir=DIR < lines.txt        # a text a line

A line of JSON a mask: the text and pieces with their probabilities. "▁" before a piece is a space: it begins a word.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from xlmr_jax import open_model as runs
from xlmr_jax.data.tokenizer import MASK
from xlmr_jax.errors import UserError, run_command

FLAGS = flags.FLAGS


def make_filler(workdir: Path, checkpoint: str = "latest", top: int = 5) -> Callable[[str], list[list[tuple[str, float]]]]:
  """text -> for each <mask> in it the `top` likeliest pieces and their probabilities; computed in fp32.

  The filler raises UserError: a text without a mask, or longer than the model's rows.
  """
  import jax
  import jax.numpy as jnp

  from xlmr_jax.data.tokenizer import FIRST_PIECE, PAD
  from xlmr_jax.evaluation.finetune import lengths_of
  from xlmr_jax.training.loop import build_model

  record = runs.read_run(workdir)
  config = ConfigDict(record["config"])
  config.model.dtype = "float32"
  model, tokenizer = build_model(config, record["vocabulary_size"]), runs.vocabulary_of(workdir, record)
  _, params = runs.load_params(workdir, record, config, checkpoint)
  longest = config.model.max_positions - 2

  @jax.jit
  def likeliest(params, ids_1xL, position):
    h_1x1xD = model.apply({"params": params}, ids_1xL, position[None, None])
    table_VxD = params["token_embedding"][: model.vocabulary_size]
    logits_V = table_VxD @ h_1x1xD[0, 0] + params["head_bias"][: model.vocabulary_size]
    id_V = jnp.arange(model.vocabulary_size)
    is_piece_V = (id_V >= FIRST_PIECE) & (id_V != tokenizer.mask_id)  # fairseq hides <s> and </s> too; here nobody does
    return jax.lax.top_k(jnp.where(is_piece_V, jax.nn.softmax(logits_V), 0.0), top)

  def fill(text: str) -> list[list[tuple[str, float]]]:
    ids = tokenizer.encode_masked(text)
    if tokenizer.mask_id not in ids:
      raise UserError(f"no {MASK} in {text!r}")
    if len(ids) > longest:
      raise UserError(f"{len(ids)} tokens, the model takes {longest}: {text[:60]!r}...")
    length = next(n for n in lengths_of(longest) if n >= len(ids))  # one program for texts of about one length
    row = np.full((1, length), PAD, np.int32)
    row[0, : len(ids)] = ids
    result = []
    for position in np.flatnonzero(np.array(ids) == tokenizer.mask_id):
      probabilities, pieces = jax.device_get(likeliest(params, row, jnp.int32(position)))
      result.append([(tokenizer.piece(piece), float(p)) for piece, p in zip(pieces, probabilities)])
    return result

  return fill


def texts(arguments: list[str], lines) -> Iterator[str]:
  """The arguments, or where there are none the lines of a file that are not empty."""
  yield from arguments or filter(None, (line.rstrip("\n") for line in lines))


def main(argv: list[str]) -> int | None:
  logging.set_verbosity(logging.WARNING)
  if FLAGS.top < 1:
    raise UserError(f"--top={FLAGS.top}: at least 1")
  unmasked = next((text for text in argv[1:] if MASK not in text), None)
  if unmasked is not None:
    raise UserError(f"no {MASK} in {unmasked!r}")  # before the model is loaded
  fill = make_filler(Path(FLAGS.workdir).absolute(), FLAGS.checkpoint, FLAGS.top)
  for text in texts(argv[1:], sys.stdin):
    for pieces in fill(text):
      found = [{"piece": piece, "probability": round(p, 6)} for piece, p in pieces]
      print(json.dumps({"text": text, "pieces": found}, ensure_ascii=False), flush=True)
  return None


if __name__ == "__main__":
  from xlmr_jax.commands.pretrain import parse_flags

  flags.DEFINE_string("workdir", None, "folder of a run, or a Hugging Face folder", required=True)
  flags.DEFINE_string("checkpoint", "latest", "best, latest, initial or a step")
  flags.DEFINE_integer("top", 5, "pieces a mask")
  app.run(run_command(main), flags_parser=parse_flags)
