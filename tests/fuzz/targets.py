"""The readers: what each is given (seeds, small and whole), and how the bytes reach it."""

import atexit
import bz2
import dataclasses
import functools
import gzip
import json
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard
from ml_collections import ConfigDict

from tests import hugging_face, tiny
from xlmr_jax.config_checks import check_config, check_evaluation
from xlmr_jax.corpus.repair import repair_all
from xlmr_jax.corpus.sources import Damage
from xlmr_jax.corpus.sources.registry import open_source
from xlmr_jax.data.row_manifest import fingerprint
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import ledger
from xlmr_jax.evaluation.tasks import registry
from xlmr_jax.huggingface import safetensors_file
from xlmr_jax.huggingface.folder import open_folder
from xlmr_jax.run import logs, manifest
from xlmr_jax.run.workdir import RunRecord, Workdir, best_step, read_record, read_stop

TEXT = "Ein Satz.\nNoch einer, länger\u00a0als der erste.\n\n\u3000\nสวัสดี ครับ\n\ufeffthe end\u2028of it\n\n"
PROBE = "The cat sees 3 Häuser; กรุงเทพ  巴黎\u3000ＡＢＣ e\u0301 \u200b\ud7ff𝔘🙂"


@dataclasses.dataclass(frozen=True)
class Target:
  """A reader. run(data, folder) writes the bytes into the empty folder and reads them; it may raise UserError."""

  name: str
  seeds: Callable[[], list[bytes]]
  run: Callable[[bytes, Path], None]


TARGETS: dict[str, Target] = {}


def target(seeds: Callable[[], list[bytes]]) -> Callable:
  """Registers a function as the target of its name."""

  def add(run: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
    TARGETS[run.__name__] = Target(run.__name__, seeds, run)
    return run

  return add


def run_once(name: str, data: bytes) -> bool:
  """Whether the target read the bytes; False where it refused them."""
  with tempfile.TemporaryDirectory() as folder:
    try:
      TARGETS[name].run(data, Path(folder))
    except UserError as error:
      assert str(error).strip() and "\n" not in str(error), error
      return False
  return True


# --- text ------------------------------------------------------------------------------------------------------------

_PACKED = {
  ".txt": lambda data: data,
  ".txt.gz": lambda data: gzip.compress(data, mtime=0),
  ".txt.xz": lzma.compress,
  ".txt.bz2": bz2.compress,
  ".txt.zst": zstandard.ZstdCompressor().compress,
}


def _read_text(suffix: str) -> Callable[[bytes, Path], None]:
  def run(data: bytes, folder: Path) -> None:
    (folder / f"de{suffix}").write_bytes(data)
    source = open_source(f"cc100:{folder}")
    for shard in source.shards(64):
      for document in source.documents(shard):
        document.text.encode()

  return run


for _suffix, _pack in _PACKED.items():
  _name = "text" + _suffix.removeprefix(".txt").replace(".", "_")

  def _seeds(pack: Callable[[bytes], bytes] = _pack) -> list[bytes]:
    whole = TEXT.encode()
    return [whole, pack(whole), pack(whole) + pack(b"x\n"), pack(whole) + bytes(8), pack(b""), pack(whole)[:-3], b""]

  TARGETS[_name] = Target(_name, _seeds, _read_text(_suffix))


# --- the sources of build_corpus, which go on after damage, and the steps on what they give ----------------------------


def _warc_record(kind: str, body: bytes) -> bytes:
  head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://e.org/\r\nContent-Length: {len(body)}\r\n\r\n"
  return head.encode() + body + b"\r\n\r\n"


_HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>The cat sees the dog, and the dog sees it.</p>"
_WET = _warc_record("conversion", b"Die Katze sieht den Hund.\nUnd er sie.") * 2


def _parquet() -> bytes:
  import io

  import pyarrow
  import pyarrow.parquet

  file = io.BytesIO()
  pyarrow.parquet.write_table(pyarrow.table({"text": ["The cat.", "Der Hund."], "url": ["http://a.org", None]}), file)
  return file.getvalue()


_CRAWLS: dict[str, tuple[str, Callable[[], list[bytes]]]] = {
  "wet": ("a.wet", lambda: [_WET, _WET[:-9]]),
  "wet_gz": ("a.wet.gz", lambda: [gzip.compress(_WET, mtime=0), gzip.compress(_WET, mtime=0)[:-9]]),
  "warc": ("a.warc", lambda: [_warc_record("response", _HTML) * 2]),
  "jsonl": ("a.jsonl", lambda: [b'{"text": "The cat.", "language": "deu_Latn"}\n{"text": 1}\n{\n']),
  "parquet": ("a.parquet", lambda: [_parquet()]),
}


def _read_crawl(name: str, file: str) -> Callable[[bytes, Path], None]:
  def run(data: bytes, folder: Path) -> None:
    (folder / file).write_bytes(data)
    source = open_source(f"{name.partition('_')[0]}:{folder / file}")
    damages: list[Damage] = []
    texts = [document.text for shard in source.shards(64) for document in source.documents(shard, damages.append)]
    for text, damage in [(text, None) for text in repair_all(texts)] + [("", damage) for damage in damages]:
      text.encode()  # A repaired text has no surrogates.
      assert not damage or (file in damage.where and damage.reason)

  return run


for _name, (_file, _seeds_of) in _CRAWLS.items():
  TARGETS[_name] = Target(_name, _seeds_of, _read_crawl(_name, _file))


# --- labelled data ---------------------------------------------------------------------------------------------------


def _read_task(name: str, language: str, split: str, file: str) -> Callable[[bytes, Path], None]:
  task = registry.get(name)

  def run(data: bytes, folder: Path) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    for example in task.load(folder, language, split):
      json.dumps(example, ensure_ascii=False).encode()  # Half of a surrogate pair would end a tokenizer.

  return run


def _squad(*answers: tuple[str, int]) -> bytes:
  texts = [{"text": text, "answer_start": start} for text, start in answers]
  question = {"id": "q1", "question": "Who sees?", "answers": texts}
  return json.dumps(
    {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "The cat sees.", "qas": [question]}]}]}
  ).encode()


