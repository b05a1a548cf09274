"""Hugging Face folders: tensors go in and out byte for byte, and what is not as it must be is refused by name."""

import dataclasses
import json
import pickle

import jax
import ml_dtypes
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import hugging_face as hf
from xlmr_jax.config import default_config
from xlmr_jax.errors import UserError
from xlmr_jax.files import flatten
from xlmr_jax.huggingface import folder, names, safetensors_file
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.model.build import family_of, params_shapes
from xlmr_jax.open_model import load_initial, load_params, open_record
from xlmr_jax.report import export
from xlmr_jax.report.export import to_hf
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import sharding

BASE = names.Sizes(250_002, 514, 12, 768, 12, 3072)
XLMR = names.NAMES["xlmr"]
LARGE = names.Sizes(250_002, 514, 24, 1024, 16, 4096)


def config_of(sizes):
  """A run's config of a model of these sizes."""
  config = default_config()
  config.model.update(layers=sizes.layers, hidden=sizes.hidden, heads=sizes.heads, ffn=sizes.ffn,
                      max_positions=sizes.positions)  # fmt: skip
  return config


def round_trip(source, tmp_path, **options):
  """A folder -> a run -> a folder: the tensors that come out."""
  from_hf(source, Workdir(tmp_path / "run"))
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out", **options)
  return hf.read_tensors(tmp_path / "out")


# --- round trip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards, types", [(1, False), (3, False), (1, True)])
def test_a_small_model_comes_back_byte_for_byte(tmp_path, shards, types):
  values = hf.tensors(types=types)
  found = round_trip(hf.make_folder(tmp_path / "source", values, shards=shards), tmp_path)
  hf.assert_same_bytes(found, values)
  assert np.signbit(found[names.POSITION_TABLE][1]).all()  # -0.0 stays


def test_old_files_with_copies_constants_and_a_pooler(tmp_path):
  """The copies are checked and left out, the pooler, which no pretraining touches, comes back."""
  values = hf.tensors()
  pooler = {name: np.ones((16, 16)[: 2 if name.endswith("weight") else 1], np.float32) for name in XLMR.pooler}
  more = {
    "lm_head.decoder.weight": values[XLMR.word_table],
    "lm_head.decoder.bias": values[XLMR.head_bias],
    "roberta.embeddings.position_ids": np.arange(34)[None],
  }
  found = round_trip(hf.make_folder(tmp_path / "source", values | pooler | more), tmp_path)
  hf.assert_same_bytes(found, values | pooler)


def in_dtype(values, dtype):
  return {name: value.astype(np.dtype(getattr(ml_dtypes, dtype, dtype))) for name, value in values.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_back_in_its_own_dtype(tmp_path, dtype):
  """Each tensor in its own, since they may differ. The dtype that was named is for all."""
  values = in_dtype(hf.tensors(types=True), dtype) | {XLMR.head_bias: hf.tensors()[XLMR.head_bias]}
  source = hf.make_folder(tmp_path / "source", values)
  hf.assert_same_bytes(round_trip(source, tmp_path), values)
  assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype
  for wanted in ("float32", dtype):
    to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / wanted, dtype=wanted)
    hf.assert_same_bytes(hf.read_tensors(tmp_path / wanted), in_dtype(values, wanted))


def test_what_was_trained_is_exported_in_float32(tmp_path, monkeypatch):
  """Nothing is rounded unless it is asked for, whatever the imported model was stored in."""
  from_hf(hf.make_folder(tmp_path / "source", in_dtype(hf.tensors(), "bfloat16")), Workdir(tmp_path / "run"))
  monkeypatch.setattr(export, "load_params", lambda *args: (5, load_params(*args)[1]))
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  assert {value.dtype.name for value in hf.read_tensors(tmp_path / "out").values()} == {"float32"}
  assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"


