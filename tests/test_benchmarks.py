"""The benchmarks measure what a run does: the same step, the same files; and say in a line what they cannot do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import packing, parity, step
from tests import tiny
from xlmr_jax.files import write_sealed_json
from xlmr_jax.training import sharding
from xlmr_jax.training.program import build_program

ROOT = Path(__file__).parents[1]


def command(module, *args, **env):
  """The command, and behind it whether TensorFlow was imported."""
  code = (
    f"import runpy, sys\nsys.argv = ['x', *sys.argv[1:]]\ntry:\n  runpy.run_module({module!r}, run_name='__main__')\n"
    "finally:\n  print('tensorflow' in sys.modules, file=sys.stderr)"
  )
  return subprocess.run(
    [sys.executable, "-c", code, *map(str, args)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=os.environ | env,
    timeout=300,
  )


def last_line(result):
  assert result.returncode == 0, result.stderr[-2000:]
  return json.loads(result.stdout.splitlines()[-1])


# --- a training step -----------------------------------------------------------------------------------------------

OWN_ROWS = "--config.rows_per_device=32"  # as configs/base.py has it for its own batch
SMALL = ("--config=tests/tiny.py", "--vocab=90", "--steps=2", OWN_ROWS)


@pytest.mark.slow
def test_step_of_a_config_over_all_devices_without_tensorflow():
  result = command("benchmarks.step", *SMALL, "--config.model.layers=1", "--device=cpu", "--rows=16")
  line = last_line(result)
  assert result.stderr.splitlines()[-1] == "False"
  assert line["rows"] == 16 and line["devices"] == 8 and line["seq_len"] == tiny.SEQ_LEN and line["mfu"] is None
  assert 3.0 < line["loss"] < 6.0 and line["tokens_per_s"] > 0 and line["first_call_s"] >= line["compile_s"]
  assert "1 x 16" in result.stdout  # the layers and width that were asked for


@pytest.mark.slow
def test_step_takes_the_peers_flags():
  line = last_line(
    command(
      "benchmarks.step",
      "--layers=1",
      "--hidden=32",
      "--heads=2",
      "--ffn=64",
      "--vocab=500",
      "--seq=64",
      "--rows=4",
      "--dtype=bf16",
      "--steps=1",
      "--dropout=0.1",
      XLA_FLAGS="",
    )
  )
  assert line["rows"] == 4 and line["devices"] == 1 and {"tokens_per_s", "step_ms", "loss"} <= set(line)


@pytest.mark.parametrize(
  "args, message",
  [
    (("--config=base", "--device=gpu"), "--device=gpu: JAX finds none here"),
    (("--config=base", "--layers=2"), "--layers: with --config"),
    (("--config=base", "--config.model.layrs=2"), "layrs"),
    (("--config=base", "--config.model.remat=some"), "config.model.remat='some'"),
    (("--config=base", "--seq=600"), "--seq=600 needs --config.model.max_positions=602"),
    (("--config=base", "--batches=none.npz"), "--batches=none.npz: cannot be read"),
    ((*SMALL, "--rows=12"), "batch_rows=12 does not divide over 8 devices"),
  ],
)
def test_step_refuses_in_one_line(args, message):
  result = command("benchmarks.step", *args)
  assert result.returncode == 1 and message in result.stderr
  assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1 and "Traceback" not in result.stderr


def stored(tmp_path, batches=2):
  made = [tiny.batch(np.random.default_rng(i), 16) for i in range(batches)]
  np.savez(tmp_path / "batches.npz", **{name: np.stack([batch[name] for batch in made]) for name in made[0]})
  return made, step.read_batches(str(tmp_path / "batches.npz"), tiny.VOCABULARY)


@pytest.mark.slow
def test_stored_batches_give_the_losses_of_the_run(tmp_path):
  """Those of build_program's own step, one after the other, the batches in turn."""
  made, batches = stored(tmp_path)
  config = tiny.config(batch_rows=16)
  found = step.measure(step.Task(config, tiny.SEQ_LEN, tiny.VOCABULARY, batches), 16, 1)
  mesh, expected = sharding.make_mesh(), []
  program = build_program(config, mesh, vocabulary_size=tiny.VOCABULARY, languages=3)
  with jax.set_mesh(mesh):
    state = program.init(jax.random.key(config.seed))
    for batch in (*made, *made):
      state, metrics = program.train_step(state, sharding.to_global(mesh, batch, 16), np.inf)
      expected.append(float(metrics["loss_sum"] / metrics["weight"]))
  np.testing.assert_allclose(found["losses"], expected, rtol=1e-5)


