"""How the processes of a run end: told to stop, killed, hung, at odds, or with an error. None waits, no 0 is wrong."""

import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from benchmarks import lives
from tests import tiny
from xlmr_jax.commands import pretrain
from xlmr_jax.errors import EXIT_CRASH, EXIT_DONE, EXIT_RESTART, EXIT_USER
from xlmr_jax.run import hosts, preemption
from xlmr_jax.run.checkpoint import sound_steps
from xlmr_jax.run.peers import Peers
from xlmr_jax.run.preemption import Preemption
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import loop

ROOT = Path(__file__).parents[1]


def ended(code, *, timeout=120):
  """(exit code, stderr, seconds after it said "now") of a program, a few lines of Python."""
  began = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, "-u", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  for line in process.stdout:
    if line == "now\n":
      began = time.monotonic()
      break
  said = process.communicate(timeout=timeout)[1]
  return process.returncode, said, time.monotonic() - began


# --- one process ---------------------------------------------------------------------------------------------------


def test_the_watchdog_has_a_limit_for_each_kind_of_work():
  code = (
    "import time\nfrom xlmr_jax.run.watchdog import Watchdog\n"
    "dog = Watchdog({'step': 60.0, 'save': 0.5, 'restore': 0.0}, work='restore')\n"
    "time.sleep(1.0)\n"  # no limit
    "dog.begin('step')\ntime.sleep(1.0)\nprint('now')\n"
    "with dog.during('save'):\n  time.sleep(100)"
  )
  status, said, seconds = ended(code)
  assert status == EXIT_RESTART and seconds < 40
  assert "no sign of life for 0.5 s (save)" in said and 'File "<string>", line 9 in <module>' in said


@pytest.mark.slow
def test_the_watchdog_lets_live_what_shows_life_and_what_is_done():
  code = (
    "import time\nfrom xlmr_jax.run.watchdog import Watchdog\n"
    "dog = Watchdog({'step': 3.0}, work='step')\n"
    "for _ in range(40):\n  dog.alive()\n  time.sleep(0.1)\n"
    "dog.close()\nprint('now')\ntime.sleep(4)"
  )
  assert ended(code)[:2] == (0, "")


def test_a_signal_is_heard_while_the_main_thread_is_in_a_library():
  """Python's own handlers run only when the library returns, here after a minute."""
  code = (
    "import hashlib, os, signal, threading\n"
    "from xlmr_jax.run.preemption import Preemption\n"
    "Preemption()\n"
    "def later():\n  print('now')\n  os.kill(os.getpid(), signal.SIGTERM)\n"
    "threading.Timer(0.5, later).start()\n"
    "hashlib.pbkdf2_hmac('sha256', b'', b'', 5 * 10**8)"  # minutes
  )
  status, said, seconds = ended(code)
  assert status == EXIT_RESTART and seconds < 40, said
  assert said == "stopped by a signal before the first step; nothing was saved, exit 42\n"


def test_a_signal_before_anything_is_imported_is_not_lost():
  code = (
    "import os, signal, sys\nfrom xlmr_jax.run.signals import listener\nlistener.open()\n"
    "os.kill(os.getpid(), signal.SIGTERM)\nprint('now')\n"
    "from xlmr_jax.run.preemption import Preemption\nPreemption()\nsignal.pause()"
  )
  assert ended(code)[0] == EXIT_RESTART


