"""WET, WARC, JSON lines, Parquet and TFDS: what is whole is read, and what is not is named with its place."""

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import pickle
import random
import re
import zlib

import pytest
import zstandard

from xlmr_jax.corpus.sources import Damage, Document, jsonl, paths, warc_records
from xlmr_jax.corpus.sources.fields import Fields
from xlmr_jax.corpus.sources.paths import find_files, with_compressed
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.corpus.sources.tfds_text import TfdsText
from xlmr_jax.errors import UserError

COMPRESS = {
  "": bytes,
  ".gz": gzip.compress,
  ".xz": lzma.compress,
  ".bz2": bz2.compress,
  ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def read(spec, shard_bytes=1 << 30, **options):
  """(documents, damage) of a source, read tolerantly. A pickled source must do, because workers get no other."""
  source, damages = open_source(spec, **options), []
  reader = pickle.loads(pickle.dumps(source.reader()))
  return [document for shard in source.shards(shard_bytes) for document in reader.documents(shard, damages.append)], damages


def texts(spec, **options):
  return [document.text for document in read(spec, **options)[0]]


# --- WET -------------------------------------------------------------------------------------------------------------


def record(number, body, kind="conversion", length=None, newline="\r\n", end="\r\n\r\n", extra=()):
  """A record as CommonCrawl writes it. length: other than the body's; "" leaves the header out."""
  lines = [
    "WARC/1.0",
    f"WARC-Type: {kind}",
    f"WARC-Target-URI: http://example.org/{number}",
    f"WARC-Record-ID: <urn:uuid:{number}>",
    *extra,
  ]
  if length != "":
    lines.append(f"Content-Length: {len(body) if length is None else length}")
  return (newline.join(lines) + newline * 2).encode() + body + end.encode()


def page(number):
  draw = random.Random(number)
  return "\n".join(f"Zeile {number} {draw.randbytes(8).hex()} für {i}" for i in range(draw.randint(1, 30))).encode()


INFO = record("info", b"software: ours\r\n", "warcinfo")
PAGES = [page(number) for number in range(6)]
RECORDS = [record(number, body) for number, body in enumerate(PAGES)]
MEMBERS = [gzip.compress(part, mtime=0) for part in (INFO, *RECORDS)]  # the first is the warcinfo
STARTS = [sum(map(len, MEMBERS[:number])) for number in range(len(MEMBERS) + 1)]
TEXTS = [body.decode() for body in PAGES]


def wet(folder, data, name="a.warc.wet.gz"):
  (folder / name).write_bytes(data)
  return read(f"wet:{folder / name}")


def numbers(documents):
  """Which of PAGES these documents are; every one must be whole."""
  assert all(document.text == TEXTS[int(document.url.rpartition("/")[2])] for document in documents)
  return [int(document.url.rpartition("/")[2]) for document in documents]


@pytest.mark.parametrize("ending", COMPRESS)
def test_wet_in_every_form(tmp_path, ending):
  documents, damages = wet(tmp_path, COMPRESS[ending](INFO + b"".join(RECORDS)), f"a.warc.wet{ending}")
  assert numbers(documents) == [0, 1, 2, 3, 4, 5] and not damages
  assert documents[1] == Document(TEXTS[1], "<urn:uuid:1>", "http://example.org/1", "")


def test_a_gzip_member_per_record_is_read_by_fastwarc_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(warc_records, "read_carefully", None)
  documents, damages = wet(tmp_path, b"".join(MEMBERS))
  assert numbers(documents) == [0, 1, 2, 3, 4, 5] and not damages


def test_members_that_are_no_records_are_read_too(tmp_path):
  whole = INFO + b"".join(RECORDS)
  pieces = [whole[at : at + 100] for at in range(0, len(whole), 100)]
  mixed = [INFO, RECORDS[0], RECORDS[1] + RECORDS[2], RECORDS[3], RECORDS[4] + RECORDS[5]]
  for parts in (pieces, mixed):
    documents, damages = wet(tmp_path, b"".join(map(gzip.compress, parts)))
    assert numbers(documents) == [0, 1, 2, 3, 4, 5] and not damages
  documents, damages = wet(tmp_path, b"".join(MEMBERS) + bytes(511))  # filled up as on a tape
  assert numbers(documents) == [0, 1, 2, 3, 4, 5] and not damages


def with_bare_newlines(number):
  return record(number, PAGES[number], newline="\n", end="\n\n")


ODD = {  # what stands in the place of page 2's member, or beside it, though nothing is damaged, and which pages there are
  "bare newlines": ([with_bare_newlines(2)], [0, 1, 2, 3, 4, 5]),
  "two with bare newlines": ([with_bare_newlines(2), with_bare_newlines(2)], [0, 1, 2, 2, 3, 4, 5]),
  "bare newlines in the member of another": ([RECORDS[2] + with_bare_newlines(2)], [0, 1, 2, 2, 3, 4, 5]),
  "cut in its headers": ([RECORDS[2][:60]], [0, 1, 3, 4, 5]),
}


@pytest.mark.parametrize("name", ODD)
def test_records_that_fastwarc_passes_over_or_joins(tmp_path, name):
  odd, given = ODD[name]
  documents, damages = wet(tmp_path, b"".join(map(gzip.compress, [INFO, *RECORDS[:2], *odd, *RECORDS[3:]])))
  assert numbers(documents) == given
  assert [document.id for document in documents] == [f"<urn:uuid:{number}>" for number in given]
  assert [damage.where for damage in damages] == [f"{tmp_path}/a.warc.wet.gz, byte {STARTS[3]}"] * (len(given) == 5)


def test_a_file_that_begins_with_bare_newlines(tmp_path):
  parts = [*map(with_bare_newlines, range(3)), *RECORDS[3:]]
  documents, damages = wet(tmp_path, b"".join(map(gzip.compress, parts)))
  assert numbers(documents) == [0, 1, 2, 3, 4, 5] and not damages


def test_lines_are_paragraphs(tmp_path):
  body = "\r\n \n\nTitel\r\nEin\u00a0Absatz.\n\n\nNoch einer.\n\n".encode()
  documents, _ = wet(tmp_path, record(0, body) + record(1, b" \n\n") + record(2, b""), "a.wet")
  assert [document.text for document in documents] == ["Titel\nEin\u00a0Absatz.\nNoch einer."]


def broken(number, **how):
  return record(number, PAGES[number], **how)


LOST = {  # what is wrong with page 2: the bytes in its place, the reason, and which pages are given all the same
  "no length": (broken(2, length=""), "it has no Content-Length", [0, 1, 3, 4, 5]),
  "a length in words": (broken(2, length="many"), "its Content-Length is 'many'", [0, 1, 3, 4, 5]),
  "a negative length": (broken(2, length=-5), "its Content-Length is '-5'", [0, 1, 3, 4, 5]),
  "too short": (broken(2, length=10), "its Content-Length of 10 is wrong|reaches", [0, 1, 3, 4, 5]),
  "too long by 50": (broken(2, length=len(PAGES[2]) + 50), "is wrong|reaches into the next", [0, 1, 3, 4, 5]),
  "longer than the file": (broken(2, length=10**6), "only .* bytes are there|reaches into the next", [0, 1, 3, 4, 5]),
  "longer than all memory": (broken(2, length=10**18), "more than 64 MB", [0, 1, 3, 4, 5]),
  "no headers": (b"garbage\r\n" * 9, "no record begins here|no gzip member", [0, 1, 3, 4, 5]),
  "endless headers": (b"WARC/1.0\r\n" + b"X-A: b\r\n" * 40_000, "headers .* do not end", [0, 1, 3, 4, 5]),
  "no type": (RECORDS[2].replace(b"WARC-Type", b"X-Type"), "without WARC-Type", [0, 1, 3, 4, 5]),
}


@pytest.mark.parametrize("form", ["plain", "a member per record", "one member"])
@pytest.mark.parametrize("name", LOST)
def test_a_bad_record_is_named_and_the_rest_is_read(tmp_path, form, name):
  bad, reason, given = LOST[name]
  parts = [INFO, *RECORDS[:2], bad, *RECORDS[3:]]
  if form == "a member per record":
    documents, damages = wet(tmp_path, b"".join(map(gzip.compress, parts)))
    where = f"{tmp_path}/a.warc.wet.gz, byte {sum(len(gzip.compress(part)) for part in parts[:3])}"
  else:
    data, before = b"".join(parts), len(b"".join(parts[:3]))
    name = "a.warc.wet" if form == "plain" else "a.warc.wet.gz"
    documents, damages = wet(tmp_path, data if form == "plain" else gzip.compress(data), name)
    where = f"{tmp_path}/{name}, byte {before if form == 'plain' else f'0 (and byte {before} uncompressed)'}"
  assert numbers(documents) == given
  assert [damage.where for damage in damages] == [where], damages
  assert re.search(reason, damages[0].reason), damages


def test_a_length_that_ends_with_a_later_record(tmp_path):
  both = broken(2, length=len(PAGES[2] + b"\r\n\r\n" + RECORDS[3]) - 4)
  documents, damages = wet(tmp_path, b"".join(map(gzip.compress, [INFO, *RECORDS[:2], both, *RECORDS[3:]])))
  assert numbers(documents) == [0, 1, 3, 4, 5]
  assert [damage.where for damage in damages] == [f"{tmp_path}/a.warc.wet.gz, byte {STARTS[3]}"]
  about = PAGES[0] + b"\r\n\r\nWARC/1.0\r\nWARC-Type: conversion\r\n\r\nis how it begins."  # a page about archives
  documents, damages = wet(tmp_path, gzip.compress(record(0, about)) + MEMBERS[2])
  assert [document.url[-1] for document in documents] == ["0", "1"] and not damages


def test_damage_is_refused_unless_the_caller_takes_it(tmp_path):
  (tmp_path / "a.wet").write_bytes(RECORDS[0] + broken(1, length="") + RECORDS[2])
  source = open_source(f"wet:{tmp_path / 'a.wet'}")
  with pytest.raises(UserError, match=rf"a\.wet, byte {len(RECORDS[0])}: .*no Content-Length"):
    list(source.documents(source.shards(1)[0]))


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 30, 60])
def test_a_cut_gzip_file(tmp_path, cut):
  documents, damages = wet(tmp_path, b"".join(MEMBERS)[:-cut])
  assert numbers(documents) == [0, 1, 2, 3, 4]  # A text whose checksum is cut off is not given either.
  assert [damage.where for damage in damages] == [f"{tmp_path}/a.warc.wet.gz, byte {STARTS[6]}"]
  assert "ends in the middle of this gzip member; the rest of the file is lost" in damages[0].reason


