"""The demo: text, vocabulary and rows; pretraining beside an evaluator that ends it; then what the model learnt.

Labelled tasks are trained on English alone and scored in the other languages, against chance and a random encoder.
"""

import functools
import json
import os
import random
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.demo.corpus import build_demo_rows, demo_rows, unfinished_demo
from xlmr_jax.demo.crawl import shown
from xlmr_jax.demo.progress import Progress
from xlmr_jax.demo.text import documents
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.files import size_of
from xlmr_jax.ids import PAD
from xlmr_jax.model.build import build_model
from xlmr_jax.open_model import load_params
from xlmr_jax.report import pictures
from xlmr_jax.report.run_report import write_run_report
from xlmr_jax.run.logs import read_train
from xlmr_jax.run.workdir import Workdir, read_record
from xlmr_jax.training.model_languages import number_of_text

TASKS = ("demo_entities", "demo_entailment", "demo_questions")
SEEDS = 3


def say(text: str) -> None:
  """Prints a line at once."""
  print(text, flush=True)


def run_demo(path: Path, pass_on: list[str]) -> tuple[int, dict[str, Any]]:
  """The whole demo in a workdir, with what it does and finds printed.

  pass_on: flags for `xlmr pretrain`. Returns the exit code of the part that ended it, or 0, and the summary.
  """
  began, workdir = time.monotonic(), Workdir(path)
  say("1/5  a crawl in 15 languages about a small world of facts, cleaned; a vocabulary; and rows of 64 tokens")
  make_rows(path)
  say(
    "2/5  pretraining (--config=smoke), and a second process that scores its checkpoints on an English task in all\n"
    "     languages and ends it when they stop rising; stop it and run it again, it goes on where it was"
  )
  code = pretrain(workdir, pass_on)
  if code:
    return code, {}
  say(f"3/5  three tasks, trained on English alone with {SEEDS} seeds: the best encoder, and a random one (a minute or two)")
  code = score_encoders(workdir)
  if code:
    return code, {}
  say("4/5  pictures")
  with Progress(lambda: "drawing"):
    before, after, entropy = draw(workdir, RowStore(demo_rows(path)))
  say("5/5  what it learnt: held-out loss per language, beside the unigram entropy (the loss of knowing only frequencies)")
  for name in after:
    say(f"     {name}  {before[name]:6.2f} -> {after[name]:5.2f}   unigram {entropy[name]:.2f}")
  say("     and one gap in a new text of each, as it fills it:")
  with Progress(lambda: "compiling the model for one text") as progress:
    for language, text, guess, truth in guesses(workdir, tuple(after)):
      progress.say(f"     {language}  {text}   {guess}   {'(right)' if guess == truth else f'(it was {truth})'}")
  transfer = tell_transfer(workdir)
  with Progress(lambda: "writing the page"):
    page = write_run_report(workdir)
  say(
    f"     the page     {page}   (open it in a browser: all of this, with values under the pointer)\n"
    f"     pictures     {workdir.root / 'transfer.png'}\n                  {workdir.root / 'languages.png'}\n"
    f"                  {workdir.root / 'held_out.png'}\n"
    f"     checkpoints  {workdir.checkpoints}\n"
    f"     everything   tensorboard --logdir={shlex.quote(str(workdir.tensorboard))}   (pip install tensorboard)"
  )
  result = json.loads(workdir.result.read_text())
  say(f"     it ended at step {result['step']}: {result.get('stopped_by', 'the step limit')}")
  return 0, {
    "languages": len(after),
    "held_out_loss": round(float(np.mean(list(after.values()))), 4),
    "unigram_entropy": round(float(np.mean(list(entropy.values()))), 4),
    "not_below_unigram": [name for name in after if after[name] >= entropy[name]],
    "zero_shot": transfer,
    "stopped_by": result.get("stopped_by"),
    "page": str(page),
    "seconds": round(time.monotonic() - began),
  }


