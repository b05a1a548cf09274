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

from xlmr_jax.model import fused
from xlmr_jax.model.attention import attend, heads_of_group, takes
from xlmr_jax.model.dropout import dropout
from xlmr_jax.model.fused import gelu

BOS, PAD = 0, 1
FIRST_POSITION = 2  # fairseq numbers positions from padding index + 1, so a table for 512 tokens has 514 rows
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
  def __call__(self, x: Array, norm: Callable[[Array, Array, Array], Array] = fused.layer_norm) -> Array:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
    return norm(x, scale, bias)


@jax.custom_vjp
def affine(x_TxI: Array, kernel_IxO: Array, bias_O: Array) -> Array:
  """x @ kernel + bias in x's dtype; kernel and bias fp32, as are their gradients.

  Its own gradient only for the bias, summed in fp32 by fused.sum_rows.
  """
  return _affine_forward(x_TxI, kernel_IxO, bias_O)[0]


def _affine_forward(x_TxI, kernel_IxO, bias_O):
  return x_TxI @ kernel_IxO.astype(x_TxI.dtype) + bias_O.astype(x_TxI.dtype), (x_TxI, kernel_IxO)


def _affine_backward(saved, dy_TxO):
  x_TxI, kernel_IxO = saved
  contract = lambda a, b, axes: jax.lax.dot_general(
    a,
    b,
    ((axes[:1], axes[1:]), ((), ())),  # noqa: E731
    preferred_element_type=jnp.float32,
  )
  dx_TxI = contract(dy_TxO, kernel_IxO.astype(dy_TxO.dtype), (1, 1)).astype(x_TxI.dtype)
  return dx_TxI, contract(x_TxI, dy_TxO, (0, 0)), fused.sum_rows(dy_TxO)


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def settled(x: Array) -> Array:
  """x, whose gradient is made before it is put in another order: XLA would reorder what the product reads instead."""
  return x


settled.defvjp(lambda x: (x, None), lambda _, dx: (jax.lax.optimization_barrier(dx),))


