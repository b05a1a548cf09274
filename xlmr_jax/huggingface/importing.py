"""A Hugging Face folder as a run: its record, and a workdir that holds its tensors as they are."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

from xlmr_jax.config import default_config
from xlmr_jax.data.tokenizer_json import BERT
from xlmr_jax.files import AnyPath, write_json
from xlmr_jax.folders import whole_folder
from xlmr_jax.huggingface import names, safetensors_file
from xlmr_jax.huggingface.folder import OURS, WEIGHTS, Folder, layer_norm_epsilon, open_folder
from xlmr_jax.ids import SPECIAL_IDS
from xlmr_jax.model.build import FAMILIES
from xlmr_jax.progress import Progress
from xlmr_jax.run import hosts
from xlmr_jax.run.manifest import make_manifest, write_manifest
from xlmr_jax.run.workdir import RunRecord, Workdir


def record_of_folder(folder: Folder) -> RunRecord:
  """The record of a run that begins with this folder and has not trained yet: it has no rows."""
  config, sizes, given = default_config(), folder.sizes, folder.config
  config.model.update(
    layers=sizes.layers, hidden=sizes.hidden, heads=sizes.heads, ffn=sizes.ffn, max_positions=sizes.positions,
    vocabulary_size=sizes.vocabulary, isolate_documents=folder.isolate_documents,
    dropout=float(given.get("hidden_dropout_prob", 0.1)),
    attention_dropout=float(given.get("attention_probs_dropout_prob", 0.1)),
    init_std=float(given.get("initializer_range", 0.02)), layer_norm_epsilon=layer_norm_epsilon(given), family=sizes.family,
  )  # fmt: skip
  if sizes.family == "bert":
    config.model.update(token_types=sizes.token_types, pair_types=folder.separators == BERT.separators)
  return RunRecord(
    config=config.to_dict(), vocabulary_size=sizes.vocabulary, seq_len=FAMILIES[sizes.family].max_seq_len(config.model),
    tokenizer_sha256=hashlib.sha256(folder.vocabulary).hexdigest(), imported=str(folder.path),
  )  # fmt: skip


def from_hf(source: AnyPath, workdir: Workdir, isolate_documents: bool | None = None) -> dict[str, Any]:
  """Makes a run of a Hugging Face folder. Returns {"workdir", "parameters", "vocabulary", "layers", "hidden"}.

  isolate_documents: whether documents that share a row do not see each other; None: as config.json says, else they do.
  Raises UserError, and writes nothing, if the folder is not as it must be or the workdir is not empty.
  """
  folder = open_folder(source)
  record = dataclasses.replace(record_of_folder(folder), versions=hosts.versions())
  if isolate_documents is not None:
    record.config["model"]["isolate_documents"] = isolate_documents
  with whole_folder(workdir.root) as root:
    run = Workdir(root)
    assert isinstance(run.initial, Path)  # whole_folder() makes a folder of this machine.
    run.initial.mkdir(parents=True)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in folder.tensors.items()}
    with Progress(f"copying the parameters of {folder.path}"):
      safetensors_file.write(run.initial / WEIGHTS, shapes, folder.tensors.__getitem__)
    if folder.specials == SPECIAL_IDS:
      shutil.copyfile(folder.path / "config.json", run.initial / "config.json")
    else:
      note = {"isolate_documents": folder.isolate_documents, "special_ids": list(folder.specials)}
      write_json(run.initial / "config.json", folder.config | {OURS: note})
    leaves = {path: [list(leaf.shape), "float32"] for path, leaf in names.leaves(folder.sizes).items()}
    write_manifest(run.initial, make_manifest(run.initial, leaves))
    run.tokenizer.write_bytes(folder.vocabulary)
    record.write(run)
  return {
    "workdir": str(workdir),
    "parameters": sum(tensor.size for tensor in folder.tensors.values()),
    "vocabulary": folder.sizes.vocabulary,
    "layers": folder.sizes.layers,
    "hidden": folder.sizes.hidden,
  }