_WORDS = (
  "1\tthe\tthe\tDET"
  + "\t_" * 6
  + "\n2-3\tcats'\t_\t_"
  + "\t_" * 6
  + "\n2\tcats\tcat\tNOUN"
  + "\t_" * 6
  + "\n3\t'\t'\tPUNCT"
  + "\t_" * 6
)
_TASKS = {
  "xnli": ("xnli", "en", "dev", "en.tsv", ["p\th\tneutral\nq\ti\t-\n", '"p"\th\tentailment\n']),
  "mnli": ("mnli", "en", "dev_matched", "dev_matched.tsv", ["index\tsentence1\tsentence2\tgold_label\n0\tp\th\tneutral\n"]),
  "stsb": ("stsb", "en", "dev", "dev.tsv", ["5.000\ta\tb\n0.5\ta\tb\n"]),
  "pawsx": ("pawsx", "ko", "dev", "ko/dev_2k.tsv", ["id\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n2\tNS\tb\t0\n"]),
  "panx": ("panx", "en", "train", "en/train", ["en:the\tO\nen:Cat\tB-PER\n\nen:x\tI-LOC\n"]),
  "conll": ("conll", "en", "train", "eng.train", ["-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"]),
  "udpos": ("udpos", "en", "train", "en/en_a-ud-train.conllu", [f"# sent_id = 1\n{_WORDS}\n\n"]),
  "squad": ("squad", "en", "train", "train-v1.1.json", [_squad(("cat", 4)).decode(), _squad().decode()]),
}  # fmt: skip

for _name, (_task, _language, _split, _file, _texts) in _TASKS.items():
  TARGETS[_name] = Target(
    _name, lambda texts=_texts: [x.encode() for x in texts], _read_task(_task, _language, _split, _file)
  )


# --- vocabularies ----------------------------------------------------------------------------------------------------


def _tokenizer_jsons() -> list[bytes]:
  import tokenizers
  from tokenizers import models, normalizers, pre_tokenizers, trainers

  found = []
  options = {"special_tokens": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "show_progress": False}
  unigram = trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", **options)
  for model, trainer, before in (
    (models.Unigram(), unigram, pre_tokenizers.Metaspace()),
    (models.BPE(), trainers.BpeTrainer(vocab_size=300, **options), pre_tokenizers.ByteLevel(add_prefix_space=False)),
  ):
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = before
    tokenizer.train_from_iterator([" ".join(hugging_face.WORDS)] * 3, trainer)
    found.append(tokenizer.to_str().encode())
  return found


def _use_tokenizer(data: bytes, folder: Path) -> None:
  (folder / "tokenizer.model").write_bytes(data)
  tokenizer = open_tokenizer(folder / "tokenizer.model")
  ids = tokenizer.encode(PROBE)
  assert all(0 <= id < tokenizer.size for id in ids)
  tokenizer.decode(ids)
  tokenizer.encode_with_offsets([PROBE])


@target(_tokenizer_jsons)
def tokenizer_json(data: bytes, folder: Path) -> None:
  """A vocabulary of the tokenizers library."""
  _use_tokenizer(data, folder)


@target(lambda: [hugging_face.vocabulary()])
def sentencepiece_model(data: bytes, folder: Path) -> None:
  """A SentencePiece model."""
  _use_tokenizer(data, folder)


# --- Hugging Face folders --------------------------------------------------------------------------------------------


@target(lambda: [json.dumps(hugging_face.config_of()).encode()])
def hf_config(data: bytes, folder: Path) -> None:
  """config.json of a folder with sound weights."""
  hugging_face.write_tensors(folder / "model.safetensors", hugging_face.tensors())
  (folder / "config.json").write_bytes(data)
  open_folder(folder, tokenizer=False)


def _safetensors() -> list[bytes]:
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "x.safetensors"
    hugging_face.write_tensors(path, {name: x for name, x in list(hugging_face.tensors().items())[:3]})
    deep = b'{"a":' + b"[" * 5000
    return [path.read_bytes(), len(deep).to_bytes(8, "little") + deep]


