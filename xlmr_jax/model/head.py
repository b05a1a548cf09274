"""The masked-language-model head: the transform before the vocabulary product, and what the product takes from params.

The head's bias and the token table that it is tied to are read by losses.py as (h, table, bias); letters as in xlmr.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from xlmr_jax.model.layers import Dtype, LayerNorm, Product, bias_gelu, precision_of

Array = jax.Array
TABLE, BIAS = "token_embedding", "head_bias"  # the parameters whose gradients the loss makes itself
DENSE, LINEAR = "dense", "linear"  # what stands before the vocabulary product: XLM-R's and BERT's layers, or XLM's nothing
SHARDING = (  # path                      spec               shape
  (r"head_dense/kernel$",                 P("fsdp", None)),  # [D, D]
  (r"head_bias$",                         P("fsdp")),        # [V]
  (r"head_(dense|norm)/(scale|bias)$",    P()),              # [D]
)  # fmt: skip


class MlmHead(nn.Module):
  """Dense, GELU, LayerNorm; and the bias of the vocabulary product, which is a parameter here and added in the loss.

  Of the kind LINEAR there is nothing but that bias.
  """

  hidden: int
  table_rows: int
  init_std: float
  epsilon: float  # of its norm
  dtype: Dtype
  kind: str = DENSE

  def setup(self):
    if self.kind == DENSE:
      self.head_dense = Product((self.hidden,), self.init_std, dtype=self.dtype)
      self.head_norm = LayerNorm(self.epsilon)
    self.head_bias = self.param(BIAS, nn.initializers.zeros, (self.table_rows,), jnp.float32)

  def transform(self, x: Array) -> Array:
    """[..., D] to [..., D]: what the vocabulary product takes."""
    if self.kind == LINEAR:
      return x
    return self.head_norm(bias_gelu(*self.head_dense(x)))


def gather_slots(x_BxLxD: Array, positions_BxP: Array) -> Array:
  """x at the masked slots, [B, P, D].

  A vmapped gather, because take_along_axis is not partitioned over B (71 GiB on v5e-16).
  """
  return jax.vmap(lambda x_LxD, positions_P: x_LxD[positions_P])(x_BxLxD, positions_BxP)


class MaskedLanguageModel(nn.Module):
  """An encoder and the head, in one flat dict of parameters."""

  encoder: Any  # the module of an encoder, e.g. XLMREncoder
  head_kind: str = DENSE

  def setup(self):
    # One scope: the paths of the parameters do not tell which of the two modules owns them.
    nn.share_scope(self, self.encoder)
    encoder = self.encoder
    self.head = MlmHead(
      encoder.hidden, encoder.table_rows, encoder.init_std, encoder.layer_norm_epsilon, encoder.dtype, self.head_kind
    )
    nn.share_scope(self, self.head)

  def encode(self, ids_BxL: Array, deterministic: bool = True, tokens_BxLxD=None, rows_B=None, languages_Bx2=None) -> Array:
    """The encoder's last hidden states [B, L, D]; see its own encode()."""
    return self.encoder.encode(ids_BxL, deterministic, tokens_BxLxD, rows_B, languages_Bx2)

  def transform(self, x: Array) -> Array:
    """The head before the vocabulary product, [..., D] to [..., D]."""
    return self.head.transform(x)

  def __call__(
    self, ids_BxL: Array, positions_BxP: Array, deterministic: bool = True, tokens_BxLxD=None, rows_B=None,
    languages_Bx2=None,
  ) -> Array:  # fmt: skip
    """Head vectors [B, P, D] of the masked slots only: what the loss multiplies with the table."""
    x_BxLxD = self.encode(ids_BxL, deterministic, tokens_BxLxD, rows_B, languages_Bx2)
    return self.transform(gather_slots(x_BxLxD, positions_BxP))

  def logits(self, ids_BxL: Array, languages_Bx2: Array | None = None) -> Array:
    """fp32 logits [B, L, vocabulary_size] at every position; for parity tests and small inputs."""
    x_BxLxD, encoder = self.encode(ids_BxL, languages_Bx2=languages_Bx2), self.encoder
    h_BxLxD = self.transform(x_BxLxD)
    table_VxD = encoder.token_embedding[: encoder.vocabulary_size].astype(encoder.dtype)
    precision = precision_of(table_VxD.dtype)
    scores = jnp.einsum("BLD,VD->BLV", h_BxLxD, table_VxD, precision=precision, preferred_element_type=jnp.float32)
    return scores + self.head.head_bias[: encoder.vocabulary_size]
