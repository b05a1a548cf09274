"""What others wrote is read and never run, stays in its folder, and fills no memory; secrets reach no file and no message.

docs/security.md says what is defended and what is not.
"""

import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from tests import hugging_face, tiny
from tests.fuzz.targets import TARGETS
from xlmr_jax import bucket, errors, folders
from xlmr_jax.commands import flags
from xlmr_jax.config import default_config
from xlmr_jax.config_checks import check_config, check_evaluation
from xlmr_jax.corpus.clean import build
from xlmr_jax.corpus.clean.build import WORK, Options, build_corpus
from xlmr_jax.corpus.clean.job import language_path
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.data import rows as row_files
from xlmr_jax.data.row_manifest import fingerprint
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tfds_features import refuse_foreign_features
from xlmr_jax.demo.text import documents
from xlmr_jax.errors import StoreError, UserError, one_line, report, told
from xlmr_jax.evaluation import ledger, scorer
from xlmr_jax.evaluation.tasks import reading, registry
from xlmr_jax.files import write_json
from xlmr_jax.huggingface import safetensors_file
from xlmr_jax.huggingface.folder import open_folder
from xlmr_jax.names import below, is_plain_name
from xlmr_jax.run import logs
from xlmr_jax.run import manifest as checkpoint_manifest
from xlmr_jax.run.workdir import Workdir, best_step
from xlmr_jax.secrets import redacted

ROOT = Path(__file__).parents[1]
PLANTED = "planted-9f3a7c5e1b"
SECRETS = {
  "HF_TOKEN": f"hf_{PLANTED}", "AWS_SECRET_ACCESS_KEY": f"aws/{PLANTED}", "WANDB_API_KEY": f"wandb{PLANTED}",
  "GOOGLE_APPLICATION_CREDENTIALS": json.dumps({"private_key": f"-----BEGIN PRIVATE KEY-----{PLANTED}"}),
  "DATABASE_PASSWORD": f"pw {PLANTED}",
}  # fmt: skip
HOSTILE = ("../../x", "..", ".", "", "/etc/x", "a/../../x", "x\0y")


def says(found: Path, text: str) -> list[str]:
  """The files below a folder that hold a text."""
  return [str(path) for path in found.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
  """(what audited.py found, its folder, all that it printed), in a process whose environment has secrets."""
  home = tmp_path_factory.mktemp("audited")
  root = home / "data"
  root.mkdir()
  environment = os.environ | SECRETS | {"TMPDIR": str(tmp_path_factory.mktemp("tmp")), "PYTHONDONTWRITEBYTECODE": "1"}
  command = [sys.executable, "-m", "tests.audited", str(root)]
  child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert not child.returncode, child.stderr[-3000:]
  return json.loads(child.stdout.splitlines()[-1]), root, child.stdout + child.stderr


# --- nothing that is read is run ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", ["a Hugging Face folder", "rows", "a run to continue", "a run", "a corpus", *TARGETS])
def test_a_load_path_only_reads(audited, path):
  found, _, _ = audited
  assert found["paths"][path] == []


@pytest.mark.slow
def test_the_audit_sees_what_it_is_for(audited):
  found, _, _ = audited
  assert [name for name, events in found["controls"].items() if not events] == []
  assert found["code ran"] == [False, True]


@pytest.mark.slow
def test_a_run_leaves_no_secret_of_its_environment(audited):
  _, root, printed = audited
  assert (root / "run" / "tensorboard").is_dir() and (root / "run" / "config.json").is_file()
  assert says(root, PLANTED) == [] and PLANTED not in printed


def test_our_code_has_no_pickle_and_no_eval():
  unsafe = re.compile(
    r"^\s*(?:import|from) (?:pickle|marshal|shelve|dill|cloudpickle)\b|(?<![\w.])(?:eval|exec)\(|trust_remote_code"
    r"|allow_pickle=True|yaml\.load|os\.system|shell=True",
    re.MULTILINE,
  )
  assert unsafe.search("  import pickle") and unsafe.search("x = eval(y)")
  for path in (ROOT / "xlmr_jax").rglob("*.py"):
    assert not unsafe.findall(path.read_text()), path


@pytest.fixture
def task_module(tmp_path, monkeypatch):
  """A function that writes a module which leaves a trace, and returns its path."""
  monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

  def write(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'code ran')!r}, 'w').close()\n")
    return tmp_path / "code ran"

  return write


