"""Refuses by name what a config must not say, before anything is opened, compiled or written."""

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config import SETTINGS, parse_row_shares
from xlmr_jax.errors import UserError
from xlmr_jax.files import flatten
from xlmr_jax.secrets import is_secret_name, redacted


def _refuse_unless_one_of(name: str, value: object, values: tuple) -> None:
  if value not in values:
    raise UserError(f"config.{name}={value!r}: must be one of {', '.join(map(str, values))}")


def _refuse_below(flat: dict[str, Any], least: Mapping[str, float]) -> None:
  for name, value in least.items():
    if not flat[name] >= value:  # Of NaN, every comparison is false.
      raise UserError(f"config.{name}={flat[name]}: must be at least {value}")


def check_config(config: ConfigDict) -> None:
  """Refuses by name every value that would fail later. UserError."""
  flat = flatten(config.to_dict())
  refuse_secrets(flat)  # Before any other message could show one.
  least = {
    "train_steps": 1,
    "batch_rows": 1,
    "micro_batches": 1,
    "max_bad_steps": 1,
    "max_recoveries": 0,
    "check_replicas_every": 0,
    "spikes.mean_steps": 1,
    "model.layers": 1,
    "model.hidden": 1,
    "model.heads": 1,
    "model.ffn": 1,
    "log.every_steps": 1,
    "checkpoint.every_steps": 1,
    "checkpoint.keep_every": 0,
    "checkpoint.max_failed_saves": 1,
    "held_out.every_steps": 0,
    "held_out.max_rows_per_language": 0,
    "model.vocabulary_size": 0,
    "model.token_types": 1,
    "model.max_positions": 3,
    "optimizer.warmup_steps": 0,
    "optimizer.end_lr": 0.0,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": 0.0,
    "rows_per_device": 0,
    "watchdog_s": 0.0,
    "watchdog.join_s": 1.0,
    "watchdog.heartbeat_s": 5.0,
    "watchdog.compile_s": 0.0,
    "watchdog.restore_s": 0.0,
    "watchdog.save_s": 0.0,
    "alarms.max_epochs": 0.0,
    "alarms.held_out_rise": 0.0,
    "alarms.share_drift": 0.0,
    "alarms.spike_nats": 0.0,
  }
  _refuse_below(flat, least)
  if not 0.0 <= config.data.alpha <= 1.0:
    raise UserError(f"config.data.alpha={config.data.alpha}: must lie in [0, 1]")
  try:
    parse_row_shares(config.data.row_shares)
  except ValueError as error:
    raise UserError(f"config.data.row_shares={config.data.row_shares!r}: {error}") from None
  if not 0.0 <= config.data.parallel_share <= 1.0:
    raise UserError(f"config.data.parallel_share={config.data.parallel_share}: must lie in [0, 1]")
  for name in ("model.dropout", "model.attention_dropout", "optimizer.b1", "optimizer.b2"):
    if not 0.0 <= flat[name] < 1.0:
      raise UserError(f"config.{name}={flat[name]}: must lie in [0, 1)")
  if config.spikes.factor and not 1.0 < config.spikes.factor < float("inf"):
    raise UserError(f"config.spikes.factor={config.spikes.factor}: must be above 1, or 0 for no limit")
  if not config.log.goodput_s > 0.0:
    raise UserError(f"config.log.goodput_s={config.log.goodput_s}: must be above 0")
  if not 0.0 < config.data.mask_share < 1.0:
    raise UserError(f"config.data.mask_share={config.data.mask_share}: must lie in (0, 1)")
  if not 1.0 <= config.data.mask_span_mean <= 5.0:
    raise UserError(f"config.data.mask_span_mean={config.data.mask_span_mean}: must lie in [1, 5]; SpanBERT has 3.8")
  for name in ("model.init_std", "optimizer.peak_lr", "optimizer.eps", "optimizer.power"):
    if not 0.0 < flat[name] < float("inf"):
      raise UserError(f"config.{name}={flat[name]}: must be a number above 0")
  for name in ("optimizer.end_lr", "optimizer.weight_decay", *(name for name in flat if name.endswith("_s"))):
    if not flat[name] <= 1e9:  # Seconds beyond that, some thirty years, are more than a thread or a lock can wait.
      raise UserError(f"config.{name}={flat[name]}: must be at most 1e9")
  if not -(2**31) <= config.seed < 2**32:
    raise UserError(f"config.seed={config.seed}: must lie in [-2**31, 2**32), because JAX's keys are made of 32 bits")
  try:
    re.compile(config.optimizer.decay_pattern)
  except re.error as error:
    raise UserError(
      f"config.optimizer.decay_pattern={config.optimizer.decay_pattern!r}: no regular expression ({error})"
    ) from None
  if config.optimizer.warmup_steps >= config.train_steps:
    raise UserError(
      f"config.optimizer.warmup_steps={config.optimizer.warmup_steps} is not below config.train_steps="
      f"{config.train_steps}: the learning rate would never come to its peak; set both"
    )
  _check_decay(config)
  every = config.checkpoint.every_steps
  for name in ("checkpoint.keep_every", *(["evaluate.every_steps"] if config.evaluate.tasks else [])):
    if flat[name] % every:
      raise UserError(
        f"config.{name}={flat[name]} is no multiple of config.checkpoint.every_steps={every}: there would be no "
        f"checkpoint at most of its steps; use {-(-flat[name] // every) * every}"
      )
  if not 0.0 < config.model.layer_norm_epsilon < 1.0:
    raise UserError(f"config.model.layer_norm_epsilon={config.model.layer_norm_epsilon}: must lie in (0, 1)")
  if config.model.hidden % config.model.heads:
    raise UserError(
      f"config.model.hidden={config.model.hidden} does not divide into config.model.heads={config.model.heads}"
    )
  if config.checkpoint.keep < 2:
    raise UserError(
      f"config.checkpoint.keep={config.checkpoint.keep}: must be at least 2, because a damaged newest "
      "checkpoint would otherwise leave nothing"
    )
  for name, values in {
    "model.family": ("xlmr", "bert", "xlm"),
    "model.head": ("", "dense", "linear"),
    "data.verify": ("once", "always", "off"),
    "data.mask_unit": ("piece", "word", "span"),
    "optimizer.schedule": ("polynomial", "cosine", "wsd", "inverse_sqrt"),
    "model.attention": ("auto", "xla", "pallas", "splash", "cudnn"),
    "model.remat": ("none", "ffn", "dots", "full"),
    "model.dropout_bits": ("hash", "rbg"),
    "model.fuse": ("auto", "on", "off"),
    "model.ops": ("auto", "plain"),
    "model.dtype": ("bfloat16", "float32"),
    "mesh.reduce_dtype": ("bfloat16", "float32"),
  }.items():
    _refuse_unless_one_of(name, flat[name], values)
  _check_family(config)
  if config.stop.by == "held_out" and config.stop.patience and not config.held_out.every_steps:
    raise UserError(
      "config.stop.by=held_out counts held-out passes, and config.held_out.every_steps=0 makes none before the end; set it"
    )
  for item in filter(None, config.compiler_options.split(",")):
    if not all(item.partition("=")):
      raise UserError(f"config.compiler_options={config.compiler_options!r}: NAME=VALUE,NAME=VALUE; {item!r} is not")
  if "://" in config.compile_cache:
    raise UserError(f"config.compile_cache={config.compile_cache!r}: must be a folder, off, or empty for the default one")
  check_evaluation(config)
  if not config.data.rows:
    raise UserError(
      "config.data.rows is not set; make rows with `xlmr build_rows` and pass "
      "--config.data.rows=ROWS, or =demo for the built-in corpus"
    )


