"""From the documents of a shard to files of packed rows, and from those files to a finished store."""

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.corpus.held_out import Report, Rule, choose_rules, refuse_missing
from xlmr_jax.corpus.merge import keep_languages
from xlmr_jax.corpus.packing import pack
from xlmr_jax.corpus.parallel_rows import encode_pairs
from xlmr_jax.corpus.sources import Document, Shard, Source
from xlmr_jax.corpus.sources.parallel import SEPARATOR
from xlmr_jax.corpus.word_starts import encode_marked
from xlmr_jax.data import rows as row_files
from xlmr_jax.data.row_manifest import COUNTS, SPLITS, write_manifest
from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, each, move_file, sha256_of, whole_file
from xlmr_jax.folders import copy_folder
from xlmr_jax.ids import EOS, FIRST_PIECE, PAD, WORD_START


@dataclasses.dataclass(frozen=True)
class Job:
  """What every work item of a build needs to know. All of its workers see `folder` and `tokenizer` under the same path."""

  source: Source
  folder: str  # of the unfinished store
  tokenizer: str
  seq_len: int
  held_out: float  # share of the documents
  shard_bytes: int  # After so many bytes of text, rows go to another file.
  word_starts: str = ""  # what segments the text, if rows are to tell where words start
  pairs: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # of the source


@dataclasses.dataclass(frozen=True)
class WorkItem:
  """One shard to tokenise."""

  number: int  # of the shard, in the source's order
  shard: Shard
  size: int  # bytes of text
  rules: dict[str, Rule]  # of the languages in it
  threads: int = 1  # for the tokenizer


@dataclasses.dataclass(frozen=True)
class RowFile:
  """A file of rows that is written, and what it holds. finish_store gives it another name."""

  language: str
  split: str
  name: str
  sha256: str
  rows: int
  tokens: int
  pieces: int
  bytes: int
  documents: int


@dataclasses.dataclass(frozen=True)
class Written:
  """What became of one shard: the languages that it has documents of, and the files of rows, if they hold any token."""

  languages: list[str]
  files: list[RowFile]
  blank: int = 0  # pairs of parallel sentences that were left out because a side is blank
  too_long: int = 0  # and because they do not fit into a row


