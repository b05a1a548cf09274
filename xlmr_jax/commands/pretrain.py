"""Command: pretrain a config in a workdir, from its newest checkpoint if it has one.

  xlmr pretrain --config=configs/base.py --workdir=DIR [--config.data.rows=ROWS]

Exit codes: 0 done, 1 the user must act, 42 start me again, 70 a crash.
"""

import fcntl
import json
import shutil
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from xlmr_jax import open_model as runs
from xlmr_jax.errors import EXIT_DONE, UserError, run_command
from xlmr_jax.huggingface.folder import is_folder

FLAGS = flags.FLAGS
_LOCKS = []  # kept open for as long as the process lives
# What a workdir's run may be continued with.
MAY_CHANGE = (
  "compile_cache",
  "compiler_options",
  "mesh",
  "micro_batches",
  "rows_per_device",
  "log",
  "checkpoint",
  "watchdog_s",
  "data.rows",
  "evaluate",
  "stop",
)


def define_flags() -> None:
  config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/base.py or configs/base.py:runlocal")
  flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, logs. Resumes what it holds.")
  flags.DEFINE_enum(
    "hosts",
    "off",
    ["off", "auto", "explicit"],
    "Several processes as one run: auto on Cloud TPU, GKE and Slurm; explicit with the next three",
  )
  flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0")
  flags.DEFINE_integer("processes", 0, "How many processes there are")
  flags.DEFINE_integer("process", -1, "Which one this is")
  flags.DEFINE_list("allow_change", [], "Config keys in which a continued run may differ, e.g. optimizer.peak_lr,seed")
  flags.mark_flags_as_required(["config", "workdir"])


def read_config() -> ConfigDict:
  """FLAGS.config. UserError if its file could not be loaded, which absl tells only now."""
  try:
    FLAGS.config.lock()
  except OSError as error:
    raise UserError(" ".join(str(error).split())) from None
  return FLAGS.config


def flatten(config: dict, prefix: str = "") -> dict[str, object]:
  """{"model.layers": 12, ...}"""
  flat = {}
  for key, value in config.items():
    flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
  return flat


def check_config(config: ConfigDict) -> None:
  """Refuses values that would fail later, by name."""
  positive = (
    "train_steps",
    "batch_rows",
    "micro_batches",
    "max_bad_steps",
    "model.layers",
    "model.hidden",
    "model.heads",
    "model.ffn",
    "log.every_steps",
    "checkpoint.every_steps",
  )
  flat = flatten(config.to_dict())
  for name in positive:
    if flat[name] < 1:
      raise UserError(f"config.{name}={flat[name]}: must be at least 1")
  if config.rows_per_device < 0:
    raise UserError(f"config.rows_per_device={config.rows_per_device}: must be at least 0")
  if not 0.0 <= config.data.alpha <= 1.0:
    raise UserError(f"config.data.alpha={config.data.alpha}: must lie in [0, 1]")
  for name in ("model.dropout", "model.attention_dropout", "data.mask_share"):
    if not 0.0 <= flat[name] < 1.0:
      raise UserError(f"config.{name}={flat[name]}: must lie in [0, 1)")
  if config.model.hidden % config.model.heads:
    raise UserError(
      f"config.model.hidden={config.model.hidden} does not divide into config.model.heads={config.model.heads}"
    )
  if config.checkpoint.keep < 2:
    raise UserError(f"config.checkpoint.keep={config.checkpoint.keep}: at least 2, or a damaged newest one leaves nothing")
  for name, values in {
    "remat": ("none", "ffn", "dots", "full"),
    "dropout_bits": ("hash", "rbg"),
    "fuse": ("auto", "on", "off"),
  }.items():
    if config.model[name] not in values:
      raise UserError(f"config.model.{name}={config.model[name]!r}: one of {', '.join(values)}")
  if config.model.dtype not in ("bfloat16", "float32"):
    raise UserError(f"config.model.dtype={config.model.dtype!r}: bfloat16 or float32")
  if config.mesh.reduce_dtype not in ("bfloat16", "float32"):
    raise UserError(f"config.mesh.reduce_dtype={config.mesh.reduce_dtype!r}: bfloat16 or float32")
  if "://" in config.compile_cache:
    raise UserError(f"config.compile_cache={config.compile_cache!r}: a folder, off, or empty for the default one")
  check_evaluation(config)
  if not config.data.rows:
    raise UserError(
      "config.data.rows is not set; make rows with `xlmr build_rows` and pass "
      "--config.data.rows=ROWS, or =demo for the built-in corpus"
    )


