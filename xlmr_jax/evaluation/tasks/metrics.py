"""Scores of downstream tasks, from gold and predicted values: between 0 and 1, correlations between -1 and 1.

Averages over languages are the caller's, and so are percents.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

# The words that MLQA's evaluation drops from an answer, by language; none in Hindi and Chinese. The pattern for Arabic is as
# it stands there, although it drops every ال (github.com/facebookresearch/MLQA, mlqa_evaluation_v1.py).
ARTICLES = {
  "en": r"\b(a|an|the)\b",
  "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
  "vi": r"\b(của|là|cái|chiếc|những)\b",
  "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
  "ar": r"\sال^|ال",
  "hi": None,
  "zh": None,
}
HAN = re.compile(r"([\u4e00-\u9fa5])")


def _arrays(gold: Sequence | np.ndarray, predicted: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Both as arrays. ValueError: their lengths differ."""
  if len(gold) != len(predicted):
    raise ValueError(f"{len(gold)} gold values and {len(predicted)} predicted ones")
  return np.asarray(gold), np.asarray(predicted)


def accuracy(gold: Sequence, predicted: Sequence) -> float:
  """The share of equal values; 0.0 where there are none."""
  x, y = _arrays(gold, predicted)
  return float((x == y).mean()) if x.size else 0.0


def f1(gold: Sequence[int], predicted: Sequence[int]) -> float:
  """F1 of the label 1; 0.0 where neither has it."""
  x, y = _arrays(gold, predicted)
  both, either = int(((x == 1) & (y == 1)).sum()), int((x == 1).sum() + (y == 1).sum())
  return 2 * both / either if either else 0.0


def matthews(gold: Sequence[int], predicted: Sequence[int]) -> float:
  """The Matthews correlation of any number of classes (Gorodkin 2004); 0.0 where either is constant or empty."""
  x, y = _arrays(gold, predicted)
  classes = np.union1d(x, y)
  counts_x, counts_y = ((classes[:, None] == labels).sum(axis=1).astype(float) for labels in (x, y))
  n = float(len(x))
  spread = np.sqrt(n * n - counts_x @ counts_x) * np.sqrt(n * n - counts_y @ counts_y)
  return float((n * (x == y).sum() - counts_x @ counts_y) / spread) if spread else 0.0


def pearson(gold: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> float:
  """The linear correlation; 0.0 where either is constant, empty or not finite."""
  x, y = (values.astype(float) for values in _arrays(gold, predicted))
  if not x.size or not (np.isfinite(x).all() and np.isfinite(y).all()) or not np.ptp(x) or not np.ptp(y):
    return 0.0
  x, y = x - x.mean(), y - y.mean()
  spread = np.sqrt(x @ x) * np.sqrt(y @ y)
  return float(np.clip(x @ y / spread, -1, 1)) if spread else 0.0


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
  """The correlation of ranks, where ties have their mean rank; 0.0 where pearson's is."""
  x, y = (values.astype(float) for values in _arrays(gold, predicted))
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    return 0.0
  return pearson(_ranks(x), _ranks(y))


def _ranks(values: np.ndarray) -> np.ndarray:
  _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[index]


# --- tags --------------------------------------------------------------------------------------------------------


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
  """{(type, first word, word after the last)} of B-, I- and O tags as conlleval reads them.

  An I- after O or after another type begins a span, so that tags which a model puts in a wrong order still count.
  """
  found: set[tuple[str, int, int]] = set()
  open_type, start = None, 0
  for position, tag in enumerate((*tags, "O")):
    mark, _, kind = tag.partition("-")
    entity_type = None if mark == "O" else kind
    if open_type is not None and (mark == "B" or entity_type != open_type):
      found.add((open_type, start, position))
      open_type = None
    if open_type is None and entity_type is not None:
      open_type, start = entity_type, position
  return found


def span_f1(gold_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]) -> dict[str, float]:
  """{"f1", "precision", "recall"} over the spans of all sentences together, as seqeval's default and conlleval.

  A span counts when its type and both its ends are right. A value is 0.0 where there is no span to divide by.
  """
  right = gold_count = predicted_count = 0
  for gold, predicted in _sentences(gold_tags, predicted_tags):
    gold_spans, predicted_spans = spans(gold), spans(predicted)
    right += len(gold_spans & predicted_spans)
    gold_count += len(gold_spans)
    predicted_count += len(predicted_spans)
  return {
    "f1": 2 * right / (gold_count + predicted_count) if gold_count + predicted_count else 0.0,
    "precision": right / predicted_count if predicted_count else 0.0,
    "recall": right / gold_count if gold_count else 0.0,
  }


def word_accuracy(gold_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]) -> float:
  """The share of all words that have the right tag; 0.0 where there are none."""
  pairs = [pair for gold, predicted in _sentences(gold_tags, predicted_tags) for pair in zip(gold, predicted)]
  return sum(gold == predicted for gold, predicted in pairs) / len(pairs) if pairs else 0.0


def _sentences(
  gold_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
  """Yields the gold and the predicted tags of each sentence. ValueError: their numbers differ."""
  if len(gold_tags) != len(predicted_tags):
    raise ValueError(f"{len(gold_tags)} gold sentences and {len(predicted_tags)} predicted ones")
  for i, (gold, predicted) in enumerate(zip(gold_tags, predicted_tags)):
    if len(gold) != len(predicted):
      raise ValueError(f"sentence {i}: {len(gold)} gold tags and {len(predicted)} predicted ones")
    yield gold, predicted


# --- answers -----------------------------------------------------------------------------------------------------


def squad(gold_answers: Sequence[str], predicted: str) -> tuple[float, float]:
  """(exact match, word F1) of an answer, each the best over the accepted answers, by the rules of SQuAD 1.1 and XQuAD.

  Case, ASCII punctuation and the words a, an and the do not count; words stand between spaces. Without an accepted answer
  both are 0.0.
  """
  return _best([_squad_words(answer) for answer in gold_answers], _squad_words(predicted))


def mlqa(gold_answers: Sequence[str], predicted: str, language: str) -> tuple[float, float]:
  """(exact match, word F1) as squad's, by MLQA's rules for its 7 languages (mlqa_evaluation_v1.py).

  They differ from squad's in that no Unicode punctuation counts, the articles are those of the language, and each Chinese
  character is a word. Other languages, such as Thai and Japanese, have no rules there and get SQuAD's, as in XQuAD.
  """
  if language not in ARTICLES:
    return squad(gold_answers, predicted)
  return _best([_mlqa_words(answer, language) for answer in gold_answers], _mlqa_words(predicted, language))


def _squad_words(text: str) -> list[str]:
  text = "".join(char for char in text.lower() if char not in string.punctuation)
  return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _mlqa_words(text: str, language: str) -> list[str]:
  text = "".join(char for char in text.lower() if char not in string.punctuation and unicodedata.category(char)[0] != "P")
  articles = ARTICLES[language]
  if articles:
    text = re.sub(articles, " ", text)
  return (HAN.sub(r" \1 ", text) if language == "zh" else text).split()


def _best(accepted: list[list[str]], predicted: list[str]) -> tuple[float, float]:
  """The best exact match and F1 of the bags of words. Two empty answers match, but their F1 is 0, as in SQuAD 1.1."""
  exact = best = 0.0
  for gold in accepted:
    same = sum((Counter(gold) & Counter(predicted)).values())
    exact = max(exact, float(gold == predicted))
    best = max(best, 2 * same / (len(gold) + len(predicted)) if same else 0.0)
  return exact, best
