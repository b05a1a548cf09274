"""Makes clean text by language from a crawl or any other text: repairs, identifies, removes repeats and what is no text.

  xlmr build_corpus --source=wet:FILES|warc:FILES|cc100:DIR|jsonl:FILES|parquet:FILES|tfds:NAME --out=CLEAN
                    [--languages=...] [--workers=N] [--task=i/n] [--runner=...]

FILES is a path, a glob, or @LIST, a file with one path per line. CLEAN gets LANG/*.txt.zst in CC-100's layout, which
`xlmr train_vocabulary` and `xlmr build_rows` take as --text=CLEAN; removed/STEP/LANG.jsonl, samples of what was
removed, and with --removed=all removed/STEP/LANG/*.jsonl.zst, all of it; manifest.json and corpus_report.html. A build that
was interrupted goes on when the same command is given again. With Beam's own flags, such as --runner=DataflowRunner, Apache
Beam runs it. With --task=i/n it does one share of n, e.g. of a Slurm array. FILES and CLEAN may lie in a bucket, gs://BUCKET/NAME.
"""

import json
import logging
import re
import sys
import time

from absl import flags

from xlmr_jax.commands.flags import FLAGS, exit_on_signals, parse_flags, path_of, start
from xlmr_jax.errors import UserError
from xlmr_jax.given_paths import local_path, path_given


def main(argv: list[str]) -> int | None:
  """Builds the corpus and prints one line of JSON. argv: the command's name, and the flags that are left for Beam."""
  from xlmr_jax.corpus.clean.build import Inputs, Options, build_corpus
  from xlmr_jax.corpus.clean.forecast import forecast, languages_to_come
  from xlmr_jax.corpus.sources.registry import Fields, open_source
  from xlmr_jax.report.corpus_report import write_corpus_report

  out = path_of("out", makes="folder")
  logging.disable(logging.WARNING)  # Beam's notices; ours do not go through logging.
  stopped = exit_on_signals()
  options = Options(
    language_id=_language_id(),
    language_id_sha256=FLAGS.language_id_sha256,
    sure=FLAGS.sure,
    near_duplicates=FLAGS.near_duplicates == "on",
    rehydrate=FLAGS.rehydrate,
    mask_personal_data=FLAGS.pii == "mask",
    opt_out=str(path_given(FLAGS.opt_out, "--opt_out=")) if FLAGS.opt_out else "",
    reference=str(path_given(FLAGS.reference, "--reference=")) if FLAGS.reference else "",
    removed=FLAGS.removed,
    piece_mb=FLAGS.piece_mb,
    file_mb=FLAGS.file_mb,
    compress=FLAGS.compress,
  )
  fields = Fields(text=FLAGS.text_field, url=FLAGS.url_field, language=FLAGS.language_field)
  began = time.monotonic()
  try:
    source = open_source(FLAGS.source, fields=fields)
    inputs, task, beam_flags = Inputs(source, options), _task(), argv[1:]
    # This machine's cores say nothing of how long all tasks take, or the workers of a runner.
    works_alone = task is None and not beam_flags
    to_come = languages_to_come(out, FLAGS.languages) if FLAGS.plan or works_alone else None
    if FLAGS.plan or to_come is not None:
      languages = FLAGS.languages if to_come is None else to_come
      expected = forecast(source, out, options, languages=languages, workers=FLAGS.workers, inputs=inputs)
      print(*expected.lines(), sep="\n", file=sys.stdout if FLAGS.plan else sys.stderr, flush=True)
      if FLAGS.plan:
        print(json.dumps(expected.to_json()))
        return None
      expected.refuse_too_small_a_disk(out)
    summary = build_corpus(
      source, out, options, languages=FLAGS.languages, workers=FLAGS.workers, task=task, beam_flags=beam_flags, inputs=inputs
    )
    if "bytes_in" in summary:
      write_corpus_report(out)
      summary["mb_per_s"] = round(summary["bytes_in"] / 1e6 / max(time.monotonic() - began, 1e-9), 2)
  except BaseException:
    if not stopped:
      raise
    print("stopped; the same command goes on from here", file=sys.stderr)
    return 128 + stopped[0]
  print(json.dumps(summary))
  return None


def _language_id() -> str:
  """--language_id, with the path in it absolute."""
  kind, colon, path = FLAGS.language_id.partition(":")
  return f"{kind}:{local_path(path, '--language_id=fasttext:')}" if colon else kind


def _task() -> tuple[int, int] | None:
  if FLAGS.task is None:
    return None
  if not (found := re.fullmatch(r"(\d{1,7})/(\d{1,7})", FLAGS.task)):
    raise UserError(f"--task={FLAGS.task}: must be i/n, such as 0/8 to 7/8")
  return int(found[1]), int(found[2])


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string("source", None, "FORMAT:FILES; wet, warc, cc100, jsonl, parquet or tfds", required=True)
  flags.DEFINE_string("out", None, "folder of the clean text", required=True)
  flags.DEFINE_list(
    "languages", None, "only these, by comma; into a finished build too, whose others stay; by default all, or what it lacks"
  )
  flags.DEFINE_string("language_id", "cld2", "cld2, or fasttext:FILE such as `xlmr language_id train` makes")
  flags.DEFINE_string("language_id_sha256", "", "sha256 that FILE must have")
  flags.DEFINE_bool("sure", False, "leave out documents whose language is not sure")
  flags.DEFINE_enum("near_duplicates", "on", ["on", "off"], "remove all but the first of near duplicates")
  flags.DEFINE_bool("rehydrate", False, "repeat a document by the number of its near duplicates, as FineWeb-2 does")
  flags.DEFINE_enum("pii", "keep", ["keep", "mask"], "mask: e-mail and public IP addresses become fixed examples")
  flags.DEFINE_string("opt_out", None, "file of URLs, sha256 of URLs, and domains whose documents are left out")
  flags.DEFINE_enum(
    "removed", "samples", ["samples", "all"], "all: write all that is removed, with its reason, not only samples"
  )
  flags.DEFINE_string("reference", None, "clean text in CC-100's layout, from which the filters' limits are learnt")
  flags.DEFINE_string("text_field", "text", "the field of the text in JSON lines, Parquet and TFDS")
  flags.DEFINE_string("url_field", "url", "the field of the address in JSON lines and Parquet")
  flags.DEFINE_string("language_field", "language", "the field of the language in JSON lines and Parquet, or =CODE for all")
  flags.DEFINE_bool("plan", False, "only say what the build would take, and write nothing")
  flags.DEFINE_integer("workers", None, "processes, unless Beam runs the build; all cores by default")
  flags.DEFINE_string("task", None, "i/n: do this share of n without any engine; all see --out under the same path")
  flags.DEFINE_float("piece_mb", 32, "10^6 bytes of text that a worker holds at a time; it changes the files' order of work")
  flags.DEFINE_float("file_mb", 256, "10^6 bytes of clean text per file")
  flags.DEFINE_bool("compress", True, "write .txt.zst; .txt otherwise")
  FLAGS.set_gnu_getopt(True)
  start(main, lambda argv: parse_flags(argv, known_only=True))
