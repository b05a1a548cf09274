"""XLM-R's published scores and the table that sets a model's own beside them."""

import statistics

# Conneau et al. 2020 (arXiv 1911.02116v2), tables 1 to 4, in percent: task, setting, model -> {metric: by language}.
_XNLI = ("en", "fr", "es", "de", "el", "bg", "ru", "tr", "ar", "vi", "th", "zh", "hi", "sw", "ur")
_NER, _MLQA = ("en", "nl", "es", "de"), ("en", "es", "de", "ar", "hi", "vi", "zh")


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
  **{(task, "zero_shot", "XLM-R Large"): {metric: {"en": score}} for task, metric, score in (
    ("mnli", "accuracy", 88.9), ("qnli", "accuracy", 93.8), ("qqp", "accuracy", 92.3), ("sst2", "accuracy", 95.0),
    ("mrpc", "accuracy", 89.5), ("stsb", "pearson", 91.2))},
}  # fmt: skip


def table(scores: dict[str, dict[str, dict[str, dict[str, list[float | None]]]]], model: str) -> str:
  """A readable table a task: a row a setting and metric, a column a language, beside the paper's rows.

  scores: {task: {setting: {language: {metric: [one per seed]}}}}, fractions; shown in percent, mean and standard
  deviation over seeds. The last column is the mean over languages. Languages stand in the paper's order, then ours.
  """
  lines = []
  for task, settings in scores.items():
    for setting, by_language in settings.items():
      metrics = list(dict.fromkeys(metric for values in by_language.values() for metric in values))
      for metric in metrics:
        published = {
          name: row[metric] for (of, how, name), row in PUBLISHED.items() if (of, how) == (task, setting) and metric in row
        }
        languages = [language for row in published.values() for language in row]
        languages = list(dict.fromkeys(language for language in [*languages, *by_language] if language in by_language))
        own = {language: by_language[language][metric] for language in languages}
        lines += ["", f"{task}, {setting}, {metric}"]
        lines.append(f"{'':16s}" + "".join(f"{language:>11s}" for language in [*languages, "mean"]))
        # The mean over languages of each seed; a score that was not finite leaves it open.
        seeds = [None if None in values else statistics.fmean(values) for values in zip(*own.values())]
        lines.append(f"{model[:15]:16s}" + "".join(f"{_spread(values):>11s}" for values in [*own.values(), seeds]))
        for name, row in published.items():
          cells = [row.get(language) for language in languages]
          mean = statistics.fmean(cells) if None not in cells else None
          lines.append(
            f"{name:16s}" + "".join(f"{'-' if cell is None else format(cell, '.1f'):>11s}" for cell in [*cells, mean])
          )
  return "\n".join(lines[1:])


def _spread(values: list[float | None]) -> str:
  """Mean and standard deviation in percent, "79.1±0.4"; without the latter for one seed; "-" if one is missing."""
  if None in values:
    return "-"
  mean = f"{100 * statistics.fmean(values):.1f}"
  return f"{mean}±{100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean
