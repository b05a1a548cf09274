"""The few lines of protocol buffers' wire format that are written by hand, so that no schema has to be compiled."""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def varint(number: int) -> bytes:
  """A whole number >= 0 in seven bits per byte, the lowest first."""
  low, high = number & 127, number >> 7
  return bytes([low | 128]) + varint(high) if high else bytes([low])


def bytes_field(field: int, value: bytes) -> bytes:
  """A field that holds a string, bytes or a message."""
  return varint(field << 3 | _BYTES) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
  """Yields (number, value) of each field: an int for a varint, bytes for anything else. ValueError: it is no message."""
  at = 0
  while at < len(message):
    key, at = _read_varint(message, at)
    wire = key & 7
    if wire == _VARINT:
      value, at = _read_varint(message, at)
    else:
      if wire == _BYTES:
        size, at = _read_varint(message, at)
      elif wire in (_FIXED32, _FIXED64):
        size = 4 if wire == _FIXED32 else 8
      else:
        raise ValueError(f"wire type {wire} at byte {at}")
      value, at = message[at : at + size], at + size
      if at > len(message):
        raise ValueError(f"a field of {size} bytes is cut off")
    yield key >> 3, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    if at >= len(message) or shift > 63:
      raise ValueError(f"no number at byte {at}")
    byte = message[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at
