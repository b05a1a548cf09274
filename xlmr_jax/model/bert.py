"""BERT's encoder (Devlin et al. 2019), as transformers' BertModel computes it, multilingual BERT's included.

It is XLM-R's but for two things: positions begin at 0, and each token has a type, whose row of a table is added to it. The
type tells the two texts of a pair apart. Letters as in xlmr.py, and T token types.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from xlmr_jax.ids import BOS, EOS, PAD
from xlmr_jax.model import xlmr
from xlmr_jax.model.xlmr import XLMREncoder

Array = jax.Array
SHARDING = (*xlmr.SHARDING, (r"type_embedding$", P(None, "fsdp")))  # [T, D]


def token_types(ids_BxL: Array) -> Array:
  """The type of each token, int32[B, L]: 1 from behind the first [SEP] of its document on, else 0; pads are 0.

  Of `[CLS] a [SEP] b [SEP]` the second text and its [SEP] are 1. Every [CLS] opens a document, so that a row of several
  documents is 0 throughout. Masking touches neither [CLS] nor [SEP], so that types can be read off the masked ids.
  """
  is_end_BxL = ids_BxL == EOS
  ends_before_BxL = jnp.cumsum(is_end_BxL, axis=1) - is_end_BxL
  ends_before_document_BxL = jax.lax.cummax(jnp.where(ids_BxL == BOS, ends_before_BxL, 0), axis=1)
  is_second_BxL = (ends_before_BxL > ends_before_document_BxL) & (ids_BxL != PAD)
  return is_second_BxL.astype(jnp.int32)


class BertEncoder(XLMREncoder):
  """ids to hidden states; one parameter more than XLM-R's, "type_embedding" [T, D]."""

  token_types: int = 2  # rows of the table
  pair_types: bool = True  # False: every token is of type 0, as with a vocabulary that marks pairs otherwise

  first_position: ClassVar[int] = 0

  def setup(self):
    super().setup()
    init = nn.initializers.normal(self.init_std)
    self.type_embedding = self.param("type_embedding", init, (self.token_types, self.hidden), jnp.float32)

  def add_to_embedding(self, x_BxLxD: Array, ids_BxL: Array, languages_Bx2: Array | None) -> Array:
    """Adds the rows of the token types."""
    del languages_Bx2
    if not self.pair_types:
      return x_BxLxD + self.type_embedding[0]
    return x_BxLxD + self.type_embedding[token_types(ids_BxL)]
