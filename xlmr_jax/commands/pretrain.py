"""Pretrains a config in a workdir, from its newest checkpoint if it has one.

  xlmr pretrain --config=base --workdir=DIR --config.data.rows=ROWS [--config.KEY=VALUE ...]
  xlmr pretrain --config=base:runlocal --workdir=DIR          # the same path on a laptop, under a minute
  xlmr pretrain --config=base --config.data.rows=ROWS --workdir=NEW --branch=RUN@STEP   # goes on from a checkpoint of RUN

Exit codes: 0 done, 1 the user must act, 42 start me again, 70 a crash.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import sys

from absl import flags
from ml_collections import ConfigDict

from xlmr_jax import bucket
from xlmr_jax.commands.flags import FLAGS, define_config, load_tasks, path_of, read_config, refuse_arguments, start
from xlmr_jax.config import parse_row_shares
from xlmr_jax.config_checks import check_config
from xlmr_jax.data import phases
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, StoreError, UserError
from xlmr_jax.files import AnyPath, absolute, any_path, read_bytes, write_whole


def open_rows(config: ConfigDict, workdir: AnyPath):
  """The RowStore of the config, checked against its model; the demo's rows are built in the workdir first."""
  from xlmr_jax.data.row_shares import PartOfRows
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.model.build import family_of
  from xlmr_jax.training.model_languages import languages_to_read, refuse_pairs

  rows, marks_words = config.data.rows, config.data.mask_unit != "piece"
  if rows == "demo":
    from xlmr_jax.demo import corpus
    from xlmr_jax.run import hosts

    hosts.on_first(lambda: corpus.build_demo_rows(workdir, word_starts=marks_words))
    rows = corpus.demo_rows(workdir)
  shares = parse_row_shares(config.data.row_shares)
  opened = functools.partial(PartOfRows, shares=shares) if shares else RowStore
  parallel_shares = [config.data.parallel_share, *(phase.parallel_share for phase in phases.phases_of(config, None))]
  languages = languages_to_read(rows, tuple(config.data.languages), parallel_shares)
  store = opened(rows, languages=languages, cache=config.data.cache, marks_words=marks_words)
  refuse_pairs(config, store)
  wanted = config.model.vocabulary_size
  if wanted and wanted != store.vocabulary_size:
    raise UserError(
      f"config.model.vocabulary_size={wanted}, but the rows in {rows} were made with a vocabulary of "
      f"{store.vocabulary_size} ({store.tokenizer_path}); build them with the other vocabulary"
    )
  longest = family_of(config).max_seq_len(config.model)
  if store.seq_len > longest:
    raise UserError(
      f"config.model.max_positions={config.model.max_positions}: the rows in {rows} have "
      f"{store.seq_len} tokens and need {store.seq_len + config.model.max_positions - longest}"
    )
  for split in ("train", "held_out"):
    empty = [name for name, count in zip(store.languages, store.counts(split)) if not count]
    if empty:
      raise UserError(
        f"{rows} has no {split} rows in {', '.join(empty)}; build them with --held_out above 0, or leave "
        "those languages out with --config.data.languages"
      )
  return store


def main(argv: list[str]) -> int:
  """Runs the command, and sees to it that no process of the run waits for one that has failed."""
  from xlmr_jax.run import hosts

  try:
    code = pretrain(argv)
    give_locks_back()
    return hosts.end(code)
  except SystemExit as end:  # Some library's or user's; as it is, exit 0 would say that the run is done.
    error = RuntimeError(f"something inside the run called sys.exit({end.code!r})")
    hosts.fail(error)
    raise error from end
  except BaseException as error:
    if not bucket.has_given_up():
      with contextlib.suppress(OSError, StoreError):
        give_locks_back()
    hosts.fail(error)
    raise


def give_locks_back() -> None:
  """Ends the claim on the workdir, which in a bucket would keep another machine waiting."""
  while _LOCKS:
    _LOCKS.pop().close()


