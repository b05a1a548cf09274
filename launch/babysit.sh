#!/usr/bin/env bash
# Runs a command until it ends with 0 (done) or 1 (the user must act). After 42, a crash or a signal (134, 137, 143) it starts it again.
#   launch/babysit.sh [--dry-run] xlmr pretrain --config=... --workdir=...
# It gives up after five starts in a row that each end within a minute (SHORT_S), because such a run cannot start, and after
# twenty in a row (STUCK) that leave nothing newer, or nothing at all, in --workdir. A newer checkpoint, or a newer evaluation if the
# command evaluates, sets both counts to zero. A workdir in a bucket is looked at with gcloud; if that fails, the first rule alone holds.
# It passes TERM on to the command, and then ends. It waits PAUSE_S seconds (5) before it starts the command again.
set -u
usage="usage: launch/babysit.sh COMMAND..."
case ${1:-} in
  '') echo "$usage" >&2; exit 1;;
  --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0;;
  --dry-run) shift; printf '%q ' "$@"; echo; exit 0;;
  -*) echo "error: unknown option $1; $usage" >&2; exit 1;;
esac
workdir='' kind=checkpoints
for word in "$@"; do
  case $word in --workdir=*) workdir=${word#*=};; evaluate) kind=evaluations;; esac
done

# The newest step that the workdir holds, or nothing if it holds none. Fails if the workdir cannot be seen.
newest() {
  local listed
  case $workdir in
    '') return 1;;
    gs://*)
      # gcloud fails with these words where no object has the prefix.
      listed=$(timeout 60 gcloud storage ls "${workdir%/}/$kind/" 2>&1) || [[ $listed == *"matched no objects"* ]] || return 1;;
    *) listed=$(ls "$workdir/$kind" 2>/dev/null);;
  esac
  printf '%s\n' "$listed" | sed -nE 's|^(.*/)?([0-9]+)(\.json)?/?$|\2|p' | sort -n | tail -n 1
}

told='' short=0 stuck=0 child='' seen=$(newest)
trap 'told=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
while :; do
  began=$SECONDS
  "$@" & child=$!
  [ -z "$told" ] || kill -TERM "$child" 2>/dev/null  # The signal came before the trap knew this child.
  wait "$child"; code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  [ -z "$told" ] || exit "$code"
  case $code in 0|1) exit "$code";; esac
  if [ $((SECONDS - began)) -lt "${SHORT_S:-60}" ]; then short=$((short + 1)); else short=0; fi
  if now=$(newest); then
    if [ -n "$now" ] && [ "$now" != "$seen" ]; then short=0 stuck=0 seen=$now; else stuck=$((stuck + 1)); fi
  fi
  [ "$short" -lt 5 ] || { echo "babysit: five quick ends in a row, the last with exit $code: giving up" >&2; exit "$code"; }
  [ "$stuck" -lt "${STUCK:-20}" ] || {
    echo "babysit: $stuck starts in a row left no ${kind%s}${seen:+ newer than step $seen}, the last with exit $code: giving up" >&2; exit "$code"
  }
  echo "babysit: exit $code after $((SECONDS - began)) s, starting again" >&2
  child=''
  sleep "${PAUSE_S:-5}"
  [ -z "$told" ] || exit "$code"
done
