"""The layout of a fastText model's file, as far as its length follows from it."""

import mmap
import struct
from typing import BinaryIO

_MAGIC, _VERSIONS = 793712314, (11, 12)
_HEADER = struct.Struct("<2i 12i d 3i 2q")  # magic, version, 13 options, the dictionary's 5 sizes


def expected_bytes(file: BinaryIO) -> int:
  """How long a fastText model has to be by the sizes in it, because fastText itself reads a truncated one without a word.

  The layout is that of fastText 0.9 (src/fasttext.cc, dictionary.cc, matrix.cc). Raises ValueError or struct.error: the file
  is no such model.
  """
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    header = _HEADER.unpack_from(data)
    entries, pruned, version = header[15], header[19], header[1]
    if header[0] != _MAGIC or version not in _VERSIONS or entries < 0:
      raise ValueError("it does not begin as one")
    position = _HEADER.size
    for _ in range(entries):  # Each is a word, a zero, how often it occurs (8 bytes) and what it is (1 byte).
      if (end := data.find(b"\0", position)) < 0:
        raise ValueError("its dictionary has no end")
      position = end + 10
    position += 8 * max(pruned, 0)
    for _ in range(2):  # The matrix of the inputs, then that of the outputs.
      quantized = data[position]
      position = _matrix_end(data, position + 1, bool(quantized))
    return position


def _matrix_end(data: mmap.mmap, position: int, quantized: bool) -> int:
  """Where the matrix that begins at `position` ends."""
  if not quantized:
    rows, columns = struct.unpack_from("<2q", data, position)
    return position + 16 + 4 * rows * columns
  with_norms, rows, _, codes = struct.unpack_from("<?2qi", data, position)
  position = _quantizer_end(data, position + 21 + codes)
  return _quantizer_end(data, position + rows) if with_norms else position


def _quantizer_end(data: mmap.mmap, position: int) -> int:
  """Where a product quantizer ends: four sizes, of which the first is its dimension, and 256 centroids in float32."""
  (dimension,) = struct.unpack_from("<i", data, position)
  return position + 16 + 4 * 256 * dimension
