"""corpus.build against SentencePiece alone, in the same minute with the same number of workers.

    python -m benchmarks.corpus [--text=DIR --tokenizer=FILE.model] [--workers=N] [--repeats=3]

SentencePiece's own rate: all paragraphs, already decoded and in memory, in one threaded call to lists of ids.
Ours: text files to finished rows, imports left out. The two alternate; the best of each counts.
"""

import json
import tempfile
import time
from pathlib import Path

from absl import app, flags

from xlmr_jax.corpus.build import build_rows, cores
from xlmr_jax.corpus.sources import cc100 as sources
from xlmr_jax.errors import UserError, run_command

_DATA = Path(__file__).parents[2] / "shared" / "data"


def main(_) -> None:
  import sentencepiece

  given = flags.FLAGS
  for path in (given.text, given.tokenizer):
    if not Path(path).exists():
      raise UserError(f"{path}: not there; pass --text=DIR and --tokenizer=FILE.model")
  workers = given.workers or cores()
  processor = sentencepiece.SentencePieceProcessor(model_file=str(given.tokenizer))
  paragraphs = [
    line.decode("utf-8")
    for paths in sources.find_sources(given.text).values()
    for path in paths
    for block in sources.read_blocks(path)
    for document in sources.documents(block)
    for line in document.split(b"\n")
  ]
  megabytes = sum(len(line.encode()) + 1 for line in paragraphs) / 1e6
  alone, built = [], []
  for _ in range(given.repeats):
    began = time.perf_counter()
    processor.encode(paragraphs, num_threads=workers)
    alone.append(megabytes / (time.perf_counter() - began))
    with tempfile.TemporaryDirectory() as folder:
      summary = build_rows(given.text, given.tokenizer, Path(folder) / "rows", workers=workers)
    built.append(summary["mb_per_s"])
    print(f"SentencePiece {alone[-1]:.1f} MB/s, corpus.build {built[-1]:.1f} MB/s", flush=True)
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
