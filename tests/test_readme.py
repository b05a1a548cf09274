"""The README is short; no page names a command, flag, key, file or heading that does not exist."""

import re
from pathlib import Path

import pytest

from xlmr_jax.__main__ import COMMANDS, usage
from xlmr_jax.config import default_config
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.files import flatten

ROOT = Path(__file__).parents[1]
PAGES = [
  ROOT / "README.md",
  ROOT / "CONTRIBUTING.md",
  ROOT / "CHANGELOG.md",
  ROOT / "launch/README.md",
  *sorted(ROOT.glob("docs/*.md")),
  *sorted(ROOT.glob("docs/studies/*.md")),
  *sorted(ROOT.glob("benchmarks/*.md")),
]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
each_page_but_changes = pytest.mark.parametrize(
  "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)


def commands_of(page: Path) -> list[tuple[str, str]]:
  """(command, the rest of its line) of every `xlmr COMMAND ...`, continued lines joined."""
  text = page.read_text(encoding="utf-8").replace("\\\n", " ")
  return re.findall(r"(?:^|[\s`(])xlmr ([a-z_]+)\b([^`|\n]*)", text, re.MULTILINE)


def flags_of(command: str) -> set[str]:
  """The flags that a command's module, and those that all commands share, define."""
  source = (ROOT / f"xlmr_jax/commands/{command}.py").read_text(encoding="utf-8")
  shared = {"config"} if "define_config" in source else set()
  negated = {f"no{name}" for name in re.findall(r"DEFINE_bool(?:ean)?\(\s*\"(\w+)\"", source)}
  return shared | negated | set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source))


def anchors_of(page: Path) -> set[str]:
  """GitHub's anchors of a page's headings."""
  headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_newcomer_can_finish_the_readme():
  assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_help_tells_each_command_in_a_line():
  lines = usage().splitlines()
  for command in COMMANDS:
    (line,) = [line for line in lines if line.split()[:1] == [command]]
    assert len(line.split()) > 3, line


@pages
def test_commands_exist(page):
  assert {command for command, _ in commands_of(page)} <= set(COMMANDS)


def test_the_readme_and_the_docs_name_every_command():
  assert {command for page in PAGES for command, _ in commands_of(page)} == set(COMMANDS)


@each_page_but_changes
def test_flags_exist(page):
  for command, rest in commands_of(page):
    # Behind `#` stands a comment. What tpu_vm.sh takes is not a command's.
    given = set(re.findall(r"(?<=\s)--(\w+)(?![\w.])", rest.split(" #")[0])) - {"help", "helpfull"}
    assert given <= flags_of(command), (command, given - flags_of(command))


@each_page_but_changes
def test_config_keys_exist(page):
  keys = {*flatten(default_config().to_dict()), "KEY"}
  named = re.findall(r"--config\.([\w.]+)", page.read_text(encoding="utf-8"))
  assert set(named) <= keys, set(named) - keys


@each_page_but_changes
def test_keys_that_are_named_without_a_flag_exist(page):
  """`stop.patience`, `config.stop.patience=3` and `config.watchdog`: where the first part is a section of the config."""
  sections = {key.partition(".")[0] for key in flatten(default_config().to_dict()) if "." in key}
  keys = {*flatten(default_config().to_dict()), *sections}
  attributes = {f"model.{name}" for name in ("tokenizer", "params", "record", "safetensors")}  # of a Model, and a file
  named = re.findall(r"`(?:config\.)?([a-z_]+(?:\.[a-z_0-9]+)+)(?:=[^`]*)?`", page.read_text(encoding="utf-8"))
  told = {name for name in named if name.partition(".")[0] in sections and not name.endswith((".json", ".jsonl", ".py"))}
  assert told <= keys | attributes, told - keys - attributes


@pages
def test_links_lead_somewhere(page):
  links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
  for link in links:
    if not link.startswith("https://"):
      name, _, anchor = link.partition("#")
      target = (page.parent / name) if name else page
      assert target.exists(), link
      assert not anchor or anchor in anchors_of(target), link


@each_page_but_changes
def test_files_that_are_named_exist(page):
  text = page.read_text(encoding="utf-8")
  named = re.findall(r"`((?:xlmr_jax|tests|benchmarks|configs|launch|docs|\.ci)/[\w./-]*)", text)
  for name in named:
    if "NAME" not in name:
      assert (ROOT / name).exists(), name


def test_the_task_of_the_docs_can_be_read(tmp_path, monkeypatch):
  (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/downstream.md").read_text(encoding="utf-8"), re.DOTALL)
  monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))
  exec(compile(block, "docs/downstream.md", "exec"), {})
  (tmp_path / "sw.test.tsv").write_text("politics\tHabari\n", encoding="utf-8")
  assert registry.get("my_topics").load(tmp_path, "sw", "test") == [registry.Text("Habari", "", 1.0)]
