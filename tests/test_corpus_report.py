"""corpus_report.html: whole, escaped, self-contained, the same bytes again, and right in what it says."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.test_convert import command
from xlmr_jax.corpus.clean.build import STEPS
from xlmr_jax.corpus.filters import REASONS, Limits, Usual
from xlmr_jax.data.row_manifest import COUNTS, write_manifest
from xlmr_jax.errors import UserError
from xlmr_jax.report.corpus_page import page as corpus_page
from xlmr_jax.report.corpus_page import steps
from xlmr_jax.report.corpus_page.numbers import ALPHAS
from xlmr_jax.report.corpus_report import write_corpus_report
from xlmr_jax.report.page import words

_VOID = {"meta", "img", "br"}
_SPELLING = Usual(median=-2.1, spread=0.1, spoilt=-2.9, spoilt_spread=0.1)
_ORDER = Usual(median=0.5, spread=0.4, spoilt=0.3, spoilt_spread=0.1)


class Page(HTMLParser):
  """A page, read strictly: every element is closed in its order. Holds its elements, its tables and what it shows."""

  def __init__(self, path: Path):
    super().__init__()
    self.source = path.read_text(encoding="utf-8")
    self.open: list[str] = []
    self.elements: list[tuple[str, dict[str, str]]] = []
    self.tables: list[list[list[str]]] = []
    self.shown = ""
    self.feed(self.source)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    assert len(attrs) == len(dict(attrs))
    if tag not in _VOID:
      self.open.append(tag)
    if tag == "table":
      self.tables.append([])
    elif tag == "tr":
      self.tables[-1].append([])
    elif tag in ("td", "th"):
      self.tables[-1][-1].append("")

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if {"script", "style"} & set(self.open):
      return
    self.shown += data
    if {"td", "th"} & set(self.open):
      self.tables[-1][-1][-1] += data

  def table(self, *headings: str) -> dict[str, dict[str, str]]:
    """The table that has these headings, {first cell: {heading: cell}}."""
    for heads, *rows in self.tables:
      if set(headings) <= set(heads):
        return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    raise AssertionError(f"no table has {headings}")


def _counts(size, documents=0, paragraphs=0, **reasons):
  return {"bytes": size, "documents": documents, "paragraphs": paragraphs, "reasons": reasons}


def _language(size, documents, clusters=None):
  limits = Limits(
    60, 9000, {"signs": 0.5, "digits": 0.35, "repeated_phrases": 0.4, "most_frequent_word": 0.3},
    {"spelling": _SPELLING, "order": _ORDER, "prior": Usual(-5.0, 0.1)},
  )  # fmt: skip
  return {
    "bytes": size, "documents": documents, "paragraphs": 3 * documents, "files": {}, "personal_data": {},
    "limits": limits.to_json(), "clusters": clusters or {"1": documents},
  }  # fmt: skip


def _manifest(languages, steps, **more):
  source = {
    "documents": 5000,
    "bytes": 3_000_000,
    "repaired_documents": 2,
    "repaired": {"c1": 7},
    "damaged": 0,
    "damages": [],
  }
  options = {"language_id": "cld2", "near_duplicates": True, "rehydrate": False}
  build = {"version": 1, "options": options, "files": {}, "shards": {"number": 2, "bytes": 3_000_000, "sha256": "00"}}
  return {"build": build, "source": source, "languages": languages, "steps": steps, **more}


_LANGUAGES = {
  "en": _language(1_234_567, 1200, {"1": 1100, "2": 30, "70": 1}),
  "ur": _language(50_000, 90),
  "x_$y": _language(900, 2),
}
_STEPS = {
  "en": {"filters": _counts(250_000, 40, short=30, order=10), "paragraphs": _counts(65_433, 1, 99, repeated=100)},
  "ur": {"near_duplicates": _counts(50_000, 12, **{"near duplicate": 12}), "repair": _counts(80, repaired=0)},
  "und": {"language": _counts(777, 3, unknown=3)},
}


def _write(out: Path, manifest, samples=()) -> Path:
  """A finished build; samples: (step, language, reason, text)."""
  out.mkdir(exist_ok=True)
  (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
  for step, language, reason, text in samples:
    path = out / "removed" / step / f"{language}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
      file.write(json.dumps({"reason": reason, "id": "a&b.wet#1", "text": text}) + "\n")
  return out


def _rows(root: Path, rows) -> Path:
  root.mkdir()
  languages = {
    code: {split: dict.fromkeys(COUNTS, n) for split, n in (("train", number), ("held_out", 1))}
    for code, number in rows.items()
  }
  write_manifest(
    root, seq_len=128, vocabulary_size=100, tokenizer_sha256="", held_out_share=0.1, languages=languages, files={}
  )
  return root


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
  samples = [
    ("filters", "en", "order", "<script>alert('1')</script> & \"</div>\""),
    ("filters", "en", "short", "a\x00b\x85c\ud800"),
    ("near_duplicates", "ur", "near duplicate", "انسانی حقوق"),
    ("repair", "ur", "repaired", "tj\x84n\n-> tjän"),
    ("repair", "ur", "repaired", "e\u0301\n-> \xe9"),
  ]
  return _write(tmp_path_factory.mktemp("three"), _manifest(_LANGUAGES, _STEPS), samples)


@pytest.fixture(scope="module")
def page(three) -> Page:
  return Page(write_corpus_report(three))


@pytest.fixture
def no_pictures(monkeypatch):
  """Drawing takes most of the time, and most tests look at words."""
  monkeypatch.setattr(corpus_page, "draw_pictures", lambda corpus, sampling: [])


def test_it_knows_every_step_and_every_reason_of_a_build():
  assert tuple(steps.STEPS) == STEPS
  assert set(REASONS) <= steps.REASONS.keys()
  assert set(REASONS) == steps.REASON_COLORS.keys()


def test_the_page_loads_nothing_and_runs_only_its_own_script(page):
  for tag, attributes in page.elements:
    assert tag not in ("link", "iframe", "object", "embed", "base", "form", "svg")
    assert not any(name.startswith("on") for name in attributes), attributes
    assert attributes.get("src", "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
    assert attributes.get("href", "#").startswith("#")
  assert "url(" not in page.source and "@import" not in page.source
  assert [tag for tag, _ in page.elements].count("script") == 1
  policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
  assert policy.startswith("default-src 'none'; img-src data:;")


def test_samples_are_escaped_and_control_characters_are_shown_by_their_numbers(page):
  assert "<script>alert" not in page.source
  assert "<script>alert('1')</script> & \"</div>\"" in page.shown
  assert "a00b85cD800" in page.shown  # json.loads gives the surrogate back
  assert "tj84n" in page.shown and "tjän" in page.shown
  assert page.shown.count("both look alike") == 1
  assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", page.source)
  assert "a&b.wet#1" in page.shown


def test_text_of_right_to_left_languages_finds_its_own_direction(page):
  texts = [attributes for tag, attributes in page.elements if attributes.get("class") == "text"]
  assert texts and all(attributes["dir"] == "auto" for attributes in texts)
  assert "ur" in {attributes.get("lang") for attributes in texts}


def test_the_tables_say_what_the_manifest_says(page):
  languages = page.table("clean bytes", "kept")
  assert list(languages) == ["English", "Urdu", "x_$y"]  # by size; a code that nobody knows stays
  assert languages["English"]["clean bytes"] == "1,234,567"
  assert languages["English"]["bytes before"] == "1,550,000"
  assert languages["Urdu"]["kept"] == "50.0 %"
  removed = page.table("all steps", "Near duplicates")
  assert removed["Urdu"]["Near duplicates"] == removed["Urdu"]["all steps"] == "50.0 %"
  assert removed["English"]["Filters"] == "16.1 %"
  assert removed["unknown language"]["Language"] == "100 %" and removed["unknown language"]["clean bytes"] == "0"
  assert page.table("whole documents")["Filters"]["bytes"] == "250,000"
  assert page.table("what it means", "documents")["short"]["share of the filters' documents"] == "75.0 %"
  assert page.table("clusters", "documents in these clusters")["51 to 100"]["documents in these clusters"] == "70"
  assert page.table("largest cluster")["English"]["documents in them"] == "130"
  assert "Confusion of languages" not in page.shown


def test_the_limits_are_those_that_the_filters_keep(page):
  english = page.table("spelling: safe from")["English"]
  assert english["punctuation and symbols, at most"] == "50.0 %"
  assert english["spelling: usual"] == "-2.10\xa0±\xa00.10"
  assert english["spelling: safe from"] == "-2.50"  # half-way between text and noise
  assert english["order: safe from"] == "-0.10"  # 1.5 spreads below the median
  assert (english["prior: safe from"], english["prior: safe up to"]) == ("-7.00", "-3.00")  # 8 spreads of at least 0.25
  assert "3 languages learnt a higher limit" in page.shown


def test_shares_and_epochs_are_those_of_the_sampling_formula(three, page, tmp_path, no_pictures):
  estimated = page.table("rows, estimated", "share at alpha\xa01")
  assert estimated["English"]["rows, estimated"] == "603" and estimated["x_$y"]["rows, estimated"] == "1"
  assert "The rows here are an estimate" in page.shown and "4 bytes of text per token" in page.shown
  rows = _rows(tmp_path / "rows", {"en": 8000, "ur": 2000, "fr": 10})
  counted = Page(write_corpus_report(three, rows, train_steps=1000, batch_rows=100))
  table = counted.table("rows", "share at alpha\xa01")
  for alpha in ALPHAS:
    weights = {"English": 8000**alpha, "Urdu": 2000**alpha, "French": 10**alpha}
    for name, n in (("English", 8000), ("Urdu", 2000), ("French", 10)):
      share = weights[name] / sum(weights.values())
      row = table[name]
      assert float(row[f"share at alpha\xa0{alpha:g}"].rstrip(" %")) == pytest.approx(100 * share, rel=0.006)
      assert float(row[f"epochs at alpha\xa0{alpha:g}"].replace(",", "")) == pytest.approx(100_000 * share / n, rel=0.006)
      assert row["documents in rows"] == row["tokens"] == row["rows"] == f"{n:,}"  # as _rows wrote them
  assert "1,000 updates with 100 rows each" in counted.shown and "as in the XLM-R paper" in page.shown
  assert "rows of 128 tokens" in counted.shown and "estimate" not in counted.shown
  assert "x_$y: has no training rows" in counted.shown and "French (fr): has training rows, but no text" in counted.shown


@pytest.mark.slow
def test_the_command_writes_the_page_anew_with_the_rows(three, tmp_path):
  rows = _rows(tmp_path / "rows", {"en": 8000, "ur": 2000})
  before = write_corpus_report(three).read_bytes()
  told = command("report", f"--corpus={three}", f"--rows={rows}", "--train_steps=2000", "--batch_rows=50")
  page = Page(three / "corpus_report.html")
  assert json.loads(told.stdout) == {"report": str(three / "corpus_report.html")}
  assert "2,000 updates with 50 rows each" in page.shown
  assert page.table("tokens", "epochs at alpha\xa01")["English"]["epochs at alpha\xa01"] == "10.0"
  command("report", f"--corpus={three}")
  assert (three / "corpus_report.html").read_bytes() == before


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((), "pass one of --workdir"),
    (("--corpus=here", "--workdir=there"), "pass one of --workdir"),
    (("--corpus=here", "--train_steps=5"), "pass both or neither"),
    (("--workdir=here", "--batch_rows=5"), "belongs to --corpus"),
  ],
)
def test_flags_that_do_not_fit_together_are_refused(arguments, message):
  told = command("report", *arguments)
  assert told.returncode and message in told.stderr and len(told.stderr.strip().split("\n")) == 1


def test_the_same_files_give_the_same_bytes(three, page):
  path = write_corpus_report(three)
  again = path.read_bytes()
  assert path == three / "corpus_report.html" and again == page.source.encode()
  for data in re.findall(rb'base64,([^"]+)"', again):
    assert not re.search(rb"<dc:date>|matplotlib v", base64.b64decode(data))
  assert {p.name for p in three.iterdir()} == {"manifest.json", "removed", "corpus_report.html"}


def test_a_corpus_of_one_language_without_samples(tmp_path):
  page = Page(write_corpus_report(_write(tmp_path / "one", _manifest({"sw": _language(500, 1)}, {}))))
  assert "Swahili (sw)" in page.shown and "Nothing was removed." in page.shown
  assert page.table("share at alpha\xa00.3")["Swahili"]["share at alpha\xa00.3"] == "100 %"
  assert sum(tag == "img" for tag, _ in page.elements) == 1  # sizes; its share is always 100 %


def test_an_empty_corpus_says_so_and_shows_what_was_removed(tmp_path):
  nothing = Page(write_corpus_report(_write(tmp_path / "nothing", _manifest({}, {}))))
  assert "No language is left" in nothing.shown and not any(tag == "img" for tag, _ in nothing.elements)
  removed = {"en": {"filters": _counts(99, 1, short=1)}}
  all_removed = Page(write_corpus_report(_write(tmp_path / "removed", _manifest({}, removed))))
  assert "No language is left" in all_removed.shown
  assert all_removed.table("all steps")["English"]["all steps"] == "100 %"


def test_damage_personal_data_and_confusion_are_shown_where_there_are_any(tmp_path, no_pictures):
  languages = {"bs": _language(700, 1), "hr": _language(1000, 2) | {"personal_data": {"email": 5}}}
  confusion = {"hr": {"hr": 900, "bs": 100}, "bs": {"hr": 300, "bs": 600}, "mt": {"en": 100}}
  manifest = _manifest(languages, {}, confusion=confusion)
  manifest["source"] |= {"damaged": 3, "damages": [["a<b>.gz@7", "cut"], ["c", "d"]]}
  page = Page(write_corpus_report(_write(tmp_path / "out", manifest)))
  assert page.table("what is wrong")["a<b>.gz@7"]["what is wrong"] == "cut" and "The first 2 are listed" in page.shown
  assert "email 5" in page.shown
  confusions = page.table("found to be")
  assert list(confusions) == ["Bosnian (bs)", "Croatian (hr)", "mt"]
  assert confusions["Bosnian (bs)"]["found to be"] == "Croatian (hr)"
  kept = page.table("kept it")
  assert [row["kept it"] for row in kept.values()] == ["90.0 %", "66.7 %", "0 %"]
  assert "75.0 % of the bytes kept their label; the mean over languages is 52.2 %" in page.shown
  assert "then these are 95.0 % and 66.7 %" in page.shown


def test_repeated_documents_leave_the_bytes_before_unknown(tmp_path, no_pictures):
  manifest = _manifest(_LANGUAGES, _STEPS)
  manifest["build"]["options"]["rehydrate"] = True
  page = Page(write_corpus_report(_write(tmp_path / "out", manifest)))
  assert page.table("clean bytes", "kept")["English"]["bytes before"] == "–"
  assert page.table("all steps")["English"]["all steps"] == "–"
  assert "before cleaning are not known" in page.shown


def test_lines_of_samples_that_cannot_be_read_are_counted(tmp_path, no_pictures):
  out = _write(tmp_path / "out", _manifest(_LANGUAGES, _STEPS), [("filters", "en", "short", "fine")])
  with (out / "removed/filters/en.jsonl").open("a") as file:
    file.write('{"reason": \n["no object"]\n')
  page = Page(write_corpus_report(out))
  assert "fine" in page.shown and "2 lines of removed/filters/en.jsonl could not be read." in page.shown


def test_an_unfinished_build_is_refused_and_nothing_is_written(tmp_path):
  with pytest.raises(UserError, match="no manifest"):
    write_corpus_report(tmp_path)
  _write(tmp_path, _manifest(_LANGUAGES, _STEPS))
  with pytest.raises(UserError, match="rows"):
    write_corpus_report(tmp_path, tmp_path / "rows")
  assert not (tmp_path / "corpus_report.html").exists()


@pytest.mark.parametrize(
  ("value", "text"),
  [(0, "0"), (0.01, "0.0100"), (0.00999999, "0.0100"), (12.34, "12.3"), (999.6, "1,000"), (1234567, "1,234,567")],
)
def test_three_digits_are_written_without_an_exponent(value, text):
  assert words.short_number(value) == text
