"""The language of a document and of each of its paragraphs.

The default is CLD2, with py3langid as an arbiter where CLD2 is unsure; or a fastText model, such as GlotLID's or one of
language_id_training.py. Answers are CC-100's codes (languages.py).
"""

from pathlib import Path

from xlmr_jax.corpus.language_id.cld2 import Cld2, open_cld2
from xlmr_jax.corpus.language_id.fasttext_model import FastText, file_digest, open_fasttext
from xlmr_jax.corpus.language_id.identifier import Identification, Identifier
from xlmr_jax.errors import UserError
from xlmr_jax.given_paths import local_path

__all__ = ["Identification", "Identifier", "open_identifier"]


def open_identifier(spec: str = "cld2", sha256: str = "") -> Identifier:
  """The identifier that `spec` names: "cld2", or "fasttext:FILE", whose file must have the sha256 where one is given.

  Raises UserError: the name is unknown, its package is missing, the file is missing or damaged or has another sha256, or a
  label of the model is no code of a language.
  """
  kind, _, file = spec.partition(":")
  if spec == "cld2":
    if sha256:
      raise UserError("a sha256 belongs to --language_id=fasttext:FILE; cld2 has no file")
    open_cld2()
    return Cld2()
  if kind != "fasttext" or not file:
    raise UserError(f"--language_id={spec}: must be cld2 or fasttext:FILE")
  path = local_path(file, "--language_id=fasttext:")
  if not Path(path).is_file():
    raise UserError(f"{path}: there is no such file; pass --language_id=fasttext:FILE.bin or .ftz")
  identifier = FastText(str(path), sha256.lower() or file_digest(str(path)))
  open_fasttext(identifier.path, identifier.sha256)
  return identifier
