"""The masked-language-model loss over a 250k vocabulary in bounded memory, and its sums per language.

A loss here is a sum and a weight; the caller divides once. Letters as in model/xlmr.py, and: T slots of one device
(rows x slots), C vocabulary entries per chunk, G languages.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from xlmr_jax.hardware import CHUNK_MIB
from xlmr_jax.model.layers import precision_of, sum_rows

Array = jax.Array
CHUNK_BYTES = CHUNK_MIB * 2**20  # fp32 logits alive at a time, on each device
_NEVER = -1e30  # the logit of an entry that counts for nothing


class _Slots(NamedTuple):
  """The slots of all rows side by side, and the vocabulary as its product takes it."""

  h_TxD: Array
  labels_T: Array
  weights_T: Array
  table_VxD: Array  # in h's dtype: cast once, here, on every mesh alike
  bias_V: Array  # fp32, _NEVER past the real vocabulary


def _flat(
  h_BxPxD: Array, table_VxD: Array, bias_V: Array, labels_BxP: Array, weights_BxP: Array, vocabulary_size: int
) -> _Slots:
  bias_V = jnp.where(jnp.arange(bias_V.shape[0]) < vocabulary_size, bias_V, _NEVER)
  h_TxD = h_BxPxD.reshape(-1, h_BxPxD.shape[-1])
  return _Slots(h_TxD, labels_BxP.reshape(-1), weights_BxP.reshape(-1), table_VxD.astype(h_TxD.dtype), bias_V)


def _chunk_size(slots: _Slots, chunk_bytes: int) -> int:
  """Vocabulary entries per chunk; as many as there are, or more, if all logits fit."""
  return max(128, chunk_bytes // (4 * slots.h_TxD.shape[0]) // 128 * 128)


def nll(
  h_BxPxD: Array, table_VxD: Array, bias_V: Array, labels_BxP: Array, weights_BxP: Array, *, vocabulary_size: int,
  chunk_bytes: int = CHUNK_BYTES,
) -> Array:  # fmt: skip
  """Each slot's negative log-likelihood in nats, fp32[B, P]. Arguments as of nll_gradients; nothing is differentiated."""
  slots = _flat(h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP, vocabulary_size)
  C = _chunk_size(slots, chunk_bytes)
  losses_T = (_nll_whole(slots) if table_VxD.shape[0] <= C else _nll_by_vocabulary_chunk(slots, C))[0]
  return losses_T.reshape(labels_BxP.shape)


