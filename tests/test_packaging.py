"""What is installed: every package and config, the libraries that are imported, and no more for a training host."""

import ast
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from xlmr_jax import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def name_of(requirement: str) -> str:
  """The normalised name of the package that a requirement asks for."""
  return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def requirements_of(file: str) -> dict[str, str]:
  """{name: requirement without its comment} of a requirements file."""
  lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
  return {name_of(line): line for line in lines if line and not line.startswith("-r")}


def imported_by(folder: str) -> set[str]:
  """The top-level modules that the files below a folder import anywhere, without our own and the standard library's."""
  found: set[str] = set()
  for path in (ROOT / folder).rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        found |= {alias.name.partition(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        found.add(node.module.partition(".")[0])
  return found - set(sys.stdlib_module_names) - {"xlmr_jax"}


def test_every_package_is_installed():
  packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("xlmr_jax/**/__init__.py")}
  configs = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/__init__.py")}
  listed = PROJECT["tool"]["setuptools"]["packages"]
  wanted = {name.replace("/", ".") for name in packages} | {f"xlmr_jax.{name.replace('/', '.')}" for name in configs}
  assert set(listed) == wanted and len(listed) == len(wanted)
  assert set(PROJECT["tool"]["setuptools"]["package-dir"].values()) == configs
  assert all(
    (path / "__init__.py").exists() for path in map(Path.absolute, ROOT.glob("configs/*/")) if any(path.glob("*.py"))
  )


def test_the_version_is_in_the_changelog():
  assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_requirements_txt_and_the_package_ask_for_the_same():
  packaged = [
    *PROJECT["project"]["dependencies"],
    *EXTRAS["corpus"],
    *EXTRAS["fasttext"],
    *EXTRAS["gcs"],
    *EXTRAS["evaluate"],
  ]
  assert requirements_of("requirements.txt") == {name_of(requirement): requirement for requirement in packaged}
  assert requirements_of("requirements-dev.txt") == {name_of(requirement): requirement for requirement in EXTRAS["dev"]}


def test_every_library_that_is_imported_is_asked_for():
  asked = {name_of(requirement) for requirement in requirements_of("requirements.txt").values()}
  provided = importlib.metadata.packages_distributions()
  # They come with what is asked for: tensorflow from tensorflow-cpu, jaxlib from jax.
  for module in imported_by("xlmr_jax") | imported_by("configs"):
    names = {name_of(distribution) for distribution in provided.get(module, ())}
    assert names & (asked | {"jaxlib"}), f"{module} of {names or 'no installed package'} is not in requirements.txt"


@pytest.mark.parametrize("extra", ["corpus", "fasttext", "evaluate"])
def test_only_what_needs_an_extra_imports_it(extra):
  """The base installation must do without; only these folders may import an extra's package."""
  allowed = {"corpus": ("corpus/",), "fasttext": ("corpus/",), "evaluate": ("data/", "huggingface/", "corpus/wordpiece.py")}[
    extra
  ]
  modules = {
    "corpus": "(?:apache_beam|pyarrow|resiliparse|myanmartools|icu4py)",
    "fasttext": "fasttext",
    "evaluate": "tokenizers",
  }[extra]
  importing = {
    path.relative_to(ROOT / "xlmr_jax").as_posix()
    for path in (ROOT / "xlmr_jax").rglob("*.py")
    if re.search(rf"^\s*(?:import|from) {modules}\b", path.read_text(encoding="utf-8"), re.MULTILINE)
  }
  assert importing and all(name.startswith(allowed) for name in importing), importing


PRETRAIN = """
import json, sys
from xlmr_jax.__main__ import main
sys.argv = ["xlmr", "pretrain", *sys.argv[1:]]
try:
  main()
except SystemExit as end:
  print(json.dumps({"code": end.code, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.mark.slow
def test_a_training_host_imports_neither_beam_nor_matplotlib_nor_transformers(tiny_rows, tmp_path):
  run = subprocess.run(
    [sys.executable, "-c", PRETRAIN, f"--config=tests/tiny.py:{tiny_rows}", f"--workdir={tmp_path / 'run'}",
     "--config.train_steps=2", "--config.optimizer.warmup_steps=1", "--config.log.tensorboard=True"],
    cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
  )  # fmt: skip
  assert run.returncode == 0, run.stderr
  *_, result, seen = map(json.loads, [line for line in run.stdout.splitlines() if line.startswith("{")])
  assert result["step"] == 2 and seen["code"] == 0
  modules = set(seen["modules"])
  assert {"jax", "tensorflow", "orbax", "tensorboardX"} <= modules
  assert not modules & {"apache_beam", "matplotlib", "transformers", "keras"}


# --- the Makefile -----------------------------------------------------------------------------------------------------


def make(folder, *words, **environment):
  """What `make` says in a copy of the checkout's Makefile. Nothing of an outer make reaches it."""
  if not shutil.which("make"):
    pytest.skip("needs make")
  outer = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON")
  kept = {name: value for name, value in os.environ.items() if name not in outer}
  return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, env=kept | environment)


@pytest.fixture
def checkout(tmp_path):
  """A checkout whose environment is finished and has Python 3.10."""
  for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml", ".ci/install.py", ".ci/run"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / name, tmp_path / name)
  python = tmp_path / ".venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text('#!/bin/sh\nfor word; do case $word in *version_info*) echo 3.10; exit;; esac; done\necho used: "$@"\n')
  python.chmod(0o755)
  for name in ("ready", "ready-dev"):
    (tmp_path / ".venv" / name).touch()
  return tmp_path


def test_an_environment_of_another_python_is_not_used_for_the_one_that_was_asked_for(checkout):
  said = f"error: .venv has Python 3.10, and {sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}; remove .venv"
  for words, environment in ((("test", f"PYTHON={sys.executable}"), {}), (("demo",), {"PYTHON": sys.executable})):
    out = make(checkout, *words, **environment)
    assert out.returncode == 2 and out.stderr.startswith(said) and "used:" not in out.stdout, out.stderr
  out = subprocess.run(["bash", ".ci/run"], cwd=checkout, capture_output=True, text=True,
                       env=os.environ | {"PYTHON": sys.executable})  # fmt: skip
  assert out.returncode == 1 and out.stderr.startswith(said) and out.stderr.count("\n") == 1 and not out.stdout
  out = make(checkout, "test")  # Nobody asked for one.
  assert out.returncode == 0 and out.stdout.startswith("used: -m pytest"), out.stderr
  assert make(checkout, "clean", f"PYTHON={sys.executable}").returncode == 0 and not (checkout / ".venv").exists()


def test_the_demo_may_lie_in_a_folder_whose_name_has_a_space(checkout):
  out = make(checkout, "-n", "demo", "RUN=runs/my demo")
  assert shlex.split(out.stdout)[-1] == "--workdir=runs/my demo", out.stderr