@pytest.mark.slow
def test_a_sweep_ends_where_memory_does_and_tells_the_best(monkeypatch, capsys):
  rates = {8: 100.0, 16: 220.0, 32: 210.0}

  def fake(task, rows, steps):
    if rows not in rates:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore lines")
    return {
      "tokens_per_s": rates[rows],
      "step_ms": 1.0,
      "mfu": None,
      "peak_memory_bytes": 2**30,
      "first_call_s": 1.0,
      "rows": rows,
    }

  monkeypatch.setattr(step, "_measure", fake)
  result = step.sweep(step.Task(tiny.config(), 32, 90, None), 1, 0, 2)
  assert result["rows"] == 16 and [entry["rows"] for entry in result["sweep"]] == [8, 16, 32, 64]
  assert "Out of memory" in result["sweep"][-1]["does_not_fit"]
  assert "rows 64: does not fit: RESOURCE_EXHAUSTED" in capsys.readouterr().out
  with pytest.raises(step.UserError, match="not even 8 rows per device"):
    step.sweep(step.Task(tiny.config(), 32, 90, None), 8, 0, 2)
  monkeypatch.setattr(step, "_measure", lambda *_: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: no")))
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):  # anything else is a crash, not the end of a sweep
    step.sweep(step.Task(tiny.config(), 32, 90, None), 1, 0, 2)


@pytest.mark.slow
def test_a_step_that_a_cpu_has_no_memory_for_is_not_run(tmp_path, monkeypatch):
  """It would be killed, and the sweep's results with it."""
  monkeypatch.setattr(step, "free_memory", lambda: 1000)
  with pytest.raises(step.DoesNotFit, match="are planned"):
    step.measure(step.Task(tiny.config(batch_rows=16), tiny.SEQ_LEN, tiny.VOCABULARY, stored(tmp_path)[1]), 16, 1)


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_checkpoint_tells_times_and_floors_of_a_run_of_the_config(tmp_path):
  line = last_line(
    command(
      "benchmarks.checkpoint",
      "--config=tests/tiny.py",
      OWN_ROWS,
      "--vocab=90",
      "--saves=2",
      "--seq=32",
      f"--directory={tmp_path}",
      XLA_FLAGS="",
    )
  )
  assert line["bytes"] > 3 * 4 * 90 * 16 and line["files"] > 8 and line["devices"] == 1
  for name in (
    "save_blocks_s",
    "first_save_blocks_s",
    "durable_s",
    "restore_s",
    "floor_write_s",
    "floor_read_s",
    "floor_sha256_s",
  ):
    assert line[name] >= 0, name
  assert not list(tmp_path.iterdir())  # it leaves nothing behind
  refused = command("benchmarks.checkpoint", f"--directory={tmp_path / 'none'}")
  assert refused.returncode == 1 and "no such folder" in refused.stderr


# --- packing -------------------------------------------------------------------------------------------------------


def test_packing_counts_rows_and_pads():
  """By hand: rows of 16, of which 14 are pieces where a document stands alone."""
  of = packing.count(np.array([14, 20, 0, 3]), 16)
  assert of["documents"] == 3 and of["pieces"] == 37 and of["lost"] == 6
  assert of["rows_apart"] == 1 + 2 + 1 and of["pads_apart"] == 0 + 8 + 11
  # 14 | 14 | the last 6 pieces and 3 more, each with its <s> and </s>: 3 pads
  assert of["rows"] == 3 and of["pads"] == 3
  total = packing.summary({"aa": of, "bb": packing.count(np.array([1]), 16)}, 16)
  assert total["rows"] == 4 and total["pad_share"] == {"total": 16 / 64, "min": ["aa", 3 / 48], "max": ["bb", 13 / 16]}
  assert total["rows_saved"]["max"] == ["aa", 0.25] and total["rows_saved"]["min"] == ["bb", 0.0]


