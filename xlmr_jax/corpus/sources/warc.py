"""WARC files: the main text of each page that a crawler fetched, from "response" records, which do not say its language."""

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from xlmr_jax.corpus.sources import Damage, Document, Shard, refuse
from xlmr_jax.corpus.sources.lines import tidy
from xlmr_jax.corpus.sources.paths import FileSource, find_files, with_compressed
from xlmr_jax.corpus.sources.warc_records import Record, read_records

ENDINGS = with_compressed(".warc")
LONGEST_PAGE = 16 << 20  # bytes, without the compression of its transfer; a longer one is named and left out
_DEEPEST = 4000  # elements within one another; resiliparse takes a second for twice as many, and 100,000 take minutes
_HTML = ("text/html", "application/xhtml+xml")
_STATUS = re.compile(rb"HTTP/\S+[ \t]+200(?![0-9])")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"(?:\r?\n)?[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)")
# Elements without an end, with one that is mostly left out, and the leaves of pictures.
_CLOSED = frozenset(
  re.findall(
    r"\w+",
    "area base br col embed hr img input link meta source track wbr p li td tr th dt dd option thead tbody tfoot colgroup"
    " path use circle rect polygon polyline line ellipse stop",
  )
)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]+)", re.IGNORECASE)


class _Bad(Exception):
  """A page that cannot be read, and why."""


