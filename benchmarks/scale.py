"""What a start, a save and a restore take on 4, 64 and 1,024 hosts with a bucket: on paper, from pieces measured here.

  python -m benchmarks.scale [--hosts=4,64,1024] [--configs=base,large,xl]

Measured on this machine: sha256 of a core. Counted: the files that a host writes for a checkpoint. From the store's
public pages (cloud.google.com/storage/quotas): a bucket begins with about 1,000 writes and 5,000 reads a second, a region
gives a project 200 Gbit/s by default. Assumed: 1 GB/s between a host and the store, 50 ms a request, 16 requests at once and
8 cores that hash on each host. The compilation and the rows' size are flags. No pod was seen: these are sums, not figures.
"""

import argparse
import hashlib
import time
from typing import Any

import jax

from xlmr_jax.config_files import load_config
from xlmr_jax.model.build import params_shapes

HOST_GB_S, REGION_GB_S, REQUEST_S, AT_ONCE, CORES = 1.0, 25.0, 0.05, 16, 8
WRITES_S, READS_S = 1000.0, 5000.0
# A process writes for each checkpoint: array files, a manifest of its own, metadata and its seal; process 0 some more.
FILES_OF_A_HOST, FILES_OF_THE_FIRST = 5, 9


def hashing_gb_s() -> float:
  """GB/s of sha256 on one core."""
  block, digest, began, size = bytes(2**24), hashlib.sha256(), time.perf_counter(), 0
  while time.perf_counter() - began < 1.0:
    digest.update(block)
    size += len(block)
  return size / (time.perf_counter() - began) / 1e9


def checkpoint_gb(name: str) -> float:
  """GB of parameters and two moments in float32."""
  shapes = params_shapes(load_config(name), 250_002)
  return 12 * sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e9


def rate_gb_s(hosts: int) -> float:
  """GB/s between all hosts and the store."""
  return min(hosts * HOST_GB_S, REGION_GB_S)


def seconds(
  hosts: int, gb: float, rows_gb: float, first_rows_gb: float, compile_s: float, hash_gb_s: float
) -> dict[str, float]:
  """Seconds of each part."""
  hashed = gb / hosts / (hash_gb_s * CORES)
  files = FILES_OF_A_HOST * hosts + FILES_OF_THE_FIRST
  writing = max(gb / rate_gb_s(hosts), files / WRITES_S) + 3 * REQUEST_S
  reading_back = max(gb / rate_gb_s(hosts), files / READS_S)
  collecting = hosts * REQUEST_S / AT_ONCE  # process 0 reads the others' seals
  verify = max(gb / rate_gb_s(hosts), files / READS_S) + hashed
  # A host reads its part of the state, and where the mesh keeps copies, each group of hosts reads all of it.
  restore = max(gb, gb * hosts / 8) / rate_gb_s(hosts) + 4 * REQUEST_S
  return {
    "rows, the first batches": first_rows_gb * hosts / rate_gb_s(hosts),
    "rows, all": rows_gb * hosts / rate_gb_s(hosts),
    "verify": verify, "restore": restore, "compile": compile_s,
    "save (beside the steps)": writing, "seal (beside the steps)": reading_back + hashed + collecting,
    "seal by one host, as before": gb / HOST_GB_S + gb / (hash_gb_s * CORES),
  }  # fmt: skip


def main() -> None:
  """Prints a table in Markdown."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--hosts", default="4,64,1024")
  parser.add_argument("--configs", default="base,large,xl")
  parser.add_argument("--rows_gb", type=float, default=300.0, help="all row files of the corpus")
  parser.add_argument("--first_rows_gb", type=float, default=5.0, help="files that the first batches of a host touch")
  parser.add_argument("--compile_s", type=float, default=60.0)
  given = parser.parse_args()
  hash_gb_s = hashing_gb_s()
  print(f"sha256 here: {hash_gb_s:.2f} GB/s of a core\n")
  hosts = [int(number) for number in given.hosts.split(",")]
  for name in given.configs.split(","):
    gb = checkpoint_gb(name)
    found: list[dict[str, Any]] = [
      seconds(number, gb, given.rows_gb, given.first_rows_gb, given.compile_s, hash_gb_s) for number in hosts
    ]
    print(f"| {name}, {gb:.1f} GB, seconds | " + " | ".join(f"{number} hosts" for number in hosts) + " |")
    print("|---|" + "---|" * len(hosts))
    for part in found[0]:
      print(f"| {part} | " + " | ".join(f"{one[part]:.1f}" for one in found) + " |")
    print()


if __name__ == "__main__":
  main()
