"""Which of our parameters is which tensor of transformers' XLM-R and RoBERTa, both ways and without rounding.

The letters of shapes are those of model/xlmr.py. transformers stores a kernel as [out, in], one tensor per layer, and
query, key and value apart; here a kernel is [in, ...], the layers are stacked, and the three are one parameter. RoBERTa
adds row 0 of a token type table to every token (XLM-R's row is zero); here that row is added to the position table.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS
from xlmr_jax.model.xlmr import padded_vocabulary

WORD_TABLE = "roberta.embeddings.word_embeddings.weight"
POSITION_TABLE = "roberta.embeddings.position_embeddings.weight"
TYPE_TABLE = "roberta.embeddings.token_type_embeddings.weight"
HEAD_BIAS = "lm_head.bias"
# Older files hold these tensors too: the same values under a second name, or a constant.
COPIES = {"lm_head.decoder.weight": WORD_TABLE, "lm_head.decoder.bias": HEAD_BIAS}
CONSTANTS = ("roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids")
# Pretraining has no pooler, and XLM-R's had none. Its tensors are kept beside the run and are written again on export.
POOLER = ("roberta.pooler.dense.weight", "roberta.pooler.dense.bias")

_LAYER = (
  ("attention_out", "attention.output.dense"),
  ("attention_norm", "attention.output.LayerNorm"),
  ("ffn_in", "intermediate.dense"),
  ("ffn_out", "output.dense"),
  ("ffn_norm", "output.LayerNorm"),
)
_QKV = ("query", "key", "value")
HEADS = {  # kind of a task's head -> ({our product: theirs}, the suffix of the transformers class that has it)
  SENTENCE: ({"dense": "classifier.dense", "out": "classifier.out_proj"}, "SequenceClassification"),
  WORDS: ({"out": "classifier"}, "TokenClassification"),
  SPAN: ({"out": "qa_outputs"}, "QuestionAnswering"),
}  # fmt: skip


# What the heads of transformers' fine-tuned models are called.
TASK_HEADS = tuple(f"{theirs.split('.')[0]}." for kind in HEADS.values() for theirs in kind[0].values())


class Sizes(NamedTuple):
  """The sizes of a model, from which the shape of every tensor follows."""

  vocabulary: int
  positions: int
  layers: int
  hidden: int
  heads: int
  ffn: int
  token_types: int = 1


class Part(NamedTuple):
  """A tensor of transformers and its place in a parameter of ours."""

  name: str
  shape: tuple[int, ...]
  index: tuple = ()  # of its place in our parameter
  kernel: bool = False  # transformers stores it as [out, in], and we store in before out

  def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor as it lies in our parameter, where its place has this shape."""
    return (tensor.T if self.kernel else tensor).reshape(shape)

  def to_theirs(self, parameter: np.ndarray) -> np.ndarray:
    """Cuts this tensor out of our whole parameter."""
    place = parameter[self.index]
    return place.reshape(self.shape[::-1]).T if self.kernel else place.reshape(self.shape)


class Leaf(NamedTuple):
  """A parameter of ours: its shape and the tensors that it is made of. Elements that no tensor covers are zero."""

  shape: tuple[int, ...]
  parts: tuple[Part, ...]


