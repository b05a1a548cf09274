"""Phases in runs of real processes: kill -9 around each edge, and two processes over edges that change a batch's shape."""

import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from tests import tiny
from tests.test_hosts import finish, logged, losses, start, wait_until
from tests.test_train import assert_same_run
from xlmr_jax.run.checkpoint import restore_params
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.workdir import Workdir

EDGES, STEPS = (20, 40), 60
# The second phase begins another language and masks more, in shorter batches; the third cuts each row in two.
PHASES = (
  f"until={EDGES[0]},alpha=0.7,languages=aa+bb", f"until={EDGES[1]},alpha=0.5,mask_share=0.3,batch_rows=8",
  "until=end,alpha=0.3,seq_len=16,batch_rows=32",
)  # fmt: skip


def flags(every_steps):
  """Those of a run that saves every so many steps."""
  return (
    f"--config.phases={';'.join(PHASES)}", f"--config.train_steps={STEPS}", "--config.log.every_steps=1",
    f"--config.checkpoint.every_steps={every_steps}", "--config.held_out.every_steps=20",
    "--config.held_out.max_rows_per_language=2",
  )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tiny_rows, tmp_path_factory):
  """The run by one process that nothing stops."""
  workdir = tmp_path_factory.mktemp("unbroken")
  said = finish(start(1, tiny_rows, workdir, *flags(20)))
  assert "resuming" not in said
  phases = [line["phase"] for line in losses(workdir)]
  assert phases == [sum(step > edge for edge in EDGES) + 1 for step in range(1, STEPS + 1)]
  return workdir


def kill_at(step, rows, workdir):
  """Starts the run, kills it with kill -9 as soon as it has logged this step, and returns what it said.

  A run that was further by then is taken back to where it was before this start, and started again.
  """
  for attempt in range(5):
    saved = workdir.with_name(f"before_{step}_{attempt}")
    shutil.copytree(workdir, saved)
    process = start(1, rows, workdir, *flags(1))
    wait_until(lambda: logged(workdir) >= step, process)
    process.kill()
    said = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, said[-3000:]
    if logged(workdir) == step:
      return said
    shutil.rmtree(workdir)
    saved.rename(workdir)
  pytest.fail(f"no kill came at step {step}")


@pytest.mark.slow
def test_killed_around_each_edge_and_restarted_is_bit_equal(unbroken, tiny_rows, tmp_path):
  """One step before an edge, at it and one step after it, in one run, which saves every step and goes on after each kill."""
  workdir = tmp_path / "run"
  workdir.mkdir()
  said = [kill_at(edge + by, tiny_rows, workdir) for edge in EDGES for by in (-1, 0, 1)]
  said.append(finish(start(1, tiny_rows, workdir, *flags(1))))
  resumed = [int(step) for text in said for step in re.findall(r"resuming at step (\d+)", text)]
  assert len(resumed) == 6 and resumed == sorted(resumed), resumed
  assert_same_run(unbroken, workdir, STEPS)


def params_of(workdir):
  """The parameters at the end, float32 arrays on one device, whichever devices wrote them."""
  prepared = tiny.program(tiny.config())
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), prepared.state.params)
  return jax.tree.leaves(restore_params(Workdir(workdir).checkpoints, STEPS, abstract))


@pytest.mark.slow
def test_two_processes_make_the_same_run_and_resume_at_each_edge(unbroken, tiny_rows, tmp_path):
  """Killed behind each edge with no checkpoint since, so that the next start begins with the new phase, in its new shape.

  Sums over two processes come in another order, so that the runs are equal within rounding, as they are without phases.
  """
  run, said = tmp_path / "run", []
  for edge in EDGES:
    pids = tmp_path / f"pids_{edge}"
    process = start(2, tiny_rows, run, *flags(20), pids=pids)
    wait_until(lambda: logged(run) > edge and edge in sound_steps(Workdir(run).checkpoints), process)  # noqa: B023
    for pid in map(int, pids.read_text().split()):
      os.kill(pid, signal.SIGKILL)
    said.append(finish(process, 128 + signal.SIGKILL))
  said.append(finish(start(2, tiny_rows, run, *flags(20))))
  assert [re.findall(r"resuming at step (\d+)", text) for text in said] == [[], *([str(edge)] for edge in EDGES)]
  for a, b in zip(losses(unbroken), losses(run), strict=True):
    assert all(a[name] == b[name] for name in ("step", "phase", "masked_tokens"))
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-5)
    assert [of["rows"] for of in b["languages"].values()] == [of["rows"] for of in a["languages"].values()]
  for a, b in zip(params_of(unbroken), params_of(run), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
