"""The table that sets a model's scores beside the paper's."""

from xlmr_jax.config import SETTINGS
from xlmr_jax.evaluation import paper_table as paper
from xlmr_jax.evaluation.tasks import registry


def test_means_and_deviations_stand_beside_the_papers():
  scores = {
    "mlqa": {"zero_shot": {"de": {"mlqa_f1": [0.5, 0.6]}, "en": {"mlqa_f1": [0.7, 0.7]}}},
    "panx": {"zero_shot": {"sw": {"span_f1": [0.25]}}},
  }
  lines = [line.split() for line in paper.table(scores, "ours").splitlines()]
  assert lines[:5] == [
    ["mlqa,", "zero_shot,", "mlqa_f1"],
    ["en", "de", "mean"],
    ["ours", "70.0±0.0", "55.0±7.1", "62.5±3.5"],
    ["XLM-R", "Base", "77.1", "60.9", "69.0"],
    ["XLM-R", "Large", "80.6", "68.5", "74.5"],
  ]
  assert lines[5:] == [[], ["panx,", "zero_shot,", "span_f1"], ["sw", "mean"], ["ours", "25.0", "25.0"]]


def test_a_score_that_was_not_finite_leaves_its_cells_open():
  text = paper.table({"panx": {"zero_shot": {"sw": {"span_f1": [None]}, "en": {"span_f1": [0.5]}}}}, "ours")
  assert text.splitlines()[-1].split() == ["ours", "-", "50.0", "-"]


def test_the_published_rows_have_the_published_means():
  def mean(*row):
    return round(sum(paper.PUBLISHED[row]["accuracy"].values()) / 15, 1)

  assert mean("xnli", "zero_shot", "XLM-R Base") == 76.2 and mean("xnli", "zero_shot", "XLM-R Large") == 80.9
  assert mean("xnli", "translate_train_all", "XLM-R Base") == 79.1
  assert mean("xnli", "translate_train_all", "XLM-R Large") == 83.6


def test_published_rows_are_of_metrics_and_languages_that_the_tasks_have():
  for (name, setting, model), rows in paper.PUBLISHED.items():
    task = registry.get(name)
    assert setting in SETTINGS and model.startswith("XLM-R")
    assert set(rows) <= set(task.metrics), name
    assert all(set(row) <= set(task.languages) for row in rows.values())
