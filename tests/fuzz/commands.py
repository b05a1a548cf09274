"""The commands with flags that no one should give: python -m tests.fuzz.commands [--lines=200] [--seed=0].

Each line runs in a fork of a process that has imported what is slow to import. It must end within a minute with 0, 1 or 42,
and without a traceback; and what ends with 1 must say why in one line.
"""

import importlib
import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

NUMBERS = (
  "0",
  "-1",
  "1",
  "3",
  "1e9",
  "nan",
  "inf",
  "x",
  "",
  "99999999999999999999",
  "²",
  "0x10",
  "1.5",
  " 7",
  "None",
  "True",
)
LISTS = ("de", "de,fr", ",", "de,de", "xx", "('de',)", "(", "de fr", "", "(1, 2)", "\ud800", "../de", "a" * 300, "[]")
WORDS = (
  "",
  "x",
  "latest",
  "best",
  "0",
  "-1",
  "cc100",
  "base",
  "base:",
  "base:runlocal,seed=x",
  "smoke:(",
  "nothing.py",
  "xnli",
  "²",
  "a\nb",
)
FLAGS = {  # command: {flag: kind}; * marks those that the command needs
  "train_vocabulary": {"*text": "path", "*out": "path", "*size": "number", "alpha": "number", "character_coverage": "number",
                       "languages": "list", "seed": "number", "sentences": "number", "source": "word"},
  "build_rows": {"*text": "path", "*tokenizer": "path", "*out": "path", "held_out": "number", "languages": "list",
                 "seq_len": "number", "shard_mb": "number", "workers": "number", "source": "word"},
  "pretrain": {"*config": "word", "*workdir": "path", "config.data.rows": "path", "config.train_steps": "number",
               "config.batch_rows": "number", "config.data.languages": "list", "config.evaluate.tasks": "list",
               "config.evaluate.languages": "list", "config.optimizer.peak_lr": "number", "hosts": "word",
               "allow_change": "list", "config.evaluate.modules": "list", "config.compile_cache": "path",
               "config.mesh.fsdp": "number", "config.evaluate.folder": "path", "config.model.heads": "number"},
  "evaluate": {"*workdir": "path", "checkpoint": "word", "tasks": "list", "seeds": "list", "split": "word", "out": "path",
               "precision": "word", "settings": "list", "config.evaluate.folder": "path", "config.evaluate.data": "list",
               "config.evaluate.languages": "list", "config.stop.patience": "number", "config.evaluate.recipe": "list"},
  "score": {"*workdir": "path", "*rows": "path", "checkpoint": "word", "out": "path", "passes": "number"},
  "fill_mask": {"*workdir": "path", "checkpoint": "word", "top": "number"},
  "report": {"*workdir": "path", "rows": "path"},
  "convert": {"source": "path", "workdir": "path", "out": "path", "checkpoint": "word", "dtype": "word", "task": "word",
              "seed": "number", "isolate_documents": "word"},
  "plan": {"*config": "word", "topology": "word", "slices": "number", "rows_per_chip": "number", "vocabulary": "number"},
}  # fmt: skip


