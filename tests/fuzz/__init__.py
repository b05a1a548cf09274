"""Fuzzing of what reads users' files: sound files are damaged at random, and nothing but a UserError of one line may come.

The tests make a few dozen draws each, the same in every run. FUZZ_SECONDS=20 FUZZ_SEED=1 pytest tests/fuzz makes others, for
so long per test.
"""

import os
import random
import time
from collections.abc import Iterator

# What breaks readers: ends of lines and cells, brackets and quotes, numbers and words that stand for nothing, bytes that are
# no UTF-8, half of a surrogate pair, characters without width.
PIECES = (
  b"\x00", b"\xff", b"\t", b"\n", b"\r", b'"', b"[", b"{", b"}", b",", b":", b" ", b"null", b"NaN", b"-", b"_", b"-1",
  b"1e999", b"0.5", b"true", b"\\ud83d", b"\xed\xa0\xbd", b"\xef\xbb\xbf", b"\xe2\x80\x8b", b"\xf0\x9f\x98\x80", b"e" * 50,
)  # fmt: skip


def mutated(rng: random.Random, content: bytes) -> bytes:
  """content with one to eight changes: bytes or PIECES put in, in the place of others or not, parts removed or doubled."""
  changed = bytearray(content)
  for _ in range(rng.choice((1, 1, 2, 4, 8))):
    at = rng.randrange(len(changed) + 1)
    kind = rng.randrange(5)
    if kind == 0:
      changed[at:at] = rng.choice(PIECES)
    elif kind == 1:
      del changed[at : at + rng.randrange(1, 6)]
    elif kind == 2:
      start = rng.randrange(len(changed) + 1)
      changed[at:at] = changed[start : start + rng.randrange(30)]
    elif kind == 3:
      changed[at : at + rng.randrange(1, 8)] = rng.choice(PIECES)
    else:
      changed[at : at + 1] = bytes([rng.randrange(256)])
  return bytes(changed)


def rounds(count: int) -> Iterator[random.Random]:
  """Yields a generator of random numbers `count` times, or for FUZZ_SECONDS."""
  rng = random.Random(int(os.environ.get("FUZZ_SEED", "0")))
  seconds = float(os.environ.get("FUZZ_SECONDS", "0"))
  end = time.monotonic() + seconds
  done = 0
  while time.monotonic() < end if seconds else done < count:
    yield rng
    done += 1
