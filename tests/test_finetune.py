"""Fine-tuning: the heads against transformers' PyTorch ones, and what must not depend on padding, mesh or order."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.reference import make_hf_reference as reference
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import finetune, scorer
from xlmr_jax.evaluation.finetune_step import loss_sum, task_head
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import Recipe, Task
from xlmr_jax.huggingface.names import params_from_hf
from xlmr_jax.model.build import build_model, init_params
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS
from xlmr_jax.training import sharding

RECIPE = Recipe(lr=5e-3, batch=8, epochs=10, max_len=reference.SEQ)
LABELS = ("a", "b", "c")


def no_reader(folder, task, language, split):
  raise UserError(f"{task.name} has no files")


def task_with(head, labels=LABELS, **recipe):
  return Task(f"test_{head}", head, labels, ("accuracy",), ("en",), dataclasses.replace(RECIPE, **recipe), no_reader)


def config(dropout=0.0):
  """A model of the reference's sizes."""
  c = tiny.config()
  c.model.update(layers=reference.LAYERS, hidden=reference.HIDDEN, heads=reference.HEADS, ffn=reference.FFN)
  c.model.update(max_positions=reference.SEQ + 2, dropout=dropout, attention_dropout=dropout)
  return c


@functools.cache
def initial():
  return init_params(config(), reference.VOCABULARY)


def finetuner(task, data=8, fsdp=1, dropout=0.0):
  mesh = sharding.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
  return finetune.Finetuner(config(dropout), reference.VOCABULARY, task, mesh)


