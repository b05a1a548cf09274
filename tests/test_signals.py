"""Ctrl-C, and a platform that is not here: what a user meets at the terminal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xlmr_jax.errors import EXIT_RESTART, UserError, run_command
from xlmr_jax.hardware import refuse_missing_platform
from xlmr_jax.run import signals
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.children import ending_with_parent, run_child
from xlmr_jax.run.preemption import Preemption
from xlmr_jax.run.signals import listener
from xlmr_jax.run.workdir import Workdir

ROOT = Path(__file__).parents[1]


@pytest.fixture
def handlers():
  """Puts the handlers of the test's own process back."""
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  yield
  listener.forget()
  for number, handler in before.items():
    signal.signal(number, handler)


def test_the_first_interrupt_is_a_preemption_and_the_second_is_the_systems(handlers, capsys):
  preemption = Preemption()
  assert not preemption.stop()
  os.kill(os.getpid(), signal.SIGINT)
  assert preemption.stop()
  assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
  assert capsys.readouterr().err == "interrupted: saving and ending; interrupt again to end at once\n"


def test_an_impatient_user_need_not_wait():
  program = (
    "import os, signal, time\n"
    "from xlmr_jax.run.preemption import Preemption\n"
    "preemption = Preemption()\n"
    "preemption.stop()\n"
    "for _ in range(2):\n"
    "  os.kill(os.getpid(), signal.SIGINT)\n"
    "  time.sleep(0.2)\n"
    "print('still here')"
  )
  result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
  assert result.returncode == -signal.SIGINT and not result.stdout and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_interrupted_run_saves(tiny_rows, tmp_path):
  command = [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config=tests/tiny.py:{tiny_rows}",
             "--config.train_steps=100000", f"--workdir={tmp_path}", "--config.checkpoint.every_steps=100000"]  # fmt: skip
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    for line in process.stdout:
      if line.startswith("first step"):
        break
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
  assert process.returncode == EXIT_RESTART
  assert "is saved; the same command goes on from there" in said
  assert sound_steps(Workdir(tmp_path).checkpoints)


def test_an_interrupt_that_is_passed_on_arrives_once(handlers):
  """A child in the terminal's group would get Ctrl-C from the terminal and from its parent."""
  program = (
    "import os, signal, sys, time\n"
    "seen = []\n"
    "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
    "os.kill(os.getppid(), signal.SIGINT)\n"
    "time.sleep(0.5)\n"
    "sys.exit(10 + len(seen) + (os.getpgid(0) != os.getpid()))"
  )
  assert run_child([sys.executable, "-c", program]) == 11


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program of its parent's death")
def test_a_child_is_told_when_its_parent_is_killed(tmp_path):
  child = (
    "import os, signal, sys, time\n"
    f"signal.signal(signal.SIGTERM, lambda *_: (open('{tmp_path}/told', 'w').close(), sys.exit(42)))\n"
    "print(os.getpid(), flush=True)\n"
    "time.sleep(60)"
  )
  program = "import sys; from xlmr_jax.run.children import run_child; run_child([sys.executable, '-c', sys.argv[1]])"
  parent = subprocess.Popen([sys.executable, "-c", program, child], cwd=ROOT, stdout=subprocess.PIPE)
  number = int(parent.stdout.readline())
  parent.kill()
  parent.wait()
  deadline = time.monotonic() + 20
  while not (tmp_path / "told").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
  if not (tmp_path / "told").exists():
    os.kill(number, signal.SIGKILL)
  assert (tmp_path / "told").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program of its parent's death")
def test_a_child_whose_parent_has_died_before_it_could_ask_does_not_begin(tmp_path):
  """Its parent is another process by then."""
  line = ending_with_parent(["touch", str(tmp_path / "begun")])
  line[line.index(str(os.getpid()))] = "1"
  assert subprocess.run(line).returncode == 143 and not (tmp_path / "begun").exists()


@pytest.mark.parametrize("platform", ["cuda", "gpu", "foo", "cpu,foo"])
def test_a_platform_that_is_not_here_is_one_line(platform):
  program = (
    "from xlmr_jax.hardware import refuse_missing_platform as f; from xlmr_jax.errors import run_command as r; r(f)()"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], env=os.environ | {"JAX_PLATFORMS": platform}, cwd=ROOT, capture_output=True, text=True
  )
  assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
  assert result.stderr.startswith(f"error: JAX_PLATFORMS={platform}: JAX finds no such device")


def test_a_command_that_is_interrupted_says_no_more_than_that(capsys):
  def main():
    raise KeyboardInterrupt

  with pytest.raises(SystemExit) as ended:
    run_command(main)()
  assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_platform_that_is_here_is_taken(monkeypatch):
  import jax

  asked = []
  devices = jax.devices
  monkeypatch.setattr(jax, "devices", lambda: asked.append(devices()))
  refuse_missing_platform()
  assert [device.platform for device in asked[0]] == ["cpu"] * 8


def test_jax_that_fails_is_a_users_error(monkeypatch):
  import jax

  def fail():
    raise RuntimeError("Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process with pid 7.")

  monkeypatch.setattr(jax, "devices", fail)
  with pytest.raises(UserError, match="already in use by process with pid 7"):
    refuse_missing_platform()


def test_a_listener_that_was_forgotten_ends_nothing(monkeypatch):
  """What it had heard must not end the process later, which by then does other things."""
  left = []
  monkeypatch.setattr(signals, "LEAVE_S", 0.2)
  monkeypatch.setattr(signals, "leave", left.append)
  listener.open()
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.05)
  assert listener.heard
  listener.forget()
  time.sleep(0.5)
  assert not left and not listener.heard
  listener.open()
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.5)
  assert len(left) == 1
