"""The language of documents and paragraphs: codes, vetoes, labels, models from a file, and the training of one."""

import hashlib
import json
import pickle
import random
import re
import subprocess
import sys

import pytest

from xlmr_jax.corpus.language_id import Identification, open_identifier
from xlmr_jax.corpus.languages import LANGUAGES, normal_code
from xlmr_jax.errors import UserError

pytest.importorskip("pycld2")
pytest.importorskip("py3langid")

# Two paragraphs of each language, written for this file.
TEXTS = {
  "de": [
    "Gestern haben wir im Garten hinter dem alten Haus einen kleinen Igel gefunden, der unter den Blättern schlief.",
    "Meine Schwester wollte ihn sofort füttern, aber der Nachbar sagte, dass man ihn lieber in Ruhe lassen solle.",
  ],
  "en": [
    "The ferry leaves the harbour every morning at seven, unless the wind is so strong that nobody wants to cross.",
    "When we finally arrived on the other side, the baker had already sold most of his bread to the fishermen.",
  ],
  "fr": [
    "Chaque dimanche, mon grand-père nous racontait comment il avait traversé les montagnes à pied pendant l'hiver.",
    "Nous n'avons jamais su si toute l'histoire était vraie, mais personne ne se lassait de l'entendre.",
  ],
  "pl": [
    "W naszej wiosce mieszka stary zegarmistrz, który potrafi naprawić każdy zegar, jaki mu przyniosą ludzie.",
    "Kiedy pytam go, jak to robi, uśmiecha się tylko i mówi, że trzeba umieć słuchać małych kółek.",
  ],
  "tr": [
    "Her akşam deniz kenarında yürüyen yaşlı adam, martılara ekmek atar ve onlarla uzun uzun konuşurdu.",
    "Çocuklar onu çok severdi, çünkü cebinde her zaman birkaç şeker ve anlatacak yeni bir hikâye bulunurdu.",
  ],
  "ru": [
    "Вчера вечером мы долго сидели на кухне и обсуждали, куда поехать летом, но так ничего и не решили.",
    "Утром брат позвонил и сказал, что уже купил билеты на поезд, который идёт к самому морю.",
  ],
  "uk": [
    "Щоранку бабуся виходила на ґанок, годувала курей і дивилася, чи не їде дорогою листоноша з новинами.",
    "Якщо лист приходив, вона кликала сусідку, бо сама вже погано бачила і не могла його прочитати.",
  ],
  "el": [
    "Το καλοκαίρι το χωριό γεμίζει κόσμο και τα παιδιά παίζουν στην πλατεία μέχρι αργά το βράδυ.",
    "Ο καφετζής κάθεται μπροστά στο μαγαζί του και χαιρετάει όλους όσους περνούν από εκεί.",
  ],
  "he": [
    "בכל בוקר הילדים הולכים לבית הספר דרך הפארק ומחפשים חתולים קטנים מתחת לספסלים.",
    "המורה שלהם כבר יודעת שהם יאחרו קצת, ולכן היא מתחילה את השיעור בסיפור קצר.",
  ],
  "fa": [
    "پدربزرگ هر روز بعد از ظهر زیر درخت توت می‌نشست و برای بچه‌ها از سفرهای دور خود تعریف می‌کرد.",
    "ما هیچ وقت از شنیدن آن داستان‌ها خسته نمی‌شدیم و همیشه می‌خواستیم که او ادامه بدهد.",
  ],
  "hi": [
    "गाँव के बाहर एक पुराना कुआँ है जिसके पास बच्चे हर शाम खेलने के लिए इकट्ठा होते हैं।",
    "दादी कहती हैं कि उस कुएँ का पानी पहले बहुत मीठा था और दूर दूर से लोग उसे लेने आते थे।",
  ],
  "ko": [
    "우리 할머니는 매일 아침 시장에 가서 싱싱한 생선과 채소를 사 오셨다.",
    "저녁이 되면 온 가족이 둘러앉아 그날 있었던 일을 이야기했다.",
  ],
  "ja": [
    "昨日の夜、友だちと一緒に川のそばを歩きながら、来年の旅行について話しました。",
    "まだ行き先は決まっていませんが、たぶん北の島へ行くと思います。",
  ],
  "zh_Hans": [
    "昨天晚上我们在图书馆里学习了很长时间，后来发现门已经关了。",
    "还好管理员没有走远，他听见我们的声音就回来开门。",
  ],
  "zh_Hant": [
    "昨天晚上我們在圖書館裡學習了很長時間，後來發現門已經關了。",
    "還好管理員沒有走遠，他聽見我們的聲音就回來開門。",
  ],
  "ku": [
    "Her sibe zarokên gundê me diçin dibistanê û li ser rê bi hev re stranan dibêjin, çimkî ew ji hînbûnê hez dikin.",
    "Bavê min dibêje ku berê di vî gundî de ne dibistan hebû ne jî mamoste, lê niha her tişt hatiye guhertin.",
  ],
}  # fmt: skip


