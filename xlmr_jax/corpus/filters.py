"""Which documents of a language are not text: too short, signs, repetitions, keywords, words in random order, noise.

Every limit follows by a formula from the distribution of the language itself, or is one that no language's text comes near.
So there is no table of numbers by language, and a language that nobody looked at has its limits too.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlmr_jax.corpus.characters import (
  DIGIT,
  LETTER,
  MARK,
  OTHER,
  PUNCTUATION,
  SPACE,
  SYMBOL,
  classes,
  code_units,
  groups,
  unspaced,
)
from xlmr_jax.corpus.paragraphs import LETTERS_OF_UNSPACED
from xlmr_jax.corpus.profile import (
  LEAST_DOCUMENTS,
  LEAST_WORDS,
  Profile,
  Scores,
  in_random_order,
  letters_in_use,
  make_profile,
  score,
  with_noise,
)
from xlmr_jax.corpus.words import Words, combined, mixed, words_of

# A feature is refused above its limit (below it, for letters): the median of the language plus SPREADS times its robust
# standard deviation, but never below the floor, which ordinary text of any language stays under. (The numbers are ours.)
SPREADS = 8.0
LEAST_LETTERS = 20  # of a document; a letter of a script without spaces counts as three
FLOORS = {
  "signs": 0.35,  # share of punctuation and symbols among the characters that are not blank
  "digits": 0.35,  # share of digits among them
  "repeated_phrases": 0.40,  # share of the words that lie in a phrase of five words which the document has already had
  "most_frequent_word": 0.30,  # its share of the words
}
_PHRASE = 5  # words, or _PHRASE_OF_LETTERS letters of a script without spaces
_PHRASE_OF_LETTERS = 16
# Words of a sample from which on it knows the language. A smaller one may just not know the words of a subject. (Ours.)
KNOWS_THE_LANGUAGE = 150_000
_MANY_LETTERS = 60  # Alphabets have 15 to 35 by that measure, Ethiopic's syllables 90, Hangul's 300. (Ours.)
_UNKNOWN_SUBJECT = 5.0  # standard deviations of the prior
_ROUNDS = 30  # of expectation maximisation
_LONG = 300  # characters of a document from which on it shows what spoiling changes
_LEAST_WORDS = 30  # of a document before repetition means anything
PRIOR_SPREADS = 8.0  # standard deviations on either side of the median
LEAST_PRIOR_SPREAD = 0.25  # nats; the documents of a sample may be more alike than those of a language
# The logarithm of how much likelier the score of a document must be for noise, or for random order, than for text. (Ours.)
ODDS = {"spelling": 1.5, "order": 1.5}
# And its score must lie so many standard deviations below the median of the language.
# Text and spoilt text must be so many standard deviations apart; else too much text would look spoilt.
LEAST_APART = {"spelling": 1.8, "order": 1.5}
LEAST_SPREADS = {"spelling": 2.5, "order": 1.5}
REASONS = ("short", *FLOORS, "spelling", "order", "prior_low", "prior_high")


@dataclasses.dataclass(frozen=True)
class Usual:
  """What is usual for a score in a language: its median and the standard deviation between documents.

  spoilt, spoilt_spread: the same for documents of the sample after they were spoilt as the score is to notice it.
  """

  median: float
  spread: float
  spoilt: float = 0.0
  spoilt_spread: float = 0.0


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of one language."""

  documents: int  # in the sample
  words: int
  features: dict[str, float]
  scores: dict[str, Usual]  # empty if the sample is too small to say what is usual

  def to_json(self) -> dict[str, Any]:
    """The limits as JSON, rounded as they are printed."""
    return {
      "sample": {"documents": self.documents, "words": self.words},
      "features": {"letters": LEAST_LETTERS, **{name: round(value, 4) for name, value in self.features.items()}},
      "scores": {
        name: {key: round(value, 4) for key, value in dataclasses.asdict(usual).items()}
        for name, usual in self.scores.items()
      },
    }

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> "Limits":
    """The limits of to_json."""
    features = {name: limit for name, limit in value["features"].items() if name != "letters"}
    return cls(
      value["sample"]["documents"],
      value["sample"]["words"],
      features,
      {name: Usual(**usual) for name, usual in value["scores"].items()},
    )


