"""The choice of operations: what runs where, what is refused by name, and the line that says it."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from xlmr_jax.errors import UserError
from xlmr_jax.model import attention, layers
from xlmr_jax.model.build import choose_model_ops
from xlmr_jax.model.dropout import Drop
from xlmr_jax.model.kernels import library
from xlmr_jax.model.ops import PLAIN_OPS, Wanted, choose_ops
from xlmr_jax.model.task_head import TaskHead

BASE = Wanted("auto", "auto", "tpu", 512, 768, 12, 3072, 0.1, dtype="bfloat16")
NO_DROPOUT = "it has no dropout of probabilities, and config.model.attention_dropout is above 0"
ONLY_TPU = "the kernel runs on TPU, not on"
NO_FLOAT32 = "it has no float32, only bfloat16 and float16 (config.model.dtype)"


@pytest.mark.parametrize(
  "changes, line",
  [
    ({}, "attention: pallas (auto on tpu); norms: our kernel"),
    ({"attention": "pallas", "fuse": "on"}, "attention: pallas (config.model.attention); norms: our kernel"),
    ({"seq_len": 1024}, "attention: pallas (auto on tpu); norms: our kernel"),
    ({"seq_len": 2048, "attention_dropout": 0.0}, "attention: splash (auto on tpu); norms: our kernel"),
    (
      {"seq_len": 2048},
      f"attention: xla (pallas: rows of 2048 tokens are longer than 1024; splash: {NO_DROPOUT}); norms: our kernel",
    ),
    (
      {"seq_len": 500},
      "attention: xla (pallas: rows of 500 tokens are no multiple of 128; splash: rows of 500 tokens are no multiple of "
      "128); norms: XLA (500 is no multiple of 128)",
    ),
    ({"hidden": 704, "heads": 11}, "attention: pallas (auto on tpu); norms: XLA (704 is no multiple of 128)"),
    ({"ffn": 3000}, "attention: pallas (auto on tpu); norms: XLA (3000 is no multiple of 128)"),
    (
      {"dropout_bits": "rbg"},
      "attention: pallas (auto on tpu); norms: XLA (the kernel has no config.model.dropout_bits=rbg)",
    ),
    ({"fuse": "off"}, "attention: pallas (auto on tpu); norms: XLA (config.model.fuse=off)"),
    ({"attention": "xla"}, "attention: xla (config.model.attention); norms: our kernel"),
    ({"attention": "splash", "attention_dropout": 0.0}, "attention: splash (config.model.attention); norms: our kernel"),
    ({"platform": "cpu"}, f"attention: xla (auto on cpu); norms: XLA ({ONLY_TPU} cpu)"),
    ({"platform": "gpu"}, f"attention: xla (cudnn: {NO_DROPOUT}); norms: XLA ({ONLY_TPU} gpu)"),
    ({"platform": "gpu", "attention_dropout": 0.0}, f"attention: cudnn (auto on gpu); norms: XLA ({ONLY_TPU} gpu)"),
    (
      {"platform": "cuda", "attention_dropout": 0.0, "attention": "cudnn"},
      f"attention: cudnn (config.model.attention); norms: XLA ({ONLY_TPU} cuda)",
    ),
    (
      {"platform": "gpu", "attention_dropout": 0.0, "hidden": 780},
      f"attention: xla (cudnn: heads of 65 are no multiple of 8, or wider than 128); norms: XLA ({ONLY_TPU} gpu)",
    ),
    (
      {"platform": "gpu", "attention_dropout": 0.0, "heads": 3},
      f"attention: xla (cudnn: heads of 256 are no multiple of 8, or wider than 128); norms: XLA ({ONLY_TPU} gpu)",
    ),
    (
      {"platform": "gpu", "attention_dropout": 0.0, "dtype": "float32"},
      f"attention: xla (cudnn: {NO_FLOAT32}); norms: XLA ({ONLY_TPU} gpu)",
    ),
    (
      {"platform": "gpu", "attention_dropout": 0.0, "dtype": "float16"},
      f"attention: cudnn (auto on gpu); norms: XLA ({ONLY_TPU} gpu)",
    ),
    (
      {"platform": "gpu", "attention_dropout": 0.0, "seq_len": 333},
      "attention: xla (cudnn: rows of 333 tokens are odd, which it cannot train on with a mask); norms: XLA "
      f"({ONLY_TPU} gpu)",
    ),
  ],
)
def test_what_is_chosen_and_said(changes, line):
  ops, said = choose_ops(BASE._replace(**changes))
  assert said == line
  name = said.split()[1]
  expected = {"xla": attention.attention, "cudnn": library.cudnn_attention}
  assert name not in expected or ops.attention is expected[name]
  uses_kernel = said.endswith("norms: our kernel")
  assert (ops.add_norm is layers.add_norm) == (not uses_kernel) and (ops.bias_gelu is layers.bias_gelu) == (not uses_kernel)
  assert (ops == PLAIN_OPS) == (name == "xla" and not uses_kernel)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"attention": "flash"}, "config.model.attention='flash': must be one of auto, xla, pallas, splash, cudnn"),
    ({"attention": "splash"}, f"config.model.attention='splash': {NO_DROPOUT}; use auto or xla"),
    (
      {"attention": "splash", "attention_dropout": 0.0, "seq_len": 500},
      "config.model.attention='splash': rows of 500 tokens are no multiple of 128; use auto or xla",
    ),
    (
      {"attention": "pallas", "seq_len": 100},
      "config.model.attention='pallas': rows of 100 tokens are no multiple of 128; use auto or xla",
    ),
    (
      {"attention": "pallas", "seq_len": 2048},
      "config.model.attention='pallas': rows of 2048 tokens are longer than 1024; use auto or xla",
    ),
    (
      {"attention": "pallas", "platform": "gpu"},
      "config.model.attention='pallas': it runs on TPU, not on gpu; use auto or xla",
    ),
    (
      {"attention": "splash", "platform": "cpu"},
      "config.model.attention='splash': it runs on TPU, not on cpu; use auto or xla",
    ),
    ({"attention": "cudnn"}, "config.model.attention='cudnn': it runs on GPU, not on tpu; use auto or xla"),
    ({"attention": "cudnn", "platform": "gpu"}, f"config.model.attention='cudnn': {NO_DROPOUT}; use auto or xla"),
    (
      {"attention": "cudnn", "platform": "gpu", "attention_dropout": 0.0, "heads": 3},
      "config.model.attention='cudnn': heads of 256 are no multiple of 8, or wider than 128; use auto or xla",
    ),
    (
      {"attention": "cudnn", "platform": "gpu", "attention_dropout": 0.0, "dtype": "float32"},
      f"config.model.attention='cudnn': {NO_FLOAT32}; use auto or xla",
    ),
    ({"fuse": "on", "platform": "gpu"}, f"config.model.fuse='on': {ONLY_TPU} gpu; use auto or off"),
    (
      {"fuse": "on", "dropout_bits": "rbg"},
      "config.model.fuse='on': the kernel has no config.model.dropout_bits=rbg; use auto or off",
    ),
    ({"fuse": "on", "ffn": 3000}, "config.model.fuse='on': 3000 is no multiple of 128; use auto or off"),
  ],
)
def test_what_was_named_and_cannot_run_is_refused(changes, message):
  with pytest.raises(UserError) as refused:
    choose_ops(BASE._replace(**changes))
  assert str(refused.value) == message


@pytest.mark.parametrize(
  "name, arg, attention", [("tiny100", "", "xla"), ("smoke", "", "xla"), ("study", "tiny", "xla"), ("base", "", "cudnn")]
)
def test_configs_on_a_gpu(name, arg, attention):
  """cuDNN has no float32, in which the small configs compute. The evaluator puts its own dtype into the same key."""
  config = importlib.import_module(f"configs.{name}").get_config(arg)
  config.model.attention_dropout = 0.0  # the other reason why cuDNN would not run
  assert choose_model_ops(config, 128, "gpu")[1].startswith(f"attention: {attention} ")
  for dtype, expected in (("float32", "xla"), ("bfloat16", "cudnn")):
    config.model.dtype = dtype
    assert choose_model_ops(config, 128, "gpu")[1].startswith(f"attention: {expected} ")


def test_what_cudnn_takes_is_what_jax_takes():
  """JAX's own checks of shapes and dtypes, with which it would end a run, agree with why_no_cudnn()."""
  checks = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
  layout = checks.AttentionLayout.BTNH
  for dtype in ("float32", "bfloat16", "float16"):
    for width in (8, 12, 64, 128, 136):
      for seq_len in (16, 33):
        x = jax.ShapeDtypeStruct((2, seq_len, 2, width), jnp.dtype(dtype))
        mask = jax.ShapeDtypeStruct((2, 2, seq_len, seq_len), jnp.dtype(dtype))
        try:
          checks.check_layout(x, x, x, mask, None, None, None, None, None, None, layout)
          checks.check_is_flash_attention(x, x, x, layout.value, 91300, True, True)
          refused = False
        except NotImplementedError:
          refused = True
        assert bool(library.why_no_cudnn(dtype, width, seq_len)) == refused, (dtype, width, seq_len)


