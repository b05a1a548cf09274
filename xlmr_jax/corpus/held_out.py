"""Which documents are held out: those whose hash is below a limit, so that every copy of a document is on the same side."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence

from xlmr_jax.corpus.sources import Document, Shard, Source
from xlmr_jax.errors import UserError


@dataclasses.dataclass
class Census:
  """What a shard holds of one language."""

  documents: int = 0
  paragraphs: int = 0
  lowest: int = 2**64  # the lowest and the highest hash of a document
  highest: int = -1


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found when a shard was read for the first time."""

  shard: Shard
  size: int  # bytes of text, uncompressed
  languages: dict[str, Census]


@dataclasses.dataclass(frozen=True)
class Rule:
  """Which documents of a language are held out: those with a hash below `below`, and the last `tail` lines of a lone one."""

  below: int = 0
  tail: int = 0

  def split(self, document: Document) -> tuple[str, str]:
    """The (train, held_out) parts of a document's text; "" stands for nothing."""
    if self.tail:
      lines = document.text.split("\n")
      return "\n".join(lines[: -self.tail]), "\n".join(lines[-self.tail :])
    if self.below and document_hash(document.text) < self.below:
      return "", document.text
    return document.text, ""


def document_hash(text: str) -> int:
  """A hash that is uniform in [0, 2^64)."""
  return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def scan(shard: Shard, source: Source) -> Report:
  """Reads a shard for the first time, before anything expensive, so that damage in it is found early."""
  languages = {} if shard.language is None else {shard.language: Census()}
  size = 0
  for block in source.blocks(shard):
    size += block.size
    for document in block.documents:
      if not document.language:
        raise UserError(f"{document.id}: this document has no language; `xlmr build_corpus` finds it")
      census = languages.setdefault(document.language, Census())
      census.documents += 1
      census.paragraphs += document.text.count("\n") + 1
      key = document_hash(document.text)
      census.lowest, census.highest = min(census.lowest, key), max(census.highest, key)
  return Report(shard, size, languages)


def refuse_missing(reports: Sequence[Report], source: Source) -> None:
  """Raises UserError: no document of a source says a language that was asked for, or there is no document at all."""
  found = {language for report in reports for language, census in report.languages.items() if census.documents}
  if missing := sorted((source.languages or frozenset()) - found):
    there = f"it has {', '.join(sorted(found))} of what was asked for" if found else "it has none of what was asked for"
    raise UserError(
      f"--languages: no document of {_common_path(reports)} says that its language is {', '.join(missing)}; {there}: leave "
      "out what is not there, or see how the text spells its languages"
    )
  if not any(report.languages for report in reports):
    raise UserError(f"{_common_path(reports)}: no document with any text in it; is that the right text?")


def _common_path(reports: Sequence[Report]) -> str:
  """What messages call the text that some reports are about: the file, or the folder that several have in common.

  Of names that are no paths of this machine, or have only the root in common, it is the folder of the first.
  """
  names = list(dict.fromkeys(report.shard.name for report in reports))
  if len(names) > 1 and all(map(os.path.isabs, names)) and (common := os.path.commonpath(names)) != os.path.sep:
    return common
  return (os.path.dirname(names[0]) if len(names) > 1 else "") or (names[0] if names else "the source")


def choose_rules(reports: list[Report], share: float) -> dict[str, Rule]:
  """The rule of each language, by which about `share` of its documents are held out.

  If share is above 0, every language keeps a document on both sides. Raises UserError: a language has no text, or too little
  to hold anything out; the message tells how many more languages have that fault.
  """
  rules, errors = {}, []
  for language in sorted({language for report in reports for language in report.languages}):
    try:
      rules[language] = _choose_rule(language, [report for report in reports if language in report.languages], share)
    except UserError as error:
      errors.append(str(error))
  if errors:
    raise UserError(one_message(errors))
  return rules


def one_message(errors: list[str]) -> str:
  """The first of several messages in alphabetical order, and how many there are besides."""
  return min(errors) + (f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else "")


def _choose_rule(language: str, reports: list[Report], share: float) -> Rule:
  where = _common_path(reports)
  found = [report.languages[language] for report in reports]
  documents = sum(census.documents for census in found)
  if not documents:
    raise UserError(f"{where}: no text; add some or leave {language} out")
  if not share:
    return Rule()
  if documents == 1:
    lines = sum(census.paragraphs for census in found)
    if lines == 1:
      raise UserError(f"{where}: only one paragraph, so nothing can be held out; add text or pass --held_out=0")
    return Rule(tail=min(max(1, round(share * lines)), lines - 1))
  lowest, highest = min(census.lowest for census in found), max(census.highest for census in found)
  if lowest == highest:
    raise UserError(
      f"{where}: {documents} times the same document, so nothing can be held out; add text or pass --held_out=0"
    )
  return Rule(below=min(max(int(share * 2**64), lowest + 1), highest))
