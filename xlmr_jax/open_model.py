"""Opens a model: the folder of a run, or a Hugging Face folder, which stands for a run at step 0.

`open_model` is the door for users of the library. The commands take what they need of it from the functions below: the
record, the tokenizer, the parameters of a checkpoint. A run that was imported keeps its first parameters in initial/0, as
a Hugging Face folder with a manifest.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path
from xlmr_jax.hardware import refuse_missing_platform
from xlmr_jax.huggingface import folder as hf_folder
from xlmr_jax.huggingface.importing import record_of_folder
from xlmr_jax.ids import BOS, EOS, MASK, PAD
from xlmr_jax.model.build import build_model, init_params, params_shapes
from xlmr_jax.progress import Progress
from xlmr_jax.run.checkpoint import restore_params
from xlmr_jax.run.checkpoint_folder import best_checkpoint, sound_steps
from xlmr_jax.run.manifest import DamagedError, verify
from xlmr_jax.run.retention import pin_to_read
from xlmr_jax.run.workdir import RunRecord, Workdir, is_hugging_face, read_record
from xlmr_jax.training.model_languages import has_embeddings, number_of_text
from xlmr_jax.training.positions import longest_trained

SHORTEST_ROW = 64  # tokens; programs for shorter rows would cost more in compiling than they save
# Tokens of the batches that a device computes at a time. A CPU is not faster with more than one long row.
TOKENS_PER_BATCH = {"cpu": 512}
TOKENS_PER_BATCH_ON_ACCELERATORS = 8192

Mask = list[tuple[str, float]]  # pieces and their probabilities, the likeliest first


# --- what belongs to a run -------------------------------------------------------------------------------------------


def open_record(path: str | os.PathLike) -> RunRecord:
  """The record of a run, or of a Hugging Face folder as if a run had been made from it. UserError: path is neither."""
  path = any_path(path)
  return record_of_folder(hf_folder.open_folder(path)) if is_hugging_face(path) else read_record(Workdir(path))


def open_tokenizer_of(path: str | os.PathLike, record: RunRecord) -> Tokenizer:
  """The tokenizer of a run or Hugging Face folder. UserError: it is missing, or the run was made with another one."""
  path = any_path(path)
  if is_hugging_face(path):
    return open_tokenizer(path, hf_folder.open_folder(path).vocabulary)
  file = Workdir(path).tokenizer
  if record.rows and not file.exists():
    file = any_path(record.rows) / file.name
  tokenizer = open_tokenizer(file)
  if tokenizer.sha256 != record.tokenizer_sha256:
    raise UserError(f"{file} is not the vocabulary that the run in {path} was made with; restore it")
  return tokenizer


def source_of(workdir: Workdir, record: RunRecord) -> hf_folder.Folder | None:
  """The opened Hugging Face folder that a run began from; None where there is none, or where it was removed."""
  if is_hugging_face(workdir.root):
    return hf_folder.open_folder(workdir.root)
  if record.imported and workdir.initial.is_dir():
    return hf_folder.open_folder(workdir.initial, tokenizer=False)
  return None


def headless(workdir: Workdir, record: RunRecord, step: int) -> Path | None:
  """The Hugging Face folder that parameters are from, if it has no masked-language-model head, so that load() drew one."""
  source = source_of(workdir, record) if step == 0 else None
  return source.path if source and not source.has_head else None


def pooler_of_run(workdir: Workdir, record: RunRecord) -> dict[str, np.ndarray] | None:
  """The pooler that a BERT brought along, with which fine-tuning begins as in transformers; None for every other run."""
  if record.config["model"]["family"] != "bert":
    return None
  source = source_of(workdir, record)
  if record.imported and source is None:
    print(f"{workdir.initial} was removed, and with it the pooler: fine-tuning on texts begins with a pooler that is drawn, "
          "and its scores do not compare with those of before", file=sys.stderr, flush=True)  # fmt: skip
  return hf_folder.pooler_of(source) if source else None


def load_initial(workdir: Workdir, abstract_params: Any) -> Any:
  """The parameters that an imported run begins with. abstract_params: jax.ShapeDtypeStruct leaves with shardings.

  Raises UserError if the parameters were removed or damaged, or are of a model of other sizes.
  """
  try:
    verify(workdir.initial)
  except DamagedError as error:
    raise UserError(f"the imported parameters cannot be used: {error}; import again into a new workdir") from None
  return hf_folder.load(hf_folder.open_folder(workdir.initial, tokenizer=False), abstract_params)


def load_params(path: str | os.PathLike, record: RunRecord, config: ConfigDict, name: str | int) -> tuple[int, Any]:
  """(step, parameters on the first device) of a checkpoint.

  name: a step, "best", "latest", or "initial" for the parameters before step 0. The latest of an imported run without
  checkpoints is step 0, as are the latest and the best of a Hugging Face folder. UserError: there is no such checkpoint.
  """
  refuse_missing_platform()
  with Progress(f"reading the model in {path}, checkpoint {name}"):
    return _load_params(path, record, config, str(name))


def _load_params(path: str | os.PathLike, record: RunRecord, config: ConfigDict, name: str) -> tuple[int, Any]:
  workdir, size = Workdir(path), record.vocabulary_size
  if is_hugging_face(workdir.root):
    if name not in ("best", "latest", "initial", "0"):
      raise UserError(f"checkpoint {name}: {workdir} is a Hugging Face folder, which has one model; use latest")
    return 0, hf_folder.load(hf_folder.open_folder(workdir.root), params_shapes(config, size))
  steps = sound_steps(workdir.checkpoints)
  if name == "best":
    return _restore(workdir.best, best_checkpoint(workdir), params_shapes(config, size))
  if name == "initial" or (name == "latest" and not steps and record.imported):
    return 0, load_initial(workdir, params_shapes(config, size)) if record.imported else init_params(config, size)
  if not steps:
    raise UserError(f"{workdir.checkpoints} holds no finished checkpoint")
  if name != "latest" and name not in map(str, steps):
    raise UserError(f"checkpoint {name}: {workdir} has {', '.join(map(str, sorted(steps)))}, latest, initial")
  step = steps[0] if name == "latest" else int(name)
  if workdir.result.exists():  # The run has ended, so that nobody removes anything.
    return _restore(workdir.checkpoints, step, params_shapes(config, size))
  with pin_to_read(workdir, step):
    if step not in sound_steps(workdir.checkpoints):
      time.sleep(1.0)  # A trainer that was removing it brings it back when it sees the pin.
    if step not in sound_steps(workdir.checkpoints):
      raise UserError(f"checkpoint {step}: the training in {workdir} removed it before it was read; choose another one")
    return _restore(workdir.checkpoints, step, params_shapes(config, size))


def _restore(directory: AnyPath, step: int, abstract_params: Any) -> tuple[int, Any]:
  try:
    return step, restore_params(directory, step, abstract_params)
  except DamagedError as error:
    raise UserError(f"checkpoint {step} is damaged: {error}; choose another one") from None


# --- the model to use from Python ------------------------------------------------------------------------------------


class Model:
  """A masked language model on the first device. It computes in fp32, whatever the run trained in.

      from xlmr_jax import open_model

      model = open_model("RUN")                        # the workdir of a run, or a Hugging Face folder
      model.fill(["Paris is the <mask> of France."])   # [[[("▁capital", 0.93), ("▁center", 0.02), ...]]]
      vectors = model.encode(["a text", "ein Text"])   # float32[2, hidden]

  Texts of about one length share a compiled program; the first of each length waits for the compiler.
  """

  def __init__(self, record: RunRecord, params: Any, tokenizer: Tokenizer, step: int, headless: Path | None = None):
    """record: of the run; params: as load_params returns them; step: at which they were saved.

    headless: the folder that the parameters are from, if it has no masked-language-model head; `fill` is refused then.
    """
    self.record, self.params, self.tokenizer, self.step, self.headless = record, params, tokenizer, step, headless
    config = ConfigDict(record.config)
    config.model.dtype = "float32"
    self.module: Any = build_model(config, record.vocabulary_size)  # the flax module that takes the parameters
    self.max_tokens = self.module.encoder.max_seq_len  # of a text, with <s> and </s>
    self.trained_tokens = longest_trained(record, step)  # of the longest rows of the training; may be fewer than max_tokens
    self.needs_language = has_embeddings(config)  # whether fill() and encode() must be told the language of their texts
    self._likeliest = jax.jit(self._make_likeliest(), static_argnums=3)
    self._pooled = jax.jit(self._make_pooled(), static_argnums=2)

  def fill(self, texts: Iterable[str], top: int = 5, language: str = "") -> list[list[Mask]]:
    """Per text and per "<mask>" in it, the `top` likeliest pieces and their probabilities, the likeliest first.

    A "▁" in front of a piece stands for a space: the piece begins a word. Special tokens are never proposed, although they
    have a share of the probability. No texts give an empty list. Raises UserError, before anything is computed, for a text
    without a mask or with more tokens than the model takes, because a cut could take the mask away; and for a model whose
    folder has no masked-language-model head. A warning tells of texts with more tokens than the rows of the training.

    language: that the texts are in, such as "fr". A model with language embeddings needs it; others do not look at it.
    """
    texts = _listed(texts)
    spoken = number_of_text(ConfigDict(self.record.config), language)
    if self.headless:
      raise UserError(f"{self.headless} has no masked-language-model head, so it cannot fill a {MASK}; train one first")
    if not 1 <= top <= len(self.tokenizer.replacements):
      raise UserError(f"top={top}: must be at least 1, and at most the number of pieces")
    masks: list[tuple[np.ndarray, int, int]] = []  # (ids, position of a mask, number of the text)
    for number, text in enumerate(texts):
      ids = np.array(self.tokenizer.encode_masked(text), np.int32)
      positions = np.flatnonzero(ids == self.tokenizer.mask_id)
      if not positions.size:
        raise UserError(f"no {MASK} in {text!r}")
      if len(ids) > self.max_tokens:
        raise UserError(f"{len(ids)} tokens, but the model takes {self.max_tokens}: {text[:60]!r}...")
      masks += [(ids, int(position), number) for position in positions]
    self._warn_of_positions([len(ids) for ids in dict((number, ids) for ids, _, number in masks).values()])
    found: list[Mask] = [[] for _ in masks]
    for chosen, ids_BxL in self._batches([ids for ids, _, _ in masks], f"filling {len(masks)} gaps"):
      positions_B = np.zeros(len(ids_BxL), np.int32)
      positions_B[: len(chosen)] = [masks[i][1] for i in chosen]
      languages_Bx2 = None if spoken is None else np.full((len(ids_BxL), 2), spoken, np.int32)
      probabilities, pieces = jax.device_get(self._likeliest(self.params, ids_BxL, positions_B, top, languages_Bx2))
      for i, shares, ids in zip(chosen, probabilities, pieces):
        found[i] = [(self.tokenizer.piece(id), float(share)) for id, share in zip(ids, shares)]
    by_text: list[list[Mask]] = [[] for _ in texts]
    for (_, _, number), pieces in zip(masks, found):
      by_text[number].append(pieces)
    return by_text

  def encode(self, texts: Iterable[str], pooling: Literal["mean", "first"] = "mean", language: str = "") -> np.ndarray:
    """Vectors of texts, float32[number of texts, hidden], made of the encoder's last hidden states.

    pooling: "mean" is the mean over all tokens of a text, `<s>` and `</s>` included, so that an empty text has a vector
    too; "first" is the state at `<s>`. A vector does not depend on the other texts. "<mask>" is read as text. No texts give
    float32[0, hidden]. Of a text with more tokens than the model takes, the first ones count, and a warning says how many
    texts were cut; another one tells of texts with more tokens than the rows of the training. language: as of fill().
    """
    texts = _listed(texts)
    spoken = number_of_text(ConfigDict(self.record.config), language)
    if pooling not in ("mean", "first"):
      raise UserError(f"pooling={pooling!r}: must be mean or first")
    pieces = self.tokenizer.encode_lines(texts)
    room = self.max_tokens - 2
    cut = sum(len(ids) > room for ids in pieces)
    if cut:
      warnings.warn(f"{cut} of {len(texts)} texts have more than {self.max_tokens} tokens and were cut", stacklevel=2)
    self._warn_of_positions([len(ids) + 2 for ids in pieces])
    vectors = np.zeros((len(texts), self.module.encoder.hidden), np.float32)
    rows = [np.concatenate([[BOS], ids[:room], [EOS]]).astype(np.int32) for ids in pieces]
    for chosen, ids_BxL in self._batches(rows, f"encoding {len(rows)} texts"):
      languages_Bx2 = None if spoken is None else np.full((len(ids_BxL), 2), spoken, np.int32)
      vectors[chosen] = jax.device_get(self._pooled(self.params, ids_BxL, pooling, languages_Bx2))[: len(chosen)]
    return vectors

  def _warn_of_positions(self, lengths: list[int]) -> None:
    """Warns of texts that reach positions which the training left as they were drawn. lengths: of all texts, in tokens."""
    long = sum(length > self.trained_tokens for length in lengths)
    if long and self.trained_tokens < self.max_tokens:
      warnings.warn(
        f"{long} of {len(lengths)} texts have more than {self.trained_tokens} tokens, the most that a row of the training "
        "had: the positions behind them are untrained, and results for these texts are worth little",
        stacklevel=3,
      )

  def _batches(self, rows: list[np.ndarray], what: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices int[n] into rows, their ids int32[B, L] with n <= B), with one B for each of a few L.

    what: is done with them, which a line on stderr says if it takes long.
    """
    tokens = TOKENS_PER_BATCH.get(jax.default_backend(), TOKENS_PER_BATCH_ON_ACCELERATORS)
    lengths = np.array(row_lengths(self.max_tokens))
    length_of_row = lengths[np.searchsorted(lengths, [len(row) for row in rows])]
    with Progress(what, len(rows), "rows", compiles=True) as progress:
      for length in np.unique(length_of_row):
        of_this_length, size = np.flatnonzero(length_of_row == length), max(1, tokens // int(length))
        for start in range(0, len(of_this_length), size):
          chosen = of_this_length[start : start + size]
          ids_BxL = np.full((size, length), PAD, np.int32)
          for ids_L, index in zip(ids_BxL, chosen):
            ids_L[: len(rows[index])] = rows[index]
          yield chosen, ids_BxL
          progress.add(len(chosen))

  def _make_likeliest(self) -> Callable[..., Any]:
    """(params, ids int32[B, L], positions int32[B], top, languages) -> (probabilities float32[B, top], ids int32[B, top]).

    languages: int32[B, 2] for a model with language embeddings, else None.
    """
    module, size = self.module, self.record.vocabulary_size
    is_piece_V = np.zeros(size, bool)  # fairseq would hide <s> and </s> too; no piece fits there.
    is_piece_V[self.tokenizer.replacements] = True

    def likeliest(params: Any, ids_BxL: jax.Array, positions_B: jax.Array, top: int, languages_Bx2: jax.Array | None) -> Any:
      with jax.default_matmul_precision("highest"):  # Accelerators would round the factors of fp32 products.
        h_BxD = module.apply({"params": params}, ids_BxL, positions_B[:, None], languages_Bx2=languages_Bx2)[:, 0]
        logits_BxV = h_BxD @ params["token_embedding"][:size].T + params["head_bias"][:size]
      return jax.lax.top_k(jnp.where(is_piece_V, jax.nn.softmax(logits_BxV), 0.0), top)

    return likeliest

  def _make_pooled(self) -> Callable[..., jax.Array]:
    """(params, ids int32[B, L], pooling, languages as of _make_likeliest) -> float32[B, D]."""
    module = self.module

    def pooled(params: Any, ids_BxL: jax.Array, pooling: str, languages_Bx2: jax.Array | None) -> jax.Array:
      with jax.default_matmul_precision("highest"):
        x_BxLxD = module.apply({"params": params}, ids_BxL, method="encode", languages_Bx2=languages_Bx2)
      if pooling == "first":
        return x_BxLxD[:, 0]
      real_BxLx1 = (ids_BxL != PAD)[..., None]
      return jnp.where(real_BxLx1, x_BxLxD, 0.0).sum(axis=1) / jnp.maximum(real_BxLx1.sum(axis=1), 1)

    return pooled


def open_model(path: str | os.PathLike, checkpoint: str | int = "latest") -> Model:
  """The model in the folder of a run, or in a Hugging Face folder, as a Model.

  checkpoint: a step, "best", "latest" or "initial". Raises UserError if path is neither kind of folder, or if there is no
  such checkpoint.
  """
  record = open_record(path)
  tokenizer = open_tokenizer_of(path, record)
  step, params = load_params(path, record, ConfigDict(record.config), checkpoint)
  return Model(record, params, tokenizer, step, headless(Workdir(path), record, step))


def row_lengths(longest: int) -> list[int]:
  """The lengths of rows that programs are compiled for: `longest` and its halves down to SHORTEST_ROW, shortest first."""
  lengths = [longest]
  while lengths[0] % 2 == 0 and lengths[0] // 2 >= SHORTEST_ROW:
    lengths.insert(0, lengths[0] // 2)
  return lengths


def _listed(texts: Iterable[str]) -> list[str]:
  """The texts of a list, an iterator or the like. UserError for one text in its place, whose letters would count as texts;
  and for an item that is no text.
  """
  if isinstance(texts, str):
    raise UserError(f"texts={texts[:60]!r}: must be a list of texts, not one text")
  found = list(texts)
  for number, text in enumerate(found):
    if not isinstance(text, str):
      raise UserError(f"texts[{number}]={str(text)[:60]}: is a {type(text).__name__}, and must be a str")
    if any("\ud800" <= character <= "\udfff" for character in text):
      raise UserError(f"texts[{number}]={text[:60]!r}: it holds half of a surrogate pair, which stands for no character")
  return found
