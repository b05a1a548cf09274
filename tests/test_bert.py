"""BERT beside transformers' own: logits, loss and gradients, folders in and out, fine-tuning, pretraining that goes on."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import hugging_face as hf
from tests import tiny
from tests.differentiable import mlm_loss
from tests.reference import make_bert_reference as reference
from tests.test_convert import command, labelled, opened, run_theirs  # noqa: F401  One is a fixture.
from xlmr_jax.commands.flags import override_config
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import finetune
from xlmr_jax.evaluation.finetune_step import loss_sum, task_head
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import Recipe, Task
from xlmr_jax.huggingface import folder, names
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.huggingface.names import params_from_hf
from xlmr_jax.huggingface.wordpiece import normalizer, wordpiece_json
from xlmr_jax.ids import moved_ids
from xlmr_jax.model.bert import token_types
from xlmr_jax.model.build import build_model, family_of, init_params
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS
from xlmr_jax.open_model import open_model, open_record, pooler_of_run
from xlmr_jax.report import export
from xlmr_jax.report.export import to_hf
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import sharding

MOVED = moved_ids(reference.SPECIALS)


def config_of(**changes):
  """A run's config of the reference's model; changes: keys of config.model."""
  c = tiny.config()
  c.model.update(
    family="bert", layers=reference.LAYERS, hidden=reference.HIDDEN, heads=reference.HEADS, ffn=reference.FFN,
    max_positions=reference.SEQ, dropout=0.0, attention_dropout=0.0, layer_norm_epsilon=1e-12,
  )  # fmt: skip
  c.model.update(**changes)
  return c


def ours_of(ids):
  """Ids of the reference's file as ours."""
  return np.vectorize(lambda id: {theirs: ours for ours, theirs in MOVED.items()}.get(id, id))(ids).astype(np.int32)


def in_our_order(logits):
  return logits[..., [MOVED.get(id, id) for id in range(logits.shape[-1])]]


def logits_of(model, params, ids):
  return np.asarray(jax.jit(functools.partial(model.apply, method="logits"))({"params": params}, np.asarray(ids)))


# --- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "specials", [(0, 1, 2, 3), (101, 0, 102, 100), (2, 0, 3, 1), (1, 0, 3, 2), (4, 3, 2, 0), (3, 2, 1, 0)]
)
def test_special_pieces_change_places_with_others(specials):
  moved = moved_ids(specials)
  assert tuple(moved.get(ours, ours) for ours in range(4)) == specials
  assert sorted(moved) == sorted(moved.values()) and len(moved) <= 8 and all(a != b for a, b in moved.items())
  rows = np.arange(200.0)[:, None] * np.ones(3)
  ours = rows.copy()
  names.to_our_rows(ours, moved)
  assert [ours[i, 0] for i in range(4)] == [*specials]
  np.testing.assert_array_equal(names.to_their_rows(ours, moved), rows)


def test_types_tell_the_texts_of_a_pair_apart_and_not_documents():
  rows = {
    "a pair": ([0, 9, 9, 2, 8, 2, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0]),
    "two documents": ([0, 9, 2, 0, 8, 8, 2, 1], [0, 0, 0, 0, 0, 0, 0, 0]),
    "no first [CLS]": ([9, 9, 2, 0, 8, 8, 2, 1], [0, 0, 0, 0, 0, 0, 0, 0]),
    "documents that are pairs": ([0, 9, 2, 8, 2, 0, 7, 2], [0, 0, 0, 1, 1, 0, 0, 0]),
  }
  found = token_types(np.array([ids for ids, _ in rows.values()]))
  assert found.tolist() == [types for _, types in rows.values()]


# --- the model -----------------------------------------------------------------------------------------------------


