"""How much memory this process may still take, and how much it has taken. Linux tells; elsewhere the answers are None."""

import contextlib
import re
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available() -> int | None:
  """Bytes that this process can still take: what the machine has free, and what its control groups leave it.

  A container's limit is that of its control group or of one above it (version 2, or version 1 with a memory controller).
  """
  found = re.search(r"MemAvailable:\s+(\d+) kB", _read(_PROC / "meminfo"))
  free = [int(found[1]) << 10] if found else []
  for line in _read(_PROC / "self" / "cgroup").splitlines():
    _, controllers, path = line.split(":", 2)
    if controllers == "" or "memory" in controllers.split(","):
      root = _CGROUPS if controllers == "" else _CGROUPS / "memory"
      inside = root / path.lstrip("/")
      free += [
        left for group in (inside, *inside.parents) if group.is_relative_to(root) and (left := _left(group)) is not None
      ]
  return min(free, default=None)


def resident() -> int | None:
  """Bytes of memory that this process has now."""
  return _status("VmRSS")


def peak() -> int | None:
  """The most bytes of memory that this process ever had, or had since `forget_peak`."""
  return _status("VmHWM")


def forget_peak() -> None:
  """Lets `peak` begin anew, where the system can."""
  with contextlib.suppress(OSError):
    (_PROC / "self" / "clear_refs").write_text("5")


def _status(key: str) -> int | None:
  found = re.search(rf"{key}:\s+(\d+) kB", _read(_PROC / "self" / "status"))
  return int(found[1]) << 10 if found else None


def _left(group: Path) -> int | None:
  """What a control group's limit leaves, counting its cached files as free; None if it has no limit."""
  for limit, used, cached in (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
  ):
    most, now = _read(group / limit).strip(), _read(group / used).strip()
    if most.isdigit() and now.isdigit():
      found = re.search(rf"^{cached} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
      return max(0, int(most) - int(now) + (int(found[1]) if found else 0))
  return None


def _read(path: Path) -> str:
  try:
    return path.read_text()
  except OSError:
    return ""
