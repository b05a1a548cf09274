"""Safetensors files: a checked header, tensors read straight into their place, tensors written one after another.

By hand and not memory-mapped: pages of a mapped file count as this process's memory, and a table of a gigabyte should be
read once, into the array it is for. A file is 8 bytes of header length, a JSON header, and the tensors' bytes.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from xlmr_jax.errors import UserError

DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST_HEADER = 100 * 2**20  # the format's own bound
_PIECE = 16 * 2**20  # bytes converted or compared at a time


class Tensor(NamedTuple):
  """Where a tensor lies."""

  path: Path
  dtype: np.dtype
  shape: tuple[int, ...]
  offset: int  # of its first byte in the file

  @property
  def size(self) -> int:
    return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
  """The tensors of a file. UserError: it is no such file, is cut off, or its header contradicts itself."""
  with open(path, "rb") as file:
    total = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if total < 8 or not 2 <= length <= min(total - 8, _LONGEST_HEADER):
      raise UserError(f"{path}: not a safetensors file, or cut off ({total} bytes); fetch it again")
    try:
      header = json.loads(file.read(length))
      tensors = {name: _tensor(path, 8 + length, of) for name, of in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(
        f"{path}: its header cannot be read ({error!r}); not a safetensors file, or damaged: fetch it again"
      ) from None
  end = 8 + length
  for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
    if tensor.offset != end:
      raise UserError(f"{path}: {name} begins at byte {tensor.offset} instead of {end}; the file is damaged: fetch it again")
    end += tensor.size * tensor.dtype.itemsize
  if end != total:
    raise UserError(f"{path}: {total} bytes, its header tells of {end}; it is cut off or damaged: fetch it again")
  return tensors


def _tensor(path: Path, start: int, entry: Mapping) -> Tensor:
  dtype, shape, (begin, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
  if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
    raise ValueError(f"shape {shape}, offsets {begin} to {end}")
  if end - begin != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"{end - begin} bytes for {dtype}{list(shape)}")
  return Tensor(path, dtype, shape, start + begin)


def read(tensor: Tensor) -> np.ndarray:
  """The tensor as it is stored."""
  out = np.empty(tensor.shape, tensor.dtype)
  read_into(tensor, out)
  return out


def read_into(tensor: Tensor, out: np.ndarray) -> None:
  """Reads a tensor into out, of the same shape, contiguous; converts to out's dtype a piece at a time."""
  if not out.flags.c_contiguous:
    raise ValueError("out is not contiguous")
  flat, done = out.reshape(-1), 0
  with open(tensor.path, "rb", buffering=0) as file:
    file.seek(tensor.offset)
    step = max(1, _PIECE // tensor.dtype.itemsize)
    while done < tensor.size:
      here = flat[done : done + step]
      piece = here if here.dtype == tensor.dtype else np.empty(here.shape, tensor.dtype)
      view, got = memoryview(piece.view(np.uint8)), 0
      while got < len(view):
        count = file.readinto(view[got:])
        if not count:
          raise UserError(
            f"{tensor.path}: ended at byte {tensor.offset + done * tensor.dtype.itemsize + got}; it has "
            "changed while it was read"
          )
        got += count
      if piece is not here:
        here[:] = piece
      done += here.size


def same_bytes(a: Tensor, b: Tensor) -> bool:
  """Whether two tensors hold the same; a piece at a time."""
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
  """Writes a file of {name: (dtype, shape)}, asking get(name) for one tensor after another, an array or where one lies.

  Another dtype is converted, a piece at a time.
  """
  header, at = {"__metadata__": {"format": "pt"}}, 0
  for name, (dtype, shape) in shapes.items():
    size = math.prod(shape) * np.dtype(dtype).itemsize
    header[name] = {"dtype": _NAMES[np.dtype(dtype)], "shape": list(shape), "data_offsets": [at, at + size]}
    at += size
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # tensors lie aligned
  with open(path, "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for name, (dtype, shape) in shapes.items():
      value = get(name)
      if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} is {value.shape}, not {shape}")
      for piece in _pieces(value):
        file.write(np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8))
    file.flush()
    os.fsync(file.fileno())


def _pieces(value: np.ndarray | Tensor) -> Iterable[np.ndarray]:
  """The array in parts of about _PIECE bytes, in order."""
  if isinstance(value, Tensor):
    step = max(1, _PIECE // value.dtype.itemsize)
    parts = ((at, min(step, value.size - at)) for at in range(0, value.size, step))
    return (read(value._replace(shape=(count,), offset=value.offset + at * value.dtype.itemsize)) for at, count in parts)
  if value.ndim == 0:
    return [value]
  rows = max(1, _PIECE // max(1, value[:1].nbytes))
  return (value[at : at + rows] for at in range(0, len(value), rows))
