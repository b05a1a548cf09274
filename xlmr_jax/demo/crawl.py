"""The demo world as a crawl would bring it: one WET file, its languages mixed and unlabelled, some pages spoilt.

Cleaning it by `xlmr build_corpus` is the demo's first part.
"""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.demo.text import SIZES, documents
from xlmr_jax.files import whole_file

CODES = {"zh": "zh_Hans"}  # The demo's name of a language where it is not CC-100's.
SPOILT = 0.02  # share of the pages that come once more, in each of _SPOIL's ways
_LEAST = 200  # characters of a page that is spoilt


def _wrong_code_page(text: str, rng: random.Random) -> bytes:
  """UTF-8 that was read as Latin-1 and written as UTF-8 again: "Ã¤" for "ä"."""
  return text.encode().decode("latin-1").encode()


def _noise(text: str, rng: random.Random) -> bytes:
  letters = sorted({character for character in text if character.isalpha()})
  return "".join(rng.choice(letters) if c.isalpha() and rng.random() < 0.2 else c for c in text).encode()


def _random_order(text: str, rng: random.Random) -> bytes:
  words = text.split()
  return " ".join(rng.sample(words, len(words))).encode()


def _copy(text: str, rng: random.Random) -> bytes:
  return text.encode()


def _keywords(text: str, rng: random.Random) -> bytes:
  return " ".join(rng.choices(text.split()[:3], k=60)).encode()


_SPOIL = {
  "copy": _copy,
  "wrong code page": _wrong_code_page,
  "noise": _noise,
  "words in random order": _random_order,
  "keywords": _keywords,
}


def write_crawl(path: Path, scale: float = 1.0, seed: int = 0) -> int:
  """Writes the WET file; returns how many pages it has. scale: of the text's sizes; the same seed gives the same bytes."""
  rng = random.Random(f"crawl {seed}")
  pages: list[bytes] = []
  for language, size in SIZES.items():
    for paragraphs in documents(language, size=max(1, round(1000 * size * scale)), seed=seed):
      text = "\n".join(paragraphs)
      pages.append(text.encode())
      if len(text) >= _LEAST:
        pages += [spoil(text, rng) for spoil in _SPOIL.values() if rng.random() < SPOILT]
  rng.shuffle(pages)
  with whole_file(path) as unfinished, open(unfinished, "wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as file:
    for number, page in enumerate(pages):
      file.write(_record(number, page))
  return len(pages)


def _record(number: int, page: bytes) -> bytes:
  head = (
    f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://demo.example/{number}\r\n"
    f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012x}>\r\n"
    f"Content-Type: text/plain\r\nContent-Length: {len(page)}\r\n\r\n"
  )
  return head.encode() + page + b"\r\n\r\n"


def clean_crawl(crawl: Path, clean: Path, text: Path) -> dict[str, Any]:
  """Cleans the crawl into `clean`, and makes `text`, a folder of links to its languages under the demo's names.

  Returns the summary of build_corpus.
  """
  languages = [CODES.get(language, language) for language in SIZES]
  options = Options(compress=False)
  summary = build_corpus(open_source(f"wet:{crawl}"), clean, options, languages=languages, workers=1, quiet=True)
  text.mkdir(exist_ok=True)
  for language in SIZES:
    link = text / language
    if not link.is_symlink():
      link.symlink_to(Path("..") / clean.name / CODES.get(language, language))
  return summary


def shown(clean: Path) -> Iterator[str]:
  """Lines about what the cleaning did: an example of each step, with how much there was of it."""
  manifest = json.loads((clean / "manifest.json").read_text(encoding="utf-8"))
  source = manifest["source"]
  yield f"{source['documents']:,} pages, {source['repaired_documents']:,} of them repaired, e.g. {_example(clean, 'repair')}"
  counts: dict[tuple[str, str], int] = {}
  for steps in manifest["steps"].values():
    for step, found in steps.items():
      for reason, number in found["reasons"].items():
        if step != "repair":
          counts[step, reason] = counts.get((step, reason), 0) + number
  for (step, reason), number in sorted(counts.items(), key=lambda item: -item[1]):
    yield f"{_TOLD.get((step, reason), f'{step}: {reason}')}: {number:,}, e.g. {_example(clean, step, reason)}"
  kept = manifest["languages"].values()
  documents_kept, size = (sum(language[key] for language in kept) for key in ("documents", "bytes"))
  yield f"kept {documents_kept:,} documents, {size / 1e6:.1f} MB, in {len(kept)} languages"


_TOLD = {
  ("paragraphs", "repeated"): "repeated paragraphs removed",
  ("near_duplicates", "near duplicate"): "near duplicates removed",
  ("filters", "short"): "too short",
  ("filters", "spelling"): "noise",
  ("filters", "order"): "words in random order",
  ("filters", "repeated_phrases"): "repeated phrases",
  ("filters", "most_frequent_word"): "one word again and again",
  ("filters", "prior_low"): "unlikely words",
  ("filters", "prior_high"): "too likely words",
  ("language", "not one of CC-100's"): "in other languages",
  ("language", "unknown"): "in no language that could be told",
}


def _example(clean: Path, step: str, reason: str = "") -> str:
  """The beginning of a sample, in one line."""
  # Most readers can read these.
  for path in sorted(
    (clean / "removed" / step).glob("*.jsonl"), key=lambda path: (path.stem not in ("de", "en", "fr"), path)
  ):
    for line in path.read_text(encoding="utf-8").splitlines():
      sample = json.loads(line)
      if reason in ("", sample["reason"]):
        before, arrow, after = sample["text"].partition("\n-> ")
        cut = [" ".join(part.split())[:40] for part in (before, after) if part]
        return f"{path.stem}: {' -> '.join(repr(part) for part in cut)}" if arrow else f"{path.stem}: {cut[0]!r}"
  return "none"
