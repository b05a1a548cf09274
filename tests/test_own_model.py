"""The evaluator with a model and data of one's own: one bad task never ends it, and what is missing is said."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import hugging_face, tiny
from tests.test_evaluate import Fake, config_of, follow, ledger, saved, workdir  # noqa: F401  The last two are fixtures.
from tests.test_task_files import Letters
from xlmr_jax.commands import evaluate
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import finetune
from xlmr_jax.evaluation.follower import seeds_of
from xlmr_jax.evaluation.ledger import Entry
from xlmr_jax.evaluation.scorer import Scorer
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.evaluation.tasks.registry import Recipe, Task, Text
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.run.workdir import RunRecord, Workdir

ROOT = Path(__file__).parents[1]


def reader(folder, task, language, split):
  """Reads folder/LANGUAGE.SPLIT, of lines `label;text`, as a careless user would."""
  lines = (Path(folder) / f"{language}.{split}").read_text(encoding="utf-8").splitlines()
  return [
    Text(text.encode().decode("unicode_escape"), "", int(label)) for label, text in (line.split(";") for line in lines)
  ]


@pytest.fixture
def tasks(monkeypatch, tmp_path):
  """Two tasks of one's own in three languages, whose training is not done: it trains nothing and scores 0.5."""
  recipe = Recipe(lr=1e-3, batch=8, epochs=1, max_len=16)
  for name in ("first", "second"):
    task = Task(name, "sentence", ("a", "b"), ("accuracy",), ("en", "de", "sw"), recipe, reader)
    monkeypatch.setitem(registry.TASKS, name, task)
    for language, splits in (("en", ("train", "dev")), ("de", ("dev",)), ("sw", ("dev",))):
      for split in splits:
        file = tmp_path / name / f"{language}.{split}"
        file.parent.mkdir(exist_ok=True)
        file.write_text("0;a text\n1;b text\n")
  trained = []
  monkeypatch.setattr(finetune.Finetuner, "train", lambda self, params, arrays, seed, what="": (trained.append(what), 0.25))
  monkeypatch.setattr(finetune.Finetuner, "score", lambda self, trained, examples, arrays, language: {"accuracy": 0.5})
  return tmp_path, trained


def scorer_of(folder, **changes):
  config = tiny.config("rows", evaluate__tasks=("first", "second"), evaluate__folder=str(folder))
  for name, value in changes.items():
    config.evaluate[name] = value
  return Scorer(config, tiny.VOCABULARY, Letters())


def test_it_scores_what_is_there_and_says_what_is_not(tasks, capsys):
  folder, trained = tasks
  (folder / "first" / "de.dev").unlink()
  scorer = scorer_of(folder)
  for step in (4, 8):
    scores, errors = scorer({}, step)
    assert errors == {} and set(scores["first"]) == {"en", "sw"} and set(scores["second"]) == {"en", "de", "sw"}
  said = [line for line in capsys.readouterr().err.splitlines() if "not scored" in line]
  assert len(said) == 1 and "first: 1 of 3 languages are not scored, because they have no files: de" in said[0]
  assert "--config.evaluate.languages=en,sw" in said[0] and scorer.losses == {"first": 0.25, "second": 0.25}
  assert scorer.missing == {"first": {"de": scorer.missing["first"]["de"]}, "second": {}} and len(trained) == 4


def test_per_language_it_leaves_out_what_cannot_be_trained(tasks):
  scorer = scorer_of(tasks[0], setting="per_language")
  assert scorer.plan("first") == [(("en",), ("en",))] and set(scorer.missing["first"]) == {"de", "sw"}


