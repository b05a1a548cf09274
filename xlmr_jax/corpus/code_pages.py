"""Which 8-bit code page some text was written in, judged by the letters that the languages of each code page use.

The letters below are ours, from general knowledge of the alphabets, the commonest first. repair.py decides what is decoded.
"""

import functools
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

# Non-ASCII letters of each language, the commonest first, and after a bar some of its commonest ASCII words.
_LATIN = {
  "af": "ëêéôûïîèáöü|die van en in het is wat vir nie om dat met sy aan ook deur word hulle",
  "br": "ñùêéôâèàü|ar an ha eus da ur en a war hag gant evit e zo",
  "ca": "àéóèíòçúïü·|de la que el en els les per un una amb del no es al",
  "cs": "íáěéřčžšýůúďťňó|a se v na je to s z o do i ale by jsem jako za po",
  "cy": "ŵŷâêîôûïëäö|yn y i a yr o ar ei mae wedi gan am ac",
  "da": "øåæéÅü|og i at er det en den til af som med der ikke et han jeg var fra",
  "de": "üäöß|die der und das ist in zu den von nicht mit ein sie auf es im eine dem auch als wie",
  "en": "éïñöèüçáàêíóâ|the of and to in that is for it as was with be on you he by at not are this have from",
  "eo": "ĉĝĥĵŝŭ|la de kaj en estas al ne li mi por",
  "es": "óíáéñú¿¡ü|de la que el en y a los del se las por un para con no una su al lo es como",
  "et": "äõüöšž|ja on ei et see kui ta oli ning mis ka selle aga",
  "eu": "ñüçáéíóú|eta da ez du bat dira ere zen dute izan",
  "fi": "äöåéšž|ja on ei se oli ovat kuin joka mutta kun hyvin voi sen olla",
  "fo": "áóðøíæýúÁ|og at var er fyri ikki sum av til",
  "fr": "éèàêçôâîûùïëœü«»|de la le et les des en un du une que est pour qui dans par il ne sur au pas ce plus se",
  "fy": "ûêúâëéôöïü|de it en fan yn is dat te in op hy foar net",
  "ga": "áéíóú|agus an na a ar i go is le bhi ach sin do mar",
  "gd": "àèìòù|agus an a na air tha gu do ann bha ach am",
  "gl": "óíáéñúü¿¡ï|de a que o e do da en os un para se unha as non dos por",
  "ha": "’ƙɗɓéâ|da a na ya ta ba ga wani ne ce su kuma shi",
  "hu": "áéöóőüíúű|a az hogy nem is egy de meg ha csak van volt ez",
  "is": "íðáóöþéúæýÍÞ|og er sem um til hann en var ekki af eru",
  "it": "èàùòéìî«»|di che e la il un in per una non del si della le da con dei al come",
  "ku": "îêşçû|li de ku bi ji di ye xwe jî",
  "la": "āēōīūæœëéèâ|et in est non ad qui ut cum quod",
  "lt": "ėšųžįąčūę|ir kad yra su buvo tai kaip bet jis apie",
  "lv": "āīēšņūļķģžč|un ir ka ar no par uz bet viņš kas tas",
  "mg": "àôìéòñâ|ny sy ho amin fa tsy dia izy no izay",
  "nl": "ëéïèöüêóáç|de van het een en in is dat op te zijn niet met voor aan die er hij ook",
  "no": "åøæéòôóèüÅ|og i er det som en til av for at har med ikke de et var den han jeg",
  "om": "’éñ|fi kan akka irra kun kana keessa keessatti jedhu waan irratti ture ni isaa",
  "pl": "łąężśóćźń|i w na nie z do to o jest a jak po co tak za od przez",
  "pt": "ãçáéíóõêâúàôü|de a que o e do da em um para com os no se na por uma mais as dos como mas foi ao",
  "ro": "ăîâșțşţ|de a la nu ce cu pe un din care mai este o lui",
  "hr": "čšžćđ|i je u na da se za su od s koji a ne ili kao",
  "sk": "áíéčžšýľúôťňäďĺŕó|a na je sa v to že o ako do po by ale",
  "sl": "čšžćđ|in je v na da se za so ki pa s z",
  "so": "’éàá|oo ka ku ah waa in uu la iyo ay ee ayaa waxa lagu soo",
  "sq": "ëçÇ|e i me dhe nga se do ka nuk",
  "sv": "äåöéüÅ|och i att det som en av den till med var han inte om ett de jag har",
  "sw": "’éáí|na ya wa kwa ni za katika la kuwa hii ambayo cha kama",
  "tl": "ñéíóáèà|ang ng sa na mga ay at ni si para",
  "tr": "ıüşğçöİâî|ve bir bu da de ne ama o gibi var daha olan",
  "uz": "’‘ʻé|va bu bilan uchun bir da deb ham edi esa",
  "xh": "’éáñ|ukuba ke kwaye nge ngokuba njengoko",
  "az": "ıüşöğçİ|bu da ki ne bir o",
}
_CYRILLIC = {
  "ru": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
  "bg": "аиоенртсвлкдпмзгъубчяйжщшцхфюьѝ",
  "uk": "оанивіертслкмдпузьябйгчхжцшюїєфщґ",
  "be": "анісяолртеывудкцпьмзйшгбўхжчюёэф",
  "sr": "аоиенрстјувдкмлпбгзшцчжхћњљђфџ",
  "mk": "аоиентрсвдлкмпујгзбчшцжќхњѓфџљѕ",
  "mn": "агнлиоэрдхсуйтбвымзцчяшжеюпкьёф",
}
_OTHERS = {
  "el": "αοιετσνηυρπκμλςόίάήγέδθύωώχφβξζψϊϋΐΰ",
  "he": "יוהלאתרבשמןכנםחדפעסטקגזצךףץ",
  "yi": "יוהלאתרבשמןכנםחדפעסטקגזצךףץװױײַָ",
  "ar": "اليمنورتبةعدسفهكقأحجشصىطخإذضزئثءغآظؤ",
  "fa": "ایرنهدمتوسبشلکزگفعخقحجپآچطصذئغضژظث",
}
# What stands among letters in any language, with its share of the characters that are not ASCII.
_MARKS = {"\xa0": 0.03, "–": 0.03, "’": 0.05, "“": 0.02, "”": 0.02, "«": 0.015, "»": 0.015, "„": 0.01, "…": 0.01, "—": 0.01}
_MARKS |= {"‘": 0.005, "°": 0.005, "•": 0.005, "·": 0.003, "§": 0.002, "€": 0.002, "£": 0.002} | dict.fromkeys("©®™", 0.001)
_MARKS |= dict.fromkeys("½¼¾²³¹ªº¿¡×±µ´º", 0.0005) | dict.fromkeys("‚‹›", 0.0003) | dict.fromkeys("¢¥†‰¨¸¬¦¤¶÷¯№", 0.0001)
_MARK_IN_CYRILLIC = 0.3  # Most characters that are not ASCII are letters there, so that marks are rarer by about this.

