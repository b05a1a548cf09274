"""The mesh ("data", "fsdp"), one table of rules for the whole TrainState, and host rows to global arrays.

"fsdp" divides parameters, gradients' sums and moments as they are kept. A step gathers the parameters whole, once, and holds
one device's whole gradients until they are reduced (in effect ZeRO-1 with divided master weights).
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from xlmr_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")  # rows of a batch are divided over both
Rules = tuple[tuple[str, P], ...]

OTHER_RULES = (  # path in the TrainState      spec   what it is; an encoder's own are in its Family
  (r"(^|/)(count|step)$", P()),  # scalars
  (r"head/(dense|out)/(kernel|bias)$", P()),  # [D, D], [D, C], [C]: a fine-tuned task's head
)


def path_of(path: tuple) -> str:
  """The path of a leaf as "layer/qkv/kernel"."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def make_mesh(data: int = -1, fsdp: int = 1, devices: list | None = None) -> Mesh:
  """Mesh of data x fsdp devices in the order of the interconnect; data = -1 takes what fsdp leaves.

  Raises UserError if they do not multiply to all devices, or if fsdp has no place on the chips of a slice.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if data == -1 and fsdp > 0 and count % fsdp == 0:
    data = count // fsdp
  if data < 1 or fsdp < 1 or data * fsdp != count:
    raise UserError(f"config.mesh: data={data} x fsdp={fsdp} is not the {count} devices there are")
  # Auto axes: make_mesh defaults to Explicit, under which linen's modules fail.
  auto = (AxisType.Auto,) * 2
  slices = len({getattr(device, "slice_index", 0) or 0 for device in devices if device.platform == "tpu"})
  if slices > 1 and data % slices:
    raise UserError(f"config.mesh.data={data} does not divide over {slices} slices, and fsdp must stay on one; "
                    "choose another config.mesh.fsdp")  # fmt: skip
  return Mesh(_grid(data, fsdp, slices, devices), BATCH_AXES, axis_types=auto)


def _grid(data: int, fsdp: int, slices: int, devices: list) -> np.ndarray:
  """The devices as [data, fsdp] in the order of jax.make_mesh, which knows one slice alone; fsdp stays on a slice.

  jax.make_mesh raises NotImplementedError where fsdp is no product of whole axes of the chips, such as 4 on 8 x 8 of them.
  An axis of the chips is divided then, and neighbours along it stay together.
  """
  for is_split in (False, True):
    try:
      if slices <= 1:
        return mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=is_split)
      return mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp), (slices, 1), devices, allow_split_physical_axes=is_split
      )
    except NotImplementedError:
      continue
  raise UserError(f"config.mesh.fsdp={fsdp}: has no place on these chips; choose a product of factors of their axes")


def specs(state: Any, rules: Rules) -> Any:
  """PartitionSpec of every leaf: the first rule whose pattern is found in the leaf's path. No rule is a ValueError."""

  def spec_of(path, leaf):
    spec = next((spec for pattern, spec in (*rules, *OTHER_RULES) if re.search(pattern, path_of(path))), None)
    if spec is None:
      raise ValueError(f"no sharding rule for {path_of(path)} {leaf.shape}; add one to the encoder's Family")
    return spec

  return jax.tree_util.tree_map_with_path(spec_of, state)


def state_shardings(mesh: Mesh, state: Any, rules: Rules) -> Any:
  """NamedSharding of every leaf. UserError for a leaf that its rule does not divide."""

  def sharding_of(path, leaf, spec):
    for size, axis in zip(leaf.shape, spec):
      if axis and size % mesh.shape[axis]:
        raise UserError(f"{path_of(path)} {tuple(leaf.shape)}: {size} does not divide over {axis}={mesh.shape[axis]}; "
                        f"choose another config.mesh.{axis}")  # fmt: skip
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(sharding_of, state, specs(state, rules))


