"""Command: compile a config's train step for TPUs that are not there, and say what it would cost there.

  xlmr plan --config=configs/base.py --topology=v5e:16x16 --rows_per_chip=16 [--slices=2] [--json]
  xlmr plan --config=configs/base.py --topology=v5litepod-256 --search     # the most rows a chip
  xlmr plan --config=configs/base.py --topology=v4-32 --advise             # remat, micro-batches, fsdp
  xlmr plan --all [--only=base.py] [--topology=v5e:4x4] [--write]          # the shipped configs

Memory, cycles by part, FLOPs and collectives are the compiler's; it needs libtpu (pip install 'jax[tpu]') and no TPU.
"""

import json

from absl import app, flags
from ml_collections import config_flags

from xlmr_jax.errors import UserError, run_command

FLAGS = flags.FLAGS


def define_flags() -> None:
  config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/base.py")
  flags.DEFINE_string("topology", None, "v5e:16x16, v5p:4x4x8 (chips along each axis) or a pod type: v5litepod-256, v4-32")
  flags.DEFINE_integer("slices", 1, "Slices of this topology, joined by the data-centre network")
  flags.DEFINE_integer("rows_per_chip", 0, "Rows of a micro-batch on a chip; 0: the config's")
  flags.DEFINE_integer("vocabulary", 0, "Entries of the vocabulary, for configs that leave it to their rows")
  flags.DEFINE_bool("search", False, "Find the most rows a chip that fit")
  flags.DEFINE_bool("advise", False, "Try remat, micro-batches and fsdp for config.batch_rows; rank by cycles a row")
  flags.DEFINE_bool("all", False, "Every config that names TOPOLOGIES; --only and --topology take some of them")
  flags.DEFINE_string("only", "", "With --all: this config file, e.g. base.py")
  flags.DEFINE_bool("write", False, "With --all: put the collectives into benchmarks/collectives.json")
  flags.DEFINE_bool("json", False, "End with one line of JSON")


def describe(p: dict) -> str:
  """A plan as text."""
  million = lambda x: f"{x / 1e6:9.3f}M"  # noqa: E731
  lines = [
    f"{p['chips']} chips of {p['topology']} ({p['device_kind']}): {p['rows_per_chip']:g} rows a chip x "
    f"{p['micro_batches']} micro-batches = {p['batch_rows']} rows of {p['seq_len']} tokens, {p['slots']} masked; "
    f"remat {p['remat']}, fsdp {p['fsdp']}; compiled in {p['compile_s']:.0f} s"
  ]
  if not p["fits"]:
    needed = f"needs {p['needed_gib']:.2f} GiB" if p["needed_gib"] else "needs more"
    return "\n".join(
      [
        *lines,
        f"DOES NOT FIT: {needed} of the {p['hbm_gib']} GiB of a device; use fewer rows a chip (more "
        "config.micro_batches), config.model.remat or config.mesh.fsdp",
      ]
    )
  lines += ["", "memory of a device, GiB"]
  lines += [f"  {name:<13}{p[name + '_gib']:8.2f}" for name in ("arguments", "outputs", "temporaries", "aliased", "peak")]
  lines += [f"  {'of':<13}{p['hbm_gib']:8.2f}, {p['headroom_gib']:.2f} left"]
  lines += ["", f"cycles of a device per row, at {p['clock_ghz']:.2f} GHz and {p['flops_per_cycle']:,} FLOPs a cycle"]
  total = p["estimated_cycles_per_row"]
  for part, cycles in sorted(p["cycles_per_row_by_part"].items(), key=lambda x: -x[1]):
    flops = p["flops_per_row_by_part"].get(part, 0.0)
    of_peak = f"{flops / 1e9:8.1f} GFLOP, {flops / p['flops_per_cycle'] / cycles:4.0%} of peak" if flops and cycles else ""
    lines.append(f"  {part:<22}{million(cycles)} {cycles / total:6.1%} {of_peak}")
  lines.append(f"  {'all':<22}{million(total)}        floor {p['floor_cycles_per_row'] / 1e6:.3f}M")
  for name, cycles in p["kernel_cycles_per_row"].items():
    lines.append(f"  of it kernel {name}: {million(cycles).strip()}")
  guessed = ", ".join(f"{name} {cycles / 1e6:.3f}M" for name, cycles in p["cycles_per_row_by_bytes"].items() if cycles > 500)
  lines += [f"  of it by bytes, without an estimate: {guessed}"] if guessed else []
  lines += [f"  not known: {what}" for what in p["uncounted"]]
  lines += [
    "",
    f"model FLOPs {p['model_flops_per_token'] / 1e6:.0f}M a token, {p['model_flops_per_row'] / 1e9:.1f}G a row; "
    f"compiled {p['compiled_flops_per_row'] / 1e9:.1f}G a row, x {p['flops_ratio']:.3f}",
  ]
  lines += ["", "collectives of a step (bytes: the whole array on a device)"]
  lines += [f"  {kind:<20}{of['count']:6} {of['bytes'] / 2**20:12.2f} MiB" for kind, of in p["collectives"].items()]
  lines += [f"  over {axes}: {size / 2**20:.2f} MiB" for axes, size in p["collective_bytes_by_axes"].items()]
  lines += [
    f"  {p['collective_cycles_per_row'] / 1e6:.3f}M cycles a row, {p['hidden_cycles_per_row'] / 1e6:.3f}M of them hidden"
  ]
  lines += [
    "",
    f"estimated MFU {p['estimated_mfu']:.1%} = {p['model_flops_per_row'] / 1e9:.1f} GFLOP a row / "
    f"({total / 1e6:.3f}M cycles x {p['flops_per_cycle']:,})",
    f"estimated step {p['estimated_step_s']:.3f} s, {p['estimated_tokens_per_s']:,.0f} tokens/s",
    f"estimated days for 1.5M updates of 8,192 rows: {p['estimated_days']:.1f} = 1.5M x 8,192 x "
    f"{total / 1e6:.3f}M cycles / {p['clock_ghz']:.2f} GHz / {p['devices']} devices / 86,400",
  ]
  return "\n".join(lines)


