"""Builds rows: a source's documents, tokenised and packed, in a store that data/rows.py can read.

Nothing in a build is random, so two builds of the same text are byte-identical, whatever runs them.
"""

import contextlib
import fcntl
import functools
import glob
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xlmr_jax.bucket_lock import BucketLock
from xlmr_jax.corpus import beam
from xlmr_jax.corpus.held_out import scan
from xlmr_jax.corpus.merge import UNFINISHED, exchange, interrupted, is_empty, one_at_a_time, publish, read_store
from xlmr_jax.corpus.packing import check_seq_len
from xlmr_jax.corpus.shards import Job, Written, finish_store, open_once, plan, write_rows
from xlmr_jax.corpus.sources import Shard, Source
from xlmr_jax.corpus.word_starts import segmenter
from xlmr_jax.corpus.workers import cores, run_stage
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, naming, write_whole
from xlmr_jax.folders import entries, remove_folder
from xlmr_jax.given_paths import path_given, refuse_unwritable

# From so much text per worker on, processes are worth the second that each takes to start. Below it, threads are as fast,
# because SentencePiece runs without Python's lock.
PROCESS_BYTES = 128 << 20


def build_rows(
  source: Source,
  tokenizer: str | os.PathLike,
  out: str | os.PathLike,
  *,
  seq_len: int = 512,
  held_out: float = 0.01,
  workers: int | None = None,
  shard_mb: float = 32,
  beam_flags: Sequence[str] = (),
  add: bool = False,
  word_starts: bool = False,
) -> dict[str, Any]:
  """Builds the rows of a source in the new folder `out` (data/rows.py has its layout); returns the command's summary.

  held_out: the share of the documents that are held out; workers: all cores by default; shard_mb: 10^6 bytes of text per
  file of rows; beam_flags: if there are any, Beam runs the build as they say, and `workers` is not used.
  add: puts the source's languages into the store that there is at `out`, in the place of those of the same name. The store
  is then byte for byte the one that is built of all languages at once, and until it is complete the old one stays as it is.
  word_starts: has the rows tell where words start, by ICU's segmentation, which config.data.mask_unit=word and span need.
  The rows depend on the text, the vocabulary, seq_len, held_out and shard_mb alone, not on workers or runner. Of a folder of
  LANG.txt they do not depend on how the text is stored either. Of other sources they do, because documents are packed with
  those of the same shard: a plain file of JSON lines is cut after shard_mb and a compressed one is not, and Parquet and TFDS
  files are cut where their row groups and files end. What rows tell of words depends on ICU's version too, which the
  manifest names.
  Raises UserError for whatever the user must mend; then nothing is left at `out` or beside it.
  """
  out, tokenizer = path_given(out, "--out="), path_given(tokenizer, "--tokenizer=")
  workers = cores() if workers is None else workers
  check_seq_len(seq_len)
  if not 0 <= held_out < 1:
    raise UserError(f"--held_out={held_out}: a share of the documents, at least 0 and below 1")
  if workers < 1 or shard_mb <= 0:
    raise UserError(f"--workers={workers} --shard_mb={shard_mb}: both must be above 0")
  refuse_unwritable(out, folder=True)
  left = interrupted(out)
  if not add and not (left["manifest"] is None if left else is_empty(out)):
    raise UserError(f"{out}: exists; remove it, choose another --out, or pass --add to put these languages into it")
  shard_bytes = max(1, int(shard_mb * 1e6))
  sha256 = open_once(str(tokenizer)).sha256
  alike = {"tokenizer_sha256": sha256, "seq_len": seq_len, "held_out_share": held_out, "shard_bytes": shard_bytes}
  alike["word_starts"] = words = segmenter() if word_starts else None
  if add:
    with one_at_a_time(out):
      read_store(out, **alike)  # so that what cannot be added is refused before anything expensive
  run_by_beam = beam.open_runner(list(beam_flags)) if beam_flags else None
  import tensorflow_datasets  # noqa: F401  Its import takes seconds, which are not the build's.

  began = time.perf_counter()
  shards = source.shards(shard_bytes)
  with _unfinished(out) as folder, naming(out):
    write_whole(folder / "tokenizer.model", open_once(str(tokenizer)).model)
    job = Job(source, str(folder), str(tokenizer), seq_len, held_out, shard_bytes, words or "", dict(source.pairs))
    written = run_by_beam(shards, job) if run_by_beam else _run_here(shards, job, workers)
    remove_folder(folder / "outcomes")
    with one_at_a_time(out) if add else contextlib.nullcontext():
      store = read_store(out, **alike) if add else None  # Another build may have added a language in the meantime.
      counts = finish_store(job, written, out, store)
      if not isinstance(folder, Path) or not isinstance(out, Path):
        publish(folder, out, store, counts)
      elif store:
        exchange(folder, out)
      else:
        folder.rename(out)
  total = {
    key: sum(split[key] for language in counts.values() for split in language.values())
    for key in ("rows", "tokens", "bytes")
  }
  return {
    "languages": len(counts),
    "rows": total["rows"],
    "tokens": total["tokens"],
    "real_token_share": round(total["tokens"] / (total["rows"] * seq_len), 5),
    "mb_per_s": round(total["bytes"] / 1e6 / (time.perf_counter() - began), 2),
    **({name: sum(getattr(one, name) for one in written) for name in ("blank", "too_long")} if source.pairs else {}),
  }


