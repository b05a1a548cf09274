"""Paths that flags take: buckets, ~, files in the way, links to nothing, what cannot be written, disks that are full."""

import contextlib
import errno
import importlib
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
from absl import app

from tests import tiny
from xlmr_jax import errors, files, folders
from xlmr_jax.commands.flags import FLAGS, override_config
from xlmr_jax.corpus import build, vocabulary
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.errors import UserError

TEXT = "".join(f"word{i % 97} of paragraph {i}\n\n" for i in range(400)).encode()


@pytest.fixture
def command(monkeypatch, capsys):
  """Runs a command in this process: (exit code, stdout, stderr)."""

  def run(name, *arguments):
    before, is_gnu, stderr = set(FLAGS), FLAGS.is_gnu_getopt(), sys.stderr
    monkeypatch.setattr(sys, "argv", [f"xlmr {name}", *map(str, arguments)])
    capsys.readouterr()
    try:
      importlib.import_module(f"xlmr_jax.commands.{name}").run()
      raise AssertionError("a command ends with an exit code")
    except SystemExit as end:
      code = end.code
    finally:
      sys.stderr = stderr
      for flag in set(FLAGS) - before:
        delattr(FLAGS, flag)
      FLAGS.unparse_flags()
      FLAGS.set_gnu_getopt(is_gnu)
    return code, *capsys.readouterr()

  return run


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  """A folder of text, and beside it a vocabulary."""
  root = tmp_path_factory.mktemp("paths")
  (root / "text").mkdir()
  (root / "text" / "en.txt").write_bytes(TEXT)
  vocabulary.train_vocabulary(CC100(root / "text"), root / "v.model", size=100)
  return root


def _good(command_name, root):
  """Flags of a command, all with paths that are none of a bucket."""
  run = f"--workdir={root / 'run'}"
  tiny_config = "--config=smoke"
  return {
    "train_vocabulary": [f"--text={root / 'text'}", f"--out={root / 'new.model'}", "--size=100"],
    "build_rows": [f"--text={root / 'text'}", f"--tokenizer={root / 'v.model'}", f"--out={root / 'rows'}"],
    "build_rows-parallel": [f"--tokenizer={root / 'v.model'}", f"--out={root / 'rows'}"],
    "pretrain": [run, tiny_config],
    "evaluate": [run, "--checkpoint=best"],
    "score": [run, f"--rows={root / 'rows'}"],
    "fill_mask": [run],
    "report": [run],
    "sweep": ["--config=sweeps/alpha:tiny", run],
    "report-corpus": [],
    "report-scores": [],
    "demo": [],
    "convert": ["from-hf", f"--source={root}", run],
    "to-hf": ["to-hf", f"--out={root / 'hf'}", run],
  }[command_name]


COMMAND = {"to-hf": "convert", "report-corpus": "report", "report-scores": "report", "build_rows-parallel": "build_rows"}
PATHS = [
  ("pretrain", "branch"), ("sweep", "workdir"), ("sweep", "rows"), ("sweep", "text"),
  ("train_vocabulary", "text"), ("train_vocabulary", "out"), ("build_rows", "text"), ("build_rows", "tokenizer"),
  ("build_rows", "out"), ("pretrain", "workdir"), ("pretrain", "config.data.rows"),
  ("pretrain", "config.compile_cache"), ("pretrain", "config.evaluate.folder"), ("evaluate", "workdir"),
  ("evaluate", "out"), ("score", "workdir"), ("score", "rows"), ("score", "out"), ("fill_mask", "workdir"),
  ("report", "workdir"), ("report", "rows"), ("report-corpus", "corpus"), ("demo", "workdir"), ("demo", "text"),
  ("convert", "source"), ("convert", "workdir"), ("to-hf", "out"), ("to-hf", "workdir"),
  ("build_rows-parallel", "parallel"), ("demo", "parallel"),
  ("report-scores", "scores"),
]  # fmt: skip


