"""Tasks whose answer is a span of a context: SQuAD 1.1, MLQA, XQuAD, TyDi QA GoldP.

Owns their files and the way from questions to rows and back. Answers are exact characters of the context.
"""

import json
from pathlib import Path

import numpy as np

from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import metrics
from xlmr_jax.evaluation.tasks.registry import Question, Recipe, Task, find, names, pad, register, tfds_rows
from xlmr_jax.ids import BOS, EOS, PAD
from xlmr_jax.model.task_head import SPAN

# XTREME's (train_qa.sh, run_squad.py); its warmup of 500 steps is 6 % of SQuAD's three epochs. XLM-R's own is not
# published; MLQA's authors took for XLM the same rate, batch and epochs (MLQA#9).
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
    # LANGUAGE.json is a development set alone: a test must not be one by mistake.
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
  # XQuAD is one set, for both purposes.
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


def read(folder, task: Task, language: str, split: str) -> list[Question]:
  """The questions of SQuAD 1.1's JSON."""
  if folder == "tfds":
    return from_tfds(task, language, split)
  path = find(folder, task, language, split, FILES[task.name], name=TYDI_NAMES.get(language, language))[0]
  examples = [question(row, f"{path}, question {row['id']!r}") for row in _rows(path)]
  if path.name.startswith(TYDI_WHOLE):
    examples = _of_language(examples, language)
  if not examples:
    raise UserError(f"{path}: no questions in {language}")
  return _with_own_ids(examples)


def _rows(path: Path) -> list[dict]:
  """{"id", "question", "context", "answers": {"text", "answer_start"}}, as TFDS has them."""
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
  """A Question of such a row. An answer that is not at its offset is taken at the nearest place that has its text.

  UserError: nothing asked, no context, no answer, or one that the context does not have.
  """
  asked, context = _text(row["question"]), _text(row["context"])
  if not asked.strip() or not context.strip():
    raise UserError(f"{where}: {'no context' if asked.strip() else 'nothing asked'}; remove it")
  answers = []
  for answer, start in zip(row["answers"]["text"], row["answers"]["answer_start"]):
    answer, start = _text(answer), int(start)
    if start < 0 or not context.startswith(answer, start):
      after, before = context.find(answer, max(start, 0)), context.rfind(answer, 0, max(start, 0) + len(answer))
      places = [place for place in (after, before) if place >= 0]
      if not places:
        raise UserError(f"{where}: the answer {answer!r} is not in its context; mend or remove it")
      start = min(places, key=lambda place: abs(place - start))
    answers.append((answer, start))
  if not answers or not all(text.strip() for text, _ in answers):
    raise UserError(f"{where}: no answer; a file without answers, or of questions without one (SQuAD 2.0), cannot be used")
  return Question(_text(row["id"]), asked, context, tuple(answers))


def _text(value) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)


def _of_language(examples: list[Question], language: str) -> list[Question]:
  return [example for example in examples if example.id.startswith(f"{TYDI_NAMES.get(language)}-")]


def _with_own_ids(examples: list[Question]) -> list[Question]:
  """Ids that come again get #2, #3: predictions go by id."""
  times: dict[str, int] = {}
  result = []
  for example in examples:
    times[example.id] = again = times.get(example.id, 0) + 1
    result.append(example if again == 1 else example._replace(id=f"{example.id}#{again}"))
  return result


# --- TFDS --------------------------------------------------------------------------------------------------------


def tfds_source(task: str, language: str, split: str) -> tuple[str, str] | None:
  """(dataset, its split) in TensorFlow Datasets, None where there is none."""
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
  """The same from TensorFlow Datasets: squad, mlqa, xquad, tydi_qa."""
  source = tfds_source(task.name, language, split)
  if source is None:
    raise UserError(f"tfds has no {split} of {task.name} in {language}; give a folder of files")
  rows, _ = tfds_rows(*source)
  examples = [question(row, f"tfds {source[0]}, question {_text(row['id'])!r}") for row in rows]
  if source == ("tydi_qa/goldp", "train"):
    examples = _of_language(examples, language)
  return _with_own_ids(examples)


# --- rows and back -----------------------------------------------------------------------------------------------


def encode(task: Task, examples: list[Question], tokenizer) -> dict[str, np.ndarray]:
  """Rows `<s> question </s></s> piece of the context </s>` of L = recipe.max_len tokens.

  "ids" int32[n, L]; "start" and "end" int32[n], positions of the first and last token of the first answer, 0 and 0
  where the piece does not hold all of it; "example" int32[n], index into examples; "char_start" and "char_end"
  int32[n, L], the characters of the context that a token is, -1 outside of it. Pieces begin doc_stride tokens apart,
  or closer where a row has less room.  UserError: a recipe that leaves no room.
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
  """The first and last token with a character of the answer, (-1, -1) when none has."""
  text, at = answer
  begin, end = at + len(text) - len(text.lstrip()), at + len(text.rstrip())
  tokens = np.flatnonzero((starts < ends) & (starts < end) & (ends > begin))
  return (int(tokens[0]), int(tokens[-1])) if tokens.size else (-1, -1)


def decode(task: Task, examples: list[Question], arrays: dict[str, np.ndarray], outputs) -> dict[str, str]:
  """{question id: answer}: the span of highest start plus end logit, over all pieces of the context.

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
    at = scores.argmax(axis=1)
    better = scores[rows, at] > best
    best[better], first[better], last[better] = scores[rows, at][better], at[better], at[better] + longer
  answers = {example.id: "" for example in examples}
  highest = np.full(len(examples), -np.inf)
  begins, finishes = arrays["char_start"][rows, first].tolist(), arrays["char_end"][rows, last].tolist()
  for row, i in enumerate(arrays["example"].tolist()):
    if best[row] > highest[i]:
      highest[i] = best[row]
      answers[examples[i].id] = examples[i].context[begins[row] : finishes[row]]
  return answers


def score(task: Task, examples: list[Question], predictions: dict[str, str], language: str) -> dict[str, float]:
  """{metric: mean over the questions} of task.metrics: f1 and exact_match by SQuAD's rules, mlqa_f1 and
  mlqa_exact_match by MLQA's. A question without a prediction counts 0."""
  pairs = [([text for text, _ in example.answers], predictions.get(example.id, "")) for example in examples]
  rules = {"": metrics.squad, "mlqa_": lambda golds, guess: metrics.mlqa(golds, guess, language)}
  result = {}
  for name in task.metrics:
    rule = "mlqa_" if name.startswith("mlqa_") else ""
    which = ("exact_match", "f1").index(name.removeprefix(rule))
    result[name] = float(np.mean([rules[rule](golds, guess)[which] for golds, guess in pairs])) if pairs else 0.0
  return result


# --- tasks -------------------------------------------------------------------------------------------------------

_BY_SQUAD = ("f1", "exact_match")
_XQUAD_LANGUAGES = names("ar de el en es hi ro ru th tr vi zh")
register(Task("squad", SPAN, (), _BY_SQUAD, ("en",), RECIPE, read))
register(Task("mlqa", SPAN, (), ("mlqa_f1", "mlqa_exact_match"), names("ar de en es hi vi zh"), RECIPE, read))
register(Task("xquad", SPAN, (), _BY_SQUAD, _XQUAD_LANGUAGES, RECIPE, read))
register(Task("tydiqa", SPAN, (), _BY_SQUAD, tuple(TYDI_NAMES), RECIPE, read))
# English TyDi QA is open and small (3696 questions): training where SQuAD is not at hand.
register(Task("tydiqa_xquad", SPAN, (), _BY_SQUAD, _XQUAD_LANGUAGES, RECIPE, read))
