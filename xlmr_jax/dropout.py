"""Dropout whose mask follows from (key, index in the global array): the same on every mesh, and nothing is stored for it.

Bits come from a hash of the index (hash_bits), which XLA and Pallas compute where they are used: on TPU the mask costs no
memory traffic, where threefry doubles the time of such an operation and XLA's generator ("rbg") adds half, and depends
on the mesh. The hash is no cryptography: C. Wellons' kind of 32-bit finaliser (two odd multipliers between xor-shifts),
keyed twice, so that masks of two keys are not shifts of each other.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
GOLDEN = 0x9E3779B9  # 2^32 / golden ratio, odd: steps by it visit every word once


def mix(x: Array, key: Array | int = 0) -> Array:
  """Bijection of uint32 words in which every input bit moves about half of the output bits; key: added half way."""
  x = x ^ (x >> 16)
  x = x * jnp.uint32(0x7FEB352D)
  x = x ^ (x >> 15)
  x = (x + key) * jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)


def words_of(key: Array) -> Array:
  """Two uint32 words of a JAX key of any kind."""
  return jax.random.bits(key, (2,), jnp.uint32)


def hash_bits(words_2: Array, shape: tuple[int, ...]) -> Array:
  """uint32 of this shape, a function of the words and of an element's (leading index, last index)."""
  lead, last = 1, shape[-1]
  index = jnp.zeros((*shape[:-1], 1), jnp.uint32)
  for axis in range(len(shape) - 2, -1, -1):
    index = index + jax.lax.broadcasted_iota(jnp.uint32, (*shape[:-1], 1), axis) * jnp.uint32(lead % 2**32)
    lead *= shape[axis]
  rows = mix(index ^ words_2[0])
  columns = jax.lax.broadcasted_iota(jnp.uint32, (1,) * (len(shape) - 1) + (last,), len(shape) - 1)
  return mix(rows + columns * jnp.uint32(GOLDEN), words_2[1])


def threshold(rate: float) -> int:
  """Words below it are dropped: a share of `rate` of all words."""
  return min(round(rate * 2**32), 2**32 - 1)


def drop(x: Array, bits: Array, rate: float) -> Array:
  """Inverted dropout of x by uint32 bits of its shape."""
  return jnp.where(bits >= jnp.uint32(threshold(rate)), x * jnp.asarray(1.0 / (1.0 - rate), x.dtype),
                   jnp.zeros((), x.dtype))


def dropout(x: Array, rate: float, key: Array | None, bits: str = "hash") -> Array:
  """Inverted dropout; the identity without a key. bits: "hash", or "key" for the key's own generator (threefry, rbg)."""
  if key is None or rate == 0.0:
    return x
  return drop(x, hash_bits(words_of(key), x.shape) if bits == "hash" else jax.random.bits(key, x.shape, jnp.uint32), rate)