def test_a_signal_during_the_start_of_a_run(tiny_rows, tmp_path):
  """SIGTERM comes while the command imports. It ends with 42 although its main thread has heard nothing yet."""
  command = [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={tmp_path}"]
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    while len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 2:  # The first thread is the one that listens.
      assert process.poll() is None
      time.sleep(0.005)
    process.terminate()
    said = process.communicate(timeout=120)[1]
  assert process.returncode == EXIT_RESTART and "nothing was saved" in said


def test_where_jax_would_abort_the_process_ends_with_42():
  code = (
    "import os, threading, time\nfrom xlmr_jax.run.peers import Peers, catch_abort\n"
    "peers = Peers.__new__(Peers)\npeers._ending = None\ncatch_abort(peers.on_abort)\n"
    "import ctypes\nprint('now')\nthreading.Thread(target=ctypes.CDLL(None).abort).start()\ntime.sleep(60)"
  )
  status, said, seconds = ended(code)
  assert status == EXIT_RESTART and seconds < 40
  assert "another process is lost" in said and re.search("line [89] in <module>", said), said


def test_sys_exit_inside_a_run_is_no_success(monkeypatch):
  monkeypatch.setattr(pretrain, "pretrain", lambda argv: sys.exit(0))
  with pytest.raises(RuntimeError, match=r"something inside the run called sys.exit\(0\)"):
    pretrain.main(["xlmr pretrain"])


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("injected"), KeyboardInterrupt()])
def test_whatever_ends_the_loop_right_after_a_save_leaves_that_save_whole(tiny_store, tmp_path, monkeypatch, error):
  decide = loop.decide

  def fail(step, **more):
    if step == 5:
      raise error
    return decide(step, **more)

  monkeypatch.setattr(loop, "decide", fail)
  with pytest.raises(type(error)):
    tiny.run(tiny.config(checkpoint__every_steps=4), tmp_path, tiny_store)
  assert sound_steps(Workdir(tmp_path).checkpoints) == [4]


@pytest.mark.slow
def test_nothing_compiles_and_nothing_is_transferred_unasked_in_the_loop(tiny_store, tmp_path, monkeypatch):
  """50 steps with evaluations and saves: the train step is compiled once, before the first step."""
  compiled, guards, state = [], set(), {"step": -1}
  decide = loop.decide

  def watch(step, **more):
    state["step"] = step
    guards.add(jax.config.jax_transfer_guard)
    return decide(step, **more)

  class Handler(logging.Handler):
    def emit(self, record):
      text = record.getMessage()
      if text.startswith("Finished XLA compilation of "):
        compiled.append((text.split()[4], state["step"]))

  monkeypatch.setattr(loop, "decide", watch)
  logger, handler = logging.getLogger("jax._src.dispatch"), Handler()
  config = tiny.config(train_steps=50, held_out__every_steps=10, checkpoint__every_steps=7)
  monkeypatch.setattr(logger, "propagate", False)
  monkeypatch.setattr(logger, "disabled", False)
  before = logger.level
  logger.setLevel(logging.DEBUG)
  jax.config.update("jax_log_compiles", True)  # jax.log_compiles() would be for this thread only.
  logger.addHandler(handler)
  try:
    assert tiny.run(config, tmp_path, tiny_store) == EXIT_DONE
  finally:
    logger.removeHandler(handler)
    logger.setLevel(before)
    jax.config.update("jax_log_compiles", False)
  names = [name for name, _ in compiled]
  assert names.count("jit(train_step)") == names.count("jit(held_out_step)") == 1, names
  assert not [(name, step) for name, step in compiled if name in ("jit(train_step)", "jit(held_out_step)") and step >= 0]
  assert guards == {"disallow"}


# --- what several processes agree on, with a store of this process ---------------------------------------------------


class Store:
  """JAX's key-value store for processes that are threads here."""

  def __init__(self):
    self.values, self.changed = {}, threading.Condition()

  def key_value_set(self, key, value, allow_overwrite=False):
    with self.changed:
      assert allow_overwrite or key not in self.values
      self.values[key] = value
      self.changed.notify_all()

  def key_value_dir_get(self, folder):
    with self.changed:
      return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

  def blocking_key_value_get(self, key, timeout_in_ms):
    with self.changed:
      if not self.changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: ")
      return self.values[key]


class Quiet:
  """A listener that hears nothing but what a test says."""

  def open(self, interrupts):
    pass

  def on_heard(self, act):
    self.act = act


@pytest.fixture
def processes(monkeypatch):
  """make(count) -> [(listener, Peers, Preemption)] of one run."""
  monkeypatch.setattr("xlmr_jax.run.peers.POLL_S", 0.02)
  monkeypatch.setattr("xlmr_jax.run.preemption.POLL_S", 0.02)
  made = []

  def make(count):
    store = Store()
    for me in range(count):
      quiet = Quiet()
      monkeypatch.setattr(preemption, "listener", quiet)
      peers = Peers(store, me, count)
      made.append((quiet, peers, Preemption(peers)))
    return made

  yield make
  for _, peers, _ in made:
    peers._done.set()
    peers._thread.join()


