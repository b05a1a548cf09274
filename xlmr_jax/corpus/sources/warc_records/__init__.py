"""The records of a WARC or WET file, plain or compressed, each whole, or named with its place in the stored file.

fastwarc reads the common case, a gzip member per record, and is several times as fast as Python. But it gives a record that
is cut as if it were whole, takes one without Content-Length for an empty one, knows no headers that end in a bare newline,
and gives up at the first damage. So it is trusted only where a check says that nothing of that kind is there (fast.py); from
then on careful.py reads the file again, and passes over the records that were given already.
"""

from collections.abc import Callable, Iterator

from xlmr_jax.corpus.sources import Damage
from xlmr_jax.corpus.sources.warc_records.careful import read_carefully
from xlmr_jax.corpus.sources.warc_records.fast import begins_with_a_member_per_record, read_fast
from xlmr_jax.corpus.sources.warc_records.record import Record
from xlmr_jax.errors import UserError
from xlmr_jax.files import is_bucket, on_this_machine

__all__ = ["Record", "read_records"]

_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}


def read_records(path: str, kind: str, on_damage: Callable[[Damage], None]) -> Iterator[Record]:
  """The records of type `kind`, such as "conversion", in order. Files without any are damage too.

  One of a bucket is on this machine's disk while it is read; records and damage name its place in the bucket.
  Raises UserError: the file cannot be opened.
  """
  if not is_bucket(path):
    yield from _read(path, kind, on_damage)
    return
  try:
    with on_this_machine(path) as copy:

      def in_bucket(where: str) -> str:
        return path + where.removeprefix(str(copy)) if where.startswith(str(copy)) else where

      def report(damage: Damage) -> None:
        on_damage(Damage(in_bucket(damage.where), damage.reason))

      for record in _read(str(copy), kind, report):
        yield record._replace(id=in_bucket(record.id), where=in_bucket(record.where))
  except FileNotFoundError as error:
    raise UserError(f"{path}: cannot be read (no such file)") from error


def _read(path: str, kind: str, on_damage: Callable[[Damage], None]) -> Iterator[Record]:
  try:
    with open(path, "rb") as file:
      magic = file.read(6)
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror})") from error
  if not magic:
    on_damage(Damage(path, "it is empty"))
    return
  compression = next((known for start, known in _MAGIC.items() if magic.startswith(start)), "")
  given = 0
  if compression == ".gz" and begins_with_a_member_per_record(path):
    if (yield from read_fast(path, kind, count := [0])):
      return
    given = count[0]
  yield from read_carefully(path, kind, compression, given, on_damage)
