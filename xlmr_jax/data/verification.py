"""Whether the files of a row store are as its manifest says, found out beside the training, once per machine.

Opening a store counts its rows, but reads few of them. Two files of equal length that were swapped, or rows that were put
in another order, would be read without a word. Reading terabytes before the first step would take too long.
"""

import hashlib
import sys
import threading
import time
from pathlib import Path

from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import read_json, sha256_of, user_cache, write_json

MODES = ("once", "always", "off")


def record_path(store: RowStore) -> Path:
  """Where this machine keeps which files of a store it has found sound. RuntimeError: there is no home folder."""
  folder = store.cache.folder if store.cache else Path(str(store.root)).absolute()
  key = hashlib.sha256(f"{folder} {store.fingerprint}".encode()).hexdigest()[:16]
  return user_cache() / "verified" / f"{key}.json"


def _state_of(path: Path) -> list[int]:
  """What changes when a file is written to: its size in bytes, and the time of its last change in ns."""
  state = path.stat()
  return [state.st_size, state.st_mtime_ns]


def _read_record(store: RowStore) -> dict[str, list[int]]:
  try:
    record = read_json(record_path(store))
  except (OSError, ValueError, RuntimeError):
    return {}
  return record if isinstance(record, dict) else {}


class Verification:
  """Compares the files of a store's languages with their sha256 in the manifest, in a thread of its own.

  mode: "once" leaves out files that this machine has found sound and that have not changed since; "always" does not;
  "off" does nothing. part: (i, n) for the i-th of n hosts, which share the work, unless the mode is "always".
  Of a bucket's rows, those that an earlier start has brought to this machine are compared; others are when they come.
  """

  def __init__(self, store: RowStore, mode: str = "once", part: tuple[int, int] = (0, 1)):
    self._store, self._error = store, None
    self._stop = threading.Event()
    files = [name for name in sorted(store.manifest["files"]) if name.split("/")[1] in store.languages]
    if store.cache:
      folder, part = store.cache.folder, (0, 1)  # Each machine has copies of its own.
      files = [name for name in files if (folder / name).exists()]
    self._known = _read_record(store) if mode == "once" else {}
    self._files = files if mode == "always" else [] if mode == "off" else files[part[0] :: part[1]]
    self._thread = threading.Thread(target=self._run, daemon=True, name="verify rows")
    self._thread.start()

  def poll(self) -> None:
    """Raises UserError if a file was found to be another one than the manifest says."""
    if self._error:
      raise self._error

  def finish(self) -> None:
    """Waits until all files are verified; raises as poll() does."""
    self._thread.join()
    self.poll()

  def close(self) -> None:
    """Ends the work. What is verified by then stays so."""
    self._stop.set()
    self._thread.join()

  def _run(self) -> None:
    began = time.monotonic()
    try:
      checked = self._verify()
      if checked and not self._stop.is_set():
        seconds = time.monotonic() - began
        print(f"rows: {checked} files are as their manifest says (verified in {seconds:.0f} s)", flush=True)
    except UserError as error:
      self._error = error
    except OSError as error:
      self._error = UserError(
        f"{self._store.root}: cannot be verified ({one_line(error)}); see to the disk, or config.data.verify=off"
      )

  def _verify(self) -> int:
    found, checked = {}, 0
    for name in self._files:
      if self._stop.is_set():
        break
      path = self._store.local_file(name)
      state = _state_of(path)
      if self._known.get(name) != state:
        if sha256_of(path) != self._store.manifest["files"][name]:
          raise UserError(f"{path}: not the file that {self._store.root / 'manifest.json'} lists (its sha256 differs); copy "
                          "it again or rebuild the rows")  # fmt: skip
        checked += 1
      found[name] = state
    if checked:
      try:
        path = record_path(self._store)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _read_record(self._store) | found)
      except (OSError, RuntimeError) as error:
        print(
          f"rows: no record of what was verified ({one_line(error)}); the next start does it again",
          file=sys.stderr,
          flush=True,
        )
    return checked
