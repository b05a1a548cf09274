"""The demo world as rows: a crawl, cleaned; a vocabulary trained on it; and the rows, made once without any download."""

import os
import re
import tempfile
from pathlib import Path

from xlmr_jax.corpus.build import build_rows
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.vocabulary import train_vocabulary
from xlmr_jax.demo.crawl import clean_crawl, write_crawl
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, lock
from xlmr_jax.folders import copy_folder, entries, remove_folder

VOCABULARY_SIZE = 3000
SEQ_LEN = 64
CRAWL = "crawl.warc.wet.gz"
# What a build leaves, whole or not. The crawl is written first.
_OWN_NAMES = re.compile(rf"({re.escape(CRAWL)}|vocabulary\.model)(\.tmp)?|clean|text|rows|\.rows\.unfinished-.*")


def demo_rows(workdir: str | os.PathLike) -> AnyPath:
  """The folder of the demo's rows under workdir."""
  return any_path(workdir) / "demo" / "rows"


def unfinished_demo(workdir: str | os.PathLike) -> Path:
  """The folder of this machine in which the demo's crawl, text, vocabulary and rows lie while they are made."""
  return Path(workdir) / ".demo.unfinished"


def build_demo_rows(
  workdir: str | os.PathLike, *, scale: float = 1.0, seq_len: int = SEQ_LEN, word_starts: bool = False
) -> None:
  """Builds demo_rows(workdir) unless they are there. scale: the size of the text; 1 is 3.4 MB.

  word_starts: has the rows tell where words start.
  Rows for a bucket are built on this machine and copied.
  Raises UserError: another process builds them, or the workdir has a folder "demo" of somebody else's.
  """
  rows = demo_rows(workdir)
  if (rows / "manifest.json").exists():
    return
  if not isinstance(rows, Path):
    with tempfile.TemporaryDirectory(prefix="xlmr_jax-") as folder:
      build_demo_rows(folder, scale=scale, seq_len=seq_len, word_starts=word_starts)
      copy_folder(demo_rows(folder), rows, last="manifest.json")
    return
  home, unfinished = rows.parent, unfinished_demo(workdir)
  _refuse_foreign(home)
  home.parent.mkdir(parents=True, exist_ok=True)
  message = f"{rows}: another process builds them; wait for it, and give the same command again"
  with lock(home.with_name(".demo.lock"), message):
    if (rows / "manifest.json").exists():  # Another process had the lock a moment ago.
      return
    remove_folder(unfinished)  # A process that was killed has left it.
    unfinished.mkdir()
    write_crawl(unfinished / CRAWL, scale)
    clean_crawl(unfinished / CRAWL, unfinished / "clean", unfinished / "text")
    text, vocabulary = CC100(unfinished / "text"), unfinished / "vocabulary.model"
    train_vocabulary(text, vocabulary, size=VOCABULARY_SIZE, alpha=0.5)
    build_rows(text, vocabulary, unfinished / "rows", seq_len=seq_len, held_out=0.05, word_starts=word_starts)
    _refuse_foreign(home)
    remove_folder(home)  # It is empty, or an older version built in place and was killed.
    unfinished.rename(home)


def _refuse_foreign(home: Path) -> None:
  """UserError, naming it, if what lies at `home` is anything but what an unfinished build of the demo left there."""
  if not os.path.lexists(home):
    return
  what = "a link" if home.is_symlink() else "no folder"
  if not home.is_symlink() and home.is_dir():
    found = sorted(entries(home))
    foreign = [name for name in found if not _OWN_NAMES.fullmatch(name)]
    if not found or (not foreign and {CRAWL, f"{CRAWL}.tmp"} & {*found}):
      return
    what = f"a folder with {(foreign or found)[0]!r}, which no build of the demo's rows has made"
  raise UserError(f"{home}: the demo's rows are built there, and it is {what}; use another --workdir, or move it away")
