"""The masked-language-model loss over a 250k vocabulary in bounded memory, and its sums per language.

A loss here is a sum and a weight; the caller divides once. Letters as in model.py, and: T slots of one device
(rows x slots), C slots in a chunk, G languages.
"""

import functools

import jax
import jax.numpy as jnp

from xlmr_jax.model.fused import sum_rows

Array = jax.Array
CHUNK_BYTES = 256 * 2**20  # fp32 logits alive at a time, on each device


def _product(a, b, contract):
  """fp32 product of two matrices over axes (of a, of b)."""
  return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def _at_once(h_TxD, labels_T, weights_T, table_VxD, bias_V, sums):
  """Losses [T] and, given sums to add them to, the gradients of their weighted sum, all logits alive: three products."""
  logits_TxV = _product(h_TxD, table_VxD, (1, 1)) + bias_V
  top_T = jax.lax.stop_gradient(logits_TxV.max(axis=-1))
  exps_TxV = jnp.exp(logits_TxV - top_T[:, None])
  sums_T = exps_TxV.sum(axis=-1)
  at_label_T = jnp.take_along_axis(logits_TxV, labels_T[:, None], axis=-1)[:, 0]
  losses_T = jnp.log(sums_T) + top_T - at_label_T
  if sums is None:
    return losses_T, None
  is_label_TxV = labels_T[:, None] == jax.lax.broadcasted_iota(jnp.int32, logits_TxV.shape, 1)
  d_logits_TxV = ((exps_TxV / sums_T[:, None] - is_label_TxV) * weights_T[:, None]).astype(h_TxD.dtype)
  d_h_TxD = _product(d_logits_TxV, table_VxD, (1, 0))
  return losses_T, (
    d_h_TxD.astype(h_TxD.dtype),
    sums[0] + _product(d_logits_TxV, h_TxD, (0, 0)),
    sums[1] + sum_rows(d_logits_TxV),
  )