# Code pages by family, with the log of how often they are met, roughly. "cp437+" is cp437 for C1 controls alone.
_PAGES = (
  ("cp1252", 0.0, "latin"), ("cp850", -2.0, "latin"), ("cp437", -2.0, "latin"), ("cp850+", -6.0, "latin"),
  ("cp437+", -6.0, "latin"), ("mac_roman", -9.0, "latin"), ("cp1250", -3.0, "latin"), ("iso8859_2", -3.0, "latin"),
  ("cp852", -4.0, "latin"), ("cp1254", -3.0, "latin"), ("cp857", -6.0, "latin"), ("cp1257", -4.0, "latin"),
  ("cp1251", -1.0, "cyrillic"), ("koi8_r", -1.0, "cyrillic"), ("koi8_u", -1.5, "cyrillic"), ("cp866", -2.0, "cyrillic"),
  ("iso8859_5", -3.0, "cyrillic"), ("mac_cyrillic", -5.0, "cyrillic"), ("cp1253", -2.0, "others"),
  ("iso8859_7", -3.0, "others"), ("cp737", -4.0, "others"), ("cp1255", -2.0, "others"), ("cp862", -5.0, "others"),
  ("cp1256", -2.0, "others"),
)  # fmt: skip
PAGES = tuple(name for name, _, _ in _PAGES)
_NEVER = -14.0  # log share of a byte that the code page does not have
_DRAWN = -12.0  # of box drawing, and of anything else that no text of the language has
_FOREIGN_LETTER = 2e-5  # share of the letters of other languages, such as those of names
_UPPER = 0.05  # how much rarer a capital is than its small letter
_MOST = 1 << 16  # bytes of a document that are looked at
_MOST_FOR_WORDS = 1 << 14  # of these, bytes whose words are looked up

# Kinds of characters, whose pairs are likely or not.
_SPACE, _LOWER, _UPPERCASE, _DIGIT, _POINT, _ACCENTED, _ACCENTED_UPPER = range(7)
_CYR, _CYR_UPPER, _GREEK, _GREEK_UPPER, _HEBREW, _ARABIC, _OPEN, _CLOSE, _NEUTRAL, _SYMBOL, _BOX = range(7, 18)
_KINDS = 18


