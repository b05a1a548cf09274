"""The published scores of XLM-R and of what its paper compares it with, and the table that shows one's own beside them."""

import statistics
from collections.abc import Mapping, Sequence

from xlmr_jax.evaluation.tasks import registry

# Conneau et al. 2020 (arxiv.org/abs/1911.02116v2), tables 1 to 5, in percent: (task, setting, model) -> {metric: {language:
# score}}. "N models": the best checkpoint was chosen for each language, and not one for all. mBERT's NER is Wu and Dredze's.
_XNLI = ("en", "fr", "es", "de", "el", "bg", "ru", "tr", "ar", "vi", "th", "zh", "hi", "sw", "ur")
_NER, _MLQA = ("en", "nl", "es", "de"), ("en", "es", "de", "ar", "hi", "vi", "zh")
_SEVEN = ("en", "fr", "de", "ru", "zh", "sw", "ur")


def _row(languages: tuple[str, ...], figures: str) -> dict[str, float]:
  return dict(zip(languages, map(float, figures.split()), strict=True))


PUBLISHED: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {
  ("xnli", "zero_shot", "XLM-R Base"): {
    "accuracy": _row(_XNLI, "85.8 79.7 80.7 78.7 77.5 79.6 78.1 74.2 73.8 76.5 74.6 76.7 72.4 66.5 68.3")},
  ("xnli", "zero_shot", "XLM-R Large"): {
    "accuracy": _row(_XNLI, "89.1 84.1 85.1 83.9 82.9 84.0 81.2 79.6 79.8 80.8 78.1 80.2 76.9 73.9 73.8")},
  ("xnli", "translate_train_all", "XLM-R Base"): {
    "accuracy": _row(_XNLI, "85.4 81.4 82.2 80.3 80.4 81.3 79.7 78.6 77.3 79.7 77.9 80.2 76.1 73.1 73.0")},
  ("xnli", "translate_train_all", "XLM-R Large"): {
    "accuracy": _row(_XNLI, "89.1 85.1 86.6 85.7 85.3 85.9 83.5 83.2 83.1 83.7 81.5 83.7 81.6 78.0 78.1")},
  ("conll", "per_language", "XLM-R Base"): {"span_f1": _row(_NER, "92.25 90.39 87.99 84.60")},
  ("conll", "per_language", "XLM-R Large"): {"span_f1": _row(_NER, "92.92 92.53 89.72 85.81")},
  ("conll", "zero_shot", "XLM-R Base"): {"span_f1": _row(_NER, "92.25 78.08 76.53 69.60")},
  ("conll", "zero_shot", "XLM-R Large"): {"span_f1": _row(_NER, "92.92 80.80 78.64 71.40")},
  ("conll", "translate_train_all", "XLM-R Base"): {"span_f1": _row(_NER, "91.08 89.09 87.28 83.17")},
  ("conll", "translate_train_all", "XLM-R Large"): {"span_f1": _row(_NER, "92.00 91.60 89.52 84.60")},
  ("mlqa", "zero_shot", "XLM-R Base"): {"mlqa_f1": _row(_MLQA, "77.1 67.4 60.9 54.9 59.4 64.5 61.8"),
                                        "mlqa_exact_match": _row(_MLQA, "64.6 49.6 46.7 36.6 42.9 44.7 39.3")},
  ("mlqa", "zero_shot", "XLM-R Large"): {"mlqa_f1": _row(_MLQA, "80.6 74.1 68.5 63.1 69.2 71.3 68.0"),
                                         "mlqa_exact_match": _row(_MLQA, "67.8 56.0 53.6 43.5 51.6 50.9 45.4")},
  ("xnli", "zero_shot", "XLM, N models"): {
    "accuracy": _row(_XNLI, "85.0 78.7 78.9 77.8 76.6 77.4 75.3 72.5 73.1 76.1 73.2 76.5 69.6 68.4 67.3")},
  ("xnli", "zero_shot", "mBERT, N models"): {
    "accuracy": _row(_XNLI, "82.1 73.8 74.3 71.1 66.4 68.9 69.0 61.6 64.9 69.5 55.8 69.3 60.0 50.4 58.0")},
  ("xnli", "zero_shot", "XLM-100"): {
    "accuracy": _row(_XNLI, "83.2 76.7 77.7 74.0 72.7 74.1 72.7 68.7 68.6 72.9 68.9 72.5 65.6 58.2 62.4")},
  ("xnli", "translate_train", "XLM-100"): {
    "accuracy": _row(_XNLI, "82.9 77.6 77.9 77.9 77.1 75.7 75.5 72.6 71.2 75.8 73.1 76.2 70.4 66.5 62.4")},
  ("xnli", "translate_train_all", "XLM"): {
    "accuracy": _row(_XNLI, "85.0 80.8 81.3 80.3 79.1 80.9 78.3 75.6 77.6 78.5 76.0 79.5 72.9 72.8 68.5")},
  ("xnli", "translate_train_all", "XLM-100"): {
    "accuracy": _row(_XNLI, "84.5 80.1 81.3 79.3 78.6 79.4 77.5 75.2 75.6 78.3 75.7 78.3 72.1 69.2 67.7")},
  **{("xnli", setting, model): {"accuracy": _row(_SEVEN, figures)} for setting, model, figures in (
    ("translate_train", "BERTs, Wikipedia", "84.5 78.6 80.0 75.5 77.7 60.1 57.3"),
    ("translate_train", "BERTs, crawl", "86.7 81.2 81.2 78.2 79.5 70.8 65.1"),
    ("zero_shot", "XLM-7, Wikipedia", "82.3 76.8 74.7 72.5 73.1 60.8 62.3"),
    ("zero_shot", "XLM-7, crawl", "85.7 78.6 79.5 76.4 74.8 71.2 66.9"),
    ("translate_train_all", "XLM-7, Wikipedia", "84.6 80.1 80.2 75.7 78.0 68.7 66.7"),
    ("translate_train_all", "XLM-7, crawl", "87.2 82.5 82.9 79.7 80.4 75.7 71.5"))},
  ("conll", "per_language", "mBERT"): {"span_f1": _row(_NER, "91.97 90.94 87.38 82.82")},
  ("conll", "zero_shot", "mBERT"): {"span_f1": _row(_NER, "91.97 77.57 74.96 69.56")},
  ("mlqa", "zero_shot", "mBERT"): {"mlqa_f1": _row(_MLQA, "77.7 64.3 57.9 45.7 43.8 57.1 57.5"),
                                   "mlqa_exact_match": _row(_MLQA, "65.2 46.6 44.3 29.8 29.7 38.6 37.3")},
  ("mlqa", "zero_shot", "XLM-15"): {"mlqa_f1": _row(_MLQA, "74.9 68.0 62.2 54.8 48.8 61.4 61.1"),
                                    "mlqa_exact_match": _row(_MLQA, "62.4 49.8 47.6 36.3 27.3 41.8 39.6")},
  **{(task, "zero_shot", "XLM-R Large"): {metric: {"en": score}} for task, metric, score in (
    ("mnli", "accuracy", 88.9), ("qnli", "accuracy", 93.8), ("qqp", "accuracy", 92.3), ("sst2", "accuracy", 95.0),
    ("mrpc", "accuracy", 89.5), ("stsb", "pearson", 91.2))},
}  # fmt: skip

