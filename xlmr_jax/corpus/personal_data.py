"""Puts fixed examples in the place of e-mail addresses and public IP addresses."""

import ipaddress
import re
from collections import Counter

# Nobody can have these: RFC 2606 keeps example.com, RFC 5737 192.0.2.0/24, and RFC 3849 2001:db8::/32 for documentation.
EMAIL, IPV4, IPV6 = "email@example.com", "192.0.2.1", "2001:db8::1"

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # All that is given out so far (RFC 4291). a::b is program code.
# An e-mail address is looked for from its @ on, because that is rare; then its first part is read backwards.
_AT_DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,63}(?![\w@])")
_LOCAL_PART = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w!#$%&*+=?^~-](?:[\w.!#$%&'*+=?^~-]{0,62}[\w+~-])?\Z")
_LONGEST_LOCAL_PART = 64  # characters (RFC 5321, section 4.5.3.1.1)
_IPV4 = re.compile(r"\d(?:(?<![\w.:/+-]\d)|(?<=//\d))\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\w)", re.ASCII)
_IPV6 = re.compile(
  r"(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\d{0,3}(?:\.\d{1,3}){3})?(?![\w:]|\.\d)", re.ASCII
)
_MANY_COLONS = re.compile(r":[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){3}")
_VERSION = re.compile(r"(?:\b(?:version|release|build|v|ver|rev)\.?|§)\s*$", re.IGNORECASE)
_LOOK_BACK = 12  # characters in which a word before an address may say that it is a version
_DIGITS_AND_DOTS = bytes(ord("0") if chr(i) in "0123456789" else i if chr(i) == "." else 32 for i in range(256))


def mask(text: str) -> tuple[str, Counter]:
  """The text with examples for addresses, and how many there were of "email", "ipv4" and "ipv6".

  IP addresses that are private, of the machine itself or reserved stay, since they lead to nobody. So do numbers of
  versions, which are part of a longer number or name, or follow a word such as "version".
  """
  counts: Counter = Counter()

  def replace_ip(found: re.Match) -> str:
    before = text[max(0, found.start() - _LOOK_BACK) : found.start()]
    if not _is_public(found[0]) or _VERSION.search(before):
      return found[0]
    kind = "ipv6" if ":" in found[0] else "ipv4"
    counts[kind] += 1
    return IPV6 if kind == "ipv6" else IPV4

  if "@" in text:
    text = _mask_emails(text, counts)
  if "::" in text or _MANY_COLONS.search(text):
    text = _IPV6.sub(replace_ip, text)
  if _has_dotted_numbers(text):
    text = _IPV4.sub(replace_ip, text)
  return text, counts


def _has_dotted_numbers(text: str) -> bool:
  """Whether there are three numbers with dots between them, the second of at most three digits."""
  seen = text.encode("utf-8", "surrogatepass").translate(_DIGITS_AND_DOTS)
  return b"0.0" in seen and (b"0.0.0" in seen or b"0.00.0" in seen or b"0.000.0" in seen)


def _mask_emails(text: str, counts: Counter) -> str:
  pieces, end = [], 0
  for found in _AT_DOMAIN.finditer(text):
    start = max(end, found.start() - _LONGEST_LOCAL_PART - 1)
    if local := _LOCAL_PART.search(text, start, found.start()):
      pieces += [text[end : local.start()], EMAIL]
      end = found.end()
      counts["email"] += 1
  return "".join(pieces) + text[end:]


def _is_public(address: str) -> bool:
  try:
    parsed = ipaddress.ip_address(address)
  except ValueError:
    return False
  if isinstance(parsed, ipaddress.IPv6Address):
    if parsed.ipv4_mapped:
      return parsed.ipv4_mapped.is_global
    return parsed.is_global and parsed in _GLOBAL_UNICAST
  return parsed.is_global and not parsed.is_multicast
