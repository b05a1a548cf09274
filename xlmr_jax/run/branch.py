"""A run that goes on from a checkpoint of another one, which it leaves as it is: RUN@STEP, and what of it is copied."""

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xlmr_jax.data.phases import Phase, Rows, continued, cut, phases_of
from xlmr_jax.data.phases import refuse_other_past as refuse_change
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import AnyPath, absolute, any_path, flatten, read_json, read_sealed_json, write_sealed_json
from xlmr_jax.folders import copy_folder, remove_folder
from xlmr_jax.given_paths import path_given
from xlmr_jax.run import logs
from xlmr_jax.run.checkpoint_folder import sound_steps, warn
from xlmr_jax.run.growing import open_growing, read_growing
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.run.manifest import MANIFEST, DamagedError, describe_leaves, read_manifest, refuse_other_leaves, verify
from xlmr_jax.run.past import (
  Branch,
  branch_of,
  measures_alike,
  phases_in,
  refuse_before_recovery,
  refuse_begun_decay,
  refuse_moved_decay,
  settled_by_recoveries,
)
from xlmr_jax.run.retention import NOT_WRITTEN, pin
from xlmr_jax.run.workdir import MODEL_RULES, MODEL_SIZES, RunRecord, Workdir, read_record, step_of


def own_held_out(workdir: Workdir) -> list[dict]:
  """The lines of a run's held_out.jsonl from the step on at which it branched off, if it did.

  What the other run did before says nothing about what this one changes. The line of that step itself may be the other
  run's, unless the two measure otherwise: then the log is cut before it (preparation.open_log).
  """
  branch = branch_of(read_record(workdir)) if workdir.record.exists() else None
  return [line for line in logs.read_held_out(workdir) if line["step"] >= (branch.step if branch else 0)]


def parse(text: str) -> tuple[AnyPath, int | None]:
  """(folder, step) of --branch=RUN[@STEP]; step None for the newest. UserError: the path is of a kind that is not read."""
  head, at, tail = text.rpartition("@")
  step = step_of(tail) if at else None
  return path_given(head if step is not None else text, "--branch="), step


def begin(text: str, record: RunRecord, rows: Rows) -> Branch:
  """The branch that --branch=RUN[@STEP] asks for, checked against this run's record.

  Raises UserError: there is no such run or checkpoint, or this run differs in what it must share: the rows, the languages,
  the vocabulary, and the seed, which the order of the rows follows from.
  """
  root, step = parse(text)
  source = Workdir(root)
  other = read_record(source)
  for key, what in (("rows_fingerprint", "rows"), ("tokenizer_sha256", "vocabulary")):
    if getattr(other, key) != getattr(record, key):
      raise UserError(
        f"--branch={text}: that run has other {what} than this config gives; a branch reads the same rows on: set "
        "config.data.rows as there"
      )
  if other.languages != record.languages:
    phases = '--config.phases="until=100%,'
    raise UserError(f"--branch={text}: {_other_languages(other, record.config, record.languages, phases)}")
  for key, a, b in (("seed", other.config["seed"], record.config["seed"]),
                    ("data.row_shares", *(run.config["data"]["row_shares"] for run in (other, record)))):  # fmt: skip
    if a != b:
      raise UserError(f"--branch={text}: config.{key}={b!r}, but {a!r} there; the order of the rows follows from it")
  for key in (*MODEL_SIZES, *MODEL_RULES):
    if (ours := record.config["model"][key]) != (theirs := other.config["model"][key]):
      raise UserError(
        f"--branch={text}: config.model.{key}={ours}, but {theirs} there; a branch goes on with the same model"
      )
  names, others = (tuple(run.config["model"]["languages"]) for run in (record, other))
  if names != others:
    raise UserError(
      f"--branch={text}: config.model.languages={','.join(names)}, but {','.join(others)} there; the rows of the language "
      "embeddings are in their order"
    )
  steps = sound_steps(source.checkpoints)
  step = max(steps, default=None) if step is None else step
  if step is None or step not in steps:
    has = f"it has those of steps {', '.join(map(str, sorted(steps)))}" if steps else "it has none"
    raise UserError(f"--branch={text}: {source.checkpoints} has no sound checkpoint {'' if step is None else step}; {has}")
  if step >= record.config["train_steps"]:
    raise UserError(
      f"--branch={text}: it begins at step {step}, but config.train_steps={record.config['train_steps']}, which counts the "
      "steps of that run too"
    )
  old, new = (flatten(json.loads(json.dumps(run.config))) for run in (other, record))  # tuples as lists
  for key in sorted(key for key in {*old, *new} if old.get(key) != new.get(key)):
    print(f"branching off with config.{key}={new.get(key)!r} (there {old.get(key)!r})", flush=True)
  whole = phases_in(other, rows)
  past = cut(whole, step)
  own = continued(past, phases_of(record.config, rows))
  refuse_begun_decay(f"--branch={text}", other.config, whole, record.config, own, step)
  if (settled := settled_by_recoveries(source, step, _recoveries_in(source, step))) > step:
    refuse_before_recovery(f"--branch={text}", whole, own, step, settled)
  theirs = branch_of(other)  # Its checkpoint may be the copy of another run's, with losses of that one in its notes.
  has_foreign_losses = theirs is not None and theirs.step == step and theirs.measures_anew
  measures_anew = has_foreign_losses or not measures_alike(other.config, record.config)
  if measures_anew:
    print("its held-out losses do not compare with those of that run, because it measures them otherwise", flush=True)
  return Branch(str(absolute(root)), step, past, measures_anew)


