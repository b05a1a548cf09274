"""TPU chips and slices by the names that users give them, and libtpu's description of ones that are not there.

A chip is what is rented and named; a jax device is what a program runs on: the same but for tpu7x, where a chip is two.
Figures are of one device. Megacore (v4, v5p): one device is both TensorCores of a chip.
"""

import importlib.util
import math
import os
import re
from typing import NamedTuple

from xlmr_jax.errors import UserError
from xlmr_jax.run.metrics import PEAK_FLOPS

GIB = 2**30


class Chip(NamedTuple):
  """Data sheet figures: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}; bandwidths in bytes/s, one way."""

  kind: str  # jax's device_kind, the key of logs.PEAK_FLOPS
  flops_per_cycle: int  # bf16: 2 x side^2 x matrix units, as the compiler counts (see CLOCKS below)
  hbm_gib: float  # what libtpu lets a program have, by its own overflow message; the sheets say 32, 16, 95, 32, 192 / 2
  hbm_bytes: float
  ici_link_bytes: float  # of one link in one direction: half of the sheet's bidirectional figure / links
  dcn_bytes: float  # between slices
  axes: int  # of the slice's shape; a chip has two links along each
  devices: int = 1  # of a chip
  cores: int = 1  # that a pod type counts for a chip: v4-32 is 16 chips
  megacore: bool = False

  @property
  def peak_flops(self) -> float:
    return PEAK_FLOPS[self.kind]

  @property
  def clock(self) -> float:
    """Cycles a second: 1.05, 1.50, 1.75, 1.75 and 2.20 GHz."""
    return self.peak_flops / self.flops_per_cycle


# CLOCKS. The compiler's estimates are cycles, so peaks must be per cycle of the compiler's clock. Checked by compiling
# [4096, 4096] x [4096, 4096] in bf16 (libtpu 0.0.42): 2 x 4096^3 FLOPs over its estimate came to 127k (v5e), 230k (v4),
# 252k (v5p), 456k (v6e) and 435k (tpu7x) a cycle, 83 to 97% of what stands here; [8192, 8192] gave 70 to 93%, since the
# operands no longer fit on the chip. Peak / flops_per_cycle is then a clock, and 1.05, 1.5 and 1.75 GHz are the published
# ones of v4, v5e and v5p. v6e's page speaks of two 256 x 256 units; its 918 TFLOP/s and the estimates say four.
CHIPS = {
  "v4": Chip("TPU v4", 2 * 128**2 * 8, 30.75, 1.2e12, 45e9, 6.25e9, axes=3, cores=2, megacore=True),
  "v5e": Chip("TPU v5 lite", 2 * 128**2 * 4, 15.75, 819e9, 50e9, 3.125e9, axes=2),
  "v5p": Chip("TPU v5", 2 * 128**2 * 8, 95.74, 2765e9, 100e9, 6.25e9, axes=3, cores=2, megacore=True),
  "v6e": Chip("TPU v6 lite", 2 * 256**2 * 4, 31.25, 1638e9, 100e9, 12.5e9, axes=2),
  "tpu7x": Chip("TPU7x", 2 * 256**2 * 4, 94.75, 7380e9 / 2, 50e9, 6.25e9, axes=3, devices=2, cores=2),
}  # fmt: skip
POD_TYPES = {"v4": "v4", "v5litepod": "v5e", "v5e": "v5e", "v5p": "v5p", "v6e": "v6e", "tpu7x": "tpu7x"}
SHAPES = {  # chips: shape, of the slices that are sold
  2: {4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)},
  3: {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8),
      512: (8, 8, 8), 1024: (8, 8, 16), 2048: (8, 16, 16), 4096: (16, 16, 16), 6144: (16, 16, 24)},
}  # fmt: skip


