"""How a build of a corpus begins: it finds its own unfinished or finished work at --out, and refuses that of another one."""

import contextlib
import dataclasses
import hashlib
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xlmr_jax import bucket_lock
from xlmr_jax.corpus.clean import rewritten
from xlmr_jax.corpus.clean.finish import MANIFEST, TIMES, exclusive, languages_beyond_cc100, languages_left_out
from xlmr_jax.corpus.clean.job import Job
from xlmr_jax.corpus.reference import Reference
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, read_json, sha256_of, whole_file
from xlmr_jax.folders import entries
from xlmr_jax.names import below

VERSION = 3  # of what a build does; another one makes other bytes of the same text
WORK = ".work"


@dataclasses.dataclass(frozen=True)
class Options:
  """What a build does with the text. All of it changes the result, and is in the manifest."""

  language_id: str = "cld2"  # or fasttext:FILE
  language_id_sha256: str = ""  # which FILE must have, if it is given
  sure: bool = False  # leave out documents whose language is not sure
  near_duplicates: bool = True
  rehydrate: bool = False  # repeat a document by the size of its cluster
  mask_personal_data: bool = False
  opt_out: str = ""  # file of URLs, their hashes and domains; "" for none
  reference: str = ""  # folder of clean text in CC-100's layout, of which limits are learnt; "" for none
  removed: str = "samples"  # what is kept of what is removed: samples, or all of it too
  piece_mb: float = 32  # 10^6 bytes of text that a worker holds at a time
  file_mb: float = 256  # 10^6 bytes of text per file of clean text
  compress: bool = True  # .txt.zst rather than .txt


def fingerprint_of(options: Options, shards: Sequence[Shard], root: str, reference: str) -> dict[str, Any]:
  """What the result depends on, apart from the languages that are asked for. reference: its digest, "" for none."""
  listed = hashlib.sha256()
  for shard in shards:
    shown = dataclasses.replace(shard, name=shard.name.removeprefix(root))
    listed.update(f"{shown!r}\n".encode("utf-8", "surrogateescape"))
  files = {
    name: sha256_of(path)
    for name, path in (
      ("language_id", options.language_id.removeprefix("fasttext:") if ":" in options.language_id else ""),
      ("opt_out", options.opt_out),
    )
    if path
  }
  if reference:
    files["reference"] = reference
  return {
    "version": VERSION,
    # Of a file counts what it holds, not where it lies.
    "options": {
      **{key: value for key, value in dataclasses.asdict(options).items() if key != "language_id_sha256"},
      "language_id": options.language_id.partition(":")[0],
      "opt_out": bool(options.opt_out),
      "reference": bool(options.reference),
    },
    "files": files,
    "shards": {"number": len(shards), "bytes": sum(shard.size for shard in shards), "sha256": listed.hexdigest()},
  }


def _read_begun(out: AnyPath) -> dict[str, Any] | None:
  """What an unfinished build wrote of itself when it began; None where there is no such build."""
  try:
    return read_json(out / WORK / "job.json")
  except FileNotFoundError:
    return None


def digest_reference(out: AnyPath, reference: Reference) -> dict[str, str]:
  """{"state", "sha256"} of a reference.

  Its text is read when a build begins. Later starts, and other tasks, read it again only if a file of it looks changed.
  """
  state = reference.state()
  before = (_read_begun(out) or {}).get("reference", {})
  return before if before.get("state") == state else {"state": state, "sha256": reference.digest()}


def begin(
  out: AnyPath,
  fingerprint: dict[str, Any],
  job: Job,
  reference: dict[str, str],
  times: Mapping[str, int] = MappingProxyType({}),
) -> Job | None:
  """Makes the folder of an unfinished build, or finds its own; returns the job as that build began. None: it is finished.

  A build of all languages into a finished one that has only some writes the rest.
  In a bucket it has a name of its own below `.work`, because a task that is late may write into it when it is gone.
  reference: what digest_reference gave. times: what rewritten.times_of gave. Raises UserError: something else is there, or
  the text has changed meanwhile.
  """
  wanted = {"fingerprint": fingerprint, "languages": list(job.languages)}
  if (begun := _read_begun(out)) is not None:
    if (found := {key: begun.get(key) for key in wanted}) != wanted:
      raise UserError(
        f"{out}: an unfinished build with another {_difference(found, wanted)} is there; finish it with the same flags, or "
        f"remove {out / WORK}"
      )
    folder = below(job.folder, begun["folder"]) if begun.get("folder") else job.folder
    languages = job.languages or tuple(begun.get("rest", ()))
    job = dataclasses.replace(job, folder=folder, known=tuple(begun.get("known", ())), languages=languages)
    _check_times(job.path(TIMES), times, job.root, out)
    return job
  known: list[str] = []
  rest: list[str] = []  # what builds with --languages left out, where one without it follows on them
  if (out / MANIFEST).exists():
    manifest = read_json(out / MANIFEST)
    if manifest["build"] != fingerprint:
      raise UserError(
        f"{out}: holds a build with another {_difference({'fingerprint': manifest['build']}, wanted)}; choose another --out"
      )
    rewritten.refuse_changed(out / TIMES, times, job.root, out)
    if not job.languages and not (rest := languages_left_out(manifest)):
      print(f"{out}: finished before", file=sys.stderr, flush=True)
      return None
    if rest:
      print(f"{out}: finished before but for {', '.join(rest)}, which are built now", file=sys.stderr, flush=True)
    known = languages_beyond_cc100(manifest)
  elif any(name != WORK for name in entries(out)):
    raise UserError(f"{out}: exists and is not empty; choose another --out or remove it")
  _write_begun(out / WORK / "job.json", wanted | {"known": known, "rest": rest, "reference": reference})
  return begin(out, fingerprint, job, reference, times)


def _check_times(path: AnyPath, times: Mapping[str, int], root: str, out: AnyPath) -> None:
  """Has the first of several tasks record what files it has found, and all others compare theirs with that."""
  if rewritten.refuse_changed(path, times, root, out) or not times:
    return
  with exclusive(path.with_name("begin.lock")) if isinstance(path, Path) else contextlib.nullcontext():
    if is_first := not path.exists():
      rewritten.record(path, times, root)
  if not is_first:
    rewritten.refuse_changed(path, times, root, out)


def _write_begun(path: AnyPath, begun: dict[str, Any]) -> None:
  """Writes job.json unless it is there: of several tasks that begin at once, one writes it, and all go by what it wrote."""
  if not isinstance(path, Path):
    begun = begun | {"folder": secrets.token_hex(4)}
    bucket_lock.create(path, json.dumps(begun, indent=1, sort_keys=True).encode())
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with exclusive(path.with_name("begin.lock")):
    if not path.exists():
      with whole_file(path, many_writers=True) as unfinished:
        unfinished.write_text(json.dumps(begun, indent=1, sort_keys=True), encoding="utf-8")


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
  """Where two descriptions of a build differ, as the user gave it."""
  one, other = found["fingerprint"], wanted["fingerprint"]
  for key, value in other["options"].items():
    if one["options"].get(key) != value:
      return f"--{key} ({one['options'].get(key)!r}, now {value!r})"
  for key in ("files", "shards", "version"):
    if one[key] != other[key]:
      return {
        "files": "language identifier, opt-out file or reference",
        "shards": "source",
        "version": "version of xlmr_jax",
      }[key]
  return f"--languages ({','.join(found.get('languages', [])) or 'all'}, now {','.join(wanted['languages']) or 'all'})"
