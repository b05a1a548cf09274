"""Pretraining, read top to bottom: what is prepared before anything is written, what each step decides, the loop."""

import concurrent.futures
import contextlib
import math
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
from xlmr_jax.run.checkpoint import Checkpoints, sound_steps
from xlmr_jax.run.goodput import Goodput, describe
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.run.metrics import Rate, RunLog
from xlmr_jax.run.preemption import Preemption
from xlmr_jax.run.retention import Retention
from xlmr_jax.run.watchdog import Watchdog
from xlmr_jax.run.workdir import Workdir, read_stop
from xlmr_jax.training import program as programs
from xlmr_jax.training import recovery, sharding
from xlmr_jax.training.fingerprint import refuse_corruption
from xlmr_jax.training.held_out import bits_per_nat, held_out_losses
from xlmr_jax.training.program import Program
from xlmr_jax.training.progress import Progress
from xlmr_jax.training.recovery import Ledger


class Prepared(NamedTuple):
  """All that a run is made of; nothing has been written for it, and nothing is left to refuse."""

  config: ConfigDict
  store: RowStore
  mix: mixture.Mixture
  program: Program
  train: BatchSpec
  held_out: BatchSpec


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


def _begin(
  prepared: Prepared, workdir: Workdir, restored: tuple[int, Any, dict] | None, initial: Callable[[Any], Any] | None
) -> tuple[int, Any, dict | None]:
  """(step, state, notes) of what was restored; without it of `initial`, or drawn from the seed."""
  config, program = prepared.config, prepared.program
  if restored:
    hosts.say(f"resuming at step {restored[0]}")
    if restored[0] > config.train_steps:
      raise UserError(f"{workdir} is at step {restored[0]}, past config.train_steps={config.train_steps}")
    return restored
  if initial:
    return 0, program.begin_with(initial(program.state.params)), None
  return 0, program.init(jax.random.key(config.seed)), None


def _open_log(
  prepared: Prepared, workdir: Workdir, start: int, held_out_at: int, notes: dict | None, ledger: Ledger, goodput: Goodput
) -> RunLog:
  """A log that goes on at step `start`; the epochs that it tells leave out the batches that the run went past."""
  config, store, mix, skips = prepared.config, prepared.store, prepared.mix, recovery.skips_of(ledger)
  per_token = family_of(config).flops_per_token(config.model, store.vocabulary_size, store.seq_len, prepared.train.slots)
  return RunLog(
    workdir, start=start, held_out_at=held_out_at, notes=notes, train_steps=config.train_steps,
    every_steps=config.log.every_steps, languages=store.languages, shares=mix.shares,
    epochs=lambda step: pipeline.epochs_read(mix, config.batch_rows, step, skips),
    rate=Rate(config.batch_rows * store.seq_len, per_token), tensorboard=config.log.tensorboard, goodput=goodput,
  )  # fmt: skip


def _compile(prepared: Prepared) -> tuple[Any, Any]:
  """The train step and the held-out step, compiled side by side.

  In the loop nothing compiles: a compilation there could last longer than the time that a preempted process has for a save.
  """
  program, mesh, seq_len = prepared.program, prepared.program.mesh, prepared.store.seq_len

  def batch(spec: BatchSpec) -> dict:
    return programs.abstract_batch(mesh, spec.batch_rows, seq_len, spec.slots)

  with jax.set_mesh(mesh), concurrent.futures.ThreadPoolExecutor(1, "compile the held-out step") as other:
    held_out_step = other.submit(program.held_out_step.lower(program.state.params, batch(prepared.held_out)).compile)
    train_step = program.train_step.lower(program.state, batch(prepared.train), programs.abstract_limit(mesh)).compile()
    return train_step, held_out_step.result()


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


def run(prepared: Prepared, workdir: Workdir, preemption: Preemption, initial: Callable[[Any], Any] | None = None) -> Result:
  """Trains in a claimed workdir from its newest checkpoint, or from the start, and returns how it ended.

  initial: abstract parameters -> those before step 0, if they are not to be drawn from config.seed.
  """
  config = prepared.config
  limits = {"step": config.watchdog_s, **config.watchdog}
  watchdog = Watchdog(
    {work.removesuffix("_s"): limit for work, limit in limits.items()}, work="restore",
    hung_s=config.watchdog_s + 60.0 if config.watchdog_s and jax.process_count() > 1 else 0.0,
  )  # fmt: skip
  with contextlib.closing(watchdog), concurrent.futures.ThreadPoolExecutor(2, "start") as workers:
    return _train(prepared, workdir, preemption, initial, watchdog, workers)


