"""Files that a run wrote and something else damaged: repaired from what is sound, or refused by name; never a traceback."""

import json
import os
import shutil

import numpy as np
import pytest

from tests import tiny
from xlmr_jax.commands.pretrain import open_rows
from xlmr_jax.data import verification
from xlmr_jax.data.rows import RowStore, write_shard
from xlmr_jax.data.verification import Verification
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.evaluation import ledger
from xlmr_jax.run import logs
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.retention import evaluated_steps, pinned_steps
from xlmr_jax.run.workdir import RunRecord, Workdir, read_record, refuse_other_run

# --- logs ----------------------------------------------------------------------------------------------------------

DAMAGED = [
  b'{"step": 6, "loss": 3.\xff2}', b'{"stpe": 6, "loss": 3.2}', b"[1]", b"null", b"7", b"", b'{"step": true}',
  b'{"step": -3}',
  b'{"step": 6.0, "loss": 1, "lr": 1, "languages": {}}', b'{"step": 6, "loss": "low", "lr": 1, "languages": {}}',
  b'{"step": 6, "loss": 1, "lr": 1, "languages": [1]}', b'{"step": 6, "loss": 1, "lr": 1, "languages": {"aa": 1}}',
  b"[" * 100_000, b"\x00" * 50,
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_of_a_log_is_left_out_and_said(tmp_path, capsys, line):
  sound = [
    json.dumps({"step": step, "loss": 1.5, "lr": 0.1, "languages": {"aa": {"loss": 1.5}}}).encode() for step in (3, 9)
  ]
  path = tmp_path / "train.jsonl"
  path.write_bytes(b"\n".join([sound[0], line, sound[1], b""]))
  assert [x["step"] for x in logs.read_train(Workdir(tmp_path))] == [3, 9]
  assert capsys.readouterr().err == f"{path}: left out, because damaged: line 2 of 3\n"
  log = logs.JsonLines(path, 9, logs.TRAIN)
  log.write({"step": 12})
  log.close()
  assert path.read_bytes().splitlines() == [*sound, b'{"step": 12}'] and log.last == {"step": 12}


def test_half_a_last_line_is_a_killed_writers_and_no_damage(tmp_path, capsys):
  path = tmp_path / "timing.jsonl"
  path.write_bytes(b'{"step": 3}\n{"step": 6, "tok')
  log = logs.JsonLines(path, 6, logs.TIMING)
  log.close()
  assert path.read_bytes() == b'{"step": 3}\n' and capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["a digit", "a line less", "no file"])
def test_a_resumed_run_says_that_its_log_is_not_what_the_checkpoint_saw(tmp_path, capsys, change):
  path = tmp_path / "held_out.jsonl"
  log = logs.JsonLines(path, 0, logs.HELD_OUT)
  for step in (4, 8):
    log.write({"step": step, "mean_loss": 1.25, "languages": {}})
  note = log.note()
  log.close()
  logs.JsonLines(path, 8, logs.HELD_OUT, note).close()
  assert capsys.readouterr().err == ""
  text = path.read_text()
  if change == "no file":
    path.unlink()
  else:
    path.write_text(text.replace("1.25", "1.35", 1) if change == "a digit" else text.splitlines(keepends=True)[1])
  log = logs.JsonLines(path, 8, logs.HELD_OUT, note)
  assert f"{path}: not as it was when checkpoint 8 was saved (2 lines then," in capsys.readouterr().err
  log.write({"step": 12})
  log.close()


def test_a_run_goes_on_with_damaged_logs(tiny_run, tiny_store, tmp_path, capsys):
  assert tiny.run(tiny.config(), tmp_path, tiny_store, 11) == EXIT_RESTART
  for name in ("train", "held_out", "timing"):
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(b'{"step": 3, "lo\xff": 1}\n' + path.read_bytes())
  capsys.readouterr()
  assert tiny.run(tiny.config(), tmp_path, tiny_store) == EXIT_DONE
  said = capsys.readouterr().err
  assert all(
    said.count(f"{name}.jsonl: left out, because damaged: line 1 of") == 1 for name in ("train", "held_out", "timing")
  )
  for name in ("train", "held_out"):
    assert (tmp_path / f"{name}.jsonl").read_bytes() == (tiny_run / f"{name}.jsonl").read_bytes()