@pytest.mark.parametrize(
  "content, message",
  [
    ("0;half \\ud83d\n", r"first, dev in de \(.*/first\): UnicodeEncodeError"),
    ("zero;text\n", r"first, dev in de \(.*/first\): ValueError: invalid literal"),
    ("2;text\n", "first, example 0: label 2; it must be an index into the 2 labels"),
    ("0;a\n1\n", r"first, dev in de \(.*/first\): ValueError: not enough values"),
    (b"0;caf\xe9\n", r"first, dev in de \(.*/first\): UnicodeDecodeError"),
    ("", r"first, dev in de \(.*/first\): no examples"),
  ],
)
def test_one_bad_task_does_not_end_the_others(tasks, content, message, monkeypatch):
  folder, trained = tasks
  # SentencePiece, unlike the stand-in, cannot take what UTF-8 cannot hold.
  encode = Letters.encode_lines
  monkeypatch.setattr(Letters, "encode_lines", lambda self, lines: encode(self, [line.encode().decode() for line in lines]))
  (folder / "first" / "de.dev").write_bytes(content if isinstance(content, bytes) else content.encode())
  scores, errors = scorer_of(folder)({}, 4)
  assert set(scores) == {"second"} and list(errors) == ["first"]
  assert re.search(message, errors["first"]), errors
  assert "\n" not in errors["first"] and all(what.startswith("second") for what in trained)  # found before the training
  assert errors["first"].encode()


def test_the_losses_of_all_fine_tunings_are_kept(tasks, monkeypatch):
  """Where each language has its own, one that has none must not hide behind the last."""
  folder, _ = tasks
  for language in ("de", "sw"):
    (folder / "first" / f"{language}.train").write_text("0;a text\n1;b text\n")
  losses = iter([0.1, 0.2, 0.6, 0.1, np.nan, 0.6])
  monkeypatch.setattr(finetune.Finetuner, "train", lambda self, params, arrays, seed, what="": ({}, next(losses)))
  scorer = scorer_of(folder, setting="per_language", tasks=("first",))
  scorer({}, 4)
  assert scorer.losses == {"first": pytest.approx(0.3)}
  scorer({}, 8)
  assert np.isnan(scorer.losses["first"])


def test_translations_are_scored_by_the_rules_of_their_own_language(tasks, monkeypatch):
  """An answer's articles are those of English, and not of the language that it was translated from."""
  folder, _ = tasks
  for language in ("en", "de", "sw"):
    (folder / "first" / f"{language}.dev_translated").write_text("0;a text\n1;b text\n")
  spoken = []
  monkeypatch.setattr(
    finetune.Finetuner,
    "score",
    lambda self, trained, examples, arrays, language: spoken.append(language) or {"accuracy": 1.0},
  )
  scores, _ = scorer_of(folder, setting="translate_test", tasks=("first",))({}, 4)
  assert set(scores["first"]) == {"en", "de", "sw"} and spoken == ["en"] * 3


def test_a_folder_without_any_language_fails_as_a_whole(tasks):
  folder, _ = tasks
  for file in (folder / "first").iterdir():
    file.unlink()
  (folder / "second" / "en.train").unlink()
  scores, errors = scorer_of(folder)({}, 4)
  assert scores == {} and "first, dev in en" in errors["first"] and "en.train" in errors["second"]


def test_a_task_that_does_not_fit_the_device_fails_alone(tasks, monkeypatch):
  def train(self, params, arrays, seed, what=""):
    if self.task.name == "first":
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    return {}, 0.1

  monkeypatch.setattr(finetune.Finetuner, "train", train)
  scores, errors = scorer_of(tasks[0])({}, 4)
  assert set(scores) == {"second"} and "first" in errors and "out of memory" in errors["first"]

  def broken(self, *_, **__):
    raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

  monkeypatch.setattr(finetune.Finetuner, "train", broken)
  with pytest.raises(jax.errors.JaxRuntimeError):  # This is the machine's fault; the step is evaluated at the next start.
    scorer_of(tasks[0])({}, 4)


def test_languages_are_named_before_anything_is_read(tasks):
  with pytest.raises(UserError, match="no task of first, second has a language 'xx'; they have de, en, sw"):
    scorer_of(tasks[0], languages=("en", "xx"))
  with pytest.raises(UserError, match="first has none of them"):
    scorer_of(tasks[0], languages=("xx",))


