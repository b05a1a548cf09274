"""Any text data set of TensorFlow Datasets that is prepared on this machine. It is never downloaded from here."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xlmr_jax.corpus.sources import Damage, Document, Shard, Source, refuse
from xlmr_jax.corpus.sources.fields import DEFAULT, Fields, asked_languages, normal_code
from xlmr_jax.corpus.sources.lines import decode, tidy
from xlmr_jax.data.tfds_features import refuse_foreign_features
from xlmr_jax.errors import UserError

_NAME = re.compile(r"(?P<name>[^\[\],]+?)(?:\[(?P<split>\w+)\])?")
# Wiki-40B's marks (Guo et al. 2020, section 3) stand in lines of their own, but for the last one.
_MARKS = re.compile(r"\n?_START_(?:ARTICLE|SECTION|PARAGRAPH)_\n?")
_NEWLINE = "_NEWLINE_"


@dataclasses.dataclass(frozen=True)
class _Part(Shard):
  """Some files of a split."""

  dataset: str = ""
  split: str = ""  # as TFDS spells the files


class TfdsText(Source):
  """The documents of some data sets."""

  shard_type = _Part

  def __init__(
    self, names: str, languages: Iterable[str] | None = None, fields: Fields = DEFAULT, data_dir: str | None = None
  ):
    """names: such as "wiki40b/de,wiki40b/en[validation]", by comma; "train" and the like are read if no split is named.

    data_dir: where the data sets lie, by default where TFDS looks for them (TFDS_DATA_DIR, or ~/tensorflow_datasets).
    Raises UserError: a data set is not there, or has no such split or field.
    """
    self.fields, self.data_dir = fields, data_dir
    self.languages = asked_languages(languages)
    self.names: list[tuple[str, str]] = []
    for part in names.split(","):
      if not (found := _NAME.fullmatch(part.strip())):
        raise UserError(f"--source=tfds:{names}: {part!r} is no name; write e.g. wiki40b/de,wiki40b/en[validation]")
      if re.match(r"[^/:]*:(?![0-9*])", found["name"]):  # What follows on a dataset's name is its version.
        raise UserError(
          f"--source=tfds:{names}: {part.strip()!r} is a data set of a community, which brings code of its own; that is not "
          "run, so write its text as JSON lines or Parquet"
        )
      self.names.append((found["name"], found["split"] or ""))
      if self.names[-1] in self.names[:-1]:
        raise UserError(f"--source=tfds:{names}: {part.strip()} is there twice")

  def shards(self, shard_bytes: int) -> list[Shard]:
    """Shards of about shard_bytes, each some files of a split."""
    shards: list[Shard] = []
    for name, wanted in self.names:
      builder = self._builder(name)
      self.fields.check(_features(builder), f"tfds {name}")
      there = builder.info.splits
      splits = [wanted] if wanted else [split for split in there if split.startswith("train")]
      if not splits or (wanted and wanted not in there):
        has = ", ".join(there) or "none"
        raise UserError(f"tfds {name}: no split {wanted or 'train'}; it has {has}: write {name}[SPLIT]")
      language = self.fields.constant or _language_of(name)
      if not self._wants(language):
        continue
      for split in splits:
        files, size = there[split].num_shards, there[split].num_bytes
        step = max(1, min(files, int(shard_bytes * files / max(1, size))))
        for start in range(0, files, step):
          end = min(files, start + step)
          spelled = f"{split}[{start}shard:{end}shard]"
          shards.append(_Part(f"tfds {name}, {spelled}", size * (end - start) // files, language or None, name, spelled))
    return shards

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The documents of a shard."""
    assert isinstance(shard, _Part)
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder, number = self._builder(shard.dataset), 0
    names = [name for name in self.fields.used() if name in _features(builder)]
    read_config = tfds.ReadConfig(interleave_cycle_length=1, skip_prefetch=True)
    is_wiki = shard.dataset.split("/")[0].split(":")[0] == "wiki40b"
    try:
      data = builder.as_dataset(split=shard.split, shuffle_files=False, read_config=read_config)
      for row in data.as_numpy_iterator():
        where = f"{shard.name}, example {number}"
        number += 1
        text = row[self.fields.text]
        if not isinstance(text, bytes):
          on_damage(Damage(where, f"the field {self.fields.text!r} is no text; the example is left out"))
          continue
        text = decode(text, where, on_damage)
        found = {name: _plain(row[name]) for name in names}
        language = shard.language or self.fields.language_of(found)
        if self._wants(language) and (text := tidy(_without_marks(text) if is_wiki else text)):
          yield Document(text, where, self.fields.url_of(found), language)
    except (tf.errors.OpError, OSError) as error:
      reason = " ".join(str(error).split())[:200]
      on_damage(Damage(f"{shard.name}, example {number}", f"{reason}; the rest of these files is lost"))

  def _wants(self, language: str) -> bool:
    """Whether documents with this label are taken; those without one always are."""
    return not language or self.languages is None or language in self.languages

  def _builder(self, name: str) -> Any:
    """The builder of a data set. UserError: it is not prepared."""
    import tensorflow_datasets as tfds

    why = ""
    refuse_foreign_features(name, self.data_dir)
    try:
      builder = tfds.builder(name, data_dir=self.data_dir, try_gcs=False)
      if builder.is_prepared():
        return builder
    except Exception as error:  # Builders are code of other people, which may raise anything.
      why = " ".join(str(error).split())[:200]
    where = self.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    raise UserError(
      f"tfds {name}: not prepared in {where}{f' ({why})' if why else ''}; prepare it with `tfds build {name}`, or name the "
      "folder that holds it with TFDS_DATA_DIR"
    )


def _features(builder: Any) -> list[str]:
  return list(getattr(builder.info.features, "keys", list)())


def _plain(value: object) -> object:
  return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _without_marks(text: str) -> str:
  """An article of Wiki-40B with a line for each of its title, headings and paragraphs."""
  return _MARKS.sub("\n", text).replace(_NEWLINE, "\n")


def _language_of(name: str) -> str:
  """The language of a data set whose name tells it: Wiki-40B has a config for each. "" for all others."""
  dataset, _, config = name.partition("/")
  return normal_code(config.partition(":")[0]) if dataset == "wiki40b" and config else ""
