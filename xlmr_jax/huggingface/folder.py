"""A Hugging Face folder of an XLM-R, RoBERTa or BERT: opening it checks names and shapes, loading it reads the parameters.

Opening reads headers only. Weights are read from safetensors alone, because a pickle can run code.
"""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, flatten, read_json
from xlmr_jax.folders import local_folder
from xlmr_jax.huggingface import names, safetensors_file
from xlmr_jax.huggingface.names import Sizes
from xlmr_jax.huggingface.tokenizer import read_vocabulary
from xlmr_jax.ids import BOS, EOS, MOST_ENTRIES, PAD, SPECIAL_IDS, moved_ids

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OURS = "xlmr_jax"  # the key of config.json that holds what transformers has no key for
MOST_LAYERS = 1000  # more are no model but a damaged file, whose tensors would be listed for ever
FAMILIES = {"xlm-roberta": "xlmr", "roberta": "xlmr", "bert": "bert"}  # config.json's model_type -> config.model.family
_UNSAFE = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
_OTHER = {"flax_model.msgpack": "from_flax", "tf_model.h5": "from_tf"}
_FLOATS = tuple(safetensors_file.DTYPES[name] for name in ("F32", "F16", "BF16"))


class Folder(NamedTuple):
  """An opened folder whose every tensor has the name, shape and dtype that it must have."""

  path: Path
  config: dict[str, Any]  # the content of config.json
  sizes: Sizes
  tensors: dict[str, safetensors_file.Tensor]  # those that the model needs, and the pooler's
  vocabulary: bytes  # what data.tokenizer.open_tokenizer takes as `model`; empty if it was not read
  specials: tuple[int, ...] = SPECIAL_IDS  # the ids of <s>, <pad>, </s> and <unk> in the folder's tokenizer
  separators: int = 2  # how many </s> its tokenizer puts between the texts of a pair

  @property
  def has_head(self) -> bool:
    """Whether the folder has a masked-language-model head; without one, load() draws it."""
    return self.sizes.names.head_bias in self.tensors

  @property
  def has_pooler(self) -> bool:
    """Whether there is a pooler, with which fine-tuning of a BERT begins."""
    return set(self.sizes.names.pooler) <= set(self.tensors)

  @property
  def isolate_documents(self) -> bool:
    """Whether documents that share a row did not see each other in training; False where config.json does not say."""
    return self.config.get(OURS, {}).get("isolate_documents", False)


def open_folder(path: AnyPath, tokenizer: bool = True) -> Folder:
  """Opens a folder; one of a bucket is copied here first. tokenizer: whether it must have one, which is then read.

  Raises UserError naming the file, and the tensor or key, that is missing or not as it must be.
  """
  try:
    path = local_folder(path)
  except FileNotFoundError:
    raise UserError(f"{path}: no such folder") from None
  config = _read_config(path)
  sizes = _sizes(path, config)
  named, tensors = sizes.names, _find_tensors(path)
  wanted = names.tensor_shapes(sizes)
  if set(named.pooler) <= set(tensors):
    wanted |= dict(zip(named.pooler, ((sizes.hidden, sizes.hidden), (sizes.hidden,))))
  if not any(name.startswith(named.head) for name in tensors):  # an AutoModel, or a fine-tuned model
    tensors = _encoder_alone(tensors, named)
    wanted = {name: shape for name, shape in wanted.items() if not name.startswith(named.head)}
  for name, shape in wanted.items():
    if name not in tensors:
      raise UserError(f"{path}: tensor {name} {list(shape)} is missing")
    if tensors[name].shape != shape:
      raise UserError(
        f"{tensors[name].path}: tensor {name} is {list(tensors[name].shape)}, by config.json it must be {list(shape)}"
      )
    if tensors[name].dtype not in _FLOATS:
      raise UserError(f"{tensors[name].path}: tensor {name} is {tensors[name].dtype}, not float32, float16 or bfloat16")
  for name in sorted(set(tensors) - set(wanted) - set(named.pooler)):
    if name in named.copies:
      if not safetensors_file.same_bytes(tensors[name], tensors[named.copies[name]]):
        raise UserError(
          f"{tensors[name].path}: tensor {name} differs from {named.copies[name]}: the output layer is not "
          "tied to the embedding, as XLM-R's is"
        )
    elif name not in (*named.constants, *names.UNUSED):
      raise UserError(
        f"{tensors[name].path}: extra tensor {name} {list(tensors[name].shape)}, which an {config['model_type']} with a "
        "masked-language-model head does not have"
      )
    del tensors[name]
  vocabulary, specials, separators = b"", SPECIAL_IDS, 2
  if not tokenizer:
    specials = _noted_ids(path, config)
  else:
    vocabulary, size = read_vocabulary(path, sizes.vocabulary)
    if size != sizes.vocabulary:
      raise UserError(
        f"{path}: config.json and the embedding have a vocabulary of {sizes.vocabulary} entries, the "
        f"tokenizer one of {size}; both must be of the same model"
      )
    opened = open_tokenizer(path, vocabulary)
    if sizes.family != "xlmr":
      specials, separators = opened.specials, opened.separators
    elif opened.specials != SPECIAL_IDS:  # Under XLM-R's positions the padding has to be 1, and no row is moved.
      raise UserError(
        f"{path}: its tokenizer has <s>, <pad>, </s> and <unk> at {', '.join(map(str, opened.specials))}, and a model of "
        f"type {config['model_type']} has them at {', '.join(map(str, SPECIAL_IDS))}; ids and embedding would not fit"
      )
  return Folder(path, config, sizes, tensors, vocabulary, specials, separators)


