"""A line that cc100.py takes for blank is blank for all that writes text too, so that no document falls in two."""

import json
import unicodedata

import pytest

from xlmr_jax.corpus.blanks import BLANKS, is_blank
from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.repair import repair, repair_all
from xlmr_jax.corpus.sources.cc100 import CC100, split_documents
from xlmr_jax.corpus.sources.lines import tidy
from xlmr_jax.corpus.sources.registry import open_source

ARABIC = (
  "هذه فقرة عادية باللغة العربية عن الطقس في مدينة القاهرة وعن القطارات التي لا تصل في موعدها أبدا",
  "وهذه فقرة ثانية من الوثيقة نفسها تتحدث عن الأسواق والناس والحياة في المدينة الكبيرة",
)


# Bytes 85 alone are text in an old code page, which repair() reads.
@pytest.mark.parametrize("blank", BLANKS.replace("\x85", ""), ids=lambda blank: f"U+{ord(blank):04X}")
def test_no_line_of_blanks_is_left(blank):
  for line in (blank, f" {blank}{blank} ", f"{blank}\u200f"):
    text = f"{line}\none\n{line}\n{line}\n\ntwo\n{line}"
    assert repair(text) == "one\ntwo" and repair_all([text, line, "three"]) == ["one\ntwo", "", "three"]
    assert tidy(text) == "one\ntwo" and tidy(line) == "" and is_blank(line)
    assert len(split_documents(repair(text))) == 1


def test_signs_without_width_stay_where_there_is_text():
  text = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\u200c\n\u200fa"
  assert repair(text) == tidy(text) == text and repair_all([text]) == [text] and unicodedata.category("\u200c") == "Cf"


def test_documents_of_a_build_are_read_again_as_many(tmp_path):
  (tmp_path / "a.jsonl").write_text(json.dumps({"text": "\n\u200f\n".join(ARABIC)}) + "\n")
  options = Options(near_duplicates=False, compress=False)
  build_corpus(open_source(f"jsonl:{tmp_path / 'a.jsonl'}"), tmp_path / "out", options, workers=1, quiet=True)
  clean = CC100(tmp_path / "out", ["ar"])
  assert [document.text for shard in clean.shards(1 << 20) for document in clean.documents(shard)] == ["\n".join(ARABIC)]
