"""Command: a folder of text in CC-100 layout -> rows in all languages, as one Apache Beam pipeline.

    xlmr build_rows --text=DIR --tokenizer=FILE.model --out=ROWS

Beam carries work items of a few hundred bytes, never text: workers read --text and write --out themselves, so
all of them must see both under the same path (one machine, or a shared file system). Nothing is random.
"""

import contextlib
import dataclasses
import functools
import glob
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.corpus.packing import check_seq_len, pack
from xlmr_jax.corpus.sources import cc100 as sources
from xlmr_jax.data import rows as row_files
from xlmr_jax.data.tokenizer import EOS, PAD, Tokenizer
from xlmr_jax.errors import UserError, run_command

# From so much text a worker on, processes are worth their start of a second. Below it, threads: SentencePiece
# runs without Python's lock, so a few of them are as fast.
PROCESS_BYTES = 128 << 20
_LOCAL_RUNNERS = (None, "DirectRunner", "FnApiRunner")


@dataclasses.dataclass(frozen=True)
class Job:
  """What every work item of a build needs to know."""

  folder: str  # the unfinished ROWS
  tokenizer: str
  seq_len: int
  held_out: float
  shard_bytes: int
  workers: int  # work items at a time; 0: one work item a Beam element, and Beam spreads them over its own
  processes: bool  # workers are processes of their own rather than threads


def build_rows(
  text: str | Path,
  tokenizer: str | Path,
  out: str | Path,
  *,
  seq_len: int = 512,
  held_out: float = 0.01,
  languages: Iterable[str] | None = None,
  workers: int | None = None,
  shard_mb: float = 32,
  beam_args: Iterable[str] = (),
) -> dict:
  """Builds ROWS (see data/rows.py) and returns the summary that the command prints.

  The rows depend on the text, the vocabulary, seq_len, held_out and shard_mb alone, not on workers or runner.
  Raises UserError for whatever the user must mend; nothing is left at `out` or beside it then.
  """
  began = time.perf_counter()
  out, workers = Path(out).absolute(), cores() if workers is None else workers
  check_seq_len(seq_len)
  if not 0 <= held_out < 1:
    raise UserError(f"--held_out={held_out}: a share of the documents, at least 0 and below 1")
  if workers < 1 or shard_mb <= 0:
    raise UserError(f"--workers={workers} --shard_mb={shard_mb}: both must be above 0")
  if out.exists():
    raise UserError(f"{out}: exists; remove it or choose another --out")
  files = sources.find_sources(text, languages)
  vocabulary = _tokenizer(str(Path(tokenizer).absolute()))
  importing = time.perf_counter()
  import apache_beam  # noqa: F401  these two take seconds, which are not the build's
  import tensorflow_datasets  # noqa: F401

  began += time.perf_counter() - importing
  with _unfinished(out) as folder:
    shutil.copyfile(tokenizer, folder / "tokenizer.model")
    runner, options, ours = _runner(list(beam_args))
    size = sum(os.path.getsize(path) for paths in files.values() for path in paths)
    job = Job(
      str(folder),
      str(Path(tokenizer).absolute()),
      seq_len,
      held_out,
      max(1, int(shard_mb * 1e6)),
      workers=workers if ours else 0,
      processes=ours and 1 < workers <= size / PROCESS_BYTES,
    )
    _run_pipeline(job, files, runner, options)
    counts = _finish(job, vocabulary)
    folder.rename(out)
  total = {
    key: sum(split[key] for language in counts.values() for split in language.values())
    for key in ("rows", "tokens", "bytes")
  }
  seconds = time.perf_counter() - began
  return {
    "languages": len(counts),
    "rows": total["rows"],
    "tokens": total["tokens"],
    "real_token_share": round(total["tokens"] / (total["rows"] * seq_len), 5),
    "mb_per_s": round(total["bytes"] / 1e6 / seconds, 2),
  }


def cores() -> int:
  """Cores that this process may use; macOS does not tell, and has no containers to limit them."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- the pipeline -----------------------------------------------------------------------------------------


def _run_pipeline(job: Job, files: dict[str, list[Path]], runner, options) -> None:
  """Scan, then (a barrier: the plan needs all reports) tokenise; the shards' reports land in job.folder."""
  import apache_beam as beam

  paths = [(language, number, str(path.absolute())) for language in files for number, path in enumerate(files[language])]
  paths.sort(key=lambda item: -os.path.getsize(item[2]))
  try:
    pipeline = beam.Pipeline(runner=runner, options=options)
  except ValueError as error:  # an option that this runner cannot do without
    raise UserError(f"--runner: {'; '.join(str(error).splitlines())}") from error
  with pipeline:
    reports = pipeline | "files" >> beam.Create(_elements(paths, job)) | "scan" >> beam.FlatMap(_run_items, _scan, job)
    (
      pipeline
      | "start" >> beam.Create([None])
      | "plan" >> beam.FlatMap(_plan, beam.pvalue.AsList(reports), job)
      | "spread" >> beam.Reshuffle()
      | "tokenise" >> beam.FlatMap(_run_items, _tokenise, job)
      | "report" >> beam.Map(_write_report, job)
    )


