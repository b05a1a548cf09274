"""Attention of whole rows on TPU: a row's heads are read from and written to the projection's own layout, scores never
leave the chip, and dropout of probabilities is included. It has been compiled for five TPU generations and run in
interpret mode only.

Letters as in attention.py, and: Q queries at a time, R rows per grid step.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from xlmr_jax.model import dropout
from xlmr_jax.model.attention import MASKED, probability_bits, row_seeds
from xlmr_jax.model.dropout import Drop
from xlmr_jax.model.kernels.tiles import LANES, SUBLANES, row_to_column
from xlmr_jax.model.layers import plus_bias, precision_of

Array = jax.Array
LONGEST_ROW = 1024  # tokens; what 256 queries need then fits the 16 MiB of VMEM of a v4


class How(NamedTuple):
  """The static arguments of a call."""

  heads: int
  groups: int
  rate: float
  interpret: bool


def heads_per_group(heads: int, width: int) -> int:
  """The fewest heads that fill whole lanes and divide all heads; else all of them."""
  group = math.lcm(width, LANES) // width
  return group if heads % group == 0 else heads


def why_not(seq_len: int) -> str:
  """Why the kernel does not take rows of this many tokens; "" if it does."""
  if seq_len % LANES:
    return f"rows of {seq_len} tokens are no multiple of {LANES}"
  return f"rows of {seq_len} tokens are longer than {LONGEST_ROW}" if seq_len > LONGEST_ROW else ""


def row_attention(
  qkv_BxLxC: Array, bias_C: Array, segments_BxL: Array, heads: int, drop: Drop, *, groups: int, interpret: bool = False
) -> Array:
  """attention.attention of a projection [B, L, G x 3 x E] in `groups` groups of heads. interpret: run without a TPU."""
  seeds_B = row_seeds(drop) if drop.active_rate else jnp.zeros((qkv_BxLxC.shape[0],), jnp.uint32)
  return _row_attention(qkv_BxLxC, bias_C, segments_BxL, seeds_B, How(heads, groups, drop.active_rate, interpret))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _row_attention(qkv_BxLxC, bias_C, segments_BxL, seeds_B, how: How):
  return _forward(qkv_BxLxC, bias_C, segments_BxL, seeds_B, how)[0]


def _forward(qkv_BxLxC, bias_C, segments_BxL, seeds_B, how: How):
  # The bias is added outside the kernel, where XLA fuses it into the product.
  qkv_BxLxC = checkpoint_name(plus_bias(qkv_BxLxC, bias_C), "qkv")
  out_specs = (Rows(qkv_BxLxC.shape[2] // 3),)
  (out_BxLxD,) = _call(_forward_kernel, "row_attention", seeds_B, segments_BxL, [qkv_BxLxC], out_specs, how, products=2)
  return out_BxLxD, (qkv_BxLxC, segments_BxL, seeds_B)


def _backward(how: How, saved, d_out_BxLxD):
  qkv_BxLxC, segments_BxL, seeds_B = saved
  C = qkv_BxLxC.shape[2]
  d_qkv, sums = _call(
    _backward_kernel, "row_attention_backward", seeds_B, segments_BxL, [qkv_BxLxC, d_out_BxLxD], (Rows(C), Sums(C)), how,
    products=5,
  )  # fmt: skip
  return d_qkv, sums.sum(axis=0)[0], None, None


_row_attention.defvjp(_forward, _backward)


# --- the call ------------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
  """An output [B, L, columns] in the dtype of the inputs."""

  columns: int


class Sums(NamedTuple):
  """An output of fp32 sums over the tokens of each grid step, [steps, 8, columns]."""

  columns: int


def _call(kernel: Callable, name: str, seeds_B, segments_BxL, arrays, outs, how: How, *, products: int):
  """One grid step per few rows and group of heads; arrays [B, L, columns] come in blocks of columns / G."""
  from jax.experimental.pallas import tpu as pltpu

  heads, groups = how.heads, how.groups
  B, L = segments_BxL.shape
  rows = max(r for r in range(1, B + 1) if B % r == 0 and (r == 1 or r * L <= 512))

  def block(columns: int) -> pl.BlockSpec:
    return pl.BlockSpec((rows, L, columns // groups), lambda b, g, *_: (b, 0, g))

  def spec_and_shape(out: Rows | Sums):
    if isinstance(out, Rows):
      return block(out.columns), jax.ShapeDtypeStruct((B, L, out.columns), arrays[0].dtype)
    spec = pl.BlockSpec((1, SUBLANES, out.columns // groups), lambda b, g, *_: (b, 0, g))
    return spec, jax.ShapeDtypeStruct((B // rows, SUBLANES, out.columns), jnp.float32)

  out_specs, out_shapes = zip(*map(spec_and_shape, outs))
  width = arrays[0].shape[2] // 3 // heads
  elements = sum(x.size for x in arrays) + B * L * sum(out.columns for out in outs if isinstance(out, Rows))
  return pl.pallas_call(
    functools.partial(kernel, heads=heads // groups, rate=how.rate),
    out_shape=list(out_shapes),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(B // rows, groups),
      in_specs=[pl.BlockSpec((rows, 1, L), lambda b, g, *_: (b, 0, 0)), *(block(x.shape[2]) for x in arrays)],
      out_specs=list(out_specs),
    ),
    cost_estimate=pl.CostEstimate(
      flops=products * 2 * B * heads * L * L * width,
      transcendentals=B * heads * L * L,
      bytes_accessed=elements * arrays[0].dtype.itemsize,
    ),
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
    interpret=how.interpret,
    name=name,
  )(seeds_B, segments_BxL[:, None, :], *arrays)


# --- the kernels ---------------------------------------------------------------------------------------------------


def _dot(a, b, axis_of_a: int, axis_of_b: int):
  """fp32 product of two matrices over one axis of each."""
  axes = (((axis_of_a,), (axis_of_b,)), ((), ()))
  return jax.lax.dot_general(a, b, axes, precision_of(a.dtype), preferred_element_type=jnp.float32)


def _exponentials(q_QxK, k_LxK, segments_Qx1, segments_1xL):
  """exp(scores - their maximum) and its sum over the keys."""
  scores_QxL = _dot(q_QxK, k_LxK, 1, 1) * q_QxK.shape[1] ** -0.5
  scores_QxL = jnp.where(segments_Qx1 == segments_1xL, scores_QxL, MASKED)
  exps_QxL = jnp.exp(scores_QxL - scores_QxL.max(axis=1, keepdims=True))
  return exps_QxL, exps_QxL.sum(axis=1, keepdims=True)


def _queries_at_a_time(L: int) -> int:
  """A whole row's scores in fp32 would not fit beside each other."""
  return 256 if L % 256 == 0 else LANES