# --- rows ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied_rows(tiny_rows, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  shutil.copytree(tiny_rows, tmp_path / "rows")
  return tmp_path / "rows"


def verify(root, mode="once", part=(0, 1)):
  Verification(RowStore(root), mode, part).finish()


def reorder(root, path, keep_times=False):
  """Writes the rows of a file in the reverse order, as nothing but the manifest would notice."""
  store, (language, split) = RowStore(root), (path.parts[-3], "held_out")
  index = store.languages.index(language)
  rows = store.read(split, np.full(store.counts(split)[index], index), np.arange(store.counts(split)[index]))
  times = path.stat().st_atime_ns, path.stat().st_mtime_ns
  write_shard(path, np.ascontiguousarray(rows[::-1]))
  if keep_times:
    os.utime(path, ns=times)


def test_rows_are_verified_once_per_machine(copied_rows, capsys):
  verify(copied_rows)
  files = len(RowStore(copied_rows).manifest["files"])
  assert f"rows: {files} files are as their manifest says" in capsys.readouterr().out
  verify(copied_rows)
  assert capsys.readouterr().out == ""
  verify(copied_rows, "always")
  assert f"rows: {files} files" in capsys.readouterr().out
  verify(copied_rows, "off")
  assert capsys.readouterr().out == ""


def test_swapped_and_altered_files_are_named(copied_rows):
  *_, last = sorted(copied_rows.glob("rows/*/1.0.0/*held_out*"))
  verify(copied_rows)
  whole = last.read_bytes()
  reorder(copied_rows, last, keep_times=True)
  if last.stat().st_size == len(whole):
    verify(copied_rows)  # The record knows sizes and times, not contents,
  with pytest.raises(UserError, match=f"{last}: not the file that .*manifest.json lists"):
    verify(copied_rows, "always")  # which this is for.
  os.utime(last)
  with pytest.raises(UserError, match=f"{last}: not the file"):
    verify(copied_rows)
  last.write_bytes(whole)
  verify(copied_rows)


def test_hosts_share_the_verification(copied_rows, capsys):
  files = len(RowStore(copied_rows).manifest["files"])
  for host in range(3):
    verify(copied_rows, part=(host, 3))
  counts = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
  assert sum(counts) == files and len(counts) == 3
  verify(copied_rows)
  assert capsys.readouterr().out == ""


def test_a_run_over_altered_rows_ends_and_names_the_file(copied_rows, tmp_path):
  reorder(copied_rows, sorted(copied_rows.glob("rows/*/1.0.0/*held_out*"))[0])
  with pytest.raises(UserError, match="not the file that"):
    tiny.run(tiny.config(copied_rows), tmp_path / "run", RowStore(copied_rows))


def test_no_place_for_the_record_is_no_reason_to_end(copied_rows, tmp_path, monkeypatch, capsys):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  verify(copied_rows)
  assert "no record of what was verified" in capsys.readouterr().err
  monkeypatch.setattr(verification, "record_path", lambda store: tmp_path / "list.json")
  (tmp_path / "list.json").write_text("[1]")
  verify(copied_rows)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "{}", '{"format": 1}', "[" * 100_000])
def test_a_manifest_of_another_shape(copied_rows, text):
  (copied_rows / "manifest.json").write_text(text)
  with pytest.raises(UserError, match=r"manifest\.json"):
    RowStore(copied_rows)


# --- the record, the folders -----------------------------------------------------------------------------------------


def record_of(rows) -> RunRecord:
  return RunRecord(tiny.config(rows).to_dict(), 90, "c" * 64, 32, "a" * 64)


