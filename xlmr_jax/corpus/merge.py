"""Adds languages to a finished store of rows, or replaces them, so that one language can be built alone.

The new store is complete in a folder of its own, in which the files of the other languages are links to those there are.
Then the two folders change names. So a reader finds the old store or the new one, and whoever has the old one open keeps it.
In a bucket nothing can be renamed: the new files are copied into the store, whose manifest is taken away for that time.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, read_bytes, read_json, write_json, write_whole
from xlmr_jax.folders import entries, files_below, replace_folder

UNFINISHED = ".unfinished"  # in a bucket, the folder in `out` of what is not finished
_BEFORE = "before.json"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux's fcntl.h and fs.h


def read_store(out: AnyPath, **wanted: Any) -> dict[str, Any] | None:
  """The manifest of the store to which languages are added; None if there is nothing at `out`, so that a new one is made.

  wanted: what the manifest must say, because all languages of a store are built alike.
  Call it while one_at_a_time is open.
  Raises UserError: what is there is no finished store, or was built otherwise; the message names both values.
  """
  if isinstance(out, Path):
    _recover(out)
  if (left := interrupted(out)) is not None:
    manifest = left["manifest"]
  elif is_empty(out):
    return None
  else:
    manifest = read_manifest(out)
  if manifest is None:
    return None
  for key, value in wanted.items():
    if (found := manifest.get(key)) != value:
      raise UserError(
        f"{out}: its rows have {key} {_short(key, found)}, and these would have {_short(key, value)}; build them alike, or "
        "choose another --out"
      )
  return manifest


def is_empty(out: AnyPath) -> bool:
  """Whether nothing is at `out` but, in a bucket, the folder of unfinished builds."""
  return not out.exists() if isinstance(out, Path) else not set(entries(out)) - {UNFINISHED}


def interrupted(out: AnyPath) -> dict[str, Any] | None:
  """What publish left that was killed: {"manifest": of the store that was there, or None; "replaced": the languages}."""
  if isinstance(out, Path) or (out / "manifest.json").exists():
    return None
  try:
    return read_json(out / UNFINISHED / _BEFORE)
  except FileNotFoundError:
    return None


def publish(folder: AnyPath, out: AnyPath, before: Mapping[str, Any] | None, languages: Collection[str]) -> None:
  """Copies a finished store within a bucket to `out`, over the languages of the same name.

  While this goes on, `out` has no manifest, so that readers refuse it. Whoever had it open finds a file that is not the one
  of its manifest, and says so. before: the manifest of the store that is there. languages: those that are built.
  Raises UserError: a build that was killed here has replaced other languages only in part.
  """
  left = interrupted(out)
  if left and (missing := sorted(set(left["replaced"]) - set(languages))):
    raise UserError(
      f"{out}: a build that was killed has replaced {', '.join(missing)} only in part; give these languages too, or first"
    )
  write_json(out / UNFINISHED / _BEFORE, {"manifest": before, "replaced": sorted(languages)})
  (out / "manifest.json").unlink(missing_ok=True)
  for language in sorted(languages):
    replace_folder(folder / "rows" / language, out / "rows" / language)
  for name in ("tokenizer.model", "manifest.json"):
    write_whole(out / name, read_bytes(folder / name))
  (out / UNFINISHED / _BEFORE).unlink(missing_ok=True)


def keep_languages(out: AnyPath, manifest: Mapping[str, Any], folder: AnyPath, replaced: set[str]) -> None:
  """Links the files of a store's languages, but for those that are replaced, into the unfinished store `folder`.

  In a bucket they stay where they are, and only whether they are there is looked at.
  """
  if not isinstance(out, Path) or not isinstance(folder, Path):
    there = files_below(out / "rows")
    for name in manifest["files"]:
      if name.split("/")[1] not in replaced and name.removeprefix("rows/") not in there:
        raise UserError(f"{out / name}: named in the manifest, but missing; build {name.split('/')[1]} again too")
    return
  for language in sorted(set(manifest["languages"]) - replaced):
    source = out / "rows" / language
    try:
      shutil.copytree(source, folder / "rows" / language, copy_function=_link)
    except (OSError, shutil.Error) as error:
      raise UserError(f"{source}: cannot be kept ({error}); build {language} again too") from error
  for name in manifest["files"]:
    if name.split("/")[1] not in replaced and not (folder / name).is_file():
      raise UserError(f"{out / name}: named in the manifest, but missing; build {name.split('/')[1]} again too")


@contextlib.contextmanager
def one_at_a_time(out: AnyPath) -> Iterator[None]:
  """Waits for other builds that put their store at `out` at this moment, so that none of them loses another's language.

  In a bucket a build has a lock of its own for all of its time.
  """
  if not isinstance(out, Path) or not out.parent.is_dir():
    yield
    return
  descriptor = os.open(out.parent, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # Some network file systems have no locks for folders.
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def exchange(folder: Path, out: Path) -> None:
  """Gives the store in `folder` the name `out`, and what was there the name `folder`, in one step where the system can."""
  rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
  if rename is None or rename(_HERE, os.fsencode(folder), _HERE, os.fsencode(out), _EXCHANGE):
    aside = _aside(out)
    out.rename(aside)
    try:
      folder.rename(out)
    except BaseException:
      aside.rename(out)
      raise
    aside.rename(folder)


def _aside(out: Path) -> Path:
  """Where the old store is for a moment, if the system cannot exchange two names."""
  return out.with_name(f".{out.name}.replaced")


def _recover(out: Path) -> None:
  """Mends what a build left that was killed between the renames of `exchange`: the old store comes back, or is removed."""
  aside = _aside(out)
  if out.exists():
    shutil.rmtree(aside, ignore_errors=True)
  elif aside.exists():
    aside.rename(out)


def _link(source: str, target: str) -> str:
  try:
    os.link(source, target)
  except OSError:  # Some file systems have no hard links.
    shutil.copy2(source, target)
  return target


def _short(key: str, value: Any) -> str:
  if value is None:  # Words are told only where that is asked for; all else is always there now.
    return "none" if key == "word_starts" else "none, as an earlier version built them"
  return str(value)[:12]
