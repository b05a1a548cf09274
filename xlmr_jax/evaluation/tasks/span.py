"""Tasks whose answer is a span of a context: SQuAD 1.1, MLQA, XQuAD, TyDi QA GoldP.

Owns their files and the way from questions to rows and back. Answers are exact characters of the context.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import metrics
from xlmr_jax.evaluation.tasks.registry import Question, Recipe, Task, find, names, pad, read_tfds, register
from xlmr_jax.ids import BOS, EOS, PAD
from xlmr_jax.model.task_head import SPAN

# XTREME's recipe (github.com/google-research/xtreme, train_qa.sh and run_squad.py). Its warmup of 500 steps is 6 % of the
# three epochs of SQuAD. XLM-R's recipe is not published; MLQA's authors trained XLM with the same rate, batch and epochs
# (github.com/facebookresearch/MLQA/issues/9).
RECIPE = Recipe(
  lr=3e-5, batch=32, epochs=3, max_len=384, warmup=0.06, weight_decay=1e-4, doc_stride=128, max_question=64, max_answer=30
)

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
TYDI_WHOLE = "tydiqa-goldp-v1.1-"  # begins the names of the files of all languages together
XQUAD = "xquad.{language}.json", "{language}.json"
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
      "{language}.dev.json",
      "{language}.json",
    ),
    "test": (
      "test-context-{language}-question-{language}.json",
      "test/test-context-{language}-question-{language}.json",
      "{language}.test.json",
    ),
  },
  # XQuAD has one set, which serves as both.
  "xquad": {
    "train": (*SQUAD, "{language}.train.json", "squad.translate.train.en-{language}.json"),
    "dev": XQUAD,
    "test": XQUAD,
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
  examples = [question(row, f"{path}, question {row['id']!r}") for row in _rows(path)]
  if path.name.startswith(TYDI_WHOLE):
    examples = _in_language(examples, language)
  if not examples:
    raise UserError(f"{path}: no questions in {language}")
  return _with_own_ids(examples)


def _rows(path: Path) -> list[dict]:
  """The rows of a file in the form that TFDS gives them: {"id", "question", "context", "answers": {...}}."""
  content = path.read_bytes()
  if not content.strip():
    raise UserError(f"{path}: an empty file")
  try:
    whole = json.loads(content.decode("utf-8-sig"))
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b"\n") + 1
    raise UserError(f"{path}:{line}: not UTF-8; convert the file, e.g. with iconv") from None
  except json.JSONDecodeError as error:
    raise UserError(f"{path}:{error.lineno}: no JSON ({error.msg}); SQuAD 1.1's layout is wanted") from None
  try:
    return [
      {
        "id": str(asked["id"]),
        "question": asked["question"],
        "context": paragraph["context"],
        "answers": {key: [answer[key] for answer in asked["answers"]] for key in ("text", "answer_start")},
      }
      for article in whole["data"]
      for paragraph in article["paragraphs"]
      for asked in paragraph["qas"]
    ]
  except (KeyError, TypeError) as error:
    raise UserError(f"{path}: not SQuAD 1.1's layout, data > paragraphs > qas > answers ({error!r})") from None


def question(row: dict, where: str) -> Question:
  """The Question of a row. An answer that is not at its offset is taken at the nearest offset that has its text.

  Raises UserError: there is no question, no context or no answer, or an answer that the context does not have.
  """
  asked, context = _text(row["question"]), _text(row["context"])
  if not asked.strip() or not context.strip():
    raise UserError(f"{where}: {'no context' if asked.strip() else 'nothing asked'}; remove it")
  answers = []
  for answer, start in zip(row["answers"]["text"], row["answers"]["answer_start"]):
    answer, start = _text(answer), int(start)
    if start < 0 or not context.startswith(answer, start):
      after, before = context.find(answer, max(start, 0)), context.rfind(answer, 0, max(start, 0) + len(answer))
      offsets = [offset for offset in (after, before) if offset >= 0]
      if not offsets:
        raise UserError(f"{where}: the answer {answer!r} is not in its context; mend or remove it")
      start = min(offsets, key=lambda offset: abs(offset - start))
    answers.append((answer, start))
  if not answers or not all(text.strip() for text, _ in answers):
    raise UserError(f"{where}: no answer; a file without answers, or of questions without one (SQuAD 2.0), cannot be used")
  return Question(_text(row["id"]), asked, context, tuple(answers))


def _text(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)


def _in_language(examples: list[Question], language: str) -> list[Question]:
  return [example for example in examples if example.id.startswith(f"{TYDI_NAMES.get(language)}-")]


def _with_own_ids(examples: list[Question]) -> list[Question]:
  """The examples, where an id that occurs again becomes ID#2, ID#3, because predictions are kept by id."""
  seen: dict[str, int] = {}
  result = []
  for example in examples:
    seen[example.id] = occurrence = seen.get(example.id, 0) + 1
    result.append(example if occurrence == 1 else example._replace(id=f"{example.id}#{occurrence}"))
  return result


