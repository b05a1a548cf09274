"""Reads a SentencePiece model file: pieces, scores, normalisation, and the switches that ids depend on. It knows nothing of
our ids.

The message classes that sentencepiece ships need a newer protobuf than TensorFlow allows, so the messages are taken apart
here. The field numbers are those of sentencepiece_model.proto in https://github.com/google/sentencepiece; fields that are
not named here do not change the ids of a text.
"""

import struct
from typing import Any, NamedTuple

from xlmr_jax.data.protobuf import fields

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}  # trainer_spec.model_type


class Vocabulary(NamedTuple):
  """A SentencePiece model."""

  pieces: list[tuple[str, float, int]]  # (text, score, kind) in the order of SentencePiece's own ids
  charsmap: bytes  # its normalisation, compiled
  model_type: str = "unigram"
  treat_whitespace_as_suffix: bool = False
  byte_fallback: bool = False
  add_dummy_prefix: bool = True
  remove_extra_whitespaces: bool = True
  escape_whitespaces: bool = True


def parse(model: bytes) -> Vocabulary:
  """The vocabulary of a serialized model. Raises ValueError if the bytes are no such message."""
  pieces: list[tuple[str, float, int]] = []
  trainer: dict[int, Any] = {}
  normalizer: dict[int, Any] = {}
  for field, value in fields(model):
    if not isinstance(value, bytes):
      continue
    if field == 1:
      piece: dict[int, Any] = dict(fields(value))
      pieces.append((piece.get(1, b"").decode(), struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0], piece.get(3, NORMAL)))
    elif field == 2:
      trainer = dict(fields(value))
    elif field == 3:
      normalizer = dict(fields(value))
  kind = trainer.get(3, 1)
  return Vocabulary(
    pieces, normalizer.get(2, b""), MODEL_TYPES.get(kind, str(kind)),
    treat_whitespace_as_suffix=bool(trainer.get(24, 0)),
    byte_fallback=bool(trainer.get(35, 0)),
    add_dummy_prefix=bool(normalizer.get(3, 1)),
    remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    escape_whitespaces=bool(normalizer.get(5, 1)),
  )  # fmt: skip
