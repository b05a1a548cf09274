"""The language of a document and of each of its paragraphs.

The default is CLD2, with py3langid as an arbiter where CLD2 is unsure; or a fastText model, such as GlotLID's or one of
language_id_training.py. Answers are CC-100's codes (languages.py).
"""

import dataclasses
import functools
import hashlib
import itertools
import mmap
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from xlmr_jax.corpus.languages import LANGUAGES, UNKNOWN, normal_code
from xlmr_jax.errors import UserError
from xlmr_jax.files import local_path


@dataclasses.dataclass(frozen=True)
class Identification:
  """What an identifier says of a document."""

  language: str  # of most of the document; "und" if none could be found
  sure: bool  # two identifiers agree, or one is so clear that the other need not be asked, or it is as the source says
  paragraphs: list[str]  # the language of each; the document's where a paragraph is too short or too unclear to tell


# Documents in these languages are often taken for one another, so a source's label for one is not overruled by the other.
# Chinese in its two forms is not among them: which characters a text has is counted, and that is clearer than most labels,
# many of which say "zh" for both.
_CONFUSABLE = {code: group for group in (("bs", "hr", "sr"), ("id", "ms"), ("da", "no"), ("my", "my_zaw")) for code in group}

_WINDOW = 1000  # characters, about: a long document is looked at in windows of this size
_MOST = 0.8  # of a document that must clearly be in its language
_SHORTEST = 80  # bytes: a shorter paragraph is not called foreign
_SHORTEST_IN_DOUBT = 200  # bytes: nor is a shorter one by an answer that is not clear


class _Guess(NamedTuple):
  """What is said of one text."""

  language: str
  share: float  # how much of the text seems to be in it, 0 to 1
  clear: bool  # nobody else need be asked
  pure: bool = False  # nearly all of the text is in one language, so that its paragraphs need not be looked at
  fair: bool = True  # it stands where nobody else knows the language


class Identifier:
  """Finds languages. It can be pickled, and loads its model in each process when that first asks it something."""

  def _first(self, texts: Sequence[str]) -> list[_Guess]:
    """What is said of each text at first sight."""
    raise NotImplementedError

  def _second(self, texts: Sequence[str], guesses: Sequence[_Guess]) -> list[_Guess]:
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
    wholes = [_with_label(whole, text, _label_code(label)) for whole, text, (_, label) in zip(wholes, texts, batch)]

    unclear = [
      (document, place)
      for document, (whole, windows, parts) in enumerate(zip(wholes, cuts, by_window))
      if len(batch[document][0]) > 1
      for cut, (_, guess) in zip(windows, parts)
      if not guess.pure or (len(windows) > 1 and guess.language != whole.language)
      for place in cut
      if len(batch[document][0][place].encode("utf-8", "replace")) >= _SHORTEST
    ]
    told: dict[int, dict[int, str]] = {}
    texts = [batch[document][0][place] for document, place in unclear]
    expected = [wholes[document].language for document, _ in unclear]
    for (document, place), text, guess in zip(unclear, texts, self._settle(texts, self._first(texts), expected)):
      whole = wholes[document].language
      if guess.language == whole or guess.language in _CONFUSABLE.get(whole, ()):
        told.setdefault(document, {})[place] = whole
      elif guess.clear or (guess.language != UNKNOWN and len(text.encode("utf-8", "replace")) >= _SHORTEST_IN_DOUBT):
        told.setdefault(document, {})[place] = guess.language
    found = []
    for document, (whole, (paragraphs, label)) in enumerate(zip(wholes, batch)):
      of_paragraphs = told.get(document, {})
      language = whole.language
      if of_paragraphs and not whole.clear and language != _label_code(label):
        language = _majority(of_paragraphs, paragraphs) or language
      found.append(Identification(language, whole.clear, _fill(of_paragraphs, language, len(paragraphs))))
    return found

  def _settle(self, texts: Sequence[str], guesses: list[_Guess], expected: Sequence[str] | None = None) -> list[_Guess]:
    """The guesses, with a second one of each that is not clear, unless it is as expected."""
    places = [
      place
      for place, guess in enumerate(guesses)
      if not guess.clear and not (expected and guess.language == expected[place])
    ]
    seconds = self._second([texts[place] for place in places], [guesses[place] for place in places])
    settled = list(guesses)
    for place, second in zip(places, seconds):
      settled[place] = second
    return settled


def _combine(parts: Sequence[tuple[str, _Guess]]) -> _Guess:
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
  return _Guess(language, votes[language] / whole, clear >= _MOST * whole, fair=fair >= _MOST * whole)


