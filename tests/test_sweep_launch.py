"""The launchers of sweeps against stand-ins of kubectl and Slurm: every index once, flags unchanged, what comes back."""

import copy
import json
import os
import re
import subprocess
import sys

import pytest

from tests.test_launch_pods import AWKWARD, COUNT, EVALUATOR, ROOT, Cloud, check, kubernetes_expands, thing

GKE = ("--name=alpha", "--image=i", "--accelerator=tpu-v5-lite-podslice", "--topology=2x2")
TASK = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9", "XLMR": "xlmr"}


@pytest.fixture
def cloud(tmp_path):
  return Cloud(tmp_path)


@pytest.mark.parametrize("code, state, restarts, requeued", [
  (0, "RUNNING", 0, False), (1, "RUNNING", 0, False), (42, "RUNNING", 0, True), (137, "RUNNING", 99, True),
  (134, "RUNNING", 100, False), (42, "CANCELLED", 0, False),
])  # fmt: skip
def test_a_slurm_task_goes_back_into_the_queue_alone(cloud, code, state, restarts, requeued):
  cloud.answer("^srun", [code, "", ""])
  cloud.answer("scontrol show job 7_3", f"JobId=9 ArrayJobId=7\n   JobState={state} Reason=None\n")
  out = cloud.run("bash", "launch/sweep_slurm.sbatch", *AWKWARD, **TASK, SLURM_RESTART_COUNT=str(restarts))
  assert out.returncode == (0 if requeued else code), out.stderr
  assert cloud.calls("^srun") == [["srun", "xlmr", "sweep", "--array", *AWKWARD]]
  assert cloud.calls("requeue") == [["scontrol", "requeue", "7_3"]] * requeued


def test_a_slurm_task_passes_term_on(cloud):
  for name, script in (
    ("srun", f"touch {cloud.folder}/began; until [ -e {cloud.folder}/told ]; do sleep 0.05; done; exit 42"),
    ("scancel", f'echo "$@" > {cloud.folder}/told'),
  ):
    path = cloud.folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
  cloud.answer("scontrol show job 7_3", "JobState=RUNNING")
  waits = f"until [ -e {cloud.folder}/began ]; do sleep 0.05; done"
  script = f"bash launch/sweep_slurm.sbatch --config=c --workdir=w & {waits}; kill -TERM $!; wait $!"
  assert cloud.run("bash", "-c", script, **TASK).returncode == 0
  assert (cloud.folder / "told").read_text() == "--signal=TERM 7_3\n" and len(cloud.calls("scontrol requeue 7_3")) == 1
  text = (ROOT / "launch" / "sweep_slurm.sbatch").read_text()
  assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= set(re.findall(r"--[a-z-]+(?:=[^ \n]+)?", text))


@pytest.mark.parametrize(
  "more", [(), ("--spot", "--queue=q", "--as-root", "--parallel=2", "--max-restarts=7", "--namespace=n")]
)
def test_gke_applies_a_job_whose_indices_are_the_runs(cloud, more):
  yaml = pytest.importorskip("yaml")
  out = cloud.run("launch/gke_sweep.sh", *GKE, "--runs=5", *more, "--", *AWKWARD)
  assert out.returncode == 0, out.stderr
  _, call = cloud.calls()
  assert call[-3:] == ["apply", "-f", "-"] and ("--namespace=n" in call) == bool(more)
  job = yaml.safe_load((cloud.folder / "applied0").read_text())
  schema = copy.deepcopy(EVALUATOR)
  schema["properties"]["spec"]["properties"] |= thing(backoffLimitPerIndex=COUNT, suspend={"type": "boolean"})["properties"]
  check(job, schema)
  spec = job["spec"]
  assert spec["completionMode"] == "Indexed" and spec["completions"] == 5 and spec["parallelism"] == (2 if more else 5)
  assert spec["backoffLimitPerIndex"] == (7 if more else 20) and "backoffLimit" not in spec
  fails, *ignored = spec["podFailurePolicy"]["rules"]
  assert fails["action"] == "FailIndex" and fails["onExitCodes"]["values"] == [1]
  assert [rule["action"] for rule in ignored] == ["Ignore", "Ignore"] and ignored[1]["onExitCodes"]["values"] == [42]
  args = spec["template"]["spec"]["containers"][0]["args"]
  assert [kubernetes_expands(word) for word in args] == ["sweep", "--array", *AWKWARD]


