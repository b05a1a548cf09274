"""How often a run of a compiled program executes each instruction: trip counts of loops, and branches of conditionals.

A loop body is written once in the text. executed() multiplies by the trip counts.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from xlmr_jax.planner.hlo import Computation, Instruction, Module

_COPIES = ("copy", "bitcast", "copy-done", "copy-start", "convert", "reshape")


def executed(module: Module, name: str = "", times: int = 1) -> Iterator[tuple[Computation, Instruction, int]]:
  """(computation, instruction, times) of every instruction that a run of a computation executes; "": of ENTRY.

  A fusion is one instruction, and so is the start of asynchronous work; module.inside() and executed(module, called) give
  theirs. Of a conditional one branch is taken, see usual_branch(). A loop whose count cannot be read counts once.
  """
  computation = module.computations[name or module.entry]
  for instruction in computation.instructions.values():
    yield computation, instruction, times
    called = [name for name in instruction.called() if name in module.computations]
    if instruction.opcode == "while":
      count = trip_count(module, computation, instruction)
      for body in called:
        yield from executed(module, body, times * (1 if count is None else count))
    elif instruction.opcode == "conditional" and called:
      yield from executed(module, usual_branch(module, instruction), times)
    elif instruction.opcode == "call":
      for body in called:
        yield from executed(module, body, times)


def usual_branch(module: Module, conditional: Instruction) -> str:
  """The branch of a conditional that counts: the one with the most cycles."""
  return max(
    [name for name in conditional.called() if name in module.computations],
    key=lambda name: sum((x.estimated_cycles or 0) * times for _, x, times in executed(module, name)),
  )


def unknown_loops(module: Module) -> list[str]:
  """The loops whose trip count cannot be read, by JAX's names or the compiler's."""
  return [
    _label(x) for computation, x, _ in executed(module) if x.opcode == "while" and trip_count(module, computation, x) is None
  ]


def _label(instruction: Instruction) -> str:
  return instruction.op_name.removeprefix("jit(train_step)/") or instruction.name


# --- trip counts ---------------------------------------------------------------------------------------------------


class _Side(NamedTuple):
  """One side of a loop's comparison: a constant, or an element of the loop's tuple."""

  is_constant: bool
  value: int  # the constant, or the element's index


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
  """The iterations of a while: as the compiler says, or by its condition counter < constant; None if neither tells."""
  match = re.search(r'"known_trip_count":\{"n":"?(\d+)', loop.rest)
  if match:
    return int(match[1])
  condition = module.computations.get(loop.attribute("condition").strip().lstrip("%"))
  state = computation.operands(loop)
  if condition is None or not state:
    return None
  comparison, sides = _comparison(module, condition)
  direction = comparison.attribute("direction")
  if comparison.opcode != "compare" or len(sides) != 2 or direction not in ("LT", "LE", "GT", "GE", "NE"):
    return None
  if direction in ("GT", "GE"):
    sides, direction = sides[::-1], {"GT": "LT", "GE": "LE"}[direction]
  counter, limit = sides
  if counter is None or limit is None or counter.is_constant:
    return None
  first = _constant(computation, _element(computation, state[0], counter.value))
  last = limit.value if limit.is_constant else _constant(computation, _element(computation, state[0], limit.value))
  if first is None or last is None:
    return None
  return max(0, last - first + (direction == "LE"))  # The loops of jax.lax count up by one.


def _comparison(module: Module, condition: Computation) -> tuple[Instruction, list[_Side | None]]:
  """(the comparison that ends a loop's condition, its two sides), also where the compiler has fused it."""
  root = condition.root
  if root.opcode != "fusion":
    return root, [_side(condition, operand) for operand in condition.operands(root)]
  inner, given = module.computations[root.called()[0]], condition.operands(root)

  def side(operand: Instruction) -> _Side | None:
    operand = _through_copies(inner, operand)
    if operand.opcode == "parameter":
      number = int(operand.attribute("value"))
      return _side(condition, given[number]) if number < len(given) else None
    constant = _constant(inner, operand)
    return None if constant is None else _Side(True, constant)

  return inner.root, [side(operand) for operand in inner.operands(inner.root)]


def _side(condition: Computation, instruction: Instruction) -> _Side | None:
  instruction = _through_copies(condition, instruction)
  constant = _constant(condition, instruction)
  if constant is not None:
    return _Side(True, constant)
  return _Side(False, instruction.sizes("index")[0]) if instruction.opcode == "get-tuple-element" else None


def _through_copies(computation: Computation, instruction: Instruction) -> Instruction:
  """The instruction that makes a value, before any copies of it."""
  while instruction.opcode in _COPIES and computation.operands(instruction):
    instruction = computation.operands(instruction)[0]
  return instruction


def _element(computation: Computation, instruction: Instruction, index: int) -> Instruction | None:
  """The instruction that makes an element of a tuple; None if that cannot be seen."""
  instruction = _through_copies(computation, instruction)
  if instruction.opcode != "tuple" or index >= len(instruction.operands):
    return None
  return computation.instructions.get(instruction.operands[index])


def _constant(computation: Computation, instruction: Instruction | None) -> int | None:
  """The value of an instruction that makes a whole number; None for any other."""
  if instruction is None:
    return None
  instruction = _through_copies(computation, instruction)
  if instruction.opcode != "constant":
    return None
  match = re.match(r"\{?(-?\d+)\}?$", instruction.attribute("value").strip())
  return int(match[1]) if match else None
