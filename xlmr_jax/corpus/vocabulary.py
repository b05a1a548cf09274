"""Trains a vocabulary, SentencePiece's unigram or BPE or BERT's WordPiece, on an alpha-smoothed sample of paragraphs.

The ids are XLM-R's (xlmr_jax/ids.py). A vocabulary's size counts all of them, so XLM-R's is 250002. wordpiece.py has the
training of the second kind.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from xlmr_jax.corpus import memory
from xlmr_jax.corpus.held_out import refuse_missing, scan
from xlmr_jax.corpus.sources import Shard, Source
from xlmr_jax.corpus.wordpiece import train_wordpiece
from xlmr_jax.corpus.workers import cores, run_stage
from xlmr_jax.data.mixture import smoothed_shares
from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import whole_file
from xlmr_jax.given_paths import path_given, refuse_unwritable
from xlmr_jax.ids import UNK
from xlmr_jax.progress import Progress

# The number of threads is part of the result, because sums over threads are rounded in their order. So it does not follow
# the number of cores.
TRAINER_THREADS = 16
KINDS = ("unigram", "bpe", "wordpiece")
MOST_SENTENCES = 1_000_000  # by default; memory_needed() tells what SentencePiece takes for them
# SentencePiece silently drops lines of more than 4192 bytes. If it is told to keep them, one long run of "=" costs minutes.
LONGEST_LINE = 1000  # characters; longer ones are cut
TABLE_LINES = 1000  # lines of each language by which the vocabulary is measured
_SHARD_BYTES = 32 << 20
# The tab separates the columns of SentencePiece's TSV. It would drop a line with U+2585, its own sign for what is unknown.
_RESERVED = str.maketrans("\t\u2585", "  ")


def train_vocabulary(
  source: Source,
  out: str | os.PathLike,
  *,
  size: int,
  kind: str = "unigram",
  lower_case: bool = False,
  alpha: float = 0.3,
  sentences: int | None = None,
  seed: int = 0,
  character_coverage: float = 0.9995,
  memory_gb: float | None = None,
  compare: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """Trains and writes a vocabulary of `size` ids; returns the command's summary, and under "table" one row per language.

  `sentences` paragraphs are drawn; by default as many as there are, but at most MOST_SENTENCES. The share of language l is
  proportional to n_l^alpha, where n_l counts its paragraphs (Conneau et al. 2020, sections 3 and 5.1, count sentences). A
  language with fewer paragraphs than its quota is repeated, as pretraining will repeat it, so that the shares are exact. One
  with more gives one paragraph out of each of quota equal stretches: like a reservoir's, each paragraph is as likely as any
  other, but the sample always spans the whole corpus, has exactly its quota, and needs no memory but for what is drawn.

  kind: one of KINDS. lower_case: of WordPiece, whether letters lose their case and their accents.
  memory_gb: what the training may take, 10^9 bytes; by default what the machine and the container have free. Only that of
  a unigram is told beforehand.
  compare: another vocabulary, by which each row of the table is measured too, under "compared".
  Raises UserError for whatever the user must mend. `out` is written whole or not at all.
  """
  began = time.perf_counter()
  out = path_given(out, "--out=")
  if out.exists():
    raise UserError(f"{out}: exists; remove it or choose another --out")
  refuse_unwritable(out, folder=False)
  if not 0.98 <= character_coverage <= 1:
    raise UserError(f"--character_coverage={character_coverage}: a share between 0.98 and 1")
  if not 0 <= alpha <= 1:
    raise UserError(f"--alpha={alpha}: must lie in [0, 1]")
  if kind not in KINDS:
    raise UserError(f"--kind={kind}: must be one of {', '.join(KINDS)}")
  if lower_case and kind != "wordpiece":
    raise UserError("--lower_case: only --kind=wordpiece takes it")
  if kind == "wordpiece" and importlib.util.find_spec("tokenizers") is None:
    raise UserError("--kind=wordpiece: Hugging Face's tokenizers are needed; pip install 'xlmr_jax[evaluate]'")
  if size < 16:
    raise UserError(f"--size={size}: too small for a vocabulary")
  other = None if compare is None else open_tokenizer(path_given(compare, "--compare="))
  shards = source.shards(_SHARD_BYTES)
  counted = count_paragraphs(source, shards)
  counts = np.array(list(counted.values()))
  if sentences is None:
    sentences = min(MOST_SENTENCES, max(int(counts.sum()), len(counted)))
  elif sentences < len(counted):
    raise UserError(f"--sentences={sentences}: fewer than one for each of the {len(counted)} languages")
  quotas = np.maximum(1, np.round(smoothed_shares(counts, alpha, list(counted)) * sentences).astype(np.int64))
  samples = {
    language: _Sample(language, int(count), int(quota), seed) for (language, count), quota in zip(counted.items(), quotas)
  }
  lines = list(draw(source, shards, samples))
  needed = announce_memory(lines, size, sentences, memory_gb) if kind == "unigram" else None
  memory.forget_peak()
  before = memory.resident()
  if kind == "wordpiece":
    model = train_wordpiece(lines, size, character_coverage, lower_case)
  else:
    model = _train(lines, size, character_coverage, kind)
  peak = memory.peak()
  del lines
  with whole_file(out) as unfinished:
    unfinished.write_bytes(model)
    tokenizer = open_tokenizer(unfinished)  # This checks the layout that we promise.
  table = []
  for language, sample in samples.items():
    row = {"language": language, "paragraphs": sample.count, "sampled": sample.quota, **measure(tokenizer, sample.kept)}
    table.append(row if other is None else row | {"compared": measure(other, sample.kept)})
  return {
    "size": tokenizer.size,
    "languages": len(samples),
    "sentences": int(quotas.sum()),
    "sha256": hashlib.sha256(model).hexdigest(),
    "seconds": round(time.perf_counter() - began, 1),
    "announced_gb": None if needed is None else round(needed / 1e9, 3),
    "peak_gb": None if before is None or peak is None else round(max(0, peak - before) / 1e9, 3),
    "table": table,
  }


def choose(count: int, quota: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Which of `count` paragraphs to take, int64[k] sorted, and how often each, int64[k] with sum `quota`.

  Every paragraph is taken quota // count times. The rest of the quota takes one paragraph more from each of equal stretches.
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
  """The line in parts of at most LONGEST_LINE characters, cut at spaces where it has any."""
  while len(line) > LONGEST_LINE:
    end = max(line.rfind(" ", 1, LONGEST_LINE), 0) or LONGEST_LINE
    yield line[:end]
    line = line[end:]
  yield line


@dataclasses.dataclass
class _Sample:
  """The paragraphs of one language that are drawn, while the text passes by."""

  language: str
  count: int  # paragraphs of the language
  quota: int
  seed: int

  def __post_init__(self) -> None:
    rng = np.random.default_rng([self.seed, *self.language.encode()])
    self._chosen, self._times = choose(self.count, self.quota, rng)
    self._passed = 0  # paragraphs
    self._stride = -(-len(self._chosen) // TABLE_LINES)
    self._drawn = 0
    self.kept: list[str] = []  # at most TABLE_LINES, evenly spread

  def draw(self, paragraphs: list[str]) -> Iterator[str]:
    """What is drawn of the next paragraphs, as lines of SentencePiece's TSV: the text, and how often it counts."""
    here = slice(*np.searchsorted(self._chosen, [self._passed, self._passed + len(paragraphs)]))
    for index, times in zip(self._chosen[here].tolist(), self._times[here].tolist()):
      line = paragraphs[index - self._passed].translate(_RESERVED)
      if not self._drawn % self._stride:
        self.kept.append(line)
      self._drawn += 1
      yield from (f"{part}\t{times}" for part in cut(line))
    self._passed += len(paragraphs)


