"""Command: `make demo`. Text, vocabulary, rows, pretraining, and what the model learnt, in a few minutes on a CPU."""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from xlmr_jax.errors import UserError, run_child, run_command

FLAGS = flags.FLAGS


def say(text: str) -> None:
  print(text, flush=True)


def guesses(workdir: Path, tokenizer_path: Path, languages: tuple[str, ...], seed: int = 0):
  """(language, sentence with a gap, what the model puts there, what stood there): one country a language."""
  import functools

  import jax
  from ml_collections import ConfigDict

  from xlmr_jax.data.tokenizer import BOS, EOS, Tokenizer
  from xlmr_jax.demo import grammar, world
  from xlmr_jax.score import load_params
  from xlmr_jax.train import build_model

  run = json.loads((workdir / "config.json").read_text())
  config = ConfigDict(run["config"])
  model = build_model(config, run["vocabulary_size"])
  _, params = load_params(workdir, config, model, "latest")
  logits = jax.jit(functools.partial(model.apply, method="logits"))
  tokenizer, rng = Tokenizer(tokenizer_path), random.Random(seed)
  for language in languages:
    city = rng.choice(sorted(world.COUNTRY))
    sentence = grammar.render(world.Fact.of("country", city=city, country=world.COUNTRY[city]), language, 0)
    start, end = sentence.slots["country"]
    pieces = tokenizer.encode(sentence.text)[1:-1]
    left = tokenizer.encode(sentence.text[:start].rstrip())[1:-1]
    right = tokenizer.encode(sentence.text[end:])[1:-1]
    while right and pieces[-len(right):] != right:  # the text behind the gap may begin inside a piece
      right = right[1:]
    gap = len(pieces) - len(left) - len(right)
    if gap < 1:
      continue
    ids = np.full((1, run["seq_len"]), 1, np.int32)
    filled = [BOS, *left, *[tokenizer.mask_id] * gap, *right, EOS]
    ids[0, : len(filled)] = filled
    best = np.asarray(logits({"params": params}, ids))[0, 1 + len(left) : 1 + len(left) + gap].argmax(axis=-1)
    said = tokenizer.decode(best.tolist()).strip()
    yield language, f"{sentence.text[:start]}___{sentence.text[end:]}", said, sentence.text[start:end]


def main(_) -> int | None:
  logging.set_verbosity(logging.WARNING)
  workdir, began = Path(FLAGS.workdir).absolute(), time.monotonic()
  say("1/4  text in 15 languages from a small world of facts, a vocabulary, and rows of 64 tokens")
  from xlmr_jax.demo.corpus import build_demo_rows, demo_rows

  build_demo_rows(workdir)
  rows = demo_rows(workdir)
  manifest = json.loads((rows / "manifest.json").read_text())
  counts = {name: of["train"]["rows"] for name, of in manifest["languages"].items()}
  say(f"     {sum(counts.values()):,} rows, from {max(counts, key=counts.get)} {max(counts.values()):,} to "
      f"{min(counts, key=counts.get)} {min(counts.values()):,}; in {rows}")
  say("2/4  pretraining (configs/smoke.py); stop it and run it again, it goes on where it was")
  command = [sys.executable, "-m", "xlmr_jax.main", "--config=configs/smoke.py", f"--workdir={workdir}", *FLAGS.pass_on]
  code = run_child(command)
  if code:
    return code

  say("3/4  pictures")
  from xlmr_jax import report
  from xlmr_jax.data.rows import RowStore

  lines = report.read_lines(workdir / "held_out.jsonl")
  before, after = ({name: of["loss"] for name, of in line["languages"].items()} for line in (lines[0], lines[-1]))
  store = RowStore(rows)
  entropy = report.unigram_entropy(store)
  report.held_out_picture(workdir, workdir / "held_out.png")
  report.languages_picture(before, after, workdir / "languages.png", label="held-out loss, nats a masked token",
                           title=f"Demo: before and after {lines[-1]['step']} updates", bound=entropy)

  say("4/4  what it learnt: held-out loss a language, beside the unigram entropy (knowing only frequencies)")
  for name in store.languages:
    say(f"     {name}  {before[name]:6.2f} -> {after[name]:5.2f}   unigram {entropy[name]:.2f}")
  say("     and the countries it puts into gaps:")
  for language, sentence, said, truth in guesses(workdir, store.tokenizer_path, store.languages):
    say(f"     {language}  {sentence}   {said}   {'(right)' if said == truth else f'(it was {truth})'}")
  say(f"     pictures     {workdir / 'languages.png'}\n                  {workdir / 'held_out.png'}\n"
      f"     checkpoints  {workdir / 'checkpoints'}\n"
      f"     everything   tensorboard --logdir={workdir / 'tensorboard'}   (in .venv/bin)")
  above = [name for name in store.languages if after[name] >= entropy[name]]
  print(json.dumps({"languages": len(after), "held_out_loss": round(float(np.mean(list(after.values()))), 4),
                    "unigram_entropy": round(float(np.mean(list(entropy.values()))), 4), "not_below_unigram": above,
                    "seconds": round(time.monotonic() - began)}))
  if above:
    raise UserError(f"held-out loss is not below the unigram entropy for {', '.join(above)}")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", "runs/demo", "folder of the run")
  flags.DEFINE_multi_string("pass_on", [], "flags for xlmr_jax.main, e.g. --pass_on=--config.train_steps=100")
  app.run(run_command(main))
