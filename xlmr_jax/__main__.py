"""`xlmr COMMAND ...`, which is the same as `python -m xlmr_jax COMMAND ...`."""

import ast
import importlib
import os
import sys
from pathlib import Path

from xlmr_jax import __version__
from xlmr_jax.run.signals import listener

# In the order in which a user meets them. Each is a module of commands/ with a function run().
COMMANDS = (
  "demo",
  "build_corpus",
  "language_id",
  "train_vocabulary",
  "build_rows",
  "pretrain",
  "sweep",
  "evaluate",
  "score",
  "fill_mask",
  "report",
  "convert",
  "plan",
)


def summary(command: str) -> str:
  """The first line of a command's docstring, read without importing what the command needs."""
  source = (Path(__file__).parent / "commands" / f"{command}.py").read_text(encoding="utf-8")
  return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def usage() -> str:
  """What `xlmr --help` prints: one line per command."""
  width = max(map(len, COMMANDS))
  lines = [f"  {command:<{width}}  {summary(command)}" for command in COMMANDS]
  return "\n".join(["usage: xlmr COMMAND [--flag=value ...]", "", *lines, "", "xlmr COMMAND --help tells its flags.",
                    "Exit codes: 0 done, 1 you must act (one line says how), 42 start me again, 70 a crash,",
                    "130 interrupted (Ctrl-C)."])  # fmt: skip


def main() -> None:
  """Runs the command that the first argument names."""
  command = sys.argv[1] if len(sys.argv) > 1 else "--help"
  if command in ("--help", "-h", "help", "--helpfull"):
    print(usage())
    return
  if command == "--version":
    print(f"xlmr {__version__}")
    return
  if command not in COMMANDS:
    print(f"error: no command {command!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
    sys.exit(1)
  if command == "pretrain":  # Its imports take seconds, in which a scheduler may already want the machine back.
    listener.open()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notices are not the user's; set before its import.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  # Without this, importing TensorFlow imports Keras, which takes two seconds and imports matplotlib.
  os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
  sys.argv = [f"xlmr {command}", *sys.argv[2:]]
  importlib.import_module(f"xlmr_jax.commands.{command}").run()


if __name__ == "__main__":
  main()