def assert_same_as_transformers(weights, logits, loss, gradients, **changes):
  batch = reference.make_batch()
  model = build_model(config_of(**changes), reference.VOCABULARY)
  take = functools.partial(params_from_hf, heads=reference.HEADS, specials=reference.SPECIALS)
  params, ids, labels = take(weights), ours_of(batch["ids"]), ours_of(batch["labels"])
  real = ids != 1
  np.testing.assert_allclose(logits_of(model, params, ids)[real], in_our_order(logits)[real], atol=1e-4, rtol=0)

  def mean_loss(params):
    h = model.apply({"params": params}, ids, batch["positions"])
    total = mlm_loss(h, params["token_embedding"], params["head_bias"], labels, batch["weights"], reference.VOCABULARY)
    return total / batch["weights"].sum()

  our_loss, our_gradients = jax.jit(jax.value_and_grad(mean_loss))(params)
  assert abs(float(our_loss) - loss) < 1e-5
  expected = take(gradients)
  assert jax.tree.structure(expected) == jax.tree.structure(jax.tree.map(np.asarray, our_gradients))
  for (path, g), e in zip(jax.tree_util.tree_flatten_with_path(our_gradients)[0], jax.tree.leaves(expected)):
    error = np.linalg.norm(np.asarray(g) - e) / max(np.linalg.norm(e), 1e-6)
    assert error < 1e-4, (jax.tree_util.keystr(path), error)


def test_parity_with_stored_reference():
  with np.load(reference.__file__.replace("make_bert_reference.py", "bert_tiny.npz")) as stored:
    weights, gradients = ({k[2:]: stored[k] for k in stored.files if k.startswith(p)} for p in ("w:", "g:"))
    assert_same_as_transformers(weights, stored["logits"], float(stored["loss"]), gradients)


@pytest.mark.parametrize("changes", [{}, pytest.param({"unroll_layers": True, "remat": "dots"}, marks=pytest.mark.slow)])
def test_parity_with_transformers_live(changes):
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  assert_same_as_transformers(*reference.run(reference.make_model(3), reference.make_batch()), **changes)


@pytest.mark.slow
def test_multilingual_bert_at_its_full_size():
  """12 layers x 768, 119,547 entries and 512 positions, as bert-base-multilingual-cased; random weights."""
  torch = pytest.importorskip("torch")
  pytest.importorskip("transformers")
  sizes = dict(
    vocab_size=119_547, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
    max_position_embeddings=512,
  )  # fmt: skip
  import transformers

  torch.manual_seed(0)
  theirs = transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).eval()
  tensors = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
  specials = (101, 0, 102, 100)
  params = params_from_hf(tensors, heads=12, specials=specials)
  config = config_of(layers=12, hidden=768, heads=12, ffn=3072, max_positions=512)
  model = build_model(config, 119_547)
  counted = sum(int(np.prod(leaf.shape)) for leaf in names.leaves(names.Sizes(119_547, 512, 12, 768, 12, 3072, 2, "bert"),
                                                                  pad_vocabulary=False).values())  # fmt: skip
  assert counted == sum(p.numel() for p in theirs.parameters())
  moved = moved_ids(specials)
  to_ours = {theirs_id: ours_id for ours_id, theirs_id in moved.items()}
  ids = np.random.default_rng(0).integers(104, 119_547, (2, 512))
  ids[:, 0], ids[:, -1], ids[1, 200], ids[1, 300], ids[1, 301:] = 101, 102, 102, 102, 0
  types = np.zeros_like(ids)
  types[1, 201:301] = 1
  with torch.no_grad():
    given = torch.tensor(ids)
    found = theirs(input_ids=given, token_type_ids=torch.tensor(types), attention_mask=(given != 0).long()).logits.numpy()
  our_ids = np.vectorize(lambda id: to_ours.get(id, id))(ids)
  ours = logits_of(model, params, our_ids)
  expected = found[..., [moved.get(id, id) for id in range(119_547)]]
  worst = np.abs(ours - expected)[our_ids != 1].max()
  assert worst < 1e-4 and np.abs(expected).max() > 1, worst


def test_initial_values_and_rules():
  params = init_params(config_of(), reference.VOCABULARY)
  assert params["type_embedding"].shape == (2, reference.HIDDEN)
  assert np.all(np.any(params["position_embedding"], axis=1))  # No row of it belongs to pads.
  sharding.specs(params, family_of(config_of()).sharding)  # Every parameter has a rule.
  assert build_model(config_of(), 99).encoder.max_seq_len == reference.SEQ