def _majority(told: dict[int, str], paragraphs: Sequence[str]) -> str:
  """The language of the paragraphs that hold more than half of the characters; "" if there is none."""
  sizes: dict[str, int] = {}
  for place, language in told.items():
    sizes[language] = sizes.get(language, 0) + len(paragraphs[place])
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


def _with_label(guess: _Guess, text: str, label: str) -> _Guess:
  """The guess, or the label that the source gave, where the guess does not clearly say otherwise."""
  if not label or label == UNKNOWN or not _possible(label, text):
    return guess
  if label == guess.language:
    return guess._replace(clear=True)
  if guess.clear and guess.language not in _CONFUSABLE.get(label, ()):
    return guess
  return guess._replace(language=label)


def _fill(told: dict[int, str], document: str, count: int) -> list[str]:
  """The languages of `count` paragraphs. One that could not be told has that of both its neighbours, or the document's."""
  if not told:
    return [document] * count
  filled = [document] * count
  places = sorted(told)
  for place, after in zip(places, [*places[1:], places[-1]]):
    filled[place] = told[place]
    if told[place] == told[after]:
      filled[place:after] = [told[place]] * (after - place)
  return filled


# --- scripts -------------------------------------------------------------------------------------------------------------

# The letters of each script that texts of today use, as ranges for a regular expression.
_LETTERS = {
  "Latin": r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
  "Cyrillic": r"\u0400-\u0481\u048a-\u052f",
  "Greek": r"\u0370-\u0373\u0376-\u037d\u0386\u0388-\u03ff\u1f00-\u1ffc",
  "Armenian": r"\u0531-\u0556\u0561-\u0587",
  "Georgian": r"\u10a0-\u10ff\u1c90-\u1cbf",
  "Hebrew": r"\u05d0-\u05f2\ufb1d-\ufb4f",
  "Arabic": r"\u0620-\u064a\u066e-\u06d3\u06d5\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdfb\ufe70-\ufefc",
  "Devanagari": r"\u0904-\u0939\u0958-\u0961\u0971-\u097f",
  "Bengali": r"\u0985-\u09b9\u09dc-\u09e1\u09f0\u09f1",
  "Gurmukhi": r"\u0a05-\u0a39\u0a59-\u0a5e\u0a72-\u0a74",
  "Gujarati": r"\u0a85-\u0ab9",
  "Oriya": r"\u0b05-\u0b39\u0b5c-\u0b61\u0b71",
  "Tamil": r"\u0b83-\u0bb9",
  "Telugu": r"\u0c05-\u0c39\u0c58-\u0c61",
  "Kannada": r"\u0c85-\u0cb9\u0cde-\u0ce1",
  "Malayalam": r"\u0d05-\u0d3a\u0d7a-\u0d7f",
  "Sinhala": r"\u0d85-\u0dc6",
  "Thai": r"\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46",
  "Lao": r"\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf",
  "Myanmar": r"\u1000-\u102a\u1050-\u1055\u105a-\u108e",
  "Khmer": r"\u1780-\u17b3",
  "Ethiopic": r"\u1200-\u135a\u1380-\u138f\u2d80-\u2dde",
  "Hangul": r"\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
  "Han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9\U00020000-\U000323af",
  "Hiragana": r"\u3041-\u3096",
  "Katakana": r"\u30a1-\u30fa",
  "Bopomofo": r"\u3105-\u312f",
}


@functools.cache
def _letters_of(language: str) -> re.Pattern[str] | None:
  """Finds a letter without which no text is in the language; None if that is not known."""
  if language not in LANGUAGES:
    return None
  scripts = LANGUAGES[language].scripts
  if language == "ja":  # A Chinese text has Han too, but no Japanese sentence does without Kana.
    scripts = ("Hiragana", "Katakana")
  return re.compile("[" + "".join(_LETTERS[script] for script in scripts) + "]")


_ANY_LETTER = re.compile(r"[^\W\d_]")


def _possible(language: str, text: str) -> bool:
  letters = _letters_of(language)
  return letters is None or letters.search(text) is not None