def plan(reports: list[Report], job: Job, workers: int = 1) -> list[WorkItem]:
  """The work items of the second stage, the largest first, so that no worker is left with it at the end.

  reports: of all shards, in the source's order. Raises UserError: a language is missing, or has too little text.
  """
  refuse_missing(reports, job.source)
  rules = choose_rules(reports, job.held_out)
  threads = max(1, workers // max(1, len(reports)))  # Where there are fewer shards than cores, the tokenizer takes the rest.
  items = [
    WorkItem(number, report.shard, report.size, {language: rules[language] for language in report.languages}, threads)
    for number, report in enumerate(reports)
  ]
  return sorted(items, key=lambda item: -item.size)


def write_rows(item: WorkItem, job: Job) -> Written:
  """Tokenises a shard and writes its rows: one file per language and split, and more of them for a large shard."""
  tokenizer = open_once(job.tokenizer)
  files: list[RowFile] = []
  part, languages, size, blank, too_long = 0, {}, 0, 0, 0

  def write() -> None:
    nonlocal too_long
    for language, tokens in sorted(languages.items()):
      too_long += tokens.left_out
      files.extend(tokens.write(job, language, f"{item.number:08d}-{part:05d}"))

  for block in job.source.blocks(item.shard):
    by_language: dict[str, list[Document]] = {}
    for document in block.documents:
      by_language.setdefault(document.language, []).append(document)
    for language, documents in by_language.items():
      if language not in languages:
        languages[language] = _Tokens(bool(job.word_starts), job.seq_len if language in job.pairs else 0)
      languages[language].add(documents, item.rules[language], tokenizer, item.threads)
    size, blank = size + block.size, blank + block.blank
    if size >= job.shard_bytes:
      write()
      part, languages, size = part + 1, {}, 0
  write()
  return Written(sorted(item.rules), files, blank, too_long)


class _Tokens:
  """The tokens of one language's documents, by split, until they are packed; with marks, if rows are to tell words."""

  def __init__(self, marked: bool, pairs_in: int = 0) -> None:
    """marked: whether with marks. pairs_in: the tokens of a row if the documents are pairs of parallel sentences, else 0."""
    self._marked, self._pairs_in, self.left_out = marked, pairs_in, 0
    self._tokens: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    self._lengths: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    self._bytes = dict.fromkeys(SPLITS, 0)

  def add(self, documents: list[Document], rule: Rule, tokenizer: Tokenizer, threads: int) -> None:
    """Tokenises documents line by line; one call of the tokenizer takes all lines of a split."""

    def encode(lines: list[str]) -> list[np.ndarray]:
      return encode_marked(tokenizer, lines, threads) if self._marked else tokenizer.encode_lines(lines, threads)

    for split, texts in zip(("train", "held_out"), zip(*map(rule.split, documents))):
      chosen = list(filter(None, texts))
      if chosen and self._pairs_in:
        lines, fits = encode_pairs(chosen, encode, tokenizer.separators, self._pairs_in)
        self.left_out += fits.count(False)
        self._tokens[split] += lines
        self._lengths[split].append(np.fromiter(map(len, lines), np.int64, len(lines)))
        self._bytes[split] += sum(len(text.encode()) - len(SEPARATOR) for text, is_kept in zip(chosen, fits) if is_kept)
      if not chosen or self._pairs_in:
        continue
      whole = "\n".join(chosen)
      text_lines = [*whole.split("\n")]
      lines = encode(text_lines)
      sizes = np.fromiter(map(len, lines), np.int64, len(lines))
      line_counts = np.array([text.count("\n") + 1 for text in chosen])
      self._tokens[split].append(np.concatenate(lines))
      self._lengths[split].append(np.add.reduceat(sizes, np.cumsum(line_counts) - line_counts))
      self._bytes[split] += len(whole.encode()) - (len(chosen) - 1)  # without the newlines that join them

  def write(self, job: Job, language: str, name: str) -> list[RowFile]:
    """Packs the tokens and writes one file per split that has any."""
    files = []
    for split in SPLITS:
      tokens = np.concatenate(self._tokens[split]) if self._tokens[split] else np.empty(0, np.int32)
      if not tokens.size:
        continue
      lengths = np.concatenate(self._lengths[split])
      rows = pack(tokens, lengths, job.seq_len, cut=not self._pairs_in)
      word_starts = rows >= WORD_START if self._marked else None
      rows &= WORD_START - 1
      path = row_files.language_folder(job.folder, language) / f"{split}.{name}"
      with whole_file(path, many_writers=True) as unfinished:
        row_files.write_shard(unfinished, rows, word_starts)
        sha256 = sha256_of(unfinished)
      files.append(
        RowFile(
          language=language,
          split=split,
          name=path.name,
          sha256=sha256,
          rows=len(rows),
          tokens=int(np.count_nonzero(rows != PAD)),
          pieces=int(np.count_nonzero(rows > EOS)),
          bytes=self._bytes[split],
          documents=int(np.count_nonzero(lengths)),
        )
      )
    return files


@functools.cache
def open_once(path: str) -> Tokenizer:
  """The tokenizer at `path`, opened once per process, because XLM-R's takes half a second."""
  return open_tokenizer(path)


def _write_dataset_infos(folder: AnyPath, lengths: dict[str, dict[str, list[int]]], job: Job) -> None:
  """Writes what makes the files of each language a data set of TFDS."""
  if isinstance(folder, Path):
    for language, found in lengths.items():
      row_files.write_dataset_info(folder, language, job.seq_len, found, bool(job.word_starts))
    return
  with tempfile.TemporaryDirectory() as here:
    for language, found in lengths.items():
      # TFDS wants to see files of these names, and does not look into them.
      where = Path(here) / "rows" / language / row_files.language_folder(folder, language).name
      where.mkdir(parents=True)
      names = [row_files.shard_name(split, i, len(rows)) for split, rows in found.items() for i in range(len(rows))]
      for name in names:
        (where / name).touch()
      row_files.write_dataset_info(here, language, job.seq_len, found, bool(job.word_starts))
      for name in names:
        (where / name).unlink()
    copy_folder(Path(here), folder)


def finish_store(
  job: Job, written: list[Written], out: AnyPath, kept: Mapping[str, Any] | None = None
) -> dict[str, dict[str, dict[str, int]]]:
  """Gives the files TFDS's names and writes its metadata and the manifest. Returns the counts of the languages built.

  kept: the manifest of the store at `out`, whose other languages the new store holds too; in a bucket their files stay at
  `out`, where merge.publish brings the new ones.
  Raises UserError: there are no languages, a split of a language has no tokens although it should, or a file of another
  language is missing.
  """
  if not any(shard.languages for shard in written):
    raise UserError(f"{out}: no rows of any language were written; give text that has some")
  folder = any_path(job.folder)
  by_split: dict[tuple[str, str], list[RowFile]] = {}
  for file in (file for shard in written for file in shard.files):
    by_split.setdefault((file.language, file.split), []).append(file)
  digests: dict[str, str] = {}
  counts: dict[str, dict[str, dict[str, int]]] = {}
  names: list[tuple[AnyPath, AnyPath]] = []
  lengths_of: dict[str, dict[str, list[int]]] = {}
  for language in sorted({language for shard in written for language in shard.languages}):
    lengths: dict[str, list[int]] = {}
    counts[language] = {}
    for split in SPLITS:
      parts = sorted(by_split.get((language, split), []), key=lambda file: file.name)
      if not parts and (split == "train" or job.held_out):
        raise UserError(f"{language}: no tokens in its {split} documents; add text or leave {language} out")
      where = row_files.language_folder(folder, language)
      for index, part in enumerate(parts):
        path = where / row_files.shard_name(split, index, len(parts))
        names.append((where / part.name, path))
        digests[str(path.relative_to(folder))] = part.sha256
      lengths[split] = [part.rows for part in parts]
      counts[language][split] = {key: sum(getattr(part, key) for part in parts) for key in COUNTS}
    lengths_of[language] = lengths
  each(lambda pair: move_file(*pair), names, folder)
  _write_dataset_infos(folder, lengths_of, job)
  kept_counts = {}
  if kept:
    keep_languages(out, kept, folder, set(counts))
    kept_counts = {language: kept["languages"][language] for language in kept["languages"] if language not in counts}
    digests |= {name: sha256 for name, sha256 in kept["files"].items() if name.split("/")[1] in kept_counts}
  vocabulary = open_once(job.tokenizer)
  write_manifest(
    folder,
    seq_len=job.seq_len,
    vocabulary_size=vocabulary.size,
    tokenizer_sha256=vocabulary.sha256,
    held_out_share=job.held_out,
    languages=kept_counts | counts,
    files=digests,
    mask=vocabulary.mask_id,
    no_pieces=set(range(FIRST_PIECE, vocabulary.size)) - {vocabulary.mask_id, *vocabulary.replacements.tolist()},
    shard_bytes=job.shard_bytes,
    word_starts=job.word_starts,
    pairs={**{name: sides for name, sides in (kept or {}).get("pairs", {}).items() if name in kept_counts},
           **{name: sides for name, sides in job.pairs.items() if name in counts}},
  )  # fmt: skip
  return counts
