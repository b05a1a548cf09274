"""Burmese that was typed for the font Zawgyi, which gives Unicode's numbers other meanings and another order."""

import functools
import re

_LIKELY = 0.95  # the detector's probability from which on a document is converted
_SAMPLE = 1000  # characters that the detector looks at; it reads 1.5 MB/s
_KINZI = "\ue000"

# The code points whose meaning differs, as Unicode writes them. Zawgyi has a code point for each shape of a letter.
_MEANING = {
  "\u1033": "\u102f", "\u1034": "\u1030", "\u1039": "\u103a", "\u103a": "\u103b", "\u103b": "\u103c", "\u103c": "\u103d",
  "\u103d": "\u103e", "\u105a": "\u102b\u103a", "\u1064": _KINZI, "\u106a": "\u1009", "\u106b": "\u100a",
  "\u106e": "\u100d\u1039\u100d", "\u106f": "\u100d\u1039\u100e", "\u107d": "\u103b", "\u1086": "\u103f", "\u1087": "\u103e",
  "\u1088": "\u103e\u102f", "\u1089": "\u103e\u1030", "\u108a": "\u103d\u103e", "\u108b": _KINZI + "\u102d",
  "\u108c": _KINZI + "\u102e", "\u108d": _KINZI + "\u1036", "\u108e": "\u102d\u1036", "\u108f": "\u1014",
  "\u1090": "\u101b", "\u1091": "\u100f\u1039\u100d", "\u1092": "\u100b\u1039\u100c", "\u1094": "\u1037",
  "\u1095": "\u1037", "\u1096": "\u1039\u1010\u103d", "\u1097": "\u100b\u1039\u100b",
}  # fmt: skip
_MEANING |= dict.fromkeys("\u107e\u107f\u1080\u1081\u1082\u1083\u1084", "\u103c")  # one medial ra for each width
_STACKED = {"\u1060": "က", "\u1061": "ခ", "\u1062": "ဂ", "\u1063": "ဃ", "\u1065": "စ", "\u1066": "ဆ", "\u1067": "ဆ"}
_STACKED |= {"\u1068": "ဇ", "\u1069": "ဈ", "\u106c": "ဋ", "\u106d": "ဌ", "\u1070": "ဏ", "\u1071": "တ", "\u1072": "တ"}
_STACKED |= {"\u1073": "ထ", "\u1074": "ထ", "\u1075": "ဒ", "\u1076": "ဓ", "\u1077": "န", "\u1078": "ပ", "\u1079": "ဖ"}
_STACKED |= {"\u107a": "ဗ", "\u107b": "ဘ", "\u107c": "မ", "\u1085": "လ", "\u1093": "ဘ"}
_TABLE = str.maketrans(_MEANING | {shape: "\u1039" + letter for shape, letter in _STACKED.items()})
# Zawgyi writes the vowel e and the medial ra before the consonant, as they are seen.
_SYLLABLE = re.compile(
  "([\u1031\u103c]*)([\u1000-\u102a\u103f\u1040\u104e])((?:\u1039[\u1000-\u1021]|[\u102b-\u1030\u1032\u1036-\u1038\u103a\u103b\u103d\u103e\ue000])*)"
)
_ORDER = {
  mark: rank
  for rank, mark in enumerate(
    "\u103b\u103c\u103d\u103e\u1031\u102d\u102e\u102f\u1030\u102b\u102c\u1032\u1036\u103a\u1037\u1038"
  )
}


def is_zawgyi(text: str) -> bool:
  """Whether a text is in Zawgyi. ModuleNotFoundError: myanmartools is not installed (xlmr_jax[corpus])."""
  letters = "".join(re.findall("[\u1000-\u109f][\u1000-\u109f ]*", text[: 20 * _SAMPLE]))[:_SAMPLE]
  return bool(letters) and _detector().get_zawgyi_probability(letters) >= _LIKELY


def to_unicode(text: str) -> str:
  """Zawgyi as Unicode, in Unicode's order of the marks of a syllable."""
  return _SYLLABLE.sub(_ordered, text.translate(_TABLE)).replace(_KINZI, "\u1004\u103a\u1039")


@functools.lru_cache(maxsize=1)
def _detector():
  from myanmartools import ZawgyiDetector

  return ZawgyiDetector()


def _ordered(syllable: re.Match) -> str:
  before, letter, after = syllable.groups()
  if letter == "\u1040" and (before or after):
    letter = "\u101d"  # The digit zero is often typed for the letter wa.
  stacked = "".join(re.findall("\u1039.", after))
  marks = list(dict.fromkeys(before + re.sub("\u1039.", "", after)))
  kinzi = _KINZI if _KINZI in marks else ""
  if letter == "\u1025" and "\u103a" in marks:
    letter = "\u1009"
  marks = sorted((mark for mark in marks if mark != _KINZI), key=_ORDER.__getitem__)
  if "\u103a" in marks and not {"\u102b", "\u102c"} & set(marks):  # The asat kills the consonant, not the vowel aa.
    marks.remove("\u103a")
    marks.insert(sum(_ORDER[mark] <= _ORDER["\u1031"] for mark in marks), "\u103a")
  return kinzi + letter + stacked + "".join(marks)
