"""The compilation cache: found again by a second start, which computes the same bits; never the end of a run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from tests import tiny
from tests.test_train import assert_same_run
from xlmr_jax.config_checks import check_config
from xlmr_jax.errors import UserError
from xlmr_jax.run import compile_cache
from xlmr_jax.run.workdir import MAY_CHANGE

ROOT = Path(__file__).parents[1]
OPTIONS = (
  "jax_enable_compilation_cache",
  "jax_compilation_cache_dir",
  "jax_persistent_cache_min_compile_time_secs",
  "jax_persistent_cache_enable_xla_caches",
)


@pytest.fixture
def options():
  """Puts JAX's settings back after the test."""
  before = {name: getattr(jax.config, name) for name in OPTIONS}
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.slow
def test_a_second_start_compiles_less_and_computes_the_same_bits(tiny_rows, tmp_path):
  """In the default folder. Parameters, moments and logs after 5 steps, compiled anew and out of the cache."""
  env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
  env |= {"XDG_CACHE_HOME": str(tmp_path / "home"), "XLA_FLAGS": ""}
  workdir, first = tmp_path / "run", []
  for times in range(2):
    out = subprocess.run(
      [
        sys.executable,
        "-m",
        "xlmr_jax",
        "pretrain",
        f"--config=tests/tiny.py:{tiny_rows}",
        f"--workdir={workdir}",
        "--config.train_steps=5",
        "--config.model.dropout=0.1",
        "--config.model.dtype=bfloat16",
      ],
      cwd=ROOT,
      env=env,
      capture_output=True,
      text=True,
      timeout=300,
    )
    assert out.returncode == 0 and "first step after" in out.stdout, out.stderr[-2000:]
    assert "Machine type" not in out.stderr  # XLA's word for a program of another CPU
    first.append(json.loads((workdir / "timing.jsonl").read_text().splitlines()[0]))
    workdir.rename(tmp_path / f"run{times}")  # and the same again, under the same name
  assert first[0]["from_cache"] == 0 < first[1]["from_cache"] and first[0]["step"] == 0
  assert first[1]["compile_s"] < first[0]["compile_s"] / 2 and first[1]["first_step_s"] < first[0]["first_step_s"]
  (folder,) = (tmp_path / "home" / "xlmr_jax" / "compiled").iterdir()
  assert folder.name.endswith(compile_cache.machine()) and any("train_step" in path.name for path in folder.iterdir())
  assert_same_run(tmp_path / "run0", tmp_path / "run1", 5)


def test_a_folder_that_cannot_be_written_only_warns(options, tmp_path, capsys, monkeypatch):
  (tmp_path / "file").write_text("")
  assert compile_cache.use(str(tmp_path / "file"), tmp_path) is None
  said = capsys.readouterr().err
  assert said.startswith("no compilation cache: ") and "config.compile_cache" in said and said.count("\n") == 1
  assert not jax.config.jax_enable_compilation_cache
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert compile_cache.use("", tmp_path) is None

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Path, "write_bytes", full)
  assert compile_cache.use(str(tmp_path / "new"), tmp_path) is None and "No space left" in capsys.readouterr().err


def test_which_folder(options, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  one, other = compile_cache.use("", tmp_path / "a"), compile_cache.default_folder(tmp_path / "b")
  assert one != other and one.parent == other.parent == tmp_path / "home" / "xlmr_jax" / "compiled" and one.is_dir()
  assert jax.config.jax_compilation_cache_dir == str(one)
  assert compile_cache.use("", tmp_path / "b") == one  # as with JAX_COMPILATION_CACHE_DIR: what is set, stays
  assert compile_cache.use(str(tmp_path / "own"), tmp_path) == tmp_path / "own" / compile_cache.machine()
  monkeypatch.setattr(jax, "process_count", lambda: 2)  # JAX has process 0 write for all: they must see it
  assert compile_cache.default_folder(tmp_path / "a").parent == tmp_path / "a" / "compiled"
  assert compile_cache.use("off", tmp_path) is None and not jax.config.jax_enable_compilation_cache


def test_what_a_killed_process_left_goes_and_so_do_folders_long_unused(options, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = compile_cache.default_folder(tmp_path / "run")
  program, old = os.urandom(5000), folder.parent / "old-machine"
  folder.mkdir(parents=True)
  for name in ("whole", "flipped", "half", "being_written"):
    path = folder / f"{name}-cache"
    path.write_bytes(program)
    os.utime(path, (time.time() - 120,) * 2)
    if name in ("whole", "flipped"):
      compile_cache.seal(folder)
  (folder / "flipped-cache").write_bytes(program[:-1] + bytes([program[-1] ^ 1]))
  os.utime(folder / "being_written-cache")
  (old / "x").mkdir(parents=True)
  os.utime(old, (time.time() - compile_cache.FORGET_S - 60,) * 2)
  compile_cache.use("", tmp_path / "run")
  assert sorted(path.name for path in folder.iterdir()) == ["being_written-cache", "whole-cache", "whole-cache.sha256"]
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_programs_are_shared_with_their_seals_and_damaged_ones_are_replaced(tmp_path, monkeypatch):
  """A folder stands for the bucket."""
  folders = here, shared, there = [tmp_path / name for name in ("here", "shared", "there")]
  for folder in folders:
    folder.mkdir()
  (here / "x-cache").write_bytes(b"program")
  (shared / "alone-cache").write_bytes(b"without a seal")
  os.utime(here / "x-cache", (1, 1))
  write, failing = compile_cache.write_whole, [True]

  def write_whole(path, content):
    if path.name == "x-cache" and failing:
      failing.pop()
      raise OSError("a store that fails once")
    write(path, content)

  monkeypatch.setattr(compile_cache, "write_whole", write_whole)
  for _ in range(2):
    compile_cache.seal(here, shared=shared)
  compile_cache.bring(shared, there)
  assert {path.name for path in there.iterdir()} == {"x-cache", "x-cache.sha256"}
  (shared / "x-cache").write_bytes(b"damaged")
  for path in there.iterdir():
    path.unlink()
  compile_cache.bring(shared, there)
  compile_cache._remove_broken(there)
  assert not list(there.iterdir())
  (there / "x-cache").write_bytes(b"program")  # It is compiled anew.
  os.utime(there / "x-cache", (1, 1))
  compile_cache.seal(there, shared=shared)
  assert (shared / "x-cache").read_bytes() == b"program"


def test_it_may_change_in_a_run_and_is_no_address():
  assert "compile_cache" in MAY_CHANGE
  with pytest.raises(UserError, match=r"config\.compile_cache='gs://bucket'"):
    check_config(tiny.config("rows", compile_cache="gs://bucket"))