def learn(texts: Sequence[str]) -> tuple[Profile, Limits, np.ndarray]:
  """The profile and the limits of a language from a sample of its documents, and which of these the profile was made of.

  What the sample's own limits refuse is left out of it once, because a crawl may be spoilt to a good part.
  """
  profile, limits, reasons = _learn_all(texts)
  kept = np.array([not reason for reason in reasons], bool)
  if not limits.scores or not LEAST_DOCUMENTS <= np.count_nonzero(kept) < len(texts):
    return profile, limits, np.ones(len(texts), bool)
  profile, limits, _ = _learn_all([text for text, is_kept in zip(texts, kept) if is_kept])
  return profile, limits, kept


def _learn_all(texts: Sequence[str]) -> tuple[Profile, Limits, list[str]]:
  """The profile, the limits, and why each text is refused by them."""
  profile = make_profile(texts)
  own_words = words_of(texts)
  found = features(texts, own_words)
  limits = {}
  for name, floor in FLOORS.items():
    usual = _usual(found[name][found["words"] >= _LEAST_WORDS] if name in _WORD_FEATURES else found[name])
    limits[name] = round(min(1.0, max(floor, usual.median + SPREADS * usual.spread)), 4)
  words = int(found["words"].sum())
  usual_scores: dict[str, Usual] = {}
  scores: dict[str, Scores] = {}
  units, _ = code_units(texts)
  unspaced_share = float(unspaced()[units].sum() / max(1, np.count_nonzero(classes()[units] == LETTER)))
  if len(texts) >= LEAST_DOCUMENTS and words >= LEAST_WORDS:
    scores = score(texts, own_words, profile, sampled=True)
    # What spoilt documents look like is measured on one half of the sample, by the counts of the other half.
    half, other = make_profile(texts[::2]), np.arange(1, len(texts), 2)
    long = other[[len(texts[i]) >= _LONG for i in other.tolist()]]
    other = long if long.size >= LEAST_DOCUMENTS // 4 else other
    for name, value in scores.items():
      if np.count_nonzero(~np.isnan(value.mean)) < LEAST_DOCUMENTS:
        continue
      if name == "order" and unspaced_share > 0.3:
        continue  # The letters of scripts without spaces are no words that could be put in another order.
      if name == "spelling" and words < KNOWS_THE_LANGUAGE and letters_in_use(profile) > _MANY_LETTERS:
        continue  # A small sample has not seen most pairs of letters where there are hundreds of them, as in Korean.
      if name == "prior":
        usual_scores[name] = _usual_score(value)
        continue
      these = [texts[i] for i in other.tolist()]
      as_they_are, spoilt = (
        score(part, words_of(part), half, sampled=False, names=(name,))[name] for part in (these, _SPOIL[name](these))
      )
      # The counts of the whole sample give other scores than those of a half, to noise like to text. To words in random
      # order they give 0, however much is known of the language.
      shift = _median(value.mean[other] - as_they_are.mean) if name == "spelling" else 0.0
      usual_scores[name] = _usual_in_mixture(value, Usual(_median(spoilt.mean) + shift, _usual_score(spoilt).spread))
  # Rounded as every later reader sees them.
  learnt = Limits.from_json(Limits(len(texts), words, limits, usual_scores).to_json())
  return profile, learnt, _reasons(found, scores, learnt)


def refuse(texts: Sequence[str], profile: Profile, limits: Limits, sampled: np.ndarray) -> list[str]:
  """Why each of D texts is refused, "" for one that stays.

  sampled: bool[D], which of them are part of the sample that the profile was made of.
  """
  return [reason for group in groups(texts) for reason in _refuse_group(texts[group], profile, limits, sampled[group])]


def _refuse_group(texts: Sequence[str], profile: Profile, limits: Limits, sampled: np.ndarray) -> list[str]:
  words = words_of(texts)
  scores = {name: Scores(np.full(len(texts), np.nan), np.zeros(len(texts))) for name in limits.scores}
  for part in (sampled, ~sampled):
    which = np.flatnonzero(part)
    if scores and which.size:
      these = [texts[i] for i in which.tolist()]
      own_words = words if part.all() else words_of(these)
      for name, value in score(these, own_words, profile, sampled=bool(sampled[which[0]]), names=tuple(scores)).items():
        scores[name].mean[which], scores[name].error[which] = value.mean, value.error
  return _reasons(features(texts, words), scores, limits)