@pytest.mark.parametrize("imported, tokens", [(True, 32), (False, 20)])
def test_the_export_promises_no_more_tokens_than_were_trained(tmp_path, imported, tokens):
  """transformers cuts texts at model_max_length. An imported model was trained elsewhere, on all its positions."""
  from_hf(hf.make_folder(tmp_path / "source"), Workdir(tmp_path / "run"))
  record = dataclasses.replace(open_record(tmp_path / "run"), seq_len=20, **({} if imported else {"imported": None}))
  record.write(Workdir(tmp_path / "run"))
  to_hf(Workdir(tmp_path / "run"), "initial", tmp_path / "out")
  assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == tokens
  assert json.loads((tmp_path / "out" / "config.json").read_text())["max_position_embeddings"] == 34


def test_what_training_changed_is_exported_and_token_types_stay(tmp_path):
  """positions + types is what a model sees; exported it is the same, whatever was trained."""
  values = hf.tensors(types=True)
  source = hf.make_folder(tmp_path / "source", values)
  moved = values[names.POSITION_TABLE] + values[names.TYPE_TABLE] + np.float32(0.25) * (np.arange(34)[:, None] > 5)
  back = names.unfold_types(moved, values[names.POSITION_TABLE], values[names.TYPE_TABLE])
  np.testing.assert_allclose(back + values[names.TYPE_TABLE], moved, atol=1e-6)
  assert back[:6].tobytes() == values[names.POSITION_TABLE][:6].tobytes()
  opened = folder.open_folder(source)
  loaded = folder.read_leaf(opened, "position_embedding", names.leaves(opened.sizes)["position_embedding"])
  np.testing.assert_array_equal(loaded, values[names.POSITION_TABLE] + values[names.TYPE_TABLE])


@pytest.mark.parametrize("sizes", [BASE, LARGE])
def test_shapes_of_base_and_large(sizes):
  """Ours by eval_shape, theirs by transformers on no device: every tensor has its place, and one only."""
  ours = flatten(params_shapes(config_of(sizes), sizes.vocabulary), separator="/")
  found = names.leaves(sizes)
  assert {path: x.shape for path, x in ours.items()} == {path: leaf.shape for path, leaf in found.items()}
  parts = [part.name for leaf in found.values() for part in leaf.parts]
  assert len(parts) == len(set(parts))
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  config = transformers.XLMRobertaConfig(**hf.config_of(sizes))
  with torch.device("meta"):
    theirs = transformers.XLMRobertaForMaskedLM(config)
  shapes = {XLMR.copies.get(name, name): tuple(p.shape) for name, p in theirs.named_parameters()}
  assert names.tensor_shapes(sizes) == shapes


@pytest.mark.parametrize("sizes", [BASE, LARGE])
def test_one_layer_of_base_and_large_byte_for_byte(sizes):
  sizes = sizes._replace(vocabulary=100, layers=1)
  rng = np.random.default_rng(0)
  values = {name: rng.standard_normal(shape, np.float32) for name, shape in names.tensor_shapes(sizes).items()}
  values[names.TYPE_TABLE] *= 0
  params = flatten(names.params_from_hf(values, heads=sizes.heads), separator="/")
  back = {part.name: part.to_theirs(params[path]) for path, leaf in names.leaves(sizes).items() for part in leaf.parts}
  hf.assert_same_bytes(
    {name: np.ascontiguousarray(value) for name, value in back.items()},
    {name: value for name, value in values.items() if name != names.TYPE_TABLE},
  )


def test_padding_rows_are_made_and_cut(tmp_path):
  """90 entries are 128 rows here: zero on import, and none of them is exported."""
  values = hf.tensors()
  source = hf.make_folder(tmp_path / "source", values)
  record = open_record(source)
  _, params = load_params(source, record, ConfigDict(record.config), "latest")
  assert params["token_embedding"].shape == (128, 16) and params["head_bias"].shape == (128,)
  assert not np.any(params["token_embedding"][90:]) and not np.any(params["head_bias"][90:])
  assert round_trip(source, tmp_path)[XLMR.word_table].shape == (90, 16)


