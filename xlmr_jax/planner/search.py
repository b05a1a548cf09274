"""Finds what fits and what is fast: the most rows a chip, remat and fsdp choices, every shipped config's topologies."""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from xlmr_jax.errors import UserError
from xlmr_jax.planner import step, topology
from xlmr_jax.planner.topology import Topology
from xlmr_jax.run.metrics import write_json

ROOT = Path(__file__).parents[2]
COLLECTIVES = ROOT / "benchmarks" / "collectives.json"
MOST_ROWS = 4096  # a chip is not tried with more


def largest(candidates: list[int], attempt: Callable[[int], dict], first: int = 64) -> dict | None:
  """The plan of the largest of ascending candidates that fits; None if none does.

  An overflow costs seconds and a fit a minute or more, so it comes from above, and goes by what each attempt needed:
  memory is nearly a line in rows.
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


def most_rows(config: ConfigDict, where: Topology, vocabulary: int, say=lambda plan: None) -> dict | None:
  """The plan with the most rows a chip that fits in one micro-batch, in multiples of 8 above 8."""
  candidates = [r for r in (1, 2, 4, *range(8, MOST_ROWS + 1, 8)) if r % where.chip.devices == 0]
  return largest(candidates, lambda rows: _said(step.plan(step.with_rows(config, where, rows, 1), where, vocabulary), say))


def most_rows_of_batch(config: ConfigDict, where: Topology, vocabulary: int, say=lambda plan: None) -> dict | None:
  """The same with config.batch_rows kept: micro_batches are what the batch divides into."""
  share, rest = divmod(config.batch_rows, where.chips)
  if rest or share % where.chip.devices:
    raise UserError(
      f"config.batch_rows={config.batch_rows} does not divide over the {where.devices} devices of "
      f"{where.name}; use a multiple"
    )
  candidates = [r for r in range(1, min(share, MOST_ROWS) + 1) if share % r == 0 and r % where.chip.devices == 0]
  return largest(
    candidates, lambda rows: _said(step.plan(step.with_rows(config, where, rows, share // rows), where, vocabulary), say)
  )


def _said(plan, say):
  say(plan)
  return plan


def advise(
  config: ConfigDict, where: Topology, vocabulary: int, rows_per_chip: int = 0, say=lambda plan: None
) -> list[dict]:
  """Plans of config's batch with each remat and fsdp, at the most rows that fit and half of them; fastest first.

  rows_per_chip: these rows alone.
  """
  from xlmr_jax.model.xlmr import REMAT_POLICIES

  share, plans = config.batch_rows // where.chips, []
  for fsdp in sorted({1, config.mesh.fsdp, min(8, where.devices)}):
    for remat in REMAT_POLICIES:
      choice = config.copy_and_resolve_references()
      choice.mesh.fsdp, choice.model.remat = fsdp, remat

      def attempt(rows, choice=choice):
        return _said(step.plan(step.with_rows(choice, where, rows, max(1, share // rows)), where, vocabulary), say)

      try:
        if rows_per_chip:
          plans.append(attempt(rows_per_chip))
          continue
        best = most_rows_of_batch(choice, where, vocabulary, say)
        if best:
          half = int(best["rows_per_chip"]) // 2
          plans += [best, *([attempt(half)] if half and half % where.chip.devices == 0 else [])]
      except UserError as error:  # a mesh that the parameters do not divide over
        print(f"fsdp {fsdp}, remat {remat}: {error}", flush=True)
  return sorted((p for p in plans if p["fits"]), key=lambda p: p["estimated_cycles_per_row"])


def shipped() -> Iterator[tuple[str, ConfigDict, dict[str, dict]]]:
  """(path, config, topologies and what to change there) of every file in configs/ that names TOPOLOGIES."""
  for path in sorted((ROOT / "configs").glob("*.py")):
    if "\nTOPOLOGIES = " in path.read_text():
      module = importlib.import_module(f"configs.{path.stem}")
      yield f"configs/{path.name}", module.get_config(), module.TOPOLOGIES


def all_shipped(only_config: str = "", only_topology: str = "", say=lambda plan: None) -> Iterator[dict]:
  """Plans of the shipped configs on their topologies."""
  for path, config, topologies in shipped():
    for name, changes in topologies.items():
      if (only_config and not path.endswith(only_config)) or (only_topology and only_topology != name):
        continue
      where, changed = topology.parse(name), config.copy_and_resolve_references()
      changed.update_from_flattened_dict(changes)
      yield {"config": path} | _said(step.plan(changed, where, step.vocabulary_of(config)), say)


def write_collectives(plans: list[dict]) -> None:
  """Puts the counts and bytes of plans into benchmarks/collectives.json; what others hold stays."""
  table = json.loads(COLLECTIVES.read_text()) if COLLECTIVES.exists() else {}
  for plan in plans:
    if plan["fits"]:
      table[f"{plan['config']}@{plan['topology']}"] = {
        "rows_per_chip": int(plan["rows_per_chip"]),
        "micro_batches": plan["micro_batches"],
        "versions": step.versions(),
        "collectives": plan["collectives"],
        "bytes_by_axes": plan["collective_bytes_by_axes"],
      }
  write_json(COLLECTIVES, table)