def _reasons(found: dict[str, np.ndarray], scores: dict[str, Scores], limits: Limits) -> list[str]:
  """Why each document is refused by its features and scores."""
  reasons = np.full(found["words"].size, "", dtype=f"U{max(map(len, REASONS))}")
  for name in limits.scores:
    for reason, is_refused in _refused_by(name, scores, limits).items():
      reasons[is_refused] = reason
  for name, limit in limits.features.items():
    reasons[(found[name] > limit) & ((found["words"] >= _LEAST_WORDS) | (name not in _WORD_FEATURES))] = name
  reasons[found["letters"] < LEAST_LETTERS] = "short"
  return reasons.tolist()


_WORD_FEATURES = ("repeated_phrases", "most_frequent_word")
_SPOIL = {"spelling": with_noise, "order": in_random_order}


def _usual_in_mixture(scores: Scores, spoilt: Usual) -> Usual:
  """What is usual for a score among documents of which any part may be spoilt.

  The scores are taken for a mixture of two normal distributions, of which that of spoilt documents is known. The other one
  is fitted by expectation maximisation, from the better half of the documents on.
  """
  seen = ~np.isnan(scores.mean)
  values, errors = scores.mean[seen], scores.error[seen]
  better = values[values >= np.median(values)]
  median = float(np.median(better))
  spread = float(max(2 * 1.4826 * np.median(np.abs(better - median)), 1e-3))
  share = 0.5
  for _ in range(_ROUNDS):
    # A document that looks even worse than spoilt ones is as spoilt as these.
    z = np.maximum(values - spoilt.median, 0) / np.hypot(spoilt.spread, errors)
    as_spoilt = share * np.exp(-0.5 * z**2) / np.hypot(spoilt.spread, errors)
    width = np.hypot(spread, errors)
    as_text = (1 - share) * np.exp(-0.5 * ((values - median) / width) ** 2) / width
    weights = (as_text + 1e-12) / (as_text + as_spoilt + 2e-12)
    share = float(np.clip(1 - weights.mean(), 0.001, 0.9))
    median = float(np.average(values, weights=weights))
    variance = float(np.average((values - median) ** 2, weights=weights))
    noise = float(np.average(errors**2, weights=weights))
    spread = math.sqrt(max(variance - noise, 0.1 * variance, 1e-8))
  return Usual(median, spread, spoilt.median, spoilt.spread)


def _median(values: np.ndarray) -> float:
  return float(np.nanmedian(values)) if np.any(~np.isnan(values)) else 0.0


def features(texts: Sequence[str], words: Words) -> dict[str, np.ndarray]:
  """Numbers about D texts and their words, float64[D] each: FLOORS, "letters" and "words"."""
  units, bounds = code_units(texts)
  documents = len(texts)
  kind = classes()[units]
  document = np.repeat(np.arange(documents), np.diff(bounds))
  counts = np.bincount(document * (OTHER + 1) + kind, minlength=documents * (OTHER + 1)).reshape(documents, OTHER + 1)
  letters = counts[:, LETTER] + counts[:, MARK] + counts[:, DIGIT]
  if units.max(initial=0) >= 0xE00:
    letters = letters + (LETTERS_OF_UNSPACED - 1) * np.bincount(document, unspaced()[units], minlength=documents)
  visible = np.maximum(counts.sum(1) - counts[:, SPACE], 1)
  count = np.diff(words.starts)
  word_documents = np.repeat(np.arange(documents), count)
  unspaced_words = np.bincount(word_documents, words.lengths == 1, minlength=documents) > 0.5 * count
  repeated = _repeated_phrases(words.hashes, word_documents, documents, _PHRASE)
  if unspaced_words.any():
    repeated = np.where(
      unspaced_words, _repeated_phrases(words.hashes, word_documents, documents, _PHRASE_OF_LETTERS), repeated
    )
  return {
    "letters": letters.astype(float),
    "words": count.astype(float),
    "signs": (counts[:, PUNCTUATION] + counts[:, SYMBOL]) / visible,
    "digits": counts[:, DIGIT] / visible,
    "repeated_phrases": repeated / np.maximum(count, 1),
    "most_frequent_word": _most_frequent(words.hashes, word_documents, documents) / np.maximum(count, 1),
  }


