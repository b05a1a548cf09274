"""What a compiled step costs on one device: cycles by part of the model, FLOPs, collectives. ASSUMPTIONS says how.

Cycles are the compiler's own estimates where it gives one; a clock turns them into time.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field

from xlmr_jax.planner.collectives import Network, collective_bytes, collective_groups
from xlmr_jax.planner.execution import executed, unknown_loops
from xlmr_jax.planner.hlo import Computation, Instruction, Module
from xlmr_jax.planner.topology import Topology
from xlmr_jax.planner.work import kernel_work, moved_bytes, product_flops

KERNEL_EFFICIENCY = 0.35  # of peak, in a Pallas kernel: the compiler does not estimate those (ours)
SMALL_BYTES = 4096  # What has no estimate and is no larger costs nothing.

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
# Opcodes and custom calls that take no cycles of their own.
FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id", "after-all", "opt-barrier",
  "while", "call", "conditional", "async-update", "copy-start", "slice-start", "dynamic-slice-start", "infeed", "outfeed",
  "add-dependency", "domain", "recv", "rng-get-and-update-state",
}  # fmt: skip
FREE_CALLS = {
  "AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding", "annotate_device_placement", "ZeroCrop",
  "PrepareAsyncCallStart",
}  # fmt: skip

ASSUMPTIONS = (
  "cycles are the compiler's estimates (estimated_cycles); none of this was run on a TPU",
  "a fusion counts for the part of its root's op_name, and what has no name for that of its input, because XLA fuses "
  "element-wise work into its neighbours",
  "loop bodies count as often as their loop runs; of a conditional the usual branch counts",
  f"Pallas kernels take the larger of FLOPs / ({KERNEL_EFFICIENCY} x peak) and bytes / HBM bandwidth",
  "work without an estimate (gathers, scatters) takes the bytes that it must move / HBM bandwidth, a lower bound",
  "copies between HBM and on-chip memory that the compiler made asynchronous are hidden",
  "collectives take bytes x steps of a ring / one-way ICI bandwidth of the links along the axes they span, half of it on "
  "axes that do not close to a ring; between slices / the data-centre network's",
  "synchronous collectives hide behind nothing; asynchronous ones, and SparseCores' work, behind the cycles scheduled "
  "between start and done",
  "input, host and checkpoints take no time",
)


@dataclass
class Costs:
  """The costs of one device in one run of the program."""

  cycles: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by part
  flops: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by part: of products, and of kernels
  counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # of collectives, by kind
  bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # of their whole arrays on one device, by kind
  spans: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # of these bytes, by the mesh axes spanned
  collective_cycles: float = 0.0  # if nothing were hidden
  hidden_cycles: float = 0.0
  kernels: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # cycles by name
  by_bytes: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # cycles of what had no estimate, by opcode
  copied_bytes: float = 0.0  # by asynchronous copies
  unknown: list[str] = field(default_factory=list)  # what could not be counted, in words


@dataclass
class InFlight:
  """Asynchronous work between its start and its done."""

  cycles: float  # that nothing has hidden yet
  times: int
  lane: str  # "links", "slices", or the part whose work runs on another unit; what shares a lane runs one after the other

  @property
  def part(self) -> str:
    """The part that pays for what nothing hides."""
    return "collectives" if self.lane in ("links", "slices") else self.lane


def part_of(op_name: str) -> str:
  """The part of the model that a name stack belongs to."""
  return next((part for pattern, part in PARTS if re.search(pattern, op_name)), "other")


def name_stack(module: Module, computation: Computation, instruction: Instruction) -> str:
  """An instruction's op_name; without one its root's, or that of what it reads, or of what reads it, or ""."""
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


class _Counter:
  """One walk through a module in the order of its schedule."""

  def __init__(self, module: Module, topology: Topology, network: Network | None):
    self.module, self.chip, self.network, self.costs = module, topology.chip, network, Costs()
    self.absurd = 0

  def walk(self) -> None:
    """Counts everything that a run executes."""
    flying: dict[str, dict[str, InFlight]] = {}  # by computation, then by the name of the start, in order
    for computation, instruction, times in executed(self.module):
      sent = flying.setdefault(computation.name, {})
      opcode = instruction.opcode
      if instruction.collective:
        cycles = self.collective(computation, instruction, times)
        if opcode.endswith("-start"):
          sent[instruction.name] = InFlight(cycles, times, "links")
        else:
          self.costs.cycles["collectives"] += cycles * times
      elif opcode == "send":
        sent[instruction.name] = InFlight(self.between_slices(instruction, times), times, "slices")
      elif opcode == "recv-done":  # From here on, what the other slices sent is needed.
        for matching in self.matching_sends(computation, instruction):
          self.land(sent.pop(matching, None))
      elif opcode in ("async-start", "call-start"):
        for body in instruction.called():
          self.asynchronous(sent, instruction, body, times)
      elif opcode.endswith("-done"):
        for start in instruction.operands:
          self.land(sent.pop(start, None))
      else:
        self.work(sent, computation, instruction, times)
    for sent in flying.values():
      for left in sent.values():
        self.land(left)

  def land(self, left: InFlight | None) -> None:
    """Charges what nothing hid of asynchronous work."""
    if left:
      self.costs.cycles[left.part] += left.cycles * left.times

  def hide(self, sent: dict[str, InFlight], cycles: float) -> None:
    """Gives cycles of the device to what is under way, one after the other of those that share a lane."""
    lanes: dict[str, float] = {}
    for left in sent.values():
      taken = min(lanes.setdefault(left.lane, cycles), left.cycles)
      left.cycles -= taken
      lanes[left.lane] -= taken

  def between_slices(self, instruction: Instruction, times: int) -> float:
    """The cycles of what a device sends to other slices; counts it."""
    size = instruction.arrays[0].bytes
    self.costs.counts["send-between-slices"] += times
    self.costs.bytes["send-between-slices"] += size * times
    self.costs.spans["slices"] += size * times
    cycles = size / self.chip.dcn_bytes * self.chip.clock
    self.costs.collective_cycles += cycles * times
    return cycles

  def matching_sends(self, computation: Computation, done: Instruction) -> list[str]:
    """The names of the sends whose data a recv-done of the same rendezvous stands for."""

    def rendezvous(x: Instruction) -> list[str]:
      return re.findall(r'_xla_host_transfer_rendezvous="([^"]*)"', x.rest)

    wanted = [x for received in computation.operands(done) for x in rendezvous(received)]
    return [x.name for x in computation.instructions.values() if x.opcode == "send" and rendezvous(x) == wanted]

  def asynchronous(self, sent: dict[str, InFlight], start: Instruction, body: str, times: int) -> None:
    """A collective, or work of another unit of the chip (the SparseCores of v5p and later), that a computation wraps."""
    for computation, instruction, inner_times in executed(self.module, body, times):
      if instruction.collective:
        cycles, lane = self.collective(computation, instruction, inner_times), "links"
      else:
        cycles, flops, lane = self.estimate(computation, instruction, inner_times)
        self.costs.flops[lane] += flops * inner_times
      if cycles:
        sent.setdefault(start.name, InFlight(0.0, times, lane)).cycles += cycles * inner_times / times

  def collective(self, computation: Computation, instruction: Instruction, times: int) -> float:
    """The cycles of one collective; counts it."""
    kind, size, costs = instruction.collective, collective_bytes(computation, instruction), self.costs
    costs.counts[kind] += times
    costs.bytes[kind] += size * times
    if self.network is None:
      return 0.0
    groups = collective_groups(instruction, self.network.devices)
    costs.spans[self.network.mesh_axes(groups)] += size * times
    cycles = self.network.seconds(kind, size, groups) * self.chip.clock
    costs.collective_cycles += cycles * times
    return cycles

  def work(self, sent: dict[str, InFlight], computation: Computation, instruction: Instruction, times: int) -> None:
    """Counts work of the device itself, behind which asynchronous work hides."""
    if instruction.opcode in ("copy-start", "slice-start", "dynamic-slice-start"):
      self.costs.copied_bytes += times * sum(array.bytes for array in instruction.arrays[1:2])
    cycles, flops, part = self.estimate(computation, instruction, times)
    self.costs.cycles[part] += cycles * times
    self.costs.flops[part] += flops * times
    self.hide(sent, cycles)
    if instruction.opcode == "fusion":  # It may hold a collective that the compiler fused with the work that hides it.
      for inner, x in self.module.inside(instruction):
        if x.collective:
          longer = self.collective(inner, x, times) - cycles
          self.costs.cycles["collectives"] += max(0.0, longer) * times

  def estimate(self, computation: Computation, instruction: Instruction, times: int) -> tuple[float, float, str]:
    """(cycles, FLOPs, part) of one instruction: the compiler's cycles, a kernel's arithmetic, or the bytes it moves."""
    opcode, chip, costs = instruction.opcode, self.chip, self.costs
    if opcode in FREE:
      return 0.0, 0.0, "other"
    part = part_of(name_stack(self.module, computation, instruction))
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
  """The costs of one run of a compiled module on one of topology's devices. network: None leaves out collectives' time."""
  counter = _Counter(module, topology, network)
  counter.walk()
  costs = counter.costs
  costs.hidden_cycles = costs.collective_cycles - costs.cycles["collectives"]
  costs.unknown += [f"iterations of the loop {loop}: counted once" for loop in unknown_loops(module)]
  if counter.absurd:
    costs.unknown.append(f"{counter.absurd} estimates of 2^62 cycles and more: counted by bytes")
  return costs
