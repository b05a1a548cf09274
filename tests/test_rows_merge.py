"""Languages added to a finished store: byte for byte the store built at once, and never anything between old and new."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xlmr_jax.corpus import build, merge, vocabulary
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data.row_manifest import fingerprint
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.verification import Verification
from xlmr_jax.errors import UserError
from xlmr_jax.files import sha256_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """A folder with the text of three languages, its vocabulary, and the store built of all of them at once."""
  root = tmp_path_factory.mktemp("world")
  (root / "text").mkdir()
  for language, letters in (("en", "abdeghilmnoprst"), ("ru", "абвгдеиклмнопрст"), ("sw", "aeiouklmnpw")):
    draw = random.Random(language)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(200)]
    documents = ["\n".join(" ".join(draw.choices(words, k=9)) for _ in range(draw.randint(1, 6))) for _ in range(120)]
    (root / "text" / f"{language}.txt").write_text("\n\n".join(documents))
  vocabulary.train_vocabulary(CC100(root / "text"), root / "v.model", size=500)
  build_at(root, root / "whole")
  return root


def build_at(world, out, languages=None, text=None, **change):
  options = {"seq_len": 64, "held_out": 0.1, "workers": 1, "shard_mb": 0.01, **change}
  tokenizer = options.pop("tokenizer", world / "v.model")
  return build.build_rows(CC100(text or world / "text", languages), tokenizer, out, **options)


def content(folder: Path) -> dict[str, str]:
  return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_language_by_language_is_the_store_built_at_once(world, tmp_path):
  for language in ("sw", "en", "ru"):
    summary = build_at(world, tmp_path / "rows", [language], add=True)
    assert summary["languages"] == 1
  assert content(tmp_path / "rows") == content(world / "whole")
  assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_language_built_anew_replaces_the_old_one(world, tmp_path):
  """Also where its rows are fewer than before, so that an old file would be left over."""
  text = tmp_path / "text"
  shutil.copytree(world / "text", text)
  whole = (text / "en.txt").read_text()
  (text / "en.txt").write_text(f"{whole}\n\n{whole[::-1]}")
  build_at(world, tmp_path / "rows", text=text)
  before = RowStore(tmp_path / "rows")
  assert content(tmp_path / "rows") != content(world / "whole")
  build_at(world, tmp_path / "rows", ["en"], add=True)
  assert content(tmp_path / "rows") == content(world / "whole")
  # Whoever had opened the old store still reads it, but a run that is started again finds another fingerprint.
  index, rows = before.languages.index("en"), int(before.counts("train")[before.languages.index("en")])
  assert rows > RowStore(tmp_path / "rows").counts("train")[index]
  assert before.read("train", np.full(rows, index), np.arange(rows)).shape == (rows, 64)
  assert before.fingerprint != RowStore(tmp_path / "rows").fingerprint == RowStore(world / "whole").fingerprint


def test_an_older_store_is_not_mixed_with_a_new_one(world, tmp_path):
  """What was verified of the old store is not taken for the new one: the linked files are verified again."""
  build_at(world, tmp_path / "rows", ["en", "ru"])
  build_at(world, tmp_path / "rows", ["sw"], add=True)
  Verification(RowStore(tmp_path / "rows"), "always").finish()
  linked = next((tmp_path / "rows" / "rows" / "en").rglob("*.array_record*"))
  linked.write_bytes(linked.read_bytes()[:-1] + b"?")
  with pytest.raises(UserError, match="en"):
    Verification(RowStore(tmp_path / "rows"), "always").finish()


@pytest.mark.parametrize(
  "change, message",
  [
    ({"seq_len": 32}, "seq_len 64, and these would have 32"),
    ({"held_out": 0.2}, r"held_out_share 0\.1, and these would have 0\.2"),
    ({"shard_mb": 1}, "shard_bytes 10000, and these would have 1000000"),
    ({"tokenizer": "other.model"}, "tokenizer_sha256 [0-9a-f]{12}, and these would have [0-9a-f]{12};"),
  ],
)
def test_rows_that_were_built_otherwise_are_refused(world, tmp_path, change, message):
  build_at(world, tmp_path / "rows", ["en"])
  before = content(tmp_path / "rows")
  if "tokenizer" in change:
    change = {"tokenizer": tmp_path / "other.model"}
    vocabulary.train_vocabulary(CC100(world / "text"), tmp_path / "other.model", size=400)
  with pytest.raises(UserError, match=message) as error:
    build_at(world, tmp_path / "rows", ["sw"], add=True, **change)
  assert "\n" not in str(error.value)
  assert content(tmp_path / "rows") == before


def test_what_is_no_finished_store_is_refused(world, tmp_path):
  (tmp_path / "rows").mkdir()
  with pytest.raises(UserError, match="unfinished"):
    build_at(world, tmp_path / "rows", ["sw"], add=True)
  build_at(world, tmp_path / "old", ["en"])
  manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
  del manifest["shard_bytes"], manifest["fingerprint"]
  manifest["fingerprint"] = fingerprint(manifest)
  (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
  with pytest.raises(UserError, match="shard_bytes none, as an earlier version built them"):
    build_at(world, tmp_path / "old", ["sw"], add=True)
  with pytest.raises(UserError, match=r"exists; .*--add"):
    build_at(world, tmp_path / "old", ["sw"])


def test_a_missing_file_of_another_language_is_named(world, tmp_path):
  build_at(world, tmp_path / "rows", ["en", "ru"])
  gone = sorted((tmp_path / "rows" / "rows" / "ru" / "1.0.0").glob("*.array_record*"))[0]
  gone.unlink()
  with pytest.raises(UserError, match=rf"{gone.name}: named in the manifest, but missing; build ru again"):
    build_at(world, tmp_path / "rows", ["sw"], add=True)
  build_at(world, tmp_path / "rows", ["sw", "ru"], add=True)
  assert content(tmp_path / "rows") == content(world / "whole")


KILLED = """
import os, sys, signal
from xlmr_jax.corpus import build, merge, shards
from xlmr_jax.corpus.sources.cc100 import CC100
left = int(sys.argv[4])
def until(function):
  def call(*arguments, **more):
    global left
    left -= 1
    if left < 0:
      os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **more)
  return call
