"""XLM beside transformers' own, and what language embeddings ask for: names that stay with a run, and refusals by name."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests import tiny
from xlmr_jax.config_checks import check_config
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import choices
from xlmr_jax.evaluation.finetune import Finetuner
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import Recipe, Task
from xlmr_jax.model.build import build_model, family_of, init_params
from xlmr_jax.model.task_head import SENTENCE
from xlmr_jax.model.xlm import is_in_second_text, positions_of_pairs
from xlmr_jax.open_model import Model
from xlmr_jax.report.export import to_hf
from xlmr_jax.run.branch import begin
from xlmr_jax.run.workdir import RunRecord, Workdir, read_record, refuse_other_run
from xlmr_jax.training import sharding
from xlmr_jax.training.model_languages import number_of, number_of_text, sides_of, with_languages
from xlmr_jax.training.preparation import rows_of
from xlmr_jax.training.program import build_program

LANGUAGES = ("aa", "bb", "cc")
SIDES = ((0, 0), (1, 1), (0, 2))
PAIR = [0, 11, 12, 13, 2, 2, 21, 22, 2]  # <s> a </s></s> b </s>


def config_of(rows="", **changes):
  c = tiny.config(rows)
  c.model.update(family="xlm", max_positions=tiny.SEQ_LEN, languages=LANGUAGES, layer_norm_epsilon=1e-12,
                 dropout=0.0, attention_dropout=0.0)  # fmt: skip
  c.model.update(**changes)
  return c


def model_of(**changes):
  config = config_of(**changes)
  params = init_params(config, tiny.VOCABULARY)
  rng = np.random.default_rng(0)
  shaken = jax.tree.map(lambda x: np.asarray(x + rng.normal(0, 0.1, x.shape), np.float32), params)
  return build_model(config, tiny.VOCABULARY), shaken


def logits_of(model, params, ids, languages):
  apply = jax.jit(functools.partial(model.apply, method="logits"))
  return np.asarray(apply({"params": params}, np.asarray(ids, np.int32), np.asarray(languages, np.int32)))


# --- the model -----------------------------------------------------------------------------------------------------


def test_a_pair_is_read_off_its_ids():
  row = np.array([[*PAIR, *PAIR[:3], 2, 2, 31, 2, 1, 1]])
  assert is_in_second_text(row)[0].astype(int).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
  assert positions_of_pairs(row)[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 0]
  of_one_separator = np.array([[0, 11, 2, 21, 22, 2, 0, 12, 2, 23, 2]])
  assert positions_of_pairs(of_one_separator)[0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]


def theirs_of(params):
  """transformers' XLM with our parameters."""
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  layers, D = params["layer"], 16
  theirs = transformers.XLMWithLMHeadModel(
    transformers.XLMConfig(
      vocab_size=tiny.VOCABULARY, emb_dim=D, n_layers=2, n_heads=2, n_langs=3, max_position_embeddings=tiny.SEQ_LEN,
      gelu_activation=True, layer_norm_eps=1e-12, pad_index=1, bos_index=0, eos_index=2, unk_index=3, mask_index=89,
    )
  ).eval()  # fmt: skip
  found = {
    "transformer.embeddings.weight": params["token_embedding"][: tiny.VOCABULARY],
    "transformer.position_embeddings.weight": params["position_embedding"],
    "transformer.lang_embeddings.weight": params["language_embedding"],
    "transformer.layer_norm_emb.weight": params["embedding_norm"]["scale"],
    "transformer.layer_norm_emb.bias": params["embedding_norm"]["bias"],
    "pred_layer.proj.weight": params["token_embedding"][: tiny.VOCABULARY],
    "pred_layer.proj.bias": params["head_bias"][: tiny.VOCABULARY],
  }
  for n in range(2):
    for i, name in enumerate(("q_lin", "k_lin", "v_lin")):
      found[f"transformer.attentions.{n}.{name}.weight"] = layers["qkv"]["kernel"][n][:, i].reshape(D, D).T
      found[f"transformer.attentions.{n}.{name}.bias"] = layers["qkv"]["bias"][n][i].reshape(D)
    found[f"transformer.attentions.{n}.out_lin.weight"] = layers["attention_out"]["kernel"][n].reshape(D, D).T
    found[f"transformer.attentions.{n}.out_lin.bias"] = layers["attention_out"]["bias"][n]
    for ours, name in (("ffn_in", "lin1"), ("ffn_out", "lin2")):
      found[f"transformer.ffns.{n}.{name}.weight"] = layers[ours]["kernel"][n].T
      found[f"transformer.ffns.{n}.{name}.bias"] = layers[ours]["bias"][n]
    for ours, name in (("attention_norm", "layer_norm1"), ("ffn_norm", "layer_norm2")):
      found[f"transformer.{name}.{n}.weight"] = layers[ours]["scale"][n]
      found[f"transformer.{name}.{n}.bias"] = layers[ours]["bias"][n]
  report = theirs.load_state_dict({k: torch.tensor(np.ascontiguousarray(v)) for k, v in found.items()}, strict=False)
  assert not report.unexpected_keys and set(report.missing_keys) <= {"transformer.position_ids"}
  return torch, theirs


