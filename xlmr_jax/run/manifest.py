"""MANIFEST.json of a checkpoint: the sha256 of each of its files and the shape and dtype of each leaf.

Orbax restores flipped bits silently and casts a changed dtype. So a checkpoint counts only with its manifest, which is
written last, and only while every file is as the manifest says.
"""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax

from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, read_json, sha256_of, size_of, write_whole
from xlmr_jax.folders import files_below
from xlmr_jax.names import stays_below

MANIFEST = "MANIFEST.json"
Files = dict[str, dict[str, Any]]  # {path below the checkpoint: {"bytes", "sha256"}}
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


def hash_files(directory: AnyPath, is_mine: Callable[[str], bool] = lambda name: True) -> Files:
  """What a manifest says of the files of a finished checkpoint, or of those that is_mine picks by their path below it."""
  names = [name for name in files_below(directory) if not name.startswith(MANIFEST) and is_mine(name)]

  def describe(name: str) -> dict[str, Any]:
    return {"bytes": size_of(directory / name), "sha256": sha256_of(directory / name)}

  return dict(zip(names, _in_threads(describe, names)))


def make_manifest(directory: str | os.PathLike, leaves: dict[str, list], files: Files | None = None) -> dict[str, Any]:
  """The manifest of a finished checkpoint, a directory named by its step. leaves: what describe_leaves says of its state.

  files: what hash_files says of all its files; None: they are hashed here.
  """
  directory = any_path(directory)
  manifest = {"step": int(directory.name), "files": hash_files(directory) if files is None else files, "leaves": leaves}
  return manifest | {"digest": _digest(manifest)}


def write_manifest(directory: str | os.PathLike, manifest: dict[str, Any]) -> None:
  """Seals a finished checkpoint with what make_manifest says of it."""
  # No newline at the end: every byte of the file counts, so that a file that was cut short is no valid JSON.
  write_whole(any_path(directory) / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())


def read_manifest(directory: str | os.PathLike) -> dict[str, Any]:
  """The manifest of a checkpoint: {"step", "files", "leaves", "digest"}. Raises DamagedError if it is missing or altered."""
  directory = any_path(directory)
  try:
    manifest = read_json(directory / MANIFEST)
    sound = manifest["digest"] == _digest(manifest) and manifest["step"] == int(directory.name)
    sound = sound and all(map(stays_below, manifest["files"]))
  except FileNotFoundError:
    raise DamagedError(f"{directory / MANIFEST} is missing: the save was not finished") from None
  except (ValueError, KeyError, TypeError):
    sound = False
  if not sound:
    raise DamagedError(f"{directory / MANIFEST} does not match its own digest")
  return manifest


def digest_of(directory: str | os.PathLike) -> str | None:
  """The digest of a checkpoint, which tells it from others of its step; None where it is gone, unsealed or damaged."""
  try:
    return read_manifest(directory)["digest"]
  except (OSError, DamagedError):
    return None


def verify(directory: str | os.PathLike, part: tuple[int, int] = (0, 1)) -> dict[str, Any]:
  """The manifest of a checkpoint whose every file is as saved. Raises DamagedError naming the first that is not.

  part: (i, n) for the i-th of n hosts, each of which reads its share of the files.
  """
  directory, manifest = any_path(directory), read_manifest(directory)
  # The largest first, so that the shares are of about one size.
  names = sorted(manifest["files"], key=lambda name: (-manifest["files"][name]["bytes"], name))[part[0] :: part[1]]

  def verify_file(name: str) -> None:
    path, expected = directory / name, manifest["files"][name]
    try:
      size = size_of(path)
    except FileNotFoundError:
      raise DamagedError(f"{path} is missing") from None
    if size != expected["bytes"]:
      raise DamagedError(f"{path} has {size} bytes, but {expected['bytes']} were saved")
    if sha256_of(path) != expected["sha256"]:
      raise DamagedError(f"{path} has changed since it was saved (sha256 differs)")

  for _ in _in_threads(verify_file, names):
    pass
  return manifest


def refuse_other_leaves(directory: AnyPath, step: int, saved: dict[str, list], wanted: dict[str, list]) -> None:
  """UserError naming the first leaf whose shape or dtype differs between a checkpoint and this run."""

  def describe(leaf: list | None) -> str:
    return "absent" if leaf is None else f"{leaf[1]}{leaf[0]}"

  for name in sorted({*saved, *wanted}):
    if saved.get(name) != wanted.get(name):
      raise UserError(
        f"checkpoint {step} in {directory} has {name} {describe(saved.get(name))}, this run "
        f"{describe(wanted.get(name))}; use the config that the checkpoint was made with, or a new workdir"
      )
