"""The begin of some files of a source, as a small source of its own on which a forecast tries the stages."""

import bisect
import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xlmr_jax.corpus.sources import Damage, Shard, Source
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.jsonl import JsonLines
from xlmr_jax.corpus.sources.parquet import Parquet
from xlmr_jax.corpus.sources.paths import FileSource
from xlmr_jax.corpus.sources.text_file import compression, open_text
from xlmr_jax.errors import UserError
from xlmr_jax.files import open_bytes

_HEADS = 6  # files whose heads are read
_HEAD_BYTES = 160 << 10  # of each, as they are stored
_MOST_TEXT = 3 << 19  # bytes of text of all heads, from which on no further head is read


class Heads(NamedTuple):
  """A source that is small, and what it was taken from."""

  source: Source
  shards: list[Shard]
  names: set[str]  # of the files that were looked at
  expansion: float  # bytes of text for each byte as it is stored


def take_heads(source: Source, shards: Sequence[Shard], folder: Path) -> Heads:
  """The heads of some shards of a source, written into a folder."""
  if isinstance(source, FileSource | CC100) and not isinstance(source, Parquet):
    return _file_heads(source, shards, folder)
  return _as_lines(source, shards, folder)


def _file_heads(source: Source, shards: Sequence[Shard], folder: Path) -> Heads:
  """Shards of copies of the heads of some files."""
  heads, names, stored, text = [], set(), 0, 0
  for shard in _spread(shards):
    names.add(shard.name)
    here = folder / str(len(names))
    here.mkdir()
    head, size, found = _head(source, shard, here)
    if found:
      heads.append(head)
      stored, text = stored + size, text + found
    if text >= _MOST_TEXT:
      break
  return Heads(source, heads, names, text / max(1, stored))


def _spread(shards: Sequence[Shard]) -> list[Shard]:
  """Up to _HEADS shards that begin files, spread over the bytes of the source, the middle one first."""
  firsts = [shard for shard in shards if not getattr(shard, "start", 0)]
  ends = list(itertools.accumulate(shard.size for shard in firsts))
  fractions = sorted(((2 * i + 1) / (2 * _HEADS) for i in range(_HEADS)), key=lambda fraction: abs(fraction - 0.5))
  chosen = [bisect.bisect_left(ends, fraction * ends[-1]) for fraction in fractions] if firsts else []
  return [firsts[index] for index in dict.fromkeys(chosen)]


def _head(source: Source, shard: Shard, folder: Path) -> tuple[Shard, int, int]:
  """A shard of the begin of another one, how many of its stored bytes that has, and the bytes of text in it."""
  size = min(shard.size, _HEAD_BYTES)
  copy = folder / os.path.basename(shard.name)
  with open_bytes(shard.name) as file:
    copy.write_bytes(file.read(size))
  head = dataclasses.replace(shard, name=str(copy), size=size)
  text = _text_bytes(source, head)
  if not text and (compressed := compression(copy.name)):
    # A source may give nothing of a compressed file that is cut.
    plain = copy.with_name(copy.name[: -len(compressed)])
    with open(plain, "wb") as file, contextlib.suppress(UserError), open_text(copy) as content:
      while piece := content.read1(1 << 16):
        file.write(piece)
    head = dataclasses.replace(shard, name=str(plain), size=plain.stat().st_size)
    text = _text_bytes(source, head)
  return head, size, text


def _as_lines(source: Source, shards: Sequence[Shard], folder: Path) -> Heads:
  """The first documents of some shards as JSON lines, for sources whose files cannot be cut."""
  path, names = folder / "first.jsonl", set()
  stored = text = 0.0
  with open(path, "w", encoding="utf-8") as file:
    for shard in _spread(shards):
      names.add(shard.name)
      count = size = 0
      for document in source.documents(shard, _ignore):
        row = {"text": document.text, "url": document.url, "language": document.language}
        file.write(json.dumps(row) + "\n")
        count, size = count + 1, size + len(document.text.encode("utf-8", "surrogatepass"))
        if size >= _MOST_TEXT / _HEADS:
          break
      rows = source.rows(shard) if isinstance(source, Parquet) else 0
      stored, text = stored + (shard.size * count / rows if rows else size), text + size
  lines = JsonLines(str(path))
  return Heads(lines, lines.shards(1 << 30) if text else [], names, text / max(1, stored))


def _text_bytes(source: Source, shard: Shard) -> int:
  """How much text a shard has; what is damaged does not count."""
  return sum(block.size for block in source.blocks(shard, _ignore))


def _ignore(_: Damage) -> None:
  """The end of a head is cut."""
