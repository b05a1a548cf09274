"""How much of spoilt text corpus/repair.py brings back, what it changes in clean text, and how fast it is.

    python -m benchmarks.repair [--text=DIR] [--documents=60]

Each document of a folder in CC-100's layout is spoilt in one way, if the code page has at least 99 % of its characters (the
others are left out of it) and if that changes it. Characters are aligned with the original, line by line.
"""

import difflib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

from xlmr_jax.corpus import code_pages
from xlmr_jax.corpus.repair import repair, repair_all
from xlmr_jax.corpus.sources.cc100 import split_documents
from xlmr_jax.errors import UserError, run_command

_DATA = Path(__file__).parents[2] / "shared" / "data"
_WESTERN = "af br ca da de en es et eu fi fr fy ga gd gl ha id is it jv mg ms nl no om pt so sq su sv sw tl uz xh"
PAGES = {  # code page: the languages that were written in it
  "cp1252": _WESTERN, "cp850": _WESTERN, "cp437": _WESTERN, "koi8_r": "ru bg", "koi8_u": "uk", "cp1251": "ru bg uk be sr mk",
  "cp866": "ru bg be uk", "cp1250": "cs hr bs hu pl ro sk sl sq", "iso8859_2": "cs hr bs hu pl sk sl", "cp1254": "tr",
  "cp1257": "lt lv", "cp1253": "el", "cp1255": "he", "cp1256": "ar",
}  # fmt: skip


def read_as_cp1252(data: bytes) -> str:
  """As browsers do: the five bytes that cp1252 lacks become C1 controls."""
  return data.decode("latin-1").translate(dict(enumerate(code_pages.characters("cp1252"))))


READINGS: dict[str, Callable[[bytes], str]] = {
  "latin1": lambda data: data.decode("latin-1"),
  "cp1252": read_as_cp1252,
  "bytes": lambda data: data.decode("utf-8", "surrogateescape"),
}


def spoil(text: str, page: str, reading: str) -> tuple[str, str]:
  """The text without what the code page lacks, and how it looks when it is read wrongly; both "" if it lacks over 1 %."""
  data = text.encode("utf-8" if page == "utf-8" else page, "ignore")
  kept = data.decode(page)
  if len(kept) < 0.99 * len(text):
    return "", ""
  return kept, READINGS[reading](data)


def characters_back(original: str, mended: str) -> int:
  """How many characters of the original are at their place in the mended text."""
  if len(original) == len(mended):
    return sum(a == b for a, b in zip(original, mended, strict=True))
  matcher = difflib.SequenceMatcher(None, original, mended, autojunk=False)
  return sum(size for _, _, size in matcher.get_matching_blocks())


def measure(texts: dict[str, list[str]], page: str, reading: str) -> dict[str, tuple[float, float, int]]:
  """By language: the share of all characters that came back, that of those beyond ASCII, and the number of documents."""
  found = {}
  for language, documents in texts.items():
    right = total = right_high = high = number = 0
    for text in documents:
      original, spoilt = spoil(text, page, reading)
      original = repair(original)
      if not original or spoilt == original:
        continue
      mended = repair(spoilt)
      back = characters_back(original, mended)
      beyond = sum(c > "\x7f" for c in original)
      number, total, right = number + 1, total + len(original), right + back
      high, right_high = high + beyond, right_high + max(0, beyond - (len(original) - back))
    if number:
      found[language] = (right / total, right_high / max(1, high), number)
  return found