def test_a_cut_plain_file(tmp_path):
  whole = INFO + b"".join(RECORDS)
  for cut in (5, len(PAGES[5]), len(RECORDS[5]) - 3):
    documents, damages = wet(tmp_path, whole[:-cut], "a.wet")
    assert numbers(documents) == [0, 1, 2, 3, 4]
    assert [damage.where for damage in damages] == [f"{tmp_path}/a.wet, byte {len(whole) - len(RECORDS[5])}"]
  assert wet(tmp_path, whole[:-3], "a.wet")[1] == []  # Only the end of a line is gone.


@pytest.mark.parametrize("where", ["deflate", "checksum", "header", "cut"])
def test_after_a_damaged_member_reading_goes_on_at_the_next(tmp_path, where):
  member = bytearray(MEMBERS[3])
  if where == "cut":
    member = member[:60]
  else:
    member[{"deflate": len(member) // 2, "checksum": -6, "header": 0}[where]] ^= 0x55
  documents, damages = wet(tmp_path, b"".join([*MEMBERS[:3], bytes(member), *MEMBERS[4:]]))
  assert numbers(documents) == [0, 1, 3, 4, 5]
  assert [damage.where for damage in damages] == [f"{tmp_path}/a.warc.wet.gz, byte {STARTS[3]}"]
  assert damages[0].reason.endswith(f"reading goes on at byte {STARTS[3] + len(member)}")


def test_bytes_between_members_cost_no_record(tmp_path):
  data = b"".join([*MEMBERS[:3], b"hello \x1f\x8b\x08 there", *MEMBERS[3:]])
  documents, damages = wet(tmp_path, data)
  assert numbers(documents) == [0, 1, 2, 3, 4, 5]
  assert [damage.where for damage in damages] == [f"{tmp_path}/a.warc.wet.gz, byte {STARTS[3]}"]


def test_what_is_damaged_in_one_long_stream_ends_it(tmp_path):
  draw = random.Random(0)  # What repeats itself too well can hardly be cut.
  many = b"".join(
    record(number % 6, PAGES[number % 6], extra=[f"X-A: {draw.randbytes(500).hex()}"]) for number in range(500)
  )
  for ending in (".gz", ".xz", ".bz2", ".zst"):
    packed = COMPRESS[ending](many)
    documents, damages = wet(tmp_path, packed[: len(packed) * 3 // 4], f"a.wet{ending}")
    assert len(damages) == 1 and damages[0].where.startswith(f"{tmp_path}/a.wet{ending}, byte ")
    assert numbers(documents) == [number % 6 for number in range(len(documents))] and len(documents) < 500
    assert ending == ".bz2" or len(documents) > 0, "what can be read before the cut is given"


def test_random_damage_never_gives_a_wrong_text(tmp_path):
  draw = random.Random(0)
  pairs = b"".join(gzip.compress(b"".join(RECORDS[at : at + 3])) for at in (0, 3))
  whole = {"a.wet.gz": b"".join(MEMBERS), "c.wet.gz": pairs, "b.wet": INFO + b"".join(
    record(number, body, extra=[f"WARC-Block-Digest: {digest(body)}"]) for number, body in enumerate(PAGES))}  # fmt: skip
  for trial in range(300):
    name = draw.choice(list(whole))
    data = bytearray(whole[name])
    at = draw.randrange(len(data))
    change = draw.choice(["flip", "cut", "drop", "insert", "double"])
    size = draw.choice([1, 3, 50, 400])
    if change == "flip":
      data[at] ^= 1 << draw.randrange(8)
    else:
      data = {
        "cut": data[:at],
        "drop": data[:at] + data[at + size :],
        "insert": data[:at] + draw.randbytes(size) + data[at:],
        "double": data[: at + size] + data[at:],
      }[change]
    documents, damages = wet(tmp_path, bytes(data), name)
    wrong = [document.text for document in documents if document.text not in TEXTS]
    assert not wrong, (trial, change, at, size)
    assert damages or len(documents) >= 6 or change == "cut" or _only_a_header_changed(documents), (trial, change, at, size)


def _only_a_header_changed(documents):
  return len(documents) == 5  # A changed WARC-Type makes a record one of another type.


def digest(body):
  return f"sha1:{base64.b32encode(hashlib.sha1(body).digest()).decode()}"


def test_digests_of_plain_files(tmp_path):
  good = record(0, PAGES[0], extra=[f"WARC-Block-Digest: {digest(PAGES[0])}"])
  bad = record(1, PAGES[1], extra=[f"WARC-Block-Digest: {digest(PAGES[0])}"])
  unknown = record(2, PAGES[2], extra=["WARC-Block-Digest: md5:00"])
  documents, damages = wet(tmp_path, good + bad + unknown, "a.wet")
  assert numbers(documents) == [0, 2]
  where = f"{tmp_path}/a.wet, byte {len(good)}"
  assert damages == [Damage(where, "its text is not what its WARC-Block-Digest says; it is left out")]


def test_bytes_that_are_not_utf8(tmp_path):
  documents, damages = wet(tmp_path, record(0, b"caf\xe9"), "a.wet")
  assert [document.text for document in documents] == ["caf\udce9"] and not damages
  source = open_source(f"wet:{tmp_path / 'a.wet'}")
  with pytest.raises(UserError, match=r"a\.wet, byte 0: not UTF-8 \(byte 0xe9\)"):
    list(source.documents(source.shards(1)[0]))


def test_files_that_are_no_wet(tmp_path):
  for data, reason in (
    (b"", "it is empty"),
    (b"<html>\n" * 99, "no record begins here"),
    (gzip.compress(b"<html>\n" * 99), "no record begins here"),
    (gzip.compress(record(0, b"x", "request")), "no record of type conversion in it, but request"),
    (random.Random(1).randbytes(3000), "no record begins here"),
  ):
    documents, damages = wet(tmp_path, data)
    assert not documents and len(damages) == 1 and reason in damages[0].reason, damages
  with pytest.raises(UserError, match=r"b\.wet: cannot be read \(No such file"):
    read(f"wet:{tmp_path / 'b.wet'}")


def test_a_sample_whose_lengths_count_characters(shared):
  documents, damages = read(f"wet:{shared / 'data' / 'warc' / 'ccnet_sample.warc.wet.txt'}")
  assert [document.url for document in documents] == [
    "http://sample_english.com", "http://sample_chinese.zh", "http://sample_russian.ru"]  # fmt: skip
  assert documents[0].text.startswith("Famous Mark Twain Quotes\nDon't part") and not damages
  assert documents[0].text.endswith("Truth isn't.")


# --- WARC ------------------------------------------------------------------------------------------------------------

PARAGRAPH = "Dies ist ein langer Absatz über das Wetter in Köln, der zum Inhalt der Seite gehört und nicht zum Rand. "
HTML = f"""<!doctype html><html><head><title>Titel</title></head><body><nav><ul><li><a href="/">Start</a></li></ul></nav>
<main><article><h1>Wetter</h1><p>{PARAGRAPH * 3}</p><p>Zweiter. {PARAGRAPH * 2}</p>
<img alt="Bild"></article></main></body>"""


def response(number, body, kind="text/html; charset=utf-8", status="200 OK", extra=(), **how):
  lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *extra]
  return record(number, ("\r\n".join(lines) + "\r\n\r\n").encode() + body, "response", **how)


def chunked(body, *sizes):
  parts = []
  for size in (*sizes, len(body)):
    parts.append(f"{len(body[:size]):x}\r\n".encode() + body[:size] + b"\r\n")
    body = body[size:]
  return b"".join(parts) + b"0\r\n\r\n"


def warc(folder, *records, pack=True):
  path = folder / ("a.warc.gz" if pack else "a.warc")
  path.write_bytes(b"".join(map(gzip.compress, records)) if pack else b"".join(records))
  return read(f"warc:{path}")


def test_html_becomes_its_paragraphs(tmp_path):
  documents, damages = warc(tmp_path, INFO, response(0, HTML.encode()))
  assert not damages and len(documents) == 1
  assert documents[0].text == f"Wetter\n{(PARAGRAPH * 3).strip()}\nZweiter. {(PARAGRAPH * 2).strip()}"
  assert documents[0][1:] == ("<urn:uuid:0>", "http://example.org/0", "")


def test_encodings(tmp_path):
  meta = HTML.replace("<head>", '<head><meta charset="windows-1252">')
  documents, damages = warc(
    tmp_path,
    response(0, HTML.encode("latin-1"), "text/html; charset=ISO-8859-1"),
    response(1, meta.encode("cp1252"), "text/html"),
    response(2, HTML.encode(), "text/html; charset=ISO-8859-1"),  # The header is wrong.
    response(3, HTML.encode("utf-16"), "text/html; charset=utf-16"),
    response(4, HTML.encode(), "TEXT/HTML; Charset='no-such'"),
    response(5, "天気 <p>今日は晴れです。".encode("iso-2022-jp"), "text/html; charset=iso-2022-jp"),
    response(6, b"caf\xe9 \xff\x00 ole", "text/plain; charset=utf-8"),
  )
  assert not damages and len(documents) == 7
  assert {document.text for document in documents[:5]} == {documents[0].text} and "über das Wetter" in documents[0].text
  assert "今日は晴れです。" in documents[5].text
  documents[6].text.encode()


def test_transfer_and_content_codings(tmp_path):
  body = HTML.encode()
  gz, flate = gzip.compress(body), zlib.compress(body)
  good = [
    response(0, chunked(body, 10, 300), extra=["Transfer-Encoding: chunked"]),
    response(1, body, extra=["Transfer-Encoding: chunked"]),  # The crawler joined the chunks and kept the header.
    response(2, gz, extra=["Content-Encoding: gzip"]),
    response(3, body, extra=["Content-Encoding: gzip"]),
    response(4, chunked(gz, 50), extra=["Transfer-Encoding: chunked", "content-encoding: GZIP"]),
    response(5, flate, extra=["Content-Encoding: deflate"]),
    response(6, flate[2:-4], extra=["Content-Encoding: deflate"]),
    response(7, body, extra=["Content-Encoding: br"]),
  ]
  documents, damages = warc(tmp_path, *good)
  assert not damages and [document.url[-1] for document in documents] == list("01234567")
  assert len({document.text for document in documents}) == 1
  bad = [
    response(0, chunked(body, 100)[:-300], extra=["Transfer-Encoding: chunked"]),
    response(1, chunked(body, 100).replace(b"\r\n", b"XY", 2), extra=["Transfer-Encoding: chunked"]),
    response(2, gz[:-40], extra=["Content-Encoding: gzip"]),
    response(3, gz[:60] + b"\0\0\0\0" + gz[64:], extra=["Content-Encoding: gzip"]),
    response(4, body),
  ]
  documents, damages = warc(tmp_path, *bad)
  assert documents[-1].url.endswith("/4") and [document.url[-1] for document in documents] in (["4"], ["1", "4"])
  places = [sum(len(gzip.compress(part)) for part in bad[:number]) for number in (0, 2, 3)]
  assert [damage.where for damage in damages if "/1:" not in damage.reason] == [
    f"{tmp_path}/a.warc.gz, byte {place}" for place in places]  # fmt: skip
  assert all("http://example.org/" in damage.reason for damage in damages)
  cut = response(2, gz[:-40], extra=["Content-Encoding: gzip"]).replace(
    b"\r\n\r\n", b"\r\nWARC-Truncated: length\r\n\r\n", 1
  )
  documents, damages = warc(tmp_path, cut)
  assert len(documents) == 1 and not damages  # The crawler says that it kept only the begin.


def test_other_responses_are_no_damage(tmp_path):
  documents, damages = warc(
    tmp_path,
    response(0, HTML.encode(), status="404 Not Found"),
    response(1, b"\x89PNG", "image/png"),
    response(2, b"", "text/html"),
    response(3, b"Nur Text.\r\n\r\nNoch einer.", "text/plain"),
    record(4, b"GET / HTTP/1.1\r\n\r\n", "request"),
    record(5, b"dns:x 1", "response").replace(b"http://example.org/5", b"dns:example.org"),
  )
  assert [document.text for document in documents] == ["Nur Text.\nNoch einer."] and not damages


def test_wrong_http_headers_and_odd_addresses(tmp_path):
  documents, damages = warc(
    tmp_path,
    record(0, b"<html>no headers", "response"),
    record(1, b"HTTP/1.1 200 OK\r\nContent-Type: text/html", "response"),
    response(2, HTML.encode()).replace(b"http://example.org/2", b"<http://example.org/with spaces/2>"),
    response(3, HTML.encode()).replace(b"http://example.org/3", b"http://example.org/caf\xe9 \xff"),
    pack=False,
  )
  assert [document.url for document in documents] == [
    "http://example.org/with spaces/2",
    "http://example.org/caf\ufffd \ufffd",
  ]
  assert ["status" in damages[0].reason, "headers do not end" in damages[1].reason, len(damages)] == [True, True, 2]


def test_odd_html_is_no_crash(tmp_path):
  bodies = [b"<div>" * 100_000, b"\0" * 1000, b"<", b"<!--" * 1000, b"<p>\xed\xa0\x80 text", b"&#55296;&#xD800;<p>text"]
  documents, damages = warc(tmp_path, *(response(number, body) for number, body in enumerate(bodies)))
  for document in documents:
    document.text.encode()
  assert len(documents) + len(damages) <= len(bodies)


ARCHIVES = {  # file: documents, and the damage in it
  "dolma_sample-0000.warc.gz": (22, []),
  "dolma_sample-0001.warc.gz": (15, []),
  "resiliparse_block-sized-records.warc.gz": (0, [("", "no record of type response in it, but unknown")]),
  "resiliparse_clipped.warc.gz": (0, [(", byte 0", "the file ends in the middle of this gzip member")]),
  "resiliparse_clueweb-quirk.warc.gz": (29, []),
  "resiliparse_warcfile.warc.gz": (16, []),
  "warcio_example-bad.warc.gz.bad": (1, []),
  "warcio_example-space-in-target-uri.warc.gz": (0, [("", "no record of type response in it, but resource, warcinfo")]),
  "warcio_example-trunc.warc": (0, [(", byte 1197", "its Content-Length of 973 is wrong")]),
  "warcio_example-wrong-chunks.warc.gz": (1, []),
  "warcio_example.warc.gz": (1, []),
}


def test_real_archives(shared):
  folder = shared / "data" / "warc"
  assert {path.name for path in folder.glob("*warc*")} - set(ARCHIVES) <= {"ccnet_sample.warc.wet.txt"}
  for name, (count, wanted) in ARCHIVES.items():
    documents, damages = read(f"warc:{folder / name}")
    assert len(documents) == count, name
    assert [damage.where for damage in damages] == [f"{folder / name}{where}" for where, _ in wanted], name
    for damage, (_, reason) in zip(damages, wanted):
      assert reason in damage.reason
    for document in documents:
      document.text.encode()
  assert len(read(f"warc:{folder}")[0]) == sum(ARCHIVES[name][0] for name in ARCHIVES if not name.endswith(".bad"))


# --- FILES -----------------------------------------------------------------------------------------------------------


def test_files_are_a_path_a_glob_a_folder_or_a_list(tmp_path, monkeypatch):
  for name in ("b/2.wet.gz", "a/1.wet", "a/x.txt", "a/.hidden.wet", ".b/3.wet", "4[1].wet"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x" * len(name))
  endings = with_compressed(".wet")

  def names(given):
    found = find_files(given, endings)
    assert all(file.size == len(file.path) - len(str(tmp_path)) - 1 for file in found)
    return [file.path.removeprefix(f"{tmp_path}/") for file in found]

  assert names(str(tmp_path)) == ["4[1].wet", "a/1.wet", "b/2.wet.gz"]
  assert names(f"{tmp_path}/**/*.wet*") == ["4[1].wet", "a/1.wet", "b/2.wet.gz"]
  assert names(f"{tmp_path}/?/*") == ["a/1.wet", "a/x.txt", "b/2.wet.gz"]
  assert names(f"{tmp_path}/4[1].wet") == ["4[1].wet"]
  monkeypatch.chdir(tmp_path)
  assert names("a/1.wet") == ["a/1.wet"]
  text = f"# ours\r\n\r\n../b/2.wet.gz\r\n{tmp_path}/a/1.wet\r\n 4[1].wet \n".replace(" 4", "../4").encode()
  for ending in COMPRESS:
    (tmp_path / "a" / f"list.txt{ending}").write_bytes(COMPRESS[ending](text))
    assert names(f"@{tmp_path}/a/list.txt{ending}") == ["b/2.wet.gz", "a/1.wet", "4[1].wet"]


@pytest.mark.parametrize(
  "given, message",
  [
    ("nothing.wet", r"nothing\.wet: cannot be read \(No such file"),
    ("*.wet", r"--source=wet:.*/\*\.wet: no file has such a name"),
    ("empty", r"empty: no file in it whose name ends in \.wet, \.wet\.gz"),
    ("@nothing", "nothing: cannot be read"),
    ("@list0", r"list0: the list is empty"),
    ("@list1", r"list1, line 3: .*/b: cannot be read \(No such file"),
    ("@list2", r"list2, line 4: .*/a is also in line 1"),
    ("@list3", r"list3, line 1: .*/empty: no file to read"),
    ("@list4", r"list4, line 1: not UTF-8"),
    ("@list5", r"list5, line 1: hdfs://bucket/a: must be a path of this machine or of a bucket"),
  ],
)
def test_files_that_are_not_there(tmp_path, given, message):
  (tmp_path / "empty").mkdir()
  (tmp_path / "a").write_bytes(b"x")
  for number, text in enumerate([b"#\n\n", b"a\n# b\nb\nc", b"a\n\n\n./a", b"empty\n", b"\xff\xfe\n", b"hdfs://bucket/a\n"]):
    (tmp_path / f"list{number}").write_bytes(text)
  given = f"@{tmp_path}/{given[1:]}" if given.startswith("@") else f"{tmp_path}/{given}"
  with pytest.raises(UserError, match=message):
    open_source(f"wet:{given}")


@pytest.mark.parametrize(
  "link, target, given, message",
  [
    ("a/loop", ".", "", r"a/loop/1\.wet: .*/a/1\.wet is the same file by way of a link; leave"),
    ("b", "a", "", r"b/1\.wet: .*/a/1\.wet is the same file by way of a link; leave"),
    ("a/loop", "..", "", r"a/loop/0\.wet: .*/0\.wet is the same file by way of a link; leave"),
    ("a/2.wet", "1.wet", "", r"a/2\.wet: .*/a/1\.wet is the same file"),
    ("a/loop", "..", "**/*.wet", r"a/loop/a/1\.wet: .*/a/1\.wet is the same file"),
    ("2.wet", "a/1.wet", "@list", r"list, line 2: .*/2\.wet: .*/a/1\.wet is the same file"),
  ],
)
def test_a_link_brings_no_file_twice(tmp_path, link, target, given, message):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "1.wet").write_bytes(b"x")
  if (target, given) == ("..", ""):
    (tmp_path / "0.wet").write_bytes(b"x")
  (tmp_path / "list").write_text("a/1.wet\n2.wet\n")
  (tmp_path / "outside").mkdir()
  (tmp_path / "outside" / "link").symlink_to(tmp_path / "a")
  given = f"@{tmp_path}/{given[1:]}" if given.startswith("@") else f"{tmp_path}/{given}".rstrip("/")
  assert [file.path for file in find_files(f"{tmp_path}/outside", with_compressed(".wet"))] == [
    f"{tmp_path}/outside/link/1.wet"
  ]
  (tmp_path / "outside" / "link").unlink()
  (tmp_path / link).symlink_to(target)
  with pytest.raises(UserError, match=message):
    find_files(given, with_compressed(".wet"))


def test_links_to_folders_without_own_files_and_empty_files_are_no_doubles(tmp_path):
  text = tmp_path / "text"
  for name in ("a/x/1.wet", "a/x/notes.txt", "a/empty.wet"):
    (text / name).parent.mkdir(parents=True, exist_ok=True)
    (text / name).write_bytes(b"" if name == "a/empty.wet" else b"x")
  (text / "a" / "x" / "up").symlink_to("../..")
  (text / "b").symlink_to("a")
  (text / "c.wet").symlink_to("a/empty.wet")
  endings = with_compressed(".wet")
  assert [file.path.removeprefix(f"{text}/") for file in find_files(str(text), endings)] == [
    "a/empty.wet", "a/x/1.wet", "a/x/up/c.wet", "b/empty.wet", "c.wet"
  ]  # fmt: skip
  for number in range(3):
    (text / "a" / f"{number}.wet").write_bytes(b"x")
  with pytest.raises(
    UserError, match=r"b/0\.wet: .*/a/0\.wet is the same file by way of a link \(2 more files are there twice"
  ):
    find_files(str(text), endings)
  (tmp_path / "list").write_text("text/a/0.wet\ntext/b/0.wet\ntext/a/1.wet\ntext/b/1.wet\n")
  with pytest.raises(UserError, match=r"list, line 2: .*/b/0\.wet: .*/a/0\.wet is .*\(1 more file is there twice"):
    find_files(f"@{tmp_path}/list", endings)


def test_a_long_list_is_looked_at_once_and_not_sent_to_workers(tmp_path, monkeypatch):
  (tmp_path / "a").mkdir()
  for number in range(300):
    (tmp_path / "a" / f"{number}.wet").write_bytes(b"x")
  (tmp_path / "list").write_text("".join(f"a/{number}.wet\n" for number in range(300)))
  looked, stat = [], paths.os.stat
  monkeypatch.setattr(paths.os, "stat", lambda path, **how: looked.append(path) or stat(path, **how))
  for given in ("@list", "a", "a/*.wet"):
    looked.clear()
    source = open_source(f"wet:{given[0] if given[0] == '@' else ''}{tmp_path}/{given.lstrip('@')}")
    assert len(source.shards(1)) == 300
    assert sum(str(path).endswith(".wet") for path in looked) == 300
  assert len(pickle.dumps(source)) < 500 and len(pickle.dumps(source.reader())) < 500


# --- JSON lines and Parquet ------------------------------------------------------------------------------------------

FINEWEB = [
  {"text": "eins\n\nzwei", "id": "1", "url": "http://a", "language": "deu", "language_script": "Latn"},
  {"text": "三", "id": "2", "url": "http://b", "language": "cmn", "language_script": "Hani"},
]
LAYOUTS = {
  "FineWeb-2": (FINEWEB, [("eins\nzwei", "http://a", "de"), ("三", "http://b", "zh_Hans")]),
  "CulturaX": ([{"text": "a", "url": "http://a", "source": "mC4"}], [("a", "http://a", "")]),
  "HPLT v2": (
    [{"u": "http://a", "lang": ["deu_Latn", "eng_Latn"], "prob": [0.9, 0.1], "text": "a"}],
    [("a", "http://a", "de")],
  ),
  "HPLT v3": ([{"u": "http://a", "lang": "nob_Latn", "text": "a"}], [("a", "http://a", "no")]),
  "nothing else": ([{"text": "a"}, {"text": None}, {"text": " \n"}, {"text": "b"}], [("a", "", ""), ("b", "", "")]),
}


def write_rows(path, rows):
  if path.name.endswith(".parquet"):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
  else:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_layouts(tmp_path, kind, layout):
  rows, wanted = LAYOUTS[layout]
  documents, damages = read(f"{kind}:{write_rows(tmp_path / f'a.{kind}', rows)}")
  assert [(document.text, document.url, document.language) for document in documents] == wanted and not damages


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_fields_by_flag(tmp_path, kind):
  path = write_rows(tmp_path / f"a.{kind}", [{"content": "a", "link": "l", "tongue": "eng"}, {"content": "b", "link": None}])
  spec = f"{kind}:{path}"
  documents, _ = read(spec, fields=Fields(text="content", url="link", language="tongue"))
  assert [document[0::2] for document in documents] == [("a", "l"), ("b", "")]
  assert [document.language for document in documents] == ["en", ""]
  source = open_source(spec, fields=Fields(text="content", language="=deu"))
  assert [shard.language for shard in source.shards(1 << 20)] == ["de"]
  assert {document.language for document in source.documents(source.shards(1 << 20)[0])} == {"de"}
  for fields, message in (
    (Fields(), r"no field 'text'; it has content, link, tongue: name one of them with --text_field="),
    (Fields(text="content", url="u"), "no field 'u'; .*--url_field="),
    (Fields(text="content", language="l"), "no field 'l'; .*--language_field="),
    (Fields(text="content", language="=no code"), "--language_field==no code: no code of a language"),
  ):
    with pytest.raises(UserError, match=message):
      read(spec, fields=fields)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_languages_filter_what_is_labelled(tmp_path, kind):
  rows = [{"text": code or "none", "language": code} for code in ("deu", "fra", None, "deu")]
  assert texts(f"{kind}:{write_rows(tmp_path / f'a.{kind}', rows)}", languages=["de"]) == ["deu", "none", "deu"]


def test_json_lines_in_every_form_and_however_they_are_cut(tmp_path, monkeypatch):
  rows = [{"text": f"Zeile {number} {'ü' * (number * 7 % 90)}"} for number in range(200)]
  data = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
  for ending in COMPRESS:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(COMPRESS[ending](data))
    assert texts(f"jsonl:{path}") == [row["text"].strip() for row in rows]
  plain = f"jsonl:{tmp_path / 'a.jsonl'}"
  whole = read(plain)[0]
  monkeypatch.setattr(jsonl, "_PIECE", 100)
  for shard_bytes in (1, 37, 100, 1000, 5000, len(data) - 1):
    assert len(open_source(plain).shards(shard_bytes)) == -(-len(data) // shard_bytes)
    assert read(plain, shard_bytes)[0] == whole


@pytest.mark.parametrize("shard_bytes", [1 << 30, 40])
def test_bad_lines_are_named_and_the_rest_is_read(tmp_path, monkeypatch, shard_bytes):
  monkeypatch.setattr(jsonl, "LONGEST_LINE", 3000)
  lines = [
    b'\xef\xbb\xbf{"text": "1"}', b"", b'{"text": "3"', b'["4"]', b'{"other": 5}', b'{"text": 6}', b'{"text": "7 \xe9"}',
    b'{"text": "8"}', b"[" * 2000, b'{"text": "' + b"x" * 5000 + b'"}', b'{"text": "11 \\ud83d\\ude00 \\ud83d"}',
    b'{"text": "12", "n": ' + b"9" * 2900 + b"}", b'{"text": "13"}',
  ]  # fmt: skip
  path = tmp_path / "a.jsonl"
  path.write_bytes(b"\n".join(lines))
  documents, damages = read(f"jsonl:{path}", shard_bytes)
  assert [document.text for document in documents] in (
    [["1", "7 \udce9", "8", "11 \U0001f600 \ufffd", *more, "13"] for more in ([], ["12"])]
  )
  named = [damage.where for damage in damages]
  assert named[:6] == [f"{path}, line {number}" for number in (3, 4, 5, 6, 9, 10)] and len(named) in (6, 7)
  source = open_source(f"jsonl:{path}")
  with pytest.raises(UserError, match=r"a\.jsonl, line 3: no JSON"):
    list(source.documents(source.shards(1 << 30)[0]))
  path.write_bytes(b'{"text": "caf\xe9"}')
  with pytest.raises(UserError, match=r"a\.jsonl, line 1: not UTF-8 \(byte 0xe9\)"):
    list(source.documents(source.shards(1 << 30)[0]))


@pytest.mark.parametrize("shard_bytes", [1 << 30, 3000, 1500, 400])
@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"text": "after"}\n'])
def test_a_long_line_is_named_once_wherever_the_file_is_cut(tmp_path, monkeypatch, shard_bytes, end):
  monkeypatch.setattr(jsonl, "LONGEST_LINE", 2000)
  monkeypatch.setattr(jsonl, "_PIECE", 500)
  before = [b'{"text": "before %d"}' % number for number in range(30)]
  path = tmp_path / "a.jsonl"
  path.write_bytes(b"\n".join([*before, b'{"text": "' + b"x" * 5000 + b'"}']) + end)
  documents, damages = read(f"jsonl:{path}", shard_bytes)
  assert [document.text for document in documents] == [f"before {number}" for number in range(30)] + ["after"] * (
    len(end) > 1
  )
  assert [damage.where for damage in damages] == [f"{path}, line 31"]


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("more", [0, 1, 400])
def test_the_last_line_has_the_limit_of_the_others(tmp_path, monkeypatch, more, end):
  monkeypatch.setattr(jsonl, "LONGEST_LINE", 2000)
  monkeypatch.setattr(jsonl, "_PIECE", 500)
  line = b'{"text": "' + b"x" * (2000 + more - 12) + b'"}'
  (tmp_path / "a.jsonl").write_bytes(line + end)
  documents, damages = read(f"jsonl:{tmp_path}/a.jsonl")
  assert len(line) == 2000 + more and (len(documents), len(damages)) == ((0, 1) if more else (1, 0))


def test_damaged_and_empty_files_of_json_lines(tmp_path):
  packed = gzip.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(100_000)))
  (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
  (tmp_path / "b.jsonl").write_bytes(b"")
  (tmp_path / "c.jsonl").write_bytes(b'{"text": "c"}')
  documents, damages = read(f"jsonl:{tmp_path}")
  read_of_a = [document.text for document in documents[:-1]]
  assert read_of_a == [str(number) for number in range(len(read_of_a))] and len(read_of_a) > 1000
  assert documents[-1].text == "c"
  assert [damage.where for damage in damages] == [f"{tmp_path}/a.jsonl.gz", f"{tmp_path}/b.jsonl"]
  assert "ends in the middle" in damages[0].reason and damages[1].reason == "it is empty"


def test_parquet_shards_are_row_groups(tmp_path):
  rows = [{"text": f"Zeile {number}", "unused": "x" * 1000} for number in range(21)]
  path = write_rows(tmp_path / "a.parquet", rows)
  source = open_source(f"parquet:{path}")
  assert len(source.shards(1)) == 11 and len(source.shards(1 << 30)) == 1 and 1 < len(source.shards(300)) < 11
  for shard_bytes in (1, 300, 1 << 30):
    assert read(f"parquet:{path}", shard_bytes)[0] == [
      Document(f"Zeile {number}", f"{path}:{number}", "", "") for number in range(21)]  # fmt: skip
  assert sum(shard.size for shard in source.shards(1)) < path.stat().st_size / 2  # The other column is not read.


def test_bad_parquet_files_are_named_and_the_others_are_read(tmp_path):
  import pyarrow
  import pyarrow.parquet

  good = write_rows(tmp_path / "a.parquet", [{"text": "a"}])
  data = good.read_bytes()
  for name, bad in (("b", b""), ("c", b"no such format"), ("d", data[:-20]), ("e", b"PAR1" + bytes(100) + b"PAR1")):
    (tmp_path / f"{name}.parquet").write_bytes(bad)
  write_rows(tmp_path / "f.parquet", [{"text": "f"}])
  pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "g.parquet")
  documents, damages = read(f"parquet:{tmp_path}")
  assert [document.text for document in documents] == ["a", "f"]
  assert [damage.where for damage in damages] == [f"{tmp_path}/{name}.parquet" for name in "bcdeg"]
  assert "no rows" in damages[-1].reason and "empty" in damages[0].reason


def test_a_damaged_row_group_costs_no_other(tmp_path):
  import pyarrow
  import pyarrow.parquet

  rows = [{"text": random.Random(number).randbytes(2000).hex()} for number in range(6)]
  path = tmp_path / "a.parquet"
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2, write_page_checksum=True)
  data = bytearray(path.read_bytes())
  data[pyarrow.parquet.read_metadata(path).row_group(1).column(0).data_page_offset - 2000] ^= 0x55  # in the dictionary
  path.write_bytes(data)
  documents, damages = read(f"parquet:{path}")
  assert [document.text for document in documents] == [row["text"] for row in rows[:2] + rows[4:]]
  assert [damage.where for damage in damages] == [f"{path}, row 2"] and "2 rows" in damages[0].reason