def _recoveries_in(workdir: Workdir, step: int) -> int:
  """How many recoveries a checkpoint was made after. UserError: its notes cannot be read."""
  path = workdir.checkpoints / str(step) / "notes" / "metadata"
  try:
    return int(read_json(path).get("recoveries", 0))
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path} cannot be read ({one_line(error)}); name another step with --branch=RUN@STEP") from None


def _other_languages(before: RunRecord, config: Mapping[str, Any], languages: Sequence[str], phases: str) -> str:
  """Why the languages of a run and those of a config for the same rows differ, and what to do.

  phases: the flags that change what the run reads from here on, up to the keys of the phase and the closing quote.
  """
  theirs, ours = before.config["data"], config["data"]
  then, now = theirs["parallel_share"], ours["parallel_share"]
  order = "the order of the rows follows from all languages of a run"
  if list(theirs["languages"]) != list(ours["languages"]):
    read, wanted = (",".join(data["languages"]) or "all" for data in (theirs, ours))
    return (
      f"config.data.languages={wanted}, but {read} there, and {order}: set it as there, and leave languages out by "
      f'{phases}languages=NAMES"'
    )
  if new := [name for name in languages if name not in before.languages]:
    return (
      f"config.data.parallel_share={now:g}, with config.phases, reads {_few(new)}, which that run, with {then:g}, does not, "
      f"and {order}, so that none can join it: set both keys as there, or begin a new run"
    )
  gone = [name for name in before.languages if name not in languages]
  return (
    f"config.data.parallel_share={now:g} leaves out {_few(gone)}, which that run, with {then:g}, reads, and {order}: set "
    f'config.data.parallel_share={then if 0 < then < 1 else 0.5:g}, and {phases}parallel_share={now:g}"'
  )


def _few(names: Sequence[str]) -> str:
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def choose(text: str, workdir: Workdir, record: RunRecord, rows: Rows) -> Branch | None:
  """The branch that a run is: the one that its workdir tells, or a new one by --branch=RUN[@STEP]; None for neither.

  text: of the flag, "" without it. record: of this start. Raises UserError: as begin() does, or the workdir holds another
  run.
  """
  before = read_record(workdir) if workdir.record.exists() else None
  if before is None:
    return begin(text, record, rows) if text else None
  known = branch_of(before)
  if not text:
    return known
  root, step = parse(text)
  if known is None or known.run != str(absolute(root)) or step not in (None, known.step):
    is_what = f"branched off from {known.run}@{known.step}" if known else "did not branch off"
    raise UserError(f"--branch={text}: {workdir} holds a run that {is_what}; use a new workdir, or leave --branch out")
  return known


