"""Kernels of attention.py and fused.py, interpreted, against the plain forms: values, gradients, dropout, whole steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_jax.model import attention, build, dropout, layers
from xlmr_jax.model.dropout import Drop
from xlmr_jax.model.head import MaskedLanguageModel
from xlmr_jax.model.kernels import library, residual_norm, row_attention
from xlmr_jax.model.ops import Wanted, choose_ops
from xlmr_jax.model.xlmr import XLMREncoder
from xlmr_jax.training import optimizer
from xlmr_jax.training.sharding import make_mesh
from xlmr_jax.training.step import Sums, begin_with, make_add_micro_batch, make_train_step


@pytest.fixture(autouse=True)
def exact():
  with jax.default_matmul_precision("highest"):
    yield


def projection(B, L, H, K, seed=0):
  """(a projection [B, L, 3, H, K], its bias, segments, weights of what attention gives)."""
  rng = np.random.default_rng(seed)
  qkv, bias = (
    jnp.asarray(rng.normal(size=(B, L, 3, H, K)), jnp.float32),
    jnp.asarray(rng.normal(size=(3, H, K)), jnp.float32),
  )
  segments = jnp.asarray(np.sort(rng.integers(0, 3, (B, L)), axis=1)[:, ::-1], jnp.int32)  # pads last
  return qkv, bias, segments, jnp.asarray(rng.normal(size=(B, L, H * K)), jnp.float32)


def attend(kernel, qkv, bias, segments, drop=Drop()):  # noqa: B008
  """One of the three implementations, each given the column order that it reads."""
  H, K = qkv.shape[3:]
  groups = H // row_attention.heads_per_group(H, K) if kernel == "pallas" else 1
  operation = {
    "xla": attention.attention,
    "pallas": functools.partial(row_attention.row_attention, groups=groups, interpret=True),
    "splash": functools.partial(library.splash_attention, interpret=True),
  }[kernel]
  flat = attention.by_group(qkv, groups).reshape(*qkv.shape[:2], 3 * H * K)
  return operation(flat, attention.by_group(bias, groups).reshape(-1), segments, H, drop)


@pytest.mark.parametrize(
  "kernel, rate, B, L, H, K",
  [
    ("pallas", 0.1, 2, 128, 4, 64),
    pytest.param("pallas", 0.1, 3, 256, 2, 128, marks=pytest.mark.slow),
    pytest.param("pallas", 0.1, 2, 128, 8, 80, marks=pytest.mark.slow),
    pytest.param("pallas", 0.1, 1, 384, 2, 32, marks=pytest.mark.slow),
    ("splash", 0.0, 2, 128, 4, 64),
    pytest.param("splash", 0.0, 3, 256, 2, 128, marks=pytest.mark.slow),
    pytest.param("splash", 0.0, 2, 128, 8, 80, marks=pytest.mark.slow),
    pytest.param("splash", 0.0, 1, 384, 2, 32, marks=pytest.mark.slow),
  ],
)
def test_attention_equals_the_plain_form(kernel, rate, B, L, H, K):
  """Values, and gradients in the projection and in its bias."""
  qkv, bias, segments, weights = projection(B, L, H, K)
  drop = Drop(rate, jax.random.key(3), jnp.arange(B, dtype=jnp.uint32))

  @functools.partial(jax.jit, static_argnums=2)
  def run(qkv, bias, kernel):
    out = attend(kernel, qkv, bias, segments, drop)
    return (out * weights).sum(), out

  run = jax.value_and_grad(run, (0, 1), has_aux=True)
  (_, out), (d_qkv, d_bias) = run(qkv, bias, kernel)
  (_, expected), (expected_d_qkv, expected_d_bias) = run(qkv, bias, "xla")
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(d_qkv, expected_d_qkv, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(d_bias[::2], expected_d_bias[::2], rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(d_bias[1], 0.0, atol=1e-4)  # A key's bias moves all scores of a query alike.


@pytest.mark.parametrize("kernel", ["xla", "pallas", "splash"])
def test_attention_stays_inside_a_segment(kernel):
  """A token of another segment is changed: nothing moves but its own segment."""
  qkv, bias, _, _ = projection(1, 128, 2, 64)
  segments = jnp.asarray([[1] * 50 + [2] * 60 + [0] * 18], jnp.int32)
  changed, before = (np.asarray(attend(kernel, x, bias, segments)) for x in (qkv.at[0, 70].add(1.0), qkv))
  moved = np.abs(changed - before).max(axis=-1)[0]
  assert (moved[:50] == 0).all() and (moved[110:] == 0).all() and (moved[50:110] > 0).all()


@pytest.mark.parametrize("kernel", ["xla", "pallas"])
def test_dropped_probabilities_do_not_depend_on_the_other_rows(kernel):
  """Law 2: rows 2 and 3 of a batch alone, by their numbers, as among the others."""
  qkv, bias, segments, _ = projection(4, 128, 2, 64)

  def run(rows):
    return np.asarray(attend(kernel, qkv[rows], bias, segments[rows], Drop(0.3, jax.random.key(0), rows.astype(np.uint32))))

  np.testing.assert_array_equal(run(np.array([2, 3])), run(np.arange(4))[2:])


def test_a_kernel_without_dropout_refuses_it():
  qkv, bias, segments, _ = projection(1, 128, 2, 64)
  with pytest.raises(ValueError, match="no dropout of probabilities"):
    attend("splash", qkv, bias, segments, Drop(0.1, jax.random.key(0), jnp.arange(1, dtype=jnp.uint32)))


# --- dropout -------------------------------------------------------------------------------------------------------


def test_dropout_keeps_its_rate_in_rows_columns_and_keys():
  index = jnp.arange(512, dtype=jnp.uint32)
  drops = [Drop(0.1, jax.random.key(i), index) for i in range(8)]
  masks = np.stack([np.asarray(dropout.dropout(jnp.ones((512, 384)), drop)) == 0 for drop in drops])
  spread = np.sqrt(0.1 * 0.9)
  assert abs(masks.mean() - 0.1) < 4 * spread / np.sqrt(masks.size)
  assert np.abs(masks.mean(axis=(0, 2)) - 0.1).max() < 5 * spread / np.sqrt(8 * 384)  # of an index
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
  words = [dropout.key_data(jax.random.key(i)) for i in range(2)]
  a, b = (np.asarray(dropout.hash_bits(w, jnp.arange(64, dtype=jnp.uint32), 64)) for w in words)
  assert len(np.intersect1d(a, b)) < 5  # of 4,096 words out of 2^32


@pytest.mark.parametrize("steps", [1, 5, 100])
def test_rows_whose_hashes_lie_near_each_other_have_masks_of_their_own(steps):
  """Shifted by that many columns, two masks agree as chance has it, 0.9^2 + 0.1^2; without a key per row, wholly."""
  first = jnp.arange(512, dtype=jnp.uint32)[:, None] * jnp.uint32(7_654_321)
  word, columns = jnp.uint32(12345), jnp.arange(384, dtype=jnp.uint32)
  limit = jnp.uint32(dropout.threshold(0.1))
  a, b = (
    np.asarray(dropout.element_bits(h, columns, word) < limit)
    for h in (first, first + jnp.uint32(steps) * jnp.uint32(dropout.GOLDEN))
  )
  assert abs((a[:, steps:] == b[:, :-steps]).mean() - 0.82) < 0.005
  # Nor do single rows agree more than chance lets a few of them.
  assert np.abs((a[:, steps:] == b[:, :-steps]).mean(axis=1) - 0.82).max() < 5.5 * np.sqrt(0.82 * 0.18 / (384 - steps))


def test_dropout_follows_the_index_not_the_position():
  x = jnp.ones((6, 128))

  def run(index):
    return np.asarray(dropout.dropout(x[: len(index)], Drop(0.5, jax.random.key(1), jnp.asarray(index, jnp.uint32))))

  np.testing.assert_array_equal(run([4, 5]), run([0, 1, 2, 3, 4, 5])[4:])


# --- what lies between the products --------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_sum", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_residual_norm_equals_the_plain_form(rate, keep_sum):
  """Sum and norm, and the gradients in all five arguments; with keep_sum, of both outputs together."""
  rng = np.random.default_rng(0)
  x, y, weights, sum_weights = (jnp.asarray(rng.normal(size=(2, 128, 256)), jnp.float32) for _ in range(4))
  bias, scale, shift = (jnp.asarray(rng.normal(size=256), jnp.float32) for _ in range(3))
  drop = Drop(rate, jax.random.key(1), jnp.arange(256, dtype=jnp.uint32).reshape(2, 128) + 99)

  def run(operation, *args):
    total, normed = operation(*args, drop, keep_sum, 0.1 if keep_sum else 1e-5)
    return (normed * weights).sum() + ((total * sum_weights).sum() if keep_sum else 0.0), (total, normed)

  args = x, y, bias, scale, shift
  found, expected = (
    jax.jit(jax.value_and_grad(functools.partial(run, operation), range(5), has_aux=True))(*args)
    for operation in (functools.partial(residual_norm.add_norm, interpret=True), layers.add_norm)
  )
  for a, b in zip(found[0][1] + found[1], expected[0][1] + expected[1]):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-5)


def test_the_norm_kernel_refuses_masks_that_are_not_hashed():
  x = jnp.zeros((1, 128, 128))
  with pytest.raises(ValueError, match="not by rbg"):
    residual_norm.add_norm(x, x, *jnp.ones((3, 128)), Drop(bits="rbg"), interpret=True)


def test_layer_norm_and_gelu_equal_jaxs_own():
  x, weights = (jnp.asarray(np.random.default_rng(i).normal(size=(3, 128, 256)) + i, jnp.float32) for i in range(2))
  scale, bias = jnp.linspace(0.5, 2.0, 256), jnp.linspace(-1.0, 1.0, 256)

  def norm(x, scale, bias):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias

  def gelu_of_sum(x, b):
    return jax.nn.gelu(x + b, approximate=False)

  def gradients(f, args):
    return jax.jit(jax.value_and_grad(lambda *args: (f(*args) * weights).sum(), range(len(args))))(*args)

  for ours, theirs, args in (
    (layers.layer_norm, norm, (x, scale, bias)),
    (layers.gelu, functools.partial(jax.nn.gelu, approximate=False), (x,)),
    (layers.bias_gelu, gelu_of_sum, (x, bias)),
    (layers.bias_gelu_in_product, gelu_of_sum, (x, bias)),
  ):
    (a, da), (b, db) = gradients(ours, args), gradients(theirs, args)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for p, q in zip(da, db):
      np.testing.assert_allclose(p, q, rtol=1e-5, atol=5e-5)


# --- whole steps ---------------------------------------------------------------------------------------------------

FAST, CHOSEN = choose_ops(Wanted("pallas", "on", "tpu", 128, 128, 2, 256, 0.1), interpret=True)
assert CHOSEN == "attention: pallas (config.model.attention); norms: our kernel"


def small(**options):
  encoder = XLMREncoder(500, 2, 128, 2, 256, max_positions=130, dtype=jnp.float32, isolate_documents=True, **options)
  return MaskedLanguageModel(encoder)


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


@functools.cache
def params(pre_norm=False):
  made = jax.jit(lambda key: build.initial_params(small(pre_norm=pre_norm), key))(jax.random.key(0))
  return jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), made)


@functools.cache
def gradients(**options):
  """(gradients, sums of losses and weights) of a model with these options from params(), with dropout 0.1 everywhere."""
  start, batch = params(options.get("pre_norm", False)), some_batch() | {"row": np.arange(4, dtype=np.uint32) + 7}
  sums = Sums(jax.tree.map(jnp.zeros_like, start), *jnp.zeros((2, 2)))
  found = jax.jit(make_add_micro_batch(small(**options), 2))(sums, start, batch, jax.random.key(5))
  return found.grads, np.stack(found[1:])


@pytest.mark.parametrize(
  "options",
  [
    {"ops": FAST, "remat": "ffn"},
    *(
      pytest.param(x, marks=pytest.mark.slow)
      for x in (
        {"ops": FAST, "remat": "ffn", "pre_norm": True},
        {"ops": FAST},
        {"ops": FAST, "remat": "full"},
        {"remat": "ffn"},
        {"ops": FAST, "unroll_layers": True},
        {"ops": FAST, "pre_norm": True},
        {"ops": FAST, "remat": "full", "pre_norm": True},
        {"remat": "dots", "pre_norm": True},
      )
    ),
  ],
)
def test_a_fast_step_has_the_plain_ones_gradients(options):
  """Dropout 0.1 everywhere, two documents a row, pads, in fp32."""
  (expected, sums), (found, found_sums) = gradients(pre_norm=options.get("pre_norm", False)), gradients(**options)
  np.testing.assert_allclose(found_sums, sums, rtol=1e-5)
  for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(expected)):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name.endswith("qkv/bias"):
      a, b = a[:, ::2], b[:, ::2]  # a key's bias moves all scores of a query alike: its gradient is rounding only
    assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-5, name


@pytest.mark.slow
def test_200_steps_end_alike():
  """Fast and plain paths from the same parameters, on the same batches, with dropout: the same loss within 1e-3."""
  tx = optimizer.adamw_without_rate(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, decay_pattern=".*", clip_norm=1.0)
  schedule = optimizer.polynomial_schedule(peak_lr=1e-3, warmup_steps=20, train_steps=200)
  losses, mesh = {}, make_mesh(1, 1, jax.devices()[:1])
  for name, options in {"plain": {}, "fast": {"ops": FAST}}.items():
    step = make_train_step(
      small(**options), tx, schedule, mesh=mesh, rules=build.FAMILIES["xlmr"].sharding, seed=0, languages=2
    )
    state, step = begin_with(tx)(params()), jax.jit(step)
    losses[name] = []
    for i in range(200):
      state, metrics = step(state, some_batch(8, seed=i % 4) | {"weights": np.ones((8, 24), np.float32)}, np.inf)
      losses[name].append(float(metrics["loss_sum"] / metrics["weight"]))
  assert losses["plain"][-1] < 0.9 * losses["plain"][0]
  assert abs(losses["fast"][-1] - losses["plain"][-1]) < 1e-3, (losses["fast"][-1], losses["plain"][-1])
