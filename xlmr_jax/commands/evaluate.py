"""Follows a run's checkpoints, scores each by fine-tuning on tasks, and ends the training once scores stop rising.

  xlmr evaluate --workdir=DIR [--config.evaluate.tasks=xnli,panx] [--config.stop.patience=5]
  xlmr evaluate --workdir=DIR --once      # scores what is there, and ends
  xlmr evaluate --workdir=DIR --replay [--config.stop.patience=3]      # where a rule would have stopped
  xlmr evaluate --workdir=DIR --checkpoint=best --tasks=xnli,mlqa --seeds=5 [--settings=zero_shot,...]
  xlmr evaluate --workdir=HUGGING_FACE_FOLDER --tasks=xnli [--out=FILE]      # the same table for any XLM-R, RoBERTa or BERT

The config is the run's own (config.json), of which evaluate.* and stop.* can be given anew. Every eligible checkpoint
is taken once and in order. Exit codes: 0 the run is over, 1 the user must act (a task could not be scored, for example),
42 start me again (SIGTERM), 70 a crash.
"""

import hashlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from xlmr_jax import bucket
from xlmr_jax.commands.flags import (
  FLAGS,
  load_tasks,
  override_config,
  parse_flags_leaving_config,
  path_of,
  refuse_arguments,
  start,
)
from xlmr_jax.config import split_names
from xlmr_jax.config_checks import check_evaluation
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.files import AnyPath, absolute, sha256_of
from xlmr_jax.folders import entries
from xlmr_jax.given_paths import refuse_blocked, refuse_unwritable
from xlmr_jax.run.workdir import RunRecord, Workdir, is_hugging_face, read_record

UNTRAINED = "; it holds an imported model that has not been trained here yet, which --checkpoint=initial scores"


def wait_for_record(workdir: Workdir) -> RunRecord:
  """The run's record, once training has begun: the evaluator may start before the run."""
  announced = None
  while not workdir.record.exists() or read_record(workdir).is_untrained_import:
    is_import = workdir.record.exists()
    if announced is not is_import:
      print(f"waiting for training to begin in {workdir}{UNTRAINED if is_import else ''}", flush=True)
    announced = is_import
    time.sleep(1.0)
  return read_record(workdir)


def default_out(workdir: Workdir, checkpoint: str) -> AnyPath:
  """The file of a table's scores: in the run, or in the current folder where the model is no run of ours. UserError."""
  if is_hugging_face(workdir.root):
    return refuse_unwritable(Path(f"{absolute(workdir.root).name}.scores.json").absolute(), folder=False)
  refuse_unwritable(workdir.final_scores, folder=True)
  return workdir.final_score(checkpoint)


def imported_dtype(workdir: Workdir, record: RunRecord) -> str:
  """The precision in which an imported model is fine-tuned: float32 if it was stored in it, else bfloat16."""
  from xlmr_jax.open_model import source_of

  source = source_of(workdir, record)
  return "float32" if source and all(tensor.dtype == "float32" for tensor in source.tensors.values()) else "bfloat16"


def weights_digest(folder: AnyPath) -> str:
  """The sha256 of a Hugging Face folder's parameters."""
  from xlmr_jax.progress import Progress

  weights = sorted(name for name in entries(folder) if name.endswith((".safetensors", ".bin")))
  with Progress(f"reading {folder}, by which its scores are known"):
    return hashlib.sha256("".join(sha256_of(folder / name) for name in weights).encode()).hexdigest()


def refuse_empty() -> None:
  """UserError for a flag with an empty value, which would count as no flag and ask for something else."""
  for name in ("checkpoint", "out", "settings", "tasks", "seeds"):
    if FLAGS[name].present and not FLAGS[name].value:
      raise UserError(f"--{name}= is empty; give a value, or leave the flag out")


