"""kill -9 at random moments of a run, which is started again on 1, 2 and 4 processes in turn.

  python -m benchmarks.kills [--kills=50] [--processes=1,2,4] [--steps=400] [--seed=0]

The rows of every line of train.jsonl must be those of a run that nobody killed; on one process throughout, the last
checkpoint must be the same bits, too. Nothing may be lost but the steps since the last save. The last line is a JSON object.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import test_hosts
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.workdir import Workdir

SAVE_EVERY = 5


def start(processes: int, rows: Path, workdir: Path, steps: int, log: Path) -> subprocess.Popen:
  """The run on so many processes of this machine, in a process group of its own."""
  flags = [
    *test_hosts.flags_for(rows, workdir),
    f"--config.train_steps={steps}",
    f"--config.checkpoint.every_steps={SAVE_EVERY}",
  ]
  environment = test_hosts.environment() | {"PIDS_FILE": str(workdir.parent / "pids")}
  return subprocess.Popen(["bash", "launch/local.sh", str(processes), *flags], cwd=test_hosts.ROOT, env=environment,
                          stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip


def lines(workdir: Path) -> list[dict[str, Any]]:
  """What train.jsonl says of the data: which rows of which language each step had seen, and how many tokens were masked."""
  found = []
  for line in map(json.loads, Workdir(workdir).train_log.read_text().splitlines()):
    rows = {name: of["rows"] for name, of in line["languages"].items()}
    found.append({"step": line["step"], "masked_tokens": line["masked_tokens"], "rows": rows})
  return found


def killed_run(
  number: int, processes: list[int], rows: Path, workdir: Path, steps: int, rng: random.Random
) -> dict[str, Any]:
  """Runs to the end through so many kills. Each falls at a random moment: of the start, of steps, or of a save."""
  log, lost, at_start = workdir.parent / "log", [], 0
  for kill in range(number):
    process = start(processes[kill % len(processes)], rows, workdir, steps, log)
    before = test_hosts.logged(workdir)
    if rng.random() < 0.25:  # while it imports, compiles or restores
      time.sleep(rng.uniform(0, 12))
      at_start += 1
    else:
      enough = before + rng.uniform(2, steps / number * 1.5)
      while test_hosts.logged(workdir) < enough and process.poll() is None:
        time.sleep(0.005)
      time.sleep(rng.uniform(0, 0.3))
    if process.poll():
      raise SystemExit(f"the run ended with {process.returncode} by itself:\n{log.read_text()[-3000:]}")
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = sound_steps(Workdir(workdir).checkpoints) if Workdir(workdir).checkpoints.exists() else []
    lost.append(test_hosts.logged(workdir) - (saved[0] if saved else 0))
    print(f"kill {kill + 1}: at step {test_hosts.logged(workdir)}, saved {saved[:2]}", flush=True)
  process = start(processes[0], rows, workdir, steps, log)
  return {"exit": process.wait(), "most_steps_lost": max(lost), "killed_at_start": at_start}


def main() -> None:
  """Parses the flags, runs and compares."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--processes", default="1,2,4")
  parser.add_argument("--steps", type=int, default=400)
  parser.add_argument("--seed", type=int, default=0)
  given = parser.parse_args()
  from tests.tiny import make_store

  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    rows = make_store(folder / "rows")
    for name in ("whole", "killed"):
      (folder / name).mkdir()
    whole = start(1, rows, folder / "whole" / "run", given.steps, folder / "whole" / "log")
    if whole.wait():
      sys.exit((folder / "whole" / "log").read_text()[-2000:])
    processes = [int(number) for number in given.processes.split(",")]
    seen = killed_run(given.kills, processes, rows, folder / "killed" / "run", given.steps, random.Random(given.seed))
    seen["same_batches"] = lines(folder / "whole" / "run") == lines(folder / "killed" / "run")
    if processes == [1]:
      try:
        test_hosts.assert_same_run(folder / "whole" / "run", folder / "killed" / "run", given.steps)
        seen["same_bits"] = True
      except AssertionError:
        seen["same_bits"] = False
    print(json.dumps({"kills": given.kills, "processes": processes, "steps": given.steps, **seen}))


if __name__ == "__main__":
  main()
