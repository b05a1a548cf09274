"""Trains and tests a fastText model of languages on a folder of labelled text, for languages that no package knows."""

import json
import math
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.language_id import Identifier
from xlmr_jax.corpus.language_id.fasttext_model import import_fasttext
from xlmr_jax.corpus.languages import normal_code
from xlmr_jax.corpus.sources import Document
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.errors import UserError
from xlmr_jax.files import whole_file
from xlmr_jax.given_paths import refuse_unwritable
from xlmr_jax.progress import Progress

_SHARD_BYTES = 1 << 20
_SHARDS = 16  # of a language, spread over its text; more text than that does not make the model better
_CHARACTERS = 600_000  # of a language that the model is trained on; a language with less text gives its own several times
_PASSES = 20  # over the text of a small language, cut differently each time
_EPOCHS = 4
_SEEN = 5_000_000  # characters, at least, that training sees in all epochs together, so that it learns from little text too
_SHORTEST, _LONGEST = 20, 600  # characters of a piece, so that the model works on lines and on documents
_MOST_CONFUSIONS = 3  # per language in the table of a test

# Character n-grams carry the language; words only help. softmax, because there are only about a hundred classes.
_OPTIONS = {
  "lr": 0.5, "dim": 16, "minn": 1, "maxn": 4, "wordNgrams": 1, "minCount": 5, "bucket": 500_000,
  "loss": "softmax", "thread": 1, "verbose": 0, "seed": 0,
}  # fmt: skip