@pytest.mark.parametrize("name, flag", PATHS)
def test_other_schemes_are_refused_by_every_flag_of_every_command(command, text, tmp_path, monkeypatch, name, flag):
  monkeypatch.chdir(tmp_path)
  for path in ("hdfs://bucket/a", "az://bucket/a", "file:///a"):
    code, out, said = command(COMMAND.get(name, name), *_good(name, text), f"--{flag}={path}")
    assert (code, out, said.count("\n")) == (1, "", 1), said
    assert said.startswith(f"error: --{flag}={path}: must be a path of this machine"), said
  assert list(tmp_path.iterdir()) == [] and not (text / "run").exists()


def test_every_flag_that_is_a_path_is_in_the_list(command):
  """A flag's help says "folder", "file", "rows" or "vocabulary" where the flag takes a path."""
  listed = {}
  for name, flag in PATHS:
    listed.setdefault(COMMAND.get(name, name), set()).add(flag)
  for name, flags in listed.items():
    lines = command_help(name)
    takes = {flag for flag, help_text in lines.items() if any(word in help_text for word in ("folder", "file", "rows, "))}
    assert takes - {"config", "checkpoint", "shard_mb", "task", "pictures"} <= flags, (name, takes)


def command_help(name):
  """{flag: help} of a command."""
  before, is_gnu = set(FLAGS), FLAGS.is_gnu_getopt()
  module = importlib.import_module(f"xlmr_jax.commands.{name}")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(app, "run", lambda *_, **__: None)
    patch.setattr(sys, "argv", ["xlmr"])
    module.run()
  found = {flag: FLAGS[flag].help for flag in set(FLAGS) - before}
  for flag in found:
    delattr(FLAGS, flag)
  FLAGS.set_gnu_getopt(is_gnu)
  return found


def test_config_values_that_are_paths(monkeypatch):
  stored = tiny.config("rows").to_dict()
  monkeypatch.setenv("HOME", "/home/somebody")
  changed = override_config(stored, ["--config.evaluate.folder=~/tasks", "--config.evaluate.data=a=~/x,b=tfds,c=y/z"])
  assert changed.evaluate.folder == "/home/somebody/tasks" and changed.evaluate.data == "a=/home/somebody/x,b=tfds,c=y/z"
  with pytest.raises(UserError, match=r"--config\.evaluate\.data=hdfs://b/x: must be a path"):
    override_config(stored, ["--config.evaluate.data=a=x,b=hdfs://b/x"])


def test_home_is_expanded(command, text, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(text))
  code, _, said = command("train_vocabulary", "--text=~/text", "--out=~/other.model", "--size=100")
  assert code == 0, said
  assert (text / "other.model").is_file() and list(tmp_path.iterdir()) == []
  (text / "mine.py").write_text(
    "from xlmr_jax.config import default_config\n\n\ndef get_config():\n  return default_config()\n"
  )
  code, _, said = command("pretrain", "--config=~/mine.py", "--workdir=~/run", "--config.data.rows=~/none")
  assert (code, said) == (1, f"error: {text / 'none' / 'manifest.json'}: no manifest: no such folder\n")
  code, _, said = command("pretrain", "--config=smoke", "--workdir=~nobody-of-this-name/run")
  assert code == 1 and said.startswith("error: --workdir=~nobody-of-this-name/run: Could not determine home")
  code, _, said = command("build_rows", f"--text={text / 'text'}", f"--tokenizer={text / 'v.model'}", "--out=")
  assert code == 1 and said == "error: --out= is empty; name a path\n"


MAKES = [
  ("train_vocabulary", "out"), ("build_rows", "out"), ("pretrain", "workdir"), ("evaluate", "workdir"),
  ("evaluate", "out"), ("score", "out"), ("demo", "workdir"), ("demo", "text"), ("convert", "workdir"), ("demo", "parallel"),
  ("to-hf", "out"), ("report", "workdir"),
]  # fmt: skip