def prepare(folder: Path) -> list[str]:
  """Makes text, a vocabulary, rows, a record without checkpoints, a Hugging Face folder, and paths of other kinds."""
  from tests import hugging_face, tiny
  from xlmr_jax.run.workdir import RunRecord, Workdir

  (folder / "text").mkdir()
  for language in ("de", "fr"):
    (folder / "text" / f"{language}.txt").write_text("".join(f"{' '.join(hugging_face.WORDS)} {i}\n\n" for i in range(40)))
  (folder / "vocabulary.model").write_bytes(hugging_face.vocabulary())
  tiny.make_store(folder / "rows")
  (folder / "run").mkdir()
  record = RunRecord(tiny.config(folder / "rows").to_dict(), 90, "c" * 64, 32, "a" * 64)
  record.write(Workdir(folder / "run"))
  (folder / "hf").mkdir()
  hugging_face.write_tensors(folder / "hf" / "model.safetensors", hugging_face.tensors())
  (folder / "hf" / "config.json").write_text(json.dumps(hugging_face.config_of()))
  (folder / "hf" / "sentencepiece.bpe.model").write_bytes(hugging_face.vocabulary())
  (folder / "file").write_text("a file")
  (folder / "empty").mkdir()
  (folder / "nowhere").symlink_to(folder / "gone")
  names = (
    "text",
    "vocabulary.model",
    "rows",
    "run",
    "hf",
    "file",
    "empty",
    "nowhere",
    "new",
    "file/below",
    "nowhere/below",
    "gone/a/b",
  )
  odd = ("", ".", "/", "gs://bucket/x", "s3://b/x", "~/nobody-has-this", "~nobody/x", "a" * 300, "x\ny", "\udcff",
         "/dev/null", "/dev/full", "/proc/self/mem", "/proc/new", "é", " ")  # fmt: skip
  return [*(str(folder / name) for name in names), *odd]


def some_line(rng: random.Random, paths: list[str]) -> list[str]:
  """A command with the flags that it needs, most of the time, and some of the others."""
  command = rng.choice(list(FLAGS))
  line = [command]
  if command == "convert":
    line.append(rng.choice(("from-hf", "to-hf", "x", "")))
  kinds = {"path": paths, "number": NUMBERS, "list": LISTS, "word": WORDS}
  for flag, kind in FLAGS[command].items():
    if rng.random() < (0.95 if flag[0] == "*" else 0.2):
      line.append(f"--{flag.removeprefix('*')}={rng.choice(kinds[kind])}")
  if command == "evaluate":  # Without, it waits for a training, as it should.
    line.append(rng.choice(("--once", "--checkpoint=latest", "--replay")))
  if command == "pretrain":
    line += ["--config.train_steps=1", "--config.optimizer.warmup_steps=0"] if rng.random() < 0.5 else []
  return line


def run_line(line: list[str], folder: Path) -> str:
  """What was wrong with how the command ended; "" for nothing."""
  said = folder / "said"
  child = os.fork()
  if child == 0:
    try:
      os.chdir(folder / "empty")
      with open(said, "wb") as out, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
      signal.alarm(60)
      sys.argv = [f"xlmr {line[0]}", *line[1:]]
      importlib.import_module(f"xlmr_jax.commands.{line[0]}").run()
      code = 0
    except SystemExit as ended:
      code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
      import traceback

      traceback.print_exc()
      code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  text = said.read_text(errors="replace")
  if code not in (0, 1, 42) or "Traceback (most recent" in text:
    return f"exit {code}\n{text[-2500:]}"
  if code == 1 and sum(x.startswith("error: ") for x in text.splitlines()) != 1:
    return f"exit 1, not told in one line\n{text[-1500:]}"
  return ""


def main(arguments: list[str]) -> int:
  """Runs so many lines; 1 if a command ended as it should not."""
  given = dict(x.removeprefix("--").split("=") for x in arguments)
  import jax
  import orbax.checkpoint  # noqa: F401  What is slow to import, once for all lines.

  import xlmr_jax.open_model  # noqa: F401
  from xlmr_jax.training import loop  # noqa: F401

  assert jax.__version__
  rng, wrong = random.Random(int(given.get("seed", "0"))), 0
  home = Path(tempfile.mkdtemp(prefix="fuzz_commands"))
  os.environ["XDG_CACHE_HOME"] = str(home / "cache")
  paths, lines = prepare(home), int(given.get("lines", "200"))
  for _ in range(lines):
    line = some_line(rng, paths)
    if problem := run_line(line, home):
      wrong += 1
      print(f"WRONG {line}\n{problem}\n", flush=True)
  print(f"{lines} lines, {wrong} ended as they should not")
  return int(wrong > 0)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
