"""A run's model in transformers: the exported folder gives our logits, loss and heads; and training goes on from one."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import hugging_face as hf
from tests import tiny
from tests.test_hf_tokenizer import byte_level
from xlmr_jax.commands.flags import override_config
from xlmr_jax.config_files import load_config
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.finetune_step import task_head
from xlmr_jax.evaluation.held_out_score import score
from xlmr_jax.evaluation.ledger import keep_best
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.files import write_json
from xlmr_jax.huggingface import names
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.model.build import build_model
from xlmr_jax.model.task_head import SENTENCE, SPAN
from xlmr_jax.open_model import load_initial, load_params, open_model, open_record
from xlmr_jax.report import export
from xlmr_jax.report.export import to_hf
from xlmr_jax.run.logs import read_held_out
from xlmr_jax.run.manifest import read_manifest
from xlmr_jax.run.workdir import RunRecord, Workdir, read_record, refuse_other_run
from xlmr_jax.training import loop, losses, preparation, sharding

ROOT = Path(__file__).parents[1]
LONG = hf.SIZES._replace(positions=514)
HEADS = ("sst2", "stsb", "panx", "squad")


def command(name, *args, devices=1, **options):
  """`xlmr NAME ARGS`, as a process that sees so many devices."""
  return subprocess.run(
    [sys.executable, "-m", "xlmr_jax", name, *map(str, args)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    **options,
    # The flags of this process but for the devices, since a run goes on bit for bit only as the same compiled program.
    env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"},
  )


def opened(path, checkpoint="latest"):
  """(model in fp32, parameters) of a run or folder whose vocabulary need not be there."""
  record = open_record(path)
  config = ConfigDict(record.config)
  config.model.dtype = "float32"
  return build_model(config, record.vocabulary_size), load_params(path, record, config, checkpoint)[1]


def theirs_of(out, kind="MaskedLM"):
  """The folder as AutoModelFor... opens it; nothing may be missing, new or of another shape."""
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torch")
  model, report = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(out, output_loading_info=True)
  assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
  return model.eval()


def run_theirs(model, ids, **more):
  import torch

  given = torch.tensor(ids, dtype=torch.long)
  with torch.no_grad():
    return model(input_ids=given, attention_mask=(given != 1).long(), **more)


def rows_of(rng, length):
  """Ids of a padded single text, a pair, and a full row."""
  ids = rng.integers(4, LONG.vocabulary, (3, length)).astype(np.int32)
  ids[:, 0], ids[:, -1] = 0, 2
  ids[0, length // 3 :] = 1
  ids[0, length // 3 - 1] = 2
  ids[1, length // 2 : length // 2 + 2] = 2
  ids[1, -4:] = [2, 1, 1, 1]
  return ids


@pytest.mark.parametrize(
  "length, isolated, types, epsilon",
  [
    (24, False, True, 1e-5),
    (512, False, False, 1e-5),
    (40, True, False, 1e-5),
    (24, False, False, 1e-12),
    (24, False, False, 0.1),
  ],
)
def test_logits_of_the_exported_folder(tmp_path, length, isolated, types, epsilon):
  source = hf.make_folder(tmp_path / "source", hf.tensors(LONG, types=types), LONG, layer_norm_eps=epsilon)
  from_hf(source, Workdir(tmp_path / "run"), isolate_documents=isolated)
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  assert json.loads((tmp_path / "out" / "config.json").read_text())["layer_norm_eps"] == epsilon
  ids = rows_of(np.random.default_rng(length), length)
  logits = run_theirs(theirs_of(tmp_path / "out"), ids).logits.numpy()
  model, params = opened(tmp_path / "run")
  assert model.encoder.isolate_documents == isolated
  ours = jax.jit(functools.partial(model.apply, method="logits"))({"params": params}, ids)
  worst = np.abs(np.asarray(ours) - logits)[ids != 1].max()
  assert worst < 1e-4 and np.abs(logits).max() > 1, worst


def test_roberta_with_its_own_vocabulary(tmp_path):
  """Byte-level pieces under the same specials: in, filled, and out as a RobertaForMaskedLM."""
  pytest.importorskip("tokenizers")
  size = byte_level(tmp_path / "source")
  sizes = hf.SIZES._replace(vocabulary=size)
  values = hf.tensors(sizes)
  hf.write_tensors(tmp_path / "source" / "model.safetensors", values)
  (tmp_path / "source" / "config.json").write_text(json.dumps(hf.config_of(sizes, model_type="roberta")))
  from_hf(tmp_path / "source", Workdir(tmp_path / "run"))
  ours = open_model(tmp_path / "run")
  assert len(ours.fill(["the <mask> sees"])[0][0]) == 5 and ours.encode(["é 巴黎"]).shape == (1, 16)
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "out"), values)
  theirs = theirs_of(tmp_path / "out")
  assert type(theirs).__name__ == "RobertaForMaskedLM"
  from transformers import AutoTokenizer

  tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
  ids = np.array([tokenizer("the cat <mask> é").input_ids])
  assert ids[0].tolist() == ours.tokenizer.encode_masked("the cat <mask> é")
  logits = jax.jit(functools.partial(ours.module.apply, method="logits"))({"params": ours.params}, ids)
  np.testing.assert_allclose(logits, run_theirs(theirs, ids).logits.numpy(), atol=1e-4)


# --- training goes on ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
  """A folder imported with token types, then 50 steps by the command; and the folder that it was."""
  root = tmp_path_factory.mktemp("continued")
  source = hf.make_folder(root / "source", hf.tensors(types=True))
  rows = tiny.make_store(root / "rows", hf.vocabulary())
  result = command("convert", "from-hf", f"--source={source}", f"--workdir={root / 'run'}")
  assert result.returncode == 0, result.stderr
  settings = (
    "train_steps=50",
    "optimizer.warmup_steps=5",
    "optimizer.peak_lr=3e-3",
    "model.dtype=float32",
    "checkpoint.every_steps=25",
    "held_out.every_steps=25",
    "log.every_steps=10",
    "log.tensorboard=False",
    f"data.rows={rows}",
  )
  result = command(
    "pretrain",
    f"--config=imported:{root / 'run'},batch_rows=16",
    f"--workdir={root / 'run'}",
    *(f"--config.{setting}" for setting in settings),
    devices=jax.device_count(),
  )
  assert result.returncode == 0, result.stderr[-3000:]
  return root


@pytest.fixture(scope="module")
def exported(continued):
  """The last checkpoint of that run as a Hugging Face folder."""
  to_hf(Workdir(continued / "run"), "latest", continued / "out")
  return continued / "out"


def our_loss(model, params, batch):
  h = model.apply({"params": params}, batch["ids"], batch["positions"])
  nll = losses.nll(h, params["token_embedding"], params["head_bias"], batch["labels"], batch["weights"],
                   vocabulary_size=model.encoder.vocabulary_size)  # fmt: skip
  return float((nll * batch["weights"]).sum() / batch["weights"].sum())


@pytest.mark.slow
def test_training_begins_with_the_imported_weights_and_lowers_the_loss(continued):
  lines = read_held_out(Workdir(continued / "run"))
  assert [line["step"] for line in lines] == [0, 25, 50]
  assert lines[-1]["mean_loss"] < lines[0]["mean_loss"] - 0.1
  scored = score(continued / "run", continued / "rows", "initial", passes=1, split="held_out")["languages"]
  assert np.mean([values["loss"] for values in scored.values()]) == pytest.approx(lines[0]["mean_loss"], rel=1e-6)
  first, folder = (opened(path, "initial")[1] for path in (continued / "run", continued / "source"))
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(folder), strict=True))
  record = read_record(Workdir(continued / "run"))
  assert record.imported == str(continued / "source") and record.rows_fingerprint and record.config["batch_rows"] == 16


@pytest.mark.slow
def test_loss_after_continued_pretraining_is_that_of_transformers(continued, exported):
  torch = pytest.importorskip("torch")
  theirs = theirs_of(exported)
  batch = tiny.batch(np.random.default_rng(5), 8)
  labels = np.full(batch["ids"].shape, -100)
  for row, (positions, pieces, weights) in enumerate(zip(batch["positions"], batch["labels"], batch["weights"])):
    labels[row, positions[weights > 0]] = pieces[weights > 0]
  loss = run_theirs(theirs, batch["ids"], labels=torch.tensor(labels)).loss.item()
  ours = our_loss(*opened(continued / "run"), batch)
  assert abs(ours - loss) < 1e-3, (ours, loss)
  before = our_loss(*opened(continued / "run", "initial"), batch)
  assert abs(before - ours) > 0.01  # it is not what was imported
  found, source = hf.read_tensors(exported), hf.read_tensors(continued / "source")
  assert found[names.TYPE_TABLE].tobytes() == source[names.TYPE_TABLE].tobytes()
  assert not np.array_equal(found[names.POSITION_TABLE], source[names.POSITION_TABLE])


@pytest.mark.slow
def test_the_card_tells_of_the_run(continued, exported, tmp_path):
  card = (exported / "README.md").read_text()
  for text in (
    "pipeline_tag: fill-mask",
    "| aa |",
    "share of the rows seen",
    "## Training curve",
    "| 25 |",
    "bits per byte",
    '"peak_lr": 0.003',
    "imported as they were",
    "step 50",
    "50 updates of 16 rows of 32 tokens",
  ):
    assert text in card, text
  assert str(continued) not in card
  assert (exported / "training_curve.png").read_bytes()[:4] == b"\x89PNG"
  to_hf(Workdir(continued / "run"), "25", tmp_path / "half")
  assert "| 50 |" not in (tmp_path / "half" / "README.md").read_text()


def train(config, workdir, store, stop=None, initial=None):
  """A run in this process. stop: the call of Preemption.stop() after which it is told to."""
  workdir.root.mkdir(exist_ok=True)
  return loop.run(preparation.prepare(config, store), workdir, tiny.StopAt(stop), initial)


@pytest.mark.slow
def test_the_best_checkpoint_of_a_run_of_our_own(continued, tmp_path):
  """Drawn from the seed, documents isolated, evaluated: nothing was imported, and it comes out and in again."""
  rows = continued / "rows"
  store, config = RowStore(rows), tiny.config(rows, model__isolate_documents=True, model__init_std=0.2)
  run = Workdir(tmp_path / "run")
  train(config, run, store)
  run.tokenizer.write_bytes(hf.vocabulary())
  RunRecord(
    config=config.to_dict(), vocabulary_size=tiny.VOCABULARY, tokenizer_sha256=store.manifest["tokenizer_sha256"],
    seq_len=tiny.SEQ_LEN, rows_fingerprint=store.fingerprint, languages=store.languages, rows=str(rows),
  ).write(run)  # fmt: skip
  run.evaluations.mkdir()
  scores = {"panx": {"sw": {"span_f1": [0.5, 0.7]}}}
  write_json(run.evaluation(8), {"step": 8, "score": 0.6, "scores": scores})
  keep_best(run, 8)
  assert to_hf(run, "best", tmp_path / "out")["step"] == 8
  card = (tmp_path / "out" / "README.md").read_text()
  assert "panx, dev, while it was trained" in card and "| sw | 0.6000 |" in card and "did not see each other" in card
  model, params = opened(run.root, "best")
  ids = rows_of(np.random.default_rng(3), 24)
  ours = jax.jit(functools.partial(model.apply, method="logits"))({"params": params}, ids)
  from_hf(tmp_path / "out", Workdir(tmp_path / "again"))
  model, again = opened(tmp_path / "again")
  assert model.encoder.isolate_documents
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True))
  theirs = run_theirs(theirs_of(tmp_path / "out"), ids).logits.numpy()
  np.testing.assert_allclose(np.asarray(ours)[ids != 1], theirs[ids != 1], atol=1e-4)


def test_an_imported_run_refuses_other_models_and_rows(tmp_path):
  run = Workdir(tmp_path / "run")
  from_hf(hf.make_folder(tmp_path / "source"), run)
  before = read_record(run)
  with pytest.raises(UserError, match=r"config.model.layers=3, but .*source.* has 2; use --config=imported:"):
    refuse_other_run(run, dataclasses.replace(before, config=tiny.config(model__layers=3).to_dict()))
  for key, value in (("layer_norm_epsilon", 1e-3), ("pair_types", False)):
    config = before.config | {"model": before.config["model"] | {key: value}}
    with pytest.raises(UserError, match=rf"config.model.{key}={value}, but .* use --config=imported:"):
      refuse_other_run(run, dataclasses.replace(before, config=config))
  with pytest.raises(UserError, match=r"ROWS was made with another vocabulary .* --tokenizer=.*tokenizer.model"):
    refuse_other_run(run, dataclasses.replace(before, tokenizer_sha256="f" * 64, rows="ROWS"))
  result = command("pretrain", "--config=smoke:runlocal", f"--workdir={tmp_path / 'source'}")
  assert result.returncode == 1
  assert "is a Hugging Face folder; make a run of it: xlmr convert from-hf" in result.stderr


def test_the_config_of_an_imported_run(tmp_path):
  source = hf.make_folder(tmp_path / "source")
  from_hf(source, Workdir(tmp_path / "run"))
  config = load_config("imported", f"{tmp_path / 'run'},batch_rows=32,optimizer.peak_lr=2e-4")
  assert (config.model.ffn, config.model.max_positions, config.model.dropout) == (32, tiny.SEQ_LEN + 2, 0.0)
  assert (config.batch_rows, config.optimizer.peak_lr, config.train_steps) == (32, 2e-4, 10_000)
  with pytest.raises(ValueError, match="takes the folder of an imported run"):
    load_config("imported")
  with pytest.raises(ValueError, match="there is no such key"):
    load_config("imported", f"{tmp_path / 'run'},batch_row=32")
  record = dataclasses.replace(read_record(Workdir(tmp_path / "run")), imported=None)
  record.write(Workdir(tmp_path / "run"))
  with pytest.raises(ValueError, match="was not imported; make it with `xlmr convert from-hf`"):
    load_config("imported", str(tmp_path / "run"))


@pytest.mark.slow
def test_a_resumed_import_is_bit_for_bit_the_unbroken_one(continued, tmp_path):
  """Killed before its first checkpoint it begins with the imported weights again; then it resumes as any run."""
  run, unbroken = Workdir(tmp_path / "run"), Workdir(continued / "run")
  from_hf(continued / "source", run)
  config, store = override_config(read_record(unbroken).config, []), RowStore(continued / "rows")
  for stop in (9, 70, None):
    train(config, run, store, stop, initial=lambda abstract: load_initial(run, abstract))
  manifests = [read_manifest(workdir.checkpoints / "50") for workdir in (run, unbroken)]
  assert manifests[0]["leaves"] == manifests[1]["leaves"]
  a, b = (jax.tree.leaves(opened(workdir.root)[1]) for workdir in (run, unbroken))
  assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# --- fine-tuned heads ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
  """A folder with a few examples of a task of each kind."""
  root = tmp_path_factory.mktemp("labelled")
  rng = np.random.default_rng(0)

  def text():
    return " ".join(rng.choice(hf.WORDS, 6))

  for name in HEADS:
    (root / name).mkdir()
  for split in ("train", "dev"):
    (root / "sst2" / f"{split}.tsv").write_text("".join(f"{i % 2}\t{text()}\n" for i in range(16)))
    (root / "stsb" / f"{split}.tsv").write_text("".join(f"{i % 5}.5\t{text()}\t{text()}\n" for i in range(16)))
    tags = "O", "B-LOC", "I-LOC", "O", "B-PER", "O"
    (root / "panx" / f"en.{split}").write_text(
      "\n".join("".join(f"{word}\t{tag}\n" for word, tag in zip(text().split(), tags)) for _ in range(16))
    )
    answers = [{"text": "hut", "answer_start": 8}]
    questions = [{"id": f"{split}{i}", "question": "the cat", "answers": answers} for i in range(4)]
    paragraph = {"context": "the cat hut of stone sees", "qas": questions}
    (root / "squad" / f"{split}-v1.1.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
  return root


@pytest.mark.parametrize("task", [HEADS[0], *(pytest.param(task, marks=pytest.mark.slow) for task in HEADS[1:])])
def test_a_fine_tuned_head_in_transformers(task, labelled, tmp_path, monkeypatch):
  known = registry.get(task)
  short = dataclasses.replace(known.recipe, max_steps=3, batch=8, lr=1e-3, max_len=32, max_question=8)
  monkeypatch.setitem(registry.TASKS, task, dataclasses.replace(known, recipe=short))
  if task != HEADS[0]:  # The first runs on all devices, although a folder is read to one of them.
    one = sharding.make_mesh(1, 1, jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda: one)
  source = hf.make_folder(tmp_path / "source")
  tuned = {}
  fine_tune = export.fine_tune

  def with_a_loud_head(*args):  # Three steps leave logits near zero, where all models are alike.
    found, rng = fine_tune(*args), np.random.default_rng(7)
    loud = jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.5, x.shape).astype(np.float32), found.params["head"])
    return tuned.setdefault("it", found._replace(params=found.params | {"head": loud}))

  monkeypatch.setattr(export, "fine_tune", with_a_loud_head)
  overrides = [f"--config.evaluate.folder={labelled}", "--config.evaluate.languages=en"]
  config = override_config(open_record(source).config, overrides)
  result = to_hf(Workdir(source), "latest", tmp_path / "out", task=task, config=config)
  model_of_task = tuned["it"]
  assert set(result["scores"]["en"]) == set(known.metrics)
  written = hf.read_tensors(tmp_path / "out")
  assert not any(name.startswith(("lm_head", "roberta.pooler")) for name in written)
  word_table = names.NAMES["xlmr"].word_table
  assert np.abs(written[word_table] - hf.tensors()[word_table]).max() > 1e-4
  card = (tmp_path / "out" / "README.md").read_text()
  assert f"Fine-tuned on {task} in en" in card and known.metrics[0] in card
  theirs = theirs_of(tmp_path / "out", names.HEADS[known.head][1])
  assert type(theirs).__name__ == f"XLMRobertaFor{names.HEADS[known.head][1]}"
  if known.labels:
    assert theirs.config.id2label == dict(enumerate(known.labels))
    assert theirs.config.label2id == {label: i for i, label in enumerate(known.labels)}
  ids = rows_of(np.random.default_rng(1), 32)
  output = run_theirs(theirs, ids)
  model, _ = opened(source)
  x = model.apply({"params": model_of_task.params["encoder"]}, ids, method="encode")
  ours = np.asarray(task_head(model_of_task.task, 0.0).apply({"params": model_of_task.params["head"]}, x))
  if known.head == SPAN:
    logits = np.stack([output.start_logits.numpy(), output.end_logits.numpy()], axis=-1)
  else:
    logits = output.logits.numpy()
  difference = np.abs(ours - logits)
  assert (difference[ids != 1] if known.head != SENTENCE else difference).max() < 1e-4
  assert np.abs(logits).max() > 0.3


@pytest.mark.slow
def test_evaluate_takes_a_hugging_face_folder(labelled, tmp_path):
  source = hf.make_folder(tmp_path / "source")
  result = command("evaluate", f"--workdir={source}", "--tasks=sst2", f"--config.evaluate.folder={labelled}", "--split=dev",
                   f"--out={tmp_path / 'scores.json'}")  # fmt: skip
  assert result.returncode == 0, result.stderr
  last = json.loads(result.stdout.splitlines()[-1])
  assert last["step"] == 0 and 0 <= last["means"]["sst2"]["zero_shot"] <= 1
  result = command("evaluate", f"--workdir={source}", "--tasks=sst2", "--once")
  assert result.returncode == 1 and "is a Hugging Face folder and holds one model" in result.stderr


@pytest.mark.parametrize(
  "args, message",
  [
    ([], "say from-hf or to-hf"),
    (["from-hf", "--workdir=X"], "from-hf needs --source=DIR"),
    (["to-hf", "--workdir=X"], "to-hf needs --out=DIR"),
    (["from-hf", "--source=A", "--workdir=B", "C"], "unexpected argument 'C'"),
    (["from-hf", "--source=/nowhere", "--workdir=B"], "/nowhere: no such folder"),
    (["to-hf", "--workdir=/nowhere", "--out=B"], "neither the workdir of a run nor a Hugging Face folder"),
  ],
)
def test_the_command_refuses_in_one_line(args, message):
  result = command("convert", *args)
  assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.slow
def test_a_checkpoint_that_is_not_there_is_named(continued, tmp_path):
  with pytest.raises(UserError, match=r"checkpoint 7: .* has 25, 50, latest, initial"):
    to_hf(Workdir(continued / "run"), "7", tmp_path / "out")
  with pytest.raises(UserError, match="there is no best checkpoint in"):
    to_hf(Workdir(continued / "run"), "best", tmp_path / "out")
  assert not (tmp_path / "out").exists()
