"""Runs a config file's sweep(add): one run after another, or one command a line for a scheduler.

  python launch/sweep.py --config=configs/sweeps/alpha.py --workdir=runs/alpha [--print] [--config.train_steps=100 ...]

A sweep(add) calls add(name, {"data.alpha": 0.3, ...}) once a run; its workdir is WORKDIR/name. Runs with a result.json
are done and skipped, others resume; flags that are not this command's own go to every run. A run that exits 42 is
started again; one that fails is named at the end, and the others still run.
"""

import argparse
import importlib.util
import json
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

from xlmr_jax.errors import EXIT_RESTART, run_child

RESTARTS = 20  # of one run, at most


def load_runs(config: Path) -> dict[str, dict]:
  """{name: overrides} in the order of sweep(add); exits with one line if the file has none or repeats a name."""
  if not config.is_file():
    sys.exit(f"error: {config}: no such config file")
  spec = importlib.util.spec_from_file_location("sweep_config", config)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "sweep"):
    sys.exit(f"error: {config} has no sweep(add)")
  runs: dict[str, dict] = {}

  def add(name: str, overrides: dict) -> None:
    if name in runs:
      sys.exit(f"error: {config}: two runs are named {name!r}")
    runs[name] = overrides

  module.sweep(add)
  return runs


def command(config: Path, workdir: Path, overrides: dict, more: list[str]) -> list[str]:
  return [
    sys.executable,
    "-m",
    "xlmr_jax",
    "pretrain",
    f"--config={config}",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in overrides.items()),
    *more,
  ]


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
  )
  parser.add_argument("--config", type=Path, required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--print", action="store_true", dest="only_print", help="print the commands that are left to run")
  own, more = parser.parse_known_args()
  failed, left = [], {}
  for name, overrides in load_runs(own.config).items():
    if (own.workdir / name / "result.json").exists():
      print(f"{name}: done", file=sys.stderr)
    else:
      left[name] = command(own.config, own.workdir / name, overrides, more)
  for name, line in left.items():
    if own.only_print:
      print(shlex.join(line))
      continue
    print(f"{name}: {shlex.join(line)}", file=sys.stderr, flush=True)
    for _ in range(RESTARTS):
      code = run_child(line)
      if code != EXIT_RESTART:
        break
      print(f"{name}: asked to be started again", file=sys.stderr, flush=True)
    if code:
      failed.append(f"{name} (exit {code})")
  if not own.only_print:
    results = {
      path.parent.name: json.loads(path.read_text())["held_out_loss"] for path in sorted(own.workdir.glob("*/result.json"))
    }
    print(json.dumps({"held_out_loss": results, "failed": failed}))
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
