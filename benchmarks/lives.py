"""Faults injected into a run of two processes, and how long a restart takes. The last line is JSON.

  python -m benchmarks.lives --what=term [--moments=20] [--seed=0]   # SIGTERM to one of two at random moments
  python -m benchmarks.lives --what=kill,stop,raise                  # kill -9, SIGSTOP, an exception: each of two in turn
  python -m benchmarks.lives --what=drift                            # two processes that should not run together
  python -m benchmarks.lives --what=restart [--base=base]            # from the command to the first step, in its parts

Faults are injected into a model of a few thousand parameters: what is measured is how processes end, not how they compute.
A restart is one of Base by default, with two rows of 64 tokens per step, so that it fits a machine of two cores.
"""

import collections
import dataclasses
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from xlmr_jax.commands.flags import FLAGS, refuse_arguments, start
from xlmr_jax.data import rows as store
from xlmr_jax.data.row_manifest import write_manifest
from xlmr_jax.errors import EXIT_CRASH, EXIT_RESTART, EXIT_USER, UserError
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.workdir import Workdir

ROOT = Path(__file__).parents[1]
HEARTBEAT_S, STEP_S = 20.0, 10.0  # limits of the runs that are killed, and of those that are stopped
SAVED = re.compile(r"stopped by a signal: step (\d+) is saved|stopped by a signal at step (\d+), which was saved before")
COMPILING = "attention: "  # the last line before the programs are compiled
NOTHING = re.compile(r"stopped by a signal before|nothing was saved")
SMALL = [
  "--config.model.layers=2", "--config.model.hidden=16", "--config.model.heads=2", "--config.model.ffn=32",
  "--config.model.max_positions=66", "--config.model.vocabulary_size=0", "--config.model.dtype=float32",
  "--config.rows_per_device=0", "--config.batch_rows=16", "--config.optimizer.warmup_steps=3",
  "--config.log.tensorboard=false", "--config.log.every_steps=2", "--config.model.unroll_layers=false",
]  # fmt: skip


def make_rows(root: Path, vocabulary: int = 90, seq_len: int = 64, tokenizer: bytes = b"no vocabulary") -> Path:
  """Rows of random ids in two languages, with a vocabulary that can be no tokenizer: training needs ids alone."""
  root.mkdir(parents=True)
  (root / "tokenizer.model").write_bytes(tokenizer)
  languages = {}
  for number, name in enumerate(("aa", "bb")):
    folder, counts = store.language_folder(root, name), {}
    folder.mkdir(parents=True)
    for split, count in (("train", 64), ("held_out", 8)):
      ids = np.random.default_rng([number, count]).integers(4, vocabulary - 1, (count, seq_len)).astype(np.int32)
      ids[:, 0], ids[:, -1] = 0, 2
      store.write_shard(folder / store.shard_name(split, 0, 1), ids)
      tokens = count * seq_len
      counts[split] = {"rows": count, "tokens": tokens, "pieces": tokens, "bytes": 4 * tokens, "documents": count}
    store.write_dataset_info(root, name, seq_len, {split: [counts[split]["rows"]] for split in counts})
    languages[name] = counts
  sha256 = hashlib.sha256((root / "tokenizer.model").read_bytes()).hexdigest()
  write_manifest(root, seq_len=seq_len, vocabulary_size=vocabulary, held_out_share=0.1, languages=languages,
                 tokenizer_sha256=sha256)  # fmt: skip
  return root


# --- a run of several processes ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Ended:
  """How one process of a run ended."""

  code: int
  seconds: float  # after the fault
  said: str


