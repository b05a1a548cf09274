"""Reads what this program reads, under an audit hook that reports all that is more than reading.

    python -m tests.audited FOLDER        # prints {"paths": {load path: [what it did]}, ...}, [] for a path that only read

TMPDIR must lie outside FOLDER's parent, in which nothing but FOLDER may change.
What is prepared before, and what libraries do when they are imported, is not reported: code that is installed is trusted.
"""

import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "pty.spawn")
_CHANGES = {  # event: which of its arguments are paths that change
  "os.remove": (0,), "os.rename": (0, 1), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (1,), "os.symlink": (1,),
  "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "shutil.rmtree": (0,), "shutil.move": (0, 1),
}  # fmt: skip


class Audit:
  """Collects what a load path does beside reading, while `watching`."""

  def __init__(self, data: Path, writable: tuple[Path, ...]):
    """data: the folder that others may have written, none of which may run. writable: where files may change."""
    self.data, self.writable = os.path.realpath(data), tuple(map(os.path.realpath, writable))
    self.found: list[str] | None = None
    sys.addaudithook(self._hook)

  @contextlib.contextmanager
  def watching(self) -> Iterator[list[str]]:
    """Yields the list that is filled while it is open."""
    found = self.found = []
    try:
      yield found
    finally:
      self.found = None

  def _hook(self, event: str, arguments: tuple) -> None:
    found = self.found
    if found is None:
      return
    self.found = None  # What the judgement itself does is not judged.
    try:
      if reason := self._judge(event, arguments):
        found.append(reason)
    finally:
      self.found = found

  def _judge(self, event: str, arguments: tuple) -> str:
    if event in _STARTS or event.startswith(("os.exec", "os.spawn", "ctypes.dlopen")):
      return "" if event == "ctypes.dlopen" and not self._is_data(arguments[0]) else f"{event} {str(arguments)[:200]}"
    if event in ("pickle.find_class", "marshal.loads", "shelve.open", "code.__new__"):
      return "" if _is_installed(_callers()) else f"{event} {str(arguments)[:200]}"
    if event in ("exec", "compile"):
      return self._judge_code(event, arguments)
    if event == "import":
      path = arguments[1]
      return f"import {arguments[0]} {path}" if path and self._is_data(path) else ""
    if event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
      host = str(arguments[1][0])
      return "" if host.startswith("127.") or host in ("::1", "localhost") else f"connects to {host}"
    if event == "socket.getaddrinfo":
      host = str(arguments[0])
      return "" if host in ("127.0.0.1", "::1", "localhost", "None", socket.gethostname()) else f"asks for {host}"
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and self._writes(arguments):
      return self._judge_change("open for writing", arguments[0])
    for index in _CHANGES.get(event, ()):
      if isinstance(arguments[index], str | bytes | os.PathLike) and (reason := self._judge_change(event, arguments[index])):
        return reason
    return ""

  def _judge_code(self, event: str, arguments: tuple) -> str:
    """A code object or a source from the data, or one that this program itself runs: it has no use for exec and eval."""
    name = getattr(arguments[0], "co_filename", None) or (arguments[1:2] and arguments[1]) or ""
    if isinstance(name, str | bytes) and self._is_data(name):
      return f"{event} of {name!r}"
    return f"{event} by {_callers()[0]}" if str(ROOT / "xlmr_jax") in _callers()[0] else ""

  @staticmethod
  def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
      return any(letter in mode for letter in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))

  def _judge_change(self, event: str, path: str | bytes | os.PathLike) -> str:
    name = os.fsdecode(path)
    if name == os.devnull:
      return ""
    # The folder counts: a link there is replaced, not followed, unless the file is opened.
    real = os.path.realpath(name if event.startswith("open") else os.path.dirname(os.path.abspath(name)))
    return "" if any(real == place or real.startswith(place + os.sep) for place in self.writable) else f"{event} {name}"

  def _is_data(self, path: object) -> bool:
    if not isinstance(path, str | bytes | os.PathLike) or os.fsdecode(path).startswith("<"):  # <string>, <frozen importlib>
      return False
    return os.path.realpath(os.fsdecode(path)).startswith(self.data + os.sep)


def _callers() -> list[str]:
  """The files of the frames above the hook, the innermost first."""
  frame, files = sys._getframe(), []
  while frame:
    if frame.f_code.co_filename != __file__:
      files.append(frame.f_code.co_filename)
    frame = frame.f_back
  return files or [""]


def _is_installed(files: list[str]) -> bool:
  """Whether a library reads a file of its own (py3langid its model), or Python a module, which _judge_code looks at."""
  inner = next((file for file in files if os.path.basename(file) != "pickle.py"), "")
  return inner.startswith("<frozen importlib") or f"{os.sep}py3langid{os.sep}" in inner


# --- the load paths ----------------------------------------------------------------------------------------------------


