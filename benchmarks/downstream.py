"""Fine-tunes a Hugging Face folder on downstream tasks with transformers on PyTorch, to stand beside `xlmr evaluate`.

    xlmr evaluate --workdir=MODEL --tasks=panx --config.evaluate.data=panx=PANX --seeds=3 --split=dev --out=ours.json
    python -m benchmarks.downstream --model=MODEL --tasks=panx --data=panx=PANX --seeds=3 --out=peer.json
    python -m benchmarks.downstream --compare=ours.json,peer.json

The examples, their rows, the order of the rows, the recipe and the metrics are ours; the model, its heads, dropout, AdamW
and the precision (fp32) are the peer's. So what differs between the two tables is the framework and the draws of the heads
and of dropout. The peer runs on a GPU if PyTorch sees one. It needs torch and transformers. --compare prints the scores of
two files or more side by side, with the mean over seeds and the standard deviation between them, as a table in Markdown.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from xlmr_jax.config import split_names
from xlmr_jax.errors import UserError, run_command
from xlmr_jax.evaluation import finetune
from xlmr_jax.evaluation.scorer import Scorer, finetuning_seed
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.ids import PAD
from xlmr_jax.model.task_head import SENTENCE, SPAN, WORDS
from xlmr_jax.open_model import open_record, open_tokenizer_of
from xlmr_jax.report.scores import differences, read_scores

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "", "Hugging Face folder of an XLM-R")
flags.DEFINE_string("tasks", "panx", "Names of tasks, separated by commas")
flags.DEFINE_string("folder", "", "Folder that holds a folder per task")
flags.DEFINE_string("data", "", "TASK=FOLDER,... of tasks that lie elsewhere")
flags.DEFINE_string("recipe", "", "As --config.evaluate.recipe of xlmr evaluate")
flags.DEFINE_string("languages", "", "Languages to score, all by default")
flags.DEFINE_string("split", "dev", "dev or test")
flags.DEFINE_integer("max_examples", 0, "Examples per language that are scored; 0: all")
flags.DEFINE_integer("max_train_examples", 0, "Examples that are trained on; 0: all")
flags.DEFINE_string("seeds", "0,", "As --seeds of xlmr evaluate: a number of seeds, or a list with a comma")
flags.DEFINE_string("out", "", "File of the scores")
flags.DEFINE_string("compare", "", "Files of scores to print side by side, [NAME=]FILE,...; nothing is trained")

flags.DEFINE_string("setting", "zero_shot", "With --compare: of config.evaluate.setting")

HEADS = {SENTENCE: "SequenceClassification", WORDS: "TokenClassification", SPAN: "QuestionAnswering"}
DECAYED = ("weight",)  # xlmr_jax decays kernels and embeddings: in PyTorch's names, weights that are no norm's

Arrays = dict[str, np.ndarray]


# --- the peer ------------------------------------------------------------------------------------------------------


def open_peer(model: str, task: Any) -> Any:
  """transformers' model with a fresh head for the task, fp32."""
  import transformers

  kind = getattr(transformers, f"AutoModelFor{HEADS[task.head]}")
  labels = {} if task.head == SPAN else {"num_labels": max(len(task.labels), 1)}
  return kind.from_pretrained(model, dtype="float32", **labels).to(device())


def device() -> str:
  """Where PyTorch computes: on a GPU if it sees one. Its fp32 products are fp32 there too unless one asks otherwise."""
  import torch

  return "cuda" if torch.cuda.is_available() else "cpu"


def rate(recipe: Any, steps: int, step: int) -> float:
  """The learning rate of update `step` (from 0), as of training.optimizer.polynomial_schedule."""
  warmup, at = round(recipe.warmup * steps), step + 1
  return recipe.lr * (at / max(warmup, 1) if at < warmup else 1.0 - (at - warmup) / max(steps - warmup, 1))


