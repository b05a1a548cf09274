#!/usr/bin/env bash
# One run on a Cloud TPU VM or pod slice: create or reuse it, install, start on all workers, follow, and make it again if it is preempted.
#   launch/tpu_vm.sh --name=xlmr --zone=us-central2-b --type=v4-32 [--spot] [--service-account=S] [--project=P] [--version=V] \
#       [--evaluator=v4-8] [--delete-at-end] [--tries=50] [--dry-run] \
#       -- --config=base --config.data.rows=gs://B/rows --workdir=gs://B/runs/base
#   launch/tpu_vm.sh --name=xlmr --zone=Z --stop      TERM to every worker: the run saves one common step and ends with 42
#   launch/tpu_vm.sh --name=xlmr --zone=Z --follow    the log of worker 0, of a run that was started before
#   launch/tpu_vm.sh --name=xlmr --zone=Z --delete    deletes the VM, and the evaluator's if there is one
# --evaluator=TYPE starts `xlmr evaluate` of the same workdir on a second VM, NAME-evaluator, once the run has begun.
# --delete-at-end deletes both VMs when the run ends with 0. Without it, and after every other end, they stay and are charged.
# --tries is how often a preempted VM is made again.
# The workdir and the rows lie in a bucket. --nfs=HOST:/SHARE mounts a share of files at /data instead.
# The run is started again by launch/babysit.sh when it ends with 42 or is killed. It stops at 0 (done) and 1 (the user must act).
# A VM that reboots does not start the run again; launch/queued_resource.sh does. --dry-run prints every command and runs none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
name='' zone=${XLMR_ZONE:-} type='' project=${XLMR_PROJECT:-} version='' account=${XLMR_SERVICE_ACCOUNT:-}
nfs='' spot='' evaluator='' at_end='' tries=50 what=pretrain detach='' action=start
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --zone=*) zone=${1#*=};; --type=*) type=${1#*=};; --project=*) project=${1#*=};;
    --version=*) version=${1#*=};; --service-account=*) account=${1#*=};; --nfs=*) nfs=${1#*=};; --spot) spot=--spot;;
    --evaluator=*) evaluator=${1#*=};; --delete-at-end) at_end=1;; --tries=*) tries=${1#*=};;
    --run=*) what=${1#*=};; --detach) detach=1;;  # evaluator.sh passes these two.
    --stop) action=stop;; --follow) action=follow;; --delete) action=delete;;
    --dry-run) dry=1;; --help) help;; --) shift; break;;
    *) die "unknown option $1; the run's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] && [ -n "$zone" ] || die "--name and --zone are needed"
check_name "$name"
check_number tries "$tries"
[[ -z $nfs || $nfs =~ ^[A-Za-z0-9.-]+:/[A-Za-z0-9._/-]*$ ]] || die "--nfs=$nfs: must be HOST:/SHARE"
case $what in pretrain|evaluate) ;; *) die "--run=$what: must be pretrain or evaluate";; esac
if [ "$action" = start ]; then
  [ -n "$type" ] || die "--type is needed, such as v4-32 or v5litepod-16"
  check_run "$what" "$@"
  [ -n "$version" ] || version=$(image_of "$type")
  workdir=$(value_of workdir "$@")