# The splits that the paper's figures are of, as registry.Task names them: test sets, but of GLUE, whose test sets have no
# labels, development sets. MNLI has two; PUBLISHED has the scores on the first.
PUBLISHED_ON = {"mnli": "dev_matched", **dict.fromkeys(("qnli", "qqp", "sst2", "mrpc", "stsb"), "dev")}
MISMATCHED: dict[str, dict[str, dict[str, float]]] = {"XLM-R Large": {"accuracy": {"en": 89.0}}}


Scores = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Sequence[float | None]]]]]
Cells = list[str]


def published(task: str, setting: str, split: str) -> dict[str, dict[str, dict[str, float]]]:
  """{the name of a row: {metric: {language: score}}} of the paper. split: of the scores that they stand beside.

  A figure of another split says so in the name of its row.
  """
  if (task, setting, split) == ("mnli", "zero_shot", "dev_mismatched"):
    return MISMATCHED
  on = PUBLISHED_ON.get(task, "test")
  return {
    name if on == split else f"{name}, {on}": rows for (*key, name), rows in PUBLISHED.items() if key == [task, setting]
  }


def table(models: Mapping[str, Scores], markdown: bool = False, split: str = "test") -> str:
  """Readable tables, one per task, setting and metric: a column per language, a row per model, and the paper's rows.

  models: {name: {task: {setting: {language: {metric: [one per seed]}}}}}, as fractions. The table shows percent, the mean
  and the standard deviation over seeds. The last column is the mean over languages, of rows that have all of them. The
  paper's languages come first, in its order. markdown: a table to copy instead of one of fixed width. split: "dev" or
  "test", that all the scores are on; a title names the split that this means for a task, unless it is its "test".
  """
  keys = dict.fromkeys(
    (task, setting, metric)
    for scores in models.values()
    for task, settings in scores.items()
    for setting, by_language in settings.items()
    for values in by_language.values()
    for metric in values
  )
  return "\n\n".join(_one_table(models, *key, _split_of(key[0], split), markdown) for key in keys)


