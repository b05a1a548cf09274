"""corpus/opt_outs.py: what a file of opt-outs covers, and how a bad line is refused."""

import gzip
import hashlib
import pickle

import pytest

from xlmr_jax.corpus.opt_outs import OptOuts, normalise
from xlmr_jax.errors import UserError

ENTRIES = f"""# who does not want to be read
example.com
Bücher.example.   # a name in Unicode
https://news.example.org/a/b?c=1#part

{hashlib.sha256(b"hashed.example.net/x").hexdigest().upper()}
"""


@pytest.fixture
def opt_outs(tmp_path):
  path = tmp_path / "opt_outs.txt"
  path.write_text(ENTRIES, encoding="utf-8")
  return OptOuts.read(path)


@pytest.mark.parametrize(
  "url",
  [
    "http://example.com",
    "https://WWW.Example.com:8080/page",
    "http://xn--bcher-kva.example/",
    "http://bücher.EXAMPLE/x",
    "http://user@news.example.org:80/a/b?c=1",
    "https://hashed.example.net/x#y",
    "https://example.com./",
    "https://foo-.example.com/x",
    "http://example.com:99999/x",
    "http://example.com:port/x",
    "http://a..example.com/x",
    f"http://{'a' * 64}.example.com/x",
    "http://*.xn--bcher-kva.example\\x",
    "http://-.bücher.example/x",
    "http://exa\u0301\u0301-.b%C3%BCcher.example/",
    "ftp://example.com/",
    "example.com",
    "www.example.com:8080/x",
    "//example.com/x",
    "news.example.org/a/b?c=1",
    "http:/example.com/x",
    "http:///example.com/x",
    "https:example.com/x",
    "HTTP:\\\\example.com\\x",
    "http:news.example.org\\a/b?c=1",
    "example.com\\@a/x",
  ],
)
def test_what_is_covered(opt_outs, url):
  assert opt_outs.has(url)


@pytest.mark.parametrize(
  "url",
  ["http://notexample.com/", "http://example.com.de/", "https://news.example.org/a/b", "https://news.example.org/a/b?c=2",
   "https://hashed.example.net/x/", "http://[bad", "mailto:a@notexample.com", "http://a:b/", "", "no url", "http://org/", "http://a..b/",
   "http://a\\@example.com/", "a\\@example.com", "http://news.example.org/a/b?c=\\1", "/example.com/x"],
)  # fmt: skip
def test_what_is_not_covered(opt_outs, url):
  assert not opt_outs.has(url)


def test_what_cannot_be_told(opt_outs):
  """An address without a normal form may be one whose hash is in the file."""
  assert [opt_outs.covers(url) for url in ("http://a..b/", "no url", "http://other.net:99999/", "/x")] == [None] * 4
  assert opt_outs.covers("") is False and opt_outs.covers("http://other.net/") is False


def test_pickled_and_compressed(opt_outs, tmp_path):
  path = tmp_path / "opt_outs.txt.gz"
  path.write_bytes(gzip.compress(ENTRIES.encode()))
  for same in (pickle.loads(pickle.dumps(opt_outs)), OptOuts.read(path)):
    assert same.sha256 == hashlib.sha256(ENTRIES.encode()).hexdigest() and same.domains == opt_outs.domains
    assert same.has("http://example.com/") and same.has("http://hashed.example.net/x") and not same.has("http://other.net/")


def test_an_empty_file_covers_nothing(tmp_path):
  (tmp_path / "none").write_text("\n# nobody\n")
  assert not OptOuts.read(tmp_path / "none").has("http://example.com/")


@pytest.mark.parametrize(
  "line", [b"exa mple.com", b"ftp://example.com/x", b"-x.com", b"http:///path", b"a/b", b"\xff.com", b"http://a:99999999/"]
)
def test_a_bad_line_is_named(tmp_path, line):
  path = tmp_path / "bad.txt"
  path.write_bytes(b"good.com\n\n" + line + b"\n")
  with pytest.raises(UserError, match=r"bad\.txt, line 3: "):
    OptOuts.read(path)
  with pytest.raises(UserError, match=r"nowhere"):
    OptOuts.read(tmp_path / "nowhere")


def test_normal_form():
  assert normalise(" HTTPS://User@Example.COM:443#x ") == "example.com/"
  assert normalise("http://example.com:443/A?b#c") == "example.com:443/A?b"
  assert normalise("http://[2001:DB8::1]/") == "[2001:db8::1]/"
