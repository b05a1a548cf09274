"""What a run's steps read and the compiled step that each needs: one compilation per shape of a batch, ahead of its use."""

import concurrent.futures
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from xlmr_jax.data import masking
from xlmr_jax.data.phases import Phase
from xlmr_jax.data.pipeline import BatchSpec
from xlmr_jax.data.timeline import Stretch, Timeline
from xlmr_jax.errors import UserError
from xlmr_jax.model.build import family_of
from xlmr_jax.run.metrics import Rate
from xlmr_jax.training import program as programs
from xlmr_jax.training import sharding
from xlmr_jax.training.program import Program
from xlmr_jax.training.step import Sides

_GOLDEN = 0x9E3779B97F4A7C15


class Shape(NamedTuple):
  """The shape of a batch."""

  batch_rows: int
  seq_len: int
  slots: int


def shape_of(phase: Phase) -> Shape:
  """The shape of a phase's batches."""
  return Shape(phase.batch_rows, phase.seq_len, masking.slots_per_row(phase.seq_len, phase.mask_share))


def spec_of(stretch: Stretch, mesh: jax.sharding.Mesh, config: ConfigDict) -> BatchSpec:
  """What the batches of a stretch hold. The masks of a later phase have a seed of their own: positions count anew there."""
  phase = stretch.phase
  return BatchSpec(
    phase.batch_rows, sharding.host_rows(mesh, phase.batch_rows), shape_of(phase).slots,
    config.seed + stretch.number * _GOLDEN, phase.mask_share, stretch.pieces,
    unit=config.data.mask_unit, span_mean=config.data.mask_span_mean,
  )  # fmt: skip


def config_of(phase: Phase, config: ConfigDict, cuts: int, devices: int) -> ConfigDict:
  """config with the phase's batch. Where rows are cut, so many more of them go on a device as the batch allows.

  cuts: rows that a row of the store is cut into.
  """
  changed = config.copy_and_resolve_references()
  changed.batch_rows, rows = phase.batch_rows, config.rows_per_device
  if rows:
    fits = (factor for factor in range(cuts, 0, -1) if phase.batch_rows % (rows * factor * devices) == 0)
    changed.rows_per_device = rows * next(fits, 1)
  return changed


def build_programs(
  phases: tuple[Phase, ...], config: ConfigDict, base: Program, *, vocabulary_size: int, languages: int, seq_len: int,
  sides: Sides | None = None, begin: int = 0,
) -> dict[Shape, Program]:  # fmt: skip
  """A Program for each shape of the phases. base: that of config and seq_len, the tokens of the store's rows.

  languages, sides: as of build_program. begin: the step that the run goes on from. The batch of a phase that is over by then
  may not fit the devices, because others may have made it; its shape has no Program then.

  Raises UserError naming the phase whose batch does not fit the devices.
  """
  built: dict[tuple[int, int], Program] = {(config.batch_rows, seq_len): base}
  for number, phase in enumerate(phases, 1):
    if (phase.batch_rows, phase.seq_len) in built:
      continue
    try:
      changed = config_of(phase, config, seq_len // phase.seq_len, base.mesh.size)
      sharding.host_rows(base.mesh, phase.batch_rows)
      built[phase.batch_rows, phase.seq_len] = programs.build_program(
        changed, base.mesh, vocabulary_size=vocabulary_size, languages=languages, seq_len=phase.seq_len, sides=sides
      )
    except UserError as error:
      if phase.until > begin:
        raise UserError(f"config.phases, phase {number}, with its own batch: {error}") from None
  shapes = {shape_of(phase): (phase.batch_rows, phase.seq_len) for phase in phases}
  return {shape: built[sizes] for shape, sizes in shapes.items() if sizes in built}


def program_of(shape: Shape, by_shape: Mapping[Shape, Program]) -> Program:
  """The Program of a shape. UserError: there is none, because the run has lost the checkpoints behind that phase."""
  if shape not in by_shape:
    raise UserError(
      f"the run goes back to a phase with {shape.batch_rows} rows of {shape.seq_len} tokens in a batch, which does not fit "
      "these devices; go on with as many as made those steps, or restore a later checkpoint"
    )
  return by_shape[shape]


def rates(timeline: Timeline, config: ConfigDict, vocabulary_size: int) -> list[Rate]:
  """The Rate of each phase's steps."""
  found = []
  for number, phase in enumerate(timeline.phases, 1):
    shape = shape_of(phase)
    per_token = family_of(config).flops_per_token(config.model, vocabulary_size, shape.seq_len, shape.slots)
    cuts = timeline.stored.seq_len // phase.seq_len
    found.append(Rate(shape.batch_rows * shape.seq_len, per_token, cuts, number if len(timeline.phases) > 1 else 0))
  return found


class CompiledSteps:
  """The train step of each shape and the held-out step, compiled by threads, each once.

  In the loop nothing should compile, because that could last longer than the time that a preempted process has for a save.
  So the steps of later phases compile while the first one trains. Only a run that comes to the edge sooner waits for them.
  """

  def __init__(self, by_shape: Mapping[Shape, Program], program: Program, held_out: Shape):
    """program: with the held-out step, whose batches have the shape `held_out`."""
    self._by_shape, self._program, self._held_out_shape = by_shape, program, held_out
    self._pool = concurrent.futures.ThreadPoolExecutor(2, "compile")
    self._steps: dict[Shape, concurrent.futures.Future] = {}
    self._held_out: concurrent.futures.Future | None = None

  def __enter__(self) -> "CompiledSteps":
    return self

  def __exit__(self, *_: object) -> None:
    """Waits for what compiles at the moment, which cannot be interrupted."""
    self._pool.shutdown(cancel_futures=True)

  def begin(self, shape: Shape) -> None:
    """Begins to compile a shape's train step, unless that was done before, and the held-out step beside it."""
    if shape not in self._steps:
      self._steps[shape] = self._pool.submit(self._compile_train, shape)
    if self._held_out is None:
      self._held_out = self._pool.submit(self._compile_held_out)

  def begin_all(self, shapes: Iterable[Shape]) -> None:
    """Begins to compile the train steps of shapes, in their order."""
    for shape in shapes:
      self.begin(shape)

  def is_ready(self, shape: Shape) -> bool:
    """Whether the train step of a shape need not be waited for."""
    return shape in self._steps and self._steps[shape].done()

  def train_step(self, shape: Shape) -> Any:
    """The compiled (state, batch, limit) -> (state, metrics) of a shape."""
    self.begin(shape)
    return self._steps[shape].result()

  def held_out_step(self) -> Any:
    """The compiled (params, batch) -> sums; compiled when it is first called, where no training is."""
    return self._held_out.result() if self._held_out else self._program.held_out_step

  def poll(self) -> None:
    """Raises what a compilation in the background raised: a phase that does not fit is known long before it begins."""
    for future in self._steps.values():
      if future.done():
        future.result()

  def _compile_train(self, shape: Shape) -> Any:
    program = program_of(shape, self._by_shape)
    mesh = program.mesh
    with jax.set_mesh(mesh):
      batch = programs.abstract_batch(mesh, *shape)
      return program.train_step.lower(program.state, batch, programs.abstract_limit(mesh)).compile()

  def _compile_held_out(self) -> Any:
    program = self._program
    with jax.set_mesh(program.mesh):
      batch = programs.abstract_batch(program.mesh, *self._held_out_shape)
      return program.held_out_step.lower(program.state.params, batch).compile()