def on_each_device(work: Callable, mesh: Mesh, params_specs: Any, out_specs: Any) -> Callable:
  """work(params, batch, ...) of each device's own parts and rows, also on a mesh of one device.

  What follows the batch is the same on every device. out_specs: how what work returns is divided; P(): the same everywhere.
  """

  def run(params: Any, batch: Any, *replicated_arguments: Any) -> Any:
    in_specs = (params_specs, P(BATCH_AXES), *(P() for _ in replicated_arguments))
    mapped = jax.shard_map(work, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return mapped(params, batch, *replicated_arguments)

  return run


def _fsdp_axis(spec: P) -> int | None:
  return next((i for i, axis in enumerate(spec) if axis == "fsdp"), None)


def gather(params: Any, params_specs: Any, mesh: Mesh, dtype: Any) -> Any:
  """Whole parameters out of a device's parts, once per step; inside on_each_device.

  Kernels enter products only, so they travel in the compute dtype. What is looked up or added (both embeddings, the head's
  bias) travels as it is, fp32: rounded, it would make the loss depend on the mesh.
  """
  if mesh.shape["fsdp"] == 1:
    return params

  def gather_leaf(path, x: jax.Array, spec: P) -> jax.Array:
    axis = _fsdp_axis(spec)
    if axis is None:
      return x
    x = x.astype(dtype) if path_of(path).endswith("kernel") else x
    return jax.lax.all_gather(x, "fsdp", axis=axis, tiled=True)

  return jax.tree_util.tree_map_with_path(gather_leaf, params, params_specs)


def reduce(grads: Any, grads_specs: Any, mesh: Mesh, dtype: Any) -> Any:
  """Sums over all devices of whole gradients, each device left with its part, fp32; on the network in dtype."""

  def reduce_leaf(x: jax.Array, spec: P) -> jax.Array:
    axis, x = _fsdp_axis(spec), x.astype(dtype)
    if axis is not None and mesh.shape["fsdp"] > 1:
      x = jax.lax.psum(jax.lax.psum_scatter(x, "fsdp", scatter_dimension=axis, tiled=True), "data")
    else:
      x = jax.lax.psum(x, BATCH_AXES)
    return x.astype(np.float32)

  return jax.tree.map(reduce_leaf, grads, grads_specs)


# --- batches -------------------------------------------------------------------------------------------------------


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over all devices."""
  return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, P())


def _device_rows(mesh: Mesh, batch_rows: int) -> list[tuple[int, int]]:
  """(first row, end) of each device of this process, each once, ascending."""
  indices = batch_sharding(mesh).addressable_devices_indices_map((batch_rows,))
  return sorted({index[0].indices(batch_rows)[:2] for index in indices.values() if index is not None})


def host_rows(mesh: Mesh, batch_rows: int) -> np.ndarray:
  """Which rows of a global batch this process feeds, int64 ascending: those that its devices hold.

  On several hosts they need not be neighbours, because the mesh follows the interconnect. UserError if the devices do not
  divide the batch.
  """
  if batch_rows % mesh.size:
    raise UserError(f"config.batch_rows={batch_rows} does not divide over {mesh.size} devices; "
                    f"use a multiple of {mesh.size}")  # fmt: skip
  return np.concatenate([np.arange(first, end) for first, end in _device_rows(mesh, batch_rows)])


def to_every_device(mesh: Mesh, value: float) -> jax.Array:
  """A number as an fp32 scalar that all devices hold."""
  with jax.transfer_guard("allow"):  # as in to_global
    return jax.make_array_from_callback((), replicated(mesh), lambda _: np.float32(value))


def to_global(mesh: Mesh, batch: dict[str, np.ndarray], batch_rows: int) -> dict[str, jax.Array]:
  """This host's rows of each array, in the order of host_rows(), as a global array of batch_rows rows."""
  sharding = batch_sharding(mesh)
  offsets, ends = {}, 0
  for first, end in _device_rows(mesh, batch_rows):
    offsets[first], ends = ends, ends + end - first

  def to_array(x: np.ndarray) -> jax.Array:
    def part(index: Any) -> np.ndarray:
      first, end, _ = index[0].indices(batch_rows)
      return x[offsets[first] : offsets[first] + end - first]

    return jax.make_array_from_callback((batch_rows, *x.shape[1:]), sharding, part)

  with jax.transfer_guard("allow"):  # On several hosts JAX takes this explicit transfer for an implicit one.
    return {name: to_array(x) for name, x in batch.items()}
