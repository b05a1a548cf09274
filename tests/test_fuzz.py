"""The short form of tests/fuzz: seeds, what was once a fault, and some mutations of both, for every target."""

import random
import subprocess
import sys
import zlib
from pathlib import Path

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


@pytest.mark.slow
def test_no_flag_ends_a_command_in_a_traceback():
  command = [sys.executable, "-m", "tests.fuzz.commands", "--lines=120", "--seed=7"]
  result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=1500)
  assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.parametrize(
  "config, message",
  [
    ("smoke:(", "the config takes no argument '('; it takes runlocal"),
    ("base:seed=x", "config.seed=x: not int"),
    ("FILE", "name 'nosuch' is not defined"),
    ("FILE2", "was never closed"),
  ],
)
def test_a_config_that_cannot_be_made_is_one_line(tmp_path, config, message):
  (tmp_path / "bad.py").write_text("def get_config(arg=''):\n  return nosuch\n")
  (tmp_path / "bad2.py").write_text("x = (\n")
  files = {"FILE2": str(tmp_path / "bad2.py"), "FILE": str(tmp_path / "bad.py")}
  for name, path in files.items():
    config, message = config.replace(name, path), message.replace(name, path)
  command = [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config={config}", f"--workdir={tmp_path / 'run'}"]
  result = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
  assert result.returncode == 1 and result.stderr.count("\n") == 1 and result.stderr.startswith("error: "), result.stderr
  assert message in result.stderr
