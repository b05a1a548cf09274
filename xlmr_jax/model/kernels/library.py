"""Attention by other people's kernels: JAX's splash attention on TPU, NVIDIA's cuDNN through JAX on GPU.

Neither drops probabilities. cuDNN's has not been run by us, splash attention in interpret mode only.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from xlmr_jax.model.attention import split_heads
from xlmr_jax.model.dropout import Drop
from xlmr_jax.model.layers import add_bias

Array = jax.Array


def _queries_keys_values(qkv_BxLxC: Array, bias_C: Array, heads: int, drop: Drop) -> list[Array]:
  if drop.active_rate:
    raise ValueError("this kernel has no dropout of probabilities")
  return split_heads(checkpoint_name(add_bias(qkv_BxLxC, bias_C), "qkv"), heads)


def splash_attention(
  qkv_BxLxC: Array, bias_C: Array, segments_BxL: Array, heads: int, drop: Drop, *, interpret: bool = False
) -> Array:
  """attention.attention by JAX's Pallas kernel. Rows must be a multiple of 128 tokens."""
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  q, k, v = (x.transpose(0, 2, 1, 3) for x in _queries_keys_values(qkv_BxLxC, bias_C, heads, drop))
  B, H, L, K = q.shape
  block = next(size for size in (512, 256, 128) if L % size == 0)
  minor = splash.QKVLayout.SEQ_MINOR  # The other layout pads heads that are narrower than the lanes.
  kernel = splash.make_splash_mha(
    masks.MultiHeadMask([masks.FullMask((L, L))] * H),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
    block_sizes=splash.BlockSizes(
      block_q=block,
      block_kv=block,
      block_kv_compute=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_kv_dkv_compute=block,
      use_fused_bwd_kernel=True,
      q_layout=minor,
      k_layout=minor,
      v_layout=minor,
    ),
  )

  def attend_row(q: Array, k: Array, v: Array, segments: Array) -> Any:
    return kernel(q, k, v, segment_ids=splash.SegmentIds(segments, segments))

  out_BxHxLxK: Any = jax.vmap(attend_row)(q * jnp.asarray(K**-0.5, q.dtype), k, v, segments_BxL)
  return out_BxHxLxK.transpose(0, 2, 1, 3).reshape(B, L, H * K).astype(qkv_BxLxC.dtype)


def why_no_cudnn(dtype: str, width: int, seq_len: int) -> str:
  """Why JAX would refuse cudnn_attention() for heads of this width in this dtype; "" if it would not.

  The rules are those of check_layout() and check_is_flash_attention() in jax/_src/cudnn/fused_attention_stablehlo.py. A head
  may be 256 wide on Hopper; the bound of older devices holds for all, because a plan is made where no device is. An odd
  number of tokens is refused in training alone, where there is a mask, and there is one here.
  """
  if dtype not in ("bfloat16", "float16"):
    return f"it has no {dtype}, only bfloat16 and float16 (config.model.dtype)"
  if width % 8 or width > 128:
    return f"heads of {width} are no multiple of 8, or wider than 128"
  return f"rows of {seq_len} tokens are odd, which it cannot train on with a mask" if seq_len % 2 else ""


def cudnn_attention(qkv_BxLxC: Array, bias_C: Array, segments_BxL: Array, heads: int, drop: Drop) -> Array:
  """attention.attention by cuDNN."""
  q, k, v = _queries_keys_values(qkv_BxLxC, bias_C, heads, drop)
  B, L = segments_BxL.shape
  same_Bx1xLxL = (segments_BxL[:, :, None] == segments_BxL[:, None, :])[:, None]
  return jax.nn.dot_product_attention(q, k, v, mask=same_Bx1xLxL, implementation="cudnn").reshape(B, L, -1)
