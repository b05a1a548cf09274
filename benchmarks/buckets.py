"""What a run in a bucket survives, against a real server of Google Cloud Storage's protocol on loopback.

  python -m benchmarks.buckets --what=kills|bad|down|two|rows [--kills=10] [--steps=60]

kills  a trainer in the bucket with an evaluator beside it, both killed by kill -9 at random and started again: parameters
       and logs must equal those of the run on a disk, each step be evaluated once, the best be exported and opened again
bad    the same run behind a proxy that fails one request in ten: 500, 503, a reset connection, an answer after 20 s
down   the store answers nothing but 503 from the middle of a run on: how and when the run ends, and what is left
two    a second trainer on the workdir of a first one, and after that one was killed on another machine
rows   batches a second from a store of 50 ms a request, with the files brought to this machine, and how soon the first comes

The last line is a JSON object of what was seen. The run is a small one on the demo's rows. Needs the packages of the tests.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import bucket_server

RUN = ["--config=smoke:runlocal", "--config.optimizer.warmup_steps=5", "--config.checkpoint.every_steps=5",
       "--config.held_out.every_steps=10", "--config.log.every_steps=5", "--config.evaluate.every_steps=10"]  # fmt: skip
TASK = ["--config.evaluate.tasks=demo_entities", "--config.evaluate.max_train_examples=64",
        "--config.evaluate.max_examples=16", "--config.evaluate.recipe=epochs=1", "--config.evaluate.wait_s=1",
        "--config.evaluate.keep_unevaluated=100"]  # fmt: skip


class Clients:
  """Starts our commands with clients that ask the store at a port."""

  def __init__(self, port: int, **more: str):
    self.environment = os.environ | bucket_server.environment(port) | {"JAX_PLATFORMS": "cpu", **more}

  def start(self, command: str, *arguments: str, log: Path | None = None) -> subprocess.Popen:
    """A process of `xlmr COMMAND`. log: the file that what it prints is added to."""
    out = log.open("ab") if log else subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "xlmr_jax", command, *arguments], env=self.environment, stdout=out,
                            stderr=subprocess.STDOUT)  # fmt: skip

  def run(self, command: str, *arguments: str, timeout: float = 1800) -> tuple[int, str]:
    """(exit code, what was printed) of `xlmr COMMAND`."""
    ended = subprocess.run([sys.executable, "-m", "xlmr_jax", command, *arguments], env=self.environment, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)  # fmt: skip
    return ended.returncode, ended.stdout


@contextlib.contextmanager
def clients_here(port: int) -> Iterator[None]:
  """This process's own clients ask the store at a port too."""
  os.environ.update(bucket_server.environment(port))
  yield


def fingerprint(workdir: str) -> dict[str, str]:
  """The sha256 of a run's logs, and of its last parameters."""
  import jax
  import numpy as np
  from ml_collections import ConfigDict

  from xlmr_jax.open_model import load_params, open_record
  from xlmr_jax.run.growing import read_growing
  from xlmr_jax.run.workdir import Workdir

  record, paths = open_record(workdir), Workdir(workdir)
  step, params = load_params(workdir, record, ConfigDict(record.config), "latest")
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(params):
    digest.update(np.asarray(leaf).tobytes())
  logs = {name: hashlib.sha256(read_growing(path)).hexdigest()[:16]
          for name, path in (("train", paths.train_log), ("held_out", paths.held_out_log))}  # fmt: skip
  return {"step": str(step), "parameters": digest.hexdigest()[:16], **logs}


def make_rows(clients: Clients, folder: Path, steps: int) -> tuple[str, str]:
  """(rows on the disk, the same rows in the bucket), and a finished run on the disk in folder/disk."""
  from xlmr_jax.demo.corpus import build_demo_rows, demo_rows
  from xlmr_jax.files import any_path
  from xlmr_jax.folders import copy_folder

  build_demo_rows(folder / "demo")
  rows, there = demo_rows(folder / "demo"), f"gs://{bucket_server.BUCKET}/rows"
  copy_folder(rows, any_path(there), last="manifest.json")
  code, said = clients.run("pretrain", *RUN, *TASK, f"--config.train_steps={steps}", f"--config.data.rows={rows}",
                           f"--workdir={folder / 'disk'}")  # fmt: skip
  assert code == 0, said
  return str(rows), there


def until_done(start: Any, rng: random.Random, kills: int, log: Path, at_work: str) -> tuple[int, int, list[int]]:
  """Starts a process again and again, killing it at random, until it ends by itself: (kills, those at work, exit codes).

  Three of four kills fall within four seconds after the process has printed `at_work`, the others in its start.
  """
  killed, working, codes = 0, 0, []
  while True:
    begin = log.stat().st_size if log.exists() else 0
    process = start()
    if killed < kills:
      is_late = killed % 4 > 0
      deadline = time.monotonic() + (600 if is_late else rng.uniform(3, 40))
      while process.poll() is None and time.monotonic() < deadline:
        if is_late and log.exists() and at_work.encode() in log.read_bytes()[begin:]:
          deadline = min(deadline, time.monotonic() + rng.uniform(0, 4))
          is_late = False
        time.sleep(0.05)
      if process.poll() is None:
        working += at_work.encode() in log.read_bytes()[begin:]
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        continue
    codes.append(process.wait(3000))
    if codes[-1] in (0, 1) or len(codes) > 20:
      return killed, working, codes


