"""Runs of real processes: kill -9 at any time, SIGTERM to one of two, and the same run on 1, 2 and 4 processes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.test_train import assert_same_run
from xlmr_jax.errors import UserError
from xlmr_jax.files import write_json
from xlmr_jax.run import hosts
from xlmr_jax.run.workdir import Workdir

ROOT = Path(__file__).parents[1]
STEPS = 150


def flags_for(rows, workdir):
  return [
    f"--config=tests/tiny.py:{rows}",
    f"--workdir={workdir}",
    f"--config.train_steps={STEPS}",
    "--config.checkpoint.every_steps=5",
    "--config.held_out.every_steps=50",
    "--config.log.every_steps=2",
    "--config.model.dropout=0.1",
  ]


def environment(devices=1):
  return os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHON": sys.executable}


def start(processes, rows, workdir, *more, pids=None):
  """A run of so many processes; one process does without jax.distributed."""
  flags = [*flags_for(rows, workdir), *more]
  line = (
    ["launch/local.sh", str(processes), *flags] if processes > 1 else [sys.executable, "-m", "xlmr_jax", "pretrain", *flags]
  )
  return subprocess.Popen(
    line,
    cwd=ROOT,
    env=environment() | ({"PIDS_FILE": str(pids)} if pids else {}),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process, code=0):
  output = process.communicate(timeout=1200)[0]  # where other work takes the cores, a start takes minutes
  assert process.returncode == code, output[-3000:]
  return output


def logged(workdir) -> int:
  """The newest step in train.jsonl, 0 without one."""
  path = Workdir(workdir).train_log
  lines = path.read_text().splitlines() if path.exists() else []
  return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def wait_until(condition, process):
  """Waits until condition() holds; fails if the run ends before."""
  while not condition():
    assert process.poll() is None, process.communicate()[0][-3000:]
    time.sleep(0.002)


def losses(workdir):
  return [json.loads(line) for line in Workdir(workdir).train_log.read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tiny_rows, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("one_process")
  finish(start(1, tiny_rows, workdir))
  return workdir


@pytest.mark.slow
def test_killed_at_random_and_restarted_is_bit_equal(unbroken, tiny_rows, tmp_path):
  """kill -9 at random moments, some of them during a save, then the same command, until it is done."""
  rng = random.Random(0)

  def is_saving():
    return list(tmp_path.glob("checkpoints/*tmp*"))  # Orbax's name for a save under way

  for kill in range(6):
    before = logged(tmp_path)
    process = start(1, tiny_rows, tmp_path)
    wait_until(lambda: logged(tmp_path) >= before + 8, process)  # noqa: B023
    if kill % 2:
      wait_until(is_saving, process)
    else:
      time.sleep(rng.random() * 0.1)
    assert process.poll() is None
    process.kill()
    process.communicate()
  finish(start(1, tiny_rows, tmp_path))
  assert_same_run(unbroken, tmp_path, STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_do_not_change_the_run(unbroken, tiny_rows, tmp_path, processes):
  finish(start(processes, tiny_rows, tmp_path))
  for a, b in zip(losses(unbroken), losses(tmp_path), strict=True):
    assert a["step"] == b["step"] and a["masked_tokens"] == b["masked_tokens"]
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-5)
    for name, of in a["languages"].items():
      assert b["languages"][name]["rows"] == of["rows"]
      if of["loss"] is not None:
        np.testing.assert_allclose(b["languages"][name]["loss"], of["loss"], rtol=1e-4)


@pytest.mark.slow
def test_term_to_one_of_two_stops_both_at_one_step_and_one_process_goes_on(unbroken, tiny_rows, tmp_path):
  pids = tmp_path / "pids"
  process = start(2, tiny_rows, tmp_path / "run", "--config.checkpoint.every_steps=1000", pids=pids)
  wait_until(lambda: logged(tmp_path / "run") >= 6, process)
  os.kill(int(pids.read_text().split()[1]), signal.SIGTERM)
  output = finish(process, 42)
  said = dict(re.findall(r"^\[(\d)\] stopped by a signal: step (\d+) is saved", output, re.MULTILINE))
  assert set(said) == {"0", "1"} and len(set(said.values())) == 1, output[-2000:]
  assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [said["0"]]
  assert f"resuming at step {said['0']}" in finish(start(1, tiny_rows, tmp_path / "run"))
  for a, b in zip(losses(unbroken), losses(tmp_path / "run"), strict=True):
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-5)


@pytest.mark.slow
def test_term_to_a_single_process_saves_and_exits_42(unbroken, tiny_rows, tmp_path):
  process = start(1, tiny_rows, tmp_path)
  wait_until(lambda: logged(tmp_path) >= 4, process)
  process.terminate()
  assert "the same command goes on from there" in finish(process, 42)
  finish(start(1, tiny_rows, tmp_path))
  assert_same_run(unbroken, tmp_path, STEPS)


@pytest.mark.slow
def test_stop_between_steps_ends_both_processes_at_one_step(tiny_rows, tmp_path):
  """And started again they say that the run is done."""
  workdir = tmp_path / "run"
  process = start(2, tiny_rows, workdir, "--config.checkpoint.every_steps=1000")
  wait_until(lambda: logged(workdir) >= 6, process)
  write_json(Workdir(workdir).stop, {"step": 4, "reason": "no gain"})
  for output in (finish(process), finish(start(2, tiny_rows, workdir, "--config.checkpoint.every_steps=1000"))):
    said = {line[1]: int(line.split("ended at step ")[1].split()[0]) for line in output.splitlines() if "ended at" in line}
    assert set(said) == {"0", "1"} and len(set(said.values())) == 1 and 6 <= said["0"] < STEPS, output[-2000:]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [str(said["0"])]
    result = json.loads(Workdir(workdir).result.read_text())
    assert (result["step"], result["stopped_by"]) == (said["0"], "no gain")


@pytest.mark.slow
def test_two_processes_build_the_demo_once(tmp_path):
  """launch/README.md's own example, smaller."""
  process = subprocess.Popen(
    [
      "launch/local.sh",
      "2",
      "--config=configs/smoke.py:runlocal",
      f"--workdir={tmp_path / 'run'}",
      "--config.train_steps=2",
      "--config.optimizer.warmup_steps=1",
    ],
    cwd=ROOT,
    env=environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert "held-out at step 2" in finish(process)


def two_processes(code, port):
  """Two processes that run this code; sys.argv tells each its number and the address of the first."""
  return [
    subprocess.Popen(
      [sys.executable, "-c", code, str(i), f"127.0.0.1:{port}"],
      cwd=ROOT,
      env=environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]


def test_two_processes_share_what_the_first_says_and_end_together():
  """on_first passes any value of JSON. Where one fails, neither waits in a collective; the sound one says who failed."""
  code = (
    "import sys\nfrom xlmr_jax.run import hosts\nme = int(sys.argv[1])\n"
    "hosts.start('explicit', sys.argv[2], 2, me)\n"
    "for value in (None, 7, 'größer', {'step': None, 'why': ['x'] * 500}):\n"
    "  assert hosts.on_first(lambda: value if me == 0 else 1 // 0) == value, value\n"
    "hosts.say(f'line of {me}')\n"
    "hosts.together(lambda: 1 // (1 - me))"
  )
  processes = two_processes(code, 20000 + (os.getpid() + 7) % 20000)
  first, second = (finish(process, 1) for process in processes)
  assert "line of 0" in first and "process 1 failed; its own output says why" in first
  assert "line of 1" not in second and "ZeroDivisionError" in second


def test_one_process_passes_json_as_several_do():
  assert hosts.on_first(lambda: {"steps": (1, 2)}) == {"steps": [1, 2]}
  with pytest.raises(TypeError):
    hosts.on_first(lambda: {1, 2})


def test_explicit_hosts_need_their_flags():
  with pytest.raises(UserError, match="--hosts=explicit needs --coordinator"):
    hosts.start("explicit", "", 2, 0)