class Guess(NamedTuple):
  """The likeliest code page of some bytes."""

  page: str
  score: float  # natural log likelihood, of the bytes that are not ASCII
  margin: float  # how much likelier it is than cp1252


@functools.lru_cache(maxsize=64)
def characters(page: str) -> str:
  """The 256 characters of a code page. What it leaves undefined comes as the control character of that number."""
  if page.endswith("+"):
    return characters(page[:-1])[:160] + characters("latin_1")[160:]
  found = []
  for number in range(256):
    try:
      found.append(bytes([number]).decode(page) if number >= 128 else chr(number))
    except UnicodeDecodeError:
      found.append(chr(number))
  return "".join(found)


def guess(data: bytes, prior: np.ndarray | None = None) -> Guess:
  """The likeliest code page of `data`. prior: of the languages, by language_prior; that of `data` by default."""
  score = scores(data, prior)
  best = int(score.argmax())
  return Guess(PAGES[best], float(score[best]), float(score[best] - score[0]))


def scores(data: bytes, prior: np.ndarray | None = None) -> np.ndarray:
  """float64[len(PAGES)]: log likelihood of the bytes of `data` that are not ASCII, in each of PAGES."""
  model = _model()
  codes = np.frombuffer(b" " + data[:_MOST] + b" ", np.uint8)
  high = codes[1:-1] >= 128
  counts = np.bincount(codes[1:-1][high], minlength=256).astype(np.float64)
  touching = (codes[:-1] >= 128) | (codes[1:] >= 128)
  found, times = np.unique(codes[:-1][touching].astype(np.int64) * 256 + codes[1:][touching], return_counts=True)
  apart = high & ~_IN_WORD[codes[:-2]] & ~_IN_WORD[codes[2:]]
  alone = np.bincount(codes[1:-1][apart], minlength=256).astype(np.float64)
  by_language = model.letters @ counts + (model.language_prior(data) if prior is None else prior)
  by_page = np.full(len(PAGES), -np.inf)
  np.maximum.at(by_page, model.page_of, by_language)
  return by_page + model.pairs[:, found] @ times + model.alone @ alone + model.prior


def language_prior(data: bytes) -> np.ndarray:
  """What the ASCII words of a document say about its language, for `guess` and `scores`."""
  return _model().language_prior(data)


_IN_WORD = np.array([chr(i).isalnum() or i >= 128 or i in b"'-" for i in range(256)])


class _Model:
  """Log likelihoods as tables over bytes. letters: one row for each language of each page, whose number is in page_of."""

  def __init__(self) -> None:
    rows, self.page_of, self.languages = [], [], []
    families = {"latin": _LATIN, "cyrillic": _CYRILLIC, "others": _OTHERS}
    for position, (page, _, family) in enumerate(_PAGES):
      for language, known in families[family].items():
        row = _letter_row(characters(page), known.partition("|")[0], family)
        if page.endswith("+"):  # It has most letters twice.
          row = [
            share - 2.0 * (number >= 32 and character.isalpha())
            for number, (share, character) in enumerate(zip(row, characters(page)[128:]))
          ]
        rows.append([0.0] * 128 + row)
        self.page_of.append(position)
        self.languages.append(language)
    self.letters = np.array(rows)
    kinds = np.array([[_kind(c) for c in characters(page)] for page in PAGES])
    costs = _pair_costs()
    sounds = [_alternation(characters(page)) for page in PAGES]
    self.pairs = np.stack(
      [(costs[kind[:, None], kind[None, :]] + sound).reshape(-1) for kind, sound in zip(kinds, sounds, strict=True)]
    )
    self.alone = np.array([[_alone(c) for c in characters(page)] for page in PAGES])
    self.prior = np.array([prior for _, prior, _ in _PAGES])
    self.words: dict[bytes, list[str]] = {}
    for language, known in _LATIN.items():
      for word in known.partition("|")[2].split():
        self.words.setdefault(word.encode(), []).append(language)

  def language_prior(self, text: bytes) -> np.ndarray:
    """What the ASCII words say about the language of each row: at most 0."""
    hits: Counter[str] = Counter()
    for word in re.findall(rb"(?<![^\x00-\x7f])\b[a-z]+\b(?![^\x00-\x7f])", text[:_MOST_FOR_WORDS].lower()):
      for language in self.words.get(word, ()):
        hits[language] += 1
    most = max(hits.values(), default=0)
    prior = {language: -min(60.0, 0.7 * (most - hits[language])) for language in _LATIN}
    return np.array([prior.get(language, 0.0) for language in self.languages])


@functools.lru_cache(maxsize=1)
def _model() -> _Model:
  return _Model()


