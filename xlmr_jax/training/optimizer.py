"""Learning-rate schedule, AdamW, decay mask and clipping, and the one update rule of pretraining and fine-tuning."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from xlmr_jax.training.sharding import path_of

Schedule = Callable[[jax.Array], jax.Array]


def polynomial_schedule(
  *, peak_lr: float, warmup_steps: int, train_steps: int, end_lr: float = 0.0, power: float = 1.0
) -> Schedule:
  """fairseq's polynomial_decay: linear to peak_lr at warmup_steps, then polynomial to end_lr at train_steps.

  The update made in step s (from 0) has rate schedule(s + 1), so that the first one is peak_lr / warmup_steps.
  """

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    warmup = peak_lr * step / max(warmup_steps, 1)
    left = 1.0 - (step - warmup_steps) / max(train_steps - warmup_steps, 1)
    decay = end_lr + (peak_lr - end_lr) * jnp.clip(left, 0.0, 1.0) ** power
    return jnp.where(step < warmup_steps, warmup, decay)

  return schedule


def cosine_schedule(*, peak_lr: float, warmup_steps: int, train_steps: int, end_lr: float = 0.0) -> Schedule:
  """Linear to peak_lr at warmup_steps, then half a cosine to end_lr at train_steps (Loshchilov and Hutter 2017)."""

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    warmup = peak_lr * step / max(warmup_steps, 1)
    done = jnp.clip((step - warmup_steps) / max(train_steps - warmup_steps, 1), 0.0, 1.0)
    decay = end_lr + (peak_lr - end_lr) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return jnp.where(step < warmup_steps, warmup, decay)

  return schedule


def wsd_schedule(*, peak_lr: float, warmup_steps: int, train_steps: int, decay_steps: int, end_lr: float = 0.0) -> Schedule:
  """Warmup, stable, decay: linear to peak_lr, which stays until the last decay_steps; then down to end_lr by 1 - sqrt.

  The form of the decay is that of Haegele et al. 2024 (https://arxiv.org/abs/2405.18392). decay_steps 0: the rate stays at
  its peak to the end.
  """

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    warmup = peak_lr * step / max(warmup_steps, 1)
    done = jnp.clip((step - (train_steps - decay_steps)) / max(decay_steps, 1), 0.0, 1.0 if decay_steps else 0.0)
    decay = end_lr + (peak_lr - end_lr) * (1.0 - jnp.sqrt(done))
    return jnp.where(step < warmup_steps, warmup, decay)

  return schedule


def inverse_sqrt_schedule(*, peak_lr: float, warmup_steps: int, train_steps: int = 0, end_lr: float = 0.0) -> Schedule:
  """Linear to peak_lr at warmup_steps, then down with the root of the steps, to end_lr at the least (Vaswani et al. 2017).

  The rate does not depend on train_steps, which suits a run of which nobody knows when it ends.
  """
  del train_steps

  def schedule(step: jax.Array) -> jax.Array:
    step, warmup = jnp.asarray(step, jnp.float32), max(warmup_steps, 1)
    decay = peak_lr * jnp.sqrt(warmup / jnp.maximum(step, warmup))
    return jnp.where(step < warmup_steps, peak_lr * step / warmup, jnp.maximum(decay, end_lr))

  return schedule


def decay_mask(pattern: str) -> Callable[[Any], Any]:
  """Marks the parameters whose path matches `pattern` for weight decay. ".*" is fairseq's rule: every parameter."""

  def mask(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(re.search(pattern, path_of(path))), params)

  return mask


def adamw_without_rate(
  *, b1: float, b2: float, eps: float, weight_decay: float, decay_pattern: str, clip_norm: float
) -> optax.GradientTransformation:
  """Global-norm clipping (0: off), Adam, decoupled weight decay. The rate is left to apply_if_finite(), which reports it.

  fairseq adds eps outside the bias correction, optax inside (as torch); they differ by a factor sqrt(1 - b2^t) of eps.
  """
  return optax.chain(
    optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    optax.add_decayed_weights(weight_decay, mask=decay_mask(decay_pattern)) if weight_decay else optax.identity(),
  )


class Updated(NamedTuple):
  """The outcome of apply_if_finite."""

  params: Any
  opt_state: Any
  grad_norm: jax.Array  # before clipping
  lr: jax.Array
  made: jax.Array  # whether the update was made


def apply_if_finite(
  tx: optax.GradientTransformation, schedule: Schedule, step: jax.Array, params: Any, opt_state: Any, grads: Any,
  loss: jax.Array, is_frozen: Callable[[str], bool] = lambda path: False, limit: jax.Array | float = math.inf,
) -> Updated:  # fmt: skip
  """params - lr x update, made in step `step` (from 0) if loss and gradients are finite and the norm is not above limit.

  Selected, never multiplied, because 0 x NaN is NaN: neither the parameters nor the moments see a bad step. is_frozen: which
  parameters, by path, stay as they are. limit: of the gradient's norm before clipping.
  """
  grad_norm = optax.global_norm(grads)
  made = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (grad_norm <= limit)
  updates, new_opt_state = tx.update(grads, opt_state, params)
  lr = schedule(step + 1)

  def update(path, p: jax.Array, u: jax.Array) -> jax.Array:
    return p if is_frozen(path_of(path)) else jnp.where(made, p - lr * u, p)

  params = jax.tree_util.tree_map_with_path(update, params, updates)
  opt_state = jax.tree.map(lambda new, old: jnp.where(made, new, old), new_opt_state, opt_state)
  return Updated(params, opt_state, grad_norm, lr, made)