def test_columns_of_every_type(tmp_path):
  import pyarrow
  import pyarrow.parquet

  values = ["eins", None, "zwei"]
  for kind in (
    pyarrow.string(),
    pyarrow.large_string(),
    pyarrow.binary(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
  ):
    array = pyarrow.array([b"eins", None, b"zwei"], kind) if kind == pyarrow.binary() else pyarrow.array(values, kind)
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "a.parquet")
    assert texts(f"parquet:{tmp_path / 'a.parquet'}") == ["eins", "zwei"], kind
  _, offsets, data = pyarrow.array([b"caf\xe9", b"b"]).buffers()
  bad = pyarrow.StringArray.from_buffers(2, offsets, data)
  pyarrow.parquet.write_table(pyarrow.table({"text": bad}), tmp_path / "a.parquet")
  assert texts(f"parquet:{tmp_path / 'a.parquet'}") == ["caf\udce9", "b"]
  pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "a.parquet")
  documents, damages = read(f"parquet:{tmp_path / 'a.parquet'}")
  assert not documents and [damage.where[-5:] for damage in damages] == ["row 0", "row 1"]


# --- TFDS ------------------------------------------------------------------------------------------------------------


def store(folder, name, rows, config=None, **splits):
  tfds = pytest.importorskip("tensorflow_datasets")
  features = tfds.features.FeaturesDict({key: tfds.features.Text() for key in rows[0]})
  tfds.dataset_builders.store_as_tfds_dataset(
    name, "1.0.0", features, {split: list(enumerate(part)) for split, part in ({"train": rows} | splits).items()},
    config=config, data_dir=folder, disable_shuffling=True,
  )  # fmt: skip


