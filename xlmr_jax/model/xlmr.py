"""The XLM-R encoder (Conneau et al. 2020; fairseq's roberta models) in flax.linen, from ids to hidden states.

Pure functions of (params, ids): no config object, no data, no mesh. The head is in head.py, the vocabulary product in
training/losses.py.

Letters: B rows, L tokens per row, P masked slots per row, D hidden width, H heads, K width of a head, F feed-forward
width, V vocabulary (padded to a multiple of 128), N layers (scanned: parameters of a layer lead with N).
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from xlmr_jax.ids import BOS, PAD
from xlmr_jax.model.dropout import Drop, dropout, token_index
from xlmr_jax.model.layers import EPSILON, AddNorm, LayerNorm, Product, add_bias
from xlmr_jax.model.ops import PLAIN_OPS, Ops

FIRST_POSITION = 2  # fairseq numbers positions from padding index + 1, so a table for 512 tokens has 514 rows
VOCABULARY_MULTIPLE = 128  # lanes of a TPU matrix unit: 250,002 entries are stored as 250,112 rows

Array = jax.Array
Dtype = Any

# Path of a parameter -> how it is divided over the mesh. The first match counts; an unmatched path is an error.
SHARDING = (  # path                              spec                          shape (N: scanned layers)
  (r"token_embedding$",                           P("fsdp", None)),             # [V, D]
  (r"position_embedding$",                        P(None, "fsdp")),             # [514, D]
  (r"layer/qkv/kernel$",                          P(None, "fsdp")),             # [N, D, 3, H, K]
  (r"layer/attention_out/kernel$",                P(None, None, None, "fsdp")), # [N, H, K, D]
  (r"layer/ffn_in/kernel$",                       P(None, "fsdp")),             # [N, D, F]
  (r"layer/ffn_out/kernel$",                      P(None, None, "fsdp")),       # [N, F, D]
  (r"(^|/)layer/.*(bias|scale)$",                 P()),                         # [N, ...]
  (r"(embedding_norm|final_norm)/(scale|bias)$",  P()),                         # [D]
)  # fmt: skip

REMAT_POLICIES = {  # what the backward pass finds, and what it computes again
  "none": None,  # every activation is kept
  "ffn": jax.checkpoint_policies.save_only_these_names("qkv", "context", "sum"),  # again: norms, GELU and its product
  "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,  # kept: matrix products
  "full": jax.checkpoint_policies.nothing_saveable,  # kept: a layer's input only
}


def padded_vocabulary(vocabulary_size: int) -> int:
  """Rows of the stored table for this many real entries."""
  return -(-vocabulary_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def flops_per_token(
  *, layers: int, hidden: int, ffn: int, vocabulary: int, seq_len: int, slots: int, dense_head: bool = True
) -> float:
  """Matrix-product FLOPs forward and backward per token position, nothing recomputed: XLM-R Base at 512, 80: 747M.

  dense_head: whether the head has a dense layer before the vocabulary product.
  """
  body = layers * (4 * hidden**2 + 2 * hidden * ffn)
  attention = layers * 2 * seq_len * hidden
  head = slots / seq_len * (hidden**2 * dense_head + vocabulary * hidden)
  return 6.0 * (body + attention + head)


def segments_and_positions(
  ids_BxL: Array, isolate_documents: bool, first_position: int = FIRST_POSITION
) -> tuple[Array, Array]:
  """Segment ids (0 for pads) and position ids of rows of `<s> ... </s>` documents, both int32[B, L].

  Isolated: every `<s>` opens a segment, and positions restart there. Otherwise fairseq's reading: a row is one
  sequence, whatever it holds. Masking never touches `<s>`, so both can be read off the masked ids.
  """
  real_BxL = ids_BxL != PAD
  of_pads = min(PAD, first_position)  # Nothing that counts depends on it.
  if not isolate_documents:
    positions_BxL = jnp.cumsum(real_BxL, axis=1) + first_position - 1
    return real_BxL.astype(jnp.int32), jnp.where(real_BxL, positions_BxL, of_pads).astype(jnp.int32)
  starts_BxL = ids_BxL == BOS
  index_L = jnp.arange(ids_BxL.shape[1], dtype=jnp.int32)
  last_start_BxL = jax.lax.cummax(jnp.where(starts_BxL, index_L, 0), axis=1)
  segments_BxL = jnp.where(real_BxL, jnp.maximum(jnp.cumsum(starts_BxL, axis=1), 1), 0)
  positions_BxL = jnp.where(real_BxL, index_L - last_start_BxL + first_position, of_pads)
  return segments_BxL.astype(jnp.int32), positions_BxL.astype(jnp.int32)


# --- a layer -------------------------------------------------------------------------------------------------------


class LayerShape(NamedTuple):
  """The sizes of a layer, the rates of its dropouts, and what its values begin and are divided with."""

  heads: int
  ffn: int
  dropout: float
  attention_dropout: float
  dropout_bits: str
  init_std: float
  epsilon: float  # of its norms


class _Layer(nn.Module):
  """What both kinds of layer share: their products, and their three dropouts."""

  shape: LayerShape
  ops: Ops
  dtype: Dtype

  def drops(self, rows_B: Array, length: int, deterministic: bool) -> tuple[Drop, Drop, Drop]:
    """Dropout of the attention probabilities, after the attention, and after the feed-forward block."""
    keys = [None] * 3 if deterministic else list(jax.random.split(self.make_rng("dropout"), 3))
    index_BxL, shape = token_index(rows_B, length), self.shape
    after_attention, after_ffn = (Drop(shape.dropout, key, index_BxL, shape.dropout_bits) for key in keys[1:])
    return Drop(shape.attention_dropout, keys[0], rows_B), after_attention, after_ffn

  def product(self, features: tuple[int, ...], name: str, **options) -> Product:
    return Product(features, self.shape.init_std, dtype=self.dtype, name=name, **options)

  def attend(self, x_BxLxD: Array, segments_BxL: Array, drop: Drop) -> tuple[Array, Array]:
    """Attention and its output product: (y [B, L, D], its bias)."""
    heads, D = self.shape.heads, x_BxLxD.shape[-1]
    width = D // heads
    qkv, bias = self.product((3, heads, width), "qkv", arrange=self.ops.arrange_qkv)(x_BxLxD)
    with jax.named_scope("attention"):
      y_BxLxD = self.ops.attention(qkv, bias, segments_BxL, heads, drop)
    y_BxLxD = checkpoint_name(y_BxLxD, "context")
    return self.product((D,), "attention_out", axes=2)(y_BxLxD.reshape(*y_BxLxD.shape[:2], heads, width))

  def feed_forward(self, x_BxLxD: Array) -> tuple[Array, Array]:
    """The feed-forward block: (y [B, L, D], its bias)."""
    y_BxLxF, bias_F = self.product((self.shape.ffn,), "ffn_in")(x_BxLxD)
    return self.product((x_BxLxD.shape[-1],), "ffn_out")(self.ops.bias_gelu(y_BxLxF, bias_F))


class PostNormLayer(_Layer):
  """XLM-R's layer: a norm behind each sub-layer."""

  @nn.compact
  def __call__(self, x_BxLxD: Array, segments_BxL: Array, rows_B: Array, deterministic: bool) -> Array:
    in_attention, after_attention, after_ffn = self.drops(rows_B, x_BxLxD.shape[1], deterministic)
    attention_norm = AddNorm(self.ops.add_norm, self.shape.epsilon, name="attention_norm")
    _, x_BxLxD = attention_norm(x_BxLxD, *self.attend(x_BxLxD, segments_BxL, in_attention), after_attention)
    ffn_norm = AddNorm(self.ops.add_norm, self.shape.epsilon, name="ffn_norm")
    return ffn_norm(x_BxLxD, *self.feed_forward(x_BxLxD), after_ffn)[1]


