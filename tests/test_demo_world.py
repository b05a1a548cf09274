"""The demo world's text: every language says every fact, its spans hold, the files are the same each time."""

import random
import re
import unicodedata

import pytest

from xlmr_jax.demo import grammar, lexicon, text, world
from xlmr_jax.errors import UserError

SCRIPTS = {
  "ar": "\u0600-\u06ff", "ur": "\u0600-\u06ff", "bg": "\u0400-\u04ff", "ru": "\u0400-\u04ff",
  "el": "\u0370-\u03ff\u1f00-\u1fff", "hi": "\u0900-\u097f", "th": "\u0e00-\u0e7f", "zh": "\u4e00-\u9fff",
}  # fmt: skip
OWN_MARKS = {  # letters and marks beyond ASCII; in the languages of SCRIPTS, all punctuation
  "de": "äöüßÄÖÜ", "es": "áéíóúñüÁÉÍÓÚ¿", "fr": "àâçéèêëîïôùûœÀÉÈÊÎÔ\u00a0", "sw": "", "en": "",
  "tr": "çğıöşüâÇĞİÖŞÜ'’", "zh": "。,，？?！、", "ar": "؟،.", "ur": "؟،۔", "hi": "।?,", "th": "?.",
  "ru": ".,?!-–—:", "bg": ".,?!-–—:", "el": ".,;·-–—:'’",
}  # fmt: skip

each_language = pytest.mark.parametrize("language", lexicon.LANGUAGES)


def facts_of(kind: str) -> list[world.Fact]:
  """Few facts that between them hold each value of each slot, true or not."""
  tables = [world.values_of(table) for table in world.KINDS[kind].values()]
  longest = max(map(len, tables))
  rng = random.Random(kind)
  facts = []
  for _ in range(2):
    columns = [rng.sample([values[i % len(values)] for i in range(longest)], longest) for values in tables]
    facts += [world.Fact(kind, values) for values in zip(*columns)]
  return facts


def renderings(language: str) -> list[grammar.Sentence]:
  return [
    grammar.render(fact, language, variant)
    for kind in world.KINDS
    for fact in facts_of(kind)
    for variant in range(grammar.variants(kind, language))
  ]


def questions(language: str) -> list[grammar.Question]:
  return [
    grammar.question(fact, language, slot)
    for kind, slots in world.ASKED.items()
    for fact in facts_of(kind)
    for slot in slots
  ]


def test_facts_of_cover_the_world():
  for kind, slots in world.KINDS.items():
    seen = [fact.slots for fact in facts_of(kind)]
    assert all({fact[slot] for fact in seen} == set(world.values_of(table)) for slot, table in slots.items())


@each_language
def test_two_phrasings_of_every_kind(language):
  for kind in world.KINDS:
    fact, variants = facts_of(kind)[0], grammar.variants(kind, language)
    texts = [grammar.render(fact, language, variant).text for variant in range(variants)]
    assert len(set(texts)) == len(texts) >= 2, texts


@each_language
def test_spans_hold_the_words_of_their_slots(language):
  speech = lexicon.load(language)
  for sentence in renderings(language):
    fact, tables = sentence.fact, world.KINDS[sentence.fact.kind]
    assert set(sentence.slots) == set(tables), sentence
    for slot, (start, end) in sentence.slots.items():
      assert 0 <= start < end <= len(sentence.text), (sentence, slot)
      said = sentence.text[start:end]
      word = speech.word(tables[slot], fact.slots[slot])
      forms = {form.text[form.start : form.end] for form in word.forms.values()}
      capitalised = {said[1:]} & {form[1:] for form in forms} if start == 0 else set()
      assert said == said.strip() and (said in forms or capitalised), (sentence, slot, said)
    types = {slot: grammar.ENTITY_TYPES.get(table) for slot, table in tables.items()}
    named = {sentence.slots[slot]: kind for slot, kind in types.items() if kind}
    found = {(start, end): kind for start, end, kind in sentence.entities}
    assert named.items() <= found.items(), sentence
    assert list(sentence.entities) == sorted(sentence.entities)
    assert all(0 <= start < end <= len(sentence.text) for start, end in found)


