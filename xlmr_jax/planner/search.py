"""Finds what fits and what is fast: the most rows per chip, remat and fsdp choices, every shipped config's topologies."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config_files import load_module, shipped
from xlmr_jax.errors import UserError
from xlmr_jax.files import write_json
from xlmr_jax.model.build import family_of
from xlmr_jax.planner import step, topology
from xlmr_jax.planner.topology import Topology

MOST_ROWS = 4096  # A chip is not tried with more.
Plan = dict[str, Any]  # see step.plan
Report = Callable[[Plan], None]  # is called with each plan that a search has tried


def largest(candidates: list[int], attempt: Callable[[int], Plan], first: int = 64) -> Plan | None:
  """The plan of the largest of ascending candidates that fits; None if none does.

  An overflow costs seconds to compile and a fit a minute or more. So the search comes from above, and guesses by what each
  attempt needed, because memory is nearly a line in rows.
  """
  fits, overflows, best, seen = -1, len(candidates), None, []
  at = max(i for i, rows in enumerate(candidates) if rows <= max(first, candidates[0]))
  while fits + 1 < overflows:
    rows = candidates[at]
    plan = attempt(rows)
    seen.append((rows, plan["peak_gib"] if plan["fits"] else plan["needed_gib"]))
    if plan["fits"]:
      fits, best = at, plan
    else:
      overflows = at
    known = sorted((r, gib) for r, gib in seen if gib)[:2]
    if overflows == len(candidates):
      at = next((i for i, r in enumerate(candidates) if r >= 2 * rows), len(candidates) - 1)
    elif len(known) < 2 or known[0][1] == known[1][1]:
      at = next(i for i in reversed(range(len(candidates))) if i == 0 or candidates[i] <= rows // 2)
    else:
      (r0, g0), (r1, g1) = known
      guess = r0 + (plan["hbm_gib"] - g0) * (r1 - r0) / (g1 - g0)
      at = max((i for i, r in enumerate(candidates) if r <= guess), default=0)
    at = min(max(at, fits + 1), overflows - 1)
  return best


def _try(config: ConfigDict, where: Topology, vocabulary: int, report: Report) -> Plan:
  plan = step.plan(config, where, vocabulary)
  report(plan)
  return plan


def most_rows(config: ConfigDict, where: Topology, vocabulary: int, report: Report) -> Plan | None:
  """The plan with the most rows per chip that fits in one micro-batch, in multiples of 8 above 8; None: not one row fits."""
  candidates = [r for r in (1, 2, 4, *range(8, MOST_ROWS + 1, 8)) if r % where.chip.devices == 0]
  return largest(candidates, lambda rows: _try(step.with_rows(config, where, rows, 1), where, vocabulary, report))


def most_rows_of_batch(config: ConfigDict, where: Topology, vocabulary: int, report: Report) -> Plan | None:
  """The same for config.batch_rows as it is, in micro-batches that it divides into. UserError if it does not divide."""
  share, rest = divmod(config.batch_rows, where.chips)
  if rest or share % where.chip.devices:
    raise UserError(
      f"config.batch_rows={config.batch_rows} does not divide over the {where.devices} devices of "
      f"{where.name}; use a multiple"
    )
  candidates = [r for r in range(1, min(share, MOST_ROWS) + 1) if share % r == 0 and r % where.chip.devices == 0]
  return largest(
    candidates, lambda rows: _try(step.with_rows(config, where, rows, share // rows), where, vocabulary, report)
  )


def advise(
  config: ConfigDict,
  where: Topology,
  vocabulary: int,
  report: Report,
  refused: Callable[[str], None],
  rows_per_chip: int = 0,
) -> list[Plan]:
  """Plans of config's batch with each remat and fsdp, at the most rows that fit and half of them; fastest first.

  refused: called with a line for each choice that the config does not divide over. rows_per_chip: these rows alone.
  """
  share, plans = config.batch_rows // where.chips, []
  for fsdp in sorted({1, config.mesh.fsdp, min(8, where.devices)}):
    for remat in family_of(config).remat:
      choice = config.copy_and_resolve_references()
      choice.mesh.fsdp, choice.model.remat = fsdp, remat

      def attempt(rows: int, choice: ConfigDict = choice) -> Plan:
        return _try(step.with_rows(choice, where, rows, max(1, share // rows)), where, vocabulary, report)

      try:
        if rows_per_chip:
          plans.append(attempt(rows_per_chip))
          continue
        best = most_rows_of_batch(choice, where, vocabulary, report)
        if best:
          half = int(best["rows_per_chip"]) // 2
          plans += [best, *([attempt(half)] if half and half % where.chip.devices == 0 else [])]
      except UserError as error:
        refused(f"fsdp {fsdp}, remat {remat}: {error}")
  return sorted((p for p in plans if p["fits"]), key=lambda p: p["estimated_cycles_per_row"])


# --- the configs that ship -----------------------------------------------------------------------------------------


def shipped_topologies() -> Iterator[tuple[str, ConfigDict, dict[str, dict]]]:
  """(name, config, {topology: what to change there}) of every config that ships and names TOPOLOGIES."""
  for name, path in shipped().items():
    module = load_module(path)
    if hasattr(module, "TOPOLOGIES"):
      yield name, module.get_config(), module.TOPOLOGIES


def choose_shipped(only_config: str = "", only_topology: str = "") -> list[tuple[str, ConfigDict, str, dict]]:
  """(name, config, topology, what to change there) of the shipped configs, or of those that are asked for.

  only_config: its name, or NAME.py. only_topology: any name of it. UserError, naming those that there are, if none is.
  """
  there = list(shipped_topologies())
  named = [entry for entry in there if only_config in ("", entry[0], f"{entry[0]}.py")]
  if not named:
    raise UserError(f"--only={only_config}: no config of this name says its TOPOLOGIES; {', '.join(x[0] for x in there)} do")
  wanted = topology.parse(only_topology) if only_topology else None
  every = [(name, config, where, changes) for name, config, places in named for where, changes in places.items()]
  chosen = [entry for entry in every if wanted in (None, topology.parse(entry[2]))]
  if not chosen:
    known = ", ".join(dict.fromkeys(entry[2] for entry in every))
    who = f"{only_config} has" if only_config else "the configs have"
    raise UserError(
      f"--topology={only_topology}: {who} TOPOLOGIES for {known}; for another one, give --config in place of --all"
    )
  return chosen


def all_shipped(report: Report, chosen: Iterable[tuple[str, ConfigDict, str, dict]]) -> Iterator[Plan]:
  """Plans of the shipped configs on their topologies, each with its "config". chosen: of choose_shipped."""
  for name, config, topology_name, changes in chosen:
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    vocabulary = step.choose_vocabulary(config)
    yield {"config": name} | _try(changed, topology.parse(topology_name), vocabulary, report)


def write_collectives(plans: list[Plan], path: Path) -> None:
  """Puts the counts and bytes of plans into a file of JSON, by CONFIG@TOPOLOGY; its other entries stay."""
  table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
  for plan in plans:
    if plan["fits"]:
      table[f"{plan['config']}@{plan['topology']}"] = {
        "rows_per_chip": int(plan["rows_per_chip"]),
        "micro_batches": plan["micro_batches"],
        "versions": step.versions(),
        "collectives": plan["collectives"],
        "bytes_by_axes": plan["collective_bytes_by_axes"],
      }
  write_json(path, table)
