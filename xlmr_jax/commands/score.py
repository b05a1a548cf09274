"""Computes masked loss and bits per byte, per language, of a run's checkpoint on any rows made with its vocabulary.

  xlmr build_rows --text=TEXT --tokenizer=RUN_ROWS/tokenizer.model --held_out=0 --out=ROWS ...
  xlmr score --workdir=RUN --rows=ROWS [--checkpoint=STEP|best|latest|initial] [--passes=4] [--out=FILE.json]

Every row is masked --passes times, each time anew, and always the same for the same rows.
"""

import json
import os
import sys
from typing import Any

from absl import flags as absl_flags

from xlmr_jax.commands import flags


def score(
  path: str | os.PathLike, rows: str | os.PathLike, checkpoint: str = "latest", passes: int = 4, batch_rows: int = 64,
  split: str = "train", language: str = "",
) -> dict[str, Any]:  # fmt: skip
  """The held-out pass of a run, by one device, over the rows of a split.

  passes: times that every row is masked, with the seeds 0, 1, ...
  language: of a model with language embeddings, the one that all rows of one language count as; by default their own.
  Pairs of parallel sentences are left out, with a line on stderr, for a model that would read them as running text.
  Returns {"step", "rows", "languages": {name: {"loss": nats per masked token, "bits_per_byte"}}}, and "parallel", those of
  the languages that are pairs and so in no mean, if there are any. Raises UserError if the rows do not fit the run, if the
  checkpoint cannot be read, or if a language has no rows.
  """
  import jax
  import numpy as np
  from ml_collections import ConfigDict

  from xlmr_jax.data.masking import slots_per_row
  from xlmr_jax.data.pipeline import BatchSpec, held_out_batches
  from xlmr_jax.data.verification import Verification
  from xlmr_jax.errors import UserError
  from xlmr_jax.model.build import family_of
  from xlmr_jax.open_model import headless, load_params, open_record
  from xlmr_jax.run.workdir import Workdir
  from xlmr_jax.training import sharding
  from xlmr_jax.training.held_out import bits_per_nat, held_out_losses
  from xlmr_jax.training.model_languages import sides_of
  from xlmr_jax.training.program import build_program

  record = open_record(path)
  config = ConfigDict(record.config)
  config.model.update(attention="auto", fuse="auto")  # A kernel that the run named may not run on this machine.
  store = open_rows(rows, config, record.tokenizer_sha256)
  longest = family_of(config).max_seq_len(config.model)
  if store.seq_len > longest:
    raise UserError(f"{rows} has rows of {store.seq_len} tokens, but the run's model takes {longest}; build shorter rows")
  sides = sides_of(config, store, language)
  if passes < 1:
    raise UserError(f"--passes={passes}: must be at least 1")
  verification = Verification(store)
  step, params = load_params(path, record, config, checkpoint)
  if folder := headless(Workdir(path), record, step):
    raise UserError(f"{folder} has no masked-language-model head, so that there is no masked loss; train one first")
  mesh, languages = sharding.make_mesh(1, 1, jax.devices()[:1]), len(store.languages)
  total = np.zeros((2, languages))
  with jax.set_mesh(mesh):
    program = build_program(
      config, mesh, vocabulary_size=store.vocabulary_size, languages=languages, seq_len=store.seq_len, sides=sides
    )
    for seed in range(passes):
      slots = slots_per_row(store.seq_len, config.data.mask_share)
      spec = BatchSpec(batch_rows, None, slots, seed, config.data.mask_share)
      with held_out_batches(store, spec, split=split) as batches:
        found = held_out_losses(program.held_out_step, params, batches, mesh, batch_rows, languages)
      total = total + np.asarray(found)
  verification.finish()
  sums, weights = total
  if not weights.all():
    raise UserError(f"{rows}: nothing to score in {', '.join(np.array(store.languages)[weights == 0])}")
  losses = sums / weights
  bits = losses * bits_per_nat(store, split)
  values = zip(store.languages, losses, bits)
  found = {name: {"loss": float(loss), "bits_per_byte": float(bit)} for name, loss, bit in values}
  parallel = {"parallel": list(store.pairs)} if store.pairs else {}
  return {"step": step, "rows": str(rows), "languages": found} | parallel


def open_rows(rows: str | os.PathLike, config: Any, tokenizer_sha256: str) -> Any:
  """The RowStore to score, without pairs of parallel sentences for a model that would read them as running text.

  Says so on stderr. UserError: there is nothing else, or the rows were made with another vocabulary.
  """
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.errors import UserError
  from xlmr_jax.training.model_languages import reads_pairs

  store = RowStore(rows, tokenizer_sha256=tokenizer_sha256)
  if store.pairs and not reads_pairs(config):
    single = [name for name in store.languages if name not in store.pairs]
    if not single:
      raise UserError(f"{rows} has only pairs of parallel sentences, which the run's model would read as running text; "
                      "give rows of single languages")  # fmt: skip
    print(f"left out: {', '.join(store.pairs)}, pairs of parallel sentences, which the model would read as running text",
          file=sys.stderr)  # fmt: skip
    return RowStore(rows, single, tokenizer_sha256=tokenizer_sha256)
  return store


def means(result: dict[str, Any]) -> dict[str, Any]:
  """{"step", "languages": how many, "loss", "bits_per_byte"}: means of what score() returns over its single languages."""
  languages = result["languages"]
  single = [values for name, values in languages.items() if name not in result.get("parallel", ())]
  single = single or list(languages.values())
  mean = {key: sum(values[key] for values in single) / len(single) for key in ("loss", "bits_per_byte")}
  return {"step": result["step"], "languages": len(single)} | mean


def main(argv: list[str]) -> None:
  """Scores, prints a table on stderr, and the means over languages as the last line."""
  flags.refuse_arguments(argv)
  workdir, rows = flags.path_of("workdir"), flags.path_of("rows")
  out = flags.path_of("out", makes="file") if flags.FLAGS.out is not None else None

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
  absl_flags.DEFINE_string("rows", None, "rows to score, their train split, made with the run's vocabulary", required=True)
  absl_flags.DEFINE_string("checkpoint", "latest", "a step, best, latest, or initial")
  absl_flags.DEFINE_integer("passes", 4, "times that every row is masked")
  absl_flags.DEFINE_string("language", "", "of a model with language embeddings, the one that all rows count as")
  absl_flags.DEFINE_string("out", None, "also write the loss of each language to this JSON file")
  flags.start(main)