@pytest.mark.parametrize("lost", [("stop",), ("calls/0", "calls/2"), ("stop", "calls/1", "stop_at")])
def test_a_note_that_is_lost_is_left_again(processes, lost, monkeypatch):
  """A request to the store may fail for a moment; without the note all would wait for it until the watchdog ends them."""
  left, store_set = list(lost), Store.key_value_set

  def forgetful(self, key, value, allow_overwrite=False):
    note = key.partition("/notes/")[2]
    if note in left:
      left.remove(note)
      raise jax.errors.JaxRuntimeError("UNAVAILABLE")
    store_set(self, key, value, allow_overwrite)

  monkeypatch.setattr(Store, "key_value_set", forgetful)
  test_all_processes_stop_at_one_call(processes, 1)
  assert not left


@pytest.mark.parametrize("seed", range(8))
def test_all_processes_stop_at_one_call(processes, seed):
  """Three processes whose steps take different times, without a collective that would keep them together."""
  rng, stopped_at = random.Random(seed), {}
  made = processes(3)
  pauses = [rng.random() * 0.03 for _ in made]

  def train(me):
    for call in range(1, 2000):
      if made[me][2].stop():
        stopped_at[me] = call
        return
      time.sleep(pauses[me])

  threads = [threading.Thread(target=train, args=(me,)) for me in range(3)]
  for thread in threads:
    thread.start()
  time.sleep(0.1 + rng.random() * 0.2)
  for me in rng.sample(range(3), rng.choice([1, 3])):
    made[me][0].act()
  for thread in threads:
    thread.join(60)
  assert len(stopped_at) == 3 and len(set(stopped_at.values())) == 1, stopped_at


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_before_the_first_step_all_processes_leave(processes, monkeypatch):
  """One is told to stop when it has not begun; another one has. Nobody waits for anybody."""
  left = []

  def leave(text, **_):
    left.append((threading.current_thread().name, text))
    raise SystemExit  # ends the thread, as the process would end

  monkeypatch.setattr(preemption, "leave", leave)
  made = processes(2)
  assert not made[1][2].stop()
  made[0][0].act()
  until = time.monotonic() + 30
  while any(t.name in ("peers", "ask to stop") for t in threading.enumerate()) and time.monotonic() < until:
    time.sleep(0.02)
  assert len(left) >= 2
  assert {text.partition(" before the first step; nothing was saved")[1] for _, text in left} == {
    " before the first step; nothing was saved"
  }


@pytest.fixture
def two_with_facts(monkeypatch):
  """What refuse_disagreement raises in two processes with these facts: two texts."""

  def run(*facts):
    store, texts = Store(), [None] * len(facts)
    peers = [Peers(store, me, len(facts)) for me in range(len(facts))]
    differences = [{name: json.dumps(value, default=str) for name, value in hosts.flatten(of).items()} for of in facts]

    def compare(me):
      texts[me] = peers[me].exchange("0", json.dumps(differences[me]), hosts._differences, 10.0)

    threads = [threading.Thread(target=compare, args=(me,)) for me in range(len(facts))]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join(60)
    for one in peers:
      one._done.set()
    return texts

  return run


def test_hosts_that_differ_hear_both_values(two_with_facts):
  base = {"config": {"seed": 0, "model": {"layers": 12}}, "code": "aa", "versions": {"jax": "1"}}
  assert two_with_facts(base, base) == ["", ""]
  first, second, third = two_with_facts(base, base, base | {"config": {"seed": 1, "model": {"layers": 12}}})
  assert first == second == third == "config.seed: 0 on processes 0-1, 1 on process 2"
  assert two_with_facts(base, base | {"versions": {}, "code": "bb"})[1] == (
    'code: "aa" on process 0, "bb" on process 1; versions.jax: "1" on process 0, absent on process 1'
  )


