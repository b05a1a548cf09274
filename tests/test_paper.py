"""The table that sets a model's scores beside the paper's."""

import statistics

from xlmr_jax.config import SETTINGS
from xlmr_jax.evaluation import paper_table as paper
from xlmr_jax.evaluation.tasks import registry


def test_means_and_deviations_stand_beside_the_papers():
  scores = {
    "mlqa": {"zero_shot": {"de": {"mlqa_f1": [0.5, 0.6]}, "en": {"mlqa_f1": [0.7, 0.7]}}},
    "panx": {"zero_shot": {"sw": {"span_f1": [0.25]}}},
  }
  lines = [line.split() for line in paper.table({"ours": scores}).splitlines()]
  assert lines[:7] == [
    ["mlqa,", "zero_shot,", "mlqa_f1"],
    ["en", "de", "mean"],
    ["ours", "70.0±0.0", "55.0±7.1", "62.5±3.5"],
    ["XLM-R", "Base", "77.1", "60.9", "69.0"],
    ["XLM-R", "Large", "80.6", "68.5", "74.5"],
    ["mBERT", "77.7", "57.9", "67.8"],
    ["XLM-15", "74.9", "62.2", "68.6"],
  ]
  assert lines[7:] == [[], ["panx,", "zero_shot,", "span_f1"], ["sw", "mean"], ["ours", "25.0", "25.0"]]


def test_a_score_that_was_not_finite_leaves_its_cells_open():
  text = paper.table({"ours": {"panx": {"zero_shot": {"sw": {"span_f1": [None]}, "en": {"span_f1": [0.5]}}}}})
  assert text.splitlines()[-1].split() == ["ours", "-", "50.0", "-"]


def test_the_published_rows_have_the_published_means():
  def mean(*row):
    return round(statistics.fmean(paper.PUBLISHED[row]["accuracy"].values()), 1)

  assert mean("xnli", "zero_shot", "XLM-R Base") == 76.2 and mean("xnli", "zero_shot", "XLM-R Large") == 80.9
  assert mean("xnli", "translate_train_all", "XLM-R Base") == 79.1
  assert mean("xnli", "translate_train_all", "XLM-R Large") == 83.6
  assert mean("xnli", "zero_shot", "XLM, N models") == 75.1 and mean("xnli", "zero_shot", "mBERT, N models") == 66.3
  # The paper has the means of XLM-100's two zero-shot rows exchanged: it prints 70.7 here.
  assert mean("xnli", "zero_shot", "XLM-100") == 71.3 and mean("xnli", "translate_train", "XLM-100") == 74.2
  assert mean("xnli", "translate_train_all", "XLM") == 77.8 and mean("xnli", "translate_train_all", "XLM-100") == 76.9
  assert (
    mean("xnli", "translate_train", "BERTs, Wikipedia") == 73.4 and mean("xnli", "translate_train", "BERTs, crawl") == 77.5
  )
  assert mean("xnli", "zero_shot", "XLM-7, Wikipedia") == 71.8 and mean("xnli", "zero_shot", "XLM-7, crawl") == 76.2
  assert mean("xnli", "translate_train_all", "XLM-7, Wikipedia") == 76.3
  assert mean("xnli", "translate_train_all", "XLM-7, crawl") == 80.0


def test_published_rows_are_of_metrics_and_languages_that_the_tasks_have():
  for (name, setting, model), rows in paper.PUBLISHED.items():
    task = registry.get(name)
    assert setting in SETTINGS and model
    assert set(rows) <= set(task.metrics), name
    assert all(set(row) <= set(task.languages) for row in rows.values())


def test_the_papers_figures_are_of_the_same_split_or_say_of_which():
  def rows(task, metric, split):
    lines = paper.table({"ours": {task: {"zero_shot": {"en": {metric: [0.5]}}}}}, split=split).splitlines()
    return lines[0], [line.rsplit(maxsplit=2)[:2] for line in lines[2:]]

  assert rows("mnli", "accuracy", "dev") == (
    "mnli, zero_shot, accuracy, dev_matched", [["ours", "50.0"], ["XLM-R Large", "88.9"]])  # fmt: skip
  assert rows("mnli", "accuracy", "test") == (
    "mnli, zero_shot, accuracy, dev_mismatched", [["ours", "50.0"], ["XLM-R Large", "89.0"]])  # fmt: skip
  assert rows("qnli", "accuracy", "test") == (
    "qnli, zero_shot, accuracy, dev", [["ours", "50.0"], ["XLM-R Large", "93.8"]])  # fmt: skip
  assert rows("mrpc", "accuracy", "test") == (
    "mrpc, zero_shot, accuracy", [["ours", "50.0"], ["XLM-R Large, dev", "89.5"]])  # fmt: skip
  title, found = rows("xnli", "accuracy", "dev")
  assert title == "xnli, zero_shot, accuracy, dev" and found[1] == ["XLM-R Base, test", "85.8"]


def test_several_models_share_a_table_and_what_one_lacks_is_open():
  ours = {"xnli": {"zero_shot": {"en": {"accuracy": [0.8]}, "sw": {"accuracy": [0.6]}}}}
  theirs = {"xnli": {"zero_shot": {"en": {"accuracy": [0.7]}}}, "panx": {"zero_shot": {"sw": {"span_f1": [0.5]}}}}
  lines = [line.split() for line in paper.table({"ours": ours, "theirs": theirs}).splitlines()]
  assert lines[1:4] == [["en", "sw", "mean"], ["ours", "80.0", "60.0", "70.0"], ["theirs", "70.0", "-", "-"]]
  assert ["XLM,", "N", "models", "85.0", "68.4", "76.7"] in lines and [
    "mBERT,",
    "N",
    "models",
    "82.1",
    "50.4",
    "66.2",
  ] in lines
  assert lines[-3:] == [["panx,", "zero_shot,", "span_f1"], ["sw", "mean"], ["theirs", "50.0", "50.0"]]
  copied = paper.table({"ours": ours, "theirs": theirs}, markdown=True).splitlines()
  assert copied[0] == "| xnli, zero_shot, accuracy | en | sw | mean |" and copied[1] == "|---|---|---|---|"
  assert copied[2:4] == ["| ours | 80.0 | 60.0 | 70.0 |", "| theirs | 70.0 | - | - |"]
