"""Law 2: a loss is a sum and a weight, divided once. Mesh and micro-batches do not move it, in fp32 and in bf16."""

import functools

import jax
import numpy as np
import pytest

from tests import tiny
from xlmr_jax.training import sharding

ROWS = 32
TOLERANCE = {"float32": 1e-6, "bfloat16": 2e-5}
# (data, fsdp, micro-batches)
QUICK = [(1, 8, 4)]
REST = [(2, 4, 1), (8, 1, 1), (1, 1, 4), (8, 1, 4), (4, 2, 1), (4, 2, 4), (2, 4, 4), (1, 8, 1)]


def some_params(shapes):
  """Embeddings and kernels of a trained model's size, and a bias of the head of 8 x N(0, 1): what rounding would show in."""
  rng = np.random.default_rng(3)
  params = jax.tree.map(lambda x: rng.normal(0.0, 0.3, x.shape).astype(np.float32), shapes)
  params["head_bias"] = 8.0 * rng.normal(size=shapes["head_bias"].shape).astype(np.float32)
  for name in ("token_embedding", "position_embedding"):
    params[name] = rng.normal(size=shapes[name].shape).astype(np.float32)
  return params


@functools.cache
def losses(dtype, data, fsdp, micro_batches):
  """The loss of a train step, its gradient's norm, and the held-out loss of the same batch."""
  rates = {"model__dropout": 0.0, "model__attention_dropout": 0.0}
  config = tiny.config(model__dtype=dtype, micro_batches=micro_batches, batch_rows=ROWS, **rates)
  program, batch = tiny.program(config, data, fsdp), tiny.batch(np.random.default_rng(1), ROWS)
  with jax.set_mesh(program.mesh):
    state = program.begin_with(some_params(program.state.params))
    sums, weights = program.held_out_step(state.params, sharding.to_global(program.mesh, batch, ROWS))
  _, metrics = tiny.step(program, state, batch)
  held_out = float(np.sum(sums)) / float(np.sum(weights))
  return float(metrics["loss_sum"] / metrics["weight"]), float(metrics["grad_norm"]), held_out


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
  "data, fsdp, micro_batches", [*QUICK, *(pytest.param(*layout, marks=pytest.mark.slow) for layout in REST)]
)
def test_losses_do_not_depend_on_mesh_or_micro_batches(dtype, data, fsdp, micro_batches):
  loss, norm, held_out = losses(dtype, data, fsdp, micro_batches)
  expected, expected_norm, expected_held_out = losses(dtype, 1, 1, 1)
  assert expected > 8.0  # the bias is what the loss is made of
  assert loss == pytest.approx(expected, rel=TOLERANCE[dtype])
  assert held_out == pytest.approx(expected_held_out, rel=TOLERANCE[dtype])
  assert norm == pytest.approx(expected_norm, rel={"float32": 1e-5, "bfloat16": 2e-3}[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_train_step_and_the_held_out_step_see_one_loss(dtype):
  """Without dropout, both say the same of a batch."""
  loss, _, held_out = losses(dtype, 1, 1, 1)
  assert held_out == pytest.approx(loss, rel=TOLERANCE[dtype])