def pretrain(argv: list[str]) -> int:
  """The run from its flags to its result. Returns the exit code."""
  refuse_arguments(argv)
  root = path_of("workdir", makes="folder")
  config = read_config()
  check_config(config)
  phases.phases_of(config, None)  # What can be told without the rows is refused before anything else happens.
  config.phases = phases.canonical(config.phases)
  bucket.end_when_given_up()
  import jax  # after the cheap checks

  from xlmr_jax.hardware import refuse_missing_platform
  from xlmr_jax.open_model import load_initial
  from xlmr_jax.run import branch as branches
  from xlmr_jax.run import compile_cache, hosts, memory
  from xlmr_jax.run.preemption import Preemption
  from xlmr_jax.run.workdir import RunRecord, Workdir, is_hugging_face, read_record, read_stop, refuse_other_run
  from xlmr_jax.training import loop, preparation, program
  from xlmr_jax.training.model_languages import with_languages

  workdir = Workdir(root)
  if FLAGS.branch:
    branches.parse(FLAGS.branch)  # Refuses what is no path, before anything is written.
  memory.keep_freed_memory()
  peers = hosts.start(
    FLAGS.hosts, FLAGS.coordinator, FLAGS.processes, FLAGS.process,
    join_s=config.watchdog.join_s, heartbeat_s=config.watchdog.heartbeat_s,
  )  # fmt: skip
  preemption = Preemption(peers)
  versions = hosts.versions()
  hosts.refuse_disagreement(
    {"config": config.to_dict(), "workdir": str(workdir), "versions": versions, "code": hosts.code_digest()}
  )
  refuse_missing_platform()
  if config.evaluate.tasks:
    load_tasks(config)  # A misspelt name is refused here and not by the evaluator, when the run has trained for days.
  program.mesh_of(config)  # Refuses a mesh that does not fit before rows are opened or built.
  compile_cache.use(config.compile_cache, workdir.root)
  hosts.refuse_unshared(workdir.root)
  if is_hugging_face(workdir.root):
    raise UserError(
      f"{workdir} is a Hugging Face folder; make a run of it: xlmr convert from-hf --source={workdir} --workdir=RUN"
    )
  store = hosts.together(lambda: open_rows(config, workdir.root))
  config = with_languages(config, store)
  if config.evaluate.tasks:
    from xlmr_jax.evaluation.choices import refuse_languages

    refuse_languages(config)
  # An import stays in the record for good, so that a run that lost its checkpoints begins with it again.
  imported = read_record(workdir).imported if workdir.record.exists() else None
  record = RunRecord(
    config=config.to_dict(), rows_fingerprint=store.fingerprint, languages=store.languages,
    vocabulary_size=store.vocabulary_size, tokenizer_sha256=store.manifest["tokenizer_sha256"],
    rows=str(absolute(store.root)), seq_len=store.seq_len, versions=versions, imported=imported,
  )  # fmt: skip
  hosts.refuse_disagreement(
    {"rows_fingerprint": record.rows_fingerprint, "tokenizer": record.tokenizer_sha256, "languages": record.languages}
  )
  allowed, rows = tuple(FLAGS.allow_change), preparation.rows_of(store)
  branches.refuse_other_order(workdir, record, rows)  # First, because --allow_change does not help there by itself.
  refuse_other_run(workdir, record, allowed)
  branches.refuse_other_languages(workdir, record)

  def choose_branch() -> dict | None:  # Once for all processes, because RUN's newest checkpoint may soon be another one.
    chosen = branches.choose(FLAGS.branch, workdir, record, rows)
    return chosen.to_json() if chosen else None

  record = dataclasses.replace(record, branch=hosts.on_first(choose_branch))
  branch = branches.branch_of(record)
  past = branches.past_of(workdir, branch, rows)
  prepared = preparation.prepare(config, store, branch.phases if branch else (), past.newest if past else 0)
  branches.refuse_other_past(workdir, prepared.phases, rows, record.config)
  if past:
    preparation.say_other_rate(past, prepared)
  if branch and not workdir.record.exists():
    branches.refuse_other_model(branch, prepared.program.state)
    record = dataclasses.replace(
      record, imported=hosts.on_first(lambda: read_record(Workdir(any_path(branch.run))).imported)
    )

  def claim() -> None:
    """Takes the workdir: its lock, the vocabulary (for evaluation where the rows are not) and the record."""
    if jax.process_index() == 0:
      workdir.root.mkdir(parents=True, exist_ok=True)
      _LOCKS.append(workdir.lock_training())
      refuse_other_run(workdir, record, allowed, quiet=True)  # Another start may have begun a run while this one waited.
      # Not as JSON, which may be of a version that recorded less.
      if workdir.record.exists() and branches.branch_of(read_record(workdir)) != branch:
        raise UserError(f"{workdir} has just become a run with another --branch; use a new workdir")
      write_whole(workdir.tokenizer, read_bytes(store.tokenizer_path))  # Whole: a link there keeps its target's content.
      record.write(workdir)
      if branch:
        branches.copy(branch, workdir)
      workdir.result.unlink(missing_ok=True)  # A stopped run may go on.
      say_if_not_exportable(config, store.tokenizer_path)

  hosts.together(claim)
  initial = (lambda abstract: load_initial(workdir, abstract)) if imported else None
  result = loop.run(prepared, workdir, preemption, initial)
  if result.preempted:
    return EXIT_RESTART
  if result.held_out is not None:
    from xlmr_jax.files import write_json

    summary = {"step": result.step, "held_out_loss": result.held_out["mean_loss"],
               "languages": len(result.held_out["languages"]) - len(result.held_out.get("parallel", ())),
               "workdir": str(workdir)}  # fmt: skip
    stop = read_stop(workdir) if result.step < config.train_steps else None
    summary |= {"stopped_by": stop.reason} if stop else {}
    write_json(workdir.result, summary)  # Its presence says that the run is done.
    print(json.dumps(summary))
  return EXIT_DONE


