"""The row store: int32[L] rows in ArrayRecord files, one TFDS dataset per language, one manifest for all.

This file owns the layout on disk, how files are written, and how many rows are read at random. mixture.py decides which row
comes when.

    ROWS/manifest.json          written last: without it the store is unfinished
    ROWS/tokenizer.model        the vocabulary the rows were made with
    ROWS/rows/LANG/1.0.0/       tfds.builder_from_directory opens it; splits "train" and "held_out"

Rows built with --word_starts have a second feature: a bit per token, which says whether a word starts there.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xlmr_jax.data.protobuf import bytes_field
from xlmr_jax.data.row_cache import RowCache
from xlmr_jax.data.row_manifest import SPLITS, read_manifest
from xlmr_jax.errors import UserError
from xlmr_jax.files import AnyPath, any_path, in_parallel, read_json, sha256_of
from xlmr_jax.ids import WORD_START, mask_id
from xlmr_jax.names import is_plain_name

_VERSION = "1.0.0"
# A reader waits for the disk, or for the network behind it, without Python's lock. So many threads read at once, as long as
# each has enough to do.
_THREADS, _ROWS_PER_THREAD = 16, 32
# A group larger than one row would be decompressed whole for each row. zstd:1 halves the files and reads as fast.
_WRITER_OPTIONS = "group_size:1,zstd:1"


def shard_name(split: str, index: int, count: int) -> str:
  """The name that TFDS gives to one ArrayRecord shard."""
  return f"rows-{split}.array_record-{index:05d}-of-{count:05d}"


def language_folder(rows_dir: str | os.PathLike, language: str) -> AnyPath:
  """The folder of one language's TFDS dataset under ROWS. UserError: the language can be no name of a folder."""
  if not is_plain_name(language):
    raise UserError(f"{rows_dir}: a language named {language[:80]!r} can have no folder; name it by a code, such as de")
  return any_path(rows_dir) / "rows" / language / _VERSION


def write_shard(path: str | Path, rows: np.ndarray, word_starts: np.ndarray | None = None) -> None:
  """Writes rows, int32[n, L], as one ArrayRecord file of the tf.train.Examples that TFDS would write.

  word_starts: bool[n, L], for a store that tells words.
  Raises ValueError: `rows` has another type or shape. Raises UserError: the disk is full, or fails.
  """
  from array_record.python.array_record_module import ArrayRecordWriter

  if rows.dtype != np.int32 or rows.ndim != 2:
    raise ValueError(f"rows must be int32[n, L], not {rows.dtype}{list(rows.shape)}")
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  parts = _example_parts(rows.shape[1], word_starts is not None)
  bits = np.empty((len(rows), 0), np.uint8) if word_starts is None else np.packbits(word_starts, axis=1)
  try:
    writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    for row, row_bits in zip(rows.astype("<i4"), bits):
      writer.write(parts.prefix + row.tobytes() + parts.between + row_bits.tobytes())
    writer.close()
  except RuntimeError as error:  # It says what the system said, and after a semicolon where in its code.
    raise UserError(f"{path}: cannot be written ({str(error).partition(';')[0]})") from error


def write_dataset_info(
  rows_dir: str | os.PathLike, language: str, seq_len: int, shard_lengths: Mapping[str, list[int]], word_starts: bool = False
) -> None:
  """Writes dataset_info.json and features.json beside the shards of one language, which makes them a TFDS dataset.

  shard_lengths: the rows of each shard of each split. A split without shards is left out. word_starts: whether rows tell
  words.
  """
  import tensorflow_datasets as tfds
  from etils import epath

  folder = language_folder(rows_dir, language)
  names = tfds.core.ShardedFileTemplate(data_dir=epath.Path(folder), dataset_name="rows", filetype_suffix="array_record")
  splits = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=lengths,
      num_bytes=sum(lengths) * _example_parts(seq_len, word_starts).size,
      filename_template=names,
    )
    for split, lengths in shard_lengths.items()
    if lengths
  ]
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=row_features(seq_len, word_starts), split_infos=splits, version=_VERSION, check_data=False
  )