def read_tfds(names, folder, **options):
  source, damages = TfdsText(names, data_dir=str(folder), **options), []
  return [document for shard in source.shards(1 << 30) for document in source.documents(shard, damages.append)], damages


def test_tfds(tmp_path):
  rows = [{"text": "eins\n\nzwei", "url": "http://a", "language": "deu"}, {"text": " ", "url": "", "language": ""},
          {"text": "drei", "url": "", "language": "fra"}]  # fmt: skip
  store(tmp_path, "my_data", rows, test=[{"text": "vier", "url": "", "language": ""}])
  documents, damages = read_tfds("my_data:1.0.0", tmp_path)
  assert [(document.text, document.url, document.language) for document in documents] == [
    ("eins\nzwei", "http://a", "de"), ("drei", "", "fr")]  # fmt: skip
  assert not damages and "my_data" in documents[0].id
  assert [document.text for document in read_tfds("my_data[test]", tmp_path)[0]] == ["vier"]
  assert [document.text for document in read_tfds("my_data", tmp_path, languages=["fr"])[0]] == ["drei"]
  for names, fields, message in (
    ("my_data", Fields(text="body"), r"tfds my_data: no field 'body'; it has .*url.*: .*--text_field="),
    ("my_data[dev]", Fields(), r"tfds my_data: no split dev; it has train, test: write my_data\[SPLIT\]"),
    ("no_such_data", Fields(), "tfds no_such_data: not prepared in .*tfds build no_such_data"),
    ("my_data,my_data", Fields(), "my_data is there twice"),
    ("my_data[", Fields(), "is no name"),
  ):
    with pytest.raises(UserError, match=message):
      read_tfds(names, tmp_path, fields=fields)


