"""Where a run's time goes: parts that sum to the wall time, over kills too; steps made again; the slowest host."""

import json
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from tests.test_hosts import ROOT, environment, logged
from tests.test_metrics_log import lines_of, metrics_of, open_log
from xlmr_jax.files import read_sealed_json, write_sealed_json
from xlmr_jax.report import model_card, pictures
from xlmr_jax.run import compile_cache, goodput
from xlmr_jax.run.goodput import PARTS, Account, Accounts, Goodput, read_accounts
from xlmr_jax.run.workdir import Workdir


class Clock:
  """Time, XLA's compiler and the devices, by hand."""

  def __init__(self, monkeypatch):
    self.now, self.compiled_s, self.idle_since = 1000.0, 0.0, None
    fake = types.SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now + 1e9)
    monkeypatch.setattr(goodput, "time", fake)
    monkeypatch.setattr(goodput.compile_cache, "so_far", lambda: {"main_thread_s": self.compiled_s})
    monkeypatch.setattr(goodput._Devices, "idle_since", lambda _, now: now if self.idle_since is None else self.idle_since)

  def batches(self, *seconds):
    """An iterator whose items take so long."""
    for s in seconds:
      self.now += s
      yield s


@pytest.fixture
def clock(monkeypatch):
  return Clock(monkeypatch)


def opened(folder, **changes):
  return Goodput(Workdir(folder), **{"write_every_s": 1e9, "age_s": 10.0} | changes)


def parts_of(watch):
  return {name: seconds for name, seconds in watch.accounts().starts[-1].parts.items() if seconds}


def test_each_moment_belongs_to_one_part(tmp_path, clock):
  watch = opened(tmp_path)
  clock.compiled_s = 3.0  # of the ten seconds so far
  clock.now += 2.0
  with watch.during("compiling"):
    clock.now += 20.0
    clock.compiled_s += 12.0  # The rest is tracing.
  with watch.during("evaluation"):
    clock.now += 7.0
    clock.compiled_s += 4.0
  watch.enter("step")
  clock.now += 30.0
  with watch.during("save"):
    clock.now += 1.0
  clock.now += 5.0
  assert parts_of(watch) == {"start_up": 9.0, "compiling": 27.0, "evaluation": 3.0, "step": 35.0, "save": 1.0}
  (start,) = watch.accounts().starts
  assert start.wall == start.until - start.began == 10 + 2 + 20 + 7 + 30 + 1 + 5
  watch.close()


def test_only_the_main_thread_compiles_on_the_runs_time():
  """What other threads compile beside the training is counted among the programs, and in no part of the run's time."""
  event = "/jax/core/compile/backend_compile_duration"
  before = compile_cache.so_far()
  thread = threading.Thread(target=compile_cache._on_duration, args=(event, 3.0))
  thread.start()
  thread.join()
  beside = compile_cache.so_far()
  assert beside["compile_s"] - before["compile_s"] == pytest.approx(3.0)
  assert beside["main_thread_s"] == before["main_thread_s"]
  compile_cache._on_duration(event, 2.0)
  assert compile_cache.so_far()["main_thread_s"] - beside["main_thread_s"] == pytest.approx(2.0)


def test_waiting_for_data_counts_while_the_devices_are_idle(tmp_path, clock):
  """They work for 2 of the 3 seconds of the second wait, for all of the third, and had ended before the fourth."""
  watch, batches = opened(tmp_path), clock.batches(1.0, 3.0, 2.0, 4.0)
  watch.enter("step")
  for step, idle_since in enumerate((0.0, clock.now + 3.0, None, 1.0)):
    clock.idle_since = idle_since
    watch.next_of(step, batches)
    watch.sent(step, np.zeros(()))
  assert parts_of(watch) == {"start_up": 10.0, "step": 4.0, "data_wait": 6.0}
  watch.close()


