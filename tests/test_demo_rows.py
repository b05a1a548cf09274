"""The demo's rows in a workdir: what a build may remove, and what a second starter finds."""

import os

import pytest

from xlmr_jax.demo import corpus
from xlmr_jax.demo.corpus import build_demo_rows, demo_rows, unfinished_demo
from xlmr_jax.errors import UserError
from xlmr_jax.files import lock


@pytest.fixture
def steps(monkeypatch):
  """Stand-ins of the steps of a build, which leave a file of each and note their names."""
  done = []

  def stand_in(name, place):
    def work(*arguments, **_):
      done.append(name)
      path = arguments[place]
      path.parent.mkdir(parents=True, exist_ok=True)
      if name == "build_rows":
        path.mkdir()
        path = path / "manifest.json"
      path.write_text(name)

    monkeypatch.setattr(corpus, name, work)

  monkeypatch.setattr(corpus, "CC100", lambda path: path)
  for name, place in (("write_crawl", 0), ("clean_crawl", 2), ("train_vocabulary", 1), ("build_rows", 2)):
    stand_in(name, place)
  return done


def test_rows_are_built_aside_and_once(tmp_path, steps):
  unfinished_demo(tmp_path).mkdir()
  (unfinished_demo(tmp_path) / "left").write_text("by a process that was killed")
  build_demo_rows(tmp_path)
  assert (demo_rows(tmp_path) / "manifest.json").exists() and not unfinished_demo(tmp_path).exists()
  assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
    "crawl.warc.wet.gz", "rows", "text", "vocabulary.model"
  ]  # fmt: skip
  build_demo_rows(tmp_path)
  assert steps == ["write_crawl", "clean_crawl", "train_vocabulary", "build_rows"]


def test_a_build_that_fails_leaves_no_demo(tmp_path, steps, monkeypatch):
  def fail(*_, **__):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
    patched.setattr(corpus, "build_rows", fail)
    build_demo_rows(tmp_path)
  assert not (tmp_path / "demo").exists()
  build_demo_rows(tmp_path)
  assert (demo_rows(tmp_path) / "manifest.json").exists()


@pytest.mark.parametrize("names", [
  ("app.py",), ("rows",), ("text", "clean"), ("crawl.warc.wet.gz", "rows", "notes.txt"), ("crawl.warc.wet.gz.bak",),
])  # fmt: skip
def test_a_folder_demo_of_the_users_own_stays(tmp_path, steps, names):
  for name in names:
    (tmp_path / "demo" / name).mkdir(parents=True)
  with pytest.raises(UserError, match=rf"{tmp_path}/demo: the demo's rows .* it is a folder with .*move it"):
    build_demo_rows(tmp_path)
  assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(names) and not steps
  assert [path.name for path in tmp_path.iterdir()] == ["demo"]  # Nothing is written beside it either.


def test_a_link_or_a_file_named_demo_stays(tmp_path, steps):
  (tmp_path / "data").mkdir()
  (tmp_path / "demo").symlink_to("data")
  with pytest.raises(UserError, match="it is a link; use another --workdir, or move it away"):
    build_demo_rows(tmp_path)
  (tmp_path / "demo").unlink()
  (tmp_path / "demo").write_text("mine")
  with pytest.raises(UserError, match="it is no folder; use another --workdir, or move it away"):
    build_demo_rows(tmp_path)
  assert not steps


@pytest.mark.parametrize("names", [
  (), ("crawl.warc.wet.gz.tmp",), ("crawl.warc.wet.gz", "clean", "text", "vocabulary.model", "rows"),
  ("crawl.warc.wet.gz", "clean", "text", "vocabulary.model", ".rows.unfinished-host-1f.7"),
])  # fmt: skip
def test_what_an_older_version_left_unfinished_is_replaced(tmp_path, steps, names):
  (tmp_path / "demo").mkdir()
  for name in names:
    (tmp_path / "demo" / name).mkdir()
  build_demo_rows(tmp_path)
  assert (demo_rows(tmp_path) / "manifest.json").read_text() == "build_rows"
  assert (tmp_path / "demo" / "crawl.warc.wet.gz").is_file()


def test_what_comes_there_during_the_build_stays(tmp_path, steps, monkeypatch):
  crawl = corpus.write_crawl

  def write_crawl(*arguments):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "app.py").write_text("")
    crawl(*arguments)

  monkeypatch.setattr(corpus, "write_crawl", write_crawl)
  with pytest.raises(UserError, match=r"a folder with 'app\.py'"):
    build_demo_rows(tmp_path)
  assert os.listdir(tmp_path / "demo") == ["app.py"]


def test_a_second_starter_is_told_that_another_one_builds(tmp_path, steps, monkeypatch):
  crawl = corpus.write_crawl

  def write_crawl(*arguments):
    with pytest.raises(UserError, match=r"demo/rows: another process builds them; wait for it"):
      build_demo_rows(tmp_path)
    crawl(*arguments)

  monkeypatch.setattr(corpus, "write_crawl", write_crawl)
  build_demo_rows(tmp_path)
  assert (demo_rows(tmp_path) / "manifest.json").exists() and steps.count("write_crawl") == 1


def test_rows_that_another_starter_ended_a_moment_ago_are_taken(tmp_path, steps, monkeypatch):
  def late(*arguments):
    monkeypatch.setattr(corpus, "lock", lock)
    build_demo_rows(tmp_path)
    return lock(*arguments)

  monkeypatch.setattr(corpus, "lock", late)
  build_demo_rows(tmp_path)
  assert steps.count("build_rows") == 1


@pytest.mark.slow
def test_rows_that_were_built_aside_open(tmp_path):
  """The links of the text hold where the folder is moved to, and nothing names the place of the build."""
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.demo.crawl import shown

  build_demo_rows(tmp_path, scale=0.1)
  assert len(RowStore(demo_rows(tmp_path)).languages) == 15
  assert all(path.resolve(strict=True) for path in (tmp_path / "demo" / "text").iterdir())
  assert "kept" in list(shown(tmp_path / "demo" / "clean"))[-1]
  named = [path for path in tmp_path.rglob("*") if path.is_file() and b".demo.unfinished" in path.read_bytes()]
  assert not named
