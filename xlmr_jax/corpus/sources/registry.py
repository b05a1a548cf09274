"""The sources of text by name, as --source=FORMAT:WHERE gives them. A new source is added here."""

from collections.abc import Callable, Iterable

from xlmr_jax.corpus.sources import Source
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.fields import DEFAULT, Fields
from xlmr_jax.corpus.sources.jsonl import JsonLines
from xlmr_jax.corpus.sources.parquet import Parquet
from xlmr_jax.corpus.sources.tfds_text import TfdsText
from xlmr_jax.corpus.sources.warc import Warc
from xlmr_jax.corpus.sources.wet import Wet
from xlmr_jax.errors import UserError
from xlmr_jax.given_paths import path_given

SOURCES: dict[str, Callable[[str, Iterable[str] | None, Fields], Source]] = {
  "wet": lambda given, languages, _: Wet(given, languages),
  "warc": lambda given, languages, _: Warc(given, languages),
  "cc100": lambda given, languages, _: CC100(path_given(given, "--source=cc100:"), languages),
  "jsonl": JsonLines,
  "parquet": Parquet,
  "tfds": TfdsText,
}


def open_source(spec: str, *, languages: Iterable[str] | None = None, fields: Fields = DEFAULT) -> Source:
  """The text that `spec` names: wet:FILES, warc:FILES, cc100:DIR, jsonl:FILES, parquet:FILES or tfds:NAME.

  FILES: as paths.find_files has it. languages: only these, where the text says its language; all by default.
  fields: of the rows of jsonl, parquet and tfds.
  Raises UserError: there is no such format, or the source finds nothing that it can read.
  """
  name, colon, given = spec.partition(":")
  if name not in SOURCES:
    raise UserError(f"--source={spec}: no such format of text; there are {', '.join(SOURCES)}")
  if not colon or not given.strip():
    wanted = {"cc100": "DIR", "tfds": "NAME"}.get(name, "FILES")
    raise UserError(f"--source={spec}: says not which text; write --source={name}:{wanted}")
  return SOURCES[name](given, languages, fields)


def text_source(text: str | None, source: str | None, languages: Iterable[str] | None = None) -> Source:
  """What --text=DIR, which means --source=cc100:DIR, or --source=FORMAT:WHERE gives. UserError: both or none is given."""
  if text is not None and source is not None:
    raise UserError(f"--text={text} and --source={source}: give one of them")
  if source is not None:
    return open_source(source, languages=languages)
  if text is None:
    raise UserError("no text: give --text=DIR, in CC-100's layout, or --source=FORMAT:WHERE")
  return CC100(path_given(text, "--text="), languages)
