"""What looks like a secret in a text or in the name of a key, so that no message and no file has it."""

import os
import re

_HIDDEN = "***"
_NAMES = r"(?:token|signature|password|passwd|secret|credential|api[_-]?key|access[_-]?key|private[_-]?key|upload_id)"
# Where texts of libraries and stores hold a secret. The first group is what stays in front of it.
_PLACES = tuple(
  re.compile(pattern, re.IGNORECASE | re.DOTALL)
  for pattern in (
    r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@'\"]+@",  # an address, scheme://USER:PASSWORD@host
    rf"((?<![\w-])(?:[\w-]*{_NAMES}|sig)=)[^&\s'\"#,;)]+",  # a part of a signed address; upload_id opens an upload to anyone
    rf"(['\"][\w-]*{_NAMES}['\"]\s*:\s*['\"])[^'\"]+",  # JSON
    r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\",;}]+",  # a header
    r"(\bbearer\s+)[\w.~+/=-]{16,}",
  )
)
# Secrets that show by themselves: a private key, and the tokens of Hugging Face, GitHub, Google, Amazon and JSON web tokens.
_SHAPES = re.compile(
  r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
  r"|\b(?:hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|ya29\.[\w.-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
  r"|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})",
  re.DOTALL,
)
_SECRET_NAME = re.compile(
  r"(?:^|[_.])(?:token|secret|password|passwd|credentials?|api_?key|access_?key|private_?key)(?:$|_)", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
  """Whether a variable of the environment, or a key, is named like one that holds a secret, such as HF_TOKEN."""
  return bool(_SECRET_NAME.search(name))


def _secrets_of_environment() -> list[str]:
  """The values of variables that are named like secrets, the longest first. A path is none: its file holds the secret."""
  values = (value.strip() for name, value in os.environ.items() if is_secret_name(name))
  secrets = [value for value in values if len(value) >= 8 and not value.startswith(("/", "~", "."))]
  return sorted(secrets, key=len, reverse=True)


def redacted(text: str) -> str:
  """The text with *** in the place of what looks like a secret, and of each secret that the environment holds.

  Stores and their libraries put addresses and headers of requests into what they raise, and these may open the store.
  """
  for secret in _secrets_of_environment():
    text = text.replace(secret, _HIDDEN)
  text = _SHAPES.sub(_HIDDEN, text)
  for place in _PLACES:
    text = place.sub(lambda match: match[1] + (_HIDDEN + "@" if match[0].endswith("@") else _HIDDEN), text)
  return text
