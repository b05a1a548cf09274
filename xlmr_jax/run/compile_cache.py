"""XLA's compilation cache: where it lies, and what a start took. It may be lost at any time, and never ends a run."""

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import time
import zlib
from pathlib import Path

import jax

SMALLEST_S = 0.5  # programs that compile faster are not worth a file
FORGET_S = 90 * 86400.0  # folders of workdirs that were not started in so long go
_SUFFIX = "-cache"  # JAX's own, of a program's file
_seen = {"compile_s": 0.0, "programs": 0, "from_cache": 0}
_BEGAN = time.monotonic()


def machine() -> str:
  """Names what a CPU's compiled program may rely on: one with other instructions would end in SIGILL."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    of_cpu = sorted({line for line in lines if line.split(":")[0].strip() in ("flags", "Features", "model name")})
  except OSError:
    of_cpu = [platform.processor()]
  return hashlib.sha256("\n".join([platform.machine(), *of_cpu]).encode()).hexdigest()[:16]


def default_folder(workdir: Path) -> Path:
  """One process: on this machine, a folder a workdir. Several: in the workdir, as JAX has the first write for all."""
  if jax.process_count() > 1:
    return workdir / "compiled" / machine()
  root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlmr_jax" / "compiled"
  return root / f"{hashlib.sha256(str(workdir.absolute()).encode()).hexdigest()[:16]}-{machine()}"


def use(value: str, workdir: Path) -> Path | None:
  """Sets the cache of config.compile_cache before the first compilation; the folder, or None where there is none.

  value: "" the default folder, unless JAX_COMPILATION_CACHE_DIR names another; "off"; or a folder. One that cannot be
  written is said and gone without.
  """
  if value == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  if not value and jax.config.jax_compilation_cache_dir:
    return Path(jax.config.jax_compilation_cache_dir)
  try:
    folder = Path(value).expanduser().absolute() / machine() if value else default_folder(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{os.getpid()}"
    probe.write_bytes(bytes(2**16))  # a full disk makes the file and fails here
    probe.unlink()
    os.utime(folder)
  except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
    print(f"no compilation cache: {error}; set config.compile_cache to another folder, or off", file=sys.stderr, flush=True)
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  _tidy(folder, siblings=not value and jax.process_count() == 1)
  jax.config.update("jax_enable_compilation_cache", True)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", SMALLEST_S)
  # XLA's own files beside JAX's would fail a compilation where the disk is full; JAX only warns.
  jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
  return folder


def _is_whole(path: Path) -> bool:
  """JAX does not write its files at once, nor again once they are there: one of a killed process would stay."""
  data = path.read_bytes()
  if data[:1] != b"\x78":  # not zlib's: written by a Python with zstandard
    return bool(data)
  try:
    return len(zlib.decompress(data)) > 0
  except zlib.error:
    return False


def _tidy(folder: Path, siblings: bool) -> None:
  """Removes what a killed process left half written, and the folders of workdirs long unused."""
  for path in folder.glob(f"*{_SUFFIX}"):
    with contextlib.suppress(OSError):
      if time.time() - path.stat().st_mtime > 60 and not _is_whole(path):  # not what another writes at this moment
        path.unlink()
  for other in folder.parent.iterdir() if siblings else ():
    with contextlib.suppress(OSError):
      if time.time() - other.stat().st_mtime > FORGET_S:
        shutil.rmtree(other, ignore_errors=True)


# --- what a start took ---------------------------------------------------------------------------------------------


def _on_duration(event: str, seconds: float, **_) -> None:
  if event == "/jax/core/compile/backend_compile_duration":  # XLA, or reading from the cache
    _seen["compile_s"] += seconds
    _seen["programs"] += 1


def _on_event(event: str, **_) -> None:
  if event == "/jax/compilation_cache/cache_hits":
    _seen["from_cache"] += 1


jax.monitoring.register_event_duration_secs_listener(_on_duration)
jax.monitoring.register_event_listener(_on_event)


def so_far() -> dict[str, float | int]:
  """{"compile_s", "programs", "from_cache"} of this process: seconds of compiling, programs, those that the cache had."""
  return {"compile_s": round(_seen["compile_s"], 3), "programs": _seen["programs"], "from_cache": _seen["from_cache"]}


def seconds_since_start() -> float:
  """Age of this process; where the system does not tell, since this module was imported."""
  try:
    started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - started
  except (OSError, ValueError, IndexError):
    return time.monotonic() - _BEGAN
