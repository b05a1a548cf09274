"""Pretraining, read top to bottom: what is prepared before anything is written, what each step decides, the loop."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from xlmr_jax.data import masking, mixture, pipeline
from xlmr_jax.data.pipeline import BatchSpec
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.verification import Verification
from xlmr_jax.errors import UserError
from xlmr_jax.model.build import family_of
from xlmr_jax.run import compile_cache, hosts, stopping
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.run.metrics import Rate, RunLog
from xlmr_jax.run.retention import Retention
from xlmr_jax.run.workdir import Workdir, read_stop
from xlmr_jax.training import program as programs
from xlmr_jax.training import sharding
from xlmr_jax.training.held_out import bits_per_nat, held_out_losses
from xlmr_jax.training.program import Program


class Prepared(NamedTuple):
  """All that a run is made of; nothing has been written for it, and nothing is left to refuse."""

  config: ConfigDict
  store: RowStore
  mix: mixture.Mixture
  program: Program
  train: BatchSpec
  held_out: BatchSpec


class Progress(NamedTuple):
  """What decides about a run and is not its state; saved beside it, the same on every process."""

  bad_in_a_row: int = 0  # steps whose update was not finite
  held_out_at: int = -1  # the newest step with a held-out evaluation

  def after(self, finite: list[bool]) -> "Progress":
    """This progress after the steps whose updates were finite or not."""
    progress = self
    for good in finite:
      progress = progress._replace(bad_in_a_row=0 if good else progress.bad_in_a_row + 1)
    return progress


class Action(NamedTuple):
  """What happens at a step before its batch is fetched, in this order."""

  evaluate: bool
  save: bool
  end: bool


class Result(NamedTuple):
  """How a run ended."""

  step: int
  preempted: bool  # told to stop: the same command goes on from here
  held_out: dict | None  # the newest line of held_out.jsonl, on process 0


def due(step: int, every_steps: int) -> bool:
  """Whether something done every so many steps (0: never) falls on this one."""
  return every_steps > 0 and step % every_steps == 0


def decide(
  step: int, *, start: int, train_steps: int, held_out_every: int, checkpoint_every: int, held_out_at: int,
  asked_to_end: bool, preempted: bool,
) -> Action:  # fmt: skip
  """What to do at a step of a run that began at `start`.

  A preempted run saves at once, without an evaluation. A step that was evaluated before, or restored, is not done again.
  """
  last = step == train_steps or asked_to_end
  evaluate = (due(step, held_out_every) or last) and not preempted and held_out_at != step
  save = (due(step, checkpoint_every) or last or preempted) and step > start
  return Action(evaluate, save, last or preempted)


def prepare(config: ConfigDict, store: RowStore) -> Prepared:
  """Builds a run's program and data order. Raises UserError for whatever does not fit; writes nothing.

  config: checked by check_config; store: checked against it by the command.
  """
  mesh = programs.mesh_of(config)
  slots = masking.slots_per_row(store.seq_len, config.data.mask_share)
  mix = mixture.Mixture(store.counts("train"), config.data.alpha, config.seed, languages=store.languages)
  program = programs.build_program(
    config, mesh, vocabulary_size=store.vocabulary_size, languages=len(store.languages), seq_len=store.seq_len
  )

  def batch_spec(batch_rows: int) -> BatchSpec:
    return BatchSpec(batch_rows, sharding.host_rows(mesh, batch_rows), slots, config.seed, config.data.mask_share)

  micro_batch_rows = config.batch_rows // programs.micro_batches_of(config, mesh.size)  # what memory allows
  return Prepared(config, store, mix, program, batch_spec(config.batch_rows), batch_spec(micro_batch_rows))


def _restore(
  prepared: Prepared, workdir: Workdir, checkpoints: Checkpoints, initial: Callable[[Any], Any] | None
) -> tuple[int, Any, dict | None]:
  """(step, state, notes) of the newest checkpoint, of `initial`, or drawn from the seed."""
  config, program = prepared.config, prepared.program
  restored = checkpoints.restore_latest(program.state)
  if restored:
    hosts.say(f"resuming at step {restored[0]}")
    if restored[0] > config.train_steps:
      raise UserError(f"{workdir} is at step {restored[0]}, past config.train_steps={config.train_steps}")
    return restored
  if initial:
    return 0, program.begin_with(initial(program.state.params)), None
  return 0, program.init(jax.random.key(config.seed)), None


def _open_log(prepared: Prepared, workdir: Workdir, start: int, held_out_at: int, notes: dict | None) -> RunLog:
  config, store, mix = prepared.config, prepared.store, prepared.mix
  per_token = family_of(config).flops_per_token(config.model, store.vocabulary_size, store.seq_len, prepared.train.slots)
  return RunLog(
    workdir, start=start, held_out_at=held_out_at, notes=notes, train_steps=config.train_steps,
    every_steps=config.log.every_steps, languages=store.languages, shares=mix.shares,
    epochs=lambda step: mix.epochs(step * config.batch_rows), rate=Rate(config.batch_rows * store.seq_len, per_token),
    tensorboard=config.log.tensorboard,
  )  # fmt: skip


def _asked_to_end(workdir: Workdir, step: int) -> bool:
  """Whether STOP.json ends the run at this step; the same on every process, all of which must call it.

  It is obeyed from the step that was evaluated on: a run that fell back behind it makes those steps again first. A stopped
  run stays stopped until the file is removed.
  """

  def is_asked() -> bool:
    stop = read_stop(workdir)
    return stop is not None and step >= stop.step

  with jax.transfer_guard("allow"):  # Hosts agree by way of the devices.
    return hosts.on_first(is_asked)


def run(
  prepared: Prepared, workdir: Workdir, preemption: hosts.Preemption, initial: Callable[[Any], Any] | None = None
) -> Result:
  """Trains in a claimed workdir from its newest checkpoint, or from the start, and returns how it ended.

  initial: abstract parameters -> those before step 0, if they are not to be drawn from config.seed.
  """
  config, store, mix, program, train, held_out = prepared
  mesh = program.mesh
  for line in programs.describe_program(program, config, store.seq_len):
    hosts.say(line)

  def is_eligible(step: int) -> bool:
    return stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps)

  retention = Retention(
    workdir, keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every,
    is_eligible=is_eligible if config.evaluate.tasks else None,
    keep_unevaluated=config.evaluate.keep_unevaluated,
  )  # fmt: skip
  checkpoints = Checkpoints(workdir, retention)
  start, state, notes = _restore(prepared, workdir, checkpoints, initial)
  progress = Progress(notes["bad_in_a_row"], notes["held_out_at"]) if notes else Progress()
  log = _open_log(prepared, workdir, start, progress.held_out_at, notes)
  watchdog = hosts.Watchdog(config.watchdog_s)
  verification = Verification(store, config.data.verify, (jax.process_index(), jax.process_count()))

  def go_on() -> bool:
    watchdog.alive()
    return not preemption.stop()

  def evaluate(step: int, params: Any) -> bool:
    """Writes held-out losses per language; False when told to stop before the end."""
    limit = config.held_out.max_rows_per_language or None
    with pipeline.held_out_batches(store, held_out, max_rows_per_language=limit) as batches:
      with heartbeat(f"held-out evaluation at step {step}"):
        sums = held_out_losses(
          program.held_out_step, params, batches, mesh, held_out.batch_rows, len(store.languages), go_on
        )
    if sums is not None:
      log.held_out(step, sums[0], sums[1], bits_per_nat(store, "held_out"))
    return sums is not None

  try:
    with jax.set_mesh(mesh), pipeline.train_batches(store, mix, train, start_step=start) as batches:
      train_step = program.train_step
      if start < config.train_steps:  # A finished run has nothing to compile.
        with heartbeat("compiling the train step"):
          abstract = programs.abstract_batch(mesh, train.batch_rows, store.seq_len, train.slots)
          train_step = train_step.lower(program.state, abstract).compile()
        hosts.say(programs.describe_memory(train_step))
      watchdog.alive()
      with jax.transfer_guard("disallow"):
        for step in range(start, config.train_steps + 1):
          # Order is law: evaluation and checkpoint see the state before this step's batch is fetched.
          preempted, asked = preemption.stop(), False
          if step == start or due(step, config.log.every_steps) or due(step, config.checkpoint.every_steps):
            asked = _asked_to_end(workdir, step)
          action = decide(
            step, start=start, train_steps=config.train_steps, held_out_every=config.held_out.every_steps,
            checkpoint_every=config.checkpoint.every_steps, held_out_at=progress.held_out_at, asked_to_end=asked,
            preempted=preempted,
          )  # fmt: skip
          if action.evaluate or action.save:
            progress = progress.after(log.flush())
          if progress.bad_in_a_row >= config.max_bad_steps:
            raise UserError(
              f"loss or gradients were not finite in {progress.bad_in_a_row} steps in a row up to step {step}; "
              "go on with a lower learning rate or another order of the data, e.g. --config.seed=1 --allow_change=seed"
            )
          if action.evaluate:
            if evaluate(step, state.params):
              progress = progress._replace(held_out_at=step)
            else:
              preempted, action = True, Action(True, step > start, True)
          if action.save:
            checkpoints.save(step, state, log.notes() | progress._asdict())
          if action.evaluate or action.save:
            log.restart_clock()
          if action.end:
            break
          with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, metrics = train_step(state, sharding.to_global(mesh, next(batches), train.batch_rows))
          progress = progress.after(log.later(step, metrics))  # of the step before
          if step == start:
            jax.block_until_ready(metrics)
            log.first_step(step, compile_cache.seconds_since_start(), compile_cache.so_far())
            log.restart_clock()
          checkpoints.poll()
          verification.poll()
          watchdog.alive()
  finally:
    try:
      checkpoints.close()
    finally:
      log.close()
      watchdog.close()
      verification.close()
  verification.poll()
  _say_why_it_ended(workdir, step, start, restored=notes is not None, preempted=preempted, train_steps=config.train_steps)
  return Result(step, preempted, log.last_held_out)


def _say_why_it_ended(workdir: Workdir, step: int, start: int, *, restored: bool, preempted: bool, train_steps: int) -> None:
  if preempted and step > start:
    text = f"stopped by a signal: step {step} is saved; the same command goes on from there"
  elif preempted and restored:
    text = f"stopped by a signal at step {step}, which was saved before; the same command goes on from there"
  elif preempted:
    text = "stopped by a signal before the first step; nothing was saved"
  elif step < train_steps:
    text = (f"done: ended at step {step} because of {workdir.stop}; to go on, remove it and run the same command "
            "(and the evaluator with another rule, e.g. --config.stop.patience=0)")  # fmt: skip
  else:
    return
  print(text, file=sys.stderr, flush=True)
