"""`xlmr build_corpus --removed=all`: a document is either in the clean text or among what was removed, with its reason."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.test_build_corpus import crawl, tree, wet_record
from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.corpus.sources.text_file import open_text
from xlmr_jax.demo.text import documents
from xlmr_jax.report.corpus_page.steps import REASONS, STEPS

ALL = Options(piece_mb=0.02, file_mb=0.05, removed="all")
BLOCKED = "http://blocked.example/"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
  """The source's name of two WET files: a crawl, a near duplicate, a repeat, an empty document, and an opted out one."""
  folder = tmp_path_factory.mktemp("wet")
  texts = crawl()
  long = " ".join(" ".join(paragraphs) for paragraphs in list(documents("en", count=90))[70:])
  texts += [long, f"{long} Nothing else is new.", long]
  records = [wet_record(number, text) for number, text in enumerate(texts)]
  records += [wet_record(len(records), " \n ")]
  records += [wet_record(len(records), "This page tells how bread is baked at home in an old oven.", BLOCKED)]
  (folder / "opt_out.txt").write_text("blocked.example\n")
  for part in range(2):
    (folder / f"{part}.warc.wet.gz").write_bytes(b"".join(records[part::2]))
  return f"wet:{folder}/*.warc.wet.gz"


def build(source: str, out: Path, *, workers: int = 1, languages: Sequence[str] = (), **changes) -> dict:
  opt_out = str(Path(source.removeprefix("wet:")).parent / "opt_out.txt")
  options = Options(**{**vars(ALL), "opt_out": opt_out, **changes})
  return build_corpus(open_source(source), out, options, workers=workers, languages=languages, quiet=True)


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> tuple[Path, dict]:
  out = tmp_path_factory.mktemp("built") / "clean"
  return out, build(source, out)


def removed_lines(out: Path) -> dict[tuple[str, str], list[dict]]:
  """All that was removed, {(step, language): lines}."""
  found: dict[tuple[str, str], list[dict]] = {}
  for path in sorted((out / "removed").glob("*/*/*.jsonl*")):
    with open_text(path) as file:
      found.setdefault((path.parts[-3], path.parts[-2]), []).extend(json.loads(line) for line in file)
  return found


def test_documents_in_are_documents_out_and_those_removed(built):
  out, summary = built
  manifest = json.loads((out / "manifest.json").read_text())
  lines = removed_lines(out)
  whole = [line["id"] for found in lines.values() for line in found if line["document"]]
  assert len(whole) == len(set(whole)) == sum(summary["removed"].values()) > 5
  assert summary["documents_in"] + manifest["source"]["divided"] == summary["documents_out"] + len(whole)
  for (step, language), found in lines.items():
    counts = manifest["steps"][language][step]
    assert len(found) >= len((out / "removed" / step / f"{language}.jsonl").read_text().splitlines())
    assert sum(line["document"] for line in found) == counts["documents"]
    assert sum(len(line["text"].encode()) for line in found) == counts["bytes"]
    assert {line["step"] for line in found} == {step} <= STEPS.keys()
    assert {line["reason"] for line in found} == set(counts["reasons"]) <= REASONS.keys()
    assert all(line["id"] and line["url"].startswith("http://") for line in found)
  assert {step for step, _ in lines} == STEPS.keys()
  assert {line["url"] for line in lines["opt_outs", "en"]} == {f"{BLOCKED}288"}


def test_no_document_is_both_kept_and_removed(built):
  out, _ = built
  source = CC100(out)
  kept = {document.text for shard in source.shards(1 << 30) for document in source.documents(shard)}
  for (step, _), found in removed_lines(out).items():
    # A removed repeat is word for word what is kept of its original.
    assert step == "paragraphs" or not kept & {line["text"] for line in found if line["document"]}


@pytest.mark.slow
def test_two_workers_and_languages_one_by_one_write_the_same(source, built, tmp_path):
  out, _ = built
  build(source, tmp_path / "two", workers=2)
  assert tree(tmp_path / "two") == tree(out)
  for language in json.loads((out / "manifest.json").read_text())["languages"]:
    build(source, tmp_path / "one", languages=[language])
  assert tree(tmp_path / "one") == tree(out)


def test_plain_text_is_asked_for_and_samples_are_the_default(source, built, tmp_path):
  out, _ = built
  build(source, tmp_path / "plain", compress=False)
  assert removed_lines(tmp_path / "plain") == removed_lines(out)
  build(source, tmp_path / "samples", removed="samples")
  assert not removed_lines(tmp_path / "samples")
  assert {path.parent.name for path in (tmp_path / "samples" / "removed").glob("*/*.jsonl")} >= {"filters", "opt_outs"}
