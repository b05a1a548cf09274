"""`xlmr build_corpus` into a folder that has a build already: the rest of its languages, and text that has changed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.test_build_corpus import tree
from xlmr_jax.corpus.clean import rewritten
from xlmr_jax.corpus.clean.build import Inputs, Options, build_corpus
from xlmr_jax.corpus.clean.filter import Filter
from xlmr_jax.corpus.clean.finish import TIMES
from xlmr_jax.corpus.held_out import document_hash
from xlmr_jax.corpus.reference import Reference
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import UserError

OPTIONS = Options(near_duplicates=False, compress=False, removed="all")


def texts(language: str, count: int) -> list[str]:
  return [" ".join(paragraphs) for paragraphs in documents(language, count=count)]


def write(path: Path, rows: list[dict]) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return f"jsonl:{path}"


def build(source: str, out: Path, options: Options = OPTIONS, **how) -> dict:
  return build_corpus(open_source(source), out, options, workers=1, quiet=True, **how)


def manifest_of(out: Path) -> dict:
  return json.loads((out / "manifest.json").read_text())


@pytest.fixture
def source(tmp_path) -> str:
  every = [*texts("en", 12), *texts("de", 12), *texts("sw", 12)]
  return write(tmp_path / "a.jsonl", [{"text": text} for text in every])


def test_all_languages_after_one_are_the_rest(source, tmp_path, capsys, monkeypatch):
  build(source, tmp_path / "whole")
  build(source, tmp_path / "out", languages=["sw"])
  assert list(manifest_of(tmp_path / "out")["languages"]) == ["sw"]
  before = (tmp_path / "out" / "sw").stat()
  real = Filter.work
  monkeypatch.setattr(Filter, "work", lambda self, item: 1 / 0)
  with pytest.raises(RuntimeError):
    build(source, tmp_path / "out")
  monkeypatch.setattr(Filter, "work", real)
  assert "out: finished before but for de, en" in capsys.readouterr().err
  build(source, tmp_path / "out")  # It goes on with the rest.
  assert tree(tmp_path / "out") == tree(tmp_path / "whole")
  assert (tmp_path / "out" / "sw").stat().st_ino == before.st_ino
  capsys.readouterr()
  build(source, tmp_path / "out")
  assert capsys.readouterr().err == f"{tmp_path / 'out'}: finished before\n"


def test_a_language_of_which_nothing_was_left_is_not_built_again(tmp_path, capsys):
  rows = [{"text": text, "language": "en"} for text in texts("en", 5)] + [{"text": "1234 5678 90 " * 9, "language": "de"}]
  source = write(tmp_path / "a.jsonl", rows)
  build(source, tmp_path / "out")
  build(source, tmp_path / "out")
  assert capsys.readouterr().err.endswith("out: finished before\n")


SAME = "with the same size, beginning, middle and end; "


def test_text_that_was_written_again_is_refused_by_name(source, tmp_path, monkeypatch, capsys):
  path, out = Path(source.removeprefix("jsonl:")), tmp_path / "out"
  advice = f"choose another --out, or remove {out} when no build works there"
  text = path.read_text()
  os.utime(path, (1e9, 1e9))
  monkeypatch.setattr(Filter, "work", lambda self, item: 1 / 0)
  with pytest.raises(RuntimeError):
    build(source, out)
  monkeypatch.undo()
  path.write_text(text.replace("e", "o", 1))  # as long as before
  with pytest.raises(UserError, match=rf"a\.jsonl: was written again since the build began, and its beginning.*; {advice}$"):
    build(source, out)
  path.write_text(text)
  build(source, out)
  assert f"1 file was written again since the build began, {SAME}it is taken" in capsys.readouterr().err
  before = tree(out)
  build(source, out, languages=["sw"])  # The times are those of the file as it was when the build began.
  assert SAME in capsys.readouterr().err
  build(source, out, languages=["sw"])  # And now of that build.
  assert SAME not in capsys.readouterr().err and tree(out) == before
  path.write_text(text.replace("e", "o", 1))
  os.utime(path, (1e9, 1e9))  # or it may be the second in which the last build began
  for languages in ([], ["sw"]):
    with pytest.raises(UserError, match=rf"a\.jsonl: was written again .*; {advice}$"):
      build(source, out, languages=languages)
  assert tree(out) == before


def test_tasks_may_have_copies_of_their_own_and_no_other_text(source, tmp_path, capsys):
  path = Path(source.removeprefix("jsonl:"))

  def start(task: int) -> dict:
    os.utime(path, (1e9 + task, 1e9 + task))
    return build(source, tmp_path / "out", task=(task, 3))

  assert not start(0)["finished"] and not start(1)["finished"]
  path.write_text((text := path.read_text())[:-9] + text[-9:].replace('"', "'"))
  with pytest.raises(UserError, match=r"a\.jsonl: was written again"):
    start(2)
  path.write_text(text)
  assert start(2)["documents_out"] > 0 and capsys.readouterr().err.count(SAME) == 2


def test_only_the_first_files_by_name_have_digests(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(rewritten, "_DIGESTS", 2)
  monkeypatch.setattr(rewritten, "_PART", 4)
  names = [f"{number}.txt" for number in range(4)]
  for name in names:
    (tmp_path / name).write_text("head..middle...tail")
  shards = [Shard(str(tmp_path / name), 19) for name in reversed(names)]
  root, path, looked = f"{tmp_path}/", tmp_path / "times", []
  times = rewritten.times_of(shards, root, {shards[0].name: 7})
  assert times["3.txt"] == 7 and times["0.txt"] == int((tmp_path / "0.txt").stat().st_mtime)
  rewritten.record(path, times, root)
  assert [name for name, (_, digest) in sorted(json.loads(path.read_text()).items()) if digest] == names[:2]
  real = rewritten._digest
  monkeypatch.setattr(rewritten, "_digest", lambda name: looked.append(name) or real(name))
  assert rewritten.refuse_changed(path, times, root, tmp_path) and not looked and not capsys.readouterr().err
  (tmp_path / "1.txt").write_text("head...middle..tail")
  later = {name: time_s + 1 for name, time_s in times.items()}
  with pytest.raises(UserError, match=r"1\.txt: was written again"):
    rewritten.refuse_changed(path, later, root, tmp_path)
  (tmp_path / "1.txt").write_text("head..middle...tail")
  assert rewritten.refuse_changed(path, later, root, tmp_path) and len(looked) == 4
  assert capsys.readouterr().err == (
    "4 files were written again since the build began, with the same size, beginning, middle and end (of 2 only the size "
    "was compared); they are taken for the same text\n"
  )
  path.write_text(json.dumps(times))  # as an earlier version wrote it
  assert rewritten.refuse_changed(path, later, root, tmp_path)
  assert "began, with the same size; they are taken" in capsys.readouterr().err
  for content in ("{", "[]"):
    path.write_text(content)
    with pytest.raises(UserError, match=r"times: .*; choose another --out, or remove .* when no build works there"):
      rewritten.refuse_changed(path, times, root, tmp_path)
  assert not rewritten.refuse_changed(tmp_path / "nothing", times, root, tmp_path)


def test_readers_do_not_name_the_times_of_the_source(source, tmp_path, capsys):
  build(source, tmp_path / "out")
  assert (tmp_path / "out" / TIMES).exists()
  capsys.readouterr()
  assert sorted(CC100(tmp_path / "out").files) == sorted(manifest_of(tmp_path / "out")["languages"])
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize("copy", [0, 1])
def test_an_opted_out_page_takes_no_copy_of_it_elsewhere_with_it(tmp_path, copy):
  """Whether it is the first of its copies or not, and of near duplicates too."""
  own, text = texts("en", 3)[:2], " ".join(texts("en", 40)[3:])
  urls = ["http://gone.com/1", "http://fine.org/1"]
  rows = [{"text": text, "url": urls[copy]}, {"text": text, "url": urls[1 - copy]}]
  rows += [{"text": f"{text} Nothing else is new.", "url": "http://gone.com/2"}]
  rows += [{"text": text, "url": f"http://fine.org/{number + 2}"} for number, text in enumerate(own)]
  rows += [{"text": "1 2 3", "url": "http://a..b/"}]
  (tmp_path / "opt_outs").write_text("gone.com\n")
  options = Options(compress=False, removed="all", opt_out=str(tmp_path / "opt_outs"))
  summary = build(write(tmp_path / "a.jsonl", rows), tmp_path / "out", options)
  assert summary["removed"]["opt_outs"] == 2 and summary["documents_out"] == 3
  assert text in (tmp_path / "out" / "en" / "00000.txt").read_text()
  assert manifest_of(tmp_path / "out")["source"]["unreadable_urls"] == 1


def test_copies_do_not_stand_for_the_documents_from_which_limits_are_learnt(tmp_path, monkeypatch):
  monkeypatch.setattr("xlmr_jax.corpus.clean.filter.SAMPLE_DOCUMENTS", 20)
  every = texts("en", 30)
  low = min(every, key=document_hash)
  for name, rows in (("once", every), ("often", [*every, *[low] * 40])):
    build(write(tmp_path / f"{name}.jsonl", [{"text": text} for text in rows]), tmp_path / name)
    (tmp_path / f"{name}_reference").mkdir()
    (tmp_path / f"{name}_reference" / "en.txt").write_text("\n\n".join(rows))
  once, often = (manifest_of(tmp_path / name)["languages"]["en"]["limits"] for name in ("once", "often"))
  assert once == often
  once, often = (Reference(tmp_path / f"{name}_reference").sample("en", 20) for name in ("once", "often"))
  assert once == often and len(often) == 20 and np.all(np.diff(sorted(often)) > 0)


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path):
  folder = os.fsencode(tmp_path / "text")
  os.mkdir(folder)
  for name in (b"a.jsonl", b"caf\xe9.jsonl"):
    with open(os.path.join(folder, name), "wb") as file:
      file.write(b'{"text": "a"}\n')
  for given in (tmp_path / "text", os.fsdecode(os.path.join(folder, b"caf\xe9.jsonl"))):
    with pytest.raises(UserError, match=r"text/caf\\xe9\.jsonl: the name of this file is not UTF-8; rename it") as found:
      Inputs(open_source(f"jsonl:{given}"), OPTIONS).shards  # noqa: B018  It is looked up when it is asked for.
    assert "\n" not in str(found.value)
