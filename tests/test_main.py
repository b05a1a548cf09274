"""The command: bad input is one clear line and exit 1, and leaves nothing behind."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from xlmr_jax.commands.pretrain import open_rows
from xlmr_jax.config_checks import check_config
from xlmr_jax.config_files import load_config, shipped
from xlmr_jax.errors import UserError
from xlmr_jax.files import flatten
from xlmr_jax.run.workdir import RunRecord, Workdir, read_record, refuse_other_run

ROOT = Path(__file__).parents[1]


def command(*args, **env):
  return subprocess.run(
    [sys.executable, "-m", "xlmr_jax", "pretrain", *map(str, args)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=os.environ | env,
    timeout=300,
  )


@pytest.mark.parametrize(
  "args, message",
  [
    (["--config=configs/smoke.py", "--config.optimizer.peak_lrr=1"], "peak_lrr"),
    (["--config=configs/smoke.py", "--config.data.alpha=much"], "much"),
    (["--config=configs/nothing.py"], "nothing.py"),
    (["--config=configs/smoke.py", "--hosts=maybe"], "maybe"),
    (["--config=configs/base.py"], "config.data.rows is not set"),
    (["--config=configs/smoke.py", "extra"], "extra"),
  ],
)
def test_refused_in_one_line(args, message, tmp_path):
  result = command(*args, f"--workdir={tmp_path / 'run'}")
  assert result.returncode == 1
  assert message in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_a_refused_batch_leaves_the_workdir_alone(tiny_rows, tmp_path):
  """On 8 devices; then the corrected command is not told that the folder holds another run."""
  result = command(f"--config=tests/tiny.py:{tiny_rows}", "--config.batch_rows=30", f"--workdir={tmp_path / 'run'}")
  assert result.returncode == 1 and "batch_rows=30 does not divide over 8 devices" in result.stderr
  assert not (tmp_path / "run").exists()


def test_two_runs_in_one_workdir(tmp_path):
  with Workdir(tmp_path).lock_training():
    with pytest.raises(UserError, match="being trained in by another process"):
      Workdir(tmp_path).lock_training()
  Workdir(tmp_path).lock_training().close()


@pytest.mark.slow
def test_a_run_that_began_while_this_one_waited_for_the_lock_is_found(tiny_rows, tmp_path):
  """In a bucket the lock may be waited for; what was checked before that is checked again."""
  code = """
import dataclasses, sys
from xlmr_jax import __main__
from xlmr_jax.commands import pretrain
from xlmr_jax.run.workdir import RunRecord, Workdir

lock, write = Workdir.lock_training, RunRecord.write

def lock_after_another(self):
  held = lock(self)
  made = sys._getframe(1).f_locals["record"]
  write(dataclasses.replace(made, config=made.config | {"seed": 8}), self)
  return held

Workdir.lock_training = lock_after_another
sys.argv.insert(1, "pretrain")
__main__.main()
"""
  args = [f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={tmp_path / 'run'}"]
  result = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert result.returncode == 1 and "(seed: 8 there, 0 here)" in result.stderr, result.stderr
  assert read_record(Workdir(tmp_path / "run")).config["seed"] == 8


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"data__alpha": 1.5}, r"config.data.alpha=1.5: must lie in \[0, 1\]"),
    ({"data__alpha": -0.1}, "config.data.alpha=-0.1"),
    ({"model__heads": 3}, r"hidden=16 does not divide into config.model.heads=3"),
    ({"model__dropout": 1.0}, "config.model.dropout=1.0"),
    ({"checkpoint__keep": 1}, "config.checkpoint.keep=1"),
    ({"batch_rows": 0}, "config.batch_rows=0: must be at least 1"),
    ({"model__remat": "some"}, "config.model.remat='some'"),
    ({"model__dtype": "float16"}, "config.model.dtype='float16'"),
    ({"optimizer__warmup_steps": 12}, r"warmup_steps=12 is not below config.train_steps=12: the learning rate would never"),
    ({"optimizer__peak_lr": float("nan")}, "config.optimizer.peak_lr=nan: must be a number above 0"),
    ({"optimizer__clip_norm": float("nan")}, "config.optimizer.clip_norm=nan: must be at least 0"),
    ({"optimizer__b2": 1.0}, "config.optimizer.b2=1.0"),
    ({"optimizer__decay_pattern": "(kernel"}, r"decay_pattern='\(kernel': no regular expression"),
    ({"data__mask_share": 0.0}, "config.data.mask_share=0.0"),
    ({"checkpoint__keep_every": 10}, r"keep_every=10 is no multiple of config.checkpoint.every_steps=4: .*; use 12"),
    ({"evaluate__tasks": ("xnli",), "evaluate__every_steps": 6}, r"evaluate.every_steps=6 is no multiple .*; use 8"),
  ],
)
def test_values_are_refused_by_name(changes, message):
  with pytest.raises(UserError, match=message):
    check_config(tiny.config("rows", **changes))


def test_rows_that_do_not_match_the_model(tiny_rows, tmp_path):
  with pytest.raises(UserError, match=r"vocabulary_size=250002, but the rows in .* vocabulary of 90"):
    open_rows(tiny.config(tiny_rows, model__vocabulary_size=250_002), tmp_path)
  with pytest.raises(UserError, match=r"max_positions=20: the rows in .* have 32 tokens and need 34"):
    open_rows(tiny.config(tiny_rows, model__max_positions=20), tmp_path)
  with pytest.raises(UserError, match="no rows of xx"):
    open_rows(tiny.config(tiny_rows, data__languages=("aa", "xx")), tmp_path)


def test_workdir_of_another_run(tmp_path, capsys):
  workdir = Workdir(tmp_path)
  record = RunRecord(tiny.config("rows").to_dict(), 90, "c" * 64, 32, "a" * 64)
  record.write(workdir)

  def refuse(fingerprint=record.rows_fingerprint, allowed=(), **changes):
    config = tiny.config("rows", **changes).to_dict()
    refuse_other_run(workdir, dataclasses.replace(record, config=config, rows_fingerprint=fingerprint), allowed)

  refuse()
  with pytest.raises(UserError, match=r"another config \(optimizer.peak_lr: 0.01 there, 0.5 here\)"):
    refuse(optimizer__peak_lr=0.5)
  with pytest.raises(UserError, match="trained on other rows"):
    refuse("b" * 64)
  refuse(mesh__fsdp=4)
  refuse(seed=1, allowed=("seed",))
  assert "continuing with config.mesh.fsdp=4 (was 1)" in capsys.readouterr().out
  # What changes more than rounding by another key.
  refuse(held_out__max_rows_per_language=7)
  stop = {"stop__by": "held_out", "stop__patience": 3}
  with pytest.raises(UserError, match=r"held_out\.max_rows_per_language: 0 there, 7 here"):
    refuse(held_out__max_rows_per_language=7, **stop)
  refuse(held_out__max_rows_per_language=7, allowed=("held_out",), **stop)


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"imported"}))
def test_every_config_has_a_runlocal_and_is_locked(name):
  for arg in ("", "runlocal"):
    config = load_config(name, arg)
    assert config.is_locked and set(flatten(config.to_dict())) == set(flatten(tiny.config().to_dict()))
  assert config.data.rows == "demo" and config.train_steps <= 20
  check_config(config)