@pytest.mark.parametrize(
  "name, folder", [("evil_task_a", "run"), ("run.evil_task_b", "run"), ("run.sub.evil_task_c", "run/sub")]
)
def test_modules_that_lie_in_a_run_are_not_imported(tmp_path, monkeypatch, task_module, name, folder):
  trace = task_module(tmp_path / folder, name.rpartition(".")[2])
  monkeypatch.chdir(tmp_path / "run" if name == "evil_task_a" else tmp_path)
  config = tiny.config("rows", evaluate__modules=(name,))
  with pytest.raises(UserError, match=rf"config\.evaluate\.modules: '{name}' .*run is data, and code in it is not run"):
    flags.load_tasks(config, tmp_path / "run")
  assert not trace.exists()
  flags.load_tasks(config)  # Whoever gives the name wants it.
  assert trace.exists()


def test_modules_beside_a_run_are_the_users(tmp_path, monkeypatch, task_module):
  trace = task_module(tmp_path / "mine", "my_own_task_d")
  monkeypatch.chdir(tmp_path / "mine")
  flags.load_tasks(tiny.config("rows", evaluate__modules=("my_own_task_d",)), tmp_path / "run")
  assert trace.exists()


@pytest.mark.parametrize("name", ["huggingface:glue", "kaggle:x/y", "someone:set/config"])
def test_data_sets_of_communities_are_not_asked_for(name):
  with pytest.raises(UserError, match="brings code of its own"):
    open_source(f"tfds:{name}")
  open_source("tfds:wiki40b/de:1.3.0,wiki40b:1.3.0/fr")


def test_a_feature_that_is_no_class_of_tfds_is_not_imported(tmp_path):
  folder = tmp_path / "wiki40b" / "de" / "1.3.0"
  folder.mkdir(parents=True)
  own = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
  features = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
              "featuresDict": {"features": {"text": own}}}  # fmt: skip
  (folder / "features.json").write_text(json.dumps(features))
  refuse_foreign_features("wiki40b/de:1.3.0", str(tmp_path))
  own["pythonClassName"] = "evil.Text"
  (folder / "features.json").write_text(json.dumps(features))
  with pytest.raises(UserError, match=r"features\.json: its feature 'evil\.Text' is code that does not come with TFDS"):
    refuse_foreign_features("wiki40b/de:1.3.0", str(tmp_path))


# --- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "text",
  [
    "https://user:{}@host/x", "400, url='https://storage.googleapis.com/b/o?alt=media&access_token={}&x=1'",
    "https://h/o?X-Goog-Algorithm=G&X-Goog-Signature={}", "https://h/o?X-Amz-Security-Token={}", "https://h/o?sig={}",
    "https://h/upload?uploadType=resumable&upload_id={}", "{{'Authorization': 'Bearer {}'}}", "authorization: Basic {}",
    '{{"private_key": "-----BEGIN PRIVATE KEY-----\\n{}"}}', "-----BEGIN RSA PRIVATE KEY----- {} -----END RSA PRIVATE KEY",
    '{{"refresh_token": "{}", "x": 1}}', "password={}", "postgresql://a:{}@h:5432/d",
  ],
)  # fmt: skip
def test_messages_show_no_secret(text, capsys):
  text = text.format("Zm9vYmFy0123456789abcdef")
  errors = (UserError(text), StoreError(text), OSError(5, text, "f"))
  for shown in (redacted(text), one_line(OSError(text)), *map(told, errors)):
    assert "Zm9v" not in shown and "***" in shown
  for error in (UserError(text), RuntimeError(text)):
    report(error)
    assert "Zm9v" not in capsys.readouterr().err


@pytest.mark.parametrize(
  "text",
  [
    "gs://bucket/rows/x@y", "config.optimizer.peak_lr=0.1, seed=3", "tokens=512, tokenizer=/a/b, vocabulary 1a2b3c4d5e6f",
    "https://host/a?b=c", "/home/me/rows: 3 files", "the key of a bearer of tokens", "step 4: score 0.5 (xnli 0.5)",
  ],
)  # fmt: skip
def test_other_messages_stay_as_they_are(text):
  assert redacted(text) == text


def test_a_secret_of_the_environment_is_shown_nowhere(monkeypatch):
  monkeypatch.setenv("WANDB_API_KEY", PLANTED)
  monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
  monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsefalse")
  assert redacted(f"x {PLANTED} /home/me/key.json falsefalse") == "x *** /home/me/key.json falsefalse"


