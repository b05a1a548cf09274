"""Text to rows: every token once and in order, splits cut by document, builds identical, clear errors."""

import gzip
import hashlib
import json
import lzma
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xlmr_jax.corpus import build, shards, vocabulary
from xlmr_jax.corpus.held_out import document_hash
from xlmr_jax.corpus.sources import Document, Shard, Source, cc100, refuse
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data.rows import RowStore, language_folder
from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, PAD

ROOT = Path(__file__).parents[1]
SEQ_LEN = 64


def _pieces(rows: np.ndarray) -> list[list[int]]:
  """The pieces between <s> and </s>, in order; tests/test_packing.py checks the rows themselves."""
  flat = rows[rows != PAD].tolist()
  ends = [i for i, token in enumerate(flat) if token == EOS]
  assert [flat[i] for i in [0, *(end + 1 for end in ends[:-1])]] == [BOS] * len(ends)
  return [flat[start + 1 : end] for start, end in zip([0, *(end + 1 for end in ends)], ends)]


def _hold(rows: np.ndarray, documents: list[list[int]]) -> bool:
  """Whether rows hold each of the documents once and nothing else; a document that is cut goes on in later rows."""
  pieces = _pieces(rows)
  for document in sorted(documents, key=len):
    if document in pieces:  # A whole one: most are.
      pieces.remove(document)
      continue
    at = 0
    while at < len(document):
      piece = next((piece for piece in pieces if piece == document[at : at + len(piece)]), None)
      if piece is None:
        return False
      pieces.remove(piece)
      at += len(piece)
  return not pieces


# ---- the whole build ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """Four languages, plain and compressed and in a folder, one of a single document; and their vocabulary."""
  root = tmp_path_factory.mktemp("world")
  text = root / "text"
  (text / "sw").mkdir(parents=True)
  contents = {}
  for language, letters, documents in (
    ("en", "abdeghilmnoprst", 400),
    ("ru", "абвгдеиклмнопрст", 120),
    ("sw", "aeiouklmnpw", 60),
    ("th", "กขคงจชดตนบปม", 1),
  ):
    draw = random.Random(language)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(300)]
    contents[language] = []
    for _ in range(documents):
      lines = draw.randint(1, 9) if documents > 1 else 15
      made = [" ".join(draw.choices(words, k=draw.randint(3, 20))) for _ in range(lines)]
      contents[language].append("\n".join(made))
  (text / "en.txt").write_text("\n\n".join(contents["en"]) + "\n")
  (text / "ru.txt.xz").write_bytes(lzma.compress("\n\n".join(contents["ru"]).encode()))
  (text / "sw" / "a.txt").write_text("\n\n".join(contents["sw"][:30]))
  (text / "sw" / "b.txt.gz").write_bytes(gzip.compress("\n\n".join(contents["sw"][30:]).encode()))
  (text / "th.txt").write_text(contents["th"][0])
  vocabulary.train_vocabulary(CC100(text), root / "v.model", size=900)
  return root, contents


def _build(world, out, *, source=None, text=None, languages=None, **change):
  root, _ = world
  options = {"tokenizer": root / "v.model", "seq_len": SEQ_LEN, "held_out": 0.1, "workers": 2, "shard_mb": 0.02, **change}
  return build.build_rows(source or CC100(text or root / "text", languages), out=out, **options)


@pytest.fixture(scope="module")
def built(world, tmp_path_factory):
  """The build, in shards of a few blocks each."""
  out = tmp_path_factory.mktemp("built") / "rows"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cc100, "BLOCK_BYTES", 5000)
    summary = _build(world, out)
  return out, summary


def _hashes(folder: Path) -> dict[str, str]:
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _rows(store: RowStore, split: str, language: str) -> np.ndarray:
  index = store.languages.index(language)
  count = store.counts(split)[index]
  return store.read(split, np.full(count, index), np.arange(count))


