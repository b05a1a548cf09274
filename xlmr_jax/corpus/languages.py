"""The languages of CC-100 by its own codes, with their names and scripts, and what other lists of languages call them."""

import re
from typing import NamedTuple

UNKNOWN = "und"  # ISO 639-2's code for a language that could not be determined


class Language(NamedTuple):
  """One file of CC-100."""

  code: str  # as CC-100 names the file, but with an underscore: zh_Hans
  name: str  # English
  scripts: tuple[str, ...]  # Unicode's names; a text in none of them is not in this language
  iso: str  # ISO 639-3; several codes may share one


# The 100 languages of XLM-R (Conneau et al. 2020, Table 6), then the files that CC-100's public rebuild has beyond these
# (https://data.statmt.org/cc-100/). Scripts are those of running text that a crawl holds: Uzbek in Latin and in Cyrillic.
_TABLE = """
af        Afrikaans                Latin                     afr
am        Amharic                  Ethiopic                  amh
ar        Arabic                   Arabic                    ara
as        Assamese                 Bengali                   asm
az        Azerbaijani              Latin,Cyrillic            aze
be        Belarusian               Cyrillic,Latin            bel
bg        Bulgarian                Cyrillic                  bul
bn        Bengali                  Bengali                   ben
bn_rom    Bengali Romanized        Latin                     ben
br        Breton                   Latin                     bre
bs        Bosnian                  Latin,Cyrillic            bos
ca        Catalan                  Latin                     cat
cs        Czech                    Latin                     ces
cy        Welsh                    Latin                     cym
da        Danish                   Latin                     dan
de        German                   Latin                     deu
el        Greek                    Greek                     ell
en        English                  Latin                     eng
eo        Esperanto                Latin                     epo
es        Spanish                  Latin                     spa
et        Estonian                 Latin                     est
eu        Basque                   Latin                     eus
fa        Persian                  Arabic                    fas
fi        Finnish                  Latin                     fin
fr        French                   Latin                     fra
fy        Western Frisian          Latin                     fry
ga        Irish                    Latin                     gle
gd        Scottish Gaelic          Latin                     gla
gl        Galician                 Latin                     glg
gu        Gujarati                 Gujarati                  guj
ha        Hausa                    Latin                     hau
he        Hebrew                   Hebrew                    heb
hi        Hindi                    Devanagari                hin
hi_rom    Hindi Romanized          Latin                     hin
hr        Croatian                 Latin                     hrv
hu        Hungarian                Latin                     hun
hy        Armenian                 Armenian                  hye
id        Indonesian               Latin                     ind
is        Icelandic                Latin                     isl
it        Italian                  Latin                     ita
ja        Japanese                 Han,Hiragana,Katakana     jpn
jv        Javanese                 Latin                     jav
ka        Georgian                 Georgian                  kat
kk        Kazakh                   Cyrillic,Latin            kaz
km        Khmer                    Khmer                     khm
kn        Kannada                  Kannada                   kan
ko        Korean                   Hangul                    kor
ku        Kurdish (Kurmanji)       Latin                     kmr
ky        Kyrgyz                   Cyrillic                  kir
la        Latin                    Latin                     lat
lo        Lao                      Lao                       lao
lt        Lithuanian               Latin                     lit
lv        Latvian                  Latin                     lav
mg        Malagasy                 Latin                     mlg
mk        Macedonian               Cyrillic                  mkd
ml        Malayalam                Malayalam                 mal
mn        Mongolian                Cyrillic                  mon
mr        Marathi                  Devanagari                mar
ms        Malay                    Latin                     msa
my        Burmese                  Myanmar                   mya
my_zaw    Burmese (Zawgyi)         Myanmar                   mya
ne        Nepali                   Devanagari                nep
nl        Dutch                    Latin                     nld
no        Norwegian                Latin                     nor
om        Oromo                    Latin                     orm
or        Oriya                    Oriya                     ori
pa        Punjabi                  Gurmukhi                  pan
pl        Polish                   Latin                     pol
ps        Pashto                   Arabic                    pus
pt        Portuguese               Latin                     por
ro        Romanian                 Latin                     ron
ru        Russian                  Cyrillic                  rus
sa        Sanskrit                 Devanagari                san
sd        Sindhi                   Arabic                    snd
si        Sinhala                  Sinhala                   sin
sk        Slovak                   Latin                     slk
sl        Slovenian                Latin                     slv
so        Somali                   Latin                     som
sq        Albanian                 Latin                     sqi
sr        Serbian                  Cyrillic,Latin            srp
su        Sundanese                Latin                     sun
sv        Swedish                  Latin                     swe
sw        Swahili                  Latin                     swa
ta        Tamil                    Tamil                     tam
ta_rom    Tamil Romanized          Latin                     tam
te        Telugu                   Telugu                    tel
te_rom    Telugu Romanized         Latin                     tel
th        Thai                     Thai                      tha
tl        Filipino                 Latin                     tgl
tr        Turkish                  Latin                     tur
ug        Uyghur                   Arabic                    uig
uk        Ukrainian                Cyrillic                  ukr
ur        Urdu                     Arabic                    urd
ur_rom    Urdu Romanized           Latin                     urd
uz        Uzbek                    Latin,Cyrillic            uzb
vi        Vietnamese               Latin                     vie
xh        Xhosa                    Latin                     xho
yi        Yiddish                  Hebrew                    yid
zh_Hans   Chinese (Simplified)     Han                       zho
zh_Hant   Chinese (Traditional)    Han,Bopomofo              zho
ff        Fulah                    Latin                     ful
gn        Guarani                  Latin                     grn
ht        Haitian Creole           Latin                     hat
ig        Igbo                     Latin                     ibo
lg        Ganda                    Latin                     lug
li        Limburgish               Latin                     lim
ln        Lingala                  Latin                     lin
ns        Northern Sotho           Latin                     nso
qu        Quechua                  Latin                     que
rm        Romansh                  Latin                     roh
sc        Sardinian                Latin                     srd
ss        Swati                    Latin                     ssw
tn        Tswana                   Latin                     tsn
wo        Wolof                    Latin                     wol
yo        Yoruba                   Latin                     yor
zu        Zulu                     Latin                     zul
"""


