"""What `xlmr build_corpus` finds of faults that were planted into clean text, and what it loses of the clean text.

  python -m benchmarks.corpus_faults [--text=../shared/data/tiny100] [--languages=...] [--seed=0] [--work=DIR]

Text in CC-100's layout is written into WET files without labels, its documents in random order, and with spoilt copies of
some of them: repeats, boilerplate, keyword lists, words in random order, 15 % noise, text in a script of no such language, a
line in another script, text in the letters of another language, near duplicates and broken UTF-8. Another seed spoils other
documents in another way. One line per kind, and one line of JSON; with --work, DIR/missed.jsonl tells what was missed, and
which clean text was removed why.
"""

import argparse
import collections
import gzip
import hashlib
import json
import random
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.repair import repair
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.corpus.sources.text_file import open_text

PER_KIND = 30  # planted documents of a kind and language
LEAST_CHARACTERS, LEAST_WORDS = 500, 60  # of a document that is spoilt
# Words of a document that gets near duplicates: of a shorter one, one changed word changes more than a tenth of the phrases.
LEAST_WORDS_OF_NEAR = 120
WANTED = {
  "repeat": 100, "boilerplate": 95, "keywords": 85, "shuffled": 85, "noise": 98, "wrong_script": 99, "foreign_line": 99,
  "near_0.9": 98, "broken_utf8": 98,
}  # fmt: skip  # per cent found, at least
MOST = {"near_0.5": 2, "clean": 2}  # per cent, at most
NEAR = 0.8  # similarity of phrases from which on clean text that is removed as a near duplicate is one
# The first letters of alphabets that CC-100's languages use, and of scripts that none of them is written in: N'Ko, Tibetan,
# Cherokee, Canadian syllabics, Tifinagh and Vai.
SCRIPTS = ("a", "\u0430", "\u03b1", "\u05d0", "\u0905", "\u0e01", "\u10d0", "\u1200")
OTHER_SCRIPTS = ("\u07ca", "\u0f40", "\u13a0", "\u1401", "\u2d30", "\ua500")


class Planted(NamedTuple):
  """A document of the WET files."""

  kind: str  # "clean", or what was done to it
  language: str
  text: str  # without what was broken in it
  body: bytes
  original: int = -1  # the number of the clean document that it was made of


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


def near(words: Sequence[str], rng: random.Random, jaccard: float, other: Sequence[str]) -> str:
  """A copy whose phrases of five words have the given Jaccard similarity with those of the words."""
  # Of n - 4 phrases, those with one of c changed words differ, c + 4 of them.
  changed = max(1, round((len(words) - 4) * (1 - jaccard) / (1 + jaccard)) - 4)
  at = rng.randrange(len(words) - changed + 1)
  return " ".join([*words[:at], *(rng.choice(other) for _ in range(changed)), *words[at + changed :]])


def similarity(one: str, other: str) -> float:
  """The Jaccard similarity of the phrases of five words."""
  a, b = phrases(one), phrases(other)
  return len(a & b) / max(1, len(a | b))


def phrases(text: str) -> set[tuple[str, ...]]:
  words = "".join(c if c.isalnum() or c.isspace() else " " for c in text.lower()).split()
  return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def ciphered(text: str, first: str) -> str:
  """The text with each letter replaced by one of the letters from `first` on, always by the same one."""
  letters = sorted({c for c in text.lower() if c.isalpha()})
  table = {c: chr(ord(first) + place % 24) for place, c in enumerate(letters)}
  return "".join(table.get(c, c) for c in text.lower())


def script_of(text: str) -> str:
  """The script of most letters of the beginning."""
  scripts = collections.Counter(unicodedata.name(c, "").partition(" ")[0] for c in text[:200] if c.isalpha())
  return max(scripts, key=lambda script: scripts[script], default="")


def broken(body: bytes, rng: random.Random) -> bytes:
  """UTF-8 in which five bytes are others."""
  spoilt = bytearray(body)
  for _ in range(5):
    spoilt[rng.randrange(len(spoilt))] = rng.choice([0xFF, 0xC3, 0x80, 0xE2])
  return bytes(spoilt)


