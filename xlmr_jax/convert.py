"""Names and layouts: Hugging Face's XLM-R/RoBERTa tensors to our parameters and back. The commands follow later."""

import numpy as np

from xlmr_jax.model import padded_vocabulary

# ours, ours' leaf, Hugging Face's module; kernels are transposed, stacked over layers N and reshaped on the way.
_LAYER = (
  ("attention_out", "attention.output.dense"),
  ("attention_norm", "attention.output.LayerNorm"),
  ("ffn_in", "intermediate.dense"),
  ("ffn_out", "output.dense"),
  ("ffn_norm", "output.LayerNorm"),
)
_QKV = ("query", "key", "value")


def _pad_rows(table: np.ndarray, rows: int) -> np.ndarray:
  return np.pad(table, [(0, rows - table.shape[0])] + [(0, 0)] * (table.ndim - 1))


def params_from_hf(tensors: dict[str, np.ndarray], *, heads: int, pad_vocabulary: bool = True) -> dict:
  """Our parameters from the tensors of an XLMRobertaForMaskedLM, named as in its state dict.

  Raises KeyError naming the first tensor that is missing.
  """
  table = tensors["roberta.embeddings.word_embeddings.weight"]
  vocabulary, D = table.shape
  rows = padded_vocabulary(vocabulary) if pad_vocabulary else vocabulary
  layers = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith("roberta.encoder.layer."))
  stack = lambda name: np.stack([tensors[f"roberta.encoder.layer.{n}.{name}"] for n in range(layers)])  # noqa: E731
  norm = lambda prefix, get: {"scale": get(f"{prefix}.weight"), "bias": get(f"{prefix}.bias")}  # noqa: E731

  qkv_kernel = np.stack([stack(f"attention.self.{x}.weight").swapaxes(1, 2) for x in _QKV], axis=2)  # [N, D, 3, D]
  qkv_bias = np.stack([stack(f"attention.self.{x}.bias") for x in _QKV], axis=1)
  layer = {"qkv": {"kernel": qkv_kernel.reshape(layers, D, 3, heads, D // heads),
                   "bias": qkv_bias.reshape(layers, 3, heads, D // heads)}}
  for ours, theirs in _LAYER:
    if ours.endswith("norm"):
      layer[ours] = norm(theirs, stack)
    else:
      layer[ours] = {"kernel": stack(f"{theirs}.weight").swapaxes(1, 2), "bias": stack(f"{theirs}.bias")}
  out = layer["attention_out"]["kernel"]
  layer["attention_out"]["kernel"] = out.reshape(layers, heads, D // heads, D)

  return {
    "token_embedding": _pad_rows(table, rows),
    # RoBERTa has one token type; its row is added to every token, so it joins the positions (XLM-R's is zero).
    "position_embedding": tensors["roberta.embeddings.position_embeddings.weight"]
                          + tensors["roberta.embeddings.token_type_embeddings.weight"][0],
    "embedding_norm": norm("roberta.embeddings.LayerNorm", tensors.__getitem__),
    "layer": layer,
    "head_dense": {"kernel": tensors["lm_head.dense.weight"].T, "bias": tensors["lm_head.dense.bias"]},
    "head_norm": norm("lm_head.layer_norm", tensors.__getitem__),
    "head_bias": _pad_rows(tensors["lm_head.bias"], rows),
  }
