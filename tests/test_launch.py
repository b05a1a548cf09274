"""The launch scripts: what babysit starts again and gives up, the corpus scripts."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shell(*line, **env):
  return subprocess.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True, env=os.environ | env, timeout=240)


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


@pytest.mark.parametrize("ending", ["exit 42", "exit 70", "kill -ABRT $$", "kill -KILL $$", "kill -TERM $$"])
def test_babysit_starts_again_whatever_a_lost_peer_ends_the_run_with(tmp_path, ending):
  script = f"[ -e {tmp_path}/once ] && exit 0; touch {tmp_path}/once; {ending}"
  out = shell("bash", "launch/babysit.sh", "bash", "-c", script, PAUSE_S="0")
  assert out.returncode == 0 and out.stderr.count("starting again") == 1


def count_starts(tmp_path, step, *words, **env):
  """How often babysit starts a command that does `step` each time, and how it ends. N in `step` counts the starts."""
  script = f"echo >> {tmp_path}/starts; N=$(wc -l < {tmp_path}/starts); [ $N -gt 9 ] && exit 0; {step}; exit 42"
  out = shell("bash", "launch/babysit.sh", "bash", "-c", script, "-", *words, f"--workdir={tmp_path}", PAUSE_S="0", **env)
  return len((tmp_path / "starts").read_text()), out.returncode


@pytest.mark.parametrize("step, words, env, expected", [
  ("mkdir -p {0}/checkpoints/$N", (), {}, (10, 0)),  # Each start leaves a newer checkpoint.
  ("mkdir -p {0}/checkpoints/$N.tmp", (), {}, (5, 42)),  # An unfinished one is no progress.
  ("mkdir -p {0}/checkpoints/70", (), {"SHORT_S": "0", "STUCK": "3"}, (4, 42)),  # Long starts that lead nowhere.
  ("true", (), {"SHORT_S": "0", "STUCK": "3"}, (3, 42)),  # Long starts that never save anything.
  # A checkpoint that vanishes and comes back is no progress.
  ("rm -rf {0}/checkpoints; [ $N = 2 ] || mkdir -p {0}/checkpoints/7", (), {"SHORT_S": "0", "STUCK": "3"}, (4, 42)),
  ("mkdir -p {0}/checkpoints/$N", ("evaluate",), {}, (5, 42)),  # The trainer's progress is not the evaluator's.
  ("mkdir -p {0}/evaluations; touch {0}/evaluations/$N.json", ("evaluate",), {}, (10, 0)),
])  # fmt: skip
def test_babysit_gives_up_what_makes_no_progress(tmp_path, step, words, env, expected):
  assert count_starts(tmp_path, step.format(tmp_path), *words, **env) == expected


@pytest.mark.parametrize("step, env, expected", [
  ("mkdir -p '{0}/a=1,b=2/checkpoints/'$N", {}, (10, 0)),  # Quick starts, each of which gets a run further.
  ("mkdir -p {0}/a=$N; touch {0}/a=$N/result.json", {}, (10, 0)),
  ("mkdir -p {0}/a/evaluations; touch {0}/a/evaluations/$N.json", {}, (10, 0)),
  ("mkdir -p {0}/a/evaluations/final; touch {0}/a/evaluations/final/$N.json", {}, (10, 0)),
  ("mkdir -p {0}/rows/v$N; touch {0}/rows/v$N/manifest.json", {}, (10, 0)),
  # One run goes on where another one stays, and a checkpoint of one step is another one in each run.
  ("mkdir -p {0}/a/checkpoints/900 {0}/b$N/checkpoints/4", {}, (10, 0)),
  ("mkdir -p {0}/a/checkpoints/$N.tmp {0}/b$N", {}, (5, 42)),
  ("mkdir -p {0}/checkpoints/$N", {}, (5, 42)),  # That is no run of the sweep.
  ("mkdir -p {0}/a/checkpoints/7", {"SHORT_S": "0", "STUCK": "3"}, (4, 42)),
  ("rm -rf {0}/a; [ $N = 2 ] || mkdir -p {0}/a/checkpoints/7", {"SHORT_S": "0", "STUCK": "3"}, (4, 42)),
])  # fmt: skip
def test_babysit_sees_the_progress_of_any_run_of_a_sweep(tmp_path, step, env, expected):
  assert count_starts(tmp_path, step.format(tmp_path), "sweep", **env) == expected


@pytest.mark.parametrize("form", [("--workdir=~/my runs",), ("--workdir", "~/my runs"), ("-workdir", "~/my runs")])
def test_babysit_finds_a_workdir_by_its_tilde_and_names_with_spaces(tmp_path, form):
  """In every form that the command itself takes."""
  script = f'echo >> {tmp_path}/starts; N=$(wc -l < {tmp_path}/starts); [ $N -gt 6 ] && exit 0; mkdir -p "$1"/$N; exit 42'
  folder = tmp_path / "my runs" / "checkpoints"
  line = ("bash", "launch/babysit.sh", "bash", "-c", script, "-", folder, *form)
  assert shell(*line, PAUSE_S="0", HOME=str(tmp_path)).returncode == 0 and (folder / "6").is_dir()


def test_babysit_counts_nothing_while_a_workdir_cannot_be_listed(tmp_path):
  (tmp_path / "bin").mkdir()
  (tmp_path / "bin" / "ls").write_text("#!/bin/sh\necho 'ls: cannot access: Stale file handle' >&2; exit 2\n")
  (tmp_path / "bin" / "ls").chmod(0o755)
  env = {"SHORT_S": "0", "STUCK": "3", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
  assert count_starts(tmp_path, "true", **env) == (10, 0)
  (tmp_path / "starts").unlink()
  assert count_starts(tmp_path, "true", "sweep", **env) == (10, 0)


def test_babysit_sees_the_progress_of_a_sweep_in_a_bucket(tmp_path):
  gcloud = tmp_path / "bin" / "gcloud"
  gcloud.parent.mkdir()
  gcloud.write_text(
    f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
case $3 in
  *'/*/checkpoints/') printf 'gs://b/s/a=1/checkpoints/:\\ngs://b/s/a=1/checkpoints/9/\\n\\ngs://b/s/b=1/checkpoints/:\\n'
    echo gs://b/s/b=1/checkpoints/$(wc -l < {tmp_path}/starts)/;;
  *) echo 'ERROR: (gcloud.storage.ls) One or more URLs matched no objects.' >&2; exit 1;;
esac
"""
  )
  gcloud.chmod(0o755)
  script = f"echo >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -gt 6 ]; exit $((42 * $?))"
  line = ("bash", "launch/babysit.sh", "bash", "-c", script, "sweep", "--workdir=gs://b/s")
  out = shell(*line, PAUSE_S="0", PATH=f"{gcloud.parent}:{os.environ['PATH']}")
  assert out.returncode == 0, out.stderr
  assert {"storage ls gs://b/s/*/checkpoints/", "storage ls gs://b/s/*/result.json"} <= {
    *(tmp_path / "asked").read_text().splitlines()
  }