elif [ $# -gt 0 ]; then
  die "--$action takes no flags of a run"
fi
check_tool gcloud https://cloud.google.com/sdk
at=(--zone="$zone"); [ -z "$project" ] || at+=(--project="$project")
tpu=(gcloud compute tpus tpu-vm)
on_workers() { run "${tpu[@]}" ssh "$name" "${at[@]}" --worker="$1" --command="$2"; }
same=("$0" --name="$name" "${at[@]}")

look_at() { state_of "${tpu[@]}" describe "$1" "${at[@]}" --format='value(state)'; }
look() { look_at "$name"; }
why() { "${tpu[@]}" describe "$name" "${at[@]}" --format='value(state,health,healthDescription)' >&2; }
remove() { run "${tpu[@]}" delete "$name" "${at[@]}" --quiet; }
watch() { follow on_workers 0 "$(remote_follow . "$1")"; }
make() {
  run "${tpu[@]}" create "$name" "${at[@]}" --accelerator-type="$type" --version="$version" ${spot:+"$spot"} \
    ${account:+"--service-account=$account"} --scopes=https://www.googleapis.com/auth/cloud-platform
}
begin() { begin_run && begin_evaluator; }
begin_run() {
  local mount command
  mount="sudo apt-get install -qy nfs-common && sudo mkdir -p /data && (mountpoint -q /data || sudo mount -t nfs $nfs /data)"
  command=(.venv/bin/python -u -m xlmr_jax "$what")
  [ "$what" = evaluate ] || command+=(--hosts=auto)
  local busy=''
  [ -n "$dry" ] || busy=$(on_workers 0 "pgrep -f '[l]aunch/babysit.sh' >/dev/null && echo xlmr-busy || true") || return 1
  if [[ $busy == *xlmr-busy* ]]; then
    note "a run is under way on $name, with the flags that it was started with; --stop it first to change them"
    return
  fi
  # The images' own Python may be older than 3.11, so uv brings one.
  run git -C "$here/.." archive --format=tar.gz --output="$archive" HEAD &&
  run "${tpu[@]}" scp "$archive" "$name:xlmr_jax.tar.gz" "${at[@]}" --worker=all &&
  { [ -z "$nfs" ] || on_workers all "$mount"; } &&
  on_workers all "mkdir -p xlmr_jax && tar -xzf xlmr_jax.tar.gz -C xlmr_jax && cd xlmr_jax && \
python3 -m pip install -q --user uv && { [ -d .venv ] || python3 -m uv venv -q --python 3.12 .venv; } && \
python3 -m uv pip install -q --python .venv/bin/python '.[tpu,gcs,evaluate]'" &&
  # Only what is redirected may go to the background: anything else there would keep the connection open until the run ends.
  on_workers all "rm -f run.exit run.stopped && cd xlmr_jax && export PATH=\$PATH:/snap/bin && { nohup bash -c $(quoted \
"trap : TERM; bash launch/babysit.sh \"\$@\"; code=\$?; echo \$code \$(ls ../run.stopped 2>/dev/null | sed s/.*/stopped/) > ../run.exit" \
babysit "${command[@]}" "${run_flags[@]}") > ../run.log 2>&1 < /dev/null & }"
}
# Starts the evaluator once, after the run, so that a run that gets no TPU leaves no other VM behind. --tries=0: nobody watches the run
# meanwhile. An evaluator that cannot be started does not end the run.
begin_evaluator() {
  [ -n "$evaluator" ] && [ -z "$evaluator_begun" ] || return 0
  evaluator_begun=1
  "$here/evaluator.sh" ${dry:+--dry-run} --name="$name-evaluator" "${at[@]}" --type="$evaluator" ${spot:+"$spot"} \
    ${account:+"--service-account=$account"} ${nfs:+"--nfs=$nfs"} --tries=0 --detach -- --workdir="$workdir" ||
    note "the evaluator could not be started; the reason is above, and launch/evaluator.sh --name=$name-evaluator starts it again"
}
finish() {
  local one left=''
  # A run that was already done is found so before it begins, and its evaluator may have work left.
  [ "$1" != 0 ] || begin_evaluator
  if [ -n "$at_end" ] && [ "$1" = 0 ]; then
    if [ -n "$evaluator" ]; then
      note "the run is over; waiting for the evaluator's last scores"
      "$here/tpu_vm.sh" --name="$name-evaluator" "${at[@]}" --follow || true
    fi
    delete_all
  else
    for one in "$name" ${evaluator:+"$name-evaluator"}; do
      [ "$(look_at "$one")" = NONE ] || left+=" $one"
    done
    [ -z "$left" ] || note "still there and charged:$left. Delete with: $(quoted "${same[@]}" --delete)"
  fi
  exit "$1"
}
delete_all() {
  local one
  for one in "$name" "$name-evaluator"; do
    if [ -n "$dry" ] || [ "$(look_at "$one")" != NONE ]; then
      run "${tpu[@]}" delete "$one" "${at[@]}" --quiet
    fi
  done
}

case $action in
  delete) delete_all; exit;;
  follow)
    if [ -n "$dry" ]; then on_workers 0 "$(remote_follow . +1)"; exit; fi
    watch +1
    [ -n "$ended" ] || die "the log of $name could not be followed to the end of the run"
    exit "${ended% *}";;
  stop)
    on_workers all "touch run.stopped; pkill -TERM -f $(quoted "$run_pattern") || true"
    exit;;
esac

run_flags=("$@")
archive=xlmr_jax.tar.gz evaluator_begun=''
if [ -n "$dry" ]; then
  echo "# with --dry-run, as if there were no VM of this name"
  make; begin; on_workers 0 "$(remote_follow . +1)"
  [ -z "$at_end" ] || delete_all
  exit
fi
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
archive=$folder/xlmr_jax.tar.gz
[ -z "$(git -C "$here/.." status --porcelain)" ] || note "only committed files are sent, and there are uncommitted changes"
trap 'note "no longer following. The run goes on and is charged. Follow or delete it: $(quoted "${same[@]}") --follow|--delete"; exit 130' INT
if [ -n "$detach" ]; then watch() { exit 0; }; fi
[ "$what" = pretrain ] || workdir=''  # The evaluator has work left when the run is done.
supervise "$workdir" "$tries" "PREEMPTED TERMINATED" "READY" "STOPPED HIDDEN"
