"""`xlmr build_corpus --reference=DIR`: limits are learnt from clean text where it has the language."""

import json
import random

import pytest

from tests.test_build_corpus import tree, wet_record
from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.reference import Reference
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import UserError

SMALL = {"piece_mb": 0.05, "near_duplicates": False}


def texts(language: str, count: int) -> list[str]:
  """Documents of about 80 words: each is twenty successive ones of the demo's."""
  short = [" ".join(paragraphs) for paragraphs in documents(language, count=20 * count)]
  return ["\n".join(short[i : i + 20]) for i in range(0, len(short), 20)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
  folder = tmp_path_factory.mktemp("reference")
  (folder / "en.txt").write_text("\n\n".join(texts("en", 100)) + "\n")
  return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
  """A crawl whose English is too small to learn from, and half of it in random order."""
  rng = random.Random(0)
  english = texts("en", 120)[100:]
  shuffled = [" ".join(rng.sample(text.split(), len(text.split()))) for text in english[:10]]
  records = [wet_record(number, text) for number, text in enumerate([*shuffled, *english[10:], *texts("sw", 3)])]
  path = tmp_path_factory.mktemp("wet") / "0.warc.wet.gz"
  path.write_bytes(b"".join(records))
  return f"wet:{path}"


def test_limits_come_from_the_reference_where_it_has_the_language(source, reference, tmp_path, capsys):
  for name, options in (("alone", {}), ("with", {"reference": str(reference)})):
    build_corpus(open_source(source), tmp_path / name, Options(**SMALL, **options), workers=1)
  assert "limits learnt from the reference: en\nlimits learnt from the crawl: sw\n" in capsys.readouterr().err
  alone, helped = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("alone", "with"))
  limits = helped["languages"]["en"]["limits"]
  assert limits["learnt_from"] == "reference" and limits["sample"]["documents"] == 100
  assert helped["languages"]["sw"]["limits"] == alone["languages"]["sw"]["limits"]
  assert alone["languages"]["en"]["limits"]["learnt_from"] == "crawl"
  assert alone["languages"]["en"]["limits"]["scores"] == {} and alone["languages"]["en"]["documents"] == 20
  assert helped["languages"]["en"]["documents"] == 10
  assert helped["steps"]["en"]["filters"]["reasons"] == {"order": 10}


def test_two_workers_learn_the_same_and_another_reference_is_another_build(source, reference, tmp_path):
  options = Options(**SMALL, reference=str(reference))
  for workers in (1, 2):
    build_corpus(open_source(source), tmp_path / str(workers), options, workers=workers, quiet=True)
  assert tree(tmp_path / "1") == tree(tmp_path / "2")
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "en.txt").write_text("Another text.\n")
  options = Options(**SMALL, reference=str(tmp_path / "other"))
  with pytest.raises(UserError, match="reference"):
    build_corpus(open_source(source), tmp_path / "1", options, workers=1, quiet=True)


def test_a_sample_has_the_lowest_hashes_whatever_the_order(reference, tmp_path):
  (tmp_path / "en.txt").write_text("\n\n".join(reversed((reference / "en.txt").read_text().strip().split("\n\n"))))
  one, other = (Reference(folder).sample("en", 7) for folder in (reference, tmp_path))
  assert one == other and len(one) == 7
  assert max(one) < min(set(Reference(reference).sample("en", 1000)) - set(one))