def _in_chunks(h_TxD, labels_T, weights_T, table_VxD, bias_V, sums, C: int):
  """The same with C entries' logits alive at a time, made twice: four products, and no sum as large as the table.

  Chunks of the vocabulary rather than of the slots: an entry's gradient is then complete when its chunk is, where
  chunks of slots would read and write all of the table's gradient once each.
  """
  V, T = table_VxD.shape[0], h_TxD.shape[0]
  chunks = -(-V // C)

  def logits_of(i):
    # The last chunk begins early, so that all are of one size; what it shares with the one before counts once.
    start = jnp.minimum(i * C, V - C)
    table_CxD, bias_C = (jax.lax.dynamic_slice_in_dim(x, start, C) for x in (table_VxD, bias_V))
    is_new_C = start + jnp.arange(C) >= i * C
    return start, is_new_C, table_CxD, _product(h_TxD, table_CxD, (1, 1)) + jnp.where(is_new_C, bias_C, -1e30)

  at_label_T = (h_TxD.astype(jnp.float32) * table_VxD[labels_T].astype(jnp.float32)).sum(axis=-1) + bias_V[labels_T]

  def add_up(state):
    """Sums of exponentials relative to a reference that is known before, so that no logits are written to be read again."""
    passes, reference_T, _ = state

    def add(sums, i):
      *_, logits_TxC = logits_of(i)
      return (
        sums[0] + jnp.exp(logits_TxC - reference_T[:, None]).sum(axis=-1),
        jnp.maximum(sums[1], logits_TxC.max(axis=-1)),
      ), None

    zeros = (jnp.zeros((T,), jnp.float32), jnp.full((T,), -1e30, jnp.float32))
    (sums_T, top_T), _ = jax.lax.scan(add, zeros, jnp.arange(chunks))
    overflows = ~jnp.isfinite(sums_T)
    return passes + 1, jnp.where(overflows, top_T, reference_T), jnp.where(overflows, jnp.inf, sums_T)

  # Relative to the label's logit the sum is at least 1. It overflows where another logit is 88 above it: then once more,
  # relative to the highest.
  _, reference_T, sums_T = jax.lax.while_loop(
    lambda state: (state[0] == 0) | ((state[0] == 1) & jnp.isinf(state[2]).any()),
    add_up,
    (0, at_label_T, jnp.zeros((T,), jnp.float32)),
  )
  losses_T = reference_T - at_label_T + jnp.log(sums_T)
  if sums is None:
    return losses_T, None
  log_sum_T = losses_T + at_label_T

  def add_gradients(sums, i):
    d_h_TxD, d_table_VxD, d_bias_V = sums
    start, is_new_C, table_CxD, logits_TxC = logits_of(i)
    entry_C = jnp.where(is_new_C, start + jnp.arange(C), -1)
    d_logits_TxC = (jnp.exp(logits_TxC - log_sum_T[:, None]) - (labels_T[:, None] == entry_C)) * weights_T[:, None]
    d_logits_TxC = d_logits_TxC.astype(h_TxD.dtype)
    add_to = lambda x, y: jax.lax.dynamic_update_slice_in_dim(  # noqa: E731
      x, jax.lax.dynamic_slice_in_dim(x, start, C) + y, start, 0
    )
    d_table_VxD = add_to(d_table_VxD, _product(d_logits_TxC, h_TxD, (0, 0)))
    d_bias_V = add_to(d_bias_V, sum_rows(d_logits_TxC))
    return (d_h_TxD + _product(d_logits_TxC, table_CxD, (1, 0)), d_table_VxD, d_bias_V), None

  d_h_TxD = jnp.zeros(h_TxD.shape, jnp.float32)
  (d_h_TxD, *sums), _ = jax.lax.scan(add_gradients, (d_h_TxD, *sums), jnp.arange(chunks))
  return losses_T, (d_h_TxD.astype(h_TxD.dtype), *sums)


def nll_with_gradients(
  h_BxPxD: Array,
  table_VxD: Array,
  bias_V: Array,
  labels_BxP: Array,
  weights_BxP: Array,
  *,
  sums: tuple[Array, Array] | None,
  vocabulary_size: int,
  chunk_bytes: int = CHUNK_BYTES,
):
  """Each slot's negative log-likelihood (nats), fp32[B, P], and the gradients of their weighted sum in h, table and bias.

  sums: fp32[V, D] and [V], what the gradients in table and bias are added to (their zeros, or another micro-batch's);
  None: no gradients, and None is returned for them.

  h: compute dtype, head vectors. table: the tied embedding, its rows past vocabulary_size count for nothing. labels:
  int32. weights: fp32, 0 for unused slots. The gradients, those of table and bias in fp32, are made in the forward pass:
  the sum's cotangent is one scalar, so nothing has to be kept for later. Products accumulate in fp32. Extra memory is a
  few times chunk_bytes, however many slots there are, beside the table's gradient itself.
  """
  B, P, D = h_BxPxD.shape
  V = table_VxD.shape[0]
  bias_V = jnp.where(jnp.arange(V) < vocabulary_size, bias_V, -1e30)
  C = max(128, chunk_bytes // (4 * B * P) // 128 * 128)
  args = (
    h_BxPxD.reshape(-1, D),
    labels_BxP.reshape(-1),
    weights_BxP.reshape(-1),
    table_VxD.astype(h_BxPxD.dtype),
    bias_V,
    sums,
  )
  losses_T, gradients = _at_once(*args) if C >= V else _in_chunks(*args, C)
  if gradients:
    gradients = (gradients[0].reshape(B, P, D), *gradients[1:])
  return losses_T.reshape(B, P), gradients


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _weighted_nll(h, table, bias, labels, weights, vocabulary_size, chunk_bytes):
  losses, _ = nll_with_gradients(
    h, table, bias, labels, weights, sums=None, vocabulary_size=vocabulary_size, chunk_bytes=chunk_bytes
  )
  return (losses * weights).sum(), losses


def _weighted_nll_forward(h, table, bias, labels, weights, vocabulary_size, chunk_bytes):
  zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (table, bias))
  losses, gradients = nll_with_gradients(
    h, table, bias, labels, weights, sums=zeros, vocabulary_size=vocabulary_size, chunk_bytes=chunk_bytes
  )
  return ((losses * weights).sum(), losses), gradients


def _weighted_nll_backward(vocabulary_size, chunk_bytes, gradients, cotangents):
  d_h, d_table, d_bias = gradients
  scale = cotangents[0]
  return (d_h * scale.astype(d_h.dtype), d_table * scale, d_bias * scale, None, None)


_weighted_nll.defvjp(_weighted_nll_forward, _weighted_nll_backward)


def mlm_loss(
  h_BxPxD: Array,
  table_VxD: Array,
  bias_V: Array,
  labels_BxP: Array,
  weights_BxP: Array,
  *,
  vocabulary_size: int,
  chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Array, Array]:
  """Sum of weighted negative log-likelihoods, and each slot's own: nll_with_gradients for those who differentiate.

  Returns (fp32 scalar, fp32[B, P]); only the scalar carries gradients. table: fp32.
  """
  total, losses_BxP = _weighted_nll(h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP, vocabulary_size, chunk_bytes)
  return total, jax.lax.stop_gradient(losses_BxP)


def sums_by_language(losses_BxP: Array, weights_BxP: Array, language_B: Array, languages: int) -> tuple[Array, Array]:
  """Weighted loss sums and weights per language, both fp32[G]."""
  sums = jax.ops.segment_sum((losses_BxP * weights_BxP).sum(axis=1), language_B, languages)
  return sums, jax.ops.segment_sum(weights_BxP.sum(axis=1), language_B, languages)