def make_rows(path: Path) -> None:
  """Part 1: the rows, unless they are there, and how many there are."""
  unfinished = unfinished_demo(path)

  def waiting_for() -> str:
    if (unfinished / "vocabulary.model").exists():
      return "building rows"
    if (unfinished / "text").exists():
      return "training the vocabulary"
    return "cleaning the crawl" if (unfinished / "clean").exists() else "writing a crawl"

  with Progress(waiting_for):
    build_demo_rows(path)
  for line in shown(Path(demo_rows(path).parent) / "clean"):
    say(f"     {line}")
  manifest = json.loads((demo_rows(path) / "manifest.json").read_text())
  counts = {name: splits["train"]["rows"] for name, splits in manifest["languages"].items()}
  (most, rows_of_most), *_, (least, rows_of_least) = sorted(counts.items(), key=lambda item: -item[1])
  say(f"     {sum(counts.values()):,} rows, from {most} {rows_of_most:,} to {least} {rows_of_least:,}; in {demo_rows(path)}")


def pretrain(workdir: Workdir, pass_on: list[str]) -> int:
  """Part 2: the trainer beside the evaluator that ends it. Returns the exit code of the one that failed, or 0."""

  def waiting_for() -> str:
    if workdir.result.exists():
      return "training is done, and its last checkpoint is being scored"
    if not workdir.held_out_log.exists() or not size_of(workdir.held_out_log):
      return "two programs start, and the training step is compiled"
    lines = read_train(workdir)
    return f"training, {lines[-1]['step'] if lines else 0} steps are done; a line comes every 100 steps"

  xlmr = [sys.executable, "-m", "xlmr_jax"]
  with Progress(waiting_for) as progress:
    evaluator = progress.start([*xlmr, "evaluate", f"--workdir={workdir}"])
    trainer = progress.start([*xlmr, "pretrain", "--config=smoke", f"--workdir={workdir}", *pass_on])
    code = progress.wait(trainer)
    if workdir.result.exists():
      code = progress.wait(evaluator) or code
  return code


def score_encoders(workdir: Workdir) -> int:
  """Part 3: both encoders on all tasks, side by side, unless their scores are there. Returns an exit code."""
  missing = [name for name in ("best", "initial") if not workdir.final_score(name).exists()]
  names = {"best": "best  ", "initial": "random"}
  with Progress(lambda: f"fine-tuning {' and '.join(names[name].strip() for name in missing)}") as progress:
    children = [
      progress.start(
        [*cores, sys.executable, "-m", "xlmr_jax", "evaluate", f"--workdir={workdir}", f"--checkpoint={name}",
         f"--tasks={','.join(TASKS)}", f"--seeds={SEEDS}"],
        f"     {names[name]}  ",
        only=r" \d+ of \d+",  # how far it is; the tables come later, both beside each other
      )
      for name, cores in zip(missing, shares_of_cores(len(missing)))
    ]  # fmt: skip
    codes = [progress.wait(child) for child in children]
  return next(filter(None, codes), 0)


def shares_of_cores(count: int) -> list[list[str]]:
  """Command prefixes that give each of `count` processes cores of its own; empty ones where that cannot be done.

  Two processes that each run a thread per core wait for each other: at this size they end sooner with one thread each.
  """
  if not (shutil.which("taskset") and hasattr(os, "sched_getaffinity")):
    return [[] for _ in range(count)]
  cores = sorted(os.sched_getaffinity(0))
  shares = [cores[i::count] for i in range(count)]
  return [["taskset", "-c", ",".join(map(str, share))] if all(shares) else [] for share in shares]