# --- peers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_against_peers_tells_ratios_and_what_it_skips(tmp_path):
  """With a stand-in for each side: a Python whose benchmarks print one line, and programs that print a peer's."""
  (tmp_path / "peer_hf_torch_step.py").write_text("print('hf_torch cpu bf16 rows32: step 2.0 ms, 500 tokens/s, loss 10.4')")
  (tmp_path / "peer_hf_collator.py").write_text("print('hf_collator: 0.50M tokens/s')")
  python = tmp_path / "python"
  python.write_text(f"""#!/bin/sh
    case "$*" in
      *"-m benchmarks"*) echo '{{"tokens_per_s": 2000000.0}}' ;;
      *torchless*|*Flax*) echo "no such module" >&2; exit 1 ;;
      *"import torch"*) exit $TORCH ;;
      *) exec {sys.executable} "$@" ;;
    esac""")
  python.chmod(0o755)
  env = os.environ | {"PYTHON": str(python), "TORCH": "0"}
  run = lambda *args, **more: subprocess.run(  # noqa: E731
    ["benchmarks/against_peers.sh", *map(str, args)], cwd=ROOT, env=env | more, capture_output=True, text=True, timeout=60
  )
  out = run(tmp_path)
  lines = out.stdout.splitlines()
  assert out.returncode == 0 and len(lines) == 4, out.stdout + out.stderr
  assert lines[0].startswith("step, ") and lines[0].endswith("ours 2,000,000, peer 500 tokens/s, ratio 4000.00")
  assert lines[2].endswith("ours 2,000,000, peer 500,000 tokens/s, ratio 4.00")
  assert lines[3] == f"skipped: flax: {tmp_path}/peer_hf_flax_aot.py is not there"
  none = run(tmp_path, TORCH="1")
  assert none.returncode == 1 and none.stdout.count("skipped: ") == 3 and "has no torch and transformers" in none.stdout
  gone = run(tmp_path / "none")
  assert (
    gone.returncode == 1
    and gone.stdout == f"skipped: all: {tmp_path}/none is not there; pass the folder of the peers' programs\n"
  )


# --- input ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_input_beside_a_device_and_batches_for_the_step(tiny_rows, tmp_path):
  small = ("--seconds=0.4", f"--store={tiny_rows}", "--batch_rows=16")
  line = last_line(command("benchmarks.input", *small, "--step_ms=40"))
  assert 0 <= line["share_of_step_percent"] < 100 and line["step_ms"] == 40 and line["work_percent_of_step"] > 0
  last_line(command("benchmarks.input", *small, f"--write={tmp_path / 'b.npz'}", "--write_batches=3"))
  batches = step.read_batches(str(tmp_path / "b.npz"), tiny.VOCABULARY)
  assert batches["ids"].shape == (3, 16, tiny.SEQ_LEN) and batches["weights"].sum() > 0
  both = command("benchmarks.input", "--step_ms=1", "--tokens_per_s=1")
  assert both.returncode == 1 and "give one of them" in both.stderr


@pytest.mark.parametrize("embeddings", [True, False])
def test_languages_of_synthetic_rows_are_named_for_a_model_that_looks_at_them(embeddings):
  config = tiny.config("rows")
  assert step.name_languages(config, 3) is None and not config.model.languages
  config.model.update(family="xlm", max_positions=tiny.SEQ_LEN, language_embeddings=embeddings)
  mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
  with jax.set_mesh(mesh):
    sides = step.name_languages(config, 3)
    program = build_program(config, mesh, vocabulary_size=90, languages=3, seq_len=tiny.SEQ_LEN, sides=sides)
  assert sides == ((0, 0), (1, 1), (2, 2)) and len(config.model.languages) == 3 * embeddings
  assert ("language_embedding" in program.state.params) == embeddings


