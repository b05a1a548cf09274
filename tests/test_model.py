"""The encoder against transformers' PyTorch XLM-R (stored, and live where torch is installed) and against itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.differentiable import mlm_loss
from tests.reference import make_hf_reference as reference
from xlmr_jax.corpus.packing import pack
from xlmr_jax.huggingface.names import params_from_hf
from xlmr_jax.model import build
from xlmr_jax.model.build import count_parameters
from xlmr_jax.model.dropout import Drop, dropout
from xlmr_jax.model.head import MaskedLanguageModel
from xlmr_jax.model.xlmr import XLMREncoder, segments_and_positions
from xlmr_jax.training.sharding import make_mesh
from xlmr_jax.training.step import make_held_out_step


def small(**changes) -> MaskedLanguageModel:
  settings = dict(
    vocabulary_size=reference.VOCABULARY,
    layers=reference.LAYERS,
    hidden=reference.HIDDEN,
    heads=reference.HEADS,
    ffn=reference.FFN,
    max_positions=reference.SEQ + 2,
    dropout=0.0,
    attention_dropout=0.0,
    dtype=jnp.float32,
  )
  return MaskedLanguageModel(XLMREncoder(**(settings | changes)))


def initial_params(model, seed):
  return jax.jit(lambda key: build.initial_params(model, key))(jax.random.key(seed))


def logits_of(model, params, ids):
  return np.asarray(jax.jit(functools.partial(model.apply, method="logits"))({"params": params}, np.asarray(ids)))


def mean_loss(model, params, batch):
  h = model.apply({"params": params}, batch["ids"], batch["positions"])
  slots = batch["labels"], batch["weights"]
  total = mlm_loss(h, params["token_embedding"], params["head_bias"], *slots, model.encoder.vocabulary_size)
  return total / batch["weights"].sum()


def assert_same_as_hf(weights, logits, loss, gradients, **changes):
  batch = reference.make_batch()
  model = small(**changes)
  params = params_from_hf(weights, heads=reference.HEADS)
  ours = logits_of(model, params, batch["ids"])
  real = batch["ids"] != 1
  np.testing.assert_allclose(ours[real], logits[real], atol=1e-4, rtol=0)
  our_loss, our_gradients = jax.jit(jax.value_and_grad(lambda p: mean_loss(model, p, batch)))(params)
  assert abs(float(our_loss) - loss) < 1e-5
  # token_type is folded into the positions on import; its gradient has no leaf of its own.
  gradients = gradients | {"roberta.embeddings.token_type_embeddings.weight": np.zeros((1, reference.HIDDEN), np.float32)}
  expected = params_from_hf(gradients, heads=reference.HEADS)
  assert jax.tree.structure(expected) == jax.tree.structure(jax.tree.map(np.asarray, our_gradients))
  for (path, g), e in zip(jax.tree_util.tree_flatten_with_path(our_gradients)[0], jax.tree.leaves(expected)):
    error = np.linalg.norm(np.asarray(g) - e) / max(np.linalg.norm(e), 1e-6)
    assert error < 1e-4, (jax.tree_util.keystr(path), error)


def test_parity_with_stored_reference():
  with np.load(reference.__file__.replace("make_hf_reference.py", "hf_tiny.npz")) as stored:
    weights, gradients = ({k[2:]: stored[k] for k in stored.files if k.startswith(p)} for p in ("w:", "g:"))
    assert_same_as_hf(weights, stored["logits"], float(stored["loss"]), gradients)


@pytest.mark.parametrize("changes", [{}, {"remat": "full"}, {"unroll_layers": True, "remat": "dots"}])
def test_parity_with_transformers_live(changes):
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  assert_same_as_hf(*reference.run(reference.make_model(3), reference.make_batch()), **changes)


def test_layers_are_a_loop_where_they_are_recomputed():
  """The rule by which rematerialisation saves memory, which the next test measures."""

  def unrolled(**changes):
    model, ids = small(layers=6, **changes), np.ones((2, 8), np.int32)
    params = jax.eval_shape(lambda: build.initial_params(model, jax.random.key(0)))
    traced = jax.make_jaxpr(lambda p: model.apply({"params": p}, ids, ids))(params)
    return {equation.params["unroll"] for equation in traced.eqns if equation.primitive.name == "scan"}

  assert unrolled(unroll_layers=True) == {6} and unrolled() == {1}
  assert unrolled(unroll_layers=True, remat="full") == unrolled(unroll_layers=True, remat="ffn") == {1}


@pytest.mark.slow
@pytest.mark.parametrize("unroll", [False, True])
def test_rematerialisation_saves_memory(unroll):
  """Also with unroll_layers, where without a loop XLA would undo it."""

  def temporaries(remat):
    model = small(layers=6, hidden=64, ffn=256, dropout=0.1, remat=remat, unroll_layers=unroll)
    params = jax.eval_shape(lambda: build.initial_params(model, jax.random.key(0)))

    def loss(params, ids, key):
      h = model.apply({"params": params}, ids, np.zeros((64, 1), np.int32), deterministic=False, rngs={"dropout": key})
      return jnp.square(h).sum()

    program = jax.jit(jax.grad(loss)).lower(params, jax.ShapeDtypeStruct((64, 32), jnp.int32), jax.random.key(0)).compile()
    return program.memory_analysis().temp_size_in_bytes

  assert temporaries("full") < 0.6 * temporaries("none")


def test_parameter_counts():
  def count(*sizes, **options):
    model = MaskedLanguageModel(XLMREncoder(250_002, *sizes, **options))
    return count_parameters(jax.eval_shape(lambda: build.initial_params(model, jax.random.key(0))))

  base = count(12, 768, 12, 3072, pad_vocabulary=False)
  assert base == 278_294_418
  assert count(24, 1024, 16, 4096, pad_vocabulary=False) == 560_141_458
  assert count(12, 768, 12, 3072) - base == (250_112 - 250_002) * 769


def test_initial_values():
  model = small(vocabulary_size=2000, hidden=64, ffn=256)
  params = initial_params(model, 0)
  assert not np.any(params["token_embedding"][1]) and not np.any(params["position_embedding"][1])
  assert not np.any(params["token_embedding"][2000:])
  flat = {jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in jax.tree_util.tree_flatten_with_path(params)[0]}
  for name, value in flat.items():
    if name.endswith(("kernel", "embedding")):
      assert 0.018 < np.std(value) < 0.022, name
    else:
      assert np.all(np.asarray(value) == (1.0 if name.endswith("scale") else 0.0)), name
  assert not np.allclose(params["layer"]["ffn_in"]["kernel"][0], params["layer"]["ffn_in"]["kernel"][1])


def test_segments_and_positions():
  ids = np.array([[0, 9, 9, 2, 0, 9, 2, 1, 1]])
  segments, positions = segments_and_positions(ids, False)
  assert segments.tolist() == [[1, 1, 1, 1, 1, 1, 1, 0, 0]]
  assert positions.tolist() == [[2, 3, 4, 5, 6, 7, 8, 1, 1]]
  segments, positions = segments_and_positions(ids, True)
  assert segments.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0, 0]]
  assert positions.tolist() == [[2, 3, 4, 5, 2, 3, 4, 1, 1]]


def random_params(model, seed=0):
  params = initial_params(model, seed)
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda p: p + rng.normal(0, 0.2, p.shape).astype(np.float32), params)


def test_isolated_documents_equal_documents_alone():
  """A packed row gives each document the logits it has in a row of its own."""
  model = small(isolate_documents=True)
  params = random_params(model)
  first, second = [0, 11, 12, 13, 98, 2], [0, 98, 21, 22, 2]
  packed = np.array([first + second + [1] * 3])
  alone = np.array([first + [1] * 8, second + [1] * 9])
  together, apart = logits_of(model, params, packed)[0], logits_of(model, params, alone)
  np.testing.assert_allclose(together[:6], apart[0, :6], atol=1e-5)
  np.testing.assert_allclose(together[6:11], apart[1, :5], atol=1e-5)
  leaking = logits_of(small(), params, packed)[0]
  assert np.abs(leaking[:6] - apart[0, :6]).max() > 1e-2  # fairseq's rows do leak


def test_isolated_packed_loss_and_gradients_equal_unpacked():
  model = small(isolate_documents=True)
  params = random_params(model)
  first, second = [0, 11, 98, 13, 14, 2], [0, 98, 21, 22, 2]
  packed = {"ids": np.array([first + second + [1] * 3]), "positions": np.array([[2, 7]])}
  alone = {"ids": np.array([first + [1] * 8, second + [1] * 9]), "positions": np.array([[2], [1]])}
  for batch, shape in ((packed, (1, 2)), (alone, (2, 1))):
    batch |= {"labels": np.array([40, 50]).reshape(shape), "weights": np.ones(shape, np.float32)}
  a, b = (jax.jit(jax.value_and_grad(lambda p, x=x: mean_loss(model, p, x)))(params) for x in (packed, alone))
  assert abs(float(a[0] - b[0])) < 1e-5
  for x, y in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1])):
    np.testing.assert_allclose(x, y, atol=2e-5)


def test_packed_rows_have_the_loss_of_their_documents_alone():
  """The run's own packing and loss: the sum, and sums and weights a language, over documents of many lengths."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, 30, 24)
  packed_RxL = pack(rng.integers(4, reference.VOCABULARY - 2, lengths.sum()).astype(np.int32), lengths, reference.SEQ)
  slots, pieces = 4, []  # of each piece of a document: its row, first token and length there
  for row, ids_L in enumerate(packed_RxL):
    starts = np.flatnonzero(ids_L == 0)
    pieces += [(row, start, end + 1 - start) for start, end in zip(starts, np.flatnonzero(ids_L == 2))]
  assert len(pieces) > len(packed_RxL) * 1.5  # there is something to leak
  language_R = rng.integers(0, 2, len(packed_RxL)).astype(np.int32)

  def batch(rows, width):
    return {
      "ids": np.ones((rows, width), np.int32),
      "positions": np.zeros((rows, slots), np.int32),
      "labels": np.ones((rows, slots), np.int32),
      "weights": np.zeros((rows, slots), np.float32),
    }

  packed, alone = batch(len(packed_RxL), reference.SEQ), batch(len(pieces), reference.SEQ)
  packed |= {"ids": packed_RxL.copy(), "language": language_R}
  alone["language"] = language_R[[row for row, _, _ in pieces]]
  for row, ids_L in enumerate(packed_RxL):  # the same masks both ways
    at_P = np.sort(rng.permutation(np.flatnonzero(ids_L > 3))[:slots])
    n = len(at_P)
    packed["positions"][row, :n], packed["labels"][row, :n], packed["weights"][row, :n] = at_P, ids_L[at_P], 1.0
    packed["ids"][row, at_P] = reference.VOCABULARY - 1
  for i, (row, start, length) in enumerate(pieces):
    alone["ids"][i, :length] = packed["ids"][row, start : start + length]
    at_P = packed["positions"][row][packed["weights"][row] > 0]
    at_P = at_P[(at_P >= start) & (at_P < start + length)]
    n = len(at_P)
    alone["positions"][i, :n], alone["labels"][i, :n] = at_P - start, packed_RxL[row, at_P]
    alone["weights"][i, :n] = 1.0
  assert packed["weights"].sum() == alone["weights"].sum() > len(packed_RxL)

  def loss(isolate, batch):
    model = small(isolate_documents=isolate)
    step = make_held_out_step(model, 2, make_mesh(1, 1, jax.devices()[:1]), build.FAMILIES["xlmr"].sharding)
    return jax.jit(step)(random_params(model), batch)

  sums_a, sums_b = loss(True, packed), loss(True, alone)
  np.testing.assert_allclose(sums_a[0], sums_b[0], rtol=1e-5)
  np.testing.assert_array_equal(sums_a[1], sums_b[1])
  assert abs(loss(False, packed)[0] - sums_b[0]).max() > 1e-3 * sums_b[0].max()  # fairseq's reading of a row is another


