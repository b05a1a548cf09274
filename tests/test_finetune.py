"""Fine-tuning: the heads against transformers' PyTorch ones, and what must not depend on padding, mesh or order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import make_hf_reference as reference
from tests.test_model import initial_params, small
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import finetune
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import SENTENCE, SPAN, WORDS, Recipe, Task
from xlmr_jax.huggingface.names import params_from_hf
from xlmr_jax.training import sharding

RECIPE = Recipe(lr=5e-3, batch=8, epochs=10, max_len=reference.SEQ)
LABELS = ("a", "b", "c")


def task(head, labels=LABELS, **recipe):
  return Task(f"test_{head}", head, labels, ("accuracy",), ("en",), dataclasses.replace(RECIPE, **recipe), "none:none")


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
  config = mlm.config
  config.num_labels = 2 if head == SPAN else max(len(labels), 1)
  torch.manual_seed(3)
  theirs = getattr(transformers, f"XLMRobertaFor{kind}")(config).eval()
  theirs.roberta.load_state_dict(mlm.roberta.state_dict())
  theirs.roberta.embeddings.token_type_embeddings.weight.requires_grad_(False)  # folded into our positions
  numpy = lambda model: {name: p.detach().numpy().copy() for name, p in model.state_dict().items()}  # noqa: E731
  lm_head = {name: value for name, value in numpy(mlm).items() if name.startswith("lm_head")}

  def ours_from(tensors):
    dense = lambda name: {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}  # noqa: E731
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

  def mean(params):
    x = small().apply({"params": params["encoder"]}, batch["ids"], method="encode")
    total, weight = finetune.loss_sum(
      task(head, labels), finetune.head_of(task(head, labels), 0.0).apply({"params": params["head"]}, x), batch
    )
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
  finetuner = finetune.Finetuner(small(), task(head, labels, batch=16, lr=1e-3, warmup=1.0), sharding.make_mesh(8, 1))
  init, step = finetuner.program(1)
  state = init(params["encoder"], jax.random.key(0))._replace(params=params)  # the optimizer's zeros suit any values
  with jax.set_mesh(finetuner.mesh):
    state, _ = step(state, sharding.to_global(finetuner.mesh, batch, 16), jax.random.key(0))
  assert abs(float(jax.jit(mean)(jax.device_get(state.params))) - stepped) < 1e-4
  assert abs(stepped - loss.item()) > 5e-4


@pytest.mark.parametrize(
  "head, labels",
  [(SENTENCE, LABELS), pytest.param(WORDS, LABELS, marks=pytest.mark.slow), pytest.param(SPAN, (), marks=pytest.mark.slow)],
)
def test_mesh_and_repetition_do_not_change_it(head, labels):
  params = initial_params(small(), 0)
  of = lambda mesh: finetune.Finetuner(small(), task(head, labels, epochs=2), mesh)  # noqa: E731
  one = of(sharding.make_mesh(1, 1, jax.devices()[:1]))
  several = of(sharding.make_mesh(4, 2))
  arrays = arrays_of(head, labels, rows=21)
  on_one, loss = one.train(params, arrays, 7)
  on_several, other = several.train(params, arrays, 7)
  assert loss == pytest.approx(other, rel=1e-5)
  for a, b in zip(jax.tree.leaves(one.predict(on_one, arrays)), jax.tree.leaves(several.predict(on_several, arrays))):
    if head == SPAN:  # the bias moves all positions alike, and its gradient is rounding alone
      a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(a, b, atol=1e-3)
  again, _ = one.train(params, arrays, 7)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(on_one), jax.tree.leaves(again)))
  differently, _ = one.train(params, arrays, 8)
  assert not np.array_equal(on_one["head"]["out"]["kernel"], differently["head"]["out"]["kernel"])


def test_rows_that_fill_up_weigh_nothing_and_outputs_keep_their_order():
  params = initial_params(small(), 0)
  finetuner = finetune.Finetuner(small(), task(SENTENCE, batch=8), sharding.make_mesh(8, 1))
  arrays = arrays_of(SENTENCE, LABELS, rows=19)
  trained, _ = finetuner.train(params, arrays, 0)
  whole = finetuner.predict(trained, arrays)
  assert whole.shape == (19, 3)
  single = finetuner.predict(trained, {name: x[13:14] for name, x in arrays.items()})
  np.testing.assert_allclose(whole[13], single[0], atol=1e-5)
  batch = finetune.take(arrays, np.arange(3), 8)
  assert batch["weight"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
  total, weight = finetune.loss_sum(task(SENTENCE), logits, batch)
  few, few_weight = finetune.loss_sum(task(SENTENCE), logits[:3], finetune.take(arrays, np.arange(3), 3))
  assert float(total) == pytest.approx(float(few)) and float(weight) == float(few_weight) == 3


def test_it_learns():
  params = initial_params(small(), 0)
  finetuner = finetune.Finetuner(small(), task(SENTENCE, epochs=40), sharding.make_mesh(8, 1))
  arrays = arrays_of(SENTENCE, LABELS, rows=64)
  trained, loss = finetuner.train(params, arrays, 0)
  assert loss < 0.2
  assert (finetuner.predict(trained, arrays).argmax(-1) == arrays["label"]).mean() > 0.95


def test_what_is_frozen_stays_and_the_rest_learns():
  params = initial_params(small(), 0)
  of = task(SENTENCE, epochs=2, frozen=r"embedding|layer/qkv", weight_decay=0.1)
  trained, _ = finetune.Finetuner(small(), of, sharding.make_mesh(1, 1, jax.devices()[:1])).train(
    params, arrays_of(SENTENCE, LABELS), 0
  )
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
  declared = dataclasses.replace(task(SENTENCE), languages=("en", "de"))
  both = ("en", "de")
  assert finetune.plan(declared, "zero_shot", both) == [(("en",), both)]
  assert finetune.plan(declared, "per_language", both) == [(("en",), ("en",)), (("de",), ("de",))]
  assert finetune.plan(declared, "translate_train_all", both) == [(both, both)]
  with pytest.raises(UserError, match=r"evaluate\.setting='mixed': one of zero_shot"):
    finetune.plan(declared, "mixed", both)
  assert finetune.task_folders("X", "panx=A/B, xnli=tfds") == {"": "X", "panx": "A/B", "xnli": "tfds"}
  with pytest.raises(UserError, match="'panx' is not NAME=FOLDER"):
    finetune.task_folders("X", "panx")
  assert len({finetune.seed_of(1, "a", 0), finetune.seed_of(2, "a", 0), finetune.seed_of(1, "a", 1)}) == 3


def test_recipes_can_be_changed():
  changed = finetune.with_recipe(registry.get("panx"), "panx.lr=1e-3, lr=5e-4,xnli.epochs=1,max_steps=100,frozen=embed")
  assert changed.recipe == dataclasses.replace(registry.get("panx").recipe, lr=1e-3, max_steps=100, frozen="embed")
  assert finetune.with_recipe(registry.get("xnli"), "panx.lr=1e-3,xnli.epochs=1").recipe.epochs == 1
  assert finetune.with_recipe(registry.get("xnli"), "") == registry.get("xnli")
  for wrong in ("speed=1", "lr=fast", "lr"):
    with pytest.raises(UserError, match=f"'{wrong}' is not FIELD=VALUE or TASK.FIELD=VALUE; fields are lr, batch"):
      finetune.with_recipe(registry.get("xnli"), wrong)
  with pytest.raises(UserError, match="no task 'nothing'"):
    finetune.with_recipe(registry.get("xnli"), "nothing.lr=1")


def test_lengths():
  assert finetune.lengths_of(64) == [64] and finetune.lengths_of(128) == [64, 128]
  assert finetune.lengths_of(384) == [96, 192, 384] and finetune.lengths_of(20) == [20]
