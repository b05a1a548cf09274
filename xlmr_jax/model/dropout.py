"""Dropout whose mask follows from (key, place in the global batch): the same on every mesh, and nothing is stored for it.

Bits come from a hash of the place (hash_bits), which XLA and Pallas compute where they are used: on TPU the mask costs no
memory traffic, where threefry doubles the time of such an operation and XLA's generator ("rbg") adds half, and depends
on the mesh. The hash is no cryptography: it is C. Wellons' kind of 32-bit finaliser (two odd multipliers between
xor-shifts), keyed twice, so that masks of two keys are not shifts of each other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
GOLDEN = 0x9E3779B9  # 2^32 / golden ratio, odd: steps by it visit every word once


class Drop(NamedTuple):
  """One dropout of a model: which elements it zeroes follows from key and index alone.

  index: uint32, the number in the global batch of the token of each vector, or of the row for attention probabilities.
  bits: "hash", or "rbg" for the key's own generator, which does not know index: on several devices the key must then be
  each device's own.
  """

  rate: float = 0.0
  key: Array | None = None  # None: nothing is dropped
  index: Array | None = None
  bits: str = "hash"

  @property
  def active_rate(self) -> float:
    """The rate, or 0 without a key."""
    return self.rate if self.key is not None else 0.0

  def key_and_index(self) -> tuple[Array, Array]:
    """The key and the index of a dropout that is active."""
    if self.key is None or self.index is None:
      raise ValueError("a dropout with a key needs an index too")
    return self.key, self.index


def token_index(rows_B: Array, length: int) -> Array:
  """The number of each token in the global batch, uint32[B, L], from the numbers of its rows, uint32[B]."""
  return rows_B[:, None] * jnp.uint32(length) + jnp.arange(length, dtype=jnp.uint32)


def mix(x: Array, key: Array | int = 0) -> Array:
  """Bijection of uint32 words in which every input bit moves about half of the output bits; key comes in half way.

  It comes in by xor: added, two keys would give the same words but for one constant difference.
  """
  x = x ^ (x >> 16)
  x = x * jnp.uint32(0x7FEB352D)
  x = x ^ (x >> 15)
  x = (x ^ key) * jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)


def key_data(key: Array) -> Array:
  """Two uint32 words of a JAX key of any kind."""
  return jax.random.bits(key, (2,), jnp.uint32)


def row_hashes(key_data_2: Array, index: Array) -> Array:
  """A hash of each number, uint32 and of the shape of index."""
  return mix(index ^ key_data_2[0])


def element_bits(row_hashes: Array, columns: Array, word: Array) -> Array:
  """uint32 of each element of a row; row_hashes[..., 1] and columns[C] broadcast. Pallas kernels run it too.

  The hash is a row's key too. In a batch of millions of rows, many hashes lie a few steps of GOLDEN apart, and without a key
  of its own one row's mask would be the other's, shifted.
  """
  return mix(row_hashes + columns * jnp.uint32(GOLDEN), row_hashes ^ word)


def hash_bits(key_data_2: Array, index: Array, columns: int) -> Array:
  """uint32[*index.shape, columns]."""
  columns_C = jax.lax.broadcasted_iota(jnp.uint32, (1,) * index.ndim + (columns,), index.ndim)
  return element_bits(row_hashes(key_data_2, index)[..., None], columns_C, key_data_2[1])


def threshold(rate: float) -> int:
  """Words below it are dropped: a share of `rate` of all words."""
  return min(round(rate * 2**32), 2**32 - 1)


def drop_by_bits(x: Array, bits: Array, rate: float) -> Array:
  """Inverted dropout of x by uint32 bits of its shape."""
  return jnp.where(bits >= jnp.uint32(threshold(rate)), x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def dropout(x: Array, drop: Drop) -> Array:
  """Inverted dropout of x[*drop.index.shape, C]; the identity without a key or at rate 0."""
  if not drop.active_rate:
    return x
  key, index = drop.key_and_index()
  if drop.bits == "hash":
    bits = hash_bits(key_data(key), index, x.shape[-1])
  else:
    bits = jax.random.bits(key, x.shape, jnp.uint32)
  return drop_by_bits(x, bits, drop.rate)
