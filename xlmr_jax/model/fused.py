"""What lies between an encoder layer's matrix products: as much of it as can be inside them, the rest in TPU kernels.

  residual_norm   x + dropout(y), then LayerNorm: a kernel that reads and writes the HBM once, where XLA makes several
                  passes; its backward pass also sums the gradients of scale and biases
  gelu            by XLA, in the products before it, forwards and backwards, with the sums of its bias's gradient

The plain forms beside them are what they are tested against, and what runs elsewhere than on TPU.

A `bias` argument is the bias that the caller has added to y, detached: its gradient is summed here, on the way.
Letters as in model.py, and: T tokens, C columns, R tokens of a block.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from xlmr_jax.model import dropout

Array = jax.Array
LAYER_NORM_EPSILON = 1e-5  # linen's default is 1e-6, transformers' class default 1e-12; XLM-R was trained with 1e-5
LANES, SUBLANES = 128, 8
BLOCK_BYTES = 2**20  # of one array


def sum_rows(x_TxC: Array) -> Array:
  """The sum over T in fp32, [C], as a product with ones: a plain one takes XLA's CPU backend 80 ms where this takes 3 (768
  rows of 32k), and reads at a quarter of the bandwidth on a TPU. The barrier keeps XLA from seeing that it is one.
  """
  ones_8xT = jax.lax.optimization_barrier(jnp.ones((SUBLANES, x_TxC.shape[0]), x_TxC.dtype))
  return jax.lax.dot_general(ones_8xT, x_TxC, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)[0]


def can_run(tokens: int, columns: int) -> bool:
  """Whether the kernels take so many tokens of so many columns."""
  return tokens % LANES == 0 and columns % LANES == 0


def turn(x_1xQ: Array) -> Array:
  """A row as a column [Q, 1] inside a kernel, through a whole tile, as Mosaic turns it."""
  return jnp.broadcast_to(x_1xQ, (LANES, x_1xQ.shape[1])).T[:, :1]


def _call(kernel, name, arrays, words, rows, outs, *, interpret):
  """kernel(words, rows of numbers, arrays, outs) over blocks of tokens.

  arrays: [T, C] in blocks of tokens, or [1, C] whole. rows: uint32[T], a number a token. outs: "T" for an array
  like the first, "sums" for fp32 sums over each block, [blocks, 8, C].
  """
  from jax.experimental.pallas import tpu as pltpu

  T, C = arrays[0].shape
  item = arrays[0].dtype.itemsize
  R = next(r for r in (512, 256, LANES) if T % r == 0 and (r * C * item <= BLOCK_BYTES or r == LANES))
  shapes = {
    "T": ((T, C), arrays[0].dtype, pl.BlockSpec((R, C), lambda i, *_: (i, 0))),
    "sums": ((T // R, SUBLANES, C), jnp.float32, pl.BlockSpec((1, SUBLANES, C), lambda i, *_: (i, 0, 0))),
  }
  specs = [shapes["T"][2] if x.shape[0] == T else pl.BlockSpec((1, C), lambda i, *_: (0, 0)) for x in arrays]
  arrays = [jax.lax.bitcast_convert_type(rows, jnp.int32).reshape(T // R, 1, R), *arrays]
  specs = [pl.BlockSpec((1, 1, R), lambda i, *_: (i, 0, 0)), *specs]
  out_shapes = [jax.ShapeDtypeStruct(*shapes[x][:2]) for x in outs]
  moved = sum(x.size * np.dtype(x.dtype).itemsize for x in (*arrays, *out_shapes))
  return pl.pallas_call(
    kernel,
    name=name,
    interpret=interpret,
    out_shape=out_shapes,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1, grid=(T // R,), in_specs=specs, out_specs=[shapes[x][2] for x in outs]
    ),
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
    cost_estimate=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=moved),
  )(words, *arrays)


def _chunks(tokens, body):
  """body(slice) for 128 tokens at a time: what they need in fp32 then stays in registers and little VMEM."""
  jax.lax.fori_loop(0, tokens // LANES, lambda i, _: body(pl.ds(pl.multiple_of(i * LANES, LANES), LANES)), None)


def _add_sums(ref, sums):
  """Adds the sums over tokens of arrays [R, C] to the first rows of a block of sums."""
  for row, x_RxC in enumerate(sums):
    ref[0, row : row + 1, :] += x_RxC.sum(axis=0, keepdims=True)


# --- residual, dropout, LayerNorm ----------------------------------------------------------------------------------


def normalise(x: Array) -> tuple[Array, Array]:
  """x in fp32 with mean 0 and variance 1 over its last axis, and 1 / its deviation; both moments from one reading of x."""
  x = x.astype(jnp.float32)
  mean = x.mean(axis=-1, keepdims=True)
  variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)
  rstd = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
  return (x - mean) * rstd, rstd


@jax.custom_vjp
def layer_norm(x: Array, scale_C: Array, bias_C: Array) -> Array:
  """LayerNorm of the last axis in fp32, in x's dtype."""
  return _layer_norm_forward(x, scale_C, bias_C)[0]


