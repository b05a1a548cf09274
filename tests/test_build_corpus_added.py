"""`xlmr build_corpus --languages` into a finished build: what is written anew counts once, and the rest stays."""

import json
import threading
import unicodedata
from pathlib import Path

import pytest

from tests.test_build_corpus import crawl, tree, wet_record
from xlmr_jax.corpus.clean import begin as module
from xlmr_jax.corpus.clean import finish, job
from xlmr_jax.corpus.clean.build import WORK, Inputs, Options, build_corpus, new_job
from xlmr_jax.corpus.clean.forecast import forecast
from xlmr_jax.corpus.languages import LANGUAGES
from xlmr_jax.corpus.reference import Reference
from xlmr_jax.corpus.sources.jsonl import JsonLines
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import UserError

ALL = Options(piece_mb=0.02, file_mb=0.05, removed="all")


def texts(language: str, first: int, last: int) -> list[str]:
  return [" ".join(paragraphs) for paragraphs in documents(language, count=last)][first:last]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
  """A crawl with near duplicates and a repaired document in English, and a document in English and Swahili."""
  long = " ".join(texts("en", 70, 90))
  both = "\n".join([*texts("en", 90, 94), " ".join(texts("sw", 70, 76))])
  repaired = unicodedata.normalize("NFD", "The café by the river sells crème brûlée to those who pass it in the morning.")
  path = tmp_path_factory.mktemp("wet") / "0.warc.wet.gz"
  found = [*crawl(), long, f"{long} Nothing else is new.", both, repaired]
  path.write_bytes(b"".join(wet_record(number, text) for number, text in enumerate(found)))
  return f"wet:{path}"


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> Path:
  out = tmp_path_factory.mktemp("built") / "clean"
  build_corpus(open_source(source), out, ALL, workers=1, quiet=True)
  return out


def manifest_of(out: Path) -> dict:
  return json.loads((out / "manifest.json").read_text())


def balance(out: Path) -> tuple[int, int]:
  """(documents that came in, with the parts of divided ones; those that came out or are among what was removed)."""
  manifest = manifest_of(out)
  removed = sum(step["documents"] for steps in manifest["steps"].values() for step in steps.values())
  kept = sum(language["documents"] for language in manifest["languages"].values())
  return manifest["source"]["documents"] + manifest["source"]["divided"], kept + removed


def test_a_language_that_was_removed_and_is_asked_for_later_counts_once(source, built, tmp_path, monkeypatch):
  """As if Swahili were a language that a model of the user's knows and CC-100 does not have."""
  without = {code: language for code, language in LANGUAGES.items() if code != "sw"}
  monkeypatch.setattr(job, "LANGUAGES", without)
  monkeypatch.setattr(finish, "LANGUAGES", without)
  out, whole = tmp_path / "clean", manifest_of(built)
  assert whole["source"]["divided"] > 0 and "language" not in whole["steps"].get("sw", {})

  def build(languages: list[str]) -> None:
    build_corpus(open_source(source), out, ALL, workers=1, languages=languages, quiet=True)

  build([])
  assert "sw" not in manifest_of(out)["languages"]
  assert set(manifest_of(out)["steps"]["sw"]["language"]["reasons"]) == {"not one of CC-100's"}
  assert (out / "removed" / "language" / "sw.jsonl").exists() and list((out / "removed" / "language" / "sw").iterdir())
  assert len(set(balance(out))) == 1
  for languages in (["sw"], ["de"], ["en", "sw"]):  # The builds after the first still know that Swahili is there.
    build(languages)
    found = manifest_of(out)
    assert balance(out) == balance(built)
    assert found["steps"] == whole["steps"] and found["source"] == whole["source"]
    assert not (out / "removed" / "language" / "sw.jsonl").exists() and not (out / "removed" / "language" / "sw").exists()
    assert {name: language["documents"] for name, language in found["languages"].items()} == {
      name: language["documents"] for name, language in whole["languages"].items()
    }


def test_clusters_of_languages_that_are_not_written_stay(source, built, tmp_path):
  """The build of a language also reads the others, and repairs them."""
  assert {"repair", "near_duplicates"} <= manifest_of(built)["steps"]["en"].keys() and (built / "clusters/en.tsv").exists()
  for language in ("en", "de", "sw", *sorted(manifest_of(built)["languages"].keys() - {"en", "de", "sw"})):
    build_corpus(open_source(source), tmp_path / "clean", ALL, workers=1, languages=[language], quiet=True)
  assert tree(tmp_path / "clean") == tree(built)


def test_tasks_that_begin_at_once_agree(source, tmp_path):
  """Of tasks with other flags only those begin whose flags were written."""
  shards, began, barrier = open_source(source).shards(20_000), [], threading.Barrier(16)

  def begin(number: int) -> None:
    options = Options(sure=number % 2 == 0)
    own = new_job(tmp_path / WORK, open_source(source), shards, options, [], None)
    barrier.wait()
    try:
      began.append((number % 2, module.begin(tmp_path, module.fingerprint_of(options, shards, own.root, ""), own, {})))
    except UserError as error:
      began.append((number % 2, str(error)))

  threads = [threading.Thread(target=begin, args=(number,)) for number in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  sure = json.loads((tmp_path / WORK / "job.json").read_text())["fingerprint"]["options"]["sure"]
  assert len(began) == 16
  assert all(isinstance(found, job.Job) if parity == (not sure) else "another --sure" in found for parity, found in began)
  assert {path.name for path in (tmp_path / WORK).iterdir()} == {"job.json", "begin.lock"}


@pytest.fixture
def lines(tmp_path) -> str:
  (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts("en", 0, 40)))
  return f"jsonl:{tmp_path}/x.jsonl"


def counted(monkeypatch, kind: type, name: str) -> list:
  """The calls of a method from here on."""
  real, calls = getattr(kind, name), []
  monkeypatch.setattr(kind, name, lambda self, *arguments: calls.append(arguments) or real(self, *arguments))
  return calls


def test_a_command_looks_its_source_up_once(lines, tmp_path, monkeypatch):
  (tmp_path / "reference").mkdir()
  (tmp_path / "reference" / "en.txt").write_text("\n\n".join(texts("en", 40, 60)))
  options, looked = Options(reference=str(tmp_path / "reference")), counted(monkeypatch, JsonLines, "shards")
  opened, source = counted(monkeypatch, Reference, "__init__"), open_source(lines)
  inputs = Inputs(source, options)
  forecast(source, tmp_path / "out", options, workers=1, inputs=inputs)
  build_corpus(source, tmp_path / "out", options, workers=1, quiet=True, inputs=inputs)
  assert len(looked) == len(opened) == 1


def test_tasks_read_the_reference_once_unless_it_changes(lines, tmp_path, monkeypatch):
  path = tmp_path / "reference" / "en.txt"
  path.parent.mkdir()
  path.write_text("\n\n".join(texts("en", 40, 60)))
  options, read = Options(reference=str(path.parent)), counted(monkeypatch, Reference, "digest")

  def start(task: int) -> dict:
    return build_corpus(open_source(lines), tmp_path / "out", options, task=(task, 3), quiet=True)

  assert not start(0)["finished"] and not start(1)["finished"] and len(read) == 1
  path.write_text(path.read_text().replace("e", "o", 1))  # as long as before
  with pytest.raises(UserError, match="another language identifier, opt-out file or reference"):
    start(2)
  path.write_text("\n\n".join(texts("en", 40, 60)))
  assert start(2)["documents_out"] > 0 and len(read) == 3
