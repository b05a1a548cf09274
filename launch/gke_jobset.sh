#!/usr/bin/env bash
# One run on a TPU slice of Google Kubernetes Engine, as a JobSet: apply, follow, and delete.
#   launch/gke_jobset.sh --name=xlmr --image=IMAGE --accelerator=tpu-v5-lite-podslice --topology=4x4 [--chips=4] [--spot] \
#       [--service-account=KSA] [--namespace=NS] [--queue=Q] [--max-restarts=100] [--grace=60] [--as-root] [--tries=50] \
#       [--evaluator=2x2] [--detach] [--dry-run] -- --config=base --config.data.rows=gs://B/rows --workdir=gs://B/runs/base
#   launch/gke_jobset.sh --name=xlmr --stop      the pods save one common step and end; the first command goes on
#   launch/gke_jobset.sh --name=xlmr --follow    the log of pod 0, to the end of the run
#   launch/gke_jobset.sh --name=xlmr --delete    the JobSet, and the evaluator's Job
# The first command goes on with a run that was stopped, that failed or that is done; what has ended is deleted and made again.
# IMAGE is what launch/Dockerfile makes. --accelerator and --topology are the node pool's labels; --chips is the number of chips per
# host, by which the topology must be divisible. --service-account is the Kubernetes account that may use the bucket.
# --evaluator=TOPOLOGY starts `xlmr evaluate` of the same workdir on one host more. --queue names a Kueue LocalQueue.
# A restart by preemption counts against --max-restarts. --as-root runs the container as root, if the TPU's device files need it.
# The cluster needs the JobSet controller, 0.6 or later (https://jobset.sigs.k8s.io). --dry-run prints what would be applied.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
name='' image=${XLMR_IMAGE:-} accelerator='' topology='' chips=4 spot='' account=default namespace='' queue='' restarts=100 grace=60
root='' tries=50 evaluator='' detach='' action=start
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --image=*) image=${1#*=};; --accelerator=*) accelerator=${1#*=};; --topology=*) topology=${1#*=};;
    --chips=*) chips=${1#*=};; --spot) spot=1;; --service-account=*) account=${1#*=};; --namespace=*) namespace=${1#*=};;
    --queue=*) queue=${1#*=};; --max-restarts=*) restarts=${1#*=};; --grace=*) grace=${1#*=};; --as-root) root=1;;
    --tries=*) tries=${1#*=};; --evaluator=*) evaluator=${1#*=};; --detach) detach=1;;
    --stop) action=stop;; --follow) action=follow;; --delete) action=delete;;
    --dry-run) dry=1;; --help) help;; --) shift; break;;
    *) die "unknown option $1; the run's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] || die "--name is needed"
check_name "$name"
check_number tries "$tries"
kube=(kubectl) same=("$0" --name="$name")
[ -z "$namespace" ] || { kube+=(--namespace="$namespace"); same+=(--namespace="$namespace"); }
check_tool kubectl https://kubernetes.io/docs/tasks/tools

