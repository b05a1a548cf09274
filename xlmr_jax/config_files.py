"""Config files: which ship, and how one is read."""

import importlib.util
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from xlmr_jax.errors import UserError


def shipped_folder() -> Path:
  """The folder of the config files that ship: configs/ of a checkout, or its copy inside the installed package."""
  package = Path(__file__).parent
  return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def shipped() -> dict[str, Path]:
  """{name: file} of every config that ships; a sweep's name is sweeps/NAME."""
  root = shipped_folder()
  return {
    path.relative_to(root).with_suffix("").as_posix(): path
    for path in sorted(root.rglob("*.py"))
    if path.name != "__init__.py"
  }


def config_path(name: str) -> Path:
  """The file that --config=NAME means: a path ending in .py as it is, else the config of that name that ships."""
  if name.endswith(".py"):
    return Path(name)
  files = shipped()
  if name not in files:
    raise UserError(f"--config={name}: no config of this name ships; there are {', '.join(files)}, or give a file NAME.py")
  return files[name]


def load_module(path: Path) -> ModuleType:
  """The module of a config file, which need not lie in a package."""
  spec = importlib.util.spec_from_file_location(f"config_file_{path.stem}", path)
  if spec is None or spec.loader is None or not path.is_file():
    raise UserError(f"{path}: no such config file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def load_config(name: str, arg: str = "") -> ConfigDict:
  """get_config(arg) of a config that ships, or of a file."""
  return load_module(config_path(name)).get_config(arg)