def _layer_norm_forward(x, scale_C, bias_C):
  return (normalise(x)[0] * scale_C + bias_C).astype(x.dtype), (x, scale_C)


def _norm_gradient(normal, rstd, d_out, scale):
  """Of what was normalised, in fp32."""
  d_normal = d_out * scale
  mean = functools.partial(jnp.mean, axis=-1, keepdims=True)
  return rstd * (d_normal - mean(d_normal) - normal * mean(d_normal * normal))


def _layer_norm_backward(saved, d_out):
  x, scale_C = saved
  normal, rstd = normalise(x)
  d_out32 = d_out.astype(jnp.float32)
  d_scale, d_bias = (sum_rows(y.reshape(-1, x.shape[-1])) for y in ((d_out32 * normal).astype(x.dtype), d_out))
  return _norm_gradient(normal, rstd, d_out32, scale_C).astype(x.dtype), d_scale, d_bias


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _bits(words_ref, rows_ref, at, columns):
  rows_Rx1 = jax.lax.bitcast_convert_type(turn(rows_ref[0, :, at]), jnp.uint32)
  return dropout.element_bits(rows_Rx1, jax.lax.broadcasted_iota(jnp.uint32, (1, columns), 1), words_ref[1])


def _residual_norm_kernel(words_ref, rows_ref, x_ref, y_ref, scale_ref, bias_ref, sum_ref, out_ref, *, rate):
  def body(at):
    y_RxC = y_ref[at, :].astype(jnp.float32)
    if rate:
      y_RxC = dropout.drop(y_RxC, _bits(words_ref, rows_ref, at, y_RxC.shape[1]), rate)
    sum_RxC = (x_ref[at, :].astype(jnp.float32) + y_RxC).astype(sum_ref.dtype)
    sum_ref[at, :] = sum_RxC
    out_ref[at, :] = (normalise(sum_RxC)[0] * scale_ref[:] + bias_ref[:]).astype(out_ref.dtype)

  _chunks(x_ref.shape[0], body)


def _residual_norm_backward_kernel(words_ref, rows_ref, sum_ref, d_out_ref, scale_ref, d_x_ref, d_y_ref, sums_ref, *, rate):
  sums_ref[:] = jnp.zeros_like(sums_ref)

  def body(at):
    normal_RxC, rstd_Rx1 = normalise(sum_ref[at, :])
    d_out_RxC = d_out_ref[at, :].astype(jnp.float32)
    d_y_RxC = d_x_RxC = _norm_gradient(normal_RxC, rstd_Rx1, d_out_RxC, scale_ref[:])
    if rate:
      d_y_RxC = dropout.drop(d_x_RxC, _bits(words_ref, rows_ref, at, d_x_RxC.shape[1]), rate)
    d_x_ref[at, :], d_y_ref[at, :] = d_x_RxC.astype(d_x_ref.dtype), d_y_RxC.astype(d_y_ref.dtype)
    _add_sums(sums_ref, (d_out_RxC * normal_RxC, d_out_RxC, d_y_RxC))

  _chunks(sum_ref.shape[0], body)