def _noted_ids(path: Path, config: dict) -> tuple[int, ...]:
  """The ids of the special pieces that an import noted in config.json; XLM-R's without a note."""
  noted = config.get(OURS, {}).get("special_ids", SPECIAL_IDS)
  is_sound = isinstance(noted, list | tuple) and all(type(id) is int and 0 <= id < config["vocab_size"] for id in noted)
  if not is_sound or len(set(noted)) != len(SPECIAL_IDS):
    raise UserError(f"{path / 'config.json'}: {OURS}.special_ids is {str(noted)[:60]}; import the model again")
  return tuple(noted)


def _read_config(path: Path) -> dict:
  if not path.is_dir():
    raise UserError(f"{path}: no such folder")
  try:
    config = read_json(path / "config.json")
  except OSError as error:
    raise UserError(f"{path / 'config.json'}: {error.strerror}; a Hugging Face folder has one") from None
  except ValueError as error:
    raise UserError(f"{path / 'config.json'}: not JSON ({error})") from None
  if not isinstance(config, dict) or config.get("model_type") not in tuple(FAMILIES):
    found = config.get("model_type") if isinstance(config, dict) else None
    raise UserError(f"{path / 'config.json'}: model_type {found!r}; it must be xlm-roberta, roberta or bert")
  ours = config.get(OURS, {})
  if not isinstance(ours, dict) or not isinstance(ours.get("isolate_documents", False), bool):
    raise UserError(f"{path / 'config.json'}: {OURS} is {str(ours)[:60]}; it must be an object, whose isolate_documents is "
                    "true or false; remove the key, or export the model again")  # fmt: skip
  return config