for module, name in ((os, "rename"), (os, "link"), (os, "replace"), (os, "mkdir"), (shards.row_files, "write_shard"),
                     (shards, "write_manifest")):
  setattr(module, name, until(getattr(module, name)))
merge.ctypes.CDLL = until(merge.ctypes.CDLL) if sys.argv[5] == "exchange" else until(lambda *_, **__: None)
build.build_rows(CC100(sys.argv[1], ["sw"]), sys.argv[2], sys.argv[3], seq_len=64, held_out=0.1, workers=1, shard_mb=0.01,
                 add=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_killed_anywhere_the_store_is_the_old_or_the_new_one(world, tmp_path, way):
  build_at(world, tmp_path / "rows", ["en", "ru"])
  shutil.copytree(tmp_path / "rows", tmp_path / "start")
  old, new = content(tmp_path / "start"), content(world / "whole")
  killed, absent = 0, 0
  for left in (0, 2, *range(5, 200)):
    arguments = [world / "text", world / "v.model", tmp_path / "rows", left, way]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    if not (tmp_path / "rows").exists():
      absent += 1
      assert way != "exchange"  # Without it there is a moment at which no store is there, but never a half of one.
      merge.read_store(tmp_path / "rows")
    assert content(tmp_path / "rows") in (old, new)
    if done.returncode == 0:
      break
    assert done.returncode == -9, done.stderr
    killed += 1
    shutil.rmtree(tmp_path / "rows")
    shutil.copytree(tmp_path / "start", tmp_path / "rows")
  assert killed > 3 and absent == (way != "exchange")
  assert content(tmp_path / "rows") == new
