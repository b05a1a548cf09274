"""Names that files give, such as manifests and indices: whether they stay in the folder that they are about."""

import re
from pathlib import Path, PurePosixPath
from typing import TypeVar

from etils import epath

from xlmr_jax.errors import UserError

P = TypeVar("P", Path, epath.Path, Path | epath.Path)


def stays_below(name: str) -> bool:
  """Whether a name that a file gives, such as a manifest, lies in the folder that it is about."""
  parts = PurePosixPath(name).parts
  return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in name


def is_plain_name(name: object) -> bool:
  """Whether something that a file gives can be the name of one file or folder, which lies where it is put."""
  return isinstance(name, str) and 0 < len(name) <= 255 and name not in (".", "..") and not re.search(r"[/\\\0]", name)


def below(folder: P, *names: str) -> P:
  """The path of `names` below a folder. UserError, naming the first that would lead out of it.

  Whatever writes or removes under a name that a file gave, and no constant of this program, asks here for its path.
  """
  for name in names:
    if not isinstance(name, str) or not stays_below(name):
      raise UserError(f"{folder}: {str(name)[:80]!r} is no name of a file below it; nothing is written there")
  return folder.joinpath(*names)