def _forward_kernel(seeds_ref, segments_ref, qkv_ref, out_ref, *, heads, rate):
  R, L, Q = *qkv_ref.shape[:2], _queries_at_a_time(qkv_ref.shape[1])
  E = qkv_ref.shape[2] // 3
  K = E // heads
  first_row, first_head = pl.program_id(0) * R, pl.program_id(1) * heads

  def attend_queries(i, _):
    row, first = i // (L // Q), pl.multiple_of(i % (L // Q) * Q, Q)
    key_segments, queries = segments_ref[row], pl.ds(first, Q)
    query_segments = row_to_column(segments_ref[row, :, queries])
    for head in range(heads):
      q, k, v = (qkv_ref[row, queries if part == 0 else slice(None), pl.ds(part * E + head * K, K)] for part in range(3))
      exps_QxL, sums_Qx1 = _exponentials(q, k, query_segments, key_segments)
      if rate:
        bits_QxL = probability_bits(seeds_ref[first_row + row], first_head + head, first, Q, L)
        exps_QxL = dropout.drop_by_bits(exps_QxL, bits_QxL, rate)
      # Divided after the product, by the sum of all exponentials, the dropped ones included.
      out_ref[row, queries, pl.ds(head * K, K)] = (_dot(exps_QxL.astype(v.dtype), v, 1, 0) / sums_Qx1).astype(out_ref.dtype)

  jax.lax.fori_loop(0, R * (L // Q), attend_queries, None)


def _backward_kernel(seeds_ref, segments_ref, qkv_ref, d_out_ref, d_qkv_ref, sums_ref, *, heads, rate):
  """Softmax and its gradient again from q, k, v: nothing but the projection is kept from the forward pass."""
  R, L, Q = *qkv_ref.shape[:2], _queries_at_a_time(qkv_ref.shape[1])
  E = qkv_ref.shape[2] // 3
  K = E // heads
  first_row, first_head = pl.program_id(0) * R, pl.program_id(1) * heads
  sums_ref[:] = jnp.zeros_like(sums_ref)

  def columns(part, head):
    return pl.ds(part * E + head * K, K)

  def add_to_sums(part, head, gradient):
    sums_ref[0, 0:1, columns(part, head)] += gradient.sum(axis=0, keepdims=True)

  def differentiate_head(row, head, key_segments):
    k_LxK, v_LxK = qkv_ref[row, :, columns(1, head)], qkv_ref[row, :, columns(2, head)]

    def differentiate_queries(i, sums):
      first = pl.multiple_of(i * Q, Q)
      at = pl.ds(first, Q)
      q_QxK, d_out_QxK = qkv_ref[row, at, columns(0, head)], d_out_ref[row, at, columns(0, head)]
      exps_QxL, sums_Qx1 = _exponentials(q_QxK, k_LxK, row_to_column(segments_ref[row, :, at]), key_segments)
      kept_QxL = probs_QxL = exps_QxL / sums_Qx1
      d_probs_QxL = _dot(d_out_QxK, v_LxK, 1, 1)
      if rate:
        bits_QxL = probability_bits(seeds_ref[first_row + row], first_head + head, first, Q, L)
        kept_QxL, d_probs_QxL = (dropout.drop_by_bits(x, bits_QxL, rate) for x in (probs_QxL, d_probs_QxL))
      mean_Qx1 = (probs_QxL * d_probs_QxL).sum(axis=1, keepdims=True)
      d_scores_QxL = (probs_QxL * (d_probs_QxL - mean_Qx1) * K**-0.5).astype(q_QxK.dtype)
      d_q_QxK = _dot(d_scores_QxL, k_LxK, 1, 0)
      d_qkv_ref[row, at, columns(0, head)] = d_q_QxK.astype(d_qkv_ref.dtype)
      add_to_sums(0, head, d_q_QxK)
      return (sums[0] + _dot(d_scores_QxL, q_QxK, 0, 0), sums[1] + _dot(kept_QxL.astype(v_LxK.dtype), d_out_QxK, 0, 0))

    zeros = jnp.zeros((L, K), jnp.float32)
    for part, gradient in enumerate(jax.lax.fori_loop(0, L // Q, differentiate_queries, (zeros, zeros)), 1):
      d_qkv_ref[row, :, columns(part, head)] = gradient.astype(d_qkv_ref.dtype)
      add_to_sums(part, head, gradient)

  def differentiate_row(row, _):
    for head in range(heads):
      differentiate_head(row, head, segments_ref[row])

  jax.lax.fori_loop(0, R, differentiate_row, None)