def _split_of(task: str, split: str) -> str:
  """The name that a task has for its "dev" or "test"."""
  known = registry.TASKS.get(task)
  return split if known is None else known.dev_split if split == "dev" else known.test_split


def _one_table(models: Mapping[str, Scores], task: str, setting: str, metric: str, split: str, markdown: bool) -> str:
  papers = {name: rows[metric] for name, rows in published(task, setting, split).items() if metric in rows}
  own = {
    name: {language: values[metric] for language, values in by_language.items() if metric in values}
    for name, scores in models.items()
    if (by_language := scores.get(task, {}).get(setting))
  }
  found = [language for row in own.values() for language in row]
  order = [language for row in papers.values() for language in row]
  languages = [language for language in dict.fromkeys([*order, *found]) if language in found]
  rows: list[tuple[str, Cells]] = [(name, _own_cells(row, languages)) for name, row in own.items()]
  rows += [(name, _published_cells(row, languages)) for name, row in papers.items() if set(row) & set(languages)]
  title = f"{task}, {setting}, {metric}{'' if split == 'test' else f', {split}'}"
  if markdown:
    head = f"| {title} | {' | '.join([*languages, 'mean'])} |\n|{'---|' * (len(languages) + 2)}"
    return "\n".join([head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])
  width = max(16, *(len(name) + 1 for name, _ in rows))
  lines = [(" " * width) + "".join(f"{language:>11s}" for language in [*languages, "mean"])]
  return "\n".join(
    [title, *lines, *(f"{name:{width}s}" + "".join(f"{cell:>11s}" for cell in cells) for name, cells in rows)]
  )


def _own_cells(row: Mapping[str, Sequence[float | None]], languages: Sequence[str]) -> Cells:
  cells = [_spread(row.get(language, [None])) for language in languages]
  if set(languages) - set(row):
    return [*cells, "-"]
  # The mean over languages of each seed; where a score was not finite there is none.
  seeds = [None if None in values else statistics.fmean(values) for values in zip(*(row[name] for name in languages))]
  return [*cells, _spread(seeds)]


def _published_cells(row: Mapping[str, float], languages: Sequence[str]) -> Cells:
  known = [row[language] for language in languages if language in row]
  mean = f"{statistics.fmean(known):.1f}" if len(known) == len(languages) else "-"
  return [*(f"{row[language]:.1f}" if language in row else "-" for language in languages), mean]


def _spread(values: Sequence[float | None]) -> str:
  """Mean and standard deviation in percent, "79.1±0.4"; one seed has no deviation; "-" where a value is missing."""
  known = [value for value in values if value is not None]
  if len(known) < len(values) or not known:
    return "-"
  mean = f"{100 * statistics.fmean(known):.1f}"
  return f"{mean}±{100 * statistics.stdev(known):.1f}" if len(known) > 1 else mean
