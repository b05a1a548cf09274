"""`xlmr build_corpus` from raw text to clean text: the same bytes by every way, every removal with its reason."""

import errno
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xlmr_jax.corpus.clean import build, finish
from xlmr_jax.corpus.clean.build import WORK, Options, build_corpus
from xlmr_jax.corpus.clean.filter import Filter
from xlmr_jax.corpus.clean.write import Write
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.corpus.stages import Item, run_here
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import UserError

LANGUAGES = ("en", "de", "ru", "sw")
OPTIONS = Options(piece_mb=0.02, file_mb=0.05)


def wet_record(number: int, text: str | bytes, url: str = "http://example.com/") -> bytes:
  body = text if isinstance(text, bytes) else text.encode()
  head = (
    f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {url}{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
    f"WARC-Record-ID: <urn:uuid:{number:036x}>\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
  )
  return gzip.compress(head.encode() + body + b"\r\n\r\n", mtime=0)


def crawl() -> list[str]:
  """Documents of four languages in random order, with a repeat, near duplicates and what is no text."""
  texts = ["\n".join(paragraphs) for language in LANGUAGES for paragraphs in documents(language, count=70)]
  english = texts[:70]
  changed = english[1].split(" ")
  texts += [english[0], " ".join([*changed[:-1], "otherwise."]), "!!! ??? ### " * 20, "buy now " * 60]
  random.Random(0).shuffle(texts)
  return texts


@pytest.fixture(scope="module")
def wet(tmp_path_factory) -> str:
  """The source's name of three WET files."""
  folder = tmp_path_factory.mktemp("wet")
  texts = crawl()
  for part in range(3):
    (folder / f"{part}.warc.wet.gz").write_bytes(b"".join(wet_record(i, texts[i]) for i in range(part, len(texts), 3)))
  return f"wet:{folder}/*.warc.wet.gz"


def tree(folder: Path) -> dict[str, str]:
  """The digest of every file below a folder, but for the times of the source's files."""
  return {
    path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != finish.TIMES
  }


@pytest.fixture(scope="module")
def built(wet, tmp_path_factory) -> Path:
  out = tmp_path_factory.mktemp("built") / "clean"
  build_corpus(open_source(wet), out, OPTIONS, workers=1)
  return out


def texts_of(folder: Path, language: str) -> list[str]:
  source = CC100(folder, [language])
  return [document.text for shard in source.shards(1 << 30) for document in source.documents(shard)]


def test_a_crawl_becomes_clean_text_by_language(built):
  manifest = json.loads((built / "manifest.json").read_text())
  assert manifest["source"]["documents"] == 284 and manifest["source"]["damaged"] == 0
  assert set(LANGUAGES) <= set(manifest["languages"])
  for language in LANGUAGES:
    texts = texts_of(built, language)
    assert len(texts) == manifest["languages"][language]["documents"] >= 55
    assert sum(len(text.encode()) for text in texts) == manifest["languages"][language]["bytes"]
  assert "buy now " * 60 not in " ".join(texts_of(built, "en"))
  assert not (built / WORK).exists()


def test_every_removal_has_its_reason_and_a_sample(built):
  manifest = json.loads((built / "manifest.json").read_text())
  steps = {step for counts in manifest["steps"].values() for step in counts}
  assert {"paragraphs", "filters"} <= steps
  for language, counts in manifest["steps"].items():
    for step, found in counts.items():
      samples = [json.loads(line) for line in (built / "removed" / step / f"{language}.jsonl").read_text().splitlines()]
      assert 0 < len(samples) <= 20
      assert {sample["reason"] for sample in samples} <= set(found["reasons"])
      assert step == "repair" or found["documents"] + found["paragraphs"] == sum(found["reasons"].values())


def test_documents_in_are_documents_out_or_removed(built):
  """Nothing is lost without being counted; a document in two languages counts as two."""
  manifest = json.loads((built / "manifest.json").read_text())
  removed = sum(step["documents"] for counts in manifest["steps"].values() for step in counts.values())
  kept = sum(language["documents"] for language in manifest["languages"].values())
  assert kept + removed >= manifest["source"]["documents"]
  moved = kept + removed - manifest["source"]["documents"]
  assert moved <= 0.1 * kept


@pytest.mark.slow
def test_two_processes_build_the_same(wet, built, tmp_path):
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=2)
  assert tree(tmp_path / "clean") == tree(built)


