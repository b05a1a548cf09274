"""Plans as text: one in full, several as a Markdown table, and a line for each that a search tries."""

from typing import Any

Plan = dict[str, Any]  # see step.plan


def describe(p: Plan) -> str:
  """A plan in full."""
  header = (
    f"{p['chips']} chips of {p['topology']} ({p['device_kind']}): {p['rows_per_chip']:g} rows per chip x "
    f"{p['micro_batches']} micro-batches = {p['batch_rows']} rows of {p['seq_len']} tokens, {p['slots']} masked; "
    f"remat {p['remat']}, fsdp {p['fsdp']}; compiled in {p['compile_s']:.0f} s"
  )
  if not p["fits"]:
    needed = f"needs {p['needed_gib']:.2f} GiB" if p["needed_gib"] else "needs more"
    return (
      f"{header}\nDOES NOT FIT: {needed} of the {p['hbm_gib']} GiB of a device; use fewer rows per chip (more "
      "config.micro_batches), config.model.remat or config.mesh.fsdp"
    )
  return "\n".join([header, "", *_memory(p), "", *_cycles(p), "", *_flops(p), "", *_collectives(p), "", *_estimates(p)])


def _memory(p: Plan) -> list[str]:
  names = ("arguments", "outputs", "temporaries", "aliased", "peak")
  return [
    "memory of a device, GiB",
    *(f"  {name:<13}{p[name + '_gib']:8.2f}" for name in names),
    f"  {'of':<13}{p['hbm_gib']:8.2f}, {p['headroom_gib']:.2f} left",
  ]


def _millions(x: float) -> str:
  return f"{x / 1e6:.3f}M"


def _cycles(p: Plan) -> list[str]:
  total = p["estimated_cycles_per_row"]
  lines = [f"cycles of a device per row, at {p['clock_ghz']:.2f} GHz and {p['flops_per_cycle']:,} FLOPs per cycle"]
  for part, cycles in sorted(p["cycles_per_row_by_part"].items(), key=lambda item: -item[1]):
    flops = p["flops_per_row_by_part"].get(part, 0.0)
    peak = f"{flops / 1e9:8.1f} GFLOP, {flops / p['flops_per_cycle'] / cycles:4.0%} of peak" if flops and cycles else ""
    lines.append(f"  {part:<22}{_millions(cycles):>10} {cycles / total:6.1%} {peak}")
  lines.append(f"  {'all':<22}{_millions(total):>10}        floor {_millions(p['floor_cycles_per_row'])}")
  lines += [f"  of these, the kernel {name}: {_millions(x)}" for name, x in p["kernel_cycles_per_row"].items()]
  guessed = [f"{name} {_millions(x)}" for name, x in p["cycles_per_row_by_bytes"].items() if x > 500]
  lines += [f"  of these, by bytes, without an estimate: {', '.join(guessed)}"] if guessed else []
  return lines + [f"  not known: {what}" for what in p["uncounted"]]


def _flops(p: Plan) -> list[str]:
  return [
    f"model FLOPs {p['model_flops_per_token'] / 1e6:.0f}M per token, {p['model_flops_per_row'] / 1e9:.1f}G per row; "
    f"compiled {p['compiled_flops_per_row'] / 1e9:.1f}G per row, x {p['flops_ratio']:.3f}"
  ]


def _collectives(p: Plan) -> list[str]:
  return [
    "collectives of a step (bytes: the whole array on a device)",
    *(f"  {kind:<20}{x['count']:6} {x['bytes'] / 2**20:12.2f} MiB" for kind, x in p["collectives"].items()),
    *(f"  over {axes}: {size / 2**20:.2f} MiB" for axes, size in p["collective_bytes_by_axes"].items()),
    f"  {_millions(p['collective_cycles_per_row'])} cycles per row, {_millions(p['hidden_cycles_per_row'])} of them hidden",
  ]


def _estimates(p: Plan) -> list[str]:
  cycles = _millions(p["estimated_cycles_per_row"])
  return [
    f"estimated MFU {p['estimated_mfu']:.1%} = {p['model_flops_per_row'] / 1e9:.1f} GFLOP per row / "
    f"({cycles} cycles x {p['flops_per_cycle']:,})",
    f"estimated step {p['estimated_step_s']:.3f} s, {p['estimated_tokens_per_s']:,.0f} tokens/s",
    f"estimated days for 1.5M updates of 8,192 rows: {p['estimated_days']:.1f} = 1.5M x 8,192 x {cycles} cycles / "
    f"{p['clock_ghz']:.2f} GHz / {p['devices']} devices / 86,400",
  ]


def table(plans: list[Plan]) -> str:
  """Plans as a Markdown table, one per row. Each may have a "config"."""
  lines = [
    "| config | topology | remat | fsdp | rows per chip x micro-batches | GiB of HBM | Mcycles per row | MFU | days | "
    "collectives |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for p in plans:
    name = f"| {p.get('config', '')} | {p['topology']} |"
    if not p["fits"]:
      lines.append(f"{name} | | does not fit | | | | | |")
      continue
    kinds = ", ".join(f"{x['count']} {kind}" for kind, x in p["collectives"].items())
    size = sum(x["bytes"] for x in p["collectives"].values()) / 2**30
    lines.append(
      f"{name} {p['remat']} | {p['fsdp']} | {p['rows_per_chip']:g} x {p['micro_batches']} | "
      f"{p['peak_gib']:.1f} of {p['hbm_gib']:.1f} | {p['estimated_cycles_per_row'] / 1e6:.2f} | "
      f"{p['estimated_mfu']:.1%} | {p['estimated_days']:.1f} | {kinds}; {size:.1f} GiB |"
    )
  return "\n".join(lines)


def progress(plan: Plan) -> str:
  """One line about a plan that a search has tried."""
  memory = f"{plan['peak_gib']:.2f} GiB" if plan["fits"] else f"does not fit, needs {plan['needed_gib']:.2f} GiB"
  cycles = f", {_millions(plan['estimated_cycles_per_row'])} cycles per row" if plan["fits"] else ""
  return (
    f"tried {plan['topology']}, {plan['rows_per_chip']:g} rows per chip x {plan['micro_batches']}, remat {plan['remat']}, "
    f"fsdp {plan['fsdp']}: {memory}{cycles} ({plan['compile_s']:.0f} s)"
  )
