"""Mutations: of bytes, and of the values of a JSON text, which random bytes rarely reach."""

import json
import random
from typing import Any

VALUES = (
  None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\x00", "²",
  "-1", "None", "../x", "a" * 5000, [], {}, [[]], [None], {"": None}, [1, "x"],
)  # fmt: skip
PIECES = (
  b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\n\n", b"\t", b'"', b"\\", b"\\ud800", b"\xe2\x80\xa8", b"\xc2\xa0",
  b" ", b"-", b"_", b"[" * 2000, b"9" * 400, b"NaN", b"null", b"\xed\xa0\x80", b"1e999",
)  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
  """One to four changes."""
  for _ in range(rng.randint(1, 4)):
    changed = _mutate_json(data, rng) if rng.random() < 0.6 else None
    data = changed if changed is not None else _mutate_bytes(data, rng)
  return data


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
  start = rng.randint(0, len(data))
  end = min(len(data), start + rng.choice((0, 1, 1, 2, 8, 100)))
  kind = rng.randrange(5)
  if kind == 0:  # a bit
    return data[:start] + bytes([(data[start] if start < len(data) else 0) ^ 1 << rng.randrange(8)]) + data[start + 1 :]
  if kind == 1:
    return data[:start] + rng.choice(PIECES) + data[end:]
  if kind == 2:
    return data[:start] + data[end:]
  if kind == 3:  # again, elsewhere
    at = rng.randint(0, len(data))
    return data[:at] + data[start:end] + data[at:]
  return data[:start]


def _mutate_json(data: bytes, rng: random.Random) -> bytes | None:
  """The text with one value replaced, removed or doubled; None if it is no JSON with values inside."""
  try:
    value = json.loads(data)
    places = list(_places(value))
  except (ValueError, RecursionError):
    return None
  if not places:
    return None
  parent, key = rng.choice(places)
  kind = rng.randrange(4)
  if kind < 2:
    parent[key] = rng.choice(VALUES)
  elif kind == 2:
    del parent[key]
  elif isinstance(parent, list):
    parent.insert(rng.randint(0, len(parent)), parent[key])
  else:
    parent[rng.choice(list(parent)) if rng.random() < 0.5 else "x"] = parent[key]
  try:
    return json.dumps(value).encode()
  except (ValueError, RecursionError):
    return None


def _places(value: Any) -> Any:
  if isinstance(value, dict | list):
    for key in list(value) if isinstance(value, dict) else range(len(value)):
      yield value, key
      yield from _places(value[key])
