"""The work of one instruction: FLOPs of products and of kernels, and the bytes that it must move."""

import math
import re

from xlmr_jax.planner.hlo import Computation, Instruction, Module

# Products of [L, L, K] that a splash attention kernel makes: scores and values; then both again with their gradients.
SPLASH = (("splash.*fwd", 2), ("splash.*dq", 3), ("splash.*dkv", 4))


def product_flops(computation: Computation, instruction: Instruction) -> int:
  """2 x multiply-adds of a dot or convolution; 0 of anything else.

  On TPUs a batched product is a convolution over a dilated input. Most of its window falls on holes, which are no work.
  """
  if instruction.opcode == "dot":
    left = computation.operands(instruction)[0].arrays[0]
    return 2 * instruction.arrays[0].elements * math.prod(left.sizes[i] for i in instruction.sizes("lhs_contracting_dims"))
  labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels"))
  if instruction.opcode != "convolution" or labels is None:
    return 0
  left, right = (x.arrays[0] for x in computation.operands(instruction)[:2])
  out = instruction.arrays[0]
  window = {key: value.split("x") for key, value in re.findall(r"(\w+)=([\dx_\-]+)", instruction.attribute("window"))}
  groups = int(instruction.attribute("feature_group_count") or 1)
  batch_groups = int(instruction.attribute("batch_group_count") or 1)
  steps = left.sizes[labels[1].index("b")] // batch_groups * (left.sizes[labels[1].index("f")] // groups)
  steps *= out.sizes[labels[3].index("f")]
  for axis in range(sum(c.isdigit() for c in labels[1])):

    def size(array_labels: str, sizes: tuple[int, ...], axis: int = axis) -> int:
      return sizes[array_labels.index(str(axis))]

    def option(key: str, default: int, axis: int = axis) -> int:
      return int(window[key][axis].split("_")[0]) if key in window else default

    steps *= _touching(
      size(labels[1], left.sizes),
      size(labels[2], right.sizes),
      size(labels[3], out.sizes),
      stride=option("stride", 1),
      low=option("pad", 0),
      left_dilation=option("lhs_dilate", 1),
      right_dilation=option("rhs_dilate", 1),
    )
  return 2 * steps


def _touching(left: int, right: int, out: int, *, stride: int, low: int, left_dilation: int, right_dilation: int) -> int:
  """How many (window element, output) pairs meet an input element along one axis."""
  count = 0
  for tap in range(right):
    # Output o meets input (o * stride - low + tap * right_dilation) / left_dilation, if that is whole and in range.
    shift = tap * right_dilation - low
    for o in range(out):
      position = o * stride + shift
      count += 0 <= position < left * left_dilation and position % left_dilation == 0
  return count


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
    products = 5  # The same kernel also makes dq.
  flops = 2.0 * products * rows * q.sizes[-2] * k.sizes[-2] * q.sizes[-1]
  return flops, float(sum(x.bytes for x in operands) + instruction.bytes)


def moved_bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
  """The bytes that an instruction must read from the HBM and write there; what lies on the chip counts nothing.

  Of a table that it gathers from, or writes rows into, only those rows count.
  """
  inner = {x.opcode for _, x in module.inside(instruction)} | {instruction.opcode}
  operands = computation.operands(instruction)
  if inner & {"scatter", "dynamic-update-slice"}:
    target = max(operands, key=lambda x: x.bytes, default=instruction)
    updates = [x for x in operands if x is not target]
    rows = min(sum(x.bytes for x in updates), instruction.bytes)
    # A scatter adds to the rows that it finds. A slice is written over them.
    return sum(x.hbm_bytes for x in updates) + rows * (2 if "scatter" in inner else 1) * bool(instruction.hbm_bytes)
  if inner & {"gather", "dynamic-slice", "slice"}:
    return instruction.hbm_bytes + sum(min(x.hbm_bytes, instruction.bytes) for x in operands)
  return float(instruction.hbm_bytes + sum(x.hbm_bytes for x in operands))