def test_precision_is_the_models_unless_it_is_asked_for(tasks):
  for asked, found in (("", "float32"), ("bfloat16", "bfloat16")):  # tiny.config() is in float32.
    scorer = scorer_of(tasks[0], dtype=asked)
    assert scorer.recipe()["first"]["dtype"] == found
    assert scorer.finetuners["first"]._model_for(16).encoder.dtype == np.dtype(found)


@pytest.mark.parametrize("source, found", [("float32", "float32"), ("float16", "bfloat16"), ("bfloat16", "bfloat16")])
def test_a_hugging_face_folder_is_fine_tuned_in_what_it_was_stored_in(tmp_path, source, found, monkeypatch):
  open_model = importlib.import_module("xlmr_jax.open_model")  # The package has a function of this name.
  folder = hugging_face.make_folder(tmp_path / "model")
  record = open_model.open_record(folder)
  sound = open_model.source_of(Workdir(folder), record)
  if source != "float32":
    import ml_dtypes  # noqa: F401  It registers bfloat16.

    tensors = {name: tensor._replace(dtype=np.dtype(source)) for name, tensor in sound.tensors.items()}
    monkeypatch.setattr(open_model, "source_of", lambda *_: sound._replace(tensors=tensors))
  assert evaluate.imported_dtype(Workdir(folder), record) == found


def test_seeds_are_as_many_or_as_named(workdir):  # noqa: F811
  assert seeds_of(config_of(evaluate__seeds=3)) == (0, 1, 2)
  config = config_of(evaluate__seed_list=("3", "7"), train_steps=4)
  assert seeds_of(config) == (3, 7)
  follow(workdir, config, Fake({4: 0.5}), once=True)
  assert ledger(workdir)[0]["scores"]["t"]["xx"]["acc"] == [3.5, 7.5]


# --- following a run -----------------------------------------------------------------------------------------------


class Own(Fake):
  """A Fake that lacks the files of language yy at some steps, or fails at some."""

  def __init__(self, lacking=(), failing=()):
    super().__init__()
    self.lacking, self.failing, self.missing = lacking, failing, {}

  def __call__(self, params, step, seed):
    super().__call__(params, step, seed)
    self.losses = {"t": float("nan") if step == 8 else 0.5}
    self.missing = {"t": {"yy": "no file"} if step in self.lacking else {}}
    if step in self.failing:
      return {}, {"t": "dev.tsv:3: no"}
    return {"t": {name: {"acc": 0.5} for name in ("xx", "yy") if name not in self.missing["t"]}}, {}


def test_a_mean_over_fewer_languages_is_no_score(workdir, capsys):  # noqa: F811
  follow(workdir, config_of(), Own(lacking=(4, 12)))
  entries = {entry["step"]: entry for entry in ledger(workdir)}
  assert entries[4]["score"] == 0.5 and entries[4]["missing"] == {"t": ["yy"]}
  assert entries[8]["score"] == 0.5 and "t: yy was not scored at earlier steps" in capsys.readouterr().err
  assert entries[12]["score"] is None and "yy had files at earlier steps" in entries[12]["errors"]["t"]
  assert entries[16]["score"] == 0.5 and entries[8]["losses"] == {"t": [None]} and entries[4]["losses"] == {"t": [0.5]}


def test_a_failed_task_counts_for_its_checkpoint_and_is_told_at_the_end(workdir):  # noqa: F811
  scorer = Own(failing=(8,))
  for steps in ([4, 8, 12, 16, 20], [4, 8, 12, 16, 20]):  # The second time nothing is left to do, and nothing is mended.
    with pytest.raises(UserError, match=r"t could not be scored at step 8; .*evaluations has the reasons; mend the data"):
      follow(workdir, config_of(), scorer, once=True)
    assert scorer.steps == steps
  entries = ledger(workdir)
  assert [entry["score"] for entry in entries] == [0.5, None, 0.5, 0.5, 0.5]
  assert entries[1]["errors"] == {"t": "dev.tsv:3: no"}
  workdir.evaluation(8).unlink()  # as the message says
  assert follow(workdir, config_of(), Own(), once=True) == 0


