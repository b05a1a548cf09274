"""The files of the span tasks, SQuAD 1.1's JSON and TFDS, and their questions. span.py declares the tasks."""

import collections
import json
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.reading import MissingError, find, read_tfds, refuse_half_pair, say_left_out
from xlmr_jax.evaluation.tasks.registry import Question, Task

SQUAD = "en:train-v1.1.json", "en:squad/train-v1.1.json"
TYDI_NAMES = {
  "ar": "arabic",
  "bn": "bengali",
  "en": "english",
  "fi": "finnish",
  "id": "indonesian",
  "ko": "korean",
  "ru": "russian",
  "sw": "swahili",
  "te": "telugu",
}
NO_ANSWER = "a file without answers, or of questions without one (SQuAD 2.0), cannot be used"
TYDI_WHOLE = "tydiqa-goldp-v1.1-"  # begins the names of the files of all languages together
XQUAD = "xquad.{language}.json", "{language}.json"
TRANSLATED = ("mlqa", "xquad")  # tasks that train on SQuAD, of which every language but English has machine translations
UNFOUND_SHARE = 0.05  # of the questions of such a file: as many answers may be missing from their contexts (ours)
UNFOUND = "questions, whose answer the translation of the context lacks"
FILES = {
  "squad": {"train": ("train-v1.1.json",), "dev": ("dev-v1.1.json",)},
  "mlqa": {
    "train": (
      *SQUAD,
      "{language}.train.json",
      "{language}_squad-translate-train-train-v1.1.json",
      "mlqa-translate-train/{language}_squad-translate-train-train-v1.1.json",
    ),
    # LANGUAGE.json is taken for the development set only, so that a development set is never tested on by mistake.
    "dev": (
      "dev-context-{language}-question-{language}.json",
      "dev/dev-context-{language}-question-{language}.json",
      "MLQA_V1/dev/dev-context-{language}-question-{language}.json",
      "{language}.dev.json",
      "{language}.json",
    ),
    "test": (
      "test-context-{language}-question-{language}.json",
      "test/test-context-{language}-question-{language}.json",
      "MLQA_V1/test/test-context-{language}-question-{language}.json",
      "{language}.test.json",
    ),
    "test_translated": (
      "translate-test-context-{language}-question-{language}.json",
      "mlqa-translate-test/translate-test-context-{language}-question-{language}.json",
    ),
  },
  # XQuAD has one set, which serves as both.
  "xquad": {
    "train": (*SQUAD, "{language}.train.json", "squad.translate.train.en-{language}.json"),
    "dev": XQUAD,
    "test": XQUAD,
    "test_translated": ("xquad.translate.test.{language}-en.json",),
  },
  "tydiqa": {
    "train": ("{language}.train.json", f"{TYDI_WHOLE}train.json"),
    "dev": (
      "{language}.dev.json",
      "tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-{name}.json",
      "tydiqa-goldp-dev-{name}.json",
      f"{TYDI_WHOLE}dev.json",
    ),
  },
  "tydiqa_xquad": {
    "train": ("tydiqa_goldp/{language}.train.json", f"tydiqa_goldp/{TYDI_WHOLE}train.json"),
    "dev": tuple(f"xquad/{name}" for name in XQUAD),
    "test": tuple(f"xquad/{name}" for name in XQUAD),
  },
}


# --- files -------------------------------------------------------------------------------------------------------


def read(folder: str | Path, task: Task, language: str, split: str) -> list[Question]:
  """The questions of a split: of SQuAD 1.1's JSON, or of TFDS where `folder` is "tfds". UserError."""
  if folder == "tfds":
    return from_tfds(task, language, split)
  path = find(folder, task, language, split, FILES[task.name], name=TYDI_NAMES.get(language, language))[0]
  found = _questions(path, _rows(path), is_translated=_is_translated(task, language, split))
  examples = [example for example, _ in found]
  moved = [example.id for example, is_exact in found if not is_exact]
  if moved:
    print(
      f"{path}: {len(moved)} of {len(found)} questions have an answer that is not at its answer_start, the first of them "
      f"{moved[0]!r}; it is taken where the context has it",
      file=sys.stderr,
      flush=True,
    )
  has_all_languages = path.name.startswith(TYDI_WHOLE)
  if has_all_languages:
    examples = _in_language(examples, language)
  if not examples:
    raise (MissingError if has_all_languages else UserError)(f"{path}: no questions in {language}")
  return _with_own_ids(examples)


