"""A folder of parallel sentences in the layout of Moses and OPUS: two files per pair of languages, a sentence per line.

NAME.en-fr.en and NAME.en-fr.fr, each plain or compressed (text_file.py has the endings), say the same line by line. NAME may
be missing, and a pair may have several. What OPUS puts beside them, such as NAME.en-fr.xml, is left out.
"""

import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from xlmr_jax.corpus.sources import BLOCK_BYTES, Block, Damage, Document, Shard, Source, refuse
from xlmr_jax.corpus.sources.lines import decode
from xlmr_jax.corpus.sources.text_file import open_text
from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path
from xlmr_jax.folders import files_below

SEPARATOR = "\t"  # between the two sentences in the text of a Document
LONGEST_LINE = 1 << 20  # bytes; a longer one is no sentence
_CODE = r"[a-z]{2,3}(?:_[A-Za-z0-9]{2,8})*"
_FILE = re.compile(rf"(?:(?P<name>.+)\.)?(?P<a>{_CODE})-(?P<b>{_CODE})\.(?P<side>{_CODE})(?:\.(?:gz|xz|bz2|zst))?")
# Endings that look like codes of languages. OPUS's alignments of a pair are NAME.en-fr.xml and NAME.en-fr.ids.
_OTHER_ENDINGS = ("ids", "xml", "txt", "tmx", "tsv")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class _Pair(Shard):
  """Two files that say the same; `name` is the path of the first language's."""

  other: str = ""


class ParallelText(Source):
  """The pairs of sentences of a folder. A Document is one of them, and its language the name of the pair, such as en-fr.

  A pair is named by its two languages in alphabetical order, whatever the order in the files' names.
  """

  shard_type = _Pair

  def __init__(self, folder: str | os.PathLike, languages: Iterable[str] | None = None):
    """languages: only these pairs; all by default.

    Names on stderr, once, the files that are left out. Raises UserError: there is no pair of files, one of a pair is
    missing, a file names a language that is none of its pair, or a pair that is asked for is missing.
    """
    root = any_path(folder)
    if isinstance(root, Path) and not root.is_dir():
      raise UserError(f"{folder}: no such folder; give one with NAME.en-fr.en and NAME.en-fr.fr")
    sides: dict[tuple[str, str, str], dict[str, tuple[str, int]]] = {}
    left_out = []
    for name, size in files_below(root).items():
      found = _FILE.fullmatch(name)
      if found is None or "/" in name:
        left_out.append(name)
        continue
      a, b, side = found["a"], found["b"], found["side"]
      if side in _OTHER_ENDINGS and side not in (a, b):
        left_out.append(name)
        continue
      if side not in (a, b) or a == b:
        raise UserError(f"{root / name}: ends in {side}, which is not one of two languages {a} and {b}; rename it")
      there = sides.setdefault((min(a, b), max(a, b), found["name"] or ""), {})
      if side in there:
        raise UserError(f"{root / name}: {there[side][0]} holds the same side; remove one of them")
      there[side] = (str(root / name), size)
    if left_out:
      print(f"{folder}: left out, no names of parallel files: {', '.join(left_out)}", file=sys.stderr, flush=True)
    self._shards: list[_Pair] = []
    self.pairs: dict[str, tuple[str, str]] = {}
    wanted = None if languages is None else set(languages)
    for (a, b, _), there in sorted(sides.items()):
      if missing := [side for side in (a, b) if side not in there]:
        raise UserError(f"{next(iter(there.values()))[0]}: its other file, in {missing[0]}, is missing; add or remove it")
      pair = f"{a}-{b}"
      if wanted is None or pair in wanted:
        self.pairs[pair] = (a, b)
        self._shards.append(_Pair(there[a][0], there[a][1] + there[b][1], pair, there[b][0]))
    if absent := sorted((wanted or set()) - set(self.pairs)):
      raise UserError(f"{folder}: no parallel text of {', '.join(absent)}; a pair is named en-fr, in alphabetical order")
    if not self.pairs:
      raise UserError(f"{folder}: no parallel text; it is named NAME.en-fr.en and NAME.en-fr.fr")

  def shards(self, shard_bytes: int) -> list[Shard]:
    """One shard per two files: line n of one belongs to line n of the other, so that neither can be cut alone."""
    return list(self._shards)

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The pairs of a shard, one after another."""
    for block in self.blocks(shard, on_damage):
      yield from block.documents

  def blocks(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Block]:
    """The pairs of a shard in blocks. A pair with a blank side is left out, and its block counts it.

    Raises UserError: the files have not the same number of lines, a line is not UTF-8 or is too long, or a file is damaged.
    """
    assert isinstance(shard, _Pair) and shard.language
    documents: list[Document] = []
    size = blank = 0
    for number, sentences in enumerate(_lines(shard), 1):
      size += sum(map(len, sentences))
      where = (f"{name}, line {number}" for name in (shard.name, shard.other))
      texts = [" ".join(decode(line, line_name, on_damage).split()) for line, line_name in zip(sentences, where)]
      if all(texts):
        documents.append(Document(SEPARATOR.join(texts), f"{shard.name}:{number}", "", shard.language))
      else:
        blank += 1
      if size >= BLOCK_BYTES:
        yield Block(documents, size, blank)
        documents, size, blank = [], 0, 0
    if size:
      yield Block(documents, size, blank)


def _lines(shard: _Pair) -> Iterator[tuple[bytes, bytes]]:
  """The lines of both files side by side. Raises UserError: one file has more of them."""
  with open_text(shard.name) as first, open_text(shard.other) as second:
    pairs = itertools.zip_longest(_lines_of(first, shard.name), _lines_of(second, shard.other))
    for number, (a, b) in enumerate(pairs):
      if a is None or b is None:
        counts = [number if side is None else number + 1 for side in (a, b)]
        rest = 1 + sum(1 for _ in pairs)
        counts = [number + rest if count > number else number for count in counts]
        raise UserError(
          f"{shard.name} has {counts[0]:,} lines and {shard.other} {counts[1]:,}; line n of one must say what line n of the "
          "other says, so fetch both again"
        )
      yield a, b


def _lines_of(file: BinaryIO, name: str) -> Iterator[bytes]:
  number = 0
  while line := file.readline(LONGEST_LINE + 1):
    number += 1
    if len(line) > LONGEST_LINE:
      raise UserError(f"{name}, line {number}: more than {LONGEST_LINE:,} bytes, which is no sentence; mend or remove it")
    yield line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
