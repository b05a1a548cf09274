"""Compiles a config's train step for TPUs that are not there, and tells what it would need and take on them.

  xlmr plan --config=base --topology=v5e:16x16 --rows_per_chip=16 [--slices=2] [--json]
  xlmr plan --config=base --topology=v5litepod-256 --search     # the most rows per chip
  xlmr plan --config=base --topology=v4-32 --advise             # remat, micro-batches, fsdp
  xlmr plan --all [--only=base] [--topology=v5e:4x4] [--write]  # the shipped configs

Memory, cycles by part, FLOPs and collectives are the compiler's; it needs libtpu (pip install 'jax[tpu]') and no TPU.
"""

import json
from pathlib import Path

from absl import flags

from xlmr_jax.commands.flags import FLAGS, define_config, read_config, refuse_arguments, start
from xlmr_jax.errors import UserError

_OF_ONE_PLAN = ("config", "slices", "rows_per_chip", "vocabulary")  # flags that --all has no use for
COLLECTIVES = Path(__file__).parents[2] / "benchmarks" / "collectives.json"  # of a checkout


def define_flags() -> None:
  """Defines the command's flags."""
  define_config()
  flags.DEFINE_string("topology", None, "v5e:16x16, v5p:4x4x8 (chips along each axis) or a pod type: v5litepod-256, v4-32")
  flags.DEFINE_integer("slices", 1, "Slices of this topology, joined by the data-centre network")
  flags.DEFINE_integer("rows_per_chip", 0, "Rows of a micro-batch on a chip; 0: the config's")
  flags.DEFINE_integer("vocabulary", 0, "Entries of the vocabulary, for configs that leave it to their rows")
  flags.DEFINE_bool("search", False, "Find the most rows per chip that fit")
  flags.DEFINE_bool("advise", False, "Try remat, micro-batches and fsdp for config.batch_rows; rank by cycles per row")
  flags.DEFINE_bool("all", False, "Every config that names TOPOLOGIES; --only and --topology take some of them")
  flags.DEFINE_string("only", "", "With --all: this config, e.g. base")
  flags.DEFINE_bool("write", False, "With --all: put the collectives into benchmarks/collectives.json")
  flags.DEFINE_bool("json", False, "End with one line of JSON")


def check_flags() -> None:
  """UserError for flags that do not go together."""
  if FLAGS.write and not FLAGS.all:
    raise UserError("--write goes with --all: it writes what that compiles to benchmarks/collectives.json")
  if FLAGS.write and not COLLECTIVES.parent.is_dir():
    raise UserError(f"--write needs a checkout: there is no {COLLECTIVES.parent}")
  if sum((FLAGS.all, FLAGS.search, FLAGS.advise)) > 1:
    raise UserError("--all, --search and --advise exclude each other; pass one")
  if FLAGS.only and not FLAGS.all:
    raise UserError(f"--only={FLAGS.only} goes with --all; give --config={FLAGS.only} for one topology")
  if FLAGS.all and (ignored := [f"--{name}" for name in _OF_ONE_PLAN if FLAGS[name].value != FLAGS[name].default]):
    raise UserError(
      f"{', '.join(ignored)}: --all takes configs and rows as the shipped files have them; leave that out, or plan one "
      "--config on one --topology"
    )
  if FLAGS.search and FLAGS.rows_per_chip:
    raise UserError(f"--rows_per_chip={FLAGS.rows_per_chip}: --search finds the rows itself; pass one of the two")
  if not FLAGS.all and None in (FLAGS["config"].value, FLAGS.topology):
    raise UserError("pass --config=base and --topology=v5e:4x4, or --all")


def say(text: str) -> None:
  """Prints a line at once, because the next compilation may take minutes."""
  print(text, flush=True)


def plan_all(chosen: list) -> dict:
  """--all: the shipped configs. chosen: of search.choose_shipped."""
  from xlmr_jax.planner import search, tables

  plans: list[dict] = []
  for plan in search.all_shipped(lambda plan: say(tables.progress(plan)), chosen):
    plans.append(plan)
    if FLAGS.write:
      search.write_collectives(plans, COLLECTIVES)
  say(tables.table(plans))
  return {"plans": plans}


def plan_one() -> dict:
  """--config on --topology, as it is, or by --search or --advise."""
  from xlmr_jax.planner import search, step, tables, topology

  where = topology.parse(FLAGS.topology, FLAGS.slices)
  config = read_config()
  vocabulary = step.choose_vocabulary(config, FLAGS.vocabulary)
  step.check(config)
  rows = FLAGS.rows_per_chip
  if rows < 0 or rows % where.chip.devices:
    raise UserError(f"--rows_per_chip={rows}: must be a multiple of the {where.chip.devices} devices of a chip")

  def report(plan: dict) -> None:
    say(tables.progress(plan))

  if FLAGS.advise:
    plans = search.advise(config, where, vocabulary, report, say, rows)
    say(tables.table(plans))
    return {"plans": plans}
  if FLAGS.search:
    plan = search.most_rows(config, where, vocabulary, report)
    if plan is None:
      raise UserError(f"not one row per chip fits {where.name}; try config.model.remat=full or a larger config.mesh.fsdp")
  else:
    plan = step.plan(step.with_rows(config, where, rows) if rows else config, where, vocabulary)
  say(tables.describe(plan))
  return plan


def main(argv: list[str]) -> None:
  """Runs the command."""
  refuse_arguments(argv)
  check_flags()
  from xlmr_jax.planner import costs, search, topology

  topology.prepare_environment()
  if FLAGS.topology:
    topology.parse(FLAGS.topology, FLAGS.slices)  # A wrong name is refused first, also without libtpu.
  chosen = search.choose_shipped(FLAGS.only, FLAGS.topology or "") if FLAGS.all else []
  if not topology.has_libtpu():
    raise UserError(topology.NO_LIBTPU)
  result = plan_all(chosen) if FLAGS.all else plan_one()
  print("\nassumed:", *(f"\n- {line}" for line in costs.ASSUMPTIONS), sep="")
  if FLAGS.json:
    print(json.dumps(result), flush=True)


def run() -> None:
  """The command's entry point."""
  define_flags()
  start(main)
