"""The pages whose owners do not want them in a corpus: a file of domains, URLs and hashes of URLs."""

import hashlib
import re
import urllib.parse
from pathlib import Path

import numpy as np

from xlmr_jax.corpus.sources.text_file import open_text
from xlmr_jax.errors import UserError

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]{2}")
_WEB = re.compile(r"(https?):[/\\]*([^?#]*)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


class OptOuts:
  """Domains and URLs to leave out. Instances are small beside their file: 8 bytes per URL, in one sorted array."""

  def __init__(self, domains: frozenset[str], hashes: np.ndarray, sha256: str):
    """domains: as normalise_domain has them. hashes: uint64[N], sorted, by _short of URLs. sha256: of the file's content."""
    self.domains, self.hashes, self.sha256 = domains, hashes, sha256

  @classmethod
  def read(cls, path: str | Path) -> "OptOuts":
    """Reads a file, plain or compressed as the texts of a corpus are (.txt.gz and the like), with one entry per line.

    An entry is a domain, which covers its subdomains; a URL with its scheme, which covers that page; or the sha256, in
    hexadecimal, of what `normalise` makes of a URL. Empty lines, and what follows a # at the start of a line or after a
    blank, are comments.
    Raises UserError: the file cannot be read, or a line is none of these (with its number).
    """
    domains: set[str] = set()
    hashes = bytearray()
    digest = hashlib.sha256()
    with open_text(path) as file:
      for number, raw in enumerate(file, 1):
        digest.update(raw)
        try:
          entry = raw.decode("utf-8").removeprefix("\ufeff").strip()
          if "#" in entry:
            entry = re.sub(r"(^|\s)#.*", "", entry).strip()
          if _HASH.fullmatch(entry):
            hashes += bytes.fromhex(entry)[:8]
          elif "://" in entry:
            hashes += hashlib.sha256(normalise(entry).encode()).digest()[:8]
          elif entry:
            domains.add(normalise_domain(entry))
        except ValueError as error:
          reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
          raise UserError(
            f"{path}, line {number}: {reason}; give a domain, a URL with http:// or https://, or a sha256"
          ) from None
    return cls(frozenset(domains), np.unique(np.frombuffer(bytes(hashes), ">u8").astype(np.uint64)), digest.hexdigest())

  def has(self, url: str) -> bool:
    """Whether a URL is one of them or of one of their domains. A text that is no URL is none of them."""
    return bool(self.covers(url))

  def covers(self, url: str) -> bool | None:
    """As has(). None: of a text that is no URL nobody can say it; nor whether a URL is listed of which the form is wrong.

    The domain is looked for in whatever a browser or a crawler may have taken for an address: with a host of which
    normalise_domain would not have it, with a port that does not exist, without a scheme, with any number of slashes after
    it, or with backslashes for slashes.
    """
    if not url:
      return False
    url = url.strip()
    if re.match(r"[/\\](?![/\\])", url):  # the path of a page, without its host
      return None
    if not _WEB.match(url) and not _SCHEME.match(url):
      url = f"http:{'' if url.startswith('//') else '//'}{url}"
    if web := _WEB.match(url):  # https://url.spec.whatwg.org/#special-authority-ignore-slashes-state
      address = web[2].replace("\\", "/")
      url = f"{web[1]}://{address}{url[web.end() :]}"
    try:
      normal = normalise(url)
      host = normal.partition("/")[0].partition(":")[0]
    except ValueError:
      normal, host = "", _host_of(url)
    labels = host.split(".")
    if self.domains and any(".".join(labels[i:]) in self.domains for i in range(len(labels))):
      return True
    if not normal:
      return None
    if not len(self.hashes):
      return False
    short = np.frombuffer(hashlib.sha256(normal.encode()).digest()[:8], ">u8").astype(np.uint64)[0]
    index = int(np.searchsorted(self.hashes, short))
    return index < len(self.hashes) and bool(self.hashes[index] == short)


def _host_of(url: str) -> str:
  """What stands where a URL has its host, in the form of normalise_domain as far as it goes."""
  host = re.split(r"[/\\?#]", _SCHEME.sub("", url), maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
  labels = urllib.parse.unquote(host).strip().lower().rstrip(".").split(".")
  return ".".join(map(_ascii, labels))


def _ascii(label: str) -> str:
  """A label of a host in IDNA's ASCII; as it is where it has none, so that the labels after it can be read."""
  try:
    return label if label.isascii() else label.encode("idna").decode("ascii")
  except UnicodeError:
    return label


def normalise(url: str) -> str:
  """A URL in the form whose sha256 counts, without its scheme: "example.com/path?query".

  http and https are equal, as are the spellings of a host (small or capital letters, Unicode or IDNA's ASCII). The port that
  the scheme has by default, a user's name, the fragment, and a dot at the end of the host are dropped. An empty path is "/".
  The path and the query stay as they are, because servers may tell their spellings apart.
  Raises ValueError: it is no http or https URL with a host.
  """
  parts = urllib.parse.urlsplit(url.strip())
  scheme = parts.scheme.lower()
  if scheme not in _PORTS:
    raise ValueError(f"{url!r} is no http or https URL")
  host = parts.hostname or ""
  if ":" in host:  # IPv6
    host = f"[{host}]"
  else:
    host = normalise_domain(host)
  port = parts.port  # ValueError: it is no number
  where = host if port is None or port == _PORTS[scheme] else f"{host}:{port}"
  return f"{where}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


def normalise_domain(domain: str) -> str:
  """A host's name in small letters and IDNA's ASCII, without a dot at its end. Raises ValueError: it is none."""
  name = domain.strip().lower().rstrip(".")
  if not name.isascii():
    try:
      name = name.encode("idna").decode("ascii")
    except UnicodeError:
      raise ValueError(f"{domain!r} is no domain") from None
  labels = name.split(".")
  if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
    raise ValueError(f"{domain!r} is no domain")
  return name