def test_a_failure_that_cannot_be_mended_is_told_once(workdir):  # noqa: F811
  """The checkpoint is gone, and later ones were scored."""
  follow(workdir, config_of(), Own(failing=(8,)))
  shutil.rmtree(workdir.checkpoints / "8")
  assert follow(workdir, config_of(), Own(), once=True) == 0
  entry = json.loads(workdir.evaluation(20).read_text())
  Entry(20, scores=entry["scores"], metrics=entry["metrics"], errors={"u": "no"}).write(workdir)
  shutil.rmtree(workdir.checkpoints / "20")
  with pytest.raises(UserError, match="u could not be scored at step 20"):  # What the run ended with has no score.
    follow(workdir, config_of(), Own(), once=True)


def test_no_checkpoint_is_spent_on_data_that_are_not_there(workdir, tasks):  # noqa: F811
  folder, trained = tasks
  config = config_of(evaluate__tasks=("first", "second"))
  for name in config.evaluate.tasks:
    (folder / name).rename(folder / f"not_mounted_{name}")
  for once in (True, False):  # Where a checkpoint waits, and while one is waited for.
    with pytest.raises(
      UserError, match=r"the data of no task can be read, .*first: first, dev in en .*; second: .*; mend config"
    ):
      follow(workdir, config, scorer_of(folder), once=once)
    for step in workdir.checkpoints.iterdir():
      step.rename(workdir.root / step.name)
  assert ledger(workdir) == []
  for name in config.evaluate.tasks:
    (folder / f"not_mounted_{name}").rename(folder / name)
  for step in (4, 8):
    (workdir.root / str(step)).rename(workdir.checkpoints / str(step))
  assert follow(workdir, config, scorer_of(folder), once=True) == 0
  assert [entry["score"] for entry in ledger(workdir)] == [0.5, 0.5] and len(trained) == 4


def test_data_that_go_while_a_run_is_followed_spend_no_checkpoint(workdir):  # noqa: F811
  class Unmounted(Own):
    def __call__(self, params, step, seed):
      self.unread = {"t": "no such folder"} if step == 12 else {}
      return ({}, dict(self.unread)) if self.unread else super().__call__(params, step, seed)

  with pytest.raises(UserError, match=r"\(t: no such folder\); .* or the files; checkpoint 12 waits"):
    follow(workdir, config_of(), Unmounted())
  assert [entry["step"] for entry in ledger(workdir)] == [4, 8] and not list(workdir.pins.iterdir())


def test_one_task_without_data_leaves_the_others(workdir, tasks):  # noqa: F811
  folder, _ = tasks
  (folder / "first" / "en.train").unlink()
  scorer = scorer_of(folder)
  assert set(scorer.read_data()) == {"first"}
  follow(workdir, config_of(evaluate__tasks=("first", "second")), scorer)
  assert all(set(entry["scores"]) == {"second"} and "first" in entry["errors"] for entry in ledger(workdir))
  assert len(ledger(workdir)) == 5


def test_an_imported_model_is_waited_for_aloud(tmp_path, capsys, monkeypatch):
  run = Workdir(tmp_path)
  naps = iter([lambda: imported.write(run), lambda: None, lambda: trained.write(run)])
  imported = RunRecord(tiny.config("rows").to_dict(), 90, "", 32, imported="there")
  trained = RunRecord(tiny.config("rows").to_dict(), 90, "", 32, "a" * 64, imported="there")
  monkeypatch.setattr(evaluate.time, "sleep", lambda _: next(naps)())
  assert evaluate.wait_for_record(run).rows_fingerprint == "a" * 64
  first, second = capsys.readouterr().out.splitlines()
  assert first == f"waiting for training to begin in {run}"
  assert (
    second == f"{first}; it holds an imported model that has not been trained here yet, which --checkpoint=initial scores"
  )