# The hosts of a topology: hosts_of FLAG TOPOLOGY
hosts_of() {
  [[ $2 =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || die "--$1=$2: must be a topology, such as 4x4 or 2x2x4"
  local all=$((${2//x/ * }))
  [ $((all % chips)) = 0 ] || die "--$1=$2: has $all chips, which --chips=$chips per host do not divide"
  echo $((all / chips))
}
# A document: render TEMPLATE NAME TOPOLOGY HOSTS ARGS... (HOSTS is "" where the template has none)
render() {
  local template=$1 its_name=$2 its_topology=$3 hosts=$4 labels='{}' tolerations='[]' security='{}' selector
  shift 4
  selector="\"cloud.google.com/gke-tpu-accelerator\": \"$accelerator\", \"cloud.google.com/gke-tpu-topology\": \"$its_topology\""
  [ -z "$queue" ] || labels="{\"kueue.x-k8s.io/queue-name\": \"$queue\"}"
  if [ -n "$spot" ]; then
    selector+=', "cloud.google.com/gke-spot": "true"'
    tolerations='[{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}]'
  fi
  [ -z "$root" ] || security='{"runAsUser": 0}'
  python3 "$here/render.py" "$here/$template" NAME="$its_name" LABELS:="$labels" MAX_RESTARTS:="$restarts" ${hosts:+HOSTS:="$hosts"} \
    GRACE:="$grace" SERVICE_ACCOUNT="$account" NODE_SELECTOR:="{$selector}" TOLERATIONS:="$tolerations" SECURITY_CONTEXT:="$security" \
    IMAGE="$image" CHIPS:="$chips" -- "$@"
}
apply() {
  if [ -n "$dry" ]; then printf '%q ' "${kube[@]}" apply -f -; echo "<<'END'"; printf '%s\nEND\n' "$1"
  else printf '%s\n' "$1" | "${kube[@]}" apply -f -; fi
}
show() {
  run "${kube[@]}" logs --follow --tail=-1 --pod-running-timeout=1h \
    --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
}
# Says that the evaluator's Job is there. It waits for checkpoints on its own chips, also of a run that has failed or was stopped.
name_evaluator() {
  [ -n "$("${kube[@]}" get job "$name-evaluator" --ignore-not-found --output=name || true)" ] || return 0
  note "the evaluator's Job $name-evaluator is still there and may be charged. Delete it and the JobSet: $(quoted "${same[@]}" --delete)"
}
follow_to_end() {
  if [ -n "$dry" ]; then show; return; fi
  local state broken=0 ran=''
  # A JobSet that was just applied may still be suspended, or wait in its queue. One that was asked about is stopped.
  [ "$action" = start ] || ran=1
  while :; do
    # The true conditions of the JobSet, such as "Completed" or "Suspended".
    if ! state=$("${kube[@]}" get jobset "$name" -o "jsonpath={.status.conditions[?(@.status=='True')].type}"); then
      broken=$((broken + 1))
      [ "$broken" -lt "$patience" ] || die "the state of $name could not be read $broken times in a row"
      sleep "$poll_s"
      continue
    fi
    broken=0
    case " $state " in
      *" Completed "*) note "the run is done"; return 0;;
      *" Failed "*)
        "${kube[@]}" get jobset "$name" -o "jsonpath={.status.conditions[?(@.type=='Failed')].message}" >&2 || true
        name_evaluator
        die "the run failed: it ended with 1, which its last line explains, or was started again --max-restarts times";;
      *" Suspended "*)
        [ -z "$ran" ] || {
          name_evaluator
          note "the run is suspended: it was stopped, or waits in its queue. The first command goes on"; return 42
        };;
      *) ran=1; show || true;;
    esac
    sleep "$poll_s"
  done
}

case $action in
  delete)
    run "${kube[@]}" delete jobset "$name" --ignore-not-found
    run "${kube[@]}" delete job "$name-evaluator" --ignore-not-found
    exit;;
  stop) run "${kube[@]}" patch jobset "$name" --type=merge --patch='{"spec": {"suspend": true}}'; exit;;
  follow) follow_to_end; exit;;
esac
[ -n "$image" ] && [ -n "$accelerator" ] && [ -n "$topology" ] || die "--image, --accelerator and --topology are needed"
for word in "$accelerator" "$queue"; do
  [[ $word =~ ^[-a-z0-9.]*$ ]] || die "$word: --accelerator and --queue take lower-case letters, digits, dashes and dots"
done
check_number chips "$chips"; check_number max-restarts "$restarts"; check_number grace "$grace"
[ "$chips" -gt 0 ] || die "--chips=$chips: must be above 0"
check_run pretrain "$@"
workdir=$(value_of workdir "$@")
[[ $workdir == gs://* ]] || die "--workdir=$workdir: must lie in a bucket, because a pod's disk goes with the pod"
hosts=$(hosts_of topology "$topology")
if [ -n "$evaluator" ]; then
  [ "$(hosts_of evaluator "$evaluator")" = 1 ] || die "--evaluator=$evaluator: has several hosts of --chips=$chips, and the evaluator uses one"
fi
jobset=$(render gke_jobset.yaml "$name" "$topology" "$hosts" pretrain --hosts=auto "$@")
remove_ended jobset "$name"
apply "$jobset"
if [ -n "$evaluator" ]; then
  job=$(render gke_evaluator.yaml "$name-evaluator" "$evaluator" '' evaluate --workdir="$workdir")
  remove_ended job "$name-evaluator"
  apply "$job"
fi
[ -n "$detach" ] || follow_to_end
