"""Runs the sweep(add) of a config: one run after another, or prints one command per line for a scheduler.

  python launch/sweep.py --config=sweeps/alpha --workdir=runs/alpha [--print] [--config.train_steps=100 ...]

--config takes a file, or the name of a config that ships. Its sweep(add) calls add(name, {"data.alpha": 0.3, ...}) once per
run; the workdir of a run is WORKDIR/name. Runs with a result.json are done and skipped, others resume. Flags that are not
this command's own go to every run. A run that exits 42 is started again. One that fails is named at the end, and the
others still run.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

from xlmr_jax.config import config_path, load_module
from xlmr_jax.errors import EXIT_RESTART, UserError, run_command
from xlmr_jax.files import any_path
from xlmr_jax.run.children import run_child
from xlmr_jax.run.workdir import Workdir

RESTARTS = 20  # of one run, at most


def load_runs(config: str) -> dict[str, dict]:
  """{name: overrides} in the order of sweep(add). UserError if the config has none or repeats a name."""
  path = config_path(config.partition(":")[0])
  module = load_module(path)
  if not hasattr(module, "sweep"):
    raise UserError(f"{path} has no sweep(add)")
  runs: dict[str, dict] = {}

  def add(name: str, overrides: dict) -> None:
    if name in runs:
      raise UserError(f"{path}: two runs are named {name!r}")
    runs[name] = overrides

  module.sweep(add)
  return runs


def command(config: str, workdir: Workdir, overrides: dict, more: list[str]) -> list[str]:
  """The command line of one run."""
  changes = [f"--config.{key}={value}" for key, value in overrides.items()]
  return [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config={config}", f"--workdir={workdir}", *changes, *more]


def main() -> int:
  """Runs or prints what is left; returns 1 if a run failed."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
  )
  parser.add_argument("--config", required=True, metavar="FILE|NAME[:ARG]")
  parser.add_argument("--workdir", required=True, help="a folder of this machine, or gs://...")
  parser.add_argument(
    "--print", "--dry-run", action="store_true", dest="only_print", help="print the commands that are left to run"
  )
  own, more = parser.parse_known_args()
  root = any_path(own.workdir)
  failed, left = [], {}
  for name, overrides in load_runs(own.config).items():
    workdir = Workdir(root / name)
    if workdir.result.exists():
      print(f"{name}: done", file=sys.stderr)
    else:
      left[name] = command(own.config, workdir, overrides, more)
  for name, line in left.items():
    if own.only_print:
      print(shlex.join(line))
      continue
    print(f"{name}: {shlex.join(line)}", file=sys.stderr, flush=True)
    code = EXIT_RESTART
    for attempt in range(RESTARTS):
      if attempt:
        print(f"{name}: asked to be started again", file=sys.stderr, flush=True)
      code = run_child(line)
      if code != EXIT_RESTART:
        break
    if code:
      failed.append(f"{name} (exit {code})")
  if not own.only_print:
    results = {
      folder.name: json.loads(Workdir(folder).result.read_text())["held_out_loss"]
      for folder in sorted(root.glob("*"))
      if Workdir(folder).result.exists()
    }
    print(json.dumps({"held_out_loss": results, "failed": failed}))
  return 1 if failed else 0


if __name__ == "__main__":
  run_command(main)()
