"""The mesh ("data", "fsdp"), one table of rules for the whole TrainState, and host rows to global arrays."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from xlmr_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")  # rows of a batch are spread over both

RULES = (  # path in the TrainState             spec                          shape (N: scanned layers)
  (r"token_embedding$",                         P("fsdp", None)),             # [V, D]
  (r"position_embedding$",                      P(None, "fsdp")),             # [514, D]
  (r"layer/qkv/kernel$",                        P(None, "fsdp")),             # [N, D, 3, H, K]
  (r"layer/attention_out/kernel$",              P(None, None, None, "fsdp")), # [N, H, K, D]
  (r"layer/ffn_in/kernel$",                     P(None, "fsdp")),             # [N, D, F]
  (r"layer/ffn_out/kernel$",                    P(None, None, "fsdp")),       # [N, F, D]
  (r"head_dense/kernel$",                       P("fsdp", None)),             # [D, D]
  (r"head/(dense|out)/kernel$",                 P()),                         # [D, D], [D, C]: a fine-tuned task's
  (r"head_bias$",                               P("fsdp")),                   # [V]
  (r"(norm/(scale|bias)|bias|count|step)$",     P()),                         # small: everywhere
)  # fmt: skip


def make_mesh(data: int = -1, fsdp: int = 1, devices: list | None = None) -> Mesh:
  """Mesh of data x fsdp devices; data = -1 takes what fsdp leaves. UserError if they do not multiply to all devices."""
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if data == -1 and fsdp > 0 and count % fsdp == 0:
    data = count // fsdp
  if data < 1 or fsdp < 1 or data * fsdp != count:
    raise UserError(f"config.mesh: data={data} x fsdp={fsdp} is not the {count} devices there are")
  # Auto axes: make_mesh defaults to Explicit, under which linen's modules fail.
  auto = (AxisType.Auto,) * 2
  if len({device.process_index for device in devices}) == 1:
    return jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=auto, devices=devices)
  # By process: make_mesh's order by interconnect interleaves the processes of most TPU slices, and a host's rows must
  # be one slice of the batch. Devices of a host stay neighbours; only data parallelism crosses hosts either way.
  ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
  return Mesh(np.array(ordered).reshape(data, fsdp), BATCH_AXES, axis_types=auto)


def specs(state: Any) -> Any:
  """PartitionSpec of every leaf by RULES. A leaf that no rule knows is an error."""

  def of_leaf(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), None)
    if spec is None:
      raise ValueError(f"sharding.RULES has no row for {name} {leaf.shape}")
    return spec

  return jax.tree_util.tree_map_with_path(of_leaf, state)


def state_shardings(mesh: Mesh, state: Any) -> Any:
  """NamedSharding of every leaf. UserError for one that its rule does not divide."""

  def of_leaf(path, leaf, spec):
    for size, axis in zip(leaf.shape, spec):
      if axis and size % mesh.shape[axis]:
        raise UserError(
          f"{jax.tree_util.keystr(path, simple=True, separator='/')} {tuple(leaf.shape)}: {size} does not "
          f"divide over {axis}={mesh.shape[axis]}; choose another config.mesh.{axis}"
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(of_leaf, state, specs(state))


def on_each_device(work: Callable, mesh: Mesh, params: Any, *, gives_grads: bool) -> Callable:
  """work(params, batch, ...) of each device's own parts and rows. gives_grads: it returns (tree like params, others)."""
  of_params = specs(params)
  out_specs = (of_params, P()) if gives_grads else P()
  return lambda params, batch, *whole: jax.shard_map(
    work, mesh=mesh, in_specs=(of_params, P(BATCH_AXES), *(P() for _ in whole)), out_specs=out_specs, check_vma=False
  )(params, batch, *whole)


def _axis_of(spec: P) -> int | None:
  return next((i for i, axis in enumerate(spec) if axis == "fsdp"), None)


def gather(params: Any, specs: Any, mesh: Mesh, dtype: Any) -> Any:
  """Whole parameters out of a device's parts, once a step, over the network in the compute dtype; inside on_each_device."""
  if mesh.shape["fsdp"] == 1:
    return params

  def of_leaf(x, spec):
    axis = _axis_of(spec)
    return x if axis is None else jax.lax.all_gather(x.astype(dtype), "fsdp", axis=axis, tiled=True)

  return jax.tree.map(of_leaf, params, specs)


def reduce(grads: Any, specs: Any, mesh: Mesh, dtype: Any) -> Any:
  """Sums over all devices of whole gradients, each device left with its part, fp32; on the network in dtype."""

  def of_leaf(x, spec):
    axis, x = _axis_of(spec), x.astype(dtype)
    if axis is not None and mesh.shape["fsdp"] > 1:
      x = jax.lax.psum(jax.lax.psum_scatter(x, "fsdp", scatter_dimension=axis, tiled=True), "data")
    else:
      x = jax.lax.psum(x, BATCH_AXES)
    return x.astype(np.float32)

  return jax.tree.map(of_leaf, grads, specs)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over all devices."""
  return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def host_rows(mesh: Mesh, batch_rows: int) -> slice:
  """The rows of a global batch that this process feeds: one contiguous slice. UserError if devices do not divide it."""
  if batch_rows % mesh.size:
    raise UserError(
      f"config.batch_rows={batch_rows} does not divide over {mesh.size} devices; use a multiple of {mesh.size}"
    )
  indices = batch_sharding(mesh).addressable_devices_indices_map((batch_rows,))
  parts = sorted(index[0].indices(batch_rows)[:2] for index in indices.values())
  start, stop = parts[0][0], parts[-1][1]
  if stop - start != sum(b - a for a, b in parts):
    raise ValueError(f"this process's devices hold rows {parts} of a batch: not one contiguous slice")
  return slice(start, stop)


def to_global(mesh: Mesh, batch: dict[str, np.ndarray], batch_rows: int) -> dict[str, jax.Array]:
  """This host's rows of each array as a global array of batch_rows rows."""
  sharding = batch_sharding(mesh)
  with jax.transfer_guard("allow"):  # on several hosts JAX takes this explicit transfer for an implicit one
    return {
      name: jax.make_array_from_process_local_data(sharding, x, (batch_rows, *x.shape[1:])) for name, x in batch.items()
    }
