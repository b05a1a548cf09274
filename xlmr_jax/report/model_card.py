"""The README.md of an exported folder: what the model is, what it saw in which share, what it scores, how it learnt.

Everything in it comes from the run's own files. A part whose file does not exist (no training yet, no evaluation) is left
out.
"""

import json
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.registry import Task
from xlmr_jax.files import read_sealed_json
from xlmr_jax.huggingface import names
from xlmr_jax.model.build import family_of
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS
from xlmr_jax.report.pictures import goodput_picture, held_out_picture
from xlmr_jax.run import logs
from xlmr_jax.run.goodput import PARTS, read_accounts
from xlmr_jax.run.workdir import RunRecord, Workdir

_PIPELINE = {SENTENCE: "text-classification", WORDS: "token-classification", SPAN: "question-answering"}
_CURVE_LINES = 12  # of the table beside the training curve


class Tuned(NamedTuple):
  """A model that was fine-tuned on a task."""

  task: Task
  params: dict[str, Any]  # {"encoder", "head"}
  sources: tuple[str, ...]  # languages of its training files
  scores: dict[str, dict[str, float]]  # {language: {metric: value}}
  seed: int


def write(
  folder: Path, workdir: Workdir, record: RunRecord, config: ConfigDict, name: str, step: int, tuned: Tuned | None, mask: str
) -> None:
  """Writes README.md and, for a run, training_curve.png of its held-out losses and goodput.png of its time into a folder.

  name, step: of the exported checkpoint, e.g. "best" and 12000. tuned: what it was fine-tuned to, if it was. mask: how the
  vocabulary writes a masked token.
  """
  lines = [line for line in logs.read_held_out(workdir) if line["step"] <= step]
  # All lines of a long run together would fill the memory, and only the last one is wanted.
  consumed = next(iter(deque((line for line in logs.each_train(workdir) if line["step"] <= step), maxlen=1)), None)
  languages = tuple(consumed["languages"] if consumed else record.languages) or (tuned.sources if tuned else ())
  parts = [
    _front_matter(languages, tuned, config.model.family),
    f"# {'BERT' if config.model.family == 'bert' else 'XLM-R'}, {f'{tuned.task.name}, ' if tuned else ''}step {step}\n",
    _description(record, config, name, step, tuned),
    _tuned_scores(tuned),
    _use(tuned, mask),
    _shares(consumed),
    _held_out(lines),
    *_evaluations(workdir, step),
  ]
  if len(lines) > 1:
    held_out_picture(workdir, folder / "training_curve.png", step)
    picked = [lines[i] for i in np.unique(np.linspace(0, len(lines) - 1, _CURVE_LINES).round().astype(int))]
    parts.append("## Training curve\n\n![Held-out loss against updates](training_curve.png)\n")
    parts.append(
      _rows(
        ["updates", "held-out loss, nats per masked token, mean over languages"],
        [[line["step"], f"{line['mean_loss']:.4f}"] for line in picked],
      )
    )
  parts += _where_the_time_went(workdir, folder)
  settings = json.dumps(_without_paths(record.config), indent=1, sort_keys=True, default=list)
  parts.append(f"## Config\n\n<details><summary>every key of the run</summary>\n\n```json\n{settings}\n```\n</details>\n")
  (folder / "README.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
  """A run's config without the paths of its data: a card is for others."""
  paths = {"data": ("rows", "cache"), "evaluate": ("folder", "data")}
  return {
    section: {key: x for key, x in value.items() if key not in paths.get(section, ())} if isinstance(value, dict) else value
    for section, value in config.items()
    if section != "compile_cache"
  }


def _front_matter(languages: Iterable[str], tuned: Tuned | None, family: str) -> str:
  codes = sorted({code for name in languages if re.fullmatch(r"[a-z]{2,3}", code := re.split("[_-]", name)[0])})
  lines = [
    "---",
    "library_name: transformers",
    f"pipeline_tag: {_PIPELINE[tuned.task.head] if tuned else 'fill-mask'}",
    "tags:",
    f"- {'bert' if family == 'bert' else 'xlm-roberta'}",
    "- multilingual",
    # The codes are quoted because YAML reads no, Norwegian, as false.
    *(["language:", *(f'- "{code}"' for code in codes)] if codes else []),
    "---",
    "",
  ]
  return "\n".join(lines)


def _description(record: RunRecord, config: ConfigDict, name: str, step: int, tuned: Tuned | None) -> str:
  model, optimizer = config.model, config.optimizer
  is_bert = model.family == "bert"
  sizes = names.Sizes(record.vocabulary_size, model.max_positions, model.layers, model.hidden, model.heads, model.ffn,
                      model.token_types if is_bert else 1, model.family)  # fmt: skip
  parameters = sum(int(np.prod(shape)) for shape in names.tensor_shapes(sizes).values())
  kind = "An encoder of the BERT" if is_bert else "A multilingual encoder of the XLM-R"
  text = (
    f"{kind} family: {model.layers} layers x {model.hidden}, {model.heads} heads, feed-forward width {model.ffn}, a "
    f"vocabulary of {record.vocabulary_size:,} pieces, "
    f"{family_of(config).max_seq_len(model)} positions; {parameters:,} parameters with the masked-language-model head.\n"
  )
  if tuned:
    recipe = tuned.task.recipe
    text += (
      f"\nFine-tuned on {tuned.task.name} in {', '.join(tuned.sources)} (rate {recipe.lr}, batch {recipe.batch}, "
      f"{recipe.epochs:g} epochs, {recipe.max_len} tokens, seed {tuned.seed}).\n"
    )
  if record.imported:
    text += f"\nTraining began with the weights of `{Path(record.imported).name}`, imported as they were.\n"
  if record.branch:
    text += (
      f"\nThe run branched off from step {int(record.branch['step']):,} of the run `{Path(record.branch['run']).name}`. "
      "What is said here of rows, masks, rates and languages holds for the steps from there on; that run's config tells "
      "the others.\n"
    )
  masked_whole = {"word": " in whole words", "span": " in spans of words"}.get(config.data.mask_unit, "")
  if step:
    text += (
      f"\nExported from checkpoint {step} ({name}): {step:,} updates of {config.batch_rows:,} rows of "
      f"{record.seq_len} tokens, {100 * config.data.mask_share:g} % of the pieces masked{masked_whole}, AdamW with a peak "
      f"rate of {optimizer.peak_lr:g}, languages sampled with alpha {config.data.alpha:g}, seed {config.seed}.\n"
    )
    if config.phases:
      text += f"\nWhat was read changed in phases, which say what differed: {'; '.join(config.phases)}.\n"
  if model.isolate_documents:
    text += (
      "\nIn training, several documents shared a row; they did not see each other, and each began at position 0. Give the "
      "model one text or pair per row, as transformers does, and it reads it as it did then.\n"
    )
  return text


def _tuned_scores(tuned: Tuned | None) -> str:
  if not tuned:
    return ""
  metrics = tuned.task.metrics
  return _table(
    f"Scores on {tuned.task.name}, {tuned.task.dev_split} (trained on {', '.join(tuned.sources)})",
    ["language", *metrics],
    [[language, *(f"{values[metric]:.4f}" for metric in metrics)] for language, values in tuned.scores.items()],
  )


def _use(tuned: Tuned | None, mask: str) -> str:
  if tuned:
    kind = names.HEADS[tuned.task.head][1]
    return f"## Use\n\n```python\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n```\n"
  return (
    "## Use\n\n```python\nfrom transformers import pipeline\n\n"
    f'pipeline("fill-mask", model="THIS FOLDER")("Paris is the {mask} of France.")\n```\n'
  )


def _shares(consumed: dict[str, Any] | None) -> str:
  """consumed: a line of train.jsonl."""
  if not consumed:
    return ""
  return _table(
    "Languages and data shares",
    ["language", "share of the rows seen", "share asked for", "rows seen", "epochs"],
    [
      [language, f"{seen['share']:.4%}", f"{seen['share_wanted']:.4%}", f"{seen['rows']:,}", f"{seen['epochs']:.2f}"]
      for language, seen in sorted(consumed["languages"].items(), key=lambda item: -item[1]["share"])
    ],
  )


def _held_out(lines: list[dict]) -> str:
  if not lines:
    return ""
  return _table(
    f"Held-out text, at update {lines[-1]['step']}",
    ["language", "loss, nats per masked token", "bits per byte"],
    [
      [language, f"{values['loss']:.4f}", f"{values['bits_per_byte']:.4f}"]
      for language, values in sorted(lines[-1]["languages"].items())
    ],
  )


def _where_the_time_went(workdir: Workdir, folder: Path) -> list[str]:
  """Of the whole run so far, whichever checkpoint the card is about; draws goodput.png."""
  total = read_accounts(workdir).total()
  if total is None:
    return []
  goodput_picture(workdir, folder / "goodput.png")
  rows = [
    [what, f"{seconds / 3600:.2f}", f"{seconds / max(total.wall, 1e-9):.1%}"]
    for name, what in PARTS.items()
    if (seconds := total.parts.get(name, 0.0)) > 0
  ]
  text = f"{total.starts} starts, {total.idle / 3600:.2f} hours between them; {total.steps_again:,} steps were made again.\n"
  table = _rows(["part", "hours", "share"], rows)
  return [f"## Where the time went\n\n![Time of each start by part](goodput.png)\n\n{text}\n{table}"]


def _evaluations(workdir: Workdir, step: int) -> list[str]:
  """Tables of what the ledger and the final evaluations scored at this step, as means over seeds."""
  tables = []
  for path in [workdir.evaluation(step), *sorted(workdir.final_scores.glob("*.json"))]:
    try:
      entry = read_sealed_json(path)
    except FileNotFoundError:
      continue
    except (OSError, ValueError) as error:
      raise UserError(f"{path} cannot be read ({error}); remove it, and the card goes without it") from None
    if entry.get("step") != step or "scores" not in entry:
      continue
    if path.parent == workdir.final_scores:
      scored = [
        (f"{task}, {setting}, {entry['split']}", languages)
        for task, settings in entry["scores"].items()
        for setting, languages in settings.items()
      ]
    else:
      scored = [(f"{task}, dev, while it was trained", languages) for task, languages in entry["scores"].items()]
    for about, languages in scored:
      metrics = list(next(iter(languages.values()), {}))
      rows = [[language, *(_mean(values.get(metric)) for metric in metrics)] for language, values in languages.items()]
      tables.append(_table(f"Scores: {about}", ["language", *metrics], rows))
  return tables


def _mean(values: list[float | None] | None) -> str:
  finite = [value for value in values or () if value is not None]
  return f"{np.mean(finite):.4f}" if finite and len(finite) == len(values or ()) else "-"


def _table(title: str, head: list[str], rows: list[list[Any]]) -> str:
  return f"## {title}\n\n{_rows(head, rows)}" if rows else ""


def _rows(head: list[str], rows: list[list[Any]]) -> str:
  return "\n".join([*(f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)), ""])
