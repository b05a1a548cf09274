"""Command: a SentencePiece unigram vocabulary, trained on an alpha-smoothed sample of a folder's paragraphs.

    xlmr train_vocabulary --text=DIR --size=32000 --alpha=0.3 --out=FILE.model

The id layout is XLM-R's (data/tokenizer.py); --size counts those ids, so XLM-R's is 250002.
"""

import hashlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.corpus.sources import cc100 as sources
from xlmr_jax.data.mixture import smoothed_shares
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError, run_command

# Part of the result: the sums over threads are rounded in their order. So not the number of cores.
TRAINER_THREADS = 16
MOST_SENTENCES = 1_000_000  # by default; SentencePiece takes about 7 GB for a million different ones
# SentencePiece silently drops lines over 4192 bytes; told to keep them, one long run of "=" costs it minutes.
LONGEST_LINE = 1000  # characters; longer ones are cut
TABLE_LINES = 1000  # of each language, for characters per token


def train_vocabulary(
  text: str | Path,
  out: str | Path,
  *,
  size: int,
  alpha: float = 0.3,
  sentences: int | None = None,
  seed: int = 0,
  character_coverage: float = 0.9995,
  languages: Iterable[str] | None = None,
) -> dict:
  """Trains and writes a vocabulary of `size` ids; returns the command's summary and, under "table", its rows.

  `sentences` paragraphs are drawn (by default as many as there are, at most MOST_SENTENCES), of language l a
  share proportional to n_l^alpha, n_l its paragraphs (Conneau et al. 2020, sections 3 and 5.1: sentences are
  what they count). A language with fewer than its quota is repeated, as pretraining will repeat it, so the
  shares are exact; one with more gives one paragraph out of each of quota equal stretches, so that the sample
  spans its whole corpus.
  Raises UserError for whatever the user must mend; `out` is written whole or not at all.
  """
  began = time.perf_counter()
  out = Path(out)
  if out.exists():
    raise UserError(f"{out}: exists; remove it or choose another --out")
  if not out.absolute().parent.is_dir():
    raise UserError(f"{out.absolute().parent}: no such folder; make it or choose another --out")
  if not 0.98 <= character_coverage <= 1:
    raise UserError(f"--character_coverage={character_coverage}: a share between 0.98 and 1")
  if not 0 <= alpha <= 1:  # before the text is read
    raise UserError(f"--alpha={alpha}: must lie in [0, 1]")
  files = sources.find_sources(text, languages)
  if size < 16:
    raise UserError(f"--size={size}: too small for a vocabulary")
  if sentences is not None and sentences < len(files):
    raise UserError(f"--sentences={sentences}: fewer than one for each of the {len(files)} languages")
  counts = np.array([sum(sources.scan(path)["paragraphs"] for path in paths) for paths in files.values()])
  if sentences is None:
    sentences = min(MOST_SENTENCES, max(int(counts.sum()), len(files)))
  quotas = np.maximum(1, np.round(smoothed_shares(counts, alpha, list(files)) * sentences).astype(np.int64))
  samples = {name: [] for name in files}  # the first few of each language, for the table
  model = _train(_sample(files, counts, quotas, seed, samples), size, character_coverage)
  unfinished = out.with_name(f".{out.name}.unfinished-{os.getpid()}")
  try:
    unfinished.write_bytes(model)
    tokenizer = Tokenizer(unfinished)  # the layout is what we promise
    unfinished.rename(out)
  finally:
    unfinished.unlink(missing_ok=True)
  table = []
  for name, count, quota in zip(files, counts.tolist(), quotas.tolist()):
    characters, tokens = sum(map(len, samples[name])), sum(map(len, tokenizer.encode_lines(samples[name])))
    table.append(
      {
        "language": name,
        "paragraphs": count,
        "sampled": quota,
        "characters_per_token": round(characters / max(1, tokens), 2),
      }
    )
  return {
    "size": tokenizer.size,
    "languages": len(files),
    "sentences": int(quotas.sum()),
    "sha256": hashlib.sha256(model).hexdigest(),
    "seconds": round(time.perf_counter() - began, 1),
    "table": table,
  }


