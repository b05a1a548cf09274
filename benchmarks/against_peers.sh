#!/usr/bin/env bash
# Runs our programs and the peers', one after the other in the same minute, and prints their ratio.
#
#   benchmarks/against_peers.sh [PEERS]      PEERS: folder of peer_hf_torch_step.py and the others; ../shared/bench by default
#
# PYTHON runs ours (by default .venv's python, else python3). PEER_PYTHON runs the peers and needs torch and transformers
# (by default PYTHON). PEER_FLAX_PYTHON runs run_mlm_flax's step and needs transformers<5 with flax, optax and libtpu (by
# default PEER_PYTHON). ROUNDS=3 alternates three times. PARTS="step input flax" chooses what is run. STEP_FLAGS go to both
# steps, INPUT_FLAGS to our input. What cannot be run is skipped, with the reason. Exit 1: ours failed, or nothing was run.
set -u
peers=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.." || exit 1
peers=${peers:-../shared/bench}
here=python3
[ -x .venv/bin/python ] && here=.venv/bin/python
PYTHON=${PYTHON:-$here}
PEER_PYTHON=${PEER_PYTHON:-$PYTHON}
PEER_FLAX_PYTHON=${PEER_FLAX_PYTHON:-$PEER_PYTHON}
rounds=${ROUNDS:-1}
compared=0
failed=0

skip() { echo "skipped: $1: $2"; }

# $1: a line of JSON, $2: its key
value() { "$PYTHON" -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$1" "$2"; }

# $1: what, $2: ours, $3: the peer's, $4: unit
ratio() {
  "$PYTHON" -c 'import sys; what, a, b, unit = sys.argv[1:]; a, b = float(a), float(b)
print(f"{what}: ours {a:,.0f}, peer {b:,.0f} {unit}, ratio {a / b:.2f}", flush=True)' "$@"
  compared=$((compared + 1))
}

# Puts the last line that ours printed into $line; its errors are shown as they are. $1: module, then its flags.
ours() {
  line=$("$PYTHON" -m "$@" | tail -1)
  [ "${line:0:1}" = "{" ] && return
  echo "failed: $*"
  failed=1
  return 1
}

# Puts what the peer printed into $line, or the reason why it failed into $why. $1: python, $2: program, then its flags.
peer() {
  local log
  log=$(mktemp)
  line=$("$@" 2>"$log" | tail -1)
  why=$(tail -1 "$log")
  rm -f "$log"
  [ -n "$line" ]
}

# Whether python $1 can import the comma-separated modules $2; if not, $why says why.
imports() {
  local said
  said=$("$1" -c "import $2" 2>&1) && return
  why=$(tail -1 <<<"$said")
  return 1
}

# $1: name, $2: flags of both, $3: flags of the peer alone
step() {
  local mine
  for _ in $(seq "$rounds"); do
    # shellcheck disable=SC2086
    ours benchmarks.step $2 || return
    mine=$(value "$line" tokens_per_s)
    # shellcheck disable=SC2086
    peer "$PEER_PYTHON" "$peers/peer_hf_torch_step.py" $2 $3 || { skip "$1" "the peer failed: $why"; return; }
    ratio "$1" "$mine" "$(sed -E 's/.* ([0-9.]+) tokens\/s.*/\1/' <<<"$line")" tokens/s
  done
}

steps() {
  imports "$PEER_PYTHON" "torch, transformers" ||
    { skip "training step" "$PEER_PYTHON has no torch and transformers ($why)"; return; }
  if [ -e /dev/nvidia0 ]; then
    step "step, Base, 512 tokens, 64 rows, bf16" "--seq=512 --rows=64 --dtype=bf16" "--compile=1"
    return
  fi
  step "step, 4 x 256, 32k, 128 tokens, 32 rows, bf16" \
    "--layers=4 --hidden=256 --heads=4 --ffn=1024 --vocab=32000 --seq=128 --rows=32 --dtype=bf16 ${STEP_FLAGS:-}" ""
  step "step, 2 x 768, 250k, 128 tokens, 8 rows, bf16" \
    "--layers=2 --hidden=768 --heads=12 --ffn=3072 --vocab=250002 --seq=128 --rows=8 --dtype=bf16 ${STEP_FLAGS:-}" ""
}

inputs() {
  local mine
  imports "$PEER_PYTHON" "torch, transformers, tokenizers" ||
    { skip "input" "$PEER_PYTHON has no torch, transformers and tokenizers ($why)"; return; }
  for _ in $(seq "$rounds"); do
    # shellcheck disable=SC2086
    ours benchmarks.input ${INPUT_FLAGS:-} || return
    mine=$(value "$line" tokens_per_s)
    peer "$PEER_PYTHON" "$peers/peer_hf_collator.py" || { skip "input" "the peer failed: $why"; return; }
    ratio "input, 512-token rows with masking" "$mine" \
      "$(sed -E 's/.* ([0-9.]+)M tokens\/s.*/\1e6/' <<<"$line")" tokens/s
  done
}

flax() {
  imports "$PEER_FLAX_PYTHON" "libtpu, optax; from transformers import FlaxXLMRobertaForMaskedLM" ||
    { skip "run_mlm_flax for v5e:4x4" "$PEER_FLAX_PYTHON has no transformers<5 with flax, optax and libtpu ($why)"; return; }
  if peer "$PEER_FLAX_PYTHON" "$peers/peer_hf_flax_aot.py" v5e:4x4 16 base; then
    echo "$line"
    compared=$((compared + 1))
  else
    skip "run_mlm_flax for v5e:4x4" "the peer failed: $why"
  fi
}

if [ ! -d "$peers" ]; then
  skip "all" "$peers is not there; pass the folder of the peers' programs"
  exit 1
fi
for part in ${PARTS:-step input flax}; do
  case $part in
    step) program=peer_hf_torch_step.py run=steps ;;
    input) program=peer_hf_collator.py run=inputs ;;
    flax) program=peer_hf_flax_aot.py run=flax ;;
    *) echo "error: PARTS=$part: one of step, input, flax" >&2; exit 1 ;;
  esac
  if [ -e "$peers/$program" ]; then "$run"; else skip "$part" "$peers/$program is not there"; fi
done
[ "$compared" -gt 0 ] && [ "$failed" = 0 ]
