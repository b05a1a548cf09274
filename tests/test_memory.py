"""What the allocator keeps of freed memory, seen in the pages that a process of its own holds."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os
import sys
import numpy as np
from xlmr_jax.run.memory import keep_freed_memory

def held():
  return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

def touched(mib):
  block = np.empty(mib * 2**20, np.uint8)
  block[::4096] = 1
  return block

keep_freed_memory(of_many_shapes=sys.argv[1] == "True")
before = held()
block = touched(400)
del block
large = held() - before
blocks = [touched(20) for _ in range(10)]
del blocks
print(large, held() - before)
"""


@pytest.mark.skipif(
  not Path("/proc/self/statm").exists() or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc on Linux alone does this"
)
@pytest.mark.parametrize("of_many_shapes", [False, True])
def test_large_blocks_go_back_where_shapes_are_many_and_small_ones_stay(of_many_shapes):
  done = subprocess.run([sys.executable, "-c", CODE, str(of_many_shapes)], capture_output=True, text=True, check=True)
  large, small = map(int, done.stdout.split())
  assert large < 20 if of_many_shapes else large > 380
  assert small > 180