def measure(tokenizer: Tokenizer, lines: list[str]) -> dict[str, float]:
  """How a vocabulary fits some text: characters per piece, pieces per word, the share of <unk>, that of covered characters.

  A word is what stands between blanks, so pieces per word says nothing of languages that write none.
  """
  encoded = tokenizer.encode_lines(lines)
  characters, pieces = sum(map(len, lines)), sum(map(len, encoded))
  with_unknown = [line for line, ids in zip(lines, encoded) if np.any(ids == UNK)]
  uncovered = sum(
    int((ends - starts)[ids == UNK].sum()) for ids, starts, ends in tokenizer.encode_with_offsets(with_unknown)
  )
  return {
    "characters_per_piece": round(characters / max(1, pieces), 3),
    "pieces_per_word": round(pieces / max(1, sum(len(line.split()) for line in lines)), 3),
    "unknown_rate": round(sum(int(np.count_nonzero(ids == UNK)) for ids in encoded) / max(1, pieces), 6),
    "character_coverage": round(1 - uncovered / max(1, characters), 6),
  }


def memory_needed(lines: list[str]) -> int:
  """Bytes that SentencePiece takes at most to train on lines of its TSV, beyond what this process has already.

  Measured with SentencePiece 0.2.3 (benchmarks/vocabulary.py). It sorts all suffixes of the sample, in which a paragraph
  that counts often stands as often. So many bytes per character go to that, and nearly twice as many where positions need 64
  bits. Besides, it holds the different paragraphs, and up to a million candidates for pieces.
  """
  characters = texts = 0
  for line in lines:
    text, _, times = line.rpartition("\t")
    characters += (len(text) + 1) * int(times)
    texts += len(text.encode()) + 100
  per_character = 24 if characters < 2**31 else 42
  return per_character * characters + 2 * texts + 160 * min(1_000_000, characters // 5) + (16 << 20)


def announce_memory(lines: list[str], size: int, sentences: int, memory_gb: float | None) -> int:
  """Says in a line how much memory the training will take; returns it in bytes. Raises UserError: there is less."""
  needed = memory_needed(lines)
  free = memory.available() if memory_gb is None else int(memory_gb * 1e9)
  known = "" if free is None else f"; {free / 1e9:.1f} GB are free"
  print(
    f"training {size:,} pieces on {sentences:,} paragraphs takes at most {needed / 1e9:.2f} GB of memory{known}",
    file=sys.stderr,
    flush=True,
  )
  if free is not None and needed > free:
    least = memory_needed([])
    fit = max(0, int(0.95 * sentences * (free - least) / (needed - least)))
    fit -= fit % 10 ** max(0, len(str(fit)) - 2)
    raise UserError(
      f"--sentences={sentences}: training takes up to {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free; "
      f"--sentences={fit} fits, and --memory_gb names another limit"
    )
  return needed


def draw(source: Source, shards: list[Shard], samples: dict[str, _Sample]) -> Iterator[str]:
  """All that is drawn from a source, one block of text at a time."""
  with Progress("drawing paragraphs", sum(shard.size for shard in shards) / 1e6, "MB") as progress:
    for shard in shards:
      for block in source.blocks(shard):
        paragraphs: dict[str, list[str]] = {}
        for document in block.documents:
          paragraphs.setdefault(document.language, []).extend(document.text.split("\n"))
        for language, lines in paragraphs.items():
          yield from samples[language].draw(lines)
      progress.add(shard.size / 1e6)


def count_paragraphs(source: Source, shards: list[Shard]) -> dict[str, int]:
  """The paragraphs of each language, in the order in which the source has them."""
  counts: dict[str, int] = {}
  sizes = [shard.size for shard in shards]
  reports = run_stage("counting paragraphs", functools.partial(scan, source=source), shards, sizes, workers=cores())
  refuse_missing(reports, source)
  for report in reports:
    for language, census in report.languages.items():
      counts[language] = counts.get(language, 0) + census.paragraphs
  return counts


def _train(sample: list[str], size: int, character_coverage: float, kind: str) -> bytes:
  """The serialized model, whose <unk>, <s> and </s> are 0, 1 and 2. data/sentencepiece.py turns its ids into XLM-R's.

  kind: unigram or bpe.
  """
  import sentencepiece

  model = io.BytesIO()
  try:
    characters = sum(map(len, sample)) / 1e6
    with Progress(
      f"SentencePiece trains {size:,} pieces on {len(sample):,} paragraphs ({characters:,.1f} million characters), "
      "and does not tell how far it is"
    ):
      sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample),
        input_format="tsv",  # A repeated paragraph is read once and counted often.
        model_writer=model,
        model_type=kind,
        vocab_size=size - 2,  # <pad> and <mask> are ours.
        character_coverage=character_coverage,
        normalization_rule_name="nmt_nfkc",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=TRAINER_THREADS,
        train_extremely_large_corpus=True,  # Without it, 2^31 characters are too many; below, it costs nothing.
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
    if re.search(r"sentences_\.empty|all_chars_count", str(error)):
      raise UserError(
        "this text has no character that a vocabulary could hold, but blanks and control characters"
      ) from error
    raise UserError(f"SentencePiece cannot train on this text ({' '.join(str(error).split())})") from error
  return model.getvalue()