def refuse_other_model(branch: Branch, abstract_state: Any) -> None:
  """UserError if the parameters or moments of the checkpoint have other shapes than the run that is to go on from it."""
  directory = Workdir(any_path(branch.run)).checkpoints
  try:
    leaves = read_manifest(directory / str(branch.step))["leaves"]
  except DamagedError as error:
    raise UserError(f"{directory / str(branch.step)} cannot be branched off from: {error}") from None
  refuse_other_leaves(directory, branch.step, leaves, describe_leaves(abstract_state))


def _newest(workdir: Workdir, before: RunRecord) -> int:
  """The step that a recorded run goes on from; one that has lost its checkpoints copies that of its branch again."""
  branch = branch_of(before)
  return max(sound_steps(workdir.checkpoints), default=branch.step if branch else 0)


def refuse_other_languages(workdir: Workdir, record: RunRecord) -> None:
  """UserError if a continued run has a checkpoint and would read other languages, or no pairs: --allow_change lets both by.

  record: of this start, for the same rows.
  """
  if not workdir.record.exists():
    return
  before = read_record(workdir)
  if (newest := _newest(workdir, before)) and before.languages and before.languages != record.languages:
    past = f"{'...;' if before.config['phases'] else ''}until={newest};"
    phases = f'--allow_change=phases --config.phases="{past}until=100%,'
    raise UserError(f"{workdir}: {_other_languages(before, record.config, record.languages, phases)}")


# Keys that decide which rows a step reads, and the same of a phase.
_ORDERED_BY = (("batch_rows", "batch_rows"), ("data.alpha", "alpha"), ("data.parallel_share", "parallel_share"))


def refuse_other_order(workdir: Workdir, record: RunRecord, rows: Rows) -> None:
  """UserError if a continued run without phases would read rows a second time, or leave some out, with another batch, say.

  What a step reads follows from its number and these keys, which hold for all steps; phases change them from a step on.
  With phases refuse_other_past() finds it. record: of this start, not yet checked against the one before.
  """
  if not workdir.record.exists():
    return
  before = read_record(workdir)
  newest = _newest(workdir, before)
  if not 0 < newest < record.config["train_steps"]:
    return  # Nothing has been made, or nothing is left to be made.
  if (before.rows_fingerprint, before.languages) != (record.rows_fingerprint, record.languages):
    return  # Others say what is wrong.
  was, now = (flatten(run.config) for run in (before, record))
  if was["data.row_shares"] != now["data.row_shares"]:
    raise UserError(
      f"{workdir}: config.data.row_shares={now['data.row_shares']!r}, but the {newest} steps so far were made with "
      f"{was['data.row_shares']!r}, and the order of all rows follows from it: set it as before, or use a new workdir"
    )
  if before.config["phases"] or before.branch or record.config["phases"]:
    return
  (old,), (new,) = (phases_of(run.config, rows) for run in (before, record))
  changed = [(key, name) for key, name in _ORDERED_BY if getattr(old, name) != getattr(new, name)]
  if not changed:
    return
  text = ", ".join(f"config.{key}={getattr(new, name)!r}, until now {getattr(old, name)!r}" for key, name in changed)
  past = ",".join(f"{name}={getattr(old, name)!r}" for _, name in changed)
  settled, flags = settled_by_recoveries(workdir, newest), ",".join([*(key for key, _ in changed), "phases"])
  instead = "set it as before, or use a new workdir"
  if settled < record.config["train_steps"]:
    phases = f'--config.phases="until={settled},{past};until=100%"'
    instead += f", or let the change begin at step {settled}: add --allow_change={flags} {phases}"
  raise UserError(
    f"{workdir}: {text}: {newest} steps have been made, and what a step reads follows from its number, so that rows would "
    f"come a second time in an epoch or be left out; {instead}"
  )


