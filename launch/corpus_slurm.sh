#!/usr/bin/env bash
# A corpus on a Slurm cluster, as an array of tasks that need no engine.
#   sbatch --array=0-99 launch/corpus_slurm.sh --source=wet:@/share/wet.txt --out=/share/clean
#   bash launch/corpus_slurm.sh --dry-run --source=... --out=...      prints what the first of a hundred tasks would run
# Every task sees --out under the same path. A task does its share of each stage, waits for the others while they live, and
# does the work of those that died. If not all tasks run at once, the last ones do what is left. Start the array again if the
# time limit ended it: what is finished is skipped.
#SBATCH --cpus-per-task=1 --mem=4G --time=24:00:00 --requeue
set -euo pipefail
case ${1:-} in
  --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" | grep -v '^SBATCH'; exit 0;;
  --dry-run) shift; printf '%q ' "${XLMR:-xlmr}" build_corpus "$@" --task=0/100; echo; exit 0;;
esac
for word in "$@"; do case $word in --*) ;; *) echo "error: $word: the flags of build_corpus are of the form --name=value" >&2; exit 1;; esac; done
: "${SLURM_ARRAY_TASK_ID:?start it by sbatch --array=0-N}" "${SLURM_ARRAY_TASK_COUNT:?}" "${SLURM_ARRAY_TASK_MIN:?}"
[ "$SLURM_ARRAY_TASK_MIN" = 0 ] || { echo "error: the array must begin at 0" >&2; exit 1; }
exec "${XLMR:-xlmr}" build_corpus "$@" --task="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