def test_plain_ops_are_one_flag_away():
  """config.model.ops=plain wins over whatever the two other keys say, also on a TPU."""
  config = tiny.config(model__ops="plain", model__attention="pallas", model__fuse="on")
  assert choose_model_ops(config, 512, "tpu") == (PLAIN_OPS, "attention: xla; norms: XLA (config.model.ops=plain)")
  config.model.ops = "auto"
  with pytest.raises(UserError, match=r"fuse=.on.: 16 is no multiple of 128"):
    choose_model_ops(config, 512, "tpu")


def test_the_choice_is_told_at_the_start_of_a_run(capsys):
  """A program carries the line, with the reason for each part; a refusal comes before anything is compiled."""
  from xlmr_jax.training.program import describe_program

  program = tiny.program(tiny.config())
  lines = describe_program(program, tiny.config(), tiny.SEQ_LEN)
  assert lines[-1] == f"attention: xla (auto on cpu); norms: XLA ({ONLY_TPU} cpu)"
  parts = {"layer": "4,448", "token_embedding": "2,048", "position_embedding": "544", "head_dense": "272", "others": "192"}
  assert lines[0] == f"parameters: 7,504 ({', '.join(f'{name} {size}' for name, size in parts.items())})"
  assert lines[1].endswith("16 rows of 32 tokens per step, 1 x 16 rows per device; float32, remat none")
  with pytest.raises(UserError, match="'pallas': it runs on TPU, not on cpu"):
    tiny.program(tiny.config(model__attention="pallas"))