def row_features(seq_len: int, word_starts: bool = False) -> Any:
  """The tfds.features.FeaturesDict of a row. word_starts: uint8[ceil(L / 8)], the bits of numpy.packbits, one per token."""
  import tensorflow_datasets as tfds

  raw = tfds.features.Encoding.BYTES  # Raw bytes lie at a constant offset; an int64_list would have to be parsed.
  features = {"tokens": tfds.features.Tensor(shape=(seq_len,), dtype=np.int32, encoding=raw)}
  if word_starts:
    features["word_starts"] = tfds.features.Tensor(shape=(-(-seq_len // 8),), dtype=np.uint8, encoding=raw)
  return tfds.features.FeaturesDict(features)


class RowStore:
  """An opened folder of rows: counts, and random access to many rows at once. Threads may share it."""

  def __init__(
    self,
    root: str | os.PathLike,
    languages: Iterable[str] | None = None,
    *,
    tokenizer_sha256: str | None = None,
    cache: str = "",
    marks_words: bool = False,
  ):
    """Opens all languages of the store, or the given ones; either way they are sorted.

    tokenizer_sha256: the vocabulary that the rows must have been made with; any by default.
    cache: the folder of this machine to which the files of a bucket are brought; "" for one of this user's.
    marks_words: read() adds WORD_START to the id of the first piece of each word.
    Raises UserError: the manifest is missing (so the store is unfinished), edited or of another format; the vocabulary is
    another one; a language or a file is missing; a file does not hold the rows that the manifest says; words are to be
    marked, and the rows tell none.
    """
    self.root: AnyPath = any_path(root)
    self.manifest = read_manifest(self.root)
    self.word_starts: str = self.manifest.get("word_starts", "")  # what segmented the text; "" if the rows tell no words
    self.marks_words = marks_words
    if marks_words and not self.word_starts:
      raise UserError(
        f"{self.root}: its rows do not tell where words start, which config.data.mask_unit=word and span need; build them "
        "with `xlmr build_rows --word_starts`, or leave config.data.mask_unit=piece"
      )
    self.seq_len: int = self.manifest["seq_len"]
    self.vocabulary_size: int = self.manifest["vocabulary_size"]
    self.mask_id: int = self.manifest.get("mask_id", mask_id(self.vocabulary_size))
    self.no_pieces: tuple[int, ...] = tuple(self.manifest.get("no_pieces", ()))  # from <unk> on, <mask> apart
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
    # The languages of both texts of those whose rows are pairs of parallel sentences: {"en-fr": ("en", "fr")}.
    pairs = self.manifest.get("pairs", {})
    self.pairs: dict[str, tuple[str, str]] = {
      name: (pairs[name][0], pairs[name][1]) for name in self.languages if name in pairs
    }
    # The files lie on this machine, or are brought to it one by one.
    self.cache = (
      None if isinstance(self.root, Path) else RowCache(self.root, cache, self.fingerprint, self.manifest["files"])
    )
    self._splits = {split: _SplitReader(self, split) for split in SPLITS}

  def counts(self, split: str) -> np.ndarray:
    """The number of rows of each language in a split, int64[G], in the order of `languages`."""
    return np.array([self.manifest["languages"][name][split]["rows"] for name in self.languages], np.int64)

  def read(self, split: str, language: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Reads rows, int32[n, L]. language: int[n], indices into `languages`; row: int[n], rows of that language's split.

    With marks_words, WORD_START is added to the id of the first piece of each word.
    Raises IndexError: there is no such row. Raises UserError: a row is damaged, or holds an id outside the vocabulary.
    """
    return self._splits[split].read(np.asarray(language), np.asarray(row))

  def files_of(self, split: str, language: np.ndarray, row: np.ndarray) -> list[str]:
    """The files that rows lie in, each once, in the order of the rows. language, row: as in read()."""
    return self._splits[split].files_of(np.asarray(language), np.asarray(row))

  def local_file(self, name: str) -> Path:
    """The path of a file of the manifest on this machine; waits until it is there."""
    return self.cache.local(name) if self.cache else Path(str(self.root)) / name

  def _check_tokenizer(self, expected: str | None) -> None:
    made_with = self.manifest["tokenizer_sha256"]
    if not self.tokenizer_path.exists():
      raise UserError(f"{self.tokenizer_path}: missing; put the vocabulary {made_with[:12]} there")
    if (found := sha256_of(self.tokenizer_path)) != made_with:
      raise UserError(f"{self.tokenizer_path}: sha256 {found[:12]}, but the rows' is {made_with[:12]}")
    if expected is not None and expected != made_with:
      raise UserError(
        f"{self.root}: rows made with vocabulary {made_with[:12]}, not {expected[:12]}; "
        "build the rows again or name the vocabulary they were made with"
      )


class _SplitReader:
  """Random access to one split. It numbers the rows of all shards of all languages from 0 on; that number is a key."""

  def __init__(self, store: RowStore, split: str):
    self._languages, self._counts = store.languages, store.counts(split)
    self._vocabulary_size, self._seq_len = store.vocabulary_size, store.seq_len
    self._parts = _example_parts(store.seq_len, bool(store.word_starts))
    self._marks_words = store.marks_words
    self._starts = np.cumsum(self._counts) - self._counts  # the key of each language's first row
    listed = sorted(store.manifest["files"])
    self._store, self._names = store, []
    owners = []
    for index, language in enumerate(store.languages):
      head = f"rows/{language}/{_VERSION}/rows-{split}.array_record-"
      names = [name for name in listed if name.startswith(head)]
      self._names += names
      owners += [index] * len(names)
    self._pool = ThreadPoolExecutor(_THREADS)
    self._readers: list[Any] = [None] * len(self._names)
    if store.cache is None:
      self._readers = list(self._pool.map(self._open, self._names))
      self._lengths = np.array([reader.num_records() for reader in self._readers], np.int64)
    else:  # Only what TFDS wrote beside them tells how long files are that have not come yet.
      lengths = in_parallel(lambda language: _lengths_of(store.root, language, split), store.languages)
      self._lengths = np.array([length for one in lengths for length in one], np.int64)
      if len(self._lengths) != len(self._names):
        raise UserError(f"{store.root}: dataset_info.json and manifest.json list different files; copy or rebuild the rows")
    self._ends = np.cumsum(self._lengths)
    held = np.zeros_like(self._counts)
    np.add.at(held, owners, self._lengths)
    for language, found, wanted in zip(store.languages, held, self._counts):
      if found != wanted:
        raise UserError(
          f"{store.root}: {language}/{split} holds {found} rows, its manifest says {wanted}; "
          "copy the store again or rebuild it"
        )

  def _reader(self, file: int) -> Any:
    """The reader of a file, which is opened when it is first read from, if it had to come from a bucket."""
    if self._readers[file] is None:
      reader = self._open(self._names[file])
      if reader.num_records() != self._lengths[file]:
        raise UserError(
          f"{self._names[file]}: holds {reader.num_records()} rows, dataset_info.json says {self._lengths[file]}; copy or "
          "rebuild the rows"
        )
      self._readers[file] = reader
    return self._readers[file]

  def _open(self, name: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    path = self._store.local_file(name)
    if not path.is_file():
      raise UserError(f"{path}: named in the manifest, but missing; copy the store again or rebuild it")
    try:
      reader = ArrayRecordReader(str(path))
      if not reader.ok():  # A damaged file does not raise: it says that it is empty.
        raise ValueError
      first = reader.read([0])[0] if reader.num_records() else None
    except (RuntimeError, ValueError, IndexError) as error:
      raise UserError(f"{path}: no readable ArrayRecord file; copy it again or rebuild") from error
    if first is not None and not self._parts.fit(first):
      raise UserError(f"{path}: its rows are not int32[{self._seq_len}]; rebuild the store")
    return reader

  def files_of(self, language: np.ndarray, row: np.ndarray) -> list[str]:
    """RowStore.files_of for this split."""
    files = np.searchsorted(self._ends, self._starts[language] + row, side="right")
    return [self._names[file] for file in dict.fromkeys(files.tolist())]

  def read(self, language: np.ndarray, row: np.ndarray) -> np.ndarray:
    """RowStore.read for this split."""
    if np.any((row < 0) | (row >= self._counts[language])):
      raise IndexError("a row lies outside its language")
    keys = self._starts[language] + row
    files = np.searchsorted(self._ends, keys, side="right")
    order = np.argsort(keys, kind="stable")
    files_in_order = files[order].tolist()
    for file in dict.fromkeys(files_in_order):
      self._reader(file)
    inside = (keys - (self._ends - self._lengths)[files])[order].tolist()

    def read_part(part: slice) -> bytes:
      # read([i, j, ...]) would make array_record scan its whole index and wake its 64 threads in every call. Where a batch
      # has few rows of a file, that takes 3 to 5 times as long per row as read(i, i + 1).
      records = []
      for file, i in zip(files_in_order[part], inside[part]):
        try:
          records += self._readers[file].read(i, i + 1)
        except RuntimeError as error:
          path = self._store.local_file(self._names[file])
          raise UserError(f"{path}: row {i} is damaged ({error}); copy or rebuild it") from error
      return b"".join(records)

    step = max(_ROWS_PER_THREAD, -(-len(keys) // _THREADS))
    parts = [slice(i, i + step) for i in range(0, len(keys), step)]
    # No Example is parsed, because every record is the same constant prefix and then the row.
    packed = np.frombuffer(b"".join(self._pool.map(read_part, parts)), np.uint8).reshape(-1, self._parts.size)
    begin = len(self._parts.prefix)
    end = begin + self._parts.row_bytes
    rows = np.empty((len(keys), self._seq_len), "<i4")
    rows.view(np.uint8)[order] = packed[:, begin:end]
    if rows.size and rows.view(np.uint32).max() >= self._vocabulary_size:
      bad = self._languages[language[np.argmax(rows.view(np.uint32).max(1))]]
      raise UserError(f"{bad}: a row holds an id outside [0, {self._vocabulary_size}); rebuild the store")
    if self._marks_words:
      bits = np.unpackbits(packed[:, end + len(self._parts.between) :], axis=1, count=self._seq_len)
      rows[order] += bits.astype(np.int32) * WORD_START
    return rows


def _lengths_of(root: AnyPath, language: str, split: str) -> list[int]:
  """The rows of each shard of a language's split, from its dataset_info.json. UserError: it is missing or another file."""
  path = root / "rows" / language / _VERSION / "dataset_info.json"
  try:
    splits = {one["name"]: one for one in read_json(path)["splits"]}
    lengths = [int(length) for length in splits[split]["shardLengths"]] if split in splits else []
    if not all(0 <= length < 2**48 for length in lengths):
      raise ValueError(f"{split} has shards of {str(lengths)[:40]} rows")
    return lengths
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}); copy or rebuild the rows") from None


class _ExampleParts(NamedTuple):
  """A serialized tf.train.Example of a row: `prefix`, the row, and, where words are told, `between` and a bit per token."""

  prefix: bytes
  row_bytes: int
  between: bytes
  size: int  # bytes of it all

  def fit(self, record: bytes) -> bool:
    """Whether a record is of this kind."""
    after_row = len(self.prefix) + self.row_bytes
    return len(record) == self.size and record.startswith(self.prefix) and record.startswith(self.between, after_row)


def _example_parts(seq_len: int, word_starts: bool = False) -> _ExampleParts:
  """The parts of {"tokens": bytes}, or of {"tokens": bytes, "word_starts": bytes}."""
  row, bits = bytes(4 * seq_len), bytes(-(-seq_len // 8))
  more = _entry(b"word_starts", bits) if word_starts else b""
  whole = bytes_field(1, _entry(b"tokens", row) + more)  # Example.features
  between = more[: len(more) - len(bits)]
  return _ExampleParts(whole[: len(whole) - len(more) - len(row)], len(row), between, len(whole))


def _entry(name: bytes, value: bytes) -> bytes:
  """An entry of the map Features.feature; its last bytes are the value."""
  feature = bytes_field(1, bytes_field(1, value))  # Feature.bytes_list, BytesList.value
  return bytes_field(1, bytes_field(1, name) + bytes_field(2, feature))  # the key and the value