def test_documents_that_share_a_row_do_not_see_each_other():
  model = build_model(config_of(isolate_documents=True), reference.VOCABULARY)
  params = init_params(config_of(), reference.VOCABULARY)
  first, second = [0, 20, 21, 2], [0, 30, 31, 32, 2]
  together = logits_of(model, params, [first + second])[0]
  for part, at in ((first, 0), (second, len(first))):
    np.testing.assert_allclose(logits_of(model, params, [part])[0], together[at : at + len(part)], atol=1e-5)


# --- folders -------------------------------------------------------------------------------------------------------

PIECES = ["[PAD]", *(f"[unused{i}]" for i in range(1, 8)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "巴", "黎",
          "##ed", *(word for word in hf.WORDS if word.isascii()), *"abcdefghijklmnopqrstuvwxyz",
          *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]  # fmt: skip
SIZES = names.Sizes(len(PIECES), 34, 2, 16, 2, 32, 2, "bert")
TEXTS = ["the [MASK] sees a hut.", "[MASK] [MASK] houses", "巴[MASK]黎", "cat, [MASK]", "cats [MASK]."]


def tensors(seed=0, sizes=SIZES):
  rng = np.random.default_rng(seed)
  return {
    name: rng.normal(1.0 if name.endswith("orm.weight") else 0.0, 0.15, shape).astype(np.float32)
    for name, shape in names.tensor_shapes(sizes).items()
  }


def pooler(seed=7):
  rng, D = np.random.default_rng(seed), SIZES.hidden
  return dict(zip(SIZES.names.pooler, (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((D, D), (D,)))))


def make_folder(path: Path, values=None, **changes) -> Path:
  path.mkdir()
  (path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
  (path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  (path / "config.json").write_text(json.dumps(hf.config_of(SIZES, model_type="bert", architectures=["BertForMaskedLM"],
                                                            pad_token_id=0, layer_norm_eps=1e-12) | changes))  # fmt: skip
  hf.write_tensors(path / "model.safetensors", tensors() if values is None else values)
  return path


def theirs_in(path, kind="MaskedLM"):
  """(model, tokenizer) of a folder, as transformers opens it; it may have a pooler, which its MaskedLM leaves out."""
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torch")
  model, report = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(path, output_loading_info=True)
  assert not report["missing_keys"] and not report["mismatched_keys"]
  assert set(report["unexpected_keys"]) <= set(SIZES.names.pooler)
  return model.eval(), transformers.AutoTokenizer.from_pretrained(path)


def run_with_types(model, ids, types, pad=0):
  import torch

  given = torch.tensor(ids, dtype=torch.long)
  with torch.no_grad():
    return model(input_ids=given, token_type_ids=torch.tensor(types), attention_mask=(given != pad).long())


def test_a_folder_opens_and_fills_as_in_transformers(tmp_path):
  source = make_folder(tmp_path / "source")
  ours, (theirs, tokenizer) = open_model(source), theirs_in(source)
  assert ours.max_tokens == 34 and ours.tokenizer.separators == 1
  moved = moved_ids(ours.tokenizer.specials)
  special = {*(moved.get(id, id) for id in range(4)), tokenizer.mask_token_id}
  for text, found in zip(TEXTS, ours.fill(TEXTS), strict=True):
    given = tokenizer(text)
    assert [moved.get(id, id) for id in ours.tokenizer.encode_masked(text)] == given.input_ids
    shares = run_with_types(theirs, [given.input_ids], [given.token_type_ids]).logits.softmax(-1).numpy()[0]
    at = [i for i, id in enumerate(given.input_ids) if id == tokenizer.mask_token_id]
    assert len(at) == len(found)
    for pieces, slot in zip(found, shares[at]):
      best = sorted(set(range(len(PIECES))) - special, key=lambda i: -slot[i])[:5]
      wanted = [PIECES[i] for i in best]
      assert [piece for piece, _ in pieces] == [p[2:] if p.startswith("##") else f"▁{p}" for p in wanted]
      np.testing.assert_allclose([share for _, share in pieces], slot[best], atol=1e-5)
  assert ours.fill(["the <mask> sees"]) == ours.fill(["the [MASK] sees"])


def test_logits_of_a_pair_are_those_of_transformers(tmp_path):
  source = make_folder(tmp_path / "source")
  ours, (theirs, tokenizer) = open_model(source), theirs_in(source)
  given = tokenizer("the cat sees", "a hut of stone")
  moved = moved_ids(ours.tokenizer.specials)
  to_ours = {theirs_id: ours_id for ours_id, theirs_id in moved.items()}
  logits = run_with_types(theirs, [given.input_ids], [given.token_type_ids]).logits.numpy()
  found = logits_of(ours.module, ours.params, [[to_ours.get(id, id) for id in given.input_ids]])
  np.testing.assert_allclose(found, logits[..., [moved.get(id, id) for id in range(len(PIECES))]], atol=1e-4)
  # If the types were not told, the logits would be others.
  without = run_with_types(theirs, [given.input_ids], [[0] * len(given.input_ids)]).logits.numpy()
  assert np.abs(without - logits).max() > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_comes_back_byte_for_byte(tmp_path, dtype):
  import ml_dtypes

  kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
  values = {name: value.astype(kind) for name, value in (tensors() | pooler()).items()}
  source = make_folder(tmp_path / "source", values)
  from_hf(source, Workdir(tmp_path / "run"))
  assert json.loads((tmp_path / "run" / "initial" / "0" / "config.json").read_text())["xlmr_jax"]["special_ids"] == [
    9,
    0,
    10,
    8,
  ]
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out", dtype=dtype)
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "out"), values)
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert (config["model_type"], config["pad_token_id"], config["type_vocab_size"]) == ("bert", 0, 2)
  assert (tmp_path / "out" / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
  if dtype == "float32":
    (one, tokenizer), (two, again) = theirs_in(source), theirs_in(tmp_path / "out")
    for text in TEXTS:
      given = tokenizer(text, "a hut")
      assert again(text, "a hut").input_ids == given.input_ids
      assert again(text, "a hut").token_type_ids == given.token_type_ids
      both = [run_with_types(model, [given.input_ids], [given.token_type_ids]).logits.numpy() for model in (one, two)]
      np.testing.assert_array_equal(*both)


def test_files_from_tensorflow_and_of_pretraining(tmp_path):
  """gamma and beta, the copies of tied tensors, the next-sentence head, which is left out, and the pooler, which stays."""
  values = tensors()
  old = {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
    for name, value in values.items()
  }
  more = {
    "cls.predictions.decoder.weight": values[SIZES.names.word_table],
    "cls.predictions.decoder.bias": values[SIZES.names.head_bias],
    "bert.embeddings.position_ids": np.arange(34)[None],
    "cls.seq_relationship.weight": np.zeros((2, 16), np.float32),
    "cls.seq_relationship.bias": np.zeros(2, np.float32),
  }
  from_hf(make_folder(tmp_path / "source", old | more | pooler()), Workdir(tmp_path / "run"))
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "out"), values | pooler())