def test_what_a_store_raises_is_shown_without_its_secrets(monkeypatch, capsys):
  failing = bucket._Failing()
  error = OSError("503, url='https://storage.googleapis.com/o?access_token=Zm9vYmFy'")
  failing.seen("GET b/x", error, 10.0)
  with pytest.raises(StoreError, match=r"access_token=\*\*\*"):
    failing.seen("GET b/x", error, 1e9)
  assert "access_token=***" in (said := capsys.readouterr().err) and "Zm9v" not in said
  with pytest.raises(UserError, match=r"gs://\*\*\*@bucket/x: a bucket's address takes no password"):
    bucket.bucket_path("gs://user:Zm9vYmFy@bucket/x")


@pytest.mark.parametrize(
  "key, value",
  [
    ("data.rows", "https://user:Zm9vYmFy@host/rows"), ("evaluate.folder", "gs://user:Zm9vYmFy@bucket/x"),
    ("evaluate.data", "xnli=https://host/x?access_token=Zm9vYmFy"), ("data.languages", ("de", "hf_Zm9vYmFy0123456789")),
    ("compiler_options", "xla_x=AKIAABCDEFGHIJKLMNOP"),
  ],
)  # fmt: skip
def test_a_secret_in_a_config_is_refused_by_its_key(key, value):
  config = default_config()
  config.update_from_flattened_dict({key: value})
  for check in (check_config, check_evaluation):
    with pytest.raises(UserError, match=rf"config\.{re.escape(key)}: holds a password or a token") as error:
      check(config)
    assert "Zm9v" not in str(error.value)


def test_a_key_that_is_named_like_a_secret_is_refused():
  config = default_config()
  with config.unlocked():
    config.log.wandb_api_key = "x"
  with pytest.raises(UserError, match=r"config\.log\.wandb_api_key: holds a password"):
    check_evaluation(config)


@pytest.mark.slow
def test_no_command_writes_a_secret(tmp_path, tiny_rows):
  """Pretraining, evaluation, export and report, by the command line."""
  rows = tiny.make_store(tmp_path / "rows", hugging_face.vocabulary())
  data, run, out = tmp_path / "tasks" / "sst2", tmp_path / "run", tmp_path / "out"
  data.mkdir(parents=True)
  for split in ("train", "dev", "test"):
    (data / f"{split}.tsv").write_text("".join(f"{i % 2}\tthe cat sees {i}\n" for i in range(8)))

  def command(*arguments: str) -> str:
    whole = [sys.executable, "-m", "xlmr_jax", *arguments]
    child = subprocess.run(whole, cwd=ROOT, env=os.environ | SECRETS, capture_output=True, text=True)
    assert not child.returncode, child.stderr[-3000:]
    return child.stdout + child.stderr

  tasks = (f"--config.evaluate.folder={tmp_path / 'tasks'}", "--config.evaluate.tasks=sst2",
           "--config.evaluate.recipe=max_steps=2,max_len=16,batch=4")  # fmt: skip
  printed = command("pretrain", f"--config=tests/tiny.py:{rows}", f"--workdir={run}", "--config.train_steps=8",
                    "--config.log.tensorboard=True", *tasks)  # fmt: skip
  printed += command("evaluate", f"--workdir={run}", "--once")
  printed += command("convert", "to-hf", f"--workdir={run}", f"--out={out}", "--checkpoint=latest")
  printed += command("report", f"--workdir={run}")
  assert PLANTED not in printed and says(tmp_path, PLANTED) == []
  assert list((run / "evaluations" / "tensorboard").iterdir()) and (out / "model.safetensors").is_file()


def test_what_a_users_own_reader_raises_shows_no_secret(monkeypatch, capfd):
  """Neither in the error, which the ledger keeps, nor in the traceback, nor where a thread ends with it."""
  for name, value in SECRETS.items():
    monkeypatch.setenv(name, value)
  said = f"401 for https://me:{PLANTED}@example.org/data with {SECRETS['HF_TOKEN']}"
  with pytest.raises(UserError) as error, scorer._as_user_errors("pets"):
    raise RuntimeError(said)
  monkeypatch.setattr(threading, "excepthook", errors._report_thread)
  thread = threading.Thread(target=lambda: (_ for _ in ()).throw(RuntimeError(said)))
  thread.start()
  thread.join()
  printed = capfd.readouterr().err
  assert "401 for https://***@example.org/data" in printed and "401" in str(error.value)
  assert printed.count("RuntimeError: 401") == 2 and PLANTED not in printed + str(error.value)


