"""Compiled HLO text as instructions, and how often a run of the program executes each.

Reads `compiled.as_text()` of any backend. Loop bodies are written once: executed() multiplies by trip counts.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_BITS = {
  "pred": 8,
  "s4": 4,
  "u4": 4,
  "s8": 8,
  "u8": 8,
  "s16": 16,
  "u16": 16,
  "bf16": 16,
  "f16": 16,
  "s32": 32,
  "u32": 32,
  "f32": 32,
  "s64": 64,
  "u64": 64,
  "f64": 64,
  "c64": 64,
  "c128": 128,
  "token": 0,
  "opaque": 0,
}
_SHAPE = re.compile(r"\b([a-z]\w*)\[([0-9, <=]*)\](?:\{[^}]*?S\((\d+)\)\})?")
_BEGIN = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
  "ragged-all-to-all",
)


@dataclass(frozen=True)
class Array:
  """dtype, sizes and memory space of one array; the rest of its layout is left out."""

  dtype: str
  sizes: tuple[int, ...]
  space: int = field(default=0, compare=False)  # 0: HBM; 1: on the chip; others: scalars', the host's

  @property
  def elements(self) -> int:
    return math.prod(self.sizes)

  @property
  def bytes(self) -> int:
    bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 32)
    return -(-self.elements * bits // 8)

  @property
  def hbm_bytes(self) -> int:
    return 0 if self.space else self.bytes


def arrays_of(text: str) -> tuple[Array, ...]:
  """The arrays of a printed shape, in order; a tuple's are flattened."""
  sizes_of = lambda text: tuple(int(re.sub(r"\D", "", size)) for size in text.split(",") if size.strip())  # noqa: E731
  return tuple(Array(dtype, sizes_of(sizes), int(space or 0)) for dtype, sizes, space in _SHAPE.findall(text))


@dataclass
class Instruction:
  name: str
  opcode: str
  arrays: tuple[Array, ...]  # what it makes
  is_tuple: bool
  operands: tuple[str, ...]
  rest: str  # attributes, as text
  is_root: bool

  @cached_property
  def op_name(self) -> str:
    """JAX's name stack, or ""."""
    match = re.search(r'op_name="([^"]*)"', self.rest)
    return match[1] if match else ""

  @property
  def bytes(self) -> int:
    return sum(array.bytes for array in self.arrays)

  @property
  def hbm_bytes(self) -> int:
    return sum(array.hbm_bytes for array in self.arrays)

  def attribute(self, name: str) -> str:
    """What stands behind name=, up to the next comma outside brackets; "" if it is not there."""
    match = re.search(rf"(?:^|, ){name}=", self.rest)
    return _balanced(self.rest, match.end()) if match else ""

  def sizes(self, name: str) -> tuple[int, ...]:
    """An attribute such as dimensions={0,1}."""
    return tuple(int(x) for x in re.findall(r"-?\d+", self.attribute(name)))

  def called(self) -> tuple[str, ...]:
    """Computations that it calls, by name; the reducer of a reduction is no work of its own."""
    names = [self.attribute(name) for name in ("calls", "body", "true_computation", "false_computation")]
    names += self.attribute("branch_computations").strip("{}").split(",")
    if self.opcode in ("call", "call-start", "async-start"):
      names.append(self.attribute("to_apply"))
    return tuple(name.strip().lstrip("%") for name in names if name.strip())

  @cached_property
  def estimated_cycles(self) -> int | None:
    """The compiler's own estimate; None where there is none, or an absurd one (it has its infinity: 2^62 and more)."""
    match = re.search(r'"estimated_cycles":"?(-?\d+)', self.rest)
    return int(match[1]) if match and 0 <= int(match[1]) < 2**62 else None

  @property
  def has_absurd_cycles(self) -> bool:
    return '"estimated_cycles"' in self.rest and self.estimated_cycles is None

  @property
  def collective(self) -> str:
    """all-reduce for all-reduce and all-reduce-start, and so on; "" for anything else and for the -done half."""
    base = self.opcode.removesuffix("-start")
    return base if base in COLLECTIVES else ""


@dataclass
class Computation:
  name: str
  instructions: dict[str, Instruction] = field(default_factory=dict)

  @property
  def root(self) -> Instruction:
    return next((x for x in self.instructions.values() if x.is_root), list(self.instructions.values())[-1])

  @cached_property
  def users(self) -> dict[str, list[Instruction]]:
    users = {}
    for instruction in self.instructions.values():
      for operand in instruction.operands:
        users.setdefault(operand, []).append(instruction)
    return users

  def operands(self, instruction: Instruction) -> list[Instruction]:
    return [self.instructions[name] for name in instruction.operands if name in self.instructions]


