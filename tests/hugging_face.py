"""Hugging Face folders for tests: a vocabulary of 90 entries and random tensors under transformers' names.

transformers itself is not needed.
"""

import functools
import json
from pathlib import Path

import numpy as np

from tests import tiny
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.huggingface import names, safetensors_file
from xlmr_jax.huggingface.tokenizer import write_tokenizer

SIZES = names.Sizes(vocabulary=tiny.VOCABULARY, positions=tiny.SEQ_LEN + 2, layers=2, hidden=16, heads=2, ffn=32)
WORDS = (
  "the", "cat", "sees", "hut", "stone", "of", "houses", "rivers", "gardens", "birds", "windows", "mornings", "casa", "è",
  "bianca", "巴黎", "是", "法国", "的", "首都", "กรุงเทพ", "เป็น", "เมือง",
)  # fmt: skip


@functools.cache
def vocabulary(size: int = tiny.VOCABULARY) -> bytes:
  """A SentencePiece model of so many ids over WORDS."""
  import io

  import sentencepiece

  model = io.BytesIO()
  rng = np.random.default_rng(0)
  lines = [f"{rng.integers(1000)} {' '.join(rng.choice(WORDS, 8))}, the end" for _ in range(300)]
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(lines),
    model_writer=model,
    vocab_size=size - 2,
    character_coverage=1.0,
    minloglevel=2,
    hard_vocab_limit=True,
  )
  return model.getvalue()


def tensors(sizes: names.Sizes = SIZES, seed: int = 0, types: bool = False) -> dict[str, np.ndarray]:
  """Random values, norms around 1; types: also a token type row that is not zero."""
  rng = np.random.default_rng(seed)
  found = {
    name: rng.normal(1.0 if name.endswith("orm.weight") else 0.0, 0.15, shape).astype(np.float32)
    for name, shape in names.tensor_shapes(sizes).items()
  }
  found[names.TYPE_TABLE] *= np.float32(types)
  found[names.POSITION_TABLE][1] = -0.0  # a sum with zero would lose the sign
  return found


def config_of(sizes: names.Sizes = SIZES, **changes) -> dict:
  return {
    "architectures": ["XLMRobertaForMaskedLM"],
    "model_type": "xlm-roberta",
    "vocab_size": sizes.vocabulary,
    "hidden_size": sizes.hidden,
    "num_hidden_layers": sizes.layers,
    "num_attention_heads": sizes.heads,
    "intermediate_size": sizes.ffn,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": sizes.positions,
    "type_vocab_size": sizes.token_types,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
  } | changes


def write_tensors(path: Path, values: dict[str, np.ndarray]) -> None:
  safetensors_file.write(path, {name: (value.dtype, value.shape) for name, value in values.items()}, values.__getitem__)


def make_folder(
  path: Path, values: dict[str, np.ndarray] | None = None, sizes: names.Sizes = SIZES, shards: int = 1, **changes
) -> Path:
  """A folder with these tensors, in one file or several; changes: keys of config.json."""
  path.mkdir(parents=True)
  values = tensors(sizes) if values is None else values
  (path / "config.json").write_text(json.dumps(config_of(sizes, **changes)))
  write_tokenizer(path, open_tokenizer("vocabulary", vocabulary(sizes.vocabulary)), sizes.positions - 2)
  if shards == 1:
    write_tensors(path / "model.safetensors", values)
    return path
  weight_map = {}
  for i in range(shards):
    shard = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
    part = {name: values[name] for name in list(values)[i::shards]}
    weight_map |= dict.fromkeys(part, shard)
    write_tensors(path / shard, part)
  (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
  return path


def read_tensors(path: Path) -> dict[str, np.ndarray]:
  """Every tensor of a folder's model.safetensors, as stored."""
  header = safetensors_file.read_header(path / "model.safetensors")
  return {name: safetensors_file.read(tensor) for name, tensor in header.items()}


def assert_same_bytes(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
  assert set(found) == set(wanted)
  for name, value in wanted.items():
    assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
    assert found[name].tobytes() == value.tobytes(), name