# --- names stay in their folder ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_below_refuses_what_would_leave(tmp_path, name):
  with pytest.raises(UserError, match="is no name of a file below it"):
    below(tmp_path, "a", name)
  assert not is_plain_name(name) and is_plain_name("zh_Hans") and not is_plain_name(3) and not is_plain_name("a" * 300)


@pytest.fixture
def copied_rows(tiny_rows, tmp_path):
  shutil.copytree(tiny_rows, tmp_path / "a" / "rows")
  return tmp_path / "a" / "rows"


def reseal(rows: Path, change) -> None:
  """Changes the manifest of rows, as one who knows how it is sealed."""
  manifest = json.loads((rows / "manifest.json").read_text())
  change(manifest)
  manifest["fingerprint"] = fingerprint(manifest)
  (rows / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [*HOSTILE, "a/b"])
def test_a_language_of_a_manifest_is_no_path(copied_rows, name):
  reseal(copied_rows, lambda manifest: manifest["languages"].update({name: manifest["languages"]["aa"]}))
  with pytest.raises(UserError, match=r"manifest\.json: languages\."):
    RowStore(copied_rows)
  with pytest.raises(UserError, match="can have no folder"):
    row_files.language_folder(copied_rows, name)


@pytest.mark.parametrize("folder", ["rows/../..", "rows/aa/..", "rows/../1.0.0", "..", "/rows/a/b"])
def test_a_file_of_a_manifest_stays_in_the_rows(copied_rows, folder):
  name = f"{folder}/rows-train.array_record-00000-of-00001"
  reseal(copied_rows, lambda manifest: manifest["files"].update({name: "0" * 64}))
  with pytest.raises(UserError, match=r"manifest\.json: files\."):
    RowStore(copied_rows)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", ""])
def test_a_file_of_a_checkpoint_stays_in_it(tmp_path, name):
  manifest = {"step": 4, "files": {name: {"bytes": 1, "sha256": "x"}}, "leaves": {}}
  (tmp_path / "4").mkdir()
  write_json(tmp_path / "4" / "MANIFEST.json", manifest | {"digest": checkpoint_manifest._digest(manifest)})
  with pytest.raises(checkpoint_manifest.DamagedError, match=r"MANIFEST\.json"):
    checkpoint_manifest.verify(tmp_path / "4")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "..", "a/b.safetensors", "", 3, None])
def test_a_file_of_an_index_lies_beside_it(tmp_path, name):
  folder = hugging_face.make_folder(tmp_path / "hf", shards=2)
  shutil.copy(folder / "model-00001-of-00002.safetensors", tmp_path / "other.safetensors")
  index = json.loads((folder / "model.safetensors.index.json").read_text())
  index["weight_map"] = dict.fromkeys(index["weight_map"], name)
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  with pytest.raises(UserError, match=r"index\.json"):
    open_folder(folder)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../../x"])
def test_names_of_a_bucket_stay_in_the_copy(tmp_path, monkeypatch, name):
  monkeypatch.setattr(folders, "files_below", lambda folder: {"good": 1, name: 1})
  written = []
  monkeypatch.setattr(folders, "download", lambda source, target: written.append(target))
  with pytest.raises(UserError, match="is no name of a file below it"):
    folders.copy_folder(_Bucket("gs://bucket/x"), tmp_path / "copy" / "deep")  # pyright: ignore[reportArgumentType]
  assert all(path.is_relative_to(tmp_path / "copy" / "deep") for path in written)


class _Bucket(str):
  """What copy_folder needs of a bucket's path."""

  def __truediv__(self, name: str) -> "_Bucket":
    return _Bucket(f"{self}/{name}")


@pytest.mark.parametrize("step", ["../../x", 4.5, None, [4], "4"])
def test_an_entry_of_the_ledger_is_about_its_step(tmp_path, step):
  workdir = Workdir(tmp_path)
  workdir.evaluations.mkdir()
  write_json(workdir.evaluation(4), {"step": step, "scores": {}, "score": 1.0})
  with pytest.raises(UserError, match=r"4\.json cannot be read"):
    ledger.read_ledger(workdir)
  write_json(workdir.best_note, {"step": "../../x"})
  assert best_step(workdir) is None


