"""The Python door: a run or folder opened as a Model, gaps filled, texts as vectors."""

import functools
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import hugging_face as hf
from tests import tiny
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.ids import PAD
from xlmr_jax.open_model import Model, open_model, row_lengths
from xlmr_jax.run.workdir import Workdir

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


def test_a_run_in_bfloat16_is_opened_in_fp32(folder, tmp_path):
  from_hf(folder, Workdir(tmp_path / "run"))
  model = open_model(tmp_path / "run")
  assert model.record.config["model"]["dtype"] == "bfloat16" and model.module.encoder.dtype == np.float32
