"""What a newcomer meets: misspelt keys and missing files are named in a line, and a run can be looked at from its start."""

import errno
import json
import subprocess
import sys

import jax
import pytest

from tests import tiny
from tests.made_runs import make_run
from xlmr_jax.commands.flags import _one_line, _unknown_key, parse_flags
from xlmr_jax.config_checks import check_config
from xlmr_jax.errors import UserError, told


def test_a_misspelt_key_is_named_with_the_key_that_is_near():
  given = ["pretrain", "--config=base", "--config.seed=3", "--config.optimizer.peak_lrr=1"]
  line = _unknown_key(given, "'peak_lrr'")
  assert line.startswith("--config.optimizer.peak_lrr: there is no such key; did you mean config.optimizer.peak_lr?")
  assert _unknown_key(["pretrain", "--config.zzz=1"], "'zzz'").startswith(
    "--config.zzz: there is no such key; xlmr_jax/config.py"
  )
  # Another error of a config file stays as it is.
  assert _unknown_key(given, "module has no attribute 'get_config'") == "module has no attribute 'get_config'"


def test_the_parser_says_it_so(tmp_path):
  """ml_collections wraps its KeyError in another error."""
  arguments = ["pretrain", "--config=smoke", f"--workdir={tmp_path / 'run'}", "--config.model.hidde=3"]
  result = subprocess.run([sys.executable, "-m", "xlmr_jax", *arguments], capture_output=True, text=True, timeout=120)
  assert result.returncode == 1 and result.stderr.count("\n") == 1
  assert result.stderr.startswith("error: --config.model.hidde: there is no such key; did you mean config.model.hidden?")


def test_a_misspelt_key_in_a_config_file_is_named_with_the_file(tmp_path, capsys):
  """--config=FILE itself is no key, and a key of the command line that is right is not blamed."""
  for line, said in {
    "c.model.hiden = 3": "it sets or reads hiden, and there is no such key; did you mean hidden?",
    "c.zzzz = 3": "it sets or reads zzzz, and there is no such key; xlmr_jax/config.py",
    "c.seed = c.sed": "it sets or reads sed, and there is no such key; did you mean seed?",
  }.items():
    file = tmp_path / f"mine_{len(line)}.py"
    body = f"def get_config():\n  c = default_config()\n  {line}\n  return c\n"
    file.write_text(f"from xlmr_jax.config import default_config\n{body}")
    arguments = [sys.executable, "-c", _PARSE, "pretrain", f"--config={file}", "--config.seed=3"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and result.stderr.startswith(f"error: --config={file}: {said}"), result.stderr
    assert result.stderr.count("\n") == 1


_PARSE = "import sys; from xlmr_jax.commands import flags; flags.define_config(); flags.parse_flags(sys.argv[1:])"


def test_a_config_file_that_is_missing_is_named(tmp_path, capsys):
  with pytest.raises(SystemExit):
    parse_flags(["pretrain", f"--config={tmp_path / 'mine.py'}:runlocal"])
  line = capsys.readouterr().err
  assert line.startswith(f"error: --config={tmp_path / 'mine.py'}: no such config file; ") and line.count("\n") == 1


def test_a_run_has_a_page_before_its_first_held_out_loss(tmp_path):
  workdir = make_run(tmp_path / "run", lines=5, passes=2, scores=1)
  workdir.held_out_log.unlink()
  arguments = ["report", f"--workdir={workdir}", "--nosamples"]
  result = subprocess.run([sys.executable, "-m", "xlmr_jax", *arguments], capture_output=True, text=True, timeout=120)
  assert result.returncode == 0, result.stderr
  told = json.loads(result.stdout.splitlines()[-1])
  assert told["page"] == str(workdir.page) and workdir.page.exists()
  assert not any("held_out" in path for path in told["pictures"])


def test_a_flag_that_is_missing_is_named():
  text = "flag --workdir=None: Flag --workdir must have a value other than None."
  assert _one_line(text) == "--workdir is missing"
  assert _one_line(f"{text}\n{text.replace('workdir', 'rows')}") == "--workdir is missing; --rows is missing"


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"seed": 2**32}, "config.seed=4294967296: must lie in"),
    ({"seed": -(2**31) - 1}, "config.seed=-2147483649: must lie in"),
    ({"model__max_positions": -1}, "config.model.max_positions=-1: must be at least 3"),
    ({"optimizer__end_lr": float("inf")}, "config.optimizer.end_lr=inf: must be at most"),
    ({"optimizer__weight_decay": float("inf")}, "config.optimizer.weight_decay=inf: must be at most"),
    ({"watchdog_s": float("inf")}, "config.watchdog_s=inf: must be at most"),
    ({"watchdog__join_s": float("inf")}, "config.watchdog.join_s=inf: must be at most"),
    ({"watchdog__heartbeat_s": 1e12}, "config.watchdog.heartbeat_s=1000000000000.0: must be at most"),
    ({"log__goodput_s": float("inf")}, "config.log.goodput_s=inf: must be at most"),
    ({"model__attention": "flash"}, "config.model.attention='flash': must be one of auto, xla, pallas, splash, cudnn"),
    ({"compiler_options": "a=1,b"}, "config.compiler_options='a=1,b': .*; 'b' is not"),
  ],
)
def test_values_that_would_fail_later_are_refused_by_name(changes, message):
  check_config(tiny.config("rows"))
  with pytest.raises(UserError, match=message):
    check_config(tiny.config("rows", **changes))


def test_the_smallest_and_largest_seeds_are_taken():
  for seed in (-(2**31), -1, 0, 2**32 - 1):
    config = tiny.config("rows", seed=seed)
    check_config(config)
    assert config.seed == seed
  keys = {tuple(jax.random.key_data(jax.random.key(seed)).tolist()) for seed in (-(2**31), -1, 0)}
  assert len(keys) == 3  # Each draws other weights.


def test_a_broken_pipe_that_is_not_the_output_is_a_crash():
  assert told(BrokenPipeError(errno.EPIPE, "Broken pipe")) == ""  # of a socket or a process


def test_head_behind_a_command_leaves_no_traceback(tmp_path):
  command = f"{sys.executable} -m xlmr_jax sweep --config=sweeps/alpha --workdir={tmp_path / 'sweep'} --list"
  # The reader has ended before the first line comes, so that it does not depend on who is faster.
  script = f"({command}; echo exit $? >&2) | true"
  result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
  assert result.stderr.splitlines()[-1] == "exit 1" and "Traceback" not in result.stderr
