"""Masked batches by pieces, words and spans, beside transformers' collator with and without whole words, in turn.

    python -m benchmarks.masking --seconds=4 --rounds=3

Ours is all of train_batches, rows read from disk; the collator has its rows in memory. It needs transformers and torch,
without which only ours is measured. Flags are those of benchmarks.input. The last line is JSON: 10^6 tokens per second, the
median over rounds, and how many times as fast ours is as the collator without words.
"""

import importlib.util
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.input import FLAGS, open_mixture, stream_tokens_per_s, write_store
from xlmr_jax.data.mask_units import UNITS
from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.data.pipeline import BatchSpec, train_batches
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import run_command
from xlmr_jax.ids import FIRST_PIECE

flags.DEFINE_integer("rounds", 3, "how often each is measured")


def ours(root: Path, unit: str) -> float:
  """Tokens per second of train_batches."""
  store = RowStore(root, marks_words=unit != "piece")
  spec = BatchSpec(FLAGS.batch_rows, None, slots_per_row(store.seq_len), seed=0, unit=unit)
  stream = train_batches(store, open_mixture(store), spec, 0)
  return stream_tokens_per_s(stream, FLAGS.batch_rows * store.seq_len, FLAGS.seconds)


def collator(whole_words: bool) -> float:
  """Tokens per second of transformers' DataCollatorForLanguageModeling; words are told by offsets, of 1.4 pieces each."""
  import tokenizers
  import transformers

  names = {f"w{i}": i for i in range(FLAGS.vocab)}
  backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="w3"))
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, bos_token="w0", pad_token="w1", eos_token="w2", unk_token="w3", cls_token="w0", sep_token="w2",
    mask_token=f"w{FLAGS.vocab - 1}",
  )  # fmt: skip
  # With words it warns, unless all of them become <mask>.
  options: dict[str, Any] = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0} if whole_words else {}
  collate = transformers.DataCollatorForLanguageModeling(tokenizer, whole_word_mask=whole_words, **options)
  rng = np.random.default_rng(0)
  examples = []
  for row in rng.integers(FIRST_PIECE, FLAGS.vocab - 1, (FLAGS.batch_rows, FLAGS.seq_len)):
    example = {"input_ids": row.tolist(), "special_tokens_mask": [0] * len(row)}
    if whole_words:
      begins = np.cumsum(1 + (rng.random(len(row)) < 0.7))
      example["offset_mapping"] = [(int(begin), int(begin) + 1) for begin in begins]
    examples.append(example)
  collate(examples)
  start, batches = time.perf_counter(), 0
  while time.perf_counter() - start < FLAGS.seconds:
    collate([dict(example) for example in examples])
    batches += 1
  return batches * FLAGS.batch_rows * FLAGS.seq_len / (time.perf_counter() - start)


def main(argv) -> None:
  del argv
  has_peer = all(importlib.util.find_spec(name) for name in ("transformers", "torch", "tokenizers"))
  rates: dict[str, list[float]] = {}
  with tempfile.TemporaryDirectory(prefix="xlmr_masking_") as folder:
    root = Path(folder)
    write_store(
      root, seq_len=FLAGS.seq_len, rows=FLAGS.rows, vocabulary_size=FLAGS.vocab, languages=FLAGS.languages, words=True
    )
    for _ in range(FLAGS.rounds):
      for unit in UNITS:
        rates.setdefault(unit, []).append(ours(root, unit))
      for name, whole in (("collator", False), ("collator_words", True)) if has_peer else ():
        rates.setdefault(name, []).append(collator(whole))
  medians = {name: statistics.median(found) for name, found in rates.items()}
  result = {name: round(rate / 1e6, 2) for name, rate in medians.items()}
  if has_peer:
    result |= {f"{unit}_ratio": round(medians[unit] / medians["collator"], 1) for unit in UNITS}
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(run_command(main))
