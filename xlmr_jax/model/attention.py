"""Bidirectional attention inside the segments of a row: the plain form and the kernels, chosen by name.

  xla     plain operations; everywhere, and what the others are tested against
  pallas  ours, for rows of at most 1,024 tokens on TPU: a row's heads are read from and written to the projection's own
          layout, scores never leave the chip, dropout on probabilities included
  splash  JAX's Pallas kernel, for longer rows on TPU; no dropout on probabilities
  cudnn   NVIDIA's kernel through JAX, on GPU; no dropout on probabilities

Letters as in model.py, and: G groups of heads, the heads of a group filling whole TPU lanes; E = K x heads of a group.
The projection comes as qkv[B, L, G, 3, E]: queries, keys, values of a group side by side.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from xlmr_jax.model import dropout
from xlmr_jax.model.fused import turn

Array = jax.Array
NAMES = ("auto", "xla", "pallas", "splash", "cudnn")
LANES = 128
LONGEST_ROW = 1024  # tokens that the whole-row kernel takes: what 256 queries need then fits the 16 MiB of VMEM of a v4
MASKED = -1e30


def heads_of_group(heads: int, width: int) -> int:
  """The fewest heads that fill whole lanes and divide all heads; else all of them."""
  group = math.lcm(width, LANES) // width
  return group if heads % group == 0 else heads


def choose(name: str, *, platform: str, seq_len: int, width: int, rate: float) -> str:
  """The kernel that "auto" stands for. ValueError if the named one cannot do what is asked of it."""
  if name not in NAMES:
    raise ValueError(f"config.model.attention={name!r}: one of {', '.join(NAMES)}")
  if name == "auto":
    if platform == "tpu" and seq_len % LANES == 0 and seq_len <= LONGEST_ROW:
      return "pallas"
    if platform == "tpu" and seq_len % LANES == 0 and rate == 0.0:
      return "splash"
    return "cudnn" if platform in ("gpu", "cuda") and rate == 0.0 and width % 8 == 0 and width <= 128 else "xla"
  if name in ("splash", "cudnn") and rate > 0.0:
    raise ValueError(
      f"config.model.attention={name!r} has no dropout on probabilities; set "
      "config.model.attention_dropout=0, or config.model.attention=xla"
    )
  if name in ("pallas", "splash") and seq_len % LANES:
    raise ValueError(f"config.model.attention={name!r}: rows of {seq_len} tokens; it takes multiples of {LANES}")
  if name == "pallas" and seq_len > LONGEST_ROW:
    raise ValueError(f"config.model.attention='pallas': rows of {seq_len} tokens; it takes up to {LONGEST_ROW}, splash more")
  if name == "cudnn" and platform not in ("gpu", "cuda"):
    raise ValueError(f"config.model.attention='cudnn' runs on GPUs, not on {platform}")
  return name


def attend(
  qkv_BxLxGx3xE: Array,
  segments_BxL: Array,
  *,
  heads: int,
  rate: float = 0.0,
  key: Array | None = None,
  rows_B: Array | None = None,
  kernel: str = "xla",
  bias_C: Array | None = None,
  interpret: bool = False,
) -> Array:
  """Attention of each token to its own segment, [B, L, D], head after head; softmax in fp32.

  rate: dropout on probabilities, of the same elements whatever the kernel. rows: uint32, numbers of the rows in the
  global batch, so that it is also the same on every mesh. bias: what the caller added to qkv, detached, flat; the
  pallas kernel sums its gradient on the way. interpret: runs a Pallas kernel without a TPU.
  """
  rate = rate if key is not None else 0.0
  rows_B = jnp.arange(segments_BxL.shape[0], dtype=jnp.uint32) if rows_B is None else rows_B
  seeds_B = dropout.hash_bits(dropout.words_of(key), rows_B, 1)[:, 0] if rate else jnp.zeros_like(rows_B)
  if not takes(kernel, segments_BxL.shape[1]):
    return _plain(qkv_BxLxGx3xE, segments_BxL, seeds_B, heads, rate)
  if kernel == "pallas":
    B, L, G, _, E = qkv_BxLxGx3xE.shape
    bias_C = jnp.zeros((G * 3 * E,), jnp.float32) if bias_C is None else bias_C
    return _row_attention(qkv_BxLxGx3xE.reshape(B, L, G * 3 * E), segments_BxL, seeds_B, bias_C, heads, G, rate, interpret)
  if kernel == "splash":
    return _splash(qkv_BxLxGx3xE, segments_BxL, heads=heads, interpret=interpret)
  return _cudnn(qkv_BxLxGx3xE, segments_BxL, heads=heads)


def takes(kernel: str, seq_len: int) -> bool:
  """Whether a kernel, not the plain form, runs for rows so long; fine-tuning has shorter ones than the config."""
  return kernel == "cudnn" or (kernel in ("pallas", "splash") and seq_len % LANES == 0)


def _split(qkv_BxLxGx3xE: Array, heads: int) -> list[Array]:
  """Queries, keys and values, each [B, L, H, K]."""
  B, L = qkv_BxLxGx3xE.shape[:2]
  return [qkv_BxLxGx3xE[:, :, :, i].reshape(B, L, heads, -1) for i in range(3)]


def probability_bits(seed: Array, head: int | Array, first_query: int | Array, queries: int, keys: int) -> Array:
  """uint32[queries, keys] of one row and head from the row's seed, for queries from first_query on. Pallas runs it too."""
  query_Qx1 = jax.lax.broadcasted_iota(jnp.uint32, (queries, 1), 0) + jnp.uint32(first_query)
  key_1xL = jax.lax.broadcasted_iota(jnp.uint32, (1, keys), 1)
  of_head = dropout.mix(seed + jnp.uint32(head) * jnp.uint32(dropout.GOLDEN))
  return dropout.mix(dropout.mix(query_Qx1 ^ of_head) + key_1xL * jnp.uint32(dropout.GOLDEN), seed)


