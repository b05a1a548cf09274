"""XLM-R's published scores, and the table that shows a model's own scores beside them."""

import statistics

# Conneau et al. 2020 (arxiv.org/abs/1911.02116v2), tables 1 to 4, in percent: (task, setting, model) -> {metric: {language:
# score}}.
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
  """Readable tables, one per task, setting and metric: a column per language, the model's row and the paper's rows.

  scores: {task: {setting: {language: {metric: [one per seed]}}}}, as fractions. The table shows percent, the mean and the
  standard deviation over seeds. The last column is the mean over languages. The paper's languages come first, in its order.
  """
  lines = []
  for task, settings in scores.items():
    for setting, by_language in settings.items():
      metrics = list(dict.fromkeys(metric for values in by_language.values() for metric in values))
      for metric in metrics:
        published = {
          name: rows[metric] for (*key, name), rows in PUBLISHED.items() if key == [task, setting] and metric in rows
        }
        languages = [language for row in published.values() for language in row]
        languages = list(dict.fromkeys(language for language in [*languages, *by_language] if language in by_language))
        own = {language: by_language[language][metric] for language in languages}
        lines += ["", f"{task}, {setting}, {metric}"]
        lines.append(f"{'':16s}" + "".join(f"{language:>11s}" for language in [*languages, "mean"]))
        # The mean over languages of each seed; where a score was not finite there is none.
        seeds = [None if None in values else statistics.fmean(values) for values in zip(*own.values())]
        lines.append(f"{model[:15]:16s}" + "".join(f"{_spread(values):>11s}" for values in [*own.values(), seeds]))
        for name, row in published.items():
          cells = [row.get(language) for language in languages]
          known = [cell for cell in cells if cell is not None]
          mean = statistics.fmean(known) if len(known) == len(cells) else None
          lines.append(
            f"{name:16s}" + "".join(f"{'-' if cell is None else format(cell, '.1f'):>11s}" for cell in [*cells, mean])
          )
  return "\n".join(lines[1:])


def _spread(values: list[float | None]) -> str:
  """Mean and standard deviation in percent, "79.1±0.4"; one seed has no deviation; "-" where a value is missing."""
  known = [value for value in values if value is not None]
  if len(known) < len(values):
    return "-"
  mean = f"{100 * statistics.fmean(known):.1f}"
  return f"{mean}±{100 * statistics.stdev(known):.1f}" if len(known) > 1 else mean
