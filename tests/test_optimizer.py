"""Schedule and AdamW against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_jax.training import optimizer


def test_schedule_is_linear_warmup_then_polynomial():
  schedule = optimizer.polynomial_schedule(peak_lr=4e-4, warmup_steps=10, train_steps=110, end_lr=1e-5, power=2.0)
  for step, expected in [(1, 4e-5), (5, 2e-4), (10, 4e-4), (60, 1e-5 + 3.9e-4 * 0.25), (110, 1e-5), (200, 1e-5)]:
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-5)


def test_adamw_equals_its_formula():
  rng = np.random.default_rng(0)
  params = {"a": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}}
  tx = optimizer.adamw_without_rate(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.1, decay_pattern="kernel$", clip_norm=1.0)
  p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  state, mu, nu = tx.init(p), jax.tree.map(np.zeros_like, params), jax.tree.map(np.zeros_like, params)
  for t in range(1, 4):
    g = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g)))
    clipped = jax.tree.map(lambda x: x / max(norm, 1.0), g)  # noqa: B023
    mu = jax.tree.map(lambda m, x: 0.9 * m + 0.1 * x, mu, clipped)
    nu = jax.tree.map(lambda v, x: 0.98 * v + 0.02 * x * x, nu, clipped)
    updates, state = tx.update(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), g), state, p)
    adam = jax.tree.map(lambda m, v: m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.98**t)) + 1e-6), mu, nu)  # noqa: B023
    np.testing.assert_allclose(updates["a"]["bias"], adam["a"]["bias"], rtol=1e-4)
    np.testing.assert_allclose(updates["a"]["kernel"], adam["a"]["kernel"] + 0.1 * np.asarray(p["a"]["kernel"]), rtol=1e-4)
    p = jax.tree.map(lambda x, u: x - 0.01 * u, p, updates)


def test_fairseqs_rule_decays_every_parameter():
  mask = optimizer.decay_mask(".*")({"norm": {"scale": 1, "bias": 2}, "table": 3})
  assert all(jax.tree.leaves(mask))


def test_the_rate_of_a_step_is_the_schedule_of_the_step_made():
  """apply_if_finite: params - schedule(step + 1) x update, frozen parameters excepted; a bad step changes nothing."""
  tx = optimizer.adamw_without_rate(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.0, decay_pattern=".*", clip_norm=0.0)
  params, grads = {"a": jnp.ones(3), "frozen": jnp.ones(2)}, {"a": jnp.full(3, 2.0), "frozen": jnp.ones(2)}

  def step(grads, loss=1.0):
    state = tx.init(params)
    new = optimizer.apply_if_finite(tx, lambda step: 0.1 * step, jnp.int32(4), params, state, grads, jnp.float32(loss),
                                    lambda path: path == "frozen")  # fmt: skip
    return state, new

  _, new = step(grads)
  assert bool(new.made) and float(new.lr) == 0.5
  np.testing.assert_allclose(new.grad_norm, np.sqrt(3 * 4 + 2), rtol=1e-6)
  np.testing.assert_allclose(new.params["a"], 0.5, rtol=1e-5)  # Adam's first update is 1.
  np.testing.assert_array_equal(new.params["frozen"], 1.0)
  for bad in (step(grads, np.nan), step(grads | {"a": jnp.asarray([1.0, np.inf, 1.0])})):
    state, new = bad
    assert not new.made
    for x, y in zip(jax.tree.leaves((params, state)), jax.tree.leaves((new.params, new.opt_state))):
      np.testing.assert_array_equal(x, y)