@pytest.fixture(scope="module")
def cld2():
  return open_identifier("cld2")


@pytest.mark.parametrize(
  "given, code",
  [
    ("deu", "de"), ("deu_Latn", "de"), ("de-DE", "de"), ("cmn_Hani", "zh_Hans"), ("zh-cn", "zh_Hans"), ("zh-TW", "zh_Hant"),
    ("zho_Hans", "zh_Hans"), ("zho_Hant", "zh_Hant"), ("nb", "no"), ("nno_Latn", "no"), ("fil", "tl"), ("iw", "he"),
    ("jw", "jv"), ("in", "id"), ("hin_Latn", "hi_rom"), ("hi_rom", "hi_rom"), ("hin_Deva", "hi"), ("srp_Latn", "sr"),
    ("als", "gsw"), ("als_Latn", "sq"), ("ckb", "ckb"), ("kmr_Latn", "ku"), ("rus_Latn", "ru_Latn"), ("mlt", "mt"),
    ("und", "und"), ("mya_Qaag", "my_zaw"), ("", ""), ("English (US)", ""), ("EN", "en"),
  ],
)  # fmt: skip
def test_other_spellings_of_codes(given, code):
  assert normal_code(given) == code
  assert normal_code(code) == code


def test_table_of_languages_is_whole():
  assert len(LANGUAGES) == 116
  for code, language in LANGUAGES.items():
    assert code == language.code == normal_code(code) == normal_code(code.replace("_", "-").upper())
    assert re.fullmatch("[a-z]{3}", language.iso) and language.name and language.scripts
    assert normal_code(language.iso).split("_")[0] == code.split("_")[0]


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_found(cld2, language):
  found = cld2.document(TEXTS[language])
  assert found.language == language and found.paragraphs == [language, language]
  assert cld2.document(TEXTS[language], language) == Identification(language, True, [language, language])


def test_one_by_one_and_in_a_batch_are_the_same(cld2):
  batch = [(paragraphs * times, "") for times in (1, 5, 30) for paragraphs in TEXTS.values()]
  batch += [([], ""), ([""], "de"), (["12 345", "---"], "")]
  together = cld2.documents(batch)
  assert together == [cld2.document(*pair) for pair in batch]
  assert together == pickle.loads(pickle.dumps(cld2)).documents(batch)
  assert together[-1] == Identification("und", False, ["und", "und"])
  assert together[-3] == Identification("und", False, [])


def test_label_is_believed_unless_the_text_clearly_is_in_another_language(cld2):
  assert cld2.document(TEXTS["de"], "fra_Latn").language == "de"  # overruled
  assert cld2.document(["OK, 12.5 kg"], "nl").language == "nl"  # too little to say otherwise
  assert cld2.document(["Sutra idemo u grad."], "bs").language == "bs"  # alike
  assert cld2.document(["Saya pergi ke pasar setiap hari untuk membeli ikan dan sayur."], "ms").language == "ms"
  assert cld2.document(TEXTS["zh_Hant"], "zh").language == "zh_Hant"  # "zh" names both forms
  assert cld2.document(TEXTS["de"], "no language").language == "de"
  assert cld2.document(["Kal hum sab log bazaar gaye the aur wahan bahut bheed thi."], "hi_rom").language == "hi_rom"


def test_languages_that_are_alike_do_not_take_a_document_apart(cld2):
  croatian = "Tijekom tjedna vlak s kolodvora kreće u sedam sati, a u nedjelju tek nakon osam sati ujutro."
  serbian = "Tokom nedelje voz sa železničke stanice kreće u sedam časova, a u nedelju tek posle osam časova ujutru."
  mixed = [croatian, serbian, " ".join(TEXTS["de"]), " ".join(TEXTS["en"])]
  assert cld2.document(mixed, "hr").paragraphs == ["hr", "hr", "de", "en"]


