"""TPU slices by the names that users give them, and libtpu's description of devices that are not there."""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from xlmr_jax.errors import UserError
from xlmr_jax.hardware import CHIPS, Chip

GIB = 2**30
POD_TYPES = {"v4": "v4", "v5litepod": "v5e", "v5e": "v5e", "v5p": "v5p", "v6e": "v6e", "tpu7x": "tpu7x"}
SHAPES = {  # by the number of axes: the shapes of the slices that are sold, by their chips
  2: {4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)},
  3: {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8),
      512: (8, 8, 8), 1024: (8, 8, 16), 2048: (8, 16, 16), 4096: (16, 16, 16), 6144: (16, 16, 24)},
}  # fmt: skip


class Topology(NamedTuple):
  """Slices of chips in a shape."""

  family: str  # a key of CHIPS
  shape: tuple[int, ...]  # chips along each axis of one slice
  slices: int = 1

  @property
  def name(self) -> str:
    """As users write it: v5e:4x4, v5e:4x4 x 2 slices."""
    return f"{self.family}:{'x'.join(map(str, self.shape))}" + (f" x {self.slices} slices" if self.slices > 1 else "")

  @property
  def chip(self) -> Chip:
    """The data sheet of its chips."""
    return CHIPS[self.family]

  @property
  def chips(self) -> int:
    """The chips of all slices."""
    return math.prod(self.shape) * self.slices

  @property
  def devices(self) -> int:
    """The jax devices of all slices: one per chip, two on tpu7x."""
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
  """The Topology of v5e:16x16 or v5p:4x4x8 (chips along each axis), or of a pod type such as v5litepod-256 or v4-32.

  A pod type counts chips of v5e and v6e, and TensorCores of v4, v5p and tpu7x, two per chip. UserError: no such slice.
  """
  if slices < 1:
    raise UserError(f"--slices={slices}: must be at least 1")

  def refusal(why: str) -> UserError:
    return UserError(f"--topology={name}: {why}; known are {known()}")

  if match := re.fullmatch(r"(\w+)-(\d+)", name.lower()):
    if match[1] not in POD_TYPES:
      raise refusal(f"{match[1]} is no pod type")
    family, count = POD_TYPES[match[1]], int(match[2])
    chips, rest = divmod(count, CHIPS[family].cores)
    shapes = SHAPES[CHIPS[family].axes]
    if rest or chips not in shapes:
      raise refusal(f"no slice of {count} {'TensorCores' if CHIPS[family].cores > 1 else 'chips'}")
    return Topology(family, shapes[chips], slices)
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name.lower())
  if not match or match[1] not in CHIPS:
    raise refusal("not a topology")
  shape = tuple(int(size) for size in match[2].split("x"))
  axes = CHIPS[match[1]].axes
  if len(shape) != axes:
    raise refusal(f"{match[1]} has {axes} axes, not {len(shape)}")
  if any(size % 2 or size < 2 for size in shape[:2]) or min(shape) < 1:
    raise refusal("a host has 2 x 2 chips, so the first two sizes are even")
  return Topology(match[1], shape, slices)


def prepare_environment() -> None:
  """Sets what keeps libtpu from asking the network, or a lock, for TPUs. Call it before any JAX backend starts."""
  jax.config.update("jax_platforms", "cpu")  # JAX has read the environment already.
  os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TPU_ACCELERATOR_TYPE="v5litepod-16",
    TPU_WORKER_HOSTNAMES="localhost",
  )
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")  # Errors come as exceptions; the rest is chatter.
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


NO_LIBTPU = "the planner compiles with libtpu, which is not installed; pip install 'jax[tpu]' (x86-64 Linux, no TPU)"


def has_libtpu() -> bool:
  """Whether libtpu is installed, without importing it."""
  return importlib.util.find_spec("libtpu") is not None


def describe(topology: Topology) -> list[Any]:
  """jax devices that can be compiled for but not run on. UserError if libtpu is missing or does not know the shape."""
  if not has_libtpu():
    raise UserError(NO_LIBTPU)
  options: dict[str, Any] = {"chip_config_name": "megacore"} if topology.chip.megacore else {}
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
