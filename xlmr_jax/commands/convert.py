"""Command: XLM-R and RoBERTa in Hugging Face's layout into a run, and any run's model out again.

  xlmr convert from-hf --source=DIR --workdir=RUN [--isolate_documents]
  xlmr convert to-hf --workdir=RUN --checkpoint=best --out=DIR [--dtype=bfloat16]
  xlmr convert to-hf --workdir=RUN --checkpoint=best --out=DIR --task=xnli --config.evaluate.folder=LABELLED
      [--seed=0]       # fine-tunes by the task's recipe, as the evaluator does, and writes encoder and head

from-hf copies the tensors into RUN/initial/0 as they are: main begins with them (--config=configs/imported.py:RUN), and
evaluate, score and fill_mask take them as the run's latest until there is a checkpoint.
"""

import json
import shutil
import sys
from pathlib import Path

from absl import app, flags, logging

from xlmr_jax import open_model as runs
from xlmr_jax.errors import UserError, run_command

FLAGS = flags.FLAGS


# --- in ------------------------------------------------------------------------------------------------------------


def from_hf(source: Path, workdir: Path, isolate_documents: bool | None = None) -> dict:
  """Makes a run of a Hugging Face folder; UserError, and nothing written, if anything about either is not as it must be.

  isolate_documents: how rows of several documents are read; None: as config.json says, or as fairseq does.
  """
  from etils import epath

  from xlmr_jax.huggingface import export, folder, names
  from xlmr_jax.huggingface import safetensors_file as files
  from xlmr_jax.run import checkpoint, hosts
  from xlmr_jax.run import metrics as logs

  opened = folder.open_folder(source)
  record = runs.record_of(opened) | {"versions": hosts.versions()}
  if isolate_documents is not None:
    record["config"]["model"]["isolate_documents"] = isolate_documents

  def fill(run: Path) -> None:
    initial = run / runs.INITIAL
    initial.mkdir(parents=True)
    tensors = opened.tensors
    files.write(initial / folder.WEIGHTS, {name: (of.dtype, of.shape) for name, of in tensors.items()}, tensors.__getitem__)
    shutil.copyfile(source / "config.json", initial / "config.json")
    checkpoint.write_manifest(
      epath.Path(initial), {path: [list(leaf.shape), "float32"] for path, leaf in names.leaves(opened.sizes).items()}
    )
    (run / "tokenizer.model").write_bytes(opened.vocabulary)
    logs.write_json(run / "config.json", record)

  export.write_folder(workdir, fill)
  parameters = sum(of.size for of in opened.tensors.values())
  return {
    "workdir": str(workdir),
    "parameters": parameters,
    "vocabulary": opened.sizes.vocabulary,
    "layers": opened.sizes.layers,
    "hidden": opened.sizes.hidden,
  }


# --- out -----------------------------------------------------------------------------------------------------------


def to_hf(
  workdir: Path,
  name: str,
  out: Path,
  *,
  dtype: str = "float32",
  task: str = "",
  seed: int = 0,
  overrides: tuple[str, ...] = (),
) -> dict:
  """Writes a checkpoint of a run as a Hugging Face folder; with a task, after fine-tuning on it.

  overrides: ["--config.evaluate.folder=LABELLED", ...], as for evaluate. UserError, and nothing written: see the message.
  """
  from xlmr_jax.evaluation import follower as evaluate
  from xlmr_jax.huggingface import export
  from xlmr_jax.huggingface.tokenizer import write_tokenizer
  from xlmr_jax.report import card

  record = runs.read_run(workdir)
  config = evaluate.read_config(record, list(overrides))
  source, tokenizer = runs.source_of(workdir, record), runs.vocabulary_of(workdir, record)
  if config.model.pre_norm:
    raise UserError(f"{workdir}: config.model.pre_norm=True is XLM-R XL's layer, which has no export yet")
  if out.exists() and (not out.is_dir() or any(out.iterdir())):  # before the long part
    raise UserError(f"{out} exists and is not an empty folder; choose another or remove it")
  if record.get("imported") and source is None:
    print(
      f"{workdir / runs.INITIAL} is gone: token types are written as zero, folded into the positions, and no pooler",
      file=sys.stderr,
      flush=True,
    )
  step, params = runs.load_params(workdir, record, config, name)
  head, tuned = None, None
  if task:
    tuned = fine_tune(record, config, workdir, params, step, task, seed)
    params, head = tuned.params["encoder"], (tuned.task.head, tuned.params["head"])
  sizes = export.sizes_of(config, record["vocabulary_size"], source)
  model_type = source.config["model_type"] if source else "xlm-roberta"
  written: list[str] = []

  def fill(folder: Path) -> None:
    write_tokenizer(folder, tokenizer.model, sizes.positions - 2)
    written.extend(export.write_weights(folder / "model.safetensors", params, sizes, source, export.DTYPES[dtype], head))
    export.write_json(
      folder / "config.json", export.hf_config(config, sizes, dtype, model_type, tuned.task if tuned else None)
    )
    card.write(folder, workdir, record, config, name, step, tuned)

  export.write_folder(out, fill)
  of_task = {"task": task, "scores": tuned.scores} if tuned else {}
  return {"out": str(out), "step": step, "tensors": len(written)} | of_task


