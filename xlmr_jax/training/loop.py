"""Pretraining, read top to bottom: what each step decides, where a run begins, the loop."""

import concurrent.futures
import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from xlmr_jax.data import pipeline
from xlmr_jax.data.verification import Verification
from xlmr_jax.errors import UserError
from xlmr_jax.model.build import family_of
from xlmr_jax.run import compile_cache, hosts
from xlmr_jax.run.checkpoint import Checkpoints, sound_steps
from xlmr_jax.run.goodput import Goodput, describe
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.run.metrics import RunLog
from xlmr_jax.run.preemption import Preemption
from xlmr_jax.run.watchdog import Watchdog
from xlmr_jax.run.workdir import Workdir, read_stop
from xlmr_jax.training import program as programs
from xlmr_jax.training import recovery, sharding
from xlmr_jax.training.fingerprint import refuse_corruption
from xlmr_jax.training.held_out import bits_per_nat, held_out_losses, stop_by_held_out
from xlmr_jax.training.preparation import Prepared, open_log, retention_of, say_what_comes
from xlmr_jax.training.progress import Progress
from xlmr_jax.training.segments import CompiledSteps, Shape, shape_of, spec_of


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


def _with_its_line(progress: Progress, log: RunLog, step: int) -> Progress:
  """The progress at a step, whose held-out pass is to be made again if the log has lost its line."""

  def is_lost() -> bool:
    return progress.held_out_at == step and (log.last_held_out or {}).get("step") != step

  with jax.transfer_guard("allow"):  # Hosts agree by way of the devices.
    return progress._replace(held_out_at=-1) if hosts.on_first(is_lost) else progress


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
  held_out = Shape(prepared.held_out.batch_rows, prepared.store.seq_len, prepared.held_out.slots)
  with contextlib.closing(watchdog), CompiledSteps(prepared.by_shape, prepared.program, held_out) as compiled:
    with concurrent.futures.ThreadPoolExecutor(1, "load libraries") as loading:
      loading.submit(pipeline.load_libraries)
      return _train(prepared, workdir, preemption, initial, watchdog, compiled)


