"""Finds silent corruption: devices that should hold the same numbers and do not. Each device sends one number per leaf."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from xlmr_jax.errors import RestartError
from xlmr_jax.training import sharding


def _hash(x: jax.Array) -> jax.Array:
  """A sum of the mixed bits of an array, uint32: another one whichever bit flips."""
  bits = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
  bits = jax.lax.bitcast_convert_type(bits, jnp.dtype(f"uint{8 * bits.dtype.itemsize}")).astype(jnp.uint32)
  bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)  # so that changes of two numbers do not cancel out
  return (bits ^ (bits >> 15)).sum(dtype=jnp.uint32)


def make_fingerprints(mesh: Mesh, rules: sharding.Rules) -> Callable[[Any], jax.Array]:
  """Jitted: state -> uint32[data, fsdp, leaves], what each device holds of each leaf; the same table on every device."""

  def on_device(state: Any) -> jax.Array:
    own = jnp.stack([_hash(x) for x in jax.tree.leaves(state)])
    return jax.lax.all_gather(own, sharding.BATCH_AXES).reshape(*mesh.devices.shape, -1)

  def fingerprints(state: Any) -> jax.Array:
    specs = sharding.specs(state, rules)
    return jax.shard_map(on_device, mesh=mesh, in_specs=(specs,), out_specs=PartitionSpec(), check_vma=False)(state)

  return jax.jit(fingerprints, out_shardings=sharding.replicated(mesh))


def refuse_corruption(table: jax.Array, mesh: Mesh, state: Any, rules: sharding.Rules, step: int) -> None:
  """RestartError if devices that should hold the same do not; arguments as in differences."""
  if found := differences(jax.device_get(table), mesh, state, rules):
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise RestartError(
      f"at step {step}, devices do not hold the same numbers: {'; '.join(found[:5])}{more}; nothing of this is saved, and "
      "the same command goes on from the newest checkpoint; if a device is named again, run without its host"
    )


def differences(table: np.ndarray, mesh: Mesh, state: Any, rules: sharding.Rules) -> list[str]:
  """The leaves that are not alike on devices that should hold the same part, each with the devices that stand alone.

  table: of make_fingerprints. state: what it was made of, or its abstract arrays.
  """
  specs = jax.tree.leaves(sharding.specs(state, rules))
  paths = [sharding.path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
  found = []
  for leaf, (path, spec) in enumerate(zip(paths, specs, strict=True)):
    is_divided = any(axis == "fsdp" for axis in spec) and mesh.shape["fsdp"] > 1
    # Each group of devices holds one part: those of one place along fsdp, or all.
    groups = [(table[:, i, leaf], mesh.devices[:, i]) for i in range(mesh.shape["fsdp"])]
    groups = groups if is_divided else [(table[..., leaf].ravel(), mesh.devices.ravel())]
    for hashes, devices in groups:
      counts = Counter(hashes.tolist()).most_common()
      if len(counts) > 1:
        is_tied = counts[0][1] == counts[1][1]  # Nobody knows which of two is right.
        odd = [device for value, device in zip(hashes, devices) if is_tied or value != counts[0][0]]
        where = ", ".join(f"{device.id} of host {device.process_index}" for device in odd[:8])
        found.append(f"{path} on device {where}" + (f" and {len(odd) - 8} more" if len(odd) > 8 else ""))
  return found
