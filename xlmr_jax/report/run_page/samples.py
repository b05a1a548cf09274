"""Samples of gaps filled: one word of held-out text per language is hidden, and the newest checkpoint fills it."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import write_json
from xlmr_jax.ids import FIRST_PIECE, MASK
from xlmr_jax.open_model import Model, open_model
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.workdir import Workdir, read_record

PIECES = 40  # of a sample, at most
_ROWS = 4  # of a language that are tried, until one has a gap
_BATCH = 16  # texts that are filled at a time


def fill_gaps(workdir: Workdir, seed: int = 0) -> dict[str, Any]:
  """{"step", "samples": [{"language", "before", "after", "truth", "guesses": [[piece, probability], ...]}]}.

  They are kept in the workdir and computed again only when there is a newer checkpoint. Raises UserError, which says why
  there are none: no checkpoint, or the rows are not where the run read them, or other rows are.
  """
  steps = sound_steps(workdir.checkpoints)
  if not steps:
    raise UserError(f"{workdir.checkpoints} holds no finished checkpoint")
  record = read_record(workdir)
  store = RowStore(record.rows or "", languages=record.languages or None)
  if store.fingerprint != record.rows_fingerprint:  # Its held-out text may be what the model was trained on.
    raise UserError(
      f"{store.root}: other rows (fingerprint {store.fingerprint[:12]}) than {workdir} was trained on "
      f"({str(record.rows_fingerprint)[:12]}); put those back to have gaps filled"
    )
  model = open_model(workdir.root, str(steps[0]))
  # The rows of parallel sentences are no running text, and their words are those of other languages.
  single = [number for number, name in enumerate(store.languages) if name not in store.pairs]
  gaps = [gap for number in single if (gap := _gap(store, number, model.tokenizer, seed))]
  value = {"step": steps[0], "samples": _filled(model, gaps)}
  write_json(workdir.filled_gaps, value)
  return value


def is_current(workdir: Workdir, filled: dict[str, Any]) -> bool:
  """Whether samples are those of the newest checkpoint, or there is none any more to make better ones."""
  steps = sound_steps(workdir.checkpoints)
  return bool(filled) and (not steps or filled.get("step") == steps[0])


def _gap(store: RowStore, number: int, tokenizer: Tokenizer, seed: int) -> dict[str, Any] | None:
  """A piece of held-out text of a language with one word that is hidden; None where no row has one."""
  rows = min(int(store.counts("held_out")[number]), _ROWS)
  ids = store.read("held_out", np.full(rows, number), np.arange(rows))
  rng = random.Random(f"{seed} {store.languages[number]}")
  for row in ids:
    pieces = [int(id) for id in row if id >= FIRST_PIECE][:PIECES]
    names = [tokenizer.piece(id) for id in pieces]
    words = [index for index in range(2, len(pieces) - 2) if any(map(str.isalpha, names[index].lstrip("▁")))]
    # A word of one piece is read best: it begins with a space, and so does what follows. Many scripts have no spaces.
    whole = [index for index in words if names[index].startswith("▁") and names[index + 1].startswith("▁")]
    if not words:
      continue
    hidden = rng.choice(whole or words)
    before, after = tokenizer.decode(pieces[:hidden]), tokenizer.decode(pieces[hidden + 1 :])
    if MASK in before or MASK in after:
      continue
    spaces = [" " if names[index].startswith("▁") else "" for index in (hidden, hidden + 1)]
    return {"language": store.languages[number], "before": before + spaces[0], "after": spaces[1] + after,
            "truth": names[hidden].replace("▁", " ").strip()}  # fmt: skip
  return None


def _filled(model: Model, gaps: list[dict[str, Any]]) -> list[dict[str, Any]]:
  found = []
  for part in _batches(gaps, model.needs_language):
    texts, language = [f"{gap['before']}{MASK}{gap['after']}" for gap in part], part[0]["language"]
    for gap, masks in zip(part, model.fill(texts, top=3, language=language if model.needs_language else "")):
      guesses = [[piece.replace("▁", " ").strip() or piece, round(share, 4)] for piece, share in masks[0]]
      found.append(gap | {"guesses": guesses})
  return found


def _batches(gaps: list[dict[str, Any]], one_language: bool) -> Iterator[list[dict[str, Any]]]:
  """The gaps in parts of at most _BATCH. one_language: each part is in one language, as the model must be told it."""
  size = 1 if one_language else _BATCH  # There is one gap per language.
  for start in range(0, len(gaps), size):
    yield gaps[start : start + size]
