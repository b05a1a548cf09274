"""The launchers of pods against stand-ins of gcloud, kubectl, xpk, sky and Slurm, which note calls and answer by script.

What a stand-in cannot show is listed in docs/pods.md.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAUNCHERS = ("tpu_vm.sh", "queued_resource.sh", "evaluator.sh", "gke_jobset.sh", "xpk.sh", "skypilot.sh")
# Flags that a shell, YAML and Kubernetes would each change if they were passed on carelessly.
AWKWARD = [
  "--config=base",
  "--workdir=gs://b/run one",
  '--config.a=it\'s "so" $HOME $(id) `id` $$ \\ ; & | * ? {x} # é',
  "--config.b=",
]
NOT_FOUND = [1, "", "ERROR: NOT_FOUND: Resource was not found"]

STAND_IN = r"""#!/usr/bin/env bash
folder=$(dirname "$(dirname "$0")")
{ printf '%s\0' "${0##*/}" "$@"; printf '\x1e'; } >> "$folder/calls"
for word in "$@"; do
  case $word in
    apply) cat > "$folder/applied$(ls "$folder" | grep -c applied)";;
    *=startup-script=*) cp "${word##*startup-script=}" "$folder/startup-script.sh";;
  esac
done
. "$folder/answers"
for ((i = 0; i < ${#patterns[@]}; i++)); do
  if [[ "${0##*/} $*" =~ ${patterns[i]} ]]; then
    printf x >> "$folder/used$i"
    used=$(< "$folder/used$i")
    "answer_$i" "${#used}"
    exit
  fi
done
"""


class Cloud:
  """Stand-ins on PATH. answer(PATTERN, ...) says what matching calls get: a text, or [exit code, text, errors]."""

  def __init__(self, folder):
    self.folder = folder
    self.answers = []
    self.home = folder / "home"
    self.home.mkdir()
    (folder / "bin").mkdir()
    for name in ("gcloud", "kubectl", "xpk", "sky", "srun", "scontrol", "scancel"):
      self.add(name)

  def add(self, name):
    path = self.folder / "bin" / name
    path.write_text(STAND_IN)
    path.chmod(0o755)

  def answer(self, pattern, *answers):
    self.answers.append((pattern, [answer if isinstance(answer, list) else [0, answer, ""] for answer in answers]))

  def run(self, *line, **env):
    script = "patterns=(" + " ".join(shlex.quote(pattern) for pattern, _ in self.answers) + ")\n"
    for i, (_, answers) in enumerate(self.answers):
      script += f"answer_{i}() {{ case $1 in\n"
      for count, (code, out, errors) in enumerate(answers, 1):
        which = "*" if count == len(answers) else count
        script += f"{which}) printf %s {shlex.quote(out)}; printf %s {shlex.quote(errors)} >&2; return {code};;\n"
      script += "esac; }\n"
    (self.folder / "answers").write_text(script)
    return self.shell(*line, **env)

  def shell(self, *line, cwd=ROOT, **env):
    """Runs a command that finds the stand-ins, with the answers as they are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XLMR_", "SLURM_"))}
    kept |= {
      "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
      "XLMR_POLL_S": "0",
      "XLMR_PATIENCE": "4",
      "HOME": str(self.home),
    }
    return subprocess.run([*map(str, line)], cwd=cwd, capture_output=True, text=True, timeout=60, env=kept | env)

  def calls(self, pattern=""):
    """The calls that match, each as its words."""
    path = self.folder / "calls"
    every = [call.split("\0")[:-1] for call in path.read_text().split("\x1e")[:-1]] if path.exists() else []
    return [call for call in every if re.search(pattern, " ".join(call))]

  def verbs(self):
    """What was done to resources, in order: create, delete, apply, ..."""
    return [word for call in self.calls() for word in call[1:5] if word in ("create", "delete", "apply", "rm", "patch")]


@pytest.fixture
def cloud(tmp_path):
  return Cloud(tmp_path)


# --- all launchers ----------------------------------------------------------------------------------------------------


def test_every_script_explains_itself_and_refuses_an_unknown_flag_in_one_line(cloud):
  scripts = [path for path in sorted((ROOT / "launch").glob("*.s*")) if path.name != "common.sh"]
  assert {"slurm.sbatch", "babysit.sh", "local.sh", "node.sh", *LAUNCHERS} <= {path.name for path in scripts}
  for path in scripts:
    out = cloud.run("bash", path, "--help")
    assert out.returncode == 0 and len(out.stdout.splitlines()) > 2 and "shellcheck" not in out.stdout, path.name
    assert path.name == "node.sh" or "--dry-run" in out.stdout, path.name
    if path.name not in ("node.sh", "slurm.sbatch", "sweep_slurm.sbatch", "corpus_slurm.sh"):  # These pass all flags on.
      out = cloud.run("bash", path, "--bogus=1")
      assert (out.returncode, out.stdout) == (1, "") and len(out.stderr.splitlines()) == 1 and "--bogus" in out.stderr, (
        path.name
      )
  assert cloud.calls() == []


def test_env_example_lists_every_variable_that_the_launchers_read():
  text = "".join(path.read_text() for path in sorted((ROOT / "launch").glob("*.s*")))
  read = set(re.findall(r"\$\{(XLMR_[A-Z_]+|SHORT_S|PAUSE_S|STUCK|MAX_RESTARTS)\b", text))
  listed = re.findall(r"^#?([A-Z_]+)=", (ROOT / "launch" / "env.example").read_text(), re.MULTILINE)
  assert set(listed) == read and len(listed) == len(read)


def test_extras_that_the_launchers_install_exist():
  text = "".join(path.read_text() for path in (ROOT / "launch").iterdir() if path.is_file() and path.name != "README.md")
  wanted = {
    extra
    for found in re.findall(r"\.\w*\[([a-z,]+)\]|code\[([a-z,]+)\]|\)\[([a-z,]+)\]", text)
    for extra in "".join(found).split(",")
  }
  assert {"tpu", "gcs"} <= wanted
  assert wanted <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


VM = ("--name=xlmr", "--zone=z")
SLICE = (*VM, "--type=v4-32", "--spot", "--service-account=s@p.iam", "--project=p")
GKE = ("--name=xlmr", "--image=i", "--accelerator=tpu-v5-lite-podslice", "--topology=4x4")
XPK = ("--name=xlmr", "--cluster=c", "--type=v5litepod-16", "--image=i")
RUN = ("--", "--config=base", "--workdir=gs://b/run")


@pytest.mark.parametrize("script, flags", [
  ("tpu_vm.sh", (*SLICE, "--evaluator=v4-8", "--delete-at-end")), ("queued_resource.sh", SLICE),
  ("evaluator.sh", (*VM, "--type=v4-8")), ("evaluator.sh", ("--here",)), ("gke_jobset.sh", (*GKE, "--evaluator=2x2")),
  ("xpk.sh", XPK), ("skypilot.sh", ("--name=xlmr",)),
])  # fmt: skip
def test_dry_run_calls_nothing(cloud, script, flags):
  out = cloud.run(f"launch/{script}", "--dry-run", *flags, *RUN)
  assert out.returncode == 0, out.stderr
  assert cloud.calls() == [] and "xlmr" in out.stdout
  for action in ("--stop", "--follow", "--delete"):
    if action in (ROOT / "launch" / script).read_text() and "--here" not in flags:
      out = cloud.run(f"launch/{script}", "--dry-run", *flags[:2], action)
      assert out.returncode == 0 and out.stdout and cloud.calls() == [], (action, out.stderr)


@pytest.mark.parametrize("script, flags, said", [
  ("tpu_vm.sh", (*VM, "--type=v4-8", "--tries=x", *RUN), "--tries=x"),
  ("tpu_vm.sh", (*VM, "--type=v4-8", "--", "--config=c", "stray"), "stray"),
  ("tpu_vm.sh", (*VM, "--type=v4-8", "--nfs=h:/a b", *RUN), "--nfs=h:/a b: must be HOST:/SHARE"),
  ("tpu_vm.sh", (*VM, "--delete", *RUN), "--delete takes no flags"),
  ("queued_resource.sh", (*VM, "--type=v4-8", "--", "--config=c", "--workdir=/d"), "--workdir=/d: must lie in a bucket"),
  ("queued_resource.sh", (*VM, "--type=v4-8", "--wait=long", *RUN), "--wait=long"),
  ("queued_resource.sh", (*VM, "--delete", "--staging=gs://b"), "--staging=gs://b: must be a folder"),
  ("evaluator.sh", (*VM, "--type=v4-32", "--", "--workdir=gs://b/r"), "--type=v4-32: has several hosts"),
  ("evaluator.sh", ("--here", "--spot", "--", "--workdir=w"), "--spot"),
  ("gke_jobset.sh", (*GKE, "--topology=4x", *RUN), "--topology=4x: must be a topology"),
  ("gke_jobset.sh", (*GKE, "--topology=3x3", *RUN), "9 chips, which --chips=4 per host do not divide"),
  ("gke_jobset.sh", (*GKE, "--evaluator=4x4", *RUN), "--evaluator=4x4: has several hosts"),
  ("gke_jobset.sh", (*GKE, "--chips=0", *RUN), "--chips=0"),
  ("xpk.sh", (*XPK, "--", "--config=c", "--workdir=gs://b/r", "--config.x=a\nb"), "line break"),
  ("xpk.sh", (*XPK, "--", "--workdir=gs://b/r"), "lack --config="),
  ("skypilot.sh", ("--name=x", "--", "--config=c", "--workdir=/d"), "--workdir=/d: must lie in a bucket"),
  ("slurm.sbatch", ("--workdir=w",), "lack --config="),
])  # fmt: skip
def test_refuses_by_name(cloud, script, flags, said):
  out = cloud.run("bash", f"launch/{script}", *flags)
  assert (out.returncode, out.stdout) == (1, ""), out.stderr
  assert said in out.stderr and len(out.stderr.splitlines()) == 1 and cloud.calls() == []


# --- Cloud TPU VM -----------------------------------------------------------------------------------------------------


def test_tpu_vm_that_is_preempted_is_made_again_until_the_run_is_done(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe xlmr ", NOT_FOUND, "CREATING", "READY", "PREEMPTED", "PREEMPTED", "READY", "READY")
  cloud.answer("describe xlmr-evaluator", NOT_FOUND)
  cloud.answer("tail -n", [255, "step 10\n", "lost connection"], "step 10\nstep 20\nxlmr-exit 0\n")
  out = cloud.run("launch/tpu_vm.sh", *SLICE, "--delete-at-end", *RUN)
  assert out.returncode == 0, out.stderr
  assert cloud.verbs() == ["create", "delete", "create", "delete"]
  assert out.stdout == "step 10\nstep 10\nstep 20\n" and "PREEMPTED" in out.stderr
  create = cloud.calls(" create ")[0]
  assert {
    "--accelerator-type=v4-32",
    "--version=tpu-ubuntu2204-base",
    "--spot",
    "--service-account=s@p.iam",
    "--project=p",
  } <= set(create)
  assert len(cloud.calls("nohup bash -c")) == 2 and "--hosts=auto" in cloud.calls("nohup")[0][-1]


def test_tpu_vm_stays_when_the_user_must_act_and_says_how_to_delete_it(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe", "READY")
  cloud.answer("tail -n", "error: no rows\nxlmr-exit 1\n")
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-8", *RUN)
  assert out.returncode == 1 and cloud.verbs() == [] and "still there and charged: xlmr." in out.stderr
  (delete,) = re.findall("Delete with: (.*)", out.stderr)
  assert cloud.run(*shlex.split(delete)).returncode == 0 and cloud.verbs() == [
    "delete",
    "delete",
  ]  # The evaluator's as well.


def test_tpu_vm_joins_a_run_that_is_under_way_and_ends_when_nothing_can_be_reached(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe", "READY")
  cloud.answer("pgrep", "xlmr-busy\n")
  cloud.answer("tail -n", [255, "", "no route"])
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-8", *RUN)
  assert out.returncode == 1 and "4 times" in out.stderr
  assert len(cloud.calls("tail -n")) == 4 and not cloud.calls("nohup|scp")


def test_tpu_vm_gives_up_what_it_loses_again_and_again_and_what_cannot_be_seen(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe", "PREEMPTED")
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-8", "--tries=3", *RUN)
  assert out.returncode == 1 and "--tries=3" in out.stderr and cloud.verbs().count("create") == 4
  cloud.answers[1] = ("describe", [[1, "", "network unreachable"]])
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-8", *RUN)
  assert out.returncode == 1 and "the state could not be read 4 times" in out.stderr and cloud.verbs().count("create") == 4


@pytest.fixture
def worker(cloud):
  """The home of a worker, with the files that the start needs, and a Python that notes its arguments and ends with CODE."""
  code = cloud.home / "xlmr_jax"
  (code / "launch").mkdir(parents=True)
  shutil.copy(ROOT / "launch" / "babysit.sh", code / "launch")
  python = code / ".venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  wait = 'N=0; until [ -z "$GATE" ] || [ -e "$GATE" ] || [ $N -gt 300 ]; do N=$((N + 1)); sleep 0.1; done'
  python.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" > {cloud.folder}/args; {wait}; exit "${{CODE:-0}}"\n')
  python.chmod(0o755)
  return cloud.home


def arguments(cloud):
  return (cloud.folder / "args").read_text().split("\0")[:-1]


def test_tpu_vm_flags_reach_the_worker_unchanged_and_the_log_tells_the_end(cloud, worker):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe", "READY")
  cloud.answer("tail -n", "xlmr-exit 0\n")
  assert cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-8", "--", *AWKWARD).returncode == 0
  (start,) = cloud.calls("nohup bash -c")
  # This returns while the run goes on, because nothing in the background holds the streams of the connection.
  gate = cloud.folder / "gate"
  command = start[-1].removeprefix("--command=")
  assert cloud.shell("bash", "-c", command, cwd=worker, CODE="1", GATE=str(gate)).returncode == 0
  assert not (worker / "run.exit").exists()
  gate.touch()
  for _ in range(1000):
    if (worker / "run.exit").exists() and (worker / "run.exit").read_text():
      break
    time.sleep(0.02)
  assert arguments(cloud) == ["-u", "-m", "xlmr_jax", "pretrain", "--hosts=auto", *AWKWARD]
  follow = cloud.calls("tail -n")[0][-1].removeprefix("--command=")
  out = cloud.shell("sh", "-c", follow, cwd=worker)
  assert out.stdout.splitlines()[-1] == "xlmr-exit 1"


def test_tpu_vm_starts_the_evaluator_on_a_machine_of_its_own(cloud):
  cloud.answer("storage ls", [0, "gs://b/run/result.json", ""])  # The evaluator has work left when the run is done.
  cloud.answer("describe xlmr-evaluator", NOT_FOUND, "READY")
  cloud.answer("describe xlmr ", NOT_FOUND)
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-32", "--evaluator=v4-8", *RUN)
  assert out.returncode == 0, out.stderr
  (create,) = cloud.calls(" create ")
  assert create[5:] == ["xlmr-evaluator", "--zone=z", "--accelerator-type=v4-8", "--version=tpu-ubuntu2204-base",
                                 "--scopes=https://www.googleapis.com/auth/cloud-platform"]  # fmt: skip
  (start,) = cloud.calls("nohup")
  assert "evaluate" in start[-1] and "--workdir=gs://b/run" in start[-1] and "--hosts" not in start[-1]


def test_tpu_vm_that_cannot_be_made_leaves_no_evaluator_behind(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe", NOT_FOUND)
  cloud.answer("create xlmr ", [1, "", "no quota"])
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-32", "--evaluator=v4-8", *RUN)
  assert out.returncode == 1 and "could not be asked for" in out.stderr
  assert cloud.verbs() == ["create"] and not cloud.calls("xlmr-evaluator")


@pytest.mark.parametrize("quota", [True, False])
def test_tpu_vm_starts_the_evaluator_after_the_run_and_names_it_at_the_end(cloud, quota):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("create xlmr-evaluator", "" if quota else [1, "", "no quota"])
  cloud.answer("describe xlmr-evaluator", NOT_FOUND, *["READY" if quota else NOT_FOUND])
  cloud.answer("describe xlmr ", NOT_FOUND, "READY")
  cloud.answer("tail -n", [255, "", "lost connection"], "xlmr-exit 1\n")
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-32", "--evaluator=v4-8", *RUN)
  assert out.returncode == 1 and "the run ended with 1" in out.stderr  # Also where the evaluator could not be started.
  done = [call[-1] if call[4] == "ssh" else call[5] for call in cloud.calls(" create |nohup|tail -n")]
  assert done[0] == "xlmr" and "pretrain" in done[1] and done[2] == "xlmr-evaluator"
  assert len(done) == 5 + quota  # It is started once.
  assert ("still there and charged: xlmr xlmr-evaluator." in out.stderr) == quota
  assert ("the evaluator could not be started" in out.stderr) != quota


@pytest.mark.parametrize("script", ["tpu_vm.sh", "queued_resource.sh"])
def test_stop_reaches_the_run_and_its_supervisor_and_nothing_else(cloud, script):
  assert cloud.run(f"launch/{script}", *VM, "--stop").returncode == 0
  (stop,) = cloud.calls()
  assert "--worker=all" in stop and "run.stopped" in stop[-1]
  pattern = split_by_shell(stop[-1].split("pkill ")[1].split("||")[0])[-1]
  run = ".venv/bin/python -u -m xlmr_jax pretrain --hosts=auto"
  for line in (
    run,
    run.replace("pretrain", "evaluate"),
    f"bash launch/babysit.sh {run}",
    f"/usr/bin/bash launch/babysit.sh {run}",
  ):
    assert re.search(pattern, line), line
  for line in (
    f"systemd-run --wait bash launch/babysit.sh {run}",
    f"bash -c trap : TERM; bash launch/babysit.sh {run}",
    stop[-1],
  ):
    assert not re.search(pattern, line), line


def test_tpu_vm_that_somebody_stopped_is_left_alone(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("describe", "STOPPED")
  out = cloud.run("launch/tpu_vm.sh", *VM, "--type=v4-8", *RUN)
  assert out.returncode == 1 and "the TPU is STOPPED" in out.stderr and cloud.verbs() == []


# --- queued resource --------------------------------------------------------------------------------------------------

QUEUE = ("launch/queued_resource.sh", *SLICE)


def test_queued_resource_that_is_suspended_is_asked_for_again_until_the_run_is_done(cloud):
  cloud.answer("storage ls", [1, "", ""])
  states = [
    "WAITING_FOR_RESOURCES",
    "PROVISIONING",
    "ACTIVE",
    "SUSPENDING",
    "SUSPENDED",
    "SUSPENDED",
    "ACCEPTED",
    "ACTIVE",
    "ACTIVE",
  ]
  cloud.answer("queued-resources describe", NOT_FOUND, *states)
  cloud.answer("tail -n", [255, "step 10\n", ""], "step 20\nxlmr-exit 0\n")
  out = cloud.run(*QUEUE, *RUN)
  assert out.returncode == 0, out.stderr
  assert cloud.verbs() == ["create", "delete", "create", "delete"] and out.stdout == "step 10\nstep 20\n"
  assert all("--force" in call and "--quiet" in call for call in cloud.calls("queued-resources delete"))
  create = cloud.calls("queued-resources create")[0]
  assert {
    "--node-id=xlmr",
    "--accelerator-type=v4-32",
    "--runtime-version=tpu-ubuntu2204-base",
    "--spot",
    "--zone=z",
  } <= set(create)
  assert len(cloud.calls("storage cp .*xlmr_jax.tar.gz gs://b/run.launch/xlmr_jax.tar.gz")) == 1  # Both get the same code.


def test_queued_resource_ends_when_the_bucket_says_done(cloud):
  cloud.answer("storage ls gs://b/run/result.json", [1, "", ""], [1, "", ""], [0, "gs://b/run/result.json", ""])
  cloud.answer("queued-resources describe", NOT_FOUND, "SUSPENDED", "SUSPENDED")
  out = cloud.run(*QUEUE, *RUN)  # It was taken away just when it had ended.
  assert out.returncode == 0 and cloud.verbs() == ["create", "delete", "create", "delete"]
  out = cloud.run(*QUEUE, *RUN)
  assert out.returncode == 0 and "remove that file to go on" in out.stderr and cloud.verbs().count("create") == 2


@pytest.mark.parametrize("ending, code, said, deletes", [
  ("xlmr-exit 1\n", 1, "the run ended with 1", 1),
  ("xlmr-exit 42 stopped\n", 42, "still there and is charged", 0),
  ("xlmr-exit 70\n", 70, "gave up with exit 70", 1),
])  # fmt: skip
def test_queued_resource_ends_as_the_run_does(cloud, ending, code, said, deletes):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("queued-resources describe", NOT_FOUND, "ACTIVE")
  cloud.answer("tail -n", ending)
  out = cloud.run(*QUEUE, *RUN)
  assert out.returncode == code and said in out.stderr and cloud.verbs() == ["create", *["delete"] * deletes]


def test_queued_resource_that_always_fails_is_given_up_and_deleted(cloud):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("queued-resources describe", NOT_FOUND, "FAILED")
  out = cloud.run(*QUEUE, "--tries=2", *RUN)
  assert out.returncode == 1 and "--tries=2" in out.stderr
  assert cloud.verbs() == ["create", "delete", "create", "delete", "create", "delete"]


@pytest.mark.parametrize("describe, ssh, said", [
  (["ACTIVE", [1, "", "network unreachable"]], "", "the state could not be read 4 times"),
  (["ACTIVE"], [255, "", "no route"], "could not be started five times"),
  ([NOT_FOUND, "ACTIVE"], [255, "", "no route"], "the log could not be followed 4 times"),
])  # fmt: skip
def test_queued_resource_that_is_out_of_sight_is_left(cloud, describe, ssh, said):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("queued-resources describe", *describe)
  cloud.answer("tpu-vm ssh", ssh)
  out = cloud.run(*QUEUE, *RUN)
  assert out.returncode == 1 and said in out.stderr and "delete" not in cloud.verbs()
  (delete,) = re.findall("its run may go on. Delete it: (.*)", out.stderr)
  cloud.answers = []
  cloud.answer("queued-resources describe", "ACTIVE")
  assert cloud.run(*shlex.split(delete)).returncode == 0 and cloud.verbs()[-1] == "delete"


@pytest.mark.parametrize("states, code, verbs", [
  ([NOT_FOUND, "WAITING_FOR_RESOURCES", "FAILED"], 1, ["create", "delete"]),
  (["WAITING_FOR_RESOURCES", "FAILED"], 1, ["delete"]),  # The launcher was started again meanwhile.
  (["FAILED", "FAILED"], 1, ["delete", "create", "delete"]),  # The request of an earlier launcher, and then ours.
  ([NOT_FOUND, "ACTIVE", "FAILED", "ACTIVE"], 0, ["create", "delete", "create", "delete"]),  # It broke in use.
])  # fmt: skip
def test_queued_resource_gives_up_its_place_when_the_time_to_wait_is_over(cloud, states, code, verbs):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("queued-resources describe.*state.state", *states)
  cloud.answer("tail -n", [255, "", ""], "xlmr-exit 0\n")
  out = cloud.run(*QUEUE, "--wait=6h", *RUN)
  assert (out.returncode, cloud.verbs()) == (code, verbs), out.stderr
  assert out.stderr.count("error: the TPU is FAILED and was never ACTIVE") == code
  assert all("--valid-until-duration=6h" in call for call in cloud.calls("queued-resources create"))


def test_queued_resource_deletes_everything(cloud):
  cloud.answer("queued-resources describe", "ACTIVE")
  assert cloud.run("launch/queued_resource.sh", *VM, "--delete", "--staging=gs://b/run.launch").returncode == 0
  assert cloud.verbs() == ["delete", "rm"] and cloud.calls(" rm ")[0][-1] == "gs://b/run.launch"


@pytest.mark.parametrize("code", ["0", "1"])
def test_a_worker_installs_and_runs_at_boot_with_the_flags_unchanged(cloud, worker, code):
  cloud.answer("storage ls", [1, "", ""])
  cloud.answer("queued-resources describe", NOT_FOUND, "ACTIVE")
  cloud.answer("tail -n", "xlmr-exit 0\n")
  assert cloud.run(*QUEUE, "--", *AWKWARD).returncode == 0
  script = cloud.folder / "startup-script.sh"
  root = cloud.folder / "opt"
  script.write_text(script.read_text().replace("xlmr_root=/opt/xlmr", f"xlmr_root={root}"))
  (worker / "xlmr_jax").rename(root.mkdir() or root / "code")
  for name in ("python3", "tar", "systemd-run", "hostname"):
    cloud.add(name)
  cloud.answer("^systemd-run", [0, "", ""])
  out = cloud.run("bash", script, CODE=code)
  log = (root / "run.log").read_text()
  assert out.returncode == 0, log
  if not Path("/run/systemd/system").is_dir():
    assert arguments(cloud) == ["-u", "-m", "xlmr_jax", "pretrain", "--hosts=auto", *AWKWARD]
    assert (root / "run.exit").read_text() == f"{code}\n" and f"ended with exit {code}" in log
  assert [call[:2] for call in cloud.calls("^(tar|python3)")][:2] == [["tar", "-xzf"], ["python3", "-m"]]
  assert cloud.calls("storage cp run.log gs://b/run one.launch")


def test_a_worker_that_cannot_install_says_so_as_an_end(cloud):
  cloud.answer("storage cp", [1, "", "denied"])
  script = cloud.folder / "boot.sh"
  root = cloud.folder / "opt"
  script.write_text(f"xlmr_staging=gs://b/x\nxlmr_root={root}\nxlmr_flags=()\n" + (ROOT / "launch" / "node.sh").read_text())
  assert cloud.run("bash", script, PAUSE_S="0").returncode == 1
  assert (root / "run.exit").read_text() == "1\n" and "the installation failed (5 of 5)" in (root / "run.log").read_text()
  assert cloud.calls()[-1][:4] == ["gcloud", "storage", "cp", "run.log"] and cloud.calls()[-1][-1].startswith("gs://b/x/")
  (root / "run.stopped").touch()
  assert (
    cloud.run("bash", script).returncode == 0 and len(cloud.calls()) == 6
  )  # A stopped run does not come back by a reboot.


# --- GKE --------------------------------------------------------------------------------------------------------------


def thing(required=(), /, **properties):
  """A JSON schema of an object that has these properties and no others."""
  return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def each(items, least=0):
  return {"type": "array", "items": items, "minItems": least}


def one_of(*values):
  return {"enum": list(values)}


TEXT, BOOL, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
COUNTS = {"type": "object", "additionalProperties": COUNT}
META = thing(["name"], name=TEXT, labels=TEXTS, annotations=TEXTS)
# The fields that the templates use, from https://kubernetes.io/docs/reference/kubernetes-api/ and
# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/
POD = thing(
  ["restartPolicy", "containers"],
  restartPolicy=one_of("Never"),  # A podFailurePolicy allows no other.
  terminationGracePeriodSeconds=COUNT, serviceAccountName=TEXT, nodeSelector=TEXTS, securityContext=thing(runAsUser=COUNT),
  tolerations=each(thing(key=TEXT, operator=one_of("Equal", "Exists"), value=TEXT, effect=one_of("NoSchedule"))),
  volumes=each(thing(["name"], name=TEXT, emptyDir=thing())),
  containers=each(thing(
    ["name", "image"], name=TEXT, image=TEXT, args=each(TEXT), ports=each(thing(["containerPort"], containerPort=COUNT)),
    volumeMounts=each(thing(["name", "mountPath"], name=TEXT, mountPath=TEXT)),
    resources=thing(requests=COUNTS, limits=COUNTS),
  ), 1),
)  # fmt: skip
JOB = thing(
  ["template"], parallelism=COUNT, completions=COUNT, completionMode=one_of("Indexed", "NonIndexed"), backoffLimit=COUNT,
  podFailurePolicy=thing(["rules"], rules=each(thing(
    ["action"], action=one_of("FailJob", "Ignore", "Count", "FailIndex"),
    onExitCodes=thing(["operator", "values"], containerName=TEXT, operator=one_of("In", "NotIn"), values=each(COUNT, 1)),
    onPodConditions=each(thing(["type", "status"], type=TEXT, status=TEXT)),
  ), 1)),
  template=thing(["spec"], spec=POD),
)  # fmt: skip
JOBSET = thing(
  ["apiVersion", "kind", "metadata", "spec"],
  apiVersion=one_of("jobset.x-k8s.io/v1alpha2"), kind=one_of("JobSet"), metadata=META,
  spec=thing(
    ["replicatedJobs"], suspend=BOOL,
    failurePolicy=thing(maxRestarts=COUNT, rules=each(thing(
      ["name", "action"], name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
      action=one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
      onJobFailureReasons=each(one_of("BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy")),
    ))),
    replicatedJobs=each(thing(["name", "template"], name=TEXT, replicas=COUNT, template=thing(["spec"], spec=JOB)), 1),
  ),
)  # fmt: skip
EVALUATOR = thing(
  ["apiVersion", "kind", "metadata", "spec"], apiVersion=one_of("batch/v1"), kind=one_of("Job"), metadata=META, spec=JOB
)


def check(value, schema):
  jsonschema = pytest.importorskip("jsonschema")
  errors = [
    f"{list(error.absolute_path)}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(value)
  ]
  assert not errors, errors


def kubernetes_expands(text):
  """What Kubernetes makes of $ in a container's command and args, for a container without variables."""
  return re.sub(r"\$\$|\$\([^)]*\)", lambda found: "$" if found[0] == "$$" else found[0], text)


@pytest.mark.parametrize(
  "more", [(), ("--spot", "--queue=q", "--as-root", "--service-account=k", "--max-restarts=7", "--grace=90")]
)
def test_gke_applies_a_jobset_and_an_evaluator_as_their_schemas_say(cloud, more):
  yaml = pytest.importorskip("yaml")
  out = cloud.run("launch/gke_jobset.sh", *GKE, *more, "--evaluator=2x2", "--detach", "--namespace=n", "--", *AWKWARD)
  assert out.returncode == 0, out.stderr
  assert [call[1:4] for call in cloud.calls()] == [
    ["--namespace=n", "get", "jobset"], ["--namespace=n", "apply", "-f"],
    ["--namespace=n", "get", "job"], ["--namespace=n", "apply", "-f"],
  ]  # fmt: skip
  jobset, evaluator = (yaml.safe_load((cloud.folder / f"applied{i}").read_text()) for i in range(2))
  check(jobset, JOBSET)
  check(evaluator, EVALUATOR)
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job, pod = replicated["template"]["spec"], replicated["template"]["spec"]["template"]["spec"]
  assert job["completions"] == job["parallelism"] == 4 and job["backoffLimit"] == 0
  assert job["podFailurePolicy"]["rules"] == [
    {"action": "FailJob", "onExitCodes": {"containerName": "xlmr", "operator": "In", "values": [1]}}
  ]
  assert pod["nodeSelector"].get("cloud.google.com/gke-spot") == ("true" if more else None)
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == (7 if more else 100)
  (container,) = pod["containers"]
  assert [kubernetes_expands(word) for word in container["args"]] == ["pretrain", "--hosts=auto", *AWKWARD]
  assert evaluator["spec"]["template"]["spec"]["containers"][0]["args"] == ["evaluate", "--workdir=gs://b/run one"]
  assert evaluator["spec"]["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x2"


def test_the_schemas_refuse_what_the_api_does_not_have(cloud):
  yaml, jsonschema = pytest.importorskip("yaml"), pytest.importorskip("jsonschema")
  text = (ROOT / "launch" / "gke_jobset.yaml").read_text()
  for good, bad in (
    ("maxRestarts:", "maxRestart:"),
    ("restartPolicy: Never", "restartPolicy: OnFailure"),
    ("FailJobSet", "FailJobset"),
  ):
    filled = re.sub(r"\$\{[A-Z_]+\}", "1", text.replace(good, bad))
    assert any(
      bad.split()[-1].rstrip(":") in str(error)
      for error in jsonschema.Draft202012Validator(JOBSET).iter_errors(yaml.safe_load(filled))
    )


@pytest.mark.parametrize("states, code, said", [
  (["", "Suspended"], 42, "is suspended"), (["", "", "Completed"], 0, "the run is done"),
  (["StartupPolicyCompleted", "Failed"], 1, "the run failed"), ([[1, "", "no route"]], 1, "4 times"),
])  # fmt: skip
def test_gke_follows_to_the_end(cloud, states, code, said):
  cloud.answer("get jobset.*status==", *states)
  cloud.answer("kubectl logs", "step 10\n")
  out = cloud.run("launch/gke_jobset.sh", "--name=xlmr", "--follow")
  assert (out.returncode, said in out.stderr) == (code, True), out.stderr


@pytest.mark.parametrize("job", ["job.batch/xlmr-evaluator", ""])
def test_gke_names_the_evaluator_that_a_failed_run_leaves(cloud, job):
  cloud.answer("get jobset.*status==", "Failed")
  cloud.answer("get job xlmr-evaluator", job)
  out = cloud.run("launch/gke_jobset.sh", "--name=xlmr", "--namespace=n", "--follow")
  assert out.returncode == 1 and ("xlmr-evaluator is still there" in out.stderr) == bool(job)
  for delete in re.findall("and the JobSet: (.*)", out.stderr):
    assert cloud.run(*shlex.split(delete)).returncode == 0
    assert [call[1:5] for call in cloud.calls("delete")] == [
      ["--namespace=n", "delete", "jobset", "xlmr"],
      ["--namespace=n", "delete", "job", "xlmr-evaluator"],
    ]


def test_gke_waits_while_what_it_applied_is_still_suspended(cloud):
  cloud.answer("get jobset.*status==", "Suspended", "Suspended", "", "Suspended")
  assert cloud.run("launch/gke_jobset.sh", *GKE, *RUN).returncode == 42
  assert len(cloud.calls("get jobset")) == 4 and len(cloud.calls("logs")) == 1


@pytest.mark.parametrize("jobset, job, deleted", [
  ("Failed", "Complete", ["jobset xlmr", "job xlmr-evaluator"]), ("StartupPolicyCompleted Completed", "", ["jobset xlmr"]),
  ("", "SuccessCriteriaMet Complete", ["job xlmr-evaluator"]), ("Suspended", "FailureTarget", []), ("", "", []),
])  # fmt: skip
def test_gke_makes_again_what_has_ended(cloud, jobset, job, deleted):
  """The same document would be no change, so that nothing would run."""
  cloud.answer("get jobset", jobset)
  cloud.answer("get job ", job)
  out = cloud.run("launch/gke_jobset.sh", *GKE, "--evaluator=2x2", "--detach", *RUN)
  assert out.returncode == 0, out.stderr
  assert [" ".join(call[2:4]) for call in cloud.calls("delete")] == deleted
  verbs = ["delete", "apply"]
  assert cloud.verbs() == [
    *verbs[not any("jobset" in it for it in deleted) :], *verbs[not any("job " in it for it in deleted) :]
  ]  # fmt: skip
  assert out.stderr.count("has ended; it is deleted") == len(deleted)
  assert all("--cascade=foreground" in call for call in cloud.calls("delete"))  # Its Jobs have the names of the new ones.


def test_gke_applies_nothing_where_it_cannot_see_what_is_there(cloud):
  cloud.answer("get jobset", [1, "", "no route"])
  out = cloud.run("launch/gke_jobset.sh", *GKE, "--detach", *RUN)
  assert out.returncode == 1 and "could not be asked" in out.stderr and cloud.verbs() == []
  cloud.answers = []
  cloud.answer("get jobset", "Failed")
  cloud.answer("delete", [1, "", "forbidden"])
  out = cloud.run("launch/gke_jobset.sh", *GKE, "--detach", *RUN)
  assert out.returncode == 1 and "could not be deleted" in out.stderr and "apply" not in cloud.verbs()


def test_gke_stops_and_deletes(cloud):
  assert cloud.run("launch/gke_jobset.sh", "--name=xlmr", "--stop").returncode == 0
  assert json.loads(cloud.calls("patch")[0][-1].removeprefix("--patch=")) == {"spec": {"suspend": True}}
  assert cloud.run("launch/gke_jobset.sh", "--name=xlmr", "--delete").returncode == 0
  assert [call[2:4] for call in cloud.calls("delete")] == [["jobset", "xlmr"], ["job", "xlmr-evaluator"]]


# --- xpk, SkyPilot, Slurm ---------------------------------------------------------------------------------------------


def split_by_shell(text):
  out = subprocess.run(["bash", "-c", f'printf "%s\\0" {text}'], capture_output=True, text=True, check=True)
  return out.stdout.split("\0")[:-1]


def test_xpk_starts_waits_and_deletes(cloud):
  out = cloud.run("launch/xpk.sh", *XPK, "--spot", "--", *AWKWARD)
  assert out.returncode == 0, out.stderr
  create, wait = cloud.calls()
  command = create[-1].removeprefix("--command=")
  assert split_by_shell(kubernetes_expands(command)) == ["exec", "xlmr", "pretrain", "--hosts=auto", *AWKWARD]
  assert {
    "--restart-on-exit-codes=70",
    "--max-restarts=100",
    "--tpu-type=v5litepod-16",
    "--docker-image=i",
    "--spot",
  } <= set(create)
  assert wait == ["xpk", "workload", "list", "--cluster=c", "--wait-for-job-completion=xlmr"]
  cloud.answer("workload list", [125, "", ""])
  out = cloud.run("launch/xpk.sh", *XPK[:2], "--follow")
  assert out.returncode == 1 and "the workload xlmr failed" in out.stderr
  assert cloud.run("launch/xpk.sh", *XPK[:2], "--delete").returncode == 0
  assert cloud.calls("delete")[0] == ["xpk", "workload", "delete", "--cluster=c", "--workload=xlmr", "--force"]


# The fields that launch/skypilot.yaml uses, from https://docs.skypilot.co/en/latest/reference/yaml-spec.html
SKYPILOT = thing(
  ["resources", "run"], name=TEXT, workdir=TEXT, setup=TEXT, run=TEXT,
  envs={"type": "object", "additionalProperties": {"type": ["string", "null"]}},
  resources=thing(
    infra=TEXT, accelerators=TEXT, accelerator_args=thing(runtime_version=TEXT), use_spot=BOOL, disk_size=COUNT,
    job_recovery=thing(
      max_restarts_on_errors=COUNT,
      # SkyPilot uses 137 itself.
      recover_on_exit_codes=each({"type": "integer", "minimum": 0, "maximum": 255, "not": {"const": 137}}),
    ),
  ),
)  # fmt: skip


def test_skypilot_launches_the_task_with_the_flags_unchanged(cloud, worker):
  yaml = pytest.importorskip("yaml")
  task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
  check(task, SKYPILOT)
  assert task["resources"]["use_spot"] and 42 in task["resources"]["job_recovery"]["recover_on_exit_codes"]
  out = cloud.run("launch/skypilot.sh", "--name=xlmr", "--infra=gcp/r", "--", *AWKWARD)
  assert out.returncode == 0, out.stderr
  (launch,) = cloud.calls()
  assert (
    launch[:8] == ["sky", "jobs", "launch", "--name", "xlmr", "--yes", "--infra", "gcp/r"]
    and launch[-1] == "launch/skypilot.yaml"
  )
  (name, _, flags) = launch[-2].partition("=")
  assert cloud.shell("bash", "-c", task["run"], cwd=worker / "xlmr_jax", **{name: flags}).returncode == 0
  assert arguments(cloud) == ["-u", "-m", "xlmr_jax", "pretrain", "--hosts=auto", *AWKWARD]
  assert cloud.run("launch/skypilot.sh", "--name=xlmr", "--delete").returncode == 0
  assert cloud.calls()[-1] == ["sky", "jobs", "cancel", "--name", "xlmr", "--yes"]


SLURM = {"SLURM_JOB_ID": "7", "XLMR": "xlmr"}


@pytest.mark.parametrize("code, state, restarts, requeued", [
  (0, "RUNNING", 0, False), (1, "RUNNING", 0, False), (42, "RUNNING", 0, True), (137, "RUNNING", 99, True),
  (134, "RUNNING", 100, False), (42, "CANCELLED", 0, False),
])  # fmt: skip
def test_slurm_requeues_what_must_be_started_again(cloud, code, state, restarts, requeued):
  cloud.answer("^srun", [code, "", ""])
  cloud.answer("scontrol show job 7", f"JobId=7 JobName=xlmr\n   JobState={state} Reason=None\n")
  out = cloud.run("bash", "launch/slurm.sbatch", *AWKWARD, **SLURM, SLURM_RESTART_COUNT=str(restarts))
  assert out.returncode == (0 if requeued else code), out.stderr
  assert cloud.calls("^srun")[0] == ["srun", "--kill-on-bad-exit=0", "xlmr", "pretrain", "--hosts=auto", *AWKWARD]
  assert [call for call in cloud.calls("requeue")] == [["scontrol", "requeue", "7"]] * requeued


def test_slurm_passes_term_on_and_requeues(cloud):
  srun = cloud.folder / "bin" / "srun"  # It goes on until scancel tells it to end.
  srun.write_text(f"#!/bin/sh\ntouch {cloud.folder}/began; until [ -e {cloud.folder}/told ]; do sleep 0.05; done; exit 42\n")
  scancel = cloud.folder / "bin" / "scancel"
  scancel.write_text(f'#!/bin/sh\necho "$@" > {cloud.folder}/told\n')
  scancel.chmod(0o755)
  cloud.answer("scontrol show job 7", "JobState=RUNNING")
  waits = f"until [ -e {cloud.folder}/began ]; do sleep 0.05; done"
  script = f"bash launch/slurm.sbatch --config=c --workdir=w & {waits}; kill -TERM $!; wait $!"
  out = cloud.run("bash", "-c", script, **SLURM)
  assert out.returncode == 0, out.stderr
  assert (cloud.folder / "told").read_text() == "--signal=TERM 7\n" and len(cloud.calls("scontrol requeue 7")) == 1


def test_slurm_asks_for_term_ahead_of_the_time_limit():
  lines = [line for line in (ROOT / "launch" / "slurm.sbatch").read_text().splitlines() if line.startswith("#SBATCH")]
  flags = " ".join(lines).replace("#SBATCH ", "").split()
  assert "--requeue" in flags and "--signal=B:TERM@120" in flags and "--open-mode=append" in flags
