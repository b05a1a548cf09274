"""Buckets, against a real server of the protocol on loopback: files, folders, locks, logs, checkpoints and rows."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import bucket_server
from xlmr_jax import bucket as buckets
from xlmr_jax import bucket_lock
from xlmr_jax.commands import pretrain
from xlmr_jax.data import pipeline
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path, download, lock, read_json, sha256_of, whole_file, write_json
from xlmr_jax.folders import copy_folder, entries, files_below, local_folder, move_folder, remove_folder, whole_folder
from xlmr_jax.given_paths import local_path, path_given
from xlmr_jax.run import growing, logs
from xlmr_jax.run.board import Board
from xlmr_jax.run.checkpoint import Checkpoints
from xlmr_jax.run.checkpoint_folder import sound_steps
from xlmr_jax.run.growing import open_growing, read_growing
from xlmr_jax.run.workdir import Workdir


@pytest.fixture
def folder(bucket_port):
  """An unused place in the bucket."""
  return any_path(f"gs://{bucket_server.BUCKET}/{uuid.uuid4().hex[:8]}")


# --- files and folders -----------------------------------------------------------------------------------------------


def test_paths_keep_their_scheme_and_others_are_refused():
  assert str(path_given("gs://b/run/", "--workdir=")) == "gs://b/run"
  assert str(any_path("gs://b/run") / "x" / "y") == "gs://b/run/x/y"
  for given, message in [("gs://", "no bucket is named"), ("gs:///x", "no bucket"), ("hdfs://b/x", "or of a bucket"),
                         ("gs:/b/x", "or of a bucket"), ("", "is empty")]:  # fmt: skip
    with pytest.raises(UserError, match=message):
      path_given(given, "--workdir=")
  with pytest.raises(UserError, match="copy it from the bucket"):
    local_path("gs://b/x", "--out=")


def test_files_are_written_whole_and_listed_at_once(folder):
  write_json(folder / "a.json", {"x": 1})
  assert read_json(folder / "a.json") == {"x": 1}
  with pytest.raises(RuntimeError), whole_file(folder / "b" / "c.bin") as unfinished:
    unfinished.write_bytes(b"half")
    raise RuntimeError
  assert files_below(folder) == {"a.json": 12}
  with whole_file(folder / "b" / "c.bin") as unfinished:
    unfinished.write_bytes(b"whole")
  assert files_below(folder) == {"a.json": 12, "b/c.bin": 5}
  assert entries(folder) == {"a.json": False, "b": True} and entries(folder / "none") == {}
  write_json(folder / "rows" / "rows" / "x", 1)  # A folder that holds nothing but one of its own name is not empty.
  assert entries(folder / "rows") == {"rows": True} and entries(folder / "a.json") == {}
  with pytest.raises(FileNotFoundError):
    read_json(folder / "none.json")


def test_folders_are_copied_moved_and_removed(folder, tmp_path):
  for name in ("one", "two/three", "MANIFEST"):
    write_json(folder / "a" / name, name)
  copy_folder(folder / "a", folder / "b", last="MANIFEST")
  move_folder(folder / "b", folder / "c")
  copy_folder(folder / "c", tmp_path / "d")
  copy_folder(tmp_path / "d", folder / "e")
  assert files_below(folder / "e") == files_below(folder / "a") == files_below(tmp_path / "d")
  assert entries(folder) == {"a": True, "c": True, "e": True}
  remove_folder(folder / "a")
  remove_folder(folder / "a")
  assert entries(folder) == {"c": True, "e": True}
  assert sha256_of(local_folder(folder / "c") / "two" / "three") == sha256_of(folder / "c" / "two" / "three")


def test_a_large_file_comes_in_parts(folder, tmp_path, monkeypatch):
  monkeypatch.setattr("xlmr_jax.files._PART_BYTES", 1000)
  content = np.random.default_rng(0).bytes(12_345)
  (folder / "x").write_bytes(content)
  download(folder / "x", tmp_path / "x")
  assert (tmp_path / "x").read_bytes() == content and sha256_of(folder / "x") == sha256_of(tmp_path / "x")


def test_a_folder_counts_once_its_last_file_is_there(folder, monkeypatch):
  store, order = buckets.file_system(folder), []
  real = store.put_file
  monkeypatch.setattr(store, "put_file", lambda source, target: order.append(Path(target).name) or real(source, target))
  with whole_folder(folder / "hf") as made:
    for name in ("config.json", "a", "z"):
      (made / name).write_text(name)
  assert order[-1] == "config.json" and sorted(order) == ["a", "config.json", "z"]
  with pytest.raises(UserError, match="not an empty folder"), whole_folder(folder / "hf"):
    pass


def test_a_bucket_that_is_not_there_is_named(bucket_port):
  from xlmr_jax.given_paths import refuse_unwritable

  with pytest.raises(UserError, match="there is no bucket gs://no-such-bucket; make it"):
    refuse_unwritable(any_path("gs://no-such-bucket/run"), folder=True)


# --- locks -----------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_held_is_refused_and_one_given_back_is_taken(folder, monkeypatch):
  monkeypatch.setattr(bucket_lock, "BEAT_S", 0.2)
  monkeypatch.setattr(bucket_lock, "DEAD_S", 3.0)
  first = lock(folder / ".lock", "in use")
  with pytest.raises(UserError, match=r"in use \(process \d+ on .*, which lives\)"):
    lock(folder / ".lock", "in use")
  first.close()
  lock(folder / ".lock", "in use").close()


def test_a_lock_whose_holder_is_silent_is_taken_and_the_holder_notices(folder, monkeypatch):
  monkeypatch.setattr(bucket_lock, "BEAT_S", 0.2)
  monkeypatch.setattr(bucket_lock, "DEAD_S", 1.0)
  lost, silent = threading.Event(), threading.Event()
  first = bucket_lock.BucketLock(folder / ".lock", "in use", on_loss=lost.set)
  real, held = first._write, threading.Event()

  def write(generation, **more):
    if silent.is_set():
      held.wait(20)
    return real(generation, **more)

  monkeypatch.setattr(first, "_write", write)
  silent.set()
  began = time.monotonic()
  second = lock(folder / ".lock", "in use")
  assert 0.9 < time.monotonic() - began < 10
  held.set()
  assert lost.wait(10)
  second.close()


def test_a_lock_that_cannot_be_renewed_ends_its_holder_before_another_may_take_it(folder, monkeypatch):
  """Whatever the failure is. One that passes in time costs nothing."""
  monkeypatch.setattr(bucket_lock, "BEAT_S", 0.1)
  monkeypatch.setattr(bucket_lock, "DEAD_S", 1.5)
  lost, fails = threading.Event(), threading.Event()
  held = bucket_lock.BucketLock(folder / ".lock", "in use", on_loss=lost.set)
  real = held._write

  def write(generation, **more):
    if fails.is_set():
      raise KeyError("an error that nobody thought of")
    return real(generation, **more)

  monkeypatch.setattr(held, "_write", write)
  fails.set()
  time.sleep(0.5)
  fails.clear()
  time.sleep(0.5)
  assert not lost.is_set() and held._thread.is_alive()
  fails.set()
  began = time.monotonic()
  assert lost.wait(10) and 0.9 < time.monotonic() - began < 1.5 + 0.5


def test_of_two_that_wait_for_a_dead_holder_one_takes_its_lock(folder, monkeypatch):
  """Both look at the same generation, and one of them is slow after it."""
  monkeypatch.setattr(bucket_lock, "BEAT_S", 0.2)
  monkeypatch.setattr(bucket_lock, "DEAD_S", 1.0)
  write_json(folder / ".lock", {"host": "another machine", "process": 1})
  taken, refused, real = [], [], bucket_lock.BucketLock._write

  def write(self, generation, **more):
    if threading.current_thread().name == "slow" and not taken:
      time.sleep(0.7)
    return real(self, generation, **more)

  def take():
    try:
      taken.append(bucket_lock.BucketLock(folder / ".lock", "in use", on_loss=lambda: taken.append("lost")))
    except UserError as error:
      refused.append(str(error))

  monkeypatch.setattr(bucket_lock.BucketLock, "_write", write)
  threads = [threading.Thread(target=take, name=name) for name in ("slow", "quick")]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(taken) == 1 and len(refused) == 1 and "which lives" in refused[0]
  taken[0].close()


def test_a_process_of_another_container_is_not_taken_for_dead(folder, monkeypatch):
  """It has the name and the start of this machine, and a number that no process has here."""
  monkeypatch.setattr(bucket_lock, "BEAT_S", 0.2)
  monkeypatch.setattr(bucket_lock, "DEAD_S", 1.0)
  with subprocess.Popen(["true"]) as gone:
    pass
  first = lock(folder / ".lock", "in use")
  holder = read_json(folder / ".lock")
  first.close()
  for namespace, at_once in ((holder["namespace"], True), ("pid:[1]", False)):
    write_json(folder / ".lock", holder | {"process": gone.pid, "namespace": namespace, "given_back": False})
    began = time.monotonic()
    lock(folder / ".lock", "in use").close()
    assert (time.monotonic() - began < 0.9) == at_once


# --- requests that fail ----------------------------------------------------------------------------------------------


@pytest.fixture
def failing_request(folder, monkeypatch):
  """Has the requests of gcsfs raise what the test puts into a list, one each, before they are answered."""
  from gcsfs.core import GCSFileSystem

  (folder / "file").write_bytes(b"content")
  raised, real = [], GCSFileSystem._request

  async def request(self, *args, **kwargs):
    if raised:
      error = raised.pop(0)
      if error is not None:
        raise error
    return await real(self, *args, **kwargs)

  monkeypatch.setattr(GCSFileSystem, "_request", request)
  return raised


def test_what_is_refused_says_who_must_grant_it(folder, failing_request):
  failing_request.append(OSError("Forbidden: https://storage.googleapis.com/x\nno storage.objects.get access"))
  with pytest.raises(UserError, match=r"access is refused .*; give the service account access to the bucket"):
    (folder / "file").read_bytes()


def test_a_server_of_credentials_that_hiccups_is_waited_for(folder, failing_request):
  from google.auth.exceptions import RefreshError, TransportError

  failing_request += [RefreshError("the metadata server says 503"), TransportError("reset")]
  assert (folder / "file").read_bytes() == b"content"


def test_a_request_that_takes_long_and_fails_once_is_made_again(folder, failing_request, monkeypatch):
  """Patience is counted from the first failure."""
  monkeypatch.setattr(buckets, "PATIENCE_S", 0.3)

  from gcsfs.core import GCSFileSystem

  inner = GCSFileSystem._request

  async def late(self, *args, **kwargs):
    if failing_request:
      time.sleep(0.5)
    return await inner(self, *args, **kwargs)

  monkeypatch.setattr(GCSFileSystem, "_request", late)
  failing_request.append(ConnectionError("reset"))
  assert (folder / "file").read_bytes() == b"content" and not buckets.has_given_up()


def test_the_lock_of_a_process_that_was_killed_is_taken_at_once(folder, bucket_port):
  program = "import time; from xlmr_jax.files import any_path, lock; "
  program += f"held = lock(any_path('{folder}/.lock'), 'x'); print(1, flush=True); time.sleep(60)"
  holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
  assert holder.stdout.readline() == b"1\n"
  holder.kill()
  holder.wait()
  began = time.monotonic()
  lock(folder / ".lock", "in use").close()
  assert time.monotonic() - began < 4


# --- logs ------------------------------------------------------------------------------------------------------------


def test_segments_read_as_one_file_whatever_was_cut_off(folder, monkeypatch):
  """Against the same calls on a disk, with random kills: what a start continues with is what the disk has."""
  monkeypatch.setattr("xlmr_jax.run.growing.SEGMENT_BYTES", 200)
  rng = np.random.default_rng(0)
  content = b""
  for _ in range(12):
    log = open_growing(folder / "log", content)
    assert read_growing(folder / "log") == content
    for _ in range(rng.integers(0, 30)):
      line = b"x" * int(rng.integers(1, 60)) + b"\n"
      log.append(line)
      content += line
    if rng.integers(2):
      log.close()
      assert read_growing(folder / "log") == content
    else:
      log.sync()
    content = content[: content.rfind(b"\n", 0, int(rng.integers(0, len(content) + 1))) + 1]


def test_a_run_log_resumes_in_a_bucket_as_on_a_disk(folder, tmp_path):
  for place in (folder / "train.jsonl", tmp_path / "train.jsonl"):
    log = logs.JsonLines(place, 0, {})
    for step in (1, 2, 3, 4):
      log.write({"step": step})
    log.close()
    log = logs.JsonLines(place, 2, {})
    log.write({"step": 3, "again": True})
    log.close()
  assert read_growing(folder / "train.jsonl") == (tmp_path / "train.jsonl").read_bytes()
  assert b'{"step": 3, "again": true}' in read_growing(folder / "train.jsonl")


LINES = [json.dumps({"step": step}).encode() + b"\n" for step in range(1, 8)]


def steps_after(place, start):
  """The steps of a log that a run opens at `start` and adds a line to."""
  log = logs.JsonLines(place, start, {})
  assert log.lines == start
  log.write({"step": start + 1, "again": True})
  log.close()
  *kept, last = [json.loads(line) for line in read_growing(place).splitlines()]
  assert last["again"]
  return [line["step"] for line in kept]


def test_a_log_that_was_copied_from_a_bucket_goes_on_as_a_file(tmp_path):
  log = tmp_path / "train.jsonl"
  log.mkdir()
  for number, lines in enumerate((LINES[:3], LINES[3:])):
    (log / f"{number:08d}").write_bytes(b"".join(lines))
  assert read_growing(log) == b"".join(LINES)
  assert steps_after(log, 4) == [1, 2, 3, 4]
  assert log.is_file() and [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize("killed_at", ["rename", "replace", "remove_folder"])
def test_a_log_whose_form_a_killed_process_was_changing_is_whole(tmp_path, monkeypatch, killed_at):
  """Whichever call is the last one, nothing is lost: before the folder is put aside, after it, and before it is removed."""
  log = tmp_path / "train.jsonl"
  log.mkdir()
  (log / "00000000").write_bytes(b"".join(LINES))

  def killed(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    if killed_at == "remove_folder":
      real = growing.remove_folder
      patched.setattr(growing, "remove_folder", lambda path: killed() if path.exists() else real(path))
    else:
      patched.setattr(Path, killed_at, killed)
    open_growing(log, b"".join(LINES))
  assert log.is_dir() == (killed_at == "rename") and log.exists() == (killed_at != "replace")
  assert read_growing(log) == b"".join(LINES)
  assert steps_after(log, 7) == [1, 2, 3, 4, 5, 6, 7]
  assert log.is_file() and [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize("start", [4, 0])
def test_a_log_that_was_copied_to_a_bucket_goes_on_as_segments(folder, start):
  log = folder / "train.jsonl"
  log.write_bytes(b"".join(LINES))
  assert read_growing(log) == b"".join(LINES)
  assert steps_after(log, start) == list(range(1, start + 1))
  assert list(files_below(folder)) == ["train.jsonl/00000000"]


def test_a_log_that_a_killed_process_turned_into_segments_is_read_once(folder):
  log = folder / "train.jsonl"
  log.write_bytes(b"".join(LINES))
  (log / "00000000").write_bytes(b"".join(LINES[:5]))  # It was killed before it removed the object.
  assert read_growing(log) == b"".join(LINES[:5])
  assert steps_after(log, 5) == [1, 2, 3, 4, 5]
  assert list(files_below(folder)) == ["train.jsonl/00000000"]


def test_the_board_is_copied_and_begins_new_files(folder, tmp_path, monkeypatch):
  monkeypatch.setattr("xlmr_jax.run.board.FILE_BYTES", 500)
  board = Board(folder / "board", purge_step=1)
  for step in range(40):
    board.add_scalar("loss", 1.0 / (step + 1), step)
    if step % 10 == 9:
      board.flush()
  board.close()
  assert len(files_below(folder / "board")) == 3
  accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
  copy_folder(folder / "board", tmp_path / "board")
  found = accumulator.EventAccumulator(str(tmp_path / "board"), {"scalars": 0}).Reload()
  assert [scalar.step for scalar in found.Scalars("loss")] == list(range(40))


def test_a_board_that_cannot_be_written_is_told_once_and_left_out(tmp_path, capfd, monkeypatch):
  board = Board(tmp_path / "board")
  monkeypatch.setattr(board._writer, "write_event", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
  for step in range(100):
    board.add_scalar("loss", 1.0, step)
  board.close()
  assert capfd.readouterr().err.count("TensorBoard's files are not written from here on (No space left on device)") == 1


# --- checkpoints -----------------------------------------------------------------------------------------------------


def state_of(step):
  return {"a": jnp.arange(100.0) + step, "b": jnp.full((30, 40), step, jnp.bfloat16)}


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state_of(0))


def abstract():
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), ABSTRACT)


def test_checkpoints_in_a_bucket_are_sealed_verified_and_removed(folder, capfd):
  workdir = Workdir(folder)
  checkpoints = Checkpoints(workdir)
  assert checkpoints.restore_latest(abstract()) is None
  for step in (1, 2, 3, 4):
    checkpoints.save(step, state_of(step), {"step": step})
  checkpoints.close()
  assert sound_steps(workdir.checkpoints) == [4, 3]
  (workdir.checkpoints / "4" / "MANIFEST.json").unlink()  # killed before the seal
  checkpoints = Checkpoints(workdir)
  checkpoints.restore_latest(abstract())
  checkpoints.save(5, state_of(5), {"step": 5})
  checkpoints.wait()
  (workdir.checkpoints / "5" / next(n for n in files_below(workdir.checkpoints / "5") if "/d/" in n)).write_bytes(b"broken")
  checkpoints.close()
  checkpoints = Checkpoints(workdir)
  step, state, notes = checkpoints.restore_latest(abstract())
  checkpoints.close()
  assert step == 3 and notes == {"step": 3}
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(3))))
  assert sound_steps(workdir.checkpoints) == [3] and next(iter(entries(workdir.damaged))).startswith("5-")
  said = capfd.readouterr().err
  assert "checkpoint 4 cannot be used" in said and "going back to checkpoint 3" in said


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(bucket_port, tiny_store):
  """The tiny rows, in the bucket."""
  root = any_path(f"gs://{bucket_server.BUCKET}/rows-{uuid.uuid4().hex[:8]}")
  copy_folder(Path(str(tiny_store.root)), root, last="manifest.json")
  return root


def batches_of(store, steps=6):
  mixture = Mixture(store.counts("train"), 0.3, 0)
  spec = pipeline.BatchSpec(16, None, 5, 0)
  with pipeline.train_batches(store, mixture, spec, 3) as batches:
    return [next(batches) for _ in range(steps)]


def same(a, b):
  return all(np.array_equal(x[key], y[key]) for x, y in zip(a, b) for key in x)


def test_rows_of_a_bucket_give_the_same_batches(rows, tiny_store, tmp_path):
  store = RowStore(rows, cache=str(tmp_path / "cache"))
  assert same(batches_of(store), batches_of(tiny_store))
  with pipeline.held_out_batches(store, pipeline.BatchSpec(16, None, 5, 0)) as ours:
    with pipeline.held_out_batches(tiny_store, pipeline.BatchSpec(16, None, 5, 0)) as theirs:
      assert same(list(ours), list(theirs))
  deadline = time.monotonic() + 60
  while len(store.cache._here) < len(store.manifest["files"]) and time.monotonic() < deadline:
    time.sleep(0.05)
  for name, digest in store.manifest["files"].items():
    assert sha256_of(store.cache.folder / name) == digest


def test_what_was_left_of_a_start_goes_on_and_what_is_damaged_is_brought_again(rows, tmp_path, tiny_store, monkeypatch):
  store = RowStore(rows, cache=str(tmp_path / "cache"))
  first, second = sorted(store.manifest["files"])[:2]
  whole = {name: (Path(str(tiny_store.root)) / name).read_bytes() for name in (first, second)}
  for name, content in ((first, whole[first][:1000]), (second, b"another file's begin" * 20)):
    (store.cache.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (store.cache.folder / f"{name}.part").write_bytes(content)
  read, real = [], buckets.file_system(rows).cat_file

  def cat_file(path, start=None, end=None):
    read.append((path, start))
    return real(path, start=start, end=end)

  monkeypatch.setattr(buckets.file_system(rows), "cat_file", cat_file)
  for name in (first, second):
    assert store.local_file(name).read_bytes() == whole[name]
  assert (f"{rows}/{first}", 1000) in read and (f"{rows}/{first}", 0) not in read and (f"{rows}/{second}", 0) in read


def test_a_row_file_that_the_bucket_lacks_is_named(rows, tmp_path):
  copy = any_path(f"{rows}-incomplete")
  copy_folder(rows, copy, last="manifest.json")
  store = RowStore(copy, cache=str(tmp_path))
  name = sorted(store.manifest["files"])[0]
  (copy / name).unlink()
  with pytest.raises(
    UserError, match=f"{name}: manifest.json lists it, and the bucket does not have it; copy the rows again"
  ):
    store.local_file(name)


def test_a_row_file_that_is_another_one_is_refused(rows, tmp_path):
  copy = any_path(f"{rows}-damaged")
  copy_folder(rows, copy, last="manifest.json")
  name = sorted(RowStore(copy, cache=str(tmp_path)).manifest["files"])[0]
  (copy / name).write_bytes((copy / name).read_bytes()[:-1] + b"?")
  store = RowStore(copy, cache=str(tmp_path))
  with pytest.raises(UserError, match=f"{name}: not the file that its manifest.json lists"):
    store.local_file(name)


# --- the commands ----------------------------------------------------------------------------------------------------


def command(*arguments, port, timeout=600):
  environment = os.environ | bucket_server.environment(port) | {"JAX_PLATFORMS": "cpu"}
  return subprocess.run([sys.executable, "-m", "xlmr_jax", *arguments], capture_output=True, text=True, timeout=timeout,
                        env=environment)  # fmt: skip


def test_a_missing_bucket_ends_a_command_in_one_line(bucket_port):
  ended = command("pretrain", "--config=smoke:runlocal", "--workdir=gs://no-such-bucket/run", port=bucket_port)
  assert ended.returncode == 1 and ended.stderr.splitlines()[-1].startswith(
    "error: gs://no-such-bucket/run: there is no bucket"
  )


@pytest.mark.parametrize("ends, given_up", [(0, False), (ValueError("injected"), False), (UserError("refused"), False),
                                            (ValueError("the bucket fails"), True)])  # fmt: skip
def test_however_a_run_ends_it_gives_its_workdir_back(folder, monkeypatch, ends, given_up):
  """The next start, on another machine, then need not wait. Only a bucket that has been given up is not asked for it."""

  def run(argv):
    pretrain._LOCKS.append(Workdir(folder).lock_training())
    if isinstance(ends, Exception):
      raise ends
    return ends

  monkeypatch.setattr(pretrain, "pretrain", run)
  monkeypatch.setattr(buckets, "has_given_up", lambda: given_up)
  if isinstance(ends, Exception):
    with pytest.raises(type(ends)):
      pretrain.main(["xlmr pretrain"])
  else:
    assert pretrain.main(["xlmr pretrain"]) == ends
  assert len(pretrain._LOCKS) == given_up
  assert read_json(folder / ".lock").get("given_back", False) != given_up
  pretrain.give_locks_back()


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_on_a_disk(bucket_port, folder, rows, tiny_store, tmp_path):
  """Same parameters, same logs; it resumes there, scores, and its export opens."""
  options = ["--config=smoke:runlocal", "--config.train_steps=6", "--config.optimizer.warmup_steps=2",
             "--config.checkpoint.every_steps=3",
             "--config.held_out.every_steps=3", "--config.log.every_steps=2"]  # fmt: skip
  disk = command(
    "pretrain", *options, f"--config.data.rows={tiny_store.root}", f"--workdir={tmp_path / 'run'}", port=bucket_port
  )
  there = command("pretrain", *options, f"--config.data.rows={rows}", f"--config.data.cache={tmp_path / 'cache'}",
                  f"--workdir={folder}", port=bucket_port)  # fmt: skip
  assert disk.returncode == there.returncode == 0, disk.stderr + there.stderr
  a, b = Workdir(tmp_path / "run"), Workdir(folder)
  for log in ("train_log", "held_out_log"):
    assert read_growing(getattr(a, log)) == read_growing(getattr(b, log))
  left, right = (json.loads(run.stdout.splitlines()[-1]) for run in (disk, there))
  assert left | {"workdir": ""} == right | {"workdir": ""}
  assert sound_steps(b.checkpoints) == [6, 3] and read_json(b.result)["step"] == 6


@pytest.mark.slow
def test_two_processes_seal_a_checkpoint_in_a_bucket_and_one_goes_on(bucket_port, folder, rows, tmp_path):
  options = ["--config=smoke:runlocal", "--config.checkpoint.every_steps=5", f"--config.data.rows={rows}",
             f"--config.data.cache={tmp_path / 'cache'}", f"--workdir={folder}"]  # fmt: skip
  environment = os.environ | bucket_server.environment(bucket_port) | {"JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}
  ended = subprocess.run(["bash", "launch/local.sh", "2", *options, "--config.train_steps=10"], env=environment,
                         cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600)  # fmt: skip
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert sound_steps(Workdir(folder).checkpoints) == [10, 5]
  manifest = read_json(folder / "checkpoints" / "10" / "MANIFEST.json")
  assert {"state/ocdbt.process_0/manifest.ocdbt", "state/ocdbt.process_1/manifest.ocdbt"} <= set(manifest["files"])
  ended = command("pretrain", *options, "--config.train_steps=10", port=bucket_port)
  assert ended.returncode == 0 and "resuming at step 10" in ended.stdout
