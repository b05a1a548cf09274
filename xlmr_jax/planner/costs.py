"""What a compiled step costs on one device: cycles by part of the model, FLOPs, collectives. ASSUMPTIONS says how.

Cycles are the compiler's own estimates where it gives one; a clock turns them into time.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from xlmr_jax.planner.hlo import Computation, Instruction, Module, product_flops
from xlmr_jax.planner.topology import Topology

KERNEL_EFFICIENCY = 0.35  # of peak, in a Pallas kernel: the compiler does not estimate those
SMALL_BYTES = 4096  # what has no estimate and is no larger costs nothing

PARTS = (  # op_name                                        part; the first match counts
  (r"optimizer",                                            "optimizer"),
  (r"vocabulary_loss|mlm_loss|head_loss",                   "head and loss"),
  (r"head_(dense|norm|bias)",                               "head and loss"),
  (r"qkv|attention_out|attention_norm",                     "attention projections"),
  (r"ffn_(in|out|norm)|gelu",                               "feed-forward"),
  (r"attention|BQHK|BHQS",                                  "attention"),
  (r"embedding|XLMR\.encode/(gather|scatter)",              "embedding"),
  (r"shard_map",                                            "head and loss"),  # of a step without named scopes
  (r"^jit\(train_step\)/(?!.*(jvp|while|transpose))",       "optimizer"),  # clipping, metrics and Adam follow the gradient
)  # fmt: skip
PART_NAMES = (
  "embedding",
  "attention",
  "attention projections",
  "feed-forward",
  "head and loss",
  "optimizer",
  "collectives",
  "other",
)
FREE = (
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "partition-id",
  "replica-id",
  "after-all",
  "opt-barrier",
  "while",
  "call",
  "conditional",
  "async-update",
  "copy-start",
  "slice-start",
  "dynamic-slice-start",
  "infeed",
  "outfeed",
  "add-dependency",
  "domain",
  "recv",
  "rng-get-and-update-state",
)
FREE_CALLS = (
  "AllocateBuffer",
  "ConcatBitcast",
  "AssumeGatherIndicesInBound",
  "Sharding",
  "annotate_device_placement",
  "ZeroCrop",
  "PrepareAsyncCallStart",
)
# Products of [L, L, K] that a splash attention kernel makes: scores and values; then both again with their gradients.
SPLASH = (("splash.*fwd", 2), ("splash.*dq", 3), ("splash.*dkv", 4))

ASSUMPTIONS = (
  "cycles are the compiler's estimates (estimated_cycles); none of this was run on a TPU",
  "a fusion counts for the part of its root's op_name, and what has no name for that of its input: XLA fuses element-wise "
  "work into its neighbours",
  "loop bodies count as often as their loop runs",
  f"Pallas kernels: the larger of FLOPs / ({KERNEL_EFFICIENCY} x peak) and bytes / HBM bandwidth",
  "work without an estimate (gathers, scatters): the bytes that it must move / HBM bandwidth, a lower bound",
  "copies between HBM and on-chip memory that the compiler made asynchronous are hidden",
  "collectives: bytes x steps of a ring / one-way ICI bandwidth of the links along the axes they span, half of it on axes "
  "that do not close to a ring; between slices / the data-centre network's",
  "synchronous collectives hide behind nothing; asynchronous ones, and SparseCores' work, behind the cycles scheduled "
  "between start and done",
  "input, host and checkpoints take no time",
)


@dataclass
class Costs:
  """Of one device and one run of the program."""

  cycles: Counter = field(default_factory=Counter)  # by part
  flops: Counter = field(default_factory=Counter)  # by part: products, and kernels' own
  counts: Counter = field(default_factory=Counter)  # of collectives, by kind
  bytes: Counter = field(default_factory=Counter)  # of collectives: the whole array on one device, by kind
  spans: Counter = field(default_factory=Counter)  # bytes of collectives by the mesh axes that they span
  collective_cycles: float = 0.0  # were nothing hidden
  hidden_cycles: float = 0.0
  kernels: Counter = field(default_factory=Counter)  # cycles by name
  by_bytes: Counter = field(default_factory=Counter)  # cycles of what had no estimate, by opcode
  copied_bytes: float = 0.0  # by asynchronous copies
  unknown: list = field(default_factory=list)  # what could not be counted, in words


def part_of(op_name: str) -> str:
  return next((part for pattern, part in PARTS if re.search(pattern, op_name)), "other")


def named(module: Module, computation: Computation, instruction: Instruction) -> str:
  """An instruction's op_name; without one, its root's, or that of what it reads, or of what reads it."""
  if instruction.op_name:
    return instruction.op_name
  for name in instruction.called():
    inner = module.computations.get(name)
    if inner is not None and instruction.opcode == "fusion":
      names = [inner.root.op_name, *(x.op_name for x in reversed(inner.instructions.values()))]
      if any(names):
        return next(filter(None, names))
  for neighbours in (computation.operands, lambda x: computation.users.get(x.name, [])):
    seen, layer = {instruction.name}, [instruction]
    for _ in range(4):
      layer = [x for y in layer for x in neighbours(y) if x.name not in seen and not seen.add(x.name)]
      names = [x.op_name for x in layer if x.op_name and x.opcode != "parameter"]
      if names:
        return names[0]
  return ""


# --- collectives -------------------------------------------------------------------------------------------------


_IOTA = r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"


def _iota(sizes: str, permutation: str | None) -> np.ndarray:
  sizes = [int(x) for x in sizes.split(",")]
  ids = np.arange(math.prod(sizes)).reshape(sizes)
  return ids.transpose([int(x) for x in permutation.split(",")]) if permutation else ids


def replica_groups(text: str, devices: int) -> np.ndarray:
  """Device numbers int[groups, size] of an instruction's attributes, in any form that XLA prints; none: one group of all."""
  match = re.search(r"replica_groups=(.*)", text)
  text = match[1] if match else ""
  if match := re.match(_IOTA, text):  # [groups,size]<=[sizes]T(permutation)
    return _iota(match[3], match[4]).reshape(int(match[1]), int(match[2]))
  if match := re.match(r"mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", text):  # named axes, those spanned in {}
    axes = [(name, int(size)) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])]
    ids = np.arange(math.prod(size for _, size in axes))
    if order := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\)?)?$", match[2] or ""):
      ids = _iota(order[1], order[2])
    elif match[2]:
      ids = np.array([int(x) for x in re.findall(r"\d+", match[2])])
    sizes, spanned, parts = [], [], re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", match[3])
    for name, size in axes:
      whole = [part for part in parts if part[0] == name]
      split = [(int(before), int(part)) for _, before, part in whole if part]  # 'axis':(before)size, a part of an axis
      before, part = split[0] if split else (1, size)
      for length, taken in ((before, False), (part, bool(whole)), (size // before // part, False)):
        spanned += [len(sizes)] if taken else []
        sizes.append(length)
    kept = [i for i in range(len(sizes)) if i not in spanned]
    return ids.reshape(sizes).transpose(kept + spanned).reshape(-1, math.prod(sizes[i] for i in spanned))
  text = text[: text.index("}}") + 1] if "}}" in text else ""
  groups = [[int(x) for x in re.findall(r"\d+", group)] for group in re.findall(r"\{([\d,\s]+)\}", text)]
  if not groups or len({len(group) for group in groups}) > 1:
    return np.arange(devices)[None]
  return np.array(groups)


class Network:
  """The devices of a mesh, in its order, on their slice."""

  def __init__(self, topology: Topology, mesh):
    self._topology, self._names = topology, mesh.axis_names
    devices = list(mesh.devices.flat)
    self.places = np.array(
      [
        [getattr(device, "slice_index", 0) or 0, *device.coords[: topology.chip.axes], device.core_on_chip]
        for device in devices
      ]
    )
    self._mesh = np.stack(np.unravel_index(np.arange(len(devices)), mesh.devices.shape), axis=1)

  def mesh_axes(self, groups: np.ndarray) -> str:
    """Names of the mesh's axes along which a group's members differ: "data", "data+fsdp"."""
    index = self._mesh[groups[0]]
    return "+".join(name for axis, name in enumerate(self._names) if len(set(index[:, axis])) > 1) or "none"

  def seconds(self, kind: str, size: float, groups: np.ndarray) -> float:
    """Of a collective over `size` bytes, the whole array: an all-gather's result, a reduce-scatter's input."""
    chip, group = self._topology.chip, self.places[groups[0]]
    n = len(group)
    if n == 1:
      return 0.0
    slices = len(set(group[:, 0]))
    links = [2.0 if self._topology.wraps(axis) else 1.0 for axis in range(chip.axes) if len(set(group[:, 1 + axis])) > 1]
    bandwidth = chip.ici_link_bytes * (sum(links) or 1.0)  # between the two devices of a chip: as one link
    passes = {"all-reduce": 2.0, "collective-permute": 1.0}.get(kind, 1.0)
    inside = n // slices
    seconds = passes * size * (inside - 1) / inside / bandwidth
    if kind == "collective-permute":
      seconds = size / bandwidth
    if slices > 1:  # each device sends its part of what its slice has reduced
      seconds += passes * size / inside * (slices - 1) / slices / chip.dcn_bytes
    return seconds


def collective_bytes(computation: Computation, instruction: Instruction) -> int:
  """The whole array of a collective on one device: what an all-gather makes, what any other takes."""
  taken = sum(x.bytes for x in computation.operands(instruction))
  if instruction.collective == "all-gather":
    # an all-gather-start's result repeats its input
    return max(instruction.bytes - (taken if instruction.opcode.endswith("-start") else 0), taken)
  return taken


# --- work without an estimate -------------------------------------------------------------------------------------


def kernel_work(computation: Computation, instruction: Instruction) -> tuple[float, float] | None:
  """(FLOPs, bytes) of a Pallas kernel: its own cost estimate, or what is known of splash attention; else None."""
  operands = computation.operands(instruction)
  match = re.search(r'"cost_estimate":\{([^}]*)\}', instruction.rest)
  if match:
    given = {key: float(value) for key, value in re.findall(r'"(\w+)":"?(\d+)', match[1])}
    if any(given.values()):
      return given.get("flops", 0.0), given.get("bytes_accessed", 0.0)
  name = f"{instruction.op_name}/{instruction.name}"
  products = next((count for pattern, count in SPLASH if re.search(pattern, name)), None)
  wide = [x.arrays[0] for x in operands if x.arrays and len(x.arrays[0].sizes) >= 3 and "f" in x.arrays[0].dtype]
  if products is None or len(wide) < 2:
    return None
  q, k = wide[0], wide[1]
  rows = math.prod(q.sizes[:-2])
  if products == 4 and sum(x.elements == q.elements or x.sizes[-3:] == q.sizes[-3:] for x in instruction.arrays) > 2:
    products = 5  # dq comes out of the same kernel
  flops = 2.0 * products * rows * q.sizes[-2] * k.sizes[-2] * q.sizes[-1]
  return flops, float(sum(x.bytes for x in operands) + instruction.bytes)


def moved_bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
  """The bytes that an instruction must read from the HBM and write there: of a table that it gathers from, or puts into,
  the rows; nothing for what lies on the chip."""
  inner = {x.opcode for _, x in module.inside(instruction)} | {instruction.opcode}
  operands = computation.operands(instruction)
  if inner & {"scatter", "dynamic-update-slice"}:
    target = max(operands, key=lambda x: x.bytes, default=instruction)
    updates = [x for x in operands if x is not target]
    rows = min(sum(x.bytes for x in updates), instruction.bytes)
    # A scatter adds to the rows that it finds; a slice is written over them.
    return sum(x.hbm_bytes for x in updates) + rows * (2 if "scatter" in inner else 1) * bool(instruction.hbm_bytes)
  if inner & {"gather", "dynamic-slice", "slice"}:
    return instruction.hbm_bytes + sum(min(x.hbm_bytes, instruction.bytes) for x in operands)
  return float(instruction.hbm_bytes + sum(x.hbm_bytes for x in operands))


# --- all of it -----------------------------------------------------------------------------------------------------


class _Counter:
  """One walk through a module in the order of its schedule."""

  def __init__(self, module: Module, topology: Topology, network: Network | None):
    self.module, self.chip, self.network, self.costs = module, topology.chip, network, Costs()
    self.absurd = 0

  def walk(self, name: str = "", times: int = 1) -> None:
    flying = {}  # of a computation: name of a start -> [cycles nothing has hidden yet, times, lane], in order
    for computation, instruction, times_ in self.module.executed(name, times):
      sent = flying.setdefault(computation.name, {})
      opcode = instruction.opcode
      if instruction.collective:
        cycles = self.collective(computation, instruction, times_)
        if opcode.endswith("-start"):
          sent[instruction.name] = [cycles, times_, "links"]
        else:
          self.costs.cycles["collectives"] += cycles * times_
      elif opcode == "send":
        sent[instruction.name] = [self.between_slices(instruction, times_), times_, "slices"]
      elif opcode == "recv-done":  # what the other slices sent is needed from here on
        for matching in self.matching_sends(computation, instruction):
          self.land(sent.pop(matching, None))
      elif opcode in ("async-start", "call-start"):
        for body in instruction.called():
          self.asynchronous(sent, instruction, body, times_)
      elif opcode.endswith("-done"):
        for start in instruction.operands:
          self.land(sent.pop(start, None))
      else:
        self.work(sent, computation, instruction, times_)
    for sent in flying.values():
      for left in sent.values():
        self.land(left)

  def land(self, left) -> None:
    """Charges what nothing hid of [cycles, times, lane]."""
    if left:
      self.costs.cycles["collectives" if left[2] in ("links", "slices") else left[2]] += left[0] * left[1]

  def hide(self, sent, cycles: float) -> None:
    """Gives cycles of the device to what is under way: to one after the other of those that share a lane."""
    lanes = {}
    for left in sent.values():
      taken = min(lanes.setdefault(left[2], cycles), left[0])
      left[0] -= taken
      lanes[left[2]] -= taken

  def between_slices(self, instruction, times) -> float:
    """Cycles of what a device sends to other slices; counts it."""
    size = instruction.arrays[0].bytes
    self.costs.counts["send-between-slices"] += times
    self.costs.bytes["send-between-slices"] += size * times
    self.costs.spans["slices"] += size * times
    cycles = size / self.chip.dcn_bytes * self.chip.clock
    self.costs.collective_cycles += cycles * times
    return cycles

  def matching_sends(self, computation, done) -> list[str]:
    rendezvous = lambda x: re.findall(r'_xla_host_transfer_rendezvous="([^"]*)"', x.rest)  # noqa: E731
    wanted = [x for received in computation.operands(done) for x in rendezvous(received)]
    return [x.name for x in computation.instructions.values() if x.opcode == "send" and rendezvous(x) == wanted]

  def asynchronous(self, sent, start, body, times) -> None:
    """A collective, or work of another unit of the chip (the SparseCores of v5p and later), that a computation wraps."""
    for computation, instruction, inner_times in self.module.executed(body, times):
      if instruction.collective:
        cycles, lane = self.collective(computation, instruction, inner_times), "links"
      else:
        cycles, flops, lane = self.estimate(computation, instruction, inner_times)
        self.costs.flops[lane] += flops * inner_times
      if cycles:
        left = sent.setdefault(start.name, [0.0, times, lane])
        left[0] += cycles * inner_times / times

  def collective(self, computation, instruction, times) -> float:
    """Cycles of one; counts it."""
    kind, size, costs = instruction.collective, collective_bytes(computation, instruction), self.costs
    costs.counts[kind] += times
    costs.bytes[kind] += size * times
    if self.network is None:
      return 0.0
    if kind == "collective-permute":
      pairs = [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", instruction.attribute("source_target_pairs"))]
      groups = np.array([pair for pair in pairs if pair[0] != pair[1]][:1] or [[0]])
    else:
      groups = replica_groups(instruction.rest, len(self.network.places))
    costs.spans[self.network.mesh_axes(groups)] += size * times
    cycles = self.network.seconds(kind, size, groups) * self.chip.clock
    costs.collective_cycles += cycles * times
    return cycles

  def work(self, sent, computation, instruction, times) -> None:
    if instruction.opcode in ("copy-start", "slice-start", "dynamic-slice-start"):
      self.costs.copied_bytes += times * sum(array.bytes for array in instruction.arrays[1:2])
    cycles, flops, part = self.estimate(computation, instruction, times)
    self.costs.cycles[part] += cycles * times
    self.costs.flops[part] += flops * times
    self.hide(sent, cycles)
    if instruction.opcode == "fusion":  # a collective that the compiler fused with the work that hides it
      for inner, x in self.module.inside(instruction):
        if x.collective:
          longer = self.collective(inner, x, times) - cycles
          self.costs.cycles["collectives"] += max(0.0, longer) * times

  def estimate(self, computation, instruction, times) -> tuple[float, float, str]:
    """(cycles, FLOPs, part) of one instruction: the compiler's cycles, a kernel's arithmetic, or the bytes it moves."""
    opcode, chip, costs = instruction.opcode, self.chip, self.costs
    if opcode in FREE:
      return 0.0, 0.0, "other"
    part = part_of(named(self.module, computation, instruction))
    flops = product_flops(computation, instruction)
    if opcode == "fusion":
      flops += sum(product_flops(*x) for x in self.module.inside(instruction))
    if opcode == "custom-call":
      target = instruction.attribute("custom_call_target").strip('"')
      if target in FREE_CALLS:
        return 0.0, 0.0, part
      if target == "tpu_custom_call":
        name = instruction.op_name.split("/")[-2] if "/" in instruction.op_name else instruction.name
        work = kernel_work(computation, instruction)
        if work is None:
          costs.unknown.append(f"the kernel {name}, x {times}")
          return 0.0, 0.0, part
        cycles = max(work[0] / (KERNEL_EFFICIENCY * chip.flops_per_cycle), work[1] / chip.hbm_bytes * chip.clock)
        costs.kernels[name] += cycles * times
        return cycles, work[0], part
    cycles = instruction.estimated_cycles
    self.absurd += instruction.has_absurd_cycles
    if cycles is None:
      moved = moved_bytes(self.module, computation, instruction)
      cycles = 0.0
      if moved > SMALL_BYTES:
        cycles = max(moved / chip.hbm_bytes * chip.clock, flops / chip.flops_per_cycle)
        costs.by_bytes[opcode] += cycles * times
    return cycles, flops, part


def count(module: Module, topology: Topology, network: Network | None = None) -> Costs:
  """Costs of one run of a compiled module on one of topology's devices. network: None leaves collectives' time out."""
  counter = _Counter(module, topology, network)
  counter.walk()
  costs = counter.costs
  costs.hidden_cycles = costs.collective_cycles - costs.cycles["collectives"]
  costs.unknown += [f"iterations of the loop {loop}: counted once" for loop in module.unknown_loops()]
  if counter.absurd:
    costs.unknown.append(f"{counter.absurd} estimates of 2^62 cycles and more: counted by bytes")
  return costs
