"""MANIFEST.json of a checkpoint: the sha256 of each of its files and the shape and dtype of each leaf.

Orbax restores flipped bits silently and casts a changed dtype. So a checkpoint counts only with its manifest, which is
written last, and only while every file is as the manifest says.
"""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from xlmr_jax.errors import UserError
from xlmr_jax.files import read_json, sha256_of, whole_file

MANIFEST = "MANIFEST.json"
_HASHING_THREADS = 16  # hashlib releases the GIL.
T = TypeVar("T")
Result = TypeVar("Result")


class DamagedError(ValueError):
  """A checkpoint is not what was saved. The message names the file and what is wrong with it."""


def _in_threads(work: Callable[[T], Result], items: Iterable[T]) -> Iterator[Result]:
  """Yields work(item) in the order of items. What one item raises is raised when its turn comes."""
  with concurrent.futures.ThreadPoolExecutor(min(_HASHING_THREADS, os.cpu_count() or 1)) as pool:
    futures = [pool.submit(work, item) for item in items]
    try:
      for future in futures:
        yield future.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _digest(manifest: dict[str, Any]) -> str:
  """The sha256 of a manifest without its own "digest"."""
  body = {key: value for key, value in manifest.items() if key != "digest"}
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def describe_leaves(tree: Any) -> dict[str, list]:
  """{path: [shape, dtype]} of a tree of arrays or of ShapeDtypeStructs."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): [list(x.shape), str(x.dtype)] for path, x in flat}


def write_manifest(directory: str | os.PathLike, leaves: dict[str, list]) -> None:
  """Seals a finished checkpoint, a directory named by its step. leaves: what describe_leaves says of its state."""
  directory = Path(directory)
  paths = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST))
  files = {
    path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256}
    for path, sha256 in zip(paths, _in_threads(sha256_of, paths))
  }
  manifest = {"step": int(directory.name), "files": files, "leaves": leaves}
  # No newline at the end: every byte of the file counts, so that a file that was cut short is no valid JSON.
  with whole_file(directory / MANIFEST) as unfinished:
    unfinished.write_text(json.dumps(manifest | {"digest": _digest(manifest)}, indent=1, sort_keys=True))


def read_manifest(directory: str | os.PathLike) -> dict[str, Any]:
  """The manifest of a checkpoint: {"step", "files", "leaves", "digest"}. Raises DamagedError if it is missing or altered."""
  directory = Path(directory)
  try:
    manifest = read_json(directory / MANIFEST)
    sound = manifest["digest"] == _digest(manifest) and manifest["step"] == int(directory.name)
  except FileNotFoundError:
    raise DamagedError(f"{directory / MANIFEST} is missing: the save was not finished") from None
  except (ValueError, KeyError, TypeError):
    sound = False
  if not sound:
    raise DamagedError(f"{directory / MANIFEST} does not match its own digest")
  return manifest


def verify(directory: str | os.PathLike) -> dict[str, Any]:
  """The manifest of a checkpoint whose every file is as saved. Raises DamagedError naming the first that is not."""
  directory, manifest = Path(directory), read_manifest(directory)

  def verify_file(item: tuple[str, dict]) -> None:
    path, expected = directory / item[0], item[1]
    if not path.exists():
      raise DamagedError(f"{path} is missing")
    if path.stat().st_size != expected["bytes"]:
      raise DamagedError(f"{path} has {path.stat().st_size} bytes, but {expected['bytes']} were saved")
    if sha256_of(path) != expected["sha256"]:
      raise DamagedError(f"{path} has changed since it was saved (sha256 differs)")

  for _ in _in_threads(verify_file, manifest["files"].items()):
    pass
  return manifest


def refuse_other_leaves(directory: Path, step: int, saved: dict[str, list], wanted: dict[str, list]) -> None:
  """UserError naming the first leaf whose shape or dtype differs between a checkpoint and this run."""

  def describe(leaf: list | None) -> str:
    return "absent" if leaf is None else f"{leaf[1]}{leaf[0]}"

  for name in sorted({*saved, *wanted}):
    if saved.get(name) != wanted.get(name):
      raise UserError(
        f"checkpoint {step} in {directory} has {name} {describe(saved.get(name))}, this run "
        f"{describe(wanted.get(name))}; use the config that the checkpoint was made with, or a new workdir"
      )
