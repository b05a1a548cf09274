"""What labelled files hold that they should not: refused with file and number, or left out, counted and said."""

import json

import numpy as np
import pytest

from tests.test_tasks import MNLI_HEADER, XNLI_HEADER, squad, task_with, write
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import reading, registry, sentence, span, tagging
from xlmr_jax.evaluation.tasks.registry import Question, Tagged, Text

REST = "\t_" * 6


@pytest.fixture
def said(capsys):
  """() -> the lines that were said since the last call."""
  return lambda: capsys.readouterr().err.splitlines()


def load(folder, name, language, split, **files):
  return registry.get(name).load(
    write(folder, {file.replace("__", "/"): content for file, content in files.items()}), language, split
  )


def conllu(*sentences, tag="NOUN"):
  """A treebank of sentences of words."""
  return "".join(
    "".join(f"{i}\t{word}\t{word}\t{tag}{REST}\n" for i, word in enumerate(words.split(), 1)) + "\n" for words in sentences
  )


# --- labels that the field itself calls "not known" ----------------------------------------------------------------


@pytest.mark.parametrize(
  "name, split, file, content",
  [
    ("xnli", "dev", "en.tsv", "p\th\t-\np\th\tneutral\nq\ti\t-\n"),
    ("xnli", "dev", "xnli.dev.tsv", XNLI_HEADER + "en\t-\t(\tp\th\t1\nen\tneutral\t(\tp\th\t1\nen\t-\t(\ta\tb\t1\n"),
    (
      "mnli",
      "dev_matched",
      "dev_matched.tsv",
      MNLI_HEADER + "".join(f"0\t1\t(\tp\th\tx\t{x}\n" for x in ("-", "neutral", "-")),
    ),
    ("cad_nli", "train", "cad_snli_en/train.tsv", "p\th\t-\np\th\tneutral\nq\ti\t-\n"),
  ],
)
def test_examples_without_a_gold_label_are_left_out_and_counted(tmp_path, said, name, split, file, content):
  found = registry.get(name).load(write(tmp_path, {file: content}), "en", split)
  assert found == [Text("p", "h", 1)]
  (line,) = said()
  first = 2 if content[0] in "li" else 1
  assert file in line and f"left out 2 of 3 rows, whose label is '-', the first in line {first}" in line


def test_a_file_of_unlabelled_examples_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"en\.tsv: no examples in en, because no row has a label"):
    load(tmp_path, "xnli", "en", "dev", **{"en.tsv": "p\th\t-\n"})
  with pytest.raises(UserError, match=r"train\.tsv:1: unknown label '-'; rte has"):  # It is no convention there.
    load(tmp_path, "rte", "en", "train", **{"train.tsv": "-\tp\th\n"})


def test_what_could_not_be_translated_is_left_out(tmp_path, said):
  content = "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n2\tNS\tb\t0\n3\ta\tNS\t0\n"
  assert load(tmp_path, "pawsx", "ko", "dev", **{"ko__dev_2k.tsv": content}) == [Text("a", "b", 1)]
  assert "left out 2 of 3 rows, which are not translated, the first in line 3" in said()[0]


@pytest.mark.parametrize("score", ["5.1", "-0.1", "25", "1_0", "inf", "", "1e9"])
def test_scores_lie_on_their_scale(tmp_path, score):
  with pytest.raises(UserError, match=r"dev\.tsv:2: the label '.*' is (outside 0 to 5|not a number)"):
    load(tmp_path, "stsb", "en", "dev", **{"dev.tsv": f"5.000\ta\tb\n{score}\ta\tb\n"})


@pytest.mark.parametrize("cell", ['"a', '"a"b', '"' + "x" * 200_000 + '"', "a\rb"])
def test_a_quoted_cell_that_does_not_end_is_refused(tmp_path, cell):
  with pytest.raises(UserError, match=r"test\.tsv:2: .*mend or remove the line"):
    load(tmp_path, "sib200", "am", "test", **{"amh_Ethi__test.tsv": f"index_id\tcategory\ttext\n7\thealth\t{cell}\n"})


def test_a_language_that_a_file_of_several_lacks_is_missing(tmp_path):
  with pytest.raises(reading.MissingError, match="no examples in sw"):
    load(tmp_path, "xnli", "sw", "dev", **{"xnli.dev.tsv": XNLI_HEADER + "ar\tneutral\t(\ta\tb\t1\n"})
  with pytest.raises(reading.MissingError, match="no questions in fi"):
    load(tmp_path, "tydiqa", "fi", "dev", **{"tydiqa-goldp-v1.1-dev.json": squad(("english-1", "q", "one", 0))})
  with pytest.raises(reading.MissingError, match="no dev of panx in yo"):
    load(tmp_path, "panx", "yo", "dev")


