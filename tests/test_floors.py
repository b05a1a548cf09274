"""What the import contract of `make lint` does not see: imports inside functions, names in a workdir, long files."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "xlmr_jax"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
# Commands import what they need when they are run, so that `xlmr --help` is fast; the package, what is asked of it.
LAZY = ("commands/", "__init__.py")
LONGEST = 350  # lines


def own_imports_in_functions(tree: ast.AST) -> list[int]:
  """The lines of imports of our own modules that are inside a function."""
  functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
  found = set()
  for node in (node for function in functions for node in ast.walk(function)):
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or "xlmr_jax"] if isinstance(node, ast.ImportFrom) else []
    if any(name.split(".")[0] == "xlmr_jax" for name in names):
      found.add(node.lineno)
  return sorted(found)


def test_own_modules_are_imported_at_the_top_of_a_file():
  assert own_imports_in_functions(ast.parse("def f():\n  from xlmr_jax.run import hosts\n  import json\n")) == [2]
  found = {name: own_imports_in_functions(tree) for name, tree in TREES.items()}
  assert not {name: lines for name, lines in found.items() if lines and not name.startswith(LAZY)}


def test_every_file_has_one_job():
  lengths = {name: len(source.splitlines()) for name, source in SOURCES.items()}
  assert not {name: lines for name, lines in lengths.items() if lines >= LONGEST}


def test_names_in_a_workdir_are_spelt_in_one_place():
  """Everyone else asks run/workdir.py, also for what a message says. Docstrings may name them."""
  names = {"train.jsonl", "held_out.jsonl", "timing.jsonl", "STOP.json", "best.json", "result.json"}
  found = []
  for name, tree in TREES.items():
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found += [(name, value) for value in values if value.rpartition("/")[2] in names]
  assert sorted(found) == sorted(("run/workdir.py", name) for name in names)


def test_every_module_says_what_it_owns():
  assert not [name for name, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