def inputs_of(batch: Arrays) -> dict[str, Any]:
  """input_ids and attention_mask of a batch."""
  import torch

  ids = torch.tensor(batch["ids"], dtype=torch.long, device=device())
  return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def train_peer(model: Any, finetuner: finetune.Finetuner, arrays: Arrays, seed: int) -> float:
  """Trains the peer in place on the rows, in the order and by the recipe of Finetuner.train; returns its loss."""
  import torch

  torch.manual_seed(seed)
  recipe, task = finetuner.task.recipe, finetuner.task
  steps = finetuner.steps(len(arrays["ids"]))
  lengths = finetune.training_lengths(arrays["ids"], recipe.batch, steps)
  decayed = [p for name, p in model.named_parameters() if name.endswith(DECAYED) and "LayerNorm" not in name]
  others = [p for name, p in model.named_parameters() if not (name.endswith(DECAYED) and "LayerNorm" not in name)]
  groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
  optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.999), eps=1e-8)
  model.train()
  losses: list[float] = []
  began = time.monotonic()
  for step, rows in enumerate(finetune.training_rows(len(arrays["ids"]), recipe.batch, steps, seed)):
    batch = finetune.take(arrays, rows, recipe.batch, lengths)
    if task.head == SPAN:
      labels = {"start_positions": torch.tensor(batch["start"]).long(), "end_positions": torch.tensor(batch["end"]).long()}
    else:
      target = torch.tensor(batch["label"])
      labels = {"labels": target.long() if task.labels else target}
      if task.head == WORDS:
        labels["labels"][labels["labels"] < 0] = -100
    for group in optimizer.param_groups:
      group["lr"] = rate(recipe, steps, step)
    loss = model(**inputs_of(batch), **{name: x.to(device()) for name, x in labels.items()}).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
    if step % 20 == 19:
      print(
        f"step {step + 1} of {steps}, loss {losses[-1]:.3f}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
      )
  return float(np.mean(losses[-max(1, steps // 10) :]))


def predict_peer(model: Any, finetuner: finetune.Finetuner, arrays: Arrays) -> Any:
  """What Finetuner.predict returns, by the peer."""
  import torch

  ids, head, size = arrays["ids"], finetuner.task.head, finetuner.task.recipe.batch * 2
  n, length = ids.shape
  order = np.argsort((ids != PAD).sum(axis=1), kind="stable")
  outputs: Any = None
  model.eval()
  with torch.no_grad():
    for first in range(0, n, size):
      rows = order[first : first + size]
      found = model(**inputs_of(finetune.take({"ids": ids}, rows, size)))
      if head == SPAN:
        parts = [logits.cpu().numpy()[: len(rows)] for logits in (found.start_logits, found.end_logits)]
        outputs = outputs or [np.full((n, length), -1e30, np.float32) for _ in parts]
        for whole, part in zip(outputs, parts):
          whole[rows, : part.shape[1]] = part
        continue
      logits = found.logits.cpu().numpy()[: len(rows)]
      if head == WORDS:
        outputs = np.zeros((n, length), np.int32) if outputs is None else outputs
        outputs[rows, : logits.shape[1]] = logits.argmax(axis=-1)
      else:
        outputs = np.zeros((n, logits.shape[1]), np.float32) if outputs is None else outputs
        outputs[rows] = logits
  return tuple(outputs) if head == SPAN else outputs


def score_peer(model_folder: str, scorer: Scorer, name: str, seed: int) -> dict[str, dict[str, float]]:
  """{language: {metric: value}} of one fine-tuning of the peer."""
  finetuner = scorer.finetuners[name]
  scores: dict[str, dict[str, float]] = {}
  for sources, targets in scorer.plan(name):
    model = open_peer(model_folder, finetuner.task)
    arrays = scorer.training_arrays(name, sources)
    loss = train_peer(model, finetuner, arrays, finetuning_seed(0, name, seed))
    print(f"{name}, seed {seed}: loss {loss:.4f} at the end", file=sys.stderr, flush=True)
    kind = finetune.KINDS[finetuner.task.head]
    for language, (examples, rows) in scorer.targets(name, targets).items():
      predictions = kind.decode(finetuner.task, examples, rows, predict_peer(model, finetuner, rows))
      scores[language] = kind.score(finetuner.task, examples, predictions, language)
  return scores


def seeds_of(text: str) -> list[int]:
  """The seeds that --seeds names."""
  return [int(seed) for seed in split_names(text)] if "," in text else list(range(int(text)))


def run_peer(config: ConfigDict, record: Any) -> dict[str, Any]:
  """Scores of the tasks in the form of `xlmr evaluate --out`. UserError: a recipe has what the peer does not do."""
  scorer = Scorer(config, record.vocabulary_size, open_tokenizer_of(FLAGS.model, record), FLAGS.split)
  for name, finetuner in scorer.finetuners.items():
    if finetuner.task.recipe.frozen:
      raise UserError(f"--recipe: {name}.frozen={finetuner.task.recipe.frozen} is not applied to the peer, which trains all")
  scores: dict[str, dict[str, dict[str, dict[str, list[float]]]]] = {}
  for name in config.evaluate.tasks:
    for seed in seeds_of(FLAGS.seeds):
      for language, values in score_peer(FLAGS.model, scorer, name, seed).items():
        by_metric = scores.setdefault(name, {}).setdefault("zero_shot", {}).setdefault(language, {})
        for metric, value in values.items():
          by_metric.setdefault(metric, []).append(float(value))
      if FLAGS.out:  # after each seed, because each takes minutes
        Path(FLAGS.out).write_text(json.dumps({"model": FLAGS.model, "scores": scores, "recipe": scorer.recipe()}))
  return {"model": FLAGS.model, "scores": scores, "recipe": scorer.recipe()}


# --- side by side ----------------------------------------------------------------------------------------------------


def rows_of(content: dict[str, Any], setting: str) -> dict[str, dict[str, list[float]]]:
  """{task: {language: the task's metric x 100 of each seed}} of a file's content; of a score that is not finite, NaN."""
  return {
    task: {
      language: [math.nan if value is None else 100 * value for value in metrics[registry.get(task).metrics[0]]]
      for language, metrics in settings[setting].items()
    }
    for task, settings in content["scores"].items()
    if setting in settings
  }


def table(named: list[str], setting: str = "zero_shot", source: str = "en") -> str:
  """Markdown: a table per task, with a row per file; means over seeds, and of the means their standard deviation.

  named: [NAME=]FILE. What differs in how they were scored is said on stderr. UserError: none has scores of the setting.
  """
  contents = read_scores(named)
  for line in differences(contents):
    print(line, file=sys.stderr)
  files = {name: rows_of(content, setting) for name, content in contents.items()}
  if not any(files.values()):
    raise UserError(f"--compare: no file has scores of the setting {setting}")
  parts = []
  for task in dict.fromkeys(task for rows in files.values() for task in rows):
    languages = sorted(
      {language for rows in files.values() for language in rows.get(task, {})}, key=lambda x: (x != source, x)
    )
    others = [language for language in languages if language != source]
    lines = [f"| {task} | {' | '.join(languages)} | others | seeds |", "|---" * (len(languages) + 3) + "|"]
    for name, rows in files.items():
      if task not in rows:
        continue
      by_language = rows[task]
      seeds = len(next(iter(by_language.values())))
      means = [
        np.mean([by_language[language][seed] for language in others if language in by_language])
        for seed in range(seeds)
        if by_language.keys() & set(others)
      ]
      spread = f" ± {np.std(means, ddof=1):.1f}" if len(means) > 1 else ""
      mean = f"{np.mean(means):.1f}" if means else "-"
      cells = [f"{np.mean(by_language[x]):.1f}" if x in by_language else "" for x in languages]
      if seeds > 1 and source in by_language:
        cells[0] += f" ± {np.std(by_language[source], ddof=1):.1f}"
      lines.append(f"| {name} | {' | '.join(cells)} | {mean}{spread} | {seeds} |")
    parts.append("\n".join(lines))
  return "\n\n".join(parts)


def main(argv: list[str]) -> None:
  if FLAGS.compare:
    print(table(FLAGS.compare.split(","), FLAGS.setting))
    return
  if not FLAGS.model:
    raise UserError("--model=FOLDER: name a Hugging Face folder, or files to --compare")
  record = open_record(FLAGS.model)
  config = ConfigDict(record.config)
  config.evaluate.update(tasks=split_names(FLAGS.tasks), folder=FLAGS.folder, data=FLAGS.data, recipe=FLAGS.recipe)
  config.evaluate.update(languages=split_names(FLAGS.languages), max_examples=FLAGS.max_examples, dtype="float32")
  config.evaluate.max_train_examples = FLAGS.max_train_examples
  print(json.dumps(run_peer(config, record)))


if __name__ == "__main__":
  app.run(run_command(main))