def test_steps_made_again_are_apart(tmp_path, clock):
  watch, batches = opened(tmp_path), clock.batches(*[1.0] * 99)
  for step in (0, 1, 2, 3, 2, 3, 4):  # back to 2 after 4 steps
    watch.next_of(step, batches)
    clock.now += 1.0
    watch.sent(step, np.zeros(()))
  watch.close()
  total = read_accounts(Workdir(tmp_path)).total()
  assert total and {k: v for k, v in total.parts.items() if v} == {"start_up": 10.0, "step": 10.0, "again": 4.0}
  assert (total.steps, total.steps_again) == (7, 2)
  clock.now += 60.0
  watch = opened(tmp_path, age_s=20.0)  # the next start, which goes on at step 3
  for step in (3, 4, 5):
    watch.next_of(step, batches)
    clock.now += 1.0
    watch.sent(step, np.zeros(()))
  watch.close()
  accounts = read_accounts(Workdir(tmp_path))
  assert accounts.highest == 6 and [start.steps_again for start in accounts.starts] == [2, 2]
  assert accounts.starts[1].parts["again"] == 4.0 and accounts.starts[1].idle == 40.0
  said = goodput.describe(watch.total())
  assert said.startswith("goodput 24.0% of 50 s in 2 starts (start up 60.0%, again 16.0%); 4 steps made again; 40 s between")


def test_the_file_is_written_while_the_process_is_busy(tmp_path):
  others = set(threading.enumerate())  # of runs that an earlier test broke off
  watch = opened(tmp_path, write_every_s=0.02, age_s=0.0)
  watch.enter("step")
  seen = set()
  for _ in range(200):
    time.sleep(0.01)
    if (tmp_path / "goodput.json").exists():
      seen.add(read_sealed_json(tmp_path / "goodput.json")["starts"][0]["parts"]["step"])
    if len(seen) > 3:
      break
  assert len(seen) > 3
  watch.close()
  for thread in set(threading.enumerate()) - others:
    thread.join(30.0)  # close() tells them to end and does not wait for the thread of the step times.
    assert not thread.is_alive(), thread.name


def test_a_damaged_file_is_said_and_ends_nothing(tmp_path, capsys):
  (tmp_path / "goodput.json").write_text('{"highest": 3, "starts": [], "sha256": "x"}')
  watch = opened(tmp_path)
  assert "goodput.json cannot be read" in capsys.readouterr().err and len(watch.accounts().starts) == 1
  watch.workdir = Workdir(tmp_path / "none" / "none")  # as a disk that is gone
  watch.write()
  watch.close()


def test_old_starts_become_one():
  def start(i):
    return Account(dict.fromkeys(PARTS, 1.0), 10.0 * i, 10.0 * i + 8, 2.0, 1, 5, 1)

  accounts = Accounts(7, tuple(map(start, range(130))))
  found = accounts.compact()
  assert len(found.starts) == 100 and found.total() == accounts.total() and found.starts[0].starts == 31
  assert found.starts[1:] == accounts.starts[31:] and found.total().steps == 650


def test_when_the_devices_are_idle():
  """A real array that becomes ready, and one that has not yet."""
  devices = goodput._Devices()
  began = time.monotonic()
  assert devices.idle_since(began) == 0.0  # before the first step
  devices.watch(np.zeros(()))
  deadline = time.monotonic() + 10
  while devices.idle_since(now := time.monotonic()) == now and now < deadline:
    time.sleep(0.001)
  assert began <= devices.idle_since(np.inf) < now
  event = threading.Event()
  devices.watch(types.SimpleNamespace(block_until_ready=event.wait))
  assert devices.idle_since(5e9) == 5e9
  event.set()
  devices.close()


def test_the_slowest_host_is_named(tmp_path, clock, monkeypatch):
  watch, batches = opened(tmp_path), clock.batches(0.5, 0.5)
  watch.enter("step")
  assert watch.spread(0.2) == {}  # one process
  for step in range(2):
    clock.idle_since = clock.now + 0.2
    watch.next_of(step, batches)
    watch.sent(step, np.zeros(()))
  others = [[0.61, 0.001], [0.6, 0.0]]
  monkeypatch.setattr(goodput.jax, "process_count", lambda: 3)
  monkeypatch.setattr(goodput.multihost_utils, "process_allgather", lambda mine: np.stack([others[0], mine, others[1]]))
  found = watch.spread(0.602)
  np.testing.assert_allclose(found["hosts_step_s"], [0.6, 0.61], rtol=1e-6)
  np.testing.assert_allclose(found["hosts_late_s"], [0.0, 0.3], atol=1e-6)
  assert found["slowest_host"] == 1
  watch.close()


