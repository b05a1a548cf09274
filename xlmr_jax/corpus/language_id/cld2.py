"""The identifier that is CLD2, with py3langid as its arbiter."""

import dataclasses
import functools
import re
from collections.abc import Sequence

from xlmr_jax.corpus.language_id.arbiter import MISSING, Arbiter
from xlmr_jax.corpus.language_id.identifier import CONFUSABLE, Guess, Identifier
from xlmr_jax.corpus.language_id.scripts import CHINESE, chinese_writing, is_possible
from xlmr_jax.corpus.languages import LANGUAGES, UNKNOWN, normal_code
from xlmr_jax.errors import UserError

# Below these the arbiter is asked. CLD2's percentage says how much of the text is in its first language; its score, how
# probable that language makes the letters, per kilobyte. A language that CLD2 does not know, such as Kurmanji, gets a
# confident answer with a low score, and so does a text that mixes two. Where a script belongs to few languages a low score
# says nothing; and a high one does not tell between languages that are alike, so that the arbiter is asked about these too.
_SHARE = 80
_LATIN_SCORE = 600
_PURE_SHARE = 95
_UNHEARD_SCORE = 300  # below it CLD2 is not believed even in a language that the arbiter does not know

# pycld2 raises an error on these: control characters, surrogates and noncharacters.
_REFUSED = re.compile(
  "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
  + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
  + "]"
)


@dataclasses.dataclass(frozen=True)
class Cld2(Identifier):
  """CLD2, which has its model inside; where it is unsure, py3langid decides, which has one too."""

  def _first(self, texts: Sequence[str]) -> list[Guess]:
    detect = open_cld2()
    guesses = []
    for text in texts:
      reliable, _, details = detect(text)
      _, code, share, score = details[0]
      language = UNKNOWN if code == "un" else _cld2_code(code)
      if language in CHINESE:
        language = chinese_writing(text, language)
      if language != UNKNOWN and not is_possible(language, text):
        language = UNKNOWN
      trusted = reliable and share >= _SHARE and language != UNKNOWN
      clear = trusted and (not _in_latin(language) or (score >= _LATIN_SCORE and language not in CONFUSABLE))
      guesses.append(Guess(language, share / 100, clear, share >= _PURE_SHARE, trusted and score >= _UNHEARD_SCORE))
    return guesses

  def _second(self, texts: Sequence[str], guesses: Sequence[Guess]) -> list[Guess]:
    if not texts:
      return []
    arbiter = _open_arbiter()
    settled = []
    for guess, answer in zip(guesses, arbiter.languages(texts)):
      stands = answer == UNKNOWN or (guess.fair and guess.language not in arbiter.known)
      settled.append(guess if stands else Guess(answer, guess.share, answer == guess.language, guess.pure))
    return settled


@functools.cache
def _cld2_code(code: str) -> str:
  # CLD2's Kurdish is Sorani, in Arabic letters. CC-100's is Kurmanji, which CLD2 does not know.
  return "ckb" if code == "ku" else normal_code(code)


@functools.cache
def _in_latin(language: str) -> bool:
  return language not in LANGUAGES or LANGUAGES[language].scripts[0] == "Latin"


@functools.cache
def open_cld2():
  """pycld2.detect for plain text, which here replaces what it cannot take by spaces. Raises UserError: it is missing."""
  try:
    import pycld2
  except ImportError:
    raise UserError(MISSING) from None
  raw = pycld2.detect

  def detect(text: str):
    try:
      return raw(text, isPlainText=True, bestEffort=True)
    except (pycld2.error, UnicodeEncodeError):
      return raw(_REFUSED.sub(" ", text), isPlainText=True, bestEffort=True)

  return detect


@functools.cache
def _open_arbiter() -> Arbiter:
  """The arbiter over the languages that CC-100 has or CLD2 knows too. Raises UserError: a package is missing.

  The others that py3langid knows are spoken or ancient forms of those, which take text from them.
  """
  try:
    import pycld2
  except ImportError:
    raise UserError(MISSING) from None
  detected = set(pycld2.DETECTED_LANGUAGES)
  return Arbiter({_cld2_code(code) for name, code in pycld2.LANGUAGES if name in detected} | LANGUAGES.keys())