def test_language_whose_letters_do_not_occur_is_impossible(cld2):
  assert cld2.document(["Hello", "Goodbye"], "ru").language != "ru"
  assert cld2.document(["123 456"], "ru").language == "und"
  assert cld2.document(["春夏秋冬東西南北"]).language != "ja"  # no Kana
  for text in ("abc", "где", "ค", "x y z", "ไป", "ሰላም", "한국", "ñ"):
    language = cld2.document([text]).language
    assert language == "und" or language not in LANGUAGES or "Latin" in LANGUAGES[language].scripts or not text.isascii()


def test_foreign_paragraphs_are_found(cld2):
  order = ["de", "ru", "en", "hi", "zh_Hans", "tr", "ja", "fr"]
  paragraphs = [" ".join(TEXTS[language]) for language in order]
  assert cld2.document(paragraphs).paragraphs == order
  # In a long document too; and what is too short to tell is as its neighbours are, or as the document is.
  long = TEXTS["de"] * 40
  found = cld2.document([*long, *TEXTS["fr"], "1996", TEXTS["fr"][0], "OK", *long])
  assert found.language == "de" and found.sure
  assert found.paragraphs == ["de"] * 80 + ["fr"] * 4 + ["de"] * 81


def test_no_text_is_too_odd(cld2):
  chance = random.Random(0)
  points = [*range(0x80, 0xA0), *range(32), 0xD800, 0xDFFF, 0xFDD0, 0xFFFE, 0xFFFF, 0x1FFFF, 0x10FFFF, 0x200B, 0xFEFF, 0x7F]
  documents = []
  for _ in range(300):
    texts = []
    for _ in range(chance.randint(0, 5)):
      points_of_text = [chance.choice(points) if chance.random() < 0.3 else chance.randrange(0x110000) for _ in range(120)]
      texts.append("".join(map(chr, points_of_text)) + chance.choice(["", " and some words of English that can be read"]))
    documents.append((texts, chance.choice(["", "en", "ru", "zz", "\ud800"])))
  for (texts, _), found in zip(documents, cld2.documents(documents)):
    assert len(found.paragraphs) == len(texts) and found.language
  assert cld2.document(["\x85\x93 " + TEXTS["de"][0] + " \ud800 \uffff"]).language == "de"


def test_unknown_identifiers_are_refused(tmp_path):
  for spec in ("cld3", "fasttext", "fasttext:", ""):
    with pytest.raises(UserError, match="must be cld2 or fasttext:FILE"):
      open_identifier(spec)
  with pytest.raises(UserError, match="cld2 has no file"):
    open_identifier("cld2", "0" * 64)
  with pytest.raises(UserError, match=r"there is no such file; pass --language_id=fasttext:FILE\.bin"):
    open_identifier(f"fasttext:{tmp_path}/none.bin")


def test_damaged_models_are_refused_by_name(tmp_path):
  pytest.importorskip("fasttext")
  file = tmp_path / "bad.bin"
  file.write_bytes(b"no model at all" * 20)
  with pytest.raises(UserError, match=r"bad\.bin: is no whole fastText model"):
    open_identifier(f"fasttext:{file}")
  with pytest.raises(UserError, match=r"bad\.bin: its sha256 is [0-9a-f]{64}, not 0000"):
    open_identifier(f"fasttext:{file}", "0" * 64)


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
  (tmp_path / "model.bin").write_bytes(b"x")
  monkeypatch.setitem(sys.modules, "fasttext", None)
  with pytest.raises(UserError, match=r"pip install 'xlmr_jax\[fasttext\]'"):
    open_identifier(f"fasttext:{tmp_path}/model.bin")


def _xlmr(*arguments):
  done = subprocess.run([sys.executable, "-m", "xlmr_jax", "language_id", *arguments], capture_output=True, text=True)
  return done.returncode, done.stdout, done.stderr