def record(number: int, kind: str, body: bytes) -> bytes:
  """One conversion record of a WET file."""
  head = (
    f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://{kind}.example/{number}\r\n"
    f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
    f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
  )
  return gzip.compress(head.encode() + body + b"\r\n\r\n", 1, mtime=0)


def plant(folder: Path, languages: list[str] | None, files: Path, seed: int) -> list[Planted]:
  """Writes the WET files; returns all documents in them, in their order."""
  rng = random.Random(seed)
  source = CC100(folder, languages)
  clean: list[Planted] = []
  for shard in source.shards(1 << 40):
    for document in source.documents(shard):
      clean.append(Planted("clean", document.language, document.text, document.text.encode()))
  rng.shuffle(clean)  # The first of two copies stays. So clean text comes first, and the number of a document is its place.
  numbers: dict[str, list[int]] = collections.defaultdict(list)
  for number, document in enumerate(clean):
    numbers[document.language].append(number)
  all_lines = [line for document in rng.sample(clean, min(5000, len(clean))) for line in document.text.split("\n")]
  foreign = [(script_of(line), line) for line in all_lines if 100 <= len(line) <= 400]
  spoilt: list[Planted] = []
  for language, found in sorted(numbers.items()):
    texts = [clean[number].text for number in found]
    # A document that shares a line with another one loses it, and with it the likeness to its planted copies.
    lines = collections.Counter(line for text in texts for line in set(text.split("\n")))
    long = [
      number
      for number, text in zip(found, texts)
      if len(text) >= LEAST_CHARACTERS
      and len(text.split()) >= LEAST_WORDS
      and all(lines[line] == 1 for line in text.split("\n") if len(line) > 20)
    ]
    if len(long) >= 2 * PER_KIND:
      spoilt += _spoil(clean, language, long, foreign, rng)
  rng.shuffle(spoilt)
  everything = clean + spoilt
  parts = 4
  for part in range(parts):
    with open(files / f"{part}.warc.wet.gz", "wb") as file:
      for number in range(len(everything) * part // parts, len(everything) * (part + 1) // parts):
        file.write(record(number, everything[number].kind, everything[number].body))
  return everything


def _spoil(
  clean: Sequence[Planted], language: str, long: Sequence[int], foreign: Sequence[tuple[str, str]], rng: random.Random
) -> list[Planted]:
  """The planted documents of a language. long: the numbers of the documents of which they can be made; foreign: lines, each
  after its script.
  """
  words = [word for number in long for word in clean[number].text.split()]
  spoilt: list[Planted] = []
  for place, number in enumerate(rng.sample(long, PER_KIND)):
    text = clean[number].text
    own = script_of(text)
    values = {"repeat": text, "keywords": keywords(text, rng), "shuffled": shuffled(text, rng), "noise": noise(text, rng)}
    spoilt += [Planted(kind, language, value, value.encode(), number) for kind, value in values.items()]
    if place % 2:
      value = ciphered(text, rng.choice(OTHER_SCRIPTS))
      spoilt.append(Planted("wrong_script", language, value, value.encode(), number))
    else:
      value = rng.choice([line for script, line in foreign if script != own])
      lines = text.split("\n")
      lines.insert(len(lines) // 2, value)
      spoilt.append(Planted("foreign_line", language, value, "\n".join(lines).encode(), number))
    if place % 6 == 0:
      value = ciphered(text, rng.choice([first for first in SCRIPTS if script_of(first) != own]))
      spoilt.append(Planted("ciphered", language, value, value.encode(), number))
    body = broken(text.encode(), rng)
    if body.decode("utf-8", "ignore") != body.decode("utf-8", "replace"):
      spoilt.append(Planted("broken_utf8", language, body.decode("utf-8", "surrogateescape"), body, number))
  longer = [number for number in long if len(clean[number].text.split()) >= LEAST_WORDS_OF_NEAR]
  for number in rng.sample(longer, min(PER_KIND, len(longer))):
    for jaccard in (0.9, 0.5):
      value = near(clean[number].text.split(), rng, jaccard, words)
      spoilt.append(Planted(f"near_{jaccard}", language, value, value.encode(), number))
  line = max(clean[rng.choice(long)].text.split("\n"), key=len)[:300]
  for number in rng.sample(long, PER_KIND):
    value = f"{line} 2026\n{clean[number].text[: LEAST_CHARACTERS // 2]}"
    spoilt.append(Planted("boilerplate", language, f"{line} 2026", value.encode(), number))
  return spoilt


class Outcome:
  """What a build made of the documents, which it knows by their numbers."""

  def __init__(self, out: Path):
    self.removed: dict[int, dict[str, str]] = {}  # {number: {"step", "reason"}} of documents that were removed as a whole
    self.lines: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)  # of clean text
    self.all_lines: collections.Counter[str] = collections.Counter()
    self.texts: set[str] = set()
    for path in sorted((out / "removed").glob("*/*/*.jsonl.zst")):
      with open_text(path) as file:
        for entry in map(json.loads, file):
          if entry["document"] and not re.search(r"#\w+$", entry["id"]):  # and no part in another language
            self.removed[int(entry["url"].rpartition("/")[2])] = {key: entry[key] for key in ("step", "reason")}
    source = CC100(out)
    for shard in source.shards(1 << 40):
      for document in source.documents(shard):
        # A line may well be quoted in several languages, so a repeat is one in the same language.
        self.lines[document.language].update(document.text.split("\n"))
        self.texts.add(document.text)
    for lines in self.lines.values():
      self.all_lines.update(lines)

  def has_found(self, number: int, planted: Planted, original: str) -> bool | None:
    """Whether a planted fault was found. None: it is none any more, because its original changed before the search."""
    removed = self.removed.get(number)
    if planted.kind == "broken_utf8":  # What is kept of it has a mark at each place.
      lines = [line for line in repair(planted.text).split("\n") if self.all_lines[line]]
      return not lines or removed is not None or any("\ufffd" in line for line in lines)
    if planted.kind.startswith("near") and planted.original not in self.removed and original not in self.texts:
      return None  # It lost a line that other documents have, or one in another language.
    if planted.kind == "near_0.5":
      return removed is not None and removed["step"] == "near_duplicates"
    if planted.kind == "near_0.9":  # One of the two stays.
      return removed is not None or planted.original in self.removed
    if planted.kind == "foreign_line":
      return not self.lines[planted.language][planted.text]
    if planted.kind == "repeat":  # Of a line without letters, such as one of hyphens, there may be any number.
      long = [line for line in planted.text.split("\n") if sum(map(str.isalpha, line)) > 60]
      return all(self.lines[planted.language][line] <= 1 for line in long)
    return removed is not None


def lost_text(everything: Sequence[Planted], outcome: Outcome) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
  """({language: bytes of clean lines}, those of them that are lost, those that are rightly removed as near duplicates).

  A repeat in the clean text is rightly removed, and so is a document that has NEAR of its phrases in common with another.
  """
  total: collections.Counter[str] = collections.Counter()
  lost: collections.Counter[str] = collections.Counter()
  own_near: collections.Counter[str] = collections.Counter()
  seen: set[bytes] = set()
  clean = [(number, planted) for number, planted in enumerate(everything) if planted.kind == "clean"]
  near_numbers = {number for number, _ in clean if outcome.removed.get(number, {}).get("step") == "near_duplicates"}
  rightly = {number for number in _near_duplicates(clean, near_numbers)}
  for number, planted in clean:
    for line in repair(planted.text).split("\n"):
      key = hashlib.sha1("".join(c for c in line.lower() if c.isalnum()).encode()).digest()
      if key in seen or len(line) < 3:
        continue
      seen.add(key)
      size = len(line.encode())
      total[planted.language] += size
      if not outcome.all_lines[line]:
        (own_near if number in rightly else lost)[planted.language] += size
  return total, lost, own_near


def _near_duplicates(clean: Sequence[tuple[int, Planted]], numbers: set[int]) -> Iterable[int]:
  """Those of the documents with these numbers that really have a near duplicate among the clean ones."""
  for language in sorted({planted.language for number, planted in clean if number in numbers}):
    of_phrase: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    texts = {number: planted.text for number, planted in clean if planted.language == language}
    for number, text in texts.items():
      for phrase in phrases(text):
        of_phrase[phrase].append(number)
    for number in sorted(numbers & texts.keys()):
      shared = collections.Counter(other for phrase in phrases(texts[number]) for other in of_phrase[phrase])
      shared.pop(number)
      if any(similarity(texts[number], texts[other]) >= NEAR for other, _ in shared.most_common(3)):
        yield number


def main() -> None:
  """Plants, builds, compares and prints."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--text", type=Path, default=Path("../shared/data/tiny100"))
  parser.add_argument("--languages")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--work", type=Path)
  arguments = parser.parse_args()
  work = arguments.work or Path(tempfile.mkdtemp())
  shutil.rmtree(work / "clean", ignore_errors=True)
  (work / "wet").mkdir(parents=True, exist_ok=True)
  languages = arguments.languages.split(",") if arguments.languages else None
  everything = plant(arguments.text, languages, work / "wet", arguments.seed)
  options = Options(piece_mb=16, removed="all")
  summary = build_corpus(open_source(f"wet:{work}/wet/*.wet.gz"), work / "clean", options)
  print(json.dumps(summary))
  outcome = Outcome(work / "clean")
  by_kind: dict[str, dict[str, list[bool]]] = collections.defaultdict(lambda: collections.defaultdict(list))
  boilerplate: collections.Counter[tuple[str, str]] = collections.Counter()
  with open(work / "missed.jsonl", "w", encoding="utf-8", errors="replace") as missed:
    for number, planted in enumerate(everything):
      kind, language = planted.kind, planted.language
      why = outcome.removed.get(number)
      if kind == "boilerplate":
        boilerplate[language, planted.text] += 1
      found = kind == "clean" or outcome.has_found(number, planted, repair(everything[planted.original].text))
      if kind not in ("boilerplate", "clean") and found is not None:
        by_kind[kind][language].append(found)
      if why if kind in ("clean", "near_0.5") else found is False:
        entry = {"kind": kind, "language": language, "number": number, "why": why, "text": planted.text}
        missed.write(json.dumps(entry, ensure_ascii=False) + "\n")
  # The first line of boilerplate stays.
  for (language, text), count in boilerplate.items():
    left = max(0, outcome.all_lines[text] - 1)
    by_kind["boilerplate"][language] = [place >= left for place in range(count - 1)]
  damaged = sum("\ufffd" in line for line in outcome.all_lines)
  result = {kind: round(100 * sum(map(sum, v.values())) / sum(map(len, v.values())), 2) for kind, v in by_kind.items()}
  total, lost, own_near = lost_text(everything, outcome)
  result["clean"] = round(100 * sum(lost.values()) / sum(total.values()), 2)
  result["own_near_duplicates"] = round(100 * sum(own_near.values()) / sum(total.values()), 2)
  print(f"planted in {len(by_kind['noise'])} languages; lines with U+FFFD in the clean text: {damaged}")
  for kind in sorted({*WANTED, *MOST, *by_kind}):
    bound = f"at most {MOST[kind]}" if kind in MOST else f"at least {WANTED[kind]}" if kind in WANTED else "not asked"
    worst = sorted((sum(v) / len(v), language) for language, v in by_kind[kind].items() if v)
    worst = worst[::-1][:6] if kind in MOST else worst[:6]
    print(f"{kind:>14} {result[kind]:6.2f} % {'lost' if kind == 'clean' else 'found'} ({bound}); "
          f"{', '.join(f'{language} {share:.0%}' for share, language in worst)}")  # fmt: skip
  most = sorted(total, key=lambda x: -lost[x] / total[x])
  print("clean text lost, most in", ", ".join(f"{x} {lost[x] / total[x]:.1%}" for x in most[:16]))
  print(
    "near duplicates of its own, most in",
    ", ".join(f"{x} {own_near[x] / total[x]:.1%}" for x in sorted(own_near, key=lambda x: -own_near[x])[:6]),
  )
  print(json.dumps(result))


if __name__ == "__main__":
  main()