def _plain(qkv, segments_BxL, seeds_B, heads, rate):
  q_BxLxHxK, k_BxLxHxK, v_BxLxHxK = _split(qkv, heads)
  B, L, H, K = q_BxLxHxK.shape
  scores_BxHxLxL = jnp.einsum("BQHK,BSHK->BHQS", q_BxLxHxK, k_BxLxHxK, preferred_element_type=jnp.float32) * K**-0.5
  allowed_Bx1xLxL = (segments_BxL[:, :, None] == segments_BxL[:, None, :])[:, None]
  probs_BxHxLxL = jax.nn.softmax(jnp.where(allowed_Bx1xLxL, scores_BxHxLxL, MASKED), axis=-1)
  if rate:
    of_heads = jax.vmap(lambda seed, head: probability_bits(seed, head, 0, L, L), (None, 0))
    bits_BxHxLxL = jax.vmap(of_heads, (0, None))(seeds_B, jnp.arange(H, dtype=jnp.uint32))
    probs_BxHxLxL = dropout.drop(probs_BxHxLxL, bits_BxHxLxL, rate)
  probs_BxHxLxL = probs_BxHxLxL.astype(v_BxLxHxK.dtype)
  return jnp.einsum("BHQS,BSHK->BQHK", probs_BxHxLxL, v_BxLxHxK).reshape(B, L, H * K)


# --- ours, for rows that fit ---------------------------------------------------------------------------------------


def _dot(a, b, contract):
  """fp32 product of two matrices over axes (of a, of b)."""
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jax.lax.dot_general(
    a, b, (((contract[0],), (contract[1],)), ((), ())), precision=precision, preferred_element_type=jnp.float32
  )


def _probabilities(q_QxK, k_LxK, segments_Qx1, segments_1xL):
  scores_QxL = _dot(q_QxK, k_LxK, (1, 1)) * q_QxK.shape[1] ** -0.5
  scores_QxL = jnp.where(segments_Qx1 == segments_1xL, scores_QxL, MASKED)
  exps_QxL = jnp.exp(scores_QxL - scores_QxL.max(axis=1, keepdims=True))
  return exps_QxL, exps_QxL.sum(axis=1, keepdims=True)


def _queries(L):
  """Queries at a time: a whole row's scores in fp32 would not fit beside each other."""
  return 256 if L % 256 == 0 else LANES


