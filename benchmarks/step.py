"""Times the step of a run on all local devices, with synthetic or stored batches; imports no TensorFlow.

  python -m benchmarks.step --config=base --device=gpu --sweep [--config.model.remat=dots ...]
  python -m benchmarks.step --config=base --batches=FILE.npz     # of benchmarks.input --write; tells each loss
  python -m benchmarks.step --layers=4 --hidden=256 --heads=4 --ffn=1024 --vocab=32000 --seq=128 --rows=32 --dtype=bf16

The last form takes the flags of the peer, transformers on PyTorch. The last line is JSON. The step time is the median of
steps that are each waited for, as the peer's is.
"""

import gc
import itertools
import json
import os
import re
import statistics
import time
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from xlmr_jax import ids
from xlmr_jax.commands.flags import FLAGS, define_config, read_config, refuse_arguments, start
from xlmr_jax.config import default_config
from xlmr_jax.config_checks import check_config
from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.errors import UserError
from xlmr_jax.hardware import peak_flops
from xlmr_jax.model.build import family_of
from xlmr_jax.run.memory import keep_freed_memory
from xlmr_jax.training import sharding
from xlmr_jax.training.model_languages import Sides, has_embeddings
from xlmr_jax.training.program import abstract_batch, abstract_limit, build_program, mesh_of

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}  # JAX's own names
PEER_FLAGS = (
  "layers",
  "hidden",
  "heads",
  "ffn",
  "dtype",
  "dropout",
  "unroll",
  "remat",
)  # a config has keys of its own for these
WARM_UP = 3  # steps
LANGUAGES = 100
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|HbmOom", re.IGNORECASE)


class DoesNotFit(Exception):
  """The memory of the devices is not enough. The message says so in one line."""


def define_flags() -> None:
  """Defines the flags of this program."""
  define_config("config whose step is timed; --config.KEY=VALUE changes it")
  flags.DEFINE_enum("device", None, list(PLATFORMS), "kind of device; JAX's choice by default")
  flags.DEFINE_bool("sweep", False, "double the rows per device, from --rows or 8, until its memory ends; the best counts")
  flags.DEFINE_integer("sweep_to", 0, "rows per device that a sweep ends at; 0: where memory ends", lower_bound=0)
  flags.DEFINE_string("batches", None, "stored batches: .npz of ids, positions, labels, weights, language, each [S, B, ...]")
  sizes = dict(vocab=250_002, layers=12, hidden=768, heads=12, ffn=3072, seq=512, rows=8, steps=8)
  for name, default in sizes.items():
    flags.DEFINE_integer(name, default, "as the peer's flag of this name", lower_bound=1)
  flags.DEFINE_enum("dtype", "bf16", list(DTYPES), "compute dtype; parameters are fp32")
  flags.DEFINE_float("dropout", 0.1, "on hidden states and attention probabilities")
  flags.DEFINE_bool("unroll", True, "unroll the scan over layers")
  flags.DEFINE_string("remat", "none", "none | dots | full")


# --- what is timed -----------------------------------------------------------------------------------------------


class Task(NamedTuple):
  """What is timed."""

  config: ConfigDict
  seq_len: int
  vocabulary_size: int
  batches: dict[str, np.ndarray] | None  # stored ones, [S, B, ...]

  @property
  def slots(self) -> int:
    """Masked slots per row."""
    return (
      slots_per_row(self.seq_len, self.config.data.mask_share) if self.batches is None else self.batches["labels"].shape[2]
    )


def config_from_flags() -> ConfigDict:
  """The peer's model, batch and constant learning rate."""
  f, c = FLAGS, default_config()
  c.model.update(
    layers=f.layers,
    hidden=f.hidden,
    heads=f.heads,
    ffn=f.ffn,
    vocabulary_size=f.vocab,
    max_positions=f.seq + 2,
    dropout=f.dropout,
    attention_dropout=f.dropout,
    dtype=DTYPES[f.dtype],
    remat=f.remat,
    unroll_layers=f.unroll,
  )
  c.optimizer.update(peak_lr=1e-4, warmup_steps=1)
  c.train_steps = 1_000_000
  return c