def test_an_encoder_without_a_head(tmp_path):
  """As AutoModel saves it: fine-tuning begins with its pooler, and filling is refused."""
  plain = {name.removeprefix("bert."): value for name, value in (tensors() | pooler()).items() if name.startswith("bert.")}
  source = make_folder(tmp_path / "source", plain)
  with pytest.raises(UserError, match="has no masked-language-model head"):
    open_model(source).fill(["the [MASK]"])
  found = pooler_of_run(Workdir(source), open_record(source))
  assert found is not None
  np.testing.assert_array_equal(found["kernel"], pooler()[SIZES.names.pooler[0]].T)


def test_a_pooler_that_was_removed_is_said(tmp_path, capsys):
  run = Workdir(tmp_path / "run")
  from_hf(make_folder(tmp_path / "source", tensors() | pooler()), run)
  assert pooler_of_run(run, open_record(run.root)) is not None and "pooler" not in capsys.readouterr().err
  shutil.rmtree(run.root / "initial")
  assert pooler_of_run(run, open_record(run.root)) is None
  assert "was removed, and with it the pooler" in capsys.readouterr().err


@pytest.mark.parametrize(
  "values, changes, message",
  [
    ({}, {}, r"tensor bert.embeddings.token_type_embeddings.weight \[2, 16\] is missing"),
    ({"bert.extra": np.zeros(3, np.float32)}, {}, "extra tensor bert.extra"),
    ({}, {"hidden_act": "relu"}, "hidden_act is 'relu'"),
    ({}, {"type_vocab_size": 0}, "type_vocab_size is 0; it must be a whole number above 0"),
  ],
)
def test_what_is_not_as_it_must_be_is_refused(tmp_path, values, changes, message):
  given = tensors() | values
  if "missing" in message:
    given.pop(SIZES.names.type_table)
  with pytest.raises(UserError, match=message):
    folder.open_folder(make_folder(tmp_path / "source", given, **changes))