def _balanced(text: str, start: int) -> str:
  """text from start to the first comma outside all brackets and quotes."""
  depth, quoted = 0, False
  for i in range(start, len(text)):
    c = text[i]
    if c == '"' and text[i - 1] != "\\":
      quoted = not quoted
    elif quoted:
      continue
    elif c in "{[(":
      depth += 1
    elif c in "}])":
      depth -= 1
    elif c == "," and depth == 0:
      return text[start:i]
  return text[start:]


def _closing(text: str, start: int) -> int:
  """Index of the bracket that closes the round one at start."""
  depth = 0
  for i in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[i], 0)
    if depth == 0:
      return i
  raise ValueError(f"unbalanced: {text[start : start + 80]}")


def _parse_instruction(text: str) -> Instruction:
  begin = _BEGIN.match(text)
  at = begin.end()
  is_tuple = text[at] == "("
  end = _closing(text, at) + 1 if is_tuple else text.index(" ", at)
  shape, at = text[at:end], end + 1
  open_ = text.index("(", at)
  opcode = text[at:open_].strip()
  close = _closing(text, open_)
  inside = re.sub(r"/\*.*?\*/", "", text[open_ + 1 : close])
  # Operands are names, with or without their shapes before them; a constant's is a literal, a parameter's a number.
  names = () if opcode in ("constant", "parameter", "iota") else tuple(re.findall(r"%([\w.\-]+)", inside))
  if not names and opcode not in ("constant", "parameter", "iota"):
    names = tuple(part.split()[-1] for part in re.sub(r"[\[{(][^\[\]{}()]*[\]})]", "", inside).split(",") if part.strip())
  rest = text[close + 1 :].removeprefix(", ")
  if opcode in ("constant", "parameter"):
    rest = f"value={inside.strip()}, {rest}"
  return Instruction(begin[1], opcode, arrays_of(shape), is_tuple, names, rest, text.lstrip().startswith("ROOT "))