@target(_safetensors)
def safetensors_header(data: bytes, folder: Path) -> None:
  """A safetensors file: its header, and what that says of the rest."""
  (folder / "model.safetensors").write_bytes(data)
  for tensor in safetensors_file.read_header(folder / "model.safetensors").values():
    safetensors_file.read(tensor)


def _index() -> bytes:
  return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(hugging_face.tensors(), "model-1.safetensors")}).encode()


@target(lambda: [_index()])
def safetensors_index(data: bytes, folder: Path) -> None:
  """The index of weights in several files."""
  hugging_face.write_tensors(folder / "model-1.safetensors", hugging_face.tensors())
  (folder / "config.json").write_text(json.dumps(hugging_face.config_of()))
  (folder / "model.safetensors.index.json").write_bytes(data)
  open_folder(folder, tokenizer=False)


# --- our own files ---------------------------------------------------------------------------------------------------


@functools.cache
def _rows() -> Path:
  """A store that lives as long as the process."""
  kept = tempfile.mkdtemp(prefix="fuzz_rows")
  atexit.register(shutil.rmtree, kept, ignore_errors=True)
  return tiny.make_store(Path(kept) / "rows")


@target(lambda: [(_rows() / "manifest.json").read_bytes()])
def rows_manifest(data: bytes, folder: Path) -> None:
  """manifest.json of rows; an object gets the fingerprint that belongs to it, so that more than the first check is met."""
  try:
    value = json.loads(data)
    if isinstance(value, dict) and "fingerprint" in value:
      value["fingerprint"] = fingerprint(value)
      data = json.dumps(value).encode()
  except (ValueError, RecursionError):
    pass
  shutil.copy(_rows() / "tokenizer.model", folder)
  (folder / "rows").symlink_to(_rows() / "rows")
  (folder / "manifest.json").write_bytes(data)
  RowStore(folder)


def _record() -> bytes:
  return json.dumps(RunRecord(tiny.config("rows").to_dict(), 90, "c" * 64, 32, "a" * 64).to_json()).encode()


@target(lambda: [_record()])
def run_record(data: bytes, folder: Path) -> None:
  """config.json of a workdir."""
  workdir = Workdir(folder)
  workdir.record.write_bytes(data)
  config = ConfigDict(read_record(workdir).config)
  check_config(config)
  check_evaluation(config)


@target(lambda: [b'{"step": 3, "reason": "why"}', b"[]"])
def stop_and_best(data: bytes, folder: Path) -> None:
  """STOP.json and best.json."""
  workdir = Workdir(folder)
  workdir.stop.write_bytes(data)
  workdir.best_note.write_bytes(data)
  read_stop(workdir)
  best_step(workdir)


@target(
  lambda: [b'{"step": 4, "mean_loss": 1.5, "languages": {"aa": {"loss": 1.5, "bits_per_byte": 2.0}}}\n{"step": 8, "me']
)
def log_lines(data: bytes, folder: Path) -> None:
  """held_out.jsonl, read and repaired."""
  workdir = Workdir(folder)
  workdir.held_out_log.write_bytes(data)
  logs.read_held_out(workdir)
  logs.JsonLines(workdir.held_out_log, 5, logs.HELD_OUT).close()


def _entry() -> bytes:
  entry = ledger.Entry(4, 0.5, {"xnli": {"en": {"accuracy": [0.5, None]}}}, {"xnli": "accuracy"}, digest="d" * 64)
  with tempfile.TemporaryDirectory() as folder:
    entry.write(Workdir(folder))
    return Workdir(folder).evaluation(4).read_bytes()


@target(lambda: [_entry(), b'{"step": 4, "error": "gone"}'])
def ledger_entry(data: bytes, folder: Path) -> None:
  """An entry of the evaluator's ledger, and the rule that reads it."""
  workdir = Workdir(folder)
  workdir.evaluations.mkdir()
  workdir.evaluation(4).write_bytes(data)
  config = tiny.config("rows", evaluate__tasks=("xnli",), stop__patience=1)
  ledger.replay(config, workdir)


@target(lambda: [b'{"step": 4, "files": {"a": {"bytes": 1, "sha256": "x"}}, "leaves": {}, "digest": "x"}'])
def checkpoint_manifest(data: bytes, folder: Path) -> None:
  """MANIFEST.json of a checkpoint."""
  (folder / "4").mkdir()
  (folder / "4" / manifest.MANIFEST).write_bytes(data)
  try:
    manifest.verify(folder / "4")
  except manifest.DamagedError as error:
    raise UserError(str(error)) from None


def all_seeds(name: str) -> Iterator[bytes]:
  """The seeds of a target, each of JSON once more with a value nested too deeply, and what was once a fault."""
  for seed in TARGETS[name].seeds():
    yield seed
    if seed[:1] == b"{":
      yield seed.replace(b":", b":" + b"[" * 5000, 1)
  for path in sorted((Path(__file__).parent / "seeds" / name).glob("*")):
    yield path.read_bytes()