class UnfoundError(UserError):
  """An answer is not in its context."""


def _is_translated(task: Task, language: str, split: str) -> bool:
  """Whether a split is a machine translation to train on, whose answers were translated apart from their contexts."""
  return task.name in TRANSLATED and split == "train" and language != task.train_language


def _questions(path: Path, rows: list[dict], *, is_translated: bool) -> list[tuple[Question, bool]]:
  """What question() makes of each row. is_translated: rows whose answer is not in its context are left out, and counted."""
  found, unfound = [], []
  for row in rows:
    try:
      found.append(question(row, f"{path}, question {row['id']!r}"))
    except UnfoundError as error:
      if not is_translated:
        raise
      unfound.append(error)
  _refuse_many(str(path), unfound, len(rows))
  say_left_out(path, len(unfound), len(rows), f"{UNFOUND}, the first: {next(iter(unfound), '')}")
  return found


def _refuse_many(where: str, unfound: list[UnfoundError], of: int) -> None:
  """UserError if so many answers of a translation are not in their contexts that something else is wrong with the file."""
  if len(unfound) > UNFOUND_SHARE * of:
    raise UserError(
      f"{where}: {len(unfound)} of {of} questions have an answer that is not in its context, more than {UNFOUND_SHARE:.0%}; "
      f"mend the file; the first: {unfound[0]}"
    )


def _rows(path: Path) -> list[dict]:
  """The rows of a file in the form that TFDS gives them: {"id", "question", "context", "answers": {...}}."""
  try:
    content = path.read_bytes()
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}") from None
  if not content.strip():
    raise UserError(f"{path}: an empty file")
  try:
    whole = json.loads(content.decode("utf-8-sig"))
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b"\n") + 1
    raise UserError(f"{path}:{line}: not UTF-8; convert the file, e.g. with iconv") from None
  except json.JSONDecodeError as error:
    raise UserError(f"{path}:{error.lineno}: no JSON ({error.msg}); SQuAD 1.1's layout is wanted") from None
  except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in thousands of brackets
    raise UserError(f"{path}: no JSON that can be read ({error}); SQuAD 1.1's layout is wanted") from None
  rows: list[dict] = []
  try:
    for article in whole["data"]:
      for paragraph in article["paragraphs"]:
        for asked in paragraph["qas"]:
          answers = {key: [answer[key] for answer in asked["answers"]] for key in ("text", "answer_start")}
          if asked.get("is_impossible"):
            raise UserError(f"{path}, question {asked['id']!r}: is_impossible, as in SQuAD 2.0, which cannot be used")
          rows.append(
            {"id": asked["id"], "question": asked["question"], "context": paragraph["context"], "answers": answers}
          )
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: not SQuAD 1.1's layout, data > paragraphs > qas > answers ({error!r}, after {len(rows)} sound "
                    "questions)") from None  # fmt: skip
  return rows


def question(row: dict, where: str) -> tuple[Question, bool]:
  """(the Question of a row, whether each answer is at its offset).

  An answer that is not at its offset is taken at the nearest offset that has its text. Raises UserError: there is no
  question, no context or no answer, or a value is of another type; UnfoundError: an answer is not in the context.
  """
  id = row["id"] if isinstance(row["id"], int) and not isinstance(row["id"], bool) else _text(row["id"], "id", where)
  asked, context = _text(row["question"], "question", where), _text(row["context"], "context", where)
  if not asked.strip() or not context.strip():
    raise UserError(f"{where}: {'no context' if asked.strip() else 'nothing asked'}; remove it")
  answers, is_exact = [], True
  for answer, start in zip(row["answers"]["text"], row["answers"]["answer_start"]):
    answer = _text(answer, "answer", where)
    if isinstance(start, bool) or not isinstance(start, (int, np.integer)):
      raise UserError(f"{where}: the answer_start {start!r} is not a whole number; mend or remove it")
    if not _is_visible(answer):
      raise UserError(f"{where}: no answer{f' in {answer!r}' if answer.strip() else ''}; {NO_ANSWER}")
    start = int(start)
    if start < 0 or not context.startswith(answer, start):
      after, before = context.find(answer, max(start, 0)), context.rfind(answer, 0, max(start, 0) + len(answer))
      offsets = [offset for offset in (after, before) if offset >= 0]
      if not offsets:
        raise UnfoundError(f"{where}: the answer {answer!r} is not in its context; mend or remove it")
      start, is_exact = min(offsets, key=lambda offset: abs(offset - start)), False
    answers.append((answer, start))
  if not answers:
    raise UserError(f"{where}: no answer; {NO_ANSWER}")
  return Question(str(id), asked, context, tuple(answers)), is_exact


