"""`xlmr report --scores`: the scores of several models as one table, and a word where they do not compare."""

import pytest

from xlmr_jax.errors import UserError
from xlmr_jax.files import write_sealed_json
from xlmr_jax.report.scores import differences, entries_of, read_scores

SCORES = {"xnli": {"zero_shot": {"en": {"accuracy": [0.5, 0.6]}, "sw": {"accuracy": [0.4, None]}}}}


def write(path, lr=1e-5, seeds=2, scores=SCORES):
  recipe = {"xnli": {"lr": lr, "setting": "zero_shot"}}
  write_sealed_json(path, {"model": "", "scores": scores, "split": "test", "seeds": seeds, "recipe": recipe})
  return path


def test_files_are_named_by_the_user_or_by_themselves(tmp_path):
  (tmp_path / "alpha=0.3").mkdir()
  ours, theirs = write(tmp_path / "a.json"), write(tmp_path / "alpha=0.3" / "mbert.scores.json")
  found = read_scores([f"ours={ours}", str(theirs)])
  assert list(found) == ["ours", "mbert"] and found["ours"]["scores"] == SCORES
  with pytest.raises(UserError, match="is named 'ours', as another one is"):
    read_scores([f"ours={ours}", f"ours={theirs}"])


def test_the_path_of_a_run_of_a_sweep_has_commas(tmp_path):
  (tmp_path / "system=xlm,seed=0").mkdir()
  ours, run = write(tmp_path / "a.json"), write(tmp_path / "system=xlm,seed=0" / "latest.json")
  assert entries_of([f"ours={ours},theirs={ours}", f"XLM={run}", str(run)]) == [
    f"ours={ours}", f"theirs={ours}", f"XLM={run}", str(run),
  ]  # fmt: skip
  assert list(read_scores(entries_of([f"ours={ours}", f"XLM={run}"]))) == ["ours", "XLM"]


def test_what_differs_between_two_evaluations_is_said(tmp_path):
  ours = write(tmp_path / "a.json")
  assert differences(read_scores([f"a={ours}", f"b={write(tmp_path / 'b.json')}"])) == []
  said = differences(read_scores([f"a={ours}", f"b={write(tmp_path / 'c.json', lr=2e-5, seeds=3)}"]))
  assert said == ["b and a do not compare: seeds 3 against 2", "b and a do not compare in xnli: lr 2e-05 against 1e-05"]


def test_models_without_the_first_ones_tasks_are_compared_with_each_other(tmp_path):
  """The first model of all, and what it does not say, must not keep the others from being compared."""
  mlqa = {"mlqa": SCORES["xnli"]}

  def content(scores, recipe, **more):
    return {"model": "", "scores": scores, "recipe": recipe, **more}

  found = {
    "a": content(SCORES, {"xnli": {"lr": 1}}),
    "b": content(mlqa, {"mlqa": {"lr": 1}}, split="test"),
    "c": content(mlqa, {"mlqa": {"lr": 2}}, split="dev"),
    "d": content({**SCORES, **mlqa}, {"xnli": {"lr": 1, "epochs": 3}, "mlqa": {"lr": 1}}, split="test"),
    "e": content(SCORES, {"xnli": {"lr": 1, "epochs": 5}, "mlqa": {"lr": 9}}),  # mlqa failed there.
  }
  assert differences(found) == [
    "c and b do not compare: split dev against test",
    "c and b do not compare in mlqa: lr 2 against 1",
    "e and d do not compare in xnli: epochs 5 against 3",
  ]


def test_what_holds_no_scores_is_refused_by_name(tmp_path):
  with pytest.raises(UserError, match=r"none\.json is missing; `xlmr evaluate --out="):
    read_scores([str(tmp_path / "none.json")])
  damaged = write(tmp_path / "damaged.json").read_text().replace("0.6", "0.7")
  (tmp_path / "damaged.json").write_text(damaged)
  for path in (
    tmp_path / "damaged.json",
    write(tmp_path / "x.json", scores={"xnli": {"zero_shot": {"en": {"accuracy": 0.5}}}}),
  ):
    with pytest.raises(UserError, match="is no file of scores"):
      read_scores([str(path)])
