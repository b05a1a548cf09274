"""The XLM-R encoder and its masked-language-model head (Conneau et al. 2020; fairseq's roberta models), flax.linen.

Pure functions of (params, ids): no sharding rules, no config object, no data. The vocabulary product and its loss
live in losses.py; this file stops at the vectors that enter it.

Letters: B rows, L tokens a row, P masked slots a row, D hidden width, H heads, K width of a head, F feed-forward
width, V vocabulary (padded to a multiple of 128), N layers (scanned: parameters of a layer lead with N).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from xlmr_jax.attention import attend, heads_of_group
from xlmr_jax.dropout import dropout

BOS, PAD = 0, 1
FIRST_POSITION = 2  # fairseq numbers positions from padding index + 1, so a table for 512 tokens has 514 rows
LAYER_NORM_EPSILON = 1e-5  # linen's default is 1e-6, transformers' class default 1e-12; XLM-R was trained with 1e-5
VOCABULARY_MULTIPLE = 128  # lanes of a TPU matrix unit: 250,002 entries are stored as 250,112 rows

Array = jax.Array
Dtype = Any


def padded_vocabulary(vocabulary_size: int) -> int:
  """Rows of the stored table for this many real entries."""
  return -(-vocabulary_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def segments_and_positions(ids_BxL: Array, isolate_documents: bool) -> tuple[Array, Array]:
  """Segment ids (0 for pads) and position ids of rows of `<s> ... </s>` documents, both int32[B, L].

  Isolated: every `<s>` opens a segment, and positions restart there. Otherwise fairseq's reading: a row is one
  sequence, whatever it holds. Masking never touches `<s>`, so both can be read off the masked ids.
  """
  real_BxL = ids_BxL != PAD
  if not isolate_documents:
    positions_BxL = jnp.cumsum(real_BxL, axis=1) + FIRST_POSITION - 1
    return real_BxL.astype(jnp.int32), jnp.where(real_BxL, positions_BxL, PAD).astype(jnp.int32)
  starts_BxL = ids_BxL == BOS
  index_L = jnp.arange(ids_BxL.shape[1], dtype=jnp.int32)
  last_start_BxL = jax.lax.cummax(jnp.where(starts_BxL, index_L, 0), axis=1)
  segments_BxL = jnp.where(real_BxL, jnp.maximum(jnp.cumsum(starts_BxL, axis=1), 1), 0)
  positions_BxL = jnp.where(real_BxL, index_L - last_start_BxL + FIRST_POSITION, PAD)
  return segments_BxL.astype(jnp.int32), positions_BxL.astype(jnp.int32)


def gather_slots(x_BxLxD: Array, positions_BxP: Array) -> Array:
  """x at the masked slots, [B, P, D]. A vmapped gather: take_along_axis is not partitioned over B (71 GiB on v5e-16)."""
  return jax.vmap(lambda x_LxD, positions_P: x_LxD[positions_P])(x_BxLxD, positions_BxP)


class LayerNorm(nn.Module):
  """In fp32 whatever the compute dtype; returns the dtype it was given."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    return (y * scale + bias).astype(x.dtype)


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """The exact (erf) GELU in fp32, as fairseq computes it; jax.nn.gelu defaults to the tanh form.

  Its derivative is made beside it, while erf is at hand, and kept in x's dtype: erf in the backward pass again would
  cost a TPU's vector unit as much as the product before it costs the matrix unit.
  """
  return _gelu_forward(x)[0]


def _gelu_forward(x):
  x32 = x.astype(jnp.float32)
  below = 0.5 * (1.0 + jax.lax.erf(x32 * math.sqrt(0.5)))
  slope = below + x32 * jnp.exp(-0.5 * jnp.square(x32)) * (1.0 / math.sqrt(2.0 * math.pi))
  return (x32 * below).astype(x.dtype), slope.astype(x.dtype)


