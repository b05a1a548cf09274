#!/usr/bin/env bash
# What queued_resource.sh lets every worker do when it boots: install the code, run it under babysit.sh, keep the log in the bucket.
# The launcher puts three lines before it: xlmr_staging (a folder in the bucket), xlmr_root (a folder here) and xlmr_flags (an array).
# It runs as root, once per boot, so a worker that reboots joins the run again.
set -u
case ${1:-} in --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0;; esac
: "${xlmr_staging:?it is put before this script by launch/queued_resource.sh}" "${xlmr_root:?}"
mkdir -p "$xlmr_root" && cd "$xlmr_root" || exit 1
# The images have gcloud as a snap. A start-up script has no HOME, which pip and uv need.
export PATH=$PATH:/snap/bin:/root/.local/bin HOME=${HOME:-/root}
exec >> run.log 2>&1
echo "node: boot of $(hostname) at $(date -u)"
[ ! -e run.stopped ] || { echo "node: the run was stopped; it is not started again"; exit 0; }
rm -f run.exit

# The disk goes with the machine, which the launcher may delete as soon as run.exit is there.
keep_log() { gcloud storage cp run.log "$xlmr_staging/$(hostname).log"; }
install() {
  gcloud storage cp "$xlmr_staging/xlmr_jax.tar.gz" xlmr_jax.tar.gz && mkdir -p code && tar -xzf xlmr_jax.tar.gz -C code &&
    python3 -m pip install -q uv &&
    { [ -d code/.venv ] || python3 -m uv venv -q --python 3.12 code/.venv; } &&
    python3 -m uv pip install -q --python code/.venv/bin/python './code[tpu,gcs,evaluate]'
}
for try in 1 2 3 4 5; do
  if install; then break; fi
  echo "node: the installation failed ($try of 5)"
  [ "$try" -lt 5 ] || { keep_log; echo 1 > run.exit; exit 1; }
  sleep "${PAUSE_S:-30}"
done

# shellcheck disable=SC2154
command=(bash launch/babysit.sh .venv/bin/python -u -m xlmr_jax pretrain --hosts=auto "${xlmr_flags[@]}")
cd code || exit 1
if [ -d /run/systemd/system ]; then
  # As a unit of its own the run hears TERM when the machine begins to shut down, and while it still has a network.
  systemd-run --unit="xlmr-$(date +%s)" --wait --pipe --collect --property=TimeoutStopSec=60 --property=After=network-online.target \
    --working-directory="$PWD" --setenv=PATH="$PATH" --setenv=HOME="$HOME" "${command[@]}"
else
  "${command[@]}"
fi
code=$?
cd ..
echo "node: the run ended with exit $code"
keep_log
# The launcher waits for this file, so it comes last.
if [ -e run.stopped ]; then echo "$code stopped" > run.exit; else echo "$code" > run.exit; fi
