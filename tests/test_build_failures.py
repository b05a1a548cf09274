"""`xlmr build_rows` ends in one line, and without rows, where languages, outcomes of shards or workers are missing."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import socket
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from xlmr_jax.corpus import beam, build, stages, vocabulary, workers
from xlmr_jax.corpus.held_out import Report, _common_path, scan
from xlmr_jax.corpus.shards import Job, finish_store, plan, write_rows
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.sources.registry import text_source
from xlmr_jax.corpus.sources.tfds_text import TfdsText
from xlmr_jax.corpus.workers import run_stage
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError

TEXTS = [f"the quick brown fox number {number} jumps over the lazy dog" for number in range(40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("vocabulary")
  (folder / "en.txt").write_text("\n\n".join(TEXTS))
  vocabulary.train_vocabulary(text_source(str(folder), None), folder / "v.model", size=45)
  return folder / "v.model"


@pytest.fixture
def lines(tmp_path):
  """JSON lines in English and, as their writer spells it, in Chinese."""
  rows = [{"text": text, "language": "zh-CN" if number % 2 else "en"} for number, text in enumerate(TEXTS)]
  (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return f"jsonl:{tmp_path / 'l.jsonl'}"


# ---- languages ---------------------------------------------------------------------------------------------


def test_languages_are_found_however_they_are_spelled(lines, model, tmp_path):
  source = text_source(None, lines, ["en", "zh-CN"])
  build.build_rows(source, model, tmp_path / "rows", seq_len=32, held_out=0.1, workers=1)
  assert RowStore(tmp_path / "rows").languages == ("en", "zh_Hans")
  assert TfdsText("wiki40b/zh-cn", ["zh-CN"]).languages == {"zh_Hans"}


@pytest.mark.parametrize("languages, said", [(["en", "fr"], "fr; it has en of what"), (["fr", "sw"], "fr, sw; it has none")])
def test_a_language_that_no_document_has_is_refused(lines, model, tmp_path, languages, said):
  source = text_source(None, lines, languages)
  with pytest.raises(UserError, match=rf"--languages: no document of .*l\.jsonl says that its language is {said}"):
    build.build_rows(source, model, tmp_path / "rows", seq_len=32, workers=1)
  with pytest.raises(UserError, match="--languages: no document"):
    vocabulary.train_vocabulary(source, tmp_path / "v.model", size=45)
  assert [path.name for path in tmp_path.iterdir()] == ["l.jsonl"]


def test_text_without_any_document_is_refused_before_anything_is_published(model, tmp_path):
  (tmp_path / "l.jsonl").write_text('{"text": " ", "language": "en"}\n')
  source = text_source(None, f"jsonl:{tmp_path / 'l.jsonl'}")
  with pytest.raises(UserError, match=r"l\.jsonl: no document with any text"):
    build.build_rows(source, model, tmp_path / "rows", seq_len=32, workers=1)
  with pytest.raises(UserError, match="rows: no rows of any language"):
    finish_store(Job(source, str(tmp_path), str(model), 32, 0.1, 1000), [], tmp_path / "rows")
  assert [path.name for path in tmp_path.iterdir()] == ["l.jsonl"]


def test_several_files_are_named_by_the_folder_that_they_have_in_common():
  def place(*names: str) -> str:
    return _common_path([Report(Shard(name, 1), 1, {}) for name in names])

  assert place("/text/a/1", "/text/a/1") == "/text/a/1" and place() == "the source"
  assert place("/text/a/1", "/text/b/2") == "/text" and place("/text/a/1", "/text/a/2") == "/text/a"
  assert place("/a/1", "/b/2") == "/a" and place("gs://text/a/1", "gs://text/b/2") == "gs://text/a"


# ---- outcomes of Beam's workers ----------------------------------------------------------------------------


def test_an_outcome_that_is_missing_is_named(lines, model, tmp_path, monkeypatch):
  source = text_source(None, lines)
  shards = source.shards(1000)
  job = Job(source, str(tmp_path / "rows"), str(model), 32, 0.1, 1000)
  items = plan([scan(shard, source) for shard in shards], job)
  for item in items:
    beam._write_rows(item, job)
  folder = tmp_path / "rows" / "outcomes"
  assert beam._read_all_outcomes(folder, shards) == [write_rows(item, job) for item in sorted(items, key=lambda x: x.number)]
  monkeypatch.setattr(beam, "_LATE_S", 0.02)
  (folder / "00000001.json").rename(folder / "late")
  with pytest.raises(UserError, match=rf"00000001\.json: .*l\.jsonl.* of 0 more of {len(shards)} shards"):
    beam._read_all_outcomes(folder, shards)
  monkeypatch.setattr(beam.time, "sleep", lambda _: (folder / "late").rename(folder / "00000001.json"))
  assert len(beam._read_all_outcomes(folder, shards)) == len(shards)


# ---- workers and builds that were killed -------------------------------------------------------------------


def test_a_worker_that_the_system_ends_is_one_line():
  with pytest.raises(UserError, match=r"a worker ended without a word while writing the rows: out of memory.* 9"):
    run_stage("writing the rows", os._exit, [9, 9], [1, 1], workers=2, processes=True)
  assert not multiprocessing.active_children()


class _PoolThatBreaks(concurrent.futures.ThreadPoolExecutor):
  """Its worker ends after four items."""

  def __init__(self, workers, context=None):
    super().__init__(workers)
    self._submitted = 0

  def submit(self, *work):
    self._submitted += 1
    if self._submitted > 4:
      raise BrokenProcessPool
    return concurrent.futures.Future()


@dataclasses.dataclass
class _Stage:
  folder: Path
  name, what = "stage", "working"

  def items(self):
    return [stages.Item(number, 1, Shard(f"{number}.wet", 1)) for number in range(9)]

  def work(self, item):
    return {}


def test_a_worker_that_ends_while_items_are_submitted_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(workers, "ProcessPoolExecutor", _PoolThatBreaks)
  with pytest.raises(UserError, match=r"while working: .* on one of 0, 1, 2 and 1 more; free memory or leave that file out"):
    run_stage("working", str, range(9), [1] * 9, workers=2, processes=True)
  with pytest.raises(UserError, match=r"while working: .* on one of 0\.wet, 1\.wet, 2\.wet and 1 more; "):
    stages._run_stage(_Stage(tmp_path), _PoolThatBreaks(2), 2)


def test_a_lost_worker_names_each_file_once():
  def message(names: list[str]) -> str:
    return str(workers.lost_worker("working", [(concurrent.futures.Future(), name) for name in names], 48))

  assert "a library on a; free memory or leave that file out" in message(["a"] * 96)
  assert "on one of a, b; " in message(["a", "b"] * 48) and " on " not in message([]).partition(":")[2]
  assert "on one of 0, 1, 2 and 93 more; " in message([str(number) for number in range(200)])


def test_what_a_killed_build_with_our_own_number_left_goes(tmp_path):
  left = tmp_path / f".rows.unfinished-{socket.gethostname()}-{build._boot()}.{os.getpid()}"
  left.mkdir()
  (left / "old").touch()
  with build._unfinished(tmp_path / "rows") as folder:
    assert folder == left and not any(folder.iterdir())
    with pytest.raises(UserError, match="rows: another build is working there"):  # A thread of this process, say.
      with build._unfinished(tmp_path / "rows"):
        pass
    assert folder.exists()
  assert not any(tmp_path.iterdir())


def test_a_build_with_our_own_number_on_another_machine_is_left_alone(tmp_path):
  """Two containers may have the same name and number their processes alike, and network disks may have no locks."""
  other = tmp_path / f".rows.unfinished-{socket.gethostname()}-0badb007.{os.getpid()}"
  other.mkdir()
  with pytest.raises(UserError, match=rf"rows: another build may be working there, .* or remove {other} if there is none"):
    with build._unfinished(tmp_path / "rows"):
      pass
  assert [path.name for path in tmp_path.iterdir()] == [other.name]
