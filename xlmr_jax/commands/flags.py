"""What the commands share: config flags by file or by name, absl's parser with one-line errors, and the way to start."""

import difflib
import logging as python_logging
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from xlmr_jax.config import default_config, is_below, parse_value, split_names
from xlmr_jax.config_files import config_path
from xlmr_jax.errors import UserError, run_command
from xlmr_jax.files import AnyPath, flatten
from xlmr_jax.given_paths import local_path, path_given, refuse_unwritable
from xlmr_jax.secrets import redacted

FLAGS = flags.FLAGS
_DEFAULTS = flatten(default_config().to_dict())


def define_config(help_text: str = "Config that ships, such as base, or a file; :ARG takes runlocal and KEY=VALUE") -> None:
  """Defines --config=NAME[:ARG]|FILE.py[:ARG] and --config.KEY=VALUE."""
  config_flags.DEFINE_config_file("config", None, help_text)


def read_config() -> ConfigDict:
  """The value of --config. UserError if its file could not be loaded, which absl reports only on first use."""
  try:
    FLAGS.config.lock()
  except OSError as error:
    raise UserError(" ".join(str(error).split())) from None
  return _check_paths(FLAGS.config)


def _with_config_file(argument: str) -> str:
  """--config=base:ARG with the path of the file that ships in the place of its name."""
  if not argument.startswith(("--config=", "-config=")):
    return argument
  flag, _, value = argument.partition("=")
  name, colon, arg = value.partition(":")
  if name.endswith(".py") or arg.startswith("//"):
    path = local_path(value if arg.startswith("//") else name, "--config=")
    if not path.is_file():
      raise UserError(f"--config={name}: no such config file; give the path of a file, or the name of a config that ships")
    return f"{flag}={path}{colon}{arg}"
  return f"{flag}={config_path(name)}{colon}{arg}"


def _with_list(argument: str) -> str:
  """--config.KEY=VALUE of a list of names as ml_collections reads one: it takes a,b for one name, which has a comma."""
  name, equals, text = argument.partition("=")
  key = name.lstrip("-").removeprefix("config.")
  is_list = equals and name.startswith(("--config.", "-config.")) and isinstance(_DEFAULTS.get(key), tuple)
  return f"{name}={split_names(text)!r}" if is_list else argument


def parse_flags(argv: Sequence[str], *, known_only: bool = False) -> list[str]:
  """absl's parser; a misspelt key, a wrong value or an unreadable config file ends in one line and exit 1.

  known_only: leaves unknown flags to the caller, in what is returned.
  """
  try:
    return FLAGS([_with_list(_with_config_file(argument)) for argument in argv], known_only=known_only)
  except Exception as error:  # A config file is a program of the user's, which may raise anything.
    text = _unknown_key(argv, str(error)) if isinstance(error, KeyError | AttributeError) else str(error)
    print(f"error: {redacted(_one_line(text or type(error).__name__))}", file=sys.stderr)
    sys.exit(1)


def _unknown_key(argv: Sequence[str], text: str) -> str:
  """The message about a key that there is not, of a --config.KEY=VALUE or in the user's config file.

  text: ml_collections' own, which names a part of the key, and may go on with all keys beside it.
  """
  named = re.search(r"Key \W*(\w+)\W* does not exist", text) or re.search(r"instead of \W*(\w+)", text)
  parts = {named[1]} if named else set(re.findall(r"\w+", text))
  flags_of_keys = (argument.lstrip("-") for argument in argv[1:] if argument.startswith(("--config.", "-config.")))
  given = [flag.removeprefix("config.").partition("=")[0] for flag in flags_of_keys]
  key = next((key for key in given if key not in _DEFAULTS and parts & set(key.split("."))), None)
  if key is None and named:
    near = re.search(r"Did you mean \W*(\w+)", text)
    file = next((arg.partition("=")[2] for arg in argv[1:] if arg.startswith(("--config=", "-config="))), "the config file")
    meant = f"; did you mean {near[1]}?" if near else ";"
    return f"--config={file}: it sets or reads {named[1]}, and there is no such key{meant} xlmr_jax/config.py has them all"
  if key is None:
    return text
  near = difflib.get_close_matches(key, _DEFAULTS, n=1, cutoff=0.7)
  meant = f"; did you mean config.{near[0]}?" if near else ";"
  return f"--config.{key}: there is no such key{meant} xlmr_jax/config.py has them all"


def _one_line(text: str) -> str:
  """An error's text without the traceback that ml_collections puts into it: its last place outside this package stays."""
  head, traceback, rest = text.partition(": Error whilst parsing config file:")
  lines = [" ".join(line.split()) for line in rest.splitlines() if line.strip()]
  if not traceback or not lines:
    text = re.sub(r"flag --(\w+)=None: Flag --\w+ must have a value other than None\.", r"--\1 is missing;", text).rstrip(
      ";"
    )
    return " ".join(text.split())
  own = str(Path(__file__).parents[1])
  places = [line for line in lines if line.startswith('File "') and "ml_collections" not in line and own not in line]
  place = f" ({places[-1].partition(', in ')[0]})" if places else ""
  return f"{head}: {lines[-1]}{place}"


def parse_flags_leaving_config(argv: Sequence[str]) -> list[str]:
  """parse_flags for commands that take a run's config: --config.KEY=VALUE arguments are left for the caller."""
  overrides = [argument for argument in argv[1:] if argument.startswith("--config.")]
  return [*parse_flags([argument for argument in argv if argument not in overrides]), *overrides]


