"""Several hosts as one run: start-up, agreement before step 1, what one process says to all, and a common end.

Every function here is called on all processes, at the same place. A run of one process calls the same functions.
"""

import hashlib
import importlib.metadata
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # Orbax takes the client from there, too: JAX has no public name for it.
from jax.experimental import multihost_utils

from xlmr_jax.errors import EXIT_CRASH, EXIT_RESTART, EXIT_USER, RestartError, StoreError, UserError, one_line, report
from xlmr_jax.files import AnyPath, flatten
from xlmr_jax.run.peers import Peers, catch_abort
from xlmr_jax.run.signals import listener
from xlmr_jax.run.watchdog import leave

T = TypeVar("T")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-cpu", "array_record", "numpy")
SHOWN = 10  # A message names so many differences.

_peers: Peers | None = None
_exchanges = 0


def start(
  mode: str, coordinator: str, processes: int, process: int, *, join_s: float = 600.0, heartbeat_s: float = 60.0
) -> Peers | None:
  """Joins this process to the run. UserError when the flags do not say how, or no cluster is found.

  mode: "off"; "auto", where Cloud TPU, GKE or Slurm tells which processes take part; "explicit", where the other
  arguments do: coordinator "HOST:PORT" of process 0, how many processes there are, and which one this is.
  join_s: the process ends with 42 unless all have come by then. heartbeat_s: a process that was not heard of for so long
  counts as dead, and the others end with 42. Returns what reaches the other processes, None for a run of one.
  """
  if mode == "off":
    return None
  waiting = f"the others at {coordinator}" if mode == "explicit" else "the other processes"

  def on_abort() -> None:
    if _peers is not None:
      _peers.on_abort()
    leave(f"not all processes came within {join_s:g} s: this one waited for {waiting}, as the others that came say in their "
          f"own output; exit {EXIT_RESTART}")  # fmt: skip

  limits: Any = {"initialization_timeout": int(join_s), "heartbeat_timeout_seconds": int(heartbeat_s)}
  jax.config.update("jax_enable_preemption_service", False)  # preemption.py says why.
  if mode == "explicit":
    if not coordinator or processes < 1 or not 0 <= process < processes:
      raise UserError(
        f"--hosts=explicit needs --coordinator=HOST:PORT (is {coordinator!r}), --processes (is "
        f"{processes}) and --process in [0, processes) (is {process})"
      )
    print(f"process {process} of {processes} waits for {waiting}", flush=True)
    catch_abort(on_abort)
    jax.distributed.initialize(coordinator, processes, process, **limits)
  elif mode == "auto":
    print(f"this process looks for the others of its cluster, for at most {join_s:g} s", flush=True)
    catch_abort(on_abort)
    try:
      jax.distributed.initialize(**limits)
    except (ValueError, RuntimeError) as error:
      raise UserError(
        f"--hosts=auto found no cluster ({' '.join(str(error).split())}); use --hosts=off on one machine, or "
        "--hosts=explicit"
      ) from None
  else:
    raise UserError(f"--hosts={mode!r}: must be one of off, auto, explicit")
  return _meet()


def _meet() -> Peers | None:
  """The notes of the processes that have joined; None where one process is all."""
  global _peers
  state = distributed.global_state
  if state.client is not None and state.num_processes > 1:
    _peers = Peers(state.client, state.process_id, state.num_processes)
  return _peers


def end(code: int) -> int:
  """Waits until all processes are done, and returns code. From here on no signal changes how this process ends."""
  listener.close()
  if _peers is not None:
    _peers.end(code)
  return code


