"""What a source of text gives: Shards, and the Documents of each. A new format is one new file with a Source in it.

registry.py lists the sources by name. Everything that comes after a source is a function of Documents.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from xlmr_jax.errors import UserError

BLOCK_BYTES = 4 << 20  # about how much text is read, and tokenised, at a time


class Document(NamedTuple):
  """One document. Its text has no empty lines at either end, and each of its lines is a paragraph."""

  text: str
  id: str  # names the document in its source, for messages
  url: str  # where it was published; "" if the source does not say
  language: str  # "" if the source does not say


class Damage(NamedTuple):
  """Something in a shard that cannot be read."""

  where: str  # the file, and in it the byte offset, line or row
  reason: str  # what is wrong there, and what is lost by it


def refuse(damage: Damage) -> None:
  """What a reader does with damage unless it is told otherwise. Raises UserError with the place and the reason."""
  raise UserError(f"{damage.where}: {damage.reason}")


class Block(NamedTuple):
  """Successive documents of a shard, few enough for the memory and enough for one call into the tokenizer."""

  documents: list[Document]
  size: int  # bytes of text, uncompressed, that the block took in the source
  blank: int = 0  # pairs of parallel sentences that were left out because a side is blank


@dataclasses.dataclass(frozen=True)
class Shard:
  """A part of a source that one worker reads from its start to its end. Sources may derive their own from it."""

  name: str  # what messages call it; a path where there is one
  size: int  # about how many bytes it has, as it is stored
  language: str | None = None  # the language of all its documents; None if only the documents tell


class Source(Protocol):
  """A corpus in some format. Instances are pickled, because workers in other processes read the shards."""

  # The languages of both sentences where documents are pairs of them: {"en-fr": ("en", "fr")}.
  pairs: Mapping[str, tuple[str, str]] = MappingProxyType({})
  # The languages that were asked for, of a source that only finds out while it is read which languages it has. None: all.
  languages: frozenset[str] | None = None
  shard_type: type[Shard] = Shard  # the class of its shards, whose fields are such as JSON has: texts, numbers, None

  def shards(self, shard_bytes: int) -> list[Shard]:
    """All shards, always in the same order, of about shard_bytes each where the source can be cut.

    This is called once, by the process that directs the build; it should look at names and sizes rather than read the text.
    Raises UserError: the source is not there, or its layout is wrong.
    """
    ...

  def reader(self) -> "Source":
    """This source for those who only read shards: a source with a long list of files gives itself without the list."""
    return self

  def times(self) -> Mapping[str, int]:
    """The seconds since 1970 at which files were written, by path, of those files at which the source has looked already."""
    return {}

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The documents of a shard, always in the same order.

    on_damage: is called once for whatever cannot be read; if it returns, reading goes on after the damage where that is
    safe, and otherwise ends. If it is not `refuse`, bytes that are not UTF-8 are no damage, but come as lone surrogates
    (Python's "surrogateescape"), which corpus/repair.py reads.
    Raises UserError: the shard cannot be opened; OSError: its disk fails.
    """
    ...

  def blocks(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Block]:
    """documents(shard) in blocks of about BLOCK_BYTES. A source whose blocks have natural limits overrides this."""
    documents: list[Document] = []
    size = 0
    for document in self.documents(shard, on_damage):
      documents.append(document)
      size += len(document.text.encode("utf-8", "surrogatepass"))
      if size >= BLOCK_BYTES:
        yield Block(documents, size)
        documents, size = [], 0
    if documents:
      yield Block(documents, size)