@pytest.mark.parametrize(
  "text", ["[]", "null", "{}", '{"config": []}', '{"config": {"seed": []}}', '{"config": null}', "[" * 100_000]
)
def test_a_record_of_another_shape(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(UserError, match=r"config\.json"):
    read_record(Workdir(tmp_path))


@pytest.mark.parametrize(
  "key", ["config", "vocabulary_size", "tokenizer_sha256", "seq_len", "rows_fingerprint", "languages", "rows"]
)
@pytest.mark.parametrize("value", [None, [], {}, "x", -3, 1.5, True])
def test_a_record_with_a_value_of_another_kind(tmp_path, key, value):
  good = record_of("rows").to_json()
  allowed = {"rows_fingerprint": (None, "x"), "rows": (None, "x"), "languages": ([],), "tokenizer_sha256": ("x",)}
  (tmp_path / "config.json").write_text(json.dumps(good | {key: value}))
  if any(value is x or (value == x and type(value) is type(x)) for x in allowed.get(key, ())):
    read_record(Workdir(tmp_path))
  else:
    with pytest.raises(UserError, match=rf"config\.json.*{key}"):
      read_record(Workdir(tmp_path))


def test_checkpoints_without_a_record_are_not_continued(tmp_path):
  workdir = Workdir(tmp_path)
  (workdir.checkpoints / "8").mkdir(parents=True)
  with pytest.raises(UserError, match=r"config\.json is missing, but .* has 1 checkpoints .*restore the file"):
    refuse_other_run(workdir, record_of("rows"))


def test_a_folder_of_rows_is_no_workdir(copied_rows):
  with pytest.raises(UserError, match="is a folder of rows"):
    refuse_other_run(Workdir(copied_rows), record_of(copied_rows))


def test_folders_that_no_run_wrote_are_no_steps(tmp_path):
  workdir = Workdir(tmp_path)
  for name in ("0070", "²", "x", "12.tmp", "-3"):
    for folder in (workdir.checkpoints, workdir.pins):
      (folder / name).mkdir(parents=True)
      (folder / name / "MANIFEST.json").write_text("{}")
    (workdir.evaluations / f"{name}.json").write_text("{}")
  (workdir.checkpoints / "13").write_text("a file")
  assert sound_steps(workdir.checkpoints) == [] and evaluated_steps(workdir) == set() and pinned_steps(workdir) == set()
  checkpoints = Checkpoints(workdir)
  checkpoints.close()
  assert (workdir.checkpoints / "0070").is_dir()


def test_a_link_where_the_run_writes_keeps_its_target(tiny_rows, tmp_path):
  from xlmr_jax.files import lock, whole_file

  target, link = tmp_path / "mine", tmp_path / "link"
  target.write_text("mine")
  link.symlink_to(target)
  lock(link, "").close()
  assert target.read_text() == "mine"
  with whole_file(link) as unfinished:
    unfinished.write_text("new")
  assert target.read_text() == "mine" and link.read_text() == "new"
  assert open_rows(tiny.config(tiny_rows), tmp_path).languages


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_a_flipped_digit_of_a_score_is_seen(tmp_path):
  workdir = Workdir(tmp_path)
  ledger.Entry(4, 0.5, {"xnli": {"en": {"accuracy": [0.5]}}}, {"xnli": "accuracy"}).write(workdir)
  path = workdir.evaluation(4)
  assert ledger.read_entry(path).score == 0.5
  text = path.read_text()
  path.write_text(text.replace("0.5", "0.9", 1))
  with pytest.raises(UserError, match=r"4\.json cannot be read \(it is not as it was written: .*remove it"):
    ledger.read_ledger(workdir)
  path.write_text(json.dumps({key: x for key, x in json.loads(text).items() if key != "sha256"}))  # of an older version
  assert ledger.read_entry(path).score == 0.5