def _sizes(path: Path, config: dict) -> Sizes:
  """The sizes in a config.json. UserError: one is missing, or a key asks for something that our model does not do."""
  keys = {
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
  }
  found: dict[str, Any] = {name: config.get(key) for name, key in keys.items()}
  family = FAMILIES[config["model_type"]]
  found["token_types"] = config.get("type_vocab_size", 2)  # the default of all three classes of transformers
  for name, value in found.items():
    most = MOST_LAYERS if name == "layers" else MOST_ENTRIES
    if type(value) is not int or not 1 <= value <= most:
      raise UserError(
        f"{path / 'config.json'}: {keys.get(name, 'type_vocab_size')} is {str(value)[:40]}; it must be a whole number above "
        f"0 and at most {most}"
      )
  sizes = Sizes(**found, family=family)
  fixed = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    **({} if family == "bert" else {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}),
    "tie_word_embeddings": True,
    "is_decoder": False,
    "add_cross_attention": False,
  }
  for key, value in fixed.items():
    if config.get(key, value) != value:
      raise UserError(f"{path / 'config.json'}: {key} is {config[key]!r}; as in XLM-R and RoBERTa it must be {value!r}")
  for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
    value = config.get(key, 0.1)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
      raise UserError(f"{path / 'config.json'}: {key} is {str(value)[:40]!r}; it must be a number from 0 to below 1")
  epsilon = layer_norm_epsilon(config)
  if not isinstance(epsilon, int | float) or isinstance(epsilon, bool) or not 0 < epsilon < 1:
    raise UserError(f"{path / 'config.json'}: layer_norm_eps is {epsilon!r}; it must be a number above 0, such as 1e-05")
  if sizes.hidden % sizes.heads:
    raise UserError(
      f"{path / 'config.json'}: hidden_size {sizes.hidden} does not divide into num_attention_heads {sizes.heads}"
    )
  return sizes


def layer_norm_epsilon(config: dict) -> float:
  """The epsilon of a config.json's norms; without a key it is the one of transformers' classes."""
  return config.get("layer_norm_eps", 1e-12)


def _find_tensors(path: Path) -> dict[str, safetensors_file.Tensor]:
  """The tensors of the one file, or of all the files that the index names."""
  if (path / WEIGHTS).is_file():
    return _renamed(safetensors_file.read_header(path / WEIGHTS))
  if not (path / INDEX).is_file():
    raise UserError(_no_safetensors(path))
  try:
    weight_map = read_json(path / INDEX)["weight_map"]
    shards = sorted(set(weight_map.values()))
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path / INDEX}: cannot be read ({error!r}); fetch it again") from None
  tensors: dict[str, safetensors_file.Tensor] = {}
  for shard in shards:
    if not isinstance(shard, str) or Path(shard).name != shard or len(shard) > 255 or "\0" in shard:
      raise UserError(f"{path / INDEX}: names {str(shard)[:80]!r}, which is not a file beside it")
    if not (path / shard).is_file():
      raise UserError(f"{path / shard}: missing; {INDEX} names it")
    for name, tensor in safetensors_file.read_header(path / shard).items():
      if weight_map.get(name) != shard:
        raise UserError(f"{path / shard}: extra tensor {name}; {INDEX} has it in {weight_map.get(name)}")
      tensors[name] = tensor
  missing = sorted(set(weight_map) - set(tensors))
  if missing:
    raise UserError(f"{path / weight_map[missing[0]]}: tensor {missing[0]} is missing; {INDEX} names it")
  return _renamed(tensors)


def _renamed(tensors: dict[str, safetensors_file.Tensor]) -> dict[str, safetensors_file.Tensor]:
  """The tensors with today's names for a norm's parameters, which models from TensorFlow call gamma and beta."""
  old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

  def today(name: str) -> str:
    ending = next((ending for ending in old if name.endswith(ending)), None)
    return name.removesuffix(ending) + old[ending] if ending else name

  return {today(name): tensor for name, tensor in tensors.items()}


def _no_safetensors(path: Path) -> str:
  """Says why a folder without safetensors cannot be read, and which command converts it."""
  unsafe = next((name for name in _UNSAFE if (path / name).exists()), None)
  other = next((name for name in _OTHER if (path / name).exists()), None)
  convert = (
    "python -c \"from transformers import AutoModelForMaskedLM as M; M.from_pretrained('{0}'{1})"
    ".save_pretrained('{0}-safetensors')\" and copy its tokenizer files"
  )
  if unsafe:
    return (
      f"{path / unsafe}: a pickle, which can run code when it is read, and so it is not read. Where torch and "
      f"transformers are installed and you trust the file, run {convert.format(path, '')}"
    )
  if other:
    return (
      f"{path / other}: not safetensors. Where torch and transformers<5 are installed, run "
      f"{convert.format(path, f', {_OTHER[other]}=True')}"
    )
  return f"{path} holds neither {WEIGHTS} nor {INDEX}; fetch the model again"


