"""Reading CC-100 layout: blocks, documents, shards, and errors that name the file and the line."""

import gzip
import lzma
import random

import pytest

from xlmr_jax.corpus.sources import cc100 as sources
from xlmr_jax.errors import UserError


def _text(seed: int, documents: int = 60) -> bytes:
  draw = random.Random(seed)
  words = ["wind", "вода", "หิน", "石", "feu", "ἄστρον"]

  def paragraph():
    return " ".join(draw.choices(words, k=draw.randint(1, 12)))

  made = ["\n".join(paragraph() for _ in range(draw.randint(1, 4))) for _ in range(documents)]
  return "\n\n".join(made).encode()


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(sources, "BLOCK", 300)
  monkeypatch.setattr(sources, "LONGEST_DOCUMENT", 1200)


def _read(path, start=0, length=None):
  return [d for block in sources.read_blocks(path, start, length) for d in sources.documents(block)]


def test_files_of_every_form_are_found(tmp_path):
  for name in ("en.txt", "zh_Hans.txt.gz", "bn_rom.txt.xz", "MANIFEST.tsv", ".hidden.txt"):
    (tmp_path / name).write_bytes(b"x")
  for name in ("b.txt", "a.txt.gz", "notes.md"):
    (tmp_path / "fr").mkdir(exist_ok=True)
    (tmp_path / "fr" / name).write_bytes(b"x")
  found = sources.find_sources(tmp_path)
  assert {name: [path.name for path in paths] for name, paths in found.items()} == {
    "bn_rom": ["bn_rom.txt.xz"],
    "en": ["en.txt"],
    "fr": ["a.txt.gz", "b.txt"],
    "zh_Hans": ["zh_Hans.txt.gz"],
  }
  assert list(sources.find_sources(tmp_path, ["fr", "en"])) == ["en", "fr"]


@pytest.mark.parametrize(
  "names, message",
  [
    ([], "no LANG.txt"),
    (["en.txt", "Notes about it.txt"], "no language code"),
    (["en.txt", "en.txt.gz"], "en.txt.gz: en is also in"),
    (["en.txt", "en/a.txt"], "also in"),
    (["en/a.txt", "en/a.txt.xz"], "a is there twice"),
    (["en/readme.md"], "no .txt"),
  ],
)
def test_bad_folders(tmp_path, names, message):
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
  with pytest.raises(UserError, match=message):
    sources.find_sources(tmp_path)


def test_missing_folder_and_language(tmp_path):
  with pytest.raises(UserError, match="no such folder"):
    sources.find_sources(tmp_path / "none")
  (tmp_path / "en.txt").write_bytes(b"x")
  with pytest.raises(UserError, match="no text of fr, sw; it has en"):
    sources.find_sources(tmp_path, ["sw", "en", "fr"])


def test_documents():
  block = b"\xef\xbb\xbfa\r\nb\r\n\r\nc\n \t\n\n\n d\ne \n"
  assert sources.documents(block) == [b"a\nb", b"c", b"d\ne"]
  assert sources.documents(b"\n \n") == []


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_blocks_are_whole_documents_and_do_not_depend_on_where_reading_began(tmp_path, small_blocks, ending):
  path = tmp_path / "en.txt"
  text = _text(1).replace(b"\n", ending.encode())
  path.write_bytes(text)
  blocks = list(sources.read_blocks(path))
  assert b"".join(blocks) == text and len(blocks) > 10
  assert _read(path) == sources.documents(text)
  start = 0
  for index, block in enumerate(blocks):
    assert list(sources.read_blocks(path, start)) == blocks[index:]
    assert list(sources.read_blocks(path, start, len(block))) == [block]
    start += len(block)


def test_shards_together_are_the_file(tmp_path, small_blocks):
  path = tmp_path / "en.txt"
  path.write_bytes(_text(2))
  report = sources.scan(path, 1000)
  assert len(report["shards"]) > 3
  starts, sizes = zip(*report["shards"])
  assert starts == tuple(sum(sizes[:i]) for i in range(len(sizes))) and sum(sizes) == report["bytes"]
  parts = [document for start, size in report["shards"] for document in _read(path, start, size)]
  assert parts == sources.documents(_text(2))
  hashes = [sources.document_hash(document) for document in parts]
  assert (report["documents"], report["lowest"], report["highest"]) == (len(parts), min(hashes), max(hashes))
  assert report["paragraphs"] == sum(document.count(b"\n") + 1 for document in parts)


def test_compressed_files_give_the_same_documents(tmp_path, small_blocks):
  text = _text(3)
  (tmp_path / "en.txt").write_bytes(text)
  (tmp_path / "fr.txt.gz").write_bytes(gzip.compress(text[:700]) + gzip.compress(text[700:]))  # two members
  (tmp_path / "sw.txt.xz").write_bytes(lzma.compress(text))
  plain = list(sources.read_blocks(tmp_path / "en.txt"))
  for name in ("fr.txt.gz", "sw.txt.xz"):
    assert list(sources.read_blocks(tmp_path / name)) == plain
    assert sources.scan(tmp_path / name, 1000)["shards"] == [(0, None)]


def test_a_file_without_empty_lines_is_cut_at_lines(tmp_path, small_blocks):
  path = tmp_path / "en.txt"
  lines = [f"line {i} {'x' * (i % 50)}" for i in range(300)]
  path.write_text("\n".join(lines))
  found = _read(path)
  assert len(found) > 5 and max(map(len, found)) <= 1200
  assert b"\n".join(found).decode().split("\n") == lines


def test_pathological_files_are_read_alike_from_any_block(tmp_path, small_blocks):
  draw = random.Random(0)
  path = tmp_path / "en.txt"
  for _ in range(30):
    lengths = [draw.choice([0, 3, 40, 250, 900, 1300]) for _ in range(20)]
    path.write_text("\n".join("x" * length for length in lengths))
    blocks, start = list(sources.read_blocks(path)), 0
    for index, block in enumerate(blocks):
      assert list(sources.read_blocks(path, start)) == blocks[index:]
      assert list(sources.read_blocks(path, start, len(block))) == [block]
      start += len(block)


def test_a_line_longer_than_any_block_stays_whole(tmp_path, small_blocks):
  path = tmp_path / "en.txt"
  path.write_text("a\n\n" + "x" * 5000 + "\n\nb")
  assert [len(document) for document in _read(path)] == [1, 5000, 1]


@pytest.mark.parametrize("compress", [None, gzip.compress, lzma.compress])
def test_invalid_utf8_names_file_and_line(tmp_path, small_blocks, compress):
  lines = _text(4).split(b"\n")
  lines[150] += b" caf\xe9 "
  path = tmp_path / {None: "en.txt", gzip.compress: "en.txt.gz", lzma.compress: "en.txt.xz"}[compress]
  path.write_bytes((compress or bytes)(b"\n".join(lines)))
  with pytest.raises(UserError, match=r"en\.txt.*, line 151: not UTF-8 \(byte 0xe9\)"):
    sources.scan(path)


def test_damaged_files_are_named(tmp_path):
  whole = {"en.txt.gz": gzip.compress(_text(5)), "fr.txt.xz": lzma.compress(_text(5))}
  for name, data in whole.items():
    for damaged in (data[: len(data) // 2], b"no such format" + data):
      (tmp_path / name).write_bytes(damaged)
      with pytest.raises(UserError, match=f"{name}: damaged"):
        sources.scan(tmp_path / name)
