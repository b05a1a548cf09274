"""Command: `make demo`: text, vocabulary, rows; pretraining beside an evaluator that ends it; what the model learnt.

Labelled tasks are trained on English alone and scored in the other languages, against chance and a random encoder.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from xlmr_jax.errors import UserError, run_child, run_command

TASKS = ("demo_entities", "demo_entailment", "demo_questions")
SEEDS = 3

FLAGS = flags.FLAGS


def say(text: str) -> None:
  print(text, flush=True)


def shares_of_cores(count: int) -> list[list[str]]:
  """Command prefixes that give each of `count` processes cores of its own; empty where that is not to be had.

  Two processes that each run a thread a core wait for each other's: at this size they end sooner with one thread each.
  """
  if not (shutil.which("taskset") and hasattr(os, "sched_getaffinity")):
    return [[] for _ in range(count)]
  cores = sorted(os.sched_getaffinity(0))
  shares = [cores[i::count] for i in range(count)]
  return [["taskset", "-c", ",".join(map(str, share))] if all(shares) else [] for share in shares]


def guesses(workdir: Path, tokenizer_path: Path, languages: tuple[str, ...], seed: int = 1):
  """(language, new text with a gap, the piece the model puts there, the piece that stood there): one gap a language."""
  import functools

  import jax
  from ml_collections import ConfigDict

  from xlmr_jax.data.tokenizer import PAD, Tokenizer
  from xlmr_jax.demo.text import documents
  from xlmr_jax.open_model import load_params
  from xlmr_jax.training.loop import build_model

  run = json.loads((workdir / "config.json").read_text())
  config = ConfigDict(run["config"])
  model = build_model(config, run["vocabulary_size"])
  _, params = load_params(workdir, run, config, "latest")
  logits = jax.jit(functools.partial(model.apply, method="logits"))
  tokenizer, rng = Tokenizer(tokenizer_path), random.Random(seed)
  for language in languages:
    pieces = tokenizer.encode(next(documents(language, count=1, seed=seed))[0])[: run["seq_len"]]
    gap = rng.choice([i for i in range(1, len(pieces) - 1) if any(map(str.isalpha, tokenizer.piece(pieces[i])[1:]))])
    ids = np.full((1, run["seq_len"]), PAD, np.int32)
    ids[0, : len(pieces)] = pieces
    ids[0, gap] = tokenizer.mask_id
    best = int(np.asarray(logits({"params": params}, ids))[0, gap].argmax())
    # SentencePiece drops the space in front of a text's first piece; only pieces that begin a word have one.
    space = lambda piece: " " if tokenizer.piece(piece).startswith("\u2581") else ""  # noqa: E731
    after = pieces[gap + 1]
    text = f"{tokenizer.decode(pieces[1:gap])}{space(pieces[gap])}___{space(after)}{tokenizer.decode(pieces[gap + 1 :])}"
    yield language, text, tokenizer.decode([best]), tokenizer.decode([pieces[gap]])


def tell_transfer(workdir: Path) -> dict[str, dict[str, float]]:
  """Says each task's score a language, both encoders; returns the means over the languages that were not trained on."""
  from xlmr_jax.evaluation.tasks import registry

  final = {
    name: json.loads((workdir / "evaluations" / "final" / f"{name}.json").read_text())["scores"]
    for name in ("best", "initial")
  }
  means = {}
  say("     and what it takes from English to the others: mean of the seeds, best encoder | random encoder, %")
  for name in TASKS:
    task = registry.get(name)
    metric = task.metrics[0]
    of = {
      which: {language: float(np.mean(values[metric])) for language, values in scores[name]["zero_shot"].items()}
      for which, scores in final.items()
    }
    seeds = {
      which: np.mean(
        [values[metric] for language, values in scores[name]["zero_shot"].items() if language != task.train_language], axis=0
      )
      for which, scores in final.items()
    }
    means[name] = {
      "best": round(float(seeds["best"].mean()), 4),
      "random": round(float(seeds["initial"].mean()), 4),
      "chance": round(task.chance, 4),
    }
    say(
      f"     {name} ({metric}): the {len(of['best']) - 1} others {100 * means[name]['best']:.1f} | "
      f"{100 * means[name]['random']:.1f}, chance {100 * task.chance:.1f};  by seed "
      f"{', '.join(f'{100 * x:.1f}' for x in seeds['best'])} | {', '.join(f'{100 * x:.1f}' for x in seeds['initial'])}"
    )
    say(
      "        "
      + "  ".join(
        f"{language} {100 * of['best'][language]:.0f}|{100 * of['initial'][language]:.0f}" for language in of["best"]
      )
    )
  return means