def test_reading_from_files_equals_the_mapping_in_memory(tmp_path):
  values = hf.tensors(types=True)
  source = folder.open_folder(hf.make_folder(tmp_path / "source", values, shards=2))
  expected = flatten(names.params_from_hf(values, heads=2), separator="/")
  for path, leaf in names.leaves(source.sizes).items():
    np.testing.assert_array_equal(folder.read_leaf(source, path, leaf), expected[path], path)


def test_parameters_are_read_to_any_mesh(tmp_path):
  """Each device gets its part, the same values as on one."""
  source = hf.make_folder(tmp_path / "source")
  record = open_record(source)
  shapes = params_shapes(ConfigDict(record.config), record.vocabulary_size)
  on_mesh = sharding.state_shardings(sharding.make_mesh(2, 4), shapes, family_of(default_config()).sharding)
  spread = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, on_mesh)
  one, several = (folder.load(folder.open_folder(source), abstract) for abstract in (shapes, spread))
  assert several["token_embedding"].addressable_shards[0].data.shape == (32, 16)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True))


def test_files_are_those_of_the_safetensors_library(tmp_path):
  numpy = pytest.importorskip("safetensors.numpy")
  values = hf.tensors() | {"empty": np.zeros((0, 3), np.float32), "scalar": np.array(3, np.float32)}
  hf.write_tensors(tmp_path / "model.safetensors", values)
  hf.assert_same_bytes(numpy.load_file(tmp_path / "model.safetensors"), values)
  (tmp_path / "theirs").mkdir()
  numpy.save_file(values, tmp_path / "theirs" / "model.safetensors")
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "theirs"), values)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_is_byte_for_byte_the_file_that_the_library_would_write(tmp_path, dtype):
  """Of the same tensors, in one file: order, header and all. So does transformers save a model."""
  numpy = pytest.importorskip("safetensors.numpy")
  values = in_dtype(hf.tensors(hf.SIZES._replace(layers=11), types=True), dtype)
  sizes = hf.SIZES._replace(layers=11)
  source = hf.make_folder(tmp_path / "source", values, sizes)
  numpy.save_file(values, source / "model.safetensors", metadata={"format": "pt"})
  round_trip(source, tmp_path)
  theirs = (source / "model.safetensors").read_bytes()
  assert (tmp_path / "out" / "model.safetensors").read_bytes() == theirs
  assert (tmp_path / "run" / "initial" / "0" / "model.safetensors").read_bytes() == theirs
  every = {f"{size}{name}": np.ones(3, dtype) for name, dtype in safetensors_file.DTYPES.items() for size in "ba"}
  hf.write_tensors(tmp_path / "ours", every)
  numpy.save_file(every, tmp_path / "theirs", metadata={"format": "pt"})
  assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_large_tensors_are_read_and_written_in_pieces(tmp_path, monkeypatch):
  monkeypatch.setattr(safetensors_file, "_PIECE", 64)
  values = {"a": np.arange(1000, dtype=np.float32).reshape(50, 20), "b": np.ones(7, np.float16)}
  hf.write_tensors(tmp_path / "model.safetensors", values)
  hf.assert_same_bytes(hf.read_tensors(tmp_path), values)
  found = safetensors_file.read_header(tmp_path / "model.safetensors")
  out = np.zeros((50, 20), np.float64)
  safetensors_file.read_into(found["a"], out)
  np.testing.assert_array_equal(out, values["a"])
  assert safetensors_file.same_bytes(found["a"], found["a"]) and not safetensors_file.same_bytes(found["a"], found["b"])


