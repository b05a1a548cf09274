"""The short form of tests/fuzz: seeds, what was once a fault, and some mutations of both, for every target."""

import random
import zlib

import pytest

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, all_seeds, run_once

MUTATIONS = 40


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_reads_or_refuses(name):
  seeds = list(all_seeds(name))
  whole = list(TARGETS[name].seeds())
  assert any(run_once(name, data) for data in whole) or name == "checkpoint_manifest", (
    "no seed is read: the target tests nothing"
  )
  rng = random.Random(zlib.crc32(name.encode()))
  for data in seeds:
    run_once(name, data)
  for _ in range(MUTATIONS):
    run_once(name, mutate(rng.choice(seeds), rng))