ROMANISED = [
  "Kal hum sab log bazaar gaye the aur wahan bahut bheed thi, isliye jaldi ghar wapas aa gaye.",
  "Mujhe samajh nahi aata ki tum roz itni der tak kyun jaagte ho jab subah jaldi uthna hota hai.",
  "Uske bhai ne kaha ki baarish ke baad hi khet mein kaam shuru karenge, abhi zameen sookhi hai.",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder of labelled text, and in it model.bin, which is trained on it."""
  pytest.importorskip("fasttext")
  from xlmr_jax.corpus.language_id_training import train

  folder = tmp_path_factory.mktemp("trained")
  for language in ("de", "en", "fr", "ru", "el", "zh_Hans"):
    (folder / f"{language}.txt").write_text("\n\n".join(TEXTS[language]) + "\n", encoding="utf-8")
  (folder / "hi_rom.txt").write_text("\n\n".join(ROMANISED) + "\n", encoding="utf-8")
  made = train(folder, folder / "model.bin")
  assert made["languages"] == 7 and made["bytes"] == (folder / "model.bin").stat().st_size
  return folder


def test_trained_model_finds_a_language_that_no_package_knows(trained):
  model = open_identifier(f"fasttext:{trained}/model.bin", hashlib.sha256((trained / "model.bin").read_bytes()).hexdigest())
  new = "Aaj subah hum log jaldi uthe aur khet mein kaam karne gaye, par wahan bahut bheed thi."
  assert model.document([new]).language == "hi_rom"
  assert pickle.loads(pickle.dumps(model)).document([*TEXTS["ru"], new]).paragraphs == ["ru", "ru", "hi_rom"]
  assert model.document(["\ud800\x00\n", "123"]).language == "und"

  code, out, error = _xlmr("test", f"--text={trained}", f"--model={trained}/model.bin")
  assert code == 0, error
  summary = json.loads(out.splitlines()[-1])
  assert summary["macro_recall"] > 0.9 and summary["languages"] == 7
  assert re.search(r"^ +hi_rom +3 +1\.000", error, re.MULTILINE)


def test_part_of_a_model_is_refused(trained, tmp_path):
  whole = (trained / "model.bin").read_bytes()
  for length in (0, 3, 90, 1000, len(whole) // 2, len(whole) - 1):
    (tmp_path / "part.bin").write_bytes(whole[:length])
    with pytest.raises(UserError, match=r"part\.bin: is no whole fastText model"):
      open_identifier(f"fasttext:{tmp_path}/part.bin")


@pytest.mark.slow
def test_training_makes_the_same_bytes_again(trained, tmp_path):
  code, out, error = _xlmr("train", f"--text={trained}", f"--out={tmp_path}/again.bin")
  assert code == 0, error
  whole = (trained / "model.bin").read_bytes()
  assert (tmp_path / "again.bin").read_bytes() == whole
  code, out, error = _xlmr("train", f"--text={trained}", f"--out={tmp_path}/small.ftz", "--quantize")
  assert code == 0, error
  assert json.loads(out)["bytes"] < len(whole) / 4
  assert open_identifier(f"fasttext:{tmp_path}/small.ftz").document(TEXTS["el"]).language == "el"
  assert sorted(path.name for path in tmp_path.iterdir()) == ["again.bin", "small.ftz"]


def test_command_says_what_is_wrong(tmp_path):
  (tmp_path / "de.txt").write_text("\n\n".join(TEXTS["de"]), encoding="utf-8")
  code, _, error = _xlmr(f"--text={tmp_path}")
  assert code == 1 and "takes train or test" in error
  code, _, error = _xlmr("train", f"--text={tmp_path}")
  assert code == 1 and "needs --out=FILE" in error
  code, _, error = _xlmr("train", f"--text={tmp_path}", f"--out={tmp_path}/m.bin")
  assert code == 1 and ("at least 2" in error or "xlmr_jax[fasttext]" in error)
  assert not (tmp_path / "m.bin").exists()


def test_file_without_a_blank_line_is_taken_for_sentences(tmp_path, cld2):
  from xlmr_jax.corpus.language_id_training import test as run_test

  (tmp_path / "de.txt").write_text("\n".join(TEXTS["de"] * 3), encoding="utf-8")
  (tmp_path / "ru.txt").write_text("\n\n".join("\n".join(TEXTS["ru"]) for _ in range(4)), encoding="utf-8")
  assert {row["language"]: row["units"] for row in run_test(cld2, tmp_path)["table"]} == {"de": 6, "ru": 4}
  assert {row["language"]: row["units"] for row in run_test(cld2, tmp_path, unit="line")["table"]} == {"de": 6, "ru": 8}


@pytest.mark.slow
def test_accuracy_on_real_text(shared, cld2):
  """The figures over all of it are measured by benchmarks/language_id.py; this is every fortieth document."""
  from benchmarks import language_id as measured

  documents = sorted(measured.read(str(shared / "data" / "tiny100")))[::40]
  found = cld2.documents([(paragraphs, "") for _, paragraphs in documents])
  pairs = [
    (language, answer.language, measured.size("\n".join(paragraphs)))
    for (language, paragraphs), answer in zip(documents, found)
  ]
  right, macro, _ = measured.recall(pairs, measured._BCS)
  assert right > 99.2 and macro > 98
  sure = [pair for pair, answer in zip(pairs, found) if answer.sure]
  assert sum(size for *_, size in sure) > 0.97 * sum(size for *_, size in pairs)
  assert measured.recall(sure, measured._BCS)[0] > 99.7
