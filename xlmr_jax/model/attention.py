"""Bidirectional attention inside the segments of a row, in its plain form; the kernels are tested against it.

Letters as in xlmr.py, and: G groups of heads, E = K x heads per group. The projection comes as qkv[B, L, G x 3 x E]:
queries, keys and values of a group side by side; the plain form has one group.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from xlmr_jax.model import dropout
from xlmr_jax.model.dropout import Drop
from xlmr_jax.model.layers import add_bias, precision_of

Array = jax.Array
MASKED = -1e30  # a score that no probability is left of


def by_group(x: Array, groups: int = 1) -> Array:
  """[..., 3, H, K] to [..., G, 3, E]: queries, keys and values of a group of heads side by side."""
  *lead, three, heads, width = x.shape
  return jnp.moveaxis(x.reshape(*lead, three, groups, heads // groups * width), -2, -3)


def split_heads(qkv_BxLxC: Array, heads: int) -> list[Array]:
  """Queries, keys and values of a projection with one group, each [B, L, H, K]."""
  B, L, C = qkv_BxLxC.shape
  parts_BxLx3xD = qkv_BxLxC.reshape(B, L, 3, C // 3)
  return [parts_BxLx3xD[:, :, i].reshape(B, L, heads, -1) for i in range(3)]


def row_seeds(drop: Drop) -> Array:
  """uint32[B], a seed per row for the dropout of its probabilities. drop.index: the numbers of the rows."""
  key, rows_B = drop.key_and_index()
  return dropout.hash_bits(dropout.key_data(key), rows_B, 1)[:, 0]


def probability_bits(seed: Array, head: int | Array, first_query: int | Array, queries: int, keys: int) -> Array:
  """uint32[queries, keys] of one row and head from the row's seed, for queries from first_query on. Pallas runs it too."""
  query_Qx1 = jax.lax.broadcasted_iota(jnp.uint32, (queries, 1), 0) + jnp.uint32(first_query)
  key_1xL = jax.lax.broadcasted_iota(jnp.uint32, (1, keys), 1)
  head_seed = dropout.mix(seed + jnp.uint32(head) * jnp.uint32(dropout.GOLDEN))
  return dropout.element_bits(dropout.mix(query_Qx1 ^ head_seed), key_1xL, seed)


def attention(qkv_BxLxC: Array, bias_C: Array, segments_BxL: Array, heads: int, drop: Drop) -> Array:
  """Attention of each token to its own segment, [B, L, D], head after head; softmax in fp32.

  qkv: a projection without its bias. drop: of probabilities, of the same elements as in every kernel.
  """
  qkv_BxLxC = checkpoint_name(add_bias(qkv_BxLxC, bias_C), "qkv")
  q_BxLxHxK, k_BxLxHxK, v_BxLxHxK = split_heads(qkv_BxLxC, heads)
  B, L, H, K = q_BxLxHxK.shape
  precision = precision_of(v_BxLxHxK.dtype)
  scores_BxHxLxL = K**-0.5 * jnp.einsum(
    "BQHK,BSHK->BHQS", q_BxLxHxK, k_BxLxHxK, precision=precision, preferred_element_type=jnp.float32
  )
  allowed_Bx1xLxL = (segments_BxL[:, :, None] == segments_BxL[:, None, :])[:, None]
  probs_BxHxLxL = jax.nn.softmax(jnp.where(allowed_Bx1xLxL, scores_BxHxLxL, MASKED), axis=-1)
  if drop.active_rate:
    bits_of_heads = jax.vmap(lambda seed, head: probability_bits(seed, head, 0, L, L), (None, 0))
    bits_BxHxLxL = jax.vmap(bits_of_heads, (0, None))(row_seeds(drop), jnp.arange(H, dtype=jnp.uint32))
    probs_BxHxLxL = dropout.drop_by_bits(probs_BxHxLxL, bits_BxHxLxL, drop.rate)
  probs_BxHxLxL = probs_BxHxLxL.astype(v_BxLxHxK.dtype)
  return jnp.einsum("BHQS,BSHK->BQHK", probs_BxHxLxL, v_BxLxHxK, precision=precision).reshape(B, L, H * K)
