"""`xlmr build_rows` against SentencePiece alone, in the same minute and with the same number of workers.

    python -m benchmarks.corpus [--text=DIR --tokenizer=FILE.model] [--workers=N] [--repeats=3]

SentencePiece's own rate: one threaded call encodes all paragraphs, which are decoded and in memory, to lists of ids.
Ours: from text files to finished rows, without the imports. The two alternate, and the best of each counts.
"""

import json
import tempfile
import time
from pathlib import Path

from absl import app, flags

from xlmr_jax.corpus.build import build_rows
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.workers import cores
from xlmr_jax.errors import UserError, run_command

_DATA = Path(__file__).parents[2] / "shared" / "data"


def main(_: list[str]) -> None:
  import sentencepiece

  given = flags.FLAGS
  for path in (given.text, given.tokenizer):
    if not Path(path).exists():
      raise UserError(f"{path}: not there; pass --text=DIR and --tokenizer=FILE.model")
  workers = given.workers or cores()
  processor = sentencepiece.SentencePieceProcessor(model_file=str(given.tokenizer))
  source = CC100(given.text)
  paragraphs = [
    line for shard in source.shards(32 << 20) for document in source.documents(shard) for line in document.text.split("\n")
  ]
  megabytes = sum(len(line.encode()) + 1 for line in paragraphs) / 1e6
  alone, built = [], []
  for _ in range(given.repeats):
    began = time.perf_counter()
    processor.encode(paragraphs, num_threads=workers)
    alone.append(megabytes / (time.perf_counter() - began))
    with tempfile.TemporaryDirectory() as folder:
      summary = build_rows(source, given.tokenizer, Path(folder) / "rows", workers=workers)
    built.append(summary["mb_per_s"])
    print(f"SentencePiece {alone[-1]:.1f} MB/s, build_rows {built[-1]:.1f} MB/s", flush=True)
  print(
    json.dumps(
      {
        "mb": round(megabytes, 1),
        "workers": workers,
        "sentencepiece_mb_per_s": round(max(alone), 2),
        "mb_per_s": max(built),
        "ratio": round(max(built) / max(alone), 3),
        "real_token_share": summary["real_token_share"],
      }
    )
  )


if __name__ == "__main__":
  flags.DEFINE_string("text", str(_DATA / "tiny100"), "folder in CC-100 layout")
  flags.DEFINE_string("tokenizer", str(_DATA / "tokenizer" / "xlmr.spm.model"), "SentencePiece model")
  flags.DEFINE_integer("workers", None, "of both; all cores by default")
  flags.DEFINE_integer("repeats", 3, "of both, alternating", lower_bound=1)
  app.run(run_command(main))