@pytest.mark.parametrize("rows", [90, 125])
def test_a_bert_with_xlmr_s_vocabulary_has_one_type(tmp_path, capsys, rows):
  """As multilingual MiniLM and e5 have it: transformers gives its pairs no types, and so do we.

  Their embeddings have 35 rows more than the vocabulary has entries. These are never proposed, however likely they are.
  """
  sizes = hf.SIZES._replace(family="bert", token_types=2, positions=32, vocabulary=rows)
  values = tensors(sizes=sizes)
  values[sizes.names.head_bias][90:] = 50.0
  source = hf.make_folder(tmp_path / "source", tensors(sizes=sizes._replace(vocabulary=90)), sizes._replace(vocabulary=90))
  hf.write_tensors(source / "model.safetensors", values)
  (source / "config.json").write_text(json.dumps(hf.config_of(sizes, model_type="bert")))
  ours, (theirs, tokenizer) = open_model(source), theirs_in(source)
  said = "the embedding has 125 rows, and the tokenizer 90 entries; the last 35 rows belong to no piece, and are never drawn"
  assert capsys.readouterr().err.count(said) == (rows > 90)
  given = tokenizer("the cat", "sees")
  assert "token_type_ids" not in given and not ours.module.encoder.pair_types
  logits = run_theirs(theirs, np.array([given.input_ids])).logits.numpy()
  np.testing.assert_allclose(logits_of(ours.module, ours.params, [given.input_ids]), logits, atol=1e-4)
  assert (ours.tokenizer.size, ours.tokenizer.mask_id, max(ours.tokenizer.replacements)) == (rows, 89, 88)
  assert all(piece for piece, _ in ours.fill(["the <mask>"], top=85)[0][0])
  from_hf(source, Workdir(tmp_path / "run"))
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "out"), values)


# --- fine-tuning ---------------------------------------------------------------------------------------------------

LABELS = ("a", "b", "c")


def no_reader(folder, task, language, split):
  raise UserError(f"{task.name} has no files")


def task_with(head, labels, **recipe):
  settings = dataclasses.replace(Recipe(lr=1e-3, batch=16, epochs=1, max_len=reference.SEQ, warmup=1.0), **recipe)
  return Task(f"test_{head}", head, labels, ("accuracy",), ("en",), settings, no_reader)


