"""Words on the command line: lists are read alike everywhere, and what config.evaluate names is checked before any work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags
from ml_collections import config_flags

from tests import tiny
from xlmr_jax.commands import flags
from xlmr_jax.config import default_config, set_from_text
from xlmr_jax.config_checks import check_evaluation
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.choices import check_choices, say_longer_than_trained, task_folders, with_recipe
from xlmr_jax.evaluation.tasks import registry

ROOT = Path(__file__).parents[1]
LISTS = ("xnli,panx", "xnli, panx", "xnli panx", "('xnli','panx')", "['xnli', 'panx']", "(xnli,panx)", "('xnli,panx',)")


def trainers(argument):
  """The config that `xlmr pretrain` makes of an argument."""
  values = absl_flags.FlagValues()
  command = ["xlmr", flags._with_list(argument)]
  config_flags.DEFINE_config_dict("config", default_config(), flag_values=values, sys_argv=command)
  values(command)
  return values.config


@pytest.mark.parametrize("text", [*LISTS, "xnli", "", "()"])
@pytest.mark.parametrize("key", ["evaluate.tasks", "evaluate.languages", "evaluate.modules", "data.languages"])
def test_trainer_evaluator_and_config_files_read_a_list_alike(key, text):
  wanted = ("xnli", "panx") if text in LISTS else ("xnli",) if text else ()
  wanted = () if text == "()" else wanted
  argument = f"--config.{key}={text}"
  in_file = default_config()
  set_from_text(in_file, key, text)
  evaluators = flags.override_config(default_config().to_dict(), [argument], ("evaluate", "data"))
  for config in (trainers(argument), evaluators, in_file):
    section, name = key.split(".")
    assert config[section][name] == wanted


def test_other_keys_are_left_as_they_are():
  assert trainers("--config.stop.score=xnli,de").stop.score == "xnli,de"
  assert trainers("--config.evaluate.recipe=lr=1,batch=2").evaluate.recipe == "lr=1,batch=2"
  for argument in ("--config=base:runlocal", "--workdir=a,b", "--config.evaluate.tasks"):
    assert flags._with_list(argument) == argument


def choices(**changes):
  changes = {"evaluate__tasks": ("xnli", "conll"), **changes}
  return tiny.config("rows", **changes)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"evaluate__tasks": ("xnil",)}, r"no task 'xnil'; there are cad_nli, .*xnli"),
    ({"evaluate__tasks": ("xnli,panx",)}, "no task 'xnli,panx'"),
    ({"evaluate__languages": ("en", "ed")}, r"no task of xnli, conll has a language 'ed'; they have ar, bg, de"),
    ({"evaluate__languages": ("sw",)}, r"languages=sw: conll has none of them; it has en, de, es, nl"),
    ({"evaluate__data": "xnil=/data"}, "no task 'xnil'"),
    ({"evaluate__data": "xnli=/data,conll="}, "'conll=' is not NAME=FOLDER"),
    ({"evaluate__recipe": "xnil.lr=1e-5"}, "no task 'xnil'"),
    ({"evaluate__recipe": "lrr=1e-5"}, "'lrr=1e-5' is not FIELD=VALUE"),
    ({"evaluate__setting": "zero"}, "setting='zero': must be one of"),
    ({"stop__score": "conll/sw"}, "conll has no language 'sw'; it has en, de, es, nl"),
  ],
)
def test_names_are_checked(changes, message):
  with pytest.raises(UserError, match=message):
    check_choices(choices(**changes))


def test_what_can_be_meant_passes():
  check_choices(choices())
  check_choices(choices(evaluate__languages=("de", "sw"), stop__score="xnli/sw", evaluate__data="panx=tfds, xnli=/a"))
  check_choices(tiny.config("rows"))
  assert task_folders("X", "a=/b, c = d=e") == {"": "X", "a": "/b", "c": "d=e"}


@pytest.mark.parametrize(
  "entry",
  ["batch=0", "batch=2.5", "batch=inf", "lr=0", "lr=nan", "epochs=-1", "max_len=2", "warmup=2", "frozen=(", "doc_stride=0"],
)
def test_a_recipe_that_cannot_be_run_is_refused(entry):
  with pytest.raises(UserError, match="is not FIELD=VALUE"):
    with_recipe(registry.get("xnli"), entry)
  assert with_recipe(registry.get("xnli"), "batch=8,warmup=1,max_steps=0,frozen=^embed").recipe.batch == 8


@pytest.mark.parametrize("seeds", [("3", "3"), ("a",), ("-1",), ("1.5",)])
def test_seeds_are_different_whole_numbers(seeds):
  with pytest.raises(UserError, match=r"seed_list=.*must be different whole numbers"):
    check_evaluation(choices(evaluate__seed_list=seeds))


@pytest.mark.parametrize("body", ["import nothing_of_this_name", "1 / 0", "def (", "raise ValueError('twice')"])
def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, body):
  (tmp_path / "broken_tasks.py").write_text(body)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match=r"config\.evaluate\.modules: 'broken_tasks' cannot be imported") as caught:
    registry.load_modules(("broken_tasks",))
  assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_trainer_refuses_a_misspelt_task_before_it_begins(tiny_rows, tmp_path):
  (tmp_path / "own_tasks.py").write_text(
    "from xlmr_jax.evaluation.tasks.registry import Recipe, Task, register\n"
    "register(Task('own', 'sentence', ('a', 'b'), ('accuracy',), ('en',), Recipe(1e-3, 8, 1, 16), lambda *_: []))\n"
  )

  def pretrain(tasks, *more):
    command = [sys.executable, "-m", "xlmr_jax", "pretrain", f"--config={ROOT}/tests/tiny.py:{tiny_rows}",
               f"--workdir={tmp_path / 'run'}", f"--config.evaluate.tasks={tasks}", *more]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)

  modules = "--config.evaluate.modules=own_tasks"
  for tasks, more, message in (
    ("xnli,pnax", (), "no task 'pnax'"),
    ("xnli,panx", ("--config.evaluate.languages=en,ed",), "has a language 'ed'"),
    ("own", (), "no task 'own'"),
    ("xnli,own", (modules, "--config.train_steps=0"), "config.train_steps=0"),
  ):
    result = pretrain(tasks, *more)
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "run").exists()
  assert pretrain("xnli, own", modules, "--config.train_steps=4").returncode == 0


@pytest.mark.slow
def test_the_names_of_tasks_are_known_without_tensorflow():
  """The trainer asks for them, on every host, before it has opened its rows."""
  program = "import sys, xlmr_jax.evaluation.choices; print(*sys.modules)"
  result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
  heavy = ("tensorflow", "tensorflow_datasets", "sentencepiece", "tokenizers", "orbax", "apache_beam", "matplotlib")
  assert not set(heavy) & set(result.stdout.split())


@pytest.mark.parametrize(
  "trained, most, recipe, told",
  [
    (512, 512, "", ()),
    (128, 512, "", ("tydiqa_xquad: its rows may have 384",)),
    (64, 512, "", ("panx: its rows may have 128", "tydiqa_xquad: its rows may have 384")),
    (64, 100, "", ("panx: its rows may have 100", "tydiqa_xquad: its rows may have 100")),
    (64, 512, "panx.max_len=64", ("tydiqa_xquad: its rows may have 384",)),
    (64, 64, "", ()),
  ],
)
def test_tasks_with_longer_rows_than_the_training_had_are_told(trained, most, recipe, told):
  config = default_config()
  config.evaluate.update(tasks=("panx", "tydiqa_xquad"), recipe=recipe)
  lines = say_longer_than_trained(config, trained, most)
  assert len(lines) == len(told) and all(line.startswith(start) for line, start in zip(lines, told))
  assert all(f"had at most {trained}: " in line for line in lines)
