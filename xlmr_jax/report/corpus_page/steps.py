"""The steps of a build, its reasons to remove text and its repairs, in words and colours for readers."""

from typing import NamedTuple

from xlmr_jax.corpus import filters
from xlmr_jax.report.pictures import AFTER, BOUND


class Step(NamedTuple):
  """A step that removes text, for readers."""

  title: str
  what: str  # continues "This step removes ..."
  color: str


STEPS = {
  "language": Step(
    "Language", "text whose language could not be determined, or is none that the corpus may have", "#7a5195"
  ),
  "paragraphs": Step(
    "Repeated paragraphs", "paragraphs that the same language has had before, compared without case and punctuation", AFTER
  ),
  "filters": Step("Filters", "documents that do not look like running text", BOUND),
  "near_duplicates": Step("Near duplicates", "documents that are almost the same as an earlier one", "#e0a030"),
  "opt_outs": Step("Opt-outs", "documents whose address is listed in the opt-out file", "#5f9e6e"),
}
REASONS = {
  "empty": "nothing to read in it",
  "unknown": "the language could not be determined",
  "unsure": "the language is not sure",
  "not one of CC-100's": "a language that CC-100 does not have",
  "short": f"fewer than {filters.LEAST_LETTERS} letters",
  "signs": "too many punctuation marks and symbols",
  "digits": "too many digits",
  "repeated_phrases": "the same phrases again and again",
  "most_frequent_word": "one word is too large a part of it",
  "spelling": "letters follow each other as in noise",
  "order": "words follow each other at random, as in a list of keywords",
  "prior_low": "words too rare for this language",
  "prior_high": "words too common for this language",
  "repeated": "the language has had this paragraph before",
  "near duplicate": "almost the same as an earlier document",
  "opted out": "listed in the opt-out file",
}
REASON_COLORS = {
  "short": "#b8b8b8", "signs": "#7a5195", "digits": "#b58fc7", "repeated_phrases": "#1f6f8b",
  "most_frequent_word": "#7fb3c8", "spelling": "#d1495b", "order": "#e0a030", "prior_low": "#5f9e6e",
  "prior_high": "#a8cfae",
}  # fmt: skip
REPAIRS = {
  "invalid_utf8": "bytes that are not UTF-8, decoded with another encoding or replaced",
  "double_utf8": "UTF-8 that somebody had read as Latin-1 or Windows-1252",
  "c1": "control characters U+0080 to U+009F that stand for letters of another code page",
  "code_page": "letters that were decoded with the wrong code page",
  "zawgyi": "Burmese in the Zawgyi encoding, converted to Unicode",
  "zawgyi_kept": "Burmese that may be Zawgyi; nobody looked, because myanmartools is not installed",
  "controls": "control characters and invisible characters that were taken out",
  "nfc": "characters that were brought to their composed form (Unicode's NFC)",
}