def table(plans: list[dict]) -> str:
  """Plans as a Markdown table, a row each."""
  lines = [
    "| config | topology | remat | fsdp | rows a chip x micro-batches | GiB of HBM | Mcycles a row | MFU | days | "
    "collectives |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for p in plans:
    name = f"| {p['config']} | {p['topology']} |"
    if not p["fits"]:
      lines.append(f"{name} | | does not fit | | | | | |")
      continue
    kinds = ", ".join(f"{of['count']} {kind}" for kind, of in p["collectives"].items())
    size = sum(of["bytes"] for of in p["collectives"].values()) / 2**30
    lines.append(
      f"{name} {p['remat']} | {p['fsdp']} | {p['rows_per_chip']:g} x {p['micro_batches']} | "
      f"{p['peak_gib']:.1f} of {p['hbm_gib']:.1f} | {p['estimated_cycles_per_row'] / 1e6:.2f} | "
      f"{p['estimated_mfu']:.1%} | {p['estimated_days']:.1f} | {kinds}; {size:.1f} GiB |"
    )
  return "\n".join(lines)


def say(plan: dict) -> None:
  """One line as a search goes on."""
  memory = f"{plan['peak_gib']:.2f} GiB" if plan["fits"] else f"does not fit, needs {plan['needed_gib']:.2f} GiB"
  cycles = f", {plan['estimated_cycles_per_row'] / 1e6:.3f}M cycles a row" if plan["fits"] else ""
  print(
    f"tried {plan['topology']}, {plan['rows_per_chip']:g} rows a chip x {plan['micro_batches']}, remat {plan['remat']}, "
    f"fsdp {plan['fsdp']}: {memory}{cycles} ({plan['compile_s']:.0f} s)",
    flush=True,
  )


def check_flags() -> None:
  if FLAGS.write and not FLAGS.all:
    raise UserError("--write goes with --all: it writes what that compiles to benchmarks/collectives.json")
  if sum((FLAGS.all, FLAGS.search, FLAGS.advise)) > 1:
    raise UserError("--all, --search and --advise exclude each other; pass one")
  if not FLAGS.all and None in (FLAGS["config"].value, FLAGS.topology):
    raise UserError("pass --config=configs/base.py and --topology=v5e:4x4, or --all")


def main(argv) -> int:
  if len(argv) > 1:
    raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  check_flags()
  from xlmr_jax.planner import topology

  topology.prepare_environment()
  where = topology.parse(FLAGS.topology, FLAGS.slices) if FLAGS.topology else None
  if not topology.has_libtpu():
    raise UserError(topology.NO_LIBTPU)
  from xlmr_jax.commands.pretrain import read_config
  from xlmr_jax.planner import costs, search, step

  if FLAGS.all:
    plans = []
    for plan in search.all_shipped(FLAGS.only, FLAGS.topology or "", say):
      plans.append(plan)
      if FLAGS.write:
        search.write_collectives(plans)
    print(table(plans), flush=True)
    result = {"plans": plans}
  else:
    config = read_config()
    vocabulary = step.vocabulary_of(config, FLAGS.vocabulary)
    step.check(config)
    if FLAGS.rows_per_chip < 0 or FLAGS.rows_per_chip % where.chip.devices:
      raise UserError(
        f"--rows_per_chip={FLAGS.rows_per_chip}: must be a multiple of the {where.chip.devices} devices of a chip"
      )
    if FLAGS.advise:
      plans = search.advise(config, where, vocabulary, FLAGS.rows_per_chip, say)
      print(table([{"config": "", **plan} for plan in plans]), flush=True)
      result = {"plans": plans}
    else:
      if FLAGS.search:
        plan = search.most_rows(config, where, vocabulary, say)
        if plan is None:
          raise UserError(f"not one row a chip fits {where.name}; try config.model.remat=full or a larger config.mesh.fsdp")
      else:
        config = step.with_rows(config, where, FLAGS.rows_per_chip) if FLAGS.rows_per_chip else config
        plan = step.plan(config, where, vocabulary)
      print(describe(plan), flush=True)
      result = plan
  print("\nassumed:", *(f"\n- {line}" for line in costs.ASSUMPTIONS), sep="")
  if FLAGS.json:
    print(json.dumps(result), flush=True)
  return 0


if __name__ == "__main__":
  from xlmr_jax.commands.pretrain import parse_flags

  define_flags()
  app.run(run_command(main), flags_parser=parse_flags)