@pytest.mark.parametrize("language", ["../../x", "..", "/etc"])
def test_the_language_of_a_task_is_one_of_its_own(tmp_path, language):
  task = registry.get("xnli")
  with pytest.raises(UserError, match="has no language"):
    reading.find(tmp_path, task, language, "dev", {"dev": ("{language}.tsv",)})


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_language_of_a_row_is_a_code_or_nothing(tmp_path, kind):
  rows = [{"text": "The cat.", "language": name} for name in (*HOSTILE, "removed", ".work", "deu_Latn")]
  if kind == "jsonl":
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  else:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
  source = open_source(f"{kind}:{tmp_path}")
  assert {document.language for shard in source.shards(1 << 20) for document in source.documents(shard)} == {"", "de"}


@pytest.fixture
def crawl(tmp_path):
  """A source of German, beside a file that must stay."""
  (tmp_path / "crawl").mkdir()
  lines = [{"text": "\n".join(text), "language": "de"} for text in documents("de", count=12)]
  (tmp_path / "crawl" / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "file").write_text("mine")
  return open_source(f"jsonl:{tmp_path / 'crawl'}")


@pytest.mark.parametrize("language", ["../mine", "removed", "..", ".work"])
def test_languages_that_are_asked_for_are_codes(crawl, tmp_path, language):
  options = Options(language_id="fasttext:model.bin")  # which may know languages that CC-100 has not
  with pytest.raises(UserError, match="no code of a language"):
    build_corpus(crawl, tmp_path / "out", options, languages=[language], workers=1, quiet=True)
  assert (tmp_path / "mine" / "file").read_text() == "mine"
  with pytest.raises(UserError, match="no code of a language"):
    language_path(tmp_path, language)


@pytest.mark.parametrize("what", ["language", "piece"])
def test_names_in_an_unfinished_build_stay_in_it(crawl, tmp_path, monkeypatch, what):
  out, before = tmp_path / "out", set()

  def run(stages, workers):
    real(stages[:1], workers)
    path = out / WORK / "1_read" / "0000000.json"
    text = path.read_text()
    name = json.loads(text)["pieces"][0]["name"]
    old, new = ('"de": {"doc', '"../../../mine": {"doc') if what == "language" else (name, f"../../../mine/{name}")
    changed = text.replace(old, new)
    assert changed != text
    path.write_text(changed)
    before.update(tmp_path.rglob("*"))
    real(stages[1:], workers)

  real = build.run_here
  monkeypatch.setattr(build, "run_here", run)
  with pytest.raises(UserError, match=r"'\.\./.*is no name of a file below it"):
    build_corpus(crawl, out, Options(), workers=1, quiet=True)
  new = set(tmp_path.rglob("*")) - before
  assert all(path.is_relative_to(out / WORK) for path in new) and (tmp_path / "mine" / "file").exists()


def test_a_source_tells_the_class_of_its_shards(crawl, tmp_path, monkeypatch):
  from xlmr_jax.corpus.sources import Shard

  monkeypatch.setattr(type(crawl), "shard_type", Shard)
  with pytest.raises(TypeError, match=r"JsonLines\.shard_type must be the class of its shards"):
    build_corpus(crawl, tmp_path / "out", Options(), workers=1, quiet=True)


