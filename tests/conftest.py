"""Before anything imports jax: the CPU, as 8 devices, so that meshes can be tested on any machine."""

import importlib.metadata
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# What XLA does to a program itself stays, but it generates code in the quickest way: a step compiles in an eighth of the
# time. Later versions of jaxlib do not know the last flag, and end a process that sets it.
_FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0",
          "--xla_cpu_parallel_codegen_split_count=1"]  # fmt: skip
if importlib.metadata.version("jaxlib").startswith("0.10."):
  _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
_FOLDER = tempfile.TemporaryDirectory(prefix="xlmr_jax_tests")
# One compilation of each program, however many tests and child processes run it: all of pytest-xdist's workers inherit the
# folder of the process that starts them. What one of them finds half written, it compiles itself.
if "PYTEST_XDIST_WORKER" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_FOLDER.name}/compiled"
  os.mkdir(f"{_FOLDER.name}/compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# What the library keeps per user stays out of the user's own folder.
os.environ["XDG_CACHE_HOME"] = f"{_FOLDER.name}/home"

import pytest

SHARED = Path(__file__).parents[2] / "shared"

# Files whose tests take longest, the longest first (ours, measured). A worker takes whole files, so that a long one that
# began last would leave the other workers with nothing to do.
LONGEST = (
  "test_train", "test_bert", "test_recovery", "test_plan", "test_attention", "test_phases", "test_convert", "test_finetune",
  "test_model", "test_tasks", "test_demo_tasks", "test_evaluate", "test_build", "test_build_corpus", "test_sweep_configs",
  "test_buckets_corpus", "test_launch_pods", "test_vocabularies", "test_own_files", "test_masking_words", "test_page",
)  # fmt: skip


def pytest_configure(config):
  config.option.loadscopereorder = False  # pytest-xdist would sort files by the number of their tests.


def pytest_collection_modifyitems(items):
  rank = {name: number for number, name in enumerate(LONGEST)}
  items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def shared() -> Path:
  """The folder of real data beside the checkout, where there is one."""
  if not SHARED.is_dir():
    pytest.skip("needs ../shared, the folder of real data beside the checkout")
  return SHARED


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory) -> Path:
  from tests import tiny

  return tiny.make_store(tmp_path_factory.mktemp("tiny") / "rows")


@pytest.fixture(scope="session")
def tiny_store(tiny_rows):
  from xlmr_jax.data.rows import RowStore

  return RowStore(tiny_rows)


@pytest.fixture(scope="session")
def tiny_run(tiny_store, tiny_rows, tmp_path_factory) -> Path:
  """The workdir of a finished run of tiny.config(), with the record that `xlmr pretrain` writes."""
  from tests import tiny
  from xlmr_jax.run.workdir import RunRecord, Workdir

  workdir, config = tmp_path_factory.mktemp("tiny_run"), tiny.config(tiny_rows)
  RunRecord(
    config=config.to_dict(), vocabulary_size=tiny.VOCABULARY, tokenizer_sha256=tiny_store.manifest["tokenizer_sha256"],
    seq_len=tiny.SEQ_LEN, rows_fingerprint=tiny_store.fingerprint, languages=tiny_store.languages, rows=str(tiny_rows),
  ).write(Workdir(workdir))  # fmt: skip
  assert tiny.run(config, workdir, tiny_store) == 0
  return workdir


@pytest.fixture(scope="session")
def bucket_port():
  """The port of a server of buckets, which this process's clients ask for as long as it lives: they remember it.

  So do the tests that come after it in this process, and their children. Their paths are none of a bucket.
  """
  from tests import bucket_server

  with bucket_server.serving() as port, pytest.MonkeyPatch.context() as patched:
    for name, value in bucket_server.environment(port).items():
      patched.setenv(name, value)
    yield port


@pytest.fixture(autouse=True)
def _as_it_was():
  """Undoes what a command in a test's own process leaves for its end: handlers of signals, and logs switched off."""
  numbers = (signal.SIGINT, signal.SIGTERM)
  handlers, disabled = [signal.getsignal(number) for number in numbers], logging.root.manager.disable
  yield
  logging.disable(disabled)
  if "xlmr_jax.run.signals" in sys.modules:
    sys.modules["xlmr_jax.run.signals"].listener.forget()
  for number, handler in zip(numbers, handlers):
    if signal.getsignal(number) != handler:
      signal.signal(number, handler)