def say_if_not_exportable(config: ConfigDict, path: AnyPath) -> None:
  """Prints one line on stderr if such a run's model can never be exported to Hugging Face. path: of the vocabulary."""
  from xlmr_jax.data.tokenizer import open_tokenizer
  from xlmr_jax.huggingface import export, tokenizer

  try:
    why = export.why_no_export(config)
    if not why:
      opened = open_tokenizer(path)
      why = export.why_no_export(config, opened) or tokenizer.why_no_export(opened)
  except UserError as error:  # Training needs ids alone.
    why = str(error)
  if why:
    print(f"this model will not be exported to Hugging Face: {why}", file=sys.stderr, flush=True)


def write_goodput_at_exit() -> None:
  """Has the time that it took to leave Python in the account of the run, if there was one."""
  if module := sys.modules.get("xlmr_jax.run.goodput"):
    module.write_at_exit()


_LOCKS = []  # open for as long as the run lasts


def run() -> None:
  """Defines the command's flags and runs it."""
  define_config()
  flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, logs. Resumes what it holds.")
  flags.DEFINE_enum(
    "hosts", "off", ["off", "auto", "explicit"],
    "Several processes as one run: auto on Cloud TPU, GKE and Slurm; explicit with the next three",
  )  # fmt: skip
  flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0")
  flags.DEFINE_integer("processes", 0, "How many processes there are")
  flags.DEFINE_integer("process", -1, "The number of this process, from 0 on")
  flags.DEFINE_list("allow_change", [], "Config keys in which a continued run may differ, e.g. optimizer.peak_lr,seed")
  flags.DEFINE_string("branch", "", "RUN[@STEP]: a new run goes on from this checkpoint of RUN, by default its newest")
  flags.mark_flags_as_required(["config", "workdir"])
  atexit.register(write_goodput_at_exit)  # Registered before all others, so that it is called after them.
  start(main)
