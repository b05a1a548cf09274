"""The Python door: a run or folder opened as a Model, gaps filled, texts as vectors."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

from tests import hugging_face as hf
from tests import tiny
from xlmr_jax.data import tokenizer_json
from xlmr_jax.data.phases import Phase
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import write_json
from xlmr_jax.folders import copy_folder
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.ids import PAD
from xlmr_jax.model.build import params_shapes
from xlmr_jax.open_model import Model, open_model, open_record, row_lengths
from xlmr_jax.run.branch import Branch
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.manifest import MANIFEST
from xlmr_jax.run.retention import pinned_steps
from xlmr_jax.run.workdir import RunRecord, Workdir
from xlmr_jax.training import positions, preparation

open_model_module = importlib.import_module("xlmr_jax.open_model")  # In the package, the function has its name.

LONG = hf.SIZES._replace(positions=130)  # rows of 64 and 128 tokens
# Texts for rows of both lengths, an empty one among them.
TEXTS = ["", "the cat", "巴黎 是", " ".join(hf.WORDS), "casa", "the hut " * 40, "กรุงเทพ", "windows " * 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return hf.make_folder(tmp_path_factory.mktemp("open_model") / "source", hf.tensors(LONG), LONG)


@pytest.fixture(scope="module")
def model(folder) -> Model:
  return open_model(folder)


@pytest.mark.parametrize(
  "program",
  [
    "from xlmr_jax import open_model; from xlmr_jax.open_model import load_params, open_model as same",
    "from xlmr_jax.open_model import load_params, open_model as same; from xlmr_jax import open_model; import xlmr_jax; "
    "import xlmr_jax.open_model; assert xlmr_jax.open_model is same",
  ],
)
def test_the_function_is_the_function_whatever_is_imported_first(program):
  check = (
    "; import inspect; assert open_model is same and inspect.isfunction(open_model) and inspect.isfunction(load_params)"
  )
  subprocess.run([sys.executable, "-c", program + check], check=True, timeout=120)


def test_importing_the_package_loads_no_jax():
  check = "import sys, xlmr_jax; assert xlmr_jax.__version__ and not {'jax', 'flax', 'numpy'} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_what_a_model_has(model, folder, tmp_path):
  assert model.step == 0 and model.record.vocabulary_size == tiny.VOCABULARY == model.tokenizer.size
  assert model.params["token_embedding"].shape == (128, 16) and model.max_tokens == 128
  from_hf(folder, Workdir(tmp_path / "run"))
  run = open_model(str(tmp_path / "run"), "initial")
  assert run.record.imported == str(folder)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(run.params), jax.tree.leaves(model.params), strict=True))
  with pytest.raises(UserError, match="neither the workdir of a run nor a Hugging Face folder"):
    open_model(tmp_path)
  with pytest.raises(UserError, match=r"checkpoint 12: .* is a Hugging Face folder"):
    open_model(folder, 12)
  assert open_model(folder, 0).step == 0  # A step is a number.


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_vector_does_not_depend_on_the_other_texts(model, pooling):
  together = model.encode(TEXTS, pooling)
  assert together.shape == (len(TEXTS), 16) and together.dtype == np.float32
  for text, vector in zip(TEXTS, together):
    np.testing.assert_allclose(model.encode([text], pooling)[0], vector, atol=1e-5)
  np.testing.assert_allclose(model.encode(TEXTS[::-1], pooling)[::-1], together, atol=1e-5)
  distances = np.abs(together[:, None] - together[None]).max(-1) + np.eye(len(TEXTS))
  assert distances.min() > 1e-2  # Different texts have different vectors.


def test_pooling_is_over_the_tokens_of_the_text_alone(model):
  """Against the states of one unpadded row."""
  ids = model.tokenizer.encode("the cat sees 巴黎")
  encode = jax.jit(functools.partial(model.module.apply, method="encode"))
  states = encode({"params": model.params}, np.array([ids]))[0]
  text = ["the cat sees 巴黎"]
  np.testing.assert_allclose(model.encode(text)[0], states.mean(axis=0), atol=1e-5)
  np.testing.assert_allclose(model.encode(text, "first")[0], states[0], atol=1e-5)


def test_many_short_texts_fill_more_than_one_batch(model):
  texts = [" ".join(np.random.default_rng(i).choice(hf.WORDS, 3)) for i in range(40)]
  vectors = model.encode(texts)
  for i in (0, 7, 8, 39):
    np.testing.assert_allclose(model.encode([texts[i]])[0], vectors[i], atol=1e-5)


def test_one_program_per_length(folder):
  model = open_model(folder)
  for texts in (TEXTS, TEXTS[:3], ["the"], TEXTS * 9):
    model.encode(texts)
  assert model._pooled._cache_size() == len(row_lengths(128)) == 2


def test_the_edges_of_encode(model):
  nothing = model.encode([])
  assert nothing.shape == (0, 16) and nothing.dtype == np.float32
  assert np.isfinite(model.encode([""])).all()
  long = "the cat " * 100
  with pytest.warns(UserWarning, match="1 of 2 texts have more than 128 tokens and were cut"):
    vectors = model.encode([long, "the"])
  with pytest.warns(UserWarning, match="were cut"):
    longer = model.encode([long + "hut"])
  np.testing.assert_allclose(longer[0], vectors[0], atol=1e-6)
  with pytest.raises(UserError, match="pooling='max': must be mean or first"):
    model.encode(["a"], "max")
  with pytest.raises(UserError, match="texts='the cat': must be a list of texts"):
    model.encode("the cat")


def test_fill_gives_pieces_per_text_and_per_mask(model):
  texts = ["the <mask> sees", "<mask> of <mask>", "the hut " * 40 + "<mask>"]
  filled = model.fill(texts, top=3)
  assert [len(masks) for masks in filled] == [1, 2, 1] and {len(pieces) for masks in filled for pieces in masks} == {3}
  logits = jax.jit(functools.partial(model.module.apply, method="logits"))
  for text, masks in zip(texts, filled):
    ids = np.full(128, PAD)
    encoded = model.tokenizer.encode_masked(text)
    ids[: len(encoded)] = encoded
    probabilities = np.asarray(jax.nn.softmax(logits({"params": model.params}, ids[None])[0]))
    probabilities = probabilities[ids == model.tokenizer.mask_id]
    for expected, pieces in zip(probabilities, masks, strict=True):
      best = 4 + np.argsort(-expected[4:-1])[:3]
      assert [piece for piece, _ in pieces] == [model.tokenizer.piece(i) for i in best]
      np.testing.assert_allclose([share for _, share in pieces], expected[best], atol=1e-5)
  assert model.fill([]) == []


def test_what_fill_refuses(model):
  with pytest.raises(UserError, match=r"no <mask> in 'x'"):
    model.fill(["the <mask>", "x"])
  with pytest.raises(UserError, match=r"tokens, but the model takes 128: 'the the"):
    model.fill(["the " * 140 + "<mask>"])
  for top in (0, 90):
    with pytest.raises(UserError, match=f"top={top}: must be at least 1"):
      model.fill(["<mask>"], top)
  with pytest.raises(UserError, match="must be a list of texts"):
    model.fill("the <mask>")


def test_texts_may_come_from_an_iterator(model):
  texts = ["the <mask>", "a <mask> of <mask>"]
  assert model.fill(iter(texts), top=2) == model.fill(texts, top=2) == model.fill((text for text in texts), top=2)
  np.testing.assert_array_equal(model.encode(iter(TEXTS[:3])), model.encode(TEXTS[:3]))
  assert model.fill(iter([])) == [] and model.encode(iter([])).shape == (0, 16)
  for wrong, message in (
    ([b"the"], r"texts\[0\]=b'the': is a bytes, and must be a str"),
    (["the", None], r"texts\[1\]=None: is a NoneType, and must be a str"),
    (b"the", r"texts\[0\]=116: is a int"),
  ):
    for call in (model.fill, model.encode):
      with pytest.raises(UserError, match=message):
        call(wrong)


# --- positions that no row has trained -----------------------------------------------------------------------------


def record_of(folder, **changes):
  """The record of a run with the folder's model, that was trained on rows of 64 tokens."""
  return dataclasses.replace(open_record(folder), imported=None, seq_len=64, **changes)


