# shellcheck shell=bash
# What the launchers share: messages, checks, quoting, and the loop that keeps one TPU running until its run has ended. It is sourced.
# A launcher may be started on a Mac, whose bash is 3.2: no ${x@Q}, no mapfile, and an empty array needs ${a[@]+"${a[@]}"}.

dry=${dry:-}
poll_s=${XLMR_POLL_S:-60}         # seconds between two looks at a state
patience=${XLMR_PATIENCE:-20}     # failures in a row, of looking or following, that are borne

die() { echo "error: $1" >&2; exit 1; }
note() { echo "$(date +%H:%M:%S) $1" >&2; }

# The comment at the top of a script is its help.
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0; }

# Runs a command, or prints it so that it can be pasted into a shell.
run() { if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi; }

# Its arguments as one piece of text that a POSIX shell splits into the same arguments again.
quoted() { local word text=''; for word in "$@"; do text+="'${word//\'/\'\\\'\'}' "; done; printf '%s' "${text% }"; }

# The value of --NAME= among the flags of the run: value_of NAME "$@". The last one counts, as in the run itself.
value_of() {
  local name=$1 value='' word; shift
  for word in "$@"; do case $word in --"$name"=*) value=${word#*=};; esac; done
  printf '%s' "$value"
}

# Ends with one line unless the run's flags name a config and a workdir: check_run pretrain|evaluate "$@".
check_run() {
  local what=$1 word; shift
  [ $# -gt 0 ] || die "the flags of $what are missing; they go behind --"
  for word in "$@"; do
    case $word in --*) ;; *) die "$word: the flags of $what (behind --) are of the form --name=value";; esac
  done
  [ -n "$(value_of workdir "$@")" ] || die "the run's flags (behind --) lack --workdir="
  [ "$what" = evaluate ] || [ -n "$(value_of config "$@")" ] || die "the run's flags (behind --) lack --config="
}

check_name() { [[ $1 =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "--name=$1: lower-case letters, digits and dashes, a letter first"; }
check_number() { [[ $2 =~ ^[0-9]+$ ]] || die "--$1=$2: must be a number"; }
check_tool() { [ -n "$dry" ] || command -v "$1" >/dev/null || die "$1 is not installed: $2"; }

# The image that Google documents for a TPU type (https://cloud.google.com/tpu/docs/runtimes).
image_of() {
  case $1 in
    v4-*) echo tpu-ubuntu2204-base;; v5litepod-*) echo v2-alpha-tpuv5-lite;; v5p-*) echo v2-alpha-tpuv5;;
    v6e-*) echo v2-alpha-tpuv6e;; *) die "--type=$1: pass its image as --version=";;
  esac
}

# --- Kubernetes ---

# Deletes a JobSet or Job that has ended: remove_ended jobset|job NAME. It would stay as it is, and nothing would run, because
# Kubernetes takes the same document again for no change. With it go its pods and their logs, and nothing of the bucket.
# The launcher defines `kube`, the command of kubectl.
remove_ended() {
  local ended
  [ -z "$dry" ] || return 0
  # shellcheck disable=SC2154
  ended=$("${kube[@]}" get "$1" "$2" --ignore-not-found -o "jsonpath={.status.conditions[?(@.status=='True')].type}") ||
    die "whether the $1 $2 has ended could not be asked; the reason is above"
  case " $ended " in
    *" Completed "*|*" Complete "*|*" Failed "*)
      note "the $1 $2 of an earlier start has ended; it is deleted, so that it can be started again"
      "${kube[@]}" delete "$1" "$2" --ignore-not-found --cascade=foreground >&2 || die "the $1 $2 could not be deleted; the reason is above";;
  esac
}

# --- a run in a bucket ---

# Whether the run is over. Only a bucket can be seen from here.
is_done() { case $1 in gs://*) gcloud storage ls "${1%/}/result.json" >/dev/null 2>&1;; *) return 1;; esac; }

# --- a TPU that runs until the run has ended ---

# The processes that hear of --stop: the run, and babysit.sh, which would start it again. Not the shells around them.
# shellcheck disable=SC2034
run_pattern='^([^ ]*bash launch/babysit[.]sh|[^ ]*python[^ ]*) .*xlmr_jax (pretrain|evaluate)'

# The command that shows a log on a worker from line $2 on until the run there has ended, and then how: remote_follow FOLDER LINES
remote_follow() {
  printf '%s' "cd $1 2>/dev/null || { sleep 5; exit; }; tail -n $2 -F run.log 2>/dev/null & shown=\$!; \
until [ -s run.exit ]; do sleep 5; done; sleep 2; kill \$shown; echo xlmr-exit \$(cat run.exit)"
}

# Shows what a command prints, and sets `ended` to how the run ended: "CODE", "CODE stopped", or nothing if the link broke.
follow() {
  local line
  ended=''
  while IFS= read -r line; do
    line=${line%$'\r'}
    case $line in "xlmr-exit "*) ended=${line#xlmr-exit };; *) printf '%s\n' "$line";; esac
  done < <("$@" || true)
}

# The state of a resource, by a command that prints it: NONE if it is not there, UNKNOWN if that cannot be said now.
state_of() {
  local state errors
  errors=$(mktemp)
  if state=$("$@" 2>"$errors"); then
    echo "${state:-UNKNOWN}"
  elif grep -qiE 'not.?found' "$errors"; then
    echo NONE
  else
    cat "$errors" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

# Whether $1 is one of the words of $2.
among() { case " $2 " in *" $1 "*) return 0;; *) return 1;; esac; }