def read_task() -> Task:
  """What the flags ask for. UserError: they contradict each other."""
  f = FLAGS

  def is_given(name: str) -> bool:
    return bool(f[name].present)

  if f.config is None:
    config, seq_len = config_from_flags(), f.seq
  else:
    config = read_config().copy_and_resolve_references()
    wrong = next(filter(is_given, PEER_FLAGS), None)
    if wrong:
      raise UserError(f"--{wrong}: with --config, change the config's own key, e.g. --config.model.layers=2")
    longest = family_of(config).max_seq_len(config.model)
    seq_len = f.seq if is_given("seq") else longest
    if seq_len > longest:
      raise UserError(f"--seq={seq_len} needs --config.model.max_positions={seq_len + 2}")
  config.lock()
  config.data.rows = "synthetic"  # none are read
  check_config(config)
  vocabulary_size = config.model.vocabulary_size or f.vocab
  if f.config is not None and is_given("vocab") and vocabulary_size != f.vocab:
    raise UserError(f"--vocab={f.vocab}, but config.model.vocabulary_size={vocabulary_size}; leave one out")
  batches = None
  if f.batches:
    if f.sweep or (is_given("seq") and f.config is not None):
      raise UserError(f"--batches={f.batches}: has rows of its own; leave out --sweep and --seq")
    batches = read_batches(f.batches, vocabulary_size)
    seq_len = batches["ids"].shape[2]
    longest = family_of(config).max_seq_len(config.model)
    if seq_len > longest:
      raise UserError(f"--batches={f.batches}: rows of {seq_len} tokens, the model takes {longest}")
  return Task(config, seq_len, vocabulary_size, batches)


def read_batches(path: str, vocabulary_size: int) -> dict[str, np.ndarray]:
  """Stored batches. UserError if the file is not there or not of this kind, or ids are not of the vocabulary."""
  names = ("ids", "positions", "labels", "weights", "language")
  try:
    with np.load(path) as stored:
      batches = {name: stored[name] for name in names}
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f"--batches={path}: cannot be read ({error}); write it with benchmarks.input --write") from None
  if len({x.shape[:2] for x in batches.values()}) > 1 or batches["ids"].ndim != 3:
    raise UserError(f"--batches={path}: arrays must be [batches, rows, ...]; write it with benchmarks.input --write")
  if batches["ids"].max() >= vocabulary_size:
    raise UserError(
      f"--batches={path}: id {batches['ids'].max()} is not in a vocabulary of {vocabulary_size}; set "
      "--config.model.vocabulary_size"
    )
  return batches


def synthetic_batch(
  rng: np.random.Generator, rows: int, seq: int, vocab: int, slots: int, mask_share: float = 0.15
) -> dict[str, np.ndarray]:
  """One masked batch of random pieces, mask_share of each row masked, slots as the input pipeline lays them out."""
  masked = min(int(mask_share * seq), seq - 2)
  tokens = rng.integers(ids.FIRST_PIECE, ids.mask_id(vocab), (rows, seq), dtype=np.int32)
  tokens[:, 0], tokens[:, -1] = ids.BOS, ids.EOS
  positions = np.zeros((rows, slots), np.int32)
  labels, weights = np.full((rows, slots), ids.PAD, np.int32), np.zeros((rows, slots), np.float32)
  for r in range(rows):
    positions[r, :masked] = np.sort(rng.permutation(np.arange(1, seq - 1))[:masked])
    labels[r, :masked] = tokens[r, positions[r, :masked]]
    weights[r, :masked] = 1.0
    tokens[r, positions[r, :masked]] = ids.mask_id(vocab)
  return {
    "ids": tokens,
    "positions": positions,
    "labels": labels,
    "weights": weights,
    "language": np.arange(rows, dtype=np.int32) % LANGUAGES,
  }