@pytest.mark.slow
def test_the_parts_sum_to_the_wall_time_over_three_kills(tiny_rows, tmp_path):
  """kill -9 three times and a TERM, each after seconds of steps; and the steps that are made again are counted."""
  workdir, wall, again = tmp_path / "run", 0.0, 0
  flags = [
    "pretrain", f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={workdir}", "--config.train_steps=1000000",
    "--config.checkpoint.every_steps=300", "--config.held_out.every_steps=500", "--config.log.every_steps=1",
    "--config.log.goodput_s=0.05",
  ]  # fmt: skip
  for end in [signal.SIGKILL] * 3 + [signal.SIGTERM]:
    before, began = logged(workdir), time.monotonic()
    with (tmp_path / "said").open("a") as said:  # A pipe that nobody reads would fill up.
      process = subprocess.Popen(
        [sys.executable, "-m", "xlmr_jax", *flags], cwd=ROOT, env=environment(), stdout=said, stderr=subprocess.STDOUT
      )
    while logged(workdir) < before + 400:
      assert process.poll() is None, (tmp_path / "said").read_text()[-3000:]
      time.sleep(0.002)
    if before:
      first = json.loads((workdir / "timing.jsonl").read_text().splitlines()[-1])
      assert first["goodput"]["again"] > 0
    process.send_signal(end)
    assert process.wait(60) == (42 if end == signal.SIGTERM else -9)
    wall += time.monotonic() - began
    if end == signal.SIGTERM:  # What Python does after the last write, freeing its libraries' memory, no Python code sees.
      wall -= time.time() - (workdir / "goodput.json").stat().st_mtime
    if end == signal.SIGKILL:
      restored = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if (p / "MANIFEST.json").exists())
      again += logged(workdir) - restored
  accounts = read_accounts(Workdir(workdir))
  total = accounts.total()
  print(goodput.describe(total), f"wall {wall:.2f} s, again {again}")
  assert total.starts == 4 and abs(total.wall / wall - 1) < 0.01, (total.wall, wall)
  # The files are written every 0.05 s, which is some steps; and a step is logged one step late.
  assert abs(total.steps_again - again) < 60, (total.steps_again, again)
  assert accounts.highest <= total.steps - total.steps_again + 60


def test_the_report_shows_each_start_and_the_shares(tmp_path):
  workdir = Workdir(tmp_path)
  parts = [{"step": 5400.0, "start_up": 600.0, "save": 1200.0}, {"step": 2700.0, "again": 900.0, "compiling": 180.0}]
  starts = [Account(dict.fromkeys(PARTS, 0.0) | part, 0.0, 9.0, 60.0 * i, 1, 50, 7 * i) for i, part in enumerate(parts)]
  write_sealed_json(workdir.goodput, {"highest": 80, "starts": [start._asdict() for start in starts]})
  figure = pictures.goodput_picture(workdir, tmp_path / "goodput.png")
  (axes,) = figure.axes
  assert (tmp_path / "goodput.png").read_bytes()[:4] == b"\x89PNG"
  drawn = {bars.get_label(): [(bar.get_x(), bar.get_width()) for bar in bars] for bars in axes.containers}
  assert drawn["steps"] == [(0, 90), (0, 45)] and drawn["steps made again"] == [(120, 0), (48, 15)]  # minutes
  assert list(drawn) == ["steps", PARTS["start_up"], "compiling", PARTS["save"], "steps made again"]
  assert [label.get_text() for label in axes.get_yticklabels()] == ["start 1", "start 2"]
  (text,) = model_card._where_the_time_went(workdir, tmp_path)
  for row in ("| steps | 2.25 | 73.8% |", "| steps made again | 0.25 | 8.2% |", "2 starts, 0.02 hours between them; 7"):
    assert row in text, text
  assert model_card._where_the_time_went(Workdir(tmp_path / "none"), tmp_path) == []


def test_a_log_line_says_where_the_time_went(tmp_path, clock):
  watch = opened(tmp_path)
  log = open_log(tmp_path, goodput=watch)
  watch.enter("step")
  for step in range(2):
    clock.now += 1.0
    log.later(step, metrics_of(step))
  log.flush()
  log.close()
  watch.close()
  (line,) = lines_of(tmp_path / "timing.jsonl")
  assert line["goodput"] == dict.fromkeys(PARTS, 0.0) | {"start_up": 10.0, "step": 2.0}
