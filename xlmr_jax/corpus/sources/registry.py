"""The sources of text by name. A new source is added here."""

from collections.abc import Callable, Iterable
from pathlib import Path

from xlmr_jax.corpus.sources import Source
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.errors import UserError
from xlmr_jax.files import local_path

SOURCES: dict[str, Callable[[Path, Iterable[str] | None], Source]] = {"cc100": CC100}


def open_source(name: str, path: str | Path, languages: Iterable[str] | None = None) -> Source:
  """The text at `path` in the format `name`. languages: only these; all by default.

  Raises UserError: there is no such format, or the source finds nothing that it can read at `path`.
  """
  if name not in SOURCES:
    raise UserError(f"--source={name}: no such format of text; there are {', '.join(SOURCES)}")
  return SOURCES[name](local_path(path, "--text="), languages)