def test_padding_does_not_change_a_row():
  model = small()
  params = random_params(model)
  row = [0, 11, 12, 98, 2]
  alone, padded = logits_of(model, params, [row])[0], logits_of(model, params, [row + [1] * 7])[0]
  np.testing.assert_allclose(alone, padded[:5], atol=1e-5)


def test_attention_is_bidirectional_and_stays_in_its_row():
  """Gradient probe: a row's outputs depend on all of its tokens and on no other row's."""
  model = small()
  params = random_params(model)
  ids = np.array([[0, 11, 12, 13, 2], [0, 31, 32, 33, 2]])

  def output(table):
    return model.apply({"params": params | {"token_embedding": table}}, ids, method="encode")[0, 2].sum()

  touched = np.abs(np.asarray(jax.jit(jax.grad(output))(params["token_embedding"]))).sum(axis=1) > 0
  assert sorted(np.flatnonzero(touched)) == [0, 2, 11, 12, 13]


def test_dropout_follows_its_key_and_rate():
  model = small(dropout=0.1, attention_dropout=0.1)
  params = random_params(model)
  ids = np.array([[0, 11, 12, 13, 2]])
  apply = jax.jit(lambda key: model.apply({"params": params}, ids, ids[:, :2], False, rngs={"dropout": key}))

  def run(seed):
    return np.asarray(apply(jax.random.key(seed)))

  np.testing.assert_array_equal(run(1), run(1))
  assert np.abs(run(1) - run(2)).max() > 1e-3

  x = dropout(jnp.ones((400, 400)), Drop(0.1, jax.random.key(0), jnp.arange(400, dtype=jnp.uint32)))
  assert abs(float((x == 0).mean()) - 0.1) < 0.005 and abs(float(x.mean()) - 1.0) < 0.01