@dataclass
class Module:
  computations: dict[str, Computation]
  entry: str

  @classmethod
  def parse(cls, text: str) -> "Module":
    computations, entry, current, pending = {}, None, None, None

    def finish():
      nonlocal pending
      if pending is not None:
        instruction = _parse_instruction(pending)
        current.instructions[instruction.name] = instruction
        pending = None

    for line in text.splitlines():
      header = _HEADER.match(line)
      if current is None:
        if header:
          current = Computation(header[2])
          computations[header[2]] = current
          entry = header[2] if header[1] else entry
      elif line == "}" or line.startswith("}, execution_thread="):
        finish()
        current = None
      elif _BEGIN.match(line):
        finish()
        pending = line
      elif pending is not None:
        pending += " " + line  # attributes may hold line breaks
    if entry is None:
      raise ValueError("no ENTRY computation in the compiled text")
    return cls(computations, entry)

  def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
    """Iterations of a while: as the compiler says, or by its condition counter < constant; None if neither tells."""
    match = re.search(r'"known_trip_count":\{"n":"?(\d+)', loop.rest)
    if match:
      return int(match[1])
    condition = self.computations.get(loop.attribute("condition").strip().lstrip("%"))
    start = computation.operands(loop)
    if condition is None or not start:
      return None
    initial = lambda i: _constant(computation, _element(computation, start[0], i))  # noqa: E731

    def value(instruction) -> tuple[str, int] | None:
      """("constant", n) or ("element", i) of the loop's tuple."""
      instruction = _through_copies(condition, instruction)
      number = _constant(condition, instruction)
      if number is not None:
        return "constant", number
      if instruction.opcode == "get-tuple-element":
        return "element", instruction.sizes("index")[0]
      return None

    root, sides = condition.root, None
    if root.opcode == "fusion":  # the comparison of two operands, fused
      inner = self.computations[root.called()[0]]
      given = condition.operands(root)
      parameters = {
        x.name: given[int(x.attribute("value"))]
        for x in inner.instructions.values()
        if x.opcode == "parameter" and int(x.attribute("value")) < len(given)
      }
      root = inner.root
      sides = []
      for operand in inner.operands(root):
        operand = _through_copies(inner, operand)
        number = _constant(inner, operand)
        sides.append(
          ("constant", number)
          if number is not None
          else value(parameters[operand.name])
          if operand.name in parameters
          else None
        )
    if root.opcode != "compare":
      return None
    sides = sides if sides is not None else [value(x) for x in condition.operands(root)]
    direction = root.attribute("direction")
    if len(sides) != 2 or None in sides or direction not in ("LT", "LE", "GT", "GE", "NE"):
      return None
    if direction in ("GT", "GE"):
      sides, direction = sides[::-1], {"GT": "LT", "GE": "LE"}[direction]
    (kind, counter), (limit_kind, limit) = sides
    if kind != "element":
      return None
    first = initial(counter)
    last = limit if limit_kind == "constant" else initial(limit)
    if first is None or last is None:
      return None
    return max(0, last - first + (direction == "LE"))  # jax.lax's loops count up by one

  def executed(self, name: str = "", times: int = 1) -> Iterator[tuple[Computation, Instruction, int]]:
    """(computation, instruction, times) of every instruction that a run of a computation executes; "": of ENTRY.

    A fusion is one instruction, and so is the start of asynchronous work: inside() and executed(its called()) have
    theirs. Of a conditional the branch with most cycles is taken. A loop whose count cannot be read counts once and is
    in unknown_loops().
    """
    computation = self.computations[name or self.entry]
    for instruction in computation.instructions.values():
      yield computation, instruction, times
      called = [name for name in instruction.called() if name in self.computations]
      if instruction.opcode == "while":
        count = self.trip_count(computation, instruction)
        for body in called:
          yield from self.executed(body, times * (1 if count is None else count))
      elif instruction.opcode == "conditional":
        yield from max(
          (list(self.executed(branch, times)) for branch in called),
          default=[],
          key=lambda branch: sum((x.estimated_cycles or 0) * n for _, x, n in branch),
        )
      elif instruction.opcode == "call":
        for body in called:
          yield from self.executed(body, times)

  def inside(self, fusion: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """Instructions of a fusion, and of fusions in it."""
    for name in fusion.called():
      computation = self.computations.get(name)
      for instruction in computation.instructions.values() if computation else ():
        yield computation, instruction
        if instruction.opcode in ("fusion", "call"):
          yield from self.inside(instruction)

  def unknown_loops(self) -> list[str]:
    """Loops whose trip count could not be read: JAX's names, or the compiler's."""
    return [
      x.op_name.removeprefix("jit(train_step)/") or x.name
      for computation, x, _ in self.executed()
      if x.opcode == "while" and self.trip_count(computation, x) is None
    ]


def _through_copies(computation: Computation, instruction: Instruction) -> Instruction:
  copies = ("copy", "bitcast", "copy-done", "copy-start", "convert", "reshape")
  while instruction.opcode in copies and computation.operands(instruction):
    instruction = computation.operands(instruction)[0]
  return instruction


def _element(computation: Computation, instruction: Instruction, index: int) -> Instruction | None:
  instruction = _through_copies(computation, instruction)
  if instruction.opcode != "tuple" or index >= len(instruction.operands):
    return None
  return computation.instructions.get(instruction.operands[index])


def _constant(computation: Computation, instruction: Instruction | None) -> int | None:
  if instruction is None:
    return None
  instruction = _through_copies(computation, instruction)
  if instruction.opcode != "constant":
    return None
  match = re.match(r"\{?(-?\d+)\}?$", instruction.attribute("value").strip())
  return int(match[1]) if match else None


# --- arithmetic --------------------------------------------------------------------------------------------------


def product_flops(computation: Computation, instruction: Instruction) -> int:
  """2 x multiply-adds of a dot or convolution; 0 of anything else.

  On TPUs a batched product is a convolution over a dilated input, most of whose window falls on holes: those are no work.
  """
  if instruction.opcode == "dot":
    left = computation.operands(instruction)[0].arrays[0]
    return 2 * instruction.arrays[0].elements * math.prod(left.sizes[i] for i in instruction.sizes("lhs_contracting_dims"))
  if instruction.opcode != "convolution":
    return 0
  left, right = (x.arrays[0] for x in computation.operands(instruction)[:2])
  out = instruction.arrays[0]
  labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels"))
  window = {key: value.split("x") for key, value in re.findall(r"(\w+)=([\dx_\-]+)", instruction.attribute("window"))}
  groups = int(instruction.attribute("feature_group_count") or 1)
  batch_groups = int(instruction.attribute("batch_group_count") or 1)
  steps = left.sizes[labels[1].index("b")] // batch_groups * (left.sizes[labels[1].index("f")] // groups)
  steps *= out.sizes[labels[3].index("f")]
  for axis in range(sum(c.isdigit() for c in labels[1])):
    sizes = [of.sizes[labels[i + 1].index(str(axis))] for i, of in enumerate((left, right, out))]
    of = lambda key, default: window[key][axis] if key in window else default  # noqa: B023, E731
    low = int(of("pad", "0_0").split("_")[0])
    steps *= _touching(
      *sizes,
      stride=int(of("stride", 1)),
      low=low,
      left_dilation=int(of("lhs_dilate", 1)),
      right_dilation=int(of("rhs_dilate", 1)),
    )
  return 2 * steps


def _touching(left: int, right: int, out: int, *, stride: int, low: int, left_dilation: int, right_dilation: int) -> int:
  """How many (window element, output) pairs meet an input element along one axis."""
  count = 0
  for tap in range(right):
    # output o meets input (o * stride - low + tap * right_dilation) / left_dilation, if that is whole and in range
    shift = tap * right_dilation - low
    for o in range(out):
      position = o * stride + shift
      count += 0 <= position < left * left_dilation and position % left_dilation == 0
  return count