def prepare(root: Path) -> dict[str, Callable[[], object]]:
  """Makes what is read in `root`; returns {load path: a call that reads it}."""
  import numpy as np
  from ml_collections import ConfigDict

  from tests import hugging_face, tiny
  from tests.fuzz.targets import TARGETS, run_once
  from xlmr_jax.corpus.clean.build import Options, build_corpus
  from xlmr_jax.corpus.sources.registry import open_source
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.demo.text import documents
  from xlmr_jax.files import write_whole
  from xlmr_jax.open_model import open_model
  from xlmr_jax.run.workdir import RunRecord, Workdir, read_record

  rows, run, hf, work = root / "rows", root / "run", root / "hf", root / "clean"
  store = RowStore(tiny.make_store(rows, hugging_face.vocabulary()))
  config = tiny.config(str(rows), train_steps=8, log__tensorboard=True)
  record = RunRecord(config.to_dict(), store.vocabulary_size, store.manifest["tokenizer_sha256"], store.seq_len,
                     store.fingerprint, store.languages, str(rows))  # fmt: skip
  run.mkdir()
  record.write(Workdir(run))
  write_whole(run / "tokenizer.model", hugging_face.vocabulary())
  tiny.run(config, run, store, 6)  # It is stopped after the checkpoint of step 4.
  hugging_face.make_folder(hf, shards=2, auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
  lines = [{"text": "\n".join(text), "language": "de"} for text in documents("de", count=12)]
  (root / "crawl.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  plant_code(root, (rows, run, run / "checkpoints", hf, work / ".work", root))

  def resume() -> None:
    tiny.run(ConfigDict(read_record(Workdir(run)).config), run, RowStore(rows))

  def read_rows() -> None:
    RowStore(rows).read("train", np.zeros(4, np.int64), np.arange(4))

  def fuzz(name: str) -> Callable[[], object]:
    return lambda: [run_once(name, seed) for seed in TARGETS[name].seeds()]

  source = open_source(f"jsonl:{root / 'crawl.jsonl'}")
  return {
    "a Hugging Face folder": lambda: open_model(hf).encode(["the cat sees"]),
    "rows": read_rows,
    "a run to continue": resume,
    "a run": lambda: open_model(run).fill(["the <mask> sees"]),
    "a corpus": lambda: build_corpus(source, work, Options(near_duplicates=True), workers=1, quiet=True),
  } | {name: fuzz(name) for name in TARGETS}


def controls(root: Path) -> dict[str, Callable[[], object]]:
  """What the audit must notice, each of which a careless reader could do."""
  import importlib
  import pickle
  import subprocess

  def connect() -> None:
    # An address that RFC 5737 keeps for documents. Of this kind of socket, connecting sends nothing.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
      mine.connect(("192.0.2.1", 9))

  def import_from_data() -> None:
    sys.path.insert(0, str(root))
    importlib.import_module("evil")
    sys.path.remove(str(root))

  def link_outside() -> None:
    (root / "link").symlink_to(root.parent / "outside")
    (root / "link").write_text("x")

  return {
    "a pickle": lambda: pickle.loads(pickle.dumps(Path("x"))),
    "code of the data": lambda: exec(compile((root / "evil.py").read_text(), str(root / "evil.py"), "exec"), {}),
    "a module of the data": import_from_data,
    "a process": lambda: subprocess.run(["true"], check=False),
    "a shell": lambda: os.system("true"),
    "a connection": connect,
    "a file outside": lambda: (root.parent / "outside").write_text("x"),
    "a folder outside": lambda: (root.parent / "outside folder").mkdir(),
    "a file outside by a link": link_outside,
  }


def plant_code(root: Path, folders: tuple[Path, ...]) -> None:
  """Puts code that leaves a trace wherever a careless reader would look for it."""
  import pickle

  trace = root / "code ran"

  class Evil:
    def __reduce__(self):
      return os.system, (f"touch '{trace}'",)

  program = f"open({str(trace)!r}, 'w').close()\n"
  for folder in folders:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pytorch_model.bin", "shards.pickle", "parts.pickle", "filtered.pickle", "removed.pickle", "x.pkl"):
      (folder / name).write_bytes(pickle.dumps(Evil()))
    for name in ("evil.py", "modeling_xlmr.py", "tokenization_xlmr.py", "conftest.py", "setup.py", "sitecustomize.py"):
      (folder / name).write_text(program)


def main(root: Path) -> None:
  """Prints what each load path did, and what the controls did."""
  import jax  # noqa: F401

  paths = prepare(root)
  from xlmr_jax.errors import UserError
  from xlmr_jax.files import user_cache

  os.chdir(root)  # An installed command looks for modules in the current folder too.
  cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
  writable = (root, Path(tempfile.gettempdir()), user_cache(), cache, Path("/dev/shm"))
  audit, found = Audit(root, writable), {}
  for group, calls in (("paths", paths), ("controls", controls(root))):
    for name, call in calls.items():
      with audit.watching() as events:
        try:
          call()
        except UserError as error:
          events.append(f"refused: {error}")
      found.setdefault(group, {})[name] = events
    found.setdefault("code ran", []).append((root / "code ran").exists())  # after the paths, and after the controls
  print(json.dumps(found))


if __name__ == "__main__":
  main(Path(sys.argv[1]))