# --- pre-LN, the layer of XL -------------------------------------------------------------------------------------


def plain_pre_norm_logits(params, table, ids, heads):
  """A pre-LN encoder and head written out with jnp alone, one layer after another; JAX's own derivatives."""

  def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

  def softmax(scores):
    exps = jnp.exp(scores - scores.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)

  gelu = functools.partial(jax.nn.gelu, approximate=False)
  real = ids != 1
  positions = np.where(real, np.cumsum(real, axis=1) + 1, 1)
  x = table[ids] + params["position_embedding"][positions]
  for i in range(params["layer"]["ffn_in"]["bias"].shape[0]):
    p = jax.tree.map(lambda x, i=i: x[i], params["layer"])
    q, k, v = (
      jnp.einsum("bld,dhk->bhlk", norm(x, p["attention_norm"]), p["qkv"]["kernel"][:, j]) + p["qkv"]["bias"][j][:, None]
      for j in range(3)
    )
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    context = softmax(jnp.where((real[:, :, None] == real[:, None, :])[:, None], scores, -jnp.inf)) @ v
    x = x + jnp.einsum("bhlk,hkd->bld", context, p["attention_out"]["kernel"]) + p["attention_out"]["bias"]
    h = gelu(norm(x, p["ffn_norm"]) @ p["ffn_in"]["kernel"] + p["ffn_in"]["bias"])
    x = x + h @ p["ffn_out"]["kernel"] + p["ffn_out"]["bias"]
  x = norm(x, params["final_norm"])
  h = norm(gelu(x @ params["head_dense"]["kernel"] + params["head_dense"]["bias"]), params["head_norm"])
  return (h @ table.T + params["head_bias"])[..., : reference.VOCABULARY]


