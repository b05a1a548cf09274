"""Compiles a config's train step for a topology that is not there, and gathers what is known of it as one dict, a plan."""

import json
import re
import time
from importlib import metadata
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from xlmr_jax.config_checks import check_config
from xlmr_jax.data import masking
from xlmr_jax.errors import UserError
from xlmr_jax.model.build import family_of
from xlmr_jax.planner import costs, topology
from xlmr_jax.planner.collectives import Network
from xlmr_jax.planner.hlo import Module
from xlmr_jax.planner.topology import GIB, Topology
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.training import program, sharding
from xlmr_jax.training.model_languages import has_embeddings

LANGUAGES = 100  # of the paper's corpus; this sizes nothing but the sums of the log
UPDATES, UPDATE_ROWS = 1_500_000, 8192  # the paper's run, for which estimated_days is given
_compiled: dict[str, "Compiled"] = {}  # what this process has compiled


class Compiled(NamedTuple):
  """A train step, or the compiler's refusal."""

  fits: bool
  needed_gib: float | None  # from the compiler's message, when the step does not fit
  text: str  # HLO
  memory: Any  # CompiledMemoryStats of one device
  mesh: jax.sharding.Mesh
  seconds: float  # that the compilation took


def versions() -> dict[str, str]:
  """The versions of what an estimate depends on: {"jax", "libtpu"}."""
  return {name: metadata.version(name) for name in ("jax", "libtpu")}


def choose_vocabulary(config: ConfigDict, vocabulary: int = 0) -> int:
  """The entries of the vocabulary: those given, or the config's. UserError if neither tells."""
  size = vocabulary or config.model.vocabulary_size
  if not size:
    raise UserError("config.model.vocabulary_size=0 (whatever the rows have): pass --vocabulary=N, the entries of yours")
  return size


def check(config: ConfigDict) -> None:
  """check_config without rows to train on."""
  config = config.copy_and_resolve_references()
  config.data.rows = config.data.rows or "demo"
  check_config(config)


def with_rows(config: ConfigDict, where: Topology, rows_per_chip: int, micro_batches: int | None = None) -> ConfigDict:
  """A copy of config with rows_per_chip rows of a micro-batch on each chip, in as many micro-batches as its batch fills.

  micro_batches: so many instead; the batch changes with them.
  """
  config = config.copy_and_resolve_references()
  config.micro_batches = micro_batches or max(1, config.batch_rows // (rows_per_chip * where.chips))
  config.rows_per_device = 0
  config.batch_rows = rows_per_chip * where.chips * config.micro_batches
  return config


def compile_step(config: ConfigDict, where: Topology, vocabulary: int) -> Compiled:
  """The train step of config on a topology, compiled once per process. UserError if config does not divide over it."""
  key = json.dumps([config.to_dict(), where, vocabulary], default=str, sort_keys=True)
  if key in _compiled:
    return _compiled[key]
  begin = time.perf_counter()
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices=topology.describe(where))
  seq_len = family_of(config).max_seq_len(config.model)
  if has_embeddings(config) and not config.model.languages:
    config = config.copy_and_resolve_references()
    config.model.languages = tuple(f"language_{i}" for i in range(LANGUAGES))
  with jax.set_mesh(mesh), heartbeat(f"compiling for {where.name}"):
    built = program.build_program(config, mesh, vocabulary_size=vocabulary, languages=LANGUAGES, sides=((0, 0),) * LANGUAGES)
    batch = program.abstract_batch(mesh, config.batch_rows, seq_len, masking.slots_per_row(seq_len, config.data.mask_share))
    lowered = built.train_step.lower(built.state, batch, program.abstract_limit(mesh))
    try:
      compiled = lowered.compile()
    except Exception as error:
      needed = overflow_gib(str(error))
      if needed is None:
        raise
      result = Compiled(False, needed, "", None, mesh, time.perf_counter() - begin)
    else:
      stats = compiled.runtime_executable().get_compiled_memory_stats()
      result = Compiled(True, None, compiled.as_text(), stats, mesh, time.perf_counter() - begin)
  _compiled[key] = result
  return result


def overflow_gib(message: str) -> float | None:
  """The GiB of HBM that the compiler says it needs, from its error.

  0.0 if it does not say how much; None if this is another error.
  """
  if "RESOURCE_EXHAUSTED" not in message or "hbm" not in message.lower():
    return None
  units = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}
  found = [
    float(number) * units[unit]
    for number, unit in re.findall(r"(?:Used|total memory required[^(]*\(|requirement of|needs?) ?([\d.]+)([KMGT])", message)
  ]
  return max(found, default=0.0)


