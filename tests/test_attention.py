"""Kernels of attention.py and fused.py, interpreted, against the plain forms: values, gradients, dropout, whole steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_jax.model import attention, dropout, fused
from xlmr_jax.model.xlmr import XLMR
from xlmr_jax.training import optimizer
from xlmr_jax.training.step import begin_with, make_gradients, make_train_step


@pytest.fixture(autouse=True)
def exact():
  with jax.default_matmul_precision("highest"):
    yield


def projection(B, L, H, K, seed=0):
  rng = np.random.default_rng(seed)
  G = H // attention.heads_of_group(H, K)
  qkv = jnp.asarray(rng.normal(size=(B, L, G, 3, H // G * K)), jnp.float32)
  segments = jnp.asarray(np.sort(rng.integers(0, 3, (B, L)), axis=1)[:, ::-1], jnp.int32)  # pads last
  return qkv, segments, jnp.asarray(rng.normal(size=(B, L, H * K)), jnp.float32)


@pytest.mark.parametrize("kernel, rate", [("pallas", 0.1), ("splash", 0.0)])
@pytest.mark.parametrize("B, L, H, K", [(2, 128, 4, 64), (3, 256, 2, 128), (2, 128, 8, 80), (1, 384, 2, 32)])
def test_attention_equals_the_plain_form(kernel, rate, B, L, H, K):
  qkv, segments, weights = projection(B, L, H, K)

  @functools.partial(jax.jit, static_argnums=1)
  def run(qkv, kernel):
    out = attention.attend(qkv, segments, heads=H, rate=rate, key=jax.random.key(3), kernel=kernel, interpret=True)
    return (out * weights).sum(), out

  (_, out), gradient = jax.value_and_grad(run, has_aux=True)(qkv, kernel)
  (_, expected), expected_gradient = jax.value_and_grad(run, has_aux=True)(qkv, "xla")
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["xla", "pallas", "splash"])
def test_attention_stays_inside_a_segment(kernel):
  """A token of another segment is changed: nothing moves but its own segment."""
  qkv, _, _ = projection(1, 128, 2, 64)
  segments = jnp.asarray([[1] * 50 + [2] * 60 + [0] * 18], jnp.int32)
  run = lambda x: np.asarray(attention.attend(x, segments, heads=2, kernel=kernel, interpret=True))  # noqa: E731
  moved = np.abs(run(qkv.at[0, 70].add(1.0)) - run(qkv)).max(axis=-1)[0]
  assert (moved[:50] == 0).all() and (moved[110:] == 0).all() and (moved[50:110] > 0).all()


def test_dropped_probabilities_do_not_depend_on_the_other_rows():
  """Law 2: rows 2 and 3 of a batch alone, by their numbers, as among the others."""
  qkv, segments, _ = projection(4, 128, 2, 64)
  run = lambda rows: np.asarray(
    attention.attend(  # noqa: E731
      qkv[rows], segments[rows], heads=2, rate=0.3, key=jax.random.key(0), rows_B=jnp.asarray(rows, jnp.uint32)
    )
  )
  np.testing.assert_array_equal(run(np.array([2, 3])), run(np.arange(4))[2:])


@pytest.mark.parametrize(
  "named, match",
  [
    (dict(name="flash"), "one of auto, xla"),
    (dict(name="splash", rate=0.1), "no dropout on probabilities"),
    (dict(name="pallas", seq_len=100), "multiples of 128"),
    (dict(name="pallas", seq_len=2048), "up to 1024"),
    (dict(name="cudnn"), "runs on GPUs, not on tpu"),
  ],
)
def test_what_a_kernel_cannot_do_is_refused(named, match):
  with pytest.raises(ValueError, match=match):
    attention.choose(**dict(platform="tpu", seq_len=512, width=64, rate=0.0) | named)


@pytest.mark.parametrize(
  "platform, seq_len, rate, chosen",
  [
    ("tpu", 512, 0.1, "pallas"),
    ("tpu", 2048, 0.0, "splash"),
    ("tpu", 2048, 0.1, "xla"),
    ("tpu", 500, 0.0, "xla"),
    ("gpu", 512, 0.0, "cudnn"),
    ("gpu", 512, 0.1, "xla"),
    ("cpu", 512, 0.0, "xla"),
  ],
)
def test_what_auto_stands_for(platform, seq_len, rate, chosen):
  assert attention.choose("auto", platform=platform, seq_len=seq_len, width=64, rate=rate) == chosen


# --- dropout -------------------------------------------------------------------------------------------------------


def test_dropout_keeps_its_rate_in_rows_columns_and_keys():
  places = jnp.arange(512, dtype=jnp.uint32)
  of_key = lambda i: dropout.dropout(jnp.ones((512, 384)), 0.1, jax.random.key(i), places)  # noqa: E731
  masks = np.stack([np.asarray(of_key(i)) == 0 for i in range(8)])
  spread = np.sqrt(0.1 * 0.9)
  assert abs(masks.mean() - 0.1) < 4 * spread / np.sqrt(masks.size)
  assert np.abs(masks.mean(axis=(0, 2)) - 0.1).max() < 5 * spread / np.sqrt(8 * 384)  # of a place
  assert np.abs(masks.mean(axis=(0, 1)) - 0.1).max() < 5 * spread / np.sqrt(8 * 512)  # of a column
  centred = masks - 0.1
  for other in (
    np.roll(centred, 1, axis=0),
    np.roll(centred, 1, axis=1),
    np.roll(centred, 1, axis=2),
    np.roll(centred, 128, axis=1),
    np.roll(centred, 64, axis=2),
  ):
    assert abs((centred * other).mean()) < 5 * 0.09 / np.sqrt(masks.size)  # pairs are independent


def test_masks_of_two_keys_are_no_shifts_of_each_other():
  words = [dropout.words_of(jax.random.key(i)) for i in range(2)]
  a, b = (np.asarray(dropout.hash_bits(w, jnp.arange(64, dtype=jnp.uint32), 64)) for w in words)
  assert len(np.intersect1d(a, b)) < 5  # of 4,096 words out of 2^32


def test_dropout_follows_the_place_not_the_position():
  x = jnp.ones((6, 128))
  run = (
    lambda places: np.asarray(
      dropout.dropout(  # noqa: E731
        x[: len(places)], 0.5, jax.random.key(1), jnp.asarray(places, jnp.uint32)
      )
    )
  )
  np.testing.assert_array_equal(run([4, 5]), run([0, 1, 2, 3, 4, 5])[4:])


# --- what lies between the products --------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_residual_norm_equals_the_plain_form(rate):
  rng = np.random.default_rng(0)
  x, y, weights = (jnp.asarray(rng.normal(size=(2, 128, 256)), jnp.float32) for _ in range(3))
  bias_of_y, scale, bias = (jnp.asarray(rng.normal(size=256), jnp.float32) for _ in range(3))
  key, places = jax.random.key(1), jnp.arange(256, dtype=jnp.uint32).reshape(2, 128) + 99

  def plain(x, y, bias_of_y, scale, bias):
    return (fused.layer_norm(x + dropout.dropout(y + bias_of_y, rate, key, places), scale, bias) * weights).sum()

  def kernel(x, y, bias_of_y, scale, bias):
    y = y + jax.lax.stop_gradient(bias_of_y)
    out = fused.residual_norm(x, y, bias_of_y, scale, bias, key, places, rate=rate, interpret=True)[1]
    return (out * weights).sum()

  args = x, y, bias_of_y, scale, bias
  for a, b in zip(jax.grad(kernel, range(5))(*args), jax.grad(plain, range(5))(*args)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_layer_norm_and_gelu_equal_jaxs_own():
  x, weights = (jnp.asarray(np.random.default_rng(i).normal(size=(3, 128, 256)) + i, jnp.float32) for i in range(2))
  scale, bias = jnp.linspace(0.5, 2.0, 256), jnp.linspace(-1.0, 1.0, 256)

  def norm(x, scale, bias):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias

  for ours, theirs, args in (
    (fused.layer_norm, norm, (x, scale, bias)),
    (fused.gelu, functools.partial(jax.nn.gelu, approximate=False), (x,)),
    (
      lambda x, b: fused.gelu(x + jax.lax.stop_gradient(b), b),
      lambda x, b: jax.nn.gelu(x + b, approximate=False),
      (x, bias),
    ),
  ):
    of = lambda f: jax.value_and_grad(lambda *a: (f(*a) * weights).sum(), range(len(args)))(*args)  # noqa: B023, E731
    (a, da), (b, db) = of(ours), of(theirs)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for p, q in zip(da, db):
      np.testing.assert_allclose(p, q, rtol=1e-5, atol=5e-5)


# --- whole steps ---------------------------------------------------------------------------------------------------

FAST = dict(fuse=True, attention="pallas", interpret=True)


def small(**options):
  return XLMR(500, 2, 128, 2, 256, max_positions=130, dtype=jnp.float32, isolate_documents=True, **options)


def some_batch(rows=4, seed=0):
  ids = np.random.default_rng(seed).integers(4, 499, (rows, 128)).astype(np.int32)
  ids[:, [0, 61]], ids[:, [60, 127]], ids[1, 100:] = 0, 2, 1
  positions = np.tile(np.arange(1, 25), (rows, 1)).astype(np.int32)
  weights = np.full(positions.shape, 1 / positions.size, np.float32)
  return {
    "ids": ids,
    "positions": positions,
    "labels": np.take_along_axis(ids, positions, 1),
    "weights": weights,
    "language": np.arange(rows, dtype=np.int32) % 2,
  }


@pytest.fixture(scope="module")
def params():
  batch = some_batch()
  made = small().init(jax.random.key(0), batch["ids"], batch["positions"])["params"]
  return jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), made)


@functools.cache
def gradients(**options):
  model, batch = small(**options), some_batch() | {"row": np.arange(4, dtype=np.uint32) + 7}

  def run(params):
    zeros = jax.tree.map(jnp.zeros_like, params), (jnp.zeros(2),) * 2
    return make_gradients(model, 2)(params, batch, jax.random.key(5), zeros)

  return jax.jit(run)


@pytest.mark.parametrize(
  "options",
  [
    FAST | {"remat": "ffn"},
    *(
      pytest.param(x, marks=pytest.mark.slow)
      for x in (FAST, FAST | {"remat": "full"}, {"remat": "ffn"}, FAST | {"unroll_layers": True})
    ),
  ],
)
def test_a_fast_step_has_the_plain_ones_gradients(params, options):
  """Dropout 0.1 everywhere, two documents a row, pads, in fp32."""
  (expected, sums), (found, found_sums) = gradients()(params), gradients(**options)(params)
  np.testing.assert_allclose(found_sums, sums, rtol=1e-5)
  for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(expected)):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name.endswith("qkv/bias"):
      a, b = a[:, ::2], b[:, ::2]  # a key's bias moves all scores of a query alike: its gradient is rounding only
    assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-5, name


@pytest.mark.slow
def test_200_steps_end_alike(params):
  """Fast and plain paths from the same parameters, on the same batches, with dropout: the same loss within 1e-3."""
  tx = optimizer.adamw(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, decay_pattern=".*", clip_norm=1.0)
  schedule = optimizer.polynomial_schedule(peak_lr=1e-3, warmup_steps=20, train_steps=200)
  losses = {}
  for name, options in {"plain": {}, "fast": FAST}.items():
    state, step = begin_with(tx)(params), jax.jit(make_train_step(small(**options), tx, schedule, seed=0, languages=2))
    losses[name] = []
    for i in range(200):
      state, metrics = step(state, some_batch(8, seed=i % 4) | {"weights": np.ones((8, 24), np.float32)})
      losses[name].append(float(metrics["loss_sum"] / metrics["weight"]))
  assert losses["plain"][-1] < 0.9 * losses["plain"][0]
  assert abs(losses["fast"][-1] - losses["plain"][-1]) < 1e-3, (losses["fast"][-1], losses["plain"][-1])