def _most_frequent(hashes: np.ndarray, document: np.ndarray, documents: int) -> np.ndarray:
  """How often the most frequent word of each document occurs in it."""
  result = np.zeros(documents)
  keys = np.sort(mixed(hashes + document.astype(np.uint64)) >> np.uint64(24) | document.astype(np.uint64) << np.uint64(40))
  if keys.size:
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    np.maximum.at(result, (keys[first] >> np.uint64(40)).astype(np.int64), np.diff(np.append(first, keys.size)))
  return result


def _repeated_phrases(hashes: np.ndarray, document: np.ndarray, documents: int, size: int) -> np.ndarray:
  """How many words of each document lie in a phrase of `size` words that it has already had."""
  if hashes.size < size:
    return np.zeros(documents)
  phrase = hashes[: hashes.size - size + 1]
  for offset in range(1, size):
    phrase = combined(phrase, hashes[offset : hashes.size - size + 1 + offset])
  where = np.flatnonzero(document[: phrase.size] == document[size - 1 :])
  phrase, whose = phrase[where], document[where]
  order = np.argsort(phrase + whose.astype(np.uint64), kind="stable")  # Equal phrases of a document are neighbours now.
  same = (phrase[order][1:] == phrase[order][:-1]) & (whose[order][1:] == whose[order][:-1])
  starts = where[order[1:][same]]
  again = np.zeros(hashes.size + 1, np.int64)
  np.add.at(again, starts, 1)
  np.add.at(again, starts + size, -1)
  return np.bincount(document, np.cumsum(again[:-1]) > 0, minlength=documents)


def _usual(values: np.ndarray) -> Usual:
  """The median, and the standard deviation of a normal distribution with the same quartiles around it."""
  values = values[~np.isnan(values)]
  if not values.size:
    return Usual(0.0, 0.0)
  median = float(np.median(values))
  return Usual(median, float(1.4826 * np.median(np.abs(values - median))))


def _usual_score(scores: Scores) -> Usual:
  """What is usual for a score without the part of the spread that comes from short documents."""
  usual = _usual(scores.mean)
  noise = float(np.nanmedian(scores.error[~np.isnan(scores.mean)]))
  return Usual(usual.median, max(math.sqrt(max(usual.spread**2 - noise**2, 0.0)), 0.3 * usual.spread, 1e-6))


def _refused_by(name: str, all_scores: dict[str, Scores], limits: Limits) -> dict[str, np.ndarray]:
  """By reason, which documents a score refuses. A document without a score is not refused."""
  scores, usual = all_scores[name], limits.scores[name]
  knows = limits.words >= KNOWS_THE_LANGUAGE
  spread = np.hypot(usual.spread, scores.error) + 1e-9
  z = np.nan_to_num((scores.mean - usual.median) / spread)
  if name == "prior":
    z = z * spread / np.maximum(spread, LEAST_PRIOR_SPREAD)
    return {"prior_low": (z < -PRIOR_SPREADS) & knows, "prior_high": z > PRIOR_SPREADS}
  change = usual.median - usual.spoilt
  if change < LEAST_APART[name] * usual.spread:  # This score tells too little in this language.
    return {}
  spoilt_spread = np.hypot(usual.spoilt_spread, scores.error) + 1e-9
  as_spoilt = -0.5 * (np.maximum(scores.mean - usual.spoilt, 0) / spoilt_spread) ** 2 - np.log(spoilt_spread)
  as_text = -0.5 * z**2 - np.log(spread)
  odds = np.nan_to_num(as_spoilt - as_text, nan=-np.inf)
  refused = (odds > ODDS[name]) & (scores.mean < (usual.median + usual.spoilt) / 2) & (z < -LEAST_SPREADS[name])
  if name == "order" and not knows and "prior" in limits.scores:
    prior = limits.scores["prior"]
    refused &= all_scores["prior"].mean > prior.median - _UNKNOWN_SUBJECT * max(prior.spread, 0.1)
  return {name: refused}