def test_texts_longer_than_the_rows_of_the_training_are_told(model, folder):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    model.encode(["the hut " * 40])  # An imported model was trained elsewhere.
    trained = Model(record_of(folder), model.params, model.tokenizer, 0)
    assert (trained.max_tokens, trained.trained_tokens) == (128, 64)
    trained.encode(["the hut " * 10])
    trained.fill(["the hut " * 10 + "<mask>"])
  with pytest.warns(
    UserWarning, match="1 of 2 texts have more than 64 tokens, the most that a row of the training had"
  ) as told:
    trained.encode(["the hut " * 40, "the"])
  assert told[0].filename == __file__
  with pytest.warns(UserWarning, match="1 of 2 texts have more than 64 tokens"):
    trained.fill(["<mask> and <mask>", "<mask> the hut " * 40])


def test_the_longest_rows_of_a_run(folder):
  """Of the phases that a checkpoint has come to: a model of 512 positions may have seen rows of 128 alone."""
  record = record_of(folder)
  assert positions.longest_trained(record, 0) == positions.longest_trained(record, 4) == 64
  config = record.config | {"train_steps": 12, "phases": ("until=50%,seq_len=16", "until=9", "until=end,seq_len=32")}
  record = dataclasses.replace(record, config=config)
  assert [positions.longest_trained(record, step) for step in (0, 6, 7, 12)] == [16, 16, 64, 64]
  past = (Phase(2, 0.3, (), 0.15, 8, 16), Phase(7, 0.3, (), 0.15, 32, 16))
  branched = dataclasses.replace(record, branch=Branch("other", 7, past).to_json())
  # Its own first phase would have ended before it branched off.
  assert [positions.longest_trained(branched, step) for step in (7, 8, 12)] == [32, 64, 64]
  branched = dataclasses.replace(record, branch=Branch("other", 9, (Phase(9, 0.3, (), 0.15, 128, 16),)).to_json())
  assert positions.longest_trained(branched, 9) == positions.longest_trained(branched, 12) == 128
  branched = dataclasses.replace(record, branch=Branch("other", 9, past[1:]).to_json())
  assert positions.longest_trained(branched, 12) == 32  # The phase with whole rows was over by then.
  assert positions.longest_trained(open_record(folder), 0) == 128


