"""Text, corpora and rows in a bucket, by the code that makes them on a disk: the same bytes in both places."""

import dataclasses
import gzip
import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from tests import bucket_server
from tests.test_build_corpus import OPTIONS, crawl, tree, wet_record
from xlmr_jax.bucket import file_system as store_of
from xlmr_jax.bucket_lock import create
from xlmr_jax.corpus import build, stages
from xlmr_jax.corpus.clean.build import WORK, build_corpus
from xlmr_jax.corpus.clean.finish import TIMES
from xlmr_jax.corpus.clean.read import common_root
from xlmr_jax.corpus.pieces import Piece, write_piece
from xlmr_jax.corpus.sources import Shard
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.corpus.vocabulary import train_vocabulary
from xlmr_jax.errors import StoreError, UserError
from xlmr_jax.files import any_path, on_this_machine, open_bytes, read_bytes, read_json, write_whole
from xlmr_jax.folders import copy_folder, entries, files_below


@pytest.fixture
def folder(bucket_port):
  """An unused place in the bucket."""
  return any_path(f"gs://{bucket_server.BUCKET}/{uuid.uuid4().hex[:8]}")


def there(place) -> dict[str, str]:
  """The digest of every object below a place, as `tree` has them of a folder."""
  return {name: hashlib.sha256(read_bytes(place / name)).hexdigest() for name in files_below(place) if name != TIMES}


def counted(monkeypatch, place) -> list[str]:
  """The requests that list something from here on."""
  store, made = store_of(place), []
  for name in ("ls", "find", "info"):
    real = getattr(store, name)

    def ask(*arguments, real=real, name=name, **more):
      made.append(f"{name} {arguments[0]}")
      return real(*arguments, **more)

    monkeypatch.setattr(store, name, ask)
  return made


# --- reading ---------------------------------------------------------------------------------------------------------


def test_an_object_reads_as_a_file_wherever_one_seeks(folder, tmp_path, monkeypatch):
  monkeypatch.setattr("xlmr_jax.bucket._GLANCE_BYTES", 100)
  monkeypatch.setattr("xlmr_jax.bucket._BLOCK_BYTES", 1000)
  content = np.random.default_rng(0).bytes(200_000)
  write_whole(folder / "x", content)
  (tmp_path / "x").write_bytes(content)
  rng = random.Random(0)
  with open_bytes(folder / "x") as ours, open_bytes(tmp_path / "x") as theirs:
    for _ in range(60):
      if rng.random() < 0.4:
        where = (rng.randrange(-300, 250_000), os.SEEK_SET) if rng.random() < 0.5 else (-rng.randrange(5000), os.SEEK_END)
        where = (max(0, where[0]), where[1]) if where[1] == os.SEEK_SET else where
        assert ours.seek(*where) == theirs.seek(*where)
      size = rng.choice((1, 30, 999, 70_000))
      assert ours.read(size) == theirs.read(size) and ours.tell() == theirs.tell()
    assert ours.seek(0) == 0 and b"".join(iter(lambda: ours.read1(777), b"")) == content
  with pytest.raises(FileNotFoundError), open_bytes(folder / "none"):
    pass
  with on_this_machine(folder / "x") as copy:
    assert copy.name == "x" and copy.read_bytes() == content
  assert not copy.exists() and not copy.parent.exists()


def test_a_piece_of_a_bucket_is_read_in_parts(folder, monkeypatch):
  arrays = {"de/text": np.arange(1_000_000, dtype=np.uint64), "de/few": np.arange(3), "sw/square": np.eye(4)}
  write_piece(folder / "a.npz", arrays)
  read, store = [], store_of(folder)
  real = store.cat_file
  monkeypatch.setattr(store, "cat_file", lambda *a, **k: read.append(len(found := real(*a, **k))) or found)
  piece = Piece(folder / "a.npz")
  assert np.array_equal(piece.array("de/text", 700_000, 700_020), np.arange(700_000, 700_020))
  assert np.array_equal(piece.array("de/few"), np.arange(3)) and np.array_equal(piece.array("sw/square"), np.eye(4))
  assert sum(read) < 700_000 and len(read) < 12
  piece.array("de/few")[0] = 7  # It can be written to.


