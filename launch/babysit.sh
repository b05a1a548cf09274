#!/usr/bin/env bash
# Runs a command until it ends with 0 (done) or 1 (the user must act). After 42, a crash or a signal (134, 137, 143) it starts it again.
#   launch/babysit.sh [--dry-run] xlmr pretrain --config=... --workdir=...
# It gives up after five starts in a row that each end within a minute (SHORT_S), because such a run cannot start, and after
# twenty in a row (STUCK) that leave nothing in --workdir that was not there before. A new checkpoint, or a new evaluation if the
# command evaluates, sets both counts to zero; in a sweep, a checkpoint, score or result of any run does, and rows that were built.
# A workdir in a bucket is looked at with gcloud. If a workdir cannot be looked at, the first rule alone holds.
# It passes TERM on to the command, and then ends. It waits PAUSE_S seconds (5) before it starts the command again.
set -u
usage="usage: launch/babysit.sh COMMAND..."
case ${1:-} in
  '') echo "$usage" >&2; exit 1;;
  --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0;;
  --dry-run) shift; printf '%q ' "$@"; echo; exit 0;;
  -*) echo "error: unknown option $1; $usage" >&2; exit 1;;
esac
workdir='' kind=checkpoints before=''
for word in "$@"; do
  case $before in --workdir|-workdir) workdir=$word;; esac
  case $word in --workdir=*|-workdir=*) workdir=${word#*=};; evaluate) kind=evaluations;; sweep) kind=sweep;; esac
  before=$word
done
# The command expands ~ itself, and the shell that read this command line has not, in the middle of a word.
home=${workdir%%/*} tilde='^~[A-Za-z0-9._-]*$'
if [[ $home =~ $tilde ]]; then
  rest=${workdir#"$home"}
  eval "home=$home"
  workdir=$home$rest
fi

# The paths that match a pattern below the workdir, a line each. Fails if that cannot be seen.
at() {
  local said path
  case $workdir in
    '') return 1;;
    gs://*)
      # gcloud fails with these words where nothing matches. It lists what a folder holds.
      said=$(timeout 60 gcloud storage ls "${workdir%/}/${1%\*}" 2>&1) || [[ $said == *"matched no objects"* ]] || return 1
      printf '%s\n' "$said";;
    *)
      said=$(LC_ALL=C ls "$workdir/${1%%\**}" 2>&1) || [[ $said == *"No such file"* ]] || return 1
      # shellcheck disable=SC2231
      for path in "$workdir"/$1; do printf '%s\n' "$path"; done;;
  esac
}

# What tells progress, a line each: the steps of a run, or what the runs of a sweep have. Fails if the workdir cannot be seen.
progress() {
  local patterns=("$kind/*") wanted='s#^(.*/)?([0-9]+)(\.json)?/?$#\2#p' pattern found all=''
  if [ "$kind" = sweep ]; then
    patterns=('*/checkpoints/*' '*/evaluations/*' '*/evaluations/final/*' '*/result.json' 'rows/*' 'rows/*/manifest.json')
    wanted='\#/(checkpoints/[0-9]+/?|evaluations/([0-9]+|final/[^/]+)\.json|result\.json|rows/[^/]+(\.model|/manifest\.json))$#p'
  fi
  for pattern in "${patterns[@]}"; do
    found=$(at "$pattern") || return 1
    all+=$found$'\n'
  done
  printf '%s' "$all" | sed -nE "$wanted"
}

told='' short=0 stuck=0 child='' seen=$(progress)
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
  if now=$(progress); then
    new=$(awk 'NR == FNR { seen[$0]; next } NF && !($0 in seen)' <(printf '%s\n' "$seen") <(printf '%s\n' "$now"))
    if [ -n "$new" ]; then short=0 stuck=0 seen+=$'\n'$new; else stuck=$((stuck + 1)); fi
  fi
  [ "$short" -lt 5 ] || { echo "babysit: five quick ends in a row, the last with exit $code: giving up" >&2; exit "$code"; }
  [ "$stuck" -lt "${STUCK:-20}" ] || {
    newest=$(printf '%s\n' "$seen" | sort -n | tail -n 1)
    what="no ${kind%s}${newest:+ newer than step $newest}"
    [ "$kind" != sweep ] || what="no checkpoint, score or result of any run that was not there before"
    echo "babysit: $stuck starts in a row left $what, the last with exit $code: giving up" >&2; exit "$code"
  }
  echo "babysit: exit $code after $((SECONDS - began)) s, starting again" >&2
  child=''
  sleep "${PAUSE_S:-5}"
  [ -z "$told" ] || exit "$code"
done