def _encoder_alone(tensors: dict[str, safetensors_file.Tensor], named: names.Names) -> dict[str, safetensors_file.Tensor]:
  """The encoder's tensors under the names that they have beside a head; the head of a fine-tuned model is left out."""
  parts = ("embeddings.", "encoder.", "pooler.")
  return {
    f"{named.encoder}.{name}" if name.startswith(parts) else name: tensor
    for name, tensor in tensors.items()
    if not name.startswith(named.task_heads)
  }


# --- loading -----------------------------------------------------------------------------------------------------


def load(folder: Folder, abstract_params: Any) -> Any:
  """The parameters, fp32. abstract_params: jax.ShapeDtypeStruct leaves with shardings.

  Reads one parameter at a time, the largest first, so that the host never holds more than all parameters and one of them
  a second time. Each of several hosts keeps its own part. Raises UserError if the folder's model has other shapes.
  """
  wanted = flatten(abstract_params, separator="/")
  found = names.leaves(folder.sizes)
  for path in sorted({*wanted, *found}):
    ours, theirs = (list(tree[path].shape) if path in tree else "absent" for tree in (wanted, found))
    if ours != theirs:
      raise UserError(
        f"{folder.path}: {path} is {theirs}, this run's config makes it {ours}; use the model sizes of what was imported"
      )
  if not folder.has_head:
    print(f"{folder.path} has no masked-language-model head: a new one is drawn", file=sys.stderr, flush=True)
  params = {}
  for path in sorted(wanted, key=lambda path: -np.prod(wanted[path].shape)):
    is_drawn = not folder.has_head and path.startswith("head_")
    value = _drawn(folder, path, found[path]) if is_drawn else read_leaf(folder, path, found[path])
    params[path] = jax.make_array_from_callback(value.shape, wanted[path].sharding, lambda index, value=value: value[index])
    params[path].block_until_ready()
    del value
  return unflatten_dict({path: params[path] for path in wanted}, sep="/")


def _drawn(folder: Folder, path: str, leaf: names.Leaf) -> np.ndarray:
  """A parameter of a new head, the same at each call: as a new model's, with the deviation that config.json names."""
  if path.endswith("kernel"):
    deviation = float(folder.config.get("initializer_range", 0.02))
    return np.random.default_rng(0).normal(0.0, deviation, leaf.shape).astype(np.float32)
  return np.full(leaf.shape, path.endswith("scale"), np.float32)


def read_leaf(folder: Folder, path: str, leaf: names.Leaf) -> np.ndarray:
  """One parameter, fp32, in C order. path, leaf: an item of names.leaves(folder.sizes)."""
  out = _zeros(leaf.shape)
  for part in leaf.parts:
    section = out[part.index]
    if part.kernel:
      section[...] = part.to_ours(safetensors_file.read(folder.tensors[part.name]), section.shape)
    else:
      safetensors_file.read_into(folder.tensors[part.name], section.reshape(part.shape))
  if path in names.BY_ENTRY:
    names.to_our_rows(out, moved_ids(folder.specials))
  is_folded = path == "position_embedding" and folder.sizes.family == "xlmr"
  return names.fold_types(out, types_of(folder)) if is_folded else out


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
  """fp32 zeros on a 64-byte boundary: JAX's CPU devices take such an array over instead of copying it."""
  size = math.prod(shape) * 4
  room = np.zeros(size + 64, np.uint8)
  start = -room.ctypes.data % 64
  return room[start : start + size].view(np.float32).reshape(shape)


def pooler_of(folder: Folder) -> dict[str, np.ndarray] | None:
  """The pooler as the dense layer of a task's head, {"kernel" fp32 [D, D], "bias" fp32 [D]}; None if there is none."""
  if not folder.has_pooler:
    return None
  weight, bias = (safetensors_file.read(folder.tensors[name]).astype(np.float32) for name in folder.sizes.names.pooler)
  return {"kernel": np.ascontiguousarray(weight.T), "bias": bias}


def types_of(folder: Folder) -> np.ndarray:
  """The token type table, fp32 [token types, D]."""
  return safetensors_file.read(folder.tensors[folder.sizes.names.type_table]).astype(np.float32)