class Warc(FileSource):
  """The pages of WARC files."""

  def __init__(self, given: str, languages: Iterable[str] | None = None):
    """given: as find_files has it. languages: is ignored, because no page says its own in a way that can be believed."""
    super().__init__(find_files(given, ENDINGS, "--source=warc:"), languages)

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The main text of each page of HTML, and the whole of plain text. Other responses are no damage."""
    for record in read_records(shard.name, "response", on_damage):
      try:
        text = _text_of(record)
      except _Bad as error:
        on_damage(Damage(record.where, f"{record.url or record.id}: {error}; it is left out"))
        continue
      if text:
        yield Document(text, record.id, record.url, "")


def _text_of(record: Record) -> str:
  """The text of a response; "" if it has none. Raises _Bad."""
  if not _STATUS.match(record.body):
    if record.url.startswith(("http:", "https:")) and not record.body.startswith(b"HTTP/"):
      raise _Bad("it does not begin with an HTTP status")
    return ""
  end = _HEADERS_END.search(record.body)
  if not end:
    raise _Bad("its HTTP headers do not end")
  headers = _headers(record.body[: end.start()])
  kind = headers.get("content-type", "").partition(";")[0].strip().lower()
  if kind not in (*_HTML, "text/plain"):
    return ""
  body = record.body[end.end() :]
  if "chunked" in headers.get("transfer-encoding", "").lower():
    body = _without_chunks(body, record.truncated)
  for coding in reversed(headers.get("content-encoding", "").lower().split(",")):
    body = _decoded(body, coding.strip(), record.truncated)
  if len(body) > LONGEST_PAGE:
    raise _Bad(f"a page of more than {LONGEST_PAGE >> 20} MB")
  charset = _CHARSET.search(headers.get("content-type", ""))
  text = _to_text(body, charset[1] if charset else "", is_html=kind in _HTML)
  return tidy(_main_content(text) if kind in _HTML else text)


def _headers(head: bytes) -> dict[str, str]:
  found: dict[str, str] = {}
  for line in head.split(b"\n")[1:]:
    name, _, value = line.decode("latin-1").partition(":")
    found.setdefault(name.strip().lower(), value.strip())
  return found


def _without_chunks(body: bytes, truncated: bool) -> bytes:
  """The body of a transfer in chunks. Many crawlers join the chunks but keep the header; then there is none at the start."""
  parts: list[bytes] = []
  at = 0
  while at < len(body):
    head = _CHUNK.match(body, at)
    if not head:
      if not parts:
        return body
      raise _Bad(f"the size of a chunk is missing at byte {at} of the body")
    size = int(head[1], 16)
    if not size:
      return b"".join(parts)
    part = body[head.end() : head.end() + size]
    if len(part) < size and not truncated:
      if not parts:
        return body  # It begins with what only looks like the size of a chunk.
      raise _Bad(f"its last chunk has {len(part)} of {size} bytes")
    parts.append(part)
    at = head.end() + size
  return b"".join(parts)


def _decoded(body: bytes, coding: str, truncated: bool) -> bytes:
  """A body without a content coding. Many crawlers decode the body but keep the header."""
  if coding in ("gzip", "x-gzip"):
    return _inflate(body, 31, coding, truncated) if body.startswith(b"\x1f\x8b") else body
  if coding == "deflate" and body:
    # RFC 9110 means zlib's format, but some servers send bare deflate. Text begins as neither.
    if len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0:
      return _inflate(body, 15, coding, truncated)
    return body if body.lstrip()[:1] == b"<" else _inflate(body, -15, coding, truncated)
  if coding == "br" and body.lstrip()[:1] != b"<":
    return _unbrotli(body)
  if coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
    raise _Bad("its body is compressed with zstd, which is not read here")
  return body


def _inflate(body: bytes, wbits: int, coding: str, truncated: bool) -> bytes:
  stream = zlib.decompressobj(wbits=wbits)
  try:
    text = stream.decompress(body, LONGEST_PAGE + 1)
  except zlib.error as error:
    raise _Bad(f"its {coding} body is damaged ({error})") from None
  if not stream.eof and not truncated and len(text) <= LONGEST_PAGE:
    raise _Bad(f"its {coding} body is cut")
  return text


def _unbrotli(body: bytes) -> bytes:
  from fastwarc.stream_io import BrotliReader

  try:
    return BrotliReader(io.BytesIO(body)).read(LONGEST_PAGE + 1)
  except OSError as error:
    raise _Bad(f"its br body is damaged ({error})") from None


def _to_text(body: bytes, charset: str, is_html: bool) -> str:
  """A body as text: UTF-8 if it is that, else as its header says, else as HTML or its bytes tell.

  What is valid UTF-8 beyond ASCII is nothing else, whatever a header says, but for the encodings that shift by escapes.
  """
  from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

  if b"\x1b" not in body:
    try:
      return body.decode("utf-8-sig")
    except UnicodeDecodeError:
      pass
  known = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
  encoding = known or detect_encoding(body, from_html_meta=is_html) or "utf-8"
  return bytes_to_str(body, encoding, errors="replace").replace("\0", "")


def _is_too_deep(html: str) -> bool:
  """Whether more than about _DEEPEST elements lie within one another."""
  if html.count("<") <= _DEEPEST:
    return False
  data = np.frombuffer(html.encode("utf-8", "replace"), np.uint8)
  after = data[np.flatnonzero(data[:-1] == ord("<")) + 1]
  is_letter = ((after | 32) >= ord("a")) & ((after | 32) <= ord("z"))
  if np.cumsum(is_letter.astype(np.int64) - (after == ord("/")), dtype=np.int64).max(initial=0) <= _DEEPEST:
    return False
  depth = 0
  for match in _TAG.finditer(html):  # Slow and right: without the elements that no end tag needs to close.
    if match[2].lower() not in _CLOSED:
      depth = max(0, depth - 1) if match[1] else depth + 1
      if depth > _DEEPEST:
        return True
  return False


def _main_content(html: str) -> str:
  """The paragraphs of a page of HTML without navigation, addresses, and what stands for pictures and lists."""
  from resiliparse.extract.html2text import extract_plain_text

  if _is_too_deep(html):
    raise _Bad(f"more than {_DEEPEST} elements of its HTML lie within one another")
  try:
    return extract_plain_text(html, main_content=True, list_bullets=False, alt_texts=False, comments=False, post_meta=False)
  except (KeyboardInterrupt, SystemExit, GeneratorExit):
    raise
  except BaseException as error:  # A panic of Rust is no Exception.
    raise _Bad(f"its HTML cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:100]})") from None