def _elements(items: list, job: Job) -> list[list]:
  return [items] if job.workers else [[item] for item in items]


def _run_items(items: list, work: Callable[[tuple, Job], dict], job: Job) -> list[dict]:
  """Reports of some work items. An error is a report too, so that every runner gives the same clear line."""

  one = functools.partial(_guarded, work=work, job=job)
  if job.workers < 2 or len(items) < 2:
    return [one(item) for item in items]
  fresh = multiprocessing.get_context("spawn")  # a fork would copy the locks of TensorFlow's threads
  with ProcessPoolExecutor(job.workers, fresh) if job.processes else ThreadPoolExecutor(job.workers) as pool:
    return list(pool.map(one, items))


def _guarded(item: tuple, work: Callable[[tuple, Job], dict], job: Job) -> dict:
  try:
    return work(item, job)
  except UserError as error:
    return {"error": str(error)}
  except OSError as error:
    return {"error": f"{error.filename or job.folder}: {error.strerror}"}
  except Exception:
    return {"error": "", "traceback": traceback.format_exc()}


def _scan(item: tuple[str, int, str], job: Job) -> dict:
  language, number, path = item
  return {"language": language, "number": number, "path": path, **sources.scan(path, job.shard_bytes)}


def _plan(_, reports: list[dict], job: Job) -> list[list]:
  """Work items of the second stage from the reports of the first, or one item that carries an error."""
  errors = [report for report in reports if "error" in report]
  by_language: dict[str, list[dict]] = {}
  for report in reports:
    by_language.setdefault(report.get("language"), []).append(report)
  items = []
  for language, parts in [] if errors else sorted(by_language.items()):
    try:
      below, tail = _held_out_rule(language, parts, job.held_out)
    except UserError as error:
      errors.append({"error": str(error)})
      continue
    for part in parts:
      for index, (start, length) in enumerate(part["shards"]):
        size = length or part["bytes"]
        items.append((size, (language, part["number"], index, part["path"], start, length, below, tail)))
  if errors:
    return [[("error", error)] for error in errors]
  items.sort(key=lambda item: (-item[0], item[1]))  # the largest first: nobody is left with it at the end
  threads = max(1, job.workers // max(1, len(items)))  # a few large items: SentencePiece's own threads
  return _elements([(*item, threads) for _, item in items], job)


def _held_out_rule(language: str, parts: list[dict], held_out: float) -> tuple[int, int]:
  """(below, tail): documents with a hash under `below` are held out; a lone document's last `tail` lines.

  Every language keeps a document on both sides: `below` moves just past the lowest hash, or to the highest.
  """
  where = parts[0]["path"] if len(parts) == 1 else str(Path(parts[0]["path"]).parent)
  count = sum(part["documents"] for part in parts)
  if not count:
    raise UserError(f"{where}: no text; add some or leave {language} out")
  if not held_out:
    return 0, 0
  if count == 1:
    lines = sum(part["paragraphs"] for part in parts)
    if lines == 1:
      raise UserError(f"{where}: only one paragraph, so nothing can be held out; add text or pass --held_out=0")
    return 0, min(max(1, round(held_out * lines)), lines - 1)
  found = [part for part in parts if part["documents"]]
  lowest, highest = min(part["lowest"] for part in found), max(part["highest"] for part in found)
  if lowest == highest:
    raise UserError(f"{where}: {count} times the same document, so nothing can be held out; add text or pass --held_out=0")
  return min(max(int(held_out * 2**64), lowest + 1), highest), 0


def _tokenise(item: tuple, job: Job) -> dict:
  """Reads one shard of text and writes its rows; several of both for a compressed file."""
  if item[0] == "error":
    return item[1]
  language, number, index, path, start, length, below, tail, threads = item
  encode = functools.partial(_tokenizer(job.tokenizer).encode_lines, threads=threads)
  folder = row_files.language_folder(job.folder, language)
  shards = []
  shard, taken = _Shard(), 0
  for block in sources.read_blocks(path, start, length):
    shard.add(sources.documents(block), encode, below, tail)
    taken += len(block)
    if taken >= job.shard_bytes:
      shards.append(shard.write(folder, f"{number:05d}-{index + len(shards):05d}", job.seq_len))
      shard, taken = _Shard(), 0
  if taken:
    shards.append(shard.write(folder, f"{number:05d}-{index + len(shards):05d}", job.seq_len))
  return {"language": language, "shards": [part for shard in shards for part in shard]}


class _Shard:
  """The tokens of one shard, split into train and held_out."""

  def __init__(self):
    self.splits = {split: {"tokens": [], "lengths": [], "bytes": 0} for split in row_files.SPLITS}

  def add(self, documents: list[bytes], encode: Callable, below: int, tail: int) -> None:
    """Tokenises documents line by line; one call into C++ for all lines of a split."""
    split: dict[str, list[bytes]] = {"train": [], "held_out": []}
    for document in documents:
      if tail:  # the language's only document
        lines = document.split(b"\n")
        split["train"].append(b"\n".join(lines[:-tail]))
        split["held_out"].append(b"\n".join(lines[-tail:]))
      else:
        held = below and sources.document_hash(document) < below
        split["held_out" if held else "train"].append(document)
    for name, chosen in split.items():
      if not chosen:
        continue
      counts = [document.count(b"\n") + 1 for document in chosen]
      lines = encode(b"\n".join(chosen).decode("utf-8").split("\n"))
      sizes = np.fromiter(map(len, lines), np.int64, len(lines))
      into = self.splits[name]
      into["tokens"].append(np.concatenate(lines))
      into["lengths"].append(np.add.reduceat(sizes, np.cumsum(counts) - counts))
      into["bytes"] += sum(map(len, chosen))

  def write(self, folder: Path, name: str, seq_len: int) -> list[dict]:
    """Packs and writes the rows; the report of each file written, under the name it has until _finish."""
    reports = []
    for split, found in self.splits.items():
      tokens = np.concatenate(found["tokens"]) if found["tokens"] else np.empty(0, np.int32)
      if not tokens.size:
        continue
      lengths = np.concatenate(found["lengths"])
      rows = pack(tokens, lengths, seq_len)
      path = folder / f"{split}.{name}"
      row_files.write_shard(path, rows)
      reports.append(
        {
          "split": split,
          "name": path.name,
          "sha256": row_files.file_sha256(path),
          "rows": len(rows),
          "tokens": int(np.count_nonzero(rows != PAD)),
          "pieces": int(np.count_nonzero(rows > EOS)),
          "bytes": found["bytes"],
          "documents": int(np.count_nonzero(lengths)),
        }
      )
    return reports


def _write_report(report: dict, job: Job) -> None:
  path = Path(job.folder) / "reports" / f"{uuid.uuid4().hex}.json"
  path.with_suffix(".tmp").write_text(json.dumps(report), encoding="utf-8")
  path.with_suffix(".tmp").rename(path)


@functools.cache
def _tokenizer(path: str) -> Tokenizer:
  """One a process: loading XLM-R's takes half a second."""
  return Tokenizer(path)


# ---- the driver -------------------------------------------------------------------------------------------


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # another user's
    pass
  return True


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
  """A new folder beside `out`, gone again if anything goes wrong, also on TERM; after kill -9 with the next build."""
  mine = f".{out.name}.unfinished-{socket.gethostname()}-"
  for left in out.parent.glob(f"{glob.escape(mine)}*"):
    pid = left.name.removeprefix(mine)
    if pid.isdigit() and not _is_alive(int(pid)):
      shutil.rmtree(left, ignore_errors=True)
  folder = out.parent / f"{mine}{os.getpid()}"
  new_parents = [path for path in folder.parents if not path.exists()]
  try:
    (folder / "reports").mkdir(parents=True)
  except OSError as error:
    raise UserError(f"{folder.parent}: cannot be written ({error.strerror}); choose another --out") from error
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # stops at the first that holds something: the finished rows, if any
      for path in new_parents:
        path.rmdir()


def _finish(job: Job, vocabulary: Tokenizer) -> dict:
  """Gives the shards TFDS's names, writes its metadata and the manifest; returns the manifest's counts."""
  folder = Path(job.folder)
  reports = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "reports").glob("*.json")]
  errors = sorted((report for report in reports if "error" in report), key=lambda report: report["error"])
  for report in errors:
    if "traceback" in report:
      raise RuntimeError(f"a worker failed:\n{report['traceback']}")
  if errors:
    more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
    raise UserError(errors[0]["error"] + more)
  shards: dict[str, dict[str, list]] = {}
  for report in reports:
    splits = shards.setdefault(report["language"], {split: [] for split in row_files.SPLITS})
    for shard in report["shards"]:
      splits[shard["split"]].append(shard)
  counts, files = {}, {}
  for language, splits in sorted(shards.items()):
    where = row_files.language_folder(folder, language)
    for split, parts in splits.items():
      parts.sort(key=lambda shard: shard["name"])
      if not parts and (split == "train" or job.held_out):
        raise UserError(f"{language}: no tokens in its {split} documents; add text or leave {language} out")
      for index, shard in enumerate(parts):
        path = where / row_files.shard_name(split, index, len(parts))
        (where / shard["name"]).rename(path)
        files[str(path.relative_to(folder))] = shard["sha256"]
    lengths = {split: [shard["rows"] for shard in parts] for split, parts in splits.items()}
    row_files.write_dataset_info(folder, language, job.seq_len, lengths)
    counts[language] = {
      split: {key: sum(shard[key] for shard in parts) for key in row_files.COUNTS} for split, parts in splits.items()
    }
  shutil.rmtree(folder / "reports")
  row_files.write_manifest(
    folder,
    seq_len=job.seq_len,
    vocabulary_size=vocabulary.size,
    tokenizer_sha256=vocabulary.sha256,
    held_out_share=job.held_out,
    languages=counts,
    files=files,
  )
  return counts


