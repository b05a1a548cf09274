#!/usr/bin/env bash
# A sweep on Google Kubernetes Engine, as an Indexed Job: pod I does run I, each on one host of a TPU.
#   xlmr sweep --config=sweeps/alpha --workdir=gs://B/runs/alpha --rows=gs://B/rows --list      tells how many runs there are
#   launch/gke_sweep.sh --name=xlmr --image=IMAGE --accelerator=tpu-v5-lite-podslice --topology=2x2 --runs=12 [--parallel=4] \
#       [--chips=4] [--spot] [--service-account=KSA] [--namespace=NS] [--queue=Q] [--max-restarts=20] [--grace=60] [--as-root] \
#       [--dry-run] -- --config=sweeps/alpha --rows=gs://B/rows --workdir=gs://B/runs/alpha --config.evaluate.folder=gs://B/tasks
#   launch/gke_sweep.sh --name=xlmr --stop      the pods save and end; the first command goes on
#   launch/gke_sweep.sh --name=xlmr --delete    the Job
# The first command goes on with a sweep that was stopped or has ended with failed runs; a Job that has ended is deleted and made again.
# IMAGE is what launch/Dockerfile makes. --runs is the number of pods and --parallel how many there are at a time; with --runs below
# the number of runs, pass --of=RUNS behind -- too. --accelerator and --topology are the node pool's labels, of one host of --chips.
# A run that fails ends its own index; the others go on. --max-restarts counts crashes per index, and neither 42 nor a preemption.
# The cluster needs Kubernetes 1.29 or later. --dry-run prints what would be applied.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
name='' image=${XLMR_IMAGE:-} accelerator='' topology='' runs='' parallel='' chips=4 spot='' account=default namespace='' queue=''
restarts=20 grace=60 root='' action=start
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --image=*) image=${1#*=};; --accelerator=*) accelerator=${1#*=};; --topology=*) topology=${1#*=};;
    --runs=*) runs=${1#*=};; --parallel=*) parallel=${1#*=};; --chips=*) chips=${1#*=};; --spot) spot=1;;
    --service-account=*) account=${1#*=};; --namespace=*) namespace=${1#*=};; --queue=*) queue=${1#*=};;
    --max-restarts=*) restarts=${1#*=};; --grace=*) grace=${1#*=};; --as-root) root=1;;
    --stop) action=stop;; --delete) action=delete;;
    --dry-run) dry=1;; --help) help;; --) shift; break;;
    *) die "unknown option $1; the sweep's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] || die "--name is needed"
check_name "$name"
kube=(kubectl)
[ -z "$namespace" ] || kube+=(--namespace="$namespace")
check_tool kubectl https://kubernetes.io/docs/tasks/tools
case $action in
  delete) run "${kube[@]}" delete job "$name" --ignore-not-found; exit;;
  stop) run "${kube[@]}" patch job "$name" --type=merge --patch='{"spec": {"suspend": true}}'; exit;;
esac
[ -n "$image" ] && [ -n "$accelerator" ] && [ -n "$topology" ] && [ -n "$runs" ] ||
  die "--image, --accelerator, --topology and --runs are needed"
for word in "$accelerator" "$queue"; do
  [[ $word =~ ^[-a-z0-9.]*$ ]] || die "$word: --accelerator and --queue take lower-case letters, digits, dashes and dots"
done
parallel=${parallel:-$runs}
check_number runs "$runs"; check_number parallel "$parallel"; check_number chips "$chips"
check_number max-restarts "$restarts"; check_number grace "$grace"
[ "$runs" -gt 0 ] || die "--runs=$runs: must be above 0"
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || die "--topology=$topology: must be a topology, such as 2x2"
[ $((${topology//x/ * })) = "$chips" ] || die "--topology=$topology: must be one host of --chips=$chips; for runs on several hosts, see docs/sweeps.md"
check_run pretrain "$@"
workdir=$(value_of workdir "$@")
[[ $workdir == gs://* ]] || die "--workdir=$workdir: must lie in a bucket, because a pod's disk goes with the pod"
labels='{}' tolerations='[]' security='{}'
selector="\"cloud.google.com/gke-tpu-accelerator\": \"$accelerator\", \"cloud.google.com/gke-tpu-topology\": \"$topology\""
[ -z "$queue" ] || labels="{\"kueue.x-k8s.io/queue-name\": \"$queue\"}"
if [ -n "$spot" ]; then
  selector+=', "cloud.google.com/gke-spot": "true"'
  tolerations='[{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}]'
fi
[ -z "$root" ] || security='{"runAsUser": 0}'
job=$(python3 "$here/render.py" "$here/gke_sweep.yaml" NAME="$name" LABELS:="$labels" RUNS:="$runs" PARALLEL:="$parallel" \
  MAX_RESTARTS:="$restarts" GRACE:="$grace" SERVICE_ACCOUNT="$account" NODE_SELECTOR:="{$selector}" TOLERATIONS:="$tolerations" \
  SECURITY_CONTEXT:="$security" IMAGE="$image" CHIPS:="$chips" -- sweep --array "$@")
remove_ended job "$name"
if [ -n "$dry" ]; then printf '%q ' "${kube[@]}" apply -f -; echo "<<'END'"; printf '%s\nEND\n' "$job"
else printf '%s\n' "$job" | "${kube[@]}" apply -f -; fi
