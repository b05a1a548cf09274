"""Collectives of a compiled program: which devices take part, how many bytes, and how long a topology's network takes."""

import math
import re

import jax
import numpy as np

from xlmr_jax.planner.hlo import Computation, Instruction
from xlmr_jax.planner.topology import Topology

_IOTA = r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
_NAMED_AXES = r"mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}"


def _numbers(text: str) -> list[int]:
  return [int(x) for x in re.findall(r"\d+", text)]


def _iota(sizes: str, permutation: str | None) -> np.ndarray:
  """The numbers from 0 in an array of these sizes, its axes permuted; both are printed as "2,4"."""
  shape = _numbers(sizes)
  ids = np.arange(math.prod(shape)).reshape(shape)
  return ids.transpose(_numbers(permutation)) if permutation else ids


def replica_groups(text: str, devices: int) -> np.ndarray:
  """Device numbers int[groups, size] of an instruction's attributes, in any form that XLA prints.

  Without groups, or with groups of unequal sizes, it is one group of all devices.
  """
  match = re.search(r"replica_groups=(.*)", text)
  text = match[1] if match else ""
  if match := re.match(_IOTA, text):  # [groups,size]<=[sizes]T(permutation)
    return _iota(match[3], match[4]).reshape(int(match[1]), int(match[2]))
  if match := re.match(_NAMED_AXES, text):
    return _groups_of_named_axes(match[1], match[2] or "", match[3])
  text = text[: text.index("}}") + 1] if "}}" in text else ""
  groups = [_numbers(group) for group in re.findall(r"\{([\d,\s]+)\}", text)]
  if not groups or len({len(group) for group in groups}) > 1:
    return np.arange(devices)[None]
  return np.array(groups)


def _groups_of_named_axes(mesh: str, order: str, spanned: str) -> np.ndarray:
  """The groups of mesh['a'=4,'b'=2], device_ids=(ORDER) {'a'}: the devices that differ along the axes in {} alone.

  An axis in {} may be a part of one of the mesh: 'axis':(before)size.
  """
  axes = [(name, int(size)) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)]
  ids = np.arange(math.prod(size for _, size in axes))
  if match := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\)?)?$", order):
    ids = _iota(match[1], match[2])
  elif order:
    ids = np.array(_numbers(order))
  sizes: list[int] = []
  taken: list[int] = []  # which of sizes the groups span
  parts = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", spanned)
  for name, size in axes:
    named = [part for part in parts if part[0] == name]
    split = [(int(before), int(part)) for _, before, part in named if part]
    before, part = split[0] if split else (1, size)
    for length, is_taken in ((before, False), (part, bool(named)), (size // before // part, False)):
      taken += [len(sizes)] if is_taken else []
      sizes.append(length)
  kept = [i for i in range(len(sizes)) if i not in taken]
  return ids.reshape(sizes).transpose(kept + taken).reshape(-1, math.prod(sizes[i] for i in taken))


def collective_groups(instruction: Instruction, devices: int) -> np.ndarray:
  """Device numbers int[groups, size] that exchange data; of a permutation the first pair of different devices alone."""
  if instruction.collective != "collective-permute":
    return replica_groups(instruction.rest, devices)
  pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.attribute("source_target_pairs"))
  return np.array([(int(a), int(b)) for a, b in pairs if a != b][:1] or [[0]])


def collective_bytes(computation: Computation, instruction: Instruction) -> int:
  """The bytes of a collective's whole array on one device: what an all-gather makes, and what any other takes."""
  taken = sum(x.bytes for x in computation.operands(instruction))
  if instruction.collective == "all-gather":
    # The result of an all-gather-start repeats its input.
    return max(instruction.bytes - (taken if instruction.opcode.endswith("-start") else 0), taken)
  return taken


class Network:
  """The devices of a mesh, in its order, on their slices."""

  def __init__(self, topology: Topology, mesh: jax.sharding.Mesh):
    self._topology, self._axis_names = topology, mesh.axis_names
    # Of each device: its slice, its coordinates there, and its core on the chip.
    self._locations = np.array(
      [
        [getattr(device, "slice_index", 0) or 0, *device.coords[: topology.chip.axes], device.core_on_chip]
        for device in mesh.devices.flat
      ]
    )
    self._mesh_index = np.stack(np.unravel_index(np.arange(mesh.devices.size), mesh.devices.shape), axis=1)

  @property
  def devices(self) -> int:
    """The number of devices."""
    return len(self._locations)

  def mesh_axes(self, groups: np.ndarray) -> str:
    """The names of the mesh's axes along which a group's members differ: "data", "data+fsdp", or "none"."""
    index = self._mesh_index[groups[0]]
    return "+".join(name for axis, name in enumerate(self._axis_names) if len(set(index[:, axis])) > 1) or "none"

  def seconds(self, kind: str, size: float, groups: np.ndarray) -> float:
    """The time of a collective. size: the bytes of the whole array, an all-gather's result or a reduce-scatter's input."""
    chip, group = self._topology.chip, self._locations[groups[0]]
    n = len(group)
    if n == 1:
      return 0.0
    slices = len(set(group[:, 0]))
    links = [2.0 if self._topology.wraps(axis) else 1.0 for axis in range(chip.axes) if len(set(group[:, 1 + axis])) > 1]
    bandwidth = chip.ici_link_bytes * (sum(links) or 1.0)  # Between the two devices of a chip: as over one link (ours).
    passes = {"all-reduce": 2.0, "collective-permute": 1.0}.get(kind, 1.0)
    inside = n // slices
    seconds = passes * size * (inside - 1) / inside / bandwidth
    if kind == "collective-permute":
      seconds = size / bandwidth
    if slices > 1:  # Each device sends its part of what its slice has reduced.
      seconds += passes * size / inside * (slices - 1) / slices / chip.dcn_bytes
    return seconds