def draw(workdir: Workdir, store: RowStore) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
  """Part 4: the pictures. Returns, per language, the held-out loss before and after, and the unigram entropy, in nats."""
  lines = pictures.read_held_out(workdir)
  before, after = pictures.losses_of(lines[0]), pictures.losses_of(lines[-1])
  entropy = pictures.unigram_entropy(store)
  pictures.held_out_picture(workdir, workdir.root / "held_out.png")
  pictures.transfer_picture(workdir, workdir.root / "transfer.png")
  pictures.languages_picture(
    before,
    after,
    workdir.root / "languages.png",
    label=pictures.LOSS,
    title=f"Demo: before and after {lines[-1]['step']} updates",
    bound=entropy,
  )
  return before, after, entropy


def guesses(workdir: Workdir, languages: tuple[str, ...], seed: int = 1) -> Iterator[tuple[str, str, str, str]]:
  """(language, new text with a gap, the piece that the model puts there, the piece that stood there): one per language."""
  record = read_record(workdir)
  config = ConfigDict(record.config)
  model = build_model(config, record.vocabulary_size)
  _, params = load_params(workdir.root, record, config, "latest")
  logits = jax.jit(functools.partial(model.apply, method="logits"))
  tokenizer, rng = open_tokenizer(workdir.tokenizer), random.Random(seed)

  def space_before(piece: int) -> str:
    # SentencePiece drops the space in front of a text's first piece; only pieces that begin a word have one.
    return " " if tokenizer.piece(piece).startswith("\u2581") else ""

  for language in languages:
    pieces = tokenizer.encode(next(documents(language, count=1, seed=seed))[0])[: record.seq_len]
    gap = rng.choice([i for i in range(1, len(pieces) - 1) if any(map(str.isalpha, tokenizer.piece(pieces[i])[1:]))])
    ids_1xL = np.full((1, record.seq_len), PAD, np.int32)
    ids_1xL[0, : len(pieces)] = pieces
    ids_1xL[0, gap] = tokenizer.mask_id
    spoken = number_of_text(config, language)
    languages_1x2 = None if spoken is None else np.full((1, 2), spoken, np.int32)
    best = int(np.asarray(logits({"params": params}, ids_1xL, languages_Bx2=languages_1x2))[0, gap].argmax())
    text = (
      f"{tokenizer.decode(pieces[1:gap])}{space_before(pieces[gap])}___"
      f"{space_before(pieces[gap + 1])}{tokenizer.decode(pieces[gap + 1 :])}"
    )
    yield language, text, tokenizer.decode([best]), tokenizer.decode([pieces[gap]])


def tell_transfer(workdir: Workdir) -> dict[str, dict[str, float]]:
  """Prints each task's score per language for both encoders.

  Returns {task: {"best", "random", "chance"}}: means over the languages that were not trained on.
  """
  final = {name: json.loads(workdir.final_score(name).read_text())["scores"] for name in ("best", "initial")}
  registry.load_modules(("xlmr_jax.demo.tasks",))
  means = {}
  say("     and what it takes from English to the others: mean of the seeds, best encoder | random encoder, %")
  for name in TASKS:
    task = registry.get(name)
    metric = task.metrics[0]
    by_seed = {
      encoder: {language: np.asarray(values[metric]) for language, values in scores[name]["zero_shot"].items()}
      for encoder, scores in final.items()
    }
    others = {
      encoder: np.mean([values for language, values in scores.items() if language != task.train_language], axis=0)
      for encoder, scores in by_seed.items()
    }
    means[name] = {
      "best": round(float(others["best"].mean()), 4),
      "random": round(float(others["initial"].mean()), 4),
      "chance": round(task.chance, 4),
    }
    say(
      f"     {name} ({metric}): the {len(by_seed['best']) - 1} others {100 * means[name]['best']:.1f} | "
      f"{100 * means[name]['random']:.1f}, chance {100 * task.chance:.1f};  by seed "
      f"{', '.join(f'{100 * x:.1f}' for x in others['best'])} | {', '.join(f'{100 * x:.1f}' for x in others['initial'])}"
    )
    best, initial = by_seed["best"], by_seed["initial"]
    say("        " + "  ".join(f"{name} {100 * best[name].mean():.0f}|{100 * initial[name].mean():.0f}" for name in best))
  return means