def check_evaluation(config: ConfigDict) -> None:
  """Refuses values of config.evaluate and config.stop by name."""
  from xlmr_jax.evaluation.tasks.registry import SETTINGS

  flat = flatten(config.to_dict())
  least = {
    "evaluate.seeds": 1,
    "evaluate.keep_unevaluated": 1,
    "evaluate.every_steps": 0,
    "evaluate.max_examples": 0,
    "evaluate.max_train_examples": 0,
    "stop.patience": 0,
    "stop.min_gain": 0,
    "stop.min_steps": 0,
  }
  for name, value in least.items():
    if not flat[name] >= value:
      raise UserError(f"config.{name}={flat[name]}: must be at least {value}")
  if not config.evaluate.wait_s > 0:
    raise UserError(f"config.evaluate.wait_s={config.evaluate.wait_s}: must be above 0")
  if config.evaluate.setting not in SETTINGS:
    raise UserError(f"config.evaluate.setting={config.evaluate.setting!r}: one of {', '.join(SETTINGS)}")
  if len(set(config.evaluate.tasks)) < len(config.evaluate.tasks):
    raise UserError(f"config.evaluate.tasks={config.evaluate.tasks}: names a task twice")
  for part in filter(None, config.evaluate.data.split(",")):
    if not all(part.partition("=")):
      raise UserError(f"config.evaluate.data={config.evaluate.data!r}: {part!r} is not NAME=PATH")
  if config.stop.on_nonfinite not in ("skip", "count", "stop"):
    raise UserError(f"config.stop.on_nonfinite={config.stop.on_nonfinite!r}: one of skip, count, stop")
  task, _, language = config.stop.score.partition("/")
  if task and task not in config.evaluate.tasks:
    raise UserError(
      f"config.stop.score={config.stop.score!r}: {task!r} is not in config.evaluate.tasks={tuple(config.evaluate.tasks)}"
    )
  if language and config.evaluate.languages and language not in config.evaluate.languages:
    raise UserError(
      f"config.stop.score={config.stop.score!r}: {language!r} is not in config.evaluate.languages="
      f"{tuple(config.evaluate.languages)}"
    )


def open_rows(config: ConfigDict, workdir: Path):
  """The RowStore of the config, checked against its model."""
  from xlmr_jax.data.rows import RowStore

  rows = config.data.rows
  if rows == "demo":
    from xlmr_jax.demo import corpus
    from xlmr_jax.run import hosts

    hosts.on_first(lambda: corpus.build_demo_rows(workdir) or 0)
    rows = corpus.demo_rows(workdir)
  store = RowStore(rows, languages=tuple(config.data.languages) or None)
  wanted = config.model.vocabulary_size
  if wanted and wanted != store.vocabulary_size:
    raise UserError(
      f"config.model.vocabulary_size={wanted}, but the rows in {rows} were made with a vocabulary of "
      f"{store.vocabulary_size} ({store.tokenizer_path}); build them with the other vocabulary"
    )
  if store.seq_len + 2 > config.model.max_positions:
    raise UserError(
      f"config.model.max_positions={config.model.max_positions}: the rows in {rows} have "
      f"{store.seq_len} tokens and need {store.seq_len + 2}"
    )
  for split in ("train", "held_out"):
    empty = [name for name, count in zip(store.languages, store.counts(split)) if not count]
    if empty:
      raise UserError(
        f"{rows} has no {split} rows in {', '.join(empty)}; build them with --held_out above 0, or leave "
        "those languages out with --config.data.languages"
      )
  return store


def is_below(key: str, names: tuple[str, ...]) -> bool:
  """Whether a dotted key is one of names or lies below one."""
  return any(key == name or key.startswith(f"{name}.") for name in names)