@pytest.mark.parametrize("max_positions", [tiny.SEQ_LEN + 2, 2 * tiny.SEQ_LEN])
def test_a_run_says_that_it_leaves_positions_untrained(tmp_path, capsys, max_positions):
  store = RowStore(tiny.make_store(tmp_path / "rows"))
  prepared = preparation.prepare(tiny.config(model__max_positions=max_positions), store)
  workdir = Workdir(tmp_path / "run")
  workdir.root.mkdir()
  preparation.say_what_comes(prepared, workdir, prepared.timeline(), 0)
  said = (
    "positions: the model takes 62 tokens, and the longest rows have 32: the positions behind them stay as they were drawn. "
    "config.model.max_positions=34 has none such"
  )
  assert capsys.readouterr().out.count(said) == (max_positions > tiny.SEQ_LEN + 2)


# --- checkpoints of a run that goes on -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run that goes on, with two checkpoints and a vocabulary."""
  workdir, config = Workdir(tmp_path_factory.mktemp("live")), tiny.config()
  RunRecord(config.to_dict(), tiny.VOCABULARY, hashlib.sha256(hf.vocabulary()).hexdigest(), tiny.SEQ_LEN).write(workdir)
  workdir.tokenizer.write_bytes(hf.vocabulary())
  params = jax.tree.map(lambda x: jax.numpy.full(x.shape, 0.01, x.dtype), params_shapes(config, tiny.VOCABULARY))
  checkpoints = Checkpoints(workdir)
  for step in (4, 8):
    checkpoints.save(step, {"params": params}, {})
  checkpoints.close()
  return workdir