# Frequent characters that have another form in the other writing. A character that both use for different words, such as
# 后 or 里, is in neither list.
_SIMPLIFIED = (
  "这们个来国时会说对学为过发还经现问关开间长车东话语门见让马书师该认识请钱员华电龙乐习业产亲从众优传伤体儿军农决况净减"
  "击刘则务动劳单卖卫历厂县双变叶号叹听员园围图圆场坏块坚坛处备复头夺奋奖妇孙宁实审宪宽宾对导尔尽层岁岛币师帐帮广庄庆应"
  "张弹强归录彻恶惊惯战户报护担拥择挥换损据摄敌数无旧显术机权条极构标样桥检欢气汉没沟泪泽洁测济浓温湾满灭灯灵热爱状独环"
  "电疗确离种积称稳穷竞类纪约级纯纳纸线练组细织终结给络统继续维绿编网罗义习职联肃胜脑节艺药获营虽补规视觉览计订议讨训记"
  "讲许论设访证评词译试诗诚详误读课谁调谈谢贝负财责贤败货质贫购贵费资赛赵轻载较输边达运进远连适选递遗释针钟铁银错键锁队"
  "阳阴阶际陆险随难预领频题额风飞饭饮馆验鱼鸟麦黄齐"
)
_TRADITIONAL = (
  "這們個來國時會說對學為過發還經現問關開間長車東話語門見讓馬書師該認識請錢員華電龍樂習業產親從眾優傳傷體兒軍農決況淨減"
  "擊劉則務動勞單賣衛歷廠縣雙變葉號嘆聽員園圍圖圓場壞塊堅壇處備復頭奪奮獎婦孫寧實審憲寬賓對導爾盡層歲島幣師帳幫廣莊慶應"
  "張彈強歸錄徹惡驚慣戰戶報護擔擁擇揮換損據攝敵數無舊顯術機權條極構標樣橋檢歡氣漢沒溝淚澤潔測濟濃溫灣滿滅燈靈熱愛狀獨環"
  "電療確離種積稱穩窮競類紀約級純納紙線練組細織終結給絡統繼續維綠編網羅義習職聯肅勝腦節藝藥獲營雖補規視覺覽計訂議討訓記"
  "講許論設訪證評詞譯試詩誠詳誤讀課誰調談謝貝負財責賢敗貨質貧購貴費資賽趙輕載較輸邊達運進遠連適選遞遺釋針鐘鐵銀錯鍵鎖隊"
  "陽陰階際陸險隨難預領頻題額風飛飯飲館驗魚鳥麥黃齊"
)
_SIMPLIFIED_ONLY = re.compile(f"[{_SIMPLIFIED}]")
_TRADITIONAL_ONLY = re.compile(f"[{_TRADITIONAL}]")


_CHINESE = ("zh_Hans", "zh_Hant")


def _chinese(text: str, otherwise: str) -> str:
  """zh_Hans or zh_Hant, whichever a Chinese text has more characters of that the other has not; else `otherwise`."""
  simplified, traditional = len(_SIMPLIFIED_ONLY.findall(text)), len(_TRADITIONAL_ONLY.findall(text))
  if simplified == traditional:
    return otherwise
  return "zh_Hans" if simplified > traditional else "zh_Hant"


# --- CLD2 and its arbiter --------------------------------------------------------------------------------------------------

# Below these the arbiter is asked. CLD2's percentage says how much of the text is in its first language; its score, how
# probable that language makes the letters, per kilobyte. A language that CLD2 does not know, such as Kurmanji, gets a
# confident answer with a low score, and so does a text that mixes two. Where a script belongs to few languages a low score
# says nothing; and a high one does not tell between languages that are alike, so that the arbiter is asked about these too.
_SHARE = 80
_LATIN_SCORE = 600
_PURE_SHARE = 95
_UNHEARD_SCORE = 300  # below it CLD2 is not believed even in a language that the arbiter does not know
_ARBITER_CHARACTERS = 400  # of a text; more do not change the arbiter's mind, but take longer

# pycld2 raises an error on these: control characters, surrogates and noncharacters.
_REFUSED = re.compile(
  "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
  + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
  + "]"
)


@dataclasses.dataclass(frozen=True)
class Cld2(Identifier):
  """CLD2, which has its model inside; where it is unsure, py3langid decides, which has one too."""

  def _first(self, texts: Sequence[str]) -> list[_Guess]:
    detect = _open_cld2()
    guesses = []
    for text in texts:
      reliable, _, details = detect(text)
      _, code, share, score = details[0]
      language = UNKNOWN if code == "un" else _cld2_code(code)
      if language in _CHINESE:
        language = _chinese(text, language)
      if language != UNKNOWN and not _possible(language, text):
        language = UNKNOWN
      trusted = reliable and share >= _SHARE and language != UNKNOWN
      clear = trusted and (not _in_latin(language) or (score >= _LATIN_SCORE and language not in _CONFUSABLE))
      guesses.append(_Guess(language, share / 100, clear, share >= _PURE_SHARE, trusted and score >= _UNHEARD_SCORE))
    return guesses

  def _second(self, texts: Sequence[str], guesses: Sequence[_Guess]) -> list[_Guess]:
    if not texts:
      return []
    arbiter = _open_arbiter()
    settled = []
    for guess, answer in zip(guesses, arbiter.languages(texts)):
      stands = answer == UNKNOWN or (guess.fair and guess.language not in arbiter.known)
      settled.append(guess if stands else _Guess(answer, guess.share, answer == guess.language, guess.pure))
    return settled


