"""The masked-language-model loss over a 250k vocabulary in bounded memory, and its sums per language.

A loss here is a sum and a weight; the caller divides once. Letters as in model.py, and: T slots of one device
(rows x slots), C slots in a chunk, G languages.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

Array = jax.Array
CHUNK_BYTES = 256 * 2**20  # fp32 logits alive at a time, on each device


def _chunk_slots(slots: int, vocabulary: int, chunk_bytes: int) -> int:
  """Slots whose fp32 logits fit chunk_bytes, in chunks as equal as multiples of 8 (a TPU sublane tile) allow."""
  fit = max(8, chunk_bytes // (4 * vocabulary) // 8 * 8)
  if slots <= fit:
    return slots
  chunks = -(-slots // fit)
  return -(-slots // chunks // 8) * 8


def _chunk(h_CxD, labels_C, weights_C, table_VxD, bias_V, with_gradients: bool):
  """Losses [C] of one chunk and, asked for, the gradients of their weighted sum."""
  logits_CxV = jax.lax.dot_general(h_CxD, table_VxD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
  logits_CxV = logits_CxV + bias_V
  top_C = jax.lax.stop_gradient(logits_CxV.max(axis=-1))
  exps_CxV = jnp.exp(logits_CxV - top_C[:, None])
  sums_C = exps_CxV.sum(axis=-1)
  at_label_C = jnp.take_along_axis(logits_CxV, labels_C[:, None], axis=-1)[:, 0]
  losses_C = jnp.log(sums_C) + top_C - at_label_C
  if not with_gradients:
    return losses_C, None
  is_label_CxV = labels_C[:, None] == jax.lax.broadcasted_iota(jnp.int32, logits_CxV.shape, 1)
  d_logits_CxV = ((exps_CxV / sums_C[:, None] - is_label_CxV) * weights_C[:, None]).astype(h_CxD.dtype)
  # As a product: XLA's CPU backend takes 80 ms for the plain sum over C where this takes 3 (768 slots, 32k entries).
  d_bias_V = jax.lax.dot_general(jnp.ones(d_logits_CxV.shape[:1], h_CxD.dtype), d_logits_CxV, (((0,), (0,)), ((), ())),
                                 preferred_element_type=jnp.float32)
  d_h_CxD = jax.lax.dot_general(d_logits_CxV, table_VxD, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
  d_table_VxD = jax.lax.dot_general(d_logits_CxV, h_CxD, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
  return losses_C, (d_h_CxD.astype(h_CxD.dtype), d_table_VxD, d_bias_V)


def _local(h_BxPxD, labels_BxP, weights_BxP, table_VxD, bias_V, *, with_gradients, chunk_bytes):
  """All slots of one device, chunk after chunk: losses [B, P] and gradients.

  The gradients are made in the forward pass, while a chunk's softmax is at hand: the sum's cotangent is one scalar,
  so nothing has to be recomputed and three products over the vocabulary do, not four.
  """
  B, P, D = h_BxPxD.shape
  V = table_VxD.shape[0]
  T = B * P
  C = _chunk_slots(T, V, chunk_bytes)
  chunks = -(-T // C)
  flat = lambda x: jnp.pad(  # noqa: E731
    x.reshape(T, *x.shape[2:]), [(0, chunks * C - T)] + [(0, 0)] * (x.ndim - 2)).reshape(chunks, C, *x.shape[2:])
  xs = (flat(h_BxPxD), flat(labels_BxP), flat(weights_BxP))

  if chunks == 1:
    losses, gradients = _chunk(*(x[0] for x in xs), table_VxD, bias_V, with_gradients)
    if gradients:
      d_h, d_table, d_bias = gradients
  elif not with_gradients:
    losses = jax.lax.map(lambda x: _chunk(*x, table_VxD, bias_V, False)[0], xs)
  else:

    def body(sums, x):
      losses_C, (d_h_CxD, d_table_VxD, d_bias_V) = _chunk(*x, table_VxD, bias_V, True)
      return (sums[0] + d_table_VxD, sums[1] + d_bias_V), (losses_C, d_h_CxD)

    zeros = (jnp.zeros((V, D), jnp.float32), jnp.zeros((V,), jnp.float32))
    (d_table, d_bias), (losses, d_h) = jax.lax.scan(body, zeros, xs)
  losses_BxP = losses.reshape(-1)[:T].reshape(B, P)
  return (losses_BxP, (d_h.reshape(-1, D)[:T].reshape(B, P, D), d_table, d_bias)) if with_gradients else (losses_BxP, None)


def _spread(args, batch_axes, with_gradients, chunk_bytes):
  """_local on every device's own rows; the table's gradient is summed over devices once, not once a chunk."""
  h, labels, weights, table, bias = args
  args = (h, labels, weights, table.astype(h.dtype), bias)  # cast before it is gathered
  local = functools.partial(_local, with_gradients=with_gradients, chunk_bytes=chunk_bytes)
  if not batch_axes:
    return local(*args)
  rows, whole = PartitionSpec(batch_axes), PartitionSpec()

  def on_device(*args):
    losses, gradients = local(*args)
    if gradients is None:
      return losses
    d_h, *of_table = gradients
    # Summed over devices and left in parts on the last axis, as the table itself lies.
    of_table = [jax.lax.psum_scatter(x, batch_axes[-1], scatter_dimension=0, tiled=True) for x in of_table]
    return losses, (d_h, *jax.lax.psum(of_table, batch_axes[:-1]))

  parts = PartitionSpec(batch_axes[-1])
  out = (rows, (rows, parts, parts)) if with_gradients else rows
  result = jax.shard_map(on_device, in_specs=(rows, rows, rows, whole, whole), out_specs=out, check_vma=False)(*args)
  return result if with_gradients else (result, None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _weighted_nll(h, table, bias, labels, weights, batch_axes, chunk_bytes):
  losses, _ = _spread((h, labels, weights, table, bias), batch_axes, False, chunk_bytes)
  return (losses * weights).sum(), losses


def _weighted_nll_forward(h, table, bias, labels, weights, batch_axes, chunk_bytes):
  losses, gradients = _spread((h, labels, weights, table, bias), batch_axes, True, chunk_bytes)
  return ((losses * weights).sum(), losses), gradients


def _weighted_nll_backward(batch_axes, chunk_bytes, gradients, cotangents):
  d_h, d_table, d_bias = gradients
  scale = cotangents[0]
  return (d_h * scale.astype(d_h.dtype), d_table * scale, d_bias * scale, None, None)


_weighted_nll.defvjp(_weighted_nll_forward, _weighted_nll_backward)


def mlm_loss(h_BxPxD: Array, table_VxD: Array, bias_V: Array, labels_BxP: Array, weights_BxP: Array, *,
             vocabulary_size: int, batch_axes: tuple[str, ...] = (), chunk_bytes: int = CHUNK_BYTES,
             ) -> tuple[Array, Array]:
  """Sum of weighted negative log-likelihoods (nats), and each slot's own.

  h: compute dtype, head vectors. table: fp32, tied embedding, its rows past vocabulary_size count for nothing.
  labels: int32. weights: fp32, 0 for unused slots. batch_axes: mesh axes that B is spread over, under jax.set_mesh;
  the last one divides V, and the table's gradient lies in parts over it.
  Returns (fp32 scalar, fp32[B, P]); only the scalar carries gradients. Products accumulate in fp32. Extra memory on
  a device is a few times chunk_bytes, however many slots there are, beside the table's gradient itself.
  """
  bias_V = jnp.where(jnp.arange(bias_V.shape[0]) < vocabulary_size, bias_V, -1e30)
  total, losses_BxP = _weighted_nll(h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP,
                                    batch_axes, chunk_bytes)
  return total, jax.lax.stop_gradient(losses_BxP)


def sums_by_language(losses_BxP: Array, weights_BxP: Array, language_B: Array, languages: int) -> tuple[Array, Array]:
  """Weighted loss sums and weights per language, both fp32[G]."""
  sums = jax.ops.segment_sum((losses_BxP * weights_BxP).sum(axis=1), language_B, languages)
  return sums, jax.ops.segment_sum(weights_BxP.sum(axis=1), language_B, languages)