def refuse_arguments(argv: Sequence[str], allowed_prefix: str = "\0") -> list[str]:
  """The arguments after the command's name. UserError for one that does not begin with allowed_prefix."""
  for argument in argv[1:]:
    if not argument.startswith(allowed_prefix):
      raise UserError(f"unexpected argument {argument!r}; flags are written --name=value")
  return list(argv[1:])


def override_config(stored: dict, overrides: Sequence[str], sections: tuple[str, ...] = ("evaluate", "stop")) -> ConfigDict:
  """A run's config with ["--config.stop.patience=3", ...] applied; only keys below `sections` may be given.

  stored: the "config" of a RunRecord. Keys that did not exist when the run began have their defaults. UserError.
  """
  config = default_config()
  known = flatten(config.to_dict())
  given = {key: value for key, value in flatten(stored).items() if key in known}
  given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
  for override in overrides:
    name, equals, text = override.partition("=")
    key = name.removeprefix("--config.")
    if not equals or key not in known or not is_below(key, sections):
      takes = ", ".join(name for name in known if is_below(name, sections))
      raise UserError(f"{override!r}: here --config.KEY=VALUE takes {takes}; all else is as the run has it")
    try:
      given[key] = parse_value(key, text, known[key])
    except ValueError as error:
      raise UserError(f"--{error}") from None
  config.update_from_flattened_dict(given)
  return _check_paths(config)


def path_of(name: str, *, makes: str = "") -> AnyPath:
  """The path that --name gives, of this machine, absolute and with ~ expanded, or of a bucket.

  makes: "file" or "folder" for what the command will write there. Raises UserError: it is empty, or what the command makes
  cannot be written there.
  """
  found = path_given(FLAGS[name].value or "", f"--{name}=")
  return refuse_unwritable(found, folder=makes == "folder") if makes else found


def local_path_of(name: str, *, makes: str = "") -> Path:
  """path_of for what must be on this machine. Raises UserError also if the path is a bucket's."""
  found = local_path(FLAGS[name].value or "", f"--{name}=")
  return refuse_unwritable(found, folder=makes == "folder") if makes else found


def exit_on_signals() -> list[int]:
  """From here on SIGTERM and SIGINT raise SystemExit, so that unfinished files are removed; the list gets their numbers."""
  stopped: list[int] = []

  def stop(number: int, _: object) -> None:
    python_logging.disable(python_logging.CRITICAL)
    stopped.append(number)
    sys.exit()

  signal.signal(signal.SIGTERM, stop)
  signal.signal(signal.SIGINT, stop)
  return stopped


def _check_paths(config: ConfigDict) -> ConfigDict:
  """The config with ~ expanded in each key that is a path. Raises UserError: a path of a kind that is not read there."""

  def check(key: str, value: str, words: tuple[str, ...], *, local: bool = False) -> str:
    if value in ("", *words):
      return value
    found = str((local_path if local else path_given)(value, f"--config.{key}="))
    return found if value.startswith("~") else value

  config.compile_cache = check("compile_cache", config.compile_cache, ("off",), local=True)
  config.data.rows = check("data.rows", config.data.rows, ("demo",))
  config.data.cache = check("data.cache", config.data.cache, (), local=True)
  config.evaluate.folder = check("evaluate.folder", config.evaluate.folder, ("tfds",))
  parts = [part.partition("=") for part in config.evaluate.data.split(",")]
  config.evaluate.data = ",".join(f"{task}{equals}{check('evaluate.data', path, ('tfds',))}" for task, equals, path in parts)
  return config


def _help(module_name: str) -> str:
  """What a command's --help prints: its docstring, and its own flags."""
  ours = [module for module in FLAGS.flags_by_module_dict() if module == module_name or module.endswith("commands.flags")]
  lines = [(sys.modules[module_name].__doc__ or "").rstrip(), "", "Flags:"]
  for flag in sorted((flag for module in ours for flag in FLAGS.get_flags_for_module(module)), key=lambda flag: flag.name):
    default = "" if flag.default in (None, "", []) else f" (default: {flag.default_as_str})"
    lines.append(f"  --{flag.name}: {' '.join((flag.help or '').split())}{default}")
  return "\n".join(lines)


def start(main: Callable[[list[str]], int | None], parser: Callable[[list[str]], Any] = parse_flags) -> None:
  """Runs a command's main under absl with one-line errors, and keeps absl's own talk out of sight."""
  if {"--help", "-h", "-help", "--helpfull", "--helpshort"} & set(sys.argv[1:]):  # absl's would look in __main__.
    print(_help(main.__module__))
    return
  logging.set_verbosity(logging.WARNING)  # Orbax reports every file at INFO.
  app.run(run_command(main), flags_parser=parser)


def load_tasks(config: ConfigDict, data: AnyPath | None = None) -> None:
  """Registers the tasks of config.evaluate.modules, and the demo's where one of them is named.

  data: the folder of the run whose config.json names the modules, if that is where the config is from.
  Raises UserError: a module cannot be imported, or config.evaluate names a task, a language or a recipe that there is not.
  """
  from xlmr_jax.evaluation.choices import check_choices
  from xlmr_jax.evaluation.tasks import registry

  registry.load_modules(config.evaluate.modules, data if isinstance(data, Path) else None)
  if any(name.startswith("demo_") for name in config.evaluate.tasks):
    import xlmr_jax.demo.tasks  # noqa: F401  It registers them.
  check_choices(config)
