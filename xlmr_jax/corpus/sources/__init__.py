"""What a source of text gives: Shards, and the Documents of each. A new format is one new file with a Source in it.

registry.py lists the sources by name. Everything that comes after a source is a function of Documents.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Protocol

BLOCK_BYTES = 4 << 20  # about how much text is read, and tokenised, at a time


class Document(NamedTuple):
  """One document. Its text has no empty lines at either end, and each of its lines is a paragraph."""

  text: str
  id: str  # names the document in its source, for messages
  url: str  # where it was published; "" if the source does not say
  language: str


class Block(NamedTuple):
  """Successive documents of a shard, few enough for the memory and enough for one call into the tokenizer."""

  documents: list[Document]
  size: int  # bytes of text, uncompressed, that the block took in the source


@dataclasses.dataclass(frozen=True)
class Shard:
  """A part of a source that one worker reads from its start to its end. Sources may derive their own from it."""

  name: str  # what messages call it; a path where there is one
  size: int  # about how many bytes it has, as it is stored
  language: str | None = None  # the language of all its documents; None if only the documents tell


class Source(Protocol):
  """A corpus in some format. Instances are pickled, because workers in other processes read the shards."""

  def shards(self, shard_bytes: int) -> list[Shard]:
    """All shards, always in the same order, of about shard_bytes each where the source can be cut.

    This is called once, by the process that directs the build; it should look at names and sizes rather than read the text.
    Raises UserError: the source is not there, or its layout is wrong.
    """
    ...

  def documents(self, shard: Shard) -> Iterator[Document]:
    """The documents of a shard, always in the same order. Raises UserError: it cannot be read, or is not text."""
    ...

  def blocks(self, shard: Shard) -> Iterator[Block]:
    """documents(shard) in blocks of about BLOCK_BYTES. A source whose blocks have natural limits overrides this."""
    documents: list[Document] = []
    size = 0
    for document in self.documents(shard):
      documents.append(document)
      size += len(document.text.encode())
      if size >= BLOCK_BYTES:
        yield Block(documents, size)
        documents, size = [], 0
    if documents:
      yield Block(documents, size)