class Run:
  """Processes of one run on this machine, each on one CPU device, and all that they print."""

  def __init__(self, commands: list[list[str]], environment: dict[str, str] | None = None):
    self.began = time.monotonic()
    self.lines: list[list[str]] = [[] for _ in commands]
    self.fault_at = 0.0
    self.ended_at: dict[int, float] = {}
    self.processes = [
      subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"}
        | (environment or {}),
      )
      for command in commands
    ]  # fmt: skip
    for i in range(len(commands)):
      threading.Thread(target=self._read, args=(i,), daemon=True).start()

  def _read(self, i: int) -> None:
    for line in self.processes[i].stdout or ():
      self.lines[i].append(line.rstrip("\n"))
    self.processes[i].wait()
    self.ended_at[i] = time.monotonic()

  def said(self, i: int) -> str:
    """What a process has printed so far."""
    return "\n".join(self.lines[i])

  def wait_for(self, text: str, i: int = 0, timeout_s: float = 600.0) -> None:
    """Waits until a process has printed a text. UserError: it ended before, or takes too long."""
    until = time.monotonic() + timeout_s
    while text not in self.said(i):
      if self.processes[i].poll() is not None or time.monotonic() > until:
        for number in range(len(self.lines)):
          print(f"--- process {number}", self.said(number)[-5000:], sep="\n", file=sys.stderr)
        raise UserError(f"process {i} never said {text!r}; see what they said above")
      time.sleep(0.02)

  def send(self, number: int, i: int) -> None:
    """Sends a signal to a process; from now on seconds are counted."""
    self.fault_at = time.monotonic()
    self.processes[i].send_signal(number)

  def finish(self, timeout_s: float = 300.0, which: list[int] | None = None) -> list[Ended]:
    """How each process ended, or those of `which`. The rest is killed."""
    wanted = list(range(len(self.processes))) if which is None else which
    until = time.monotonic() + timeout_s
    while not all(i in self.ended_at for i in wanted) and time.monotonic() < until:
      time.sleep(0.02)
    late = [i for i in wanted if i not in self.ended_at]
    for process in self.processes:
      if process.poll() is None:
        process.kill()
        process.wait()
    if late:
      raise UserError(f"processes {late} did not end within {timeout_s:g} s: {self.said(late[0])[-3000:]}")
    return [Ended(self.processes[i].returncode, self.ended_at[i] - self.fault_at, self.said(i)) for i in wanted]


