"""The flags of `xlmr demo`: what would be ignored is refused."""

import sys
import types

import pytest

from tests.test_paths import command  # noqa: F401  It is a fixture.


@pytest.mark.parametrize("flags, said", [
  (("--text=A", "--parallel=B"), "--text, --parallel: give one of them"),
  (("--text=",), "--text= is empty"), (("--parallel=",), "--parallel= is empty"),
  (("--text=", "--parallel=B"), "--text= is empty"),
  (("--scale=0.1",), "--scale works only together with --text=DIR or --parallel=DIR"),
  (("--seed=1",), "--seed works only together with --text=DIR or --parallel=DIR"),
  (("--text=A", "--pass_on=--config.train_steps=9"), "--pass_on: is for the whole demo, and --text only writes a folder"),
  (("--parallel=A", "--workdir=B"), "--workdir: is for the whole demo, and --parallel only writes a folder"),
])  # fmt: skip
def test_flags_that_would_be_ignored_are_refused(command, tmp_path, monkeypatch, flags, said):  # noqa: F811
  monkeypatch.chdir(tmp_path)
  runs = types.SimpleNamespace(run_demo=lambda *_: pytest.fail("the whole demo began"))
  monkeypatch.setitem(sys.modules, "xlmr_jax.demo.run", runs)
  code, out, err = command("demo", *flags)
  assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith(f"error: {said}"), err
  assert list(tmp_path.iterdir()) == []


def test_what_is_written_takes_its_size_and_seed(command, tmp_path):  # noqa: F811
  code, out, err = command("demo", f"--parallel={tmp_path / 'a'}", "--scale=0.001", "--seed=1")
  assert code == 0 and '"pairs": 14' in out, err