@pytest.mark.parametrize("name, flag", MAKES)
def test_where_nothing_can_be_made_is_said_before_any_work(command, text, tmp_path, monkeypatch, name, flag):
  (tmp_path / "file").write_text("mine")
  (tmp_path / "link").symlink_to("nothing")
  (tmp_path / "folder").mkdir()
  is_file = (name, flag) in (("train_vocabulary", "out"), ("evaluate", "out"), ("score", "out"))
  wrong = [(path, what) for path, what in (
    ("file/x/run" if not is_file else "file/run", "is a file, so that nothing can lie below it"),
    ("link", "is a link to nothing"), ("link/run", "is a link to nothing"),
    *([("none/run", "there is no folder")] if is_file else [("file", "is no folder|exists")]),
    *([("folder", "is no file|exists")] if is_file else []),
  )]  # fmt: skip
  refused = lambda path: command(name.replace("to-hf", "convert"), *_good(name, text), f"--{flag}={tmp_path / path}")  # noqa: E731
  for path, what in wrong:
    code, out, said = refused(path)
    assert (code, out, said.count("\n")) == (1, "", 1) and said.startswith("error: "), said
    assert str(tmp_path / path) in said and any(part in said for part in what.split("|")), said
  if (name, flag) != ("evaluate", "workdir"):
    with monkeypatch.context() as patch:
      patch.setattr(os, "access", lambda *_: False)
      code, _, said = refused("new")
      assert code == 1 and said.count("\n") == 1 and f"{tmp_path} cannot be written" in said
    with monkeypatch.context() as patch:
      patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
      code, _, said = refused("new")
      assert code == 1 and said.count("\n") == 1 and f"no space left on the disk of {tmp_path}" in said
  assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
  assert (tmp_path / "file").read_text() == "mine" and not any((tmp_path / "folder").iterdir())


