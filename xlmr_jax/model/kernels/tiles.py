"""The shape of a TPU's registers, and how a row becomes a column inside a Pallas kernel."""

import jax
import jax.numpy as jnp

LANES, SUBLANES = 128, 8


def row_to_column(x_1xQ: jax.Array) -> jax.Array:
  """A row as a column [Q, 1] inside a kernel, through a whole tile, because Mosaic transposes whole tiles only."""
  return jnp.broadcast_to(x_1xQ, (LANES, x_1xQ.shape[1])).T[:, :1]
