"""Reads and writes a SentencePiece model file: pieces, scores and normalisation. It knows nothing of our ids.

The message classes that sentencepiece ships need a newer protobuf than TensorFlow allows, so the messages are taken apart
here. The field numbers are those of sentencepiece_model.proto in https://github.com/google/sentencepiece; fields that are
not named here are skipped.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from xlmr_jax.data.protobuf import bytes_field, number_field, varint

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM = 1  # trainer_spec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class Vocabulary(NamedTuple):
  """A SentencePiece model."""

  pieces: list[tuple[str, float, int]]  # (text, score, kind) in the order of SentencePiece's own ids
  charsmap: bytes  # its normalisation, compiled
  model_type: int = UNIGRAM
  add_dummy_prefix: bool = True
  remove_extra_whitespaces: bool = True
  byte_fallback: bool = False


def parse(model: bytes) -> Vocabulary:
  """The vocabulary of a serialized model. Raises ValueError if the bytes are no such message."""
  pieces: list[tuple[str, float, int]] = []
  trainer: dict[int, Any] = {}
  normalizer: dict[int, Any] = {}
  for field, value in _fields(model):
    if field == 1:
      piece = dict(_fields(value))
      pieces.append((piece.get(1, b"").decode(), struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0], piece.get(3, NORMAL)))
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
  """The model file of a unigram vocabulary. name: of its normalisation."""
  message = bytearray()
  for text, score, kind in vocabulary.pieces:
    piece = bytes_field(1, text.encode()) + varint(2 << 3 | _FIXED32) + struct.pack("<f", score)
    message += bytes_field(1, piece if kind == NORMAL else piece + number_field(3, kind))
  trainer = {3: vocabulary.model_type, 4: len(vocabulary.pieces), 35: vocabulary.byte_fallback, 40: 0, 41: 1, 42: 2,
             43: 2**64 - 1}  # fmt: skip  # the last four: ids of <unk>, <s>, </s> and <pad>, which is -1, none
  message += bytes_field(2, b"".join(number_field(field, value) for field, value in trainer.items()))
  spaces = {3: vocabulary.add_dummy_prefix, 4: vocabulary.remove_extra_whitespaces, 5: True}
  numbers = b"".join(number_field(field, value) for field, value in spaces.items())
  message += bytes_field(3, bytes_field(1, name.encode()) + bytes_field(2, vocabulary.charsmap) + numbers)
  return bytes(message)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
  """Yields (number, value) of each field: an int for a varint, bytes for anything else."""
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
