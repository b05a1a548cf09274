"""A part of a store's training rows, so that data sizes can be compared without copies and on the same held-out rows."""

from typing import Any

import numpy as np

from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError


def kept_rows(rows: int, share: float) -> int:
  """How many of a language's training rows are left: at least one, because a language without rows cannot be sampled."""
  return min(max(round(rows * share), 1), rows)


class PartOfRows(RowStore):
  """A RowStore with fewer training rows of some languages. The rows that are left lie evenly over all of a language's."""

  def __init__(self, *args: Any, shares: dict[str, float], **options: Any):
    """shares: {language: share of its training rows, in (0, 1]}; "" for all languages that have none of their own.

    args, options: of RowStore. Raises UserError as RowStore does, or if a language is not in the store.
    """
    super().__init__(*args, **options)
    if unknown := sorted(set(shares) - {"", *self.languages}):
      raise UserError(f"config.data.row_shares: {', '.join(unknown)} not among the languages {', '.join(self.languages)}")
    self._all = super().counts("train")
    wanted = [shares.get(language, shares.get("", 1.0)) for language in self.languages]
    self._kept = np.array([kept_rows(int(rows), share) for rows, share in zip(self._all, wanted)], np.int64)

  def counts(self, split: str) -> np.ndarray:
    """As RowStore.counts, of the rows that are left."""
    kept = getattr(self, "_kept", None)  # RowStore's own checks of the files come first, and ask for all rows.
    return super().counts(split) if split != "train" or kept is None else kept.copy()

  def read(self, split: str, language: np.ndarray, row: np.ndarray) -> np.ndarray:
    """As RowStore.read; row: numbers of the rows that are left."""
    return super().read(split, language, self._row_of_all(split, np.asarray(language), np.asarray(row)))

  def files_of(self, split: str, language: np.ndarray, row: np.ndarray) -> list[str]:
    """As RowStore.files_of; row: numbers of the rows that are left."""
    return super().files_of(split, language, self._row_of_all(split, np.asarray(language), np.asarray(row)))

  def _row_of_all(self, split: str, language: np.ndarray, row: np.ndarray) -> np.ndarray:
    if split != "train":
      return row
    if np.any((row < 0) | (row >= self._kept[language])):
      raise IndexError("a row lies outside its language")
    return row.astype(np.int64) * self._all[language] // self._kept[language]
