"""The demo world as rows: a crawl, cleaned; a vocabulary trained on it; and the rows, made once without any download."""

import os
import shutil
import tempfile
from pathlib import Path

from xlmr_jax.corpus.build import build_rows
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.vocabulary import train_vocabulary
from xlmr_jax.demo.crawl import clean_crawl, write_crawl
from xlmr_jax.files import AnyPath, any_path
from xlmr_jax.folders import copy_folder

VOCABULARY_SIZE = 3000
SEQ_LEN = 64


def demo_rows(workdir: str | os.PathLike) -> AnyPath:
  """The folder of the demo's rows under workdir."""
  return any_path(workdir) / "demo" / "rows"


def build_demo_rows(
  workdir: str | os.PathLike, *, scale: float = 1.0, seq_len: int = SEQ_LEN, word_starts: bool = False
) -> None:
  """Builds demo_rows(workdir) unless they are there. scale: the size of the text; 1 is 3.4 MB.

  word_starts: has the rows tell where words start.
  Rows for a bucket are built on this machine and copied.
  """
  rows = demo_rows(workdir)
  if (rows / "manifest.json").exists():
    return
  if not isinstance(rows, Path):
    with tempfile.TemporaryDirectory(prefix="xlmr_jax-") as folder:
      build_demo_rows(folder, scale=scale, seq_len=seq_len, word_starts=word_starts)
      copy_folder(demo_rows(folder), rows, last="manifest.json")
  else:
    home = rows.parent
    shutil.rmtree(home, ignore_errors=True)  # An earlier try may have left it unfinished.
    home.mkdir(parents=True)
    write_crawl(home / "crawl.warc.wet.gz", scale)
    clean_crawl(home / "crawl.warc.wet.gz", home / "clean", home / "text")
    text = CC100(home / "text")
    train_vocabulary(text, home / "vocabulary.model", size=VOCABULARY_SIZE, alpha=0.5)
    build_rows(text, home / "vocabulary.model", rows, seq_len=seq_len, held_out=0.05, word_starts=word_starts)
