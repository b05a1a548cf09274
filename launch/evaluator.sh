#!/usr/bin/env bash
# The evaluator of a run, on chips of its own: it follows the checkpoints in the run's bucket, scores them, and may end the training.
#   launch/evaluator.sh --name=xlmr-evaluator --zone=us-central2-b --type=v4-8 [--spot] [--service-account=S] [--project=P] \
#       [--version=V] [--nfs=HOST:/SHARE] [--delete-at-end] [--detach] [--dry-run] \
#       -- --workdir=gs://B/runs/base [--config.evaluate.tasks=xnli,panx --config.evaluate.folder=gs://B/tasks]
#   launch/evaluator.sh --here [--dry-run] -- --workdir=gs://B/runs/base      on this machine
#   launch/evaluator.sh --name=xlmr-evaluator --zone=Z --stop|--follow|--delete
# The tasks are the run's own; where it was started without, they are given here.
# It may start before the run and end after it. Starting it again goes on with what is not scored yet. --detach returns once it
# runs. It needs one host: up to eight cores of v4 and v5p, up to eight chips of v5e and v6e. --dry-run prints the commands.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
local='' type='' words=()
while [ $# -gt 0 ]; do
  case $1 in
    --here) local=1;; --help) help;; --dry-run) dry=1; words+=("$1");; --) shift; break;;
    --type=*) type=${1#*=}; words+=("$1");;
    --name=*|--zone=*|--project=*|--version=*|--service-account=*|--nfs=*|--tries=*) words+=("$1");;
    --spot|--delete-at-end|--detach|--stop|--follow|--delete) words+=("$1");;
    *) die "unknown option $1; the evaluator's own flags go behind --";;
  esac
  shift
done
if [ -n "$local" ]; then
  [ ${#words[@]} -eq 0 ] || [ "${words[*]}" = --dry-run ] || die "--here takes no flags of a VM: ${words[*]}"
  check_run evaluate "$@"
  python=${PYTHON:-python3}; [ -n "${PYTHON:-}" ] || { [ -x "$here/../.venv/bin/python" ] && python=$here/../.venv/bin/python; }
  run bash "$here/babysit.sh" "$python" -u -m xlmr_jax evaluate "$@"
  exit
fi
if [[ $type =~ -([0-9]+)$ ]] && [ "${BASH_REMATCH[1]}" -gt 8 ]; then
  die "--type=$type: has several hosts, and the evaluator uses one; take a type that ends in -8 or less"
fi
exec "$here/tpu_vm.sh" --run=evaluate ${words[@]+"${words[@]}"} ${1:+-- "$@"}
