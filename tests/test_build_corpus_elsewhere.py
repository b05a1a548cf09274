"""`xlmr build_corpus` of the same files in another place gives the same bytes: files are named from a common folder on."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.test_build_corpus import OPTIONS, tree, wet_record
from xlmr_jax.corpus.clean.build import Options, build_corpus
from xlmr_jax.corpus.clean.read import common_root
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import UserError


def texts(language: str, count: int) -> list[str]:
  return ["\n".join(paragraphs) for paragraphs in documents(language, count=count)]


def write_wet(folder: Path) -> str:
  """Two files, one of them with a record without an id and one that is damaged."""
  for name in ("a", "b"):
    (folder / name).mkdir(parents=True)
    records = [wet_record(i, text) for i, text in enumerate(texts("en", 20))]
    nameless = gzip.decompress(wet_record(20, "buy now " * 60)).replace(b"WARC-Record-ID", b"X-Record-ID")
    records.insert(10, gzip.compress(nameless, mtime=0))
    (folder / name / f"{name}.warc.wet.gz").write_bytes(b"".join(records)[: None if name == "a" else -40])
  return f"wet:{folder}/*/*.warc.wet.gz"


def write_cc100(folder: Path) -> str:
  folder.mkdir(parents=True)
  for language in ("de", "sw"):
    (folder / f"{language}.txt").write_text("\n\n".join([*texts(language, 20), "!!! ??? ### " * 20]))
  return f"cc100:{folder}"


def write_jsonl(folder: Path) -> str:
  folder.mkdir(parents=True)
  lines = [json.dumps({"text": text}) for text in [*texts("ru", 20), "0 1 2 " * 90]]
  (folder / "x.jsonl").write_text("\n".join([*lines, "no JSON"]))
  return f"jsonl:{folder}/x.jsonl"


@pytest.mark.parametrize("write", [write_wet, write_cc100, write_jsonl])
def test_the_same_files_elsewhere_become_the_same_bytes(tmp_path, write):
  build_corpus(open_source(write(tmp_path / "here")), tmp_path / "one", OPTIONS, workers=1)
  build_corpus(open_source(write(tmp_path / "there" / "below")), tmp_path / "two", OPTIONS, workers=1)
  assert tree(tmp_path / "one") == tree(tmp_path / "two")
  for path in (tmp_path / "one").rglob("*.json*"):
    assert str(tmp_path) not in path.read_text()


def test_a_finished_build_is_known_when_its_source_has_moved(tmp_path):
  source = write_cc100(tmp_path / "here")
  summary = build_corpus(open_source(source), tmp_path / "out", OPTIONS, workers=1)
  shutil.move(tmp_path / "here", tmp_path / "there")
  assert build_corpus(open_source(f"cc100:{tmp_path}/there"), tmp_path / "out", OPTIONS, workers=1) == summary
  (tmp_path / "there" / "sw.txt").rename(tmp_path / "there" / "so.txt")
  with pytest.raises(UserError, match="another source"):
    build_corpus(open_source(f"cc100:{tmp_path}/there"), tmp_path / "out", Options(piece_mb=0.02, file_mb=0.05), workers=1)


@pytest.mark.parametrize(
  ("names", "root"),
  [
    (["/a/b/x.gz"], "/a/b/"),
    (["/a/b/x.gz", "/a/b/c/y.gz"], "/a/b/"),
    (["/a/bc/x.gz", "/a/bd/x.gz"], "/a/"),
    (["/x.gz", "/a/y.gz"], "/"),
    (["tfds wiki40b/de, train[0shard:1shard]"], ""),
    ([], ""),
  ],
)
def test_the_common_folder_of_a_source(names, root):
  assert common_root([Shard(name, 1) for name in names]) == root
