"""corpus/repair.py: spoilt text comes right, and good text stays."""

import random
import re
import unicodedata
from collections import Counter

import pytest

from xlmr_jax.corpus import code_pages, zawgyi
from xlmr_jax.corpus.nfc import is_nfc
from xlmr_jax.corpus.repair import repair, repair_all

FRENCH = (
  "L'été dernier, nous étions à la plage avec les élèves.\nVoilà où ça nous a menés : près de la forêt, à côté de l'île."
)
GERMAN = "Die Mädchen hören die Vögel über den Bäumen, und die Größe der Straße überrascht.\nÄpfel schmecken süß."
SWEDISH = "Det är en gång för länge sedan på en ö där små björnar går över ån.\nÅsa såg på när fåglarna åt."
SPANISH = "El niño comió más jamón aquí el día después, según él.\n¿Qué pasó con la canción española?"
FINNISH = "Hän näki pienen pöydän äärellä tyttären, joka söi mämmiä.\nÄiti lähti töihin myöhään yöllä."
ICELANDIC = "Það var einu sinni maður sem átti þrjá syni og bjó við ána.\nÞeir fóru út að veiða á bátnum."
RUSSIAN = "Однажды весной, в час небывало жаркого заката, мы гуляли у реки.\nЁжик шёл домой и пел песню."
BULGARIAN = "Всички хора се раждат свободни и равни по достойнство.\nТе са надарени с разум и съвест."
UKRAINIAN = "Усі люди народжуються вільними і рівними у своїй гідності та правах.\nЇжак єдиний, хто біжить під вікном."
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα."
TYPOGRAPHY = "She didn’t know – “perhaps” it’s true… The café’s naïve owner wasn’t sure."
SPOILT = [
  *[(text, page) for text in (FRENCH, GERMAN, SWEDISH, SPANISH, FINNISH) for page in ("cp1252", "cp850")],
  *[(text, "cp437") for text in (FRENCH, GERMAN, SWEDISH, SPANISH, FINNISH)],
  (ICELANDIC, "cp1252"), (ICELANDIC, "cp850"), (TYPOGRAPHY, "cp1252"), (RUSSIAN, "koi8_r"), (BULGARIAN, "koi8_r"),
  (RUSSIAN, "cp1251"), (RUSSIAN, "cp866"), (BULGARIAN, "cp1251"), (UKRAINIAN, "cp1251"), (UKRAINIAN, "koi8_u"),
  (GREEK, "cp1253"), (BULGARIAN.upper(), "cp1251"),
]  # fmt: skip


def read_as_cp1252(data: bytes) -> str:
  return "".join(code_pages.characters("cp1252")[byte] for byte in data)


@pytest.mark.parametrize("text, page", SPOILT)
def test_a_code_page_read_wrongly(text, page):
  data = text.encode(page)
  for spoilt, kinds in (
    (data.decode("latin-1"), {"c1", "code_page"}),
    (read_as_cp1252(data), {"c1", "code_page"}),
    (data.decode("utf-8", "surrogateescape"), {"invalid_utf8"}),
  ):
    counts = Counter()
    assert repair(spoilt, counts) == text
    if spoilt != text:
      assert set(+counts) <= kinds and counts.total()


@pytest.mark.parametrize(
  "text", [FRENCH, GERMAN, SPANISH, RUSSIAN, UKRAINIAN, GREEK, TYPOGRAPHY, "हिन्दी में एक वाक्य", "日本語の文章です。", "🙂 ok"]
)
def test_utf8_read_wrongly_once_and_twice(text):
  for read in (lambda data: data.decode("latin-1"), read_as_cp1252):
    once = read(text.encode())
    counts = Counter()
    assert repair(once, counts) == text and counts["double_utf8"]
    assert repair(read(once.encode())) == text
    # Good text beside it stays.
    assert repair(f"{once}\n{GERMAN}") == f"{text}\n{GERMAN}"


@pytest.mark.parametrize(
  "text",
  [
    *(FRENCH, GERMAN, SWEDISH, SPANISH, FINNISH, ICELANDIC, RUSSIAN, BULGARIAN, UKRAINIAN, GREEK, TYPOGRAPHY),
    "NÃO É VERDADE: A «MAÇÃ» E A AÇÃO.\nElle a dit « oui à »… Ça, c’est l’été°.",
    "ÄÖÜ und ÆØÅ, ÁÉÍ",
    "În România, când plânge mâna ta, âme și „cuvinte”.",
    "Kríž, KRÍŽ, ÚŠ a Š v texte; daß» und É»",
    "Việt Nam có ÂÀ, ấm áp và Ðông",
    "Preis: 20 °C, 5 £, 3 €uro, § 5, 10‰ • Punkt† und so…weiter “Wort”",
    "می‌خواهم ක්‍ර 👨‍👩‍👧",
    "ภาษา\u200bไทย",
    "ဘာသာ မြန်မာ စကား",
  ],
)
def test_good_text_stays(text):
  counts = Counter()
  text = unicodedata.normalize("NFC", text)
  assert repair(text, counts) == text and not +counts


def test_what_is_doubtful_stays():
  # Quotation marks of Big5 that were read as Latin-1: no code page of 8 bits makes sense of them.
  text = "The world¡¦s peace¡Xand America¡¦s peace¡Xwith what we can do here at home¡Xfor the children¡¦s sake."
  assert repair(text) == text
  # One letter is UTF-8 read wrongly. The other could be so, but the same letter stands elsewhere.
  assert repair("fÃ¼r «CAFÉ» und ÉTÉ") == "für «CAFÉ» und ÉTÉ"


