#!/usr/bin/env bash
# One run as a managed job of SkyPilot, on spot TPUs by default: start, follow, and cancel.
#   launch/skypilot.sh --name=xlmr [--accelerators=tpu-v6e-16] [--infra=gcp/us-east5] [--no-spot] [--detach] [--dry-run] \
#       -- --config=base --config.data.rows=gs://B/rows --workdir=gs://B/runs/base
#   launch/skypilot.sh --name=xlmr --follow    the log of the job
#   launch/skypilot.sh --name=xlmr --delete    cancels the job, and SkyPilot deletes the machines; the first command goes on
# launch/skypilot.yaml says the rest. The VMs' service account must be able to use the bucket. SkyPilot keeps a small controller VM
# for its jobs, which `sky down` deletes. --dry-run prints the commands. SkyPilot: https://docs.skypilot.co
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
name='' accelerators='' infra='' spot='' detach='' action=start
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --accelerators=*) accelerators=${1#*=};; --infra=*) infra=${1#*=};; --no-spot) spot=--no-use-spot;;
    --detach) detach=--detach-run;; --follow) action=follow;; --delete) action=delete;;
    --dry-run) dry=1;; --help) help;; --) shift; break;;
    *) die "unknown option $1; the run's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] || die "--name is needed"
check_name "$name"
check_tool sky "pip install 'skypilot[gcp]'"
case $action in
  follow) run sky jobs logs --name "$name" --follow; exit;;
  delete) run sky jobs cancel --name "$name" --yes; exit;;
esac
check_run pretrain "$@"
[[ $(value_of workdir "$@") == gs://* ]] || die "--workdir=$(value_of workdir "$@"): must lie in a bucket, because a machine's disk goes with it"
cd "$here/.."
run sky jobs launch --name "$name" --yes ${detach:+"$detach"} ${accelerators:+--gpus "$accelerators"} ${infra:+--infra "$infra"} \
  ${spot:+"$spot"} --env XLMR_FLAGS="$(quoted "$@")" launch/skypilot.yaml
