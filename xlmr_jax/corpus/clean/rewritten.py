"""Whether files of a source were written again since a build began.

The fingerprint of a build knows names and sizes alone, because reading all text to see whether it is the same would take
hours. Times alone would refuse copies, which each machine may have of its own, and text that was fetched again.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlmr_jax.corpus.sources import Shard
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, in_parallel, naming, read_json, whole_file

_PART = 64 << 10  # bytes at the beginning, in the middle and at the end of a file that its digest is of
_DIGESTS = 1000  # files at most, the first ones by name, that have one; reading parts of very many would take too long


def times_of(shards: Sequence[Shard], root: str, known: Mapping[str, int]) -> dict[str, int]:
  """{path below `root`: seconds since 1970 at which it was written} of the files of a source that lie on this machine.

  known: what the source has seen of that already, by path. Not all ways to copy a file keep more than the second.
  """
  names = dict.fromkeys(shard.name for shard in shards if os.path.isabs(shard.name))
  times = {name: known.get(name) for name in names}
  return {
    name.removeprefix(root): os.stat(name).st_mtime_ns // 10**9 if time_s is None else time_s
    for name, time_s in times.items()
  }


def record(path: AnyPath, times: Mapping[str, int], root: str) -> None:
  """Writes what `refuse_changed` will compare: {path below `root`: [time, digest]}. The digest is "" where there is none."""
  digests = _digests(sorted(times)[:_DIGESTS], root)
  found = {name: [time_s, digests.get(name, "")] for name, time_s in times.items()}
  with whole_file(path, many_writers=True) as unfinished:
    unfinished.write_text(json.dumps(found), encoding="utf-8")


def refuse_changed(path: AnyPath, times: Mapping[str, int], root: str, out: AnyPath) -> bool:
  """Whether `path` is there. Files with another time than `record` wrote into it must have the same digest as then.

  One line on stderr tells how many files were written again and are taken for the same text. Raises UserError, naming a file
  that has changed: its text may not be mixed with what is built of the text before.
  """
  instead = f"choose another --out, or remove {out} when no build works there"
  try:
    before: Any = read_json(path)
  except FileNotFoundError:
    return False
  except ValueError as error:
    raise UserError(f"{path}: cannot be read ({error}); {instead}") from None
  if not isinstance(before, dict):
    raise UserError(f"{path}: holds no object; {instead}")
  differing: dict[str, str] = {}  # and the digest before
  for name, time_s in times.items():
    found = before.get(name)
    then, digest = found if isinstance(found, list) and len(found) == 2 else (found, "")
    if then not in (None, time_s):
      differing[name] = digest
  digests = _digests([name for name, digest in differing.items() if digest], root)
  for name, digest in digests.items():
    if digest != differing[name]:
      raise UserError(
        f"{root}{name}: was written again since the build began, and its beginning, middle or end is another; {instead}"
      )
  if differing:
    unread = len(differing) - len(digests)
    print(
      f"{len(differing)} {'files were' if len(differing) > 1 else 'file was'} written again since the build began, with the "
      f"same size{', beginning, middle and end' if digests else ''}"
      f"{f' (of {unread} only the size was compared)' if unread and digests else ''}; "
      f"{'they are' if len(differing) > 1 else 'it is'} taken for the same text",
      file=sys.stderr,
      flush=True,
    )
  return True


def _digests(names: Iterable[str], root: str) -> dict[str, str]:
  """The sha256 of the beginning, the middle and the end of each file below `root`, by name."""
  names = list(names)
  return dict(zip(names, in_parallel(lambda name: _digest(f"{root}{name}"), names)))


def _digest(path: str) -> str:
  sha256 = hashlib.sha256()
  with naming(path), open(path, "rb") as file:
    size = os.fstat(file.fileno()).st_size
    for start in (0, max(0, (size - _PART) // 2), max(0, size - _PART)):
      file.seek(start)
      sha256.update(file.read(_PART))
  return sha256.hexdigest()