def nll_gradients(
  h_BxPxD: Array, table_VxD: Array, bias_V: Array, labels_BxP: Array, weights_BxP: Array, *, onto: tuple[Array, Array],
  vocabulary_size: int, chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
  """nll, and the gradients of its weighted sum: (losses fp32[B, P], d_h, d_table, d_bias).

  h: compute dtype, head vectors. table, bias: fp32, the tied embedding and the head's bias; rows past vocabulary_size count
  for nothing. labels: int32. weights: fp32, 0 for unused slots. onto: fp32[V, D] and [V], what the gradients in table and
  bias are added to (zeros, or another micro-batch's).

  The gradients are made in the forward pass, because the sum's cotangent is one scalar, so that nothing has to be kept for
  later. Products accumulate in fp32. Extra memory is a few times chunk_bytes, however many slots there are, beside the
  table's gradient itself.
  """
  slots = _flat(h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP, vocabulary_size)
  C = _chunk_size(slots, chunk_bytes)
  differentiate = _gradients_whole if table_VxD.shape[0] <= C else _gradients_by_vocabulary_chunk
  losses_T, d_h_TxD, d_table_VxD, d_bias_V = differentiate(slots, onto, C)
  return losses_T.reshape(labels_BxP.shape), d_h_TxD.astype(h_BxPxD.dtype).reshape(h_BxPxD.shape), d_table_VxD, d_bias_V


def sums_by_language(losses_BxP: Array, weights_BxP: Array, language_B: Array, languages: int) -> tuple[Array, Array]:
  """Weighted loss sums and weights per language, both fp32[G]."""
  sums = jax.ops.segment_sum((losses_BxP * weights_BxP).sum(axis=1), language_B, languages)
  return sums, jax.ops.segment_sum(weights_BxP.sum(axis=1), language_B, languages)


def _product(a: Array, b: Array, axis_of_a: int, axis_of_b: int) -> Array:
  """fp32 product of two matrices over one axis of each."""
  axes = (((axis_of_a,), (axis_of_b,)), ((), ()))
  return jax.lax.dot_general(a, b, axes, precision_of(a.dtype), preferred_element_type=jnp.float32)


# --- all logits alive: three products ------------------------------------------------------------------------------


def _nll_whole(slots: _Slots) -> tuple[Array, Array]:
  """(losses [T], probabilities [T, V])."""
  logits_TxV = _product(slots.h_TxD, slots.table_VxD, 1, 1) + slots.bias_V
  top_T = logits_TxV.max(axis=-1)
  exps_TxV = jnp.exp(logits_TxV - top_T[:, None])
  sums_T = exps_TxV.sum(axis=-1)
  label_logit_T = jnp.take_along_axis(logits_TxV, slots.labels_T[:, None], axis=-1)[:, 0]
  return jnp.log(sums_T) + top_T - label_logit_T, exps_TxV / sums_T[:, None]


def _gradients_whole(slots: _Slots, onto: tuple[Array, Array], _: int) -> tuple[Array, Array, Array, Array]:
  losses_T, probabilities_TxV = _nll_whole(slots)
  is_label_TxV = slots.labels_T[:, None] == jax.lax.broadcasted_iota(jnp.int32, probabilities_TxV.shape, 1)
  d_logits_TxV = ((probabilities_TxV - is_label_TxV) * slots.weights_T[:, None]).astype(slots.h_TxD.dtype)
  d_h_TxD = _product(d_logits_TxV, slots.table_VxD, 1, 0)
  return losses_T, d_h_TxD, onto[0] + _product(d_logits_TxV, slots.h_TxD, 0, 0), onto[1] + sum_rows(d_logits_TxV)


# --- C entries' logits alive, made twice: four products, and no sum as large as the table ---------------------------
#
# Chunks of the vocabulary rather than of the slots: an entry's gradient is then complete when its chunk is, where chunks of
# slots would read and write all of the table's gradient once per chunk.


def _chunk_logits(slots: _Slots, i: Array, C: int) -> tuple[Array, Array, Array, Array]:
  """(first entry, which entries are new [C], table [C, D], logits [T, C]) of chunk i.

  The last chunk begins early, so that all have one size; entries that it shares with the one before count once.
  """
  V = slots.table_VxD.shape[0]
  start = jnp.minimum(i * C, V - C)
  table_CxD, bias_C = (jax.lax.dynamic_slice_in_dim(x, start, C) for x in (slots.table_VxD, slots.bias_V))
  is_new_C = start + jnp.arange(C) >= i * C
  return start, is_new_C, table_CxD, _product(slots.h_TxD, table_CxD, 1, 1) + jnp.where(is_new_C, bias_C, _NEVER)


def _chunks(slots: _Slots, C: int) -> Array:
  return jnp.arange(-(-slots.table_VxD.shape[0] // C))


def _nll_by_vocabulary_chunk(slots: _Slots, C: int) -> tuple[Array, Array]:
  """(losses [T], logarithms of the sums of exponentials [T])."""
  label_rows_TxD = slots.table_VxD[slots.labels_T].astype(jnp.float32)
  label_logit_T = (slots.h_TxD.astype(jnp.float32) * label_rows_TxD).sum(axis=-1) + slots.bias_V[slots.labels_T]

  def sum_exponentials(reference_T: Array) -> tuple[Array, Array]:
    """Sums of exponentials relative to a reference that is known before, so that no logits are written to be read again;
    and the highest logits.
    """

    def add(carry, i):
      *_, logits_TxC = _chunk_logits(slots, i, C)
      exps_T = jnp.exp(logits_TxC - reference_T[:, None]).sum(axis=-1)
      return (carry[0] + exps_T, jnp.maximum(carry[1], logits_TxC.max(axis=-1))), None

    return jax.lax.scan(add, (jnp.zeros_like(reference_T), jnp.full_like(reference_T, _NEVER)), _chunks(slots, C))[0]

  def is_needed(state: tuple[Array, Array, Array]) -> Array:
    passes, _, sums_T = state
    return (passes == 0) | ((passes == 1) & jnp.isinf(sums_T).any())

  def one_pass(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    passes, reference_T, _ = state
    sums_T, top_T = sum_exponentials(reference_T)
    overflows_T = ~jnp.isfinite(sums_T)
    return passes + 1, jnp.where(overflows_T, top_T, reference_T), jnp.where(overflows_T, jnp.inf, sums_T)

  # Exponentials are taken relative to the label's logit, so the sum is at least 1. If another logit exceeds it by more than
  # 88, the sum overflows fp32, and the pass is repeated relative to the maximum. It is a loop and no lax.cond behind a first
  # pass: with a second copy of the pass, which never runs, the TPU compiler estimates Base's head and loss 7 to 8 % higher.
  first = (jnp.zeros((), jnp.int32), label_logit_T, jnp.zeros_like(label_logit_T))
  _, reference_T, sums_T = jax.lax.while_loop(is_needed, one_pass, first)
  losses_T = reference_T - label_logit_T + jnp.log(sums_T)
  return losses_T, losses_T + label_logit_T


def _gradients_by_vocabulary_chunk(slots: _Slots, onto: tuple[Array, Array], C: int) -> tuple[Array, Array, Array, Array]:
  losses_T, log_sum_T = _nll_by_vocabulary_chunk(slots, C)

  def add_chunk(carry, i):
    d_h_TxD, d_table_VxD, d_bias_V = carry
    start, is_new_C, table_CxD, logits_TxC = _chunk_logits(slots, i, C)
    entry_C = jnp.where(is_new_C, start + jnp.arange(C), -1)
    is_label_TxC = slots.labels_T[:, None] == entry_C
    d_logits_TxC = (jnp.exp(logits_TxC - log_sum_T[:, None]) - is_label_TxC) * slots.weights_T[:, None]
    d_logits_TxC = d_logits_TxC.astype(slots.h_TxD.dtype)

    def add_at_start(total: Array, part: Array) -> Array:
      return jax.lax.dynamic_update_slice_in_dim(total, jax.lax.dynamic_slice_in_dim(total, start, C) + part, start, 0)

    d_table_VxD = add_at_start(d_table_VxD, _product(d_logits_TxC, slots.h_TxD, 0, 0))
    d_bias_V = add_at_start(d_bias_V, sum_rows(d_logits_TxC))
    return (d_h_TxD + _product(d_logits_TxC, table_CxD, 1, 0), d_table_VxD, d_bias_V), None

  zeros_TxD = jnp.zeros(slots.h_TxD.shape, jnp.float32)
  gradients, _ = jax.lax.scan(add_chunk, (zeros_TxD, *onto), _chunks(slots, C))
  return losses_T, *gradients
