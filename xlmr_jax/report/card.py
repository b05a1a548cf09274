"""The README.md of an exported folder: what the model is, what it saw in which share, what it scores, how it learnt.

All of it from the run's own files; what a run has not (no training yet, no evaluation) is left out.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.evaluation.tasks.registry import SENTENCE, SPAN, WORDS, Task
from xlmr_jax.huggingface import names

_PIPELINE = {SENTENCE: "text-classification", WORDS: "token-classification", SPAN: "question-answering"}
_CURVE_LINES = 12


class Tuned(NamedTuple):
  """A model fine-tuned on a task."""

  task: Task
  params: dict  # {"encoder", "head"}
  sources: tuple[str, ...]  # languages of its training files
  scores: dict[str, dict[str, float]]  # {language: {metric: value}}
  seed: int


def write(folder: Path, workdir: Path, record: dict, config, name: str, step: int, tuned: Tuned | None) -> None:
  """Writes README.md and, of a run with held-out losses, training_curve.png."""
  lines = _read_lines(workdir / "held_out.jsonl", step)
  consumed = _read_lines(workdir / "train.jsonl", step)
  languages = list(consumed[-1]["languages"] if consumed else record["languages"])
  title = f"{tuned.task.name}, " if tuned else ""
  parts = [
    _front_matter(languages or (tuned.sources if tuned else ()), tuned),
    f"# XLM-R, {title}step {step}\n",
    _what(record, config, name, step, tuned),
  ]
  if tuned:
    parts.append(
      _table(
        f"Scores on {tuned.task.name}, {tuned.task.dev_split} (trained on {', '.join(tuned.sources)})",
        ["language", *tuned.task.metrics],
        [
          [language, *(f"{values[metric]:.4f}" for metric in tuned.task.metrics)]
          for language, values in tuned.scores.items()
        ],
      )
    )
  parts.append(_use(tuned))
  parts.append(_shares(consumed))
  parts.append(_held_out(lines))
  parts += _evaluations(workdir, step)
  if len(lines) > 1:
    from xlmr_jax.report.pictures import held_out_picture

    held_out_picture(workdir, folder / "training_curve.png", step)
    picked = [lines[i] for i in np.unique(np.linspace(0, len(lines) - 1, _CURVE_LINES).round().astype(int))]
    parts.append("## Training curve\n\n![Held-out loss against updates](training_curve.png)\n")
    parts.append(
      _rows(
        ["updates", "held-out loss, nats a masked token, mean over languages"],
        [[line["step"], f"{line['mean_loss']:.4f}"] for line in picked],
      )
    )
  settings = json.dumps(_without_paths(record["config"]), indent=1, sort_keys=True, default=list)
  parts.append(f"## Config\n\n<details><summary>every key of the run</summary>\n\n```json\n{settings}\n```\n</details>\n")
  (folder / "README.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _without_paths(config: dict) -> dict:
  """A card is for others: where the data lay is not."""
  paths = {"data": ("rows",), "evaluate": ("folder", "data")}
  leave = lambda key, of: {name: x for name, x in of.items() if name not in paths.get(key, ())}  # noqa: E731
  return {key: leave(key, of) if isinstance(of, dict) else of for key, of in config.items()}


def _front_matter(languages, tuned: Tuned | None) -> str:
  codes = sorted({code for name in languages if re.fullmatch(r"[a-z]{2,3}", code := re.split("[_-]", name)[0])})
  lines = [
    "---",
    "library_name: transformers",
    f"pipeline_tag: {_PIPELINE[tuned.task.head] if tuned else 'fill-mask'}",
    "tags:",
    "- xlm-roberta",
    "- multilingual",
  ]
  # Quoted: YAML reads no, Norwegian, as false.
  return "\n".join([*lines, *(["language:", *(f'- "{code}"' for code in codes)] if codes else []), "---", ""])


def _what(record: dict, config, name: str, step: int, tuned: Tuned | None) -> str:
  model = config.model
  D, N, F = model.hidden, model.layers, model.ffn
  V = record["vocabulary_size"]
  sizes = names.tensor_shapes(names.Sizes(V, model.max_positions, N, D, model.heads, F))
  count = sum(int(np.prod(shape)) for shape in sizes.values())
  text = (
    f"A multilingual encoder of the XLM-R family: {N} layers x {D}, {model.heads} heads, feed-forward width {F}, a "
    f"vocabulary of {V:,} pieces, {model.max_positions - 2} positions; {count:,} parameters with the "
    "masked-language-model head.\n"
  )
  if tuned:
    recipe = tuned.task.recipe
    text += (
      f"\nFine-tuned on {tuned.task.name} in {', '.join(tuned.sources)} (rate {recipe.lr}, batch {recipe.batch}, "
      f"{recipe.epochs:g} epochs, {recipe.max_len} tokens, seed {tuned.seed}).\n"
    )
  if record.get("imported"):
    text += f"\nTraining began with the weights of `{Path(record['imported']).name}`, imported as they were.\n"
  optimizer = config.optimizer
  if step:
    text += (
      f"\nExported from checkpoint {step} ({name}): {step:,} updates of {config.batch_rows:,} rows of "
      f"{record['seq_len']} tokens, {100 * config.data.mask_share:g} % of the pieces masked, AdamW with a peak "
      f"rate of {optimizer.peak_lr:g}, languages sampled with alpha {config.data.alpha:g}, seed {config.seed}.\n"
    )
  if model.isolate_documents:
    text += (
      "\nTrained with several documents in a row that did not see each other and each began at position 0. Give it "
      "one text or pair a row, as transformers does, and it reads them as it did then.\n"
    )
  return text


def _use(tuned: Tuned | None) -> str:
  if tuned:
    kind = names.HEADS[tuned.task.head][1]
    return f"## Use\n\n```python\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n```\n"
  return (
    "## Use\n\n```python\nfrom transformers import pipeline\n\n"
    'pipeline("fill-mask", model="THIS FOLDER")("Paris is the <mask> of France.")\n```\n'
  )


def _shares(consumed: list[dict]) -> str:
  if not consumed:
    return ""
  return _table(
    "Languages and data shares",
    ["language", "share of the rows seen", "share asked for", "rows seen", "epochs"],
    [
      [name, f"{of['share']:.4%}", f"{of['share_wanted']:.4%}", f"{of['rows']:,}", f"{of['epochs']:.2f}"]
      for name, of in sorted(consumed[-1]["languages"].items(), key=lambda item: -item[1]["share"])
    ],
  )


def _held_out(lines: list[dict]) -> str:
  if not lines:
    return ""
  return _table(
    f"Held-out text, at update {lines[-1]['step']}",
    ["language", "loss, nats a masked token", "bits a byte"],
    [[name, f"{of['loss']:.4f}", f"{of['bits_per_byte']:.4f}"] for name, of in sorted(lines[-1]["languages"].items())],
  )


def _evaluations(workdir: Path, step: int) -> list[str]:
  """Tables of the ledger's scores and the final ones of this step, means over seeds."""
  found = []
  for path in [workdir / "evaluations" / f"{step}.json", *sorted((workdir / "evaluations" / "final").glob("*.json"))]:
    try:
      entry = json.loads(path.read_text())
    except (OSError, ValueError):
      continue
    if entry.get("step") != step or "scores" not in entry:
      continue
    final = path.parent.name == "final"
    scores = entry["scores"] if final else {task: {"": of} for task, of in entry["scores"].items()}
    for task, settings in scores.items():
      for setting, languages in settings.items():
        metrics = list(next(iter(languages.values()), {}))
        about = f"{task}, {setting}, {entry['split']}" if final else f"{task}, dev, while it was trained"
        found.append(
          _table(
            f"Scores: {about}",
            ["language", *metrics],
            [[language, *(_mean(values.get(metric)) for metric in metrics)] for language, values in languages.items()],
          )
        )
  return found


def _mean(values: list[float | None] | None) -> str:
  return "-" if not values or None in values else f"{np.mean(values):.4f}"


def _table(title: str, head: list[str], rows: list[list[Any]]) -> str:
  return f"## {title}\n\n{_rows(head, rows)}" if rows else ""


def _rows(head: list[str], rows: list[list[Any]]) -> str:
  line = lambda cells: f"| {' | '.join(map(str, cells))} |"  # noqa: E731
  return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows), ""])


def _read_lines(path: Path, step: int) -> list[dict]:
  """The lines of a log up to a step."""
  from xlmr_jax.report.pictures import read_lines

  return [line for line in read_lines(path) if line["step"] <= step] if path.exists() else []
