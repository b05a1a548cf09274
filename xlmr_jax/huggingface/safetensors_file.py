"""Safetensors files: a checked header, tensors read straight into their place, tensors written one after another.

This is not the safetensors library, which maps files into memory: the pages of a mapped file count as this process's
memory, and a table of a gigabyte should be read once, into the array that it is for. A file holds the length of its
header in 8 bytes, the header in JSON, and the tensors' bytes.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.files import parse_json

DTYPES = {  # in the order in which the library writes them; tensors of one dtype are in the order of their names
  "I64": np.dtype("<i8"),
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "I32": np.dtype("<i4"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F16": np.dtype("<f2"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST_HEADER = 100 * 2**20  # the format's own bound
_PIECE = 16 * 2**20  # bytes converted or compared at a time


class Tensor(NamedTuple):
  """Where the bytes of a tensor lie."""

  path: Path
  dtype: np.dtype
  shape: tuple[int, ...]
  offset: int  # of its first byte in the file

  @property
  def size(self) -> int:
    """The number of its elements."""
    return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
  """{name: Tensor} of a file. UserError: it is no safetensors file, it is cut off, or its header contradicts itself."""
  with open(path, "rb") as file:
    total = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if total < 8 or not 2 <= length <= min(total - 8, _LONGEST_HEADER):
      raise UserError(f"{path}: not a safetensors file, or cut off ({total} bytes); fetch it again")
    try:
      header = parse_json(file.read(length))
      tensors = {name: _tensor(path, 8 + length, entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(
        f"{path}: its header cannot be read ({error!r}); it is not a safetensors file, or damaged: fetch it again"
      ) from None
  end = 8 + length
  for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
    if tensor.offset != end:
      raise UserError(f"{path}: {name} begins at byte {tensor.offset} instead of {end}; the file is damaged: fetch it again")
    end += tensor.size * tensor.dtype.itemsize
  if end != total:
    raise UserError(f"{path}: {total} bytes, but its header tells of {end}; it is cut off or damaged: fetch it again")
  return tensors


def _tensor(path: Path, start: int, entry: Mapping) -> Tensor:
  dtype, shape, (begin, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
  if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
    raise ValueError(f"shape {shape}, offsets {begin} to {end}")
  if end - begin != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"{end - begin} bytes for {dtype}{list(shape)}")
  return Tensor(path, dtype, shape, start + begin)


def read(tensor: Tensor) -> np.ndarray:
  """The tensor in the dtype in which it is stored."""
  out = np.empty(tensor.shape, tensor.dtype)
  read_into(tensor, out)
  return out


def read_into(tensor: Tensor, out: np.ndarray) -> None:
  """Reads a tensor into `out`, a contiguous array of the same shape, and converts it to out's dtype piece by piece.

  Raises UserError if the file ends early, ValueError if `out` is not contiguous.
  """
  if not out.flags.c_contiguous:
    raise ValueError("out is not contiguous")
  flat, done = out.reshape(-1), 0
  with open(tensor.path, "rb", buffering=0) as file:
    file.seek(tensor.offset)
    step = max(1, _PIECE // tensor.dtype.itemsize)
    while done < tensor.size:
      target = flat[done : done + step]
      piece = target if target.dtype == tensor.dtype else np.empty(target.shape, tensor.dtype)
      view, got = piece.view(np.uint8).data, 0
      while got < len(view):
        count = file.readinto(view[got:])
        if not count:
          raise UserError(
            f"{tensor.path}: ended at byte {tensor.offset + done * tensor.dtype.itemsize + got}; it has "
            "changed while it was read"
          )
        got += count
      if piece is not target:
        target[:] = piece
      done += target.size


def same_bytes(a: Tensor, b: Tensor) -> bool:
  """Whether two tensors have the same dtype, shape and bytes. Reads them piece by piece."""
  if (a.dtype, a.shape) != (b.dtype, b.shape):
    return False
  left = a.size * a.dtype.itemsize
  with open(a.path, "rb") as one, open(b.path, "rb") as other:
    one.seek(a.offset)
    other.seek(b.offset)
    while left:
      count = min(left, _PIECE)
      if one.read(count) != other.read(count):
        return False
      left -= count
  return True


def write(
  path: Path, shapes: Mapping[str, tuple[np.dtype, tuple[int, ...]]], get: Callable[[str], np.ndarray | Tensor]
) -> None:
  """Writes a file of {name: (dtype, shape)}, the one that the safetensors library would write of the same tensors.

  get(name) is asked for one tensor after another, and returns an array or the place of a tensor in another file. A value
  of another dtype is converted piece by piece.
  """
  order = list(DTYPES.values())
  shapes = dict(sorted(shapes.items(), key=lambda item: (order.index(np.dtype(item[1][0])), item[0])))
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  at = 0
  for name, (dtype, shape) in shapes.items():
    size = math.prod(shape) * np.dtype(dtype).itemsize
    header[name] = {"dtype": _NAMES[np.dtype(dtype)], "shape": list(shape), "data_offsets": [at, at + size]}
    at += size
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # so that the tensors are aligned
  with open(path, "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for name, (dtype, shape) in shapes.items():
      value = get(name)
      if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} is {value.shape}, not {shape}")
      for piece in _pieces(value):
        file.write(np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8).data)
    file.flush()
    os.fsync(file.fileno())


def _pieces(value: np.ndarray | Tensor) -> Iterable[np.ndarray]:
  """Yields the array in parts of about _PIECE bytes, in order."""
  if isinstance(value, Tensor):
    step = max(1, _PIECE // value.dtype.itemsize)
    parts = ((at, min(step, value.size - at)) for at in range(0, value.size, step))
    return (read(value._replace(shape=(count,), offset=value.offset + at * value.dtype.itemsize)) for at, count in parts)
  if value.ndim == 0:
    return [value]
  rows = max(1, _PIECE // max(1, value[:1].nbytes))
  return (value[at : at + rows] for at in range(0, len(value), rows))
