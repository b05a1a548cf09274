"""The few lines of protocol buffers' wire format that are written by hand, so that no schema has to be compiled."""

_VARINT, _BYTES = 0, 2  # wire types


def varint(number: int) -> bytes:
  """A whole number >= 0 in seven bits per byte, the lowest first."""
  low, high = number & 127, number >> 7
  return bytes([low | 128]) + varint(high) if high else bytes([low])


def number_field(field: int, value: int) -> bytes:
  """A field that holds a whole number >= 0 or a bool."""
  return varint(field << 3 | _VARINT) + varint(int(value))


def bytes_field(field: int, value: bytes) -> bytes:
  """A field that holds a string, bytes or a message."""
  return varint(field << 3 | _BYTES) + varint(len(value)) + value
