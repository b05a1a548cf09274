"""How the guesses of an identifier become the language of a document and of its paragraphs. Knows no model.

A long document is looked at in windows, and paragraph by paragraph only where a window is not all in one language.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

from xlmr_jax.corpus.language_id.scripts import is_possible
from xlmr_jax.corpus.languages import UNKNOWN, normal_code

# Documents in these languages are often taken for one another, so a source's label for one is not overruled by the other.
# Chinese in its two forms is not among them: which characters a text has is counted, and that is clearer than most labels,
# many of which say "zh" for both.
CONFUSABLE = {code: group for group in (("bs", "hr", "sr"), ("id", "ms"), ("da", "no"), ("my", "my_zaw")) for code in group}

_WINDOW = 1000  # characters, about: a long document is looked at in windows of this size
_MOST = 0.8  # of a document that must clearly be in its language
_SHORTEST = 80  # bytes: a shorter paragraph is not called foreign
_SHORTEST_IN_DOUBT = 200  # bytes: nor is a shorter one by an answer that is not clear


@dataclasses.dataclass(frozen=True)
class Identification:
  """What an identifier says of a document."""

  language: str  # of most of the document; "und" if none could be found
  sure: bool  # two identifiers agree, or one is so clear that the other need not be asked, or it is as the source says
  paragraphs: list[str]  # the language of each; the document's where a paragraph is too short or too unclear to tell


class Guess(NamedTuple):
  """What is said of one text."""

  language: str
  share: float  # how much of the text seems to be in it, 0 to 1
  clear: bool  # nobody else need be asked
  pure: bool = False  # nearly all of the text is in one language, so that its paragraphs need not be looked at
  fair: bool = True  # it stands where nobody else knows the language


class Identifier:
  """Finds languages. It can be pickled, and loads its model in each process when that first asks it something."""

  def _first(self, texts: Sequence[str]) -> list[Guess]:
    """What is said of each text at first sight."""
    raise NotImplementedError

  def _second(self, texts: Sequence[str], guesses: Sequence[Guess]) -> list[Guess]:
    """What is said of each text for which the first guess was not clear."""
    return list(guesses)

  def document(self, paragraphs: Sequence[str], label: str = "") -> Identification:
    """The language of a document. label: what its source says, which is believed unless the text clearly is in another."""
    return self.documents([(paragraphs, label)])[0]

  def documents(self, batch: Sequence[tuple[Sequence[str], str]]) -> list[Identification]:
    """document(paragraphs, label) of each pair; faster than one by one, and with the same results."""
    cuts = [_windows(paragraphs) for paragraphs, _ in batch]
    parts = ["\n".join(text[cut.start : cut.stop]) for (text, _), windows in zip(batch, cuts) for cut in windows]
    guesses = iter(zip(parts, self._first(parts)))
    by_window = [[next(guesses) for _ in windows] for windows in cuts]
    texts = [parts[0][0] if len(parts) == 1 else "\n".join(text for text, _ in parts) for parts in by_window]
    wholes = self._settle(texts, [_combine(parts) for parts in by_window])
    wholes = [_with_label(whole, text, label_code(label)) for whole, text, (_, label) in zip(wholes, texts, batch)]

    unclear = [
      (document, index)
      for document, (whole, windows, parts) in enumerate(zip(wholes, cuts, by_window))
      if len(batch[document][0]) > 1
      for cut, (_, guess) in zip(windows, parts)
      for index in cut
      if len(batch[document][0][index].encode("utf-8", "replace")) >= _SHORTEST
      # Beside letters of three bytes, a line of Latin ones is too few bytes to make a window look mixed.
      if not guess.pure
      or (len(windows) > 1 and guess.language != whole.language)
      or not is_possible(whole.language, batch[document][0][index])
    ]
    paragraph_languages: dict[int, dict[int, str]] = {}
    texts = [batch[document][0][index] for document, index in unclear]
    expected = [wholes[document].language for document, _ in unclear]
    for (document, index), text, guess in zip(unclear, texts, self._settle(texts, self._first(texts), expected)):
      whole = wholes[document].language
      if guess.language == whole or guess.language in CONFUSABLE.get(whole, ()):
        paragraph_languages.setdefault(document, {})[index] = whole
      elif guess.clear or (guess.language != UNKNOWN and len(text.encode("utf-8", "replace")) >= _SHORTEST_IN_DOUBT):
        paragraph_languages.setdefault(document, {})[index] = guess.language
    found = []
    for document, (whole, (paragraphs, label)) in enumerate(zip(wholes, batch)):
      languages = paragraph_languages.get(document, {})
      language = whole.language
      if languages and not whole.clear and language != label_code(label):
        language = _majority(languages, paragraphs) or language
      found.append(Identification(language, whole.clear, _fill(languages, language, len(paragraphs))))
    return found

  def _settle(self, texts: Sequence[str], guesses: list[Guess], expected: Sequence[str] | None = None) -> list[Guess]:
    """The guesses, with a second one of each that is not clear, unless it is as expected."""
    indices = [
      index
      for index, guess in enumerate(guesses)
      if not guess.clear and not (expected and guess.language == expected[index])
    ]
    seconds = self._second([texts[index] for index in indices], [guesses[index] for index in indices])
    settled = list(guesses)
    for index, second in zip(indices, seconds):
      settled[index] = second
    return settled


def _combine(parts: Sequence[tuple[str, Guess]]) -> Guess:
  """The guess for a document from those for its windows: what most of its text is in, clear if most of it clearly is."""
  if len(parts) == 1:
    return parts[0][1]
  votes: dict[str, float] = {}
  for text, guess in parts:
    votes[guess.language] = votes.get(guess.language, 0.0) + len(text) * guess.share
  language = max(votes, key=lambda code: (code != UNKNOWN, votes[code]))
  whole = sum(len(text) for text, _ in parts)
  clear = sum(len(text) for text, guess in parts if guess.clear and guess.language == language)
  fair = sum(len(text) for text, guess in parts if guess.fair and guess.language == language)
  return Guess(language, votes[language] / whole, clear >= _MOST * whole, fair=fair >= _MOST * whole)


def _majority(languages: dict[int, str], paragraphs: Sequence[str]) -> str:
  """The language of the paragraphs that hold more than half of the characters; "" if there is none."""
  sizes: dict[str, int] = {}
  for index, language in languages.items():
    sizes[language] = sizes.get(language, 0) + len(paragraphs[index])
  most = max(sizes, key=sizes.__getitem__)
  return most if 2 * sizes[most] > sum(map(len, paragraphs)) else ""


def _windows(paragraphs: Sequence[str]) -> list[range]:
  """Successive paragraphs in windows of about _WINDOW characters; a last one below half of that joins the one before."""
  if sum(map(len, paragraphs)) < 1.5 * _WINDOW:
    return [range(len(paragraphs))]
  windows, start, size = [], 0, 0
  for end, paragraph in enumerate(paragraphs, 1):
    size += len(paragraph)
    if size >= _WINDOW:
      windows.append(range(start, end))
      start, size = end, 0
  if windows and size < _WINDOW / 2:
    windows[-1] = range(windows[-1].start, len(paragraphs))
  else:
    windows.append(range(start, len(paragraphs)))
  return windows


def _with_label(guess: Guess, text: str, label: str) -> Guess:
  """The guess, or the label that the source gave, where the guess does not clearly say otherwise."""
  if not label or label == UNKNOWN or not is_possible(label, text):
    return guess
  if label == guess.language:
    return guess._replace(clear=True)
  if guess.clear and guess.language not in CONFUSABLE.get(label, ()):
    return guess
  return guess._replace(language=label)


def _fill(languages: dict[int, str], document: str, count: int) -> list[str]:
  """The languages of `count` paragraphs. One that could not be told has that of both its neighbours, or the document's."""
  if not languages:
    return [document] * count
  filled = [document] * count
  indices = sorted(languages)
  for index, after in zip(indices, [*indices[1:], indices[-1]]):
    filled[index] = languages[index]
    if languages[index] == languages[after]:
      filled[index:after] = [languages[index]] * (after - index)
  return filled


@functools.lru_cache(10_000)  # A source may have any number of labels.
def label_code(label: str) -> str:
  return normal_code(label.removeprefix("__label__"))