def leaves(sizes: Sizes, pad_vocabulary: bool = True) -> dict[str, Leaf]:
  """{path, e.g. "layer/qkv/kernel": Leaf} of a model with its masked-language-model head."""
  V, D, N, F, H = sizes.vocabulary, sizes.hidden, sizes.layers, sizes.ffn, sizes.heads
  K = D // H
  rows = padded_vocabulary(V) if pad_vocabulary else V
  found = {
    "token_embedding": Leaf((rows, D), (Part(WORD_TABLE, (V, D), (slice(V),)),)),
    "position_embedding": Leaf((sizes.positions, D), (Part(POSITION_TABLE, (sizes.positions, D)),)),
    "head_bias": Leaf((rows,), (Part(HEAD_BIAS, (V,), (slice(V),)),)),
    "head_dense/kernel": Leaf((D, D), (Part("lm_head.dense.weight", (D, D), kernel=True),)),
    "head_dense/bias": Leaf((D,), (Part("lm_head.dense.bias", (D,)),)),
  }
  for ours, theirs in (("embedding_norm", "roberta.embeddings.LayerNorm"), ("head_norm", "lm_head.layer_norm")):
    found[f"{ours}/scale"] = Leaf((D,), (Part(f"{theirs}.weight", (D,)),))
    found[f"{ours}/bias"] = Leaf((D,), (Part(f"{theirs}.bias", (D,)),))

  def stacked(ours: str, shape: tuple[int, ...], theirs: str, their_shape: tuple[int, ...], kernel: bool) -> None:
    found[f"layer/{ours}"] = Leaf(
      (N, *shape), tuple(Part(f"roberta.encoder.layer.{n}.{theirs}", their_shape, (n,), kernel) for n in range(N))
    )

  def qkv(kind: str, shape: tuple[int, ...], ours: str, their_shape: tuple[int, ...], index: Callable) -> None:
    found[f"layer/qkv/{ours}"] = Leaf(
      (N, *shape),
      tuple(
        Part(f"roberta.encoder.layer.{n}.attention.self.{x}.{kind}", their_shape, (n, *index(i)), ours == "kernel")
        for n in range(N)
        for i, x in enumerate(_QKV)
      ),
    )

  qkv("weight", (D, 3, H, K), "kernel", (D, D), lambda i: (slice(None), i))
  qkv("bias", (3, H, K), "bias", (D,), lambda i: (i,))
  kernels = {"attention_out": ((H, K, D), (D, D)), "ffn_in": ((D, F), (F, D)), "ffn_out": ((F, D), (D, F))}
  for ours, theirs in _LAYER:
    if ours in kernels:
      shape, their_shape = kernels[ours]
      stacked(f"{ours}/kernel", shape, f"{theirs}.weight", their_shape, True)
      stacked(f"{ours}/bias", their_shape[:1], f"{theirs}.bias", their_shape[:1], False)
    else:
      stacked(f"{ours}/scale", (D,), f"{theirs}.weight", (D,), False)
      stacked(f"{ours}/bias", (D,), f"{theirs}.bias", (D,), False)
  return found


def tensor_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
  """{name: shape} of the tensors that a folder with a masked language model must have, token types included."""
  shapes = {part.name: part.shape for leaf in leaves(sizes).values() for part in leaf.parts}
  return shapes | {TYPE_TABLE: (sizes.token_types, sizes.hidden)}


def head_parts(kind: str, hidden: int, outputs: int) -> dict[str, Part]:
  """{path in a fine-tuned head, e.g. "out/kernel": Part}. kind: a key of HEADS; outputs: the head's classes."""
  parts = {}
  for ours, theirs in HEADS[kind][0].items():
    width = hidden if ours == "dense" else outputs
    parts |= {
      f"{ours}/kernel": Part(f"{theirs}.weight", (width, hidden), kernel=True),
      f"{ours}/bias": Part(f"{theirs}.bias", (width,)),
    }
  return parts


# --- token types -------------------------------------------------------------------------------------------------


def fold_types(positions: np.ndarray, types: np.ndarray) -> np.ndarray:
  """The position table with row 0 of the token types added. Where that row is zero, the table stays as it is, -0.0 too."""
  return positions + types[0] if np.any(types[0]) else positions


def unfold_types(folded: np.ndarray, positions: np.ndarray, types: np.ndarray) -> np.ndarray:
  """The position table that gives `folded` once row 0 of the types is added. positions: the table that was imported.

  Subtracting would not give back the terms of a rounded sum. So wherever training has not changed `folded`, the result
  is taken from `positions`, bit for bit.
  """
  if not np.any(types[0]):
    return folded
  return np.where(folded == fold_types(positions, types), positions, folded - types[0])


# --- whole trees ---------------------------------------------------------------------------------------------------


def sizes_of(tensors: Mapping[str, Any], heads: int) -> Sizes:
  """The sizes that the shapes of the tensors tell. They do not tell the number of heads."""
  V, D = tensors[WORD_TABLE].shape
  layers = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith("roberta.encoder.layer."))
  return Sizes(
    V,
    tensors[POSITION_TABLE].shape[0],
    layers,
    D,
    heads,
    tensors["roberta.encoder.layer.0.intermediate.dense.weight"].shape[0],
    len(tensors[TYPE_TABLE]),
  )


def params_from_hf(tensors: Mapping[str, np.ndarray], *, heads: int, pad_vocabulary: bool = True) -> dict:
  """Our parameters from the tensors of an XLMRobertaForMaskedLM in memory, named as in its state dict.

  folder.py does the same from files. Raises KeyError naming the first tensor that is missing.
  """
  flat = {}
  for path, leaf in leaves(sizes_of(tensors, heads), pad_vocabulary).items():
    out = np.zeros(leaf.shape, tensors[leaf.parts[0].name].dtype)
    for part in leaf.parts:
      out[part.index] = part.to_ours(tensors[part.name], out[part.index].shape)
    flat[path] = out
  flat["position_embedding"] = fold_types(flat["position_embedding"], tensors[TYPE_TABLE])
  return unflatten_dict(flat, sep="/")