class Dense(nn.Module):
  """Linear map of the last `axes` axes of x to `features`, as one matrix product over all leading positions.

  Flattened to [positions, in] x [in, out]: XLA's CPU backend runs the weight gradient of the unflattened form, a
  contraction over two axes, four times slower; on TPUs the reshapes are free.
  """

  features: tuple[int, ...]
  init_std: float
  axes: int = 1
  dtype: Dtype = jnp.float32
  arrange: Callable[[Array], Array] | None = None  # puts kernel[..., *features] and bias[*features] in another order
  gives_bias: bool = False  # returns (y, bias) and leaves the bias's gradient to what takes them

  @nn.compact
  def __call__(self, x: Array) -> Array:
    lead, contracted = x.shape[: x.ndim - self.axes], x.shape[x.ndim - self.axes :]
    kernel = self.param("kernel", nn.initializers.normal(self.init_std), (*contracted, *self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, self.features, jnp.float32)
    inputs, outputs = math.prod(contracted), math.prod(self.features)
    if self.arrange is not None:
      kernel, bias = settled(self.arrange(kernel).reshape(inputs, outputs)), self.arrange(bias)
    added = jax.lax.stop_gradient(bias) if self.gives_bias else bias
    y = affine(x.astype(self.dtype).reshape(-1, inputs), kernel.reshape(inputs, outputs), added.reshape(outputs))
    y = y.reshape(*lead, *bias.shape)
    return (y, bias.reshape(outputs)) if self.gives_bias else y


def places_of(rows_B: Array, length: int) -> Array:
  """The number of each token in the global batch, uint32[B, L], for dropout."""
  return rows_B[:, None] * jnp.uint32(length) + jnp.arange(length, dtype=jnp.uint32)


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
  fuse: bool
  interpret: bool
  constrain: Callable[[Array], Array]

  @nn.compact
  def __call__(self, x_BxLxD: Array, segments_BxL: Array, rows_B: Array, deterministic: bool) -> Array:
    L, D = x_BxLxD.shape[1:]
    heads, width = self.heads, D // self.heads
    keys = [None] * 3 if deterministic else list(jax.random.split(self.make_rng("dropout"), 3))
    places_BxL = places_of(rows_B, L)
    # A kernel that ends a sub-layer also sums its bias's gradient; so can the attention kernel for the projection's.
    fuse = self.fuse and not self.pre_norm and fused.can_run(L, D) and fused.can_run(L, self.ffn)
    in_row = self.attention == "pallas" and takes(self.attention, L)
    groups = heads // heads_of_group(heads, width) if self.attention == "pallas" else 1
    dense = functools.partial(Dense, init_std=self.init_std, dtype=self.dtype, gives_bias=fuse)
    attention_norm, ffn_norm = LayerNorm(name="attention_norm"), LayerNorm(name="ffn_norm")

    def end(norm, x, y, key):
      """x + dropout(y), normalised if post-LN."""
      if fuse:
        y, bias_of_y = y
        both = lambda x, scale, bias: fused.residual_norm(  # noqa: E731
          x, y, bias_of_y, scale, bias, key, places_BxL, rate=self.dropout, interpret=self.interpret
        )
        return norm(x, both)[1]
      x = checkpoint_name(x + dropout(y, self.dropout, key, places_BxL, self.dropout_bits), "sum")
      return x if self.pre_norm else norm(x)

    y_BxLxD = attention_norm(x_BxLxD) if self.pre_norm else x_BxLxD
    qkv_BxLxGx3xE = Dense(
      (3, heads, width), self.init_std, 1, self.dtype, lambda x: by_group(x, groups), in_row, name="qkv"
    )(y_BxLxD)
    qkv_BxLxGx3xE, bias_C = qkv_BxLxGx3xE if in_row else (qkv_BxLxGx3xE, None)
    with jax.named_scope("attention"):
      y_BxLxD = attend(
        checkpoint_name(qkv_BxLxGx3xE, "qkv"),
        segments_BxL,
        heads=heads,
        rate=self.attention_dropout,
        key=keys[0],
        rows_B=rows_B,
        kernel=self.attention,
        bias_C=bias_C,
        interpret=self.interpret,
      )
    y_BxLxD = checkpoint_name(y_BxLxD, "context")
    y_BxLxD = dense((D,), axes=2, name="attention_out")(y_BxLxD.reshape(*y_BxLxD.shape[:2], heads, width))
    x_BxLxD = end(attention_norm, x_BxLxD, y_BxLxD, keys[1])

    y_BxLxF = dense((self.ffn,), name="ffn_in")(ffn_norm(x_BxLxD) if self.pre_norm else x_BxLxD)
    y_BxLxF = gelu(*y_BxLxF) if fuse else gelu(y_BxLxF)
    y_BxLxD = dense((D,), name="ffn_out")(y_BxLxF)
    return self.constrain(end(ffn_norm, x_BxLxD, y_BxLxD, keys[2]))


REMAT_POLICIES = {  # what the backward pass finds, and what it computes again
  "none": None,  # every activation is kept
  "ffn": jax.checkpoint_policies.save_only_these_names("qkv", "context", "sum"),  # again: norms, GELU and its product
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
  fuse: bool = False  # whether the kernels of fused.py run
  interpret: bool = False  # whether Pallas interprets these, without a TPU
  constrain: Callable[[Array], Array] = lambda x: x

  def setup(self):
    rows = padded_vocabulary(self.vocabulary_size) if self.pad_vocabulary else self.vocabulary_size
    init = nn.initializers.normal(self.init_std)
    # fairseq zeroes the padding row of both tables; rows past the real vocabulary never win or learn (losses.py).
    self.token_embedding = self.param(
      "token_embedding",
      lambda key: init(key, (rows, self.hidden), jnp.float32).at[PAD].set(0.0).at[self.vocabulary_size :].set(0.0),
    )
    self.position_embedding = self.param(
      "position_embedding", lambda key: init(key, (self.max_positions, self.hidden), jnp.float32).at[PAD].set(0.0)
    )
    if not self.pre_norm:
      self.embedding_norm = LayerNorm()

    layer = Layer
    if self.remat != "none":
      layer = nn.remat(Layer, policy=REMAT_POLICIES[self.remat], prevent_cse=False, static_argnums=(4,))
    self.encoder = nn.scan(
      lambda module, x, segments, rows, deterministic: (module(x, segments, rows, deterministic), None),
      variable_axes={"params": 0},
      split_rngs={"params": True, "dropout": True},
      in_axes=(nn.broadcast,) * 3,
      length=self.layers,
      unroll=self.layers if self.unroll_layers else 1,
    )
    self.layer = layer(
      self.heads,
      self.ffn,
      self.dropout,
      self.attention_dropout,
      self.dropout_bits,
      self.pre_norm,
      self.init_std,
      self.dtype,
      self.attention,
      self.fuse,
      self.interpret,
      self.constrain,
    )
    if self.pre_norm:
      self.final_norm = LayerNorm()

    self.head_dense = Dense((self.hidden,), init_std=self.init_std, dtype=self.dtype)
    self.head_norm = LayerNorm()
    self.head_bias = self.param("head_bias", nn.initializers.zeros, (rows,), jnp.float32)

  def encode(
    self, ids_BxL: Array, deterministic: bool = True, tokens_BxLxD: Array | None = None, rows_B: Array | None = None
  ) -> Array:
    """Last hidden states [B, L, D] of ids int32[B, L]. Needs a "dropout" key unless deterministic.

    tokens: rows of the token embedding at ids, looked up by a caller who wants the gradient in them. rows: uint32, which
    rows of the global batch these are, for dropout; from 0 if not given.
    """
    rows_B = jnp.arange(ids_BxL.shape[0], dtype=jnp.uint32) if rows_B is None else rows_B
    with jax.named_scope("embedding"):
      segments_BxL, positions_BxL = segments_and_positions(ids_BxL, self.isolate_documents)
      # Gathered in fp32, so that the table's sparse gradient is summed in fp32.
      x_BxLxD = self.token_embedding[ids_BxL] if tokens_BxLxD is None else tokens_BxLxD
      x_BxLxD = x_BxLxD + self.position_embedding[positions_BxL]
      x_BxLxD = (x_BxLxD if self.pre_norm else self.embedding_norm(x_BxLxD)).astype(self.dtype)
      key = None if deterministic else self.make_rng("dropout")
      x_BxLxD = self.constrain(dropout(x_BxLxD, self.dropout, key, places_of(rows_B, ids_BxL.shape[1]), self.dropout_bits))
    x_BxLxD, _ = self.encoder(self.layer, x_BxLxD, segments_BxL, rows_B, deterministic)
    return self.final_norm(x_BxLxD) if self.pre_norm else x_BxLxD

  def transform(self, x: Array) -> Array:
    """The head before the vocabulary product: dense, GELU, LayerNorm. [..., D] to [..., D]."""
    return self.head_norm(gelu(self.head_dense(x)))

  def __call__(
    self,
    ids_BxL: Array,
    positions_BxP: Array,
    deterministic: bool = True,
    tokens_BxLxD: Array | None = None,
    rows_B: Array | None = None,
  ) -> Array:
    """Head vectors [B, P, D] of the masked slots only: what losses.mlm_loss multiplies with the table."""
    x_BxLxD = self.encode(ids_BxL, deterministic, tokens_BxLxD, rows_B)
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
