"""A run that goes on from a checkpoint of another one, which it leaves as it is: RUN@STEP, and what of it is copied."""

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xlmr_jax.data.phases import Phase, Rows, continued, cut, decay_begin, phases_of
from xlmr_jax.data.phases import refuse_other_past as refuse_change
from xlmr_jax.errors import StoreError, UserError, one_line
from xlmr_jax.files import AnyPath, absolute, any_path, flatten, read_json, read_sealed_json, write_sealed_json
from xlmr_jax.folders import copy_folder, remove_folder
from xlmr_jax.given_paths import path_given
from xlmr_jax.run import logs
from xlmr_jax.run.checkpoint_folder import sound_steps, warn
from xlmr_jax.run.growing import open_growing, read_growing
from xlmr_jax.run.heartbeat import heartbeat
from xlmr_jax.run.manifest import MANIFEST, DamagedError, describe_leaves, read_manifest, refuse_other_leaves, verify
from xlmr_jax.run.retention import pin
from xlmr_jax.run.workdir import MODEL_RULES, MODEL_SIZES, RunRecord, Workdir, read_record, step_of


class Branch(NamedTuple):
  """Where a run comes from; "branch" in its record."""

  run: str  # the folder of the other run, absolute
  step: int  # the checkpoint
  phases: tuple[Phase, ...]  # what the other run's steps before it read

  def to_json(self) -> dict[str, Any]:
    """For config.json."""
    return {"run": self.run, "step": self.step, "phases": [dataclasses.asdict(phase) for phase in self.phases]}


def branch_of(record: RunRecord) -> Branch | None:
  """The branch that a record tells. UserError: it is damaged."""
  if record.branch is None:
    return None
  try:
    value = record.branch
    phases = tuple(Phase(**{**phase, "languages": tuple(phase["languages"])}) for phase in value["phases"])
    return Branch(str(value["run"]), int(value["step"]), phases)
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f"the record of the run says where it branched off, but not so that it can be read ({error})") from None


def own_held_out(workdir: Workdir) -> list[dict]:
  """The lines of a run's held_out.jsonl from the step on at which it branched off, if it did.

  What the other run did before says nothing about what this one changes.
  """
  branch = branch_of(read_record(workdir)) if workdir.record.exists() else None
  return [line for line in logs.read_held_out(workdir) if line["step"] >= (branch.step if branch else 0)]


def phases_in(record: RunRecord, rows: Rows) -> tuple[Phase, ...]:
  """What the steps of a recorded run read, from step 0 on, also where it branched off."""
  branch = branch_of(record)
  return continued(branch.phases if branch else (), phases_of(record.config, rows))


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
  theirs, ours = (_decay(run.config, phases) for run, phases in ((other, whole), (record, own)))
  if ours != theirs and _is_last_phase(record.config) and ours and ours[0] < step:
    raise UserError(
      f"--branch={text}: config.optimizer.decay_steps=-1 is the last phase, which begins at step {ours[0]}, and the rate "
      f"would jump at step {step}; "
      + (
        f"the rate of that run falls from step {theirs[0]} to {theirs[1]}: branch off a checkpoint before that, or set "
        f"decay_steps and train_steps as there"
        if theirs and theirs[0] < step
        else f"set it to {record.config['train_steps'] - step}, or let a phase that reads otherwise begin there"
      )
    )
  if (settled := settled_by_recoveries(source, step, _recoveries_in(source, step))) > step:
    _refuse_before_recovery(f"--branch={text}", whole, own, step, settled)
  return Branch(str(absolute(root)), step, past)


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


def refuse_other_languages(workdir: Workdir, record: RunRecord) -> None:
  """UserError if a continued run has a checkpoint and would read other languages, or no pairs: --allow_change lets both by.

  record: of this start, for the same rows.
  """
  if not workdir.record.exists():
    return
  before, newest = read_record(workdir), max(sound_steps(workdir.checkpoints), default=0)
  if newest and before.languages and before.languages != record.languages:
    past = f"{'...;' if before.config['phases'] else ''}until={newest};"
    phases = f'--allow_change=phases --config.phases="{past}until=100%,'
    raise UserError(f"{workdir}: {_other_languages(before, record.config, record.languages, phases)}")


def refuse_other_past(workdir: Workdir, now: Sequence[Phase], rows: Rows, config: Mapping[str, Any]) -> None:
  """UserError if a continued run would change what the steps before its newest checkpoint read, or their learning rate.

  Where there are phases neither then nor now, nothing is refused: --allow_change may change data.alpha for all steps.
  now: all phases of this start, and config: its config.
  """
  if not workdir.record.exists():
    return
  before = read_record(workdir)
  if before.is_untrained_import or not (before.config["phases"] or before.branch or config["phases"]):
    return
  old, newest = phases_in(before, rows), max(sound_steps(workdir.checkpoints), default=0)
  refuse_change(old, now, newest)
  _refuse_before_recovery(str(workdir), old, now, newest, settled_by_recoveries(workdir, newest))
  was, decay = _decay(before.config, old), _decay(config, now)
  if was != decay and _is_last_phase(config) and decay and min(decay[0], was[0] if was else decay[0]) < newest:
    instead = f"from step {was[0]} to {was[1]}" if was else "not at all"
    raise UserError(
      f"{workdir}: with config.optimizer.decay_steps=-1 the rate would decay from step {decay[0]} to {decay[1]} instead of "
      f"{instead}, and {newest} steps have been made; set it to the steps that the decay shall have, or branch off into a "
      "new workdir"
    )


def _is_last_phase(config: Mapping[str, Any]) -> bool:
  """Whether the rate decays in the last phase, wherever that lies."""
  return (config["optimizer"]["schedule"], config["optimizer"]["decay_steps"]) == ("wsd", -1)


def _decay(config: Mapping[str, Any], whole: Sequence[Phase]) -> tuple[int, int] | None:
  """[first step, end) of a run's decay by wsd; None where it has none. whole: all phases of the run."""
  rate, end = config["optimizer"], config["train_steps"]
  if rate["schedule"] != "wsd" or not rate["decay_steps"]:
    return None
  return (decay_begin(whole, rate["warmup_steps"]) if rate["decay_steps"] == -1 else end - rate["decay_steps"]), end


def settled_by_recoveries(workdir: Workdir, step: int, count: int | None = None) -> int:
  """The step before which phases may not change at `step`: a recovery reads on from behind its bad steps.

  count: of the recoveries that are in the checkpoint; None for all that the run had from before it.
  """
  try:
    entries = read_sealed_json(workdir.recoveries)["recoveries"][:count]
    return max([step, *(int(entry["steps"][1]) for entry in entries if int(entry["at"]) <= step)])
  except FileNotFoundError:
    return step
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{workdir.recoveries} cannot be read ({one_line(error)}); restore it, or use a new workdir") from None


def _refuse_before_recovery(where: str, old: Sequence[Phase], new: Sequence[Phase], step: int, settled: int) -> None:
  try:
    refuse_change(old, new, settled)
  except UserError:
    raise UserError(
      f"{where}: the run went back before step {step} and reads on from behind step {settled}, up to which its old phases "
      f"say what was left out; let a new phase begin at step {settled} or later"
    ) from None


@contextlib.contextmanager
def _pinned(source: Workdir, step: int) -> Iterator[None]:
  """Pins the checkpoint. A folder that may only be read is read without, which a run that is going on may disturb."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(pin(source, step, f"branch{uuid.uuid4().hex}"))
    except (OSError, StoreError) as error:
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
