"""From config.model to a model. The seam for encoders: config.model.family names an entry of FAMILIES.

An encoder is a flax module with `encode`, `table_rows`, `max_seq_len` and the fields that head.MaskedLanguageModel reads;
what else the rest of the code needs to know about it is in its Family.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from xlmr_jax.errors import UserError
from xlmr_jax.model import bert, head, xlm, xlmr
from xlmr_jax.model.bert import BertEncoder
from xlmr_jax.model.head import DENSE, LINEAR, MaskedLanguageModel
from xlmr_jax.model.ops import PLAIN_OPS, Ops, Wanted, choose_ops
from xlmr_jax.model.xlm import XLMEncoder
from xlmr_jax.model.xlmr import XLMREncoder, padded_vocabulary


class Family(NamedTuple):
  """What the training, the tasks and the planner know of a kind of encoder."""

  build: Callable[[ConfigDict, int, Ops], nn.Module]  # (config.model, vocabulary_size, ops) -> the encoder
  sharding: tuple[tuple[str, PartitionSpec], ...]  # pattern of a parameter's path -> how it is divided
  remat: tuple[str, ...]  # the values of config.model.remat
  max_seq_len: Callable[[ConfigDict], int]  # config.model -> the longest row in tokens
  flops_per_token: Callable[[ConfigDict, int, int, int], float]  # (config.model, vocabulary_size, seq_len, slots)
  head: str = DENSE  # of the masked language model, unless config.model.head names another
  languages: bool = False  # whether the encoder reads the languages of its rows, and may have embeddings of them
  pooled: bool = False  # whether a task's head for texts is BERT's: it begins with the model's pooler, if there is one


def _settings(model: ConfigDict, vocabulary_size: int, ops: Ops) -> dict[str, Any]:
  """What the encoders of all families take."""
  return dict(
    vocabulary_size=vocabulary_size, layers=model.layers, hidden=model.hidden, heads=model.heads, ffn=model.ffn,
    max_positions=model.max_positions, dropout=model.dropout, attention_dropout=model.attention_dropout,
    dropout_bits=model.dropout_bits, isolate_documents=model.isolate_documents, pre_norm=model.pre_norm,
    init_std=model.init_std, layer_norm_epsilon=model.layer_norm_epsilon, dtype=jnp.dtype(model.dtype),
    remat=model.remat, unroll_layers=model.unroll_layers, ops=ops,
  )  # fmt: skip


def _build_xlmr(model: ConfigDict, vocabulary_size: int, ops: Ops) -> XLMREncoder:
  return XLMREncoder(**_settings(model, vocabulary_size, ops))


def _build_bert(model: ConfigDict, vocabulary_size: int, ops: Ops) -> BertEncoder:
  settings = _settings(model, vocabulary_size, ops)
  return BertEncoder(**settings, token_types=model.token_types, pair_types=model.pair_types and model.token_types > 1)


def _build_xlm(model: ConfigDict, vocabulary_size: int, ops: Ops) -> XLMEncoder:
  languages = len(model.languages) if model.language_embeddings else 0
  if model.language_embeddings and not languages:  # A run fills them in from its rows: training/model_languages.py.
    raise UserError("config.model.languages is empty: name the languages that the model has embeddings of")
  return XLMEncoder(**_settings(model, vocabulary_size, ops), languages=languages)


def _xlmr_flops(model: ConfigDict, vocabulary_size: int, seq_len: int, slots: int) -> float:
  return xlmr.flops_per_token(
    layers=model.layers, hidden=model.hidden, ffn=model.ffn, vocabulary=padded_vocabulary(vocabulary_size),
    seq_len=seq_len, slots=slots, dense_head=head_of(model) == DENSE,
  )  # fmt: skip


FAMILIES = {
  "xlmr": Family(
    build=_build_xlmr,
    sharding=(*xlmr.SHARDING, *head.SHARDING),
    remat=tuple(xlmr.REMAT_POLICIES),
    max_seq_len=lambda model: model.max_positions - xlmr.FIRST_POSITION,
    flops_per_token=_xlmr_flops,
  ),
  "bert": Family(
    build=_build_bert,
    sharding=(*bert.SHARDING, *head.SHARDING),
    remat=tuple(xlmr.REMAT_POLICIES),
    max_seq_len=lambda model: model.max_positions - BertEncoder.first_position,
    flops_per_token=_xlmr_flops,
    pooled=True,
  ),
  "xlm": Family(
    build=_build_xlm,
    sharding=(*xlm.SHARDING, *head.SHARDING),
    remat=tuple(xlmr.REMAT_POLICIES),
    max_seq_len=lambda model: model.max_positions - XLMEncoder.first_position,
    flops_per_token=_xlmr_flops,
    head=LINEAR,
    languages=True,
  ),
}


def head_of(model: ConfigDict) -> str:
  """The kind of config.model's masked-language-model head."""
  return model.head or _family(model.family).head


def family_of(config: ConfigDict) -> Family:
  """The Family of config.model.family. UserError: there is none of this name, as in the config.json of a later version."""
  return _family(config.model.family)


def _family(name: Any) -> Family:
  if name not in tuple(FAMILIES):
    raise UserError(f"config.model.family={name!r}: must be one of {', '.join(FAMILIES)}; restore the run's config.json")
  return FAMILIES[name]


def choose_model_ops(config: ConfigDict, seq_len: int, platform: str | None = None) -> tuple[Ops, str]:
  """(the operations for rows of seq_len tokens, the line that says what was chosen). platform: None for JAX's default.

  Raises UserError if a kernel that config.model names cannot run.
  """
  model = config.model
  if model.ops == "plain":
    return PLAIN_OPS, "attention: xla; norms: XLA (config.model.ops=plain)"
  wanted = Wanted(
    model.attention, model.fuse, platform or jax.default_backend(), seq_len, model.hidden, model.heads, model.ffn,
    model.attention_dropout, model.dropout_bits, model.dtype,
  )  # fmt: skip
  return choose_ops(wanted)


def build_model(config: ConfigDict, vocabulary_size: int, ops: Ops = PLAIN_OPS) -> MaskedLanguageModel:
  """The model of config.model with a masked-language-model head, for the arrays of one device."""
  return MaskedLanguageModel(family_of(config).build(config.model, vocabulary_size, ops), head_of(config.model))


def initial_params(model: MaskedLanguageModel, key: jax.Array) -> Any:
  """The parameters before step 0, fp32. Drawn with plain operations, since kernels want real rows."""
  ids = jnp.zeros((1, 8), jnp.int32)
  plain = model.clone(encoder=model.encoder.clone(ops=PLAIN_OPS))
  languages_Bx2 = jnp.zeros((1, 2), jnp.int32) if model.encoder.takes_languages else None
  return plain.init(key, ids, ids, languages_Bx2=languages_Bx2)["params"]


def init_params(config: ConfigDict, vocabulary_size: int) -> Any:
  """The parameters of config before step 0, from config.seed, on the first device."""
  model = build_model(config, vocabulary_size)
  return jax.jit(lambda key: initial_params(model, key))(jax.random.key(config.seed))


def params_shapes(config: ConfigDict, vocabulary_size: int) -> Any:
  """jax.ShapeDtypeStruct of each parameter of config's model, on the first device."""
  model = build_model(config, vocabulary_size)
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = jax.eval_shape(lambda: initial_params(model, jax.random.key(config.seed)))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)


def count_parameters(params: Any) -> int:
  """The number of elements of a tree of arrays or shapes."""
  return sum(x.size for x in jax.tree.leaves(params))