def two(
  flags_of: Callable[[int], list[str]], environment: dict[str, str] | None = None,
  program_of: Callable[[int], list[str]] = lambda _: ["-m", "xlmr_jax"],
) -> Run:  # fmt: skip
  """A run of two processes, each with its own flags and, if asked for, its own program."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  hosts = ["pretrain", "--hosts=explicit", f"--coordinator=127.0.0.1:{port}", "--processes=2"]
  commands = [[sys.executable, "-u", *program_of(i), *hosts, f"--process={i}", *flags_of(i)] for i in range(2)]
  return Run(commands, environment)


def small(rows: Path, workdir: Path, *more: str) -> list[str]:
  """Flags of a run that is all evaluations, saves and steps of milliseconds."""
  return [
    "--config=base", *SMALL, f"--config.data.rows={rows}", f"--workdir={workdir}", "--config.train_steps=1000000",
    "--config.held_out.every_steps=5", "--config.checkpoint.every_steps=7", "--config.checkpoint.keep_every=0", *more,
  ]  # fmt: skip


# --- SIGTERM at any moment -----------------------------------------------------------------------------------------


def term_once(rows: Path, workdir: Path, after: str, moment_s: float, victim: int, environment: dict[str, str]) -> dict:
  """Two processes, of which one gets SIGTERM so many seconds after process 0 has said `after`, or after its start.

  What is wrong is in "wrong".
  """
  before = set(sound_steps(Workdir(workdir).checkpoints))
  run = two(lambda _: small(rows, workdir), environment)
  run.wait_for(after)
  time.sleep(moment_s)
  last = [lines[-1] if lines else "nothing" for lines in run.lines]
  run.send(signal.SIGTERM, victim)
  ends = run.finish()
  steps = [next((int(a or b) for a, b in SAVED.findall(end.said)), None) for end in ends]
  found = sound_steps(Workdir(workdir).checkpoints)
  wrong = [f"exit codes {[end.code for end in ends]}"] * any(end.code != EXIT_RESTART for end in ends)
  if steps[0] != steps[1] or (steps[0] is None and not all(NOTHING.search(end.said) for end in ends)):
    wrong.append(f"steps {steps}")
  if steps[0] is not None and steps[0] not in found:
    wrong.append(f"step {steps[0]} is not there: {found}")
  if steps[0] is None and before - set(found):
    wrong.append(f"steps {sorted(before - set(found))} are gone")
  result = {
    "after": after, "moment_s": round(moment_s, 2), "victim": victim, "at": last[0][:60], "step": steps[0],
    "codes": [end.code for end in ends], "seconds": [round(end.seconds, 1) for end in ends], "wrong": wrong,
  }  # fmt: skip
  if wrong:
    for end in ends:
      print(end.said[-3000:], file=sys.stderr)
  return result


def term(folder: Path, moments: int, seed: int) -> dict:
  """SIGTERM at random moments of a run's life: while it imports, joins, compiles, restores, evaluates, steps, saves.

  Of each five, one comes within the time that a start takes, one while the programs are compiled (without a cache), and
  three within five seconds of the first step, where a run like this one evaluates and saves most of the time.
  """
  rows, rng = make_rows(folder / "rows"), random.Random(seed)
  cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  run = two(lambda _: small(rows, folder / "first"), cache)  # It fills the cache.
  run.wait_for(COMPILING)
  joined = time.monotonic()
  run.wait_for("first step after")
  start_s, compile_s = joined - run.began, time.monotonic() - joined
  for process in run.processes:
    process.kill()
  run.finish()
  results = []
  for number in range(moments):
    after, span, is_cold = (("", start_s, False), (COMPILING, compile_s, True), *[("first step after", 5.0, False)] * 3)[
      number % 5
    ]
    environment = cache | {"JAX_ENABLE_COMPILATION_CACHE": str(not is_cold).lower()}
    moment = (0.3 if not after else 0.0) + rng.random() * span  # Python itself needs some time to begin.
    results.append(term_once(rows, folder / "run", after, moment, rng.randrange(2), environment))
    print(f"{number + 1}/{moments}: {json.dumps(results[-1])}", flush=True)
  return {
    "moments": moments, "wrong": [result for result in results if result["wrong"]],
    "saved_a_step": sum(result["step"] is not None for result in results),
    "seconds_at_most": max(max(result["seconds"]) for result in results),
    "to_first_step_s": round(start_s + compile_s, 1),
  }  # fmt: skip


# --- deaths, hangs and drift ---------------------------------------------------------------------------------------


def lose(folder: Path, what: str, victim: int) -> dict:
  """One of two processes is killed, or stopped; how the other ends."""
  rows = folder / "rows"
  limits = {"kill": ["--config.watchdog_s=300.0", f"--config.watchdog.heartbeat_s={HEARTBEAT_S}"],
            "stop": [f"--config.watchdog_s={STEP_S}", "--config.watchdog.heartbeat_s=100.0"]}[what]  # fmt: skip
  run = two(lambda _: small(rows, folder / f"{what}{victim}", *limits))
  run.wait_for("step 20/")
  run.send(signal.SIGKILL if what == "kill" else signal.SIGSTOP, victim)
  (end,) = run.finish(which=[1 - victim])
  stacks = "most recent call first" in end.said
  limit = HEARTBEAT_S + 10.0 if what == "kill" else STEP_S + 5.0
  wrong = [f"exit code {end.code}"] * (end.code != EXIT_RESTART) + ["no stacks"] * (what == "stop" and not stacks)
  wrong += [f"{end.seconds:.1f} s"] * (end.seconds > limit)
  if wrong:
    print(end.said[-4000:], file=sys.stderr)
  reason = next((line for line in reversed(end.said.splitlines()) if f"exit {EXIT_RESTART}" in line), "")
  return {"what": what, "victim": victim, "code": end.code, "seconds": round(end.seconds, 1), "limit_s": limit,
          "said": reason, "wrong": wrong}  # fmt: skip


# Runs the command with a function of the loop replaced; {action} is what one process does before step {step}.
PROGRAM = """
import sys
from xlmr_jax.__main__ import main
from xlmr_jax.training import loop
decide = loop.decide
def act(step, **more):
  if step == {step}:
    {action}
  return decide(step, **more)