def _text(value: Any, key: str, where: str) -> str:
  """A text of JSON or TFDS. UserError: it is no text, such as null, or holds half of a surrogate pair."""
  text = value.decode() if isinstance(value, bytes) else value
  if not isinstance(text, str):
    raise UserError(f"{where}: the {key} is {text!r}, which is no text; mend or remove it")
  refuse_half_pair(text, f"{where}: in the {key}")
  return text


def _is_visible(text: str) -> bool:
  """Whether a text has a character that is neither blank nor of zero width; others may have no token of their own."""
  return any(unicodedata.category(char) not in ("Zs", "Zl", "Zp", "Cc", "Cf", "Cn") for char in text)


def _in_language(examples: list[Question], language: str) -> list[Question]:
  return [example for example in examples if example.id.startswith(f"{TYDI_NAMES.get(language)}-")]


def _with_own_ids(examples: list[Question]) -> list[Question]:
  """The examples, where an id that occurs again becomes ID#2, ID#3, because predictions are kept by id."""
  taken, seen = {example.id for example in examples}, collections.Counter()
  result = []
  for example in examples:
    seen[example.id] += 1
    id = example.id
    while seen[example.id] > 1 and id in taken:
      id = f"{example.id}#{seen[example.id]}"
      seen[example.id] += id in taken
    taken.add(id)
    result.append(example._replace(id=id))
  return result


# --- TFDS --------------------------------------------------------------------------------------------------------


def tfds_source(task: str, language: str, split: str) -> tuple[str, str] | None:
  """(dataset, its split) in TensorFlow Datasets, or None where there is none."""
  if task in ("squad", "mlqa", "xquad") and (language, split) == ("en", "train"):
    return "squad/v1.1", "train"
  if task.startswith("tydiqa") and split == "train":
    return ("tydi_qa/goldp", "train") if language in TYDI_NAMES else None
  translated = "translate-train" if task == "xquad" else None
  return {
    ("squad", "dev"): ("squad/v1.1", "validation"),
    ("mlqa", "dev"): (f"mlqa/{language}", "validation"),
    ("mlqa", "test"): (f"mlqa/{language}", "test"),
    ("xquad", "train"): (f"xquad/{language}", translated),
    **{(name, kind): (f"xquad/{language}", "test") for name in ("xquad", "tydiqa_xquad") for kind in ("dev", "test")},
    ("tydiqa", "dev"): ("tydi_qa/goldp", f"validation-{language}"),
  }.get((task, split))


def from_tfds(task: Task, language: str, split: str) -> list[Question]:
  """The questions of a split in TensorFlow Datasets: squad, mlqa, xquad, tydi_qa."""

  unfound: list[UnfoundError] = []

  def parse(row: dict, features: Mapping, where: str) -> Question | None:
    try:
      return question(row, f"{where}, question {_text(row['id'], 'id', where)!r}")[0]
    except UnfoundError as error:
      if not _is_translated(task, language, split):
        raise
      unfound.append(error)
      return None

  source = tfds_source(task.name, language, split)
  examples = read_tfds(task, language, split, source, parse, UNFOUND)
  _refuse_many(f"tfds {', '.join(source or ())}", unfound, len(examples) + len(unfound))
  if source == ("tydi_qa/goldp", "train"):
    examples = _in_language(examples, language)
    if not examples:
      raise MissingError(f"tfds tydi_qa/goldp, train: no questions in {language}")
  return _with_own_ids(examples)
