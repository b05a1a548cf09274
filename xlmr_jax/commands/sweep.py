"""Runs the sweep of a config: many runs that differ in a few keys, one after another or as the tasks of an array.

  xlmr sweep --config=sweeps/alpha:tiny --workdir=SWEEP --text=DIR          # builds the rows, then runs all
  xlmr sweep --config=sweeps/alpha --workdir=SWEEP --rows=ROWS --index=3    # only the fourth run
  xlmr sweep --config=sweeps/alpha --workdir=SWEEP --rows=ROWS --array      # the one that Slurm or Kubernetes numbers
  xlmr sweep --config=sweeps/alpha --workdir=SWEEP --list                   # the runs, and how far each is

--config takes the name of a config that ships, or a file, whose sweep(add) calls add({"data.alpha": 0.3, "seed": 1}) for
each run; that run lies in SWEEP/alpha=0.3,seed=1. The same command goes on where it was stopped, and does nothing twice.
--config.KEY=VALUE goes to every run. Several starters may share a SWEEP: each takes the next run that is free.

Exit codes: 0 done, or --of has more starters than there are runs and this one has none; 1 the user must act, perhaps about a
run that failed (the others still ran), or another starter has the run of --index; 42 start me again: a run was preempted; 70
all runs that failed crashed (the others still ran).
"""

import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from absl import flags

from xlmr_jax import __version__, bucket
from xlmr_jax.commands.flags import FLAGS, parse_flags_leaving_config, path_of, refuse_arguments, start
from xlmr_jax.errors import EXIT_CRASH, EXIT_DONE, EXIT_USER, UserError, told
from xlmr_jax.given_paths import refuse_blocked

