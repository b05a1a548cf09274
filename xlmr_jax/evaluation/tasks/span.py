"""Tasks whose answer is a span of a context: SQuAD 1.1, MLQA, XQuAD, TyDi QA GoldP.

Owns the way from questions to rows and back, and the declarations. Answers are exact characters of the context.
"""

import numpy as np

from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import metrics
from xlmr_jax.evaluation.tasks.reading import pad
from xlmr_jax.evaluation.tasks.registry import Question, Recipe, Task, names, register
from xlmr_jax.evaluation.tasks.span_files import TYDI_NAMES, read
from xlmr_jax.ids import BOS, EOS, PAD
from xlmr_jax.model.task_head import SPAN

# XTREME's recipe (github.com/google-research/xtreme, train_qa.sh and run_squad.py). Its warmup of 500 steps is 6 % of the
# three epochs of SQuAD. XLM-R's recipe is not published; MLQA's authors trained XLM with the same rate, batch and epochs
# (github.com/facebookresearch/MLQA/issues/9).
RECIPE = Recipe(
  lr=3e-5, batch=32, epochs=3, max_len=384, warmup=0.06, weight_decay=1e-4, doc_stride=128, max_question=64, max_answer=30
)


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
    before = [BOS, *asks, *[EOS] * tokenizer.separators]
    room = recipe.max_len - len(before) - 1
    outside = np.full(len(before), -1, np.int32)
    first, last = _tokens_of(example.answers[0], starts, ends) if example.answers else (-1, -1)
    if example.answers and first < 0:  # Training would take it for a question whose answer is in another piece.
      raise UserError(f"{task.name}, question {example.id!r}: the answer {example.answers[0][0]!r} is not at offset "
                      f"{example.answers[0][1]} of its context, or has no token; mend or remove it")  # fmt: skip
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
# SQuAD and TyDi QA are published without the answers of their test sets.
register(Task("squad", SPAN, (), _BY_SQUAD, ("en",), RECIPE, read, test_split="dev"))
register(Task("mlqa", SPAN, (), ("mlqa_f1", "mlqa_exact_match"), names("ar de en es hi vi zh"), RECIPE, read))
register(Task("xquad", SPAN, (), _BY_SQUAD, _XQUAD_LANGUAGES, RECIPE, read))
register(Task("tydiqa", SPAN, (), _BY_SQUAD, tuple(TYDI_NAMES), RECIPE, read, test_split="dev"))
# English TyDi QA is open and small (3696 questions), to train on where SQuAD is not at hand.
register(Task("tydiqa_xquad", SPAN, (), _BY_SQUAD, _XQUAD_LANGUAGES, RECIPE, read))
