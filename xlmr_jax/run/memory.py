"""How this process gets memory from the system."""

import ctypes
import os
from pathlib import Path


def keep_freed_memory() -> None:
  """On a CPU, lets the allocator keep what a step frees; that halves the step time of a small model on 2 cores.

  XLA frees its temporaries at the end of every step. glibc's defaults give blocks that large back to the system, and
  the next step pays for every page of them again. Call it before JAX starts its backend. Elsewhere than on glibc, or
  where an accelerator holds the temporaries, it does nothing.
  """
  accelerator = any(Path(name).exists() for name in ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0"))
  if (accelerator and os.environ.get("JAX_PLATFORMS") != "cpu") or not hasattr(ctypes.CDLL(None), "mallopt"):
    return
  trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # names and numbers of glibc's malloc.h
  for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28), (arena_max, 1)):
    ctypes.CDLL(None).mallopt(option, value)