@pytest.mark.parametrize("name", ["xnli.dev.tsv", "XNLI-1.0/xnli.dev.tsv"])
@pytest.mark.parametrize("header", ["", "premise\thypothesis\tlabel\n"])
def test_a_file_of_all_languages_says_of_which_a_row_is(tmp_path, name, header):
  """Without a column for it, each of fifteen languages would have the score of the whole file."""
  with pytest.raises(UserError, match=rf"{name}:1: the file has xnli in all languages, but no column `language`"):
    load(tmp_path, "xnli", "sw", "dev", **{name: header + "p\th\tneutral\n"})


# --- words ---------------------------------------------------------------------------------------------------------


def test_a_treebank_without_its_text_is_left_out(tmp_path, said):
  files = {
    "en__en_a-ud-train.conllu": conllu("_ _ _", "_"),
    "en__en_b-ud-train.conllu": conllu("the _ symbol", "_ _", "yes"),
  }
  words = [example.words for example in load(tmp_path, "udpos", "en", "train", **files)]
  assert words == [("the", "_", "symbol"), ("yes",)]
  assert [line.split(": ", 1)[1] for line in said()] == [
    "left out 2 of 2 sentences, whose words are '_', as a license asks for",
    "left out 1 of 3 sentences, whose words are '_', as a license asks for",
  ]
  with pytest.raises(UserError, match=r"fr_ftb-ud-dev\.conllu: all words are '_', because their license removed the text"):
    load(tmp_path, "udpos", "fr", "dev", **{"fr__fr_ftb-ud-dev.conllu": conllu("_ _", "_")})


@pytest.mark.parametrize(
  "lines, message",
  [
    (("1\ta", "3\tb"), r"conllu:2: word 3 follows word 1"),
    (("1\ta", "1\tb"), r"conllu:2: word 1 follows word 1; a line or an empty line is missing"),
    (("2\ta",), r"conllu:1: word 2 follows word 0"),
    (("1\ta", "\tb"), r"conllu:2: the id '' is none of 1, 1-2 and 1\.1"),
    (("1\ta", "²\tb"), r"conllu:2: the id '²' is none"),
    (("x\ta",), r"conllu:1: the id 'x' is none"),
  ],
)
def test_words_of_a_treebank_are_numbered(tmp_path, lines, message):
  content = "".join(f"{line}\tx\tNOUN{REST}\n" for line in lines)
  with pytest.raises(UserError, match=message):
    load(tmp_path, "udpos", "en", "dev", **{"en.dev.conllu": content})


@pytest.mark.parametrize("first", [0, 1])
def test_conll_does_not_take_an_index_for_the_word(tmp_path, first):
  sentences = ("EU rejects German", "Peter", "in Rome 1996")
  indexed = "".join(
    "".join(f"{i} {word} NN O\n" for i, word in enumerate(words.split(), first)) + "\n" for words in sentences
  )
  with pytest.raises(UserError, match=r"eng\.testa: the first column counts the words of each sentence"):
    load(tmp_path, "conll", "en", "dev", **{"eng.testa": indexed})
  with_numbers = "1 CD O\n2 CD O\n\n1 CD O\nhalf NN O\n\n"
  assert load(tmp_path, "conll", "en", "test", **{"eng.testb": with_numbers})[0].words == ("1", "2")


def test_a_document_of_conll_ends_a_sentence(tmp_path):
  content = "-DOCSTART- -X- O O\nEU NNP B-NP B-ORG\n-DOCSTART- -X- O O\nRome NNP B-NP B-LOC\n"
  words = [example.words for example in load(tmp_path, "conll", "en", "dev", **{"eng.testa": content})]
  assert words == [("EU",), ("Rome",)]


def test_a_comment_of_a_treebank_ends_none(tmp_path):
  content = f"1\ta\ta\tNOUN{REST}\n# newpar\n2\tb\tb\tNOUN{REST}\n\n"
  assert [example.words for example in load(tmp_path, "udpos", "en", "dev", **{"en.dev.conllu": content})] == [("a", "b")]