def test_cudnn_gets_what_the_plain_form_sees(monkeypatch):
  """The kernel itself needs a GPU: queries, keys, values and mask that JAX's call gets give the plain form's result."""
  rng = np.random.default_rng(0)
  B, L, H, K = 2, 16, 2, 8
  qkv, bias = (rng.normal(size=size).astype(np.float32) for size in ((B, L, 3 * H * K), (3 * H * K,)))
  segments = jnp.asarray([[1] * 9 + [2] * 7, [1] * 12 + [0] * 4], jnp.int32)
  seen, own = {}, jax.nn.dot_product_attention

  def without_a_gpu(*args, implementation, **options):
    seen["implementation"] = implementation
    return own(*args, **options)

  monkeypatch.setattr(jax.nn, "dot_product_attention", without_a_gpu)
  found, expected = (
    jax.jit(functools.partial(attend, heads=H, drop=Drop()))(qkv, bias, segments)
    for attend in (library.cudnn_attention, attention.attention)
  )
  assert seen == {"implementation": "cudnn"}
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match="no dropout of probabilities"):
    library.cudnn_attention(qkv, bias, segments, H, Drop(0.1, jax.random.key(0), jnp.arange(B, dtype=jnp.uint32)))


def products_in(traced):
  """The equations of all matrix products of a jaxpr and of those inside it."""
  for equation in traced.eqns:
    if equation.primitive.name == "dot_general":
      yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from products_in(inner)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp32_products_are_fp32_on_accelerators_too(dtype):
  """Left alone, XLA rounds their factors to TF32 on a GPU and to bfloat16 on a TPU; bf16 products need no such asking."""
  program = tiny.program(tiny.config(**{"model.dtype": dtype, "model.dropout": 0.1, "model.attention_dropout": 0.1}))
  batch = {name: jnp.asarray(x) for name, x in tiny.batch(np.random.default_rng(0), 8).items()}
  head = TaskHead("sentence", 3, 0.1)
  x, key = jnp.zeros((2, 8, 32), dtype), jax.random.key(0)

  def head_loss(params):
    return head.apply({"params": params}, x, False, rngs={"dropout": key}).sum()

  with jax.set_mesh(program.mesh):
    traced = [
      jax.make_jaxpr(program.train_step)(program.state, batch, np.float32(np.inf)),
      jax.make_jaxpr(program.held_out_step)(program.state.params, batch),
    ]
  traced.append(jax.make_jaxpr(jax.grad(head_loss))(head.init(key, x)["params"]))
  asked = {True: set(), False: set()}  # whether both factors are fp32: what the products ask for
  for of_program in traced:
    found = list(products_in(of_program.jaxpr))
    assert len(found) > 2
    for equation in found:
      asked[all(factor.aval.dtype == jnp.float32 for factor in equation.invars)].add(equation.params["precision"])
  highest = jax.lax.Precision.HIGHEST
  assert asked == {True: {(highest, highest)}, False: {None} if dtype == "bfloat16" else set()}