def test_logits_are_those_of_transformers():
  """A monolingual row, and a pair with a language per text and positions that begin again, at fp32."""
  model, params = model_of(ffn=64)  # transformers' feed-forward width is four times the hidden one
  torch, theirs = theirs_of(params)
  ids = np.ones((2, 12), np.int64)
  ids[0, :10] = [0, 14, 15, 16, 17, 18, 19, 24, 25, 2]
  ids[1, : len(PAIR)] = PAIR
  languages = [SIDES[1], SIDES[2]]
  tokens_of = np.where(is_in_second_text(ids), *np.array(languages).T[::-1, :, None])
  positions = np.stack([np.arange(12), positions_of_pairs(ids[1:])[0]])
  with torch.no_grad():
    given = [torch.tensor(np.array(x, np.int64)) for x in (ids, tokens_of, positions)]
    wanted = theirs(
      input_ids=given[0], langs=given[1], position_ids=given[2], attention_mask=(given[0] != 1).long()
    ).logits.numpy()  # fmt: skip
  found = logits_of(model, params, ids, languages)
  np.testing.assert_allclose(found[ids != 1], wanted[ids != 1], atol=1e-4, rtol=0)
  assert np.abs(wanted).max() > 0.5
  others = logits_of(model, params, ids, [SIDES[0], (1, 0)])
  assert np.abs(others - found)[ids != 1].max() > 1e-2  # The languages are looked at.


def test_pairs_that_share_a_row_are_each_by_themselves():
  model, params = model_of()
  other = [0, 31, 32, 2, 2, 41, 2]
  together = logits_of(model, params, [PAIR + other], [SIDES[2]])[0]
  for part, at in ((PAIR, 0), (other, len(PAIR))):
    alone = logits_of(model, params, [part], [SIDES[2]])[0]
    np.testing.assert_allclose(alone, together[at : at + len(part)], atol=1e-5)
  one_language = logits_of(model, params, [PAIR + other], [SIDES[0]])[0]  # fairseq's reading: a row is one sequence
  assert np.abs(one_language[: len(PAIR)] - logits_of(model, params, [PAIR], [SIDES[0]])[0]).max() > 1e-3


def test_without_language_embeddings_only_positions_tell_a_pair():
  model, params = model_of(language_embeddings=False, languages=())
  assert "language_embedding" not in params and "head_dense" not in params
  ids = [PAIR]
  found = [logits_of(model, params, ids, [sides]) for sides in ((0, 0), (1, 1), (0, 1), (2, 0))]
  assert (found[0] == found[1]).all() and (found[2] == found[3]).all() and np.abs(found[0] - found[2]).max() > 1e-3