def fail(error: BaseException) -> None:
  """To be called where an error ends this process. In a run of several it reports the error, and does not return.

  The other processes learn of it and end within seconds, with 42, or with 1 if the user must act. If the error only says
  that another process is lost, this one ends with 42, too.
  """
  if _peers is None:
    return
  listener.close()
  code = report(error)
  is_doubtful = code in (EXIT_USER, EXIT_CRASH) and _comes_from_the_runtime(error)
  lost = _peers.lost(code) if is_doubtful else ""
  if lost:
    code = EXIT_USER if _peers.has_user_error() else EXIT_RESTART
    print(f"{lost}: the error above is the consequence, exit {code}", file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  _peers.fail(code, one_line(error)[:200], is_doubtful=is_doubtful)


def _comes_from_the_runtime(error: BaseException | None) -> bool:
  """Whether an error is one that JAX raises in a collective, a transfer or a barrier whose other end is gone."""
  while error is not None:
    if isinstance(error, jax.errors.JaxRuntimeError | TimeoutError) or "Gloo" in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False


def say(text: str) -> None:
  """Prints a line on process 0 only, at once."""
  if jax.process_index() == 0:
    print(text, flush=True)


def together(work: Callable[[], T]) -> T:
  """Returns work() on every process. Where it raises on one process, all processes raise.

  Otherwise the sound processes would wait for the failed one in the next collective. They raise a UserError that names it,
  or a RestartError where the failed one is to be started again.
  """
  value: Any = None
  error = None
  try:
    value = work()
  except Exception as problem:
    error = problem
  failed = np.zeros(1, np.int32)
  if jax.process_count() > 1:
    mine = 0 if error is None else EXIT_RESTART if isinstance(error, RestartError | StoreError) else EXIT_USER
    failed = np.ravel(multihost_utils.process_allgather(np.int32(mine)))
  if error is not None:
    raise error
  if failed.any():
    kind = UserError if (failed == EXIT_USER).any() else RestartError
    raise kind(f"process {int(np.flatnonzero(failed)[0])} failed; its own output says why")
  return value


def on_first(work: Callable[[], Any]) -> Any:
  """The value that work() returns on process 0, on every process. It passes through JSON, so a tuple arrives as a list."""
  text = together(lambda: json.dumps(work()) if jax.process_index() == 0 else "").encode()
  if jax.process_count() > 1:
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.frombuffer(text.ljust(length), np.uint8)  # The other processes have no text, but must give the same shape.
    text = np.asarray(multihost_utils.broadcast_one_to_all(buffer), np.uint8).tobytes()
  return json.loads(text)


def refuse_unshared(folder: AnyPath) -> None:
  """UserError unless all processes see one and the same folder. Process 0 makes it where it is not there."""
  if jax.process_count() == 1:
    return
  marker = folder / ".seen_by_all_hosts"
  nonce = on_first(lambda: secrets.token_hex(8))

  def write() -> None:
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(nonce)

  def read() -> None:
    if not marker.exists() or marker.read_text() != nonce:
      raise UserError(f"{folder} is not the folder that process 0 sees; --workdir must be one shared folder")

  on_first(write)
  together(read)
  on_first(lambda: marker.unlink(missing_ok=True))


def versions() -> dict[str, str]:
  """The versions of what decides what a run computes: {"python": "3.11.7", "jax": ..., ...}."""
  found = {"python": ".".join(map(str, sys.version_info[:3]))}
  for name in LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "absent"
  return found


def code_digest() -> str:
  """A digest of this package's own source files: two hosts with another one run another program."""
  root = Path(__file__).parents[1]
  digest = hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
  return digest.hexdigest()[:16]


def refuse_disagreement(facts: dict[str, Any], timeout_s: float = 300.0) -> None:
  """Compares facts (config, rows, versions, ...) over all processes. UserError names those that differ, and their values.

  facts: name -> value of JSON; what JSON does not know is compared by its str(). Parts of a dict are compared one by one
  as NAME.KEY. RestartError: a process says nothing within timeout_s.
  """
  global _exchanges
  if _peers is None:
    return
  _exchanges += 1
  mine = {name: json.dumps(value, sort_keys=True, default=str) for name, value in flatten(facts).items()}
  try:
    differences = _peers.exchange(str(_exchanges), json.dumps(mine), _differences, timeout_s)
  except TimeoutError as error:
    raise RestartError(str(error)) from None
  if differences:
    raise UserError(f"{differences}; start all hosts from the same code, environment, config and rows")


def _differences(texts: list[str]) -> str:
  """What differs between the facts of several processes, each a JSON object of texts; "" if nothing does."""
  facts = [json.loads(text) for text in texts]
  lines = []
  for name in sorted(set().union(*facts)):
    values: dict[str, list[int]] = {}
    for process, theirs in enumerate(facts):
      values.setdefault(theirs.get(name, "absent"), []).append(process)
    if len(values) > 1:
      lines.append(f"{name}: {', '.join(f'{_short(value)} on {_processes(who)}' for value, who in values.items())}")
  more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
  return "; ".join(lines[:SHOWN] + more)


def _short(text: str) -> str:
  return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def _processes(numbers: list[int]) -> str:
  """ "process 3", or "processes 0-6, 9"."""
  runs: list[list[int]] = []
  for number in numbers:
    if runs and runs[-1][1] == number - 1:
      runs[-1][1] = number
    else:
      runs.append([number, number])
  text = ", ".join(f"{first}-{last}" if first < last else str(first) for first, last in runs)
  return f"process{'es' if len(numbers) > 1 else ''} {text}"