def test_prefixes_of_wikiann_are_of_all_words_or_of_none(tmp_path):
  prefixed = "".join(f"de:{word}\tO\n" for word in ("Er", "geht", "heim"))
  with pytest.raises(UserError, match=r"de\.dev:4: 'weg' does not begin with 'de:', as most words of the file do"):
    load(tmp_path, "panx", "de", "dev", **{"de.dev": prefixed + "weg\tO\n"})
  with pytest.raises(UserError, match=r"fr\.dev: all words begin with 'de:', not 'fr:'"):
    load(tmp_path, "panx", "fr", "dev", **{"fr.dev": prefixed})
  assert load(tmp_path, "panx", "de", "train", **{"de.train": "a\tO\nb\tO\nde:c\tO\n"})[0].words == ("a", "b", "de:c")


def test_sentences_without_empty_lines_between_them_are_refused(tmp_path):
  content = "a\tO\n" * tagging.MOST_WORDS
  assert len(load(tmp_path, "panx", "en", "dev", **{"en.dev": content})[0].words) == tagging.MOST_WORDS
  with pytest.raises(UserError, match=r"en\.train:5001: a sentence of more than 5000 words; an empty line must stand"):
    load(tmp_path, "panx", "en", "train", **{"en.train": content + "b\tO\n"})


# --- questions -----------------------------------------------------------------------------------------------------


def asked(**changes):
  """SQuAD's JSON with a sound question and one with changes; "text" and "answer_start" are the answer's."""
  sound = {"id": "1", "question": "q", "answers": [{"text": "one", "answer_start": 0}]}
  answer = {key: changes.pop(key) for key in ("text", "answer_start") if key in changes}
  context = changes.pop("context", "one two")
  other = {**sound, "id": "7", "answers": [{**sound["answers"][0], **answer}], **changes}
  paragraphs = [{"context": "one two", "qas": [sound]}, {"context": context, "qas": [other]}]
  return json.dumps({"data": [{"title": "", "paragraphs": paragraphs}]})


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"question": None}, "question '7': the question is None, which is no text"),
    ({"context": None}, "question '7': the context is None, which is no text"),
    ({"context": ["one"]}, r"question '7': the context is \['one'\], which is no text"),
    ({"text": None}, "question '7': the answer is None, which is no text"),
    ({"text": 3}, "question '7': the answer is 3, which is no text"),
    ({"id": None}, "question None: the id is None"),
    ({"id": True}, "question True: the id is True"),
    ({"answer_start": None}, "question '7': the answer_start None is not a whole number"),
    ({"answer_start": 0.5}, "the answer_start 0.5 is not a whole number"),
    ({"answer_start": float("nan")}, "the answer_start nan is not a whole number"),
    ({"answer_start": "0"}, "the answer_start '0' is not a whole number"),
    ({"answer_start": True}, "the answer_start True is not a whole number"),
    ({"text": "\u200b", "context": "one\u200b two"}, r"question '7': no answer in '\\u200b'"),
    ({"text": "\u2028\u00ad", "context": "\u2028\u00ad one"}, "question '7': no answer in"),
    ({"answers": []}, "question '7': no answer"),
    ({"answers": None}, r"not SQuAD 1\.1's layout.*after 1 sound questions"),
    ({"answers": {"text": ["one"], "answer_start": [0]}}, r"not SQuAD 1\.1's layout.*after 1 sound questions"),
    ({"is_impossible": True}, "question '7': is_impossible, as in SQuAD 2.0"),
    ({"question": "what \ud83d"}, r"question '7': in the question: \\ud83d is half of a surrogate pair"),
    ({"context": "one \ude00"}, r"question '7': in the context: \\ude00 is half"),
    ({"text": "\ud83d", "context": "one \ud83d\ude00"}, r"in the answer: \\ud83d is half of"),
    ({"id": "\ud83d"}, r"in the id: \\ud83d is half of"),
  ],
)
def test_fields_of_a_question(tmp_path, changes, message):
  with pytest.raises(UserError, match=message) as caught:
    load(tmp_path, "xquad", "en", "dev", **{"en.json": asked(**changes)})
  assert "en.json" in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).encode()


@pytest.mark.parametrize(
  "content", ["1" * 5000, "[" * 100_000, "null", "3", '"data"', '{"data": {"a": 1}}', '{"data": [null]}']
)
def test_json_of_another_shape(tmp_path, content):
  with pytest.raises(UserError, match=r"en\.json: n"):
    load(tmp_path, "xquad", "en", "dev", **{"en.json": content})


def test_whole_pairs_and_numbers_as_ids_are_read(tmp_path):
  found = load(tmp_path, "xquad", "en", "dev", **{"en.json": asked(id=7, question="\U0001f600?")})
  assert found[1] == Question("7", "\U0001f600?", "one two", (("one", 0),))


