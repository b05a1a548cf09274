"""Which of our parameters is which tensor of transformers' XLM-R, RoBERTa and BERT, both ways and without rounding.

The letters of shapes are those of model/xlmr.py. transformers stores a kernel as [out, in], one tensor per layer, and
query, key and value apart; here a kernel is [in, ...], the layers are stacked, and the three are one parameter. RoBERTa
adds row 0 of a token type table to every token (XLM-R's row is zero); here that row is added to the position table. BERT's
table of types is a parameter. Where a vocabulary's file has its special pieces at other ids than we (ids.moved_ids), the
rows of these entries change places.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from xlmr_jax.ids import SPECIAL_IDS, moved_ids
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS
from xlmr_jax.model.xlmr import padded_vocabulary


class Names(NamedTuple):
  """What the tensors of a family are called."""

  encoder: str  # in front of the names of embeddings and layers
  head: str  # in front of those of the masked-language-model head
  head_dense: str
  head_norm: str
  head_bias: str
  head_classes: dict[str, tuple[dict[str, str], str]]  # kind of a task -> ({our product: theirs}, suffix of its class)

  @property
  def word_table(self) -> str:
    """The token embedding."""
    return f"{self.encoder}.embeddings.word_embeddings.weight"

  @property
  def position_table(self) -> str:
    """The position embedding."""
    return f"{self.encoder}.embeddings.position_embeddings.weight"

  @property
  def type_table(self) -> str:
    """The embedding of the token types."""
    return f"{self.encoder}.embeddings.token_type_embeddings.weight"

  @property
  def pooler(self) -> tuple[str, str]:
    """Pretraining has no pooler, and XLM-R's had none. The tensors are kept beside the run and written again on export."""
    return f"{self.encoder}.pooler.dense.weight", f"{self.encoder}.pooler.dense.bias"

  @property
  def copies(self) -> dict[str, str]:
    """Tensors of older files that hold the values of another one."""
    return {f"{self.head}decoder.weight": self.word_table, f"{self.head}decoder.bias": self.head_bias}

  @property
  def constants(self) -> tuple[str, str]:
    """Tensors of older files that are the same in all models."""
    return f"{self.encoder}.embeddings.position_ids", f"{self.encoder}.embeddings.token_type_ids"

  @property
  def task_heads(self) -> tuple[str, ...]:
    """What the names of fine-tuned heads begin with."""
    found = {theirs for products, _ in self.head_classes.values() for theirs in products.values()}
    return tuple(sorted({f"{theirs.split('.')[0]}." for theirs in found if not theirs.startswith(f"{self.encoder}.")}))


def _heads(dense: str, out: str) -> dict[str, tuple[dict[str, str], str]]:
  return {
    SENTENCE: ({"dense": dense, "out": out}, "SequenceClassification"),
    WORDS: ({"out": "classifier"}, "TokenClassification"),
    SPAN: ({"out": "qa_outputs"}, "QuestionAnswering"),
  }


NAMES = {  # config.model.family -> its names
  "xlmr": Names(
    "roberta", "lm_head.", "lm_head.dense", "lm_head.layer_norm", "lm_head.bias",
    _heads("classifier.dense", "classifier.out_proj"),
  ),
  "bert": Names(
    "bert", "cls.predictions.", "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
    "cls.predictions.bias", _heads("bert.pooler.dense", "classifier"),
  ),
}  # fmt: skip
# XLM-R's and RoBERTa's.
POSITION_TABLE, TYPE_TABLE = NAMES["xlmr"].position_table, NAMES["xlmr"].type_table
HEADS = NAMES["xlmr"].head_classes

_LAYER = (
  ("attention_out", "attention.output.dense"),
  ("attention_norm", "attention.output.LayerNorm"),
  ("ffn_in", "intermediate.dense"),
  ("ffn_out", "output.dense"),
  ("ffn_norm", "output.LayerNorm"),
)
_QKV = ("query", "key", "value")
# The next-sentence head of BERT's own pretraining, which nothing here uses.
UNUSED = ("cls.seq_relationship.weight", "cls.seq_relationship.bias")
BY_ENTRY = ("token_embedding", "head_bias")  # our parameters with a row per entry of the vocabulary


class Sizes(NamedTuple):
  """The sizes of a model, from which the shape of every tensor follows."""

  vocabulary: int
  positions: int
  layers: int
  hidden: int
  heads: int
  ffn: int
  token_types: int = 1
  family: str = "xlmr"

  @property
  def names(self) -> Names:
    """What the tensors are called."""
    return NAMES[self.family]


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
    section = parameter[self.index]
    return section.reshape(self.shape[::-1]).T if self.kernel else section.reshape(self.shape)


class Leaf(NamedTuple):
  """A parameter of ours: its shape and the tensors that it is made of. Elements that no tensor covers are zero."""

  shape: tuple[int, ...]
  parts: tuple[Part, ...]


