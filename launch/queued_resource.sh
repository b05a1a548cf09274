#!/usr/bin/env bash
# One run on a Cloud TPU that is waited for in the queue: ask, wait, follow, ask again when it is taken away, delete at the end.
#   launch/queued_resource.sh --name=xlmr --zone=us-central2-b --type=v4-32 [--spot] [--service-account=S] [--project=P] [--version=V] \
#       [--wait=6h] [--tries=50] [--keep] [--dry-run] \
#       -- --config=base --config.data.rows=gs://B/rows --workdir=gs://B/runs/base
#   launch/queued_resource.sh --name=xlmr --zone=Z --stop      TERM to every worker: the run saves one common step and ends with 42
#   launch/queued_resource.sh --name=xlmr --zone=Z --follow    the log of worker 0
#   launch/queued_resource.sh --name=xlmr --zone=Z --delete [--staging=gs://B/runs/base.launch]
# Every worker installs and starts the run when it boots (launch/node.sh), so a worker that reboots joins again. A resource that is
# SUSPENDED or FAILED is deleted and asked for again, at most --tries times. The script ends, and deletes the resource unless --keep
# is given, when WORKDIR/result.json is there, when the run ends with 1 (the user must act), and when babysit.sh gives up. If it
# cannot see the run any more (XLMR_PATIENCE failures in a row), it ends with 1 and leaves the resource, because the run may be healthy.
# --wait: give up the place in the queue after so long, such as 6h, and end with 1. The code and the workers' logs lie in
# WORKDIR.launch (--staging); --delete removes that folder too if it is named. Ctrl-C ends the following and not the run.
# --dry-run prints every command and runs none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/common.sh
. "$here/common.sh"
name='' zone=${XLMR_ZONE:-} type='' project=${XLMR_PROJECT:-} version='' account=${XLMR_SERVICE_ACCOUNT:-}
spot='' wait='' tries=50 keep='' staging='' action=start
root=/opt/xlmr
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=};; --zone=*) zone=${1#*=};; --type=*) type=${1#*=};; --project=*) project=${1#*=};;
    --version=*) version=${1#*=};; --service-account=*) account=${1#*=};; --spot) spot=--spot;; --wait=*) wait=${1#*=};;
    --tries=*) tries=${1#*=};; --keep) keep=1;; --staging=*) staging=${1#*=};;
    --stop) action=stop;; --follow) action=follow;; --delete) action=delete;;
    --dry-run) dry=1;; --help) help;; --) shift; break;;
    *) die "unknown option $1; the run's own flags go behind --";;
  esac
  shift
