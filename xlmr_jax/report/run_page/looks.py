"""How languages look in the charts of a run's page: which have a colour, and where phases begin."""

import numpy as np

from xlmr_jax.report.page.charts import Axis, Line, Mark, thin_out
from xlmr_jax.report.page.words import name_with_code
from xlmr_jax.report.run_page.numbers import Run

UPDATES = Axis("updates")
NATS = "nats per masked token"
ALL_IN_COLOUR = 7  # languages; of more, three have a colour and the others are thin
_MOST_EDGES = 6  # of phases; more would hide the lines


def looks_of(run: Run) -> dict[str, int]:
  """{language: its look in the charts}: the largest, one in the middle and the smallest, where there are many."""
  names = run.by_size
  chosen = names if len(names) <= ALL_IN_COLOUR else [names[0], names[len(names) // 2], names[-1]]
  return {name: number for number, name in enumerate(chosen, 1)}


def phase_marks(run: Run) -> list[Mark]:
  """Marks where a phase begins."""
  edges = run.phase_edges
  return [Mark(step, f"phase {number}") for step, number in edges] if len(edges) <= _MOST_EDGES else []


def lines_of_languages(run: Run, names: tuple[str, ...], steps: np.ndarray, values: np.ndarray) -> list[Line]:
  """A line per language. values: float[N, G]."""
  looks = looks_of(run)
  x, means, _, _ = thin_out(steps, values)
  return [
    Line(name_with_code(name), x, means[:, number].astype(np.float64), looks.get(name, -1), key=name)
    for number, name in enumerate(names)
  ]


def colours_in_words(run: Run) -> str:
  if len(run.by_size) <= ALL_IN_COLOUR:
    return ""
  return (
    "The largest language, one of middle size and the smallest have a colour; any other can be followed by the list above."
  )