def refuse_ignored(overrides: list[str]) -> None:
  """UserError for flags that say nothing about what is asked for, so that nobody takes the answer for theirs."""
  if not FLAGS.checkpoint:
    for name in ("out", "settings", "split"):
      if FLAGS[name].present:
        raise UserError(f"--{name} works only together with --checkpoint=NAME, which makes a table of scores")
  if FLAGS.replay:
    names = ("tasks", "seeds", "precision")
    given = [f"--{name}" for name in names if FLAGS[name].present]
    given += [text.partition("=")[0] for text in overrides if text.startswith("--config.evaluate.")]
    if given:
      raise UserError(f"{given[0]}: --replay fine-tunes nothing; it reads the scores that the evaluator has written. "
                      "--config.stop.score=TASK or TASK/LANGUAGE takes some of them")  # fmt: skip


# Flags that are short for keys.
_SHORT = {"tasks": ("tasks",), "precision": ("dtype",), "seeds": ("seeds", "seed_list"), "settings": ("setting",)}


def refuse_twice(overrides: list[str]) -> None:
  """UserError for a flag beside a key that it is short for: one of them would be ignored without a word."""
  given = {text.partition("=")[0] for text in overrides}
  for name, keys in _SHORT.items():
    for long in (f"--config.evaluate.{key}" for key in keys):
      if FLAGS[name].present and long in given:
        raise UserError(f"--{name}, {long}: give one of them; they say the same")


def main(argv: list[str]) -> int:
  overrides = refuse_arguments(argv, allowed_prefix="--config.")
  refuse_empty()
  refuse_twice(overrides)
  if FLAGS.once + FLAGS.replay + bool(FLAGS.checkpoint) > 1:
    raise UserError("--once, --replay and --checkpoint: give one of them")
  given = {"tasks": FLAGS.tasks, "dtype": FLAGS.precision}
  if FLAGS.seeds is not None:  # Each of the two keys undoes the other, which the run may have.
    is_list = "," in FLAGS.seeds and split_names(FLAGS.seeds)
    given |= {"seed_list": FLAGS.seeds} if is_list else {"seeds": FLAGS.seeds, "seed_list": ""}
  short = [f"--config.evaluate.{name}={value}" for name, value in given.items() if value is not None]
  keys = {text.partition("=")[0] for text in overrides}
  if "--config.evaluate.seeds" in keys and "--config.evaluate.seed_list" not in keys:
    short.append("--config.evaluate.seed_list=")  # As --seeds does.
  workdir = Workdir(path_of("workdir"))
  bucket.end_when_given_up()
  if isinstance(workdir.root, Path):
    refuse_blocked(workdir.root, folder=True)  # The run may come later, but not where a file lies.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_RESTART))  # Anywhere, because it is as safe as kill -9.
  if is_hugging_face(workdir.root):
    if FLAGS.once or FLAGS.replay:
      raise UserError(
        f"--once, --replay: {workdir} is a Hugging Face folder and holds one model; leave them out, and --tasks=NAMES "
        "prints a table of its scores"
      )
    FLAGS.checkpoint = FLAGS.checkpoint or "latest"
  refuse_ignored(overrides)
  overrides += short
  if FLAGS.checkpoint:  # Before the work, because afterwards it would be lost.
    out = path_of("out", makes="file") if FLAGS.out else default_out(workdir, FLAGS.checkpoint)
  from xlmr_jax.open_model import load_params, open_record, open_tokenizer_of, pooler_of_run

  at_once = FLAGS.once or FLAGS.replay or FLAGS.checkpoint
  record = open_record(workdir.root) if at_once else wait_for_record(workdir)
  if FLAGS.checkpoint == "best" and not is_hugging_face(workdir.root):
    from xlmr_jax.run.checkpoint_folder import best_checkpoint

    best_checkpoint(workdir)  # It refuses a copy that is of another model than best.json.
  config = override_config(record.config, overrides)
  if not config.evaluate.dtype and record.is_untrained_import:
    config.evaluate.dtype = imported_dtype(workdir, record)
  if FLAGS.checkpoint and "--config.stop.score" not in keys:
    config.stop.score = ""  # A table goes by no rule, and may have other tasks than the run's.
  check_evaluation(config)
  if FLAGS.replay:
    from xlmr_jax.evaluation import ledger

    print(json.dumps(ledger.replay(config, workdir)))
    return EXIT_DONE
  if not config.evaluate.tasks:
    raise UserError("config.evaluate.tasks is empty; name tasks, e.g. --config.evaluate.tasks=xnli,panx")
  modules_are_given = any(override.startswith("--config.evaluate.modules=") for override in overrides)
  load_tasks(config, None if modules_are_given else workdir.root)
  if FLAGS.once and record.is_untrained_import:
    raise UserError(f"{workdir} has no checkpoint yet; it holds an imported model, which --checkpoint=initial scores")
  from xlmr_jax.evaluation.choices import say_longer_than_trained
  from xlmr_jax.evaluation.final_scores import score_final
  from xlmr_jax.evaluation.follower import follow
  from xlmr_jax.evaluation.scorer import Scorer
  from xlmr_jax.model.build import family_of, params_shapes
  from xlmr_jax.run import compile_cache, memory
  from xlmr_jax.training.positions import longest_trained

  most = family_of(config).max_seq_len(config.model)
  told: set[str] = set()

  def say_untrained(step: int) -> None:  # Rows may become longer from phase to phase of a run.
    for line in say_longer_than_trained(config, longest_trained(record, step), most):
      if line not in told:
        print(line, file=sys.stderr, flush=True)
      told.add(line)

  memory.keep_freed_memory(of_many_shapes=True)
  compile_cache.use(config.compile_cache, workdir.root)
  tokenizer, pooler = open_tokenizer_of(workdir.root, record), pooler_of_run(workdir, record)
  if FLAGS.checkpoint:

    def load() -> tuple[int, Any]:
      step, params = load_params(workdir.root, record, config, FLAGS.checkpoint)
      say_untrained(step)
      return step, params

    result = score_final(
      out, config, record.vocabulary_size, tokenizer, load,
      FLAGS.checkpoint, FLAGS.settings or [config.evaluate.setting], FLAGS.split,
      "" if out.is_relative_to(workdir.root) else str(workdir), pooler,
      weights_digest(workdir.root) if is_hugging_face(workdir.root) else "",
    )  # fmt: skip
    print(json.dumps(result), flush=True)
    if result["failed"]:
      raise UserError(f"{', '.join(result['failed'])} could not be scored; the reasons are above, and in {out}")
    return EXIT_DONE
  if not record.config["evaluate"]["tasks"]:
    print("the run was started without config.evaluate.tasks: it may remove checkpoints before they are evaluated",
          file=sys.stderr, flush=True)  # fmt: skip
  scorer = Scorer(config, record.vocabulary_size, tokenizer, pooler=pooler)
  shapes = params_shapes(config, record.vocabulary_size)
  return follow(config, workdir, scorer, shapes, once=FLAGS.once, before=say_untrained)