# Keeps one TPU running until its run has ended, and exits as the run did: supervise WORKDIR TRIES LOST THERE HALTED [EXPIRED]
# WORKDIR: the bucket's folder that has a result.json at the end, or "" where nothing there tells the end.
# LOST: the states in which the TPU was taken away, so that it is deleted and made again, at most TRIES times. THERE: those in
# which it can be used. HALTED: those that somebody chose, which end the launcher. EXPIRED: those that end it if the TPU was never THERE
# since it was asked for. All other states are waited for. The launcher defines what the loop calls:
#   look, why    print the state, and more about it       make, remove   ask for the TPU, and delete it
#   begin        starts the run on it                     watch LINES    follows the log
#   finish CODE  does what is left to do, and exits; it is called as finish CODE stopped after --stop, and as finish CODE unseen
#                when the launcher lost sight of a run that may be healthy, so that the TPU must stay
supervise() {
  local workdir=$1 tries=$2 lost=$3 there=$4 halted=$5 expired=${6:-}
  local state since queued='' made=0 begun='' lines=+1 unknown=0 broken=0 failed=0 waited=0
  while :; do
    if is_done "$workdir"; then note "the run is done: ${workdir%/}/result.json is there; remove that file to go on with it"; finish 0; fi
    state=$(look)
    [ "$state" = UNKNOWN ] || unknown=0
    if [ "$state" = UNKNOWN ]; then
      unknown=$((unknown + 1))
      [ "$unknown" -lt "$patience" ] || { echo "error: the state could not be read $unknown times in a row" >&2; finish 1 unseen; }
      sleep "$poll_s"
    elif [ -n "$queued" ] && among "$state" "$expired"; then
      why || true
      echo "error: the TPU is $state and was never $there: its time to wait ran out, or it cannot be had at all" >&2
      finish 1
    elif [ "$state" = NONE ] || among "$state" "$lost"; then
      [ "$made" -le "$tries" ] || { echo "error: the TPU was lost $made times (--tries=$tries)" >&2; finish 1; }
      if [ "$state" != NONE ]; then
        note "the TPU is $state: deleting it"
        why || true
        remove || true
      fi
      if [ "$made" -gt 0 ]; then
        note "asking for it again ($made of --tries=$tries)"
        sleep "$poll_s"
      fi
      made=$((made + 1)) begun='' waited=0 queued=''
      if make; then queued=1; elif [ "$made" = 1 ]; then die "the TPU could not be asked for; the reason is above"; fi
    elif among "$state" "$halted"; then
      echo "error: the TPU is $state; start it, or delete it, which the same launcher does with --delete" >&2
      finish 1
    elif ! among "$state" "$there"; then
      [ -n "$begun" ] || queued=1
      note "the TPU is $state"
      sleep "$poll_s"
    elif [ -z "$begun" ] && ! begin; then
      # The TPU may have been taken away meanwhile, which the next look shows.
      failed=$((failed + 1)) queued=''
      [ "$failed" -lt 5 ] || { echo "error: the run could not be started five times; the reason is above" >&2; finish 1 unseen; }
      sleep "$poll_s"
    else
      [ -n "$begun" ] || lines=+1
      begun=1 failed=0 queued='' since=$SECONDS
      watch "$lines"
      lines=50
      if [ $((SECONDS - since)) -ge 60 ]; then broken=0 waited=0; fi
      case $ended in
        0) finish 0;;
        1) echo "error: the run ended with 1, and its last line above says what to do" >&2; finish 1;;
        *stopped) note "the run was stopped, with exit ${ended% *}; the same command goes on"; finish 42 stopped;;
        '')
          broken=$((broken + 1))
          [ "$broken" -lt "$patience" ] || { echo "error: the log could not be followed $broken times in a row" >&2; finish 1 unseen; }
          sleep "$poll_s";;
        *)
          # babysit.sh ends like this when the machine shuts down, and when it gives up. A few more looks tell which.
          waited=$((waited + 1))
          [ "$waited" -lt "$patience" ] || { echo "error: the run gave up with exit $ended; the reason is above" >&2; finish "$ended"; }
          sleep "$poll_s";;
      esac
    fi
  done
}
