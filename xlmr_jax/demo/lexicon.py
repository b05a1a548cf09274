"""Reads a language file: its word forms, patterns and questions. They are checked to be complete before the first sentence.

A table is lines (or entries separated by `;`) of `word: form | form | ...`, one form per column. The column `class` holds
no form but the word's gender or noun class. [Brackets] in a form mark the part that is the word itself, where the form
carries more: `in der [Türkei]`, `[Berlin]'de`.

A pattern is text with slots of its kind of fact (world.KINDS):
  {city}           first form            {city.gen}          the form in column gen
  {colour/animal}  the form in the column named by the animal's class     {colour.acc/animal}  column acc_CLASS
  {person:er|sie}  one of the texts, by the class of the person
"""

import functools
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from xlmr_jax.demo import world
from xlmr_jax.errors import UserError

LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?(?:/(\w+))?(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Form:
  """Text of a word form, and the part [start, end) of it that is the word itself."""

  text: str
  start: int
  end: int


@dataclass(frozen=True)
class Word:
  """A word in all its forms."""

  forms: dict[str, Form]  # by column; the first is what {slot} gives
  cls: str = ""  # gender, noun class or plural class: what other words agree with


Table = dict[str, Word]
Part = str | tuple[str, str, str] | tuple[str, dict[str, str]]  # text; slot, form, agrees with; slot, choices


def form(text: str) -> Form:
  """Parses a cell of a table: `in der [Türkei]` has the text without brackets, and the span of what they held."""
  plain = text.replace("[", "").replace("]", "")
  if "[" not in text:
    return Form(plain, 0, len(plain))
  return Form(plain, text.index("["), text.index("]") - 1)


def table(columns: str, entries: str) -> Table:
  """Parses a table. Raises ValueError for an entry that has not one form per column, or that comes twice."""
  names, words = columns.split(), {}
  for entry in filter(None, (entry.strip() for entry in re.split(r"[;\n]", entries))):
    word, _, rest = entry.partition(":")
    cells = [cell.strip() for cell in rest.split("|")]
    if len(cells) != len(names) or not all(cells) or word in words:
      raise ValueError(f"demo lexicon: {entry!r} is given twice or does not fill the columns {columns!r}")
    row = dict(zip(names, cells, strict=True))
    cls = row.pop("class", "")
    words[word] = Word({name: form(cell) for name, cell in row.items()}, cls)
  return words


@dataclass(frozen=True)
class Language:
  """One language, compiled. `patterns` by kind, `questions` by (kind, slot of the answer)."""

  code: str
  stop: str  # what ends a statement; empty in Thai
  question_mark: str
  space: str  # between sentences of a paragraph
  tables: dict[str, Table]
  plural: Callable[[int], str]
  patterns: dict[str, tuple[tuple[Part, ...], ...]]
  questions: dict[tuple[str, str], tuple[Part, ...]]

  def word(self, table: str, value: str | int) -> Word:
    """The word for a value of a table of the world; a number has the form "digits" first."""
    if table not in world.NUMBERS:
      return self.tables[table][str(value)]
    words = self.tables["number"][str(value)].forms if table == "number" else {}
    return Word({"digits": form(str(value)), **words}, self.plural(int(value)))

  def compile(self, text: str, kind: str) -> tuple[Part, ...]:
    """Splits a pattern into its parts. Raises ValueError unless every form that it can ask for exists."""
    parts, at, slots = [], 0, world.KINDS[kind]
    for found in SLOT.finditer(text):
      slot, name, other, choices = found.groups()
      parts += [text[at : found.start()]] if at < found.start() else []
      at = found.end()
      if not {slot, other or slot} <= set(slots):
        raise ValueError(f"demo/languages/{self.code}.py: {text!r} has a slot unknown to {kind!r}")
      classes = self.classes(slots[other or slot])
      if choices is not None:
        parts.append((slot, dict(zip(classes, choices.split("|"), strict=True))))
        continue
      first = [self.word(slots[slot], value) for value in world.values_of(slots[slot])]
      for wanted in [f"{name}_{cls}" if name else cls for cls in classes] if other else [name or ""]:
        for word in first:
          if wanted and wanted not in word.forms:
            raise ValueError(f"demo/languages/{self.code}.py: {text!r}: no form {wanted!r} for {slot!r}")
      parts.append((slot, name or "", other or ""))
    parts += [text[at:]] if at < len(text) else []
    if any(isinstance(part, str) and set(part) & set("{}[]|") for part in parts):
      raise ValueError(f"demo/languages/{self.code}.py: {text!r} does not parse")
    return tuple(parts)

  def classes(self, table: str) -> tuple[str, ...]:
    """The classes a table's words fall into, in the order in which patterns list their choices."""
    order = ("m", "f", "n") if table not in world.NUMBERS else ()
    found = dict.fromkeys(self.word(table, value).cls for value in world.values_of(table))
    return tuple(sorted(found, key=lambda cls: (order.index(cls) if cls in order else len(order), cls)))


@functools.cache
def load(code: str) -> Language:
  """The language `code`, compiled and checked.  Raises UserError for a language the demo does not have."""
  if code not in LANGUAGES:
    raise UserError(f"the demo world has no language {code!r}; it has {' '.join(LANGUAGES)}")
  data = importlib.import_module(f"xlmr_jax.demo.languages.{code}")
  tables = dict(data.WORDS)
  for name, words in (*world.WORDS.items(), ("number", map(str, world.NUMBERS["number"]))):
    if set(tables[name]) != set(words):
      raise ValueError(f"demo/languages/{code}.py: table {name!r} lacks or invents {set(tables[name]) ^ set(words)}")
  tables["person"] = {name: Word(word.forms, world.GENDER[name]) for name, word in tables["person"].items()}
  language = Language(
    code, data.STOP, data.QUESTION_MARK, data.SPACE, tables, getattr(data, "plural", lambda number: ""), {}, {}
  )
  asked = {(kind, slot) for kind, slots in world.ASKED.items() for slot in slots}
  if set(data.PATTERNS) != set(world.KINDS) or set(data.QUESTIONS) != asked:
    odd = (set(data.PATTERNS) ^ set(world.KINDS)) | (set(data.QUESTIONS) ^ asked)
    raise ValueError(f"demo/languages/{code}.py: patterns or questions missing or unknown: {odd}")
  for kind, texts in data.PATTERNS.items():
    language.patterns[kind] = tuple(language.compile(text, kind) for text in texts)
  for (kind, slot), text in data.QUESTIONS.items():
    language.questions[kind, slot] = language.compile(text, kind)
  return language