def test_languages_one_by_one_build_the_same(wet, built, tmp_path):
  languages = sorted(json.loads((built / "manifest.json").read_text())["languages"])
  for language in languages:
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1, languages=[language])
  assert tree(tmp_path / "clean") == tree(built)
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1, languages=["de"])  # once more
  assert tree(tmp_path / "clean") == tree(built)


def test_tasks_one_after_the_other_build_the_same(wet, built, tmp_path):
  results = [build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, task=(i, 3)) for i in (2, 0, 1)]
  assert results[0] == {"task": "2/3", "finished": False, "waits_for_tasks": [0, 1]}
  assert results[1]["waits_for_tasks"] == [1]
  assert results[2]["documents_out"] > 200
  assert tree(tmp_path / "clean") == tree(built)
  again = build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, task=(0, 3))
  assert again["documents_out"] == results[2]["documents_out"]


def _task(wet: str, out: Path, i: int, n: int) -> None:
  build_corpus(open_source(wet), out, OPTIONS, task=(i, n))


@pytest.mark.slow
def test_tasks_side_by_side_build_the_same(wet, built, tmp_path):
  context = multiprocessing.get_context("spawn")
  tasks = [context.Process(target=_task, args=(wet, tmp_path / "clean", i, 2)) for i in range(2)]
  for task in tasks:
    task.start()
  for task in tasks:
    task.join(120)
  assert [task.exitcode for task in tasks] == [0, 0]
  assert tree(tmp_path / "clean") == tree(built)


@pytest.mark.parametrize("stage", [Filter, Write])
def test_a_full_disk_is_named_and_the_next_try_goes_on(wet, built, tmp_path, monkeypatch, stage):
  whole, calls = stage.work, []

  def fails(self, item):
    calls.append(item)
    if len(calls) == 2:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "clean" / "x"))
    return whole(self, item)

  monkeypatch.setattr(stage, "work", fails)
  with pytest.raises(UserError, match="No space left"):
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  with pytest.raises(UserError, match="has not finished here"):
    CC100(tmp_path / "clean")
  done = len(calls)
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  assert len(calls) == done + 1  # All other items were finished before.
  assert tree(tmp_path / "clean") == tree(built)


def test_files_that_a_killed_worker_left_are_not_read(wet, built, tmp_path, monkeypatch):
  monkeypatch.setattr(Filter, "work", lambda self, item: 1 / 0)
  with pytest.raises(RuntimeError, match="division by zero"):
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  monkeypatch.undo()
  stage = tmp_path / "clean" / WORK / "1_read"
  (stage / "0000001.json.host.1.2.new").write_text('{"half":')
  piece = next(stage.glob("*.npz"))
  Path(f"{piece}.host.1.2.new").write_bytes(piece.read_bytes()[:100])
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  assert tree(tmp_path / "clean") == tree(built)


@pytest.mark.parametrize("after", [1, 3])
def test_an_end_that_is_interrupted_loses_no_language(wet, built, tmp_path, monkeypatch, after):
  """The text of a language is in its place before the manifest is; a second try must not take it for an old one."""
  whole, calls = finish.Finish._put_folder, []

  def interrupted(self, *args, **named):
    whole(self, *args, **named)
    calls.append(args)
    if len(calls) == after:
      raise OSError(errno.EIO, os.strerror(errno.EIO), str(tmp_path))

  monkeypatch.setattr(finish.Finish, "_put_folder", interrupted)
  with pytest.raises(UserError):
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  assert tree(tmp_path / "clean") == tree(built)


def test_a_language_that_there_is_not_is_refused(wet, tmp_path):
  with pytest.raises(UserError, match="--languages: enn is not one of CC-100's languages"):
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1, languages=["de", "enn"])
  assert not (tmp_path / "clean").exists()


class _Dies:
  """A stage whose second item ends its process, as the system does to one that takes too much memory."""

  name, what = "dies", "dying"

  def __init__(self, folder):
    self.folder = folder

  def items(self):
    return [Item(number, 1, Shard(f"part{number}.wet", 1)) for number in range(3)]

  def work(self, item):
    if item.number == 1:
      os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_worker_that_is_killed_is_named_with_what_it_was_at(tmp_path):
  with pytest.raises(UserError, match=r"a worker ended without a word while dying: out of memory.*part1\.wet"):
    run_here([_Dies(tmp_path / "dies")], workers=2)


