"""Files of text as people have them: several streams, damaged ones, hidden files, links to nothing and odd lines."""

import bz2
import gzip
import lzma
import os
import random

import pytest
import zstandard

from xlmr_jax.corpus.held_out import scan
from xlmr_jax.corpus.sources import cc100, text_file
from xlmr_jax.corpus.sources.cc100 import CC100, read_blocks
from xlmr_jax.corpus.vocabulary import train_vocabulary
from xlmr_jax.errors import UserError

COMPRESS = {
  "gz": gzip.compress,
  "xz": lzma.compress,
  "bz2": bz2.compress,
  "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
ONE, TWO = (f"{word} {random.Random(word).randbytes(20_000).hex()}\n\n".encode() for word in ("one", "two"))


def _files(folder, **files):
  """Writes {"en.txt": bytes} with "__" for a slash and "_" for a full stop in the names; returns the folder."""
  for name, data in files.items():
    path = folder / name.replace("__", "/").replace("_", ".")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return folder


def _texts(folder, languages=None):
  source = CC100(folder, languages)
  return [document.text for shard in source.shards(1 << 30) for document in source.documents(shard)]


@pytest.mark.parametrize("ending", COMPRESS)
def test_every_stream_of_a_file_is_read(tmp_path, ending):
  compress = COMPRESS[ending]
  path = tmp_path / f"en.txt.{ending}"
  path.write_bytes(compress(ONE) + compress(b"") + compress(TWO))
  assert b"".join(read_blocks(path)) == ONE + TWO
  (tmp_path / f"FR.Txt.{ending.upper()}").write_bytes(compress(ONE))
  assert b"".join(read_blocks(tmp_path / f"FR.Txt.{ending.upper()}")) == ONE


def test_what_a_format_allows_between_streams_is_read_over(tmp_path):
  one, two = lzma.compress(ONE), lzma.compress(TWO)
  for zeros in (4, 8, 3 * text_file._READ):
    (tmp_path / "en.txt.xz").write_bytes(one + bytes(zeros) + two + bytes(4))
    assert b"".join(read_blocks(tmp_path / "en.txt.xz")) == ONE + TWO
  (tmp_path / "en.txt.gz").write_bytes(gzip.compress(ONE) + bytes(511) + gzip.compress(TWO) + bytes(7))
  assert b"".join(read_blocks(tmp_path / "en.txt.gz")) == ONE + TWO
  skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"  # as pzstd writes before each frame
  (tmp_path / "en.txt.zst").write_bytes(skippable + COMPRESS["zst"](ONE) + skippable + COMPRESS["zst"](TWO) + skippable)
  assert b"".join(read_blocks(tmp_path / "en.txt.zst")) == ONE + TWO


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_cut_or_foreign_stream_is_named(tmp_path, ending):
  one, two = COMPRESS[ending](ONE), COMPRESS[ending](TWO)
  flipped = bytearray(two)
  flipped[len(two) // 2] ^= 0x55
  foreign = COMPRESS["xz" if ending != "xz" else "gz"](TWO)
  bad = [b"", two[:-3], two[: len(two) // 2], one + two[:5], one + two[:-3], one + flipped, one + foreign, one + b"text\n",
         one + bytes(3) + two if ending != "gz" else one + b"\0x", ONE]  # fmt: skip
  for data in bad:
    _files(tmp_path, **{f"en_txt_{ending}": data})
    source = CC100(tmp_path)
    with pytest.raises(UserError, match=rf"en\.txt\.{ending}: damaged, or of another format \(.*fetch it again") as error:
      for shard in source.shards(1):
        scan(shard, source)
    assert "\n" not in str(error.value)


def test_memory_is_bounded_whatever_a_file_expands_to(tmp_path, monkeypatch):
  monkeypatch.setattr(cc100, "LONGEST_DOCUMENT", 4 << 20)
  monkeypatch.setattr(cc100, "LONGEST_LINE", 8 << 20)
  for ending, compress in COMPRESS.items():
    path = tmp_path / f"en.txt.{ending}"
    path.write_bytes(compress(bytes(9 << 20)))
    with pytest.raises(UserError, match=r"a line of more than 8 MB, from b'.x00"):
      list(read_blocks(path))
  plain = tmp_path / "fr.txt"
  plain.write_bytes(b"")
  os.truncate(plain, 9 << 20)
  with pytest.raises(UserError, match=r"fr\.txt: a line of more than 8 MB"):
    CC100(tmp_path, ["fr"]).shards(1 << 20)


def test_hidden_files_and_other_files_are_left_out_and_named_once(tmp_path, capsys):
  _files(tmp_path, en_txt=b"one", fr__a_txt=b"two", readme_md=b"x", table_csv=b"x")
  for hidden in ("._en.txt", ".de.txt", "fr/._a.txt", "fr/.b.txt"):
    (tmp_path / hidden).write_bytes(b"\xff\x00 a resource fork")
  (tmp_path / ".git").mkdir()
  (tmp_path / "fr" / "more").mkdir()
  assert _texts(tmp_path) == ["one", "two"]
  said = capsys.readouterr().err
  for name in ("readme.md", "table.csv", "._en.txt", ".de.txt", "fr/._a.txt", "fr/.b.txt", ".git", "fr/more"):
    assert said.replace(",", " ").split().count(name) == 1, (name, said)
  assert "en.txt" not in said.split() and len(said.splitlines()) == 2
  assert _texts(tmp_path, ["en"]) == ["one"]


def test_other_names_do_not_matter_where_languages_are_named(tmp_path, capsys):
  _files(tmp_path, de_txt=b"eins", README_txt=b"x", en_txt=b"x", en_txt_gz=b"x", fr_txt__a=b"x")
  (tmp_path / "sw.txt").symlink_to("nothing")
  (tmp_path / "__MACOSX").mkdir()
  assert _texts(tmp_path, ["de"]) == ["eins"]
  assert "no language code: README.txt, __MACOSX" in capsys.readouterr().err
  with pytest.raises(UserError, match=r"README\.txt: 'README' is no language code; .* with --languages"):
    CC100(tmp_path)


def test_what_has_the_name_of_a_text_and_is_none_is_refused(tmp_path):
  _files(tmp_path, en__b_txt=b"text")
  for where in ("de.txt", "en/a.txt.gz"):
    path = tmp_path / where
    for make, message in ((lambda path=path: path.symlink_to("nothing"), "a link to nothing"),
                          (lambda path=path: path.symlink_to(path), "a link to nothing"),
                          (lambda path=path: os.mkfifo(path), "no file to read")):  # fmt: skip
      make()
      with pytest.raises(UserError, match=f"{where}: {message}; mend or remove it"):
        CC100(tmp_path)
      path.unlink()


def test_what_cannot_be_listed_or_opened_is_named(tmp_path, monkeypatch):
  _files(tmp_path, en__a_txt=b"x", fr_txt=b"x")
  source = CC100(tmp_path)
  (tmp_path / "fr.txt").unlink()
  with pytest.raises(UserError, match=r"fr\.txt: cannot be read \(No such file"):
    list(read_blocks(source.files["fr"][0]))

  def refuse(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(cc100.Path, "iterdir", refuse)
  with pytest.raises(UserError, match=f"{tmp_path}: cannot be read .Permission denied"):
    CC100(tmp_path)


def test_lines_that_only_look_empty_end_a_document_wherever_a_block_ends(tmp_path, monkeypatch):
  blanks = ["\u00a0", "\u3000 \t", "\u200b", "\ufeff", "\u2028", "\x1f", "\u200e\u200f\u2060", "\r"]
  text = "".join(f"line {i}\nnext\u00a0{i}\n{blanks[i % len(blanks)]}\n" for i in range(200))
  (tmp_path / "en.txt").write_text(text, encoding="utf-8", newline="")
  wanted = [f"line {i}\nnext\u00a0{i}" for i in range(200)]
  assert _texts(tmp_path) == wanted
  monkeypatch.setattr(cc100, "BLOCK_BYTES", 300)
  monkeypatch.setattr(cc100, "LONGEST_DOCUMENT", 1200)
  source = CC100(tmp_path)
  assert len(source.shards(1)) > 5 and _texts(tmp_path) == wanted
  assert [block for shard in source.shards(1) for block in read_blocks(shard.name, shard.start, shard.length)] == list(
    read_blocks(tmp_path / "en.txt")
  )


def test_carriage_returns(tmp_path):
  _files(tmp_path, en_txt=b"a\r\nb\r\n\r\nc\rd\r\r\ne")
  assert _texts(tmp_path) == ["a\nb", "c\rd\r\ne"]  # One inside a line does not end it.
  _files(tmp_path, en_txt=b"a\rb\r\rc\r")
  with pytest.raises(UserError, match=r"en\.txt: its lines end in a carriage return alone"):
    _texts(tmp_path)


@pytest.mark.parametrize("text", ["\u2585", "\u2581 \u2581", "\x01\n\x02", "\ufffd", "a\u2585\nb \u2585"])
def test_characters_that_are_no_text_to_sentencepiece_do_not_crash_it(tmp_path, text):
  (tmp_path / "text").mkdir()
  (tmp_path / "text" / "en.txt").write_text(f"{text}\n\n" * 5, encoding="utf-8")
  with pytest.raises(UserError, match=r"no character|--size=20: too large for this text; at most 9") as error:
    train_vocabulary(CC100(tmp_path / "text"), tmp_path / "v.model", size=20)
  assert "\n" not in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_text_of_blanks_alone_is_no_text(tmp_path):
  (tmp_path / "en.txt").write_text("\u200b\n\u00a0\n\n\u200b\u200b", encoding="utf-8")
  with pytest.raises(UserError, match="en"):
    train_vocabulary(CC100(tmp_path), tmp_path / "v.model", size=600)


def _documents(text):
  """The documents of a text by the rule that the docs give, line by line."""
  documents = [[]]
  for line in text.replace("\r\n", "\n").split("\n"):
    line = line.removeprefix("\ufeff")
    if all(character.isspace() or character in "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff" for character in line):
      documents.append([])
    else:
      documents[-1].append(line)
  return [text for document in documents if (text := "\n".join(document).strip(" \t\n\r\f\v"))]


def test_documents_are_those_of_the_rule_however_a_file_is_cut(tmp_path, monkeypatch):
  draw = random.Random(0)
  characters = [
    "a",
    "b",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\u00a0",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\u3000",
    " ",
    "é",
    "\x1c",
    "\x85",
  ]
  for _ in range(150):
    text = "x\n" + "".join(draw.choices(characters, k=draw.choice([5, 60, 600])))
    (tmp_path / "en.txt").write_bytes(text.encode())
    for size in (4 << 20, 37, 8):
      monkeypatch.setattr(cc100, "BLOCK_BYTES", size)
      monkeypatch.setattr(cc100, "_GLANCE", min(size, draw.choice([3, 20, 200])))
      source = CC100(tmp_path)
      shards = source.shards(draw.choice([1, 100, 10**9]))
      assert [document.text for shard in shards for document in source.documents(shard)] == _documents(text), text
