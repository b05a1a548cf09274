"""What each step of `xlmr build_corpus` costs, its memory, and what that means for a dump of CommonCrawl.

  python -m benchmarks.corpus_steps [--text=../shared/data/tiny100] [--tokenizer=FILE.model] [--memory]

Rates are 10^6 bytes of text per second of one core's time, the best of three. --memory builds the text, and ten times as
much, once each, and compares the peaks of a worker. The last line is JSON.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus_faults import record
from xlmr_jax.corpus import filters, near_duplicates, paragraphs
from xlmr_jax.corpus.language_id import open_identifier
from xlmr_jax.corpus.repair import repair_all
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.data.tokenizer import open_tokenizer

BLOCK = 1000  # documents at a time
# Prices per hour of batch workers on Dataflow in us-central1, from memory; cloud.google.com/dataflow/pricing has today's.
PRICE = {"vcpu": 0.056, "memory_gb": 0.003557, "disk_gb": 0.000054}
MEMORY_GB, DISK_GB = 3.75, 30  # per vCPU


def rate(megabytes: float, work: Callable[[], Any]) -> float:
  """10^6 bytes per second of processor time, the best of three."""
  best = float("inf")
  for _ in range(3):
    began = time.process_time()
    work()
    best = min(best, time.process_time() - began)
  return megabytes / best


def measure(texts: list[str], tokenizer: Path | None, wet: Path) -> dict[str, float]:
  """The rate of each step over texts in random order."""
  size = sum(len(text.encode()) for text in texts) / 1e6
  blocks = [texts[i : i + BLOCK] for i in range(0, len(texts), BLOCK)]
  small = [texts[i : i + 100] for i in range(0, len(texts), 100)]
  identifier = open_identifier()
  identifier.documents([(texts[0].split("\n"), "")])
  profile, limits, _ = filters.learn(texts[:300])
  lines = [line.encode() for text in texts for line in text.split("\n")]

  def read() -> int:
    source = open_source(f"wet:{wet}")
    return sum(1 for shard in source.shards(1 << 30) for _ in source.documents(shard))

  def once(block: Sequence[str]) -> Any:
    return paragraphs.once_per_document(*paragraphs.hash_paragraphs(block))

  steps: dict[str, Callable[[], Any]] = {
    "sha1 of raw paragraphs, for comparison": lambda: [hashlib.sha1(line).digest() for line in lines],
    "read WET": read,
    "repair": lambda: [repair_all(block) for block in blocks],
    "language": lambda: [identifier.documents([(text.split("\n"), "") for text in block]) for block in blocks],
    "hash paragraphs": lambda: [once(block) for block in small],
    "filters": lambda: [filters.refuse(block, profile, limits, np.zeros(len(block), bool)) for block in small],
    "minhash": lambda: [near_duplicates.band_keys(block) for block in small],
  }
  if tokenizer:
    model = open_tokenizer(tokenizer)
    steps["tokenise"] = lambda: [
      model.encode_lines([line for text in block for line in text.split("\n")]) for block in small
    ]
  return {name: round(rate(size, work), 1) for name, work in steps.items()}


def peak_mb(wet: Path, workers: int = 2) -> tuple[float, float]:
  """(10^6 bytes of the largest worker's peak, seconds) of a build of WET files."""
  with tempfile.TemporaryDirectory() as folder:
    code = (
      "import resource, sys\nfrom pathlib import Path\nfrom xlmr_jax.corpus.clean.build import Options, build_corpus\n"
      "from xlmr_jax.corpus.sources.registry import open_source\nif __name__ == '__main__':\n"
      f"  options = Options(piece_mb=16)\n  out = Path('{folder}/clean')\n"
      f"  build_corpus(open_source('wet:{wet}'), out, options, workers={workers}, quiet=True)\n"
      "  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    script = Path(folder) / "build.py"
    script.write_text(code)
    began = time.monotonic()
    environment = {"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
  return int(result.stdout.splitlines()[-1]) * 1024 / 1e6, time.monotonic() - began


def write_wet(path: Path, texts: Sequence[str], copies: int) -> None:
  """The texts, and further copies of them in which every fifth word is another one of the same text."""
  rng = random.Random(0)
  with open(path, "wb") as file:
    for copy, (number, text) in itertools.product(range(copies), enumerate(texts)):
      if copy:
        lines = [line.split(" ") for line in text.split("\n")]
        words = [word for line in lines for word in line]
        text = "\n".join(
          " ".join(rng.choice(words) if i % 5 == copy % 5 else w for i, w in enumerate(line)) for line in lines
        )
      file.write(record(copy * len(texts) + number, "x", text.encode()))


def on_paper(rates: dict[str, float]) -> list[dict[str, Any]]:
  """What corpora cost at these rates: core hours, and machines on Dataflow by its price formula."""
  steps = ("read WET", "repair", "language", "hash paragraphs", "filters", "minhash")
  seconds_per_mb = sum(1 / rates[step] for step in steps)
  found = []
  for what, terabytes, share_of_largest in (
    ("one dump of CommonCrawl, about 8 TB of text", 8.0, 0.45),
    ("CC-100, 2.5 TB", 2.5, 0.12),
    ("English of CC-100, 0.3 TB", 0.3, 1.0),
  ):
    hours = terabytes * 1e6 * seconds_per_mb / 3600
    per_hour = PRICE["vcpu"] + MEMORY_GB * PRICE["memory_gb"] + DISK_GB * PRICE["disk_gb"]
    hashes = terabytes * 1e12 / 136 * share_of_largest  # of paragraphs of 136 bytes, as CC-100 has them
    found.append(
      {
        "what": what,
        "core_hours": round(hours),
        "hours_on_1000_cores": round(hours / 1000, 2),
        "dataflow_dollars": round(hours * per_hour),
        "disk_between_stages_tb": round(terabytes * 0.45, 2),
        "largest_partition_mb": round(hashes / 256 * 12 / 1e6),
      }
    )
  return found


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--text", type=Path, default=Path("../shared/data/tiny100"))
  parser.add_argument("--tokenizer", type=Path)
  parser.add_argument("--memory", action="store_true")
  parser.add_argument("--documents", type=int, default=8000)
  arguments = parser.parse_args()
  source = CC100(arguments.text)
  texts = [document.text for shard in source.shards(1 << 40) for document in source.documents(shard)]
  random.Random(0).shuffle(texts)
  result: dict[str, Any] = {}
  with tempfile.TemporaryDirectory() as folder:
    wet = Path(folder) / "a.warc.wet.gz"
    some = texts[: arguments.documents]
    write_wet(wet, some, 1)
    result["mb_per_s"] = rates = measure(some, arguments.tokenizer, wet)
    for name, value in rates.items():
      print(f"{name:>40} {value:8.1f} MB/s", flush=True)
    if "tokenise" in rates:
      for name, steps in {
        "repair to exact removal": ("repair", "language", "hash paragraphs", "tokenise"),
        "the same and MinHash": ("repair", "language", "hash paragraphs", "tokenise", "minhash"),
      }.items():
        share = 1 / sum(1 / rates[step] for step in steps) / rates["tokenise"]
        result[name] = round(share, 3)
        print(f"{name}, with tokenising: {share:.0%} of SentencePiece's own rate")
    result["on_paper"] = on_paper(rates)
    for line in result["on_paper"]:
      print(json.dumps(line))
    if arguments.memory:
      for copies in (1, 10):
        path = Path(folder) / f"{copies}.warc.wet.gz"
        write_wet(path, texts, copies)
        peak, seconds = peak_mb(path)
        result[f"peak_mb_{copies}x"] = round(peak)
        size = copies * sum(len(text.encode()) for text in texts) / 1e6
        print(f"{size:.0f} MB: a worker's peak {peak:.0f} MB, {seconds:.0f} s", flush=True)
  print(json.dumps(result))


if __name__ == "__main__":
  with contextlib.suppress(KeyboardInterrupt):
    main()