def test_heads_rules_and_what_the_config_must_not_say():
  model, params = model_of(head="dense")
  assert {"head_dense", "head_norm", "head_bias", "language_embedding"} <= set(params)
  assert np.all(np.any(init_params(config_of(), tiny.VOCABULARY)["position_embedding"], axis=1))
  sharding.specs(params, family_of(config_of()).sharding)  # Every parameter has a rule.
  assert model.encoder.max_seq_len == tiny.SEQ_LEN
  flops = [family_of(c).flops_per_token(c.model, 90, 32, 8) for c in (config_of(), config_of(head="dense"))]
  assert flops[1] - flops[0] == 6 * 8 / 32 * 16**2
  for message, changes in {
    "config.model.head=linear: only config.model.family=xlm": {"family": "xlmr", "head": "linear", "languages": ()},
    "config.model.languages names language embeddings": {"family": "bert"},
    "names a language twice": {"languages": ("aa", "aa")},
    "config.model.head='none': must be one of": {"head": "none"},
  }.items():
    with pytest.raises(UserError, match=message):
      check_config(config_of("rows", **changes))
  for name in ("xlm2", ["xlm"]):  # in the config.json of a later version, or a damaged one
    config = config_of()
    with config.ignore_type():
      config.model.family = name
    with pytest.raises(UserError, match=r"config\.model\.family=.*xlm.*: must be one of xlmr, bert, xlm; restore"):
      build_model(config, tiny.VOCABULARY)
  with pytest.raises(UserError, match=r"config\.model\.languages is empty"):
    build_model(config_of(languages=()), tiny.VOCABULARY)
  with pytest.raises(ValueError, match="needs the languages of its rows"):
    jax.eval_shape(functools.partial(model.apply, method="encode"), {"params": params}, np.zeros((1, 8), np.int32))


@pytest.mark.parametrize(("data", "fsdp", "micro_batches"), [(4, 2, 2), pytest.param(1, 8, 1, marks=pytest.mark.slow)])
def test_a_step_on_eight_devices_is_that_on_one(data, fsdp, micro_batches):
  batch = tiny.batch(np.random.default_rng(1), 16)
  for row in batch["ids"][batch["language"] == 2]:  # rows of pairs
    row[12:14] = 2
  states = []
  for mesh_shape, parts in (((1, 1), 1), ((data, fsdp), micro_batches)):
    config = config_of()
    config.micro_batches = parts
    mesh = sharding.make_mesh(*mesh_shape, jax.devices()[: np.prod(mesh_shape)])
    with jax.set_mesh(mesh):
      program = build_program(config, mesh, vocabulary_size=tiny.VOCABULARY, languages=3, seq_len=tiny.SEQ_LEN, sides=SIDES)
    state, metrics = tiny.step(program, tiny.init(program), batch)
    states.append(jax.device_get((state.params, metrics)))
  for one, eight in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1]), strict=True):
    np.testing.assert_allclose(one, eight, rtol=2e-4, atol=2e-5)
  drawn = tiny.init(program).params["language_embedding"]
  assert np.any(states[0][0]["language_embedding"] != np.asarray(drawn), axis=1).all()  # Each language has learnt.


# --- names -----------------------------------------------------------------------------------------------------------


def test_languages_are_found_however_they_are_spelt(tiny_store):
  names = ("en", "hi", "hi_rom", "zh_Hans", "zh_Hant")
  asked = {"en": 0, "hi": 1, "hi_rom": 2, "zh": 3, "zh_Hans": 3, "zh-TW": 4, "eng": 0, "fr": None, "": None}
  assert {name: number_of(names, name) for name in asked} == asked
  filled = with_languages(config_of(languages=()), tiny_store)
  assert filled.model.languages == LANGUAGES and sides_of(filled, tiny_store) == ((0, 0), (1, 1), (2, 2))
  ordered = config_of(languages=("cc", "xx", "aa", "bb"))
  assert with_languages(ordered, tiny_store).model.languages == ("cc", "xx", "aa", "bb")
  assert sides_of(ordered, tiny_store) == ((2, 2), (3, 3), (0, 0))
  assert sides_of(ordered, tiny_store, "xx") == ((1, 1),) * 3
  with pytest.raises(UserError, match=r"rows in 'bb': .* no language embedding of 'bb'; it has aa, cc; name it in config"):
    with_languages(config_of(languages=("aa", "cc")), tiny_store)
  plain = config_of(language_embeddings=False, languages=())
  assert sides_of(plain, tiny_store, "xx") == sides_of(plain, tiny_store) == ((0, 0), (1, 1), (2, 2))  # It looks at none.
  for family in ("xlmr", "bert"):
    config = config_of(family=family, languages=())
    assert with_languages(config, tiny_store) is config and sides_of(config, tiny_store) is None