# --- scores side by side -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scores_beside_the_peers_are_of_the_task_s_metric(tmp_path):
  """`xlmr evaluate` sorts a file's keys, so that its first metric is one by the alphabet; a task may be in English alone."""

  def scores(f1, precision):
    languages = {"en": f1, "de": f1 - 0.1, "sw": f1 - 0.3}
    panx = {name: {"span_f1": [x, x + 0.02], "precision": [precision] * 2} for name, x in languages.items()}
    return {"scores": {"panx": {"zero_shot": panx}, "sst2": {"zero_shot": {"en": {"accuracy": [f1, None]}}}}}

  write_sealed_json(tmp_path / "ours.json", scores(0.8, 0.9) | {"seeds": 2})
  (tmp_path / "a=b").mkdir()
  (tmp_path / "a=b" / "peer.json").write_text(json.dumps(scores(0.7, 0.6)))
  result = command("benchmarks.downstream", f"--compare={tmp_path / 'ours.json'},{tmp_path / 'a=b' / 'peer.json'}")
  assert result.returncode == 0, result.stderr[-2000:]
  lines = result.stdout.splitlines()
  assert lines[2] == "| ours | 81.0 ± 1.4 | 71.0 | 51.0 | 61.0 ± 1.4 | 2 |"
  assert lines[3] == "| peer | 71.0 ± 1.4 | 61.0 | 41.0 | 51.0 ± 1.4 | 2 |"
  assert lines[7] == "| ours | nan ± nan | - | 2 |"
  other = command("benchmarks.downstream", f"--compare={tmp_path / 'ours.json'}", "--setting=per_language")
  assert other.returncode == 1 and "no file has scores of the setting per_language" in other.stderr


# --- an accelerator beside the CPU -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_parity_finds_a_step_that_computes_something_else(monkeypatch, capsys):
  """The accelerator is the CPU here: the same step is equal to the bit, and a wrong gradient or loss is found."""
  config = tiny.config(**{"model.attention_dropout": 0.1})
  comparison = parity.Comparison(config, 2, tiny.SEQ_LEN, tiny.VOCABULARY)
  entries, wrong = parity.compare(comparison)
  steps = [(entry["dtype"], entry["attention"], entry["attention_dropout"]) for entry in entries]
  assert steps == [(dtype, "xla", rate) for dtype in ("float32", "bfloat16") for rate in (0.1, 0.0)] and not wrong
  assert all(entry["gradients"] == entry["loss"] == 0.0 for entry in entries[:2]) and entries[2]["gradients"] > 1e-4
  assert "float32 cudnn, attention_dropout 0.1: not run: it runs on GPU, not on cpu" in capsys.readouterr().out

  for dtype in ("float32", "bfloat16"):
    comparison.bounds(dtype, 0.1), comparison.bounds(dtype, 0.0)  # Those of the right step.
  run = parity.Comparison.step
  for change in (
    lambda found: found._replace(loss=1.01 * found.loss),
    lambda found: found._replace(loss=float("nan")),
    lambda found: found._replace(gradients=found.gradients | {"head_norm/scale": 1.2 * found.gradients["head_norm/scale"]}),
    lambda found: found._replace(
      gradients=found.gradients | {"head_bias": np.full_like(found.gradients["head_bias"], np.nan)}
    ),
  ):
    with monkeypatch.context() as patched:
      patched.setattr(parity.Comparison, "step", lambda *args, change=change: change(run(*args)))
      found = parity.compare(comparison)[1]
    assert found == [f"{dtype} xla, attention_dropout {rate}" for dtype in ("float32", "bfloat16") for rate in ("0.1", "0")]


def test_parity_refuses_a_machine_without_an_accelerator():
  refused = command("benchmarks.parity", "--config=tests/tiny.py")
  assert refused.returncode == 1 and "JAX finds no accelerator here" in refused.stderr
