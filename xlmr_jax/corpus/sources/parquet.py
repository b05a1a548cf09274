"""Parquet files with a column of text, and perhaps columns of addresses and languages. Row groups are the unit of work."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xlmr_jax.corpus.sources import Damage, Document, Shard, refuse
from xlmr_jax.corpus.sources.fields import DEFAULT, Fields
from xlmr_jax.corpus.sources.lines import decode, tidy
from xlmr_jax.corpus.sources.paths import FileSource, find_files
from xlmr_jax.files import in_parallel, is_bucket, open_bytes

ENDINGS = (".parquet", ".parq", ".pq")
_BATCH = 256  # rows at a time, and fewer of long ones
_BATCH_BYTES = 64 << 20  # of the rows of a batch by their group's average, from which on they are fewer
_BUFFER = 1 << 20  # bytes of a column at a time


@dataclasses.dataclass(frozen=True)
class _Groups(Shard):
  """The row groups [start, end) of a file. end: None if its footer could not be read."""

  start: int = 0
  end: int | None = None
  row: int = 0  # the number of rows before them


class Parquet(FileSource):
  """The documents of Parquet files."""

  shard_type = _Groups

  def __init__(self, given: str, languages: Iterable[str] | None = None, fields: Fields = DEFAULT):
    """given: as find_files has it. languages: as FileSource has it."""
    super().__init__(find_files(given, ENDINGS, "--source=parquet:"), languages)
    self.fields = fields

  def shards(self, shard_bytes: int) -> list[Shard]:
    """Shards of about shard_bytes of the columns that are read, each some row groups of a file.

    Raises UserError: a file lacks a column. One that cannot be read is a shard, so that its damage is told when it is read.
    """
    shards: list[Shard] = []
    language, used = self.fields.constant, set(self.fields.used())
    # A footer costs a request or a seek, so those of many files are read side by side.
    footers = in_parallel(lambda file: _footer(file.path, used), self.files)
    for (path, size, _), footer in zip(self.files, footers, strict=True):
      if footer is None:
        shards.append(_Groups(path, size, language))
        continue
      names, groups = footer
      self.fields.check(names, path)
      start = row = rows = stored = 0
      for group, (group_stored, group_rows) in enumerate(groups):
        stored, rows = stored + group_stored, rows + group_rows
        if stored >= shard_bytes or group == len(groups) - 1:
          shards.append(_Groups(path, stored, language, start, group + 1, row))
          start, row, stored, rows = group + 1, row + rows, 0, 0
      if not groups:
        shards.append(_Groups(path, size, language, 0, 0))
    return shards

  def rows(self, shard: Shard) -> int:
    """How many rows a shard has; 0 if its file cannot be read."""
    assert isinstance(shard, _Groups)
    try:
      with _open(shard.name) as file:
        return sum(group.num_rows for group in itertools.islice(_row_groups(file.metadata), shard.start, shard.end))
    except _errors():
      return 0

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The documents of a shard; after a row group that cannot be read, those of the next one."""
    assert isinstance(shard, _Groups)
    path, row = shard.name, shard.row
    try:
      file = _open(path)
    except _errors() as error:
      on_damage(Damage(path, f"{'empty' if not shard.size else 'no Parquet file, or cut'} ({_line(error)}); it is lost"))
      return
    with file:
      names = file.schema_arrow.names
      self.fields.check(names, path)
      columns = list(dict.fromkeys(name for name in self.fields.used() if name in names))
      if not file.metadata.num_rows:
        on_damage(Damage(path, "it has no rows"))
      for group in range(shard.start, file.metadata.num_row_groups if shard.end is None else shard.end):
        begin, rows = row, file.metadata.row_group(group).num_rows
        try:
          average = _text_bytes(file.metadata.row_group(group), set(columns)) // max(1, rows)
          if average > _BATCH_BYTES:
            raise OSError(f"rows of {average} bytes on average, more than {_BATCH_BYTES >> 20} MB")
          # A group is read in batches, because FineWeb-2's take hundreds of megabytes.
          size = min(_BATCH, _BATCH_BYTES // max(1, average))
          for batch in file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
            yield from self._documents(path, row, columns, batch, on_damage)
            row += batch.num_rows
        except _errors() as error:
          lost = begin + rows - row
          on_damage(Damage(f"{path}, row {row}", f"{_line(error)}; {lost} rows up to the next row group are lost"))
        row = begin + rows

  def _documents(
    self, path: str, row: int, columns: list[str], batch: Any, on_damage: Callable[[Damage], None]
  ) -> Iterator[Document]:
    values = [_values(batch.column(index)) for index in range(len(columns))]
    for number in range(batch.num_rows):
      found = dict(zip(columns, (value[number] for value in values)))
      text, where = found[self.fields.text], f"{path}, row {row + number}"
      if text is None:
        continue
      if isinstance(text, bytes):
        text = decode(text, where, on_damage)
      if not isinstance(text, str):
        on_damage(Damage(where, f"the column {self.fields.text!r} is no text; the row is left out"))
        continue
      found = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in found.items()
      }
      language = self.fields.language_of(found)
      if self.wants(language) and (text := tidy(text)):
        yield Document(text, f"{path}:{row + number}", self.fields.url_of(found), language)


def _open(path: str) -> Any:
  from pyarrow.parquet import ParquetFile

  file: Any = open_bytes(path) if is_bucket(path) else path
  return ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True)


def _footer(path: str, used: set[str]) -> tuple[list[str], list[tuple[int, int]]] | None:
  """The names of the columns of a file, and _stored_and_rows of its row groups; None if they cannot be read."""
  try:
    with _open(path) as file:
      return file.schema_arrow.names, [_stored_and_rows(group, used) for group in _row_groups(file.metadata)]
  except _errors():
    return None


def _row_groups(metadata: Any) -> Iterator[Any]:
  return (metadata.row_group(group) for group in range(metadata.num_row_groups))


def _stored_and_rows(group: Any, used: set[str]) -> tuple[int, int]:
  """The bytes that the used columns of a row group take in the file, and its rows."""
  columns = (group.column(index) for index in range(group.num_columns))
  stored = sum(column.total_compressed_size for column in columns if column.path_in_schema.split(".")[0] in used)
  return stored, group.num_rows


def _text_bytes(group: Any, used: set[str]) -> int:
  """The bytes of the used columns of a row group without compression, as the file's footer tells."""
  columns = (group.column(index) for index in range(group.num_columns))
  return sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] in used)


def _errors() -> tuple[type[Exception], ...]:
  from pyarrow import ArrowException

  return (ArrowException, OSError, UnicodeError)  # The last one is for names of columns in a damaged footer.


def _values(column: Any) -> list:
  """A column as Python's values, texts as bytes, because pyarrow would refuse a whole column for one that is not UTF-8."""
  import pyarrow

  kind = column.type
  if pyarrow.types.is_dictionary(kind):
    column, kind = column.dictionary_decode(), kind.value_type
  if pyarrow.types.is_string(kind):
    column = column.cast(pyarrow.binary())
  elif pyarrow.types.is_large_string(kind):
    column = column.cast(pyarrow.large_binary())
  return column.to_pylist()


def _line(error: Exception) -> str:
  return " ".join(str(error).split())[:200]