def name_languages(config: ConfigDict, languages: int) -> Sides | None:
  """The sides of the rows of so many languages, none of them pairs; None for a model that does not look at languages.

  Names the language embeddings of config, unless they have names: a run takes these from its rows.
  """
  if not family_of(config).languages:
    return None
  if has_embeddings(config) and not config.model.languages:
    config.model.languages = tuple(f"language{number}" for number in range(languages))
  known = len(config.model.languages) if has_embeddings(config) else languages
  return tuple((number % known, number % known) for number in range(languages))


# --- timing ------------------------------------------------------------------------------------------------------


def use_device(kind: str | None) -> None:
  """Makes JAX use a kind of device; call it before JAX starts. UserError where there is no such device."""
  if kind:
    os.environ["JAX_PLATFORMS"] = PLATFORMS[kind]  # for children and keep_freed_memory(); JAX has read it already
    jax.config.update("jax_platforms", PLATFORMS[kind])
  keep_freed_memory()
  try:
    jax.devices()
  except Exception as error:  # The platform's plugin decides what is raised.
    why = " ".join(str(error).split())[:200] or "not installed"
    raise UserError(f"--device={kind}: JAX finds none here ({why}); choose another, or install JAX for it") from None


def free_memory() -> int | None:
  """The bytes that processes of this machine can still get, or None where the system does not tell.

  A step on a CPU that takes more is killed.
  """
  try:
    with open("/proc/meminfo") as f:
      return next(1024 * int(line.split()[1]) for line in f if line.startswith("MemAvailable:"))
  except (OSError, StopIteration):
    return None


def measure(task: Task, rows: int, steps: int) -> dict:
  """Time, loss and memory of `steps` steps of `rows` rows over all devices. DoesNotFit: their memory is not enough."""
  try:
    return _measure(task, rows, steps)
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if isinstance(error, jax.errors.JaxRuntimeError) and not OUT_OF_MEMORY.search(str(error)):
      raise
    why = next(filter(OUT_OF_MEMORY.search, str(error).splitlines()), str(error))
  gc.collect()  # The arrays of the failed step went with its traceback.
  raise DoesNotFit(" ".join(why.split())[:200])


def _measure(task: Task, rows: int, steps: int) -> dict:
  config = task.config.copy_and_resolve_references().lock()
  config.batch_rows = rows
  mesh = mesh_of(config)
  languages = LANGUAGES if task.batches is None else int(task.batches["language"].max()) + 1
  sides = name_languages(config, languages)
  program = build_program(
    config, mesh, vocabulary_size=task.vocabulary_size, languages=languages, seq_len=task.seq_len, sides=sides
  )
  if task.batches is None:
    made = [
      synthetic_batch(np.random.default_rng(0), rows, task.seq_len, task.vocabulary_size, task.slots, config.data.mask_share)
    ]
  else:
    made = [{name: x[s] for name, x in task.batches.items()} for s in range(len(task.batches["ids"]))]
  device = mesh.devices.flat[0]
  with jax.set_mesh(mesh):
    batches = itertools.cycle([sharding.to_global(mesh, batch, rows) for batch in made])
    start = time.perf_counter()
    abstract = abstract_batch(mesh, rows, task.seq_len, task.slots)
    step = program.train_step.lower(program.state, abstract, abstract_limit(mesh)).compile()
    compile_s = time.perf_counter() - start
    planned = step.memory_analysis()
    free = free_memory()
    if device.platform == "cpu" and planned and free and planned.temp_size_in_bytes + planned.argument_size_in_bytes > free:
      needed = planned.temp_size_in_bytes + planned.argument_size_in_bytes
      raise MemoryError(f"{needed / 2**30:.1f} GiB are planned, {free / 2**30:.1f} GiB are free")
    state = program.init(jax.random.key(config.seed))
    seen, losses = [], []
    for _, batch in zip(range(steps + WARM_UP), batches):
      start = time.perf_counter()
      state, metrics = jax.block_until_ready(step(state, batch, np.float32(np.inf)))
      seen.append(time.perf_counter() - start)
      losses.append(float(metrics["loss_sum"] / metrics["weight"]))
  step_s = statistics.median(seen[WARM_UP:])
  tokens = rows * task.seq_len / step_s
  flops = family_of(config).flops_per_token(config.model, task.vocabulary_size, task.seq_len, task.slots)
  peak, memory = peak_flops(device.device_kind), device.memory_stats() or {}
  result = {
    "tokens_per_s": round(tokens, 1),
    "step_ms": round(step_s * 1e3, 2),
    "loss": round(losses[-1], 4),
    "rows": rows,
    "seq_len": task.seq_len,
    "device": device.device_kind,
    "devices": mesh.size,
    "mfu": round(tokens * flops / mesh.size / peak, 4) if peak else None,
    "peak_memory_bytes": memory.get("peak_bytes_in_use"),
    "first_call_s": round(compile_s + seen[0], 2),
    "compile_s": round(compile_s, 2),
  }
  return result | ({"losses": [round(loss, 5) for loss in losses]} if task.batches is not None else {})


