"""manifest.json of a row store: what it holds, how that is counted, and the sha256 of each file."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, read_json, sha256_of, write_json
from xlmr_jax.ids import MOST_ENTRIES, mask_id
from xlmr_jax.names import is_plain_name, stays_below

FORMAT = 1
SPLITS = ("train", "held_out")
_SHARD = re.compile(r"rows/[^/\0]{1,100}/[^/\0]{1,100}/rows-[a-z_]{1,100}\.array_record-\d{5,20}-of-\d{5,20}")
_LONGEST_ROW = 2**20  # tokens; more are no rows of a model but a damaged file, and would ask for all memory
COUNTS = ("rows", "tokens", "pieces", "bytes", "documents")


def write_manifest(
  root: str | os.PathLike,
  *,
  seq_len: int,
  vocabulary_size: int,
  tokenizer_sha256: str,
  held_out_share: float,
  languages: Mapping[str, Mapping[str, Mapping[str, int]]],
  files: Mapping[str, str] | None = None,
  mask: int | None = None,
  no_pieces: Iterable[int] = (),
  shard_bytes: int | None = None,
  word_starts: str = "",
  pairs: Mapping[str, Iterable[str]] | None = None,
) -> dict:
  """Finishes a store: writes manifest.json, whole or not at all, and returns its content.

  languages: {language: {split: {"rows", "tokens" (all but <pad>), "pieces" (all but <pad>, <s> and </s>), "bytes" (UTF-8 of
  the text), "documents"}}}.
  files: the sha256 of every shard by its path under root; by default they are computed here.
  mask: the id of <mask>; by default the last. no_pieces: the other ids, behind <unk>, that stand for no piece of a text.
  shard_bytes: after so many bytes of text the rows went to another file; a language that is added must do the same.
  word_starts: what segmented the text, such as "ICU 78.3", if the rows tell where words start.
  pairs: the languages of both texts of those whose rows are pairs of parallel sentences, {"en-fr": ("en", "fr")}.
  """
  root = any_path(root)
  if files is None:
    paths = [str(p.relative_to(root)) for p in root.glob("rows/*/*/*.array_record-*")]
    files = {path: sha256_of(root / path) for path in paths}
  manifest = {
    "format": FORMAT,
    "seq_len": seq_len,
    "vocabulary_size": vocabulary_size,
    "tokenizer_sha256": tokenizer_sha256,
    "held_out_share": held_out_share,
    "languages": {
      language: {split: {key: int(languages[language][split][key]) for key in COUNTS} for split in SPLITS}
      for language in sorted(languages)
    },
    "files": dict(sorted(files.items())),
  }
  # Most stores need none of these keys.
  if mask is not None and mask != mask_id(vocabulary_size):
    manifest["mask_id"] = int(mask)
  if no_pieces := sorted(map(int, no_pieces)):
    manifest["no_pieces"] = no_pieces
  if shard_bytes is not None:
    manifest["shard_bytes"] = int(shard_bytes)
  if word_starts:
    manifest["word_starts"] = word_starts
  if pairs:
    manifest["pairs"] = {name: list(pairs[name]) for name in sorted(pairs)}
  manifest["fingerprint"] = fingerprint(manifest)
  write_json(root / "manifest.json", manifest)
  return manifest


def fingerprint(manifest: Mapping) -> str:
  """The sha256 of a manifest's canonical JSON, without the entry "fingerprint" itself."""
  bare = {key: value for key, value in manifest.items() if key != "fingerprint"}
  canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
  return hashlib.sha256(canonical.encode()).hexdigest()


def read_manifest(root: AnyPath) -> dict[str, Any]:
  """The manifest of a store. UserError: it is missing, so the store is unfinished, edited, or of another shape or format."""
  path = root / "manifest.json"
  try:
    manifest = read_json(path)
  except FileNotFoundError:
    why = "an unfinished build; run `xlmr build_rows` again" if root.is_dir() else "no such folder"
    raise UserError(f"{path}: no manifest: {why}") from None
  except ValueError as error:
    raise UserError(f"{path}: not JSON ({error}); build the rows again") from None
  if not isinstance(manifest, dict):
    raise UserError(f"{path}: not the manifest of rows; build the rows again")
  if manifest.get("format") != FORMAT:
    raise UserError(f"{path}: format {str(manifest.get('format'))[:40]}, not {FORMAT}; build the rows again")
  if manifest.get("fingerprint") != fingerprint(manifest):
    raise UserError(f"{path}: does not match its own fingerprint: it was edited; build the rows again")
  if wrong := _first_wrong_key(manifest):
    raise UserError(f"{path}: {wrong} is not what a manifest of rows has there; build the rows again")
  return manifest


def _is_count(value: Any, least: int = 0) -> bool:
  return type(value) is int and least <= value < 2**62


def _first_wrong_key(manifest: dict[str, Any]) -> str:
  """The first key of a manifest whose value is of another kind than write_manifest writes; "" if there is none."""
  for key, most in (("seq_len", _LONGEST_ROW), ("vocabulary_size", MOST_ENTRIES)):
    if not _is_count(manifest.get(key), 1) or manifest[key] > most:
      return key
  if not isinstance(manifest.get("tokenizer_sha256"), str):
    return "tokenizer_sha256"
  files, languages = manifest.get("files"), manifest.get("languages")
  if not isinstance(files, dict):
    return "files"
  for name, digest in files.items():
    if not (isinstance(digest, str) and _SHARD.fullmatch(name) and stays_below(name)):
      return f"files.{name[:200]!r}"
  if not isinstance(languages, dict):
    return "languages"
  for name, splits in languages.items():
    if not is_plain_name(name):
      return f"languages.{name[:200]!r}"
    for split in SPLITS:
      counts = splits.get(split) if isinstance(splits, dict) else None
      if not isinstance(counts, dict) or not all(_is_count(counts.get(key)) for key in COUNTS):
        return f"languages.{name}.{split}"
  pairs = manifest.get("pairs", {})
  if not isinstance(pairs, dict) or not all(
    name in languages and isinstance(sides, list) and len(sides) == 2 and all(map(is_plain_name, sides))
    for name, sides in pairs.items()
  ):
    return "pairs"
  size = manifest["vocabulary_size"]
  if "mask_id" in manifest and not (_is_count(manifest["mask_id"]) and manifest["mask_id"] < size):
    return "mask_id"
  if "shard_bytes" in manifest and not _is_count(manifest["shard_bytes"], 1):
    return "shard_bytes"
  if "word_starts" in manifest and not (isinstance(manifest["word_starts"], str) and manifest["word_starts"]):
    return "word_starts"
  ids = manifest.get("no_pieces", [])
  return "" if isinstance(ids, list) and all(_is_count(id) and id < size for id in ids) else "no_pieces"
