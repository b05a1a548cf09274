"""Sources: CC-100's layout in blocks, documents and shards, errors that name file and line, and what the seam promises."""

import contextlib
import gzip
import lzma
import random

import pytest

from xlmr_jax.corpus.held_out import document_hash, scan
from xlmr_jax.corpus.sources import Block, Document, Shard, Source, cc100, refuse
from xlmr_jax.corpus.sources.cc100 import CC100, read_blocks, split_documents
from xlmr_jax.corpus.sources.registry import open_source, text_source
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
  monkeypatch.setattr(cc100, "BLOCK_BYTES", 300)
  monkeypatch.setattr(cc100, "LONGEST_DOCUMENT", 1200)
  monkeypatch.setattr(cc100, "_GLANCE", 20)


def _read(folder, shard_bytes=2**40):
  source = CC100(folder)
  return [document.text for shard in source.shards(shard_bytes) for document in source.documents(shard)]


def _scan(folder):
  source = CC100(folder)
  return [scan(shard, source) for shard in source.shards(1000)]


def test_files_of_every_form_are_found(tmp_path):
  for name in ("en.txt", "zh_Hans.txt.gz", "bn_rom.txt.xz", "MANIFEST.tsv", ".hidden.txt"):
    (tmp_path / name).write_bytes(b"x")
  for name in ("b.txt", "a.txt.gz", "notes.md"):
    (tmp_path / "fr").mkdir(exist_ok=True)
    (tmp_path / "fr" / name).write_bytes(b"x")
  found = CC100(tmp_path).files
  assert {name: [path.name for path in paths] for name, paths in found.items()} == {
    "bn_rom": ["bn_rom.txt.xz"],
    "en": ["en.txt"],
    "fr": ["a.txt.gz", "b.txt"],
    "zh_Hans": ["zh_Hans.txt.gz"],
  }
  assert list(CC100(tmp_path, ["fr", "en"]).files) == ["en", "fr"]


@pytest.mark.parametrize(
  "names, message",
  [
    ([], "no LANG.txt"),
    (["en.txt", "Notes about it.txt"], "no language code"),
    (["en.txt", "en.txt.gz"], "en.txt.gz: en is also in"),
    (["en.txt", "en/a.txt"], "also in"),
    (["en/a.txt", "en/a.txt.xz"], "a is there twice"),
    (["en/readme.md"], "no text in it, whose name would end in .txt, .txt.gz"),
    (["en.txt/a.txt"], "en.txt: a folder with the name of a file; call it en"),
    # Sorted by name, another file stands between these two.
    (["en/a.txt", "en/a.txt-old.txt", "en/a.txt.gz"], "a is there twice, also as a.txt"),
    (["en.txt", "en.TXT.GZ"], "en is also in"),
  ],
)
def test_bad_folders(tmp_path, names, message):
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
  with pytest.raises(UserError, match=message):
    CC100(tmp_path)


def test_missing_folder_and_language(tmp_path):
  with pytest.raises(UserError, match="no such folder"):
    CC100(tmp_path / "none")
  (tmp_path / "en.txt").write_bytes(b"x")
  with pytest.raises(UserError, match="no text of fr, sw; it has en"):
    CC100(tmp_path, ["sw", "en", "fr"])


def test_documents():
  block = "\ufeffa\r\nb\r\n\r\nc\n \t\n\n\n d\ne \n"
  assert split_documents(block) == ["a\nb", "c", "d\ne"]
  assert split_documents("\n \n") == []
  assert split_documents("a\u00a0\n\u3000\nb\u2028\n\u2007 \u200b\n\u00a0c") == ["a\u00a0", "b\u2028", "\u00a0c"]
  assert split_documents("\u00a0\n\ufeffa\n\ufeff\n\u2028\n\ufeffb\u200d\n\x85") == ["a", "b\u200d"]  # files joined by cat


def test_a_document_names_its_place_and_language(tmp_path):
  (tmp_path / "en").mkdir()
  (tmp_path / "en" / "a.txt").write_text("one\n\ntwo")
  source = CC100(tmp_path)
  documents = list(source.documents(source.shards(1)[0]))
  path = tmp_path / "en" / "a.txt"
  assert documents == [Document("one", f"{path}:0#0", "", "en"), Document("two", f"{path}:0#1", "", "en")]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_blocks_are_whole_documents_and_do_not_depend_on_where_reading_began(tmp_path, small_blocks, ending):
  path = tmp_path / "en.txt"
  text = _text(1).replace(b"\n", ending.encode())
  path.write_bytes(text)
  blocks = list(read_blocks(path))
  assert b"".join(blocks) == text and len(blocks) > 10
  assert _read(tmp_path) == split_documents(text.decode())
  start = 0
  for index, block in enumerate(blocks):
    assert list(read_blocks(path, start)) == blocks[index:]
    assert list(read_blocks(path, start, len(block))) == [block]
    start += len(block)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_shards_are_whole_blocks_and_together_the_file(tmp_path, small_blocks, ending):
  path = tmp_path / "en.txt"
  path.write_bytes(_text(2).replace(b"\n", ending.encode()))
  for shard_bytes in (1, 700, 1000, 10**9):
    shards = CC100(tmp_path).shards(shard_bytes)
    wanted, size = [], 0
    for block in read_blocks(path):
      size += len(block)
      if size >= shard_bytes:
        wanted.append(size)
        size = 0
    assert [shard.size for shard in shards] == wanted + [size] * (size > 0)
    assert [shard.start for shard in shards] == [sum(x.size for x in shards[:i]) for i in range(len(shards))]
    assert _read(tmp_path, shard_bytes) == split_documents(_text(2).decode())