done
[ -n "$name" ] && [ -n "$zone" ] || die "--name and --zone are needed"
check_name "$name"
check_number tries "$tries"
[ -z "$staging" ] || [[ $staging == gs://?*/?* ]] || die "--staging=$staging: must be a folder in a bucket, gs://BUCKET/FOLDER"
if [ "$action" = start ]; then
  [ -n "$type" ] || die "--type is needed, such as v4-32 or v5litepod-16"
  check_run pretrain "$@"
  workdir=$(value_of workdir "$@")
  [[ $workdir == gs://* ]] || die "--workdir=$workdir: must lie in a bucket, because the machine's disk goes with the machine"
  [[ -z $wait || $wait =~ ^[0-9]+[smhd]$ ]] || die "--wait=$wait: must be a number and a unit, such as 6h"
  [ -n "$version" ] || version=$(image_of "$type")
  staging=${staging:-${workdir%/}.launch}
elif [ $# -gt 0 ]; then
  die "--$action takes no flags of a run"
fi
check_tool gcloud https://cloud.google.com/sdk
at=(--zone="$zone"); [ -z "$project" ] || at+=(--project="$project")
queue=(gcloud compute tpus queued-resources)
on_workers() { run gcloud compute tpus tpu-vm ssh "$name" "${at[@]}" --worker="$1" --command="$2"; }
same=("$0" --name="$name" "${at[@]}")

# The lines before node.sh. They hold the run's flags, which the project's viewers can read in the VM's metadata.
settings() { echo '#!/usr/bin/env bash'; echo "xlmr_staging=$(quoted "$staging")"; echo "xlmr_root=$root"; echo "xlmr_flags=($(quoted "$@"))"; }
look() { state_of "${queue[@]}" describe "$name" "${at[@]}" --format='value(state.state)'; }
why() { "${queue[@]}" describe "$name" "${at[@]}" --format='value(state)' >&2; }
remove() { run "${queue[@]}" delete "$name" "${at[@]}" --force --quiet; }
watch() { follow on_workers 0 "$(remote_follow $root "$1")"; }
begin() {
  # The workers begin by themselves when they boot. A run that was stopped earlier is begun again here, with its flags of then.
  [ -z "$made_here" ] || return 0
  note "$name was asked for before and keeps the code and the flags of then; --delete it first to change them"
  on_workers all "cd $root && [ -e run.exit ] && sudo rm -f run.exit run.stopped && \
{ sudo nohup google_metadata_script_runner startup > /dev/null 2>&1 < /dev/null & } || true"
}
make() {
  if [ -z "$made_here" ]; then  # Once, so that a TPU that is asked for again runs the same code.
    run git -C "$here/.." archive --format=tar.gz --output="$archive" HEAD && run gcloud storage cp "$archive" "$staging/xlmr_jax.tar.gz" ||
      return 1
  fi
  made_here=1
  run "${queue[@]}" create "$name" "${at[@]}" --node-id="$name" --accelerator-type="$type" --runtime-version="$version" ${spot:+"$spot"} \
    ${account:+"--service-account=$account"} --scopes=https://www.googleapis.com/auth/cloud-platform \
    ${wait:+"--valid-until-duration=$wait"} --metadata-from-file=startup-script="$script"
}
finish() {
  if [ "${2:-}" = unseen ]; then
    note "$name is left as it is and may be charged, because its run may go on. Delete it: $(quoted "${same[@]}" --delete)"
  elif [ -n "$keep" ] || [ "${2:-}" = stopped ]; then
    note "$name is still there and is charged. Delete it: $(quoted "${same[@]}" --delete)"
  elif [ "$(look)" != NONE ]; then
    remove || note "$name could not be deleted and may be charged: $(quoted "${same[@]}" --delete)"
  fi
  [ -z "$made_here" ] || note "the code and the workers' logs are in $staging"
  exit "$1"
}

case $action in
  delete)
    if [ -n "$dry" ] || [ "$(look)" != NONE ]; then remove; fi
    [ -z "$staging" ] || run gcloud storage rm --recursive "$staging"
    exit;;
  follow)
    if [ -n "$dry" ]; then on_workers 0 "$(remote_follow $root +1)"; exit; fi
    watch +1
    [ -n "$ended" ] || die "the log of $name could not be followed to the end of the run"
    exit "${ended% *}";;
  stop)
    on_workers all "sudo touch $root/run.stopped; sudo pkill -TERM -f $(quoted "$run_pattern") || true"
    exit;;
esac

archive=xlmr_jax.tar.gz script=startup-script.sh made_here=''
if [ -z "$dry" ]; then
  folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
  archive=$folder/xlmr_jax.tar.gz script=$folder/startup-script.sh
  { settings "$@"; cat "$here/node.sh"; } > "$script"
  [ -z "$(git -C "$here/.." status --porcelain)" ] || note "only committed files are sent, and there are uncommitted changes"
fi
if [ -n "$dry" ]; then
  echo "# $script holds the next lines and then launch/node.sh"
  settings "$@" | sed 's/^/#   /'
  make; on_workers 0 "$(remote_follow $root +1)"
  [ -n "$keep" ] || remove
  exit
fi
trap 'note "no longer following. The run goes on and is charged. Follow or delete it: $(quoted "${same[@]}") --follow|--delete"; exit 130' INT
supervise "$workdir" "$tries" "SUSPENDED FAILED" "ACTIVE" "" "${wait:+FAILED}"