@functools.cache
def written_out():
  """(params, loss, logits, gradients) of the pre-LN encoder written out."""
  params, batch = random_params(small(pre_norm=True), 4), reference.make_batch()

  def expected_loss(params):
    logits = plain_pre_norm_logits(params, params["token_embedding"], batch["ids"], reference.HEADS)
    scores = jax.nn.log_softmax(jnp.take_along_axis(logits, batch["positions"][..., None], 1))
    picked = jnp.take_along_axis(scores, batch["labels"][..., None], -1)[..., 0]
    return -(picked * batch["weights"]).sum() / batch["weights"].sum(), logits

  (loss, logits), gradients = jax.jit(jax.value_and_grad(expected_loss, has_aux=True))(params)
  return params, loss, logits, gradients


@pytest.mark.parametrize(
  "changes",
  [*(pytest.param(x, marks=pytest.mark.slow) for x in ({}, {"remat": "ffn"})), {"unroll_layers": True, "remat": "full"}],
)
def test_pre_norm_equals_the_layer_written_out(changes):
  """Logits at all positions, the masked loss, and the gradient in every parameter."""
  model, batch = small(pre_norm=True, **changes), reference.make_batch()
  params, loss, logits, gradients = written_out()
  assert "embedding_norm" not in params and "final_norm" in params
  real = batch["ids"] != 1
  np.testing.assert_allclose(logits_of(model, params, batch["ids"])[real], logits[real], atol=1e-4)
  found, found_gradients = jax.jit(jax.value_and_grad(lambda p: mean_loss(model, p, batch)))(params)
  assert abs(float(found - loss)) < 1e-5
  for (path, g), e in zip(jax.tree_util.tree_flatten_with_path(found_gradients)[0], jax.tree.leaves(gradients)):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name == "layer/qkv/bias":
      g, e = g[:, ::2], e[:, ::2]  # a key's bias moves all scores of a query alike: its gradient is rounding only
    assert np.linalg.norm(g - e) / np.linalg.norm(e) < 1e-4, name