def test_another_build_is_not_continued_or_overwritten(wet, built, tmp_path, monkeypatch):
  before = tree(built)
  with pytest.raises(UserError, match=r"another --near_duplicates \(True, now False\)"):
    build_corpus(open_source(wet), built, Options(piece_mb=0.02, file_mb=0.05, near_duplicates=False), workers=1)
  assert tree(built) == before
  monkeypatch.setattr(Filter, "work", lambda self, item: 1 / 0)
  with pytest.raises(RuntimeError):
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, workers=1)
  with pytest.raises(UserError, match=r"unfinished build with another --sure \(False, now True\)"):
    build_corpus(open_source(wet), tmp_path / "clean", Options(piece_mb=0.02, file_mb=0.05, sure=True), workers=1)
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "mine.txt").write_text("keep me")
  with pytest.raises(UserError, match="exists and is not empty"):
    build_corpus(open_source(wet), tmp_path / "other", OPTIONS, workers=1)


def test_a_finished_build_is_not_done_again(wet, built, monkeypatch):
  monkeypatch.setattr(build, "run_here", None)
  assert build_corpus(open_source(wet), built, OPTIONS, workers=1)["languages"] >= 4


def test_damage_is_counted_and_the_rest_goes_on(tmp_path):
  texts = ["\n".join(paragraphs) for paragraphs in documents("en", count=40)]
  records = [wet_record(i, text) for i, text in enumerate(texts)]
  (tmp_path / "a.warc.wet.gz").write_bytes(b"".join(records)[:-40])  # The last record is cut.
  (tmp_path / "b.warc.wet.gz").write_bytes(b"no gzip at all")
  summary = build_corpus(open_source(f"wet:{tmp_path}/*.wet.gz"), tmp_path / "clean", OPTIONS, workers=1)
  manifest = json.loads((tmp_path / "clean" / "manifest.json").read_text())
  assert summary["damaged"] == 2 and summary["documents_in"] == 39
  assert [("a.warc" in where, "b.warc" in where) for where, _ in manifest["source"]["damages"]] == [
    (True, False),
    (False, True),
  ]


def test_opt_outs_and_personal_data(tmp_path):
  texts = ["\n".join(paragraphs) for paragraphs in documents("en", count=12)]
  texts[3] += "\nWrite to someone.real@mail.org or ask 8.8.8.8 about it, whenever you like to."
  (tmp_path / "a.warc.wet.gz").write_bytes(
    b"".join(wet_record(i, text, f"http://{'out.org' if i % 2 else 'in.org'}/") for i, text in enumerate(texts))
  )
  source = f"wet:{tmp_path}/a.warc.wet.gz"
  (tmp_path / "opt_out.txt").write_text("out.org\n")
  summary = build_corpus(
    open_source(source), tmp_path / "one", Options(opt_out=str(tmp_path / "opt_out.txt"), near_duplicates=False), workers=1
  )
  assert summary["removed"]["opt_outs"] == 6 and summary["documents_out"] == 6
  build_corpus(open_source(source), tmp_path / "two", Options(mask_personal_data=True, near_duplicates=False), workers=1)
  text = "\n".join(texts_of(tmp_path / "two", "en"))
  assert "someone.real" not in text and "8.8.8.8" not in text and "Write to" in text
  found = json.loads((tmp_path / "two" / "manifest.json").read_text())["languages"]["en"]["personal_data"]
  assert found == {"email": 1, "ipv4": 1}


def test_the_language_of_the_source_is_compared_with_what_was_found(tmp_path):
  (tmp_path / "text").mkdir()
  german = ["\n".join(paragraphs) for paragraphs in documents("de", count=20)]
  russian = ["\n".join(paragraphs) for paragraphs in documents("ru", count=2)]
  (tmp_path / "text" / "de.txt").write_text("\n\n".join([*german, *russian]))
  build_corpus(open_source(f"cc100:{tmp_path}/text"), tmp_path / "clean", OPTIONS, workers=1)
  confusion = json.loads((tmp_path / "clean" / "manifest.json").read_text())["confusion"]["de"]
  assert confusion["de"] > confusion["ru"] > 0
  assert len(texts_of(tmp_path / "clean", "ru")) == 2