@functools.cache
def _cld2_code(code: str) -> str:
  # CLD2's Kurdish is Sorani, in Arabic letters. CC-100's is Kurmanji, which CLD2 does not know.
  return "ckb" if code == "ku" else normal_code(code)


@functools.cache
def _in_latin(language: str) -> bool:
  return language not in LANGUAGES or LANGUAGES[language].scripts[0] == "Latin"


@functools.cache
def _open_cld2():
  """pycld2.detect for plain text, which here replaces what it cannot take by spaces. Raises UserError: it is missing."""
  try:
    import pycld2
  except ImportError:
    raise UserError("--language_id=cld2 needs pycld2 and py3langid; run: pip install 'xlmr_jax[corpus]'") from None
  raw = pycld2.detect

  def detect(text: str):
    try:
      return raw(text, isPlainText=True, bestEffort=True)
    except (pycld2.error, UnicodeEncodeError):
      return raw(_REFUSED.sub(" ", text), isPlainText=True, bestEffort=True)

  return detect


@functools.cache
def _open_arbiter() -> "_Arbiter":
  return _Arbiter()


class _Arbiter:
  """py3langid's model over the languages that CC-100 has or CLD2 knows too.

  The others that it knows are spoken or ancient forms of those, which take text from them. Its automaton is walked here for
  many texts at a time, because py3langid's own loop over bytes is a fifth as fast.
  """

  def __init__(self):
    try:
      import pycld2
      from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
      raise UserError("--language_id=cld2 needs pycld2 and py3langid; run: pip install 'xlmr_jax[corpus]'") from None
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    detected = set(pycld2.DETECTED_LANGUAGES)
    wanted = {_cld2_code(code) for name, code in pycld2.LANGUAGES if name in detected} | LANGUAGES.keys()
    kept = [place for place, code in enumerate(model.nb_classes) if normal_code(code) in wanted]
    self.codes = [normal_code(model.nb_classes[place]) for place in kept]
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
    samples = [(place, _sample(text)) for place, text in enumerate(texts)]
    samples = sorted((pair for pair in samples if _ANY_LETTER.search(pair[1])), key=lambda pair: len(pair[1]))
    for start in range(0, len(samples), 256):
      batch = samples[start : start + 256]
      for (place, sample), scores in zip(batch, self._scores([sample for _, sample in batch])):
        found[place] = self._best(sample, scores)
    return found

  def _best(self, sample: str, scores: np.ndarray) -> str:
    best = self.codes[int(scores.argmax())]
    if not _possible(best, sample):
      ranked = (self.codes[place] for place in np.argsort(-scores, kind="stable"))
      best = next((code for code in ranked if _possible(code, sample)), UNKNOWN)
    return _chinese(sample, best) if best in _CHINESE else best

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
    for row, place in enumerate(order):
      bytes_NxL[row, : lengths[place]] = np.frombuffer(encoded[place], np.uint8)
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
  """At most _ARBITER_CHARACTERS of a text, half from its start and half from its middle, in py3langid's normal form."""
  import unicodedata

  if len(text) > _ARBITER_CHARACTERS:
    half, middle = _ARBITER_CHARACTERS // 2, len(text) // 2
    text = text[:half] + " " + text[middle : middle + half]
  return unicodedata.normalize("NFC", text.lower() if text.isupper() else text)


# --- fastText ------------------------------------------------------------------------------------------------------------

_FASTTEXT_CLEAR = 0.9  # probability


@dataclasses.dataclass(frozen=True)
class FastText(Identifier):
  """A fastText model whose labels are codes of languages in any usual spelling."""

  path: str
  sha256: str  # of the file

  def _first(self, texts: Sequence[str]) -> list[_Guess]:
    predict = _open_fasttext(self.path, self.sha256)
    return [self._guess(predict, text) for text in texts]

  def _guess(self, predict: Any, text: str) -> _Guess:
    if not _ANY_LETTER.search(text):
      return _Guess(UNKNOWN, 0.0, False)
    line = " ".join(text.split()).encode("utf-8", "replace").decode()
    for rank, (probability, label) in enumerate(predict(line + "\n", 3, 0.0, "strict")):
      language = _label_code(label)
      if language in _CHINESE:
        language = _chinese(text, language)
      if language and _possible(language, text):
        # A probability says nothing of how pure the text is, so each paragraph is asked about.
        return _Guess(language, probability, not rank and probability >= _FASTTEXT_CLEAR)
    return _Guess(UNKNOWN, 0.0, False)


