"""Times the real train_step on synthetic batches; imports no TensorFlow.

  python -m benchmarks.step --layers=4 --hidden=256 --heads=4 --ffn=1024 --vocab=32000 --seq=128 --rows=32 --dtype=bf16

The last line is JSON; the peer (transformers on PyTorch) takes the same flags. Step time is the median, as the peer's.
"""

import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from xlmr_jax import hosts, optimizer
from xlmr_jax.model import XLMR
from xlmr_jax.train import make_init, make_train_step

FLAGS = flags.FLAGS
DTYPES = {"bf16": jnp.bfloat16, "fp32": jnp.float32}
for name, default in dict(vocab=250_002, layers=12, hidden=768, heads=12, ffn=3072, seq=512, rows=8, steps=8).items():
  flags.DEFINE_integer(name, default, "as the peer's flag of this name")
flags.DEFINE_enum("dtype", "bf16", list(DTYPES), "compute dtype; parameters are fp32")
flags.DEFINE_float("dropout", 0.1, "on hidden states and attention probabilities")
flags.DEFINE_bool("unroll", True, "unroll the scan over layers")
flags.DEFINE_string("remat", "none", "none | dots | full")


def synthetic_batch(rng: np.random.Generator, rows: int, seq: int, vocab: int) -> dict[str, np.ndarray]:
  """One masked batch of random pieces, 15 % of each row masked, slots as the input pipeline lays them out."""
  masked = int(0.15 * seq)
  slots = -(-int(0.15 * (seq - 2) + 1) // 8) * 8
  ids = rng.integers(4, vocab - 1, (rows, seq), dtype=np.int32)
  ids[:, 0], ids[:, -1] = 0, 2
  positions = np.zeros((rows, slots), np.int32)
  labels, weights = np.ones((rows, slots), np.int32), np.zeros((rows, slots), np.float32)
  for r in range(rows):
    positions[r, :masked] = np.sort(rng.permutation(np.arange(1, seq - 1))[:masked])
    labels[r, :masked] = ids[r, positions[r, :masked]]
    weights[r, :masked] = 1.0
    ids[r, positions[r, :masked]] = vocab - 1
  return {"ids": ids, "positions": positions, "labels": labels, "weights": weights, "language": np.zeros(rows, np.int32)}


def main(_):
  f = FLAGS
  hosts.keep_freed_memory()
  model = XLMR(f.vocab, f.layers, f.hidden, f.heads, f.ffn, max_positions=f.seq + 2, dropout=f.dropout,
               attention_dropout=f.dropout, dtype=DTYPES[f.dtype], remat=f.remat, unroll_layers=f.unroll)
  tx = optimizer.adamw(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, decay_pattern=".*", clip_norm=1.0)
  schedule = optimizer.polynomial_schedule(peak_lr=1e-4, warmup_steps=1, train_steps=1_000_000)
  state = jax.jit(make_init(model, tx))(jax.random.key(0))
  step = jax.jit(make_train_step(model, tx, schedule, seed=0, languages=1), donate_argnums=0)
  batch = jax.device_put(synthetic_batch(np.random.default_rng(0), f.rows, f.seq, f.vocab))
  seen = []
  for _ in range(f.steps + 3):
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(step(state, batch))
    seen.append(time.perf_counter() - start)
  step_s = statistics.median(seen[3:])
  loss = float(metrics["loss_sum"] / metrics["weight"])
  print(f"{jax.devices()[0].device_kind} {f.dtype} L{f.layers} d{f.hidden} V{f.vocab} seq{f.seq} rows{f.rows}: "
        f"first call {seen[0]:.1f} s")
  print(json.dumps({"tokens_per_s": round(f.rows * f.seq / step_s, 1), "step_ms": round(step_s * 1e3, 1),
                    "loss": round(loss, 4)}))


if __name__ == "__main__":
  app.run(main)
