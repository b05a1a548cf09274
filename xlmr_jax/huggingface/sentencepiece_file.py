"""The inside of a SentencePiece model file: pieces, scores, normalisation. Reads and writes it; knows no ids of ours.

By hand, because the message classes that sentencepiece ships want a newer protobuf than TensorFlow allows. The fields
are those of sentencepiece_model.proto; what is not named here is skipped.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM = 1  # trainer_spec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Vocabulary(NamedTuple):
  """A model. pieces: (text, score, kind) in the order of SentencePiece's own ids; charsmap: its normalisation, compiled."""

  pieces: list[tuple[str, float, int]]
  charsmap: bytes
  model_type: int = UNIGRAM
  add_dummy_prefix: bool = True
  remove_extra_whitespaces: bool = True
  byte_fallback: bool = False


def parse(model: bytes) -> Vocabulary:
  """The vocabulary of a serialized model. Raises ValueError: not such a message."""
  pieces, trainer, normalizer = [], {}, {}
  for field, value in _fields(model):
    if field == 1:
      of = dict(_fields(value))
      pieces.append((of.get(1, b"").decode(), struct.unpack("<f", of.get(2, b"\0\0\0\0"))[0], of.get(3, NORMAL)))
    elif field == 2:
      trainer = dict(_fields(value))
    elif field == 3:
      normalizer = dict(_fields(value))
  return Vocabulary(
    pieces,
    normalizer.get(2, b""),
    trainer.get(3, UNIGRAM),
    bool(normalizer.get(3, 1)),
    bool(normalizer.get(4, 1)),
    bool(trainer.get(35, 0)),
  )


def serialize(vocabulary: Vocabulary, name: str = "nmt_nfkc") -> bytes:
  """The model file of a unigram vocabulary; name: what its normalisation is called."""
  message = bytearray()
  for text, score, kind in vocabulary.pieces:
    piece = _bytes(1, text.encode()) + _tag(2, _FIXED32) + struct.pack("<f", score)
    message += _bytes(1, piece if kind == NORMAL else piece + _number(3, kind))
  size = len(vocabulary.pieces)
  message += _bytes(
    2,
    _number(3, vocabulary.model_type)
    + _number(4, size)
    + _number(35, vocabulary.byte_fallback)
    + _number(40, 0)
    + _number(41, 1)
    + _number(42, 2)
    + _number(43, 2**64 - 1),
  )  # no pad: -1
  message += _bytes(
    3,
    _bytes(1, name.encode())
    + _bytes(2, vocabulary.charsmap)
    + _number(3, vocabulary.add_dummy_prefix)
    + _number(4, vocabulary.remove_extra_whitespaces)
    + _number(5, True),
  )
  return bytes(message)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
  """(number, value) of each field: int of a varint, bytes of anything else."""
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


def _varint(number: int) -> bytes:
  low, high = number & 127, number >> 7
  return bytes([low | 128]) + _varint(high) if high else bytes([low])


def _tag(field: int, wire: int) -> bytes:
  return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
  return _tag(field, _VARINT) + _varint(int(value))


def _bytes(field: int, value: bytes) -> bytes:
  return _tag(field, _BYTES) + _varint(len(value)) + value