@pytest.mark.slow
def test_the_command_prints_its_summary_and_makes_the_page(wet, tmp_path):
  command = [sys.executable, "-m", "xlmr_jax", "build_corpus", f"--source={wet}", f"--out={tmp_path}/clean", "--workers=1"]
  result = subprocess.run(command, capture_output=True, text=True, timeout=300)
  assert result.returncode == 0, result.stderr
  summary = json.loads(result.stdout.splitlines()[-1])
  assert {"documents_in", "documents_out", "bytes_in", "bytes_out", "languages", "removed", "mb_per_s"} <= set(summary)
  assert (tmp_path / "clean" / "corpus_report.html").stat().st_size > 1000
  again = subprocess.run([*command, "--near_duplicates=off"], capture_output=True, text=True, timeout=300)
  assert again.returncode == 1 and "--near_duplicates" in again.stderr and len(again.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_build_that_is_killed_again_and_again_comes_out_the_same(wet, built, tmp_path):
  rng, kills = random.Random(0), 0
  code = (
    "import sys; from pathlib import Path; from tests.test_build_corpus import *\n"
    f"build_corpus(open_source({wet!r}), Path({str(tmp_path / 'clean')!r}), OPTIONS, workers=2)"
  )
  guarded = f"if __name__ == '__main__':\n  {code.splitlines()[0]}\n  {code.splitlines()[1]}"
  (tmp_path / "run.py").write_text(guarded)
  for life in range(60):
    process = subprocess.Popen([sys.executable, tmp_path / "run.py"], start_new_session=True,
                               env=os.environ | {"PYTHONPATH": os.getcwd()})  # fmt: skip
    try:
      process.wait(rng.uniform(0.5, 1.5) * (1 + life / 4))  # The first is too short to end, the later ones enough to get on.
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      kills += 1
      continue
    assert process.returncode == 0
    break
  assert kills and tree(tmp_path / "clean") == tree(built)


@pytest.fixture
def job_service(tmp_path):
  """The endpoints of Beam's portable job service and of a pool of worker processes, as a cluster would have them."""
  import socket

  def free_port() -> int:
    with socket.socket() as found:
      found.bind(("127.0.0.1", 0))
      return found.getsockname()[1]

  job, pool = free_port(), free_port()
  environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()}
  modules = {
    "apache_beam.runners.portability.local_job_service_main": ["--port", str(job)],
    "apache_beam.runners.worker.worker_pool_main": ["--service_port", str(pool)],
  }
  servers = [
    subprocess.Popen([sys.executable, "-m", module, *flags], env=environment, start_new_session=True, cwd=tmp_path,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for module, flags in modules.items()
  ]  # fmt: skip
  time.sleep(8)
  yield [f"--job_endpoint=localhost:{job}", "--environment_type=EXTERNAL", f"--environment_config=localhost:{pool}",
         "--sdk_worker_parallelism=2"]  # fmt: skip
  for server in servers:
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)


@pytest.mark.slow
def test_beam_on_this_machine_builds_the_same(wet, built, tmp_path):
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, beam_flags=["--runner=FnApiRunner"])
  assert tree(tmp_path / "clean") == tree(built)


@pytest.mark.slow
def test_beam_by_a_job_service_and_outside_workers_builds_the_same(wet, built, tmp_path, job_service):
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, beam_flags=["--runner=PortableRunner", *job_service])
  assert tree(tmp_path / "clean") == tree(built)


@pytest.mark.slow
def test_beam_on_dask_builds_the_same(wet, built, tmp_path):
  distributed = pytest.importorskip("distributed")
  with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
    flags = [
      "--runner=apache_beam.runners.dask.dask_runner.DaskRunner",
      f"--dask_client_address={cluster.scheduler_address}",
    ]
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, beam_flags=flags)
  assert tree(tmp_path / "clean") == tree(built)


@pytest.mark.slow
def test_a_failure_under_beam_is_told_and_the_next_try_goes_on(wet, built, tmp_path, monkeypatch):
  monkeypatch.setattr(Filter, "work", lambda self, item: (_ for _ in ()).throw(UserError("the disk of a worker is full")))
  with pytest.raises(UserError, match="the disk of a worker is full"):
    build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, beam_flags=["--runner=FnApiRunner"])
  monkeypatch.undo()
  build_corpus(open_source(wet), tmp_path / "clean", OPTIONS, beam_flags=["--runner=FnApiRunner"])
  assert tree(tmp_path / "clean") == tree(built)
