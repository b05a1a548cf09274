"""Compiled HLO text as computations and instructions: reads `compiled.as_text()` of any backend."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

# Bits per element. The eight-bit floats all begin with f8; an unknown type counts as 32 bits.
_BITS = {
  **dict.fromkeys(("token", "opaque"), 0), **dict.fromkeys(("s4", "u4"), 4), **dict.fromkeys(("pred", "s8", "u8"), 8),
  **dict.fromkeys(("s16", "u16", "bf16", "f16"), 16), **dict.fromkeys(("s64", "u64", "f64", "c64"), 64), "c128": 128,
}  # fmt: skip
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
  """The dtype, sizes and memory space of one array. The rest of its layout is left out."""

  dtype: str
  sizes: tuple[int, ...]
  space: int = field(default=0, compare=False)  # 0: HBM; 1: on the chip; others: scalar memory, the host's memory

  @property
  def elements(self) -> int:
    """The number of elements."""
    return math.prod(self.sizes)

  @property
  def bytes(self) -> int:
    """The size without padding."""
    bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 32)
    return -(-self.elements * bits // 8)

  @property
  def hbm_bytes(self) -> int:
    """The bytes that lie in the HBM: all or none."""
    return 0 if self.space else self.bytes


def parse_arrays(text: str) -> tuple[Array, ...]:
  """The arrays of a printed shape, in order; those of a tuple are flattened."""
  return tuple(
    Array(dtype, tuple(int(re.sub(r"\D", "", size)) for size in sizes.split(",") if size.strip()), int(space or 0))
    for dtype, sizes, space in _SHAPE.findall(text)
  )


@dataclass
class Instruction:
  """One line of a computation."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]  # its results
  is_tuple: bool
  operands: tuple[str, ...]  # names
  rest: str  # its attributes, as text
  is_root: bool

  @cached_property
  def op_name(self) -> str:
    """JAX's name stack, or ""."""
    match = re.search(r'op_name="([^"]*)"', self.rest)
    return match[1] if match else ""

  @property
  def bytes(self) -> int:
    """The bytes of all results."""
    return sum(array.bytes for array in self.arrays)

  @property
  def hbm_bytes(self) -> int:
    """The bytes of the results that lie in the HBM."""
    return sum(array.hbm_bytes for array in self.arrays)

  def attribute(self, name: str) -> str:
    """The text after `name=`, up to the next comma outside brackets; "" if the attribute is absent."""
    match = re.search(rf"(?:^|, ){name}=", self.rest)
    return _until_comma(self.rest, match.end()) if match else ""

  def sizes(self, name: str) -> tuple[int, ...]:
    """The numbers of an attribute such as dimensions={0,1}."""
    return tuple(int(x) for x in re.findall(r"-?\d+", self.attribute(name)))

  def called(self) -> tuple[str, ...]:
    """The names of the computations that it calls, without the reducer of a reduction, which is no work of its own."""
    names = [self.attribute(name) for name in ("calls", "body", "true_computation", "false_computation")]
    names += self.attribute("branch_computations").strip("{}").split(",")
    if self.opcode in ("call", "call-start", "async-start"):
      names.append(self.attribute("to_apply"))
    return tuple(name.strip().lstrip("%") for name in names if name.strip())

  @cached_property
  def estimated_cycles(self) -> int | None:
    """The compiler's own estimate; None if it gives none, or an absurd one (its infinity is 2^62 and more)."""
    match = re.search(r'"estimated_cycles":"?(-?\d+)', self.rest)
    return int(match[1]) if match and 0 <= int(match[1]) < 2**62 else None

  @property
  def has_absurd_cycles(self) -> bool:
    """Whether the compiler gives an estimate that is none."""
    return '"estimated_cycles"' in self.rest and self.estimated_cycles is None

  @property
  def collective(self) -> str:
    """all-reduce for all-reduce and all-reduce-start, and so on; "" for anything else and for the -done half."""
    base = self.opcode.removesuffix("-start")
    return base if base in COLLECTIVES else ""