# ---- disks that are full --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_of_at_most(size):
  """While it is open, a write beyond `size` bytes of any file fails as one to a full disk does."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage, room", [("build_rows", 3000), ("_run_here", 0), ("_run_here", 1000), ("finish_store", 100)])
def test_rows_on_a_full_disk(text, tmp_path, monkeypatch, stage, room):
  work = getattr(build, stage)

  def limited(*args, **options):
    with files_of_at_most(room):
      return work(*args, **options)

  monkeypatch.setattr(build, stage, limited)
  with pytest.raises((UserError, OSError)) as error:
    build.build_rows(CC100(text / "text"), text / "v.model", tmp_path / "a" / "rows", seq_len=512, workers=1)
  said = errors.told(error.value)
  assert "File too large" in said and str(tmp_path / "a") in said and "\n" not in said
  assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_and_a_demo_text_on_a_full_disk(command, text, tmp_path):
  with files_of_at_most(1000):
    code, out, said = command("train_vocabulary", f"--text={text / 'text'}", f"--out={tmp_path / 'new.model'}", "--size=100")
  assert (code, out) == (1, "") and said.splitlines()[-1] == f"error: {tmp_path / 'new.model'}: File too large"
  with files_of_at_most(1000):
    code, out, said = command("demo", f"--text={tmp_path / 'demo'}", "--scale=0.01")
  assert (code, out) == (1, "") and said.startswith(f"error: {tmp_path / 'demo'}/") and said.count("\n") == 1
  assert list(tmp_path.rglob("*.tmp")) == [] and not (tmp_path / "new.model").exists()


@pytest.mark.parametrize("before", [None, "whole"])
def test_whole_files_and_folders_on_a_full_disk(tmp_path, before):
  path = tmp_path / "scores.json"
  if before:
    path.write_text(before)
  with files_of_at_most(1000), pytest.raises(OSError) as error:
    files.write_json(path, {"scores": list(range(10_000))})
  assert errors.told(error.value) == f"{path}: File too large"
  with files_of_at_most(1000), pytest.raises(OSError) as error, folders.whole_folder(tmp_path / "hf") as folder:
    (folder / "weights").write_bytes(bytes(2000))
  assert errors.told(error.value) == f"{tmp_path / 'hf'}: File too large"
  assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"scores.json": before} if before else {})


def test_pictures_and_scores_of_a_run_on_a_full_disk(command, tiny_run, tiny_rows, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(tiny_run, run)
  with files_of_at_most(10_000):
    code, out, said = command("report", f"--workdir={run}")
  assert (code, out) == (1, "") and said.splitlines()[-1] == f"error: {run / 'run.html'}: File too large"
  shutil.copytree(run, tmp_path / "without")
  (tmp_path / "without" / "config.json").unlink()  # Without its record there are pictures alone.
  with files_of_at_most(10_000):
    code, out, said = command("report", f"--workdir={tmp_path / 'without'}")
  assert (code, out) == (1, "")
  assert said.splitlines()[-1] == f"error: {tmp_path / 'without' / 'held_out.png'}: File too large"
  shutil.rmtree(tmp_path / "without")
  assert not [path for path in run.iterdir() if path.suffix in (".png", ".tmp")]
  code, out, said = command("report", f"--workdir={run}")
  assert code == 0 and (run / "held_out.png").read_bytes()[:4] == b"\x89PNG", said
  with files_of_at_most(20):
    code, out, said = command(
      "score", f"--workdir={run}", f"--rows={tiny_rows}", f"--out={tmp_path / 's.json'}", "--passes=1"
    )
  assert (code, out) == (1, "") and said.splitlines()[-1] == f"error: {tmp_path / 's.json'}: File too large"
  assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
  "error, line",
  [
    (OSError(errno.ENOSPC, "No space left on device"), "a file cannot be written: No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: Permission denied"),
    (OSError(errno.EIO, "Input/output error", Path("/a/b")), "/a/b: Input/output error"),
    (OSError(errno.ENOSPC, "No space left on device", "/a", None, "/b"), "/a -> /b: No space left on device"),
    (UserError("two\nlines"), "two lines"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), ""),
    (ValueError("a bug"), ""),
  ],
)
def test_what_a_file_system_refuses_is_one_line(error, line, capsys):
  def fail():
    raise error

  with pytest.raises(SystemExit) as end:
    errors.run_command(fail)()
  said = capsys.readouterr().err
  assert end.value.code == (errors.EXIT_USER if line else errors.EXIT_CRASH)
  assert said == f"error: {line}\n" if line else "Traceback" in said


def test_a_result_that_cannot_be_printed_is_no_success(tmp_path):
  """In a process of its own, because Python tries once more at its end."""
  import subprocess

  run = "import json; from xlmr_jax.errors import run_command; run_command(lambda: print(json.dumps({'a': 1})))()"
  with open("/dev/full", "w") as full:
    done = subprocess.run([sys.executable, "-c", run], stdout=full, stderr=subprocess.PIPE, text=True)
  assert done.returncode == 1 and done.stderr == "error: a file cannot be written: No space left on device\n"
  assert json.loads(subprocess.run([sys.executable, "-c", run], capture_output=True).stdout) == {"a": 1}


def test_a_line_is_the_last_that_is_said():
  """What libraries say at their ends, about files that cannot be closed for example, follows from what was told."""
  import subprocess

  run = (
    "import atexit, threading, time\n"
    "from xlmr_jax.errors import UserError, run_command\n"
    "def fail():\n"
    "  raise OSError(28, 'No space left on device')\n"
    "def main():\n"
    "  atexit.register(fail)\n"
    "  threading.Thread(target=lambda: (time.sleep(0.2), fail())).start()\n"
    "  fail()\n"
    "run_command(main)()"
  )
  done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (1, "error: a file cannot be written: No space left on device\n")