def arrays_of(head, labels, rows=16, seed=0):
  """Examples whose label is told by one of their pieces; rows of unequal length unless they are spans."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(10, 90, (rows, reference.SEQ)).astype(np.int32)
  ids[:, 0], ids[:, -1] = 0, 2
  at = rng.integers(1, 8, rows)
  kind = rng.integers(0, max(len(labels), 1), rows)
  ids[np.arange(rows), at] = 4 + kind
  if head == SPAN:
    return {"ids": ids, "start": at.astype(np.int32), "end": (at + 1).astype(np.int32)}
  ids[1::2, 12:] = 1
  if head == SENTENCE:
    return {"ids": ids, "label": kind.astype(np.int32) if labels else kind.astype(np.float32) + 0.5}
  label = np.where((ids > 3) & (rng.random(ids.shape) < 0.5), ids % 3, -1)
  return {"ids": ids, "label": label.astype(np.int32)}


@pytest.mark.parametrize("head, labels", [(SENTENCE, LABELS), (SENTENCE, ()), (WORDS, LABELS), (SPAN, ())])
def test_a_step_equals_transformers(head, labels):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  kind = {SENTENCE: "SequenceClassification", WORDS: "TokenClassification", SPAN: "QuestionAnswering"}[head]
  mlm = reference.make_model()
  mlm.config.num_labels = 2 if head == SPAN else max(len(labels), 1)
  torch.manual_seed(3)
  theirs = getattr(transformers, f"XLMRobertaFor{kind}")(mlm.config).eval()
  theirs.roberta.load_state_dict(mlm.roberta.state_dict())
  theirs.roberta.embeddings.token_type_embeddings.weight.requires_grad_(False)  # folded into our positions

  def numpy(model):
    return {name: p.detach().numpy().copy() for name, p in model.state_dict().items()}

  lm_head = {name: value for name, value in numpy(mlm).items() if name.startswith("lm_head")}

  def ours_from(tensors):
    def dense(name):
      return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}

    heads = {
      SENTENCE: {"dense": "classifier.dense", "out": "classifier.out_proj"},
      WORDS: {"out": "classifier"},
      SPAN: {"out": "qa_outputs"},
    }[head]
    return {
      "encoder": params_from_hf(tensors | lm_head, heads=reference.HEADS),
      "head": {name: dense(hf) for name, hf in heads.items()},
    }

  batch = arrays_of(head, labels)
  ids = torch.tensor(batch["ids"], dtype=torch.long)
  given = {"start_positions": "start", "end_positions": "end"} if head == SPAN else {"labels": "label"}
  targets = {name: torch.tensor(batch[key]) for name, key in given.items()}
  targets = {name: x if head == SENTENCE and not labels else x.long() for name, x in targets.items()}
  if head == WORDS:
    targets["labels"][targets["labels"] < 0] = -100
  loss = theirs(input_ids=ids, attention_mask=(ids != 1).long(), **targets).loss
  loss.backward()

  params = ours_from(numpy(theirs))
  batch = finetune.take(batch, np.arange(16), 16)

  task = task_with(head, labels, batch=16, lr=1e-3, warmup=1.0)
  model = build_model(config(), reference.VOCABULARY)

  def mean(params):
    x = model.apply({"params": params["encoder"]}, batch["ids"], method="encode")
    total, weight = loss_sum(task, task_head(task, 0.0).apply({"params": params["head"]}, x), batch)
    return total / weight

  ours, gradients = jax.jit(jax.value_and_grad(mean))(params)
  assert abs(float(ours) - loss.item()) < 1e-4
  absent = {name: np.zeros(p.shape, np.float32) for name, p in theirs.named_parameters() if p.grad is None}
  expected = ours_from({name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None} | absent)
  for name in ("head_dense", "head_norm", "head_bias"):  # the MLM head, which no task sees
    gradients["encoder"].pop(name), expected["encoder"].pop(name)
  assert jax.tree.structure(gradients) == jax.tree.structure(expected)
  for (path, g), e in zip(jax.tree_util.tree_flatten_with_path(gradients)[0], jax.tree.leaves(expected)):
    error = np.linalg.norm(np.asarray(g) - e) / max(np.linalg.norm(e), 1e-3)
    assert error < 1e-4, (jax.tree_util.keystr(path), error)

  # And the whole step: clipping, AdamW and the rate, against torch's.
  optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, eps=1e-8, weight_decay=0.0)
  torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
  optimizer.step()
  stepped = theirs(input_ids=ids, attention_mask=(ids != 1).long(), **targets).loss.item()
  on_eight = finetuner(task)
  init, step = on_eight.program(1)
  state = init(params["encoder"], jax.random.key(0))._replace(params=params)  # the optimizer's zeros suit any values
  with jax.set_mesh(on_eight.mesh):
    state, _ = step(state, sharding.to_global(on_eight.mesh, batch, 16), jax.random.key(0))
  assert abs(float(jax.jit(mean)(jax.device_get(state.params))) - stepped) < 1e-4
  assert abs(stepped - loss.item()) > 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("head, labels", [(SENTENCE, LABELS), (WORDS, LABELS), (SPAN, ())])
def test_mesh_and_repetition_do_not_change_it(head, labels):
  params, task = initial(), task_with(head, labels, epochs=2)
  one, several = finetuner(task, data=1), finetuner(task, data=4, fsdp=2)
  arrays = arrays_of(head, labels, rows=21)
  on_one, loss = one.train(params, arrays, 7)
  on_several, other = several.train(params, arrays, 7)
  assert loss == pytest.approx(other, rel=1e-5)
  for a, b in zip(jax.tree.leaves(one.predict(on_one, arrays)[0]), jax.tree.leaves(several.predict(on_several, arrays)[0])):
    if head == SPAN:  # the bias moves all positions alike, and its gradient is rounding alone
      a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(a, b, atol=1e-3)
  again, _ = one.train(params, arrays, 7)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(on_one), jax.tree.leaves(again)))
  differently, _ = one.train(params, arrays, 8)
  assert not np.array_equal(on_one["head"]["out"]["kernel"], differently["head"]["out"]["kernel"])


FROZEN = r"embedding|layer/qkv"


@pytest.mark.slow
@pytest.mark.parametrize("head, frozen, meshes", [(WORDS, "", [(2, 4)]), (SENTENCE, FROZEN, [(8, 1), (2, 4)])])
def test_three_steps_with_dropout_are_the_same_on_every_mesh(head, frozen, meshes):
  """Loss and parameters, with words unequally many per device and rows that only fill the batch up.

  The gradient of a key's bias is 0 but for rounding, which Adam would divide by itself; its values are not compared.
  """
  task = task_with(head, batch=16, lr=2e-3, frozen=frozen, weight_decay=0.1)
  arrays = arrays_of(head, LABELS, rows=39)
  batches = [finetune.take(arrays, np.arange(start, min(start + 16, 39)), 16) for start in (0, 16, 32)]

  def after_three(data, fsdp):
    one = finetuner(task, data, fsdp, dropout=0.3)
    init, step = one.program(3)
    key = jax.random.key(5)
    shapes = sharding.state_shardings(one.mesh, jax.eval_shape(init, initial(), key), one._rules)
    state = jax.jit(init, out_shardings=shapes)(initial(), key)
    losses = []
    with jax.set_mesh(one.mesh):
      for batch in batches:
        state, loss = step(state, sharding.to_global(one.mesh, batch, 16), key)
        losses.append(float(loss))
    params = jax.tree.map(np.array, jax.device_get(state.params))
    bias = params["encoder"]["layer"]["qkv"]["bias"]
    assert bias.shape[1] == 3
    bias[:, 1] = 0.0
    return losses, params

  losses, params = after_three(1, 1)
  for data, fsdp in meshes:
    found, divided = after_three(data, fsdp)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=0), divided, params)
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params["encoder"], jax.device_get(initial()))
  assert moved["layer"]["ffn_in"]["kernel"] > 1e-3
  assert (moved["token_embedding"] > 1e-4) == (frozen == "")


@functools.cache
def learned():
  """(finetuner on eight devices, what it trained, the loss, the arrays)."""
  on_eight = finetuner(task_with(SENTENCE, epochs=40))
  arrays = arrays_of(SENTENCE, LABELS, rows=64)
  return on_eight, *on_eight.train(initial(), arrays, 0), arrays


@pytest.mark.slow
def test_rows_that_fill_up_weigh_nothing_and_outputs_keep_their_order():
  on_eight, trained, _, arrays = learned()
  arrays = {name: x[:19] for name, x in arrays.items()}
  whole, _ = on_eight.predict(trained, arrays)
  assert whole.shape == (19, 3)
  single, _ = on_eight.predict(trained, {name: x[13:14] for name, x in arrays.items()})
  np.testing.assert_allclose(whole[13], single[0], atol=1e-5)
  batch = finetune.take(arrays, np.arange(3), 8)
  assert batch["weight"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
  total, weight = loss_sum(task_with(SENTENCE), logits, batch)
  few, few_weight = loss_sum(task_with(SENTENCE), logits[:3], finetune.take(arrays, np.arange(3), 3))
  assert float(total) == pytest.approx(float(few)) and float(weight) == float(few_weight) == 3


@pytest.mark.slow
def test_it_learns():
  on_eight, trained, loss, arrays = learned()
  assert loss < 0.2
  assert (on_eight.predict(trained, arrays)[0].argmax(-1) == arrays["label"]).mean() > 0.95


@pytest.mark.parametrize("head", [SENTENCE, WORDS, pytest.param(SPAN, marks=pytest.mark.slow)])
def test_a_model_of_nans_has_no_score(head):
  """The largest of NaNs is the first class, which would be right as often as there are examples of it."""
  tuner, arrays = finetuner(task_with(head, epochs=1), data=1), arrays_of(head, LABELS)
  params = tuner.program(1)[0](initial(), jax.random.key(0)).params
  assert tuner.predict(params, arrays)[1]
  params["head"] = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(np.nan), params["head"])
  assert np.isnan(tuner.score(params, [], arrays, "en")["accuracy"])


def test_what_is_frozen_stays_and_the_rest_learns():
  params, task = initial(), task_with(SENTENCE, epochs=2, frozen=r"embedding|layer/qkv", weight_decay=0.1)
  trained, _ = finetuner(task, data=1).train(params, arrays_of(SENTENCE, LABELS), 0)
  same = jax.tree_util.tree_map_with_path(
    lambda path, a, b: (jax.tree_util.keystr(path, simple=True, separator="/"), np.array_equal(a, b)),
    params,
    trained["encoder"],
  )
  same = dict(jax.tree.leaves(same, is_leaf=lambda x: isinstance(x, tuple)))
  assert {name for name, is_same in same.items() if is_same and not name.startswith("head")} == {
    name for name in same if name.startswith(("token_embedding", "position_embedding", "embedding_norm", "layer/qkv"))
  }
  assert not same["layer/ffn_in/kernel"]


def test_every_epoch_has_every_row_once():
  rows = np.concatenate(list(finetune.training_rows(10, 4, 10, seed=3)))
  for epoch in range(4):
    assert sorted(rows[epoch * 10 : epoch * 10 + 10]) == list(range(10))
  assert rows[:10].tolist() != rows[10:20].tolist()


def test_settings():
  declared = dataclasses.replace(task_with(SENTENCE), languages=("en", "de"))
  both = ("en", "de")
  assert scorer.training_plan(declared, "zero_shot", both) == [(("en",), both)]
  assert scorer.training_plan(declared, "per_language", both) == [(("en",), ("en",)), (("de",), ("de",))]
  assert scorer.training_plan(declared, "translate_train_all", both) == [(both, both)]
  with pytest.raises(UserError, match=r"evaluate\.setting='mixed': must be one of zero_shot"):
    scorer.training_plan(declared, "mixed", both)
  assert scorer.task_folders("X", "panx=A/B, xnli=tfds") == {"": "X", "panx": "A/B", "xnli": "tfds"}
  with pytest.raises(UserError, match="'panx' is not NAME=FOLDER"):
    scorer.task_folders("X", "panx")
  assert len({scorer.finetuning_seed(1, "a", 0), scorer.finetuning_seed(2, "a", 0), scorer.finetuning_seed(1, "a", 1)}) == 3


def test_recipes_can_be_changed():
  changed = scorer.with_recipe(registry.get("panx"), "panx.lr=1e-3, lr=5e-4,xnli.epochs=1,max_steps=100,frozen=embed")
  assert changed.recipe == dataclasses.replace(registry.get("panx").recipe, lr=1e-3, max_steps=100, frozen="embed")
  assert scorer.with_recipe(registry.get("xnli"), "panx.lr=1e-3,xnli.epochs=1").recipe.epochs == 1
  assert scorer.with_recipe(registry.get("xnli"), "") == registry.get("xnli")
  for wrong in ("speed=1", "lr=fast", "lr"):
    with pytest.raises(UserError, match=f"'{wrong}' is not FIELD=VALUE or TASK.FIELD=VALUE; fields are lr, batch"):
      scorer.with_recipe(registry.get("xnli"), wrong)
  with pytest.raises(UserError, match="no task 'nothing'"):
    scorer.with_recipe(registry.get("xnli"), "nothing.lr=1")


def lengths_of(lengths, longest=128):
  """ids int32[n, longest] of rows with so many tokens."""
  ids = np.full((len(lengths), longest), 1, np.int32)
  ids[np.arange(longest) < np.asarray(lengths)[:, None]] = 5
  return ids


def test_lengths():
  assert finetune.row_lengths(64) == [32, 64] and finetune.row_lengths(128) == [32, 64, 128]
  assert finetune.row_lengths(384) == [32, 64, 128, 256, 384] and finetune.row_lengths(20) == [20]


def test_lengths_of_training_follow_the_data():
  short = np.minimum(np.random.default_rng(0).geometric(1 / 14, 4000) + 2, 60)
  assert finetune.training_lengths(lengths_of([25, 28, 30, 31, 32]), 32, 1000) == [32]
  assert finetune.training_lengths(lengths_of([*[30] * 500, 128]), 8, 1000) == [32, 128]
  assert finetune.training_lengths(lengths_of([384] * 9, 384), 32, 1000) == [384]
  assert finetune.training_lengths(lengths_of([17] * 9, 20), 4, 1000) == [20]
  assert finetune.training_lengths(lengths_of([70] * 9), 4, 1000) == [80]
  assert finetune.training_lengths(lengths_of([*[30] * 500, 128]), 8, 125) == [128]  # A few steps do not pay for two.
  ids = lengths_of(short)
  chosen = finetune.training_lengths(ids, 8, 1000)
  assert len(chosen) <= finetune.MOST_WIDTHS and chosen[-1] >= short.max()

  def tokens(lengths):
    batches = [finetune.take({"ids": ids}, rows, 8, lengths)["ids"] for rows in finetune.training_rows(4000, 8, 300, 0)]
    return sum(batch.size for batch in batches)

  assert tokens(chosen) < 0.85 * tokens([64]) and tokens(chosen) <= tokens([32, 128])
  with_all = finetune.take({"ids": ids}, np.arange(5), 8, chosen)
  assert (with_all["ids"] != 1).sum() >= short[:5].sum()  # Nothing is cut off.
