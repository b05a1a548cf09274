"""Scores of downstream tasks, from gold and guessed values; all between 0 and 1, correlations between -1 and 1.

NumPy and the standard library only. Averaging over languages and percent are the caller's.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

# MLQA's evaluation: words dropped from an answer, by language. Arabic as it stands there, so every ال goes; hi and zh none.
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


def _pair(gold: Sequence, guess: Sequence) -> tuple[np.ndarray, np.ndarray]:
  if len(gold) != len(guess):
    raise ValueError(f"{len(gold)} gold values and {len(guess)} guessed ones")
  return np.asarray(gold), np.asarray(guess)


def accuracy(gold: Sequence, guess: Sequence) -> float:
  """Share of equal values; 0.0 of none."""
  gold, guess = _pair(gold, guess)
  return float((gold == guess).mean()) if gold.size else 0.0


def f1(gold: Sequence[int], guess: Sequence[int]) -> float:
  """F1 of the label 1; 0.0 where neither has it."""
  gold, guess = _pair(gold, guess)
  both, either = int(((gold == 1) & (guess == 1)).sum()), int((gold == 1).sum() + (guess == 1).sum())
  return 2 * both / either if either else 0.0


def matthews(gold: Sequence[int], guess: Sequence[int]) -> float:
  """Matthews correlation of any number of classes (Gorodkin 2004); 0.0 where either is constant or empty."""
  gold, guess = _pair(gold, guess)
  classes = np.union1d(gold, guess)
  told, made = ((classes[:, None] == labels).sum(axis=1).astype(float) for labels in (gold, guess))
  n = float(len(gold))
  spread = np.sqrt(n * n - told @ told) * np.sqrt(n * n - made @ made)
  return float((n * (gold == guess).sum() - told @ made) / spread) if spread else 0.0


def pearson(gold: Sequence[float], guess: Sequence[float]) -> float:
  """Linear correlation; 0.0 where either is constant, empty or not finite."""
  x, y = (values.astype(float) for values in _pair(gold, guess))
  if not x.size or not (np.isfinite(x).all() and np.isfinite(y).all()) or not np.ptp(x) or not np.ptp(y):
    return 0.0
  x, y = x - x.mean(), y - y.mean()
  spread = np.sqrt(x @ x) * np.sqrt(y @ y)
  return float(np.clip(x @ y / spread, -1, 1)) if spread else 0.0


def spearman(gold: Sequence[float], guess: Sequence[float]) -> float:
  """Correlation of ranks, ties at their mean rank; 0.0 as pearson's."""
  x, y = (values.astype(float) for values in _pair(gold, guess))
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    return 0.0
  return pearson(_ranks(x), _ranks(y))


def _ranks(values: np.ndarray) -> np.ndarray:
  _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[place]


# --- tags --------------------------------------------------------------------------------------------------------


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
  """{(type, first word, word after the last)} of B-, I- and O tags as conlleval reads them.

  An I- after O or after another type begins a span: what a model breaks is repaired, not dropped.
  """
  found, kind, start = set(), None, 0
  for at, tag in enumerate((*tags, "O")):
    mark, _, of = tag.partition("-")
    of = None if mark == "O" else of
    if kind is not None and (mark == "B" or of != kind):
      found.add((kind, start, at))
      kind = None
    if kind is None and of is not None:
      kind, start = of, at
  return found


def span_f1(gold_tags: Sequence[Sequence[str]], guess_tags: Sequence[Sequence[str]]) -> dict[str, float]:
  """{"f1", "precision", "recall"} over the spans of all sentences together, as seqeval's default and conlleval.

  A span counts when type and both ends are right. Without any span to divide by, 0.0.
  """
  right = told = made = 0
  for gold, guess in _sentences(gold_tags, guess_tags):
    gold, guess = spans(gold), spans(guess)
    right, told, made = right + len(gold & guess), told + len(gold), made + len(guess)
  return {
    "f1": 2 * right / (told + made) if told + made else 0.0,
    "precision": right / made if made else 0.0,
    "recall": right / told if told else 0.0,
  }


def word_accuracy(gold_tags: Sequence[Sequence[str]], guess_tags: Sequence[Sequence[str]]) -> float:
  """Share of all words with the right tag; 0.0 of none."""
  pairs = [pair for gold, guess in _sentences(gold_tags, guess_tags) for pair in zip(gold, guess)]
  return sum(gold == guess for gold, guess in pairs) / len(pairs) if pairs else 0.0


def _sentences(gold_tags, guess_tags):
  if len(gold_tags) != len(guess_tags):
    raise ValueError(f"{len(gold_tags)} gold sentences and {len(guess_tags)} guessed ones")
  for i, (gold, guess) in enumerate(zip(gold_tags, guess_tags)):
    if len(gold) != len(guess):
      raise ValueError(f"sentence {i}: {len(gold)} gold tags and {len(guess)} guessed ones")
    yield gold, guess


# --- answers -----------------------------------------------------------------------------------------------------


def squad(gold_answers: Sequence[str], guess: str) -> tuple[float, float]:
  """(exact match, word F1) of an answer, each the best over the accepted ones, by SQuAD 1.1's rules (also XQuAD's).

  Lower case, no ASCII punctuation, no a, an, the; words between spaces. No accepted answer: (0.0, 0.0).
  """
  return _best([_squad_words(answer) for answer in gold_answers], _squad_words(guess))


def mlqa(gold_answers: Sequence[str], guess: str, language: str) -> tuple[float, float]:
  """(exact match, word F1) as squad, by MLQA's rules for its 7 languages (mlqa_evaluation_v1.py).

  Beside squad's: Unicode punctuation goes too, articles are those of the language, each Chinese character is a word.
  Other languages, Thai and Japanese among them, have no rules there and get SQuAD's, as XQuAD does.
  """
  if language not in ARTICLES:
    return squad(gold_answers, guess)
  return _best([_mlqa_words(answer, language) for answer in gold_answers], _mlqa_words(guess, language))


def _squad_words(text: str) -> list[str]:
  text = "".join(char for char in text.lower() if char not in string.punctuation)
  return re.sub(ARTICLES["en"], " ", text).split()


def _mlqa_words(text: str, language: str) -> list[str]:
  text = "".join(char for char in text.lower() if char not in string.punctuation and unicodedata.category(char)[0] != "P")
  if ARTICLES[language]:
    text = re.sub(ARTICLES[language], " ", text)
  return (HAN.sub(r" \1 ", text) if language == "zh" else text).split()


def _best(golds: list[list[str]], guess: list[str]) -> tuple[float, float]:
  """The best exact match and F1 of a bag of words. F1 of two empty answers is 0, as in SQuAD 1.1, their match 1."""
  exact = best = 0.0
  for gold in golds:
    same = sum((Counter(gold) & Counter(guess)).values())
    exact = max(exact, float(gold == guess))
    best = max(best, 2 * same / (len(gold) + len(guess)) if same else 0.0)
  return exact, best