def run() -> None:
  """Defines the command's flags and runs it."""
  flags.DEFINE_string("workdir", None, "Folder of the run, which may come later, or a Hugging Face folder", required=True)
  flags.DEFINE_bool("once", False, "Evaluate what is there, and end")
  flags.DEFINE_bool("replay", False, "Only say where config.stop would have ended the run")
  flags.DEFINE_string("checkpoint", None, "Score this one only: best, latest, initial or a step; prints the paper's table")
  flags.DEFINE_string("tasks", None, "Short for --config.evaluate.tasks")
  flags.DEFINE_string("seeds", None, "How many fine-tunings a task has (--config.evaluate.seeds), or their seeds, e.g. 3,7")
  flags.DEFINE_enum(
    "precision", None, ["bfloat16", "float32"],
    "Of fine-tuning, short for --config.evaluate.dtype (default: what the model was trained in)",
  )  # fmt: skip
  flags.DEFINE_string(
    "out", None,
    "With --checkpoint: file of the scores (default: evaluations/final of the run; of a Hugging Face folder "
    "NAME.scores.json in the current folder)",
  )  # fmt: skip
  flags.DEFINE_list("settings", [], "With --checkpoint: several of config.evaluate.setting, one table each")
  flags.DEFINE_enum(
    "split", "test", ["dev", "test"],
    "With --checkpoint: what to score on; of a task without a labelled test set, test is a dev set. Following uses dev",
  )  # fmt: skip
  start(main, parse_flags_leaving_config)
