"""Pretrains on the built-in text in 15 languages until transfer stops rising, and shows what was learnt.

  xlmr demo [--workdir=runs/demo] [--pass_on=--config.train_steps=100]
  xlmr demo --text=DIR [--scale=1.0] [--seed=0]      only writes the text, in CC-100's layout, to build rows of
  xlmr demo --parallel=DIR [--scale=1.0] [--seed=0]  only writes parallel sentences, for `xlmr build_rows --parallel=DIR`

The same command goes on where the demo was stopped.
"""

import json

from absl import flags

from xlmr_jax.commands.flags import FLAGS, local_path_of, refuse_arguments, start
from xlmr_jax.errors import UserError


def refuse_ignored() -> None:
  """UserError for flags that are empty, or that would say nothing about what is asked for."""
  for name in ("text", "parallel"):
    if FLAGS[name].value == "":  # An unset variable, say. Without the flag, the whole demo would run.
      raise UserError(f"--{name}= is empty; name a folder, or leave the flag out")
  if FLAGS.text and FLAGS.parallel:
    raise UserError("--text, --parallel: give one of them; each only writes its own folder")
  writes = "text" if FLAGS.text else "parallel" if FLAGS.parallel else ""
  for name in ("workdir", "pass_on") if writes else ("scale", "seed"):
    if FLAGS[name].present and writes:
      raise UserError(f"--{name}: is for the whole demo, and --{writes} only writes a folder; leave one of them out")
    if FLAGS[name].present:
      raise UserError(f"--{name} works only together with --text=DIR or --parallel=DIR, which write a folder")


def main(argv: list[str]) -> int | None:
  """Runs the demo, or writes its text, and prints one line of JSON."""
  refuse_arguments(argv)
  refuse_ignored()
  if FLAGS.text:
    from xlmr_jax.demo.text import write_text

    print(json.dumps(write_text(local_path_of("text", makes="folder"), scale=FLAGS.scale, seed=FLAGS.seed)))
    return None
  if FLAGS.parallel:
    from xlmr_jax.demo.parallel import write_parallel

    print(json.dumps(write_parallel(local_path_of("parallel", makes="folder"), scale=FLAGS.scale, seed=FLAGS.seed)))
    return None
  from xlmr_jax.demo.run import run_demo

  code, summary = run_demo(local_path_of("workdir", makes="folder"), FLAGS.pass_on)
  if code:
    return code
  print(json.dumps(summary))
  if summary["not_below_unigram"]:
    raise UserError(f"held-out loss is not below the unigram entropy for {', '.join(summary['not_below_unigram'])}")
  return None


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string("workdir", "runs/demo", "folder of the run")
  flags.DEFINE_multi_string("pass_on", [], "flags for `xlmr pretrain`, e.g. --pass_on=--config.train_steps=100")
  flags.DEFINE_string("text", None, "only write the demo's text, one LANG.txt per language, to this folder")
  flags.DEFINE_string("parallel", None, "only write parallel sentences in English and each of the others, to this folder")
  flags.DEFINE_float("scale", 1.0, "with --text or --parallel: its size; 1 is 3.4 MB, and 2,500 sentences per pair")
  flags.DEFINE_integer("seed", 0, "with --text or --parallel: another seed gives another text about the same world")
  start(main)