def main(_) -> int | None:
  logging.set_verbosity(logging.WARNING)
  workdir, began = Path(FLAGS.workdir).absolute(), time.monotonic()
  say("1/5  text in 15 languages from a small world of facts, a vocabulary, and rows of 64 tokens")
  from xlmr_jax.demo.corpus import build_demo_rows, demo_rows

  build_demo_rows(workdir)
  rows = demo_rows(workdir)
  manifest = json.loads((rows / "manifest.json").read_text())
  counts = {name: of["train"]["rows"] for name, of in manifest["languages"].items()}
  say(
    f"     {sum(counts.values()):,} rows, from {max(counts, key=counts.get)} {max(counts.values()):,} to "
    f"{min(counts, key=counts.get)} {min(counts.values()):,}; in {rows}"
  )
  say(
    "2/5  pretraining (configs/smoke.py), and a second process that scores its checkpoints on an English task in all\n"
    "     languages and ends it when they stop rising; stop it and run it again, it goes on where it was"
  )
  python = [sys.executable, "-m"]
  pretrain = [*python, "xlmr_jax.commands.pretrain", "--config=configs/smoke.py", f"--workdir={workdir}", *FLAGS.pass_on]
  with subprocess.Popen([*python, "xlmr_jax.evaluation.follower", f"--workdir={workdir}"]) as evaluator:
    try:
      code = run_child(pretrain)
    finally:
      if (workdir / "result.json").exists():
        evaluator.wait()
      else:
        evaluator.terminate()
  if code:
    return code
  if evaluator.returncode:
    return evaluator.returncode

  say(f"3/5  three tasks, trained on English alone with {SEEDS} seeds: the best encoder, and a random one")
  missing = [name for name in ("best", "initial") if not (workdir / "evaluations" / "final" / f"{name}.json").exists()]
  finals = [
    subprocess.Popen(
      [
        *cores,
        *python,
        "xlmr_jax.evaluation.follower",
        f"--workdir={workdir}",
        f"--checkpoint={name}",
        f"--tasks={','.join(TASKS)}",
        f"--seeds={SEEDS}",
      ],
      stdout=subprocess.DEVNULL,
    )
    for name, cores in zip(missing, shares_of_cores(2))
  ]
  try:
    codes = [final.wait() for final in finals]
  finally:
    for final in finals:
      final.terminate()
  if any(codes):
    return next(filter(None, codes))

  say("4/5  pictures")
  from xlmr_jax.data.rows import RowStore
  from xlmr_jax.report import pictures as report

  lines = report.read_lines(workdir / "held_out.jsonl")
  before, after = ({name: of["loss"] for name, of in line["languages"].items()} for line in (lines[0], lines[-1]))
  store = RowStore(rows)
  entropy = report.unigram_entropy(store)
  report.held_out_picture(workdir, workdir / "held_out.png")
  report.transfer_picture(workdir, workdir / "transfer.png")
  report.languages_picture(
    before,
    after,
    workdir / "languages.png",
    label="held-out loss, nats a masked token",
    title=f"Demo: before and after {lines[-1]['step']} updates",
    bound=entropy,
  )

  say("5/5  what it learnt: held-out loss a language, beside the unigram entropy (knowing only frequencies)")
  for name in store.languages:
    say(f"     {name}  {before[name]:6.2f} -> {after[name]:5.2f}   unigram {entropy[name]:.2f}")
  say("     and one gap in a new text of each, as it fills it:")
  for language, text, said, truth in guesses(workdir, store.tokenizer_path, store.languages):
    say(f"     {language}  {text}   {said}   {'(right)' if said == truth else f'(it was {truth})'}")
  transfer = tell_transfer(workdir)
  say(
    f"     pictures     {workdir / 'transfer.png'}\n                  {workdir / 'languages.png'}\n"
    f"                  {workdir / 'held_out.png'}\n"
    f"     checkpoints  {workdir / 'checkpoints'}\n"
    f"     everything   tensorboard --logdir={workdir / 'tensorboard'}   (in .venv/bin)"
  )
  result = json.loads((workdir / "result.json").read_text())
  say(f"     it ended at step {result['step']}: {result.get('stopped_by', 'the step limit')}")
  above = [name for name in store.languages if after[name] >= entropy[name]]
  print(
    json.dumps(
      {
        "languages": len(after),
        "held_out_loss": round(float(np.mean(list(after.values()))), 4),
        "unigram_entropy": round(float(np.mean(list(entropy.values()))), 4),
        "not_below_unigram": above,
        "zero_shot": transfer,
        "stopped_by": result.get("stopped_by"),
        "seconds": round(time.monotonic() - began),
      }
    )
  )
  if above:
    raise UserError(f"held-out loss is not below the unigram entropy for {', '.join(above)}")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", "runs/demo", "folder of the run")
  flags.DEFINE_multi_string("pass_on", [], "flags for xlmr_jax.commands.pretrain, e.g. --pass_on=--config.train_steps=100")
  app.run(run_command(main))