def _read_table() -> dict[str, Language]:
  rows = (re.split(r"\s{2,}", line) for line in _TABLE.strip().split("\n"))
  return {code: Language(code, name, tuple(scripts.split(",")), iso) for code, name, scripts, iso in rows}


LANGUAGES: dict[str, Language] = _read_table()

# ISO 15924's codes, which other lists append to a language, for Unicode's names of scripts.
_SCRIPT_OF = {
  "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Bopo": "Bopomofo", "Cyrl": "Cyrillic", "Deva": "Devanagari",
  "Ethi": "Ethiopic", "Geor": "Georgian", "Grek": "Greek", "Gujr": "Gujarati", "Guru": "Gurmukhi", "Hang": "Hangul",
  "Hani": "Han", "Hans": "Han", "Hant": "Han", "Hebr": "Hebrew", "Hira": "Hiragana", "Hrkt": "Hiragana", "Jpan": "Han",
  "Kana": "Katakana", "Khmr": "Khmer", "Knda": "Kannada", "Kore": "Hangul", "Laoo": "Lao", "Latn": "Latin",
  "Mlym": "Malayalam", "Mymr": "Myanmar", "Orya": "Oriya", "Sinh": "Sinhala", "Taml": "Tamil", "Telu": "Telugu",
  "Thai": "Thai",
}  # fmt: skip

# Other codes of CC-100's languages: retired ones, ISO 639-2's bibliographic ones, and the members of a macrolanguage that
# others file its standard written form under (npi for ne, zsm for ms).
_ALIASES = {
  "iw": "he", "ji": "yi", "ydd": "yi", "jw": "jv", "in": "id", "mo": "ro", "mol": "ro", "rum": "ro", "nb": "no",
  "nob": "no", "fil": "tl", "alb": "sq", "aln": "sq", "arm": "hy", "baq": "eu", "bur": "my", "chi": "zh", "cmn": "zh",
  "cze": "cs", "dut": "nl", "fre": "fr", "geo": "ka", "ger": "de", "gre": "el", "ice": "is", "mac": "mk", "may": "ms",
  "per": "fa", "slo": "sk", "wel": "cy", "arb": "ar", "azj": "az", "ekk": "et", "lvs": "lv", "pes": "fa", "prs": "fa",
  "khk": "mn", "kur": "ku", "npi": "ne", "ory": "or", "pbt": "ps", "pbu": "ps", "pst": "ps", "plt": "mg", "swh": "sw",
  "uzn": "uz", "zsm": "ms", "gaz": "om", "hae": "om", "quy": "qu", "quz": "qu", "gug": "gn", "fuc": "ff", "fuv": "ff",
  "nso": "ns", "sro": "sc", "src": "sc", "zho": "zh",
  # Both written forms of Norwegian are Norwegian; CC-100 has no file for Nynorsk.
  "nn": "no", "nno": "no",
}  # fmt: skip

