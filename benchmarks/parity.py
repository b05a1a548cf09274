"""Compares a step on this machine's accelerator with the same step on its CPU: the loss, and the gradients by parameter.

  python -m benchmarks.parity --config=base --config.model.layers=4 --rows=4

For a machine, a kernel or a library that is new to you: tests hold the kernels to the plain form on a CPU, and this shows
what they compute where they run. The reference is the plain form in fp32 on the CPU. On the accelerator every attention
that can run there is tried in fp32 and in bf16, from the same parameters on the same synthetic rows of two documents, with
the same dropout; an attention without dropout of probabilities is held to a reference without it. The last line is JSON.
The exit status is 1 if fp32 differs by more than rounding, or bf16 by more than twice what the plain form in bf16 does on
the CPU. It needs no TensorFlow, and as much memory as the CPU's step takes.
"""

import functools
import itertools
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import flags
from ml_collections import ConfigDict

from benchmarks.step import name_languages, synthetic_batch
from xlmr_jax import ids
from xlmr_jax.commands.flags import FLAGS, define_config, read_config, refuse_arguments, start
from xlmr_jax.config_checks import check_config
from xlmr_jax.data.masking import slots_per_row
from xlmr_jax.errors import UserError
from xlmr_jax.model.build import choose_model_ops, family_of
from xlmr_jax.model.ops import ATTENTION
from xlmr_jax.training import sharding
from xlmr_jax.training.program import Program, build_program
from xlmr_jax.training.sharding import path_of

# Relative, of fp32; tests/test_model.py asks the first two beside transformers. The last is for a single parameter.
LOSS_BOUND, GRADIENT_BOUND, WORST_BOUND = 1e-5, 1e-4, 1e-3
OF_CPU = 2.0  # bf16 may be off by so many times what the plain form in bf16 is on the CPU
LANGUAGES = 2


def define_flags() -> None:
  """Defines the flags of this program."""
  define_config("config whose step is compared; --config.KEY=VALUE changes it, e.g. to fewer layers")
  flags.DEFINE_integer("rows", 4, "rows of the batch", lower_bound=1)
  flags.DEFINE_integer("seq", 0, "tokens per row; 0: the longest that the model takes", lower_bound=0)
  flags.DEFINE_integer("vocab", 250_002, "entries, where the config leaves them to its rows", lower_bound=100)


class Outcome(NamedTuple):
  """What a step computed."""

  loss: float
  gradients: dict[str, np.ndarray]  # path: fp32


class Difference(NamedTuple):
  """How far an outcome is from its reference, relative."""

  loss: float
  gradients: float  # ||g - reference|| / ||reference||, all parameters together
  worst: float  # the largest of one parameter
  worst_at: str  # its path


def differ(outcome: Outcome, reference: Outcome) -> Difference:
  """How far outcome is from reference. What is not finite is infinitely far."""

  def squares(x: np.ndarray) -> float:
    return float(np.sum(np.square(x), dtype=np.float64))

  def relative(off: float, size: float) -> float:
    if not (np.isfinite(off) and np.isfinite(size)):
      return float("inf")
    return float(np.sqrt(off / size)) if size else float("inf" if off else 0.0)

  found = {path: (squares(outcome.gradients[path] - x), squares(x)) for path, x in reference.gradients.items()}
  each = {path: relative(*pair) for path, pair in found.items()}
  worst_at = max(each, key=lambda path: each[path])
  return Difference(
    loss=relative(squares(np.array(outcome.loss - reference.loss)), squares(np.array(reference.loss))),
    gradients=relative(*(sum(parts) for parts in zip(*found.values()))),
    worst=each[worst_at],
    worst_at=worst_at,
  )


def two_documents(rows: int, seq: int, vocab: int, mask_share: float) -> dict[str, np.ndarray]:
  """A synthetic batch whose rows hold two documents each, and pads behind them."""
  batch = synthetic_batch(np.random.default_rng(0), rows, seq, vocab, slots_per_row(seq, mask_share), mask_share)
  end = seq - seq // 8
  for row in range(rows):
    middle = seq // 4 + row % (seq // 2)
    batch["ids"][row, middle - 1 : middle + 1] = ids.EOS, ids.BOS
    batch["ids"][row, end - 1] = ids.EOS
    batch["ids"][row, end:] = ids.PAD
    hidden = np.isin(batch["positions"][row], (0, middle - 1, middle)) | (batch["positions"][row] >= end - 1)
    batch["weights"][row, hidden], batch["labels"][row, hidden], batch["positions"][row, hidden] = 0.0, ids.PAD, 0
  return batch | {"language": np.arange(rows, dtype=np.int32) % LANGUAGES}