def test_where_the_scores_of_a_table_go(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = hugging_face.make_folder(tmp_path / "models" / "mine")
  assert evaluate.default_out(Workdir(folder), "latest") == tmp_path / "mine.scores.json"
  run = tmp_path / "run"
  run.mkdir()
  assert evaluate.default_out(Workdir(run), "best") == run / "evaluations" / "final" / "best.json"
  (run / "evaluations").write_text("")
  with pytest.raises(UserError, match="evaluations"):
    evaluate.default_out(Workdir(run), "best")
  (tmp_path / "mine.scores.json").mkdir()
  with pytest.raises(UserError, match=r"mine\.scores\.json"):
    evaluate.default_out(Workdir(folder), "latest")


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_of_ones_own(tmp_path):
  model = hugging_face.make_folder(tmp_path / "model")
  files = sorted(model.iterdir())
  data = tmp_path / "data"
  for task, tsv in (("xnli", "p {}\th {}\tneutral\n"), ("cad_nli", "p\th\tmaybe\n")):
    (data / task).mkdir(parents=True)
    for name in ("train", "en.dev", "de.dev", "sw.dev") if task == "xnli" else ("xnli_dev/en",):
      (data / task / f"{name}.tsv").parent.mkdir(exist_ok=True)
      (data / task / f"{name}.tsv").write_text("".join(tsv.format(i, i) for i in range(24)))

  def run(*flags, folder=model):
    command = [sys.executable, "-m", "xlmr_jax", "evaluate", f"--workdir={folder}", f"--config.evaluate.folder={data}",
               "--config.evaluate.recipe=max_steps=2", *(() if "--once" in flags else ("--split=dev",)), *flags]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)

  result = run("--tasks=xnli", "--seeds=3,7", "--out=scores.json")
  assert result.returncode == 0, result.stderr
  told, written = json.loads(result.stdout.splitlines()[-1]), json.loads((tmp_path / "scores.json").read_text())
  assert told["failed"] == [] and told["file"] == str(tmp_path / "scores.json") and len(told["missing"]["xnli"]) == 12
  assert set(written["scores"]["xnli"]["zero_shot"]) == {"en", "de", "sw"} and written["seeds"] == ["3", "7"]
  assert written["recipe"]["xnli"]["dtype"] == "float32" and len(written["losses"]["xnli"]["zero_shot"]) == 2
  assert "xnli in en, seed 7: trained 2 steps on 24 rows, loss" in result.stderr
  assert "12 of 15 languages are not scored" in result.stderr
  result = run("--tasks=xnli,cad_nli", "--precision=bfloat16")
  assert result.returncode == 1 and "error: cad_nli could not be scored" in result.stderr.splitlines()[-1]
  written = json.loads((tmp_path / "model.scores.json").read_text())
  assert "xnli" in written["scores"] and "en.tsv:1: unknown label 'maybe'" in written["errors"]["cad_nli"]["zero_shot"]
  assert written["recipe"]["xnli"]["dtype"] == "bfloat16"
  for flags, message in (
    (("--tasks=xnli", "--config.evaluate.languages=en,xx"), "has a language 'xx'"),
    (("--tasks=xnli", "--out=nowhere/scores.json"), "nowhere"),
    (("--tasks=xnli", "--seeds=3,3"), "seed_list"),
    (("--tasks=xnli", "--seeds=many"), "seeds=many: not int"),
    (("--tasks=xnli", "--precision=half"), "precision"),
    (("--tasks=xnil",), "no task 'xnil'"),
  ):
    result = run(*flags)
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
  assert sorted(model.iterdir()) == files  # It is not ours to write in.
  imported = tmp_path / "imported"
  from_hf(model, Workdir(imported))
  result = run("--tasks=xnli", "--once", folder=imported)
  assert result.returncode == 1 and "imported model, which --checkpoint=initial scores" in result.stderr, result.stderr
  result = run("--tasks=xnli", "--checkpoint=initial", "--seeds=3,7", folder=imported)
  assert result.returncode == 0, result.stderr
  again = json.loads((imported / "evaluations" / "final" / "initial.json").read_text())
  first = json.loads((tmp_path / "scores.json").read_text())
  assert all(again[key] == first[key] for key in ("scores", "losses", "recipe", "missing"))  # in fp32, as the folder