def arrays_of(head, labels, rows=16, seed=0):
  """Pairs with a label, in our ids; of unequal length unless they are spans, because transformers lets those lie in pads."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(14, reference.VOCABULARY, (rows, reference.SEQ)).astype(np.int32)
  ids[:, 0], ids[:, -1], ids[:, 9] = 0, 2, 2
  if head != SPAN:
    ids[1::2, 15], ids[1::2, 16:] = 2, 1
  kind = rng.integers(0, max(len(labels), 1), rows)
  if head == SPAN:
    return {"ids": ids, "start": (10 + kind).astype(np.int32), "end": (11 + kind).astype(np.int32)}
  if head == SENTENCE:
    return {"ids": ids, "label": kind.astype(np.int32)}
  label = np.where((ids > 3) & (rng.random(ids.shape) < 0.5), ids % 3, -1)
  return {"ids": ids, "label": label.astype(np.int32)}


@pytest.mark.parametrize(
  "head, labels",
  [(SENTENCE, LABELS), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((WORDS, LABELS), (SPAN, ())))],
)
def test_a_fine_tuning_step_equals_transformers(head, labels):
  """Loss, gradients and the updated model; a head for texts begins with the pooler, and the types are a pair's."""
  torch = pytest.importorskip("torch")
  pytest.importorskip("transformers")
  products, kind = names.NAMES["bert"].head_classes[head]
  theirs = reference.make_model(5, f"BertFor{kind}", num_labels=2 if head == SPAN else len(labels))
  head_of_mlm = {
    name: p.detach().numpy() for name, p in reference.make_model(6).named_parameters() if name.startswith("cls")
  }
  head_of_mlm = {name: value for name, value in head_of_mlm.items() if "decoder" not in name}

  def ours_from(given):
    def dense(name):
      return {"kernel": given[f"{name}.weight"].T, "bias": given[f"{name}.bias"]}

    encoder = params_from_hf(given | head_of_mlm, heads=reference.HEADS, specials=reference.SPECIALS)
    return {"encoder": encoder, "head": {ours: dense(name) for ours, name in products.items()}}

  def numpy(values):
    return {name: value.detach().numpy().copy() for name, value in values}

  arrays = arrays_of(head, labels)
  file_ids = np.vectorize(lambda id: MOVED.get(id, id))(arrays["ids"])
  given = {"start_positions": "start", "end_positions": "end"} if head == SPAN else {"labels": "label"}
  targets = {name: torch.tensor(arrays[key]).long() for name, key in given.items()}
  if head == WORDS:
    targets["labels"][targets["labels"] < 0] = -100
  inputs = dict(
    input_ids=torch.tensor(file_ids), attention_mask=torch.tensor(file_ids != 0).long(),
    token_type_ids=torch.tensor(np.asarray(token_types(arrays["ids"]))).long(), **targets,
  )  # fmt: skip
  assert inputs["token_type_ids"].sum() > 0
  loss = theirs(**inputs).loss
  loss.backward()
  params, batch = ours_from(numpy(theirs.named_parameters())), finetune.take(arrays, np.arange(16), 16)
  task, model = task_with(head, labels), build_model(config_of(), reference.VOCABULARY)

  def mean(params):
    x = model.apply({"params": params["encoder"]}, batch["ids"], method="encode")
    total, weight = loss_sum(task, task_head(task, 0.0, True).apply({"params": params["head"]}, x), batch)
    return total / weight

  ours, gradients = jax.jit(jax.value_and_grad(mean))(params)
  assert abs(float(ours) - loss.item()) < 1e-4
  absent = {name: np.zeros(p.shape, np.float32) for name, p in theirs.named_parameters() if p.grad is None}
  expected = ours_from(numpy((name, p.grad) for name, p in theirs.named_parameters() if p.grad is not None) | absent)
  for name in ("head_dense", "head_norm", "head_bias"):
    gradients["encoder"].pop(name), expected["encoder"].pop(name)
  for (path, g), e in zip(jax.tree_util.tree_flatten_with_path(gradients)[0], jax.tree.leaves(expected), strict=True):
    error = np.linalg.norm(np.asarray(g) - e) / max(np.linalg.norm(e), 1e-3)
    assert error < 1e-4, (jax.tree_util.keystr(path), error)

  optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, eps=1e-8, weight_decay=0.0)
  torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
  optimizer.step()
  brought = params["head"].get("dense")
  mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
  tuner = finetune.Finetuner(config_of(), reference.VOCABULARY, task, mesh, brought)
  init, step = tuner.program(1)
  state = init(params["encoder"], jax.random.key(0))
  if head == SENTENCE:  # The pooler is where it begins; without one it is drawn.
    np.testing.assert_array_equal(state.params["head"]["dense"]["kernel"], brought["kernel"])
  state = state._replace(params=params)
  with jax.set_mesh(mesh):
    state, _ = step(state, sharding.to_global(mesh, batch, 16), jax.random.key(0))
  assert abs(float(mean(jax.device_get(state.params))) - theirs(**inputs).loss.item()) < 1e-3