def test_shards_are_found_without_reading_the_text(tmp_path, monkeypatch):
  monkeypatch.setattr(cc100, "BLOCK_BYTES", 100_000)
  monkeypatch.setattr(cc100, "_GLANCE", 5_000)
  path, read = tmp_path / "en.txt", []
  path.write_bytes(_text(2, 20_000))

  class Counting:
    def __init__(self, file):
      self.file, self.seek = file, file.seek

    def read(self, size):
      read.append(size)
      return self.file.read(size)

  shards = CC100(tmp_path).shards(300_000)
  opened = cc100.open_text

  @contextlib.contextmanager
  def counting(path):
    with opened(path) as file:
      yield Counting(file)

  monkeypatch.setattr(cc100, "open_text", counting)
  assert CC100(tmp_path).shards(300_000) == shards and len(shards) > 4
  assert sum(read) < 0.1 * path.stat().st_size


def test_the_scan_counts_what_the_shards_hold(tmp_path, small_blocks):
  (tmp_path / "en.txt").write_bytes(_text(2))
  texts, reports = split_documents(_text(2).decode()), _scan(tmp_path)
  found, hashes = [report.languages["en"] for report in reports], [document_hash(text) for text in texts]
  assert len(found) > 3 and sum(report.size for report in reports) == len(_text(2))
  assert sum(census.documents for census in found) == len(texts)
  assert sum(census.paragraphs for census in found) == sum(text.count("\n") + 1 for text in texts)
  assert (min(census.lowest for census in found), max(census.highest for census in found)) == (min(hashes), max(hashes))


def test_compressed_files_give_the_same_documents(tmp_path, small_blocks):
  text = _text(3)
  (tmp_path / "en.txt").write_bytes(text)
  (tmp_path / "fr.txt.gz").write_bytes(gzip.compress(text[:700]) + gzip.compress(text[700:]))  # two members
  (tmp_path / "sw.txt.xz").write_bytes(lzma.compress(text))
  plain = list(read_blocks(tmp_path / "en.txt"))
  for name in ("fr.txt.gz", "sw.txt.xz"):
    assert list(read_blocks(tmp_path / name)) == plain
  assert [shard.language for shard in CC100(tmp_path, ["fr", "sw"]).shards(1000)] == ["fr", "sw"]


def test_a_file_without_empty_lines_is_cut_at_lines(tmp_path, small_blocks):
  path = tmp_path / "en.txt"
  lines = [f"line {i} {'x' * (i % 50)}" for i in range(300)]
  path.write_text("\n".join(lines))
  found = _read(tmp_path)
  assert len(found) > 5 and max(map(len, found)) <= 1200
  assert "\n".join(found).split("\n") == lines


def test_pathological_files_are_read_alike_from_any_block(tmp_path, small_blocks):
  draw = random.Random(0)
  path = tmp_path / "en.txt"
  for _ in range(30):
    lengths = [draw.choice([0, 3, 40, 250, 900, 1300]) for _ in range(20)]
    path.write_text("\n".join("x" * length for length in lengths))
    blocks, start = list(read_blocks(path)), 0
    assert [shard.size for shard in CC100(tmp_path).shards(1)] == list(map(len, blocks))
    for index, block in enumerate(blocks):
      assert list(read_blocks(path, start)) == blocks[index:]
      assert list(read_blocks(path, start, len(block))) == [block]
      start += len(block)


def test_a_line_longer_than_any_block_stays_whole(tmp_path, small_blocks):
  path = tmp_path / "en.txt"
  path.write_text("a\n\n" + "x" * 5000 + "\n\nb")
  assert [len(document) for document in _read(tmp_path)] == [1, 5000, 1]


@pytest.mark.parametrize("compress", [None, gzip.compress, lzma.compress])
def test_invalid_utf8_names_file_and_line(tmp_path, small_blocks, compress):
  lines = _text(4).split(b"\n")
  lines[150] += b" caf\xe9 "
  path = tmp_path / {None: "en.txt", gzip.compress: "en.txt.gz", lzma.compress: "en.txt.xz"}[compress]
  path.write_bytes((compress or bytes)(b"\n".join(lines)))
  with pytest.raises(UserError, match=r"en\.txt.*, line 151: not UTF-8 \(byte 0xe9\)"):
    _scan(tmp_path)


