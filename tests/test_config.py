"""A config's argument and its values from text: what is taken, and what is refused by name."""

import pytest

from xlmr_jax import config, config_files
from xlmr_jax.config import default_config, parse_value, variant
from xlmr_jax.errors import UserError


def test_pairs_are_set_with_their_types():
  c = variant(default_config(), "train_steps=7, optimizer.peak_lr=1e-3,model.pre_norm=true,data.rows=a=b,mesh.fsdp=-1")
  assert (c.train_steps, c.optimizer.peak_lr, c.model.pre_norm, c.data.rows, c.mesh.fsdp) == (7, 1e-3, True, "a=b", -1)
  assert c.is_locked


@pytest.mark.parametrize(
  "text, languages",
  [
    ("data.languages=('en', 'sw')", ("en", "sw")),
    ("data.languages=('en','sw'),seed=3", ("en", "sw")),
    ("seed=3,data.languages=('en',)", ("en",)),
    ("data.languages=()", ()),
    ("data.languages=en", ("en",)),
    ("data.languages=", ()),
  ],
)
def test_a_comma_inside_brackets_does_not_separate(text, languages):
  c = variant(default_config(), text)
  assert tuple(c.data.languages) == languages and c.seed == (3 if "seed" in text else 0)


def test_an_empty_argument_changes_nothing():
  assert variant(default_config(), "").to_dict() == variant(default_config(), " , ").to_dict() == default_config().to_dict()


def test_runlocal_is_applied_where_it_stands():
  """From left to right: a pair after it wins, one before it is overwritten."""
  small = variant(default_config(), "runlocal")
  assert small.model.hidden == 64 and small.train_steps == 20 and small.data.rows == "demo"
  assert variant(default_config(), "runlocal,train_steps=3").train_steps == 3
  assert variant(default_config(), "train_steps=3,runlocal").train_steps == 20
  assert variant(default_config(), "micro_batches=8,runlocal").micro_batches == 2


@pytest.mark.parametrize(
  "arg, message",
  [
    ("small", "takes no argument 'small'; it takes runlocal and KEY=VALUE"),
    ("runlocal small", "takes no argument 'runlocal small'"),
    ("model.width=3", "config.model.width=3: there is no such key"),
    ("model=3", "config.model=3: there is no such key"),
    ("train_steps=many", "config.train_steps=many: not int"),
    ("train_steps=1.5", "config.train_steps=1.5: not int"),
    ("optimizer.peak_lr=", "config.optimizer.peak_lr=: not float"),
    ("model.pre_norm=yes", "config.model.pre_norm=yes: not bool"),
  ],
)
def test_what_is_no_argument_is_refused(arg, message):
  with pytest.raises(ValueError, match=message):
    variant(default_config(), arg)


@pytest.mark.parametrize(
  "text, default, value",
  [
    ("3", 1, 3),
    ("1e-4", 1.0, 1e-4),
    ("3", 1.0, 3.0),
    ("True", False, True),
    ("false", True, False),
    ("3", "", "3"),
    ("", "x", ""),
    ("a,b", (), ("a", "b")),
    ("('a', 'b')", (), ("a", "b")),
    ("xnli, panx", (), ("xnli", "panx")),
    ("xnli panx", (), ("xnli", "panx")),
    ("[xnli,panx]", (), ("xnli", "panx")),
    ("(xnli)", (), ("xnli",)),
    ('["my.tasks"]', (), ("my.tasks",)),
    ("('xnli,panx',)", (), ("xnli", "panx")),
    ("3,7", (), ("3", "7")),
    ("", (), ()),
    ("()", (), ()),
  ],
)
def test_a_value_takes_the_type_of_its_default(text, default, value):
  found = parse_value("key", text, default)
  assert found == value and type(found) is type(value)


def test_a_stored_config_gets_todays_defaults():
  stored = default_config().to_dict()
  del stored["seed"], stored["model"]["ops"], stored["stop"]
  stored["train_steps"] = 5
  assert config.with_defaults(stored) == default_config().to_dict() | {"train_steps": 5}


def test_a_name_means_a_config_that_ships(tmp_path):
  assert {"base", "large", "xl", "smoke", "sweeps/alpha"} <= set(config_files.shipped())
  assert config_files.load_config("base", "seed=4").seed == 4
  with pytest.raises(UserError, match=r"--config=bse: no config of this name ships; there are .*base.*, or give a file"):
    config_files.load_config("bse")
  path = tmp_path / "mine.py"
  with pytest.raises(UserError, match=r"mine\.py: no such config file"):
    config_files.load_config(str(path))
  path.write_text("from xlmr_jax.config import default_config, variant\n\n\ndef get_config(arg=''):\n"
                  "  return variant(default_config(), arg)\n")  # fmt: skip
  assert config_files.load_config(str(path), "runlocal").train_steps == 20