def _expected(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
  return [[i for line in text.split("\n") for i in tokenizer.encode(line)[1:-1]] for text in documents]


def test_rows_hold_exactly_the_documents_each_in_one_split(world, built):
  root, contents = world
  store, tokenizer = RowStore(built[0]), open_tokenizer(root / "v.model")
  assert store.languages == ("en", "ru", "sw", "th") and store.seq_len == SEQ_LEN
  for language in ("en", "ru", "sw"):
    below = 2**64 // 10
    split = {"train": [], "held_out": []}
    for document in contents[language]:
      split["held_out" if document_hash(document) < below else "train"].append(document)
    assert len(split["held_out"]) >= 1
    for name, documents in split.items():
      assert _hold(_rows(store, name, language), _expected(tokenizer, documents))
      counted = store.manifest["languages"][language][name]
      assert counted["documents"] == len(documents)
      assert counted["bytes"] == sum(len(document.encode()) for document in documents)
      assert counted["tokens"] == np.count_nonzero(_rows(store, name, language) != PAD)


def test_a_lone_document_has_its_last_paragraphs_held_out(world, built):
  root, contents = world
  store, tokenizer = RowStore(built[0]), open_tokenizer(root / "v.model")
  lines = contents["th"][0].split("\n")
  tail = max(1, round(0.1 * len(lines)))
  for split, part in (("train", lines[:-tail]), ("held_out", lines[-tail:])):
    flat = [i for piece in _pieces(_rows(store, split, "th")) for i in piece]
    assert [flat] == _expected(tokenizer, ["\n".join(part)])


def test_summary_and_names(built):
  out, summary = built
  manifest = json.loads((out / "manifest.json").read_text())
  splits = [split for language in manifest["languages"].values() for split in language.values()]
  total = {key: sum(split[key] for split in splits) for key in ("rows", "tokens")}
  assert list(summary) == ["languages", "rows", "tokens", "real_token_share", "mb_per_s"]
  assert (summary["languages"], summary["rows"], summary["tokens"]) == (4, total["rows"], total["tokens"])
  assert summary["real_token_share"] == pytest.approx(total["tokens"] / total["rows"] / SEQ_LEN, abs=1e-5)
  names = sorted(path.name for path in language_folder(out, "en").glob("rows-train*"))
  assert len(names) > 2 and names[0] == f"rows-train.array_record-00000-of-{len(names):05d}"
  assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "rows", "tokenizer.model"]
  assert [path.name for path in out.parent.iterdir()] == ["rows"]
  assert manifest["files"] == {name: sha for name, sha in _hashes(out).items() if "array_record" in name}


def test_tfds_opens_a_language(built):
  tfds = pytest.importorskip("tensorflow_datasets")
  builder = tfds.builder_from_directory(language_folder(built[0], "en"))
  store = RowStore(built[0])
  for split in ("train", "held_out"):
    read = np.stack([example["tokens"] for example in builder.as_data_source(split)])
    np.testing.assert_array_equal(read, _rows(store, split, "en"))


@pytest.mark.parametrize(
  "change",
  [{"workers": 1}, {"workers": 3}, {"beam_flags": ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]}],
)
def test_builds_are_byte_identical(world, built, tmp_path, monkeypatch, change):
  if "beam_flags" in change:
    pytest.importorskip("apache_beam")
  monkeypatch.setattr(cc100, "BLOCK_BYTES", 5000)
  _build(world, tmp_path / "rows", **change)
  assert _hashes(tmp_path / "rows") == _hashes(built[0])


def test_processes_give_the_same_bytes_as_threads(world, tmp_path, monkeypatch):
  _build(world, tmp_path / "threads")
  monkeypatch.setattr(build, "PROCESS_BYTES", 1)
  _build(world, tmp_path / "processes")
  assert _hashes(tmp_path / "threads") == _hashes(tmp_path / "processes")


def test_compressed_text_gives_the_same_rows(world, built, tmp_path, monkeypatch):
  monkeypatch.setattr(cc100, "BLOCK_BYTES", 5000)
  text = tmp_path / "text"
  text.mkdir()
  (text / "en.txt.gz").write_bytes(gzip.compress((world[0] / "text" / "en.txt").read_bytes()))
  _build(world, tmp_path / "rows", text=text)
  mine, whole = _hashes(tmp_path / "rows" / "rows" / "en"), _hashes(built[0] / "rows" / "en")
  assert mine == whole


def test_a_share_too_small_or_too_large_still_leaves_a_document_on_both_sides(world, tmp_path):
  for held_out in (1e-9, 0.999999):
    _build(world, tmp_path / str(held_out), held_out=held_out)
    for name, counts in RowStore(tmp_path / str(held_out)).manifest["languages"].items():
      small = "held_out" if held_out < 0.5 else "train"
      assert counts[small]["documents"] == 1 and counts[small]["rows"] >= 1, name


def test_without_held_out(world, tmp_path):
  _build(world, tmp_path / "rows", held_out=0.0, languages=["en", "th"])
  store = RowStore(tmp_path / "rows")
  assert store.languages == ("en", "th") and store.counts("held_out").tolist() == [0, 0]
  assert store.manifest["languages"]["en"]["train"]["documents"] == 400


def _write(folder: Path, name: str, data: bytes) -> None:
  (folder / name).parent.mkdir(exist_ok=True, parents=True)
  (folder / name).write_bytes(data)


GOOD = b"one two\n\nthree four\n"


