"""What every encoder is made of, in its plain form: products, biases, GELU, LayerNorm, and residual with norm.

A product carries no bias. The operation after it takes (y, bias) as ordinary differentiable arguments and adds the bias
itself, so that a kernel may add it, and sum its gradient, on the way. Letters as in xlmr.py, and: T tokens, C columns.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from xlmr_jax.model.dropout import Drop, dropout

Array = jax.Array
Dtype = Any
EPSILON = 1e-5  # XLM-R's, of its norms; linen's default is 1e-6, that of transformers' classes 1e-12
_SUBLANES = 8  # rows of a tile of a TPU's registers


def identity(x: Array) -> Array:
  """x itself."""
  return x


def precision_of(dtype: Dtype) -> jax.lax.Precision | None:
  """The precision of a product of arrays of a dtype: fp32 stays fp32.

  Left alone, XLA rounds the factors of an fp32 product to TF32 on a GPU and to bfloat16 on a TPU. Whoever chooses fp32
  chooses it for its digits.
  """
  return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def sum_rows(x_TxC: Array) -> Array:
  """The sum over T in fp32, [C], as a product with ones.

  A plain sum takes XLA's CPU backend 80 ms where this takes 3 (768 rows of 32k), and reads at a quarter of the bandwidth on
  a TPU. The barrier keeps XLA from recognising the ones.
  """
  ones_8xT = jax.lax.optimization_barrier(jnp.ones((_SUBLANES, x_TxC.shape[0]), x_TxC.dtype))
  axes, precision = (((1,), (0,)), ((), ())), precision_of(x_TxC.dtype)
  return jax.lax.dot_general(ones_8xT, x_TxC, axes, precision, preferred_element_type=jnp.float32)[0]


# --- products and biases -------------------------------------------------------------------------------------------


@jax.custom_vjp
def product(x_TxI: Array, kernel_IxO: Array) -> Array:
  """x @ kernel in x's dtype; the kernel is fp32, and so is its gradient."""
  return jnp.matmul(x_TxI, kernel_IxO.astype(x_TxI.dtype), precision=precision_of(x_TxI.dtype))


def _product_forward(x_TxI: Array, kernel_IxO: Array):
  return product(x_TxI, kernel_IxO), (x_TxI, kernel_IxO)


