"""What `xlmr build_corpus` finds of faults that were planted into clean text, and what it loses of the clean text.

  python -m benchmarks.corpus_faults [--text=../shared/data/tiny100] [--languages=...] [--work=DIR]

Text in CC-100's layout is written into WET files without labels, its documents in random order, and with spoilt copies of
some of them: repeats, boilerplate, keyword lists, words in random order, 15 % noise, another script's text, near duplicates
and broken UTF-8. One line per kind, and one line of JSON.
"""

import argparse
import collections
import gzip
import hashlib
import json
import random
import shutil
import tempfile
from pathlib import Path

from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.repair import repair
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source

PER_KIND = 30  # planted documents of a kind and language
LEAST = 500  # characters of a document that is spoilt
WANTED = {
  "repeat": 100, "boilerplate": 95, "keywords": 85, "shuffled": 85, "noise": 98, "wrong_script": 99,
  "near_0.9": 98, "broken_utf8": 98,
}  # fmt: skip  # per cent found, at least
MOST = {"near_0.5": 2, "clean": 2}  # per cent, at most


def noise(text: str, rng: random.Random) -> str:
  """15 % of the letters replaced by letters of the same text."""
  letters = sorted({c for c in text if c.isalpha()})
  return "".join(rng.choice(letters) if c.isalpha() and rng.random() < 0.15 else c for c in text)


def shuffled(text: str, rng: random.Random) -> str:
  """The words in random order."""
  words = text.split()
  rng.shuffle(words)
  return " ".join(words)


def keywords(text: str, rng: random.Random) -> str:
  """As many words, drawn from the longer ones."""
  words = [word for word in text.split() if len(word) > 3]
  return " ".join(rng.choice(words) for _ in text.split()) if words else text


def near(text: str, rng: random.Random, jaccard: float, other: list[str]) -> str:
  """A copy whose phrases of five words have the given Jaccard similarity with the text's."""
  words = text.split()
  # Of n - 4 phrases, those with one of c changed words differ, c + 4 of them.
  changed = max(1, round((len(words) - 4) * (1 - jaccard) / (1 + jaccard)) - 4)
  at = rng.randrange(len(words) - changed + 1)
  return " ".join([*words[:at], *(rng.choice(other) for _ in range(changed)), *words[at + changed :]])


def record(number: int, kind: str, body: bytes) -> bytes:
  """One conversion record of a WET file."""
  head = (
    f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://{kind}.example/{number}\r\n"
    f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
    f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
  )
  return gzip.compress(head.encode() + body + b"\r\n\r\n", 1, mtime=0)


def plant(folder: Path, languages: list[str] | None, files: Path) -> tuple[list[tuple[str, str, str, bytes]], int]:
  """Writes the WET files; returns (kind, language, text, bytes) of all documents in them."""
  rng = random.Random(0)
  source = CC100(folder, languages)
  by_language: dict[str, list[str]] = collections.defaultdict(list)
  for shard in source.shards(1 << 40):
    by_language[shard.language] += [document.text for document in source.documents(shard)]
  everything: list[tuple[str, str, str, bytes]] = []
  for language, texts in by_language.items():
    everything += [("clean", language, text, text.encode()) for text in texts]
    # A document that shares a line with another one loses it, and with it the likeness to its planted copies.
    lines = collections.Counter(line for text in texts for line in set(text.split("\n")))
    long = [
      text
      for text in texts
      if len(text) >= LEAST
      and len(text.split()) >= 60
      and all(lines[line] == 1 for line in text.split("\n") if len(line) > 20)
    ]
    if len(long) < 2 * PER_KIND:
      continue
    words = [word for text in long for word in text.split()]
    rng.shuffle(long)
    some = long[:PER_KIND]
    line = max(some[0].split("\n"), key=len)[:300]
    for text in some:
      near_9, near_5 = (near(text, rng, jaccard, words) for jaccard in (0.9, 0.5))
      spoilt = {"repeat": text, "keywords": keywords(text, rng), "shuffled": shuffled(text, rng), "noise": noise(text, rng),
                "near_0.9": near_9, "near_0.5": near_5}  # fmt: skip
      everything += [(kind, language, value, value.encode()) for kind, value in spoilt.items()]
      body = bytearray(text.encode())
      for _ in range(5):
        body[rng.randrange(len(body))] = rng.choice([0xFF, 0xC3, 0x80, 0xE2])
      if body.decode("utf-8", "ignore") != body.decode("utf-8", "replace"):
        everything.append(("broken_utf8", language, "", bytes(body)))
    for text in long[PER_KIND : 2 * PER_KIND]:
      value = f"{line} 2026\n{text[: LEAST // 2]}"
      everything.append(("boilerplate", language, f"{line} 2026", value.encode()))
  rng.shuffle(everything)
  everything.sort(key=lambda document: document[0] != "clean")  # The first of two copies stays: the clean one.
  parts = 4
  for part in range(parts):
    with open(files / f"{part}.warc.wet.gz", "wb") as file:
      for number, (kind, _, _, body) in list(enumerate(everything))[
        len(everything) * part // parts : len(everything) * (part + 1) // parts
      ]:
        file.write(record(number, kind, body))
  return everything, sum(len(body) for *_, body in everything)