def test_isolated_documents_go_with_the_model(tmp_path):
  source = hf.make_folder(tmp_path / "source")
  from_hf(source, Workdir(tmp_path / "run"), isolate_documents=True)
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  assert json.loads((tmp_path / "out" / "config.json").read_text())["xlmr_jax"] == {"isolate_documents": True}
  from_hf(tmp_path / "out", Workdir(tmp_path / "again"))
  assert open_record(tmp_path / "again").config["model"]["isolate_documents"] is True
  assert open_record(source).config["model"]["isolate_documents"] is False


# --- refusals ------------------------------------------------------------------------------------------------------

Q = "roberta.encoder.layer.1.attention.self.query.weight"


def without(name):
  return {key: value for key, value in hf.tensors().items() if key != name}


@pytest.mark.parametrize(
  "values, changes, message",
  [
    (without(Q), {}, f"tensor {Q} \\[16, 16\\] is missing"),
    (without("lm_head.bias"), {}, r"tensor lm_head.bias \[90\] is missing"),
    (hf.tensors() | {"roberta.extra": np.zeros(3, np.float32)}, {}, r"model.safetensors: extra tensor roberta.extra \[3\]"),
    (hf.tensors() | {Q: np.zeros((16, 8), np.float32)}, {}, f"{Q} is \\[16, 8\\], by config.json it must be \\[16, 16\\]"),
    (hf.tensors() | {Q: np.zeros((16, 16), np.int32)}, {}, f"tensor {Q} is int32"),
    (hf.tensors() | {"lm_head.decoder.weight": np.zeros((90, 16), np.float32)}, {}, "lm_head.decoder.weight differs from"),
    (hf.tensors(), {"vocab_size": 91}, r"word_embeddings.weight is \[90, 16\], by config.json it must be \[91, 16\]"),
    (hf.tensors(), {"num_hidden_layers": 3}, r"layer.2.* is missing"),
    (hf.tensors(), {"num_hidden_layers": 1}, r"extra tensor roberta.encoder.layer.1"),
    (hf.tensors(), {"num_hidden_layers": None}, r"num_hidden_layers is None; it must be a whole number above 0"),
    (hf.tensors(), {"num_attention_heads": 3}, "hidden_size 16 does not divide into num_attention_heads 3"),
    (hf.tensors(), {"model_type": "mpnet"}, "model_type 'mpnet'; it must be xlm-roberta, roberta or bert"),
    (hf.tensors(), {"pad_token_id": 0}, "pad_token_id is 0; .* must be 1"),
    (hf.tensors(), {"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
    *(
      (hf.tensors(), {"layer_norm_eps": x}, "layer_norm_eps is .*; it must be a number above 0")
      for x in (None, "1e-5", 0, 2)
    ),
    (hf.tensors(), {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    (hf.tensors(), {"model_type": []}, r"model_type \[\]; it must be xlm-roberta"),
    *(
      (hf.tensors(), {"xlmr_jax": x}, "xlmr_jax is .*; it must be an object, whose isolate_documents is true or false")
      for x in (None, [], {"isolate_documents": None})
    ),
  ],
)
def test_refused_by_name_and_nothing_written(tmp_path, values, changes, message):
  source = hf.make_folder(tmp_path / "source", values, **changes)
  with pytest.raises(UserError, match=message) as error:
    from_hf(source, Workdir(tmp_path / "run"))
  assert str(source) in str(error.value) and "\n" not in str(error.value)
  assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("types", [1, 2])
def test_token_types_without_a_number_are_two(tmp_path, types):
  """As in transformers' classes, where config.json does not say how many there are."""
  sizes = hf.SIZES._replace(token_types=types)
  source = hf.make_folder(tmp_path / "source", hf.tensors(sizes), sizes)
  config = json.loads((source / "config.json").read_text())
  del config["type_vocab_size"]
  (source / "config.json").write_text(json.dumps(config))
  if types == 1:
    with pytest.raises(UserError, match=r"token_type_embeddings.weight is \[1, 16\], by config.json it must be \[2, 16\]"):
      open_record(source)
  else:
    assert open_record(source).vocabulary_size == 90


def test_another_vocabulary_is_refused(tmp_path):
  source = hf.make_folder(tmp_path / "source")
  (source / "sentencepiece.bpe.model").write_bytes(hf.vocabulary(95))
  with pytest.raises(UserError, match=r"bpe.model and tokenizer.json cut .* differently; remove the one"):
    from_hf(source, Workdir(tmp_path / "run"))
  (source / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="a vocabulary of 90 entries, the tokenizer one of 95"):
    from_hf(source, Workdir(tmp_path / "run"))
  (source / "sentencepiece.bpe.model").unlink()
  with pytest.raises(UserError, match="no tokenizer in it"):
    from_hf(source, Workdir(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -1])
def test_truncated_files_are_refused(tmp_path, keep):
  source = hf.make_folder(tmp_path / "source")
  path = source / "model.safetensors"
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match=r"model\.safetensors: .*(cut off|cannot be read).* again"):
    from_hf(source, Workdir(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "header",
  [
    b"{}",
    b"[1]",
    b'{"a": 1}',
    b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}',
    b'{"a": {"dtype": "X", "shape": [], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
  ],
)
def test_contradictory_headers_are_refused(tmp_path, header):
  path = tmp_path / "model.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
  with pytest.raises(UserError, match=r"model\.safetensors: .* again"):
    safetensors_file.read_header(path)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
  source = hf.make_folder(tmp_path / "source")
  (source / "model.safetensors").unlink()
  (source / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
  with pytest.raises(UserError, match=r"pytorch_model.bin: a pickle, .*run python -c \"from transformers .*save_pretrained"):
    from_hf(source, Workdir(tmp_path / "run"))
  (source / "pytorch_model.bin").rename(source / "flax_model.msgpack")
  with pytest.raises(UserError, match=r"flax_model.msgpack: not safetensors.*transformers<5.*from_flax=True"):
    from_hf(source, Workdir(tmp_path / "run"))
  (source / "flax_model.msgpack").rename(source / "model.safetensors")  # a pickle under another name
  with pytest.raises(UserError, match="not a safetensors file"):
    from_hf(source, Workdir(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_indices_that_do_not_fit_their_files(tmp_path):
  source = hf.make_folder(tmp_path / "source", shards=2)
  index = source / "model.safetensors.index.json"
  good = json.loads(index.read_text())
  shard = good["weight_map"][Q]
  other = next(name for name in good["weight_map"].values() if name != shard)
  for weight_map, message in (
    ({Q: "../x"}, "not a file beside it"),
    ({Q: "gone"}, "gone: missing"),
    ({Q: other}, f"{shard}: extra tensor {Q}"),
    ({"new": other}, f"{other}: tensor new is missing"),
  ):
    index.write_text(json.dumps({"weight_map": good["weight_map"] | weight_map}))
    with pytest.raises(UserError, match=message):
      folder.open_folder(source)
  index.write_text("{")
  with pytest.raises(UserError, match=r"index\.json: cannot be read"):
    folder.open_folder(source)


def test_nothing_is_overwritten(tmp_path):
  source = hf.make_folder(tmp_path / "source")
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "mine").write_text("")
  with pytest.raises(UserError, match="run exists and is not an empty folder"):
    from_hf(source, Workdir(tmp_path / "run"))
  with pytest.raises(UserError, match="run exists and is not an empty folder"):
    to_hf(Workdir(source), "latest", tmp_path / "run")
  assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_a_damaged_import_is_not_begun_with(tmp_path):
  from_hf(hf.make_folder(tmp_path / "source"), Workdir(tmp_path / "run"))
  path = Workdir(tmp_path / "run").initial / "model.safetensors"
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match=r"the imported parameters cannot be used: .*model\.safetensors has changed"):
    load_initial(Workdir(tmp_path / "run"), None)