def test_wiki40b(tmp_path):
  text = "\n_START_ARTICLE_\nKöln\n_START_SECTION_\nLage\n_START_PARAGRAPH_\nAm Rhein._NEWLINE_Im Westen.\n"
  rows = [{"text": text, "version_id": "1", "wikidata_id": "Q1"}]
  tfds = pytest.importorskip("tensorflow_datasets")
  for config in ("de", "zh-tw"):
    declared = tfds.builder(f"wiki40b/{config}", data_dir=tmp_path)
    tfds.dataset_builders.store_as_tfds_dataset(
      "wiki40b", declared.version, declared.info.features, {"train": list(enumerate(rows))}, config=config,
      data_dir=tmp_path, disable_shuffling=True,
    )  # fmt: skip
  documents, damages = read_tfds("wiki40b/de,wiki40b/zh-tw", tmp_path)
  assert [(document.text, document.language) for document in documents] == [
    ("Köln\nLage\nAm Rhein.\nIm Westen.", language) for language in ("de", "zh_Hant")]  # fmt: skip
  with pytest.raises(UserError, match="tfds wiki40b/fr: not prepared in"):
    read_tfds("wiki40b/fr", tmp_path)
  assert not damages


def test_damage_in_tfds_files(tmp_path):
  store(tmp_path, "my_data", [{"text": f"Text {number} {'x' * 100}"} for number in range(20)])
  path = next(tmp_path.rglob("*tfrecord*"))
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x55
  path.write_bytes(data)
  documents, damages = read_tfds("my_data", tmp_path)
  assert 0 < len(documents) < 20 and len(damages) == 1
  assert f"example {len(documents)}" in damages[0].where and "the rest of these files is lost" in damages[0].reason
