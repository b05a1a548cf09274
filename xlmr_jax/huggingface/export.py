"""The two files of a Hugging Face folder that hold our model: model.safetensors and the content of config.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.data.tokenizer import Tokenizer
from xlmr_jax.data.tokenizer_json import BERT
from xlmr_jax.files import flatten
from xlmr_jax.huggingface import names, safetensors_file
from xlmr_jax.huggingface.folder import OURS, Folder, types_of
from xlmr_jax.huggingface.safetensors_file import Tensor
from xlmr_jax.ids import BOS, EOS, PAD, SPECIAL_IDS, moved_ids
from xlmr_jax.model.task_head import SPAN

DTYPES = {
  name: safetensors_file.DTYPES[code] for name, code in (("float32", "F32"), ("bfloat16", "BF16"), ("float16", "F16"))
}


class TunedHead(NamedTuple):
  """The head of a fine-tuned model."""

  kind: str  # a key of names.HEADS
  labels: tuple[str, ...]  # names of its classes; () for a span, or for one number
  params: Any  # {"out": {"kernel", "bias"}, ...}, on any devices of this process


def why_no_export(config: ConfigDict, tokenizer: Tokenizer | None = None) -> str:
  """Why transformers has no model for a run of this config and vocabulary; "" if it has one. None: by the config alone.

  Whether the vocabulary itself can be exported is told by huggingface.tokenizer.
  """
  model = config.model
  if model.pre_norm:
    return "config.model.pre_norm=True is the layer of XLM-R XL, which has no export yet"
  if model.family == "xlm":
    return "config.model.family=xlm has no export; transformers' XLM wants a vocabulary of another kind"
  if tokenizer is None:
    return ""
  if model.family == "xlmr" and tokenizer.specials != SPECIAL_IDS:
    return ("config.model.family=xlmr with a vocabulary of BERT's layout. transformers' XLM-R numbers positions by the id "
            "of <pad>, so it cannot take such a model; train with config.model.family=bert")  # fmt: skip
  if model.family == "bert" and model.pair_types != (tokenizer.separators == BERT.separators):
    return (f"config.model.pair_types={model.pair_types}, but {tokenizer.path} makes pairs the other way; set it to "
            f"{not model.pair_types} for the training")  # fmt: skip
  return ""


def sizes_of(config: ConfigDict, vocabulary_size: int, source: Folder | None) -> names.Sizes:
  """The sizes of a run's model. source: the folder that it was imported from, which tells the number of token types."""
  model = config.model
  types = source.sizes.token_types if source else model.token_types if model.family == "bert" else 1
  return names.Sizes(vocabulary_size, model.max_positions, model.layers, model.hidden, model.heads, model.ffn, types,
                     model.family)  # fmt: skip


def write_weights(path: Path, params: Any, sizes: names.Sizes, source: Folder | None, dtype: np.dtype | None,
                  head: TunedHead | None = None, specials: tuple[int, ...] = SPECIAL_IDS) -> list[str]:  # fmt: skip
  """Writes the model.safetensors of a masked language model or, given a head, of a fine-tuned model. Returns the names.

  params: of our model, on any devices of this process; the padding rows of the vocabulary are cut. What the source has and
  our model has not (token types, the pooler) is written as it was. dtype: of all tensors; None for each one's in the source,
  fp32 for those that it has not. specials: of the tokenizer, whose ids the rows get.
  """
  ours, named, moved = flatten(params, separator="/"), sizes.names, moved_ids(specials)
  tensors: dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray | Tensor]]] = {}  # name -> (shape, its value)
  for parameter, leaf in names.leaves(sizes).items():
    for part in leaf.parts:

      def value_of(parameter: str = parameter, part: names.Part = part) -> np.ndarray:
        value = np.asarray(ours[parameter])
        return part.to_theirs(names.to_their_rows(value, moved) if parameter in names.BY_ENTRY and moved else value)

      tensors[part.name] = part.shape, value_of
  if source:
    for name in named.pooler:
      if name in source.tensors:
        tensors[name] = source.tensors[name].shape, lambda tensor=source.tensors[name]: tensor
  types_shape = sizes.token_types, sizes.hidden
  if sizes.family == "xlmr" and source:

    def unfolded_positions() -> np.ndarray:
      folded, imported = np.asarray(ours["position_embedding"]), safetensors_file.read(source.tensors[names.POSITION_TABLE])
      return names.unfold_types(folded, imported.astype(np.float32), types_of(source))

    tensors[names.POSITION_TABLE] = tensors[names.POSITION_TABLE][0], unfolded_positions
    tensors[names.TYPE_TABLE] = types_shape, lambda: source.tensors[names.TYPE_TABLE]
  elif sizes.family == "xlmr":
    tensors[names.TYPE_TABLE] = types_shape, lambda: np.zeros(types_shape, np.float32)
  if head:
    prefix = f"{named.encoder}."
    tensors = {name: entry for name, entry in tensors.items() if name.startswith(prefix) and name not in named.pooler}
    head_params = flatten(head.params, separator="/")
    parts = names.head_parts(head.kind, sizes.hidden, head_params["out/bias"].shape[0], sizes.family)
    for parameter, part in parts.items():
      value = np.asarray(head_params[parameter])
      tensors[part.name] = part.shape, lambda value=value, part=part: part.to_theirs(value)

  def dtype_of(name: str) -> np.dtype:
    if dtype is not None:
      return dtype
    return source.tensors[name].dtype if source and name in source.tensors else DTYPES["float32"]

  shapes = {name: (dtype_of(name), shape) for name, (shape, _) in tensors.items()}
  safetensors_file.write(path, shapes, lambda name: tensors[name][1]())
  return list(tensors)


def hf_config(
  config: ConfigDict, sizes: names.Sizes, dtype: str, model_type: str, head: TunedHead | None = None,
  specials: tuple[int, ...] = SPECIAL_IDS,
) -> dict:  # fmt: skip
  """The config.json of a masked language model or, given a head, of a fine-tuned model with its label names."""
  model = config.model
  prefix = {"xlm-roberta": "XLMRoberta", "roberta": "Roberta", "bert": "Bert"}[model_type]
  result = {
    "architectures": [f"{prefix}For{names.HEADS[head.kind][1] if head else 'MaskedLM'}"],
    "model_type": model_type,
    "vocab_size": sizes.vocabulary,
    "hidden_size": sizes.hidden,
    "num_hidden_layers": sizes.layers,
    "num_attention_heads": sizes.heads,
    "intermediate_size": sizes.ffn,
    "hidden_act": "gelu",
    "hidden_dropout_prob": model.dropout,
    "attention_probs_dropout_prob": model.attention_dropout,
    "max_position_embeddings": sizes.positions,
    "type_vocab_size": sizes.token_types,
    "initializer_range": model.init_std,
    "layer_norm_eps": model.layer_norm_epsilon,
    "pad_token_id": specials[PAD],
    # transformers' BERT has neither.
    **({} if model_type == "bert" else {"bos_token_id": specials[BOS], "eos_token_id": specials[EOS]}),
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
    "torch_dtype": dtype,
    # It matters only where documents share a row, as in training: a single text or pair is read the same either way.
    OURS: {"isolate_documents": bool(model.isolate_documents)},
  }
  if head and head.kind != SPAN:
    labels = head.labels or ("score",)
    result["id2label"] = {str(i): label for i, label in enumerate(labels)}
    result["label2id"] = {label: i for i, label in enumerate(labels)}
    if not head.labels:
      result["problem_type"] = "regression"
  return result
