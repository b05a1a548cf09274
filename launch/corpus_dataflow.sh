#!/usr/bin/env bash
# A corpus on Google Dataflow.
#   launch/corpus_dataflow.sh --project=P --region=us-central1 --image=IMAGE --temp=gs://B/tmp [--workers=200] \
#       [--dry-run] -- --source=wet:@wet.txt --out=gs://B/clean
# IMAGE is what launch/corpus.Dockerfile makes. The text and --out lie in buckets, gs://..., which the service account of the
# workers must be allowed to read and write. A list of files (@wet.txt) may lie here. Or both lie on a share, such as
# Filestore, that IMAGE mounts at /data when it starts, and so must you: --source=wet:@/data/wet.txt --out=/data/clean.
# --dry-run prints the command and runs nothing. Nobody has run this on Dataflow yet; the same graph runs in the tests by
# Beam's portable job service with outside workers.
set -euo pipefail
project='' region='' image='' temp='' workers=200 dry=''
die() { echo "error: $1" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --project=*) project=${1#*=};; --region=*) region=${1#*=};; --image=*) image=${1#*=};; --temp=*) temp=${1#*=};;
    --workers=*) workers=${1#*=};; --dry-run) dry=1;; --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0;; --) shift; break;;
    *) die "unknown option $1; the flags of build_corpus go behind --";;
  esac
  shift
done
for option in project region image temp; do [ -n "${!option}" ] || die "--$option is needed"; done
[[ $temp == gs://* ]] || die "--temp=$temp: must be a folder in a bucket, gs://..."
[[ $workers =~ ^[0-9]+$ ]] || die "--workers=$workers: must be a number"
source='' out=''
for word in "$@"; do case $word in --source=*) source=${word#*=};; --out=*) out=${word#*=};; esac; done
[ -n "$source" ] || die "the flags of build_corpus (behind --) lack --source="
case $source in
  *:gs://*|*:@*|*:/data/*|tfds:*) ;;
  *) die "--source=$source: the workers see buckets, gs://..., and what is below /data; copy the text to a bucket";;
esac
case $out in gs://*|/data/*) ;; *) die "the flags of build_corpus (behind --) lack --out=gs://... or --out=/data/...";; esac
command=("${XLMR:-xlmr}" build_corpus "$@" --runner=DataflowRunner --project="$project" --region="$region" --temp_location="$temp"
  --sdk_container_image="$image" --max_num_workers="$workers" --machine_type=n2-standard-8 --experiments=use_runner_v2
  --job_name="xlmr-corpus-$(date +%Y%m%d-%H%M%S)")
if [ -n "$dry" ]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
