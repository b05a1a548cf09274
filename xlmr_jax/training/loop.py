"""Pretraining, read top to bottom: where a run begins, the loop, what a step may do, how it ends."""

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
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import program as programs
from xlmr_jax.training import recovery, sharding
from xlmr_jax.training.decisions import Action, asked_to_end, decide, due
from xlmr_jax.training.fingerprint import refuse_corruption
from xlmr_jax.training.held_out import bits_per_nat, held_out_losses, stop_by_held_out
from xlmr_jax.training.preparation import Prepared, open_log, retention_of, say_what_comes
from xlmr_jax.training.progress import Progress
from xlmr_jax.training.segments import CompiledSteps, Shape, shape_of, spec_of


class Result(NamedTuple):
  """How a run ended."""

  step: int
  preempted: bool  # told to stop: the same command goes on from here
  held_out: dict | None  # the newest line of held_out.jsonl, on process 0


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

  def newest_line() -> int:  # A log that is opened again at -1 would lose all lines before.
    return (log.last_held_out or {}).get("step", -1) if progress.held_out_at == step else progress.held_out_at

  with jax.transfer_guard("allow"):  # Hosts agree by way of the devices.
    return progress._replace(held_out_at=hosts.on_first(newest_line))


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
      return _Training(prepared, workdir, preemption, initial, watchdog, compiled).train()