class Comparison:
  """Steps of one config on the CPU and on the accelerator, from the same parameters on the same batch."""

  def __init__(self, config: ConfigDict, rows: int, seq_len: int, vocabulary_size: int):
    self.config, self.seq_len, self.vocabulary_size = config, seq_len, vocabulary_size
    self.batch = two_documents(rows, seq_len, vocabulary_size, config.data.mask_share)
    self.cpu, self.accelerator = jax.devices("cpu")[0], jax.devices()[0]

  def _changed(self, attention: str, dtype: str, attention_dropout: float) -> ConfigDict:
    config = self.config.copy_and_resolve_references().unlock()
    config.model.update(attention=attention, dtype=dtype, attention_dropout=attention_dropout)
    # The first step's moments are its gradients, but for a factor.
    config.optimizer.update(clip_norm=0.0, weight_decay=0.0)
    config.update(batch_rows=len(self.batch["ids"]), rows_per_device=0, micro_batches=1)
    return config.lock()

  def why_not(self, attention: str, dtype: str, attention_dropout: float) -> str:
    """Why an attention cannot run on the accelerator; "" if it can."""
    try:
      choose_model_ops(self._changed(attention, dtype, attention_dropout), self.seq_len, self.accelerator.platform)
    except UserError as error:
      return str(error).partition(": ")[2].partition("; use ")[0]
    return ""

  def step(self, device: Any, attention: str, dtype: str, attention_dropout: float) -> Outcome:
    """One step on a device. Says that it begins, because compiling can take a minute."""
    print(f"  {device.device_kind}: {dtype} {attention}, attention_dropout {attention_dropout:g} ...", flush=True)
    config = self._changed(attention, dtype, attention_dropout)
    program = self._program(device, config)
    with jax.set_mesh(program.mesh):
      state = program.begin_with(self._params())
      batch = sharding.to_global(program.mesh, self.batch, config.batch_rows)
      state, metrics = program.train_step(state, batch, np.float32(np.inf))
      moments = optax.tree.get(state.opt_state, "mu")
      found = jax.tree_util.tree_leaves_with_path(jax.device_get(moments))
    gradients = {path_of(path): np.asarray(x) / (1.0 - config.optimizer.b1) for path, x in found}
    return Outcome(float(metrics["loss_sum"] / metrics["weight"]), gradients)

  @functools.cache  # noqa: B019 - one comparison lives as long as the program
  def _params(self) -> Any:
    """Parameters as the CPU draws them: another device's normal numbers differ in their last digits."""
    config = self._changed("xla", "float32", 0.0)
    program = self._program(self.cpu, config)
    with jax.set_mesh(program.mesh):
      return jax.device_get(program.init(jax.random.key(config.seed)).params)

  def _program(self, device: Any, config: ConfigDict) -> Program:
    mesh, sides = sharding.make_mesh(devices=[device]), name_languages(config, LANGUAGES)
    with jax.set_mesh(mesh):
      return build_program(
        config, mesh, vocabulary_size=self.vocabulary_size, languages=LANGUAGES, seq_len=self.seq_len, sides=sides
      )

  @functools.cache  # noqa: B019
  def reference(self, attention_dropout: float) -> Outcome:
    """The plain form in fp32 on the CPU."""
    return self.step(self.cpu, "xla", "float32", attention_dropout)

  @functools.cache  # noqa: B019
  def bounds(self, dtype: str, attention_dropout: float) -> tuple[float, float, float]:
    """How far a step may be from its reference, relative: in its loss, all of its gradients, and one parameter's."""
    if dtype == "float32":
      return LOSS_BOUND, GRADIENT_BOUND, WORST_BOUND
    on_cpu = differ(self.step(self.cpu, "xla", dtype, attention_dropout), self.reference(attention_dropout))
    return max(OF_CPU * on_cpu.loss, 1e-3), OF_CPU * on_cpu.gradients, OF_CPU * on_cpu.worst


def compare(comparison: Comparison) -> tuple[list[dict], list[str]]:
  """(an entry per attention and dtype that ran, what is out of bounds). Prints each as it comes.

  Each is tried with the config's dropout of probabilities and without it, which is the only way that some can run.
  """
  entries, wrong = [], []
  rates = sorted({comparison.config.model.attention_dropout, 0.0}, reverse=True)
  for dtype, attention, rate in itertools.product(("float32", "bfloat16"), ATTENTION[1:], rates):
    what = f"{dtype} {attention}, attention_dropout {rate:g}"
    why = comparison.why_not(attention, dtype, rate)
    if why:
      print(f"{what}: not run: {why}", flush=True)
      continue
    outcome = comparison.step(comparison.accelerator, attention, dtype, rate)
    found = differ(outcome, comparison.reference(rate))
    print(
      f"{what}: loss {outcome.loss:.6f}, off by {found.loss:.1e}; gradients off by {found.gradients:.1e}, "
      f"at most {found.worst:.1e} ({found.worst_at})",
      flush=True,
    )
    entries.append({"dtype": dtype, "attention": attention, "attention_dropout": rate} | found._asdict())
    if not all(off <= bound for off, bound in zip(found[:3], comparison.bounds(dtype, rate))):
      wrong.append(what)
  return entries, wrong


def main(argv: list[str]) -> None:
  """Runs the program."""
  refuse_arguments(argv)
  config = read_config().copy_and_resolve_references()
  config.data.rows = "synthetic"  # none are read
  check_config(config)
  longest = family_of(config).max_seq_len(config.model)
  seq_len = FLAGS.seq or longest
  if not 16 <= seq_len <= longest:
    raise UserError(f"--seq={seq_len}: the model takes 16 to {longest} tokens; change it or --config.model.max_positions")
  try:
    jax.devices("cpu")
  except RuntimeError:
    raise UserError("JAX_PLATFORMS leaves out the CPU, which is what is compared with; unset it, or add ',cpu'") from None
  device = jax.devices()[0]
  if device.platform == "cpu":
    raise UserError("JAX finds no accelerator here; run this where there is one, with JAX installed for it")
  m = config.model
  print(
    f"{device.device_kind} beside the CPU, jax {jax.__version__}: {m.layers} x {m.hidden}, {FLAGS.rows} rows of {seq_len}",
    flush=True,
  )
  comparison = Comparison(config, FLAGS.rows, seq_len, config.model.vocabulary_size or FLAGS.vocab)
  entries, wrong = compare(comparison)
  print(json.dumps({"device": device.device_kind, "jax": jax.__version__, "steps": entries, "out_of_bounds": wrong}))
  if wrong:
    raise UserError("out of bounds: " + "; ".join(wrong) + "; see the lines above")


if __name__ == "__main__":
  define_flags()
  start(main)
