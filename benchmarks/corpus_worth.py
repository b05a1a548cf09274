"""What cleaning is worth: the same small model on spoilt text with and without `xlmr build_corpus`, on equally many tokens.

  python -m benchmarks.corpus_worth [--text=../shared/data/tiny100] [--sentences=../shared/data/parallel303] [--work=DIR]
      [--languages=...] [--steps=1500] [--seeds=2]

The text is spoilt as a crawl is: documents again and again, noise, words in random order, and documents in the file of
another language. Both models have the same vocabulary, trained on the spoilt text, and see the same number of rows. They
are compared by bits per byte on sentences that neither has seen. The last line is JSON.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.corpus_faults import noise, shuffled
from xlmr_jax.corpus.sources.cc100 import CC100

LANGUAGES = "en,de,es,fr,ru,tr,fi,hi,id,sw,vi,pl"
MOST = 1_200_000  # bytes of a language's text, so that no language outweighs the others too much
REPEATED, TIMES = 0.05, 8  # share of the documents that come again, and how often
NOISY, SHUFFLED, FOREIGN = 0.25, 0.2, 0.2  # documents more of these kinds, as shares of the clean ones


def spoil(folder: Path, languages: list[str], out: Path) -> dict[str, int]:
  """Writes spoilt text in CC-100's layout; returns its bytes by kind."""
  rng = random.Random(0)
  texts: dict[str, list[str]] = {}
  source = CC100(folder, languages)
  for shard in source.shards(1 << 40):
    size = 0
    for document in source.documents(shard):
      if size < MOST:
        texts.setdefault(document.language, []).append(document.text)
        size += len(document.text.encode())
  out.mkdir(parents=True)
  sizes = dict.fromkeys(("clean", "repeated", "noise", "shuffled", "foreign"), 0)
  for language, own in texts.items():
    others = [text for other, found in texts.items() if other != language for text in found]

    def some(share: float, own: list[str] = own) -> list[str]:
      return rng.sample(own, round(share * len(own)))

    kinds = {
      "clean": own,
      "repeated": some(REPEATED) * TIMES,
      "noise": [noise(text, rng) for text in some(NOISY)],
      "shuffled": [shuffled(text, rng) for text in some(SHUFFLED)],
      "foreign": rng.sample(others, min(len(others), round(FOREIGN * len(own)))),
    }
    everything = [text for found in kinds.values() for text in found]
    rng.shuffle(everything)
    (out / f"{language}.txt").write_text("\n\n".join(everything) + "\n", encoding="utf-8")
    for kind, found in kinds.items():
      sizes[kind] += sum(len(text.encode()) for text in found)
  return sizes


def xlmr(*arguments: str) -> dict[str, Any]:
  """Runs a command; returns its last line."""
  result = subprocess.run([sys.executable, "-m", "xlmr_jax", *arguments], capture_output=True, text=True)
  if result.returncode:
    raise SystemExit(f"xlmr {' '.join(arguments)}\n{result.stderr[-3000:]}")
  return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
  """Spoils, builds, trains, scores and prints."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--text", type=Path, default=Path("../shared/data/tiny100"))
  parser.add_argument("--sentences", type=Path, default=Path("../shared/data/parallel303"))
  parser.add_argument("--work", type=Path)
  parser.add_argument("--languages", default=LANGUAGES)
  parser.add_argument("--steps", type=int, default=1500)
  parser.add_argument("--seeds", type=int, default=2)
  arguments = parser.parse_args()
  work = arguments.work or Path(tempfile.mkdtemp())
  shutil.rmtree(work, ignore_errors=True)
  languages = arguments.languages.split(",")
  print(json.dumps({"bytes": spoil(arguments.text, languages, work / "spoilt")}), flush=True)
  summary = xlmr("build_corpus", f"--source=cc100:{work / 'spoilt'}", f"--out={work / 'clean'}", "--piece_mb=8",
                 f"--languages={arguments.languages}")  # fmt: skip
  print(json.dumps(summary), flush=True)
  model = work / "vocabulary.model"
  xlmr("train_vocabulary", f"--text={work / 'spoilt'}", "--size=8000", "--alpha=0.3", f"--out={model}", "--sentences=60000")
  for name in ("spoilt", "clean"):
    xlmr("build_rows", f"--text={work / name}", f"--tokenizer={model}", "--seq_len=64", f"--out={work / name}_rows")
  (work / "sentences").mkdir()
  for language in languages:
    lines = (arguments.sentences / f"{language}.txt").read_text(encoding="utf-8").splitlines()
    (work / "sentences" / f"{language}.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
  xlmr("build_rows", f"--text={work / 'sentences'}", f"--tokenizer={model}", "--seq_len=64", "--held_out=0.9",
       f"--out={work / 'sentences_rows'}")  # fmt: skip
  found: dict[str, list[float]] = {"spoilt": [], "clean": []}
  for seed in range(arguments.seeds):
    for name in found:
      run = work / f"{name}_{seed}"
      xlmr("pretrain", "--config=smoke", f"--config.data.rows={work / name}_rows", f"--workdir={run}",
           f"--config.seed={seed}", f"--config.train_steps={arguments.steps}", "--config.evaluate.tasks=",
           "--config.stop.patience=0",
           f"--config.checkpoint.every_steps={arguments.steps}", "--config.held_out.every_steps=0")  # fmt: skip
      scores = xlmr("score", f"--workdir={run}", f"--rows={work / 'sentences_rows'}")
      found[name].append(round(scores["bits_per_byte"], 4))
      print(f"seed {seed}, {name}: {found[name][-1]} bits per byte", flush=True)
  print(json.dumps(found))


if __name__ == "__main__":
  main()
