"""Runs targets under Atheris, each in a process of its own: python -m tests.fuzz [TARGET ...] [--seconds=600]."""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FOUND = Path("fuzz_found")  # where a faulty input is left


def main(arguments: list[str]) -> int:
  """Runs the targets one after the other; 1 if a fault was found."""
  from tests.fuzz.targets import TARGETS

  seconds = int(next((x.split("=")[1] for x in arguments if x.startswith("--seconds=")), "600"))
  names = [x for x in arguments if not x.startswith("--")] or list(TARGETS)
  if unknown := [name for name in names if name not in TARGETS]:
    print(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}", file=sys.stderr)
    return 1
  FOUND.mkdir(exist_ok=True)
  failed = []
  for name in names:
    with tempfile.TemporaryDirectory() as corpus:
      command = [sys.executable, "-m", "tests.fuzz", "--one", name, corpus, f"-max_total_time={seconds}",
                 "-timeout=20", "-rss_limit_mb=2048", "-max_len=20000",
                 f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1"]  # fmt: skip
      result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    stats = [line for line in result.stderr.splitlines() if line.startswith("stat::") or " DONE " in line]
    print(f"{name}: exit {result.returncode}; {'; '.join(' '.join(line.split()) for line in stats)}", flush=True)
    if result.returncode:
      failed.append(name)
      print(result.stderr[-3000:], flush=True)
  print(
    f"{len(names)} targets, {len(failed)} with faults: {', '.join(failed)}" if failed else f"{len(names)} targets, no fault"
  )
  return int(bool(failed))


def run_one(name: str, options: list[str]) -> None:
  """One target in this process; options are libFuzzer's, of which the first is a folder for what is found interesting."""
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  import atheris

  with atheris.instrument_imports(include=["xlmr_jax"]):
    from tests.fuzz import targets
  from tests.fuzz.mutate import mutate

  for i, data in enumerate(targets.all_seeds(name)):
    (Path(options[0]) / f"seed{i}").write_bytes(data)
  sys.stderr.flush()

  def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    return mutate(data, rng)[:max_size] if rng.random() < 0.5 else atheris.Mutate(data, max_size)

  atheris.Setup([f"fuzz {name}", *options], lambda data: targets.run_once(name, data), custom_mutator=mutated)
  atheris.Fuzz()


if __name__ == "__main__":
  if sys.argv[1:2] == ["--one"]:
    run_one(sys.argv[2], sys.argv[3:])
  else:
    sys.exit(main(sys.argv[1:]))
