"""A run's folder as the commands read it: its record, its vocabulary, the parameters of a checkpoint.

A run that was imported has its first parameters in initial/0, a Hugging Face folder with a manifest. A Hugging Face folder
itself can stand wherever a run's can: it is a run at step 0.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.errors import UserError

INITIAL = Path("initial") / "0"  # a manifest names its step
# What of a config a model's parameters depend on.
SIZES = ("layers", "hidden", "heads", "ffn", "max_positions")


def read_run(workdir: Path) -> dict:
  """config.json of a run; of a Hugging Face folder, the record of a run that was made from it."""
  from xlmr_jax.huggingface import folder

  path = workdir / "config.json"
  if folder.is_folder(workdir):
    return record_of(folder.open_folder(workdir))
  try:
    record = json.loads(path.read_text())
    record["config"] = with_defaults(record["config"])
  except FileNotFoundError:
    raise UserError(f"{path} is missing: {workdir} is neither the workdir of a run nor a Hugging Face folder") from None
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path} cannot be read ({error}); restore it") from None
  return record


def with_defaults(config: dict, defaults: dict | None = None) -> dict:
  """A run's config with today's default for each key that it has not: it was begun before there was one."""
  from configs import common

  defaults = common.get_config().to_dict() if defaults is None else defaults
  return {
    **config,
    **{
      key: with_defaults(config.get(key, {}), value) if isinstance(value, dict) else config.get(key, value)
      for key, value in defaults.items()
    },
  }


def record_of(source) -> dict:
  """The record of a run imported from a huggingface.folder.Folder, before any training: no rows yet."""
  import hashlib

  from configs import common

  config, sizes, given = common.get_config(), source.sizes, source.config
  config.model.update(
    layers=sizes.layers,
    hidden=sizes.hidden,
    heads=sizes.heads,
    ffn=sizes.ffn,
    max_positions=sizes.positions,
    vocabulary_size=sizes.vocabulary,
    isolate_documents=source.isolate_documents,
    dropout=float(given.get("hidden_dropout_prob", 0.1)),
    attention_dropout=float(given.get("attention_probs_dropout_prob", 0.1)),
    init_std=float(given.get("initializer_range", 0.02)),
  )
  return {
    "config": config.to_dict(),
    "imported": str(source.path),
    "rows_fingerprint": None,
    "languages": [],
    "rows": None,
    "vocabulary_size": sizes.vocabulary,
    "tokenizer_sha256": hashlib.sha256(source.vocabulary).hexdigest(),
    "seq_len": sizes.positions - 2,
  }


def is_untrained_import(record: dict) -> bool:
  """Whether main has not begun with an imported run: nothing but the model is settled."""
  return "imported" in record and record["rows_fingerprint"] is None


def source_of(workdir: Path, record: dict):
  """The opened Hugging Face folder that a run began from, None where there is none (any more)."""
  from xlmr_jax.huggingface import folder

  if folder.is_folder(workdir):
    return folder.open_folder(workdir)
  if "imported" in record and (workdir / INITIAL).is_dir():
    return folder.open_folder(workdir / INITIAL, tokenizer=False)
  return None


def vocabulary_of(workdir: Path, record: dict):
  """The run's Tokenizer. UserError: it is missing, or not the one that the run was made with."""
  from xlmr_jax.data.tokenizer import Tokenizer
  from xlmr_jax.huggingface import folder
  from xlmr_jax.huggingface.tokenizer import read_vocabulary

  if folder.is_folder(workdir):
    return Tokenizer(workdir, read_vocabulary(workdir)[0])
  own = workdir / "tokenizer.model"
  tokenizer = Tokenizer(own if own.exists() or not record.get("rows") else Path(record["rows"]) / "tokenizer.model")
  if tokenizer.sha256 != record["tokenizer_sha256"]:
    raise UserError(f"{tokenizer.path} is not the vocabulary that the run in {workdir} was made with")
  return tokenizer


