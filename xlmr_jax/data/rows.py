"""The row store: int32[L] rows in ArrayRecord files, one TFDS dataset a language, one manifest for all.

Owns the layout on disk, writing shards, and bulk random access. Which row comes when is mixture.py's.

    ROWS/manifest.json          written last: without it the store is unfinished
    ROWS/tokenizer.model        the vocabulary the rows were made with
    ROWS/rows/LANG/1.0.0/       tfds.builder_from_directory opens it; splits "train" and "held_out"
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from xlmr_jax.errors import UserError

FORMAT = 1
SPLITS = ("train", "held_out")
_VERSION = "1.0.0"
# Reading waits for the disk, or for the network behind it, without the GIL: many threads, if each has
# enough to do.
_THREADS, _ROWS_PER_THREAD = 16, 32
COUNTS = ("rows", "tokens", "pieces", "bytes", "documents")
# group_size 1: a larger group is decompressed whole for one row. zstd:1 halves the files and reads as fast.
_WRITER_OPTIONS = "group_size:1,zstd:1"


def shard_name(split: str, index: int, count: int) -> str:
  """TFDS's name of one ArrayRecord shard."""
  return f"rows-{split}.array_record-{index:05d}-of-{count:05d}"


def language_folder(rows_dir: str | Path, language: str) -> Path:
  """Where the TFDS dataset of one language lies under ROWS."""
  return Path(rows_dir) / "rows" / language / _VERSION


def write_shard(path: str | Path, rows: np.ndarray) -> None:
  """Writes rows, int32[n, L], as one ArrayRecord file of the tf.train.Examples that TFDS would write."""
  from array_record.python.array_record_module import ArrayRecordWriter

  if rows.dtype != np.int32 or rows.ndim != 2:
    raise ValueError(f"rows must be int32[n, L], not {rows.dtype}{list(rows.shape)}")
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  prefix = _example_prefix(rows.shape[1])
  writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
  for row in rows.astype("<i4"):
    writer.write(prefix + row.tobytes())
  writer.close()


def write_dataset_info(rows_dir: str | Path, language: str, seq_len: int, shard_lengths: Mapping[str, list[int]]) -> None:
  """Makes the shards of one language a TFDS dataset: writes dataset_info.json and features.json beside them.

  shard_lengths: rows of each shard, per split; a split without shards is left out.
  """
  import tensorflow_datasets as tfds

  folder = language_folder(rows_dir, language)
  names = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name="rows", filetype_suffix="array_record")
  splits = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=lengths,
      num_bytes=sum(lengths) * (len(_example_prefix(seq_len)) + 4 * seq_len),
      filename_template=names,
    )
    for split, lengths in shard_lengths.items()
    if lengths
  ]
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=row_features(seq_len), split_infos=splits, version=_VERSION, check_data=False
  )


def row_features(seq_len: int):
  """The TFDS feature of a row."""
  import tensorflow_datasets as tfds

  raw = tfds.features.Encoding.BYTES  # read at once by constant offset; varints would have to be parsed
  return tfds.features.FeaturesDict({"tokens": tfds.features.Tensor(shape=(seq_len,), dtype=np.int32, encoding=raw)})


def write_manifest(
  root: str | Path,
  *,
  seq_len: int,
  vocabulary_size: int,
  tokenizer_sha256: str,
  held_out_share: float,
  languages: Mapping[str, Mapping[str, Mapping[str, int]]],
  files: Mapping[str, str] | None = None,
) -> dict:
  """Finishes a store: writes manifest.json, atomically, and returns it.

  languages: {language: {split: {"rows", "tokens" (not <pad>), "pieces" (nor <s>, </s>), "bytes" (UTF-8 of
  the text), "documents"}}}.
  files: sha256 of every shard by its path under root; computed here where not given.
  """
  root = Path(root)
  if files is None:
    paths = [str(p.relative_to(root)) for p in root.glob(f"rows/*/{_VERSION}/*.array_record-*")]
    files = {path: file_sha256(root / path) for path in paths}
  manifest = {
    "format": FORMAT,
    "seq_len": seq_len,
    "vocabulary_size": vocabulary_size,
    "tokenizer_sha256": tokenizer_sha256,
    "held_out_share": held_out_share,
    "languages": {
      language: {split: {key: int(languages[language][split][key]) for key in COUNTS} for split in SPLITS}
      for language in sorted(languages)
    },
    "files": dict(sorted(files.items())),
  }
  manifest["fingerprint"] = fingerprint(manifest)
  unfinished = root / "manifest.json.tmp"
  unfinished.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
  unfinished.replace(root / "manifest.json")
  return manifest