@pytest.mark.parametrize("conditions, verbs", [
  ("FailureTarget Failed", ["delete", "apply"]), ("Complete", ["delete", "apply"]),
  ("Suspended", ["apply"]), ("", ["apply"]),
])  # fmt: skip
def test_gke_makes_a_job_again_that_has_ended(cloud, conditions, verbs):
  """The same document would be no change, so that nothing would run."""
  cloud.answer("get job alpha", conditions)
  out = cloud.run("launch/gke_sweep.sh", *GKE, "--runs=5", "--", "--config=c", "--workdir=gs://b/s")
  assert out.returncode == 0 and cloud.verbs() == verbs, out.stderr
  assert out.stderr.count("the job alpha of an earlier start has ended; it is deleted") == verbs.count("delete")


def test_dry_run_calls_nothing_and_stop_and_delete_are_for_the_job(cloud):
  line = ("launch/gke_sweep.sh", "--dry-run", *GKE, "--runs=5", "--", "--config=c", "--workdir=gs://b/s")
  out = cloud.run(*line)
  assert out.returncode == 0 and "completions: 5" in out.stdout and cloud.calls() == []
  out = cloud.run("bash", "launch/sweep_slurm.sbatch", "--dry-run", "--config=c", "--workdir=w", XLMR="xlmr")
  assert out.stdout.startswith("srun xlmr sweep --array --config=c --workdir=w") and cloud.calls() == []
  assert cloud.run("launch/gke_sweep.sh", "--name=alpha", "--stop").returncode == 0
  assert json.loads(cloud.calls("patch job alpha")[0][-1].removeprefix("--patch=")) == {"spec": {"suspend": True}}
  assert cloud.run("launch/gke_sweep.sh", "--name=alpha", "--delete").returncode == 0
  assert len(cloud.calls("delete job alpha --ignore-not-found")) == 1


@pytest.mark.parametrize("flags, said", [
  ((*GKE, "--", "--config=c", "--workdir=gs://b/s"), "--runs are needed"),
  ((*GKE, "--runs=0", "--", "--config=c", "--workdir=gs://b/s"), "--runs=0"),
  ((*GKE, "--runs=x", "--", "--config=c", "--workdir=gs://b/s"), "--runs=x"),
  ((*GKE, "--topology=4x4", "--runs=2", "--", "--config=c", "--workdir=gs://b/s"), "must be one host"),
  ((*GKE, "--runs=2", "--", "--config=c", "--workdir=/s"), "must lie in a bucket"),
  ((*GKE, "--runs=2", "--", "--workdir=gs://b/s"), "lack --config="),
])  # fmt: skip
def test_gke_refuses_by_name(cloud, flags, said):
  out = cloud.run("launch/gke_sweep.sh", *flags)
  assert (out.returncode, out.stdout) == (1, "") and said in out.stderr and len(out.stderr.splitlines()) == 1, out.stderr
  assert cloud.calls() == []


def test_the_scripts_pass_shellcheck():
  checker = os.path.join(os.path.dirname(sys.executable), "shellcheck")
  if not os.path.exists(checker):
    pytest.skip("needs shellcheck, of requirements-dev.txt")
  out = subprocess.run([checker, "-x", "launch/gke_sweep.sh", "launch/sweep_slurm.sbatch"], cwd=ROOT, capture_output=True)
  assert out.returncode == 0, out.stdout.decode()