def describe(result: dict) -> str:
  """One line about a measurement."""
  mfu = f", MFU {result['mfu']:.1%}" if result["mfu"] else ""
  memory = f", {result['peak_memory_bytes'] / 2**30:.1f} GiB" if result["peak_memory_bytes"] else ""
  return (
    f"rows {result['rows']}: {result['step_ms']:.1f} ms, {result['tokens_per_s']:,.0f} tokens/s{mfu}{memory}, "
    f"first call {result['first_call_s']:.1f} s"
  )


def sweep(task: Task, rows_per_device: int, last: int, steps: int) -> dict:
  """The best of doubling rows, {"sweep": one entry each} added. UserError if not even the first fit."""
  unit = len(jax.devices()) * task.config.micro_batches  # memory holds one micro-batch
  entries, results = [], []
  while not last or rows_per_device <= last:
    rows = rows_per_device * unit
    try:
      results.append(measure(task, rows, steps))
    except DoesNotFit as error:
      print(f"rows {rows}: does not fit: {error}", flush=True)
      entries.append({"rows": rows, "rows_per_device": rows_per_device, "does_not_fit": str(error)})
      break
    keep = ("tokens_per_s", "step_ms", "mfu", "peak_memory_bytes", "first_call_s")
    entries.append({"rows": rows, "rows_per_device": rows_per_device} | {name: results[-1][name] for name in keep})
    print(describe(results[-1]), flush=True)
    rows_per_device *= 2
  if not results:
    raise UserError(f"not even {rows_per_device} rows per device fit; give fewer with --rows, or --config.model.remat=full")
  return max(results, key=lambda result: result["tokens_per_s"]) | {"sweep": entries}


def main(argv: list[str]) -> None:
  """Runs the program."""
  refuse_arguments(argv)
  f, task = FLAGS, read_task()
  if f.sweep or f["rows"].present or task.batches is not None:
    task.config.rows_per_device = 0  # It was chosen for the config's own batch.
  use_device(f.device)
  m, devices = task.config.model, jax.devices()
  print(
    f"{len(devices)} x {devices[0].device_kind}, {m.dtype}, {m.layers} x {m.hidden}, vocabulary {task.vocabulary_size}, "
    f"rows of {task.seq_len}",
    flush=True,
  )
  if f.sweep:
    unit = len(devices) * task.config.micro_batches
    if f["rows"].present and f.rows % unit:
      raise UserError(f"--rows={f.rows}: not a multiple of {unit}, devices x micro-batches")
    result = sweep(task, f.rows // unit if f["rows"].present else 8, f.sweep_to, f.steps)
  else:
    rows = f.rows if f["rows"].present or f.config is None else task.config.batch_rows
    if task.batches is not None:
      rows = task.batches["ids"].shape[1]
    try:
      result = measure(task, rows, f.steps)
    except DoesNotFit as error:
      raise UserError(f"--rows={rows} does not fit: {error}; give fewer, more --config.micro_batches, or --sweep") from None
    print(describe(result), flush=True)
  print(json.dumps(result | {"dtype": m.dtype}))


if __name__ == "__main__":
  define_flags()
  start(main)
