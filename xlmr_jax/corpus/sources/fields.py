"""Which fields of a row hold its text, address and language, in known data sets and in those whose fields flags name."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from xlmr_jax.corpus.languages import normal_code
from xlmr_jax.corpus.sources.lines import without_surrogates
from xlmr_jax.errors import UserError

normal_code = functools.lru_cache(normal_code)


def asked_languages(languages: Iterable[str] | None) -> frozenset[str] | None:
  """The languages that a user asked for, spelled as language_of spells those of the rows; None for all."""
  return None if languages is None else frozenset(normal_code(language) or language for language in languages)


@dataclasses.dataclass(frozen=True)
class Fields:
  """Names of fields. The defaults read FineWeb-2 (text, url, language, language_script), CulturaX (text, url) and HPLT
  (text, u or url, lang, which may be a list with the likeliest first)."""

  text: str = "text"
  url: str = "url"
  language: str = "language"  # or "=CODE", the language of all documents

  @property
  def constant(self) -> str | None:
    """The language of all documents, in CC-100's spelling; None if a field holds it."""
    if not self.language.startswith("="):
      return None
    if not (code := normal_code(self.language[1:])):
      raise UserError(f"--language_field={self.language}: no code of a language")
    return code

  def used(self) -> tuple[str, ...]:
    """All names that may be read."""
    url = (self.url, "u") if self.url == "url" else (self.url,)
    language = ("language", "language_script", "lang") if self.language == "language" else (self.language,)
    return (self.text, *url, *(() if self.constant else language))

  def check(self, there: Iterable[str], where: str) -> None:
    """Raises UserError with the names that are there: there is no text, or something is missing that a flag named."""
    there, default = list(there), DEFAULT
    wanted = {"text": True, "url": self.url != default.url}
    wanted["language"] = self.language != default.language and not self.constant
    for name, is_wanted in wanted.items():
      if is_wanted and (field := getattr(self, name)) not in there:
        has = ", ".join(map(str, there)) or "none"
        raise UserError(f"{where}: no field {field!r}; it has {has}: name one of them with --{name}_field=")

  def url_of(self, row: Mapping[str, Any]) -> str:
    """The address of a row, or ""."""
    found = row.get(self.url)
    if found is None and self.url == "url":
      found = row.get("u")
    return without_surrogates(found) if isinstance(found, str) else ""

  def language_of(self, row: Mapping[str, Any]) -> str:
    """The language of a row in CC-100's spelling, or ""."""
    if self.language.startswith("="):
      return self.constant or ""
    found = row.get(self.language)
    if self.language == "language":
      if found is None:
        found = row.get("lang")
      elif isinstance(found, str) and isinstance(script := row.get("language_script"), str) and "_" not in found:
        found = f"{found}_{script}"
    if isinstance(found, list):
      found = found[0] if found else ""
    return normal_code(found) if isinstance(found, str) else ""


DEFAULT = Fields()
