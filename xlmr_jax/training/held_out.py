"""The held-out pass: losses per language over batches that do not depend on the training, their bits, and a stop by them."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmr_jax.data.rows import RowStore
from xlmr_jax.files import write_json
from xlmr_jax.run import stopping
from xlmr_jax.run.branch import own_held_out
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import sharding


def held_out_losses(
  step: Callable[[Any, dict], tuple[jax.Array, jax.Array]], params: Any, batches: Iterable[dict[str, np.ndarray]],
  mesh: jax.sharding.Mesh, batch_rows: int, languages: int, go_on: Callable[[], bool] = lambda: True,
) -> np.ndarray | None:  # fmt: skip
  """(loss sums, weights) per language, float64[2, G], over batches of this host's rows; None once go_on() says no.

  step: as make_held_out_step makes it. go_on: asked after each batch.
  """
  sums = np.zeros((2, languages))
  for batch in batches:
    sums += np.stack(jax.device_get(step(params, sharding.to_global(mesh, batch, batch_rows))))
    if not go_on():
      return None
  return sums


def bits_per_nat(store: RowStore, split: str) -> np.ndarray:
  """Factor from nats per masked token to bits per UTF-8 byte of the split's text, float64[G].

  The masked tokens' mean loss stands for every token's: comparable across vocabularies, not a code length.
  """
  counts = [store.manifest["languages"][name][split] for name in store.languages]
  return np.array([count["pieces"] / max(count["bytes"], 1) for count in counts]) / np.log(2)


def stop_by_held_out(config: ConfigDict, workdir: Workdir, newest: dict | None) -> None:
  """Writes STOP.json if config.stop.by=held_out and the held-out losses so far say so.

  newest: the last line of held_out.jsonl, which may not be in a bucket yet; None on other processes than 0. A run that
  branched off counts from there on.
  """
  if config.stop.by != "held_out" or newest is None:
    return
  lines = [line for line in own_held_out(workdir) if line["step"] < newest["step"]]
  decision = stopping.decide_by_held_out([*lines, newest], config.stop)
  if decision.stop and not workdir.stop.exists():
    write_json(workdir.stop, {"step": newest["step"], "reason": decision.reason})