def test_a_text_needs_a_language_that_the_model_has():
  assert number_of_text(config_of(), "bb") == 1 and number_of_text(config_of(family="xlmr", languages=()), "") is None
  with pytest.raises(UserError, match="has language embeddings, so it must be told the language of a text: --language=aa"):
    number_of_text(config_of(), "")
  with pytest.raises(UserError, match="--language=zz: the model has no language embedding of 'zz'; it has aa, bb, cc"):
    number_of_text(config_of(), "zz")


class Letters:
  """A tokenizer of 26 letters."""

  mask_id, size, separators = tiny.VOCABULARY - 1, tiny.VOCABULARY, 2
  replacements = np.arange(4, 30, dtype=np.int32)

  def encode_lines(self, lines, threads=1):
    return [np.array([4 + ord(c) % 26 for c in line], np.int32) for line in lines]

  def encode_masked(self, text):
    return [0, *(self.mask_id if part == "<mask>" else 5 for part in text.split()), 2]

  def piece(self, id):
    return chr(97 + int(id))


def test_opened_models_take_a_language():
  config, record = config_of(), {}
  params = model_of()[1]
  record = RunRecord(config=config.to_dict(), vocabulary_size=tiny.VOCABULARY, tokenizer_sha256="", seq_len=tiny.SEQ_LEN)
  model = Model(record, params, Letters(), 1)  # pyright: ignore[reportArgumentType]  It has what these methods need.
  one, other = (model.encode(["a text", "another"], language=language) for language in ("aa", "bb"))
  assert np.abs(one - other).max() > 1e-3
  assert model.fill(["a <mask> c"], language="aa") != model.fill(["a <mask> c"], language="cc")
  for call in (model.encode, model.fill):
    with pytest.raises(UserError, match="--language=aa"):
      call(["a <mask> c"])
    with pytest.raises(UserError, match="no language embedding of 'fr'"):
      call(["a <mask> c"], language="fr")


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_tasks_are_read_in_their_language_or_refused(monkeypatch):
  def task_of(languages, train):
    task = Task("lettered", SENTENCE, ("no", "yes"), ("accuracy",), languages, Recipe(1e-2, 8, 2, 16),
                lambda *_: [], train_language=train)  # fmt: skip
    monkeypatch.setitem(registry.TASKS, "lettered", task)
    return task

  config = config_of()
  config.evaluate.tasks = ("lettered",)
  task = task_of(("aa", "bb"), "aa")
  choices.refuse_languages(config)
  mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
  tuner, plain = (Finetuner(c, tiny.VOCABULARY, task, mesh) for c in (config, config_of(family="xlmr", languages=())))
  examples = [registry.Text("a", "b", i % 2) for i in range(8)]
  arrays = tuner.encode(examples, Letters(), "bb")
  assert arrays["language"].tolist() == [1] * 8 and "language" not in plain.encode(examples, Letters(), "bb")
  params = {"encoder": init_params(config, tiny.VOCABULARY)}
  trained, _ = tuner.train(params["encoder"], arrays, 0)
  before, after = params["encoder"]["language_embedding"], np.asarray(trained["encoder"]["language_embedding"])
  moved = np.abs(after - np.asarray(before)).max(axis=1)
  assert moved[1] > 1e-4 and moved[0] == moved[2] == 0
  found = [tuner.predict(trained, arrays | {"language": np.full(8, n, np.int32)})[0] for n in (1, 2)]
  assert np.abs(found[0] - found[1]).max() > 1e-5
  with pytest.raises(UserError, match="lettered: the model has no language embedding of 'zz'"):
    tuner.encode(examples, Letters(), "zz")
  task_of(("aa", "zz", "cc"), "aa")
  with pytest.raises(UserError, match=r"no language embedding of zz; --config\.evaluate\.languages=aa,cc leaves them out"):
    choices.refuse_languages(config)
  monkeypatch.setitem(registry.TASKS, "other", dataclasses.replace(registry.TASKS["lettered"], languages=("aa", "bb")))
  config.evaluate.tasks = ("lettered", "other")  # The other task keeps the language that only it has.
  with pytest.raises(UserError, match=r"of zz; --config\.evaluate\.languages=aa,bb,cc leaves them out"):
    choices.refuse_languages(config)
  config.evaluate.tasks = ("lettered",)
  config.evaluate.languages = ("aa", "cc")
  choices.refuse_languages(config)
  task_of(("aa", "cc"), "en")
  with pytest.raises(UserError, match="it is trained on en, of which the model has no language embedding"):
    choices.refuse_languages(config)
  config.evaluate.setting = "translate_train_all"
  choices.refuse_languages(config)


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_keeps_its_names_scores_rows_and_is_not_exported(tiny_store, tiny_rows, tmp_path):
  from xlmr_jax.evaluation.held_out_score import score

  config = with_languages(config_of(tiny_rows, languages=()), tiny_store)
  record = RunRecord(
    config=config.to_dict(), vocabulary_size=tiny.VOCABULARY, tokenizer_sha256=tiny_store.manifest["tokenizer_sha256"],
    seq_len=tiny.SEQ_LEN, rows_fingerprint=tiny_store.fingerprint, languages=tiny_store.languages, rows=str(tiny_rows),
  )  # fmt: skip
  broken, whole = tmp_path / "broken", tmp_path / "whole"
  for folder in (broken, whole):
    folder.mkdir()
    record.write(Workdir(folder))
  assert tiny.run(config, broken, tiny_store, stop=7) == 42
  assert tiny.run(config, broken, tiny_store) == tiny.run(config, whole, tiny_store) == 0
  assert (broken / "held_out.jsonl").read_bytes() == (whole / "held_out.jsonl").read_bytes()
  assert (broken / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()
  assert read_record(Workdir(whole)).config["model"]["languages"] == list(LANGUAGES)
  own, as_aa = (score(whole, tiny_rows, passes=1, language=language)["languages"] for language in ("", "aa"))
  assert own["aa"] == as_aa["aa"] and own["bb"] != as_aa["bb"]
  swapped = record.config | {"model": record.config["model"] | {"languages": ["bb", "aa", "cc"]}}
  with pytest.raises(UserError, match=r"config\.model\.languages=bb,aa,cc, but aa,bb,cc there"):
    begin(f"{whole}@4", dataclasses.replace(record, config=swapped), rows_of(tiny_store))
  with pytest.raises(UserError, match=r"model\.languages: \['aa', 'bb', 'cc'\] there, \['bb', 'aa', 'cc'\] here"):
    refuse_other_run(Workdir(whole), dataclasses.replace(record, config=swapped))
  other = record.config | {"model": record.config["model"] | {"languages": ["aa", "bb"]}}
  dataclasses.replace(record, config=other).write(Workdir(whole))
  with pytest.raises(UserError, match="rows in 'cc': the model has no language embedding of 'cc'; it has aa, bb; name the"):
    score(whole, tiny_rows, passes=1)
  with pytest.raises(UserError, match=r"config\.model\.family=xlm has no export"):
    to_hf(Workdir(whole), "latest", tmp_path / "hf")
