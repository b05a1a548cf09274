"""The demo's labelled tasks: exact, balanced, apart between splits, and not to be solved without reading both texts."""

import collections
import functools
import itertools
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from xlmr_jax.demo import grammar, lexicon, tasks, world
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import TASKS

NAMES = ("demo_entities", "demo_entailment", "demo_questions")
FAST = ("ar", "en", "th", "tr", "zh")  # right to left, suffixes, and no spaces among them
each_language = pytest.mark.parametrize(
  "language",
  [language if language in FAST else pytest.param(language, marks=pytest.mark.slow) for language in lexicon.LANGUAGES],
)
each_task = pytest.mark.parametrize("name", NAMES)


@functools.cache
def load(name, language, split):
  return TASKS[name].load("no folder", language, split)


def fold(text):
  """Lower case, Turkish İ as i."""
  return text.replace("İ", "i").lower()


def context(example):
  """What an example is about: its words, premise or context."""
  return example.words if hasattr(example, "words") else example.text if hasattr(example, "text") else example.context


@each_task
def test_sizes_and_recipe(name):
  task = TASKS[name]
  assert set(task.languages) == set(lexicon.LANGUAGES) and task.train_language in task.languages
  assert [len(load(name, "sw", split)) for split in ("train", "dev", "test")] == [1000, 60, 150]
  assert 100 <= math.ceil(1000 / task.recipe.batch * task.recipe.epochs) <= 200
  assert task.recipe.doc_stride + task.recipe.max_question + 4 <= task.recipe.max_len or name != "demo_questions"


def test_unknown_splits_and_languages_are_told():
  with pytest.raises(UserError, match="no split 'tset'; there are train, dev, test"):
    load("demo_entities", "en", "tset")
  with pytest.raises(UserError, match="no language 'xx'"):
    load("demo_entities", "xx", "test")


@each_task
@pytest.mark.parametrize("languages", [("th",), pytest.param(tuple(lexicon.LANGUAGES), marks=pytest.mark.slow)])
def test_splits_share_no_context(name, languages):
  for language in languages:
    checked = ("train", "dev", "test") if language in ("en", "th", "tr") else ("dev", "test")
    splits = [list(map(context, load(name, language, split))) for split in checked]
    for split in splits:
      assert len(set(split)) == len(split), language
    for one, other in itertools.combinations(map(set, splits), 2):
      assert not one & other, (language, one & other)


@each_task
def test_languages_and_splits_are_drawn_apart(name):
  english = {split: load(name, "en", split) for split in ("train", "dev", "test")}
  kinds = [[len(context(example)) for example in examples[:60]] for examples in english.values()]
  assert kinds[0] != kinds[1] != kinds[2]
  if name == "demo_entailment":  # names in this order in neither
    assert [e.label for e in english["test"]] != [e.label for e in load(name, "de", "test")]


@pytest.mark.slow
def test_other_processes_make_the_same():
  program = (
    "import xlmr_jax.demo.tasks as tasks, zlib; from xlmr_jax.evaluation.tasks.registry import TASKS; "
    f"print([zlib.crc32(repr(TASKS[n].load('', 'tr', 'dev')).encode()) for n in {NAMES}])"
  )
  outputs = {
    subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=True,
      cwd=Path(__file__).parents[1],
      env={**os.environ, "PYTHONHASHSEED": seed},
    ).stdout
    for seed in "12"
  }
  assert len(outputs) == 1 and outputs.pop().startswith("[")
  assert TASKS["demo_questions"].load("", "tr", "dev") == load("demo_questions", "tr", "dev")


# --- entities ----------------------------------------------------------------------------------------------------


@each_language
def test_entities_are_iob2_and_hold_names(language):
  speech, task = lexicon.load(language), TASKS["demo_entities"]
  names = {
    kind: [
      fold(form.text[form.start : form.end])
      for table, entity_type in grammar.ENTITY_TYPES.items()
      if entity_type == kind
      for value in world.WORDS[table]
      for form in speech.word(table, value).forms.values()
    ]
    for kind in ("PER", "LOC", "ANIMAL")
  }
  seen = collections.Counter()
  for words, tags, _ in load("demo_entities", language, "test"):
    assert len(words) == len(tags) and set(tags) <= set(task.labels) and all(words)
    for before, tag in zip(("O", *tags), tags):
      assert tag[0] != "I" or before[1:] == tag[1:], (words, tags)
    # Every entity is a name of its kind, with at most a suffix or article around it.
    ends = [i for i, tag in enumerate(tags) if tag[0] == "B"]
    for start in ends:
      until = start + 1
      while until < len(tags) and tags[until][0] == "I":
        until += 1
      entity = fold(" ".join(words[start:until]))
      assert any(name in entity for name in names[tags[start][2:]]), (entity, tags[start])
      assert entity in names[tags[start][2:]] or language not in tasks.UNSPACED
      seen[tags[start][2:]] += 1
  assert all(seen[kind] >= 20 for kind in names), seen


@each_language
def test_words_join_to_the_text(language):
  rng = random.Random(0)
  for _ in range(100):
    facts = world.person_facts(world.draw_person(rng))[:4] + world.city_facts("new_york", rng)
    text, found, cuts = tasks.tell(facts, language, rng)
    words = tasks.words_of(text, cuts if language in tasks.UNSPACED else ())
    assert "".join(text[start:end] for start, end in words) == "".join(text.split())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(words))
    tags = tasks.tags_of(words, found)
    assert sum(tag[0] == "B" for tag in tags) == len(found)
    if language in tasks.UNSPACED:  # words end where entities do
      assert {edge for *span, _ in found for edge in span} <= {edge for span in words for edge in span}
      assert max(end - start for start, end in words) < 25