@each_language
def test_orthography(language):
  speech = lexicon.load(language)
  statements = [sentence.text for sentence in renderings(language)]
  asked = [question.text for question in questions(language)]
  spaced = r"\s[.,;:!。，؟،۔।？]" if language == "fr" else r"\s[.,;:!?。，؟،۔।？]"
  allowed = rf"[\d\s{SCRIPTS[language]}" if language in SCRIPTS else r"[\x20-\x7e"
  allowed += "".join(map(re.escape, OWN_MARKS.get(language, ""))) + "]*"
  if language == "vi":
    allowed = r"[\x20-\x7e\u00c0-\u01b0\u1ea0-\u1ef9]*"
  for line in statements + asked:
    assert line == line.strip() and "  " not in line, line
    assert not re.search(spaced, line), line
    assert not set(line) & set("{}[]|\n\t"), line
    assert re.fullmatch(allowed, line), (line, re.sub(allowed, "", line))
    assert unicodedata.is_normalized("NFC", line), line
    assert line[0] == "¿" or not line[0].islower(), line
  assert all(line.endswith(speech.stop) for line in statements)
  assert all(line.endswith(speech.question_mark) for line in asked)
  assert not any(line.endswith(("?", "؟", "？")) for line in statements)


@each_language
def test_questions_are_answered_by_every_rendering(language):
  for question in questions(language):
    fact = question.fact
    for variant in range(grammar.variants(fact.kind, language)):
      start, end = grammar.render(fact, language, variant).slots[question.answer]
      assert start < end
  # A question does not give its answer away: other answers, same question.
  for kind, slots in world.ASKED.items():
    for slot in slots:
      if (kind, slot) == ("kin", "person"):  # its gender shows in what it is asked for
        continue
      fact, values = facts_of(kind)[0], world.values_of(world.KINDS[kind][slot])
      texts = {grammar.question(fact.replace(**{slot: value}), language, slot).text for value in values}
      assert len(texts) == 1, texts


@each_language
def test_documents(language):
  made = list(text.documents(language, count=300, seed=1))
  assert made == list(text.documents(language, count=300, seed=1))
  assert made != list(text.documents(language, count=300, seed=2))
  space = lexicon.load(language).space
  for document in made:
    assert document and all(line and line == line.strip() and "\n" not in line for line in document)
    assert len(document) <= 8
  assert len(set(map("\n".join, made))) > 290
  if space and lexicon.load(language).stop:
    assert any(lexicon.load(language).stop + space in line for document in made for line in document)
  if mark := lexicon.load(language).question_mark.strip():
    share = sum(mark in line for document in made for line in document) / sum(map(len, made))
    assert 0.05 < share < 0.4


@each_language
def test_names_in_other_scripts_have_their_latin_form_beside_them_now_and_then(language):
  fact = world.Fact.with_slots("lives", person="ivan", city="cairo")
  plain = grammar.render(fact, language)
  both = grammar.render(fact, language, latin=("person", "city"))
  assert [both.text[start:end] for start, end in both.slots.values()] == [
    plain.text[start:end] for start, end in plain.slots.values()
  ]
  if language in grammar.BESIDE:
    for name in ("Ivan", "Cairo"):
      assert both.text.count(grammar.BESIDE[language].format(name)) == 1 and "  " not in both.text
  else:
    assert both == plain
  lines = [line for document in text.documents(language, count=200, seed=1) for line in document]
  share = sum("(" in line or "（" in line for line in lines) / len(lines)
  assert 0.1 < share < 0.5 if language in grammar.BESIDE else share == 0


def test_sizes_are_as_unequal_as_those_of_cc100():
  assert set(text.SIZES) == set(lexicon.LANGUAGES)
  order = sorted(text.SIZES, key=text.SIZES.get)
  assert order[-1] == "en" and set(order[:2]) == {"sw", "ur"}
  assert 15 <= text.SIZES[order[-1]] / text.SIZES[order[0]] <= 25


def test_the_files_are_the_same_each_time(tmp_path):
  scale = 0.02
  first, again = (text.write_text(tmp_path / name, scale=scale, seed=3) for name in "ab")
  assert first == again
  files = sorted(path.name for path in (tmp_path / "a").iterdir())
  assert files == sorted(f"{language}.txt" for language in lexicon.LANGUAGES)  # and no unfinished ones
  written = {name: (tmp_path / "a" / name).read_bytes() for name in files}
  assert written == {name: (tmp_path / "b" / name).read_bytes() for name in files}
  assert first["languages"] == len(files) and first["bytes"] == sum(map(len, written.values()))
  assert first["documents"] == sum(data.count(b"\n\n") for data in written.values())
  for name, data in written.items():
    wanted = text.SIZES[name.removesuffix(".txt")] * 1000 * scale
    assert wanted <= len(data) < wanted + 3000
    assert data.endswith(b"\n\n") and b"\n\n\n" not in data and b"\r" not in data


def test_bad_arguments_are_told(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="--scale=0"):
    text.write_text(tmp_path, scale=0)
  with pytest.raises(UserError, match="file"):
    text.write_text(tmp_path / "file")
  with pytest.raises(UserError, match="no language 'xx'"):
    next(text.documents("xx"))
