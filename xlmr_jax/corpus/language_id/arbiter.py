"""py3langid's model, which decides where CLD2 is unsure."""

import itertools
import unicodedata
from collections.abc import Sequence, Set

import numpy as np

from xlmr_jax.corpus.language_id.scripts import ANY_LETTER, CHINESE, chinese_writing, is_possible
from xlmr_jax.corpus.languages import UNKNOWN, normal_code
from xlmr_jax.errors import UserError

MISSING = "--language_id=cld2 needs pycld2 and py3langid, which xlmr_jax installs; run: pip install pycld2 py3langid"
_CHARACTERS = 400  # of a text; more do not change the arbiter's mind, but take longer


class Arbiter:
  """py3langid's model over some of its languages.

  Its automaton is walked here for many texts at a time, because py3langid's own loop over bytes is a fifth as fast.
  """

  def __init__(self, wanted: Set[str]):
    """wanted: codes of the languages that it may answer. Raises UserError: py3langid is missing."""
    try:
      from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
      raise UserError(MISSING) from None
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    kept = [index for index, code in enumerate(model.nb_classes) if normal_code(code) in wanted]
    self.codes = [normal_code(model.nb_classes[index]) for index in kept]
    self.known = frozenset(self.codes) | {"zh_Hant"}
    # [features, languages]: logarithms. A choice of columns is laid out by column, but rows are taken from it.
    self._weights = np.ascontiguousarray(np.asarray(model.nb_ptc)[:, kept], np.float32)
    self._prior = np.asarray(model.nb_pc)[kept].astype(np.float32)
    self._next = np.frombuffer(model.tk_nextmove, np.dtype(model.tk_nextmove.typecode)).astype(np.int32)
    self._row = np.asarray(model.tk_row, np.int32) << 8  # [states]: where a state's 256 next ones begin
    self._feature = np.asarray(model.tk_output, np.int32)  # [states]: the feature that ends there, or -1

  def languages(self, texts: Sequence[str]) -> list[str]:
    """The most probable language of each text of those whose letters occur in it; "und" if it has no letters."""
    found = [UNKNOWN] * len(texts)
    samples = [(index, _sample(text)) for index, text in enumerate(texts)]
    samples = sorted((pair for pair in samples if ANY_LETTER.search(pair[1])), key=lambda pair: len(pair[1]))
    for start in range(0, len(samples), 256):
      batch = samples[start : start + 256]
      for (index, sample), scores in zip(batch, self._scores([sample for _, sample in batch])):
        found[index] = self._best(sample, scores)
    return found

  def _best(self, sample: str, scores: np.ndarray) -> str:
    best = self.codes[int(scores.argmax())]
    if not is_possible(best, sample):
      ranked = (self.codes[index] for index in np.argsort(-scores, kind="stable"))
      best = next((code for code in ranked if is_possible(code, sample)), UNKNOWN)
    return chinese_writing(sample, best) if best in CHINESE else best

  def _scores(self, samples: Sequence[str]) -> np.ndarray:
    """The logarithm of each language's probability for each text, but for a constant. float32[N, languages]."""
    texts, features = self._walk([sample.encode("utf-8", "replace") for sample in samples])
    keys, counts = np.unique(texts.astype(np.int64) * len(self._weights) + features, return_counts=True)
    weights = np.log1p(counts.astype(np.float32))
    texts, features = np.divmod(keys, len(self._weights))
    ends = np.searchsorted(texts, np.arange(len(samples) + 1))
    scores = np.tile(self._prior, (len(samples), 1))
    for text, (start, end) in enumerate(itertools.pairwise(ends)):
      # einsum adds up in one thread and in a fixed order, which a product by a BLAS library does not.
      scores[text] += np.einsum("f,fl->l", weights[start:end], self._weights.take(features[start:end], axis=0))
    return scores

  def _walk(self, encoded: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(text, feature) of each feature that occurs. All texts go through the automaton in step; they come by length."""
    lengths = np.array([len(text) for text in encoded])
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths[order[0]])
    bytes_NxL = np.zeros((len(encoded), longest), np.int32)
    for row, index in enumerate(order):
      bytes_NxL[row, : lengths[index]] = np.frombuffer(encoded[index], np.uint8)
    bytes_LxN = np.ascontiguousarray(bytes_NxL.T)
    running = len(encoded) - np.searchsorted(lengths[order][::-1], np.arange(longest), side="right")
    states_LxN = np.zeros_like(bytes_LxN)
    rows = np.full(len(encoded), self._row[0], np.int32)
    for position, count in enumerate(running):
      states = self._next[rows[:count] + bytes_LxN[position, :count]]
      states_LxN[position, :count] = states
      rows = self._row[states]
    features_LxN = self._feature[states_LxN]
    inside_LxN = np.arange(longest)[:, None] < lengths[order][None, :]
    positions, columns = np.nonzero((features_LxN >= 0) & inside_LxN)
    return order[columns], features_LxN[positions, columns]


def _sample(text: str) -> str:
  """At most _CHARACTERS of a text, half from its start and half from its middle, in py3langid's normal form."""
  if len(text) > _CHARACTERS:
    half, middle = _CHARACTERS // 2, len(text) // 2
    text = text[:half] + " " + text[middle : middle + half]
  return unicodedata.normalize("NFC", text.lower() if text.isupper() else text)