def test_of_a_link_only_the_link_is_removed(tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "file").write_text("mine")
  (tmp_path / "link").symlink_to(tmp_path / "mine")
  folders.remove_folder(tmp_path / "link")
  (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
  folders.remove_folder(tmp_path / "nowhere")
  folder = tmp_path / "folder"
  folder.mkdir()
  (folder / "link").symlink_to(tmp_path / "mine")
  folders.remove_folder(folder)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"] and (tmp_path / "mine" / "file").exists()


def test_a_log_takes_the_place_of_a_link(tmp_path):
  for target in ("there", "not there"):
    (tmp_path / "there").write_text("mine\n")
    (tmp_path / "train.jsonl").unlink(missing_ok=True)
    (tmp_path / "train.jsonl").symlink_to(tmp_path / target)
    log = logs.JsonLines(tmp_path / "train.jsonl", 0, logs.TRAIN)
    log.write({"step": 3})
    log.close()
    assert (tmp_path / "there").read_text() == "mine\n" and not (tmp_path / "not there").exists()


def test_best_as_a_link_to_a_folder_costs_nothing_there_but_steps(tmp_path):
  workdir = Workdir(tmp_path / "run")
  mine = tmp_path / "mine"
  for name in ("papers", "4", "0070"):
    (mine / name).mkdir(parents=True)
  (mine / "notes.txt").write_text("mine")
  workdir.root.mkdir()
  Path(str(workdir.best)).symlink_to(mine)
  (mine / "8").mkdir()
  (mine / "8" / "MANIFEST.json").write_text("{}")
  ledger.keep_best(workdir, 8)
  assert sorted(path.name for path in mine.iterdir()) == ["0070", "8", "notes.txt", "papers"]


# --- numbers and files that would fill the memory ----------------------------------------------------------------------


@pytest.fixture
def bounded():
  """Fails a test that takes more than 100 MB by NumPy and Python."""
  tracemalloc.start()
  yield
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 100 << 20, f"{peak >> 20} MB"


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
  "key, value",
  [("seq_len", 2**26), ("seq_len", 2**60), ("vocabulary_size", 2**31 - 1), ("rows", 2**60), ("rows", 2**61 + 1)],
)
def test_a_manifest_that_tells_of_too_much(copied_rows, key, value):
  def change(manifest):
    (manifest["languages"]["aa"]["train"] if key == "rows" else manifest)[key] = value

  reseal(copied_rows, change)
  with pytest.raises(UserError, match="its manifest says" if key == "rows" else rf"manifest\.json: {key} is not"):
    RowStore(copied_rows)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("lengths", [[2**70], [-5, 45], ["9" * 5000], [2**60] * 3, None, 7])
def test_shards_of_impossible_lengths(copied_rows, lengths):
  path = copied_rows / "rows" / "aa" / "1.0.0" / "dataset_info.json"
  path.write_text(json.dumps({"splits": [{"name": "train", "shardLengths": lengths}]}))
  with pytest.raises(UserError, match=r"dataset_info\.json: cannot be read"):
    row_files._lengths_of(copied_rows, "aa", "train")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
  "length, shape", [(2**62, [1]), (2**64 - 1, [1]), (10**8, [1]), (None, [2**40]), (None, [2**62, 4]), (None, [2**31] * 40)]
)
def test_a_safetensors_header_that_tells_of_too_much(tmp_path, length, shape):
  entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}
  header = json.dumps({"x": entry}).encode()
  path = tmp_path / "model.safetensors"
  path.write_bytes((length or len(header)).to_bytes(8, "little") + header)
  with pytest.raises(UserError, match=r"model\.safetensors: .*fetch it again"):
    safetensors_file.read_header(path)


@pytest.mark.parametrize("kind", ["jsonl.zst", "jsonl.gz", "wet.zst", "wet.gz", "parquet"])
def test_what_a_file_expands_to_is_bounded(tmp_path, kind):
  """In a process of its own, whose memory is measured; what is compressed has 200 MB of text, or a row of 100 MB."""
  import zstandard

  size, path = 200 << 20, tmp_path / f"a.{kind}"
  record = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: 5\r\n\r\nhallo\r\n\r\n"
  head = b'{"text": "' if kind.startswith("jsonl") else record + b"WARC/1.0\r\nWARC-Type: conversion\r\nX: "
  tail = b'"}\n{"text": "b"}\n' if kind.startswith("jsonl") else b"\r\nContent-Length: 0\r\n\r\n\r\n\r\n" + record
  if kind == "parquet":
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * (size // 2)]}), path, compression="zstd")
  elif kind.endswith("zst"):
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    with path.open("wb") as file:
      for part in (head, *[b"a" * (1 << 20)] * (size >> 20), tail):
        file.write(stream.compress(part))
      file.write(stream.flush())
  else:
    with path.open("wb") as file:
      file.write(gzip.compress(record) if kind == "wet.gz" else b"")
      with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
        for part in (head.removeprefix(record), *[b"a" * (1 << 20)] * (size >> 20), tail):
          packed.write(part)
  program = f"""
from pathlib import Path
import re
from xlmr_jax.corpus.sources import jsonl
from xlmr_jax.corpus.sources.registry import open_source
jsonl.LONGEST_LINE = 8 << 20
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
source, damages = open_source({f"{kind.split('.')[0]}:{path}"!r}), []
shards, before = source.shards(1 << 25), peak()
texts = [document.text[:9] for shard in shards for document in source.documents(shard, damages.append)]
print(len(damages), peak() - before)
"""
  child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
  damages, peak = map(int, child.stdout.split())
  assert damages and peak < 130, f"{peak} MB"