def test_a_message_about_differences_has_an_end(two_with_facts):
  text = two_with_facts({f"k{i:02}": "x" * 1000 for i in range(30)}, {f"k{i:02}": "y" * 1000 for i in range(30)})[0]
  assert text.endswith("and 20 more") and len(text) < 3000


def test_a_process_that_says_nothing_is_named():
  peers = Peers(Store(), 0, 2)
  with pytest.raises(TimeoutError, match="process 1 said nothing"):
    peers.exchange("0", "{}", hosts._differences, 0.2)
  peers._done.set()


@pytest.mark.slow
def test_who_failed_first_is_told_from_who_felt_it():
  store = Store()
  first, second, third = (Peers(store, me, 3) for me in range(3))
  for peers in (first, second, third):
    peers._client.key_value_set(f"xlmr_jax/beats/{peers.me}", "0", allow_overwrite=True)
  assert first.lost(EXIT_CRASH) == ""
  third._done.set()
  third._thread.join()
  assert first.lost(EXIT_CRASH) == "process 2 does not answer"
  second.tell("left/1", "70")
  assert "process 1 ended with 70" in first.lost(EXIT_CRASH)
  second.tell("left/1", "70?")  # It felt the same as this one.
  assert first.lost(EXIT_CRASH) == "process 2 does not answer"
  for peers in (first, second):
    peers._done.set()


# --- runs of two processes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("lives")
  lives.make_rows(folder / "rows")
  return folder


@pytest.mark.slow
def test_sigterm_at_random_moments_saves_one_common_step(tmp_path):
  """`python -m benchmarks.lives --what=term` tries 20 moments."""
  result = lives.term(tmp_path, 6, seed=0)
  assert not result["wrong"] and result["saved_a_step"] >= 1
  # Where the processes' steps wait for each other's cores, all takes longer.
  assert result["seconds_at_most"] < (30.0 if len(os.sched_getaffinity(0)) >= 4 else 60.0)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["kill", "stop"])
def test_a_process_that_is_lost_ends_the_other(folder, what):
  results = [lives.lose(folder, what, victim) for victim in range(2)]
  assert not [result for result in results if result["wrong"]]


@pytest.mark.slow
@pytest.mark.parametrize("step", [20, 22])
def test_an_exception_in_one_process_ends_the_other(folder, step):
  """Also just after a save, whose seal the other process owes and will not give."""
  results = [lives.fail(folder, victim, step) for victim in range(2)]
  assert not [result for result in results if result["wrong"]]


@pytest.mark.slow
def test_what_the_user_must_mend_on_one_process_is_exit_1_of_both(folder):
  ends = lives.act(folder, "user", "from xlmr_jax.errors import UserError; raise UserError('no room here')", 1)
  assert [end.code for end in ends] == [EXIT_USER, EXIT_USER]
  assert "process 1 ended with 1 (no room here)" in ends[0].said or "process 1 failed: no room here" in ends[0].said


@pytest.mark.slow
def test_two_that_should_not_run_together_are_refused_with_both_values(folder):
  found = lives.drift(folder)
  assert not [result for result in found if result["wrong"]]
  said = {result["what"]: result["said"] for result in found}
  assert "config.seed: 0 on process 0, 1 on process 1" in said["seed"]
  assert "config.model.dropout: 0.1 on process 0, 0.2 on process 1" in said["config"]
  assert "tokenizer: " in said["tokenizer"] and "code: " in said["code"] and "no_such_library" in said["library"]


@pytest.mark.slow
def test_sys_exit_in_one_process_is_a_crash(folder):
  ends = lives.act(folder, "exit", "sys.exit(0)", 1)
  assert [end.code for end in ends] == [EXIT_RESTART, EXIT_CRASH]
  assert "something inside the run called sys.exit(0)" in ends[1].said


@pytest.mark.slow
def test_a_process_that_never_comes_ends_the_start(folder):
  run = lives.two(lambda _: lives.small(folder / "rows", folder / "alone", "--config.watchdog.join_s=8"))
  run.processes[1].kill()
  run.fault_at = time.monotonic()
  (end,) = run.finish(which=[0])
  assert end.code == EXIT_RESTART and "not all processes came within 8 s" in end.said