gelu.defvjp(_gelu_forward, lambda slope, dy: (dy * slope,))


@jax.custom_vjp
def affine(x_TxI: Array, kernel_IxO: Array, bias_O: Array) -> Array:
  """x @ kernel + bias in x's dtype; kernel and bias fp32, as are their gradients.

  Its own gradient only for the bias: a product with ones, summed in fp32. As the plain sum over T that autodiff writes,
  it takes XLA's CPU backend longer than the weight gradient.
  """
  return _affine_forward(x_TxI, kernel_IxO, bias_O)[0]


def _affine_forward(x_TxI, kernel_IxO, bias_O):
  return x_TxI @ kernel_IxO.astype(x_TxI.dtype) + bias_O.astype(x_TxI.dtype), (x_TxI, kernel_IxO)


def _affine_backward(saved, dy_TxO):
  x_TxI, kernel_IxO = saved
  contract = lambda a, b, axes: jax.lax.dot_general(a, b, ((axes[:1], axes[1:]), ((), ())),  # noqa: E731
                                                    preferred_element_type=jnp.float32)
  dx_TxI = contract(dy_TxO, kernel_IxO.astype(dy_TxO.dtype), (1, 1)).astype(x_TxI.dtype)
  return dx_TxI, contract(x_TxI, dy_TxO, (0, 0)), contract(jnp.ones(dy_TxO.shape[:1], dy_TxO.dtype), dy_TxO, (0, 0))


affine.defvjp(_affine_forward, _affine_backward)


