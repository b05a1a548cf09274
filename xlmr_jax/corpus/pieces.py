"""The files between the stages of a build: documents of some languages and what was found out about them.

A piece is a zip file of NumPy arrays that are not compressed, so that a stage reads no more than the part that it needs. Its
directory comes last, so half a piece is no zip file; and a piece gets its name when it is whole.
"""

import contextlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.corpus.sources import Document
from xlmr_jax.files import AnyPath, open_bytes, whole_file

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # of a zip file's entry; its last two numbers are the lengths of name and extra


def write_piece(path: AnyPath, arrays: dict[str, np.ndarray]) -> None:
  """Writes a piece whole or not at all. The bytes follow from the arrays."""
  with whole_file(path, many_writers=True) as unfinished, open(unfinished, "wb") as file:
    np.savez(file, allow_pickle=False, **arrays)


class Piece:
  """A piece, read array by array. Of a bucket's, no more is fetched than that, and its directory."""

  def __init__(self, path: AnyPath):
    self._path = path
    # Opening a bucket's is a request, so that it stays open.
    self._open = None if isinstance(path, Path) else open_bytes(path)
    with self._file() as file, zipfile.ZipFile(file) as archive:
      self._entries = {info.filename.removesuffix(".npy"): info.header_offset for info in archive.infolist()}

  def _file(self) -> contextlib.AbstractContextManager[io.BufferedReader]:
    return contextlib.nullcontext(self._open) if self._open else open_bytes(self._path)

  @property
  def names(self) -> list[str]:
    """The names of its arrays."""
    return list(self._entries)

  def array(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """array[start:stop], of one dimension, or all of an array of more."""
    with self._file() as file:
      file.seek(self._entries[name])
      header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
      file.seek(header[-2] + header[-1], os.SEEK_CUR)
      version = np.lib.format.read_magic(file)
      read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
      shape, _, dtype = read_header(file)
      if len(shape) != 1:
        return _read(file, dtype, int(np.prod(shape))).reshape(shape)
      start, stop, _ = slice(start, stop).indices(shape[0])
      file.seek(start * dtype.itemsize, os.SEEK_CUR)
      return _read(file, dtype, max(0, stop - start))


def _read(file: io.BufferedReader, dtype: np.dtype, count: int) -> np.ndarray:
  """The next numbers of a file. Raises EOFError: it has fewer."""
  found = np.empty(count, dtype)
  if count and file.readinto(found.view(np.uint8).data) != found.nbytes:
    raise EOFError(f"{getattr(file, 'name', 'a piece')}: cut; remove the unfinished build and give the command again")
  return found


def pack_documents(documents: Sequence[Document]) -> dict[str, np.ndarray]:
  """Arrays "text" and "origin" of documents of one language: their text, and as JSON their ids and URLs, both compressed."""
  return {
    "text": _compressed("\n\n".join(document.text for document in documents)),
    "origin": _compressed(json.dumps([(document.id, document.url) for document in documents], ensure_ascii=False)),
  }


def unpack_documents(piece: Piece, language: str) -> list[Document]:
  """The documents of a language in a piece, in order."""
  texts = _uncompressed(piece.array(f"{language}/text")).split("\n\n")
  origin = json.loads(_uncompressed(piece.array(f"{language}/origin")))
  if len(texts) != len(origin):
    raise RuntimeError(f"{language}: {len(texts)} texts of {len(origin)} documents in a piece")
  return [Document(text, id, url, language) for text, (id, url) in zip(texts, origin)]


def _compressed(text: str) -> np.ndarray:
  import zstandard

  return np.frombuffer(zstandard.ZstdCompressor(level=1).compress(text.encode("utf-8")), np.uint8)


def _uncompressed(data: np.ndarray) -> str:
  import zstandard

  return zstandard.ZstdDecompressor().decompress(data.tobytes()).decode("utf-8")


def named(language: str, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of a language under their names in a piece."""
  return {f"{language}/{name}": array for name, array in arrays.items()}