def refuse_other_run(workdir: Path, record: dict, allowed: tuple[str, ...] = ()) -> None:
  """UserError if the workdir holds a run with another config or other rows; what may change is said and let pass.

  allowed: further keys that may change, such as a learning rate after a divergence.
  """
  path = workdir / "config.json"
  if not path.exists():
    return
  if is_folder(workdir):
    raise UserError(
      f"{workdir} is a Hugging Face folder; make a run of it: xlmr convert from-hf --source={workdir} --workdir=RUN"
    )
  try:
    before = json.loads(path.read_text())
    old, new = flatten(runs.with_defaults(before["config"])), flatten(json.loads(json.dumps(record["config"])))
  except (ValueError, KeyError) as error:
    raise UserError(f"{path} cannot be read ({error}); restore it or use a new workdir") from None
  if runs.is_untrained_import(before):
    runs.refuse_other_model(workdir, before, record)
    return
  if before["rows_fingerprint"] != record["rows_fingerprint"]:
    raise UserError(
      f"{workdir} was trained on other rows (fingerprint {before['rows_fingerprint'][:12]}, now "
      f"{record['rows_fingerprint'][:12]}); use those or a new workdir"
    )
  changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
  refused = sorted(key for key in changed if not is_below(key, (*MAY_CHANGE, *allowed)))
  if refused:
    what = ", ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in refused)
    raise UserError(
      f"{workdir} holds a run of another config ({what}); use a new workdir, or go on with the change: "
      f"--allow_change={','.join(refused)}"
    )
  for key in sorted(changed):
    print(f"continuing with config.{key}={new.get(key)!r} (was {old.get(key)!r})", flush=True)


def lock_workdir(workdir: Path) -> None:
  """UserError if another process trains in this workdir; the lock goes with the process."""
  lock = (workdir / ".lock").open("w")
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    raise UserError(f"{workdir} is being trained in by another process; wait for it or use a new workdir") from None
  _LOCKS.append(lock)


def main(argv) -> int:
  if len(argv) > 1:
    raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at INFO
  if "://" in FLAGS.workdir:
    raise UserError(f"--workdir={FLAGS.workdir}: must be a folder; mount the store (see launch/README.md)")
  config, workdir = read_config(), Path(FLAGS.workdir).absolute()
  check_config(config)
  import jax  # after the cheap checks

  from xlmr_jax.run import compile_cache, hosts
  from xlmr_jax.run import metrics as logs
  from xlmr_jax.training.loop import mesh_of, read_stop, train

  hosts.keep_freed_memory()
  hosts.start(FLAGS.hosts, FLAGS.coordinator, FLAGS.processes, FLAGS.process)
  preemption = hosts.Preemption()
  mesh_of(config)
  compile_cache.use(config.compile_cache, workdir)
  hosts.refuse_disagreement({"config": config.to_dict(), "workdir": str(workdir), "versions": hosts.versions()})
  hosts.refuse_unshared(workdir)
  store = hosts.together(lambda: open_rows(config, workdir))
  record = {
    "config": config.to_dict(),
    "rows_fingerprint": store.fingerprint,
    "languages": store.languages,
    "vocabulary_size": store.vocabulary_size,
    "tokenizer_sha256": store.manifest["tokenizer_sha256"],
    "rows": str(store.root.absolute()),
    "seq_len": store.seq_len,
    "versions": hosts.versions(),
  }
  hosts.refuse_disagreement({key: record[key] for key in ("rows_fingerprint", "languages")})
  refuse_other_run(workdir, record, tuple(FLAGS.allow_change))
  imported = (workdir / "config.json").exists() and runs.read_run(workdir).get("imported")
  record |= {"imported": imported} if imported else {}  # for good: a run that lost its checkpoints begins with it again

  def begin():
    if jax.process_index() == 0:
      workdir.mkdir(parents=True, exist_ok=True)
      lock_workdir(workdir)
      shutil.copyfile(store.tokenizer_path, workdir / "tokenizer.model")  # for evaluation where the rows are not
      logs.write_json(workdir / "config.json", record)
      (workdir / "result.json").unlink(missing_ok=True)  # a stopped run may go on

  code = train(
    config,
    workdir,
    store,
    preemption,
    lambda: hosts.together(begin),
    (lambda abstract: runs.load_initial(workdir, abstract)) if imported else None,
  )
  if code == EXIT_DONE and jax.process_index() == 0:
    last = json.loads((workdir / "held_out.jsonl").read_text().splitlines()[-1])
    result = {
      "step": last["step"],
      "held_out_loss": last["mean_loss"],
      "languages": len(last["languages"]),
      "workdir": str(workdir),
    }
    stop = read_stop(workdir) if last["step"] < config.train_steps else None
    result |= {"stopped_by": stop["reason"]} if stop else {}
    logs.write_json(workdir / "result.json", result)  # its presence says that the run is done
    print(json.dumps(result))
  return code


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parser; a misspelt config key or an unreadable config file is one line and exit 1."""
  try:
    return FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
  define_flags()
  app.run(run_command(main), flags_parser=parse_flags)