def fine_tune(record: dict, config, workdir: Path, params, step: int, task: str, seed: int):
  """A card.Tuned: the task's encoder and head, trained as the evaluator does, and what they score."""
  from xlmr_jax.commands import pretrain as run_main
  from xlmr_jax.evaluation import finetune
  from xlmr_jax.evaluation.tasks import registry
  from xlmr_jax.report.card import Tuned
  from xlmr_jax.run import compile_cache, hosts

  registry.get(task)  # by name, before anything is read
  config = config.copy_and_resolve_references()
  config.evaluate.tasks = (task,)
  config.stop.score = ""
  run_main.check_evaluation(config)
  hosts.keep_freed_memory()
  compile_cache.use(config.compile_cache, workdir)
  scorer = finetune.Scorer(record | {"config": config.to_dict()}, workdir)
  of = scorer.finetuners[task].task
  plans = finetune.plan(of, config.evaluate.setting, scorer.languages_of(of))
  if len(plans) != 1:
    raise UserError(
      f"--config.evaluate.setting={config.evaluate.setting} trains a model a language; name one with "
      "--config.evaluate.languages"
    )
  scorer.targets(task, plans[0][1])  # before the long part
  trained = scorer.fit(task, params, step, seed, plans[0][0])
  return Tuned(of, trained, plans[0][0], scorer.score_all(task, trained, plans[0][1]), seed)


# --- the command ---------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int | None:
  logging.set_verbosity(logging.WARNING)
  action, *overrides = argv[1:] or [""]
  needed = {"from-hf": ("source", "workdir"), "to-hf": ("workdir", "out")}
  if action not in needed:
    raise UserError(f"{action!r}: say from-hf or to-hf, e.g. xlmr convert from-hf --source=DIR --workdir=RUN")
  for name in needed[action]:
    if not FLAGS[name].value:
      raise UserError(f"{action} needs --{name}=DIR")
  wrong = next((each for each in overrides if not each.startswith("--config.") or action == "from-hf"), None)
  if wrong:
    raise UserError(f"unexpected argument {wrong!r} for {action}; flags are written --name=value")
  workdir = Path(FLAGS.workdir).absolute()
  if action == "from-hf":
    result = from_hf(Path(FLAGS.source).absolute(), workdir, FLAGS.isolate_documents)
  else:
    result = to_hf(
      workdir,
      FLAGS.checkpoint,
      Path(FLAGS.out).absolute(),
      dtype=FLAGS.dtype,
      task=FLAGS.task,
      seed=FLAGS.seed,
      overrides=tuple(overrides),
    )
  print(json.dumps(result))
  return None


if __name__ == "__main__":
  from xlmr_jax.evaluation.follower import parse_flags

  flags.DEFINE_string("source", "", "from-hf: folder with config.json, model.safetensors (or its index) and a tokenizer")
  flags.DEFINE_string("workdir", "", "folder of the run; to-hf: or a Hugging Face folder, e.g. to fine-tune it")
  flags.DEFINE_bool("isolate_documents", None, "from-hf: documents that share a row do not see each other")
  flags.DEFINE_string("checkpoint", "best", "to-hf: best, latest, initial or a step")
  flags.DEFINE_string("out", "", "to-hf: the folder to make")
  flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "to-hf: of the tensors")
  flags.DEFINE_string("task", "", "to-hf: fine-tune on this task first; its files as --config.evaluate.* say")
  flags.DEFINE_integer("seed", 0, "to-hf: of the fine-tuning")
  app.run(run_command(main), flags_parser=parse_flags)
