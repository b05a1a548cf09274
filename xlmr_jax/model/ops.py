"""Which operations an encoder layer is made of: the one place that picks kernels, and says what it picked and why.

  attention: xla     plain operations; everywhere, and what the others are tested against
             pallas  ours, for rows of at most 1,024 tokens on TPU; dropout of probabilities included
             splash  JAX's Pallas kernel, for longer rows on TPU; no dropout of probabilities
             cudnn   NVIDIA's kernel through JAX, on GPU in half precision; no dropout of probabilities
  norms:     XLA, or our kernel for x + dropout(y + bias) and its LayerNorm on TPU

A kernel that was asked for by name and cannot run is refused; `auto` falls back to plain operations and says so.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from xlmr_jax.errors import UserError
from xlmr_jax.model import attention as plain_attention
from xlmr_jax.model import layers
from xlmr_jax.model.kernels import library, residual_norm, row_attention

ATTENTION = ("auto", "xla", "pallas", "splash", "cudnn")


class Ops(NamedTuple):
  """The operations of a layer; every member is an ordinary differentiable function of all its arrays."""

  arrange_qkv: Callable = plain_attention.by_group  # kernel[..., 3, H, K] or bias in the column order of `attention`
  attention: Callable = plain_attention.attention  # (qkv, bias, segments_BxL, heads, drop) -> [B, L, D]
  add_norm: Callable = layers.add_norm  # (x, y, bias_D, scale_D, shift_D, drop, keep_sum) -> (sum, normed)
  bias_gelu: Callable = layers.bias_gelu  # (y, bias_F) -> [B, L, F]


PLAIN_OPS = Ops()


class Wanted(NamedTuple):
  """What config.model asks for, and the sizes that decide what can run."""

  attention: str  # one of ATTENTION
  fuse: str  # auto | on | off: our kernel for norms
  platform: str  # of the devices: cpu, gpu, tpu
  seq_len: int  # tokens per row
  hidden: int
  heads: int
  ffn: int
  attention_dropout: float
  dropout_bits: str = "hash"
  dtype: str = "float32"  # of activations and products


def choose_ops(wanted: Wanted, *, interpret: bool = False) -> tuple[Ops, str]:
  """(the operations, one line that says what was chosen and why). interpret: Pallas kernels run without a TPU, in tests.

  Raises UserError if a kernel that was named cannot run here.
  """
  on_tpu = wanted.platform == "tpu" or interpret
  name, why = _choose_attention(wanted, on_tpu)
  ops = PLAIN_OPS
  if name == "pallas":
    groups = wanted.heads // row_attention.heads_per_group(wanted.heads, wanted.hidden // wanted.heads)
    attend = functools.partial(row_attention.row_attention, groups=groups, interpret=interpret)
    ops = ops._replace(arrange_qkv=functools.partial(plain_attention.by_group, groups=groups), attention=attend)
  elif name == "splash":
    ops = ops._replace(attention=functools.partial(library.splash_attention, interpret=interpret))
  elif name == "cudnn":
    ops = ops._replace(attention=library.cudnn_attention)
  why_plain = _why_plain_norms(wanted, on_tpu)
  if wanted.fuse == "on" and why_plain:
    raise UserError(f"config.model.fuse='on': {why_plain}; use auto or off")
  if not why_plain:
    add_norm = functools.partial(residual_norm.add_norm, interpret=interpret)
    ops = ops._replace(add_norm=add_norm, bias_gelu=layers.bias_gelu_in_product)
  norms = f"XLA ({why_plain})" if why_plain else "our kernel"
  return ops, f"attention: {name} ({why}); norms: {norms}"


def _why_plain_norms(wanted: Wanted, on_tpu: bool) -> str:
  """Why the norms are XLA's; "" if they are our kernel's."""
  if wanted.fuse == "off":
    return "config.model.fuse=off"
  if not on_tpu:
    return f"the kernel runs on TPU, not on {wanted.platform}"
  if wanted.dropout_bits != "hash":
    return f"the kernel has no config.model.dropout_bits={wanted.dropout_bits}"
  return residual_norm.why_not(wanted.seq_len, wanted.hidden, wanted.ffn)


def _choose_attention(wanted: Wanted, on_tpu: bool) -> tuple[str, str]:
  """(name, reason). UserError if the named kernel cannot do what is asked of it."""
  if wanted.attention not in ATTENTION:
    raise UserError(f"config.model.attention={wanted.attention!r}: must be one of {', '.join(ATTENTION)}")
  if wanted.attention == "xla":
    return "xla", "config.model.attention"
  on_gpu, dropped = wanted.platform in ("gpu", "cuda"), wanted.attention_dropout > 0.0
  no_dropout = "it has no dropout of probabilities, and config.model.attention_dropout is above 0"
  why_not = {
    "pallas": row_attention.why_not(wanted.seq_len) if on_tpu else f"it runs on TPU, not on {wanted.platform}",
    "splash": (
      f"it runs on TPU, not on {wanted.platform}" if not on_tpu
      else f"rows of {wanted.seq_len} tokens are no multiple of 128" if wanted.seq_len % 128
      else no_dropout if dropped else ""
    ),
    "cudnn": (
      f"it runs on GPU, not on {wanted.platform}" if not on_gpu
      else no_dropout if dropped
      else library.why_no_cudnn(wanted.dtype, wanted.hidden // wanted.heads, wanted.seq_len)
    ),
  }  # fmt: skip
  if wanted.attention != "auto":
    if why_not[wanted.attention]:
      raise UserError(f"config.model.attention={wanted.attention!r}: {why_not[wanted.attention]}; use auto or xla")
    return wanted.attention, "config.model.attention"
  for name in why_not:
    if not why_not[name]:
      return name, f"auto on {wanted.platform}"
  candidates = ("pallas", "splash") if on_tpu else ("cudnn",) if on_gpu else ()
  reasons = "; ".join(f"{name}: {why_not[name]}" for name in candidates)
  return "xla", reasons or f"auto on {wanted.platform}"
