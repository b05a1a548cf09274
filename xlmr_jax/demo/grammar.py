"""Renders a fact of the demo world, or a question about it, as a sentence in any language, with exact character spans."""

import itertools
from dataclasses import dataclass

from xlmr_jax.demo import world
from xlmr_jax.demo.lexicon import Part, load

NAMES = ("person", "city")  # tables
# How a language whose script is not Latin puts a name's Latin form beside it.
BESIDE = {**dict.fromkeys(("ar", "bg", "el", "hi", "ru", "th", "ur"), " ({})"), "zh": "（{}）"}
ENTITY_TYPES = {"person": "PER", "city": "LOC", "country": "LOC", "animal": "ANIMAL"}  # by table


@dataclass(frozen=True)
class Sentence:
  """A fact in words. entities: (start, end, type) in text order; slots: name -> (start, end) of what is said of it."""

  text: str
  entities: tuple[tuple[int, int, str], ...]
  slots: dict[str, tuple[int, int]]
  fact: world.Fact


@dataclass(frozen=True)
class Question:
  """A question about a fact. `answer` names the slot whose span in any rendering of the fact answers it."""

  text: str
  entities: tuple[tuple[int, int, str], ...]
  answer: str
  fact: world.Fact


def variants(kind: str, language: str) -> int:
  """How many phrasings the language has for a kind of fact; at least two."""
  return len(load(language).patterns[kind])


def render(fact: world.Fact, language: str, variant: int = 0, latin: tuple[str, ...] = ()) -> Sentence:
  """The fact as a sentence of the language, in phrasing `variant` of variants(fact.kind, language).

  latin: slots with a name beside which its Latin form is to stand, in the languages of BESIDE: Иван (Ivan).
  """
  return Sentence(*_fill(load(language).patterns[fact.kind][variant], fact, language, latin), fact)


def question(fact: world.Fact, language: str, answer: str | None = None) -> Question:
  """A question whose answer is the slot `answer`, by default the first of world.ASKED[fact.kind]."""
  answer = answer or world.ASKED[fact.kind][0]
  text, entities, _ = _fill(load(language).questions[fact.kind, answer], fact, language)
  return Question(text, entities, answer, fact)


def _fill(
  parts: tuple[Part, ...], fact: world.Fact, language: str, latin: tuple[str, ...] = ()
) -> tuple[str, tuple[tuple[int, int, str], ...], dict[str, tuple[int, int]]]:
  """The text, the entities and the slots of a Sentence, from a compiled pattern."""
  speech, tables = load(language), world.KINDS[fact.kind]
  words = {slot: speech.word(tables[slot], value) for slot, value in fact.slots.items()}
  text, entities, slots = "", [], {}
  for part, following in itertools.zip_longest(parts, parts[1:], fillvalue=" "):
    if isinstance(part, str):
      text += part
    elif len(part) == 2:
      slot, choices = part
      text += choices[words[slot].cls]
    else:
      slot, name, other = part
      word = words[slot]
      column = "_".join(filter(None, (name, words[other].cls if other else ""))) or next(iter(word.forms))
      form = word.forms[column]
      span = len(text) + form.start, len(text) + form.end
      text += form.text
      if slot in latin and slot not in slots and language in BESIDE:
        name = next(iter(load("en").word(tables[slot], fact.slots[slot]).forms.values())).text
        text += BESIDE[language].format(name)
        # Thai has no spaces between words, but has them around what is in brackets.
        text += " " if language == "th" and not (isinstance(following, str) and following.startswith(" ")) else ""
      slots.setdefault(slot, span)
      if tables[slot] in ENTITY_TYPES:
        entities.append((*span, ENTITY_TYPES[tables[slot]]))
  return _capital(text, language) + text[1:], tuple(entities), slots


def _capital(text: str, language: str) -> str:
  return "İ" if language == "tr" and text[0] == "i" else text[0].upper()
