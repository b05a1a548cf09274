"""x + dropout(y + bias), then LayerNorm, on TPU, in a kernel that reads and writes the HBM once; XLA makes several passes.

Its backward pass also sums the gradients of scale, shift and bias. It has been compiled for five TPU generations and run in
interpret mode only. Letters as in layers.py, and: R tokens per block.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from xlmr_jax.model import dropout
from xlmr_jax.model.dropout import Drop
from xlmr_jax.model.kernels.tiles import LANES, SUBLANES, row_to_column
from xlmr_jax.model.layers import EPSILON, norm_gradient, normalise, plus_bias

Array = jax.Array
BLOCK_BYTES = 2**20  # of one array


class How(NamedTuple):
  """The static arguments of a call."""

  rate: float
  keep_sum: bool
  epsilon: float
  interpret: bool


def why_not(tokens: int, *columns: int) -> str:
  """Why the kernel does not take rows of so many tokens of so many columns; "" if it does."""
  odd = [size for size in (tokens, *columns) if size % LANES]
  return f"{odd[0]} is no multiple of {LANES}" if odd else ""


def add_norm(
  x: Array,
  y: Array,
  bias_C: Array,
  scale_C: Array,
  shift_C: Array,
  drop: Drop,
  keep_sum: bool = False,
  epsilon: float = EPSILON,
  *,
  interpret: bool = False,
) -> tuple[Array, Array]:
  """layers.add_norm. Only with keep_sum may the sum be used: its gradient costs one more array to read."""
  if drop.bits != "hash":
    raise ValueError(f"this kernel makes its masks from a hash, not by {drop.bits}")
  C = x.shape[-1]
  words_2, index_hashes_T = jnp.zeros((2,), jnp.uint32), jnp.zeros((x.size // C,), jnp.uint32)
  if drop.active_rate:
    key, index = drop.key_and_index()
    words_2 = dropout.key_data(key)
    index_hashes_T = dropout.row_hashes(words_2, index).reshape(-1)
  how = How(drop.active_rate, keep_sum, epsilon, interpret)
  x_TxC, y_TxC = x.reshape(-1, C), y.reshape(-1, C)
  sums: Any = _add_norm(x_TxC, y_TxC, bias_C, scale_C, shift_C, words_2, index_hashes_T, how)
  total, normed = sums
  return total.reshape(x.shape), normed.reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def _add_norm(x_TxC, y_TxC, bias_C, scale_C, shift_C, words_2, index_hashes_T, how: How):
  return _forward(x_TxC, y_TxC, bias_C, scale_C, shift_C, words_2, index_hashes_T, how)[0]


def _forward(x_TxC, y_TxC, bias_C, scale_C, shift_C, words_2, index_hashes_T, how: How):
  # The bias is added outside the kernel, where XLA fuses it into the product.
  arrays = [x_TxC, plus_bias(y_TxC, bias_C), scale_C[None], shift_C[None]]
  kernel = functools.partial(_forward_kernel, rate=how.rate, epsilon=how.epsilon)
  total, normed = _call(kernel, "residual_norm", arrays, words_2, index_hashes_T, ("tokens", "tokens"), how.interpret)
  return (total, normed), (checkpoint_name(total, "sum"), scale_C, words_2, index_hashes_T)


def _backward(how: How, saved, cotangents):
  total_TxC, scale_C, words_2, index_hashes_T = saved
  d_total, d_normed = cotangents
  arrays = [total_TxC, d_normed, *([d_total] if how.keep_sum else []), scale_C[None]]
  kernel = functools.partial(_backward_kernel, rate=how.rate, keep_sum=how.keep_sum, epsilon=how.epsilon)
  outs = ("tokens", "tokens", "sums")
  d_x, d_y, sums = _call(kernel, "residual_norm_backward", arrays, words_2, index_hashes_T, outs, how.interpret)
  d_scale, d_shift, d_bias = sums.sum(axis=0)[:3]
  return d_x, d_y, d_bias, d_scale, d_shift, None, None


_add_norm.defvjp(_forward, _backward)


def _call(kernel: Callable, name: str, arrays, words_2, index_hashes_T, outs: tuple[str, ...], interpret: bool):
  """kernel(words, hashes, arrays, outs) over blocks of tokens.

  arrays: [T, C] come in blocks of tokens, [1, C] whole. outs: "tokens" for an array like the first, "sums" for fp32 sums
  over each block, [blocks, 8, C].
  """
  from jax.experimental.pallas import tpu as pltpu

  T, C = arrays[0].shape
  item = arrays[0].dtype.itemsize
  R = next(r for r in (512, 256, LANES) if T % r == 0 and (r * C * item <= BLOCK_BYTES or r == LANES))
  block = pl.BlockSpec((R, C), lambda i, *_: (i, 0))
  shapes = {
    "tokens": (jax.ShapeDtypeStruct((T, C), arrays[0].dtype), block),
    "sums": (
      jax.ShapeDtypeStruct((T // R, SUBLANES, C), jnp.float32),
      pl.BlockSpec((1, SUBLANES, C), lambda i, *_: (i, 0, 0)),
    ),
  }
  specs = [block if x.shape[0] == T else pl.BlockSpec((1, C), lambda i, *_: (0, 0)) for x in arrays]
  arrays = [jax.lax.bitcast_convert_type(index_hashes_T, jnp.int32).reshape(T // R, 1, R), *arrays]
  specs = [pl.BlockSpec((1, 1, R), lambda i, *_: (i, 0, 0)), *specs]
  out_shapes, out_specs = zip(*(shapes[out] for out in outs))
  moved = sum(x.size * np.dtype(x.dtype).itemsize for x in (*arrays, *out_shapes))
  grid_spec = pltpu.PrefetchScalarGridSpec(num_scalar_prefetch=1, grid=(T // R,), in_specs=specs, out_specs=list(out_specs))
  return pl.pallas_call(
    kernel,
    name=name,
    interpret=interpret,
    out_shape=list(out_shapes),
    grid_spec=grid_spec,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
    cost_estimate=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=moved),
  )(words_2, *arrays)


def _in_chunks(tokens: int, body: Callable) -> None:
  """body(slice) for 128 tokens at a time: what they need in fp32 then stays in registers and little VMEM."""
  jax.lax.fori_loop(0, tokens // LANES, lambda i, _: body(pl.ds(pl.multiple_of(i * LANES, LANES), LANES)), None)


def _bits(words_ref, hashes_ref, at, columns: int):
  hashes_Rx1 = jax.lax.bitcast_convert_type(row_to_column(hashes_ref[0, :, at]), jnp.uint32)
  return dropout.element_bits(hashes_Rx1, jax.lax.broadcasted_iota(jnp.uint32, (1, columns), 1), words_ref[1])


def _forward_kernel(words_ref, hashes_ref, x_ref, y_ref, scale_ref, shift_ref, total_ref, normed_ref, *, rate, epsilon):
  def body(at):
    y_RxC = y_ref[at, :].astype(jnp.float32)
    if rate:
      y_RxC = dropout.drop_by_bits(y_RxC, _bits(words_ref, hashes_ref, at, y_RxC.shape[1]), rate)
    total_RxC = (x_ref[at, :].astype(jnp.float32) + y_RxC).astype(total_ref.dtype)
    total_ref[at, :] = total_RxC
    normed_ref[at, :] = (normalise(total_RxC, epsilon)[0] * scale_ref[:] + shift_ref[:]).astype(normed_ref.dtype)

  _in_chunks(x_ref.shape[0], body)


def _backward_kernel(words_ref, hashes_ref, total_ref, d_normed_ref, *refs, rate, keep_sum, epsilon):
  *d_total_ref, scale_ref, d_x_ref, d_y_ref, sums_ref = refs
  sums_ref[:] = jnp.zeros_like(sums_ref)

  def body(at):
    normal_RxC, rstd_Rx1 = normalise(total_ref[at, :], epsilon)
    d_normed_RxC = d_normed_ref[at, :].astype(jnp.float32)
    d_x_RxC = norm_gradient(normal_RxC, rstd_Rx1, d_normed_RxC, scale_ref[:])
    if keep_sum:
      d_x_RxC = d_x_RxC + d_total_ref[0][at, :].astype(jnp.float32)
    d_y_RxC = d_x_RxC
    if rate:
      d_y_RxC = dropout.drop_by_bits(d_x_RxC, _bits(words_ref, hashes_ref, at, d_x_RxC.shape[1]), rate)
    d_x_ref[at, :], d_y_ref[at, :] = d_x_RxC.astype(d_x_ref.dtype), d_y_RxC.astype(d_y_ref.dtype)
    for row, x_RxC in enumerate((d_normed_RxC * normal_RxC, d_normed_RxC, d_y_RxC)):
      sums_ref[0, row : row + 1, :] += x_RxC.sum(axis=0, keepdims=True)

  _in_chunks(total_ref.shape[0], body)