def fingerprint(manifest: Mapping) -> str:
  """sha256 over the canonical JSON of a manifest without its own fingerprint."""
  bare = {key: value for key, value in manifest.items() if key != "fingerprint"}
  canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
  return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


class RowStore:
  """An opened ROWS: counts and bulk random access. Threads may share it."""

  def __init__(self, root: str | Path, languages: Iterable[str] | None = None, *, tokenizer_sha256: str | None = None):
    """Opens all of the store, or a subset of its languages (any order; kept sorted).

    Raises UserError: no manifest (unfinished), another format, an edited manifest, another vocabulary than
    tokenizer_sha256, a missing language or file, a file whose rows are not those of the manifest.
    """
    self.root = Path(root)
    self.manifest = self._load_manifest()
    self.seq_len: int = self.manifest["seq_len"]
    self.vocabulary_size: int = self.manifest["vocabulary_size"]
    self.fingerprint: str = self.manifest["fingerprint"]
    self.tokenizer_path = self.root / "tokenizer.model"
    self._check_tokenizer(tokenizer_sha256)
    known = self.manifest["languages"]
    asked = set(known if languages is None else languages)
    if not asked or asked - set(known):
      raise UserError(
        f"{self.root}: no rows of {', '.join(sorted(asked - set(known))) or 'any language'}; it holds {', '.join(known)}"
      )
    self.languages: tuple[str, ...] = tuple(sorted(asked))
    self._splits = {split: _SplitReader(self, split) for split in SPLITS}

  def counts(self, split: str) -> np.ndarray:
    """Rows of each language, int64[G], in the order of `languages`."""
    return np.array([self.manifest["languages"][name][split]["rows"] for name in self.languages], np.int64)

  def read(self, split: str, language: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Rows by (index into `languages`, row of that language): int[n], int[n] -> int32[n, L]."""
    return self._splits[split].read(np.asarray(language), np.asarray(row))

  def _load_manifest(self) -> dict:
    path = self.root / "manifest.json"
    try:
      manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
      why = "an unfinished build; run xlmr_jax.corpus.build again" if self.root.is_dir() else "no such folder"
      raise UserError(f"{path}: no manifest: {why}") from error
    except ValueError as error:
      raise UserError(f"{path}: not JSON ({error}); build the rows again") from error
    if manifest.get("format") != FORMAT:
      raise UserError(f"{path}: format {manifest.get('format')}, not {FORMAT}; build the rows again")
    if manifest.get("fingerprint") != fingerprint(manifest):
      raise UserError(f"{path}: does not match its own fingerprint: it was edited; build the rows again")
    return manifest

  def _check_tokenizer(self, expected: str | None) -> None:
    made_with = self.manifest["tokenizer_sha256"]
    if not self.tokenizer_path.is_file():
      raise UserError(f"{self.tokenizer_path}: missing; put the vocabulary {made_with[:12]} there")
    if (found := file_sha256(self.tokenizer_path)) != made_with:
      raise UserError(f"{self.tokenizer_path}: sha256 {found[:12]}, but the rows' is {made_with[:12]}")
    if expected is not None and expected != made_with:
      raise UserError(
        f"{self.root}: rows made with vocabulary {made_with[:12]}, not {expected[:12]}; "
        "build the rows again or name the vocabulary they were made with"
      )


class _SplitReader:
  """Random access to one split: all shards of all languages behind one row number."""

  def __init__(self, store: RowStore, split: str):
    self._languages, self._counts = store.languages, store.counts(split)
    self._vocabulary_size, self._seq_len = store.vocabulary_size, store.seq_len
    self._prefix = _example_prefix(store.seq_len)
    self._starts = np.cumsum(self._counts) - self._counts  # of each language, among the split's rows
    listed = sorted(store.manifest["files"])
    self._paths = []
    owners = []
    for index, language in enumerate(store.languages):
      head = f"rows/{language}/{_VERSION}/rows-{split}.array_record-"
      names = [name for name in listed if name.startswith(head)]
      self._paths += [store.root / name for name in names]
      owners += [index] * len(names)
    self._pool = ThreadPoolExecutor(_THREADS)
    self._readers = list(self._pool.map(self._open, self._paths))
    self._lengths = np.array([reader.num_records() for reader in self._readers], np.int64)
    self._ends = np.cumsum(self._lengths)
    held = np.zeros_like(self._counts)
    np.add.at(held, owners, self._lengths)
    for language, found, wanted in zip(store.languages, held, self._counts):
      if found != wanted:
        raise UserError(
          f"{store.root}: {language}/{split} holds {found} rows, its manifest says {wanted}; "
          "copy the store again or rebuild it"
        )

  def _open(self, path: Path):
    from array_record.python.array_record_module import ArrayRecordReader

    if not path.is_file():
      raise UserError(f"{path}: named in the manifest, but missing; copy the store again or rebuild it")
    try:
      reader = ArrayRecordReader(str(path))
      if not reader.ok():  # a damaged file does not raise: it says that it is empty
        raise ValueError
      first = reader.read([0])[0] if reader.num_records() else self._prefix + bytes(4 * self._seq_len)
    except (RuntimeError, ValueError, IndexError) as error:
      raise UserError(f"{path}: no readable ArrayRecord file; copy it again or rebuild") from error
    if not first.startswith(self._prefix) or len(first) != len(self._prefix) + 4 * self._seq_len:
      raise UserError(f"{path}: its rows are not int32[{self._seq_len}]; rebuild the store")
    return reader

  def read(self, language: np.ndarray, row: np.ndarray) -> np.ndarray:
    if np.any((row < 0) | (row >= self._counts[language])):
      raise IndexError("a row lies outside its language")
    keys = self._starts[language] + row
    files = np.searchsorted(self._ends, keys, side="right")
    order = np.argsort(keys, kind="stable")
    files_in_order = files[order].tolist()
    inside = (keys - (self._ends - self._lengths)[files])[order].tolist()

    def read_part(part: slice) -> bytes:
      # read(i, i + 1), not read([i, j, ...]): a list makes array_record scan its whole index and wake its
      # 64 threads for every call, 3 to 5 times the time a row takes where a batch has few rows of a file.
      records = []
      try:
        for file, i in zip(files_in_order[part], inside[part]):
          records += self._readers[file].read(i, i + 1)
      except RuntimeError as error:
        raise UserError(f"{self._paths[file]}: row {i} is damaged ({error}); copy or rebuild it") from error
      return b"".join(records)

    step = max(_ROWS_PER_THREAD, -(-len(keys) // _THREADS))
    parts = [slice(i, i + step) for i in range(0, len(keys), step)]
    # Every record is one constant prefix, then the row: no Example is parsed.
    record_bytes = len(self._prefix) + 4 * self._seq_len
    packed = np.frombuffer(b"".join(self._pool.map(read_part, parts)), np.uint8).reshape(-1, record_bytes)
    rows = np.empty((len(keys), self._seq_len), "<i4")
    rows.view(np.uint8)[order] = packed[:, len(self._prefix) :]
    if rows.size and rows.view(np.uint32).max() >= self._vocabulary_size:
      bad = self._languages[language[np.argmax(rows.view(np.uint32).max(1))]]
      raise UserError(f"{bad}: a row holds an id outside [0, {self._vocabulary_size}); rebuild the store")
    return rows


def _example_prefix(seq_len: int) -> bytes:
  """What stands before the row in a serialized tf.train.Example {"tokens": bytes}; the row comes last.

  Example{features{feature{key, value{bytes_list{value}}}}}, innermost first, each message led by its length.
  """
  size = 4 * seq_len
  head = b"\n" + _varint(size)
  head = b"\n" + _varint(len(head) + size) + head
  head = b"\n\x06tokens\x12" + _varint(len(head) + size) + head
  head = b"\n" + _varint(len(head) + size) + head
  return b"\n" + _varint(len(head) + size) + head


def _varint(number: int) -> bytes:
  low, high = number & 127, number >> 7
  return bytes([low | 128]) + _varint(high) if high else bytes([low])
