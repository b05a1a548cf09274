#!/usr/bin/env bash
# Starts N processes of one run on this machine, joined over loopback (gloo on CPUs).
#   launch/local.sh [--dry-run] N --config=... --workdir=...
# Each line of output carries the number of its process. A signal goes to all processes. The exit code is 1 if any process
# ended with 1 (the user must act), else 42 if any ended with 42, else the first that is not 0.
set -u
dry=''
case ${1:-} in --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0;; --dry-run) dry=1; shift;; esac
count=${1:-}
case $count in --*) echo "error: unknown option $count; the number of processes comes first" >&2; exit 1;; esac
case $count in ''|*[!0-9]*|0) echo "usage: launch/local.sh N --config=... --workdir=..." >&2; exit 1;; esac
shift
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}; [ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python; }
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
pids=()
# shellcheck disable=SC2329
forward() { for pid in "${pids[@]}"; do kill -"$1" "$pid" 2>/dev/null; done; }
trap 'forward TERM' TERM
trap 'forward TERM' INT  # The terminal has sent them INT already, and a second one would end them at once.
if [ -n "$dry" ]; then
  for ((i = 0; i < count; i++)); do
    printf '%q ' "$python" -u -m xlmr_jax pretrain --hosts=explicit --coordinator="127.0.0.1:$port" --processes="$count" --process="$i" "$@"
    echo
  done
  exit
fi
for ((i = 0; i < count; i++)); do
  "$python" -u -m xlmr_jax pretrain --hosts=explicit --coordinator="127.0.0.1:$port" --processes="$count" --process="$i" "$@" \
    > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  pids+=($!)
done
[ -z "${PIDS_FILE:-}" ] || echo "${pids[@]}" > "$PIDS_FILE"
code=0
for pid in "${pids[@]}"; do
  wait "$pid"; one=$?
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; one=$?; done  # a signal interrupts wait itself
  case $code,$one in *,0|1,*) ;; *,1|0,*) code=$one;; *,42) code=42;; esac
done
exit "$code"