def residual_norm(
  x: Array,
  y: Array,
  bias_of_y_D: Array,
  scale_D: Array,
  bias_D: Array,
  key: Array | None,
  places: Array,
  *,
  rate: float,
  interpret: bool = False,
) -> tuple[Array, Array]:
  """(x + dropout(y), its LayerNorm), both [B, L, D]; only the second may be differentiated. Dropout as dropout.dropout's."""
  D = x.shape[-1]
  rate = rate if key is not None else 0.0
  words_2 = dropout.words_of(key) if rate else jnp.zeros((2,), jnp.uint32)
  rows_T = dropout.row_hashes(words_2, places).reshape(-1)
  out = _residual_norm(x.reshape(-1, D), y.reshape(-1, D), bias_of_y_D, scale_D, bias_D, words_2, rows_T, rate, interpret)
  return tuple(z.reshape(x.shape) for z in out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def _residual_norm(x_TxD, y_TxD, bias_of_y_D, scale_D, bias_D, words_2, rows_T, rate, interpret):
  return _call(
    functools.partial(_residual_norm_kernel, rate=rate),
    "residual_norm",
    [x_TxD, y_TxD, scale_D[None], bias_D[None]],
    words_2,
    rows_T,
    ("T", "T"),
    interpret=interpret,
  )


def _residual_norm_forward(x_TxD, y_TxD, bias_of_y_D, scale_D, bias_D, words_2, rows_T, *how):
  out = _residual_norm(x_TxD, y_TxD, bias_of_y_D, scale_D, bias_D, words_2, rows_T, *how)
  return out, (checkpoint_name(out[0], "sum"), scale_D, words_2, rows_T)


def _residual_norm_backward(rate, interpret, saved, d_out):
  sum_TxD, scale_D, words_2, rows_T = saved
  d_x, d_y, sums = _call(
    functools.partial(_residual_norm_backward_kernel, rate=rate),
    "residual_norm_backward",
    [sum_TxD, d_out[1], scale_D[None]],
    words_2,
    rows_T,
    ("T", "T", "sums"),
    interpret=interpret,
  )
  d_scale, d_bias, d_bias_of_y = sums.sum(axis=0)[:3]
  return d_x, d_y, d_bias_of_y, d_scale, d_bias, None, None


_residual_norm.defvjp(_residual_norm_forward, _residual_norm_backward)


# --- GELU ----------------------------------------------------------------------------------------------------------


def _below(x):
  """The share of a standard normal below x."""
  return 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def _slope(x):
  return _below(x) + x * jnp.exp(-0.5 * jnp.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))


@jax.custom_vjp
def gelu(x: Array, bias_F: Array | None = None) -> Array:
  """The exact (erf) GELU in fp32, as fairseq computes it; jax.nn.gelu defaults to the tanh form.

  With bias_F, which x has been given detached, the backward pass also sums the bias's gradient.
  """
  return _gelu_forward(x, bias_F)[0]


def _gelu_forward(x, bias_F):
  x32 = x.astype(jnp.float32)
  return (x32 * _below(x32)).astype(x.dtype), (x, bias_F)


def _gelu_backward(saved, d_out):
  x, bias_F = saved
  if bias_F is None:
    return (d_out.astype(jnp.float32) * _slope(x.astype(jnp.float32))).astype(x.dtype), None
  # In two axes and behind a barrier, so that it ends the product that made d_out, its sums too, and no product after it
  # makes it again.
  x_TxF, d_out_TxF = (y.reshape(-1, x.shape[-1]).astype(jnp.float32) for y in (x, d_out))
  d_x_TxF = d_out_TxF * _slope(x_TxF)
  d_x_TxF, d_bias_F = jax.lax.optimization_barrier((d_x_TxF.astype(x.dtype), d_x_TxF.sum(axis=0)))
  return d_x_TxF.reshape(x.shape), d_bias_F


gelu.defvjp(_gelu_forward, _gelu_backward)