def _runner(beam_args: list[str]):
  """(runner, options, whether the workers are ours rather than Beam's) from Beam's own flags."""
  from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
  from apache_beam.runners import create_runner

  for before, arg in zip(["", *beam_args], beam_args):
    if not arg.startswith("-") and (not before.startswith("--") or "=" in before):
      raise UserError(f"{arg}: not understood; options are --name=value")
  options = PipelineOptions(beam_args)
  known = options.get_all_options()
  if unknown := sorted(set(options.get_all_options(retain_unknown_options=True)) - set(known)):
    raise UserError(f"--{unknown[0]}: neither a flag of this command nor one of Beam's")
  name = options.view_as(StandardOptions).runner
  if name not in _LOCAL_RUNNERS:
    try:
      return create_runner(name), options, False
    except (ValueError, ImportError, AttributeError) as error:
      raise UserError(f"--runner={name}: {error}") from error
  from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # DirectRunner would look for Prism

  return FnApiRunner(), options, options.view_as(DirectOptions).direct_running_mode == "in_memory"


def main(argv: list[str]) -> int | None:
  """argv: what is left for Beam once our own flags are taken."""
  logging.disable(logging.WARNING)  # Beam's talk; ours does not go through logging
  stopped = []

  def stop(number, _):  # as an exception, so that the unfinished folder goes
    logging.disable(logging.CRITICAL)
    stopped.append(number)
    sys.exit()

  signal.signal(signal.SIGTERM, stop)
  signal.signal(signal.SIGINT, stop)
  given = flags.FLAGS
  try:
    summary = build_rows(
      given.text,
      given.tokenizer,
      given.out,
      seq_len=given.seq_len,
      held_out=given.held_out,
      languages=given.languages,
      workers=given.workers,
      shard_mb=given.shard_mb,
      beam_args=argv[1:],
    )
  except BaseException:
    if not stopped:
      raise
    print("stopped; nothing is left behind", file=sys.stderr)
    return 128 + stopped[0]
  print(json.dumps(summary))


def run() -> None:
  flags.DEFINE_string("text", None, "folder with LANG.txt[.gz|.xz] or LANG/*.txt[.gz|.xz]", required=True)
  flags.DEFINE_string("tokenizer", None, "SentencePiece model, as corpus.vocabulary writes it", required=True)
  flags.DEFINE_string("out", None, "folder to make: the rows, as a TFDS dataset a language", required=True)
  flags.DEFINE_integer("seq_len", 512, "tokens a row")
  flags.DEFINE_float("held_out", 0.01, "share of the documents that is held out")
  flags.DEFINE_list("languages", None, "only these, by comma; all by default")
  flags.DEFINE_integer("workers", None, "threads or processes of a local run; all cores by default")
  flags.DEFINE_float("shard_mb", 32, "text of one shard; other than workers, it changes the rows")
  flags.FLAGS.set_gnu_getopt(True)
  app.run(run_command(main), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv, known_only=True)
  except flags.Error as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  # Workers find functions by the name of their module, which must not be __main__.
  from xlmr_jax.corpus import build

  build.run()