def _train(
  prepared: Prepared, workdir: Workdir, preemption: Preemption, initial: Callable[[Any], Any] | None, watchdog: Watchdog,
  workers: concurrent.futures.Executor,
) -> Result:  # fmt: skip
  config, store, mix, program, train, held_out = prepared
  mesh, spikes = program.mesh, config.spikes
  has_replicas = config.check_replicas_every > 0 and mesh.size > 1
  for line in programs.describe_program(program, config, store.seq_len):
    hosts.say(line)

  def is_eligible(step: int) -> bool:
    return stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps)

  retention = Retention(
    workdir, keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every,
    is_eligible=is_eligible if config.evaluate.tasks else None,
    keep_unevaluated=config.evaluate.keep_unevaluated,
  )  # fmt: skip
  checkpoints = Checkpoints(workdir, retention, config.checkpoint.max_failed_saves)
  goodput = Goodput(workdir, write_every_s=config.log.goodput_s)
  ledger = recovery.read_ledger_of_first(workdir)
  is_finished = hosts.on_first(lambda: sound_steps(workdir.checkpoints)[:1]) == [config.train_steps]
  compiling = None if is_finished else workers.submit(_compile, prepared)  # beside the restore
  workers.submit(pipeline.load_libraries)
  start, state, notes = _begin(prepared, workdir, checkpoints.restore_latest(program.state), initial)
  hosts.refuse_disagreement({"start step": start})
  recovery.refuse_lost(workdir, ledger, notes)
  progress = Progress.at(start, notes, recovery.is_at(start, ledger))
  log = _open_log(prepared, workdir, start, progress.held_out_at, notes, ledger, goodput)
  verification = Verification(store, config.data.verify, (jax.process_index(), jax.process_count()))

  def go_on() -> bool:
    watchdog.alive()
    return not preemption.stop()

  def evaluate(step: int, params: Any) -> bool:
    """Writes held-out losses per language; False when told to stop before the end."""
    limit = config.held_out.max_rows_per_language or None
    with pipeline.held_out_batches(store, held_out, max_rows_per_language=limit) as batches:
      with heartbeat(f"held-out evaluation at step {step}"):
        sums = held_out_losses(held_out_step, params, batches, mesh, held_out.batch_rows, len(store.languages), go_on)
    if sums is not None:
      log.held_out(step, sums[0], sums[1], bits_per_nat(store, "held_out"))
    return sums is not None

  def begin_at(step: int) -> tuple[int, Any, dict | None]:
    return _begin(prepared, workdir, checkpoints.go_back(step, program.state), initial)

  def feed() -> Any:
    return pipeline.train_batches(store, mix, train, start_step=start, skips=recovery.skips_of(ledger))

  try:
    watchdog.begin("compile")
    with jax.set_mesh(mesh), contextlib.ExitStack() as fed:
      batches = fed.enter_context(feed())
      limit = sharding.to_every_device(mesh, math.inf)
      train_step, held_out_step = program.train_step, program.held_out_step
      if start < config.train_steps:
        with heartbeat("compiling the train step"), goodput.during("compiling"):
          train_step, held_out_step = compiling.result() if compiling else _compile(prepared)
        hosts.say(programs.describe_memory(train_step))
      watchdog.begin("step")
      with jax.transfer_guard("disallow"):
        step, first_step = start, start
        while True:
          # Order is law: evaluation and checkpoint see the state before this step's batch is fetched.
          preempted, asked = preemption.stop(), False
          if step == start or due(step, config.log.every_steps) or due(step, config.checkpoint.every_steps):
            asked = _asked_to_end(workdir, step)
          action = decide(
            step, start=start, train_steps=config.train_steps, held_out_every=config.held_out.every_steps,
            checkpoint_every=config.checkpoint.every_steps, held_out_at=progress.held_out_at, asked_to_end=asked,
            preempted=preempted,
          )  # fmt: skip
          if (action.evaluate or action.save) and progress.bad_in_a_row < config.max_bad_steps:
            progress = progress.after(log.flush(), spikes.mean_steps)
          if progress.bad_in_a_row >= config.max_bad_steps:
            state = metrics = None  # Its memory is needed for the one that is restored.
            with goodput.during("recovery"), watchdog.during("restore"), jax.transfer_guard("allow"):
              fed.close()
              bad = (progress.seen - progress.bad_in_a_row, progress.seen)
              sound = checkpoints.settled_steps()
              ledger, (start, state, notes) = recovery.go_back(workdir, ledger, bad, sound, config.max_recoveries, begin_at)
              progress = Progress.at(start, notes, is_recovery=True)
              log.close()
              log = _open_log(prepared, workdir, start, progress.held_out_at, notes, ledger, goodput)
              batches = fed.enter_context(feed())
            step = start
            continue
          if action.evaluate:
            with goodput.during("evaluation"):
              is_evaluated = evaluate(step, state.params)
            if is_evaluated:
              hosts.say(describe(goodput.total()))
              progress = progress._replace(held_out_at=step)
            else:
              preempted, action = True, Action(True, step > start, True)
          if has_replicas and step > start and (action.save or due(step, config.check_replicas_every)):
            refuse_corruption(program.fingerprints(state), mesh, program.state, family_of(config).sharding, step)
          if action.save:
            with goodput.during("save"), watchdog.during("save"):
              checkpoints.save(step, state, log.notes() | progress._asdict() | {"recoveries": len(ledger)})
          if action.evaluate or action.save:
            log.restart_clock()
          if action.end:
            break
          with jax.profiler.StepTraceAnnotation("train", step_num=step):
            batch = sharding.to_global(mesh, goodput.next_of(step, batches), train.batch_rows)
            if spikes.factor:
              limit = sharding.to_every_device(mesh, progress.limit(step, spikes.factor, spikes.mean_steps))
            state, metrics = train_step(state, batch, limit)
          goodput.sent(step, metrics["lr"])
          progress = progress.after(log.later(step, metrics), spikes.mean_steps)  # of the step before
          if step == first_step:
            jax.block_until_ready(metrics)
            log.first_step(step, compile_cache.seconds_since_start(), compile_cache.so_far())
            log.restart_clock()
            first_step = None
          checkpoints.poll()
          verification.poll()
          watchdog.alive()
          step += 1
  finally:
    try:
      with goodput.during("save"), watchdog.during("save"):
        checkpoints.close()
    finally:
      log.close()
      goodput.close()
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