# Two letters for the three of languages that are not in CC-100, so that two identifiers call such a language the same.
_OTHERS = """
aar:aa abk:ab aka:ak amh:am arg:an ava:av aym:ay bak:ba bam:bm bih:bh bis:bi bod:bo tib:bo cha:ch che:ce chv:cv cor:kw
cos:co cre:cr div:dv dzo:dz ewe:ee fao:fo fij:fj glv:gv hmo:ho her:hz ido:io iii:ii iku:iu ile:ie ina:ia ipk:ik kal:kl
kas:ks kau:kr kik:ki kin:rw kom:kv kon:kg kua:kj lub:lu ltz:lb mah:mh mlt:mt mri:mi mao:mi nau:na nav:nv nbl:nr nde:nd
ndo:ng nya:ny oci:oc oji:oj oss:os pli:pi run:rn sag:sg sme:se smo:sm sna:sn sot:st tah:ty tat:tt tgk:tg tir:ti
ton:to tso:ts tuk:tk twi:tw ven:ve vol:vo wln:wa zha:za
"""
_TWO_LETTERS = {pair[:3]: pair[4:] for pair in _OTHERS.split()}

_ROMANISED = {language.code[:2]: code for code, language in LANGUAGES.items() if code.endswith("_rom")}
_ISO = {language.iso: code for code, language in LANGUAGES.items() if "_" not in code}
_SHAPE = re.compile(r"([a-z]{2,3})((?:-[a-z0-9]{1,8})*)")
_CHINESE = ("zh_Hans", "zh_Hant")
_TRADITIONAL = {"hant", "tw", "hk", "mo"}  # Taiwan, Hong Kong and Macao write traditional characters


def normal_code(code: str) -> str:
  """CC-100's code for a language that others spell otherwise: "deu_Latn" -> "de", "zh-TW" -> "zh_Hant".

  A language that CC-100 does not have, or not in the given script, keeps its code in the shape "mt" or "ru_Latn";
  "hin_Latn" is "hi_rom".
  Returns "" for "", and for what is no code of a language, such as "English (US)".
  """
  shape = _SHAPE.fullmatch(code.strip().lower().replace("_", "-"))
  if not shape:
    return ""
  language, parts = shape[1], shape[2].split("-")[1:]
  script = next((part.capitalize() for part in parts if len(part) == 4 and part.isalpha()), "")
  if language == "als":
    # ISO 639-3's als is Tosk Albanian, but without a script it is what Wikipedia and fastText's lid.176 call Alemannic.
    language = "sq" if script else "gsw"
  if language in ("sh", "hbs", "scr", "scc"):
    # Serbo-Croatian. In Latin letters the three cannot be told by such a code, and Croatian has the most text in CC-100.
    language = "sr" if script == "Cyrl" or language == "scc" else "hr"
  language = _ALIASES.get(language) or _ISO.get(language) or _TWO_LETTERS.get(language) or language
  if language == "ku" and script == "Arab":
    return "ckb"  # Sorani; CC-100's Kurdish is Kurmanji in Latin letters
  if language == "zh" and script in ("", "Hani", "Hans", "Hant"):
    return _CHINESE[not _TRADITIONAL.isdisjoint(parts)]
  if "rom" in parts or "latinised" in parts:
    return _ROMANISED.get(language, f"{language}_Latn")
  if language == "my" and {"zaw", "qaag"} & set(parts):  # Qaag is the Unicode consortium's code for Zawgyi.
    return "my_zaw"
  if not script or (language in LANGUAGES and _SCRIPT_OF.get(script) in LANGUAGES[language].scripts):
    return language
  return _ROMANISED[language] if script == "Latn" and language in _ROMANISED else f"{language}_{script}"