class _Training:
  """A run from its newest checkpoint to its end. A method is what a step may do, and _loop() has their order.

  Every process makes the same calls, because what they depend on is the same on each.
  """

  def __init__(
    self, prepared: Prepared, workdir: Workdir, preemption: Preemption, initial: Callable[[Any], Any] | None,
    watchdog: Watchdog, compiled: CompiledSteps,
  ):  # fmt: skip
    """compiled: of prepared's shapes; it begins to compile here, beside the restore."""
    config = prepared.config
    self.config, self.store, self.program, self.mesh = config, prepared.store, prepared.program, prepared.program.mesh
    self.prepared, self.workdir, self.preemption, self.initial = prepared, workdir, preemption, initial
    self.watchdog, self.compiled = watchdog, compiled
    self.checkpoints = Checkpoints(workdir, retention_of(config, workdir), config.checkpoint.max_failed_saves)
    self.goodput = Goodput(workdir, write_every_s=config.log.goodput_s)
    self.ledger = recovery.read_ledger_of_first(workdir)
    self.timeline = prepared.timeline(self.ledger)
    newest = max(hosts.on_first(lambda: sound_steps(workdir.checkpoints)[:1]), default=0)
    if newest < config.train_steps:
      compiled.begin(shape_of(self.timeline.at(newest).phase))
    self.said = say_what_comes(prepared, workdir, self.timeline, newest)
    begun = _begin(prepared, workdir, self.checkpoints.restore_latest(self.program.state), initial)
    hosts.refuse_disagreement({"start step": begun[0]})
    recovery.refuse_lost(workdir, self.ledger, begun[2])
    self._go_on_from(*begun, is_recovery=recovery.is_at(begun[0], self.ledger, begun[2]))
    self.verification = Verification(self.store, config.data.verify, (jax.process_index(), jax.process_count()))
    self.has_made_a_step, self.is_preempted = False, False

  def _go_on_from(self, start: int, state: Any, notes: dict | None, *, is_recovery: bool) -> None:
    """Puts the run at a step, with a log that goes on there. is_recovery: as of Progress.at."""
    self.start = self.step = self.edge = start  # edge: the step at which the phase may change
    self.state: Any = state
    self.is_restored = notes is not None
    progress = Progress.at(start, notes, is_recovery)
    self.log = open_log(
      self.prepared, self.workdir, start, progress.held_out_at, notes, self.timeline, self.goodput
    )  # fmt: skip
    self.progress = _with_its_line(progress, self.log, start)

  def train(self) -> Result:
    """Trains to the end, or until the process is told to stop."""
    failure: BaseException | None = None
    try:
      self.watchdog.begin("compile")
      with jax.set_mesh(self.mesh), contextlib.ExitStack() as self.fed:
        self.batches = self.fed.enter_context(self._feed())
        self.limit = sharding.to_every_device(self.mesh, math.inf)
        if self.start < self.config.train_steps:
          self._enter_phase()
          self.said.append(programs.describe_memory(self.train_step))
          hosts.say(self.said[-1])
          later = (part for part in self.timeline.stretches if part.first >= self.edge)
          self.compiled.begin_all(shape_of(part.phase) for part in later)
        self.watchdog.begin("step")
        with jax.transfer_guard("disallow"):
          self._loop()
    except BaseException as error:
      failure = error
      raise
    finally:
      try:
        with self.goodput.during("save"), self.watchdog.during("save"):
          self.checkpoints.close(failure)
      finally:
        self.log.close()
        self.goodput.close()
        self.verification.close()
    self.verification.poll()
    _say_why_it_ended(
      self.workdir, self.step, self.start, restored=self.is_restored, preempted=self.is_preempted, config=self.config
    )
    return Result(self.step, self.is_preempted, self.log.last_held_out)

  def _loop(self) -> None:
    """Order is law: evaluation and checkpoint see the state before this step's batch is fetched."""
    config = self.config
    while True:
      action = self._decide()
      if self.progress.bad_in_a_row >= config.max_bad_steps:
        self._go_back()
        continue
      if action.evaluate:
        action = self._evaluate(action)
      if self.step > self.start and (action.save or due(self.step, config.check_replicas_every)):
        self._compare_replicas()
      if action.save:
        self._save(last=action.end)
      if action.evaluate or action.save:
        self.log.restart_clock()
      if action.end:
        return
      if self.step >= self.edge:
        # Else the line of the steps before the edge would have the time of the last one alone.
        self._settle()
        self._enter_phase()
        self.log.restart_clock()
      self._make_step()
      self.checkpoints.poll()
      self.compiled.poll()
      self.verification.poll()
      self.watchdog.alive()
      self.step += 1

  def _decide(self) -> Action:
    """What to do at this step. The outcome of every step before one that is evaluated or saved is known afterwards."""
    config, step = self.config, self.step
    self.is_preempted, asked = self.preemption.stop(), False
    if step == self.start or due(step, config.log.every_steps) or due(step, config.checkpoint.every_steps):
      asked = asked_to_end(self.workdir, step)
    action = decide(
      step, start=self.start, train_steps=config.train_steps, held_out_every=config.held_out.every_steps,
      checkpoint_every=config.checkpoint.every_steps, held_out_at=self.progress.held_out_at, asked_to_end=asked,
      preempted=self.is_preempted,
    )  # fmt: skip
    if (action.evaluate or action.save) and self.progress.bad_in_a_row < config.max_bad_steps:
      self._settle()
    return action

  def _settle(self) -> None:
    """Waits for the outcomes of all steps that were sent."""
    self.progress = self.progress.after(self.log.flush(), self.config.spikes.mean_steps)

  def _go_back(self) -> None:
    """Goes back to before the bad steps, and past their batches."""
    self.state = None  # Its memory is needed for the one that is restored.

    def begin_at(step: int) -> tuple[int, Any, dict | None]:
      restored = self.checkpoints.go_back(step, self.program.state)
      return _begin(self.prepared, self.workdir, restored, self.initial)

    with self.goodput.during("recovery"), self.watchdog.during("restore"), jax.transfer_guard("allow"):
      self.fed.close()
      bad = (self.progress.seen - self.progress.bad_in_a_row, self.progress.seen)
      self.ledger, begun = recovery.go_back(
        self.workdir, self.ledger, bad, self.checkpoints.settled_steps(), self.config.max_recoveries, begin_at
      )
      self.log.close()
      self.timeline = self.prepared.timeline(self.ledger)
      self._go_on_from(*begun, is_recovery=True)
      self.batches = self.fed.enter_context(self._feed())

  def _evaluate(self, action: Action) -> Action:
    """Writes held-out losses per language. The action that remains: it ends where told to stop, or by the loss."""
    step = self.step
    with self.goodput.during("evaluation"):
      is_evaluated = self._pass_held_out()
    if not is_evaluated:
      self.is_preempted = True
      return Action(True, step > self.start, True)
    hosts.say(describe(self.goodput.total()))
    self.progress = self.progress._replace(held_out_at=step)
    if self.config.stop.by == "held_out" and not action.end and asked_to_end(self.workdir, step):
      return Action(True, step > self.start, True)
    return action

  def _pass_held_out(self) -> bool:
    """Whether the pass came to its end; not where the process was told to stop before."""
    config, store, held_out = self.config, self.store, self.prepared.held_out

    def go_on() -> bool:
      self.watchdog.alive()
      return not self.preemption.stop()

    limit = config.held_out.max_rows_per_language or None
    with pipeline.held_out_batches(store, held_out, max_rows_per_language=limit) as batches:
      with heartbeat(f"held-out evaluation at step {self.step}"):
        with self.goodput.during("compiling"):  # It waits where the first pass comes before the program is compiled.
          held_out_step = self.compiled.held_out_step()
        sums = held_out_losses(
          held_out_step, self.state.params, batches, self.mesh, held_out.batch_rows, len(store.languages), go_on
        )
    if sums is not None:
      self.log.held_out(self.step, sums[0], sums[1], bits_per_nat(store, "held_out"))
      stop_by_held_out(config, self.workdir, self.log.last_held_out)
    return sums is not None

  def _compare_replicas(self) -> None:
    if self.config.check_replicas_every > 0 and self.mesh.size > 1:
      rules = family_of(self.config).sharding
      refuse_corruption(self.program.fingerprints(self.state), self.mesh, self.program.state, rules, self.step)

  def _save(self, *, last: bool) -> None:
    with self.goodput.during("save"), self.watchdog.during("save"):
      self.log.sync()
      notes = self.log.notes() | self.progress._asdict() | {"recoveries": len(self.ledger)}
      self.checkpoints.save(self.step, self.state, notes, last=last)

  def _feed(self) -> Any:
    """The batches from the start of the run, or of its recovery, on; a context."""
    return pipeline.stretch_batches(
      self.store, self.timeline.stretches, lambda part: spec_of(part, self.mesh, self.config), self.start
    )  # fmt: skip

  def _enter_phase(self) -> None:
    """From this step on: the rows of a batch, the step at which that may change, and the compiled train step."""
    part = self.timeline.at(self.step)
    shape = shape_of(part.phase)
    if not self.compiled.is_ready(shape):
      with heartbeat("compiling the train step"), self.goodput.during("compiling"), self.watchdog.during("compile"):
        self.compiled.train_step(shape)
    self.batch_rows, self.edge, self.train_step = part.phase.batch_rows, part.end, self.compiled.train_step(shape)

  def _make_step(self) -> None:
    """Sends a step to the devices, and learns how the step before it went."""
    step, spikes = self.step, self.config.spikes
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
      batch = sharding.to_global(self.mesh, self.goodput.next_of(step, self.batches), self.batch_rows)
      if spikes.factor:
        limit = self.progress.limit(step, spikes.factor, spikes.mean_steps)
        self.limit = sharding.to_every_device(self.mesh, limit)
      self.state, metrics = self.train_step(self.state, batch, self.limit)
    self.goodput.sent(step, metrics["lr"])
    self.progress = self.progress.after(self.log.later(step, metrics), spikes.mean_steps)
    if not self.has_made_a_step:
      with heartbeat("the first step"):
        jax.block_until_ready(metrics)
      self.log.first_step(step, compile_cache.seconds_since_start(), compile_cache.so_far(), self.said)
      self.log.restart_clock()
      self.has_made_a_step = True


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
