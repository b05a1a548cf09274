"""A checkpoint of a run as a Hugging Face folder with a model card, after fine-tuning on a task where one is named."""

import sys
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config_checks import check_evaluation
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.scorer import Scorer
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.files import AnyPath, write_json
from xlmr_jax.folders import refuse_used_folder, whole_folder
from xlmr_jax.huggingface import export
from xlmr_jax.huggingface.tokenizer import exported, write_tokenizer
from xlmr_jax.open_model import headless, load_params, open_record, open_tokenizer_of, pooler_of_run, source_of
from xlmr_jax.progress import Progress
from xlmr_jax.report import model_card
from xlmr_jax.report.model_card import Tuned
from xlmr_jax.run.workdir import RunRecord, Workdir
from xlmr_jax.training.positions import longest_trained


def to_hf(
  workdir: Workdir, name: str, out: AnyPath, *, dtype: str = "", task: str = "", seed: int = 0,
  config: ConfigDict | None = None,
) -> dict[str, Any]:  # fmt: skip
  """Writes a checkpoint of a run, or of a Hugging Face folder, into the folder `out`.

  name: as in load_params. dtype: a key of export.DTYPES; "" for float32, or for what each tensor has in the folder that the
  run began from, as long as nothing was trained. task: the name of a task to fine-tune on first, with this seed. config: the
  run's, with other values below `evaluate`; None for the run's own.
  Returns {"out", "step", "tensors"} and, with a task, "task" and "scores". Raises UserError, and writes nothing, for
  whatever cannot be exported.
  """
  record = open_record(workdir.root)
  config = ConfigDict(record.config) if config is None else config
  if why := export.why_no_export(config):
    raise UserError(f"{workdir}: {why}")
  refuse_used_folder(out)  # This and the tokenizer are checked before the long part too.
  source, tokenizer = source_of(workdir, record), open_tokenizer_of(workdir.root, record)
  if why := export.why_no_export(config, tokenizer):
    raise UserError(f"{workdir}: {why}")
  exported(tokenizer)
  if record.imported and source is None:
    types = "" if config.model.family == "bert" else "token types of zero, folded into the positions, and "
    print(f"{workdir.initial} was removed: the export has {types}no pooler", file=sys.stderr, flush=True)
  step, params = load_params(workdir.root, record, config, name)
  if not task and (folder := headless(workdir, record, step)):
    raise UserError(f"{folder} has no masked-language-model head to export; train one first, or name a --task")
  tuned, head = None, None
  if task:
    tuned = fine_tune(workdir, record, config, params, step, task, seed)
    params, head = tuned.params["encoder"], export.TunedHead(tuned.task.head, tuned.task.labels, tuned.params["head"])
  sizes = export.sizes_of(config, record.vocabulary_size, source)
  model_type = source.config["model_type"] if source else "bert" if sizes.family == "bert" else "xlm-roberta"
  as_it_was = source if source and step == 0 and not tuned else None
  stored = export.DTYPES[dtype] if dtype else None if as_it_was else export.DTYPES["float32"]
  named = dtype or (as_it_was.tensors[sizes.names.word_table].dtype.name if as_it_was else "float32")
  # transformers cuts texts there, and behind the longest rows there are positions that no text has trained.
  max_tokens = max(longest_trained(record, step), tuned.task.recipe.max_len if tuned else 0)
  with whole_folder(out) as folder:
    write_tokenizer(folder, tokenizer, max_tokens, sizes.token_types)
    with Progress(f"writing the parameters to {out}"):
      written = export.write_weights(folder / "model.safetensors", params, sizes, source, stored, head, tokenizer.specials)
    write_json(folder / "config.json", export.hf_config(config, sizes, named, model_type, head, tokenizer.specials))
    mask = tokenizer.piece(tokenizer.mask_id)
    model_card.write(folder, workdir, record, config, name, step, tuned, mask)
  result = {"out": str(out), "step": step, "tensors": len(written)}
  return result | ({"task": task, "scores": tuned.scores} if tuned else {})


def fine_tune(
  workdir: Workdir, record: RunRecord, config: ConfigDict, params: Any, step: int, task: str, seed: int
) -> Tuned:
  """Trains the parameters of a checkpoint on a task, as the evaluator does, and scores them. UserError: it cannot."""
  registry.get(task)  # An unknown name is refused before anything is read.
  config = config.copy_and_resolve_references()
  config.evaluate.tasks = (task,)
  config.stop.score = ""
  check_evaluation(config)
  tokenizer, pooler = open_tokenizer_of(workdir.root, record), pooler_of_run(workdir, record)
  scorer = Scorer(config, record.vocabulary_size, tokenizer, pooler=pooler)
  tuned = scorer.finetuners[task].task
  plan = scorer.plan(task)  # It finds missing data before the long part.
  if len(plan) != 1:
    raise UserError(
      f"config.evaluate.setting={config.evaluate.setting} trains one model per language; name one language with "
      "--config.evaluate.languages"
    )
  sources, targets = plan[0]
  trained = scorer.fit(task, params, step, seed, sources)
  return Tuned(tuned, trained, sources, scorer.score_all(task, trained, targets), seed)
