"""XLM's encoder (Conneau and Lample 2019), as transformers' XLMModel computes it.

It is XLM-R's but for two things: positions begin at 0, and each token has a language, whose row of a table is added to it.
In a row of two languages, `<s> a </s></s> b </s>`, the second text has the second language and positions of its own. Letters
as in xlmr.py, and G languages of the table.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from xlmr_jax.ids import BOS, PAD
from xlmr_jax.model import xlmr
from xlmr_jax.model.bert import token_types
from xlmr_jax.model.xlmr import XLMREncoder, segments_and_positions

Array = jax.Array
SHARDING = (*xlmr.SHARDING, (r"language_embedding$", P(None, "fsdp")))  # [G, D]


def is_in_second_text(ids_BxL: Array) -> Array:
  """Whether a token stands behind the first </s> of its document, bool[B, L]: the second </s> of `</s></s>` is the first."""
  return token_types(ids_BxL) > 0


def positions_of_pairs(ids_BxL: Array) -> Array:
  """Positions that begin at 0 with each text, int32[B, L]: at every `<s>`, and with the second text of each pair."""
  is_second_BxL = is_in_second_text(ids_BxL)
  begins_second_BxL = is_second_BxL & ~jnp.pad(is_second_BxL, ((0, 0), (1, 0)))[:, :-1]
  index_L = jnp.arange(ids_BxL.shape[1], dtype=jnp.int32)
  begins_BxL = (ids_BxL == BOS) | begins_second_BxL
  last_begin_BxL = jax.lax.cummax(jnp.where(begins_BxL, index_L, 0), axis=1)
  return jnp.where(ids_BxL == PAD, 0, index_L - last_begin_BxL)


class XLMEncoder(XLMREncoder):
  """ids to hidden states; with language embeddings one parameter more than XLM-R's, "language_embedding" [G, D]."""

  languages: int = 0  # rows of the table of language embeddings; 0: there is none

  first_position: ClassVar[int] = 0
  takes_languages: ClassVar[bool] = True

  def setup(self):
    super().setup()
    if self.languages:
      init = nn.initializers.normal(self.init_std)
      self.language_embedding = self.param("language_embedding", init, (self.languages, self.hidden), jnp.float32)

  def segments_and_positions(self, ids_BxL: Array, languages_Bx2: Array | None) -> tuple[Array, Array]:
    """As of the base. The pairs of a row of two languages never see each other."""
    segments_BxL, positions_BxL = super().segments_and_positions(ids_BxL, languages_Bx2)
    if languages_Bx2 is None:
      return segments_BxL, positions_BxL
    is_pair_Bx1 = (languages_Bx2[:, 0] != languages_Bx2[:, 1])[:, None]
    apart_BxL = segments_and_positions(ids_BxL, True, self.first_position)[0]
    return (
      jnp.where(is_pair_Bx1, apart_BxL, segments_BxL),
      jnp.where(is_pair_Bx1, positions_of_pairs(ids_BxL), positions_BxL),
    )

  def add_to_embedding(self, x_BxLxD: Array, ids_BxL: Array, languages_Bx2: Array | None) -> Array:
    """Adds the rows of the languages."""
    if not self.languages:
      return x_BxLxD
    if languages_Bx2 is None:
      raise ValueError("a model with language embeddings needs the languages of its rows")
    # Two rows of the table per row of ids are looked up, and not one per token, so that few of their gradients collide.
    of_sides_Bx2xD = self.language_embedding[languages_Bx2]
    is_second_BxLx1 = is_in_second_text(ids_BxL)[..., None]
    return x_BxLxD + jnp.where(is_second_BxLx1, of_sides_Bx2xD[:, 1:], of_sides_Bx2xD[:, :1])
