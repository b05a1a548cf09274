"""Compiles a config's train step for a topology that is not there, and gathers what is known of it as one dict."""

import json
import re
import time
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from xlmr_jax.data import masking
from xlmr_jax.errors import UserError
from xlmr_jax.model.xlmr import padded_vocabulary
from xlmr_jax.planner import costs, hlo, topology
from xlmr_jax.planner.topology import GIB, Topology
from xlmr_jax.run.metrics import flops_per_token
from xlmr_jax.training import loop as train
from xlmr_jax.training import sharding

LANGUAGES = 100  # of the paper's corpus; sizes nothing but the sums of the log
UPDATES, UPDATE_ROWS = 1_500_000, 8192  # what days are told for: the paper's run
_compiled: dict[str, "Compiled"] = {}  # what this process has compiled


class Compiled(NamedTuple):
  fits: bool
  needed_gib: float | None  # when it does not fit, from the compiler's message
  text: str
  memory: Any  # CompiledMemoryStats of one device
  mesh: jax.sharding.Mesh
  seconds: float


def versions() -> dict[str, str]:
  """Of what an estimate depends on."""
  from importlib import metadata

  return {name: metadata.version(name) for name in ("jax", "libtpu")}


def vocabulary_of(config: ConfigDict, vocabulary: int = 0) -> int:
  size = vocabulary or config.model.vocabulary_size
  if not size:
    raise UserError("config.model.vocabulary_size=0 (whatever the rows have): pass --vocabulary=N, the entries of yours")
  return size


def check(config: ConfigDict) -> None:
  """main.py's checks of values, without rows to train on."""
  from xlmr_jax.commands.pretrain import check_config

  config = config.copy_and_resolve_references()
  config.data.rows = config.data.rows or "demo"
  check_config(config)


def with_rows(config: ConfigDict, where: Topology, rows_per_chip: int, micro_batches: int | None = None) -> ConfigDict:
  """A copy of config with so many rows of a micro-batch on each chip, its batch in as many micro-batches as it fills."""
  config = config.copy_and_resolve_references()
  config.micro_batches = micro_batches or max(1, config.batch_rows // (rows_per_chip * where.chips))
  config.rows_per_device = 0
  config.batch_rows = rows_per_chip * where.chips * config.micro_batches
  return config


def compile_step(config: ConfigDict, where: Topology, vocabulary: int) -> Compiled:
  """The train step of config on where, compiled once a process. UserError if config cannot be spread over it."""
  key = json.dumps([config.to_dict(), where, vocabulary], default=str, sort_keys=True)
  if key in _compiled:
    return _compiled[key]
  begin = time.perf_counter()
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices=topology.describe(where))
  seq_len = config.model.max_positions - 2
  with jax.set_mesh(mesh):
    program = train.build_program(config, mesh, vocabulary_size=vocabulary, languages=LANGUAGES)
    batch = train.abstract_batch(mesh, config.batch_rows, seq_len, masking.slots_per_row(seq_len, config.data.mask_share))
    lowered = program.train_step.lower(program.state, batch)
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
  """GiB that the compiler says it needs of HBM, from its error; 0.0 if it does not say how much; None: another error."""
  if "RESOURCE_EXHAUSTED" not in message or "hbm" not in message.lower():
    return None
  units = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}
  found = [
    float(number) * units[unit]
    for number, unit in re.findall(r"(?:Used|total memory required[^(]*\(|requirement of|needs?) ?([\d.]+)([KMGT])", message)
  ]
  return max(found, default=0.0)


def plan(config: ConfigDict, where: Topology, vocabulary: int) -> dict:
  """Memory, cycles, FLOPs and collectives of config's train step on where; JSON-ready, per chip or device as named."""
  chip, model = where.chip, config.model
  compiled = compile_step(config, where, vocabulary)
  micro_batches = train.micro_batches_of(config, where.devices)
  seq_len = model.max_positions - 2
  slots = masking.slots_per_row(seq_len, config.data.mask_share)
  per_token = flops_per_token(
    layers=model.layers,
    hidden=model.hidden,
    ffn=model.ffn,
    seq_len=seq_len,
    vocabulary=padded_vocabulary(vocabulary),
    slots=slots,
  )
  rows = config.batch_rows / where.devices  # of a device, all micro-batches
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
  memory = compiled.memory
  parts = {
    "arguments": memory.argument_size_in_bytes,
    "outputs": memory.output_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "aliased": memory.alias_size_in_bytes,
  }
  # The sum counts a donated argument's memory twice where temporaries reuse it, so the compiler's peak comes first.
  peak = memory.peak_memory_in_bytes or sum(parts.values()) - 2 * parts["aliased"]
  counted = costs.count(hlo.Module.parse(compiled.text), where, costs.Network(where, compiled.mesh))
  cycles = sum(counted.cycles.values()) / rows
  flops = sum(counted.flops.values()) / rows
  seconds = cycles * rows / chip.clock
  return result | {
    **{f"{name}_gib": size / GIB for name, size in parts.items()},
    "peak_gib": peak / GIB,
    "headroom_gib": chip.hbm_gib - peak / GIB,
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
    "estimated_tokens_per_s": config.batch_rows * seq_len / seconds,
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