@dataclass
class Computation:
  """Instructions by name, in the order of the schedule."""

  name: str
  instructions: dict[str, Instruction] = field(default_factory=dict)

  @property
  def root(self) -> Instruction:
    """The instruction whose result is the computation's."""
    return next((x for x in self.instructions.values() if x.is_root), list(self.instructions.values())[-1])

  @cached_property
  def users(self) -> dict[str, list[Instruction]]:
    """The instructions that read a result, by the name of the instruction that makes it."""
    users: dict[str, list[Instruction]] = {}
    for instruction in self.instructions.values():
      for operand in instruction.operands:
        users.setdefault(operand, []).append(instruction)
    return users

  def operands(self, instruction: Instruction) -> list[Instruction]:
    """The instructions whose results an instruction reads."""
    return [self.instructions[name] for name in instruction.operands if name in self.instructions]


@dataclass
class Module:
  """A compiled program."""

  computations: dict[str, Computation]
  entry: str  # the name of the computation that a run begins with

  @classmethod
  def parse(cls, text: str) -> "Module":
    """The module that is printed in text. Raises ValueError if the text has no ENTRY."""
    computations: dict[str, Computation] = {}
    entry, current, pending = None, None, ""
    for line in text.splitlines():
      if current is None:
        if header := _HEADER.match(line):
          current = computations[header[2]] = Computation(header[2])
          entry = header[2] if header[1] else entry
        continue
      is_end = line == "}" or line.startswith("}, execution_thread=")
      if is_end or _BEGIN.match(line):
        if pending:
          instruction = _parse_instruction(pending)
          current.instructions[instruction.name] = instruction
        current, pending = (None, "") if is_end else (current, line)
      elif pending:
        pending += " " + line  # Attributes may hold line breaks.
    if entry is None:
      raise ValueError("no ENTRY computation in the compiled text")
    return cls(computations, entry)

  def inside(self, fusion: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """The instructions of a fusion, and of the fusions in it."""
    for name in fusion.called():
      computation = self.computations.get(name)
      if computation is None:
        continue
      for instruction in computation.instructions.values():
        yield computation, instruction
        if instruction.opcode in ("fusion", "call"):
          yield from self.inside(instruction)


def _until_comma(text: str, start: int) -> str:
  """The text from start to the first comma outside all brackets and quotes."""
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
  """The index of the bracket that closes the round one at start."""
  depth = 0
  for i in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[i], 0)
    if depth == 0:
      return i
  raise ValueError(f"unbalanced: {text[start : start + 80]}")


def _parse_instruction(text: str) -> Instruction:
  """The instruction of one line, which _BEGIN matches."""
  begin = _BEGIN.match(text)
  assert begin is not None
  shape_at = begin.end()
  is_tuple = text[shape_at] == "("
  shape_end = _closing(text, shape_at) + 1 if is_tuple else text.index(" ", shape_at)
  open_at = text.index("(", shape_end + 1)
  close_at = _closing(text, open_at)
  opcode = text[shape_end + 1 : open_at].strip()
  inside = re.sub(r"/\*.*?\*/", "", text[open_at + 1 : close_at])
  rest = text[close_at + 1 :].removeprefix(", ")
  operands: list[str] = []
  # What stands in the brackets is a literal for a constant and a number for a parameter.
  if opcode in ("constant", "parameter"):
    rest = f"value={inside.strip()}, {rest}"
  elif opcode != "iota":
    # Operands are names, with or without their shapes before them.
    operands = re.findall(r"%([\w.\-]+)", inside)
    if not operands:
      bare = re.sub(r"[\[{(][^\[\]{}()]*[\]})]", "", inside)
      operands = [part.split()[-1] for part in bare.split(",") if part.strip()]
  arrays, is_root = parse_arrays(text[shape_at:shape_end]), text.lstrip().startswith("ROOT ")
  return Instruction(begin[1], opcode, arrays, is_tuple, tuple(operands), rest, is_root)