def test_babysit_sees_progress_in_a_bucket(tmp_path):
  gcloud = tmp_path / "bin" / "gcloud"
  gcloud.parent.mkdir()
  gcloud.write_text(
    f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho gs://b/run/checkpoints/9/\ncat {tmp_path}/starts | wc -l | sed s,.*,gs://b/run/checkpoints/1\\&/,\n'
  )
  gcloud.chmod(0o755)
  script = f"echo >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -gt 6 ]; exit $((42 * $?))"
  line = ("bash", "launch/babysit.sh", "bash", "-c", script, "-", "--workdir=gs://b/run")
  out = shell(*line, PAUSE_S="0", PATH=f"{gcloud.parent}:{os.environ['PATH']}")
  assert out.returncode == 0 and (tmp_path / "asked").read_text().splitlines()[0] == "storage ls gs://b/run/checkpoints/"


@pytest.mark.parametrize("listing, expected", [
  ("echo 'ERROR: (gcloud.storage.ls) One or more URLs matched no objects.' >&2; exit 1", (3, 42)),
  ("echo 'ERROR: (gcloud.storage.ls) no route to host' >&2; exit 1", (7, 0)),  # Nobody knows, so nothing is counted.
])  # fmt: skip
def test_babysit_gives_up_what_never_saves_in_a_bucket(tmp_path, listing, expected):
  gcloud = tmp_path / "bin" / "gcloud"
  gcloud.parent.mkdir()
  gcloud.write_text(f"#!/bin/sh\n{listing}\n")
  gcloud.chmod(0o755)
  script = f"echo >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -gt 6 ]; exit $((42 * $?))"
  line = ("bash", "launch/babysit.sh", "bash", "-c", script, "-", "--workdir=gs://b/run")
  out = shell(*line, PAUSE_S="0", SHORT_S="0", STUCK="3", PATH=f"{gcloud.parent}:{os.environ['PATH']}")
  assert (len((tmp_path / "starts").read_text()), out.returncode) == expected
  assert ("3 starts in a row left no checkpoint, the last with exit 42" in out.stderr) == (out.returncode == 42)


