"""XLA's compilation cache: where it lies, and how long a start took. Deleting it is safe; a broken one never stops a run."""

import atexit
import contextlib
import functools
import hashlib
import os
import platform
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax

from xlmr_jax import bucket
from xlmr_jax.errors import StoreError, one_line
from xlmr_jax.files import AnyPath, absolute, in_parallel, read_bytes, sha256_of, user_cache, whole_file, write_whole
from xlmr_jax.folders import entries
from xlmr_jax.hardware import refuse_missing_platform

WRITTEN_S = 5.0  # JAX has written a program whose file has not changed for so long.
SMALLEST_S = 0.5  # Programs that compile faster are not worth a file.
FORGET_S = 90 * 86400.0  # Folders of workdirs that no run has started in for so long are removed.
_seen = {"compile_s": 0.0, "main_thread_s": 0.0, "programs": 0, "from_cache": 0}
_IMPORTED_AT = time.monotonic()


def machine() -> str:
  """Names what a CPU's compiled program may rely on: one made for other instructions would end in SIGILL."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = sorted({line for line in lines if line.split(":")[0].strip() in ("flags", "Features", "model name")})
  except OSError:
    cpu = [platform.processor()]
  return hashlib.sha256("\n".join([platform.machine(), *cpu]).encode()).hexdigest()[:16]


def default_folder(workdir: AnyPath) -> Path:
  """For one process, a folder on this machine per workdir. For several, one in the workdir: process 0 writes for all.

  JAX reads a folder of this machine only, so a workdir in a bucket has one on each; use() fills it from the bucket.
  """
  if isinstance(workdir, Path) and jax.process_count() > 1:
    return workdir / "compiled" / machine()
  return user_cache() / "compiled" / f"{hashlib.sha256(str(absolute(workdir)).encode()).hexdigest()[:16]}-{machine()}"


def use(value: str, workdir: AnyPath) -> Path | None:
  """Switches the cache of config.compile_cache on, before the first compilation. Returns its folder, None without one.

  value: "" for the default folder, unless JAX_COMPILATION_CACHE_DIR names another; "off"; or a folder. If the folder
  cannot be written, a warning says so and the run goes on without a cache. UserError: there is no device to compile for.
  """
  refuse_missing_platform()
  if value == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  if not value and (given := getattr(jax.config, "jax_compilation_cache_dir", None)):
    return Path(given)
  try:
    folder = Path(value).expanduser().absolute() / machine() if value else default_folder(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{os.getpid()}"
    probe.write_bytes(bytes(2**16))  # A full disk can make the file, and fails here.
    probe.unlink()
    os.utime(folder)
  except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder.
    print(
      f"no compilation cache: {one_line(error)}; set config.compile_cache to another folder, or off",
      file=sys.stderr,
      flush=True,
    )
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  shared = None if value or isinstance(workdir, Path) or jax.process_count() == 1 else workdir / "compiled" / machine()
  if shared is not None:
    bring(shared, folder)
  _remove_broken(folder)
  if jax.process_index() == 0:  # JAX has it write for all.
    threading.Thread(target=_seal_again_and_again, args=(folder, shared), daemon=True, name="seal programs").start()
    atexit.register(seal, folder, 0.0, shared)
  if not value and jax.process_count() == 1:
    _remove_forgotten(folder.parent)
  jax.config.update("jax_enable_compilation_cache", True)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", SMALLEST_S)
  # XLA would write files of its own beside JAX's, and a full disk would then fail a compilation. JAX only warns.
  jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
  return folder


def _seal_of(path: Any) -> Any:
  return path.with_name(f"{path.name}.sha256")


def _copy(source: AnyPath, target: Path) -> None:
  with whole_file(target, many_writers=True) as unfinished:  # Several processes of this machine may have one folder.
    unfinished.write_bytes(read_bytes(source))


def bring(shared: AnyPath, folder: Path) -> None:
  """Copies the programs of a bucket that this machine has not. What cannot be had is compiled."""
  try:
    there = entries(shared)
    is_whole = (name.endswith("-cache") and f"{name}.sha256" in there for name in there)
    names = [name for name, whole in zip(there, is_whole) if whole and not (folder / name).exists()]
    in_parallel(lambda name: _copy(shared / name, folder / name), names)
    in_parallel(lambda name: _copy(_seal_of(shared / name), _seal_of(folder / name)), names)
  except (OSError, StoreError) as error:
    print(f"compiled programs cannot be had from {shared}: {one_line(error)}", file=sys.stderr, flush=True)


def seal(folder: Path, untouched_s: float = WRITTEN_S, shared: AnyPath | None = None) -> None:
  """Writes the sha256 of each program beside it, once nobody has written to it for some seconds.

  shared: the folder in a bucket that it is copied to then, for the other hosts' next start.
  """
  for path in folder.glob("*-cache"):  # JAX's name for a program's file
    with contextlib.suppress(OSError, StoreError):
      if not _seal_of(path).exists() and time.time() - path.stat().st_mtime > untouched_s:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(sha256_of(path))
        temporary.replace(_seal_of(path))
        if shared is not None:  # The one there may be damaged, and this one be made in its place.
          _in_bucket(shared).discard(path.name)
  if shared is not None:
    _share(folder, shared)


def _share(folder: Path, shared: AnyPath) -> None:
  """Copies the sealed programs that a bucket does not have. What fails is tried again the next time."""
  for path in folder.glob("*-cache"):
    with contextlib.suppress(OSError, StoreError):
      if _seal_of(path).exists() and not bucket.has_given_up() and path.name not in _in_bucket(shared):
        write_whole(_seal_of(shared / path.name), _seal_of(path).read_bytes())  # first: a program without it is not read
        write_whole(shared / path.name, path.read_bytes())
        _in_bucket(shared).add(path.name)


@functools.cache
def _in_bucket(shared: AnyPath) -> set[str]:
  """The programs that a bucket has with their seals, as this process knows it."""
  there = entries(shared)
  return {name for name in there if f"{name}.sha256" in there}


def _seal_again_and_again(folder: Path, shared: AnyPath | None) -> None:
  """Runs beside the process that compiles, until it ends."""
  while True:
    time.sleep(WRITTEN_S)
    seal(folder, shared=shared)


def _remove_broken(folder: Path) -> None:
  """Removes the programs that are not as they were sealed, and those that a killed process left without a seal.

  JAX reads what lies there as it is, and a program with a flipped bit ends the process with a signal. What another process
  may be writing at this moment stays.
  """
  for path in folder.glob("*-cache"):
    with contextlib.suppress(OSError):
      sealed = _seal_of(path)
      if sealed.exists():
        is_sound = sealed.read_text() == sha256_of(path)
      else:
        is_sound = time.time() - path.stat().st_mtime <= 60
      if not is_sound:
        path.unlink()
        sealed.unlink(missing_ok=True)


def _remove_forgotten(root: Path) -> None:
  """Removes the folders of workdirs that have not been used for long."""
  for folder in root.iterdir():
    with contextlib.suppress(OSError):
      if time.time() - folder.stat().st_mtime > FORGET_S:
        shutil.rmtree(folder, ignore_errors=True)


# --- how long a start took -----------------------------------------------------------------------------------------


def _on_duration(event: str, duration_secs: float, **_: Any) -> None:
  if event == "/jax/core/compile/backend_compile_duration":  # the time in XLA, or of reading from the cache
    _seen["compile_s"] += duration_secs
    if threading.current_thread() is threading.main_thread():
      _seen["main_thread_s"] += duration_secs
    _seen["programs"] += 1


def _on_event(event: str, **_: Any) -> None:
  if event == "/jax/compilation_cache/cache_hits":
    _seen["from_cache"] += 1


jax.monitoring.register_event_duration_secs_listener(_on_duration)
jax.monitoring.register_event_listener(_on_event)


def so_far() -> dict[str, float | int]:
  """{"compile_s", "main_thread_s", "programs", "from_cache"} of this process so far.

  Seconds of compiling in all threads together and in the main thread, programs, and how many of them the cache had.
  """
  return {name: round(value, 3) for name, value in _seen.items()}


def seconds_since_start() -> float:
  """The age of this process; where the system does not tell it, the time since this module was imported."""
  try:
    started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - started
  except (OSError, ValueError, IndexError):
    return time.monotonic() - _IMPORTED_AT