# Where schedulers say which task of an array this is. XLMR_INDEX is for others.
_INDEX_VARIABLES = ("XLMR_INDEX", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")


def array_index(environment: Mapping[str, str], *, several_hosts: bool = False) -> int:
  """The index that a scheduler gave to this task.

  several_hosts: in a JobSet, JOB_COMPLETION_INDEX then numbers the hosts of one run and not the runs.
  Raises UserError: no scheduler did, or it is no number.
  """
  names = _INDEX_VARIABLES[:2] if several_hosts else _INDEX_VARIABLES
  name = next((name for name in names if environment.get(name)), None)
  if name is None:
    raise UserError(f"--array: this is no task of an array; none of {', '.join(names)} is set")
  if not environment[name].isdecimal():
    raise UserError(f"--array: {name}={environment[name]!r} is no index")
  return int(environment[name])


def selected(runs: tuple, select: list[str]) -> tuple:
  """The runs whose values are as --select=KEY=VALUE says. UserError: no run has such a value."""
  for word in select:
    key, _, value = word.partition("=")
    kept = tuple(run for run in runs if str(run.values.get(key)) == value)
    if not kept:
      there = sorted({str(run.values[key]) for run in runs if key in run.values})
      raise UserError(f"--select={word}: no run has it; {key} is {', '.join(there) or 'no value of the runs'}")
    runs = kept
  return runs


def share_of(runs: tuple, index: int | None, of: int | None) -> tuple:
  """The runs that starter `index` of `of` is for: index, index + of, ...; all of them without an index.

  Over all indices, every run comes once; where there are more starters than runs, some have none. of: by default the number
  of runs. Raises UserError: there is no such index, or no such number of starters.
  """
  if of is not None and of < 1:
    raise UserError(f"--of={of}: must be at least 1, the number of starters that share the runs")
  if index is None:
    if of is not None:
      raise UserError(f"--of={of}: says how many starters share the runs, and --index or --array which one this is")
    return runs
  count = len(runs) if of is None else of
  if not 0 <= index < count:
    among = f"{count} runs" if of is None else f"{of} starters (--of)"
    raise UserError(f"index {index}, of --index or --array: there are the indices 0 to {count - 1} of {among}")
  return runs[index::count]


def refuse_tasks_without_files(plan, runs: tuple) -> None:
  """UserError for runs with tasks whose files are nowhere said to be, which would be found out once a run is trained."""
  from xlmr_jax.evaluation.choices import task_folders
  from xlmr_jax.evaluation.tasks import registry

  for run in runs:
    evaluate = plan.config(run).evaluate
    folders = task_folders(evaluate.folder, evaluate.data)
    for name in evaluate.tasks:
      task = registry.TASKS.get(name)
      reads_files = task is not None and task.reader.__module__.startswith("xlmr_jax.evaluation.tasks.")
      if reads_files and not folders[""] and name not in folders:
        raise UserError(f"{run.name}: is to be scored on {name}, and no folder is said to have its files; give "
                        f"--config.evaluate.folder=TASKS, with TASKS/{name}, or --config.evaluate.tasks= to score "
                        "no run")  # fmt: skip


def main(argv: list[str]) -> int:
  """Runs, or lists, the sweep. Returns the exit code."""
  overrides = refuse_arguments(argv, allowed_prefix="--config.")
  from xlmr_jax.sweep.folder import SweepFolder, describe, open_folder, read_description, refuse_other_sweep
  from xlmr_jax.sweep.rows import refuse_one_store, refuse_unread_text
  from xlmr_jax.sweep.runner import Children, Plan, StoppedError, check, run_all, summary
  from xlmr_jax.sweep.runs import load_sweep, parse_overrides

  if FLAGS.index is not None and FLAGS.array:
    raise UserError("--index, --array: give one of them")
  several = FLAGS.hosts != "off"
  only_reads = FLAGS.list or FLAGS.commands
  root = path_of("workdir", makes="" if only_reads else "folder")
  if isinstance(root, Path):
    refuse_blocked(root, folder=True)
  elif only_reads:
    bucket.refuse_missing(root)
  bucket.end_when_given_up()
  sweep = load_sweep(FLAGS.config)
  plan = Plan(
    sweep, SweepFolder(root), parse_overrides(sweep, overrides),
    given_rows=path_of("rows") if FLAGS["rows"].present else None,  # An empty one, of an unset variable say, is refused.
    text=path_of("text") if FLAGS["text"].present else None,
    hosts=(f"--hosts={FLAGS.hosts}",) if several else (),
  )  # fmt: skip
  index = array_index(os.environ, several_hosts=several) if FLAGS.array else FLAGS.index
  if several and index is None:
    raise UserError(f"--hosts={FLAGS.hosts}: all processes of a run must start the same one; give --index or --array")
  chosen = selected(sweep.runs, FLAGS.select)
  share = share_of(sweep.runs, index, FLAGS.of)  # --index counts as --list does.
  runs = tuple(run for run in share if run in chosen)
  if share and not runs:
    raise UserError(f"--index={index}: is not among the {len(chosen)} runs that --select takes")
  # These two are asked of the runs of all starters, because an array gives the same flags to each.
  refuse_unread_text(chosen, plan.given_rows, plan.text)
  if not FLAGS.list:  # How far a run is does not hang on where its rows are.
    refuse_one_store(chosen, plan.given_rows)
  description = describe(sweep, plan.overrides, __version__)
  if only_reads:
    before = read_description(plan.folder)
    if before is not None:
      refuse_other_sweep(plan.folder, before, description)
    return show(plan, runs, commands=FLAGS.commands)
  if not runs:
    print(f"sweep: nothing to do: index {index} of {FLAGS.of} starters has none of the {len(sweep.runs)} runs",
          file=sys.stderr, flush=True)  # fmt: skip
    print(json.dumps(summary(plan, runs, {}, [])))
    return EXIT_DONE
  check(plan, runs)
  if not several:  # A run of several hosts is scored by an evaluator of its own.
    refuse_tasks_without_files(plan, runs)
  open_folder(plan.folder, description)
  try:
    failed, elsewhere = run_all(plan, runs, Children())
  except StoppedError as stopped:
    return stopped.code
  print(json.dumps(summary(plan, runs, failed, elsewhere)))
  if failed:
    message = f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; the reasons are above"
    if EXIT_USER not in failed.values():  # Nothing that the user must mend: a launcher may start the sweep again.
      print(f"error: {message}", file=sys.stderr, flush=True)
      return EXIT_CRASH
    raise UserError(message)
  return EXIT_USER if index is not None and elsewhere else EXIT_DONE


def show(plan, runs: tuple, *, commands: bool) -> int:
  """Prints the runs and how far each is, and a line of JSON that counts them; or the commands that are left to run.

  A run whose files cannot be read is "broken", and the reason goes to stderr.
  """
  numbers, states = {run.name: number for number, run in enumerate(plan.sweep.runs)}, Counter()
  for run in runs:
    plan.config_without_rows(run)  # What is wrong with it is a matter of the sweep.
    try:
      state = plan.state(run)
    except (UserError, OSError) as error:
      if not (reason := told(error)):
        raise
      print(f"{run.name}: {reason}", file=sys.stderr, flush=True)
      state = "broken"
    states[state] += 1
    if not commands:
      print(f"{numbers[run.name]:>4}  {state:<8} {run.name}")
    elif state in ("new", "begun"):
      print(shlex.join(plan.pretrain(run)))
    elif state == "trained":
      print(shlex.join(plan.evaluate(run)))
  if not commands:
    print(json.dumps({"runs": len(runs), **states}))
  return EXIT_DONE


def run() -> None:
  """Defines the flags and runs the command."""
  flags.DEFINE_string("config", None, "a config with a sweep(add): the name of one that ships, or a file; :ARG as it takes")
  flags.DEFINE_string("workdir", None, "folder of the sweep, of this machine or gs://...; it goes on with what it holds")
  flags.DEFINE_string("rows", "", "rows of all runs; or a folder of rows, by the names that the sweep gives them")
  flags.DEFINE_string("text", "", "without --rows: text in CC-100's layout, of which rows are built in SWEEP/rows")
  flags.DEFINE_integer("index", None, "only the run of this number, from 0 on, as --list shows them")
  flags.DEFINE_bool("array", False, "--index as Slurm (SLURM_ARRAY_TASK_ID) or Kubernetes (JOB_COMPLETION_INDEX) sets it")
  flags.DEFINE_integer("of", None, "with --index or --array: how many starters share the runs; index I takes I, I + OF, ...")
  flags.DEFINE_multi_string("select", [], "only runs of this value, e.g. --select=seed=0; may be given several times")
  flags.DEFINE_bool("list", False, "print the runs and how far each is, and start nothing")
  flags.DEFINE_bool("commands", False, "print the commands that are left, one per line, and start nothing")
  flags.DEFINE_enum("hosts", "off", ["off", "auto"], "several processes per run, as in `xlmr pretrain --hosts`")
  flags.mark_flags_as_required(["config", "workdir"])
  start(main, parse_flags_leaving_config)
