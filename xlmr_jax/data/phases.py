"""config.phases: the alpha, languages, mask share, row length and batch of which steps; timeline.py says what these read."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.errors import UserError

KEYS = ("until", "alpha", "languages", "mask_share", "seq_len", "batch_rows", "parallel_share")
_SHORTEST = 8  # tokens of a row
_EXAMPLE = '("until=60%,alpha=0.7", "until=100%,alpha=0.3")'


@dataclasses.dataclass(frozen=True)
class Phase:
  """What the steps before `until`, and from the end of the phase before on, read."""

  until: int
  alpha: float
  languages: tuple[str, ...]  # in the order of the run's
  mask_share: float
  seq_len: int  # tokens of a row, as the model sees it
  batch_rows: int  # rows of seq_len tokens
  parallel_share: float = 0.0  # of the rows read, those of parallel sentences; 0 where the languages have none

  def reads_like(self, other: "Phase") -> bool:
    """Whether the two differ in nothing but when they end."""
    return dataclasses.replace(self, until=other.until) == other


# --- from the config's text ----------------------------------------------------------------------------------------


def parse(texts: Iterable[str]) -> list[dict[str, str]]:
  """The KEY=VALUE pairs of each phase. Raises UserError: a pair is none, or a phase does not begin with until=.

  texts: of config.phases. A flag's text arrives cut at each comma, so that "until=" and not the cut begins a phase.
  """
  phases: list[dict[str, str]] = []
  for text in (part for item in texts for part in str(item).split(";")):
    for i, pair in enumerate(filter(None, re.split(r"[\s,]+", text))):
      key, _, value = pair.partition("=")
      if key not in KEYS or not value:
        raise UserError(f"config.phases: {pair!r} is no KEY=VALUE of a phase; the keys are {', '.join(KEYS)}")
      if key == "until" and i == 0:
        phases.append({})
      elif key == "until" or not phases:
        raise UserError(f"config.phases: {text!r} does not begin with until=; write each phase as in {_EXAMPLE}")
      if key in phases[-1]:
        raise UserError(f"config.phases: phase {len(phases)} has two {key}=; each phase begins with until=")
      phases[-1][key] = value
  return phases


def canonical(texts: Iterable[str]) -> tuple[str, ...]:
  """config.phases with one text per phase, however it was written."""
  return tuple(",".join(f"{key}={value}" for key, value in pairs.items()) for pairs in parse(texts))


def _number(pairs: Mapping[str, str], key: str, default: Any) -> Any:
  try:
    return type(default)(pairs.get(key, default))
  except ValueError:
    raise UserError(f"{key}={pairs[key]} is no {'whole ' if isinstance(default, int) else ''}number") from None


def _until(text: str, train_steps: int) -> int:
  if text == "end":
    return train_steps
  try:
    return round(train_steps * float(text[:-1]) / 100) if text.endswith("%") else int(text)
  except (ValueError, OverflowError):
    raise UserError(f"until={text} is neither a step, nor a share of the steps such as 60%, nor end") from None


class Rows(NamedTuple):
  """What phases must know of the rows: the run's languages, the train rows of each, int64[G], and the tokens of a row.

  parallel: those of the languages whose rows are pairs of parallel sentences, with the languages of the two sides, spelt as
  in `languages` where they are there.
  """

  languages: tuple[str, ...]
  counts: np.ndarray
  seq_len: int
  parallel: Mapping[str, tuple[str, str]] = MappingProxyType({})


def _languages(text: str, rows: Rows) -> tuple[str, ...]:
  """all, or names joined by +, or how many of the languages with the most rows.

  The pairs of parallel sentences between two of the languages come along, unless the names have pairs among them.
  """
  if text == "all":
    return tuple(rows.languages)
  if text.isdecimal():
    single = [name for name in rows.languages if name not in rows.parallel] or list(rows.languages)
    if not 1 <= int(text) <= len(single):
      raise UserError(f"languages={text}: the run has {len(single)} languages")
    count = dict(zip(rows.languages, map(int, rows.counts)))
    names = sorted(single, key=lambda name: (-count[name], name))[: int(text)]
  else:
    names = text.split("+")
  if unknown := [name for name in names if name not in rows.languages]:
    raise UserError(
      f"languages={text}: the run has no rows of {', '.join(map(repr, unknown))}; it has {', '.join(rows.languages)}"
    )
  if len(set(names)) < len(names):
    raise UserError(f"languages={text}: names a language twice")
  chosen = set(names)
  if chosen.isdisjoint(rows.parallel):
    chosen.update(pair for pair, sides in rows.parallel.items() if chosen.issuperset(sides))
  return tuple(name for name in rows.languages if name in chosen)


def _phase(pairs: Mapping[str, str], config: Any, rows: Rows | None) -> Phase:
  """One phase, with what its text leaves out as the config has it. rows: None for what can be said without them."""
  phase = Phase(
    until=_until(pairs.get("until", "end"), config["train_steps"]),
    alpha=_number(pairs, "alpha", float(config["data"]["alpha"])),
    languages=_languages(pairs.get("languages", "all"), rows) if rows else (),
    mask_share=_number(pairs, "mask_share", float(config["data"]["mask_share"])),
    seq_len=_number(pairs, "seq_len", rows.seq_len if rows else 512),
    batch_rows=_number(pairs, "batch_rows", int(config["batch_rows"])),
  )
  share = _number(pairs, "parallel_share", float(config["data"]["parallel_share"]))
  phase = _with_pairs(phase, share, rows, is_named="parallel_share" in pairs)
  if not 0.0 <= phase.alpha <= 1.0:
    raise UserError(f"alpha={phase.alpha:g} must lie in [0, 1]")
  if not 0.0 < phase.mask_share < 1.0:
    raise UserError(f"mask_share={phase.mask_share:g} must lie in (0, 1)")
  if phase.seq_len < (_SHORTEST if "seq_len" in pairs else 1) or phase.batch_rows < 1:
    raise UserError(f"seq_len={phase.seq_len} must be at least {_SHORTEST}, and batch_rows={phase.batch_rows} at least 1")
  if rows and phase.seq_len > rows.seq_len:
    raise UserError(
      f"seq_len={phase.seq_len}, but the rows have {rows.seq_len} tokens; a phase can cut rows and not join them: "
      f"build rows with `xlmr build_rows --seq_len={phase.seq_len}`"
    )
  if rows and phase.parallel_share and phase.seq_len < rows.seq_len:
    raise UserError(
      f"seq_len={phase.seq_len} cuts rows, and pairs of parallel sentences cannot be cut; leave them out of the phase with "
      "parallel_share=0"
    )
  if rows and rows.seq_len % phase.seq_len:
    raise UserError(f"seq_len={phase.seq_len} does not divide the {rows.seq_len} tokens of a row; use a divisor of it")
  if rows and phase.batch_rows % (rows.seq_len // phase.seq_len):
    raise UserError(
      f"batch_rows={phase.batch_rows} is no multiple of {rows.seq_len // phase.seq_len}, the rows of {phase.seq_len} "
      f"tokens that a row of {rows.seq_len} is cut into; they stay in one batch"
    )
  return phase


def _with_pairs(phase: Phase, share: float, rows: Rows | None, *, is_named: bool) -> Phase:
  """The phase with its share of pairs and, where that is 0 or 1, without the languages that it does not read.

  is_named: whether the phase's own text gives the share. rows: None keeps the share, whatever the rows are.
  """
  if not 0.0 <= share <= 1.0:
    raise UserError(f"parallel_share={share:g} must lie in [0, 1]")
  if rows is None:
    return dataclasses.replace(phase, parallel_share=share)
  parallel = set(phase.languages) & set(rows.parallel)
  if not parallel:
    if rows.parallel and (share == 1.0 or (is_named and share)):
      raise UserError(
        f"parallel_share={share:g}, but it reads no pairs of parallel sentences: its languages are "
        f"{', '.join(phase.languages)}, and the run has {', '.join(rows.parallel)}; add languages, or set parallel_share=0"
      )
    return phase
  if is_named and 0.0 < share < 1.0 and parallel == set(phase.languages):
    raise UserError(
      f"parallel_share={share:g}, but all of its languages are pairs of parallel sentences ({', '.join(phase.languages)}); "
      "add languages, or set parallel_share=1"
    )
  left = tuple(name for name in phase.languages if share not in (0.0, 1.0) or (name in parallel) == (share == 1.0))
  if not left:
    raise UserError("parallel_share=0, but all of its languages are pairs of parallel sentences")
  return dataclasses.replace(phase, languages=left, parallel_share=share)


def phases_of(config: Any, rows: Rows | None) -> tuple[Phase, ...]:
  """The phases of a run as its config has them; without config.phases it is one.

  config: "phases", "train_steps", "batch_rows" and "data" of it are read. rows: None checks what can be told without them.
  Raises UserError naming the phase and what is wrong with it.
  """
  texts, found = parse(config["phases"]) or [{}], []
  for number, pairs in enumerate(texts, 1):
    try:
      phase = _phase(pairs, config, rows)
      begin = found[-1].until if found else 0
      if phase.until <= begin:
        raise UserError(f"it ends at step {phase.until}, but begins at step {begin}; until must rise from phase to phase")
      if phase.until > config["train_steps"]:
        raise UserError(f"it ends at step {phase.until}, after config.train_steps={config['train_steps']}")
    except UserError as error:
      if not config["phases"]:
        raise
      text = ",".join(f"{key}={value}" for key, value in pairs.items())
      raise UserError(f"config.phases, phase {number} ({text}): {error}") from None
    found.append(phase)
  if found[-1].until != config["train_steps"]:
    raise UserError(
      f"config.phases: the last phase ends at step {found[-1].until} of config.train_steps={config['train_steps']}; "
      "end it with until=100%"
    )
  return tuple(found)


def row_lengths(config: Any, seq_len: int) -> list[tuple[int, int]]:
  """(the step before which it ends, tokens of its rows) of each phase of a config that was checked. seq_len: as stored."""
  texts = parse(config["phases"]) or [{}]
  return [(_until(pairs.get("until", "end"), config["train_steps"]), _number(pairs, "seq_len", seq_len)) for pairs in texts]


def merged(phases: Sequence[Phase]) -> tuple[Phase, ...]:
  """The phases, of which those beside each other that read alike become one."""
  kept: list[Phase] = []
  for phase in phases:
    if kept and phase.reads_like(kept[-1]):
      kept.pop()
    kept.append(phase)
  return tuple(kept)


def cut(phases: Sequence[Phase], step: int) -> tuple[Phase, ...]:
  """The phases of the steps before `step`."""
  begins = [0, *(phase.until for phase in phases)]
  return tuple(
    dataclasses.replace(phase, until=min(phase.until, step)) for begin, phase in zip(begins, phases) if begin < step
  )


def continued(past: Sequence[Phase], phases: Sequence[Phase]) -> tuple[Phase, ...]:
  """The phases of a run that goes on from the end of `past`, () for none, as `phases` say for the steps from there on."""
  step = past[-1].until if past else 0
  if merged(cut(phases, step)) == merged(past):
    return tuple(phases)
  return (*past, *(phase for phase in phases if phase.until > step))


def decay_begin(whole: Sequence[Phase], warmup_steps: int) -> int:
  """The step at which a decay as long as the last phase begins: config.optimizer.decay_steps=-1."""
  return max(whole[-2].until if len(whole) > 1 else 0, warmup_steps)


def refuse_other_past(before: Sequence[Phase], now: Sequence[Phase], step: int) -> None:
  """UserError if the two differ in what the steps before `step` read: those have been made."""
  old, new = merged(cut(before, step)), merged(cut(now, step))
  for number, (a, b) in enumerate(itertools.zip_longest(old, new), 1):
    if a != b:
      keys = [key for key in KEYS if a is None or b is None or getattr(a, key) != getattr(b, key)]
      shown = "; ".join(f"{key}: {_shown(a, key)} then, {_shown(b, key)} now" for key in keys)
      raise UserError(
        f"{step} steps have been made, and phase {number} of them would change ({shown}); what has been read cannot "
        f"change: let a new phase begin at step {step} or later, or branch off an earlier checkpoint into a new workdir"
      )


def _shown(phase: Phase | None, key: str) -> str:
  value = getattr(phase, key) if phase else None
  return f"{len(value)} languages" if isinstance(value, tuple) else str(value)