@pytest.mark.parametrize(
  "files, change, message",
  [
    ({}, {}, "no such folder"),
    ({"en.txt": GOOD, "fr.txt": b" \n\n"}, {}, r"fr\.txt: no text"),
    ({"en.txt": GOOD, "fr.txt": b""}, {}, r"fr\.txt: no text"),
    ({"en.txt": GOOD}, {"languages": ["en", "fr"]}, "no text of fr"),
    ({"en.txt": GOOD, "fr.txt": GOOD + b"caf\xe9\n"}, {}, r"fr\.txt, line 4: not UTF-8"),
    ({"en.txt": GOOD, "fr.txt": b"\xff", "sw.txt": b"\xff"}, {}, r"fr\.txt, line 1: .* \(and 1 more error"),
    ({"en.txt": GOOD, "de.txt.gz": b"plain"}, {}, r"de\.txt\.gz: damaged"),
    ({"en.txt": GOOD, "en.txt.gz": gzip.compress(GOOD)}, {}, "also in"),
    ({"english.txt": GOOD}, {}, "no language code"),
    ({"en.txt": b"only one"}, {}, "only one paragraph"),
    ({"en.txt": b"same\n\nsame\n\nsame"}, {}, "3 times the same document"),
    ({"en.txt": GOOD}, {"held_out": 1.0}, "held_out=1.0"),
    ({"en.txt": GOOD}, {"held_out": -0.1}, "held_out=-0.1"),
    ({"en.txt": GOOD}, {"seq_len": 8}, "seq_len=8"),
    ({"en.txt": GOOD}, {"workers": 0}, "workers=0"),
    ({"en.txt": GOOD}, {"tokenizer": __file__}, "no SentencePiece model"),
    ({"en.txt": GOOD}, {"tokenizer": "/nowhere.model"}, "no vocabulary"),
    ({"en.txt": GOOD}, {"beam_flags": ["--direct_runing_mode=x"]}, "--direct_runing_mode"),
    ({"en.txt": GOOD}, {"beam_flags": ["--runner=Nonesuch"]}, "--runner=Nonesuch"),
    ({"en.txt": GOOD}, {"beam_flags": ["stray"]}, "stray: not understood"),
  ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(world, tmp_path, files, change, message):
  for name, data in files.items():
    _write(tmp_path / "text", name, data)
  with pytest.raises(UserError, match=message) as error:
    _build(world, tmp_path / "out" / "rows", text=tmp_path / "text", **change)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "out").exists()


def test_existing_output_is_left_alone(world, tmp_path):
  (tmp_path / "rows").mkdir()
  with pytest.raises(UserError, match="exists"):
    _build(world, tmp_path / "rows")
  assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.parametrize(
  "error, raised", [(OSError(28, "No space left on device"), UserError), (ZeroDivisionError("a bug"), RuntimeError)]
)
def test_a_failing_worker_leaves_nothing(world, tmp_path, monkeypatch, error, raised):
  def fail(*_):
    raise error

  monkeypatch.setattr(shards.row_files, "write_shard", fail)
  with pytest.raises(raised, match=r"No space left|a bug"):
    _build(world, tmp_path / "rows")
  assert list(tmp_path.iterdir()) == []


def _command(world, out, *more):
  arguments = [f"--text={world[0] / 'text'}", f"--tokenizer={world[0] / 'v.model'}", f"--out={out}", *more]
  return [sys.executable, "-m", "xlmr_jax", "build_rows", *arguments]


def test_the_command(world, tmp_path):
  command = _command(world, tmp_path / "rows", "--seq_len=32")
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout.splitlines()[-1])["languages"] == 4
  assert RowStore(tmp_path / "rows").seq_len == 32
  again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert again.returncode == 1 and again.stdout == ""
  assert again.stderr.count("\n") == 1 and again.stderr.startswith("error: ") and "exists" in again.stderr


@pytest.mark.slow
def test_a_terminated_build_leaves_nothing(world, tmp_path):
  _write(tmp_path / "text", "en.txt", (world[0] / "text" / "en.txt").read_bytes() * 400)
  command = _command(world, tmp_path / "out" / "rows", f"--text={tmp_path / 'text'}", "--shard_mb=1")
  running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  until = time.monotonic() + 60
  while not any((tmp_path / "out").glob(".rows.unfinished*/rows/*/*/*")) and time.monotonic() < until:
    assert running.poll() is None, running.communicate()
    time.sleep(0.02)
  running.terminate()
  _, said = running.communicate(timeout=60)
  assert running.returncode == 143 and said.splitlines()[-1] == "stopped; nothing is left behind"
  assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_what_a_killed_build_left_goes_with_the_next(world, tmp_path):
  ended = subprocess.Popen(["true"])
  ended.wait()
  here, boot = socket.gethostname(), build._boot()
  places = (here, boot, ended.pid), ("elsewhere", boot, ended.pid), (here, "0badb007", ended.pid), (here, boot, os.getppid())
  left, *others = (tmp_path / f".rows.unfinished-{host}-{start}.{pid}" for host, start, pid in places)
  for folder in (left, *others):
    folder.mkdir()
  build.build_rows(CC100(world[0] / "text"), world[0] / "v.model", tmp_path / "rows", seq_len=32)
  assert not left.exists() and all(folder.exists() for folder in others)