class PreNormLayer(_Layer):
  """The layer of XLM-R XL and XXL (Goyal et al. 2021): a norm in front of each sub-layer."""

  @nn.compact
  def __call__(self, x_BxLxD: Array, segments_BxL: Array, rows_B: Array, deterministic: bool) -> Array:
    in_attention, after_attention, after_ffn = self.drops(rows_B, x_BxLxD.shape[1], deterministic)
    normed_BxLxD = LayerNorm(self.shape.epsilon, name="attention_norm")(x_BxLxD)
    y_BxLxD, bias_D = self.attend(normed_BxLxD, segments_BxL, in_attention)
    ffn_norm = AddNorm(self.ops.add_norm, self.shape.epsilon, name="ffn_norm")
    x_BxLxD, normed_BxLxD = ffn_norm(x_BxLxD, y_BxLxD, bias_D, after_attention, keep_sum=True)
    y_BxLxD, bias_D = self.feed_forward(normed_BxLxD)
    return checkpoint_name(x_BxLxD + dropout(add_bias(y_BxLxD, bias_D), after_ffn), "sum")


# --- the encoder ---------------------------------------------------------------------------------------------------


class XLMREncoder(nn.Module):
  """ids to hidden states; its parameters are a plain nested dict."""

  vocabulary_size: int  # real entries; the table has padded_vocabulary() rows when pad_vocabulary
  layers: int
  hidden: int
  heads: int
  ffn: int
  max_positions: int = 514
  dropout: float = 0.1
  attention_dropout: float = 0.1
  dropout_bits: str = "hash"  # hash | rbg: see dropout.py
  isolate_documents: bool = False
  pre_norm: bool = False  # True: PreNormLayer, and one norm behind the last layer
  init_std: float = 0.02  # of every kernel and embedding
  layer_norm_epsilon: float = EPSILON
  dtype: Dtype = jnp.bfloat16
  remat: str = "none"
  unroll_layers: bool = False
  pad_vocabulary: bool = True
  ops: Ops = PLAIN_OPS

  first_position: ClassVar[int] = FIRST_POSITION  # the row of the position table for a text's first token
  takes_languages: ClassVar[bool] = False  # whether encode() reads the languages of its rows

  @property
  def table_rows(self) -> int:
    """Rows of the token embedding, padding included."""
    return padded_vocabulary(self.vocabulary_size) if self.pad_vocabulary else self.vocabulary_size

  @property
  def max_seq_len(self) -> int:
    """The longest row in tokens."""
    return self.max_positions - self.first_position

  def setup(self):
    init = nn.initializers.normal(self.init_std)

    # fairseq zeroes the padding row of both tables; rows past the real vocabulary never win or learn (losses.py).
    def init_tokens(key: Array) -> Array:
      table_VxD = init(key, (self.table_rows, self.hidden), jnp.float32)
      return table_VxD.at[PAD].set(0.0).at[self.vocabulary_size :].set(0.0)

    def init_positions(key: Array) -> Array:
      table_LxD = init(key, (self.max_positions, self.hidden), jnp.float32)
      return table_LxD.at[PAD].set(0.0) if self.first_position > PAD else table_LxD

    self.token_embedding = self.param("token_embedding", init_tokens)
    self.position_embedding = self.param("position_embedding", init_positions)
    if not self.pre_norm:
      self.embedding_norm = LayerNorm(self.layer_norm_epsilon)
    layer_class = PreNormLayer if self.pre_norm else PostNormLayer
    if self.remat != "none":
      policy = REMAT_POLICIES[self.remat]
      layer_class = nn.remat(layer_class, policy=policy, prevent_cse=False, static_argnums=(4,))
    self.encoder = nn.scan(
      lambda module, x, segments, rows, deterministic: (module(x, segments, rows, deterministic), None),
      variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
      in_axes=(nn.broadcast,) * 3,  # pyright: ignore[reportArgumentType]  Its annotation forgets the tuples that it takes.
      # Without a loop, XLA would find the recomputation equal to the forward pass and keep that in memory after all.
      length=self.layers, unroll=self.layers if self.unroll_layers and self.remat == "none" else 1,
    )  # fmt: skip
    shape = LayerShape(
      self.heads, self.ffn, self.dropout, self.attention_dropout, self.dropout_bits, self.init_std, self.layer_norm_epsilon
    )
    self.layer = layer_class(shape, self.ops, self.dtype)
    if self.pre_norm:
      self.final_norm = LayerNorm(self.layer_norm_epsilon)

  def segments_and_positions(self, ids_BxL: Array, languages_Bx2: Array | None) -> tuple[Array, Array]:
    """(segment ids, position ids), int32[B, L] each, as the function of this name has them."""
    del languages_Bx2
    return segments_and_positions(ids_BxL, self.isolate_documents, self.first_position)

  def add_to_embedding(self, x_BxLxD: Array, ids_BxL: Array, languages_Bx2: Array | None) -> Array:
    """What another kind of encoder adds to the sum of token and position before its norm, fp32 [B, L, D]; here nothing."""
    del ids_BxL, languages_Bx2
    return x_BxLxD

  def encode(
    self, ids_BxL: Array, deterministic: bool = True, tokens_BxLxD: Array | None = None, rows_B: Array | None = None,
    languages_Bx2: Array | None = None,
  ) -> Array:  # fmt: skip
    """Last hidden states [B, L, D] of ids int32[B, L]. Needs a "dropout" key unless deterministic.

    tokens: rows of the token embedding at ids, fp32, for a caller that needs the gradient with respect to them.
    rows: uint32[B], the number of each row in the global batch, for dropout; 0, 1, ... if not given.
    languages: int32[B, 2], of the first and the second text of each row's documents, for an encoder that takes_languages;
    others do not look at it.
    """
    rows_B = jnp.arange(ids_BxL.shape[0], dtype=jnp.uint32) if rows_B is None else rows_B
    with jax.named_scope("embedding"):
      segments_BxL, positions_BxL = self.segments_and_positions(ids_BxL, languages_Bx2)
      # Both tables stay fp32 on every mesh, so that the tables' sparse gradients are summed in fp32.
      x_BxLxD = self.token_embedding[ids_BxL] if tokens_BxLxD is None else tokens_BxLxD
      x_BxLxD = self.add_to_embedding(x_BxLxD + self.position_embedding[positions_BxL], ids_BxL, languages_Bx2)
      x_BxLxD = (x_BxLxD if self.pre_norm else self.embedding_norm(x_BxLxD)).astype(self.dtype)
      key = None if deterministic else self.make_rng("dropout")
      drop = Drop(self.dropout, key, token_index(rows_B, ids_BxL.shape[1]), self.dropout_bits)
      x_BxLxD = dropout(x_BxLxD, drop)
    x_BxLxD, _ = self.encoder(self.layer, x_BxLxD, segments_BxL, rows_B, deterministic)
    return self.final_norm(x_BxLxD) if self.pre_norm else x_BxLxD
