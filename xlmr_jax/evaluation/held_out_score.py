"""The masked loss and bits per byte of a checkpoint on any rows made with its vocabulary, as `xlmr score` tells them."""

import os
import sys
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.data.pipeline import BatchSpec, held_out_batches
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.verification import Verification
from xlmr_jax.errors import UserError
from xlmr_jax.model.build import family_of
from xlmr_jax.open_model import headless, load_params, open_record
from xlmr_jax.progress import Progress, counted
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import sharding
from xlmr_jax.training.held_out import bits_per_nat, held_out_losses
from xlmr_jax.training.model_languages import reads_pairs, sides_of
from xlmr_jax.training.program import build_program


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
  rows_to_score = passes * int(store.counts(split).sum())
  with jax.set_mesh(mesh), Progress(f"scoring {rows}", rows_to_score, "rows", compiles=True) as scoring:
    program = build_program(
      config, mesh, vocabulary_size=store.vocabulary_size, languages=languages, seq_len=store.seq_len, sides=sides
    )
    print(program.ops, file=sys.stderr, flush=True)
    for seed in range(passes):
      slots = slots_per_row(store.seq_len, config.data.mask_share)
      spec = BatchSpec(batch_rows, None, slots, seed, config.data.mask_share)
      with held_out_batches(store, spec, split=split) as batches:
        counting = counted(batches, scoring, batch_rows)
        found = held_out_losses(program.held_out_step, params, counting, mesh, batch_rows, languages)
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


def open_rows(rows: str | os.PathLike, config: ConfigDict, tokenizer_sha256: str) -> RowStore:
  """The RowStore to score, without pairs of parallel sentences for a model that would read them as running text.

  Says so on stderr. UserError: there is nothing else, or the rows were made with another vocabulary.
  """
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
