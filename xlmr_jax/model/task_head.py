"""What a downstream task puts on an encoder: one small head per kind of prediction. Letters as in xlmr.py; C classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from xlmr_jax.model.dropout import Drop, dropout, token_index
from xlmr_jax.model.layers import Product, add_bias

# Heads, by the shape of what they predict: one label (or number) per text, one label per word, one span of the context.
SENTENCE, WORDS, SPAN = "sentence", "words", "span"


class TaskHead(nn.Module):
  """A head as transformers' XLM-R has it: params {"dense", "out"} or {"out"}.

  sentence: dropout, dense, tanh, dropout, projection of <s>; words: dropout and projection of every token; span: the
  projection alone. BERT's pooler and head are the same without the first dropout.
  """

  kind: str
  outputs: int  # classes; 1: a number; 2 for a span: its start and its end
  dropout: float
  init_std: float = 0.02
  pooled: bool = False  # BERT's: nothing is dropped in front of the dense layer, which is the pooler

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, deterministic: bool = True, rows_B: jax.Array | None = None) -> jax.Array:
    """Logits fp32 [B, C] of a sentence head, [B, L, C] of the others. rows: uint32, numbers in the global batch."""
    keys = [None, None] if deterministic else jax.random.split(self.make_rng("dropout"))
    x = x_BxLxD.astype(jnp.float32)
    rows_B = jnp.arange(x.shape[0], dtype=jnp.uint32) if rows_B is None else rows_B
    index = token_index(rows_B, x.shape[1])
    if self.kind == SENTENCE:
      x, index = x[:, 0], index[:, 0]
      x = x if self.pooled else dropout(x, Drop(self.dropout, keys[1], index))
      x = jnp.tanh(add_bias(*Product((x.shape[-1],), self.init_std, name="dense")(x)))
    if self.kind != SPAN:
      x = dropout(x, Drop(self.dropout, keys[0], index))
    return add_bias(*Product((self.outputs,), self.init_std, name="out")(x))