def refuse_other_past(workdir: Workdir, now: Sequence[Phase], rows: Rows, config: Mapping[str, Any]) -> None:
  """UserError if a continued run would change what the steps before its newest checkpoint read, or their learning rate.

  Where there are phases neither then nor now, refuse_other_order() says what may not change.
  now: all phases of this start, and config: its config.
  """
  if not workdir.record.exists():
    return
  before = read_record(workdir)
  if before.is_untrained_import:
    return
  old, newest = phases_in(before, rows), _newest(workdir, before)
  if before.config["phases"] or before.branch or config["phases"]:
    refuse_change(old, now, newest)
    refuse_before_recovery(str(workdir), old, now, newest, settled_by_recoveries(workdir, newest))
  refuse_moved_decay(workdir, before.config, old, config, now, newest)


class Past(NamedTuple):
  """What a start goes on from."""

  config: dict[str, Any]  # by which the steps so far were made
  phases: tuple[Phase, ...]  # all of that run, also those to come
  newest: int  # the step that it goes on from
  where: str  # for messages


def past_of(workdir: Workdir, branch: Branch | None, rows: Rows) -> Past | None:
  """What a start goes on from, before its own record is written: the run in the workdir, or the one that it branches off.

  None: it begins at step 0.
  """
  steps = sound_steps(workdir.checkpoints) or ([branch.step] if branch else [])
  source = workdir if workdir.record.exists() else Workdir(any_path(branch.run)) if branch else None
  if not steps or source is None:
    return None
  before = read_record(source)
  return Past(before.config, phases_in(before, rows), max(steps), "as it was" if source is workdir else "there")


@contextlib.contextmanager
def _pinned(source: Workdir, step: int) -> Iterator[None]:
  """Pins the checkpoint. A folder that may only be read is read without, which a run that is going on may disturb."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(pin(source, step, f"branch{uuid.uuid4().hex}"))
    except NOT_WRITTEN as error:
      warn(f"checkpoint {step} of {source} cannot be pinned ({one_line(error)}); it is read all the same")
    yield


def copy(branch: Branch, workdir: Workdir) -> None:
  """Copies the checkpoint, the logs and the recoveries of the other run up to the branch; does nothing once that is done.

  The checkpoint's manifest is copied last, and is compared with what was copied. So a copy that was killed is made again.
  Raises UserError: the checkpoint has gone or is damaged.
  """
  source, target = Workdir(any_path(branch.run)), workdir.checkpoints / str(branch.step)
  if sound_steps(workdir.checkpoints):
    return
  there = source.checkpoints / str(branch.step)
  remove_folder(target)
  with _pinned(source, branch.step):
    try:
      notes = read_json(there / "notes" / "metadata")
      _copy_recoveries(source, workdir, int(notes.get("recoveries", 0)))
      for ours, theirs in ((workdir.train_log, source.train_log), (workdir.held_out_log, source.held_out_log),
                           (workdir.timing_log, source.timing_log), (workdir.alarms_log, source.alarms_log)):  # fmt: skip
        log = open_growing(ours, b"")
        log.append(read_growing(theirs))  # What is later than the branch is cut off when the run opens its logs.
        log.close()
      if source.initial.exists():  # of an imported model: what it brought is needed for fine-tuning and the export
        remove_folder(workdir.initial)
        copy_folder(source.initial, workdir.initial, last=MANIFEST)
      with heartbeat(f"copying checkpoint {branch.step} of {source}"):
        copy_folder(there, target, last=MANIFEST)
        verify(target)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:  # DamagedError is a ValueError.
      remove_folder(target)
      raise UserError(
        f"{there} cannot be branched off from: {one_line(error)}; name another step with --branch={branch.run}@STEP and a "
        "new workdir"
      ) from None


def _copy_recoveries(source: Workdir, workdir: Workdir, count: int) -> None:
  """Those that had been made before the checkpoint: the batches that its steps read depend on them."""
  if count:
    entries = read_sealed_json(source.recoveries)["recoveries"][:count]
    write_sealed_json(workdir.recoveries, {"recoveries": entries})