def choose(count: int, quota: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Which of `count` paragraphs to take, int64[k] sorted, and how often each, int64[k] summing to quota.

  Each quota // count times, and of the rest one more from each of equal stretches.
  """
  whole, rest = divmod(quota, count)
  edges = np.arange(rest + 1) * count // max(1, rest)
  extra = edges[:-1] + (rng.random(rest) * np.diff(edges)).astype(np.int64)
  if not whole:
    return extra, np.ones(rest, np.int64)
  times = np.full(count, whole)
  times[extra] += 1
  return np.arange(count), times


def cut(line: str) -> Iterator[str]:
  """The line in parts of at most LONGEST_LINE characters, at spaces where it has any."""
  while len(line) > LONGEST_LINE:
    end = max(line.rfind(" ", 1, LONGEST_LINE), 0) or LONGEST_LINE
    yield line[:end]
    line = line[end:]
  yield line


def _sample(
  files: dict[str, list[Path]], counts: np.ndarray, quotas: np.ndarray, seed: int, samples: dict[str, list[str]]
) -> Iterator[str]:
  """The chosen paragraphs and how often each counts, as SentencePiece's TSV; one block of text at a time."""
  for index, name in enumerate(files):
    rng = np.random.default_rng([seed, *name.encode()])
    chosen, times = choose(int(counts[index]), int(quotas[index]), rng)
    passed = 0
    for path in files[name]:
      for block in sources.read_blocks(path):
        lines = [line for document in sources.documents(block) for line in document.split(b"\n")]
        here = slice(*np.searchsorted(chosen, [passed, passed + len(lines)]))
        for place, often in zip(chosen[here].tolist(), times[here].tolist()):
          line = lines[place - passed].decode("utf-8").replace("\t", " ")
          if len(samples[name]) < TABLE_LINES:
            samples[name].append(line)
          yield from (f"{part}\t{often}" for part in cut(line))
        passed += len(lines)


def _train(sample: Iterator[str], size: int, character_coverage: float) -> bytes:
  """The serialized model. unk, bos, eos at 0, 1, 2 and no pad: data/tokenizer.py makes it XLM-R's ids."""
  import sentencepiece

  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=sample,
      input_format="tsv",  # a repeated paragraph costs nothing
      model_writer=model,
      model_type="unigram",
      vocab_size=size - 2,  # <pad> and <mask> are ours
      character_coverage=character_coverage,
      normalization_rule_name="nmt_nfkc",
      unk_id=0,
      bos_id=1,
      eos_id=2,
      pad_id=-1,
      num_threads=TRAINER_THREADS,
      train_extremely_large_corpus=True,  # 64-bit suffix array: over 2^31 characters it is a must
      minloglevel=2,
    )
  except RuntimeError as error:
    if found := re.search(r"Vocabulary size too high .*?<= (\d+)", str(error)):
      raise UserError(f"--size={size}: too large for this text; at most {int(found[1]) + 2}") from error
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(error)):
      least = int(found[1]) + 2
      raise UserError(
        f"--size={size}: too small for the characters of this text; at least {least}, or lower --character_coverage"
      ) from error
    raise
  return model.getvalue()


def main(argv: list[str]) -> None:
  if argv[1:]:
    raise UserError(f"{argv[1]}: not understood; options are --name=value")
  given = flags.FLAGS
  summary = train_vocabulary(
    given.text,
    given.out,
    size=given.size,
    alpha=given.alpha,
    sentences=given.sentences,
    seed=given.seed,
    character_coverage=given.character_coverage,
    languages=given.languages,
  )
  print(f"{'language':>10} {'paragraphs':>12} {'sampled':>10} {'characters/token':>17}")
  for row in summary.pop("table"):
    print("{language:>10} {paragraphs:>12} {sampled:>10} {characters_per_token:>17}".format(**row))
  print(json.dumps(summary))


def run() -> None:
  flags.DEFINE_string("text", None, "folder with LANG.txt[.gz|.xz] or LANG/*.txt[.gz|.xz]", required=True)
  flags.DEFINE_string("out", None, "the model file to write", required=True)
  flags.DEFINE_integer("size", None, "ids, specials and all; XLM-R has 250002", required=True)
  flags.DEFINE_float("alpha", 0.3, "smoothing of the languages' shares: 1 as they are, 0 all equal")
  flags.DEFINE_integer("sentences", None, f"paragraphs to train on; all by default, at most {MOST_SENTENCES}")
  flags.DEFINE_integer("seed", 0, "of the sample")
  flags.DEFINE_float("character_coverage", 0.9995, "share of the characters that get a piece of their own")
  flags.DEFINE_list("languages", None, "only these, by comma; all by default")
  app.run(run_command(main), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  run()