def _product_backward(saved, dy_TxO: Array):
  x_TxI, kernel_IxO = saved

  def contract(a: Array, b: Array, axis_of_a: int, axis_of_b: int) -> Array:
    axes = (((axis_of_a,), (axis_of_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, precision_of(a.dtype), preferred_element_type=jnp.float32)

  return contract(dy_TxO, kernel_IxO.astype(dy_TxO.dtype), 1, 1).astype(x_TxI.dtype), contract(x_TxI, dy_TxO, 0, 0)


product.defvjp(_product_forward, _product_backward)


def plus_bias(y: Array, bias_C: Array) -> Array:
  """y[..., C] + bias in y's dtype, added in the two axes of the product that made y, so that XLA sees no reshape between."""
  return (y.reshape(-1, y.shape[-1]) + bias_C.astype(y.dtype)).reshape(y.shape)


@jax.custom_vjp
def add_bias(y: Array, bias_C: Array) -> Array:
  """y[..., C] + bias in y's dtype; the bias is fp32, and its gradient is summed in fp32."""
  return plus_bias(y, bias_C)


add_bias.defvjp(
  lambda y, bias_C: (plus_bias(y, bias_C), None), lambda _, d_z: (d_z, sum_rows(d_z.reshape(-1, d_z.shape[-1])))
)


@jax.custom_vjp
def barrier_on_gradient(x: Array) -> Array:
  """The identity. Its gradient passes an optimization barrier, so that XLA transposes the small weight gradient and not
  the large activations.
  """
  return x


barrier_on_gradient.defvjp(lambda x: (x, None), lambda _, dx: (jax.lax.optimization_barrier(dx),))


class Product(nn.Module):
  """Matrix product of the last `axes` axes of x with a kernel; returns (y[..., features], bias), y without the bias.

  Flattened to [positions, in] x [in, out]: XLA's CPU backend runs the weight gradient of the unflattened form, a
  contraction over two axes, four times slower; on TPUs the reshapes are free. arrange: puts kernel[..., *features] and
  bias[*features] in the column order that the next operation reads.
  """

  features: tuple[int, ...]
  init_std: float
  axes: int = 1
  dtype: Dtype = jnp.float32
  arrange: Callable[[Array], Array] = identity

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    lead, contracted = x.shape[: x.ndim - self.axes], x.shape[x.ndim - self.axes :]
    kernel = self.param("kernel", nn.initializers.normal(self.init_std), (*contracted, *self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, self.features, jnp.float32)
    inputs, outputs = math.prod(contracted), math.prod(self.features)
    kernel_IxO = kernel.reshape(inputs, outputs)
    if self.arrange is not identity:
      kernel_IxO = barrier_on_gradient(self.arrange(kernel).reshape(inputs, outputs))
    y = product(x.astype(self.dtype).reshape(-1, inputs), kernel_IxO)
    return y.reshape(*lead, outputs), self.arrange(bias).reshape(outputs)


# --- GELU ----------------------------------------------------------------------------------------------------------


def share_below(x: Array) -> Array:
  """The share of a standard normal distribution below x."""
  return 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def gelu_slope(x: Array) -> Array:
  """The derivative of the exact GELU."""
  return share_below(x) + x * jnp.exp(-0.5 * jnp.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """The exact (erf) GELU, computed in fp32 as fairseq does; jax.nn.gelu defaults to the tanh form."""
  x32 = x.astype(jnp.float32)
  return (x32 * share_below(x32)).astype(x.dtype)


gelu.defvjp(
  lambda x: (gelu(x), x), lambda x, d_out: ((d_out.astype(jnp.float32) * gelu_slope(x.astype(jnp.float32))).astype(x.dtype),)
)


def bias_gelu(y: Array, bias_F: Array) -> Array:
  """GELU of y + bias."""
  return gelu(add_bias(y, bias_F))


@jax.custom_vjp
def bias_gelu_in_product(y: Array, bias_F: Array) -> Array:
  """GELU of y + bias, whose backward pass XLA fuses into the product that made the cotangent, with the bias's sums."""
  return _bias_gelu_forward(y, bias_F)[0]


def _bias_gelu_forward(y: Array, bias_F: Array):
  z = plus_bias(y, bias_F)
  z32 = z.astype(jnp.float32)
  return (z32 * share_below(z32)).astype(z.dtype), z


def _bias_gelu_backward(z: Array, d_out: Array):
  # Flattened to two axes so that XLA fuses slope and bias sums into the product that computes d_out; the barrier stops
  # later products from recomputing them.
  z_TxF, d_out_TxF = (a.reshape(-1, z.shape[-1]).astype(jnp.float32) for a in (z, d_out))
  d_z_TxF = d_out_TxF * gelu_slope(z_TxF)
  d_z_TxF, d_bias_F = jax.lax.optimization_barrier((d_z_TxF.astype(z.dtype), d_z_TxF.sum(axis=0)))
  return d_z_TxF.reshape(z.shape), d_bias_F


bias_gelu_in_product.defvjp(_bias_gelu_forward, _bias_gelu_backward)


# --- LayerNorm -----------------------------------------------------------------------------------------------------


def normalise(x: Array, epsilon: float = EPSILON) -> tuple[Array, Array]:
  """x in fp32 with mean 0 and variance 1 over its last axis, and 1 / its deviation; both moments from one reading of x."""
  x = x.astype(jnp.float32)
  mean = x.mean(axis=-1, keepdims=True)
  variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)
  rstd = jax.lax.rsqrt(variance + epsilon)
  return (x - mean) * rstd, rstd


def norm_gradient(normal: Array, rstd: Array, d_out: Array, scale: Array) -> Array:
  """The gradient of what was normalised, fp32."""
  d_normal = d_out * scale
  mean = d_normal.mean(axis=-1, keepdims=True)
  return rstd * (d_normal - mean - normal * (d_normal * normal).mean(axis=-1, keepdims=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale_C: Array, shift_C: Array, epsilon: float = EPSILON) -> Array:
  """LayerNorm of the last axis, computed in fp32 and returned in x's dtype."""
  return (normalise(x, epsilon)[0] * scale_C + shift_C).astype(x.dtype)


def _layer_norm_forward(x: Array, scale_C: Array, shift_C: Array, epsilon: float):
  return layer_norm(x, scale_C, shift_C, epsilon), (x, scale_C)


def _layer_norm_backward(epsilon: float, saved, d_out: Array):
  x, scale_C = saved
  normal, rstd = normalise(x, epsilon)
  d_out32 = d_out.astype(jnp.float32)
  d_scale, d_shift = (sum_rows(a.reshape(-1, x.shape[-1])) for a in ((d_out32 * normal).astype(x.dtype), d_out))
  return norm_gradient(normal, rstd, d_out32, scale_C).astype(x.dtype), d_scale, d_shift


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def add_norm(
  x: Array, y: Array, bias_C: Array, scale_C: Array, shift_C: Array, drop: Drop, keep_sum: bool = False,
  epsilon: float = EPSILON,
):  # fmt: skip
  """(x + dropout(y + bias), its LayerNorm), both [B, L, C] and both differentiable."""
  del keep_sum  # XLA sees for itself whether the sum is used.
  total = checkpoint_name(x + dropout(add_bias(y, bias_C), drop), "sum")
  normed: Any = layer_norm(total, scale_C, shift_C, epsilon)
  return total, normed


def _scale_and_shift(module: nn.Module, columns: int) -> tuple[Array, Array]:
  scale_C = module.param("scale", nn.initializers.ones, (columns,), jnp.float32)
  return scale_C, module.param("bias", nn.initializers.zeros, (columns,), jnp.float32)


class LayerNorm(nn.Module):
  """layer_norm with its parameters, "scale" and "bias"."""

  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return layer_norm(x, *_scale_and_shift(self, x.shape[-1]), self.epsilon)


class AddNorm(nn.Module):
  """An operation like add_norm with the norm's parameters, "scale" and "bias"."""

  operation: Callable[..., tuple[Array, Array]] = add_norm
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: Array, y: Array, bias_C: Array, drop: Drop, keep_sum: bool = False) -> tuple[Array, Array]:
    return self.operation(x, y, bias_C, *_scale_and_shift(self, x.shape[-1]), drop, keep_sum, self.epsilon)