def leaves(sizes: Sizes, pad_vocabulary: bool = True) -> dict[str, Leaf]:
  """{path, e.g. "layer/qkv/kernel": Leaf} of a model with its masked-language-model head."""
  V, D, N, F, H = sizes.vocabulary, sizes.hidden, sizes.layers, sizes.ffn, sizes.heads
  K, named = D // H, sizes.names
  rows = padded_vocabulary(V) if pad_vocabulary else V
  found = {
    "token_embedding": Leaf((rows, D), (Part(named.word_table, (V, D), (slice(V),)),)),
    "position_embedding": Leaf((sizes.positions, D), (Part(named.position_table, (sizes.positions, D)),)),
    "head_bias": Leaf((rows,), (Part(named.head_bias, (V,), (slice(V),)),)),
    "head_dense/kernel": Leaf((D, D), (Part(f"{named.head_dense}.weight", (D, D), kernel=True),)),
    "head_dense/bias": Leaf((D,), (Part(f"{named.head_dense}.bias", (D,)),)),
  }
  if sizes.family == "bert":
    types = sizes.token_types, D
    found["type_embedding"] = Leaf(types, (Part(named.type_table, types),))
  for ours, theirs in (("embedding_norm", f"{named.encoder}.embeddings.LayerNorm"), ("head_norm", named.head_norm)):
    found[f"{ours}/scale"] = Leaf((D,), (Part(f"{theirs}.weight", (D,)),))
    found[f"{ours}/bias"] = Leaf((D,), (Part(f"{theirs}.bias", (D,)),))

  def stacked(ours: str, shape: tuple[int, ...], theirs: str, their_shape: tuple[int, ...], kernel: bool) -> None:
    found[f"layer/{ours}"] = Leaf(
      (N, *shape), tuple(Part(f"{named.encoder}.encoder.layer.{n}.{theirs}", their_shape, (n,), kernel) for n in range(N))
    )

  def qkv(kind: str, shape: tuple[int, ...], ours: str, their_shape: tuple[int, ...], index: Callable) -> None:
    found[f"layer/qkv/{ours}"] = Leaf(
      (N, *shape),
      tuple(
        Part(f"{named.encoder}.encoder.layer.{n}.attention.self.{x}.{kind}", their_shape, (n, *index(i)), ours == "kernel")
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
  return shapes | {sizes.names.type_table: (sizes.token_types, sizes.hidden)}


def head_parts(kind: str, hidden: int, outputs: int, family: str = "xlmr") -> dict[str, Part]:
  """{path in a fine-tuned head, e.g. "out/kernel": Part}. kind: a key of HEADS; outputs: the head's classes."""
  parts = {}
  for ours, theirs in NAMES[family].head_classes[kind][0].items():
    width = hidden if ours == "dense" else outputs
    parts |= {
      f"{ours}/kernel": Part(f"{theirs}.weight", (width, hidden), kernel=True),
      f"{ours}/bias": Part(f"{theirs}.bias", (width,)),
    }
  return parts


# --- rows of the vocabulary ----------------------------------------------------------------------------------------


def to_our_rows(rows: np.ndarray, moved: Mapping[int, int]) -> None:
  """Puts the rows of a table as it lies in a file into our order, in place. moved: ids.moved_ids of the vocabulary."""
  ours, theirs = list(moved.keys()), list(moved.values())
  rows[ours] = rows[theirs]


def to_their_rows(rows: np.ndarray, moved: Mapping[int, int]) -> np.ndarray:
  """A copy of a table of ours with its rows in the order of the vocabulary's file."""
  ours, theirs = list(moved.keys()), list(moved.values())
  result = np.array(rows)
  result[theirs] = rows[ours]
  return result


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
  family = next(family for family, named in NAMES.items() if named.word_table in tensors)
  named = NAMES[family]
  V, D = tensors[named.word_table].shape
  layers = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith(f"{named.encoder}.encoder.layer."))
  return Sizes(
    V,
    tensors[named.position_table].shape[0],
    layers,
    D,
    heads,
    tensors[f"{named.encoder}.encoder.layer.0.intermediate.dense.weight"].shape[0],
    len(tensors[named.type_table]),
    family,
  )


def params_from_hf(
  tensors: Mapping[str, np.ndarray], *, heads: int, pad_vocabulary: bool = True, specials: tuple[int, ...] = SPECIAL_IDS
) -> dict:
  """Our parameters from the tensors of an XLMRobertaForMaskedLM or BertForMaskedLM in memory, named as in its state dict.

  specials: the ids of <s>, <pad>, </s> and <unk> in the model's vocabulary. folder.py does the same from files. Raises
  KeyError naming the first tensor that is missing.
  """
  flat, sizes = {}, sizes_of(tensors, heads)
  for path, leaf in leaves(sizes, pad_vocabulary).items():
    out = np.zeros(leaf.shape, tensors[leaf.parts[0].name].dtype)
    for part in leaf.parts:
      out[part.index] = part.to_ours(tensors[part.name], out[part.index].shape)
    if path in BY_ENTRY:
      to_our_rows(out, moved_ids(specials))
    flat[path] = out
  if sizes.family == "xlmr":
    flat["position_embedding"] = fold_types(flat["position_embedding"], tensors[TYPE_TABLE])
  return unflatten_dict(flat, sep="/")