def refuse_other_model(workdir: Path, before: dict, record: dict) -> None:
  """UserError if a config or its rows do not fit what was imported into the workdir."""
  old, new = before["config"]["model"], record["config"]["model"]
  for key in SIZES:
    if old[key] != new[key]:
      raise UserError(
        f"config.model.{key}={new[key]}, but {before['imported']}, imported into {workdir}, has {old[key]}; "
        f"use --config=configs/imported.py:{workdir}, which takes its sizes"
      )
  for key, what in (("vocabulary_size", "entries"), ("tokenizer_sha256", "sha256")):
    if before[key] != record[key]:
      raise UserError(
        f"{record['rows']} was made with another vocabulary ({what} {str(record[key])[:12]}) than "
        f"{before['imported']} has ({str(before[key])[:12]}); build the rows with --tokenizer="
        f"{workdir / 'tokenizer.model'}"
      )


# --- parameters --------------------------------------------------------------------------------------------------


def params_shapes(config: ConfigDict, vocabulary_size: int) -> Any:
  """jax.ShapeDtypeStruct of each parameter of the run's model, on the first device."""
  import jax

  from xlmr_jax.training.loop import build_model, build_optimizer, make_init

  init = make_init(build_model(config, vocabulary_size), build_optimizer(config)[0])
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
    jax.eval_shape(init, jax.random.key(config.seed)).params,
  )


def load_initial(workdir: Path, abstract_params: Any) -> Any:
  """The parameters that an imported run begins with. UserError: they are gone, damaged, or of another model."""
  from etils import epath

  from xlmr_jax.huggingface import folder
  from xlmr_jax.run import checkpoint

  try:
    checkpoint.verify(epath.Path(workdir / INITIAL))
  except checkpoint.DamagedError as error:
    raise UserError(f"the imported parameters cannot be used: {error}; import again into a new workdir") from None
  return folder.load(folder.open_folder(workdir / INITIAL, tokenizer=False), abstract_params)


def load_params(workdir: Path, record: dict, config: ConfigDict, name: str) -> tuple[int, Any]:
  """(step, parameters) of a checkpoint: a step, "best", "latest" or "initial", as before step 0.

  An imported run without checkpoints is at its latest at step 0, as a Hugging Face folder is at its latest and best.
  """
  import jax

  from xlmr_jax.huggingface import folder
  from xlmr_jax.run import checkpoint
  from xlmr_jax.training.loop import build_model, build_optimizer, make_init

  if folder.is_folder(workdir):
    if name not in ("best", "latest", "initial", "0"):
      raise UserError(f"--checkpoint={name}: {workdir} is a Hugging Face folder; latest is all it has")
    return 0, folder.load(folder.open_folder(workdir), params_shapes(config, record["vocabulary_size"]))
  steps = checkpoint.sound_steps(workdir / "checkpoints")
  if name == "initial" or (name == "latest" and not steps and "imported" in record):
    if "imported" in record:
      return 0, load_initial(workdir, params_shapes(config, record["vocabulary_size"]))
    init = make_init(build_model(config, record["vocabulary_size"]), build_optimizer(config)[0])
    return 0, jax.jit(lambda key: init(key).params)(jax.random.key(config.seed))
  directory = workdir / ("best" if name == "best" else "checkpoints")
  if name == "best":
    steps = checkpoint.sound_steps(directory)
    if not steps:
      raise UserError(f"--checkpoint=best: {directory} holds none; run the evaluator first, or name a step or latest")
  elif not steps:
    raise UserError(f"{directory} holds no finished checkpoint")
  elif name != "latest" and name not in map(str, steps):
    raise UserError(f"--checkpoint={name}: {workdir} has {', '.join(map(str, sorted(steps)))}, latest, initial")
  step = steps[0] if name in ("best", "latest") else int(name)
  try:
    return step, checkpoint.restore_params(directory, step, params_shapes(config, record["vocabulary_size"]))
  except checkpoint.DamagedError as error:
    raise UserError(f"checkpoint {step} is damaged: {error}; choose another with --checkpoint") from None
