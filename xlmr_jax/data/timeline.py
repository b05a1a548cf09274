"""What each step of a run reads, and how far into its data it is there, over phases and recoveries. NumPy only.

All phases share one order of each language's rows. A phase goes on where the one before it stopped, so that a row comes once
in an epoch over all of them.
"""

import copy
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.phases import Phase, Rows


class Stretch(NamedTuple):
  """Steps [first, end) that read on without a break."""

  first: int
  end: int
  phase: Phase
  mixture: Mixture
  position: int  # of the mixture's rows, the first that step `first` reads
  number: int  # of the phase in this run's history, for the seed of the masks
  pieces: int  # rows of phase.seq_len tokens that a row is cut into

  @property
  def rows_per_step(self) -> int:
    """Rows of the store, each of which is cut into `pieces` rows of the batch."""
    return self.phase.batch_rows // self.pieces

  def position_at(self, step: int) -> int:
    """Of the first row that a step reads."""
    return self.position + (step - self.first) * self.rows_per_step


class Timeline:
  """What each step of a run reads: a pure function of the seed, the phases and the run's recoveries."""

  def __init__(self, phases: Sequence[Phase], rows: Rows, seed: int, restarts: Iterable[tuple[int, int]] = ()):
    """restarts: (step, end) of each recovery, in order: from the step on, the run read on from where step `end` would have.

    Raises UserError: a language of a phase has no rows.
    """
    self.phases, self.stored, self._seed = tuple(phases), rows, seed
    self.stretches = tuple(self._from(0, None, 0))
    self._go_back(restarts)

  def _go_back(self, restarts: Iterable[tuple[int, int]]) -> None:
    for step, end in restarts:
      last = self.at(end - 1)
      kept = [stretch._replace(end=min(stretch.end, step)) for stretch in self.stretches if stretch.first < step]
      self.stretches = (*kept, *self._from(step, last, last.position_at(end)))
    self.rows = functools.lru_cache(maxsize=64)(self._rows)
    self._rows_before = functools.lru_cache(maxsize=64)(lambda mixture, position: mixture.rows(position))

  def after(self, restarts: Iterable[tuple[int, int]]) -> "Timeline":
    """This timeline, which has no restarts, with them; what its edges left unread is not counted again."""
    later = copy.copy(self)
    later._go_back(restarts)
    return later

  def _from(self, step: int, last: Stretch | None, position: int) -> list[Stretch]:
    """The stretches of the steps from `step` on, if all before have read `last` up to a position of its mixture."""
    found = []
    for phase in self.phases:
      if phase.until <= step:
        continue
      if last is None:
        mixture, number, position = self._mixture(phase, None, 0), 0, 0
      elif phase.reads_like(last.phase):
        mixture, number = last.mixture, last.number
      elif all(getattr(phase, key) == getattr(last.phase, key) for key in ("alpha", "languages", "parallel_share")):
        mixture, number = last.mixture, last.number + 1
      else:
        mixture, number = self._mixture(phase, last.mixture, position), last.number + 1
        position = 0
      last = Stretch(step, phase.until, phase, mixture, position, number, self.stored.seq_len // phase.seq_len)
      found.append(last)
      step, position = last.end, last.position_at(last.end)
    return found

  def _mixture(self, phase: Phase, before: Mixture | None, position: int) -> Mixture:
    return Mixture(
      self.stored.counts, phase.alpha, self._seed, languages=self.stored.languages,
      among=np.isin(self.stored.languages, phase.languages),
      unread=before.unread_after(position) if before else None, number=before.number + 1 if before else 0,
      parallel=np.isin(self.stored.languages, list(self.stored.parallel)), parallel_share=phase.parallel_share,
    )  # fmt: skip

  def at(self, step: int) -> Stretch:
    """What a step reads; beyond the end, what the last step read."""
    return next((stretch for stretch in self.stretches if step < stretch.end), self.stretches[-1])

  def number_at(self, step: int) -> int:
    """The number of the phase of a step, from 1 on."""
    return next((i for i, phase in enumerate(self.phases, 1) if step < phase.until), len(self.phases))

  def _rows(self, step: int) -> np.ndarray:
    """How many rows of the store of each language steps [0, step) read: int64[G]. What recoveries left out is not read."""
    if step <= 0:
      return np.zeros(len(self.stored.counts), np.int64)
    last = self.at(step - 1)
    read = last.mixture.rows(last.position_at(min(step, last.end))) - self._rows_before(last.mixture, last.position)
    return self.rows(last.first) + read

  def epochs(self, step: int) -> np.ndarray:
    """How many epochs of each language steps [0, step) read: float64[G], exact to the row."""
    return self.rows(step) / self.stored.counts

  def shares(self, step: int) -> np.ndarray:
    """The wanted share of each language among all rows that steps [0, step) read: float64[G]."""
    if len(self.phases) == 1:
      return self.stretches[0].mixture.shares
    begun = [stretch for stretch in self.stretches if stretch.first < step] or [self.stretches[0]]
    weights = np.array([max(min(step, s.end) - s.first, 1) * s.rows_per_step for s in begun], np.float64)
    return weights @ np.array([s.mixture.shares for s in begun]) / weights.sum()

  def planned_epochs(self) -> np.ndarray:
    """The epochs of each language in each phase, float64[phases, G]."""
    edges = [0, *(phase.until for phase in self.phases)]
    return np.diff([self.rows(edge) for edge in edges], axis=0) / self.stored.counts


_FEW_LANGUAGES = 16  # whose epochs are all printed, and not only written to a file


# --- what is said before the run begins ----------------------------------------------------------------------------


def _spread(names: Sequence[str], epochs: np.ndarray) -> list[str]:
  """The fewest, median and most epochs of the named languages, as columns of text."""
  least, most = int(epochs.argmin()), int(epochs.argmax())
  return [f"{epochs[least]:.3g} {names[least]}", f"{np.median(epochs):.3g}", f"{epochs[most]:.3g} {names[most]}"]


def describe(timeline: Timeline, table: str = "") -> list[str]:
  """Aligned lines: what each phase reads, and the epochs of its languages. table: where the whole table is."""
  names, planned = timeline.stored.languages, timeline.planned_epochs()
  lines = [["steps", "rows x tokens", "alpha", "masked", "languages", "fewest epochs", "median", "most epochs"]]
  begin = 0
  for phase, epochs in zip(timeline.phases, planned):
    chosen = np.isin(names, phase.languages)
    lines.append([
      f"{begin:,}-{phase.until:,}", f"{phase.batch_rows:,} x {phase.seq_len}", f"{phase.alpha:g}", f"{phase.mask_share:.3g}",
      str(chosen.sum()), *_spread(phase.languages, epochs[chosen]),
    ])  # fmt: skip
    begin = phase.until
  if len(timeline.phases) > 1:
    lines.append(["all", "", "", "", str(len(names)), *_spread(names, planned.sum(axis=0))])
  rows = _aligned(lines)
  if len(names) <= _FEW_LANGUAGES:
    phases = [f"phase {number}" for number in range(1, len(planned) + 1)]
    by_language = np.vstack([planned, planned.sum(axis=0)]) if len(planned) > 1 else planned
    heads = ["epochs of", *(phases if len(planned) > 1 else []), "all"]
    rows += _aligned([heads, *([name, *(f"{x:.3g}" for x in by_language[:, i])] for i, name in enumerate(names))])
  return [f"planned epochs{f' (each language: {table})' if table else ''}:", *(f"  {row}" for row in rows)]


def _aligned(lines: list[list[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*lines)]
  return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]


def table(timeline: Timeline) -> str:
  """Tab-separated: a line per language with its rows, its epochs in each phase, and in all."""
  planned, counts = timeline.planned_epochs(), timeline.stored.counts
  begins = [0, *(phase.until for phase in timeline.phases)]
  heads = [f"steps_{begin}_{phase.until}" for begin, phase in zip(begins, timeline.phases)]
  lines = [["language", "rows", *heads, "all"]]
  for i, name in enumerate(timeline.stored.languages):
    lines.append([name, str(counts[i]), *(f"{x:.4f}" for x in planned[:, i]), f"{planned[:, i].sum():.4f}"])
  return "".join("\t".join(line) + "\n" for line in lines)