def plan(config: ConfigDict, where: Topology, vocabulary: int) -> dict[str, Any]:
  """Memory, cycles, FLOPs and collectives of config's train step on a topology; ready for JSON.

  Its keys name their units; cycles and FLOPs are per row, memory is per device. A plan that does not fit has no estimates.
  """
  chip, model, family = where.chip, config.model, family_of(config)
  compiled = compile_step(config, where, vocabulary)
  seq_len = family.max_seq_len(model)
  slots = masking.slots_per_row(seq_len, config.data.mask_share)
  micro_batches = program.micro_batches_of(config, where.devices)
  per_token = family.flops_per_token(model, vocabulary, seq_len, slots)
  result = {
    "topology": where.name,
    "chips": where.chips,
    "devices": where.devices,
    "device_kind": chip.kind,
    "batch_rows": config.batch_rows,
    "micro_batches": micro_batches,
    "rows_per_chip": config.batch_rows / micro_batches / where.chips,
    "seq_len": seq_len,
    "slots": slots,
    "vocabulary": vocabulary,
    "versions": versions(),
    "remat": model.remat,
    "fsdp": config.mesh.fsdp,
    "fits": compiled.fits,
    "needed_gib": compiled.needed_gib,
    "hbm_gib": chip.hbm_gib,
    "model_flops_per_token": per_token,
    "model_flops_per_row": per_token * seq_len,
    "compile_s": round(compiled.seconds, 1),
  }
  if not compiled.fits:
    return result | {"peak_gib": None, "estimated_cycles_per_row": None, "estimated_mfu": None}
  counted = costs.count(Module.parse(compiled.text), where, Network(where, compiled.mesh))
  return result | _memory(compiled.memory, chip.hbm_gib) | _estimates(counted, where, config.batch_rows, seq_len, per_token)


def _memory(memory: Any, hbm_gib: float) -> dict[str, float]:
  """GiB of one device. memory: CompiledMemoryStats."""
  parts = {
    "arguments": memory.argument_size_in_bytes,
    "outputs": memory.output_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "aliased": memory.alias_size_in_bytes,
  }
  # The sum counts the memory of a donated argument twice where temporaries reuse it, so the compiler's peak comes first.
  peak = memory.peak_memory_in_bytes or sum(parts.values()) - 2 * parts["aliased"]
  sizes = {f"{name}_gib": size / GIB for name, size in parts.items()}
  return sizes | {"peak_gib": peak / GIB, "headroom_gib": hbm_gib - peak / GIB}


def _estimates(counted: costs.Costs, where: Topology, batch_rows: int, seq_len: int, per_token: float) -> dict[str, Any]:
  """What follows from the costs of a step on one device. per_token: the model's FLOPs per token."""
  chip = where.chip
  rows = batch_rows / where.devices  # on one device, in all micro-batches together
  cycles = sum(counted.cycles.values()) / rows
  flops = sum(counted.flops.values()) / rows
  seconds = cycles * rows / chip.clock
  return {
    "compiled_flops_per_row": flops,
    "flops_ratio": flops / (per_token * seq_len),
    "flops_per_row_by_part": {part: counted.flops[part] / rows for part in costs.PART_NAMES if counted.flops[part]},
    "estimated_cycles_per_row": cycles,
    "cycles_per_row_by_part": {part: counted.cycles[part] / rows for part in costs.PART_NAMES},
    "floor_cycles_per_row": per_token * seq_len / chip.flops_per_cycle,
    "estimated_mfu": per_token * seq_len / (cycles * chip.flops_per_cycle),
    "clock_ghz": chip.clock / 1e9,
    "flops_per_cycle": chip.flops_per_cycle,
    "estimated_step_s": seconds,
    "estimated_tokens_per_s": batch_rows * seq_len / seconds,
    "estimated_days": UPDATES * UPDATE_ROWS * cycles / chip.clock / where.devices / 86400,
    "collectives": {kind: {"count": counted.counts[kind], "bytes": counted.bytes[kind]} for kind in sorted(counted.counts)},
    "collective_bytes_by_axes": dict(counted.spans),
    "collective_cycles_per_row": counted.collective_cycles / rows,
    "hidden_cycles_per_row": counted.hidden_cycles / rows,
    "kernel_cycles_per_row": {name: value / rows for name, value in counted.kernels.items()},
    "cycles_per_row_by_bytes": {name: value / rows for name, value in counted.by_bytes.items()},
    "copied_bytes_per_row": counted.copied_bytes / rows,
    "uncounted": counted.unknown,
  }