def _run_here(shards: list[Shard], job: Job, workers: int) -> list[Written]:
  """Both stages on this machine."""
  stage = functools.partial(
    run_stage, workers=workers, processes=1 < workers <= sum(shard.size for shard in shards) / PROCESS_BYTES
  )
  sizes = [shard.size for shard in shards]
  items = plan(stage("reading the text", functools.partial(scan, source=job.source), shards, sizes), job, workers)
  return stage("writing the rows", functools.partial(write_rows, job=job), items, [item.size for item in items])


@contextlib.contextmanager
def _unfinished(out: AnyPath) -> Iterator[AnyPath]:
  """A new folder beside `out`, which is removed if anything goes wrong, also by SIGTERM.

  Its name tells the host, the start of its kernel and the process, and the build holds a lock on it. So what a killed build
  left is removed by the next one on this machine, unless the machine was started anew since, and no other build's folder is.
  In a bucket it is a folder in `out`, and a lock keeps other builds out meanwhile.
  """
  if not isinstance(out, Path):
    held = BucketLock(out / UNFINISHED / "lock", f"{out}: another build is working there; wait for it or stop it")
    try:
      for name, is_folder in entries(out / UNFINISHED).items():
        if is_folder:
          remove_folder(out / UNFINISHED / name)
      folder = out / UNFINISHED / secrets.token_hex(4)
      try:
        yield folder
      finally:
        remove_folder(folder)
    finally:
      held.remove()
    return
  prefix = f".{out.name}.unfinished-{socket.gethostname()}-"
  boot = _boot()
  for left in out.parent.glob(f"{glob.escape(prefix)}*"):
    if not (found := re.fullmatch(r"([0-9a-f]*)\.([0-9]+)", left.name.removeprefix(prefix))):
      continue
    is_ours = int(found[2]) == os.getpid()
    # Another machine may have the same name, as containers do, and locks of folders do nothing on some network disks. There
    # is no other build with our number on this machine, or it lives in another container and holds the lock.
    if found[1] == boot:
      if (is_ours or not _is_alive(int(found[2]))) and not _is_held(left):
        shutil.rmtree(left, ignore_errors=True)
    elif is_ours:
      raise UserError(
        f"{out}: another build may be working there, on another machine of the same name; wait for it, or remove {left} if "
        "there is none"
      )
  folder = out.parent / f"{prefix}{boot}.{os.getpid()}"
  new_parents = [path for path in folder.parents if not path.exists()]
  try:
    folder.mkdir(parents=True)
  except FileExistsError:
    raise UserError(f"{out}: another build is working there, in {folder}; wait for it or stop it") from None
  except OSError as error:
    raise UserError(f"{folder.parent}: cannot be written ({error.strerror}); choose another --out") from error
  held = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # Some network file systems have no locks for folders.
      fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield folder
  finally:
    os.close(held)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # Removing ends at the first parent that holds something: the finished rows, if any.
      for path in new_parents:
        path.rmdir()


def _boot() -> str:
  """Names this start of this machine's kernel; "" where the system has no such name."""
  with contextlib.suppress(OSError):
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
  return ""


def _is_held(folder: Path) -> bool:
  """Whether a build that lives has its lock on a folder."""
  try:
    descriptor = os.open(folder, os.O_RDONLY)
  except OSError:
    return False
  try:
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:
    return False
  finally:
    os.close(descriptor)
  return False


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # It is another user's.
    pass
  return True
