"""The launch scripts: what a sweep runs, skips and repeats, what babysit starts again, what tpu_vm.sh would do."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shell(*line, **env):
  return subprocess.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True, env=os.environ | env, timeout=240)


@pytest.fixture
def sweep_config(tmp_path):
  path = tmp_path / "sweep_of_two.py"
  path.write_text(
    "from tests import tiny\nget_config = tiny.get_config\n\n"
    "def sweep(add):\n  for lr in (0.1, 0.2):\n    add(f'lr_{lr}', {'optimizer.peak_lr': lr})\n"
  )
  return path


def test_sweep_prints_what_is_left(sweep_config, tmp_path):
  (tmp_path / "runs" / "lr_0.1").mkdir(parents=True)
  (tmp_path / "runs" / "lr_0.1" / "result.json").write_text("{}")
  out = shell(
    sys.executable,
    "launch/sweep.py",
    f"--config={sweep_config}",
    f"--workdir={tmp_path / 'runs'}",
    "--print",
    "--config.train_steps=7",
    "--config.optimizer.warmup_steps=1",
  )
  assert out.returncode == 0 and "lr_0.1: done" in out.stderr
  (line,) = out.stdout.splitlines()
  assert shlex.split(line)[1:] == [
    "-m",
    "xlmr_jax",
    "pretrain",
    f"--config={sweep_config}",
    f"--workdir={tmp_path}/runs/lr_0.2",
    "--config.optimizer.peak_lr=0.2",
    "--config.train_steps=7",
    "--config.optimizer.warmup_steps=1",
  ]


def test_sweep_refuses_two_runs_of_a_name_and_a_config_without_sweep(tmp_path):
  for text, message in (
    ("def sweep(add):\n  add('a', {})\n  add('a', {})\n", "two runs are named 'a'"),
    ("def get_config():\n  pass\n", "has no sweep(add)"),
  ):
    (tmp_path / "c.py").write_text(text)
    out = shell(sys.executable, "launch/sweep.py", f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path}")
    assert out.returncode == 1 and message in out.stderr and out.stderr.startswith("error: ")


def test_sweep_takes_the_name_of_a_config_that_ships(tmp_path):
  out = shell(sys.executable, "launch/sweep.py", "--config=sweeps/alpha", f"--workdir={tmp_path}", "--print")
  assert out.returncode == 0, out.stderr
  lines = [shlex.split(line) for line in out.stdout.splitlines()]
  assert len(lines) > 1 and all("--config=sweeps/alpha" in line for line in lines)
  assert any("--config.data.alpha=0.3" in line for line in lines)
  out = shell(sys.executable, "launch/sweep.py", "--config=sweeps/beta", f"--workdir={tmp_path}", "--print")
  assert out.returncode == 1 and out.stderr.startswith("error: --config=sweeps/beta: no config of this name ships")


@pytest.mark.slow
def test_sweep_runs_and_skips(sweep_config, tiny_rows, tmp_path):
  line = [
    sys.executable,
    "launch/sweep.py",
    f"--config={sweep_config}",
    f"--workdir={tmp_path / 'runs'}",
    f"--config.data.rows={tiny_rows}",
    "--config.train_steps=4",
    "--config.optimizer.warmup_steps=1",
  ]
  first = shell(*line)
  results = json.loads(first.stdout.splitlines()[-1])
  assert set(results["held_out_loss"]) == {"lr_0.1", "lr_0.2"} and results["failed"] == []
  again = shell(*line)
  assert again.stderr.count(": done") == 2 and json.loads(again.stdout.splitlines()[-1]) == results


def test_babysit_starts_again_until_done(tmp_path):
  script = f"echo x >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -lt 4 ] && exit $1; exit 0"
  out = shell("bash", "launch/babysit.sh", "bash", "-c", script, "-", "42", PAUSE_S="0", SHORT_S="0")
  assert out.returncode == 0 and (tmp_path / "starts").read_text() == "x\n" * 4
  out = shell("bash", "launch/babysit.sh", "bash", "-c", "exit 1", PAUSE_S="0")
  assert out.returncode == 1 and "again" not in out.stderr
  out = shell(
    "timeout",
    "-s",
    "TERM",
    "1",
    "bash",
    "launch/babysit.sh",
    "bash",
    "-c",
    f"echo x >> {tmp_path}/once; exit 42",
    PAUSE_S="30",
    SHORT_S="0",
  )
  assert (tmp_path / "once").read_text() == "x\n"  # TERM while it waits: not started again
  out = shell("bash", "launch/babysit.sh", "bash", "-c", "exit 42", PAUSE_S="0")
  assert out.returncode == 42 and "five quick ends" in out.stderr


def test_tpu_vm_dry_run_prints_every_command(tmp_path):
  out = shell(
    "launch/tpu_vm.sh",
    "--dry-run",
    "--name=xlmr",
    "--zone=us-central2-b",
    "--type=v4-32",
    "--nfs=10.0.0.2:/share",
    "--",
    "--config=configs/base.py",
    "--workdir=/data/run one",
  )
  assert out.returncode == 0, out.stderr
  lines = [shlex.split(line) for line in out.stdout.splitlines()]
  assert next(line[:5] for line in lines if line[0] == "gcloud") == ["gcloud", "compute", "tpus", "tpu-vm", "create"]
  assert any(line[0] == "git" and "archive" in line for line in lines)
  start = next(line[-1] for line in lines if "-m xlmr_jax pretrain" in line[-1])
  assert "--hosts=auto" in start and "babysit.sh" in start
  assert "--workdir=/data/run one" in shlex.split(start.split("nohup ")[1].split(">")[0])


@pytest.mark.parametrize(
  "args, message",
  [
    (["--name=xlmr", "--type=v4-32"], "--name and --zone are needed"),
    (["--name=X_", "--zone=z", "--type=v4-8", "--", "--config=c", "--workdir=w"], "--name=X_"),
    (["--name=x", "--zone=z", "--type=v4-8", "--", "--config=c"], "lack --workdir="),
    (["--name=x", "--zone=z", "--type=v9-8", "--", "--config=c", "--workdir=w"], "pass its image as --version="),
    (["--name=x", "--zone=z", "--tipe=v4-8"], "unknown option --tipe=v4-8"),
  ],
)
def test_tpu_vm_refuses(args, message):
  out = shell("launch/tpu_vm.sh", "--dry-run", *args)
  assert out.returncode == 1 and message in out.stderr and out.stdout == ""


def test_corpus_slurm_starts_its_share_and_refuses_to_run_outside_an_array(tmp_path):
  out = shell("bash", "launch/corpus_slurm.sh", "--out=x")
  assert out.returncode != 0 and "sbatch --array=0-N" in out.stderr
  slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0", "XLMR": "echo"}
  out = shell("bash", "launch/corpus_slurm.sh", "--source=wet:@a list.txt", "--out=x", **slurm)
  assert (out.returncode, out.stdout) == (0, "build_corpus --source=wet:@a list.txt --out=x --task=3/8\n")
  out = shell("bash", "launch/corpus_slurm.sh", "--out=x", **slurm | {"SLURM_ARRAY_TASK_MIN": "1"})
  assert out.returncode == 1 and "must begin at 0" in out.stderr


DATAFLOW = ("--project=p", "--region=r", "--image=i", "--temp=gs://b/t", "--dry-run")


def test_corpus_dataflow_prints_a_command_whose_flags_beam_knows():
  beam = pytest.importorskip("apache_beam.options.pipeline_options")
  out = shell("bash", "launch/corpus_dataflow.sh", *DATAFLOW, "--", "--source=wet:@/data/l", "--out=/data/c")
  assert out.returncode == 0, out.stderr
  name, command, *flags = shlex.split(out.stdout)
  assert (name, command, flags[:2]) == ("xlmr", "build_corpus", ["--source=wet:@/data/l", "--out=/data/c"])
  options = beam.PipelineOptions(flags[2:])
  assert set(options.get_all_options(retain_unknown_options=True)) == set(options.get_all_options())


@pytest.mark.parametrize(
  "given, said",
  [
    ((*DATAFLOW, "--", "--source=wet:x"), "--out=/data/"),
    ((*DATAFLOW, "--", "--out=/data/c"), "--source="),
    (("--project=p", "--dry-run"), "--region is needed"),
    ((*DATAFLOW, "--temp=/tmp", "--"), "gs://"),
    ((*DATAFLOW, "--wokers=3"), "unknown option --wokers=3"),
  ],
)
def test_corpus_dataflow_refuses_by_name(given, said):
  out = shell("bash", "launch/corpus_dataflow.sh", *given)
  assert out.returncode == 1 and said in out.stderr and out.stdout == ""