def _letter_row(page: str, letters: str, family: str) -> list[float]:
  """The log shares of the 128 upper bytes of a page in a language."""
  shift = 3.0 if family != "latin" else 0.5
  total = sum(1 / (rank + shift) for rank in range(len(letters)))
  share = {mark: share * (1.0 if family == "latin" else _MARK_IN_CYRILLIC) for mark, share in _MARKS.items()}
  for rank, letter in enumerate(letters):
    share[letter] = max(share.get(letter, 0.0), 0.8 / (rank + shift) / total)
  for letter in letters:
    if letter.upper() != letter and len(letter.upper()) == 1:
      share.setdefault(letter.upper(), share[letter] * _UPPER)
  row = []
  for character in page[128:]:
    if character in share:
      row.append(float(np.log(share[character])))
    elif _kind(character) == _BOX:
      row.append(_NEVER if character < "\xa0" else _DRAWN)
    else:
      row.append(float(np.log(_FOREIGN_LETTER if character.isalpha() else _FOREIGN_LETTER / 2)))
  return row


def _kind(character: str) -> int:
  code = ord(character)
  if character.isspace() or code < 32 or character == "\xa0":
    return _SPACE if code < 128 else _NEUTRAL
  if code < 128:
    return (
      _LOWER if character.islower() else _UPPERCASE if character.isupper() else _DIGIT if character.isdigit() else _POINT
    )
  if character in "«“„‹¿¡":
    return _OPEN
  if character in "»›…”":
    return _CLOSE
  if character in "–—·’‘ºª\xad":
    return _NEUTRAL
  if character.isalpha() and character not in "µΩ∂πƒﬁﬂ":
    upper = character.isupper()
    if code < 0x250:
      return _ACCENTED_UPPER if upper else _ACCENTED
    if code < 0x400:
      return _GREEK_UPPER if upper else _GREEK
    if code < 0x530:
      return _CYR_UPPER if upper else _CYR
    return _HEBREW if code < 0x600 else _ARABIC
  return _BOX if code < 0xA0 or 0x2200 <= code < 0x2700 or character in "⌐₧" else _SYMBOL


def _pair_costs() -> np.ndarray:
  """float64[kinds, kinds]: the log of how much rarer the pair is than its two characters are."""
  cost = np.zeros((_KINDS, _KINDS))
  scripts = (
    (_LOWER, _ACCENTED, _UPPERCASE, _ACCENTED_UPPER),
    (_CYR, _CYR_UPPER),
    (_GREEK, _GREEK_UPPER),
    (_HEBREW,),
    (_ARABIC,),
  )
  letters = [kind for script in scripts for kind in script]
  for script in scripts:
    for kind in script:
      cost[kind, [other for other in letters if other not in script]] = -5.0
  for lower in (_LOWER, _ACCENTED, _CYR, _GREEK):
    cost[lower, [_UPPERCASE, _ACCENTED_UPPER, _CYR_UPPER, _GREEK_UPPER]] += -4.0
  cost[_CYR_UPPER, _CYR_UPPER] = cost[_GREEK_UPPER, _GREEK_UPPER] = 3.0  # Headlines have nothing but capitals.
  for kind in (_ACCENTED, _ACCENTED_UPPER):
    cost[kind, [_ACCENTED, _ACCENTED_UPPER]] += -2.0
  for kind in letters:
    cost[kind, [_SYMBOL, _BOX]] = cost[[_SYMBOL, _BOX], kind] = -2.5
    cost[kind, _OPEN] = cost[_CLOSE, kind] = -2.0
    cost[kind, _DIGIT] = cost[_DIGIT, kind] = -1.0 if kind not in (_LOWER, _UPPERCASE) else 0.0
  cost[_CLOSE, _LOWER] = cost[_CLOSE, _UPPERCASE] = -1.0  # In Finnish and Swedish ” opens too.
  return cost


def _alternation(page: str) -> np.ndarray:
  """float64[256, 256]: what vowels and consonants of Cyrillic and Greek add to the log of a pair if they take turns."""
  vowel = np.array([character.lower() in "аеёиоуыэюяіїєαεηιουωάέήίόύώ" for character in page])
  consonant = np.array([_kind(character) in (_CYR, _CYR_UPPER, _GREEK, _GREEK_UPPER) for character in page]) & ~vowel
  both = vowel[:, None] & vowel
  return (
    0.4 * ((vowel[:, None] & consonant) | (consonant[:, None] & vowel)) - 1.2 * both - 0.4 * (consonant[:, None] & consonant)
  )


def _alone(character: str) -> float:
  """The log of how much rarer a character is that has neither a letter nor a digit beside it."""
  if not character.isalpha() or ord(character) >= 0x250:
    return 0.0
  return -1.0 if character in "àáéèêíóòöåæøÀÁÉÈÍÓÅÖ" else -4.0