def write_text(root: Path) -> None:
  """Text in all formats that lie in files, plain, compressed, damaged and hidden, on the disk."""
  texts = [f"{text}\n{number} once more" for number, text in enumerate(crawl()[:60])]
  for name in ("wet/a", "wet/b", "cc100/sw", "lines", "tables"):
    (root / name).mkdir(parents=True)
  for number, name in enumerate(("a/0", "a/1", "b/2")):
    records = [wet_record(i, text) for i, text in enumerate(texts[number::3])]
    nameless = gzip.decompress(wet_record(99, texts[0])).replace(b"WARC-Record-ID", b"X-Record-ID")
    content = b"".join([*records, gzip.compress(nameless, mtime=0)])
    (root / "wet" / f"{name}.warc.wet.gz").write_bytes(content[: -40 if name == "b/2" else None])
  (root / "wet" / "a" / ".hidden.warc.wet.gz").write_bytes(b"x")
  (root / "cc100" / "en.txt").write_text("\n\n".join(texts))
  (root / "cc100" / "sw" / "1.txt.gz").write_bytes(gzip.compress("\n\n".join(texts[:9]).encode(), mtime=0))
  (root / "cc100" / "sw" / "0.txt").write_text("\n\n".join(texts[9:20]))
  lines = [json.dumps({"text": text, "url": "http://e.org/", "language": "en"}) for text in texts]
  (root / "lines" / "x.jsonl").write_text("\n".join([*lines, "no JSON"]))
  (root / "lines" / "y.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:5]).encode(), mtime=0))
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  table = pyarrow.table({"text": texts, "language": ["en"] * len(texts)})
  parquet.write_table(table, root / "tables" / "t.parquet", row_group_size=7)


@pytest.fixture(scope="module")
def text(bucket_port, tmp_path_factory):
  """(a folder with text, the same in the bucket)."""
  here = tmp_path_factory.mktemp("text") / "text"
  write_text(here)
  place = any_path(f"gs://{bucket_server.BUCKET}/text")
  copy_folder(here, place)
  return here, place


SOURCES = [
  "wet:{}/wet/*/*.warc.wet.gz",
  "wet:{}/wet/a/*.gz",
  "wet:{}/wet/**/*.gz",
  "wet:{}/wet",
  "wet:{}/wet/a/[!1].*.wet.gz",
  "wet:{}/wet/a/1.warc.wet.gz",
  "cc100:{}/cc100",
  "jsonl:{}/lines",
  "jsonl:{}/*/x.jsonl",
  "parquet:{}/tables",
  "parquet:{}/tables/t.parquet",
]


@pytest.mark.parametrize("spec", SOURCES)
def test_a_source_in_a_bucket_gives_the_same_documents(text, spec):
  """The same shards and documents, with ids, damage and sizes, but for the begin of their paths."""
  found = []
  for root in text:
    source = open_source(spec.format(root))
    shards = source.shards(3000)
    reader, damage, documents = pickle.loads(pickle.dumps(source.reader())), [], []
    for shard in shards:
      documents += reader.documents(shard, damage.append)
    found.append(str((shards, damage, documents, common_root(shards))).replace(str(root), "ROOT"))
    assert documents and "xlmr_jax-" not in found[-1]
  assert found[0] == found[1]


def test_a_list_names_files_of_buckets_and_is_one_itself(text, tmp_path, monkeypatch):
  here, place = text
  names = ["wet/b/2.warc.wet.gz", "wet/a/0.warc.wet.gz", "wet/a/1.warc.wet.gz"]
  (tmp_path / "list").write_text("# WET\n" + "".join(f"{place}/{name}\n" for name in names))
  write_whole(place / "lists" / "list.txt", "".join(f"../{name}\n" for name in names).encode())
  made = counted(monkeypatch, place)
  for given in (f"wet:@{tmp_path}/list", f"wet:@{place}/lists/list.txt"):
    shards = open_source(given).shards(1)
    assert [(shard.name, shard.size) for shard in shards] == [
      (f"{place}/{name}", (here / name).stat().st_size) for name in names
    ]
  assert len([request for request in made if "/wet/" in request]) == 4  # two folders, for each of the lists
  (tmp_path / "list").write_text(f"{place}/wet/a/0.warc.wet.gz\n\n{place}/wet/a/9.gz\n")
  with pytest.raises(UserError, match=r"list, line 3: gs://.*/9\.gz: cannot be read \(no such file"):
    open_source(f"wet:@{tmp_path}/list")


@pytest.mark.parametrize(
  "given, said",
  [
    ("wet:{}/none/*.gz", "no file has such a name"),
    ("wet:{}/none", "no such file or folder"),
    ("cc100:{}/none", "no such folder"),
    ("wet:{}/lines", "no file in it whose name ends in .wet"),
    ("jsonl:@{}/none", "cannot be read"),
  ],
)
def test_what_is_not_in_a_bucket_is_named(text, given, said):
  with pytest.raises(UserError) as error:
    open_source(given.format(text[1]))
  assert said in str(error.value) and "gs://" in str(error.value)


def test_a_folder_of_a_bucket_is_listed_once(text, monkeypatch):
  made = counted(monkeypatch, text[1])
  CC100(text[1] / "cc100")
  assert len(made) == 2
  open_source(f"wet:{text[1]}/wet/*/*.gz")
  assert len(made) == 3


def test_the_common_folder_of_objects():
  assert common_root([Shard("gs://b/x/a.gz", 1), Shard("gs://b/x/y/b.gz", 1)]) == "gs://b/x/"
  assert common_root([Shard("gs://b/a.gz", 1), Shard("gs://c/b.gz", 1)]) == "gs://"
  assert common_root([Shard("gs://b/a.gz", 1), Shard("/c/b.gz", 1)]) == ""


# --- build_corpus ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(text, tmp_path_factory):
  """Clean text, on the disk."""
  out = tmp_path_factory.mktemp("built") / "clean"
  options = dataclasses.replace(OPTIONS, removed="all")
  build_corpus(open_source(f"wet:{text[0]}/wet"), out, options, workers=1, quiet=True)
  return out


@pytest.mark.slow
def test_a_corpus_in_a_bucket_is_the_corpus_on_a_disk(text, built, folder):
  options = dataclasses.replace(OPTIONS, removed="all")
  source = open_source(f"wet:{text[1]}/wet")
  summary = build_corpus(source, folder / "clean", options, workers=1, quiet=True)
  assert there(folder / "clean") == tree(built) and not entries(folder / "clean" / WORK)
  assert build_corpus(source, folder / "clean", options, workers=1, quiet=True) == summary  # It was finished before.
  ours, theirs = CC100(folder / "clean"), CC100(built)
  assert sorted(ours.files) == sorted(theirs.files)


def test_a_language_is_built_anew_in_a_bucket(text, built, folder):
  """Also one whose text went meanwhile: its old files do not stay."""
  options = dataclasses.replace(OPTIONS, removed="all")
  copy_folder(built, folder / "clean", last="manifest.json")
  write_whole(folder / "clean" / "en" / "00099.txt.zst", b"an older build had more files")
  build_corpus(open_source(f"wet:{text[1]}/wet"), folder / "clean", options, languages=["en"], workers=1, quiet=True)
  found, wanted = there(folder / "clean"), tree(built)
  assert {name: value for name, value in found.items() if name.startswith(("en/", "de/", "removed/"))} == {
    name: value for name, value in wanted.items() if name.startswith(("en/", "de/", "removed/"))
  }
  assert read_json(folder / "clean" / "manifest.json")["languages"] == read_json(built / "manifest.json")["languages"]


@pytest.mark.slow
def test_tasks_share_a_build_in_a_bucket(text, built, folder, monkeypatch):
  """Two tasks at once; and a third one, that began and died, whose share they do."""
  monkeypatch.setattr(stages, "_BUCKET_POLL_S", 0.05)
  monkeypatch.setattr(stages, "_BEAT_S", 0.2)
  monkeypatch.setattr(stages, "_SILENT_S", 2.0)
  options = dataclasses.replace(OPTIONS, removed="all")
  out, summaries = folder / "clean", []

  def run(task):
    source = open_source(f"wet:{text[1]}/wet")
    summaries.append(build_corpus(source, out, options, workers=1, quiet=True, task=(task, 3)))

  run(0)
  assert summaries.pop()["waits_for_tasks"] == [1, 2]
  name = read_json(out / WORK / "job.json")["folder"]
  for other in ("1", "2"):
    write_whole(out / WORK / name / "tasks" / other, b"alive\n")
  threads = [threading.Thread(target=run, args=(task,)) for task in (0, 1)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(summaries) == 2 and summaries[0] == summaries[1] and "bytes_out" in summaries[0]
  assert there(out) == tree(built)


def test_a_task_that_is_late_changes_nothing(text, folder):
  """What it finds gone was put away, and what it writes goes to the folder of the old build."""
  from xlmr_jax.corpus.clean.begin import begin, fingerprint_of
  from xlmr_jax.corpus.clean.build import new_job
  from xlmr_jax.corpus.clean.finish import Finish
  from xlmr_jax.corpus.stages import Item

  options = dataclasses.replace(OPTIONS, near_duplicates=False)
  source = open_source(f"wet:{text[1]}/wet")
  shards = source.shards(20_000)
  job = new_job(folder / "clean" / WORK, source, shards, options, [], None)
  late = begin(folder / "clean", fingerprint_of(options, shards, job.root, ""), job, {})
  build_corpus(source, folder / "clean", options, workers=1, quiet=True)
  before = there(folder / "clean")
  with pytest.raises(FileNotFoundError, match="the build is finished"):
    Finish(late, {}).work(Item(0, 0))
  assert there(folder / "clean") == before


def test_a_store_that_fails_is_no_fault_of_the_text(text, folder, monkeypatch):
  """The command ends with 42, and goes on from there when it is started again."""
  source = open_source(f"wet:{text[1]}/wet")
  options, store = dataclasses.replace(OPTIONS, near_duplicates=False), store_of(folder)
  real = store.put_file

  def put_file(source, target):
    if "/4_filter/" in target:
      raise StoreError("the store has failed")
    real(source, target)

  with monkeypatch.context() as patched, pytest.raises(StoreError, match="the store has failed"):
    patched.setattr(store, "put_file", put_file)
    build_corpus(source, folder / "clean", options, workers=1, quiet=True)
  assert build_corpus(source, folder / "clean", options, workers=1, quiet=True)["documents_out"]


def test_one_of_several_creates_an_object(folder):
  assert create(folder / "x", b"1") and not create(folder / "x", b"2") and read_bytes(folder / "x") == b"1"


# --- vocabulary and rows ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(text, tmp_path_factory):
  """(a vocabulary, rows of two languages), on the disk."""
  root = tmp_path_factory.mktemp("rows")
  train_vocabulary(CC100(text[0] / "cc100"), root / "v.model", size=400)
  rows_of(CC100(text[0] / "cc100"), root / "v.model", root / "rows")
  return root / "v.model", root / "rows"


def rows_of(source, model, out, **more):
  return build.build_rows(source, model, out, seq_len=64, held_out=0.2, workers=1, shard_mb=0.01, **more)


def test_vocabulary_and_rows_in_a_bucket_are_those_on_a_disk(text, rows, folder):
  source = CC100(text[1] / "cc100")
  train_vocabulary(source, folder / "v.model", size=400, compare=rows[0])
  assert read_bytes(folder / "v.model") == rows[0].read_bytes()
  rows_of(source, folder / "v.model", folder / "rows")
  assert there(folder / "rows") == tree(rows[1])
  with pytest.raises(UserError, match="exists; remove it"):
    rows_of(source, folder / "v.model", folder / "rows")


def test_a_language_is_added_to_rows_in_a_bucket(text, rows, folder, monkeypatch):
  """One language after the other; and what a build left that was killed while it put its files in their places."""
  monkeypatch.setattr("xlmr_jax.bucket_lock.BEAT_S", 0.2)
  for language in ("sw", "en"):
    rows_of(CC100(text[1] / "cc100", [language]), rows[0], folder / "rows", add=True)
  assert there(folder / "rows") == tree(rows[1])
  real = build.publish.__globals__["write_whole"]
  monkeypatch.setattr("xlmr_jax.corpus.merge.write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    rows_of(CC100(text[1] / "cc100", ["en"]), rows[0], folder / "rows", add=True)
  monkeypatch.setattr("xlmr_jax.corpus.merge.write_whole", real)
  assert not (folder / "rows" / "manifest.json").exists()
  with pytest.raises(UserError, match="replaced en only in part"):
    rows_of(CC100(text[1] / "cc100", ["sw"]), rows[0], folder / "rows", add=True)
  with pytest.raises(UserError, match="exists"):
    rows_of(CC100(text[1] / "cc100", ["en"]), rows[0], folder / "rows")
  rows_of(CC100(text[1] / "cc100", ["en"]), rows[0], folder / "rows", add=True)
  assert there(folder / "rows") == tree(rows[1])


# --- the whole way ---------------------------------------------------------------------------------------------------


def start(port, *arguments):
  """Begins a command in a session of its own, so that it can be killed with its workers."""
  environment = os.environ | bucket_server.environment(port) | {"JAX_PLATFORMS": "cpu"}
  return subprocess.Popen([sys.executable, "-m", "xlmr_jax", *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)  # fmt: skip


def result(process) -> dict:
  """The line of JSON that a command ends with."""
  out, said = process.communicate(timeout=900)
  assert process.returncode == 0, said[-3000:]
  return json.loads(out.splitlines()[-1])


def kill_when(process, is_there) -> None:
  """Kills a command and its workers, as a machine that fails does."""
  deadline = time.monotonic() + 300
  while not is_there() and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.05)
  assert process.poll() is None, process.communicate()
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()


def corpus(source, out, *more):
  return ("build_corpus", f"--source={source}", f"--out={out}", "--piece_mb=0.02", "--file_mb=0.05", *more)


@pytest.fixture(scope="module")
def way(bucket_port, tmp_path_factory):
  """(WET files on the disk, the same in the bucket, the folder of all that was made of them on the disk)."""
  here = tmp_path_factory.mktemp("way")
  texts = crawl()
  (here / "wet").mkdir()
  for part in range(3):
    (here / "wet" / f"{part}.wet.gz").write_bytes(b"".join(wet_record(i, texts[i]) for i in range(part, len(texts), 3)))
  place = any_path(f"gs://{bucket_server.BUCKET}/way")
  copy_folder(here / "wet", place / "wet")
  make(bucket_port, here)
  return here, place


ROWS = ("--languages=de,en,ru,sw", "--seq_len=64", "--held_out=0.1", "--shard_mb=0.02")


def make(port, root) -> None:
  """Clean text, a vocabulary and rows, below the folder of the WET files."""
  result(start(port, *corpus(f"wet:{root}/wet/*.wet.gz", root / "clean", "--workers=2")))
  result(start(port, "train_vocabulary", f"--text={root}/clean", ROWS[0], "--size=600", f"--out={root}/v.model"))
  result(start(port, "build_rows", f"--text={root}/clean", f"--tokenizer={root}/v.model", f"--out={root}/rows", *ROWS))


@pytest.mark.slow
def test_the_whole_way_in_a_bucket_is_the_way_on_a_disk(way, bucket_port, tmp_path):
  here, place = way
  make(bucket_port, place)
  assert there(place) == tree(here)
  options = ("--config=smoke:runlocal", "--config.train_steps=4", "--config.optimizer.warmup_steps=1",
             "--config.checkpoint.every_steps=4", "--config.held_out.every_steps=4")  # fmt: skip
  ended = [
    result(start(bucket_port, "pretrain", *options, f"--config.data.rows={root}/rows", f"--workdir={tmp_path / name}",
                 f"--config.data.cache={tmp_path / 'cache'}"))
    for root, name in ((here, "disk"), (place, "bucket"))
  ]  # fmt: skip
  assert ended[0] | {"workdir": ""} == ended[1] | {"workdir": ""}
  logs = [(tmp_path / name / "train.jsonl").read_bytes() for name in ("disk", "bucket")]
  assert logs[0] == logs[1] and logs[0]


@pytest.mark.slow
def test_tasks_of_two_machines_build_the_same_corpus(way, bucket_port, folder):
  here, place = way
  tasks = [start(bucket_port, *corpus(f"wet:{place}/wet/*.wet.gz", folder / "clean", f"--task={i}/2")) for i in (0, 1)]
  assert len([None for task in tasks if "bytes_out" in result(task)]) >= 1
  assert there(folder / "clean") == tree(here / "clean")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1_read", "4_filter", "5_pairs", "7_write", "manifest"])
def test_a_build_that_was_killed_goes_on_in_a_bucket(way, bucket_port, folder, stage):
  here, place = way
  out = folder / "clean"
  command = corpus(f"wet:{place}/wet/*.wet.gz", out, "--workers=2")

  def is_there() -> bool:
    if stage == "manifest":  # It is placing what is finished.
      return bool(files_below(out / "removed"))
    names = [name for name in entries(out / WORK) if name != "job.json"]
    return any(entries(out / WORK / name / stage) for name in names)

  kill_when(start(bucket_port, *command), is_there)
  result(start(bucket_port, *command))
  assert there(out) == tree(here / "clean")


@pytest.mark.slow
def test_rows_whose_build_was_killed_are_built_anew_in_a_bucket(way, bucket_port, folder):
  here, _ = way
  copy_folder(here / "clean", folder / "clean", last="manifest.json")
  rows = ("build_rows", f"--text={folder}/clean", f"--tokenizer={here}/v.model", f"--out={folder}/rows", *ROWS)
  kill_when(start(bucket_port, *rows), lambda: any("/rows/" in name for name in files_below(folder / "rows")))
  result(start(bucket_port, *rows))
  assert there(folder / "rows") == tree(here / "rows")


@pytest.mark.slow
def test_beam_builds_in_a_bucket(way, bucket_port, folder):
  pytest.importorskip("apache_beam")
  here, place = way
  result(start(bucket_port, *corpus(f"wet:{place}/wet/*.wet.gz", folder / "clean", "--runner=DirectRunner")))
  assert there(folder / "clean") == tree(here / "clean")
  rows = ("build_rows", f"--text={folder}/clean", f"--tokenizer={here}/v.model", f"--out={folder}/rows", *ROWS)
  result(start(bucket_port, *rows, "--runner=DirectRunner"))
  assert there(folder / "rows") == tree(here / "rows")
