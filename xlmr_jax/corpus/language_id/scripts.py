"""Which letters the languages are written with: what a text cannot be in, and which of the two writings Chinese has."""

import functools
import re

from xlmr_jax.corpus.languages import LANGUAGES

ANY_LETTER = re.compile(r"[^\W\d_]")

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


def is_possible(language: str, text: str) -> bool:
  letters = _letters_of(language)
  return letters is None or letters.search(text) is not None


@functools.cache
def _letters_of(language: str) -> re.Pattern[str] | None:
  """Finds a letter without which no text is in the language; None if that is not known."""
  if language not in LANGUAGES:
    return None
  scripts = LANGUAGES[language].scripts
  if language == "ja":  # A Chinese text has Han too, but no Japanese sentence does without Kana.
    scripts = ("Hiragana", "Katakana")
  return re.compile("[" + "".join(_LETTERS[script] for script in scripts) + "]")


CHINESE = ("zh_Hans", "zh_Hant")

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


def chinese_writing(text: str, otherwise: str) -> str:
  """zh_Hans or zh_Hant, whichever a Chinese text has more characters of that the other has not; else `otherwise`."""
  simplified, traditional = len(_SIMPLIFIED_ONLY.findall(text)), len(_TRADITIONAL_ONLY.findall(text))
  if simplified == traditional:
    return otherwise
  return "zh_Hans" if simplified > traditional else "zh_Hant"
