"""Writes corpus_report.html, one file that shows what `xlmr build_corpus` made. corpus_page/ says what is on it.

It is drawn from manifest.json and removed/STEP/LANG.jsonl alone. The same files give the same bytes, and the page loads
nothing from elsewhere.
"""

from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, read_json, whole_file
from xlmr_jax.report.corpus_page.numbers import BATCH_ROWS, TRAIN_STEPS, Corpus, Sampling
from xlmr_jax.report.corpus_page.page import whole_page


def write_corpus_report(
  out: AnyPath, rows: AnyPath | None = None, *, train_steps: int = TRAIN_STEPS, batch_rows: int = BATCH_ROWS
) -> AnyPath:
  """Writes out/corpus_report.html from what a finished build left in the folder `out`; returns its path.

  rows: a folder of `xlmr build_rows`, whose counts are then used for shares and epochs. train_steps, batch_rows: how many
  updates a training has, and the rows of each, for the epochs.
  Raises UserError: the build is not finished, or the rows are not.
  """
  try:
    manifest = read_json(out / "manifest.json")
  except FileNotFoundError:
    raise UserError(f"{out / 'manifest.json'}: no manifest: an unfinished build; run `xlmr build_corpus` again") from None
  corpus = Corpus(manifest, out / "removed")
  planned = (train_steps, batch_rows)
  sampling = Sampling.from_rows(read_manifest(rows), *planned) if rows else Sampling.from_bytes(corpus, *planned)
  page = whole_page(corpus, sampling)
  path = out / "corpus_report.html"
  with whole_file(path) as unfinished:
    unfinished.write_text(page, encoding="utf-8", newline="\n")
  return path
