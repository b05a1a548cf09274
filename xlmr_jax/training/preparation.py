"""What a run is made of, before it writes anything: its phases, a program for each shape of a batch, its first words."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from xlmr_jax.data import masking, phases
from xlmr_jax.data import timeline as timelines
from xlmr_jax.data.phases import Phase
from xlmr_jax.data.pipeline import BatchSpec
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.timeline import Timeline
from xlmr_jax.errors import UserError
from xlmr_jax.files import write_whole
from xlmr_jax.run import alarms, hosts, stopping
from xlmr_jax.run.board import hparams_of
from xlmr_jax.run.branch import Past
from xlmr_jax.run.goodput import Goodput
from xlmr_jax.run.metrics import RunLog
from xlmr_jax.run.past import branch_of
from xlmr_jax.run.retention import Retention
from xlmr_jax.run.workdir import Workdir, read_record
from xlmr_jax.training import program as programs
from xlmr_jax.training import recovery, segments, sharding
from xlmr_jax.training.model_languages import pairs_of_rows, sides_of, with_languages, without_pairs
from xlmr_jax.training.positions import say_untrained
from xlmr_jax.training.program import Program
from xlmr_jax.training.recovery import Ledger
from xlmr_jax.training.segments import Shape, shape_of


class Prepared(NamedTuple):
  """All that a run is made of; nothing has been written for it, and nothing is left to refuse."""

  config: ConfigDict
  store: RowStore
  phases: tuple[Phase, ...]
  program: Program  # of the rows as they are stored: the state, and the held-out step
  by_shape: dict[Shape, Program]  # for each shape of the phases, with its train step
  held_out: BatchSpec
  planned: Timeline  # what each step reads as long as there are no recoveries

  def timeline(self, ledger: Ledger = ()) -> Timeline:
    """What each step reads, after the recoveries of a ledger."""
    return self.planned.after(recovery.restarts_of(ledger)) if ledger else self.planned


def rows_of(store: RowStore) -> phases.Rows:
  """What phases must know of the training rows."""
  return phases.Rows(store.languages, store.counts("train"), store.seq_len, pairs_of_rows(store))


def _with_decay(config: ConfigDict, whole: Sequence[Phase]) -> ConfigDict:
  """The config with the number that config.optimizer.decay_steps=-1 stands for. whole: all phases of the run."""
  if config.optimizer.decay_steps == -1:
    config = config.copy_and_resolve_references()
    config.optimizer.decay_steps = config.train_steps - phases.decay_begin(whole, config.optimizer.warmup_steps)
  return config


def prepare(config: ConfigDict, store: RowStore, past: Sequence[Phase] = (), begin: int = 0) -> Prepared:
  """Builds a run's programs and data order. Raises UserError for whatever does not fit; writes nothing.

  config: checked by check_config; store: checked against it by the command. past: the phases of the run that this one
  branches off from, up to the step where it does. begin: the step that the run goes on from.
  """
  if not store.counts("held_out").sum():
    raise UserError(f"{store.root}: has no held-out rows, by which a run is measured; build them with --held_out=0.01")
  mesh, own = programs.mesh_of(config), phases.phases_of(config, rows_of(store))
  whole = phases.continued(past, own)
  config = with_languages(_with_decay(config, whole), store)
  sizes: dict[str, Any] = {"vocabulary_size": store.vocabulary_size, "seq_len": store.seq_len,
                           "languages": len(store.languages), "sides": sides_of(config, store)}  # fmt: skip
  program = programs.build_program(config, mesh, **sizes)
  rows = config.batch_rows // programs.micro_batches_of(config, mesh.size)  # what memory allows
  held_out = BatchSpec(
    rows, sharding.host_rows(mesh, rows), masking.slots_per_row(store.seq_len, config.data.mask_share), config.seed,
    config.data.mask_share, unit=config.data.mask_unit, span_mean=config.data.mask_span_mean,
  )  # fmt: skip
  by_shape = segments.build_programs(own, config, program, **sizes, begin=begin)
  return Prepared(config, store, whole, program, by_shape, held_out, Timeline(whole, rows_of(store), config.seed))


def say_other_rate(past: Past, prepared: Prepared) -> None:
  """Prints a line if the learning rate jumps where a run goes on: by another schedule, end or peak than up to there."""
  now, step = prepared.config, past.newest
  before = _with_decay(ConfigDict(past.config), past.phases)
  if (now.optimizer, now.train_steps) == (before.optimizer, before.train_steps) or step >= now.train_steps:
    return
  ours, theirs = (float(programs.build_optimizer(config)[1](jnp.asarray(step + 1))) for config in (now, before))
  if not math.isclose(ours, theirs, rel_tol=1e-5):
    hosts.say(f"learning rate: at step {step:,} it is {ours:.3g} here, {theirs:.3g} {past.where}")


def say_what_comes(prepared: Prepared, workdir: Workdir, timeline: Timeline, step: int) -> list[str]:
  """Prints what the run is from a step on, and the epochs that it plans; returns the lines about its program."""
  config, store, phase = prepared.config, prepared.store, timeline.at(step).phase
  program = segments.program_of(shape_of(phase), prepared.by_shape)
  changed = segments.config_of(phase, config, store.seq_len // phase.seq_len, program.mesh.size)
  said = programs.describe_program(program, changed, phase.seq_len)
  planned: list[str] = []
  if jax.process_index() == 0:  # With many rows it takes seconds.
    write_whole(workdir.planned_epochs, timelines.table(timeline).encode())
    planned = timelines.describe(timeline, str(workdir.planned_epochs))
  rate = config.optimizer
  schedule = (
    [f"learning rate: wsd, decays from step {config.train_steps - rate.decay_steps:,} to {config.train_steps:,}"]
    if rate.schedule == "wsd" and rate.decay_steps else []
  )  # fmt: skip
  is_imported = workdir.record.exists() and read_record(workdir).imported  # All its positions were trained elsewhere.
  untrained = [] if is_imported else say_untrained(config, prepared.phases)
  for line in [*said, *untrained, *without_pairs(config, store), *schedule, *planned]:
    hosts.say(line)
  return said


def retention_of(config: ConfigDict, workdir: Workdir) -> Retention:
  """Which checkpoints stay, as the config says."""
  return Retention(
    workdir, keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every,
    is_eligible=(
      lambda step: stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps)
    ) if config.evaluate.tasks else None,
    keep_unevaluated=config.evaluate.keep_unevaluated,
  )  # fmt: skip


def _without_held_out(notes: dict) -> dict:
  """The notes of another run's checkpoint without what they say about its losses."""
  notes = notes | {"logs": {name: note for name, note in (notes.get("logs") or {}).items() if name != "held_out"}}
  if watched := notes.get("alarms"):
    notes["alarms"] = watched | {"state": alarms.without_losses(watched["state"])}
  return notes


def open_log(
  prepared: Prepared, workdir: Workdir, start: int, held_out_at: int, notes: dict | None, timeline: Timeline,
  goodput: Goodput,
) -> RunLog:  # fmt: skip
  """A log that goes on at step `start`; the epochs that it tells leave out the batches that the run went past.

  Where a run that measures otherwise branched off, it makes the held-out pass of that step anew: the log is cut before it.
  """
  config, store = prepared.config, prepared.store
  branch = branch_of(read_record(workdir)) if workdir.record.exists() else None
  if branch and branch.measures_anew and start == branch.step and notes:
    held_out_at, notes = min(held_out_at, start - 1), _without_held_out(notes)
  rates = segments.rates(timeline, config, store.vocabulary_size)
  return RunLog(
    workdir, start=start, held_out_at=held_out_at, notes=notes, train_steps=config.train_steps,
    every_steps=config.log.every_steps, languages=store.languages, parallel=tuple(store.pairs), shares=timeline.shares,
    epochs=timeline.epochs, rate=lambda step: rates[timeline.number_at(step) - 1], tensorboard=config.log.tensorboard,
    goodput=goodput, limits=config.alarms, hparams=hparams_of(config.to_dict()),
  )  # fmt: skip