@pytest.mark.parametrize(
  "task", ["stsb", *(pytest.param(task, marks=pytest.mark.slow) for task in ("sst2", "panx", "squad"))]
)
def test_a_fine_tuned_bert_in_transformers(task, labelled, tmp_path, monkeypatch):  # noqa: F811
  """As `xlmr convert to-hf --task` writes it, the pooler inside its head: the logits of a pair are ours."""
  known = registry.get(task)
  short = dataclasses.replace(known.recipe, max_steps=3, batch=8, lr=1e-3, max_len=30, max_question=8)
  monkeypatch.setitem(registry.TASKS, task, dataclasses.replace(known, recipe=short))
  one = sharding.make_mesh(1, 1, jax.devices()[:1])
  monkeypatch.setattr(sharding, "make_mesh", lambda: one)
  source, tuned = make_folder(tmp_path / "source", tensors() | pooler()), {}
  fine_tune = export.fine_tune
  monkeypatch.setattr(export, "fine_tune", lambda *args: tuned.setdefault("it", fine_tune(*args)))
  overrides = [f"--config.evaluate.folder={labelled}", "--config.evaluate.languages=en", "--config.evaluate.dtype=float32"]
  config = override_config(open_record(source).config, overrides)
  to_hf(Workdir(source), "latest", tmp_path / "out", task=task, config=config)
  kind = names.NAMES["bert"].head_classes[known.head][1]
  theirs, tokenizer = theirs_in(tmp_path / "out", kind)
  assert type(theirs).__name__ == f"BertFor{kind}"
  if known.head == SENTENCE:  # Three steps have moved the pooler, but not far from where it began.
    moved_by = np.abs(theirs.bert.pooler.dense.weight.detach().numpy() - pooler()[SIZES.names.pooler[0]])
    assert 0 < moved_by.max() < 0.02
  given = tokenizer("the cat sees", "a hut of stone")
  ours = open_model(source)
  to_ours = {theirs_id: ours_id for ours_id, theirs_id in moved_ids(ours.tokenizer.specials).items()}
  ids = np.array([[to_ours.get(id, id) for id in given.input_ids]])
  x = ours.module.apply({"params": tuned["it"].params["encoder"]}, ids, method="encode")
  found = np.asarray(task_head(tuned["it"].task, 0.0, True).apply({"params": tuned["it"].params["head"]}, x))
  output = run_with_types(theirs, [given.input_ids], [given.token_type_ids])
  is_span = known.head == SPAN
  wanted = np.stack([output.start_logits, output.end_logits], axis=-1) if is_span else output.logits.numpy()
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_head_for_texts_drops_nothing_in_front_of_the_pooler():
  """BERT's drops what the pooler gives, XLM-R's what goes in too."""
  task, x = task_with(SENTENCE, LABELS), np.random.default_rng(0).normal(size=(4, 3, 8)).astype(np.float32)
  for pooled in (True, False):
    head = task_head(task, 0.5, pooled)
    params = head.init(jax.random.key(0), x)
    params["params"]["out"]["kernel"] = np.ones_like(params["params"]["out"]["kernel"])
    apply = jax.jit(lambda params, seed, head=head: head.apply(params, x, False, rngs={"dropout": jax.random.key(seed)}))
    seen = [np.asarray(apply(params, seed)) for seed in range(32)]
    plain = np.tanh(x[:, 0] @ params["params"]["dense"]["kernel"] + params["params"]["dense"]["bias"])
    # With dropout of the pooler's output alone, every logit is twice a sum of some of its columns.
    sums = {round(float(2 * sum(v for j, v in enumerate(plain[0]) if mask >> j & 1)), 3) for mask in range(256)}
    inside = all(min(abs(float(found[0, 0]) - s) for s in sums) < 2e-3 for found in seen)
    assert inside == pooled


def test_the_head_for_spans_drops_nothing():
  """As transformers' question-answering heads; that for words drops."""
  x = np.random.default_rng(0).normal(size=(4, 3, 8)).astype(np.float32)
  for kind, labels, drops in ((SPAN, (), False), (WORDS, LABELS, True)):
    head = task_head(task_with(kind, labels), 0.5)
    params = head.init(jax.random.key(0), x)
    trained = head.apply(params, x, False, rngs={"dropout": jax.random.key(1)})
    assert np.array_equal(trained, head.apply(params, x)) != drops