loop.decide = act
sys.argv = ["xlmr", *sys.argv[1:]]
main()
"""


def act(folder: Path, name: str, action: str, victim: int, *more: str, step: int = 20) -> list[Ended]:
  """Two processes, of which one does `action`, a line of Python, before a step; how both end."""
  run = two(
    lambda _: small(folder / "rows", folder / f"{name}{victim}_{step}", *more),
    program_of=lambda i: ["-c", PROGRAM.format(action=action if i == victim else "pass", step=step)],
  )
  run.wait_for("step 18/")
  run.fault_at = time.monotonic()
  return run.finish()


def fail(folder: Path, victim: int, step: int = 20) -> dict:
  """An exception in one of two processes: it crashes with 70, and the other ends with 42 within seconds."""
  ends = act(folder, "raise", "raise KeyError('injected')", victim, step=step)
  wanted = [EXIT_CRASH if i == victim else EXIT_RESTART for i in range(2)]
  codes, seconds = [end.code for end in ends], [round(end.seconds, 1) for end in ends]
  wrong = [f"exit codes {codes}"] * (codes != wanted) + [f"{max(seconds)} s"] * (max(seconds) > 20.0)
  wrong += ["the error is lost"] * ("KeyError: 'injected'" not in ends[victim].said)
  if wrong:
    print(*(end.said[-3000:] for end in ends), sep="\n", file=sys.stderr)
  return {"what": "raise", "victim": victim, "codes": codes, "seconds": seconds, "wrong": wrong}


def drift(folder: Path) -> list[dict]:
  """Two processes with another seed, config, tokenizer, code or start: what each says, and how it ends."""
  rows, others = folder / "rows", make_rows(folder / "other_rows", tokenizer=b"another vocabulary")
  code = "from xlmr_jax.run import hosts; hosts.code_digest = lambda: 'another'"
  library = "from xlmr_jax.run import hosts; hosts.LIBRARIES = ('jax', 'no_such_library')"
  tokenizer = (
    "from xlmr_jax.commands import pretrain; inner = pretrain.open_rows; "
    "pretrain.open_rows = lambda *a: (store := inner(*a), store.manifest.update(tokenizer_sha256='another'))[0]"
  )
  cases = {  # what process 1 has: flags, and what it does first
    "seed": (["--config.seed=1"], "pass"),
    "config": (["--config.model.dropout=0.2", "--config.optimizer.peak_lr=0.001"], "pass"),
    "rows": ([f"--config.data.rows={others}"], "pass"),
    "tokenizer": ([], tokenizer),
    "code": ([], code),
    "library": ([], library),
  }
  found = []
  for name, (more, first) in cases.items():
    run = two(
      lambda i: small(rows, folder / f"drift_{name}", *(more if i else [])),  # noqa: B023
      program_of=lambda i: ["-c", PROGRAM.replace("decide =", f"{first}\ndecide =" if i else "decide =", 1)],  # noqa: B023
    )
    run.fault_at = run.began
    ends = run.finish()
    lines = [next((line for line in end.said.splitlines() if line.startswith("error: ")), "") for end in ends]
    wrong = [f"exit codes {[end.code for end in ends]}"] * any(end.code != EXIT_USER for end in ends)
    wrong += ["not the same on both"] * (lines[0] != lines[1]) + ["values missing"] * ("on process 1" not in lines[0])
    wrong += ["a step was made"] * (Workdir(folder / f"drift_{name}").train_log.exists())
    found.append({"what": name, "said": lines[0], "seconds": [round(end.seconds, 1) for end in ends], "wrong": wrong})
    print(json.dumps(found[-1]), flush=True)
  return found


# --- restart -------------------------------------------------------------------------------------------------------

# Runs the command, and says when each part of a start begins and ends.
PARTS = """
import os, sys, time
def say(part, what):
  os.write(1, f"PART {part} {what} {time.time()}\\n".encode())  # at once: threads write side by side
def mark(module, name, part):
  function = getattr(module, name)
  def timed(*args, **kwargs):
    say(part, "begin")
    try:
      return function(*args, **kwargs)
    finally:
      say(part, "end")
  setattr(module, name, timed)
from xlmr_jax.commands import pretrain
from xlmr_jax.__main__ import main
sys.argv = ["xlmr", *sys.argv[1:]]
mark(pretrain, "read_config", "config")
inner = pretrain.pretrain
def marked(argv):
  pretrain.check_config = lambda config, check=pretrain.check_config: (check(config), late())[0]
  return inner(argv)