def split_words(text, cuts=()):
  return [text[start:end] for start, end in tasks.words_of(text, cuts)]


def test_words_by_hand():
  assert split_words("Ali's «cat», it's (9)!") == ["Ali's", "«", "cat", "»", ",", "it's", "(", "9", ")", "!"]
  assert split_words("Paris'te Нью-Йорк ...") == ["Paris'te", "Нью-Йорк", ".", ".", "."]
  assert split_words("阿里的家在巴黎。", (2, 5, 7)) == ["阿里", "的家在", "巴黎", "。"]
  words = tasks.words_of("Mit New York's Katze")
  assert tasks.tags_of(words, [(4, 12, "LOC"), (15, 20, "ANIMAL")]) == ("O", "B-LOC", "I-LOC", "B-ANIMAL")


# --- entailment --------------------------------------------------------------------------------------------------


@functools.cache
def phrasings(person, language):
  """(fact, text) of every fact of a hypothesis kind about a person, in every phrasing."""
  result = []
  for kind in sum(tasks.HYPOTHESES, ()):
    slot, table = list(world.KINDS[kind].items())[-1]
    for value in world.values_of(table):
      fact = world.Fact.with_slots(kind, person=person, **{slot: value})
      variants = range(grammar.variants(kind, language))
      result += [(fact, grammar.render(fact, language, variant).text) for variant in variants]
  return result


def facts_told(text, language, people=world.WORDS["person"]):
  """Every fact of a hypothesis kind, in every phrasing, that stands in the text; by trying all of them."""
  return [fact for person in people for fact, phrase in phrasings(person, language) if phrase in text]


@pytest.mark.parametrize("language", ("en", "tr", "zh"))
def test_labels_are_true(language):
  task, speech = TASKS["demo_entailment"], lexicon.load(language)
  examples = load("demo_entailment", language, "dev")
  assert collections.Counter(example.label for example in examples) == {0.0: 20, 1.0: 20, 2.0: 20}
  for text, pair, label in examples:
    hypotheses = facts_told(pair, language)
    people = {fact.slots["person"] for fact in hypotheses}
    between = speech.stop + speech.space
    assert between + pair not in between + text + between
    premise = facts_told(text, language, people)
    assert len(people) == 1 and premise
    alike = [fact for fact in premise for asked in hypotheses if fact.kind == asked.kind]
    same = set(premise) & set(hypotheses)
    assert {"entailment": same, "neutral": not alike, "contradiction": alike and not same}[task.labels[int(label)]]


@each_language
def test_labels_are_balanced_in_every_language(language):
  labels = [example.label for example in load("demo_entailment", language, "test")]
  assert collections.Counter(labels) == {0.0: 50, 1.0: 50, 2.0: 50}
  assert labels[:10] != [i % 3 for i in range(10)]


@pytest.mark.parametrize("part", ("text", "pair"))
def test_one_text_alone_does_not_tell_the_label(part):
  """Naive Bayes on words and word pairs of half of the examples; 1/3 give or take three standard deviations."""
  examples = load("demo_entailment", "en", "train")

  def words(example):
    words = [*getattr(example, part).split(), "."]
    return {*words, *itertools.pairwise(words)}

  counts = {label: collections.Counter() for label in (0.0, 1.0, 2.0)}
  for example in examples[:500]:
    counts[example.label].update(words(example))
  guesses = [
    max(counts, key=lambda label: sum(math.log(counts[label][word] + 0.5) for word in words(example)))
    for example in examples[500:]
  ]
  right = sum(guess == example.label for guess, example in zip(guesses, examples[500:])) / 500
  assert 0.27 < right < 0.4


# --- questions ---------------------------------------------------------------------------------------------------


@each_language
def test_answers_are_exact_spans(language):
  speech = lexicon.load(language)
  forms = {
    fold(form.text[form.start : form.end])
    for table in world.WORDS
    for value in world.WORDS[table]
    for form in speech.word(table, value).forms.values()
  }
  forms |= {fold(form.text) for value in world.NUMBERS["number"] for form in speech.word("number", value).forms.values()}
  examples = load("demo_questions", language, "test")
  assert len({example.id for example in examples}) == len(examples)
  for _, question, text, ((answer, start),) in examples:
    assert answer and text[start : start + len(answer)] == answer
    # A word of the world, or a year or age; the whole of one, not a part.
    assert fold(answer) in forms or answer.isdigit(), (answer, text)
    assert question and (not speech.question_mark or question.endswith(speech.question_mark))


@pytest.mark.parametrize("language, split", [("en", "train"), ("ar", "test"), ("tr", "test"), ("zh", "test")])
def test_exactly_one_fact_of_the_context_answers(language, split):
  """By trying all facts that could: those with the same question, in every phrasing."""
  asked = collections.defaultdict(list)
  for kind, slots in world.ASKED.items():
    for values in itertools.product(*map(world.values_of, world.KINDS[kind].values())):
      for slot in slots:
        asked[grammar.question(world.Fact(kind, values), language, slot).text].append((world.Fact(kind, values), slot))
  for example in load("demo_questions", language, split):
    answers = set()
    for fact, slot in asked[example.question]:
      for variant in range(grammar.variants(fact.kind, language)):
        sentence = grammar.render(fact, language, variant)
        if sentence.text in example.context:
          answers.add((fact, example.context.index(sentence.text) + sentence.slots[slot][0]))
    assert [at for _, at in answers] == [example.answers[0][1]], (example, answers)


def test_get_finds_the_demo():
  assert registry.get("demo_entities") is TASKS["demo_entities"]
  assert registry.get("demo_questions").head == "span"