# --- training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vocabulary():
  """A tokenizer.json of BERT's kind over PIECES, as `xlmr train_vocabulary --kind=wordpiece` writes it."""
  whole = wordpiece_json({piece: id for id, piece in enumerate(PIECES)}, normalizer({"do_lower_case": False}))
  return json.dumps(whole).encode()


@pytest.mark.slow
def test_pretraining_goes_on_and_comes_out(tmp_path):
  """An imported BERT trains on rows of its vocabulary, is scored, and has our logits in transformers."""
  source = make_folder(tmp_path / "source", tensors() | pooler())
  from_hf(source, Workdir(tmp_path / "run"))
  text = tmp_path / "text"
  text.mkdir()
  rng = np.random.default_rng(0)
  words = [word for word in hf.WORDS if word.isascii()]
  for language in ("aa", "bb"):
    lines = (f"the {' '.join(rng.choice(words, 6))} of {rng.choice(words)}." for _ in range(200))
    (text / f"{language}.txt").write_text("\n\n".join(lines) + "\n")
  for args in (
    ["build_rows", f"--text={text}", f"--tokenizer={tmp_path / 'run' / 'tokenizer.model'}", f"--out={tmp_path / 'rows'}",
     "--seq_len=34", "--held_out=0.1"],
    ["pretrain", f"--config=imported:{tmp_path / 'run'},batch_rows=16", f"--workdir={tmp_path / 'run'}",
     f"--config.data.rows={tmp_path / 'rows'}", "--config.train_steps=40", "--config.optimizer.warmup_steps=5",
     "--config.optimizer.peak_lr=3e-3", "--config.model.dtype=float32", "--config.checkpoint.every_steps=20",
     "--config.held_out.every_steps=20", "--config.log.every_steps=10", "--config.log.tensorboard=False"],
    ["score", f"--workdir={tmp_path / 'run'}", f"--rows={tmp_path / 'rows'}", "--passes=1"],
  ):  # fmt: skip
    result = command(*args)
    assert result.returncode == 0, result.stderr[-3000:]
  losses = [json.loads(line)["mean_loss"] for line in (tmp_path / "run" / "held_out.jsonl").read_text().splitlines()]
  assert losses[-1] < losses[0] - 0.3
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  found = hf.read_tensors(tmp_path / "out")
  assert all(found[name].tobytes() == value.tobytes() for name, value in pooler().items())
  ours, (theirs, tokenizer) = open_model(tmp_path / "run"), theirs_in(tmp_path / "out")
  assert ours.step == 40
  given = tokenizer("the cat sees houses.", "the hut")
  moved = moved_ids(ours.tokenizer.specials)
  to_ours = {theirs_id: ours_id for ours_id, theirs_id in moved.items()}
  logits = run_with_types(theirs, [given.input_ids], [given.token_type_ids]).logits.numpy()
  mine = logits_of(ours.module, ours.params, [[to_ours.get(id, id) for id in given.input_ids]])
  np.testing.assert_allclose(mine, logits[..., [moved.get(id, id) for id in range(len(PIECES))]], atol=1e-4)


def test_another_family_is_no_way_on(tmp_path, vocabulary):
  """XLM-R's positions with BERT's ids, and types that the tokenizer does not give, are refused before the export."""
  source = make_folder(tmp_path / "source")
  record = open_record(source)
  for changes, message in (({"family": "xlmr"}, "family=xlmr with a vocabulary of BERT's layout"),
                           ({"pair_types": False}, "config.model.pair_types=False, but")):  # fmt: skip
    config = ConfigDict(record.config)
    config.model.update(changes)
    with pytest.raises(UserError, match=message):
      to_hf(Workdir(source), "latest", tmp_path / "out", config=config)
  assert open_tokenizer("made", vocabulary).specials == (9, 0, 10, 8) and opened(source)[1]["type_embedding"].shape == (
    2,
    16,
  )
