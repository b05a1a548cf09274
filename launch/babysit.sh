#!/usr/bin/env bash
# Runs a command until it ends with 0 (done) or 1 (the user must act). After 42, a signal or a crash it starts it again.
#   launch/babysit.sh xlmr pretrain --config=... --workdir=...
# It gives up after five starts in a row that each end within a minute. It passes TERM on to the command, and then ends.
set -u
[ $# -gt 0 ] || { echo "usage: launch/babysit.sh COMMAND..." >&2; exit 1; }
told='' short=0 child=''
trap 'told=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
while :; do
  began=$SECONDS
  "$@" & child=$!
  wait "$child"; code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  [ -z "$told" ] || exit "$code"
  case $code in 0|1) exit "$code";; esac
  if [ $((SECONDS - began)) -lt "${SHORT_S:-60}" ]; then short=$((short + 1)); else short=0; fi
  [ "$short" -lt 5 ] || { echo "babysit: five quick ends in a row, the last with exit $code: giving up" >&2; exit "$code"; }
  echo "babysit: exit $code after $((SECONDS - began)) s, starting again" >&2
  child=''
  sleep "${PAUSE_S:-5}"
  [ -z "$told" ] || exit "$code"
done
