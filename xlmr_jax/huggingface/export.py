"""Our parameters as a Hugging Face folder: the tensors, one after another, and config.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.registry import SPAN, Task
from xlmr_jax.huggingface import folder as folders
from xlmr_jax.huggingface import names
from xlmr_jax.huggingface import safetensors_file as files
from xlmr_jax.model.fused import LAYER_NORM_EPSILON
from xlmr_jax.model.xlmr import BOS, PAD

DTYPES = {"float32": files.DTYPES["F32"], "bfloat16": files.DTYPES["BF16"], "float16": files.DTYPES["F16"]}


def sizes_of(config: ConfigDict, vocabulary_size: int, source: folders.Folder | None) -> names.Sizes:
  """The sizes of a run's model. source: what it was imported from, for the number of its token types."""
  model = config.model
  return names.Sizes(
    vocabulary_size,
    model.max_positions,
    model.layers,
    model.hidden,
    model.heads,
    model.ffn,
    source.sizes.token_types if source else 1,
  )


def write_weights(
  path: Path,
  params: Any,
  sizes: names.Sizes,
  source: folders.Folder | None,
  dtype: np.dtype,
  head: tuple[str, Any] | None = None,
) -> list[str]:
  """Writes model.safetensors of a masked language model or, with head (kind, parameters), of a fine-tuned one.

  params: of XLMR, on any devices of this process; padding rows of the vocabulary are cut. What the source has and our
  model has not (token types, the pooler) is written as it was. Returns the names.
  """
  flat = names.flatten(params)
  getters: dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]] = {}

  def host(parameter) -> np.ndarray:
    return np.asarray(parameter)

  for ours, leaf in names.leaves(sizes).items():
    for part in leaf.parts:
      getters[part.name] = part.shape, lambda ours=ours, part=part: part.to_theirs(host(flat[ours]))
  if source:
    kept = {name: source.tensors[name] for name in (names.TYPE_TABLE, *names.POOLER) if name in source.tensors}
    getters |= {name: (tensor.shape, lambda tensor=tensor: tensor) for name, tensor in kept.items()}
    folded = getters[names.POSITION_TABLE][1]
    original = lambda: files.read(source.tensors[names.POSITION_TABLE]).astype(np.float32)  # noqa: E731
    getters[names.POSITION_TABLE] = (
      getters[names.POSITION_TABLE][0],
      lambda: names.unfold_types(folded(), original(), folders.types_of(source)),
    )
  else:
    shape = sizes.token_types, sizes.hidden
    getters[names.TYPE_TABLE] = shape, lambda: np.zeros(shape, np.float32)
  if head:
    kind, of_head = head
    getters = {name: get for name, get in getters.items() if name.startswith("roberta.") and name not in names.POOLER}
    of_head = names.flatten(of_head)
    for ours, part in names.head_parts(kind, sizes.hidden, of_head["out/bias"].shape[0]).items():
      getters[part.name] = part.shape, lambda ours=ours, part=part: part.to_theirs(host(of_head[ours]))
  files.write(path, {name: (dtype, shape) for name, (shape, _) in getters.items()}, lambda name: getters[name][1]())
  return list(getters)


def hf_config(config: ConfigDict, sizes: names.Sizes, dtype: str, model_type: str, task: Task | None = None) -> dict:
  """config.json of a masked language model, or of one fine-tuned on a task, with its label names."""
  model = config.model
  family = "XLMRoberta" if model_type == "xlm-roberta" else "Roberta"
  kind = names.HEADS[task.head][1] if task else "MaskedLM"
  result = {
    "architectures": [f"{family}For{kind}"],
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
    "layer_norm_eps": LAYER_NORM_EPSILON,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": 2,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
    "torch_dtype": dtype,
    # Where documents share a row, as in training; a single text or pair is read the same either way.
    folders.OURS: {"isolate_documents": bool(model.isolate_documents)},
  }
  if task and task.head != SPAN:
    labels = task.labels or ("score",)
    result |= {
      "id2label": {str(i): label for i, label in enumerate(labels)},
      "label2id": {label: i for i, label in enumerate(labels)},
    }
    if not task.labels:
      result["problem_type"] = "regression"
  return result


def write_folder(out: Path, fill: Callable[[Path], None]) -> None:
  """Makes `out` with what fill(folder) writes, whole or not at all. UserError: there is something already."""
  import shutil

  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(f"{out} exists and is not an empty folder; choose another or remove it")
  unfinished = out.with_name(f".{out.name}.unfinished")
  shutil.rmtree(unfinished, ignore_errors=True)
  try:
    unfinished.mkdir(parents=True)
    fill(unfinished)
    if out.exists():
      out.rmdir()
    unfinished.rename(out)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def write_json(path: Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