def test_answers_that_are_moved_are_counted(tmp_path, said):
  load(tmp_path, "xquad", "en", "dev", **{"en.json": asked(answer_start=99)})
  assert "1 of 2 questions have an answer that is not at its answer_start, the first of them '7'" in said()[0]


def translated(unfound, of=40):
  return squad(*((str(i), "q", "four" if i < unfound else "one", 0) for i in range(of)))


def test_answers_that_a_translation_lost_are_left_out_of_training(tmp_path, said):
  """At evaluation they are refused, because a score would leave them out."""
  found = load(tmp_path, "xquad", "de", "train", **{"de.train.json": translated(2)})
  assert [example.id for example in found] == [str(i) for i in range(2, 40)]
  assert "left out 2 of 40 questions, whose answer the translation of the context lacks, the first: " in said()[0]
  with pytest.raises(
    UserError, match=r"de\.train\.json: 3 of 40 questions have an answer .*, more than 5%; .*'four' is not in"
  ):
    load(tmp_path, "mlqa", "de", "train", **{"de.train.json": translated(3)})
  for name, language, split, file in (
    ("xquad", "de", "dev", "de.json"),
    ("xquad", "en", "train", "train-v1.1.json"),
    ("tydiqa", "fi", "train", "fi.train.json"),  # by people, in Finnish
    ("mlqa", "de", "test_translated", "translate-test-context-de-question-de.json"),
  ):
    with pytest.raises(UserError, match=r"question '0': the answer 'four' is not in its context; mend or remove it"):
      load(tmp_path / name, name, language, split, **{file: translated(1)})


@pytest.mark.parametrize("unfound", [2, 3])
def test_answers_that_a_translation_in_tfds_lost(monkeypatch, said, unfound):
  rows = [
    {"id": str(i).encode(), "question": b"q", "context": b"one two",
     "answers": {"text": [b"four" if i < unfound else b"one"], "answer_start": [0]}}
    for i in range(40)
  ]  # fmt: skip
  monkeypatch.setattr(reading, "tfds_rows", lambda name, split: (rows, {}))
  if unfound == 3:
    with pytest.raises(UserError, match=r"3 of 40 questions have an answer that is not in its context"):
      registry.get("xquad").load("tfds", "de", "train")
    return
  assert len(registry.get("xquad").load("tfds", "de", "train")) == 38
  assert "left out 2 of 40 questions, whose answer the translation of the context lacks" in said()[0]
  with pytest.raises(UserError, match="is not in its context"):
    registry.get("xquad").load("tfds", "de", "test")


def test_an_id_that_occurs_again_gets_one_that_is_free(tmp_path):
  content = squad(*((id, "q", "one", 0) for id in ("a", "a#2", "a", "a", "a#2")))
  ids = [example.id for example in load(tmp_path, "xquad", "en", "dev", **{"en.json": content})]
  assert ids[:2] == ["a", "a#2"] and len(set(ids)) == 5


# --- what a reader of one's own may give ---------------------------------------------------------------------------


class Letters:
  """A tokenizer of one token a letter, without one for a variation selector."""

  separators = 2

  def encode_lines(self, lines):
    return [np.array([ord(letter) for letter in line], np.int32) for line in lines]

  def encode_with_offsets(self, texts):
    at = [np.array([i for i, letter in enumerate(text) if letter != "\ufe0f"], np.int32) for text in texts]
    return [(at_text + 5, at_text, at_text + 1) for at_text in at]

  def piece(self, id):
    return chr(id)


@pytest.mark.parametrize("label", [3, -1, 0.5, float("nan")])
def test_a_label_that_is_none_is_refused(label):
  with pytest.raises(UserError, match=r"xnli, example 1: label .*; it must be an index into the 3 labels"):
    sentence.encode(task_with("xnli", max_len=24), [Text("a", "b", 2.0), Text("a", "b", label)], Letters())


@pytest.mark.parametrize("tags", [("O",), ("O", "B-X"), ("O", "O", "O")])
def test_tags_that_are_none_are_refused(tags):
  with pytest.raises(UserError, match="panx, example 0: 2 words have the tags"):
    tagging.encode(task_with("panx", max_len=24), [Tagged(("a", "b"), tags)], Letters())


@pytest.mark.parametrize("answer", [("\ufe0f", 1), ("x", 40)])
def test_an_answer_without_a_token_is_refused(answer):
  with pytest.raises(UserError, match=r"squad, question '7': the answer .* is not at offset .*, or has no token"):
    span.encode(task_with("squad"), [Question("7", "q", "a\ufe0f b", (answer,))], Letters())