class Dense(nn.Module):
  """Linear map of the last `axes` axes of x to `features`, as one matrix product over all leading positions.

  Flattened to [positions, in] x [in, out]: XLA's CPU backend runs the weight gradient of the unflattened form, a
  contraction over two axes, four times slower; on TPUs the reshapes are free.
  """

  features: tuple[int, ...]
  init_std: float
  axes: int = 1
  dtype: Dtype = jnp.float32
  arrange: Callable[[Array], Array] = lambda x: x  # puts kernel[..., *features] and bias[*features] in another order

  @nn.compact
  def __call__(self, x: Array) -> Array:
    lead, contracted = x.shape[: x.ndim - self.axes], x.shape[x.ndim - self.axes :]
    kernel = self.param("kernel", nn.initializers.normal(self.init_std), (*contracted, *self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, self.features, jnp.float32)
    inputs, outputs = math.prod(contracted), math.prod(self.features)
    kernel, bias = self.arrange(kernel), self.arrange(bias)
    y = affine(x.astype(self.dtype).reshape(-1, inputs), kernel.reshape(inputs, outputs), bias.reshape(outputs))
    return y.reshape(*lead, *bias.shape)


def by_group(x: Array, groups: int) -> Array:
  """[..., 3, H, K] to [..., G, 3, E]: queries, keys and values of a group of heads side by side."""
  *lead, three, heads, width = x.shape
  return jnp.moveaxis(x.reshape(*lead, three, groups, heads // groups * width), -2, -3)


class Layer(nn.Module):
  """One encoder layer: post-LN, as XLM-R, or pre-LN, as XLM-R XL and XXL."""

  heads: int
  ffn: int
  dropout: float
  attention_dropout: float
  dropout_bits: str
  pre_norm: bool
  init_std: float
  dtype: Dtype
  attention: str
  interpret: bool
  spread: Callable[[Callable], Callable]
  constrain: Callable[[Array], Array]

  @nn.compact
  def __call__(self, x_BxLxD: Array, segments_BxL: Array, deterministic: bool) -> Array:
    D = x_BxLxD.shape[-1]
    keys = [None] * 3 if deterministic else list(jax.random.split(self.make_rng("dropout"), 3))
    dense = functools.partial(Dense, init_std=self.init_std, dtype=self.dtype)
    drop = functools.partial(dropout, rate=self.dropout, bits=self.dropout_bits)
    groups = self.heads // heads_of_group(self.heads, D // self.heads) if self.attention == "pallas" else 1
    attention_norm, ffn_norm = LayerNorm(name="attention_norm"), LayerNorm(name="ffn_norm")
    before, after = (lambda norm, x: norm(x), lambda norm, x: x)[:: 1 if self.pre_norm else -1]

    y_BxLxD = before(attention_norm, x_BxLxD)
    qkv_BxLxGx3xE = dense((3, self.heads, D // self.heads), name="qkv", arrange=lambda x: by_group(x, groups))(y_BxLxD)
    qkv_BxLxGx3xE = checkpoint_name(qkv_BxLxGx3xE, "qkv")
    with jax.named_scope("attention"):
      y_BxLxD = attend(qkv_BxLxGx3xE, segments_BxL, heads=self.heads, rate=self.attention_dropout, key=keys[0],
                       kernel=self.attention, spread=self.spread, interpret=self.interpret)
      y_BxLxD = checkpoint_name(y_BxLxD, "context")
    y_BxLxHxK = y_BxLxD.reshape(*y_BxLxD.shape[:2], self.heads, D // self.heads)
    y_BxLxD = dense((D,), axes=2, name="attention_out")(y_BxLxHxK)
    x_BxLxD = checkpoint_name(x_BxLxD + drop(y_BxLxD, key=keys[1]), "attention_sum")
    x_BxLxD = after(attention_norm, x_BxLxD)

    y_BxLxF = gelu(dense((self.ffn,), name="ffn_in")(before(ffn_norm, x_BxLxD)))
    y_BxLxD = dense((D,), name="ffn_out")(y_BxLxF)
    x_BxLxD = checkpoint_name(x_BxLxD + drop(y_BxLxD, key=keys[2]), "ffn_sum")
    return self.constrain(after(ffn_norm, x_BxLxD))


KEPT = ("qkv", "context", "attention_sum", "ffn_sum")
REMAT_POLICIES = {  # what the backward pass finds, and what it computes again
  "none": None,  # every activation is kept
  "ffn": jax.checkpoint_policies.save_only_these_names(*KEPT),  # again: norms, the product into the feed-forward, GELU
  "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,  # kept: matrix products
  "full": jax.checkpoint_policies.nothing_saveable,  # kept: a layer's input only
}


class XLMR(nn.Module):
  """The encoder and the head's transform; `params` is a plain nested dict.

  constrain: applied to activations with leading axis B, for the caller's sharding constraint.
  """

  vocabulary_size: int  # real entries; the table has padded_vocabulary() rows when pad_vocabulary
  layers: int
  hidden: int
  heads: int
  ffn: int
  max_positions: int = 514
  dropout: float = 0.1
  attention_dropout: float = 0.1
  dropout_bits: str = "hash"  # or "key": see dropout.py
  isolate_documents: bool = False
  pre_norm: bool = False  # XLM-R XL and XXL: norms before the sub-layers and one behind the last layer
  init_std: float = 0.02  # of every kernel and embedding
  dtype: Dtype = jnp.bfloat16
  remat: str = "none"
  unroll_layers: bool = False
  pad_vocabulary: bool = True
  attention: str = "xla"  # a kernel of attention.py, and
  interpret: bool = False  # whether Pallas interprets it, and
  spread: Callable[[Callable], Callable] = lambda f: f  # how it runs on each device's own rows
  constrain: Callable[[Array], Array] = lambda x: x

  def setup(self):
    rows = padded_vocabulary(self.vocabulary_size) if self.pad_vocabulary else self.vocabulary_size
    init = nn.initializers.normal(self.init_std)
    # fairseq zeroes the padding row of both tables; rows past the real vocabulary never win or learn (losses.py).
    self.token_embedding = self.param(
      "token_embedding", lambda key: init(key, (rows, self.hidden), jnp.float32).at[PAD].set(0.0)
      .at[self.vocabulary_size:].set(0.0))
    self.position_embedding = self.param(
      "position_embedding", lambda key: init(key, (self.max_positions, self.hidden), jnp.float32).at[PAD].set(0.0))
    if not self.pre_norm:
      self.embedding_norm = LayerNorm()

    layer = Layer
    if self.remat != "none":
      layer = nn.remat(Layer, policy=REMAT_POLICIES[self.remat], prevent_cse=False, static_argnums=(3,))
    self.encoder = nn.scan(
      lambda module, x, segments, deterministic: (module(x, segments, deterministic), None),
      variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
      in_axes=(nn.broadcast, nn.broadcast), length=self.layers, unroll=self.layers if self.unroll_layers else 1)
    self.layer = layer(
      self.heads, self.ffn, self.dropout, self.attention_dropout, self.dropout_bits, self.pre_norm, self.init_std,
      self.dtype, self.attention, self.interpret, self.spread, self.constrain)
    if self.pre_norm:
      self.final_norm = LayerNorm()

    self.head_dense = Dense((self.hidden,), init_std=self.init_std, dtype=self.dtype)
    self.head_norm = LayerNorm()
    self.head_bias = self.param("head_bias", nn.initializers.zeros, (rows,), jnp.float32)

  def encode(self, ids_BxL: Array, deterministic: bool = True, tokens_BxLxD: Array | None = None) -> Array:
    """Last hidden states [B, L, D] of ids int32[B, L]. Needs a "dropout" key unless deterministic.

    tokens: rows of the token embedding at ids, fp32, looked up by a caller who wants the gradient in them.
    """
    with jax.named_scope("embedding"):
      segments_BxL, positions_BxL = segments_and_positions(ids_BxL, self.isolate_documents)
      # Gathered in fp32, so that the table's sparse gradient is summed in fp32.
      x_BxLxD = self.token_embedding[ids_BxL] if tokens_BxLxD is None else tokens_BxLxD
      x_BxLxD = x_BxLxD + self.position_embedding[positions_BxL]
      x_BxLxD = (x_BxLxD if self.pre_norm else self.embedding_norm(x_BxLxD)).astype(self.dtype)
      key = None if deterministic else self.make_rng("dropout")
      x_BxLxD = self.constrain(dropout(x_BxLxD, self.dropout, key, self.dropout_bits))
    x_BxLxD, _ = self.encoder(self.layer, x_BxLxD, segments_BxL, deterministic)
    return self.final_norm(x_BxLxD) if self.pre_norm else x_BxLxD

  def transform(self, x: Array) -> Array:
    """The head before the vocabulary product: dense, GELU, LayerNorm. [..., D] to [..., D]."""
    return self.head_norm(gelu(self.head_dense(x)))

  def __call__(self, ids_BxL: Array, positions_BxP: Array, deterministic: bool = True,
               tokens_BxLxD: Array | None = None) -> Array:
    """Head vectors [B, P, D] of the masked slots only: what losses.mlm_loss multiplies with the table."""
    x_BxLxD = self.encode(ids_BxL, deterministic, tokens_BxLxD)
    return self.transform(self.constrain(gather_slots(x_BxLxD, positions_BxP)))

  def logits(self, ids_BxL: Array) -> Array:
    """fp32 logits [B, L, vocabulary_size] at every position; for parity tests and small inputs."""
    h_BxLxD = self.transform(self.encode(ids_BxL))
    table_VxD = self.token_embedding[: self.vocabulary_size].astype(self.dtype)
    scores = jnp.einsum("BLD,VD->BLV", h_BxLxD, table_VxD, preferred_element_type=jnp.float32)
    return scores + self.head_bias[: self.vocabulary_size]


def count_parameters(model: XLMR) -> int:
  """Parameters of the model as built, by shape alone."""
  ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), ids, ids)["params"]
  return sum(x.size for x in jax.tree.leaves(params))