def test_a_checkpoint_is_pinned_while_it_is_read(run, monkeypatch):
  seen = []

  def restore(directory, step, abstract):
    seen.append((step, pinned_steps(run)))
    return real(directory, step, abstract)

  real = open_model_module.restore_params
  monkeypatch.setattr(open_model_module, "restore_params", restore)
  assert open_model(run.root, 4).step == 4 and open_model(run.root).step == 8
  assert seen == [(4, {4}), (8, {8})] and not pinned_steps(run)

  def remove_behind_the_pin(workdir, step):
    """What a trainer does that looked for pins just before."""
    (workdir.checkpoints / str(step) / MANIFEST).rename(workdir.root / "gone")
    return contextlib.nullcontext()

  monkeypatch.setattr(open_model_module, "pin_to_read", remove_behind_the_pin)
  monkeypatch.setattr(open_model_module.time, "sleep", lambda seconds: None)
  with pytest.raises(UserError, match=r"checkpoint 4: the training in .* removed it before it was read; choose"):
    open_model(run.root, 4)
  # The trainer saw the pin and brings the step back.
  monkeypatch.setattr(
    open_model_module.time, "sleep",
    lambda seconds: (run.root / "gone").rename(run.checkpoints / "4" / MANIFEST),
  )  # fmt: skip
  (run.root / "gone").rename(run.checkpoints / "4" / MANIFEST)
  assert open_model(run.root, 4).step == 4


def test_the_best_checkpoint_is_that_of_best_json(run):
  with pytest.raises(UserError, match="there is no best checkpoint"):
    open_model(run.root, "best")
  copy_folder(run.checkpoints / "4", run.best / "4", last=MANIFEST)
  write_json(run.best_note, {"step": 4, "score": 0.5})
  assert open_model(run.root, "best").step == 4
  write_json(run.best_note, {"step": 8, "score": 0.7})
  with pytest.raises(UserError, match=r"best.json names step 8, but .* has step 4"):
    open_model(run.root, "best")


# --- one tokenizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [90, 97])
def test_a_folder_with_a_tokenizer_json_builds_its_tokenizer_once(folder, tmp_path, monkeypatch, rows):
  """The library takes seconds for XLM-R's 250,002 pieces, and opening a folder asks for the tokenizer again and again."""
  pytest.importorskip("tokenizers")
  shutil.copytree(folder, tmp_path / "source")
  (tmp_path / "source" / "sentencepiece.bpe.model").unlink()
  whole = tmp_path / "source" / "tokenizer.json"
  whole.write_text(json.dumps(json.loads(whole.read_text()), indent=rows))  # a content that no other test opens
  sizes = LONG._replace(vocabulary=rows)
  hf.write_tensors(tmp_path / "source" / "model.safetensors", hf.tensors(sizes))
  (tmp_path / "source" / "config.json").write_text(json.dumps(hf.config_of(sizes)))
  built, real = [], tokenizer_json.library_tokenizer

  def build(path, whole):
    built.append(path)
    return real(path, whole)

  monkeypatch.setattr(tokenizer_json, "library_tokenizer", build)
  opened = open_model(tmp_path / "source")
  assert opened.tokenizer.encode("the cat")[0] == 0 and opened.tokenizer.size == rows and len(built) == 1
  elsewhere = open_tokenizer(tmp_path / "elsewhere.json", opened.tokenizer.model)
  assert (elsewhere.path, elsewhere.sha256) == (tmp_path / "elsewhere.json", opened.tokenizer.sha256) and len(built) == 1


def test_a_run_in_bfloat16_is_opened_in_fp32(folder, tmp_path):
  from_hf(folder, Workdir(tmp_path / "run"))
  model = open_model(tmp_path / "run")
  assert model.record.config["model"]["dtype"] == "bfloat16" and model.module.encoder.dtype == np.float32