# ---- another source ----------------------------------------------------------------------------------------


class JsonLines(Source):
  """Files of JSON lines, each a document that tells its own language: the format that a new source would have."""

  def __init__(self, paths):
    self.paths = paths

  def shards(self, shard_bytes):
    return [Shard(str(path), path.stat().st_size) for path in self.paths]

  def documents(self, shard, on_damage=refuse):
    for number, line in enumerate(Path(shard.name).read_text().splitlines()):
      fields = json.loads(line)
      yield Document(fields["text"], f"{shard.name}:{number}", fields["url"], fields["language"])


@pytest.fixture
def json_lines(world, tmp_path):
  """The documents of world in two files, every second one in the other, so that both hold most languages."""
  lines = [
    json.dumps({"text": text, "url": f"https://example.org/{language}/{number}", "language": language})
    for language, texts in world[1].items()
    for number, text in enumerate(texts)
  ]
  paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
  for path, part in zip(paths, (lines[::2], lines[1::2])):
    path.write_text("\n".join(part) + "\n")
  return JsonLines(paths)


def test_another_source_goes_through_the_same_build(world, built, tmp_path, json_lines):
  _build(world, tmp_path / "rows", source=json_lines, shard_mb=1)
  mine, theirs = RowStore(tmp_path / "rows"), RowStore(built[0])
  assert mine.languages == theirs.languages
  for language in mine.languages:
    for split, counts in mine.manifest["languages"][language].items():
      wanted = theirs.manifest["languages"][language][split]
      assert all(counts[key] == wanted[key] for key in ("pieces", "bytes", "documents")), (language, split)
  tokenizer = open_tokenizer(world[0] / "v.model")
  documents = [document for shard in json_lines.shards(0) for document in json_lines.documents(shard)]
  kept = [text for text, _, _, language in documents if language == "ru" and document_hash(text) >= 2**64 // 10]
  assert _hold(_rows(mine, "train", "ru"), _expected(tokenizer, kept))


def test_another_source_trains_a_vocabulary(world, tmp_path, json_lines):
  tables = [
    vocabulary.train_vocabulary(source, tmp_path / f"{i}.model", size=900)["table"]
    for i, source in enumerate((CC100(world[0] / "text"), json_lines))
  ]
  quotas = [sorted((row["language"], row["paragraphs"], row["sampled"]) for row in table) for table in tables]
  assert len(quotas[0]) == 4 and quotas[0] == quotas[1]


# ---- without Beam, and not in silence ------------------------------------------------------------------------

NO_BEAM = """
import sys
sys.modules["apache_beam"] = None
from xlmr_jax.__main__ import main
main()
"""


def _without_beam(world, out, *more):
  """The command in an interpreter that has no Beam."""
  return [sys.executable, "-c", NO_BEAM, *_command(world, out, *more)[3:]]


def test_a_local_build_needs_no_beam(world, tmp_path):
  _build(world, tmp_path / "with")
  command = _without_beam(
    world, tmp_path / "without", f"--seq_len={SEQ_LEN}", "--held_out=0.1", "--workers=2", "--shard_mb=0.02"
  )
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert _hashes(tmp_path / "with") == _hashes(tmp_path / "without")


def test_a_runner_without_beam_names_the_extra(world, tmp_path):
  command = _without_beam(world, tmp_path / "rows", "--runner=DataflowRunner")
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
  assert done.stderr.startswith("error: --runner=DataflowRunner") and "pip install 'xlmr_jax[corpus]'" in done.stderr
  assert list(tmp_path.iterdir()) == []


# ---- real text ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_text_of_94_languages(shared, tmp_path):
  data = shared / "data"
  for workers in (1, 3):
    summary = build.build_rows(
      CC100(data / "tiny100"), data / "tokenizer" / "xlmr.spm.model", tmp_path / str(workers), workers=workers
    )
    assert summary["languages"] == 94 and summary["real_token_share"] >= 0.98
  store = RowStore(tmp_path / "1")
  assert (store.counts("train") > 0).all() and (store.counts("held_out") > 0).all()
  assert _hashes(tmp_path / "1") == _hashes(tmp_path / "3")