def late():
  say("imports", "begin")
  from xlmr_jax import open_model
  from xlmr_jax.run import checkpoint, compile_cache, hosts
  from xlmr_jax.training import loop, preparation, segments
  say("imports", "end")
  mark(pretrain, "open_rows", "rows")
  mark(compile_cache, "use", "devices")
  mark(preparation, "prepare", "program")
  mark(checkpoint.Checkpoints, "restore_latest", "restore")
  mark(segments.CompiledSteps, "_compile_train", "compile")  # beside the restore
  mark(loop.pipeline, "load_libraries", "tensorflow")  # beside both
pretrain.pretrain = marked
main()
"""


def restart(folder: Path, more: list[str]) -> dict:
  """The seconds from the command to the first step of a run that goes on, with its programs in the cache, by part."""
  rows = make_rows(folder / "rows", vocabulary=250_002)
  line = [
    "pretrain", f"--config={FLAGS.base}", f"--config.data.rows={rows}", f"--workdir={folder / 'run'}",
    "--config.rows_per_device=0", "--config.batch_rows=2", "--config.train_steps=1000000", "--config.log.every_steps=1",
    "--config.checkpoint.every_steps=100000", "--config.checkpoint.keep_every=0",
    "--config.held_out.every_steps=0", "--config.log.tensorboard=false", *more,
  ]  # fmt: skip
  environment = {"XDG_CACHE_HOME": str(folder / "cache")}
  starts = []
  for _ in range(1 + FLAGS.repeats):
    began = time.time()
    run = Run([[sys.executable, "-u", "-c", PARTS, *line]], environment)
    run.wait_for("first step after", timeout_s=1800.0)
    parts, opened, ready = collections.Counter(), {}, began
    for what in (text.split() for text in run.said(0).splitlines() if text.startswith("PART ")):
      if what[2] == "begin":
        opened[what[1]] = float(what[3])
      else:
        parts[what[1]] += round(float(what[3]) - opened[what[1]], 2)
        ready = float(what[3])
    text = next(text for text in run.said(0).splitlines() if text.startswith("first step after"))
    whole = float(text.split()[3])
    parts["before the config"] = round(opened["config"] - began, 2)
    parts["after all these"] = round(began + whole - ready, 2)  # mostly the first step
    starts.append({"first_step_s": whole, "parts": dict(parts), "said": text})
    print(json.dumps(starts[-1]), flush=True)
    time.sleep(8.0)  # so that the programs are sealed
    run.send(signal.SIGTERM, 0)
    run.finish(timeout_s=1800.0)
  return {"first": starts[0], "again": min(starts[1:], key=lambda begun: begun["first_step_s"])}


def run_all(argv: list[str]) -> int:
  """Does what --what names; 1 if something was not as promised."""
  refuse_arguments(argv)
  result: dict = {}
  with tempfile.TemporaryDirectory(prefix="lives") as temporary:
    folder = Path(FLAGS.directory or temporary)
    for what in FLAGS.what:
      part = folder / what
      part.mkdir(parents=True)
      if what in ("kill", "stop", "raise", "drift"):
        make_rows(part / "rows")
      if what == "term":
        result[what] = term(part, FLAGS.moments, FLAGS.seed)
      elif what == "drift":
        result[what] = drift(part)
      elif what == "restart":
        result[what] = restart(part, FLAGS.more)
      else:
        result[what] = []
        for victim in range(2):
          result[what].append(fail(part, victim) if what == "raise" else lose(part, what, victim))
          print(json.dumps(result[what][-1]), flush=True)
  print(json.dumps(result))
  return 1 if "wrong" in re.sub(r'"wrong": \[\]', "", json.dumps(result)) else 0


if __name__ == "__main__":
  flags.DEFINE_list("what", None, "of term, kill, stop, raise, drift, restart", required=True)
  flags.DEFINE_integer("moments", 20, "SIGTERMs", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "of the moments")
  flags.DEFINE_string("base", "base", "config of the restart")
  flags.DEFINE_integer("repeats", 2, "restarts; the fastest counts", lower_bound=1)
  flags.DEFINE_multi_string("more", [], "a flag of the run that is restarted, e.g. --more=--config.model.layers=2")
  flags.DEFINE_string("directory", None, "where to work; a temporary folder by default")
  start(run_all)
