"""The chunked loss against a plain fp32 log-softmax, at XLM-R's vocabulary, and the memory it takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.differentiable import mlm_loss
from xlmr_jax.training import losses

V, REAL = 250_112, 250_002


def plain_loss(h, table, bias, labels, weights, real):
  logits = jnp.einsum("bpd,vd->bpv", h, table, precision="highest") + bias
  logits = jnp.where(jnp.arange(logits.shape[-1]) < real, logits, -jnp.inf)
  picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
  return -(picked * weights).sum()


def inputs(shape, vocabulary, real, width, seed=0):
  rng = np.random.default_rng(seed)
  B, P = shape

  def f(*shape):
    return jnp.asarray(rng.normal(0, 1, shape), jnp.float32)

  weights = jnp.asarray(rng.random((B, P)) > 0.2, jnp.float32) * 0.5
  return f(B, P, width), f(vocabulary, width), f(vocabulary), jnp.asarray(rng.integers(4, real, (B, P))), weights


@pytest.mark.parametrize(
  "shape, vocabulary, real, chunk_bytes",
  [
    ((2, 24), V, REAL, losses.CHUNK_BYTES),  # one chunk
    ((2, 24), V, REAL, 4 * V * 16),  # three
    ((3, 7), 256, 200, 4 * 256 * 8),  # slots that the chunks do not divide
  ],
)
def test_equals_plain_log_softmax(shape, vocabulary, real, chunk_bytes):
  h, table, bias, labels, weights = inputs(shape, vocabulary, real, 16)

  def chunked(h, table, bias):
    return mlm_loss(h, table, bias, labels, weights, real, chunk_bytes)

  expected, expected_grads = jax.value_and_grad(lambda *x: plain_loss(*x, labels, weights, real), (0, 1, 2))(h, table, bias)
  found, found_grads = jax.jit(jax.value_and_grad(chunked, (0, 1, 2)))(h, table, bias)
  assert abs(found / expected - 1) < 1e-5
  for e, f in zip(expected_grads, found_grads):
    assert jnp.linalg.norm(f - e) / jnp.linalg.norm(e) < 1e-5
  assert not np.any(found_grads[1][real:]) and not np.any(found_grads[2][real:])  # padding rows learn nothing
  without_gradient = jax.jit(chunked)(h, table, bias)
  assert abs(without_gradient / expected - 1) < 1e-5


def test_logits_far_above_the_labels():
  """Sums of exponentials relative to the label's logit overflow in some slots; these are summed again."""
  h, table, bias, labels, weights = inputs((2, 24), 4096, 4000, 16)
  h = h.at[0].multiply(40.0)
  logits = jnp.einsum("bpd,vd->bpv", h, table) + bias
  assert (logits.max(-1) - jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]).max() > 100
  expected, expected_grads = jax.value_and_grad(lambda *x: plain_loss(*x, labels, weights, 4000), (0, 1, 2))(h, table, bias)
  found, found_grads = jax.jit(jax.value_and_grad(lambda *x: mlm_loss(*x, labels, weights, 4000, 4 * 48 * 512), (0, 1, 2)))(
    h, table, bias
  )
  assert abs(found / expected - 1) < 1e-5
  for e, f in zip(expected_grads, found_grads):
    assert jnp.linalg.norm(f - e) / jnp.linalg.norm(e) < 5e-5  # logits of 200, in fp32


def test_what_is_not_finite_stays_so():
  h, table, bias, labels, weights = inputs((2, 24), 4096, 4000, 16)
  for bad in (jnp.nan, jnp.inf):
    assert not jnp.isfinite(mlm_loss(h.at[1, 2, 3].set(bad), table, bias, labels, weights + 1, 4000, 4 * 48 * 512))


def test_bf16_accumulates_in_fp32():
  """From bf16 vectors, the loss and the table's gradient are as exact as fp32 products of the same vectors."""
  h, table, bias, labels, weights = inputs((4, 64), 4096, 4000, 64)
  h, table = (x.astype(jnp.bfloat16).astype(jnp.float32) for x in (h, table))

  def loss(h, table):
    return mlm_loss(h, table, bias, labels, weights, 4000)

  expected, d_expected = jax.value_and_grad(loss, 1)(h, table)
  found, d_found = jax.value_and_grad(loss, 1)(h.astype(jnp.bfloat16), table)
  assert d_found.dtype == jnp.float32
  assert abs(found / expected - 1) < 1e-5
  assert jnp.linalg.norm(d_found - d_expected) / jnp.linalg.norm(d_expected) < 4e-3  # d_logits are rounded to bf16


@pytest.mark.parametrize("slots", [2560, 16384])  # 16k tokens in rows of 512: their 80 slots each; every position
def test_extra_memory_is_bounded(slots):
  """Compiled for 16k tokens at V = 250,112: temporaries under 1 GB, whatever the slots; plain logits take 16.4 GB."""
  D, P = 64, 80 if slots % 80 == 0 else 64
  B = slots // P

  def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)

  step = jax.jit(jax.value_and_grad(lambda h, t, b, y, w: mlm_loss(h, t, b, y, w, REAL), (0, 1, 2)))
  arguments = shape(B, P, D, dtype=jnp.bfloat16), shape(V, D), shape(V), shape(B, P, dtype=jnp.int32), shape(B, P)
  memory = step.lower(*arguments).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 2**30, memory.temp_size_in_bytes / 2**30


@pytest.mark.parametrize("chunk_bytes", [losses.CHUNK_BYTES, 4 * 21 * 128])
def test_gradients_are_added_onto_what_is_there(chunk_bytes):
  """A micro-batch's gradients in table and bias go on top of those of the micro-batches before it."""
  *slots, weights = inputs((3, 7), 256, 200, 16)
  before = jnp.ones((256, 16)), jnp.full(256, 2.0)
  zeros = jax.tree.map(jnp.zeros_like, before)
  run = functools.partial(losses.nll_gradients, *slots, weights, vocabulary_size=200, chunk_bytes=chunk_bytes)
  alone, added = run(onto=zeros), run(onto=before)
  for x, y, start in zip(alone, added, (0.0, 0.0, *before)):
    np.testing.assert_allclose(x + start, y, atol=1e-5)


def test_sums_by_language():
  values, weights = np.arange(6.0).reshape(3, 2), np.array([[1, 0], [1, 1], [1, 1]], np.float32)
  sums, counts = losses.sums_by_language(values, weights, np.array([2, 0, 2]), 4)
  assert sums.tolist() == [5.0, 0.0, 9.0, 0.0] and counts.tolist() == [2.0, 0.0, 3.0, 0.0]
