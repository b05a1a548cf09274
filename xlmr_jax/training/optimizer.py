"""Learning-rate schedule, AdamW, decay mask and clipping; pure functions and optax transformations."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def polynomial_schedule(
  *, peak_lr: float, warmup_steps: int, train_steps: int, end_lr: float = 0.0, power: float = 1.0
) -> Callable[[jax.Array], jax.Array]:
  """fairseq's polynomial_decay: linear to peak_lr at warmup_steps, then polynomial to end_lr at train_steps.

  The update made in step s (from 0) has rate schedule(s + 1), so that the first one is peak_lr / warmup_steps.
  """

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    warmup = peak_lr * step / max(warmup_steps, 1)
    left = 1.0 - (step - warmup_steps) / max(train_steps - warmup_steps, 1)
    decay = end_lr + (peak_lr - end_lr) * jnp.clip(left, 0.0, 1.0) ** power
    return jnp.where(step < warmup_steps, warmup, decay)

  return schedule


def decay_mask(pattern: str) -> Callable[[dict], dict]:
  """Marks the parameters whose path matches `pattern` for weight decay. ".*" is fairseq's rule: every parameter."""

  def mask(params):
    return jax.tree_util.tree_map_with_path(
      lambda path, _: bool(re.search(pattern, jax.tree_util.keystr(path, simple=True, separator="/"))), params
    )

  return mask


def adamw(
  *, b1: float, b2: float, eps: float, weight_decay: float, decay_pattern: str, clip_norm: float
) -> optax.GradientTransformation:
  """Global-norm clipping (0: off), Adam, decoupled weight decay; the caller multiplies with -learning rate.

  fairseq adds eps outside the bias correction, optax inside (as torch); they differ by a factor sqrt(1 - b2^t) of eps.
  """
  return optax.chain(
    optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    optax.add_decayed_weights(weight_decay, mask=decay_mask(decay_pattern)) if weight_decay else optax.identity(),
  )