def break_bytes(text: str, rng: random.Random) -> str:
  """UTF-8 in which 1 of 200 bytes is cut or gets another top bit, read with "surrogateescape"."""
  data = bytearray(text.encode())
  for _ in range(max(1, len(data) // 200)):
    place = rng.randrange(len(data))
    if rng.random() < 0.5 and data[place] >= 128:
      del data[place]
    else:
      data[place] ^= 0x80
  return data.decode("utf-8", "surrogateescape")


def main(_: list[str]) -> None:
  given = flags.FLAGS
  files = sorted(Path(given.text).glob("*.txt"))
  if not files:
    raise UserError(f"{given.text}: no LANG.txt there; pass --text=DIR")
  documents = {path.stem: split_documents(path.read_text(encoding="utf-8")) for path in files}
  size = sum(len(text.encode()) for texts in documents.values() for text in texts)
  began = time.process_time()
  mended = {language: repair_all(texts) for language, texts in documents.items()}
  speed = size / 1e6 / (time.process_time() - began)
  clean = {
    language: [text for text, after in zip(texts, mended[language], strict=True) if after == text]
    for language, texts in documents.items()
    if language != "my"  # which is looked at for Zawgyi, at 1.5 MB/s
  }
  clean_size = sum(len(text.encode()) for texts in clean.values() for text in texts)
  began = time.process_time()
  for texts in clean.values():
    repair_all(texts)
  clean_speed = clean_size / 1e6 / (time.process_time() - began)
  print(f"{speed:.0f} MB/s of CPU time, {size / 1e6:.1f} MB; what stays as it is, without Burmese: {clean_speed:.0f} MB/s")
  report: dict[str, object] = {"mb_per_s": round(speed, 1), "clean_mb_per_s": round(clean_speed, 1)}

  changed: dict[str, Counter] = {}
  for language, texts in documents.items():
    for text, after in zip(texts, mended[language], strict=True):
      if after != text:
        counts: Counter = Counter()
        repair(text, counts)
        for kind in +counts or ["white space"]:
          changed.setdefault(kind, Counter())[language] += 1
  for kind, languages in changed.items():
    print(f"changed, {kind}: {languages.total()} documents ({', '.join(f'{l} {n}' for l, n in languages.most_common(12))})")
  report["changed"] = {kind: languages.total() for kind, languages in changed.items()}
  if "sv" in documents:
    c1 = [sum(len(re.findall("[\x80-\x9f]", text)) for text in texts) for texts in (documents["sv"], mended["sv"])]
    print(f"sv: {c1[0]} C1 controls before, {c1[1]} after")
    report["sv_c1"] = c1

  rng = random.Random(0)
  clean = {
    language: rng.sample(texts, min(len(texts), given.documents))
    for language, texts in ((name, [text for text in found if len(text) >= 40]) for name, found in mended.items())
  }
  shares = {}
  for page, languages in {"utf-8": " ".join(clean), **PAGES}.items():
    for reading in READINGS:
      if (page == "utf-8" and reading == "bytes") or page == reading:
        continue
      found = measure({name: texts for name, texts in clean.items() if name in languages.split()}, page, reading)
      if not found:
        continue
      macro = [sum(share[i] for share in found.values()) / len(found) for i in (0, 1)]
      worst = sorted(found.items(), key=lambda item: item[1][0])[:6]
      names = ", ".join(f"{name} {100 * share[0]:.1f}/{100 * share[1]:.0f} of {share[2]}" for name, share in worst)
      name = "double_utf8" if page == "utf-8" else page
      print(
        f"{name:12}{reading:8}{len(found):3} languages, {100 * macro[0]:6.2f} % ({100 * macro[1]:.1f} % not ASCII); {names}"
      )
      shares[f"{name}/{reading}"] = round(100 * macro[0], 2)
  report["characters_back"] = shares

  found, total = 0, 0
  for texts in clean.values():
    for text in texts[:20]:
      spoilt, counts = break_bytes(text, rng), Counter()
      if re.search("[\udc80-\udcff]", spoilt):
        repair(spoilt, counts)
        total, found = total + 1, found + (counts["invalid_utf8"] > 0)
  print(f"broken UTF-8: found in {found} of {total} documents")
  report["broken_utf8_found"] = round(100 * found / max(1, total), 2)
  print(json.dumps(report))


if __name__ == "__main__":
  flags.DEFINE_string("text", str(_DATA / "tiny100"), "folder with LANG.txt files")
  flags.DEFINE_integer("documents", 60, "how many documents of each language are spoilt, at most")
  app.run(run_command(main))