def _forward_kernel(seeds_ref, segments_ref, qkv_ref, out_ref, *, heads, rate):
  R, L, Q = *qkv_ref.shape[:2], _queries(qkv_ref.shape[1])
  E = qkv_ref.shape[2] // 3
  K = E // heads
  first_row, first_head = pl.program_id(0) * R, pl.program_id(1) * heads

  def of_queries(i, _):
    row, first = i // (L // Q), pl.multiple_of(i % (L // Q) * Q, Q)
    of_keys, at = segments_ref[row], pl.ds(first, Q)
    of_queries = turn(segments_ref[row, :, at])
    for head in range(heads):
      q, k, v = (qkv_ref[row, at if part == 0 else slice(None), pl.ds(part * E + head * K, K)] for part in range(3))
      exps_QxL, sums_Qx1 = _probabilities(q, k, of_queries, of_keys)
      if rate:
        bits_QxL = probability_bits(seeds_ref[first_row + row], first_head + head, first, Q, L)
        exps_QxL = dropout.drop(exps_QxL, bits_QxL, rate)
      # Divided after the product: the sum is of what was not dropped.
      out_ref[row, at, pl.ds(head * K, K)] = (_dot(exps_QxL.astype(v.dtype), v, (1, 0)) / sums_Qx1).astype(out_ref.dtype)

  jax.lax.fori_loop(0, R * (L // Q), of_queries, None)


def _backward_kernel(seeds_ref, segments_ref, qkv_ref, d_out_ref, d_qkv_ref, sums_ref, *, heads, rate):
  """Softmax and its gradient again from q, k, v: nothing but the projection is kept from the forward pass."""
  R, L, Q = *qkv_ref.shape[:2], _queries(qkv_ref.shape[1])
  E = qkv_ref.shape[2] // 3
  K = E // heads
  first_row, first_head = pl.program_id(0) * R, pl.program_id(1) * heads
  columns = lambda part, head: pl.ds(part * E + head * K, K)  # noqa: E731

  sums_ref[:] = jnp.zeros_like(sums_ref)

  def add(part, head, gradient):
    sums_ref[0, 0:1, columns(part, head)] += gradient.sum(axis=0, keepdims=True)

  def of_head(row, head, of_keys):
    k_LxK, v_LxK = qkv_ref[row, :, columns(1, head)], qkv_ref[row, :, columns(2, head)]

    def of_queries(i, sums):
      first = pl.multiple_of(i * Q, Q)
      at = pl.ds(first, Q)
      q_QxK, d_out_QxK = qkv_ref[row, at, columns(0, head)], d_out_ref[row, at, columns(0, head)]
      exps_QxL, sums_Qx1 = _probabilities(q_QxK, k_LxK, turn(segments_ref[row, :, at]), of_keys)
      kept_QxL = probs_QxL = exps_QxL / sums_Qx1
      d_probs_QxL = _dot(d_out_QxK, v_LxK, (1, 1))
      if rate:
        bits_QxL = probability_bits(seeds_ref[first_row + row], first_head + head, first, Q, L)
        kept_QxL, d_probs_QxL = dropout.drop(probs_QxL, bits_QxL, rate), dropout.drop(d_probs_QxL, bits_QxL, rate)
      of_query_Qx1 = (probs_QxL * d_probs_QxL).sum(axis=1, keepdims=True)
      d_scores_QxL = (probs_QxL * (d_probs_QxL - of_query_Qx1) * K**-0.5).astype(q_QxK.dtype)
      d_q_QxK = _dot(d_scores_QxL, k_LxK, (1, 0))
      d_qkv_ref[row, at, columns(0, head)] = d_q_QxK.astype(d_qkv_ref.dtype)
      add(0, head, d_q_QxK)
      return (sums[0] + _dot(d_scores_QxL, q_QxK, (0, 0)), sums[1] + _dot(kept_QxL.astype(v_LxK.dtype), d_out_QxK, (0, 0)))

    zeros = jnp.zeros((L, K), jnp.float32)
    for part, gradient in enumerate(jax.lax.fori_loop(0, L // Q, of_queries, (zeros, zeros)), 1):
      d_qkv_ref[row, :, columns(part, head)] = gradient.astype(d_qkv_ref.dtype)
      add(part, head, gradient)

  def of_row(row, _):
    for head in range(heads):
      of_head(row, head, segments_ref[row])

  jax.lax.fori_loop(0, R, of_row, None)


def _call(kernel, name, arrays, outs, *, heads, groups, rate, interpret, products):
  """One grid step a few rows and a group of heads; arrays [B, L, columns] in blocks of columns / G.

  outs: columns of an array like those, or -columns for fp32 sums over each step's tokens, [steps, 8, columns].
  """
  from jax.experimental.pallas import tpu as pltpu

  seeds_B, segments_BxL, *arrays = arrays
  B, L = segments_BxL.shape
  rows = max(r for r in range(1, B + 1) if B % r == 0 and (r == 1 or r * L <= 512))
  block = lambda columns: pl.BlockSpec((rows, L, columns // groups), lambda b, g, *_: (b, 0, g))  # noqa: E731
  sums = lambda columns: pl.BlockSpec((1, 8, columns // groups), lambda b, g, *_: (b, 0, g))  # noqa: E731
  width = arrays[0].shape[2] // 3 // heads
  elements = sum(x.size for x in arrays) + B * L * sum(columns for columns in outs if columns > 0)
  return pl.pallas_call(
    functools.partial(kernel, heads=heads // groups, rate=rate),
    out_shape=[
      jax.ShapeDtypeStruct((B, L, columns), arrays[0].dtype)
      if columns > 0
      else jax.ShapeDtypeStruct((B // rows, 8, -columns), jnp.float32)
      for columns in outs
    ],
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(B // rows, groups),
      in_specs=[pl.BlockSpec((rows, 1, L), lambda b, g, *_: (b, 0, 0)), *(block(x.shape[2]) for x in arrays)],
      out_specs=[block(columns) if columns > 0 else sums(-columns) for columns in outs],
    ),
    cost_estimate=pl.CostEstimate(
      flops=products * 2 * B * heads * L * L * width,
      transcendentals=B * heads * L * L,
      bytes_accessed=elements * arrays[0].dtype.itemsize,
    ),
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
    interpret=interpret,
    name=name,
  )(seeds_B, segments_BxL[:, None, :], *arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _row_attention(qkv_BxLxC, segments_BxL, seeds_B, bias_C, heads, groups, rate, interpret):
  return _call(
    _forward_kernel,
    "row_attention",
    (seeds_B, segments_BxL, qkv_BxLxC),
    (qkv_BxLxC.shape[2] // 3,),
    heads=heads,
    groups=groups,
    rate=rate,
    interpret=interpret,
    products=2,
  )[0]


def _row_attention_forward(qkv_BxLxC, segments_BxL, seeds_B, bias_C, *how):
  return _row_attention(qkv_BxLxC, segments_BxL, seeds_B, bias_C, *how), (qkv_BxLxC, segments_BxL, seeds_B)


def _row_attention_backward(heads, groups, rate, interpret, saved, d_out_BxLxD):
  qkv_BxLxC, segments_BxL, seeds_B = saved
  C = qkv_BxLxC.shape[2]
  d_qkv, sums = _call(
    _backward_kernel,
    "row_attention_backward",
    (seeds_B, segments_BxL, qkv_BxLxC, d_out_BxLxD),
    (C, -C),
    heads=heads,
    groups=groups,
    rate=rate,
    interpret=interpret,
    products=5,
  )
  return d_qkv, None, None, sums.sum(axis=0)[0]


_row_attention.defvjp(_row_attention_forward, _row_attention_backward)


# --- other people's kernels ----------------------------------------------------------------------------------------


def _splash(qkv, segments_BxL, *, heads, interpret):
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  q, k, v = (x.transpose(0, 2, 1, 3) for x in _split(qkv, heads))
  B, H, L, K = q.shape
  block = next(size for size in (512, 256, 128) if L % size == 0)
  minor = splash.QKVLayout.SEQ_MINOR  # heads narrower than the lanes are padded to them in the other layout
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
  of_row = lambda q, k, v, segments: kernel(q, k, v, segment_ids=splash.SegmentIds(segments, segments))  # noqa: E731
  out_BxHxLxK = jax.vmap(of_row)(q * jnp.asarray(K**-0.5, q.dtype), k, v, segments_BxL)
  return out_BxHxLxK.transpose(0, 2, 1, 3).reshape(B, L, H * K).astype(qkv.dtype)


def _cudnn(qkv, segments_BxL, *, heads):
  q, k, v = _split(qkv, heads)
  B, L = segments_BxL.shape
  same_Bx1xLxL = (segments_BxL[:, :, None] == segments_BxL[:, None, :])[:, None]
  return jax.nn.dot_product_attention(q, k, v, mask=same_Bx1xLxL, implementation="cudnn").reshape(B, L, -1)