@functools.lru_cache(10_000)  # A source may have any number of labels.
def _label_code(label: str) -> str:
  return normal_code(label.removeprefix("__label__"))


def import_fasttext():
  """The module fasttext. Raises UserError: it is missing."""
  try:
    import fasttext
  except ImportError:
    raise UserError("the package fasttext is missing; run: pip install 'xlmr_jax[fasttext]'") from None
  return fasttext


@functools.cache
def _open_fasttext(path: str, sha256: str):
  """The model's function (line, count, threshold, errors) -> [(probability, label)]. Raises UserError as open_identifier."""
  fasttext = import_fasttext()
  digest = _digest(path)
  if digest != sha256:
    raise UserError(f"{path}: its sha256 is {digest}, not {sha256}; it has changed, so pass the new one or the right file")
  try:
    with open(path, "rb") as file:
      expected, found = _expected_bytes(file), Path(path).stat().st_size
    if found != expected:
      raise ValueError(f"it has {found} bytes instead of {expected}")
    return fasttext.load_model(path).f.predict
  except (ValueError, IndexError, struct.error, RuntimeError, MemoryError) as error:
    raise UserError(f"{path}: is no whole fastText model ({error}); fetch or train it again") from None


def _digest(path: str) -> str:
  try:
    with open(path, "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror}); pass --language_id=fasttext:FILE.bin or .ftz") from None


_MAGIC, _VERSIONS = 793712314, (11, 12)
_HEADER = struct.Struct("<2i 12i d 3i 2q")  # magic, version, 13 options, the dictionary's 5 sizes


def _expected_bytes(file: BinaryIO) -> int:
  """How long a fastText model has to be by the sizes in it, because fastText itself reads a truncated one without a word.

  The layout is that of fastText 0.9 (src/fasttext.cc, dictionary.cc, matrix.cc). Raises ValueError or struct.error: the file
  is no such model.
  """
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    header = _HEADER.unpack_from(data)
    entries, pruned, version = header[15], header[19], header[1]
    if header[0] != _MAGIC or version not in _VERSIONS or entries < 0:
      raise ValueError("it does not begin as one")
    place = _HEADER.size
    for _ in range(entries):  # Each is a word, a zero, how often it occurs (8 bytes) and what it is (1 byte).
      if (end := data.find(b"\0", place)) < 0:
        raise ValueError("its dictionary has no end")
      place = end + 10
    place += 8 * max(pruned, 0)
    for _ in range(2):  # The matrix of the inputs, then that of the outputs.
      quantized = data[place]
      place = _matrix_end(data, place + 1, bool(quantized))
    return place


def _matrix_end(data: mmap.mmap, place: int, quantized: bool) -> int:
  """Where the matrix that begins at `place` ends."""
  if not quantized:
    rows, columns = struct.unpack_from("<2q", data, place)
    return place + 16 + 4 * rows * columns
  with_norms, rows, _, codes = struct.unpack_from("<?2qi", data, place)
  place = _quantizer_end(data, place + 21 + codes)
  return _quantizer_end(data, place + rows) if with_norms else place


def _quantizer_end(data: mmap.mmap, place: int) -> int:
  """Where a product quantizer ends: four sizes, of which the first is its dimension, and 256 centroids in float32."""
  (dimension,) = struct.unpack_from("<i", data, place)
  return place + 16 + 4 * 256 * dimension


def open_identifier(spec: str = "cld2", sha256: str = "") -> Identifier:
  """The identifier that `spec` names: "cld2", or "fasttext:FILE", whose file must have the sha256 where one is given.

  Raises UserError: the name is unknown, its package is missing, the file is missing or damaged or has another sha256, or a
  label of the model is no code of a language.
  """
  kind, _, file = spec.partition(":")
  if spec == "cld2":
    if sha256:
      raise UserError("a sha256 belongs to --language_id=fasttext:FILE; cld2 has no file")
    _open_cld2()
    return Cld2()
  if kind != "fasttext" or not file:
    raise UserError(f"--language_id={spec}: must be cld2 or fasttext:FILE")
  path = local_path(file, "--language_id=fasttext:")
  if not Path(path).is_file():
    raise UserError(f"{path}: there is no such file; pass --language_id=fasttext:FILE.bin or .ftz")
  identifier = FastText(str(path), sha256.lower() or _digest(str(path)))
  _open_fasttext(identifier.path, identifier.sha256)
  return identifier
