#!/usr/bin/env bash
# One run on a GKE cluster that xpk made: start a workload, wait for its end, or delete it.
#   launch/xpk.sh --name=xlmr --cluster=C --type=v5litepod-16 --image=IMAGE [--project=P] [--zone=Z] [--spot] [--max-restarts=100] \
#       [--grace=60] [--priority=medium] [--detach] [--dry-run] -- --config=base --config.data.rows=gs://B/rows --workdir=gs://B/runs/base
#   launch/xpk.sh --name=xlmr --cluster=C --follow    waits for the workload's end
#   launch/xpk.sh --name=xlmr --cluster=C --delete    TERM to every pod, and the workload is gone; the first command goes on
# IMAGE is what launch/Dockerfile makes. xpk starts a workload again that ended with 42 or by a signal, and with the flag below also
# after a crash (70), --max-restarts times; exit 1 (the user must act) fails it. --dry-run prints the commands.
# xpk: https://github.com/AI-Hypercomputer/xpk
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
name='' cluster=${XLMR_CLUSTER:-} type='' image=${XLMR_IMAGE:-} project=${XLMR_PROJECT:-} zone=${XLMR_ZONE:-}
spot='' restarts=100 grace=60 priority=medium detach='' action=start
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --cluster=*) cluster=${1#*=};; --type=*) type=${1#*=};; --image=*) image=${1#*=};;
    --project=*) project=${1#*=};; --zone=*) zone=${1#*=};; --spot) spot=--spot;; --max-restarts=*) restarts=${1#*=};;
    --grace=*) grace=${1#*=};; --priority=*) priority=${1#*=};; --detach) detach=1;;
    --follow) action=follow;; --delete) action=delete;;
    --dry-run) dry=1;; --help) help;; --) shift; break;;
    *) die "unknown option $1; the run's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] && [ -n "$cluster" ] || die "--name and --cluster are needed"
check_name "$name"
check_number max-restarts "$restarts"; check_number grace "$grace"
check_tool xpk "pip install xpk"
at=(--cluster="$cluster"); [ -z "$project" ] || at+=(--project="$project"); [ -z "$zone" ] || at+=(--zone="$zone")
watch() {
  run xpk workload list "${at[@]}" --wait-for-job-completion="$name" ||
    die "the workload $name failed: it ended with 1, which its last line explains, or was started again --max-restarts times"
}
case $action in
  follow) watch; exit;;
  delete) run xpk workload delete "${at[@]}" --workload="$name" --force; exit;;
esac
[ -n "$type" ] && [ -n "$image" ] || die "--type and --image are needed"
check_run pretrain "$@"
[[ $(value_of workdir "$@") == gs://* ]] || die "--workdir=$(value_of workdir "$@"): must lie in a bucket, because a pod's disk goes with the pod"
# xpk writes the command into a block of YAML, which Kubernetes expands $(NAME) in and hands to a shell: so the flags are quoted for
# the shell, each $ is doubled, and no flag may hold a line break. By exec the run gets the TERM that xpk passes on.
flags=$(quoted "$@")
[[ $flags != *$'\n'* ]] || die "a flag of the run holds a line break, which xpk cannot pass on"
run xpk workload create "${at[@]}" --workload="$name" --tpu-type="$type" --num-slices=1 --docker-image="$image" ${spot:+"$spot"} \
  --priority="$priority" --max-restarts="$restarts" --restart-on-exit-codes=70 --termination-grace-period-seconds="$grace" \
  --command="exec xlmr pretrain --hosts=auto ${flags//$/\$\$}"
[ -n "$detach" ] || watch
