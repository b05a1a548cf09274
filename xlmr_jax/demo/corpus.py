"""The demo world as rows: a crawl, cleaned; a vocabulary trained on it; and the rows, made once without any download."""

import shutil
from pathlib import Path

from xlmr_jax.corpus.build import build_rows
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.vocabulary import train_vocabulary
from xlmr_jax.demo.crawl import clean_crawl, write_crawl

VOCABULARY_SIZE = 3000
SEQ_LEN = 64


def demo_rows(workdir: Path) -> Path:
  """The folder of the demo's rows under workdir."""
  return Path(workdir) / "demo" / "rows"


def build_demo_rows(workdir: Path, *, scale: float = 1.0, seq_len: int = SEQ_LEN) -> None:
  """Builds demo_rows(workdir) unless they are there. scale: the size of the text; 1 is 3.4 MB."""
  rows = demo_rows(workdir)
  home = rows.parent
  if not (rows / "manifest.json").exists():
    shutil.rmtree(home, ignore_errors=True)  # An earlier try may have left it unfinished.
    home.mkdir(parents=True)
    write_crawl(home / "crawl.warc.wet.gz", scale)
    clean_crawl(home / "crawl.warc.wet.gz", home / "clean", home / "text")
    text = CC100(home / "text")
    train_vocabulary(text, home / "vocabulary.model", size=VOCABULARY_SIZE, alpha=0.5)
    build_rows(text, home / "vocabulary.model", rows, seq_len=seq_len, held_out=0.05)
