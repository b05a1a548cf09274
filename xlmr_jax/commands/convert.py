"""Takes an XLM-R, RoBERTa or BERT in Hugging Face's layout into a run, and a run's model out again.

  xlmr convert from-hf --source=DIR --workdir=RUN [--isolate_documents]
  xlmr convert to-hf --workdir=RUN --checkpoint=best --out=DIR [--dtype=bfloat16]
  xlmr convert to-hf --workdir=RUN --checkpoint=best --out=DIR --task=xnli --config.evaluate.folder=LABELLED
      [--seed=0]       fine-tunes by the task's recipe, as the evaluator does, and writes the encoder and the head

from-hf copies the tensors into RUN/initial/0 as they are. `xlmr pretrain --config=imported:RUN` begins with them, and
evaluate, score and fill_mask take them as the run's latest until there is a checkpoint.
"""

import json

from absl import flags as absl_flags

from xlmr_jax.commands import flags
from xlmr_jax.errors import UserError

NEEDED = {"from-hf": ("source", "workdir"), "to-hf": ("workdir", "out")}


def main(argv: list[str]) -> None:
  """Converts as the first argument says, and prints the result."""
  action, *overrides = argv[1:] or [""]
  if action not in NEEDED:
    raise UserError(f"{action!r}: say from-hf or to-hf, e.g. xlmr convert from-hf --source=DIR --workdir=RUN")
  for name in NEEDED[action]:
    if not flags.FLAGS[name].value:
      raise UserError(f"{action} needs --{name}=DIR")
  flags.refuse_arguments(argv[1:], "--config." if action == "to-hf" else "\0")

  from xlmr_jax.run.workdir import Workdir

  workdir = Workdir(flags.path_of("workdir", makes="folder" if action == "from-hf" else ""))
  if action == "from-hf":
    from xlmr_jax.huggingface.importing import from_hf

    print(json.dumps(from_hf(flags.path_of("source"), workdir, flags.FLAGS.isolate_documents)))
    return

  out = flags.path_of("out", makes="folder")
  from xlmr_jax.open_model import open_record
  from xlmr_jax.report.export import to_hf
  from xlmr_jax.run import compile_cache, memory

  config = flags.override_config(open_record(workdir.root).config, overrides)
  if flags.FLAGS.task:
    config.evaluate.tasks = (flags.FLAGS.task,)
    modules_are_given = any(override.startswith("--config.evaluate.modules=") for override in overrides)
    flags.load_tasks(config, None if modules_are_given else workdir.root)
    memory.keep_freed_memory(of_many_shapes=True)
    compile_cache.use(config.compile_cache, workdir.root)
  result = to_hf(
    workdir, flags.FLAGS.checkpoint, out, dtype=flags.FLAGS.dtype or "", task=flags.FLAGS.task,
    seed=flags.FLAGS.seed, config=config,
  )  # fmt: skip
  print(json.dumps(result))


def run() -> None:
  """Defines the flags and runs main."""
  absl_flags.DEFINE_string(
    "source", "", "from-hf: folder with config.json, model.safetensors (or its index) and a tokenizer"
  )
  absl_flags.DEFINE_string("workdir", "", "folder of the run; to-hf: or a Hugging Face folder, e.g. to fine-tune it")
  absl_flags.DEFINE_bool("isolate_documents", None, "from-hf: documents that share a row do not see each other")
  absl_flags.DEFINE_string("checkpoint", "best", "to-hf: best, latest, initial or a step")
  absl_flags.DEFINE_string("out", "", "to-hf: the folder to make")
  absl_flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16", "float16"],
    "to-hf: the type of the written tensors; by default float32, or as they came in if nothing was trained since",
  )  # fmt: skip
  absl_flags.DEFINE_string("task", "", "to-hf: fine-tune on this task first; --config.evaluate.* name its files")
  absl_flags.DEFINE_integer("seed", 0, "to-hf: the seed of the fine-tuning")
  flags.start(main, flags.parse_flags_leaving_config)
