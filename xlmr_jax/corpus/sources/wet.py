"""WET files of CommonCrawl: the text of each page, in "conversion" records, which do not say its language."""

from collections.abc import Callable, Iterable, Iterator

from xlmr_jax.corpus.sources import Damage, Document, Shard, refuse
from xlmr_jax.corpus.sources.lines import decode, tidy
from xlmr_jax.corpus.sources.paths import FileSource, find_files, with_compressed
from xlmr_jax.corpus.sources.warc_records import read_records

ENDINGS = with_compressed(".wet", ".wet.txt")


class Wet(FileSource):
  """The pages of WET files."""

  def __init__(self, given: str, languages: Iterable[str] | None = None):
    """given: as find_files has it. languages: is ignored, because no page says its own."""
    super().__init__(find_files(given, ENDINGS, "--source=wet:"), languages)

  def documents(self, shard: Shard, on_damage: Callable[[Damage], None] = refuse) -> Iterator[Document]:
    """The pages of a file, each line a paragraph."""
    for name, url, body, where, _ in read_records(shard.name, "conversion", on_damage):
      if text := tidy(decode(body, where, on_damage)):
        yield Document(text, name, url, "")
