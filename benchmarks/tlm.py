"""What the other language is worth: the loss of masked pieces of a sentence with its translation beside it, and without.

    python -m benchmarks.tlm --workdir=RUN [--rows=ROWS] [--checkpoint=latest] [--pairs=200] [--seed=0]

ROWS, by default the run's own, hold pairs of parallel sentences made with a SentencePiece vocabulary. The held-out ones are
read, none of which is among those to train on. Of one side of each, pieces are masked, all as <mask>; the other side is
whole. The same sentence with the same masks is read in three ways: alone, beside its translation, and beside the translation
of another sentence, which tells how much of the gain is not the translation's. The last line is JSON; before it comes a
table for RESULTS.md.
"""

import functools
import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError, run_command
from xlmr_jax.files import any_path
from xlmr_jax.ids import BOS, EOS, PAD
from xlmr_jax.model.build import build_model, family_of
from xlmr_jax.open_model import load_params, open_record
from xlmr_jax.training.losses import nll
from xlmr_jax.training.model_languages import sides_of

WAYS = ("alone", "translation", "another")
BATCH = 32
SEPARATORS = 2  # </s> between two texts, with SentencePiece vocabularies


class Sentence(NamedTuple):
  """One side of a pair, with the other side of it."""

  pair: str
  side: int  # 0 or 1
  ids: list[int]
  other: list[int]


class Reading(NamedTuple):
  """A row to read: its ids, the places of its masks, what stood there, and the languages of its two texts."""

  ids: list[int]
  masks: list[int]
  labels: list[int]
  languages: tuple[int, int]


def pairs_of(rows: np.ndarray) -> list[tuple[list[int], list[int]]]:
  """The two texts of each pair in rows, int32[n, L]."""
  found = []
  for row in rows.tolist():
    documents: list[list[int]] = []
    for id in row:
      if id == BOS:
        documents.append([])
      elif id != PAD:
        documents[-1].append(id)
    for document in documents:
      first = document.index(EOS)
      found.append((document[:first], [id for id in document[first:] if id != EOS]))
  return found


def readings(
  sentence: Sentence, wrong: list[int], masks: np.ndarray, mask_id: int, sides: tuple[int, int]
) -> dict[str, Reading]:
  """The row of each of WAYS. wrong: the text of another pair in the other language; masks: places in the sentence."""
  hidden = list(sentence.ids)
  for place in masks:
    hidden[place] = mask_id
  labels, own = [sentence.ids[place] for place in masks], sides[sentence.side]
  found = {"alone": Reading([BOS, *hidden, EOS], [1 + int(m) for m in masks], labels, (own, own))}
  for way, other in (("translation", sentence.other), ("another", wrong)):
    texts = (hidden, other) if sentence.side == 0 else (other, hidden)
    start = 1 if sentence.side == 0 else 1 + len(other) + SEPARATORS
    ids = [BOS, *texts[0], *[EOS] * SEPARATORS, *texts[1], EOS]
    found[way] = Reading(ids, [start + int(m) for m in masks], labels, sides)
  return found


def losses_of(model: Any, params: Any, read: list[Reading], seq_len: int) -> list[tuple[np.ndarray, np.ndarray]]:
  """(loss in nats, whether the likeliest piece is right) of each mask of each reading."""
  slots = max(len(one.masks) for one in read)

  @jax.jit
  def score(params: Any, ids: Any, places: Any, labels: Any, languages: Any) -> Any:
    given = {"languages_Bx2": languages} if model.encoder.takes_languages else {}
    h = model.apply({"params": params}, ids, places, **given)
    size, table, bias = model.encoder.vocabulary_size, params["token_embedding"], params["head_bias"]
    losses = nll(h, table, bias, labels, jnp.ones(labels.shape), vocabulary_size=size)
    return losses, (h @ table[:size].T + bias[:size]).argmax(axis=-1) == labels

  found = []
  for start in range(0, len(read), BATCH):
    part = read[start : start + BATCH]
    ids, places, labels = (
      np.full((BATCH, width), fill, np.int32) for width, fill in ((seq_len, PAD), (slots, 0), (slots, 0))
    )
    languages = np.zeros((BATCH, 2), np.int32)
    for row, one in enumerate(part):
      ids[row, : len(one.ids)] = one.ids
      places[row, : len(one.masks)], labels[row, : len(one.masks)] = one.masks, one.labels
      languages[row] = one.languages
    losses, right = jax.device_get(score(params, ids, places, labels, languages))
    found += [(losses[row, : len(one.masks)], right[row, : len(one.masks)]) for row, one in enumerate(part)]
  return found


