#!/usr/bin/env bash
# One run on a Cloud TPU VM or pod slice: create or reuse it, install, start on all workers, follow.
#   launch/tpu_vm.sh --name=xlmr --zone=us-central2-b --type=v4-32 [--project=P] [--version=V] [--spot] [--dry-run] \
#       -- --config=base --config.data.rows=/data/rows --workdir=/data/runs/base
#   launch/tpu_vm.sh ... --stop      TERM to every worker: the run saves one common step and ends with 42
#   launch/tpu_vm.sh ... --follow    the log of worker 0, from a run started before
# The workdir and the rows must be in one folder that all workers share. --nfs=HOST:/SHARE mounts one, such as Filestore, at
# /data. A gcsfuse mount will not do, because checkpoints are committed by renaming folders and logs are appended to.
# The run is started again when it ends with 42 or is killed. It stops at 0 (done) and 1 (the user must act).
# --dry-run prints every command and runs none.
set -euo pipefail
name='' zone='' type='' project='' version='' nfs='' spot='' dry='' action=start
die() { echo "error: $1" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --zone=*) zone=${1#*=};; --type=*) type=${1#*=};; --project=*) project=${1#*=};;
    --version=*) version=${1#*=};; --nfs=*) nfs=${1#*=};; --spot) spot=--spot;; --dry-run) dry=1;;
    --stop) action=stop;; --follow) action=follow;; --) shift; break;;
    *) die "unknown option $1; the run's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] && [ -n "$zone" ] || die "--name and --zone are needed"
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "--name=$name: lower-case letters, digits and dashes, a letter first"
if [ "$action" = start ]; then
  [ -n "$type" ] || die "--type is needed, such as v4-32 or v5litepod-16"
  case " $* " in *" --workdir="*) ;; *) die "the run's flags (behind --) lack --workdir=";; esac
  case " $* " in *" --config="*) ;; *) die "the run's flags (behind --) lack --config=";; esac
fi
if [ -z "$version" ]; then  # the images that Google documents for each generation
  case $type in
    v4-*) version=tpu-ubuntu2204-base;; v5litepod-*) version=v2-alpha-tpuv5-lite;; v5p-*) version=v2-alpha-tpuv5;;
    v6e-*) version=v2-alpha-tpuv6e;; '') ;; *) die "--type=$type: pass its image as --version=";;
  esac
fi
run() { if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi; }
at=(--zone="$zone"); [ -z "$project" ] || at+=(--project="$project")
tpu=(gcloud compute tpus tpu-vm)
on_workers() { run "${tpu[@]}" ssh "$name" "${at[@]}" --worker="$1" --command="$2"; }

if [ "$action" = stop ]; then on_workers all "pkill -TERM -f '[x]lmr_jax pretrain' || true"; exit; fi
if [ "$action" = follow ]; then on_workers 0 "tail -n 50 -F xlmr_jax_run.log"; exit; fi

cd "$(dirname "$0")/.."
[ -n "$dry" ] || command -v gcloud >/dev/null || die "gcloud is not installed: https://cloud.google.com/sdk"
[ -n "$dry" ] || [ -z "$(git status --porcelain)" ] || echo "note: only committed files are sent; there are uncommitted changes" >&2
if [ -n "$dry" ] || ! "${tpu[@]}" describe "$name" "${at[@]}" >/dev/null 2>&1; then
  run "${tpu[@]}" create "$name" "${at[@]}" --accelerator-type="$type" --version="$version" ${spot:+"$spot"}
fi
archive=xlmr_jax.tar.gz
[ -n "$dry" ] || { folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; archive=$folder/xlmr_jax.tar.gz; }
run git archive --format=tar.gz --output="$archive" HEAD
run "${tpu[@]}" scp "$archive" "$name": "${at[@]}" --worker=all
if [ -n "$nfs" ]; then
  on_workers all "sudo apt-get install -qy nfs-common && sudo mkdir -p /data && (mountpoint -q /data || sudo mount -t nfs $nfs /data)"
fi
# The images' own Python may be older than 3.11, so uv brings one.
on_workers all "mkdir -p xlmr_jax && tar -xzf xlmr_jax.tar.gz -C xlmr_jax && cd xlmr_jax && python3 -m pip install -q --user uv && \
python3 -m uv venv -q --python 3.12 .venv && python3 -m uv pip install -q --python .venv/bin/python -r requirements.txt 'jax[tpu]'"
flags=$(printf '%q ' "$@")
on_workers all "cd xlmr_jax && ! pgrep -f '[l]aunch/babysit.sh' || { echo 'a run is under way here: --stop it first' >&2; exit 1; }"
on_workers all "cd xlmr_jax && nohup bash launch/babysit.sh .venv/bin/python -u -m xlmr_jax pretrain --hosts=auto $flags \
> ../xlmr_jax_run.log 2>&1 < /dev/null &"
on_workers 0 "tail -n +1 -F xlmr_jax_run.log"