# --- TFDS --------------------------------------------------------------------------------------------------------


def tfds_source(task: str, language: str, split: str) -> tuple[str, str] | None:
  """(dataset, its split) in TensorFlow Datasets, or None where there is none."""
  if task in ("squad", "mlqa", "xquad") and (language, split) == ("en", "train"):
    return "squad/v1.1", "train"
  if task.startswith("tydiqa") and split == "train":
    return "tydi_qa/goldp", "train"
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

  def parse(row: dict, features: Mapping, where: str) -> Question:
    return question(row, f"{where}, question {_text(row['id'])!r}")

  source = tfds_source(task.name, language, split)
  examples = read_tfds(task, language, split, source, parse)
  if source == ("tydi_qa/goldp", "train"):
    examples = _in_language(examples, language)
  return _with_own_ids(examples)


# --- rows and back -----------------------------------------------------------------------------------------------


def encode(task: Task, examples: list[Question], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
  """Rows `<s> question </s></s> piece of the context </s>` of L = recipe.max_len tokens.

  Returns "ids" int32[n, L]; "start" and "end" int32[n], the positions of the first and last token of the first answer, both
  0 where the piece does not hold all of it; "example" int32[n], the index into examples; "char_start" and "char_end"
  int32[n, L], the characters of the context that a token stands for, -1 outside of the context. Pieces begin doc_stride
  tokens apart, or closer where a row has less room.  Raises UserError: the recipe leaves no room for a context.
  """
  recipe = task.recipe
  if recipe.max_len - recipe.max_question - 4 < 1:
    raise UserError(
      f"{task.name}: questions of {recipe.max_question} tokens leave a row of {recipe.max_len} no room for "
      "a context; raise recipe.max_len, or the model's max_positions, or lower recipe.max_question"
    )
  contexts = list(dict.fromkeys(example.context for example in examples))
  encoded = dict(zip(contexts, tokenizer.encode_with_offsets(contexts)))
  asked = tokenizer.encode_lines([example.question for example in examples])
  rows, spans, owners, char_starts, char_ends = [], [], [], [], []
  for i, (example, asks) in enumerate(zip(examples, asked)):
    ids, starts, ends = encoded[example.context]
    asks = asks[: recipe.max_question].tolist()
    before = [BOS, *asks, EOS, EOS]
    room = recipe.max_len - len(before) - 1
    outside = np.full(len(before), -1, np.int32)
    first, last = _tokens_of(example.answers[0], starts, ends) if example.answers else (-1, -1)
    for begin in range(0, max(len(ids) - room, 0) + min(recipe.doc_stride, room), min(recipe.doc_stride, room)):
      piece = slice(begin, begin + room)
      rows.append([*before, *ids[piece].tolist(), EOS])
      holds = begin <= first and 0 <= last < begin + room
      spans.append((first - begin + len(before), last - begin + len(before)) if holds else (0, 0))
      owners.append(i)
      char_starts.append(np.concatenate([outside, starts[piece]]))
      char_ends.append(np.concatenate([outside, ends[piece]]))
  span = np.array(spans, np.int32).reshape(-1, 2)
  return {
    "ids": pad(rows, recipe.max_len, PAD),
    "start": span[:, 0].copy(),
    "end": span[:, 1].copy(),
    "example": np.array(owners, np.int32),
    "char_start": pad(char_starts, recipe.max_len, -1),
    "char_end": pad(char_ends, recipe.max_len, -1),
  }


def _tokens_of(answer: tuple[str, int], starts: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
  """The first and last token that has a character of the answer, or (-1, -1) where none has."""
  text, offset = answer
  begin, end = offset + len(text) - len(text.lstrip()), offset + len(text.rstrip())
  tokens = np.flatnonzero((starts < ends) & (starts < end) & (ends > begin))
  return (int(tokens[0]), int(tokens[-1])) if tokens.size else (-1, -1)


def decode(
  task: Task, examples: list[Question], arrays: dict[str, np.ndarray], outputs: tuple[np.ndarray, np.ndarray]
) -> dict[str, str]:
  """{question id: answer}: the span with the highest sum of start and end logit, over all pieces of the context.

  outputs: (start logits, end logits), float[n, L] each. Spans have 1 to recipe.max_answer tokens, begin and end with
  characters of the context, and are those characters exactly. "" where no span has a score that is a number.
  """
  inside = arrays["char_end"] > arrays["char_start"]
  starts, ends = (np.where(inside, np.asarray(logits, np.float32), -np.inf) for logits in outputs)
  rows, length = np.arange(len(starts)), starts.shape[1]
  best = np.full(len(starts), -np.inf, np.float32)
  first, last = np.zeros((2, len(starts)), np.int64)
  for longer in range(min(task.recipe.max_answer, length)):
    scores = starts[:, : length - longer] + ends[:, longer:]
    position = scores.argmax(axis=1)
    highest_here = scores[rows, position]
    better = highest_here > best
    best[better], first[better], last[better] = highest_here[better], position[better], position[better] + longer
  answers = {example.id: "" for example in examples}
  highest = np.full(len(examples), -np.inf)
  begins, finishes = arrays["char_start"][rows, first].tolist(), arrays["char_end"][rows, last].tolist()
  for row, i in enumerate(arrays["example"].tolist()):
    if best[row] > highest[i]:
      highest[i] = best[row]
      answers[examples[i].id] = examples[i].context[begins[row] : finishes[row]]
  return answers


def score(task: Task, examples: list[Question], predictions: dict[str, str], language: str) -> dict[str, float]:
  """{metric: mean over the questions} of task.metrics: f1 and exact_match by SQuAD's rules, mlqa_f1 and mlqa_exact_match by
  MLQA's. A question without a prediction counts 0.
  """
  result = {}
  for name in task.metrics:
    by_mlqa = name.startswith("mlqa_")
    which = ("exact_match", "f1").index(name.removeprefix("mlqa_"))
    values = []
    for example in examples:
      gold, predicted = [text for text, _ in example.answers], predictions.get(example.id, "")
      values.append((metrics.mlqa(gold, predicted, language) if by_mlqa else metrics.squad(gold, predicted))[which])
    result[name] = float(np.mean(values)) if values else 0.0
  return result


# --- tasks -------------------------------------------------------------------------------------------------------

_BY_SQUAD = ("f1", "exact_match")
_XQUAD_LANGUAGES = names("ar de el en es hi ro ru th tr vi zh")
register(Task("squad", SPAN, (), _BY_SQUAD, ("en",), RECIPE, read))
register(Task("mlqa", SPAN, (), ("mlqa_f1", "mlqa_exact_match"), names("ar de en es hi vi zh"), RECIPE, read))
register(Task("xquad", SPAN, (), _BY_SQUAD, _XQUAD_LANGUAGES, RECIPE, read))
register(Task("tydiqa", SPAN, (), _BY_SQUAD, tuple(TYDI_NAMES), RECIPE, read))
# English TyDi QA is open and small (3696 questions), to train on where SQuAD is not at hand.
register(Task("tydiqa_xquad", SPAN, (), _BY_SQUAD, _XQUAD_LANGUAGES, RECIPE, read))