class Topology(NamedTuple):
  """slices of chips in a shape."""

  family: str
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def name(self) -> str:
    return f"{self.family}:{'x'.join(map(str, self.shape))}" + (f" x {self.slices} slices" if self.slices > 1 else "")

  @property
  def chip(self) -> Chip:
    return CHIPS[self.family]

  @property
  def chips(self) -> int:
    return math.prod(self.shape) * self.slices

  @property
  def devices(self) -> int:
    return self.chips * self.chip.devices

  def wraps(self, axis: int) -> bool:
    """Whether the links along an axis close to a ring: whole 4 x 4 x 4 cubes, or 16 chips in a row of v5e and v6e."""
    if self.chip.axes == 2:
      return self.shape[axis] == 16
    return all(size % 4 == 0 for size in self.shape)


def known() -> str:
  """One line of the names that parse() takes."""
  pods = ", ".join(
    f"{pod}-{4 * CHIPS[family].cores} to {pod}-{max(SHAPES[CHIPS[family].axes]) * CHIPS[family].cores}"
    for pod, family in POD_TYPES.items()
    if pod != "v5e"
  )
  return f"FAMILY:SHAPE with {', '.join(CHIPS)}, such as v5e:4x4 or v5p:4x4x8, or a pod type: {pods}"


def parse(name: str, slices: int = 1) -> Topology:
  """A Topology from v5e:16x16, v5p:4x4x8 (chips along each axis) or a pod type, v5litepod-256, v4-32.

  A pod type counts chips of v5e and v6e, TensorCores (two a chip) of v4, v5p and tpu7x.
  """
  if slices < 1:
    raise UserError(f"--slices={slices}: must be at least 1")
  refuse = lambda why: UserError(f"--topology={name}: {why}; known are {known()}")  # noqa: E731
  if match := re.fullmatch(r"(\w+)-(\d+)", name.lower()):
    family, count = POD_TYPES.get(match[1]), int(match[2])
    if family is None:
      raise refuse(f"{match[1]} is no pod type")
    chips, rest = divmod(count, CHIPS[family].cores)
    shapes = SHAPES[CHIPS[family].axes]
    if rest or chips not in shapes:
      raise refuse(f"no slice of {count} {'TensorCores' if CHIPS[family].cores > 1 else 'chips'}")
    return Topology(family, shapes[chips], slices)
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name.lower())
  if not match or match[1] not in CHIPS:
    raise refuse("not a topology")
  shape = tuple(int(size) for size in match[2].split("x"))
  axes = CHIPS[match[1]].axes
  if len(shape) != axes:
    raise refuse(f"{match[1]} has {axes} axes, not {len(shape)}")
  if any(size % 2 or size < 2 for size in shape[:2]) or min(shape) < 1:
    raise refuse("a host has 2 x 2 chips, so the first two sizes are even")
  return Topology(match[1], shape, slices)


def prepare_environment() -> None:
  """Settings without which libtpu asks the network, or a lock, for TPUs. Before any JAX backend starts."""
  os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TPU_ACCELERATOR_TYPE="v5litepod-16",
    TPU_WORKER_HOSTNAMES="localhost",
  )
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")  # errors come as exceptions; the rest is chatter
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


NO_LIBTPU = "the planner compiles with libtpu, which is not installed; pip install 'jax[tpu]' (x86-64 Linux, no TPU)"


def has_libtpu() -> bool:
  return importlib.util.find_spec("libtpu") is not None


def describe(topology: Topology) -> list:
  """jax devices that can be compiled for and not run on. UserError if libtpu is missing or does not know the shape."""
  if not has_libtpu():
    raise UserError(NO_LIBTPU)
  from jax.experimental import topologies

  options = {"chip_config_name": "megacore"} if topology.chip.megacore else {}
  options |= {"num_slices": topology.slices} if topology.slices > 1 else {}
  shape = "x".join(map(str, topology.shape))
  try:
    described = topologies.get_topology_desc(platform="tpu", topology_name=f"{topology.family}:{shape}", **options)
  except Exception as error:
    reason = " ".join(str(error).split())[:200]
    raise UserError(f"--topology={topology.name}: libtpu does not describe it ({reason}); known are {known()}") from None
  devices = list(described.devices)
  if len(devices) != topology.devices:
    raise ValueError(f"libtpu describes {topology.name} as {len(devices)} devices, not {topology.devices}")
  return devices
