"""Command: masked loss and bits a byte of a run's checkpoint on any rows made with its vocabulary, per language.

  xlmr build_rows --text=TEXT --tokenizer=RUN_ROWS/tokenizer.model --held_out=0 --out=ROWS ...
  xlmr score --workdir=RUN --rows=ROWS [--checkpoint=STEP|best|latest|initial] [--passes=4] [--out=FILE.json]

Every row is masked --passes times, each time anew, always the same for the same rows.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from xlmr_jax import open_model as runs
from xlmr_jax.errors import UserError, run_command

FLAGS = flags.FLAGS


def score(workdir: Path, rows: Path, checkpoint: str = "latest", passes: int = 4, batch_rows: int = 64) -> dict:
  """{"step", "rows", "languages": {name: {"loss" nats a masked token, "bits_per_byte"}}}."""
  import jax

  from xlmr_jax.data import masking
  from xlmr_jax.data.pipeline import held_out_batches
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.training.loop import bits_per_nat, build_model, make_held_out_step

  run = runs.read_run(workdir)
  config = ConfigDict(run["config"])
  store = RowStore(rows, tokenizer_sha256=run["tokenizer_sha256"])
  if store.seq_len + 2 > config.model.max_positions:
    raise UserError(f"{rows} has rows of {store.seq_len} tokens; the run's model takes {config.model.max_positions - 2}")
  if passes < 1:
    raise UserError(f"--passes={passes}: at least 1")
  model = build_model(config, store.vocabulary_size)
  step, params = runs.load_params(workdir, run, config, checkpoint)
  languages = len(store.languages)
  held_out_step = jax.jit(make_held_out_step(model, languages))
  sums = np.zeros((2, languages))
  for seed in range(passes):
    with held_out_batches(
      store,
      split="train",
      batch_rows=batch_rows,
      seed=seed,
      mask_share=config.data.mask_share,
      slots=masking.slots_per_row(store.seq_len, config.data.mask_share),
    ) as batches:
      for batch in batches:
        sums += np.stack(jax.device_get(held_out_step(params, batch)))
  if not sums[1].all():
    raise UserError(f"{rows}: nothing to score in {', '.join(np.array(store.languages)[sums[1] == 0])}")
  per_token, factor = sums[0] / sums[1], bits_per_nat(store, "train")
  return {
    "step": step,
    "rows": str(rows),
    "languages": {
      name: {"loss": float(per_token[i]), "bits_per_byte": float(per_token[i] * factor[i])}
      for i, name in enumerate(store.languages)
    },
  }


def main(_) -> int | None:
  from xlmr_jax.run import hosts

  logging.set_verbosity(logging.WARNING)
  hosts.keep_freed_memory()
  result = score(Path(FLAGS.workdir), Path(FLAGS.rows), FLAGS.checkpoint, FLAGS.passes)
  print(f"{'language':12s} {'nats/token':>10s} {'bits/byte':>10s}", file=sys.stderr)
  for name, of in result["languages"].items():
    print(f"{name:12s} {of['loss']:10.3f} {of['bits_per_byte']:10.3f}", file=sys.stderr)
  if FLAGS.out:
    from xlmr_jax.run.metrics import write_json

    write_json(FLAGS.out, result)
  of = result["languages"].values()
  print(
    json.dumps(
      {
        "step": result["step"],
        "languages": len(of),
        "loss": float(np.mean([x["loss"] for x in of])),
        "bits_per_byte": float(np.mean([x["bits_per_byte"] for x in of])),
      }
    )
  )


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "folder of the run", required=True)
  flags.DEFINE_string("rows", None, "rows to score, their train split, made with the run's vocabulary", required=True)
  flags.DEFINE_string("checkpoint", "latest", "a step, best, latest, or initial")
  flags.DEFINE_integer("passes", 4, "times that every row is masked")
  flags.DEFINE_string("out", None, "also write the scores of each language to this JSON file")
  app.run(run_command(main))
