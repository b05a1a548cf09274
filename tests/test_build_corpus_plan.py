"""What `xlmr build_corpus` says before it begins: it writes nothing, is near the truth, and refuses a disk without room."""

import dataclasses
import gzip
import json
import shutil
import subprocess
import sys

import pytest

from tests.test_build_corpus import wet_record
from xlmr_jax.corpus.clean import heads as module
from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.clean.filter import Filter
from xlmr_jax.corpus.clean.forecast import forecast, languages_to_come
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import UserError

OPTIONS = Options(piece_mb=1)


def texts(language: str, count: int) -> list[str]:
  return ["\n".join(paragraphs) for paragraphs in documents(language, count=count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The same two languages as WET files, as labelled text, plain and compressed, and as JSON lines."""
  folder = tmp_path_factory.mktemp("text")
  both = {language: texts(language, 60) for language in ("en", "ru")}
  mixed = [text for pair in zip(*both.values()) for text in pair]
  for part in range(2):
    (folder / f"{part}.warc.wet.gz").write_bytes(b"".join(wet_record(i, text) for i, text in enumerate(mixed[part::2])))
  (folder / "x.jsonl").write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in mixed))
  for name in ("plain", "compressed"):
    (folder / name).mkdir()
    for language, own in both.items():
      data = "\n\n".join(own).encode()
      ending = ".txt.gz" if name == "compressed" else ".txt"
      (folder / name / f"{language}{ending}").write_bytes(gzip.compress(data) if name == "compressed" else data)
  (folder / "bytes").write_text(str(sum(len(text.encode()) for text in mixed)))
  return folder


@pytest.mark.parametrize("source", ["wet:{}/*.warc.wet.gz", "jsonl:{}/x.jsonl", "cc100:{}/plain", "cc100:{}/compressed"])
def test_the_text_and_the_documents_are_known_beforehand(folder, tmp_path, source):
  found = forecast(open_source(source.format(folder)), tmp_path / "out", OPTIONS, workers=2)
  assert found.text == pytest.approx(int((folder / "bytes").read_text()), rel=0.05)
  assert found.documents == pytest.approx(120, rel=0.1)
  assert found.languages >= 2 and found.largest_language == "ru"
  assert found.core_hours > 0 and found.clean > 0 and found.between_stages > 0
  assert not (tmp_path / "out").exists()


def test_heads_stand_for_whole_files(folder, tmp_path, monkeypatch):
  """Of a source of which only a part is read, the forecast is as if all had been."""
  monkeypatch.setattr(module, "_HEAD_BYTES", 6 << 10)
  found = forecast(open_source(f"wet:{folder}/*.warc.wet.gz"), tmp_path / "out", OPTIONS, workers=1)
  assert found.sample < 0.8 * int((folder / "bytes").read_text())
  assert found.text == pytest.approx(int((folder / "bytes").read_text()), rel=0.15)
  assert found.documents == pytest.approx(120, rel=0.2)


def test_rows_of_parquet_are_scaled_by_their_number(tmp_path, monkeypatch):
  pyarrow = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  own = texts("en", 80)
  parquet.write_table(pyarrow.table({"text": own}), tmp_path / "x.parquet")
  monkeypatch.setattr(module, "_MOST_TEXT", 6 * 4000)
  found = forecast(open_source(f"parquet:{tmp_path}/x.parquet"), tmp_path / "out", OPTIONS, workers=1)
  assert found.text == pytest.approx(sum(len(text.encode()) for text in own), rel=0.2)
  assert found.documents == pytest.approx(80, rel=0.2)


def test_only_languages_that_are_asked_for_count(folder, tmp_path):
  source = open_source(f"cc100:{folder}/plain")
  every = forecast(source, tmp_path / "out", OPTIONS, workers=1)
  english = forecast(source, tmp_path / "out", OPTIONS, languages=["en"], workers=1)
  assert english.largest_language == "en" and english.clean < 0.8 * every.clean


def test_what_is_removed_lies_on_the_disk_twice(tmp_path):
  """Of text of which a large part is removed, by reading and by later stages; the plan is near what a build writes."""
  own = texts("en", 60)
  own += ["".join(f"{(7 * i + j * j) % 977} " for j in range(200)) for i in range(30)]  # no language
  own += [f"{number} buy now " * 40 for number in range(30)]  # repeats
  (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in own))
  source, options = open_source(f"jsonl:{tmp_path}/x.jsonl"), dataclasses.replace(OPTIONS, removed="all")
  samples, everything = (forecast(source, tmp_path / "out", some, workers=1) for some in (OPTIONS, options))
  build_corpus(source, tmp_path / "out", options, workers=1, quiet=True)
  manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
  assert {step for steps in manifest["steps"].values() for step in steps} >= {"language", "filters"}
  written = sum(path.stat().st_size for path in (tmp_path / "out" / "removed").glob("*/*/*.jsonl.zst"))
  assert samples.removed == 0 and everything.removed == pytest.approx(written, rel=0.1)
  assert everything.between_stages - samples.between_stages >= 0.9 * written
  assert everything.disk - samples.disk >= 1.9 * written
  assert any("for what is removed" in line for line in everything.lines())
  assert not any("for what is removed" in line for line in samples.lines())


def test_a_disk_without_room_is_refused_by_name(folder, tmp_path):
  found = forecast(open_source(f"cc100:{folder}/plain"), tmp_path / "out", OPTIONS, workers=1)
  found.refuse_too_small_a_disk(tmp_path)
  with pytest.raises(UserError, match=rf"--out={tmp_path}: the build needs about .* of disk, .* and 1 kB are free"):
    dataclasses.replace(found, free=1000, clean=10**9).refuse_too_small_a_disk(tmp_path)


def test_a_source_without_text_is_told(tmp_path):
  (tmp_path / "a.warc.wet.gz").write_bytes(
    gzip.compress(b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 0\r\n\r\n\r\n\r\n")
  )
  with pytest.raises(UserError, match=r"no text was found in the first bytes of .*a\.warc\.wet\.gz"):
    forecast(open_source(f"wet:{tmp_path}/a.warc.wet.gz"), tmp_path / "out", OPTIONS, workers=1)


def test_what_is_still_to_come_is_forecast(folder, tmp_path, monkeypatch):
  source, out = open_source(f"cc100:{folder}/plain"), tmp_path / "out"
  assert languages_to_come(out) == [] and languages_to_come(out, ["eng"]) == ["en"]
  build_corpus(source, out, OPTIONS, workers=1, quiet=True, languages=["en"])
  left = languages_to_come(out)
  assert left and "ru" in left and "en" not in left and languages_to_come(out, ["en"]) == ["en"]
  rest = forecast(source, out, OPTIONS, languages=left, workers=1)
  assert 0 < rest.clean < forecast(source, out, OPTIONS, workers=1).clean
  with monkeypatch.context() as patch:
    patch.setattr(Filter, "work", lambda self, item: 1 / 0)
    with pytest.raises(RuntimeError):
      build_corpus(source, out, OPTIONS, workers=1, quiet=True)
  assert languages_to_come(out) is None and languages_to_come(out, ["ru"]) is None  # It has begun.
  build_corpus(source, out, OPTIONS, workers=1, quiet=True)
  assert languages_to_come(out) is None and languages_to_come(out, ["ru"]) == ["ru"]


@pytest.mark.slow
def test_the_command_forecasts_the_rest_of_a_finished_build(folder, tmp_path):
  command = [sys.executable, "-m", "xlmr_jax", "build_corpus", f"--source=cc100:{folder}/plain", f"--out={tmp_path}/out"]

  def said(*more: str) -> str:
    result = subprocess.run([*command, "--workers=1", *more], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stderr

  assert all("of disk" in said(*more) for more in (["--languages=en"], [], ["--languages=en"]))
  assert "of disk" not in said()


@pytest.mark.slow
def test_the_command_prints_the_plan_and_writes_nothing(folder, tmp_path):
  command = [sys.executable, "-m", "xlmr_jax", "build_corpus", f"--source=cc100:{folder}/plain", f"--out={tmp_path}/out"]
  result = subprocess.run([*command, "--plan"], capture_output=True, text=True, timeout=120)
  assert result.returncode == 0, result.stderr
  *lines, last = result.stdout.splitlines()
  assert lines[0].startswith("reads 2 files of ") and "memory per worker" in lines[2] and "of disk" in lines[3]
  plan = json.loads(last)
  assert {
    "files",
    "stored",
    "text",
    "core_hours",
    "core_seconds",
    "worker_memory",
    "disk",
    "free",
    "largest_partition",
  } <= set(plan)
  assert plan["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
  assert list(tmp_path.iterdir()) == []


def test_a_task_has_no_plan_of_this_machine(folder, tmp_path):
  command = [sys.executable, "-m", "xlmr_jax", "build_corpus", f"--source=cc100:{folder}/plain", f"--out={tmp_path}/out"]
  result = subprocess.run([*command, "--task=0/2"], capture_output=True, text=True, timeout=120)
  assert json.loads(result.stdout) == {"task": "0/2", "finished": False, "waits_for_tasks": [1]}
  assert "of one core" not in result.stderr and "of disk" not in result.stderr