def kills(folder: Path, number: int, steps: int, seed: int) -> dict[str, Any]:
  """See the head of the file."""
  rng, at = random.Random(seed), f"gs://{bucket_server.BUCKET}/run"
  with bucket_server.serving() as port, clients_here(port):
    clients = Clients(port)
    _, rows = make_rows(clients, folder, steps)
    options = [*RUN, *TASK, f"--config.train_steps={steps}", f"--config.data.rows={rows}",
               f"--config.data.cache={folder / 'cache'}", f"--workdir={at}"]  # fmt: skip
    ended: dict[str, Any] = {}

    def evaluate() -> None:
      log = folder / "evaluate.log"
      ended["evaluator"] = until_done(lambda: clients.start("evaluate", f"--workdir={at}", log=log), random.Random(seed + 1),
                                      number, log, "demo_entities in")  # fmt: skip

    beside = threading.Thread(target=evaluate)
    beside.start()
    log = folder / "train.log"
    ended["trainer"] = until_done(lambda: clients.start("pretrain", *options, log=log), rng, number, log, "tokens/s")
    beside.join()
    from xlmr_jax.evaluation.ledger import read_ledger
    from xlmr_jax.files import any_path
    from xlmr_jax.folders import entries, local_folder
    from xlmr_jax.run.workdir import Workdir

    scored = [entry.step for entry in read_ledger(Workdir(at)) if entry.error is None]
    same = fingerprint(at) == fingerprint(str(folder / "disk"))
    code, said = clients.run("convert", "to-hf", f"--workdir={at}", "--checkpoint=best",
                             f"--out=gs://{bucket_server.BUCKET}/hf")  # fmt: skip
    opened = _opens(local_folder(any_path(f"gs://{bucket_server.BUCKET}/hf"))) if code == 0 else said[-300:]
    return {
      "trainer": ended["trainer"], "evaluator": ended["evaluator"], "same_parameters_and_logs": same, "scored": scored,
      "export": code, "opened_by_transformers": opened, "left": sorted(entries(any_path(at))),
    }  # fmt: skip


def _opens(folder: Path) -> Any:
  try:
    import transformers
  except ImportError:
    return "transformers is not installed"
  return type(transformers.AutoConfig.from_pretrained(folder)).__name__


def bad(folder: Path, steps: int, seed: int) -> dict[str, Any]:
  """See the head of the file."""
  proxy_port, at = bucket_server.free_port(), f"gs://{bucket_server.BUCKET}/run"
  with bucket_server.serving(proxy_port) as port:
    proxy = bucket_server.Proxy(port, proxy_port, seed)
    with clients_here(proxy_port):
      clients = Clients(proxy_port)
      _, rows = make_rows(clients, folder, steps)
      proxy.one_in = 10
      began = time.monotonic()
      code, said = clients.run("pretrain", *RUN, *TASK, f"--config.train_steps={steps}", f"--config.data.rows={rows}",
                               f"--config.data.cache={folder / 'cache'}", f"--workdir={at}", timeout=3000)  # fmt: skip
      seconds, proxy.one_in = time.monotonic() - began, None
      (folder / "bad.log").write_text(said)
      same = code == 0 and fingerprint(at) == fingerprint(str(folder / "disk"))
      return {"exit": code, "requests": proxy.requests, "failed": proxy.failed, "seconds": round(seconds),
              "same_parameters_and_logs": same, "said": said.splitlines()[-1][:200]}  # fmt: skip


def down(folder: Path, steps: int) -> dict[str, Any]:
  """See the head of the file."""
  proxy_port, at = bucket_server.free_port(), f"gs://{bucket_server.BUCKET}/run"
  with bucket_server.serving(proxy_port) as port:
    proxy = bucket_server.Proxy(port, proxy_port)
    with clients_here(proxy_port):
      clients = Clients(proxy_port)
      _, rows = make_rows(clients, folder, steps)
      options = [*RUN, *TASK, f"--config.train_steps={steps * 1000}", f"--config.data.rows={rows}",
                 f"--config.data.cache={folder / 'cache'}", f"--workdir={at}"]  # fmt: skip
      log = folder / "down.log"
      process = clients.start("pretrain", *options, log=log)
      while b"step 20/" not in log.read_bytes() and process.poll() is None:
        time.sleep(0.5)
      proxy.ways, proxy.one_in = (503,), 1
      began = time.monotonic()
      code = process.wait(1200)
      seconds = time.monotonic() - began
      proxy.one_in = None
      from xlmr_jax.run.checkpoint_folder import sound_steps
      from xlmr_jax.run.manifest import verify
      from xlmr_jax.run.workdir import Workdir

      steps_left = sound_steps(Workdir(at).checkpoints)
      for step in steps_left:
        verify(Workdir(at).checkpoints / str(step))
      lines = [line for line in log.read_text().splitlines() if "store" in line]
      again = clients.start("pretrain", *options, log=log)
      while f"resuming at step {steps_left[0]}" not in log.read_text() and again.poll() is None:
        time.sleep(0.5)
      again.send_signal(signal.SIGTERM)
      return {
        "exit": code,
        "seconds": round(seconds, 1),
        "sound": steps_left,
        "said": lines[-3:],
        "resumed": again.wait(300),
      }


