"""Labelled tasks of the demo world: entities, entailment and questions in 15 languages, made as they are read.

They need no files: a reader ignores its folder, and (task, language, split) decide every example. Importing this module
registers "demo_entities", "demo_entailment" and "demo_questions".
"""

import dataclasses
import itertools
import random
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from xlmr_jax.demo import grammar, world
from xlmr_jax.demo.lexicon import LANGUAGES, load
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.registry import Question, Recipe, Tagged, Task, Text, register
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS

SIZES = {"train": 1000, "dev": 60, "test": 150}  # examples per language
UNSPACED = ("th", "zh")
TAGS = ("O", *(f"{mark}-{kind}" for kind in dict.fromkeys(grammar.ENTITY_TYPES.values()) for mark in "BI"))
LABELS = ("entailment", "neutral", "contradiction")

# What a hypothesis can say: kinds of facts with one true value that is drawn uniformly, in groups that say nothing about
# each other. Countries and capitals are not among them, because they are the same in every example, so that a false one
# could be told without its premise.
HYPOTHESES = (("lives",), ("born",), ("age", "year"), ("job", "works"))
# What else a premise says about the person. "speaks" is not among it, because it would give "born" away.
BESIDES = ("pet", "owns", "buys", "likes", "travels", "kin", "does")

RECIPE = Recipe(lr=1e-3, batch=32, epochs=4, max_len=64)  # 125 steps, for models of the demo's size (ours)


def entities(folder: str | Path, task: Task, language: str, split: str) -> list[Tagged]:
  """1 to 3 sentences about one situation, as words and IOB2 tags. words_of says what a word is."""

  def make(rng: random.Random, _: int) -> tuple[list[world.Fact], Tagged]:
    facts = _situation(rng)
    facts = rng.sample(facts, min(rng.randint(1, 3), len(facts)))
    text, found, cuts = tell(facts, language, rng)
    spans = words_of(text, cuts if language in UNSPACED else ())
    return facts, Tagged(tuple(text[start:end] for start, end in spans), tags_of(spans, found), language not in UNSPACED)

  return _examples(task, language, split, make)


def entailment(folder: str | Path, task: Task, language: str, split: str) -> list[Text]:
  """2 or 3 facts about a person, and one fact that they entail (in other words), leave open, or contradict.

  Each label has a third of the examples. Kinds and values of facts are drawn alike for the three labels, so that neither
  text alone gives the label away.
  """

  def make(rng: random.Random, number: int) -> tuple[list[world.Fact], Text]:
    label = LABELS[number % len(LABELS)]
    facts = {fact.kind: fact for fact in world.person_facts(world.draw_person(rng))}
    kind, untold = (rng.choice(group) for group in rng.sample(HYPOTHESES, 2))
    premise = [facts[kind], *(facts[other] for other in rng.sample(BESIDES, rng.randint(1, 2)))]
    rng.shuffle(premise)
    sentences = [_render(fact, language, rng) for fact in premise]
    if label == "neutral":
      hypothesis = _render(facts[untold], language, rng)
    else:
      fact = facts[kind] if label == "entailment" else _falsified(facts[kind], rng)
      variants = [v for v in _phrasings(fact, language) if grammar.render(facts[kind], language, v) not in sentences]
      hypothesis = grammar.render(fact, language, rng.choice(variants))
    text = load(language).space.join(sentence.text for sentence in sentences)
    return premise, Text(text, hypothesis.text, float(LABELS.index(label)))

  return _examples(task, language, split, make)


def questions(folder: str | Path, task: Task, language: str, split: str) -> list[Question]:
  """2 or 3 facts about one situation and a question that exactly one of them answers; the answer is the span of its slot."""

  def make(rng: random.Random, number: int) -> tuple[list[world.Fact], Question | None]:
    facts = _situation(rng)
    facts = rng.sample(facts, min(rng.randint(2, 3), len(facts)))
    asked = [
      (i, slot)
      for i, fact in enumerate(facts)
      for slot in world.ASKED.get(fact.kind, ())
      if _ask(fact, language, slot) not in [_ask(other, language, slot) for other in facts[:i] + facts[i + 1 :]]
    ]
    if not asked:
      return facts, None
    chosen, slot = rng.choice(asked)
    sentences = [_render(fact, language, rng) for fact in facts]
    space = load(language).space
    context = space.join(sentence.text for sentence in sentences)
    offset = sum(len(sentence.text) + len(space) for sentence in sentences[:chosen])
    start, end = (offset + edge for edge in sentences[chosen].slots[slot])
    question = _ask(facts[chosen], language, slot)
    return facts, Question(f"{language}-{split}-{number}", question, context, ((context[start:end], start),))

  return _examples(task, language, split, make)


# --- examples ----------------------------------------------------------------------------------------------------


def _examples(
  task: Task, language: str, split: str, make: Callable[[random.Random, int], tuple[list[world.Fact], Any]]
) -> list:
  """SIZES[split] examples.

  make: (rng, number of examples so far) -> (facts of the context, the example; None asks for another try). The facts alone
  decide the split of a context. So a context belongs to one split, in whatever order and language its facts are told.
  Raises UserError: the demo world has no such split or language.
  """
  if split not in SIZES:
    raise UserError(f"{task.name}: no split {split!r}; there are {', '.join(SIZES)}")
  load(language)
  rng = random.Random(f"{task.name} {language} {split}")
  examples = {}
  while len(examples) < SIZES[split]:
    facts, example = make(rng, len(examples))
    key = " ".join(sorted(map(repr, facts)))
    if example is not None and world.split_of(facts) == split:
      examples.setdefault(key, example)
  return rng.sample(list(examples.values()), len(examples))