def test_local_dry_run_prints_a_command_per_process():
  out = shell("bash", "launch/local.sh", "--dry-run", "2", "--config=a b", PORT="5")
  lines = [shlex.split(line) for line in out.stdout.splitlines()]
  assert [line[-2:] for line in lines] == [["--process=0", "--config=a b"], ["--process=1", "--config=a b"]]
  assert all("--coordinator=127.0.0.1:5" in line for line in lines)


def test_corpus_slurm_starts_its_share_and_refuses_to_run_outside_an_array(tmp_path):
  out = shell("bash", "launch/corpus_slurm.sh", "--out=x")
  assert out.returncode != 0 and "sbatch --array=0-N" in out.stderr
  slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0", "XLMR": "echo"}
  out = shell("bash", "launch/corpus_slurm.sh", "--source=wet:@a list.txt", "--out=x", **slurm)
  assert (out.returncode, out.stdout) == (0, "build_corpus --source=wet:@a list.txt --out=x --task=3/8\n")
  out = shell("bash", "launch/corpus_slurm.sh", "--out=x", **slurm | {"SLURM_ARRAY_TASK_MIN": "1"})
  assert out.returncode == 1 and "must begin at 0" in out.stderr


DATAFLOW = ("--project=p", "--region=r", "--image=i", "--temp=gs://b/t", "--dry-run")


@pytest.mark.parametrize(
  "given",
  [
    ("--source=wet:@/data/l", "--out=/data/c"),
    ("--source=wet:gs://b/x y/*.gz", "--out=gs://b/c"),
    ("--source=wet:@list of files", "--out=gs://b/c"),
  ],
)
def test_corpus_dataflow_prints_a_command_whose_flags_beam_knows(given):
  beam = pytest.importorskip("apache_beam.options.pipeline_options")
  out = shell("bash", "launch/corpus_dataflow.sh", *DATAFLOW, "--", *given)
  assert out.returncode == 0, out.stderr
  name, command, *flags = shlex.split(out.stdout)
  assert (name, command, flags[:2]) == ("xlmr", "build_corpus", list(given))
  options = beam.PipelineOptions(flags[2:])
  assert set(options.get_all_options(retain_unknown_options=True)) == set(options.get_all_options())


@pytest.mark.parametrize(
  "given, said",
  [
    ((*DATAFLOW, "--", "--source=wet:gs://b/x"), "--out=gs://... or --out=/data/"),
    ((*DATAFLOW, "--", "--source=wet:gs://b/x", "--out=here"), "--out=gs://... or --out=/data/"),
    ((*DATAFLOW, "--", "--source=wet:x", "--out=gs://b/c"), "copy the text to a bucket"),
    ((*DATAFLOW, "--", "--out=/data/c"), "--source="),
    (("--project=p", "--dry-run"), "--region is needed"),
    ((*DATAFLOW, "--temp=/tmp", "--"), "gs://"),
    ((*DATAFLOW, "--wokers=3"), "unknown option --wokers=3"),
  ],
)
def test_corpus_dataflow_refuses_by_name(given, said):
  out = shell("bash", "launch/corpus_dataflow.sh", *given)
  assert out.returncode == 1 and said in out.stderr and out.stdout == ""