def _documents(source: CC100, *, most: int | None = None) -> Iterator[Document]:
  """The documents of each language; of a language that has more than `most` shards, those of as many, evenly spread."""
  shards: dict[str, list] = {}
  for shard in source.shards(_SHARD_BYTES):
    shards.setdefault(normal_code(shard.language or ""), []).append(shard)
  for language in sorted(shards):
    chosen = shards[language]
    if most and len(chosen) > most:
      chosen = [chosen[len(chosen) * index // most] for index in range(most)]
    for shard in chosen:
      for document in source.documents(shard):
        yield document._replace(language=language)


def _pieces(texts: list[str], chance: random.Random) -> list[str]:
  """About _CHARACTERS of the texts, cut between words into pieces whose lengths differ, evenly by their logarithm."""
  pieces: list[str] = []
  total = 0
  for _ in range(_PASSES):
    chance.shuffle(texts)
    for text in texts:
      start = 0
      while start < len(text):
        end = start + int(math.exp(chance.uniform(math.log(_SHORTEST), math.log(_LONGEST))))
        space = text.find(" ", end, end + 30)  # Scripts without spaces are cut anywhere.
        end = space if space >= 0 else end
        if piece := text[start:end].strip():
          pieces.append(piece)
          total += len(piece)
        if total >= _CHARACTERS:
          return pieces
        start = end
  return pieces


def _write_pieces(folder: str | Path, file: Path) -> dict[str, int]:
  """Writes "__label__LANG piece" lines in a random order; returns how many characters of text each language had.

  Raises UserError: there are fewer than two languages with text.
  """
  texts: dict[str, list[str]] = {}
  for document in _documents(CC100(folder), most=_SHARDS):
    texts.setdefault(document.language, []).append(" ".join(document.text.split()))
  texts = {language: [text for text in language_texts if text] for language, language_texts in texts.items()}
  texts = {language: language_texts for language, language_texts in texts.items() if language_texts}
  if len(texts) < 2:
    raise UserError(f"{folder}: has text in {len(texts)} languages; a model of languages needs at least 2")
  sizes = {language: sum(map(len, language_texts)) for language, language_texts in texts.items()}
  lines = [
    f"__label__{language} {piece}\n"
    for language in sorted(texts)
    for piece in _pieces(texts[language], random.Random(f"pieces of {language}"))
  ]
  random.Random("order").shuffle(lines)
  with file.open("w", encoding="utf-8", errors="replace") as out:
    out.writelines(lines)
  return sizes


def train(folder: str | Path, out: Path, *, quantize: bool = False) -> dict[str, Any]:
  """Trains a model on a folder in CC-100's layout, each language with as much text as any other, and writes it to `out`.

  The same text gives the same bytes. quantize: makes the model about a quarter as large and a little less accurate.
  Returns {"languages", "characters", "bytes"}. Raises UserError: the text or the package fasttext is missing, there is only
  one language, or the training failed.
  """
  import_fasttext()
  refuse_unwritable(out, folder=False)
  with tempfile.TemporaryDirectory(prefix="xlmr_jax_language_id") as temporary, whole_file(out) as unfinished:
    with Progress(f"cutting the text in {folder} into pieces"):
      sizes = _write_pieces(folder, Path(temporary) / "pieces.txt")
    # fastText fails with NaN if it is used a second time in a process, and only one thread gives the same model twice.
    command = [sys.executable, "-m", __spec__.name, f"{temporary}/pieces.txt", str(unfinished), json.dumps(quantize)]
    with Progress(f"fastText learns {len(sizes)} languages, and does not tell how far it is"):
      child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if child.returncode or not unfinished.exists():
      last = (child.stderr.strip().splitlines() or ["no message"])[-1]
      raise UserError(f"{folder}: fastText could not train on it (exit {child.returncode}: {last})")
    written = unfinished.stat().st_size
  return {"languages": len(sizes), "characters": sum(sizes.values()), "bytes": written}


def _train_here(pieces: str, out: str, quantize: bool) -> None:
  # The size of the file is in bytes, which here may stand for characters.
  epochs = max(_EPOCHS, min(100, math.ceil(_SEEN / Path(pieces).stat().st_size)))
  model = import_fasttext().train_supervised(input=pieces, epoch=epochs, **_OPTIONS)
  if quantize:
    model.quantize(input=pieces, retrain=False)
  model.save_model(out)


# --- test ----------------------------------------------------------------------------------------------------------------


def _units(folder: str | Path, unit: str) -> Iterator[tuple[str, list[str]]]:
  """(language, paragraphs) of each unit. A file without a blank line is taken for a list of sentences: each is a unit."""
  source = CC100(folder)
  waiting: dict[str, list[Document]] = {}
  for document in _documents(source):
    if unit == "line":
      yield from ((document.language, [line]) for line in document.text.split("\n") if line.strip())
      continue
    held = waiting.setdefault(document.language, [])
    if len(held) < 2:
      held.append(document)
      if len(held) == 1:
        continue
      yield from ((document.language, early.text.split("\n")) for early in held)
    else:
      yield document.language, document.text.split("\n")
  for language, held in waiting.items():
    if len(held) == 1:
      yield from ((language, [line]) for line in held[0].text.split("\n") if line.strip())


def test(identifier: Identifier, folder: str | Path, *, unit: str = "document") -> dict[str, Any]:
  """How often the identifier says what the folder's names say. unit: "document" or "line".

  Returns {"languages", "units", "macro_recall" (of units), "bytes_right" (0 to 1), "table"}; a row of the table has
  "language", "units", "recall", "precision" and "confusions", which is [[answer, units], ...]. Raises UserError: no text.
  """
  answers: Counter[tuple[str, str]] = Counter()
  total = right = 0
  batch: list[tuple[str, list[str]]] = []

  def count() -> None:
    nonlocal total, right
    for (language, text), found in zip(batch, identifier.documents([(text, "") for _, text in batch])):
      size = len("\n".join(text).encode("utf-8", "replace"))
      answers[language, found.language] += 1
      total += size
      right += size * (language == found.language)
    batch.clear()

  for pair in _units(folder, unit):
    batch.append(pair)
    if len(batch) == 1000:
      count()
  count()
  if not answers:
    raise UserError(f"{folder}: has no text")
  languages = sorted({language for language, _ in answers})
  table = []
  for language in languages:
    units = sum(number for (true, _), number in answers.items() if true == language)
    claimed = sum(number for (_, answer), number in answers.items() if answer == language)
    wrong = Counter({answer: number for (true, answer), number in answers.items() if true == language != answer})
    found = answers[language, language]
    table.append({
      "language": language,
      "units": units,
      "recall": found / units,
      "precision": found / claimed if claimed else 0.0,
      "confusions": [list(pair) for pair in wrong.most_common(_MOST_CONFUSIONS)],
    })  # fmt: skip
  return {
    "languages": len(languages),
    "units": answers.total(),
    "macro_recall": sum(row["recall"] for row in table) / len(table),
    "bytes_right": right / total,
    "table": table,
  }


if __name__ == "__main__":
  _train_here(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