def test_bytes_that_are_not_utf8_are_damage_in_text_that_is():
  data = bytearray(RUSSIAN.encode())
  del data[5]
  counts = Counter()
  mended = repair(bytes(data).decode("utf-8", "surrogateescape"), counts)
  assert counts["invalid_utf8"] == 1 and mended.count("\ufffd") == 1
  assert mended.replace("\ufffd", "") == RUSSIAN[:2] + RUSSIAN[3:]
  # A line of another code page in a document of UTF-8.
  spoilt = f"{GERMAN}\n".encode() + SPANISH.encode("cp1252")
  assert repair(spoilt.decode("utf-8", "surrogateescape")) == f"{GERMAN}\n{SPANISH}"
  assert repair("a \ud83d\ude42 b \ud800") == "a 🙂 b \ufffd"


def test_controls_and_lines():
  counts = Counter()
  assert repair("\n a\tb\r\nc\x0bd\u2028e\x00f\ufeffg\xadh\u2060i\ufffe \n\n", counts) == "a b\nc\nd\nefghi"
  assert counts == {"controls": 7}
  assert repair("one\x0c\x0c \u2029two") == "one\ntwo"
  assert repair("a\u200bb") == "ab" and repair("ខ្ញុំ\u200bទៅ") == "ខ្ញុំ\u200bទៅ"
  counts = Counter()
  assert repair("cafe\u0301", counts) == "café" and counts == {"nfc": 1}


@pytest.mark.parametrize(
  "old, new", [("ျမန္မာ", "မြန်မာ"), ("လူ႔အခြင့္ေရး", "လူ့အခွင့်ရေး"), ("ဘဂၤလားေဒရွ္႕", "ဘင်္ဂလားဒေရှ့်"), ("ကြၽန္ုပ္", "ကျွန်ုပ်")]
)
def test_zawgyi_becomes_unicode(old, new):
  assert zawgyi.to_unicode(old).replace("\u103a\u1037", "\u1037\u103a") == unicodedata.normalize("NFC", new)


def test_zawgyi_is_found_and_is_left_without_the_package(monkeypatch):
  text = "ျမန္မာ လူ႔အခြင့္ေရး ဘဂၤလားေဒရွ္႕"

  def missing():
    raise ModuleNotFoundError("myanmartools")

  with monkeypatch.context() as patch:
    patch.setattr(zawgyi, "_detector", missing)
    counts = Counter()
    assert repair(text, counts) == text and set(counts) == {"zawgyi_kept"}
  pytest.importorskip("myanmartools")
  counts = Counter()
  assert repair(text, counts).startswith("မြန်မာ လူ့") and counts["zawgyi"]


def random_text(rng: random.Random) -> str:
  pools = (
    (0, 0x180),
    (0x80, 0x100),
    (0xDC80, 0xDD00),
    (0x1000, 0x10A0),
    (0x300, 0x370),
    (0x2000, 0x2070),
    (0, 0x110000),
    (97, 123),
  )
  return "".join(
    chr(rng.randrange(*pool)) for pool in rng.choices(pools, k=rng.randrange(1, 5)) for _ in range(rng.randrange(1, 12))
  )


def test_random_text():
  rng = random.Random(0)
  texts = [random_text(rng) for _ in range(1500)]
  for text in texts:
    mended = repair(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufeff\ufffe]|\n\n", mended)
    assert mended == mended.strip() and unicodedata.is_normalized("NFC", mended)
    assert repair(mended) == mended, ascii(text)
  assert repair_all(texts) == [repair(text) for text in texts] and repair_all([]) == []


def test_the_quick_look_at_nfc_overlooks_nothing():
  rng = random.Random(0)
  codes = [*range(0x900, 0xE00), *range(0x300, 0x345), *range(0x60, 0x80), *range(0x1100, 0x1200), *range(0x1D150, 0x1D160)]
  texts = ["".join(map(chr, rng.choices(codes, k=4))) for _ in range(40_000)]
  texts += [chr(first) + chr(second) + "\u093c" for first in range(0x900, 0xE00, 3) for second in range(0x93C, 0xE00, 7)]
  for text in texts:
    assert is_nfc(text) == unicodedata.is_normalized("NFC", text), ascii(text)
  assert is_nfc("क़लम के रंग") and not is_nfc("क\u0958") and is_nfc("ர்ற்கா")


def test_real_swedish(shared):
  text = (shared / "data" / "tiny100" / "sv.txt").read_text(encoding="utf-8")
  counts = Counter()
  mended = repair_all(text.split("\n\n"), counts)
  assert counts["c1"] == len(re.findall("[\x80-\x9f]", text)) == 8442
  meant = str.maketrans("\x84\x86\x94\x82\x8f\x8e\x99", "äåöéÅÄÖ")
  for old, new in zip(text.split("\n\n"), mended, strict=True):
    if re.search("[\x80-\x9f]", old):
      assert new.replace("¢", "½") == old.translate(meant).strip()


@pytest.mark.parametrize(
  "language, page", [("da", "cp850"), ("nl", "cp437"), ("it", "cp1252"), ("ru", "koi8_r"), ("mk", "cp1251"), ("pt", "utf-8")]
)
def test_real_text_that_was_spoilt(shared, language, page):
  right = total = 0
  for text in (shared / "data" / "tiny100" / f"{language}.txt").read_text(encoding="utf-8").split("\n\n")[:150]:
    data = text.encode(page, "ignore")
    original = repair(data.decode(page))
    assert original == data.decode(page).strip()
    spoilt = data.decode("latin-1")
    if spoilt != original:
      mended = repair(spoilt)
      assert len(mended) == len(original)
      right, total = right + sum(a == b for a, b in zip(original, mended, strict=True)), total + len(original)
  assert total > 1000 and right / total >= 0.99