def _situation(rng: random.Random) -> list[world.Fact]:
  """Facts that go together: two kinds of facts about two people, or facts about a city, a day or animals."""
  subject = rng.choices(("people", "city", "day", "animals"), weights=(4, 1, 1, 1))[0]
  if subject == "city":
    return world.city_facts(rng.choice(world.WORDS["city"]), rng)
  if subject == "day":
    return world.day_facts(rng.choice(world.WORDS["day"]), rng)
  first = world.draw_person(rng)
  people = [
    {fact.kind: fact for fact in world.person_facts(person)}
    for person in (first, world.draw_person(rng, avoid=(first.name,)))
  ]
  if subject == "people":
    return [facts[kind] for kind in rng.sample(list(people[0]), 2) for facts in people]
  pets = [dict(zip(("animal", "colour"), world.draw_pet(rng))) for _ in people]
  return [
    *(facts["pet"] for facts in people),
    *(world.Fact.with_slots("sleeps", **pet, spot=rng.choice(world.WORDS["spot"])) for pet in pets),
  ]


def _phrasings(fact: world.Fact, language: str) -> range:
  return range(grammar.variants(fact.kind, language))


def _render(fact: world.Fact, language: str, rng: random.Random) -> grammar.Sentence:
  return grammar.render(fact, language, rng.choice(_phrasings(fact, language)))


def _falsified(fact: world.Fact, rng: random.Random) -> world.Fact:
  """The fact with another value in its last slot, drawn at random."""
  slot, table = list(world.KINDS[fact.kind].items())[-1]
  return fact.replace(**{slot: rng.choice([value for value in world.values_of(table) if value != fact.slots[slot]])})


def _ask(fact: world.Fact, language: str, slot: str) -> str:
  return grammar.question(fact, language, slot).text if slot in world.ASKED.get(fact.kind, ()) else ""


# --- words and tags ----------------------------------------------------------------------------------------------


def tell(facts: list[world.Fact], language: str, rng: random.Random) -> tuple[str, list[tuple[int, int, str]], set[int]]:
  """Tells facts in sentences: (text, entities as in grammar.Sentence, offsets at which an entity or slot begins or ends)."""
  text, found, cuts = "", [], set()
  for fact in facts:
    sentence = _render(fact, language, rng)
    text += load(language).space if text else ""
    found += [(len(text) + start, len(text) + end, kind) for start, end, kind in sentence.entities]
    cuts |= {len(text) + edge for *span, _ in sentence.entities for edge in span}
    cuts |= {len(text) + edge for span in sentence.slots.values() for edge in span}
    text += sentence.text
  return text, found, cuts


def words_of(text: str, cuts: Iterable[int] = ()) -> list[tuple[int, int]]:
  """(start, end) of each word. Words stand between spaces; each punctuation mark at an end of one is a word of its own.

  An apostrophe or hyphen inside stays, so that Turkish Paris'te and English Ali's are one word. cuts: offsets at which the
  text is split too. In Thai and Chinese, which have no spaces, these are the edges of entities and of the grammar's other
  slots, so that a word is a slot's phrase or what stands between two slots: 阿里|的家在|巴黎|。
  """
  edges = sorted({0, len(text), *cuts})
  spans = []
  for begin, until in itertools.pairwise(edges):
    for chunk in re.finditer(r"\S+", text[begin:until]):
      start, end = begin + chunk.start(), begin + chunk.end()
      first, last = start, end
      while first < end and _is_mark(text[first]):
        first += 1
      while last > first and _is_mark(text[last - 1]):
        last -= 1
      spans += [(mark, mark + 1) for mark in range(start, first)]
      spans += [(first, last)] if first < last else []
      spans += [(mark, mark + 1) for mark in range(last, end)]
  return spans


def _is_mark(char: str) -> bool:
  return unicodedata.category(char)[0] == "P"


def tags_of(words: list[tuple[int, int]], found: list[tuple[int, int, str]]) -> tuple[str, ...]:
  """The IOB2 tag of each word. A word that holds an entity and more, such as a suffix, has the entity's tag."""
  tags = ["O"] * len(words)
  for start, end, kind in found:
    inside = [i for i, (first, last) in enumerate(words) if first < end and start < last]
    for i in inside:
      tags[i] = f"{'B' if i == inside[0] else 'I'}-{kind}"
  return tuple(tags)


# The embeddings are frozen, because training on English alone moves those of English away from those of other languages.
# When they were trained, the score was 2 points lower (ours, measured).
register(
  Task(
    "demo_entities", WORDS, TAGS, ("span_f1",), LANGUAGES, dataclasses.replace(RECIPE, lr=5e-4, frozen="embedding"), entities
  )
)
register(Task("demo_entailment", SENTENCE, LABELS, ("accuracy",), LANGUAGES, RECIPE, entailment, chance=1 / 3))
register(
  Task(
    "demo_questions",
    SPAN,
    (),
    ("f1", "exact_match"),
    LANGUAGES,
    dataclasses.replace(RECIPE, doc_stride=16, max_question=32, max_answer=16),
    questions,
  )
)
