"""The identifier that is a fastText model in a file."""

import dataclasses
import functools
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlmr_jax.corpus.language_id.fasttext_format import expected_bytes
from xlmr_jax.corpus.language_id.identifier import Guess, Identifier, label_code
from xlmr_jax.corpus.language_id.scripts import ANY_LETTER, CHINESE, chinese_writing, is_possible
from xlmr_jax.corpus.languages import UNKNOWN
from xlmr_jax.errors import UserError

_CLEAR = 0.9  # probability


@dataclasses.dataclass(frozen=True)
class FastText(Identifier):
  """A fastText model whose labels are codes of languages in any usual spelling."""

  path: str
  sha256: str  # of the file

  def _first(self, texts: Sequence[str]) -> list[Guess]:
    predict = open_fasttext(self.path, self.sha256)
    return [self._guess(predict, text) for text in texts]

  def _guess(self, predict: Any, text: str) -> Guess:
    if not ANY_LETTER.search(text):
      return Guess(UNKNOWN, 0.0, False)
    line = " ".join(text.split()).encode("utf-8", "replace").decode()
    for rank, (probability, label) in enumerate(predict(line + "\n", 3, 0.0, "strict")):
      language = label_code(label)
      if language in CHINESE:
        language = chinese_writing(text, language)
      if language and is_possible(language, text):
        # A probability says nothing of how pure the text is, so each paragraph is asked about.
        return Guess(language, probability, not rank and probability >= _CLEAR)
    return Guess(UNKNOWN, 0.0, False)


def import_fasttext():
  """The module fasttext. Raises UserError: it is missing."""
  try:
    import fasttext
  except ImportError:
    raise UserError("the package fasttext is missing; run: pip install 'xlmr_jax[fasttext]'") from None
  return fasttext


@functools.cache
def open_fasttext(path: str, sha256: str):
  """The model's function (line, count, threshold, errors) -> [(probability, label)]. Raises UserError as open_identifier."""
  fasttext = import_fasttext()
  digest = file_digest(path)
  if digest != sha256:
    raise UserError(f"{path}: its sha256 is {digest}, not {sha256}; it has changed, so pass the new one or the right file")
  try:
    with open(path, "rb") as file:
      expected, found = expected_bytes(file), Path(path).stat().st_size
    if found != expected:
      raise ValueError(f"it has {found} bytes instead of {expected}")
    return fasttext.load_model(path).f.predict
  except (ValueError, IndexError, struct.error, RuntimeError, MemoryError) as error:
    raise UserError(f"{path}: is no whole fastText model ({error}); fetch or train it again") from None


def file_digest(path: str) -> str:
  try:
    with open(path, "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror}); pass --language_id=fasttext:FILE.bin or .ftz") from None