def test_damaged_files_are_named(tmp_path):
  whole = {"en.txt.gz": gzip.compress(_text(5)), "fr.txt.xz": lzma.compress(_text(5))}
  for name, data in whole.items():
    for damaged in (data[: len(data) // 2], b"no such format" + data):
      (tmp_path / name).write_bytes(damaged)
      with pytest.raises(UserError, match=f"{name}: damaged"):
        _scan(tmp_path)
    (tmp_path / name).unlink()


class Numbers(Source):
  """The smallest source there can be: it gives Shards and Documents."""

  def shards(self, shard_bytes):
    return [Shard(f"numbers {i}", 10) for i in range(2)]

  def documents(self, shard, on_damage=refuse):
    return (Document(str(i), f"{shard.name}/{i}", "", "en") for i in range(1000))


def test_a_source_that_gives_documents_gets_its_blocks(monkeypatch):
  monkeypatch.setattr("xlmr_jax.corpus.sources.BLOCK_BYTES", 300)
  source = Numbers()
  blocks = list(source.blocks(source.shards(1)[0]))
  assert all(isinstance(block, Block) and 300 <= block.size < 310 for block in blocks[:-1]) and len(blocks) == 10
  assert [document for block in blocks for document in block.documents] == list(source.documents(source.shards(1)[0]))
  assert sum(block.size for block in blocks) == sum(len(str(i)) for i in range(1000))


def test_sources_are_chosen_by_name(tmp_path):
  (tmp_path / "en.txt").write_text("x")
  assert isinstance(open_source(f"cc100:{tmp_path}"), CC100)
  assert list(open_source(f"cc100:{tmp_path}", languages=["en"]).files) == ["en"]
  with pytest.raises(UserError, match="--source=cc200:/x: no such format of text; there are wet, warc, cc100"):
    open_source("cc200:/x")
  for spec, wanted in (("cc100", "cc100:DIR"), ("wet:", "wet:FILES"), ("tfds", "tfds:NAME")):
    with pytest.raises(UserError, match=f"--source={spec}: says not which text; write --source={wanted}"):
      open_source(spec)


def test_text_or_source(tmp_path):
  (tmp_path / "en.txt").write_text("x")
  assert text_source(str(tmp_path), None).files == text_source(None, f"cc100:{tmp_path}").files
  with pytest.raises(UserError, match="--text=a and --source=b: give one of them"):
    text_source("a", "b")
  with pytest.raises(UserError, match="no text: give --text=DIR"):
    text_source(None, None)


def test_a_document_without_a_language_is_refused(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
  source = open_source(f"jsonl:{tmp_path / 'a.jsonl'}")
  with pytest.raises(UserError, match=r"a\.jsonl:0: this document has no language; `xlmr build_corpus` finds it"):
    scan(source.shards(1 << 20)[0], source)


def _tolerant(folder):
  source, found = CC100(folder), []
  return [
    (document.language, document.text) for shard in source.shards(1000) for document in source.documents(shard, found.append)
  ], found


def test_a_tolerant_reader_keeps_bad_bytes_and_what_is_before_damage(tmp_path, small_blocks):
  text = _text(5)
  (tmp_path / "en.txt").write_bytes(b"caf\xe9\n\ntwo")
  blocks = [len(block) for block in read_blocks(_write(tmp_path / "de.txt", text))]
  packed = gzip.compress(text, 0)  # stored blocks, so that most of the text can be read before the cut
  (tmp_path / "fr.txt.gz").write_bytes(packed[: len(packed) * 3 // 4])
  found, damages = _tolerant(tmp_path)
  assert ("en", "caf\udce9") in found and ("en", "two") in found
  assert [text for language, text in found if language == "de"] == split_documents(text.decode())
  french = [text for language, text in found if language == "fr"]
  assert french and french == split_documents(text.decode())[: len(french)]
  read = sum(block.size for block in _blocks_until_damage(tmp_path, "fr"))
  assert read in [sum(blocks[:n]) for n in range(1, len(blocks))]
  assert len(damages) == 1 and damages[0].where == str(tmp_path / "fr.txt.gz")
  assert f"{read:,} bytes of its text were read" in damages[0].reason


def _write(path, data):
  path.write_bytes(data)
  return path


def _blocks_until_damage(folder, language):
  source = CC100(folder, [language])
  return [block for shard in source.shards(1000) for block in source.blocks(shard, lambda damage: None)]


def test_a_folder_that_build_corpus_made(tmp_path, capsys):
  for name in ("en", "removed/filter", "clusters", ".work"):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / "en" / "0.txt").write_text("x")
  (tmp_path / "removed" / "filter" / "en.txt").write_text("spam")
  with pytest.raises(UserError, match="`xlmr build_corpus` has not finished here; run it again with the same flags"):
    CC100(tmp_path)
  (tmp_path / "manifest.json").write_text("{}")
  (tmp_path / "corpus_report.html").write_text("x")
  assert list(CC100(tmp_path).files) == ["en"]
  assert capsys.readouterr().err == ""
  with pytest.raises(UserError, match=r"no text of fr; it has en$"):
    CC100(tmp_path, ["fr"])