def measure(workdir: str, rows_folder: str, checkpoint: str, most: int, seed: int) -> dict[str, Any]:
  """{"step", "masks", "pairs": {pair or "all": {way: {"loss", "right"}}}}."""
  record = open_record(workdir)
  config = ConfigDict(record.config)
  config.model.dtype = "float32"
  folder = rows_folder or record.rows or ""
  pairs_there = read_manifest(any_path(folder)).get("pairs", {})
  if not pairs_there:
    raise UserError(f"{folder} holds no pairs of parallel sentences")
  store = RowStore(folder, languages=pairs_there, tokenizer_sha256=record.tokenizer_sha256)
  sides = sides_of(config, store) or ((0, 0),) * len(store.languages)
  seq_len = min(store.seq_len, family_of(config).max_seq_len(config.model))
  rng, given, read = np.random.default_rng(seed), [], []
  for name in store.pairs:
    number = store.languages.index(name)
    rows = min(int(store.counts("held_out")[number]), most)
    pairs = pairs_of(store.read("held_out", np.full(rows, number), np.arange(rows)))[:most]
    for i, pair in enumerate(pairs):
      for side in (0, 1):
        own, wrong = pair[side], pairs[(i + 1) % len(pairs)][1 - side]
        if max(len(pair[1 - side]), len(wrong)) + len(own) + SEPARATORS + 2 > seq_len:
          continue
        masks = np.sort(rng.permutation(len(own))[: max(1, round(config.data.mask_share * len(own)))])
        given.append(Sentence(name, side, own, pair[1 - side]))
        read.append(readings(given[-1], wrong, masks, store.mask_id, sides[number]))
  step, params = load_params(workdir, record, config, checkpoint)
  model = build_model(config, record.vocabulary_size)
  scored = {way: losses_of(model, params, [one[way] for one in read], seq_len) for way in WAYS}
  groups: dict[str, list[int]] = {"all": list(range(len(given)))}
  for i, sentence in enumerate(given):
    groups.setdefault(sentence.pair, []).append(i)
  mean = functools.partial(lambda part, way, group: float(np.concatenate([scored[way][i][part] for i in group]).mean()))
  table = {
    name: {way: {"loss": round(mean(0, way, group), 4), "right": round(mean(1, way, group), 4)} for way in WAYS}
    for name, group in sorted(groups.items())
  }
  return {"step": step, "sentences": len(given), "masks": sum(len(one["alone"].masks) for one in read), "pairs": table}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  given = flags.FLAGS
  result = measure(given.workdir, given.rows, given.checkpoint, given.pairs, given.seed)
  print("| pair | loss alone | beside its translation | beside another | right alone | translation | another |")
  print("|---|---|---|---|---|---|---|")
  for name, ways in result["pairs"].items():
    cells = [f"{ways[way]['loss']:.2f}" for way in WAYS] + [f"{100 * ways[way]['right']:.1f} %" for way in WAYS]
    print(f"| {name} | {' | '.join(cells)} |")
  sys.stdout.flush()
  print(json.dumps(result))


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "folder of a run", required=True)
  flags.DEFINE_string("rows", "", "rows with pairs, made with the run's vocabulary; by default the run's own")
  flags.DEFINE_string("checkpoint", "latest", "a step, best, latest or initial")
  flags.DEFINE_integer("pairs", 200, "held-out pairs of each two languages, at most")
  flags.DEFINE_integer("seed", 0, "of the masks")
  app.run(run_command(main))