def two(folder: Path) -> dict[str, Any]:
  """See the head of the file."""
  at = f"gs://{bucket_server.BUCKET}/run"
  with bucket_server.serving() as port, clients_here(port):
    clients = Clients(port)
    _, rows = make_rows(clients, folder, 20)
    options = [*RUN, "--config.train_steps=100000", f"--config.data.rows={rows}", f"--config.data.cache={folder / 'cache'}",
               f"--workdir={at}"]  # fmt: skip
    log = folder / "first.log"
    first = clients.start("pretrain", *options, log=log)
    while b"step 10/" not in log.read_bytes() and first.poll() is None:
      time.sleep(0.5)
    began = time.monotonic()
    code, said = clients.run("pretrain", *options)
    refused_s = time.monotonic() - began
    first.kill()
    first.wait()
    from xlmr_jax.files import any_path, read_json, write_json

    note = any_path(at) / ".lock"
    write_json(note, read_json(note) | {"host": "another machine"})
    log = folder / "third.log"
    began = time.monotonic()
    third = clients.start("pretrain", *options, log=log)
    while b"taking its place" not in log.read_bytes() and third.poll() is None:
      time.sleep(0.1)
    seconds = time.monotonic() - began
    third.send_signal(signal.SIGTERM)
    return {"second": code, "said": said.splitlines()[-1][:200], "refused_after_s": round(refused_s, 1),
            "taken_over_after_s": round(seconds, 1), "third": third.wait(300)}  # fmt: skip


def rows(folder: Path, batch_rows: int) -> dict[str, Any]:
  """See the head of the file."""
  proxy_port = bucket_server.free_port()
  with bucket_server.serving(proxy_port) as port:
    proxy = bucket_server.Proxy(port, proxy_port)
    with clients_here(proxy_port):
      from xlmr_jax.data import pipeline
      from xlmr_jax.data.masking import slots_per_row
      from xlmr_jax.data.mixture import Mixture
      from xlmr_jax.data.rows import RowStore
      from xlmr_jax.demo.corpus import build_demo_rows, demo_rows
      from xlmr_jax.files import any_path
      from xlmr_jax.folders import copy_folder

      build_demo_rows(folder / "demo", seq_len=512)
      there = f"gs://{bucket_server.BUCKET}/rows"
      copy_folder(demo_rows(folder / "demo"), any_path(there), last="manifest.json")
      proxy.delay_s = 0.05
      began = time.monotonic()
      store = RowStore(there, cache=str(folder / "cache"))
      opened = time.monotonic() - began
      mixture = Mixture(store.counts("train"), 0.3, 0)
      spec = pipeline.BatchSpec(batch_rows, None, slots_per_row(store.seq_len, 0.15), 0)
      with pipeline.train_batches(store, mixture, spec, 0) as batches:
        next(batches)
        first = time.monotonic() - began
        for _ in range(20):
          next(batches)
        began, number = time.monotonic(), 200
        for _ in range(number):
          next(batches)
        seconds = time.monotonic() - began
      size = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
      return {"opened_s": round(opened, 2), "first_batch_s": round(first, 2), "files": len(store.manifest["files"]),
              "mb": round(size / 1e6, 1), "rows_per_s": round(number * batch_rows / seconds),
              "needed_rows_per_s": 8192 / 0.1 / 64}  # fmt: skip


def main() -> None:
  """Parses the flags and runs one of the trials."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--what", choices=["kills", "bad", "down", "two", "rows"], required=True)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--steps", type=int, default=60)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--keep", help="folder for logs (default: a temporary one)")
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(given.keep or temporary)
    folder.mkdir(parents=True, exist_ok=True)
    seen = {"kills": lambda: kills(folder, given.kills, given.steps, given.seed),
            "bad": lambda: bad(folder, given.steps, given.seed), "down": lambda: down(folder, given.steps),
            "two": lambda: two(folder), "rows": lambda: rows(folder, 128)}[given.what]()  # fmt: skip
  print(json.dumps({"what": given.what, **seen}))


if __name__ == "__main__":
  main()