def _check_family(config: ConfigDict) -> None:
  """UserError for what only the family xlm has."""
  model = config.model
  if model.head == "linear" and model.family != "xlm":
    raise UserError(f"config.model.head=linear: only config.model.family=xlm has it, not {model.family}; leave it empty")
  if model.languages and (model.family != "xlm" or not model.language_embeddings):
    raise UserError(
      "config.model.languages names language embeddings, which only config.model.family=xlm with "
      "config.model.language_embeddings=True has; leave it empty"
    )
  if len(set(model.languages)) < len(model.languages):
    raise UserError(f"config.model.languages={','.join(model.languages)}: names a language twice")


def _check_decay(config: ConfigDict) -> None:
  """UserError for decay_steps that the schedule does not have or that begin before the end of the warm-up."""
  o, steps = config.optimizer, config.optimizer.decay_steps
  if steps and o.schedule != "wsd":
    raise UserError(f"config.optimizer.decay_steps={steps}: only schedule=wsd has them, not {o.schedule}; leave it at 0")
  if steps < -1 or o.warmup_steps + steps > config.train_steps:
    raise UserError(
      f"config.optimizer.decay_steps={steps}: must be -1, for the last of config.phases, or 0 to config.train_steps - "
      f"optimizer.warmup_steps = {config.train_steps - o.warmup_steps}"
    )
  if steps == -1 and not config.phases:
    raise UserError("config.optimizer.decay_steps=-1 is the length of the last of config.phases, of which there are none")


def refuse_secrets(flat: dict[str, Any]) -> None:
  """UserError naming the keys whose values hold a password or a token: config.json keeps every value. It shows none."""
  found = [
    name
    for name, value in flat.items()
    if redacted(str(value)) != str(value)
    or (is_secret_name(name) and value not in (None, "", ()) and not isinstance(value, int | float))
  ]
  if found:
    raise UserError(
      f"config.{', config.'.join(found)}: holds a password or a token, which config.json would keep for all to read; leave "
      "it to the environment or to the store's own credentials"
    )


def check_evaluation(config: ConfigDict) -> None:
  """Refuses by name every wrong value of config.evaluate and config.stop, and secrets in any key. UserError."""
  flat = flatten(config.to_dict())
  refuse_secrets(flat)
  for name, value in flat.items():
    if isinstance(value, list | tuple) and not all(isinstance(part, str | int) for part in value):
      raise UserError(f"config.{name}={str(value)[:40]!r}: must be a list of names or whole numbers")
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
  _refuse_below(flat, least)
  if not 0 < config.evaluate.wait_s <= 86_400:
    raise UserError(f"config.evaluate.wait_s={config.evaluate.wait_s}: must be above 0 and at most a day, 86400")
  _refuse_unless_one_of("evaluate.setting", config.evaluate.setting, SETTINGS)
  _refuse_unless_one_of("evaluate.dtype", config.evaluate.dtype, ("", "bfloat16", "float32"))
  seeds = config.evaluate.seed_list
  if len(set(seeds)) < len(seeds) or not all(re.fullmatch("[0-9]{1,9}", str(seed)) for seed in seeds):
    raise UserError(f"config.evaluate.seed_list={seeds}: must be different whole numbers, such as 3,7")
  _refuse_unless_one_of("stop.by", config.stop.by, ("score", "held_out"))
  _refuse_unless_one_of("stop.on_nonfinite", config.stop.on_nonfinite, ("skip", "count", "stop"))
  if len(set(config.evaluate.tasks)) < len(config.evaluate.tasks):
    raise UserError(f"config.evaluate.tasks={config.evaluate.tasks}: names a task twice")
  for part in filter(None, config.evaluate.data.split(",")):
    if not all(part.partition("=")):
      raise UserError(f"config.evaluate.data={config.evaluate.data!r}: {part!r} is not NAME=PATH")
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
