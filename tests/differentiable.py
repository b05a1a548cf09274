"""The masked-language-model loss as one differentiable function, for tests that take gradients by jax.grad."""

import functools

import jax
import jax.numpy as jnp

from xlmr_jax.training import losses


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def mlm_loss(h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP, vocabulary_size, chunk_bytes=losses.CHUNK_BYTES):
  """The weighted sum of losses.nll(), whose gradients in h, table and bias are those of losses.nll_gradients()."""
  slots = h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP
  return (losses.nll(*slots, vocabulary_size=vocabulary_size, chunk_bytes=chunk_bytes) * weights_BxP).sum()


def _forward(h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP, vocabulary_size, chunk_bytes):
  losses_BxP, *gradients = losses.nll_gradients(
    h_BxPxD, table_VxD, bias_V, labels_BxP, weights_BxP, onto=(jnp.zeros_like(table_VxD), jnp.zeros_like(bias_V)),
    vocabulary_size=vocabulary_size, chunk_bytes=chunk_bytes,
  )  # fmt: skip
  return (losses_BxP * weights_BxP).sum(), gradients


def _backward(vocabulary_size, chunk_bytes, gradients, d_loss):
  return *((d_loss * x).astype(x.dtype) for x in gradients), None, None


mlm_loss.defvjp(_forward, _backward)
