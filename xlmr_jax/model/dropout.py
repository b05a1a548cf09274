"""Dropout whose mask follows from (key, place in the global batch): the same on every mesh, and nothing is stored for it.

Bits come from a hash of the place (hash_bits), which XLA and Pallas compute where they are used: on TPU the mask costs no
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


def row_hashes(words_2: Array, places: Array) -> Array:
  """A hash of each place, uint32 as places are: numbers of rows or of tokens in the global batch."""
  return mix(places ^ words_2[0])


def element_bits(row_hashes: Array, columns: Array, word: Array) -> Array:
  """uint32 of each element of a row; row_hashes[..., 1] and columns[C] broadcast. Pallas kernels run it too."""
  return mix(row_hashes + columns * jnp.uint32(GOLDEN), word)


def hash_bits(words_2: Array, places: Array, columns: int) -> Array:
  """uint32[*places.shape, columns]."""
  columns_C = jax.lax.broadcasted_iota(jnp.uint32, (1,) * places.ndim + (columns,), places.ndim)
  return element_bits(row_hashes(words_2, places)[..., None], columns_C, words_2[1])


def threshold(rate: float) -> int:
  """Words below it are dropped: a share of `rate` of all words."""
  return min(round(rate * 2**32), 2**32 - 1)


def drop(x: Array, bits: Array, rate: float) -> Array:
  """Inverted dropout of x by uint32 bits of its shape."""
  return jnp.where(bits >= jnp.uint32(threshold(rate)), x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def dropout(x: Array, rate: float, key: Array | None, places: Array, bits: str = "hash") -> Array:
  """Inverted dropout of x[*places.shape, C]; the identity without a key.

  places: uint32, which token of the global batch a vector is. bits: "hash", or "key" for the key's own generator, which
  knows no places: on several devices the key must be each one's own.
  """
  if key is None or rate == 0.0:
    return x
  of_places = hash_bits(words_of(key), places, x.shape[-1]) if bits == "hash" else jax.random.bits(key, x.shape, jnp.uint32)
  return drop(x, of_places, rate)