def _train(
  prepared: Prepared, workdir: Workdir, preemption: Preemption, initial: Callable[[Any], Any] | None, watchdog: Watchdog,
  compiled: CompiledSteps,
) -> Result:  # fmt: skip
  config, store, program, held_out = prepared.config, prepared.store, prepared.program, prepared.held_out
  mesh, spikes = program.mesh, config.spikes
  has_replicas = config.check_replicas_every > 0 and mesh.size > 1
  checkpoints = Checkpoints(workdir, retention_of(config, workdir), config.checkpoint.max_failed_saves)
  goodput = Goodput(workdir, write_every_s=config.log.goodput_s)
  ledger = recovery.read_ledger_of_first(workdir)
  timeline = prepared.timeline(ledger)
  newest = max(hosts.on_first(lambda: sound_steps(workdir.checkpoints)[:1]), default=0)
  if newest < config.train_steps:  # Compile beside the restore.
    compiled.begin(shape_of(timeline.at(newest).phase))
  said = say_what_comes(prepared, workdir, timeline, newest)
  start, state, notes = _begin(prepared, workdir, checkpoints.restore_latest(program.state), initial)
  hosts.refuse_disagreement({"start step": start})
  recovery.refuse_lost(workdir, ledger, notes)
  progress = Progress.at(start, notes, recovery.is_at(start, ledger, notes))
  log = open_log(prepared, workdir, start, progress.held_out_at, notes, timeline, goodput)
  progress = _with_its_line(progress, log, start)
  verification = Verification(store, config.data.verify, (jax.process_index(), jax.process_count()))

  def go_on() -> bool:
    watchdog.alive()
    return not preemption.stop()

  def evaluate(step: int, params: Any) -> bool:
    """Writes held-out losses per language; False when told to stop before the end."""
    limit = config.held_out.max_rows_per_language or None
    with pipeline.held_out_batches(store, held_out, max_rows_per_language=limit) as batches:
      with heartbeat(f"held-out evaluation at step {step}"):
        with goodput.during("compiling"):  # It waits where the first pass comes before the program is compiled.
          held_out_step, languages = compiled.held_out_step(), len(store.languages)
        sums = held_out_losses(held_out_step, params, batches, mesh, held_out.batch_rows, languages, go_on)
    if sums is not None:
      log.held_out(step, sums[0], sums[1], bits_per_nat(store, "held_out"))
      stop_by_held_out(config, workdir, log.last_held_out)
    return sums is not None

  def begin_at(step: int) -> tuple[int, Any, dict | None]:
    return _begin(prepared, workdir, checkpoints.go_back(step, program.state), initial)

  def feed() -> Any:
    return pipeline.stretch_batches(store, timeline.stretches, lambda part: spec_of(part, mesh, config), start)

  def enter(step: int) -> tuple[int, int, Any]:
    """From a step on: the rows of a batch, the step at which that may change, and the compiled train step."""
    part = timeline.at(step)
    if not compiled.is_ready(shape_of(part.phase)):
      with heartbeat("compiling the train step"), goodput.during("compiling"), watchdog.during("compile"):
        compiled.train_step(shape_of(part.phase))
    return part.phase.batch_rows, part.end, compiled.train_step(shape_of(part.phase))

  failure: BaseException | None = None
  try:
    watchdog.begin("compile")
    with jax.set_mesh(mesh), contextlib.ExitStack() as fed:
      batches = fed.enter_context(feed())
      limit = sharding.to_every_device(mesh, math.inf)
      batch_rows, edge, train_step = 0, start, program.train_step
      if start < config.train_steps:
        batch_rows, edge, train_step = enter(start)
        said.append(programs.describe_memory(train_step))
        hosts.say(said[-1])
        compiled.begin_all(shape_of(part.phase) for part in timeline.stretches if part.first >= edge)
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
              timeline = prepared.timeline(ledger)
              log = open_log(prepared, workdir, start, progress.held_out_at, notes, timeline, goodput)
              progress = _with_its_line(progress, log, start)
              batches = fed.enter_context(feed())
            step = edge = start
            continue
          if action.evaluate:
            with goodput.during("evaluation"):
              is_evaluated = evaluate(step, state.params)
            if is_evaluated:
              hosts.say(describe(goodput.total()))
              progress = progress._replace(held_out_at=step)
              if config.stop.by == "held_out" and not action.end and _asked_to_end(workdir, step):
                action = Action(True, step > start, True)
            else:
              preempted, action = True, Action(True, step > start, True)
          if has_replicas and step > start and (action.save or due(step, config.check_replicas_every)):
            refuse_corruption(program.fingerprints(state), mesh, program.state, family_of(config).sharding, step)
          if action.save:
            with goodput.during("save"), watchdog.during("save"):
              log.sync()
              notes_now = log.notes() | progress._asdict() | {"recoveries": len(ledger)}
              checkpoints.save(step, state, notes_now, last=action.end)
          if action.evaluate or action.save:
            log.restart_clock()
          if action.end:
            break
          if step >= edge:
            # Else the line of the steps before the edge would have the time of the last one alone.
            progress = progress.after(log.flush(), spikes.mean_steps)
            batch_rows, edge, train_step = enter(step)
            log.restart_clock()
          with jax.profiler.StepTraceAnnotation("train", step_num=step):
            batch = sharding.to_global(mesh, goodput.next_of(step, batches), batch_rows)
            if spikes.factor:
              limit = sharding.to_every_device(mesh, progress.limit(step, spikes.factor, spikes.mean_steps))
            state, metrics = train_step(state, batch, limit)
          goodput.sent(step, metrics["lr"])
          progress = progress.after(log.later(step, metrics), spikes.mean_steps)  # of the step before
          if step == first_step:
            with heartbeat("the first step"):
              jax.block_until_ready(metrics)
            log.first_step(step, compile_cache.seconds_since_start(), compile_cache.so_far(), said)
            log.restart_clock()
            first_step = None
          checkpoints.poll()
          compiled.poll()
          verification.poll()
          watchdog.alive()
          step += 1
  except BaseException as error:
    failure = error
    raise
  finally:
    try:
      with goodput.during("save"), watchdog.during("save"):
        checkpoints.close(failure)
    finally:
      log.close()
      goodput.close()
      verification.close()
  verification.poll()
  _say_why_it_ended(workdir, step, start, restored=notes is not None, preempted=preempted, config=config)
  return Result(step, preempted, log.last_held_out)


def _say_why_it_ended(
  workdir: Workdir, step: int, start: int, *, restored: bool, preempted: bool, config: ConfigDict
) -> None:
  if preempted and step > start:
    text = f"stopped by a signal: step {step} is saved; the same command goes on from there"
  elif preempted and restored:
    text = f"stopped by a signal at step {step}, which was saved before; the same command goes on from there"
  elif preempted:
    text = "stopped by a signal before the first step; nothing was saved"
  elif step < config.train_steps:
    text = f"done: ended at step {step} because of {workdir.stop}; to go on, remove it and run the same command "
    if config.stop.by == "held_out":  # Its passes before count on, so that the next one without a gain would end it again.
      text += f"with --config.stop.patience above {config.stop.patience}, or 0 for no end before config.train_steps"
    else:
      text += "(and the evaluator with another rule, e.g. --config.stop.patience=0)"
  else:
    return
  print(text, file=sys.stderr, flush=True)