def main() -> None:
  """Plants, builds, compares and prints."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--text", type=Path, default=Path("../shared/data/tiny100"))
  parser.add_argument("--languages")
  parser.add_argument("--work", type=Path)
  arguments = parser.parse_args()
  work = arguments.work or Path(tempfile.mkdtemp())
  shutil.rmtree(work / "clean", ignore_errors=True)
  (work / "wet").mkdir(parents=True, exist_ok=True)
  languages = arguments.languages.split(",") if arguments.languages else None
  everything, _ = plant(arguments.text, languages, work / "wet")
  summary = build_corpus(open_source(f"wet:{work}/wet/*.wet.gz"), work / "clean", Options(piece_mb=16))
  print(json.dumps(summary))
  kept_lines: collections.Counter[str] = collections.Counter()
  kept: collections.Counter[str] = collections.Counter()
  by_language: collections.Counter[tuple[str, str]] = collections.Counter()
  source = CC100(work / "clean")
  for shard in source.shards(1 << 40):
    for document in source.documents(shard):
      kept[document.text] += 1
      kept_lines.update(document.text.split("\n"))
      # A line may well be quoted in several languages, so a repeat is one in the same language.
      by_language.update((shard.language or "", line) for line in document.text.split("\n"))
  by_kind: dict[str, dict[str, list[int]]] = collections.defaultdict(lambda: collections.defaultdict(list))
  total: collections.Counter[str] = collections.Counter()
  lost: collections.Counter[str] = collections.Counter()
  seen: set[str] = set()
  for kind, language, text, _ in everything:
    if kind == "clean":
      for line in repair(text).split("\n"):
        key = hashlib.sha1("".join(c for c in line.lower() if c.isalnum()).encode()).hexdigest()
        if key in seen or len(line) < 3:  # A repeat in the clean text is rightly removed.
          continue
        seen.add(key)
        size = len(line.encode())
        total[language] += size
        if not kept_lines[line]:
          lost[language] += size
    elif kind == "broken_utf8":
      by_kind[kind][language].append(1)  # Looked at below: no output may have what is no text.
    elif kind == "boilerplate":
      by_kind[kind][language].append(0)
    elif kind == "repeat":
      by_kind[kind][language].append(
        int(sum(by_language[language, line] > 1 for line in text.split("\n") if len(line) > 60) == 0)
      )
    else:
      by_kind[kind][language].append(int(not kept[repair(text)]))
  for kind, language, text, _ in everything:
    if kind == "boilerplate":
      by_kind[kind][language] = [int(i >= kept_lines[text]) for i in range(len(by_kind[kind][language]))]
  result = {kind: round(100 * sum(map(sum, v.values())) / sum(map(len, v.values())), 2) for kind, v in by_kind.items()}
  result["clean"] = round(100 * sum(lost.values()) / sum(total.values()), 2)
  for kind, share in result.items():
    bound = f"at least {WANTED[kind]}" if kind in WANTED else f"at most {MOST[kind]}"
    worst = sorted((sum(v) / len(v), language) for language, v in by_kind[kind].items())
    print(f"{kind:>14} {share:6.2f} % {'lost' if kind == 'clean' else 'found'} ({bound}); "
          f"least in {', '.join(f'{language} {share:.0%}' for share, language in worst[:6])}")  # fmt: skip
  print(
    "clean text lost, most in",
    [f"{x} {lost[x] / total[x]:.1%}" for x in sorted(total, key=lambda x: -lost[x] / total[x])][:12],
  )
  print(json.dumps(result))


if __name__ == "__main__":
  main()
